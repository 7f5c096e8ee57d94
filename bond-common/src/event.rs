//! The records that the data plane sends to the agent through the ring buffer EVENTS: rare ones, never one per packet.

use crate::{abi::ActiveWord, mac::Mac};

/// One record of EVENTS: 24 bytes, a kind and a value whose meaning depends on the kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRecord {
    kind: u32,
    reserved: u32,
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
}

impl EventRecord {
    const HOST_MAC_LEARNED: u32 = 1;
    const FAILED_OVER: u32 = 2;

    /// Creates the record of an event that happened at `at`, CLOCK_MONOTONIC in nanoseconds.
    pub const fn new(at: u64, event: DataPlaneEvent) -> Self {
        let (kind, value) = match event {
            DataPlaneEvent::HostMacLearned(mac) => (Self::HOST_MAC_LEARNED, mac.to_word()),
            DataPlaneEvent::FailedOver(word) => (Self::FAILED_OVER, word.bits()),
        };
        Self { kind, reserved: 0, at, value }
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
            _ => None,
        }
    }

    /// Parses the bytes of a record of the ring buffer; None if there are fewer than 24.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word =
            |at: usize| -> Option<u64> { Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?)) };
        let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        Some(Self { kind, reserved: 0, at: word(8)?, value: word(16)? })
    }
}

const _: () = assert!(size_of::<EventRecord>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

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
        bytes[0] = 99;
        assert_eq!(EventRecord::parse(&bytes).unwrap().event(), None);
        assert_eq!(EventRecord::parse(&bytes[..23]), None);
    }
}
