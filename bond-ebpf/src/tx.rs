//! From the port to the wire.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use bond_common::{
    abi::{BondEntry, FailOverMac, PORT_STATS, Slot},
    counters::DropReason,
    event::{DataPlaneEvent, EventRecord},
    mac::Mac,
    verdict::{stamp, transmit},
    wire::stamp_source,
};

use crate::{
    error::Outcome,
    guard, maps,
    packet::{Packet, Redirected, SkbPacket},
    rx,
    stats::Stats,
};

/// Whether bond0 just sends a packet that is to be redirected from its port's ingress, not from here. From here it would
/// reach the slave with its socket, which then remembers the queue of the slave's that is chosen for it: by that queue
/// the socket's next packet would leave bond0, and so choose the slave that has this queue_id.
#[inline(always)]
pub fn goes_by_port(packet: &SkbPacket<'_>) -> bool {
    maps::bond().is_some_and(|bond| bond.has(BondEntry::BY_PORT)) && !packet.was_received()
}

/// What becomes of a frame that came in from the port. Counts it, on the slave that it leaves by.
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

/// An error tells on which slot it counts, if on one.
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
    let mut stamped = false;
    if header.source != wire_mac {
        let host_mac = known_host_mac(packet, bond, header.source);
        // bond0 wore it while that slave was active, and frames with it are still under way.
        let others = |source| bond.policy() == FailOverMac::Active && maps::is_a_slaves(source);
        if let Some(to) = stamp(header.source, wire_mac, host_mac, others) {
            stamped = stamp_source(packet, header, to).map_err(|_| at(DropReason::StampFailed))?;
        }
    }

    let length = packet.length();
    let redirected = packet.to_slave(slot, ifindex).map_err(at)?;
    let mut stats = Stats::of(slot.index() as u32).ok_or(at(DropReason::Internal))?;
    let counters = stats.get();
    counters.tx_packets += 1;
    counters.tx_bytes += length;
    if stamped {
        counters.tx_stamped += 1;
    }
    Ok(redirected)
}

/// The MAC of the host behind the port, taken from this frame if nobody told it.
#[inline(always)]
fn known_host_mac(packet: &impl Packet, bond: &BondEntry, source: Mac) -> Mac {
    let known = rx::host_mac(bond);
    if !known.is_zero() || !bond.has(BondEntry::LEARN_HOST_MAC) || !source.is_unicast() {
        return known;
    }
    if let Some(learned) = maps::learned() {
        // SAFETY: a map value lives as long as the program runs. Two CPUs may both come here; either's frame
        // is as good a source.
        unsafe { learned.write_volatile(source) };
    }
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    maps::tell(EventRecord::new(now, DataPlaneEvent::HostMacLearned(source)));
    packet.log_learned(source);
    source
}
