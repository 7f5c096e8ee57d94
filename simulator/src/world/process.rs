//! One agent's process: its runtime, with a clock that goes only as far as the world lets it.

use std::{future::Future, time::Duration};

use bond_user::{
    agent::{
        AgentError,
        simulated::{SimulatedAgent, SimulatedMachine},
    },
    config::BondConfig,
    sys::fake::{
        FakeKernel,
        time::{VirtualClock, set_clock},
    },
};
use tokio::{
    runtime::{self, Handle, Runtime},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// CLOCK_MONOTONIC in milliseconds.
    pub now: u64,
    /// For how long the machine was suspended, in milliseconds.
    pub suspended: u64,
    /// The time of day minus CLOCK_MONOTONIC, in milliseconds.
    pub wall: u64,
}

/// A request that an agent has not answered yet.
pub struct Request {
    /// What it was, for messages.
    pub what: String,
    /// When it was made, in milliseconds.
    pub since: u64,
    task: JoinHandle<Result<(), String>>,
}

/// An agent that runs. Dropping it is kill -9.
pub struct Process {
    // First: its tasks end before what they share.
    runtime: Runtime,
    agent: SimulatedAgent,
    origin: Instant,
    began: u64,
    start: Option<JoinHandle<Result<(), AgentError>>>,
    requests: Vec<Request>,
    /// SIGTERM: its orderly end.
    end: Option<JoinHandle<Result<(), AgentError>>>,
}

/// What became of an agent's start.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    /// It continues.
    UnderWay,
    Done,
    /// The agent ends.
    Failed(String),
}

impl Process {
    /// Starts an agent.
    ///
    /// # Errors
    /// There is one already, or its files cannot be used.
    pub fn start(machine: &SimulatedMachine, clocks: Clocks, bonds: Vec<BondConfig>) -> anyhow::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let origin = runtime.block_on(async { Instant::now() });
        clock(origin, clocks.now, clocks);
        let agent = runtime.block_on(async { machine.start_agent() })?;
        let start = {
            let agent = agent.clone();
            runtime.spawn(async move { agent.live(bonds).await })
        };
        let (began, start) = (clocks.now, Some(start));
        Ok(Self { runtime, agent, origin, began, start, requests: Vec::new(), end: None })
    }

    /// Returns the runtime, in whose context the clocks of this thread can be read.
    pub fn runtime(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// Returns the agent.
    pub fn agent(&self) -> &SimulatedAgent {
        &self.agent
    }

    /// Runs until this time, in milliseconds, or until the process ends at a call. Returns whether it has ended.
    pub fn run_until(&self, kernel: &FakeKernel, clocks: Clocks) -> bool {
        clock(self.origin, self.began, clocks);
        let until = self.origin + Duration::from_millis(clocks.now.saturating_sub(self.began));
        let stopped = kernel.stopped();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = stopped.notified() => true,
                () = sleep_until(until) => false,
            }
        })
    }

    /// Lets this time pass without the process: it was stopped.
    pub fn pass(&self, clocks: Clocks) {
        clock(self.origin, self.began, clocks);
        let until = self.origin + Duration::from_millis(clocks.now.saturating_sub(self.began));
        self.runtime.block_on(async { tokio::time::advance(until - Instant::now()).await });
    }

    /// Does something inside of the process.
    pub fn inside<T>(&self, clocks: Clocks, work: impl Future<Output = T>) -> T {
        clock(self.origin, self.began, clocks);
        self.runtime.block_on(work)
    }

    /// Makes a request.
    pub fn request<F, T, E>(&mut self, now: u64, what: String, ask: impl FnOnce(SimulatedAgent) -> F)
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let answer = ask(self.agent.clone());
        let task =
            self.runtime.spawn(async move { answer.await.map(drop).map_err(|error| error.to_string()) });
        self.requests.push(Request { what, since: now, task });
    }

    /// Returns what became of the start, until it has been said once.
    pub fn started(&mut self) -> Start {
        match self.start.take() {
            None => Start::Done,
            Some(start) if !start.is_finished() => {
                self.start = Some(start);
                Start::UnderWay
            }
            Some(start) => match self.runtime.block_on(start) {
                Ok(Ok(())) => Start::Done,
                Ok(Err(error)) => Start::Failed(error.to_string()),
                Err(error) => Start::Failed(error.to_string()),
            },
        }
    }

    /// Returns the answers of requests since the last call: what each was, and its error.
    pub fn answers(&mut self) -> Vec<(String, Result<(), String>)> {
        let (done, left) = std::mem::take(&mut self.requests)
            .into_iter()
            .partition::<Vec<_>, _>(|request| request.task.is_finished());
        self.requests = left;
        let answer = |request: Request| {
            let answer = self.runtime.block_on(request.task);
            (request.what, answer.unwrap_or_else(|error| Err(error.to_string())))
        };
        done.into_iter().map(answer).collect()
    }

    /// Returns the request that waits longest for its answer.
    pub fn oldest_request(&self) -> Option<&Request> {
        self.requests.first()
    }

    /// Lets the agent end as after SIGTERM.
    pub fn terminate(&mut self) {
        if self.end.is_none() {
            let agent = self.agent.clone();
            self.end = Some(self.runtime.spawn(async move { agent.end().await }));
        }
    }

    /// Returns whether the agent is ending.
    pub fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// Returns the error with which the agent has ended, or none; `None` if it has not ended.
    pub fn ended(&mut self) -> Option<Result<(), String>> {
        let end = self.end.take_if(|end| end.is_finished())?;
        let answer = self.runtime.block_on(end);
        Some(
            answer.map_or_else(
                |error| Err(error.to_string()),
                |answer| answer.map_err(|error| error.to_string()),
            ),
        )
    }
}

/// Sets the clocks of this thread: those of a machine of which this is the present time.
fn clock(origin: Instant, began: u64, clocks: Clocks) {
    set_clock(Some(VirtualClock {
        origin,
        monotonic: Duration::from_millis(began),
        suspended: Duration::from_millis(clocks.suspended),
        wall: Duration::from_millis(began + clocks.suspended + clocks.wall),
    }));
}
