//! The values of options: how each kind is read from text, stored and shown.

use std::{
    fmt,
    marker::PhantomData,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use serde::Serialize;

use super::{MAX_MS, MAX_PEER_NOTIF_DELAY, MAX_TARGETS, Named, OptionError};

/// The kind of an option's values.
pub(super) trait Values {
    /// What a bond has of it.
    type Stored;
    /// What one setting says of it.
    type Set: Edit<Self::Stored>;

    /// Reads a value.
    ///
    /// # Errors
    /// It is not one of this kind; the error names `key`.
    fn parse(&self, key: &'static str, text: &str) -> Result<Self::Set, OptionError>;

    fn show<'a>(&self, stored: &'a Self::Stored) -> Shown<'a>;
}

/// What changes the stored value of an option.
pub(super) trait Edit<Stored> {
    /// Changes the value.
    ///
    /// # Errors
    /// A list cannot be edited so.
    fn apply(self, stored: &mut Stored) -> Result<(), OptionError>;
}

/// Most values replace what was there.
impl<T> Edit<T> for T {
    fn apply(self, stored: &mut T) -> Result<(), OptionError> {
        *stored = self;
        Ok(())
    }
}

/// An option's value as it is shown: a number as a number, a value of a table by name, a list as an array, and no
/// interface as null.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Shown<'a> {
    Number(u32),
    Name(&'static str),
    Interface(Option<&'a str>),
    List(Vec<String>),
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Interface(name) => f.write_str(name.unwrap_or_default()),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}

/// A change of a list of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetEdit<A> {
    /// Replaces the list: `a,b`, or an empty text for no targets.
    Replace(Vec<A>),
    /// Adds to the list: `+a` or `+a,+b`.
    Add(Vec<A>),
    /// Removes from the list: `-a` or `-a,-b`.
    Remove(Vec<A>),
}

/// An option whose values are numbers, some of which have names (`bond_intmax_tbl` and its like).
pub(super) struct Numbers<T: 'static> {
    range: RangeInclusive<T>,
    names: &'static [(&'static str, T)],
    /// For messages.
    unit: &'static str,
}

const INT_MAX_NAMES: &[(&str, u32)] = &[("off", 0), ("maxval", MAX_MS), (DEFAULT, 0)];
pub(super) const MILLISECONDS: Numbers<u32> =
    Numbers { range: 0..=MAX_MS, names: INT_MAX_NAMES, unit: " ms" };
pub(super) const LINKS: Numbers<u32> = Numbers { range: 0..=MAX_MS, names: INT_MAX_NAMES, unit: "" };
pub(super) const PEER_NOTIF_DELAY: Numbers<u32> = Numbers {
    range: 0..=MAX_PEER_NOTIF_DELAY,
    names: &[("off", 0), ("maxval", MAX_PEER_NOTIF_DELAY)],
    unit: " ms",
};
pub(super) const ROUNDS: Numbers<u8> =
    Numbers { range: 0..=u8::MAX, names: &[("off", 0), ("maxval", u8::MAX), (DEFAULT, 1)], unit: "" };
pub(super) const MISSES: Numbers<u8> =
    Numbers { range: 1..=u8::MAX, names: &[("minval", 1), ("maxval", u8::MAX), (DEFAULT, 2)], unit: "" };
pub(super) const SECONDS: Numbers<u32> =
    Numbers { range: 1..=MAX_MS, names: &[("minval", 1), ("maxval", MAX_MS), (DEFAULT, 1)], unit: "" };

/// The keys of the options whose value is a list, with commas between its items.
pub const LIST_KEYS: &[&str] = &[Ipv4Addr::KEY, Ipv6Addr::KEY];

/// The name that most tables have for the default value (BOND_VALFLAG_DEFAULT).
pub(super) const DEFAULT: &str = "default";

impl<T: FromStr + Copy + PartialOrd + fmt::Display + Into<u32>> Values for Numbers<T> {
    type Stored = T;
    type Set = T;

    fn parse(&self, key: &'static str, text: &str) -> Result<T, OptionError> {
        self.read(key, text)
    }

    fn show<'a>(&self, stored: &'a T) -> Shown<'a> {
        Shown::Number((*stored).into())
    }
}

impl<T: FromStr + Copy + PartialOrd + fmt::Display> Numbers<T> {
    fn read(&self, key: &'static str, text: &str) -> Result<T, OptionError> {
        let named = self.names.iter().find(|(name, _)| *name == text.trim()).map(|(_, number)| *number);
        let number = || digits(text).filter(|number| self.range.contains(number));
        named.or_else(number).ok_or_else(|| {
            let range = format!("{} to {}{}", self.range.start(), self.range.end(), self.unit);
            let allowed = if has_unit(text) { format!("a number without unit, {range}") } else { range };
            OptionError::BadValue { key, value: text.to_owned(), allowed }
        })
    }
}

/// The values of an enumeration, by the driver's name or number.
pub(super) struct Words<T>(PhantomData<T>);

impl<T> Words<T> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Named> Values for Words<T> {
    type Stored = T;
    type Set = T;

    fn parse(&self, key: &'static str, text: &str) -> Result<T, OptionError> {
        named(key, text)
    }

    fn show<'a>(&self, stored: &'a T) -> Shown<'a> {
        Shown::Name(stored.name())
    }
}

/// On or off, shown as a number.
pub(super) struct Switch;

impl Values for Switch {
    type Stored = bool;
    type Set = bool;

    fn parse(&self, key: &'static str, text: &str) -> Result<bool, OptionError> {
        named(key, text)
    }

    fn show<'a>(&self, stored: &'a bool) -> Shown<'a> {
        Shown::Number((*stored).into())
    }
}

/// Names of a table of the driver, for options that have no effect here.
pub(super) struct Names(&'static [&'static str]);

/// By number (`bond_xmit_hashtype_tbl`, `bond_ad_select_tbl`).
pub(super) const XMIT_HASH_POLICIES: Names =
    Names(&["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"]);
pub(super) const AD_SELECTS: Names = Names(&["stable", "bandwidth", "count"]);

impl Values for Names {
    type Stored = &'static str;
    type Set = &'static str;

    fn parse(&self, key: &'static str, text: &str) -> Result<&'static str, OptionError> {
        entry(key, text, self.0, self.0)
    }

    fn show<'a>(&self, stored: &'a &'static str) -> Shown<'a> {
        Shown::Name(stored)
    }
}

/// The name of an interface, which need not exist; none for an empty text.
pub(super) struct Interface;

impl Values for Interface {
    type Stored = Option<String>;
    type Set = Option<String>;

    fn parse(&self, key: &'static str, text: &str) -> Result<Option<String>, OptionError> {
        interface(key, text)
    }

    fn show<'a>(&self, stored: &'a Option<String>) -> Shown<'a> {
        Shown::Interface(stored.as_deref())
    }
}

/// Addresses to probe.
pub(super) struct Targets<A>(PhantomData<A>);

impl<A> Targets<A> {
    pub(super) const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<A: Target + ToString> Values for Targets<A> {
    type Stored = Vec<A>;
    type Set = TargetEdit<A>;

    fn parse(&self, _: &'static str, text: &str) -> Result<TargetEdit<A>, OptionError> {
        targets(text)
    }

    fn show<'a>(&self, stored: &'a Vec<A>) -> Shown<'a> {
        Shown::List(stored.iter().map(A::to_string).collect())
    }
}

/// A decimal number within `range`.
pub(super) fn number<T>(key: &'static str, text: &str, range: RangeInclusive<T>) -> Result<T, OptionError>
where
    T: FromStr + Copy + PartialOrd + fmt::Display + 'static,
{
    Numbers { range, names: &[], unit: "" }.read(key, text)
}

/// Returns whether a text is a number with a unit, as `100ms` and `0.1 s` are.
fn has_unit(text: &str) -> bool {
    let unit =
        text.trim().trim_start_matches(|first: char| first.is_ascii_digit() || first == '.').trim_start();
    unit.len() < text.trim().len() && !unit.is_empty() && unit.chars().all(char::is_alphabetic)
}

/// Only digits, unlike `FromStr`, which takes `+1`; a minus is left to the type.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    let text = text.trim();
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    unsigned.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

pub(super) fn named<T: Named>(key: &'static str, text: &str) -> Result<T, OptionError> {
    entry(key, text, T::NAMES, T::VALUES)
}

/// Returns the value that `text` names by its name, by its number, or by both. `names` and `values` are the columns of
/// one table, whose first row is the default.
pub(super) fn entry<T: Copy>(
    key: &'static str,
    text: &str,
    names: &[&str],
    values: &[T],
) -> Result<T, OptionError> {
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
    found.and_then(|place| values.get(place).copied()).ok_or_else(|| {
        let allowed: Vec<_> =
            names.iter().enumerate().map(|(number, name)| format!("{name} ({number})")).collect();
        OptionError::BadValue { key, value: text.to_owned(), allowed: allowed.join(", ") }
    })
}

/// The name of an interface, which need not exist; None for an empty text.
pub(super) fn interface(key: &'static str, text: &str) -> Result<Option<String>, OptionError> {
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

/// `_bond_option_arp_ip_target_add`, `bond_option_arp_ip_target_rem` and their like for IPv6.
impl<A: Target> Edit<Vec<A>> for TargetEdit<A> {
    fn apply(self, targets: &mut Vec<A>) -> Result<(), OptionError> {
        let key = A::KEY;
        let added = match self {
            Self::Remove(removed) => {
                for target in removed {
                    let place = targets.iter().position(|known| *known == target);
                    targets.remove(place.ok_or(OptionError::NoSuchTarget { key, address: target.into() })?);
                }
                return Ok(());
            }
            Self::Replace(instead) => {
                targets.clear();
                instead
            }
            Self::Add(added) => added,
        };
        for target in added {
            let address = target.into();
            if !target.can_be_probed() {
                return Err(OptionError::NotATarget { key, address });
            }
            if targets.contains(&target) {
                return Err(OptionError::TargetTwice { key, address });
            }
            if targets.len() == MAX_TARGETS {
                return Err(OptionError::TooManyTargets { key, address });
            }
            targets.push(target);
        }
        Ok(())
    }
}
