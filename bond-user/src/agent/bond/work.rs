//! What waits for a bond's worker, and in which order it is done.
//!
//! The engine thread and all tasks add to it and never wait. Nothing in it grows without bound: what is urgent replaces
//! what it supersedes, "read it again" is a flag, and requests are as many as their clients, who wait.

use std::{
    collections::{BTreeSet, VecDeque},
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use bond_common::{abi::Slot, mac::Mac};
use bond_core::options::BondOptions;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::{
    agent::{
        AgentError, Stopping,
        bond::{
            announcer::SentRound,
            enslave_request::{EnslaveRequest, Reply},
            mailbox::{Close, Mailbox, Open},
            path_check::PathReading,
            receipt_writer::FailoverId,
        },
    },
    config::{Guard, WantedClock},
    store::record::{Configured, Trial},
    sys::{found::Found, netlink::Interfaces},
};

/// The shortest time between two checks of what may change at any rate.
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);

/// The end of a worker. It comes before everything else, and what waits then is not done any more.
pub enum End {
    /// Restore the original state of everything. The answer names the slaves that are not in this network namespace.
    TearDown { reply: oneshot::Sender<Result<Vec<Found>, AgentError>> },
    /// Leave everything to the kernel.
    Keep { reply: oneshot::Sender<()> },
}

/// What the worker does next, in this order.
pub enum Job {
    End(End),
    Urgent(Urgent),
    Read(Reads),
    Request(Request),
    Check(PendingChecks),
}

/// What follows from a failover, or decides about the next one. It comes before requests, and a newer one supersedes an
/// older one that waits.
pub enum Urgent {
    SetMac(SetMac),
    /// Set the carrier of the bond on or off.
    SetCarrier(bool),
    /// Options changed; some of them packets read.
    SetOptions(Box<BondOptions>),
    /// Whether the data plane may fail over by itself. [`Self::SetOptions`] follows, which publishes it.
    SetGuard(Guard),
    /// The clock is to run so.
    SetClock(WantedClock),
    /// A round of announcements was sent, or could not be.
    Announced(Box<SentRound>),
}

/// What an urgent job is about: of each there is at most one that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Mac(MacOf),
    Carrier,
    Options,
    Guard,
    Clock,
    Announcement,
}

/// An interface whose MAC address is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacOf {
    Bond,
    Slave(Slot),
}

/// A MAC address that is to be changed.
#[derive(Debug)]
pub struct SetMac {
    pub of: MacOf,
    pub mac: Mac,
    /// How many times the engine has asked for a MAC address of this interface, and waits for an answer.
    pub answers: u32,
    /// The failover in whose record the change is a step, and how many of its steps.
    pub failover: Option<(FailoverId, usize)>,
}

impl SetMac {
    /// Creates a change that is a step of this failover, if it is one of any.
    pub fn new(of: MacOf, mac: Mac, failover: Option<FailoverId>) -> Self {
        Self { of, mac, answers: 1, failover: failover.map(|failover| (failover, 1)) }
    }

    /// Takes over what is owed for an older change of the same interface, which is not made any more. The record of an older
    /// failover is complete as soon as there is a newer one.
    fn supersede(&mut self, older: &Self) {
        self.answers = self.answers.saturating_add(older.answers);
        self.failover = match (self.failover, older.failover) {
            (Some((newer, steps)), Some((older, more))) if newer == older => Some((newer, steps + more)),
            (newer, older) => newer.or(older),
        };
    }
}

impl Urgent {
    fn subject(&self) -> Subject {
        match self {
            Self::SetMac(change) => Subject::Mac(change.of),
            Self::SetCarrier(_) => Subject::Carrier,
            Self::SetOptions(_) => Subject::Options,
            Self::SetGuard(_) => Subject::Guard,
            Self::SetClock(_) => Subject::Clock,
            Self::Announced(_) => Subject::Announcement,
        }
    }
}

/// An interface that the engine has accepted as a slave.
pub struct Enslave {
    pub slot: Slot,
    /// The MAC address that the engine wants it to have; None keeps the one of the request.
    pub mac: Option<Mac>,
    pub request: Box<EnslaveRequest>,
}

/// Something that is done in the order in which it was asked for.
pub enum Request {
    Enslave(Enslave),
    /// Release a slave. Answered, if a client waits, when it is released, or with what could not be restored.
    Release {
        slot: Slot,
        mac: Option<Mac>,
        reply: Option<Reply>,
    },
    /// The device of a slave vanished: remove what is left of the slave.
    Forget {
        slot: Slot,
        reply: Option<Reply>,
    },
    /// Change a MAC address of a slave that is being set up, or released.
    SetMac(SetMac),
    /// Log that this slave was made a port of another device, and leaves.
    WarnOfMaster {
        slot: Slot,
        master: u32,
    },
    /// Have the record name no interface but those that are slaves, and restore former slaves that have returned: before an
    /// interface is enslaved. Answered when that is done.
    TidyRecord {
        reply: Reply,
    },
    /// Have the record name what a configuration sets on bond0. Answered when it does.
    RecordConfigured {
        configured: Configured,
        reply: Reply,
    },
    /// Have the record say until when the bond is on trial. Answered when it does.
    RecordTrial {
        trial: Option<Trial>,
        reply: Reply,
    },
    /// Give the bond another MTU, in bytes. Answered when all its devices have it, or have the former one again.
    SetMtu {
        mtu: u32,
        reply: Reply,
    },
    /// Restore what the check of the path has found.
    RepairPath(Box<PathReading>),
    /// Answered when everything that was asked for before is done.
    Settle {
        reply: oneshot::Sender<()>,
    },
    /// Answered when everything that was asked for before is done, and every failover so far has its record.
    AwaitRecords {
        reply: oneshot::Sender<()>,
    },
}

impl Request {
    /// Returns the slot whose interface it sets up, or takes away.
    fn sets_up(&self) -> Option<Slot> {
        match self {
            Self::Enslave(Enslave { slot, .. }) | Self::Release { slot, .. } | Self::Forget { slot, .. } => {
                Some(*slot)
            }
            Self::SetMac(_)
            | Self::WarnOfMaster { .. }
            | Self::TidyRecord { .. }
            | Self::RecordConfigured { .. }
            | Self::RecordTrial { .. }
            | Self::SetMtu { .. }
            | Self::RepairPath(_)
            | Self::Settle { .. }
            | Self::AwaitRecords { .. } => None,
        }
    }

    /// Returns whether the pending checks come before it.
    fn is_about_the_end(&self) -> bool {
        matches!(self, Self::Settle { .. } | Self::AwaitRecords { .. })
    }
}

/// What is to be read, each at most as often as the engine's clocks say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// All slaves' links.
    pub links: bool,
    /// By slot, the number of the last question for the speed.
    pub speeds: [Option<u32>; 16],
    /// IGMP and MLD reports are to be sent by this slave, from this MAC.
    pub report: Option<(Slot, Mac)>,
    /// Neighbours are to be asked.
    pub neighbours: bool,
    /// Maps that were written to, and have been restored.
    pub restored: BTreeSet<&'static str>,
    /// Whether the pins are there.
    pub pinned: Option<bool>,
    /// Another process has removed found.json.
    pub record: bool,
}

/// What may have changed, at any rate: it is checked [`BETWEEN_CHECKS`] after the last check at the earliest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PendingChecks {
    /// bond0, or the port behind which the host is.
    pub host: bool,
    /// A bit per slot: the slave's MAC.
    pub slave_macs: u16,
    /// A bit per slot: the slave's speed.
    pub speeds: u16,
    /// Devices above the bond.
    pub uppers: bool,
    /// Addresses of these interfaces.
    pub addresses: Interfaces,
    /// Interfaces that are no slaves, and have appeared or changed.
    pub appeared: Interfaces,
    /// What those lie above, the bridges of which they are ports, and themselves if they are bridges.
    pub related: Interfaces,
    /// The path of the packets is to be compared with what the worker made of it.
    pub path: bool,
    /// The clock is to be started.
    pub clock: bool,
}

impl PendingChecks {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.host |= other.host;
        self.slave_macs |= other.slave_macs;
        self.speeds |= other.speeds;
        self.uppers |= other.uppers;
        self.addresses.merge(&other.addresses);
        self.appeared.merge(&other.appeared);
        self.related.merge(&other.related);
        self.path |= other.path;
        self.clock |= other.clock;
    }
}

#[derive(Default)]
struct Waiting {
    end: Option<End>,
    urgent: VecDeque<Urgent>,
    requests: VecDeque<Request>,
    reads: Reads,
    pending: PendingChecks,
    /// The pending checks were made for the settling that is the next request.
    has_checked_to_settle: bool,
    /// Nothing can be added any more.
    closed: bool,
    /// The worker has ended: what is added is dropped, and so are the senders of answers.
    ended: bool,
}

impl Waiting {
    /// What supersedes an older job about the same thing takes over what that owes.
    fn add_urgent(&mut self, mut job: Urgent) {
        if let Urgent::SetMac(change) = job {
            if let MacOf::Slave(slot) = change.of
                && self.requests.iter().any(|request| request.sets_up() == Some(slot))
            {
                // The slave is being set up, or taken away: its MAC address comes after that.
                return self.requests.push_back(Request::SetMac(change));
            }
            job = Urgent::SetMac(change);
        }
        let subject = job.subject();
        let older = self.urgent.iter().position(|waiting| waiting.subject() == subject);
        let older = older.and_then(|place| self.urgent.remove(place));
        if let (Urgent::SetMac(change), Some(Urgent::SetMac(older))) = (&mut job, older) {
            change.supersede(&older);
        }
        self.urgent.push_back(job);
    }

    fn is_urgent(&self) -> bool {
        self.end.is_some() || !self.urgent.is_empty()
    }

    /// `check`: whether the next check is due.
    fn take(&mut self, check: bool) -> Option<Job> {
        if let Some(end) = self.end.take() {
            return Some(Job::End(end));
        }
        if let Some(job) = self.urgent.pop_front() {
            return Some(Job::Urgent(job));
        }
        if self.reads != Reads::default() {
            return Some(Job::Read(std::mem::take(&mut self.reads)));
        }
        // An interface that is gone as a slave is checked as another one after that.
        let settles = match self.requests.front() {
            Some(request) if request.is_about_the_end() => true,
            Some(_) => return self.requests.pop_front().map(Job::Request),
            None => false,
        };
        // A client that waits for the end waits for the pending checks, too; once, since something may change for ever.
        if (check || settles && !self.has_checked_to_settle) && !self.pending.is_empty() {
            self.has_checked_to_settle = settles;
            return Some(Job::Check(std::mem::take(&mut self.pending)));
        }
        self.has_checked_to_settle = false;
        self.requests.pop_front().map(Job::Request)
    }
}

impl Close for Waiting {
    fn close(&mut self) {
        self.closed = true;
    }
}

/// Adds to a worker's work. When the last clone is dropped, the worker ends after what waits.
#[derive(Clone)]
pub struct WorkQueue(Arc<Open<Waiting>>);

/// As [`WorkQueue`], without keeping the worker from its end.
#[derive(Clone)]
pub struct WeakWorkQueue(Weak<Open<Waiting>>);

impl WeakWorkQueue {
    /// Returns None if the worker has ended, or is about to.
    pub fn upgrade(&self) -> Option<WorkQueue> {
        self.0.upgrade().map(WorkQueue)
    }
}

impl WorkQueue {
    /// Creates the ends of a queue.
    pub fn new() -> (Self, Jobs) {
        let shared = Arc::<Mailbox<Waiting>>::default();
        (Self(Arc::new(Open(Arc::clone(&shared)))), Jobs { shared, checked: None })
    }

    pub fn downgrade(&self) -> WeakWorkQueue {
        WeakWorkQueue(Arc::downgrade(&self.0))
    }

    /// Adds what is done before requests.
    pub fn urgent(&self, job: Urgent) {
        self.add(|waiting| waiting.add_urgent(job));
    }

    /// Adds what is done in order. If the worker has ended, the request is dropped.
    pub fn request(&self, request: Request) {
        self.add(|waiting| waiting.requests.push_back(request));
    }

    fn add(&self, add: impl FnOnce(&mut Waiting)) {
        self.0.change(|waiting| {
            if !waiting.ended {
                add(waiting);
            }
        });
    }

    /// Adds a request that is answered, and waits for the answer.
    ///
    /// # Errors
    /// The worker has ended.
    pub async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.request(request(reply));
        answer.await.map_err(|_| Stopping)
    }

    /// Has something read.
    pub fn read(&self, note: impl FnOnce(&mut Reads)) {
        self.add(|waiting| note(&mut waiting.reads));
    }

    /// Requests a check of what may have changed.
    pub fn check(&self, note: impl FnOnce(&mut PendingChecks)) {
        self.add(|waiting| note(&mut waiting.pending));
    }

    /// Ends the worker.
    pub fn end(&self, end: End) {
        self.add(|waiting| waiting.end = Some(end));
    }
}

/// The worker's end of [`WorkQueue`].
pub struct Jobs {
    shared: Arc<Mailbox<Waiting>>,
    /// The last check.
    checked: Option<Instant>,
}

/// A client must not wait for a worker that has ended.
impl Drop for Jobs {
    fn drop(&mut self) {
        // Under one lock: what is added after it would never be answered.
        let ended = Waiting { ended: true, ..Waiting::default() };
        let waiting = std::mem::replace(&mut *self.shared.waiting(), ended);
        // Outside the lock: it drops the senders of answers.
        drop(waiting);
    }
}

impl Jobs {
    /// Waits for what is to be done next; None when there will be nothing any more.
    pub async fn next(&mut self) -> Option<Job> {
        loop {
            let next_check = self.checked.map(|checked| checked + BETWEEN_CHECKS);
            let look_is_due = next_check.is_none_or(|at| at <= Instant::now());
            let (closed, wants_look) = {
                let mut waiting = self.shared.waiting();
                if let Some(job) = waiting.take(look_is_due) {
                    if matches!(job, Job::Check(_)) {
                        self.checked = Some(Instant::now());
                    }
                    return Some(job);
                }
                (waiting.closed, !waiting.pending.is_empty())
            };
            if closed && !wants_look {
                return None;
            }
            let added = self.shared.woken();
            match next_check.filter(|_| wants_look) {
                Some(at) => {
                    tokio::select! {
                        biased;
                        () = added => {}
                        () = sleep_until(at) => {}
                    }
                }
                None => added.await,
            }
        }
    }

    /// Returns whether a check of something above the bond is pending.
    pub fn wants_look_above(&self) -> bool {
        let PendingChecks { uppers, addresses, related, .. } = &self.shared.waiting().pending;
        *uppers || !addresses.is_empty() || !related.is_empty()
    }

    /// Does `check`, unless something urgent comes: then it is broken off, and `pending` is checked later.
    pub async fn unless_urgent<T>(
        &self,
        pending: PendingChecks,
        check: impl Future<Output = T>,
    ) -> Option<T> {
        let urgent = async {
            while !self.shared.waiting().is_urgent() {
                self.shared.woken().await;
            }
        };
        let (urgent, check) = (pin!(urgent), pin!(check));
        let seen = tokio::select! {
            biased;
            () = urgent => None,
            seen = check => Some(seen),
        };
        if seen.is_none() {
            let mut waiting = self.shared.waiting();
            waiting.pending.merge(&pending);
            waiting.has_checked_to_settle = false;
        }
        // The permit may have been taken above.
        self.shared.wake();
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    fn set_mac(of: MacOf, last: u8) -> Urgent {
        Urgent::SetMac(SetMac::new(of, mac(last), None))
    }

    fn release(index: u8) -> Request {
        Request::Release { slot: slot(index), mac: None, reply: None }
    }

    fn settle() -> (Request, oneshot::Receiver<()>) {
        let (reply, settled) = oneshot::channel();
        (Request::Settle { reply }, settled)
    }

    fn change(SetMac { of, mac, answers, .. }: &SetMac) -> String {
        format!("{of:?} {mac} {answers}")
    }

    /// What is done next, in a word.
    fn name(job: Option<Job>) -> String {
        match job {
            None => "nothing".into(),
            Some(Job::End(_)) => "end".into(),
            Some(Job::Read(_)) => "read".into(),
            Some(Job::Check(_)) => "check".into(),
            Some(Job::Urgent(Urgent::SetMac(set)) | Job::Request(Request::SetMac(set))) => change(&set),
            Some(Job::Urgent(Urgent::SetCarrier(up))) => format!("carrier {up}"),
            Some(Job::Urgent(Urgent::SetGuard(_))) => "guard".into(),
            Some(Job::Request(Request::Release { slot, .. })) => format!("release {}", slot.index()),
            Some(Job::Request(Request::Settle { .. })) => "settle".into(),
            Some(Job::Urgent(_) | Job::Request(_)) => "other".into(),
        }
    }

    /// Everything that waits, in the order in which it is done.
    fn all(waiting: &mut Waiting, check: bool) -> Vec<String> {
        std::iter::from_fn(|| waiting.take(check).map(|job| name(Some(job)))).collect()
    }

    #[test]
    fn urgent_work_comes_first() {
        let mut waiting = Waiting::default();
        let (settle, _settled) = settle();
        waiting.pending.uppers = true;
        waiting.reads.links = true;
        waiting.requests.extend([release(3), settle]);
        waiting.add_urgent(Urgent::SetGuard(Guard::Auto));
        waiting.add_urgent(Urgent::SetCarrier(true));
        waiting.add_urgent(set_mac(MacOf::Slave(slot(1)), 1));
        waiting.end = Some(End::Keep { reply: oneshot::channel().0 });
        let macs = format!("{:?} {} 1", MacOf::Slave(slot(1)), mac(1));
        let order = ["end", "guard", "carrier true", &macs, "read", "release 3", "check", "settle"];
        assert_eq!(all(&mut waiting, false), order);
    }

    #[test]
    fn a_superseded_mac_is_not_set_and_still_answered() {
        let mut waiting = Waiting::default();
        for (of, last) in [
            (MacOf::Slave(slot(0)), 1),
            (MacOf::Bond, 2),
            (MacOf::Slave(slot(0)), 3),
            (MacOf::Slave(slot(1)), 4),
            (MacOf::Slave(slot(0)), 5),
        ] {
            waiting.add_urgent(set_mac(of, last));
        }
        waiting.add_urgent(Urgent::SetCarrier(true));
        waiting.add_urgent(Urgent::SetCarrier(false));
        let expected = [(MacOf::Bond, 2, 1), (MacOf::Slave(slot(1)), 4, 1), (MacOf::Slave(slot(0)), 5, 3)];
        let mut expected =
            expected.map(|(of, last, answers)| format!("{of:?} {} {answers}", mac(last))).to_vec();
        expected.push("carrier false".into());
        assert_eq!(all(&mut waiting, false), expected);
    }

    #[test]
    fn a_superseded_mac_is_a_step_of_the_last_failover() {
        type Row<'a> = (&'a [Option<u64>], Option<(u64, usize)>);
        let table: [Row<'_>; 5] = [
            (&[None, None], None),
            (&[Some(1), None], Some((1, 1))),
            (&[None, Some(1), Some(1)], Some((1, 2))),
            (&[Some(1), Some(2)], Some((2, 1))),
            (&[Some(1), Some(2), None, Some(2)], Some((2, 2))),
        ];
        for (failovers, expected) in table {
            let mut waiting = Waiting::default();
            for failover in failovers {
                let failover = failover.map(FailoverId);
                waiting.add_urgent(Urgent::SetMac(SetMac::new(MacOf::Bond, mac(1), failover)));
            }
            let Some(Job::Urgent(Urgent::SetMac(set))) = waiting.take(false) else { panic!("no MAC") };
            assert_eq!(set.answers as usize, failovers.len());
            assert_eq!(set.failover.map(|(failover, steps)| (failover.0, steps)), expected, "{failovers:?}");
            assert!(waiting.take(false).is_none());
        }
    }

    #[test]
    fn the_mac_of_a_slave_is_set_after_it_joined_or_left() {
        let mut waiting = Waiting::default();
        waiting.requests.push_back(release(0));
        waiting.add_urgent(set_mac(MacOf::Slave(slot(0)), 1));
        waiting.add_urgent(set_mac(MacOf::Slave(slot(1)), 2));
        let of = |index, last| format!("{:?} {} 1", MacOf::Slave(slot(index)), mac(last));
        assert_eq!(all(&mut waiting, false), [of(1, 2), "release 0".into(), of(0, 1)]);
    }

    #[test]
    fn settling_polls_once_and_ends() {
        let mut waiting = Waiting::default();
        let (settle, _settled) = settle();
        waiting.requests.push_back(settle);
        for expected in ["check", "settle", "nothing"] {
            // Neighbours never stop.
            waiting.pending.addresses.insert(7);
            assert_eq!(name(waiting.take(false)), expected);
        }
        assert_eq!(name(waiting.take(true)), "check");
    }

    /// What changed after a check that was due is checked before the answer, as the address of a bond that was just made.
    #[test]
    fn settling_polls_after_a_check_that_was_due() {
        let mut waiting = Waiting::default();
        waiting.pending.addresses.insert(7);
        assert_eq!(name(waiting.take(true)), "check");
        let (settle, _settled) = settle();
        waiting.pending.addresses.insert(7);
        waiting.requests.push_back(settle);
        assert_eq!(all(&mut waiting, false), ["check", "settle"]);
    }

    #[tokio::test]
    async fn polls_are_made_at_most_once_per_interval() {
        let (work, mut jobs) = WorkQueue::new();
        let start = Instant::now();
        for check in 0..5 {
            for ifindex in 0..100 {
                work.check(|pending| pending.addresses.insert(ifindex));
            }
            assert_eq!(name(jobs.next().await), "check");
            assert!(start.elapsed() >= BETWEEN_CHECKS * check, "{:?}", start.elapsed());
        }
        work.check(|pending| pending.host = true);
        work.urgent(Urgent::SetCarrier(true));
        assert_eq!(name(jobs.next().await), "carrier true", "a check that is not due holds nothing up");
        drop(work);
        assert_eq!(name(jobs.next().await), "check", "what waits is done before the end");
        assert_eq!(name(jobs.next().await), "nothing");
    }

    #[tokio::test]
    async fn requests_to_a_worker_that_has_ended_are_not_waited_for() {
        let (work, mut jobs) = WorkQueue::new();
        let (before, mut settled) = settle();
        work.urgent(Urgent::SetCarrier(true));
        work.request(before);
        assert_eq!(name(jobs.next().await), "carrier true");
        assert!(settled.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        drop(jobs);
        assert!(settled.await.is_err());
        assert!(work.ask(|reply| Request::Settle { reply }).await.is_err());
    }

    #[tokio::test]
    async fn a_poll_yields_to_urgent_work_and_is_made_later() {
        let (work, mut jobs) = WorkQueue::new();
        let pending = PendingChecks { uppers: true, ..PendingChecks::default() };
        assert_eq!(jobs.unless_urgent(pending.clone(), async { 7 }).await, Some(7));
        {
            let mut breaking_off = pin!(jobs.unless_urgent(pending.clone(), std::future::pending::<()>()));
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(breaking_off.as_mut().poll(&mut context), Poll::Pending);
            work.check(|pending| pending.host = true);
            assert_eq!(breaking_off.as_mut().poll(&mut context), Poll::Pending, "that is not urgent");
            work.urgent(Urgent::SetCarrier(true));
            assert_eq!(breaking_off.as_mut().poll(&mut context), Poll::Ready(None::<()>));
        }
        assert_eq!(name(jobs.next().await), "carrier true");
        let Some(Job::Check(again)) = jobs.next().await else { panic!("no check") };
        assert_eq!(again, PendingChecks { host: true, ..pending });
    }
}
