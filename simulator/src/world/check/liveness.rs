//! No packet goes to a dead slave for longer than promised, and a usable slave becomes active within its bound.

use std::collections::BTreeMap;

use bond_common::{
    abi::{BondEntry, Slot},
    clock::layout::ClockEntry,
};

use crate::world::{Programs, Sent};

/// What the promises depend on, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub miimon: u64,
    /// The longest of updelay and downdelay.
    pub delays: u64,
    /// Of the clock.
    pub period: u64,
}

/// Who decides.
#[derive(Clone, Copy, Debug)]
pub struct Machinery {
    /// An agent runs that has the bond, and is neither stopped nor starting.
    pub has_agent: bool,
    /// Since when that is so, or not, in milliseconds.
    pub since: u64,
}

/// What is known of the links of a bond's slaves.
#[derive(Debug, Default)]
pub struct Liveness {
    /// By ifindex.
    alive_since: BTreeMap<u32, u64>,
    bad_since: Option<u64>,
    sent: Option<Sent>,
}

/// Time that everything may take: the silence after which ticks take the agent for absent, and steps of the world.
const SLACK: u64 = 800;

impl Liveness {
    /// Forgets since when things are as they are.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Notes what became of the last packet, if there was one.
    pub fn note(&mut self, sent: Option<Sent>) {
        self.sent = sent;
    }

    /// Checks the promises. Returns what does not hold.
    pub fn check(
        &mut self,
        at: &Programs<'_>,
        settings: Settings,
        machinery: impl FnOnce() -> Machinery,
    ) -> Option<String> {
        let clock = at.words.clock();
        let is_avoided = |slot: Slot| clock.avoided & u64::from(slot.bit()) != 0;
        let mut alive = BTreeMap::new();
        for slot in Slot::all().filter(|slot| at.link(*slot) == Some(true) && !is_avoided(*slot)) {
            let ifindex = at.words.slave(slot).ifindex();
            let since = self.alive_since.get(&ifindex).copied().unwrap_or(at.now);
            alive.insert(ifindex, since);
        }
        self.alive_since = alive;
        let word = at.word();
        let has_link = |slot: Slot| at.kernel.has_link(at.words.slave(slot).ifindex());
        if let Some(Sent::By(slot)) = self.sent.take()
            && at.words.bond().has(BondEntry::GUARD)
            && at.link(slot) == Some(false)
            && !self.alive_since.is_empty()
        {
            return Some(format!("a packet left by the dead slot {}, and the guard is on", slot.index()));
        }
        let is_served = word.active().is_some_and(has_link);
        let Some(oldest) = self.alive_since.values().min().copied().filter(|_| !is_served) else {
            self.bad_since = None;
            return None;
        };
        let bad_since = *self.bad_since.get_or_insert(at.now);
        let machinery = machinery();
        let ticks = at.has_clock(&clock) && clock.has(ClockEntry::LINKS);
        if !machinery.has_agent && !ticks {
            return None;
        }
        let since = bad_since.max(oldest).max(machinery.since);
        let limit = 2 * settings.miimon + 2 * settings.delays + 4 * settings.period + SLACK;
        (at.now > since + limit).then(|| {
            format!(
                "for {} ms the active slave has no link, or there is none, and another one has (limit {limit} ms)",
                at.now - since
            )
        })
    }
}
