//! The devices that were created for a bond.

use bond_core::name::{BondName, InterfaceName};
use serde::{Deserialize, Serialize};

use crate::sys::{Devices, SysError, found::Found, netlink::LinkInfo, ownership::Ownership};

/// How a bond is created, without its slaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Created for it; otherwise `port` is set.
    pub pair: Option<RecordedPair>,
    /// The original state of an existing port.
    pub port: Option<Found>,
    /// The name of the datapath.
    pub datapath: String,
    /// The number of transmit queues that may choose a slave.
    pub queues: u16,
}

/// The two ends that were created for a bond, by their original names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPair {
    /// The bond, whose name bond0 has.
    pub bond: BondName,
    /// The name of the port.
    pub port: InterfaceName,
    /// The devices, whatever their current names are; `None` until they are created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Ends>,
}

/// ifindex of bond0 and of its port. An end that was moved to another network namespace may return with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    /// ifindex of bond0.
    pub bond: u32,
    /// ifindex of the port.
    pub port: u32,
}

impl RecordedPair {
    /// Returns a pair that does not exist yet.
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

/// Returns the two ends of a pair, as far as they exist in this network namespace: by their ifindexes, or by their names if the
/// pair was just created, and only those are known.
pub(super) async fn ends(
    devices: &dyn Devices,
    ifindexes: Option<[u32; 2]>,
    names: [&str; 2],
) -> Result<[Option<LinkInfo>; 2], SysError> {
    let there = |answer: Result<LinkInfo, SysError>| match answer {
        Ok(link) => Ok(Some(link).filter(LinkInfo::is_end_of_pair)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    };
    let [one, other] = match ifindexes {
        Some([one, other]) => [devices.link_by_index(one).await, devices.link_by_index(other).await],
        None => [devices.link_by_name(names[0]).await, devices.link_by_name(names[1]).await],
    };
    Ok([there(one)?, there(other)?])
}

/// Deletes a pair, if the kernel confirms that it is the bond's. Returns whether it was.
pub(super) async fn delete(
    devices: &dyn Devices,
    [one, other]: &[Option<LinkInfo>; 2],
    proof: &Ownership,
) -> Result<bool, SysError> {
    for (end, far) in [(one, other), (other, one)] {
        if let Some(end) = end.as_ref().filter(|end| proof.holds_of_pair(end, far.as_ref())) {
            devices.delete(end.ifindex).await?;
            return Ok(true);
        }
    }
    Ok(false)
}
