//! What a configuration sets on bond0: its addresses, routes and MTU.

use ipnet::IpNet;

use crate::{
    agent::{
        AgentError,
        bond::work::{Request, WorkQueue},
    },
    config::{self, BondConfig, Destination},
    report::{log, wording},
    store::record::Configured,
    sys::{
        Devices, SysError,
        netlink::{Address, KernelRoute, LinkInfo, LinkSetting},
        sysctl::PromoteSecondaries,
    },
};

/// Sets bond0 up and gives it its addresses and routes.
///
/// # Errors
/// [`AgentError::Unconfigured`], with the first step that failed.
pub async fn configure(devices: &dyn Devices, bond: u32, config: &BondConfig) -> Result<(), AgentError> {
    let error = match set_up(devices, bond, config).await {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    Err(AgentError::Unconfigured {
        bond: config.name.to_string(),
        origin: config.origin.to_string(),
        error: Box::new(error),
    })
}

async fn set_up(devices: &dyn Devices, bond: u32, config: &BondConfig) -> Result<(), SysError> {
    devices.set(bond, LinkSetting::Up(true)).await?;
    for address in &config.addresses {
        devices.add_address(&Address::new(bond, address.addr(), address.prefix_len())).await?;
    }
    for route in &config.routes {
        devices.replace_route(&route_over(bond, route)).await?;
    }
    Ok(())
}

/// What a configuration sets on bond0, of which this is the ifindex.
pub fn configured(bond: u32, config: &BondConfig) -> Configured {
    let address = |net: &IpNet| Address::new(bond, net.addr(), net.prefix_len());
    Configured {
        addresses: config.addresses.iter().map(address).collect(),
        routes: config.routes.iter().map(|route| route_over(bond, route)).collect(),
        mtu: config.mtu,
    }
}

/// Records what a configuration sets on bond0.
///
/// # Errors
/// The record cannot be written, or the worker ends.
pub async fn record_configured(work: &WorkQueue, configured: Configured) -> Result<(), AgentError> {
    work.ask(|reply| Request::RecordConfigured { configured, reply }).await?
}

/// Removes what a former configuration has set on bond0, where it still is, after the present one was set.
///
/// # Errors
/// The addresses or routes cannot be listed, or one cannot be deleted.
pub async fn remove_former(
    devices: &dyn Devices,
    bond: &LinkInfo,
    former: &Configured,
    config: &BondConfig,
) -> Result<(), AgentError> {
    let name = &config.name;
    let present = devices.routes_of(bond.ifindex).await?;
    let is_there = |route: &&KernelRoute| {
        present.iter().any(|found| found.has_same_key(route) && found.via == route.via)
    };
    for route in former.routes.iter().filter(is_there) {
        devices.del_route(route).await?;
        log::of(name).info(wording::route_removed(route));
    }
    let present = devices.addresses_of(bond.ifindex).await?;
    let is_there = |address: &&Address| present.iter().any(|found| found.is_same(address));
    let old: Vec<_> = former.addresses.iter().filter(is_there).collect();
    if old.is_empty() {
        return Ok(());
    }
    {
        let _others_stay = PromoteSecondaries::of(devices, &bond.name);
        for address in old {
            devices.del_address(address).await?;
            let net = format!("{}/{}", address.ip, address.prefix_len);
            log::of(name).info(wording::address_removed(&net));
        }
    }
    // Where they could not be kept, and for routes that had a deleted address as their source.
    configure(devices, bond.ifindex, config).await
}

/// A route of a configuration, over this device.
pub fn route_over(ifindex: u32, route: &config::Route) -> KernelRoute {
    let (to, prefix_len) = match (route.to, route.via) {
        (Destination::Prefix(net), _) => (net.network(), net.prefix_len()),
        (Destination::Default, Some(std::net::IpAddr::V6(_))) => (std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
        (Destination::Default, _) => (std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
    };
    let mut wanted = KernelRoute::new(ifindex, to, prefix_len, route.via);
    if let Some(metric) = route.metric {
        wanted.metric = metric;
    }
    wanted
}
