//! What the data plane did while no agent followed: because none ran, or because it was stopped.

use bond_common::{
    abi::{ActiveWord, GuardEntry},
    event::{AnnouncedRound, DataPlaneEvent, EventRecord},
};
use bond_core::{ChangedBy, DataPlaneChange, Time};

use crate::agent::bond::misdirections::Misdirection;

/// The changes of ACTIVE since an agent knew it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MissedFailovers {
    /// What it holds now.
    pub word: ActiveWord,
    /// The recorded changes by the data plane, the oldest first.
    pub changes: Vec<MissedChange>,
    /// The rounds of announcements that ticks reported, in the order in which they were sent.
    pub rounds: Vec<TickRound>,
    /// Frames for the bond that arrived on backups.
    pub misdirected: Vec<Misdirection>,
    /// Changes that are neither in [`Self::changes`] nor seen by what ACTIVE holds now: EVENTS keeps the first hundred or
    /// so.
    pub unrecorded: u32,
    /// Another process has stored ACTIVE: its generation cannot be counted from the one that was known.
    pub is_foreign: bool,
}

/// A change of ACTIVE by the data plane: when, what it held then, and who changed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissedChange {
    pub at: Time,
    pub word: ActiveWord,
    pub by: ChangedBy,
}

impl MissedChange {
    /// Returns the change that a record of EVENTS reports; None for other records.
    pub fn of(record: &EventRecord) -> Option<Self> {
        let (word, by) = match record.event()? {
            DataPlaneEvent::FailedOver(word) => (word, ChangedBy::Guard),
            DataPlaneEvent::Ticked(word, cause) => (word, ChangedBy::Tick(cause)),
            DataPlaneEvent::HostMacLearned(_)
            | DataPlaneEvent::Announced(_)
            | DataPlaneEvent::Misdirected(_)
            | DataPlaneEvent::Flooded(_) => return None,
        };
        Some(Self { at: Time::from_nanos(record.at()), word, by })
    }

    /// Returns the change for the engine.
    pub fn for_engine(&self) -> DataPlaneChange {
        DataPlaneChange::new(self.word, self.by)
    }
}

/// A round of announcements that ticks have sent, and when its last frame was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRound {
    pub at: Time,
    pub round: AnnouncedRound,
}

impl TickRound {
    /// Returns the round that a record of EVENTS reports; None for other records.
    pub fn of(record: &EventRecord) -> Option<Self> {
        let DataPlaneEvent::Announced(round) = record.event()? else { return None };
        Some(Self { at: Time::from_nanos(record.at()), round })
    }

    /// Returns whether it announces the failover with this generation of ACTIVE, or a later one.
    pub fn is_since(&self, generation: u32) -> bool {
        self.round.generation.wrapping_sub(generation) < 1 << 31
    }
}

/// What is known of the time in which no agent followed.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// ACTIVE, as an agent knew it last.
    pub word: ActiveWord,
    /// When that was; zero if it is not known.
    pub at: Time,
    /// GUARD's time of the last failover.
    pub switched_at: Time,
    pub now: Time,
}

impl MissedFailovers {
    /// Compares `word` with what was known. `records` are those of EVENTS, read after `word`.
    pub fn new(known: Known, word: ActiveWord, records: impl IntoIterator<Item = EventRecord>) -> Self {
        // The guard pauses after each failover, so a clock that has come so far allows for no more.
        let most = known.now.as_nanos() / u128::from(GuardEntry::PAUSE) + 1;
        let since_known =
            |word: ActiveWord| word.changes_since(known.word).filter(|changes| u128::from(*changes) <= most);
        let changes = since_known(word).filter(|changes| *changes > 0 || word == known.word);
        let (mut missed, mut rounds, mut misdirected) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            missed.extend(MissedChange::of(&record));
            rounds.extend(TickRound::of(&record));
            misdirected.extend(Misdirection::of(&record));
        }
        // What an agent has heard of before, and what came after `word`, is not of this time.
        missed.retain(|change| {
            since_known(change.word)
                .is_some_and(|number| number > 0 && changes.is_none_or(|changes| number <= changes))
        });
        missed.sort_by_key(|change| since_known(change.word));
        let Some(changes) = changes else {
            return Self { word, changes: missed, rounds, misdirected, unrecorded: 0, is_foreign: true };
        };
        // Of those that found no room any more the last is known all the same.
        let (last_at, last_word) = missed.last().map_or((known.at, known.word), |last| (last.at, last.word));
        if last_word != word && !last_at.is_zero() && last_at < known.switched_at {
            missed.push(MissedChange { at: known.switched_at, word, by: ChangedBy::Guard });
        }
        // As the engine compares it: what a tick stored besides is no failover.
        let failovers = missed.iter().rev().find(|change| change.for_engine().is_failover());
        let last_active = failovers.map_or(known.word, |last| last.word).active();
        let recorded = u32::try_from(missed.len()).unwrap_or(u32::MAX);
        let seen_now = u32::from(last_active != word.active());
        let unrecorded = changes.saturating_sub(recorded).saturating_sub(seen_now);
        Self { word, changes: missed, rounds, misdirected, unrecorded, is_foreign: false }
    }

    /// What the engine has to know of it.
    pub fn for_engine(&self) -> Vec<DataPlaneChange> {
        self.changes.iter().map(MissedChange::for_engine).collect()
    }
}

#[cfg(test)]
mod tests {
    use bond_common::{abi::Slot, clock::decide::Cause, mac::Mac};

    use super::*;

    fn word(generation: u32, active: u8) -> ActiveWord {
        let before = ActiveWord::from_bits(u64::from(generation.wrapping_sub(1)) << 32);
        before.next(Slot::new(active), None, 1 << active)
    }

    fn known(generation: u32, at: u64, switched_at: u64) -> Known {
        Known {
            word: word(generation, 0),
            at: Time::from_nanos(at),
            switched_at: Time::from_nanos(switched_at),
            now: Time::from_millis(60_000),
        }
    }

    #[test]
    fn missed_failovers_are_the_difference_of_two_words() {
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
            // The change from slot 1 to slot 0 is seen by what ACTIVE holds now.
            (7, 12, vec![record(2, 8, 1)], vec![8], 3),
            (7, 12, vec![], vec![], 5),
            (u32::MAX, 1, vec![record(1, 0, 1), record(2, 1, 0)], vec![0, 1], 0),
        ];
        for (row, (before, now, records, expected, unrecorded)) in table.into_iter().enumerate() {
            let found = MissedFailovers::new(known(before, 0, 2), word(now, 0), records);
            let generations: Vec<_> = found.changes.iter().map(|change| change.word.generation()).collect();
            assert_eq!((generations, found.unrecorded), (expected, unrecorded), "row {row}");
            assert!(!found.is_foreign, "row {row}");
        }
    }

    #[test]
    fn rounds_of_announcements_are_no_changes_and_belong_to_generations() {
        let round = |generation| AnnouncedRound {
            generation,
            sent: 2,
            macs: 0,
            is_capped: false,
            failed: 0,
            number: 1,
        };
        let records = [
            EventRecord::new(1, DataPlaneEvent::FailedOver(word(8, 1))),
            EventRecord::new(2, DataPlaneEvent::Announced(round(8))),
        ];
        let found = MissedFailovers::new(known(7, 0, 0), word(8, 1), records);
        let expected = TickRound { at: Time::from_nanos(2), round: round(8) };
        assert_eq!((found.changes.len(), found.rounds, found.unrecorded), (1, vec![expected], 0));
        for (of, generation, is_since) in
            [(8, 8, true), (9, 8, true), (7, 8, false), (1, u32::MAX, true), (u32::MAX, 1, false)]
        {
            let round = TickRound { at: Time::ZERO, round: round(of) };
            assert_eq!(round.is_since(generation), is_since, "{of} {generation}");
        }
    }

    #[test]
    fn a_switch_there_and_back_around_a_ticks_bookkeeping_is_counted() {
        let ticked = EventRecord::new(1, DataPlaneEvent::Ticked(word(9, 1), Cause::Bookkeeping));
        let found = MissedFailovers::new(known(7, 0, 0), word(10, 0), [ticked]);
        assert_eq!((found.changes.len(), found.unrecorded), (1, 2));
    }

    #[test]
    fn the_last_failover_is_known_by_its_time_alone() {
        let since = |at, switched_at| {
            let found = MissedFailovers::new(known(7, at, switched_at), word(9, 0), []);
            (found.changes, found.unrecorded)
        };
        let last = MissedChange { at: Time::from_nanos(6), word: word(9, 0), by: ChangedBy::Guard };
        assert_eq!(since(5, 6), (vec![last], 1));
        // It was before the word was known, or that time is not.
        assert_eq!(since(6, 5), (vec![], 2));
        assert_eq!(since(0, 5), (vec![], 2));
    }

    #[test]
    fn a_foreign_generation_is_no_number_of_changes() {
        let record = EventRecord::new(1, DataPlaneEvent::FailedOver(word(8, 1)));
        // Set back, set back by one, the same with another slot, and far ahead of what a minute allows for.
        for (now, active) in [(3, 0), (6, 1), (7, 1), (1_000_000, 1), (u32::MAX, 0)] {
            let found = MissedFailovers::new(known(7, 0, 0), word(now, active), [record]);
            assert!(found.is_foreign, "{now}");
            assert_eq!((found.unrecorded, found.changes.len()), (0, 1), "{now}");
        }
    }
}
