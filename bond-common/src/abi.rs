//! The values of the BPF maps. A change of meaning or layout here raises [`ABI_VERSION`].
//!
//! One thing: ABI_VERSION stands for all of these layouts together, and the programs and the agent have to agree on
//! each of them.

use crate::mac::Mac;

/// Version of everything in this module and of the names in [`crate::names`].
///
/// Version 4 adds the maps of the clock, of MAC addresses behind the bond, and of the path monitor, to those of version 3, whose layouts stay: a
/// bond of version 3 is adopted without an interruption.
pub const ABI_VERSION: u32 = 4;

/// The oldest version whose bonds this one adopts.
pub const ABI_ADOPTED: u32 = 3;

/// The number of slots, and so of slaves, of one bond; also the number of bits of the usable mask.
pub const MAX_SLAVES: usize = 16;

/// The index in STATS of the counters of the port that belong to no slave.
pub const PORT_STATS: u32 = MAX_SLAVES as u32;

/// The most targets of each address family that the ARP monitor probes (BOND_MAX_ARP_TARGETS, BOND_MAX_NS_TARGETS).
pub const MAX_TARGETS: usize = 16;

/// The index of a slave in every map, 0 to 15. A slave keeps its slot until it is released.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// Returns the slot with this index, None if the index is 16 or more.
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < MAX_SLAVES { Some(Self(index)) } else { None }
    }

    /// Returns the slot that the lowest four bits name; the other bits are ignored.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self((bits & 0xf) as u8)
    }

    /// Returns the index of the slot in the maps, 0 to 15.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// Returns the mask of this slot in [`ActiveWord::usable`]: bit N for slot N.
    pub const fn bit(self) -> u16 {
        1 << self.0
    }

    /// Returns all 16 slots in ascending order.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        (0..MAX_SLAVES as u8).map(Self)
    }
}

/// The value of ACTIVE, which every packet reads: the slot that transmits, and the slot that drains.
///
/// ```text
///  63           32 31        16 15    12 11      8 7     0
/// | generation    | usable     | active | draining| flags |
/// ```
///
/// The flags are, from the lowest bit: there is an active slot; there is a draining slot; and the counter of
/// [`Self::switches`], six bits.
///
/// Programs of others read it, too (xbond-follow): the layout stays as it is in all versions 1.x.
///
/// The agent and the data plane replace the word by compare-and-swap; the one that loses reads it again.
/// Each change increments the generation, so that a word with equal contents is not mistaken for an older one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ActiveWord {
    word: u64,
}

impl ActiveWord {
    const HAS_ACTIVE: u64 = 1;
    const HAS_DRAINING: u64 = 1 << 1;
    const SWITCHES_AT: u32 = 2;
    const SWITCHES: u64 = 0x3f;

    /// Creates the word from the 64 bits that the map holds; every value is valid.
    pub const fn from_bits(word: u64) -> Self {
        Self { word }
    }

    /// Returns the 64 bits that the map holds.
    pub const fn bits(self) -> u64 {
        self.word
    }

    /// Returns the counter of changes of the word, which wraps.
    pub const fn generation(self) -> u32 {
        (self.word >> 32) as u32
    }

    /// Returns the number of changes between `earlier` and this word, None if this word's generation is the earlier one,
    /// which only a process other than the agent can have stored. The generation wraps, so half of its range counts as
    /// earlier (RFC 1982).
    pub const fn changes_since(self, earlier: Self) -> Option<u32> {
        let changes = self.generation().wrapping_sub(earlier.generation());
        if changes <= i32::MAX as u32 { Some(changes) } else { None }
    }

    /// Returns a bit for each slot whose slave may become active, as the last writer of the word judged.
    pub const fn usable(self) -> u16 {
        (self.word >> 16) as u16
    }

    /// Returns the slot that transmits and receives, None if the bond has no active slave.
    pub const fn active(self) -> Option<Slot> {
        if self.word & Self::HAS_ACTIVE != 0 { Some(Slot::from_bits(self.word >> 12)) } else { None }
    }

    /// Returns the former active slot of a planned switch, which still delivers unicast.
    pub const fn draining(self) -> Option<Slot> {
        if self.word & Self::HAS_DRAINING != 0 { Some(Slot::from_bits(self.word >> 8)) } else { None }
    }

    /// Returns the counter of changes of the active slot, which wraps at 64: two words with the same counter have the same
    /// active slot, and between them no other slot was active, unless the slot was changed 64 times in between.
    pub const fn switches(self) -> u8 {
        (self.word >> Self::SWITCHES_AT & Self::SWITCHES) as u8
    }

    /// Returns the word that follows this one: the next generation, with these contents.
    #[must_use]
    pub const fn next(self, active: Option<Slot>, draining: Option<Slot>, usable: u16) -> Self {
        let mut bits = (self.generation().wrapping_add(1) as u64) << 32 | (usable as u64) << 16;
        let is_same = match (self.active(), active) {
            (None, None) => true,
            (Some(old), Some(new)) => old.0 == new.0,
            (None, Some(_)) | (Some(_), None) => false,
        };
        let switches = self.switches() as u64 + !is_same as u64;
        bits |= (switches & Self::SWITCHES) << Self::SWITCHES_AT;
        if let Some(slot) = active {
            bits |= (slot.0 as u64) << 12 | Self::HAS_ACTIVE;
        }
        if let Some(slot) = draining {
            bits |= (slot.0 as u64) << 8 | Self::HAS_DRAINING;
        }
        Self { word: bits }
    }
}

impl core::fmt::Debug for ActiveWord {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ActiveWord")
            .field("generation", &self.generation())
            .field("usable", &format_args!("{:#06x}", self.usable()))
            .field("active", &self.active().map(Slot::index))
            .field("draining", &self.draining().map(Slot::index))
            .field("switches", &self.switches())
            .finish()
    }
}

/// One slave, in SLAVES at its slot. The agent writes each field with one store; packets read it. A packet that
/// reads a mix of old and new fields leaves with one of the two MAC addresses, through one of the two devices: both
/// were valid a moment ago. Programs of others read the MAC addresses and the ifindex, too (xbond-follow): their offsets, and
/// the size, stay as they are in all versions 1.x.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlaveEntry {
    wire_mac: u64,
    permanent_mac: u64,
    handle: DeviceHandle,
    ifindex: u32,
    queue_id: u32,
    link_failure_count: u32,
    reserved: u32,
}

impl SlaveEntry {
    /// Creates the entry of a slave whose frames carry `wire_mac`, without a handle, a queue_id or link failures.
    pub const fn new(ifindex: u32, wire_mac: Mac, permanent_mac: Mac) -> Self {
        Self {
            wire_mac: wire_mac.to_word(),
            permanent_mac: permanent_mac.to_word(),
            handle: DeviceHandle::NONE,
            ifindex,
            queue_id: 0,
            link_failure_count: 0,
            reserved: 0,
        }
    }

    /// Returns the entry with this device, which the carrier guard checks. Without a handle the guard does not know the
    /// state of the slave: it neither leaves the slave nor fails over to it.
    #[must_use]
    pub const fn with_handle(self, handle: DeviceHandle) -> Self {
        Self { handle, ..self }
    }

    /// Returns the handle of the slave's device, [`DeviceHandle::NONE`] if the agent could not read the device.
    pub const fn handle(&self) -> DeviceHandle {
        self.handle
    }

    /// Returns the entry with this count. Packets do not read it; the map keeps it for the next agent.
    #[must_use]
    pub const fn with_link_failure_count(self, link_failure_count: u32) -> Self {
        Self { link_failure_count, ..self }
    }

    /// Returns how many times the link of the slave failed since it was enslaved (the driver's `link_failure_count`).
    pub const fn link_failure_count(&self) -> u32 {
        self.link_failure_count
    }

    /// Returns the entry with this queue of bond0, whose packets leave through this slave while it is up; 0: no queue.
    #[must_use]
    pub const fn with_queue_id(self, queue_id: u16) -> Self {
        Self { queue_id: queue_id as u32, ..self }
    }

    /// Returns the transmit queue of bond0 that chooses this slave (the driver's `queue_id`), 0 if none does.
    pub const fn queue_id(&self) -> u16 {
        self.queue_id as u16
    }

    /// Returns the source MAC address of frames that leave through this slave while it is active. Frames that it
    /// receives with this destination are for the host.
    pub const fn wire_mac(&self) -> Mac {
        Mac::from_word(self.wire_mac)
    }

    /// Returns the MAC address that the slave had before it was enslaved.
    pub const fn permanent_mac(&self) -> Mac {
        Mac::from_word(self.permanent_mac)
    }

    /// Returns the interface index of the slave's device, 0 if the slot is free.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

/// The wire MAC address of each slot, in WIRE_MACS at 0: a copy from SLAVES in one array, which is searched faster.
/// Zero where the slot is free. The agent writes it word by word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireMacs {
    words: [u64; MAX_SLAVES],
}

impl WireMacs {
    /// Returns the word for a slot with this entry: [`SlaveEntry::wire_mac`], or 0 if the slot is free.
    pub const fn word_of(entry: &SlaveEntry) -> u64 {
        if entry.ifindex() == 0 { 0 } else { entry.wire_mac }
    }

    /// Returns whether `mac` is the wire MAC address of any slave; false for the zero address.
    #[inline(always)]
    pub fn contain(&self, mac: Mac) -> bool {
        let wanted = mac.to_word();
        // All of them, without a branch for each.
        wanted != 0 && self.words.iter().fold(false, |found, &word| found | (word == wanted))
    }
}

/// A device in the kernel's memory: the address of its `struct net_device`, and of the network namespace that it
/// has to be in. A handle may become stale at any time: what is read through it counts only if the device at the
/// address still has the expected ifindex and namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceHandle {
    device: u64,
    net: u64,
}

impl DeviceHandle {
    /// The handle of an unknown device: both addresses are 0.
    pub const NONE: Self = Self { device: 0, net: 0 };

    /// Creates a handle from the addresses of a `struct net_device` and of its `struct net`.
    pub const fn new(device: u64, net: u64) -> Self {
        Self { device, net }
    }

    /// Returns the address of the `struct net_device`, 0 if it is not known.
    pub const fn device(&self) -> u64 {
        self.device
    }

    /// Returns the address of the `struct net` that the device belongs to.
    pub const fn net(&self) -> u64 {
        self.net
    }
}

/// A question to the program `device_links`: whether a device exists and has a link. The program stores the answer in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkQuestion {
    handle: DeviceHandle,
    ifindex: u32,
    /// 1: the device exists and has a link.
    answer: u32,
}

impl LinkQuestion {
    /// The most questions in one frame: the kernel limits the data of a test run to one page.
    pub const MOST: usize = 128;
    /// The offset of the answer from the start of the question, in bytes: a `u32`, 1 if the device has a link, else 0.
    pub const ANSWER: usize = core::mem::offset_of!(Self, answer);

    /// Creates an unanswered question about the device at `handle`, which has to have this ifindex.
    pub const fn new(ifindex: u32, handle: DeviceHandle) -> Self {
        Self { handle, ifindex, answer: 0 }
    }

    /// Returns the handle of the device that the question is about.
    pub const fn handle(&self) -> DeviceHandle {
        self.handle
    }

    /// Returns the ifindex that the device must have for the answer to be yes.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Returns the 24 bytes of the question as the frame contains them.
    pub fn bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..8].copy_from_slice(&self.handle.device.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.handle.net.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes
    }
}

/// The state of the carrier guard, in GUARD at 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GuardEntry {
    /// Written by the agent with one store, which cannot tear.
    rank: u64,
    /// Written by the data plane: the time of its last failover, CLOCK_MONOTONIC in nanoseconds.
    switched_at: u64,
    /// Written by the agent for the next agent: ACTIVE as the agent read it last.
    known: ActiveWord,
}

impl GuardEntry {
    /// The shortest time between two failovers of the guard, in nanoseconds. Without it, every packet would fail over
    /// while several links flap.
    pub const PAUSE: u64 = 10_000_000;

    /// Returns the order in which the guard tries the slots.
    pub const fn rank(&self) -> Rank {
        Rank(self.rank)
    }

    /// Returns ACTIVE as the agent read it last; a later word shows failovers that the agent has not recorded.
    pub const fn known(&self) -> ActiveWord {
        self.known
    }

    /// Returns the time of the guard's last failover, CLOCK_MONOTONIC in nanoseconds, 0 if there was none.
    pub const fn switched_at(&self) -> u64 {
        self.switched_at
    }

    /// The index of the word of [`Self::rank`], for writers that store single words of the entry.
    pub const RANK: usize = 0;
    /// The index of the word of [`Self::known`].
    pub const KNOWN: usize = 2;

    /// Records that the guard failed over at `now`, CLOCK_MONOTONIC in nanoseconds.
    #[inline(always)]
    pub fn note(&mut self, now: u64) {
        self.switched_at = now;
    }

    /// Returns whether the guard may fail over at `now`, CLOCK_MONOTONIC in nanoseconds: [`Self::PAUSE`] has passed.
    pub const fn may_switch(&self, now: u64) -> bool {
        now.wrapping_sub(self.switched_at) >= Self::PAUSE
    }
}

/// All slots, from the agent's first choice to its last: four bits each, the first choice in the lowest bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank(u64);

impl Rank {
    /// Creates a rank of the slots in `first`, followed by all others in ascending order. Repeated slots count once.
    pub fn new(first: impl IntoIterator<Item = Slot>) -> Self {
        let (mut bits, mut seen, mut place) = (0, 0u16, 0);
        for slot in first.into_iter().chain(Slot::all()) {
            if seen & slot.bit() == 0 {
                seen |= slot.bit();
                bits |= (slot.0 as u64) << (4 * place);
                place += 1;
            }
        }
        Self(bits)
    }

    /// Creates the rank from the 64 bits that a map holds.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Returns the 64 bits that GUARD holds.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Returns the slot at a position from 0, the first choice, to 15; higher bits of `place` are ignored.
    #[inline(always)]
    pub const fn at(self, place: u32) -> Slot {
        Slot::from_bits(self.0 >> (4 * (place & 0xf)))
    }
}

/// The settings of the bond, in BOND at 0. The agent writes each field with one store.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BondEntry {
    host_mac: u64,
    host_device: u64,
    netns_cookie: u64,
    abi_version: u32,
    port_ifindex: u32,
    policy: u32,
    flags: u32,
}

impl BondEntry {
    /// The offset of `abi_version` in bytes, in every version of the entry.
    pub const ABI_VERSION_AT: usize = 24;

    /// Flag of [`Self::flags`]: the bond receives what arrives on backups (the driver's `all_slaves_active`).
    pub const ALL_SLAVES_ACTIVE: u32 = 1;
    /// Flag: the bond has no bond0; the MAC address of the host behind the port is learned from its first frame.
    pub const LEARN_HOST_MAC: u32 = 1 << 1;
    /// Flag: bond0's MAC address is being changed; programs read it from the device at [`Self::host_device`].
    pub const HOST_MAC_MOVES: u32 = 1 << 2;
    /// Flag: the ARP monitor is on; programs store in PROBES when slaves receive. Without it no packet has that cost.
    pub const MONITOR: u32 = 1 << 3;
    /// Flag of `arp_validate`: only answers of targets count as reception on the active slave.
    pub const VALIDATE_ACTIVE: u32 = 1 << 4;
    /// Flag of `arp_validate`: only requests of the active slave count as reception on backups.
    pub const VALIDATE_BACKUP: u32 = 1 << 5;
    /// Flag of `arp_validate`: only ARP and neighbour discovery count on slaves that are not validated.
    pub const FILTER: u32 = 1 << 6;

    /// Flag: the transmit queue of bond0 may choose a slave. An existing device as port uses its queues otherwise.
    pub const QUEUE_IDS: u32 = 1 << 7;
    /// Flag: the carrier guard is on and checks the slave's device before each packet.
    pub const GUARD: u32 = 1 << 8;
    /// Flag: bond0 and its port are a netkit pair.
    pub const NETKIT: u32 = 1 << 9;
    /// Flag: the pair is netkit, and packets of bond0 are redirected at the port's ingress, because a slave has a queue_id.
    pub const BY_PORT: u32 = 1 << 10;
    /// Flag, for a moment after a failover: programs store in HEARD whom the active slave hears. Without it no packet has that
    /// cost.
    pub const OBSERVE: u32 = 1 << 11;
    /// Flag: the path monitor is on; programs note answers of its targets in PATH_HEARD. Without it no packet has that cost.
    pub const PATH: u32 = 1 << 12;
    /// Flag for the next agent, which programs do not read: a first slave that cannot change its MAC address has turned the
    /// policy to `active`, whatever is configured, and whether or not that slave is still there.
    pub const POLICY_TURNED: u32 = 1 << 13;
    /// Flag: bond0 keeps its MAC address under fail_over_mac=active, and DHCP requests from it ask for broadcast answers.
    pub const HOST_MAC_STAYS: u32 = 1 << 14;

    /// Creates the entry of a bond in the current [`ABI_VERSION`], without flags and without bond0's device.
    pub const fn new(policy: FailOverMac, port_ifindex: u32, host_mac: Mac, netns_cookie: u64) -> Self {
        Self {
            host_mac: host_mac.to_word(),
            host_device: 0,
            netns_cookie,
            abi_version: ABI_VERSION,
            port_ifindex,
            policy: policy as u32,
            flags: 0,
        }
    }

    /// Returns the entry with these flags instead of its own.
    #[must_use]
    pub const fn with_flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// Returns the entry with this policy instead of its own.
    #[must_use]
    pub const fn with_policy(self, policy: FailOverMac) -> Self {
        Self { policy: policy as u32, ..self }
    }

    /// Returns the entry with this MAC address of bond0, or of the host behind the port.
    #[must_use]
    pub const fn with_host_mac(self, mac: Mac) -> Self {
        Self { host_mac: mac.to_word(), ..self }
    }

    /// Returns the entry with this address of bond0's `struct net_device` in the kernel; 0 if it is not known.
    #[must_use]
    pub const fn with_host_device(self, host_device: u64) -> Self {
        Self { host_device, ..self }
    }

    /// Returns the MAC address of bond0, or of the host behind the port; zero if it is not known yet.
    pub const fn host_mac(&self) -> Mac {
        Mac::from_word(self.host_mac)
    }

    /// Returns the address of bond0's `struct net_device` in the kernel, 0 if it is not known.
    pub const fn host_device(&self) -> u64 {
        self.host_device
    }

    /// Returns `SO_NETNS_COOKIE` of the network namespace of the agent.
    pub const fn netns_cookie(&self) -> u64 {
        self.netns_cookie
    }

    /// Returns the [`ABI_VERSION`] of the agent that wrote the entry.
    pub const fn abi_version(&self) -> u32 {
        self.abi_version
    }

    /// Returns the interface index of the port, to which received frames are redirected.
    pub const fn port_ifindex(&self) -> u32 {
        self.port_ifindex
    }

    /// Returns the driver's `fail_over_mac`; a number that it does not have reads as none.
    pub const fn policy(&self) -> FailOverMac {
        match self.policy {
            1 => FailOverMac::Active,
            2 => FailOverMac::Follow,
            _ => FailOverMac::None,
        }
    }

    /// Returns whether any bit of `flag` is set, for example of [`Self::GUARD`].
    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Returns all flags, the bits from [`Self::ALL_SLAVES_ACTIVE`] to [`Self::HOST_MAC_STAYS`].
    pub const fn flags(&self) -> u32 {
        self.flags
    }
}

/// The times at which a slave received frames that the ARP monitor counts, in PROBES at its slot: CLOCK_MONOTONIC in
/// nanoseconds, 0 for never. The data plane writes each word with one store while [`BondEntry::MONITOR`] is set; if
/// two CPUs write at once, either time is correct. The agent clears the entry of a new slave.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTimes {
    last_rx: u64,
    targets: [u64; 2 * MAX_TARGETS],
}

impl ProbeTimes {
    /// The times of a slave that has received nothing.
    pub const NEVER: Self = Self { last_rx: 0, targets: [0; 2 * MAX_TARGETS] };

    /// Returns the time of the last frame that counts under `arp_validate` (the driver's `last_rx`).
    pub const fn last_rx(&self) -> u64 {
        self.last_rx
    }

    /// Returns the time of the last frame of each target: [`MAX_TARGETS`] of IPv4, then as many of IPv6, each in the
    /// order of TARGETS. They are written only if the slave is validated.
    pub const fn targets(&self) -> &[u64; 2 * MAX_TARGETS] {
        &self.targets
    }

    /// Records a frame that was received at `now`, from the target with this index if it was a target's.
    #[inline(always)]
    pub fn note(&mut self, now: u64, target: Option<usize>) {
        self.last_rx = now;
        if let Some(time) = target.and_then(|index| self.targets.get_mut(index)) {
            *time = now;
        }
    }
}

impl Default for ProbeTimes {
    fn default() -> Self {
        Self::NEVER
    }
}

/// The targets of the ARP monitor and the source address of the probes to each, in TARGETS at 0. The agent writes it
/// word by word before each round of probes; while no agent runs, the tick stores which slot probes. An IPv4 target and its source are one word. An IPv6 target and its source
/// are four: an answer that is compared with a mix of old and new words is not recognised, and the next one is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The slot that probes, plus one; 0: none.
    prober: u64,
    ipv4: [u64; MAX_TARGETS],
    ipv6: [[u64; 4]; MAX_TARGETS],
}

impl Targets {
    /// Returns the targets with this slot as the one that probes: the active one or, if there is none, the one that is
    /// next in the round robin.
    #[must_use]
    pub const fn with_prober(self, slot: Slot) -> Self {
        Self { prober: slot.0 as u64 + 1, ..self }
    }

    /// Returns the slot that probes, None if none does.
    pub const fn prober(&self) -> Option<Slot> {
        match self.prober {
            0 => None,
            slot => Slot::new((slot - 1) as u8),
        }
    }

    /// Returns whether the targets, and the source addresses of their probes, are those of `other`, whichever slot probes.
    pub fn have_targets_of(&self, other: &Self) -> bool {
        (self.ipv4, self.ipv6) == (other.ipv4, other.ipv6)
    }

    /// Stores which slot probes, without a change of the targets. The tick does so while no agent runs.
    pub const fn probe_by(&mut self, slot: Slot) {
        self.prober = slot.0 as u64 + 1;
    }

    /// Sets the IPv4 target at `index` and the source address of its probes. An index from [`MAX_TARGETS`] on has no
    /// effect.
    pub fn set_ipv4(&mut self, index: usize, target: [u8; 4], source: [u8; 4]) {
        if let Some(word) = self.ipv4.get_mut(index) {
            *word = ipv4_pair(target, source);
        }
    }

    /// Sets the IPv6 target at `index` and the source address of its probes. An index from [`MAX_TARGETS`] on has no
    /// effect.
    pub fn set_ipv6(&mut self, index: usize, target: [u8; 16], source: [u8; 16]) {
        if let Some(words) = self.ipv6.get_mut(index) {
            let ([a, b], [c, d]) = (words_of(target), words_of(source));
            *words = [a, b, c, d];
        }
    }

    /// Returns the index in [`ProbeTimes::targets`] of the IPv4 target that is probed from this source.
    #[inline(always)]
    pub fn find_ipv4(&self, target: [u8; 4], source: [u8; 4]) -> Option<usize> {
        let wanted = ipv4_pair(target, source);
        if target == [0; 4] {
            return None;
        }
        let mut index = 0;
        while index < MAX_TARGETS {
            let Some(&pair) = self.ipv4.get(index) else { break };
            if pair == wanted {
                return Some(index);
            }
            index += 1;
        }
        None
    }

    /// Returns the index in [`ProbeTimes::targets`] of the IPv6 target that is probed from this source, or from any
    /// source if `source` is None.
    #[inline(always)]
    pub fn find_ipv6(&self, target: [u8; 16], source: Option<[u8; 16]>) -> Option<usize> {
        let [a, b] = words_of(target);
        if a | b == 0 {
            return None;
        }
        let mut index = 0;
        while index < MAX_TARGETS {
            let Some(&[ta, tb, sa, sb]) = self.ipv6.get(index) else { break };
            if ta == a && tb == b && source.is_none_or(|source| words_of(source) == [sa, sb]) {
                return Some(MAX_TARGETS + index);
            }
            index += 1;
        }
        None
    }
}

const fn ipv4_pair(target: [u8; 4], source: [u8; 4]) -> u64 {
    (u32::from_ne_bytes(target) as u64) << 32 | u32::from_ne_bytes(source) as u64
}

#[inline(always)]
fn words_of(address: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// The state of a device in the kernel, which the program `device_state` writes into its packet, behind the Ethernet
/// header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    handle: DeviceHandle,
    mac: u64,
    ifindex: u32,
    link_up: u32,
}

impl DeviceState {
    /// Creates the state of the device at `handle`; `link_up` as [`Self::link_up`] returns it.
    pub const fn new(handle: DeviceHandle, mac: Mac, ifindex: u32, link_up: bool) -> Self {
        Self { handle, mac: mac.to_word(), ifindex, link_up: link_up as u32 }
    }

    /// Returns the handle of the device, by which the carrier guard reads it later.
    pub const fn handle(&self) -> DeviceHandle {
        self.handle
    }

    /// Returns the MAC address of the device (`net_device.dev_addr`).
    pub const fn mac(&self) -> Mac {
        Mac::from_word(self.mac)
    }

    /// Returns the interface index of the device (`net_device.ifindex`).
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// Returns whether the device has a link: `netif_running && netif_carrier_ok`.
    pub const fn link_up(&self) -> bool {
        self.link_up != 0
    }

    /// Parses the bytes that a test run returned behind the Ethernet header; None if there are fewer than 32.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let half = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        Some(Self {
            handle: DeviceHandle::new(word(0)?, word(8)?),
            mac: word(16)?,
            ifindex: half(24)?,
            link_up: half(28)?,
        })
    }
}

/// The offsets of fields of kernel structs according to the kernel's BTF, in bytes. All zero if BTF could not be read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// `sk_buff.dev`
    pub skb_dev: u32,
    /// `net_device.state`
    pub state: u32,
    /// `net_device.ifindex`
    pub ifindex: u32,
    /// `net_device.dev_addr`
    pub dev_addr: u32,
    /// `net_device.nd_net`
    pub nd_net: u32,
    /// The BTF id of the type `net_device` if the kernel has bpf_rdonly_cast, which lets the programs read devices
    /// without a helper; else 0.
    pub net_device_type: u32,
}

/// The driver's `fail_over_mac`, with its numbers: which device has the bond's MAC address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FailOverMac {
    /// All slaves have the bond's MAC address.
    #[default]
    None = 0,
    /// The bond has the active slave's MAC address.
    Active = 1,
    /// The active slave has the bond's MAC address; the others have their own or one of each other's.
    Follow = 2,
}

const _: () = {
    assert!(size_of::<ActiveWord>() == 8);
    assert!(size_of::<SlaveEntry>() == 48);
    assert!(size_of::<DeviceState>() == 32);
    assert!(size_of::<LinkQuestion>() == 24);
    assert!(size_of::<GuardEntry>() == 24);
    assert!(size_of::<Offsets>() == 24);
    assert!(size_of::<BondEntry>() == 3 * 8 + 4 * 4);
    assert!(core::mem::offset_of!(BondEntry, abi_version) == BondEntry::ABI_VERSION_AT);
    assert!(core::mem::offset_of!(GuardEntry, rank) == 8 * GuardEntry::RANK);
    assert!(core::mem::offset_of!(GuardEntry, known) == 8 * GuardEntry::KNOWN);
    assert!(size_of::<BondEntry>().is_multiple_of(8));
    assert!(size_of::<ProbeTimes>() == 8 * (1 + 2 * MAX_TARGETS));
    assert!(size_of::<Targets>() == 8 * (1 + 5 * MAX_TARGETS));
};

#[cfg(feature = "user")]
mod pod {
    // SAFETY: integers in C layout without padding (asserted above): every bit pattern is valid.
    unsafe impl aya::Pod for super::SlaveEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::BondEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ActiveWord {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Offsets {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::GuardEntry {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::ProbeTimes {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Targets {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_word_returns_what_was_stored(
            before: u64, active in proptest::option::of(0u8..16), draining in proptest::option::of(0u8..16), usable: u16,
        ) {
            let (active, draining) = (active.and_then(Slot::new), draining.and_then(Slot::new));
            let before = ActiveWord::from_bits(before);
            let word = before.next(active, draining, usable);
            prop_assert_eq!(word.active(), active);
            prop_assert_eq!(word.draining(), draining);
            prop_assert_eq!(word.usable(), usable);
            prop_assert_eq!(word.generation(), before.generation().wrapping_add(1));
            prop_assert_eq!(ActiveWord::from_bits(word.bits()), word);
        }
    }

    #[test]
    fn changes_are_counted_across_the_end_of_the_range() {
        let word = |generation: u32| ActiveWord::from_bits(u64::from(generation) << 32);
        for (now, earlier, changes) in [
            (7, 7, Some(0)),
            (9, 7, Some(2)),
            (1, u32::MAX, Some(2)),
            (7, 9, None),
            (u32::MAX, 1, None),
            (0x8000_0006, 7, Some(0x7fff_ffff)),
            (0x8000_0007, 7, None),
        ] {
            assert_eq!(word(now).changes_since(word(earlier)), changes, "{now} {earlier}");
        }
    }

    #[test]
    fn layout_is_the_documented_one() {
        let word = ActiveWord::default().next(Slot::new(3), Slot::new(2), 0x000c);
        assert_eq!(word.bits(), 0x0000_0001_000c_3207);
        let same = word.next(Slot::new(3), None, 0x000c);
        assert_eq!((same.switches(), same.next(None, None, 0).switches()), (1, 2));
        assert_eq!(Slot::new(16), None);
    }

    #[test]
    fn a_rank_is_all_slots_once() {
        let slots = |wanted: &[u8]| wanted.iter().map(|&index| Slot(index)).collect::<Vec<_>>();
        for (first, expected) in [
            (slots(&[]), slots(&[0, 1, 2])),
            (slots(&[2, 0]), slots(&[2, 0, 1])),
            (slots(&[15, 15, 0]), slots(&[15, 0, 1])),
        ] {
            let rank = Rank::new(first);
            let all: Vec<_> = (0..16).map(|place| rank.at(place)).collect();
            assert_eq!(all[..3], expected);
            assert_eq!(Slot::all().filter(|slot| all.contains(slot)).count(), MAX_SLAVES);
        }
    }

    #[test]
    fn the_guard_pauses_after_a_failover() {
        let guard = |switched_at| GuardEntry { switched_at, ..GuardEntry::default() };
        for (switched_at, now, may) in [
            (0, GuardEntry::PAUSE, true),
            (5, 5, false),
            (5, 4 + GuardEntry::PAUSE, false),
            (5, 5 + GuardEntry::PAUSE, true),
        ] {
            assert_eq!(guard(switched_at).may_switch(now), may, "{switched_at} {now}");
        }
    }

    #[test]
    fn a_wire_mac_is_found_in_every_slot_and_zero_in_none() {
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        assert!(!WireMacs::default().contain(mac) && !WireMacs::default().contain(Mac::ZERO));
        for index in 0..MAX_SLAVES {
            let mut macs = WireMacs::default();
            macs.words[index] = WireMacs::word_of(&SlaveEntry::new(7, mac, Mac::ZERO));
            assert!(macs.contain(mac) && !macs.contain(Mac::BROADCAST), "slot {index}");
        }
        assert_eq!(WireMacs::word_of(&SlaveEntry::new(0, mac, mac)), 0, "a free slot");
    }

    #[test]
    fn targets_are_found_by_both_addresses() {
        let mut targets = Targets::default();
        assert_eq!(targets.prober(), None);
        targets.set_ipv4(2, [10, 0, 0, 254], [10, 0, 0, 1]);
        targets.set_ipv6(15, [0xfd; 16], [0xfe; 16]);
        targets.set_ipv4(16, [10, 0, 0, 9], [10, 0, 0, 1]);
        assert_eq!(targets.find_ipv4([10, 0, 0, 254], [10, 0, 0, 1]), Some(2));
        assert_eq!(targets.find_ipv4([10, 0, 0, 1], [10, 0, 0, 254]), None);
        assert_eq!(targets.find_ipv4([10, 0, 0, 9], [10, 0, 0, 1]), None);
        assert_eq!(targets.find_ipv6([0xfd; 16], Some([0xfe; 16])), Some(31));
        assert_eq!(targets.find_ipv6([0xfd; 16], Some([0xfd; 16])), None);
        assert_eq!(targets.find_ipv6([0xfd; 16], None), Some(31));
        // Unused entries are no targets.
        assert_eq!((targets.find_ipv4([0; 4], [0; 4]), targets.find_ipv6([0; 16], None)), (None, None));
        assert_eq!(targets.with_prober(Slot(15)).prober(), Slot::new(15));
    }

    #[test]
    fn probe_times_are_noted_per_target() {
        let mut times = ProbeTimes::NEVER;
        times.note(5, None);
        times.note(7, Some(31));
        times.note(8, Some(32));
        assert_eq!(
            (times.last_rx(), times.targets()[31], times.targets()[..31].iter().max()),
            (8, 7, Some(&0))
        );
    }
}
