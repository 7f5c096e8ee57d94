//! The number of failovers that no agent has recorded.

use bond_common::abi::ActiveWord;

/// Changes of the active slave since the last one that an agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// The number of failovers.
    pub failovers: u32,
    /// There may be more: ACTIVE counts changes of the slave modulo 64.
    pub or_more: bool,
}

impl Unrecorded {
    /// The counter of [`ActiveWord::switches`] wraps at this number.
    const WRAPS_AT: u8 = 64;

    /// Counts from the word that an agent read last to the word of now.
    pub fn between(known: ActiveWord, now: ActiveWord) -> Self {
        let failovers = now.switches().wrapping_sub(known.switches()) % Self::WRAPS_AT;
        // Each failover is a change of the word; the others change what is usable or drains.
        let or_more = now.changes_since(known).is_none_or(|changes| changes >= Self::WRAPS_AT.into());
        Self { failovers: failovers.into(), or_more }
    }

    /// Returns whether there was none.
    pub fn is_none(self) -> bool {
        self == Self { failovers: 0, or_more: false }
    }
}

#[cfg(test)]
mod tests {
    use bond_common::abi::Slot;

    use super::*;

    #[test]
    fn failovers_are_counted_and_other_changes_of_the_word_are_not() {
        let slot = |index| Slot::new(index);
        let known = ActiveWord::default().next(slot(0), None, 3);
        let none = Unrecorded { failovers: 0, or_more: false };
        assert_eq!(Unrecorded::between(known, known), none);
        let usable = known.next(slot(0), None, 1);
        assert_eq!((Unrecorded::between(known, usable), none.is_none()), (none, true));
        let mut word = usable.next(slot(1), None, 2).next(None, None, 0);
        assert_eq!(Unrecorded::between(known, word), Unrecorded { failovers: 2, or_more: false });
        for number in 0..70 {
            word = word.next(slot(number % 2), None, 3);
        }
        assert_eq!(Unrecorded::between(known, word), Unrecorded { failovers: 8, or_more: true });
        let foreign = Unrecorded::between(usable, known);
        assert!(foreign.or_more && !foreign.is_none());
    }
}
