//! Failovers, planned and not, under traffic that is counted end to end.

mod common;

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

/// Returns whether the load of the last minute is more than the machine can carry: every wake-up is delayed.
fn is_overloaded() -> bool {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    load > 2.0 * thread::available_parallelism().unwrap().get() as f64
}

#[test]
fn by_link_events_a_cut_is_a_gap_of_milliseconds() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        // Polling alone takes two to three times as long as the longer bound.
        let overloaded = is_overloaded();
        let bound = if overloaded { MIIMON / 4 } else { Duration::from_millis(5) };
        if overloaded {
            skip(&format!(
                "{}, less than 5 ms: the machine is overloaded; {bound:?} instead",
                datapath.name()
            ));
        }
        within(bound, datapath.name(), || {
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

/// Returns how long it takes until `name` is the active slave.
fn takes_over(xbond: &Xbond<'_>, name: &str, since: Instant) -> Duration {
    wait_for_active(xbond, name);
    since.elapsed()
}

#[test]
fn delays_set_at_run_time_are_kept() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    // Distinguishes a delay from a busy machine.
    let ms = if time_is_no_measure().is_some() { 3000 } else { 600 };
    let delay = Duration::from_millis(ms);

    xbond.set(BOND, &format!("downdelay={ms}")).unwrap();
    let event = lab.cut("enp0s8", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s8", "going down");
    assert_eq!(show(&xbond)["active_slave"], "enp0s8", "the slave stays active during downdelay");
    let took = takes_over(&xbond, "enp0s9", event);
    assert!(took >= delay, "downdelay: {took:?}");

    xbond.set(BOND, &format!("updelay={ms}")).unwrap();
    let event = lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s8", "going back");
    wait_for_status(&xbond, "enp0s8", "up");
    assert!(event.elapsed() >= delay, "updelay: {:?}", event.elapsed());

    // A link that returns within downdelay was never down.
    let failures = slave(&show(&xbond), "enp0s9")["link_failure_count"].clone();
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s9", "going down");
    lab.reconnect("enp0s9", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s9", "up");
    assert_eq!(show(&xbond)["active_slave"], "enp0s9");
    assert_eq!(slave(&show(&xbond), "enp0s9")["link_failure_count"], failures);

    if let Some(reason) = time_is_no_measure() {
        return skip(&format!("a failover without downdelay: {reason}"));
    }
    // Without downdelay the next failover is immediate; the delay would prevent that.
    xbond.set(BOND, "downdelay=0").unwrap();
    let event = lab.cut("enp0s9", Cut::Carrier).unwrap();
    let took = takes_over(&xbond, "enp0s8", event);
    assert!(took < delay, "no downdelay: {took:?}");
}

#[test]
fn miimon_set_at_run_time_takes_effect() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    // Longer than a test waits. The guard would notice the cut with any frame that the host sends.
    let xbond = bond_with(&lab, Datapath::Tc, &["miimon=60000"], &["--no-link-events", "--guard", "off"]);
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s8");
    xbond.set(BOND, "miimon=20").unwrap();
    wait_for_active(&xbond, "enp0s9");
    assert_eq!(show(&xbond)["options"]["miimon"], 20);
    // Also on later changes.
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s8", "up");
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    wait_for_active(&xbond, "enp0s8");
}

#[test]
fn primary_and_primary_reselect_decide_who_comes_back() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    xbond.set(BOND, "primary=enp0s9").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s9", "a primary that is up takes over when it is set");
    // Both veths have the same speed.
    for (reselect, active) in [("always", "enp0s9"), ("better", "enp0s8"), ("failure", "enp0s8")] {
        xbond.set(BOND, "active_slave=enp0s9").unwrap();
        xbond.set(BOND, &format!("primary_reselect={reselect}")).unwrap();
        lab.cut("enp0s9", Cut::Carrier).unwrap();
        wait_for_active(&xbond, "enp0s8");
        lab.reconnect("enp0s9", Cut::Carrier).unwrap();
        wait_for_status(&xbond, "enp0s9", "up");
        // The election happens with the change of the link state.
        assert_eq!(show(&xbond)["active_slave"], active, "primary_reselect={reselect}");
        assert_eq!(show(&xbond)["options"]["primary_reselect"], reselect);
    }
    // Returning to always reselects at once.
    xbond.set(BOND, "primary_reselect=always").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s9");
    // Without a primary, an empty active_slave causes an election without preference: the first enslaved slave wins.
    xbond.set(BOND, "primary_reselect=failure").unwrap();
    xbond.set(BOND, "primary=").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s9");
    xbond.set(BOND, "active_slave=").unwrap();
    assert_eq!(show(&xbond)["active_slave"], "enp0s8");
}

/// A NIC whose link returns has another speed than before, as after a new negotiation.
#[test]
fn better_goes_by_the_speed_that_the_primary_comes_back_with() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).wire(Wire::Tap).build().unwrap();
    let set_speed = |slave: &str, speed: u32| {
        lab.host.exec(&format!("ethtool -s {slave} speed {speed} duplex full")).unwrap();
    };
    SLAVES.iter().for_each(|name| set_speed(name, 1000));
    let xbond = bond(&lab, Datapath::Tc, &["primary=enp0s9", "primary_reselect=better"]);
    for (speed, active) in [(100, "enp0s8"), (10_000, "enp0s9"), (100, "enp0s8"), (1000, "enp0s8")] {
        lab.cut("enp0s9", Cut::Carrier).unwrap();
        wait_for_status(&xbond, "enp0s9", "down");
        wait_for_active(&xbond, "enp0s8");
        set_speed("enp0s9", speed);
        lab.reconnect("enp0s9", Cut::Carrier).unwrap();
        eventually(
            "the speed is known",
            || slave(&show(&xbond), "enp0s9"),
            |primary| (&primary["speed"], &primary["mii_status"]) == (&speed.into(), &"up".into()),
        );
        // The speed may have been read before, while the link was down, and not again yet.
        wait_for_active(&xbond, active);
    }
}

/// Further addresses of bond0, and the addresses of a VLAN above it.
const ADDRESSES: [(&str, &str); 5] = [
    ("192.168.99.102/24", "bond0"),
    ("198.51.100.7/32", "bond0"),
    ("fd00:99::101/64", "bond0"),
    ("192.0.2.5/24", "bond0.5"),
    ("2001:db8:5::5/64", "bond0.5"),
];

/// Adds a VLAN; not every kernel has them.
fn add_vlan(lab: &Lab) -> bool {
    match lab.host.ip("link add bond0.5 link bond0 type vlan id 5") {
        Ok(_) => {
            lab.host.ip("link set bond0.5 up").unwrap();
            true
        }
        Err(error) if format!("{error:#}").contains("Unknown device type") => false,
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn addresses_are_announced_as_often_as_asked_for_by_the_new_active_slave() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    for fail_over_mac in ["none", "active", "follow"] {
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={fail_over_mac}")]);
        let has_vlan = add_vlan(&lab);
        let addresses: Vec<_> =
            ADDRESSES.into_iter().filter(|(_, device)| *device == BOND || has_vlan).collect();
        for (address, device) in &addresses {
            let nodad = if address.contains(':') { " nodad" } else { "" };
            lab.host.ip(&format!("address add {address} dev {device}{nodad}")).unwrap();
        }
        let bare = |address: &str| address.split('/').next().unwrap().parse::<IpAddr>().unwrap();
        let mut addresses: Vec<_> = addresses.iter().map(|(address, _)| bare(address)).collect();
        addresses.push(HOST_V4.into());

        let mut active = SLAVES[0];
        for (setting, rounds) in [("num_grat_arp=1", 1), ("num_unsol_na=3", 3), ("num_grat_arp=0", 0)] {
            let what = format!("{fail_over_mac}, {setting}");
            xbond.set(BOND, setting).unwrap();
            let (old, new) = (active, other(active));
            active = new;
            let capture = Capture::start(&lab.switch.netns).unwrap();
            xbond.set(BOND, &format!("active_slave={new}")).unwrap();
            let mac: Mac = show(&xbond)["mac"].as_str().unwrap().parse().unwrap();
            let expected =
                if fail_over_mac == "active" { lab.mac(new).unwrap() } else { lab.mac("enp0s8").unwrap() };
            assert_eq!(mac, expected, "{what}");

            let announced = |frames: &[Frame], port: &str, address: IpAddr| {
                let of_port = frames.iter().filter(|frame| frame.ifname == port && !frame.outgoing);
                of_port
                    .filter_map(|frame| Some((frame.source(), frame.announces(address)?)))
                    .collect::<Vec<_>>()
            };
            let port = lab.port(new).unwrap();
            let whole = |frames: &Vec<Frame>| {
                addresses.iter().all(|address| announced(frames, &port, *address).len() >= rounds)
            };
            eventually(&what, || capture.frames(), whole);
            // Time for some more rounds, which must not come.
            thread::sleep(MIIMON * 4);
            let frames = capture.stop().unwrap();
            for address in &addresses {
                let seen = announced(&frames, &port, *address);
                assert_eq!(seen, vec![(mac, mac); rounds], "{what}, {address}");
                let by_old = announced(&frames, &lab.port(old).unwrap(), *address);
                assert_eq!(by_old, [], "{what}, {address} by {old}");
            }
            let tags: Vec<_> =
                frames.iter().filter(|frame| frame.announces(bare("192.0.2.5")).is_some()).collect();
            assert!(tags.iter().all(|frame| frame.vlans() == [5]), "{what}: {tags:?}");
        }
        xbond.stop().unwrap();
        if !has_vlan && fail_over_mac == "follow" {
            skip("the addresses of a VLAN: this kernel has no VLANs");
        }
    }
}

/// Removes the counters that a stray frame or a tick changes.
fn uncounted(mut bond: serde_json::Value) -> serde_json::Value {
    for slave in bond["slaves"].as_array_mut().unwrap() {
        slave["counters"].take();
    }
    bond["drops"].take();
    bond["ticks"].take();
    bond
}

#[test]
fn a_refused_setting_changes_nothing() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    wait_for_status(&xbond, "enp0s9", "down");
    for (settings, reason) in [
        (&["active_slave=enp0s9"][..], "enp0s9 is not up"),
        (&["active_slave=enp0s10"], "no slave enp0s10"),
        (&["miimon=-1"], "miimon"),
        (&["miimon=1s"], "miimon"),
        (&["num_grat_arp=256"], "num_grat_arp"),
        (&["primary_reselect=sometimes"], "primary_reselect"),
        (&["fail_over_mac=active"], "fail_over_mac"),
        (&["mimon=50"], "mimon"),
        // All options or none.
        (&["miimon=50", "downdelay=never"], "downdelay"),
        (&["miimon=50", "active_slave=enp0s8"], "active_slave"),
    ] {
        let before = uncounted(show(&xbond));
        let error = xbond.cli([&["set", BOND], settings].concat()).unwrap_err().to_string();
        assert!(error.contains(reason), "{settings:?}: {error}");
        assert_eq!(uncounted(show(&xbond)), before, "{settings:?}");
    }
    assert!(xbond.set("bond1", "miimon=50").unwrap_err().to_string().contains("bond1"));
}

/// Returns the packets that an interface sent and received, by `ip -s link`.
fn packets(lab: &Lab, name: &str) -> [u64; 2] {
    let text = lab.host.ip(&format!("-j -s link show dev {name}")).unwrap();
    let link: serde_json::Value = serde_json::from_str(&text).unwrap();
    ["tx", "rx"].map(|way| link[0]["stats64"][way]["packets"].as_u64().unwrap())
}

#[test]
fn show_in_json_has_its_shape_and_agrees_with_ip() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &["fail_over_mac=active"]);
        let whole = xbond.show(BOND).unwrap();
        assert_eq!(whole["version"], 2);
        assert_eq!(whole["bonds"].as_array().unwrap().len(), 1);
        let bond = &whole["bonds"][0];
        for (key, value) in [
            ("name", json!("bond0")),
            ("active_slave", json!("enp0s8")),
            ("mac", json!(lab.host.link("bond0").unwrap().mac.to_string())),
            ("carrier", json!(true)),
            ("datapath", json!(datapath.name())),
            ("absent", json!([])),
        ] {
            assert_eq!(bond[key], value, "{key}");
        }
        let options =
            [("miimon", json!(100)), ("fail_over_mac", json!("active")), ("num_grat_arp", json!(1))];
        for (key, value) in options {
            assert_eq!(bond["options"][key], value, "{key}");
        }
        let names: Vec<_> = bond["slaves"].as_array().unwrap().iter().map(|slave| &slave["name"]).collect();
        assert_eq!(names, SLAVES);
        for (name, state) in SLAVES.iter().zip(["active", "backup"]) {
            let slave = slave(bond, name);
            let mac = json!(lab.mac(name).unwrap().to_string());
            for (key, value) in [
                ("state", json!(state)),
                ("mii_status", json!("up")),
                ("mac", mac.clone()),
                ("permanent_mac", mac),
                ("link_failure_count", json!(0)),
                ("ifindex", json!(lab.host.link(name).unwrap().ifindex)),
                ("warnings", json!([])),
            ] {
                assert_eq!(slave[key], value, "{name}, {key}");
            }
        }

        // A stray frame may arrive between two readings, but not each time.
        let counted = || {
            let observe = || {
                let bond = show(&xbond);
                let counters = slave(&bond, "enp0s8")["counters"].clone();
                let [tx, rx] = ["tx_packets", "rx_packets"].map(|key| counters[key].as_u64().unwrap());
                ([tx, rx], packets(&lab, "enp0s8"))
            };
            let before = observe();
            assert_eq!(lab.host.ping(PEER_V4.into(), 100).unwrap().received, 100);
            let after = observe();
            let difference = |before: [u64; 2], after: [u64; 2]| [after[0] - before[0], after[1] - before[1]];
            (difference(before.0, after.0), difference(before.1, after.1))
        };
        let what = format!("{}: xbond's counters and the kernel's", datapath.name());
        let ([tx, rx], _) = eventually(&what, counted, |(ours, kernels)| ours == kernels);
        assert!(tx >= 100 && rx >= 100, "{tx} sent, {rx} received");

        lab.cut("enp0s8", Cut::Carrier).unwrap();
        wait_for_active(&xbond, "enp0s9");
        let bond = show(&xbond);
        assert_eq!(slave(&bond, "enp0s8")["link_failure_count"], 1);
        assert_eq!(slave(&bond, "enp0s8")["mii_status"], "down");
        assert_eq!(slave(&bond, "enp0s9")["state"], "active");
    }
}

#[test]
fn without_a_link_the_bond_has_no_carrier() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        // The first round may come before the far end of a link that has just come up accepts frames.
        let xbond = bond(&lab, datapath, &["fail_over_mac=active", "num_grat_arp=2"]);
        for name in SLAVES {
            lab.cut(name, Cut::Carrier).unwrap();
        }
        let carrier = || lab.host.link(BOND).unwrap().has_carrier();
        eventually("no carrier", carrier, |has| !has);
        assert!(lab.host.ip("-br link show dev bond0").unwrap().contains("NO-CARRIER"));
        let bond = show(&xbond);
        assert_eq!((&bond["carrier"], &bond["active_slave"]), (&json!(false), &json!(null)));

        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.reconnect("enp0s9", Cut::Carrier).unwrap();
        wait_for_active(&xbond, "enp0s9");
        eventually("carrier", carrier, |has| *has);
        let announced = |frame: &Frame| frame.ifname == "p1" && frame.announces(HOST_V4.into()).is_some();
        let frame = capture.wait_for(WAIT_LIMIT, announced).unwrap();
        assert_eq!(frame.source(), lab.mac("enp0s9").unwrap());
        meet(&lab);
    }
}

#[test]
fn a_slave_that_is_absent_joins_when_it_appears() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let text = "version = 1\n[bond.bond0]\nslaves = [\"late0\", \"enp0s8\"]\nmiimon = 100\n\
                fail_over_mac = \"active\"\naddresses = [\"192.168.99.101/24\"]\n";
    file.write_all(text.as_bytes()).unwrap();
    let xbond = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    meet(&lab);
    let bond = show(&xbond);
    assert_eq!((&bond["active_slave"], &bond["absent"]), (&json!("enp0s8"), &json!(["late0"])));
    let text = xbond.cli(["show"]).unwrap();
    assert!(text.lines().any(|line| line.contains("late0") && line.contains("absent")), "{text}");

    let switch = lab.switch.netns.name();
    lab.host.ip(&format!("link add late0 type veth peer name p9 netns {switch}")).unwrap();
    lab.switch.plug("p9").unwrap();
    eventually("absent", || show(&xbond)["absent"].clone(), |absent| *absent == json!([]));
    wait_for_status(&xbond, "late0", "up");
    assert_eq!(slave(&show(&xbond), "late0")["state"], "backup");
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    wait_for_active(&xbond, "late0");
    meet(&lab);
}

#[test]
fn an_active_slave_that_is_deleted_is_failed_over() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &["fail_over_mac=follow"]);
        let traffic = traffic(&lab, 1_000);
        traffic.wait_for_more(100).unwrap();
        let event = Instant::now();
        lab.host.ip("link del enp0s8").unwrap();
        wait_for_active(&xbond, "enp0s9");
        traffic.wait_for_more(500).unwrap();
        let reports = traffic.stop().unwrap();
        report(&format!("{}, active slave deleted", datapath.name()), &reports);
        for report in &reports {
            assert!(matches!(report.recovery(event), Recovery::After(_)), "{report:?}");
        }
        let slaves = show(&xbond)["slaves"].clone();
        assert_eq!(slaves.as_array().unwrap().len(), 1, "{slaves}");
        xbond.stop().unwrap();
    }
}

#[test]
fn a_bond_whose_device_is_deleted_is_removed_and_the_agent_keeps_running() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        lab.host.ip("link set enp0s9 mtu 1400").unwrap();
        let xbond = bond(&lab, datapath, &["fail_over_mac=none"]);
        lab.host.ip("link del bond0").unwrap();
        xbond.wait_for("bond0-port was deleted").unwrap();
        xbond.wait_for("slaves restored").unwrap();
        for nic in &lab.nics {
            let link = lab.host.link(&nic.name).unwrap();
            assert_eq!((link.mac, link.is_up()), (nic.mac, false), "{link:?}");
        }
        assert_eq!(lab.host.link("enp0s9").unwrap().mtu, 1400);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&xbond.cli(["show", "-j"]).unwrap()).unwrap()["bonds"],
            json!([])
        );
        let log = xbond.stop().unwrap();
        assert_eq!(log.lines().filter(|line| line.contains(" WARN ")).count(), 1, "{log}");
    }
}
