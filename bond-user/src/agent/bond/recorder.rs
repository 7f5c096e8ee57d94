//! Records what happens to one bond: lines of the log, receipts of failovers, events. It is a task of its own that makes no
//! netlink request, so a process that holds RTNL delays none of them.

use std::{collections::VecDeque, sync::Arc};

use bond_core::{Time, command::Notice};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    mailbox::{Close, Mailbox, Open},
    receipt_writer::{Draft, FailoverId, Part, ReceiptWriter},
};
use crate::report::{
    receipt::{Announcement, Peers},
    wording::{self, PathFault, PathNote, Repair},
};

/// Entries that wait while the disk, or the reader of the log, keeps the task. With more, the oldest is dropped.
const ENTRIES_AT_MOST: usize = 512;

/// What is recorded.
pub enum Entry {
    /// The active slave changed. The draft says what completes its record.
    Failover(Box<Draft>),
    /// So many MAC addresses of this failover were changed, or could not be.
    MacsChanged(FailoverId, usize),
    /// A round of announcements was sent, or failed, at this time.
    Announced(Time, Announcement),
    /// A tick has claimed a round at this time, and reports it when it is sent.
    TickAnnounces(Time, Announcement),
    /// What the peers of this failover did.
    Peers(FailoverId, Peers),
    /// The first announcement may not come any more.
    WithoutAnnouncement,
    Notice(Notice),
    Carrier(bool),
    Info(String),
    Warn(String),
    /// Another process had changed something, and it is restored.
    Restored(String),
    /// ACTIVE was changed so often without a record.
    Unrecorded(u32),
    /// What a part of the check of the path has found.
    Path(Part, Vec<(PathFault, Repair)>),
    /// What packets pass by, or pass before, on their path; all of it, and what of it was logged already.
    Notes {
        all: Vec<PathNote>,
        logged: bool,
    },
    /// Answered when everything before it is recorded.
    Reached(oneshot::Sender<()>),
    /// Answered when no failover is without its record.
    Await(oneshot::Sender<()>),
    /// Nothing more is done for an open receipt: it is written as it is.
    Finish(oneshot::Sender<()>),
}

impl Entry {
    fn has_asker(&self) -> bool {
        matches!(self, Self::Reached(_) | Self::Await(_) | Self::Finish(_))
    }
}

/// Entries that were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Dropped {
    lines: u32,
    failovers: u32,
    /// Steps of failovers, which their receipts lack then.
    steps: u32,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    dropped: Dropped,
    closed: bool,
}

impl Waiting {
    fn add(&mut self, entry: Entry) {
        if self.entries.len() >= ENTRIES_AT_MOST
            && let Some(oldest) = self.entries.iter().position(|entry| !entry.has_asker())
        {
            match self.entries.remove(oldest) {
                Some(Entry::Failover(_)) => self.dropped.failovers = self.dropped.failovers.saturating_add(1),
                Some(
                    Entry::Notice(_)
                    | Entry::Carrier(_)
                    | Entry::Info(_)
                    | Entry::Warn(_)
                    | Entry::Restored(_)
                    | Entry::Unrecorded(_),
                ) => self.dropped.lines = self.dropped.lines.saturating_add(1),
                Some(
                    Entry::MacsChanged(..)
                    | Entry::Announced(..)
                    | Entry::Peers(..)
                    | Entry::TickAnnounces(..)
                    | Entry::WithoutAnnouncement,
                ) => self.dropped.steps = self.dropped.steps.saturating_add(1),
                // What the check of the path finds comes again with the next one; a client that waits is never dropped.
                Some(
                    Entry::Path(..)
                    | Entry::Notes { .. }
                    | Entry::Reached(_)
                    | Entry::Await(_)
                    | Entry::Finish(_),
                )
                | None => {}
            }
        }
        self.entries.push_back(entry);
    }
}

impl Close for Waiting {
    fn close(&mut self) {
        self.closed = true;
    }
}

/// How others reach the task. None of it waits. The task ends, after what waits, when the last one is dropped.
#[derive(Clone)]
pub struct Recording(Arc<Open<Waiting>>);

impl Recording {
    /// Starts the task.
    pub fn start(receipt_writer: ReceiptWriter) -> Self {
        let shared = Arc::<Mailbox<Waiting>>::default();
        tokio::spawn(run(receipt_writer, Arc::clone(&shared)));
        Self(Arc::new(Open(shared)))
    }

    pub fn add(&self, entry: Entry) {
        self.0.change(|waiting| waiting.add(entry));
    }

    /// Logs a failure for which no request waits.
    pub fn warn(&self, text: impl Into<String>) {
        self.add(Entry::Warn(text.into()));
    }

    /// Has the receipt that is open written, and no file any more, and waits until that is so.
    pub async fn finish(&self) {
        let (reply, finished) = oneshot::channel();
        self.add(Entry::Finish(reply));
        let _ = finished.await;
    }
}

async fn run(mut receipt_writer: ReceiptWriter, shared: Arc<Mailbox<Waiting>>) {
    let mut awaiting = Vec::new();
    loop {
        let added = shared.woken();
        let (entry, dropped, closed) = {
            let mut waiting = shared.waiting();
            (waiting.entries.pop_front(), std::mem::take(&mut waiting.dropped), waiting.closed)
        };
        if dropped.lines > 0 {
            receipt_writer.warn(&wording::lines_dropped(dropped.lines));
        }
        if dropped.steps > 0 {
            receipt_writer.warn(&wording::steps_dropped(dropped.steps));
        }
        if dropped.failovers > 0 {
            receipt_writer.lost(dropped.failovers);
        }
        match entry {
            Some(Entry::Await(reply)) => awaiting.push(reply),
            Some(entry) => take(&mut receipt_writer, entry),
            None if closed => return,
            None => match receipt_writer.overdue() {
                Some(overdue) => tokio::select! {
                    biased;
                    () = sleep_until(Instant::now() + overdue) => receipt_writer.catch_up(),
                    () = added => {}
                },
                None => added.await,
            },
        }
        if !receipt_writer.is_open() {
            for reply in awaiting.drain(..) {
                let _: Result<(), ()> = reply.send(());
            }
        }
    }
}

fn take(receipt_writer: &mut ReceiptWriter, entry: Entry) {
    match entry {
        Entry::Failover(draft) => receipt_writer.failover(*draft),
        Entry::MacsChanged(of, changes) => receipt_writer.macs_changed(of, changes),
        Entry::Announced(at, announcement) => receipt_writer.announced(at, announcement),
        Entry::TickAnnounces(at, announcement) => receipt_writer.tick_announces(at, announcement),
        Entry::Peers(of, peers) => receipt_writer.peers(of, peers),
        Entry::WithoutAnnouncement => receipt_writer.without_announcement(),
        Entry::Notice(notice) => receipt_writer.notice(&notice),
        Entry::Carrier(up) => receipt_writer.carrier(up),
        Entry::Info(text) => receipt_writer.info(&text),
        Entry::Warn(text) => receipt_writer.warn(&text),
        Entry::Restored(text) => receipt_writer.restored(&text),
        Entry::Unrecorded(changes) => receipt_writer.unrecorded(changes),
        Entry::Path(part, found) => receipt_writer.path(part, found),
        Entry::Notes { all, logged } => receipt_writer.notes(all, logged),
        Entry::Reached(reply) | Entry::Await(reply) => drop(reply.send(())),
        Entry::Finish(reply) => {
            receipt_writer.close();
            let _ = reply.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_entries_are_dropped_and_counted() {
        let mut waiting = Waiting::default();
        let (reply, _asker) = oneshot::channel();
        waiting.add(Entry::Finish(reply));
        waiting.add(Entry::MacsChanged(FailoverId(1), 1));
        for number in 0..ENTRIES_AT_MOST + 9 {
            waiting.add(Entry::Warn(number.to_string()));
        }
        assert_eq!(waiting.entries.len(), ENTRIES_AT_MOST);
        // A client that waits is answered.
        assert!(matches!(waiting.entries.front(), Some(Entry::Finish(_))));
        assert_eq!(waiting.dropped, Dropped { lines: 10, failovers: 0, steps: 1 });
        // What comes again is not counted.
        waiting.entries.iter_mut().skip(1).for_each(|entry| *entry = Entry::Path(Part::Maps, Vec::new()));
        waiting.add(Entry::Warn(String::new()));
        assert_eq!(waiting.dropped, Dropped { lines: 10, failovers: 0, steps: 1 });
    }
}
