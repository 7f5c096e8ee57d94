//! The maps of one bond and the load-time constants of the programs. bond-common defines their values.

use aya_ebpf::{
    Global,
    btf_maps::{Array, DevMap, HashMap, LruHashMap, PerCpuArray, RingBuf},
    cty::{c_long, c_void},
    helpers::generated::{bpf_for_each_map_elem, bpf_map_lookup_percpu_elem},
    macros::btf_map,
};
use bond_common::{
    abi::{
        ActiveWord, BondEntry, GuardEntry, MAX_SLAVES, Offsets, PORT_STATS, ProbeTimes, SlaveEntry, Slot,
        Targets, WireMacs,
    },
    behind::{BehindEntry, BehindKey, MOST_BEHIND},
    clock::{
        announce::ClaimedRounds,
        layout::{ANNOUNCE_ENTRIES, AnnounceFrame, ClockEntry, TickEntry},
        misdirected::MisdirectedEntry,
        monitor::{MonitorEntry, MonitorState, PROBE_ENTRIES, ProbeFrame},
    },
    counters::SlotStats,
    event::EventRecord,
    heard::{FirstHeard, MOST_HEARD},
    mac::Mac,
    path::layout::{PATH_ENTRIES, PATH_HEARD_ENTRIES, PathEntry, PathFrame, PathHeard, PathState},
};

const MMAPABLE: usize = aya_ebpf::bindings::BPF_F_MMAPABLE as usize;

/// Written by the agent and the data plane by compare-and-swap; read by every packet. One word, which cannot tear.
#[btf_map]
static ACTIVE: Array<ActiveWord, 1, MMAPABLE> = Array::new();

/// Written by the agent, field by field; read by every packet. [`SlaveEntry`] describes the effect of a mix.
#[btf_map]
static SLAVES: Array<SlaveEntry, MAX_SLAVES, MMAPABLE> = Array::new();

/// Written by the agent, field by field; read by every packet. Fields do not depend on each other.
#[btf_map]
static BOND: Array<BondEntry, 1, MMAPABLE> = Array::new();

/// The MAC address of the host behind the port of a bond without bond0. Written once by the data plane; one word.
#[btf_map]
static LEARNED: Array<Mac, 1, MMAPABLE> = Array::new();

/// The device of each slot, for XDP. Written by the agent.
#[btf_map]
static TX_PORTS: DevMap<MAX_SLAVES> = DevMap::new();

/// The port at index 0, for XDP. Written by the agent.
#[btf_map]
static RX_PORT: DevMap<1> = DevMap::new();

/// Written by the data plane, one copy for each CPU; read by the agent, which may read packets without their bytes.
#[btf_map]
static STATS: PerCpuArray<SlotStats, { PORT_STATS as usize + 1 }> = PerCpuArray::new();

/// Written by the data plane, rarely; read by the agent.
#[btf_map]
static EVENTS: RingBuf<EventRecord, 4096> = RingBuf::new();

/// Written by the data plane while [`BondEntry::MONITOR`] is set; read by the agent.
#[btf_map]
static PROBES: Array<ProbeTimes, MAX_SLAVES, MMAPABLE> = Array::new();

/// Written by the agent, word by word; one word of it also by the tick. Read while [`BondEntry::MONITOR`] is set.
/// [`Targets`] describes the effect of a mix.
#[btf_map]
static TARGETS: Array<Targets, 1, MMAPABLE> = Array::new();

/// The agent writes the rank and the known word, the data plane the time; read after the active slave lost its link.
#[btf_map]
static GUARD: Array<GuardEntry, 1, MMAPABLE> = Array::new();

/// Written by the agent, word by word, with SLAVES; read if the MAC address of a frame is none of the expected ones.
#[btf_map]
static WIRE_MACS: Array<WireMacs, 1, MMAPABLE> = Array::new();

/// Written by the agent, word by word; read by the tick.
#[btf_map]
static CLOCK: Array<ClockEntry, 1, MMAPABLE> = Array::new();

/// Written by the tick; the agent also claims rounds of announcements, by compare-and-swap of one word.
#[btf_map]
static TICKS: Array<TickEntry, 1, MMAPABLE> = Array::new();

/// Written by the agent, in the bank that CLOCK does not name; read by the tick.
#[btf_map]
static ANNOUNCE: Array<AnnounceFrame, ANNOUNCE_ENTRIES, MMAPABLE> = Array::new();

/// Written by the port's program, at most once in a second for each MAC address, and by the agent, which adds what bridges have
/// learned before; read by the tick and the agent. A slave's program removes what has moved away. The agent creates it with more
/// entries: each CPU keeps some of them free.
#[btf_map]
static BEHIND: LruHashMap<BehindKey, BehindEntry, MOST_BEHIND> = LruHashMap::new();

/// Written by the data plane when a frame for the bond arrives on a backup, and by the tick; the agent clears counters.
#[btf_map]
static MISDIRECTED: Array<MisdirectedEntry, { MisdirectedEntry::ENTRIES }, MMAPABLE> = Array::new();

/// Written by the agent, word by word; read by the tick.
#[btf_map]
static ARP_MONITOR: Array<MonitorEntry, 1, MMAPABLE> = Array::new();

/// Written by the tick; read by the agent.
#[btf_map]
static ARP_STATE: Array<MonitorState, 1, MMAPABLE> = Array::new();

/// Written by the agent, in the bank that ARP_MONITOR does not name; read by the tick.
#[btf_map]
static ARP_PROBES: Array<ProbeFrame, PROBE_ENTRIES, MMAPABLE> = Array::new();

/// Written by the programs of slaves while [`BondEntry::OBSERVE`] is set: at most once for each MAC address and failover. The
/// agent reads and clears it. Stations for which there is no room are not noted.
#[btf_map]
static HEARD: HashMap<Mac, FirstHeard, MOST_HEARD> = HashMap::new();

/// Written by the agent, word by word; read by the path monitor, and by slaves' programs while [`BondEntry::PATH`] is set.
#[btf_map]
static PATH_MONITOR: Array<PathEntry, 1, MMAPABLE> = Array::new();

/// Written by the path monitor; read by the tick and the agent.
#[btf_map]
static PATH_STATE: Array<PathState, 1, MMAPABLE> = Array::new();

/// Written by slaves' programs while [`BondEntry::PATH`] is set; read by the path monitor and the agent, which clears the
/// entry of a new slave.
#[btf_map]
static PATH_HEARD: Array<PathHeard, PATH_HEARD_ENTRIES, MMAPABLE> = Array::new();

/// Written by the agent, in the bank that PATH_MONITOR does not name; read by the path monitor.
#[btf_map]
static PATH_FRAMES: Array<PathFrame, PATH_ENTRIES, MMAPABLE> = Array::new();

/// The slot of the slave that this program is attached to; [`PORT_STATS`] at the port.
#[unsafe(no_mangle)]
static SLOT: Global<u32> = Global::new(PORT_STATS);

/// All zero if the agent could not read the kernel's BTF.
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> =
    Global::new(Offsets { skb_dev: 0, state: 0, ifindex: 0, dev_addr: 0, nd_net: 0, net_device_type: 0 });

/// The number of packets that the carrier guard passes unchecked between two checks: none. A benchmark compares this
/// value with others, which are one less than a power of two.
#[unsafe(no_mangle)]
static GUARD_SKIPS: Global<u32> = Global::new(0);

#[inline(always)]
pub fn active_word() -> Option<ActiveWord> {
    let word = ACTIVE.get_ptr(0)?;
    // SAFETY: a map value lives as long as the program runs. Volatile, because other CPUs and the agent write it.
    Some(unsafe { word.read_volatile() })
}

/// Stores `new` in ACTIVE if the word is still `seen`; otherwise returns the word that is there as the error.
///
/// # Errors
/// The word that is there instead of `seen`.
#[inline(always)]
pub fn exchange_active(seen: ActiveWord, new: ActiveWord) -> Result<(), ActiveWord> {
    let Some(word) = ACTIVE.get_ptr_mut(0) else { return Err(seen) };
    // SAFETY: an aligned word of a map value, which lives as long as the program runs.
    unsafe { exchange(word.cast(), seen.bits(), new.bits()) }.map_err(ActiveWord::from_bits)
}

/// Stores `new` in the turn of TICKS if it is still `seen`; otherwise returns the turn that is there as the error.
///
/// # Errors
/// The turn that is there instead of `seen`.
#[inline(always)]
pub fn exchange_rounds(seen: ClaimedRounds, new: ClaimedRounds) -> Result<(), ClaimedRounds> {
    let Some(entry) = TICKS.get_ptr_mut(0) else { return Err(seen) };
    // SAFETY: as in `exchange_active`.
    unsafe { exchange((&raw mut (*entry).turn).cast(), seen.bits(), new.bits()) }
        .map_err(ClaimedRounds::from_bits)
}

/// Compares and swaps a word. In Linux since 5.12. The compiler's own compare-and-swap is not offered for this target.
///
/// # Safety
///
/// `word` is an aligned word of a map value.
#[inline(always)]
unsafe fn exchange(word: *mut u64, seen: u64, new: u64) -> Result<(), u64> {
    let found: u64;
    // SAFETY: writes what the caller vouches for.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") seen => found,
        );
    }
    if found == seen { Ok(()) } else { Err(found) }
}

#[inline(always)]
pub fn clock() -> Option<&'static ClockEntry> {
    CLOCK.get(0)
}

#[inline(always)]
pub fn ticks() -> Option<*mut TickEntry> {
    TICKS.get_ptr_mut(0)
}

#[inline(always)]
pub fn announcement(index: u32) -> Option<&'static AnnounceFrame> {
    ANNOUNCE.get(index)
}

/// Returns the entry of a MAC address behind the bond, None if it is not known. It may be reused for another one at any time.
#[inline(always)]
pub fn behind(key: &BehindKey) -> Option<*mut BehindEntry> {
    BEHIND.get_ptr_mut(key)
}

/// Stores a MAC address behind the bond, in place of the one that was used least recently if there is no room.
#[inline(always)]
pub fn insert_behind(key: &BehindKey, entry: &BehindEntry) {
    let _ = BEHIND.insert(key, entry, 0);
}

/// Calls `each` with every MAC address behind the bond, until it returns 1; the context is `context`.
///
/// # Safety
///
/// `context` is what `each` takes for its last argument.
#[inline(always)]
pub unsafe fn each_behind(each: EachBehind, context: *mut c_void) {
    // SAFETY: the caller vouches for the context; the map lives as long as the program.
    unsafe { bpf_for_each_map_elem((&raw const BEHIND).cast_mut().cast(), each as *mut c_void, context, 0) };
}

/// The map, the key, the entry, and the context.
pub type EachBehind = extern "C" fn(*mut c_void, *const BehindKey, *mut BehindEntry, *mut c_void) -> c_long;

/// Removes a MAC address that is not behind the bond any more.
#[inline(always)]
pub fn remove_behind(key: &BehindKey) {
    let _ = BEHIND.remove(key);
}

/// Returns when a station was heard, None if it was not.
#[inline(always)]
pub fn heard(source: &Mac) -> Option<FirstHeard> {
    let entry = HEARD.get_ptr(source)?;
    // SAFETY: one aligned word of a map value. An entry that was reused just now is of the same failover, or of none.
    Some(unsafe { entry.read_volatile() })
}

/// Stores when a station was heard, if there is room.
#[inline(always)]
pub fn insert_heard(source: &Mac, heard: &FirstHeard) {
    let _ = HEARD.insert(source, heard, 0);
}

#[inline(always)]
pub fn misdirected(index: u32) -> Option<*mut MisdirectedEntry> {
    MISDIRECTED.get_ptr_mut(index)
}

/// Adds one to a word of a map value that several CPUs count in.
///
/// # Safety
///
/// `word` is an aligned word of a map value.
#[inline(always)]
pub unsafe fn count(word: *mut u64) {
    // SAFETY: writes what the caller vouches for.
    unsafe {
        core::arch::asm!("lock *(u64 *)({word} + 0) += {one}", word = in(reg) word, one = in(reg) 1u64);
    }
}

#[inline(always)]
pub fn arp_monitor() -> Option<&'static MonitorEntry> {
    ARP_MONITOR.get(0)
}

#[inline(always)]
pub fn arp_state() -> Option<*mut MonitorState> {
    ARP_STATE.get_ptr_mut(0)
}

#[inline(always)]
pub fn arp_probe(index: u32) -> Option<&'static ProbeFrame> {
    ARP_PROBES.get(index)
}

#[inline(always)]
pub fn path_monitor() -> Option<&'static PathEntry> {
    PATH_MONITOR.get(0)
}

#[inline(always)]
pub fn path_state() -> Option<*mut PathState> {
    PATH_STATE.get_ptr_mut(0)
}

/// Returns the slots whose paths have failed.
#[inline(always)]
pub fn failed_paths() -> u16 {
    // SAFETY: a map value lives as long as the program runs; one word is read.
    PATH_STATE.get_ptr(0).map_or(0, |state| unsafe { (&raw const (*state).failed).read_volatile() as u16 })
}

#[inline(always)]
pub fn path_heard(index: u32) -> Option<*mut PathHeard> {
    PATH_HEARD.get_ptr_mut(index)
}

#[inline(always)]
pub fn path_frame(index: u32) -> Option<&'static PathFrame> {
    PATH_FRAMES.get(index)
}

#[inline(always)]
pub fn guard() -> Option<*mut GuardEntry> {
    GUARD.get_ptr_mut(0)
}

#[inline(always)]
pub fn slave(slot: Slot) -> Option<&'static SlaveEntry> {
    SLAVES.get(slot.index() as u32)
}

/// Returns whether `mac` is the wire MAC address of any slave.
#[inline(always)]
pub fn is_a_slaves(mac: Mac) -> bool {
    WIRE_MACS.get(0).is_some_and(|macs| macs.contain(mac))
}

#[inline(always)]
pub fn bond() -> Option<&'static BondEntry> {
    BOND.get(0)
}

#[inline(always)]
pub fn learned() -> Option<*mut Mac> {
    LEARNED.get_ptr_mut(0)
}

#[inline(always)]
pub fn stats(index: u32) -> Option<*mut SlotStats> {
    STATS.get_ptr_mut(index)
}

/// Returns the counters of another CPU; None if there is no such CPU.
#[inline(always)]
pub fn stats_of_cpu(index: u32, cpu: u32) -> Option<*const SlotStats> {
    // SAFETY: the map and its key; the kernel checks both.
    let stats = unsafe {
        bpf_map_lookup_percpu_elem((&raw const STATS).cast_mut().cast(), (&raw const index).cast(), cpu)
    };
    let stats = stats.cast::<SlotStats>().cast_const();
    (!stats.is_null()).then_some(stats)
}

#[inline(always)]
pub fn probe_times(slot: Slot) -> Option<*mut ProbeTimes> {
    PROBES.get_ptr_mut(slot.index() as u32)
}

#[inline(always)]
pub fn targets() -> Option<&'static Targets> {
    TARGETS.get(0)
}

/// Stores which slot probes.
#[inline(always)]
pub fn probe_by(slot: Slot) {
    if let Some(targets) = TARGETS.get_ptr_mut(0) {
        // SAFETY: a map value lives as long as the program runs; one word is stored.
        unsafe { &mut *targets }.probe_by(slot);
    }
}

/// Returns the slot of this program; None at the port.
#[inline(always)]
pub fn own_slot() -> Option<Slot> {
    Slot::new(SLOT.load() as u8)
}

#[inline(always)]
pub fn offsets() -> Offsets {
    OFFSETS.load()
}

#[inline(always)]
pub fn guard_skips() -> u32 {
    GUARD_SKIPS.load()
}

#[inline(always)]
pub fn tx_ports() -> &'static DevMap<MAX_SLAVES> {
    &TX_PORTS
}

#[inline(always)]
pub fn rx_port() -> &'static DevMap<1> {
    &RX_PORT
}

/// Sends a record to the agent. A full buffer loses the record; what it reports is also in a map.
#[inline(always)]
pub fn send(record: EventRecord) {
    if let Some(mut entry) = EVENTS.reserve(0) {
        entry.write(record);
        entry.submit(0);
    }
}
