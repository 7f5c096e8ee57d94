//! What bridges and other devices hold on MAC addresses and VLANs.

use std::{collections::HashMap, time::Duration};

use bond_common::mac::Mac;
use netlink_packet_route::{
    AddressFamily,
    link::{AfSpecBridge, BridgeVlanInfo, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage},
    neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState},
};

use super::{Netlink, Raw, link, neighbour::CLOCK_TICK, reading};
use crate::sys::SysError;

/// The forwarding tables of this network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// The entries of all bridges.
    pub entries: Vec<FdbEntry>,
    /// Of bridges with vlan_filtering: the VLANs of each port, and of the bridge itself, by ifindex.
    pub vlans: HashMap<u32, Vec<PortVlan>>,
}

/// A MAC address in a forwarding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FdbEntry {
    /// The address.
    pub mac: Mac,
    /// The port behind which it is, or the device that receives it.
    pub ifindex: u32,
    /// The VLAN in the bridge, if that distinguishes VLANs.
    pub vid: Option<u16>,
    /// Where frames to the address leave.
    pub of: FdbOwner,
}

/// The table that an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdbOwner {
    /// The device's own: it receives this MAC address in addition to its own (`dev_uc_add`).
    Device,
    /// A bridge's, which it was not learned from frames: it is static, or of the bridge itself (local).
    Bridge,
    /// A bridge's, which has learned it from a frame.
    Learned {
        /// Since it sent last.
        age: Duration,
    },
}

/// A VLAN of a bridge port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortVlan {
    /// The VLAN identifier.
    pub vid: u16,
    /// Frames that come without a tag belong to it.
    pub pvid: bool,
    /// Frames leave without a tag.
    pub untagged: bool,
}

impl Netlink {
    /// Reads the forwarding tables, and the VLANs of bridges.
    ///
    /// # Errors
    /// The kernel refuses one of the requests.
    pub async fn forwarding(&self) -> Result<Forwarding, SysError> {
        let mut request = NeighbourMessage::default();
        request.header.family = AddressFamily::Bridge;
        let entries = self.neighbours(request, "the forwarding tables").await?;
        let entries = entries.iter().filter_map(entry).collect();
        let mut request = LinkMessage::default();
        request.header.interface_family = AddressFamily::Bridge;
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::BrvlanCompressed]));
        let each = |vlans: &mut HashMap<_, _>, raw: Raw| {
            if let Some((message, _)) = link::parse(&raw.body) {
                vlans.insert(message.header.index, port_vlans(&message));
            }
        };
        let vlans = self.dump_raw(&reading(&request), "the VLANs of bridges", HashMap::new, each).await?;
        Ok(Forwarding { entries, vlans })
    }
}

/// Returns an entry; None for groups, and for a learned entry that has expired.
fn entry(message: &NeighbourMessage) -> Option<FdbEntry> {
    let header = &message.header;
    let mut found = FdbEntry { mac: Mac::ZERO, ifindex: header.ifindex, vid: None, of: FdbOwner::Bridge };
    if header.flags.contains(NeighbourFlags::Own) {
        found.of = FdbOwner::Device;
    } else if header.state == NeighbourState::Reachable {
        found.of = FdbOwner::Learned { age: Duration::ZERO };
    } else if !matches!(header.state, NeighbourState::Permanent | NeighbourState::Noarp) {
        return None;
    }
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => found.mac = link::ethernet_mac(bytes)?,
            NeighbourAttribute::Vlan(vid) => found.vid = Some(*vid),
            NeighbourAttribute::CacheInfo(times) => {
                if let FdbOwner::Learned { age } = &mut found.of {
                    *age = CLOCK_TICK * times.updated;
                }
            }
            _ => {}
        }
    }
    found.mac.is_unicast().then_some(found)
}

fn port_vlans(message: &LinkMessage) -> Vec<PortVlan> {
    let mut vlans = Vec::new();
    let mut first = None;
    let infos = message.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(parts) => Some(parts),
        _ => None,
    });
    for part in infos.flatten() {
        let AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid }) = *part else { continue };
        if flags.contains(BridgeVlanInfoFlags::RangeBegin) {
            first = Some(vid);
            continue;
        }
        let has = |flag| flags.contains(flag);
        let (pvid, untagged) = (has(BridgeVlanInfoFlags::Pvid), has(BridgeVlanInfoFlags::Untagged));
        let range = first.take().unwrap_or(vid)..=vid;
        vlans.extend(range.map(|vid| PortVlan { vid, pvid, untagged }));
    }
    vlans
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::neighbour::NeighbourCacheInfo;

    use super::*;

    #[test]
    fn vlans_of_a_port_are_read_with_their_ranges() {
        let info = |vid, flags: BridgeVlanInfoFlags| AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid });
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::AfSpecBridge(vec![
            info(1, BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged),
            info(10, BridgeVlanInfoFlags::RangeBegin),
            info(12, BridgeVlanInfoFlags::RangeEnd),
        ]));
        let tagged = |vid| PortVlan { vid, pvid: false, untagged: false };
        let expected = [PortVlan { vid: 1, pvid: true, untagged: true }, tagged(10), tagged(11), tagged(12)];
        assert_eq!(port_vlans(&message), expected);
    }

    #[test]
    fn expired_entries_and_groups_are_left_out() {
        let of = |mac: [u8; 6], state, flags| {
            let mut message = NeighbourMessage::default();
            message.header.ifindex = 7;
            (message.header.state, message.header.flags) = (state, flags);
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
            message.attributes.push(NeighbourAttribute::Vlan(5));
            // ndm_confirmed, ndm_used, ndm_updated, ndm_refcnt
            let times: Vec<u8> = [0_u32, 0, 250, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
            let times = NeighbourCacheInfo::parse(&times).unwrap();
            message.attributes.push(NeighbourAttribute::CacheInfo(times));
            entry(&message).map(|entry| (entry.vid, entry.of))
        };
        let (mac, group) = ([2, 0, 0, 0, 0, 9], [0x33, 0x33, 0, 0, 0, 1]);
        let (own, master) = (NeighbourFlags::Own, NeighbourFlags::Controller);
        assert_eq!(of(mac, NeighbourState::Permanent, own), Some((Some(5), FdbOwner::Device)));
        assert_eq!(of(mac, NeighbourState::Noarp, master), Some((Some(5), FdbOwner::Bridge)));
        let learned = FdbOwner::Learned { age: Duration::from_millis(2_500) };
        assert_eq!(of(mac, NeighbourState::Reachable, master), Some((Some(5), learned)));
        assert_eq!(of(mac, NeighbourState::Stale, master), None);
        assert_eq!(of(group, NeighbourState::Permanent, own), None);
    }
}
