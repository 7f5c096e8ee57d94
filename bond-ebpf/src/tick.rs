//! The tick of the clock: fails over and announces the bond while no packet and no agent does.

use aya_ebpf::{
    bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT},
    cty::{c_long, c_void},
    helpers::{
        bpf_redirect,
        generated::{bpf_ktime_get_ns, bpf_loop, bpf_skb_change_tail, bpf_skb_store_bytes},
    },
    programs::TcContext,
};
use bond_common::{
    abi::{ActiveWord, Slot},
    behind::{BehindEntry, BehindKey, MOST_BEHIND, REVERSE_ARP_BYTES, Tag, tags, write_reverse_arp},
    clock::{
        announce::{ClaimedRounds, RoundTimes},
        decide::{Cause, LinkTimes, Situation, decide},
        frame::{ClockFrame, FRAMES, LENGTH},
        layout::{ANNOUNCE_BYTES, AnnounceFrame, AnnounceList, ClockEntry, Lap, TickEntry},
    },
    event::{AnnouncedRound, DataPlaneEvent, EventRecord},
    wire::rewrite_source,
};

use crate::{
    device, maps, misdirected, monitor,
    packet::{Packet as _, SkbPacket},
    rx, tx,
};

/// The most frames of announcements that one tick sends.
const FRAMES_PER_TICK: u64 = 64;

/// Handles a frame that arrived at the receiving end of the clock's pair, and returns the action.
#[inline(always)]
pub fn tick(ctx: &TcContext) -> i32 {
    let (Some(clock), Some(state)) = (maps::clock(), maps::ticks()) else { return TC_ACT_SHOT };
    // SAFETY: a map value lives as long as the program runs. Only the tick writes it, except the word of the turn, which is
    // changed by compare-and-swap; the agent reads single words.
    let state = unsafe { &mut *state };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(frame) = take(ctx, state) else {
        state.refused += 1;
        return TC_ACT_SHOT;
    };
    if !state.note(now, clock.period) {
        return TC_ACT_SHOT;
    }
    put_in_other(ctx, clock, state, frame);
    if clock.has(ClockEntry::LINKS) {
        check_links(clock, state, now);
    }
    let has_probed = monitor::monitor(ctx, clock, state, now);
    let has_announced = announce(ctx, clock, state, now);
    let has_answered = misdirected::answer(ctx, clock, state, now);
    if (has_probed | has_announced | has_answered) && write_again(ctx, frame).is_none() {
        return TC_ACT_SHOT;
    }
    send_round(ctx, clock.sender as u32)
}

/// Sends the frame round again, and returns the action.
///
/// The first lap is of a frame that still belongs to the socket that the agent put it in by. A socket holds its network
/// namespace, which would then never end: a copy, which belongs to no socket, circulates in its place.
#[inline(always)]
fn send_round(ctx: &TcContext, sender: u32) -> i32 {
    // SAFETY: the context is this program's.
    let has_socket = unsafe { !(*ctx.skb.skb).__bindgen_anon_2.sk.is_null() };
    if has_socket && ctx.clone_redirect(sender, 0).is_ok() {
        return TC_ACT_SHOT;
    }
    // SAFETY: a helper without pointers.
    let action = unsafe { bpf_redirect(sender, 0) };
    if action == TC_ACT_REDIRECT as i64 { TC_ACT_REDIRECT } else { TC_ACT_SHOT }
}

/// Makes a packet the frame of the clock that it was.
#[inline(always)]
pub fn write_again(ctx: &TcContext, frame: ClockFrame) -> Option<()> {
    resize(ctx, LENGTH as u32)?;
    frame.write(&mut SkbPacket::new(ctx))
}

/// Makes a packet this frame. The frame is copied from its map, not by the stack, which is short.
#[inline(always)]
pub fn replace(ctx: &TcContext, frame: &AnnounceFrame) -> Option<()> {
    // Written at full length, which the verifier knows, and cut then.
    resize(ctx, ANNOUNCE_BYTES as u32)?;
    // SAFETY: the context is this program's, and the helper reads so many bytes of the frame.
    let written =
        unsafe { bpf_skb_store_bytes(ctx.skb.skb, 0, frame.bytes.as_ptr().cast(), ANNOUNCE_BYTES as u32, 0) };
    if written != 0 {
        return None;
    }
    resize(ctx, frame.length)
}

/// Changes the length of a packet at its end.
#[inline(always)]
pub fn resize(ctx: &TcContext, length: u32) -> Option<()> {
    // SAFETY: the context is this program's.
    (unsafe { bpf_skb_change_tail(ctx.skb.skb, length, 0) } == 0).then_some(())
}

/// Accepts a frame that is expected, and gives it the sequence of its next lap. None if it is not expected.
#[inline(always)]
fn take(ctx: &TcContext, state: &mut TickEntry) -> Option<ClockFrame> {
    let mut packet = SkbPacket::new(ctx);
    let frame = ClockFrame::read(&packet)?;
    let ticks = state.ticks + 1;
    let lap = lap(state, frame.number)?;
    if frame.number >= FRAMES as u8 || frame.sequence != lap.sequence {
        return None;
    }
    let next = ClockFrame { sequence: frame.sequence.wrapping_add(1), ..frame };
    next.write(&mut packet)?;
    lap.sequence = next.sequence;
    lap.tick = ticks;
    state.ticks = ticks;
    Some(next)
}

/// Returns the state of a frame; of another frame if there is none of this number.
#[inline(always)]
fn lap(state: &mut TickEntry, number: u8) -> Option<&mut Lap> {
    // A bound that the compiler has derived is unknown to the verifiers of some kernels (6.1) when the number was on the
    // stack since then. What is read from the stack once more is unknown to the compiler, too, and it keeps the mask.
    // SAFETY: an argument of this function.
    let number = unsafe { (&raw const number).read_volatile() };
    state.frames.get_mut(number as usize % FRAMES)
}

/// Sends a copy of this frame as the other one, if that is lost. If it was only late, one of the two is refused.
#[inline(always)]
fn put_in_other(ctx: &TcContext, clock: &ClockEntry, state: &mut TickEntry, frame: ClockFrame) {
    let number = (frame.number + 1) % FRAMES as u8;
    let Some(&mut other) = lap(state, number) else { return };
    if !state.has_lost(&other) {
        return;
    }
    let copy = ClockFrame { number, sequence: other.sequence };
    let mut packet = SkbPacket::new(ctx);
    if copy.write(&mut packet).is_some() && ctx.clone_redirect(clock.sender as u32, 0).is_ok() {
        state.injected += 1;
    }
    let ticks = state.ticks;
    if let Some(lap) = lap(state, number) {
        lap.tick = ticks;
    }
    // What cannot be written is refused at the next tick, and the copy puts it in again.
    let _ = frame.write(&mut packet);
}

/// Checks the slaves' devices, and changes ACTIVE if that follows. A separate function, as the others that a tick calls: its
/// stack is used again by the next one.
#[inline(never)]
fn check_links(clock: &ClockEntry, state: &mut TickEntry, now: u64) {
    see(&mut state.links, now);
    let (Some(word), Some(guard)) = (maps::active_word(), maps::guard()) else { return };
    // SAFETY: a map value lives as long as the program runs; each of its words is read with one load.
    let entry = unsafe { guard.read_volatile() };
    let (rank, switched_at) = (entry.rank(), state.switched_at);
    let failed = maps::failed_paths();
    let situation = Situation { word, rank, clock, links: &state.links, failed, switched_at, now };
    let Some((next, cause)) = decide(&situation) else { return };
    let switches = next.switches() != word.switches();
    // The guard may have failed over just now; so many failovers at once would be of several flapping links.
    if switches && !entry.may_switch(now) {
        return;
    }
    // A lost exchange means that ACTIVE is another one now: the next tick sees it.
    if maps::exchange_active(word, next).is_ok() {
        if switches {
            switched(state, now);
        }
        record(now, next, cause);
    }
}

/// Notes that a tick has changed the active slave.
#[inline(always)]
pub fn switched(state: &mut TickEntry, now: u64) {
    if let Some(guard) = maps::guard() {
        // SAFETY: a map value lives as long as the program runs; one word is stored.
        unsafe { &mut *guard }.note(now);
    }
    state.switched_at = now;
    state.failovers += 1;
}

#[inline(always)]
pub fn record(now: u64, next: ActiveWord, cause: Cause) {
    maps::send(EventRecord::new(now, DataPlaneEvent::Ticked(next, cause)));
}

/// Checks the devices of all slots.
#[inline(always)]
pub fn see(links: &mut LinkTimes, now: u64) {
    let mut index = 0;
    while index < 16 {
        see_slot(links, index, now);
        index += 1;
    }
}

/// Stores whether a slot's device has a link. A separate function, so that the loop stays short, without a result: the
/// verifiers of some kernels (6.1) would follow each combination of 16 results.
#[inline(never)]
fn see_slot(links: &mut LinkTimes, index: u64, now: u64) {
    let Some(slot) = Slot::new(index as u8) else { return };
    links.see(slot, maps::slave(slot).map_or(Some(false), device::link), now);
}

/// Sends what is due of a round of announcements. Returns whether the frame was used for that, and must be written again.
#[inline(never)]
fn announce(ctx: &TcContext, clock: &ClockEntry, state: &mut TickEntry, now: u64) -> bool {
    let Some(word) = maps::active_word() else { return false };
    let list = AnnounceList::from_bits(clock.list);
    let mut turn = state.turn;
    let is_new = state.noticed != word.switches() as u64 + 1;
    state.noticed = word.switches() as u64 + 1;
    if state.sending != 0 && !turn.is_of(word) {
        // Its slave is not active any more.
        finish(state, turn, now, list.left_out);
    }
    if clock.rounds == 0 && !turn.is_of(word) && !turn.is_after(word) {
        let _ = maps::exchange_rounds(turn, turn.skip(word));
        return false;
    }
    if state.sending == 0 {
        let times = RoundTimes { now, claimed_at: state.claimed_at, interval: clock.round_interval };
        // An agent that runs has the time of one tick for the first round, and sends the others.
        let waits = !clock.agent_is_absent(now) && (is_new || turn.is_of(word));
        if waits || !turn.is_due(word, clock.rounds as u8, times) {
            return false;
        }
        let claimed = turn.claim(word, clock.rounds as u8);
        if maps::exchange_rounds(turn, claimed).is_err() {
            // The agent was faster.
            return false;
        }
        // The compiler does not know that the map has it now, and may take `state.turn` for the former one.
        turn = claimed;
        (state.claimed_at, state.sending, state.repeats) = (now, 1, 0);
        begin(state);
    }
    let Some(slot) = word.active() else { return false };
    let left = (list.count as u64).saturating_sub(state.next);
    let round = turn.bits() | state.repeats & 0xff;
    let count = if left < FRAMES_PER_TICK { left } else { FRAMES_PER_TICK };
    let mut sending = Sending { ctx, slot, list, state, round, room: FRAMES_PER_TICK - count, oldest: 0 };
    // SAFETY: the callback gets a pointer to `sending`, which outlives the call.
    unsafe { bpf_loop(count as u32, send_next as *mut c_void, (&raw mut sending).cast(), 0) };
    for age in AGES {
        sending.oldest = now.saturating_sub(age);
        // SAFETY: as above.
        unsafe { maps::each_behind(send_mac, (&raw mut sending).cast()) };
    }
    let (state, room) = (sending.state, sending.room);
    if state.next >= list.count as u64 && (room > 0 || state.capped != 0) {
        if state.repeats_round() {
            state.repeats += 1;
            begin(state);
        } else {
            finish(state, turn, now, list.left_out);
        }
    }
    true
}

/// Begins a round with its first frame.
#[inline(always)]
fn begin(state: &mut TickEntry) {
    (state.next, state.sent, state.refused_of_round) = (0, 0, 0);
    (state.macs, state.behind, state.capped) = (0, 0, 0);
}

/// Ends a round, and reports it to the agent if it is the first or the last.
#[inline(always)]
fn finish(state: &mut TickEntry, turn: ClaimedRounds, now: u64, left_out: u16) {
    state.sending = 0;
    if !turn.is_reported() {
        return;
    }
    let (generation, number) = (turn.generation(), turn.rounds());
    let round = AnnouncedRound {
        generation,
        sent: state.sent as u16,
        macs: state.macs as u16,
        is_capped: state.capped | left_out as u64 != 0,
        failed: state.refused_of_round as u16,
        number,
    };
    maps::send(EventRecord::new(now, DataPlaneEvent::Announced(round)));
}

/// MAC addresses that sent last are announced first: these ages, in nanoseconds, one after the other.
const AGES: [u64; 3] = [2_000_000_000, 60_000_000_000, u64::MAX];

/// What [`send_next`] and [`send_mac`] need.
struct Sending<'a> {
    ctx: &'a TcContext,
    slot: Slot,
    list: AnnounceList,
    state: &'a mut TickEntry,
    /// The number of the round in [`BehindEntry::announced`].
    round: u64,
    /// How many MAC addresses this tick may still announce.
    room: u64,
    /// Only MAC addresses that have sent since then are announced.
    oldest: u64,
}

impl Sending<'_> {
    #[inline(always)]
    fn count(&mut self, sent: Option<u32>) {
        match sent {
            Some(AnnounceFrame::MAC) => self.state.macs += 1,
            Some(_) => self.state.sent += 1,
            None => {
                self.state.refused_of_round += 1;
                self.state.failed += 1;
            }
        }
    }
}

/// Sends the next frame of the round. Called by the kernel's loop; 0: continue.
extern "C" fn send_next(_index: u32, sending: *mut c_void) -> c_long {
    // SAFETY: `announce` passes a pointer to this, which nothing else uses during the call.
    let sending = unsafe { &mut *sending.cast::<Sending<'_>>() };
    let number = sending.state.next;
    sending.state.next += 1;
    let sent = send(sending, sending.list.entry(number as u32));
    sending.count(sent);
    0
}

/// Announces a MAC address behind the bond, if the round has not, and there is room. Called by the kernel for each; 0: it
/// continues.
extern "C" fn send_mac(
    _map: *mut c_void,
    key: *const BehindKey,
    entry: *mut BehindEntry,
    sending: *mut c_void,
) -> c_long {
    // SAFETY: `announce` passes a pointer to this, which nothing else uses during the call.
    let sending = unsafe { &mut *sending.cast::<Sending<'_>>() };
    // SAFETY: the kernel passes a key and a value of the map; words that others write are read with one load.
    let (key, announced, seen) = unsafe {
        (*key, (&raw const (*entry).announced).read_volatile(), (&raw const (*entry).seen).read_volatile())
    };
    if sending.room == 0 {
        return 1;
    }
    if announced == sending.round || seen.at() < sending.oldest {
        return 0;
    }
    if sending.state.behind >= MOST_BEHIND as u64 {
        sending.state.capped = 1;
        return 1;
    }
    // SAFETY: as above. Only ticks write it.
    unsafe { (&raw mut (*entry).announced).write_volatile(sending.round) };
    if maps::is_a_slaves(key.mac()) {
        return 0;
    }
    sending.room -= 1;
    sending.state.behind += 1;
    let sent = send_reverse_arp(sending.ctx, sending.slot, &key);
    sending.count(sent.map(|()| AnnounceFrame::MAC));
    0
}

/// Makes the RARP of a MAC address leave through a slave. None if it was not sent.
#[inline(always)]
pub fn send_reverse_arp(ctx: &TcContext, slot: Slot, key: &BehindKey) -> Option<()> {
    let slave = maps::slave(slot)?;
    resize(ctx, REVERSE_ARP_BYTES as u32)?;
    write_reverse_arp(&mut SkbPacket::new(ctx), key)?;
    ctx.clone_redirect(slave.ifindex(), 0).ok()
}

/// Makes a copy of the frame with this index leave through a slave, with the source MAC address of any frame of bond0.
/// Returns the kind of the frame; None if it was not sent.
#[inline(always)]
fn send(sending: &Sending<'_>, index: u32) -> Option<u32> {
    let (ctx, slot) = (sending.ctx, sending.slot);
    let frame = maps::announcement(index)?;
    let (slave, bond) = (maps::slave(slot)?, maps::bond()?);
    replace(ctx, frame)?;
    let mut packet = SkbPacket::new(ctx);
    let header = packet.header()?;
    if let Some(entry) = maps::behind(&BehindKey::new(header.source, tags(&packet, Tag::NONE))) {
        // The round needs no RARP of it.
        // SAFETY: one aligned word of a map value, which only ticks write.
        unsafe { (&raw mut (*entry).announced).write_volatile(sending.round) };
    }
    if let Some(to) = tx::source_for(header.source, slave.wire_mac(), rx::host_mac(bond), bond) {
        rewrite_source(&mut packet, header, to).ok()?;
    }
    ctx.clone_redirect(slave.ifindex(), 0).ok().map(|()| frame.kind)
}
