//! The verdict on a packet: pure functions of ACTIVE, of values of the maps, and of the two MAC addresses of the packet.

use crate::{
    abi::{ActiveWord, Slot},
    counters::DropReason,
    mac::Mac,
};

/// The verdict on a frame that a slave received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receive {
    /// Pass to the slave's own stack: a link-local frame (LLDP, LACP, STP), and the slave does not receive for the bond.
    Local,
    /// Pass to the slave's own stack, and a copy to the port: a link-local frame, and the slave receives for the bond.
    LocalAndBond,
    /// Deliver to the port, with this destination MAC address if there is one.
    Deliver(Option<Mac>),
    /// Drop, and count the drop under this reason.
    Drop(DropReason),
}

/// What the verdict on a received frame depends on, besides the frame and ACTIVE.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    /// The slot of the slave that received the frame.
    pub slot: Slot,
    /// [`crate::abi::BondEntry::host_mac`], or the learned address; zero if it is not known yet.
    pub host_mac: Mac,
    /// The driver's `all_slaves_active`: backups deliver what they receive.
    pub all_slaves_active: bool,
}

/// Returns the verdict on a received frame (`bond_handle_frame`, `bond_should_deliver_exact_match`).
///
/// Unlike in the driver, a draining slave delivers unicast frames, which a switch sends to one port only. It drops group
/// frames, which a switch sends to the active slave, too.
///
/// `is_wire_mac` ([`crate::abi::SlaveEntry::wire_mac`]) is called only for frames that are neither for the host's
/// address nor for a group. Most frames are one of these.
#[inline(always)]
pub fn receive(
    word: ActiveWord,
    at: Receiver,
    destination: Mac,
    is_wire_mac: impl FnOnce(Mac) -> bool,
) -> Receive {
    if destination.is_link_local() {
        let is_active = word.active() == Some(at.slot) || at.all_slaves_active;
        return if is_active { Receive::LocalAndBond } else { Receive::Local };
    }
    if word.active() != Some(at.slot) && !at.all_slaves_active {
        if word.draining() != Some(at.slot) {
            return Receive::Drop(DropReason::Backup);
        }
        if destination.is_multicast() {
            return Receive::Drop(DropReason::DrainingMulticast);
        }
    }
    let stays = destination == at.host_mac || destination.is_multicast() || at.host_mac.is_zero();
    let replaced = !stays && is_wire_mac(destination);
    Receive::Deliver(if replaced { Some(at.host_mac) } else { None })
}

/// Returns the slot through which a frame leaves: the usable one with this queue_id (`bond_slave_override`), else the
/// active one (`bond_xmit_activebackup`). Queue 0 chooses no slave.
///
/// # Errors
/// [`DropReason::NoActiveSlave`] if the bond has no active slave and the queue chooses none.
#[inline(always)]
pub fn transmit(word: ActiveWord, queue: u16, queue_id: impl Fn(Slot) -> u16) -> Result<Slot, DropReason> {
    if queue != 0 {
        let is_chosen = |slot: &Slot| word.usable() & slot.bit() != 0 && queue_id(*slot) == queue;
        if let Some(slot) = Slot::all().find(is_chosen) {
            return Ok(slot);
        }
    }
    word.active().ok_or(DropReason::NoActiveSlave)
}

/// Returns the source MAC address that a frame needs before it leaves through a slave with `wire_mac`, None if its
/// source stays.
///
/// Frames of the host get the slave's address, also those with another slave's address, which bond0 had before a
/// failover; `is_another_slaves` is called only if its answer matters. Other sources, for example from a bridge above
/// bond0, stay. [`crate::wire::rewrite_source`] leaves frames alone that protect their addresses.
#[inline(always)]
pub fn rewritten_source(
    source: Mac,
    wire_mac: Mac,
    host_mac: Mac,
    is_another_slaves: impl FnOnce(Mac) -> bool,
) -> Option<Mac> {
    if source == wire_mac {
        return None;
    }
    if source == host_mac || is_another_slaves(source) { Some(wire_mac) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const WIRE: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
    const OTHER: Mac = Mac::new([2, 0, 0, 0, 0, 3]);
    const GROUP: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
    const LLDP: Mac = Mac::new([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    #[test]
    fn receive_by_role_and_destination() {
        use DropReason::*;
        use Receive::*;
        // (the slot's role, destination) -> what becomes of it, with all_slaves_active off and on.
        let active = ActiveWord::default().next(Some(slot(1)), Some(slot(0)), 3);
        let draining = ActiveWord::default().next(Some(slot(0)), Some(slot(1)), 3);
        let backup = ActiveWord::default().next(Some(slot(0)), None, 3);
        let none = ActiveWord::default().next(None, None, 3);
        let table = [
            (active, WIRE, Deliver(Some(HOST)), Deliver(Some(HOST))),
            (active, HOST, Deliver(None), Deliver(None)),
            (active, OTHER, Deliver(None), Deliver(None)),
            (active, GROUP, Deliver(None), Deliver(None)),
            (active, LLDP, LocalAndBond, LocalAndBond),
            (draining, WIRE, Deliver(Some(HOST)), Deliver(Some(HOST))),
            (draining, HOST, Deliver(None), Deliver(None)),
            (draining, GROUP, Drop(DrainingMulticast), Deliver(None)),
            (draining, Mac::BROADCAST, Drop(DrainingMulticast), Deliver(None)),
            (draining, LLDP, Local, LocalAndBond),
            (backup, WIRE, Drop(Backup), Deliver(Some(HOST))),
            (backup, GROUP, Drop(Backup), Deliver(None)),
            (backup, LLDP, Local, LocalAndBond),
            (none, WIRE, Drop(Backup), Deliver(Some(HOST))),
            (none, LLDP, Local, LocalAndBond),
        ];
        for (row, (word, destination, expected, with_all)) in table.into_iter().enumerate() {
            let at = Receiver { slot: slot(1), host_mac: HOST, all_slaves_active: false };
            let is_wire_mac = |mac| mac == WIRE;
            assert_eq!(receive(word, at, destination, is_wire_mac), expected, "row {row}");
            let at = Receiver { all_slaves_active: true, ..at };
            assert_eq!(receive(word, at, destination, is_wire_mac), with_all, "row {row}, all_slaves_active");
        }
    }

    #[test]
    fn nothing_is_rewritten_to_an_unknown_host() {
        let word = ActiveWord::default().next(Some(slot(1)), None, 2);
        let at = Receiver { slot: slot(1), host_mac: Mac::ZERO, all_slaves_active: false };
        assert_eq!(receive(word, at, WIRE, |_| true), Receive::Deliver(None));
    }

    #[test]
    fn transmit_by_queue_or_by_the_active_slave() {
        let no_active = ActiveWord::default();
        let first = ActiveWord::default().next(Some(slot(0)), None, 0b0111);
        let last = ActiveWord::default().next(Some(slot(15)), None, 1 << 15);
        // Slot 1 has queue 5, slot 2 none, slot 3, which is down, 6.
        let queues = |slot: Slot| [0, 5, 0, 6].get(slot.index()).copied().unwrap_or(0);
        let no_slave = Err(DropReason::NoActiveSlave);
        for (word, queue, expected) in [
            (no_active, 0, no_slave),
            (no_active, 5, no_slave),
            (last, 0, Ok(slot(15))),
            (first, 0, Ok(slot(0))),
            (first, 5, Ok(slot(1))),
            (first, 6, Ok(slot(0))),
            (first, 7, Ok(slot(0))),
            (ActiveWord::default().next(None, None, 0b0010), 5, Ok(slot(1))),
        ] {
            assert_eq!(transmit(word, queue, queues), expected, "{word:?}, queue {queue}");
        }
    }

    #[test]
    fn the_source_mac_is_rewritten_depending_on_the_source() {
        let table =
            [(HOST, Some(WIRE)), (WIRE, None), (OTHER, Some(WIRE)), (Mac::new([2, 0, 0, 0, 0, 9]), None)];
        for (source, expected) in table {
            assert_eq!(rewritten_source(source, WIRE, HOST, |mac| mac == OTHER), expected, "{source}");
        }
    }
}
