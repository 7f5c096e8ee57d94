//! MAC addresses behind the bond: which there are, and which have moved away.

use aya_ebpf::{
    cty::{c_long, c_void},
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_loop},
};
use bond_common::{
    abi::{ActiveWord, MAX_SLAVES, Slot},
    behind::{BehindEntry, BehindKey, LastSent, Tag, tags},
    mac::Mac,
};

use crate::{maps, packet::Packet};

/// The number of unicast frames that a slave receives without a check of their source between two checks. A host that has
/// moved away sends a group frame sooner or later, of which each is checked.
pub const UNCHECKED: u64 = 63;

/// Stores that a MAC address which is not the host's is behind the bond, from a frame that leaves.
#[inline(always)]
pub fn note(packet: &impl Packet, source: Mac, word: ActiveWord) {
    if !source.is_unicast() {
        return;
    }
    let [outer, inner] = tags(packet, packet.offloaded_tag());
    remember(source.to_word(), bits(outer, inner), word.switches() as u64);
}

/// Removes a MAC address that was behind the bond, and is the source of a frame which the active slave has received.
#[inline(always)]
pub fn forget_moved(packet: &impl Packet, source: Mac, word: ActiveWord) {
    let [outer, inner] = tags(packet, packet.offloaded_tag());
    forget(source.to_word(), bits(outer, inner), word.switches() as u64);
}

/// Functions of BPF take numbers.
#[inline(always)]
fn bits(outer: Tag, inner: Tag) -> u64 {
    (outer.bits() as u64) << 32 | inner.bits() as u64
}

#[inline(always)]
fn key(mac: u64, tags: u64) -> BehindKey {
    let tags = [Tag::from_bits((tags >> 32) as u32), Tag::from_bits(tags as u32)];
    BehindKey::new(Mac::from_word(mac), tags)
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// A separate function, as the next one is: the path of every packet stays short.
#[inline(never)]
fn remember(mac: u64, tags: u64, switches: u64) -> u64 {
    let (now, key) = (now(), key(mac, tags));
    let seen = LastSent::new(now, switches as u8);
    if let Some(entry) = maps::behind(&key) {
        // SAFETY: one aligned word of a map value. The entry of another MAC address, if it was reused just now, says then that
        // that one was seen now.
        let word = unsafe { &raw mut (*entry).seen };
        // SAFETY: as above.
        unsafe {
            if !word.read_volatile().is_fresh(now, switches as u8) {
                word.write_volatile(seen);
            }
        }
        return 0;
    }
    if !is_of_bond(mac) {
        maps::insert_behind(&key, &BehindEntry { seen, announced: 0 });
    }
    0
}

#[inline(never)]
fn forget(mac: u64, tags: u64, switches: u64) -> u64 {
    let key = key(mac, tags);
    let Some(entry) = maps::behind(&key) else { return 0 };
    // SAFETY: one aligned word of a map value.
    let seen = unsafe { (&raw const (*entry).seen).read_volatile() };
    if seen.has_moved(now(), switches as u8) {
        maps::remove_behind(&key);
    }
    0
}

/// Returns whether a MAC address is the bond's, or that of a slave, now or before it was enslaved.
#[inline(always)]
fn is_of_bond(mac: u64) -> bool {
    let mut search = Search { mac, found: 0 };
    // SAFETY: the callback gets a pointer to `search`, which outlives the call.
    unsafe { bpf_loop(MAX_SLAVES as u32, compare as *mut c_void, (&raw mut search).cast(), 0) };
    // SAFETY: what the callback has written is unknown to the compiler.
    unsafe { (&raw const search.found).read_volatile() != 0 }
}

/// What [`compare`] needs.
struct Search {
    mac: u64,
    found: u64,
}

/// Compares a MAC address with those of a slot. Called by the kernel's loop; 0: it continues.
extern "C" fn compare(index: u32, search: *mut c_void) -> c_long {
    // SAFETY: `is_of_bond` passes a pointer to this, which nothing else uses during the call.
    let search = unsafe { &mut *search.cast::<Search>() };
    let Some(slave) = Slot::new(index as u8).and_then(maps::slave) else { return 0 };
    let is_ours = slave.wire_mac().to_word() == search.mac || slave.permanent_mac().to_word() == search.mac;
    search.found |= is_ours as u64;
    0
}
