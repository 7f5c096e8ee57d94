//! The records that the data plane sends to the agent through the ring buffer EVENTS: rare ones, never one per packet.

use crate::{
    abi::ActiveWord,
    clock::{decide::Cause, misdirected::Noted},
    mac::Mac,
};

/// One record of EVENTS: 24 bytes, a kind and a value whose meaning depends on the kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventRecord {
    kind: u32,
    /// Depends on the kind; 0 where it is not used.
    detail: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    at: u64,
    value: u64,
}

/// The meaning of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPlaneEvent {
    /// The first frame arrived from the port of a bond without bond0: the MAC address of the host behind the port.
    HostMacLearned(Mac),
    /// The carrier guard failed over: the word that it stored in ACTIVE.
    FailedOver(ActiveWord),
    /// A tick of the clock stored this word in ACTIVE.
    Ticked(ActiveWord, Cause),
    /// The tick has sent a round of announcements.
    Announced(AnnouncedRound),
    /// A frame for the bond arrived on a backup, and the tick has announced its MAC address by the active slave.
    Misdirected(Noted),
    /// Such frames keep arriving in spite of all announcements: a switch sends them to all ports.
    Flooded(Noted),
}

/// A round of announcements that the tick has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedRound {
    /// The generation of ACTIVE that it announces.
    pub generation: u32,
    /// Addresses that were announced: frames that the kernel took.
    pub sent: u16,
    /// MAC addresses that were announced.
    pub macs: u16,
    /// Addresses or MAC addresses were left out, because there are more than a round announces.
    pub is_capped: bool,
    /// Frames that the kernel refused.
    pub failed: u16,
    /// From 1, the first round after a failover.
    pub number: u8,
}

impl EventRecord {
    const HOST_MAC_LEARNED: u32 = 1;
    const FAILED_OVER: u32 = 2;
    const TICKED: u32 = 3;
    const ANNOUNCED: u32 = 4;
    const MISDIRECTED: u32 = 5;
    const FLOODED: u32 = 6;

    /// Creates the record of an event that happened at `at`, CLOCK_MONOTONIC in nanoseconds.
    pub const fn new(at: u64, event: DataPlaneEvent) -> Self {
        let (kind, detail, value) = match event {
            DataPlaneEvent::HostMacLearned(mac) => (Self::HOST_MAC_LEARNED, 0, mac.to_word()),
            DataPlaneEvent::FailedOver(word) => (Self::FAILED_OVER, 0, word.bits()),
            DataPlaneEvent::Ticked(word, cause) => (Self::TICKED, cause as u32, word.bits()),
            DataPlaneEvent::Misdirected(noted) => (Self::MISDIRECTED, 0, noted.bits()),
            DataPlaneEvent::Flooded(noted) => (Self::FLOODED, 0, noted.bits()),
            DataPlaneEvent::Announced(round) => (Self::ANNOUNCED, round.to_detail(), round.to_word()),
        };
        Self { kind, detail, at, value }
    }

    /// Returns the time of the event, CLOCK_MONOTONIC in nanoseconds.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// Returns the event, None if this version does not know its kind.
    pub const fn event(&self) -> Option<DataPlaneEvent> {
        match self.kind {
            Self::HOST_MAC_LEARNED => Some(DataPlaneEvent::HostMacLearned(Mac::from_word(self.value))),
            Self::FAILED_OVER => Some(DataPlaneEvent::FailedOver(ActiveWord::from_bits(self.value))),
            Self::TICKED => match Cause::from_number(self.detail) {
                Some(cause) => Some(DataPlaneEvent::Ticked(ActiveWord::from_bits(self.value), cause)),
                None => None,
            },
            Self::MISDIRECTED => match Noted::from_bits(self.value) {
                Some(noted) => Some(DataPlaneEvent::Misdirected(noted)),
                None => None,
            },
            Self::FLOODED => match Noted::from_bits(self.value) {
                Some(noted) => Some(DataPlaneEvent::Flooded(noted)),
                None => None,
            },
            Self::ANNOUNCED => {
                Some(DataPlaneEvent::Announced(AnnouncedRound::from_words(self.value, self.detail)))
            }
            _ => None,
        }
    }

    /// Parses the bytes of a record of the ring buffer; None if there are fewer than 24.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word =
            |at: usize| -> Option<u64> { Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
        let half =
            |at: usize| -> Option<u32> { Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
        Some(Self { kind: half(0)?, detail: half(4)?, at: word(8)?, value: word(16)? })
    }
}

impl AnnouncedRound {
    const fn to_word(self) -> u64 {
        (self.generation as u64) << 32 | (self.sent as u64) << 16 | self.failed as u64
    }

    /// Returns the number, the MAC addresses above it, and whether some were left out in the highest bit.
    const fn to_detail(self) -> u32 {
        self.number as u32 | (self.macs as u32) << 8 | (self.is_capped as u32) << 31
    }

    const fn from_words(word: u64, detail: u32) -> Self {
        Self {
            generation: (word >> 32) as u32,
            sent: (word >> 16) as u16,
            macs: (detail >> 8) as u16,
            is_capped: detail >> 31 != 0,
            failed: word as u16,
            number: detail as u8,
        }
    }
}

const _: () = assert!(size_of::<EventRecord>() == 24);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Slot;

    #[test]
    fn a_record_is_read_from_its_bytes() {
        let mut bytes = [0; 24];
        bytes[0] = 1;
        bytes[8..16].copy_from_slice(&7u64.to_ne_bytes());
        bytes[16..22].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
        let record = EventRecord::parse(&bytes).unwrap();
        let mac = Mac::new([2, 0, 0, 0, 0, 9]);
        assert_eq!((record.at(), record.event()), (7, Some(DataPlaneEvent::HostMacLearned(mac))));
        assert_eq!(record, EventRecord::new(7, DataPlaneEvent::HostMacLearned(mac)));
        let word = ActiveWord::from_bits(0x0000_0002_0002_1001);
        bytes[0] = 2;
        bytes[16..24].copy_from_slice(&word.bits().to_ne_bytes());
        assert_eq!(EventRecord::parse(&bytes), Some(EventRecord::new(7, DataPlaneEvent::FailedOver(word))));
        for event in [
            DataPlaneEvent::Ticked(word, Cause::LinkReturned),
            DataPlaneEvent::Misdirected(Noted::new(mac, 5, Slot::new(1).unwrap())),
            DataPlaneEvent::Flooded(Noted::new(mac, 0, Slot::new(15).unwrap())),
            DataPlaneEvent::Announced(AnnouncedRound {
                generation: 7,
                sent: 300,
                macs: 1024,
                is_capped: true,
                failed: 2,
                number: 3,
            }),
        ] {
            assert_eq!(EventRecord::new(7, event).event(), Some(event));
        }
        bytes[..8].copy_from_slice(&[3, 0, 0, 0, 99, 0, 0, 0]);
        assert_eq!(EventRecord::parse(&bytes).unwrap().event(), None, "a cause of another version");
        bytes[0] = 99;
        assert_eq!(EventRecord::parse(&bytes).unwrap().event(), None);
        assert_eq!(EventRecord::parse(&bytes[..23]), None);
    }
}
