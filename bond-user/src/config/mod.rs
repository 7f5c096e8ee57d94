//! The wanted configuration: the bonds that flags, TOML files and ifcfg files describe, in one model.
//!
//! [`toml`] and [`ifcfg`] read files into a [`Config`], the command line builds [`BondConfig`]s from flags;
//! [`Config::check`] has the rules that are common to all of them. Nothing here reads the state of the machine.

pub mod dialect;
pub mod export;
#[cfg(test)]
mod fuzz;
pub mod ifcfg;
mod lines;
pub mod lint;
mod problem;
pub mod settings;
mod shell;
mod source;
pub mod toml;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
};

use bond_common::{abi::MAX_SLAVES, mac::Mac};
use bond_core::{
    name::{BondName, InterfaceName},
    options::{FailOverMac, SlaveOptions, Unmonitored},
};
use ipnet::IpNet;

use crate::sys::netlink::IPV6_MIN_MTU;

pub use self::{
    lines::Lines,
    problem::{ConfigError, Note, Problem},
    settings::{
        BondConfig, BondMac, Change, Clock, Datapath, Failback, Guard, HostMac, Literal, NotAWord, OnExit,
        Pair, PathMethod, PathTarget, WantedClock, WantedPath, Words,
    },
    shell::ShellError,
    source::{Files, Source},
};

/// Sizes in bytes of a frame's payload on any device that may be a slave.
pub const MTU_RANGE: RangeInclusive<u32> = 68..=65535;

/// The wanted configuration of one agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The bonds, in the order of the files.
    pub bonds: Vec<BondConfig>,
    /// The group that may change bonds, in addition to root.
    pub writers: Option<Writers>,
    /// The address of metrics, in addition to the control socket.
    pub metrics: Option<Metrics>,
    /// The directory for node_exporter's textfile collector.
    pub textfile: Option<OutputDirectory>,
    /// The directory for a file of each bond, in the form of /proc/net/bonding/BOND.
    pub proc_files: Option<OutputDirectory>,
    /// Notes about the files themselves.
    pub notes: Vec<Note>,
}

/// The group whose members may change bonds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writers {
    /// The name of the group.
    pub group: String,
    /// Where the configuration names it.
    pub origin: Origin,
}

/// An address for metrics, and the file or flag that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The address and port.
    pub address: SocketAddr,
    /// Where the configuration names it.
    pub origin: Origin,
}

/// A directory in which the agent writes files for other programs, and the file or flag that set it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputDirectory {
    /// The absolute path.
    pub path: PathBuf,
    /// Where the configuration names it.
    pub origin: Origin,
}

/// The wanted configuration of one slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlaveConfig {
    /// The interface.
    pub name: InterfaceName,
    /// The driver's options of the slave.
    pub options: SlaveOptions,
    /// The MAC address that the NIC must have when it is found: a NIC of this name with another address is not used.
    pub hwaddr: Option<Mac>,
    /// Set before the slave is enslaved, and its permanent address from then on.
    pub mac: Option<Mac>,
    /// Set before the slave is enslaved; bytes.
    pub mtu: Option<u32>,
}

/// A route through the bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The destination.
    pub to: Destination,
    /// `None`: the destination is on the link.
    pub via: Option<IpAddr>,
    /// The metric; `None` for the kernel's default.
    pub metric: Option<u32>,
}

/// The destination of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// All addresses, in the family of the gateway; IPv4 if there is none.
    Default,
    /// A network, or a host.
    Prefix(IpNet),
}

/// The source of a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    #[default]
    Flags,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// Counted from 1.
        line: Option<usize>,
    },
}

impl Config {
    /// Adds another file's bonds.
    ///
    /// # Errors
    /// A bond is in both, or they name different settings of the agent.
    pub fn merge(&mut self, other: Self) -> Result<(), ConfigError> {
        let named = self.bonds.iter().map(|bond| (bond.name.clone(), bond.origin.clone()));
        let mut known = Known { bonds: named.collect() };
        self.merge_with(other, &mut known)
    }

    /// Adds one file after the other: `known` has what was merged before.
    fn merge_with(&mut self, other: Self, known: &mut Known) -> Result<(), ConfigError> {
        set_once("metrics", &mut self.metrics, other.metrics, |metrics| &metrics.origin)?;
        set_once("textfile", &mut self.textfile, other.textfile, |directory| &directory.origin)?;
        set_once("proc_files", &mut self.proc_files, other.proc_files, |directory| &directory.origin)?;
        for bond in other.bonds {
            if let Some(first) = known.bonds.get(&bond.name) {
                let problem = Problem::BondTwice { bond: bond.name.into(), first: first.clone() };
                return Err(ConfigError::new(bond.origin, problem));
            }
            known.bonds.insert(bond.name.clone(), bond.origin.clone());
            self.bonds.push(bond);
        }
        match (&self.writers, other.writers) {
            (_, None) => {}
            (Some(first), Some(second)) if first.group != second.group => {
                let problem =
                    Problem::WritersTwice { group: first.group.clone(), first: first.origin.clone() };
                return Err(ConfigError::new(second.origin, problem));
            }
            (_, writers) => self.writers = writers,
        }
        self.notes.extend(other.notes);
        Ok(())
    }

    /// Returns a key that concerns an agent rather than a bond, and its source.
    pub fn key_of_agent(&self) -> Option<(&'static str, &Origin)> {
        let writers = self.writers.as_ref().map(|writers| ("writers", &writers.origin));
        let metrics = self.metrics.as_ref().map(|metrics| ("metrics", &metrics.origin));
        let textfile = self.textfile.as_ref().map(|directory| ("textfile", &directory.origin));
        let proc_files = self.proc_files.as_ref().map(|directory| ("proc_files", &directory.origin));
        writers.or(metrics).or(textfile).or(proc_files)
    }

    /// Checks the rules that are independent of the source: every bond by itself ([`BondConfig::check`]), and no
    /// interface in two roles.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (mut roles, mut hwaddrs) = (HashMap::new(), HashMap::new());
        for bond in &self.bonds {
            let at = |problem| ConfigError::new(bond.origin.clone(), problem);
            bond.check().map_err(at)?;
            let slaves = bond.slaves.iter().map(|slave| (slave.name.as_str(), Role::SlaveOf(&bond.name)));
            let port = bond.port.iter().map(|port| (port.as_str(), Role::PortOf(&bond.name)));
            for (interface, role) in [(bond.name.as_str(), Role::Bond)].into_iter().chain(slaves).chain(port)
            {
                if let Some(first) = roles.insert(interface, role) {
                    return Err(at(Problem::TwoRoles {
                        interface: interface.to_owned(),
                        roles: [first.to_string(), role.to_string()],
                    }));
                }
            }
            for slave in &bond.slaves {
                let Some(hwaddr) = slave.hwaddr else { continue };
                if let Some(first) = hwaddrs.insert(hwaddr, &bond.name) {
                    return Err(at(Problem::TwoRoles {
                        interface: format!("the NIC with hwaddr {hwaddr}"),
                        roles: [Role::SlaveOf(first).to_string(), Role::SlaveOf(&bond.name).to_string()],
                    }));
                }
            }
        }
        Ok(())
    }
}

/// Takes over a key of the agent that only one file may set.
fn set_once<T>(
    key: &'static str,
    first: &mut Option<T>,
    second: Option<T>,
    origin: fn(&T) -> &Origin,
) -> Result<(), ConfigError> {
    match (&first, second) {
        (Some(first), Some(second)) => {
            let problem = Problem::AgentKeyTwice { key, first: origin(first).clone() };
            Err(ConfigError::new(origin(&second).clone(), problem))
        }
        (Some(_), None) => Ok(()),
        (None, value) => {
            *first = value;
            Ok(())
        }
    }
}

/// The bonds that were merged into a configuration, and where each is defined.
#[derive(Default)]
struct Known {
    bonds: HashMap<BondName, Origin>,
}

/// The role of an interface in a configuration.
#[derive(Clone, Copy)]
enum Role<'a> {
    Bond,
    SlaveOf(&'a str),
    PortOf(&'a str),
}

impl fmt::Display for Role<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bond => f.write_str("a bond"),
            Self::SlaveOf(bond) => write!(f, "a slave of {bond}"),
            Self::PortOf(bond) => write!(f, "the port of {bond}"),
        }
    }
}

impl BondConfig {
    /// Checks the rules for one bond that are independent of the source.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_names()?;
        self.check_numbers()?;
        if self.port.is_some() {
            self.check_port()?;
            if self.host_mac == Some(HostMac::Stable) {
                return Err(Problem::StableWithPort { bond: self.name.to_string() });
            }
            if self.pair != Pair::Auto {
                return Err(Problem::PairWithPort { bond: self.name.to_string() });
            }
        } else if self.mac.is_some() && self.host_mac_address().is_some() {
            return Err(Problem::TwoMacs { bond: self.name.to_string() });
        }
        if self.pair == Pair::Netkit && !matches!(self.datapath, Datapath::Auto | Datapath::Tc) {
            return Err(Problem::NetkitWithXdp { bond: self.name.to_string(), datapath: self.datapath });
        }
        if self.mac.is_some() && self.options.fail_over_mac == FailOverMac::Active && !self.keeps_mac() {
            return Err(Problem::MacOfActive { bond: self.name.to_string() });
        }
        if let Some(slave) =
            self.mac_slave().filter(|name| self.slaves.iter().all(|slave| slave.name != **name))
        {
            return Err(Problem::MacOfNoSlave { bond: self.name.to_string(), slave: slave.to_string() });
        }
        if self.prearm && self.options.fail_over_mac != FailOverMac::Follow {
            return Err(Problem::PrearmWithoutFollow { bond: self.name.to_string() });
        }
        if !self.options.is_monitored() && self.allow_unmonitored == Unmonitored::Refuse {
            return Err(bond_core::options::OptionError::Unmonitored.into());
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), Problem> {
        let slaves = self.slaves.iter().map(|slave| slave.name.as_str());
        let names = slaves.clone().chain(self.port.as_deref());
        if let Some(name) = names.into_iter().find(|name| *name == "lo") {
            return Err(Problem::BadName { name: name.to_owned(), fault: "is the loopback device" });
        }
        let mut known = HashSet::new();
        if let Some(slave) = slaves.into_iter().find(|slave| !known.insert(*slave)) {
            return Err(Problem::SlaveTwice { bond: self.name.to_string(), slave: slave.to_owned() });
        }
        let mut hwaddrs = HashMap::new();
        for slave in &self.slaves {
            let Some(hwaddr) = slave.hwaddr else { continue };
            if let Some(first) = hwaddrs.insert(hwaddr, &slave.name) {
                let slaves = [first.to_string(), slave.name.to_string()];
                return Err(Problem::HwaddrTwice { bond: self.name.to_string(), slaves, hwaddr });
            }
        }
        if self.slaves.len() > MAX_SLAVES {
            return Err(Problem::TooManySlaves { bond: self.name.to_string(), slaves: self.slaves.len() });
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), Problem> {
        let macs = [("mac", self.mac_address()), ("host_mac", self.host_mac_address())];
        let slave_macs = self.slaves.iter().flat_map(|slave| [("hwaddr", slave.hwaddr), ("mac", slave.mac)]);
        for (key, mac) in macs.into_iter().chain(slave_macs) {
            if let Some(mac) = mac.filter(|mac| !mac.is_unicast()) {
                return Err(Problem::NotAWearableMac { key, mac });
            }
        }
        let mtus = [self.mtu].into_iter().chain(self.slaves.iter().map(|slave| slave.mtu));
        if let Some(mtu) = mtus.flatten().find(|mtu| !MTU_RANGE.contains(mtu)) {
            return Err(Problem::BadMtu { mtu });
        }
        let mut known = HashSet::new();
        for address in &self.addresses {
            if address.addr().is_unspecified() || address.addr().is_multicast() {
                return Err(Problem::NotAHostAddress { address: *address });
            }
            if !known.insert(address) {
                return Err(Problem::AddressTwice { address: *address });
            }
        }
        self.routes.iter().try_for_each(Route::check)?;
        self.mtu.map_or(Ok(()), |mtu| self.check_ipv6(mtu))
    }

    /// Checks whether a bond of this MTU can have the addresses and routes.
    ///
    /// # Errors
    /// [`Problem::SmallForIpv6`]
    pub fn check_ipv6(&self, mtu: u32) -> Result<(), Problem> {
        let addresses = self.addresses.iter().filter(|address| address.addr().is_ipv6());
        let routes = self.routes.iter().filter(|route| route.is_ipv6());
        let mut all = addresses
            .map(|address| format!("address {address}"))
            .chain(routes.map(|route| format!("route to {}", route.to)));
        match all.next() {
            Some(what) if mtu < IPV6_MIN_MTU => Err(Problem::SmallForIpv6 { mtu, what }),
            _ => Ok(()),
        }
    }

    /// Checks a bond with a port: the host behind the port has the addresses, not this one.
    fn check_port(&self) -> Result<(), Problem> {
        let host_side = [
            ("addresses", !self.addresses.is_empty()),
            ("routes", !self.routes.is_empty()),
            ("move_addresses", self.move_addresses),
            ("mtu", self.mtu.is_some()),
            ("mac", self.mac.is_some()),
        ];
        match host_side.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => Err(Problem::NotWithPort { bond: self.name.to_string(), key }),
            None => Ok(()),
        }
    }

    /// Returns notes about settings that may be intended, but may also be mistakes.
    pub fn doubts(&self) -> Vec<Note> {
        let mut doubts = Vec::new();
        let is_slave = |name: &String| self.slaves.iter().any(|slave| slave.name == **name);
        if let Some(primary) = self.options.primary.as_ref().filter(|primary| !is_slave(primary)) {
            doubts.push(Note::PrimaryNotASlave { bond: self.name.to_string(), primary: primary.clone() });
        }
        doubts.extend(
            self.slaves
                .iter()
                .filter(|slave| slave.mtu.is_some())
                .map(|slave| Note::SlaveMtu { bond: self.name.to_string(), slave: slave.name.to_string() }),
        );
        if self.slaves.is_empty() {
            doubts.push(Note::NoSlaves { bond: self.name.to_string() });
        }
        doubts
    }
}

impl SlaveConfig {
    /// Returns a slave with default options.
    pub fn new(name: InterfaceName) -> Self {
        Self { name, options: SlaveOptions::default(), hwaddr: None, mac: None, mtu: None }
    }

    #[cfg(test)]
    fn named(name: &str) -> Self {
        Self::new(InterfaceName::new(name).unwrap())
    }
}

impl Route {
    fn is_ipv6(&self) -> bool {
        match (self.to, self.via) {
            (Destination::Prefix(prefix), _) => prefix.addr().is_ipv6(),
            (Destination::Default, via) => via.is_some_and(|via| via.is_ipv6()),
        }
    }

    fn check(&self) -> Result<(), Problem> {
        let Destination::Prefix(prefix) = self.to else { return Ok(()) };
        if prefix.trunc() != prefix {
            return Err(Problem::HostBits { prefix, meant: prefix.trunc() });
        }
        match self.via {
            Some(via) if via.is_ipv4() != prefix.addr().is_ipv4() => {
                Err(Problem::FamiliesDiffer { prefix, via })
            }
            _ => Ok(()),
        }
    }
}

impl Destination {
    const DEFAULT: &'static str = "default";
}

impl FromStr for Destination {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == Self::DEFAULT { Ok(Self::Default) } else { text.parse().map(Self::Prefix) }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str(Self::DEFAULT),
            Self::Prefix(prefix) => prefix.fmt(f),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flags => f.write_str("command line"),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => path.display().fmt(f),
        }
    }
}
