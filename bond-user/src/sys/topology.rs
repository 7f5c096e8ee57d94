//! The devices above a bond in its network namespace.

use std::collections::{HashMap, HashSet};

use super::netlink::{LinkInfo, PortVlan, VlanTag};

/// A device through which the bond is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer<'a> {
    /// The device.
    pub link: &'a LinkInfo,
    /// The place in [`Layers::layers`] of the layer below; the bond has its own.
    below: usize,
    /// The tags that its frames have on the wire, from the outermost to the innermost; None if a bridge passes none of its
    /// frames to the bond.
    pub tags: Option<Vec<VlanTag>>,
    /// Whether neighbours on the wire reach its addresses: nothing but VLANs, macvlans, ipvlans and bridges is below.
    /// Another master (a VRF, a team) has addresses and tables of its own kind.
    pub is_reached: bool,
}

/// The bond and, at any depth, the devices above it that are up: VLANs, macvlans, ipvlans, and the bridge or other master of
/// which one of these is a port.
#[derive(Debug)]
pub struct Layers<'a> {
    layers: Vec<Layer<'a>>,
    vlans: &'a HashMap<u32, Vec<PortVlan>>,
}

impl<'a> Layers<'a> {
    /// Finds the layers among all links of a network namespace. `vlans` are those of bridges with vlan_filtering; of a bridge
    /// that is missing there, frames keep their tags.
    pub fn new(bond: u32, links: &'a [LinkInfo], vlans: &'a HashMap<u32, Vec<PortVlan>>) -> Self {
        let mut above = Self { layers: Vec::new(), vlans };
        let Some(bond) = links.iter().find(|link| link.ifindex == bond) else { return above };
        above.layers.push(Layer { link: bond, below: 0, tags: Some(Vec::new()), is_reached: true });
        let mut below = 0;
        while let Some(&Layer { link, is_reached, .. }) = above.layers.get(below) {
            for upper in links.iter().filter(|upper| upper.is_up()) {
                // The other end of a pair is no layer, and IFLA_LINK of a moved link belongs to another namespace.
                let stacked =
                    upper.link == Some(link.ifindex) && upper.link_netns.is_none() && upper.is_stacked();
                let is_known = above.layers.iter().any(|layer| layer.link.ifindex == upper.ifindex);
                if is_known || !stacked && link.master != Some(upper.ifindex) {
                    continue;
                }
                let is_reached = is_reached && (stacked || upper.is_bridge());
                above.layers.push(Layer { link: upper, below, tags: None, is_reached });
                let place = above.layers.len() - 1;
                let tags = above.tags_of(place, Vec::new());
                if let Some(layer) = above.layers.get_mut(place) {
                    layer.tags = tags;
                }
            }
            below += 1;
        }
        above
    }

    /// Returns the layers, those nearer to the bond first.
    pub fn layers(&self) -> &[Layer<'a>] {
        &self.layers
    }

    /// Returns the tags on the wire of a frame that the layer at `place` sends with the tags `inner`; None if it does not
    /// reach the bond.
    fn tags_of(&self, place: usize, mut inner: Vec<VlanTag>) -> Option<Vec<VlanTag>> {
        let mut layer = self.layers.get(place)?;
        // The bond, at place 0, adds nothing.
        while let Some(below) = self.layers.get(layer.below).filter(|below| below.link != layer.link) {
            if let Some(tag) = layer.link.vlan {
                inner.insert(0, tag);
            } else if layer.link.is_bridge() {
                inner = self.leaves_bridge(layer.link, below.link, inner)?;
            }
            layer = below;
        }
        Some(inner)
    }

    /// Returns the tags on the wire of a frame in a VLAN of the bridge at `place`; None if it does not reach the bond. A
    /// bridge that does not distinguish VLANs has one.
    pub fn tags_in_bridge(&self, place: usize, vid: Option<u16>) -> Option<Vec<VlanTag>> {
        let bridge = self.layers.get(place)?;
        let port = self.layers.get(bridge.below)?;
        let inner = match (bridge.link.filters_vlans, vid) {
            (None, _) => Vec::new(),
            (Some(tpid), Some(vid)) => self.leaves_port(port.link, VlanTag { ethertype: tpid, vid })?,
            // An entry of each VLAN is listed, too.
            (Some(_), None) => return None,
        };
        self.tags_of(bridge.below, inner)
    }

    /// Returns the tags with which a frame that a bridge device sends leaves by a port (`br_dev_xmit`, `br_allowed_ingress`,
    /// `br_handle_vlan`).
    fn leaves_bridge(&self, bridge: &LinkInfo, port: &LinkInfo, inner: Vec<VlanTag>) -> Option<Vec<VlanTag>> {
        let (Some(tpid), Some(own)) = (bridge.filters_vlans, self.vlans.get(&bridge.ifindex)) else {
            return Some(inner);
        };
        let (vid, rest) = match inner.split_first() {
            Some((tag, rest)) if tag.ethertype == tpid && tag.vid != 0 => (tag.vid, rest.to_vec()),
            _ => (own.iter().find(|vlan| vlan.pvid)?.vid, inner),
        };
        own.iter().find(|vlan| vlan.vid == vid)?;
        let mut tags = self.leaves_port(port, VlanTag { ethertype: tpid, vid })?;
        tags.extend(rest);
        Some(tags)
    }

    /// Returns the tag that a frame of a VLAN has behind a port; None if the port is not in the VLAN.
    fn leaves_port(&self, port: &LinkInfo, tag: VlanTag) -> Option<Vec<VlanTag>> {
        let of_port = self.vlans.get(&port.ifindex)?.iter().find(|vlan| vlan.vid == tag.vid)?;
        Some(if of_port.untagged { Vec::new() } else { vec![tag] })
    }

    /// Returns the ifindex of the port by which the bridge at `place` reaches the bond.
    pub fn port_of(&self, place: usize) -> Option<u32> {
        let bridge = self.layers.get(place)?;
        Some(self.layers.get(bridge.below)?.link.ifindex)
    }
}

/// Whether a walk follows frames through pairs (veth, netkit), as through a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// The layers above one end of a pair include those above the other.
    Followed,
    /// Pairs are not followed.
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
            bridge(7, "br0"),
            vlan(8, 7, C_TAG),
            upper(12, 7, "macvlan"),
            upper(13, 6, "ipvlan"),
            LinkInfo { master: Some(15), ..vlan(14, 3, C_TAG) },
            bridge(15, "br1"),
            LinkInfo { master: Some(16), ..upper(6, 3, "macvlan") },
            LinkInfo { kind: Some("vrf".to_owned()), ..link(16, "vrf0") },
            vlan(9, 99, C_TAG),
            LinkInfo { link_netns: Some(1), ..vlan(10, 3, C_TAG) },
            link(11, "eth0"),
        ];
        let vlans = HashMap::new();
        let found = Layers::new(3, &links, &vlans);
        let found = found.layers().iter();
        let found: Vec<_> =
            found.map(|layer| (layer.link.ifindex, layer.tags.clone().unwrap(), layer.is_reached)).collect();
        let expected = [
            (3, vec![], true),
            (4, vec![S_TAG], true),
            (7, vec![], true),
            (14, vec![C_TAG], true),
            (6, vec![], true),
            (5, vec![S_TAG, C_TAG], true),
            (8, vec![C_TAG], true),
            (12, vec![], true),
            (15, vec![C_TAG], true),
            (13, vec![], true),
            (16, vec![], false),
        ];
        assert_eq!(found, expected);
        assert_eq!(Layers::new(1000, &links, &vlans).layers(), []);
    }

    /// A bridge br0 with vlan_filtering above bond0, with VLANs and a macvlan above it, and the same above a VLAN of bond0.
    #[test]
    fn a_bridge_that_filters_vlans_decides_which_tags_its_frames_have() {
        let filtering = |ifindex, name| LinkInfo { filters_vlans: Some(0x8100), ..bridge(ifindex, name) };
        let tag = |vid| VlanTag { ethertype: 0x8100, vid };
        let links = [
            LinkInfo { master: Some(7), ..upper(3, 2, "veth") },
            filtering(7, "br0"),
            vlan(8, 7, tag(10)),
            vlan(9, 7, tag(20)),
            vlan(10, 7, tag(30)),
            vlan(11, 7, tag(40)),
            upper(12, 7, "macvlan"),
            vlan(13, 8, tag(99)),
            vlan(14, 7, S_TAG),
        ];
        let member = |vid, pvid, untagged| PortVlan { vid, pvid, untagged };
        let tagged = |vid| member(vid, false, false);
        let bridge = vec![member(5, true, true), tagged(10), tagged(20), tagged(30)];
        let port = vec![member(10, true, true), tagged(5), tagged(20), tagged(40), tagged(50)];
        let vlans = HashMap::from([(7, bridge), (3, port)]);
        let above = Layers::new(3, &links, &vlans);
        let of = |ifindex| above.layers().iter().find(|layer| layer.link.ifindex == ifindex).unwrap();
        for (ifindex, expected) in [
            (7, Some(vec![tag(5)])),
            (8, Some(vec![])),
            (9, Some(vec![tag(20)])),
            // The port is not in VLAN 30, nor the bridge itself in VLAN 40.
            (10, None),
            (11, None),
            (12, Some(vec![tag(5)])),
            (13, Some(vec![tag(99)])),
            // Not a tag for the bridge.
            (14, Some(vec![tag(5), S_TAG])),
        ] {
            assert_eq!(of(ifindex).tags, expected, "{ifindex}");
        }
        assert_eq!(above.tags_in_bridge(1, Some(50)), Some(vec![tag(50)]));
        assert_eq!(above.tags_in_bridge(1, Some(10)), Some(vec![]));
        assert_eq!(above.tags_in_bridge(1, Some(30)), None);
        assert_eq!(above.tags_in_bridge(1, None), None);
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
