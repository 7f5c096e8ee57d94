//! What another agent has left of a bond, as it is.

use bond_common::abi::{BondEntry, SlaveEntry, Slot};
use bond_core::options::FailOverMac;

use crate::{
    agent::{AgentError, lifecycle::machine::Machine},
    config::BondConfig,
    store::record::Record,
    sys::{
        dataplane::{Maps, Unfit},
        directory::Trust,
        netlink::LinkInfo,
        ownership::Ownership,
    },
};

/// What was read before anything is changed.
pub struct AdoptFacts {
    pub record: Option<Record>,
    pub pinned: LeftPins,
}

/// What is pinned of the bond.
pub enum LeftPins {
    Nothing,
    Unfit(Unfit),
    /// The maps, and what they and the kernel say.
    Whole(Box<Maps>, Box<SeenBond>),
}

/// A bond whose maps can be read.
#[derive(Debug)]
pub struct SeenBond {
    /// BOND
    pub entry: BondEntry,
    /// Slots of SLAVES that are in use.
    pub slots: Vec<SeenSlot>,
    /// None if there is no such interface in this network namespace.
    pub port: Option<LinkInfo>,
    /// bond0, where it is in this network namespace.
    pub bond: Option<LinkInfo>,
    /// What bond0's device is, for the data plane; None if it cannot be read.
    pub host_device: Option<u64>,
    /// A slave cannot change its MAC address. Asked only where that decides about the policy.
    pub has_fixed_mac: bool,
    /// What the kernel confirms to be the bond's.
    pub proof: Option<Ownership>,
}

/// A slot that is in use.
#[derive(Debug)]
pub struct SeenSlot {
    pub slot: Slot,
    pub entry: SlaveEntry,
    /// None if the slave that found.json has is not there, or if it has none.
    pub link: Option<LinkInfo>,
}

/// Reads it all. Nothing is changed.
///
/// # Errors
/// found.json, the pins or a device cannot be read: nothing is known then.
pub async fn observe(machine: &Machine, config: &BondConfig) -> Result<AdoptFacts, AgentError> {
    let pins = machine.paths.pins_of(&config.name);
    let record = Record::read(&machine.paths, &config.name, Trust::Ours)?;
    if pins.kind().is_none() {
        return Ok(AdoptFacts { record, pinned: LeftPins::Nothing });
    }
    let maps = match machine.planes.pins().left(&pins)? {
        Ok(maps) => maps,
        Err(unfit) => return Ok(AdoptFacts { record, pinned: LeftPins::Unfit(unfit) }),
    };
    let seen = see(machine, config, &maps, record.as_ref()).await?;
    Ok(AdoptFacts { record, pinned: LeftPins::Whole(Box::new(maps), Box::new(seen)) })
}

async fn see(
    machine: &Machine,
    config: &BondConfig,
    maps: &Maps,
    record: Option<&Record>,
) -> Result<SeenBond, AgentError> {
    let entry = maps.bond();
    let used =
        Slot::all().map(|slot| (slot, maps.slave(slot))).filter(|(_, entry)| *entry != SlaveEntry::default());
    let mut slots: Vec<_> = used.map(|(slot, entry)| SeenSlot { slot, entry, link: None }).collect();
    let (mut port, mut bond, mut host_device, mut proof) = (None, None, None, None);
    let mut has_fixed_mac = false;
    let is_ours = entry.port_ifindex() != 0 && entry.netns_cookie() == machine.cookie;
    // Of another namespace's bond, ifindexes mean other devices here.
    if let Some(record) = record.filter(|_| is_ours) {
        let devices = &*machine.devices;
        port = match devices.link_by_index(entry.port_ifindex()).await {
            Ok(port) => Some(port),
            Err(error) if error.is_gone() => None,
            Err(error) => return Err(error.into()),
        };
        let is_made = |port: &&LinkInfo| record.pair().is_some() && port.pair().is_some();
        let peer =
            port.as_ref().filter(is_made).filter(|port| port.link_netns.is_none()).and_then(|port| port.link);
        if let Some(peer) = peer {
            bond = Some(devices.link_by_index(peer).await?);
            let state = machine.reader.as_ref().and_then(|reader| reader.read(peer).ok().flatten());
            host_device = state.map(|state| state.handle().device());
        }
        for seen in &mut slots {
            let ifindex = seen.entry.ifindex();
            if let Some(found) = record.slave(ifindex) {
                seen.link = devices.find(found).await?.filter(|link| link.ifindex == ifindex);
            }
        }
        let is_policy_open =
            entry.policy() == FailOverMac::Active && config.options.fail_over_mac != FailOverMac::Active;
        for link in slots.iter().filter_map(|seen| seen.link.as_ref()).filter(|_| is_policy_open) {
            has_fixed_mac = has_fixed_mac || !devices.can_set_mac(link).await?;
        }
        proof = Some(record.prove(&machine.system(), &machine.paths.pins_of(&config.name)).await);
    }
    Ok(SeenBond { entry, slots, port, bond, host_device, has_fixed_mac, proof })
}
