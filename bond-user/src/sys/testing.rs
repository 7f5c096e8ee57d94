//! Network namespaces and links for tests of this module.

use std::{fs::File, panic, sync::Arc, thread};

use bond_common::mac::Mac;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use nix::sched::{CloneFlags, setns, unshare};

use super::{
    Devices, KernelDevices,
    found::Found,
    netlink::{
        LinkFlags, LinkInfo, LinkLayerType, LinkPair, Netlink, PairKind, PairPlan, Raw, VlanTag,
        message::{Message, MessageKind},
    },
};

/// Runs `test` in a network namespace of its own, which vanishes with the thread that is in it. Skips, and
/// says so, where this is not allowed.
pub fn in_namespace(test: impl AsyncFnOnce(KernelDevices) + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: a network namespace of its own: {} (run the tests as root)", error.desc());
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(KernelDevices::open().unwrap()).await });
    };
    if let Err(panic) = thread::spawn(run).join() {
        panic::resume_unwind(panic);
    }
}

/// A network namespace in addition to that of the test. It vanishes when this is dropped.
pub struct Elsewhere {
    /// The connection in the namespace.
    pub netlink: Netlink,
    /// The namespace.
    pub netns: File,
}

impl Elsewhere {
    /// Creates a network namespace.
    pub fn open() -> Self {
        let netns_of_thread = || File::open("/proc/thread-self/ns/net").unwrap();
        let here = netns_of_thread();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        // The socket stays in the namespace in which it was opened.
        let elsewhere = Self { netlink: Netlink::open().unwrap(), netns: netns_of_thread() };
        setns(here, CloneFlags::CLONE_NEWNET).unwrap();
        elsewhere
    }
}

/// Returns a locally administered MAC address with this last byte.
pub const fn mac(last: u8) -> Mac {
    Mac::new([0x02, 0, 0, 0, 0, last])
}

/// A veth pair of MTU 1500; the first end has the MAC `02:00:00:00:00:10`.
pub async fn veth(devices: &dyn Devices, name: &str, peer: &str) -> (LinkInfo, LinkInfo) {
    let plan = PairPlan { bond: name, port: peer, mac: mac(0x10), mtu: 1500, queues: 1, mark: None };
    let LinkPair { bond, port } = devices.create_pair(PairKind::Veth, &plan).await.unwrap();
    (bond, port)
}

/// Returns a link of this kind above `below`.
pub fn upper(ifindex: u32, below: u32, kind: &str) -> LinkInfo {
    LinkInfo { link: Some(below), kind: Some(kind.to_owned()), ..link(ifindex, &format!("link{ifindex}")) }
}

/// Returns a VLAN above `below`.
pub fn vlan(ifindex: u32, below: u32, tag: VlanTag) -> LinkInfo {
    LinkInfo { vlan: Some(tag), ..upper(ifindex, below, "vlan") }
}

/// Returns a bridge.
pub fn bridge(ifindex: u32, name: &str) -> LinkInfo {
    LinkInfo { kind: Some("bridge".to_owned()), ..link(ifindex, name) }
}

/// Returns an Ethernet link that is up, without further properties.
pub fn link(ifindex: u32, name: &str) -> LinkInfo {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    message.header.link_layer_type = LinkLayerType::Ether;
    message.header.flags = LinkFlags::Up;
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    LinkInfo::from_message(&message).unwrap()
}

/// Returns the original state of an Ethernet NIC that is up, of MTU 1500, with this permanent MAC address and without
/// further properties.
pub fn found(ifindex: u32, name: &str, mac: Mac) -> Found {
    Found {
        ifindex,
        name: name.to_owned(),
        kind: None,
        permanent_mac: Some(mac),
        mac,
        lower: None,
        alias: None,
        mtu: 1500,
        up: true,
        allmulti: false,
        promisc: false,
        addr_gen_mode: Some(0),
        layer3: Arc::default(),
        features: Vec::new(),
        unicast: Vec::new(),
    }
}

/// Returns an MPLS route with this label over a device, as the kernel lists it.
pub fn mpls_route(label: u32, ifindex: u32) -> Message {
    const RTA_DST: u8 = 1;
    const RTA_OIF: u8 = 4;
    let mut body = vec![28, 20, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0, 8, 0, RTA_DST, 0];
    body.extend((label << 12 | 1 << 8).to_be_bytes());
    body.extend([8, 0, RTA_OIF, 0]);
    body.extend(ifindex.to_ne_bytes());
    Message::new(MessageKind::Route, Raw { kind: MessageKind::Route.new_type(), body }).unwrap()
}
