//! Announces to neighbours and switches where the bond is after a failover.
//!
//! A round has one gratuitous ARP per IPv4 address and one unsolicited neighbour advertisement per IPv6 address, of
//! the bond and of every device above it through which its traffic passes: VLANs, macvlans, ipvlans and bridges, each from
//! the MAC address that it has. The kernel sends the same frames at NETDEV_NOTIFY_PEERS (`inetdev_send_gratuitous_arp`,
//! `ndisc_send_unsol_na`), which VLANs and macvlans forward (`vlan_device_event`, `macvlan_device_event`), and bridges do not.
//! Then it has one RARP per MAC address behind the bond, with its tags: of what has sent through the bond
//! ([`bond_common::behind`]), and of what the kernel lists, the static and local entries of bridges and what devices receive in
//! addition to their own address, macvlans in other network namespaces among it.
//!
//! They are sent from the slave, so that they leave by the slave that was active when the round began, whatever
//! happens to the bond in between.
//!
//! Other network namespaces send no events to this one. Devices there that have the bond's MAC address (ipvlans, VLANs) are read
//! with the others, after each round, and every half a minute.
//!
//! A switch in user space, or Open vSwitch, takes all frames of bond0 and gives the host a port of its own, which has the MAC
//! address of bond0 as a rule. The kernel does not say that it leads to bond0, but its MAC address does: what has that address
//! sends by no other device. If no address is known under the bond's MAC address, and something takes all frames, RARP announces
//! the MAC address itself.
//!
//! The addresses of a host behind an existing port are not known. RARP shows its switches where the MAC address is, which
//! suffices under `none` and `follow`. Under `active` its neighbours keep sending to the former slave's MAC address until they
//! receive a frame of the host, or ask again.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
    time::Duration,
};

use bond_common::{
    behind::{BehindKey, MOST_BEHIND, Tag},
    mac::Mac,
};
use bytes::{BufMut as _, BytesMut};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Icmpv6Header, Icmpv6Type, IpNumber, Ipv6Header,
    icmpv6::NeighborAdvertisementHeader,
};
use nix::{
    errno::Errno,
    net::if_::if_indextoname,
    sys::{
        socket::{
            AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike as _, bind, send, setsockopt,
            socket, sockopt,
        },
        time::TimeVal,
    },
};

use super::{
    Devices, SysError,
    alias::Alias,
    netlink::{Address, FdbEntry, FdbOwner, Forwarding, LinkFlags, LinkInfo, VlanTag},
    topology::{Layer, Layers},
};

/// ff02::1 and its MAC address.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

/// A device whose addresses are to be announced, or whose groups are to be reported: the bond itself, or one above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upper {
    /// 0 if the device is in another network namespace than the bond.
    pub ifindex: u32,
    /// From the outermost to the innermost; none for the bond.
    pub tags: Vec<VlanTag>,
    /// The MAC address of a device, if it differs from the bond's.
    pub own_mac: Option<Mac>,
    /// Whether IPv6 forwards on it. An advertisement without the router flag would remove it from its neighbours'
    /// lists of routers.
    pub router: bool,
    /// Whether its frames leave by the bond; a bridge that filters VLANs may keep them.
    pub is_connected: bool,
    /// Whether neighbours reach its addresses: it lies above no master but bridges. Groups are reported all the same.
    pub is_reached: bool,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Upper {
    fn is_announced(&self) -> bool {
        self.is_connected && self.is_reached
    }

    /// Returns its MAC address, if that is not the bond's, and it has addresses that are announced from it.
    pub fn announced_mac(&self) -> Option<MacBehind> {
        let mac = self.own_mac.filter(|_| self.is_announced() && !self.addresses.is_empty())?;
        Some(MacBehind { mac, tags: self.tags.clone() })
    }
}

/// A MAC address behind the bond, and the tags of its frames, from the outermost to the innermost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MacBehind {
    /// The address.
    pub mac: Mac,
    /// The VLAN tags that its frames have, the outermost first.
    pub tags: Vec<VlanTag>,
}

impl From<&BehindKey> for MacBehind {
    fn from(key: &BehindKey) -> Self {
        let tags = key.tags().into_iter().filter(|tag| !tag.is_none());
        let tags = tags.map(|tag| VlanTag { ethertype: tag.tpid(), vid: tag.vid() });
        Self { mac: key.mac(), tags: tags.collect() }
    }
}

impl MacBehind {
    /// Returns its key in BEHIND; None if its frames have more than two tags.
    pub fn key(&self) -> Option<BehindKey> {
        let mut tags = [Tag::NONE; 2];
        for (number, VlanTag { ethertype, vid }) in self.tags.iter().enumerate() {
            *tags.get_mut(number)? = Tag::new(*ethertype, *vid);
        }
        Some(BehindKey::new(self.mac, tags))
    }
}

/// A MAC address that a bridge has learned at another port than the bond's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The address and its tags.
    pub behind: MacBehind,
    /// Since it sent last.
    pub age: Duration,
}

/// What is to be announced for a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The bond and the devices above it.
    pub uppers: Vec<Upper>,
    /// MAC addresses that the kernel lists; none of them announces an address.
    pub macs: Vec<MacBehind>,
    /// MAC addresses that bridges have learned, those that sent last first: they are behind the bond, too, and what sends through
    /// the bond is known only since it is a port. They are for BEHIND, where they are forgotten when they move away.
    pub learned: Vec<Learned>,
    /// Something takes all frames of bond0, and no address is known under the bond's MAC address: the MAC address itself is
    /// announced.
    pub has_unknown_user: bool,
    /// The bridges and other masters of which one of these devices is a port, whether they are up or not.
    pub masters: Vec<u32>,
    /// The devices are in another network namespace, which sends no events to this one.
    pub elsewhere: bool,
}

/// Reads what is to be announced: the addresses of a bond and of the devices above it, at any depth, all but the tentative ones,
/// and MAC addresses that the kernel lists. `port` is the other end of the bond, which may have been moved to another network
/// namespace since; then only addresses are known.
///
/// # Errors
/// The port does not exist, or a list of its namespace (links, addresses, neighbours) cannot be read. A list of another
/// namespace that cannot be read is left out.
pub async fn addresses_behind(devices: &dyn Devices, port: u32) -> Result<Announced, SysError> {
    let port = devices.link_by_index(port).await?;
    let Some(bond) = port.link else { return Ok(Announced::default()) };
    let netns = port.link_netns;
    let links = devices.links(netns).await?;
    let forwarding = if netns.is_none() { devices.forwarding().await? } else { Forwarding::default() };
    let above = Layers::new(bond, &links, &forwarding.vlans);
    let addresses = devices.addresses(netns).await?;
    let mut uppers = if netns.is_none() {
        all_uppers(&above, &links, &addresses, &forwarding.entries)
    } else {
        uppers(&above, &addresses)
    };
    // What cannot be read there is not announced.
    let others =
        if netns.is_none() { devices.other_namespaces().await.unwrap_or_default() } else { Vec::new() };
    for other in &others {
        uppers.extend(uppers_in(devices, *other, &above).await.unwrap_or_default());
    }
    let macs = macs(&above, &links, &uppers, &forwarding.entries);
    let learned = learned(&above, &links, &forwarding.entries);
    let has_unknown_user = takes_all(&above, &forwarding.entries) && !has_address_of_bond(&uppers);
    let masters = above.layers().iter().filter_map(|layer| layer.link.master).collect();
    Ok(Announced { uppers, macs, learned, has_unknown_user, masters, elsewhere: netns.is_some() })
}

/// Returns whether something but a bridge of the kernel's takes all frames of the bond: it is promiscuous, and not only for
/// further MAC addresses, for which the kernel makes a device promiscuous that has no filter (`__dev_set_rx_mode`).
fn takes_all(above: &Layers<'_>, entries: &[FdbEntry]) -> bool {
    let Some(bond) = above.layers().first().map(|bond| bond.link) else { return false };
    let has_further =
        entries.iter().any(|entry| entry.of == FdbOwner::Device && entry.ifindex == bond.ifindex);
    bond.promiscuity > u32::from(has_further) && bond.master_kind.as_deref() != Some("bridge")
}

fn has_address_of_bond(uppers: &[Upper]) -> bool {
    let mut announced = uppers.iter().filter(|upper| upper.is_announced() && upper.own_mac.is_none());
    announced.any(|upper| !upper.addresses.is_empty())
}

/// Returns the devices of [`uppers`], and those at switches in user space: from dumps of all links, addresses and forwarding
/// tables.
pub fn all_uppers(
    above: &Layers<'_>,
    links: &[LinkInfo],
    addresses: &[Address],
    entries: &[FdbEntry],
) -> Vec<Upper> {
    let mut all = uppers(above, addresses);
    if takes_all(above, entries) {
        all.extend(uppers_at_switch(above, links, addresses));
    }
    all
}

/// Returns the ports of switches in user space, and of Open vSwitch, that have the bond's MAC address, with what lies above them.
///
/// The MAC address of such a port follows bond0's a moment later under `active`: until then it has that of another slave, which
/// the data plane takes for the bond's as well.
fn uppers_at_switch(above: &Layers<'_>, links: &[LinkInfo], addresses: &[Address]) -> Vec<Upper> {
    let Some(bond) = above.layers().first().map(|bond| bond.link) else { return Vec::new() };
    let has_mark =
        |link: &&LinkInfo| link.alias.as_ref().is_some_and(Alias::is_mark) && link.alias == bond.alias;
    let mut macs: HashSet<Mac> = links.iter().filter(has_mark).map(|link| link.mac).collect();
    macs.insert(bond.mac);
    let is_port = |link: &&LinkInfo| {
        link.is_up() && link.may_be_switch_port() && link.master.is_none() && macs.contains(&link.mac)
    };
    // A slave may be a tap.
    let ports = links.iter().filter(is_port).filter(|link| !has_mark(link));
    let vlans = HashMap::new();
    ports.flat_map(|port| uppers(&Layers::new(port.ifindex, links, &vlans), addresses)).collect()
}

/// Returns the devices in another network namespace that lie above these layers and have the bond's MAC address: ipvlans, VLANs,
/// and what is above them. The MAC addresses of others are announced without a look at their addresses: the kernel lists them.
async fn uppers_in(
    devices: &dyn Devices,
    namespace: i32,
    above: &Layers<'_>,
) -> Result<Vec<Upper>, SysError> {
    let links = devices.links(Some(namespace)).await?;
    // To list a link with its lower device here gives this namespace a number.
    let Some(ours) = devices.own_namespace().await else { return Ok(Vec::new()) };
    let stacked = stacked_in(&links, ours, above);
    if stacked.is_empty() {
        return Ok(Vec::new());
    }
    Ok(uppers_above(&stacked, &links, above, &devices.addresses(Some(namespace)).await?))
}

/// Returns the devices among the links of another namespace whose lower device is one of the layers, which that is, and its tags.
/// `ours` is the number of the layers' namespace in itself.
fn stacked_in<'a>(links: &'a [LinkInfo], ours: i32, above: &Layers<'_>) -> Vec<(&'a LinkInfo, Vec<VlanTag>)> {
    // A device without ARP has neighbours that do not resolve its address.
    let is_stacked = |link: &&LinkInfo| {
        link.is_up()
            && link.is_stacked()
            && link.link_netns == Some(ours)
            && !link.flags.contains(LinkFlags::Noarp)
    };
    let on_layer = |link: &'a LinkInfo| {
        let below = above.layers().iter().find(|layer| link.link == Some(layer.link.ifindex))?;
        let tags = below.tags.iter().flatten().copied().chain(link.vlan).collect();
        (below.is_reached && below.tags.is_some()).then_some((link, tags))
    };
    links.iter().filter(is_stacked).filter_map(on_layer).collect()
}

/// Returns these devices and those above them, from all links and addresses of their namespace.
fn uppers_above(
    stacked: &[(&LinkInfo, Vec<VlanTag>)],
    links: &[LinkInfo],
    above: &Layers<'_>,
    addresses: &[Address],
) -> Vec<Upper> {
    let bond = above.layers().first().map(|bond| bond.link.mac);
    let vlans = HashMap::new();
    let mut found = Vec::new();
    for (link, outer) in stacked.iter().filter(|(link, _)| Some(link.mac) == bond) {
        let of_this = uppers(&Layers::new(link.ifindex, links, &vlans), addresses);
        found.extend(of_this.into_iter().filter(|upper| upper.own_mac.is_none()).map(|upper| Upper {
            ifindex: 0,
            tags: outer.iter().chain(&upper.tags).copied().collect(),
            ..upper
        }));
    }
    found
}

/// Returns the layers, from a dump of all addresses.
fn uppers(above: &Layers<'_>, addresses: &[Address]) -> Vec<Upper> {
    let Some(bond) = above.layers().first().map(|bond| bond.link) else { return Vec::new() };
    let upper = |Layer { link, tags, is_reached, .. }: &Layer<'_>| Upper {
        ifindex: link.ifindex,
        tags: tags.clone().unwrap_or_default(),
        own_mac: Some(link.mac).filter(|&mac| mac != bond.mac && !mac.is_zero()),
        router: link.ipv6_forwarding,
        is_connected: tags.is_some(),
        is_reached: *is_reached,
        addresses: addresses
            .iter()
            .filter(|address| address.ifindex == link.ifindex && !address.is_tentative())
            .map(|address| address.ip)
            .collect(),
    };
    above.layers().iter().map(upper).collect()
}

/// Returns the MAC addresses behind the bond that the kernel lists, each once for its tags: of devices above the bond without an
/// address, and of forwarding tables.
fn macs(above: &Layers<'_>, links: &[LinkInfo], uppers: &[Upper], entries: &[FdbEntry]) -> Vec<MacBehind> {
    let layers = above.layers();
    let Some(bond) = layers.first() else { return Vec::new() };
    let mut found: Vec<MacBehind> = Vec::new();
    let mut add = |mac: Mac, tags: &[VlanTag]| {
        let behind = MacBehind { mac, tags: tags.to_vec() };
        if mac.is_unicast() && mac != bond.link.mac && !found.contains(&behind) {
            found.push(behind);
        }
    };
    let announced = || uppers.iter().filter(|upper| upper.is_announced());
    for upper in announced() {
        if let Some(mac) = upper.own_mac.filter(|_| upper.addresses.is_empty()) {
            add(mac, &upper.tags);
        }
    }
    // What a device above a VLAN receives, the VLAN and the bond receive, too: the tags are those of the highest one.
    let mut received: HashSet<Mac> = announced().filter_map(|upper| upper.own_mac).collect();
    for upper in uppers.iter().rev().filter(|upper| upper.is_announced()) {
        let own = |entry: &&FdbEntry| entry.of == FdbOwner::Device && entry.ifindex == upper.ifindex;
        let new: Vec<_> = entries.iter().filter(own).filter(|entry| !received.contains(&entry.mac)).collect();
        for entry in new {
            add(entry.mac, &upper.tags);
            received.insert(entry.mac);
        }
    }
    for entry in entries.iter().filter(|entry| entry.of == FdbOwner::Bridge) {
        let device = links.iter().find(|link| link.ifindex == entry.ifindex);
        let bridge = device.map(|device| device.master.unwrap_or(device.ifindex));
        let place =
            layers.iter().position(|layer| Some(layer.link.ifindex) == bridge && layer.link.is_bridge());
        let Some(place) = place.filter(|&place| layers.get(place).is_some_and(|layer| layer.is_reached))
        else {
            continue;
        };
        // What is static at the port of the bond is on the wire.
        if above.port_of(place) == Some(entry.ifindex) {
            continue;
        }
        if let Some(tags) = above.tags_in_bridge(place, entry.vid)
            && !announced().any(|upper| {
                upper.own_mac == Some(entry.mac) && upper.tags == tags && !upper.addresses.is_empty()
            })
        {
            add(entry.mac, &tags);
        }
    }
    found
}

/// Returns the MAC addresses that bridges above the bond have learned at other ports, at most [`MOST_BEHIND`], those that sent
/// last first.
///
/// At ports of a bridge with STP only guests count, at taps and pairs: what such a bridge has learned at another NIC may be on the
/// wire of the bond since, or will be.
fn learned(above: &Layers<'_>, links: &[LinkInfo], entries: &[FdbEntry]) -> Vec<Learned> {
    let layers = above.layers();
    let Some(bond) = layers.first() else { return Vec::new() };
    let ports: HashMap<u32, &LinkInfo> = links.iter().map(|link| (link.ifindex, link)).collect();
    let is_layer = |ifindex: u32| layers.iter().any(|layer| layer.link.ifindex == ifindex);
    let is_guests = |port: &LinkInfo| port.is_end_of_pair() || port.kind.as_deref() == Some("tun");
    let of_bridge = |entry: &FdbEntry| {
        let FdbOwner::Learned { age } = entry.of else { return None };
        let port = ports.get(&entry.ifindex).filter(|port| !is_layer(port.ifindex))?;
        let is_it = |layer: &Layer<'_>| Some(layer.link.ifindex) == port.master && layer.link.is_bridge();
        let place = layers.iter().position(is_it)?;
        let bridge = layers.get(place).filter(|bridge| bridge.is_reached)?;
        if bridge.link.has_stp && !is_guests(port) || entry.mac == bond.link.mac {
            return None;
        }
        let tags = above.tags_in_bridge(place, entry.vid)?;
        Some(Learned { behind: MacBehind { mac: entry.mac, tags }, age })
    };
    let mut found: Vec<_> = entries.iter().filter_map(of_bridge).collect();
    found.sort_by_key(|learned| learned.age);
    found.truncate(MOST_BEHIND);
    found
}

/// Returns the frames that announce addresses in one round, from this MAC address: ARP first, as the kernel does.
pub fn frames(mac: Mac, uppers: &[Upper]) -> Vec<BytesMut> {
    let (mut arp, mut advertisements) = (Vec::new(), Vec::new());
    for upper in uppers.iter().filter(|upper| upper.is_announced()) {
        let mac = upper.own_mac.unwrap_or(mac);
        for address in &upper.addresses {
            match *address {
                IpAddr::V4(ip) => arp.push(gratuitous_arp(mac, &upper.tags, ip)),
                IpAddr::V6(ip) => advertisements.push(unsolicited_advertisement(mac, upper, ip)),
            }
        }
    }
    arp.append(&mut advertisements);
    arp
}

/// Returns a broadcast request of an address for itself.
fn gratuitous_arp(mac: Mac, tags: &[VlanTag], ip: Ipv4Addr) -> BytesMut {
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.bytes(),
        sender_ipv4: ip.octets(),
        target_mac: [0; 6],
        target_ipv4: ip.octets(),
    };
    let mut frame = ethernet(Mac::BROADCAST, mac, tags, EtherType::ARP);
    frame.put_slice(&arp.to_bytes());
    frame
}

/// Returns a request of a MAC address for its own IPv4 address. Hosts do not answer and learn nothing; switches learn
/// where the MAC address is, in the VLAN of the tags. Hypervisors send it after a migration, and Open vSwitch after a failover
/// (`compose_rarp`).
pub fn reverse_arp(MacBehind { mac, tags }: &MacBehind) -> BytesMut {
    const REVERSE_REQUEST: ArpOperation = ArpOperation(3);
    const RARP: EtherType = EtherType(0x8035);
    let arp = ArpEthIpv4Packet {
        operation: REVERSE_REQUEST,
        sender_mac: mac.bytes(),
        sender_ipv4: [0; 4],
        target_mac: mac.bytes(),
        target_ipv4: [0; 4],
    };
    let mut frame = ethernet(Mac::BROADCAST, *mac, tags, RARP);
    frame.put_slice(&arp.to_bytes());
    frame
}

/// Returns an advertisement to all nodes, with the override flag, from the address itself.
fn unsolicited_advertisement(mac: Mac, upper: &Upper, ip: Ipv6Addr) -> BytesMut {
    const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
    let mut target = BytesMut::with_capacity(24);
    target.put_slice(&ip.octets());
    // The length of an option is in units of 8 bytes.
    target.put_slice(&[TARGET_LINK_LAYER_ADDRESS, 1]);
    target.put_slice(&mac.bytes());
    let flags = NeighborAdvertisementHeader { router: upper.router, solicited: false, r#override: true };
    let mut icmp = Icmpv6Header::new(Icmpv6Type::NeighborAdvertisement(flags));
    // This fails only for payloads of more than 4 GB.
    let _ = icmp.update_checksum(ip.octets(), ALL_NODES.octets(), &target);
    let icmp = icmp.to_bytes();
    let ipv6 = Ipv6Header {
        payload_length: (icmp.len() + target.len()) as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source: ip.octets(),
        destination: ALL_NODES.octets(),
        ..Ipv6Header::default()
    };
    let mut frame = ethernet(ALL_NODES_MAC, mac, &upper.tags, EtherType::IPV6);
    frame.put_slice(&ipv6.to_bytes());
    frame.put_slice(&icmp);
    frame.put_slice(&target);
    frame
}

/// Returns the header of a frame.
pub(super) fn ethernet(destination: Mac, source: Mac, tags: &[VlanTag], ether_type: EtherType) -> BytesMut {
    let mut frame = BytesMut::with_capacity(128);
    frame.put_slice(&destination.bytes());
    frame.put_slice(&source.bytes());
    for tag in tags {
        frame.put_u16(tag.ethertype);
        frame.put_u16(tag.vid);
    }
    frame.put_u16(ether_type.0);
    frame
}

/// Packet sockets that send by one device, and receive nothing.
///
/// Frames go directly to the driver (PACKET_QDISC_BYPASS), for two reasons. Right after a carrier appears, until
/// linkwatch has run, the device's qdisc is noop, which drops frames and reports success. And they do not wait behind
/// a full queue. In return, tcpdump on this device does not show them. They use the queue only if the driver's ring
/// is full.
#[derive(Debug)]
pub struct FrameSocket {
    direct: OwnedFd,
    queued: OwnedFd,
    ifindex: u32,
}

impl FrameSocket {
    /// How long a frame may wait for space.
    const WAIT_LIMIT: TimeVal = TimeVal::new(0, 100_000);

    /// Opens the sockets in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel opens no packet socket for this device: it does not exist, or the process lacks CAP_NET_RAW or
    /// descriptors.
    pub fn open(ifindex: u32) -> Result<Self, SysError> {
        let open = || {
            let (direct, queued) = (Self::socket(ifindex)?, Self::socket(ifindex)?);
            bypass_queue(&direct)?;
            Ok(Self { direct, queued, ifindex })
        };
        open().map_err(|error: nix::Error| failed("open a packet socket", ifindex, error))
    }

    fn socket(ifindex: u32) -> nix::Result<OwnedFd> {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::SendTimeout, &Self::WAIT_LIMIT)?;
        bind(socket.as_raw_fd(), &link_address(ifindex, 0).ok_or(Errno::EINVAL)?)?;
        Ok(socket)
    }

    /// Sends a whole frame. It blocks for at most 100 ms. ENETDOWN means that the device is down, ENOBUFS that it has
    /// no carrier or no space.
    ///
    /// # Errors
    /// The kernel did not queue the frame.
    pub fn send(&self, frame: &[u8]) -> Result<(), SysError> {
        let by = |socket: &OwnedFd| send(socket.as_raw_fd(), frame, MsgFlags::empty());
        let sent = match by(&self.direct) {
            // Without a carrier the queue may be noop, which drops frames and reports success.
            Err(Errno::ENOBUFS) if is_running(&self.queued, self.ifindex) => by(&self.queued),
            answer => answer,
        };
        match sent {
            Ok(_) => Ok(()),
            Err(error) => Err(failed("send a frame", self.ifindex, error)),
        }
    }
}

/// Returns IFF_RUNNING, which is set once the device's own queue is in place. False if it cannot be read: then a
/// frame counts as not sent.
fn is_running(socket: &OwnedFd, ifindex: u32) -> bool {
    let Ok(name) = if_indextoname(ifindex) else { return false };
    // SAFETY: an ifreq is integers: all zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the kernel reads the name, which ends with a zero, and writes the flags.
    // The number has one type in glibc and another one in musl.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) };
    // SAFETY: the kernel has written this member.
    result == 0 && libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_RUNNING != 0
}

fn bypass_queue(socket: &OwnedFd) -> nix::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

fn failed(what: &str, ifindex: u32, error: nix::Error) -> SysError {
    SysError::kernel(what, super::netlink::called(ifindex), io::Error::from(error))
}

/// Returns the address to which a packet socket is bound: the device, and the EtherType that it receives, or nothing
/// with 0.
fn link_address(ifindex: u32, ether_type: u16) -> Option<LinkAddr> {
    // SAFETY: a sockaddr_ll is integers: all zero is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as libc::sa_family_t;
    address.sll_ifindex = ifindex.cast_signed();
    address.sll_protocol = ether_type.to_be();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a whole sockaddr_ll of the family AF_PACKET, of that length.
    unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bond_common::{
        behind::{REVERSE_ARP_BYTES, write_reverse_arp},
        wire::Frame,
    };
    use nix::sys::socket::recv;

    use super::*;
    use crate::sys::{
        netlink::{LinkLayerType, LinkSetting},
        testing::{Elsewhere, bridge, in_namespace, link, mac, upper, veth, vlan},
    };

    const BOND_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x10]);
    const C_TAG: VlanTag = VlanTag { ethertype: 0x8100, vid: 5 };
    const S_TAG: VlanTag = VlanTag { ethertype: 0x88a8, vid: 100 };

    /// A frame that the tick writes.
    struct Bytes(Vec<u8>);

    impl Frame for Bytes {
        fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
            self.0.get(offset..offset + N)?.try_into().ok()
        }

        fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
            self.0.get_mut(offset..offset + N)?.copy_from_slice(&bytes);
            Some(())
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
    }

    fn above(tags: &[VlanTag], addresses: &[&str]) -> Upper {
        Upper {
            ifindex: 1,
            tags: tags.to_vec(),
            own_mac: None,
            router: false,
            is_connected: true,
            is_reached: true,
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }

    /// The frames that the driver was observed to send: one ARP request per address, with tha 0; NA to all nodes with
    /// R0 S0 O1.
    #[test]
    fn frames_are_those_of_the_driver() {
        let uppers =
            [above(&[], &["10.0.0.2", "fd00::1"]), above(&[C_TAG], &["10.5.0.1", "fe80::ff:fe00:10"])];
        let expected = [
            "ffffffffffff 020000000010 0806
             0001 0800 06 04 0001 020000000010 0a000002 000000000000 0a000002",
            "ffffffffffff 020000000010 8100 0005 0806
             0001 0800 06 04 0001 020000000010 0a050001 000000000000 0a050001",
            "333300000001 020000000010 86dd
             60000000 0020 3a ff fd000000000000000000000000000001 ff020000000000000000000000000001
             88 00 5a8c 20000000 fd000000000000000000000000000001 02 01 020000000010",
            "333300000001 020000000010 8100 0005 86dd
             60000000 0020 3a ff fe80000000000000000000fffe000010 ff020000000000000000000000000001
             88 00 596e 20000000 fe80000000000000000000fffe000010 02 01 020000000010",
        ];
        let frames = frames(BOND_MAC, &uppers);
        assert_eq!(frames.len(), expected.len());
        for (frame, expected) in frames.iter().zip(expected) {
            assert_eq!(frame[..], hex(expected), "{frame:02x?}");
        }
    }

    #[test]
    fn an_na_has_the_router_flag_and_a_vlan_may_have_its_own_mac() {
        let upper = Upper { router: true, own_mac: Some(mac(0x55)), ..above(&[S_TAG, C_TAG], &["fd00::1"]) };
        let frames = frames(BOND_MAC, &[upper]);
        let [frame] = frames.as_slice() else { panic!("{frames:?}") };
        assert_eq!(frame[..22], hex("333300000001 020000000055 88a8 0064 8100 0005 86dd"));
        assert_eq!(frame[22 + 40 + 4], 0xa0);
        assert_eq!(frame[frame.len() - 6..], mac(0x55).bytes());
    }

    /// In tcpdump's output: "Reverse Request who-is 02:00:00:00:00:10 tell 02:00:00:00:00:10".
    #[test]
    fn a_reverse_arp_asks_for_nothing_but_the_mac() {
        let expected = "ffffffffffff 020000000010 8035
             0001 0800 06 04 0003 020000000010 00000000 020000000010 00000000";
        assert_eq!(reverse_arp(&MacBehind { mac: BOND_MAC, tags: Vec::new() })[..], hex(expected));
        let mut by_tick = Bytes(vec![0; REVERSE_ARP_BYTES]);
        let key = BehindKey::new(BOND_MAC, [Tag::new(0x88a8, 100), Tag::new(0x8100, 5)]);
        write_reverse_arp(&mut by_tick, &key).unwrap();
        let by_agent = reverse_arp(&MacBehind::from(&key));
        assert_eq!(by_tick.0[..by_agent.len()], by_agent[..]);
    }

    // One thing: the devices of one host, and what is found of them.
    #[test]
    fn vlans_and_macvlans_above_are_found_at_any_depth() {
        let vlan = |ifindex, below, tag| LinkInfo {
            link: Some(below),
            vlan: Some(tag),
            mac: BOND_MAC,
            ..link(ifindex, &format!("vlan{ifindex}"))
        };
        let macvlan = |ifindex, below| LinkInfo {
            link: Some(below),
            kind: Some("macvlan".into()),
            mac: mac(0x77),
            ..link(ifindex, &format!("macvlan{ifindex}"))
        };
        let down = |mut link: LinkInfo| {
            link.flags = crate::sys::netlink::LinkFlags::empty();
            link
        };
        let bond = LinkInfo { mac: BOND_MAC, link: Some(2), ..link(3, "bond0") };
        let links = [
            // The inner one is listed first: order does not matter.
            vlan(5, 4, C_TAG),
            vlan(4, 3, S_TAG),
            bond,
            LinkInfo { link: Some(3), ..link(2, "bond0-port") },
            LinkInfo { link: Some(3), kind: Some("ipvlan".into()), ..link(6, "ipvlan") },
            macvlan(11, 5),
            macvlan(12, 3),
            LinkInfo { mac: mac(0x66), ipv6_forwarding: true, ..vlan(7, 3, C_TAG) },
            LinkInfo { link_netns: Some(0), ..vlan(8, 3, C_TAG) },
            down(vlan(9, 3, C_TAG)),
            vlan(10, 99, C_TAG),
        ];
        let address = |ifindex, text: &str| Address::new(ifindex, text.parse().unwrap(), 24);
        let addresses = [
            address(3, "10.0.0.1"),
            address(3, "10.0.1.1"),
            Address { flags: libc::IFA_F_SECONDARY, ..address(3, "10.0.0.2") },
            Address { flags: libc::IFA_F_TENTATIVE, ..address(3, "fd00::2") },
            Address { flags: libc::IFA_F_TENTATIVE | libc::IFA_F_OPTIMISTIC, ..address(3, "fd00::3") },
            address(3, "fe80::1"),
            address(2, "10.9.9.9"),
            address(5, "10.5.0.1"),
            address(6, "10.6.0.1"),
            address(8, "10.8.0.1"),
            address(9, "10.9.0.1"),
            address(10, "10.10.0.1"),
            address(11, "10.11.0.1"),
            address(12, "10.12.0.1"),
        ];
        let at = |ifindex, upper| Upper { ifindex, ..upper };
        let expected = [
            at(3, above(&[], &["10.0.0.1", "10.0.1.1", "10.0.0.2", "fd00::3", "fe80::1"])),
            at(4, above(&[S_TAG], &[])),
            at(6, above(&[], &["10.6.0.1"])),
            Upper { own_mac: Some(mac(0x77)), ..at(12, above(&[], &["10.12.0.1"])) },
            Upper { own_mac: Some(mac(0x66)), router: true, ..at(7, above(&[C_TAG], &[])) },
            at(5, above(&[S_TAG, C_TAG], &["10.5.0.1"])),
            Upper { own_mac: Some(mac(0x77)), ..at(11, above(&[S_TAG, C_TAG], &["10.11.0.1"])) },
        ];
        let vlans = HashMap::new();
        let uppers = |bond| uppers(&Layers::new(bond, &links, &vlans), &addresses);
        assert_eq!(uppers(3), expected);
        assert_eq!(uppers(1000), []);
    }

    /// bond0 and a VLAN of it are here; the numbers of interfaces in the other namespace are the same ones.
    #[test]
    fn devices_in_another_namespace_are_announced_with_their_tags() {
        let ours =
            [LinkInfo { mac: BOND_MAC, ..link(3, "bond0") }, LinkInfo { mac: BOND_MAC, ..vlan(4, 3, S_TAG) }];
        let vlans = HashMap::new();
        let above_here = Layers::new(3, &ours, &vlans);
        let there = |link: LinkInfo| LinkInfo { link_netns: Some(7), mac: BOND_MAC, ..link };
        let mut quiet = there(upper(9, 3, "ipvlan"));
        quiet.flags |= LinkFlags::Noarp;
        let links = [
            there(upper(3, 3, "ipvlan")),
            there(vlan(4, 4, C_TAG)),
            LinkInfo { mac: BOND_MAC, ..vlan(5, 4, C_TAG) },
            LinkInfo { mac: mac(0x66), ..there(upper(6, 3, "macvlan")) },
            // Of a third namespace, of a device that is not above the bond, and of this one.
            LinkInfo { link_netns: Some(8), ..there(upper(7, 3, "ipvlan")) },
            there(upper(8, 99, "ipvlan")),
            LinkInfo { link_netns: None, ..there(upper(10, 99, "ipvlan")) },
            quiet,
        ];
        let addresses: Vec<_> = (3..=10)
            .map(|ifindex| Address::new(ifindex, IpAddr::from([10, 0, ifindex as u8, 1]), 24))
            .collect();
        let stacked = stacked_in(&links, 7, &above_here);
        let found = uppers_above(&stacked, &links, &above_here, &addresses);
        let expected = [
            above(&[], &["10.0.3.1"]),
            above(&[S_TAG, C_TAG], &["10.0.4.1"]),
            above(&[S_TAG, C_TAG, C_TAG], &["10.0.5.1"]),
        ];
        assert_eq!(found, expected.map(|upper| Upper { ifindex: 0, ..upper }));
    }

    /// bond0, its two slaves, and taps: with the MAC address of bond0, of the other slave, of a guest, and of a slave that is a tap.
    #[test]
    fn a_port_of_a_switch_with_the_bonds_mac_is_announced_with_what_is_above_it() {
        let marked = |link| LinkInfo { alias: Alias::new("xbond:bond0"), ..link };
        let of = |last, link| LinkInfo { mac: mac(last), ..link };
        let tap = |ifindex| LinkInfo { kind: Some("tun".into()), ..link(ifindex, &format!("tap{ifindex}")) };
        let mut links = [
            marked(LinkInfo { promiscuity: 1, ..of(1, link(3, "bond0")) }),
            marked(of(1, link(4, "enp0s8"))),
            marked(of(2, tap(5))),
            of(1, tap(20)),
            of(2, tap(21)),
            of(0x22, tap(22)),
            LinkInfo { master: Some(9), ..of(1, tap(23)) },
            of(1, vlan(24, 20, C_TAG)),
            LinkInfo { layer: LinkLayerType::None, ..of(1, tap(25)) },
            of(1, link(26, "dummy0")),
        ];
        let addresses: Vec<_> = (3..=26)
            .map(|ifindex| Address::new(ifindex, IpAddr::from([10, 0, ifindex as u8, 1]), 24))
            .collect();
        let vlans = HashMap::new();
        let further = FdbEntry { mac: mac(9), ifindex: 3, vid: None, of: FdbOwner::Device };
        let of = |links: &[LinkInfo], entries: &[FdbEntry]| {
            let mut all = all_uppers(&Layers::new(3, links, &vlans), links, &addresses, entries);
            all.split_off(1)
        };
        let at = |ifindex, upper| Upper { ifindex, ..upper };
        let expected = [
            at(20, above(&[], &["10.0.20.1"])),
            at(24, above(&[C_TAG], &["10.0.24.1"])),
            at(21, above(&[], &["10.0.21.1"])),
        ];
        assert_eq!(of(&links, &[]), expected);
        assert_eq!(of(&links, &[further]), [], "promiscuous for a macvlan");
        assert!(has_address_of_bond(&expected) && !has_address_of_bond(&[at(3, above(&[], &[]))]));
        // A bridge of the kernel's has ports that are known.
        links[0].master_kind = Some("bridge".to_owned());
        assert_eq!(of(&links, &[]), []);
        (links[0].master_kind, links[0].promiscuity) = (None, 0);
        assert_eq!(of(&links, &[]), []);
    }

    /// bond0 and two veths in br0, which has another MAC address than bond0; a VLAN of br0 and a macvlan without addresses; a
    /// macvlan above a VLAN of bond0 in another namespace.
    #[test]
    fn macs_that_the_kernel_lists_are_announced_with_their_tags() {
        let of = |last, link| LinkInfo { mac: mac(last), ..link };
        let port = |ifindex| LinkInfo { master: Some(7), ..link(ifindex, &format!("port{ifindex}")) };
        let links = [
            LinkInfo { mac: BOND_MAC, ..port(3) },
            of(0x21, port(20)),
            of(0x22, port(21)),
            of(0x70, bridge(7, "br0")),
            of(0x70, vlan(8, 7, C_TAG)),
            of(0x90, upper(9, 7, "macvlan")),
            LinkInfo { mac: BOND_MAC, ..vlan(10, 3, S_TAG) },
        ];
        let entry = |ifindex, last, of| FdbEntry { mac: mac(last), ifindex, vid: None, of };
        let entries = [
            // On the wire.
            entry(3, 0x01, FdbOwner::Bridge),
            FdbEntry { mac: BOND_MAC, ..entry(3, 0, FdbOwner::Bridge) },
            entry(20, 0x21, FdbOwner::Bridge),
            entry(21, 0x55, FdbOwner::Bridge),
            entry(7, 0x70, FdbOwner::Bridge),
            // Of the macvlan in the other namespace.
            entry(10, 0xaa, FdbOwner::Device),
            entry(3, 0xaa, FdbOwner::Device),
            entry(3, 0x90, FdbOwner::Device),
            entry(99, 0xbb, FdbOwner::Device),
        ];
        let addresses = [Address::new(7, "10.0.0.1".parse().unwrap(), 24)];
        let vlans = HashMap::new();
        let above = Layers::new(3, &links, &vlans);
        let uppers = uppers(&above, &addresses);
        let found = macs(&above, &links, &uppers, &entries);
        let found: Vec<_> = found.iter().map(|behind| (behind.mac, behind.tags.clone())).collect();
        let expected =
            [(0x70, vec![C_TAG]), (0x90, vec![]), (0xaa, vec![S_TAG]), (0x21, vec![]), (0x55, vec![])];
        assert_eq!(found, expected.map(|(last, tags)| (mac(last), tags)));
    }

    /// bond0, a tap and a NIC in br0, and a VLAN of bond0 in br5 with another tap.
    #[test]
    fn what_bridges_have_learned_at_other_ports_is_behind_the_bond() {
        let port = |master, link| LinkInfo { master: Some(master), ..link };
        let tap = |ifindex| LinkInfo { kind: Some("tun".into()), ..link(ifindex, &format!("tap{ifindex}")) };
        let mut links = [
            port(7, LinkInfo { mac: BOND_MAC, ..link(3, "bond0") }),
            port(7, tap(20)),
            port(7, link(21, "enp1s0")),
            bridge(7, "br0"),
            port(8, vlan(4, 3, C_TAG)),
            port(8, tap(22)),
            bridge(8, "br5"),
            port(9, tap(23)),
            bridge(9, "br9"),
        ];
        let entry = |ifindex, last, seconds| {
            let of = FdbOwner::Learned { age: Duration::from_secs(seconds) };
            FdbEntry { mac: mac(last), ifindex, vid: None, of }
        };
        let entries = [
            entry(3, 0x01, 1),
            entry(4, 0x02, 1),
            entry(20, 0x20, 30),
            entry(21, 0x21, 10),
            entry(22, 0x22, 20),
            entry(23, 0x23, 1),
            FdbEntry { mac: BOND_MAC, ..entry(20, 0, 1) },
            FdbEntry { of: FdbOwner::Bridge, ..entry(20, 0x24, 1) },
        ];
        let vlans = HashMap::new();
        let of = |links: &[LinkInfo]| {
            let found = learned(&Layers::new(3, links, &vlans), links, &entries).into_iter();
            found
                .map(|learned| (learned.behind.mac, learned.behind.tags, learned.age.as_secs()))
                .collect::<Vec<_>>()
        };
        let tap22 = (mac(0x22), vec![C_TAG], 20);
        let tap20 = (mac(0x20), vec![], 30);
        assert_eq!(of(&links), [(mac(0x21), vec![], 10), tap22.clone(), tap20.clone()]);
        links[3].has_stp = true;
        assert_eq!(of(&links), [tap22, tap20]);
    }

    #[test]
    fn the_key_of_a_mac_has_up_to_two_tags() {
        let key = |tags: &[VlanTag]| MacBehind { mac: mac(1), tags: tags.to_vec() }.key();
        let (outer, inner) = (Tag::new(0x88a8, S_TAG.vid), Tag::new(0x8100, C_TAG.vid));
        assert_eq!(key(&[]), Some(BehindKey::new(mac(1), [Tag::NONE; 2])));
        assert_eq!(key(&[S_TAG, C_TAG]), Some(BehindKey::new(mac(1), [outer, inner])));
        assert_eq!(key(&[S_TAG, C_TAG, C_TAG]), None);
    }

    #[test]
    fn a_frame_leaves_as_it_was_built() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let (near, far) = veth(&devices, "eth1", "far1").await;
            let sender = FrameSocket::open(near.ifindex).unwrap();
            let error = sender.send(&[0; 60]).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::ENETDOWN));
            for ifindex in [near.ifindex, far.ifindex] {
                // Without IPv6 addresses, so that the devices send no other frames.
                let none = crate::sys::netlink::In6AddrGenMode::None;
                netlink.set(ifindex, LinkSetting::AddrGenMode(none)).await.unwrap();
                netlink.set(ifindex, LinkSetting::Up(true)).await.unwrap();
            }
            netlink.add_address(&Address::new(near.ifindex, "10.0.0.1".parse().unwrap(), 24)).await.unwrap();
            let receiver = receiver(far.ifindex);
            let announced = addresses_behind(&devices, far.ifindex).await.unwrap();
            assert!(!announced.elsewhere);
            let frames = frames(BOND_MAC, &announced.uppers);
            assert_eq!(frames.len(), 1);
            sender.send(&frames[0]).unwrap();
            let mut buffer = [0; 2048];
            let length = recv(receiver.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            assert_eq!(buffer[..length], frames[0][..]);
            // Without a carrier the device's queue accepts frames and drops them; its state follows the carrier's a
            // little later.
            netlink.set(far.ifindex, LinkSetting::Up(false)).await.unwrap();
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while let Ok(()) = sender.send(&frames[0]) {
                assert!(std::time::Instant::now() < deadline, "frames that nothing sends count as sent");
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            assert!(FrameSocket::open(9999).unwrap_err().is_gone());
        });
    }

    #[test]
    fn the_bond_is_found_in_another_namespace() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let (near, far) = veth(&devices, "bond0", "port0").await;
            let elsewhere = Elsewhere::open();
            // Its number is taken there: it gets another one.
            veth(&devices.by(elsewhere.netlink.clone()), "eth1", "far1").await;
            netlink.move_to(near.ifindex, &elsewhere.netns).await;
            let bond = elsewhere.netlink.link_by_name("bond0").await.unwrap();
            assert_ne!(bond.ifindex, near.ifindex);
            let add = async |netlink: &crate::sys::netlink::Netlink, ifindex, text: &str| {
                netlink.add_address(&Address::new(ifindex, text.parse().unwrap(), 24)).await.unwrap();
            };
            add(&elsewhere.netlink, bond.ifindex, "10.0.0.1").await;
            add(&elsewhere.netlink, near.ifindex, "10.0.0.2").await;
            add(netlink, far.ifindex, "10.0.0.3").await;

            let announced = addresses_behind(&devices, far.ifindex).await.unwrap();
            let expected = Upper { ifindex: bond.ifindex, ..above(&[], &["10.0.0.1"]) };
            assert_eq!(
                announced,
                Announced { uppers: vec![expected], elsewhere: true, ..Announced::default() }
            );
        });
    }

    /// Receives ARP only, for at most ten seconds.
    fn receiver(ifindex: u32) -> OwnedFd {
        let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(10, 0)).unwrap();
        bind(socket.as_raw_fd(), &link_address(ifindex, EtherType::ARP.0).unwrap()).unwrap();
        socket
    }
}
