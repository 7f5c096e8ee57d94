//! The maps that the agent and the clock's tick share.

use std::{os::fd::AsFd, sync::atomic::Ordering};

#[cfg(any(test, feature = "fake"))]
use bond_common::clock::announce::ClaimedRounds;
use bond_common::{
    abi::{ActiveWord, Slot},
    clock::{
        layout::{ANNOUNCE_ENTRIES, AnnounceFrame, ClockEntry, TickEntry},
        misdirected::{MisdirectedEntry, Noted},
        monitor::{MonitorEntry, MonitorState, PROBE_ENTRIES, ProbeFrame},
    },
    names,
};

use super::{DataPlaneError, PathMaps, mapped::Mapped, maps::mapped, words};

/// The maps of the clock, mapped into memory.
pub struct ClockMaps {
    clock: Mapped<ClockEntry>,
    ticks: Mapped<TickEntry>,
    announce: Mapped<AnnounceFrame>,
    misdirected: Mapped<MisdirectedEntry>,
    monitor: Mapped<MonitorEntry>,
    monitor_state: Mapped<MonitorState>,
    probes: Mapped<ProbeFrame>,
    path: PathMaps,
}

impl ClockMaps {
    pub(super) fn of<F: AsFd>(
        source: &mut impl FnMut(&'static str) -> Result<F, DataPlaneError>,
    ) -> Result<Self, DataPlaneError> {
        Ok(Self {
            clock: mapped(names::CLOCK, source(names::CLOCK)?, 1)?,
            ticks: mapped(names::TICKS, source(names::TICKS)?, 1)?,
            announce: mapped(names::ANNOUNCE, source(names::ANNOUNCE)?, ANNOUNCE_ENTRIES)?,
            misdirected: mapped(names::MISDIRECTED, source(names::MISDIRECTED)?, MisdirectedEntry::ENTRIES)?,
            monitor: mapped(names::ARP_MONITOR, source(names::ARP_MONITOR)?, 1)?,
            monitor_state: mapped(names::ARP_STATE, source(names::ARP_STATE)?, 1)?,
            probes: mapped(names::ARP_PROBES, source(names::ARP_PROBES)?, PROBE_ENTRIES)?,
            path: PathMaps::of(source)?,
        })
    }

    /// Returns the maps of the path monitor.
    pub fn path(&self) -> &PathMaps {
        &self.path
    }

    /// Returns what CLOCK holds.
    pub fn entry(&self) -> ClockEntry {
        self.clock.load(0)
    }

    /// Returns whether there is a clock and it does not tick at `now`, CLOCK_MONOTONIC of the machine in nanoseconds. It reads
    /// two words.
    pub fn has_stopped(&self, now: u64) -> bool {
        let period = self.clock.word(0, ClockEntry::PERIOD).load(Ordering::Relaxed);
        let last = self.ticks.word(0, TickEntry::LAST).load(Ordering::Relaxed);
        period > 0 && TickEntry { last, ..TickEntry::default() }.has_stopped(now, period)
    }

    /// Returns whether CLOCK holds this entry, whenever the agent ran last.
    pub(super) fn holds(&self, entry: ClockEntry) -> bool {
        let found = self.entry();
        found == ClockEntry { agent_seen: found.agent_seen, ..entry }
    }

    /// Stores an entry, but for the time at which the agent ran last.
    pub(super) fn store(&self, entry: ClockEntry) {
        self.clock.store(0, ClockEntry { agent_seen: self.entry().agent_seen, ..entry });
    }

    pub(super) fn store_frame(&self, index: u32, frame: AnnounceFrame) {
        self.announce.store(index as usize, frame);
    }

    /// Returns what ARP_MONITOR holds.
    pub fn monitor(&self) -> MonitorEntry {
        self.monitor.load(0)
    }

    pub(super) fn store_monitor(&self, entry: MonitorEntry) {
        self.monitor.store(0, entry);
    }

    pub(super) fn store_probe(&self, index: u32, frame: ProbeFrame) {
        self.probes.store(index as usize, frame);
    }

    /// Returns what the tick keeps of ARP monitoring. Its words are of different moments.
    pub fn monitor_state(&self) -> MonitorState {
        self.monitor_state.load(0)
    }

    /// Stores that the agent runs at `now`, CLOCK_MONOTONIC of the machine in nanoseconds.
    pub fn note_agent(&self, now: u64) {
        self.clock.word(0, ClockEntry::AGENT_SEEN).store(now, Ordering::Release);
    }

    /// Returns what the tick keeps. Its words are of different moments.
    pub fn ticks(&self) -> TickEntry {
        self.ticks.load(0)
    }

    #[cfg(any(test, feature = "fake"))]
    pub(super) fn store_ticks(&self, entry: TickEntry) {
        self.ticks.store(0, entry);
    }

    #[cfg(any(test, feature = "fake"))]
    pub(super) fn exchange_turn(&self, known: ClaimedRounds, next: ClaimedRounds) -> bool {
        let turn = self.ticks.word(0, TickEntry::TURN);
        turn.compare_exchange(known.bits(), next.bits(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Returns the number of frames for the bond that the slave in this slot received as a backup.
    pub fn misdirected(&self, slot: Slot) -> u64 {
        self.misdirected.load(slot.index()).frames
    }

    /// Sets that number to 0, for a new slave.
    pub(super) fn reset_misdirected(&self, slot: Slot) {
        self.misdirected.word(slot.index(), MisdirectedEntry::FRAMES).store(0, Ordering::Release);
    }

    /// Returns the addresses that are left alone at `now`, because announcements did not keep their frames off backups. `now` is
    /// CLOCK_MONOTONIC of the machine in nanoseconds.
    pub fn flooded(&self, now: u64) -> impl Iterator<Item = Noted> {
        (0..MisdirectedEntry::ENTRIES).filter_map(move |index| self.misdirected.load(index).flooded(now))
    }

    /// Claims the next round of announcements of the failover to `word`, as number `round`, from 1. False if the tick has
    /// claimed it: then the round is sent. Also false if ACTIVE has changed since `word` was read.
    ///
    /// `now` is CLOCK_MONOTONIC of the machine in nanoseconds.
    pub fn claim(&self, word: ActiveWord, round: u8, now: u64) -> bool {
        let wanted = u8::try_from(self.entry().rounds).unwrap_or(u8::MAX);
        if !words::claim_round(self.ticks.word(0, TickEntry::TURN), word, round, wanted) {
            return false;
        }
        self.ticks.word(0, TickEntry::CLAIMED_AT).store(now, Ordering::Release);
        true
    }
}
