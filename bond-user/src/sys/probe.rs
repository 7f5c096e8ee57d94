//! Probes of the ARP monitor: their frames, and the devices by which they are sent.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use bond_common::{mac::Mac, path::answer};
use bytes::{BufMut as _, BytesMut};
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, EtherType, Icmpv6Header, Icmpv6Type, IpNumber, Ipv4Header, Ipv6Header,
    UdpHeader,
};

use super::{
    announcer::ethernet,
    netlink::{LinkInfo, VlanTag},
    topology::{Layer, Layers},
};

/// Returns a request from `source`, 0.0.0.0 if there is none, for the target's MAC address (`bond_arp_send`).
pub fn arp_request(mac: Mac, tags: &[VlanTag], source: Ipv4Addr, target: Ipv4Addr) -> BytesMut {
    let arp = ArpEthIpv4Packet {
        operation: ArpOperation::REQUEST,
        sender_mac: mac.bytes(),
        sender_ipv4: source.octets(),
        target_mac: [0; 6],
        target_ipv4: target.octets(),
    };
    let mut frame = ethernet(Mac::BROADCAST, mac, tags, EtherType::ARP);
    frame.put_slice(&arp.to_bytes());
    frame
}

/// Returns an unaffiliated echo (RFC 9747) from an address of ours to the same address, without MAC addresses and with an empty
/// payload. The neighbour that gets it forwards it back.
pub fn echo(tags: &[VlanTag], ours: Ipv4Addr) -> BytesMut {
    let body = answer::echo::END - answer::echo::NONCE;
    let length = (UdpHeader::LEN + body) as u16;
    let mut ip = Ipv4Header { time_to_live: 255, protocol: IpNumber::UDP, ..Ipv4Header::default() };
    (ip.source, ip.destination) = (ours.octets(), ours.octets());
    ip.total_len = Ipv4Header::MIN_LEN_U16 + length;
    ip.header_checksum = ip.calc_header_checksum();
    // A checksum of 0: none. The nonce is not known yet.
    let udp = UdpHeader {
        source_port: answer::ECHO_PORT,
        destination_port: answer::ECHO_PORT,
        length,
        checksum: 0,
    };
    let mut frame = ethernet(Mac::ZERO, Mac::ZERO, tags, EtherType::IPV4);
    frame.put_slice(&ip.to_bytes());
    frame.put_slice(&udp.to_bytes());
    frame.put_bytes(0, body);
    frame
}

/// Returns the request of [`arp_request`] for one station, from the first MAC address to the second.
pub fn unicast_arp_request(
    (from, to): (Mac, Mac),
    tags: &[VlanTag],
    source: Ipv4Addr,
    target: Ipv4Addr,
) -> BytesMut {
    let mut frame = arp_request(from, tags, source, target);
    frame[..6].copy_from_slice(&to.bytes());
    frame
}

/// Returns a neighbour solicitation for one station, to its address, from the first MAC address to the second (RFC 4861, 7.3.3).
pub fn unicast_solicitation(
    (from, to): (Mac, Mac),
    tags: &[VlanTag],
    source: Ipv6Addr,
    target: Ipv6Addr,
) -> BytesMut {
    solicitation((from, to), tags, source, (target, target))
}

/// Returns a neighbour solicitation from `source`, :: if there is none, to the target's group (`bond_ns_send`,
/// `ndisc_ns_create`).
pub fn neighbour_solicitation(mac: Mac, tags: &[VlanTag], source: Ipv6Addr, target: Ipv6Addr) -> BytesMut {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let group_mac = Mac::new([0x33, 0x33, 0xff, a, b, c]);
    solicitation((mac, group_mac), tags, source, (group, target))
}

/// Returns a neighbour solicitation to a destination about a target.
fn solicitation(
    (from, to): (Mac, Mac),
    tags: &[VlanTag],
    source: Ipv6Addr,
    (destination, target): (Ipv6Addr, Ipv6Addr),
) -> BytesMut {
    const SOURCE_LINK_LAYER_ADDRESS: u8 = 1;
    let mut body = BytesMut::with_capacity(24);
    body.put_slice(&target.octets());
    if !source.is_unspecified() {
        // The length of an option is in units of 8 bytes.
        body.put_slice(&[SOURCE_LINK_LAYER_ADDRESS, 1]);
        body.put_slice(&from.bytes());
    }
    let mut icmp = Icmpv6Header::new(Icmpv6Type::NeighborSolicitation);
    // This fails only for payloads of more than 4 GB.
    let _ = icmp.update_checksum(source.octets(), destination.octets(), &body);
    let icmp = icmp.to_bytes();
    let ipv6 = Ipv6Header {
        payload_length: (icmp.len() + body.len()) as u16,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    let mut frame = ethernet(to, from, tags, EtherType::IPV6);
    frame.put_slice(&ipv6.to_bytes());
    frame.put_slice(&icmp);
    frame.put_slice(&body);
    frame
}

/// Returns the devices through which the bond is reached, by ifindex, and the tags that each adds to frames, from the
/// outermost to the innermost: the bond itself, VLANs and macvlans above it at any depth, and the bridge of which it
/// is a port, with the devices above that (`bond_verify_device_path`).
pub fn devices_above(bond: u32, links: &[LinkInfo]) -> HashMap<u32, Vec<VlanTag>> {
    // As the driver, which asks no bridge for its VLANs.
    let vlans = HashMap::new();
    let above = Layers::new(bond, links, &vlans);
    let device = |layer: &Layer<'_>| (layer.link.ifindex, layer.tags.clone().unwrap_or_default());
    above.layers().iter().map(device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{
        netlink::{Address, KernelRoute, ResolvedRoute},
        testing::{bridge, in_namespace, link, upper, veth, vlan},
    };

    const MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0x10]);
    const C_TAG: VlanTag = VlanTag { ethertype: 0x8100, vid: 5 };
    const S_TAG: VlanTag = VlanTag { ethertype: 0x88a8, vid: 100 };

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<char> = text.chars().filter(char::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(&String::from_iter(pair), 16).unwrap()).collect()
    }

    /// The frames that the driver was observed to send: 42 bytes of broadcast ARP, 86 of NS to the target's group.
    #[test]
    fn frames_are_those_of_the_driver() {
        let target = Ipv4Addr::new(10, 0, 0, 254);
        let arp = arp_request(MAC, &[], Ipv4Addr::new(10, 0, 0, 1), target);
        let expected = "ffffffffffff 020000000010 0806
             0001 0800 06 04 0001 020000000010 0a000001 000000000000 0a0000fe";
        assert_eq!((arp.len(), &arp[..]), (42, &hex(expected)[..]));

        let tagged = arp_request(MAC, &[S_TAG, C_TAG], Ipv4Addr::UNSPECIFIED, target);
        assert_eq!(tagged[..22], hex("ffffffffffff 020000000010 88a8 0064 8100 0005 0806"));
        assert_eq!(tagged[22..], hex("0001 0800 06 04 0001 020000000010 00000000 000000000000 0a0000fe"));

        let (source, target) = ("fd00::1".parse().unwrap(), "fd00::254".parse().unwrap());
        let ns = neighbour_solicitation(MAC, &[], source, target);
        let expected = "3333ff000254 020000000010 86dd
             60000000 0020 3a ff fd000000000000000000000000000001 ff0200000000000000000001ff000254
             87 00 78e4 00000000 fd000000000000000000000000000254 01 01 020000000010";
        assert_eq!((ns.len(), &ns[..]), (86, &hex(expected)[..]));

        let unnumbered = neighbour_solicitation(MAC, &[], Ipv6Addr::UNSPECIFIED, target);
        assert_eq!(unnumbered.len(), 78, "without the option");
    }

    #[test]
    fn every_upper_device_of_the_bond_can_route_to_a_target() {
        let links = [
            // The inner VLAN is listed first: the order does not matter.
            vlan(5, 4, C_TAG),
            vlan(4, 3, S_TAG),
            LinkInfo { master: Some(7), ..upper(3, 2, "veth") },
            upper(2, 3, "veth"),
            upper(6, 3, "macvlan"),
            bridge(7, "br0"),
            vlan(8, 7, C_TAG),
            vlan(9, 99, C_TAG),
            LinkInfo { link_netns: Some(1), ..vlan(10, 3, C_TAG) },
            link(11, "eth0"),
        ];
        let expected = [
            (3, vec![]),
            (4, vec![S_TAG]),
            (5, vec![S_TAG, C_TAG]),
            (6, vec![]),
            (7, vec![]),
            (8, vec![C_TAG]),
        ];
        assert_eq!(devices_above(3, &links), HashMap::from(expected));
    }

    #[test]
    fn the_route_to_a_target_is_the_kernels() {
        in_namespace(async |devices| {
            let netlink = &devices.netlink;
            let (near, _far) = veth(&devices, "near0", "far0").await;
            let way = async |target: &str| netlink.route_to(target.parse().unwrap()).await.unwrap();
            assert_eq!((way("10.0.0.254").await, way("fd00::254").await), (None, None));
            for address in ["10.0.0.1", "10.0.0.2"] {
                netlink.add_address(&Address::new(near.ifindex, address.parse().unwrap(), 24)).await.unwrap();
            }
            netlink.set(near.ifindex, crate::sys::netlink::LinkSetting::Up(true)).await.unwrap();
            let by = |source: &str| {
                Some(ResolvedRoute { ifindex: near.ifindex, source: source.parse().ok(), via: None })
            };
            assert_eq!(way("10.0.0.254").await, by("10.0.0.1"));
            assert_eq!(way("10.0.0.1").await, None, "it is this host");
            let mut route = KernelRoute::new(near.ifindex, "192.0.2.0".parse().unwrap(), 24, None);
            route.source = "10.0.0.2".parse().ok();
            netlink.replace_route(&route).await.unwrap();
            assert_eq!(way("192.0.2.7").await, by("10.0.0.2"));
        });
    }
}
