//! Errors of options, and notes about options that were accepted.

use std::{fmt, net::IpAddr};

use crate::name::shortened;

/// The reason why an option is refused. Its text names the option, its value, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// There is no option of this name (ENOENT).
    #[error("{}: no such option; {}", shortened(.key), suggestion(.closest, .known))]
    Unknown {
        /// The name that was given.
        key: String,
        /// The option that the name probably means.
        closest: Option<&'static str>,
        /// The options that exist.
        known: Vec<&'static str>,
    },
    /// The option does not accept this value (EINVAL).
    #[error("{key}={}: not a value; allowed: {allowed}", shortened(.value))]
    BadValue {
        /// The option.
        key: &'static str,
        /// The text that was given.
        value: String,
        /// The values that the option accepts, in words.
        allowed: String,
    },
    /// A mode other than active-backup (EOPNOTSUPP, or EINVAL for one that the driver does not have).
    #[error("mode={}: xbond does active-backup (1) only", shortened(.value))]
    OtherMode {
        /// The text that was given.
        value: String,
        /// Whether the driver has this mode.
        known: bool,
    },
    /// The driver has this option in other modes only (EACCES).
    #[error("{key}: an option of {modes}; xbond does active-backup (1) only")]
    OptionOfOtherMode {
        /// The option.
        key: &'static str,
        /// The modes that have it.
        modes: &'static str,
    },
    /// An option of slaves was set for the bond (EINVAL).
    #[error(
        "{key}={}: an option of a slave, not of the bond; give it to the slave (`xbond set --slave`)",
        shortened(.value)
    )]
    OptionOfSlave {
        /// The option.
        key: &'static str,
        /// The value that was given.
        value: String,
    },
    /// `active_slave` is a request, not a part of a configuration (EINVAL).
    #[error(
        "active_slave={}: chosen at run time, by `xbond set`; for a lasting preference set primary",
        shortened(.value)
    )]
    ActiveSlave {
        /// The name of the slave.
        value: String,
    },
    /// The option cannot be changed while the bond has slaves (BOND_OPTFLAG_NOSLAVES, ENOTEMPTY).
    #[error("{key}: can only be set while the bond has no slaves; release them first")]
    HasSlaves {
        /// The option.
        key: &'static str,
    },
    /// A delay was set while miimon is 0 (EPERM).
    #[error("{key}={value}: needs miimon; set miimon first, for example miimon=100")]
    NeedsMiimon {
        /// The delay.
        key: &'static str,
        /// Its value in milliseconds.
        value: u32,
    },
    /// The new miimon makes a delay longer than its limit (ERANGE).
    #[error("miimon={miimon}: {key}, {ticks} ticks of miimon, would be too long; set a smaller {key} first")]
    DelayTooLong {
        /// The new miimon in milliseconds.
        miimon: u32,
        /// The delay.
        key: &'static str,
        /// The length of the delay in ticks of miimon.
        ticks: u32,
    },
    /// The address cannot be probed, for example a broadcast address (EINVAL).
    #[error("{key}={address}: not an address that can be a target")]
    NotATarget {
        /// `arp_ip_target` or `ns_ip6_target`.
        key: &'static str,
        /// The address that was given.
        address: IpAddr,
    },
    /// The address is already in the list (EINVAL).
    #[error("{key}={address}: already a target")]
    TargetTwice {
        /// `arp_ip_target` or `ns_ip6_target`.
        key: &'static str,
        /// The address that was given.
        address: IpAddr,
    },
    /// The address to remove is not in the list (EINVAL).
    #[error("{key}=-{address}: not a target, so it cannot be removed")]
    NoSuchTarget {
        /// `arp_ip_target` or `ns_ip6_target`.
        key: &'static str,
        /// The address that was given.
        address: IpAddr,
    },
    /// The list is full (EINVAL).
    #[error("{key}={address}: one target too many; a bond has at most {}", super::MAX_TARGETS)]
    TooManyTargets {
        /// `arp_ip_target` or `ns_ip6_target`.
        key: &'static str,
        /// The first address that does not fit.
        address: IpAddr,
    },
    /// A configuration has two values for an option (EINVAL).
    #[error("{key}: given twice, with different values; give it once")]
    Twice {
        /// The option.
        key: &'static str,
    },
    /// A configuration has different values for the two names of one option (EINVAL).
    #[error("num_grat_arp={num_grat_arp} and num_unsol_na={num_unsol_na}: two names of one number; give one")]
    AnnouncementsDiffer {
        /// The value of the first name.
        num_grat_arp: u8,
        /// The value of the second name.
        num_unsol_na: u8,
    },
    /// A configuration has two link monitors (EINVAL).
    #[error(
        "miimon={miimon} and arp_interval={arp_interval}: a bond has one link monitor; set one of them to 0"
    )]
    TwoMonitors {
        /// The interval of MII monitoring in milliseconds.
        miimon: u32,
        /// The interval of ARP monitoring in milliseconds.
        arp_interval: u32,
    },
    /// A configuration has an ARP monitor without targets (EINVAL).
    #[error("arp_interval={arp_interval}: nothing to probe; set arp_ip_target or ns_ip6_target")]
    ArpWithoutTargets {
        /// The interval of ARP monitoring in milliseconds.
        arp_interval: u32,
    },
    /// A configuration has targets without an ARP monitor (EINVAL).
    #[error("{key}: never probed while arp_interval is 0; set arp_interval, or remove {key}")]
    TargetsWithoutArp {
        /// `arp_ip_target` or `ns_ip6_target`.
        key: &'static str,
    },
    /// A configuration has no link monitor (EINVAL).
    #[error(
        "miimon=0: the kernel accepts this and then never fails over; set miimon=100, or allow it with \
         allow_unmonitored = true / --allow-unmonitored"
    )]
    Unmonitored,
}

impl OptionError {
    /// Returns the error where the named settings are known, too, in addition to the options.
    #[must_use]
    pub fn or_one_of(self, settings: impl IntoIterator<Item = &'static str>) -> Self {
        let Self::Unknown { key, mut known, .. } = self else { return self };
        known.extend(settings);
        Self::Unknown { closest: closest(&key, known.iter().copied()), key, known }
    }

    /// Returns the name of the option that is at fault; of two that exclude each other, the later one.
    pub fn key(&self) -> Option<&str> {
        Some(match self {
            Self::Unknown { key, .. } => key,
            Self::BadValue { key, .. }
            | Self::OptionOfOtherMode { key, .. }
            | Self::OptionOfSlave { key, .. }
            | Self::HasSlaves { key }
            | Self::NeedsMiimon { key, .. }
            | Self::NotATarget { key, .. }
            | Self::TargetTwice { key, .. }
            | Self::NoSuchTarget { key, .. }
            | Self::TooManyTargets { key, .. }
            | Self::Twice { key }
            | Self::TargetsWithoutArp { key } => key,
            Self::OtherMode { .. } => "mode",
            Self::ActiveSlave { .. } => "active_slave",
            Self::DelayTooLong { .. } | Self::Unmonitored => "miimon",
            Self::AnnouncementsDiffer { .. } => "num_unsol_na",
            Self::TwoMonitors { .. } | Self::ArpWithoutTargets { .. } => "arp_interval",
        })
    }

    /// Returns the `errno` with which the driver refuses the option. For an option that only xbond refuses, it is the
    /// one that fits best.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NeedsMiimon { .. } => libc::EPERM,
            Self::OptionOfOtherMode { .. } => libc::EACCES,
            Self::HasSlaves { .. } => libc::ENOTEMPTY,
            Self::DelayTooLong { .. } => libc::ERANGE,
            Self::OtherMode { known: true, .. } => libc::EOPNOTSUPP,
            Self::Unknown { .. } => libc::ENOENT,
            Self::BadValue { .. }
            | Self::OtherMode { known: false, .. }
            | Self::OptionOfSlave { .. }
            | Self::ActiveSlave { .. }
            | Self::NotATarget { .. }
            | Self::TargetTwice { .. }
            | Self::NoSuchTarget { .. }
            | Self::TooManyTargets { .. }
            | Self::Twice { .. }
            | Self::AnnouncementsDiffer { .. }
            | Self::TwoMonitors { .. }
            | Self::ArpWithoutTargets { .. }
            | Self::TargetsWithoutArp { .. }
            | Self::Unmonitored => libc::EINVAL,
        }
    }
}

/// Returns the word of `known` that a mistyped `word` probably means, None if none is similar.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A word that differs in more than a third of its letters would be a guess.
    let limit = |candidate: &str| candidate.len().div_ceil(3);
    let length = word.chars().count();
    // Each letter too many is a difference, and to count the others takes as long as both words are.
    let may_be_meant = |candidate: &&str| length.abs_diff(candidate.len()) <= limit(candidate);
    let known: Vec<_> = known.into_iter().filter(may_be_meant).collect();
    if known.is_empty() {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .min_by_key(|&(distance, _)| distance)
        .filter(|&(distance, candidate)| distance <= limit(candidate))
        .map(|(_, candidate)| candidate)
}

/// Returns the end of a sentence about an unknown key: the closest known one, or all of them.
pub fn suggestion(closest: &Option<&'static str>, known: &[&str]) -> String {
    match closest {
        Some(closest) => format!("did you mean {closest}?"),
        None => format!("there are: {}", known.join(", ")),
    }
}

/// A note about an option that was accepted with an effect that differs from its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A delay was rounded down to a multiple of miimon. All values are milliseconds.
    Rounded {
        /// The delay.
        key: &'static str,
        /// The value that was given.
        from: u32,
        /// The value that was stored.
        to: u32,
        /// The present miimon.
        miimon: u32,
    },
    /// A new miimon made a delay longer or shorter. All values are milliseconds.
    Rescaled {
        /// The delay.
        key: &'static str,
        /// Its former value.
        from: u32,
        /// Its present value.
        to: u32,
        /// The new miimon.
        miimon: u32,
    },
    /// An option excludes another one, which was set to 0 or none.
    TurnedOff {
        /// The option that was turned off.
        key: &'static str,
        /// The option that excludes it.
        by: &'static str,
    },
    /// The option has no effect in active-backup mode.
    Unused {
        /// The option.
        key: &'static str,
    },
    /// The ARP monitor has no targets yet.
    NoTargets {
        /// The interval of ARP monitoring in milliseconds.
        arp_interval: u32,
    },
    /// No link monitor is on any more.
    Unmonitored,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rounded { key, from, to, miimon } => {
                write!(f, "{key}={from}: not a multiple of miimon ({miimon}), rounded to {to} ms")
            }
            Self::Rescaled { key, from, to, miimon } => {
                write!(
                    f,
                    "{key}: was {from} ms, is {to} ms now: it counts in miimon, which is {miimon} ms now"
                )
            }
            Self::TurnedOff { key, by } => {
                let off = if *key == "arp_validate" { "none" } else { "0" };
                write!(f, "{key}: set to {off}, because {by} was set")
            }
            Self::Unused { key } => write!(f, "{key}: accepted, without effect in active-backup"),
            Self::NoTargets { arp_interval } => {
                write!(f, "arp_interval={arp_interval}: nothing to probe; set arp_ip_target or ns_ip6_target")
            }
            Self::Unmonitored => {
                f.write_str("miimon=0: links are not monitored, so the bond never fails over")
            }
        }
    }
}
