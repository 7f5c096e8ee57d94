//! What a takeover takes: decided from what was observed, without a system call.

use bond_core::name::{BondName, InterfaceName};

use super::observe::TakeoverFacts;
use crate::{
    agent::AgentError,
    config::{BondConfig, Config, toml},
    report::wording,
    store::takeovers::{TakenNic, TakeoverRecord, TakeoverStage},
    sys::{
        handover::{
            BridgePort, DriverSlave, RawLink, Twin, VlanPlan, Way, active_slave, is_active_backup, slaves_of,
        },
        netlink::FdbOwner,
    },
};

/// The plan of a takeover.
#[derive(Clone, Debug, PartialEq)]
pub struct TakeoverPlan {
    /// xbond's bond, with all slaves and without addresses: these are moved as they are.
    pub config: BondConfig,
    /// As it is recorded before the first step.
    pub record: TakeoverRecord,
}

/// Qdiscs that the kernel gives a device by itself.
const DEFAULT_QDISCS: [&str; 5] = ["noqueue", "pfifo_fast", "fq_codel", "fq", "mq"];
/// Names aside, for two devices of each twin.
const ASIDE: [&str; 2] = ["xbo", "xbt"];

/// Returns the ifindexes of a device and of all VLANs above it, each after the one below it.
pub fn stack(bond: u32, links: &[RawLink]) -> Vec<u32> {
    let mut stack = vec![bond];
    let mut place = 0;
    while let Some(below) = stack.get(place).copied() {
        let is_above = |link: &&RawLink| link.info.vlan.is_some() && is_above(link, below);
        stack.extend(links.iter().filter(is_above).map(|link| link.info.ifindex));
        place += 1;
    }
    stack
}

fn is_above(link: &RawLink, below: u32) -> bool {
    link.info.link == Some(below) && link.info.link_netns.is_none()
}

/// Decides what a takeover does.
///
/// # Errors
/// [`AgentError::CannotTakeOver`], which names everything that speaks against it.
pub fn plan(config: &BondConfig, facts: &TakeoverFacts) -> Result<TakeoverPlan, AgentError> {
    let refuse =
        |why: Vec<String>| AgentError::CannotTakeOver { bond: config.name.to_string(), why: why.join("; ") };
    let links = &facts.links;
    let Some(bond) = links.iter().find(|link| link.info.name == *config.name) else {
        return Err(refuse(vec![wording::takeover_no_bond()]));
    };
    match is_active_backup(bond) {
        None => return Err(refuse(vec![wording::takeover_no_bond()])),
        Some(false) => return Err(refuse(vec![wording::takeover_other_mode()])),
        Some(true) => {}
    }
    let slaves = slaves_of(bond.info.ifindex, links);
    let mut against = Vec::new();
    if !facts.renames_live {
        against.push(wording::takeover_no_rename());
    }
    if config.port.is_some() || config.move_addresses {
        against.push(wording::takeover_own_settings());
    }
    let chosen = choose(bond, &slaves).map_err(|why| against.push(why)).ok();
    let stack = stack(bond.info.ifindex, links);
    against.extend(obstacles(bond, &stack, facts));
    let twins = twins(&stack, facts, Way::Over);
    let (Some((first, others)), Some(twins), true) = (chosen, twins, against.is_empty()) else {
        return Err(refuse(against));
    };
    let mut config = config.clone();
    config.addresses.clear();
    config.routes.clear();
    let toml = toml::write(&Config { bonds: vec![config.clone()], ..Config::default() });
    let record = TakeoverRecord {
        bond: config.name.clone(),
        stage: TakeoverStage::Releasing,
        toml,
        first: taken(first)?,
        others: others.into_iter().map(taken).collect::<Result<_, _>>()?,
        twins,
        trial: None,
    };
    Ok(TakeoverPlan { config, record })
}

fn taken(slave: &DriverSlave) -> Result<TakenNic, AgentError> {
    let name = InterfaceName::new(&slave.name)?;
    Ok(TakenNic { name, ifindex: slave.ifindex, options: slave.options })
}

/// Chooses the backup that goes first; the others follow in this order, the active one first.
///
/// # Errors
/// Why there is none.
fn choose<'a>(
    bond: &RawLink,
    slaves: &'a [DriverSlave],
) -> Result<(&'a DriverSlave, Vec<&'a DriverSlave>), String> {
    let active = active_slave(bond).ok_or_else(wording::takeover_no_active)?;
    let is_active = |slave: &&DriverSlave| slave.ifindex == active;
    let backups = || slaves.iter().filter(|slave| !is_active(slave));
    if backups().next().is_none() {
        return Err(wording::takeover_single());
    }
    let first = backups().find(|slave| slave.is_up).ok_or_else(wording::takeover_no_backup_up)?;
    let others =
        slaves.iter().filter(is_active).chain(backups().filter(|slave| slave.ifindex != first.ifindex));
    Ok((first, others.collect()))
}

/// Returns what cannot be moved, by name.
pub fn obstacles(bond: &RawLink, stack: &[u32], facts: &TakeoverFacts) -> Vec<String> {
    let mut against = Vec::new();
    let links = &facts.links;
    for link in links.iter().filter(|link| stack.contains(&link.info.ifindex)) {
        let name = &link.info.name;
        // The other end of xbond's own pair lies below it.
        let is_upper = |upper: &&RawLink| {
            is_above(upper, link.info.ifindex) && upper.info.vlan.is_none() && !upper.info.is_end_of_pair()
        };
        let upper = links.iter().filter(is_upper);
        against.extend(upper.map(|upper| {
            wording::takeover_above(&upper.info.name, upper.info.kind.as_deref().unwrap_or("device"), name)
        }));
        against.extend(of_master(link, links));
        if link.info.xdp.is_some() {
            against.push(wording::takeover_xdp(name));
        }
        against.extend(link.info.altnames.iter().map(|altname| wording::takeover_altname(name, altname)));
        let qdisc = facts.qdiscs.iter().find(|qdisc| {
            qdisc.ifindex == link.info.ifindex && !DEFAULT_QDISCS.contains(&qdisc.kind.as_str())
        });
        against.extend(qdisc.map(|qdisc| wording::takeover_qdisc(name, &qdisc.kind)));
        let has_static = facts.forwarding.entries.iter().any(|entry| {
            entry.ifindex == link.info.ifindex
                && (entry.of == FdbOwner::Device
                    || entry.of == FdbOwner::Bridge && entry.mac != link.info.mac)
        });
        if has_static {
            against.push(wording::takeover_static_macs(name));
        }
    }
    if !bond.info.is_up() {
        against.push(wording::takeover_down());
    }
    against.extend(facts.refused.iter().cloned());
    against
}

/// Returns why a device cannot leave its master, if it has one.
fn of_master(link: &RawLink, links: &[RawLink]) -> Option<String> {
    let master = links.iter().find(|master| Some(master.info.ifindex) == link.info.master)?;
    let (name, bridge) = (&link.info.name, &master.info.name);
    if !master.info.is_bridge() {
        let kind = master.info.kind.as_deref().unwrap_or("device");
        return Some(wording::takeover_port_of(name, kind, bridge));
    }
    if master.info.has_stp {
        return Some(wording::takeover_stp(name, bridge));
    }
    if master.info.filters_vlans.is_some() {
        return Some(wording::takeover_vlan_filtering(name, bridge));
    }
    let isolated = links.iter().find(|port| {
        port.info.master == link.info.master && BridgePort::of(port).is_some_and(|port| port.is_isolated())
    });
    isolated.map(|port| wording::takeover_isolated(&port.info.name, bridge))
}

/// Plans a twin for each device. None if one of them is no VLAN, which [`obstacles`] names.
pub fn twins(stack: &[u32], facts: &TakeoverFacts, way: Way) -> Option<Vec<Twin>> {
    let mut names = Names { links: &facts.links, next: 0 };
    let mut twins: Vec<Twin> = Vec::new();
    for ifindex in stack {
        let link = facts.links.iter().find(|link| link.info.ifindex == *ifindex)?;
        let below = twins.iter().position(|below| Some(below.from(way)) == link.info.link);
        let vlan = match below {
            Some(place) => {
                let mac =
                    facts.links.iter().find(|below| Some(below.info.ifindex) == link.info.link)?.info.mac;
                Some(VlanPlan::of(link, (place, mac))?)
            }
            None => None,
        };
        let [first_aside, second_aside] = names.aside()?;
        twins.push(Twin {
            name: link.info.name.clone(),
            first: if way == Way::Over { *ifindex } else { 0 },
            first_aside,
            second: if way == Way::Back { *ifindex } else { 0 },
            second_aside,
            vlan,
            port: BridgePort::of(link),
            source_filter: facts.source_filters.get(ifindex).cloned(),
        });
    }
    Some(twins)
}

/// Names that no device has.
struct Names<'a> {
    links: &'a [RawLink],
    next: u32,
}

impl Names<'_> {
    fn aside(&mut self) -> Option<[String; 2]> {
        /// More than a host has devices above a bond.
        const LIMIT: u32 = 100_000;
        while self.next < LIMIT {
            let names = ASIDE.map(|word| format!("{word}{}", self.next));
            self.next += 1;
            let is_taken = |name: &String| {
                self.links.iter().any(|link| link.info.name == *name || link.info.altnames.contains(name))
            };
            if !names.iter().any(is_taken) {
                return Some(names);
            }
        }
        None
    }
}

/// Returns the name that xbond's device has until it is in use.
///
/// # Errors
/// The record names no bond.
pub fn first_name(record: &TakeoverRecord) -> Result<InterfaceName, AgentError> {
    let bond: &BondName = &record.bond;
    let twin = record.twins.first().ok_or_else(|| AgentError::NoSuchBond(bond.to_string()))?;
    Ok(InterfaceName::new(&twin.second_aside)?)
}
