//! The attributes in a message's bytes, and their changes.

use std::time::Duration;

use super::{Message, MessageKind, Substitute, append, numbers::INFINITY};

/// The parts of a message that is being changed.
pub(super) struct Builder {
    kind: MessageKind,
    body: Vec<u8>,
}

impl Builder {
    pub(super) fn of(message: &Message) -> Self {
        Self { kind: message.kind, body: message.body.clone() }
    }

    pub(super) fn set(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.body.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    pub(super) fn set_byte(&mut self, at: usize, byte: u8) {
        self.set(at, &[byte]);
    }

    pub(super) fn set_word(&mut self, at: usize, word: u32) {
        self.set(at, &word.to_ne_bytes());
    }

    /// Replaces each attribute's value by the result of `change`, or drops it.
    pub(super) fn attributes(&mut self, mut change: impl FnMut(u16, &[u8]) -> Option<Vec<u8>>) {
        let attributes_begin = self.kind.header();
        let mut body = self.body.get(..attributes_begin).unwrap_or_default().to_vec();
        for (kind, value) in attributes(self.body.get(attributes_begin..).unwrap_or_default()) {
            if let Some(value) = change(kind, value) {
                append(&mut body, kind, &value);
            }
        }
        self.body = body;
    }

    pub(super) fn retype(&mut self, from: u16, to: u16) {
        let attributes_begin = self.kind.header();
        let mut body = self.body.get(..attributes_begin).unwrap_or_default().to_vec();
        for (kind, value) in attributes(self.body.get(attributes_begin..).unwrap_or_default()) {
            append(&mut body, if kind == from { to } else { kind }, value);
        }
        self.body = body;
    }

    pub(super) fn append(&mut self, kind: u16, value: &[u8]) {
        append(&mut self.body, kind, value);
    }

    pub(super) fn done(self) -> Message {
        Message { kind: self.kind, body: self.body }
    }
}

pub(super) fn device_for(ifindex: u32, substitute: &Substitute<'_>) -> u32 {
    if ifindex == substitute.from { substitute.to } else { ifindex }
}

pub(super) fn replaced(value: &[u8], substitute: &Substitute<'_>) -> Vec<u8> {
    let ifindex = u32_at(value, 0).unwrap_or(0);
    device_for(ifindex, substitute).to_ne_bytes().to_vec()
}

/// Returns the remaining seconds after some time has elapsed.
pub(super) fn time_left(seconds: u32, elapsed: Duration) -> u32 {
    if seconds == INFINITY {
        return INFINITY;
    }
    seconds.saturating_sub(u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX))
}

/// Returns type, value and the bytes that follow; `None` if the attribute is truncated.
pub(super) fn split_attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    const HEADER: usize = 4;
    let length = usize::from(u16_at(bytes, 0)?);
    let value = bytes.get(HEADER..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((u16_at(bytes, 2)?, value, rest))
}

pub(super) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, value, after) = split_attribute(rest)?;
        rest = after;
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}
