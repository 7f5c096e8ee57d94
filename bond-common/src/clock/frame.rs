//! The frame that circulates in the clock's pair.

use crate::wire::Frame;

/// The number of frames that circulate. If one is lost, the other still ticks, and puts the lost one in again.
pub const FRAMES: usize = 2;

/// The length of a frame in bytes, which the queue of the pair counts.
pub const LENGTH: usize = 64;

/// The EtherType for local experiments (IEEE 802, local experimental EtherType 1).
const ETHER_TYPE: [u8; 2] = 0x88b5_u16.to_be_bytes();
/// Distinguishes the frames from other experiments.
const MAGIC: [u8; 8] = *b"xbondclk";
/// The offsets of the fields, in bytes: `MAGIC`, the number of the frame, its sequence.
const MAGIC_AT: usize = 16;
const NUMBER_AT: usize = 24;
const SEQUENCE_AT: usize = 32;
const HEADER: usize = 40;

/// A frame of the clock. The receiver takes a frame only once: its sequence must be the one that is expected of its
/// number, and each lap changes it. So copies of a frame and frames of other programs end at the first tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockFrame {
    /// From 0 to [`FRAMES`] - 1.
    pub number: u8,
    /// Changes with each lap.
    pub sequence: u64,
}

impl ClockFrame {
    /// Parses a frame; None if it is not one of a clock.
    #[inline(always)]
    pub fn read(frame: &impl Frame) -> Option<Self> {
        if frame.read(12)? != ETHER_TYPE || frame.read(MAGIC_AT)? != MAGIC {
            return None;
        }
        let [number] = frame.read(NUMBER_AT)?;
        let sequence = u64::from_be_bytes(frame.read(SEQUENCE_AT)?);
        ((number as usize) < FRAMES).then_some(Self { number, sequence })
    }

    /// Writes this frame over the first 40 bytes of a frame; None if it is shorter or cannot be written.
    #[inline(always)]
    pub fn write(self, frame: &mut impl Frame) -> Option<()> {
        frame.write(0, self.header())
    }

    /// Returns the whole frame.
    pub fn bytes(self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..HEADER].copy_from_slice(&self.header());
        bytes
    }

    #[inline(always)]
    fn header(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        // Locally administered addresses: no NIC has them, and no bridge forwards between the ends of a pair.
        bytes[..12]
            .copy_from_slice(&[0x02, b'x', b'b', b'c', b'l', b'k', 0x02, b'x', b'b', b'c', b'l', b'k']);
        bytes[12..14].copy_from_slice(&ETHER_TYPE);
        bytes[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(&MAGIC);
        bytes[NUMBER_AT] = self.number;
        bytes[SEQUENCE_AT..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tests::Bytes;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let frame = ClockFrame { number: 1, sequence: 0x0102_0304_0506_0708 };
        let mut bytes = Bytes(frame.bytes().to_vec());
        assert_eq!(ClockFrame::read(&bytes), Some(frame));
        let next = ClockFrame { number: 0, sequence: 9 };
        assert_eq!((next.write(&mut bytes), ClockFrame::read(&bytes)), (Some(()), Some(next)));
    }

    #[test]
    fn other_frames_are_refused() {
        let whole = ClockFrame { number: 0, sequence: 7 }.bytes();
        let changed = |at: usize, value: u8| {
            let mut bytes = whole.to_vec();
            bytes[at] = value;
            Bytes(bytes)
        };
        for (at, value) in [(12, 0x08), (MAGIC_AT, b'y'), (NUMBER_AT, FRAMES as u8)] {
            assert_eq!(ClockFrame::read(&changed(at, value)), None, "byte {at}");
        }
        for length in 0..HEADER {
            assert_eq!(ClockFrame::read(&Bytes(whole[..length].to_vec())), None, "{length} bytes");
        }
    }
}
