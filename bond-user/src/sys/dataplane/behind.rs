//! The map of MAC addresses behind the bond.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    maps::{HashMap, Map, MapData, MapError},
    sys::SyscallError,
};
use bond_common::{
    behind::{BehindEntry, BehindKey, MOST_BEHIND},
    names,
};
use nix::errno::Errno;

use super::DataPlaneError;

/// The entries that each CPU keeps free for itself (LOCAL_FREE_TARGET of the kernel). Those of other CPUs serve none of its
/// insertions: without room for them a map evicts while most of it is free.
const FREE_PER_CPU: u32 = 128;

/// Returns the number of entries that BEHIND is created with.
pub(super) fn entries() -> u32 {
    let cpus = aya::util::nr_cpus().unwrap_or(1);
    MOST_BEHIND as u32 + FREE_PER_CPU * u32::try_from(cpus).unwrap_or(1)
}

/// The MAC addresses behind the bond.
pub trait BehindMap: Send + Sync {
    /// Returns all entries, in any order. Those that change during the dump may be missing.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    fn read(&self) -> Result<Vec<(BehindKey, BehindEntry)>, DataPlaneError>;

    /// Adds an entry; one that is there stays as it is.
    ///
    /// # Errors
    /// The kernel refuses to write the map.
    fn add(&self, key: &BehindKey, entry: &BehindEntry) -> Result<(), DataPlaneError>;
}

/// BEHIND.
pub(super) struct KernelBehind(Mutex<HashMap<MapData, BehindKey, BehindEntry>>);

impl KernelBehind {
    pub(super) fn of_map(map: Map) -> Result<Self, DataPlaneError> {
        HashMap::try_from(map).map(Mutex::new).map(Self).map_err(failed)
    }

    fn map(&self) -> MutexGuard<'_, HashMap<MapData, BehindKey, BehindEntry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BehindMap for KernelBehind {
    fn read(&self) -> Result<Vec<(BehindKey, BehindEntry)>, DataPlaneError> {
        let map = self.map();
        let mut found = BTreeMap::new();
        // An iteration whose last key was removed begins again, so it may return more keys than there are.
        for key in map.keys().take(2 * entries() as usize) {
            let key = key.map_err(failed)?;
            match map.get(&key, 0) {
                Ok(entry) => drop(found.insert(key, entry)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(found.into_iter().collect())
    }

    fn add(&self, key: &BehindKey, entry: &BehindEntry) -> Result<(), DataPlaneError> {
        const ONLY_NEW: u64 = 1;
        match self.map().insert(key, entry, ONLY_NEW) {
            Err(MapError::SyscallError(SyscallError { io_error, .. }))
                if io_error.raw_os_error() == Some(Errno::EEXIST as i32) =>
            {
                Ok(())
            }
            answer => answer.map_err(failed),
        }
    }
}

fn failed(source: MapError) -> DataPlaneError {
    DataPlaneError::Map { name: names::BEHIND, source }
}
