//! The maps that agent and packets share.

use std::{
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
    counters::SlotStats,
    mac::Mac,
    names,
};

use super::{DataPlaneError, attach::take, mapped::Mapped};
use crate::sys::directory::{Directory, Location, Trust};

/// The maps that agent and packets share, mapped into memory where they are words.
pub struct Maps {
    active: Mapped<ActiveWord>,
    slaves: Mapped<SlaveEntry>,
    bond: Mapped<BondEntry>,
    /// BOND has words, and is compared as a whole: to see what somebody else has written.
    wanted_bond: Mutex<BondEntry>,
    stats: Mutex<Box<dyn Counters>>,
    probes: Mapped<ProbeTimes>,
    targets: Mapped<Targets>,
    guard: Mapped<GuardEntry>,
    /// [`WireMacs`], word by word.
    wire_macs: Mapped<u64>,
    learned: Mapped<u64>,
    /// TARGETS, as BOND.
    wanted_targets: Mutex<Targets>,
}

/// Counts what was sent, received and dropped, by slot.
pub trait Counters: Send {
    /// Returns all CPUs' counters of one slot, or of [`bond_common::abi::PORT_STATS`].
    fn read(&self, index: u32) -> Result<SlotStats, DataPlaneError>;

    /// Sets a slot's counters to 0.
    fn reset(&mut self, index: u32) -> Result<(), DataPlaneError>;
}

impl Counters for PerCpuArray<MapData, SlotStats> {
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
fn mapped<T: Pod>(name: &'static str, map: impl AsFd, length: usize) -> Result<Mapped<T>, DataPlaneError> {
    Mapped::new(map.as_fd(), length)
        .map_err(|source| DataPlaneError::Pin { path: PathBuf::from(name), source })
}

impl Maps {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataPlaneError> {
        let counters = PerCpuArray::try_from(take(object, names::STATS)?).map_err(stats_error)?;
        let array = |name| match take(object, name)? {
            Map::Array(data) => Ok(OfMap(data)),
            _ => Err(DataPlaneError::Missing(name)),
        };
        Self::of(array, Box::new(counters))
    }

    /// Opens the maps of a bond that another process has made, from their pins: to look at, whoever's they are. Nothing is
    /// written through them.
    pub fn open(dir: &Location) -> Result<Self, DataPlaneError> {
        let pin_error = |source| DataPlaneError::Pin { path: dir.path(), source };
        Self::open_in(&dir.open(Trust::Anyones).map_err(pin_error)?)
    }

    pub(super) fn open_in(dir: &Directory) -> Result<Self, DataPlaneError> {
        let map = |name: &'static str| {
            MapData::from_pin(dir.path_of(name)).map_err(|source| DataPlaneError::Map { name, source })
        };
        let counters = PerCpuArray::try_from(Map::PerCpuArray(map(names::STATS)?)).map_err(stats_error)?;
        Self::of(|name| map(name).map(OfMap), Box::new(counters))
    }

    /// Maps what `source` opens by the maps' names: memory that others share.
    pub(in crate::sys) fn of<F: AsFd>(
        mut source: impl FnMut(&'static str) -> Result<F, DataPlaneError>,
        counters: Box<dyn Counters>,
    ) -> Result<Self, DataPlaneError> {
        let bond: Mapped<BondEntry> = mapped(names::BOND, source(names::BOND)?, 1)?;
        Ok(Self {
            active: mapped(names::ACTIVE, source(names::ACTIVE)?, 1)?,
            slaves: mapped(names::SLAVES, source(names::SLAVES)?, MAX_SLAVES)?,
            wanted_bond: Mutex::new(bond.load(0)),
            bond,
            stats: Mutex::new(counters),
            probes: mapped(names::PROBES, source(names::PROBES)?, MAX_SLAVES)?,
            targets: mapped(names::TARGETS, source(names::TARGETS)?, 1)?,
            guard: mapped(names::GUARD, source(names::GUARD)?, 1)?,
            wire_macs: mapped(names::WIRE_MACS, source(names::WIRE_MACS)?, MAX_SLAVES)?,
            learned: mapped(names::LEARNED, source(names::LEARNED)?, 1)?,
            wanted_targets: Mutex::default(),
        })
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

    pub fn active(&self) -> ActiveWord {
        self.active.load(0)
    }

    /// Changes ACTIVE by compare-and-swap, asking `change` again if somebody else was faster.
    /// Returns what was stored.
    pub fn update_active(&self, change: impl Fn(ActiveWord) -> ActiveWord) -> ActiveWord {
        let word = self.active.word(0, 0);
        let mut seen = word.load(Ordering::Acquire);
        loop {
            let next = change(ActiveWord::from_bits(seen));
            match word.compare_exchange(seen, next.bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return next,
                Err(other) => seen = other,
            }
        }
    }

    /// Changes ACTIVE if it is still what the caller knows; else says what it is.
    pub fn exchange_active(&self, known: ActiveWord, next: ActiveWord) -> Result<(), ActiveWord> {
        let word = self.active.word(0, 0);
        let exchanged = word.compare_exchange(known.bits(), next.bits(), Ordering::AcqRel, Ordering::Acquire);
        exchanged.map(drop).map_err(ActiveWord::from_bits)
    }

    /// Stores ACTIVE once more as it is, with the generation that follows `known`. Returns what was stored.
    pub fn recount_active(&self, known: ActiveWord) -> ActiveWord {
        self.update_active(|word| known.next(word.active(), word.draining(), word.usable()))
    }

    /// The order in which the carrier guard tries slots.
    pub fn set_rank(&self, rank: Rank) {
        self.guard.word(0, GuardEntry::RANK).store(rank.bits(), Ordering::Release);
    }

    /// What this agent knows of ACTIVE.
    pub fn set_known(&self, word: ActiveWord) {
        self.guard.word(0, GuardEntry::KNOWN).store(word.bits(), Ordering::Release);
    }

    pub fn guard(&self) -> GuardEntry {
        self.guard.load(0)
    }

    pub fn slave(&self, slot: Slot) -> SlaveEntry {
        self.slaves.load(slot.index())
    }

    pub fn set_slave(&self, slot: Slot, entry: SlaveEntry) {
        // Frames go by the port before there is a queue for which they have to.
        if entry.queue_id() != 0 {
            self.choose_way(true);
        }
        self.slaves.store(slot.index(), entry);
        self.wire_macs.store(slot.index(), WireMacs::word_of(&entry));
        self.choose_way(self.has_queues());
    }

    fn choose_way(&self, has_queues: bool) {
        let mut wanted = self.wanted_bond();
        let with_way = with_way(*wanted, has_queues);
        if with_way != *wanted {
            *wanted = with_way;
            self.bond.store(0, with_way);
        }
    }

    fn has_queues(&self) -> bool {
        Slot::all().any(|slot| self.slave(slot).queue_id() != 0)
    }

    pub fn bond(&self) -> BondEntry {
        self.bond.load(0)
    }

    pub fn set_bond(&self, entry: BondEntry) {
        let mut wanted = self.wanted_bond();
        *wanted = with_way(entry, self.has_queues());
        self.bond.store(0, *wanted);
    }

    /// Whether BOND is as it was given.
    pub fn has_wanted_bond(&self) -> bool {
        let wanted = self.wanted_bond();
        self.bond() == *wanted
    }

    /// What BOND was given last. While another thread gives it something else, the two differ for a moment.
    pub fn wanted_bond(&self) -> MutexGuard<'_, BondEntry> {
        // Poisoned or not, it is one entry or the other.
        self.wanted_bond.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When a slave heard something.
    pub fn probe_times(&self, slot: Slot) -> ProbeTimes {
        self.probes.load(slot.index())
    }

    /// A slave is new in its slot: what the one before it heard is not its own.
    pub fn reset_probe_times(&self, slot: Slot) {
        self.probes.store(slot.index(), ProbeTimes::NEVER);
    }

    /// Whom the next probes ask.
    pub fn set_targets(&self, targets: Targets) {
        let mut wanted = self.wanted_targets();
        *wanted = targets;
        self.targets.store(0, targets);
    }

    /// Stores TARGETS again if another process has changed it. Returns whether it had.
    pub fn restore_targets(&self) -> bool {
        let wanted = self.wanted_targets();
        let is_changed = *wanted != Targets::default() && self.targets.load(0) != *wanted;
        if is_changed {
            self.targets.store(0, *wanted);
        }
        is_changed
    }

    fn wanted_targets(&self) -> MutexGuard<'_, Targets> {
        // Poisoned or not, it is one round's or another's.
        self.wanted_targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether WIRE_MACS has at this slot what SLAVES is to have there.
    pub fn has_wire_mac(&self, slot: Slot, entry: &SlaveEntry) -> bool {
        self.wire_macs.load(slot.index()) == WireMacs::word_of(entry)
    }

    /// The MAC of the host behind an existing port; zero while it is not known.
    pub fn learned(&self) -> Mac {
        Mac::from_word(self.learned.load(0))
    }

    pub fn set_learned(&self, mac: Mac) {
        self.learned.store(0, mac.to_word());
    }

    /// All CPUs' counters of one slot, or of [`bond_common::abi::PORT_STATS`].
    pub fn stats(&self, index: u32) -> Result<SlotStats, DataPlaneError> {
        self.counters().read(index)
    }

    /// A slot's counters from 0 on, for a slave that comes into it.
    pub fn reset_stats(&self, slot: Slot) -> Result<(), DataPlaneError> {
        self.counters().reset(slot.index() as u32)
    }

    fn counters(&self) -> MutexGuard<'_, Box<dyn Counters>> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// BOND with what follows from the slaves: whether frames go by the port.
fn with_way(entry: BondEntry, has_queues: bool) -> BondEntry {
    let by_port = entry.has(BondEntry::NETKIT) && has_queues;
    let flags = entry.flags() & !BondEntry::BY_PORT;
    entry.with_flags(if by_port { flags | BondEntry::BY_PORT } else { flags })
}
