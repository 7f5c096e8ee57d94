//! Receipts of failovers: begun on the engine's thread, completed by the bond's recorder, which also logs and publishes
//! what happens to the bond.

mod draft;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bond_core::{
    Time,
    command::{Notice, Reason},
};

use crate::{
    agent::{
        bond::{ledger::Ledger, notices},
        feed::Feed,
    },
    report::{
        event::What,
        log::{self, Facts},
        moment::{Moment, micros, monotonic},
        receipt::{Announcement, Peers, Receipt, Steps, VERSION},
        repeats::{Repeats, left_out},
        wording::{self, PathFault, PathNote, Repair},
    },
    store::receipts::{self, File},
    sys::{
        dataplane::Maps,
        directory::{Location, Trust},
    },
};

pub use self::draft::{Draft, DropsBefore, FailoverId, Made};

/// The minimum time between two lines of the log about one fault.
const BETWEEN_LINES: Time = Time::from_secs(60);
/// How long a receipt waits for MAC addresses to be changed. After that it is written without that step.
const MACS_AT_MOST: Time = Time::from_millis(500);
/// How long a receipt waits for the report of a round that a tick has claimed. A device without a queue refuses frames for
/// a moment, and the tick repeats them; a full EVENTS has no room for the report.
const REPORT_AT_MOST: Time = Time::from_secs(3);

/// The failovers of a bond, shared with readers.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Failovers>>);

#[derive(Clone, Debug, Default)]
pub struct Failovers {
    /// Counted since this agent has the bond.
    pub by_reason: BTreeMap<Reason, u64>,
    pub last: Option<Receipt>,
    /// Changes of ACTIVE without a receipt, since this agent has the bond.
    pub unrecorded: u64,
    /// Changes of other processes that could not be restored: a sentence each.
    pub faults: Vec<String>,
    /// Chains, filters and programs that packets bypass, or that run before the bond's: a sentence each.
    pub notes: Vec<String>,
    /// Number of changes of other processes that were restored.
    pub restored: u64,
}

/// A part of the path check, which is reported as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Pins and device maps, which are read without RTNL.
    Maps,
    /// Attached programs, and devices.
    Devices,
}

impl History {
    fn add(&self, receipt: Receipt) {
        let mut failovers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *failovers.by_reason.entry(receipt.reason).or_default() += 1;
        failovers.last = Some(receipt);
    }

    fn last(&self) -> Option<Receipt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    /// Replaces the last receipt.
    fn amend(&self, receipt: &Receipt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last = Some(receipt.clone());
    }

    pub fn get(&self) -> Failovers {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Logs and records what happens to one bond. Its methods are called in the order of events, except for announcements
/// and MAC addresses, which are reported a little later.
pub struct ReceiptWriter {
    bond: String,
    feed: Feed,
    maps: Arc<Maps>,
    ledger: Arc<Ledger>,
    file: File,
    history: History,
    repeats: Mutex<Repeats>,
    open: Option<Open>,
    /// The oldest first. GUARD shows the next agent that they are missing.
    unwritten: VecDeque<Receipt>,
    /// When writing them is tried again; `None` if there are none.
    try_again: Option<Time>,
    /// The bond has ended: its directory is removed, or another agent's.
    is_closed: bool,
    /// When faults were last logged: a recurring fault is logged once a minute.
    logged: HashMap<PathFault, Time>,
    /// What each part of the path check could not restore.
    faults: BTreeMap<Part, Vec<String>>,
    notes: Vec<PathNote>,
    /// A receipt was written before its MAC addresses were changed.
    without_macs: Option<WithoutMacs>,
    /// The failover of the last receipt that was completed.
    finished: Option<FailoverId>,
}

/// Receipts that may wait to be written.
const MOST_UNWRITTEN: usize = 100;

/// Time between two attempts to write them.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// A receipt that is not complete.
struct Open {
    draft: Draft,
    begun: Time,
    /// The number of MAC addresses that are still to be changed.
    macs_left: usize,
    /// When the last one was changed.
    macs: Option<Time>,
    announced: Option<(Time, Announcement)>,
    /// What a tick announces, and until when its report of that is awaited.
    promised: Option<(Time, (Time, Announcement))>,
    peers: Option<Peers>,
}

impl Open {
    fn is_complete(&self) -> bool {
        self.macs_left == 0 && (self.announced.is_some() || !self.draft.is_announced)
    }
}

/// A failover whose receipt is written already.
struct WithoutMacs {
    id: FailoverId,
    macs_left: usize,
    to: Option<String>,
    switched: Time,
}

impl ReceiptWriter {
    /// Creates a writer; `directory` is the bond's run directory.
    pub fn new(bond: &str, directory: &Location, feed: Feed, maps: Arc<Maps>, ledger: Arc<Ledger>) -> Self {
        let file = File::open(directory.clone());
        let history = History::default();
        if let Ok(mut receipts) = receipts::read(directory, Trust::Ours) {
            history.0.lock().unwrap_or_else(PoisonError::into_inner).last = receipts.pop();
        }
        Self {
            bond: bond.to_owned(),
            feed,
            maps,
            ledger,
            file,
            history,
            repeats: Mutex::default(),
            open: None,
            unwritten: VecDeque::new(),
            try_again: None,
            is_closed: false,
            logged: HashMap::new(),
            faults: BTreeMap::new(),
            notes: Vec::new(),
            without_macs: None,
            finished: None,
        }
    }

    pub fn history(&self) -> History {
        self.history.clone()
    }

    /// Logs a notice, and sends its event.
    pub fn notice(&self, notice: &Notice) {
        let admitted = match notices::kind(notice) {
            Some(kind) => self.admit(&kind),
            None => Some(0),
        };
        if let Some(left_out) = admitted {
            notices::log(&self.bond, notice, left_out);
        }
        self.feed.publish(&self.bond, notices::event(notice));
    }

    pub fn carrier(&self, carrier: bool) {
        self.feed.publish(&self.bond, What::Carrier { carrier });
    }

    /// Logs a failure for which no request waits.
    pub fn warn(&self, text: &str) {
        if let Some(count) = self.admit(text) {
            log::of(&self.bond).warn(format_args!("{text}{}", left_out(count)));
        }
        self.feed.publish(&self.bond, What::Warning { text: text.to_owned() });
    }

    /// Logs that something was restored that another process had changed.
    pub fn restored(&mut self, text: &str) {
        self.history.0.lock().unwrap_or_else(PoisonError::into_inner).restored += 1;
        self.warn(text);
    }

    /// Logs a fact that requires no action.
    pub fn info(&self, text: &str) {
        if let Some(count) = self.admit(text) {
            log::of(&self.bond).info(format_args!("{text}{}", left_out(count)));
        }
    }

    /// Reports all faults that the check of one part of the packets' path found.
    pub fn path(&mut self, part: Part, found: Vec<(PathFault, Repair)>) {
        let now = monotonic();
        let mut faults = Vec::new();
        for (fault, repair) in found {
            let text = wording::path_fault(&fault, &repair);
            let is_new = self.logged.get(&fault).is_none_or(|at| now.saturating_sub(*at) >= BETWEEN_LINES);
            if is_new {
                self.logged.insert(fault, now);
                self.warn(&text);
            }
            match repair {
                Repair::Done => self.history.0.lock().unwrap_or_else(PoisonError::into_inner).restored += 1,
                Repair::Failed(_) | Repair::None => faults.push(format!("{}: {text}", self.bond)),
            }
        }
        self.logged.retain(|_, at| now.saturating_sub(*at) < BETWEEN_LINES);
        self.faults.insert(part, faults);
        let faults = self.faults.values().flatten().cloned().collect();
        self.history.0.lock().unwrap_or_else(PoisonError::into_inner).faults = faults;
    }

    /// Reports what packets bypass, or what runs before the bond's programs. New facts are logged, unless they are
    /// `logged` already.
    pub fn notes(&mut self, all: Vec<PathNote>, logged: bool) {
        if all == self.notes {
            return;
        }
        for note in all.iter().filter(|note| !logged && !self.notes.contains(note)) {
            self.warn(&note.to_string());
        }
        for note in self.notes.iter().filter(|note| !all.contains(note)) {
            self.info(&wording::no_more(note));
        }
        let sentences = all.iter().map(|note| format!("{}: {note}", self.bond)).collect();
        self.history.0.lock().unwrap_or_else(PoisonError::into_inner).notes = sentences;
        self.notes = all;
    }

    /// See [`Repeats::admit`].
    fn admit(&self, kind: &str) -> Option<u32> {
        // Poisoned or not, counts are consistent.
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).admit(monotonic(), kind)
    }

    /// Counts receipts that are not written because too many waited.
    pub fn lost(&mut self, receipts: u32) {
        (0..receipts).for_each(|_| self.ledger.finish());
        self.unrecorded(receipts);
    }

    /// Counts changes of ACTIVE without a record: the buffer of the guard's failovers was full, or an agent ended
    /// before it had written a receipt.
    pub fn unrecorded(&mut self, changes: u32) {
        self.history.0.lock().unwrap_or_else(PoisonError::into_inner).unrecorded += u64::from(changes);
        self.warn(&wording::unrecorded(changes));
    }

    /// Logs a failover, and begins its receipt, which is written when everything that the draft names is done.
    pub fn failover(&mut self, draft: Draft) {
        // This failover superseded the one before, which keeps its steps so far.
        self.finish();
        self.without_macs = None;
        // One that happened before is logged with its time.
        let at = draft.is_late.then(|| Moment::at(draft.switched));
        notices::log_failover(&self.bond, &draft.failover, (draft.generation, draft.made.steps()), at);
        let (begun, macs_left, announced) = (monotonic(), draft.mac_changes, draft.announced);
        self.open =
            Some(Open { draft, begun, macs_left, macs: None, announced, promised: None, peers: None });
        self.finish_if_done();
    }

    /// Returns the time until [`Self::catch_up`] has something to do; `None` if there is nothing, or it waits for an
    /// event.
    pub fn overdue(&self) -> Option<Duration> {
        let again = self.try_again.map(|at| at.saturating_sub(monotonic()));
        self.macs_due().into_iter().chain(self.report_due()).chain(again).min()
    }

    /// Completes an open receipt that has waited too long, and writes receipts that could not be written before.
    pub fn catch_up(&mut self) {
        if self.report_due().is_some_and(|left| left.is_zero())
            && let Some(open) = &mut self.open
        {
            open.announced = open.promised.map(|(_, announced)| announced);
            self.finish_if_done();
        }
        self.finish_overdue();
        if self.try_again.is_some_and(|at| at <= monotonic()) {
            self.write_receipts();
        }
    }

    /// Returns how long an open receipt still waits for the report of a tick's round; `None` if it does not wait for one.
    fn report_due(&self) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| open.announced.is_none())?;
        open.promised.map(|(until, _)| until.saturating_sub(monotonic()))
    }

    /// Returns how long an open receipt still waits for MAC addresses; `None` if it does not wait for any.
    fn macs_due(&self) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| open.announced.is_some() || !open.draft.is_announced)?;
        let due = open.begun.saturating_add(MACS_AT_MOST);
        Some(due.saturating_sub(monotonic()))
    }

    /// Writes an open receipt while its MAC addresses are still not changed, for example because another process
    /// holds RTNL.
    fn finish_overdue(&mut self) {
        if self.macs_due().is_some_and(|left| left.is_zero()) {
            self.without_macs = self.open.as_ref().map(|open| WithoutMacs {
                id: open.draft.id,
                macs_left: open.macs_left,
                to: open.draft.failover.to.clone(),
                switched: open.draft.switched,
            });
            self.finish();
        }
    }

    /// Notes that so many of the MAC addresses of this failover were changed, or could not be.
    pub fn macs_changed(&mut self, of: FailoverId, changes: usize) {
        if let Some(open) = self.open.as_mut().filter(|open| open.draft.id == of) {
            open.macs_left = open.macs_left.saturating_sub(changes);
            open.macs = Some(monotonic());
        }
        self.finish_if_done();
        if let Some(late) = self.without_macs.as_mut().filter(|late| late.id == of) {
            late.macs_left = late.macs_left.saturating_sub(changes);
            if late.macs_left == 0 {
                let after = monotonic().saturating_sub(late.switched);
                log::of(&self.bond).info(wording::macs_followed(late.to.as_deref(), after));
                self.without_macs = None;
            }
        }
    }

    /// Notes that a round of announcements was sent, or failed, at `at`.
    pub fn announced(&mut self, at: Time, announcement: Announcement) {
        // It may belong to the failover before, and be late.
        if let Some(open) = self.open.as_mut().filter(|open| open.draft.switched <= at) {
            open.announced.get_or_insert((at, announcement));
        }
        self.finish_if_done();
    }

    /// Notes that a tick has claimed a round at `at`, and reports it when it is sent.
    pub fn tick_announces(&mut self, at: Time, announcement: Announcement) {
        if let Some(open) = self.open.as_mut().filter(|open| open.draft.switched <= at) {
            let until = monotonic().saturating_add(REPORT_AT_MOST);
            open.promised.get_or_insert((until, (at, announcement)));
        }
    }

    /// Notes what the peers of a failover did. Its receipt does not wait for that: it is amended.
    pub fn peers(&mut self, of: FailoverId, peers: Peers) {
        if !peers.missing.is_empty() {
            self.info(&wording::peers(&peers));
        }
        if let Some(open) = self.open.as_mut().filter(|open| open.draft.id == of) {
            open.peers = Some(peers);
            return;
        }
        let last = self.history.last().filter(|_| self.finished == Some(of));
        let Some(receipt) = last.map(|last| Receipt { peers: Some(Box::new(peers)), ..last }) else { return };
        self.history.amend(&receipt);
        let waiting = self.unwritten.back_mut().filter(|waiting| waiting.is_of_failover(&receipt));
        if let Some(waiting) = waiting {
            *waiting = receipt;
        } else if !self.is_closed
            && let Err(error) = self.file.amend(&receipt)
        {
            self.warn(&wording::receipt_without_peers(self.file.shown(), error));
        }
    }

    /// Returns whether a failover has no record yet.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Notes that announcements were turned off: the first one may not come any more.
    pub fn without_announcement(&mut self) {
        if let Some(open) = &mut self.open {
            open.draft.is_announced = false;
        }
        self.finish_if_done();
    }

    fn finish_if_done(&mut self) {
        if self.open.as_ref().is_some_and(Open::is_complete) {
            self.finish();
        }
    }

    /// Writes receipts, including those that could not be written before, for want of a descriptor or on a full disk.
    pub fn write_receipts(&mut self) {
        while let Some(receipt) = self.unwritten.front().filter(|_| !self.is_closed) {
            if let Err(error) = self.file.append(receipt) {
                let (shown, count) = (self.file.shown(), self.unwritten.len());
                if count > MOST_UNWRITTEN {
                    self.warn(&wording::receipt_lost(&shown, &error));
                    self.unwritten.pop_front();
                    self.ledger.finish();
                } else if self.try_again.is_none() {
                    self.warn(&wording::receipt_later(&shown, &error));
                }
                self.try_again = Some(monotonic().saturating_add(BETWEEN_ATTEMPTS));
                return;
            }
            self.unwritten.pop_front();
            self.ledger.finish();
        }
        self.try_again = None;
    }

    /// Writes the open receipt, and writes to no file any more. What comes later is logged only; the next agent counts it.
    pub fn close(&mut self) {
        self.finish();
        self.write_receipts();
        self.is_closed = true;
        self.try_again = None;
    }

    /// Completes the open receipt: steps that are not done yet are omitted.
    pub fn finish(&mut self) {
        let Some(Open { draft, macs, announced, peers, .. }) = self.open.take() else { return };
        let since_switch = |done: Time| micros(done.saturating_sub(draft.switched));
        let receipt = Receipt {
            path: draft.path.clone().map(Box::new),
            version: VERSION,
            bond: self.bond.clone(),
            switched: Moment::at(draft.switched),
            generation: draft.generation,
            from: draft.failover.from,
            to: draft.failover.to,
            reason: draft.failover.reason,
            seen: draft.failover.seen,
            chosen: draft.failover.chosen,
            steps: Steps {
                macs_us: macs.map(since_switch),
                announce_us: announced.filter(|(_, what)| what.sent() > 0).map(|(at, _)| since_switch(at)),
                ..draft.made.steps()
            },
            drops: draft.before.and_then(|before| before.since(&self.maps)),
            announced: announced.map(|(_, what)| what),
            peers: peers.map(Box::new),
            unrecorded: draft.unrecorded,
        };
        self.finished = Some(draft.id);
        // A bond whose first slave becomes active has no addresses yet.
        let is_news = |what: &&Announcement| receipt.from.is_some() || what.sent() > 0 || what.failed > 0;
        if let Some(announcement) = receipt.announced.as_ref().filter(is_news) {
            let by = receipt.to.as_deref().unwrap_or("none");
            let facts = Facts {
                to: receipt.to.as_deref(),
                generation: Some(receipt.generation),
                steps: Some(receipt.steps),
                ..log::of(&self.bond)
            };
            facts.info(format_args!("{by}: {}", wording::announced(announcement)));
        }
        self.unwritten.push_back(receipt.clone());
        self.write_receipts();
        self.history.add(receipt.clone());
        self.feed.publish(&self.bond, What::Failover { receipt });
    }
}

#[cfg(test)]
mod tests;
