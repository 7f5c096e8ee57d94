//! Announces to neighbours and switches where the bond is after a failover.
//!
//! A round has one gratuitous ARP per IPv4 address and one unsolicited neighbour advertisement per IPv6 address, of
//! the bond and of the VLANs and macvlans above it. The kernel sends the same frames at NETDEV_NOTIFY_PEERS
//! (`inetdev_send_gratuitous_arp`, `ndisc_send_unsol_na`; `vlan_device_event` and `macvlan_device_event` forward it).
//! They are sent from the slave, so that they leave by the slave that was active when the round began, whatever
//! happens to the bond in between.
//!
//! The addresses of a host behind an existing port are not known. RARP shows its switches where the bond's MAC
//! address is, which suffices under `none` and `follow`. Under `active` its neighbours keep sending to the former
//! slave's MAC address until they receive a frame of the host, or ask again.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use bond_common::mac::Mac;
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
    netlink::{Address, LinkInfo, VlanTag},
    topology::{self, Layer},
};

/// ff02::1 and its MAC address.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);

/// A device whose addresses are to be announced, or whose groups are to be reported: the bond itself, or one above it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upper {
    pub ifindex: u32,
    /// From the outermost to the innermost; none for the bond.
    pub tags: Vec<VlanTag>,
    /// The MAC address of a device, if it differs from the bond's.
    pub own_mac: Option<Mac>,
    /// Whether IPv6 forwards on it. An advertisement without the router flag would remove it from its neighbours'
    /// lists of routers.
    pub router: bool,
    /// Whether the driver would announce its addresses; groups are reported for every device.
    pub notified: bool,
    pub addresses: Vec<IpAddr>,
}

/// What is to be announced for a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    pub uppers: Vec<Upper>,
    /// The devices are in another network namespace, which sends no events to this one.
    pub elsewhere: bool,
}

/// The addresses of a bond and of the VLANs and macvlans above it, at any depth, that may be announced: all but the
/// tentative ones. `port` is the other end of the bond, which may have been moved to another network namespace
/// since.
pub async fn addresses_behind(devices: &dyn Devices, port: u32) -> Result<Announced, SysError> {
    let port = devices.link_by_index(port).await?;
    let Some(bond) = port.link else { return Ok(Announced::default()) };
    let netns = port.link_netns;
    let uppers = uppers(bond, &devices.links(netns).await?, &devices.addresses(netns).await?);
    Ok(Announced { uppers, elsewhere: netns.is_some() })
}

/// Computes [`addresses_behind`] from a dump of all links and one of all addresses.
pub fn uppers(bond: u32, links: &[LinkInfo], addresses: &[Address]) -> Vec<Upper> {
    let layers = topology::above(bond, links);
    let Some(bond) = layers.first().map(|bond| bond.link) else { return Vec::new() };
    let upper = |Layer { link, tags, notified }: &Layer<'_>| Upper {
        ifindex: link.ifindex,
        tags: tags.clone(),
        own_mac: Some(link.mac).filter(|&mac| mac != bond.mac),
        router: link.ipv6_forwarding,
        notified: *notified,
        addresses: addresses
            .iter()
            .filter(|address| address.ifindex == link.ifindex && !address.is_tentative())
            .map(|address| address.ip)
            .collect(),
    };
    layers.iter().map(upper).collect()
}

/// Returns the frames of one round, from this MAC address: ARP first, as the kernel does.
pub fn frames(mac: Mac, uppers: &[Upper]) -> Vec<BytesMut> {
    let (mut arp, mut advertisements) = (Vec::new(), Vec::new());
    for upper in uppers.iter().filter(|upper| upper.notified) {
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
/// where the MAC address is. Hypervisors send it after a migration, and Open vSwitch after a failover
/// (`compose_rarp`).
pub fn reverse_arp(mac: Mac) -> BytesMut {
    const REVERSE_REQUEST: ArpOperation = ArpOperation(3);
    const RARP: EtherType = EtherType(0x8035);
    let arp = ArpEthIpv4Packet {
        operation: REVERSE_REQUEST,
        sender_mac: mac.bytes(),
        sender_ipv4: [0; 4],
        target_mac: mac.bytes(),
        target_ipv4: [0; 4],
    };
    let mut frame = ethernet(Mac::BROADCAST, mac, &[], RARP);
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
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) };
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
    use nix::sys::socket::recv;

    use super::*;
    use crate::sys::{
        netlink::LinkSetting,
        testing::{Elsewhere, in_namespace, link, mac, veth},
    };

    const BOND_MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x10]);
    const C_TAG: VlanTag = VlanTag { ethertype: 0x8100, vid: 5 };
    const S_TAG: VlanTag = VlanTag { ethertype: 0x88a8, vid: 100 };

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
            notified: true,
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
        assert_eq!(reverse_arp(BOND_MAC)[..], hex(expected));
    }

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
            Upper { own_mac: Some(Mac::ZERO), notified: false, ..at(6, above(&[], &["10.6.0.1"])) },
            Upper { own_mac: Some(mac(0x77)), ..at(12, above(&[], &["10.12.0.1"])) },
            Upper { own_mac: Some(mac(0x66)), router: true, ..at(7, above(&[C_TAG], &[])) },
            at(5, above(&[S_TAG, C_TAG], &["10.5.0.1"])),
            Upper { own_mac: Some(mac(0x77)), ..at(11, above(&[S_TAG, C_TAG], &["10.11.0.1"])) },
        ];
        assert_eq!(uppers(3, &links, &addresses), expected);
        assert_eq!(uppers(1000, &links, &addresses), []);
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
            assert_eq!(announced, Announced { uppers: vec![expected], elsewhere: true });
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
