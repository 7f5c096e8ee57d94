//! ARP and NS monitoring by the tick while no agent runs: which slaves are up, and which of them probes.
//!
//! These are the rules of `bond_activebackup_arp_mon`, as the agent's engine applies them. A step takes place once in an
//! arp_interval: [`MonitorState::judge`] judges each slave, [`decide`] follows from that, and then the active slave probes
//! or, if there is none, the next one in the round robin ([`RoundRobin`]).
//!
//! As in the engine, a slave that was asked and received no answer is doubted while three slaves or more have a link: until it
//! receives an answer to its own probe, or any frame while an active slave works, it does not come up.
//!
//! Verifiers of some kernels (6.1) follow each combination of the bits that branches set, so what is done for each slave
//! has no branch.

use core::hint::black_box;

use crate::{
    abi::{ActiveWord, MAX_SLAVES, MAX_TARGETS, ProbeTimes, Rank, Slot},
    clock::{
        decide::{Cause, DRAIN, avoided, first, preferred},
        layout::{AnnounceFrame, ClockEntry},
    },
};

/// The most frames of a round of probes: one for each target.
pub const PROBE_FRAMES: usize = 2 * MAX_TARGETS;
/// The number of entries of ARP_PROBES: two banks, so that the agent writes one while the tick reads the other.
pub const PROBE_ENTRIES: usize = 2 * PROBE_FRAMES;

/// A probe, in ARP_PROBES: whole, but for its source MAC address, which is zero where the slave's will be. The longest is a
/// neighbour solicitation behind two VLAN tags.
pub type ProbeFrame = AnnounceFrame;

/// The grace, in intervals, of a slave that became active or began to probe, and of all slaves when the tick begins to
/// monitor: until it ends, the slave is not judged.
const GRACE: u64 = 2;
/// From so many slaves with a link on, slaves are doubted.
const HUNTERS: u32 = 3;
/// A time that never comes.
const NEVER: u64 = u64::MAX >> 1;
/// The time by which a step may always be late, in nanoseconds: the precision of timers.
const LATE_AT_LEAST: u64 = 5_000_000;

/// The agent's settings for the monitor, in ARP_MONITOR at 0. The agent writes each word with one store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorEntry {
    /// Nanoseconds from one step to the next (`arp_interval`); 0: the tick does not monitor.
    pub interval: u64,
    /// `arp_missed_max`
    pub missed_max: u64,
    /// The bit [`Self::BACKUPS_WAIT`].
    pub flags: u64,
    /// The targets each of which has to answer (`arp_all_targets=all`), a bit for each index of [`ProbeTimes::targets`]: in
    /// the lower half for the slave that probes, in the upper half for the others. 0: an answer of any target counts.
    pub required: u64,
    /// When the targets changed last: CLOCK_MONOTONIC in nanoseconds.
    pub targets_since: u64,
    /// The frames of ARP_PROBES that make a round: see [`ProbeList`].
    pub list: u64,
    /// The order in which slaves probe while none is active, as [`RoundRobin::bits`].
    pub turns: u64,
    /// The slot of the slave that was enslaved first.
    pub first: u64,
    /// The slots in the order in which they become active if all of them are up, as [`Rank::bits`].
    pub merit: u64,
    /// A bit for each slot whose slave is set up.
    pub joined: u64,
}

impl MonitorEntry {
    /// Flag: what backups receive counts only after the active slave has received an answer (`arp_validate` applies to
    /// backups).
    pub const BACKUPS_WAIT: u64 = 1;

    /// Returns whether the tick may monitor: `arp_interval` is set, and the agent has prepared a round of probes.
    pub const fn is_ready(&self) -> bool {
        self.interval != 0 && ProbeList::from_bits(self.list).is_prepared
    }

    /// Returns the slot that probes next while no slave is active; None if no slot of the mask has a slave. Without a `last`
    /// the round robin begins after the first slave, as in the driver.
    #[inline(always)]
    pub fn next_turn(&self, mask: u16, last: Option<Slot>) -> Option<Slot> {
        self.next_prober(mask, 0, last)
    }

    /// Returns the same, with slots of doubted slaves only if there are no others.
    #[inline(always)]
    pub fn next_prober(&self, links: u16, doubted: u16, last: Option<Slot>) -> Option<Slot> {
        let links = self.joined as u16 & links;
        let fresh = links & !doubted;
        let mask = if fresh == 0 || links.count_ones() < HUNTERS { links } else { fresh };
        let last = last.unwrap_or(Slot::from_bits(self.first));
        RoundRobin::from_bits(self.turns).next(mask, last)
    }

    /// Returns [`Self::required`] of targets from this one: the first `ipv4` and `ipv6` of each family, for the slave that
    /// probes and for the others.
    pub const fn required_of(ipv4: usize, ipv6: usize, of_prober: bool, of_others: bool) -> u64 {
        let most = MAX_TARGETS;
        let (ipv4, ipv6) = (if ipv4 < most { ipv4 } else { most }, if ipv6 < most { ipv6 } else { most });
        let mask = ((1u64 << ipv4) - 1) | ((1u64 << ipv6) - 1) << most;
        (if of_prober { mask } else { 0 }) | (if of_others { mask } else { 0 }) << 32
    }
}

/// Where a round's probes are in ARP_PROBES, as one word: the bank, how many it has, and whether it is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeList {
    /// 0 or 1.
    pub bank: u32,
    /// At most [`PROBE_FRAMES`].
    pub count: u32,
    /// Whether the agent has prepared a round of all targets. It has none before its first round, and if a frame is too
    /// long for [`ProbeFrame`].
    pub is_prepared: bool,
}

impl ProbeList {
    const PREPARED: u64 = 1 << 63;

    /// Creates the list from the word of [`MonitorEntry::list`]; larger values are cut.
    pub const fn from_bits(word: u64) -> Self {
        let (count, most) = (word as u32, PROBE_FRAMES as u32);
        Self {
            bank: (word >> 32) as u32 & 1,
            count: if count > most { most } else { count },
            is_prepared: word & Self::PREPARED != 0,
        }
    }

    /// Returns the word of [`MonitorEntry::list`].
    pub const fn bits(self) -> u64 {
        let prepared = if self.is_prepared { Self::PREPARED } else { 0 };
        prepared | (self.bank as u64 & 1) << 32 | self.count as u64
    }

    /// Returns the index in ARP_PROBES of the frame with this number.
    pub const fn entry(self, number: u32) -> u32 {
        (self.bank & 1) * PROBE_FRAMES as u32 + number
    }
}

/// What the tick keeps of the monitor, in ARP_STATE at 0. Only the tick writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonitorState {
    /// 1 while the tick monitors, 0 while the agent does.
    pub on: u64,
    /// When the last step was due: CLOCK_MONOTONIC in nanoseconds.
    pub stepped_at: u64,
    /// The number of the tick that made the last step.
    pub stepped_tick: u64,
    /// The slot that probes while no slave is active, plus one; 0: none.
    turn: u64,
    /// The slots of slaves that are up in the lower 16 bits: ACTIVE does not name those that are up and avoided. Those of
    /// doubted slaves in the next 16. Then the bit [`Self::HUNTING`].
    up: u64,
    /// The slots that come up in this step in the lower 16 bits, those that go down in the next 16, and those that are doubted
    /// from now on in the next 16.
    found: u64,
    /// Steps of ticks.
    pub steps: u64,
    /// Steps that judged no slave because they were late.
    pub late: u64,
    /// Probes that the kernel took.
    pub sent: u64,
    /// Probes that the kernel refused.
    pub failed: u64,
    /// The slaves' times.
    pub paths: [PathTimes; MAX_SLAVES],
}

/// The times by which a slave is judged: CLOCK_MONOTONIC in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathTimes {
    /// When the slave became active or began to probe, or the tick began to monitor (`last_link_up`).
    pub since: u64,
    /// The last reception that counts (`last_rx`).
    pub last_rx: u64,
    /// The last round of probes.
    pub last_tx: u64,
}

/// What a tick does for the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next step is not due.
    Wait,
    /// Nothing can be judged, because nothing was asked in time: the grace of every slave begins, and the same slave probes
    /// again.
    Begin,
    /// Judge all slaves, then probe.
    Judge,
}

/// The time of a tick, and the pace of the monitor's steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPace {
    /// The time of the tick: CLOCK_MONOTONIC in nanoseconds.
    pub now: u64,
    /// The number of the tick.
    pub tick: u64,
    /// The ticks from one step to the next.
    laps: u64,
    /// Nanoseconds from one step to the next.
    pub interval: u64,
    /// Nanoseconds from one tick to the next.
    period: u64,
}

impl StepPace {
    /// Returns the pace of an arp_interval, which is rounded up to whole periods of the clock: a step is made by a tick.
    #[inline(always)]
    pub const fn new(interval: u64, period: u64, tick: u64, now: u64) -> Self {
        let laps = match (interval + period).saturating_sub(1).checked_div(period) {
            Some(laps) => laps,
            None => 1,
        };
        Self { now, tick, laps, interval: if period == 0 { interval } else { laps * period }, period }
    }
}

impl MonitorState {
    /// The bit of [`Self::up`] that says: the active slave was elected because another one failed, and has not received an
    /// answer since.
    const HUNTING: u64 = 1 << 32;

    /// Returns what the tick has to do, and notes that it does it.
    ///
    /// A step that comes late judges no slave, as in the agent's engine, and neither does one with less than half of the
    /// ticks that an interval has: a CPU that stood still has neither probed nor received meanwhile.
    #[inline(always)]
    pub fn step(&mut self, pace: &StepPace) -> Step {
        let StepPace { now, tick, laps, interval, period } = *pace;
        let passed = now.saturating_sub(self.stepped_at);
        if self.on == 0 {
            (self.on, self.turn) = (1, 0);
        } else if passed + period / 2 < interval {
            return Step::Wait;
        } else {
            let tolerance = if interval / 2 > LATE_AT_LEAST { interval / 2 } else { LATE_AT_LEAST };
            let few = tick.wrapping_sub(self.stepped_tick) * 2 < laps;
            if passed <= interval + tolerance && !few {
                self.stepped_at += interval;
                self.stepped_tick = tick;
                self.steps += 1;
                return Step::Judge;
            }
            self.late += 1;
        }
        (self.stepped_at, self.stepped_tick) = (now, tick);
        self.steps += 1;
        Step::Begin
    }

    /// Begins the grace of every slave. That of those that do not probe is one interval longer, as is the silence that they
    /// are allowed: the slave that probes is judged first, while there still are others.
    #[inline(always)]
    pub fn begin_all(&mut self, pace: &StepPace, prober: Option<Slot>) {
        let mut index = 0;
        while index < MAX_SLAVES {
            if let Some(path) = self.paths.get_mut(index) {
                path.since = pace.now + pace.interval;
            }
            index += 1;
        }
        if let Some(prober) = prober {
            self.begin(prober, pace.now);
        }
    }

    /// Begins the grace of a slave that becomes active or begins to probe.
    #[inline(always)]
    pub fn begin(&mut self, slot: Slot, now: u64) {
        if let Some(path) = self.path(slot) {
            path.since = now;
        }
    }

    /// Returns the times of a slot.
    #[inline(always)]
    fn path(&mut self, slot: Slot) -> Option<&mut PathTimes> {
        // A bound that the compiler has derived is unknown to the verifier when the index was on the stack since then. Of
        // this index the compiler knows no bound, so it keeps the mask.
        self.paths.get_mut(black_box(slot.index()) % MAX_SLAVES)
    }

    /// Notes that a round of probes left by this slave.
    #[inline(always)]
    pub fn probed(&mut self, slot: Slot, now: u64) {
        if let Some(path) = self.path(slot) {
            path.last_tx = now;
        }
    }

    /// Returns the slot that probes while no slave is active.
    #[inline(always)]
    pub const fn turn(&self) -> Option<Slot> {
        match self.turn {
            0 => None,
            turn => Slot::new((turn - 1) as u8),
        }
    }

    /// Sets the slot that probes while no slave is active.
    #[inline(always)]
    pub const fn set_turn(&mut self, slot: Option<Slot>) {
        self.turn = match slot {
            Some(slot) => slot.index() as u64 + 1,
            None => 0,
        };
    }

    /// Takes the slaves for up that ACTIVE names, and those that it may not name because they are avoided. None is doubted.
    #[inline(always)]
    pub fn begin_from(&mut self, word: ActiveWord, avoided: u16) {
        self.up = (word.usable() | avoided) as u64;
    }

    /// Begins to judge: no slave comes up or goes down yet.
    #[inline(always)]
    pub const fn begin_judging(&mut self) {
        self.found = 0;
    }

    /// Ends the judgement of all slaves, and returns what it found.
    #[inline(always)]
    pub fn end_judging(&mut self) -> Found {
        let found = self.found();
        let doubted = (self.found >> 32) << 16;
        let up = (self.up | found.up as u64) & !(found.down as u64);
        self.up = (up | doubted) & !((found.up as u64) << 16);
        found
    }

    /// Returns the slots of slaves that were asked, and have received no answer since.
    #[inline(always)]
    pub const fn doubted(&self) -> u16 {
        (self.up >> 16) as u16
    }

    /// Returns 1 if the active slave was elected because another one failed, and has not received an answer since; else 0.
    #[inline(always)]
    const fn hunting(&self) -> u64 {
        self.up >> 32 & 1
    }

    /// Sets whether the active slave was elected because another one failed.
    #[inline(always)]
    pub const fn set_hunting(&mut self, hunting: bool) {
        self.up = self.up & !Self::HUNTING | (hunting as u64) << 32;
    }

    /// Ends the hunt if `confirmed` is 1: the active slave has received an answer. If it is 0, nothing changes.
    #[inline(always)]
    pub const fn end_hunt(&mut self, confirmed: u64) {
        self.up &= !(confirmed << 32);
    }

    /// Returns the slots of slaves that are up.
    #[inline(always)]
    pub const fn up(&self) -> u16 {
        self.up as u16
    }

    /// Returns what [`Self::judge`] found of all slaves since [`Self::begin_judging`].
    #[inline(always)]
    const fn found(&self) -> Found {
        Found { up: self.found as u16, down: (self.found >> 16) as u16 }
    }

    /// Stores what a slave received.
    #[inline(always)]
    pub fn hear(&mut self, slot: Slot, times: &ProbeTimes, at: &Judging) {
        let is_prober = at.bit(at.probers, slot);
        let required = at.required >> (32 * (1 - is_prober));
        let counts = is_prober | at.answered;
        let heard = last_rx(times, required as u32, at.targets_since) & 0u64.wrapping_sub(counts);
        let is_doubted = at.bit(self.doubted() & at.hunters, slot);
        if let Some(path) = self.path(slot) {
            // From when on a reception counts.
            let (own, others) = (0u64.wrapping_sub(is_prober), 0u64.wrapping_sub(1 - is_prober));
            let proof = (path.since & own | at.proof_since & others) & 0u64.wrapping_sub(is_doubted);
            let counts = is_before(proof, heard) | (1 - is_doubted);
            path.last_rx = later(path.last_rx, heard & 0u64.wrapping_sub(counts));
        }
    }

    /// Returns since when what others than the active slave receive is an answer: since it became active, if it has received
    /// one; else never.
    #[inline(always)]
    pub fn proof_since(&mut self, active: Slot) -> u64 {
        let confirmed = 0u64.wrapping_sub(self.is_confirmed(active));
        let since = self.path(active).map_or(NEVER, |path| path.since);
        since & confirmed | NEVER & !confirmed
    }

    /// Returns 1 if the slave has received an answer since it became active, else 0.
    #[inline(always)]
    pub fn is_confirmed(&mut self, slot: Slot) -> u64 {
        self.path(slot).map_or(0, |path| is_before(path.since, path.last_rx))
    }

    /// Judges a slave by its times (`bond_ab_arp_inspect`).
    #[inline(always)]
    pub fn judge(&mut self, slot: Slot, at: &Judging) {
        let Some(&mut path) = self.path(slot) else { return };
        let covers = |last: u64, intervals: u64| {
            let limit = at.interval * intervals + at.interval / 2;
            1 - is_before(last + limit, at.now)
        };
        let (is_up, is_active) = (at.bit(at.up, slot), at.bit(at.active, slot));
        let up = (1 - is_up) & covers(path.last_rx, 1);
        let intervals = at.missed_max + 1 - is_active;
        let silent = 1 - covers(path.last_rx, intervals);
        let unasked = is_active & (1 - covers(path.last_tx, at.missed_max));
        // While no slave is active, each gets its chance to probe before it is judged.
        let is_judged = is_up & (1 - covers(path.since, GRACE)) & (1 - at.waiting);
        // There are further slaves to try: one interval has to suffice.
        let unconfirmed = 1 - is_before(path.since, path.last_rx);
        let was_asked = 1 - is_before(path.last_tx, path.since);
        let is_tried = is_up & is_active & at.tried & (1 - covers(path.since, 0));
        let down = is_judged & (silent | unasked) | is_tried & unconfirmed & was_asked;
        let unanswered = at.bit(at.turn, slot) & (1 - is_up) & (1 - up);
        self.found |= (up | down << 16 | (down & is_active | unanswered) << 32) << slot.index();
    }
}

/// Returns 1 if `earlier` is before `than`, else 0; both are times, less than 2^63.
#[inline(always)]
const fn is_before(earlier: u64, than: u64) -> u64 {
    earlier.wrapping_sub(than) >> 63
}

/// Returns the later of two times.
#[inline(always)]
const fn later(a: u64, b: u64) -> u64 {
    a ^ ((a ^ b) & 0u64.wrapping_sub(is_before(a, b)))
}

/// Returns the time of the last reception that counts: from any target or, where targets are required, from that of them
/// which has been silent longest (`slave_last_rx`). A new target counts as received when it is added, as in the driver.
#[inline(always)]
fn last_rx(times: &ProbeTimes, required: u32, targets_since: u64) -> u64 {
    let mut oldest = NEVER;
    let mut index = 0;
    while index < 2 * MAX_TARGETS {
        let Some(&time) = times.targets().get(index) else { break };
        let is_required = (required >> index & 1) as u64;
        // A time that is not required is the latest of all.
        let time = time | (is_required.wrapping_sub(1) & NEVER);
        oldest = oldest ^ time ^ later(oldest, time);
        index += 1;
    }
    let any = is_before(0, required as u64) ^ 1;
    let (any, all) = (0u64.wrapping_sub(any), later(oldest, targets_since));
    (times.last_rx() & any) | (all & !any)
}

/// What all slaves are judged by in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Judging {
    /// The time of the tick: CLOCK_MONOTONIC in nanoseconds.
    pub now: u64,
    /// [`StepPace::interval`]
    pub interval: u64,
    /// [`MonitorEntry::missed_max`]
    pub missed_max: u64,
    /// [`MonitorEntry::required`]
    pub required: u64,
    /// [`MonitorEntry::targets_since`]
    pub targets_since: u64,
    /// Slots of slaves that are up.
    pub up: u16,
    /// The bit of the active slot, 0 if there is none.
    pub active: u16,
    /// The bit of the slot that probes, 0 if there is none.
    pub probers: u16,
    /// 1 if what others than the prober receive counts, else 0.
    pub answered: u64,
    /// 1 while no slave is active and one of them probes, else 0.
    pub waiting: u64,
    /// The bit of the slot that probes while no slave is active, 0 if one is.
    turn: u16,
    /// The slots whose slaves are doubted if they do not answer: all, or none.
    hunters: u16,
    /// 1 if the active slave is judged after one interval, else 0.
    tried: u64,
    /// Since when what others than the prober receive is an answer.
    pub proof_since: u64,
}

impl Judging {
    /// Returns what the slaves are judged by, with what others than the prober receive not counting yet.
    #[inline(always)]
    pub fn new(entry: &MonitorEntry, pace: &StepPace, word: ActiveWord, state: &MonitorState) -> Self {
        let bit = |slot: Option<Slot>| match slot {
            Some(slot) => slot.bit(),
            None => 0,
        };
        let active = bit(word.active());
        let turn = if active == 0 { bit(state.turn()) } else { 0 };
        Self {
            now: pace.now,
            interval: pace.interval,
            missed_max: entry.missed_max,
            required: entry.required,
            targets_since: entry.targets_since,
            // The active slave is judged in any case.
            up: state.up() | active,
            active,
            probers: active | turn,
            answered: 0,
            waiting: (turn != 0) as u64,
            turn,
            hunters: 0,
            tried: 0,
            proof_since: NEVER,
        }
    }

    /// Has slaves doubted that do not answer, if so many are in this mask, of those with a link.
    #[inline(always)]
    pub const fn hunt(&mut self, links: u16, state: &MonitorState) {
        let hunts = (links.count_ones() >= HUNTERS) as u16;
        self.hunters = 0u16.wrapping_sub(hunts);
        self.tried = hunts as u64 & state.hunting();
    }

    /// Returns 1 if the slot is in the mask, else 0.
    #[inline(always)]
    const fn bit(&self, mask: u16, slot: Slot) -> u64 {
        (mask >> slot.index() & 1) as u64
    }
}

/// What a step found: a bit for each slot whose state changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Slaves that were down and receive.
    pub up: u16,
    /// Slaves that were up and are silent.
    pub down: u16,
}

/// What [`decide`] goes by.
#[derive(Clone, Copy, Debug)]
pub struct AfterStep<'a> {
    /// ACTIVE.
    pub word: ActiveWord,
    /// ARP_MONITOR.
    pub entry: &'a MonitorEntry,
    /// CLOCK.
    pub clock: &'a ClockEntry,
    /// What the step found.
    pub found: Found,
    /// [`MonitorState::up`] after that.
    pub up: u16,
    /// Slots whose device has a link.
    pub links: u16,
    /// Whether a tick last changed the active slave long ago, so that no slave drains any more.
    pub is_drained: bool,
}

impl AfterStep<'_> {
    /// Returns whether the drain has ended of a tick's switch at `switched_at`.
    #[inline(always)]
    pub const fn is_drained(switched_at: u64, now: u64) -> bool {
        now.saturating_sub(switched_at) >= DRAIN
    }
}

/// Returns the word that follows from a step, None if ACTIVE stays (`bond_ab_arp_commit`, `bond_find_best_slave`).
#[inline(always)]
pub fn decide(at: &AfterStep<'_>) -> Option<(ActiveWord, Cause)> {
    let AfterStep { word, entry, clock, found, up, links, is_drained } = *at;
    let up = up & entry.joined as u16;
    let merit = Rank::from_bits(entry.merit);
    let usable = up & !avoided(clock.avoided as u16, up);
    let Some(active) = word.active() else {
        let slot = first(merit, usable);
        let stays = slot.is_none() && usable == word.usable();
        return (!stays).then(|| (word.next(slot, None, usable), Cause::Answered));
    };
    if found.down & active.bit() != 0 {
        let slot = first(merit, usable);
        // Its path may be dead in one direction only.
        let draining = (slot.is_some() && links & active.bit() != 0).then_some(active);
        return Some((word.next(slot, draining, usable), Cause::Unanswered));
    }
    if let Some(slot) = preferred(merit, usable & !word.usable(), active, &clock.preference) {
        return Some((word.next(Some(slot), Some(active), usable), Cause::AnsweredPreferred));
    }
    let draining = if is_drained { None } else { word.draining() };
    let stays = usable == word.usable() && draining == word.draining();
    (!stays).then(|| (word.next(Some(active), draining, usable), Cause::Bookkeeping))
}

/// The round robin of slaves that probe while no slave is active: to each slot the one that follows in enslave order, which
/// wraps, in four bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundRobin(u64);

impl RoundRobin {
    /// Creates the round robin of these slots. Each other slot is followed by the second of them: the round robin begins
    /// there, as in the driver.
    pub fn new(order: impl IntoIterator<Item = Slot, IntoIter: Clone>) -> Self {
        let order = order.into_iter();
        let followers = || order.clone().cycle().skip(1);
        let Some(second) = followers().next() else { return Self(0) };
        let all = Slot::all().fold(0, |bits, slot| bits | Self::place(slot, second));
        Self(order.clone().zip(followers()).fold(all, |bits, (slot, follower)| {
            bits & !(0xf << (4 * slot.index())) | Self::place(slot, follower)
        }))
    }

    const fn place(slot: Slot, follower: Slot) -> u64 {
        (follower.index() as u64) << (4 * slot.index())
    }

    /// Creates the round robin from the 64 bits that a map holds.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits that a map holds.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the slot that probes next: the first one after `last` that is in the mask (`bond_ab_arp_probe`).
    #[inline(always)]
    pub fn next(self, mask: u16, last: Slot) -> Option<Slot> {
        let (mut slot, mut step) = (last, 0);
        while step < MAX_SLAVES {
            slot = Slot::from_bits(self.0 >> (4 * slot.index()));
            if mask & slot.bit() != 0 {
                return Some(slot);
            }
            step += 1;
        }
        None
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: 64-bit words in C layout without padding: every bit pattern is valid.
    unsafe impl aya::Pod for super::MonitorEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::MonitorState {}
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::layout::Preference;

    const MS: u64 = 1_000_000;
    const NOW: u64 = 100_000 * MS;

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    fn mask(slots: &[u8]) -> u16 {
        slots.iter().fold(0, |mask, index| mask | slot(*index).bit())
    }

    fn word(active: Option<u8>, usable: &[u8]) -> ActiveWord {
        ActiveWord::default().next(active.map(slot), None, mask(usable))
    }

    /// Three slaves at an arp_interval of 200 ms.
    fn entry() -> MonitorEntry {
        let order = [0, 1, 2].map(slot);
        MonitorEntry {
            interval: 200 * MS,
            missed_max: 2,
            turns: RoundRobin::new(order).bits(),
            merit: Rank::new(order).bits(),
            joined: 0b111,
            list: ProbeList { is_prepared: true, ..ProbeList::default() }.bits(),
            ..MonitorEntry::default()
        }
    }

    fn pace(now: u64) -> StepPace {
        StepPace::new(200 * MS, 10 * MS, now / (10 * MS), now)
    }

    /// Judges one slave, which was heard, became active and probed so many ms ago; it is up or not.
    fn judged(is_up: bool, active: Option<u8>, turn: Option<u8>, (rx, since, tx): (u64, u64, u64)) -> Found {
        let ago = |ms: u64| NOW - ms * MS;
        let mut state = MonitorState::default();
        state.paths[0] = PathTimes { since: ago(since), last_rx: ago(rx), last_tx: ago(tx) };
        let usable: &[u8] = if is_up { &[0] } else { &[] };
        state.begin_from(word(active, usable), 0);
        state.set_turn(turn.map(slot));
        let at = Judging::new(&entry(), &pace(NOW), word(active, usable), &state);
        state.begin_judging();
        state.judge(slot(0), &at);
        state.end_judging()
    }

    #[test]
    fn a_slave_is_judged_as_by_the_driver() {
        let (active, backup, waits) = ((Some(0), None), (Some(1), None), (None, Some(1)));
        let (up, down, none) = ((1, 0), (0, 1), (0, 0));
        let table = [
            // is it up, its standing, ms since it received, became active, probed; the outcome
            (true, active, (500, 5000, 500), none),
            (true, active, (501, 5000, 0), down),
            (true, active, (0, 5000, 501), down),
            (true, active, (5000, 500, 5000), none),
            (true, active, (5000, 501, 5000), down),
            (true, backup, (700, 5000, 5000), none),
            (true, backup, (701, 5000, 5000), down),
            (true, backup, (701, 500, 5000), none),
            (true, waits, (5000, 5000, 5000), none),
            (true, (None, None), (701, 5000, 5000), down),
            (false, backup, (300, 5000, 5000), up),
            (false, backup, (301, 0, 0), none),
            (false, (None, Some(0)), (300, 0, 0), up),
            (false, waits, (300, 5000, 5000), up),
        ];
        for (row, (is_up, (active, turn), times, expected)) in table.into_iter().enumerate() {
            let Found { up, down } = judged(is_up, active, turn, times);
            assert_eq!((up, down), expected, "row {row}");
        }
    }

    #[test]
    fn a_step_comes_once_an_interval_and_begins_with_a_grace() {
        let mut state = MonitorState::default();
        let mut steps = Vec::new();
        for tick in 0..60 {
            // Ticks jitter by less than half a period.
            let now = NOW + tick * 10 * MS + tick % 3 * MS;
            match state.step(&StepPace::new(200 * MS, 10 * MS, tick, now)) {
                Step::Wait => {}
                step => steps.push((tick, step)),
            }
        }
        assert_eq!(steps, [(0, Step::Begin), (20, Step::Judge), (40, Step::Judge)]);
        assert_eq!((state.steps, state.late), (3, 0));
    }

    #[test]
    fn a_late_step_judges_no_slave() {
        // ms since the last step, ticks since then -> what the next one does
        let table = [
            (190, 19, Step::Wait),
            (200, 20, Step::Judge),
            (300, 30, Step::Judge),
            (301, 30, Step::Begin),
            (60_000, 1, Step::Begin),
            // The CPU stood still for most of the interval.
            (200, 9, Step::Begin),
            (200, 10, Step::Judge),
        ];
        for (time, ticks, expected) in table {
            let mut state =
                MonitorState { on: 1, stepped_at: NOW, stepped_tick: 7, ..MonitorState::default() };
            let pace = StepPace::new(200 * MS, 10 * MS, 7 + ticks, NOW + time * MS);
            assert_eq!(state.step(&pace), expected, "after {time} ms and {ticks} ticks");
            assert_eq!(state.late, u64::from(expected == Step::Begin), "after {time} ms and {ticks} ticks");
        }
    }

    #[test]
    fn the_interval_is_of_whole_periods() {
        for (interval, period, expected, laps) in
            [(200, 10, 200, 20), (15, 10, 20, 2), (1, 10, 10, 1), (200, 0, 200, 1), (30, 25, 50, 2)]
        {
            let pace = StepPace::new(interval * MS, period * MS, 0, 0);
            assert_eq!((pace.interval, pace.laps), (expected * MS, laps), "{interval} {period}");
        }
        // A step in each tick is in time as long as ticks are.
        let mut state = MonitorState::default();
        let step = |tick: u64| StepPace::new(MS, 10 * MS, tick, NOW + tick * 10 * MS + tick % 2 * MS);
        assert_eq!(state.step(&step(0)), Step::Begin);
        assert!((1..100).all(|tick| state.step(&step(tick)) == Step::Judge));
    }

    #[test]
    fn what_counts_as_reception_depends_on_targets_and_standing() {
        let mut times = ProbeTimes::NEVER;
        times.note(NOW - 30 * MS, Some(0));
        times.note(NOW - 10 * MS, Some(1));
        times.note(NOW - 20 * MS, Some(MAX_TARGETS));
        let heard = |required: u64, since: u64, is_prober: bool, answered: u64| {
            let entry = MonitorEntry { required, targets_since: since, ..entry() };
            let active = if is_prober { 0 } else { 1 };
            let mut state = MonitorState::default();
            let judging = Judging::new(&entry, &pace(NOW), word(Some(active), &[0, 1]), &state);
            let at = Judging { answered, ..judging };
            state.hear(slot(0), &times, &at);
            NOW.saturating_sub(state.paths[0].last_rx) / MS
        };
        let required = |ipv4, ipv6, prober, others| MonitorEntry::required_of(ipv4, ipv6, prober, others);
        let (any, never, last) = (0, NOW / MS, 20);
        assert_eq!(heard(any, 0, true, 1), last, "the last frame");
        assert_eq!(heard(required(2, 1, true, false), 0, true, 1), 30);
        assert_eq!(heard(required(0, 1, true, false), 0, true, 1), 20);
        assert_eq!(heard(required(3, 0, true, false), 0, true, 1), never);
        assert_eq!(heard(required(3, 0, true, false), NOW - 40 * MS, true, 1), 40, "it is new");
        assert_eq!(heard(required(3, 0, true, false), 0, false, 1), last, "of others not all are required");
        assert_eq!(heard(required(2, 0, false, true), 0, false, 1), 30);
        assert_eq!(heard(any, 0, false, 0), never, "the active slave has no answer yet");
        assert_eq!(heard(any, 0, true, 0), last, "what the prober itself receives counts");
        assert_eq!(required(16, 16, true, true), u64::MAX);
    }

    #[test]
    fn active_follows_from_what_was_found() {
        use Cause::*;
        let prefers = |taker: u8| Preference::default().with(slot(taker), 0xffff);
        let none = Preference::default();
        type Slots = &'static [u8];
        type Outcome = Option<(Option<u8>, Slots, Cause)>;
        let table: &[(ActiveWord, Preference, Slots, Slots, Outcome)] = &[
            (word(Some(0), &[0, 1, 2]), none, &[], &[], None),
            (word(Some(0), &[0, 1, 2]), none, &[], &[0], Some((Some(1), &[1, 2], Unanswered))),
            (word(Some(0), &[0, 1, 2]), none, &[], &[0, 1], Some((Some(2), &[2], Unanswered))),
            (word(Some(0), &[0]), none, &[1], &[0], Some((Some(1), &[1], Unanswered))),
            (word(Some(0), &[0]), none, &[], &[0], Some((None, &[], Unanswered))),
            (word(Some(0), &[0, 1]), none, &[], &[1], Some((Some(0), &[0], Bookkeeping))),
            (word(Some(1), &[1]), none, &[0], &[], Some((Some(1), &[0, 1], Bookkeeping))),
            (word(Some(1), &[1]), prefers(0), &[0], &[], Some((Some(0), &[0, 1], AnsweredPreferred))),
            // Only when it comes up.
            (word(Some(1), &[0, 1]), prefers(0), &[], &[], None),
            (word(None, &[]), none, &[], &[], None),
            (word(None, &[]), none, &[1, 2], &[], Some((Some(1), &[1, 2], Answered))),
            // Slot 3 has no slave.
            (word(Some(0), &[0, 3]), none, &[], &[], Some((Some(0), &[0], Bookkeeping))),
        ];
        for (row, (word, preference, up, down, expected)) in table.iter().enumerate() {
            let found = Found { up: mask(up), down: mask(down) };
            let (entry, word, links) = (entry(), *word, 0b111);
            let clock = &ClockEntry { preference: *preference, ..ClockEntry::default() };
            let up = (word.usable() | found.up) & !found.down;
            let at = AfterStep { word, entry: &entry, clock, found, up, links, is_drained: true };
            let next = decide(&at);
            let outcome = next
                .map(|(next, cause)| (next.active().map(|slot| slot.index() as u8), next.usable(), cause));
            let expected = expected.map(|(active, usable, cause)| (active, mask(usable), cause));
            assert_eq!(outcome, expected, "row {row}");
        }
    }

    #[test]
    fn an_avoided_slave_is_used_while_no_other_is_up() {
        use Cause::*;
        let preference = Preference::default().with(slot(1), 0b01);
        let clock = ClockEntry { avoided: 0b01, preference, ..ClockEntry::default() };
        for (word, up, down, expected) in [
            (word(Some(1), &[1]), 0b11, 0, None),
            (word(Some(1), &[1]), 0b01, 0b10, Some((Some(0), 0b01, Unanswered))),
            (word(None, &[]), 0b01, 0, Some((Some(0), 0b01, Answered))),
            (word(Some(0), &[0]), 0b11, 0, Some((Some(1), 0b10, AnsweredPreferred))),
        ] {
            let (entry, found) = (
                MonitorEntry { merit: Rank::new([1, 0].map(slot)).bits(), ..entry() },
                Found { up: 0, down },
            );
            let at =
                AfterStep { word, entry: &entry, clock: &clock, found, up, links: 0b11, is_drained: true };
            let outcome = decide(&at)
                .map(|(next, cause)| (next.active().map(|slot| slot.index()), next.usable(), cause));
            assert_eq!(outcome, expected, "{word:?} {up:b}");
        }
        let mut state = MonitorState::default();
        state.begin_from(word(Some(1), &[1]), 0b01);
        assert_eq!(state.up(), 0b11, "until it is judged");
    }

    #[test]
    fn the_one_that_is_left_drains_if_it_has_a_link() {
        let (entry, clock) = (entry(), ClockEntry::default());
        let situation = |word: ActiveWord, found: Found, links, is_drained| AfterStep {
            word,
            entry: &entry,
            clock: &clock,
            found,
            up: word.usable() & !found.down,
            links,
            is_drained,
        };
        let dead = Found { up: 0, down: 1 };
        for (links, draining) in [(0b11, Some(slot(0))), (0b10, None)] {
            let (next, _) = decide(&situation(word(Some(0), &[0, 1]), dead, links, true)).unwrap();
            assert_eq!(next.draining(), draining);
            assert_eq!(decide(&situation(next, Found::default(), links, false)), None);
            let later = decide(&situation(next, Found::default(), links, true));
            assert_eq!(later.map(|(next, _)| next.draining()), draining.map(|_| None));
        }
    }

    #[test]
    fn the_round_robin_contains_slaves_that_may_probe() {
        let turns = RoundRobin::new([2, 0, 1].map(slot)).bits();
        let entry = MonitorEntry { turns, first: 2, ..entry() };
        for (may, last, expected) in [
            (&[0, 1, 2][..], None, Some(0)),
            (&[0, 1, 2], Some(0), Some(1)),
            (&[0, 1, 2], Some(1), Some(2)),
            (&[0, 1, 2], Some(2), Some(0)),
            (&[2], Some(2), Some(2)),
            (&[2], None, Some(2)),
            (&[1, 2], Some(2), Some(1)),
            (&[], Some(2), None),
            // It has left.
            (&[0, 1, 2], Some(9), Some(0)),
        ] {
            let next = entry.next_turn(mask(may), last.map(slot));
            assert_eq!(next, expected.map(slot), "{may:?} after {last:?}");
        }
    }

    #[test]
    fn a_list_of_probes_is_cut_to_its_bank_and_none_before_the_first() {
        let list = ProbeList { bank: 1, count: 7, is_prepared: true };
        assert_eq!(ProbeList::from_bits(list.bits()), list);
        assert_eq!(ProbeList::from_bits(u64::MAX).count, PROBE_FRAMES as u32);
        assert_eq!(list.entry(6), PROBE_FRAMES as u32 + 6);
        assert!(entry().is_ready());
        assert!(!MonitorEntry { list: 0, ..entry() }.is_ready());
        assert!(!MonitorEntry { interval: 0, ..entry() }.is_ready());
    }

    /// A switch with dead paths, and the tick's monitor, by its functions alone.
    struct World {
        entry: MonitorEntry,
        state: MonitorState,
        word: ActiveWord,
        heard: [ProbeTimes; MAX_SLAVES],
        /// Slots of slaves at a switch of their own, which has no uplink.
        cut_off: u16,
    }

    impl World {
        fn new(entry: MonitorEntry, word: ActiveWord) -> Self {
            let heard = [ProbeTimes::NEVER; MAX_SLAVES];
            Self { entry, state: MonitorState::default(), word, heard, cut_off: 0 }
        }

        /// Makes a tick. A slave whose path is alive is answered at once, and its probe is heard by the others.
        fn tick(&mut self, tick: u64, alive: u16) {
            let now = NOW + tick * 10 * MS;
            let pace = StepPace::new(self.entry.interval, 10 * MS, tick, now);
            let step = self.state.step(&pace);
            match step {
                Step::Wait => return,
                Step::Begin => {
                    self.state.begin_from(self.word, 0);
                    self.state.begin_all(&pace, self.word.active());
                }
                Step::Judge => self.judge(&pace),
            }
            let next = || self.entry.next_prober(u16::MAX, self.state.doubted(), self.state.turn());
            let Some(prober) = self.word.active().or_else(next) else { return };
            if self.word.active().is_none() {
                self.state.set_turn(Some(prober));
                self.state.begin(prober, now);
            }
            self.state.probed(prober, now);
            if alive & prober.bit() != 0 {
                let is_cut_off = self.cut_off & prober.bit() != 0;
                let there = if is_cut_off { self.cut_off & !prober.bit() } else { !self.cut_off };
                let receivers = (0..MAX_SLAVES).filter(|index| alive & there & 1 << index != 0);
                receivers.for_each(|index| self.heard[index].note(now + MS, Some(0)));
            }
        }

        fn judge(&mut self, pace: &StepPace) {
            let mut at = Judging::new(&self.entry, pace, self.word, &self.state);
            self.state.begin_judging();
            at.answered = 1;
            at.hunt(self.entry.joined as u16, &self.state);
            if let Some(active) = self.word.active() {
                self.state.hear(active, &self.heard[active.index()], &at);
                at.proof_since = self.state.proof_since(active);
                let confirmed = self.state.is_confirmed(active);
                self.state.end_hunt(confirmed);
            }
            for slot in Slot::all().filter(|slot| self.entry.joined as u16 & slot.bit() != 0) {
                self.state.hear(slot, &self.heard[slot.index()], &at);
                self.state.judge(slot, &at);
            }
            let (found, links) = (self.state.end_judging(), u16::MAX);
            let (word, entry, up, clock) = (self.word, &self.entry, self.state.up(), &ClockEntry::default());
            let at = AfterStep { word, entry, clock, found, up, links, is_drained: true };
            let Some((next, cause)) = decide(&at) else { return };
            self.state.set_hunting(cause == Cause::Unanswered && next.active().is_some());
            if next.switches() != self.word.switches() {
                self.state.set_turn(None);
                if let Some(active) = next.active() {
                    self.state.begin(active, pace.now);
                }
            }
            self.word = next;
        }
    }

    /// All slaves but the last are at a switch that loses its uplink: each of them receives what the others send.
    #[test]
    fn the_only_slave_that_works_is_reached_in_one_interval_for_each() {
        for slaves in 3..=8u8 {
            for primary in 0..slaves - 1 {
                let order = || (0..slaves).map(slot);
                let merit = || [slot(primary)].into_iter().chain(order());
                let joined = (1u16 << slaves) - 1;
                let entry = MonitorEntry {
                    joined: joined.into(),
                    turns: RoundRobin::new(order()).bits(),
                    merit: Rank::new(merit()).bits(),
                    ..entry()
                };
                let mut world =
                    World::new(entry, ActiveWord::default().next(Some(slot(primary)), None, joined));
                (0..100).for_each(|tick| world.tick(tick, joined));
                world.cut_off = joined >> 1;
                let step = |world: &mut World, step: u64| {
                    (0..20).for_each(|tick| world.tick(20 * step + tick, joined))
                };
                let mut now = 5;
                while world.word.active() == Some(slot(primary)) {
                    step(&mut world, now);
                    now += 1;
                }
                assert!(now <= 5 + 4, "{slaves} {primary}: the failure takes {now} steps");
                (0..u64::from(slaves) - 1).for_each(|number| step(&mut world, now + number));
                let last = slot(slaves - 1);
                assert_eq!(world.word.active(), Some(last), "{slaves} {primary}");
                (0..20).for_each(|number| {
                    step(&mut world, now + u64::from(slaves) + number - 1);
                    assert_eq!(world.word.active(), Some(last), "{slaves} {primary}");
                });
                // The uplink is back: all of them come up, and the primary takes over if it is preferred.
                world.cut_off = 0;
                (20..30).for_each(|number| step(&mut world, now + u64::from(slaves) + number - 1));
                assert_eq!((world.state.up(), world.state.doubted()), (joined, 0), "{slaves} {primary}");
            }
        }
    }

    proptest! {
        /// Whatever path is alive is found, within the turns of all slaves, and kept.
        #[test]
        fn a_living_path_becomes_active_and_stays(
            joined in 1u16.., alive: u16, active in proptest::option::of(0u8..16), usable: u16, missed_max in 1u64..5,
        ) {
            let joined = joined | active.map_or(0, |index| slot(index).bit());
            let order = || Slot::all().filter(|slot| joined & slot.bit() != 0);
            let entry = MonitorEntry {
                interval: 50 * MS,
                missed_max,
                joined: joined.into(),
                turns: RoundRobin::new(order()).bits(),
                first: order().next().map_or(0, Slot::index) as u64,
                merit: Rank::new(order()).bits(),
                ..entry()
            };
            let word = ActiveWord::default().next(active.map(slot), None, usable & joined);
            let mut world = World::new(entry, word);
            let rounds = 2 * (missed_max + 4) * 17;
            for tick in 0..5 * rounds {
                world.tick(tick, alive);
            }
            let settled = world.word;
            match settled.active() {
                Some(active) => prop_assert!(alive & joined & active.bit() != 0, "{settled:?}"),
                None => prop_assert_eq!(alive & joined, 0),
            }
            for tick in 5 * rounds..6 * rounds {
                world.tick(tick, alive);
                prop_assert_eq!(world.word.active(), settled.active());
            }
            prop_assert_eq!(world.state.late, 0);
        }

        /// Nothing changes while everything answers.
        #[test]
        fn a_healthy_bond_never_changes(active in 0u8..3, missed_max in 1u64..5, gap in 1u64..400) {
            let entry = MonitorEntry { missed_max, ..entry() };
            let word = word(Some(active), &[0, 1, 2]);
            let mut world = World::new(entry, word);
            // The CPU stands still for a while.
            for tick in (0..100).chain(100 + gap..200 + gap) {
                world.tick(tick, 0b111);
                prop_assert_eq!(world.word, word);
            }
        }
    }
}
