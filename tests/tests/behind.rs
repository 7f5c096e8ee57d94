//! What is behind the bond is announced: the address of a bridge above bond0, and guests on it, also silent ones. The slaves are
//! at two switches, which a trunk joins.

mod common;

use std::{
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use common::{
    BOND, DATAPATHS, SLAVES, alone, builder, concurrently, eventually, show, wait_for_active, wait_for_status,
};
use serde_json::{Value, json};
use xbond_tests::{
    Capture, Cut, Flow, FlowOptions, HOST_V4, Lab, Mac, NetNs, PEER_V4, Xbond,
    capture::Frame,
    flow::FlowReport,
    lab::{Datapath, PEER_NIC},
    link::is_there,
    netns::unique_stem,
    skip_if_unable, time_is_no_measure,
    xbond::cli,
};

/// A guest that sends a frame at times, and a silent one.
const GUESTS: [(&str, Ipv4Addr); 2] =
    [("talker", Ipv4Addr::new(192, 168, 99, 201)), ("silent", Ipv4Addr::new(192, 168, 99, 202))];
/// Longer than a failover may take on a machine under load. Without an announcement nothing arrives until the end.
fn outage_limit() -> Duration {
    Duration::from_millis(if time_is_no_measure().is_some() { 10_000 } else { 300 })
}

/// What lies above bond0.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Above {
    /// A bridge with the address of the host and the guests.
    Bridge,
    /// A bridge whose MAC address is another one than bond0's.
    OwnBridge,
    /// Macvlans: one of the host's with its address, one for each guest in the guest's namespace.
    Macvlans,
    /// Ipvlans, likewise: all have the MAC address of bond0.
    Ipvlans,
}

impl Above {
    /// Returns the kind of devices, and its mode, if they lie above bond0 directly.
    fn stacked(self) -> Option<&'static str> {
        match self {
            Self::Bridge | Self::OwnBridge => None,
            Self::Macvlans => Some("macvlan mode bridge"),
            Self::Ipvlans => Some("ipvlan mode l2"),
        }
    }

    /// Returns what a receipt has announced: addresses, and MAC addresses.
    fn announced(self) -> (u32, u32) {
        match self {
            // Two guests; a bridge has the host's ends of their veths in its table, too.
            Self::Bridge | Self::OwnBridge => (1, 4),
            Self::Macvlans => (1, 2),
            Self::Ipvlans => (3, 0),
        }
    }
}

/// A lab whose guests are behind the bond.
struct Site {
    lab: Lab,
    guests: Vec<NetNs>,
}

impl Site {
    fn new(datapath: Datapath) -> Self {
        let lab = builder(datapath).two_switches().build().unwrap();
        let guests = GUESTS.map(|(name, _)| NetNs::create(&format!("{}-{name}", unique_stem())).unwrap());
        for netns in guests.iter().chain([&lab.host, &lab.peer]) {
            netns.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
            netns.sysctl("ipv6/conf/default/disable_ipv6", "1").unwrap();
        }
        Self { lab, guests: guests.into() }
    }

    fn run(&self, datapath: Datapath, options: &[&str]) -> Xbond<'_> {
        let mut line = vec!["--bond", BOND, "--datapath", datapath.name(), "-o", "miimon=100"];
        for slave in SLAVES {
            line.extend(["--slave", slave]);
        }
        for option in options {
            line.extend(["-o", option]);
        }
        Xbond::run(&self.lab.host, line).unwrap()
    }

    /// Adds the host's address and the guests above bond0; each of them sends one frame.
    fn raise(&self, above: Above) {
        let ip = |line: &str| self.lab.host.ip(line).unwrap();
        let device = if above.stacked().is_some() { "mac0" } else { "br0" };
        match above.stacked() {
            Some(kind) => drop(ip(&format!("link add mac0 link bond0 type {kind}"))),
            None => {
                ip("link add br0 type bridge forward_delay 0 mcast_snooping 0");
                ip("link set bond0 master br0");
            }
        }
        if above == Above::Macvlans {
            ip("link set mac0 address 02:00:00:00:00:d0");
        }
        if above == Above::OwnBridge {
            ip("link set br0 address 02:00:00:00:00:b0");
        }
        ip(&format!("link set {device} up"));
        ip(&format!("address add {HOST_V4}/24 dev {device}"));
        self.add_guests(above);
        self.introduce();
    }

    fn add_guests(&self, above: Above) {
        let ip = |line: &str| self.lab.host.ip(line).unwrap();
        for (number, ((name, address), guest)) in GUESTS.iter().zip(&self.guests).enumerate() {
            let netns = guest.name();
            if let Some(kind) = above.stacked() {
                ip(&format!("link add {name} link bond0 type {kind}"));
                ip(&format!("link set {name} netns {netns} name eth0"));
            } else {
                // A bridge takes the least MAC address of its ports, which is to be bond0's.
                ip(&format!(
                    "link add {name} address fe:00:00:00:00:{number:02x} type veth peer name eth0 netns {netns}"
                ));
                ip(&format!("link set {name} master br0 up"));
            }
            guest.ip("link set eth0 up").unwrap();
            guest.ip(&format!("address add {address}/24 dev eth0")).unwrap();
        }
    }

    /// Gives the peer permanent neighbour entries for all addresses, so that it resolves none of them again.
    fn introduce(&self) {
        let all = self.guests.iter().zip(GUESTS.map(|(_, address)| address));
        for (netns, address) in all.chain([(&self.lab.host, HOST_V4)]) {
            eventually("it speaks", || netns.ping(PEER_V4.into(), 1).unwrap().received, |count| *count == 1);
            let known = self.lab.peer.ip(&format!("neighbour show {address} dev {PEER_NIC}")).unwrap();
            let mac = known.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap();
            let line = format!("neighbour replace {address} lladdr {mac} dev {PEER_NIC} nud permanent");
            self.lab.peer.ip(&line).unwrap();
        }
    }

    /// Packets from the peer alone: to the host's address, and to the silent guest.
    fn flows(&self) -> [Flow; 2] {
        let silent = (&self.guests[1], GUESTS[1].1.into());
        [(&self.lab.host, HOST_V4.into()), silent].map(|to| {
            let flow = Flow::start((&self.lab.peer, PEER_V4.into()), to, FlowOptions::default()).unwrap();
            flow.wait_for_more(50).unwrap();
            flow
        })
    }

    fn mac_of(&self, guest: usize) -> Mac {
        self.guests[guest].link("eth0").unwrap().mac
    }

    /// Returns the RARPs that arrived at the switch's port of `nic`: their MAC addresses, sorted.
    fn reverse_arps(&self, capture: &Capture, nic: &str) -> Vec<Mac> {
        let port = self.lab.port(nic).unwrap();
        let is_rarp = |frame: &Frame| frame.bytes.get(12..14) == Some(&[0x80, 0x35]);
        let frames = capture.frames().into_iter();
        let mut macs: Vec<_> = frames
            .filter(|frame| !frame.outgoing && frame.ifname == port && is_rarp(frame))
            .map(|frame| frame.source())
            .collect();
        macs.sort();
        macs
    }
}

/// Stops the flows; returns the reports when both have recovered.
#[track_caller]
fn reports(what: &str, flows: [Flow; 2]) -> [FlowReport; 2] {
    let reports = flows.map(|flow| {
        if let Err(error) = flow.wait_for_more(100) {
            panic!("{what}: {error:#}: {:?}", flow.stop().unwrap());
        }
        flow.stop().unwrap()
    });
    let figures = reports.each_ref().map(|report| (report.lost, report.outage()));
    println!("{what}: host lost {:?}, silent guest lost {:?}", figures[0], figures[1]);
    reports
}

fn last_receipt(xbond: &Xbond<'_>, to: &str) -> Value {
    let last = || show(xbond)["last_failover"].clone();
    eventually("a receipt", last, |receipt| receipt["to"] == to && !receipt["announced"].is_null())
}

/// A planned switch there and back, and a cut of each slave in turn, with the agent.
fn agent_announces(site: &Site, xbond: &Xbond<'_>, what: &str, announced: &Value) {
    // The agent reads what lies behind the bond concurrently.
    let mut others = SLAVES.into_iter().rev().cycle();
    eventually(
        "everything is announced",
        move || {
            let new = others.next().unwrap();
            xbond.set(BOND, &format!("active_slave={new}")).unwrap();
            last_receipt(xbond, new)["announced"].clone()
        },
        |seen| seen == announced,
    );
    xbond.set(BOND, &format!("active_slave={}", SLAVES[0])).unwrap();
    for new in [SLAVES[1], SLAVES[0]] {
        let flows = site.flows();
        xbond.set(BOND, &format!("active_slave={new}")).unwrap();
        for report in reports(&format!("{what}, planned"), flows) {
            assert_eq!(report.lost, 0, "{what}: {report:?}");
        }
        assert_eq!(last_receipt(xbond, new)["announced"], *announced, "{what}");
    }
    for (old, new) in [(SLAVES[0], SLAVES[1]), (SLAVES[1], SLAVES[0])] {
        let flows = site.flows();
        site.lab.cut(old, Cut::Carrier).unwrap();
        for report in reports(&format!("{what}, cut"), flows) {
            assert!(report.outage() < outage_limit(), "{what}: {report:?}");
        }
        wait_for_active(xbond, new);
        site.lab.reconnect(old, Cut::Carrier).unwrap();
        wait_for_status(xbond, old, "up");
    }
}

/// A cut while nothing but the clock runs, and the host sends nothing.
fn clock_announces(site: &Site, what: &str) {
    let flows = site.flows();
    site.lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    for report in reports(&format!("{what}, without an agent"), flows) {
        assert!(report.outage() < outage_limit(), "{what}: {report:?}");
    }
}

#[track_caller]
fn wait_for_clock(xbond: &Xbond<'_>) {
    eventually("the clock runs", || show(xbond)["clock"].clone(), |clock| clock == "on, every 10 ms");
}

fn everything_behind_is_announced(datapath: Datapath, above: Above) {
    let site = Site::new(datapath);
    let xbond = site.run(datapath, &[]);
    site.raise(above);
    wait_for_clock(&xbond);
    let what = format!("{} {above:?}", datapath.name());
    let (addresses, macs) = above.announced();
    let announced = json!({"addresses": addresses, "macs": macs, "failed": 0, "by": "agent"});
    agent_announces(&site, &xbond, &what, &announced);
    xbond.kill().unwrap();
    clock_announces(&site, &what);
    let xbond = site.run(datapath, &[]);
    let receipt = last_receipt(&xbond, SLAVES[1]);
    assert_eq!(
        receipt["announced"],
        json!({"addresses": addresses, "macs": macs, "failed": 0, "by": "kernel", "rounds": 1})
    );
    xbond.stop().unwrap();
}

#[test]
fn a_bridge_and_its_guests_are_announced() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        everything_behind_is_announced(datapath, Above::Bridge);
    }
}

#[test]
fn a_bridge_with_a_mac_address_of_its_own_is_announced_once() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    everything_behind_is_announced(Datapath::Tc, Above::OwnBridge);
}

#[test]
fn macvlans_here_and_in_other_namespaces_are_announced() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        everything_behind_is_announced(datapath, Above::Macvlans);
    }
}

#[test]
fn ipvlans_here_and_in_other_namespaces_are_announced() {
    skip_if_unable!();
    if let Some(reason) = no_ipvlan() {
        return common::skip(reason);
    }
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        everything_behind_is_announced(datapath, Above::Ipvlans);
    }
}

/// Returns why tests of ipvlans cannot run here, if so.
fn no_ipvlan() -> Option<&'static str> {
    if is_there("ipvlan").unwrap() { None } else { Some("this kernel has no ipvlans") }
}

#[test]
fn guests_that_begin_to_speak_without_an_agent_are_announced() {
    skip_if_unable!();
    let _turn = concurrently();
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &[]);
    wait_for_clock(&xbond);
    xbond.kill().unwrap();
    site.raise(Above::Bridge);
    let capture = Capture::start(&site.lab.switch.netns).unwrap();
    site.lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    let mut expected: Vec<_> = [0, 1].map(|guest| site.mac_of(guest)).into();
    expected.sort();
    let found = || site.reverse_arps(&capture, SLAVES[1]);
    eventually("RARPs", found, |found| found.len() >= expected.len());
    assert_eq!(found(), expected);
    cli(&site.lab.host, ["down", BOND, "--force"]).unwrap();
}

/// They have spoken to each other, and nothing since bond0 is a port.
#[test]
fn guests_that_a_bridge_knew_before_bond0_joined_are_announced() {
    skip_if_unable!();
    let _turn = concurrently();
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &[]);
    wait_for_clock(&xbond);
    site.lab.host.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0").unwrap();
    site.lab.host.ip("link set br0 up").unwrap();
    site.add_guests(Above::Bridge);
    let talks = || site.guests[0].ping(GUESTS[1].1.into(), 1).unwrap().received;
    eventually("guests reach each other", talks, |count| *count == 1);
    site.lab.host.ip("link set bond0 master br0").unwrap();
    let mut others = SLAVES.into_iter().rev().cycle();
    let mut announced = || {
        let new = others.next().unwrap();
        xbond.set(BOND, &format!("active_slave={new}")).unwrap();
        last_receipt(&xbond, new)["announced"]["macs"].clone()
    };
    // The guests, and the bridge's ends of their pairs.
    eventually("both are announced", &mut announced, |macs| *macs == 4);
    xbond.set(BOND, &format!("active_slave={}", SLAVES[0])).unwrap();
    xbond.kill().unwrap();
    let capture = Capture::start(&site.lab.switch.netns).unwrap();
    site.lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    let found = || site.reverse_arps(&capture, SLAVES[1]);
    let has_both = |found: &Vec<Mac>| [0, 1].iter().all(|guest| found.contains(&site.mac_of(*guest)));
    eventually("the tick announces both", found, has_both);
    cli(&site.lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn a_guest_that_moved_to_the_wire_is_not_announced() {
    skip_if_unable!();
    let _turn = concurrently();
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &[]);
    site.raise(Above::Bridge);
    // From now on frames of the silent guest's MAC address arrive at the switch, as after a migration.
    let moved = site.mac_of(1);
    site.guests[1].ip("link set eth0 down").unwrap();
    site.lab
        .peer
        .ip(&format!("link add moved link {PEER_NIC} address {moved} type macvlan mode bridge"))
        .unwrap();
    site.lab.peer.ip("link set moved up").unwrap();
    site.lab.peer.ip("address add 192.168.99.202/24 dev moved").unwrap();
    site.lab.peer.exec("ping -c 1 -W 1 -I moved 192.168.99.250").ok();
    let capture = Capture::start(&site.lab.switch.netns).unwrap();
    xbond.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
    let found = site.reverse_arps(&capture, SLAVES[1]);
    assert!(found.contains(&site.mac_of(0)) && !found.contains(&moved), "{found:?}");
    xbond.stop().unwrap();
}

#[test]
fn nothing_is_announced_without_a_round() {
    skip_if_unable!();
    let _turn = concurrently();
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &["num_grat_arp=0"]);
    site.raise(Above::Bridge);
    wait_for_clock(&xbond);
    let capture = Capture::start(&site.lab.switch.netns).unwrap();
    let announces = |frame: &Frame| {
        let is_rarp = frame.bytes.get(12..14) == Some(&[0x80, 0x35]);
        !frame.outgoing && (is_rarp || frame.announces(HOST_V4.into()).is_some())
    };
    xbond.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
    xbond.kill().unwrap();
    site.lab.cut(SLAVES[1], Cut::Carrier).unwrap();
    let start = Instant::now();
    // A round of the tick would be sent within some periods after the silence of the agent.
    assert!(
        capture.wait_for(Duration::from_secs(1), announces).is_err(),
        "announced after {:?}",
        start.elapsed()
    );
    cli(&site.lab.host, ["down", BOND, "--force"]).unwrap();
}

/// A further address on bond0, as keepalived adds one, under `active`.
#[test]
fn a_virtual_address_is_reached_after_a_cut_without_an_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let vip = Ipv4Addr::new(192, 168, 99, 111);
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &["fail_over_mac=active"]);
    for address in [HOST_V4, vip] {
        site.lab.host.ip(&format!("address add {address}/24 dev {BOND}")).unwrap();
    }
    wait_for_clock(&xbond);
    let from_vip = || site.lab.peer.ping(vip.into(), 1).unwrap().received;
    eventually("the virtual address answers", from_vip, |count| *count == 1);
    // The agent has read the addresses when it announces them.
    xbond.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
    xbond.set(BOND, &format!("active_slave={}", SLAVES[0])).unwrap();
    assert_eq!(last_receipt(&xbond, SLAVES[0])["announced"]["addresses"], 2);
    xbond.kill().unwrap();
    let to = (&site.lab.host, vip.into());
    let flow = Flow::start((&site.lab.peer, PEER_V4.into()), to, FlowOptions::default()).unwrap();
    flow.wait_for_more(50).unwrap();
    site.lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    flow.wait_for_more(100).unwrap();
    let report = flow.stop().unwrap();
    println!("virtual address under active, without an agent: lost {}, {:?}", report.lost, report.outage());
    assert!(report.outage() < outage_limit(), "{report:?}");
    cli(&site.lab.host, ["down", BOND, "--force"]).unwrap();
}

/// Its neighbours have to learn each new MAC address.
#[test]
fn an_address_in_another_namespace_is_announced_under_the_bonds_mac() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    address_in_another_namespace_is_announced("macvlan mode passthru");
}

#[test]
fn an_ipvlan_in_another_namespace_is_announced_under_the_bonds_mac() {
    skip_if_unable!();
    if let Some(reason) = no_ipvlan() {
        return common::skip(reason);
    }
    let Some(_turn) = alone() else { return };
    address_in_another_namespace_is_announced("ipvlan mode l2");
}

/// A device of this kind in another namespace, with the bond's MAC address.
fn address_in_another_namespace_is_announced(kind: &str) {
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &["fail_over_mac=active"]);
    wait_for_clock(&xbond);
    let (guest, address) = (&site.guests[0], GUESTS[0].1);
    site.lab.host.ip(&format!("link add mac0 link bond0 type {kind}")).unwrap();
    site.lab.host.ip(&format!("link set mac0 netns {} name eth0", guest.name())).unwrap();
    guest.ip("link set eth0 up").unwrap();
    guest.ip(&format!("address add {address}/24 dev eth0")).unwrap();
    eventually("it speaks", || guest.ping(PEER_V4.into(), 1).unwrap().received, |count| *count == 1);
    let outage = |what: &str, fail: &dyn Fn()| {
        let to = (guest, address.into());
        let flow = Flow::start((&site.lab.peer, PEER_V4.into()), to, FlowOptions::default()).unwrap();
        flow.wait_for_more(50).unwrap();
        fail();
        flow.wait_for_more(100).unwrap();
        let report = flow.stop().unwrap();
        println!("{kind}, {what}: lost {}, {:?}", report.lost, report.outage());
        assert!(report.outage() < outage_limit(), "{kind}, {what}: {report:?}");
    };
    for new in [SLAVES[1], SLAVES[0]] {
        outage("planned", &|| xbond.set(BOND, &format!("active_slave={new}")).unwrap());
        eventually(
            "its address is announced",
            || last_receipt(&xbond, new)["announced"]["addresses"].clone(),
            |addresses| new == SLAVES[1] || *addresses == 1,
        );
    }
    xbond.kill().unwrap();
    outage("cut, without an agent", &|| {
        site.lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    });
    cli(&site.lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn announcements_that_the_clock_has_no_room_for_are_named() {
    skip_if_unable!();
    let _turn = concurrently();
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &[]);
    wait_for_clock(&xbond);
    for number in 0..300 {
        let address = format!("10.9.{}.{}/32", number / 200, number % 200 + 1);
        site.lab.host.ip(&format!("address add {address} dev {BOND}")).unwrap();
    }
    let named = "44 of 300 announcements are sent only while an agent runs";
    // The log has the first ones that found no room.
    xbond.wait_for("announcements are sent only while an agent runs").unwrap();
    eventually("a warning", || show(&xbond)["warnings"].to_string(), |warnings| warnings.contains(named));
    xbond.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
    assert_eq!(last_receipt(&xbond, SLAVES[1])["announced"]["addresses"], 300);
    xbond.kill().unwrap();
    let shown = cli(&site.lab.host, ["show", BOND, "-j"]).unwrap();
    assert!(shown.contains(named), "{shown}");
    site.lab.cut(SLAVES[1], Cut::Carrier).unwrap();
    let xbond = site.run(Datapath::Tc, &[]);
    let announced = last_receipt(&xbond, SLAVES[0])["announced"].clone();
    assert_eq!((&announced["addresses"], &announced["capped"]), (&json!(256), &json!(true)), "{announced}");
    xbond.stop().unwrap();
}

/// A round takes longer than miimon, after which the next one is due.
#[test]
fn each_round_announces_every_mac() {
    const MACS: u16 = 900;
    const ROUNDS: usize = 3;
    skip_if_unable!();
    let _turn = concurrently();
    let site = Site::new(Datapath::Tc);
    let xbond = site.run(Datapath::Tc, &[&format!("num_grat_arp={ROUNDS}"), "clock=off"]);
    site.raise(Above::Bridge);
    let mac = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Mac::new([2, 0, 0, 1, high, low])
    };
    let entries =
        (0..MACS).map(|number| format!("fdb add {} dev {} master static\n", mac(number), GUESTS[0].0));
    let batch = tempfile::NamedTempFile::new().unwrap();
    fs::write(batch.path(), entries.collect::<String>()).unwrap();
    site.lab.host.exec(&format!("bridge -batch {}", batch.path().display())).unwrap();
    let switch_to = |slave: &str| {
        let capture = Capture::start(&site.lab.switch.netns).unwrap();
        xbond.set(BOND, &format!("active_slave={slave}")).unwrap();
        capture
    };
    let heard = |capture: &Capture, slave: &str| {
        let mut times = vec![0; MACS.into()];
        let announced = site.reverse_arps(capture, slave).into_iter().map(Mac::bytes);
        let numbers =
            announced.filter(|mac| mac[..4] == [2, 0, 0, 1]).map(|mac| u16::from_be_bytes([mac[4], mac[5]]));
        numbers.for_each(|number| times[usize::from(number)] += 1);
        times
    };
    // The bridge's entries are read after the first round of the first failover.
    let former = switch_to(SLAVES[1]);
    let each = |rounds: usize| move |times: &Vec<usize>| times.iter().all(|times| *times >= rounds);
    eventually("a round", || heard(&former, SLAVES[1]), each(1));
    let capture = switch_to(SLAVES[0]);
    eventually("all rounds", || heard(&capture, SLAVES[0]), each(ROUNDS));
    let announced = last_receipt(&xbond, SLAVES[0])["announced"]["macs"].as_u64().unwrap();
    assert!(announced >= MACS.into(), "{announced}");
    xbond.stop().unwrap();
}

/// A virtual router's MAC address, as keepalived creates it with use_vmac: a macvlan in mode private with the address of the group.
#[test]
fn a_virtual_routers_mac_is_announced() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    let vrrp = Mac::new([0, 0, 0x5e, 0, 1, 51]);
    for policy in ["none", "active"] {
        let site = Site::new(Datapath::Tc);
        let xbond = site.run(Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
        wait_for_clock(&xbond);
        let ip = |line: &str| site.lab.host.ip(line).unwrap();
        ip(&format!("address add {HOST_V4}/24 dev {BOND}"));
        ip(&format!("link add vrrp.51 link {BOND} address {vrrp} type macvlan mode private"));
        ip("link set vrrp.51 up");
        ip("address add 192.168.99.111/32 dev vrrp.51");
        let capture = Capture::start(&site.lab.switch.netns).unwrap();
        let announced = |nic: &str| {
            let port = site.lab.port(nic).unwrap();
            let is_arp = |frame: &Frame| frame.bytes.get(12..14) == Some(&[8, 6]);
            let frames = capture.frames().into_iter();
            frames.filter(|frame| frame.ifname == port && is_arp(frame) && frame.source() == vrrp).count()
        };
        // The agent reads what lies above the bond a moment after that changes.
        let mut others = SLAVES.into_iter().rev().cycle();
        eventually(
            "the address is announced",
            || {
                let new = others.next().unwrap();
                xbond.set(BOND, &format!("active_slave={new}")).unwrap();
                last_receipt(&xbond, new)["announced"]["addresses"].clone()
            },
            |addresses| *addresses == 2,
        );
        xbond.set(BOND, &format!("active_slave={}", SLAVES[0])).unwrap();
        last_receipt(&xbond, SLAVES[0]);
        let before = announced(SLAVES[1]);
        xbond.kill().unwrap();
        site.lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        eventually("the clock announces it", || announced(SLAVES[1]), |count| *count > before);
        cli(&site.lab.host, ["down", BOND, "--force"]).unwrap();
    }
}

/// Returns the VIDs of the RARPs of this MAC address at the switch's port of `nic`.
fn vlans_of(site: &Site, capture: &Capture, nic: &str, mac: Mac) -> Vec<Vec<u16>> {
    let port = site.lab.port(nic).unwrap();
    let frames = capture.frames().into_iter().filter(|frame| !frame.outgoing && frame.ifname == port);
    let of_mac = frames.filter(|frame| frame.source() == mac && !frame.vlans().is_empty());
    of_mac.map(|frame| frame.vlans()).collect()
}

/// A guest on a VLAN of bond0 in a bridge of its own, and an address on a VLAN of the bridge above bond0.
#[test]
fn guests_on_vlans_are_announced_with_their_tags() {
    skip_if_unable!();
    if !is_there("vlan id 5").unwrap() {
        return common::skip("this kernel has no VLANs");
    }
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let site = Site::new(datapath);
        let xbond = site.run(datapath, &[]);
        let ip = |line: &str| site.lab.host.ip(line).unwrap();
        for line in [
            "link add link bond0 name bond0.5 type vlan id 5",
            "link add br5 type bridge forward_delay 0 mcast_snooping 0",
            "link set bond0.5 master br5 up",
            "link set br5 up",
        ] {
            ip(line);
        }
        let guest = &site.guests[0];
        ip(&format!("link add tap5 type veth peer name eth0 netns {}", guest.name()));
        ip("link set tap5 master br5 up");
        guest.ip("link set eth0 up").unwrap();
        guest.ip("address add 192.168.95.1/24 dev eth0").unwrap();
        guest.exec("ping -c 1 -W 1 192.168.95.2").ok();
        let capture = Capture::start(&site.lab.switch.netns).unwrap();
        xbond.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
        let mac = site.mac_of(0);
        let found = vlans_of(&site, &capture, SLAVES[1], mac);
        assert_eq!(found, [[5]], "{}", datapath.name());
        xbond.kill().unwrap();
        site.lab.cut(SLAVES[1], Cut::Carrier).unwrap();
        let found = || vlans_of(&site, &capture, SLAVES[0], mac);
        eventually("the tick announces it", found, |found| *found == [[5]]);
        cli(&site.lab.host, ["down", BOND, "--force"]).unwrap();
    }
}
