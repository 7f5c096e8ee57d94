//! MAC addresses behind the bond: which there are, and which have moved away.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
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

/// Returns whether a MAC address is the bond's, or that of a slave, now or before it was enslaved. Without `bpf_loop`, which the
/// oldest kernels that forward packets here do not have.
#[inline(always)]
fn is_of_bond(mac: u64) -> bool {
    let (mut found, mut index) = (0, 0);
    while index < MAX_SLAVES as u64 {
        found |= is_of_slot(mac, index);
        index += 1;
    }
    found != 0
}

/// Returns 1 if a slot has the MAC address, 0 otherwise. A separate function, so that the loop stays short.
#[inline(never)]
fn is_of_slot(mac: u64, index: u64) -> u64 {
    let Some(slave) = Slot::new(index as u8).and_then(maps::slave) else { return 0 };
    (slave.wire_mac().to_word() == mac || slave.permanent_mac().to_word() == mac) as u64
}
