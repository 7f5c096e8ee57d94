//! Keys of SUSE's ifcfg files (wicked, sysconfig) that differ from RHEL's.

use std::{net::IpAddr, path::Path};

use ipnet::{IpNet, Ipv4Net};

use super::{Ifcfg, at_file, is_there, text};
use crate::config::{BondConfig, ConfigError, Destination, Origin, Problem, Route, SlaveConfig};

const OPTIONS: &str = "BONDING_MODULE_OPTS";
const SLAVE: &str = "BONDING_SLAVE";

impl Ifcfg {
    /// Returns whether a bond's file has SUSE's keys.
    pub(super) fn is_suse(&self) -> bool {
        self.get(OPTIONS).is_some() || self.variables.keys().any(|key| is_slave(key))
    }

    /// Returns BONDING_SLAVE0, BONDING_SLAVE1 or BONDING_SLAVE_0 and so on, in the order of their numbers.
    pub(super) fn suse_slaves(&self) -> Result<Vec<SlaveConfig>, ConfigError> {
        let mut keys: Vec<_> = self.variables.keys().filter(|key| is_slave(key)).collect();
        keys.sort_by_key(|key| number(key));
        keys.into_iter()
            .filter_map(|key| Some((key, self.get(key)?)))
            .map(|(key, name)| Ok(SlaveConfig::new(self.interface_name(key, name)?)))
            .collect()
    }

    /// Returns IPADDR and IPADDR_SUFFIX, each with its prefix length inside or in PREFIXLEN or NETMASK of that
    /// suffix.
    pub(super) fn suse_addresses(&self) -> Result<Vec<IpNet>, ConfigError> {
        let mut keys: Vec<_> = self.variables.keys().filter(|key| key.starts_with("IPADDR")).collect();
        keys.sort();
        let mut addresses = Vec::new();
        for key in keys {
            let Some(text) = self.get(key) else { continue };
            let wanted = "an address with its prefix length, like 192.0.2.1/24";
            let suffix = key.strip_prefix("IPADDR").unwrap_or_default();
            let address = if text.contains('/') {
                text.parse().map_err(|_| self.bad_value(key, text, wanted))?
            } else {
                let ip: IpAddr = text.parse().map_err(|_| self.bad_value(key, text, wanted))?;
                self.suse_prefix(key, ip, suffix)?
            };
            addresses.push(address);
        }
        Ok(addresses)
    }

    fn suse_prefix(&self, key: &str, ip: IpAddr, suffix: &str) -> Result<IpNet, ConfigError> {
        let length = format!("PREFIXLEN{suffix}");
        if let Some(text) = self.get(&length) {
            let net = text.parse().ok().and_then(|length| IpNet::new(ip, length).ok());
            return net.ok_or_else(|| self.bad_value(&length, text, "a number of bits"));
        }
        let netmask = format!("NETMASK{suffix}");
        if let (Some(text), IpAddr::V4(ip)) = (self.get(&netmask), ip) {
            let net = text.parse().ok().and_then(|mask| Ipv4Net::with_netmask(ip, mask).ok());
            return net
                .map(IpNet::from)
                .ok_or_else(|| self.bad_value(&netmask, text, "a netmask like 255.255.255.0"));
        }
        Err(self.refuse_value(key, "has neither a prefix length nor NETMASK; write it as 192.0.2.1/24"))
    }
}

fn is_slave(key: &str) -> bool {
    number(key).is_some()
}

fn number(key: &str) -> Option<u32> {
    let rest = key.strip_prefix(SLAVE)?;
    rest.strip_prefix('_').unwrap_or(rest).parse().ok()
}

/// Returns the routes of ifroute-BOND, and those of the common file `routes` that use the bond.
pub(super) fn routes(directory: &Path, bond: &BondConfig) -> Result<Vec<Route>, ConfigError> {
    let mut routes = Vec::new();
    for (name, is_common) in [(format!("ifroute-{}", bond.name), false), ("routes".to_owned(), true)] {
        let path = directory.join(name);
        if !is_there(&path)? {
            continue;
        }
        for (number, line) in text(&path)?.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let refuse = || {
                let origin = Origin::File { path: path.clone(), line: Some(number + 1) };
                ConfigError::new(origin, Problem::BadRoute { text: line.to_owned() })
            };
            let words: Vec<_> = line.split_whitespace().collect();
            let device = words.get(3).copied().filter(|word| *word != "-");
            match (route(&words), device) {
                (_, Some(device)) if bond.name != device => {}
                // From a file for all devices, only routes that certainly belong to the bond.
                (Some(route), None) if is_common => {
                    let reaches = |via: IpAddr| bond.addresses.iter().any(|address| address.contains(&via));
                    routes.extend(Some(route).filter(|route| route.via.is_some_and(reaches)));
                }
                (None, None) if is_common => {}
                (route, _) => routes.push(route.ok_or_else(refuse)?),
            }
        }
    }
    Ok(routes)
}

/// Parses `DESTINATION GATEWAY NETMASK INTERFACE`, in which `-` means none.
fn route(words: &[&str]) -> Option<Route> {
    let given = |place: usize| words.get(place).copied().filter(|word| *word != "-");
    if words.len() > 4 {
        return None;
    }
    let to = match (given(0)?, given(2)) {
        ("default", None | Some("0.0.0.0")) => Destination::Default,
        (to, None) => match to.parse() {
            Ok(prefix) => Destination::Prefix(prefix),
            Err(_) => Destination::Prefix(to.parse::<IpAddr>().ok()?.into()),
        },
        (to, Some(mask)) => {
            Destination::Prefix(Ipv4Net::with_netmask(to.parse().ok()?, mask.parse().ok()?).ok()?.into())
        }
    };
    let via = match given(1) {
        Some(via) => Some(via.parse().ok()?),
        None => None,
    };
    Some(Route { to, via, metric: None })
}

/// Returns the bond's name, which is that of its file.
pub(super) fn name_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(super::PREFIX)
}

/// Refuses rules of policy routing, in SUSE's file for them.
pub(super) fn refuse_rules(directory: &Path, bond: &str) -> Result<(), ConfigError> {
    let path = directory.join(format!("ifrule-{bond}"));
    if is_there(&path)? {
        let why = "xbond sets no rules of policy routing; move it away, and set them once the bond is up";
        return Err(at_file(&path, Problem::RefusedFile { file: "rule", why }));
    }
    Ok(())
}
