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
        let active = lap.word.active()?;
        if self.epoch != lap.entry.epoch {
            self.epoch = lap.entry.epoch;
            (self.of, self.echo, self.learned) = (0, 0, 0);
            (self.heard_at, self.round_at, self.backups_due) = (0, 0, 0);
            (self.failed, self.answering, self.tried, self.silent) = (0, 0, 0, 0);
        }
        let of = ((lap.word.switches() as u64) << 8) + active.index() as u64 + 1;
        if self.of != of {
            (self.of, self.last, self.last_tick) = (of, lap.now, lap.tick);
            (self.asked, self.due, self.since) = (0, lap.now, lap.now);
        }
        // What another slave had in a slot does not concern the one that has it now.
        self.failed &= lap.entry.joined;
        self.answering &= lap.entry.joined;
        match PathMethod::from_number(lap.entry.method) {
            PathMethod::Echo => self.echo = 1,
            PathMethod::Arp => self.echo = 0,
            PathMethod::Auto => {}
        }
        Some(active)
    }

    /// Nanoseconds from one probe of the active slave that counts to the next.
    #[inline(always)]
    pub const fn pace(&self, entry: &PathEntry) -> u64 {
        if self.echo == 0 && entry.interval < PathEntry::ARP_INTERVAL {
            PathEntry::ARP_INTERVAL
        } else {
            entry.interval
        }
    }

    /// Takes what the active slave has heard.
    #[inline(always)]
    pub fn hear(&mut self, active: Slot, heard: &PathHeard, lap: &PathLap<'_>) {
        let at = heard.at();
        if at > self.last {
            (self.last, self.last_tick) = (at, lap.tick.wrapping_sub(1));
            (self.asked, self.tried, self.silent, self.heard_at) = (0, 0, 0, at);
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

    /// Notes what a backup has heard when it is asked again at `now`, and whether its device has a link.
    #[inline(always)]
    pub fn note_backup(&mut self, slot: Slot, heard: &PathHeard, has_link: bool, (proof, now): (u64, u64)) {
        // As for other arrays, the verifier needs a mask that the compiler cannot remove.
        let index = black_box(slot.index()) % MAX_SLAVES;
        let bit = slot.bit() as u64;
        let (Some(asked_at), Some(streak), Some(&failed_at)) =
            (self.asked_at.get_mut(index), self.streaks.get_mut(index), self.failed_at.get(index))
        else {
            return;
        };
        let has_answered = *asked_at != 0 && heard.arp_at >= *asked_at;
        *streak = (*streak + 1) * has_answered as u64;
        *asked_at = if has_link { now } else { 0 };
        let is_proven = *streak >= proof && heard.arp_at > failed_at && has_answered;
        let answered = bit * has_answered as u64;
        self.answering |= answered;
        self.linked = (self.linked & !bit) | (bit * has_link as u64);
        if answered != 0 && heard.arp_at > self.heard_at {
            self.heard_at = heard.arp_at;
        }
        // One that never answers as a backup gets another chance with another link.
        if is_proven || !has_link && self.answering & bit == 0 {
            self.recover(slot, now);
        }
    }

    /// Ends the failure of a path.
    #[inline(always)]
    fn recover(&mut self, slot: Slot, now: u64) {
        let bit = slot.bit() as u64;
        if self.failed & bit != 0 {
            self.failed &= !bit;
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
                proof: 1,
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
                self.state.note_backup(slot, &heard, true, (self.entry.proof, self.now));
                self.ask(slot, self.probed);
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
                self.state.silent = 1;
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
