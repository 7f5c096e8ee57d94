//! What the data plane counts, per slot and CPU.

/// Why a packet was not forwarded. The number is its place in [`SlotStats::drops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DropReason {
    /// Received on a backup slave.
    Backup = 0,
    /// Multicast or broadcast on the draining slave: the active one has it too.
    DrainingMulticast = 1,
    /// Sent while the bond has no active slave.
    NoActiveSlave = 2,
    /// ACTIVE names a slot that no slave has.
    UnknownSlot = 3,
    /// Shorter than an Ethernet header.
    Runt = 4,
    /// The MAC could not be written into the frame.
    StampFailed = 5,
    /// The kernel refused the redirect, as far as the program can see.
    RedirectFailed = 6,
    /// A map is missing: the programs and the maps do not fit each other.
    Internal = 7,
    /// The active slave's device has no link, and no other slave's has one.
    NoLink = 8,
    /// The active slave's device has no link, and the guard has failed over just before.
    GuardPause = 9,
}

impl DropReason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; DROP_REASONS] = [
        Self::Backup,
        Self::DrainingMulticast,
        Self::NoActiveSlave,
        Self::UnknownSlot,
        Self::Runt,
        Self::StampFailed,
        Self::RedirectFailed,
        Self::Internal,
        Self::NoLink,
        Self::GuardPause,
    ];

    /// The name that `show`, JSON and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::DrainingMulticast => "draining_multicast",
            Self::NoActiveSlave => "no_active_slave",
            Self::UnknownSlot => "unknown_slot",
            Self::Runt => "runt",
            Self::StampFailed => "stamp_failed",
            Self::RedirectFailed => "redirect_failed",
            Self::Internal => "internal",
            Self::NoLink => "no_link",
            Self::GuardPause => "guard_pause",
        }
    }
}

pub const DROP_REASONS: usize = 10;

/// The value of STATS. Packets of the wire, bytes with the Ethernet header; a TSO or GRO packet counts once.
/// Written by the data plane, each CPU its own; a reader sums and may be a packet behind.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotStats {
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Of these, packets whose source MAC was changed.
    pub tx_stamped: u64,
    /// Delivered to the port.
    pub rx_packets: u64,
    pub rx_bytes: u64,
    /// Of these, packets to a unicast address.
    pub rx_unicast: u64,
    /// Of these, packets whose destination MAC was changed.
    pub rx_rewritten: u64,
    /// 01:80:c2:00:00:0x, left to the slave itself; of a slave that receives for the bond, the port has a copy.
    pub rx_link_local: u64,
    /// Failovers of the carrier guard to this slot.
    pub guard_failovers: u64,
    /// By [`DropReason`].
    pub drops: [u64; DROP_REASONS],
}

impl SlotStats {
    /// Adds what another CPU counted.
    pub fn add(&mut self, other: &Self) {
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.tx_stamped += other.tx_stamped;
        self.rx_packets += other.rx_packets;
        self.rx_bytes += other.rx_bytes;
        self.rx_unicast += other.rx_unicast;
        self.rx_rewritten += other.rx_rewritten;
        self.rx_link_local += other.rx_link_local;
        self.guard_failovers += other.guard_failovers;
        for (sum, more) in self.drops.iter_mut().zip(other.drops) {
            *sum += more;
        }
    }

    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

const _: () = assert!(size_of::<SlotStats>() == (9 + DROP_REASONS) * 8);

// SAFETY: integers in C layout without padding (asserted above): every bit pattern is valid.
#[cfg(feature = "user")]
unsafe impl aya::Pod for SlotStats {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_as_listed_and_named_apart() {
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert!(DropReason::ALL.iter().filter(|other| other.name() == reason.name()).count() == 1);
        }
    }
}
