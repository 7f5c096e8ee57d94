//! NetworkManager: keyfiles (`*.nmconnection`), one a connection.
//!
//! A port names its controller by interface name or by the UUID of its connection, in old words (`master`, `slave-type`) or new
//! ones (`controller`, `port-type`). The options of `[bond]` are the driver's, but miimon is 100 unless it, or an ARP monitor,
//! is set. Ports are enslaved in the order of their names.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
};

use bond_core::{
    name::InterfaceName,
    options::{self, SlaveOptions},
};
use ipnet::IpNet;

use super::{
    draft::{Draft, check_number, differs, gather},
    files::{self, Files, at_file},
    ini::{self, Entry, Rules},
    networkd::prefix,
};
use crate::config::{
    BondConfig, BondMac, Config, ConfigError, Destination, Note, Origin, Problem, Route, SlaveConfig,
};

/// The directories of keyfiles, the first of which wins.
pub(super) const DIRECTORIES: &[&str] = &[
    "/etc/NetworkManager/system-connections",
    "/run/NetworkManager/system-connections",
    "/usr/lib/NetworkManager/system-connections",
];

/// What NetworkManager sets where nothing is monitored otherwise, in milliseconds.
pub(super) const DEFAULT_MIIMON: u32 = 100;

/// Options of `[bond]` for other modes, which NetworkManager leaves out in active-backup.
const OF_OTHER_MODES: &[&str] = &[
    "ad_actor_sys_prio",
    "ad_actor_system",
    "ad_user_port_key",
    "balance-slb",
    "lacp_active",
    "lacp_rate",
    "packets_per_slave",
    "tlb_dynamic_lb",
];

/// Keys that describe the connection, and not the interface.
const OF_CONNECTION: &[&str] = &[
    "id",
    "uuid",
    "type",
    "interface-name",
    "timestamp",
    "autoconnect",
    "autoconnect-priority",
    "autoconnect-slaves",
    "autoconnect-ports",
    "permissions",
    "master",
    "controller",
    "slave-type",
    "port-type",
];

/// Sections of an Ethernet device, in both spellings.
const ETHERNET: &[&str] = &["ethernet", "802-3-ethernet"];

/// A keyfile.
struct Connection {
    path: PathBuf,
    entries: Vec<Entry>,
    /// The place of the last value of each key, by its section.
    last: HashMap<String, HashMap<String, usize>>,
}

impl Connection {
    fn new(path: PathBuf, entries: Vec<Entry>) -> Self {
        let mut last: HashMap<String, HashMap<String, usize>> = HashMap::new();
        for (place, entry) in entries.iter().enumerate() {
            last.entry(entry.section.clone()).or_default().insert(entry.key.clone(), place);
        }
        Self { path, entries, last }
    }

    /// Returns the last value of a key of a section; GKeyFile merges sections of one name.
    fn get(&self, section: &str, key: &str) -> Option<&Entry> {
        let place = self.last.get(section)?.get(key)?;
        self.entries.get(*place).filter(|entry| !entry.value.is_empty())
    }

    /// Returns the entries that no later one replaces, in their order.
    fn effective(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| {
            self.get(&entry.section, &entry.key).is_some_and(|last| std::ptr::eq(last, *entry))
        })
    }

    /// Returns the first of several spellings of a key of `[connection]`.
    fn either(&self, keys: &[&str]) -> Option<&Entry> {
        keys.iter().find_map(|key| self.get("connection", key))
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.get("connection", key).map(|entry| entry.value.as_str())
    }

    fn is_bond(&self) -> bool {
        self.value("type") == Some("bond")
    }

    /// Returns the name of the interface. Old files of bonds have it in `[bond]`.
    fn interface(&self) -> Option<&Entry> {
        self.get("connection", "interface-name").or_else(|| self.get("bond", "interface-name"))
    }

    fn is(&self, key: &str, wanted: &str) -> bool {
        self.value(key) == Some(wanted)
    }

    fn origin(&self) -> Origin {
        Origin::File { path: self.path.clone(), line: None }
    }
}

/// Reads the bonds of files, or of directories in the order of their precedence.
///
/// # Errors
/// No bond of active-backup is in them, or a file cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut files, mut notes, mut connections) = (Files::default(), Vec::new(), Vec::new());
    for path in files::named(paths, is_connection)? {
        if files::is_null(&path)? {
            continue;
        }
        let text = files.text(&path)?;
        match ini::parse(&path, &text, Rules::Keyfile, &mut notes) {
            Ok(entries) => {
                files.count(entries.len(), &path)?;
                connections.push(Connection::new(path, entries));
            }
            // NetworkManager leaves out such a file alone, too.
            Err(error) if paths.contains(&path) || text.contains("bond") => return Err(error),
            Err(error) => notes.push(differs(&error.origin, format!("left out: {}", error.problem))),
        }
    }
    let bonds: Vec<_> = connections.iter().filter(|connection| connection.is_bond()).collect();
    check_number(bonds.len(), || Origin::File {
        path: paths.first().cloned().unwrap_or_default(),
        line: None,
    })?;
    notes.extend(connections.iter().filter_map(|port| stray_port(port, &bonds)));
    notes.extend(connections.iter().filter_map(|upper| above(upper, &bonds)));
    let on_boot = |bond: &&&Connection| bond.value("autoconnect") != Some("false");
    notes.extend(bonds.iter().filter(|bond| !on_boot(bond)).filter_map(|bond| {
        let key = bond.get("connection", "autoconnect")?;
        let name = bond.interface().map(|entry| entry.value.clone()).unwrap_or_default();
        let (origin, value) = (key.origin.clone(), key.value.clone());
        Some(Note::NotOnBoot { origin, bond: name, key: "autoconnect", value })
    }));
    let read = bonds.iter().filter(on_boot).map(|connection| bond(connection, &connections)).collect();
    let none = || {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        at_file(path, Problem::Unsupported("no connection of type=bond that connects by itself".to_owned()))
    };
    gather(read, notes, none)
}

/// Whether NetworkManager takes a file of this name for a connection.
fn is_connection(name: &str) -> bool {
    let ignored = [
        "~",
        ".bak",
        ".old",
        ".orig",
        ".rpmnew",
        ".rpmorig",
        ".rpmsave",
        ".dpkg-old",
        ".dpkg-dist",
        ".pem",
        ".der",
        ".nmmeta",
        ".snap",
    ];
    !name.starts_with('.') && !ignored.iter().any(|suffix| name.ends_with(suffix))
}

/// Returns the controller that a port names.
fn controller(port: &Connection) -> Option<&Entry> {
    port.either(&["controller", "master"])
}

/// Whether `port` belongs to `bond`, by its interface name or UUID.
fn is_port_of(port: &Connection, bond: &Connection) -> bool {
    let Some(named) = controller(port) else { return false };
    let is_of_bond = port.either(&["port-type", "slave-type"]).is_none_or(|kind| kind.value == "bond");
    is_of_bond
        && (bond.interface().is_some_and(|name| name.value == named.value) || bond.is("uuid", &named.value))
}

/// Returns a note about a port of a bond that is in no file.
fn stray_port(port: &Connection, bonds: &[&Connection]) -> Option<Note> {
    let named = controller(port)?;
    let kind = port.either(&["port-type", "slave-type"]);
    if kind.is_some_and(|kind| kind.value != "bond") || bonds.iter().any(|bond| is_port_of(port, bond)) {
        return None;
    }
    let by_id = bonds.iter().any(|bond| bond.is("id", &named.value));
    let text = if by_id {
        format!(
            "{}: the id of a bond, and NetworkManager goes by its interface or UUID: left out; write one of them",
            named.text()
        )
    } else {
        format!("{}: no connection here is that bond's: left out", named.text())
    };
    Some(differs(&named.origin, text))
}

/// Returns a note about a device above a bond.
fn above(upper: &Connection, bonds: &[&Connection]) -> Option<Note> {
    let parent = ["vlan", "macvlan"].iter().find_map(|section| upper.get(section, "parent"))?;
    let is_below = |bond: &&&Connection| {
        bond.interface().is_some_and(|name| name.value == parent.value) || bond.is("uuid", &parent.value)
    };
    let bond = bonds.iter().find(is_below)?.interface()?.value.clone();
    let vlan = upper.interface().or(upper.get("connection", "id")).map(|entry| entry.value.clone())?;
    Some(Note::VlanAbove { origin: parent.origin.clone(), bond, vlan })
}

fn bond(connection: &Connection, all: &[Connection]) -> Result<BondConfig, ConfigError> {
    let Some(name) = connection.interface() else {
        return Err(ConfigError::new(
            connection.origin(),
            Problem::Missing { key: "interface-name in [connection]" },
        ));
    };
    let mut draft = Draft::new(&name.value, name.origin.clone());
    let mut ports: Vec<_> = all.iter().filter(|port| is_port_of(port, connection)).collect();
    ports.sort_by_key(|port| port.interface().map(|name| name.value.clone()));
    for port in ports {
        slave(&mut draft, port)?;
    }
    for entry in connection.effective() {
        bond_key(&mut draft, connection, entry)?;
    }
    monitor(&mut draft, connection);
    if let Some(named) = controller(connection) {
        let text = format!(
            "{}: {}: xbond makes no ports of other devices; add {} to it once it is up",
            draft.name,
            named.text(),
            draft.name
        );
        draft.note(&named.origin, text);
    }
    draft.finish("write mode=active-backup in [bond]")
}

/// Applies NetworkManager's rules for two monitors, and for none.
fn monitor(draft: &mut Draft, connection: &Connection) {
    let is_set = |key: &str| draft.option(key).is_some_and(|value| value.trim() != "0");
    let (miimon, arp) = (is_set("miimon"), is_set("arp_interval"));
    let origin = connection
        .get("bond", "arp_interval")
        .map_or_else(|| connection.origin(), |entry| entry.origin.clone());
    if miimon && arp {
        let text =
            format!("{}: arp_interval is ignored, as by NetworkManager, because miimon is set", draft.name);
        draft.note(&origin, text);
        for key in ["arp_interval", "arp_ip_target", "ns_ip6_target", "arp_validate", "arp_all_targets"] {
            draft.unset(key);
        }
    } else if draft.option("miimon").is_none() && !arp {
        draft.set("miimon", DEFAULT_MIIMON, "no miimon", &draft.origin.clone());
    }
}

fn bond_key(draft: &mut Draft, connection: &Connection, entry: &Entry) -> Result<(), ConfigError> {
    let value = unescaped(&entry.value);
    match (entry.section.as_str(), entry.key.as_str()) {
        (_, _) if entry.value.is_empty() => {}
        ("connection", key) if OF_CONNECTION.contains(&key) => {}
        ("bond", "interface-name") => {}
        ("bond", "active_slave") => {
            if connection.get("bond", "primary").is_none() {
                let text = format!("{}: {} means primary to NetworkManager", draft.name, entry.text());
                draft.note(&entry.origin, text);
                draft.set("primary", value, entry.text(), &entry.origin);
            }
        }
        ("bond", "num_unsol_na") if connection.get("bond", "num_grat_arp").is_some() => {}
        ("bond", key @ ("arp_ip_target" | "ns_ip6_target")) => {
            if value.contains([' ', ';']) {
                let text = format!(
                    "{}: {}: NetworkManager wants commas between the targets",
                    draft.name,
                    entry.text()
                );
                draft.note(&entry.origin, text);
            }
            for target in value.split([',', ' ', ';']).filter(|target| !target.is_empty()) {
                draft.target(key, target, entry.text(), &entry.origin)?;
            }
        }
        ("bond", key) if OF_OTHER_MODES.contains(&key) => {
            let text = format!("{}: {} has no effect in active-backup", draft.name, entry.text());
            draft.note(&entry.origin, text);
        }
        ("bond", key) if options::KEYS.contains(&key) => draft.set(key, value, entry.text(), &entry.origin),
        ("bond", key) => {
            let suggestion = options::closest(key, options::KEYS.iter().copied());
            let suggestion = suggestion.map(|key| format!("; is {key} meant?")).unwrap_or_default();
            let text = format!("{}: {}: no option of a bond: left out{suggestion}", draft.name, entry.text());
            draft.note(&entry.origin, text);
        }
        (section, "mtu") if ETHERNET.contains(&section) => {
            let mtu: u32 = entry.parsed("a number of bytes")?;
            // 0 is no MTU to NetworkManager.
            draft.mtu = (mtu > 0).then(|| (mtu, entry.origin.clone()));
        }
        (section, "cloned-mac-address") if ETHERNET.contains(&section) => {
            draft.mac =
                mac(entry, &mut draft.notes)?.map(|mac| (BondMac::Address(mac), entry.origin.clone()));
        }
        ("ipv4" | "ipv6", _) => ip(draft, connection, entry)?,
        ("proxy", _) => {}
        _ => draft.notes.push(entry.not_applied()),
    }
    Ok(())
}

/// Returns a MAC address; `None` for one of NetworkManager's words for others, with a note.
fn mac(entry: &Entry, notes: &mut Vec<Note>) -> Result<Option<bond_common::mac::Mac>, ConfigError> {
    const WORDS: &[&str] = &["permanent", "preserve", "random", "stable", "stable-ssid"];
    if WORDS.contains(&entry.value.as_str()) {
        if !["permanent", "preserve"].contains(&entry.value.as_str()) {
            notes.push(entry.not_applied());
        }
        return Ok(None);
    }
    entry.parsed("a MAC address of the form 08:00:27:e8:26:58").map(Some)
}

fn slave(draft: &mut Draft, port: &Connection) -> Result<(), ConfigError> {
    let origin = controller(port).map_or_else(|| port.origin(), |entry| entry.origin.clone());
    let kind = port.value("type").unwrap_or_default();
    if kind == "infiniband" {
        let text =
            format!("{}: a port of InfiniBand: left out: xbond enslaves Ethernet devices only", draft.name);
        draft.note(&origin, text);
        return Ok(());
    }
    let Some(name) = port.interface() else {
        let text = format!(
            "{}: a port without interface-name, and xbond goes by names: left out; add the name of its NIC to slaves",
            draft.name
        );
        draft.note(&origin, text);
        return Ok(());
    };
    let checked = InterfaceName::new(unescaped(&name.value));
    let mut slave =
        SlaveConfig::new(checked.map_err(|error| ConfigError::new(name.origin.clone(), error.into()))?);
    for entry in port.effective() {
        match (entry.section.as_str(), entry.key.as_str()) {
            ("connection", "autoconnect") if entry.value == "false" => {
                let text = format!(
                    "{}: {}: {}: NetworkManager enslaves it only on request; xbond does always",
                    draft.name,
                    slave.name,
                    entry.text()
                );
                draft.note(&entry.origin, text);
            }
            ("connection", key) if OF_CONNECTION.contains(&key) => {}
            (section, "mac-address") if ETHERNET.contains(&section) => {
                slave.hwaddr = mac(entry, &mut draft.notes)?
            }
            (section, "cloned-mac-address") if ETHERNET.contains(&section) => {
                slave.mac = mac(entry, &mut draft.notes)?;
            }
            (section, "mtu") if ETHERNET.contains(&section) => {
                slave.mtu = Some(entry.parsed("a number of bytes")?).filter(|mtu| *mtu > 0);
            }
            ("bond-port", "prio" | "queue-id") => port_option(&mut slave.options, entry)?,
            ("ipv4" | "ipv6", "method") if ["disabled", "ignore", "auto"].contains(&entry.value.as_str()) => {
            }
            _ => draft.notes.push(entry.not_applied()),
        }
    }
    draft.slave(slave, origin)
}

fn port_option(options: &mut SlaveOptions, entry: &Entry) -> Result<(), ConfigError> {
    let key = entry.key.replace('-', "_");
    options.set(&key, &entry.value).map_err(|error| ConfigError::new(entry.origin.clone(), error.into()))
}

/// Reads a key of `[ipv4]` or `[ipv6]`.
fn ip(draft: &mut Draft, connection: &Connection, entry: &Entry) -> Result<(), ConfigError> {
    let name = draft.name.clone();
    let number = |prefix: &str| {
        let rest = entry.key.strip_prefix(prefix)?;
        rest.bytes().all(|byte| byte.is_ascii_digit()).then_some(())
    };
    match entry.key.as_str() {
        "method" if ["manual", "disabled", "ignore", "link-local"].contains(&entry.value.as_str()) => {}
        "method" if entry.section == "ipv6" && entry.value == "auto" => draft.notes.push(entry.not_applied()),
        "method" => {
            let text = format!(
                "{name}: [{}] {}: xbond sets fixed addresses only; run a DHCP client on {name}",
                entry.section,
                entry.text()
            );
            draft.note(&entry.origin, text);
        }
        "gateway" => {
            let via = Some(entry.parsed("an address without a prefix length")?);
            let route = Route { to: Destination::Default, via, metric: metric(connection, entry)? };
            draft.route(route, entry.origin.clone())?;
        }
        "route-metric" => {
            let has_gateway = connection
                .entries
                .iter()
                .any(|other| other.section == entry.section && other.value.contains([',', ';']));
            if connection.get(&entry.section, "gateway").is_none() && !has_gateway {
                draft.notes.push(entry.not_applied());
            }
        }
        "addresses" => {
            for word in entry.value.split([';', ',']).filter(|word| !word.trim().is_empty()) {
                address(draft, entry, word.trim(), None)?;
            }
        }
        _ if number("address").is_some() || number("addresses").is_some() => {
            numbered_address(draft, connection, entry)?
        }
        _ if number("route").is_some() || number("routes").is_some() => route(draft, connection, entry)?,
        _ if is_default(entry) || entry.key.ends_with("_options") => {}
        _ => draft.notes.push(entry.not_applied()),
    }
    Ok(())
}

/// Whether a key has the value that changes nothing, as NetworkManager itself writes it into files.
fn is_default(entry: &Entry) -> bool {
    matches!(
        (entry.key.as_str(), entry.value.as_str()),
        ("addr-gen-mode", "default" | "default-or-eui64" | "stable-privacy" | "eui64")
            | ("ip6-privacy", "0" | "-1")
            | ("never-default", "false")
    )
}

/// Returns the metric for the routes of a section that have none of their own.
fn metric(connection: &Connection, entry: &Entry) -> Result<Option<u32>, ConfigError> {
    let metric = connection.get(&entry.section, "route-metric").filter(|metric| metric.value != "-1");
    metric.map(|metric| metric.parsed("a number")).transpose()
}

fn address(draft: &mut Draft, entry: &Entry, text: &str, length: Option<&str>) -> Result<(), ConfigError> {
    const WANTED: &str = "an address with its prefix length, like 192.0.2.1/24";
    let with_length = length.map_or_else(|| text.to_owned(), |length| format!("{text}/{length}"));
    let address = match with_length.parse::<IpNet>() {
        Ok(address) => address,
        Err(_) => {
            let host: IpAddr = text.parse().map_err(|_| entry.bad_value(WANTED))?;
            let length = if host.is_ipv4() { 24 } else { 64 };
            let text = format!(
                "{}: {} has no prefix length, for which NetworkManager takes {length}",
                draft.name,
                entry.text()
            );
            draft.note(&entry.origin, text);
            IpNet::new(host, length).map_err(|_| entry.bad_value(WANTED))?
        }
    };
    draft.address(address, entry.origin.clone())
}

/// Splits a value of several fields: `192.0.2.1/24,192.0.2.254`, or as in old files `192.0.2.1;24;192.0.2.254;`.
fn fields(entry: &Entry) -> Vec<&str> {
    let fields = entry.value.split([',', ';', ' ']).map(str::trim);
    let mut fields: Vec<_> = fields.collect();
    if fields.last() == Some(&"") {
        fields.pop();
    }
    fields
}

fn is_length(field: &str) -> bool {
    !field.is_empty() && field.len() <= 3 && field.bytes().all(|byte| byte.is_ascii_digit())
}

fn numbered_address(draft: &mut Draft, connection: &Connection, entry: &Entry) -> Result<(), ConfigError> {
    let fields = fields(entry);
    let first = fields.first().copied().unwrap_or_default();
    let length = fields.get(1).copied().filter(|field| !first.contains('/') && is_length(field));
    address(draft, entry, first, length)?;
    let gateway = fields.get(if length.is_some() { 2 } else { 1 }).filter(|field| !field.is_empty());
    let Some(gateway) = gateway else { return Ok(()) };
    let via: IpAddr =
        gateway.parse().map_err(|_| entry.bad_value("an address, its prefix length, and a gateway"))?;
    if via.is_unspecified() {
        return Ok(());
    }
    if connection.get(&entry.section, "gateway").is_some() {
        let text =
            format!("{}: the gateway in {} is ignored, because gateway= is set", draft.name, entry.key);
        draft.note(&entry.origin, text);
        return Ok(());
    }
    let metric = metric(connection, entry)?;
    let is_known = |route: &Route| route.to == Destination::Default && route.via == Some(via);
    if !draft.routes.iter().any(|(route, _)| is_known(route)) {
        draft.route(Route { to: Destination::Default, via: Some(via), metric }, entry.origin.clone())?;
    }
    Ok(())
}

fn route(draft: &mut Draft, connection: &Connection, entry: &Entry) -> Result<(), ConfigError> {
    const WANTED: &str = "a prefix, a gateway and a metric, like 198.51.100.0/24,192.0.2.1,100";
    let options = connection.get(&entry.section, &format!("{}_options", entry.key));
    let on_link = options.and_then(|options| match options.value.as_str() {
        "onlink=true" => Some(true),
        "onlink=false" => Some(false),
        _ => None,
    });
    if let Some(options) = options.filter(|_| on_link.is_none()) {
        let text = format!(
            "{}: a route with {} is left out: xbond's routes do not have that",
            draft.name,
            options.text()
        );
        draft.note(&options.origin, text);
        return Ok(());
    }
    let fields = fields(entry);
    let first = fields.first().copied().unwrap_or_default();
    let length = fields.get(1).copied().filter(|field| !first.contains('/') && is_length(field));
    let to = length.map_or_else(|| first.to_owned(), |length| format!("{first}/{length}"));
    let rest = fields.get(if length.is_some() { 2 } else { 1 }..).unwrap_or_default();
    let via = match rest.first().filter(|via| !via.is_empty()) {
        None => None,
        Some(via) => Some(via.parse::<IpAddr>().map_err(|_| entry.bad_value(WANTED))?)
            .filter(|via| !via.is_unspecified()),
    };
    let own = match rest.get(1).filter(|metric| !metric.is_empty()) {
        None => None,
        Some(metric) => Some(metric.parse().map_err(|_| entry.bad_value(WANTED))?),
    };
    let metric = match own {
        Some(metric) => Some(metric),
        None => self::metric(connection, entry)?,
    };
    let to = prefix(&to).ok_or_else(|| entry.bad_value(WANTED))?;
    let (route, origin) = (Route { to, via, metric }, entry.origin.clone());
    match options.filter(|_| on_link == Some(true)) {
        Some(options) => draft.route_on_link(route, origin, options.text()),
        None => draft.route(route, origin),
    }
}

/// Replaces the escapes of GKeyFile.
fn unescaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        match (char, if char == '\\' { chars.next() } else { None }) {
            ('\\', Some('s')) => text.push(' '),
            ('\\', Some('t')) => text.push('\t'),
            ('\\', Some('n')) => text.push('\n'),
            ('\\', Some('r')) => text.push('\r'),
            ('\\', Some(other)) => text.push(other),
            (char, _) => text.push(char),
        }
    }
    text
}
