//! The map of MAC addresses behind the bond.

use std::collections::BTreeMap;

use aya::maps::{HashMap, Map, MapData, MapError};
use bond_common::{
    behind::{BehindEntry, BehindKey, MOST_BEHIND},
    names,
};

use super::DataPlaneError;

/// The entries that each CPU keeps free for itself (LOCAL_FREE_TARGET of the kernel). Those of other CPUs serve none of its
/// insertions: without room for them a map evicts while most of it is free.
const FREE_PER_CPU: u32 = 128;

/// Returns the number of entries that BEHIND is created with.
pub(super) fn entries() -> u32 {
    let cpus = aya::util::nr_cpus().unwrap_or(1);
    MOST_BEHIND as u32 + FREE_PER_CPU * u32::try_from(cpus).unwrap_or(1)
}

/// Reads the MAC addresses behind the bond.
pub trait BehindMap: Send + Sync {
    /// Returns all entries, in any order. Those that change during the dump may be missing.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    fn read(&self) -> Result<Vec<(BehindKey, BehindEntry)>, DataPlaneError>;
}

/// BEHIND.
pub(super) struct KernelBehind(HashMap<MapData, BehindKey, BehindEntry>);

impl KernelBehind {
    pub(super) fn of_map(map: Map) -> Result<Self, DataPlaneError> {
        HashMap::try_from(map).map(Self).map_err(failed)
    }
}

impl BehindMap for KernelBehind {
    fn read(&self) -> Result<Vec<(BehindKey, BehindEntry)>, DataPlaneError> {
        let mut found = BTreeMap::new();
        // An iteration whose last key was removed begins again, so it may return more keys than there are.
        for key in self.0.keys().take(2 * entries() as usize) {
            let key = key.map_err(failed)?;
            match self.0.get(&key, 0) {
                Ok(entry) => drop(found.insert(key, entry)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(found.into_iter().collect())
    }
}

fn failed(source: MapError) -> DataPlaneError {
    DataPlaneError::Map { name: names::BEHIND, source }
}
