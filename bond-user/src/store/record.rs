//! found.json: the original state before a bond was created, from which the next agent or command can restore it.

use std::{io, time::Duration};

use bond_common::{abi::Slot, mac::Mac};
use bond_core::name::{BondName, InterfaceName, shell_word};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{
    agent::AgentError,
    report::{moment::boottime, text},
    store::paths::{self, Paths},
    sys::{
        Devices, SysError,
        dataplane::Pins,
        directory::{Location, Trust},
        enslave::{Owner, PutBack, Unconfirmed},
        found::{self, Found, Space},
        layer3::Layer3,
        netlink::{Address, KernelRoute, LinkInfo, LinkSetting},
        offload::Role,
        ownership::{Alias, Mark, Ownership},
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

/// The settings of a configuration on bond0, or those that are about to be set: an agent with another configuration
/// removes those that it does not name. Settings of other owners are not included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    pub addresses: Vec<Address>,
    pub routes: Vec<KernelRoute>,
    /// Bytes.
    pub mtu: Option<u32>,
}

impl Configured {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the same settings for a device of this ifindex.
    pub fn over(mut self, ifindex: u32) -> Self {
        self.addresses.iter_mut().for_each(|address| address.ifindex = ifindex);
        self.routes.iter_mut().for_each(|route| route.ifindex = ifindex);
        self
    }

    /// Returns the settings that are in either of the two.
    pub fn and(mut self, other: &Self) -> Self {
        for address in &other.addresses {
            if !self.addresses.iter().any(|known| known.is_same(address)) {
                self.addresses.push(address.clone());
            }
        }
        for route in &other.routes {
            if !self.routes.iter().any(|known| known.has_same_key(route)) {
                self.routes.push(route.clone());
            }
        }
        self.mtu = self.mtu.or(other.mtu);
        self
    }

    /// Returns the settings that are in this one and not in the other.
    pub fn without(mut self, other: &Self) -> Self {
        self.addresses.retain(|address| !other.addresses.iter().any(|kept| kept.is_same(address)));
        self.routes.retain(|route| !other.routes.iter().any(|kept| kept.has_same_key(route)));
        self.mtu = self.mtu.filter(|_| other.mtu.is_none());
        self
    }
}

/// The trial of a bond: at its end the bond is removed, unless it was confirmed. A trial outlives the agent that began
/// it, and ends when the machine is restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The random number of the boot; `None` if it cannot be read.
    boot: Option<String>,
    /// The end, in milliseconds of CLOCK_BOOTTIME of the machine.
    until_ms: u64,
    /// The original length in seconds.
    seconds: u64,
}

impl Trial {
    /// Returns a trial that begins now.
    pub fn within(limit: Duration) -> Self {
        let until = boottime().saturating_add(limit).as_millis();
        let until_ms = u64::try_from(until).unwrap_or(u64::MAX);
        Self { boot: paths::boot_id(), until_ms, seconds: limit.as_secs() }
    }

    /// Returns the remaining time; zero when the trial is over.
    pub fn left(&self) -> Duration {
        self.left_at(boottime())
    }

    fn left_at(&self, boottime: Duration) -> Duration {
        Duration::from_millis(self.until_ms).saturating_sub(boottime)
    }

    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Returns the original length in seconds.
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Returns the trial that ends first.
    pub fn or_earlier(self, other: Self) -> Self {
        if other.until_ms < self.until_ms { other } else { self }
    }
}

/// How a bond is created, without its slaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Created for it; otherwise `port` is set.
    pub pair: Option<RecordedPair>,
    pub port: Option<Found>,
    pub datapath: String,
    pub queues: u16,
}

/// The two ends that were created for a bond, by their original names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedPair {
    pub bond: BondName,
    pub port: InterfaceName,
    /// The devices, whatever their current names are; `None` until they are created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends: Option<Ends>,
}

/// ifindex of bond0 and of its port. An end that was moved to another network namespace may return with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends {
    pub bond: u32,
    pub port: u32,
}

impl RecordedPair {
    pub fn new(bond: BondName, port: InterfaceName) -> Self {
        Self { bond, port, ends: None }
    }

    fn is_port(&self, link: &LinkInfo) -> bool {
        match self.ends {
            Some(ends) => link.ifindex == ends.port && link.is_end_of_pair(),
            None => self.port == link.name,
        }
    }

    /// Returns whether this is bond0.
    pub fn is_bond(&self, link: &LinkInfo) -> bool {
        match self.ends {
            Some(ends) => {
                let is_opposite = link.link == Some(ends.port) && link.link_netns.is_none();
                link.is_end_of_pair() && (link.ifindex == ends.bond || is_opposite)
            }
            None => self.bond == link.name,
        }
    }
}

impl Record {
    /// Creates a record of a bond whose run directory exists. Nothing is written yet.
    pub fn new(paths: &Paths, bond: &BondName, shape: Shape) -> Self {
        let Shape { pair, port, datapath, queues } = shape;
        Self {
            version: VERSION,
            bond: bond.clone(),
            pair,
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
    pub fn set_trial(&mut self, trial: Option<Trial>) -> Result<(), AgentError> {
        let space = if trial.is_none() { Space::SetAside } else { Space::Free };
        self.change(space, |record| record.trial = trial)
    }

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
    pub fn read(paths: &Paths, bond: &BondName, trust: Trust) -> Result<Option<Self>, AgentError> {
        Self::read_at(paths.run_of(bond), bond, trust)
    }

    fn read_at(place: Location, bond: &BondName, trust: Trust) -> Result<Option<Self>, AgentError> {
        let path = place.path().join(FILE);
        let text = match place.open(trust).and_then(|directory| directory.read(FILE, trust)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(AgentError::File { path, source: error }),
        };
        let wrong = |problem: String| AgentError::BadRecord { path: path.clone(), problem };
        // The version first: it determines whether the rest is read.
        let Versioned { version } =
            serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if !(OLDEST..=VERSION).contains(&version) {
            return Err(AgentError::OtherRecord { path, found: version, wanted: VERSION });
        }
        let record: Self = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        if record.bond != *bond {
            return Err(wrong(format!("it is about {}, not {bond}", record.bond)));
        }
        // The agent that wrote the record created the pair with this name.
        if let Some(pair) = record.pair.as_ref().filter(|pair| pair.bond != *bond) {
            return Err(wrong(format!("its pair is of {}, not {bond}", pair.bond)));
        }
        Ok(Some(Self { place, version: VERSION, read_as: version, ..record }))
    }

    /// Returns the role of an interface in this bond.
    pub fn owner(&self, link: &LinkInfo) -> Option<Owner> {
        let is = |found: &Found| found.ifindex == link.ifindex;
        let role = if self.slaves.iter().any(is) {
            Role::Slave
        } else if self.port.iter().any(is) || self.pair.iter().any(|pair| pair.is_port(link)) {
            Role::Port
        } else if self.pair.iter().any(|pair| pair.is_bond(link)) {
            Role::Bond
        } else {
            return None;
        };
        Some(Owner { bond: self.bond.to_string(), role })
    }

    /// Sets how many transmit queues of bond0 may choose a slave, and writes the file.
    pub fn set_queues(&mut self, queues: u16) -> Result<(), AgentError> {
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
    pub fn made(&mut self, ends: Ends) -> Result<(), AgentError> {
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
    pub fn add(&mut self, found: Found) -> Result<(), AgentError> {
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
    pub fn add_giver(&mut self, found: Found, rules: &Layer3) -> Result<(), AgentError> {
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
    pub fn set_configured(&mut self, configured: Configured) -> Result<(), AgentError> {
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
    pub fn set_unicast(&mut self, macs: &[Mac]) -> Result<(), AgentError> {
        self.change(Space::Free, |record| {
            for found in &mut record.slaves {
                found.unicast = macs.to_vec();
            }
        })
    }

    /// Removes a slave that was restored, or is gone.
    pub fn remove(&mut self, ifindex: u32) -> Result<(), AgentError> {
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
    pub fn remove_others(&mut self, kept: impl Fn(u32) -> bool) -> Result<(), AgentError> {
        self.change(Space::SetAside, |record| record.release(|known| !kept(known)))
    }

    /// Removes a slave that vanished while enslaved; it is restored when it returns. Only the last such slaves are
    /// kept.
    pub fn depart(&mut self, ifindex: u32) -> Result<(), AgentError> {
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
    pub fn returned(&mut self, ifindex: u32) -> Result<(), AgentError> {
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
    pub fn write_again(&self) -> Result<(), AgentError> {
        let made = self.place.make_all(0o755);
        made.map_err(|source| AgentError::File { path: self.place.path(), source })?;
        self.save()
    }

    /// Writes the file atomically, and reserves the space that is needed to remove entries.
    pub fn save(&self) -> Result<(), AgentError> {
        self.write(Space::Free)
    }

    /// Writes to disk first: a change that cannot be written is not made in memory either.
    fn change(&mut self, space: Space, change: impl FnOnce(&mut Self)) -> Result<(), AgentError> {
        let mut changed = self.clone();
        change(&mut changed);
        if changed != *self {
            changed.write(space)?;
            *self = changed;
        }
        Ok(())
    }

    fn write(&self, space: Space) -> Result<(), AgentError> {
        let directory = self.place.open(Trust::Ours);
        directory
            .and_then(|directory| found::replace(&directory.path_of(FILE), self, space))
            .map_err(|source| AgentError::File { path: self.place.path().join(FILE), source })
    }

    /// Removes everything but these interfaces: the rest is restored.
    fn keep_only(&mut self, left: &[Left]) -> Result<(), AgentError> {
        let is_left = |found: &Found| left.iter().any(|left| left.ifindex == found.ifindex);
        self.change(Space::SetAside, |record| {
            let released = record.taken.take().and_then(|taken| taken.released);
            record.away.extend(released);
            record.unrestored = true;
            record.pair.take_if(|_| !left.iter().any(|left| left.ifindex == PAIR));
            record.port.take_if(|port| !is_left(port));
            record.slaves.retain(is_left);
            record.away.retain(is_left);
        })
    }

    async fn detach_filters(&self, system: &System<'_>, proof: &Ownership) {
        for found in self.slaves.iter().chain(&self.port) {
            // By the name that it has now; one that is gone took its filters along.
            if let Ok(link) = system.devices.link_by_index(found.ifindex).await
                && proof.holds(&link)
            {
                system.pins.detach_filters(&link.name);
            }
        }
    }

    /// Returns whether the devices of the bond have its alias, according to the version of the record.
    pub fn has_aliases(&self) -> bool {
        self.read_as >= WITH_ALIASES
    }

    /// Records the aliases of interfaces, before they get the bond's.
    pub fn set_aliases(&mut self, alias_of: impl Fn(u32) -> Option<Alias>) -> Result<(), AgentError> {
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

    /// Asks the kernel which interfaces are this bond's, as long as there are pins.
    pub async fn prove(&self, system: &System<'_>, pins: &Location) -> Ownership {
        let ends = self.pair.iter().filter_map(|pair| pair.ends).flat_map(|ends| [ends.bond, ends.port]);
        let found = self.slaves.iter().chain(&self.port).chain(&self.away).map(|found| found.ifindex);
        let candidates: Vec<_> = ends.chain(found).collect();
        system.devices.prove(self.mark(), &system.pins.read(pins), &candidates).await
    }

    /// Restores everything that the kernel confirms to belong to this bond: created devices are deleted, the others get
    /// their original state. Missing devices are skipped, and a failure does not stop the rest; the first failure is the
    /// error. Returns the devices that are not confirmed, and were not changed.
    ///
    /// `detach` detaches the programs. It is called after bond0 and its addresses were removed and the interfaces were set
    /// down: without its program, the host's own stack would answer on a slave for bond0's addresses.
    pub async fn restore(
        &self,
        devices: &dyn Devices,
        proof: &Ownership,
        detach: impl AsyncFnOnce() -> Result<(), AgentError>,
    ) -> Result<Vec<Left>, AgentError> {
        let mut left = Vec::new();
        let mut failure = None;
        let mut note = |answer: Result<(), AgentError>| {
            if let Err(error) = answer {
                failure.get_or_insert(error);
            }
        };
        let released = self.released_to_restore(devices).await;
        for found in self.slaves.iter().chain(released) {
            note(devices.return_addresses(found, proof).await.map_err(AgentError::from));
        }
        if let Some(pair) = &self.pair {
            match delete_pair(devices, pair, proof).await {
                Ok(stranger) => left.extend(stranger),
                Err(error) => note(Err(error)),
            }
        }
        if let Some(Taken { rules, .. }) = &self.taken {
            // Rules about other devices were never added for the bond.
            let rules = rules.rules_about(&self.bond);
            note(devices.del_rules(&rules).await.map_err(AgentError::from));
        }
        for found in self.slaves.iter().chain(&self.port) {
            note(devices.close_to_restore(found, proof).await.map_err(AgentError::from));
        }
        note(detach().await);
        // A slave that vanished may have returned without an agent.
        for found in self.slaves.iter().chain(released).chain(&self.port).chain(&self.away) {
            match devices.restore(found, proof).await {
                Ok(PutBack::Unconfirmed(Unconfirmed { name, looks_enslaved })) => {
                    left.push(Left { name, ifindex: found.ifindex, looks_enslaved, failure: None });
                }
                Ok(PutBack::Done | PutBack::Gone) => {}
                Err(error) => left.push(Left {
                    name: found.name.clone(),
                    ifindex: found.ifindex,
                    looks_enslaved: true,
                    failure: Some(error.to_string()),
                }),
            }
        }
        failure.map_or(Ok(left), Err)
    }

    /// Removes everything from the record that [`Self::restore`] has restored. Returns the devices that no longer
    /// belong to the bond.
    ///
    /// # Errors
    /// Something is left to restore.
    pub fn settle(&mut self, answer: Result<Vec<Left>, AgentError>) -> Result<Vec<Left>, AgentError> {
        let left = match answer {
            Ok(left) => left,
            Err(error) => {
                self.change(Space::SetAside, |record| record.unrestored = true)?;
                return Err(error);
            }
        };
        let (left, strangers): (Vec<_>, Vec<_>) = left.into_iter().partition(|left| left.looks_enslaved);
        if left.is_empty() {
            return Ok(strangers);
        }
        self.keep_only(&left)?;
        let (bond, files) = (self.bond.to_string(), self.place.path());
        let failures: Vec<_> = left
            .iter()
            .filter_map(|left| Some(format!("{}: {}", left.name, left.failure.as_ref()?)))
            .collect();
        let names =
            left.into_iter().filter(|left| left.failure.is_none()).map(|left| left.name).collect::<Vec<_>>();
        Err(if failures.is_empty() {
            AgentError::Unconfirmed { bond, names, files }
        } else {
            AgentError::NotRestored { bond, failures: failures.join("; "), files }
        })
    }

    /// Returns whether an agent, or `xbond down`, has failed to restore all of it.
    pub fn is_unrestored(&self) -> bool {
        self.unrestored
    }
}

impl Record {
    /// The released interface that gave bond0 its addresses, unless it is a port of something else by now. It has kept the
    /// alias of the bond; as another bond's slave it would have that one's.
    async fn released_to_restore(&self, devices: &dyn Devices) -> Option<&Found> {
        let released = self.released_giver()?;
        let link = devices.find(released).await.ok().flatten()?;
        if link.master.is_none() {
            return Some(released);
        }
        let bond = &self.bond;
        warn!("{bond}: {}: does not get its addresses back: it belongs to something else by now", link.name);
        None
    }
}

/// An interface that a record names, and that the kernel does not confirm to belong to the bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    pub name: String,
    /// The ifindex in the record, or [`PAIR`].
    ifindex: u32,
    /// See [`Unconfirmed`].
    looks_enslaved: bool,
    /// Why the device was not restored, if the kernel confirms that it belongs to the bond.
    failure: Option<String>,
}

/// No interface has this ifindex.
const PAIR: u32 = 0;

/// Deletes the pair, whatever its ends are called now. For a pair that was just created only the names are known.
/// Returns the name of the device in its place, if that is not confirmed to belong to the bond.
async fn delete_pair(
    devices: &dyn Devices,
    pair: &RecordedPair,
    proof: &Ownership,
) -> Result<Option<Left>, AgentError> {
    let there = |answer: Result<LinkInfo, SysError>| match answer {
        Ok(link) => Ok(Some(link).filter(LinkInfo::is_end_of_pair)),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error),
    };
    let (port, bond) = match pair.ends {
        // The port may have been moved to another network namespace.
        Some(Ends { bond, port }) => {
            (there(devices.link_by_index(port).await)?, there(devices.link_by_index(bond).await)?)
        }
        None => {
            (there(devices.link_by_name(&pair.port).await)?, there(devices.link_by_name(&pair.bond).await)?)
        }
    };
    for (end, other) in [(&port, &bond), (&bond, &port)] {
        if let Some(end) = end.as_ref().filter(|end| proof.holds_of_pair(end, other.as_ref())) {
            devices.delete(end.ifindex).await?;
            return Ok(None);
        }
    }
    let looks_enslaved = port.as_ref().is_some_and(|port| LinkSetting::Noarp(true).holds(port));
    Ok(port.or(bond).map(|end| Left { name: end.name, ifindex: PAIR, looks_enslaved, failure: None }))
}

/// Returns the role of an interface in a bond of this namespace, with or without an agent.
pub fn owner_of(paths: &Paths, link: &LinkInfo) -> Option<Owner> {
    let read = |bond: BondName| Record::read(paths, &bond, Trust::Anyones).ok().flatten();
    let records = paths.bonds().into_iter().filter_map(read);
    records.filter_map(|record| record.owner(link)).next()
}

/// What a bond is restored with.
#[derive(Clone, Copy)]
pub struct System<'a> {
    pub devices: &'a dyn Devices,
    pub pins: &'a dyn Pins,
}

/// Takes a bond away that no agent looks after: pins, devices, files. Returns what should be known about it.
pub async fn undo(paths: &Paths, bond: &BondName, system: &System<'_>) -> Result<Vec<String>, AgentError> {
    let pins = paths.pins_of(bond);
    let (record, fault) = match Record::read(paths, bond, Trust::Ours) {
        Ok(record) => (record, None),
        // The record is complete, and another version of xbond can undo the bond from it.
        Err(error @ AgentError::OtherRecord { .. }) => return Err(error),
        // The directory belongs to another user, or is a link: nothing there is acted upon.
        Err(error) if is_foreign(&paths.run_of(bond)) => return Err(error),
        Err(error) => (None, Some(error.to_string())),
    };
    let commands = if record.is_none() { by_hand(&pins, system).await } else { Vec::new() };
    let mut notes = match &record {
        Some(record) => record.absent(system.devices).await.iter().map(text::not_here).collect(),
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
        notes.extend(strangers.iter().map(|stranger| text::unconfirmed(bond, &stranger.name)));
    }
    paths.forget(bond);
    if commands.is_empty() && fault.is_none() {
        return Ok(notes);
    }
    let fault = fault.unwrap_or_else(|| "it is missing".to_owned());
    let commands = if commands.is_empty() { "ip -d link".to_owned() } else { commands.join("; ") };
    Err(AgentError::NotPutBack { bond: bond.to_string(), fault, commands })
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn bond0() -> BondName {
        BondName::new("bond0").unwrap()
    }

    #[test]
    fn a_foreign_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let (place, path) = (Location::at(directory.path()), directory.path().join(FILE));
        let record = |version: u32, bond: &str, pair: &str, more: &str| {
            format!(
                r#"{{"version":{version},"bond":"{bond}","pair":{pair},"port":null,"datapath":"tc","queues":1,"slaves":[]{more}}}"#
            )
        };
        let pair = r#"{"bond":"bond0","port":"../eth0"}"#;
        let another = r#"{"bond":"bond1","port":"bond1-port"}"#;
        let table = [
            (String::new(), "EOF while parsing"),
            (record(1, "bond0", "null", ""), "version 1; xbond reads version 4"),
            (record(2, "bond0", "null", r#","more":1"#), "unknown field `more`"),
            (record(2, "../x", "null", ""), "\"../x\" cannot be a bond: it contains '/'"),
            (
                record(2, "lock", "null", ""),
                "\"lock\" cannot be a bond: it is the name of one of xbond's own files",
            ),
            (record(2, "bond0", pair, ""), "\"../eth0\" cannot be an interface: it contains '/'"),
            (record(2, "bond1", "null", ""), "it is about bond1, not bond0"),
            (record(4, "bond0", another, ""), "its pair is of bond1, not bond0"),
        ];
        for (text, problem) in table {
            fs::write(&path, text).unwrap();
            let error = Record::read_at(place.clone(), &bond0(), Trust::Ours).unwrap_err().to_string();
            assert!(error.starts_with(&path.display().to_string()) && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_trial_ends_by_clock_boottime_and_with_the_boot() {
        let limit = Duration::from_secs(60);
        let trial = Trial::within(limit);
        assert!(trial.left() <= limit && trial.left() > limit / 2, "{trial:?}");
        let end = Duration::from_millis(trial.until_ms);
        assert_eq!(trial.left_at(end - Duration::from_secs(2)), Duration::from_secs(2));
        assert_eq!(trial.left_at(end + Duration::from_secs(2)), Duration::ZERO);
        let later = Trial { until_ms: trial.until_ms + 1, ..trial.clone() };
        assert_eq!(later.clone().or_earlier(trial.clone()), trial);
        assert_eq!(trial.clone().or_earlier(later), trial);

        let directory = tempfile::tempdir().unwrap();
        let shape = Shape { pair: None, port: None, datapath: "tc".into(), queues: 1 };
        let record = Record::new(&Paths::of(0), &bond0(), shape);
        let mut record =
            Record { place: Location::at(directory.path()), ..record }.on_trial(Some(trial.clone()));
        assert_eq!(record.trial(), Some(&trial));
        record.set_trial(None).unwrap();
        let read = Record::read_at(record.place.clone(), &bond0(), Trust::Ours).unwrap().unwrap();
        assert_eq!(read.trial(), None);
        let former = Trial { boot: Some("of another boot".to_owned()), ..trial };
        assert_eq!(record.on_trial(Some(former)).trial(), None);
    }

    /// Another interface with the ifindex of one that went away would be given what that one had.
    #[test]
    fn a_slave_that_joins_takes_the_place_of_one_that_went_away() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path()).unwrap();
        paths.make_run_of(&bond0()).unwrap();
        let shape = Shape { pair: None, port: None, datapath: "tc".to_owned(), queues: 1 };
        let mut record = Record::new(&paths, &bond0(), shape);
        let [former, next, other] = [(3, 1), (3, 2), (4, 3)].map(|(ifindex, last)| Found {
            ifindex,
            name: "nic0".to_owned(),
            kind: None,
            permanent_mac: None,
            mac: crate::sys::testing::mac(last),
            lower: None,
            alias: None,
            mtu: 1500,
            up: true,
            allmulti: false,
            promisc: false,
            addr_gen_mode: None,
            layer3: std::sync::Arc::default(),
            features: Vec::new(),
            unicast: Vec::new(),
        });
        for found in [former, other.clone()] {
            record.add(found.clone()).unwrap();
            record.depart(found.ifindex).unwrap();
        }
        record.add(next.clone()).unwrap();
        assert_eq!((record.slaves(), record.away()), (&[next][..], &[other][..]));
    }

    #[test]
    fn a_saved_record_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let place = Location::at(directory.path());
        let read = || Record::read_at(place.clone(), &bond0(), Trust::Ours).unwrap();
        assert_eq!(read(), None);
        let record = Record {
            version: VERSION,
            bond: bond0(),
            pair: Some(RecordedPair::new(bond0(), InterfaceName::new("bond0-port").unwrap())),
            port: None,
            datapath: "tc".into(),
            queues: 16,
            slaves: Vec::new(),
            away: Vec::new(),
            taken: None,
            configured: Configured::default(),
            trial: Some(Trial::within(Duration::from_secs(60))),
            place: place.clone(),
            read_as: VERSION,
            unrestored: false,
        };
        record.save().unwrap();
        assert_eq!(read(), Some(record));
    }
}
