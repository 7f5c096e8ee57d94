//! Converts a bond of the kernel's driver to xbond's configuration.

use std::net::IpAddr;

use anyhow::{Result, anyhow, bail};
use bond_core::{
    name::{BondName, InterfaceName, NameError},
    options::{BondOptions, FailOverMac, SlaveOptions, Unmonitored},
};
use ipnet::IpNet;

use crate::{
    config::{BondConfig, BondMac, Destination, Origin, Route, SlaveConfig},
    report::wording,
    sys::netlink::{Address, KernelBond, KernelRoute, LinkInfo},
};

/// The addresses, routes and devices above bonds.
pub struct Above {
    pub links: Vec<LinkInfo>,
    /// The addresses of all links.
    pub addresses: Vec<Address>,
    /// The routes over bonds.
    pub routes: Vec<KernelRoute>,
}

pub struct Read {
    pub config: BondConfig,
    /// Settings without equivalent in xbond.
    pub remarks: Vec<String>,
}

/// RTPROT_DHCP
const DHCP: u8 = 16;
const MAIN_TABLE: u32 = 254;
/// The default MTU of a bond, in bytes.
const USUAL_MTU: u32 = 1500;

/// Converts a bond, with remarks about what lies above it. `order`: names of slaves in the order of enslaving, as far as it
/// is known.
///
/// # Errors
/// The bond has another mode than active-backup, or an option that xbond refuses.
pub fn read(bond: &KernelBond, above: &Above, order: &[String]) -> Result<Read> {
    let mut read = convert(bond, above, order)?;
    read.remarks.extend(remarks_above(&bond.link, above));
    Ok(read)
}

/// Converts a bond with its addresses and routes.
///
/// # Errors
/// The bond has another mode than active-backup, or an option that xbond refuses.
pub fn convert(bond: &KernelBond, above: &Above, order: &[String]) -> Result<Read> {
    let name = &bond.link.name;
    if bond.mode != "active-backup" {
        bail!(wording::other_mode(name, &bond.mode));
    }
    let mut config = BondConfig::new(BondName::new(name)?, Origin::Flags);
    let mut remarks = Vec::new();
    config.options = options(bond, &mut remarks)?;
    remarks.extend(super::allow_unmonitored(&mut config));

    let mut slaves: Vec<_> = bond.slaves.iter().collect();
    slaves.sort_by_key(|slave| order.iter().position(|name| *name == slave.name).unwrap_or(usize::MAX));
    config.slaves = slaves
        .iter()
        .map(|slave| {
            let options = SlaveOptions { prio: slave.prio, queue_id: slave.queue_id, watch: None };
            Ok(SlaveConfig { options, ..SlaveConfig::new(InterfaceName::new(&slave.name)?) })
        })
        .collect::<Result<_, NameError>>()?;
    let of_first = slaves.first().and_then(|slave| slave.permanent_mac);
    if config.options.fail_over_mac != FailOverMac::Active && of_first != Some(bond.link.mac) {
        config.mac = Some(BondMac::Address(bond.link.mac));
    }
    config.mtu = Some(bond.link.mtu).filter(|mtu| *mtu != USUAL_MTU);

    for address in above.addresses.iter().filter(|address| address.ifindex == bond.link.ifindex) {
        config.addresses.extend(read_address(name, address, &mut remarks));
    }
    for route in above.routes.iter().filter(|route| route.ifindex == bond.link.ifindex) {
        config.routes.extend(read_route(name, route, &mut remarks));
    }
    Ok(Read { config, remarks })
}

/// Converts the options. The driver accepts some combinations that a configuration may not have; one of the two
/// options has no effect then.
fn options(bond: &KernelBond, remarks: &mut Vec<String>) -> Result<BondOptions> {
    let name = &bond.link.name;
    let value =
        |key: &str| bond.options.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str());
    let is_off = |key: &str| matches!(value(key), None | Some("0"));
    let has_targets = value("arp_ip_target").is_some() || value("ns_ip6_target").is_some();
    let mut pairs = Vec::new();
    for (key, value) in &bond.options {
        let idle = match *key {
            "arp_interval" => *value != "0" && !has_targets,
            "arp_ip_target" | "ns_ip6_target" => is_off("arp_interval"),
            "updelay" | "downdelay" | "peer_notif_delay" => *value != "0" && is_off("miimon"),
            _ => false,
        };
        if idle {
            remarks.push(wording::idle_option(name, key, value));
        } else {
            pairs.push((*key, value.as_str()));
        }
    }
    let (options, _) =
        BondOptions::from_pairs(pairs, Unmonitored::Allow).map_err(|error| anyhow!("{name}: {error}"))?;
    Ok(options)
}

fn read_address(bond: &str, address: &Address, remarks: &mut Vec<String>) -> Option<IpNet> {
    let net = IpNet::new(address.ip, address.prefix_len).ok()?;
    if matches!(address.ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        return None;
    }
    if address.lifetime.is_some() || address.by_kernel {
        remarks.push(wording::address_for_a_time(bond, net));
        return None;
    }
    if let Some(label) = address.label.as_ref().filter(|label| *label != bond) {
        remarks.push(wording::label_lost(bond, net, label));
    }
    if let Some(peer) = address.peer {
        remarks.push(wording::peer_lost(bond, net, peer));
        return None;
    }
    Some(net)
}

fn read_route(bond: &str, route: &KernelRoute, remarks: &mut Vec<String>) -> Option<Route> {
    let multicast_of_kernel = route.to == IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0_u16]);
    let link_local = matches!(route.to, IpAddr::V6(ip) if ip.is_unicast_link_local());
    if route.is_automatic() || multicast_of_kernel || link_local {
        return None;
    }
    if route.protocol == DHCP {
        remarks.push(wording::route_of_dhcp(bond, route));
        return None;
    }
    if route.table != MAIN_TABLE {
        remarks.push(wording::route_of_other_table(bond, route, route.table));
        return None;
    }
    if let Some(source) = route.source {
        remarks.push(wording::route_source_lost(bond, route, source));
    }
    let usual = KernelRoute::new(route.ifindex, route.to, route.prefix_len, route.via);
    let to = match (route.prefix_len, route.via) {
        (0, Some(_)) => Destination::Default,
        (0, None) if route.to.is_ipv4() => Destination::Default,
        _ => Destination::Prefix(IpNet::new(route.to, route.prefix_len).ok()?),
    };
    Some(Route { to, via: route.via, metric: Some(route.metric).filter(|metric| *metric != usual.metric) })
}

/// Returns remarks about devices above the bond, and about programs.
fn remarks_above(link: &LinkInfo, above: &Above) -> Vec<String> {
    let bond = &link.name;
    let mut remarks = Vec::new();
    for upper in
        above.links.iter().filter(|upper| upper.link == Some(link.ifindex) && upper.link_netns.is_none())
    {
        let kind = upper.kind.as_deref().unwrap_or("device");
        remarks.push(wording::device_above(&upper.name, kind, bond));
    }
    // The current state: the bond's own copy may be older.
    let now = above.links.iter().find(|found| found.ifindex == link.ifindex).unwrap_or(link);
    if let Some(master) = now.master {
        let master = above.links.iter().find(|link| link.ifindex == master);
        let name = master.map_or("another device", |link| link.name.as_str());
        remarks.push(wording::port_of(bond, name));
    }
    if let Some(xdp) = now.xdp {
        remarks.push(wording::program_on(bond, xdp.program));
    }
    for altname in &now.altnames {
        remarks.push(wording::altname_lost(bond, altname));
    }
    remarks
}
