//! The table of xbond's own settings of a bond: one row each.
//!
//! A row has the setting's key, its type, the kind of its values, and whether a running bond can take another value. The
//! field of [`BondConfig`], reading it from a file or from `-o KEY=VALUE`, writing it, and refusing a change at a
//! reload follow from the row. The driver's options have a table of their own ([`bond_core::options`]).
//!
//! One thing: the table, and the types of its values, of which each is a few lines.

use std::{
    fmt::{self, Display},
    marker::PhantomData,
    net::{Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
    time::Duration,
};

use bond_common::{mac::Mac, path::layout::MOST_PATH_TARGETS};
use bond_core::{
    damping::Damping,
    name::{BondName, InterfaceName, shortened},
    options::{BondOptions, Unmonitored},
    watch::{Sign, Watch},
};
use ipnet::IpNet;

use super::{Note, Origin, Route, SlaveConfig};

/// A value in the form of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// true or false.
    Flag(bool),
    /// A number.
    Number(u32),
    /// A text.
    Text(String),
    /// Keys with their values.
    Table(Vec<(&'static str, String)>),
    /// Texts; a file may also have one of them alone.
    List(Vec<String>),
    /// A key with several texts.
    Choice(&'static str, Vec<&'static str>),
}

/// The value as [`BondConfig::set`] takes it.
impl Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Table(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| format!("{key}={value}"));
                f.write_str(&pairs.collect::<Vec<_>>().join(","))
            }
            Self::List(texts) => f.write_str(&texts.join(",")),
            Self::Choice(key, texts) => write!(f, "{key}={}", texts.join(",")),
        }
    }
}

/// The form of value that a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LiteralKind {
    /// true or false.
    Flag,
    /// A number.
    Number,
    /// A text.
    Text,
    /// Numbers by key.
    Table,
    /// A list of texts.
    List,
    /// One of several words.
    Choice,
}

/// When a changed value of a setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// At a reload.
    Live,
    /// When the bond is removed and created again; a reload refuses it.
    Recreate,
}

/// A setting's entry in the table, without its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key in files, and after `-o`.
    pub key: &'static str,
    /// Sentences for manuals; each line begins with a space.
    pub help: &'static str,
    /// The form of its values.
    pub literal: LiteralKind,
    /// When a changed value takes effect.
    pub change: Change,
}

/// Returns when a changed value of a setting of a bond takes effect; `None` if xbond has no setting with this key.
pub fn change_of(key: &str) -> Option<Change> {
    let live = ["slaves", "addresses", "routes"].contains(&key).then_some(Change::Live);
    ROWS.iter().find(|row| row.key == key).map(|row| row.change).or(live)
}

/// The kind of a setting's values.
trait Kind {
    type Stored: Default + PartialEq;
    const LITERAL: LiteralKind;

    /// Reads a value.
    ///
    /// # Errors
    /// The expected form instead, for a message: "a number of bytes".
    fn parse(&self, text: &str) -> Result<Self::Stored, String>;

    /// Returns the value in the form of a file; `None` if there is none.
    fn show(&self, stored: &Self::Stored) -> Option<Literal>;
}

macro_rules! bond_settings {
    ($($(#[doc = $doc:literal])+ $key:ident: $stored:ty as $kind:expr, $change:ident;)*) => {
        /// The wanted configuration of one bond.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct BondConfig {
            /// The bond's name.
            pub name: BondName,
            /// In the order of enslaving.
            pub slaves: Vec<SlaveConfig>,
            /// The driver's options.
            pub options: BondOptions,
            /// Addresses of bond0, with prefix lengths.
            pub addresses: Vec<IpNet>,
            /// Routes over bond0.
            pub routes: Vec<Route>,
            $($(#[doc = $doc])+ pub $key: $stored,)*
            /// Notes about the bond.
            pub notes: Vec<Note>,
            /// Where the bond is described.
            pub origin: Origin,
        }

        /// Every setting of the table.
        pub const ROWS: &[Row] =
            &[$(Row {
                key: stringify!($key),
                help: concat!($($doc),+),
                literal: literal(&$kind),
                change: Change::$change,
            },)*];

        /// The keys of all settings.
        pub const KEYS: &[&str] = &[$(stringify!($key),)*];

        impl BondConfig {
            /// Returns a bond without slaves, with the driver's defaults.
            pub fn new(name: BondName, origin: Origin) -> Self {
                Self {
                    name,
                    slaves: Vec::new(),
                    options: BondOptions::default(),
                    addresses: Vec::new(),
                    routes: Vec::new(),
                    $($key: Default::default(),)*
                    notes: Vec::new(),
                    origin,
                }
            }

            /// Sets a setting from text; returns `None` if the table has no such key.
            ///
            /// # Errors
            /// The expected form instead of this text.
            pub fn set(&mut self, key: &str, text: &str) -> Option<Result<(), String>> {
                Some(match key {
                    $(stringify!($key) => $kind.parse(text).map(|value| self.$key = value),)*
                    _ => return None,
                })
            }

            /// Returns the settings that differ from their defaults, in the form of a file.
            pub fn settings(&self) -> Vec<(&'static str, Literal)> {
                let mut settings = Vec::new();
                $(if self.$key != <$stored>::default() {
                    settings.extend($kind.show(&self.$key).map(|literal| (stringify!($key), literal)));
                })*
                settings
            }

            /// Returns the value of a setting, as [`Self::set`] takes it; an empty text if it has none,
            /// and takes none.
            pub fn shown(&self, key: &str) -> String {
                let literal = match key {
                    $(stringify!($key) => $kind.show(&self.$key),)*
                    _ => None,
                };
                let none = match key {
                    "damping" => "off",
                    "watch" => Watched::NONE,
                    _ => "",
                };
                literal.map_or_else(|| none.to_owned(), |literal| literal.to_string())
            }

            /// Returns the settings with different values in this and another configuration of the bond.
            pub fn settings_that_differ<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'static Row> + 'a {
                let differs = move |key: &str| match key {
                    $(stringify!($key) => self.$key != other.$key,)*
                    _ => false,
                };
                ROWS.iter().filter(move |row| differs(row.key))
            }
        }
    };
}

bond_settings! {
    /// Accepts a bond without a link monitor, which never fails over.
    allow_unmonitored: Unmonitored as Permission, Live;
    /// The bond's own MAC, or the name of the slave whose permanent MAC it has, instead of that of its first slave.
    mac: Option<BondMac> as BOND_MAC, Recreate;
    /// MTU of the bond and its slaves, in bytes.
    mtu: Option<u32> as Bytes, Live;
    /// What carries the packets.
    datapath: Datapath as Word::<Datapath>::new(), Recreate;
    /// The type of bond0 and of its port.
    pair: Pair as Word::<Pair>::new(), Recreate;
    /// An existing device that faces the slaves, instead of a pair that is created for the bond.
    port: Option<InterfaceName> as Interface, Recreate;
    /// With port the MAC of the host behind it, learned if it is not set. Otherwise, under fail_over_mac=active, the MAC that bond0 keeps at failovers: an address, or stable for mac or its first slave's permanent one.
    host_mac: Option<HostMac> as HOST_MAC, Recreate;
    /// What happens to the bond when its agent ends.
    on_exit: OnExit as Word::<OnExit>::new(), Live;
    /// Whether the data plane may fail over by itself.
    guard: Guard as Word::<Guard>::new(), Live;
    /// Whether a clock in the kernel fails over and announces while nothing is sent and no agent runs.
    clock: Clock as Word::<Clock>::new(), Live;
    /// The period of the clock, in ms from 1 to 1000; 10 where it is not given.
    clock_interval: Option<u32> as Period, Live;
    /// Slaves whose links flap are not preferred: half_life, suppress, reuse and max (seconds and failures), or off.
    damping: Option<Damping> as FlapDamping, Live;
    /// Neighbours that show whether a slave's path works: up to four IPv4 addresses in networks of the bond, or gateway, or off.
    path_target: PathTarget as Targets, Live;
    /// ms from one probe of the active slave's path to the next, from 10 on; 100 where it is not given.
    path_interval: Option<u32> as PATH_INTERVAL, Live;
    /// After how many silent intervals the active slave is left; 3 where it is not given.
    path_misses: Option<u32> as PATH_MISSES, Live;
    /// How targets are probed: by echo (RFC 9747), by ARP, which is not done more often than each 200 ms, or as the target allows.
    path_method: PathMethod as Word::<PathMethod>::new(), Live;
    /// When a slave that joins, or whose link returns, may take over from one that works: now, or when its path has answered path_misses times in succession.
    failback: Failback as Word::<Failback>::new(), Live;
    /// What a slave needs to count as up: all or any of carrier, path, arp and ns (all=carrier,path); monitor: what the monitors in force judge by.
    watch: Option<Watch> as Watched, Live;
    /// fail_over_mac=follow: backups receive the bond's MAC, too, so that a failover has no gap in which no slave does.
    prearm: bool as Flag, Recreate;
    /// The first slave that has addresses or routes gives them to the bond, until it is removed.
    move_addresses: bool as Flag, Recreate;
}

/// The MAC that a bond is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BondMac {
    /// This address.
    Address(Mac),
    /// The permanent one of this slave.
    OfSlave(InterfaceName),
}

/// The MAC of the host above the bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostMac {
    /// bond0 keeps the one that it was made with.
    Stable,
    /// This address.
    Address(Mac),
}

/// A text that is neither a MAC nor `stable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{WANTED_HOST_MAC}")]
pub struct NotAHostMac;

const WANTED_HOST_MAC: &str = "a MAC address of the form 08:00:27:e8:26:58, or stable";

impl FromStr for HostMac {
    type Err = NotAHostMac;

    fn from_str(text: &str) -> Result<Self, NotAHostMac> {
        match text {
            "stable" => Ok(Self::Stable),
            _ => text.parse().map(Self::Address).map_err(|_| NotAHostMac),
        }
    }
}

impl Display for HostMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stable => f.write_str("stable"),
            Self::Address(mac) => mac.fmt(f),
        }
    }
}

/// A text that is neither a MAC nor the name of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{WANTED_MAC}")]
pub struct NotABondMac;

const WANTED_MAC: &str = "a MAC address of the form 08:00:27:e8:26:58, or the name of a slave";

impl FromStr for BondMac {
    type Err = NotABondMac;

    fn from_str(text: &str) -> Result<Self, NotABondMac> {
        // No name of an interface has a colon.
        match text.parse() {
            Ok(mac) => Ok(Self::Address(mac)),
            Err(_) => InterfaceName::new(text).map(Self::OfSlave).map_err(|_| NotABondMac),
        }
    }
}

impl Display for BondMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(mac) => mac.fmt(f),
            Self::OfSlave(slave) => f.write_str(slave),
        }
    }
}

impl BondConfig {
    /// Returns the MAC that the configuration names as an address.
    pub fn mac_address(&self) -> Option<Mac> {
        match self.mac {
            Some(BondMac::Address(mac)) => Some(mac),
            Some(BondMac::OfSlave(_)) | None => None,
        }
    }

    /// Returns the MAC that the configuration names of the host behind the port, or that bond0 keeps.
    pub fn host_mac_address(&self) -> Option<Mac> {
        match self.host_mac {
            Some(HostMac::Address(mac)) => Some(mac),
            Some(HostMac::Stable) | None => None,
        }
    }

    /// Returns whether bond0 keeps its MAC under fail_over_mac=active. Under other policies it does so anyway.
    pub fn keeps_mac(&self) -> bool {
        self.port.is_none() && self.host_mac.is_some()
    }

    /// Returns the slave whose permanent MAC the bond is to have.
    pub fn mac_slave(&self) -> Option<&InterfaceName> {
        match &self.mac {
            Some(BondMac::OfSlave(slave)) => Some(slave),
            Some(BondMac::Address(_)) | None => None,
        }
    }
}

/// What a configuration says of the path monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPath {
    /// The targets.
    pub target: PathTarget,
    /// The time between two probes.
    pub interval: Duration,
    /// The number of probes without an answer after which a path has failed.
    pub misses: u32,
    /// How targets are probed.
    pub method: PathMethod,
    /// When a slave whose path has failed is used again.
    pub failback: Failback,
}

impl WantedPath {
    /// ms, where a configuration has none.
    const INTERVAL: u32 = 100;
    const MISSES: u32 = 3;

    /// Returns the path monitor that a configuration wants.
    pub fn of(config: &BondConfig) -> Self {
        let interval = config.path_interval.unwrap_or(Self::INTERVAL);
        Self {
            target: config.path_target.clone(),
            interval: Duration::from_millis(interval.into()),
            misses: config.path_misses.unwrap_or(Self::MISSES),
            method: config.path_method,
            failback: config.failback,
        }
    }

    /// Returns how many answers in succession prove a path; 0 if none has to be proven.
    pub fn proof(&self) -> u64 {
        match self.failback {
            Failback::Now => 0,
            Failback::Proven => self.misses.into(),
        }
    }
}

/// The neighbours that the path monitor probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PathTarget {
    /// There is no path monitor.
    #[default]
    Off,
    /// That of the default route over the bond.
    Gateway,
    /// At least one, and at most [`MOST_PATH_TARGETS`].
    Hosts(Vec<Ipv4Addr>),
}

impl PathTarget {
    /// Returns whether there is a path monitor.
    pub fn is_on(&self) -> bool {
        *self != Self::Off
    }
}

impl FromStr for PathTarget {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "off" => return Ok(Self::Off),
            "gateway" => return Ok(Self::Gateway),
            _ => {}
        }
        let hosts: Vec<Ipv4Addr> =
            text.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| ())?;
        let is_host = |ip: &Ipv4Addr| {
            !(ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() || ip.is_loopback())
        };
        let is_new = |(place, ip): (usize, &Ipv4Addr)| !hosts[..place].contains(ip);
        let fits = hosts.len() <= MOST_PATH_TARGETS && hosts.iter().all(is_host);
        if fits && hosts.iter().enumerate().all(is_new) { Ok(Self::Hosts(hosts)) } else { Err(()) }
    }
}

impl Display for PathTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Gateway => f.write_str("gateway"),
            Self::Hosts(hosts) => {
                for (number, host) in hosts.iter().enumerate() {
                    write!(f, "{}{host}", if number == 0 { "" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

/// Milliseconds; the period of a clock whose configuration has none.
const CLOCK_INTERVAL: u32 = 10;

/// What a configuration says of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedClock {
    /// Whether there is a clock.
    pub clock: Clock,
    /// The time between two ticks.
    pub period: Duration,
}

impl WantedClock {
    /// Returns the clock that a configuration wants.
    pub fn of(config: &BondConfig) -> Self {
        let period = Duration::from_millis(config.clock_interval.unwrap_or(CLOCK_INTERVAL).into());
        Self { clock: config.clock, period }
    }

    /// Returns the period, None if no clock is wanted.
    pub fn wanted_period(&self) -> Option<Duration> {
        Some(self.period).filter(|_| self.clock == Clock::Auto)
    }
}

const fn literal<K: Kind>(_: &K) -> LiteralKind {
    K::LITERAL
}

/// An enumeration with a word for each value.
pub trait Words: Copy + Default + PartialEq + FromStr + Display + 'static {
    /// The words, in the order of the variants.
    const WORDS: &'static [&'static str];
}

/// A text that is none of the words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: not a value; allowed: {}", shortened(.word), .allowed.join(", "))]
pub struct NotAWord {
    /// The word.
    pub word: String,
    /// The words that are allowed.
    pub allowed: &'static [&'static str],
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum $name {
            $(
                #[doc = concat!("`", $word, "`.\n")]
                $(#[$of])*
                $variant,
            )*
        }

        impl $name {
            /// In the order of [`Words::WORDS`].
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
        }

        impl Words for $name {
            const WORDS: &'static [&'static str] = &[$($word,)*];
        }

        impl FromStr for $name {
            type Err = NotAWord;

            fn from_str(text: &str) -> Result<Self, NotAWord> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(NotAWord { word: text.to_owned(), allowed: Self::WORDS }),
                }
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)*
                })
            }
        }
    };
}

words! {
    /// What carries the packets.
    Datapath {
        /// tc for a bond that ends in the host stack, native XDP for one that ends in a port.
        #[default]
        Auto = "auto",
        Tc = "tc",
        Xdp = "xdp",
        /// XDP on skbs, for drivers without native XDP.
        XdpGeneric = "xdp-generic",
    }
}

words! {
    /// The type of bond0 and of its port.
    Pair {
        /// For tc netkit where the kernel has it, and veth otherwise. A bond that is adopted stays what it is.
        #[default]
        Auto = "auto",
        Netkit = "netkit",
        Veth = "veth",
    }
}

words! {
    /// What happens to a bond when its agent ends.
    OnExit {
        /// The bond is removed, and its slaves are restored.
        #[default]
        Down = "down",
        /// The bond keeps running without an agent, until one adopts it.
        Keep = "keep",
    }
}

words! {
    /// Whether the data plane may fail over by itself.
    Guard {
        /// Where this kernel lets programs read devices, and the options leave no delay.
        #[default]
        Auto = "auto",
        Off = "off",
    }
}

words! {
    /// Whether a clock in the kernel runs for the bond.
    Clock {
        /// Where this kernel has what it takes.
        #[default]
        Auto = "auto",
        Off = "off",
    }
}

words! {
    /// How the path monitor probes its targets.
    PathMethod {
        /// By echo if the target returns it, otherwise by ARP.
        #[default]
        Auto = "auto",
        Echo = "echo",
        Arp = "arp",
    }
}

words! {
    /// When a slave that joins, or whose link returns, may take over from one that works.
    Failback {
        /// As soon as its link is up, as in the driver.
        #[default]
        Now = "now",
        /// When its path has answered `path_misses` times in succession.
        Proven = "proven",
    }
}

/// Parses one word of an enumeration.
struct Word<T>(PhantomData<T>);

impl<T> Word<T> {
    const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Words> Kind for Word<T> {
    type Stored = T;
    const LITERAL: LiteralKind = LiteralKind::Text;

    fn parse(&self, text: &str) -> Result<T, String> {
        text.parse().map_err(|_| format!("one of {}", T::WORDS.join(", ")))
    }

    fn show(&self, stored: &T) -> Option<Literal> {
        Some(Literal::Text(stored.to_string()))
    }
}

/// Parses `true` or `false`; on a command line also `on` and `off`, `1` and `0`.
struct Flag;

impl Kind for Flag {
    type Stored = bool;
    const LITERAL: LiteralKind = LiteralKind::Flag;

    fn parse(&self, text: &str) -> Result<bool, String> {
        match text {
            "true" | "on" | "1" => Ok(true),
            "false" | "off" | "0" => Ok(false),
            _ => Err("true or false".to_owned()),
        }
    }

    fn show(&self, stored: &bool) -> Option<Literal> {
        Some(Literal::Flag(*stored))
    }
}

/// Parses a flag by which a configuration permits a setting that is refused otherwise.
struct Permission;

impl Kind for Permission {
    type Stored = Unmonitored;
    const LITERAL: LiteralKind = LiteralKind::Flag;

    fn parse(&self, text: &str) -> Result<Unmonitored, String> {
        Ok(if Flag.parse(text)? { Unmonitored::Allow } else { Unmonitored::Refuse })
    }

    fn show(&self, stored: &Unmonitored) -> Option<Literal> {
        Some(Literal::Flag(*stored == Unmonitored::Allow))
    }
}

/// Parses a size in bytes.
struct Bytes;

impl Kind for Bytes {
    type Stored = Option<u32>;
    const LITERAL: LiteralKind = LiteralKind::Number;

    fn parse(&self, text: &str) -> Result<Option<u32>, String> {
        text.parse().map(Some).map_err(|_| "a number of bytes".to_owned())
    }

    fn show(&self, stored: &Option<u32>) -> Option<Literal> {
        stored.map(Literal::Number)
    }
}

/// Parses the period of the clock.
struct Period;

impl Period {
    /// Milliseconds. Shorter periods cost more than they gain, and longer ones gain nothing.
    const ALLOWED: RangeInclusive<u32> = 1..=1000;
}

impl Kind for Period {
    type Stored = Option<u32>;
    const LITERAL: LiteralKind = LiteralKind::Number;

    fn parse(&self, text: &str) -> Result<Option<u32>, String> {
        let number = text.parse().ok().filter(|number| Self::ALLOWED.contains(number));
        number.map(Some).ok_or_else(|| "a number of milliseconds from 1 to 1000".to_owned())
    }

    fn show(&self, stored: &Option<u32>) -> Option<Literal> {
        stored.map(Literal::Number)
    }
}

/// Parses a number in a range.
struct Ranged {
    allowed: RangeInclusive<u32>,
    wanted: &'static str,
}

const PATH_INTERVAL: Ranged =
    Ranged { allowed: 10..=60_000, wanted: "a number of milliseconds from 10 to 60000" };
const PATH_MISSES: Ranged = Ranged { allowed: 1..=255, wanted: "a number from 1 to 255" };

impl Kind for Ranged {
    type Stored = Option<u32>;
    const LITERAL: LiteralKind = LiteralKind::Number;

    fn parse(&self, text: &str) -> Result<Option<u32>, String> {
        let number = text.parse().ok().filter(|number| self.allowed.contains(number));
        number.map(Some).ok_or_else(|| self.wanted.to_owned())
    }

    fn show(&self, stored: &Option<u32>) -> Option<Literal> {
        stored.map(Literal::Number)
    }
}

/// Parses the targets of the path monitor.
struct Targets;

impl Kind for Targets {
    type Stored = PathTarget;
    const LITERAL: LiteralKind = LiteralKind::List;

    fn parse(&self, text: &str) -> Result<PathTarget, String> {
        text.parse().map_err(|()| {
            if text.split(',').any(|word| word.trim().parse::<Ipv6Addr>().is_ok()) {
                return "an IPv4 address: IPv6 neighbours are not probed; name the router's IPv4 address, or watch IPv6 targets \
                        with arp_interval and ns_ip6_target"
                    .to_owned();
            }
            format!("up to {MOST_PATH_TARGETS} different IPv4 addresses of neighbours, separated by commas, or gateway, or off")
        })
    }

    fn show(&self, stored: &PathTarget) -> Option<Literal> {
        match stored {
            PathTarget::Hosts(hosts) => Some(Literal::List(hosts.iter().map(ToString::to_string).collect())),
            PathTarget::Off | PathTarget::Gateway => Some(Literal::Text(stored.to_string())),
        }
    }
}

/// Parses the settings of flap damping: `half_life=15,suppress=3,reuse=1.5,max=60`, any of them, or `off`.
struct FlapDamping;

impl Kind for FlapDamping {
    type Stored = Option<Damping>;
    const LITERAL: LiteralKind = LiteralKind::Table;

    fn parse(&self, text: &str) -> Result<Option<Damping>, String> {
        match text {
            "off" => Ok(None),
            _ => text.parse().map(Some).map_err(|error| {
                format!("half_life, suppress, reuse and max, as half_life=15,suppress=3, or off ({error})")
            }),
        }
    }

    fn show(&self, stored: &Option<Damping>) -> Option<Literal> {
        stored.map(|damping| Literal::Table(Damping::KEYS.into_iter().zip(damping.values()).collect()))
    }
}

/// Parses what slaves need to count as up: `all=carrier,path`, `any=arp,ns`, one of these words, or `monitor`.
struct Watched;

impl Watched {
    /// What the monitors in force judge by.
    const NONE: &'static str = "monitor";
}

impl Kind for Watched {
    type Stored = Option<Watch>;
    const LITERAL: LiteralKind = LiteralKind::Choice;

    fn parse(&self, text: &str) -> Result<Option<Watch>, String> {
        match text {
            Self::NONE => Ok(None),
            _ => text.parse().map(Some).map_err(|error| {
                format!("all or any of carrier, path, arp and ns, as all=carrier,path, or monitor ({error})")
            }),
        }
    }

    fn show(&self, stored: &Option<Watch>) -> Option<Literal> {
        stored.map(|watch| Literal::Choice(watch.needs().key(), watch.signs().map(Sign::word).collect()))
    }
}

/// Parses the text of another type.
struct Parsed<T> {
    wanted: &'static str,
    of: PhantomData<T>,
}

const HOST_MAC: Parsed<HostMac> = Parsed { wanted: WANTED_HOST_MAC, of: PhantomData };

const BOND_MAC: Parsed<BondMac> = Parsed { wanted: WANTED_MAC, of: PhantomData };

impl<T: FromStr + Display + PartialEq> Kind for Parsed<T> {
    type Stored = Option<T>;
    const LITERAL: LiteralKind = LiteralKind::Text;

    fn parse(&self, text: &str) -> Result<Option<T>, String> {
        text.parse().map(Some).map_err(|_| self.wanted.to_owned())
    }

    fn show(&self, stored: &Option<T>) -> Option<Literal> {
        stored.as_ref().map(|value| Literal::Text(value.to_string()))
    }
}

/// Parses the name of an interface.
struct Interface;

impl Kind for Interface {
    type Stored = Option<InterfaceName>;
    const LITERAL: LiteralKind = LiteralKind::Text;

    fn parse(&self, text: &str) -> Result<Option<InterfaceName>, String> {
        InterfaceName::new(text)
            .map(Some)
            .map_err(|error| format!("the name of an interface; it {}", error.fault))
    }

    fn show(&self, stored: &Option<InterfaceName>) -> Option<Literal> {
        stored.as_ref().map(|name| Literal::Text(name.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each setting a value that is not its default.
    const SAMPLES: &[(&str, &str)] = &[
        ("allow_unmonitored", "true"),
        ("mac", "02:00:00:00:00:01"),
        ("mtu", "9000"),
        ("datapath", "xdp-generic"),
        ("pair", "veth"),
        ("port", "eth3"),
        ("host_mac", "02:00:00:00:00:02"),
        ("on_exit", "keep"),
        ("guard", "off"),
        ("clock", "off"),
        ("clock_interval", "25"),
        ("damping", "half_life=30,suppress=4,reuse=2.5,max=120"),
        ("path_target", "192.0.2.1,192.0.2.2"),
        ("path_interval", "20"),
        ("path_misses", "5"),
        ("path_method", "arp"),
        ("failback", "proven"),
        ("watch", "any=arp,ns"),
        ("prearm", "true"),
        ("move_addresses", "true"),
    ];

    fn bond() -> BondConfig {
        BondConfig::new(BondName::new("bond0").unwrap(), Origin::Flags)
    }

    #[test]
    fn every_setting_is_read_and_written_by_its_row() {
        assert_eq!(SAMPLES.iter().map(|(key, _)| *key).collect::<Vec<_>>(), KEYS);
        for (key, text) in SAMPLES {
            let mut bond = bond();
            assert_eq!(bond.set(key, text), Some(Ok(())), "{key}");
            let written = bond.settings();
            let [(written_key, literal)] = written.as_slice() else { panic!("{key}: {written:?}") };
            let row = ROWS.iter().find(|row| row.key == *key).unwrap();
            let (kind, shown) = match literal {
                Literal::Flag(flag) => (LiteralKind::Flag, flag.to_string()),
                Literal::Number(number) => (LiteralKind::Number, number.to_string()),
                Literal::Text(text) => (LiteralKind::Text, text.clone()),
                Literal::List(_) => (LiteralKind::List, literal.to_string()),
                Literal::Table(_) => (LiteralKind::Table, literal.to_string()),
                Literal::Choice(..) => (LiteralKind::Choice, literal.to_string()),
            };
            assert_eq!((literal.to_string(), bond.shown(key)), (shown.clone(), shown.clone()));
            assert_eq!((*written_key, kind, shown.as_str()), (*key, row.literal, *text));
            let differing: Vec<_> = bond.settings_that_differ(&self::bond()).collect();
            assert_eq!(differing, [row]);
        }
        assert_eq!(bond().set("miimon", "100"), None);
    }

    #[test]
    fn targets_of_paths_are_few_different_hosts_or_the_gateway() {
        for text in ["192.0.2.1", "192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4", "gateway", "off"] {
            assert_eq!(text.parse::<PathTarget>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "192.0.2.1,",
            "192.0.2.1,192.0.2.1",
            "192.0.2.1,gateway",
            "0.0.0.0",
            "224.0.0.1",
            "127.0.0.1",
            "255.255.255.255",
            "2001:db8::1",
            "1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5",
        ] {
            assert!(text.parse::<PathTarget>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_that_a_setting_does_not_take_is_refused_and_changes_nothing() {
        for (key, _) in SAMPLES {
            let mut bond = bond();
            assert!(bond.set(key, "a/b").unwrap().is_err(), "{key}");
            assert_eq!(bond, self::bond());
        }
    }
}
