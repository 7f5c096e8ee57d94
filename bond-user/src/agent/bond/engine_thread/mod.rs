//! The thread on which decisions are made: the engines of all bonds, link state, and ACTIVE.
//!
//! It makes no netlink request and never waits for RTNL, so that a process that holds RTNL cannot delay a failover. Each event
//! becomes one batch of commands, executed by [`bond`]: maps at once, the rest handed to the bond's
//! [`worker`](crate::agent::bond::worker), announcer, prober and [`recorder`](crate::agent::bond::recorder). What takes time
//! is answered by an event.
//!
//! [`follow`] is about failovers of the data plane, [`links`] about link state,
//! [`draft`] about the records of failovers.

mod bond;
mod draft;
mod follow;
mod links;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bond_core::{Time, event::Event};
use crossbeam_channel::select_biased;

use self::bond::Running;
use super::engine_handle::{BondId, EngineHandle, EngineInputs, Flags, Input, locked};
use crate::{
    report::moment::{boottime_ahead, monotonic as now},
    sys::dataplane::DeviceReader,
};

/// A shorter difference between the clocks is that of the moments at which they are read.
const SUSPENSION: Duration = Duration::from_millis(20);
/// The longest sleep of the thread without a bond.
const SLEEP: Duration = Duration::from_secs(3600);
/// The longest sleep with one: ticks of the clocks take the agent for absent after
/// [`bond_common::clock::layout::ClockEntry::AGENT_SILENCE`].
const HEARTBEAT: Duration = Duration::from_millis(100);

/// Starts the thread. `reader` is `None` if the kernel does not let devices be read without netlink: links are known by
/// netlink's events then.
///
/// # Errors
/// The process can start no further thread.
pub fn start(reader: Option<Arc<DeviceReader>>) -> std::io::Result<EngineHandle> {
    let (handle, inputs) = EngineHandle::new();
    let engine = Loop::new(reader, Arc::clone(&inputs.flags));
    thread::Builder::new().name("engine".into()).spawn(move || engine.run(&inputs))?;
    Ok(handle)
}

/// Starts the same as a task of the present runtime, for simulators: it runs on the thread and by the clock of that.
#[cfg(any(test, feature = "fake"))]
pub fn start_as_task(reader: Option<Arc<DeviceReader>>) -> EngineHandle {
    let (handle, inputs) = EngineHandle::new();
    let engine = Loop::new(reader, Arc::clone(&inputs.flags));
    tokio::spawn(engine.run_as_task(inputs));
    handle
}

struct Loop {
    reader: Option<Arc<DeviceReader>>,
    bonds: BTreeMap<BondId, Running>,
    flags: Arc<Mutex<Flags>>,
    /// When it was read last: it grows while the machine is suspended.
    boottime_ahead: i128,
}

impl Loop {
    fn new(reader: Option<Arc<DeviceReader>>, flags: Arc<Mutex<Flags>>) -> Self {
        Self { reader, bonds: BTreeMap::new(), flags, boottime_ahead: boottime_ahead() }
    }

    fn run(mut self, inputs: &EngineInputs) {
        let EngineInputs { received, raised, .. } = inputs;
        loop {
            let sleep = self.time_to_sleep();
            let input = select_biased! {
                recv(raised) -> raised => {
                    if raised.is_err() {
                        return;
                    }
                    None
                }
                recv(received) -> input => match input {
                    Ok(input) => Some(input),
                    Err(_) => return,
                },
                default(sleep) => None,
            };
            self.turn(input);
        }
    }

    #[cfg(any(test, feature = "fake"))]
    async fn run_as_task(mut self, inputs: EngineInputs) {
        use crossbeam_channel::TryRecvError;
        let EngineInputs { received, raised, added, .. } = inputs;
        loop {
            let input = match (raised.try_recv(), received.try_recv()) {
                (Err(TryRecvError::Disconnected), _) | (_, Err(TryRecvError::Disconnected)) => return,
                (_, Ok(input)) => Some(input),
                (Ok(()), Err(TryRecvError::Empty)) => None,
                (Err(TryRecvError::Empty), Err(TryRecvError::Empty)) => {
                    let sleep = self.time_to_sleep();
                    let is_added = async {
                        added.notified().await;
                        true
                    };
                    let is_due = async {
                        tokio::time::sleep(sleep).await;
                        false
                    };
                    if tokio::select! { biased; added = is_added => added, due = is_due => due } {
                        continue;
                    }
                    None
                }
            };
            self.turn(input);
        }
    }

    /// Returns how long nothing is due.
    fn time_to_sleep(&self) -> Duration {
        let next = self.bonds.values().filter_map(Running::deadline).min();
        let longest = if self.bonds.is_empty() { SLEEP } else { HEARTBEAT };
        next.map_or(longest, |next| next.saturating_sub(now()).min(longest))
    }

    /// Handles what is there: an input, with the time at which it was sent, flags, and deadlines that have passed.
    fn turn(&mut self, input: Option<(Time, Input)>) {
        self.notice_suspension();
        let time = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
        let reader = self.reader.clone();
        for bond in self.bonds.values_mut() {
            bond.note_agent(time);
            bond.follow_paths(reader.as_deref());
        }
        // Before the input: a request for the status means what happened before.
        self.take_flags();
        if let Some((sent, input)) = input {
            self.bonds.values_mut().for_each(|bond| bond.set_trigger(sent));
            self.take(input);
        }
        self.tick();
        self.bonds.values_mut().for_each(Running::publish_status);
    }

    /// A machine that is suspended stops the clock that deadlines are of.
    fn notice_suspension(&mut self) {
        let ahead = boottime_ahead();
        let time = Duration::from_nanos(u64::try_from(ahead - self.boottime_ahead).unwrap_or_default());
        self.boottime_ahead = ahead;
        if time >= SUSPENSION {
            for bond in self.bonds.values_mut() {
                bond.fact(Event::Suspended { time }, self.reader.as_deref());
            }
        }
    }

    fn take_flags(&mut self) {
        let (events, links) = {
            let mut flags = locked(&self.flags);
            (std::mem::take(&mut flags.events), flags.links.take())
        };
        let reader = self.reader.as_deref();
        for bond in events {
            if let Some(bond) = self.bonds.get_mut(&bond) {
                bond.data_plane_events(reader);
            }
        }
        for (received, event) in links {
            for bond in self.bonds.values_mut() {
                bond.set_trigger(received);
                bond.device(&event, reader);
            }
        }
    }

    /// Timeouts that have passed, also while inputs keep coming.
    fn tick(&mut self) {
        let now = now();
        self.poll_together(now);
        for bond in self.bonds.values_mut() {
            if let Some(due) = bond.deadline().filter(|due| *due <= now) {
                bond.set_trigger(due);
                bond.fact(Event::Timeout, self.reader.as_deref());
            }
            bond.forget_polled();
            bond.log_misdirected(now);
        }
    }

    /// Polls the links of all bonds that are due, at once: most of them are as they were, and a system call for each
    /// slave would be most of what an agent of many bonds does.
    fn poll_together(&mut self, now: Time) {
        let Some(reader) = &self.reader else { return };
        let is_due = |bond: &&mut Running| bond.deadline().is_some_and(|due| due <= now);
        let mut due: Vec<&mut Running> = self.bonds.values_mut().filter(is_due).collect();
        let questions: Vec<_> = due.iter().map(|bond| bond.questions()).collect();
        let devices: Vec<_> = questions.iter().flatten().map(|(_, question)| *question).collect();
        // What remains unanswered is asked one by one.
        let mut answers = reader.with_link(&devices).unwrap_or_default().into_iter();
        for (bond, questions) in due.iter_mut().zip(questions) {
            let own = questions.into_iter().map(|(slot, _)| slot).zip(answers.by_ref());
            bond.polled(own.filter(|(_, has_link)| *has_link).map(|(slot, _)| slot));
        }
    }

    fn take(&mut self, input: Input) {
        let reader = self.reader.as_deref();
        match input {
            Input::Add(member) => {
                let id = member.id;
                self.bonds.insert(id, Running::start(*member, reader));
            }
            Input::Remove(id) => {
                self.bonds.remove(&id);
            }
            Input::CheckMaps => self.bonds.values_mut().for_each(|bond| bond.check_maps(reader)),
            Input::Ping { reply } => {
                let _ = reply.send(());
            }
            Input::OfBond(bond, input) => {
                // A dropped reply says that the bond is gone.
                if let Some(bond) = self.bonds.get_mut(&bond) {
                    bond.take(input, reader);
                }
            }
        }
    }
}
