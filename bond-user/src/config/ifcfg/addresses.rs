//! Reads the addresses and default routes of a bond's file.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use super::Ifcfg;
use crate::config::{ConfigError, Destination, Note, Route};

impl Ifcfg {
    /// Returns IPADDR, IPADDR0, IPADDR1 and so on, each with its PREFIX or NETMASK (`expand_config`).
    pub(super) fn ipv4_addresses(&self) -> Result<Vec<IpNet>, ConfigError> {
        let mut addresses = Vec::new();
        for number in std::iter::once(None).chain((0..=255).map(Some)) {
            let suffix = number.map(|number: u32| number.to_string()).unwrap_or_default();
            let key = format!("IPADDR{suffix}");
            match self.parsed::<Ipv4Addr>(&key, "an IPv4 address")? {
                Some(address) => addresses.push(self.with_prefix(&key, address, &suffix)?.into()),
                None if number.is_some_and(|number| number >= 2) => break,
                None => {}
            }
        }
        Ok(addresses)
    }

    pub(super) fn with_prefix(
        &self,
        key: &str,
        address: Ipv4Addr,
        suffix: &str,
    ) -> Result<Ipv4Net, ConfigError> {
        let (prefix, netmask) = (format!("PREFIX{suffix}"), format!("NETMASK{suffix}"));
        if let Some(text) = self.get(&prefix) {
            let length = text.parse().ok().and_then(|length| Ipv4Net::new(address, length).ok());
            return length.ok_or_else(|| self.bad_value(&prefix, text, "a number from 0 to 32"));
        }
        if let Some(text) = self.get(&netmask) {
            let mask = text.parse().ok().and_then(|mask| Ipv4Net::with_netmask(address, mask).ok());
            return mask.ok_or_else(|| self.bad_value(&netmask, text, "a netmask like 255.255.255.0"));
        }
        Err(self.refuse_value(key, "has neither PREFIX nor NETMASK; write PREFIX"))
    }

    /// Returns the default route, if this interface is to have it and the gateway is in its network.
    pub(super) fn ipv4_default(
        &self,
        addresses: &[IpNet],
        notes: &mut Vec<Note>,
    ) -> Result<Option<Route>, ConfigError> {
        let Some(gateway) = self.parsed::<Ipv4Addr>("GATEWAY", "an IPv4 address")? else { return Ok(None) };
        let elsewhere = self.get("GATEWAYDEV").is_some_and(|device| Some(device) != self.get("DEVICE"));
        if self.is_false("DEFROUTE") || elsewhere {
            return Ok(None);
        }
        let via = IpAddr::from(gateway);
        if !addresses.first().is_some_and(|address| address.contains(&via)) {
            notes.push(Note::GatewayElsewhere { origin: self.origin("GATEWAY"), gateway: via });
            return Ok(None);
        }
        let metric = self.parsed("METRIC", "a number")?;
        Ok(Some(Route { to: Destination::Default, via: Some(via), metric }))
    }

    pub(super) fn ipv6_addresses(&self) -> Result<Vec<IpNet>, ConfigError> {
        let mut addresses = Vec::new();
        for key in ["IPV6ADDR", "IPV6ADDR_SECONDARIES"] {
            for text in self.get(key).unwrap_or_default().split_whitespace() {
                let address: ipnet::Ipv6Net = text.parse().map_err(|_| {
                    self.bad_value(key, text, "an IPv6 address with its prefix length, like 2001:db8::1/64")
                })?;
                addresses.push(address.into());
            }
        }
        Ok(addresses)
    }

    pub(super) fn ipv6_default(&self) -> Result<Option<Route>, ConfigError> {
        const KEY: &str = "IPV6_DEFAULTGW";
        let Some(text) = self.get(KEY).filter(|_| !self.is_false("IPV6_DEFROUTE")) else { return Ok(None) };
        let (address, device) = text.split_once('%').map_or((text, None), |(a, device)| (a, Some(device)));
        if device.is_some_and(|device| Some(device) != self.get("DEVICE")) {
            return Ok(None);
        }
        let gateway: std::net::Ipv6Addr =
            address.parse().map_err(|_| self.bad_value(KEY, text, "an IPv6 address"))?;
        Ok(Some(Route { to: Destination::Default, via: Some(gateway.into()), metric: None }))
    }
}
