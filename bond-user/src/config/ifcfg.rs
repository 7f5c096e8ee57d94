//! Reads RHEL's ifcfg files (of initscripts; NetworkManager wrote the same format).
//!
//! initscripts source them into a shell as root. Here they are parsed by the same rules, and never executed. SUSE's
//! files, which have other keys for a bond, are read too ([`suse`]).

mod suse;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    str::FromStr,
};

use bond_common::mac::Mac;
use bond_core::{
    name::{BondName, InterfaceName},
    options::{BondOptions, Unmonitored},
};
use ipnet::{IpNet, Ipv4Net};

use super::{
    BondConfig, Config, ConfigError, Destination, Known, Lines, Note, Origin, Problem, Route, SlaveConfig,
    shell::{self, Assignment},
};
use crate::sys::file;

const PREFIX: &str = "ifcfg-";

/// Files that initscripts skip (`is_ignored_file`).
const IGNORED: &[&str] = &["~", ".bak", ".old", ".orig", ".rpmnew", ".rpmorig", ".rpmsave"];

/// Keys of a bond for functions that xbond lacks. Ignoring one would result in another network.
const REFUSED_OF_BOND: &[(&str, &str)] = &[
    ("BRIDGE", "xbond does not put a bond into a bridge; remove it, and do so once the bond is up"),
    ("TEAM_CONFIG", "a team is not a bond; write BONDING_OPTS"),
    ("TEAM_MASTER", "a bond cannot be a port of a team here"),
    ("OVS_BRIDGE", "xbond does not put a bond into a bridge; remove it, and do so once the bond is up"),
    ("SRCADDR", "xbond sets no source address of a route; remove it"),
    ("SCOPE", "xbond sets addresses of global scope only; remove it"),
    ("WINDOW", "xbond sets no window of a route; remove it"),
    ("EXTRA_ROUTE_OPTS", "xbond takes no further options of a route; remove it"),
];

const REFUSED_OF_SLAVE: &[(&str, &str)] = &[
    ("TEAM_MASTER", "a slave of a bond cannot be a port of a team"),
    ("OVS_BRIDGE", "a slave of a bond cannot be a port of a bridge"),
];

/// Keys with an effect that other programs can have: they are reported, and ignored.
const NOT_APPLIED: &[&str] = &["ETHTOOL_OPTS", "DNS1", "DNS2", "DNS3", "DOMAIN", "SEARCH", "ZONE"];

/// Reads the bonds of a directory like /etc/sysconfig/network-scripts, and checks the whole.
///
/// Slaves are ordered by their files' names, as in initscripts; the order decides the bond's MAC address.
///
/// # Errors
/// There is no bond, or a file of one cannot be read or contains a refused value; the error names the file and, if
/// possible, the line.
pub fn read(directory: &Path, unmonitored: Unmonitored) -> Result<Config, ConfigError> {
    let mut config = read_unchecked(directory, unmonitored)?;
    config.check()?;
    let doubts: Vec<_> = config.bonds.iter().flat_map(BondConfig::doubts).collect();
    config.notes.extend(doubts);
    Ok(config)
}

/// Returns whether a path is a directory for [`read`].
pub fn is_directory_of_them(path: &Path) -> bool {
    list(path).is_ok_and(|files| !files.is_empty())
}

/// Returns the lines of all keys in these files. Unreadable files are skipped.
pub fn lines(directory: &Path) -> Lines {
    let mut lines = Lines::default();
    for path in list(directory).unwrap_or_default() {
        let Ok(text) = text(&path) else { continue };
        let Ok(file) = Ifcfg::parse(&path, &text) else { continue };
        match (file.master(), file.name()) {
            (None, Some(bond)) if file.is_bond() => lines.add_ifcfg(bond, None, &path, &text),
            (Some(bond), Some(slave)) => lines.add_ifcfg(bond, Some(slave), &path, &text),
            _ => {}
        }
    }
    lines
}

/// Reads like [`read`], without the check of the whole.
pub(super) fn read_unchecked(directory: &Path, unmonitored: Unmonitored) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let mut files = Vec::new();
    for path in list(directory)? {
        let text = text(&path)?;
        match Ifcfg::parse(&path, &text) {
            Ok(file) => files.push(file),
            Err(error) if mentions_bonds(&text) => return Err(error),
            Err(error) => {
                config.notes.push(Note::Skipped { file: path, why: error.problem.to_string() });
            }
        }
    }

    let (mut known, mut merged) = (Vec::new(), Known::default());
    for file in files.iter().filter(|file| file.is_bond()) {
        let name = file.name().ok_or_else(|| file.refuse("DEVICE", Problem::Missing { key: "DEVICE" }))?;
        known.push(name);
        let is_on_request = file.is_one_of("STARTMODE", &["off", "manual"]);
        if file.is_false("ONBOOT") || is_on_request {
            let key = if is_on_request { "STARTMODE" } else { "ONBOOT" };
            let value = file.get(key).unwrap_or_default().to_owned();
            config.notes.push(Note::NotOnBoot { file: file.path.clone(), bond: name.to_owned(), key, value });
        } else {
            let bonds = vec![file.bond(name, unmonitored)?];
            let found = Config { bonds, notes: file.not_applied(), ..Config::default() };
            config.merge_with(found, &mut merged)?;
        }
        if let Some(bond) = config.bonds.iter_mut().find(|bond| bond.name == name && file.is_suse()) {
            bond.slaves.extend(file.suse_slaves()?);
            suse::refuse_rules(directory, name)?;
            let routes = suse::routes(directory, bond)?;
            bond.routes.extend(routes);
        }
    }
    if known.is_empty() {
        let origin = Origin::File { path: directory.to_owned(), line: None };
        return Err(ConfigError::new(origin, Problem::NoBonds));
    }
    for file in &files {
        let Some(master) = file.master() else { continue };
        if !known.contains(&master) {
            return Err(file.refuse("MASTER", Problem::NoSuchBond { bond: master.to_owned() }));
        }
        if let Some(bond) = config.bonds.iter_mut().find(|bond| bond.name == master) {
            bond.slaves.push(file.slave()?);
            config.notes.extend(file.not_applied());
        }
    }
    for bond in &mut config.bonds {
        bond.routes.extend(routes_beside(directory, &bond.name)?);
    }
    for file in files.iter().filter(|file| !file.is_bond()) {
        let Some(vlan) = file.name() else { continue };
        let below = file.get("PHYSDEV").or_else(|| file.get("ETHERDEVICE"));
        let below =
            below.or_else(|| vlan.rsplit_once('.').map(|(below, _)| below).filter(|_| file.is_true("VLAN")));
        if let Some(bond) = config.bonds.iter().find(|bond| Some(bond.name.as_str()) == below) {
            let (file, bond, vlan) = (file.path.clone(), bond.name.to_string(), vlan.to_owned());
            config.notes.push(Note::VlanAbove { file, bond, vlan });
        }
    }
    Ok(config)
}

/// Returns the files of a directory, in the order of their names' bytes.
fn list(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut paths = file::list(directory).map_err(|error| at_file(directory, error.into()))?;
    paths.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(PREFIX) && !IGNORED.iter().any(|suffix| name.ends_with(suffix))
    });
    paths.sort();
    Ok(paths)
}

fn text(path: &Path) -> Result<String, ConfigError> {
    let bytes = file::read(path).map_err(|error| at_file(path, error.into()))?;
    String::from_utf8(bytes).map_err(|_| at_file(path, Problem::NotText))
}

/// Returns whether an optional file exists.
fn is_there(path: &Path) -> Result<bool, ConfigError> {
    let kind = file::kind(path).map_err(|error| at_file(path, error.into()))?;
    Ok(kind != file::FileKind::Absent)
}

fn at_file(path: &Path, problem: Problem) -> ConfigError {
    ConfigError::new(Origin::File { path: path.to_owned(), line: None }, problem)
}

/// Returns whether this may be a file of a bond or of a slave. Any other file may contain any shell code.
fn mentions_bonds(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    ["MASTER", "SLAVE", "BOND"].iter().any(|word| text.contains(word))
}

/// Options and their values.
type Pairs<'a> = Vec<(&'a str, &'a str)>;

/// The variables of a file. An empty one counts as not set, as in initscripts.
struct Ifcfg {
    path: PathBuf,
    variables: HashMap<String, Assignment>,
}

impl Ifcfg {
    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let at = |line| Origin::File { path: path.to_owned(), line: Some(line) };
        let assignments =
            shell::assignments(text).map_err(|(line, error)| ConfigError::new(at(line), error.into()))?;
        // Of two assignments to one key, the later one wins.
        let variables = assignments.into_iter().map(|variable| (variable.key.clone(), variable)).collect();
        Ok(Self { path: path.to_owned(), variables })
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.variables.get(key).map(|variable| variable.value.as_str()).filter(|value| !value.is_empty())
    }

    fn require(&self, key: &'static str) -> Result<&str, ConfigError> {
        self.get(key).ok_or_else(|| self.refuse(key, Problem::Missing { key }))
    }

    /// Returns DEVICE; SUSE's files may lack it, and use the name of the file.
    fn name(&self) -> Option<&str> {
        self.get("DEVICE")
            .or_else(|| suse::name_of(&self.path).filter(|_| !self.variables.contains_key("DEVICE")))
    }

    fn parsed<T: FromStr>(&self, key: &str, wanted: &'static str) -> Result<Option<T>, ConfigError> {
        let Some(text) = self.get(key) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.bad_value(key, text, wanted))
    }

    fn mac(&self, key: &str) -> Result<Option<Mac>, ConfigError> {
        self.parsed(key, "a MAC address of the form 08:00:27:e8:26:58")
    }

    /// Does `is_true` of initscripts.
    fn is_true(&self, key: &str) -> bool {
        self.is_one_of(key, &["t", "y", "yes", "on", "true", "1"])
    }

    /// Does `is_false` of initscripts, which is not the opposite.
    fn is_false(&self, key: &str) -> bool {
        self.is_one_of(key, &["f", "n", "no", "off", "false", "0"])
    }

    fn is_one_of(&self, key: &str, words: &[&str]) -> bool {
        self.get(key).is_some_and(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
    }

    /// Returns the file, with the line of `key` if the file has the key.
    fn origin(&self, key: &str) -> Origin {
        let line = self.variables.get(key).map(|variable| variable.line);
        Origin::File { path: self.path.clone(), line }
    }

    fn refuse(&self, key: &str, problem: Problem) -> ConfigError {
        ConfigError::new(self.origin(key), problem)
    }

    /// Returns the checked name of an interface from `key`.
    fn interface_name(&self, key: &str, name: &str) -> Result<InterfaceName, ConfigError> {
        InterfaceName::new(name).map_err(|error| self.refuse(key, error.into()))
    }

    fn bad_value(&self, key: &str, value: &str, wanted: &str) -> ConfigError {
        let (value, wanted) = (value.to_owned(), wanted.to_owned());
        self.refuse(key, Problem::BadValue { key: key.to_owned(), value, wanted })
    }

    fn refuse_value(&self, key: &str, why: &'static str) -> ConfigError {
        let value = self.get(key).unwrap_or_default().to_owned();
        self.refuse(key, Problem::Refused { key: key.to_owned(), value, why })
    }

    fn refuse_keys(&self, refused: &[(&str, &'static str)]) -> Result<(), ConfigError> {
        match refused.iter().find(|(key, _)| self.get(key).is_some()) {
            Some((key, why)) => Err(self.refuse_value(key, why)),
            None if self.is_true("VLAN") => {
                Err(self.refuse_value("VLAN", "xbond makes no VLAN devices; remove it"))
            }
            None => Ok(()),
        }
    }

    fn not_applied(&self) -> Vec<Note> {
        let given = NOT_APPLIED.iter().filter(|key| self.get(key).is_some());
        given.map(|key| Note::NotApplied { file: self.path.clone(), key: (*key).to_owned() }).collect()
    }

    fn is_bond(&self) -> bool {
        self.is_one_of("TYPE", &["bond"])
            || self.is_true("BONDING_MASTER")
            || self.get("BONDING_OPTS").is_some()
            || self.get("BONDING_MODULE_OPTS").is_some()
    }

    /// Returns the bond of which this is a slave.
    fn master(&self) -> Option<&str> {
        self.get("MASTER").filter(|_| self.is_true("SLAVE"))
    }

    fn bond(&self, name: &str, unmonitored: Unmonitored) -> Result<BondConfig, ConfigError> {
        self.refuse_keys(REFUSED_OF_BOND)?;
        if self.master().is_some() {
            return Err(self.refuse_value("MASTER", "a bond cannot be a slave of another bond"));
        }
        if self.is_one_of("BOOTPROTO", &["dhcp", "dhcp4", "dhcp6", "dhcp+autoip", "bootp", "autoip"]) {
            let why = "xbond sets fixed addresses only; write IPADDR and PREFIX, or BOOTPROTO=none and run a \
                       DHCP client on the bond";
            return Err(self.refuse_value("BOOTPROTO", why));
        }
        if self.is_true("DHCPV6C") {
            let why = "xbond sets fixed addresses only; remove it, and run a DHCP client on the bond";
            return Err(self.refuse_value("DHCPV6C", why));
        }
        if self.is_false("ARP") {
            return Err(self.refuse_value("ARP", "a bond here has ARP; remove it"));
        }

        let origin = Origin::File { path: self.path.clone(), line: None };
        let checked = BondName::new(name).map_err(|error| ConfigError::new(origin.clone(), error.into()))?;
        let mut bond = BondConfig::new(checked, origin);
        let (pairs, miimon_dropped) = self.bonding_opts()?;
        let (options, notes) = BondOptions::from_pairs(pairs, unmonitored)
            .map_err(|error| self.refuse(self.options_key(), error.into()))?;
        bond.options = options;
        bond.allow_unmonitored = unmonitored;
        bond.notes = notes.into_iter().map(|note| Note::Option { bond: name.to_owned(), note }).collect();
        bond.notes.extend(miimon_dropped);
        bond.mac = self.mac("MACADDR")?.or(self.mac("LLADDR")?);
        bond.mtu = self.parsed("MTU", "a number of bytes")?;
        if self.is_suse() {
            bond.addresses = self.suse_addresses()?;
            return Ok(bond);
        }
        bond.addresses = self.ipv4_addresses()?;
        bond.routes.extend(self.ipv4_default(&bond.addresses, &mut bond.notes)?);
        if !self.is_false("IPV6INIT") {
            bond.addresses.extend(self.ipv6_addresses()?);
            bond.routes.extend(self.ipv6_default()?);
        }
        Ok(bond)
    }

    /// Returns the options, split as `install_bonding_driver` does: the key ends at the first `=`, the value begins
    /// after the last one.
    fn bonding_opts(&self) -> Result<(Pairs<'_>, Option<Note>), ConfigError> {
        let text = self.get(self.options_key()).unwrap_or_default();
        let mut pairs = Vec::new();
        for word in text.split_whitespace() {
            let key = word.split('=').next().unwrap_or(word);
            let value = word.rsplit('=').next().unwrap_or(word);
            pairs.push((key, value));
        }
        if !pairs.iter().any(|(key, _)| *key == "mode") {
            return Err(self.refuse(self.options_key(), Problem::NoMode));
        }
        // initscripts write miimon first, and arp_interval then resets it.
        let given = |wanted: &str| {
            let found = pairs.iter().find(|(key, value)| *key == wanted && value.parse() != Ok(0));
            found.map(|(_, value)| (*value).to_owned())
        };
        let dropped = given("arp_interval").map(|arp_interval| {
            let file = self.path.clone();
            given("miimon").map(|miimon| Note::MiimonDropped { file, miimon, arp_interval })
        });
        if dropped.is_some() {
            pairs.retain(|(key, _)| *key != "miimon");
        }
        Ok((pairs, dropped.flatten()))
    }

    /// Returns the key that contains the options in this file.
    fn options_key(&self) -> &'static str {
        if self.get("BONDING_OPTS").is_none() && self.is_suse() {
            "BONDING_MODULE_OPTS"
        } else {
            "BONDING_OPTS"
        }
    }

    /// Returns IPADDR, IPADDR0, IPADDR1 and so on, each with its PREFIX or NETMASK (`expand_config`).
    fn ipv4_addresses(&self) -> Result<Vec<IpNet>, ConfigError> {
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

    fn with_prefix(&self, key: &str, address: Ipv4Addr, suffix: &str) -> Result<Ipv4Net, ConfigError> {
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
    fn ipv4_default(&self, addresses: &[IpNet], notes: &mut Vec<Note>) -> Result<Option<Route>, ConfigError> {
        let Some(gateway) = self.parsed::<Ipv4Addr>("GATEWAY", "an IPv4 address")? else { return Ok(None) };
        let elsewhere = self.get("GATEWAYDEV").is_some_and(|device| Some(device) != self.get("DEVICE"));
        if self.is_false("DEFROUTE") || elsewhere {
            return Ok(None);
        }
        let via = IpAddr::from(gateway);
        if !addresses.first().is_some_and(|address| address.contains(&via)) {
            notes.push(Note::GatewayElsewhere { file: self.path.clone(), gateway: via });
            return Ok(None);
        }
        let metric = self.parsed("METRIC", "a number")?;
        Ok(Some(Route { to: Destination::Default, via: Some(via), metric }))
    }

    fn ipv6_addresses(&self) -> Result<Vec<IpNet>, ConfigError> {
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

    fn ipv6_default(&self) -> Result<Option<Route>, ConfigError> {
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

    fn slave(&self) -> Result<SlaveConfig, ConfigError> {
        self.refuse_keys(REFUSED_OF_SLAVE)?;
        if self.is_one_of("TYPE", &["infiniband"]) {
            return Err(self.refuse_value("TYPE", "xbond enslaves Ethernet devices only"));
        }
        Ok(SlaveConfig {
            hwaddr: self.mac("HWADDR")?,
            mac: self.mac("MACADDR")?,
            mtu: self.parsed("MTU", "a number of bytes")?,
            ..SlaveConfig::new(self.interface_name("DEVICE", self.require("DEVICE")?)?)
        })
    }
}

/// Returns the routes of route-BOND and route6-BOND.
fn routes_beside(directory: &Path, bond: &str) -> Result<Vec<Route>, ConfigError> {
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
fn routes_in(path: &Path, text: &str, bond: &str) -> Result<Vec<Route>, ConfigError> {
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
fn route(line: &str, bond: &str) -> Option<Route> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use bond_core::options::FailOverMac;

    const BOND: &str = "DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS='mode=1 miimon=100'\n";
    /// A pattern of nearly valid lines.
    const VARIABLE: &str =
        "(IPADDR|PREFIX|GATEWAY|MTU|IPV6ADDR|BONDING_OPTS)[0-9]?=['\"]?[a-z0-9./:= ]*['\"]?\n";
    const SLAVE: &str = "DEVICE=eth0\nMASTER=bond0\nSLAVE=yes\n";

    fn directory(files: &[(&str, &str)]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    fn read_files(files: &[(&str, &str)]) -> Config {
        let directory = directory(files);
        read(directory.path(), Unmonitored::Refuse).unwrap()
    }

    /// Returns the error text, without the directory's name.
    fn refusal(files: &[(&str, &str)]) -> String {
        let directory = directory(files);
        let error = read(directory.path(), Unmonitored::Refuse).expect_err(files[0].1).to_string();
        error.replace(&format!("{}/", directory.path().display()), "")
    }

    fn bond_with(lines: &str) -> BondConfig {
        let text = format!("{BOND}{lines}");
        read_files(&[("ifcfg-bond0", &text), ("ifcfg-eth0", SLAVE)]).bonds.remove(0)
    }

    fn names(config: &Config) -> Vec<&str> {
        config.bonds[0].slaves.iter().map(|slave| slave.name.as_str()).collect()
    }

    #[test]
    fn the_scenario_runs_as_it_is() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/scenario");
        for (name, policy) in
            [("none", FailOverMac::None), ("active", FailOverMac::Active), ("follow", FailOverMac::Follow)]
        {
            let config = read(&fixtures.join(name), Unmonitored::Refuse).unwrap();
            let origin = Origin::File { path: fixtures.join(name).join("ifcfg-bond0"), line: None };
            let expected = BondConfig {
                slaves: vec![SlaveConfig::named("enp0s8"), SlaveConfig::named("enp0s9")],
                options: BondOptions { miimon: 100, fail_over_mac: policy, ..BondOptions::default() },
                addresses: vec!["192.168.99.101/24".parse().unwrap()],
                ..BondConfig::new(BondName::new("bond0").unwrap(), origin)
            };
            assert_eq!(config, Config { bonds: vec![expected], ..Config::default() }, "{name}");
        }
    }

    #[test]
    fn slaves_are_those_that_initscripts_would_enslave_in_their_order() {
        let slave = |device: &str, slave: &str| format!("DEVICE={device}\nMASTER=bond0\nSLAVE={slave}\n");
        let config = read_files(&[
            ("ifcfg-bond0", BOND),
            ("ifcfg-eth9", &slave("eth9", "Yes")),
            ("ifcfg-eth10", &slave("eth10", "t")),
            ("ifcfg-a", &slave("eth8", "1")),
            ("ifcfg-onboot", &format!("{}ONBOOT=no", slave("eth7", "on"))),
            ("ifcfg-no", &slave("eth1", "no")),
            ("ifcfg-unset", &slave("eth2", "")),
            ("ifcfg-plain", "DEVICE=eth3\nIPADDR=$(which one)\n"),
            ("ifcfg-x~", &slave("eth4", "yes")),
            ("ifcfg-x.bak", &slave("eth4", "yes")),
            ("ifcfg-x.rpmsave", &slave("eth4", "yes")),
            ("not-ifcfg-x", &slave("eth4", "yes")),
        ]);
        assert_eq!(names(&config), ["eth8", "eth10", "eth9", "eth7"]);
        let [Note::Skipped { file, why }] = &config.notes[..] else { panic!("{:?}", config.notes) };
        assert!(file.ends_with("ifcfg-plain"));
        assert_eq!(why, "$(which one): files are read, not run; write the value itself");
    }

    #[test]
    fn every_sign_of_a_bond_file_is_recognised() {
        for text in [
            "DEVICE=bond0\nTYPE=bond\nBONDING_OPTS=\"mode=active-backup miimon=100\"",
            "DEVICE=bond0\nTYPE=Ethernet\nBONDING_OPTS=\"mode=active-backup miimon=100\"",
            "DEVICE=bond0\nBONDING_MASTER=yes\nBONDING_OPTS=\"mode=active-backup miimon=100\"",
        ] {
            let config = read_files(&[("ifcfg-x", text), ("ifcfg-eth0", SLAVE)]);
            assert_eq!((config.bonds[0].name.as_str(), names(&config)), ("bond0", vec!["eth0"]), "{text}");
        }
    }

    #[test]
    fn bonding_opts_split_as_in_initscripts() {
        let options = |text: &str| bond_with(&format!("BONDING_OPTS=\"{text}\"\n")).options;
        let monitored = BondOptions { miimon: 100, ..BondOptions::default() };
        // The later assignment wins.
        assert_eq!(
            options("mode=1 miimon=100 updelay=200"),
            BondOptions { updelay: 200, ..monitored.clone() }
        );
        assert_eq!(options("updelay=200\n miimon=100 \\\n mode=1").updelay, 200);
        assert_eq!(options("mode=x=1 miimon=100 primary=eth0").primary.as_deref(), Some("eth0"));
        let arp =
            options("mode=1 miimon=100 arp_interval=200 arp_ip_target=+192.0.2.1 arp_ip_target=+192.0.2.2");
        assert_eq!((arp.miimon, arp.arp_interval, arp.arp_ip_target.len()), (0, 200, 2));
    }

    #[test]
    fn keys_of_a_bond_file_are_read() {
        let bond = bond_with(
            "MTU=9000\nMACADDR=02:00:00:00:00:01\nIPADDR=192.0.2.10\nNETMASK=255.255.255.0\nPREFIX=\n\
             IPADDR1=198.51.100.1\nPREFIX1=25\nIPADDR2=203.0.113.1\nPREFIX2=32\nIPADDR4=192.0.2.99\n\
             GATEWAY=192.0.2.1\nMETRIC=100\n\
             IPV6ADDR=2001:db8::10/64\nIPV6ADDR_SECONDARIES='2001:db8::11/64 2001:db8::12/64'\n\
             IPV6_DEFAULTGW=fe80::1%bond0\n",
        );
        assert_eq!((bond.mtu, bond.mac), (Some(9000), "02:00:00:00:00:01".parse().ok()));
        let addresses: Vec<_> = bond.addresses.iter().map(IpNet::to_string).collect();
        assert_eq!(
            addresses,
            [
                "192.0.2.10/24",
                "198.51.100.1/25",
                "203.0.113.1/32",
                "2001:db8::10/64",
                "2001:db8::11/64",
                "2001:db8::12/64"
            ]
        );
        let default = |via: &str, metric| Route { to: Destination::Default, via: via.parse().ok(), metric };
        assert_eq!(bond.routes, [default("192.0.2.1", Some(100)), default("fe80::1", None)]);
    }

    #[test]
    fn a_gateway_is_a_default_route_only_where_initscripts_make_it_one() {
        let routes = |lines: &str| {
            let bond = bond_with(&format!("IPADDR=192.0.2.10\nPREFIX=24\n{lines}"));
            (bond.routes.len(), bond.notes.len())
        };
        assert_eq!(routes("GATEWAY=192.0.2.1"), (1, 0));
        assert_eq!(routes("GATEWAY=192.0.2.1\nDEFROUTE=no"), (0, 0));
        assert_eq!(routes("GATEWAY=192.0.2.1\nGATEWAYDEV=eth5"), (0, 0));
        assert_eq!(routes("GATEWAY=192.0.2.1\nGATEWAYDEV=bond0"), (1, 0));
        assert_eq!(routes("GATEWAY=198.51.100.1"), (0, 1));
        assert_eq!(routes("IPV6_DEFAULTGW=fe80::1\nIPV6INIT=no"), (0, 0));
        assert_eq!(routes("IPV6_DEFAULTGW=fe80::1%eth5"), (0, 0));
    }

    #[test]
    fn keys_of_a_slave_file_are_read() {
        let text = format!("{SLAVE}HWADDR=08:00:27:E8:26:58\nMACADDR=02:00:00:00:00:01\nMTU=1400\n");
        let config = read_files(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", &text)]);
        let expected = SlaveConfig {
            hwaddr: "08:00:27:e8:26:58".parse().ok(),
            mac: "02:00:00:00:00:01".parse().ok(),
            mtu: Some(1400),
            ..SlaveConfig::named("eth0")
        };
        assert_eq!(config.bonds[0].slaves, [expected]);
    }

    #[test]
    fn static_routes_are_read_from_files_of_their_own() {
        let lines =
            "# comment\n10.0.0.0/8 via 192.0.2.1 dev bond0 metric 5 # trailing\n198.51.100.7 via 192.0.2.2\n";
        let numbered = "ADDRESS0=10.0.0.0\nNETMASK0=255.0.0.0\nGATEWAY0=192.0.2.1\nADDRESS1=198.51.100.7\n";
        let routes = |name: &str, text: &str| {
            let config = read_files(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", SLAVE), (name, text)]);
            let routes = config.bonds[0].routes.iter();
            let shown = routes
                .map(|route| (route.to.to_string(), route.via.map(|via| via.to_string()), route.metric));
            shown.collect::<Vec<_>>()
        };
        let to = |to: &str, via: Option<&str>, metric| (to.to_owned(), via.map(str::to_owned), metric);
        assert_eq!(
            routes("route-bond0", lines),
            [to("10.0.0.0/8", Some("192.0.2.1"), Some(5)), to("198.51.100.7/32", Some("192.0.2.2"), None)]
        );
        assert_eq!(
            routes("route-bond0", numbered),
            [to("10.0.0.0/8", Some("192.0.2.1"), None), to("198.51.100.7/32", None, None)]
        );
        assert_eq!(routes("route6-bond0", "default via fe80::1"), [to("default", Some("fe80::1"), None)]);
        assert_eq!(routes("route-bond1", "default via 192.0.2.1"), []);

        let beside = |name, text| refusal(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", SLAVE), (name, text)]);
        assert_eq!(
            beside("route-bond0", "\n10.0.0.0/8 via 192.0.2.1 table 5"),
            "route-bond0:2: 10.0.0.0/8 via 192.0.2.1 table 5: not a route that xbond sets; it reads PREFIX \
             via GATEWAY dev DEVICE metric NUMBER"
        );
        assert_eq!(
            beside("rule-bond0", "from 192.0.2.1 table 5"),
            "rule-bond0: a rule file: xbond sets no rules of policy routing; move it away, and set them once \
             the bond is up"
        );
    }

    #[test]
    fn refusals_name_file_line_and_remedy() {
        let table = [
            (
                "BOOTPROTO=dhcp",
                "BOOTPROTO=dhcp: xbond sets fixed addresses only; write IPADDR and PREFIX, or BOOTPROTO=none \
                 and run a DHCP client on the bond",
            ),
            (
                "BRIDGE=br0",
                "BRIDGE=br0: xbond does not put a bond into a bridge; remove it, and do so once the bond is \
                 up",
            ),
            ("VLAN=yes", "VLAN=yes: xbond makes no VLAN devices; remove it"),
            ("MASTER=bond1\nSLAVE=yes", "MASTER=bond1: a bond cannot be a slave of another bond"),
            ("IPADDR=192.0.2.1", "IPADDR=192.0.2.1: has neither PREFIX nor NETMASK; write PREFIX"),
            ("IPADDR=192.0.2.256", "IPADDR = 192.0.2.256: not an IPv4 address"),
            ("PREFIX=33\nIPADDR=192.0.2.1", "PREFIX = 33: not a number from 0 to 32"),
            (
                "NETMASK=255.0.255.0\nIPADDR=192.0.2.1",
                "NETMASK = 255.0.255.0: not a netmask like 255.255.255.0",
            ),
            ("MTU=big", "MTU = big: not a number of bytes"),
            ("IPADDR=$IP", "$IP: files are read, not run; write the value itself"),
            (
                "BONDING_OPTS='miimon=100'",
                "no mode in BONDING_OPTS, which means balance-rr; xbond does active-backup: write \
                 mode=active-backup",
            ),
            ("BONDING_OPTS='mode=4 miimon=100'", "mode=4: xbond does active-backup (1) only"),
            (
                "BONDING_OPTS='mode=1'",
                "miimon=0: the kernel accepts this and then never fails over; set miimon=100, or allow it \
                 with allow_unmonitored = true / --allow-unmonitored",
            ),
            ("BONDING_OPTS='mode=1 mimon=100'", "mimon: no such option; did you mean miimon?"),
            (
                "BONDING_OPTS='mode=1 miimon=100 arp_interval=100'",
                "arp_interval=100: nothing to probe; set arp_ip_target or ns_ip6_target",
            ),
        ];
        for (lines, said) in table {
            let text = format!("{BOND}{lines}\n");
            assert_eq!(
                refusal(&[("ifcfg-bond0", &text), ("ifcfg-eth0", SLAVE)]),
                format!("ifcfg-bond0:4: {said}")
            );
        }

        let slaves = [
            ("VLAN=yes", "4: VLAN=yes: xbond makes no VLAN devices; remove it"),
            ("TYPE=InfiniBand", "4: TYPE=InfiniBand: xbond enslaves Ethernet devices only"),
            ("MASTER=bond9", "4: MASTER=bond9: no ifcfg file of this directory is that bond's"),
            ("HWADDR=08:00", "4: HWADDR = 08:00: not a MAC address of the form 08:00:27:e8:26:58"),
            ("DEVICE=", "4: no DEVICE, and xbond goes by it"),
        ];
        for (lines, said) in slaves {
            let text = format!("{SLAVE}{lines}\n");
            assert_eq!(
                refusal(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", &text)]),
                format!("ifcfg-eth0:{said}")
            );
        }
        assert_eq!(
            refusal(&[("ifcfg-bond0", BOND), ("ifcfg-eth0", SLAVE), ("ifcfg-eth1", SLAVE)]),
            "ifcfg-bond0: bond0: slave eth0 is named twice"
        );
        assert!(
            refusal(&[("ifcfg-eth0", "DEVICE=eth0\n")])
                .ends_with("no bond in the ifcfg files of this directory")
        );
    }

    #[test]
    fn suse_files_are_read_like_red_hat_files() {
        let bond0 = "STARTMODE=auto\nBOOTPROTO=static\nIPADDR='192.168.0.101/24'\nIPADDR_2=10.0.0.1\nPREFIXLEN_2=8\n\
                     BONDING_MASTER=yes\nBONDING_MODULE_OPTS='mode=active-backup miimon=100'\n\
                     BONDING_SLAVE_1=eth1\nBONDING_SLAVE0='eth10'\nBONDING_SLAVE2=eth2\nLLADDR=02:00:00:00:00:07\n";
        let config = read_files(&[
            ("ifcfg-bond0", bond0),
            ("ifcfg-eth10", "BOOTPROTO=none\nSTARTMODE=hotplug\n"),
            ("ifcfg-vlan5", "ETHERDEVICE=bond0\nVLAN_ID=5\n"),
            ("ifroute-bond0", "172.16.0.0 10.0.0.2 255.240.0.0 -\n"),
            ("routes", "default 192.168.0.1 - -\n192.0.2.0/24 198.51.100.1 - eth7\n"),
        ]);
        assert_eq!(names(&config), ["eth10", "eth1", "eth2"]);
        let bond = &config.bonds[0];
        assert_eq!((bond.options.miimon, bond.mac), (100, "02:00:00:00:00:07".parse().ok()));
        let addresses: Vec<_> = bond.addresses.iter().map(IpNet::to_string).collect();
        assert_eq!(addresses, ["192.168.0.101/24", "10.0.0.1/8"]);
        let routes: Vec<_> =
            bond.routes.iter().map(|route| format!("{} via {:?}", route.to, route.via)).collect();
        assert_eq!(routes, ["172.16.0.0/12 via Some(10.0.0.2)", "default via Some(192.168.0.1)"]);
        assert!(
            matches!(&config.notes[..], [Note::VlanAbove { vlan, .. }] if vlan == "vlan5"),
            "{:?}",
            config.notes
        );

        let table = [
            ("BONDING_MODULE_OPTS='mode=4'", "ifcfg-bond0:2: mode=4: xbond does active-backup (1) only"),
            (
                "BONDING_MODULE_OPTS='mode=1 miimon=9'\nIPADDR=10.0.0.1",
                "ifcfg-bond0:3: IPADDR=10.0.0.1: has neither a prefix length nor NETMASK; write it as 192.0.2.1/24",
            ),
            (
                "BONDING_MODULE_OPTS='mode=1 miimon=9'\nIPADDR=10.0.0.1/99",
                "ifcfg-bond0:3: IPADDR = 10.0.0.1/99: not an address with its prefix length, like 192.0.2.1/24",
            ),
        ];
        for (lines, said) in table {
            assert_eq!(refusal(&[("ifcfg-bond0", &format!("BONDING_SLAVE0=eth0\n{lines}\n"))]), said);
        }
    }

    #[test]
    fn keys_without_effect_are_reported() {
        let bond1 = "DEVICE=bond1\nTYPE=Bond\nONBOOT=no\nBOOTPROTO=dhcp\nBONDING_OPTS='mode=4'\n";
        let slave1 = "DEVICE=eth1\nMASTER=bond1\nSLAVE=yes\n";
        let slave0 = format!("{SLAVE}ETHTOOL_OPTS='speed 1000'\n");
        let config = read_files(&[
            ("ifcfg-bond0", BOND),
            ("ifcfg-bond1", bond1),
            ("ifcfg-eth0", &slave0),
            ("ifcfg-eth1", slave1),
        ]);
        assert_eq!((config.bonds.len(), names(&config)), (1, vec!["eth0"]));
        let said: Vec<_> = config.notes.iter().map(Note::to_string).collect();
        let said: Vec<_> = said.iter().filter_map(|note| Some(note.rsplit_once('/')?.1)).collect();
        assert_eq!(
            said,
            ["ifcfg-bond1: ONBOOT=no: bond1 is left out", "ifcfg-eth0: ETHTOOL_OPTS is not applied by xbond"]
        );
    }

    #[test]
    fn a_bond_without_monitor_is_read_when_allowed() {
        let text = "DEVICE=bond0\nTYPE=Bond\nBONDING_OPTS=mode=1\n";
        let directory = directory(&[("ifcfg-bond0", text), ("ifcfg-eth0", SLAVE)]);
        let config = read(directory.path(), Unmonitored::Allow).unwrap();
        let unmonitored = bond_core::options::Note::Unmonitored;
        assert_eq!(config.bonds[0].notes, [Note::Option { bond: "bond0".to_owned(), note: unmonitored }]);
    }

    #[test]
    fn imported_files_are_equivalent_in_toml() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/scenario/follow");
        let config = read(&fixtures, Unmonitored::Refuse).unwrap();
        let text = super::super::toml::write(&config);
        assert_eq!(
            text,
            "version = 1\n\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n\
             fail_over_mac = \"follow\"\naddresses = [\"192.168.99.101/24\"]\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            noise in "(?s).*",
            lines in prop::collection::vec(VARIABLE, 0..6),
        ) {
            let _ = routes_in(Path::new("x"), &noise, "bond0");
            for text in [noise, format!("{BOND}{}", lines.concat())] {
                if let Ok(file) = Ifcfg::parse(Path::new("x"), &text) {
                    let _ = file.bond("bond0", Unmonitored::Allow);
                    let _ = file.slave();
                }
            }
        }
    }
}
