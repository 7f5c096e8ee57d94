//! Reads `.network` files: which NICs are slaves, and the addresses of the bond.

use bond_core::name::InterfaceName;
use ipnet::IpNet;

use super::{Unit, netdev};
use crate::config::{
    ConfigError, Destination, Note, Origin, Route, SlaveConfig,
    dialect::{
        draft::{Draft, OnLink},
        ini::Entry,
        time,
    },
};

/// Keys of `[Network]` that name a device above the bond.
const ABOVE: &[&str] = &["VLAN", "MACVLAN", "MACVTAP", "IPVLAN", "IPVTAP", "VXLAN"];

/// Values of a gateway that come from the network.
const DYNAMIC: &[&str] = &["_dhcp", "_dhcp4", "_dhcp6", "_ipv6ra"];

/// A `.network` file.
pub(super) struct Network {
    unit: Unit,
    /// The names that it fits, some of them with wildcards.
    names: Vec<(String, Origin)>,
    /// Whether it fits by names only.
    by_name: bool,
}

impl Network {
    pub(super) fn new(unit: Unit) -> Self {
        let words = |entry: &Entry| {
            let origin = entry.origin.clone();
            let words = entry.value.split_whitespace().map(|word| word.trim_matches('"').to_owned());
            words.map(|word| (word, origin.clone())).collect::<Vec<_>>()
        };
        let names = unit.all("Match", "Name").into_iter().flat_map(words).collect();
        let others = unit.entries.iter().filter(|entry| entry.section == "Match" && entry.key != "Name");
        let by_name = others.into_iter().all(|entry| entry.value.is_empty());
        Self { unit, names, by_name }
    }

    /// Returns the assignment that makes the file one of slaves.
    pub(super) fn bond(&self) -> Option<&Entry> {
        self.unit.last("Network", "Bond")
    }

    /// Whether the file certainly fits an interface of this name.
    fn fits(&self, name: &str) -> bool {
        let (excluded, wanted): (Vec<_>, Vec<_>) = self
            .names
            .iter()
            .map(|(pattern, _)| pattern.as_str())
            .partition(|pattern| pattern.starts_with('!'));
        let like = |pattern: &str| glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name));
        let is_excluded = excluded.iter().any(|pattern| like(pattern.trim_start_matches('!')));
        self.by_name
            && !is_excluded
            && (wanted.iter().any(|pattern| like(pattern)) || wanted.is_empty() && !excluded.is_empty())
    }
}

/// Adds the slaves of a bond, in the order of their files.
pub(super) fn add_slaves(
    draft: &mut Draft,
    networks: &[Network],
    notes: &mut Vec<Note>,
) -> Result<(), ConfigError> {
    for (place, network) in networks.iter().enumerate() {
        let Some(of) = network.bond().filter(|of| of.value == draft.name) else { continue };
        let slaves = slaves_of(draft, network)?;
        let earlier = networks.get(..place).unwrap_or_default();
        for slave in slaves {
            if let Some(first) = earlier.iter().find(|first| first.fits(&slave.name)) {
                let text = format!(
                    "{}: {}: {} comes first and fits it, so networkd does not read this file: left out",
                    draft.name,
                    slave.name,
                    first.unit.path.display()
                );
                draft.note(&of.origin, text);
            } else {
                draft.slave(slave, of.origin.clone());
            }
        }
        notes.extend(left_out_of_slaves(network));
    }
    Ok(())
}

/// Returns the slaves that a file names, with what it says of them.
fn slaves_of(draft: &mut Draft, network: &Network) -> Result<Vec<SlaveConfig>, ConfigError> {
    let unit = &network.unit;
    let mut names = Vec::new();
    for (name, origin) in &network.names {
        if name.contains(['*', '?', '[', '!']) {
            let text = format!(
                "{}: Name={name} fits several NICs, and which of them there are is not in the file: left out; add their \
                 names to slaves",
                draft.name
            );
            draft.note(origin, text);
        } else if name.contains(',') {
            let text = format!(
                "Name={name}: networkd wants blanks between names; with commas it fits no NIC: left out"
            );
            draft.note(origin, text);
        } else {
            let checked = InterfaceName::new(name.clone());
            names.push(checked.map_err(|error| ConfigError::new(origin.clone(), error.into()))?);
        }
    }
    let macs: Vec<_> =
        ["PermanentMACAddress", "MACAddress"].iter().flat_map(|key| unit.all("Match", key)).collect();
    let hwaddr = match macs.as_slice() {
        [mac] if names.len() == 1 && !mac.value.contains(' ') => netdev::address(mac)?,
        _ => None,
    };
    if let (true, Some(mac)) = (network.names.is_empty(), macs.first()) {
        let text = format!(
            "{}: {} names a NIC by its address only, and xbond goes by names: left out; find its name with `ip -br \
             link`, and add it to slaves",
            draft.name,
            mac.text()
        );
        draft.note(&mac.origin, text);
    }
    let own = |key| unit.last("Link", key);
    let mac = own("MACAddress").map(netdev::address).transpose()?.flatten();
    let mtu = own("MTUBytes").map(netdev::mtu).transpose()?.flatten().map(|(mtu, _)| mtu);
    preference(draft, unit, &names)?;
    Ok(names.into_iter().map(|name| SlaveConfig { hwaddr, mac, mtu, ..SlaveConfig::new(name) }).collect())
}

/// Reads which slave is preferred.
fn preference(draft: &mut Draft, unit: &Unit, names: &[InterfaceName]) -> Result<(), ConfigError> {
    for key in ["PrimarySlave", "ActiveSlave"] {
        let Some(entry) = unit.last("Network", key) else { continue };
        let is_set = time::boolean(&entry.value).ok_or_else(|| entry.bad_value("yes or no"))?;
        match names {
            _ if !is_set => {}
            [name] if key == "PrimarySlave" => draft.set("primary", name, entry.text(), &entry.origin),
            [name] => {
                let text = format!(
                    "{}: ActiveSlave={}: {name} is made active once, and nothing keeps it so; set primary for a lasting \
                     preference",
                    draft.name, entry.value
                );
                draft.note(&entry.origin, text);
            }
            _ => {
                let text = format!(
                    "{}: {} in a file of several NICs, or of none: left out",
                    draft.name,
                    entry.text()
                );
                draft.note(&entry.origin, text);
            }
        }
    }
    Ok(())
}

/// Returns notes about what a slave's file says and xbond does not do.
fn left_out_of_slaves(network: &Network) -> Vec<Note> {
    let used = |entry: &Entry| match (entry.section.as_str(), entry.key.as_str()) {
        ("Match", key) => ["Name", "MACAddress", "PermanentMACAddress"].contains(&key),
        ("Network", key) => ["Bond", "PrimarySlave", "ActiveSlave", "Description"].contains(&key),
        ("Link", key) => ["MACAddress", "MTUBytes"].contains(&key),
        _ => false,
    };
    network.unit.entries.iter().filter(|entry| !used(entry)).map(Entry::not_applied).collect()
}

/// Adds the addresses and routes of the file that fits the bond.
pub(super) fn add_network(draft: &mut Draft, networks: &[Network]) -> Result<(), ConfigError> {
    let Some(network) = networks.iter().find(|network| network.fits(&draft.name)) else { return Ok(()) };
    let mut instances: Vec<&[Entry]> =
        network.unit.entries.chunk_by(|a, b| a.instance == b.instance).collect();
    for entries in &mut instances {
        match entries.first().map(|entry| entry.section.as_str()) {
            Some("Match") | None => {}
            Some("Route") => route(draft, entries)?,
            Some("Address") => address_section(draft, entries)?,
            Some("Network") => {
                for entry in *entries {
                    network_key(draft, entry)?;
                }
            }
            Some("Link") => {
                for entry in *entries {
                    match entry.key.as_str() {
                        "MTUBytes" => draft.mtu = netdev::mtu(entry)?.or(draft.mtu.take()),
                        "MACAddress" => draft.mac = netdev::mac(entry)?.or(draft.mac.take()),
                        _ => draft.notes.push(entry.not_applied()),
                    }
                }
            }
            Some(_) => draft.notes.extend(entries.iter().map(Entry::not_applied)),
        }
    }
    if network.unit.last("Network", "Bond").is_some() {
        let text = format!(
            "{}: {} makes the bond a slave, which xbond does not do",
            draft.name,
            network.unit.name()
        );
        let origin = draft.origin.clone();
        draft.note(&origin, text);
    }
    Ok(())
}

fn network_key(draft: &mut Draft, entry: &Entry) -> Result<(), ConfigError> {
    let name = draft.name.clone();
    match entry.key.as_str() {
        "Description" | "Bond" => {}
        "Address" if entry.value.is_empty() => draft.addresses.clear(),
        "Address" => address(draft, entry)?,
        "Gateway" if entry.value.is_empty() => draft.routes.clear(),
        "Gateway" => gateway(draft, entry, Destination::Default, None)?,
        "DHCP" if time::boolean(&entry.value) == Some(false) || entry.value == "none" => {}
        "DHCP" => {
            let text = format!(
                "{name}: {}: xbond sets fixed addresses only; run a DHCP client on {name}",
                entry.text()
            );
            draft.note(&entry.origin, text);
        }
        "Bridge" | "VRF" => {
            let text = format!(
                "{name}: {}: xbond makes no ports of other devices; add {name} to {} once it is up",
                entry.text(),
                entry.value
            );
            draft.note(&entry.origin, text);
        }
        key if ABOVE.contains(&key) => {
            let text = format!(
                "{} lies above {name}, and xbond does not make it; make it once {name} is up",
                entry.text()
            );
            draft.note(&entry.origin, text);
        }
        _ => draft.notes.push(entry.not_applied()),
    }
    Ok(())
}

fn address(draft: &mut Draft, entry: &Entry) -> Result<(), ConfigError> {
    const WANTED: &str = "an address with its prefix length, like 192.0.2.1/24";
    let address: IpNet = match entry.value.parse() {
        Ok(address) => address,
        Err(_) => {
            let host: std::net::IpAddr = entry.parsed(WANTED)?;
            let text = format!(
                "{}: {} has no prefix length, and so is a network of its own",
                draft.name,
                entry.text()
            );
            draft.note(&entry.origin, text);
            host.into()
        }
    };
    if address.addr().is_unspecified() {
        let text =
            format!("{}: {}: networkd chooses an address itself; xbond does not", draft.name, entry.text());
        draft.note(&entry.origin, text);
    } else {
        draft.addresses.push((address, entry.origin.clone()));
    }
    Ok(())
}

fn address_section(draft: &mut Draft, entries: &[Entry]) -> Result<(), ConfigError> {
    let peer = entries.iter().find(|entry| entry.key == "Peer" && !entry.value.is_empty());
    for entry in entries {
        match (entry.key.as_str(), peer) {
            ("Address", Some(peer)) => {
                let text =
                    format!("{}: {}: xbond sets no peer: the address is left out", draft.name, peer.text());
                draft.note(&entry.origin, text);
            }
            ("Address", None) => address(draft, entry)?,
            ("Peer", _) => {}
            _ => draft.notes.push(entry.not_applied()),
        }
    }
    Ok(())
}

/// The keys of a route whose gateway is on the link; the second one is an old spelling.
const ON_LINK: &[&str] = &["GatewayOnLink", "GatewayOnlink"];

/// Reads a route. One with a key that xbond's routes do not have would be another route without it.
fn route(draft: &mut Draft, entries: &[Entry]) -> Result<(), ConfigError> {
    let Some(first) = entries.first() else { return Ok(()) };
    let on_link = entries.iter().rfind(|entry| ON_LINK.contains(&entry.key.as_str()));
    let flag = on_link.and_then(|entry| time::boolean(&entry.value));
    let foreign = entries.iter().find(|entry| {
        let is_read = flag.is_some() && ON_LINK.contains(&entry.key.as_str());
        !is_read
            && !entry.value.is_empty()
            && !["Gateway", "Destination", "Metric"].contains(&entry.key.as_str())
    });
    if let Some(foreign) = foreign {
        let text = format!(
            "{}: a route with {} is left out: xbond's routes do not have that",
            draft.name,
            foreign.text()
        );
        draft.note(&foreign.origin, text);
        return Ok(());
    }
    let last = |key| entries.iter().rev().find(|entry| entry.key == key && !entry.value.is_empty());
    let metric = last("Metric").map(|entry| entry.parsed("a number")).transpose()?;
    let to = match last("Destination") {
        None => Destination::Default,
        Some(entry) => prefix(&entry.value).ok_or_else(|| entry.bad_value("a prefix like 192.0.2.0/24"))?,
    };
    let routes = draft.routes.len();
    match last("Gateway") {
        Some(entry) => gateway(draft, entry, to, metric)?,
        None => draft.routes.push((Route { to, via: None, metric }, first.origin.clone())),
    }
    if let Some(key) = on_link.filter(|_| flag == Some(true)) {
        let added = draft.routes.split_off(routes);
        let on_link = added.into_iter().map(|(route, origin)| OnLink { route, origin, key: key.text() });
        draft.on_link.extend(on_link);
    }
    Ok(())
}

fn gateway(
    draft: &mut Draft,
    entry: &Entry,
    to: Destination,
    metric: Option<u32>,
) -> Result<(), ConfigError> {
    if DYNAMIC.contains(&entry.value.as_str()) {
        let text = format!(
            "{}: {}: xbond takes no gateway from the network: route left out",
            draft.name,
            entry.text()
        );
        draft.note(&entry.origin, text);
        return Ok(());
    }
    let via = Some(entry.parsed("an address without a prefix length")?);
    draft.routes.push((Route { to, via, metric }, entry.origin.clone()));
    Ok(())
}

/// Parses a destination; a host has no prefix length, and `default` stands for all addresses.
pub(in crate::config::dialect) fn prefix(text: &str) -> Option<Destination> {
    if text == "default" {
        return Some(Destination::Default);
    }
    let prefix: IpNet = text.parse().ok().or_else(|| Some(text.parse::<std::net::IpAddr>().ok()?.into()))?;
    // Programs other than xbond cut off bits beyond the length.
    Some(Destination::Prefix(prefix.trunc()))
}
