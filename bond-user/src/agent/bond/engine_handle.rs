//! How other threads and tasks reach the engine thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool};

use bond_common::abi::Slot;
use bond_core::{
    NewBond, OrphanState, Refusal, Time,
    command::Notice,
    event::{Duplex, Event, Link, Speed},
    status::{BondStatus, Pending},
};
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::{oneshot, watch};

use crate::{
    agent::{
        AgentError, Stopping,
        bond::{
            announcer::Announcing,
            arp_prober::Probing,
            enslave_request::{EnslaveRequest, Reply},
            interface::Host,
            ledger::Ledger,
            link_mail::LinkMail,
            missed_failovers::MissedFailovers,
            recorder::Recording,
            work::WorkQueue,
        },
    },
    report::moment::monotonic as now,
    sys::{
        dataplane::{Events, MapMirror},
        netlink::LinkEvent,
    },
};

/// One bond of this agent. Numbers are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BondId(pub u32);

/// What the thread receives.
pub(super) enum Input {
    Add(Box<Member>),
    Remove(BondId),
    /// Compare the maps of all bonds with what was written to them.
    CheckMaps,
    /// Is the thread alive?
    Ping {
        reply: oneshot::Sender<()>,
    },
    OfBond(BondId, BondInput),
}

/// What the thread receives for one bond.
pub(super) enum BondInput {
    /// A fact.
    Event(Event),
    /// An event that may be refused.
    Request {
        event: Event,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Enslave(Box<EnslaveRequest>),
    /// The worker has set an interface up, or could not.
    Enslaved {
        slot: Slot,
        outcome: Result<Link, AgentError>,
        reply: Reply,
    },
    Release {
        slot: Slot,
        reply: oneshot::Sender<Result<Released, Refusal>>,
    },
    Speed(SpeedAnswer),
    Status {
        reply: oneshot::Sender<BondStatus>,
    },
    /// Answer when nothing of what the engine has decided is pending.
    AwaitSettled {
        reply: oneshot::Sender<()>,
    },
    /// What is pending now?
    Pending {
        reply: oneshot::Sender<Vec<Pending>>,
    },
}

/// A slave that leaves.
#[derive(Debug)]
pub struct Released {
    /// Becomes ready when it is released, or with what could not be restored.
    pub done: oneshot::Receiver<Result<(), AgentError>>,
    /// What the administrator should know about slaves that left with it; ready before `done`.
    pub notes: oneshot::Receiver<Vec<Notice>>,
}

/// What a slave's link is capable of.
#[derive(Clone, Copy, Debug)]
pub struct SpeedAnswer {
    pub slot: Slot,
    /// The question that this answers; None if it was read without one.
    pub number: Option<u32>,
    pub speed: Speed,
    pub duplex: Duplex,
}

/// A bond that joins the thread.
pub struct Member {
    pub id: BondId,
    pub bond: NewBond,
    /// What another agent has left of it, and what the data plane did since.
    pub left: Option<(OrphanState, MissedFailovers)>,
    pub mirror: Arc<MapMirror>,
    /// EVENTS; None if it cannot be read.
    pub records: Option<Box<dyn Events>>,
    pub ledger: Arc<Ledger>,
    pub work: WorkQueue,
    pub recording: Recording,
    pub prober: Probing,
    pub announcer: Announcing,
    pub host: Host,
    /// Set at each event of a device of the bond.
    pub is_changed: Arc<AtomicBool>,
    /// Where readers find the state of the bond.
    pub status: watch::Sender<BondStatus>,
}

/// Requests and answers that may wait for the thread. It waits for no other part, and takes microseconds for each: a sender
/// that finds so many before it waits, and not for long.
const INPUTS: usize = 1024;

/// How others reach the thread.
#[derive(Clone)]
pub struct EngineHandle {
    /// With the time at which it was sent.
    inputs: Sender<(Time, Input)>,
    flags: Arc<Mutex<Flags>>,
    /// There is something in `flags`.
    raised: Sender<()>,
    /// Wakes an engine that is a task.
    #[cfg(any(test, feature = "fake"))]
    added: Arc<tokio::sync::Notify>,
}

/// What the thread reads.
pub(super) struct EngineInputs {
    pub received: Receiver<(Time, Input)>,
    /// There is something in `flags`.
    pub raised: Receiver<()>,
    pub flags: Arc<Mutex<Flags>>,
    /// Notified with each input and flag, for an engine that is a task.
    #[cfg(any(test, feature = "fake"))]
    pub added: Arc<tokio::sync::Notify>,
}

/// What the thread has to read again: the last state, and not how often it changed.
#[derive(Default)]
pub(super) struct Flags {
    /// Bonds whose data plane has put something into EVENTS.
    pub events: Vec<BondId>,
    /// Devices of this network namespace that changed or vanished.
    pub links: LinkMail,
}

impl EngineHandle {
    /// Returns a handle, and the ends of its channels for the thread.
    pub(super) fn new() -> (Self, EngineInputs) {
        let (inputs, received) = bounded(INPUTS);
        let (raised, seen) = bounded(1);
        let flags = Arc::<Mutex<Flags>>::default();
        #[cfg(any(test, feature = "fake"))]
        let added = Arc::<tokio::sync::Notify>::default();
        let ends = EngineInputs {
            received,
            raised: seen,
            flags: Arc::clone(&flags),
            #[cfg(any(test, feature = "fake"))]
            added: Arc::clone(&added),
        };
        let handle = Self {
            inputs,
            flags,
            raised,
            #[cfg(any(test, feature = "fake"))]
            added,
        };
        (handle, ends)
    }

    fn send(&self, input: Input) {
        // A thread that is gone has nothing left to decide.
        let _ = self.inputs.send((now(), input));
        #[cfg(any(test, feature = "fake"))]
        self.added.notify_one();
    }

    fn raise(&self) {
        // If it is raised already, the thread has not read the flags since.
        let _ = self.raised.try_send(());
        #[cfg(any(test, feature = "fake"))]
        self.added.notify_one();
    }

    /// Returns the number of inputs that wait.
    #[cfg(any(test, feature = "fake"))]
    pub fn waiting(&self) -> usize {
        self.inputs.len()
    }

    fn send_to(&self, bond: BondId, input: BondInput) {
        self.send(Input::OfBond(bond, input));
    }

    /// Sends what needs an answer. The answer is missing if the bond, or the thread, is gone.
    async fn ask<T>(
        &self,
        bond: BondId,
        input: impl FnOnce(oneshot::Sender<T>) -> BondInput,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.send_to(bond, input(reply));
        answer.await.map_err(|_| Stopping)
    }

    /// Adds a bond.
    pub fn add(&self, member: Member) {
        self.send(Input::Add(Box::new(member)));
    }

    /// Removes a bond.
    pub fn remove(&self, bond: BondId) {
        self.send(Input::Remove(bond));
    }

    /// Has the maps of all bonds compared with what was written to them.
    pub fn check_maps(&self) {
        self.send(Input::CheckMaps);
    }

    /// The data plane of this bond has put something into EVENTS.
    pub fn data_plane_events(&self, bond: BondId) {
        let mut flags = locked(&self.flags);
        if !flags.events.contains(&bond) {
            flags.events.push(bond);
        }
        drop(flags);
        self.raise();
    }

    /// A device of this network namespace changed or vanished.
    pub fn device(&self, event: LinkEvent) {
        locked(&self.flags).links.put(now(), event);
        self.raise();
    }

    /// Sends a fact.
    pub fn event(&self, bond: BondId, event: Event) {
        self.send_to(bond, BondInput::Event(event));
    }

    /// Sends what was read of a slave's link.
    pub fn speed(&self, bond: BondId, speed: SpeedAnswer) {
        self.send_to(bond, BondInput::Speed(speed));
    }

    /// Sends an event that the engine may refuse. The inner result is the engine's answer.
    ///
    /// # Errors
    /// The bond or the thread is gone.
    pub async fn request(&self, bond: BondId, event: Event) -> Result<Result<(), Refusal>, Stopping> {
        self.ask(bond, |reply| BondInput::Request { event, reply }).await
    }

    /// Has an interface enslaved, and is answered over `request.reply`.
    pub fn enslave(&self, bond: BondId, request: EnslaveRequest) {
        self.send_to(bond, BondInput::Enslave(Box::new(request)));
    }

    /// The worker has done its part of an [`EnslaveRequest`].
    pub fn enslaved(&self, bond: BondId, slot: Slot, outcome: Result<Link, AgentError>, reply: Reply) {
        self.send_to(bond, BondInput::Enslaved { slot, outcome, reply });
    }

    /// Has a slave released. The inner result is the engine's answer; a slave that it releases may have to drain first.
    ///
    /// # Errors
    /// The bond or the thread is gone.
    pub async fn release(&self, bond: BondId, slot: Slot) -> Result<Result<Released, Refusal>, Stopping> {
        self.ask(bond, |reply| BondInput::Release { slot, reply }).await
    }

    /// Returns true as soon as the thread has come to this question; false if it has ended.
    pub async fn is_alive(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Ping { reply });
        answer.await.is_ok()
    }

    /// Returns the state of a bond after everything that was sent before.
    ///
    /// # Errors
    /// The bond or the thread is gone.
    pub async fn status(&self, bond: BondId) -> Result<BondStatus, Stopping> {
        self.ask(bond, |reply| BondInput::Status { reply }).await
    }

    /// Waits until nothing of what the bond's engine has decided is pending.
    ///
    /// # Errors
    /// The bond or the thread is gone.
    pub async fn settled(&self, bond: BondId) -> Result<(), Stopping> {
        self.ask(bond, |reply| BondInput::AwaitSettled { reply }).await
    }

    /// Returns what the bond's engine has decided and is not done yet.
    ///
    /// # Errors
    /// The bond or the thread is gone.
    pub async fn pending(&self, bond: BondId) -> Result<Vec<Pending>, Stopping> {
        self.ask(bond, |reply| BondInput::Pending { reply }).await
    }
}

pub(super) fn locked(flags: &Mutex<Flags>) -> MutexGuard<'_, Flags> {
    // Poisoned or not, flags are whole.
    flags.lock().unwrap_or_else(PoisonError::into_inner)
}
