//! Frames for the bond that a switch sends to a backup: counted, and the address announced by the active slave.

mod common;
mod programs;

use std::time::Instant;

use bond_common::{
    abi::{BondEntry, FailOverMac, Slot},
    mac::Mac,
};
use bond_user::sys::dataplane::Hook;
use common::{BOND, DATAPATHS, SLAVES, alone, bond, builder, concurrently, eventually, show, slave};
use programs::Bench;
use serde_json::Value;
use xbond_tests::{
    Capture, Flow, FlowOptions, HOST_V4, Lab, PEER_V4, PacketSocket, Xbond,
    capture::Frame,
    frames::{GUEST, HOST, IPV4, LLDP, OWN, PEER, Scene, Way, ethernet},
    lab::Datapath,
    skip_if_unable,
    xbond::cli,
};

const RARP: [u8; 2] = [0x80, 0x35];

/// The backup's counter after one frame to this address.
fn counted(bench: &Bench, scene: &Scene, destination: Mac) -> u64 {
    let slot = Slot::new(1).unwrap();
    let before = bench.maps.misdirected(slot);
    bench.set(scene);
    let _ = bench.run(Way::Receive(1), &ethernet(destination, PEER, IPV4));
    bench.maps.misdirected(slot) - before
}

#[test]
fn frames_for_the_bond_are_counted_on_backups_only() {
    for hook in [Hook::Tc, Hook::Xdp] {
        let bench = Bench::new(hook, "misdirected");
        let [none, active, follow] =
            [FailOverMac::None, FailOverMac::Active, FailOverMac::Follow].map(Scene::of);
        let table = [
            ("the bond's address", none, HOST, 1),
            ("the bond's address, follow", follow, HOST, 1),
            ("the active slave's address", active, OWN[0], 1),
            ("of a peer that does not know the new address", active, OWN[1], 0),
            ("not on the wire", active, HOST, 0),
            ("another station", none, GUEST, 0),
            ("broadcast", none, Mac::BROADCAST, 0),
            ("link-local", none, LLDP, 0),
            ("draining", Scene { draining: Some(1), ..none }, HOST, 0),
            ("active", Scene { active: Some(1), ..none }, HOST, 0),
            ("no active slave", Scene { active: None, ..none }, HOST, 0),
            ("all_slaves_active", Scene { flags: BondEntry::ALL_SLAVES_ACTIVE, ..none }, HOST, 0),
        ];
        for (what, scene, destination, expected) in table {
            assert_eq!(counted(&bench, &scene, destination), expected, "{what}, {hook}");
        }
        bench.set(&none);
        let _ = bench.run(Way::Transmit, &ethernet(PEER, GUEST, IPV4));
        assert_eq!(counted(&bench, &none, GUEST), 1, "a guest that has sent, {hook}");
    }
}

/// Joins two switches by a trunk: the peer and the first NIC are at one, the second NIC at the other. A single bridge forgets
/// what it has learnt at a port that goes down.
fn split(lab: &Lab) {
    let switch = &lab.switch.netns;
    let port = lab.port(SLAVES[1]).unwrap();
    switch.ip("link add br1 type bridge forward_delay 0 mcast_snooping 0").unwrap();
    switch.ip("link add t0 type veth peer name t1").unwrap();
    switch.ip("link set t0 master br0 up").unwrap();
    switch.ip("link set t1 master br1 up").unwrap();
    switch.ip(&format!("link set {port} master br1")).unwrap();
    switch.ip("link set br1 up").unwrap();
    for port in ["t0", "t1", &port] {
        lab.switch.wait_for_forwarding(port).unwrap();
    }
}

/// Starts numbered packets from the peer to the bond; nothing is sent in the other direction.
fn one_way(lab: &Lab, rate: u32) -> Flow {
    let options = FlowOptions { rate, ..FlowOptions::default() };
    let flow = Flow::start((&lab.peer, PEER_V4.into()), (&lab.host, HOST_V4.into()), options).unwrap();
    flow.wait_for_more(u64::from(rate) / 5).unwrap();
    flow
}

fn wait_for_clock(xbond: &Xbond<'_>) {
    eventually("the clock runs", || show(xbond)["clock"].clone(), |clock| clock == "on, every 10 ms");
}

/// Returns bond0 as the pinned maps and the kernel have it.
fn orphan(lab: &Lab) -> Value {
    let text = cli(&lab.host, ["show", BOND, "-j"]).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["bonds"][0].take()
}

fn misdirected(lab: &Lab) -> u64 {
    slave(&orphan(lab), SLAVES[1])["counters"]["misdirected"].as_u64().unwrap()
}

/// Returns the reverse ARP requests that have arrived at the port of a NIC.
fn reverse_arps(lab: &Lab, capture: &Capture, nic: &str) -> Vec<Frame> {
    let port = lab.port(nic).unwrap();
    let frames = capture.frames().into_iter();
    frames.filter(|frame| !frame.outgoing && frame.ifname == port && frame.bytes[12..14] == RARP).collect()
}

/// Sends one frame with the bond's MAC address by the backup, as an LLDP daemon does.
fn send_by_backup(lab: &Lab) -> Instant {
    let mac = lab.host.link(BOND).unwrap().mac;
    let socket = PacketSocket::open(&lab.host, SLAVES[1]).unwrap();
    let start = Instant::now();
    socket.send(&ethernet(Mac::BROADCAST, mac, &[0x88, 0xb5])).unwrap();
    start
}

#[test]
fn a_frame_by_the_backup_costs_two_ticks_of_inbound_traffic() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for (datapath, is_killed) in
        DATAPATHS.into_iter().flat_map(|datapath| [(datapath, false), (datapath, true)])
    {
        let what = format!("{}, killed {is_killed}", datapath.name());
        let lab = builder(datapath).build().unwrap();
        let xbond = bond(&lab, datapath, &[]);
        wait_for_clock(&xbond);
        split(&lab);
        let mac = lab.host.link(BOND).unwrap().mac;
        let log = xbond.log().len();
        let xbond = if is_killed {
            xbond.kill().unwrap();
            None
        } else {
            Some(xbond)
        };
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let flow = one_way(&lab, 2000);
        assert_eq!(misdirected(&lab), 0, "{what}");
        send_by_backup(&lab);
        flow.wait_for_more(1000).unwrap();
        let report = flow.stop().unwrap();
        println!("{what}: lost {} in {:?}", report.lost, report.outage());
        assert!(report.lost > 0 && report.lost <= 40, "{what}: {report:?}");
        assert_eq!(misdirected(&lab), report.lost, "{what}");
        let found = reverse_arps(&lab, &capture, SLAVES[0]);
        assert_eq!(found.iter().map(Frame::source).collect::<Vec<_>>(), [mac], "{what}");
        let text = cli(&lab.host, ["show", BOND]).unwrap();
        assert!(text.contains(&format!("misdirected: {} {}", SLAVES[1], report.lost)), "{what}: {text}");
        if let Some(xbond) = xbond {
            xbond.wait_for_after(log, "a switch had this address on the wrong port").unwrap();
            xbond.stop().unwrap();
        } else {
            let next = bond(&lab, datapath, &[]);
            let line =
                format!("{}: while no agent ran, a backup began to receive frames for {mac} once", SLAVES[1]);
            next.wait_for(&line).unwrap();
            next.wait_for(&format!("{} such frames since", report.lost)).unwrap();
            next.stop().unwrap();
        }
    }
}

#[test]
fn a_switch_that_floods_gets_five_announcements() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &[]);
    wait_for_clock(&xbond);
    let capture = Capture::start(&lab.switch.netns).unwrap();
    for port in ["p0", "p1", "peer"] {
        lab.switch.netns.exec(&format!("bridge link set dev {port} learning off")).unwrap();
    }
    lab.switch.netns.ip("link set br0 type bridge ageing_time 0").unwrap();
    lab.switch.netns.exec("bridge fdb flush dev br0").ok();
    let flow = one_way(&lab, 500);
    let warning = "a switch sends them to all ports";
    xbond.wait_for(warning).unwrap();
    flow.wait_for_more(1000).unwrap();
    assert_eq!(reverse_arps(&lab, &capture, SLAVES[0]).len(), 5);
    assert_eq!(flow.stop().unwrap().lost, 0);
    assert_eq!(xbond.log().matches(warning).count(), 1, "{}", xbond.log());
    assert_eq!(xbond.log().matches("a switch had this address on the wrong port").count(), 1);
    let warnings = show(&xbond)["warnings"].to_string();
    assert!(warnings.contains(warning) && warnings.contains(SLAVES[1]), "{warnings}");
    xbond.stop().unwrap();
}

#[test]
fn without_announcements_misdirected_frames_are_only_counted() {
    skip_if_unable!();
    let _turn = concurrently();
    for options in [&["num_grat_arp=0"][..], &["clock=off"]] {
        let lab = builder(Datapath::Tc).build().unwrap();
        let xbond = common::bond_with(&lab, Datapath::Tc, &[], &["-o", options[0]]);
        if options[0] != "clock=off" {
            wait_for_clock(&xbond);
        }
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let flow = one_way(&lab, 500);
        send_by_backup(&lab);
        eventually("misdirected frames", || misdirected(&lab), |count| *count > 0);
        assert_eq!(reverse_arps(&lab, &capture, SLAVES[0]).len(), 0, "{options:?}");
        drop(flow);
        xbond.stop().unwrap();
    }
}

#[test]
fn a_failover_is_no_misdirection() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(Datapath::Tc).build().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &["fail_over_mac=none"]);
    wait_for_clock(&xbond);
    split(&lab);
    let flow = one_way(&lab, 1000);
    for nic in [SLAVES[1], SLAVES[0]] {
        xbond.cli(["set", BOND, &format!("active_slave={nic}")]).unwrap();
        flow.wait_for_more(500).unwrap();
    }
    assert_eq!(flow.stop().unwrap().lost, 0);
    let bond = show(&xbond);
    for nic in SLAVES {
        assert_eq!(slave(&bond, nic)["counters"]["misdirected"], 0, "{nic}");
    }
    xbond.stop().unwrap();
}

#[test]
fn a_frame_with_a_tag_is_answered_in_its_vlan() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = builder(datapath).build().unwrap();
        let xbond = bond(&lab, datapath, &[]);
        wait_for_clock(&xbond);
        let mac = lab.host.link(BOND).unwrap().mac;
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let port = PacketSocket::open(&lab.switch.netns, &lab.port(SLAVES[1]).unwrap()).unwrap();
        // A switch that learns per VLAN has the address on the wrong port in VLAN 5 only.
        let frame = xbond_tests::frames::tagged(&ethernet(mac, PEER, IPV4), [0x81, 0]);
        let answer = |frame: &Frame| !frame.outgoing && frame.vlans() == [5] && frame.source() == mac;
        eventually(
            "an announcement in VLAN 5",
            || {
                port.send(&frame).unwrap();
                capture.frames().iter().filter(|frame| answer(frame)).count()
            },
            |count| *count > 0,
        );
        assert!(reverse_arps(&lab, &capture, SLAVES[0]).is_empty(), "{}", datapath.name());
        xbond.stop().unwrap();
    }
}
