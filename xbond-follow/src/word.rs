//! ACTIVE, the word that says which slave is active.

use core::fmt;

use crate::MAX_SLAVES;

const HAS_ACTIVE: u64 = 1;
const HAS_DRAINING: u64 = 1 << 1;
const SWITCHES_AT: u32 = 2;
const SWITCHES: u64 = 0x3f;
const DRAINING_AT: u32 = 8;
const ACTIVE_AT: u32 = 12;
const SLOT: u64 = 0xf;
const USABLE_AT: u32 = 16;
const GENERATION_AT: u32 = 32;

/// A value of ACTIVE.
///
/// ```text
///  63           32 31        16 15    12 11      8 7        2 1            0
/// | generation    | usable     | active | draining| switches | has_draining | has_active |
/// ```
///
/// A slot is the index of a slave, 0 to 15, which it keeps until it is released.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Word(u64);

impl Word {
    /// Creates the word from the 64 bits that the map holds; every value is valid.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits that the map holds.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the slot of the slave that transmits and receives, None if the bond has no active slave.
    pub const fn active(self) -> Option<u8> {
        if self.0 & HAS_ACTIVE == 0 { None } else { Some((self.0 >> ACTIVE_AT & SLOT) as u8) }
    }

    /// Returns the slot of the former active slave of a planned switch, which still receives unicast for a moment; it
    /// transmits no more.
    pub const fn draining(self) -> Option<u8> {
        if self.0 & HAS_DRAINING == 0 { None } else { Some((self.0 >> DRAINING_AT & SLOT) as u8) }
    }

    /// Returns a bit for each slot whose slave may become active: bit N for slot N.
    pub const fn usable(self) -> u16 {
        (self.0 >> USABLE_AT) as u16
    }

    /// Returns the number of changes of the word, which wraps.
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_AT) as u32
    }

    /// Returns the number of changes of the active slave, which wraps at 64.
    pub const fn switches(self) -> u8 {
        (self.0 >> SWITCHES_AT & SWITCHES) as u8
    }

    /// Returns whether the bond would accept a frame that the slave in this slot received: the active slave receives
    /// everything, a draining one unicast, a backup nothing. `is_group` is the lowest bit of the frame's first byte:
    /// the destination is a multicast or broadcast address.
    ///
    /// This is the rule without `all_slaves_active`, with which every slave receives.
    pub const fn delivers(self, slot: u8, is_group: bool) -> bool {
        if slot >= MAX_SLAVES {
            return false;
        }
        match (self.active(), self.draining()) {
            (Some(active), _) if active == slot => true,
            (_, Some(draining)) if draining == slot => !is_group,
            _ => false,
        }
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Word")
            .field("generation", &self.generation())
            .field("usable", &format_args!("{:#06x}", self.usable()))
            .field("active", &self.active())
            .field("draining", &self.draining())
            .field("switches", &self.switches())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_delivered_by_the_active_slave_and_unicast_by_the_draining_one() {
        let word = Word::from_bits(0x3 | 1 << 12 | 2 << 8);
        let table =
            [(0, false, false), (1, true, true), (2, true, false), (16, false, false), (18, false, false)];
        for (slot, unicast, group) in table {
            assert_eq!(
                (word.delivers(slot, false), word.delivers(slot, true)),
                (unicast, group),
                "slot {slot}"
            );
        }
        // Slot 0 of a bond without an active slave.
        assert!(!Word::default().delivers(0, false));
    }
}
