//! The peers of a bond: the stations that have spoken a moment ago, according to the kernel's tables, and the requests by which
//! one is asked whether it is there.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use bond_common::mac::Mac;
use bytes::BytesMut;

use super::{
    announcer::Upper,
    netlink::Neighbour,
    probe::{unicast_arp_request, unicast_solicitation},
};

/// A station that has spoken in this time before a failover is expected after it.
pub const SPOKE_WITHIN: Duration = Duration::from_secs(10);
/// The most requests that are sent after a failover.
pub const ASKED_AT_MOST: usize = 64;

/// A station that has spoken a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Station {
    /// The peer's MAC address.
    pub mac: Mac,
    /// One of its IP addresses, and the ifindex of the device by which the kernel knows it; None if only a bridge knows it.
    pub address: Option<(IpAddr, u32)>,
}

impl std::fmt::Display for Station {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some((ip, _)) => write!(f, "{ip} ({})", self.mac),
            None => write!(f, "{}", self.mac),
        }
    }
}

/// Returns the peers behind these devices, the bond and those above it, in the order of their MAC addresses: neighbours that the
/// kernel has confirmed within [`SPOKE_WITHIN`], and addresses that bridges above the bond have learnt at the bond in this time.
/// Stations that a bridge knows at another port are none.
pub fn expected(neighbours: &[Neighbour], uppers: &[Upper]) -> Vec<Station> {
    let is_upper = |ifindex: u32| uppers.iter().any(|upper| upper.ifindex == ifindex);
    let at_bond = |neighbour: &&Neighbour| is_upper(neighbour.ifindex);
    let learnt = || neighbours.iter().filter(|neighbour| neighbour.address.is_none());
    let elsewhere: HashSet<_> =
        learnt().filter(|entry| !is_upper(entry.ifindex)).map(|entry| entry.mac).collect();
    let own: HashSet<_> = uppers.iter().filter_map(|upper| upper.own_mac).collect();
    let mut peers: BTreeMap<Mac, Option<(IpAddr, u32)>> = BTreeMap::new();
    for entry in neighbours.iter().filter(at_bond) {
        if entry.age <= SPOKE_WITHIN && !elsewhere.contains(&entry.mac) && !own.contains(&entry.mac) {
            peers.entry(entry.mac).or_default();
        }
    }
    // An address that was not confirmed lately serves to ask as well. IPv4 comes first.
    let mut known: Vec<_> = neighbours.iter().filter(at_bond).collect();
    known.sort_by_key(|entry| (entry.address, entry.ifindex));
    for entry in known {
        if let (Some(address), Some(peer)) = (entry.address, peers.get_mut(&entry.mac)) {
            peer.get_or_insert((address, entry.ifindex));
        }
    }
    peers.into_iter().map(|(mac, address)| Station { mac, address }).collect()
}

/// Returns a unicast ARP request or neighbour solicitation for each peer whose IP address is known, at most [`ASKED_AT_MOST`]:
/// from `mac`, or from the own MAC address of the device above the bond.
pub fn requests<'a>(
    peers: impl IntoIterator<Item = &'a Station>,
    uppers: &[Upper],
    mac: Mac,
) -> Vec<BytesMut> {
    let request = |peer: &Station| {
        let (target, ifindex) = peer.address?;
        let upper = uppers.iter().find(|upper| upper.ifindex == ifindex)?;
        let source = source_for(target, &upper.addresses)?;
        let from = upper.own_mac.unwrap_or(mac);
        match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => {
                Some(unicast_arp_request((from, peer.mac), &upper.tags, source, target))
            }
            (IpAddr::V6(source), IpAddr::V6(target)) => {
                Some(unicast_solicitation((from, peer.mac), &upper.tags, source, target))
            }
            _ => None,
        }
    };
    peers.into_iter().filter_map(request).take(ASKED_AT_MOST).collect()
}

/// Returns the address that has the longest prefix in common with the target: that of the target's subnet.
fn source_for(target: IpAddr, addresses: &[IpAddr]) -> Option<IpAddr> {
    let of_family = addresses.iter().filter(|address| address.is_ipv4() == target.is_ipv4());
    of_family.copied().max_by_key(|address| common_bits(*address, target))
}

fn common_bits(one: IpAddr, other: IpAddr) -> u32 {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::mac;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn entry(ifindex: u32, last: u8, address: &str, seconds: u64) -> Neighbour {
        let address = (!address.is_empty()).then(|| ip(address));
        Neighbour { ifindex, mac: mac(last), address, age: Duration::from_secs(seconds) }
    }

    fn upper(ifindex: u32, own_mac: Option<Mac>, addresses: &[&str]) -> Upper {
        Upper {
            ifindex,
            tags: Vec::new(),
            own_mac,
            router: false,
            is_connected: true,
            is_reached: true,
            addresses: addresses.iter().map(|address| ip(address)).collect(),
        }
    }

    #[test]
    fn peers_are_those_that_spoke_lately_at_the_bond() {
        let uppers = [upper(3, None, &["10.0.0.1"]), upper(7, Some(mac(70)), &["10.1.0.1"])];
        let neighbours = [
            entry(3, 1, "10.0.0.11", 2),
            entry(3, 1, "fd00::11", 2),
            entry(3, 2, "10.0.0.12", 11),
            entry(4, 3, "10.9.0.13", 1),
            // Bridge ifindex 7, of which the bond (3) and a guest's tap (9) are ports.
            entry(7, 4, "10.1.0.14", 500),
            entry(3, 4, "", 1),
            entry(7, 5, "10.1.0.15", 1),
            entry(9, 5, "", 1),
            entry(3, 6, "", 5),
            entry(3, 70, "10.1.0.1", 1),
        ];
        let found: Vec<_> = expected(&neighbours, &uppers).iter().map(ToString::to_string).collect();
        let of = |address: &str, last: u8| format!("{address} ({})", mac(last));
        assert_eq!(found, [of("10.0.0.11", 1), of("10.1.0.14", 4), mac(6).to_string()]);
        assert_eq!(expected(&neighbours, &[]), []);
    }

    #[test]
    fn a_peer_is_asked_from_the_address_of_its_subnet() {
        let uppers = [
            upper(3, None, &["10.0.0.1", "10.0.1.1", "fe80::1", "fd00::1"]),
            upper(7, Some(mac(70)), &["10.1.0.1"]),
        ];
        let peer = |last, address, ifindex| Station { mac: mac(last), address: Some((ip(address), ifindex)) };
        let peers = [
            peer(1, "10.0.1.11", 3),
            peer(2, "fd00::12", 3),
            peer(3, "10.1.0.13", 7),
            Station { mac: mac(4), address: None },
            peer(5, "10.1.0.15", 8),
        ];
        let frames = requests(&peers, &uppers, mac(99));
        assert_eq!(frames.len(), 3);
        for (frame, (to, from)) in frames.iter().zip([(1, 99), (2, 99), (3, 70)]) {
            assert_eq!((&frame[..6], &frame[6..12]), (&mac(to).bytes()[..], &mac(from).bytes()[..]));
        }
        // The sender's IP address of ARP, the source and destination of IPv6.
        assert_eq!((&frames[0][28..32], &frames[0][38..42]), (&[10, 0, 1, 1][..], &[10, 0, 1, 11][..]));
        assert_eq!(frames[1][22..38], "fd00::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(frames[1][38..54], "fd00::12".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let many: Vec<_> = (0..100).map(|last| peer(last, "10.0.0.9", 3)).collect();
        assert_eq!(requests(&many, &uppers, mac(99)).len(), ASKED_AT_MOST);
    }
}
