//! Which stations the active slave has heard since a failover.

use crate::abi::ActiveWord;

/// The most stations that HEARD holds. More of them in one failover are not noted.
pub const MOST_HEARD: usize = 1024;

/// A value of HEARD: when a MAC address was first received since a failover, and [`ActiveWord::switches`] of that failover, as
/// one word: nanoseconds of CLOCK_MONOTONIC whose lowest six bits are the counter.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstHeard(u64);

impl FirstHeard {
    const SWITCHES: u64 = 0x3f;

    /// Creates the word of a frame that is received at `now` by the active slave of `word`.
    pub const fn new(now: u64, word: ActiveWord) -> Self {
        Self(now & !Self::SWITCHES | word.switches() as u64 & Self::SWITCHES)
    }

    /// Returns the time since the failover to `word`, within 64 ns; None if the frame was received before that failover.
    pub const fn since(self, word: ActiveWord) -> Option<u64> {
        if self.0 & Self::SWITCHES == word.switches() as u64 { Some(self.0 & !Self::SWITCHES) } else { None }
    }
}

// SAFETY: one 64-bit word: every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for FirstHeard {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Slot;

    #[test]
    fn a_word_is_of_one_failover() {
        let word = ActiveWord::default().next(Slot::new(0), None, 3);
        let next = word.next(Slot::new(1), None, 3);
        let heard = FirstHeard::new(1_000_063, word);
        assert_eq!((heard.since(word), heard.since(next)), (Some(1_000_000), None));
        // The usable slots do not matter.
        assert_eq!(heard.since(word.next(Slot::new(0), None, 1)), Some(1_000_000));
    }
}
