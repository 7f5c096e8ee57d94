//! EVENTS of data planes in memory: a queue that outlives agents, as a pinned ring buffer does.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bond_common::event::EventRecord;

use crate::sys::dataplane::{Events, OtherVersion};

/// As many records as the kernel's ring buffer of one page has room for, each with its header.
const ROOM: usize = 128;

#[derive(Default)]
struct Records {
    queue: VecDeque<EventRecord>,
    lost: u64,
}

/// EVENTS of one bond. Clones are the same one.
#[derive(Clone, Default)]
pub struct Ring(Arc<Mutex<Records>>);

impl Ring {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record, if there is room for it.
    pub fn send(&self, record: EventRecord) {
        let mut records = self.records();
        if records.queue.len() < ROOM {
            records.queue.push_back(record);
        } else {
            records.lost += 1;
        }
    }

    /// Returns whether a record is there to be read.
    pub fn has_records(&self) -> bool {
        !self.records().queue.is_empty()
    }

    /// Returns the number of records for which there was no room.
    pub fn lost(&self) -> u64 {
        self.records().lost
    }

    pub(super) fn drain(&self) -> Vec<EventRecord> {
        self.records().queue.drain(..).collect()
    }
}

impl Events for Ring {
    fn next(&mut self) -> Option<Result<EventRecord, OtherVersion>> {
        self.records().queue.pop_front().map(Ok)
    }

    fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        Ok(None)
    }
}
