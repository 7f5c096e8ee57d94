//! ARP and NS monitoring by the tick while no agent runs: [`bond_common::clock::monitor`] has the rules.

use aya_ebpf::{
    cty::{c_long, c_void},
    helpers::generated::bpf_loop,
    programs::TcContext,
};
use bond_common::{
    abi::{ActiveWord, MAX_SLAVES, Slot},
    clock::{
        decide::Cause,
        layout::{ClockEntry, TickEntry},
        monitor::{AfterStep, Judging, MonitorEntry, MonitorState, ProbeList, Step, StepPace, decide},
    },
    wire::rewrite_source,
};

use crate::{
    maps,
    packet::{Packet as _, SkbPacket},
    tick,
};

/// The kernel has no memory for a copy of a frame.
const ENOMEM: i32 = 12;

/// Makes a step of the monitor, if one is due and no agent makes it. Returns whether the frame was used for probes, and must
/// be written again.
#[inline(never)]
pub fn monitor(ctx: &TcContext, clock: &ClockEntry, state: &mut TickEntry, now: u64) -> bool {
    let (Some(entry), Some(own)) = (maps::arp_monitor(), maps::arp_state()) else { return false };
    // SAFETY: a map value lives as long as the program runs. Only the tick writes it; the agent reads single words.
    let own = unsafe { &mut *own };
    if !entry.is_ready() || !clock.agent_is_absent(now) {
        own.on = 0;
        return false;
    }
    let pace = StepPace::new(entry.interval, clock.period, state.ticks, now);
    let step = own.step(&pace);
    if step == Step::Wait {
        return false;
    }
    tick::see(&mut state.links, now);
    if step == Step::Judge {
        judge(entry, own, &pace, state.links.seen().down);
        commit(clock, entry, own, state, now);
    } else {
        if let Some(word) = maps::active_word() {
            own.begin_from(word, clock.avoided as u16 & entry.joined as u16);
        }
        begin(own, &pace);
    }
    probe(ctx, state, step, &pace);
    true
}

/// Begins the grace of all slaves.
#[inline(always)]
fn begin(own: &mut MonitorState, pace: &StepPace) {
    let active = maps::active_word().and_then(ActiveWord::active);
    own.begin_all(pace, active);
}

/// What [`judge_next`] needs.
struct Judge<'a> {
    own: &'a mut MonitorState,
    at: Judging,
    joined: u16,
}

/// Judges all slaves. The active slave comes first: until it is confirmed, what backups receive may not count
/// (`bond_arp_rcv`).
#[inline(never)]
fn judge(entry: &MonitorEntry, own: &mut MonitorState, pace: &StepPace, down: u16) {
    let Some(word) = maps::active_word() else { return };
    own.begin_judging();
    let at = Judging::new(entry, pace, word, own);
    let mut judge = Judge { own, at, joined: entry.joined as u16 };
    judge.at.hunt(entry.joined as u16 & !down, judge.own);
    judge.at.answered = 1;
    if let Some(active) = word.active() {
        hear(judge.own, active, &judge.at);
        let confirmed = judge.own.is_confirmed(active);
        judge.own.end_hunt(confirmed);
        judge.at.proof_since = judge.own.proof_since(active);
        judge.at.answered =
            confirmed | (entry.flags & MonitorEntry::BACKUPS_WAIT ^ MonitorEntry::BACKUPS_WAIT);
    }
    // SAFETY: the callback gets a pointer to `judge`, which outlives the call.
    unsafe { bpf_loop(MAX_SLAVES as u32, judge_next as *mut c_void, (&raw mut judge).cast(), 0) };
}

/// Judges the slave of the slot with this number. Called by the kernel's loop; 0: continue.
extern "C" fn judge_next(index: u32, judge: *mut c_void) -> c_long {
    // SAFETY: `judge` passes a pointer to this, which nothing else uses during the call.
    let judge = unsafe { &mut *judge.cast::<Judge<'_>>() };
    let Some(slot) = Slot::new(index as u8) else { return 0 };
    if judge.joined & slot.bit() != 0 {
        hear(judge.own, slot, &judge.at);
        judge.own.judge(slot, &judge.at);
    }
    0
}

#[inline(always)]
fn hear(own: &mut MonitorState, slot: Slot, at: &Judging) {
    if let Some(times) = maps::probe_times(slot) {
        // SAFETY: a map value lives as long as the program runs. Other CPUs store single words of it meanwhile.
        own.hear(slot, unsafe { &*times }, at);
    }
}

/// Changes ACTIVE if that follows from what was judged.
#[inline(never)]
fn commit(clock: &ClockEntry, entry: &MonitorEntry, own: &mut MonitorState, state: &mut TickEntry, now: u64) {
    let Some(word) = maps::active_word() else { return };
    let situation = AfterStep {
        word,
        entry,
        clock,
        found: own.end_judging(),
        up: own.up(),
        links: state.links.seen().up,
        is_drained: AfterStep::is_drained(state.switched_at, now),
    };
    let Some((next, cause)) = decide(&situation) else { return };
    // A lost exchange means that ACTIVE is another one now: the next step sees it.
    if maps::exchange_active(word, next).is_err() {
        return;
    }
    if next.switches() != word.switches() {
        tick::switched(state, now);
        own.set_turn(None);
        own.set_hunting(cause == Cause::Unanswered);
        if let Some(active) = next.active() {
            own.begin(active, now);
        }
    }
    tick::record(now, next, cause);
}

/// Probes through the active slave or, if there is none, through the next one in the round robin (`bond_ab_arp_probe`).
#[inline(never)]
fn probe(ctx: &TcContext, state: &TickEntry, step: Step, pace: &StepPace) {
    let now = pace.now;
    let (Some(entry), Some(own)) = (maps::arp_monitor(), maps::arp_state()) else { return };
    // SAFETY: as in `monitor`, which does not use it any more.
    let own = unsafe { &mut *own };
    let Some(word) = maps::active_word() else { return };
    let Some(slot) = prober(word, entry, own, state, step) else { return };
    if word.active().is_none() {
        own.set_turn(Some(slot));
        own.begin(slot, now);
    }
    maps::probe_by(slot);
    let list = ProbeList::from_bits(entry.list);
    let mut sending = Sending { ctx, slot, list, sent: 0, lacks: 0 };
    // SAFETY: the callback gets a pointer to `sending`, which outlives the call.
    unsafe { bpf_loop(list.count, send_next as *mut c_void, (&raw mut sending).cast(), 0) };
    let failed = list.count as u64 - sending.sent;
    own.sent += sending.sent;
    own.failed += failed;
    if failed == 0 {
        own.probed(slot, now);
    }
    // Nothing is known of a path on which nothing was asked for lack of memory.
    if sending.lacks != 0 {
        begin(own, pace);
    }
}

/// Returns the slot that probes; None if no slave can.
#[inline(always)]
fn prober(
    word: ActiveWord,
    entry: &MonitorEntry,
    own: &MonitorState,
    state: &TickEntry,
    step: Step,
) -> Option<Slot> {
    if word.active().is_some() {
        return word.active();
    }
    let last = own.turn();
    if step == Step::Begin && last.is_some() {
        return last;
    }
    // A device that cannot be read may have a link.
    entry.next_prober(!state.links.seen().down, own.doubted(), last)
}

/// What [`send_next`] needs.
struct Sending<'a> {
    ctx: &'a TcContext,
    slot: Slot,
    list: ProbeList,
    /// Probes that the kernel took.
    sent: u64,
    /// Probes that the kernel had no memory for.
    lacks: u64,
}

/// Sends the probe with this number. Called by the kernel's loop; 0: continue.
extern "C" fn send_next(number: u32, sending: *mut c_void) -> c_long {
    // SAFETY: `probe` passes a pointer to this, which nothing else uses during the call.
    let sending = unsafe { &mut *sending.cast::<Sending<'_>>() };
    match send(sending.ctx, sending.slot, sending.list.entry(number)) {
        0 => sending.sent += 1,
        error => sending.lacks += (error == -ENOMEM) as u64,
    }
    0
}

/// Makes a copy of the probe with this index leave through a slave, with the source MAC address of frames of that slave.
/// Returns 0, or an error.
#[inline(always)]
fn send(ctx: &TcContext, slot: Slot, index: u32) -> i32 {
    const OTHER: i32 = -1;
    let (Some(frame), Some(slave)) = (maps::arp_probe(index), maps::slave(slot)) else { return OTHER };
    let mut packet = SkbPacket::new(ctx);
    let Some(header) = tick::replace(ctx, frame).and_then(|()| packet.header()) else { return -ENOMEM };
    if rewrite_source(&mut packet, header, slave.wire_mac()).is_err() {
        return OTHER;
    }
    match ctx.clone_redirect(slave.ifindex(), 0) {
        Ok(()) => 0,
        Err(error) => error as i32,
    }
}
