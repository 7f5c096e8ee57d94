//! What a bond that is to be created depends on, as it is.

use bond_common::mac::Mac;
use bond_core::name::InterfaceName;

use super::{
    DEFAULT_MTU, Manner,
    plan::{enslave_plan, first_slaves},
};
use crate::{
    agent::{
        AgentError,
        bond::interface::port_names,
        lifecycle::{join, machine::Machine, move_addresses::Moved},
    },
    config::BondConfig,
    sys::{found::Found, layer3::Layer3},
};

/// What was read before anything is changed. What could not be had is an error here and becomes a refusal, or a warning, in
/// the plan.
#[derive(Debug, Default)]
pub struct CreateFacts {
    /// What an interface of the bond's name is, if there is one. Nothing else was read then.
    pub namesake: Option<String>,
    /// How the slaves were found, in the order of the configuration.
    pub slaves: Vec<Result<Found, AgentError>>,
    /// How the port was found, if the configuration names one.
    pub port: Option<Result<Found, AgentError>>,
    /// A name for the port that is to be made: no interface has it.
    pub port_name: Option<Result<InterfaceName, AgentError>>,
    /// The rules that go to bond0 with the addresses of a slave, if they are to be moved.
    pub rules: Option<Result<Layer3, AgentError>>,
    /// Transmit queues can be assigned to CPUs.
    pub has_queues: bool,
    /// tc programs attach as links.
    pub has_tcx: bool,
}

/// Reads it all. Nothing is changed.
///
/// # Errors
/// The kernel does not answer.
pub async fn observe(
    machine: &Machine,
    config: &BondConfig,
    manner: &Manner,
) -> Result<CreateFacts, AgentError> {
    let namesake = kind_of(machine, manner.device(config)).await?;
    if namesake.is_some() {
        return Ok(CreateFacts { namesake, ..CreateFacts::default() });
    }
    let plan = enslave_plan(config);
    let mut slaves = Vec::new();
    for slave in &config.slaves {
        slaves.push(join::observe(machine, (&slave.name, None), &plan).await);
    }
    let giver = first_slaves(config, &slaves).map(|(_, found)| found);
    let rules = match Moved::of(giver, &config.name, (0, Mac::ZERO)) {
        Some(moved) if config.move_addresses => {
            Some(moved.check(&*machine.devices, config.mtu.unwrap_or(DEFAULT_MTU)).await)
        }
        _ => None,
    };
    let (port, port_name) = match &config.port {
        Some(port) => (Some(join::observe(machine, (port, None), &plan).await), None),
        None => (None, Some(free_port_name(machine, &config.name).await)),
    };
    let (has_queues, has_tcx) = (machine.devices.has_queues(), machine.kernel.has_tcx());
    Ok(CreateFacts { namesake: None, slaves, port, port_name, rules, has_queues, has_tcx })
}

/// A name for the port that no interface has: the interface of that name is deleted when this bond is undone.
async fn free_port_name(machine: &Machine, bond: &str) -> Result<InterfaceName, AgentError> {
    let mut taken = String::new();
    for port in port_names(bond) {
        if kind_of(machine, &port).await?.is_none() {
            return Ok(InterfaceName::new(port)?);
        }
        taken = port;
    }
    Err(AgentError::PortNameTaken { bond: bond.to_owned(), port: taken })
}

/// What an interface is, if there is one of this name.
async fn kind_of(machine: &Machine, name: &str) -> Result<Option<String>, AgentError> {
    match machine.devices.link_by_name(name).await {
        Ok(link) => Ok(Some(link.kind.unwrap_or_else(|| "hardware".into()))),
        Err(error) if error.is_gone() => Ok(None),
        Err(error) => Err(error.into()),
    }
}
