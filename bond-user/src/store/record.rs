//! found.json: how everything was before a bond was made, so that whoever comes later can put it back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bond_common::{abi::Slot, mac::Mac};
use serde::{Deserialize, Serialize};

use crate::{
    agent::AgentError,
    store::paths::Places,
    sys::{
        Devices,
        dataplane::{self, DataPlane},
        enslave::Owner,
        found::{self, Found},
        netlink::LinkInfo,
        offload::Role,
    },
};

/// Version of the file.
const VERSION: u32 = 2;
const FILE: &str = "found.json";

/// What a bond found, and made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    bond: String,
    /// The pair that was made for it.
    pair: Option<Pair>,
    /// The port that was there before.
    port: Option<Found>,
    /// What carries the packets, as `--datapath` has it.
    datapath: String,
    /// Transmit queues of bond0.
    queues: u16,
    slaves: Vec<Found>,
    /// Slaves that went away as they were in the bond: to another network namespace, and perhaps they come back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    away: Vec<Found>,
    #[serde(skip)]
    path: PathBuf,
}

/// How a bond is made, beside its slaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Made for it; or else `port`.
    pub pair: Option<Pair>,
    pub port: Option<Found>,
    pub datapath: String,
    pub queues: u16,
}

/// Names of the two ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub bond: String,
    pub port: String,
}

impl Record {
    /// Of a bond whose run directory exists. Nothing is written yet.
    pub fn new(places: &Places, bond: &str, shape: Shape) -> Self {
        let path = places.run_of(bond).join(FILE);
        let Shape { pair, port, datapath, queues } = shape;
        Self {
            version: VERSION,
            bond: bond.to_owned(),
            pair,
            port,
            datapath,
            queues,
            slaves: Vec::new(),
            away: Vec::new(),
            path,
        }
    }

    pub fn shape(&self) -> Shape {
        let Self { pair, port, datapath, queues, .. } = self.clone();
        Shape { pair, port, datapath, queues }
    }

    /// How all slaves were found, in the order in which they were enslaved.
    pub fn slaves(&self) -> &[Found] {
        &self.slaves
    }

    /// What an agent left. None if it left nothing.
    pub fn read(places: &Places, bond: &str) -> Result<Option<Self>, AgentError> {
        Self::read_file(places.run_of(bond).join(FILE))
    }

    fn read_file(path: PathBuf) -> Result<Option<Self>, AgentError> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(AgentError::File { path, source }),
        };
        let wrong = |problem: String| AgentError::BadRecord { path: path.clone(), problem };
        let record: Self = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if record.version != VERSION {
            return Err(wrong(format!("version {}, this xbond reads {VERSION}", record.version)));
        }
        Ok(Some(Self { path, ..record }))
    }

    /// What an interface is to this bond: the pair that it made is known by name, the others by ifindex.
    pub fn owner(&self, name: &str, ifindex: u32) -> Option<Owner> {
        let is = |found: &Found| found.ifindex == ifindex;
        let role = if self.slaves.iter().any(is) {
            Role::Slave
        } else if self.port.iter().any(is) || self.pair.iter().any(|pair| pair.port == name) {
            Role::Port
        } else if self.pair.iter().any(|pair| pair.bond == name) {
            Role::Bond
        } else {
            return None;
        };
        Some(Owner { bond: self.bond.clone(), role })
    }

    /// The two ends that were made for it.
    pub fn pair(&self) -> Option<&Pair> {
        self.pair.as_ref()
    }

    /// How a slave was found.
    pub fn slave(&self, ifindex: u32) -> Option<&Found> {
        self.slaves.iter().find(|found| found.ifindex == ifindex)
    }

    /// Adds a slave, before it is changed, and writes the file.
    pub fn add(&mut self, found: Found) -> Result<(), AgentError> {
        self.slaves.retain(|known| known.ifindex != found.ifindex);
        self.slaves.push(found);
        self.save()
    }

    /// The further unicast MACs that all slaves receive, before they do.
    pub fn set_unicast(&mut self, macs: &[Mac]) -> Result<(), AgentError> {
        for found in &mut self.slaves {
            found.unicast = macs.to_vec();
        }
        self.save()
    }

    /// Removes a slave that is restored, or gone, and writes the file.
    pub fn remove(&mut self, ifindex: u32) -> Result<(), AgentError> {
        self.slaves.retain(|known| known.ifindex != ifindex);
        self.save()
    }

    /// The same of a slave that went away as it was; it is put back when it comes back. Of those that went last some are
    /// known.
    pub fn depart(&mut self, ifindex: u32) -> Result<(), AgentError> {
        const KNOWN: usize = bond_common::abi::MAX_SLAVES;
        self.away.extend(self.slaves.extract_if(.., |known| known.ifindex == ifindex));
        let too_many = self.away.len().saturating_sub(KNOWN);
        self.away.drain(..too_many);
        self.save()
    }

    /// Slaves that went away.
    pub fn away(&self) -> &[Found] {
        &self.away
    }

    /// Forgets one that came back.
    pub fn take_away(&mut self, ifindex: u32) -> Result<Option<Found>, AgentError> {
        let Some(place) = self.away.iter().position(|known| known.ifindex == ifindex) else {
            return Ok(None);
        };
        let found = self.away.remove(place);
        self.save()?;
        Ok(Some(found))
    }

    /// Writes the file whole or not at all.
    pub fn save(&self) -> Result<(), AgentError> {
        found::replace(&self.path, self)
            .map_err(|source| AgentError::File { path: self.path.clone(), source })
    }

    async fn detach_filters(&self, devices: &Devices) {
        for found in self.slaves.iter().chain(&self.port) {
            // By the name that it has now; one that is gone took its filters along.
            if let Ok(link) = devices.netlink.link_by_index(found.ifindex).await {
                dataplane::detach_filters(&link.name);
            }
        }
    }

    /// Puts everything back: devices that were made are deleted, the others are as they were found. What is
    /// gone is skipped, what fails does not stop the rest; the first failure is told.
    pub async fn restore(&self, devices: &Devices) -> Result<(), AgentError> {
        let mut failure = None;
        let mut note = |answer: Result<(), AgentError>| {
            if let Err(error) = answer {
                failure.get_or_insert(error);
            }
        };
        if let Some(pair) = &self.pair {
            note(delete_pair(devices, pair).await);
        }
        for found in self.slaves.iter().chain(&self.port) {
            note(devices.restore(found).await.map(drop).map_err(AgentError::from));
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Deletes the pair if it is one that xbond makes: the names alone could be somebody else's by now.
async fn delete_pair(devices: &Devices, pair: &Pair) -> Result<(), AgentError> {
    match devices.netlink.link_by_name(&pair.port).await {
        Ok(link) if link.is_end_of_pair() => Ok(devices.netlink.delete(link.ifindex).await?),
        Ok(_) => Ok(()),
        Err(error) if error.is_gone() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What an interface is to a bond of this namespace, one without an agent included.
pub fn owner_of(places: &Places, link: &LinkInfo) -> Option<Owner> {
    let records = places.bonds().into_iter().filter_map(|bond| Record::read(places, &bond).ok().flatten());
    records.filter_map(|record| record.owner(&link.name, link.ifindex)).next()
}

/// Takes a bond away that no agent looks after: pins, devices, files.
pub async fn undo(places: &Places, bond: &str, devices: &Devices) -> Result<(), AgentError> {
    let pins = places.pins_of(bond);
    let record = Record::read(places, bond)?;
    let commands = if record.is_none() { by_hand(&pins, devices).await } else { Vec::new() };
    dataplane::remove_pins(&pins)?;
    if let Some(record) = record {
        // No pin holds them.
        record.detach_filters(devices).await;
        record.restore(devices).await?;
    }
    places.forget(bond);
    if commands.is_empty() {
        return Ok(());
    }
    Err(AgentError::NotPutBack { bond: bond.to_owned(), commands: commands.join("; ") })
}

/// What is left to do of a bond whose record is gone, as far as its maps tell.
async fn by_hand(pins: &Path, devices: &Devices) -> Vec<String> {
    let Ok(Ok(maps)) = DataPlane::left(pins) else { return Vec::new() };
    let mut commands = Vec::new();
    if let Ok(port) = devices.netlink.link_by_index(maps.bond().port_ifindex()).await
        && port.is_end_of_pair()
    {
        commands.push(format!("ip link delete {}", port.name));
    }
    for entry in Slot::all().map(|slot| maps.slave(slot)).filter(|entry| entry.ifindex() != 0) {
        let Ok(link) = devices.netlink.link_by_index(entry.ifindex()).await else { continue };
        if link.mac != entry.permanent_mac() {
            commands.push(format!("ip link set {} address {}", link.name, entry.permanent_mac()));
        }
        commands.push(format!("ip link set {} promisc off allmulticast off addrgenmode eui64", link.name));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let table = [
            ("", "EOF while parsing"),
            (
                r#"{"version":1,"bond":"bond0","pair":null,"port":null,"datapath":"tc","queues":1,"slaves":[]}"#,
                "version 1",
            ),
            (
                r#"{"version":2,"bond":"bond0","pair":null,"port":null,"datapath":"tc","queues":1,"slaves":[],"more":1}"#,
                "unknown field `more`",
            ),
        ];
        for (text, problem) in table {
            fs::write(&path, text).unwrap();
            let error = Record::read_file(path.clone()).unwrap_err().to_string();
            assert!(error.starts_with(&path.display().to_string()) && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn what_was_saved_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert_eq!(Record::read_file(path.clone()).unwrap(), None);
        let pair = Some(Pair { bond: "bond0".into(), port: "bond0-port".into() });
        let record = Record {
            version: VERSION,
            bond: "bond0".into(),
            pair,
            port: None,
            datapath: "tc".into(),
            queues: 16,
            slaves: Vec::new(),
            away: Vec::new(),
            path: path.clone(),
        };
        record.save().unwrap();
        assert_eq!(Record::read_file(path).unwrap(), Some(record));
    }
}
