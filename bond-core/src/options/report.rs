//! What is wrong with an option, and what became of it.

use std::{fmt, net::IpAddr};

/// Why an option is refused. It names the option, its value, and what to do instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("{key}: no such option; {}", suggestion(.closest, .known))]
    Unknown { key: String, closest: Option<&'static str>, known: &'static [&'static str] },
    #[error("{key}={value}: not a value; allowed: {allowed}")]
    BadValue { key: &'static str, value: String, allowed: String },
    /// `known`: it is a mode of the driver.
    #[error("mode={value}: xbond does active-backup (1) only")]
    OtherMode { value: String, known: bool },
    #[error("{key}: an option of {modes}; xbond does active-backup (1) only")]
    OptionOfOtherMode { key: &'static str, modes: &'static str },
    #[error(
        "{key}={value}: an option of a slave, not of the bond; give it to the slave (`xbond set --slave`)"
    )]
    OptionOfSlave { key: &'static str, value: String },
    #[error("active_slave={value}: chosen at run time, by `xbond set`; for a lasting preference set primary")]
    ActiveSlave { value: String },
    #[error("{key}: can only be set while the bond has no slaves; release them first")]
    HasSlaves { key: &'static str },
    #[error("{key}={value}: needs miimon; set miimon first, for example miimon=100")]
    NeedsMiimon { key: &'static str, value: u32 },
    #[error("miimon={miimon}: {key}, {ticks} ticks of miimon, would be too long; set a smaller {key} first")]
    DelayTooLong { miimon: u32, key: &'static str, ticks: u32 },
    #[error("{key}={address}: not an address that can be a target")]
    NotATarget { key: &'static str, address: IpAddr },
    #[error("{key}={address}: already a target")]
    TargetTwice { key: &'static str, address: IpAddr },
    #[error("{key}=-{address}: not a target, so it cannot be removed")]
    NoSuchTarget { key: &'static str, address: IpAddr },
    #[error("{key}={address}: one target too many; a bond has at most {}", super::MAX_TARGETS)]
    TooManyTargets { key: &'static str, address: IpAddr },
    #[error("{key}: given twice, with different values; give it once")]
    Twice { key: &'static str },
    #[error("num_grat_arp={num_grat_arp} and num_unsol_na={num_unsol_na}: two names of one number; give one")]
    AnnouncementsDiffer { num_grat_arp: u8, num_unsol_na: u8 },
    #[error(
        "miimon={miimon} and arp_interval={arp_interval}: a bond has one link monitor; set one of them to 0"
    )]
    TwoMonitors { miimon: u32, arp_interval: u32 },
    #[error("arp_interval={arp_interval}: nothing to probe; set arp_ip_target or ns_ip6_target")]
    ArpWithoutTargets { arp_interval: u32 },
    #[error("{key}: never probed while arp_interval is 0; set arp_interval, or remove {key}")]
    TargetsWithoutArp { key: &'static str },
    #[error(
        "miimon=0: the kernel accepts this and then never fails over; set miimon=100, or allow it with \
         allow_unmonitored = true / --allow-unmonitored"
    )]
    Unmonitored,
}

impl OptionError {
    /// The option that is to blame, by its name; of two that cannot be together, the later one.
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

    /// The number with which the driver refuses the same, or where xbond alone refuses it, the one it would
    /// have: a value of `errno.h`.
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

/// The one of `known` that a mistyped `word` probably means.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, candidate), candidate))
        .min_by_key(|&(distance, _)| distance)
        // Beyond a third of the letters it is a guess.
        .filter(|&(distance, candidate)| distance <= candidate.len().div_ceil(3))
        .map(|(_, candidate)| candidate)
}

/// The end of a sentence that says that a key is unknown.
pub fn suggestion(closest: &Option<&'static str>, known: &[&str]) -> String {
    match closest {
        Some(closest) => format!("did you mean {closest}?"),
        None => format!("there are: {}", known.join(", ")),
    }
}

/// What became of an option that was accepted, where it is not what the value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A delay was rounded down to a multiple of miimon; milliseconds.
    Rounded { key: &'static str, from: u32, to: u32, miimon: u32 },
    /// Another miimon made a delay longer or shorter; milliseconds.
    Rescaled { key: &'static str, from: u32, to: u32, miimon: u32 },
    /// An option excludes another one, which was set to 0.
    TurnedOff { key: &'static str, by: &'static str },
    /// The option has no effect in active-backup.
    Unused { key: &'static str },
    /// The ARP monitor has nobody to ask yet.
    NoTargets { arp_interval: u32 },
    /// Nothing monitors the links any more.
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
