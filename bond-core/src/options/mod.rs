//! The options of a bond and of a slave: the driver's names, values, defaults and rules.
//!
//! Text becomes a [`Setting`] (is there such an option, is this one of its values?), and a setting becomes
//! part of the [`BondOptions`] of a bond (can this bond have it now?). [`BondOptions::set`] does both for a
//! live bond, as the driver does for sysfs and netlink; [`BondOptions::from_pairs`] reads a configuration,
//! all options at once, and refuses what could only be a mistake.

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

/// The largest number of an option in milliseconds, the driver's INT_MAX.
const MAX_MS: u32 = i32::MAX as u32;
/// Milliseconds; the driver's bound for peer_notif_delay.
const MAX_PEER_NOTIF_DELAY: u32 = 300_000;

/// One option with one of its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A part of [`BondOptions`].
    Option(BondOption),
    /// A request to the running bond; None: elect anew.
    ActiveSlave(Option<String>),
}

/// The delays as the driver keeps them: in ticks of miimon, so that another miimon makes them longer or
/// shorter (`bond_option_miimon_set`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DelayTicks {
    pub updelay: u32,
    pub downdelay: u32,
    pub peer_notif_delay: u32,
}

/// When a better slave than the active one takes over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PrimaryReselect {
    #[default]
    Always = 0,
    Better = 1,
    Failure = 2,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArpValidate {
    #[default]
    None = 0,
    Active = 1,
    Backup = 2,
    All = 3,
    Filter = 4,
    FilterActive = 5,
    FilterBackup = 6,
}

impl ArpValidate {
    /// Only answers of targets count on the active slave.
    pub fn validates_active(self) -> bool {
        matches!(self, Self::Active | Self::All | Self::FilterActive)
    }

    /// Only the active slave's requests count on backups.
    pub fn validates_backup(self) -> bool {
        matches!(self, Self::Backup | Self::All | Self::FilterBackup)
    }

    /// Only ARP and neighbour discovery count where nothing is validated.
    pub fn filters(self) -> bool {
        matches!(self, Self::Filter | Self::FilterActive | Self::FilterBackup)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArpAllTargets {
    #[default]
    Any = 0,
    All = 1,
}

/// The options of one slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SlaveOptions {
    /// The higher, the rather it is elected; no effect while a primary is set.
    pub prio: i32,
    /// An skb of this transmit queue leaves by this slave; 0: none.
    pub queue_id: u16,
}

/// An option whose values are a table, as `struct bond_opt_value` is: a value's number is its place there.
pub trait Named: Copy + PartialEq + 'static {
    const NAMES: &'static [&'static str];
    const VALUES: &'static [Self];

    /// The driver's word for it.
    fn name(self) -> &'static str {
        Self::VALUES.iter().position(|value| *value == self).map_or("", |place| Self::NAMES[place])
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
    None,
    Present,
}

/// What to do with a configuration in which nothing monitors the links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmonitored {
    #[default]
    Refuse,
    Allow,
}

impl BondOptions {
    /// Sets one option of a live bond from text: [`Setting::parse`] and [`Self::apply`].
    ///
    /// # Errors
    /// As both say; `active_slave` is refused, because it is no part of these options.
    pub fn set(&mut self, key: &str, value: &str, slaves: Slaves) -> Result<Vec<Note>, OptionError> {
        match Setting::parse(key, value)? {
            Setting::Option(option) => self.apply(option, slaves),
            Setting::ActiveSlave(_) => Err(OptionError::ActiveSlave { value: value.to_owned() }),
        }
    }

    /// Sets one option of a live bond.
    ///
    /// # Errors
    /// The bond cannot have it now. The options are then as they were.
    pub fn apply(&mut self, option: BondOption, slaves: Slaves) -> Result<Vec<Note>, OptionError> {
        let mut changed = self.clone();
        let notes = changed.apply_as_driver(option, slaves)?;
        *self = changed;
        Ok(notes)
    }

    /// Reads the options of a configuration, in any order, on top of the defaults.
    ///
    /// Unlike the driver, which takes options one by one, it refuses what only leaves a bond that does not
    /// do what was meant: no link monitor (unless `unmonitored` allows it), two of them, delays without
    /// miimon, ARP monitoring without targets, targets without ARP monitoring, one option with two values.
    /// NetworkManager and nmstate refuse the same.
    ///
    /// # Errors
    /// The first thing found wrong.
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
        // The delays need miimon. A delay of 0 without it, which the driver refuses, says nothing.
        // arp_interval needs the targets.
        wanted.sort_by_key(|option| match option {
            BondOption::Miimon(_) => 0,
            BondOption::ArpInterval(_) => 2,
            _ => 1,
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

    /// May a bond with these options have `wanted` instead?
    ///
    /// # Errors
    /// `fail_over_mac` differs and the bond has slaves.
    pub fn check_change(&self, wanted: &Self, slaves: Slaves) -> Result<(), OptionError> {
        if wanted.fail_over_mac != self.fail_over_mac { no_slaves("fail_over_mac", slaves) } else { Ok(()) }
    }

    /// Does anything watch the links?
    pub fn is_monitored(&self) -> bool {
        self.miimon > 0 || self.arp_interval > 0
    }

    /// The options in the driver's words, in the order of its documentation: what [`Self::from_pairs`] reads.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        self.entries().into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    fn entries(&self) -> Vec<(&'static str, Shown<'_>)> {
        let mut entries = vec![("mode", Shown::Name("active-backup"))];
        entries.extend(self.rows());
        entries
    }

    /// `__bond_opt_set`, and the `bond_option_*_set` that it calls.
    fn apply_as_driver(&mut self, option: BondOption, slaves: Slaves) -> Result<Vec<Note>, OptionError> {
        use BondOption::*;
        let was_monitored = self.is_monitored();
        let unused = option.says_something_unused().then(|| option.key());
        let mut notes = Vec::new();
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

    /// Of options that were set one after the other: whether what was noted at one of them is true after the last.
    pub fn still(&self, note: &Note) -> bool {
        match note {
            Note::NoTargets { .. } => self.probes_nothing(),
            Note::Unmonitored => !self.is_monitored(),
            Note::Rounded { .. } | Note::Rescaled { .. } | Note::TurnedOff { .. } | Note::Unused { .. } => {
                true
            }
        }
    }

    /// A delay as the driver keeps it: whole ticks of miimon (`_bond_option_delay_set`).
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
    /// What [`Self::set`] takes.
    pub const KEYS: &'static [&'static str] = &["prio", "queue_id"];

    /// Sets one option of a slave from text.
    ///
    /// # Errors
    /// There is no such option of a slave, or this is not one of its values.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), OptionError> {
        match key {
            "prio" => self.prio = number("prio", value, i32::MIN..=i32::MAX)?,
            "queue_id" => self.queue_id = number("queue_id", value, 0..=u16::MAX)?,
            _ => {
                return Err(OptionError::Unknown {
                    key: key.to_owned(),
                    closest: closest(key, Self::KEYS.iter().copied()),
                    known: Self::KEYS,
                });
            }
        }
        Ok(())
    }

    /// What [`Self::set`] reads.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        vec![("prio", self.prio.to_string()), ("queue_id", self.queue_id.to_string())]
    }
}

/// Adds an option to those of a configuration.
fn want(wanted: &mut Vec<BondOption>, option: BondOption) -> Result<(), OptionError> {
    // A configuration may name targets one by one, with a plus sign or without.
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

/// What a configuration may not contain together.
fn check_together(wanted: &[BondOption]) -> Result<(), OptionError> {
    let number = |pick: fn(&BondOption) -> Option<u32>| wanted.iter().find_map(pick).unwrap_or(0);
    let miimon = number(|option| if let BondOption::Miimon(ms) = option { Some(*ms) } else { None });
    let arp_interval =
        number(|option| if let BondOption::ArpInterval(ms) = option { Some(*ms) } else { None });
    let targets = wanted.iter().find(|option| match option {
        BondOption::ArpIpTarget(TargetEdit::Add(targets)) => !targets.is_empty(),
        BondOption::NsIp6Target(TargetEdit::Add(targets)) => !targets.is_empty(),
        _ => false,
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

/// The delay that an option sets, in milliseconds.
fn delay(option: &BondOption) -> Option<(&'static str, u32)> {
    match option {
        BondOption::Updelay(ms) | BondOption::Downdelay(ms) | BondOption::PeerNotifDelay(ms) => {
            Some((option.key(), *ms))
        }
        _ => None,
    }
}

/// BOND_OPTFLAG_NOSLAVES
fn no_slaves(key: &'static str, slaves: Slaves) -> Result<(), OptionError> {
    match slaves {
        Slaves::None => Ok(()),
        Slaves::Present => Err(OptionError::HasSlaves { key }),
    }
}

impl BondOption {
    /// Does it say something that has no effect in active-backup? The defaults say nothing.
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
    /// Reads an option by any of its names, and its value by name or number; a name with its number, as
    /// sysfs shows it (`active 1`), is accepted too.
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
