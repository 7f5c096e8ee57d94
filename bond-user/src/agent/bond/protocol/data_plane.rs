//! The steps of packets that find no link (bond-ebpf `guard`), and of the tick (bond-ebpf `tick`).

use bond_common::{
    abi::{ActiveWord, GuardEntry, Slot},
    clock::{
        announce::RoundTimes,
        decide::{Cause, Situation, decide},
    },
    event::{AnnouncedRound, DataPlaneEvent, EventRecord},
    guard::fail_over,
};

use super::{
    Fault, Scope,
    state::{Cpu, PAUSE, ROUNDS, State, Tick, Writer, rank},
};

/// Returns whether the data plane may fail over at `now` after `switched_at`.
fn may_switch(switched_at: u64, now: u64) -> bool {
    let mut entry = GuardEntry::default();
    entry.note(switched_at);
    entry.may_switch(now)
}

impl State {
    /// The next step of a processor: of its packet, or a new packet.
    pub fn step_cpu(&mut self, cpu: usize, scope: &Scope) {
        self.cpus[cpu] = match self.cpus[cpu] {
            Cpu::Idle => {
                self.left.packets[cpu] -= 1;
                let slot = self.shared.active.active();
                slot.filter(|slot| !self.has_link(*slot)).map_or(Cpu::Idle, |slot| Cpu::Dead { slot })
            }
            Cpu::Dead { slot } => {
                let word = self.shared.active;
                let (switched_at, now, links) = (self.shared.switched_at, self.shared.now, self.shared.links);
                // Another slot is active by now: the packet leaves by that one, or is dropped.
                let is_still = word.active() == Some(slot);
                if is_still { Cpu::Decides { word, switched_at, now, links } } else { Cpu::Idle }
            }
            Cpu::Decides { word, switched_at, now, links } => {
                // Devices are read one after the other: those that changed in between are seen either way. Down is the
                // way that leads elsewhere.
                let links = links & self.shared.links;
                let has_link = |slot: Slot| links & slot.bit() != 0;
                let next = fail_over(word, rank(), has_link).filter(|_| may_switch(switched_at, now));
                next.map_or(Cpu::Idle, |next| Cpu::Swaps { word, next, now })
            }
            Cpu::Swaps { word, next, now } => {
                match self.swap(word, next, (Writer::Guard, scope.fault == Fault::GuardStores)) {
                    Ok(()) => Cpu::Notes { next, now },
                    Err(_) => Cpu::Idle,
                }
            }
            Cpu::Notes { next, now } => {
                self.shared.switched_at = now;
                Cpu::Records { next, now }
            }
            Cpu::Records { next, now } => {
                self.send(EventRecord::new(now, DataPlaneEvent::FailedOver(next)), scope);
                Cpu::Idle
            }
        };
    }

    /// The next step of the tick, or a new tick.
    pub fn step_tick(&mut self, scope: &Scope) {
        let now = self.tick.now;
        self.tick.step = match self.tick.step {
            Tick::Idle => {
                self.left.ticks -= 1;
                self.tick.now = self.shared.now;
                self.check_links(scope)
            }
            Tick::Swaps { word, next, cause } => {
                match self.swap(word, next, (Writer::Tick, scope.fault == Fault::TickStores)) {
                    Ok(()) if next.switches() != word.switches() => Tick::Notes { next, cause },
                    Ok(()) => Tick::Records { next, cause },
                    Err(_) => Tick::Reads,
                }
            }
            Tick::Notes { next, cause } => {
                self.shared.switched_at = now;
                self.tick.switched_at = now;
                Tick::Records { next, cause }
            }
            Tick::Records { next, cause } => {
                self.send(EventRecord::new(now, DataPlaneEvent::Ticked(next, cause)), scope);
                Tick::Reads
            }
            Tick::Reads => Tick::Turns { word: self.shared.active },
            Tick::Turns { word } => self.choose_round(word),
            Tick::Claims { turn, next } => {
                if self.shared.turn == turn || scope.fault == Fault::TickClaims {
                    self.claimed(next);
                    self.shared.claimed_at = now;
                    self.seen.tick_claims = true;
                    self.send(
                        EventRecord::new(now, DataPlaneEvent::Announced(round(next.generation()))),
                        scope,
                    );
                }
                Tick::Idle
            }
        };
    }

    fn check_links(&mut self, scope: &Scope) -> Tick {
        let now = self.tick.now;
        for slot in Slot::all().take(scope.slots.into()) {
            let has_link = self.has_link(slot);
            self.tick.links.see(slot, Some(has_link), now);
        }
        let (word, clock, links) = (self.shared.active, self.clock(), self.tick.links);
        let switched_at = self.tick.switched_at;
        let at = Situation { word, rank: rank(), clock: &clock, links: &links, failed: 0, switched_at, now };
        let decided: Option<(ActiveWord, Cause)> = decide(&at);
        let Some((next, cause)) = decided else { return Tick::Reads };
        let switches = next.switches() != word.switches();
        if switches && !may_switch(self.shared.switched_at, now) {
            return Tick::Reads;
        }
        Tick::Swaps { word, next, cause }
    }

    /// Reads the turn, and decides whether a round is due.
    fn choose_round(&mut self, word: ActiveWord) -> Tick {
        let (turn, now, clock) = (self.shared.turn, self.tick.now, self.clock());
        let is_new = self.tick.noticed != u64::from(word.switches()) + 1;
        self.tick.noticed = u64::from(word.switches()) + 1;
        let times = RoundTimes { now, claimed_at: self.shared.claimed_at, interval: PAUSE };
        let waits = !clock.agent_is_absent(now) && (is_new || turn.is_of(word));
        if waits || !turn.is_due(word, ROUNDS, times) {
            return Tick::Idle;
        }
        Tick::Claims { turn, next: turn.claim(word, ROUNDS) }
    }
}

/// Returns the report of a round.
fn round(generation: u32) -> AnnouncedRound {
    AnnouncedRound { generation, sent: 1, macs: 0, is_capped: false, failed: 0, number: 1 }
}
