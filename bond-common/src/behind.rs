//! MAC addresses behind the bond: of guests on a bridge above bond0, of macvlans, of whatever else sends by bond0 with a
//! source MAC address that is not the host's.
//!
//! The port's program stores each of them in BEHIND with the time at which it sent last. After a failover each is announced,
//! so that switches send its frames to the new active slave.

use core::mem::offset_of;

use network_types::eth::{EthHdr, EtherType};

use crate::{mac::Mac, wire::Frame};

/// The most MAC addresses that a round announces: those that sent last.
pub const MOST_BEHIND: usize = 1024;

/// A VLAN tag without its priority, as one word: the TPID in the upper half, the VID in the lower; 0: none.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(u32);

impl Tag {
    /// No tag.
    pub const NONE: Self = Self(0);

    /// The bits of the tag control information that are the VID.
    const VID: u16 = 0xfff;

    /// Creates the tag of this TPID and tag control information, both in the byte order of this machine. A priority tag
    /// (VID 0) names no VLAN, and counts as none.
    pub const fn new(tpid: u16, control: u16) -> Self {
        let vid = control & Self::VID;
        if vid == 0 { Self::NONE } else { Self((tpid as u32) << 16 | vid as u32) }
    }

    /// Creates the tag of the word that [`Self::bits`] returns.
    pub const fn from_bits(word: u32) -> Self {
        Self(word)
    }

    /// Returns the word.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Returns whether there is no tag.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Returns the four bytes that stand in a frame.
    pub const fn bytes(self) -> [u8; 4] {
        self.0.to_be_bytes()
    }

    /// Returns the TPID, for example 0x8100.
    pub const fn tpid(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Returns the VID, 1 to 4095.
    pub const fn vid(self) -> u16 {
        self.0 as u16
    }
}

/// A key of BEHIND: a MAC address, and up to two VLAN tags of the frames that it sends.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BehindKey {
    mac: Mac,
    /// From the outermost on.
    tags: [Tag; 2],
}

impl BehindKey {
    /// Creates the key of a MAC address whose frames have these tags, from the outermost on.
    pub const fn new(mac: Mac, tags: [Tag; 2]) -> Self {
        Self { mac, tags }
    }

    /// Returns the MAC address.
    pub const fn mac(&self) -> Mac {
        self.mac
    }

    /// Returns the tags, from the outermost on; none follow the first [`Tag::NONE`].
    pub const fn tags(&self) -> [Tag; 2] {
        self.tags
    }
}

/// A value of BEHIND. The data plane writes each word with one store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BehindEntry {
    /// When the MAC address sent last, within [`Self::FRESH`], and under which active slave: see [`LastSent`].
    pub seen: LastSent,
    /// The round of announcements that has announced it: the tick's own number.
    pub announced: u64,
}

impl BehindEntry {
    /// An entry is written again at most once in this time, in nanoseconds.
    pub const FRESH: u64 = 1_000_000_000;
}

/// When a MAC address sent last, and [`crate::abi::ActiveWord::switches`] at that time, as one word: nanoseconds of
/// CLOCK_MONOTONIC whose lowest six bits are the counter.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LastSent(u64);

impl LastSent {
    const SWITCHES: u64 = 0x3f;

    /// A copy of a frame that the former active slave sent arrives at the new one within this time, in nanoseconds.
    const COPIES: u64 = 2_000_000_000;

    /// Creates the word.
    pub const fn new(now: u64, switches: u8) -> Self {
        Self(now & !Self::SWITCHES | switches as u64 & Self::SWITCHES)
    }

    /// Returns the time: CLOCK_MONOTONIC in nanoseconds, within 64 ns.
    pub const fn at(self) -> u64 {
        self.0 & !Self::SWITCHES
    }

    const fn switches(self) -> u8 {
        (self.0 & Self::SWITCHES) as u8
    }

    /// Returns whether the word need not be written again for a frame that is sent at `now` under this active slave.
    #[inline(always)]
    pub const fn is_fresh(self, now: u64, switches: u8) -> bool {
        self.switches() == switches && now.saturating_sub(self.at()) < BehindEntry::FRESH
    }

    /// Returns whether the MAC address has moved away, after a frame with it as its source was received by the active slave at
    /// `now`.
    ///
    /// No switch returns a frame to the port that it came from. Only after a failover may a copy of what the former active
    /// slave has sent arrive at the new one.
    #[inline(always)]
    pub const fn has_moved(self, now: u64, switches: u8) -> bool {
        self.switches() == switches || now.saturating_sub(self.at()) >= Self::COPIES
    }
}

/// Returns the first two VLAN tags of a frame. `offloaded` is the tag that the kernel holds outside of the frame, which
/// precedes those inside.
#[inline(always)]
pub fn tags(frame: &impl Frame, offloaded: Tag) -> [Tag; 2] {
    const FIRST: usize = offset_of!(EthHdr, ether_type);
    if !offloaded.is_none() {
        return [offloaded, tag_at(frame, FIRST)];
    }
    let first = tag_at(frame, FIRST);
    if first.is_none() { [Tag::NONE; 2] } else { [first, tag_at(frame, FIRST + 4)] }
}

/// Returns the tag whose TPID is at `offset`.
#[inline(always)]
fn tag_at(frame: &impl Frame, offset: usize) -> Tag {
    let word = |offset| frame.read(offset).map_or(0, u16::from_ne_bytes);
    let ether_type = word(offset);
    let tagged = ether_type == EtherType::Ieee8021q as u16
        || ether_type == EtherType::Ieee8021ad as u16
        || ether_type == EtherType::Ieee8021QinQ1 as u16;
    if tagged { Tag::new(u16::from_be(ether_type), u16::from_be(word(offset + 2))) } else { Tag::NONE }
}

/// The bytes of a frame of [`write_reverse_arp`]: the shortest frame of Ethernet, without its check sequence.
pub const REVERSE_ARP_BYTES: usize = 60;

/// Makes a frame of [`REVERSE_ARP_BYTES`] bytes the request of a MAC address for its own IPv4 address, behind these tags. Hosts
/// do not answer and learn nothing; switches learn where the MAC address is.
///
/// Returns None if the frame is shorter, or cannot be written.
#[inline(always)]
pub fn write_reverse_arp(frame: &mut impl Frame, key: &BehindKey) -> Option<()> {
    // The EtherType and the fixed part of ARP: Ethernet, IPv4, the lengths of their addresses, the request.
    const RARP: [u8; 10] = [0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3];
    const SENDER: usize = 10;
    const TARGET: usize = 20;
    let mac = key.mac.bytes();
    frame.write(0, [0; REVERSE_ARP_BYTES])?;
    frame.write(offset_of!(EthHdr, dst_addr), Mac::BROADCAST.bytes())?;
    frame.write(offset_of!(EthHdr, src_addr), mac)?;
    let mut offset = offset_of!(EthHdr, ether_type);
    let [outer, inner] = key.tags;
    if !outer.is_none() {
        frame.write(offset, outer.bytes())?;
        offset += 4;
    }
    if !inner.is_none() {
        frame.write(offset, inner.bytes())?;
        offset += 4;
    }
    frame.write(offset, RARP)?;
    frame.write(offset + SENDER, mac)?;
    frame.write(offset + TARGET, mac)
}

#[cfg(feature = "user")]
mod user {
    // SAFETY: words in C layout without padding: every bit pattern is valid.
    unsafe impl aya::Pod for super::BehindKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::BehindEntry {}
}

const _: () = assert!(size_of::<BehindKey>() == 16 && size_of::<BehindEntry>() == 16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::Bytes;

    const C_TAG: Tag = Tag::new(0x8100, 5);
    const S_TAG: Tag = Tag::new(0x88a8, 100);

    fn frame(rest: &[u8]) -> Bytes {
        Bytes([&[0; 12], rest].concat())
    }

    #[test]
    fn tags_are_read_from_the_frame_behind_the_one_outside() {
        let plain = frame(&[8, 0, 0x45, 0, 0, 0]);
        let single = frame(&[0x81, 0, 0xe0, 5, 8, 0]);
        let double = frame(&[0x88, 0xa8, 0, 100, 0x81, 0, 0, 5, 8, 0]);
        let priority = frame(&[0x81, 0, 0xe0, 0, 8, 0]);
        for (frame, offloaded, expected) in [
            (&plain, Tag::NONE, [Tag::NONE; 2]),
            (&single, Tag::NONE, [C_TAG, Tag::NONE]),
            (&double, Tag::NONE, [S_TAG, C_TAG]),
            (&priority, Tag::NONE, [Tag::NONE; 2]),
            (&plain, C_TAG, [C_TAG, Tag::NONE]),
            (&single, S_TAG, [S_TAG, C_TAG]),
            (&frame(&[0x81]), Tag::NONE, [Tag::NONE; 2]),
        ] {
            assert_eq!(tags(frame, offloaded), expected);
        }
        assert_eq!((S_TAG.tpid(), S_TAG.vid()), (0x88a8, 100));
    }

    #[test]
    fn a_reverse_arp_has_the_tags_of_its_mac() {
        let mac = Mac::new([2, 0, 0, 0, 0, 9]);
        let source = [2, 0, 0, 0, 0, 9];
        for (tags, bytes) in [
            ([Tag::NONE; 2], &[][..]),
            ([C_TAG, Tag::NONE], &[0x81, 0, 0, 5]),
            ([S_TAG, C_TAG], &[0x88, 0xa8, 0, 100, 0x81, 0, 0, 5]),
        ] {
            let mut frame = Bytes(vec![0xee; REVERSE_ARP_BYTES]);
            write_reverse_arp(&mut frame, &BehindKey::new(mac, tags)).unwrap();
            let arp =
                [&[0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3][..], &source, &[0; 4], &source, &[0; 4]].concat();
            let mut expected = [&[0xff; 6][..], &source, bytes, &arp].concat();
            expected.resize(REVERSE_ARP_BYTES, 0);
            assert_eq!(frame.0, expected);
            assert_eq!(super::tags(&frame, Tag::NONE), tags);
        }
        assert_eq!(write_reverse_arp(&mut Bytes(vec![0; 59]), &BehindKey::new(mac, [Tag::NONE; 2])), None);
    }

    #[test]
    fn an_entry_is_written_once_in_a_second_and_after_a_failover() {
        let seen = LastSent::new(10_000_000_000, 7);
        assert!(seen.at().abs_diff(10_000_000_000) < 64);
        for (now, switches, fresh) in [
            (10_000_000_000, 7, true),
            (10_900_000_000, 7, true),
            (9_000_000_000, 7, true),
            (11_000_000_000, 7, false),
            (10_000_000_000, 8, false),
        ] {
            assert_eq!(seen.is_fresh(now, switches), fresh, "{now}, {switches}");
        }
    }

    #[test]
    fn a_mac_from_the_wire_has_moved_unless_it_may_be_a_copy_of_before_a_failover() {
        let seen = LastSent::new(10_000_000_000, 7);
        for (now, switches, moved) in
            [(10_000_000_100, 7, true), (10_500_000_000, 8, false), (12_000_000_000, 8, true)]
        {
            assert_eq!(seen.has_moved(now, switches), moved, "{now}, {switches}");
        }
    }
}
