//! The carrier guard: failovers without an agent, and failovers that an agent processes afterwards.

mod common;

use std::time::Duration;

use common::{
    BOND, DATAPATHS, SLAVES, active_slave, alone, bond, bond_with, builder, concurrently, eventually, lab,
    meet, rate, show, slave, traffic, wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use xbond_tests::{
    Capture, Cut, HOST_V4, Lab, Nic, PEER_V4, Policy, Recovery, TwoWay, WAIT_LIMIT,
    lab::{Datapath, Wire},
    skip_if_unable, time_is_no_measure,
    xbond::cli,
};

/// Returns the frames that the device itself refused: for a tap, frames that it got without a carrier.
fn tx_dropped(lab: &Lab, name: &str) -> u64 {
    let text = lab.host.ip(&format!("-json -statistics link show dev {name}")).unwrap();
    let link: serde_json::Value = serde_json::from_str(&text).unwrap();
    link[0]["stats64"]["tx"]["dropped"].as_u64().unwrap()
}

/// Returns the slave that answers the peer's pings, by the MAC address that the peer has for the host.
fn neighbour(lab: &Lab) -> String {
    lab.peer.ip(&format!("neigh show {HOST_V4}")).unwrap()
}

/// Without its agent the bond fails over through all slaves and back: outbound always, inbound as neighbours learn
/// from the frames that it sends.
#[test]
fn without_an_agent_the_guard_uses_every_slave_in_turn() {
    skip_if_unable!();
    let _turn = concurrently();
    let names = ["nic0", "nic1", "nic2"];
    for datapath in DATAPATHS {
        for policy in ["none", "active"] {
            let nics = names.iter().zip(1..).map(|(name, last)| Nic::new(name, [2, 0, 0, 0, 1, last]));
            let lab = builder(datapath).nics(nics).build().unwrap();
            let xbond = bond(&lab, datapath, &[&format!("fail_over_mac={policy}")]);
            assert_eq!(show(&xbond)["guard"], "on");
            xbond.kill().unwrap();
            for (number, cut) in names.iter().enumerate() {
                let traffic = traffic(&lab, 2_000);
                traffic.wait_for_more(200).unwrap();
                // The slave before it is up again by now, so after the last one the first one is active again.
                let event = lab.cut(cut, Cut::Carrier).unwrap();
                traffic.wait_for_more(1_000).unwrap();
                let reports = traffic.stop().unwrap();
                for (direction, report) in ["to peer", "to host"].iter().zip(&reports) {
                    let what = format!("{} {policy}, cut {number}, {direction}", datapath.name());
                    println!("{what}: lost {}, outage {:?}", report.lost, report.outage());
                    assert!(
                        matches!(report.recovery(event), Recovery::After(_)),
                        "{what}: {}",
                        neighbour(&lab)
                    );
                    assert_eq!(report.duplicated, 0, "{what}");
                    // Neighbours wait for more than five seconds before they ask again.
                    assert!(report.outage() < Duration::from_secs(3), "{what}: {:?}", report.outage());
                }
                lab.reconnect(cut, Cut::Carrier).unwrap();
                // The peer learns the MAC address of this slave, and will send to it when the next one is active.
                lab.peer.ip("neigh flush all").unwrap();
                meet(&lab);
            }
            cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        }
    }
}

/// The next agent detects what happened, announces what is due, and moves the MAC addresses.
#[test]
fn a_resumed_agent_follows_the_guard() {
    skip_if_unable!();
    let _turn = concurrently();
    for policy in ["none", "active", "follow"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}"), "clock=off"]);
        let before = SLAVES.map(|name| lab.mac(name).unwrap());
        xbond.pause().unwrap();
        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        // A packet triggers the guard's check.
        let sent = traffic(&lab, 1_000);
        sent.wait_for_more(100).unwrap();
        sent.stop().unwrap();
        let log = xbond.log().len();
        xbond.signal(Signal::SIGCONT).unwrap();
        let said = xbond.wait_for_after(log, "active slave enp0s9 instead of enp0s8").unwrap();
        assert!(said.contains("a packet found its carrier gone"), "{said}");
        wait_for_active(&xbond, SLAVES[1]);
        let expected = match policy {
            "none" => [before[0]; 3],
            "active" => [before[1], before[0], before[1]],
            _ => [before[0], before[1], before[0]],
        };
        let macs = || [BOND, SLAVES[0], SLAVES[1]].map(|name| lab.host.link(name).unwrap().mac);
        eventually("the MACs", macs, |macs| *macs == expected);
        capture.wait_for(WAIT_LIMIT, |frame| frame.announces(HOST_V4.into()).is_some()).unwrap();
        let bond = show(&xbond);
        assert_eq!(slave(&bond, SLAVES[1])["counters"]["guard_failovers"], 1);
        assert_eq!(slave(&bond, SLAVES[0])["link_failure_count"], 1);

        // The first slave is up again: nothing fails back without a reason.
        lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_status(&xbond, SLAVES[0], "up");
        assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[1]));
        xbond.stop().unwrap();
    }
}

/// Frames that were sent before the carrier fell arrive; of the frames that are sent after it none is lost.
#[test]
fn a_clean_cut_loses_nothing_outbound() {
    skip_if_unable!();
    let _turn = time_is_no_measure().is_none().then(alone);
    let lab = builder(Datapath::Tc).wire(Wire::Tap).build().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &["fail_over_mac=active"]);
    // Frames that the taps' reader has not read when the carrier falls are lost; on an emulated machine the reader is
    // slow.
    let rate = if time_is_no_measure().is_some() { rate() / 2 } else { rate() };
    let mut lost = Vec::new();
    for number in 0..10 {
        let (active, other) = (SLAVES[number % 2], SLAVES[(number + 1) % 2]);
        let traffic = TwoWay::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), rate).unwrap();
        traffic.wait_for_more(500).unwrap();
        let dropped = || SLAVES.map(|slave| tx_dropped(&lab, slave)).iter().sum::<u64>();
        let dropped_before = dropped();
        lab.cut(active, Cut::Carrier).unwrap();
        wait_for_active(&xbond, other);
        traffic.wait_for_more(500).unwrap();
        let [to_peer, _] = traffic.stop().unwrap();
        println!(
            "cut {number}: lost {}, dropped by the taps {}, outage {:?}",
            to_peer.lost,
            dropped() - dropped_before,
            to_peer.outage()
        );
        lost.push(to_peer.lost);
        lab.reconnect(active, Cut::Carrier).unwrap();
        wait_for_status(&xbond, active, "up");
    }
    lost.sort_unstable();
    assert_eq!(lost[lost.len() / 2], 0, "{lost:?}");
}

#[test]
fn without_the_guard_the_agent_fails_over() {
    skip_if_unable!();
    let _turn = concurrently();
    for (options, arguments, why) in [
        (&["miimon=100"][..], &["--guard", "off"][..], "as configured"),
        (&["miimon=100", "downdelay=300"], &[], "downdelay delays failovers"),
    ] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond_with(&lab, Datapath::Tc, options, arguments);
        assert_eq!(show(&xbond)["guard"], format!("off: {why}"));
        xbond.pause().unwrap();
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        assert_eq!(lab.host.ping(PEER_V4.into(), 3).unwrap().received, 0);
        xbond.signal(Signal::SIGCONT).unwrap();
        wait_for_active(&xbond, SLAVES[1]);
        assert_eq!(slave(&show(&xbond), SLAVES[1])["counters"]["guard_failovers"], 0);
        xbond.stop().unwrap();
    }
    // The same option, set at run time.
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    for (setting, guard) in [("downdelay=200", "off: downdelay delays failovers"), ("downdelay=0", "on")] {
        xbond.set(BOND, setting).unwrap();
        assert_eq!(show(&xbond)["guard"], guard);
    }
    xbond.stop().unwrap();
}

/// prearm prevents the inbound loss that follow's swap of MAC addresses causes.
#[test]
fn a_planned_switch_under_follow_with_prearm_loses_nothing() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond_with(&lab, datapath, &["fail_over_mac=follow"], &["--prearm"]);
        let mac = lab.host.link(BOND).unwrap().mac;
        for name in SLAVES {
            let received = lab.host.exec(&format!("bridge fdb show dev {name}")).unwrap();
            assert!(received.contains(&mac.to_string()), "{name}: {received}");
        }
        let traffic = traffic(&lab, rate());
        traffic.wait_for_more(1_000).unwrap();
        for number in 0..6 {
            xbond.set(BOND, &format!("active_slave={}", SLAVES[(number + 1) % 2])).unwrap();
            traffic.wait_for_more(u64::from(rate()) / 4).unwrap();
        }
        for (direction, report) in ["to peer", "to host"].iter().zip(traffic.stop().unwrap()) {
            let what = format!("{}, {direction}", datapath.name());
            assert_eq!((report.lost, report.duplicated), (0, 0), "{what}");
        }
        xbond.stop().unwrap();
        for name in SLAVES {
            let left = lab.host.exec(&format!("bridge fdb show dev {name}")).unwrap();
            assert!(!left.contains(&mac.to_string()), "{name}: {left}");
        }
    }
}

#[test]
fn flapping_links_do_not_fail_over_with_every_packet() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let traffic = traffic(&lab, rate());
    traffic.wait_for_more(500).unwrap();
    for number in 0..200 {
        let name = SLAVES[number % 2];
        lab.cut(name, Cut::Carrier).unwrap();
        lab.reconnect(name, Cut::Carrier).unwrap();
    }
    let [to_peer, _] = traffic.stop().unwrap();
    println!("lost {}", to_peer.lost);
    eventually(
        "both are up",
        || show(&xbond),
        |bond| SLAVES.iter().all(|name| slave(bond, name)["mii_status"] == "up"),
    );
    meet(&lab);
    let traffic = common::traffic(&lab, rate());
    traffic.wait_for_more(rate().into()).unwrap();
    for (direction, report) in ["to peer", "to host"].iter().zip(traffic.stop().unwrap()) {
        assert_eq!(
            (report.lost, report.duplicated),
            (0, 0),
            "{:?} {direction}: {:#}",
            report.holes().collect::<Vec<_>>(),
            xbond.show(BOND).unwrap()
        );
    }
    let log = xbond.stop().unwrap();
    assert!(log.lines().filter(|line| line.contains("active slave")).count() < 450, "{log}");
}
