//! `xbond drain` and `damping`: slaves that have a link and are not to carry traffic.

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{
    BOND, DATAPATHS, SLAVES, bond, bond_with, concurrently, eventually, lab, rate, show, slave, traffic,
    wait_for_active, wait_for_status,
};
use serde_json::Value;
use xbond_tests::{Lab, Policy, Xbond, lab::Cut, lab::Datapath, skip_if_unable, xbond::cli};

const POLICIES: [&str; 3] = ["none", "active", "follow"];
/// For each policy and datapath.
const WORKS: usize = 10;

fn failures(xbond: &Xbond<'_>, name: &str) -> u64 {
    slave(&show(xbond), name)["link_failure_count"].as_u64().unwrap()
}

/// Works on the port of a drained slave: its link is lost, and its MTU is changed and restored.
fn work_on(lab: &Lab, xbond: &Xbond<'_>, name: &str) {
    for change in ["down", "mtu 1400", "mtu 1500", "up"] {
        lab.host.ip(&format!("link set dev {name} {change}")).unwrap();
    }
    wait_for_status(xbond, name, "up");
}

#[test]
fn work_on_a_drained_slave_loses_nothing() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        for policy in POLICIES {
            let lab = lab(datapath, Policy::Learning);
            let xbond = bond(&lab, datapath, &[&format!("fail_over_mac={policy}")]);
            let flows = traffic(&lab, rate() / 10);
            flows.wait_for_more(100).unwrap();
            for number in 0..WORKS {
                let name = SLAVES[number % 2];
                xbond.cli(["drain", BOND, name, "--wait", "60"]).unwrap();
                work_on(&lab, &xbond, name);
                xbond.cli(["undrain", BOND, name]).unwrap();
            }
            flows.wait_for_more(100).unwrap();
            for report in flows.stop().unwrap() {
                assert_eq!(report.account.lost, 0, "{datapath:?} {policy}: {report:?}");
            }
            assert_eq!(SLAVES.map(|name| failures(&xbond, name)), [0, 0], "{datapath:?} {policy}");
            xbond.stop().unwrap();
        }
    }
}

fn drained(bond: &Value, name: &str) -> Value {
    slave(bond, name)["drained"].clone()
}

#[test]
fn a_drain_outlives_the_agent_and_the_bond() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let options = ["primary=enp0s8"];
    let xbond = bond(&lab, Datapath::Tc, &options);
    xbond.cli(["drain", BOND, SLAVES[0], "--why", "a new cable"]).unwrap();
    wait_for_active(&xbond, SLAVES[1]);
    let text = xbond.cli(["show", BOND]).unwrap();
    assert!(text.contains("enp0s8 is drained: a new cable"), "{text}");
    xbond.kill().unwrap();
    let left: Value = serde_json::from_str(&cli(&lab.host, ["show", BOND, "-j"]).unwrap()).unwrap();
    assert_eq!(drained(&left["bonds"][0], SLAVES[0])["why"], "a new cable", "without an agent: {left}");
    let adopting = bond(&lab, Datapath::Tc, &options);
    let bond_now = show(&adopting);
    assert_eq!(
        (&bond_now["active_slave"], slave(&bond_now, SLAVES[0])["mii_status"].as_str()),
        (&SLAVES[1].into(), Some("up"))
    );
    adopting.stop().unwrap();
    let again = bond(&lab, Datapath::Tc, &options);
    wait_for_active(&again, SLAVES[1]);
    again.cli(["undrain", BOND, SLAVES[0]]).unwrap();
    wait_for_active(&again, SLAVES[0]);
    assert_eq!(drained(&show(&again), SLAVES[0]), Value::Null);
    let last = again.cli(["log", BOND]).unwrap();
    assert!(last.contains("drain ended"), "{last}");
    again.stop().unwrap();
}

#[test]
fn a_drain_ends_after_its_time_or_with_its_slave() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["primary=enp0s8"]);
    xbond.cli(["drain", BOND, SLAVES[0], "--for", "1s"]).unwrap();
    assert!(drained(&show(&xbond), SLAVES[0])["seconds_left"].as_u64().unwrap() <= 1);
    wait_for_active(&xbond, SLAVES[0]);
    xbond.wait_for("its drain ended after its time").unwrap();
    xbond.cli(["drain", BOND, SLAVES[0]]).unwrap();
    xbond.cli(["del-slave", BOND, SLAVES[0]]).unwrap();
    xbond.cli(["add-slave", BOND, SLAVES[0]]).unwrap();
    assert_eq!(drained(&show(&xbond), SLAVES[0]), Value::Null);
    xbond.cli(["drain", BOND, SLAVES[0], "--for", "1s"]).unwrap();
    lab.host.ip("link set enp0s8 name lan0").unwrap();
    xbond.wait_for_after(xbond.log().len(), "its drain ended after its time").unwrap();
    xbond.set(BOND, "active_slave=lan0").unwrap();
    lab.host.ip("link set lan0 name enp0s8").unwrap();
    xbond.stop().unwrap();
}

#[test]
fn slaves_that_exchange_names_keep_their_drains() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let [first, second] = SLAVES;
    xbond.cli(["drain", BOND, second]).unwrap();
    for (from, to) in [(second, "other"), (first, second), ("other", first)] {
        lab.host.ip(&format!("link set {from} name {to}")).unwrap();
    }
    let are_drained = || {
        let bond = show(&xbond);
        SLAVES.map(|name| {
            let slaves = bond["slaves"].as_array().unwrap().iter();
            let named = slaves.filter(|slave| slave["name"] == name);
            named.map(|slave| !slave["drained"].is_null()).collect::<Vec<_>>()
        })
    };
    eventually("the drain", are_drained, |drained| *drained == [vec![true], vec![false]]);
    xbond.cli(["undrain", BOND, second]).unwrap();
    assert_eq!(are_drained(), [vec![true], vec![false]]);
    xbond.cli(["undrain", BOND, first]).unwrap();
    eventually("no drain", are_drained, |drained| *drained == [vec![false], vec![false]]);
    xbond.stop().unwrap();
}

#[test]
fn a_drain_ends_when_its_bond_is_removed_without_an_agent() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    for removal in [&["down", BOND, "--force"][..], &["down", "--all"]] {
        let xbond = bond(&lab, Datapath::Tc, &[]);
        assert_eq!(drained(&show(&xbond), SLAVES[0]), Value::Null);
        xbond.cli(["drain", BOND, SLAVES[0]]).unwrap();
        xbond.kill().unwrap();
        cli(&lab.host, removal).unwrap();
    }
    let xbond = bond(&lab, Datapath::Tc, &[]);
    wait_for_active(&xbond, SLAVES[0]);
    xbond.stop().unwrap();
}

#[test]
fn a_refused_drain_changes_nothing() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let refused = |arguments: &[&str], why: &str| {
        let error = xbond.cli(arguments).unwrap_err().to_string();
        assert!(error.contains(why), "{arguments:?}: {error}");
    };
    lab.cut(SLAVES[1], Cut::Carrier).unwrap();
    wait_for_status(&xbond, SLAVES[1], "down");
    refused(&["drain", BOND, SLAVES[0]], "no other slave is up");
    refused(&["drain", BOND, "eth9"], "eth9");
    refused(&["drain", "bond9", SLAVES[0]], "bond9");
    refused(&["drain", BOND, SLAVES[1], "--for", "0s"], "not a time");
    refused(&["drain", BOND, SLAVES[1], "--why", "two\nlines"], "one line");
    refused(&["undrain", BOND, "eth9"], "eth9");
    let bond_now = show(&xbond);
    assert_eq!(SLAVES.map(|name| drained(&bond_now, name)), [Value::Null, Value::Null]);
    lab.reconnect(SLAVES[1], Cut::Carrier).unwrap();
    xbond.stop().unwrap();
}

/// The clock fails over without an agent.
#[test]
fn without_an_agent_a_drained_slave_is_the_last_choice() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["primary=enp0s8"]);
    xbond.cli(["drain", BOND, SLAVES[0]]).unwrap();
    xbond.kill().unwrap();
    let active = || {
        let report: Value = serde_json::from_str(&cli(&lab.host, ["show", BOND, "-j"]).unwrap()).unwrap();
        report["bonds"][0]["active_slave"].as_str().map(str::to_owned)
    };
    for cut in [true, false] {
        if cut { lab.cut(SLAVES[0], Cut::Carrier) } else { lab.reconnect(SLAVES[0], Cut::Carrier) }.unwrap();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(active().as_deref(), Some(SLAVES[1]), "the link of the drained slave: {}", !cut);
    }
    lab.cut(SLAVES[1], Cut::Carrier).unwrap();
    eventually("the active slave", active, |active| active.as_deref() == Some(SLAVES[0]));
    lab.reconnect(SLAVES[1], Cut::Carrier).unwrap();
    eventually("the active slave", active, |active| active.as_deref() == Some(SLAVES[1]));
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn a_slave_that_flaps_is_damped_until_damping_is_set_to_off() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond_with(&lab, Datapath::Tc, &["primary=enp0s8", "damping=half_life=600,max=600"], &[]);
    for _ in 0..4 {
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_status(&xbond, SLAVES[0], "down");
        lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_status(&xbond, SLAVES[0], "up");
    }
    let bond_now = show(&xbond);
    assert_eq!(
        (&bond_now["active_slave"], &slave(&bond_now, SLAVES[0])["damped"]),
        (&SLAVES[1].into(), &true.into())
    );
    let log: Value = serde_json::from_str(&xbond.cli(["log", BOND, "-j"]).unwrap()).unwrap();
    // The first one is of the start.
    assert!(log["receipts"].as_array().unwrap().len() <= 6, "{log}");
    let damping = &slave(&bond_now, SLAVES[0])["damping"];
    assert!(damping["penalty"].as_f64().is_some_and(|penalty| (2.5..=3.0).contains(&penalty)), "{damping}");
    assert!(
        damping["since"]["monotonic_us"].is_u64() && damping["seconds_left"].as_u64() > Some(60),
        "{damping}"
    );
    assert!(slave(&bond_now, SLAVES[1])["damping"].is_null());
    let text = xbond.cli(["show", BOND]).unwrap();
    assert!(
        text.contains("enp0s8 is damped: its link flapped; since ") && text.contains(", penalty "),
        "{text}"
    );
    let error = xbond.set(BOND, "damping=half_life=0").unwrap_err().to_string();
    assert!(error.contains("half_life"), "{error}");
    xbond.set(BOND, "damping=off").unwrap();
    wait_for_active(&xbond, SLAVES[0]);
    xbond.stop().unwrap();
}

/// With the default settings. The other link is stable; at the end it fails, and the slave that flapped is used.
#[test]
fn a_minute_of_flaps_twice_a_second_costs_five_failovers_at_most() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond_with(&lab, Datapath::Tc, &["primary=enp0s8", "damping=half_life=15"], &[]);
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        thread::sleep(Duration::from_millis(250));
        lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
        thread::sleep(Duration::from_millis(250));
    }
    let log: Value = serde_json::from_str(&xbond.cli(["log", BOND, "-j"]).unwrap()).unwrap();
    // The first one is of the start.
    let failovers = log["receipts"].as_array().unwrap().len() - 1;
    println!("{failovers} failovers");
    assert!(failovers <= 5, "{log}");
    let of_slave = slave(&show(&xbond), SLAVES[0]);
    assert!(of_slave["link_failure_count"].as_u64() > Some(50), "{of_slave}");
    lab.cut(SLAVES[1], Cut::Carrier).unwrap();
    wait_for_active(&xbond, SLAVES[0]);
    xbond.stop().unwrap();
}

#[test]
fn own_settings_of_a_running_bond_are_set() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    for (setting, field, expected) in [
        ("guard=off", "guard", "off"),
        ("clock_interval=20", "clock", "on, every 20 ms"),
        ("clock=off", "clock", "off"),
        ("on_exit=keep", "on_exit", "keep"),
    ] {
        xbond.set(BOND, setting).unwrap();
        let field = || show(&xbond)[field].as_str().unwrap().to_owned();
        eventually(setting, field, |seen| seen.starts_with(expected));
    }
    xbond.set(BOND, "mtu=1400").unwrap();
    assert_eq!(show(&xbond)["mtu"], 1400);
    for setting in ["datapath=xdp", "slaves=enp0s8", "clock_interval=0"] {
        assert!(xbond.set(BOND, setting).is_err(), "{setting}");
    }
    xbond.set(BOND, "on_exit=down").unwrap();
    xbond.stop().unwrap();
}
