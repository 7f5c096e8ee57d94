//! Ports of bridges: while two ports of one bridge lead to the same network, only one of them may forward.

use serde::{Deserialize, Serialize};

use super::link::{LinkRequest, RawLink};
use crate::sys::netlink::{
    Raw, message,
    numbers::{IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, RTM_NEWLINK},
};

/// IFLA_BRPORT_*
const PRIORITY: u16 = 2;
const COST: u16 = 3;
const HAIRPIN: u16 = 4;
const GUARD: u16 = 5;
const PROTECT: u16 = 6;
const FAST_LEAVE: u16 = 7;
const LEARNING: u16 = 8;
const UNICAST_FLOOD: u16 = 9;
const PROXYARP: u16 = 10;
const PROXYARP_WIFI: u16 = 12;
const FLUSH: u16 = 24;
const MULTICAST_ROUTER: u16 = 25;
const MCAST_FLOOD: u16 = 27;
const MCAST_TO_UCAST: u16 = 28;
const VLAN_TUNNEL: u16 = 29;
const BCAST_FLOOD: u16 = 30;
const GROUP_FWD_MASK: u16 = 31;
const NEIGH_SUPPRESS: u16 = 32;
const ISOLATED: u16 = 33;
const LOCKED: u16 = 39;

/// Settings that one port has from another one. The others are the port's state, or fit no other port.
const COPIED: [u16; 19] = [
    PRIORITY,
    COST,
    HAIRPIN,
    GUARD,
    PROTECT,
    FAST_LEAVE,
    LEARNING,
    UNICAST_FLOOD,
    PROXYARP,
    PROXYARP_WIFI,
    MULTICAST_ROUTER,
    MCAST_FLOOD,
    MCAST_TO_UCAST,
    VLAN_TUNNEL,
    BCAST_FLOOD,
    GROUP_FWD_MASK,
    NEIGH_SUPPRESS,
    ISOLATED,
    LOCKED,
];

/// Which frames a port sends although the bridge does not know that their receiver is there.
const FLOODS: [u16; 3] = [UNICAST_FLOOD, MCAST_FLOOD, BCAST_FLOOD];

/// The settings of a port, as the bridge has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgePort {
    /// ifindex of the bridge.
    pub bridge: u32,
    /// Numbers and values of the settings.
    settings: Vec<(u16, Vec<u8>)>,
}

/// What a port does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortPhase {
    /// It receives, and exchanges nothing with the other port. It sends and learns as it was set.
    Leading,
    /// It receives only.
    Silent,
    /// It receives and sends, and does not learn yet: its own frames may still come back by the other port.
    Taking,
    /// As it was set.
    Alone,
}

impl BridgePort {
    /// Returns the settings of a port; None of a device that is none.
    pub fn of(link: &RawLink) -> Option<Self> {
        let bridge = link.info.master.filter(|_| link.info.master_kind.as_deref() == Some("bridge"))?;
        let data = link.port_data().unwrap_or_default();
        let kept = message::nested(data).filter(|(kind, _)| COPIED.contains(kind));
        Some(Self { bridge, settings: kept.map(|(kind, value)| (kind, value.to_vec())).collect() })
    }

    /// Returns whether it exchanges nothing with other isolated ports.
    pub fn is_isolated(&self) -> bool {
        self.setting(ISOLATED).is_some_and(|value| value != [0])
    }

    fn setting(&self, wanted: u16) -> Option<&[u8]> {
        self.settings.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| &**value)
    }

    /// Returns the request by which a port has these settings, but for what its phase demands.
    pub(super) fn request(&self, ifindex: u32, phase: PortPhase) -> Raw {
        let mut data = Vec::new();
        for (kind, value) in &self.settings {
            let forced: Option<u8> = match (phase, *kind) {
                (PortPhase::Alone, _) => None,
                (_, ISOLATED) => Some(1),
                (PortPhase::Silent | PortPhase::Taking, LEARNING) => Some(0),
                (PortPhase::Silent, kind) if FLOODS.contains(&kind) => Some(0),
                _ => None,
            };
            match forced {
                Some(byte) => message::append(&mut data, *kind, &[byte]),
                None => message::append(&mut data, *kind, value),
            }
        }
        port_request(ifindex, &data)
    }
}

/// Returns the request that makes a bridge forget what it learned at a port.
pub(super) fn flush(ifindex: u32) -> Raw {
    let mut data = Vec::new();
    message::append(&mut data, FLUSH, &[]);
    port_request(ifindex, &data)
}

fn port_request(ifindex: u32, data: &[u8]) -> Raw {
    let parts = (IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA);
    LinkRequest::new(RTM_NEWLINK, ifindex).of_kind(parts, "bridge", data).raw()
}
