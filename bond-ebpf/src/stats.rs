//! Counting.

use bond_common::counters::{DropReason, SlotStats};

use crate::maps;

/// This CPU's counters of one slot.
pub struct Stats(*mut SlotStats);

impl Stats {
    #[inline(always)]
    pub fn of(index: u32) -> Option<Self> {
        maps::stats(index).map(Self)
    }

    /// The counters, for the length of one statement.
    #[inline(always)]
    pub fn get(&mut self) -> &mut SlotStats {
        // SAFETY: this CPU's own copy, which nobody else writes while the program runs: BPF programs of one
        // CPU do not interrupt each other at these hooks.
        unsafe { &mut *self.0 }
    }

    #[inline(always)]
    pub fn drop(&mut self, reason: DropReason) {
        self.get().drops[reason as usize] += 1;
    }
}
