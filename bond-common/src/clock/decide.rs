//! Which slave is active after a tick.

use crate::{
    abi::{ActiveWord, MAX_SLAVES, Rank, Slot},
    clock::layout::{ClockEntry, Preference},
    guard::fail_over,
};

/// How long a former active slave still delivers unicast after a tick has preferred another one, in nanoseconds.
pub const DRAIN: u64 = 100_000_000;

/// What ticks saw of the slaves' devices, a bit for each slot. A device that could never be read is in neither mask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkMasks {
    /// Devices with a link.
    pub up: u16,
    /// Devices that are known to have none, and free slots.
    pub down: u16,
}

/// Since when devices have, or have not, a link.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LinkTimes {
    /// [`LinkMasks`] of the last tick: `up` in the lower 16 bits, `down` in the next 16.
    masks: u64,
    /// When the slot's bits changed last: CLOCK_MONOTONIC in nanoseconds.
    since: [u64; MAX_SLAVES],
}

impl LinkTimes {
    /// Returns what the last tick saw.
    pub const fn seen(&self) -> LinkMasks {
        LinkMasks { up: self.masks as u16, down: (self.masks >> 16) as u16 }
    }

    /// Stores what a tick at `now` sees of a slot's device: whether it has a link, None if it cannot be read: it is
    /// neither up nor down, so that its slave is neither left nor chosen.
    #[inline(always)]
    pub fn see(&mut self, slot: Slot, link: Option<bool>, now: u64) {
        let (up, down) = (slot.bit() as u64, (slot.bit() as u64) << 16);
        let others = self.masks & !(up | down);
        let masks = match link {
            Some(true) => others | up,
            Some(false) => others | down,
            None => others,
        };
        if masks != self.masks {
            self.masks = masks;
            if let Some(since) = self.since.get_mut(slot.index()) {
                *since = now;
            }
        }
    }

    /// Returns the slots of `mask` that have been as they are for at least `time`, in nanoseconds, less than 2^63.
    ///
    /// Without a branch: the verifiers of some kernels (6.1) follow each combination of the bits that branches set.
    #[inline(always)]
    fn lasting(&self, mask: u16, now: u64, time: u64) -> u16 {
        let (mut lasting, mut slot) = (0, 0);
        while slot < MAX_SLAVES {
            let since = self.since.get(slot).copied().unwrap_or(now);
            // Times are less than 2^63; a time in the future, of another CPU's clock, is early, too.
            let is_early = now.wrapping_sub(since).wrapping_sub(time) >> 63;
            lasting |= ((is_early ^ 1) as u16) << slot;
            slot += 1;
        }
        lasting & mask
    }
}

/// The reason why a tick changed ACTIVE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Cause {
    /// The active slave's device lost its link, and another slave took over, or none could.
    LinkLost = 1,
    /// There was no active slave, and a device has a link.
    LinkReturned = 2,
    /// A slave that is preferred became usable.
    Preferred = 3,
    /// The set of usable slaves changed, or a drain ended; the active slave did not.
    Bookkeeping = 4,
    /// The ARP monitor got no answer by the active slave, and another slave took over, or none could.
    Unanswered = 5,
    /// There was no active slave, and the ARP monitor gets answers by one.
    Answered = 6,
    /// The ARP monitor gets answers by a slave that is preferred.
    AnsweredPreferred = 7,
    /// The path of the active slave is silent, and that of another slave is not, or is not known.
    PathSilent = 8,
}

impl Cause {
    /// Returns the cause with this number, None if this version does not know it.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::LinkLost,
            2 => Self::LinkReturned,
            3 => Self::Preferred,
            4 => Self::Bookkeeping,
            5 => Self::Unanswered,
            6 => Self::Answered,
            7 => Self::AnsweredPreferred,
            8 => Self::PathSilent,
            _ => return None,
        })
    }
}

/// What a tick decides by.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// ACTIVE.
    pub word: ActiveWord,
    /// The order in which slots are tried.
    pub rank: Rank,
    /// CLOCK.
    pub clock: &'a ClockEntry,
    /// The devices, this tick included.
    pub links: &'a LinkTimes,
    /// Slots whose paths have failed: as [`ClockEntry::avoided`].
    pub failed: u16,
    /// When a tick changed the active slave last, and the time of this tick: CLOCK_MONOTONIC in nanoseconds.
    pub switched_at: u64,
    /// The time of this tick.
    pub now: u64,
}

/// Returns the word that follows from what a tick sees, None if ACTIVE stays.
///
/// While the agent runs, the tick only leaves an active slave without a link. Everything else is the agent's, until it has
/// been silent for [`ClockEntry::AGENT_SILENCE`]. The rules are the driver's (`bond_miimon_inspect`, `bond_find_best_slave`):
/// updelay is ignored while there is no active slave.
#[inline(always)]
pub fn decide(at: &Situation<'_>) -> Option<(ActiveWord, Cause)> {
    let Situation { word, rank, clock, links, failed, now, .. } = *at;
    let seen = links.seen();
    let avoided = avoided(clock.avoided as u16 | failed, seen.up);
    let up = seen.up & !avoided;
    let dead = links.lasting(seen.down, now, clock.downdelay);
    let is_absent = clock.agent_is_absent(now);
    match word.active() {
        Some(active) if dead & active.bit() != 0 => {
            let next = fail_over(word, rank, |slot| up & slot.bit() != 0);
            // As in the driver, the bond has no active slave then. An agent that runs decides that.
            let none = || is_absent.then(|| word.next(None, None, word.usable() & !active.bit()));
            return next.or_else(none).map(|next| (next, Cause::LinkLost));
        }
        None if is_absent => {
            if let Some(slot) = first(rank, up) {
                return Some((word.next(Some(slot), None, word.usable() | slot.bit()), Cause::LinkReturned));
            }
        }
        Some(_) | None => {}
    }
    if !is_absent {
        return None;
    }
    let ready = links.lasting(up, now, clock.updelay);
    let usable = (word.usable() | ready) & !dead & !avoided;
    if let Some(active) = word.active()
        // Only one that comes up: an administrator may have preferred another one since.
        && let Some(slot) = preferred(rank, usable & !word.usable() & up, active, &clock.preference)
    {
        return Some((word.next(Some(slot), Some(active), usable), Cause::Preferred));
    }
    let is_drained = now.saturating_sub(at.switched_at) >= DRAIN;
    let draining = if is_drained { None } else { word.draining() };
    let stays = usable == word.usable() && draining == word.draining();
    (!stays).then(|| (word.next(word.active(), draining, usable), Cause::Bookkeeping))
}

/// Returns the avoided slots; none if no other one has a link.
#[inline(always)]
pub(super) fn avoided(avoided: u16, up: u16) -> u16 {
    if up & !avoided == 0 { 0 } else { avoided }
}

/// Returns the first slot of the rank that is in the mask.
#[inline(always)]
pub(crate) fn first(rank: Rank, mask: u16) -> Option<Slot> {
    let mut place = 0;
    while place < MAX_SLAVES as u32 {
        let slot = rank.at(place);
        if mask & slot.bit() != 0 {
            return Some(slot);
        }
        place += 1;
    }
    None
}

/// Returns the first slot of the rank that is in the mask and takes over from the active one.
#[inline(always)]
pub(super) fn preferred(rank: Rank, mask: u16, active: Slot, preference: &Preference) -> Option<Slot> {
    let mut place = 0;
    while place < MAX_SLAVES as u32 {
        let slot = rank.at(place);
        if mask & slot.bit() != 0 && slot.index() != active.index() && preference.prefers(slot, active) {
            return Some(slot);
        }
        place += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;
    /// Long after the agent was seen, at 0.
    const ABSENT: u64 = 10_000 * MS;

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    fn word(active: Option<u8>, usable: u16) -> ActiveWord {
        ActiveWord::default().next(active.map(slot), None, usable)
    }

    /// Devices that became so at `since`.
    fn links(up: u16, since: u64) -> LinkTimes {
        let mut links = LinkTimes::default();
        see(&mut links, up, !up, since);
        links
    }

    /// Stores what a tick sees of all slots; those in neither mask cannot be read.
    fn see(links: &mut LinkTimes, up: u16, down: u16, now: u64) {
        for slot in (0..16).map(slot) {
            let is_in = |mask: u16| mask & slot.bit() != 0;
            links.see(slot, (is_in(up) || is_in(down)).then(|| is_in(up)), now);
        }
    }

    /// The decision at `ABSENT`: the active slot, the usable mask, the cause.
    fn outcome(word: ActiveWord, clock: &ClockEntry, links: &LinkTimes) -> Option<(Option<u8>, u16, Cause)> {
        let rank = Rank::new([]);
        let at = Situation { word, rank, clock, links, failed: 0, switched_at: 0, now: ABSENT };
        decide(&at).map(|(next, cause)| (next.active().map(|slot| slot.index() as u8), next.usable(), cause))
    }

    #[test]
    fn without_an_agent_a_tick_follows_the_driver() {
        use Cause::*;
        let delays = ClockEntry { updelay: 500 * MS, downdelay: 200 * MS, ..ClockEntry::default() };
        let primary = ClockEntry { preference: Preference::default().with(slot(0), 0xffff), ..delays };
        let recently = ABSENT - 199 * MS;
        let table = [
            // The active slave is dead for as long as downdelay says.
            (word(Some(0), 0b11), delays, links(0b10, 0), Some((Some(1), 0b10, LinkLost))),
            (word(Some(0), 0b11), delays, links(0b10, recently), None),
            // No other one is alive, so there is none.
            (word(Some(0), 0b11), delays, links(0, 0), Some((None, 0b10, LinkLost))),
            // Without an active slave updelay does not count.
            (word(None, 0), delays, links(0b10, ABSENT), Some((Some(1), 0b10, LinkReturned))),
            (word(None, 0), delays, links(0, 0), None),
            // A backup becomes usable after updelay, and unusable after downdelay.
            (word(Some(1), 0b10), delays, links(0b11, ABSENT - 500 * MS), Some((Some(1), 0b11, Bookkeeping))),
            (word(Some(1), 0b10), delays, links(0b11, ABSENT - 499 * MS), None),
            (word(Some(1), 0b11), delays, links(0b10, 0), Some((Some(1), 0b10, Bookkeeping))),
            // A preferred slave takes over when it becomes usable, and not later.
            (word(Some(1), 0b10), primary, links(0b11, 0), Some((Some(0), 0b11, Preferred))),
            (word(Some(1), 0b10), primary, links(0b11, recently), None),
            (word(Some(1), 0b11), primary, links(0b11, 0), None),
            (word(Some(1), 0b11), delays, links(0b11, 0), None),
        ];
        for (row, (word, clock, links, expected)) in table.into_iter().enumerate() {
            assert_eq!(outcome(word, &clock, &links), expected, "row {row}");
        }
    }

    #[test]
    fn an_avoided_slot_is_used_while_no_other_has_a_link() {
        use Cause::*;
        let clock = ClockEntry {
            avoided: 0b01,
            preference: Preference::default().with(slot(1), 0b01),
            ..ClockEntry::default()
        };
        for (word, up, expected) in [
            (word(Some(1), 0b10), 0b11, None),
            (word(Some(1), 0b10), 0b01, Some((Some(0), 0b01, LinkLost))),
            (word(None, 0), 0b01, Some((Some(0), 0b01, LinkReturned))),
            (word(None, 0), 0b11, Some((Some(1), 0b10, LinkReturned))),
            (word(Some(0), 0b01), 0b11, Some((Some(1), 0b10, Preferred))),
        ] {
            assert_eq!(outcome(word, &clock, &links(up, 0)), expected, "{word:?} {up:b}");
        }
    }

    #[test]
    fn with_an_agent_a_tick_only_leaves_a_dead_slave_for_a_live_one() {
        let clock = ClockEntry { agent_seen: ABSENT, period: 10 * MS, ..ClockEntry::default() };
        for (word, up, expected) in [
            (word(Some(0), 0b11), 0b10, Some((Some(1), 0b10, Cause::LinkLost))),
            (word(Some(0), 0b11), 0, None),
            (word(None, 0), 0b10, None),
            (word(Some(1), 0b10), 0b11, None),
        ] {
            assert_eq!(outcome(word, &clock, &links(up, 0)), expected, "{word:?}");
        }
    }

    #[test]
    fn a_preferred_switch_drains_and_the_drain_ends() {
        let clock =
            ClockEntry { preference: Preference::default().with(slot(0), 0b10), ..ClockEntry::default() };
        let links = links(0b11, 0);
        let situation = |word, now| Situation {
            word,
            rank: Rank::new([]),
            clock: &clock,
            links: &links,
            failed: 0,
            switched_at: ABSENT,
            now,
        };
        let (switched, _) = decide(&situation(word(Some(1), 0b10), ABSENT)).unwrap();
        assert_eq!((switched.active(), switched.draining()), (Some(slot(0)), Some(slot(1))));
        assert_eq!(decide(&situation(switched, ABSENT + DRAIN - 1)), None);
        let (ended, cause) = decide(&situation(switched, ABSENT + DRAIN)).unwrap();
        assert_eq!((ended.active(), ended.draining(), cause), (Some(slot(0)), None, Cause::Bookkeeping));
    }

    #[test]
    fn a_device_that_cannot_be_read_is_neither_up_nor_down() {
        // A free slot is down; the slave that comes into it cannot be read.
        let mut links = links(0b01, 5);
        see(&mut links, 0b01, !0b11, 9);
        assert_eq!(links.seen(), LinkMasks { up: 0b01, down: !0b11 });
        let clock = ClockEntry::default();
        assert_eq!(outcome(word(Some(1), 0b11), &clock, &links), None);
    }

    proptest! {
        #[test]
        fn a_decision_is_stable_and_never_for_a_dead_slave(
            active in proptest::option::of(0u8..16), usable: u16, up: u16, absent: bool, from: u16, taker in 0u8..16,
        ) {
            let preference = Preference::default().with(slot(taker), from);
            let clock = ClockEntry { agent_seen: if absent { 0 } else { ABSENT }, preference, ..ClockEntry::default() };
            let links = links(up, 0);
            let mut word = word(active, usable);
            // A cycle of preferences would never settle; one taker has none.
            for round in 0..5 {
                let at = Situation { word, rank: Rank::new([]), clock: &clock, links: &links, failed: 0, switched_at: 0, now: ABSENT };
                let Some((next, _)) = decide(&at) else { return Ok(()) };
                prop_assert!(round < 4, "it does not settle: {word:?}");
                prop_assert_eq!(next.generation(), word.generation() + 1);
                if let Some(slot) = next.active() {
                    prop_assert!(up & slot.bit() != 0 || word.active() == Some(slot));
                }
                word = next;
            }
        }
    }
}
