//! The path monitor: [`bond_common::path`] has the rules. The program of its own runs in each lap of the clock, behind the
//! tick, where the frame leaves by the sending end: the tick has no room for it on its stack.

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    cty::{c_long, c_void},
    helpers::generated::{bpf_ktime_get_ns, bpf_loop},
    programs::TcContext,
};
use bond_common::{
    abi::{ActiveWord, MAX_SLAVES, Slot},
    clock::{decide::Cause, frame::ClockFrame},
    mac::Mac,
    path::{
        answer::{PathAnswer, answer, echo},
        judge::{Candidates, PathLap, Probes, choose, switched},
        layout::{MOST_PATH_TARGETS, PathEntry, PathList, PathState},
    },
    wire::Frame as _,
};

use crate::{
    device, maps,
    packet::{Packet, SkbPacket},
    tick,
};

/// The offset of the source address in a frame.
const SOURCE: usize = 6;
/// The offsets of the sender's addresses in an ARP packet.
const ARP_SENDER_MAC: usize = 8;
const ARP_SENDER: usize = 14;

/// Notes an answer of the path monitor that a slave received. Returns whether the frame is consumed: answers that only the
/// path monitor has asked for. A separate function, so that other packets do not pay for its registers.
#[inline(never)]
pub fn note(packet: &impl Packet, slot: Slot, word: ActiveWord) -> bool {
    let Some(entry) = maps::path_monitor() else { return false };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let meaning = answer(packet, entry, slot, now);
    if meaning == PathAnswer::None {
        return false;
    }
    let Some(heard) = maps::path_heard(slot.index() as u32) else { return false };
    match meaning {
        PathAnswer::None => false,
        PathAnswer::Echo(sent) => {
            // SAFETY: words of a map value, which lives as long as the program runs; each is written with one store.
            unsafe {
                (&raw mut (*heard).echo_sent).write_volatile(sent);
                (&raw mut (*heard).echo_at).write_volatile(now);
                maps::count(&raw mut (*heard).echoes);
            }
            true
        }
        PathAnswer::Stray => {
            // SAFETY: as above.
            unsafe { maps::count(&raw mut (*heard).echoes) };
            true
        }
        PathAnswer::Arp(index, mac) => {
            // SAFETY: as above.
            unsafe {
                (&raw mut (*heard).arp_at).write_volatile(now);
                maps::count(&raw mut (*heard).arps);
            }
            if let Some(target) = maps::path_heard((MAX_SLAVES + index) as u32) {
                // SAFETY: as above.
                unsafe {
                    (&raw mut (*target).arp_at).write_volatile(now);
                    (&raw mut (*target).mac).write_volatile(mac.to_word());
                }
            }
            // The host may have asked, too, by the active slave.
            word.active() != Some(slot)
        }
    }
}

/// Handles a frame of the clock that leaves for its next lap, and returns the action.
#[inline(always)]
pub fn lap(ctx: &TcContext) -> i32 {
    let (Some(entry), Some(state)) = (maps::path_monitor(), maps::path_state()) else { return TC_ACT_UNSPEC };
    if !entry.is_on() {
        // What nothing probes any more is not known to have failed.
        // SAFETY: map values live as long as the program runs, and only this program writes this one.
        let state = unsafe { &mut *state };
        (state.failed, state.unproven) = (0, 0);
        return TC_ACT_UNSPEC;
    }
    let (Some(clock), Some(ticks), Some(word)) = (maps::clock(), maps::ticks(), maps::active_word()) else {
        return TC_ACT_UNSPEC;
    };
    let Some(frame) = ClockFrame::read(&SkbPacket::new(ctx)) else { return TC_ACT_UNSPEC };
    // SAFETY: map values live as long as the program runs. Only this program writes the state; the agent reads single words.
    let (state, tick) = unsafe { (&mut *state, (&raw const (*ticks).ticks).read_volatile()) };
    // What the tick puts in for a lost frame, or in place of its own, makes no tick.
    if state.ran == tick {
        return TC_ACT_UNSPEC;
    }
    state.ran = tick;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let lap = PathLap { entry, word, now, tick, period: clock.period };
    if !monitor(ctx, state, &lap) {
        return TC_ACT_UNSPEC;
    }
    if write_again(ctx, frame.number as u64, frame.sequence) { TC_ACT_UNSPEC } else { TC_ACT_SHOT }
}

/// Makes the packet the frame of the clock again that it was. A function of its own, for the stack of its caller.
#[inline(never)]
fn write_again(ctx: &TcContext, number: u64, sequence: u64) -> bool {
    tick::write_again(ctx, ClockFrame { number: number as u8, sequence }).is_some()
}

/// Does what is due in a lap. Returns whether the frame was used for probes, and must be written again.
#[inline(always)]
fn monitor(ctx: &TcContext, state: &mut PathState, lap: &PathLap<'_>) -> bool {
    let Some(active) = state.follow(lap) else { return false };
    let Some(heard) = maps::path_heard(active.index() as u32) else { return false };
    // SAFETY: as in `lap`. Programs of slaves store single words of it meanwhile.
    let heard = unsafe { &*heard };
    state.hear(active, heard, lap);
    if state.is_count_due(lap) {
        count(active, state, heard.arps, lap);
    }
    if state.is_due(lap) && judge(active, state, lap) {
        return false;
    }
    let mut is_used = false;
    if state.takes_round(lap) {
        is_used =
            ask_backups(ctx, active, state, lap) | ask(ctx, active, state, Probes { echo: false, arp: true });
    } else if state.takes_backups(lap) {
        is_used = ask_backups(ctx, active, state, lap);
    }
    let probes = state.takes_probes(heard, is_resolved(), lap);
    match probes {
        Some(probes) => is_used | ask(ctx, active, state, probes),
        None => is_used,
    }
}

/// What [`count_next`] adds up.
struct Counting {
    slot: u32,
    sent: u64,
    received: u64,
}

/// No machine has more: the loop ends at the last CPU.
const MOST_CPUS: u32 = 8192;

/// Compares what the active slave sends with what it receives.
#[inline(never)]
fn count(active: Slot, state: &mut PathState, answers: u64, lap: &PathLap<'_>) {
    let mut counting = Counting { slot: active.index() as u32, sent: 0, received: 0 };
    // SAFETY: the callback gets a pointer to `counting`, which outlives the call.
    unsafe { bpf_loop(MOST_CPUS, count_next as *mut c_void, (&raw mut counting).cast(), 0) };
    state.take_counts(counting.sent, counting.received.wrapping_sub(answers), lap);
}

/// Adds the counters of a CPU. Called by the kernel's loop; 1: end.
extern "C" fn count_next(cpu: u32, counting: *mut c_void) -> c_long {
    // SAFETY: `count` passes a pointer to this, which nothing else uses during the call.
    let counting = unsafe { &mut *counting.cast::<Counting>() };
    let Some(stats) = maps::stats_of_cpu(counting.slot, cpu) else { return 1 };
    // SAFETY: a map value lives as long as the program runs; another CPU counts in it meanwhile, by single words.
    unsafe {
        counting.sent += (&raw const (*stats).tx_packets).read_volatile();
        counting.received += (&raw const (*stats).rx_unicast).read_volatile();
    }
    0
}

/// Returns whether the MAC address of a target is known.
#[inline(never)]
fn is_resolved() -> bool {
    let (mut index, mut macs) = (0, 0);
    while index < MOST_PATH_TARGETS {
        macs |= target_mac(index as u32);
        index += 1;
    }
    macs != 0
}

/// Returns the word of a target's MAC address, 0 if it is not known.
#[inline(always)]
fn target_mac(index: u32) -> u64 {
    // SAFETY: one word of a map value, which lives as long as the program runs.
    maps::path_heard(MAX_SLAVES as u32 + index)
        .map_or(0, |heard| unsafe { (&raw const (*heard).mac).read_volatile() })
}

/// What [`answered_next`] needs.
struct Answering<'a> {
    state: &'a PathState,
    joined: u16,
    answered: u16,
}

/// Judges the active slave, which is silent. Returns whether another one has taken over.
#[inline(never)]
fn judge(active: Slot, state: &mut PathState, lap: &PathLap<'_>) -> bool {
    let (Some(guard), Some(clock)) = (maps::guard(), maps::clock()) else { return false };
    // SAFETY: a map value lives as long as the program runs; each of its words is read with one load.
    let guard = unsafe { guard.read_volatile() };
    let mut answering = Answering { state, joined: lap.entry.joined as u16, answered: 0 };
    // SAFETY: the callback gets a pointer to `answering`, which outlives the call.
    unsafe { bpf_loop(MAX_SLAVES as u32, answered_next as *mut c_void, (&raw mut answering).cast(), 0) };
    let answered = answering.answered;
    let untested = if state.may_hunt(lap) { state.untested(lap) } else { 0 };
    let at = Candidates {
        word: lap.word,
        rank: guard.rank(),
        avoided: clock.avoided as u16,
        answered,
        untested,
        failed_at: &state.failed_at,
    };
    let Some(to) = choose(&at) else {
        state.note_silence();
        return false;
    };
    // The guard may have failed over just now.
    if !guard.may_switch(lap.now) {
        return false;
    }
    let next = switched(lap.word, to);
    // A lost exchange means that ACTIVE is another one now: the next lap sees it.
    if maps::exchange_active(lap.word, next).is_err() {
        return false;
    }
    state.leave(active, to, lap.now);
    if let Some(ticks) = maps::ticks() {
        // SAFETY: as in `lap`; the tick of this lap has returned.
        tick::switched(unsafe { &mut *ticks }, lap.now);
    }
    tick::record(lap.now, next, Cause::PathSilent);
    true
}

/// Notes whether the slave of the slot with this number has answered the last round. Called by the kernel's loop; 0:
/// continue.
extern "C" fn answered_next(index: u32, answering: *mut c_void) -> c_long {
    // SAFETY: `judge` passes a pointer to this, which nothing else uses during the call.
    let answering = unsafe { &mut *answering.cast::<Answering<'_>>() };
    let (Some(slot), Some(heard)) = (Slot::new(index as u8), maps::path_heard(index)) else { return 0 };
    // SAFETY: as in `monitor`.
    let heard = unsafe { &*heard };
    let bit = answering.state.has_answered(heard) << slot.index();
    answering.answered |= bit & answering.joined;
    0
}

/// What [`ask_next`] needs.
struct Asking<'a> {
    ctx: &'a TcContext,
    entry: &'a PathEntry,
    state: &'a mut PathState,
    /// The slots of backups.
    slots: u16,
    now: u64,
    is_used: bool,
}

/// Asks the targets by all backups with a link, and notes what those have heard since they were asked last. Returns whether
/// the frame was used.
#[inline(never)]
fn ask_backups(ctx: &TcContext, active: Slot, state: &mut PathState, lap: &PathLap<'_>) -> bool {
    let slots = lap.entry.joined as u16 & !active.bit();
    let mut asking = Asking { ctx, entry: lap.entry, state, slots, now: lap.now, is_used: false };
    // SAFETY: the callback gets a pointer to `asking`, which outlives the call.
    unsafe { bpf_loop(MAX_SLAVES as u32, ask_next as *mut c_void, (&raw mut asking).cast(), 0) };
    asking.is_used
}

/// Asks by the slave of the slot with this number. Called by the kernel's loop; 0: continue.
extern "C" fn ask_next(index: u32, asking: *mut c_void) -> c_long {
    // SAFETY: `ask_backups` passes a pointer to this, which nothing else uses during the call.
    let asking = unsafe { &mut *asking.cast::<Asking<'_>>() };
    let Some(slot) = Slot::new(index as u8) else { return 0 };
    let from = asking.entry.mac(slot);
    if asking.slots & slot.bit() != 0 && note_backup(asking, index as u64) && !from.is_zero() {
        asking.is_used = true;
        let is_stale = asking.state.is_stale(asking.now);
        let mut sending = Sending {
            ctx: asking.ctx,
            entry: asking.entry,
            slot,
            from,
            to: (is_stale as u64).wrapping_sub(1),
            probes: Probes { echo: false, arp: true },
            is_backup: true,
            now: asking.now,
            sent: 0,
            refused: 0,
        };
        send_all(&mut sending);
        asking.state.sent += sending.sent;
        asking.state.refused += sending.refused;
    }
    0
}

/// Notes what the backup of the slot with this number has heard since it was asked last. Returns whether it is to be asked now. A
/// function of its own: what it has on the stack, and its caller, would be too much together for kernels before 6.8.
#[inline(never)]
fn note_backup(asking: &mut Asking<'_>, slot: u64) -> bool {
    let (Some(slot), Some(heard)) = (Slot::new(slot as u8), maps::path_heard(slot as u32)) else {
        return false;
    };
    // A device that cannot be read may have a link.
    let has_link = maps::slave(slot).is_some_and(|slave| device::link(slave) != Some(false));
    // SAFETY: as in `monitor`.
    let is_asked =
        asking.state.note_backup(slot, unsafe { &*heard }, has_link, (asking.entry.proof, asking.now));
    has_link && is_asked
}

/// Probes by the active slave. Returns whether the frame was used.
#[inline(never)]
fn ask(ctx: &TcContext, active: Slot, state: &mut PathState, probes: Probes) -> bool {
    let (Some(entry), Some(slave)) = (maps::path_monitor(), maps::slave(active)) else { return false };
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let to = (state.is_stale(now) as u64).wrapping_sub(1);
    let from = slave.wire_mac();
    let mut sending =
        Sending { ctx, entry, slot: active, from, to, probes, is_backup: false, now, sent: 0, refused: 0 };
    send_all(&mut sending);
    state.asked(sending.sent, sending.refused);
    true
}

/// What [`send_next`] needs.
struct Sending<'a> {
    ctx: &'a TcContext,
    entry: &'a PathEntry,
    slot: Slot,
    /// The source of the frames.
    from: Mac,
    /// A mask for the MAC addresses of targets: 0 where requests are broadcast.
    to: u64,
    probes: Probes,
    /// Requests are from no address, so that no neighbour learns a MAC address of a backup for the bond's.
    is_backup: bool,
    now: u64,
    sent: u64,
    refused: u64,
}

#[inline(always)]
fn send_all(sending: &mut Sending<'_>) {
    let frames = 2 * PathList::from_bits(sending.entry.list).count;
    // SAFETY: the callback gets a pointer to `sending`, which outlives the call.
    unsafe { bpf_loop(frames, send_next as *mut c_void, core::ptr::from_mut(sending).cast(), 0) };
}

/// Sends the frame with this number: of each target the echo, then the request. Called by the kernel's loop; 0: continue.
extern "C" fn send_next(number: u32, sending: *mut c_void) -> c_long {
    // SAFETY: `send_all` passes a pointer to this, which nothing else uses during the call.
    let sending = unsafe { &mut *sending.cast::<Sending<'_>>() };
    let (target, is_arp) = (number / 2, number % 2 == 1);
    let mac = target_mac(target);
    let wanted = if is_arp { sending.probes.arp } else { sending.probes.echo && mac != 0 };
    if !wanted {
        return 0;
    }
    let known = if is_arp { mac & sending.to } else { mac };
    let to = if known == 0 { Mac::BROADCAST } else { Mac::from_word(known) };
    match send(sending, PathList::from_bits(sending.entry.list).echo(target) + is_arp as u32, to, is_arp) {
        Some(()) => sending.sent += 1,
        None => sending.refused += 1,
    }
    0
}

/// Makes a copy of a frame leave through a slave. None if it was not sent.
#[inline(always)]
fn send(sending: &Sending<'_>, index: u32, to: Mac, is_arp: bool) -> Option<()> {
    let frame = maps::path_frame(index)?;
    let slave = maps::slave(sending.slot)?;
    let ctx = sending.ctx;
    tick::replace(ctx, frame)?;
    let mut packet = SkbPacket::new(ctx);
    packet.write(0, to.bytes())?;
    packet.write(SOURCE, sending.from.bytes())?;
    // Where the payload begins the agent knows: finding it here has the verifier follow each number of tags.
    let payload = frame.kind as usize;
    if is_arp {
        packet.write(payload + ARP_SENDER_MAC, sending.from.bytes())?;
        if sending.is_backup {
            packet.write(payload + ARP_SENDER, [0u8; 4])?;
        }
    } else {
        let nonce = sending.entry.nonce | sending.slot.index() as u64;
        packet.write(payload + echo::NONCE, nonce.to_ne_bytes())?;
        packet.write(payload + echo::SENT, sending.now.to_ne_bytes())?;
    }
    ctx.clone_redirect(slave.ifindex(), 0).ok()
}
