//! Link-local frames (01:80:c2:00:00:00 to :0f) through a bond: STP, LLDP, LACP, 802.1X.

mod common;

use std::time::Duration;

use common::{BOND, DATAPATHS, bond, builder, concurrently, eventually, lab, show, slave, wait_for_active};
use xbond_tests::{
    Capture, Cut, Frame, Lab, NetNs, Nic, PacketSocket, Policy, Xbond, has_tcx,
    lab::{Datapath, PEER_NIC},
    skip_if_unable, wait_limit,
};

const PORT: &str = "bond0-port";
const STATION: [u8; 6] = [2, 0, 0, 0, 0xff, 1];
/// STP, LACP, 802.1X, LLDP: the last byte of the destination, and the bytes after the addresses.
const KINDS: [(u8, &[u8]); 4] = [
    (0x00, &[0, 7, 0x42, 0x42, 3]),
    (0x02, &[0x88, 0x09]),
    (0x03, &[0x88, 0x8e, 2, 1]),
    (0x0e, &[0x88, 0xcc]),
];

fn frame((last, rest): (u8, &[u8]), source: [u8; 6]) -> Vec<u8> {
    let mut frame = [&[0x01, 0x80, 0xc2, 0, 0, last][..], &source, rest].concat();
    frame.resize(60, 0);
    frame
}

/// Returns a frame that marks the end of a check: any frame that was sent before it has arrived, or never will.
fn broadcast(source: [u8; 6]) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &source, &[0x88, 0xb5]].concat();
    frame.resize(60, 0);
    frame
}

/// Returns the interfaces of the host that received each kind of frame from the switch's port to this NIC.
fn heard(lab: &Lab, nic: &str) -> Vec<Vec<String>> {
    let capture = Capture::start(&lab.host).unwrap();
    let port = PacketSocket::open(&lab.switch.netns, &lab.port(nic).unwrap()).unwrap();
    for kind in KINDS {
        port.send(&frame(kind, STATION)).unwrap();
    }
    // The active slave's path to bond0 is the longest.
    let active = PacketSocket::open(&lab.switch.netns, &lab.port("enp0s8").unwrap()).unwrap();
    active.send(&broadcast(STATION)).unwrap();
    let is_last = |seen: &Frame| seen.ifname == BOND && seen.bytes == broadcast(STATION);
    capture.wait_for(wait_limit(), is_last).unwrap();
    let seen = capture.stop().unwrap();
    let by = |kind| {
        let is_it = |seen: &&Frame| !seen.outgoing && seen.bytes == frame(kind, STATION);
        let mut names: Vec<_> = seen.iter().filter(is_it).map(|seen| seen.ifname.clone()).collect();
        names.sort_unstable();
        names
    };
    KINDS.into_iter().map(by).collect()
}

#[test]
fn an_active_slaves_link_local_frames_reach_bond0_and_the_slave_once() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &["primary=enp0s8"]);
        wait_for_active(&xbond, "enp0s8");
        let both = vec![vec![BOND.to_owned(), "enp0s8".to_owned()]; KINDS.len()];
        assert_eq!(heard(&lab, "enp0s8"), both, "{datapath:?}");
        assert_eq!(heard(&lab, "enp0s9"), vec![vec!["enp0s9".to_owned()]; KINDS.len()], "{datapath:?}");

        xbond.set(BOND, "all_slaves_active=1").unwrap();
        let both = vec![vec![BOND.to_owned(), "enp0s9".to_owned()]; KINDS.len()];
        assert_eq!(heard(&lab, "enp0s9"), both, "{datapath:?}, all_slaves_active");
        let counted = slave(&show(&xbond), "enp0s9")["rx_link_local"].as_u64();
        assert!(counted.is_none_or(|counted| counted >= 2 * KINDS.len() as u64), "{counted:?}");
    }
}

#[test]
fn link_local_frames_of_an_adopted_bond_reach_bond0() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let options = ["primary=enp0s8"];
        bond(&lab, datapath, &options).kill().unwrap();
        let both = vec![vec![BOND.to_owned(), "enp0s8".to_owned()]; KINDS.len()];
        assert_eq!(heard(&lab, "enp0s8"), both, "{datapath:?}, without an agent");
        let xbond = bond(&lab, datapath, &options);
        assert_eq!(heard(&lab, "enp0s8"), both, "{datapath:?}, adopted");
        xbond.cli(["del-slave", BOND, "enp0s9"]).unwrap();
        xbond.cli(["add-slave", BOND, "enp0s9"]).unwrap();
        assert_eq!(heard(&lab, "enp0s9"), vec![vec!["enp0s9".to_owned()]; KINDS.len()], "{datapath:?}");
    }
}

/// Returns the ends that receive the other one's link-local frames. The programs that prevent it are at tcx's egress;
/// without them, XDP at the port takes what bond0 sends before the port's stack.
fn ends_that_hear(datapath: Datapath) -> &'static [&'static str] {
    match datapath {
        _ if has_tcx() => &[],
        Datapath::Tc => &[BOND, PORT],
        Datapath::Xdp => &[BOND],
    }
}

/// Otherwise a daemon on every interface, such as lldpd, would report the pair's ends as neighbours, as it does before
/// Linux 6.6.
#[test]
fn the_ends_of_a_pair_do_not_receive_each_others_link_local_frames() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let _xbond = bond(&lab, datapath, &[]);
        let wire = Capture::start_on(&lab.switch.netns, "p0").unwrap();
        let capture = Capture::start(&lab.host).unwrap();
        let [bond, port] = [BOND, PORT].map(|name| PacketSocket::open(&lab.host, name).unwrap());
        let source = lab.host.link(BOND).unwrap().mac.bytes();
        for kind in KINDS {
            bond.send(&frame(kind, source)).unwrap();
            port.send(&frame(kind, STATION)).unwrap();
        }
        // Through the port's stack to bond0, and through bond0 to the wire: after all others.
        port.send(&broadcast(STATION)).unwrap();
        bond.send(&broadcast(source)).unwrap();
        let is_at = |name: &'static str, last: Vec<u8>| {
            move |seen: &Frame| seen.ifname == name && !seen.outgoing && seen.bytes == last
        };
        capture.wait_for(wait_limit(), is_at(BOND, broadcast(STATION))).unwrap();
        wire.wait_for(wait_limit(), is_at("p0", broadcast(source))).unwrap();
        let left = wire.stop().unwrap();
        for kind in KINDS {
            let sent = |seen: &&Frame| !seen.outgoing && seen.bytes == frame(kind, source);
            assert_eq!(left.iter().filter(sent).count(), 1, "{datapath:?}: {kind:x?} of bond0 on the wire");
        }
        let heard = capture.stop().unwrap();
        // The switch, which has no STP, floods BPDUs to the other slave.
        for kind in KINDS {
            let is_it = |seen: &&Frame| {
                [BOND, PORT].contains(&seen.ifname.as_str())
                    && !seen.outgoing
                    && seen.bytes.starts_with(&frame(kind, source)[..6])
            };
            let mut ends: Vec<_> = heard.iter().filter(is_it).map(|seen| seen.ifname.as_str()).collect();
            ends.sort_unstable();
            assert_eq!(ends, ends_that_hear(datapath), "{datapath:?}: {kind:x?}: {heard:?}");
        }
    }
}

/// The driver gives bond0 the active slave's MAC address under fail_over_mac=active; here frames have it before bond0
/// does.
#[test]
fn frames_of_a_daemon_by_bond0_have_the_active_slaves_mac() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::VirtualBox);
        let options = ["fail_over_mac=active", "primary=enp0s8"];
        bond(&lab, datapath, &options).kill().unwrap();
        lab.cut("enp0s8", Cut::Carrier).unwrap();
        let wire = Capture::start_on(&lab.switch.netns, "p1").unwrap();
        let bond = PacketSocket::open(&lab.host, BOND).unwrap();
        let [former, mac] = ["enp0s8", "enp0s9"].map(|nic| lab.mac(nic).unwrap().bytes());
        assert_eq!(lab.host.link(BOND).unwrap().mac.bytes(), former, "no agent changes it");
        for kind in KINDS {
            bond.send(&frame(kind, former)).unwrap();
            let arrived = |seen: &Frame| !seen.outgoing && seen.bytes == frame(kind, mac);
            wire.wait_for(wait_limit(), arrived).unwrap();
        }
    }
}

/// Returns the state that the bridge's STP has given to a port.
fn state(netns: &NetNs, port: &str) -> String {
    let json = netns.exec(&format!("bridge -j link show dev {port}")).unwrap();
    let links: serde_json::Value = serde_json::from_str(&json).unwrap();
    links[0]["state"].as_str().unwrap_or_default().to_owned()
}

/// Creates br0 with STP, and with bond0 and another NIC to one switch as ports.
fn bridged(lab: &Lab) {
    let host = &lab.host;
    lab.switch
        .netns
        .ip("link set br0 type bridge forward_delay 200 hello_time 100 priority 4096 stp_state 1")
        .unwrap();
    host.ip("link add br0 type bridge forward_delay 200 hello_time 100 stp_state 1 mcast_snooping 0")
        .unwrap();
    for name in ["br0", "eth2"] {
        host.sysctl(&format!("ipv6/conf/{name}/disable_ipv6"), "1").unwrap();
    }
    for name in [BOND, "eth2"] {
        host.ip(&format!("link set {name} master br0 up")).unwrap();
    }
    host.ip("link set br0 up").unwrap();
}

#[test]
fn stp_blocks_one_of_two_paths_to_a_switch_if_one_is_a_bond() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let nics = Nic::scenario().into_iter().chain([Nic::new("eth2", [2, 0, 0, 0, 0, 0x22])]);
        let lab = builder(datapath).nics(nics).build().unwrap();
        let _xbond = Xbond::run(
            &lab.host,
            [
                "--bond",
                BOND,
                "--datapath",
                datapath.name(),
                "-o",
                "miimon=100",
                "--slave",
                "enp0s8",
                "--slave",
                "enp0s9",
            ],
        )
        .unwrap();
        bridged(&lab);
        // Each takes two forward delays, and may start again when a root is found.
        let forwards = |state: &String| state == "forwarding";
        eventually("the switch forwards", || state(&lab.switch.netns, "peer"), forwards);
        let states = || [BOND, "eth2"].map(|port| state(&lab.host, port));
        let settled =
            |states: &[String; 2]| states.iter().all(|state| state == "forwarding" || state == "blocking");
        let states = eventually("STP settles", states, settled);
        let blocking = states.iter().filter(|state| *state == "blocking").count();
        // With both forwarding, a broadcast would loop as long as the lab exists.
        assert_eq!(blocking, 1, "{datapath:?}: {states:?}");

        let capture = Capture::start(&lab.host).unwrap();
        let peer = PacketSocket::open(&lab.peer, PEER_NIC).unwrap();
        peer.send(&broadcast(STATION)).unwrap();
        let is_it = |seen: &Frame| seen.bytes == broadcast(STATION);
        capture.wait_for(wait_limit(), |seen| is_it(seen) && seen.ifname == "br0").unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let seen = capture.stop().unwrap();
        let copies = seen.iter().filter(|seen| is_it(seen) && seen.ifname == "br0").count();
        assert_eq!(copies, 1, "{datapath:?}: {copies} of one broadcast");
    }
}
