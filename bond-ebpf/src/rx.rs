//! The receive path: from a slave to the port.

use bond_common::{
    abi::{BondEntry, FailOverMac, Slot},
    counters::DropReason,
    mac::Mac,
    verdict::{Receive, Receiver, receive},
    wire::rewrite_destination,
};

use crate::{
    action::Outcome,
    behind, device, heard, maps, misdirected,
    packet::{Packet, Redirected, SkbPacket},
    path, probe,
    stats::Stats,
};

/// Delivers or drops a frame that a slave received, and counts it.
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
        Err(Refused::Drop(reason)) => {
            stats.drop(reason);
            Outcome::Dropped
        }
        Err(Refused::Answer) => Outcome::Dropped,
    }
}

/// Why a frame is not delivered.
enum Refused {
    Drop(DropReason),
    /// It answers the path monitor, which has counted it.
    Answer,
}

impl From<DropReason> for Refused {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// Redirects a received frame to the port; None if it is link-local and passes to the slave's own stack.
#[inline(always)]
fn forward(packet: &mut impl Packet, slot: Slot, stats: &mut Stats) -> Result<Option<Redirected>, Refused> {
    let header = packet.header().ok_or(DropReason::Runt)?;
    let word = maps::active_word().ok_or(DropReason::Internal)?;
    let bond = maps::bond().ok_or(DropReason::Internal)?;
    if bond.has(BondEntry::MONITOR | BondEntry::OBSERVE | BondEntry::PATH) {
        if bond.has(BondEntry::PATH) && path::note(packet, slot, word) {
            return Err(Refused::Answer);
        }
        if bond.has(BondEntry::MONITOR) {
            probe::note(packet, slot, word, bond);
        }
        if bond.has(BondEntry::OBSERVE) {
            heard::note(header.source, slot, word);
        }
    }
    let at = receiver(slot, bond);
    // Neighbours that do not know of a failover yet, for example because no agent announces it, still send to the
    // address of another slave.
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
        Receive::Drop(reason) => {
            if reason == DropReason::Backup && !header.destination.is_multicast() {
                misdirected::note(packet, slot, word, header.destination);
            }
            return Err(reason.into());
        }
        Receive::Deliver(replaced) => replaced,
    };
    let rewritten = match replaced {
        Some(to) => rewrite_destination(packet, header, to).map_err(|_| DropReason::RewriteFailed)?,
        None => false,
    };
    if word.active() == Some(slot)
        && (header.destination.is_multicast() || stats.get().rx_packets & behind::UNCHECKED == 0)
    {
        behind::forget_moved(packet, header.source, word);
    }
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

/// Returns what the verdict on a frame that `slot` received depends on.
#[inline(always)]
fn receiver(slot: Slot, bond: &BondEntry) -> Receiver {
    Receiver { slot, host_mac: host_mac(bond), all_slaves_active: bond.has(BondEntry::ALL_SLAVES_ACTIVE) }
}

/// Redirects a copy of a link-local frame to the port if the slave receives for the bond. XDP cannot copy a frame: it
/// passes such a frame to the stack, where this program runs. [`slave_rx`] has counted the frame.
#[inline(always)]
pub fn copy_link_local(packet: &SkbPacket<'_>) {
    let Some(slot) = maps::own_slot() else { return };
    let (Some(header), Some(word), Some(bond)) = (packet.header(), maps::active_word(), maps::bond()) else {
        return;
    };
    // The XDP program has taken all other frames. Frames that arrived before it was attached are not for the bond.
    if receive(word, receiver(slot, bond), header.destination, |_| false) != Receive::LocalAndBond {
        return;
    }
    packet.copy_to_port(bond.port_ifindex());
}

/// Returns whether a frame at bond0 is for this host, by its present or a former MAC address. A frame that was rewritten
/// just before bond0's address changed carries the former one, which is a slave's.
#[inline(always)]
pub fn is_for_host(packet: &impl Packet) -> bool {
    let Some(destination) = packet.header().map(|header| header.destination) else { return false };
    maps::bond().is_some_and(|bond| bond.host_mac() == destination) || maps::is_a_slaves(destination)
}

/// Returns the MAC address of bond0, or of the host behind the port, at this moment; zero if it is not known.
#[inline(always)]
pub fn host_mac(bond: &BondEntry) -> Mac {
    if bond.has(BondEntry::HOST_MAC_MOVES) {
        // Between the change of bond0's address and the agent's store of it, only the device has the new address.
        if let Some(mac) = device::mac(bond.host_device()) {
            return mac;
        }
    }
    let mac = bond.host_mac();
    if mac.is_zero()
        && bond.has(BondEntry::LEARN_HOST_MAC)
        && let Some(learned) = maps::learned()
    {
        // SAFETY: a map value lives as long as the program runs; one aligned word.
        return unsafe { learned.read_volatile() };
    }
    mac
}
