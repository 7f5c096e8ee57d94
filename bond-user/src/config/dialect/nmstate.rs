//! nmstate: YAML or JSON of the wanted state, also within a policy of kubernetes-nmstate.
//!
//! Numbers may be texts. A port may be an interface of the file itself. nmstate works through NetworkManager, whose miimon is
//! 100 unless it, or an ARP monitor, is set.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    rc::Rc,
};

use bond_core::{name::InterfaceName, options};
use ipnet::IpNet;

use super::{
    draft::{Draft, check_number, differs, gather},
    files::{self, Files, at_file},
    networkd::prefix,
    nm::DEFAULT_MIIMON,
    tree::{self, Node, Pair},
};
use crate::config::{
    BondConfig, BondMac, Config, ConfigError, Destination, Note, Problem, Route, SlaveConfig,
};

/// The directory of files for nmstate.service.
pub(super) const DIRECTORIES: &[&str] = &["/etc/nmstate"];

/// The main table, also as nmstate's default.
const MAIN_TABLES: &[&str] = &["0", "254"];

/// Options for other modes.
const OF_OTHER_MODES: &[&str] = &[
    "ad_actor_sys_prio",
    "ad_actor_system",
    "ad_user_port_key",
    "balance_slb",
    "lacp_active",
    "lacp_rate",
    "packets_per_slave",
    "tlb_dynamic_lb",
];

/// Reads the bonds of files, or of directories with `*.yml`, `*.yaml` and `*.json` files.
///
/// # Errors
/// No bond of active-backup is in them, or a file cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut files, mut notes, mut bonds) = (Files::default(), Vec::new(), Vec::new());
    let is_state = |name: &str| [".yml", ".yaml", ".json"].iter().any(|suffix| name.ends_with(suffix));
    for path in files::named(paths, is_state)? {
        let text = files.text(&path)?;
        let root = if text.trim_start().starts_with('{') {
            tree::json(&path, &text)?
        } else {
            tree::yaml(&path, &text)?
        };
        files.count(root.nodes(), &path)?;
        let policy = root.get("spec").and_then(|spec| spec.get("desiredState"));
        let state = State::new(policy.map_or(&root, |state| state))?;
        let of_bonds = state.interfaces.iter().filter(|interface| is_bond(interface));
        check_number(bonds.len() + of_bonds.clone().count(), || root.origin())?;
        for interface in of_bonds {
            bonds.extend(state.bond(interface, &mut notes));
        }
        notes.extend(state.above());
        let known = ["interfaces", "routes", "version"];
        notes.extend(
            state.root.pairs().iter().filter(|pair| !known.contains(&pair.key.as_str())).map(not_applied),
        );
    }
    let none = || {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        at_file(path, Problem::Unsupported("no interface of type bond that is to be up".to_owned()))
    };
    gather(bonds, notes, none)
}

fn not_applied(pair: &Pair) -> Note {
    Note::NotApplied { origin: pair.origin.clone(), key: pair.key.clone() }
}

fn is_bond(interface: &Node) -> bool {
    interface.get("type").and_then(|kind| kind.text()) == Some("bond")
}

/// The state that a file wants.
struct State<'a> {
    root: &'a Rc<Node>,
    interfaces: &'a [Rc<Node>],
    /// The first interface of each name.
    named: HashMap<&'a str, &'a Node>,
    /// The routes of each interface.
    routes: HashMap<&'a str, Vec<&'a Node>>,
}

impl<'a> State<'a> {
    /// Looks interfaces and routes up by name.
    ///
    /// # Errors
    /// The interfaces or the routes are no list.
    fn new(root: &'a Rc<Node>) -> Result<Self, ConfigError> {
        let interfaces = root.get("interfaces").map(|interfaces| interfaces.list("interfaces"));
        let interfaces = interfaces.transpose()?.unwrap_or_default();
        let text_of = |node: &'a Rc<Node>, key: &str| node.get(key).and_then(|node| node.text());
        let mut named = HashMap::new();
        for interface in interfaces {
            if let Some(name) = text_of(interface, "name") {
                named.entry(name).or_insert(&**interface);
            }
        }
        root.get("routes").map(|routes| routes.mapping("routes")).transpose()?;
        let config = root.get("routes").and_then(|routes| routes.get("config"));
        let mut routes: HashMap<_, Vec<&Node>> = HashMap::new();
        for route in config.map(|config| config.list("config")).transpose()?.unwrap_or_default() {
            let of =
                text_of(route, "next-hop-interface").filter(|_| text_of(route, "state") != Some("absent"));
            if let Some(name) = of {
                routes.entry(name).or_default().push(&**route);
            }
        }
        Ok(Self { root, interfaces, named, routes })
    }

    /// Reads a bond; `None` for one that is not to be up, with a note.
    fn bond(&self, interface: &Node, notes: &mut Vec<Note>) -> Option<Result<BondConfig, ConfigError>> {
        let state = interface.get("state").filter(|state| state.text() != Some("up"));
        if let Some(state) = state {
            let name = interface.get("name").and_then(|name| name.text()).unwrap_or_default();
            let text = format!("{name}: state: {}: left out", state.text().unwrap_or_default());
            notes.push(differs(&state.origin(), text));
            return None;
        }
        Some(
            self.draft(interface)
                .and_then(|draft| draft.finish("write mode: active-backup under link-aggregation")),
        )
    }

    fn draft(&self, interface: &Node) -> Result<Draft, ConfigError> {
        let name = interface.get("name").ok_or_else(|| interface.refuse("an interface without name"))?;
        let mut draft = Draft::new(name.require_text("name")?, name.origin());
        for pair in interface.pairs().iter().filter(|pair| !pair.value.is_null()) {
            let (key, value, origin) = (pair.key.as_str(), &pair.value, &pair.origin);
            match key {
                "name" | "type" | "state" | "description" | "profile-name" | "accept-all-mac-addresses" => {}
                "mtu" => draft.mtu = Some((value.parsed(key, "a number of bytes")?, origin.clone())),
                "mac-address" => {
                    let mac = value.parsed(key, "a MAC address of the form 08:00:27:e8:26:58")?;
                    draft.mac = Some((BondMac::Address(mac), origin.clone()));
                }
                "copy-mac-from" => {
                    let slave = InterfaceName::new(value.require_text(key)?)
                        .map_err(|error| value.refuse(error.to_string()))?;
                    draft.mac = Some((BondMac::OfSlave(slave), origin.clone()));
                }
                "link-aggregation" => self.aggregation(&mut draft, value)?,
                "ipv4" | "ipv6" => ip(&mut draft, key, value)?,
                "controller" => {
                    let text = format!(
                        "{}: controller: xbond makes no ports of other devices; add it once it is up",
                        draft.name
                    );
                    draft.note(origin, text);
                }
                _ => draft.notes.push(not_applied(pair)),
            }
        }
        self.routes(&mut draft)?;
        let is_set = |key: &str| draft.option(key).is_some_and(|value| value != "0");
        if draft.option("miimon").is_none() && !is_set("arp_interval") {
            draft.set("miimon", DEFAULT_MIIMON, "no miimon", &draft.origin.clone());
        }
        Ok(draft)
    }

    fn aggregation(&self, draft: &mut Draft, node: &Node) -> Result<(), ConfigError> {
        for pair in node.mapping("link-aggregation")?.iter().filter(|pair| !pair.value.is_null()) {
            let (key, value, origin) = (pair.key.as_str(), &pair.value, &pair.origin);
            match key {
                "mode" => {
                    let text = value.require_text(key)?;
                    draft.set("mode", text, format!("mode: {text}"), origin);
                }
                "port" | "ports" | "slaves" => {
                    for port in value.list(key)? {
                        self.port(draft, port, None)?;
                    }
                }
                "ports-config" | "port-config" => {}
                "options" => {
                    for option in value.mapping(key)?.iter().filter(|pair| !pair.value.is_null()) {
                        self::option(draft, option)?;
                    }
                }
                _ => draft.notes.push(not_applied(pair)),
            }
        }
        // After the list, whose order is that of enslaving.
        let configs = node.get("ports-config").or_else(|| node.get("port-config"));
        for config in configs.map(|configs| configs.list("ports-config")).transpose()?.unwrap_or_default() {
            let name = config.get("name").ok_or_else(|| config.refuse("a port without name"))?;
            self.port(draft, name, Some(config))?;
        }
        Ok(())
    }

    fn port(&self, draft: &mut Draft, node: &Node, config: Option<&Node>) -> Result<(), ConfigError> {
        let name = node.require_text("port")?;
        let known = draft.slaves.iter().position(|(slave, _)| slave.name == *name);
        let position = match (known, config) {
            (Some(position), Some(_)) => position,
            _ => {
                let Some(slave) = self.slave(draft, node, name)? else { return Ok(()) };
                draft.slave(slave, node.origin())?;
                draft.slaves.len().saturating_sub(1)
            }
        };
        let Some((slave, _)) = draft.slaves.get_mut(position) else { return Ok(()) };
        for pair in config.map(Node::pairs).unwrap_or_default() {
            let option = match pair.key.as_str() {
                "name" => continue,
                "priority" => "prio",
                "queue-id" => "queue_id",
                _ => {
                    draft.notes.push(not_applied(pair));
                    continue;
                }
            };
            let text = pair.value.require_text(&pair.key)?;
            slave
                .options
                .set(option, text)
                .map_err(|error| ConfigError::new(pair.origin.clone(), error.into()))?;
        }
        Ok(())
    }

    /// Returns a slave with what its own interface says; `None` if that is not to be up.
    fn slave(&self, draft: &mut Draft, node: &Node, name: &str) -> Result<Option<SlaveConfig>, ConfigError> {
        let checked =
            InterfaceName::new(name).map_err(|error| ConfigError::new(node.origin(), error.into()))?;
        let mut slave = SlaveConfig::new(checked);
        for pair in self.named.get(name).map(|interface| interface.pairs()).unwrap_or_default() {
            let (key, value) = (pair.key.as_str(), &pair.value);
            match (key, value.text()) {
                _ if value.is_null() => {}
                ("name" | "type" | "description" | "profile-name", _) | ("state", Some("up")) => {}
                ("state", Some(state)) => {
                    draft.note(&pair.origin, format!("{}: {name}: state: {state}: left out", draft.name));
                    return Ok(None);
                }
                ("identifier", Some("mac-address")) => {
                    let text = format!(
                        "{}: {name}: found by its MAC address, and xbond goes by names: left out; add the name of its NIC \
                         to slaves",
                        draft.name
                    );
                    draft.note(&pair.origin, text);
                    return Ok(None);
                }
                ("permanent-mac-address", _) => {
                    slave.hwaddr = Some(value.parsed(key, "a MAC address of the form 08:00:27:e8:26:58")?);
                }
                ("mac-address", Some(mac)) => {
                    let text = format!(
                        "{}: {name}: mac-address {mac} is left out, because nmstate shows the present one there, which may \
                         be the bond's; set mac of the slave if it is to have one",
                        draft.name
                    );
                    draft.note(&pair.origin, text);
                }
                ("mtu", _) => slave.mtu = Some(value.parsed(key, "a number of bytes")?),
                ("ipv4" | "ipv6", _)
                    if value.get("enabled").and_then(|node| node.boolean()) == Some(false) => {}
                _ => draft.notes.push(not_applied(pair)),
            }
        }
        Ok(Some(slave))
    }

    fn routes(&self, draft: &mut Draft) -> Result<(), ConfigError> {
        let routes = self.routes.get(draft.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        routes.iter().try_for_each(|route| self::route(draft, route))
    }

    /// Returns notes about devices above bonds.
    fn above(&self) -> Vec<Note> {
        let is_bond = |name: &str| self.named.get(name).is_some_and(|interface| is_bond(interface));
        let mut notes = Vec::new();
        for interface in self.interfaces {
            let name = interface.get("name").and_then(|name| name.text()).unwrap_or_default();
            for kind in ["vlan", "mac-vlan", "vxlan"] {
                let Some(base) = interface.get(kind).and_then(|kind| kind.get("base-iface")) else {
                    continue;
                };
                if let Some(bond) = base.text().filter(|base| is_bond(base)) {
                    let (bond, vlan) = (bond.to_owned(), name.to_owned());
                    notes.push(Note::VlanAbove { origin: base.origin(), bond, vlan });
                }
            }
            let ports = interface.get("bridge").and_then(|bridge| bridge.get("port"));
            for port in ports.map(|ports| ports.items()).unwrap_or_default() {
                let Some(port) = port.get("name") else { continue };
                if let Some(bond) = port.text().filter(|port| is_bond(port)) {
                    let text = format!(
                        "{bond} is a port of the bridge {name}, which xbond does not make; add it to {name} once {bond} is up"
                    );
                    notes.push(differs(&port.origin(), text));
                }
            }
        }
        notes
    }
}

fn option(draft: &mut Draft, pair: &Pair) -> Result<(), ConfigError> {
    let (key, value, origin) = (pair.key.as_str(), &pair.value, &pair.origin);
    // Targets may be a list.
    let list =
        value.items().iter().map(|item| item.require_text(key)).collect::<Result<Vec<_>, _>>()?.join(",");
    let text = if list.is_empty() { value.require_text(key)? } else { list.as_str() };
    let written = format!("{key}: {text}");
    match key {
        "all_slaves_active" => {
            let value = match text {
                "delivered" => "1",
                "dropped" => "0",
                other => other,
            };
            draft.set(key, value, written, origin);
        }
        "use_carrier" => {
            let is_on = value.boolean().map_or(text, |is_on| if is_on { "1" } else { "0" });
            draft.set(key, is_on, written, origin);
        }
        "arp_ip_target" | "ns_ip6_target" => {
            for target in text.split([',', ' ']).filter(|target| !target.is_empty()) {
                draft.target(key, target, &written, origin)?;
            }
        }
        _ if OF_OTHER_MODES.contains(&key) => {
            draft.note(origin, format!("{}: {written} has no effect in active-backup", draft.name));
        }
        _ if options::KEYS.contains(&key) => draft.set(key, text, written, origin),
        _ => {
            let suggestion = options::closest(key, options::KEYS.iter().copied());
            let suggestion = suggestion.map(|key| format!("; is {key} meant?")).unwrap_or_default();
            let text = format!(
                "{}: {written}: no option of a bond, and nmstate refuses it: left out{suggestion}",
                draft.name
            );
            draft.note(origin, text);
        }
    }
    Ok(())
}

fn ip(draft: &mut Draft, family: &str, node: &Node) -> Result<(), ConfigError> {
    if node.get("enabled").and_then(|enabled| enabled.boolean()) == Some(false) {
        return Ok(());
    }
    for pair in node.mapping(family)?.iter().filter(|pair| !pair.value.is_null()) {
        match pair.key.as_str() {
            "enabled" => {}
            "address" => {
                for item in pair.value.list("address")? {
                    address(draft, item)?;
                }
            }
            "dhcp" | "autoconf" if pair.value.boolean() == Some(false) => {}
            "dhcp" => {
                let text = format!(
                    "{}: {family} dhcp: xbond sets fixed addresses only; run a DHCP client on it",
                    draft.name
                );
                draft.note(&pair.origin, text);
            }
            _ => draft.notes.push(not_applied(pair)),
        }
    }
    Ok(())
}

fn address(draft: &mut Draft, item: &Node) -> Result<(), ConfigError> {
    let ip = item.get("ip").ok_or_else(|| item.refuse("an address without ip"))?;
    let ip = ip.parsed("ip", "an address without a prefix length")?;
    let length = item.get("prefix-length").ok_or_else(|| item.refuse("an address without prefix-length"))?;
    let bits = length.parsed("prefix-length", "a number of bits")?;
    let address = IpNet::new(ip, bits)
        .map_err(|_| length.refuse(format!("prefix-length: {bits}: too long for {ip}")))?;
    // The kernel makes link-local addresses, and `nmstatectl show` has them.
    let is_link_local = matches!(ip, std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
    if !is_link_local {
        draft.address(address, item.origin())?;
    }
    let others = item.pairs().iter().filter(|pair| !["ip", "prefix-length"].contains(&pair.key.as_str()));
    draft.notes.extend(others.map(not_applied));
    Ok(())
}

fn route(draft: &mut Draft, node: &Node) -> Result<(), ConfigError> {
    let known = ["destination", "next-hop-interface", "next-hop-address", "metric", "table-id", "state"];
    let is_other = |pair: &&Pair| {
        let of_main = pair.value.text().is_some_and(|table| MAIN_TABLES.contains(&table));
        !pair.value.is_null() && (!known.contains(&pair.key.as_str()) || pair.key == "table-id" && !of_main)
    };
    if let Some(other) = node.pairs().iter().find(is_other) {
        let text = format!(
            "{}: a route with {} is left out: xbond's routes do not have that",
            draft.name, other.key
        );
        draft.note(&other.origin, text);
        return Ok(());
    }
    let to = node.get("destination").ok_or_else(|| node.refuse("a route without destination"))?;
    let to: Destination = match prefix(to.require_text("destination")?) {
        Some(prefix) => prefix,
        None => return to.parsed::<IpNet>("destination", "a prefix like 192.0.2.0/24").map(drop),
    };
    let via =
        node.get("next-hop-address").map(|via| via.parsed("next-hop-address", "an address")).transpose()?;
    let metric = node.get("metric").filter(|metric| metric.text() != Some("-1"));
    let metric = metric.map(|metric| metric.parsed("metric", "a number")).transpose()?;
    draft.route(Route { to, via, metric }, node.origin())
}
