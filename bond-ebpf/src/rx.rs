//! From the wire to the port.

use bond_common::{
    abi::{BondEntry, FailOverMac, Slot},
    counters::DropReason,
    mac::Mac,
    verdict::{Receive, Receiver, receive},
    wire::rewrite_destination,
};

use crate::{
    device,
    error::Outcome,
    maps,
    packet::{Packet, Redirected, SkbPacket},
    probe,
    stats::Stats,
};

/// What becomes of a frame that a slave received. Counts it.
#[inline(always)]
pub fn slave_rx(packet: &mut impl Packet) -> Outcome {
    let Some(slot) = maps::own_slot() else { return Outcome::Dropped };
    let Some(mut stats) = Stats::of(slot.index() as u32) else { return Outcome::Dropped };
    match forward(packet, slot, &mut stats) {
        Ok(Some(redirected)) => Outcome::Redirected(redirected),
        Ok(None) => {
            stats.get().rx_link_local += 1;
            Outcome::Local
        }
        Err(reason) => {
            stats.drop(reason);
            Outcome::Dropped
        }
    }
}

/// None: it concerns the link itself, and the slave's own stack has it.
#[inline(always)]
fn forward(
    packet: &mut impl Packet,
    slot: Slot,
    stats: &mut Stats,
) -> Result<Option<Redirected>, DropReason> {
    let header = packet.header().ok_or(DropReason::Runt)?;
    let word = maps::active_word().ok_or(DropReason::Internal)?;
    let bond = maps::bond().ok_or(DropReason::Internal)?;
    if bond.has(BondEntry::MONITOR) {
        probe::note(packet, slot, word, bond);
    }
    let at = receiver(slot, bond);
    // Neighbours that have not heard of a failover, as while nobody announces it, still send to another slave's.
    let is_wire_mac = |mac| {
        maps::slave(slot).is_some_and(|slave| slave.wire_mac() == mac)
            || bond.policy() == FailOverMac::Active && maps::is_a_slaves(mac)
    };
    let replaced = match receive(word, at, header.destination, is_wire_mac) {
        Receive::Local => return Ok(None),
        Receive::LocalAndBond => {
            packet.copy_to_port(bond.port_ifindex());
            return Ok(None);
        }
        Receive::Drop(reason) => return Err(reason),
        Receive::Deliver(replaced) => replaced,
    };
    let rewritten = match replaced {
        Some(to) => rewrite_destination(packet, header, to).map_err(|_| DropReason::StampFailed)?,
        None => false,
    };
    let length = packet.length();
    let redirected = packet.to_port(bond.port_ifindex())?;
    let counters = stats.get();
    counters.rx_packets += 1;
    counters.rx_bytes += length;
    counters.rx_unicast += !header.destination.is_multicast() as u64;
    if rewritten {
        counters.rx_rewritten += 1;
    }
    Ok(Some(redirected))
}

/// A slave as frames find it.
#[inline(always)]
fn receiver(slot: Slot, bond: &BondEntry) -> Receiver {
    Receiver { slot, host_mac: host_mac(bond), all_slaves_active: bond.has(BondEntry::ALL_SLAVES_ACTIVE) }
}

/// Gives the port a copy of what concerns the link of a slave that receives for the bond. XDP cannot copy a frame: it
/// passes such a frame to the stack, where this comes behind it. [`slave_rx`] has counted the frame.
#[inline(always)]
pub fn copy_link_local(packet: &SkbPacket<'_>) {
    let Some(slot) = maps::own_slot() else { return };
    let (Some(header), Some(word), Some(bond)) = (packet.header(), maps::active_word(), maps::bond()) else {
        return;
    };
    // Everything else is gone already; what XDP let pass before it was attached is not for the bond.
    if receive(word, receiver(slot, bond), header.destination, |_| false) != Receive::LocalAndBond {
        return;
    }
    packet.copy_to_port(bond.port_ifindex());
}

/// Whether a frame that reached bond0 is meant for it, by whatever MAC. One that was rewritten just before
/// bond0's MAC changed carries the former one, which was a slave's.
#[inline(always)]
pub fn is_for_host(packet: &impl Packet) -> bool {
    let Some(destination) = packet.header().map(|header| header.destination) else { return false };
    maps::bond().is_some_and(|bond| bond.host_mac() == destination) || maps::is_a_slaves(destination)
}

/// The MAC that whoever is behind the port answers to at this moment.
#[inline(always)]
pub fn host_mac(bond: &BondEntry) -> Mac {
    if bond.has(BondEntry::HOST_MAC_MOVES) {
        // Between the change of bond0's MAC and the agent's store of it, only bond0 itself knows.
        if let Some(mac) = device::mac(bond.host_device()) {
            return mac;
        }
    }
    let mac = bond.host_mac();
    if mac.is_zero() && bond.has(BondEntry::LEARN_HOST_MAC) {
        if let Some(learned) = maps::learned() {
            // SAFETY: a map value lives as long as the program runs; one aligned word.
            return unsafe { learned.read_volatile() };
        }
    }
    mac
}
