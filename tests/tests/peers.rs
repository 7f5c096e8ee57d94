//! Peers that had sent before a failover: from which ones the new slave receives, which ones are probed, and what the
//! receipt reports.

mod common;
mod programs;

use bond_common::{
    abi::{BondEntry, FailOverMac},
    mac::Mac,
};
use bond_user::sys::dataplane::Hook;
use common::{BOND, DATAPATHS, SLAVES, bond, builder, concurrently, eventually};
use programs::Bench;
use serde_json::Value;
use xbond_tests::{
    Capture, Cut, Flow, FlowOptions, HOST_V4, Lab, NetNs, PEER_V4, Xbond,
    capture::Frame,
    frames::{GUEST, HOST, IPV4, PEER, Scene, Way, ethernet},
    skip_if_unable,
};

const ARP: [u8; 2] = [0x08, 0x06];

#[test]
fn the_active_slave_notes_whom_it_hears_while_it_is_observed() {
    for hook in [Hook::Tc, Hook::Xdp] {
        let bench = Bench::new(hook, "heard");
        let heard = || {
            let heard = bench.maps.heard().unwrap().read().unwrap();
            let word = bench.maps.active();
            let mut heard: Vec<_> =
                heard.into_iter().filter_map(|(mac, first)| Some((mac, first.since(word)?))).collect();
            heard.sort();
            heard
        };
        let receive = |slot, source: Mac| drop(bench.run(Way::Receive(slot), &ethernet(HOST, source, IPV4)));
        bench.set(&Scene::of(FailOverMac::None));
        receive(0, PEER);
        assert_eq!(heard(), [], "not observed, {hook}");
        bench.set(&Scene { flags: BondEntry::OBSERVE, ..Scene::of(FailOverMac::None) });
        receive(0, PEER);
        receive(1, GUEST);
        let first = heard();
        assert_eq!(first.iter().map(|(mac, _)| *mac).collect::<Vec<_>>(), [PEER], "{hook}");
        receive(0, PEER);
        assert_eq!(heard(), first, "the first time counts, {hook}");
        bench.switch(Some(1), None);
        assert_eq!(heard(), [], "after the next failover, {hook}");
        receive(1, PEER);
        assert_eq!(heard().len(), 1, "{hook}");
        bench.maps.heard().unwrap().clear();
        assert_eq!(heard(), [], "{hook}");
    }
}

/// Further stations at the switch of a lab: their namespaces, switch ports and last bytes of 192.168.99.0/24.
struct Stations(Vec<(NetNs, String, u8)>);

impl Stations {
    fn create(lab: &Lab, number: u8) -> Self {
        let station = |index: u8| {
            let netns = NetNs::create(&format!("{}{index}", lab.peer.name())).unwrap();
            let (port, last) = (format!("q{index}"), 10 + index);
            let (here, there) = (netns.name(), lab.switch.netns.name());
            lab.switch
                .netns
                .ip(&format!("link add name {port} type veth peer name eth0 netns {here}"))
                .unwrap_or_else(|error| panic!("{there}: {error}"));
            lab.switch.plug(&port).unwrap();
            lab.switch.netns.exec(&format!("ethtool -K {port} tx off")).unwrap();
            netns.exec("ethtool -K eth0 tx off").unwrap();
            netns.ip(&format!("address add 192.168.99.{last}/24 dev eth0")).unwrap();
            netns.ip("link set eth0 up").unwrap();
            lab.switch.wait_for_forwarding(&port).unwrap();
            (netns, port, last)
        };
        Self((0..number).map(station).collect())
    }

    /// Makes the host learn the MAC address of each.
    fn meet(&self, lab: &Lab) {
        for (_, _, last) in &self.0 {
            let address = std::net::Ipv4Addr::new(192, 168, 99, *last);
            let answers = || lab.host.ping(address.into(), 1).unwrap().received;
            eventually("the station answers", answers, |count| *count == 1);
        }
    }

    fn mac(&self, index: usize) -> Mac {
        self.0[index].0.link("eth0").unwrap().mac
    }
}

/// Returns the peers of the last receipt, as soon as it has any.
fn peers(xbond: &Xbond<'_>, to: &str) -> Value {
    let last = || {
        let log = xbond.cli(["log", BOND, "-j"]).unwrap();
        let receipts = serde_json::from_str::<Value>(&log).unwrap()["receipts"].take();
        receipts.as_array().and_then(|receipts| receipts.last().cloned()).unwrap_or_default()
    };
    let has_peers = |receipt: &Value| receipt["to"] == to && receipt["peers"].is_object();
    eventually("peers in the receipt", last, has_peers)["peers"].take()
}

#[test]
fn a_receipt_names_peers_that_were_not_heard_and_they_are_asked() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let what = datapath.name();
        let lab = builder(datapath).build().unwrap();
        let xbond = bond(&lab, datapath, &[]);
        let stations = Stations::create(&lab, 4);
        stations.meet(&lab);
        // One peer sends all the time, three are idle, one is dead.
        let options = FlowOptions { rate: 1000, ..FlowOptions::default() };
        let flow = Flow::start((&lab.peer, PEER_V4.into()), (&lab.host, HOST_V4.into()), options).unwrap();
        flow.wait_for_more(100).unwrap();
        let (_, port, last) = &stations.0[1];
        lab.switch.set_up(port, false).unwrap();
        let capture = Capture::start(&lab.switch.netns).unwrap();
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        let found = peers(&xbond, SLAVES[1]);
        assert_eq!((&found["expected"], &found["heard"]), (&5.into(), &4.into()), "{what}: {found}");
        let dead = format!("192.168.99.{last} ({})", stations.mac(1));
        assert_eq!(found["missing"], serde_json::json!([dead]), "{what}");
        // An idle one may send by itself.
        assert!((1..=4).contains(&found["asked"].as_u64().unwrap()), "{what}: {found}");
        assert!(found["heard_us"].as_u64().unwrap() < 120_000, "{what}: {found}");
        let nic = lab.port(SLAVES[1]).unwrap();
        let asks = |mac: Mac| {
            let request = |frame: &Frame| {
                !frame.outgoing
                    && frame.ifname == nic
                    && frame.destination() == mac
                    && frame.bytes[12..14] == ARP
                    && frame.bytes[20..22] == [0, 1]
            };
            capture.frames().into_iter().any(|frame| request(&frame))
        };
        assert!(asks(stations.mac(1)), "{what}");
        let text = xbond.cli(["log", BOND, "-d"]).unwrap();
        assert!(text.contains("4 of 5 peers heard within") && text.contains(&dead), "{what}: {text}");
        xbond.wait_for("4 of 5 peers heard within").unwrap();
        drop(flow);
        xbond.stop().unwrap();
    }
}

#[test]
fn a_receipt_says_that_all_peers_were_heard_or_that_there_were_none() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = builder(DATAPATHS[0]).build().unwrap();
    let xbond = bond(&lab, DATAPATHS[0], &[]);
    xbond.cli(["set", BOND, &format!("active_slave={}", SLAVES[1])]).unwrap();
    let found = peers(&xbond, SLAVES[1]);
    assert_eq!((&found["expected"], &found["heard"]), (&1.into(), &1.into()), "{found}");
    lab.host.ip(&format!("neigh flush dev {BOND}")).unwrap();
    lab.host
        .exec(&format!("ip neigh replace {PEER_V4} lladdr 02:00:00:00:00:99 dev {BOND} nud permanent"))
        .unwrap();
    xbond.cli(["set", BOND, &format!("active_slave={}", SLAVES[0])]).unwrap();
    let found = peers(&xbond, SLAVES[0]);
    assert_eq!((&found["expected"], &found["asked"]), (&0.into(), &0.into()), "{found}");
    let text = xbond.cli(["log", BOND, "-d"]).unwrap();
    assert!(text.contains("no peer was confirmed in the 10 s before"), "{text}");
    xbond.stop().unwrap();
}
