//! takeovers.json in the run directory of a network namespace: how far each takeover of a bond of the driver is, so that
//! the next agent leads the host back, or onwards.
//!
//! It is not in the bonds' directories, because those end with their bonds.

use std::sync::{Mutex, PoisonError};

use bond_core::name::{BondName, InterfaceName};
use serde::{Deserialize, Serialize};

use crate::{
    store::{
        StoreError,
        of_boot::{self, OfBoot},
        paths::Paths,
        record::Trial,
    },
    sys::{
        directory::Trust,
        handover::{DriverSlaveOptions, Twin},
    },
};

/// Held while the file is read and written again.
static CHANGING: Mutex<()> = Mutex::new(());

/// How far a takeover is. Each is written before what it says is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeoverStage {
    /// The driver's devices are made, for a bond that goes to the driver. Until they are, nothing else is changed.
    Offering,
    /// A backup leaves the driver and is tried.
    Releasing,
    /// xbond's bond is made, without slaves and under another name, and has everything that the driver's has.
    Preparing,
    /// The backup becomes the active slave of xbond's bond.
    Joining,
    /// Packets are sent by xbond's bond.
    TurningOver,
    /// Names are exchanged.
    Renaming,
    /// The other slaves follow.
    Following,
    /// It waits for a confirmation.
    OnTrial,
    /// The driver's bond is removed: there is no way back by this record.
    Finishing,
}

/// A NIC of the bond that is taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenNic {
    /// Its name.
    pub name: InterfaceName,
    /// Its ifindex.
    pub ifindex: u32,
    /// Its options in the driver.
    pub options: DriverSlaveOptions,
}

/// A bond of the driver that becomes one of xbond's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeoverRecord {
    /// The name of the bond.
    pub bond: BondName,
    /// How far it is.
    pub stage: TakeoverStage,
    /// xbond's bond, as in a file.
    pub toml: String,
    /// The backup that goes first.
    pub first: TakenNic,
    /// The other slaves: the active one, then backups.
    pub others: Vec<TakenNic>,
    /// The bond, then what is above it, each after the device below it.
    pub twins: Vec<Twin>,
    /// Until when it may be confirmed.
    pub trial: Option<Trial>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    /// Interfaces are others after the next boot.
    boot: Option<String>,
    takeovers: Vec<TakeoverRecord>,
}

impl OfBoot for Contents {
    const FILE: &'static str = "takeovers.json";
    const VERSION: u32 = 1;
    type Item = TakeoverRecord;

    fn new(version: u32, boot: Option<String>, takeovers: Vec<TakeoverRecord>) -> Self {
        Self { version, boot, takeovers }
    }

    fn parts(self) -> (u32, Option<String>, Vec<TakeoverRecord>) {
        (self.version, self.boot, self.takeovers)
    }
}

/// Returns the takeovers that have not ended.
///
/// # Errors
/// The file cannot be read, or was not written by an agent.
pub fn read(paths: &Paths, trust: Trust) -> Result<Vec<TakeoverRecord>, StoreError> {
    of_boot::read::<Contents>(paths.run_root(), trust)
}

/// Writes how far a takeover is.
///
/// # Errors
/// The file cannot be read or written; it is unchanged then.
pub fn put(paths: &Paths, takeover: &TakeoverRecord) -> Result<(), StoreError> {
    change(paths, &takeover.bond, Some(takeover.clone()))
}

/// Removes a takeover that has ended.
///
/// # Errors
/// The file cannot be read or written; it is unchanged then.
pub fn remove(paths: &Paths, bond: &BondName) -> Result<(), StoreError> {
    change(paths, bond, None)
}

fn change(paths: &Paths, bond: &BondName, new: Option<TakeoverRecord>) -> Result<(), StoreError> {
    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut takeovers = read(paths, Trust::Ours)?;
    takeovers.retain(|known| known.bond != *bond);
    takeovers.extend(new);
    of_boot::write::<Contents>(paths.run_root(), takeovers)
}
