//! Each failover has a receipt, or is counted as one without.

use std::collections::BTreeSet;

use bond_common::abi::ActiveWord;

use crate::world::World;

/// What is known of the failovers of one bond since it was created.
#[derive(Debug, Default)]
pub struct Records {
    first: ActiveWord,
    last: ActiveWord,
    /// Changes of the active slave since `first`.
    failovers: u64,
    /// Those of bonds of this name that are gone.
    former: u64,
    /// Generations that have a receipt.
    recorded: BTreeSet<u32>,
    /// Failovers when receipts were read last: the file keeps the last hundred.
    read_at: u64,
    /// Failovers without a receipt, as agents that have ended have counted them.
    unrecorded: u64,
}

impl Records {
    /// Begins with a bond that has appeared, or is gone.
    pub fn begin(&mut self, word: Option<ActiveWord>) {
        let former = self.failovers();
        let word = word.unwrap_or_default();
        *self = Self { first: word, last: word, former, ..Self::default() };
    }

    /// Returns the number of failovers of all bonds of this name.
    pub fn failovers(&self) -> u64 {
        self.former + self.failovers
    }

    /// An agent has ended that knew of so many failovers without a receipt.
    pub fn agent_ends(&mut self, unrecorded: u64) {
        self.unrecorded += unrecorded;
    }

    /// Notes what ACTIVE holds. Returns what does not hold.
    pub fn observe(&mut self, word: ActiveWord) -> Option<String> {
        let former = std::mem::replace(&mut self.last, word);
        self.failovers += u64::from(word.switches().wrapping_sub(former.switches()));
        let went_back = word.changes_since(former).is_none()
            || word.generation() == former.generation() && word != former;
        went_back.then(|| format!("ACTIVE went from {former:?} to {word:?}"))
    }

    /// Returns whether receipts should be read before the file is cut.
    pub fn is_to_be_read(&self) -> bool {
        self.failovers >= self.read_at + 50
    }
}

/// Reads the receipts of a bond.
pub fn read(world: &mut World<'_>, number: usize) {
    let Some(bond) = world.bonds.get_mut(number) else { return };
    bond.records.read_at = bond.records.failovers;
    let Some(_) = &bond.words else { return };
    let receipts = match world.machine.receipts(&bond.name) {
        Ok(receipts) => receipts,
        Err(error) => return world.fail(error),
    };
    let mut seen = BTreeSet::new();
    for receipt in receipts {
        let generation = receipt.generation;
        if !seen.insert(generation) {
            return world.fail(format!("there are two receipts of generation {generation}"));
        }
        if generation > bond.records.first.generation() {
            bond.records.recorded.insert(generation);
        }
    }
}

/// Checks that each failover is on record or counted.
pub fn check(world: &World<'_>, number: usize) -> Option<String> {
    let bond = world.bonds.get(number)?;
    let present = world.process.as_ref().map_or(0, |process| process.agent().unrecorded(&bond.name));
    let (recorded, unrecorded) = (bond.records.recorded.len() as u64, bond.records.unrecorded + present);
    let failovers = bond.records.failovers;
    if failovers > recorded + unrecorded {
        return Some(format!(
            "{failovers} failovers, of which {recorded} have a receipt and {unrecorded} are counted: {:?}",
            bond.records.recorded
        ));
    }
    (recorded > failovers).then(|| format!("{recorded} receipts of {failovers} failovers"))
}
