//! Addresses and routes that go from a slave to the bond (`move_addresses`), so that the NIC by which one is logged in
//! can be bonded. The way back is that of everything: found.json says how the slave was.

use std::net::IpAddr;

use tracing::info;

use crate::{
    agent::AgentError,
    sys::{
        Devices,
        found::Found,
        netlink::{Address, LinkSetting, Route},
    },
};

/// IFA_F_NODAD: an address that this host has had is nobody else's.
const NODAD: u32 = 0x02;

/// What the first slave that has any gives to the bond.
pub struct Moved {
    /// As it was found.
    pub from: Found,
    bond: String,
    ifindex: u32,
}

impl Moved {
    /// `ifindex` is the bond's.
    pub fn of<'a>(found: impl IntoIterator<Item = &'a Found>, bond: &str, ifindex: u32) -> Option<Self> {
        let from = found.into_iter().find(|found| gives_anything(found))?;
        Some(Self { from: from.clone(), bond: bond.to_owned(), ifindex })
    }

    /// Before the slave is enslaved: there is no moment at which the host does not have the addresses.
    pub async fn take_addresses(&self, devices: &Devices) -> Result<(), AgentError> {
        let netlink = &devices.netlink;
        netlink.set(self.ifindex, LinkSetting::Up(true)).await?;
        let addresses: Vec<_> = self.from.addresses.iter().filter(|address| is_movable(address)).collect();
        for address in &addresses {
            netlink.add_address(&on_bond(address, &self.from.name, &self.bond, self.ifindex)).await?;
            info!("{}: {}/{} from {}", self.bond, address.ip, address.prefix_len, self.from.name);
        }
        // IPv6 ones go when it is closed. Of a network, the first address goes last: the others would go with it.
        for address in addresses.iter().rev().filter(|address| address.ip.is_ipv4()) {
            netlink.del_address(address).await?;
        }
        Ok(())
    }

    /// After it was enslaved, which has taken its routes away.
    pub async fn take_routes(&self, devices: &Devices) -> Result<(), AgentError> {
        let present = devices.netlink.routes_of(self.ifindex).await?;
        let over = |route: &Route| Route { ifindex: self.ifindex, ..route.clone() };
        let mut routes: Vec<_> =
            self.from.routes.iter().filter(|route| !route.comes_by_itself()).map(over).collect();
        routes.retain(|route| !present.iter().any(|other| other.has_same_key(route)));
        // Gateways are found by the routes without one.
        routes.sort_by_key(|route| route.via.is_some());
        for route in &routes {
            devices.netlink.replace_route(route).await?;
            info!("{}: route {route} (table {}) from {}", self.bond, route.table, self.from.name);
        }
        Ok(())
    }
}

/// What enslaving would take, and nothing gives back.
fn gives_anything(found: &Found) -> bool {
    found.addresses.iter().any(is_movable) || found.routes.iter().any(|route| !route.is_automatic())
}

/// Link-local ones belong to the device.
fn is_movable(address: &Address) -> bool {
    !matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// The same address on the bond: eth0:1 becomes bond0:1.
fn on_bond(address: &Address, slave: &str, bond: &str, ifindex: u32) -> Address {
    let label = address.label.as_ref().map(|label| match label.strip_prefix(slave) {
        Some(rest) => format!("{bond}{rest}"),
        None => label.clone(),
    });
    let nodad = if address.ip.is_ipv6() { NODAD } else { 0 };
    // A label is 15 bytes at most.
    let label = label.filter(|label| label.len() < libc::IFNAMSIZ);
    Address { ifindex, label, flags: address.flags | nodad, ..address.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_name_of_the_device() {
        let address = |label: &str| Address {
            label: Some(label.to_owned()),
            ..Address::new(3, IpAddr::from([192, 0, 2, 1]), 24)
        };
        let table = [
            ("eth0", Some("bond0")),
            ("eth0:1", Some("bond0:1")),
            ("web", Some("web")),
            ("eth0:1234567890", None),
        ];
        for (label, expected) in table {
            let moved = on_bond(&address(label), "eth0", "bond0", 7);
            assert_eq!((moved.label.as_deref(), moved.ifindex), (expected, 7), "{label}");
        }
    }

    #[test]
    fn link_local_addresses_stay() {
        let address = |text: &str| Address::new(3, text.parse().unwrap(), 64);
        assert!(is_movable(&address("2001:db8::1")) && is_movable(&address("fd00::1")));
        assert!(!is_movable(&address("fe80::1")));
    }
}
