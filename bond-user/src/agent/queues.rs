//! The transmit queues of a bond, by which packets may choose their slave.

use std::fmt;

/// The transmit queues of bond0 by which a frame may choose its slave (queue_id).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queues {
    /// The driver's tx_queues: 16, of which the first is assigned to no slave.
    Sixteen,
    /// An existing port, whose queues belong to the host behind it.
    OfPort,
    /// Frames that are assigned to no queue could not be sent by the first one only.
    One,
}

impl Queues {
    /// As `IFLA_NUM_TX_QUEUES` of bond0.
    pub fn count(self) -> u16 {
        match self {
            Self::Sixteen => 16,
            Self::OfPort | Self::One => 1,
        }
    }

    pub fn has(self, queue_id: u16) -> bool {
        queue_id < self.count()
    }
}

/// The end of a sentence about a bond.
impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sixteen => "has transmit queues 1 to 15; choose one of them, or 0 for none",
            Self::OfPort => "ends in a port, whose queues are not the bond's; leave queue_id out",
            Self::One => "has one transmit queue, because sysfs cannot be mounted; leave queue_id out",
        })
    }
}
