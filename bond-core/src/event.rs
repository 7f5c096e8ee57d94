//! The events that the engine handles.

use bond_common::{
    abi::{ProbeTimes, Slot},
    mac::Mac,
};

use crate::{
    Time,
    change::DataPlaneChange,
    damping::Damping,
    options::{BondOptions, SlaveOptions},
    watch::Watch,
};

/// Something that happened.
///
/// `Join`, `Leave`, `SetOptions`, `SetSlaveOptions`, `SetActiveSlave` and `SetDrained` are requests; the engine may refuse
/// them, and a refused request changes nothing. All other events are facts.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// [`crate::Engine::poll_timeout`] has passed. A call that is early or late does no harm.
    Timeout,
    /// Request: enslave an interface. Answered by [`crate::command::Work::Enslave`].
    Join(NewSlave),
    /// The interface is set up as `Enslave` asked, and its programs run.
    Joined {
        /// The slot of the slave.
        slot: Slot,
        /// The link at that moment.
        link: Link,
    },
    /// The interface could not be set up and has its original state.
    JoinFailed {
        /// The slot that `Enslave` named.
        slot: Slot,
    },
    /// Request: release a slave. Answered by [`crate::command::Work::Release`]; for the active slave after another
    /// one has taken over and the slave has drained.
    Leave {
        /// The slot of the slave.
        slot: Slot,
    },
    /// The interface vanished, and nothing of it can be restored.
    Gone {
        /// The slot of the slave.
        slot: Slot,
    },
    /// The interface of a slave was renamed.
    Renamed {
        /// The slot of the slave.
        slot: Slot,
        /// The new name.
        name: String,
    },
    /// The present state of a link, from a netlink notification. A repetition does no harm.
    Link {
        /// The slot of the slave.
        slot: Slot,
        /// The state of its link.
        link: Link,
    },
    /// The present states of links that were read together: the answer to `PollLinks`. One election follows for all, so
    /// that the engine elects no slave whose failure is in the same answer.
    Links(Vec<(Slot, Link)>),
    /// The speed of a link was read after the link last changed.
    Speed {
        /// The slot of the slave.
        slot: Slot,
        /// The speed in Mbit/s.
        speed: Speed,
        /// The duplex mode.
        duplex: Duplex,
    },
    /// ACTIVE is not what the last `Switch` stored: the carrier guard failed over and cleared the bits of dead slaves in
    /// `usable`, a tick of the clock changed it, or another process wrote the word.
    ActiveChanged {
        /// The recorded changes by the data plane that no event has reported, the oldest first.
        changes: Vec<DataPlaneChange>,
        /// The active slot of the present word.
        active: Option<Slot>,
        /// The draining slot of the present word.
        draining: Option<Slot>,
        /// The usable mask of the present word.
        usable: u16,
    },
    /// Request: replace the options of the bond. [`BondOptions::check_change`] has accepted them.
    SetOptions(Box<BondOptions>),
    /// Request: replace the options of a slave.
    SetSlaveOptions {
        /// The slot of the slave.
        slot: Slot,
        /// All of its options.
        options: SlaveOptions,
    },
    /// An option was written. Options that cause an election do so even if their value did not change.
    Written(Elects),
    /// Request: use a slave only while no other one is up, or like the others again.
    SetDrained {
        /// The slot of the slave.
        slot: Slot,
        /// Whether it is drained from now on.
        drained: bool,
    },
    /// The settings of damping, None if it is off.
    SetDamping(Option<Damping>),
    /// What slaves need to count as up, None for what the monitors in force judge by.
    SetWatch(Option<Watch>),
    /// What the path monitor has found.
    Paths(FoundPaths),
    /// Request: make this slave active by a planned switch; None asks for an election.
    SetActiveSlave(Option<Slot>),
    /// The answer to `SetSlaveMac`.
    SlaveMacSet {
        /// The slot of the slave.
        slot: Slot,
        /// The address that `SetSlaveMac` named.
        mac: Mac,
        /// Whether the kernel accepted it.
        done: bool,
    },
    /// The answer to `SetBondMac`.
    BondMacSet {
        /// The address that `SetBondMac` named.
        mac: Mac,
        /// Whether the kernel accepted it.
        done: bool,
    },
    /// The MAC address of a slave was changed externally.
    SlaveMacFound {
        /// The slot of the slave.
        slot: Slot,
        /// The address that it has now.
        mac: Mac,
    },
    /// The MAC address of the bond was changed externally.
    BondMacFound {
        /// The address that it has now.
        mac: Mac,
    },
    /// The round of announcements that `Announce` asked for was sent, or could not be sent.
    Announced {
        /// The slot of the slave through which it left.
        slot: Slot,
    },
    /// The answer to `ReadProbes`: when each slave received. It makes the next step of the ARP monitor.
    Probes(Vec<Reception>),
    /// The probes that `Probe` asked for were sent.
    Probed {
        /// The slot of the slave through which they left.
        slot: Slot,
    },
    /// The probes that `Probe` asked for could not be sent through the slave.
    ProbeFailed {
        /// The slot of the slave.
        slot: Slot,
    },
    /// The probes that `Probe` asked for were not sent because the agent lacked memory, descriptors or the like. This
    /// says nothing about the path of the slave.
    NotProbed {
        /// The slot of the slave.
        slot: Slot,
    },
    /// The machine was suspended, which its monotonic clock does not count.
    Suspended {
        /// The length of the suspension.
        time: Time,
    },
    /// The answer to `ReadCounters`: totals of the data plane since the programs were loaded.
    Counters {
        /// The slot of the slave.
        slot: Slot,
        /// Packets sent through it.
        tx_packets: u64,
        /// Unicast packets delivered from it.
        rx_unicast: u64,
    },
    /// The answer to `AskNeighbours`.
    NeighboursAsked(Neighbours),
}

/// The findings of the path monitor, as its maps have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoundPaths {
    /// A bit for each slot whose slave is used only while no other one is up: its path has failed, or is unproven.
    pub failed: u16,
    /// Those of them whose paths are unproven.
    pub unproven: u16,
    /// Whether slaves have to prove their paths when they join, and when their links return (`failback=proven`).
    pub wants_proof: bool,
    /// The last tick that the path monitor has seen.
    pub seen_at: Time,
}

/// An option that causes an election when it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elects {
    /// `primary`: the primary takes over unconditionally.
    Primary,
    /// `primary_reselect`.
    PrimaryReselect,
    /// `prio` of a slave. It causes no election while the primary is enslaved.
    Prio,
}

impl Elects {
    /// Returns the option with this name, None if the option with this name causes no election.
    pub fn of(key: &str) -> Option<Self> {
        match key {
            "primary" => Some(Self::Primary),
            "primary_reselect" => Some(Self::PrimaryReselect),
            "prio" => Some(Self::Prio),
            _ => None,
        }
    }
}

/// Whether an answer of a neighbour can be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbours {
    /// The bond has no neighbour to ask.
    None,
    /// At least one neighbour was asked.
    Asked,
}

/// An interface to enslave, in its original state.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSlave {
    /// The name of the interface.
    pub name: String,
    /// The index of the interface.
    pub ifindex: u32,
    /// The present MAC address, which the driver calls the permanent one of the slave.
    pub mac: Mac,
    /// False for a NIC whose MAC address cannot be changed.
    pub can_set_mac: bool,
    /// The options of the new slave.
    pub options: SlaveOptions,
    /// Whether the administrator has drained it.
    pub drained: bool,
}

/// The reception times of a slave, as PROBES has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reception {
    /// The slot of the slave.
    pub slot: Slot,
    /// Its entry in PROBES.
    pub times: ProbeTimes,
}

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether the device has a link: `netif_running && netif_carrier_ok`.
    pub up: bool,
    /// The speed in Mbit/s.
    pub speed: Speed,
    /// The duplex mode.
    pub duplex: Duplex,
    /// The link has come up, and speed and duplex may have changed. They are being read and follow in
    /// [`Event::Speed`].
    pub is_stale: bool,
}

impl Link {
    /// Creates the state of a link whose speed and duplex are unknown.
    pub const fn new(up: bool) -> Self {
        Self { up, speed: Speed::UNKNOWN, duplex: Duplex::Unknown, is_stale: false }
    }
}

/// A link speed in Mbit/s. Unknown is the largest value, as in the driver, whose primary_reselect=better therefore
/// treats an unknown speed as the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(pub u32);

impl Speed {
    /// The speed of a link whose speed could not be read (SPEED_UNKNOWN).
    pub const UNKNOWN: Self = Self(u32::MAX);
}

/// A duplex mode, ordered by the kernel's numbers, which primary_reselect=better compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Duplex {
    /// DUPLEX_HALF.
    Half = 0,
    /// DUPLEX_FULL.
    Full = 1,
    /// DUPLEX_UNKNOWN.
    Unknown = 0xff,
}
