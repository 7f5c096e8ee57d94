//! The maps that the agent and the path monitor share.

use std::{os::fd::AsFd, sync::atomic::Ordering};

use bond_common::{
    abi::{MAX_SLAVES, Slot},
    names,
    path::layout::{PATH_ENTRIES, PATH_HEARD_ENTRIES, PathEntry, PathFrame, PathHeard, PathState},
};

use super::{DataPlaneError, mapped::Mapped, maps::mapped};

/// The maps of the path monitor, mapped into memory.
pub struct PathMaps {
    monitor: Mapped<PathEntry>,
    state: Mapped<PathState>,
    heard: Mapped<PathHeard>,
    frames: Mapped<PathFrame>,
}

impl PathMaps {
    pub(super) fn of<F: AsFd>(
        source: &mut impl FnMut(&'static str) -> Result<F, DataPlaneError>,
    ) -> Result<Self, DataPlaneError> {
        Ok(Self {
            monitor: mapped(names::PATH_MONITOR, source(names::PATH_MONITOR)?, 1)?,
            state: mapped(names::PATH_STATE, source(names::PATH_STATE)?, 1)?,
            heard: mapped(names::PATH_HEARD, source(names::PATH_HEARD)?, PATH_HEARD_ENTRIES)?,
            frames: mapped(names::PATH_FRAMES, source(names::PATH_FRAMES)?, PATH_ENTRIES)?,
        })
    }

    /// Returns what PATH_MONITOR holds.
    pub fn entry(&self) -> PathEntry {
        self.monitor.load(0)
    }

    pub(super) fn store(&self, entry: PathEntry) {
        self.monitor.store(0, entry);
    }

    pub(super) fn store_frame(&self, index: u32, frame: PathFrame) {
        self.frames.store(index as usize, frame);
    }

    /// Returns what the tick keeps of the path monitor. Its words are of different moments.
    pub fn state(&self) -> PathState {
        self.state.load(0)
    }

    /// Returns the slots whose paths have failed or are unproven. It reads one word.
    pub fn failed(&self) -> u16 {
        self.word(PathState::FAILED) as u16
    }

    /// Returns the slots whose paths were found silent. Their links are there.
    pub fn silent(&self) -> u16 {
        // A word that is read a moment later has at most fewer slots.
        let unproven = self.word(PathState::UNPROVEN) as u16;
        self.failed() & !unproven
    }

    /// Returns the slots that have to prove their paths. It reads one word.
    pub fn unproven(&self) -> u16 {
        self.word(PathState::UNPROVEN) as u16
    }

    /// Returns the time of the last tick that the path monitor has seen: CLOCK_MONOTONIC in nanoseconds. It reads one word.
    pub fn seen_at(&self) -> u64 {
        self.word(PathState::SEEN_AT)
    }

    fn word(&self, index: usize) -> u64 {
        self.state.word(0, index).load(Ordering::Relaxed)
    }

    /// Returns what the slave in a slot has heard.
    pub fn heard(&self, slot: Slot) -> PathHeard {
        self.heard.load(slot.index())
    }

    /// Returns what was heard of the target with this index.
    pub fn heard_of_target(&self, index: usize) -> PathHeard {
        if MAX_SLAVES + index < PATH_HEARD_ENTRIES {
            self.heard.load(MAX_SLAVES + index)
        } else {
            PathHeard::default()
        }
    }

    /// Forgets what the former slave of a slot has heard.
    pub(super) fn reset(&self, slot: Slot) {
        self.heard.store(slot.index(), PathHeard::default());
    }

    /// Forgets the MAC addresses of former targets.
    pub(super) fn reset_targets(&self) {
        (MAX_SLAVES..PATH_HEARD_ENTRIES).for_each(|index| self.heard.store(index, PathHeard::default()));
    }
}
