//! Changes of ACTIVE: those of the engine thread, and those of the data plane, which it follows.

use std::collections::VecDeque;

use bond_common::{
    abi::{ActiveWord, MAX_SLAVES, Slot},
    event::{DataPlaneEvent, EventRecord},
    names,
};
use bond_core::{
    ChangedBy, Time,
    event::{Event, FoundPaths},
};

use super::bond::Running;
use crate::{
    agent::bond::{
        ledger::WordChange,
        misdirections::Misdirection,
        missed_failovers::{Known, MissedChange, MissedFailovers, TickRound},
        receipt_writer::Made,
        recorder::Entry,
    },
    report::{
        moment::monotonic as now,
        wording::{self, MisdirectedAddress, MissedFrames},
    },
    sys::dataplane::{DeviceReader, Events, MapMirror},
};

/// When the steps of a decision were done, for the record of a failover.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecisionTimes {
    /// The trigger was sent, or was due.
    pub trigger: Time,
    /// The engine received it.
    pub handled: Time,
    pub decided: Time,
}

impl DecisionTimes {
    /// Returns the times of a decision without a trigger.
    pub fn at(now: Time) -> Self {
        Self { trigger: now, handled: now, decided: now }
    }
}

/// A store to ACTIVE.
#[derive(Clone, Copy, Debug)]
pub(super) struct Switched {
    pub at: Time,
    pub generation: u32,
    pub made: Made,
}

impl Switched {
    /// Returns a switch that was decided at these times.
    fn by_agent(times: DecisionTimes, word: ActiveWord, at: Time) -> Self {
        let DecisionTimes { trigger, handled, decided } = times;
        let made = Made::ByAgent {
            detect: handled.saturating_sub(trigger),
            decide: decided.saturating_sub(handled),
            switch: at.saturating_sub(decided),
        };
        Self { at, generation: word.generation(), made }
    }

    /// Returns a change by the data plane, or if its time is zero at an unknown time, that is followed at `now`.
    fn by_data_plane(change: MissedChange, now: Time) -> Self {
        let MissedChange { at, word, by } = change;
        let at = if at.is_zero() { now } else { at.min(now) };
        let made = Made::ByDataPlane { by, notified: now.saturating_sub(at) };
        Self { at, generation: word.generation(), made }
    }
}

/// What the data plane, or another process, did to ACTIVE before the engine decided on it.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Failovers that the engine receives late, the oldest first.
    earlier: VecDeque<Switched>,
    /// The last change.
    last: Option<Switched>,
    /// Changes without a record just before the last failover.
    unrecorded: u32,
    /// It happened while no agent ran.
    is_adoption: bool,
}

impl Followed {
    /// Returns the next failover that the engine reports, and whether no agent received it when it happened.
    pub fn next(&mut self) -> Option<(Switched, bool)> {
        match self.earlier.pop_front() {
            Some(earlier) => Some((earlier, true)),
            None => Some((self.last?, self.is_adoption)),
        }
    }

    pub fn is_adoption(&self) -> bool {
        self.is_adoption
    }

    /// Returns the generation of the next failover, if one is known.
    pub fn next_generation(&self) -> Option<u32> {
        let next = self.earlier.front().or(self.last.as_ref());
        next.map(|next| next.generation)
    }

    /// Returns the changes without a record, once: with the last failover.
    pub fn take_unrecorded(&mut self, is_late: bool) -> u32 {
        let is_last = !is_late || self.earlier.is_empty() && self.is_adoption;
        if is_last { std::mem::take(&mut self.unrecorded) } else { 0 }
    }
}

/// What is known of the changes of ACTIVE.
pub(super) struct Follower {
    /// The last store of this thread.
    pub switch: Switched,
    /// The last store of the data plane.
    pub followed: Switched,
    records: Option<Box<dyn Events>>,
    /// Records of failovers that are after what ACTIVE is known to be.
    unfollowed: Vec<EventRecord>,
    /// What the engine knows of the path monitor's findings, without their time; None if it has not been notified yet.
    pub paths: Option<FoundPaths>,
    /// The MAC addresses by which backups are probed, as the worker knows; None while nothing is probed.
    pub probed: Option<[u64; MAX_SLAVES]>,
}

impl Follower {
    pub fn new(records: Option<Box<dyn Events>>, mirror: &MapMirror, now: Time) -> Self {
        let switched_at = Time::from_nanos(mirror.maps().guard().switched_at());
        let none = Switched {
            at: Time::ZERO,
            generation: 0,
            made: Made::ByAgent { detect: Time::ZERO, decide: Time::ZERO, switch: Time::ZERO },
        };
        let last = MissedChange { at: switched_at, word: mirror.active(), by: ChangedBy::Guard };
        let followed = Switched::by_data_plane(last, now);
        Self { switch: none, followed, records, unfollowed: Vec::new(), paths: None, probed: None }
    }

    /// Returns what the data plane did while no agent ran.
    pub fn adopted(&self, missed: &MissedFailovers, now: Time) -> Followed {
        let failovers = missed.changes.iter().filter(|change| change.for_engine().is_failover());
        Followed {
            earlier: failovers.map(|change| Switched::by_data_plane(*change, now)).collect(),
            last: Some(self.followed),
            unrecorded: missed.unrecorded,
            is_adoption: true,
        }
    }
}

/// Returns whether a change by the data plane came after ACTIVE was `word`.
fn is_after(record: &EventRecord, word: ActiveWord) -> bool {
    let change = MissedChange::of(record);
    change.is_some_and(|change| change.word.changes_since(word).is_some_and(|changes| changes > 0))
}

impl Running {
    /// Stores the next word in ACTIVE, unless the data plane was faster: then the engine follows, and decides again.
    pub(super) fn switch(
        &mut self,
        (active, draining, usable): (Option<Slot>, Option<Slot>, u16),
        times: DecisionTimes,
    ) {
        let before = self.mirror.active();
        let change = if active == before.active() { WordChange::None } else { WordChange::MayFailOver };
        match self.mirror.switch(active, draining, usable) {
            Ok(next) => {
                self.ledger.follow(next, change);
                self.follower.switch = Switched::by_agent(times, next, now());
            }
            Err(found) => {
                self.active_is(found);
                self.follower.switch = self.follower.followed;
            }
        }
    }

    /// Lets the engine decide first about a change of ACTIVE by the data plane: its next decision would undo that.
    pub(super) fn follow_data_plane(&mut self) {
        if let Some(found) = self.mirror.active_change() {
            self.active_is(found);
        }
    }

    fn active_is(&mut self, found: ActiveWord) {
        let MissedFailovers { word: found, changes, unrecorded, .. } = self.missed_until(found);
        // The guard, or a tick, saw these without a link. One that has a link at the next poll may have another speed.
        if self.engine.options().arp_interval == 0 {
            // A slave whose path was found silent has its link.
            let failed = self.mirror.maps().clock().map_or(0, |clock| clock.path().silent());
            self.links.lose(self.mirror.active().usable() & !found.usable() & !failed);
        }
        self.mirror.follow_active(found);
        self.ledger.follow(found, WordChange::MayFailOver);
        if unrecorded > 0 {
            self.recording.add(Entry::Unrecorded(unrecorded));
        }
        let (active, draining, usable) = (found.active(), found.draining(), found.usable());
        // Of the guard's words none is so; a tick may leave no active slave.
        let is_recorded = changes.last().is_some_and(|last| last.word == found);
        let is_foreign = !is_recorded && active.is_none_or(|slot| usable & slot.bit() == 0);
        self.overwritten(names::ACTIVE, is_foreign && self.engine.has_active());
        let for_engine = changes.iter().map(MissedChange::for_engine).collect();
        let mut failovers: Vec<_> =
            changes.into_iter().filter(|change| change.for_engine().is_failover()).collect();
        let last = failovers.pop_if(|last| last.word.active() == active);
        let now = now();
        let earlier = failovers.into_iter().map(|change| Switched::by_data_plane(change, now)).collect();
        // The word is stored a moment before the time is, and the record after both.
        let last =
            last.unwrap_or(MissedChange { at: self.guard_switched_at(), word: found, by: ChangedBy::Guard });
        let at = if last.at > self.follower.switch.at { last.at } else { now };
        // With the generation of the failover, which its announcements have: the word may have changed since, as when the
        // former slave's link returns.
        self.follower.followed = Switched::by_data_plane(MissedChange { at, ..last }, now);
        let last = Some(self.follower.followed);
        let followed = Followed { earlier, last, unrecorded, is_adoption: false };
        let _ = self.handle(Event::ActiveChanged { changes: for_engine, active, draining, usable }, followed);
    }

    fn guard_switched_at(&self) -> Time {
        Time::from_nanos(self.mirror.maps().guard().switched_at())
    }

    /// Returns what happened since ACTIVE was known to this thread. Where another process has stored a generation of its own,
    /// ACTIVE is stored again with the generation that follows the known one: generations of receipts only grow.
    fn missed_until(&mut self, found: ActiveWord) -> MissedFailovers {
        self.read_records();
        let records = std::mem::take(&mut self.follower.unfollowed);
        let known = Known {
            word: self.mirror.active(),
            at: self.follower.switch.at.max(self.follower.followed.at),
            switched_at: self.guard_switched_at(),
            now: now(),
        };
        // What came after `found` was read is for the next time.
        self.follower.unfollowed = records.iter().filter(|record| is_after(record, found)).copied().collect();
        let mut missed = MissedFailovers::new(known, found, records);
        if missed.is_foreign {
            let last = missed.changes.last().map_or(known.word, |last| last.word);
            missed.word = self.mirror.recount_active(last);
            let (found, now) = (found.generation(), missed.word.generation());
            if found != last.generation() {
                self.recording.warn(wording::recounted(found, now));
            }
        }
        missed
    }

    /// Reads EVENTS. Records that are of no failover go to the log.
    fn read_records(&mut self) {
        while let Some(record) = self.follower.records.as_mut().and_then(|records| records.next()) {
            let record = record.ok();
            match record.and_then(|record| record.event()) {
                Some(DataPlaneEvent::FailedOver(_) | DataPlaneEvent::Ticked(..)) => {
                    self.follower.unfollowed.extend(record);
                }
                Some(DataPlaneEvent::Announced(_)) => {
                    self.drafter.rounds.extend(record.as_ref().and_then(TickRound::of));
                }
                Some(DataPlaneEvent::HostMacLearned(mac)) => {
                    self.announcer.host_mac_changed();
                    self.recording.add(Entry::Info(wording::host_mac_learned(mac)));
                }
                Some(DataPlaneEvent::Misdirected(_) | DataPlaneEvent::Flooded(_)) => {
                    if let Some(found) = record.as_ref().and_then(Misdirection::of) {
                        self.misdirections.add_present(found, now());
                    }
                }
                None => self.recording.warn(wording::unknown_event()),
            }
        }
    }

    /// Logs what arrived on backups.
    pub fn log_misdirected(&mut self, now: Time) {
        let active = self.mirror.active().active();
        for found in self.misdirections.take_due(active, now) {
            let slave = self.slave_in(found.slot);
            let address = MisdirectedAddress { slave, mac: found.mac, vlans: &found.vlans };
            let frames = found.slot.map_or(0, |slot| self.mirror.maps().misdirected(slot));
            let missed = found.is_missed.then_some(MissedFrames { times: found.times, frames });
            if found.is_flooded {
                self.recording.warn(wording::flooded(&address, missed));
            } else {
                self.recording.add(Entry::Info(wording::misdirected(&address, missed)));
            }
        }
    }

    /// Returns the name of the slave in a slot.
    fn slave_in(&self, slot: Option<Slot>) -> Option<&str> {
        let slave = self.engine.slaves().find(|slave| Some(slave.slot) == slot);
        slave.map(|slave| slave.name)
    }

    /// The data plane has put something into EVENTS.
    pub fn data_plane_events(&mut self, reader: Option<&DeviceReader>) {
        self.follow_data_plane();
        // What is there although ACTIVE is as it was known: failovers that were followed before their records came.
        self.read_records();
        let word = self.mirror.active();
        self.follower.unfollowed.retain(|record| is_after(record, word));
        self.execute(reader);
    }
}
