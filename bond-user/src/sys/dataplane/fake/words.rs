//! The maps of a data plane in memory, as programs see them: a simulator that runs the programs' rules reads and writes
//! them here.

use bond_common::{
    abi::{ActiveWord, BondEntry, GuardEntry, SlaveEntry, Slot},
    clock::{
        announce::ClaimedRounds,
        layout::{ClockEntry, TickEntry},
        monitor::{MonitorEntry, MonitorState},
    },
    event::{DataPlaneEvent, EventRecord},
};

use super::{Maps, Ring};

/// The maps of one bond, for its programs.
pub struct ProgramMaps {
    pub(super) maps: Maps,
    pub(super) ring: Ring,
}

impl ProgramMaps {
    /// Returns the word in ACTIVE.
    pub fn active(&self) -> ActiveWord {
        self.maps.active()
    }

    /// Changes ACTIVE by compare-and-swap.
    ///
    /// # Errors
    /// ACTIVE holds this word instead.
    pub fn exchange_active(&self, known: ActiveWord, next: ActiveWord) -> Result<(), ActiveWord> {
        self.maps.exchange_active(known, next)
    }

    /// Returns the entry of a slot in SLAVES.
    pub fn slave(&self, slot: Slot) -> SlaveEntry {
        self.maps.slave(slot)
    }

    /// Writes to SLAVES, as another process may.
    pub fn write_slave(&self, slot: Slot, entry: SlaveEntry) {
        self.maps.store_slave(slot, entry);
    }

    /// Returns BOND.
    pub fn bond(&self) -> BondEntry {
        self.maps.bond()
    }

    /// Writes to BOND, as another process may.
    pub fn write_bond(&self, entry: BondEntry) {
        self.maps.store_bond(entry);
    }

    /// Returns GUARD.
    pub fn guard(&self) -> GuardEntry {
        self.maps.guard()
    }

    /// Notes a failover of the data plane at `now`, CLOCK_MONOTONIC in nanoseconds.
    pub fn note_guard(&self, now: u64) {
        self.maps.store_switched_at(now);
    }

    /// Returns CLOCK.
    pub fn clock(&self) -> ClockEntry {
        self.maps.clock().map(|maps| maps.entry()).unwrap_or_default()
    }

    /// Returns TICKS.
    pub fn ticks(&self) -> TickEntry {
        self.maps.clock().map(|maps| maps.ticks()).unwrap_or_default()
    }

    /// Writes TICKS, but for the claimed rounds, which have [`Self::exchange_rounds`].
    pub fn write_ticks(&self, ticks: TickEntry) {
        if let Some(maps) = self.maps.clock() {
            maps.store_ticks(TickEntry { turn: maps.ticks().turn, ..ticks });
        }
    }

    /// Claims a round of announcements by compare-and-swap. Returns false if it was claimed by another.
    pub fn exchange_rounds(&self, known: ClaimedRounds, next: ClaimedRounds) -> bool {
        self.maps.clock().is_some_and(|maps| maps.exchange_turn(known, next))
    }

    /// Returns ARP_MONITOR.
    pub fn monitor(&self) -> MonitorEntry {
        self.maps.clock().map(|maps| maps.monitor()).unwrap_or_default()
    }

    /// Returns ARP_STATE.
    pub fn monitor_state(&self) -> MonitorState {
        self.maps.clock().map(|maps| maps.monitor_state()).unwrap_or_default()
    }

    /// Returns the slots whose paths have failed or are unproven.
    pub fn failed_paths(&self) -> u16 {
        self.maps.clock().map_or(0, |maps| maps.path().failed())
    }

    /// Reports an event at `now`, CLOCK_MONOTONIC in nanoseconds, if EVENTS has room.
    pub fn send(&self, now: u64, event: DataPlaneEvent) {
        self.ring.send(EventRecord::new(now, event));
    }

    /// Returns EVENTS.
    pub fn events(&self) -> &Ring {
        &self.ring
    }
}
