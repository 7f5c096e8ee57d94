//! The numbered frames that the examples exchange.

/// IEEE 802: local experimental EtherType 1.
pub const ETHERTYPE: u16 = 0x88b5;
/// Bytes, without the checksum.
pub const LENGTH: usize = 64;

const NUMBER: usize = 16;
const READ_AT: usize = 24;
const GENERATION: usize = 32;

/// One frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    /// From 0, in the order of sending.
    pub number: u64,
    /// Just before the sender read which slave is active: CLOCK_MONOTONIC, nanoseconds.
    pub read_at: u64,
    /// The generation of the word that the sender read.
    pub generation: u32,
}

impl Frame {
    /// Writes the frame to the first bytes of a buffer of at least [`LENGTH`].
    pub fn write(&self, buffer: &mut [u8]) {
        buffer[..6].copy_from_slice(&self.destination);
        buffer[6..12].copy_from_slice(&self.source);
        buffer[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        buffer[14..NUMBER].fill(0);
        buffer[NUMBER..READ_AT].copy_from_slice(&self.number.to_be_bytes());
        buffer[READ_AT..GENERATION].copy_from_slice(&self.read_at.to_be_bytes());
        buffer[GENERATION..GENERATION + 4].copy_from_slice(&self.generation.to_be_bytes());
        buffer[GENERATION + 4..LENGTH].fill(0);
    }

    /// Reads a frame; None if it is no frame of these examples.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.get(..LENGTH)?.try_into().ok()?;
        let word = |at: usize| bytes[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        (bytes[12..14] == ETHERTYPE.to_be_bytes()).then_some(())?;
        Some(Self {
            destination: bytes[..6].try_into().ok()?,
            source: bytes[6..12].try_into().ok()?,
            number: word(NUMBER)?,
            read_at: word(READ_AT)?,
            generation: (word(GENERATION)? >> 32) as u32,
        })
    }
}
