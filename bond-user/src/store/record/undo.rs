//! Removing a bond that no agent manages.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use bond_common::{abi::Slot, mac::Mac};
use bond_core::name::{BondName, shell_word};

use super::Record;
use crate::{
    report::wording::{self, NameHere},
    store::{StoreError, drains::Drains, elsewhere, paths::Paths},
    sys::{
        Devices, KernelDevices,
        alias::Mark,
        caps,
        dataplane::{BpfPins, Pins},
        directory::{Location, Trust},
        found::Found,
        netlink::LinkInfo,
    },
};

/// What a bond is restored with.
#[derive(Clone, Copy)]
pub struct System<'a> {
    /// The devices of this network namespace.
    pub devices: &'a dyn Devices,
    /// The pins of bonds.
    pub pins: &'a dyn Pins,
}

/// Removes an orphaned bond: pins, devices, files. Returns what the administrator should know.
///
/// # Errors
/// The record is of another version or another user, a device, pin or file cannot be removed, or a slave cannot be
/// restored. What is left stays recorded.
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
    let commands = if record.is_none() { by_administrator(bond, &pins, system).await } else { Vec::new() };
    let absent = match &record {
        Some(record) => record.absent(system.devices).await,
        None => Vec::new(),
    };
    let mut notes = not_here(system.devices, &absent).await;
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
    // Before the record is removed, which has them until then.
    elsewhere::add(paths, bond, &absent)?;
    paths.forget(bond);
    if commands.is_empty() && fault.is_none() {
        return Ok(notes);
    }
    let fault = fault.unwrap_or_else(|| "it is missing".to_owned());
    let commands = if commands.is_empty() { "ip -d link".to_owned() } else { commands.join("; ") };
    Err(StoreError::NoRecord { bond: bond.to_string(), fault, commands })
}

/// Returns a sentence for each former slave that is not in this network namespace.
pub async fn not_here(devices: &dyn Devices, absent: &[Found]) -> Vec<String> {
    if absent.is_empty() {
        return Vec::new();
    }
    let links = devices.links(None).await;
    let place_of = |name: &str| match &links {
        Ok(links)
            if links
                .iter()
                .any(|link| link.name == name || link.altnames.iter().any(|other| other == name)) =>
        {
            NameHere::Taken
        }
        Ok(_) => NameHere::Free,
        Err(_) => NameHere::Unknown,
    };
    absent.iter().map(|found| wording::not_here(found, place_of(&found.name))).collect()
}

/// Returns whether a directory exists that may not be acted upon.
fn is_foreign(place: &Location) -> bool {
    place.open(Trust::Ours).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

/// Returns what is left to do of a bond whose record is gone: of the devices that its maps name, and of those that have its
/// alias.
async fn by_administrator(bond: &BondName, pins: &Location, system: &System<'_>) -> Vec<String> {
    let maps = system.pins.left(pins).ok().and_then(Result::ok);
    let port = maps.as_ref().map_or(0, |maps| maps.bond().port_ifindex());
    let macs: BTreeMap<u32, Mac> = maps
        .iter()
        .flat_map(|maps| Slot::all().map(|slot| maps.slave(slot)))
        .filter(|entry| entry.ifindex() != 0)
        .map(|entry| (entry.ifindex(), entry.permanent_mac()))
        .collect();
    // What the kernel does not list is not named.
    let links = system.devices.links(None).await.unwrap_or_default();
    cleaning(&Mark::of(bond), port, &macs, &links)
}

/// Returns the commands that remove a bond's pairs and clean its slaves. `macs` has the permanent MAC addresses of the known
/// slaves, by their ifindexes.
fn cleaning(mark: &Mark, port: u32, macs: &BTreeMap<u32, Mac>, links: &[LinkInfo]) -> Vec<String> {
    let mut commands = Vec::new();
    // Deleting one end of a pair deletes both.
    let mut deleted = BTreeSet::new();
    let is_slave = |link: &LinkInfo| macs.contains_key(&link.ifindex);
    let of_bond = |link: &&LinkInfo| link.ifindex == port || is_slave(link) || mark.is_on(link);
    for link in links.iter().filter(of_bond) {
        let name = shell_word(&link.name);
        let has_peer = |other: &LinkInfo| {
            link.link == Some(other.ifindex) && link.link_netns.is_none() && other.link == Some(link.ifindex)
        };
        let is_pair = link.is_end_of_pair()
            && (link.ifindex == port || links.iter().any(|other| has_peer(other) && mark.is_on(other)));
        if is_pair && !is_slave(link) {
            if link.link.is_none_or(|peer| !deleted.contains(&peer)) {
                deleted.insert(link.ifindex);
                commands.push(format!("ip link delete {name}"));
            }
            continue;
        }
        let mac = macs.get(&link.ifindex).copied().filter(|&mac| mac != link.mac);
        commands.push(wording::cleaning(&link.name, mac));
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
    Drains::new(paths, Drains::read(paths, Trust::Ours)?).end_all(bond)?;
    paths.leave();
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;

    #[test]
    fn cleaning_names_each_pair_once_and_every_slave() {
        let bond = BondName::new("bond0").unwrap();
        let mark = Mark::of(&bond);
        let marked = |link: LinkInfo| LinkInfo { alias: Some(mark.alias().clone()), ..link };
        let end = |ifindex: u32, name: &str, peer: u32| {
            marked(LinkInfo {
                kind: Some("veth".to_owned()),
                link: Some(peer),
                ..testing::link(ifindex, name)
            })
        };
        // A slave that is an end of a pair itself, whose other end is in another namespace.
        let leg = LinkInfo { link_netns: Some(0), ..end(3, "leg", 4) };
        let links = [
            testing::link(1, "lo"),
            marked(testing::link(2, "enp0s8")),
            leg,
            LinkInfo { alias: None, ..testing::link(4, "enp0s9") },
            end(5, "bond0", 6),
            end(6, "bond0-port", 5),
            end(7, "bond0-clk0", 8),
            end(8, "bond0-clk1", 7),
            LinkInfo { alias: None, ..end(9, "foreign", 10) },
        ];
        let clean = |name: &str| {
            format!("ip link set {name} promisc off allmulticast off addrgenmode eui64 alias ''")
        };
        let expected = [
            clean("enp0s8"),
            clean("leg"),
            "ip link delete bond0".to_owned(),
            "ip link delete bond0-clk0".to_owned(),
        ];
        assert_eq!(cleaning(&mark, 0, &BTreeMap::new(), &links), expected, "without maps");
        let permanent = Mac::new([2, 0, 0, 0, 0, 9]);
        let with_maps = cleaning(&mark, 6, &BTreeMap::from([(4, permanent)]), &links);
        let of_slave = format!("ip link set enp0s9 address {permanent}; {}", clean("enp0s9"));
        assert!(with_maps.contains(&of_slave), "{with_maps:?}");
        assert_eq!(with_maps.len(), expected.len() + 1, "{with_maps:?}");
    }
}
