//! A verb returns when its request is complete, including its failover record, or reports what is still pending.

mod common;

use std::{path::Path, process::Command};

use common::{BOND, SLAVES, bond, concurrently, eventually, lab};
use nix::sys::signal::Signal;
use serde_json::Value;
use xbond_tests::{
    Lab, NetNs, Nic, Policy, Xbond, lab::Datapath, rtnl::RtnlHeld, skip_if_unable, time_is_no_measure,
    xbond::binary,
};

const POLICIES: [&str; 3] = ["none", "active", "follow"];
const SWITCHES: usize = 50;
const JOINS: usize = 40;
/// The exit code of a verb that has begun a change which is not complete.
const NOT_YET: i32 = 3;

/// Runs a change with the time limit for a machine on which others hold RTNL for seconds.
fn change(xbond: &Xbond<'_>, line: &str) {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    xbond.cli([verb, "--wait", "60"].into_iter().chain(rest.split(' '))).unwrap();
}

fn mac(netns: &NetNs, name: &str) -> String {
    let links: Value = serde_json::from_str(&netns.ip(&format!("-j link show dev {name}")).unwrap()).unwrap();
    links[0]["address"].as_str().unwrap().to_owned()
}

/// Returns the failover records of the bond, the oldest first.
fn records(xbond: &Xbond<'_>) -> Vec<Value> {
    let log: Value = serde_json::from_str(&xbond.cli(["log", BOND, "-j"]).unwrap()).unwrap();
    log["receipts"].as_array().unwrap().clone()
}

/// Returns the MAC addresses that a policy sets once `active` is the active slave, where `own` are those before
/// enslaving.
fn expected(policy: &str, own: &[String; 2], active: usize) -> [String; 3] {
    match policy {
        "none" => [own[0].clone(), own[0].clone(), own[0].clone()],
        "active" => [own[active].clone(), own[0].clone(), own[1].clone()],
        _ => {
            let [first, second] = if active == 0 { [0, 1] } else { [1, 0] };
            [own[0].clone(), own[first].clone(), own[second].clone()]
        }
    }
}

fn macs(lab: &Lab) -> [String; 3] {
    [BOND, SLAVES[0], SLAVES[1]].map(|name| mac(&lab.host, name))
}

/// The agent is stopped: a request ends at its deadline, and the change is not made later.
#[test]
fn a_change_with_a_deadline_does_not_wait_for_a_stopped_agent() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["miimon=50"]);
    xbond.pause().unwrap();
    let changes = [
        "set bond0 miimon=70",
        "del-slave bond0 enp0s9",
        "add --bond bond1 -o miimon=50",
        "reload",
        "down bond0",
    ];
    for line in changes {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut command = lab.host.command(binary().unwrap());
        command.args([verb, "--wait", "0.5"]).args(rest.split_whitespace());
        let output = command.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(NOT_YET), "{line}: {error}");
        assert!(error.contains("the agent has not answered within 0.5 s; is it stopped"), "{line}: {error}");
    }
    xbond.signal(Signal::SIGCONT).unwrap();
    let bond = &xbond.show(BOND).unwrap()["bonds"][0];
    assert_eq!(
        (&bond["options"]["miimon"], bond["slaves"].as_array().unwrap().len()),
        (&50.into(), 2),
        "{bond}"
    );
    xbond.stop().unwrap();
}

#[test]
fn a_switch_is_done_when_set_returns() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for policy in POLICIES {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let own = SLAVES.map(|name| mac(&lab.host, name));
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}"), "miimon=50"]);
        for number in 1..=SWITCHES {
            let active = number % 2;
            change(&xbond, &format!("set {BOND} active_slave={}", SLAVES[active]));
            assert_eq!(macs(&lab), expected(policy, &own, active), "{policy}, switch {number}");
            let last = records(&xbond).pop().unwrap_or_default();
            assert_eq!(last["to"], SLAVES[active], "{policy}, switch {number}: the last record is {last}");
            assert!(last["steps"]["announce_us"].is_u64(), "{policy}, switch {number}: {last}");
        }
        xbond.stop().unwrap();
    }
}

/// As an administrator sets it right after a link has come up, while its speed is still being read.
#[test]
fn a_new_primary_has_its_record_when_set_returns() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["fail_over_mac=active"]);
    for number in 1..=SWITCHES {
        change(&xbond, &format!("set {BOND} active_slave={}", SLAVES[1]));
        change(&xbond, &format!("set {BOND} primary={}", SLAVES[0]));
        let last = records(&xbond).pop().unwrap_or_default();
        assert_eq!(last["to"], SLAVES[0], "round {number}: {last}");
        change(&xbond, &format!("set {BOND} primary="));
    }
    xbond.stop().unwrap();
}

/// The bond has no slave and a MAC address that the administrator set.
#[test]
fn a_first_slave_is_active_when_add_slave_returns() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for policy in POLICIES {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
        for slave in SLAVES {
            change(&xbond, &format!("del-slave {BOND} {slave}"));
        }
        let own = mac(&lab.host, SLAVES[0]);
        for number in 0..JOINS {
            let given = format!("02:00:00:00:01:{number:02x}");
            lab.host.ip(&format!("link set {BOND} address {given}")).unwrap();
            change(&xbond, &format!("add-slave {BOND} {}", SLAVES[0]));
            let seen = [mac(&lab.host, BOND), mac(&lab.host, SLAVES[0])];
            assert_eq!(seen[0], seen[1], "{policy}, join {number}");
            if policy == "active" {
                assert_eq!(seen[0], own, "{policy}, join {number}");
            }
            let last = records(&xbond).pop().unwrap_or_default();
            assert_eq!(last["to"], SLAVES[0], "{policy}, join {number}: {last}");
            change(&xbond, &format!("del-slave {BOND} {}", SLAVES[0]));
            let last = records(&xbond).pop().unwrap_or_default();
            assert!(last["to"].is_null(), "{policy}, release {number}: {last}");
        }
        xbond.stop().unwrap();
    }
}

/// Returns the output of a verb, and its exit code.
fn verb(netns: &NetNs, line: &str) -> (i32, String) {
    let mut command: Command = netns.command(binary().unwrap());
    let output = command.args(line.split(' ')).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// Each verb, while another process holds RTNL, with the steps that it reports as pending.
#[test]
fn a_verb_names_what_waits_for_rtnl() {
    skip_if_unable!();
    if let Some(reason) = time_is_no_measure() {
        return common::skip(reason);
    }
    let _alone = common::alone();
    let mut nics = Nic::scenario();
    nics.push(Nic::new("enp0s10", [2, 0, 0, 0, 0, 0x10]));
    let lab = Lab::builder().nics(nics).build().unwrap();
    let xbond = Xbond::run(
        &lab.host,
        [
            "--bond",
            BOND,
            "--slave",
            SLAVES[0],
            "--slave",
            SLAVES[1],
            "-o",
            "miimon=100",
            "-o",
            "fail_over_mac=active",
        ],
    )
    .unwrap();
    let second = mac(&lab.host, SLAVES[1]);
    for (line, says) in [
        (
            format!("set --wait 0.3 {BOND} active_slave={}", SLAVES[1]),
            format!("its MAC address is not {second} yet"),
        ),
        (
            format!("add-slave --wait 0.3 {BOND} enp0s10"),
            format!("{BOND}: enslaving enp0s10 is not finished"),
        ),
        (
            format!("del-slave --wait 0.3 {BOND} enp0s10"),
            format!("{BOND}: releasing enp0s10 is not finished"),
        ),
        (format!("down --wait 0.3 {BOND}"), format!("taking {BOND} down is not finished")),
        (
            format!("add --wait 0.3 --bond bond1 --slave {} -o miimon=100", SLAVES[0]),
            "adding bond1 is not finished".to_owned(),
        ),
    ] {
        let held = RtnlHeld::take(&lab.peer).unwrap();
        let (code, said) = verb(&lab.host, &line);
        held.release().unwrap();
        assert_eq!(code, NOT_YET, "{line}: {said}");
        assert!(said.contains(&says) && said.contains("RTNL"), "{line}: {said}");
        wait_until_done(&lab, &line, &second);
    }
    xbond.stop().unwrap();
}

/// Waits until the requested change has been made nevertheless.
fn wait_until_done(lab: &Lab, line: &str, second: &str) {
    let word = line.split(' ').next().unwrap_or_default();
    let show = || verb(&lab.host, "show -j").1;
    let is_slave = |shown: &String| shown.contains("\"enp0s10\"");
    match word {
        "set" => drop(eventually("bond0's MAC", || mac(&lab.host, BOND), |mac| mac == second)),
        "add-slave" => drop(eventually("the new slave", show, is_slave)),
        "del-slave" => drop(eventually("the release", show, |shown| !is_slave(shown))),
        "down" => drop(eventually(
            "the end",
            || Path::new("/sys/class/net").exists() && !show().contains("\"bond0\""),
            |gone| *gone,
        )),
        _ => drop(eventually("the new bond", show, |shown| shown.contains("\"bond1\""))),
    }
}
