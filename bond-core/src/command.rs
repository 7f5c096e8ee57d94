//! What the engine asks for, split by the part of the agent that executes it.

use bond_common::{
    abi::{FailOverMac, Slot},
    mac::Mac,
};
use serde::{Deserialize, Serialize};

/// What one decision of the engine asks for: the result of one event.
///
/// The caller of the engine executes [`Self::publish`], then [`Self::queries`], and hands the rest on. What it hands on may
/// take time and runs concurrently with the engine. All commands are idempotent: each one describes a state to establish. If
/// a command names an event, the agent answers with it in every case, even if the interface has vanished, because the engine
/// does not assign the slot again before. `slot` may be cleared when such a command runs: its interface is known from the
/// last [`Publish::WriteSlave`].
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct Batch {
    /// What packets depend on, for the caller of the engine, at once and in this order.
    pub publish: Vec<Publish>,
    /// What the engine needs to know, for the caller of the engine.
    pub queries: Vec<Query>,
    /// What happened, for the log and the records, in this order. A change of the active slave is in the batch that makes
    /// it, with everything else that follows from it at once.
    pub reports: Vec<Report>,
    /// Rounds of announcements, for the announcer.
    pub announcements: Vec<Announce>,
    /// Rounds of probes, for the prober.
    pub probes: Vec<Probe>,
    /// What takes time, for the worker, in this order.
    pub work: Vec<Work>,
}

impl Batch {
    /// Returns the number of MAC addresses that are to be changed.
    pub fn mac_changes(&self) -> usize {
        self.work.iter().filter(|work| matches!(work, Work::SetSlaveMac { .. } | Work::SetBondMac(_))).count()
    }
}

/// A store to a map that packets read.
#[derive(Clone, Debug, PartialEq)]
pub enum Publish {
    /// Write another policy to BOND.
    SetPolicy(FailOverMac),
    /// Write the entry of a slave into SLAVES.
    WriteSlave {
        /// The index of the entry.
        slot: Slot,
        /// The interface index of the slave.
        ifindex: u32,
        /// The source MAC address of frames that leave through the slave while it is active.
        wire_mac: Mac,
        /// The MAC address that the slave had before it was enslaved.
        permanent_mac: Mac,
        /// The transmit queue of bond0 that chooses the slave, 0 if none does.
        queue_id: u16,
    },
    /// Clear the entry of a slave in SLAVES.
    ClearSlave {
        /// The index of the entry.
        slot: Slot,
    },
    /// Store the next word in ACTIVE.
    Switch {
        /// The slot that transmits and receives from now on.
        active: Option<Slot>,
        /// The slot that still delivers unicast.
        draining: Option<Slot>,
        /// A bit for each slot that the carrier guard or a queue may choose.
        usable: u16,
    },
}

/// A question that is answered at once, without netlink.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// Read the links of all slaves and answer with [`crate::event::Event::Links`].
    PollLinks,
    /// Read the counters of a slave and answer with [`crate::event::Event::Counters`].
    ReadCounters {
        /// The slot of the slave.
        slot: Slot,
    },
    /// Read the reception times of all slaves from PROBES and answer with [`crate::event::Event::Probes`].
    ReadProbes,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// The active slave changed: log and record it.
    Failover(Failover),
    /// Log it.
    Notice(Notice),
}

/// One round of announcements: a gratuitous ARP or an unsolicited NA for every address of the bond. Answered by
/// [`crate::event::Event::Announced`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The slot of the slave through which the announcements leave.
    pub slot: Slot,
    /// Their source MAC address.
    pub mac: Mac,
}

/// One round of probes, one for every target of the ARP monitor. Answered by [`crate::event::Event::Probed`],
/// [`crate::event::Event::ProbeFailed`] or [`crate::event::Event::NotProbed`]. The agent may skip a round that is late, and
/// answers the skipped one with the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The slot of the slave through which the probes leave.
    pub slot: Slot,
    /// Their source MAC address.
    pub mac: Mac,
}

/// Something that takes time: it may wait for the kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    /// Set an interface up as a slave: set its MAC address, then the MTU of the bond, open it, and attach the programs.
    /// Answered by [`crate::event::Event::Joined`] or [`crate::event::Event::JoinFailed`].
    Enslave {
        /// The slot of the new slave.
        slot: Slot,
        /// The MAC address to set; None keeps the present one.
        mac: Option<Mac>,
    },
    /// Undo [`Self::Enslave`]: detach the programs, restore the MTU, and close the interface.
    Release {
        /// The slot of the former slave.
        slot: Slot,
        /// The MAC address to restore; None keeps the present one.
        mac: Option<Mac>,
    },
    /// Set the carrier of the bond on or off.
    SetCarrier(bool),
    /// Change the MAC address of a slave. Answered by [`crate::event::Event::SlaveMacSet`].
    SetSlaveMac {
        /// The slot of the slave.
        slot: Slot,
        /// The address to set.
        mac: Mac,
    },
    /// Change the MAC address of the bond. Answered by [`crate::event::Event::BondMacSet`].
    SetBondMac(Mac),
    /// Send IGMP and MLD reports for every group that the bond has joined (NETDEV_RESEND_IGMP).
    SendReports {
        /// The slot of the slave through which the reports leave.
        slot: Slot,
        /// Their source MAC address.
        mac: Mac,
    },
    /// Make the neighbours of the bond send a unicast answer. Answered by [`crate::event::Event::NeighboursAsked`].
    AskNeighbours,
}

/// A change of the active slave. Names are the slaves' names at that time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// The former active slave, None if there was none.
    pub from: Option<String>,
    /// The new active slave, None if no slave can be active.
    pub to: Option<String>,
    /// Why the active slave changed.
    pub reason: Reason,
    /// What showed that it had to change.
    pub seen: Trigger,
    /// Why `to` was chosen, None if no slave was.
    pub chosen: Option<Chosen>,
}

/// A change of what is known of a slave's path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathChange {
    /// It does not work: the targets were silent by it.
    Failed,
    /// A path that had failed answers again.
    Recovered,
    /// The path of a slave that joined, or whose link returned, has answered often enough.
    Proven,
}

/// A change that the agent logs for the administrator. Names are the slaves' names at that time.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A link failed or recovered, and the state of the slave changes after a delay.
    LinkDelayed {
        /// The slave.
        slave: String,
        /// Whether the link recovered.
        up: bool,
        /// The delay in milliseconds: `updelay` or `downdelay`.
        delay_ms: u32,
    },
    /// The agent was called late, and the engine did not judge slaves by that time.
    Late {
        /// The number of late calls since the last such notice.
        times: u32,
        /// The longest lateness in milliseconds.
        ms: u64,
    },
    /// The machine was suspended, and the engine does not judge slaves by that time.
    Suspended {
        /// The length of the suspension in milliseconds.
        ms: u64,
    },
    /// The state of a link became final: up or down.
    LinkChanged {
        /// The slave.
        slave: String,
        /// Whether the state is up.
        up: bool,
    },
    /// An interface became a slave.
    Enslaved {
        /// The slave.
        slave: String,
        /// Whether it had a link.
        up: bool,
    },
    /// A slave was released, or its interface vanished.
    Released {
        /// The former slave.
        slave: String,
    },
    /// A first slave that cannot change its MAC address changed fail_over_mac to active (`__bond_enslave`).
    PolicyTurnedActive {
        /// The slave.
        slave: String,
    },
    /// A new slave had the MAC address of the bond or of another slave and got a random one (`__bond_enslave`, follow).
    DuplicateMacReplaced {
        /// The slave.
        slave: String,
        /// Its new address.
        mac: Mac,
    },
    /// The kernel refused to change the MAC address of a slave or of the bond.
    MacRefused {
        /// The interface.
        interface: String,
        /// The refused address.
        mac: Mac,
    },
    /// The MAC address of a slave was changed externally; it keeps the address.
    SlaveMacChanged {
        /// The slave.
        slave: String,
        /// Its address.
        mac: Mac,
    },
    /// The MAC address of the bond was changed externally, and all slaves follow (`bond_set_mac_address`, none).
    BondMacChanged {
        /// The address.
        mac: Mac,
    },
    /// The MAC address of the bond was changed externally although the policy derives it from the slaves; it is restored
    /// (`bond_set_mac_address`, active and follow).
    BondMacRestored {
        /// The address that was set.
        mac: Mac,
    },
    /// The active slave has sent frames and received no unicast since it became active.
    NoUnicast {
        /// The slave.
        slave: String,
        /// The number of frames that it sent.
        sent: u64,
    },
    /// A slave whose link flaps is used only while no other is up, from now on or not any more.
    Damped {
        /// The slave.
        slave: String,
        /// Whether its damping begins.
        damped: bool,
    },
    /// The path monitor has found something else of the path of a slave.
    Path {
        /// The slave.
        slave: String,
        /// What is so now.
        change: PathChange,
    },
    /// The slave of an earlier [`Self::NoUnicast`] receives unicast now.
    UnicastReceived {
        /// The slave.
        slave: String,
    },
    /// The MAC address of a released slave is still the bond's or another slave's (`__bond_release_one`).
    ReleasedMacInUse {
        /// The former slave.
        slave: String,
        /// Its address.
        mac: Mac,
    },
}

/// The reason why the active slave changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The active slave's link failed.
    LinkFailed,
    /// The carrier guard found the active slave's device without a link and failed over before the engine.
    CarrierGuard,
    /// The link of a slave recovered, and the slave is a better choice, or no slave was active.
    LinkRecovered,
    /// The active slave was released, or its interface vanished.
    Left,
    /// A slave joined.
    Joined,
    /// `active_slave` was set by the administrator.
    Requested,
    /// An option changed: `primary`, `primary_reselect`, `prio`, or `active_slave` was cleared.
    OptionChanged,
    /// The administrator drained the active slave.
    Drained,
    /// The administrator ended the drain of a slave, which is a better choice.
    Undrained,
    /// The damping of a slave ended, which is a better choice.
    DampingEnded,
    /// The path of the active slave was silent: no target of the path monitor answered.
    Path,
    /// The path of a slave answers again, which is a better choice.
    PathRecovered,
}

impl Reason {
    /// All reasons, in the order of the metrics.
    pub const ALL: [Self; 12] = [
        Self::LinkFailed,
        Self::CarrierGuard,
        Self::LinkRecovered,
        Self::Left,
        Self::Joined,
        Self::Requested,
        Self::OptionChanged,
        Self::Drained,
        Self::Undrained,
        Self::DampingEnded,
        Self::Path,
        Self::PathRecovered,
    ];
}

/// The trigger of a failover: what showed that the active slave had to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A netlink notification about a slave.
    LinkEvent,
    /// A poll of the links, made every `miimon`.
    Miimon,
    /// The end of `updelay` or `downdelay`.
    Delay,
    /// A step of the ARP monitor, made every `arp_interval`.
    ArpMonitor,
    /// A request of the administrator, or a consequence of one.
    Request,
    /// A slave that joined.
    SlaveJoined,
    /// The active slave that was released or vanished.
    SlaveLeft,
    /// The carrier guard, which found the active slave's device without a link and had failed over.
    Guard,
    /// A tick of the clock in the kernel.
    Tick,
    /// A step of the ARP monitor in the kernel, made by a tick of the clock while no agent runs.
    ArpTick,
    /// The path monitor, which runs in the ticks of the clock.
    Path,
}

/// The reason why this slave was chosen and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// The slave is the primary.
    Primary,
    /// The slave has the highest prio of those that are up; among equals it was enslaved first.
    Prio,
    /// The slave was enslaved first of those that are up, whose prios do not differ.
    FirstEnslaved,
    /// No other slave is up.
    OnlyOneUp,
    /// The slave is faster than the active one, and primary_reselect is better.
    Better,
    /// No slave is up, and the slave has the shortest rest of updelay. It is used early.
    UsedEarly,
    /// The slave was active, and no other is a better choice.
    Kept,
    /// The administrator named the slave. Records of former versions call this by_hand.
    #[serde(alias = "by_hand")]
    Administrator,
    /// The data plane chose the slave: the first of the engine's rank that has a link.
    Guard,
}
