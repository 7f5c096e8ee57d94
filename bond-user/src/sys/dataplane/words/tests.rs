//! All orders in which the stores of the agent's threads and of the processors' programs may take effect, by loom.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use bond_common::abi::Slot;
use loom::{
    sync::{
        Arc,
        atomic::{AtomicU64 as LoomU64, Ordering},
    },
    thread,
};

use super::*;

impl SharedWord for LoomU64 {
    fn load(&self) -> u64 {
        Self::load(self, Ordering::Acquire)
    }

    fn exchange(&self, seen: u64, new: u64) -> Result<(), u64> {
        self.compare_exchange(seen, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

/// A word whose compare-and-swap is a comparison, and then a store.
struct Torn(LoomU64);

impl SharedWord for Torn {
    fn load(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn exchange(&self, seen: u64, new: u64) -> Result<(), u64> {
        let found = self.0.load(Ordering::Acquire);
        if found != seen {
            return Err(found);
        }
        self.0.store(new, Ordering::Release);
        Ok(())
    }
}

fn to(word: ActiveWord, slot: u8) -> ActiveWord {
    word.next(Slot::new(slot), None, 0b111)
}

/// Two processors fail over by one attempt each, as the guard does, while the agent changes the word in a loop. Returns the
/// number of executions.
fn change_active<W: SharedWord + Send + Sync + 'static>(new: fn(u64) -> W) -> usize {
    let executions = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&executions);
    loom::model(move || {
        counted.fetch_add(1, SeqCst);
        let first = to(ActiveWord::default(), 0);
        let active = Arc::new(new(first.bits()));
        let processors = [1, 2].map(|slot| {
            let active = Arc::clone(&active);
            thread::spawn(move || {
                let seen = ActiveWord::from_bits(active.load());
                u32::from(exchange_active(&*active, seen, to(seen, slot)).is_ok())
            })
        });
        let stored = update_active(&*active, |word| to(word, 3));
        let failovers: u32 = processors.map(|processor| processor.join().unwrap()).iter().sum();
        let last = ActiveWord::from_bits(active.load());
        assert_eq!(last.changes_since(first), Some(failovers + 1), "each change is in the generation");
        assert!(stored.changes_since(first).is_some_and(|changes| changes > 0));
    });
    executions.load(SeqCst)
}

/// The agent and the tick claim the same two rounds. Returns the number of executions.
fn claim_rounds<W: SharedWord + Send + Sync + 'static>(new: fn(u64) -> W) -> usize {
    let executions = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&executions);
    loom::model(move || {
        counted.fetch_add(1, SeqCst);
        let word = to(ActiveWord::default(), 0);
        let turn = Arc::new(new(0));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let claimers = [1, 2].map(|_| {
            let (turn, sent) = (Arc::clone(&turn), Arc::clone(&sent));
            thread::spawn(move || {
                for round in [1, 2] {
                    if claim_round(&*turn, word, round, 2) {
                        sent.lock().unwrap().push(round);
                    }
                }
            })
        });
        for claimer in claimers {
            claimer.join().unwrap();
        }
        let mut sent = sent.lock().unwrap().clone();
        sent.sort_unstable();
        assert_eq!(sent, [1, 2], "each round is sent once");
        assert_eq!(ClaimedRounds::from_bits(turn.load()).rounds(), 2);
    });
    executions.load(SeqCst)
}

#[test]
fn no_change_of_active_is_lost_in_any_order_of_stores() {
    assert!(change_active(LoomU64::new) > 100);
}

#[test]
fn each_round_is_claimed_once_in_any_order_of_stores() {
    assert!(claim_rounds(LoomU64::new) > 20);
}

#[test]
#[should_panic(expected = "each change is in the generation")]
fn a_compare_and_swap_that_is_two_steps_loses_a_change_of_active() {
    change_active(|word| Torn(LoomU64::new(word)));
}

#[test]
#[should_panic(expected = "each round is sent once")]
fn a_compare_and_swap_that_is_two_steps_sends_a_round_twice() {
    claim_rounds(|word| Torn(LoomU64::new(word)));
}
