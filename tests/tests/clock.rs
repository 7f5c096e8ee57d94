//! The clock: an idle bond fails over and is announced without its agent, and the next agent reports it.

mod common;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use common::{
    BOND, DATAPATHS, SLAVES, active_slave, alone, beside_others, bond, bond_with, builder, eventually, lab,
    show, wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use xbond_tests::{
    Capture, Cut, HOST_V4, Lab, Mac, Policy, Xbond,
    capture::Frame,
    lab::{Datapath, Wire},
    skip_if_unable,
    xbond::cli,
};

const POLICIES: [&str; 3] = ["none", "active", "follow"];

/// Returns bond0 as `xbond show -j` reports it without an agent.
fn orphan(lab: &Lab) -> Value {
    let text = cli(&lab.host, ["show", BOND, "-j"]).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["bonds"][0].take()
}

fn clock(bond: &Value) -> String {
    bond["clock"].as_str().unwrap().to_owned()
}

#[track_caller]
fn wait_for_clock(xbond: &Xbond<'_>) {
    eventually("the clock runs", || clock(&show(xbond)), |clock| clock == "on, every 10 ms");
}

/// Brings bond0 up on the tc datapath, and kills its agent as soon as the clock runs.
#[track_caller]
fn orphaned(lab: &Lab, options: &[&str]) {
    let xbond = bond(lab, Datapath::Tc, options);
    wait_for_clock(&xbond);
    xbond.kill().unwrap();
}

/// Returns the announcements of the host's IPv4 address that arrived at a switch's port: when, and from which MAC address.
fn announcements(lab: &Lab, capture: &Capture, nic: &str) -> Vec<(Instant, Mac)> {
    let port = lab.port(nic).unwrap();
    let frames = capture.frames().into_iter().filter(|frame| !frame.outgoing && frame.ifname == port);
    frames.filter_map(|frame| Some((frame.at, frame.announces(IpAddr::V4(HOST_V4))?))).collect()
}

/// Waits until so many announcements have arrived at the port of `nic`.
#[track_caller]
fn wait_for_announcements(lab: &Lab, capture: &Capture, nic: &str, number: usize) -> Vec<(Instant, Mac)> {
    let look = || announcements(lab, capture, nic);
    eventually("announcements", look, |found| found.len() >= number)
}

#[test]
fn an_idle_bond_without_its_agent_fails_over_and_is_announced() {
    skip_if_unable!();
    let _turn = beside_others();
    for datapath in DATAPATHS {
        for (policy, wire) in POLICIES.into_iter().zip([Wire::Veth, Wire::Tap, Wire::Veth]) {
            if datapath == Datapath::Xdp && wire == Wire::Tap {
                continue;
            }
            let lab = builder(datapath).wire(wire).build().unwrap();
            let options = [&format!("fail_over_mac={policy}"), "num_grat_arp=3", "peer_notif_delay=100"];
            let xbond = bond(&lab, datapath, &options);
            wait_for_clock(&xbond);
            let bond_mac = lab.host.link(BOND).unwrap().mac;
            let wire_mac = if policy == "active" { lab.mac(SLAVES[1]).unwrap() } else { bond_mac };
            xbond.kill().unwrap();
            let capture = Capture::start(&lab.switch.netns).unwrap();
            let cut = lab.cut(SLAVES[0], Cut::Carrier).unwrap();
            let what = format!("{} {policy}", datapath.name());
            let found = wait_for_announcements(&lab, &capture, SLAVES[1], 3);
            println!("{what}: announced after {:?}", found[0].0.saturating_duration_since(cut));
            assert!(found.iter().all(|(_, mac)| *mac == wire_mac), "{what}: {found:?}");
            // The reader of a tap may be late.
            let last = found[2].0.saturating_duration_since(cut);
            assert!(last >= Duration::from_millis(190), "{what}: the third after {last:?}");
            assert_eq!(orphan(&lab)["active_slave"], SLAVES[1], "{what}");
            cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        }
    }
}

#[test]
fn a_bond_whose_slaves_were_all_down_is_announced_when_one_returns() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    orphaned(&lab, &["fail_over_mac=active"]);
    for nic in SLAVES {
        lab.cut(nic, Cut::Carrier).unwrap();
    }
    eventually("no active slave", || orphan(&lab)["active_slave"].clone(), Value::is_null);
    for nic in SLAVES {
        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.mend(nic, Cut::Carrier).unwrap();
        let found = wait_for_announcements(&lab, &capture, nic, 1);
        assert_eq!(found[0].1, lab.mac(nic).unwrap());
        assert_eq!(orphan(&lab)["active_slave"], nic);
        lab.cut(nic, Cut::Carrier).unwrap();
        eventually("no active slave", || orphan(&lab)["active_slave"].clone(), Value::is_null);
    }
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn downdelay_updelay_and_the_primary_count_without_an_agent() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let lab = lab(Datapath::Tc, Policy::Learning);
    let primary = format!("primary={}", SLAVES[0]);
    orphaned(&lab, &["downdelay=300", "updelay=500", &primary]);
    let active = || orphan(&lab)["active_slave"].clone();
    let waits = |what: &str, event: Instant, nic: &str, delay: u64| {
        eventually(what, active, |active| *active == nic);
        let took = event.elapsed();
        let delay = Duration::from_millis(delay);
        assert!(took >= delay && took < delay + Duration::from_secs(1), "{what}: {took:?}");
    };
    // Shorter than downdelay.
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    lab.mend(SLAVES[0], Cut::Carrier).unwrap();
    let cut = lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    waits("the backup", cut, SLAVES[1], 300);
    let mend = lab.mend(SLAVES[0], Cut::Carrier).unwrap();
    waits("the primary", mend, SLAVES[0], 500);
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn the_next_agent_reports_what_ticks_have_done() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    orphaned(&lab, &["fail_over_mac=active"]);
    for nic in SLAVES {
        lab.cut(nic, Cut::Carrier).unwrap();
        eventually("a failover", || orphan(&lab)["active_slave"].clone(), |active| *active != nic);
    }
    lab.mend(SLAVES[0], Cut::Carrier).unwrap();
    eventually("one is back", || orphan(&lab)["active_slave"].clone(), |active| *active == SLAVES[0]);
    let xbond = bond(&lab, Datapath::Tc, &["fail_over_mac=active"]);
    let log = xbond.cli(["log", BOND, "-j"]).unwrap();
    let receipts = serde_json::from_str::<Value>(&log).unwrap()["receipts"].take();
    let seen: Vec<_> = receipts
        .as_array()
        .unwrap()
        .iter()
        .filter(|receipt| receipt["seen"] == "tick")
        .map(|receipt| {
            let of = |key: &str| receipt[key].as_str().unwrap_or("none").to_owned();
            (of("from"), of("to"), of("reason"))
        })
        .collect();
    let expected = [
        (SLAVES[0], SLAVES[1], "link_failed"),
        (SLAVES[1], "none", "link_failed"),
        ("none", SLAVES[0], "link_recovered"),
    ];
    let expected = expected.map(|(from, to, why)| (from.to_owned(), to.to_owned(), why.to_owned()));
    assert_eq!(seen, expected, "{log}");
    assert_eq!(show(&xbond)["unrecorded_changes"], 0);
    xbond.stop().unwrap();
}

#[test]
fn receipts_have_the_rounds_that_ticks_have_announced() {
    skip_if_unable!();
    let _turn = beside_others();
    for is_killed in [true, false] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let options = ["num_grat_arp=3", "peer_notif_delay=100"];
        let xbond = bond(&lab, Datapath::Tc, &options);
        wait_for_clock(&xbond);
        // Killed, or stopped for longer than ticks wait for it.
        let stopped = if is_killed {
            xbond.kill().unwrap();
            None
        } else {
            xbond.pause().unwrap();
            Some(xbond)
        };
        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_announcements(&lab, &capture, SLAVES[1], 3);
        let xbond = stopped.unwrap_or_else(|| bond(&lab, Datapath::Tc, &options));
        xbond.signal(Signal::SIGCONT).unwrap();
        wait_for_active(&xbond, SLAVES[1]);
        let last = || show(&xbond)["last_failover"].clone();
        let receipt = eventually("its receipt", last, |receipt| receipt["to"] == SLAVES[1]);
        // A packet of the host's own, such as an MLD report, may be faster than the tick.
        assert!(["tick", "guard"].contains(&receipt["seen"].as_str().unwrap()), "{receipt}");
        let expected = json!({"addresses": 1, "macs": 0, "failed": 0, "by": "kernel", "rounds": 3});
        assert_eq!(receipt["announced"], expected, "{receipt}");
        let after = receipt["steps"]["announce_us"].as_u64().unwrap();
        assert!(after < receipt["steps"]["heard_us"].as_u64().unwrap(), "the kernel's time: {receipt}");
        let text = xbond.cli(["log", BOND, "-d"]).unwrap();
        assert!(text.contains("announced 1 address by the clock in 3 rounds"), "{text}");
        xbond.stop().unwrap();
    }
}

#[test]
fn a_receipt_of_a_tick_with_nothing_to_announce_says_so() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    lab.host.ip(&format!("addr flush dev {BOND}")).unwrap();
    wait_for_clock(&xbond);
    xbond.kill().unwrap();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    eventually("a failover", || orphan(&lab)["active_slave"].clone(), |active| *active == SLAVES[1]);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let text = xbond.cli(["log", BOND, "-d"]).unwrap();
    assert!(text.contains("nothing to announce"), "{text}");
    xbond.stop().unwrap();
}

#[test]
fn each_round_is_announced_once_while_an_agent_runs() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["num_grat_arp=5", "peer_notif_delay=100"]);
    wait_for_clock(&xbond);
    for (cut, other) in [(SLAVES[0], SLAVES[1]), (SLAVES[1], SLAVES[0])] {
        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.cut(cut, Cut::Carrier).unwrap();
        wait_for_active(&xbond, other);
        wait_for_announcements(&lab, &capture, other, 5);
        lab.mend(cut, Cut::Carrier).unwrap();
        wait_for_status(&xbond, cut, "up");
        // A sixth would come in the pace of the others.
        let port = lab.port(other).unwrap();
        let start = Instant::now();
        let later = |frame: &Frame| {
            !frame.outgoing
                && frame.ifname == port
                && frame.at > start
                && frame.announces(HOST_V4.into()).is_some()
        };
        let sixth = capture.wait_for(Duration::from_millis(400), later).ok();
        let found = announcements(&lab, &capture, other);
        assert!(sixth.is_none(), "{other}: {sixth:?} after {found:?}\n{}", xbond.log());
        assert_eq!(found.len(), 5, "{other}: {found:?}");
    }
    xbond.stop().unwrap();
}

#[test]
fn a_clock_that_was_removed_is_made_again() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    wait_for_clock(&xbond);
    lab.host.ip("link delete bond0-clk0").unwrap();
    xbond.wait_for("the clock stood still").unwrap();
    wait_for_clock(&xbond);
    // Both frames are lost with the queue.
    lab.host.exec("tc qdisc delete dev bond0-clk1 clsact").ok();
    lab.host.exec("tc qdisc replace dev bond0-clk0 root pfifo limit 0").ok();
    let position = xbond.log().len();
    eventually("it stands still", || clock(&show(&xbond)), |clock| !clock.starts_with("on"));
    xbond.wait_for_after(position, "the clock stood still").unwrap();
    wait_for_clock(&xbond);
    xbond.stop().unwrap();
    let links = lab.host.ip("-br link").unwrap();
    assert!(!links.contains("clk"), "{links}");
}

#[test]
fn a_clock_is_turned_off_and_on_by_a_reload() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond_with(&lab, Datapath::Tc, &["clock=off"], &[]);
    assert_eq!(clock(&show(&xbond)), "off: as configured");
    assert!(!lab.host.ip("-br link").unwrap().contains("clk"));
    xbond.kill().unwrap();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    let xbond = bond_with(&lab, Datapath::Tc, &["clock_interval=25"], &[]);
    eventually("the clock runs", || clock(&show(&xbond)), |clock| clock == "on, every 25 ms");
    assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[1]));
    xbond.signal(Signal::SIGTERM).unwrap();
}
