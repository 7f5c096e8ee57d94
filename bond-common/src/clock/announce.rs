//! Who announces the bond after a failover, and when: the agent and the tick share the rounds.

use crate::abi::ActiveWord;

/// The rounds of announcements that were begun since the last failover, as one word. The agent and the tick claim a round by
/// compare-and-swap of this word before they send it, so that each round is sent once.
///
/// ```text
///  63           32 31    24 23    16 15    8 7   0
/// | generation    | switches| rounds | wanted | 0  |
/// ```
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClaimedRounds(u64);

impl ClaimedRounds {
    /// Creates the word from the 64 bits that the map holds; every value is valid.
    pub const fn from_bits(word: u64) -> Self {
        Self(word)
    }

    /// Returns the 64 bits that the map holds.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the generation of ACTIVE that the rounds announce.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns [`ActiveWord::switches`] of the failover that the rounds announce.
    pub const fn switches(self) -> u8 {
        (self.0 >> 24) as u8
    }

    /// Returns the number of rounds that were claimed.
    pub const fn rounds(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Returns the number of rounds that were wanted when the first was claimed.
    pub const fn wanted(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Returns whether the rounds are of the failover that led to `word`.
    pub const fn is_of(self, word: ActiveWord) -> bool {
        self.switches() == word.switches()
    }

    /// The most changes of ACTIVE that are made, at the guard's pace, between a moment at which the word is read and the claim
    /// of a round of it.
    const AHEAD: u32 = 4096;

    /// Returns whether the rounds are of a failover after `word`: ACTIVE was changed, and the change announced, since `word` was
    /// read. A generation that is further ahead was stored by another process.
    pub const fn is_after(self, word: ActiveWord) -> bool {
        let ahead = self.generation().wrapping_sub(word.generation());
        !self.is_of(word) && ahead != 0 && ahead <= Self::AHEAD
    }

    /// Returns the turn by which an agent claims its round number `round`, from 1, of the failover to `word`, of which `wanted`
    /// are wanted. None if the round was claimed, or ACTIVE has changed since `word` was read.
    #[must_use]
    pub const fn claim_round(self, word: ActiveWord, round: u8, wanted: u8) -> Option<Self> {
        // The number of rounds does not grow for ever; who sends so many sends each.
        let is_claimed = self.is_of(word) && self.rounds() >= round && round < u8::MAX;
        if is_claimed || self.is_after(word) { None } else { Some(self.claim(word, wanted)) }
    }

    /// Returns the turn that claims the next round: the first of `wanted` after a failover, else the one after those that were
    /// claimed. A number that is set later is that of the next failover.
    #[must_use]
    pub const fn claim(self, word: ActiveWord, wanted: u8) -> Self {
        let (rounds, wanted) =
            if self.is_of(word) { (self.rounds().saturating_add(1), self.wanted()) } else { (1, wanted) };
        let (generation, switches) = (word.generation() as u64, word.switches() as u64);
        Self(generation << 32 | switches << 24 | (rounds as u64) << 16 | (wanted as u64) << 8)
    }

    /// Returns the turn after a failover of which no round is wanted: one that is wanted later is of the next failover.
    #[must_use]
    pub const fn skip(self, word: ActiveWord) -> Self {
        Self((word.generation() as u64) << 32 | (word.switches() as u64) << 24)
    }

    /// Returns whether the tick reports this round to the agent: the first and the last. EVENTS has no room for all.
    pub const fn is_reported(self) -> bool {
        (self.rounds() == 1) | (self.rounds() >= self.wanted())
    }

    /// Returns whether the tick sends a round now. The first round is due at once, each other one `interval` after the last.
    ///
    /// `wanted` is the number of rounds of a failover that is not announced yet.
    pub const fn is_due(self, word: ActiveWord, wanted: u8, times: RoundTimes) -> bool {
        if word.active().is_none() || wanted == 0 || self.is_after(word) {
            return false;
        }
        if !self.is_of(word) {
            return true;
        }
        self.rounds() < self.wanted() && times.now.wrapping_sub(times.claimed_at) >= times.interval
    }
}

impl core::fmt::Debug for ClaimedRounds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClaimedRounds")
            .field("generation", &self.generation())
            .field("switches", &self.switches())
            .field("rounds", &self.rounds())
            .finish()
    }
}

/// The times that decide whether a round is due, in nanoseconds; the first two of CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTimes {
    /// The time of this tick.
    pub now: u64,
    /// The time of the last claim, by the agent or a tick.
    pub claimed_at: u64,
    /// From one round to the next.
    pub interval: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Slot;

    const fn times(now: u64) -> RoundTimes {
        RoundTimes { now, claimed_at: 100, interval: 50 }
    }

    fn active(word: ActiveWord, slot: u8) -> ActiveWord {
        word.next(Slot::new(slot), None, 3)
    }

    #[test]
    fn the_first_round_is_due_after_a_failover_and_the_others_in_their_pace() {
        let word = active(ActiveWord::default(), 0);
        let first = ClaimedRounds::default();
        assert!(first.is_due(word, 1, times(100)) && !first.is_due(word, 0, times(100)));
        let second = first.claim(word, 2);
        assert_eq!((second.rounds(), second.generation(), second.is_of(word)), (1, 1, true));
        for (now, wanted, due) in [(149, 2, false), (150, 2, true), (150, 1, true), (150, 0, false)] {
            assert_eq!(second.is_due(word, wanted, times(now)), due, "{wanted} rounds at {now}");
        }
        let third = second.claim(word, 9);
        assert_eq!((third.rounds(), third.wanted()), (2, 2));
        assert!(!third.is_due(word, 9, times(1000)), "more are wanted of the next failover");
    }

    #[test]
    fn the_first_and_the_last_round_are_reported() {
        let word = active(ActiveWord::default(), 0);
        for wanted in [1, 2, 5] {
            let mut turn = ClaimedRounds::default();
            let reported = (1..=wanted).filter(|_| {
                turn = turn.claim(word, wanted);
                turn.is_reported()
            });
            let expected = if wanted == 1 { vec![1] } else { vec![1, wanted] };
            assert_eq!(reported.collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn a_change_of_usable_slots_is_not_announced_and_one_there_and_back_is() {
        let word = active(ActiveWord::default(), 0);
        let turn = ClaimedRounds::default().claim(word, 1);
        let usable = word.next(Slot::new(0), None, 1);
        assert!(!turn.is_due(usable, 1, times(1000)));
        let back = active(active(word, 1), 0);
        assert!(turn.is_due(back, 1, times(100)));
        assert_eq!(turn.claim(back, 1).rounds(), 1);
    }

    #[test]
    fn a_failover_of_which_no_round_is_wanted_is_never_announced() {
        let word = active(ActiveWord::default(), 0);
        let skipped = ClaimedRounds::default().skip(word);
        assert!(skipped.is_of(word) && !skipped.is_due(word, 3, times(1000)));
        assert_eq!(skipped.claim(word, 3).rounds(), 1, "an agent may still announce it");
        assert!(skipped.is_due(active(word, 1), 3, times(100)));
    }

    #[test]
    fn a_word_that_was_read_before_the_announced_failover_claims_no_round() {
        let stale = active(ActiveWord::default(), 0);
        let turn = ClaimedRounds::default().claim(active(stale, 1), 3);
        assert!(turn.is_after(stale) && !turn.is_due(stale, 3, times(1000)));
        assert_eq!(turn.claim_round(stale, 1, 3), None);
        // Another process has set the generation back, by more than one that was read late may be.
        let mut later = active(stale, 1);
        for slot in [0, 1].into_iter().cycle().take(2 * 4096 + 2) {
            later = active(later, slot);
        }
        assert!(!ClaimedRounds::default().claim(later, 3).is_after(stale));
    }

    #[test]
    fn an_agent_claims_the_rounds_that_no_tick_has_claimed() {
        let word = active(ActiveWord::default(), 0);
        let first = ClaimedRounds::default().claim_round(word, 1, 3).unwrap();
        assert_eq!((first.rounds(), first.wanted()), (1, 3));
        assert_eq!(first.claim_round(word, 1, 3), None);
        assert_eq!(first.claim_round(word, 2, 3).map(ClaimedRounds::rounds), Some(2));
        let mut all = first;
        for _ in 0..300 {
            all = all.claim(word, 3);
        }
        assert!(all.claim_round(word, 255, 3).is_some() && all.claim_round(word, 254, 3).is_none());
    }

    #[test]
    fn nothing_is_due_without_an_active_slave() {
        let none = active(ActiveWord::default(), 0).next(None, None, 0);
        assert!(!ClaimedRounds::default().is_due(none, 3, times(1000)));
    }
}
