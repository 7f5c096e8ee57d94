//! The maps that agent and packets share, to read: [`super::MapMirror`] alone writes them.

use std::{
    cmp::Reverse,
    os::fd::{AsFd, BorrowedFd},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use aya::{
    Ebpf, Pod,
    maps::{Map, MapData, MapError, PerCpuArray, PerCpuValues},
};
use bond_common::{
    abi::{
        ActiveWord, BondEntry, GuardEntry, MAX_SLAVES, ProbeTimes, Rank, SlaveEntry, Slot, Targets, WireMacs,
    },
    behind::{BehindEntry, BehindKey},
    counters::SlotStats,
    mac::Mac,
    names,
};

use super::{
    ClockMaps, DataPlaneError,
    attach::take,
    behind::{BehindMap, KernelBehind},
    heard::{HeardMap, KernelHeard},
    mapped::Mapped,
    words,
};
use crate::sys::directory::{Directory, Location, Trust};

/// The maps that agent and packets share, mapped into memory where they are words.
pub struct Maps {
    active: Mapped<ActiveWord>,
    slaves: Mapped<SlaveEntry>,
    bond: Mapped<BondEntry>,
    stats: Mutex<Box<dyn SlotCounters>>,
    probes: Mapped<ProbeTimes>,
    targets: Mapped<Targets>,
    guard: Mapped<GuardEntry>,
    /// [`WireMacs`], word by word.
    wire_macs: Mapped<u64>,
    learned: Mapped<u64>,
    /// None for a bond that an earlier version has left.
    clock: Option<ClockMaps>,
    /// None for a bond that an earlier version has left.
    behind: Option<Box<dyn BehindMap>>,
    /// None for a bond that an earlier version has left.
    heard: Option<Box<dyn HeardMap>>,
}

/// Counts what was sent, received and dropped, by slot.
pub trait SlotCounters: Send {
    /// Returns all CPUs' counters of one slot, or of [`bond_common::abi::PORT_STATS`].
    ///
    /// # Errors
    /// The map cannot be read, or has no such index.
    fn read(&self, index: u32) -> Result<SlotStats, DataPlaneError>;

    /// Sets a slot's counters to 0.
    ///
    /// # Errors
    /// The map cannot be written, or has no such index.
    fn reset(&mut self, index: u32) -> Result<(), DataPlaneError>;
}

impl SlotCounters for PerCpuArray<MapData, SlotStats> {
    fn read(&self, index: u32) -> Result<SlotStats, DataPlaneError> {
        let mut sum = SlotStats::default();
        for of_one_cpu in self.get(&index, 0).map_err(stats_error)?.iter() {
            sum.add(of_one_cpu);
        }
        Ok(sum)
    }

    fn reset(&mut self, index: u32) -> Result<(), DataPlaneError> {
        let cpus = self.get(&index, 0).map_err(stats_error)?.len();
        let zero = PerCpuValues::try_from(vec![SlotStats::default(); cpus]);
        let zero = zero.map_err(|source| stats_error(source.into()))?;
        self.set(index, zero, 0).map_err(stats_error)
    }
}

fn stats_error(source: MapError) -> DataPlaneError {
    DataPlaneError::Map { name: names::STATS, source }
}

/// An array map's descriptor.
struct OfMap(MapData);

impl AsFd for OfMap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd().as_fd()
    }
}

/// `length` values of the map of this name, in memory.
pub(super) fn mapped<T: Pod>(
    name: &'static str,
    map: impl AsFd,
    length: usize,
) -> Result<Mapped<T>, DataPlaneError> {
    Mapped::new(map.as_fd(), length)
        .map_err(|source| DataPlaneError::Pin { path: PathBuf::from(name), source })
}

impl Maps {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataPlaneError> {
        let counters = PerCpuArray::try_from(take(object, names::STATS)?).map_err(stats_error)?;
        let behind = KernelBehind::of_map(take(object, names::BEHIND)?)?;
        let heard = KernelHeard::of_map(take(object, names::HEARD)?)?;
        let array = |name| match take(object, name)? {
            Map::Array(data) => Ok(OfMap(data)),
            _ => Err(DataPlaneError::Missing(name)),
        };
        let maps = Self::of(true, array, Box::new(counters))?;
        Ok(maps.with_behind(Box::new(behind)).with_heard(Box::new(heard)))
    }

    /// Opens the maps of a bond that another process has made, from their pins: to read, whichever process owns them. Nothing is
    /// written through them.
    ///
    /// # Errors
    /// The directory or a pin cannot be opened, or a map has another layout.
    pub fn open(dir: &Location) -> Result<Self, DataPlaneError> {
        let pin_error = |source| DataPlaneError::Pin { path: dir.path(), source };
        Self::open_in(&dir.open(Trust::Anyones).map_err(pin_error)?)
    }

    pub(super) fn open_in(dir: &Directory) -> Result<Self, DataPlaneError> {
        let map = |name: &'static str| {
            MapData::from_pin(dir.path_of(name)).map_err(|source| DataPlaneError::Map { name, source })
        };
        let counters = PerCpuArray::try_from(Map::PerCpuArray(map(names::STATS)?)).map_err(stats_error)?;
        let has_clock = names::CLOCK_MAPS.iter().all(|name| dir.has(name));
        let maps = Self::of(has_clock, |name| map(name).map(OfMap), Box::new(counters))?;
        if !dir.has(names::BEHIND) {
            return Ok(maps);
        }
        let behind = KernelBehind::of_map(Map::LruHashMap(map(names::BEHIND)?))?;
        Ok(maps.with_behind(Box::new(behind)))
    }

    /// Maps what `source` opens by the maps' names: memory that others share. Those of the clock are mapped if
    /// they are there.
    pub(in crate::sys) fn of<F: AsFd>(
        has_clock: bool,
        mut source: impl FnMut(&'static str) -> Result<F, DataPlaneError>,
        counters: Box<dyn SlotCounters>,
    ) -> Result<Self, DataPlaneError> {
        Ok(Self {
            active: mapped(names::ACTIVE, source(names::ACTIVE)?, 1)?,
            slaves: mapped(names::SLAVES, source(names::SLAVES)?, MAX_SLAVES)?,
            bond: mapped(names::BOND, source(names::BOND)?, 1)?,
            stats: Mutex::new(counters),
            probes: mapped(names::PROBES, source(names::PROBES)?, MAX_SLAVES)?,
            targets: mapped(names::TARGETS, source(names::TARGETS)?, 1)?,
            guard: mapped(names::GUARD, source(names::GUARD)?, 1)?,
            wire_macs: mapped(names::WIRE_MACS, source(names::WIRE_MACS)?, MAX_SLAVES)?,
            learned: mapped(names::LEARNED, source(names::LEARNED)?, 1)?,
            clock: has_clock.then(|| ClockMaps::of(&mut source)).transpose()?,
            behind: None,
            heard: None,
        })
    }

    pub(super) fn with_behind(self, behind: Box<dyn BehindMap>) -> Self {
        Self { behind: Some(behind), ..self }
    }

    pub(super) fn with_heard(self, heard: Box<dyn HeardMap>) -> Self {
        Self { heard: Some(heard), ..self }
    }

    /// The version of the maps under `dir`, whatever it is.
    pub(super) fn abi_version(dir: &Directory) -> Result<u32, DataPlaneError> {
        const WORD: usize = BondEntry::ABI_VERSION_AT / 8;
        let map = MapData::from_pin(dir.path_of(names::BOND))
            .map_err(|source| DataPlaneError::Map { name: names::BOND, source })?;
        let entry: Mapped<[u64; WORD + 1]> = mapped(names::BOND, OfMap(map), 1)?;
        // The lower half: the numbers of this machine's kernel and programs have one byte order.
        let word = entry.word(0, WORD).load(Ordering::Acquire).to_ne_bytes();
        Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    }

    /// Returns the maps of the clock; None for a bond that an earlier version has left.
    pub fn clock(&self) -> Option<&ClockMaps> {
        self.clock.as_ref()
    }

    /// Returns the MAC addresses behind the bond, those that sent last first; none for a bond that an earlier version has
    /// left.
    ///
    /// # Errors
    /// The kernel refuses to read them.
    pub fn behind(&self) -> Result<Vec<(BehindKey, BehindEntry)>, DataPlaneError> {
        let Some(behind) = &self.behind else { return Ok(Vec::new()) };
        let mut found = behind.read()?;
        found.sort_by_key(|(_, entry)| Reverse(entry.seen));
        Ok(found)
    }

    /// Adds a MAC address behind the bond, unless it is known.
    ///
    /// # Errors
    /// The kernel refuses to write the map.
    pub(super) fn add_behind(&self, key: &BehindKey, entry: &BehindEntry) -> Result<(), DataPlaneError> {
        self.behind.as_ref().map_or(Ok(()), |behind| behind.add(key, entry))
    }

    /// Returns what notes the stations that the active slave has heard since a failover. None for a bond that an earlier version
    /// has left, and for maps that are only read.
    pub fn heard(&self) -> Option<&dyn HeardMap> {
        self.heard.as_deref()
    }

    /// Returns the number of frames for the bond that the slave in this slot received as a backup; 0 for a bond that an earlier
    /// version has left.
    pub fn misdirected(&self, slot: Slot) -> u64 {
        self.clock().map_or(0, |clock| clock.misdirected(slot))
    }

    /// Returns the word in ACTIVE.
    pub fn active(&self) -> ActiveWord {
        self.active.load(0)
    }

    /// Changes ACTIVE by compare-and-swap, and asks `change` again where the data plane or another process was faster.
    /// Returns what was stored.
    pub(super) fn update_active(&self, change: impl Fn(ActiveWord) -> ActiveWord) -> ActiveWord {
        words::update_active(self.active.word(0, 0), change)
    }

    /// Changes ACTIVE by compare-and-swap, if it still is `known`.
    ///
    /// # Errors
    /// ACTIVE holds this word instead.
    pub(super) fn exchange_active(&self, known: ActiveWord, next: ActiveWord) -> Result<(), ActiveWord> {
        words::exchange_active(self.active.word(0, 0), known, next)
    }

    /// Returns the entry in GUARD.
    pub fn guard(&self) -> GuardEntry {
        self.guard.load(0)
    }

    /// Stores the order in which the carrier guard tries slots.
    pub(super) fn store_rank(&self, rank: Rank) {
        self.guard.word(0, GuardEntry::RANK).store(rank.bits(), Ordering::Release);
    }

    /// Stores the time of a failover of the data plane.
    #[cfg(any(test, feature = "fake"))]
    pub(super) fn store_switched_at(&self, now: u64) {
        let mut entry = self.guard();
        entry.note(now);
        self.guard.store(0, entry);
    }

    /// Stores the word of ACTIVE up to which failovers are on record.
    pub(super) fn store_known(&self, word: ActiveWord) {
        self.guard.word(0, GuardEntry::KNOWN).store(word.bits(), Ordering::Release);
    }

    /// Returns the entry of a slot in SLAVES.
    pub fn slave(&self, slot: Slot) -> SlaveEntry {
        self.slaves.load(slot.index())
    }

    /// Stores the entry of a slot in SLAVES, and its MAC address in WIRE_MACS.
    pub(super) fn store_slave(&self, slot: Slot, entry: SlaveEntry) {
        self.slaves.store(slot.index(), entry);
        self.store_wire_mac(slot, WireMacs::word_of(&entry));
    }

    pub(super) fn store_wire_mac(&self, slot: Slot, word: u64) {
        self.wire_macs.store(slot.index(), word);
    }

    /// Returns whether WIRE_MACS has at this slot what belongs to this entry of SLAVES.
    pub(super) fn has_wire_mac(&self, slot: Slot, entry: &SlaveEntry) -> bool {
        self.wire_macs.load(slot.index()) == WireMacs::word_of(entry)
    }

    /// Returns the entry in BOND.
    pub fn bond(&self) -> BondEntry {
        self.bond.load(0)
    }

    pub(super) fn store_bond(&self, entry: BondEntry) {
        self.bond.store(0, entry);
    }

    /// Returns when a slave received what the ARP monitor counts.
    pub fn probe_times(&self, slot: Slot) -> ProbeTimes {
        self.probes.load(slot.index())
    }

    /// Forgets what the former slave of a slot received.
    pub(super) fn reset_probe_times(&self, slot: Slot) {
        self.probes.store(slot.index(), ProbeTimes::NEVER);
    }

    /// Returns the targets of the last round of probes.
    pub(super) fn targets(&self) -> Targets {
        self.targets.load(0)
    }

    pub(super) fn store_targets(&self, targets: Targets) {
        self.targets.store(0, targets);
    }

    /// Returns the MAC address of the host behind an existing port; zero while it is not known.
    pub fn learned(&self) -> Mac {
        Mac::from_word(self.learned.load(0))
    }

    pub(super) fn store_learned(&self, mac: Mac) {
        self.learned.store(0, mac.to_word());
    }

    /// Returns all CPUs' counters of one slot, or of [`bond_common::abi::PORT_STATS`].
    ///
    /// # Errors
    /// The kernel refuses to read them.
    pub fn stats(&self, index: u32) -> Result<SlotStats, DataPlaneError> {
        self.counters().read(index)
    }

    /// Sets the counters of a slot to 0, for a new slave.
    pub(super) fn reset_stats(&self, slot: Slot) -> Result<(), DataPlaneError> {
        self.counters().reset(slot.index() as u32)
    }

    fn counters(&self) -> MutexGuard<'_, Box<dyn SlotCounters>> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
