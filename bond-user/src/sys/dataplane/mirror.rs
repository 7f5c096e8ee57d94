//! The only writer of the maps that agent and packets share. It keeps one copy of what was written, compares it with what
//! the kernel holds, and reports what another process has written.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bond_common::{
    abi::{ActiveWord, BondEntry, MAX_SLAVES, Rank, SlaveEntry, Slot, Targets},
    behind::{BehindEntry, BehindKey, LastSent, MOST_BEHIND},
    clock::{
        layout::{ANNOUNCE_FRAMES, AnnounceFrame, AnnounceList, ClockEntry},
        monitor::{MonitorEntry, PROBE_FRAMES, ProbeFrame, ProbeList},
    },
    mac::Mac,
    names,
    path::layout::{PathEntry, PathFrame, PathList},
};

use super::{ClockMaps, DataPlaneError, Maps};

/// The maps of one bond, and a copy of what the agent wrote to them. Each copy has a lock of its own, held for stores to
/// memory only, so that the engine thread, which alone writes ACTIVE, never waits for other writers when it switches.
///
/// A map is written and compared under the lock of its copy: a difference is always a write of another process, or in
/// ACTIVE and LEARNED of the data plane.
pub struct MapMirror {
    maps: Arc<Maps>,
    /// ACTIVE, as the agent knows it: stored by the agent, or followed.
    active: Mutex<ActiveWord>,
    entries: Mutex<Entries>,
    guard: Mutex<Guard>,
    /// TARGETS; None before the first round of probes.
    targets: Mutex<Option<Targets>>,
    /// CLOCK; the time at which the agent ran last is not part of it.
    clock: Mutex<ClockEntry>,
    /// ARP_MONITOR.
    monitor: Mutex<MonitorEntry>,
    /// PATH_MONITOR.
    path: Mutex<PathEntry>,
    /// LEARNED; zero until the data plane has learned the MAC address.
    learned: Mutex<Mac>,
    /// The MAC addresses of BEHIND, as they were read last.
    behind: Mutex<HashSet<Mac>>,
    /// Those that devices above bond0 have, macvlans in other namespaces for example. BEHIND has none that is a slave's, too.
    above: Mutex<HashSet<Mac>>,
    /// Changes of these two.
    host_changes: AtomicU64,
}

/// A target of the path monitor, with the frames that probe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathProbe {
    /// The target and the source address, as [`bond_common::path::layout::pair`].
    pub pair: u64,
    /// The offset of what follows the Ethernet header and its tags.
    pub payload: u32,
    /// Without MAC addresses and nonce.
    pub echo: Vec<u8>,
    /// Without MAC addresses.
    pub request: Vec<u8>,
}

/// SLAVES, with WIRE_MACS, and BOND, one flag of which follows from SLAVES.
struct Entries {
    slaves: [SlaveEntry; MAX_SLAVES],
    bond: BondEntry,
}

/// The words of GUARD that the agent writes.
struct Guard {
    rank: Rank,
    known: ActiveWord,
}

impl Entries {
    /// Returns BOND with what follows from the slaves: whether frames are redirected at the port.
    fn bond_with(&self, entry: BondEntry) -> BondEntry {
        let has_queues = self.slaves.iter().any(|slave| slave.queue_id() != 0);
        let by_port = entry.has(BondEntry::NETKIT) && has_queues;
        let flags = entry.flags() & !BondEntry::BY_PORT;
        entry.with_flags(if by_port { flags | BondEntry::BY_PORT } else { flags })
    }

    fn store_bond(&mut self, maps: &Maps, entry: BondEntry) {
        self.bond = self.bond_with(entry);
        maps.store_bond(self.bond);
    }
}

impl MapMirror {
    /// Creates the mirror of maps that no other agent writes. What they hold counts as written.
    pub(super) fn new(maps: Arc<Maps>) -> Self {
        let mut slaves = [SlaveEntry::default(); MAX_SLAVES];
        for (slot, entry) in Slot::all().zip(&mut slaves) {
            *entry = maps.slave(slot);
        }
        let guard = maps.guard();
        Self {
            active: Mutex::new(maps.active()),
            entries: Mutex::new(Entries { slaves, bond: maps.bond() }),
            guard: Mutex::new(Guard { rank: guard.rank(), known: guard.known() }),
            targets: Mutex::default(),
            clock: Mutex::new(maps.clock().map(ClockMaps::entry).unwrap_or_default()),
            monitor: Mutex::new(maps.clock().map(ClockMaps::monitor).unwrap_or_default()),
            path: Mutex::new(maps.clock().map(|clock| clock.path().entry()).unwrap_or_default()),
            learned: Mutex::new(maps.learned()),
            behind: Mutex::default(),
            above: Mutex::default(),
            host_changes: AtomicU64::default(),
            maps,
        }
    }

    /// Returns the maps, to read.
    pub fn maps(&self) -> &Arc<Maps> {
        &self.maps
    }

    /// Returns ACTIVE as the agent knows it.
    pub fn active(&self) -> ActiveWord {
        *locked(&self.active)
    }

    /// Returns what ACTIVE holds if that is not what the agent knows: the data plane has failed over, or another process
    /// has written it.
    pub fn active_change(&self) -> Option<ActiveWord> {
        let found = self.maps.active();
        (found != self.active()).then_some(found)
    }

    /// Takes a word of ACTIVE that the data plane or another process has stored for known.
    pub fn follow_active(&self, word: ActiveWord) {
        *locked(&self.active) = word;
    }

    /// Stores the next word in ACTIVE by compare-and-swap, if ACTIVE is still what the agent knows. Returns the word.
    ///
    /// # Errors
    /// ACTIVE holds this word instead. It is not known yet: [`Self::follow_active`].
    pub fn switch(
        &self,
        active: Option<Slot>,
        draining: Option<Slot>,
        usable: u16,
    ) -> Result<ActiveWord, ActiveWord> {
        let mut known = locked(&self.active);
        let next = known.next(active, draining, usable);
        self.maps.exchange_active(*known, next)?;
        *known = next;
        Ok(next)
    }

    /// Stores ACTIVE once more as it is, with the generation that follows `last`. Returns the word, which is known now.
    pub fn recount_active(&self, last: ActiveWord) -> ActiveWord {
        let mut known = locked(&self.active);
        *known = self.maps.update_active(|word| last.next(word.active(), word.draining(), word.usable()));
        *known
    }

    /// Returns what was written to SLAVES, by slot: the default where a slot is free.
    pub fn slaves(&self) -> [SlaveEntry; MAX_SLAVES] {
        locked(&self.entries).slaves
    }

    /// Returns what was written to SLAVES for this slot: the default if the slot is free.
    pub fn slave(&self, slot: Slot) -> SlaveEntry {
        locked(&self.entries).slaves[slot.index()]
    }

    /// Writes the entry of a slave. Returns whether another process had changed it.
    pub fn set_slave(&self, slot: Slot, entry: SlaveEntry) -> bool {
        let mut entries = locked(&self.entries);
        let was_foreign = self.maps.slave(slot) != entries.slaves[slot.index()];
        self.store_slave(&mut entries, slot, entry);
        was_foreign
    }

    /// Clears the entry of a slave.
    pub fn clear_slave(&self, slot: Slot) {
        self.set_slave(slot, SlaveEntry::default());
    }

    fn store_slave(&self, entries: &mut Entries, slot: Slot, entry: SlaveEntry) {
        let was_by_port = entries.bond.has(BondEntry::BY_PORT);
        entries.slaves[slot.index()] = entry;
        let wanted = entries.bond_with(entries.bond);
        let by_port = wanted.has(BondEntry::BY_PORT);
        // Frames are redirected at the port before there is a queue for which they have to be, and until there is none.
        if by_port && !was_by_port {
            entries.store_bond(&self.maps, wanted);
        }
        self.maps.store_slave(slot, entry);
        if was_by_port && !by_port {
            entries.store_bond(&self.maps, wanted);
        }
    }

    /// Sets the counters and the reception times of a slot to 0, for a new slave.
    ///
    /// # Errors
    /// The counters cannot be written.
    pub fn reset_counters(&self, slot: Slot) -> Result<(), DataPlaneError> {
        self.maps.reset_probe_times(slot);
        if let Some(clock) = self.maps.clock() {
            clock.reset_misdirected(slot);
            clock.path().reset(slot);
        }
        self.maps.reset_stats(slot)
    }

    /// Returns what was written to BOND.
    pub fn bond(&self) -> BondEntry {
        locked(&self.entries).bond
    }

    /// Changes BOND. `change` gets what was written, without the flag BY_PORT's being its concern.
    pub fn update_bond(&self, change: impl FnOnce(BondEntry) -> BondEntry) {
        let mut entries = locked(&self.entries);
        let changed = change(entries.bond);
        entries.store_bond(&self.maps, changed);
    }

    /// Has programs note, or not, which stations the active slave hears.
    pub fn observe(&self, on: bool) {
        if self.bond().has(BondEntry::OBSERVE) != on {
            let flags =
                |flags: u32| if on { flags | BondEntry::OBSERVE } else { flags & !BondEntry::OBSERVE };
            self.update_bond(|bond| bond.with_flags(flags(bond.flags())));
        }
    }

    /// Returns the order that was written for the carrier guard.
    pub fn rank(&self) -> Rank {
        locked(&self.guard).rank
    }

    /// Writes the order in which the carrier guard tries slots. Returns whether another process had changed it.
    pub fn set_rank(&self, rank: Rank) -> bool {
        let mut guard = locked(&self.guard);
        let was_foreign = self.maps.guard().rank() != guard.rank;
        guard.rank = rank;
        self.maps.store_rank(rank);
        was_foreign
    }

    /// Writes to GUARD up to which word of ACTIVE failovers are on record, for the next agent.
    pub fn set_known(&self, word: ActiveWord) {
        let mut guard = locked(&self.guard);
        guard.known = word;
        self.maps.store_known(word);
    }

    /// Writes the targets of the next round of probes.
    pub fn set_targets(&self, targets: Targets) {
        let mut written = locked(&self.targets);
        *written = Some(targets);
        self.maps.store_targets(targets);
    }

    /// Returns what was written to CLOCK.
    pub fn clock(&self) -> ClockEntry {
        *locked(&self.clock)
    }

    /// Changes CLOCK. A bond without a clock has none.
    pub fn update_clock(&self, change: impl FnOnce(&mut ClockEntry)) {
        let Some(maps) = self.maps.clock() else { return };
        let mut written = locked(&self.clock);
        change(&mut written);
        maps.store(*written);
    }

    /// Has the tick send these frames from now on, which announce addresses, and then those which announce MAC addresses:
    /// at most [`ANNOUNCE_FRAMES`]; the others are left out, as are frames that are too long. Returns how many addresses and
    /// MAC addresses the tick announces.
    pub fn set_announcements(
        &self,
        addresses: &[impl AsRef<[u8]>],
        macs: &[impl AsRef<[u8]>],
    ) -> (usize, usize) {
        let Some(maps) = self.maps.clock() else { return (0, 0) };
        let addresses =
            addresses.iter().filter_map(|frame| AnnounceFrame::new(frame.as_ref(), AnnounceFrame::ADDRESS));
        let macs = macs.iter().filter_map(|frame| AnnounceFrame::new(frame.as_ref(), AnnounceFrame::MAC));
        let frames: Vec<_> = addresses.chain(macs).collect();
        let mut written = locked(&self.clock);
        // The tick may be reading the other bank.
        let bank = 1 - AnnounceList::from_bits(written.list).bank;
        let left_out = u16::try_from(frames.len().saturating_sub(ANNOUNCE_FRAMES)).unwrap_or(u16::MAX);
        let mut list = AnnounceList { bank, count: 0, left_out };
        let (mut addresses, mut macs) = (0, 0);
        for frame in frames.into_iter().take(ANNOUNCE_FRAMES) {
            *(if frame.kind == AnnounceFrame::MAC { &mut macs } else { &mut addresses }) += 1;
            maps.store_frame(list.entry(list.count), frame);
            list.count += 1;
        }
        written.list = list.bits();
        maps.store(*written);
        (addresses, macs)
    }

    /// Adds MAC addresses behind the bond to BEHIND, each with the time at which it sent last, in nanoseconds of CLOCK_MONOTONIC.
    /// What has sent through the bond stays as it is: only as many are added as there is room for.
    ///
    /// # Errors
    /// The kernel refuses to read or write the map; some may have been added.
    pub fn add_behind(&self, macs: impl IntoIterator<Item = (BehindKey, u64)>) -> Result<(), DataPlaneError> {
        let known: BTreeSet<_> = self.maps.behind()?.into_iter().map(|(key, _)| key).collect();
        let switches = self.maps.active().switches();
        let new = macs.into_iter().filter(|(key, _)| !known.contains(key));
        for (key, sent_at) in new.take(MOST_BEHIND.saturating_sub(known.len())) {
            let entry = BehindEntry { seen: LastSent::new(sent_at, switches), announced: 0 };
            self.maps.add_behind(&key, &entry)?;
        }
        Ok(())
    }

    /// Changes ARP_MONITOR. A bond without a clock has none.
    pub fn update_monitor(&self, change: impl FnOnce(&mut MonitorEntry)) {
        let Some(maps) = self.maps.clock() else { return };
        let mut written = locked(&self.monitor);
        let before = *written;
        change(&mut written);
        if *written != before {
            maps.store_monitor(*written);
        }
    }

    /// Has the tick send these probes while no agent runs, with the source address of the slave's frames in place of zero. If
    /// one of them is too long, or there are too many, the tick does not monitor: silence would mean nothing. Returns
    /// whether it does.
    pub fn set_probes(&self, frames: &[impl AsRef<[u8]>]) -> bool {
        let Some(maps) = self.maps.clock() else { return false };
        let frames: Option<Vec<_>> =
            frames.iter().map(|frame| ProbeFrame::new(frame.as_ref(), ProbeFrame::ADDRESS)).collect();
        let frames = frames.filter(|frames| frames.len() <= PROBE_FRAMES);
        let mut written = locked(&self.monitor);
        // The tick may be reading the other bank.
        let bank = 1 - ProbeList::from_bits(written.list).bank;
        let mut list = ProbeList { bank, count: 0, is_prepared: frames.is_some() };
        for frame in frames.into_iter().flatten() {
            maps.store_probe(list.entry(list.count), frame);
            list.count += 1;
        }
        written.list = list.bits();
        maps.store_monitor(*written);
        list.is_prepared
    }

    /// Returns what was written to PATH_MONITOR.
    pub fn path(&self) -> PathEntry {
        *locked(&self.path)
    }

    /// Reads which MAC addresses have sent through the bond, for [`Self::is_behind`].
    ///
    /// # Errors
    /// The kernel refuses to read the map.
    pub fn read_behind(&self) -> Result<(), DataPlaneError> {
        let found = self.maps.behind()?;
        self.replace_hosts(&self.behind, found.iter().map(|(key, _)| key.mac()).collect());
        Ok(())
    }

    /// Sets which MAC addresses devices above bond0 have, for [`Self::is_behind`].
    pub fn set_above(&self, macs: &[Mac]) {
        self.replace_hosts(&self.above, macs.iter().copied().collect());
    }

    fn replace_hosts(&self, known: &Mutex<HashSet<Mac>>, macs: HashSet<Mac>) {
        let mut known = locked(known);
        if *known != macs {
            *known = macs;
            self.host_changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Returns how often what [`Self::is_behind`] says has changed.
    pub fn host_changes(&self) -> u64 {
        self.host_changes.load(Ordering::Acquire)
    }

    /// Returns whether a MAC address is that of a host behind the bond, or of a device above it, as of the last
    /// [`Self::read_behind`] and [`Self::set_above`].
    pub fn is_behind(&self, mac: Mac) -> bool {
        locked(&self.behind).contains(&mac) || locked(&self.above).contains(&mac)
    }

    /// Changes PATH_MONITOR, but for its frames. A bond without a clock has none.
    pub fn update_path(&self, change: impl FnOnce(&mut PathEntry)) {
        let Some(maps) = self.maps.clock() else { return };
        let mut written = locked(&self.path);
        let before = *written;
        change(&mut written);
        if *written != before {
            maps.path().store(*written);
        }
    }

    /// Has the path monitor probe these targets from now on, each with its echo and its request, and the settings that `change`
    /// makes. What is known of former targets is forgotten. Frames that are too long are left out.
    pub fn set_path(&self, targets: &[PathProbe], change: impl FnOnce(&mut PathEntry)) {
        let Some(maps) = self.maps.clock() else { return };
        let mut written = locked(&self.path);
        // The tick may be reading the other bank.
        let mut list = PathList { bank: 1 - PathList::from_bits(written.list).bank, count: 0 };
        written.targets = Default::default();
        for (target, place) in targets.iter().zip(&mut written.targets) {
            let index = list.echo(list.count);
            let [echo, request] =
                [&target.echo, &target.request].map(|frame| PathFrame::new(frame, target.payload));
            let (Some(echo), Some(request)) = (echo, request) else { break };
            maps.path().store_frame(index, echo);
            maps.path().store_frame(index + 1, request);
            *place = target.pair;
            list.count += 1;
        }
        written.list = list.bits();
        written.epoch = written.epoch.wrapping_add(1);
        change(&mut written);
        maps.path().reset_targets();
        maps.path().store(*written);
    }

    /// Compares every map with what was written, ACTIVE excepted, and writes it again where they differ. Returns the names
    /// of the maps that another process had changed.
    pub fn restore(&self) -> BTreeSet<&'static str> {
        let mut foreign = self.restore_entries();
        let guard = locked(&self.guard);
        let found = self.maps.guard();
        if found.rank() != guard.rank {
            self.maps.store_rank(guard.rank);
            foreign.insert(names::GUARD);
        }
        if found.known() != guard.known {
            self.maps.store_known(guard.known);
            foreign.insert(names::GUARD);
        }
        drop(guard);
        let written = locked(&self.targets);
        // While the agent was late, the tick may have stored which slot probes.
        let holds = |targets: &Targets| self.maps.targets().have_targets_of(targets);
        if let Some(targets) = written.filter(|targets| !holds(targets)) {
            self.maps.store_targets(targets);
            foreign.insert(names::TARGETS);
        }
        drop(written);
        if let Some(maps) = self.maps.clock() {
            let written = locked(&self.clock);
            if !maps.holds(*written) {
                maps.store(*written);
                foreign.insert(names::CLOCK);
            }
            let written = locked(&self.monitor);
            if maps.monitor() != *written {
                maps.store_monitor(*written);
                foreign.insert(names::ARP_MONITOR);
            }
            let written = locked(&self.path);
            if maps.path().entry() != *written {
                maps.path().store(*written);
                foreign.insert(names::PATH_MONITOR);
            }
        }
        let mut learned = locked(&self.learned);
        let found = self.maps.learned();
        if learned.is_zero() {
            *learned = found;
        } else if found != *learned {
            self.maps.store_learned(*learned);
            foreign.insert(names::LEARNED);
        }
        foreign
    }

    fn restore_entries(&self) -> BTreeSet<&'static str> {
        let mut foreign = BTreeSet::new();
        let mut entries = locked(&self.entries);
        for slot in Slot::all() {
            let entry = entries.slaves[slot.index()];
            let map = if self.maps.slave(slot) != entry {
                names::SLAVES
            } else if !self.maps.has_wire_mac(slot, &entry) {
                names::WIRE_MACS
            } else {
                continue;
            };
            self.maps.store_slave(slot, entry);
            foreign.insert(map);
        }
        if self.maps.bond() != entries.bond {
            let bond = entries.bond;
            entries.store_bond(&self.maps, bond);
            foreign.insert(names::BOND);
        }
        foreign
    }
}

fn locked<T>(copy: &Mutex<T>) -> MutexGuard<'_, T> {
    // Poisoned or not, it is one value or the other.
    copy.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{
        super::fake::{maps_in, mirror_in},
        *,
    };

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    fn entry(ifindex: u32) -> SlaveEntry {
        SlaveEntry::new(ifindex, mac(1), mac(2))
    }

    /// A mirror, and the maps as another process has them.
    fn mirrored(directory: &tempfile::TempDir) -> (MapMirror, Maps) {
        (mirror_in(directory.path()), maps_in(directory.path()))
    }

    fn targets(last: u8) -> Targets {
        let mut targets = Targets::default().with_prober(slot(0));
        targets.set_ipv4(0, [192, 0, 2, last], [192, 0, 2, 9]);
        targets
    }

    /// Writes everything that an agent writes.
    fn write_all(mirror: &MapMirror) {
        assert!(!mirror.set_slave(slot(0), entry(7)));
        mirror.update_bond(|bond| bond.with_flags(BondEntry::GUARD));
        assert!(!mirror.set_rank(Rank::new([slot(3)])));
        mirror.set_known(ActiveWord::default().next(Some(slot(0)), None, 1));
        mirror.set_targets(targets(1));
    }

    #[test]
    fn a_foreign_write_is_restored_and_reported_by_its_map() {
        type Write = fn(&Maps);
        let table: [(&str, Write); 7] = [
            (names::SLAVES, |maps| maps.store_slave(slot(0), entry(8))),
            (names::SLAVES, |maps| maps.store_slave(slot(5), entry(7))),
            (names::WIRE_MACS, |maps| maps.store_wire_mac(slot(0), 99)),
            (names::BOND, |maps| maps.store_bond(maps.bond().with_flags(0))),
            (names::GUARD, |maps| maps.store_rank(Rank::new([slot(2)]))),
            (names::GUARD, |maps| maps.store_known(ActiveWord::default())),
            (names::TARGETS, |maps| maps.store_targets(targets(2))),
        ];
        for (row, (map, write)) in table.into_iter().enumerate() {
            let directory = tempfile::tempdir().unwrap();
            let (mirror, other) = mirrored(&directory);
            assert_eq!(mirror.restore(), BTreeSet::new(), "nothing was written");
            write_all(&mirror);
            assert_eq!(mirror.restore(), BTreeSet::new(), "its own writes are no foreign ones");
            let written = (other.slave(slot(0)), other.bond(), other.guard(), other.targets());
            write(&other);
            assert_eq!(mirror.restore(), BTreeSet::from([map]), "row {row}");
            assert_eq!(
                (other.slave(slot(0)), other.bond(), other.guard(), other.targets()),
                written,
                "{map}"
            );
            assert_eq!(other.slave(slot(5)), SlaveEntry::default(), "{map}");
            assert_eq!(mirror.restore(), BTreeSet::new(), "{map} once");
        }
    }

    #[test]
    fn probes_are_prepared_in_turn_and_a_foreign_write_is_restored() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, other) = mirrored(&directory);
        let clock = other.clock().unwrap();
        let list = || ProbeList::from_bits(clock.monitor().list);
        mirror.update_monitor(|entry| entry.interval = 7);
        assert!(!clock.monitor().is_ready());
        for (frames, bank, is_prepared) in [
            (vec![vec![1; 42]; 3], 1, true),
            (vec![vec![2; 86]; 32], 0, true),
            (vec![], 1, true),
            (vec![vec![3; 98]], 0, false),
            (vec![vec![4; 42]; 33], 1, false),
        ] {
            assert_eq!(mirror.set_probes(&frames), is_prepared, "{}", frames.len());
            let count = if is_prepared { frames.len() as u32 } else { 0 };
            assert_eq!(list(), ProbeList { bank, count, is_prepared });
            assert_eq!((clock.monitor().interval, clock.monitor().is_ready()), (7, is_prepared));
        }
        assert_eq!(mirror.restore(), BTreeSet::new());
        clock.store_monitor(MonitorEntry::default());
        assert_eq!(mirror.restore(), BTreeSet::from([names::ARP_MONITOR]));
        assert_eq!(clock.monitor().interval, 7);
    }

    #[test]
    fn the_slot_that_a_tick_has_probe_is_no_foreign_write() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, other) = mirrored(&directory);
        mirror.set_targets(targets(1));
        let mut of_tick = targets(1);
        of_tick.probe_by(slot(5));
        other.store_targets(of_tick);
        assert_eq!(mirror.restore(), BTreeSet::new());
        assert_eq!(other.targets().prober(), Some(slot(5)));
    }

    #[test]
    fn an_entry_that_is_overwritten_is_compared_first() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, other) = mirrored(&directory);
        write_all(&mirror);
        other.store_slave(slot(0), entry(8));
        other.store_rank(Rank::new([slot(2)]));
        assert!(mirror.set_slave(slot(0), entry(9)) && mirror.set_rank(Rank::new([slot(4)])));
        assert_eq!((other.slave(slot(0)), other.guard().rank()), (entry(9), Rank::new([slot(4)])));
        assert_eq!(mirror.restore(), BTreeSet::new());
    }

    #[test]
    fn active_is_switched_only_from_what_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, other) = mirrored(&directory);
        let first = mirror.switch(Some(slot(0)), None, 0b11).unwrap();
        assert_eq!((other.active(), mirror.active(), mirror.active_change()), (first, first, None));

        let by_guard = first.next(Some(slot(1)), None, 0b10);
        other.exchange_active(first, by_guard).unwrap();
        assert_eq!(mirror.switch(Some(slot(2)), None, 0b100), Err(by_guard));
        assert_eq!(
            (other.active(), mirror.active()),
            (by_guard, first),
            "nothing is stored, nothing is known"
        );
        assert_eq!(mirror.active_change(), Some(by_guard));
        assert_eq!(mirror.restore(), BTreeSet::new(), "ACTIVE is followed, not restored");

        mirror.follow_active(by_guard);
        let next = mirror.switch(Some(slot(2)), None, 0b100).unwrap();
        assert_eq!((next.generation(), other.active()), (by_guard.generation() + 1, next));

        let foreign = ActiveWord::from_bits(7).next(Some(slot(3)), None, 8);
        other.exchange_active(next, foreign).unwrap();
        let recounted = mirror.recount_active(next);
        assert_eq!((recounted.active(), recounted.generation()), (Some(slot(3)), next.generation() + 1));
        assert_eq!((other.active(), mirror.active()), (recounted, recounted));
    }

    #[test]
    fn frames_go_by_the_port_of_a_netkit_pair_while_a_slave_has_a_queue() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, other) = mirrored(&directory);
        let by_port = || other.bond().has(BondEntry::BY_PORT);
        mirror.set_slave(slot(0), entry(7).with_queue_id(2));
        assert!(!by_port(), "no netkit pair");
        mirror.update_bond(|bond| bond.with_flags(BondEntry::NETKIT));
        assert!(by_port());
        mirror.update_bond(|bond| bond.with_flags(BondEntry::NETKIT | BondEntry::GUARD));
        assert!(by_port());
        mirror.set_slave(slot(0), entry(7));
        assert!(!by_port() && other.bond().has(BondEntry::GUARD));
        assert_eq!(mirror.restore(), BTreeSet::new());
    }

    #[test]
    fn a_learned_mac_is_known_from_the_first_comparison_on() {
        let directory = tempfile::tempdir().unwrap();
        let (mirror, other) = mirrored(&directory);
        other.store_learned(mac(7));
        assert_eq!(mirror.restore(), BTreeSet::new(), "the data plane has learned it");
        other.store_learned(mac(8));
        assert_eq!(mirror.restore(), BTreeSet::from([names::LEARNED]));
        assert_eq!(other.learned(), mac(7));
    }
}
