//! The programs of one bond: the packets of the host, and the ticks of the clock. They decide by the rules of bond-common,
//! over the words that the agent shares with them.

use bond_common::{
    abi::{ActiveWord, BondEntry, SlaveEntry, Slot},
    clock::{
        announce::RoundTimes,
        decide::{LinkTimes, Situation, decide},
        layout::{AnnounceList, ClockEntry, TickEntry},
    },
    event::{AnnouncedRound, DataPlaneEvent},
    guard::fail_over,
    mac::Mac,
    verdict::{Receive, Receiver, receive, transmit},
};
use bond_user::sys::{dataplane::fake::ProgramMaps, fake::FakeKernel};

const MILLISECOND: u64 = 1_000_000;

/// What the programs of one bond see.
pub struct Programs<'a> {
    /// The maps.
    pub words: &'a ProgramMaps,
    /// The devices.
    pub kernel: &'a FakeKernel,
    /// CLOCK_MONOTONIC in milliseconds.
    pub now: u64,
}

/// What became of a packet of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It left by the slave in this slot.
    By(Slot),
    Dropped,
}

impl Programs<'_> {
    fn nanos(&self) -> u64 {
        self.now * MILLISECOND
    }

    /// Returns whether a slave's device has a link; `None` if it cannot be read.
    pub fn link(&self, slot: Slot) -> Option<bool> {
        let entry = self.words.slave(slot);
        if entry.ifindex() == 0 {
            return Some(false);
        }
        (entry.handle().device() != 0).then(|| self.is_up(&entry))
    }

    fn is_up(&self, entry: &SlaveEntry) -> bool {
        let state = self.kernel.device_state(entry.ifindex());
        state.is_some_and(|state| state.link_up() && state.handle() == entry.handle())
    }

    /// The host sends a packet: `port_tx`.
    pub fn send(&self) -> Sent {
        let word = self.words.active();
        let queue_id = |slot| self.words.slave(slot).queue_id();
        let Ok(slot) = transmit(word, 0, queue_id) else { return Sent::Dropped };
        let slot = if self.words.bond().has(BondEntry::GUARD) { self.check(slot) } else { Some(slot) };
        match slot {
            Some(slot) if self.words.slave(slot).ifindex() != 0 => Sent::By(slot),
            _ => Sent::Dropped,
        }
    }

    /// The carrier guard.
    fn check(&self, slot: Slot) -> Option<Slot> {
        let is_dead = |slot| self.link(slot) == Some(false);
        let has_link = |slot| self.link(slot) == Some(true);
        if !is_dead(slot) {
            return Some(slot);
        }
        let word = self.words.active();
        let entry = self.words.guard();
        let next = fail_over(word, entry.rank(), has_link)?;
        if !entry.may_switch(self.nanos()) {
            return None;
        }
        match self.words.exchange_active(word, next) {
            Ok(()) => {
                self.words.note_guard(self.nanos());
                self.words.send(self.nanos(), DataPlaneEvent::FailedOver(next));
                next.active()
            }
            Err(word) => word.active(),
        }
    }

    /// Returns the slots that deliver a broadcast frame to the host.
    pub fn receivers(&self) -> Vec<Slot> {
        let word = self.words.active();
        let delivers = |slot: &Slot| {
            let at =
                Receiver { slot: *slot, host_mac: self.words.bond().host_mac(), all_slaves_active: false };
            matches!(receive(word, at, Mac::BROADCAST, |_| false), Receive::Deliver(_))
        };
        Slot::all().filter(delivers).collect()
    }

    /// Returns whether the clock ticks: its pair exists.
    pub fn has_clock(&self, clock: &ClockEntry) -> bool {
        clock.period > 0 && u32::try_from(clock.sender).is_ok_and(|sender| self.kernel.has_link(sender))
    }

    /// Makes ticks for which nothing is to be done, up to a moment from now on: nothing has changed since the last one, and
    /// nothing will before that moment.
    pub fn skip_ticks(&self, until: u64) {
        let (clock, mut state) = (self.words.clock(), self.words.ticks());
        if !self.has_clock(&clock) {
            return;
        }
        let until = until * MILLISECOND;
        state.ticks += until.saturating_sub(state.last) / clock.period;
        state.last = until.max(state.last);
        state.early = 0;
        self.words.write_ticks(state);
    }

    /// One tick of the clock, if it ticks.
    pub fn tick(&self) {
        let (clock, mut state) = (self.words.clock(), self.words.ticks());
        if !self.has_clock(&clock) {
            return;
        }
        let now = self.nanos();
        state.ticks += 1;
        // Ticks that were skipped may have been counted ahead.
        state.last = state.last.min(now.saturating_sub(clock.period));
        state.note(now, clock.period);
        if clock.has(ClockEntry::LINKS) {
            self.check_links(&clock, &mut state);
        }
        self.announce(&clock, &mut state);
        self.words.write_ticks(state);
    }

    fn see(&self, links: &mut LinkTimes) {
        for slot in Slot::all() {
            links.see(slot, self.link(slot), self.nanos());
        }
    }

    fn check_links(&self, clock: &ClockEntry, state: &mut TickEntry) {
        self.see(&mut state.links);
        let (word, entry, now) = (self.words.active(), self.words.guard(), self.nanos());
        let failed = self.words.failed_paths();
        let situation = Situation {
            word,
            rank: entry.rank(),
            clock,
            links: &state.links,
            failed,
            switched_at: state.switched_at,
            now,
        };
        let Some((next, cause)) = decide(&situation) else { return };
        let switches = next.switches() != word.switches();
        if switches && !entry.may_switch(now) {
            return;
        }
        if self.words.exchange_active(word, next).is_ok() {
            if switches {
                self.words.note_guard(now);
                state.switched_at = now;
                state.failovers += 1;
            }
            self.words.send(now, DataPlaneEvent::Ticked(next, cause));
        }
    }

    /// Rounds of announcements: each is sent whole in one tick, and the kernel takes every frame.
    fn announce(&self, clock: &ClockEntry, state: &mut TickEntry) {
        let (word, now, turn) = (self.words.active(), self.nanos(), self.words.ticks().turn);
        let is_new = state.noticed != u64::from(word.switches()) + 1;
        state.noticed = u64::from(word.switches()) + 1;
        if clock.rounds == 0 && !turn.is_of(word) {
            self.words.exchange_rounds(turn, turn.skip(word));
            return;
        }
        let times =
            RoundTimes { now, claimed_at: self.words.ticks().claimed_at, interval: clock.round_interval };
        let waits = !clock.agent_is_absent(now) && (is_new || turn.is_of(word));
        if waits || !turn.is_due(word, clock.rounds as u8, times) {
            return;
        }
        let claimed = turn.claim(word, clock.rounds as u8);
        if !self.words.exchange_rounds(turn, claimed) {
            return;
        }
        state.claimed_at = now;
        if claimed.is_reported() {
            let list = AnnounceList::from_bits(clock.list);
            let round = AnnouncedRound {
                generation: claimed.generation(),
                sent: list.count as u16,
                macs: 0,
                is_capped: list.left_out != 0,
                failed: 0,
                number: claimed.rounds(),
            };
            self.words.send(now, DataPlaneEvent::Announced(round));
        }
    }

    /// Returns what ACTIVE holds.
    pub fn word(&self) -> ActiveWord {
        self.words.active()
    }
}
