//! Up to which change of ACTIVE failovers are on disk.
//!
//! GUARD says it to the next agent: what came later has no receipt, and is reported and counted by that agent. So the word
//! goes into GUARD not when ACTIVE is stored, but when the receipt is written.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bond_common::abi::ActiveWord;

use crate::sys::dataplane::MapMirror;

/// Whether a change of ACTIVE may be a failover, for which a receipt is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WordChange {
    None,
    MayFailOver,
}

/// Shared by the engine's thread, which changes and follows ACTIVE, and the worker, which writes receipts.
pub struct Ledger {
    mirror: Arc<MapMirror>,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    /// ACTIVE as the engine knows it.
    word: ActiveWord,
    /// Receipts that are begun and not written.
    receipts: u32,
    /// A receipt may be begun for `word`.
    may_begin: bool,
}

impl Open {
    fn is_none(&self) -> bool {
        self.receipts == 0 && !self.may_begin
    }
}

impl Ledger {
    /// Of a bond of which no receipt is open.
    pub fn new(mirror: Arc<MapMirror>) -> Self {
        Self { mirror, open: Mutex::default() }
    }

    /// The engine knows that ACTIVE is `word`.
    pub fn follow(&self, word: ActiveWord, change: WordChange) {
        let mut open = self.open();
        open.word = word;
        open.may_begin |= change == WordChange::MayFailOver;
        self.publish(&open);
    }

    /// A receipt is begun.
    pub fn begin(&self) {
        let mut open = self.open();
        open.receipts = open.receipts.saturating_add(1);
    }

    /// All receipts for what was followed are begun.
    pub fn settle(&self) {
        let mut open = self.open();
        if open.may_begin {
            open.may_begin = false;
            self.publish(&open);
        }
    }

    /// A receipt is on disk, or its loss was reported.
    pub fn finish(&self) {
        let mut open = self.open();
        open.receipts = open.receipts.saturating_sub(1);
        self.publish(&open);
    }

    fn publish(&self, open: &Open) {
        if open.is_none() {
            self.mirror.set_known(open.word);
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // Poisoned or not, its words are whole.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
