//! The devices that were created for a bond.

use bond_core::name::{BondName, InterfaceName};
use serde::{Deserialize, Serialize};

use crate::sys::{found::Found, netlink::LinkInfo};

/// How a bond is created, without its slaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Created for it; otherwise `port` is set.
    pub pair: Option<RecordedPair>,
    pub port: Option<Found>,
    pub datapath: String,
    pub queues: u16,
}

/// The two ends that were created for a bond, by their original names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPair {
    pub bond: BondName,
    pub port: InterfaceName,
    /// The devices, whatever their current names are; `None` until they are created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Ends>,
}

/// ifindex of bond0 and of its port. An end that was moved to another network namespace may return with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    pub bond: u32,
    pub port: u32,
}

impl RecordedPair {
    pub fn new(bond: BondName, port: InterfaceName) -> Self {
        Self { bond, port, ends: None }
    }

    pub(super) fn is_port(&self, link: &LinkInfo) -> bool {
        match self.ends {
            Some(ends) => link.ifindex == ends.port && link.is_end_of_pair(),
            None => self.port == link.name,
        }
    }

    /// Returns whether this is bond0.
    pub fn is_bond(&self, link: &LinkInfo) -> bool {
        match self.ends {
            Some(ends) => {
                let is_opposite = link.link == Some(ends.port) && link.link_netns.is_none();
                link.is_end_of_pair() && (link.ifindex == ends.bond || is_opposite)
            }
            None => self.bond == link.name,
        }
    }
}
