//! The words that the agent and the data plane both change, by compare-and-swap: ACTIVE and the turn of TICKS.

use std::sync::atomic::{AtomicU64, Ordering};

use bond_common::{abi::ActiveWord, clock::announce::ClaimedRounds};

/// A word that others change at the same time. The tests explore all orders in which the processors' stores may take
/// effect; so the protocol is written against this, not against the atomic.
pub(super) trait SharedWord {
    /// Returns the word; what was stored before it was is visible.
    fn load(&self) -> u64;

    /// Stores `new` if the word is still `seen`.
    ///
    /// # Errors
    /// The word that is there instead.
    fn exchange(&self, seen: u64, new: u64) -> Result<(), u64>;
}

impl SharedWord for AtomicU64 {
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Acquire)
    }

    fn exchange(&self, seen: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

/// Stores the next word in ACTIVE, if it still is `known`.
///
/// # Errors
/// The word that ACTIVE holds instead.
pub(super) fn exchange_active(
    active: &impl SharedWord,
    known: ActiveWord,
    next: ActiveWord,
) -> Result<(), ActiveWord> {
    active.exchange(known.bits(), next.bits()).map_err(ActiveWord::from_bits)
}

/// Changes ACTIVE, and asks `change` again where another writer was faster. Returns what was stored.
pub(super) fn update_active(
    active: &impl SharedWord,
    change: impl Fn(ActiveWord) -> ActiveWord,
) -> ActiveWord {
    let mut seen = active.load();
    loop {
        let next = change(ActiveWord::from_bits(seen));
        match active.exchange(seen, next.bits()) {
            Ok(()) => return next,
            Err(other) => seen = other,
        }
    }
}

/// Claims the round number `round` of the failover to `word`, of which `wanted` are wanted. False if that round was claimed,
/// or ACTIVE has changed since `word` was read.
pub(super) fn claim_round(turn: &impl SharedWord, word: ActiveWord, round: u8, wanted: u8) -> bool {
    let mut seen = turn.load();
    loop {
        let Some(claimed) = ClaimedRounds::from_bits(seen).claim_round(word, round, wanted) else {
            return false;
        };
        match turn.exchange(seen, claimed.bits()) {
            Ok(()) => return true,
            Err(other) => seen = other,
        }
    }
}

#[cfg(test)]
mod tests;
