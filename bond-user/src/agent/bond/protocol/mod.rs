//! The protocol of ACTIVE, GUARD and the announced rounds, explored in all orders of steps.
//!
//! Processors that send packets, the tick, agents, their deaths and their successors share the words of the maps. A step is one
//! load, one store or one compare-and-swap; what is decided between them is decided by the functions that run in the kernel
//! and in the agent: [`fail_over`](bond_common::guard::fail_over), [`decide`](bond_common::clock::decide::decide),
//! [`ClaimedRounds`](bond_common::clock::announce::ClaimedRounds), [`MissedFailovers`](super::missed_failovers). The model
//! explores every order of steps within a [`Scope`], and [`Fault`] plants mistakes that it has to find.
//! docs/internals/proof.md has the properties and the numbers of states.

mod agent;
mod data_plane;
mod state;
mod tests;

use stateright::{Model, Property};

use self::state::{AgentState, AgentStep, Cpu, State, Tick};

const BY_GUARD: &str = "the guard fails over";
const BY_TICK: &str = "the tick fails over";
const BY_AGENT: &str = "the agent fails over";
const TICK_CLAIMS: &str = "the tick claims a round";
const AGENT_CLAIMS: &str = "the agent claims a round";

/// How much of everything is explored.
#[derive(Clone, Copy, Debug)]
struct Scope {
    slots: u8,
    /// Packets of each processor.
    packets: [u8; 3],
    ticks: u8,
    /// Links that are lost or return.
    links: u8,
    /// Switches that an administrator asks for.
    requests: u8,
    /// Rounds that the agents try to announce, over those of the failovers that they make or follow.
    announcements: u8,
    /// Deaths of agents; each has a successor.
    deaths: u8,
    /// Times that 10 ms pass, which is the guard's pause and the period of the clock.
    pauses: u8,
    /// Times that agents are silent for so long that the tick acts for them.
    silences: u8,
    /// Records that EVENTS has room for.
    events: usize,
    /// Both agents run from the start, which the locks of the directory and of the namespace prevent.
    overlap: bool,
    fault: Fault,
}

/// A planted mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// A processor stores ACTIVE without comparing it.
    GuardStores,
    /// The tick stores ACTIVE without comparing it.
    TickStores,
    /// The agent stores ACTIVE without comparing it.
    AgentStores,
    /// The tick stores its turn without comparing it.
    TickClaims,
    /// The agent claims a round without looking whether ACTIVE has changed since it was read.
    StaleClaim,
    /// The agent publishes what it knows before its receipts are written.
    EarlyKnown,
    /// The agent does not look for receipts that its predecessor wrote before it died.
    ForgottenReceipts,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The next step of a processor's packet.
    Cpu(usize),
    Tick,
    /// The next step of what the agent has begun, or the check of ACTIVE and of the links.
    Agent(usize),
    /// The agent begins a switch that an administrator asks for.
    Request(usize),
    /// The agent begins a round of announcements.
    Announce(usize),
    /// An attempt to claim it.
    Claim(usize),
    /// A receipt reaches the disk.
    Write(usize),
    /// GUARD gets what is on record.
    Publish(usize),
    Death(usize),
    Successor(usize),
    Link(u8),
    Pause,
    Silence,
}

impl Model for Scope {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State::new(self)]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let left = &state.left;
        let busy = |cpu: usize| state.cpus[cpu] != Cpu::Idle || left.packets[cpu] > 0;
        actions.extend((0..state.cpus.len()).filter(|cpu| busy(*cpu)).map(Action::Cpu));
        if state.tick.step != Tick::Idle || left.ticks > 0 {
            actions.push(Action::Tick);
        }
        for (number, agent) in state.agents.iter().enumerate() {
            actions_of(agent, number, state, actions);
        }
        if left.links > 0 {
            actions.extend((0..self.slots).map(Action::Link));
        }
        if left.pauses > 0 {
            actions.push(Action::Pause);
        }
        if left.silences > 0 {
            actions.push(Action::Silence);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut next = last.clone();
        match action {
            Action::Cpu(cpu) => next.step_cpu(cpu, self),
            Action::Tick => next.step_tick(self),
            Action::Agent(agent) => next.step_agent(agent, self),
            Action::Request(agent) => next.request(agent, self),
            Action::Announce(agent) => next.begin_round(agent),
            Action::Claim(agent) => next.step_claim(agent, self),
            Action::Write(agent) => next.write_receipt(agent),
            Action::Publish(agent) => next.publish(agent),
            Action::Death(agent) => next.die(agent),
            Action::Successor(agent) => next.succeed(agent),
            Action::Link(slot) => next.toggle(slot),
            Action::Pause => next.pause(),
            Action::Silence => next.be_silent(),
        }
        // Processors are equal: one order of them stands for all.
        next.sort();
        (next != *last).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no change of ACTIVE is lost", |_, state: &State| !state.seen.is_lost),
            Property::always("each round is claimed once", |_, state: &State| !state.seen.is_claimed_twice),
            Property::always(
                "no failover goes without a receipt or a count",
                |scope: &Self, state: &State| scope.overlap || !state.seen.is_missed,
            ),
            Property::always("no failover has two receipts", |scope: &Self, state: &State| {
                scope.overlap || !state.seen.is_written_twice
            }),
            Property::always(
                "no change by the data plane is taken for a foreign one",
                |scope: &Self, state: &State| scope.overlap || !state.seen.is_foreign,
            ),
            Property::always(
                "the bond comes to rest on a link, and announced",
                |scope: &Self, state: &State| state.comes_to_rest(scope),
            ),
            // What makes the others mean something.
            Property::sometimes(BY_GUARD, |_: &Self, state: &State| state.seen.by.guard),
            Property::sometimes(BY_TICK, |_: &Self, state: &State| state.seen.by.tick),
            Property::sometimes(BY_AGENT, |_: &Self, state: &State| state.seen.by.agent),
            Property::sometimes(TICK_CLAIMS, |_: &Self, state: &State| state.seen.tick_claims),
            Property::sometimes(AGENT_CLAIMS, |_: &Self, state: &State| state.seen.agent_claims),
        ]
    }
}

fn actions_of(agent: &Option<AgentState>, number: usize, state: &State, actions: &mut Vec<Action>) {
    let left = &state.left;
    let Some(agent) = agent else {
        // The second agent of an overlap has no predecessor.
        if state.may_succeed(number) {
            actions.push(Action::Successor(number));
        }
        return;
    };
    actions.push(Action::Agent(number));
    if agent.step == AgentStep::Idle && left.requests > 0 {
        actions.push(Action::Request(number));
    }
    if agent.claim.is_some() {
        actions.push(Action::Claim(number));
    } else if left.announcements > 0 {
        actions.push(Action::Announce(number));
    }
    if !agent.open.is_empty() {
        actions.push(Action::Write(number));
    }
    if agent.publishes != state.shared.known {
        actions.push(Action::Publish(number));
    }
    if left.deaths > 0 {
        actions.push(Action::Death(number));
    }
}
