//! The pair of a bond's clock.

use serde::{Deserialize, Serialize};

use super::{Record, pair};
use crate::{
    store::StoreError,
    sys::{
        Devices, SysError,
        clock::{ClockNames, ClockPair},
        found::Space,
        netlink::LinkInfo,
        ownership::Ownership,
    },
};

/// The two ends of the pair in which the frames of the clock circulate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedClock {
    /// The original names of the ends.
    pub names: ClockNames,
    /// The devices, whatever their current names are; `None` until they are created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<ClockPair>,
}

impl Record {
    /// Returns the pair of the clock; `None` if there is none.
    pub fn clock(&self) -> Option<&RecordedClock> {
        self.clock.as_ref()
    }

    /// Records the pair of the clock: before it is created, then with its devices, and after it was deleted.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn set_clock(&mut self, clock: Option<RecordedClock>) -> Result<(), StoreError> {
        let space = if clock.is_none() { Space::SetAside } else { Space::Free };
        self.change(space, |record| record.clock = clock)
    }
}

impl RecordedClock {
    pub(super) fn is_end(&self, link: &LinkInfo) -> bool {
        match self.ends {
            Some(ends) => link.is_end_of_pair() && [ends.sender, ends.receiver].contains(&link.ifindex),
            None => self.names.sender == link.name || self.names.receiver == link.name,
        }
    }

    /// Returns the sending and the receiving end, as far as they exist in this network namespace.
    ///
    /// # Errors
    /// The kernel does not list the links.
    pub async fn links(&self, devices: &dyn Devices) -> Result<[Option<LinkInfo>; 2], SysError> {
        let ifindexes = self.ends.map(|ends| [ends.sender, ends.receiver]);
        pair::ends(devices, ifindexes, [&self.names.sender, &self.names.receiver]).await
    }

    /// Deletes the pair, if the kernel confirms that it is the bond's. Returns whether it was.
    ///
    /// # Errors
    /// The links cannot be read, or the pair cannot be deleted.
    pub async fn delete(&self, devices: &dyn Devices, proof: &Ownership) -> Result<bool, StoreError> {
        Ok(pair::delete(devices, &self.links(devices).await?, proof).await?)
    }
}
