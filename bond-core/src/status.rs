//! The state of a bond, for reports.

use std::fmt;

use bond_common::mac::Mac;

use crate::{
    Time,
    damping::{Damping, Penalty},
    event::{Duplex, Speed},
    options::{BondOptions, SlaveOptions},
};

/// A bond at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct BondStatus {
    /// The MAC address that the bond has, or will have when all commands are executed.
    pub mac: Mac,
    /// Whether the MII status of any slave is up (`bond_set_carrier`).
    pub carrier: bool,
    /// The name of the active slave, None if there is none.
    pub active_slave: Option<String>,
    /// The options in force.
    pub options: BondOptions,
    /// All slaves, in enslave order.
    pub slaves: Vec<SlaveStatus>,
}

/// A decision of the engine that is not carried out yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// An election waits until the speed of a slave has been read.
    Election,
    /// The bond's MAC is being changed to this one.
    BondMac(Mac),
    /// The MAC address of a slave is being changed.
    SlaveMac {
        /// The name of the slave.
        slave: String,
        /// The address that it will have.
        mac: Mac,
    },
    /// The active slave is not announced yet.
    Announcement,
    /// A drained slave still delivers what peers sent to it.
    Draining {
        /// The name of the slave.
        slave: String,
    },
}

/// A slave at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SlaveStatus {
    /// The index of the slave in the maps, 0 to 15.
    pub slot: u8,
    /// The name of the interface.
    pub name: String,
    /// The index of the interface.
    pub ifindex: u32,
    /// Whether the slave is active.
    pub state: SlaveState,
    /// The state of its link, as the driver reports it.
    pub mii_status: MiiStatus,
    /// The MAC address that the slave has, or will have when all commands are executed.
    pub mac: Mac,
    /// The MAC address that the slave had before it was enslaved.
    pub permanent_mac: Mac,
    /// The number of changes of the MII status to down.
    pub link_failure_count: u32,
    /// The speed in Mbit/s.
    pub speed: Speed,
    /// The duplex mode.
    pub duplex: Duplex,
    /// The options of the slave.
    pub options: SlaveOptions,
    /// Whether the administrator has drained the slave.
    pub drained: bool,
    /// What damping has counted; None if damping is off, or the link has not failed since it is on.
    pub damping: Option<SlaveDamping>,
    /// Whether the path monitor found that its path does not work.
    pub path_failed: bool,
    /// The number of frames sent since the slave became active, if it has received no unicast since then.
    pub no_unicast: Option<u64>,
}

impl SlaveStatus {
    /// Returns whether the slave is suppressed because its link flaps.
    pub fn is_damped(&self) -> bool {
        self.damping.is_some_and(|damping| damping.suppressed_since.is_some())
    }
}

/// What damping has counted of a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlaveDamping {
    /// What the link failures add up to.
    pub penalty: Penalty,
    /// The settings in force.
    pub settings: Damping,
    /// When the slave was suppressed; None if it is not.
    pub suppressed_since: Option<Time>,
}

impl SlaveDamping {
    /// Returns the penalty at `now`, in failures.
    pub fn penalty_at(&self, now: Time) -> f64 {
        f64::from(self.penalty.at(now, self.settings)) / 1000.0
    }

    /// Returns when the slave is used like the others again if its link does not fail until then; None if it is not suppressed.
    pub fn reuse_at(&self) -> Option<Time> {
        self.suppressed_since.map(|_| self.penalty.reuse_at(self.settings))
    }
}

/// The driver's `state` of a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveState {
    /// The slave transmits and receives (BOND_STATE_ACTIVE).
    Active,
    /// The slave does neither (BOND_STATE_BACKUP).
    Backup,
}

impl fmt::Display for SlaveState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Backup => "backup",
        })
    }
}

/// The driver's `link` of a slave, in the words of `bond_slave_link_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MiiStatus {
    /// The slave is usable (BOND_LINK_UP).
    Up,
    /// The link failed, and `downdelay` has not passed (BOND_LINK_FAIL).
    GoingDown,
    /// The slave is not usable (BOND_LINK_DOWN).
    Down,
    /// The link recovered, and `updelay` has not passed (BOND_LINK_BACK).
    GoingBack,
}

impl MiiStatus {
    /// All states, in the order of the driver's numbers.
    pub const ALL: [Self; 4] = [Self::Up, Self::GoingDown, Self::Down, Self::GoingBack];
}

impl fmt::Display for MiiStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "up",
            Self::GoingDown => "going down",
            Self::Down => "down",
            Self::GoingBack => "going back",
        })
    }
}
