//! The carrier guard: a failover where the packets are, with or without an agent.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use bond_common::{
    abi::{ActiveWord, Slot},
    counters::DropReason,
    event::{DataPlaneEvent, EventRecord},
    guard::fail_over,
};

use crate::{device, maps, stats::Stats};

/// Whether the guard looks before this packet. Where it does before every one, the verifier knows that and leaves no
/// branch.
#[inline(always)]
pub fn is_due(slot: Slot) -> bool {
    let skips = maps::guard_skips() as u64;
    skips == 0 || Stats::of(slot.index() as u32).is_none_or(|mut stats| stats.get().tx_packets & skips == 0)
}

/// The slot by which a packet leaves that `slot` was chosen for: another one if its device has no link.
#[inline(always)]
pub fn check(slot: Slot) -> Result<Slot, DropReason> {
    if !is_dead(slot) {
        return Ok(slot);
    }
    match without_link(slot.index() as u64) {
        NO_LINK => Err(DropReason::NoLink),
        PAUSE => Err(DropReason::GuardPause),
        index => Slot::new(index as u8).ok_or(DropReason::Internal),
    }
}

/// Beside a slot's number, what [`without_link`] says.
const NO_LINK: u64 = 16;
const PAUSE: u64 = 17;

/// The rare case, apart from the path of every packet. Functions of BPF take and return numbers.
#[inline(never)]
fn without_link(slot: u64) -> u64 {
    let Some(word) = maps::active_word() else { return NO_LINK };
    let Some(active) = word.active() else { return NO_LINK };
    if active.index() as u64 != slot {
        // The packet's queue had chosen it, or somebody else was faster.
        return if !is_dead(active) { active.index() as u64 } else { NO_LINK };
    }
    let Some(guard) = maps::guard() else { return NO_LINK };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map value lives as long as the program runs; its words are read each for itself.
    let entry = unsafe { guard.read_volatile() };
    let Some(next) = fail_over(word, entry.rank(), has_link) else { return NO_LINK };
    if !entry.may_switch(now) {
        return PAUSE;
    }
    match maps::exchange_active(word, next) {
        Ok(()) => {
            // SAFETY: as above; one word. Who else fails over in this moment has lost the exchange.
            unsafe { &mut *guard }.note(now);
            tell(now, next)
        }
        // Whoever won has chosen as well as we would.
        Err(word) => word.active().map_or(NO_LINK, |active| active.index() as u64),
    }
}

#[inline(always)]
fn tell(now: u64, next: ActiveWord) -> u64 {
    let Some(slot) = next.active() else { return NO_LINK };
    if let Some(mut stats) = Stats::of(slot.index() as u32) {
        stats.get().guard_failovers += 1;
    }
    maps::tell(EventRecord::new(now, DataPlaneEvent::FailedOver(next)));
    slot.index() as u64
}

/// Whether a slave could take over: it is known to have a link.
#[inline(always)]
fn has_link(slot: Slot) -> bool {
    maps::slave(slot).is_some_and(device::has_link)
}

/// Whether a slave has to be left: it is known to have no link.
#[inline(always)]
fn is_dead(slot: Slot) -> bool {
    maps::slave(slot).is_none_or(device::is_dead)
}
