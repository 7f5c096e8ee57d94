//! When the tick probes paths, and what it concludes from the answers.
//!
//! ```text
//!            heard                       heard
//!   +-------------------+      +---------------------------+
//!   v                   |      v                           |
//!  fine --one miss--> doubt: all slaves are asked at once --path_misses--> judged
//!                                                                            |
//!            a backup has answered: it takes over                      <-----+
//!            none has, and one was never heard as a backup: it is tried <----+
//!            none has, and all were tried: the target is silent; nothing <---+
//! ```
//!
//! The slaves are compared by one round of ARP requests, which leave in the same tick: a target that returns, or one that
//! is slow, answers all of them or none. Silence counts in time and in ticks: a CPU that stood still has not listened.
//!
//! Verifiers of some kernels (6.1) follow each combination of the bits that branches set, so what is done for each slave
//! has few branches.

use core::hint::black_box;

use crate::{
    abi::{ActiveWord, MAX_SLAVES, Rank, Slot},
    clock::decide::first,
    path::layout::{PathEntry, PathHeard, PathMethod, PathState},
};

/// The time from one round to the next, in nanoseconds, after the first [`BURST`] of them.
const ROUND: u64 = PathEntry::ARP_INTERVAL;
/// So many rounds may follow each other without a pause.
const BURST: u64 = 3;
/// So many echoes have to come back in succession before echoes are what counts.
const LEARNED: u64 = 3;
/// The time from one probe of a slave that is suspected to the next, in nanoseconds, if `path_interval` is longer.
const FAST: u64 = 20_000_000;
/// The time from one reading of the counters of the active slave to the next, in nanoseconds.
const COUNT_INTERVAL: u64 = 50_000_000;
/// A slave that received unicast before is suspected after this silence, in nanoseconds, if it has sent [`ENOUGH`] frames.
const SUSPICIOUS: u64 = 100_000_000;
const ENOUGH: u64 = 10;
/// A backup that has never answered is probed seldom after so many probes.
const MUTED_AFTER: u64 = 10;
/// The time from one probe of such a backup to the next, in nanoseconds.
const SELDOM: u64 = 60_000_000_000;
/// After this silence of all slaves requests are broadcast: the target may have another MAC address. Nanoseconds.
const STALE: u64 = 3_000_000_000;

/// One tick, as the path monitor sees it.
#[derive(Clone, Copy, Debug)]
pub struct PathLap<'a> {
    /// PATH_MONITOR.
    pub entry: &'a PathEntry,
    /// ACTIVE.
    pub word: ActiveWord,
    /// The time of the tick: CLOCK_MONOTONIC in nanoseconds.
    pub now: u64,
    /// The number of the tick.
    pub tick: u64,
    /// Nanoseconds from one tick to the next.
    pub period: u64,
}

/// What the active slave sends in a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probes {
    /// An echo to each target.
    pub echo: bool,
    /// An ARP request to each target.
    pub arp: bool,
}

impl PathState {
    /// Follows the settings and the active slave, and returns that. Each begins with a full measure of silence.
    #[inline(always)]
    pub fn follow(&mut self, lap: &PathLap<'_>) -> Option<Slot> {
        if self.epoch != lap.entry.epoch {
            self.epoch = lap.entry.epoch;
            (self.of, self.echo, self.learned) = (0, 0, 0);
            (self.heard_at, self.round_at, self.backups_due) = (0, 0, 0);
            (self.failed, self.answering, self.tried, self.silent) = (0, 0, 0, 0);
            // What is there already needs no proof.
            (self.unproven, self.lost, self.usable, self.joined) = (0, 0, 0, lap.entry.joined);
            (self.muted, self.unanswered) = (0, [0; MAX_SLAVES]);
        }
        self.doubt(lap);
        let active = lap.word.active()?;
        let of = ((lap.word.switches() as u64) << 8) + active.index() as u64 + 1;
        if self.of != of {
            (self.of, self.last, self.last_tick) = (of, lap.now, lap.tick);
            (self.asked, self.due, self.since) = (0, lap.now, lap.now);
            (self.counted_at, self.received_at, self.suspected_at, self.fast) = (0, 0, 0, 0);
        }
        // What another slave had in a slot does not concern the one that has it now.
        self.answering &= lap.entry.joined;
        match PathMethod::from_number(lap.entry.method) {
            PathMethod::Echo => self.echo = 1,
            PathMethod::Arp => self.echo = 0,
            PathMethod::Auto => {}
        }
        Some(active)
    }

    /// Under `failback=proven`: slaves that joined, or are not usable any more, have to prove their paths. Also one that is
    /// drained, because its link may be lost until it is used again. Without branches, as the verifier wants it.
    #[inline(always)]
    fn doubt(&mut self, lap: &PathLap<'_>) {
        let (usable, joined) = (lap.word.usable() as u64, lap.entry.joined);
        let lost = self.usable & !usable | joined & !self.joined;
        (self.usable, self.joined, self.seen_at) = (usable, joined, lap.now);
        let wants_proof = 0u64.wrapping_sub((lap.entry.proof != 0) as u64);
        // What another slave had in a slot does not concern the one that has it now.
        let unproven = self.unproven & joined & wants_proof;
        self.failed &= joined & !(self.unproven & !unproven);
        self.unproven = unproven;
        self.lost = (self.lost | lost) & joined;
        let new = lost & joined & !self.failed & wants_proof;
        self.failed |= new;
        self.unproven |= new;
        self.failed_changed = if new == 0 { self.failed_changed } else { lap.now };
    }

    /// Nanoseconds from one probe of the active slave that counts to the next.
    #[inline(always)]
    pub const fn pace(&self, entry: &PathEntry) -> u64 {
        let interval = if self.fast != 0 && entry.interval > FAST { FAST } else { entry.interval };
        if self.echo == 0 && interval < PathEntry::ARP_INTERVAL { PathEntry::ARP_INTERVAL } else { interval }
    }

    /// Returns whether it is time to read the counters of the active slave, for [`Self::take_counts`].
    #[inline(always)]
    pub const fn is_count_due(&self, lap: &PathLap<'_>) -> bool {
        lap.now.saturating_sub(self.counted_at) >= COUNT_INTERVAL
    }

    /// Takes the frames that the active slave has sent, and the unicast frames that it has received, less the answers of the
    /// targets, modulo 2^64. If it sends and receives none where it did before, it is probed fast. That alone leaves no slave:
    /// other hosts may have ended.
    #[inline(always)]
    pub fn take_counts(&mut self, sent: u64, received: u64, lap: &PathLap<'_>) {
        let is_first = self.counted_at == 0;
        self.counted_at = lap.now;
        // What is read between the counts of an answer seems to be less.
        let has_received = received.wrapping_sub(self.received) as i64 > 0;
        if is_first || has_received {
            self.received_at = if is_first { 0 } else { lap.now };
            (self.received, self.sent_then, self.sent_since) = (received, sent, 0);
            (self.suspected_at, self.fast) = (0, 0);
            return;
        }
        self.sent_since = sent.saturating_sub(self.sent_then);
        let silence = lap.now.saturating_sub(self.received_at);
        let has_sent = self.sent_since >= ENOUGH && silence >= SUSPICIOUS;
        if self.received_at == 0 || self.suspected_at != 0 || !has_sent {
            return;
        }
        self.suspected_at = lap.now;
        self.suspicions += 1;
        // A full measure of silence from now on, unless the present one ends earlier.
        let (misses, before) = (lap.entry.misses, self.pace(lap.entry));
        self.fast = misses;
        if lap.now + misses * self.pace(lap.entry) < self.last + misses * before {
            (self.last, self.last_tick) = (lap.now, lap.tick);
            (self.asked, self.due) = (0, lap.now);
        } else {
            self.fast = 0;
        }
    }

    /// Notes that no slave is heard: the target is dead rather than a path.
    #[inline(always)]
    pub fn note_silence(&mut self) {
        (self.silent, self.fast) = (1, 0);
    }

    /// Takes what the active slave has heard.
    #[inline(always)]
    pub fn hear(&mut self, active: Slot, heard: &PathHeard, lap: &PathLap<'_>) {
        let at = heard.at();
        if at > self.last {
            (self.last, self.last_tick) = (at, lap.tick.wrapping_sub(1));
            (self.asked, self.tried, self.silent, self.heard_at) = (0, 0, 0, at);
            self.fast = self.fast.saturating_sub(1);
            self.recover(active, lap.now);
        }
        let echo_at = if heard.echo_at > self.since { heard.echo_at } else { self.since };
        let has_lost_echo = lap.now.saturating_sub(echo_at) > (lap.entry.misses + 1) * lap.entry.interval;
        let arp_answers = heard.arp_at >= self.round_at && self.round_at > echo_at;
        if lap.entry.method == PathMethod::Auto as u64 && self.echo != 0 && has_lost_echo && arp_answers {
            (self.echo, self.learned) = (0, 0);
            self.fallbacks += 1;
        }
    }

    /// Returns whether the active slave has missed an answer.
    #[inline(always)]
    const fn is_in_doubt(&self, lap: &PathLap<'_>) -> bool {
        self.asked > 0 && self.silence(lap) >= 2 * self.pace(lap.entry)
    }

    /// For how long the active slave is silent, rounded up by half a period, because ticks come early and late.
    #[inline(always)]
    const fn silence(&self, lap: &PathLap<'_>) -> u64 {
        lap.now.saturating_sub(self.last) + lap.period / 2
    }

    /// Returns whether all slaves are asked at once, and notes that they are. The rate is limited.
    #[inline(always)]
    pub fn takes_round(&mut self, lap: &PathLap<'_>) -> bool {
        let is_open = self.round_at > self.last && lap.now.saturating_sub(self.round_at) < ROUND;
        if is_open || !self.is_in_doubt(lap) {
            return false;
        }
        let earliest = lap.now.saturating_sub((BURST - 1) * ROUND);
        let budget = if self.budget > earliest { self.budget } else { earliest };
        if budget > lap.now {
            return false;
        }
        self.budget = budget + ROUND;
        (self.round_at, self.round_tick) = (lap.now, lap.tick);
        self.backups_due = lap.now + PathEntry::BACKUP_INTERVAL;
        true
    }

    /// Returns whether the backups are asked, as they are once in a second, and notes that they are.
    #[inline(always)]
    pub const fn takes_backups(&mut self, lap: &PathLap<'_>) -> bool {
        if lap.now < self.backups_due {
            return false;
        }
        self.backups_due = lap.now + PathEntry::BACKUP_INTERVAL;
        true
    }

    /// Returns what the active slave sends, and notes that it is due; None if nothing is.
    ///
    /// `is_resolved`: the MAC address of a target is known, without which it can be sent no echo.
    #[inline(always)]
    pub fn takes_probes(
        &mut self,
        heard: &PathHeard,
        is_resolved: bool,
        lap: &PathLap<'_>,
    ) -> Option<Probes> {
        if lap.now + lap.period / 2 < self.due {
            return None;
        }
        let is_auto = lap.entry.method == PathMethod::Auto as u64;
        if is_auto && self.echo == 0 && self.due > self.since {
            let came_back =
                heard.echo_at + self.pace(lap.entry) + lap.period >= self.due && heard.echo_at > 0;
            self.learned = if came_back { self.learned + 1 } else { 0 };
            self.echo = (self.learned >= LEARNED) as u64;
        }
        let echo = is_resolved && (self.echo != 0 || is_auto);
        let arp = self.echo == 0 || !is_resolved;
        let pace = if is_resolved { self.pace(lap.entry) } else { ROUND };
        // A tick that is late does not shorten the time to the next probe.
        let next = self.due + pace;
        self.due = if next > lap.now { next } else { lap.now + pace };
        Some(Probes { echo, arp })
    }

    /// Notes that the active slave was asked by so many frames.
    #[inline(always)]
    pub const fn asked(&mut self, sent: u64, refused: u64) {
        self.sent += sent;
        self.refused += refused;
        self.asked += (sent > 0) as u64;
    }

    /// Returns whether the target may have another MAC address than the known one.
    #[inline(always)]
    pub const fn is_stale(&self, now: u64) -> bool {
        now.saturating_sub(self.heard_at) > STALE
    }

    /// Notes what a backup has heard when it is asked again at `now`, and whether its device has a link. Returns whether it is
    /// asked: one that never answers is asked seldom.
    #[inline(always)]
    pub fn note_backup(
        &mut self,
        slot: Slot,
        heard: &PathHeard,
        has_link: bool,
        (proof, now): (u64, u64),
    ) -> bool {
        // As for other arrays, the verifier needs a mask that the compiler cannot remove.
        let index = black_box(slot.index()) % MAX_SLAVES;
        let bit = slot.bit() as u64;
        let (Some(asked_at), Some(streak), Some(&failed_at), Some(unanswered)) = (
            self.asked_at.get_mut(index),
            self.streaks.get_mut(index),
            self.failed_at.get(index),
            self.unanswered.get_mut(index),
        ) else {
            return false;
        };
        let is_due =
            self.muted & bit == 0 || now.saturating_sub(*asked_at) >= SELDOM || heard.arp_at >= *asked_at;
        if has_link && !is_due {
            return false;
        }
        let has_answered = *asked_at != 0 && heard.arp_at >= *asked_at;
        let was_lost = self.lost & bit != 0;
        *streak = (*streak + 1) * (has_answered & !was_lost) as u64;
        self.lost &= !bit;
        // While no slave is heard, it is the target that does not answer, not this backup.
        let is_missing =
            *asked_at != 0 && !has_answered && self.heard_at >= *asked_at && self.answering & bit == 0;
        let keeps = (has_link & !has_answered & !was_lost) as u64;
        *unanswered = (*unanswered + is_missing as u64) * keeps;
        self.muted = (self.muted & !bit) | (bit * (*unanswered >= MUTED_AFTER) as u64);
        *asked_at = if has_link { now } else { 0 };
        let is_proven = *streak >= proof && heard.arp_at > failed_at && has_answered;
        // Its link may have been lost, and come back, while it was not usable anyway.
        let unproven = (bit * (!has_link & (proof != 0)) as u64) & !self.failed;
        (self.failed, self.unproven) = (self.failed | unproven, self.unproven | unproven);
        let answered = bit * has_answered as u64;
        self.answering |= answered;
        self.linked = (self.linked & !bit) | (bit * has_link as u64);
        if answered != 0 && heard.arp_at > self.heard_at {
            self.heard_at = heard.arp_at;
        }
        // One that never answers as a backup gets another chance with another link, unless a proof is wanted.
        if is_proven || !has_link && self.answering & bit == 0 && proof == 0 {
            self.recover(slot, now);
        }
        true
    }

    /// Ends the failure of a path.
    #[inline(always)]
    fn recover(&mut self, slot: Slot, now: u64) {
        let bit = slot.bit() as u64;
        if self.failed & bit != 0 {
            self.failed &= !bit;
            self.unproven &= !bit;
            self.failed_changed = now;
        }
    }

    /// Returns whether the active slave is to be judged: it is silent for long enough, in time and in ticks, and the
    /// others were asked since it was heard last. Where no slave was ever heard, none is judged.
    #[inline(always)]
    pub const fn is_due(&self, lap: &PathLap<'_>) -> bool {
        let (misses, pace) = (lap.entry.misses, self.pace(lap.entry));
        let laps = lap.tick.wrapping_sub(self.last_tick);
        let wanted = match (misses * pace).checked_div(lap.period) {
            Some(laps) => laps,
            None => return false,
        };
        let few_asked = self.asked + 1 < misses;
        let has_round = self.round_at > self.last && lap.tick != self.round_tick;
        self.heard_at != 0
            && has_round
            && !few_asked
            && self.silence(lap) >= misses * pace
            && laps >= misses
            && 2 * laps >= wanted
    }

    /// Returns whether a slave that has never answered as a backup may be tried: the others have had their time to answer.
    #[inline(always)]
    pub const fn may_hunt(&self, lap: &PathLap<'_>) -> bool {
        lap.now.saturating_sub(self.round_at) + lap.period / 2 >= self.pace(lap.entry)
    }

    /// Returns the slaves that have not been tried, and have never answered as backups.
    #[inline(always)]
    pub const fn untested(&self, lap: &PathLap<'_>) -> u16 {
        (lap.entry.joined & self.linked & !self.answering & !self.tried) as u16
    }

    /// Returns 1 if a backup has answered the last round, else 0.
    #[inline(always)]
    pub const fn has_answered(&self, heard: &PathHeard) -> u16 {
        (heard.arp_at >= self.round_at) as u16
    }

    /// Notes that the active slave is left for another one.
    #[inline(always)]
    pub fn leave(&mut self, active: Slot, to: Slot, now: u64) {
        let bit = active.bit() as u64;
        self.failed = (self.failed | bit) & !(to.bit() as u64);
        self.unproven &= !(bit | to.bit() as u64);
        self.tried |= bit;
        self.failovers += 1;
        self.failed_changed = now;
        let index = black_box(active.index()) % MAX_SLAVES;
        if let (Some(failed_at), Some(streak)) = (self.failed_at.get_mut(index), self.streaks.get_mut(index))
        {
            (*failed_at, *streak) = (now, 0);
        }
    }
}

/// What [`choose`] goes by.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// ACTIVE.
    pub word: ActiveWord,
    /// The order in which slots are tried.
    pub rank: Rank,
    /// Slots that are used only while no other one is up: drained and damped slaves.
    pub avoided: u16,
    /// Backups that have answered the last round.
    pub answered: u16,
    /// Slots that may be tried although nothing is known of their paths.
    pub untested: u16,
    /// [`PathState::failed_at`]
    pub failed_at: &'a [u64; MAX_SLAVES],
}

/// Returns the slave that takes over from the active one, which is silent; None if no path is known to be better.
#[inline(always)]
pub fn choose(at: &Candidates<'_>) -> Option<Slot> {
    let Candidates { word, rank, avoided, answered, untested, failed_at } = *at;
    let others = match word.active() {
        Some(active) => !active.bit(),
        None => return None,
    };
    let answered = answered & others;
    let (preferred, ready) = (answered & !avoided & word.usable(), answered & !avoided);
    let known = if preferred != 0 {
        preferred
    } else if ready != 0 {
        ready
    } else {
        answered
    };
    if known != 0 {
        return first(rank, known);
    }
    longest_failed(rank, untested & others & !avoided, failed_at)
}

/// Returns the slot of the mask that failed longest ago; of those that never failed the first of the rank.
#[inline(always)]
fn longest_failed(rank: Rank, mask: u16, failed_at: &[u64; MAX_SLAVES]) -> Option<Slot> {
    if mask == 0 {
        return None;
    }
    let (mut best, mut best_at, mut place) = (0u64, u64::MAX >> 1, 0);
    while place < MAX_SLAVES as u32 {
        let index = rank.at(place).index();
        let at = failed_at.get(black_box(index) % MAX_SLAVES).copied().unwrap_or_default();
        let is_in = (mask >> index & 1) as u64;
        // Without a branch: both are less than 2^63.
        let is_better = is_in & (at.wrapping_sub(best_at) >> 63);
        let select = 0u64.wrapping_sub(is_better);
        best = index as u64 & select | best & !select;
        best_at = at & select | best_at & !select;
        place += 1;
    }
    Slot::new(best as u8)
}

/// Returns ACTIVE after the active slave was left for another one. The former one drains: its path may be dead in one
/// direction only.
#[inline(always)]
pub const fn switched(word: ActiveWord, to: Slot) -> ActiveWord {
    let left = match word.active() {
        Some(active) => active.bit(),
        None => 0,
    };
    word.next(Some(to), word.active(), word.usable() & !left | to.bit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const PERIOD: u64 = 10 * MS;
    /// An answer takes so long.
    const ROUND_TRIP: u64 = MS / 10;

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    /// A bond and its network, in which frames pass or not.
    struct Net {
        entry: PathEntry,
        state: PathState,
        heard: [PathHeard; MAX_SLAVES],
        word: ActiveWord,
        now: u64,
        tick: u64,
        /// Slots whose paths work.
        paths: u16,
        /// Slots at which a backup may ask by a MAC address of its own.
        probed: u16,
        /// The target returns echoes.
        returns: bool,
        /// What the active slave has sent and received in the data plane.
        sent: u64,
        received: u64,
        probes_of_backups: u64,
        /// ARP requests that left, and failovers with their times.
        requests: u64,
        failovers: Vec<(u64, usize)>,
    }

    impl Net {
        fn new(slaves: u8, interval: u64, method: PathMethod) -> Self {
            let joined = (1u16 << slaves) - 1;
            let entry = PathEntry {
                interval: interval * MS,
                misses: 3,
                method: method as u64,
                joined: joined.into(),
                epoch: 1,
                ..PathEntry::default()
            };
            Self {
                entry,
                state: PathState::default(),
                heard: Default::default(),
                word: ActiveWord::default().next(Some(slot(0)), None, joined),
                now: 1000 * MS,
                tick: 0,
                paths: joined,
                probed: joined,
                returns: true,
                sent: 0,
                received: 0,
                probes_of_backups: 0,
                requests: 0,
                failovers: Vec::new(),
            }
        }

        fn ask(&mut self, slot: Slot, may_pass: u16) {
            self.requests += 1;
            if self.paths & may_pass & slot.bit() != 0 {
                self.heard[slot.index()].arp_at = self.now + ROUND_TRIP;
            }
        }

        fn ask_backups(&mut self, active: Slot) {
            let backups = self.entry.joined as u16 & !active.bit();
            for slot in Slot::all().filter(|slot| backups & slot.bit() != 0) {
                let heard = self.heard[slot.index()];
                if self.state.note_backup(slot, &heard, true, (self.entry.proof, self.now)) {
                    self.probes_of_backups += 1;
                    self.ask(slot, self.probed);
                }
            }
        }

        /// One tick, as `bond-ebpf` makes it.
        fn lap(&mut self) {
            let entry = self.entry;
            let lap =
                PathLap { entry: &entry, word: self.word, now: self.now, tick: self.tick, period: PERIOD };
            let Some(active) = self.state.follow(&lap) else { return };
            let heard = self.heard[active.index()];
            self.state.hear(active, &heard, &lap);
            if self.state.is_count_due(&lap) {
                self.state.take_counts(self.sent, self.received, &lap);
            }
            if self.state.is_due(&lap) && self.judge(active, &lap) {
                return;
            }
            if self.state.takes_round(&lap) {
                self.ask_backups(active);
                self.ask(active, u16::MAX);
            } else if self.state.takes_backups(&lap) {
                self.ask_backups(active);
            }
            let is_resolved = self.state.heard_at != 0;
            if let Some(probes) = self.state.takes_probes(&heard, is_resolved, &lap) {
                if probes.arp {
                    self.ask(active, u16::MAX);
                }
                if probes.echo && self.returns && self.paths & active.bit() != 0 {
                    self.heard[active.index()].echo_at = self.now + ROUND_TRIP;
                }
                self.state.asked(1, 0);
            }
        }

        fn judge(&mut self, active: Slot, lap: &PathLap<'_>) -> bool {
            let answers = |slot: Slot| self.state.has_answered(&self.heard[slot.index()]) << slot.index();
            let answered = Slot::all().fold(0, |mask, slot| mask | answers(slot)) & self.entry.joined as u16;
            let untested = if self.state.may_hunt(lap) { self.state.untested(lap) } else { 0 };
            let rank = Rank::new([]);
            let failed_at = &self.state.failed_at;
            let at = Candidates { word: self.word, rank, avoided: 0, answered, untested, failed_at };
            let Some(to) = choose(&at) else {
                self.state.note_silence();
                return false;
            };
            self.state.leave(active, to, self.now);
            self.word = switched(self.word, to);
            self.failovers.push((self.now, to.index()));
            true
        }

        fn run(&mut self, ms: u64) -> &mut Self {
            for _ in 0..ms / 10 {
                (self.now, self.tick) = (self.now + PERIOD, self.tick + 1);
                self.lap();
            }
            self
        }

        /// The failovers, with the ms since a time.
        fn since(&self, time: u64) -> Vec<(u64, usize)> {
            self.failovers.iter().map(|(at, slot)| ((at - time) / MS, *slot)).collect()
        }
    }

    #[test]
    fn a_dead_path_is_left_for_one_that_answers_within_three_intervals_and_a_tick() {
        for (method, interval, most) in [
            (PathMethod::Auto, 10, 40),
            (PathMethod::Echo, 10, 40),
            (PathMethod::Auto, 100, 310),
            (PathMethod::Arp, 10, 610),
        ] {
            let mut net = Net::new(3, interval, method);
            net.run(5000);
            assert_eq!(net.state.echo, (method != PathMethod::Arp) as u64, "{method:?}");
            net.paths = 0b100;
            let died = net.now;
            net.run(2000);
            let [(after, 2)] = net.since(died)[..] else { panic!("{method:?}: {:?}", net.since(died)) };
            assert!(after <= most, "{method:?} {interval}: {after}");
            assert_eq!(net.state.failed, 0b001, "the backup in slot 1 was not used");
        }
    }

    #[test]
    fn a_failed_path_that_answers_is_not_failed_any_more() {
        let mut net = Net::new(2, 10, PathMethod::Auto);
        net.run(3000).paths = 0b10;
        net.run(5000);
        assert_eq!((net.state.failed, net.failovers.len()), (0b01, 1));
        net.paths = 0b11;
        net.run(2500);
        assert_eq!((net.state.failed, net.failovers.len()), (0, 1));
        // Proven: so many answers in succession, one in a second.
        net.entry.proof = 3;
        net.paths = 0b01;
        net.run(3000).paths = 0b11;
        net.run(2500);
        assert_eq!(net.state.failed, 0b10);
        net.run(2500);
        assert_eq!(net.state.failed, 0);
    }

    /// Has the active slave send 20 frames and receive as many as its path lets through, each 10 ms.
    fn talk(net: &mut Net, ms: u64, answers: u64) {
        for _ in 0..ms / 10 {
            let active = net.word.active().unwrap();
            net.sent += 20;
            net.received += answers * (net.paths & active.bit() != 0) as u64;
            net.run(10);
        }
    }

    #[test]
    fn a_slave_that_sends_and_hears_nothing_is_probed_fast() {
        let mut net = Net::new(2, 1000, PathMethod::Echo);
        net.run(3000);
        talk(&mut net, 3000, 1);
        assert_eq!((net.state.suspicions, net.state.fast), (0, 0));
        let died = net.now;
        net.paths = 0b10;
        talk(&mut net, 2000, 1);
        let [(after, 1)] = net.since(died)[..] else { panic!("{:?}", net.since(died)) };
        assert!(after <= 260, "{after}");
        // The new active slave has not received anything before: it is not suspected.
        assert_eq!((net.state.suspicions, net.state.suspected_at), (1, 0));
    }

    #[test]
    fn suspicion_alone_leaves_no_slave_and_ends_with_answers() {
        let mut net = Net::new(2, 1000, PathMethod::Echo);
        net.run(3000);
        // It has never received anything.
        talk(&mut net, 5000, 0);
        assert_eq!(net.state.suspicions, 0);
        talk(&mut net, 1000, 1);
        talk(&mut net, 150, 0);
        assert!(net.state.suspicions == 1 && net.state.fast > 0, "{}", net.state.fast);
        // Its path answers: three fast probes, and the slow ones again.
        talk(&mut net, 5000, 0);
        assert_eq!((net.state.suspicions, net.state.fast, net.failovers.len()), (1, 0, 0));
        assert!(net.state.suspected_at != 0);
        talk(&mut net, 100, 1);
        assert_eq!(net.state.suspected_at, 0);
        // All paths are silent: the target is.
        net.paths = 0;
        talk(&mut net, 5000, 1);
        assert_eq!((net.state.silent, net.state.fast, net.failovers.len()), (1, 0, 0));
    }

    #[test]
    fn a_suspicion_delays_no_failover() {
        for interval in [10, 20, 50, 100, 300] {
            for method in [PathMethod::Echo, PathMethod::Arp] {
                let after = [0, 1].map(|answers| {
                    let mut net = Net::new(2, interval, method);
                    net.run(3000);
                    talk(&mut net, 2000, answers);
                    let died = net.now;
                    net.paths = 0b10;
                    talk(&mut net, 3000, answers);
                    net.since(died)[0].0
                });
                assert!(after[1] <= after[0], "{interval} {method:?}: {after:?}");
            }
        }
    }

    #[test]
    fn a_link_that_returns_needs_a_proof_if_one_is_wanted() {
        for (proof, unproven) in [(0, 0), (3, 0b01)] {
            let mut net = Net::new(2, 10, PathMethod::Auto);
            net.entry.proof = proof;
            net.run(3000);
            assert_eq!(
                (net.state.failed, net.state.unproven),
                (0, 0),
                "what is there at the start needs none"
            );
            // The guard leaves the active slave, whose link returns at once; its port forwards after five seconds.
            net.word = net.word.next(Some(slot(1)), None, 0b10);
            net.paths = 0b10;
            net.run(10);
            assert_eq!((net.state.failed, net.state.unproven), (unproven, unproven), "{proof}");
            net.run(5000).paths = 0b11;
            net.run(2500);
            assert_eq!(net.state.failed, unproven, "two answers are not enough");
            net.run(2000);
            assert_eq!((net.state.failed, net.state.unproven, net.failovers.len()), (0, 0, 0), "{proof}");
        }
    }

    #[test]
    fn a_slave_that_joins_is_unproven_until_no_proof_is_wanted() {
        let mut net = Net::new(2, 10, PathMethod::Auto);
        net.entry.proof = 3;
        net.run(3000);
        net.entry.joined = 0b111;
        net.run(1000);
        assert_eq!((net.state.failed, net.state.unproven), (0b100, 0b100));
        net.entry.proof = 0;
        net.run(10);
        assert_eq!((net.state.failed, net.state.unproven), (0, 0));
        // One that has failed is no unproven one.
        net.entry.proof = 3;
        net.paths = 0b110;
        net.run(100);
        assert_eq!((net.state.failed, net.state.unproven), (0b001, 0), "{:?}", net.failovers);
    }

    #[test]
    fn a_silent_target_moves_nothing() {
        for method in [PathMethod::Auto, PathMethod::Echo, PathMethod::Arp] {
            let mut net = Net::new(3, 10, method);
            net.run(5000).paths = 0;
            let before = net.requests;
            net.run(30_000);
            assert_eq!((net.failovers.len(), net.state.silent), (0, 1), "{method:?}");
            // Three slaves, each at most once in 200 ms, and those that are due anyway.
            assert!(net.requests - before <= 3 * 5 * 32 + 160, "{method:?}: {}", net.requests - before);
            net.paths = 0b111;
            net.run(5000);
            assert_eq!((net.failovers.len(), net.state.silent), (0, 0), "{method:?}");
        }
    }

    #[test]
    fn a_target_that_was_never_heard_is_no_reason_to_move() {
        let mut net = Net::new(3, 10, PathMethod::Auto);
        net.paths = 0;
        net.run(30_000);
        assert_eq!(net.failovers, []);
        // One that only a backup hears.
        net.paths = 0b010;
        net.run(3000);
        assert_eq!(net.failovers.iter().map(|(_, slot)| *slot).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn slaves_that_cannot_be_probed_as_backups_are_tried_once_each() {
        let mut net = Net::new(4, 10, PathMethod::Auto);
        net.probed = 0;
        net.run(3000).paths = 0b1000;
        let died = net.now;
        net.run(5000);
        let found: Vec<_> = net.failovers.iter().map(|(_, slot)| *slot).collect();
        assert_eq!(found, [1, 2, 3]);
        assert!(net.since(died)[0].0 <= 40, "{:?}", net.since(died));
        // All of them are silent: each is tried once more, the one that failed longest ago first, and then none.
        net.paths = 0;
        net.run(20_000);
        let found: Vec<_> = net.failovers.iter().map(|(_, slot)| *slot).collect();
        assert_eq!(found, [1, 2, 3, 0, 1, 2]);
        assert_eq!(net.state.silent, 1);
    }

    #[test]
    fn a_backup_that_never_answers_is_probed_seldom() {
        let mut net = Net::new(2, 100, PathMethod::Echo);
        net.probed = 0;
        net.run(20_000);
        assert_eq!((net.state.muted, net.probes_of_backups), (0b10, 11));
        net.run(100_000);
        assert!((12..=13).contains(&net.probes_of_backups), "{}", net.probes_of_backups);
        // Its NIC takes the address now: it answers the next one, and is probed as others are.
        net.probed = 0b10;
        net.run(61_000);
        assert_eq!((net.state.muted, net.state.answering), (0, 0b10));
        // One that has answered is not muted, whatever becomes of it; and while all are silent, none is.
        net.paths = 0b01;
        net.run(30_000);
        assert_eq!(net.state.muted, 0);
        let mut net = Net::new(2, 100, PathMethod::Echo);
        net.run(500).paths = 0;
        net.run(30_000);
        assert_eq!(net.state.muted, 0);
    }

    #[test]
    fn echoes_that_stop_are_replaced_by_requests_and_come_back() {
        let mut net = Net::new(2, 10, PathMethod::Auto);
        net.returns = false;
        net.run(5000);
        assert_eq!((net.state.echo, net.failovers.len()), (0, 0));
        net.returns = true;
        net.run(2000);
        assert_eq!(net.state.echo, 1);
        net.returns = false;
        let before = net.requests;
        net.run(5000);
        assert_eq!((net.state.echo, net.state.fallbacks, net.failovers.len()), (0, 1, 0));
        assert!(net.requests - before < 50, "{}", net.requests - before);
    }

    #[test]
    fn a_cpu_that_stood_still_is_no_silence() {
        let mut net = Net::new(2, 10, PathMethod::Auto);
        net.run(3000);
        for stop in [30, 100, 5000] {
            // The first probe after that is answered, as are all others.
            net.now += stop * MS;
            net.run(1000);
            assert_eq!(net.failovers, [], "{stop} ms");
        }
        // A single probe that is lost, and a tick after it that comes late.
        net.paths = 0b10;
        net.run(10).paths = 0b11;
        net.now += 15 * MS;
        net.run(500);
        assert_eq!(net.failovers, []);
    }

    #[test]
    fn the_choice_goes_by_answers_then_by_the_time_of_failures() {
        let failed_at = &mut [0; MAX_SLAVES];
        failed_at[..4].copy_from_slice(&[0, 30, 20, 10]);
        let of = |answered, untested, avoided, usable| {
            let word = ActiveWord::default().next(Some(slot(0)), None, usable);
            let rank = Rank::new([slot(2)]);
            let at = Candidates { word, rank, avoided, answered, untested, failed_at };
            choose(&at).map(Slot::index)
        };
        for (row, (answered, untested, avoided, usable, expected)) in [
            (0b1110, 0, 0, 0b1111, Some(2)),
            (0b1010, 0, 0, 0b1111, Some(1)),
            // Usable before one in updelay, that before an avoided one, and that before one that nothing is known of.
            (0b1110, 0, 0, 0b1001, Some(3)),
            (0b0110, 0, 0b0100, 0b1001, Some(1)),
            (0b0100, 0b1000, 0b0100, 0b1111, Some(2)),
            (0, 0b1110, 0, 0b1111, Some(3)),
            (0, 0b10110, 0, 0b1111, Some(4)),
            (0, 0b1110, 0b1000, 0b1111, Some(2)),
            (0b0001, 0b0001, 0, 0b1111, None),
            (0, 0, 0, 0b1111, None),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(of(answered, untested, avoided, usable), expected, "row {row}");
        }
        let word = ActiveWord::default().next(Some(slot(0)), None, 0b0101);
        let next = switched(word, slot(1));
        assert_eq!((next.active(), next.draining(), next.usable()), (Some(slot(1)), Some(slot(0)), 0b0110));
    }
}
