//! What the engine is told.

use bond_common::{
    abi::{ProbeTimes, Slot},
    mac::Mac,
};

use crate::{
    GuardFailover, Time,
    options::{BondOptions, SlaveOptions},
};

/// Something that happened. Except for the requests (`Join`, `Leave`, `SetOptions`, `SetSlaveOptions`,
/// `SetActiveSlave`), which may be refused and then change nothing, events are facts.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// [`crate::Engine::poll_timeout`] has passed. Calling too early or too late does no harm.
    Timeout,
    /// Request: enslave an interface. Answered by [`crate::command::Command::Enslave`].
    Join(NewSlave),
    /// The interface is set up as `Enslave` asked, its programs run, and this is its link.
    Joined { slot: Slot, link: Link },
    /// The interface could not be set up, and is as it was before.
    JoinFailed { slot: Slot },
    /// Request: release a slave. Answered by [`crate::command::Command::Release`], of the active slave when
    /// another has taken over and it has drained.
    Leave { slot: Slot },
    /// The interface vanished: nothing on it can be restored.
    Gone { slot: Slot },
    /// The interface has a new name.
    Renamed { slot: Slot, name: String },
    /// The link as it is now: a netlink event. Repeating it is harmless.
    Link { slot: Slot, link: Link },
    /// The links as they are now, read together: the answer to `PollLinks`. One election follows for all, so
    /// that no slave is elected whose failure is in the same answer.
    Links(Vec<(Slot, Link)>),
    /// What the link is capable of was read, since it has come up or gone last.
    Speed { slot: Slot, speed: Speed, duplex: Duplex },
    /// ACTIVE is not what the last `Switch` stored: the data plane's carrier guard has failed over to `active`, and
    /// took from `usable` whoever had no link; or somebody has written it by hand.
    /// `earlier` are the guard's failovers before this one that no event has reported, the oldest first: nothing called the
    /// engine meanwhile.
    ActiveChanged { earlier: Vec<GuardFailover>, active: Option<Slot>, draining: Option<Slot>, usable: u16 },
    /// Request: these options instead (checked by [`BondOptions::check_change`] before).
    SetOptions(Box<BondOptions>),
    /// Request: these options for one slave.
    SetSlaveOptions { slot: Slot, options: SlaveOptions },
    /// This option was written. Those that elect do so even if they have the value that they had.
    Written(Elects),
    /// Request: this slave becomes active (a planned switch); None asks for a new election.
    SetActiveSlave(Option<Slot>),
    /// A slave's MAC was changed as `SetSlaveMac` asked, or could not be.
    SlaveMacSet { slot: Slot, mac: Mac, done: bool },
    /// The bond's MAC was changed as `SetBondMac` asked, or could not be.
    BondMacSet { mac: Mac, done: bool },
    /// Somebody else changed a slave's MAC, to this one.
    SlaveMacFound { slot: Slot, mac: Mac },
    /// Somebody else changed the bond's MAC, to this one.
    BondMacFound { mac: Mac },
    /// A round of announcements that `Announce` asked for is on the wire (or could not be sent).
    Announced { slot: Slot },
    /// The answer to `ReadProbes`: what each slave has heard. It makes the ARP monitor's next step.
    Probes(Vec<Heard>),
    /// The probes that `Probe` asked for are on the wire.
    Probed { slot: Slot },
    /// They could not be sent.
    ProbeFailed { slot: Slot },
    /// The probes that `Probe` asked for were not sent because the agent lacks something, as memory or descriptors. That says
    /// nothing of the path.
    NotProbed { slot: Slot },
    /// The machine was suspended for so long, which its monotonic clock does not count.
    Suspended { time: Time },
    /// The answer to `ReadCounters`: what the data plane has counted on this slave since it was loaded.
    Counters { slot: Slot, tx_packets: u64, rx_unicast: u64 },
    /// The answer to `AskNeighbours`.
    NeighboursAsked(Asked),
}

/// An option whose writing is an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elects {
    /// The primary takes over by force.
    Primary,
    PrimaryReselect,
    /// Of a slave. Not while the primary is enslaved.
    Prio,
}

impl Elects {
    /// By its name.
    pub fn of(key: &str) -> Option<Self> {
        match key {
            "primary" => Some(Self::Primary),
            "primary_reselect" => Some(Self::PrimaryReselect),
            "prio" => Some(Self::Prio),
            _ => None,
        }
    }
}

/// Whether there is anybody whose answer can be awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Nobody,
    Somebody,
}

/// An interface that is to be enslaved, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSlave {
    pub name: String,
    pub ifindex: u32,
    /// The MAC that it has now. It is what the driver calls its permanent one from then on.
    pub mac: Mac,
    /// False for a NIC that refuses another MAC.
    pub can_set_mac: bool,
    pub options: SlaveOptions,
}

/// What a slave has heard, as PROBES has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heard {
    pub slot: Slot,
    pub times: ProbeTimes,
}

/// What is known of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// `netif_running && netif_carrier_ok`
    pub up: bool,
    pub speed: Speed,
    pub duplex: Duplex,
    /// The link has come up, and speed and duplex may be others than before: they are being read, and come by
    /// [`Event::Speed`].
    pub is_stale: bool,
}

impl Link {
    /// A link of unknown speed.
    pub const fn new(up: bool) -> Self {
        Self { up, speed: Speed::UNKNOWN, duplex: Duplex::Unknown, is_stale: false }
    }
}

/// Mbit/s. Unknown is the largest value, as in the driver, whose primary_reselect=better therefore takes an
/// unknown speed for the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(pub u32);

impl Speed {
    pub const UNKNOWN: Self = Self(u32::MAX);
}

/// In the order of the kernel's numbers, which primary_reselect=better compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duplex {
    Half = 0,
    Full = 1,
    Unknown = 0xff,
}
