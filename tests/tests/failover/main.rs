//! Failovers, planned and not, under traffic that is counted end to end.

#[path = "../common/mod.rs"]
mod common;
mod devices;
mod options;

use std::{
    io::Write as _,
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use common::{
    BOND, DATAPATHS, SLAVES, alone, bond, bond_with, builder, concurrently, eventually, lab, meet, rate,
    show, skip, slave, traffic, wait_for_active, wait_for_status,
};
use serde_json::json;
use xbond_tests::{
    Capture, Cut, Frame, HOST_V4, Lab, Mac, PEER_V4, Policy, Recovery, WAIT_LIMIT, Xbond,
    flow::FlowReport,
    lab::{Datapath, Wire},
    skip_if_unable, time_is_no_measure,
};

const DIRECTIONS: [&str; 2] = ["to peer", "to host"];

/// Prints the result of a flow: `cargo test -- --nocapture`.
fn report(what: &str, reports: &[FlowReport; 2]) {
    for (direction, report) in DIRECTIONS.iter().zip(reports) {
        let FlowReport { account, refused, overflowed, .. } = report;
        println!(
            "{what}, {direction}: sent {}, received {}, lost {}, duplicated {}, reordered {}, refused {refused}, \
             overflowed {overflowed}, outage {:?}",
            account.sent,
            account.received,
            account.lost,
            account.duplicated,
            account.reordered,
            account.outage(),
        );
    }
}

#[track_caller]
fn assert_whole(what: &str, report: &FlowReport) {
    let counts = (report.lost, report.duplicated, report.refused, report.overflowed);
    let holes: Vec<_> = report.holes().collect();
    assert_eq!(counts, (0, 0, 0, 0), "{what}: lost, duplicated, refused, overflowed; holes at {holes:?}");
}

fn other(name: &str) -> &'static str {
    if name == SLAVES[0] { SLAVES[1] } else { SLAVES[0] }
}

/// Returns the frames that bond0 refused because their destination was not its MAC address.
fn otherhost(lab: &Lab) -> u64 {
    let text = lab.host.ip("-j -s -s link show dev bond0").unwrap();
    let link: serde_json::Value = serde_json::from_str(&text).unwrap();
    // ip omits it while it is zero.
    link[0]["stats64"]["rx"]["otherhost"].as_u64().unwrap_or(0)
}

/// Returns how many switches one run makes; XBOND_SWITCHES sets another number.
fn switches() -> usize {
    asked_for("XBOND_SWITCHES").unwrap_or(12)
}

fn asked_for(variable: &str) -> Option<usize> {
    std::env::var(variable).ok().and_then(|count| count.parse().ok())
}

/// Runs planned switches under traffic.
fn planned_switches(datapath: Datapath, fail_over_mac: &str) -> [FlowReport; 2] {
    let what = format!("{} {fail_over_mac}", datapath.name());
    let lab = lab(datapath, Policy::Learning);
    let xbond = bond(&lab, datapath, &[&format!("fail_over_mac={fail_over_mac}")]);

    let still = traffic(&lab, rate());
    still.wait_for_more(u64::from(rate()) / 2).unwrap();
    let still = still.stop().unwrap();
    for (direction, report) in DIRECTIONS.iter().zip(&still) {
        assert_whole(&format!("{what}, no switch, {direction}"), report);
    }

    let traffic = traffic(&lab, rate());
    traffic.wait_for_more(u64::from(rate()) / 10).unwrap();
    let mut times = Vec::new();
    let mut active = SLAVES[0];
    for _ in 0..switches() {
        active = other(active);
        times.push(Instant::now());
        xbond.set(BOND, &format!("active_slave={active}")).unwrap();
        assert_eq!(show(&xbond)["active_slave"], active);
        // Longer than the old slave keeps delivering.
        traffic.wait_for_more(u64::from(rate()) / 4).unwrap();
    }
    let reports = traffic.stop().unwrap();
    for report in &reports {
        // Grouped by the time since the last switch before it.
        for (from, to) in report.holes() {
            let before = times.iter().map(|at| report.since_start(*at)).filter(|at| *at < to).max();
            let after = before.map(|at| from.saturating_sub(at));
            println!("{what}: hole of {:?}, {after:?} after a switch", to.saturating_sub(from));
        }
    }
    println!("{what}: {} frames were for another MAC than bond0's", otherhost(&lab));
    report(&format!("{what}, {} switches", times.len()), &reports);
    reports
}

fn a_planned_switch_loses_nothing(datapath: Datapath) {
    for fail_over_mac in ["none", "active"] {
        let reports = planned_switches(datapath, fail_over_mac);
        for (direction, report) in DIRECTIONS.iter().zip(&reports) {
            assert_whole(&format!("{} {fail_over_mac}, {direction}", datapath.name()), report);
        }
    }
}

#[test]
fn a_planned_switch_loses_nothing_by_tc() {
    skip_if_unable!();
    let _turn = concurrently();
    a_planned_switch_loses_nothing(Datapath::Tc);
}

#[test]
fn a_planned_switch_loses_nothing_by_xdp() {
    skip_if_unable!();
    let _turn = concurrently();
    a_planned_switch_loses_nothing(Datapath::Xdp);
}

/// The NICs swap their MAC addresses after the switch, so frames that arrive during the swap are lost.
#[test]
fn a_planned_switch_under_follow_loses_nothing_outbound() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let [to_peer, to_host] = planned_switches(datapath, "follow");
        assert_whole(&format!("{} follow, to peer", datapath.name()), &to_peer);
        assert_eq!(to_host.duplicated, 0);
    }
}

/// Returns how many cuts are measured; XBOND_CUTS sets another number.
fn cuts() -> usize {
    asked_for("XBOND_CUTS").unwrap_or(7)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkEvents {
    On,
    Off,
}

/// The outages of one run in one direction, the shortest first.
struct Outages(Vec<Duration>);

impl Outages {
    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    /// Returns the longest but one: that one may be caused by a busy machine.
    fn longest(&self) -> Duration {
        self.0[self.0.len() - 2]
    }
}

/// Cuts the active slave's carrier repeatedly under traffic. Returns the outages to peer and to host.
fn outages(datapath: Datapath, wire: Wire, events: LinkEvents) -> [Outages; 2] {
    let what = format!("{} {wire:?}, link events {events:?}", datapath.name());
    let lab = builder(datapath).wire(wire).build().unwrap();
    // The carrier guard would be faster than either.
    let mut arguments = vec!["--guard", "off"];
    arguments.extend(Some("--no-link-events").filter(|_| events == LinkEvents::Off));
    let xbond = bond_with(&lab, datapath, &["fail_over_mac=active"], &arguments);
    let mut outages = [Vec::new(), Vec::new()];
    let mut active = SLAVES[0];
    for number in 0..cuts() {
        let traffic = traffic(&lab, rate());
        traffic.wait_for_more(u64::from(rate()) / 20).unwrap();
        let event = lab.cut(active, Cut::Carrier).unwrap();
        wait_for_active(&xbond, other(active));
        traffic.wait_for_more(u64::from(rate()) / 20).unwrap();
        let reports = traffic.stop().unwrap();
        report(&format!("{what}, cut {number}"), &reports);
        for ((direction, report), outages) in DIRECTIONS.iter().zip(&reports).zip(&mut outages) {
            assert!(matches!(report.recovery(event), Recovery::After(_)), "{what}, {direction}");
            assert_eq!(report.duplicated, 0, "{what}, {direction}");
            outages.push(report.outage());
        }
        lab.reconnect(active, Cut::Carrier).unwrap();
        wait_for_status(&xbond, active, "up");
        active = other(active);
    }
    let sorted = |mut outages: Vec<Duration>| {
        outages.sort();
        Outages(outages)
    };
    let outages = outages.map(sorted);
    for (direction, outages) in DIRECTIONS.iter().zip(&outages) {
        let (median, all) = (outages.median(), &outages.0);
        println!(
            "{what}, {direction}: outage min {:?}, median {median:?}, max {:?}",
            all[0],
            all[all.len() - 1]
        );
    }
    outages
}

const MIIMON: Duration = Duration::from_millis(100);

/// Repeats a measurement that a busy machine may have delayed: a real violation recurs.
#[track_caller]
fn within(bound: Duration, what: &str, measure: impl Fn() -> Duration) {
    let mut measured = Vec::new();
    while measured.len() < 3 {
        let time = measure();
        if time < bound {
            return;
        }
        measured.push(time);
    }
    panic!("{what}: {measured:?}, none below {bound:?}");
}

/// Tolerance for the machine.
const SLACK: Duration = Duration::from_millis(10);

#[test]
fn by_link_events_a_cut_is_a_gap_of_milliseconds() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        // Polling alone takes two to three times as long. The figure of a quiet machine is the benchmark's.
        within(MIIMON / 4, datapath.name(), || {
            let [to_peer, _] = outages(datapath, Wire::Veth, LinkEvents::On);
            to_peer.median()
        });
    }
}

/// The kernel may delay a tap's link event for up to a second (linkwatch_urgent_event), so miimon decides. Frames
/// that are sent to the tap in the meantime still arrive; the frames from it show how long the failover took.
#[test]
fn a_clean_cut_of_a_tap_is_a_gap_of_at_most_miimon() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    within(MIIMON + SLACK, "tap", || {
        let [to_peer, to_host] = outages(Datapath::Tc, Wire::Tap, LinkEvents::On);
        to_peer.longest().max(to_host.longest())
    });
}

#[test]
fn without_link_events_a_cut_is_a_gap_of_at_most_miimon() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        within(MIIMON + SLACK, datapath.name(), || {
            let [to_peer, _] = outages(datapath, Wire::Veth, LinkEvents::Off);
            // Cuts occur at any time between two polls: if all outages were short, events would have arrived.
            assert!(to_peer.longest() > MIIMON / 5, "{}: {:?}", datapath.name(), to_peer.0);
            to_peer.longest()
        });
    }
}
