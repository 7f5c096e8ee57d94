//! What is pinned of a bond: the names of its pins, what they say, and how they are removed.

use std::{io, os::fd::AsFd as _};

use aya::{
    maps::{DevMap, Map, MapData, MapError},
    programs::{ProgramInfo, TcAttachType, tc},
};
use bond_common::{
    abi::{ABI_ADOPTED, ABI_VERSION, PORT_STATS, Slot},
    mac::Mac,
    names,
};

use super::{
    Attachment, DataPlaneError, DeviceLink, Fault, Hook, Maps, Port, Unfit, attach::error_chain, netkit,
};
use crate::sys::directory::{Directory, Location, Trust};

/// The beginnings of the pins' names.
pub(super) const PORT_PIN: &str = "port_tx";
/// The port's program where bond0 sends: its link is pinned.
pub(super) const BOND_PIN: &str = "bond_tx";
pub(super) const BOND_LINK_PIN: &str = "bond_tx_link";

/// At the egress of the pair's ends.
pub(super) const PORT_EGRESS_PIN: &str = "port_egress";
pub(super) const BOND_EGRESS_PIN: &str = "bond_egress";

/// The tick.
pub(super) const TICK_PIN: &str = "tick";
/// The path monitor, which runs behind the tick.
pub(super) const TICK_PATH_PIN: &str = "tick_path";

pub(super) fn slave_pin(slot: Slot) -> String {
    format!("slave{}_rx", slot.index())
}

pub(super) fn local_pin(slot: Slot) -> String {
    format!("slave{}_local", slot.index())
}

/// Returns what is under `dir`, to be checked before anything is changed.
///
/// # Errors
/// A pin that exists cannot be opened or read. Missing or unsuitable maps are no error, but the inner result.
pub fn left(dir: &Location) -> Result<Result<Maps, Unfit>, DataPlaneError> {
    let pins = match whole(dir)? {
        Ok(pins) => pins,
        Err(unfit) => return Ok(Err(unfit)),
    };
    match Maps::abi_version(&pins)? {
        ABI_ADOPTED..=ABI_VERSION => Maps::open_in(&pins).map(Ok),
        other => Ok(Err(Unfit::OtherVersion(other))),
    }
}

/// The directory, if the pins of all maps and of the port's program are in it.
pub(super) fn whole(dir: &Location) -> Result<Result<Directory, Unfit>, DataPlaneError> {
    let pins = match open(dir) {
        Err(DataPlaneError::Pin { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Err(Unfit::NoPort));
        }
        answer => answer?,
    };
    // It comes after the maps, of which there may be some only as long as it is not there.
    if !pins.has(&format!("{PORT_PIN}_{}", names::PROGRAM_PIN)) {
        return Ok(Err(Unfit::NoPort));
    }
    // Those of a later version are created when the bond is adopted.
    let needed = names::PINNED_MAPS.into_iter().filter(|name| !names::LATER_MAPS.contains(name));
    if let Some(missing) = needed.into_iter().find(|name| !pins.has(name)) {
        return Ok(Err(Unfit::NoMap(missing)));
    }
    Ok(Ok(pins))
}

/// Programs under `dir` whose pinned links have no device any more, or another one, or run another program.
pub(super) fn detached(dir: &Location, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Vec<Fault> {
    let pins = match dir.open(Trust::Anyones) {
        Ok(pins) => pins,
        // Pins that are gone are named by `lost_programs`.
        Err(error) if is_absence(&error) => return Vec::new(),
        Err(error) => {
            return vec![Fault::Unknown { what: dir.path().display().to_string(), why: error.to_string() }];
        }
    };
    let program = |pin: &str| {
        let program = netkit::open(&pins.path_of(&format!("{pin}_{}", names::PROGRAM_PIN))).ok()?;
        netkit::number_of_program(program.as_fd()).ok()
    };
    let mut faults = Vec::new();
    let mut check = |pin: &str, of_program: &str, device: &str, ifindex: Option<u32>| {
        let name = format!("{pin}_{}", names::LINK_PIN);
        let device = || device.to_owned();
        let fault = match DeviceLink::read(&pins.path_of(&name)) {
            Ok(None) => None,
            Ok(Some(link)) if ifindex.map_or(link.ifindex == 0, |ifindex| link.ifindex != ifindex) => {
                Some(Fault::Detached { device: device() })
            }
            Ok(Some(link)) if program(of_program).is_some_and(|program| program != link.program) => {
                Some(Fault::Replaced { device: device() })
            }
            Ok(Some(_)) => None,
            Err(why) => Some(Fault::Unknown { what: name, why: why.to_string() }),
        };
        faults.extend(fault);
    };
    check(PORT_PIN, PORT_PIN, port.device, Some(port.ifindex));
    // bond0 may have another ifindex in another namespace.
    check(BOND_PIN, PORT_PIN, port.device, None);
    check(PORT_EGRESS_PIN, PORT_EGRESS_PIN, port.device, Some(port.ifindex));
    if let Some(bond) = port.bond {
        check(BOND_EGRESS_PIN, BOND_EGRESS_PIN, bond, None);
    }
    for slave in slaves {
        for pin in [slave_pin(slave.slot), local_pin(slave.slot)] {
            check(&pin, &pin, slave.device, Some(slave.ifindex));
        }
    }
    // Several of a device are attached again together.
    faults.dedup();
    faults
}

/// Whether an entry of a device map is not the one that is wanted.
pub(super) fn changed(map: &DevMap<MapData>, name: &'static str, key: u32, ifindex: u32) -> Option<Fault> {
    match map.get(key, 0) {
        Ok(entry) if entry.if_index == ifindex && entry.prog_id.is_none() => None,
        Ok(_) | Err(MapError::KeyNotFound) => Some(Fault::DeviceMap { map: name, key }),
        Err(error) => Some(Fault::Unknown { what: name.to_owned(), why: error_chain(&error) }),
    }
}

/// What is wrong with the data plane under `dir`, of which no agent takes care. `port` has the ifindex of bond0 where
/// that is in this namespace and the pair is a netkit.
pub fn faults(dir: &Location, port: &Port<'_>, slaves: &[Attachment<'_>]) -> Vec<Fault> {
    let mut faults = detached(dir, port, slaves);
    let is_xdp = pinned_hook(dir).is_some_and(|hook| hook != Hook::Tc);
    let pins = dir.open(Trust::Anyones).ok();
    let open = |name: &'static str| {
        let data = MapData::from_pin(pins.as_ref()?.path_of(name)).ok()?;
        DevMap::try_from(Map::DevMap(data)).ok()
    };
    if let Some(map) = Some(names::RX_PORT).filter(|_| is_xdp).and_then(open) {
        faults.extend(changed(&map, names::RX_PORT, 0, port.ifindex));
    }
    if let Some(map) = Some(names::TX_PORTS).filter(|_| is_xdp).and_then(open) {
        for slave in slaves {
            let key = slave.slot.index() as u32;
            faults.extend(changed(&map, names::TX_PORTS, key, slave.ifindex));
        }
    }
    faults
}

/// Which hooks carry a bond's packets, by the program that is pinned for its port; None if there is none of ours.
/// Native and generic XDP have the same program: it is reported as native.
pub fn pinned_hook(dir: &Location) -> Option<Hook> {
    let pins = dir.open(Trust::Anyones).ok()?;
    let info = ProgramInfo::from_pin(pins.path_of(&format!("{PORT_PIN}_{}", names::PROGRAM_PIN))).ok()?;
    let name = info.name_as_str()?;
    [Hook::Tc, Hook::Xdp].into_iter().find(|hook| hook.port_program().starts_with(name))
}

/// Without pins nothing but an agent holds a bond.
///
/// # Errors
/// [`DataPlaneError::Unpinned`] if they are gone; any other if they could not be checked, as without a free
/// descriptor: nothing is known of them then.
pub fn check_pins(dir: &Location) -> Result<(), DataPlaneError> {
    match dir.open(Trust::Ours) {
        Ok(pins) if pins.has(names::ACTIVE) => Ok(()),
        Err(source) if !is_absence(&source) => Err(DataPlaneError::Pin { path: dir.path(), source }),
        _ => Err(DataPlaneError::Unpinned(dir.path())),
    }
}

/// Whether a directory could not be opened because there is none. Any other error says nothing about what is in it.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Pins of links that are not there, and have taken their programs from their hooks: of the port and of the slaves in these
/// slots. Where programs are filters there are no links.
pub fn lost_programs(dir: &Location, slots: impl Iterator<Item = Slot>) -> Vec<String> {
    let pins = [PORT_PIN.to_owned()].into_iter().chain(slots.map(slave_pin));
    let links: Vec<_> = pins.map(|pin| format!("{pin}_{}", names::LINK_PIN)).collect();
    let found = dir.open(Trust::Anyones).ok();
    let is_there = |link: &String| found.as_ref().is_some_and(|pins| pins.has(link));
    let (there, lost): (Vec<_>, Vec<_>) = links.into_iter().partition(is_there);
    if there.is_empty() { Vec::new() } else { lost }
}

/// What of a bond's pins is still at a device.
#[expect(missing_docs, reason = "the fields say what they are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The program of this pin is attached to the device with this ifindex, in whichever network namespace that is.
    Attached { pin: String, ifindex: u32 },
    /// The device map of this name has an entry: its device exists.
    Device { map: &'static str },
    /// Every link that is pinned has lost its device, and no device map has an entry.
    Nothing,
    /// There is no link that could say it: the bond was never complete, or its programs are filters of clsact.
    Unknown,
}

/// Reads what of the pins in `dir` is still at a device. The device maps are asked first: the kernel takes RTNL to
/// answer for a link.
///
/// # Errors
/// A pin cannot be read: nothing is known then.
pub fn hold(dir: &Directory) -> io::Result<Hold> {
    for (name, keys) in [(names::RX_PORT, 1), (names::TX_PORTS, PORT_STATS)] {
        if !dir.has(name) {
            continue;
        }
        let data = MapData::from_pin(dir.path_of(name)).map_err(io::Error::other)?;
        let map = DevMap::try_from(Map::DevMap(data)).map_err(io::Error::other)?;
        for key in 0..keys {
            match map.get(key, 0) {
                Ok(_) => return Ok(Hold::Device { map: name }),
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(io::Error::other(error_chain(&error))),
            }
        }
    }
    let mut links = 0;
    for (pin, _) in dir.entries()?.into_iter().filter(|(pin, _)| pin.ends_with(names::LINK_PIN)) {
        match DeviceLink::read(&dir.path_of(&pin))? {
            Some(DeviceLink { ifindex: 0, .. }) => links += 1,
            Some(DeviceLink { ifindex, .. }) => return Ok(Hold::Attached { pin, ifindex }),
            None => {}
        }
    }
    Ok(if links > 0 { Hold::Nothing } else { Hold::Unknown })
}

/// Programs of a bond, by their pins.
#[derive(Clone, Debug, Default)]
pub struct Pinned {
    /// What attaches them.
    pub links: Vec<DeviceLink>,
    /// All of them, as `bpftool prog show id` takes them: where programs are filters there are no links.
    pub programs: Vec<u32>,
}

impl Pinned {
    /// Reads the pins under `dir`. What is not there, or cannot be read, is left out.
    pub fn read(dir: &Location) -> Self {
        let Ok(pins) = dir.open(Trust::Ours) else { return Self::default() };
        let mut pinned = Self::default();
        for (name, _) in pins.entries().unwrap_or_default() {
            let path = pins.path_of(&name);
            if name.ends_with(names::LINK_PIN) {
                pinned.links.extend(DeviceLink::read(&path).ok().flatten());
            } else if name.ends_with(names::PROGRAM_PIN) {
                pinned.programs.extend(ProgramInfo::from_pin(path).map(|info| info.id()));
            }
        }
        pinned
    }
}

/// Takes xbond's filters away from a device.
pub fn detach_filters(device: &str) {
    for name in [names::TC_PORT_TX, names::TC_SLAVE_RX, names::TC_SLAVE_LOCAL] {
        // All but one of them are not there, nor is any on a device that was not reached.
        let _ = tc::qdisc_detach_program(device, TcAttachType::Ingress, name);
    }
}

/// Removes the pins of a bond, and with the links' pins the programs from their hooks.
///
/// # Errors
/// An entry cannot be removed ([`DataPlaneError::Pin`]); those before it are removed.
pub fn remove_pins(dir: &Location) -> Result<(), DataPlaneError> {
    dir.remove_all().map_err(|source| DataPlaneError::Pin { path: dir.path(), source })
}

/// Removes what pins one program and its link.
pub(super) fn remove_pins_of(dir: &Directory, pin: &str) -> Result<(), DataPlaneError> {
    for end in [names::LINK_PIN, names::PROGRAM_PIN] {
        remove_pin(dir, &format!("{pin}_{end}"))?;
    }
    Ok(())
}

/// To act upon what is pinned there.
pub(super) fn open(dir: &Location) -> Result<Directory, DataPlaneError> {
    dir.open(Trust::Ours).map_err(|source| DataPlaneError::Pin { path: dir.path(), source })
}

pub(super) fn remove_pin(dir: &Directory, name: &str) -> Result<(), DataPlaneError> {
    dir.remove_file(name).map_err(|source| DataPlaneError::Pin { path: dir.shown(name), source })
}

/// Returns the MAC address that a bond without bond0 has learned; zero if it has learned none yet.
///
/// # Errors
/// The pin of the map cannot be opened, or the map cannot be read.
pub fn learned(dir: &Location) -> Result<Mac, DataPlaneError> {
    let error = |source| DataPlaneError::Map { name: names::LEARNED, source };
    let data = MapData::from_pin(open(dir)?.path_of(names::LEARNED)).map_err(error)?;
    let map = aya::maps::Array::<_, u64>::try_from(Map::Array(data)).map_err(error)?;
    map.get(&0, 0).map(Mac::from_word).map_err(error)
}
