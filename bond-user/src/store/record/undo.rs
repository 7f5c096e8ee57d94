//! Removing a bond that no agent manages.

use std::io;

use bond_common::abi::Slot;
use bond_core::name::{BondName, shell_word};

use super::Record;
use crate::{
    report::wording,
    store::{StoreError, paths::Paths},
    sys::{
        Devices, KernelDevices, caps,
        dataplane::{BpfPins, Pins},
        directory::{Location, Trust},
    },
};

/// What a bond is restored with.
#[derive(Clone, Copy)]
pub struct System<'a> {
    pub devices: &'a dyn Devices,
    pub pins: &'a dyn Pins,
}

/// Takes a bond away that no agent looks after: pins, devices, files. Returns what should be known about it.
pub async fn undo(paths: &Paths, bond: &BondName, system: &System<'_>) -> Result<Vec<String>, StoreError> {
    let pins = paths.pins_of(bond);
    let (record, fault) = match Record::read(paths, bond, Trust::Ours) {
        Ok(record) => (record, None),
        // The record is complete, and another version of xbond can undo the bond from it.
        Err(error @ StoreError::OtherRecord { .. }) => return Err(error),
        // The directory belongs to another user, or is a link: nothing there is acted upon.
        Err(error) if is_foreign(&paths.run_of(bond)) => return Err(error),
        Err(error) => (None, Some(error.to_string())),
    };
    let commands = if record.is_none() { by_hand(&pins, system).await } else { Vec::new() };
    let mut notes = match &record {
        Some(record) => record.absent(system.devices).await.iter().map(wording::not_here).collect(),
        None => Vec::new(),
    };
    let proof = match &record {
        Some(record) => Some(record.prove(system, &pins).await),
        None => None,
    };
    if record.is_none() {
        system.pins.remove(&pins)?;
    }
    if let (Some(mut record), Some(proof)) = (record, proof) {
        let detach = async || {
            system.pins.remove(&pins)?;
            // No pin holds them.
            record.detach_filters(system, &proof).await;
            Ok(())
        };
        let answer = record.restore(system.devices, &proof, detach).await;
        let strangers = record.settle(answer)?;
        notes.extend(strangers.iter().map(|stranger| wording::unconfirmed(bond, &stranger.name)));
    }
    paths.forget(bond);
    if commands.is_empty() && fault.is_none() {
        return Ok(notes);
    }
    let fault = fault.unwrap_or_else(|| "it is missing".to_owned());
    let commands = if commands.is_empty() { "ip -d link".to_owned() } else { commands.join("; ") };
    Err(StoreError::NoRecord { bond: bond.to_string(), fault, commands })
}

/// Returns whether a directory exists that may not be acted upon.
fn is_foreign(place: &Location) -> bool {
    place.open(Trust::Ours).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

/// What is left to do of a bond whose record is gone, as far as its maps tell.
async fn by_hand(pins: &Location, system: &System<'_>) -> Vec<String> {
    let devices = system.devices;
    let Ok(Ok(maps)) = system.pins.left(pins) else { return Vec::new() };
    let mut commands = Vec::new();
    if let Ok(port) = devices.link_by_index(maps.bond().port_ifindex()).await
        && port.is_end_of_pair()
    {
        commands.push(format!("ip link delete {}", shell_word(&port.name)));
    }
    for entry in Slot::all().map(|slot| maps.slave(slot)).filter(|entry| entry.ifindex() != 0) {
        let Ok(link) = devices.link_by_index(entry.ifindex()).await else { continue };
        if link.mac != entry.permanent_mac() {
            commands.push(format!(
                "ip link set {} address {}",
                shell_word(&link.name),
                entry.permanent_mac()
            ));
        }
        commands.push(format!(
            "ip link set {} promisc off allmulticast off addrgenmode eui64",
            shell_word(&link.name)
        ));
    }
    commands
}

/// Removes a bond that an agent left behind, while none runs. Returns a sentence for each fact that the administrator
/// should know.
///
/// # Errors
/// An agent runs, there is no such bond, or something could not be restored.
pub fn undo_without_agent(paths: &Paths, bond: &BondName) -> Result<Vec<String>, StoreError> {
    caps::check()?;
    paths.act_as_their_owner()?;
    let _claim = paths.claim()?;
    if !paths.has(bond) {
        paths.leave();
        return Err(StoreError::NothingLeft(bond.to_string()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(StoreError::Runtime)?;
    let notes = runtime.block_on(async {
        let system = System { devices: &KernelDevices::open()?, pins: &BpfPins };
        undo(paths, bond, &system).await
    })?;
    paths.leave();
    Ok(notes)
}
