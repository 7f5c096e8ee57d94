//! What waits for a bond's worker, and in which order it is done.
//!
//! The engine and everybody else add to it and never wait. Nothing in it grows without bound: what is urgent replaces
//! what it overtakes, "look again" is a flag, and requests are as many as their askers, who wait.

use std::{
    collections::{BTreeSet, VecDeque},
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use bond_common::{abi::Slot, mac::Mac};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::{
    agent::{
        AgentError,
        bond::{
            mailbox::{Close, Mailbox, Open},
            worker::{Effect, MacOf},
        },
    },
    sys::{found::Found, netlink::Interfaces},
};

/// Between two looks at what may change at any rate.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// The end of a worker. It comes before everything else, and what waits then is not done any more.
pub enum End {
    /// Restore everything as it was found. The answer names the slaves that are not here.
    TearDown { reply: oneshot::Sender<Result<Vec<Found>, AgentError>> },
    /// Leave everything to the kernel.
    Keep { reply: oneshot::Sender<()> },
}

/// What the worker does next, in this order.
pub enum Job {
    End(End),
    /// MACs and carrier; then requests.
    Do(Effect),
    Read(Reads),
    Look(Looks),
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

/// What may have changed, at any rate: it is looked at [`BETWEEN_LOOKS`] at the earliest after the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// bond0, or the port behind which the host is.
    pub host: bool,
    /// A bit per slot: the slave's MAC.
    pub slave_macs: u16,
    /// Devices above the bond.
    pub uppers: bool,
    /// Addresses of these interfaces.
    pub addresses: Interfaces,
    /// Interfaces that are no slaves, and have appeared or changed.
    pub appeared: Interfaces,
    /// What those lie above.
    pub below: Interfaces,
    /// The path of the packets is to be compared with what the worker made of it.
    pub path: bool,
}

impl Looks {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.host |= other.host;
        self.slave_macs |= other.slave_macs;
        self.uppers |= other.uppers;
        self.addresses.merge(&other.addresses);
        self.appeared.merge(&other.appeared);
        self.below.merge(&other.below);
        self.path |= other.path;
    }
}

/// What an effect waits behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    Urgent,
    Request,
}

#[derive(Default)]
struct Waiting {
    end: Option<End>,
    urgent: VecDeque<Effect>,
    requests: VecDeque<Effect>,
    reads: Reads,
    looks: Looks,
    /// What was to be looked at has been, for the settling that is the next request.
    has_looked_to_settle: bool,
    /// Nobody can add anything any more.
    closed: bool,
}

impl Waiting {
    fn add(&mut self, effect: Effect) {
        match effect.lane() {
            Lane::Urgent => self.add_urgent(effect),
            Lane::Request => self.requests.push_back(effect),
        }
    }

    /// What overtakes an older wish for the same thing takes its place among those who wait for an answer.
    fn add_urgent(&mut self, mut effect: Effect) {
        if let Effect::SetMac { of: MacOf::Slave(slot), .. } = &effect
            && self.requests.iter().any(|request| request.sets_up() == Some(*slot))
        {
            // The slave is being set up, or taken away: its MAC comes in its turn.
            return self.requests.push_back(effect);
        }
        if let Some(place) = self.urgent.iter().position(|waiting| waiting.is_overtaken_by(&effect))
            && let Some(overtaken) = self.urgent.remove(place)
        {
            effect.overtake(&overtaken);
        }
        self.urgent.push_back(effect);
    }

    fn is_urgent(&self) -> bool {
        self.end.is_some() || !self.urgent.is_empty()
    }

    /// `look` says whether it is time for one.
    fn take(&mut self, look: bool) -> Option<Job> {
        if let Some(end) = self.end.take() {
            return Some(Job::End(end));
        }
        if let Some(effect) = self.urgent.pop_front() {
            return Some(Job::Do(effect));
        }
        if self.reads != Reads::default() {
            return Some(Job::Read(std::mem::take(&mut self.reads)));
        }
        // An interface that is gone as a slave is looked at as another one after that.
        let settles = match self.requests.front() {
            Some(Effect::Settle { .. } | Effect::AwaitRecords { .. }) => true,
            Some(_) => return self.requests.pop_front().map(Job::Do),
            None => false,
        };
        // Whoever wants to know that everything is done means what was to be looked at, too; once, since it may change for
        // ever.
        if (look || settles && !self.has_looked_to_settle) && !self.looks.is_empty() {
            self.has_looked_to_settle = true;
            return Some(Job::Look(std::mem::take(&mut self.looks)));
        }
        self.has_looked_to_settle = false;
        self.requests.pop_front().map(Job::Do)
    }
}

impl Close for Waiting {
    fn close(&mut self) {
        self.closed = true;
    }
}

/// Adds to a worker's work. When the last clone is dropped, the worker ends after what waits.
#[derive(Clone)]
pub struct Work(Arc<Open<Waiting>>);

/// As [`Work`], without keeping the worker from its end.
#[derive(Clone)]
pub struct WeakWork(Weak<Open<Waiting>>);

impl WeakWork {
    /// None if the worker has ended, or is about to.
    pub fn upgrade(&self) -> Option<Work> {
        self.0.upgrade().map(Work)
    }
}

impl Work {
    /// Work, and who takes it.
    pub fn new() -> (Self, Jobs) {
        let shared = Arc::<Mailbox<Waiting>>::default();
        (Self(Arc::new(Open(Arc::clone(&shared)))), Jobs { shared, looked: None })
    }

    pub fn downgrade(&self) -> WeakWork {
        WeakWork(Arc::downgrade(&self.0))
    }

    pub fn send(&self, effect: Effect) {
        self.0.change(|waiting| waiting.add(effect));
    }

    /// Has something read.
    pub fn read(&self, note: impl FnOnce(&mut Reads)) {
        self.0.change(|waiting| note(&mut waiting.reads));
    }

    /// Has something looked at that may have changed.
    pub fn look(&self, note: impl FnOnce(&mut Looks)) {
        self.0.change(|waiting| note(&mut waiting.looks));
    }

    /// Ends the worker.
    pub fn end(&self, end: End) {
        self.0.change(|waiting| waiting.end = Some(end));
    }
}

/// The worker's end of [`Work`].
pub struct Jobs {
    shared: Arc<Mailbox<Waiting>>,
    /// The last look.
    looked: Option<Instant>,
}

impl Jobs {
    /// Waits for what is to be done next; None when there will be nothing any more.
    pub async fn next(&mut self) -> Option<Job> {
        loop {
            let next_look = self.looked.map(|looked| looked + BETWEEN_LOOKS);
            let look_is_due = next_look.is_none_or(|at| at <= Instant::now());
            let (closed, wants_look) = {
                let mut waiting = self.shared.waiting();
                if let Some(job) = waiting.take(look_is_due) {
                    if matches!(job, Job::Look(_)) {
                        self.looked = Some(Instant::now());
                    }
                    return Some(job);
                }
                (waiting.closed, !waiting.looks.is_empty())
            };
            if closed && !wants_look {
                return None;
            }
            let added = self.shared.woken();
            match next_look.filter(|_| wants_look) {
                Some(at) => {
                    tokio::select! {
                        () = added => {}
                        () = sleep_until(at) => {}
                    }
                }
                None => added.await,
            }
        }
    }

    /// Whether something above the bond is still to be looked at.
    pub fn wants_look_above(&self) -> bool {
        let Looks { uppers, addresses, below, .. } = &self.shared.waiting().looks;
        *uppers || !addresses.is_empty() || !below.is_empty()
    }

    /// Does `look`, unless something urgent comes: then it is broken off, and `looks` are made later.
    pub async fn unless_urgent<T>(&self, looks: Looks, look: impl Future<Output = T>) -> Option<T> {
        let urgent = async {
            while !self.shared.waiting().is_urgent() {
                self.shared.woken().await;
            }
        };
        let (urgent, look) = (pin!(urgent), pin!(look));
        let seen = tokio::select! {
            biased;
            () = urgent => None,
            seen = look => Some(seen),
        };
        if seen.is_none() {
            let mut waiting = self.shared.waiting();
            waiting.looks.merge(&looks);
            waiting.has_looked_to_settle = false;
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

    fn set_mac(of: MacOf, last: u8) -> Effect {
        Effect::SetMac { of, mac: mac(last), answers: 1 }
    }

    fn settle() -> (Effect, oneshot::Receiver<()>) {
        let (reply, settled) = oneshot::channel();
        (Effect::Settle { reply }, settled)
    }

    /// What is done next, in a word.
    fn name(job: Option<Job>) -> String {
        match job {
            None => "nothing".into(),
            Some(Job::End(_)) => "end".into(),
            Some(Job::Read(_)) => "read".into(),
            Some(Job::Look(_)) => "look".into(),
            Some(Job::Do(effect)) => match effect {
                Effect::SetMac { of, mac, answers } => format!("{of:?} {mac} {answers}"),
                Effect::SetCarrier(up) => format!("carrier {up}"),
                Effect::FailedOver => "failed over".into(),
                Effect::Release { slot, .. } => format!("release {}", slot.index()),
                Effect::Settle { .. } => "settle".into(),
                _ => "other".into(),
            },
        }
    }

    /// Everything that waits, in the order in which it is done.
    fn all(waiting: &mut Waiting, look: bool) -> Vec<String> {
        std::iter::from_fn(|| waiting.take(look).map(|job| name(Some(job)))).collect()
    }

    #[test]
    fn urgent_work_comes_first() {
        let mut waiting = Waiting::default();
        let (settle, _settled) = settle();
        waiting.looks.uppers = true;
        waiting.reads.links = true;
        for effect in [
            Effect::Release { slot: slot(3), mac: None },
            settle,
            Effect::FailedOver,
            Effect::SetCarrier(true),
            set_mac(MacOf::Slave(slot(1)), 1),
        ] {
            waiting.add(effect);
        }
        waiting.end = Some(End::Keep { reply: oneshot::channel().0 });
        let macs = format!("{:?} {} 1", MacOf::Slave(slot(1)), mac(1));
        let order = ["end", "failed over", "carrier true", &macs, "read", "release 3", "look", "settle"];
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
            waiting.add(set_mac(of, last));
        }
        waiting.add(Effect::SetCarrier(true));
        waiting.add(Effect::SetCarrier(false));
        let expected = [(MacOf::Bond, 2, 1), (MacOf::Slave(slot(1)), 4, 1), (MacOf::Slave(slot(0)), 5, 3)];
        let mut expected =
            expected.map(|(of, last, answers)| format!("{of:?} {} {answers}", mac(last))).to_vec();
        expected.push("carrier false".into());
        assert_eq!(all(&mut waiting, false), expected);
    }

    #[test]
    fn the_mac_of_a_slave_is_set_after_it_joined_or_left() {
        let mut waiting = Waiting::default();
        waiting.add(Effect::Release { slot: slot(0), mac: None });
        waiting.add(set_mac(MacOf::Slave(slot(0)), 1));
        waiting.add(set_mac(MacOf::Slave(slot(1)), 2));
        let of = |index, last| format!("{:?} {} 1", MacOf::Slave(slot(index)), mac(last));
        assert_eq!(all(&mut waiting, false), [of(1, 2), "release 0".into(), of(0, 1)]);
    }

    #[test]
    fn work_of_each_failover_waits_once() {
        let mut waiting = Waiting::default();
        for _ in 0..3 {
            waiting.add(set_mac(MacOf::Bond, 1));
            waiting.add(Effect::FailedOver);
        }
        // The last failover's MAC addresses come before what follows them.
        assert_eq!(
            all(&mut waiting, false),
            [format!("{:?} {} 3", MacOf::Bond, mac(1)), "failed over".into()]
        );
    }

    #[test]
    fn settling_polls_once_and_ends() {
        let mut waiting = Waiting::default();
        let (settle, _settled) = settle();
        waiting.add(settle);
        for expected in ["look", "settle", "nothing"] {
            // Neighbours never stop.
            waiting.looks.addresses.insert(7);
            assert_eq!(name(waiting.take(false)), expected);
        }
        assert_eq!(name(waiting.take(true)), "look");
    }

    #[tokio::test]
    async fn polls_are_made_at_most_once_per_interval() {
        let (work, mut jobs) = Work::new();
        let start = Instant::now();
        for look in 0..5 {
            for ifindex in 0..100 {
                work.look(|looks| looks.addresses.insert(ifindex));
            }
            assert_eq!(name(jobs.next().await), "look");
            assert!(start.elapsed() >= BETWEEN_LOOKS * look, "{:?}", start.elapsed());
        }
        work.look(|looks| looks.host = true);
        work.send(Effect::FailedOver);
        assert_eq!(name(jobs.next().await), "failed over", "a look that is not due holds nothing up");
        drop(work);
        assert_eq!(name(jobs.next().await), "look", "what waits is done before the end");
        assert_eq!(name(jobs.next().await), "nothing");
    }

    #[tokio::test]
    async fn a_poll_yields_to_urgent_work_and_is_made_later() {
        let (work, mut jobs) = Work::new();
        let looks = Looks { uppers: true, ..Looks::default() };
        assert_eq!(jobs.unless_urgent(looks.clone(), async { 7 }).await, Some(7));
        {
            let mut breaking_off = pin!(jobs.unless_urgent(looks.clone(), std::future::pending::<()>()));
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(breaking_off.as_mut().poll(&mut context), Poll::Pending);
            work.look(|looks| looks.host = true);
            assert_eq!(breaking_off.as_mut().poll(&mut context), Poll::Pending, "that is not urgent");
            work.send(Effect::SetCarrier(true));
            assert_eq!(breaking_off.as_mut().poll(&mut context), Poll::Ready(None::<()>));
        }
        assert_eq!(name(jobs.next().await), "carrier true");
        let Some(Job::Look(again)) = jobs.next().await else { panic!("no look") };
        assert_eq!(again, Looks { host: true, ..looks });
    }
}
