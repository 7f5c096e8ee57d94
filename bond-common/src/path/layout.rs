//! The values of the path monitor's maps: PATH_MONITOR, PATH_STATE, PATH_HEARD and PATH_FRAMES.

use core::hint::black_box;

use crate::{
    abi::{MAX_SLAVES, Slot},
    clock::layout::AnnounceFrame,
    mac::Mac,
};

/// The most targets of a bond's path monitor.
pub const MOST_PATH_TARGETS: usize = 4;
/// The number of entries of PATH_FRAMES: two banks, so that the agent writes one while the tick reads the other, with two
/// frames for each target.
pub const PATH_ENTRIES: usize = 2 * 2 * MOST_PATH_TARGETS;
/// The number of entries of PATH_HEARD: one for each slot, then one for each target.
pub const PATH_HEARD_ENTRIES: usize = MAX_SLAVES + MOST_PATH_TARGETS;

/// A probe in PATH_FRAMES: whole, but for the MAC addresses of both ends, and the nonce of an echo. `kind` is the offset
/// of what follows the Ethernet header and its tags.
pub type PathFrame = AnnounceFrame;

/// How a target is probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u64)]
pub enum PathMethod {
    /// By echo if the target returns it, otherwise by ARP.
    #[default]
    Auto = 0,
    /// Unaffiliated echo (RFC 9747): the target forwards the frame back.
    Echo = 1,
    /// ARP requests, not more often than [`PathEntry::ARP_INTERVAL`].
    Arp = 2,
}

impl PathMethod {
    /// Returns the method with this number; a number of another version reads as [`Self::Auto`].
    pub const fn from_number(number: u64) -> Self {
        match number {
            1 => Self::Echo,
            2 => Self::Arp,
            _ => Self::Auto,
        }
    }
}

/// The agent's settings for the path monitor, in PATH_MONITOR at 0. The agent writes each word with one store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathEntry {
    /// Nanoseconds from one probe of the active slave to the next (`path_interval`); 0: the tick does not monitor.
    pub interval: u64,
    /// After how many intervals of silence the active slave is left (`path_misses`).
    pub misses: u64,
    /// [`PathMethod`]
    pub method: u64,
    /// A random number that echoes carry, whose lowest four bits are zero: there the slot is that sent the echo.
    pub nonce: u64,
    /// The frames of PATH_FRAMES: see [`PathList`].
    pub list: u64,
    /// A bit for each slot whose slave is set up.
    pub joined: u64,
    /// Another number after each change of the targets: the tick then starts again.
    pub epoch: u64,
    /// How many answers in succession end the failure of a path, and prove that of a slave whose link returned (`failback`);
    /// 0: one ends a failure, and no link needs a proof.
    pub proof: u64,
    /// The targets with the source address of their probes, as [`pair`] of both; 0: none.
    pub targets: [u64; MOST_PATH_TARGETS],
    /// The MAC address by which each slot is probed while it is a backup; 0: it is not probed.
    pub macs: [u64; MAX_SLAVES],
}

impl PathEntry {
    /// The shortest time from one ARP request to the next, in nanoseconds: a router's control plane answers them.
    pub const ARP_INTERVAL: u64 = 200_000_000;
    /// The time from one probe of a backup to the next, in nanoseconds.
    pub const BACKUP_INTERVAL: u64 = 1_000_000_000;

    /// Returns the MAC address by which a slot is probed while it is a backup; zero if it is not.
    #[inline(always)]
    pub fn mac(&self, slot: Slot) -> Mac {
        // As for other arrays, the verifier needs a mask that the compiler cannot remove.
        Mac::from_word(self.macs.get(black_box(slot.index()) % MAX_SLAVES).copied().unwrap_or_default())
    }

    /// Returns whether slaves have to prove their paths: the monitor runs, and one that joins, or whose link returns, is used
    /// like the others only after [`Self::proof`] answers.
    pub const fn wants_proof(&self) -> bool {
        self.is_on() && self.proof != 0
    }

    /// Returns whether targets are probed.
    pub const fn is_on(&self) -> bool {
        self.interval != 0 && PathList::from_bits(self.list).count > 0
    }

    /// Returns the bits of the slots that are probed while they are backups.
    pub fn probed(&self) -> u16 {
        Slot::all().fold(0, |mask, slot| if self.mac(slot).is_zero() { mask } else { mask | slot.bit() })
    }
}

/// Returns the word for a target and the source address of its probes.
pub const fn pair(target: [u8; 4], source: [u8; 4]) -> u64 {
    (u32::from_ne_bytes(target) as u64) << 32 | u32::from_ne_bytes(source) as u64
}

/// Returns the target and the source address of a word of [`PathEntry::targets`].
pub const fn of_pair(word: u64) -> ([u8; 4], [u8; 4]) {
    (((word >> 32) as u32).to_ne_bytes(), (word as u32).to_ne_bytes())
}

/// Where the frames are in PATH_FRAMES, as one word: the bank, and for how many targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathList {
    /// 0 or 1.
    pub bank: u32,
    /// At most [`MOST_PATH_TARGETS`].
    pub count: u32,
}

impl PathList {
    /// Creates the list from the word of [`PathEntry::list`]; larger values are cut.
    pub const fn from_bits(word: u64) -> Self {
        let (count, most) = (word as u32, MOST_PATH_TARGETS as u32);
        Self { bank: (word >> 32) as u32 & 1, count: if count > most { most } else { count } }
    }

    /// Returns the word of [`PathEntry::list`].
    pub const fn bits(self) -> u64 {
        (self.bank as u64) << 32 | self.count as u64
    }

    /// Returns the index in PATH_FRAMES of the echo to a target; the ARP request to it is the next one.
    pub const fn echo(self, target: u32) -> u32 {
        ((self.bank & 1) * MOST_PATH_TARGETS as u32 + target) * 2
    }
}

/// What the programs of slaves have heard, in PATH_HEARD: of each slot, then of each target. Each word is written with one
/// store, so that of two CPUs' times either is right.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathHeard {
    /// When the last echo came back that the slave had sent: CLOCK_MONOTONIC in nanoseconds, 0 for never.
    pub echo_at: u64,
    /// When that echo had been sent.
    pub echo_sent: u64,
    /// When the last ARP answer of a target came.
    pub arp_at: u64,
    /// Echoes that came back and were consumed, those that another slave had sent included.
    pub echoes: u64,
    /// ARP answers.
    pub arps: u64,
    /// Of a target: its MAC address, as its ARP answers say.
    pub mac: u64,
}

impl PathHeard {
    /// Returns when the path answered last.
    pub const fn at(&self) -> u64 {
        if self.echo_at > self.arp_at { self.echo_at } else { self.arp_at }
    }
}

/// What the tick keeps of the path monitor, in PATH_STATE at 0. Only the tick writes it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathState {
    /// [`PathEntry::epoch`] of the settings that this is of.
    pub epoch: u64,
    /// The active slave that this is of: [`crate::abi::ActiveWord::switches`], and the slot above it, plus one.
    pub of: u64,
    /// 1: echoes are what counts, 0: ARP answers are.
    pub echo: u64,
    /// How many echoes in succession came back while ARP answers are what counts.
    pub learned: u64,
    /// How often echoes stopped while ARP requests were answered.
    pub fallbacks: u64,
    /// When the active slave became active.
    pub since: u64,
    /// When the active slave was heard last, or became active.
    pub last: u64,
    /// The tick before that.
    pub last_tick: u64,
    /// Whether any slave was heard since the epoch began: when the last one was.
    pub heard_at: u64,
    /// When the next probe by the active slave is due.
    pub due: u64,
    /// Probes that left by the active slave since it was heard last.
    pub asked: u64,
    /// When all slaves were asked at once, and the tick that did so; 0: not since the epoch began.
    pub round_at: u64,
    /// See `round_at`.
    pub round_tick: u64,
    /// The earliest time of a round after the last ones, by which their rate is limited.
    pub budget: u64,
    /// When backups are asked next.
    pub backups_due: u64,
    /// Slots whose paths have failed, or are unproven: slaves that are used only while no other one is up.
    pub failed: u64,
    /// Those of them that are unproven: the slave joined, or its link was lost, and it has not answered
    /// [`PathEntry::proof`] times in succession since. Its path was never found silent.
    pub unproven: u64,
    /// Slots that have answered as backups.
    pub answering: u64,
    /// Slots that have been active, and silent, since a slave was heard last.
    pub tried: u64,
    /// Slots whose devices had a link when they were asked last.
    pub linked: u64,
    /// 1 while no slave is heard: the target is dead rather than a path.
    pub silent: u64,
    /// Failovers by the path monitor.
    pub failovers: u64,
    /// Probes that the kernel took.
    pub sent: u64,
    /// Probes that the kernel refused.
    pub refused: u64,
    /// The tick that has run last: a copy of its frame does not run again.
    pub ran: u64,
    /// When [`Self::failed`] changed last.
    pub failed_changed: u64,
    /// When the counters of the active slave were read last.
    pub counted_at: u64,
    /// Unicast frames that it had received then.
    pub received: u64,
    /// When those were found to grow last; 0: not since it became active.
    pub received_at: u64,
    /// Frames that it had sent then.
    pub sent_then: u64,
    /// Frames that it has sent since.
    pub sent_since: u64,
    /// Since when the active slave is suspected of a path in one direction: it sends, and receives no unicast where it did
    /// before; 0: it is not.
    pub suspected_at: u64,
    /// Answers that have to come before it is probed slowly again, while it is suspected; 0: it is not probed faster.
    pub fast: u64,
    /// How often a slave was suspected.
    pub suspicions: u64,
    /// The time of the last tick: what happened before it is in the other words.
    pub seen_at: u64,
    /// The usable slots of ACTIVE at the last tick.
    pub usable: u64,
    /// [`PathEntry::joined`] at the last tick.
    pub joined: u64,
    /// Slots whose streaks begin again, because their links were lost since they were asked last.
    pub lost: u64,
    /// Of each slot: when it was asked last as a backup.
    pub asked_at: [u64; MAX_SLAVES],
    /// Of each slot: when its path failed last, 0: never.
    pub failed_at: [u64; MAX_SLAVES],
    /// Of each slot: how many times in succession it has answered as a backup.
    pub streaks: [u64; MAX_SLAVES],
    /// Of each slot: how many probes in succession it has not answered as a backup, since its link came up, while others were
    /// heard.
    pub unanswered: [u64; MAX_SLAVES],
    /// Slots that are probed seldom as backups, because they have never answered as such: their ports may take one MAC address
    /// only.
    pub muted: u64,
}

impl PathState {
    /// The index of the word of `failed`, for readers of single words.
    pub const FAILED: usize = core::mem::offset_of!(Self, failed) / 8;
    /// As [`Self::FAILED`].
    pub const UNPROVEN: usize = core::mem::offset_of!(Self, unproven) / 8;
    /// As [`Self::FAILED`].
    pub const SEEN_AT: usize = core::mem::offset_of!(Self, seen_at) / 8;
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: 64-bit words in C layout without padding: every bit pattern is valid.
    unsafe impl aya::Pod for super::PathEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PathState {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::PathHeard {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_list_is_cut_to_its_bank() {
        let list = PathList { bank: 1, count: 3 };
        assert_eq!(PathList::from_bits(list.bits()), list);
        assert_eq!(PathList::from_bits(u64::MAX), PathList { bank: 1, count: MOST_PATH_TARGETS as u32 });
        let last = PathList { bank: 1, count: 4 }.echo(MOST_PATH_TARGETS as u32 - 1) + 1;
        assert_eq!(last as usize, PATH_ENTRIES - 1);
    }

    #[test]
    fn a_pair_is_read_back() {
        assert_eq!(of_pair(pair([192, 0, 2, 1], [192, 0, 2, 7])), ([192, 0, 2, 1], [192, 0, 2, 7]));
    }

    #[test]
    fn only_slots_with_a_mac_address_are_probed_as_backups() {
        let mut entry = PathEntry::default();
        entry.macs[3] = Mac::new([2, 0, 0, 0, 0, 3]).to_word();
        assert_eq!(entry.probed(), 1 << 3);
    }
}
