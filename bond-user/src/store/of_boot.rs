//! Lists in files of the run directory that are of one boot of the machine: what they name are others after the next.

use std::{io, path::PathBuf};

use serde::{Serialize, de::DeserializeOwned};

use super::{StoreError, paths};
use crate::sys::directory::{Location, Trust};

/// The contents of such a file.
pub trait OfBoot: Serialize + DeserializeOwned {
    /// The name of the file in the run directory.
    const FILE: &'static str;
    /// The version of its form.
    const VERSION: u32;
    type Item;

    fn new(version: u32, boot: Option<String>, list: Vec<Self::Item>) -> Self;

    /// Returns the version, the boot, and the list.
    fn parts(self) -> (u32, Option<String>, Vec<Self::Item>);
}

fn path<C: OfBoot>(place: &Location) -> PathBuf {
    place.path().join(C::FILE)
}

/// Reads the list; it is empty if there is no file, or one of another boot.
///
/// # Errors
/// The file cannot be read, or is not one that an agent has written.
pub fn read<C: OfBoot>(place: &Location, trust: Trust) -> Result<Vec<C::Item>, StoreError> {
    let text = match place.open(trust).and_then(|directory| directory.read(C::FILE, trust)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(StoreError::File { path: path::<C>(place), source }),
    };
    let contents: C = serde_json::from_slice(&text)
        .map_err(|error| StoreError::BadRecord { path: path::<C>(place), problem: error.to_string() })?;
    let (found, boot, list) = contents.parts();
    if found != C::VERSION {
        return Err(StoreError::OtherRecord { path: path::<C>(place), found, wanted: C::VERSION });
    }
    Ok(if boot == paths::boot_id() { list } else { Vec::new() })
}

/// Writes the list; without items there is no file.
///
/// # Errors
/// The file cannot be written.
pub fn write<C: OfBoot>(place: &Location, list: Vec<C::Item>) -> Result<(), StoreError> {
    let write = || {
        let directory = place.open(Trust::Ours)?;
        if list.is_empty() {
            return directory.remove_file(C::FILE);
        }
        directory.replace(C::FILE, &serde_json::to_vec(&C::new(C::VERSION, paths::boot_id(), list))?)
    };
    write().map_err(|source| StoreError::File { path: path::<C>(place), source })
}
