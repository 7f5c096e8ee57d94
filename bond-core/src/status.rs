//! The state of a bond, for people and programs to read.

use std::fmt;

use bond_common::mac::Mac;

use crate::{
    event::{Duplex, Speed},
    options::{BondOptions, SlaveOptions},
};

/// A bond at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct BondStatus {
    pub mac: Mac,
    /// Any slave's MII status is up (`bond_set_carrier`).
    pub carrier: bool,
    /// Name of the active slave.
    pub active_slave: Option<String>,
    pub options: BondOptions,
    /// In enslave order.
    pub slaves: Vec<SlaveStatus>,
}

/// Something that the engine has decided and that is not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// An election waits until the speed of a slave has been read.
    Election,
    /// The bond's MAC is being changed to this one.
    BondMac(Mac),
    /// A slave's MAC is being changed to this one.
    SlaveMac { slave: String, mac: Mac },
    /// The active slave is not announced yet.
    Announcement,
}

/// A slave at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct SlaveStatus {
    /// Its place in the maps.
    pub slot: u8,
    pub name: String,
    pub ifindex: u32,
    pub state: SlaveState,
    pub mii_status: MiiStatus,
    pub mac: Mac,
    pub permanent_mac: Mac,
    /// How often the link went down for good.
    pub link_failure_count: u32,
    pub speed: Speed,
    pub duplex: Duplex,
    pub options: SlaveOptions,
    /// Frames sent since it became active, if it has heard nothing addressed to it since.
    pub no_unicast: Option<u64>,
}

/// The driver's `state` of a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlaveState {
    Active,
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

/// BOND_LINK_UP, FAIL, DOWN, BACK, in the driver's words (`bond_slave_link_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MiiStatus {
    Up,
    GoingDown,
    Down,
    GoingBack,
}

impl MiiStatus {
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
