//! Frames for the bond that arrive on a backup: they show that a switch has the bond's MAC address on the wrong port. What is
//! noted of them, and when the active slave announces the address again.

use crate::{
    abi::{ActiveWord, MAX_SLAVES, Slot},
    behind::{BehindKey, Tag},
    mac::Mac,
};

/// The most announcements of one address in a row. What they do not cure is a switch that sends the address to all ports.
const AT_MOST: u64 = 5;
/// The time from the first announcement to the second, in nanoseconds; it doubles with each further one.
const FIRST_INTERVAL: u64 = 100_000_000;
/// An address of which no frame arrived on a backup for so long is on the right port again, in nanoseconds. Longer than the
/// longest interval between two announcements.
const CURED_AFTER: u64 = 2_000_000_000;
/// How long an address is left alone that announcements did not cure, in nanoseconds.
const SILENCE: u64 = 60_000_000_000;
/// How long after a failover frames are on their way that a switch has sent before it learnt of that, in nanoseconds.
const GRACE: u64 = 100_000_000;

/// The TPID of 802.1Q.
const C_TAG: u16 = 0x8100;

/// What was noted of a frame for the bond that arrived on a backup, as one word: its destination MAC address in the first six
/// bytes, then the VLAN identifier (12 bits; 0: no tag) and the slot of the backup (4 bits).
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Noted(u64);

impl Noted {
    /// Creates the word of a frame with this destination that the slave in `slot` received. Of `vlan`, the identifier of the
    /// outermost tag or 0, the lowest 12 bits count.
    #[inline(always)]
    pub const fn new(mac: Mac, vlan: u16, slot: Slot) -> Self {
        let [a, b, c, d, e, f] = mac.bytes();
        let [g, h] = (vlan & 0xfff | (slot.index() as u16) << 12).to_ne_bytes();
        Self(u64::from_ne_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Creates the word from the 64 bits that the map holds; None if nothing was noted.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits == 0 { None } else { Some(Self(bits)) }
    }

    /// Returns the 64 bits that the map holds.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the destination MAC address of the frame.
    pub const fn mac(self) -> Mac {
        Mac::from_word(self.0)
    }

    /// Returns the VLAN identifier of the outermost tag, 0 if the frame had none.
    pub const fn vlan(self) -> u16 {
        self.tail() & 0xfff
    }

    /// Returns the slot of the backup that received the frame.
    pub const fn slot(self) -> Option<Slot> {
        Slot::new((self.tail() >> 12) as u8)
    }

    const fn tail(self) -> u16 {
        let [_, _, _, _, _, _, g, h] = self.0.to_ne_bytes();
        u16::from_ne_bytes([g, h])
    }

    /// Returns the index of the entry in MISDIRECTED for this address. Addresses that share an entry share its announcements.
    #[inline(always)]
    pub const fn entry(self) -> u32 {
        // The slot does not matter. Multiplicative hashing (Knuth) by the golden ratio.
        let key = self.mac().to_word() ^ (self.vlan() as u64) << 20;
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as u32
    }

    /// Returns the address in its VLAN, as it is announced: a switch learns per VLAN.
    #[inline(always)]
    pub const fn key(self) -> BehindKey {
        BehindKey::new(self.mac(), [Tag::new(C_TAG, self.vlan()), Tag::NONE])
    }
}

impl core::fmt::Debug for Noted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Noted")
            .field("mac", &self.mac())
            .field("vlan", &self.vlan())
            .field("slot", &self.slot().map(Slot::index))
            .finish()
    }
}

/// An entry of MISDIRECTED, which has as many as there are slots. An index stands for two things: a slot, for `frames`, and a
/// part of all addresses ([`Noted::entry`]), for everything else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MisdirectedEntry {
    /// Frames for the bond that the slave in this slot received as a backup. The data plane adds to it; the agent clears it for
    /// a new slave.
    pub frames: u64,
    /// The last such frame since the last tick: [`Noted`]. Written by the data plane; the tick clears it.
    pub noted: u64,
    /// Written by the tick.
    pub episode: Episode,
}

impl MisdirectedEntry {
    /// The number of entries of MISDIRECTED.
    pub const ENTRIES: usize = MAX_SLAVES;
    /// The index of the word of `frames`, for writers that store single words of the entry.
    pub const FRAMES: usize = core::mem::offset_of!(Self, frames) / 8;

    /// Returns the address that announcements did not cure and that is left alone at `now`, CLOCK_MONOTONIC in nanoseconds.
    pub const fn flooded(&self, now: u64) -> Option<Noted> {
        if now < self.episode.silent_until { Noted::from_bits(self.episode.noted) } else { None }
    }
}

/// The announcements of an address from when its frames began to arrive on a backup. Times are CLOCK_MONOTONIC in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Episode {
    /// The last [`Noted`].
    noted: u64,
    /// When that was.
    noted_at: u64,
    /// The number of announcements, and the time of the last one.
    announced: u64,
    announced_at: u64,
    /// Until when nothing is announced; 0 or in the past: something may be.
    silent_until: u64,
}

/// What a tick does about a frame that was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: the address was announced a moment ago, or is left alone.
    Nothing,
    /// The active slave announces the address.
    Announce {
        /// The frames began to arrive just now.
        is_first: bool,
    },
    /// Nothing from now on: the announcements did not help.
    GiveUp,
}

impl Episode {
    /// Returns what the tick at `now` does about a frame that was noted since the last one.
    #[inline(always)]
    pub fn answer(&mut self, noted: Noted, now: u64) -> Answer {
        if now < self.silent_until {
            return Answer::Nothing;
        }
        let quiet = now.saturating_sub(self.noted_at);
        if self.silent_until != 0 || quiet >= CURED_AFTER {
            *self = Self::default();
        }
        (self.noted, self.noted_at) = (noted.bits(), now);
        if self.announced == 0 {
            (self.announced, self.announced_at) = (1, now);
            return Answer::Announce { is_first: true };
        }
        let interval = FIRST_INTERVAL << ((self.announced - 1) & 7);
        if now.saturating_sub(self.announced_at) < interval {
            return Answer::Nothing;
        }
        if self.announced >= AT_MOST {
            self.silent_until = now.saturating_add(SILENCE);
            return Answer::GiveUp;
        }
        self.announced += 1;
        self.announced_at = now;
        Answer::Announce { is_first: false }
    }
}

/// Whether the failover to the active slave is so long ago that frames which arrive on a backup were sent there since.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// [`ActiveWord::switches`] of that failover plus one.
    switches: u64,
    /// When a tick saw it first: CLOCK_MONOTONIC in nanoseconds.
    since: u64,
    /// `switches` after [`GRACE`]; before that another number.
    settled: u64,
}

impl Settled {
    /// Stores what a tick at `now` sees in ACTIVE.
    #[inline(always)]
    pub fn follow(&mut self, word: ActiveWord, now: u64) {
        let switches = word.switches() as u64 + 1;
        if self.switches != switches {
            (self.switches, self.since, self.settled) = (switches, now, 0);
        } else if now.saturating_sub(self.since) >= GRACE {
            self.settled = switches;
        }
    }

    /// Returns whether a frame that arrives on a backup was sent there after the failover to `word`.
    #[inline(always)]
    pub const fn is_of(&self, word: ActiveWord) -> bool {
        self.settled == word.switches() as u64 + 1
    }
}

const _: () = assert!(size_of::<MisdirectedEntry>() == 7 * 8);

// SAFETY: 64-bit words in C layout without padding (asserted above): every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for MisdirectedEntry {}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const TICK: u64 = 10 * MS;
    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 9]);

    fn noted() -> Noted {
        Noted::new(MAC, 0, Slot::new(1).unwrap())
    }

    /// Notes a frame at each of these times, and returns the times of announcements and when it was given up.
    fn run(times: impl IntoIterator<Item = u64>) -> (Vec<u64>, Vec<u64>) {
        let (mut episode, mut announced, mut given_up) = (Episode::default(), Vec::new(), Vec::new());
        for now in times {
            match episode.answer(noted(), now) {
                Answer::Nothing => {}
                Answer::Announce { .. } => announced.push(now / MS),
                Answer::GiveUp => given_up.push(now / MS),
            }
        }
        (announced, given_up)
    }

    #[test]
    fn the_word_returns_what_was_noted() {
        for (vlan, slot) in [(0, 0), (4095, 15), (5, 3)] {
            let noted = Noted::new(MAC, vlan, Slot::new(slot).unwrap());
            assert_eq!((noted.mac(), noted.vlan(), noted.slot()), (MAC, vlan, Slot::new(slot)));
            assert_eq!(Noted::from_bits(noted.bits()), Some(noted));
            assert!((noted.entry() as usize) < MisdirectedEntry::ENTRIES);
            assert_eq!(noted.entry(), Noted::new(MAC, vlan, Slot::new(7).unwrap()).entry());
        }
        assert_eq!(Noted::from_bits(0), None);
    }

    #[test]
    fn addresses_are_spread_over_the_entries() {
        let entry = |last| Noted::new(Mac::new([2, 0, 0, 0, 0, last]), 0, Slot::new(0).unwrap()).entry();
        let used: std::collections::BTreeSet<_> = (0..64).map(entry).collect();
        assert!(used.len() >= 12, "{used:?}");
    }

    #[test]
    fn a_flood_gets_five_announcements_and_a_minute_of_silence() {
        let ticks = |seconds: u64| (0..seconds * 100).map(|tick| 7 * MS + tick * TICK);
        let (announced, given_up) = run(ticks(60));
        assert_eq!((announced, given_up), (vec![7, 107, 307, 707, 1507], vec![3107]));
        let (announced, given_up) = run(ticks(70));
        let again = [63107, 63207, 63407, 63807, 64607];
        assert_eq!((&announced[5..], given_up), (&again[..], vec![3107, 66207]));
    }

    #[test]
    fn a_slow_flood_gets_no_more() {
        for period in [1, 300, 1000, 1900] {
            let (announced, given_up) = run((0..60_000 / period).map(|number| number * period * MS));
            assert_eq!((announced.len(), given_up.len()), (5, 1), "every {period} ms: {announced:?}");
        }
    }

    #[test]
    fn each_cured_address_is_announced_again() {
        // The frames of 20 ms, every 3 s.
        let times = (0..100).flat_map(|number| [0, 1].map(|tick| number * 3000 * MS + tick * TICK));
        let (announced, given_up) = run(times);
        assert_eq!((announced.len(), given_up.len()), (100, 0));
    }

    #[test]
    fn only_the_first_announcement_is_news() {
        let mut episode = Episode::default();
        let first: Vec<_> = (0..50).map(|tick| episode.answer(noted(), tick * TICK)).collect();
        let news = first.iter().filter(|answer| **answer == Answer::Announce { is_first: true });
        assert_eq!(news.count(), 1);
        let entry = MisdirectedEntry { episode, ..MisdirectedEntry::default() };
        assert_eq!(entry.flooded(500 * MS), None);
        while episode.answer(noted(), episode.noted_at + TICK) != Answer::GiveUp {}
        let entry = MisdirectedEntry { episode, ..entry };
        assert_eq!(entry.flooded(episode.noted_at + 59_000 * MS), Some(noted()));
        assert_eq!(entry.flooded(episode.noted_at + 60_000 * MS), None);
    }

    #[test]
    fn frames_right_after_a_failover_prove_nothing() {
        let word = |active| ActiveWord::default().next(Slot::new(active), None, 3);
        let mut settled = Settled::default();
        assert!(!settled.is_of(word(0)), "no tick yet");
        for (now, expected) in [(0, false), (90, false), (100, true), (110, true)] {
            settled.follow(word(0), now * MS);
            assert_eq!(settled.is_of(word(0)), expected, "at {now} ms");
        }
        let next = word(0).next(Slot::new(1), None, 3);
        assert!(!settled.is_of(next), "before the next tick");
        for (now, expected) in [(120, false), (210, false), (220, true)] {
            settled.follow(next, now * MS);
            assert_eq!(settled.is_of(next), expected, "at {now} ms");
        }
    }

    #[test]
    fn an_address_is_announced_in_its_vlan() {
        let tagged = Noted::new(MAC, 0x123, Slot::new(1).unwrap());
        assert_eq!(noted().key(), BehindKey::new(MAC, [Tag::NONE; 2]));
        assert_eq!(tagged.key(), BehindKey::new(MAC, [Tag::new(0x8100, 0x123), Tag::NONE]));
    }
}
