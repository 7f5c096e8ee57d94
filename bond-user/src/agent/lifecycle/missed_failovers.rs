//! What the data plane did while no agent looked.

use bond_common::{
    abi::ActiveWord,
    event::{DataPlaneEvent, EventRecord},
};
use bond_core::{GuardFailover, Time};

/// The changes of ACTIVE since an agent knew it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meanwhile {
    /// What it holds now.
    pub word: ActiveWord,
    /// The guard's failovers, the oldest first: when, and what it held then.
    pub failovers: Vec<(Time, ActiveWord)>,
    /// Changes that are in no record of EVENTS, which keeps the first hundred or so.
    pub unrecorded: u32,
}

impl Meanwhile {
    /// `records` are those of EVENTS, read after `word`; `switched_at` is GUARD's.
    pub fn new(
        known: ActiveWord,
        word: ActiveWord,
        records: impl IntoIterator<Item = EventRecord>,
        switched_at: u64,
    ) -> Self {
        let since_known = |word: ActiveWord| word.generation().wrapping_sub(known.generation());
        let changes = since_known(word);
        let failover = |record: EventRecord| match record.event()? {
            DataPlaneEvent::FailedOver(word) => Some((Time::from_nanos(record.at()), word)),
            DataPlaneEvent::HostMacLearned(_) => None,
        };
        let mut failovers: Vec<_> = records.into_iter().filter_map(failover).collect();
        // What an agent has heard of before it was gone, and what came after `word`, is not of this time.
        failovers.retain(|(_, word)| (1..=changes).contains(&since_known(*word)));
        failovers.sort_by_key(|(_, word)| since_known(*word));
        // Of those that found no room any more the last is known all the same.
        let switched_at = Time::from_nanos(switched_at);
        if failovers.last().is_some_and(|(at, last)| *at < switched_at && *last != word) {
            failovers.push((switched_at, word));
        }
        let recorded = u32::try_from(failovers.len()).unwrap_or(u32::MAX);
        Self { word, failovers, unrecorded: changes.saturating_sub(recorded) }
    }

    /// What the engine has to know of it.
    pub fn guard_failovers(&self) -> Vec<GuardFailover> {
        let failover = |(_, word): &(Time, ActiveWord)| {
            Some(GuardFailover { active: word.active()?, usable: word.usable() })
        };
        self.failovers.iter().filter_map(failover).collect()
    }
}

#[cfg(test)]
mod tests {
    use bond_common::{abi::Slot, mac::Mac};

    use super::*;

    fn word(generation: u32, active: u8) -> ActiveWord {
        let before = ActiveWord::from_bits(u64::from(generation.wrapping_sub(1)) << 32);
        before.next(Slot::new(active), None, 1 << active)
    }

    #[test]
    fn what_is_between_the_two_words_happened_meanwhile() {
        let record = |at, generation, active| {
            EventRecord::new(at, DataPlaneEvent::FailedOver(word(generation, active)))
        };
        let learned = EventRecord::new(3, DataPlaneEvent::HostMacLearned(Mac::BROADCAST));
        // (known, now, records -> generations of the failovers, unrecorded)
        type Row = (u32, u32, Vec<EventRecord>, Vec<u32>, u32);
        let table: Vec<Row> = vec![
            (7, 7, vec![], vec![], 0),
            (7, 7, vec![record(1, 7, 0)], vec![], 0),
            (7, 9, vec![record(1, 8, 1), learned, record(2, 9, 0)], vec![8, 9], 0),
            // One that came while this was read, and one that was known.
            (7, 8, vec![record(1, 7, 0), record(2, 8, 1), record(3, 9, 0)], vec![8], 0),
            // Two CPUs wrote at once.
            (7, 9, vec![record(2, 9, 0), record(1, 8, 1)], vec![8, 9], 0),
            // There was no more room, or something else changed the word.
            (7, 12, vec![record(1, 8, 1)], vec![8, 12], 3),
            (7, 12, vec![record(2, 8, 1)], vec![8], 4),
            (7, 12, vec![], vec![], 5),
            (u32::MAX, 1, vec![record(1, 0, 1), record(2, 1, 0)], vec![0, 1], 0),
        ];
        for (row, (known, now, records, expected, unrecorded)) in table.into_iter().enumerate() {
            let found = Meanwhile::new(word(known, 0), word(now, 0), records, 2);
            let generations: Vec<_> = found.failovers.iter().map(|(_, word)| word.generation()).collect();
            assert_eq!((generations, found.unrecorded), (expected, unrecorded), "row {row}");
            assert_eq!(found.guard_failovers().len(), found.failovers.len(), "row {row}");
        }
    }
}
