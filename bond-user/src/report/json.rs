//! The JSON of `xbond show -j` and of the control socket.

use std::collections::BTreeMap;

use bond_common::counters::{DropReason, SlotStats};
use serde::{Deserialize, Serialize};

use crate::bond::{
    event::{Duplex, Speed},
    status::{BondStatus, SlaveStatus},
};

/// Version of this format; a change that a reader could stumble over raises it.
pub const VERSION: u32 = 1;

/// Bonds of one agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub bonds: Vec<Bond>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bond {
    pub name: String,
    pub active_slave: Option<String>,
    pub mac: String,
    pub carrier: bool,
    /// tc, xdp or xdp-generic.
    pub datapath: String,
    /// The device on the wire's side: bond0-port, or the one that was given.
    pub port: String,
    /// The carrier guard: on, or off with the reason.
    pub guard: String,
    /// By the driver's names: numbers as numbers, choices by name.
    pub options: serde_json::Map<String, serde_json::Value>,
    /// Packets that no slave's counters have, by reason.
    pub drops: BTreeMap<String, u64>,
    /// In enslave order.
    pub slaves: Vec<Slave>,
    /// Slaves that are configured and not there.
    pub absent: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slave {
    pub name: String,
    pub ifindex: u32,
    /// active or backup.
    pub state: String,
    /// up, going down, down or going back.
    pub mii_status: String,
    pub mac: String,
    pub permanent_mac: String,
    pub link_failure_count: u32,
    /// Mbit/s; null while unknown.
    pub speed: Option<u32>,
    /// half or full; null while unknown.
    pub duplex: Option<String>,
    pub prio: i32,
    pub queue_id: u16,
    pub counters: Counters,
    /// What someone should know about it.
    pub warnings: Vec<String>,
}

/// What the data plane counted since the slave joined. A TSO or GRO packet counts once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_stamped: u64,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_unicast: u64,
    pub rx_rewritten: u64,
    pub rx_link_local: u64,
    /// Failovers to this slave that the carrier guard made.
    pub guard_failovers: u64,
    pub drops: BTreeMap<String, u64>,
}

/// What the status of a bond does not say.
pub struct Surroundings {
    pub name: String,
    pub datapath: String,
    pub port: String,
    pub guard: String,
    pub absent: Vec<String>,
    pub port_stats: SlotStats,
    /// By slot, in the order of the status.
    pub slave_stats: Vec<SlotStats>,
}

impl Bond {
    pub fn new(status: &BondStatus, around: Surroundings) -> Self {
        let options = match serde_json::to_value(&status.options) {
            Ok(serde_json::Value::Object(options)) => options,
            // Options are a flat map by construction.
            _ => serde_json::Map::new(),
        };
        let slaves =
            status.slaves.iter().zip(around.slave_stats).map(|(slave, stats)| Slave::new(slave, &stats));
        Self {
            name: around.name,
            active_slave: status.active_slave.clone(),
            mac: status.mac.to_string(),
            carrier: status.carrier,
            datapath: around.datapath,
            port: around.port,
            guard: around.guard,
            options,
            drops: drops(&around.port_stats),
            slaves: slaves.collect(),
            absent: around.absent,
        }
    }
}

impl Slave {
    fn new(slave: &SlaveStatus, stats: &SlotStats) -> Self {
        let unheard = slave.unheard.map(|sent| super::text::unheard(&slave.name, sent));
        Self {
            name: slave.name.clone(),
            ifindex: slave.ifindex,
            state: slave.state.to_string(),
            mii_status: slave.mii_status.to_string(),
            mac: slave.mac.to_string(),
            permanent_mac: slave.permanent_mac.to_string(),
            link_failure_count: slave.link_failure_count,
            speed: (slave.speed != Speed::UNKNOWN).then_some(slave.speed.0),
            duplex: match slave.duplex {
                Duplex::Half => Some("half".to_owned()),
                Duplex::Full => Some("full".to_owned()),
                Duplex::Unknown => None,
            },
            prio: slave.options.prio,
            queue_id: slave.options.queue_id,
            counters: Counters {
                tx_packets: stats.tx_packets,
                tx_bytes: stats.tx_bytes,
                tx_stamped: stats.tx_stamped,
                rx_packets: stats.rx_packets,
                rx_bytes: stats.rx_bytes,
                rx_unicast: stats.rx_unicast,
                rx_rewritten: stats.rx_rewritten,
                rx_link_local: stats.rx_link_local,
                guard_failovers: stats.guard_failovers,
                drops: drops(stats),
            },
            warnings: unheard.into_iter().collect(),
        }
    }
}

fn drops(stats: &SlotStats) -> BTreeMap<String, u64> {
    DropReason::ALL.into_iter().map(|reason| (reason.name().to_owned(), stats.dropped(reason))).collect()
}
