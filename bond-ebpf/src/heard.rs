//! Notes which stations the active slave hears, for a moment after a failover.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use bond_common::{
    abi::{ActiveWord, Slot},
    heard::FirstHeard,
    mac::Mac,
};

use crate::maps;

/// Stores in HEARD when the active slave has received a frame of this source first. Called while
/// [`bond_common::abi::BondEntry::OBSERVE`] is set.
#[inline(always)]
pub fn note(source: Mac, slot: Slot, word: ActiveWord) {
    if word.active() == Some(slot) && source.is_unicast() {
        remember(source.to_word(), word.bits());
    }
}

/// A separate function, so that other packets do not pay for its registers. Functions of BPF take and return numbers.
#[inline(never)]
fn remember(source: u64, word: u64) -> u64 {
    let (source, word) = (Mac::from_word(source), ActiveWord::from_bits(word));
    if maps::heard(&source).is_some_and(|heard| heard.since(word).is_some()) {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::insert_heard(&source, &FirstHeard::new(now, word));
    0
}
