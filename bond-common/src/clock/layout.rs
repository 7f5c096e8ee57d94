//! The values of the clock's maps: CLOCK, TICKS and ANNOUNCE.

use crate::{
    abi::{MAX_SLAVES, Slot},
    clock::{announce::ClaimedRounds, decide::LinkTimes, frame::FRAMES, misdirected::Settled},
};

/// The agent's settings for the tick, in CLOCK at 0. The agent writes each word with one store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockEntry {
    /// The period in nanoseconds; 0: the tick only sends frames round.
    pub period: u64,
    /// The bit [`Self::LINKS`].
    pub flags: u64,
    /// Nanoseconds for which a device must have a link until its slave is usable.
    pub updelay: u64,
    /// Nanoseconds for which a device must have no link until its slave is left.
    pub downdelay: u64,
    /// The ifindex of the end of the pair that frames are sent by.
    pub sender: u64,
    /// The rounds of announcements after a failover (`num_grat_arp`).
    pub rounds: u64,
    /// Nanoseconds from one round to the next (`peer_notif_delay`).
    pub round_interval: u64,
    /// The frames of ANNOUNCE that make a round: see [`AnnounceList`].
    pub list: u64,
    /// Which slaves take over from which.
    pub preference: Preference,
    /// A bit for each slot that is used only while no other one has a link: drained and damped slaves.
    pub avoided: u64,
    /// When the agent ran last: CLOCK_MONOTONIC in nanoseconds.
    pub agent_seen: u64,
}

impl ClockEntry {
    /// Flag: a slave whose device has no link is left (`miimon` is on, and the device can be read).
    pub const LINKS: u64 = 1;

    /// The index of the word of `period`, for readers of single words of the entry.
    pub const PERIOD: usize = core::mem::offset_of!(Self, period) / 8;
    /// The index of the word of `agent_seen`, for writers that store single words of the entry.
    pub const AGENT_SEEN: usize = core::mem::offset_of!(Self, agent_seen) / 8;

    /// How long the agent may be silent before the tick does what otherwise only the agent does, in nanoseconds.
    pub const AGENT_SILENCE: u64 = 300_000_000;

    /// Returns whether no agent has run for [`Self::AGENT_SILENCE`] before `now`, CLOCK_MONOTONIC in nanoseconds. A
    /// heartbeat from a later time, for example of another CPU's clock, is one of now.
    pub const fn agent_is_absent(&self, now: u64) -> bool {
        now.saturating_sub(self.agent_seen) > Self::AGENT_SILENCE
    }

    /// Returns whether any bit of `flag` is set.
    pub const fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
}

/// Which slots take over from which: 16 bits for each slot, bit N set if it takes over from slot N when it is usable
/// (`primary_reselect`, `prio`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preference([u64; MAX_SLAVES / 4]);

impl Preference {
    /// Sets the slots, as a mask, from which `slot` takes over.
    #[must_use]
    pub fn with(mut self, slot: Slot, from: u16) -> Self {
        let (word, shift) = Self::place(slot);
        if let Some(word) = self.0.get_mut(word) {
            *word = *word & !(0xffff << shift) | (from as u64) << shift;
        }
        self
    }

    /// Returns whether `slot` takes over from `active`.
    #[inline(always)]
    pub fn prefers(&self, slot: Slot, active: Slot) -> bool {
        let (word, shift) = Self::place(slot);
        self.0.get(word).is_some_and(|word| (*word >> shift) as u16 & active.bit() != 0)
    }

    #[inline(always)]
    const fn place(slot: Slot) -> (usize, u32) {
        (slot.index() / 4, (slot.index() % 4) as u32 * 16)
    }
}

/// What the tick keeps, in TICKS at 0. Only the tick writes it, except that the agent also claims `turn`, by
/// compare-and-swap, and stores `claimed_at`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TickEntry {
    /// Ticks since the clock was started.
    pub ticks: u64,
    /// The time of the last tick: CLOCK_MONOTONIC in nanoseconds.
    pub last: u64,
    /// The frames that circulate.
    pub frames: [Lap; FRAMES],
    /// Frames that were put in again because one was lost.
    pub injected: u64,
    /// Frames that were dropped: copies, and what other programs sent.
    pub refused: u64,
    /// Changes of the active slave by ticks.
    pub failovers: u64,
    /// When the tick last changed the active slave: CLOCK_MONOTONIC in nanoseconds.
    pub switched_at: u64,
    /// The failover that the tick has noticed: [`crate::abi::ActiveWord::switches`] plus one. An agent that runs has the time
    /// of one tick to announce it first.
    pub noticed: u64,
    /// The rounds of announcements that were claimed.
    pub turn: ClaimedRounds,
    /// When the last round was claimed: CLOCK_MONOTONIC in nanoseconds.
    pub claimed_at: u64,
    /// 1 while the tick is sending the frames of `turn`.
    pub sending: u64,
    /// The next frame of that round.
    pub next: u64,
    /// Frames of that round that announce an address, and that the kernel took.
    pub sent: u64,
    /// Frames of that round that the kernel refused.
    pub refused_of_round: u64,
    /// Frames of all rounds that the kernel refused.
    pub failed: u64,
    /// How often the round was sent again from its first frame on, because the kernel refused all of it.
    pub repeats: u64,
    /// Ticks that came more than half a period late.
    pub late: u64,
    /// Ticks in succession that came far too early, because another qdisc has replaced that of the clock.
    pub early: u64,
    /// Since when devices are as they are.
    pub links: LinkTimes,
    /// Whether the last failover is so long ago that frames on backups are misdirected.
    pub settled: Settled,
    /// Frames of that round that announce a MAC address, and that the kernel took.
    pub macs: u64,
    /// MAC addresses of BEHIND that the round has announced, or tried to.
    pub behind: u64,
    /// 1 if the round leaves out MAC addresses, because it announces [`crate::behind::MOST_BEHIND`].
    pub capped: u64,
}

impl TickEntry {
    /// The index of the word of `last`, for readers of single words of the entry.
    pub const LAST: usize = core::mem::offset_of!(Self, last) / 8;
    /// The index of the word of `turn`, for writers that store single words of the entry.
    pub const TURN: usize = core::mem::offset_of!(Self, turn) / 8;
    /// The index of the word of `claimed_at`.
    pub const CLAIMED_AT: usize = core::mem::offset_of!(Self, claimed_at) / 8;

    /// Notes a tick at `now`, with the period of the clock, in nanoseconds. False if frames circulate without a pace: then this
    /// one is to be dropped, or they would take a whole CPU.
    #[inline(always)]
    pub fn note(&mut self, now: u64, period: u64) -> bool {
        let interval = now.saturating_sub(self.last);
        let (is_late, is_early) = (interval > period + period / 2, interval < period / 4);
        self.late += (is_late as u64) & (self.last != 0) as u64;
        self.early = (self.early + 1) * is_early as u64;
        self.last = now;
        self.early < Self::EARLY_AT_MOST
    }

    /// Returns whether the last tick was too long before `now`, with the period of the clock, in nanoseconds.
    pub const fn has_stopped(&self, now: u64, period: u64) -> bool {
        now.saturating_sub(self.last) > 4 * period + Self::TOLERANCE
    }

    /// More than the qdisc lets out at once after a delay.
    const EARLY_AT_MOST: u64 = 8;
    /// For how long a busy CPU may delay a tick: nanoseconds.
    const TOLERANCE: u64 = 50_000_000;

    /// Returns whether the other frame has not arrived for so many ticks that it is lost.
    #[inline(always)]
    pub const fn has_lost(&self, other: &Lap) -> bool {
        self.ticks.wrapping_sub(other.tick) >= Self::LOST_AFTER
    }

    /// Returns whether the round is to be sent again: the kernel has refused all frames, as it does for a moment after a link
    /// returns, until the device has its queue.
    pub const fn repeats_round(&self) -> bool {
        self.sent == 0 && self.macs == 0 && self.refused_of_round > 0 && self.repeats < Self::REPEATS_AT_MOST
    }

    const REPEATS_AT_MOST: u64 = 200;

    /// Frames arrive in turn; two ticks of the same frame may follow each other when one was put in again.
    const LOST_AFTER: u64 = 4;
}

/// A frame that circulates.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lap {
    /// The sequence that it must have when it arrives.
    pub sequence: u64,
    /// The tick at which it arrived last.
    pub tick: u64,
}

/// The most frames of a round of announcements that ANNOUNCE holds.
pub const ANNOUNCE_FRAMES: usize = 256;
/// The number of entries of ANNOUNCE: two banks, so that the agent writes one while the tick reads the other.
pub const ANNOUNCE_ENTRIES: usize = 2 * ANNOUNCE_FRAMES;
/// The most bytes of a frame: a neighbour advertisement behind two VLAN tags.
pub const ANNOUNCE_BYTES: usize = 96;

/// A frame that is announced, in ANNOUNCE: whole, with the source MAC address that it has at bond0. Its source is rewritten
/// as that of any frame of bond0.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceFrame {
    /// From 60, the shortest Ethernet frame, to [`ANNOUNCE_BYTES`]; 0: none.
    pub length: u32,
    /// What it announces: [`Self::ADDRESS`] or [`Self::MAC`].
    pub kind: u32,
    /// The frame, padded with zeros.
    pub bytes: [u8; ANNOUNCE_BYTES],
}

impl AnnounceFrame {
    /// The shortest frame of Ethernet in bytes, without its check sequence.
    const SHORTEST: usize = 60;

    /// Kind: an IP address, by ARP or a neighbour advertisement.
    pub const ADDRESS: u32 = 0;
    /// Kind: a MAC address, by RARP.
    pub const MAC: u32 = 1;

    /// No frame.
    pub const NONE: Self = Self { length: 0, kind: Self::ADDRESS, bytes: [0; ANNOUNCE_BYTES] };

    /// Creates the entry of a frame of this kind; None if the frame is too long.
    pub fn new(frame: &[u8], kind: u32) -> Option<Self> {
        let mut bytes = [0; ANNOUNCE_BYTES];
        bytes.get_mut(..frame.len())?.copy_from_slice(frame);
        Some(Self { length: frame.len().max(Self::SHORTEST) as u32, kind, bytes })
    }
}

/// Where a round's frames are in ANNOUNCE, as one word: the bank, and how many frames it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnnounceList {
    /// 0 or 1.
    pub bank: u32,
    /// At most [`ANNOUNCE_FRAMES`].
    pub count: u32,
    /// How many further ones the agent would announce, for which there is no room.
    pub left_out: u16,
}

impl AnnounceList {
    const LEFT_OUT: u32 = 40;

    /// Creates the list from the word of [`ClockEntry::list`]; larger values are cut.
    pub const fn from_bits(word: u64) -> Self {
        let count = word as u32;
        let most = ANNOUNCE_FRAMES as u32;
        Self {
            bank: (word >> 32) as u32 & 1,
            count: if count > most { most } else { count },
            left_out: (word >> Self::LEFT_OUT) as u16,
        }
    }

    /// Returns the word of [`ClockEntry::list`].
    pub const fn bits(self) -> u64 {
        (self.left_out as u64) << Self::LEFT_OUT | (self.bank as u64) << 32 | self.count as u64
    }

    /// Returns the index in ANNOUNCE of the frame with this number.
    pub const fn entry(self, number: u32) -> u32 {
        (self.bank & 1) * ANNOUNCE_FRAMES as u32 + number
    }
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: 64-bit words and bytes in C layout without padding: every bit pattern is valid.
    unsafe impl aya::Pod for super::ClockEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::TickEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::AnnounceFrame {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_absent_after_its_silence() {
        let entry = ClockEntry { agent_seen: 1000, ..ClockEntry::default() };
        for (now, absent) in [
            (500, false),
            (1000 + ClockEntry::AGENT_SILENCE, false),
            (1001 + ClockEntry::AGENT_SILENCE, true),
        ] {
            assert_eq!(entry.agent_is_absent(now), absent, "{now}");
        }
    }

    #[test]
    fn late_ticks_are_counted_and_frames_without_a_pace_are_dropped() {
        let mut state = TickEntry::default();
        let at = |state: &mut TickEntry, now| state.note(now, 100);
        // The first, in time, late, and the one that the qdisc lets out after it.
        for (now, late) in [(1000, 0), (1150, 0), (1301, 1), (1302, 1), (1402, 1)] {
            assert!(at(&mut state, now));
            assert_eq!(state.late, late, "{now}");
        }
        assert!((1..TickEntry::EARLY_AT_MOST).all(|step| at(&mut state, 1402 + step)));
        assert!(!at(&mut state, 1410) && !at(&mut state, 1411));
        assert!(at(&mut state, 1511), "a pace again");
        let limit = 1511 + 400 + TickEntry::TOLERANCE;
        assert!(!state.has_stopped(limit, 100) && state.has_stopped(limit + 1, 100));
    }

    #[test]
    fn a_preference_is_of_one_slot_and_one_active_slot() {
        let slot = |index| Slot::new(index).unwrap();
        let preference =
            Preference::default().with(slot(5), 1 << 2).with(slot(15), 0xffff).with(slot(5), 1 << 3);
        for (taker, active, expected) in
            [(5, 3, true), (5, 2, false), (3, 5, false), (15, 0, true), (4, 3, false)]
        {
            assert_eq!(preference.prefers(slot(taker), slot(active)), expected, "{taker} from {active}");
        }
    }

    #[test]
    fn a_list_is_cut_to_its_bank() {
        let list = AnnounceList { bank: 1, count: 7, left_out: 300 };
        assert_eq!(AnnounceList::from_bits(list.bits()), list);
        assert_eq!(
            AnnounceList::from_bits(u64::MAX),
            AnnounceList { bank: 1, count: ANNOUNCE_FRAMES as u32, left_out: u16::MAX }
        );
        assert_eq!(list.entry(6), ANNOUNCE_FRAMES as u32 + 6);
    }

    #[test]
    fn short_frames_are_padded_and_long_ones_refused() {
        let of = |frame: &[u8]| AnnounceFrame::new(frame, AnnounceFrame::ADDRESS);
        let frame = of(&[7; 42]).unwrap();
        assert_eq!((frame.length, frame.bytes[41], frame.bytes[42]), (60, 7, 0));
        assert_eq!(of(&[7; ANNOUNCE_BYTES]).unwrap().length, ANNOUNCE_BYTES as u32);
        assert_eq!(of(&[7; ANNOUNCE_BYTES + 1]), None);
    }
}
