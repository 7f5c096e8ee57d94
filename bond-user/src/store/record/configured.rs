//! The settings of a configuration on bond0.

use serde::{Deserialize, Serialize};

use crate::sys::netlink::{Address, KernelRoute};

/// The settings of a configuration on bond0, or those that are about to be set: an agent with another configuration
/// removes those that it does not name. Settings of other owners are not included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    /// Addresses of bond0.
    pub addresses: Vec<Address>,
    /// Routes over bond0.
    pub routes: Vec<KernelRoute>,
    /// Bytes.
    pub mtu: Option<u32>,
}

impl Configured {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the same settings for a device of this ifindex.
    pub fn over(mut self, ifindex: u32) -> Self {
        self.addresses.iter_mut().for_each(|address| address.ifindex = ifindex);
        self.routes.iter_mut().for_each(|route| route.ifindex = ifindex);
        self
    }

    /// Returns the settings that are in either of the two.
    pub fn and(mut self, other: &Self) -> Self {
        for address in &other.addresses {
            if !self.addresses.iter().any(|known| known.is_same(address)) {
                self.addresses.push(address.clone());
            }
        }
        for route in &other.routes {
            if !self.routes.iter().any(|known| known.has_same_key(route)) {
                self.routes.push(route.clone());
            }
        }
        self.mtu = self.mtu.or(other.mtu);
        self
    }

    /// Returns the settings that are in this one and not in the other.
    pub fn without(mut self, other: &Self) -> Self {
        self.addresses.retain(|address| !other.addresses.iter().any(|kept| kept.is_same(address)));
        self.routes.retain(|route| !other.routes.iter().any(|kept| kept.has_same_key(route)));
        self.mtu = self.mtu.filter(|_| other.mtu.is_none());
        self
    }
}
