//! Names of maps, programs and pins. `bpftool` shows these names, and a later agent finds the objects by them.
//!
//! Maps are pinned under these names in the directory of the bond. Programs for tc and for XDP have different names, so
//! that `bpftool prog show` distinguishes them.

/// Map: the word [`crate::abi::ActiveWord`], which says which slave is active.
pub const ACTIVE: &str = "ACTIVE";
/// Map: a [`crate::abi::SlaveEntry`] for each slot.
pub const SLAVES: &str = "SLAVES";
/// Map: the [`crate::abi::BondEntry`], the settings of the bond.
pub const BOND: &str = "BOND";
/// Map: the MAC address of the host behind the port of a bond without bond0.
pub const LEARNED: &str = "LEARNED";
/// Map: the device of each slot, for XDP redirects to slaves.
pub const TX_PORTS: &str = "TX_PORTS";
/// Map: the port, for XDP redirects to it.
pub const RX_PORT: &str = "RX_PORT";
/// Map: [`crate::counters::SlotStats`] for each CPU, slot and, at [`crate::abi::PORT_STATS`], the port.
pub const STATS: &str = "STATS";
/// Map: the ring buffer of [`crate::event::EventRecord`].
pub const EVENTS: &str = "EVENTS";
/// Map: [`crate::abi::ProbeTimes`] for each slot, which the ARP monitor reads.
pub const PROBES: &str = "PROBES";
/// Map: the [`crate::abi::Targets`] of the ARP monitor.
pub const TARGETS: &str = "TARGETS";
/// Map: the [`crate::abi::GuardEntry`], the state of the carrier guard.
pub const GUARD: &str = "GUARD";
/// Map: the [`crate::abi::WireMacs`], a copy of the slaves' wire MAC addresses.
pub const WIRE_MACS: &str = "WIRE_MACS";

/// Map: the [`crate::clock::layout::ClockEntry`], the agent's settings for the tick.
pub const CLOCK: &str = "CLOCK";
/// Map: the [`crate::clock::layout::TickEntry`], what the tick keeps.
pub const TICKS: &str = "TICKS";
/// Map: the frames of a round of announcements, [`crate::clock::layout::AnnounceFrame`], in two banks.
pub const ANNOUNCE: &str = "ANNOUNCE";
/// Map: the frames for the bond that arrived on backups, [`crate::clock::misdirected::MisdirectedEntry`].
pub const MISDIRECTED: &str = "MISDIRECTED";

/// Map: the MAC addresses behind the bond, [`crate::behind::BehindEntry`] by [`crate::behind::BehindKey`].
pub const BEHIND: &str = "BEHIND";
/// Map: the [`crate::clock::monitor::MonitorEntry`], the agent's settings for ARP monitoring by the tick.
pub const ARP_MONITOR: &str = "ARP_MONITOR";
/// Map: the [`crate::clock::monitor::MonitorState`], what the tick keeps of ARP monitoring.
pub const ARP_STATE: &str = "ARP_STATE";
/// Map: the frames of a round of probes, [`crate::clock::monitor::ProbeFrame`], in two banks.
pub const ARP_PROBES: &str = "ARP_PROBES";
/// Map: the stations that the active slave has heard since a failover, [`crate::heard::FirstHeard`] by MAC address.
pub const HEARD: &str = "HEARD";

/// Map: the [`crate::path::layout::PathEntry`], the agent's settings for the path monitor.
pub const PATH_MONITOR: &str = "PATH_MONITOR";
/// Map: the [`crate::path::layout::PathState`], what the tick keeps of the path monitor.
pub const PATH_STATE: &str = "PATH_STATE";
/// Map: what slaves have heard of targets, [`crate::path::layout::PathHeard`].
pub const PATH_HEARD: &str = "PATH_HEARD";
/// Map: the frames of the path monitor, [`crate::path::layout::PathFrame`], in two banks.
pub const PATH_FRAMES: &str = "PATH_FRAMES";

/// Program for tc, at the ingress of the port: redirects what bond0 sends to a slave.
pub const TC_PORT_TX: &str = "tc_port_tx";
/// Program for tc, at the ingress of a slave: delivers what it receives to the port, or drops it.
pub const TC_SLAVE_RX: &str = "tc_slave_rx";
/// Program for XDP, at the port: [`TC_PORT_TX`] for the XDP datapaths.
pub const XDP_PORT_TX: &str = "xdp_port_tx";
/// Program for XDP, at a slave: [`TC_SLAVE_RX`] for the XDP datapaths.
pub const XDP_SLAVE_RX: &str = "xdp_slave_rx";
/// Program for tc, behind [`XDP_SLAVE_RX`]: copies link-local frames of the active slave to the port.
pub const TC_SLAVE_LOCAL: &str = "tc_slave_local";
/// Program for tc, at the egress of the port of a pair: discards link-local frames of this host, which would make bond0
/// a neighbour of its own port.
pub const TC_PORT_EGRESS: &str = "tc_port_egress";
/// Program for tc, at the egress of bond0 of a veth pair: sends link-local frames before packet sockets at the port
/// receive them.
pub const TC_BOND_EGRESS: &str = "tc_bond_egress";
/// Program for tc, at the ingress of bond0 under all datapaths: accepts frames to its former MAC address while the
/// address changes.
pub const TC_HOST_RX: &str = "tc_host_rx";
/// Program for tc, at the receiving end of the clock's pair: the tick.
pub const TC_TICK: &str = "tc_tick";
/// Program for tc, at the egress of the clock's sending end, behind [`TC_TICK`] in each lap: the path monitor.
pub const TC_TICK_PATH: &str = "tc_tick_path";
/// Program for BPF_PROG_TEST_RUN only: stores a [`crate::abi::DeviceState`] in its packet.
pub const DEVICE_STATE: &str = "device_state";
/// Program for BPF_PROG_TEST_RUN only: answers the [`crate::abi::LinkQuestion`]s in its packet.
pub const DEVICE_LINKS: &str = "device_links";

/// Load-time constant: the slot whose ingress the program is attached to, [`crate::abi::PORT_STATS`] at the port.
pub const SLOT: &str = "SLOT";
/// Load-time constant: the [`crate::abi::Offsets`] of kernel fields.
pub const OFFSETS: &str = "OFFSETS";
/// Load-time constant: a mask of packets that the carrier guard does not check. Only the benchmark sets it, to measure
/// what fewer checks would save.
pub const GUARD_SKIPS: &str = "GUARD_SKIPS";

/// The number of a helper that stands, in the programs, for the kernel function [`RDONLY_CAST`].
pub const RDONLY_CAST_CALL: u32 = 0x7872_6463;
/// The name of the kernel function bpf_rdonly_cast in the kernel's BTF.
pub const RDONLY_CAST: &str = "bpf_rdonly_cast";

/// The end of the name under which a program is pinned, as in `port_tx_prog`.
pub const PROGRAM_PIN: &str = "prog";
/// The end of the name under which the link of a program is pinned, as in `slave3_rx_link`.
pub const LINK_PIN: &str = "link";

/// All maps of a bond; each is pinned under its name.
pub const PINNED_MAPS: [&str; 25] = [
    ACTIVE,
    SLAVES,
    BOND,
    LEARNED,
    TX_PORTS,
    RX_PORT,
    STATS,
    EVENTS,
    PROBES,
    TARGETS,
    GUARD,
    WIRE_MACS,
    CLOCK,
    TICKS,
    ANNOUNCE,
    MISDIRECTED,
    ARP_MONITOR,
    ARP_STATE,
    ARP_PROBES,
    BEHIND,
    HEARD,
    PATH_MONITOR,
    PATH_STATE,
    PATH_HEARD,
    PATH_FRAMES,
];

/// The number of maps that a bond of [`crate::abi::ABI_ADOPTED`] has: the first of [`PINNED_MAPS`].
const ADOPTED_MAPS: usize = 12;

/// The maps among [`PINNED_MAPS`] that a bond of [`crate::abi::ABI_ADOPTED`] may lack. Its adoption creates them.
pub const LATER_MAPS: &[&str] = PINNED_MAPS.split_at(ADOPTED_MAPS).1;

/// The maps of the clock.
pub const CLOCK_MAPS: [&str; 11] = [
    CLOCK,
    TICKS,
    ANNOUNCE,
    MISDIRECTED,
    ARP_MONITOR,
    ARP_STATE,
    ARP_PROBES,
    PATH_MONITOR,
    PATH_STATE,
    PATH_HEARD,
    PATH_FRAMES,
];
