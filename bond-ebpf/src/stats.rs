//! The counters of this CPU.

use bond_common::counters::{DropReason, SlotStats};

use crate::maps;

/// The counters of one slot on this CPU.
pub struct Stats(*mut SlotStats);

impl Stats {
    #[inline(always)]
    pub fn of(index: u32) -> Option<Self> {
        maps::stats(index).map(Self)
    }

    /// Returns the counters, for the length of one statement.
    #[inline(always)]
    pub fn get(&mut self) -> &mut SlotStats {
        // SAFETY: the copy of this CPU, which only this program writes while it runs: BPF programs of one CPU do not
        // interrupt each other at these hooks.
        unsafe { &mut *self.0 }
    }

    #[inline(always)]
    pub fn drop(&mut self, reason: DropReason) {
        if let Some(count) = self.get().drops.get_mut(reason as usize) {
            *count += 1;
        }
    }
}
