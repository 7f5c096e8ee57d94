//! The options of a bond and of a slave: the driver's names, values, defaults and rules.
//!
//! There are two steps. [`Setting::parse`] reads a text and checks that the option exists and has this value.
//! [`BondOptions::apply`] checks that the bond can have the value now and stores it. [`BondOptions::set`] does both for
//! a running bond, as the driver does for sysfs and netlink. [`BondOptions::from_pairs`] reads all options of a
//! configuration at once and refuses combinations that can only be mistakes.

mod report;
mod table;
#[cfg(test)]
mod tests;
mod values;

pub use bond_common::abi::{FailOverMac, MAX_TARGETS};
use serde::{Serialize, Serializer};

use self::values::{DEFAULT, ROUNDS, Shown, Values as _, entry, interface, named, number};
pub use self::{
    report::{Note, OptionError, closest, suggestion},
    table::{BondOption, BondOptions, KEYS, ROWS, Row},
    values::{LIST_KEYS, TargetEdit},
};
use crate::watch::{BadWatch, Watch};

/// The largest value of an option in milliseconds, the driver's INT_MAX.
const MAX_MS: u32 = i32::MAX as u32;
/// Milliseconds; the driver's bound for peer_notif_delay.
const MAX_PEER_NOTIF_DELAY: u32 = 300_000;

/// One option with one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A value for a field of [`BondOptions`].
    Option(BondOption),
    /// A request to the running bond: make this slave active; None asks for an election.
    ActiveSlave(Option<String>),
}

/// The delays in ticks of miimon. The driver keeps them in this unit, so that a change of miimon makes them longer or
/// shorter (`bond_option_miimon_set`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DelayTicks {
    /// Ticks of `updelay`.
    pub updelay: u32,
    /// Ticks of `downdelay`.
    pub downdelay: u32,
    /// Ticks of `peer_notif_delay`.
    pub peer_notif_delay: u32,
}

/// The driver's `primary_reselect`: when the primary takes over from another active slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrimaryReselect {
    /// Whenever it is up (BOND_PRI_RESELECT_ALWAYS).
    #[default]
    Always = 0,
    /// If it is faster than the active slave (BOND_PRI_RESELECT_BETTER).
    Better = 1,
    /// Only after the active slave failed (BOND_PRI_RESELECT_FAILURE).
    Failure = 2,
}

/// The driver's `arp_validate`: which received frames count as reception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArpValidate {
    /// All frames (BOND_ARP_VALIDATE_NONE).
    #[default]
    None = 0,
    /// Answers of targets on the active slave, all frames on backups (BOND_ARP_VALIDATE_ACTIVE).
    Active = 1,
    /// Probes of the active slave on backups, all frames on the active slave (BOND_ARP_VALIDATE_BACKUP).
    Backup = 2,
    /// Answers of targets on the active slave, probes on backups (BOND_ARP_VALIDATE_ALL).
    All = 3,
    /// ARP and neighbour discovery only (BOND_ARP_FILTER).
    Filter = 4,
    /// As [`Self::Active`], and on backups ARP and neighbour discovery only (BOND_ARP_FILTER_ACTIVE).
    FilterActive = 5,
    /// As [`Self::Backup`], and on the active slave ARP and neighbour discovery only (BOND_ARP_FILTER_BACKUP).
    FilterBackup = 6,
}

impl ArpValidate {
    /// Returns whether only answers of targets count on the active slave.
    pub fn validates_active(self) -> bool {
        matches!(self, Self::Active | Self::All | Self::FilterActive)
    }

    /// Returns whether only probes of the active slave count on backups.
    pub fn validates_backup(self) -> bool {
        matches!(self, Self::Backup | Self::All | Self::FilterBackup)
    }

    /// Returns whether only ARP and neighbour discovery count on slaves that are not validated.
    pub fn filters(self) -> bool {
        matches!(self, Self::Filter | Self::FilterActive | Self::FilterBackup)
    }
}

/// The driver's `arp_all_targets`: how many targets must answer a validated slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArpAllTargets {
    /// One is enough (BOND_ARP_TARGETS_ANY).
    #[default]
    Any = 0,
    /// All of them (BOND_ARP_TARGETS_ALL).
    All = 1,
}

/// The options of one slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlaveOptions {
    /// The priority of the slave in elections, the highest first. The primary takes precedence over it.
    pub prio: i32,
    /// The transmit queue of the bond whose packets leave through this slave; 0: none.
    pub queue_id: u16,
    /// What the slave needs to count as up; None: what the bond's setting says. The driver has no such option.
    pub watch: Option<Watch>,
}

/// The type of an option whose values are a table, as `struct bond_opt_value` is. The index of a value is its number.
pub trait Named: Copy + PartialEq + 'static {
    /// The driver's names of the values, by number.
    const NAMES: &'static [&'static str];
    /// The values, by number: as many as [`Self::NAMES`].
    const VALUES: &'static [Self];

    /// Returns the driver's name of the value.
    fn name(self) -> &'static str {
        let place = Self::VALUES.iter().position(|value| *value == self);
        place.and_then(|place| Self::NAMES.get(place)).copied().unwrap_or_default()
    }
}

impl Named for FailOverMac {
    const NAMES: &'static [&'static str] = &["none", "active", "follow"];
    const VALUES: &'static [Self] = &[Self::None, Self::Active, Self::Follow];
}

impl Named for PrimaryReselect {
    const NAMES: &'static [&'static str] = &["always", "better", "failure"];
    const VALUES: &'static [Self] = &[Self::Always, Self::Better, Self::Failure];
}

impl Named for ArpValidate {
    const NAMES: &'static [&'static str] =
        &["none", "active", "backup", "all", "filter", "filter_active", "filter_backup"];
    const VALUES: &'static [Self] = &[
        Self::None,
        Self::Active,
        Self::Backup,
        Self::All,
        Self::Filter,
        Self::FilterActive,
        Self::FilterBackup,
    ];
}

impl Named for ArpAllTargets {
    const NAMES: &'static [&'static str] = &["any", "all"];
    const VALUES: &'static [Self] = &[Self::Any, Self::All];
}

impl Named for bool {
    const NAMES: &'static [&'static str] = &["off", "on"];
    const VALUES: &'static [Self] = &[false, true];
}

/// Whether the bond has slaves; some options can only be set while it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slaves {
    /// The bond has no slaves: all options can be set.
    None,
    /// The bond has slaves: options with BOND_OPTFLAG_NOSLAVES are refused.
    Present,
}

/// Whether a configuration without a link monitor is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmonitored {
    /// It is an error: [`OptionError::Unmonitored`].
    #[default]
    Refuse,
    /// It is accepted with a note: [`Note::Unmonitored`].
    Allow,
}

impl BondOptions {
    /// Sets one option of a running bond from text: [`Setting::parse`] and [`Self::apply`].
    ///
    /// # Errors
    /// The errors of both. `active_slave` is refused, because it is not one of these options.
    pub fn set(&mut self, key: &str, value: &str, slaves: Slaves) -> Result<Vec<Note>, OptionError> {
        match Setting::parse(key, value)? {
            Setting::Option(option) => self.apply(option, slaves),
            Setting::ActiveSlave(_) => Err(OptionError::ActiveSlave { value: value.to_owned() }),
        }
    }

    /// Sets one option of a running bond.
    ///
    /// # Errors
    /// The bond cannot have it now. The options are then unchanged.
    pub fn apply(&mut self, option: BondOption, slaves: Slaves) -> Result<Vec<Note>, OptionError> {
        let mut changed = self.clone();
        let notes = changed.apply_as_driver(option, slaves)?;
        *self = changed;
        Ok(notes)
    }

    /// Reads the options of a configuration, in any order. Options that it does not contain have their defaults.
    ///
    /// The driver accepts options one by one. This refuses combinations that leave a bond which does not work as
    /// intended, as NetworkManager and nmstate do:
    ///
    /// - no link monitor (unless `unmonitored` allows it), or two of them
    /// - delays without miimon
    /// - ARP monitoring without targets, or targets without ARP monitoring
    /// - one option with two values
    ///
    /// # Errors
    /// The first fault that is found.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
        unmonitored: Unmonitored,
    ) -> Result<(Self, Vec<Note>), OptionError> {
        let mut wanted = Vec::new();
        for (key, value) in pairs {
            match Setting::parse(key, value)? {
                Setting::Option(option) => want(&mut wanted, option)?,
                Setting::ActiveSlave(_) => return Err(OptionError::ActiveSlave { value: value.to_owned() }),
            }
        }
        check_together(&wanted)?;
        // Delays follow miimon, which they need; arp_interval follows the targets. A delay of 0 without miimon, which the
        // driver refuses, is ignored.
        wanted.sort_by_key(|option| {
            if matches!(option, BondOption::Miimon(_)) {
                0
            } else if matches!(option, BondOption::ArpInterval(_)) {
                2
            } else {
                1
            }
        });

        let mut options = Self::default();
        let mut notes = Vec::new();
        for option in wanted {
            let no_delay = options.miimon == 0 && delay(&option).is_some();
            if !no_delay {
                notes.extend(options.apply_as_driver(option, Slaves::None)?);
            }
        }
        match unmonitored {
            _ if options.is_monitored() => {}
            Unmonitored::Refuse => return Err(OptionError::Unmonitored),
            Unmonitored::Allow => notes.push(Note::Unmonitored),
        }
        Ok((options, notes))
    }

    /// Checks whether a bond with these options can have `wanted` instead.
    ///
    /// # Errors
    /// `fail_over_mac` differs and the bond has slaves.
    pub fn check_change(&self, wanted: &Self, slaves: Slaves) -> Result<(), OptionError> {
        if wanted.fail_over_mac != self.fail_over_mac { no_slaves("fail_over_mac", slaves) } else { Ok(()) }
    }

    /// Returns whether miimon or the ARP monitor is on.
    pub fn is_monitored(&self) -> bool {
        self.miimon > 0 || self.arp_interval > 0
    }

    /// Returns keys and values in the driver's words and in the order of its documentation, as [`Self::from_pairs`]
    /// reads them.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        self.entries().into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    fn entries(&self) -> Vec<(&'static str, Shown<'_>)> {
        let mut entries = vec![("mode", Shown::Name("active-backup"))];
        entries.extend(self.rows());
        entries
    }

    /// Sets an option with its effects on others (`__bond_opt_set`, and the `bond_option_*_set` that it calls).
    fn apply_as_driver(&mut self, option: BondOption, slaves: Slaves) -> Result<Vec<Note>, OptionError> {
        use BondOption::*;
        let was_monitored = self.is_monitored();
        let unused = option.says_something_unused().then(|| option.key());
        let mut notes = Vec::new();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "an option without a rule of its own is only stored"
        )]
        match option {
            Mode => no_slaves("mode", slaves)?,
            FailOverMac(policy) => {
                no_slaves("fail_over_mac", slaves)?;
                self.fail_over_mac = policy;
            }
            Miimon(miimon) => {
                notes = self.rescale_delays(miimon)?;
                self.miimon = miimon;
                if miimon > 0 && self.arp_interval > 0 {
                    self.arp_interval = 0;
                    notes.push(Note::TurnedOff { key: "arp_interval", by: "miimon" });
                    if self.arp_validate != self::ArpValidate::None {
                        self.arp_validate = self::ArpValidate::None;
                        notes.push(Note::TurnedOff { key: "arp_validate", by: "miimon" });
                    }
                }
            }
            Updelay(ms) => self.updelay = self.round_delay("updelay", ms, &mut notes)?,
            Downdelay(ms) => self.downdelay = self.round_delay("downdelay", ms, &mut notes)?,
            PeerNotifDelay(ms) => {
                self.peer_notif_delay = self.round_delay("peer_notif_delay", ms, &mut notes)?;
            }
            ArpInterval(interval) => {
                if interval > 0 && self.miimon > 0 {
                    notes = self.rescale_delays(0)?;
                    self.miimon = 0;
                    notes.push(Note::TurnedOff { key: "miimon", by: "arp_interval" });
                }
                self.arp_interval = interval;
                if self.probes_nothing() {
                    notes.push(Note::NoTargets { arp_interval: interval });
                }
            }
            other => other.store(self)?,
        }
        if let Some(key) = unused {
            notes.push(Note::Unused { key });
        }
        if was_monitored && !self.is_monitored() {
            notes.push(Note::Unmonitored);
        }
        Ok(notes)
    }

    fn probes_nothing(&self) -> bool {
        self.arp_interval > 0 && self.arp_ip_target.is_empty() && self.ns_ip6_target.is_empty()
    }

    /// Returns whether a note about one of several options, set one after the other, is true after the last one.
    pub fn still(&self, note: &Note) -> bool {
        match note {
            Note::NoTargets { .. } => self.probes_nothing(),
            Note::Unmonitored => !self.is_monitored(),
            Note::Rounded { .. } | Note::Rescaled { .. } | Note::TurnedOff { .. } | Note::Unused { .. } => {
                true
            }
        }
    }

    /// Rounds a delay down to whole ticks of miimon (`_bond_option_delay_set`).
    fn round_delay(&self, key: &'static str, ms: u32, notes: &mut Vec<Note>) -> Result<u32, OptionError> {
        let rest = ms.checked_rem(self.miimon).ok_or(OptionError::NeedsMiimon { key, value: ms })?;
        if rest > 0 {
            notes.push(Note::Rounded { key, from: ms, to: ms - rest, miimon: self.miimon });
        }
        Ok(ms - rest)
    }

    /// The delays keep their ticks when miimon changes (`bond_option_miimon_set`).
    fn rescale_delays(&mut self, miimon: u32) -> Result<Vec<Note>, OptionError> {
        let ticks = match self.miimon {
            0 => self.parked_delays,
            old => DelayTicks {
                updelay: self.updelay / old,
                downdelay: self.downdelay / old,
                peer_notif_delay: self.peer_notif_delay / old,
            },
        };
        let mut notes = Vec::new();
        for (key, ticks, delay, max) in [
            ("updelay", ticks.updelay, &mut self.updelay, MAX_MS),
            ("downdelay", ticks.downdelay, &mut self.downdelay, MAX_MS),
            ("peer_notif_delay", ticks.peer_notif_delay, &mut self.peer_notif_delay, MAX_PEER_NOTIF_DELAY),
        ] {
            let scaled = ticks
                .checked_mul(miimon)
                .filter(|ms| *ms <= max)
                .ok_or(OptionError::DelayTooLong { miimon, key, ticks })?;
            if scaled != *delay {
                notes.push(Note::Rescaled { key, from: *delay, to: scaled, miimon });
                *delay = scaled;
            }
        }
        self.parked_delays = if miimon == 0 { ticks } else { DelayTicks::default() };
        Ok(notes)
    }
}

/// An object with numbers as numbers, values of a table by name, lists as arrays, and no primary as null.
impl Serialize for BondOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.entries())
    }
}

impl SlaveOptions {
    /// The keys that [`Self::set`] accepts.
    pub const KEYS: &'static [&'static str] = &["prio", "queue_id", "watch"];
    /// The text of a slave whose `watch` is the bond's.
    const AS_BOND: &'static str = "bond";

    /// Sets one option of a slave from text.
    ///
    /// # Errors
    /// There is no such option of a slave, or this is not one of its values.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        match key {
            "prio" => self.prio = number("prio", value, i32::MIN..=i32::MAX)?,
            "queue_id" => self.queue_id = number("queue_id", value, 0..=u16::MAX)?,
            "watch" if value.trim() == Self::AS_BOND => self.watch = None,
            "watch" => {
                let bad = |error: BadWatch| OptionError::BadValue {
                    key: "watch",
                    value: value.to_owned(),
                    allowed: format!(
                        "all=carrier,path or the like, one of carrier, path, arp, ns, or bond ({error})"
                    ),
                };
                self.watch = Some(value.parse().map_err(bad)?);
            }
            _ => {
                return Err(OptionError::Unknown {
                    key: key.to_owned(),
                    closest: closest(key, Self::KEYS.iter().copied()),
                    known: Self::KEYS.to_vec(),
                });
            }
        }
        Ok(())
    }

    /// Returns keys and values, as [`Self::set`] reads them.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let watch = self.watch.map_or_else(|| Self::AS_BOND.to_owned(), |watch| watch.to_string());
        vec![("prio", self.prio.to_string()), ("queue_id", self.queue_id.to_string()), ("watch", watch)]
    }
}

/// Adds an option to those of a configuration.
fn want(wanted: &mut Vec<BondOption>, option: BondOption) -> Result<(), OptionError> {
    // A configuration may name targets one by one, with a plus sign or without.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only lists have an edit to change")]
    let option = match option {
        BondOption::ArpIpTarget(TargetEdit::Replace(targets)) => {
            BondOption::ArpIpTarget(TargetEdit::Add(targets))
        }
        BondOption::NsIp6Target(TargetEdit::Replace(targets)) => {
            BondOption::NsIp6Target(TargetEdit::Add(targets))
        }
        other => other,
    };
    let is_list = matches!(option, BondOption::ArpIpTarget(_) | BondOption::NsIp6Target(_));
    if !is_list && wanted.iter().any(|earlier| earlier.key() == option.key() && *earlier != option) {
        return Err(OptionError::Twice { key: option.key() });
    }
    wanted.push(option);
    Ok(())
}

/// Checks for combinations of options that a configuration must not contain.
fn check_together(wanted: &[BondOption]) -> Result<(), OptionError> {
    let number = |pick: fn(&BondOption) -> Option<u32>| wanted.iter().find_map(pick).unwrap_or(0);
    let miimon = number(|option| if let BondOption::Miimon(ms) = option { Some(*ms) } else { None });
    let arp_interval =
        number(|option| if let BondOption::ArpInterval(ms) = option { Some(*ms) } else { None });
    let targets = wanted.iter().find(|option| {
        matches!(option, BondOption::ArpIpTarget(TargetEdit::Add(targets)) if !targets.is_empty())
            || matches!(option, BondOption::NsIp6Target(TargetEdit::Add(targets)) if !targets.is_empty())
    });

    if miimon > 0 && arp_interval > 0 {
        return Err(OptionError::TwoMonitors { miimon, arp_interval });
    }
    if miimon == 0
        && let Some((key, value)) = wanted.iter().filter_map(delay).find(|(_, ms)| *ms > 0)
    {
        return Err(OptionError::NeedsMiimon { key, value });
    }
    match targets {
        None if arp_interval > 0 => return Err(OptionError::ArpWithoutTargets { arp_interval }),
        Some(option) if arp_interval == 0 => {
            return Err(OptionError::TargetsWithoutArp { key: option.key() });
        }
        _ => {}
    }
    let arps =
        wanted.iter().find_map(|option| if let BondOption::NumGratArp(n) = option { Some(*n) } else { None });
    let nas =
        wanted.iter().find_map(|option| if let BondOption::NumUnsolNa(n) = option { Some(*n) } else { None });
    match (arps, nas) {
        (Some(num_grat_arp), Some(num_unsol_na)) if num_grat_arp != num_unsol_na => {
            Err(OptionError::AnnouncementsDiffer { num_grat_arp, num_unsol_na })
        }
        _ => Ok(()),
    }
}

/// Returns the key and the milliseconds of an option that is a delay.
fn delay(option: &BondOption) -> Option<(&'static str, u32)> {
    let (BondOption::Updelay(ms) | BondOption::Downdelay(ms) | BondOption::PeerNotifDelay(ms)) = option
    else {
        return None;
    };
    Some((option.key(), *ms))
}

/// BOND_OPTFLAG_NOSLAVES
fn no_slaves(key: &'static str, slaves: Slaves) -> Result<(), OptionError> {
    match slaves {
        Slaves::None => Ok(()),
        Slaves::Present => Err(OptionError::HasSlaves { key }),
    }
}

impl BondOption {
    /// Returns whether the option has no effect in active-backup mode and is not its default.
    fn says_something_unused(&self) -> bool {
        let has_effect = !ROWS.iter().any(|row| row.unused && row.key == self.key());
        let mut options = BondOptions::default();
        !has_effect && self.clone().store(&mut options).is_ok() && options != BondOptions::default()
    }
}

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

impl Setting {
    /// Parses an option by any of its names, and its value by name, by number, or by both as sysfs shows them
    /// (`active 1`).
    ///
    /// # Errors
    /// There is no such option, it belongs to another mode or to a slave, or this is not one of its values.
    pub fn parse(key: &str, value: &str) -> Result<Self, OptionError> {
        let option = match key {
            "mode" => mode(value),
            "num_unsol_na" => ROUNDS.parse("num_unsol_na", value).map(BondOption::NumUnsolNa),
            "use_carrier" => use_carrier(value),
            "active_slave" => return Ok(Self::ActiveSlave(interface("active_slave", value)?)),
            _ => BondOption::parse(key, value).unwrap_or_else(|| Err(not_an_option(key, value))),
        };
        option.map(Self::Option)
    }
}

fn not_an_option(key: &str, value: &str) -> OptionError {
    if let Some(&(key, modes)) = OF_OTHER_MODES.iter().find(|(other, _)| *other == key) {
        return OptionError::OptionOfOtherMode { key, modes };
    }
    if let Some(&key) = SlaveOptions::KEYS.iter().find(|slave_key| **slave_key == key) {
        return OptionError::OptionOfSlave { key, value: value.to_owned() };
    }
    OptionError::Unknown {
        key: key.to_owned(),
        closest: closest(key, KEYS.iter().copied()),
        known: KEYS.to_vec(),
    }
}

fn mode(text: &str) -> Result<BondOption, OptionError> {
    match entry("mode", text, MODES, MODES) {
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
