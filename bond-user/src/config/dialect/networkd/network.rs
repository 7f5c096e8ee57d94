//! Reads `.network` files: which NICs are slaves, and the addresses of the bond.

use bond_core::name::InterfaceName;
use ipnet::IpNet;

use super::{Unit, netdev};
use crate::config::{
    ConfigError, Destination, Note, Origin, Problem, Route, SlaveConfig,
    dialect::{draft::Draft, ini::Entry, time},
};

/// Keys of `[Network]` that name a device above the bond.
const ABOVE: &[&str] = &["VLAN", "MACVLAN", "MACVTAP", "IPVLAN", "IPVTAP", "VXLAN"];

/// Values of a gateway that come from the network.
const DYNAMIC: &[&str] = &["_dhcp", "_dhcp4", "_dhcp6", "_ipv6ra"];

/// The most names and patterns of all `.network` files: each slave is compared with those before it.
const MOST_NAMES: usize = 4096;

/// A name or a pattern of `[Match]`.
struct Name {
    text: String,
    origin: Origin,
    /// The pattern, without the mark that excludes what it fits; `None` of a plain name.
    pattern: Option<glob::Pattern>,
    excludes: bool,
}

impl Name {
    fn new(text: &str, origin: &Origin) -> Self {
        let (excludes, pattern) = text.strip_prefix('!').map_or((false, text), |pattern| (true, pattern));
        // A pattern that is none fits nothing, as a name with such characters.
        let is_pattern = pattern.contains(['*', '?', '[']);
        let pattern = is_pattern.then(|| glob::Pattern::new(pattern).ok()).flatten();
        Self { text: text.to_owned(), origin: origin.clone(), pattern, excludes }
    }

    fn fits(&self, name: &str) -> bool {
        match &self.pattern {
            Some(pattern) => pattern.matches(name),
            None => self.text.strip_prefix('!').unwrap_or(&self.text) == name,
        }
    }
}

/// A `.network` file.
pub(super) struct Network {
    unit: Unit,
    /// The names that it fits, some of them with wildcards.
    names: Vec<Name>,
    /// The kinds of devices that it fits (`Kind=`), and their types (`Type=`). A bond is both a bond.
    kinds: [Vec<Name>; 2],
    /// Another condition, if there is one.
    condition: Option<Entry>,
}

impl Network {
    pub(super) fn new(unit: Unit) -> Self {
        let words = |entry: &Entry| {
            // The mark is that of the whole list.
            let (mark, list) = entry.value.strip_prefix('!').map_or(("", &*entry.value), |list| ("!", list));
            let words = list.split_whitespace().map(|word| format!("{mark}{}", word.trim_matches('"')));
            words.map(|word| Name::new(&word, &entry.origin)).collect::<Vec<_>>()
        };
        let names = unit.all("Match", "Name").into_iter().flat_map(words).collect();
        let kinds = ["Kind", "Type"].map(|key| unit.all("Match", key).into_iter().flat_map(words).collect());
        let is_condition = |entry: &&Entry| {
            entry.section == "Match"
                && !["Name", "Kind", "Type"].contains(&entry.key.as_str())
                && !entry.value.is_empty()
        };
        let condition = unit.entries.iter().find(is_condition).cloned();
        Self { unit, names, kinds, condition }
    }

    /// Returns the assignment that makes the file one of slaves.
    pub(super) fn bond(&self) -> Option<&Entry> {
        self.unit.last("Network", "Bond")
    }

    /// Whether the file certainly fits an interface of this name, whatever it is.
    fn fits(&self, name: &str) -> bool {
        self.condition.is_none() && self.kinds.iter().all(Vec::is_empty) && fits(&self.names, name)
    }

    /// Whether the file fits a bond of this name, if its other conditions are met.
    fn may_fit_bond(&self, name: &str) -> bool {
        let lists = self.kinds.iter().map(|kinds| (kinds, "bond")).chain([(&self.names, name)]);
        let mut given = lists.filter(|(list, _)| !list.is_empty()).peekable();
        given.peek().is_some() && given.all(|(list, text)| fits(list, text))
    }
}

/// Whether a list of `[Match]` fits a text: one of its patterns does, unless all exclude something, and none excludes it.
fn fits(list: &[Name], text: &str) -> bool {
    let among = |excluded: bool| list.iter().filter(move |pattern| pattern.excludes == excluded);
    let is_all_but = among(false).next().is_none() && !list.is_empty();
    (is_all_but || among(false).any(|pattern| pattern.fits(text)))
        && !among(true).any(|pattern| pattern.fits(text))
}

/// Checks how many names the files have together.
///
/// # Errors
/// They are too many; the error has the line with which they are.
pub(super) fn check_names(networks: &[Network]) -> Result<(), ConfigError> {
    match networks.iter().flat_map(|network| &network.names).nth(MOST_NAMES) {
        None => Ok(()),
        Some(name) => {
            let text =
                format!("with this line, the files have more than {MOST_NAMES} names in [Match], the limit");
            Err(ConfigError::new(name.origin.clone(), Problem::Unsupported(text)))
        }
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
                draft.slave(slave, of.origin.clone())?;
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
    for Name { text: name, origin, .. } in &network.names {
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
    let (mut chosen, name) = (None, draft.name.clone());
    for network in networks.iter().filter(|network| network.may_fit_bond(&name)) {
        let Some(condition) = &network.condition else {
            chosen = Some(network);
            break;
        };
        let text = format!(
            "{name}: [Match] {}: whether this fits {name} is not in the files: left out",
            condition.text()
        );
        draft.note(&condition.origin, text);
    }
    let Some(network) = chosen else { return Ok(()) };
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
        draft.address(address, entry.origin.clone())?;
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
        None => draft.route(Route { to, via: None, metric }, first.origin.clone())?,
    }
    if let Some(key) = on_link.filter(|_| flag == Some(true)) {
        for (route, origin) in draft.routes.split_off(routes) {
            draft.route_on_link(route, origin, key.text())?;
        }
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
    draft.route(Route { to, via, metric }, entry.origin.clone())
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
