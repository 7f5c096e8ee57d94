//! Addresses, routes and devices on NICs that become slaves, which do not work with a bond: xbond names or refuses
//! them.

use std::process::Output;

use xbond_tests::{Lab, PEER_V4, Xbond, skip_if_unable, xbond::binary};

const BOND: &str = "--bond bond0 --slave enp0s8 --slave enp0s9 -o miimon=100";

/// Runs xbond to its end.
fn xbond(lab: &Lab, line: &str) -> Output {
    lab.host.command(binary().unwrap()).args(line.split_whitespace()).output().unwrap()
}

/// Returns both outputs.
fn said(lab: &Lab, line: &str) -> String {
    let Output { stdout, stderr, .. } = xbond(lab, line);
    String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
}

#[track_caller]
fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[test]
fn addresses_that_stay_on_a_slave_are_named() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    lab.host.ip("address add 192.168.99.50/24 dev enp0s9").unwrap();
    lab.host.ip("address add 192.168.99.51/24 dev enp0s9 valid_lft 900 preferred_lft 900").unwrap();
    lab.host.ip("address add 2001:db8::50/64 dev enp0s9 nodad").unwrap();
    let stays = ["has the address 192.168.99.50/24", "ip address del 192.168.99.50/24 dev enp0s9"];
    let expires = ["has the address 192.168.99.51/24", "run the DHCP client on bond0 instead of enp0s9"];
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let text = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n";
    std::fs::write(file.path(), text).unwrap();
    let checked = said(&lab, &format!("check {}", file.path().display()));
    contains(&checked, &[&stays[..], &expires, &["[slave-address]"]].concat());
    contains(&said(&lab, "doctor enp0s9"), &["warn  enp0s9: addresses: has the address 192.168.99.50/24"]);

    let run = format!("{BOND} --address 192.168.99.101/24");
    let agent = Xbond::run(&lab.host, run.split_whitespace()).unwrap();
    // The log may appear after the agent is ready.
    agent.wait_for("has the address 192.168.99.51/24").unwrap();
    contains(&agent.log(), &[&["WARN bond0: enp0s9: has the address"][..], &stays, &expires].concat());
    assert!(!agent.log().contains("2001:db8"), "IPv6 addresses do not stay: {}", agent.log());
    // As the log says: the route of the slave exists, and leads nowhere.
    let routes = lab.host.ip("-4 route show").unwrap();
    contains(&routes, &["192.168.99.0/24 dev enp0s9", "192.168.99.0/24 dev bond0"]);
    let ping = format!("ping -c 1 -W 1 -I 192.168.99.50 {PEER_V4}");
    assert!(lab.host.exec(&ping).is_err(), "{routes}");
    agent.cli(["del-slave", "bond0", "enp0s9"]).unwrap();
    contains(&said(&lab, "add-slave bond0 enp0s9"), &stays);
    let again = said(&lab, "add-slave bond0 enp0s9");
    contains(&again, &["enp0s9: is a slave of bond0 already"]);
    assert!(!again.contains("--force"), "{again}");
    agent.stop().unwrap();
}

#[test]
fn an_address_with_a_lifetime_that_is_moved_is_named() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    lab.host.ip("link set enp0s8 up").unwrap();
    lab.host.ip("address add 192.168.99.101/24 dev enp0s8 valid_lft 900 preferred_lft 900").unwrap();
    lab.host.ip("address add 198.51.100.7/24 dev enp0s9").unwrap();
    let run = format!("{BOND} --move-addresses");
    let agent = Xbond::run(&lab.host, run.split_whitespace()).unwrap();
    let log = agent.log();
    contains(&log, &["192.168.99.101/24 was assigned to enp0s8 for a time", "run the DHCP client on bond0"]);
    // A second slave contributes no addresses.
    contains(&log, &["enp0s9: has the address 198.51.100.7/24"]);
    assert!(!log.contains("enp0s8: has the address"), "{log}");
    agent.stop().unwrap();
}

#[test]
fn a_nic_below_a_macvlan_is_refused_by_name() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    lab.host.ip("link add mv0 link enp0s9 type macvlan mode bridge").unwrap();
    let refusal = ["enp0s9: the macvlan mv0 lies above it", "ip link del mv0"];
    let output = xbond(&lab, &format!("run {BOND}"));
    assert_eq!(output.status.code(), Some(2));
    contains(&String::from_utf8_lossy(&output.stderr), &refusal);
    contains(&said(&lab, "doctor enp0s9"), &["FAIL  enp0s9: slave: the macvlan mv0 lies above it"]);
    assert!(lab.host.link("bond0").is_err());
    let agent =
        Xbond::run(&lab.host, "--bond bond0 --slave enp0s8 -o miimon=100".split_whitespace()).unwrap();
    contains(&said(&lab, "add-slave bond0 enp0s9"), &refusal);
    lab.host.ip("link del mv0").unwrap();
    agent.cli(["add-slave", "bond0", "enp0s9"]).unwrap();
    // doctor names a device that appears later.
    lab.host.ip("link add mv0 link enp0s9 type macvlan mode bridge").unwrap();
    lab.host.ip("link set mv0 up").unwrap();
    contains(&said(&lab, "doctor enp0s9"), &["warn  enp0s9: above: the macvlan mv0 lies above it"]);
    agent.stop().unwrap();
}

/// A kernel without 802.1Q has no VLAN to name.
#[test]
fn devices_above_a_slave_are_named() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    if lab.host.ip("link add link enp0s9 name vlan7 type vlan id 7").is_err() {
        xbond_tests::skip("no VLANs in this kernel");
        return;
    }
    lab.host.ip("link set enp0s9 up").unwrap();
    lab.host.ip("link set vlan7 up").unwrap();
    let agent = Xbond::run(&lab.host, BOND.split_whitespace()).unwrap();
    contains(&agent.log(), &["enp0s9: the VLAN vlan7 lies above it and receives nothing"]);
    agent.stop().unwrap();
}

#[test]
fn a_bond_that_is_set_down_is_named_by_show() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let agent = Xbond::run(&lab.host, BOND.split_whitespace()).unwrap();
    let warning = "bond0 is set down and carries nothing; to set it up: ip link set bond0 up";
    assert!(!said(&lab, "show").contains(warning));
    lab.host.ip("link set bond0 down").unwrap();
    agent.wait_for(warning).unwrap();
    contains(&said(&lab, "show"), &[warning]);
    agent.kill().unwrap();
    contains(&said(&lab, "show"), &["no agent", warning]);
    lab.host.ip("link set bond0 up").unwrap();
    assert!(!said(&lab, "show").contains(warning));
    contains(&said(&lab, "down --force bond0"), &[]);
}

#[test]
fn set_and_show_name_the_next_command() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let empty: serde_json::Value = serde_json::from_str(&said(&lab, "show -j")).unwrap();
    assert_eq!(empty["bonds"], serde_json::json!([]));
    let agent = Xbond::run(&lab.host, BOND.split_whitespace()).unwrap();
    for setting in ["datapath=xdp", "mac=02:00:00:00:00:01", "prearm=true", "pair=veth"] {
        contains(
            &said(&lab, &format!("set bond0 {setting}")),
            &["is a setting of xbond", "it needs another bond"],
        );
    }
    for setting in ["slaves=eth0", "addresses=192.0.2.1/24", "routes=default"] {
        contains(&said(&lab, &format!("set bond0 {setting}")), &["is a setting of xbond", "xbond reload"]);
    }
    agent.stop().unwrap();
}
