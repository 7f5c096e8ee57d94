//! What a bond and its slaves must be, by what is wanted of them.

use std::collections::HashMap;

use bond_common::mac::Mac;
use bond_core::{Refusal, options::SlaveOptions};

use crate::{
    agent::{AgentError, queues::Queues},
    config::{self, BondConfig, SlaveConfig},
    sys::{found::Found, netlink::PairKind},
};

/// Checks that a slave's queue is one of the bond's.
///
/// # Errors
/// [`AgentError::NoSuchQueue`].
pub fn check_queue(bond: &str, queues: Queues, slave: &str, options: SlaveOptions) -> Result<(), AgentError> {
    let queue_id = options.queue_id;
    if queues.has(queue_id) {
        return Ok(());
    }
    Err(AgentError::NoSuchQueue { bond: bond.to_owned(), slave: slave.to_owned(), queue_id, queues })
}

/// Checks that the bond's MTU allows the IPv6 addresses of its configuration.
///
/// # Errors
/// [`AgentError::Small`].
pub fn check_ipv6(config: &BondConfig, mtu: u32) -> Result<(), AgentError> {
    let small = |problem| AgentError::Small { bond: config.name.to_string(), problem };
    config.check_ipv6(mtu).map_err(small)
}

/// Checks that each queue belongs to one slave. The engine checks that against the bond's present slaves.
///
/// # Errors
/// [`Refusal::QueueIdTaken`].
pub fn check_queues_differ(slaves: &[SlaveConfig]) -> Result<(), AgentError> {
    let mut owners = HashMap::new();
    for slave in slaves.iter().filter(|slave| slave.options.queue_id != 0) {
        let queue_id = slave.options.queue_id;
        if let Some(owner) = owners.insert(queue_id, &slave.name) {
            let (name, slave) = (slave.name.to_string(), owner.to_string());
            return Err(Refusal::QueueIdTaken { name, queue_id, slave }.into());
        }
    }
    Ok(())
}

/// Checks that an interface is the NIC that HWADDR of an ifcfg file names.
///
/// # Errors
/// [`AgentError::OtherNic`].
pub fn check_nic(slave: &SlaveConfig, found: &Found) -> Result<(), AgentError> {
    let has = |mac: Mac| found.mac == mac || found.permanent_mac == Some(mac);
    match slave.hwaddr {
        Some(wanted) if !has(wanted) => {
            Err(AgentError::OtherNic { slave: slave.name.to_string(), found: found.mac, wanted })
        }
        _ => Ok(()),
    }
}

/// Whether a pair is what is wanted; None is a port that was there before.
pub fn fits(wanted: config::Pair, made_of: Option<PairKind>) -> bool {
    match wanted {
        config::Pair::Auto => true,
        config::Pair::Netkit => made_of == Some(PairKind::Netkit),
        config::Pair::Veth => made_of == Some(PairKind::Veth),
    }
}
