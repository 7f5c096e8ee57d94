//! The steps of an agent: the engine thread (`engine_thread/follow`), the announcer, the receipt writer and the ledger, and an
//! adoption (`lifecycle/adopt/identity`).

use bond_common::{
    abi::{ActiveWord, Slot},
    event::EventRecord,
};
use bond_core::Time;

use super::{
    Fault, Scope,
    state::{AgentState, AgentStep, FailoverLine, ROUNDS, RoundClaim, State, Writer, rank},
};
use crate::agent::bond::missed_failovers::{Known, MissedChange, MissedFailovers};

impl State {
    fn agent(&mut self, agent: usize) -> &mut AgentState {
        self.agents[agent].as_mut().expect("it runs")
    }

    /// The next step of what the agent has begun. An idle one compares ACTIVE with what it knows, and the links.
    pub fn step_agent(&mut self, number: usize, scope: &Scope) {
        self.shared.agent_seen = self.shared.now;
        let (word, links) = (self.shared.active, self.shared.links);
        let agent = self.agent(number);
        let next = match agent.step {
            AgentStep::Idle if word != agent.known => AgentStep::Found(word),
            AgentStep::Idle => elected(word, links).map_or(AgentStep::Idle, |next| AgentStep::Swaps { next }),
            AgentStep::Found(found) => self.follow(number, found),
            AgentStep::Swaps { next } => self.switch(number, next, scope),
            AgentStep::Adopts { word, known } => self.adopt(number, (word, known), scope),
        };
        let agent = self.agent(number);
        agent.step = next;
        if agent.open.is_empty() || scope.fault == Fault::EarlyKnown {
            agent.publishes = agent.known;
        }
    }

    fn switch(&mut self, number: usize, next: ActiveWord, scope: &Scope) -> AgentStep {
        let now = self.shared.now;
        let known = self.agent(number).known;
        match self.swap(known, next, (Writer::Agent, scope.fault == Fault::AgentStores)) {
            Ok(()) => {
                let agent = self.agent(number);
                agent.known = next;
                agent.switched_at = now;
                if known.active() != next.active() {
                    agent.open.push(receipt(next));
                    agent.pending.push(next.generation());
                }
                AgentStep::Idle
            }
            Err(found) => AgentStep::Found(found),
        }
    }

    /// Reads EVENTS, and takes what ACTIVE holds for known.
    fn follow(&mut self, number: usize, found: ActiveWord) -> AgentStep {
        let (now, switched_at) = (self.shared.now, self.shared.switched_at);
        let records: Vec<_> = std::mem::take(&mut self.shared.events);
        let agent = self.agent(number);
        agent.unfollowed.extend(records.iter().filter(|record| MissedChange::of(record).is_some()));
        let records = std::mem::take(&mut agent.unfollowed);
        let known = Known {
            word: agent.known,
            at: Time::from_nanos(agent.switched_at.max(agent.followed_at)),
            switched_at: Time::from_nanos(switched_at),
            now: Time::from_nanos(now),
        };
        agent.unfollowed = records.iter().filter(|record| is_after(record, found)).copied().collect();
        let missed = MissedFailovers::new(known, found, records);
        let last_at = missed
            .changes
            .last()
            .map_or(switched_at, |last| u64::try_from(last.at.as_nanos()).unwrap_or(u64::MAX));
        agent.followed_at = if last_at > agent.switched_at { last_at } else { now };
        let before = agent.known;
        agent.known = found;
        self.account(number, before, &missed);
        AgentStep::Idle
    }

    /// Begins the receipts of what was missed since `before`.
    fn account(&mut self, number: usize, before: ActiveWord, missed: &MissedFailovers) {
        let mut receipts = Vec::new();
        let mut active = before.active();
        // As the engine reports them: one that leads back to the same slave was preceded by others.
        for change in missed.changes.iter().filter(|change| change.for_engine().is_failover()) {
            receipts.push(receipt(change.word));
            active = change.word.active();
        }
        if active != missed.word.active() {
            receipts.push(receipt(missed.word));
        }
        let is_between = |generation: &&u32| {
            let since = generation.wrapping_sub(before.generation());
            since > 0 && since <= missed.word.generation().wrapping_sub(before.generation())
        };
        let failovers: Vec<_> = self.seen.failovers.iter().filter(is_between).copied().collect();
        self.seen.is_missed |= failovers.len() > receipts.len() + missed.unrecorded as usize;
        self.seen.is_foreign |= missed.is_foreign;
        let agent = self.agent(number);
        agent.pending.extend(failovers);
        agent.open.extend(receipts);
        if agent.open.is_empty() {
            let counted = std::mem::take(&mut agent.pending);
            self.seen.accounted.extend(counted);
        }
    }

    /// Begins a switch to another slave with a link.
    pub fn request(&mut self, number: usize, scope: &Scope) {
        self.left.requests -= 1;
        self.shared.agent_seen = self.shared.now;
        let known = self.agent(number).known;
        let is_other = |slot: &Slot| Some(*slot) != known.active() && self.has_link(*slot);
        let other = Slot::all().take(scope.slots.into()).find(is_other);
        if let Some(slot) = other {
            let next = known.next(Some(slot), known.active(), known.usable() | slot.bit());
            self.agent(number).step = AgentStep::Swaps { next };
        }
    }

    /// Begins a round of the announcements of what ACTIVE holds.
    pub fn begin_round(&mut self, number: usize) {
        self.left.announcements -= 1;
        self.shared.agent_seen = self.shared.now;
        let (word, turn) = (self.shared.active, self.shared.turn);
        let agent = self.agent(number);
        if agent.rounds.0 != word.switches() {
            agent.rounds = (word.switches(), 0);
        }
        if word.active().is_none() || agent.rounds.1 >= ROUNDS {
            return;
        }
        agent.rounds.1 += 1;
        agent.claim = Some(RoundClaim { word, round: agent.rounds.1, turn });
    }

    /// One attempt to claim a round, as in `words::claim_round`.
    pub fn step_claim(&mut self, number: usize, scope: &Scope) {
        let shared = self.shared.turn;
        let Some(RoundClaim { word, round, turn }) = self.agent(number).claim.take() else { return };
        let is_claimed = turn.is_of(word) && turn.rounds() >= round;
        let claimed = match scope.fault {
            Fault::StaleClaim => (!is_claimed).then(|| turn.claim(word, ROUNDS)),
            _ => turn.claim_round(word, round, ROUNDS),
        };
        let Some(claimed) = claimed else { return };
        if shared != turn {
            self.agent(number).claim = Some(RoundClaim { word, round, turn: shared });
            return;
        }
        self.claimed(claimed);
        self.shared.claimed_at = self.shared.now;
        self.seen.agent_claims = true;
    }

    pub fn write_receipt(&mut self, number: usize) {
        let receipt = self.agent(number).open.remove(0);
        let is_of_same = |written: &FailoverLine| written.generation == receipt.generation;
        self.seen.is_written_twice |= self.disk.receipts.iter().any(is_of_same);
        self.disk.receipts.push(receipt);
        let agent = self.agent(number);
        // The last one says how many others there were.
        let is_last = agent.open.is_empty();
        if is_last {
            agent.publishes = agent.known;
        }
        let (written, open) =
            agent.pending.iter().partition(|generation| is_last || **generation <= receipt.generation);
        agent.pending = open;
        self.seen.accounted.extend::<Vec<u32>>(written);
    }

    pub fn publish(&mut self, number: usize) {
        self.shared.known = self.agent(number).publishes;
    }

    pub fn die(&mut self, number: usize) {
        self.left.deaths -= 1;
        self.agents[number] = None;
    }

    /// Returns whether this agent may start: no other one runs, and this one has not run before.
    pub fn may_succeed(&self, number: usize) -> bool {
        number == 1 && self.agents[0].is_none()
    }

    /// A successor starts, and reads ACTIVE and what is on record.
    pub fn succeed(&mut self, number: usize) {
        let (word, known, turn) = (self.shared.active, self.shared.known, self.shared.turn);
        let mut agent = AgentState::knowing(word, (turn.switches(), turn.rounds()), 0);
        (agent.publishes, agent.followed_at) = (known, 0);
        agent.step = AgentStep::Adopts { word, known };
        self.agents[number] = Some(agent);
    }

    /// Reads EVENTS after ACTIVE, and begins the receipts of what no agent has seen.
    fn adopt(&mut self, number: usize, (word, known): (ActiveWord, ActiveWord), scope: &Scope) -> AgentStep {
        let records = std::mem::take(&mut self.shared.events);
        let last = self.disk.receipts.last().filter(|_| scope.fault != Fault::ForgottenReceipts);
        let known = on_record(known, word, last);
        let until = Known {
            word: known,
            at: Time::ZERO,
            switched_at: Time::from_nanos(self.shared.switched_at),
            now: Time::from_nanos(self.shared.now),
        };
        let missed = MissedFailovers::new(until, word, records);
        // What came before is not read again.
        let is_forgotten =
            |generation: &u32| *generation <= known.generation() && !self.seen.accounted.contains(generation);
        self.seen.is_missed |= self.seen.failovers.iter().any(is_forgotten);
        let (switched_at, now) = (self.shared.switched_at, self.shared.now);
        let agent = self.agent(number);
        agent.known = word;
        agent.followed_at = if switched_at == 0 { now } else { switched_at };
        self.account(number, known, &missed);
        AgentStep::Idle
    }

    /// Lets an agent do everything that it has to, without a step of others in between.
    pub fn work_off(&mut self, number: usize, scope: &Scope) {
        if self.agents[number].is_none() {
            return;
        }
        for _ in 0..100 {
            let before = self.clone();
            self.step_agent(number, scope);
            self.step_claim(number, scope);
            if self.agent(number).is_idle() && self.left.announcements > 0 {
                self.begin_round(number);
            }
            if *self == before {
                return;
            }
        }
    }
}

/// Returns what the engine decides: as the driver, it leaves a slave without a link for the first that has one.
fn elected(word: ActiveWord, links: u16) -> Option<ActiveWord> {
    let is_live = |slot: Slot| links & slot.bit() != 0;
    if word.active().is_some_and(is_live) {
        return None;
    }
    let best = (0..16).map(|place| rank().at(place)).find(|slot| is_live(*slot));
    let usable = best.map_or(word.usable() & links, |slot| word.usable() & links | slot.bit());
    (best != word.active()).then(|| word.next(best, None, usable))
}

fn receipt(word: ActiveWord) -> FailoverLine {
    FailoverLine { generation: word.generation(), to: word.active() }
}

/// As `on_record` of `lifecycle/adopt/identity`, whose receipts name slaves.
fn on_record(known: ActiveWord, word: ActiveWord, last: Option<&FailoverLine>) -> ActiveWord {
    let Some(last) = last else { return known };
    if last.generation == word.generation() {
        return if word.changes_since(known).is_some() { word } else { known };
    }
    let before = ActiveWord::from_bits(u64::from(last.generation.wrapping_sub(1)) << 32);
    let recorded = before.next(last.to, None, known.usable());
    let is_after = |word: ActiveWord, earlier| word.changes_since(earlier).is_some_and(|changes| changes > 0);
    if is_after(recorded, known) && is_after(word, recorded) { recorded } else { known }
}

fn is_after(record: &EventRecord, word: ActiveWord) -> bool {
    let change = MissedChange::of(record);
    change.is_some_and(|change| change.word.changes_since(word).is_some_and(|changes| changes > 0))
}
