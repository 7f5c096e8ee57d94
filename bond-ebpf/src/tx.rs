//! The transmit path: from the port to a slave.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use bond_common::{
    abi::{BondEntry, FailOverMac, PORT_STATS, Slot},
    counters::DropReason,
    dhcp::ask_for_broadcast,
    event::{DataPlaneEvent, EventRecord},
    mac::Mac,
    verdict::{rewritten_source, transmit},
    wire::rewrite_source,
};

use crate::{
    action::Outcome,
    behind, guard, maps,
    packet::{Packet, Redirected, SkbPacket},
    rx,
    stats::Stats,
};

/// Returns whether a packet that bond0 sends is redirected at the ingress of the port, not here. A redirect from here
/// would keep the packet's socket, which then remembers the queue of the slave that the packet is assigned to. The
/// socket's next packet would leave bond0 by that queue, and so choose the slave that has this queue_id.
#[inline(always)]
pub fn goes_by_port(packet: &SkbPacket<'_>) -> bool {
    maps::bond().is_some_and(|bond| bond.has(BondEntry::BY_PORT)) && !packet.was_received()
}

/// Sends or drops a frame that arrived from the port, and counts it at the slave through which it leaves.
#[inline(always)]
pub fn port_tx(packet: &mut impl Packet) -> Outcome {
    match forward(packet) {
        Ok(redirected) => Outcome::Redirected(redirected),
        Err((slot, reason)) => {
            let index = slot.map_or(PORT_STATS, |slot| slot.index() as u32);
            if let Some(mut stats) = Stats::of(index) {
                stats.drop(reason);
            }
            Outcome::Dropped
        }
    }
}

/// Redirects a frame to a slave. The error names the slot at which the drop counts, None for the port.
#[inline(always)]
fn forward(packet: &mut impl Packet) -> Result<Redirected, (Option<Slot>, DropReason)> {
    let header = packet.header().ok_or((None, DropReason::Runt))?;
    let word = maps::active_word().ok_or((None, DropReason::Internal))?;
    let bond = maps::bond().ok_or((None, DropReason::Internal))?;
    let queue = if bond.has(BondEntry::QUEUE_IDS) { packet.queue() } else { 0 };
    let queue_id = |slot| maps::slave(slot).map_or(0, |slave| slave.queue_id());
    let mut slot = transmit(word, queue, queue_id).map_err(|reason| (None, reason))?;
    if bond.has(BondEntry::GUARD) && guard::is_due(slot) {
        slot = guard::check(slot).map_err(|reason| (Some(slot), reason))?;
    }
    let at = |reason| (Some(slot), reason);
    let slave = maps::slave(slot).ok_or(at(DropReason::Internal))?;
    let ifindex = slave.ifindex();
    if ifindex == 0 {
        return Err(at(DropReason::UnknownSlot));
    }

    let wire_mac = slave.wire_mac();
    let mut rewritten = false;
    if header.source != wire_mac {
        let host_mac = known_host_mac(packet, bond, header.source);
        if let Some(to) = source_for(header.source, wire_mac, host_mac, bond) {
            rewritten = rewrite_source(packet, header, to).map_err(|_| at(DropReason::RewriteFailed))?;
            if rewritten && bond.has(BondEntry::HOST_MAC_STAYS) {
                ask_for_broadcast(packet, header.source).map_err(|_| at(DropReason::RewriteFailed))?;
            }
        } else {
            behind::note(packet, header.source, word);
        }
    }

    let length = packet.length();
    let redirected = packet.to_slave(slot, ifindex).map_err(at)?;
    let mut stats = Stats::of(slot.index() as u32).ok_or(at(DropReason::Internal))?;
    let counters = stats.get();
    counters.tx_packets += 1;
    counters.tx_bytes += length;
    if rewritten {
        counters.tx_rewritten += 1;
    }
    Ok(redirected)
}

/// Returns the source MAC address that a frame gets before it leaves through a slave with `wire_mac`, None if its source
/// stays.
#[inline(always)]
pub fn source_for(source: Mac, wire_mac: Mac, host_mac: Mac, bond: &BondEntry) -> Option<Mac> {
    // bond0 had that address while that slave was active, and frames with it may still be on their way.
    let others = |source| bond.policy() == FailOverMac::Active && maps::is_a_slaves(source);
    rewritten_source(source, wire_mac, host_mac, others)
}

/// Returns the MAC address of the host behind the port, learned from this frame if the agent did not set it.
#[inline(always)]
fn known_host_mac(packet: &impl Packet, bond: &BondEntry, source: Mac) -> Mac {
    let known = rx::host_mac(bond);
    if !known.is_zero() || !bond.has(BondEntry::LEARN_HOST_MAC) || !source.is_unicast() {
        return known;
    }
    if let Some(learned) = maps::learned() {
        // SAFETY: a map value lives as long as the program runs. Two CPUs may both store; either frame is a valid
        // source.
        unsafe { learned.write_volatile(source) };
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::send(EventRecord::new(now, DataPlaneEvent::HostMacLearned(source)));
    packet.log_learned(source);
    source
}
