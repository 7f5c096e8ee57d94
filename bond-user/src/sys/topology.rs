//! What lies above a bond in its network namespace.

use super::netlink::{LinkInfo, VlanTag};

/// A device through which the bond is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer<'a> {
    pub link: &'a LinkInfo,
    /// What its frames get on the way to the bond, from the outermost to the innermost; none for the bond.
    pub tags: Vec<VlanTag>,
    /// The driver's NETDEV_NOTIFY_PEERS comes to it: VLANs and macvlans hand it on (`vlan_device_event`,
    /// `macvlan_device_event`), bridges do not. NETDEV_RESEND_IGMP comes to bridges, too (`br_device_event`).
    pub notified: bool,
}

/// Returns the bond and, at any depth, what is above it and up: VLANs, macvlans, ipvlans, and the bridge or other master
/// that one of these is a port of. Those nearer to the bond come first.
pub fn above(bond: u32, links: &[LinkInfo]) -> Vec<Layer<'_>> {
    let Some(bond) = links.iter().find(|link| link.ifindex == bond) else { return Vec::new() };
    let mut layers = vec![Layer { link: bond, tags: Vec::new(), notified: true }];
    let mut below = 0;
    while let Some(Layer { link, tags, notified }) = layers.get(below).cloned() {
        for upper in links.iter().filter(|upper| upper.is_up()) {
            // IFLA_LINK of the other end of a pair is no layer, and that of a moved link counts elsewhere.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::link;

    const C_TAG: VlanTag = VlanTag { ethertype: 0x8100, vid: 5 };
    const S_TAG: VlanTag = VlanTag { ethertype: 0x88a8, vid: 100 };

    #[test]
    fn layers_above_a_bond_are_found_at_any_depth() {
        let of_kind = |ifindex, below, kind: &str| LinkInfo {
            link: Some(below),
            kind: Some(kind.to_owned()),
            ..link(ifindex, &format!("link{ifindex}"))
        };
        let vlan = |ifindex, below, tag| LinkInfo { vlan: Some(tag), ..of_kind(ifindex, below, "vlan") };
        let links = [
            // The inner VLAN comes first: order does not matter.
            vlan(5, 4, C_TAG),
            vlan(4, 3, S_TAG),
            LinkInfo { master: Some(7), ..of_kind(3, 2, "veth") },
            of_kind(2, 3, "veth"),
            of_kind(6, 3, "macvlan"),
            LinkInfo { kind: Some("bridge".into()), ..link(7, "br0") },
            vlan(8, 7, C_TAG),
            of_kind(12, 7, "macvlan"),
            of_kind(13, 6, "ipvlan"),
            LinkInfo { master: Some(15), ..vlan(14, 3, C_TAG) },
            LinkInfo { kind: Some("bridge".into()), ..link(15, "br1") },
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
}
