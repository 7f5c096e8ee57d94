//! What the data plane tells the agent, in the ring buffer EVENTS: rare things, never one per packet.

use crate::mac::Mac;

/// One record of EVENTS.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRecord {
    kind: u32,
    reserved: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    at: u64,
    value: u64,
}

/// A record, understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPlaneEvent {
    /// The first frame came in from the port of a bond that has no bond0: this is the MAC behind it.
    HostMacLearned(Mac),
}

impl EventRecord {
    const HOST_MAC_LEARNED: u32 = 1;

    pub const fn new(at: u64, event: DataPlaneEvent) -> Self {
        match event {
            DataPlaneEvent::HostMacLearned(mac) => {
                Self { kind: Self::HOST_MAC_LEARNED, reserved: 0, at, value: mac.to_word() }
            }
        }
    }

    /// CLOCK_MONOTONIC, nanoseconds.
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// None for a kind that this version does not know.
    pub const fn event(&self) -> Option<DataPlaneEvent> {
        match self.kind {
            Self::HOST_MAC_LEARNED => Some(DataPlaneEvent::HostMacLearned(Mac::from_word(self.value))),
            _ => None,
        }
    }

    /// From the bytes of a ring buffer's record; None if there are too few.
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
        bytes[0] = 99;
        assert_eq!(EventRecord::parse(&bytes).unwrap().event(), None);
        assert_eq!(EventRecord::parse(&bytes[..23]), None);
    }
}
