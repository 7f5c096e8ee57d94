//! netplan: YAML files that are merged in the order of their names.
//!
//! Mappings are combined, lists are joined, later scalars win. A time without a unit is milliseconds, another one is
//! systemd's. Without `mii-monitor-interval` nothing is monitored.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    rc::Rc,
};

use bond_core::{name::InterfaceName, options};
use ipnet::IpNet;

use super::{
    draft::{Draft, check_number, differs, gather},
    files::{self, Files, at_file},
    networkd::{self, prefix},
    time,
    tree::{self, Content, Node, Pair},
};
use crate::config::{
    BondConfig, BondMac, Config, ConfigError, Destination, Note, Origin, Problem, Route, SlaveConfig,
};

/// The directories of netplan. A file hides that of the same name in a later one.
pub(super) const DIRECTORIES: &[&str] = &["/run/netplan", "/etc/netplan", "/usr/lib/netplan", "/lib/netplan"];

/// Nodes that a merge of all files may visit.
const MOST_MERGED: usize = 1_000_000;

/// Parameters whose values are the driver's words, and its options.
const WORDS: &[(&str, &str)] = &[
    ("mode", "mode"),
    ("fail-over-mac-policy", "fail_over_mac"),
    ("arp-validate", "arp_validate"),
    ("arp-all-targets", "arp_all_targets"),
    ("primary-reselect-policy", "primary_reselect"),
    ("resend-igmp", "resend_igmp"),
    ("gratuitous-arp", "num_grat_arp"),
    // As it was misspelled once.
    ("gratuitious-arp", "num_grat_arp"),
    ("min-links", "min_links"),
    ("transmit-hash-policy", "xmit_hash_policy"),
];

/// Parameters whose values are times, and the driver's options in milliseconds.
const TIMES: &[(&str, &str)] = &[
    ("mii-monitor-interval", "miimon"),
    ("up-delay", "updelay"),
    ("down-delay", "downdelay"),
    ("arp-interval", "arp_interval"),
];

const OF_OTHER_MODES: &[&str] =
    &["lacp-rate", "ad-select", "packets-per-slave", "packets-per-member", "learn-packet-interval"];

/// Kinds of devices that can be named as an interface of a bond, in addition to `ethernets`.
const OTHER_KINDS: &[&str] = &[
    "vlans",
    "bridges",
    "bonds",
    "tunnels",
    "vrfs",
    "wifis",
    "dummy-devices",
    "virtual-ethernets",
    "nm-devices",
];

/// Keys of a route that make it another one than xbond can set.
const OF_OTHER_ROUTES: &[&str] = &[
    "from",
    "on-link",
    "scope",
    "table",
    "type",
    "mtu",
    "congestion-window",
    "advertised-receive-window",
    "advertised-mss",
];

/// Reads the bonds of files, or of directories in the order of their precedence.
///
/// # Errors
/// No bond of active-backup is in them, or a file cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let mut files = Files::default();
    let mut merged: Option<Rc<Node>> = None;
    let mut budget = MOST_MERGED;
    for path in files::named(paths, |name| name.ends_with(".yaml"))? {
        let root = tree::yaml(&path, &files.text(&path)?)?;
        files.count(root.nodes(), &path)?;
        if root.is_null() {
            continue;
        }
        if root.pairs().is_empty() || root.get("network").is_none() {
            return Err(root.refuse("no key network at the top, and netplan has that"));
        }
        let before = merged.unwrap_or_else(|| root.with(Content::Map(Vec::new())));
        merged = Some(merge(&before, &root, &mut budget)?);
    }
    let none = || {
        let path = paths.first().cloned().unwrap_or_default();
        at_file(&path, Problem::Unsupported("no bond under network.bonds in any file".to_owned()))
    };
    let Some(network) = merged.as_ref().and_then(|root| root.get("network")) else { return Err(none()) };
    if let Some(version) = network.get("version").filter(|version| version.text() != Some("2")) {
        let text = version.text().unwrap_or_default();
        return Err(version
            .refuse(format!("version = {text}: netplan's files have version 2, and cloud-init's others")));
    }
    let bonds = network.get("bonds").map(|bonds| bonds.mapping("bonds")).transpose()?.unwrap_or_default();
    check_number(bonds.len(), || network.origin())?;
    let devices = Devices::of(network);
    let mut notes = above(network, bonds);
    notes.extend(network.get("renderer").filter(|renderer| renderer.text() == Some("NetworkManager")).map(
        |renderer| {
            let text = "renderer: NetworkManager: times with a unit are read as by networkd";
            differs(&renderer.origin(), text)
        },
    ));
    gather(bonds.iter().map(|pair| bond(pair, &devices)).collect(), notes, none)
}

/// Merges two trees of files.
fn merge(first: &Rc<Node>, second: &Rc<Node>, budget: &mut usize) -> Result<Rc<Node>, ConfigError> {
    *budget = budget.checked_sub(1).ok_or_else(|| second.refuse("merging the files takes too many steps"))?;
    let content = match (&first.content, &second.content) {
        (Content::Map(first), Content::Map(_)) => {
            let mut pairs = first.clone();
            for pair in second.pairs() {
                match pairs.iter_mut().find(|known| known.key == pair.key) {
                    Some(known) => known.value = merge(&known.value, &pair.value, budget)?,
                    None if matches!(pair.value.content, Content::Map(_)) => {
                        // A mapping can have a key twice, and netplan merges these, too.
                        let value = merge(&pair.value.with(Content::Map(Vec::new())), &pair.value, budget)?;
                        pairs.push(Pair { value, ..pair.clone() });
                    }
                    None => pairs.push(pair.clone()),
                }
            }
            Content::Map(pairs)
        }
        (Content::List(first), Content::List(second)) => {
            Content::List(first.iter().chain(second).map(Rc::clone).collect())
        }
        _ => return Ok(Rc::clone(second)),
    };
    Ok(second.with(content))
}

/// The devices of the files by their ids, which bonds name.
struct Devices<'a> {
    network: &'a Node,
    /// Those under `ethernets`; null is a device without keys.
    ethernets: HashMap<&'a str, &'a Node>,
    others: HashSet<&'a str>,
}

impl<'a> Devices<'a> {
    fn of(network: &'a Node) -> Self {
        let of_kind = |kind: &str| network.get(kind).map(|all| all.pairs()).unwrap_or_default().iter();
        let ethernets = of_kind("ethernets").map(|pair| (pair.key.as_str(), &*pair.value)).collect();
        let others = OTHER_KINDS.iter().flat_map(|kind| of_kind(kind));
        let others = others.filter(|pair| !pair.value.is_null()).map(|pair| pair.key.as_str()).collect();
        Self { network, ethernets, others }
    }

    /// Returns the keys of an id under `ethernets`, if it has some.
    fn ethernet(&self, id: &str) -> Option<&'a Node> {
        self.ethernets.get(id).copied().filter(|definition| !definition.is_null())
    }

    /// Whether an id is of any kind.
    fn has(&self, id: &str) -> bool {
        self.ethernets.contains_key(id) || self.others.contains(id)
    }
}

fn bond(pair: &Pair, devices: &Devices) -> Result<BondConfig, ConfigError> {
    let mut draft = Draft::new(&pair.key, pair.origin.clone());
    let definition = &pair.value;
    let renderer = definition.get("renderer").or_else(|| devices.network.get("renderer"));
    let backend = match renderer.and_then(|renderer| renderer.text()) {
        Some("NetworkManager") => Backend::NetworkManager,
        _ => Backend::Networkd,
    };
    for pair in definition.mapping(&pair.key)? {
        key_of_bond(&mut draft, pair, devices, backend)?;
    }
    if backend == Backend::Networkd && draft.mac.is_none() {
        draft.note_mac_of_networkd("macaddress");
    }
    draft.finish("write mode: active-backup under parameters")
}

/// For which program netplan writes the files of a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backend {
    Networkd,
    NetworkManager,
}

fn key_of_bond(
    draft: &mut Draft,
    pair: &Pair,
    devices: &Devices,
    backend: Backend,
) -> Result<(), ConfigError> {
    let (value, origin, name) = (&pair.value, &pair.origin, draft.name.clone());
    if value.is_null() {
        return Ok(());
    }
    match pair.key.as_str() {
        "interfaces" => {
            for item in value.list("interfaces")? {
                interface(draft, item, devices)?;
            }
        }
        "parameters" => {
            for parameter in
                value.mapping("parameters")?.iter().filter(|parameter| !parameter.value.is_null())
            {
                self::parameter(draft, parameter, devices, backend)?;
            }
        }
        "addresses" => {
            for item in value.list("addresses")? {
                address(draft, item)?;
            }
        }
        "routes" => {
            for item in value.list("routes")? {
                route(draft, item)?;
            }
        }
        "gateway4" | "gateway6" => {
            let via = Some(value.parsed(&pair.key, "an address without a prefix length")?);
            draft.route(Route { to: Destination::Default, via, metric: None }, origin.clone())?;
        }
        "macaddress" => draft.mac = Some((BondMac::Address(mac(value, &pair.key)?), origin.clone())),
        "mtu" => draft.mtu = Some((value.parsed(&pair.key, "a number of bytes")?, origin.clone())),
        "dhcp4" | "dhcp6" if value.boolean() == Some(false) => {}
        "dhcp4" | "dhcp6" => {
            let text =
                format!("{name}: {}: xbond sets fixed addresses only; run a DHCP client on {name}", pair.key);
            draft.note(origin, text);
        }
        "openvswitch" => {
            return Err(value.refuse(format!("{name}: a bond of Open vSwitch, which xbond does not make")));
        }
        "renderer" => {}
        _ => draft.notes.push(not_applied(pair)),
    }
    Ok(())
}

fn not_applied(pair: &Pair) -> Note {
    Note::NotApplied { origin: pair.origin.clone(), key: pair.key.clone() }
}

fn parameter(draft: &mut Draft, pair: &Pair, devices: &Devices, backend: Backend) -> Result<(), ConfigError> {
    let (key, value, origin) = (pair.key.as_str(), &pair.value, &pair.origin);
    let words = WORDS.iter().find(|(name, _)| *name == key);
    let time = TIMES.iter().find(|(name, _)| *name == key);
    match (key, words, time) {
        (_, Some((_, option)), _) => {
            word(draft, pair, option, backend)?;
        }
        (_, _, Some((_, option))) => {
            let text = value.require_text(key)?;
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let ms = if digits { text.parse().ok() } else { time::milliseconds(text) };
            let ms: u32 = match ms {
                Some(ms) => ms,
                None => {
                    return value
                        .parsed::<u32>(key, "a number of milliseconds, or a time span like 100ms")
                        .map(drop);
                }
            };
            draft.set(option, ms, format!("{key}: {text}"), origin);
        }
        ("primary", ..) => {
            let id = value.require_text(key)?;
            // An id, not a name.
            let name = resolve(id, devices).ok().flatten().map(|slave| slave.name.to_string());
            draft.set("primary", name.as_deref().unwrap_or(id), format!("{key}: {id}"), origin);
        }
        ("all-slaves-active" | "all-members-active", ..) => {
            let wanted = "true or false";
            let Some(flag) = value.boolean() else { return value.parsed::<bool>(key, wanted).map(drop) };
            draft.set("all_slaves_active", u8::from(flag), format!("{key}: {flag}"), origin);
        }
        ("arp-ip-targets", ..) => {
            for target in value.list(key)? {
                let text = target.require_text(key)?;
                draft.target("arp_ip_target", text, format!("{key}: {text}"), &target.origin())?;
            }
        }
        _ if OF_OTHER_MODES.contains(&key) => {
            draft.note(origin, format!("{}: {key} has no effect in active-backup", draft.name));
        }
        _ => {
            let names = WORDS.iter().chain(TIMES).map(|(name, _)| *name).chain(["primary", "arp-ip-targets"]);
            let suggestion = options::closest(key, names).map(|name| format!("; is {name} meant?"));
            let text = format!(
                "{}: {key}: no parameter of a bond, and netplan refuses it: left out{}",
                draft.name,
                suggestion.unwrap_or_default()
            );
            draft.note(origin, text);
        }
    }
    Ok(())
}

/// Sets an option to a word, as far as the program takes it for which netplan writes files.
fn word(draft: &mut Draft, pair: &Pair, option: &str, backend: Backend) -> Result<(), ConfigError> {
    let Pair { key, origin, value } = pair;
    let text = value.require_text(key)?;
    let written = format!("{key}: {text}");
    if option == "mode" && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let name = &draft.name;
        return Err(value.refuse(format!("{name}: {written}: netplan takes the names of modes only")));
    }
    match backend {
        Backend::Networkd => networkd::word(draft, option, text, written, origin),
        Backend::NetworkManager => {
            draft.set(option, text, written, origin);
            Ok(())
        }
    }
}

fn mac(node: &Node, key: &str) -> Result<bond_common::mac::Mac, ConfigError> {
    node.parsed(key, "a MAC address of the form 08:00:27:e8:26:58")
}

/// Returns the interface that an id stands for.
///
/// # Errors
/// Why its name is not in the files, as the end of a sentence.
fn resolve(id: &str, devices: &Devices) -> Result<Option<SlaveConfig>, String> {
    let named = |name: &str| {
        InterfaceName::new(name).map(SlaveConfig::new).map_err(|error| format!("its name {}", error.fault))
    };
    let Some(definition) = devices.ethernet(id) else {
        return named(id).map(|slave| devices.has(id).then_some(slave));
    };
    let matches = definition.get("match");
    let set_name = definition.get("set-name").and_then(|name| name.text());
    let of_match = |key: &str| matches.and_then(|matches| matches.get(key)).and_then(|node| node.text());
    let name = set_name.or_else(|| of_match("name"));
    let mut slave = match (name, matches) {
        (None, None) => named(id)?,
        (None, Some(_)) => return Err("is found by match without a name, and xbond goes by names".to_owned()),
        (Some(name), _) if name.contains(['*', '?', '[']) => {
            return Err(format!(
                "fits several NICs ({name}), and which of them there are is not in the file"
            ));
        }
        (Some(name), _) => named(name)?,
    };
    slave.hwaddr = of_match("macaddress").and_then(|mac| mac.parse().ok());
    Ok(Some(slave))
}

fn interface(draft: &mut Draft, item: &Node, devices: &Devices) -> Result<(), ConfigError> {
    let id = item.require_text("interfaces")?;
    let name = draft.name.clone();
    let mut slave = match resolve(id, devices) {
        Ok(Some(slave)) => slave,
        Ok(None) => {
            let text = format!(
                "{name}: {id} is not under ethernets, which netplan refuses; taken for the name of a NIC"
            );
            draft.note(&item.origin(), text);
            SlaveConfig::new(
                InterfaceName::new(id).map_err(|error| ConfigError::new(item.origin(), error.into()))?,
            )
        }
        Err(why) => {
            let text = format!("{name}: {id} {why}: left out; add the names of its NICs to slaves");
            draft.note(&item.origin(), text);
            return Ok(());
        }
    };
    for pair in devices.ethernet(id).map(|definition| definition.pairs()).unwrap_or_default() {
        match pair.key.as_str() {
            _ if pair.value.is_null() => {}
            "macaddress" => slave.mac = Some(mac(&pair.value, &pair.key)?),
            "mtu" => slave.mtu = Some(pair.value.parsed(&pair.key, "a number of bytes")?),
            "match" => {
                let others = pair
                    .value
                    .pairs()
                    .iter()
                    .filter(|pair| !["name", "macaddress"].contains(&pair.key.as_str()));
                draft.notes.extend(others.map(not_applied));
            }
            "set-name" => {}
            "dhcp4" | "dhcp6" if pair.value.boolean() == Some(false) => {}
            _ => draft.notes.push(not_applied(pair)),
        }
    }
    draft.slave(slave, item.origin())
}

fn address(draft: &mut Draft, item: &Node) -> Result<(), ConfigError> {
    const WANTED: &str = "an address with its prefix length, like 192.0.2.1/24";
    // With options, an address is the key of a mapping.
    let (text, origin) = match (item.text(), item.pairs()) {
        (Some(text), _) => (text, item.origin()),
        (None, [pair]) => {
            draft.notes.extend(pair.value.pairs().iter().map(not_applied));
            (pair.key.as_str(), pair.origin.clone())
        }
        _ => return item.parsed::<IpNet>("addresses", WANTED).map(drop),
    };
    let address = text.parse().map_err(|_| {
        let (key, value) = ("addresses".to_owned(), text.to_owned());
        ConfigError::new(origin.clone(), Problem::BadValue { key, value, wanted: WANTED.to_owned() })
    })?;
    draft.address(address, origin)
}

fn route(draft: &mut Draft, item: &Node) -> Result<(), ConfigError> {
    // Without a gateway, netplan wants a scope, and this one is the usual.
    let is_on_link =
        |pair: &&Pair| pair.key == "scope" && pair.value.text() == Some("link") && item.get("via").is_none();
    let mut others =
        item.mapping("routes")?.iter().filter(|pair| OF_OTHER_ROUTES.contains(&pair.key.as_str()));
    let on_link = item.get("on-link").and_then(|flag| flag.boolean());
    let is_read = |pair: &&Pair| is_on_link(pair) || (pair.key == "on-link" && on_link.is_some());
    if let Some(other) = others.find(|pair| !is_read(pair)) {
        let text = format!(
            "{}: a route with {} is left out: xbond's routes do not have that",
            draft.name, other.key
        );
        draft.note(&other.origin, text);
        return Ok(());
    }
    let to = item.get("to").ok_or_else(|| item.refuse("a route without to"))?;
    let to = match prefix(to.require_text("to")?) {
        Some(prefix) => prefix,
        None => return to.parsed::<IpNet>("to", "default, or a prefix like 192.0.2.0/24").map(drop),
    };
    let via =
        item.get("via").map(|via| via.parsed("via", "an address without a prefix length")).transpose()?;
    let metric = item.get("metric").map(|metric| metric.parsed("metric", "a number")).transpose()?;
    let (route, origin) = (Route { to, via, metric }, item.origin());
    match on_link {
        Some(true) => draft.route_on_link(route, origin, "on-link".to_owned()),
        Some(false) | None => draft.route(route, origin),
    }
}

/// Returns notes about devices above bonds.
fn above(network: &Node, bonds: &[Pair]) -> Vec<Note> {
    let bonds: HashSet<&str> = bonds.iter().map(|bond| bond.key.as_str()).collect();
    let is_bond = |id: &str| bonds.contains(id);
    let mut notes = Vec::new();
    for vlan in network.get("vlans").map(|vlans| vlans.pairs()).unwrap_or_default() {
        let Some(link) = vlan.value.get("link") else { continue };
        if let Some(bond) = link.text().filter(|id| is_bond(id)) {
            let (origin, bond, vlan): (Origin, _, _) = (link.origin(), bond.to_owned(), vlan.key.clone());
            notes.push(Note::VlanAbove { origin, bond, vlan });
        }
    }
    for kind in ["bridges", "bonds", "vrfs"] {
        for upper in network.get(kind).map(|uppers| uppers.pairs()).unwrap_or_default() {
            let ports = upper.value.get("interfaces").map(|ports| ports.items()).unwrap_or_default();
            for port in ports {
                if let Some(bond) = port.text().filter(|id| is_bond(id)) {
                    let text = format!(
                        "{bond} is an interface of {} ({kind}), which xbond does not make; add it once {bond} is up",
                        upper.key
                    );
                    notes.push(differs(&port.origin(), text));
                }
            }
        }
    }
    notes
}
