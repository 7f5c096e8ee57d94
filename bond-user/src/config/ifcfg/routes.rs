//! Reads route-BOND and route6-BOND, the files of routes next to a bond's file.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use ipnet::Ipv4Net;

use super::{Ifcfg, at_file, is_there, text};
use crate::config::{ConfigError, Destination, Origin, Problem, Route};

/// Returns the routes of route-BOND and route6-BOND.
pub(super) fn routes_beside(directory: &Path, bond: &str) -> Result<Vec<Route>, ConfigError> {
    for prefix in ["rule-", "rule6-"] {
        let path = directory.join(format!("{prefix}{bond}"));
        if is_there(&path)? {
            let why = "xbond sets no rules of policy routing; move it away, and set them once the bond is up";
            return Err(at_file(&path, Problem::RefusedFile { file: "rule", why }));
        }
    }
    let mut routes = Vec::new();
    for prefix in ["route-", "route6-"] {
        let path = directory.join(format!("{prefix}{bond}"));
        if is_there(&path)? {
            routes.extend(routes_in(&path, &text(&path)?, bond)?);
        }
    }
    Ok(routes)
}

/// Parses either `ADDRESS0=`, `NETMASK0=`, `GATEWAY0=` and so on, or lines for `ip route add` (`ifup-routes`).
pub(super) fn routes_in(path: &Path, text: &str, bond: &str) -> Result<Vec<Route>, ConfigError> {
    let numbered =
        |line: &str| line.trim_start().strip_prefix("ADDRESS").is_some_and(|rest| rest.contains('='));
    if text.lines().any(numbered) {
        return numbered_routes(&Ifcfg::parse(path, text)?);
    }
    let mut routes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.split('#').next().unwrap_or_default();
        if words.trim().is_empty() {
            continue;
        }
        let route = route(words, bond).ok_or_else(|| {
            let origin = Origin::File { path: path.to_owned(), line: Some(number + 1) };
            ConfigError::new(origin, Problem::BadRoute { text: words.trim().to_owned() })
        })?;
        routes.push(route);
    }
    Ok(routes)
}

fn numbered_routes(file: &Ifcfg) -> Result<Vec<Route>, ConfigError> {
    let mut routes = Vec::new();
    for number in 0.. {
        let key = format!("ADDRESS{number}");
        let Some(address) = file.parsed(&key, "an IPv4 address")? else { break };
        let netmask = format!("NETMASK{number}");
        let mask = file.parsed(&netmask, "a netmask like 255.255.255.0")?.unwrap_or(Ipv4Addr::BROADCAST);
        let prefix = Ipv4Net::with_netmask(address, mask)
            .map_err(|_| file.bad_value(&netmask, &mask.to_string(), "a netmask like 255.255.255.0"))?;
        let via = file.parsed::<Ipv4Addr>(&format!("GATEWAY{number}"), "an IPv4 address")?.map(IpAddr::from);
        routes.push(Route { to: Destination::Prefix(prefix.into()), via, metric: None });
    }
    Ok(routes)
}

/// Parses one line for `ip route add`; returns `None` for attributes that a route here cannot have.
pub(super) fn route(line: &str, bond: &str) -> Option<Route> {
    let mut words = line.split_whitespace();
    let to = words.next()?;
    // An address without prefix length is a host.
    let host = |_| to.parse().map(|host: IpAddr| Destination::Prefix(host.into()));
    let mut route = Route { to: to.parse().or_else(host).ok()?, via: None, metric: None };
    while let Some(word) = words.next() {
        let value = words.next()?;
        match word {
            "via" => route.via = Some(value.parse().ok()?),
            "metric" => route.metric = Some(value.parse().ok()?),
            "dev" if value == bond => {}
            _ => return None,
        }
    }
    Some(route)
}
