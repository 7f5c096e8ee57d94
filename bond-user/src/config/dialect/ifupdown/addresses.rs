//! Reads addresses and routes of stanzas.

use std::net::{IpAddr, Ipv4Addr};

use bond_common::mac::Mac;
use ipnet::{IpNet, Ipv4Net};

use super::stanza::{Key, Stanza};
use crate::config::{BondMac, ConfigError, Destination, Note, Route, dialect::draft::Draft};

/// Reads the keys of a bond's stanza that are not options of the driver.
pub(super) fn read(draft: &mut Draft, stanza: &Stanza) -> Result<(), ConfigError> {
    let name = draft.name.clone();
    if !["manual", "static", "none"].contains(&stanza.method.as_str()) {
        let text = format!(
            "{name}: iface {name} {} {}: xbond sets fixed addresses only; run a DHCP client on {name}",
            stanza.family, stanza.method
        );
        draft.note(&stanza.origin, text);
    }
    let of = |wanted: &'static str| stanza.keys.iter().filter(move |key| key.name == wanted);
    let metric = of("metric").next_back().map(|key| key.parsed("a number")).transpose()?;
    let netmask = of("netmask").next_back();
    for key in &stanza.keys {
        match key.name.as_str() {
            "address" => {
                let address = address(key, netmask)?;
                draft.address(address, key.origin.clone())?;
            }
            "gateway" => {
                // ifupdown2 takes several.
                for word in key.value.split_whitespace() {
                    let via =
                        word.parse().map_err(|_| key.bad_value("an address without a prefix length"))?;
                    let route = Route { to: Destination::Default, via: Some(via), metric };
                    draft.route(route, key.origin.clone())?;
                }
            }
            "netmask" | "metric" | "broadcast" | "network" | "description" => {}
            "mtu" => draft.mtu = Some((key.parsed("a number of bytes")?, key.origin.clone())),
            "hwaddress" => {
                draft.mac =
                    hwaddress(key, &mut draft.notes)?.map(|mac| (BondMac::Address(mac), key.origin.clone()))
            }
            "slaves" => {}
            option if option.starts_with("bond-") || option == "es-sys-mac" => {}
            "up" | "pre-up" | "post-up" | "down" | "pre-down" | "post-down" => {
                draft.note(&key.origin, format!("{name}: {}: nothing of a file is executed", key.text()));
            }
            _ => draft.notes.push(key.not_applied()),
        }
    }
    if of("address").count() > 1 {
        let origin = stanza.origin.clone();
        let text = format!(
            "{name}: several addresses in one stanza: ifupdown sets the first only, ifupdown2 all; so does xbond"
        );
        draft.note(&origin, text);
    }
    Ok(())
}

/// Reads the stanza of an alias, as `bond0:1`.
pub(super) fn read_alias(draft: &mut Draft, stanza: &Stanza) -> Result<(), ConfigError> {
    let netmask = stanza.keys.iter().rfind(|key| key.name == "netmask");
    for key in &stanza.keys {
        match key.name.as_str() {
            "address" => {
                let address = address(key, netmask)?;
                let text = format!("{}: address {address} loses its label {}", draft.name, stanza.name);
                draft.note(&key.origin, text);
                draft.address(address, key.origin.clone())?;
            }
            "netmask" | "broadcast" | "network" => {}
            _ => draft.notes.push(key.not_applied()),
        }
    }
    Ok(())
}

/// Parses an address with its length, or with the netmask of its stanza.
fn address(key: &Key, netmask: Option<&Key>) -> Result<IpNet, ConfigError> {
    const WANTED: &str = "an address like 192.0.2.1/24";
    if let Ok(address) = key.value.parse() {
        return Ok(address);
    }
    let ip: IpAddr = key.parsed(WANTED)?;
    let Some(netmask) = netmask else {
        // ifupdown takes the class of an IPv4 address.
        let (length, _) = match ip {
            IpAddr::V4(ip) => (class(ip), ()),
            IpAddr::V6(_) => (64, ()),
        };
        return IpNet::new(ip, length).map_err(|_| key.bad_value(WANTED));
    };
    let of_length = netmask.value.parse().ok().and_then(|length| IpNet::new(ip, length).ok());
    let of_mask = || match (ip, netmask.value.parse::<Ipv4Addr>()) {
        (IpAddr::V4(ip), Ok(mask)) => Ipv4Net::with_netmask(ip, mask).ok().map(IpNet::from),
        _ => None,
    };
    of_length.or_else(of_mask).ok_or_else(|| netmask.bad_value("a netmask like 255.255.255.0"))
}

/// Returns the prefix length of an address without one: that of its class.
fn class(ip: Ipv4Addr) -> u8 {
    match ip.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        _ => 24,
    }
}

/// Parses `hwaddress [ether] MAC`; `None` for `random`, with a note.
pub(super) fn hwaddress(key: &Key, notes: &mut Vec<Note>) -> Result<Option<Mac>, ConfigError> {
    let text = key.value.trim_start_matches("ether").trim();
    if text.starts_with("random") {
        notes.push(key.not_applied());
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| key.bad_value("a MAC address of the form 08:00:27:e8:26:58"))
}
