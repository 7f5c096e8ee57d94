//! The clock: an idle bond fails over and is announced without its agent, and the next agent reports it.

mod common;

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use bond_user::{
    report::moment::monotonic,
    sys::{dataplane::Maps, directory::Location},
};
use common::{
    BOND, DATAPATHS, SLAVES, active_slave, alone, bond, bond_with, builder, concurrently, eventually, lab,
    meet, rate, show, wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use xbond_tests::{
    Capture, Cut, HOST_V4, Lab, Mac, PEER_V4, Policy, Xbond,
    capture::Frame,
    figures::quantile,
    flow::{Flow, FlowOptions},
    has_tcx,
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
    let observe = || announcements(lab, capture, nic);
    eventually("announcements", observe, |found| found.len() >= number)
}

/// The number of cuts of which the slowest per cent is meant.
const CUTS: u32 = 50;

/// Cuts the links of an idle bond without an agent in turn. Returns, in ms after each cut, when ACTIVE was changed and when
/// the switch received the announcement.
fn idle_cuts(lab: &Lab, maps: &Maps) -> (Vec<f64>, Vec<f64>) {
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (mut switched, mut announced) = (Vec::new(), Vec::new());
    for cut in 0..CUTS {
        let (from, to) = (SLAVES[cut as usize % 2], SLAVES[(cut as usize + 1) % 2]);
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let before = monotonic();
        let start = lab.cut(from, Cut::Carrier).unwrap();
        let found = wait_for_announcements(lab, &capture, to, 1);
        announced.push(ms(found[0].0.saturating_duration_since(start)));
        // Both the guard and the tick note the time of a failover there.
        switched.push(ms(Duration::from_nanos(maps.guard().switched_at()).saturating_sub(before)));
        lab.reconnect(from, Cut::Carrier).unwrap();
        eventually("both are usable", || maps.active().usable(), |usable| usable.count_ones() == 2);
    }
    (switched, announced)
}

#[test]
fn an_idle_bond_without_its_agent_fails_over_in_two_periods_and_is_announced_at_once() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        for (policy, wire) in
            POLICIES.into_iter().flat_map(|policy| [(policy, Wire::Veth), (policy, Wire::Tap)])
        {
            if datapath == Datapath::Xdp && wire == Wire::Tap {
                continue;
            }
            let lab = builder(datapath).wire(wire).build().unwrap();
            let xbond = bond(&lab, datapath, &[&format!("fail_over_mac={policy}")]);
            wait_for_clock(&xbond);
            let pins = show(&xbond)["pins"].as_str().unwrap().to_owned();
            xbond.kill().unwrap();
            let maps = Maps::open(&Location::at(Path::new(&pins))).unwrap();
            let (mut switched, mut announced) = idle_cuts(&lab, &maps);
            let what = format!("{} {policy} {wire:?}", datapath.name());
            for (of, times, limit) in [("ACTIVE", &mut switched, 100.0), ("announced", &mut announced, 150.0)]
            {
                times.sort_by(f64::total_cmp);
                let [p50, p99] = [0.5, 0.99].map(|part| quantile(times, part));
                println!("{what}: {of} after p50 {p50:.1} ms, p99 {p99:.1} ms of {CUTS} cuts");
                assert!(p50 < 30.0 && p99 < limit, "{what}: {of}: {times:?}");
            }
            cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        }
    }
}

#[test]
fn frames_to_an_idle_host_arrive_again_without_an_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    for policy in POLICIES {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
        meet(&lab);
        wait_for_clock(&xbond);
        xbond.kill().unwrap();
        let capture = Capture::start(&lab.peer).unwrap();
        let options = FlowOptions { rate: rate() / 10, ..FlowOptions::default() };
        let flow = Flow::start((&lab.peer, PEER_V4.into()), (&lab.host, HOST_V4.into()), options).unwrap();
        flow.wait_for_more(500).unwrap();
        let cut = lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        flow.wait_for_more(500).unwrap();
        let report = flow.stop().unwrap();
        println!("{policy}: {:?}", report.recovery(cut));
        assert!(report.outage() < Duration::from_secs(1), "{policy}: {report:?}");
        let asks = |frame: &Frame| frame.outgoing && frame.asks_for(HOST_V4);
        assert!(!capture.frames().iter().any(asks), "{policy}: the peer had to ask");
        cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    }
}

#[test]
fn an_idle_bond_without_its_agent_fails_over_and_is_announced() {
    skip_if_unable!();
    let _turn = concurrently();
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
            let shown = orphan(&lab);
            assert_eq!(shown["active_slave"], SLAVES[1], "{what}");
            let last = &shown["last_failover"];
            let of_kernel = [("tick", "link_failed"), ("guard", "carrier_guard")];
            assert!(
                of_kernel.contains(&(last["seen"].as_str().unwrap(), last["reason"].as_str().unwrap())),
                "{last}"
            );
            cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        }
    }
}

#[test]
fn a_mac_that_the_administrator_has_given_the_bond_is_announced_without_an_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["fail_over_mac=none"]);
    wait_for_clock(&xbond);
    let given: Mac = "02:00:00:00:00:99".parse().unwrap();
    lab.host.ip(&format!("link set {BOND} address {given}")).unwrap();
    for nic in SLAVES {
        eventually("the slaves take it", || lab.host.link(nic).unwrap().mac, |mac| *mac == given);
    }
    xbond.kill().unwrap();
    let capture = Capture::start(&lab.switch.netns).unwrap();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    let found = wait_for_announcements(&lab, &capture, SLAVES[1], 1);
    assert_eq!(found[0].1, given);
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn a_bond_whose_slaves_were_all_down_is_announced_when_one_returns() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    orphaned(&lab, &["fail_over_mac=active"]);
    for nic in SLAVES {
        lab.cut(nic, Cut::Carrier).unwrap();
    }
    eventually("no active slave", || orphan(&lab)["active_slave"].clone(), Value::is_null);
    for nic in SLAVES {
        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.reconnect(nic, Cut::Carrier).unwrap();
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
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    let cut = lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    waits("the backup", cut, SLAVES[1], 300);
    let reconnected = lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    waits("the primary", reconnected, SLAVES[0], 500);
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn the_next_agent_reports_failovers_of_the_tick() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    orphaned(&lab, &["fail_over_mac=active"]);
    for nic in SLAVES {
        lab.cut(nic, Cut::Carrier).unwrap();
        eventually("a failover", || orphan(&lab)["active_slave"].clone(), |active| *active != nic);
    }
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
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
    let _turn = concurrently();
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
    let _turn = concurrently();
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
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["num_grat_arp=5", "peer_notif_delay=100"]);
    wait_for_clock(&xbond);
    for (cut, other) in [(SLAVES[0], SLAVES[1]), (SLAVES[1], SLAVES[0])] {
        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.cut(cut, Cut::Carrier).unwrap();
        wait_for_active(&xbond, other);
        wait_for_announcements(&lab, &capture, other, 5);
        lab.reconnect(cut, Cut::Carrier).unwrap();
        wait_for_status(&xbond, cut, "up");
        // A sixth one would follow after the same interval.
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

/// What another process does to the devices of a clock.
const HARMS: [(&str, &str); 9] = [
    ("the pair is deleted", "ip link delete bond0-clk0"),
    ("the frames are lost", "tc qdisc replace dev bond0-clk0 root pfifo limit 0"),
    ("there is no pace", "tc qdisc replace dev bond0-clk0 root pfifo"),
    (
        "the pace is another",
        "tc qdisc change dev bond0-clk0 root handle 1: tbf rate 1kbit burst 128 limit 1024",
    ),
    (
        "the handle has another qdisc",
        "tc qdisc delete dev bond0-clk0 root && tc qdisc add dev bond0-clk0 root handle 1: pfifo limit 0",
    ),
    ("an end is down", "ip link set bond0-clk1 down"),
    (
        "an end is renamed",
        "ip link set bond0-clk0 down && ip link set bond0-clk0 name clock && ip link set clock up",
    ),
    ("the sender is moved", "ip link set bond0-clk0 netns PEER"),
    ("the receiver is moved", "ip link set bond0-clk1 netns PEER"),
];

#[test]
fn a_clock_that_another_process_has_broken_runs_again_and_that_is_logged() {
    skip_if_unable!();
    let _turn = concurrently();
    for (what, harm) in HARMS {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond(&lab, Datapath::Tc, &[]);
        wait_for_clock(&xbond);
        let injected = show(&xbond)["ticks"]["ticks"].as_u64().unwrap();
        assert!(injected > 0, "{what}");
        let position = xbond.log().len();
        let broken = Instant::now();
        for command in harm.replace("PEER", lab.peer.name()).split(" && ") {
            lab.host.exec(command).unwrap();
        }
        xbond
            .wait_for_after(position, "the clock stood still")
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        wait_for_clock(&xbond);
        println!("{what}: on after {:?}", broken.elapsed());
        // It fails over without its agent.
        xbond.kill().unwrap();
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        eventually(what, || orphan(&lab)["active_slave"].clone(), |active| *active == SLAVES[1]);
        cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        let links = lab.host.ip("-br link").unwrap();
        assert!(!links.contains("clk") && !links.contains("clock"), "{what}: {links}");
    }
}

#[test]
fn a_tick_that_was_detached_is_attached_again() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    wait_for_clock(&xbond);
    if has_tcx() {
        let pins = show(&xbond)["pins"].as_str().unwrap().to_owned();
        lab.host.exec(&format!("bpftool link detach pinned {pins}/tick_link")).unwrap();
    } else {
        lab.host.exec("tc qdisc delete dev bond0-clk1 clsact").unwrap();
    }
    xbond.wait_for("the clock stood still").unwrap();
    wait_for_clock(&xbond);
    xbond.stop().unwrap();
}

#[test]
fn a_bond_whose_clock_lost_its_frames_carries_packets_without_an_agent_and_show_reports_it() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    orphaned(&lab, &[]);
    lab.host.exec("tc qdisc replace dev bond0-clk0 root pfifo limit 0").unwrap();
    eventually("the clock stands still", || clock(&orphan(&lab)), |clock| clock.starts_with("stands still"));
    let shown = orphan(&lab);
    assert_eq!(shown["ticks"]["running"], false);
    let warnings = shown["warnings"].as_array().unwrap();
    let is_of_clock = |text: &Value| text.as_str().unwrap().contains("its clock stands still for");
    assert!(warnings.iter().any(is_of_clock), "{warnings:?}");
    meet(&lab);
    // The next packet moves it, by the carrier guard.
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    meet(&lab);
    assert_eq!(orphan(&lab)["active_slave"], SLAVES[1]);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    xbond.wait_for("the clock stood still").unwrap();
    wait_for_clock(&xbond);
    assert!(!xbond.cli(["show"]).unwrap().contains("stands still"));
    xbond.stop().unwrap();
}

#[test]
fn a_clock_is_shown_with_its_devices_and_counted_in_metrics() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    wait_for_clock(&xbond);
    let ticks = || show(&xbond)["ticks"].clone();
    let counted = eventually("ticks", ticks, |ticks| ticks["ticks"].as_u64() > Some(20));
    assert_eq!((&counted["running"], &counted["period"]), (&json!(true), &json!(10)), "{counted}");
    assert_eq!(counted["devices"], json!(["bond0-clk0", "bond0-clk1"]), "{counted}");
    let text = xbond.cli(["show", "-d"]).unwrap();
    assert!(text.contains("clock on, every 10 ms\n  bond0-clk0, bond0-clk1: "), "{text}");
    let socket = format!("/run/xbond/{}/xbond.sock", lab.host.cookie().unwrap());
    let metrics =
        || lab.host.exec(&format!("curl --silent --unix-socket {socket} http://xbond/metrics")).unwrap();
    let metrics_on = metrics();
    assert!(metrics_on.contains("xbond_clock_running{bond=\"bond0\"} 1"), "{metrics_on}");
    xbond.stop().unwrap();
    let xbond = bond_with(&lab, Datapath::Tc, &["clock=off"], &[]);
    let metrics_off = metrics();
    assert!(!metrics_off.contains("xbond_clock_running{"), "{metrics_off}");
    xbond.stop().unwrap();
}

#[test]
fn a_bond_with_a_long_name_has_a_clock() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let name = "a-long-name-bon";
    let xbond = Xbond::run(&lab.host, ["--bond", name, "--slave", SLAVES[0], "-o", "miimon=100"]).unwrap();
    let bond = || xbond.show(name).unwrap()["bonds"][0].take();
    eventually("the clock runs", || clock(&bond()), |clock| clock == "on, every 10 ms");
    assert_eq!(bond()["ticks"]["devices"], json!(["xbc0-clk0", "xbc0-clk1"]));
    xbond.stop().unwrap();
    assert!(!lab.host.ip("-br link").unwrap().contains("clk"));
}

#[test]
fn a_clock_is_turned_off_and_on_by_a_reload() {
    skip_if_unable!();
    let _turn = concurrently();
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
