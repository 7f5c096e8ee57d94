//! The world of a run: a kernel in memory, the programs of each bond, an agent, and the time that passes for all of them.
//!
//! The world's events are in one queue. Between two of them the agent runs, on its own runtime, up to the time of the next
//! one. Ticks of a clock take place in each period as long as something may follow from them; of a quiet bond they are
//! skipped, a second at once.

mod bond;
pub mod check;
mod data_plane;
mod happen;
mod links;
mod process;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{Arc, Mutex, PoisonError},
};

use bond_common::mac::Mac;
use bond_core::name::BondName;
use bond_user::{
    agent::simulated::SimulatedMachine,
    config::BondConfig,
    sys::fake::{FakeKernel, random},
};
use nix::errno::Errno;
use tempfile::TempDir;
use tokio::runtime::Handle;

use self::{
    bond::Bond,
    check::{Violation, restored::Nics},
    links::LinkEvents,
};
use crate::{Outcome, plan::Plan, take_panic};

pub use self::{
    data_plane::{Programs, Sent},
    process::{Clocks, Process, Request, Start},
};

/// When the world begins, in milliseconds of CLOCK_MONOTONIC: not at zero, which means never.
const BEGIN: u64 = 1_000_000;
/// How long after an event ticks are made one by one, in milliseconds, besides the delays of the bond.
const HOT: u64 = 1_500;
/// How long ticks are skipped at once.
const COLD: u64 = 500;
/// How long an agent that ended with an error stays away, as systemd's RestartSec.
const RESTART: u64 = 1_000;
/// How long the world is left alone before what must hold in quiet is checked.
const QUIET: u64 = 6_000;
/// How long the end of a run may take.
const END_AT_MOST: u64 = 120_000;

/// What is to be done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// The event of the plan at this place.
    Event(usize),
    /// The next link event that is late arrives.
    LinkEvent,
    /// The socket reports that link events were lost.
    Overrun,
    /// Link events are in time again.
    LinksInTime,
    /// RTNL is released.
    Rtnl,
    /// An agent is started.
    Start,
    /// The agent continues.
    Continue,
    /// Ticks of a bond.
    Tick(usize),
    /// The agent's process is looked after.
    Look,
}

/// A call that is to fail: after so many others, with this error, before or after its work.
type Fault = (u16, Errno, bool);

/// The world of one run.
pub struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) names: Vec<BondName>,
    configs: Vec<BondConfig>,
    /// The bonds that files have now.
    of_files: Vec<bool>,
    pub(crate) kernel: FakeKernel,
    pub(crate) machine: SimulatedMachine,
    pub(crate) process: Option<Process>,
    /// Until then the process is stopped.
    stopped_until: Option<u64>,
    /// Since when an agent has run without being stopped; `None` if none runs.
    runs_since: Option<u64>,
    pub(crate) clocks: Clocks,
    /// When an agent began to run last, or to be stopped, or ended.
    changed_at: u64,
    due: BinaryHeap<Reverse<(u64, u64, Due)>>,
    /// So many entries were made: those of one time are taken in this order.
    made: u64,
    pub(crate) bonds: Vec<Bond>,
    links: LinkEvents,
    rtnl_held_until: u64,
    faults: Arc<Mutex<Vec<Fault>>>,
    /// An agent that is killed at a call comes back after so long.
    comes_back_after: u64,
    pub(crate) nics: Nics,
    fingerprint: u64,
    violation: Option<Violation>,
    /// No further event: it is being taken down.
    is_ending: bool,
    _directory: TempDir,
}

impl<'a> World<'a> {
    /// Creates the world of a plan.
    ///
    /// # Errors
    /// A directory cannot be made, or the configuration is refused.
    pub fn new(plan: &'a Plan) -> anyhow::Result<Self> {
        // found.json is synchronized to disk before each change: in memory that takes no time.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        random::seed(Some(plan.seed));
        let kernel = FakeKernel::default();
        kernel.set_netkit(plan.setup.has_netkit);
        let nics = Nics::plug_in(&kernel, &plan.setup);
        let faults = Arc::<Mutex<Vec<Fault>>>::default();
        judge_calls(&kernel, &faults);
        let machine =
            SimulatedMachine::new(kernel.clone(), directory.path().to_owned(), plan.setup.has_reader)?;
        let names = plan.setup.names();
        let mut world = Self {
            plan,
            configs: plan.setup.configs()?,
            of_files: vec![true; names.len()],
            machine,
            process: None,
            stopped_until: None,
            runs_since: None,
            clocks: Clocks { now: BEGIN, suspended: 0, wall: 1_700_000_000_000 },
            changed_at: BEGIN,
            due: BinaryHeap::new(),
            made: 0,
            bonds: names.iter().zip(&plan.setup.bonds).map(|(name, setup)| Bond::new(name, setup)).collect(),
            names,
            links: LinkEvents::new(plan.setup.usual_delay),
            rtnl_held_until: 0,
            faults,
            comes_back_after: RESTART,
            nics,
            kernel,
            fingerprint: 0,
            violation: None,
            is_ending: false,
            _directory: directory,
        };
        world.plan_at(BEGIN, Due::Start);
        for (place, timed) in plan.events.iter().enumerate() {
            world.plan_at(BEGIN + timed.at, Due::Event(place));
        }
        for bond in 0..world.bonds.len() {
            world.plan_at(BEGIN + COLD, Due::Tick(bond));
        }
        Ok(world)
    }

    /// Runs to the end, or to what does not hold.
    ///
    /// # Errors
    /// An agent cannot be started for a reason of the simulator's.
    pub fn run(mut self) -> anyhow::Result<Outcome> {
        self.run_until(BEGIN + self.plan.duration)?;
        if self.violation.is_none() {
            self.heal();
            self.run_until(self.clocks.now + QUIET)?;
            self.wait_until_settled()?;
            check::at_rest(&mut self);
        }
        if self.violation.is_none() {
            self.take_down()?;
        }
        let failovers = self.bonds.iter().map(|bond| bond.records.failovers()).sum();
        self.process = None;
        let time = self.clocks.now - BEGIN;
        Ok(Outcome { time, fingerprint: self.fingerprint, violation: self.violation, failovers })
    }

    fn plan_at(&mut self, at: u64, due: Due) {
        self.made += 1;
        self.due.push(Reverse((at, self.made, due)));
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        let at = self.clocks.now - BEGIN;
        self.violation.get_or_insert_with(|| Violation { at, what: what.into() });
    }

    /// Takes what is due until this time, in milliseconds.
    fn run_until(&mut self, until: u64) -> anyhow::Result<()> {
        while self.violation.is_none() {
            let next = self.due.peek().map(|Reverse((at, ..))| *at).filter(|at| *at <= until);
            self.advance(next.unwrap_or(until))?;
            let Some(at) = next else { break };
            while let Some(Reverse((due_at, _, due))) = self.due.pop_if_due(at) {
                debug_assert!(due_at <= at);
                self.take(due)?;
            }
            self.observe();
        }
        Ok(())
    }

    /// Lets the agent run up to this time.
    fn advance(&mut self, to: u64) -> anyhow::Result<()> {
        self.clocks.now = self.clocks.now.max(to);
        if self.stopped_until.is_some() {
            return Ok(());
        }
        if let Some(process) = &self.process
            && process.run_until(&self.kernel, self.clocks)
        {
            // It has ended at a call.
            let back = self.comes_back_after;
            self.kill(back);
        }
        self.look();
        Ok(())
    }

    /// Looks after the agent's process.
    fn look(&mut self) {
        if let Some(panic) = take_panic() {
            return self.fail(format!("a part of the agent has panicked: {panic}"));
        }
        let now = self.clocks.now;
        let Some(process) = &mut self.process else { return };
        let waiting = process.agent().waiting_inputs();
        match process.started() {
            Start::UnderWay => {}
            Start::Done if self.runs_since.is_none() => {
                (self.runs_since, self.changed_at) = (Some(now), now);
                self.heat();
            }
            Start::Done => {}
            Start::Failed(why) => {
                self.note(&format!("the agent does not start: {why}"));
                self.kill(RESTART);
                return;
            }
        }
        let Some(process) = &mut self.process else { return };
        let answers = process.answers();
        let ended = process.ended();
        if waiting > 512 {
            self.fail(format!("{waiting} inputs wait for the engine"));
        }
        for (what, answer) in answers {
            self.note(&format!("{what}: {answer:?}"));
            self.heat();
        }
        if let Some(ended) = ended {
            self.note(&format!("the agent has ended: {ended:?}"));
            let back = self.comes_back_after;
            self.kill(back);
        }
    }

    /// Returns whether an agent runs that is not stopped, and since when that is so, or not.
    pub(crate) fn machinery(&self) -> (bool, u64) {
        (self.runs_since.is_some() && self.stopped_until.is_none(), self.changed_at)
    }

    /// Ends the agent where it is, and starts another one after so many milliseconds.
    fn kill(&mut self, ms: u64) {
        let Some(process) = self.process.take() else { return };
        for (bond, name) in self.bonds.iter_mut().zip(&self.names) {
            bond.records.agent_ends(process.agent().unrecorded(name));
        }
        self.kernel.listen_no_more();
        self.kernel.stop_after(None);
        // That it was notified once more is not for the next one.
        let stopped = self.kernel.stopped();
        process.inside(self.clocks, async {
            tokio::select! {
                biased;
                () = stopped.notified() => {}
                () = std::future::ready(()) => {}
            }
        });
        drop(process);
        drop(take_panic());
        self.links.forget();
        self.faults().clear();
        (self.runs_since, self.stopped_until, self.changed_at) = (None, None, self.clocks.now);
        self.plan_at(self.clocks.now + ms.max(1), Due::Start);
        self.heat();
    }

    fn start(&mut self) -> anyhow::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let configs = self.configs.iter().zip(&self.of_files).filter(|(_, of_files)| **of_files);
        let configs: Vec<_> = configs.map(|(config, _)| config.clone()).collect();
        if configs.is_empty() {
            return Ok(());
        }
        let process = Process::start(&self.machine, self.clocks, configs)?;
        self.links.listen(&self.kernel, process.agent());
        self.process = Some(process);
        self.comes_back_after = RESTART;
        self.heat();
        Ok(())
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Vec<Fault>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has happened: what follows is followed tick by tick.
    fn heat(&mut self) {
        let now = self.clocks.now;
        for number in 0..self.bonds.len() {
            let Some(bond) = self.bonds.get_mut(number) else { continue };
            let was_cold = bond.hot_until < now;
            bond.hot_until = now + HOT + bond.delays;
            if was_cold {
                let at = now + bond.period - now % bond.period;
                bond.next_tick = at;
                self.plan_at(at, Due::Tick(number));
            }
        }
    }

    fn take(&mut self, due: Due) -> anyhow::Result<()> {
        let runtime = self.process.as_ref().map(Process::runtime);
        let _clocks = runtime.as_ref().map(Handle::enter);
        match due {
            Due::Event(place) => {
                if let Some(timed) = self.plan.events.get(place) {
                    self.note(&format!("# {}: {}", timed.number, timed.event));
                    self.happen(&timed.event);
                    self.heat();
                }
            }
            Due::LinkEvent => self.links.deliver_late(self.clocks.now, self.process.as_ref()),
            Due::Overrun => self.links.overrun(self.process.as_ref()),
            Due::LinksInTime => self.links.set_late(None),
            Due::Rtnl if self.clocks.now >= self.rtnl_held_until => self.kernel.set_rtnl_held(false),
            Due::Rtnl => {}
            Due::Start => self.start()?,
            Due::Continue => self.resume(),
            Due::Tick(bond) => self.tick(bond),
            Due::Look => {}
        }
        for at in self.links.take_new(self.clocks.now) {
            self.plan_at(at, Due::LinkEvent);
        }
        Ok(())
    }

    fn resume(&mut self) {
        if self.stopped_until.is_none_or(|until| until > self.clocks.now) {
            return;
        }
        (self.stopped_until, self.changed_at) = (None, self.clocks.now);
        if let Some(process) = &self.process {
            process.pass(self.clocks);
            self.runs_since = self.runs_since.map(|_| self.clocks.now);
        }
        self.heat();
    }

    /// A line of the run's history, which is part of its fingerprint.
    fn note(&mut self, line: &str) {
        crate::report::line(self.clocks.now - BEGIN, line);
        for byte in line.bytes() {
            self.mix(u64::from(byte));
        }
        self.mix(self.clocks.now);
    }

    pub(crate) fn mix(&mut self, value: u64) {
        const PRIME: u64 = 0x0000_0100_0000_01b3;
        self.fingerprint = (self.fingerprint ^ value).wrapping_mul(PRIME).rotate_left(5);
    }
}

/// The queue, which is asked for what is due at one time.
trait PopIfDue {
    fn pop_if_due(&mut self, at: u64) -> Option<Reverse<(u64, u64, Due)>>;
}

impl PopIfDue for BinaryHeap<Reverse<(u64, u64, Due)>> {
    fn pop_if_due(&mut self, at: u64) -> Option<Reverse<(u64, u64, Due)>> {
        let is_due = self.peek().is_some_and(|Reverse((due, ..))| *due <= at);
        is_due.then(|| self.pop()).flatten()
    }
}

/// Has calls fail that are to fail.
fn judge_calls(kernel: &FakeKernel, faults: &Arc<Mutex<Vec<Fault>>>) {
    use bond_user::sys::fake::When;
    let faults = Arc::clone(faults);
    kernel.judge_calls(move |_| {
        let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failure = None;
        faults.retain_mut(|(left, errno, is_done)| {
            let is_due = *left == 0;
            *left = left.saturating_sub(1);
            if is_due {
                failure = Some((*errno, if *is_done { When::After } else { When::Before }));
            }
            !is_due
        });
        failure
    });
}

/// Returns the MAC address of the NIC with this number.
pub fn mac_of(nic: usize) -> Mac {
    Mac::new([2, 0, 0, 0, (nic >> 8) as u8, nic as u8 + 1])
}
