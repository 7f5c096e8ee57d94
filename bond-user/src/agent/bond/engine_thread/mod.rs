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
    collections::HashMap,
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

struct Loop {
    reader: Option<Arc<DeviceReader>>,
    bonds: HashMap<BondId, Running>,
    flags: Arc<Mutex<Flags>>,
    /// When it was read last: it grows while the machine is suspended.
    boottime_ahead: i128,
}

impl Loop {
    fn new(reader: Option<Arc<DeviceReader>>, flags: Arc<Mutex<Flags>>) -> Self {
        Self { reader, bonds: HashMap::new(), flags, boottime_ahead: boottime_ahead() }
    }

    fn run(mut self, inputs: &EngineInputs) {
        let EngineInputs { received, raised, .. } = inputs;
        loop {
            let next = self.bonds.values().filter_map(Running::deadline).min();
            let longest = if self.bonds.is_empty() { SLEEP } else { HEARTBEAT };
            let sleep = next.map_or(longest, |next| next.saturating_sub(now()).min(longest));
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
