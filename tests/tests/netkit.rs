//! bond0 and its port as a netkit pair, and what happens to that setting on a kernel without netkit.

mod common;
mod snapshot;

use std::{fs, path::PathBuf};

use aya::programs::{SchedClassifier, TcAttachType};
use common::{
    BOND, SLAVES, bond_with, concurrently, eventually, lab, meet, show, slave, traffic, wait_for_active,
};
use snapshot::Snapshot;
use xbond_tests::{
    Bulk, Capture, Cut, HOST_V4, Lab, NetNs, PEER_V4, PacketSocket, Policy, Switch, Xbond, bonded, datagram,
    lab::Datapath, netns, skip, skip_if_unable, xbond::cli,
};

const RATE: u32 = 5_000;
const PEER_NIC: &str = "eth0";
const PORT: &str = "bond0-port";

/// Returns why there is no netkit here, if so.
fn obstacle() -> Option<String> {
    let netns = NetNs::create(&format!("{}-netkit", netns::unique_stem())).unwrap();
    let made = netns.ip("link add probe numtxqueues 16 type netkit");
    made.err().map(|_| {
        "this kernel makes no netkit pairs with 16 transmit queues (Linux 6.7 on, but not 7.3)".into()
    })
}

macro_rules! skip_without_netkit {
    () => {
        skip_if_unable!();
        if let Some(reason) = obstacle() {
            return skip(&reason);
        }
    };
}

fn arguments<'a>(pair: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut line = vec!["--bond", BOND, "--datapath", "tc", "--pair", pair, "-o", "miimon=100"];
    line.extend(SLAVES.iter().flat_map(|name| ["--slave", name]));
    line.extend(more);
    line
}

fn pins(lab: &Lab) -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/xbond/{}/{BOND}", lab.host.cookie().unwrap()))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the kernel's kind of bond0.
fn kind(netns: &NetNs) -> String {
    let links = json(&netns.ip(&format!("-d -j link show {BOND}")).unwrap());
    links[0]["linkinfo"]["info_kind"].as_str().unwrap_or_default().to_owned()
}

fn packets(netns: &NetNs, name: &str, way: &str) -> u64 {
    let links = json(&netns.ip(&format!("-s -j link show {name}")).unwrap());
    links[0]["stats64"][way]["packets"].as_u64().unwrap()
}

/// Counts the programs at the ingress of a device.
fn at_ingress(netns: &NetNs, name: &str) -> usize {
    let attached = || Ok(SchedClassifier::query_tcx(name, TcAttachType::Ingress)?.1.len());
    netns.run(attached).unwrap()
}

fn port_program(lab: &Lab) -> u64 {
    let pin = pins(lab).join("port_tx_prog");
    let program = json(&lab.host.exec(&format!("bpftool -j prog show pinned {}", pin.display())).unwrap());
    program["id"].as_u64().unwrap()
}

#[test]
fn a_pair_of_netkit_is_the_default_and_bond0_sees_what_it_sends() {
    skip_without_netkit!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let xbond = bond_with(&lab, Datapath::Tc, &["fail_over_mac=active"], &[]);
    assert_eq!(show(&xbond)["pair"], "netkit");
    assert!(xbond.cli(["show", "-d"]).unwrap().contains("datapath=tc pair=netkit port=bond0-port"));
    assert_eq!(kind(&lab.host), "netkit");
    assert_eq!((at_ingress(&lab.host, PORT), at_ingress(&lab.host, SLAVES[0])), (1, 1));

    let sent = |name| packets(&lab.host, name, "tx");
    let received = |name| packets(&lab.host, name, "rx");
    for active in [SLAVES[0], SLAVES[1]] {
        let (out, into, port) = (sent(BOND), received(BOND), received(PORT));
        let on_bond = Capture::start_on(&lab.host, BOND).unwrap();
        let on_wire = Capture::start_on(&lab.peer, PEER_NIC).unwrap();
        assert_eq!(lab.host.ping(PEER_V4.into(), 20).unwrap().received, 20);
        let is_icmp =
            |frame: &xbond_tests::Frame| frame.bytes.get(12..14) == Some(&[8, 0]) && frame.bytes[23] == 1;
        let seen = on_bond.stop().unwrap();
        let seen =
            |outgoing| seen.iter().filter(|frame| is_icmp(frame) && frame.outgoing == outgoing).count();
        assert_eq!((seen(true), seen(false)), (20, 20), "a capture on bond0 sees both directions");
        assert!(sent(BOND) >= out + 20 && received(BOND) >= into + 20, "{active}: bond0's counters");
        assert_eq!(received(PORT), port, "{active}");
        let wire = on_wire.stop().unwrap();
        let sources: Vec<_> = wire
            .iter()
            .filter(|frame| is_icmp(frame) && !frame.outgoing)
            .map(|frame| frame.source())
            .collect();
        assert_eq!(sources, vec![lab.mac(active).unwrap(); 20], "on the wire");
        if active == SLAVES[0] {
            lab.cut(SLAVES[0], Cut::Carrier).unwrap();
            wait_for_active(&xbond, SLAVES[1]);
            meet(&lab);
        }
    }
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    common::wait_for_status(&xbond, SLAVES[0], "up");
    xbond.stop().unwrap();
    before.assert_holds(&lab.host, "after the bond");
}

#[test]
fn a_failover_and_a_planned_switch_lose_nothing() {
    skip_without_netkit!();
    let _turn = concurrently();
    for policy in ["none", "active"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond =
            bond_with(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")], &["--pair", "netkit"]);
        let flow = traffic(&lab, RATE);
        flow.wait_for_more(1_000).unwrap();
        for active in [SLAVES[1], SLAVES[0]] {
            xbond.set(BOND, &format!("active_slave={active}")).unwrap();
            flow.wait_for_more(u64::from(RATE) / 4).unwrap();
        }
        for report in flow.stop().unwrap() {
            assert_eq!((report.lost, report.duplicated), (0, 0), "{policy}: planned");
        }
        // The guard: the packet that finds no carrier leaves by the other slave.
        let flow = traffic(&lab, RATE);
        flow.wait_for_more(1_000).unwrap();
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        flow.wait_for_more(1_000).unwrap();
        wait_for_active(&xbond, SLAVES[1]);
        drop(flow.stop().unwrap());
        assert_eq!(slave(&show(&xbond), SLAVES[0])["mii_status"], "down", "{policy}");
        xbond.stop().unwrap();
    }
}

#[test]
fn a_killed_agents_pair_is_adopted_with_its_link() {
    skip_without_netkit!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let address = format!("{HOST_V4}/24");
    let first = Xbond::run(&lab.host, arguments("auto", &["--address", &address])).unwrap();
    meet(&lab);
    let flow = traffic(&lab, RATE);
    flow.wait_for_more(1_000).unwrap();
    let (ifindex, program) = (lab.host.link(BOND).unwrap().ifindex, port_program(&lab));
    first.kill().unwrap();
    // Without an agent, like any bond.
    assert_eq!(json(&cli(&lab.host, ["show", "-j"]).unwrap())["bonds"][0]["pair"], "netkit");
    // Another kind than the existing one is refused, and the bond keeps running.
    let refusal = cli(&lab.host, ["run"].into_iter().chain(arguments("veth", &[]))).unwrap_err().to_string();
    assert!(refusal.contains("pair is netkit, and the configuration says veth"), "{refusal}");
    let second = Xbond::run(&lab.host, arguments("netkit", &["--address", &address])).unwrap();
    second.wait_for("bond0: adopted, with enp0s8, enp0s9").unwrap();
    flow.wait_for_more(1_000).unwrap();
    second.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
    flow.wait_for_more(u64::from(RATE) / 4).unwrap();
    for report in flow.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    assert_eq!((lab.host.link(BOND).unwrap().ifindex, kind(&lab.host).as_str()), (ifindex, "netkit"));
    assert_ne!(port_program(&lab), program, "the program is the new agent's");
    second.kill().unwrap();
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    before.assert_holds(&lab.host, "after down --force");
}

/// bond0 keeps its programs when it is moved, and an agent that no longer sees it adopts the bond nevertheless.
#[test]
fn bond0_in_a_container_is_adopted() {
    skip_without_netkit!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let container = NetNs::create(&format!("{}-container", netns::unique_stem())).unwrap();
    let first = Xbond::run(&lab.host, arguments("netkit", &[])).unwrap();
    let program = port_program(&lab);
    lab.host.ip(&format!("link set {BOND} netns {}", container.name())).unwrap();
    container.ip(&format!("link set {BOND} up")).unwrap();
    container.ip(&format!("address add {HOST_V4}/24 dev {BOND}")).unwrap();
    bonded::wait_for_path(&container, &lab.peer).unwrap();
    first.kill().unwrap();
    let second = Xbond::run(&lab.host, arguments("auto", &[])).unwrap();
    assert_eq!(show(&second)["pair"], "netkit");
    assert_ne!(port_program(&lab), program);
    bonded::wait_for_path(&container, &lab.peer).unwrap();
    second.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
    bonded::wait_for_path(&container, &lab.peer).unwrap();
    second.stop().unwrap();
    assert!(container.link(BOND).is_err(), "bond0 is deleted with its bond");
}

/// Created by an agent that knew no netkit, or on a kernel without it.
#[test]
fn a_bond_of_veth_stays_one() {
    skip_without_netkit!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let address = format!("{HOST_V4}/24");
    let first = Xbond::run(&lab.host, arguments("veth", &["--address", &address])).unwrap();
    assert_eq!((show(&first)["pair"].as_str(), kind(&lab.host).as_str()), (Some("veth"), "veth"));
    meet(&lab);
    first.kill().unwrap();
    let second = Xbond::run(&lab.host, arguments("auto", &["--address", &address])).unwrap();
    assert_eq!((show(&second)["pair"].as_str(), kind(&lab.host).as_str()), (Some("veth"), "veth"));
    meet(&lab);
    second.stop().unwrap();
}

/// As after another process has removed the link's pin: frames that bond0 sends are dropped there, and it still
/// receives.
#[test]
fn without_its_program_nothing_leaves_bond0() {
    skip_without_netkit!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let address = format!("{HOST_V4}/24");
    let xbond = Xbond::run(&lab.host, arguments("netkit", &["--address", &address])).unwrap();
    meet(&lab);
    xbond.kill().unwrap();
    fs::remove_file(pins(&lab).join("bond_tx_link")).unwrap();
    // Detaching waits for CPUs that run the program.
    let socket = PacketSocket::open(&lab.host, BOND).unwrap();
    let port = packets(&lab.host, PORT, "rx");
    let capture = Capture::start(&lab.peer).unwrap();
    let frame = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5], &[7; 46]].concat();
    let is_ours = |found: &xbond_tests::Frame| found.bytes.get(12..) == frame.get(12..);
    eventually(
        "bond0 drops",
        || {
            // The send succeeds or fails: the counter rises with each frame that is dropped.
            let _ = socket.send(&frame);
            json(&lab.host.ip(&format!("-s -j link show {BOND}")).unwrap())[0]["stats64"]["tx"]["dropped"]
                .as_u64()
                .unwrap()
        },
        |dropped| *dropped >= 3,
    );
    let received = packets(&lab.host, BOND, "rx");
    datagram::send(&lab.peer, PEER_V4, (HOST_V4, 9), b"still").unwrap();
    eventually("bond0 receives", || packets(&lab.host, BOND, "rx"), |count| *count > received);
    assert_eq!(packets(&lab.host, PORT, "rx"), port, "the port received nothing");
    assert_eq!(capture.stop().unwrap().iter().filter(|found| is_ours(found)).count(), 0);
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

/// A slave with several queues chooses one for each connection, and the socket stores it.
#[test]
fn the_queue_that_a_slave_chooses_is_no_queue_id() {
    skip_without_netkit!();
    let _turn = concurrently();
    let lab = Lab::builder().nics([]).build().unwrap();
    for (index, name) in SLAVES.iter().enumerate() {
        let (port, netns) = (Switch::port(index), lab.switch.netns.name());
        let queues = "numtxqueues 2 numrxqueues 2";
        lab.host
            .ip(&format!("link add {name} {queues} type veth peer name {port} {queues} netns {netns}"))
            .unwrap();
        lab.switch.plug(&port).unwrap();
    }
    let address = format!("{HOST_V4}/24");
    let xbond = Xbond::run(&lab.host, arguments("netkit", &["--address", &address])).unwrap();
    meet(&lab);
    xbond.cli(["set", BOND, "--slave", SLAVES[1], "queue_id=1"]).unwrap();
    let sent = |name| slave(&show(&xbond), name)["counters"]["tx_packets"].as_u64().unwrap();
    let (before, port) = (SLAVES.map(sent), packets(&lab.host, PORT, "rx"));
    for _ in 0..40 {
        let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
        Bulk::start(host, peer, 256 << 10).unwrap().finish().unwrap();
    }
    assert!(sent(SLAVES[0]) > before[0] + 400);
    assert_eq!(sent(SLAVES[1]), before[1], "no packet has queue 1");
    assert!(packets(&lab.host, PORT, "rx") > port + 400, "with a queue_id, frames pass the port");

    xbond.cli(["set", BOND, "--slave", SLAVES[1], "queue_id=0"]).unwrap();
    let port = packets(&lab.host, PORT, "rx");
    assert_eq!(lab.host.ping(PEER_V4.into(), 20).unwrap().received, 20);
    assert_eq!(packets(&lab.host, PORT, "rx"), port, "and then no more");
    xbond.stop().unwrap();
}

/// For all other kernels.
#[test]
fn without_netkit_it_is_refused_by_name_and_auto_is_veth() {
    skip_if_unable!();
    if obstacle().is_none() {
        return skip("this kernel has netkit");
    }
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let refusal =
        cli(&lab.host, ["run"].into_iter().chain(arguments("netkit", &[]))).unwrap_err().to_string();
    let wanted = "bond0: this kernel makes no netkit pairs with 16 transmit queues (Linux 6.7 on, with CONFIG_NETKIT; 7.3 does \
                  not); leave pair out, or use pair=veth";
    assert!(refusal.contains(wanted), "{refusal}");
    before.assert_holds(&lab.host, "after the refusal");
    let xbond = bond_with(&lab, Datapath::Tc, &[], &[]);
    assert_eq!((show(&xbond)["pair"].as_str(), kind(&lab.host).as_str()), (Some("veth"), "veth"));
    xbond.stop().unwrap();
    before.assert_holds(&lab.host, "after the bond");
}
