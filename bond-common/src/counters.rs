//! What the data plane counts, per slot and CPU.

/// The reason why a packet was not forwarded. Its number is its index in [`SlotStats::drops`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum DropReason {
    /// Received on a backup slave.
    Backup = 0,
    /// Multicast or broadcast received on the draining slave: the active one receives it too.
    DrainingMulticast = 1,
    /// Sent while the bond has no active slave.
    NoActiveSlave = 2,
    /// ACTIVE names a slot without a slave.
    UnknownSlot = 3,
    /// Shorter than an Ethernet header.
    Runt = 4,
    /// The kernel refused to let the program write a MAC address into the frame.
    RewriteFailed = 5,
    /// The kernel refused the redirect, as far as the program can see.
    RedirectFailed = 6,
    /// A map has no such entry: the programs and the maps do not fit each other.
    Internal = 7,
    /// Neither the active slave's device nor that of any other slave has a link.
    NoLink = 8,
    /// The active slave's device has no link, and the guard failed over less than
    /// [`crate::abi::GuardEntry::PAUSE`] ago.
    GuardPause = 9,
}

impl DropReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; DROP_REASONS] = [
        Self::Backup,
        Self::DrainingMulticast,
        Self::NoActiveSlave,
        Self::UnknownSlot,
        Self::Runt,
        Self::RewriteFailed,
        Self::RedirectFailed,
        Self::Internal,
        Self::NoLink,
        Self::GuardPause,
    ];

    /// Returns the name that `xbond show`, JSON and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::DrainingMulticast => "draining_multicast",
            Self::NoActiveSlave => "no_active_slave",
            Self::UnknownSlot => "unknown_slot",
            Self::Runt => "runt",
            Self::RewriteFailed => "rewrite_failed",
            Self::RedirectFailed => "redirect_failed",
            Self::Internal => "internal",
            Self::NoLink => "no_link",
            Self::GuardPause => "guard_pause",
        }
    }
}

/// The number of values of [`DropReason`].
pub const DROP_REASONS: usize = 10;

/// The value of STATS: counters of one slot on one CPU. Bytes include the Ethernet header; a TSO or GRO packet counts
/// once. Each CPU writes its own copy; a reader adds the copies and may miss the packets that are being counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotStats {
    /// Packets sent through the slave.
    pub tx_packets: u64,
    /// Bytes of [`Self::tx_packets`].
    pub tx_bytes: u64,
    /// Packets among [`Self::tx_packets`] whose source MAC address was rewritten.
    pub tx_rewritten: u64,
    /// Packets delivered to the port.
    pub rx_packets: u64,
    /// Bytes of [`Self::rx_packets`].
    pub rx_bytes: u64,
    /// Packets among [`Self::rx_packets`] to a unicast address.
    pub rx_unicast: u64,
    /// Packets among [`Self::rx_packets`] whose destination MAC address was rewritten.
    pub rx_rewritten: u64,
    /// Packets to 01:80:c2:00:00:0x, which the slave's own stack receives. If the slave receives for the bond, the port
    /// receives a copy.
    pub rx_link_local: u64,
    /// Failovers of the carrier guard to this slot.
    pub guard_failovers: u64,
    /// Dropped packets, indexed by [`DropReason`].
    pub drops: [u64; DROP_REASONS],
}

impl SlotStats {
    /// Adds the counters of another CPU.
    pub fn add(&mut self, other: &Self) {
        self.tx_packets += other.tx_packets;
        self.tx_bytes += other.tx_bytes;
        self.tx_rewritten += other.tx_rewritten;
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

    /// Returns the number of packets that were dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or_default()
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
