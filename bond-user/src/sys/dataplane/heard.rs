//! The map of stations that the active slave has heard since a failover.

use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, Map, MapData, MapError};
use bond_common::{
    heard::{FirstHeard, MOST_HEARD},
    mac::Mac,
    names,
};

use super::DataPlaneError;

/// Reads and clears HEARD.
pub trait HeardMap: Send + Sync {
    /// Returns all entries, in any order. Those that change meanwhile may be missing.
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    fn read(&self) -> Result<Vec<(Mac, FirstHeard)>, DataPlaneError>;

    /// Removes all entries, as far as the kernel allows it: entries of an earlier failover count for no other one.
    fn clear(&self);
}

/// HEARD.
pub(super) struct KernelHeard(Mutex<HashMap<MapData, u64, FirstHeard>>);

impl KernelHeard {
    pub(super) fn of_map(map: Map) -> Result<Self, DataPlaneError> {
        HashMap::try_from(map).map(Mutex::new).map(Self).map_err(failed)
    }
}

impl HeardMap for KernelHeard {
    fn read(&self) -> Result<Vec<(Mac, FirstHeard)>, DataPlaneError> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Vec::new();
        // An iteration whose last key was removed begins again.
        for key in map.keys().take(2 * MOST_HEARD) {
            let key = key.map_err(failed)?;
            match map.get(&key, 0) {
                Ok(heard) => found.push((Mac::from_word(key), heard)),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(found)
    }

    fn clear(&self) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<_> = map.keys().take(2 * MOST_HEARD).flatten().collect();
        for key in keys {
            let _ = map.remove(&key);
        }
    }
}

fn failed(source: MapError) -> DataPlaneError {
    DataPlaneError::Map { name: names::HEARD, source }
}
