//! The options of a bond and of a slave: the driver's names, values, defaults and rules.
//!
//! Text becomes a [`Setting`] (is there such an option, is this one of its values?), and a setting becomes
//! part of the [`BondOptions`] of a bond (can this bond have it now?). [`BondOptions::set`] does both for a
//! live bond, as the driver does for sysfs and netlink; [`BondOptions::from_pairs`] reads a configuration,
//! all options at once, and refuses what could only be a mistake.

mod report;
mod setting;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

pub use bond_common::abi::{FailOverMac, MAX_TARGETS};
use serde::{Serialize, Serializer};

use self::setting::{Target, number};
pub use self::{
    report::{Note, OptionError, closest, suggestion},
    setting::{BondOption, KEYS, LIST_KEYS, Setting, TargetEdit},
};

/// The largest number of an option in milliseconds, the driver's INT_MAX.
const MAX_MS: u32 = i32::MAX as u32;
/// Milliseconds; the driver's bound for peer_notif_delay.
const MAX_PEER_NOTIF_DELAY: u32 = 300_000;

/// The options of a bond in active-backup mode, in the units and with the defaults of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondOptions {
    /// Milliseconds between two looks at the links; 0: no MII monitoring.
    pub miimon: u32,
    /// Milliseconds that a link must be back before its slave is used, a multiple of miimon.
    pub updelay: u32,
    /// Milliseconds that a link must be gone before its slave is given up, a multiple of miimon.
    pub downdelay: u32,
    /// Milliseconds between two rounds of announcements, a multiple of miimon; 0: every miimon.
    pub peer_notif_delay: u32,
    /// Rounds of announcements at a failover; the driver's num_grat_arp and num_unsol_na are this one number.
    pub num_grat_arp: u8,
    pub fail_over_mac: FailOverMac,
    /// Name of the preferred slave, which need not exist.
    pub primary: Option<String>,
    pub primary_reselect: PrimaryReselect,
    /// Milliseconds between two probes; 0: no ARP monitoring.
    pub arp_interval: u32,
    pub arp_ip_target: Vec<Ipv4Addr>,
    pub ns_ip6_target: Vec<Ipv6Addr>,
    pub arp_validate: ArpValidate,
    pub arp_all_targets: ArpAllTargets,
    pub arp_missed_max: u8,
    pub all_slaves_active: bool,
    pub resend_igmp: u8,
    /// This and the next three are accepted and without effect in this mode, as in the driver.
    pub min_links: u32,
    pub xmit_hash_policy: &'static str,
    pub ad_select: &'static str,
    /// Seconds.
    pub lp_interval: u32,
    /// The delays while miimon is 0, when their milliseconds read 0: the next miimon brings them back. All
    /// zero otherwise.
    pub parked_delays: DelayTicks,
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

impl Default for BondOptions {
    fn default() -> Self {
        Self {
            miimon: 0,
            updelay: 0,
            downdelay: 0,
            peer_notif_delay: 0,
            num_grat_arp: 1,
            fail_over_mac: FailOverMac::None,
            primary: None,
            primary_reselect: PrimaryReselect::Always,
            arp_interval: 0,
            arp_ip_target: Vec::new(),
            ns_ip6_target: Vec::new(),
            arp_validate: ArpValidate::None,
            arp_all_targets: ArpAllTargets::Any,
            arp_missed_max: 2,
            all_slaves_active: false,
            resend_igmp: 1,
            min_links: 0,
            xmit_hash_policy: "layer2",
            ad_select: "stable",
            lp_interval: 1,
            parked_delays: DelayTicks::default(),
        }
    }
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

    fn entries(&self) -> Vec<(&'static str, Value<'_>)> {
        use Value::*;
        vec![
            ("mode", Name("active-backup")),
            ("miimon", Number(self.miimon)),
            ("updelay", Number(self.updelay)),
            ("downdelay", Number(self.downdelay)),
            ("peer_notif_delay", Number(self.peer_notif_delay)),
            ("num_grat_arp", Number(self.num_grat_arp.into())),
            ("fail_over_mac", Name(self.fail_over_mac.name())),
            ("primary", Interface(self.primary.as_deref())),
            ("primary_reselect", Name(self.primary_reselect.name())),
            ("arp_interval", Number(self.arp_interval)),
            ("arp_ip_target", List(self.arp_ip_target.iter().map(Ipv4Addr::to_string).collect())),
            ("ns_ip6_target", List(self.ns_ip6_target.iter().map(Ipv6Addr::to_string).collect())),
            ("arp_validate", Name(self.arp_validate.name())),
            ("arp_all_targets", Name(self.arp_all_targets.name())),
            ("arp_missed_max", Number(self.arp_missed_max.into())),
            ("all_slaves_active", Number(self.all_slaves_active.into())),
            ("resend_igmp", Number(self.resend_igmp.into())),
            ("min_links", Number(self.min_links)),
            ("xmit_hash_policy", Name(self.xmit_hash_policy)),
            ("ad_select", Name(self.ad_select)),
            ("lp_interval", Number(self.lp_interval)),
        ]
    }

    /// `__bond_opt_set`, and the `bond_option_*_set` that it calls.
    fn apply_as_driver(&mut self, option: BondOption, slaves: Slaves) -> Result<Vec<Note>, OptionError> {
        use BondOption::*;
        let was_monitored = self.is_monitored();
        let unused = option.is_unused().then(|| option.key());
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
            NumGratArp(rounds) | NumUnsolNa(rounds) => self.num_grat_arp = rounds,
            Primary(name) => self.primary = name,
            PrimaryReselect(reselect) => self.primary_reselect = reselect,
            ArpIpTarget(edit) => edit_targets(&mut self.arp_ip_target, edit)?,
            NsIp6Target(edit) => edit_targets(&mut self.ns_ip6_target, edit)?,
            ArpValidate(validate) => self.arp_validate = validate,
            ArpAllTargets(all) => self.arp_all_targets = all,
            ArpMissedMax(missed) => self.arp_missed_max = missed,
            AllSlavesActive(all) => self.all_slaves_active = all,
            ResendIgmp(times) => self.resend_igmp = times,
            UseCarrier => {}
            MinLinks(links) => self.min_links = links,
            XmitHashPolicy(policy) => self.xmit_hash_policy = policy,
            AdSelect(logic) => self.ad_select = logic,
            LpInterval(seconds) => self.lp_interval = seconds,
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

/// `_bond_option_arp_ip_target_add`, `bond_option_arp_ip_target_rem` and their like for IPv6.
fn edit_targets<A: Target>(targets: &mut Vec<A>, edit: TargetEdit<A>) -> Result<(), OptionError> {
    let key = A::KEY;
    let added = match edit {
        TargetEdit::Remove(removed) => {
            for target in removed {
                let place = targets.iter().position(|known| *known == target);
                targets.remove(place.ok_or(OptionError::NoSuchTarget { key, address: target.into() })?);
            }
            return Ok(());
        }
        TargetEdit::Replace(instead) => {
            targets.clear();
            instead
        }
        TargetEdit::Add(added) => added,
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

/// An option's value as it is shown.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Number(u32),
    Name(&'static str),
    Interface(Option<&'a str>),
    List(Vec<String>),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Interface(name) => f.write_str(name.unwrap_or_default()),
            Self::List(items) => f.write_str(&items.join(",")),
        }
    }
}
