//! What lies in the maps. A change of meaning or layout here raises [`ABI_VERSION`].

use crate::mac::Mac;

/// Version of everything in this module and of the names in [`crate::names`].
pub const ABI_VERSION: u32 = 3;

/// Slaves of one bond; also the bits of the usable mask and the range of a slot's number.
pub const MAX_SLAVES: usize = 16;

/// Index in STATS of what happens at the port and belongs to no slave.
pub const PORT_STATS: u32 = MAX_SLAVES as u32;

/// Targets of each family that the ARP monitor probes at most.
pub const MAX_TARGETS: usize = 16;

/// Position of a slave in every map, 0 to 15. It stays the slave's as long as it is enslaved.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u8);

impl Slot {
    /// None from 16 on.
    pub const fn new(index: u8) -> Option<Self> {
        if (index as usize) < MAX_SLAVES { Some(Self(index)) } else { None }
    }

    /// From four bits; more are cut off.
    const fn from_bits(bits: u64) -> Self {
        Self((bits & 0xf) as u8)
    }

    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub const fn bit(self) -> u16 {
        1 << self.0
    }

    /// All slots in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_SLAVES as u8).map(Self)
    }
}

/// The word in ACTIVE, on which every packet is decided: which slot transmits, which one drains.
///
/// ```text
///  63           32 31        16 15    12 11      8 7     0
/// | generation    | usable     | active | draining| flags |
/// ```
///
/// It is changed whole, by compare-and-swap, by the agent and by the data plane; whoever loses reads again.
/// Each change counts the generation up, so that a value that comes back is not taken for an old one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ActiveWord {
    word: u64,
}

impl ActiveWord {
    const HAS_ACTIVE: u64 = 1;
    const HAS_DRAINING: u64 = 1 << 1;

    pub const fn from_bits(word: u64) -> Self {
        Self { word }
    }

    pub const fn bits(self) -> u64 {
        self.word
    }

    /// Counts the changes of the word, and wraps.
    pub const fn generation(self) -> u32 {
        (self.word >> 32) as u32
    }

    /// How many changes lie between `earlier` and this word. None if by its generation this word is the earlier one, which
    /// only another process can have stored. The generation wraps, so half of its range counts as earlier (RFC 1982).
    pub const fn changes_since(self, earlier: Self) -> Option<u32> {
        let changes = self.generation().wrapping_sub(earlier.generation());
        if changes <= i32::MAX as u32 { Some(changes) } else { None }
    }

    /// A bit per slot that may become active, in the eyes of whoever wrote last.
    pub const fn usable(self) -> u16 {
        (self.word >> 16) as u16
    }

    /// The slot that transmits and receives.
    pub const fn active(self) -> Option<Slot> {
        if self.word & Self::HAS_ACTIVE != 0 { Some(Slot::from_bits(self.word >> 12)) } else { None }
    }

    /// The previous active of a planned switch, which still delivers unicast.
    pub const fn draining(self) -> Option<Slot> {
        if self.word & Self::HAS_DRAINING != 0 { Some(Slot::from_bits(self.word >> 8)) } else { None }
    }

    /// The word that follows this one: the next generation, with these contents.
    #[must_use]
    pub const fn next(self, active: Option<Slot>, draining: Option<Slot>, usable: u16) -> Self {
        let mut bits = (self.generation().wrapping_add(1) as u64) << 32 | (usable as u64) << 16;
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
            .finish()
    }
}

/// One slave, in SLAVES at its slot. The agent writes it, packets read it; every field is stored alone and
/// whole. A packet that meets old and new fields mixed leaves with one of the two MACs, by one of the two
/// devices: both were right a moment ago.
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
    /// A slave whose frames carry `wire_mac` on the wire.
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

    /// Its device, for the carrier guard. Without one the guard knows nothing of the slave: it does not leave the slave if
    /// it is active, and does not fail over to it.
    #[must_use]
    pub const fn with_handle(self, handle: DeviceHandle) -> Self {
        Self { handle, ..self }
    }

    pub const fn handle(&self) -> DeviceHandle {
        self.handle
    }

    /// Packets do not care; it is here so that it survives agents.
    #[must_use]
    pub const fn with_link_failure_count(self, link_failure_count: u32) -> Self {
        Self { link_failure_count, ..self }
    }

    pub const fn link_failure_count(&self) -> u32 {
        self.link_failure_count
    }

    /// What is sent from this queue of bond0 leaves by this slave while it is up; 0: none.
    #[must_use]
    pub const fn with_queue_id(self, queue_id: u16) -> Self {
        Self { queue_id: queue_id as u32, ..self }
    }

    pub const fn queue_id(&self) -> u16 {
        self.queue_id as u16
    }

    /// The source MAC of what leaves by this slave while it is active, and the destination that is ours.
    pub const fn wire_mac(&self) -> Mac {
        Mac::from_word(self.wire_mac)
    }

    /// The MAC that it had before it was enslaved.
    pub const fn permanent_mac(&self) -> Mac {
        Mac::from_word(self.permanent_mac)
    }

    /// 0 where the slot is free.
    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }
}

/// What each slot's slave shows on the wire, in WIRE_MACS at 0: the same as in SLAVES, side by side for those who
/// look for one of them. Zero where the slot is free. Written by the agent, word by word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireMacs {
    words: [u64; MAX_SLAVES],
}

impl WireMacs {
    /// The word of a slot.
    pub const fn word_of(entry: &SlaveEntry) -> u64 {
        if entry.ifindex() == 0 { 0 } else { entry.wire_mac }
    }

    /// Whether it is some slave's.
    #[inline(always)]
    pub fn contain(&self, mac: Mac) -> bool {
        let wanted = mac.to_word();
        // All of them, without a branch for each.
        wanted != 0 && self.words.iter().fold(false, |found, &word| found | (word == wanted))
    }
}

/// A device in the kernel's memory: the address of its `struct net_device`, and of the network namespace that it
/// has to be in. It may be stale at any time: what is read by it counts only if the device that is found there
/// still has the expected ifindex and namespace.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceHandle {
    device: u64,
    net: u64,
}

impl DeviceHandle {
    pub const NONE: Self = Self { device: 0, net: 0 };

    pub const fn new(device: u64, net: u64) -> Self {
        Self { device, net }
    }

    /// Address of its `struct net_device`, 0 where it is not known.
    pub const fn device(&self) -> u64 {
        self.device
    }

    /// Address of its `struct net`.
    pub const fn net(&self) -> u64 {
        self.net
    }
}

/// A question to the program `device_links`, which stores the answer in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkQuestion {
    handle: DeviceHandle,
    ifindex: u32,
    /// 1: the device is there and has a link.
    answer: u32,
}

impl LinkQuestion {
    /// How many there are in a frame at most: what the kernel takes for a test run fits into one page.
    pub const MOST: usize = 128;
    /// Where `answer` is.
    pub const ANSWER: usize = core::mem::offset_of!(Self, answer);

    pub const fn new(ifindex: u32, handle: DeviceHandle) -> Self {
        Self { handle, ifindex, answer: 0 }
    }

    pub const fn handle(&self) -> DeviceHandle {
        self.handle
    }

    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// As it lies in the frame.
    pub fn bytes(&self) -> [u8; size_of::<Self>()] {
        let mut bytes = [0; size_of::<Self>()];
        bytes[..8].copy_from_slice(&self.handle.device.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.handle.net.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.ifindex.to_ne_bytes());
        bytes
    }
}

/// What the carrier guard goes by, in GUARD at 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardEntry {
    /// Written by the agent. One word: it cannot tear.
    rank: u64,
    /// Written by the data plane: CLOCK_MONOTONIC of its last failover, nanoseconds.
    switched_at: u64,
    /// Written by the agent: ACTIVE when it looked last, for the next agent.
    known: ActiveWord,
}

impl GuardEntry {
    /// The least time between two failovers of the guard, in nanoseconds: links that flap together would have
    /// every packet move the bond.
    pub const PAUSE: u64 = 10_000_000;

    pub const fn rank(&self) -> Rank {
        Rank(self.rank)
    }

    pub const fn known(&self) -> ActiveWord {
        self.known
    }

    pub const fn switched_at(&self) -> u64 {
        self.switched_at
    }

    /// Words of the entry, for whoever stores them one by one.
    pub const RANK: usize = 0;
    pub const KNOWN: usize = 2;

    /// The guard has failed over at `now`, CLOCK_MONOTONIC in nanoseconds.
    #[inline(always)]
    pub fn note(&mut self, now: u64) {
        self.switched_at = now;
    }

    /// Whether the guard may fail over at `now`, CLOCK_MONOTONIC in nanoseconds.
    pub const fn may_switch(&self, now: u64) -> bool {
        now.wrapping_sub(self.switched_at) >= Self::PAUSE
    }
}

/// All slots, from the agent's first choice to its last: four bits each, the first in the lowest.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank(u64);

impl Rank {
    /// These first, then all others in order.
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

    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The slot at a place from 0 to 15.
    #[inline(always)]
    pub const fn at(self, place: u32) -> Slot {
        Slot::from_bits(self.0 >> (4 * (place & 0xf)))
    }
}

/// The bond, in BOND at 0. The agent writes it; every field is stored alone and whole.
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
    /// Bytes before `abi_version`, in every version.
    pub const ABI_VERSION_AT: usize = 24;

    /// Bits of [`Self::flags`].
    pub const ALL_SLAVES_ACTIVE: u32 = 1;
    /// No bond0: the MAC of whoever is behind the port is taken from its first frame.
    pub const LEARN_HOST_MAC: u32 = 1 << 1;
    /// bond0's MAC is being changed: it is read from the device itself, by `host_device`.
    pub const HOST_MAC_MOVES: u32 = 1 << 2;
    /// The ARP monitor is on: slaves note in PROBES when they hear something. No packet pays for it otherwise.
    pub const MONITOR: u32 = 1 << 3;
    /// The bits of `arp_validate`: the active slave hears answers of targets only, ...
    pub const VALIDATE_ACTIVE: u32 = 1 << 4;
    /// ... backups hear the active slave's requests only, ...
    pub const VALIDATE_BACKUP: u32 = 1 << 5;
    /// ... and whoever is not validated hears ARP and neighbour discovery only.
    pub const FILTER: u32 = 1 << 6;

    /// The transmit queue of bond0 may choose a slave. Behind another port it means something else.
    pub const QUEUE_IDS: u32 = 1 << 7;
    /// The carrier guard is on: before a packet leaves, its slave's device is looked at.
    pub const GUARD: u32 = 1 << 8;
    /// bond0 and its port are a netkit pair.
    pub const NETKIT: u32 = 1 << 9;
    /// They are, and what bond0 sends goes by the port's ingress, because some slave has a queue_id.
    pub const BY_PORT: u32 = 1 << 10;

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

    /// These flags instead.
    #[must_use]
    pub const fn with_flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    /// This policy instead.
    #[must_use]
    pub const fn with_policy(self, policy: FailOverMac) -> Self {
        Self { policy: policy as u32, ..self }
    }

    /// The host has this MAC now.
    #[must_use]
    pub const fn with_host_mac(self, mac: Mac) -> Self {
        Self { host_mac: mac.to_word(), ..self }
    }

    /// The address of bond0's `struct net_device` in the kernel, 0 where it is not known.
    #[must_use]
    pub const fn with_host_device(self, host_device: u64) -> Self {
        Self { host_device, ..self }
    }

    /// The MAC of bond0, or of whoever is behind the port; zero while it is not known.
    pub const fn host_mac(&self) -> Mac {
        Mac::from_word(self.host_mac)
    }

    pub const fn host_device(&self) -> u64 {
        self.host_device
    }

    /// `SO_NETNS_COOKIE` of the agent's network namespace.
    pub const fn netns_cookie(&self) -> u64 {
        self.netns_cookie
    }

    pub const fn abi_version(&self) -> u32 {
        self.abi_version
    }

    pub const fn port_ifindex(&self) -> u32 {
        self.port_ifindex
    }

    pub const fn policy(&self) -> FailOverMac {
        match self.policy {
            1 => FailOverMac::Active,
            2 => FailOverMac::Follow,
            _ => FailOverMac::None,
        }
    }

    pub const fn has(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    pub const fn flags(&self) -> u32 {
        self.flags
    }
}

/// When a slave heard something, in PROBES at its slot. Nanoseconds of CLOCK_MONOTONIC, 0 for never. The data
/// plane writes it while [`BondEntry::MONITOR`] is set, each word alone and whole; of two CPUs either's time is
/// as good. A new slave has heard nothing in its slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeTimes {
    last_rx: u64,
    targets: [u64; 2 * MAX_TARGETS],
}

impl ProbeTimes {
    /// A slave that has heard nothing.
    pub const NEVER: Self = Self { last_rx: 0, targets: [0; 2 * MAX_TARGETS] };

    /// The last frame that counts under `arp_validate`.
    pub const fn last_rx(&self) -> u64 {
        self.last_rx
    }

    /// The last word of each target: [`MAX_TARGETS`] of IPv4, then as many of IPv6, each in the order of TARGETS.
    /// Kept where the slave is validated.
    pub const fn targets(&self) -> &[u64; 2 * MAX_TARGETS] {
        &self.targets
    }

    /// Notes, at `now`, that something was heard; of a target, if it was one of these.
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

/// Whom the ARP monitor asks, and as whom, in TARGETS at 0. The agent writes it before each round of probes,
/// word by word. An IPv4 target and its source are one word. An IPv6 target is four: a frame that meets old and
/// new ones mixed is not recognised, which is one answer of many.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// The slot that probes, plus one; 0: none.
    prober: u64,
    ipv4: [u64; MAX_TARGETS],
    ipv6: [[u64; 4]; MAX_TARGETS],
}

impl Targets {
    /// This slot probes: the active one, or the one whose turn it is while there is none.
    #[must_use]
    pub const fn with_prober(self, slot: Slot) -> Self {
        Self { prober: slot.0 as u64 + 1, ..self }
    }

    pub const fn prober(&self) -> Option<Slot> {
        match self.prober {
            0 => None,
            slot => Slot::new((slot - 1) as u8),
        }
    }

    /// The IPv4 target at `index` is asked from `source`. Beyond [`MAX_TARGETS`] it is not recognised.
    pub fn set_ipv4(&mut self, index: usize, target: [u8; 4], source: [u8; 4]) {
        if let Some(word) = self.ipv4.get_mut(index) {
            *word = ipv4_pair(target, source);
        }
    }

    /// The IPv6 target at `index` is asked from `source`.
    pub fn set_ipv6(&mut self, index: usize, target: [u8; 16], source: [u8; 16]) {
        if let Some(words) = self.ipv6.get_mut(index) {
            let ([a, b], [c, d]) = (words_of(target), words_of(source));
            *words = [a, b, c, d];
        }
    }

    /// The index, in [`ProbeTimes::targets`], of a target that is asked from this source.
    #[inline(always)]
    pub fn find_ipv4(&self, target: [u8; 4], source: [u8; 4]) -> Option<usize> {
        let wanted = ipv4_pair(target, source);
        if target == [0; 4] {
            return None;
        }
        let mut index = 0;
        while index < MAX_TARGETS {
            if self.ipv4[index] == wanted {
                return Some(index);
            }
            index += 1;
        }
        None
    }

    /// The same of IPv6; without `source` from any.
    #[inline(always)]
    pub fn find_ipv6(&self, target: [u8; 16], source: Option<[u8; 16]>) -> Option<usize> {
        let [a, b] = words_of(target);
        if a | b == 0 {
            return None;
        }
        let mut index = 0;
        while index < MAX_TARGETS {
            let [ta, tb, sa, sb] = self.ipv6[index];
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

/// What the kernel knows of a device at this moment, left by the `device_state` program in its packet,
/// behind the Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    handle: DeviceHandle,
    mac: u64,
    ifindex: u32,
    link_up: u32,
}

impl DeviceState {
    pub const fn new(handle: DeviceHandle, mac: Mac, ifindex: u32, link_up: bool) -> Self {
        Self { handle, mac: mac.to_word(), ifindex, link_up: link_up as u32 }
    }

    pub const fn handle(&self) -> DeviceHandle {
        self.handle
    }

    pub const fn mac(&self) -> Mac {
        Mac::from_word(self.mac)
    }

    pub const fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// `netif_running && netif_carrier_ok`
    pub const fn link_up(&self) -> bool {
        self.link_up != 0
    }

    /// From the bytes that a test run gave back; None if there are too few.
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

/// Where this kernel's BTF says that these fields are, in bytes from the start of their struct.
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
    /// Number of the type `net_device`, where bpf_rdonly_cast lets the programs read devices without a helper; else
    /// 0.
    pub net_device_type: u32,
}

/// The driver's `fail_over_mac`, by its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum FailOverMac {
    /// All slaves wear the bond's MAC.
    #[default]
    None = 0,
    /// The bond wears the active slave's MAC.
    Active = 1,
    /// The active slave wears the bond's MAC, the others their own or one of each other's.
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
        fn the_word_gives_back_what_was_put_in(
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
        assert_eq!(word.bits(), 0x0000_0001_000c_3203);
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
