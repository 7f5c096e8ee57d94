//! The JSON of `xbond show -j` and of the control socket; docs/xbond.schema.json describes it.

use std::{collections::BTreeMap, time::Duration};

use bond_common::{
    abi::{ActiveWord, Slot},
    counters::{DropReason, SlotStats},
    mac::Mac,
};
use bond_core::{
    command::Reason,
    event::{Duplex, Speed},
    status::{BondStatus, SlaveStatus},
};
use serde::{Deserialize, Serialize};

use super::{
    drain::{Damped, Drained},
    moment::Moment,
    path::{PathMonitor, SlavePath},
    receipt::Receipt,
};
use crate::sys::{
    dataplane::ClockMaps,
    found,
    netlink::message::Message,
    netlink::{CountedLink, QdiscPlace, QdiscStats},
    softnet,
};

/// Version of this format. It increases once a release if fields were added, and with each change that could break a
/// reader.
pub const VERSION: u32 = 2;

/// Bonds of one network namespace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the format.
    pub version: u32,
    /// Where the report comes from.
    pub source: AnswerSource,
    /// When the report was made.
    #[serde(flatten)]
    pub moment: Moment,
    /// Null if no agent runs, or none answers.
    pub agent: Option<AgentInfo>,
    /// Why an agent that lives has not answered; only in reports from the maps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_answer: Option<String>,
    /// Counters of the machine; null if they could not be read.
    pub softnet: Option<SoftnetCounters>,
    /// What could not be read, and is therefore missing.
    pub notes: Vec<String>,
    /// The bonds, by name.
    pub bonds: Vec<Bond>,
    /// Bonds that another agent has left here, and that this one does not manage.
    #[serde(default)]
    pub orphaned: Vec<String>,
    /// A sentence for each bond of a file whose device is gone, and which the agent recreates as soon as possible.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<String>,
    /// A sentence for each other resource that the agent should have, cannot get, and keeps trying to get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
}

/// The source of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerSource {
    /// A running agent.
    Agent,
    /// The pinned maps, netlink and found.json: what only an agent knows is missing.
    Maps,
}

/// The agent that answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Version of xbond.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it was started.
    pub started: Moment,
}

/// Sums over all CPUs since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoftnetCounters {
    /// Packets that were dropped because a CPU's backlog was full.
    pub dropped: u64,
    /// How often a CPU had more packets than its time allowed.
    pub time_squeeze: u64,
}

/// The state of a bond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bond {
    /// The bond's name.
    pub name: String,
    /// ifindex of bond0; null if the bond ends in a port, or bond0 was moved to another network namespace.
    pub ifindex: Option<u32>,
    /// The active slave; null if there is none.
    pub active_slave: Option<String>,
    /// The former active slave of a planned switch, which still delivers unicast.
    pub draining_slave: Option<String>,
    /// Generation of ACTIVE: how often it was stored.
    pub generation: u32,
    /// The MAC address of the bond: that of its frames, except if `host_mac_stays`.
    pub mac: String,
    /// The host's MAC address according to the data plane; null while it is not known.
    pub host_mac: Option<String>,
    /// Whether bond0 keeps its MAC address when the active slave changes, under fail_over_mac=active.
    pub host_mac_stays: bool,
    /// Whether the bond has a carrier.
    pub carrier: bool,
    /// tc, xdp or xdp-generic.
    pub datapath: String,
    /// The kind of bond0 and its port, netkit or veth; null if the bond ends in an existing port.
    pub pair: Option<String>,
    /// The device that faces the slaves: bond0-port, or the configured one.
    pub port: String,
    /// ifindex of the port.
    pub port_ifindex: u32,
    /// State of the carrier guard: on, or off with the reason.
    pub guard: String,
    /// State of the clock: on with its period, off with the reason, or standing still.
    pub clock: String,
    /// What the clock has counted since the bond was created; null if an earlier version has created it.
    #[serde(default)]
    pub ticks: Option<Ticks>,
    /// The path monitor; null if there is none.
    #[serde(default)]
    pub path: Option<PathMonitor>,
    /// Bytes; null if it could not be read.
    pub mtu: Option<u32>,
    /// down or keep; null if no agent runs.
    pub on_exit: Option<String>,
    /// The directory of the pinned maps, programs and links.
    pub pins: String,
    /// The directory of found.json and receipts.ndjson.
    pub files: String,
    /// Options with the driver's names: numbers as numbers, choices by name. Without an agent only those that packets
    /// read.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Packets that are in no slave's counters, by reason.
    pub drops: BTreeMap<String, u64>,
    /// In the order of enslaving; without an agent in the order of slots.
    pub slaves: Vec<Slave>,
    /// Configured slaves that do not exist.
    pub absent: Vec<String>,
    /// An interface that is no slave any more, and gets its addresses back when the bond is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses_of: Option<String>,
    /// Failovers by reason, since the agent has the bond.
    pub failovers: BTreeMap<Reason, u64>,
    /// Changes of ACTIVE without a receipt, since the agent has the bond.
    #[serde(default)]
    pub unrecorded_changes: u64,
    /// Changes of another process to the packets' path that could not be restored: a sentence each. The warnings
    /// include them.
    #[serde(default)]
    pub path_faults: Vec<String>,
    /// Number of changes of another process that were restored, since the agent has the bond.
    #[serde(default)]
    pub path_restored: u64,
    /// Null if there was none yet, or its receipt is lost.
    pub last_failover: Option<Receipt>,
    /// Counters of the kernel, outside of xbond, for bond0, the port and the slaves.
    pub devices: Vec<Device>,
    /// Faults that require action and concern no slave.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// The state of a slave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slave {
    /// The interface's name.
    pub name: String,
    /// The interface's index.
    pub ifindex: u32,
    /// Index in the maps.
    pub slot: u8,
    /// active or backup.
    pub state: String,
    /// up, going down, down or going back. Without an agent up or down, according to the link.
    pub mii_status: String,
    /// The interface's present MAC address.
    pub mac: String,
    /// The source MAC address of its frames while it is active.
    pub wire_mac: String,
    /// The MAC address that it had before it was enslaved.
    pub permanent_mac: String,
    /// Number of link failures; without an agent, as the last one left it.
    pub link_failure_count: Option<u32>,
    /// Mbit/s; null if unknown.
    pub speed: Option<u32>,
    /// half or full; null if unknown.
    pub duplex: Option<String>,
    /// Null if there is no path monitor.
    #[serde(default)]
    pub path: Option<SlavePath>,
    /// Null if the slave is not drained.
    #[serde(default)]
    pub drained: Option<Drained>,
    /// Whether it is suppressed because its link flaps; false without an agent.
    #[serde(default)]
    pub damped: bool,
    /// Null if damping is off, its link has not failed since it is on, or without an agent.
    #[serde(default)]
    pub damping: Option<Damped>,
    /// Null without an agent.
    pub prio: Option<i32>,
    /// The transmit queue of bond0 that chooses this slave; 0 for none.
    pub queue_id: u16,
    /// The data plane's counters.
    pub counters: Counters,
    /// Its original state, which will be restored; null if found.json does not have it.
    pub found: Option<OriginalState>,
    /// The active slave has sent frames and has received no unicast since it became active.
    pub no_unicast: bool,
    /// Facts about the slave that an administrator should know.
    pub warnings: Vec<String>,
}

/// Counters of the data plane since the slave joined. A TSO or GRO packet counts once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets whose source MAC address was rewritten.
    pub tx_rewritten: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Unicast packets received.
    pub rx_unicast: u64,
    /// Packets whose destination MAC address was rewritten.
    pub rx_rewritten: u64,
    /// Link-local packets, such as LLDP, which the slave received itself.
    pub rx_link_local: u64,
    /// Failovers of the carrier guard to this slave.
    pub guard_failovers: u64,
    /// Dropped packets by reason.
    pub drops: BTreeMap<String, u64>,
    /// Frames for the bond that it received while it was a backup: a switch had the address on the wrong port.
    #[serde(default)]
    pub misdirected: u64,
}

/// The clock of a bond: its devices and counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticks {
    /// Whether it ticks now.
    pub running: bool,
    /// ms; null if there is no clock.
    pub period: Option<u64>,
    /// The two ends of its pair, the sending one first; empty if there is none.
    pub devices: Vec<String>,
    /// Number of ticks.
    pub ticks: u64,
    /// Ticks that came more than half a period late.
    pub late: u64,
    /// Frames that a tick has put in again because one was lost.
    pub injected: u64,
    /// Frames that the tick did not expect, and dropped.
    pub refused: u64,
    /// Changes of the active slave by ticks.
    pub failovers: u64,
    /// Frames of announcements that the kernel did not accept from the tick.
    pub unsent: u64,
}

impl Ticks {
    /// Reads them at `now`, CLOCK_MONOTONIC of the machine. `devices` are the ends of the pair.
    pub fn read(maps: &ClockMaps, devices: Vec<String>, now: Duration) -> Self {
        let (entry, ticks) = (maps.entry(), maps.ticks());
        let period = Duration::from_nanos(entry.period).as_millis();
        Self {
            running: super::wording::clock_ticks(&entry, &ticks, now),
            period: u64::try_from(period).ok().filter(|period| *period > 0),
            devices,
            ticks: ticks.ticks,
            late: ticks.late,
            injected: ticks.injected,
            refused: ticks.refused,
            failovers: ticks.failovers,
            unsent: ticks.failed,
        }
    }
}

/// The original state of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginalState {
    /// Whether it was up.
    pub up: bool,
    /// Its MAC address.
    pub mac: String,
    /// Bytes.
    pub mtu: u32,
    /// Addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// Routes in the form of `ip route`.
    pub routes: Vec<String>,
    /// The former states of changed offloads: "rx-lro on".
    pub features: Vec<String>,
}

/// Counters of the kernel for a device since it was created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The device's name.
    pub name: String,
    /// The device's index.
    pub ifindex: u32,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Packets that were not sent, but dropped.
    pub tx_dropped: u64,
    /// Errors of reception.
    pub rx_errors: u64,
    /// Errors of transmission.
    pub tx_errors: u64,
    /// Packets for which the NIC had no space.
    pub rx_missed: u64,
    /// Packets that no protocol handled.
    pub rx_nohandler: u64,
    /// Packets for another MAC address.
    pub rx_otherhost_dropped: u64,
    /// Its outermost qdiscs, if it has any.
    pub qdiscs: Vec<Qdisc>,
}

/// Counters of a qdisc.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qdisc {
    /// Its kind, such as fq_codel.
    pub kind: String,
    /// root or ingress.
    pub at: String,
    /// Dropped packets.
    pub drops: u32,
    /// How often the limit was reached.
    pub overlimits: u32,
    /// Packets that were queued again.
    pub requeues: u32,
    /// Packets in the queue.
    pub queued: u32,
}

/// The part of a bond's report that its status does not contain.
pub struct BondContext {
    /// The bond's name.
    pub name: String,
    /// As in [`Bond`].
    pub ifindex: Option<u32>,
    /// As in [`Bond`].
    pub datapath: String,
    /// As in [`Bond`].
    pub pair: Option<String>,
    /// As in [`Bond`].
    pub port: String,
    /// As in [`Bond`].
    pub port_ifindex: u32,
    /// The host's MAC address; zero while it is not known.
    pub host_mac: Mac,
    /// As in [`Bond`].
    pub host_mac_stays: bool,
    /// As in [`Bond`].
    pub mtu: Option<u32>,
    /// As in [`Bond`].
    pub on_exit: Option<String>,
    /// As in [`Bond`].
    pub pins: String,
    /// As in [`Bond`].
    pub files: String,
    /// The word in ACTIVE.
    pub active: ActiveWord,
    /// As in [`Bond`].
    pub guard: String,
    /// As in [`Bond`].
    pub clock: String,
    /// As in [`Bond`].
    pub ticks: Option<Ticks>,
    /// As in [`Bond`].
    pub path: Option<PathMonitor>,
    /// As in [`Bond`].
    pub absent: Vec<String>,
    /// The counters of no slave.
    pub port_stats: SlotStats,
    /// For each slave, in the order of the status.
    pub slaves: Vec<SlaveContext>,
    /// As in [`Bond`].
    pub addresses_of: Option<String>,
    /// As in [`Bond`].
    pub failovers: BTreeMap<Reason, u64>,
    /// As in [`Bond`].
    pub unrecorded_changes: u64,
    /// As in [`Bond`].
    pub path_faults: Vec<String>,
    /// As in [`Bond`].
    pub path_restored: u64,
    /// As in [`Bond`].
    pub last_failover: Option<Receipt>,
    /// As in [`Bond`].
    pub devices: Vec<Device>,
    /// As in [`Bond`].
    pub warnings: Vec<String>,
}

/// The part of a slave's report that its status does not contain.
pub struct SlaveContext {
    /// The data plane's counters.
    pub stats: SlotStats,
    /// As in [`Counters`].
    pub misdirected: u64,
    /// As in [`Slave`].
    pub wire_mac: Mac,
    /// As in [`Slave`].
    pub found: Option<OriginalState>,
    /// As in [`Slave`].
    pub drained: Option<Drained>,
    /// As in [`Slave`].
    pub damping: Option<Damped>,
    /// As in [`Slave`].
    pub path: Option<SlavePath>,
}

impl Bond {
    /// Returns the report of a bond from its status, and what the status does not contain.
    pub fn new(status: &BondStatus, around: BondContext) -> Self {
        let options = match serde_json::to_value(&status.options) {
            Ok(serde_json::Value::Object(options)) => options,
            // Options are a flat map by construction.
            _ => serde_json::Map::new(),
        };
        let draining = around.active.draining().map(Slot::index);
        let draining = status.slaves.iter().find(|slave| Some(usize::from(slave.slot)) == draining);
        let draining_slave = draining.map(|slave| slave.name.clone());
        let slaves = status.slaves.iter().zip(around.slaves).map(|(slave, around)| Slave::new(slave, around));
        Self {
            name: around.name,
            ifindex: around.ifindex,
            active_slave: status.active_slave.clone(),
            draining_slave,
            generation: around.active.generation(),
            mac: status.mac.to_string(),
            host_mac: known(around.host_mac),
            host_mac_stays: around.host_mac_stays,
            carrier: status.carrier,
            datapath: around.datapath,
            pair: around.pair,
            port: around.port,
            port_ifindex: around.port_ifindex,
            mtu: around.mtu,
            on_exit: around.on_exit,
            pins: around.pins,
            files: around.files,
            guard: around.guard,
            clock: around.clock,
            ticks: around.ticks,
            path: around.path,
            options,
            drops: drops(&around.port_stats),
            slaves: slaves.collect(),
            absent: around.absent,
            addresses_of: around.addresses_of,
            failovers: around.failovers,
            unrecorded_changes: around.unrecorded_changes,
            path_faults: around.path_faults,
            path_restored: around.path_restored,
            last_failover: around.last_failover,
            devices: around.devices,
            warnings: around.warnings,
        }
    }
}

impl Slave {
    fn new(slave: &SlaveStatus, around: SlaveContext) -> Self {
        let no_unicast = slave.no_unicast.map(|sent| super::wording::no_unicast(&slave.name, sent));
        Self {
            name: slave.name.clone(),
            ifindex: slave.ifindex,
            slot: slave.slot,
            state: slave.state.to_string(),
            mii_status: slave.mii_status.to_string(),
            mac: slave.mac.to_string(),
            wire_mac: around.wire_mac.to_string(),
            permanent_mac: slave.permanent_mac.to_string(),
            link_failure_count: Some(slave.link_failure_count),
            speed: speed(slave.speed),
            duplex: duplex(slave.duplex),
            path: around.path,
            drained: around.drained,
            damped: slave.is_damped(),
            damping: around.damping,
            prio: Some(slave.options.prio),
            queue_id: slave.options.queue_id,
            counters: Counters::new(&around.stats, around.misdirected),
            found: around.found,
            no_unicast: no_unicast.is_some(),
            warnings: no_unicast.into_iter().collect(),
        }
    }
}

impl Counters {
    /// Returns the counters of a slot.
    pub fn new(stats: &SlotStats, misdirected: u64) -> Self {
        Self {
            tx_packets: stats.tx_packets,
            tx_bytes: stats.tx_bytes,
            tx_rewritten: stats.tx_rewritten,
            rx_packets: stats.rx_packets,
            rx_bytes: stats.rx_bytes,
            rx_unicast: stats.rx_unicast,
            rx_rewritten: stats.rx_rewritten,
            rx_link_local: stats.rx_link_local,
            guard_failovers: stats.guard_failovers,
            drops: drops(stats),
            misdirected,
        }
    }
}

impl From<&found::Found> for OriginalState {
    fn from(found: &found::Found) -> Self {
        let on_or_off = |on: bool| if on { "on" } else { "off" };
        // The kernel adds local, broadcast and multicast routes with each address.
        let of_an_address = |route: &Message| {
            route.route_type() != libc::RTN_UNICAST && route.route_protocol() == libc::RTPROT_KERNEL
        };
        Self {
            up: found.up,
            mac: found.mac.to_string(),
            mtu: found.mtu,
            addresses: found.layer3.addresses().map(ToString::to_string).collect(),
            routes: found
                .layer3
                .routes()
                .filter(|route| !of_an_address(route))
                .map(ToString::to_string)
                .collect(),
            features: found.features.iter().map(|f| format!("{} {}", f.name, on_or_off(f.on))).collect(),
        }
    }
}

impl From<softnet::Softnet> for SoftnetCounters {
    fn from(softnet: softnet::Softnet) -> Self {
        Self { dropped: softnet.dropped, time_squeeze: softnet.time_squeeze }
    }
}

impl Device {
    /// Converts the counters; `qdiscs` may include those of other devices.
    pub fn new(counted: &CountedLink, qdiscs: &[QdiscStats]) -> Self {
        let stats = counted.stats.unwrap_or_default();
        let is_its = |qdisc: &&QdiscStats| qdisc.ifindex == counted.link.ifindex;
        Self {
            name: counted.link.name.clone(),
            ifindex: counted.link.ifindex,
            rx_dropped: stats.rx_dropped,
            tx_dropped: stats.tx_dropped,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            rx_missed: stats.rx_missed_errors,
            rx_nohandler: stats.rx_nohandler,
            rx_otherhost_dropped: stats.rx_otherhost_dropped,
            qdiscs: qdiscs.iter().filter(is_its).map(Qdisc::from).collect(),
        }
    }

    /// Returns the number of packets that its qdiscs dropped.
    pub fn qdisc_drops(&self) -> u64 {
        self.qdiscs.iter().map(|qdisc| u64::from(qdisc.drops)).sum()
    }
}

impl From<&QdiscStats> for Qdisc {
    fn from(qdisc: &QdiscStats) -> Self {
        let at = match qdisc.at {
            QdiscPlace::Root => "root",
            QdiscPlace::Ingress => "ingress",
        };
        Self {
            kind: qdisc.kind.clone(),
            at: at.to_owned(),
            drops: qdisc.drops,
            overlimits: qdisc.overlimits,
            requeues: qdisc.requeues,
            queued: qdisc.queued,
        }
    }
}

/// Returns the text of a MAC address; `None` for the zero address.
pub fn known(mac: Mac) -> Option<String> {
    (!mac.is_zero()).then(|| mac.to_string())
}

/// Returns Mbit/s; `None` if the speed is unknown.
pub fn speed(speed: Speed) -> Option<u32> {
    (speed != Speed::UNKNOWN).then_some(speed.0)
}

/// Returns half or full; `None` if it is unknown.
pub fn duplex(duplex: Duplex) -> Option<String> {
    match duplex {
        Duplex::Half => Some("half".to_owned()),
        Duplex::Full => Some("full".to_owned()),
        Duplex::Unknown => None,
    }
}

/// Returns the dropped packets by reason, without reasons that did not occur.
pub fn drops(stats: &SlotStats) -> BTreeMap<String, u64> {
    DropReason::ALL.into_iter().map(|reason| (reason.name().to_owned(), stats.dropped(reason))).collect()
}
