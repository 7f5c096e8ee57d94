//! Errors of a configuration, and notes about it.

use std::{fmt, net::IpAddr};

use bond_common::{abi::MAX_SLAVES, mac::Mac};
use bond_core::{
    name::{NameError, shortened, shortened_sentence},
    options::{self, OptionError, suggestion},
};
use ipnet::IpNet;

use super::{Datapath, MTU_RANGE, Origin, shell::ShellError};
use crate::sys::{file::ReadError, netlink::IPV6_MIN_MTU};

/// A configuration that is refused: the source and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct ConfigError {
    /// Where it is.
    pub origin: Origin,
    /// What is wrong.
    pub problem: Box<Problem>,
}

impl ConfigError {
    /// Returns the error of a problem.
    pub fn new(origin: Origin, problem: Problem) -> Self {
        Self { origin, problem: Box::new(problem) }
    }
}

/// Why a configuration is refused: the error, and a remedy.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] ReadError),
    #[error("no such file or directory")]
    NoSuchPath,
    #[error("not UTF-8 text")]
    NotText,
    #[error(transparent)]
    Option(#[from] OptionError),
    #[error("{bond}: {error}")]
    OfBond { bond: String, error: OptionError },

    #[error("{:?} cannot be an interface here: it {fault}", shortened(.name))]
    BadName { name: String, fault: &'static str },
    #[error("{bond}: slave {slave} is named twice")]
    SlaveTwice { bond: String, slave: String },
    #[error("{bond}: {} and {} have one hwaddr, {hwaddr}, which is one NIC's; remove one of the two", .slaves[0], .slaves[1])]
    HwaddrTwice { bond: String, slaves: [String; 2], hwaddr: Mac },
    #[error("{bond}: {slaves} slaves; a bond has at most {MAX_SLAVES}")]
    TooManySlaves { bond: String, slaves: usize },
    #[error("{interface} is {} and {}; it can be only one", .roles[0], .roles[1])]
    TwoRoles { interface: String, roles: [String; 2] },
    #[error("bond {bond} is already defined in {first}")]
    BondTwice { bond: String, first: Origin },
    #[error("writers is {} already in {first}; an agent has one group of them", shortened(.group))]
    WritersTwice { group: String, first: Origin },
    #[error("{key} is already set in {first}")]
    AgentKeyTwice { key: &'static str, first: Origin },
    #[error(
        "{bond}: host_mac=stable is for a bond0 that xbond makes; with port, set the MAC address of the host behind it, or leave \
             host_mac out to have it learned"
    )]
    StableWithPort { bond: String },
    #[error("{bond}: mac and host_mac both name the bond's MAC address; remove one, or set host_mac=stable")]
    TwoMacs { bond: String },
    #[error("{bond}: {key} cannot be set together with port: the host behind the port has its own")]
    NotWithPort { bond: String, key: &'static str },
    #[error("{bond}: pair cannot be set together with port, which is there already: no pair is made")]
    PairWithPort { bond: String },
    #[error(
        "{bond}: pair=netkit carries no datapath={datapath}, which takes a veth pair; leave one of the two out"
    )]
    NetkitWithXdp { bond: String, datapath: Datapath },
    #[error("{bond}: mac has no meaning with fail_over_mac=active: the bond has its active slave's MAC")]
    MacOfActive { bond: String },
    #[error(
        "{bond}: mac = {slave}: not a slave of {bond}; name one of its slaves, or a MAC address of the form 08:00:27:e8:26:58"
    )]
    MacOfNoSlave { bond: String, slave: String },
    #[error("{key} = {mac}: not the address of one station; it is zero or a group")]
    NotAWearableMac { key: &'static str, mac: Mac },
    #[error("mtu = {mtu}: not an MTU; allowed: {} to {} bytes", MTU_RANGE.start(), MTU_RANGE.end())]
    BadMtu { mtu: u32 },
    #[error("mtu = {mtu}: {what} is IPv6, which needs {IPV6_MIN_MTU} bytes; raise mtu, or leave the {} out", kind(.what))]
    SmallForIpv6 { mtu: u32, what: String },
    #[error("{address}: not an address that a host can have")]
    NotAHostAddress { address: IpNet },
    #[error("{address}: given twice")]
    AddressTwice { address: IpNet },
    #[error("route to {prefix}: has bits beyond its prefix length; {meant} is meant")]
    HostBits { prefix: IpNet, meant: IpNet },
    #[error("route to {prefix} via {via}: IPv4 and IPv6 cannot be mixed")]
    FamiliesDiffer { prefix: IpNet, via: IpAddr },

    #[error(
        "{bond}: prearm is for fail_over_mac=follow, where the bond's MAC moves from NIC to NIC; leave it out"
    )]
    PrearmWithoutFollow { bond: String },

    /// The error of the TOML parser.
    #[error("{}", shortened_sentence(.0))]
    Syntax(String),
    #[error("no version; write version = 1 at the top")]
    NoVersion,
    #[error("version = {}: this xbond reads version 1", shortened(.0))]
    OtherVersion(String),
    #[error("{}: no such key in {}; {}", shortened(.key), shortened(.table), suggestion(.closest, .known))]
    UnknownKey { key: String, table: String, closest: Option<&'static str>, known: Vec<&'static str> },
    #[error("{}: {found} where {wanted} is wanted", shortened(.key))]
    WrongType { key: String, found: &'static str, wanted: &'static str },
    #[error("{}: a list of {entries} entries; at most {limit}", shortened(.key))]
    LongList { key: String, entries: usize, limit: usize },
    #[error("{} = {}: not {wanted}", shortened(.key), shortened(.value))]
    BadValue { key: String, value: String, wanted: String },
    #[error("slave {} has a table, but is not in slaves = [...] of {bond}", shortened(.slave))]
    NotASlave { bond: String, slave: String },
    #[error("no files named *.toml in this directory")]
    NoFiles,

    #[error(transparent)]
    Shell(#[from] ShellError),
    #[error("{}={}: {why}", shortened(.key), shortened(.value))]
    Refused { key: String, value: String, why: &'static str },
    #[error("no {key}, and xbond goes by it")]
    Missing { key: &'static str },
    #[error(
        "no mode in BONDING_OPTS, which means balance-rr; xbond does active-backup: write mode=active-backup"
    )]
    NoMode,
    #[error(
        "no BONDING_OPTS, but {slave} names this bond in MASTER; without options its mode is balance-rr: write \
         BONDING_OPTS=\"mode=active-backup miimon=100\", or move options of the module from /etc/modprobe.d here"
    )]
    NoOptions { slave: String },
    /// What a file of another program describes, and xbond does not do.
    #[error("{}", shortened_sentence(.0))]
    Unsupported(String),
    #[error("a {file} file: {why}")]
    RefusedFile { file: &'static str, why: &'static str },
    #[error(
        "{}: not a route that xbond sets; it reads PREFIX via GATEWAY dev DEVICE metric NUMBER", shortened(.text)
    )]
    BadRoute { text: String },
    #[error("{key}={}: no ifcfg file of this directory is that bond's", shortened(.bond))]
    NoSuchBond { key: &'static str, bond: String },
    #[error("no bond in the ifcfg files of this directory")]
    NoBonds,
}

/// Returns the kind of `what` for a text such as "address 2001:db8::1/64".
fn kind(what: &str) -> &str {
    what.split(' ').next().unwrap_or(what)
}

impl Problem {
    /// Returns the key of a bond that causes the problem, if there is one.
    pub fn key(&self) -> Option<&str> {
        Some(match self {
            Self::Option(error) | Self::OfBond { error, .. } => error.key()?,
            Self::SlaveTwice { .. } | Self::TooManySlaves { .. } | Self::HwaddrTwice { .. } => "slaves",
            Self::StableWithPort { .. } | Self::TwoMacs { .. } => "host_mac",
            Self::NotWithPort { key, .. } | Self::NotAWearableMac { key, .. } => key,
            Self::MacOfActive { .. } => "mac",
            Self::PairWithPort { .. } | Self::NetkitWithXdp { .. } => "pair",
            Self::BadMtu { .. } | Self::SmallForIpv6 { .. } => "mtu",
            Self::NotAHostAddress { .. } | Self::AddressTwice { .. } => "addresses",
            Self::HostBits { .. } | Self::FamiliesDiffer { .. } => "routes",
            _ => return None,
        })
    }

    /// Returns the bond and its key that cause the problem, if the problem contains both.
    pub fn place(&self) -> Option<(&str, &str)> {
        match self {
            Self::OfBond { bond, error } => Some((bond, error.key()?)),
            _ => None,
        }
    }
}

/// An accepted setting that an administrator should know about.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The effect of an option of a bond.
    Option {
        bond: String,
        note: options::Note,
    },
    /// A slave gets the bond's MTU, and its original one when it is released.
    SlaveMtu {
        bond: String,
        slave: String,
    },
    PrimaryNotASlave {
        bond: String,
        primary: String,
    },
    NoSlaves {
        bond: String,
    },
    /// ONBOOT=no: the bond is skipped.
    NotOnBoot {
        origin: Origin,
        bond: String,
        /// The key with this meaning: ONBOOT, or STARTMODE of SUSE.
        key: &'static str,
        value: String,
    },
    /// A key for a setting of an interface which xbond leaves to other programs.
    NotApplied {
        origin: Origin,
        key: String,
    },
    /// A gateway outside the first address's network, for which initscripts set no route.
    GatewayElsewhere {
        origin: Origin,
        gateway: IpAddr,
    },
    /// initscripts write miimon first, and arp_interval then resets it.
    MiimonDropped {
        origin: Origin,
        miimon: String,
        arp_interval: String,
    },
    /// A VLAN above the bond, which another program has to create.
    VlanAbove {
        origin: Origin,
        bond: String,
        vlan: String,
    },
    /// A file that is no plain list of assignments, and does not mention bonds.
    Skipped {
        origin: Origin,
        why: String,
    },
    /// Any other difference between a file of another program and what xbond makes of it.
    Differs {
        origin: Origin,
        text: String,
    },
}

impl Note {
    /// Returns the file that the note is about, and the line if one causes it.
    pub fn origin(&self) -> Option<&Origin> {
        match self {
            Self::NotOnBoot { origin, .. }
            | Self::NotApplied { origin, .. }
            | Self::GatewayElsewhere { origin, .. }
            | Self::MiimonDropped { origin, .. }
            | Self::VlanAbove { origin, .. }
            | Self::Skipped { origin, .. }
            | Self::Differs { origin, .. } => Some(origin),
            Self::Option { .. }
            | Self::SlaveMtu { .. }
            | Self::PrimaryNotASlave { .. }
            | Self::NoSlaves { .. } => None,
        }
    }

    /// Returns the sentence, without the file that the note is about.
    pub fn text(&self) -> String {
        shortened_sentence(&self.whole_text()).into_owned()
    }

    fn whole_text(&self) -> String {
        match self {
            Self::Option { bond, note } => format!("{bond}: {note}"),
            Self::SlaveMtu { bond, slave } => {
                format!("{bond}: {slave}: its own MTU has no effect: a slave takes the bond's")
            }
            Self::PrimaryNotASlave { bond, primary } => {
                format!("{bond}: primary={primary} is not one of its slaves")
            }
            Self::NoSlaves { bond } => format!("{bond}: has no slaves"),
            Self::NotOnBoot { bond, key, value, .. } => {
                format!("{key}={}: {bond} is left out", shortened(value))
            }
            Self::NotApplied { key, .. } => format!("{} is not applied by xbond", shortened(key)),
            Self::GatewayElsewhere { gateway, .. } => {
                format!("GATEWAY={gateway} is not in the network of the first address: no default route")
            }
            Self::MiimonDropped { miimon, arp_interval, .. } => format!(
                "miimon={miimon} is ignored, because arp_interval={arp_interval} is set: a bond has one link monitor"
            ),
            Self::VlanAbove { bond, vlan, .. } => {
                format!("{vlan} is a VLAN on {bond}, which xbond does not make; make it once {bond} is up")
            }
            Self::Skipped { why, .. } => format!("left out: {why}"),
            Self::Differs { text, .. } => text.clone(),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.origin() {
            Some(origin) => write!(f, "{origin}: {}", self.text()),
            None => f.write_str(&self.text()),
        }
    }
}

impl From<NameError> for Problem {
    fn from(NameError { name, fault, .. }: NameError) -> Self {
        Self::BadName { name, fault }
    }
}
