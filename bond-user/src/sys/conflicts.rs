//! Addresses and devices on a NIC that do not work, or that disturb a bond, while the NIC is a slave.

use std::collections::HashMap;

use super::{
    Devices, SysError,
    netlink::{Address, LinkInfo, message::Message},
    topology::Layers,
};

/// An address or a device that conflicts with enslaving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// An IPv4 address: enslaving leaves it in place, as the driver does, with the route to its network.
    Address(Address),
    /// A device above the NIC, at any depth: the bond's program takes all frames first, including those for this
    /// device.
    Above {
        /// The device's name.
        name: String,
        /// As in [`LinkInfo::kind`].
        kind: String,
    },
    /// MPLS routes over the NIC, by their labels: they stay on it, and its MPLS frames arrive on the bond.
    MplsRoutes {
        /// Their labels.
        labels: Vec<u32>,
    },
}

impl dyn Devices + '_ {
    /// Returns what stands on a NIC of this network namespace, addresses first.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub async fn conflicts(&self, ifindex: u32) -> Result<Vec<Conflict>, SysError> {
        let addresses = self.addresses_of(ifindex).await?.into_iter();
        let mut conflicts: Vec<_> =
            addresses.filter(|address| address.ip.is_ipv4()).map(Conflict::Address).collect();
        let labels: Vec<_> =
            self.mpls_routes_over(ifindex).await?.iter().filter_map(Message::mpls_label).collect();
        conflicts.extend((!labels.is_empty()).then_some(Conflict::MplsRoutes { labels }));
        let links = self.links(None).await?;
        let vlans = HashMap::new();
        let layers = Layers::new(ifindex, &links, &vlans);
        conflicts.extend(layers.layers().iter().skip(1).map(|layer| above(layer.link)));
        Ok(conflicts)
    }
}

fn above(link: &LinkInfo) -> Conflict {
    let kind = if link.vlan.is_some() { Some("VLAN") } else { link.kind.as_deref() };
    Conflict::Above { name: link.name.clone(), kind: kind.unwrap_or("device").to_owned() }
}
