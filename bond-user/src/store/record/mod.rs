//! found.json: the original state before a bond was created, from which the next agent or command can restore it.

mod clock;
mod configured;
mod pair;
mod restore;
mod trial;
mod undo;

use std::io;

use bond_common::mac::Mac;
use bond_core::name::BondName;
use serde::{Deserialize, Serialize};

pub use self::{
    clock::RecordedClock,
    configured::Configured,
    pair::{Ends, RecordedPair, Shape},
    restore::Leftover,
    trial::Trial,
    undo::{System, not_here, undo, undo_without_agent},
};
use crate::{
    store::{
        StoreError,
        paths::{self, Paths},
    },
    sys::{
        Devices,
        alias::{Alias, Mark},
        directory::{Location, Trust},
        enslave::Owner,
        found::{self, Found, Space},
        layer3::Layer3,
        netlink::LinkInfo,
        offload::Role,
    },
};

/// Version of the file.
const VERSION: u32 = 4;
/// The oldest version that can be read.
const OLDEST: u32 = 2;
/// Before this version devices had no alias of the bond, and the record no aliases.
const WITH_ALIASES: u32 = 4;
const FILE: &str = "found.json";

/// The original state, and what was created for a bond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    version: u32,
    bond: BondName,
    /// The pair that was created for it.
    pair: Option<RecordedPair>,
    /// The pair of its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clock: Option<RecordedClock>,
    /// The existing port.
    port: Option<Found>,
    /// The hooks of its programs, as in `--datapath`.
    datapath: String,
    /// Transmit queues of bond0.
    queues: u16,
    slaves: Vec<Found>,
    /// Slaves that were moved to another network namespace while enslaved, and may return.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    away: Vec<Found>,
    /// The addresses that bond0 took from a slave (`move_addresses`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taken: Option<Taken>,
    /// The settings of a configuration on bond0.
    #[serde(default, skip_serializing_if = "Configured::is_empty")]
    configured: Configured,
    /// The trial of the bond (`run --confirm`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
    /// Whether the bond was to be removed, and could not be restored completely.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unrestored: bool,
    /// The bond's run directory.
    #[serde(skip)]
    place: Location,
    /// The version of the file that was read; for a new record, the current one.
    #[serde(skip)]
    read_as: u32,
}

/// Why a text is no record that this version reads.
#[derive(Debug)]
pub(in crate::store) enum Unreadable {
    OtherVersion(u32),
    Malformed(serde_json::Error),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error)
    }
}

/// The field that every version of the file has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The slave from which bond0 has its addresses, and what was added to bond0 because of that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Taken {
    /// ifindex of the slave.
    from: u32,
    /// Rules that were added for bond0 in addition to those of the slave.
    rules: Layer3,
    /// The original state of the slave, once it was released: bond0 keeps the addresses, and returns them at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    released: Option<Found>,
}

impl Record {
    /// Creates a record of a bond whose run directory exists. Nothing is written yet.
    pub fn new(paths: &Paths, bond: &BondName, shape: Shape) -> Self {
        let Shape { pair, port, datapath, queues } = shape;
        Self {
            version: VERSION,
            bond: bond.clone(),
            pair,
            clock: None,
            port,
            datapath,
            queues,
            slaves: Vec::new(),
            away: Vec::new(),
            taken: None,
            configured: Configured::default(),
            trial: None,
            unrestored: false,
            place: paths.run_of(bond),
            read_as: VERSION,
        }
    }

    /// Sets the trial before the file is first written.
    pub fn on_trial(self, trial: Option<Trial>) -> Self {
        Self { trial, ..self }
    }

    /// Returns the trial of the bond; `None` if there is none, or the machine was restarted since.
    pub fn trial(&self) -> Option<&Trial> {
        self.trial.as_ref().filter(|trial| trial.boot == paths::boot_id())
    }

    /// Records the trial of the bond, or its end.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn set_trial(&mut self, trial: Option<Trial>) -> Result<(), StoreError> {
        let space = if trial.is_none() { Space::SetAside } else { Space::Free };
        self.change(space, |record| record.trial = trial)
    }

    /// Returns what the bond was created as.
    pub fn shape(&self) -> Shape {
        let Self { pair, port, datapath, queues, .. } = self.clone();
        Shape { pair, port, datapath, queues }
    }

    /// Returns the original states of all slaves, in the order of enslaving.
    pub fn slaves(&self) -> &[Found] {
        &self.slaves
    }

    /// Reads the record that an agent left. Returns `None` if there is none.
    ///
    /// # Errors
    /// It cannot be read, has another version, or is about another bond.
    pub fn read(paths: &Paths, bond: &BondName, trust: Trust) -> Result<Option<Self>, StoreError> {
        Self::read_at(paths.run_of(bond), bond, trust)
    }

    fn read_at(place: Location, bond: &BondName, trust: Trust) -> Result<Option<Self>, StoreError> {
        let path = place.path().join(FILE);
        let text = match place.open(trust).and_then(|directory| directory.read(FILE, trust)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::File { path, source: error }),
        };
        let wrong = |problem: String| StoreError::BadRecord { path: path.clone(), problem };
        let record = match Self::parse(&text) {
            Ok(record) => record,
            Err(Unreadable::OtherVersion(found)) => {
                return Err(StoreError::OtherRecord { path, found, wanted: VERSION });
            }
            Err(Unreadable::Malformed(error)) => return Err(wrong(error.to_string())),
        };
        if record.bond != *bond {
            return Err(wrong(format!("it is about {}, not {bond}", record.bond)));
        }
        // The agent that wrote the record created the pair with this name.
        if let Some(pair) = record.pair.as_ref().filter(|pair| pair.bond != *bond) {
            return Err(wrong(format!("its pair is of {}, not {bond}", pair.bond)));
        }
        Ok(Some(Self { place, version: VERSION, read_as: record.version, ..record }))
    }

    /// Parses the text of a file. Neither the name of the bond nor the place is checked.
    ///
    /// # Errors
    /// It is no record, or one of another version.
    pub(in crate::store) fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        // The version first: it determines whether the rest is read.
        let Versioned { version } = serde_json::from_slice(text)?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(Unreadable::OtherVersion(version));
        }
        Ok(serde_json::from_slice(text)?)
    }

    /// Returns the role of an interface in this bond.
    pub fn owner(&self, link: &LinkInfo) -> Option<Owner> {
        let is = |found: &Found| found.ifindex == link.ifindex;
        let role = if self.slaves.iter().any(is) {
            Role::Slave
        } else if self.port.iter().any(is)
            || self.pair.iter().any(|pair| pair.is_port(link))
            || self.clock.iter().any(|clock| clock.is_end(link))
        {
            Role::Port
        } else if self.pair.iter().any(|pair| pair.is_bond(link)) {
            Role::Bond
        } else {
            return None;
        };
        Some(Owner { bond: self.bond.to_string(), role })
    }

    /// Sets how many transmit queues of bond0 may choose a slave, and writes the file.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn set_queues(&mut self, queues: u16) -> Result<(), StoreError> {
        self.queues = queues;
        self.save()
    }

    /// Returns the two ends that were created for it.
    pub fn pair(&self) -> Option<&RecordedPair> {
        self.pair.as_ref()
    }

    /// Returns the original state of a slave.
    pub fn slave(&self, ifindex: u32) -> Option<&Found> {
        self.slaves.iter().find(|found| found.ifindex == ifindex)
    }

    /// Records the devices of the pair.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn made(&mut self, ends: Ends) -> Result<(), StoreError> {
        self.change(Space::Free, |record| {
            if let Some(pair) = &mut record.pair {
                pair.ends = Some(ends);
            }
        })
    }

    /// Returns the original state of the interface that gave bond0 its addresses, if it is no slave any more.
    pub fn released_giver(&self) -> Option<&Found> {
        self.taken.as_ref().and_then(|taken| taken.released.as_ref())
    }

    /// Adds a slave, before it is changed.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn add(&mut self, found: Found) -> Result<(), StoreError> {
        self.change(Space::Free, |record| {
            if let Some(taken) = record.taken.as_mut().filter(|taken| taken.from == found.ifindex) {
                taken.released = None;
            }
            record.slaves.retain(|known| known.ifindex != found.ifindex);
            // What went away with this ifindex does not come back with it: this is another interface, or it was restored.
            record.away.retain(|known| known.ifindex != found.ifindex);
            record.slaves.push(found);
        })
    }

    /// Adds the slave whose addresses the bond takes, and the rules for the bond, before either is applied.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn add_giver(&mut self, found: Found, rules: &Layer3) -> Result<(), StoreError> {
        let taken = Taken { from: found.ifindex, rules: rules.clone(), released: None };
        self.change(Space::Free, |record| {
            record.slaves.retain(|known| known.ifindex != found.ifindex);
            record.slaves.push(found);
            record.taken = Some(taken);
        })
    }

    /// Returns the settings of a configuration on bond0.
    pub fn configured(&self) -> &Configured {
        &self.configured
    }

    /// Records the settings of a configuration on bond0: before they are set, and after they were removed.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn set_configured(&mut self, configured: Configured) -> Result<(), StoreError> {
        let space = if configured.clone().without(&self.configured).is_empty() {
            Space::SetAside
        } else {
            Space::Free
        };
        self.change(space, |record| record.configured = configured)
    }

    /// Returns whether bond0 has the addresses of this slave.
    pub fn has_addresses_of(&self, ifindex: u32) -> bool {
        self.taken.as_ref().is_some_and(|taken| taken.from == ifindex)
    }

    /// Records the further unicast MAC addresses of all slaves, before they are set.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn set_unicast(&mut self, macs: &[Mac]) -> Result<(), StoreError> {
        self.change(Space::Free, |record| {
            for found in &mut record.slaves {
                found.unicast = macs.to_vec();
            }
        })
    }

    /// Removes a slave that was restored, or is gone.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn remove(&mut self, ifindex: u32) -> Result<(), StoreError> {
        self.change(Space::SetAside, |record| record.release(|known| known == ifindex))
    }

    /// Removes slaves. The original state of the slave that gave bond0 its addresses is kept.
    fn release(&mut self, leaves: impl Fn(u32) -> bool) {
        for found in self.slaves.extract_if(.., |found| leaves(found.ifindex)) {
            if let Some(taken) = self.taken.as_mut().filter(|taken| taken.from == found.ifindex) {
                taken.released = Some(found);
            }
        }
    }

    /// Removes all slaves but these; the others were released or restored before, and could not be removed then.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn remove_others(&mut self, kept: impl Fn(u32) -> bool) -> Result<(), StoreError> {
        self.change(Space::SetAside, |record| record.release(|known| !kept(known)))
    }

    /// Removes a slave that vanished while enslaved; it is restored when it returns. Only the last such slaves are
    /// kept.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn depart(&mut self, ifindex: u32) -> Result<(), StoreError> {
        const KNOWN: usize = bond_common::abi::MAX_SLAVES;
        self.change(Space::SetAside, |record| {
            record.away.extend(record.slaves.extract_if(.., |known| known.ifindex == ifindex));
            let too_many = record.away.len().saturating_sub(KNOWN);
            record.away.drain(..too_many);
        })
    }

    /// Slaves, former ones included, that are not in this network namespace: nothing can restore them.
    pub async fn absent(&self, devices: &dyn Devices) -> Vec<Found> {
        let mut absent = Vec::new();
        for found in self.slaves.iter().chain(&self.away) {
            if matches!(devices.find(found).await, Ok(None)) {
                absent.push(found.clone());
            }
        }
        absent
    }

    /// Slaves that went away.
    pub fn away(&self) -> &[Found] {
        &self.away
    }

    /// Removes one that has returned, by the ifindex that it had as a slave.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn returned(&mut self, ifindex: u32) -> Result<(), StoreError> {
        self.change(Space::SetAside, |record| record.away.retain(|known| known.ifindex != ifindex))
    }

    /// Returns whether the file of a bond exists.
    pub fn is_there(paths: &Paths, bond: &BondName) -> bool {
        paths.run_of(bond).open(Trust::Ours).is_ok_and(|directory| directory.has(FILE))
    }

    /// Whether its file is there.
    pub fn is_written(&self) -> bool {
        self.place.open(Trust::Ours).is_ok_and(|directory| directory.has(FILE))
    }

    /// Writes the file again, which another process has removed, perhaps with its directory.
    ///
    /// # Errors
    /// The directory cannot be created, or the file cannot be written.
    pub fn write_again(&self) -> Result<(), StoreError> {
        let made = self.place.make_all(0o755);
        made.map_err(|source| StoreError::File { path: self.place.path(), source })?;
        self.save()
    }

    /// Writes the file atomically, and reserves the space that is needed to remove entries.
    ///
    /// # Errors
    /// The file cannot be written or synchronised, or the file system has no space for the reserve.
    pub fn save(&self) -> Result<(), StoreError> {
        self.write(Space::Free)
    }

    /// Writes to disk first: a change that cannot be written is not made in memory either.
    fn change(&mut self, space: Space, change: impl FnOnce(&mut Self)) -> Result<(), StoreError> {
        let mut changed = self.clone();
        change(&mut changed);
        if changed != *self {
            changed.write(space)?;
            *self = changed;
        }
        Ok(())
    }

    fn write(&self, space: Space) -> Result<(), StoreError> {
        let directory = self.place.open(Trust::Ours);
        directory
            .and_then(|directory| found::replace(&directory.path_of(FILE), self, space))
            .map_err(|source| StoreError::File { path: self.place.path().join(FILE), source })
    }

    /// Returns whether the devices of the bond have its alias, according to the version of the record.
    pub fn has_aliases(&self) -> bool {
        self.read_as >= WITH_ALIASES
    }

    /// Records the aliases of interfaces, before they get the bond's.
    ///
    /// # Errors
    /// The record cannot be written; it is unchanged then.
    pub fn set_aliases(&mut self, alias_of: impl Fn(u32) -> Option<Alias>) -> Result<(), StoreError> {
        self.change(Space::Free, |record| {
            for found in record.slaves.iter_mut().chain(&mut record.port) {
                found.alias = alias_of(found.ifindex).filter(|alias| !alias.is_mark());
            }
            record.read_as = VERSION;
        })
    }

    /// The alias of this bond's devices.
    pub fn mark(&self) -> Mark {
        Mark::of(&self.bond)
    }

    /// Returns whether an agent, or `xbond down`, has failed to restore all of it.
    pub fn is_unrestored(&self) -> bool {
        self.unrestored
    }
}

/// Returns the role of an interface in a bond of this namespace, with or without an agent.
pub fn owner_of(paths: &Paths, link: &LinkInfo) -> Option<Owner> {
    let read = |bond: BondName| Record::read(paths, &bond, Trust::Anyones).ok().flatten();
    let records = paths.bonds().into_iter().filter_map(read);
    records.filter_map(|record| record.owner(link)).next()
}

#[cfg(test)]
mod tests;
