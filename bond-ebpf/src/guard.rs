//! The carrier guard: fails over in the data plane, with or without an agent.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use bond_common::{
    abi::{ActiveWord, Slot},
    counters::DropReason,
    event::{DataPlaneEvent, EventRecord},
    guard::fail_over,
};

use crate::{device, maps, stats::Stats};

/// Returns whether the guard checks the slave before this packet. If it checks before every packet, the verifier knows
/// the constant and removes the branch.
#[inline(always)]
pub fn is_due(slot: Slot) -> bool {
    let skips = maps::guard_skips() as u64;
    skips == 0 || Stats::of(slot.index() as u32).is_none_or(|mut stats| stats.get().tx_packets & skips == 0)
}

/// Returns the slot through which a packet leaves that was assigned to `slot`: another one if the device of `slot` has
/// no link.
///
/// # Errors
/// The packet is to be dropped: no slave has a link, or the guard pauses.
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

/// Results of [`without_link`] that are not the index of a slot.
const NO_LINK: u64 = 16;
const PAUSE: u64 = 17;

/// Fails over from `slot` and returns the index of the slot to use, [`NO_LINK`] or [`PAUSE`]. A separate function, so
/// that the path of every packet stays short. Functions of BPF take and return numbers.
#[inline(never)]
fn without_link(slot: u64) -> u64 {
    let Some(word) = maps::active_word() else { return NO_LINK };
    let Some(active) = word.active() else { return NO_LINK };
    if active.index() as u64 != slot {
        // The packet's queue had chosen `slot`, or another CPU or the agent has failed over.
        return if !is_dead(active) { active.index() as u64 } else { NO_LINK };
    }
    let Some(guard) = maps::guard() else { return NO_LINK };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map value lives as long as the program runs; each of its words is read with one load.
    let entry = unsafe { guard.read_volatile() };
    let Some(next) = fail_over(word, entry.rank(), has_link) else { return NO_LINK };
    if !entry.may_switch(now) {
        return PAUSE;
    }
    match maps::exchange_active(word, next) {
        Ok(()) => {
            // SAFETY: as above; one word. Other CPUs that fail over at this moment lose the compare-and-swap.
            unsafe { &mut *guard }.note(now);
            record(now, next)
        }
        // A CPU that loses the compare-and-swap transmits through the slave that the winner chose.
        Err(word) => word.active().map_or(NO_LINK, |active| active.index() as u64),
    }
}

/// Counts a failover to the active slot of `next`, sends its record to the agent, and returns the index of the slot.
#[inline(always)]
fn record(now: u64, next: ActiveWord) -> u64 {
    let Some(slot) = next.active() else { return NO_LINK };
    if let Some(mut stats) = Stats::of(slot.index() as u32) {
        stats.get().guard_failovers += 1;
    }
    maps::send(EventRecord::new(now, DataPlaneEvent::FailedOver(next)));
    slot.index() as u64
}

/// Returns whether a slave can take over: it is known to have a link.
#[inline(always)]
fn has_link(slot: Slot) -> bool {
    maps::slave(slot).is_some_and(device::has_link)
}

/// Returns whether a slave must not transmit: it is known to have no link, or the slot is free.
#[inline(always)]
fn is_dead(slot: Slot) -> bool {
    maps::slave(slot).is_none_or(device::is_dead)
}
