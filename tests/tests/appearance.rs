//! What other programs see of a bond, where the driver shows a master with its slaves.

mod common;
mod snapshot;

use std::path::Path;

use common::{BOND, SLAVES, eventually, show};
use serde_json::Value;
use xbond_tests::{Lab, NetNs, Xbond, skip_if_unable};

fn link(netns: &NetNs, name: &str) -> Value {
    let links: Value =
        serde_json::from_str(&netns.ip(&format!("-details -json link show dev {name}")).unwrap()).unwrap();
    links[0].clone()
}

fn has_flag(link: &Value, flag: &str) -> bool {
    link["flags"].as_array().unwrap().iter().any(|known| known == flag)
}

#[test]
fn programs_see_a_pair_instead_of_a_master() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let xbond = Xbond::run(
        &lab.host,
        ["--bond", BOND, "--slave", SLAVES[0], "--slave", SLAVES[1], "-o", "miimon=100"],
    )
    .unwrap();
    for name in SLAVES {
        let slave = link(&lab.host, name);
        assert!(!has_flag(&slave, "SLAVE") && slave["master"].is_null(), "{slave}");
        assert!(slave["linkinfo"]["info_slave_kind"].is_null(), "{slave}");
    }
    let bond = link(&lab.host, BOND);
    assert!(!has_flag(&bond, "MASTER"), "{bond}");
    let kind = bond["linkinfo"]["info_kind"].as_str().unwrap();
    assert!(["netkit", "veth"].contains(&kind), "{bond}");
    let sysfs = |path: &str| lab.host.exec(&format!("ls /sys/class/net/{path}"));
    assert!(sysfs("bond0/bonding").is_err() && !Path::new("/proc/net/bonding/bond0").exists());
    // xbond shows which slave is active; the links show the consequences.
    assert_eq!(show(&xbond)["active_slave"], SLAVES[0]);
    assert!(xbond.cli(["show", "--proc", BOND]).unwrap().contains("Currently Active Slave: enp0s8"));
    xbond.stop().unwrap();
}

/// The driver creates bond0 down, and another program has to set it up.
#[test]
fn bond_is_up_as_soon_as_it_is_created() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let xbond = Xbond::run(&lab.host, ["--bond", BOND, "--slave", SLAVES[0], "-o", "miimon=100"]).unwrap();
    assert!(has_flag(&link(&lab.host, BOND), "UP"));
    xbond.stop().unwrap();
}

#[test]
fn a_bond_without_slaves_is_created_by_flags_and_takes_slaves_later() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let found = snapshot::Snapshot::of(&lab.host);
    let xbond = Xbond::run(&lab.host, ["--bond", BOND, "-o", "miimon=100"]).unwrap();
    let bond = link(&lab.host, BOND);
    assert!(has_flag(&bond, "UP") && has_flag(&bond, "NO-CARRIER"), "{bond}");
    assert_eq!(show(&xbond)["slaves"], Value::Array(Vec::new()));
    xbond.cli(["add", "--bond", "bond1", "-o", "miimon=100"]).unwrap();
    xbond.cli(["add-slave", BOND, SLAVES[0]]).unwrap();
    xbond.cli(["add-slave", "bond1", SLAVES[1]]).unwrap();
    for (bond, slave) in [BOND, "bond1"].into_iter().zip(SLAVES) {
        let active = || xbond.show(bond).unwrap()["bonds"][0]["active_slave"].clone();
        eventually("its slave is active", active, |active| active == slave);
    }
    // Unmonitored, it is refused like any other bond.
    let error = xbond.cli(["add", "--bond", "bond2"]).unwrap_err().to_string();
    assert!(error.contains("miimon"), "{error}");
    xbond.stop().unwrap();
    found.assert_holds(&lab.host, "stopped");
}

/// In another network namespace the agent cannot restore what the bond set; it does so when the slave has returned.
#[test]
fn allmulticast_of_a_slave_that_was_away_is_off_again() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let is_allmulti = |netns: &NetNs, name: &str| has_flag(&link(netns, name), "ALLMULTI");
    let xbond = Xbond::run(
        &lab.host,
        ["--bond", BOND, "--slave", SLAVES[0], "--slave", SLAVES[1], "-o", "miimon=100"],
    )
    .unwrap();
    assert!(is_allmulti(&lab.host, SLAVES[1]));
    lab.host.ip(&format!("link set {} netns {}", SLAVES[1], lab.peer.name())).unwrap();
    assert!(is_allmulti(&lab.peer, SLAVES[1]), "the kernel keeps the flag");
    eventually("it is no slave", || show(&xbond)["slaves"].as_array().unwrap().len(), |count| *count == 1);
    lab.peer.ip(&format!("link set {} netns {}", SLAVES[1], lab.host.name())).unwrap();
    xbond.wait_for("returned; restored").unwrap();
    assert!(!is_allmulti(&lab.host, SLAVES[1]));
    xbond.stop().unwrap();
}
