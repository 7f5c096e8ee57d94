//! Receipts of failovers: begun on the engine's thread, completed and stored by the bond's task.
//!
//! receipts.ndjson in the bond's run directory has one JSON object a line. A line is appended by one write; an agent
//! that ends during the write leaves an incomplete line, which readers skip and the next agent removes.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bond_common::{
    abi::PORT_STATS,
    counters::{DROP_REASONS, DropReason},
};
use bond_core::{
    Time,
    command::{Chosen, Notice, Reason, Seen},
    name::BondName,
};
use nix::fcntl::OFlag;
use tracing::{info, warn};

use crate::{
    agent::{
        AgentError,
        bond::{ledger::Ledger, notices},
        server::events::Feed,
    },
    report::{
        event::What,
        moment::{Moment, micros, monotonic},
        receipt::{Announcement, Log, OLDEST_VERSION, Receipt, Steps, VERSION},
        repeats::{Repeats, left_out},
        text::{self, PathFault, PathNote, Repair},
    },
    store::paths::Paths,
    sys::{
        dataplane::Maps,
        directory::{Location, Trust},
    },
};

/// The file's name in a bond's run directory.
const FILE: &str = "receipts.ndjson";
/// Receipts that are kept, and that `xbond log` lists.
pub const KEPT: usize = 100;
/// The minimum time between two lines of the log about one fault.
const BETWEEN_LINES: Time = Time::from_secs(60);
/// How long a receipt waits for MAC addresses to be changed. After that it is written without that step.
const MACS_AT_MOST: Time = Time::from_millis(500);
/// The file is reduced to [`KEPT`] receipts when it has this many.
const AT_MOST: usize = 2 * KEPT;

/// A failover, with the data of the engine's thread.
#[derive(Clone, Debug)]
pub struct Draft {
    pub from: Option<String>,
    pub to: Option<String>,
    pub reason: Reason,
    pub seen: Seen,
    pub chosen: Option<Chosen>,
    pub made: Made,
    /// The time of the switch.
    pub switched: Time,
    pub generation: u32,
    /// `None` if they are not known: no agent was running then, or they could not be read.
    pub before: Option<DropsBefore>,
    /// Whether no agent received the guard's failover when it happened.
    pub is_late: bool,
    /// Changes of ACTIVE just before it without a receipt.
    pub unrecorded: u32,
    /// Whether the new slave will be announced.
    pub is_announced: bool,
}

/// What made the failover, and how long that took.
#[derive(Clone, Copy, Debug)]
pub enum Made {
    ByAgent {
        detect: Time,
        decide: Time,
        switch: Time,
    },
    /// A packet that found the active slave without a link.
    ByDataPlane {
        /// From the switch until the agent was notified.
        heard: Time,
    },
}

impl Made {
    fn steps(self) -> Steps {
        match self {
            Self::ByAgent { detect, decide, switch } => Steps {
                detect_us: micros(detect),
                decide_us: micros(decide),
                switch_us: micros(switch),
                ..Steps::default()
            },
            Self::ByDataPlane { heard } => Steps { heard_us: Some(micros(heard)), ..Steps::default() },
        }
    }
}

/// The data plane's drop counters at the switch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DropsBefore {
    /// Counters of STATS.
    paths: Vec<u32>,
    drops: [u64; DROP_REASONS],
}

impl DropsBefore {
    /// Reads the counters of the port, and of these slots. Returns `None` if a counter cannot be read.
    pub fn read(maps: &Maps, slots: impl Iterator<Item = u32>) -> Option<Self> {
        let paths: Vec<_> = slots.chain([PORT_STATS]).collect();
        let drops = drops(maps, &paths)?;
        Some(Self { paths, drops })
    }

    /// Returns the packets dropped since then, by reason. Returns `None` if a counter cannot be read.
    fn since(&self, maps: &Maps) -> Option<BTreeMap<String, u64>> {
        let now = drops(maps, &self.paths)?;
        let since = |reason: DropReason| {
            let count = now[reason as usize].saturating_sub(self.drops[reason as usize]);
            (count > 0).then(|| (reason.name().to_owned(), count))
        };
        Some(DropReason::ALL.into_iter().filter_map(since).collect())
    }
}

fn drops(maps: &Maps, paths: &[u32]) -> Option<[u64; DROP_REASONS]> {
    let mut sum = [0; DROP_REASONS];
    for place in paths {
        for (sum, more) in sum.iter_mut().zip(maps.stats(*place).ok()?.drops) {
            *sum += more;
        }
    }
    Some(sum)
}

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
    /// When faults were last logged: a recurring fault is logged once a minute.
    logged: HashMap<PathFault, Time>,
    /// What each part of the path check could not restore.
    faults: BTreeMap<Part, Vec<String>>,
    notes: Vec<PathNote>,
    /// A receipt was written before the MAC addresses were changed: the slave of its failover, and the time.
    without_macs: Option<(Option<String>, Time)>,
}

/// Receipts that may wait to be written.
const MOST_UNWRITTEN: usize = 100;

/// Time between two attempts to write them.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// A receipt that is not complete.
struct Open {
    draft: Draft,
    begun: Time,
    macs: Option<Time>,
    announced: Option<(Time, Announcement)>,
    /// The commands that the engine gave together with the switch are done.
    is_first_part_done: bool,
}

impl ReceiptWriter {
    /// Creates a writer; `directory` is the bond's run directory.
    pub fn new(bond: &str, directory: &Location, feed: Feed, maps: Arc<Maps>, ledger: Arc<Ledger>) -> Self {
        let file = File::open(directory.clone());
        let history = History::default();
        if let Ok(mut receipts) = read(directory, Trust::Ours) {
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
            logged: HashMap::new(),
            faults: BTreeMap::new(),
            notes: Vec::new(),
            without_macs: None,
        }
    }

    pub fn history(&self) -> History {
        self.history.clone()
    }

    pub fn notice(&self, notice: &Notice) {
        // It happened before, and is reported with the time of this line.
        let earlier = self.open.as_ref().filter(|open| {
            open.draft.is_late && matches!(notice, Notice::Failover { seen: Seen::Guard, .. })
        });
        let admitted = match notices::kind(notice) {
            Some(kind) => self.admit(&kind),
            None => Some(0),
        };
        if let Some(left_out) = admitted {
            let at = earlier.map(|open| Moment::at(open.draft.switched));
            notices::log(&self.bond, notice, at, left_out);
        }
        if let Some(what) = notices::event(notice) {
            self.feed.tell(&self.bond, what);
        }
    }

    pub fn carrier(&self, carrier: bool) {
        self.feed.tell(&self.bond, What::Carrier { carrier });
    }

    /// Logs a failure for which no request waits.
    pub fn warn(&self, text: &str) {
        if let Some(count) = self.admit(text) {
            warn!("{}: {text}{}", self.bond, left_out(count));
        }
        self.feed.tell(&self.bond, What::Warning { text: text.to_owned() });
    }

    /// Logs that something was restored that another process had changed.
    pub fn restored(&mut self, text: &str) {
        self.history.0.lock().unwrap_or_else(PoisonError::into_inner).restored += 1;
        self.warn(text);
    }

    /// Logs a fact that requires no action.
    pub fn info(&self, text: &str) {
        if let Some(count) = self.admit(text) {
            info!("{}: {text}{}", self.bond, left_out(count));
        }
    }

    /// Reports all faults that the check of one part of the packets' path found.
    pub fn path(&mut self, part: Part, found: Vec<(PathFault, Repair)>) {
        let now = monotonic();
        let mut faults = Vec::new();
        for (fault, repair) in found {
            let text = text::path_fault(&fault, &repair);
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
            self.info(&text::no_more(note));
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
        self.warn(&text::unrecorded(changes));
    }

    pub fn begin(&mut self, draft: Draft) {
        // This failover superseded the one before, which keeps its steps so far.
        self.finish();
        self.without_macs = None;
        let begun = monotonic();
        self.open = Some(Open { draft, begun, macs: None, announced: None, is_first_part_done: false });
    }

    /// Notes that everything that was requested together with the switch is done.
    pub fn first_part_done(&mut self) {
        match &mut self.open {
            Some(open) => open.is_first_part_done = true,
            None => {
                if let Some((to, switched)) = self.without_macs.take() {
                    let after = monotonic().saturating_sub(switched);
                    info!("{}: {}", self.bond, text::macs_followed(to.as_deref(), after));
                }
            }
        }
        self.finish_if_done();
    }

    /// Returns the time until [`Self::catch_up`] has something to do; `None` if there is nothing, or it waits for an
    /// event.
    pub fn overdue(&self) -> Option<Duration> {
        let again = self.try_again.map(|at| at.saturating_sub(monotonic()));
        self.macs_due().into_iter().chain(again).min()
    }

    /// Completes an open receipt that has waited too long, and writes receipts that could not be written before.
    pub fn catch_up(&mut self) {
        self.finish_overdue();
        if self.try_again.is_some_and(|at| at <= monotonic()) {
            self.write_receipts();
        }
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
            self.without_macs = self.open.as_ref().map(|open| (open.draft.to.clone(), open.draft.switched));
            self.finish();
        }
    }

    pub fn mac_changed(&mut self) {
        if let Some(open) = &mut self.open {
            open.macs = Some(monotonic());
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
        let is_done =
            |open: &Open| open.is_first_part_done && (open.announced.is_some() || !open.draft.is_announced);
        if self.open.as_ref().is_some_and(is_done) {
            self.finish();
        }
    }

    /// Writes receipts, including those that could not be written before, for want of a descriptor or on a full disk.
    pub fn write_receipts(&mut self) {
        while let Some(receipt) = self.unwritten.front() {
            if let Err(error) = self.file.append(receipt) {
                let (shown, count) = (self.file.shown(), self.unwritten.len());
                if count > MOST_UNWRITTEN {
                    self.warn(&format!("the receipt of a failover is lost: {shown}: {error}"));
                    self.unwritten.pop_front();
                    self.ledger.finish();
                } else if self.try_again.is_none() {
                    self.warn(&format!("the receipt of a failover is written later: {shown}: {error}"));
                }
                self.try_again = Some(monotonic().saturating_add(BETWEEN_ATTEMPTS));
                return;
            }
            self.unwritten.pop_front();
            self.ledger.finish();
        }
        self.try_again = None;
    }

    /// Completes the open receipt: steps that are not done yet are omitted.
    pub fn finish(&mut self) {
        let Some(Open { draft, macs, announced, .. }) = self.open.take() else { return };
        let since_switch = |done: Time| micros(done.saturating_sub(draft.switched));
        let receipt = Receipt {
            version: VERSION,
            bond: self.bond.clone(),
            switched: Moment::at(draft.switched),
            generation: draft.generation,
            from: draft.from,
            to: draft.to,
            reason: draft.reason,
            seen: draft.seen,
            chosen: draft.chosen,
            steps: Steps {
                macs_us: macs.map(since_switch),
                announce_us: announced.filter(|(_, what)| what.sent() > 0).map(|(at, _)| since_switch(at)),
                ..draft.made.steps()
            },
            drops: draft.before.and_then(|before| before.since(&self.maps)),
            announced: announced.map(|(_, what)| what),
            unrecorded: draft.unrecorded,
        };
        // A bond whose first slave becomes active has no addresses yet.
        let is_news = |what: &&Announcement| receipt.from.is_some() || what.sent() > 0 || what.failed > 0;
        if let Some(announcement) = receipt.announced.as_ref().filter(is_news) {
            let by = receipt.to.as_deref().unwrap_or("none");
            info!("{}: {by}: {}", self.bond, text::announced(announcement));
        }
        self.unwritten.push_back(receipt.clone());
        self.write_receipts();
        self.history.add(receipt.clone());
        self.feed.tell(&self.bond, What::Failover { receipt });
    }
}

/// receipts.ndjson, opened for writing.
struct File {
    directory: Location,
    lines: usize,
}

impl File {
    /// Opens the file, and removes an incomplete line.
    fn open(directory: Location) -> Self {
        let mut file = Self { directory, lines: 0 };
        let text = file.read().unwrap_or_default();
        file.lines = lines(&text).count();
        if text.last().is_some_and(|last| *last != b'\n')
            && let Err(error) = file.cut()
        {
            warn!("{}: {error}", file.shown());
        }
        file
    }

    fn shown(&self) -> String {
        self.directory.path().join(FILE).display().to_string()
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        self.directory.open(Trust::Ours)?.read(FILE, Trust::Ours)
    }

    fn append(&mut self, receipt: &Receipt) -> io::Result<()> {
        let mut line = serde_json::to_vec(receipt)?;
        line.push(b'\n');
        let append = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        let mut file = self.directory.open(Trust::Ours)?.file(FILE, append, Trust::Ours)?;
        let mut length = file.metadata()?.len();
        if length > 0 && !self.ends_with_line(length)? {
            // Another process has written there: the next line would be part of its line.
            self.cut()?;
            file = self.directory.open(Trust::Ours)?.file(FILE, append, Trust::Ours)?;
            length = file.metadata()?.len();
        }
        file.write_all(&line).inspect_err(|_| {
            // A part of a line would damage the next one, too.
            let _ = file.set_len(length);
        })?;
        self.lines += 1;
        // The line is written: the file is reduced again with the next one.
        if self.lines >= AT_MOST
            && let Err(error) = self.cut()
        {
            warn!("{}: {error}", self.shown());
        }
        Ok(())
    }

    fn ends_with_line(&self, length: u64) -> io::Result<bool> {
        let file = self.directory.open(Trust::Ours)?.file(FILE, OFlag::O_RDONLY, Trust::Ours)?;
        let mut last = [0];
        file.read_exact_at(&mut last, length - 1)?;
        Ok(last == *b"\n")
    }

    /// Keeps the last complete lines, in a new file that replaces the old one.
    fn cut(&mut self) -> io::Result<()> {
        let text = self.read()?;
        let text = &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
        let kept: Vec<_> = lines(text).collect();
        let kept = &kept[kept.len().saturating_sub(KEPT)..];
        let text: Vec<u8> = kept.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect();
        self.directory.open(Trust::Ours)?.replace(FILE, &text)?;
        self.lines = kept.len();
        Ok(())
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Returns the last failovers of a bond, with or without an agent.
pub fn log(paths: &Paths, bond: &BondName) -> Result<Log, AgentError> {
    let directory = paths.run_of(bond);
    let failed = |source| AgentError::File { path: directory.path().join(FILE), source };
    let text = read_text(&directory, Trust::Anyones).map_err(failed)?;
    let damaged = damaged(&text);
    let path = directory.path().join(FILE);
    let notes = Some(text::damaged(&path.display().to_string(), damaged)).filter(|_| damaged > 0);
    let notes = notes.into_iter().collect();
    Ok(Log { version: VERSION, bond: bond.to_string(), receipts: parse(&text), notes })
}

/// Reads the last receipts of a bond by its run directory, the oldest first; none if it had no failover. Receipts of
/// older versions are converted to this one. An incomplete line, and one of a newer version, is skipped.
pub fn read(directory: &Location, trust: Trust) -> io::Result<Vec<Receipt>> {
    read_text(directory, trust).map(|text| parse(&text))
}

/// Returns the text; empty if there is no file.
fn read_text(directory: &Location, trust: Trust) -> io::Result<Vec<u8>> {
    match directory.open(trust).and_then(|directory| directory.read(FILE, trust)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        answer => answer,
    }
}

/// Returns the number of bytes in lines that no xbond has written, neither completely nor in part.
fn damaged(text: &[u8]) -> usize {
    const BEGINNING: &[u8] = b"{\"version\":";
    let is_ours = |line: &&[u8]| line.starts_with(BEGINNING) || BEGINNING.starts_with(line);
    lines(text).filter(|line| !is_ours(line)).map(<[u8]>::len).sum()
}

fn parse(text: &[u8]) -> Vec<Receipt> {
    let receipt = |line: &[u8]| serde_json::from_slice::<Receipt>(line).ok();
    let is_known = |receipt: &Receipt| (OLDEST_VERSION..=VERSION).contains(&receipt.version);
    let receipts = lines(text).filter_map(receipt).filter(is_known);
    let mut receipts: Vec<_> = receipts.map(|receipt| Receipt { version: VERSION, ..receipt }).collect();
    receipts.drain(..receipts.len().saturating_sub(KEPT));
    receipts
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;
    use crate::report::receipt::Announcer;

    fn receipt(generation: u32) -> Receipt {
        Receipt {
            version: VERSION,
            bond: "bond0".into(),
            switched: Moment { time: "2026-01-02T03:04:05.678901Z".into(), monotonic_us: generation.into() },
            generation,
            from: Some("enp0s8".into()),
            to: Some("enp0s9".into()),
            reason: Reason::LinkFailed,
            seen: Seen::LinkEvent,
            chosen: Some(Chosen::OnlyOneUp),
            steps: Steps {
                detect_us: 40,
                decide_us: 9,
                switch_us: 1,
                announce_us: Some(300),
                ..Steps::default()
            },
            drops: Some([("backup".to_owned(), 3)].into()),
            announced: Some(Announcement { addresses: 2, macs: 0, failed: 0, by: Announcer::Agent }),
            unrecorded: 0,
        }
    }

    fn generations(directory: &Path) -> Vec<u32> {
        read(&Location::at(directory), Trust::Ours)
            .unwrap()
            .iter()
            .map(|receipt| receipt.generation)
            .collect()
    }

    #[test]
    fn appended_receipts_are_read_and_the_last_hundred_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(generations(directory.path()), [0; 0]);
        let mut file = File::open(Location::at(directory.path()));
        for generation in 0..1000 {
            file.append(&receipt(generation)).unwrap();
            let read = generations(directory.path());
            let oldest = (generation + 1).saturating_sub(KEPT as u32);
            assert_eq!(read, (oldest..=generation).collect::<Vec<_>>());
            assert!(lines(&fs::read(&path).unwrap()).count() < AT_MOST);
        }
        assert_eq!(read(&Location::at(directory.path()), Trust::Ours).unwrap().last(), Some(&receipt(999)));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn foreign_lines_are_damage_and_spoil_no_receipt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut file = File::open(Location::at(directory.path()));
        file.append(&receipt(1)).unwrap();
        let whole = fs::read(&path).unwrap();
        assert_eq!(damaged(&whole), 0);
        assert_eq!(damaged(&whole[..whole.len() / 2]), 0, "an incomplete line is no damage");
        fs::write(&path, [&whole[..], &[0xff; 200_000]].concat()).unwrap();
        assert_eq!(damaged(&fs::read(&path).unwrap()), 200_000);
        file.append(&receipt(2)).unwrap();
        assert_eq!(generations(directory.path()), [1, 2]);
        assert_eq!(damaged(&fs::read(&path).unwrap()), 0);
    }

    #[test]
    fn a_torn_line_is_skipped_and_completed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut file = File::open(Location::at(directory.path()));
        (1..=3).for_each(|generation| file.append(&receipt(generation)).unwrap());
        let whole = fs::read(&path).unwrap();
        let third = whole.len() / 3 * 2;
        for torn in third + 1..whole.len() {
            fs::write(&path, &whole[..torn]).unwrap();
            // A complete object without its line end may be read, or not.
            assert_eq!(generations(directory.path())[..2], [1, 2], "{torn}");
            let mut file = File::open(Location::at(directory.path()));
            file.append(&receipt(4)).unwrap();
            assert_eq!(generations(directory.path()), [1, 2, 4], "{torn}");
        }
        fs::write(&path, [&whole[..third], b"{\"version\":3}\nnonsense\n", &whole[third..]].concat())
            .unwrap();
        assert_eq!(generations(directory.path()), [1, 2, 3]);
    }

    #[test]
    fn receipts_of_older_versions_are_read_and_those_of_newer_ones_are_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let mut lines = String::new();
        for (version, generation) in [(1, 4), (VERSION, 5), (VERSION + 1, 6)] {
            let mut object = serde_json::to_value(receipt(generation)).unwrap();
            object["version"] = version.into();
            if version == 1 {
                // Fields that version 1 lacked.
                object.as_object_mut().unwrap().remove("announced");
                object["steps"].as_object_mut().unwrap().remove("heard_us");
            }
            lines += &format!("{object}\n");
        }
        fs::write(directory.path().join(FILE), lines).unwrap();
        let read = read(&Location::at(directory.path()), Trust::Ours).unwrap();
        assert_eq!(read, [Receipt { announced: None, ..receipt(4) }, receipt(5)]);
    }

    #[test]
    fn a_receipt_conforms_to_the_schema() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&receipt(7)).unwrap(), @r#"
        {
          "version": 2,
          "bond": "bond0",
          "time": "2026-01-02T03:04:05.678901Z",
          "monotonic_us": 7,
          "generation": 7,
          "from": "enp0s8",
          "to": "enp0s9",
          "reason": "link_failed",
          "seen": "link_event",
          "chosen": "only_one_up",
          "steps": {
            "detect_us": 40,
            "decide_us": 9,
            "switch_us": 1,
            "heard_us": null,
            "macs_us": null,
            "announce_us": 300
          },
          "drops": {
            "backup": 3
          },
          "announced": {
            "addresses": 2,
            "macs": 0,
            "failed": 0,
            "by": "agent"
          }
        }
        "#);
    }
}
