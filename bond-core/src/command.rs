//! What the engine asks for.

use bond_common::{abi::Slot, mac::Mac};
use serde::{Deserialize, Serialize};

/// Something to be done. Commands are executed in order and are idempotent: each says how things shall be.
/// The first group is done at once, by whoever calls the engine; the second may take its time, runs beside
/// it, and answers with an event where one is named. The answer always comes, even if the
/// interface has vanished, because a slot is not used again before. `slot` may have been cleared by the time: what its
/// interface was is known from the last `WriteSlave`.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Read every slave's link and answer with `Event::Links`.
    PollLinks,
    /// Read this slave's counters and answer with `Event::Counters`.
    ReadCounters { slot: Slot },
    /// Read from PROBES when each slave heard something and answer with `Event::Probes`.
    ReadProbes,
    /// Write SLAVES at `slot`: an interface, the MAC that it shows on the wire while it is active, and the transmit
    /// queue that chooses it.
    WriteSlave { slot: Slot, ifindex: u32, wire_mac: Mac, permanent_mac: Mac, queue_id: u16 },
    /// Clear SLAVES at `slot`.
    ClearSlave { slot: Slot },
    /// Store ACTIVE: from now on packets leave by `active`. `usable` has a bit per slot.
    Switch { active: Option<Slot>, draining: Option<Slot>, usable: u16 },
    /// Say it to whoever reads the log.
    Notify(Notice),

    /// Set an interface up as a slave: with this MAC, if one is given, set before it is opened; with the
    /// bond's MTU; opened; its programs attached. Answered by `Joined` or `JoinFailed`.
    Enslave { slot: Slot, mac: Option<Mac> },
    /// Undo `Enslave`: programs detached, this MAC if one is given, MTU restored, closed.
    Release { slot: Slot, mac: Option<Mac> },
    /// Give the bond carrier, or take it away.
    SetCarrier(bool),
    /// Change a slave's MAC. Answered by `SlaveMacSet`.
    SetSlaveMac { slot: Slot, mac: Mac },
    /// Change the bond's own MAC. Answered by `BondMacSet`.
    SetBondMac(Mac),
    /// Ask every target of the ARP monitor, by this slave, from this MAC. Answered by `Probed` or `ProbeFailed`.
    /// A round that comes late may be left out for the next, and is answered with that.
    Probe { slot: Slot, mac: Mac },
    /// Send a gratuitous ARP and an unsolicited NA for every address of the bond, by this slave, from this
    /// MAC. Answered by `Announced`.
    Announce { slot: Slot, mac: Mac },
    /// Send IGMP and MLD reports for every group that the bond has joined, by this slave, from this MAC
    /// (NETDEV_RESEND_IGMP).
    Report { slot: Slot, mac: Mac },
    /// Have the bond's neighbours say that they are there. Answered by `NeighboursAsked`.
    AskNeighbours,
}

/// Something that a person should know. Names are the slaves' names at that time.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The active slave changed.
    Failover {
        from: Option<String>,
        to: Option<String>,
        reason: Reason,
        seen: Seen,
        /// None where nobody could be chosen.
        chosen: Option<Chosen>,
    },
    /// A link went down or came back, and nothing is done about it for so long (milliseconds).
    LinkDelayed {
        slave: String,
        up: bool,
        delay_ms: u32,
    },
    /// The agent was late so many times since the last notice, by so many milliseconds at most: it judged no slave by that
    /// time.
    Late {
        times: u32,
        ms: u64,
    },
    /// The machine was suspended, for so many milliseconds: no slave is judged by that time.
    Suspended {
        ms: u64,
    },
    /// A link state became final.
    LinkChanged {
        slave: String,
        up: bool,
    },
    /// A slave joined; with its link up or down.
    Enslaved {
        slave: String,
        up: bool,
    },
    Released {
        slave: String,
    },
    /// A first slave that cannot change its MAC turned fail_over_mac to active (`__bond_enslave`).
    PolicyTurnedActive {
        slave: String,
    },
    /// A slave that has the bond's MAC, or another slave's, got this one instead (`__bond_enslave`, follow).
    DuplicateMacReplaced {
        slave: String,
        mac: Mac,
    },
    /// A slave's or the bond's MAC could not be changed.
    MacRefused {
        interface: String,
        mac: Mac,
    },
    /// A slave's MAC was set by hand, and stays.
    SlaveMacTaken {
        slave: String,
        mac: Mac,
    },
    /// The bond's MAC was set by hand, and all slaves follow (`bond_set_mac_address`, none).
    BondMacTaken {
        mac: Mac,
    },
    /// The bond's MAC was set by hand to this one, which the policy leaves to the slaves: it is put back
    /// (`bond_set_mac_address`, active and follow).
    BondMacPutBack {
        mac: Mac,
    },
    /// The active slave has sent frames and heard nothing addressed to it since it became active.
    NoUnicast {
        slave: String,
        sent: u64,
    },
    /// It does hear something now.
    HeardAgain {
        slave: String,
    },
    /// A released slave's MAC is still the bond's, or another slave's (`__bond_release_one`).
    ReleasedMacInUse {
        slave: String,
        mac: Mac,
    },
}

/// Why another slave became active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The active slave's link failed.
    LinkFailed,
    /// The data plane found the active slave's device without a link, and had failed over before the engine knew.
    CarrierGuard,
    /// A slave's link came back, and it is a better choice, or there was none.
    LinkRecovered,
    /// The active slave was released, or vanished.
    Left,
    /// A slave joined.
    Joined,
    /// `active_slave` was set by hand.
    Requested,
    /// An option changed: `primary`, `primary_reselect`, `prio`, or `active_slave` was cleared.
    OptionChanged,
}

impl Reason {
    pub const ALL: [Self; 7] = [
        Self::LinkFailed,
        Self::CarrierGuard,
        Self::LinkRecovered,
        Self::Left,
        Self::Joined,
        Self::Requested,
        Self::OptionChanged,
    ];
}

/// What showed that another slave has to be active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// A netlink event of a slave.
    LinkEvent,
    /// A look at the links, made every `miimon`.
    Miimon,
    /// `updelay` or `downdelay` ran out.
    Delay,
    /// A step of the ARP monitor, made every `arp_interval`.
    ArpMonitor,
    /// Somebody asked for it, or for what it follows from.
    Request,
    SlaveJoined,
    SlaveLeft,
    /// The data plane's guard found the active slave's device dead, and had switched already.
    Guard,
}

/// Why this slave was chosen, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chosen {
    /// It is the primary.
    Primary,
    /// Its prio is the highest of those that are up, or it is the first of these.
    Prio,
    /// It is the first in enslave order of those that are up, and no prio says otherwise.
    FirstEnslaved,
    /// No other is up.
    OnlyOneUp,
    /// It is faster than the active slave, which primary_reselect=better asks for.
    Better,
    /// Nothing is up: of those in updelay it has the least left, and is used early.
    UsedEarly,
    /// It was active, and nothing is better.
    Kept,
    /// An administrator named it. Records of former versions call it by_hand.
    #[serde(alias = "by_hand")]
    Administrator,
    /// The data plane's guard took the first of its rank that was alive.
    Guard,
}
