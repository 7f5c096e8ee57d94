//! ARP and NS monitoring: a slave is up as long as it receives.
//!
//! These are the rules of `bond_activebackup_arp_mon`. Once an arp_interval, [`inspect`] judges the reception of each
//! slave. Then the active slave probes or, if there is none, the next slave in the round robin ([`next_in_round_robin`]).
//!
//! One rule is not the driver's. With three slaves or more that have a link, two of them at a switch without an uplink would
//! take turns for ever: each receives what the other one sends, and so the third is never tried. Therefore a slave that was
//! asked and received no answer is doubted ([`Path::is_doubted`]): until it receives an answer to its own probe, or any frame
//! while an active slave works, it does not come up. And a slave that becomes active because another one failed is judged after
//! one interval ([`Standing::Tried`]).

use bond_common::abi::{MAX_TARGETS, ProbeTimes, Slot};

use super::{link_state::LinkState, watched::Families};
use crate::{
    Time,
    options::{ArpAllTargets, BondOptions},
};

/// The grace, in intervals, of a slave that joined, became active or began to probe: until it ends, the slave is not
/// judged.
const GRACE: u32 = 2;

/// From so many slaves with a link on, slaves are doubted. With two there is only one other to try.
pub const HUNTERS: usize = 3;

/// The time for which a reception counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tolerance {
    interval: Time,
    missed_max: u32,
}

/// The times by which the monitor judges a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The time at which the slave joined, became active or began to probe (`last_link_up`).
    since: Time,
    last_rx: Time,
    /// The time of the last probe.
    last_tx: Time,
    /// The slave was asked, as the active one or in the round robin, and has not received an answer since.
    pub is_doubted: bool,
}

/// The standing of a slave among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// It became active because another slave failed, has not received an answer since, and there are further slaves to try.
    Tried,
    /// A backup of an active slave.
    Backup,
    /// No slave is active, and one of them probes.
    Waiting,
}

/// The state that a slave should get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    Up,
    Down,
    /// The slave probed and received no answer.
    Unanswered,
}

/// The state of the ARP monitor of a bond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Monitor {
    /// The time of the next step: judge the slaves, then probe.
    pub next_step: Option<Time>,
    /// The slave that probes while no slave is active (`current_arp_slave`).
    pub round_robin: Option<Slot>,
    /// The time of the last change of the targets.
    pub targets_since: Time,
    /// The time since which a requested round of probes has not been answered.
    pub asked: Option<Time>,
    /// Whether the next step judges no slave.
    pub is_late: bool,
    /// The active slave was elected because another one failed, and has not received an answer since.
    pub is_hunting: bool,
}

impl Tolerance {
    /// Returns the tolerance that the options set, None without ARP monitoring.
    pub fn of(options: &BondOptions) -> Option<Self> {
        let interval = Time::from_millis(options.arp_interval.into());
        let missed_max = options.arp_missed_max.into();
        (!interval.is_zero()).then_some(Self { interval, missed_max })
    }

    pub fn interval(self) -> Time {
        self.interval
    }

    /// Returns whether `last` is at most so many intervals and a half ago (`bond_time_in_interval`).
    fn covers(self, now: Time, last: Time, intervals: u32) -> bool {
        let limit = self.interval.saturating_mul(intervals).saturating_add(self.interval / 2);
        now <= last.saturating_add(limit)
    }
}

impl Path {
    /// Creates the times of a slave that joins, or whose monitoring begins, now. No reception counts yet
    /// (`bond_enslave`).
    pub fn new(now: Time, tolerance: Option<Tolerance>) -> Self {
        let interval = tolerance.map_or(Time::ZERO, Tolerance::interval);
        let stale = now.saturating_sub(interval.saturating_mul(2));
        Self { since: now, last_rx: stale, last_tx: stale, is_doubted: false }
    }

    /// Begins the grace: the slave became active or began to probe.
    pub fn begin(&mut self, now: Time) {
        self.since = now;
    }

    pub fn probed(&mut self, now: Time) {
        self.last_tx = now;
    }

    /// Stores the time of a reception. Earlier times are ignored: they belong to a former slave in the slot.
    pub fn received(&mut self, at: Time) {
        self.last_rx = self.last_rx.max(at);
    }

    /// Returns whether the slave has received an answer since it became active.
    pub fn is_confirmed(&self) -> bool {
        self.last_rx > self.since
    }

    /// Returns whether what it received at this time shows that its path works, after it became active or began to probe.
    pub fn is_answer(&self, at: Time) -> bool {
        at > self.since
    }

    /// Returns whether it has probed since it became active or began to probe.
    fn is_asked(&self) -> bool {
        self.last_tx >= self.since
    }
}

/// Returns the time of the last reception that counts: from any target or, under arp_all_targets=all, from the target
/// that has been silent longest (`slave_last_rx`). arp_all_targets applies to `validated` slaves only.
///
/// Of the `families` that have to answer, only those with a target count. Frames that are not validated are of no family.
pub fn last_rx(
    options: &BondOptions,
    (validated, families): (bool, Families),
    times: &ProbeTimes,
    targets_since: Time,
) -> Time {
    let any = || Time::from_nanos(times.last_rx());
    let wants_all = options.arp_all_targets == ArpAllTargets::All;
    if !validated || !wants_all && families == Families::Both {
        return any();
    }
    let (ipv4, ipv6) = times.targets().split_at(MAX_TARGETS);
    let ipv4 = ipv4.get(..options.arp_ip_target.len()).unwrap_or(ipv4);
    let ipv6 = ipv6.get(..options.ns_ip6_target.len()).unwrap_or(ipv6);
    let of_family = |targets: &[u64]| {
        if wants_all { targets.iter().min().copied() } else { targets.iter().max().copied() }
    };
    let (ipv4, ipv6) = (of_family(ipv4), of_family(ipv6));
    let oldest = match families {
        Families::Ipv4 if ipv4.is_some() => ipv4,
        Families::Ipv6 if ipv6.is_some() => ipv6,
        Families::Ipv4 | Families::Ipv6 | Families::Both | Families::Each => {
            ipv4.into_iter().chain(ipv6).min()
        }
    };
    // A new target counts as received when it is added, as in the driver.
    let since = if wants_all { targets_since } else { Time::ZERO };
    oldest.map_or_else(any, |oldest| Time::from_nanos(oldest).max(since))
}

/// Judges a slave by the times of its receptions and probes (`bond_ab_arp_inspect`).
pub fn inspect(
    now: Time,
    tolerance: Tolerance,
    state: LinkState,
    standing: Standing,
    path: &Path,
) -> Option<Proposal> {
    let received = |intervals| tolerance.covers(now, path.last_rx, intervals);
    if !state.is_up() {
        return if received(1) {
            Some(Proposal::Up)
        } else if state == LinkState::Probing {
            Some(Proposal::Unanswered)
        } else {
            None
        };
    }
    let is_unanswered = !path.is_confirmed() && path.is_asked() && !tolerance.covers(now, path.since, 0);
    if standing == Standing::Tried && is_unanswered {
        return Some(Proposal::Down);
    }
    if tolerance.covers(now, path.since, GRACE) {
        return None;
    }
    let silent = match standing {
        Standing::Active | Standing::Tried => {
            !received(tolerance.missed_max) || !tolerance.covers(now, path.last_tx, tolerance.missed_max)
        }
        Standing::Backup => !received(tolerance.missed_max.saturating_add(1)),
        // Each slave gets its chance to probe before it is judged.
        Standing::Waiting => false,
    };
    silent.then_some(Proposal::Down)
}

/// Returns the slave that probes next: among those with carrier, the first one after `last`, or the first of all
/// (`bond_ab_arp_probe`). Without a `last` the round robin begins after the first slave, as in the driver.
pub fn next_in_round_robin(slaves: &[(Slot, bool)], last: Option<Slot>) -> Option<Slot> {
    let place = slaves.iter().position(|(slot, _)| Some(*slot) == last).unwrap_or(0);
    let (until, after) = slaves.split_at(slaves.len().min(place + 1));
    after.iter().chain(until).find(|(_, has_link)| *has_link).map(|(slot, _)| *slot)
}

#[cfg(test)]
mod tests {
    use bond_common::{
        abi::ActiveWord,
        clock::monitor::{Judging, MonitorEntry, MonitorState, PathTimes, RoundRobin, StepPace},
    };
    use proptest::prelude::*;

    use super::{
        LinkState::{Down as IsDown, Probing, Unanswered as WasUnanswered, Up as IsUp},
        Proposal::*,
        Standing::*,
        *,
    };

    const fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    const TOLERANCE: Tolerance = Tolerance { interval: ms(200), missed_max: 2 };
    /// Long ago.
    const OLD: u64 = 0;

    #[test]
    fn by_state_standing_and_time() {
        // state, standing, since, last_rx, last_tx (ms before now) -> proposal
        let table = [
            ("receives", IsUp, Active, 5000, 500, 500, None),
            ("silent for missed_max intervals and a half", IsUp, Active, 5000, 501, 0, Some(Down)),
            ("has not sent", IsUp, Active, 5000, 0, 501, Some(Down)),
            ("grace", IsUp, Active, 500, 5000, 5000, None),
            ("grace is over", IsUp, Active, 501, 5000, 5000, Some(Down)),
            ("a backup has an interval more", IsUp, Backup, 5000, 700, 5000, None),
            ("a silent backup", IsUp, Backup, 5000, 701, 5000, Some(Down)),
            ("a backup's grace", IsUp, Backup, 500, 5000, 5000, None),
            ("no slave is given up during a round robin", IsUp, Waiting, 5000, 5000, 5000, None),
            ("comes back", IsDown, Backup, 5000, 300, 5000, Some(Up)),
            ("received too long ago", IsDown, Backup, 5000, 301, 5000, None),
            ("comes back during turns", IsDown, Waiting, 5000, 300, 5000, Some(Up)),
            ("is answered when it probes", Probing, Waiting, 200, 190, 200, Some(Up)),
            ("is not", Probing, Waiting, 200, 5000, 200, Some(Unanswered)),
            ("is tried, and it is too early", IsUp, Tried, 100, 5000, 100, None),
            ("is tried without an answer", IsUp, Tried, 200, 200, 200, Some(Down)),
            ("is tried and answered", IsUp, Tried, 200, 199, 200, None),
            ("is tried and was not asked", IsUp, Tried, 200, 5000, 201, None),
            ("was tried, and is silent since", IsUp, Tried, 5000, 501, 0, Some(Down)),
            ("was reported", WasUnanswered, Waiting, 400, 5000, 400, None),
            ("is answered late", WasUnanswered, Waiting, 400, 10, 400, Some(Up)),
        ];
        let now = ms(100_000);
        for (what, state, standing, since, rx, tx, expected) in table {
            let ago = |age| now - ms(age);
            let path = Path { since: ago(since), last_rx: ago(rx), last_tx: ago(tx), is_doubted: false };
            assert_eq!(inspect(now, TOLERANCE, state, standing, &path), expected, "{what}");
        }
    }

    #[test]
    fn tolerance_grows_with_missed_max() {
        for (missed_max, limit) in [(1, 300), (5, 1100), (255, 51_100)] {
            let tolerance = Tolerance { missed_max, ..TOLERANCE };
            let now = ms(100_000);
            let silent_for = |age| {
                let path = Path { since: ms(OLD), last_rx: now - ms(age), last_tx: now, is_doubted: false };
                inspect(now, tolerance, IsUp, Active, &path)
            };
            assert_eq!((silent_for(limit), silent_for(limit + 1)), (None, Some(Down)), "{missed_max}");
        }
    }

    #[test]
    fn a_slave_that_joins_without_carrier_has_no_reception() {
        let now = ms(100_000);
        let path = Path::new(now, Some(TOLERANCE));
        assert_eq!(inspect(now, TOLERANCE, IsDown, Backup, &path), None);
    }

    #[test]
    fn the_end_of_time_causes_no_panic() {
        let path = Path { since: Time::MAX, last_rx: Time::MAX, last_tx: Time::MAX, is_doubted: false };
        assert_eq!(inspect(Time::MAX, TOLERANCE, IsUp, Active, &path), None);
        let endless = Tolerance { interval: Time::MAX, missed_max: u32::MAX };
        assert_eq!(inspect(Time::MAX, endless, IsUp, Active, &Path::new(Time::ZERO, Some(endless))), None);
    }

    #[test]
    fn the_round_robin_contains_slaves_with_carrier() {
        let slaves = |links: [bool; 3]| [0, 1, 2].map(|index| (slot(index), links[usize::from(index)]));
        let all = slaves([true; 3]);
        let table = [
            (all, None, Some(1)),
            (all, Some(1), Some(2)),
            (all, Some(2), Some(0)),
            (all, Some(0), Some(1)),
            // It has left.
            (all, Some(9), Some(1)),
            (slaves([true, false, true]), None, Some(2)),
            (slaves([true, false, false]), Some(0), Some(0)),
            (slaves([true, false, false]), None, Some(0)),
            (slaves([false; 3]), Some(0), None),
        ];
        for (slaves, last, expected) in table {
            assert_eq!(
                next_in_round_robin(&slaves, last.map(slot)),
                expected.map(slot),
                "after {last:?} of {slaves:?}"
            );
        }
        assert_eq!(next_in_round_robin(&[], None), None);
    }

    #[test]
    fn families_that_have_to_answer_count_by_their_own_targets() {
        let mut times = ProbeTimes::NEVER;
        let mut note = |at: u64, target| times.note(Time::from_millis(at).as_nanos() as u64, target);
        note(1000, Some(0));
        note(2000, Some(MAX_TARGETS));
        note(3000, Some(1));
        let table = [
            (Families::Both, ArpAllTargets::Any, true, (2, 1), 3000),
            (Families::Ipv4, ArpAllTargets::Any, true, (2, 1), 3000),
            (Families::Ipv4, ArpAllTargets::All, true, (2, 1), 1000),
            (Families::Ipv6, ArpAllTargets::Any, true, (2, 1), 2000),
            (Families::Each, ArpAllTargets::Any, true, (2, 1), 2000),
            (Families::Each, ArpAllTargets::All, true, (2, 1), 1000),
            // Without a target of the family, and without validation, what is there counts.
            (Families::Ipv6, ArpAllTargets::Any, true, (2, 0), 3000),
            (Families::Each, ArpAllTargets::Any, true, (1, 0), 1000),
            (Families::Each, ArpAllTargets::Any, false, (2, 1), 3000),
        ];
        for (row, (families, all, validated, (ipv4, ipv6), expected)) in table.into_iter().enumerate() {
            let options = BondOptions {
                arp_all_targets: all,
                arp_ip_target: vec![[10, 0, 0, 1].into(); ipv4],
                ns_ip6_target: vec![[0xfd; 16].into(); ipv6],
                ..BondOptions::default()
            };
            assert_eq!(
                last_rx(&options, (validated, families), &times, Time::ZERO),
                ms(expected),
                "row {row}"
            );
        }
    }

    #[test]
    fn all_targets_count_by_the_one_that_is_silent_longest() {
        let mut times = ProbeTimes::NEVER;
        let mut note = |at: u64, target| times.note(Time::from_millis(at).as_nanos() as u64, target);
        note(1000, Some(0));
        note(3000, Some(1));
        note(2000, Some(MAX_TARGETS));
        note(4000, None);
        let options = |all, ipv4: usize, ipv6: usize| BondOptions {
            arp_all_targets: all,
            arp_ip_target: vec![[10, 0, 0, 1].into(); ipv4],
            ns_ip6_target: vec![[0xfd; 16].into(); ipv6],
            ..BondOptions::default()
        };
        let table = [
            (ArpAllTargets::Any, true, 2, 1, 4000),
            (ArpAllTargets::All, true, 2, 1, 1000),
            (ArpAllTargets::All, true, 0, 1, 2000),
            (ArpAllTargets::All, true, 3, 0, 500),
            (ArpAllTargets::All, true, 0, 0, 4000),
            (ArpAllTargets::All, false, 3, 0, 4000),
        ];
        for (all, validated, ipv4, ipv6, expected) in table {
            let last = last_rx(&options(all, ipv4, ipv6), (validated, Families::Both), &times, ms(500));
            assert_eq!(last, ms(expected), "{all:?} {validated} {ipv4} {ipv6}");
        }
    }

    proptest! {
        /// While no agent runs, the tick applies the same rules.
        #[test]
        fn the_tick_judges_as_the_engine_does(
            is_up: bool, standing in 0..3, missed_max in 1u32..4, interval in 1u64..500,
            rx in 0u64..3000, since in 0u64..3000, tx in 0u64..3000, own: bool, hunts: bool,
        ) {
            let now = ms(100_000);
            let ago = |time: u64| now - ms(time);
            // The active slave is up.
            let is_up = is_up || standing == 0 && own;
            let (state, [active, turn]) = match standing {
                0 => (if is_up { IsUp } else { IsDown }, [Some(slot(if own { 0 } else { 1 })), None]),
                1 => (if is_up { IsUp } else { IsDown }, [None, None]),
                _ => (if is_up { IsUp } else if own { Probing } else { IsDown }, [None, Some(slot(if own { 0 } else { 1 }))]),
            };
            let tolerance = Tolerance { interval: ms(interval), missed_max };
            let path = Path { since: ago(since), last_rx: ago(rx), last_tx: ago(tx), is_doubted: false };
            let standing = match (active, turn) {
                (Some(active), _) if active == slot(0) && hunts => Tried,
                (Some(active), _) if active == slot(0) => Active,
                (None, Some(_)) => Waiting,
                _ => Backup,
            };
            let expected = inspect(now, tolerance, state, standing, &path);

            let nanos = |time: Time| time.as_nanos() as u64;
            let mut tick = MonitorState::default();
            tick.paths[0] = PathTimes { since: nanos(path.since), last_rx: nanos(path.last_rx), last_tx: nanos(path.last_tx) };
            let entry = MonitorEntry { missed_max: missed_max.into(), ..MonitorEntry::default() };
            let word = ActiveWord::default().next(active, None, u16::from(is_up));
            tick.begin_from(word, 0);
            tick.set_turn(turn);
            tick.set_hunting(hunts);
            let mut at = Judging::new(&entry, &StepPace::new(nanos(ms(interval)), 0, 0, nanos(now)), word, &tick);
            at.hunt(0b111, &tick);
            tick.begin_judging();
            tick.judge(slot(0), &at);
            let found = tick.end_judging();
            prop_assert_eq!((found.up, found.down), (u16::from(expected == Some(Up)), u16::from(expected == Some(Down))));
            let is_doubted = expected == Some(Down) && matches!(standing, Active | Tried) || expected == Some(Unanswered);
            prop_assert_eq!(tick.doubted(), u16::from(is_doubted));
        }

        #[test]
        fn the_tick_hears_what_the_engine_hears(
            received in proptest::collection::vec((0u64..5000, 0usize..2 * MAX_TARGETS), 0..8),
            ipv4 in 0usize..=MAX_TARGETS, ipv6 in 0usize..=MAX_TARGETS, all: bool, validated: bool, since in 0u64..5000,
        ) {
            let mut times = ProbeTimes::NEVER;
            received.iter().for_each(|(at, target)| times.note(ms(*at).as_nanos() as u64, Some(*target)));
            let arp_all_targets = if all { ArpAllTargets::All } else { ArpAllTargets::Any };
            let options = BondOptions {
                arp_all_targets,
                arp_ip_target: vec![[10, 0, 0, 1].into(); ipv4],
                ns_ip6_target: vec![[0xfd; 16].into(); ipv6],
                ..BondOptions::default()
            };
            let expected = last_rx(&options, (validated, Families::Both), &times, ms(since));

            let required = MonitorEntry::required_of(ipv4, ipv6, all && validated, false);
            let entry =
                MonitorEntry { required, targets_since: ms(since).as_nanos() as u64, ..MonitorEntry::default() };
            let word = ActiveWord::default().next(Some(slot(0)), None, 1);
            let mut tick = MonitorState::default();
            let at = Judging::new(&entry, &StepPace::new(1, 0, 0, 0), word, &tick);
            tick.hear(slot(0), &times, &at);
            prop_assert_eq!(Time::from_nanos(tick.paths[0].last_rx), expected);
        }

        #[test]
        fn the_tick_has_the_round_robin_of_the_engine(
            order in proptest::collection::vec(0u8..16, 0..16), links: u16, last in proptest::option::of(0u8..16),
        ) {
            let mut order: Vec<Slot> = order.into_iter().map(slot).collect();
            let mut seen = 0;
            order.retain(|slot| { let is_new = seen & slot.bit() == 0; seen |= slot.bit(); is_new });
            let slaves: Vec<_> = order.iter().map(|slot| (*slot, links & slot.bit() != 0)).collect();
            let last = last.map(slot);
            let expected = next_in_round_robin(&slaves, last);
            let entry = MonitorEntry {
                first: order.first().map_or(0, |slot| slot.index()) as u64,
                turns: RoundRobin::new(order.iter().copied()).bits(),
                joined: seen.into(),
                ..MonitorEntry::default()
            };
            prop_assert_eq!(entry.next_turn(links, last), expected);
        }
    }
}
