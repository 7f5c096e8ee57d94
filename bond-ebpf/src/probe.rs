//! Records the frames that a slave receives for the ARP monitor.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use bond_common::{
    abi::{ActiveWord, BondEntry, Slot},
    probe::{Heard, Role, hear},
};

use crate::{maps, packet::Packet};

/// Stores in PROBES that a slave received a frame which the ARP monitor counts. Called while [`BondEntry::MONITOR`] is
/// set, before the frame is changed. A separate function, so that other packets do not pay for its registers.
#[inline(never)]
pub fn note(packet: &impl Packet, slot: Slot, word: ActiveWord, bond: &BondEntry) {
    let Some(targets) = maps::targets() else { return };
    let target = match hear(packet, Role::of(slot, word, targets), bond, targets) {
        Heard::Nothing => return,
        Heard::Traffic => None,
        Heard::Target(index) => Some(index),
    };
    let Some(times) = maps::probe_times(slot) else { return };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map value lives as long as the program runs; other CPUs store these words, too, each with one store.
    unsafe { &mut *times }.note(now, target);
}
