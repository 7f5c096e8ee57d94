//! Frames for the bond that arrive on a backup: noted there, and answered by the tick.

use aya_ebpf::{
    cty::{c_long, c_void},
    helpers::generated::bpf_loop,
    programs::TcContext,
};
use bond_common::{
    abi::{ActiveWord, Slot},
    behind::{BehindKey, Tag, tags},
    clock::{
        layout::{ClockEntry, TickEntry},
        misdirected::{Answer, MisdirectedEntry, Noted},
    },
    event::{DataPlaneEvent, EventRecord},
    mac::Mac,
};

use crate::{maps, packet::Packet, tick::send_reverse_arp};

/// Counts and notes a unicast frame that was dropped on a backup, if it is for the bond or for a MAC address behind it. A
/// separate function, so that other packets do not pay for its registers.
#[inline(never)]
pub fn note(packet: &impl Packet, slot: Slot, word: ActiveWord, destination: Mac) {
    let Some(active) = word.active() else { return };
    // Under `active` a frame to the former active slave's own address is on the right port: its sender does not know the new
    // address yet.
    let [outer, inner] = tags(packet, packet.offloaded_tag());
    let is_bonds = maps::slave(active).is_some_and(|slave| slave.wire_mac() == destination);
    if !is_bonds && maps::behind(&BehindKey::new(destination, [outer, inner])).is_none() {
        return;
    }
    // Without a clock nothing says how long ago the failover was.
    let has_clock = maps::clock().is_some_and(|clock| clock.period != 0);
    if has_clock && !is_settled(word) {
        return;
    }
    let Some(entry) = maps::misdirected(slot.index() as u32) else { return };
    // SAFETY: a word of a map value, which lives as long as the program runs.
    unsafe { maps::count(&raw mut (*entry).frames) };
    let noted = Noted::new(destination, vlan(outer), slot);
    if let Some(entry) = maps::misdirected(noted.entry()).filter(|_| has_clock) {
        // SAFETY: as above; one store. Of two CPUs' notes one suffices: further frames follow.
        unsafe { (&raw mut (*entry).noted).write_volatile(noted.bits()) };
    }
}

/// Returns the identifier of a tag of 802.1Q; 0 for other tags, which an announcement does not get.
#[inline(always)]
const fn vlan(tag: Tag) -> u16 {
    if tag.tpid() == 0x8100 { tag.vid() } else { 0 }
}

#[inline(always)]
fn is_settled(word: ActiveWord) -> bool {
    // SAFETY: a map value lives as long as the program runs; one word, which only the tick writes.
    maps::ticks().is_some_and(|state| unsafe { (&raw const (*state).settled).read_volatile() }.is_of(word))
}

/// What [`answer_entry`] needs.
struct Answering<'a> {
    ctx: &'a TcContext,
    slot: Slot,
    now: u64,
    /// 1: nothing is announced (`num_grat_arp=0`).
    is_silent: u64,
    /// 1: the frame was used.
    has_answered: u64,
}

/// Announces by the active slave the addresses of which frames were noted since the last tick. Returns whether the frame was
/// used for that, and must be written again. A separate function, because the stack of the tick is almost used up.
#[inline(never)]
pub fn answer(ctx: &TcContext, clock: &ClockEntry, state: &mut TickEntry, now: u64) -> bool {
    let Some(word) = maps::active_word() else { return false };
    state.settled.follow(word, now);
    let Some(slot) = word.active() else { return false };
    let mut answering = Answering { ctx, slot, now, is_silent: (clock.rounds == 0) as u64, has_answered: 0 };
    let entries = MisdirectedEntry::ENTRIES as u32;
    // SAFETY: the callback gets a pointer to `answering`, which outlives the call.
    unsafe { bpf_loop(entries, answer_entry as *mut c_void, (&raw mut answering).cast(), 0) };
    answering.has_answered != 0
}

/// Answers what was noted in one entry. Called by the kernel's loop; 0: it continues.
extern "C" fn answer_entry(index: u32, answering: *mut c_void) -> c_long {
    // SAFETY: `answer` passes a pointer to this, which nothing else uses during the call.
    let answering = unsafe { &mut *answering.cast::<Answering<'_>>() };
    let Some(entry) = maps::misdirected(index) else { return 0 };
    // SAFETY: a map value lives as long as the program runs; one word, which packets write concurrently.
    let noted = unsafe { (&raw const (*entry).noted).read_volatile() };
    let Some(noted) = Noted::from_bits(noted) else { return 0 };
    // SAFETY: as above. A note that is lost here is followed by another one if frames keep arriving.
    unsafe { (&raw mut (*entry).noted).write_volatile(0) };
    if answering.is_silent != 0 {
        return 0;
    }
    // SAFETY: as above; only the tick writes the episode.
    let answer = unsafe { &mut (*entry).episode }.answer(noted, answering.now);
    match answer {
        Answer::Nothing => {}
        Answer::Announce { is_first } => {
            answering.has_answered = 1;
            let _ = send_reverse_arp(answering.ctx, answering.slot, &noted.key());
            if is_first {
                maps::send(EventRecord::new(answering.now, DataPlaneEvent::Misdirected(noted)));
            }
        }
        Answer::GiveUp => maps::send(EventRecord::new(answering.now, DataPlaneEvent::Flooded(noted))),
    }
    0
}
