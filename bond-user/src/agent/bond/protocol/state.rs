//! What processors, tick and agents share, and where each of them is.

use bond_common::{
    abi::{ActiveWord, GuardEntry, Rank, Slot},
    clock::{
        announce::ClaimedRounds,
        decide::{Cause, LinkTimes},
        layout::ClockEntry,
    },
    event::EventRecord,
};

use super::Scope;

/// The guard's pause, the period of the clock, and the time between rounds, in nanoseconds.
pub const PAUSE: u64 = GuardEntry::PAUSE;
/// The rounds that are wanted after a failover.
pub const ROUNDS: u8 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub shared: Shared,
    pub cpus: Vec<Cpu>,
    pub tick: Ticker,
    pub agents: Vec<Option<AgentState>>,
    pub disk: Disk,
    pub left: Left,
    pub seen: Seen,
}

/// The maps, and what is outside of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shared {
    pub active: ActiveWord,
    /// GUARD: the time of the last failover by the data plane.
    pub switched_at: u64,
    /// GUARD: ACTIVE as of the last receipt.
    pub known: ActiveWord,
    pub turn: ClaimedRounds,
    pub claimed_at: u64,
    pub agent_seen: u64,
    pub events: Vec<EventRecord>,
    /// A bit for each slot whose device has a link.
    pub links: u16,
    pub now: u64,
}

/// Where a packet is that found no link: [`super::data_plane`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cpu {
    Idle,
    /// It was assigned to this slot, whose device has no link.
    Dead {
        slot: Slot,
    },
    /// It has read ACTIVE, GUARD and the time; devices had these links then.
    Decides {
        word: ActiveWord,
        switched_at: u64,
        now: u64,
        links: u16,
    },
    Swaps {
        word: ActiveWord,
        next: ActiveWord,
        now: u64,
    },
    /// It has failed over, and notes the time in GUARD.
    Notes {
        next: ActiveWord,
        now: u64,
    },
    Records {
        next: ActiveWord,
        now: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tick {
    Idle,
    Swaps {
        word: ActiveWord,
        next: ActiveWord,
        cause: Cause,
    },
    Notes {
        next: ActiveWord,
        cause: Cause,
    },
    Records {
        next: ActiveWord,
        cause: Cause,
    },
    /// The links are done; ACTIVE is read for the announcements.
    Reads,
    /// It has read ACTIVE, and reads the turn.
    Turns {
        word: ActiveWord,
    },
    Claims {
        turn: ClaimedRounds,
        next: ClaimedRounds,
    },
}

/// What the tick keeps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticker {
    pub step: Tick,
    pub links: LinkTimes,
    pub switched_at: u64,
    pub noticed: u64,
    pub now: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AgentState {
    /// ACTIVE as the engine knows it.
    pub known: ActiveWord,
    /// What may be in GUARD.
    pub publishes: ActiveWord,
    /// Receipts to write.
    pub open: Vec<FailoverLine>,
    /// The generations of failovers that they are about.
    pub pending: Vec<u32>,
    /// Records of failovers after what ACTIVE is known to be.
    pub unfollowed: Vec<EventRecord>,
    /// When ACTIVE was changed or followed last.
    pub switched_at: u64,
    pub followed_at: u64,
    /// The rounds of one failover that it has sent: its [`ActiveWord::switches`], and the number.
    pub rounds: (u8, u8),
    /// Where the engine thread is.
    pub step: AgentStep,
    /// Where the announcer is, a task of its own.
    pub claim: Option<RoundClaim>,
}

/// A round that the announcer is about to claim: for the word, and of the turn, that it has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoundClaim {
    pub word: ActiveWord,
    pub round: u8,
    pub turn: ClaimedRounds,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AgentStep {
    Idle,
    /// ACTIVE holds this, which is not what is known.
    Found(ActiveWord),
    Swaps {
        next: ActiveWord,
    },
    /// It has taken over, and reads what was missed.
    Adopts {
        word: ActiveWord,
        known: ActiveWord,
    },
}

/// A failover: the generation, and the slave that is active since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailoverLine {
    pub generation: u32,
    pub to: Option<Slot>,
}

/// receipts.ndjson.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Disk {
    /// As they were written.
    pub receipts: Vec<FailoverLine>,
}

/// How much of the scope is left.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    pub packets: Vec<u8>,
    pub ticks: u8,
    pub links: u8,
    pub requests: u8,
    pub announcements: u8,
    pub deaths: u8,
    pub pauses: u8,
    pub silences: u8,
}

/// What happened, for the properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Generations with which the active slave changed.
    pub failovers: Vec<u32>,
    /// Those that are on a receipt or in a count that was reported.
    pub accounted: Vec<u32>,
    /// Rounds that were claimed: [`ActiveWord::switches`], and the number.
    pub rounds: Vec<(u8, u8)>,
    pub is_lost: bool,
    pub is_claimed_twice: bool,
    pub is_missed: bool,
    pub is_written_twice: bool,
    pub is_foreign: bool,
    pub by: By,
    pub tick_claims: bool,
    pub agent_claims: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct By {
    pub guard: bool,
    pub tick: bool,
    pub agent: bool,
}

/// Who changes ACTIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    Guard,
    Tick,
    Agent,
}

pub fn rank() -> Rank {
    Rank::new([])
}

impl State {
    /// A bond whose agent knows and has announced everything; slot 0 is active.
    pub fn new(scope: &Scope) -> Self {
        let all = (1 << scope.slots) - 1;
        let active = ActiveWord::default().next(Slot::new(0), None, all);
        let turn = (0..ROUNDS).fold(ClaimedRounds::default(), |turn, _| turn.claim(active, ROUNDS));
        let now = 1000 * PAUSE;
        let shared = Shared {
            active,
            switched_at: 0,
            known: active,
            turn,
            claimed_at: 0,
            agent_seen: now,
            events: Vec::new(),
            links: all,
            now,
        };
        let noticed = u64::from(active.switches()) + 1;
        let links = LinkTimes::default();
        let tick = Ticker { step: Tick::Idle, links, switched_at: 0, noticed, now };
        let agent = || Some(AgentState::knowing(active, (active.switches(), ROUNDS), now));
        let left = Left {
            packets: scope.packets.to_vec(),
            ticks: scope.ticks,
            links: scope.links,
            requests: scope.requests,
            announcements: scope.announcements,
            deaths: scope.deaths,
            pauses: scope.pauses,
            silences: scope.silences,
        };
        Self {
            shared,
            cpus: vec![Cpu::Idle; 3],
            tick,
            agents: vec![agent(), agent().filter(|_| scope.overlap)],
            disk: Disk::default(),
            left,
            seen: Seen::default(),
        }
    }

    /// Changes ACTIVE by compare-and-swap; by a store, if the writer is at fault.
    pub fn swap(
        &mut self,
        seen: ActiveWord,
        next: ActiveWord,
        (writer, is_store): (Writer, bool),
    ) -> Result<(), ActiveWord> {
        let there = self.shared.active;
        if there != seen && !is_store {
            return Err(there);
        }
        self.seen.is_lost |= there != seen;
        if there.active() != next.active() {
            self.seen.failovers.push(next.generation());
            let by = &mut self.seen.by;
            *(match writer {
                Writer::Guard => &mut by.guard,
                Writer::Tick => &mut by.tick,
                Writer::Agent => &mut by.agent,
            }) = true;
        }
        self.shared.active = next;
        Ok(())
    }

    /// Notes a claim of a round, which is sent then.
    pub fn claimed(&mut self, turn: ClaimedRounds) {
        let round = (turn.switches(), turn.rounds());
        self.seen.is_claimed_twice |= self.seen.rounds.contains(&round);
        self.seen.rounds.push(round);
        self.shared.turn = turn;
    }

    /// Sends a record, if EVENTS has room.
    pub fn send(&mut self, record: EventRecord, scope: &Scope) {
        if self.shared.events.len() < scope.events {
            self.shared.events.push(record);
        }
    }

    /// Returns CLOCK.
    pub fn clock(&self) -> ClockEntry {
        ClockEntry {
            period: PAUSE,
            flags: ClockEntry::LINKS,
            rounds: ROUNDS.into(),
            round_interval: PAUSE,
            agent_seen: self.shared.agent_seen,
            ..ClockEntry::default()
        }
    }

    /// Returns whether the device of a slot has a link.
    pub fn has_link(&self, slot: Slot) -> bool {
        self.shared.links & slot.bit() != 0
    }

    pub fn toggle(&mut self, slot: u8) {
        self.left.links -= 1;
        self.shared.links ^= 1 << slot;
    }

    pub fn pause(&mut self) {
        self.left.pauses -= 1;
        self.shared.now += PAUSE;
    }

    pub fn be_silent(&mut self) {
        self.left.silences -= 1;
        self.shared.now += ClockEntry::AGENT_SILENCE + 1;
    }

    /// Puts the processors in order.
    pub fn sort(&mut self) {
        let mut cpus: Vec<_> = self.cpus.drain(..).zip(self.left.packets.drain(..)).collect();
        cpus.sort_by_key(|(cpu, left)| (cpu.key(), *left));
        (self.cpus, self.left.packets) = cpus.into_iter().unzip();
    }

    /// Returns whether nothing that was begun is left to do, and nothing will happen to the devices.
    fn is_quiet(&self) -> bool {
        let agents_idle = self.agents.iter().flatten().all(AgentState::is_idle);
        let is_begun = self.tick.step != Tick::Idle || self.cpus.iter().any(|cpu| *cpu != Cpu::Idle);
        self.left.links == 0 && agents_idle && !is_begun
    }

    /// Lets the clock tick on, and the agents work, while the devices stay as they are. Returns whether the bond comes to rest
    /// with a link, if there is one, and with all rounds announced. True while something is still to happen.
    pub fn comes_to_rest(&self, scope: &Scope) -> bool {
        if !self.is_quiet() {
            return true;
        }
        let mut state = self.clone();
        // Longer than an agent may be silent, and than rounds take.
        for _ in 0..40 {
            state.shared.now += PAUSE;
            state.left.ticks = 1;
            state.left.announcements = 1;
            while state.left.ticks > 0 || state.tick.step != Tick::Idle {
                state.step_tick(scope);
            }
            for agent in 0..state.agents.len() {
                state.work_off(agent, scope);
            }
        }
        let word = state.shared.active;
        let is_live = word.active().is_some_and(|slot| state.has_link(slot));
        let is_announced = state.shared.turn.is_of(word) && state.shared.turn.rounds() >= ROUNDS;
        state.shared.links == 0 || is_live && is_announced
    }
}

impl Cpu {
    /// An order of the steps.
    fn key(&self) -> (u8, u64, u64, u64) {
        match *self {
            Self::Idle => (0, 0, 0, 0),
            Self::Dead { slot } => (1, slot.index() as u64, 0, 0),
            Self::Decides { word, switched_at, now, links } => {
                (2, word.bits(), switched_at, now << 16 | u64::from(links))
            }
            Self::Swaps { word, next, now } => (3, word.bits(), next.bits(), now),
            Self::Notes { next, now } => (4, next.bits(), now, 0),
            Self::Records { next, now } => (5, next.bits(), now, 0),
        }
    }
}

impl AgentState {
    /// An agent with nothing to do.
    pub fn knowing(word: ActiveWord, rounds: (u8, u8), now: u64) -> Self {
        Self {
            known: word,
            publishes: word,
            open: Vec::new(),
            pending: Vec::new(),
            unfollowed: Vec::new(),
            switched_at: 0,
            followed_at: now,
            rounds,
            step: AgentStep::Idle,
            claim: None,
        }
    }

    pub fn is_idle(&self) -> bool {
        self.step == AgentStep::Idle && self.claim.is_none()
    }
}
