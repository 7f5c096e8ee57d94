//! From text to settings: which options there are, and what values each of them takes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use super::{
    ArpAllTargets, ArpValidate, BondOptions, FailOverMac, MAX_MS, MAX_PEER_NOTIF_DELAY, Named, OptionError,
    PrimaryReselect, SlaveOptions, closest,
};

/// One option with one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A part of [`BondOptions`].
    Option(BondOption),
    /// A request to the running bond; None: elect anew.
    ActiveSlave(Option<String>),
}

/// One option of a bond with one of its values. `Mode` and `UseCarrier` have only one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BondOption {
    Mode,
    Miimon(u32),
    Updelay(u32),
    Downdelay(u32),
    PeerNotifDelay(u32),
    NumGratArp(u8),
    NumUnsolNa(u8),
    FailOverMac(FailOverMac),
    Primary(Option<String>),
    PrimaryReselect(PrimaryReselect),
    ArpInterval(u32),
    ArpIpTarget(TargetEdit<Ipv4Addr>),
    NsIp6Target(TargetEdit<Ipv6Addr>),
    ArpValidate(ArpValidate),
    ArpAllTargets(ArpAllTargets),
    ArpMissedMax(u8),
    AllSlavesActive(bool),
    ResendIgmp(u8),
    MinLinks(u32),
    UseCarrier,
    XmitHashPolicy(&'static str),
    AdSelect(&'static str),
    LpInterval(u32),
}

/// What to do with a list of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetEdit<A> {
    /// `a,b`: these instead. An empty text: none.
    Replace(Vec<A>),
    /// `+a` or `+a,+b`
    Add(Vec<A>),
    /// `-a` or `-a,-b`
    Remove(Vec<A>),
}

/// Every option that [`Setting::parse`] takes, by its first name.
pub const KEYS: &[&str] = &[
    "mode",
    "miimon",
    "updelay",
    "downdelay",
    "peer_notif_delay",
    "num_grat_arp",
    "num_unsol_na",
    "fail_over_mac",
    "primary",
    "primary_reselect",
    "arp_interval",
    "arp_ip_target",
    "ns_ip6_target",
    "arp_validate",
    "arp_all_targets",
    "arp_missed_max",
    "all_slaves_active",
    "resend_igmp",
    "min_links",
    "use_carrier",
    "xmit_hash_policy",
    "ad_select",
    "lp_interval",
    "active_slave",
];

/// Options whose value is a list, with commas between its items.
pub const LIST_KEYS: &[&str] = &[Ipv4Addr::KEY, Ipv6Addr::KEY];

/// The driver's modes, by number (`bond_mode_tbl`).
const MODES: &[&str] =
    &["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];

/// Options that the driver refuses in active-backup (`unsuppmodes` in `bond_opts`).
const OF_OTHER_MODES: &[(&str, &str)] = &[
    ("packets_per_slave", "balance-rr"),
    ("lacp_active", "802.3ad"),
    ("lacp_rate", "802.3ad"),
    ("ad_actor_sys_prio", "802.3ad"),
    ("ad_actor_system", "802.3ad"),
    ("ad_user_port_key", "802.3ad"),
    ("coupled_control", "802.3ad"),
    ("broadcast_neighbor", "802.3ad"),
    ("tlb_dynamic_lb", "balance-tlb"),
];

/// By number (`bond_xmit_hashtype_tbl`, `bond_ad_select_tbl`).
const XMIT_HASH_POLICIES: &[&str] =
    &["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"];
const AD_SELECTS: &[&str] = &["stable", "bandwidth", "count"];

/// An option whose values are numbers, some of which have names (`bond_intmax_tbl` and its like).
struct Numbers<T: 'static> {
    range: RangeInclusive<T>,
    names: &'static [(&'static str, T)],
    /// For messages.
    unit: &'static str,
}

const INT_MAX_NAMES: &[(&str, u32)] = &[("off", 0), ("maxval", MAX_MS), (DEFAULT, 0)];
const MILLISECONDS: Numbers<u32> = Numbers { range: 0..=MAX_MS, names: INT_MAX_NAMES, unit: " ms" };
const LINKS: Numbers<u32> = Numbers { range: 0..=MAX_MS, names: INT_MAX_NAMES, unit: "" };
const PEER_NOTIF_DELAY: Numbers<u32> = Numbers {
    range: 0..=MAX_PEER_NOTIF_DELAY,
    names: &[("off", 0), ("maxval", MAX_PEER_NOTIF_DELAY)],
    unit: " ms",
};
const ROUNDS: Numbers<u8> =
    Numbers { range: 0..=u8::MAX, names: &[("off", 0), ("maxval", u8::MAX), (DEFAULT, 1)], unit: "" };
const MISSES: Numbers<u8> =
    Numbers { range: 1..=u8::MAX, names: &[("minval", 1), ("maxval", u8::MAX), (DEFAULT, 2)], unit: "" };
const SECONDS: Numbers<u32> =
    Numbers { range: 1..=MAX_MS, names: &[("minval", 1), ("maxval", MAX_MS), (DEFAULT, 1)], unit: "" };

/// The name that most tables have for the value that nobody set (BOND_VALFLAG_DEFAULT).
const DEFAULT: &str = "default";

impl<T: FromStr + Copy + PartialOrd + fmt::Display> Numbers<T> {
    fn parse(&self, key: &'static str, text: &str) -> Result<T, OptionError> {
        let named = self.names.iter().find(|(name, _)| *name == text.trim()).map(|(_, number)| *number);
        let number = || digits(text).filter(|number| self.range.contains(number));
        named.or_else(number).ok_or_else(|| OptionError::BadValue {
            key,
            value: text.to_owned(),
            allowed: format!("{} to {}{}", self.range.start(), self.range.end(), self.unit),
        })
    }
}

impl Setting {
    /// Reads an option by any of its names, and its value by name or number; a name with its number, as
    /// sysfs shows it (`active 1`), is taken too.
    ///
    /// # Errors
    /// There is no such option, it belongs to another mode or to a slave, or this is not one of its values.
    pub fn parse(key: &str, value: &str) -> Result<Self, OptionError> {
        use BondOption::*;
        Ok(Self::Option(match key {
            "mode" => mode(value)?,
            "miimon" => Miimon(MILLISECONDS.parse("miimon", value)?),
            "updelay" => Updelay(MILLISECONDS.parse("updelay", value)?),
            "downdelay" => Downdelay(MILLISECONDS.parse("downdelay", value)?),
            // sysfs and iproute2 have a name each.
            "peer_notif_delay" | "peer_notify_delay" => {
                PeerNotifDelay(PEER_NOTIF_DELAY.parse("peer_notif_delay", value)?)
            }
            "num_grat_arp" => NumGratArp(ROUNDS.parse("num_grat_arp", value)?),
            "num_unsol_na" => NumUnsolNa(ROUNDS.parse("num_unsol_na", value)?),
            "fail_over_mac" => FailOverMac(named("fail_over_mac", value)?),
            "primary" => Primary(interface("primary", value)?),
            "primary_reselect" => PrimaryReselect(named("primary_reselect", value)?),
            "arp_interval" => ArpInterval(MILLISECONDS.parse("arp_interval", value)?),
            "arp_ip_target" => ArpIpTarget(targets(value)?),
            "ns_ip6_target" => NsIp6Target(targets(value)?),
            "arp_validate" => ArpValidate(named("arp_validate", value)?),
            "arp_all_targets" => ArpAllTargets(named("arp_all_targets", value)?),
            "arp_missed_max" => ArpMissedMax(MISSES.parse("arp_missed_max", value)?),
            "all_slaves_active" => AllSlavesActive(named("all_slaves_active", value)?),
            "resend_igmp" => ResendIgmp(ROUNDS.parse("resend_igmp", value)?),
            "min_links" => MinLinks(LINKS.parse("min_links", value)?),
            "use_carrier" => use_carrier(value)?,
            "xmit_hash_policy" => {
                XmitHashPolicy(XMIT_HASH_POLICIES[entry("xmit_hash_policy", value, XMIT_HASH_POLICIES)?])
            }
            "ad_select" => AdSelect(AD_SELECTS[entry("ad_select", value, AD_SELECTS)?]),
            "lp_interval" => LpInterval(SECONDS.parse("lp_interval", value)?),
            "active_slave" => return Ok(Self::ActiveSlave(interface("active_slave", value)?)),
            _ => return Err(not_an_option(key, value)),
        }))
    }
}

impl BondOption {
    /// The option's first name.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Miimon(_) => "miimon",
            Self::Updelay(_) => "updelay",
            Self::Downdelay(_) => "downdelay",
            Self::PeerNotifDelay(_) => "peer_notif_delay",
            Self::NumGratArp(_) => "num_grat_arp",
            Self::NumUnsolNa(_) => "num_unsol_na",
            Self::FailOverMac(_) => "fail_over_mac",
            Self::Primary(_) => "primary",
            Self::PrimaryReselect(_) => "primary_reselect",
            Self::ArpInterval(_) => "arp_interval",
            Self::ArpIpTarget(_) => Ipv4Addr::KEY,
            Self::NsIp6Target(_) => Ipv6Addr::KEY,
            Self::ArpValidate(_) => "arp_validate",
            Self::ArpAllTargets(_) => "arp_all_targets",
            Self::ArpMissedMax(_) => "arp_missed_max",
            Self::AllSlavesActive(_) => "all_slaves_active",
            Self::ResendIgmp(_) => "resend_igmp",
            Self::MinLinks(_) => "min_links",
            Self::UseCarrier => "use_carrier",
            Self::XmitHashPolicy(_) => "xmit_hash_policy",
            Self::AdSelect(_) => "ad_select",
            Self::LpInterval(_) => "lp_interval",
        }
    }

    /// Does it say something that has no effect in active-backup? The defaults say nothing.
    pub(super) fn is_unused(&self) -> bool {
        let default = BondOptions::default();
        match self {
            Self::MinLinks(links) => *links != default.min_links,
            Self::XmitHashPolicy(policy) => *policy != default.xmit_hash_policy,
            Self::AdSelect(logic) => *logic != default.ad_select,
            Self::LpInterval(seconds) => *seconds != default.lp_interval,
            _ => false,
        }
    }
}

fn not_an_option(key: &str, value: &str) -> OptionError {
    if let Some(&(key, modes)) = OF_OTHER_MODES.iter().find(|(other, _)| *other == key) {
        return OptionError::OptionOfOtherMode { key, modes };
    }
    if let Some(&key) = SlaveOptions::KEYS.iter().find(|slave_key| **slave_key == key) {
        return OptionError::OptionOfSlave { key, value: value.to_owned() };
    }
    OptionError::Unknown { key: key.to_owned(), closest: closest(key, KEYS.iter().copied()), known: KEYS }
}

fn mode(text: &str) -> Result<BondOption, OptionError> {
    match entry("mode", text, MODES).map(|number| MODES[number]) {
        Ok("active-backup") => Ok(BondOption::Mode),
        other => Err(OptionError::OtherMode { value: text.to_owned(), known: other.is_ok() }),
    }
}

fn use_carrier(text: &str) -> Result<BondOption, OptionError> {
    match named("use_carrier", text) {
        _ if text.trim() == DEFAULT => Ok(BondOption::UseCarrier),
        Ok(true) => Ok(BondOption::UseCarrier),
        Ok(false) | Err(_) => Err(OptionError::BadValue {
            key: "use_carrier",
            value: text.to_owned(),
            allowed: "on (1); the kernel has given up the other test of links, so remove it".to_owned(),
        }),
    }
}

/// A decimal number within `range`.
pub(super) fn number<T>(key: &'static str, text: &str, range: RangeInclusive<T>) -> Result<T, OptionError>
where
    T: FromStr + Copy + PartialOrd + fmt::Display + 'static,
{
    Numbers { range, names: &[], unit: "" }.parse(key, text)
}

/// Only digits, unlike `FromStr`, which takes `+1`; a minus is left to the type.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let text = text.trim();
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    unsigned.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn named<T: Named>(key: &'static str, text: &str) -> Result<T, OptionError> {
    Ok(T::VALUES[entry(key, text, T::NAMES)?])
}

/// The place in a table of names, given by its name, by its number, or by both. The first is the default.
fn entry(key: &'static str, text: &str, names: &[&str]) -> Result<usize, OptionError> {
    let mut words = text.split_whitespace();
    let place = |word: &str| match word {
        DEFAULT => Some(0),
        _ => digits::<usize>(word)
            .filter(|place| *place < names.len())
            .or_else(|| names.iter().position(|n| *n == word)),
    };
    let found = match (words.next(), words.next(), words.next()) {
        (Some(word), None, None) => place(word),
        (Some(name), Some(number), None) => {
            names.iter().position(|n| *n == name).filter(|place| digits(number) == Some(*place))
        }
        _ => None,
    };
    found.ok_or_else(|| {
        let allowed: Vec<_> =
            names.iter().enumerate().map(|(number, name)| format!("{name} ({number})")).collect();
        OptionError::BadValue { key, value: text.to_owned(), allowed: allowed.join(", ") }
    })
}

/// The name of an interface, which need not exist; None for an empty text.
fn interface(key: &'static str, text: &str) -> Result<Option<String>, OptionError> {
    let name = text.trim();
    match crate::name::interface_name_fault(name) {
        _ if name.is_empty() => Ok(None),
        None => Ok(Some(name.to_owned())),
        Some(fault) => Err(OptionError::BadValue {
            key,
            value: text.to_owned(),
            allowed: format!("the name of an interface; this one {fault}"),
        }),
    }
}

/// An address that ARP or NS monitoring can probe.
pub(super) trait Target: FromStr + Copy + PartialEq + Into<IpAddr> {
    const KEY: &'static str;
    const FORM: &'static str;

    fn can_be_probed(self) -> bool;
}

impl Target for Ipv4Addr {
    const KEY: &'static str = "arp_ip_target";
    const FORM: &'static str = "IPv4 addresses separated by commas, or +ADDRESS, or -ADDRESS";

    /// `bond_is_ip_target_ok`
    fn can_be_probed(self) -> bool {
        self.octets()[0] != 0 && !self.is_broadcast()
    }
}

impl Target for Ipv6Addr {
    const KEY: &'static str = "ns_ip6_target";
    const FORM: &'static str = "IPv6 addresses separated by commas, or +ADDRESS, or -ADDRESS";

    /// `bond_is_ip6_target_ok`
    fn can_be_probed(self) -> bool {
        !self.is_unspecified() && !self.is_loopback() && !self.is_multicast()
    }
}

fn targets<A: Target>(text: &str) -> Result<TargetEdit<A>, OptionError> {
    let wrong = || OptionError::BadValue { key: A::KEY, value: text.to_owned(), allowed: A::FORM.to_owned() };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(TargetEdit::Replace(Vec::new()));
    }
    let sign = trimmed.chars().next().filter(|first| matches!(first, '+' | '-'));
    let mut addresses = Vec::new();
    for item in trimmed.split(',') {
        let item = item.trim();
        let bare = match sign {
            Some(sign) => item.strip_prefix(sign).ok_or_else(wrong)?,
            None => item,
        };
        addresses.push(bare.parse().map_err(|_| wrong())?);
    }
    Ok(match sign {
        Some('+') => TargetEdit::Add(addresses),
        Some(_) => TargetEdit::Remove(addresses),
        None => TargetEdit::Replace(addresses),
    })
}
