//! The devices above a bond in its network namespace.

use std::collections::{HashMap, HashSet};

use super::netlink::{LinkInfo, VlanTag};

/// A device through which the bond is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer<'a> {
    pub link: &'a LinkInfo,
    /// The tags that its frames get on the way to the bond, from the outermost to the innermost; none for the bond.
    pub tags: Vec<VlanTag>,
    /// Whether the driver's NETDEV_NOTIFY_PEERS reaches it: VLANs and macvlans forward it (`vlan_device_event`,
    /// `macvlan_device_event`), bridges do not. NETDEV_RESEND_IGMP reaches bridges, too (`br_device_event`).
    pub notified: bool,
}

/// Returns the bond and, at any depth, the devices above it that are up: VLANs, macvlans, ipvlans, and the bridge or
/// other master of which one of these is a port. Devices nearer to the bond come first.
pub fn above(bond: u32, links: &[LinkInfo]) -> Vec<Layer<'_>> {
    let Some(bond) = links.iter().find(|link| link.ifindex == bond) else { return Vec::new() };
    let mut layers = vec![Layer { link: bond, tags: Vec::new(), notified: true }];
    let mut below = 0;
    while let Some(Layer { link, tags, notified }) = layers.get(below).cloned() {
        for upper in links.iter().filter(|upper| upper.is_up()) {
            // The other end of a pair is no layer, and IFLA_LINK of a moved link belongs to another namespace.
            let stacked =
                upper.link == Some(link.ifindex) && upper.link_netns.is_none() && upper.is_stacked();
            let is_known = layers.iter().any(|layer| layer.link.ifindex == upper.ifindex);
            if is_known || !stacked && link.master != Some(upper.ifindex) {
                continue;
            }
            let tags = tags.iter().copied().chain(upper.vlan).collect();
            let notified = notified && stacked && (upper.vlan.is_some() || upper.is_macvlan());
            layers.push(Layer { link: upper, tags, notified });
        }
        below += 1;
    }
    layers
}

/// Whether a walk follows frames through pairs (veth, netkit), as through a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    Followed,
    Ignored,
}

/// Returns the devices by which a frame that `from` sends may leave, `from` first: the device below a VLAN or another
/// stacked device, the ports of a bridge or another master, and the bridge ports at the other end of a pair. Devices
/// that are down are included: they may come up later.
pub fn sends_by(from: u32, links: &[LinkInfo], pairs: Pairs) -> Vec<&LinkInfo> {
    let by_index: HashMap<_, _> = links.iter().map(|link| (link.ifindex, link)).collect();
    let ports_of = |master: u32| links.iter().filter(move |link| link.master == Some(master));
    // IFLA_LINK of a moved link belongs to another namespace.
    let below = |link: &LinkInfo| link.link.filter(|_| link.link_netns.is_none());
    let above = |lower: u32| {
        let is_above = move |link: &&LinkInfo| below(link) == Some(lower) && !link.is_end_of_pair();
        links.iter().filter(is_above)
    };
    let (mut senders, mut receivers) = (vec![from], Vec::new());
    let (mut sent, mut received) = (Vec::new(), HashSet::new());
    loop {
        if let Some(ifindex) = senders.pop() {
            let Some(&link) = by_index.get(&ifindex) else { continue };
            if sent.iter().any(|sent: &&LinkInfo| sent.ifindex == ifindex) {
                continue;
            }
            sent.push(link);
            senders.extend(ports_of(ifindex).map(|port| port.ifindex));
            match below(link) {
                Some(other) if !link.is_end_of_pair() => senders.push(other),
                Some(other) if pairs == Pairs::Followed => receivers.push(other),
                _ => {}
            }
        } else if let Some(ifindex) = receivers.pop() {
            if received.insert(ifindex) {
                receivers.extend(above(ifindex).map(|upper| upper.ifindex));
                let master = by_index.get(&ifindex).and_then(|link| link.master);
                receivers.extend(master);
                let ports = master.into_iter().flat_map(ports_of).filter(|port| port.ifindex != ifindex);
                senders.extend(ports.map(|port| port.ifindex));
            }
        } else {
            return sent;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{bridge, link, upper, vlan};

    const C_TAG: VlanTag = VlanTag { ethertype: 0x8100, vid: 5 };
    const S_TAG: VlanTag = VlanTag { ethertype: 0x88a8, vid: 100 };

    #[test]
    fn layers_above_a_bond_are_found_at_any_depth() {
        let links = [
            // The inner VLAN is listed first: the order does not matter.
            vlan(5, 4, C_TAG),
            vlan(4, 3, S_TAG),
            LinkInfo { master: Some(7), ..upper(3, 2, "veth") },
            upper(2, 3, "veth"),
            upper(6, 3, "macvlan"),
            bridge(7, "br0"),
            vlan(8, 7, C_TAG),
            upper(12, 7, "macvlan"),
            upper(13, 6, "ipvlan"),
            LinkInfo { master: Some(15), ..vlan(14, 3, C_TAG) },
            bridge(15, "br1"),
            vlan(9, 99, C_TAG),
            LinkInfo { link_netns: Some(1), ..vlan(10, 3, C_TAG) },
            link(11, "eth0"),
        ];
        let found = above(3, &links);
        let found: Vec<_> =
            found.iter().map(|layer| (layer.link.ifindex, layer.tags.clone(), layer.notified)).collect();
        let expected = [
            (3, vec![], true),
            (4, vec![S_TAG], true),
            (6, vec![], true),
            (7, vec![], false),
            (14, vec![C_TAG], true),
            (5, vec![S_TAG, C_TAG], true),
            (13, vec![], false),
            (8, vec![C_TAG], false),
            (12, vec![], false),
            (15, vec![C_TAG], false),
        ];
        assert_eq!(found, expected);
        assert_eq!(above(1000, &links), []);
    }

    #[test]
    fn frames_leave_by_what_a_device_lies_above_and_by_what_it_is_cabled_to() {
        let above = |ifindex, below| LinkInfo {
            link: Some(below),
            kind: Some("vlan".to_owned()),
            vlan: Some(C_TAG),
            ..link(ifindex, &format!("link{ifindex}"))
        };
        let port = |ifindex, master| LinkInfo { master: Some(master), ..link(ifindex, "port") };
        let pair = |ifindex, other, master| LinkInfo {
            link: Some(other),
            kind: Some("veth".to_owned()),
            master,
            ..link(ifindex, "veth")
        };
        let links = [
            // bond0, in the bridge 10 with 12, which has 13 as its other end; a VLAN of the bridge.
            port(3, 10),
            link(10, "br0"),
            pair(12, 13, Some(10)),
            pair(13, 12, None),
            above(20, 10),
            // A VLAN of bond0 in the bridge 30, with 32; its other end 33 is in the bridge 40, with 42 and 43.
            LinkInfo { master: Some(30), ..above(21, 3) },
            link(30, "br1"),
            pair(32, 33, Some(30)),
            pair(33, 32, Some(40)),
            link(40, "br2"),
            pair(42, 43, Some(40)),
            pair(43, 42, None),
            // In another namespace, and alone.
            LinkInfo { link_netns: Some(1), ..above(50, 3) },
            pair(60, 61, None),
            pair(61, 60, None),
        ];
        let meets_bond = |from, pairs| sends_by(from, &links, pairs).iter().any(|link| link.ifindex == 3);
        for (from, ignored, followed) in [
            (3, true, true),
            (10, true, true),
            (20, true, true),
            (21, true, true),
            (30, true, true),
            (12, false, false),
            (13, false, true),
            (43, false, true),
            (50, false, false),
            (60, false, false),
            (99, false, false),
        ] {
            let found = [Pairs::Ignored, Pairs::Followed].map(|pairs| meets_bond(from, pairs));
            assert_eq!(found, [ignored, followed], "{from}");
        }
    }
}
