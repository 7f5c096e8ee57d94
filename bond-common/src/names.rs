//! Names of maps, programs and pins. They are what `bpftool` shows and what a later agent looks for.

/// Maps, pinned under the bond's directory by these names.
pub const ACTIVE: &str = "ACTIVE";
pub const SLAVES: &str = "SLAVES";
pub const BOND: &str = "BOND";
pub const LEARNED: &str = "LEARNED";
pub const TX_PORTS: &str = "TX_PORTS";
pub const RX_PORT: &str = "RX_PORT";
pub const STATS: &str = "STATS";
pub const EVENTS: &str = "EVENTS";
pub const PROBES: &str = "PROBES";
pub const TARGETS: &str = "TARGETS";
pub const GUARD: &str = "GUARD";
pub const WIRE_MACS: &str = "WIRE_MACS";

/// Programs. tc and XDP have one each, so that `bpftool prog show` tells them apart.
pub const TC_PORT_TX: &str = "tc_port_tx";
pub const TC_SLAVE_RX: &str = "tc_slave_rx";
pub const XDP_PORT_TX: &str = "xdp_port_tx";
pub const XDP_SLAVE_RX: &str = "xdp_slave_rx";
/// Behind the XDP program of a slave: link-local frames of the active slave, copied to the port.
pub const TC_SLAVE_LOCAL: &str = "tc_slave_local";
/// At the egress of a pair's two ends: link-local frames that would make the ends each other's neighbours.
pub const TC_PORT_EGRESS: &str = "tc_port_egress";
pub const TC_BOND_EGRESS: &str = "tc_bond_egress";
/// On bond0 itself, under both hooks, for the moments in which its MAC changes.
pub const TC_HOST_RX: &str = "tc_host_rx";
/// Run by BPF_PROG_TEST_RUN only: what the kernel knows of a device's link, and the device's address.
pub const DEVICE_STATE: &str = "device_state";
/// Likewise: of many devices, whether they have a link.
pub const DEVICE_LINKS: &str = "device_links";

/// Load-time constants of the programs.
pub const SLOT: &str = "SLOT";
pub const OFFSETS: &str = "OFFSETS";
/// Overridden by the benchmark alone: what looking before fewer packets would save.
pub const GUARD_SKIPS: &str = "GUARD_SKIPS";

/// The number of a helper that stands, in the programs, for the kernel function bpf_rdonly_cast.
pub const RDONLY_CAST_CALL: u32 = 0x7872_6463;
/// That function's name in the kernel's BTF.
pub const RDONLY_CAST: &str = "bpf_rdonly_cast";

/// Ends of the names under which programs and their links are pinned: `port_tx_prog`, `slave3_rx_link`.
pub const PROGRAM_PIN: &str = "prog";
pub const LINK_PIN: &str = "link";

/// The maps of a bond, all of which are pinned under their names.
pub const PINNED_MAPS: [&str; 12] =
    [ACTIVE, SLAVES, BOND, LEARNED, TX_PORTS, RX_PORT, STATS, EVENTS, PROBES, TARGETS, GUARD, WIRE_MACS];
