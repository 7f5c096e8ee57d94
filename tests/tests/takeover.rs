//! Bonds of the kernel's driver that xbond takes over while they carry traffic. They run where the driver is:
//! `cargo xtask vm tests --program takeover`.

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

use common::{concurrently, eventually};
use serde_json::Value;
use xbond_tests::{
    HOST_V4, HOST_V6, Lab, NetNs, PEER_V4, PEER_V6, PacketSocket, TwoWay, WAIT_LIMIT, Xbond, live_renaming,
    skip, skip_if_unable, time_is_no_measure, xbond,
};

const VLAN_HOST: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 101);
const VLAN_PEER: Ipv4Addr = Ipv4Addr::new(10, 5, 0, 1);
const BRIDGE_HOST: Ipv4Addr = Ipv4Addr::new(10, 6, 0, 101);
const BRIDGE_PEER: Ipv4Addr = Ipv4Addr::new(10, 6, 0, 1);
const STREAMS: usize = 20;
/// What a takeover, or the way back, may lose in each direction.
const MOST_LOST: u64 = 2;
/// Lines of the log by which the stages begin, in their order.
const STAGES: [&str; 6] = [
    "takeover: enp0s9 leaves the driver",
    "takeover: xbond's bond is made",
    "takeover: enp0s9 becomes the active slave",
    "takeover: routes and bridge ports change over",
    "takeover: names are exchanged",
    "takeover: the other slaves follow",
];
const BACK: &str = "the driver has the bond again";

/// Packets per second and direction. An emulated processor does not carry more.
fn rate() -> u32 {
    if time_is_no_measure().is_some() { 1_000 } else { 10_000 }
}

/// Returns a host with a bond of the driver, a VLAN above it, and a bridge above another VLAN; None, after reporting a
/// skip, where there is no driver.
fn host_with_bond() -> Option<Lab> {
    if !live_renaming() {
        skip("this kernel cannot rename an interface that is up");
        return None;
    }
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    if let Err(error) = host.ip("link add bond0 type bond mode active-backup miimon 100") {
        skip(&format!("this kernel lacks the bonding driver: {error:#}"));
        return None;
    }
    for line in [
        "link set enp0s8 master bond0",
        "link set enp0s9 master bond0",
        "link set bond0 type bond active_slave enp0s8",
        "link set bond0 up",
        &format!("address add {HOST_V4}/24 dev bond0"),
        &format!("-6 address add {HOST_V6}/64 dev bond0 nodad"),
        "link add bond0.5 link bond0 type vlan id 5",
        "link set bond0.5 mtu 1400 up",
        &format!("address add {VLAN_HOST}/24 dev bond0.5"),
        &format!("route add 10.99.0.0/16 via {VLAN_PEER} dev bond0.5 metric 77 mtu 1300 src {VLAN_HOST}"),
        "-6 route add 2001:db8:99::/48 via fd00:99::1 dev bond0 metric 55",
        "link add bond0.6 link bond0 type vlan id 6",
        "link add br0 type bridge forward_delay 0",
        "link set bond0.6 master br0 up",
        "link set br0 up",
        &format!("address add {BRIDGE_HOST}/24 dev br0"),
    ] {
        host.ip(line).unwrap();
    }
    for (vid, address) in [(5, VLAN_PEER), (6, BRIDGE_PEER)] {
        lab.peer.ip(&format!("link add eth0.{vid} link eth0 type vlan id {vid}")).unwrap();
        lab.peer.ip(&format!("link set eth0.{vid} up")).unwrap();
        lab.peer.ip(&format!("address add {address}/24 dev eth0.{vid}")).unwrap();
    }
    answers(&lab);
    let tentative = || lab.host.ip("-6 address show tentative").unwrap();
    eventually("duplicate address detection", tentative, String::is_empty);
    Some(lab)
}

/// Waits until the peer answers on each network.
fn answers(lab: &Lab) {
    for peer in [IpAddr::from(PEER_V4), PEER_V6.into(), VLAN_PEER.into(), BRIDGE_PEER.into()] {
        let ping = || lab.host.ping(peer, 1).unwrap().received;
        eventually(&format!("{peer} answers"), ping, |received| *received == 1);
    }
}

/// Returns the links, without the timers of bridges.
fn links(host: &NetNs) -> Vec<Value> {
    let mut links: Vec<Value> = serde_json::from_str(&host.ip("-d -j link show").unwrap()).unwrap();
    for link in &mut links {
        if let Some(data) = link.pointer_mut("/linkinfo/info_data").and_then(Value::as_object_mut) {
            data.retain(|key, _| !key.ends_with("_timer"));
        }
    }
    links
}

fn link(host: &NetNs, name: &str) -> Value {
    let links = links(host);
    links.into_iter().find(|link| link["ifname"] == name).unwrap_or(Value::Null)
}

fn is_drivers(host: &NetNs) -> bool {
    link(host, "bond0")["linkinfo"]["info_kind"] == "bond"
}

fn slaves_of_driver(host: &NetNs) -> Vec<String> {
    let is_slave = |link: &&Value| link["master"] == "bond0";
    let names = |link: &Value| link["ifname"].as_str().unwrap().to_owned();
    let mut slaves: Vec<_> = links(host).iter().filter(is_slave).map(names).collect();
    slaves.sort();
    slaves
}

/// Returns what stands on the bond and above it, as `ip` prints it, without what differs between two devices.
fn configuration(host: &NetNs) -> String {
    let of = |line: &str| host.ip(line).unwrap();
    let addresses = ["bond0", "bond0.5", "br0"].map(|name| {
        let text = of(&format!("-o address show dev {name}"));
        // The ifindex is the first word, and what the kernel says of the time is the last.
        let words = text.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "));
        words.map(|line| line.replace("\\", "")).collect::<Vec<_>>().join("\n")
    });
    // While it waits for a confirmation, the driver's devices are aside.
    let sorted = |line: &str| -> Vec<String> {
        let mut routes: Vec<_> =
            of(line).lines().filter(|route| !route.contains(" dev xbo")).map(str::to_owned).collect();
        routes.sort();
        routes
    };
    let (routes, routes6) = (sorted("-4 route show table all"), sorted("-6 route show"));
    let port = host.exec("bridge -d link show dev bond0.6").unwrap();
    let port = port.split_once(": bond0.6").map(|(_, rest)| rest.to_owned());
    let (vlan, mac) = (link(host, "bond0.5"), link(host, "bond0")["address"].clone());
    let shape = (&vlan["mtu"], &vlan["linkinfo"]["info_data"]["id"], &vlan["address"], &mac);
    format!("{addresses:#?}\n{routes:#?}\n{routes6:#?}\n{port:?}\n{shape:?}")
}

/// TCP connections between the host and the peer, over the bond and over its VLAN.
struct Streams(Vec<[TcpStream; 2]>);

impl Streams {
    fn open(lab: &Lab) -> Self {
        let connect = |(from, to): (&NetNs, &NetNs), address: IpAddr| {
            let listener = to.run(|| Ok(TcpListener::bind(SocketAddr::new(address, 0))?)).unwrap();
            let target = listener.local_addr().unwrap();
            let near = from.run(|| Ok(TcpStream::connect_timeout(&target, WAIT_LIMIT)?)).unwrap();
            let ends = [near, listener.accept().unwrap().0];
            for end in &ends {
                end.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
            }
            ends
        };
        let (host, peer) = (&lab.host, &lab.peer);
        let both = |number: usize| match number % 4 {
            0 => connect((host, peer), PEER_V4.into()),
            1 => connect((peer, host), HOST_V4.into()),
            2 => connect((host, peer), VLAN_PEER.into()),
            _ => connect((peer, host), HOST_V6.into()),
        };
        Self((0..STREAMS).map(both).collect())
    }

    /// Sends something by each connection in both directions, which arrives.
    fn exchange(&mut self) {
        for (number, [near, far]) in self.0.iter_mut().enumerate() {
            let text = [number as u8; 3000];
            near.write_all(&text).unwrap();
            far.write_all(&text).unwrap();
            for end in [near, far] {
                let mut read = [0; 3000];
                end.read_exact(&mut read).unwrap_or_else(|error| panic!("stream {number}: {error}"));
                assert_eq!(read, text, "stream {number}");
            }
        }
    }
}

/// Runs a command of the agent under traffic; returns what it printed.
fn under_traffic(lab: &Lab, xbond: &Xbond<'_>, what: &str, arguments: &[&str]) -> String {
    let flows = [(HOST_V4, PEER_V4), (VLAN_HOST, VLAN_PEER), (BRIDGE_HOST, BRIDGE_PEER)];
    let start = |(host, peer): (Ipv4Addr, Ipv4Addr)| {
        TwoWay::start((&lab.host, host.into()), (&lab.peer, peer.into()), rate()).unwrap()
    };
    let flows = flows.map(start);
    flows.iter().for_each(|flow| flow.wait_for_more(200).unwrap());
    let printed = xbond.cli(arguments).unwrap_or_else(|error| panic!("{what}: {error:#}\n{}", xbond.log()));
    flows.iter().for_each(|flow| flow.wait_for_more(200).unwrap());
    for (flow, name) in flows.into_iter().zip(["bond", "vlan", "bridge"]) {
        for (report, way) in flow.stop().unwrap().into_iter().zip(["to the peer", "to the host"]) {
            println!(
                "{what}: {name} {way}: sent {} lost {} duplicated {}",
                report.sent, report.lost, report.duplicated
            );
            assert!(report.lost <= MOST_LOST, "{what}: {name} {way}: {report:?}\n{}", xbond.log());
        }
    }
    printed
}

fn agent(lab: &Lab) -> Xbond<'_> {
    Xbond::run(&lab.host, [""; 0]).unwrap()
}

#[test]
fn a_takeover_moves_everything_without_a_loss() {
    skip_if_unable!();
    let _others = concurrently();
    let Some(lab) = host_with_bond() else { return };
    let host = &lab.host;
    let before = configuration(host);
    let mut streams = Streams::open(&lab);
    let xbond = agent(&lab);
    let printed = under_traffic(&lab, &xbond, "takeover", &["takeover", "bond0", "--wait", "120"]);
    assert!(printed.contains("taken over"), "{printed}");
    streams.exchange();
    assert!(!is_drivers(host), "{printed}");
    assert_eq!(configuration(host), before);
    let shown = xbond.show("bond0").unwrap();
    let slaves = shown["bonds"][0]["slaves"].as_array().unwrap();
    assert_eq!(slaves.len(), 2, "{shown}");
    let kinds = links(host);
    assert!(!kinds.iter().any(|link| link["linkinfo"]["info_kind"] == "bond"), "{kinds:?}");
    assert!(!kinds.iter().any(|link| link["ifname"].as_str().unwrap().starts_with("xb")), "{kinds:?}");
    // It fails over as any bond of xbond's.
    under_traffic(&lab, &xbond, "switch", &["set", "bond0", "active_slave=enp0s8"]);
    answers(&lab);
    xbond.stop().unwrap();
}

#[test]
fn takeovers_and_returns_lose_nothing() {
    const ROUNDS: usize = 25;
    skip_if_unable!();
    let _others = concurrently();
    let Some(lab) = host_with_bond() else { return };
    let host = &lab.host;
    let before = configuration(host);
    let mut streams = Streams::open(&lab);
    let xbond = agent(&lab);
    for round in 1..=ROUNDS {
        // A takeover on trial, and one that is confirmed: then the driver's bond is another one.
        let (over, back) = if round % 2 == 1 {
            (
                &["takeover", "bond0", "--confirm", "600", "--wait", "120"][..],
                &["takeover", "bond0", "--undo"][..],
            )
        } else {
            (&["takeover", "bond0", "--wait", "120"][..], &["giveback", "bond0", "--wait", "120"][..])
        };
        under_traffic(&lab, &xbond, &format!("takeover {round}"), over);
        assert!(!is_drivers(host));
        assert_eq!(configuration(host), before, "takeover {round}");
        streams.exchange();
        under_traffic(&lab, &xbond, &format!("return {round}"), back);
        assert!(is_drivers(host));
        assert_eq!(configuration(host), before, "return {round}");
        assert_eq!(slaves_of_driver(host), ["enp0s8", "enp0s9"], "return {round}");
        streams.exchange();
    }
    xbond.stop().unwrap();
}

#[test]
fn an_agent_that_is_killed_at_any_stage_leaves_a_host_that_answers() {
    skip_if_unable!();
    let _others = concurrently();
    let Some(lab) = host_with_bond() else { return };
    let host = &lab.host;
    let before = configuration(host);
    let mut streams = Streams::open(&lab);
    for stage in STAGES {
        let killed = agent(&lab);
        thread::scope(|scope| {
            let client = scope.spawn(|| xbond::cli(host, ["takeover", "bond0", "--confirm", "600"]));
            killed.wait_for(stage).unwrap();
            killed.kill().unwrap();
            drop(client.join());
        });
        answers(&lab);
        streams.exchange();
        let next = agent(&lab);
        let log = next.log();
        assert!(log.contains(BACK), "{stage}: {log}");
        assert!(is_drivers(host), "{stage}: {log}");
        assert_eq!(configuration(host), before, "{stage}: {log}");
        answers(&lab);
        streams.exchange();
        next.stop().unwrap();
    }
}

#[test]
fn a_takeover_that_nobody_confirms_is_led_back() {
    skip_if_unable!();
    let _others = concurrently();
    let Some(lab) = host_with_bond() else { return };
    let host = &lab.host;
    let before = configuration(host);
    let xbond = agent(&lab);
    let printed = xbond.cli(["takeover", "bond0", "--confirm", "5", "--wait", "120"]).unwrap();
    assert!(printed.contains("xbond confirm"), "{printed}");
    xbond.wait_for(BACK).unwrap();
    assert!(is_drivers(host));
    assert_eq!(configuration(host), before);
    // An agent that ends has no one to confirm it.
    xbond.cli(["takeover", "bond0", "--confirm", "600", "--wait", "120"]).unwrap();
    let refused = xbond.cli(["down", "bond0"]).unwrap_err().to_string();
    assert!(refused.contains("waits for a confirmation"), "{refused}");
    xbond.stop().unwrap();
    assert!(is_drivers(host));
    let xbond = agent(&lab);
    xbond.cli(["takeover", "bond0", "--confirm", "600", "--wait", "120"]).unwrap();
    let confirmed = xbond.cli(["confirm"]).unwrap();
    assert!(confirmed.contains("taken over") && !is_drivers(host), "{confirmed}");
    assert_eq!(configuration(host), before);
    answers(&lab);
    xbond.stop().unwrap();
}

#[test]
fn what_cannot_be_moved_is_refused_and_programs_are_named_before() {
    skip_if_unable!();
    let _others = concurrently();
    let Some(lab) = host_with_bond() else { return };
    let host = &lab.host;
    let xbond = agent(&lab);
    let socket = PacketSocket::open(host, "bond0").unwrap();
    let output =
        host.command(xbond::binary().unwrap()).args(["takeover", "bond0", "--dry-run"]).output().unwrap();
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    let named = format!("(pid {}) has a packet socket on bond0", std::process::id());
    assert!(output.status.success() && warnings.contains(&named), "{warnings}");
    drop(socket);
    for (make, remove, said) in [
        ("link add mv0 link bond0.5 type macvlan", "link del mv0", "mv0: a macvlan above bond0.5"),
        ("link set br0 type bridge stp_state 1", "link set br0 type bridge stp_state 0", "takes part in STP"),
        ("link set enp0s9 nomaster", "link set enp0s9 master bond0", "a single slave"),
    ] {
        host.ip(make).unwrap();
        let before = (links(host), configuration(host));
        let refused = xbond.cli(["takeover", "bond0"]).unwrap_err().to_string();
        assert!(refused.contains(said) && refused.contains("nothing was changed"), "{refused}");
        assert_eq!((links(host), configuration(host)), before, "{said}");
        host.ip(remove).unwrap();
    }
    xbond.stop().unwrap();
}
