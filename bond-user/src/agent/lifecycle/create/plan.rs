//! What creating a bond takes: decided from what is wanted and what was observed, without a system call.

use bond_common::mac::Mac;
use bond_core::options::FailOverMac;

use super::{DEFAULT_MTU, Manner, observe::CreateFacts};
use crate::{
    agent::{
        AgentError,
        bond::worker,
        lifecycle::{
            checks::{check_nic, check_queue, check_queues_differ},
            move_addresses::Moved,
            slaves::Wanted,
        },
        queues::Queues,
    },
    api::MissingSlaves,
    config::{self, BondConfig, SlaveConfig},
    report::wording,
    store::record::{RecordedPair, Shape},
    sys::{dataplane::Hook, enslave::EnslavePlan, found::Found, layer3::Layer3, netlink::PairKind},
};

/// What is to be done. The foundation is laid first, then the engine starts, and then the steps are taken.
#[derive(Debug)]
pub struct CreatePlan {
    pub foundation: Foundation,
    pub steps: Vec<CreateStep>,
    /// A sentence each.
    pub warnings: Vec<String>,
    /// The slaves of its file.
    pub wanted: Vec<Wanted>,
}

/// What a bond stands on before it has an engine: found.json, programs, maps, and bond0 with its port.
#[derive(Clone, Debug, PartialEq)]
pub struct Foundation {
    pub hook: Hook,
    /// Bytes.
    pub mtu: u32,
    pub queues: Queues,
    /// The bond's.
    pub mac: Mac,
    pub mac_assigned: bool,
    pub side: PlannedSide,
    /// Which slave gives bond0 its addresses.
    pub giver: Option<Giver>,
    /// The name that bond0 has at first.
    pub device: String,
    /// bond0 has a carrier before there is a slave.
    pub carrier: bool,
}

/// Where the host is.
#[derive(Clone, Debug, PartialEq)]
pub enum PlannedSide {
    /// At bond0: a pair is made, of the first of these kinds that the kernel has.
    Pair { names: RecordedPair, kinds: Vec<PairKind> },
    /// Behind an interface that exists. Its MAC address is learned if none is configured.
    Port { found: Box<Found>, host_mac: Option<Mac> },
}

/// A slave whose addresses go to bond0, and the rules that go with them.
#[derive(Clone, Debug, PartialEq)]
pub struct Giver {
    pub from: Found,
    pub rules: Layer3,
}

/// A step of a bond that has its engine.
#[derive(Clone, Debug, PartialEq)]
pub enum CreateStep {
    /// bond0 takes the addresses and rules of the giver, which is no slave yet.
    MoveAddresses,
    Enslave {
        slave: Box<SlaveConfig>,
        found: Box<Found>,
    },
    /// bond0 takes the routes of the giver, which has lost them by now.
    MoveRoutes,
    /// bond0 is set up, with its addresses and routes.
    Configure,
    /// What the slaves' joining set off is waited for: the election, the bond's carrier and MAC address.
    Settle,
}

impl Foundation {
    /// As found.json has it.
    pub fn shape(&self) -> Shape {
        let (pair, port) = match &self.side {
            PlannedSide::Pair { names, .. } => (Some(names.clone()), None),
            PlannedSide::Port { found, .. } => (None, Some(Found::clone(found))),
        };
        Shape { pair, port, datapath: self.hook.to_string(), queues: self.queues.count() }
    }
}

/// How a slave, or the port, is enslaved.
pub fn enslave_plan(config: &BondConfig) -> EnslavePlan {
    let hook = worker::hook(config.datapath, config.port.is_some());
    EnslavePlan { mac: None, mtu: config.mtu.unwrap_or(DEFAULT_MTU), hook, unicast: Vec::new() }
}

/// The slaves that can join at once, as they were found.
pub fn first_slaves<'a>(
    config: &'a BondConfig,
    observed: &'a [Result<Found, AgentError>],
) -> impl Iterator<Item = (&'a SlaveConfig, &'a Found)> {
    let slaves = config.slaves.iter().zip(observed);
    slaves.filter_map(|(slave, found)| {
        let found = found.as_ref().ok()?;
        check_nic(slave, found).ok().map(|()| (slave, found))
    })
}

/// Decides what is to be done. `spare_mac` is the bond's if nothing says which one it is.
///
/// # Errors
/// Why the bond cannot be created.
pub fn plan(
    config: &BondConfig,
    manner: &Manner,
    observed: CreateFacts,
    spare_mac: Mac,
) -> Result<CreatePlan, AgentError> {
    let CreateFacts { namesake, slaves, port, port_name, rules, has_queues, has_tcx } = observed;
    let (missing, device) = (manner.missing(), manner.device(config).to_owned());
    if let Some(kind) = namesake {
        return Err(AgentError::NameTaken { name: device, kind });
    }
    let queues = match (&config.port, has_queues) {
        (Some(_), _) => Queues::OfPort,
        (None, true) => Queues::Sixteen,
        (None, false) => Queues::One,
    };
    for slave in &config.slaves {
        check_queue(&config.name, queues, &slave.name, slave.options)?;
    }
    check_queues_differ(&config.slaves)?;
    let EnslavePlan { mtu, hook, .. } = enslave_plan(config);
    let Slaves { joining, mut warnings } = choose_slaves(config, missing, slaves)?;
    let rules = rules.transpose()?.unwrap_or_default();
    let founds = || joining.iter().map(|(_, found)| &**found);
    let giver = Moved::of(founds(), &config.name, (0, Mac::ZERO)).filter(|_| config.move_addresses);
    let giver = giver.map(|moved| Giver { from: moved.from, rules });
    let side = match port.transpose()? {
        Some(found) => PlannedSide::Port { found: Box::new(found), host_mac: config.host_mac_address() },
        None => {
            // A bond without a port has a pair by construction.
            let port = port_name.ok_or_else(|| AgentError::NoSuchBond(config.name.to_string()))??;
            let kinds = kinds(config.pair, hook, has_tcx);
            PlannedSide::Pair { names: RecordedPair::new(config.name.clone(), port), kinds }
        }
    };
    let of_slave = mac_of_slave(config, &joining);
    if let Some(slave) = config.mac_slave().filter(|_| of_slave.is_none()) {
        warnings.push(wording::mac_of_absent(&config.name, slave));
    }
    let keeps = config.keeps_mac() && config.options.fail_over_mac == FailOverMac::Active;
    let of_host = config.host_mac_address().filter(|_| keeps || config.port.is_some());
    let assigned =
        config.mac_address().or(of_slave).or(of_host).or_else(|| mac_of_first(&joining).filter(|_| keeps));
    // Neighbours know the addresses that are moved by the MAC address of the slave that has them.
    let mac = assigned
        .or_else(|| giver.as_ref().map(|giver| giver.from.mac))
        .or_else(|| joining.first().map(|(slave, found)| slave.mac.unwrap_or(found.mac)))
        .unwrap_or(spare_mac);
    let wanted = wanted(config, missing, &joining);
    let giver = giver.filter(|_| matches!(side, PlannedSide::Pair { .. }));
    let steps = steps(&side, giver.as_ref(), joining);
    let mac_assigned = assigned.is_some();
    let carrier = matches!(manner, Manner::StandBy(_));
    let foundation = Foundation { hook, mtu, queues, mac, mac_assigned, side, giver, device, carrier };
    Ok(CreatePlan { foundation, steps, warnings, wanted })
}

fn steps(side: &PlannedSide, giver: Option<&Giver>, joining: Vec<Joining>) -> Vec<CreateStep> {
    let mut steps = Vec::new();
    steps.extend(giver.map(|_| CreateStep::MoveAddresses));
    for (slave, found) in joining {
        let gives = giver.is_some_and(|giver| giver.from.ifindex == found.ifindex);
        steps.push(CreateStep::Enslave { slave, found });
        steps.extend(gives.then_some(CreateStep::MoveRoutes));
    }
    if matches!(side, PlannedSide::Pair { .. }) {
        steps.push(CreateStep::Configure);
    }
    steps.push(CreateStep::Settle);
    steps
}

/// A slave that can join at once, as it was found.
type Joining = (Box<SlaveConfig>, Box<Found>);

struct Slaves {
    joining: Vec<Joining>,
    warnings: Vec<String>,
}

/// A slave that cannot join now is awaited like an absent one, unless that leaves the bond without any. One that flags name
/// has to join.
fn choose_slaves(
    config: &BondConfig,
    missing: MissingSlaves,
    observed: Vec<Result<Found, AgentError>>,
) -> Result<Slaves, AgentError> {
    let (mut joining, mut refusals, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    for (slave, observed) in config.slaves.iter().zip(observed) {
        match observed.and_then(|found| check_nic(slave, &found).map(|()| found)) {
            Ok(found) => joining.push((Box::new(slave.clone()), Box::new(found))),
            Err(AgentError::Sys(error)) if error.is_gone() && missing == MissingSlaves::Await => {
                warnings.push(format!("{}: {}", config.name, wording::slave_absent(&slave.name)));
            }
            Err(error) if missing == MissingSlaves::Await => refusals.push(error),
            Err(error) => return Err(error),
        }
    }
    if joining.is_empty() && !refusals.is_empty() {
        return Err(refusals.swap_remove(0));
    }
    let awaited = |error| wording::slave_awaited(&config.name, error);
    warnings.extend(refusals.into_iter().map(awaited));
    Ok(Slaves { joining, warnings })
}

/// The permanent MAC of the first slave. Its own `mac` counts as permanent.
fn mac_of_first(joining: &[Joining]) -> Option<Mac> {
    joining.first().map(|(slave, found)| slave.mac.or(found.permanent_mac).unwrap_or(found.mac))
}

/// The permanent MAC of the slave that `mac` names, if that joins at once. Its own `mac` counts as permanent.
fn mac_of_slave(config: &BondConfig, joining: &[Joining]) -> Option<Mac> {
    let name = config.mac_slave()?;
    let (slave, found) = joining.iter().find(|(slave, _)| slave.name == *name)?;
    Some(slave.mac.or(found.permanent_mac).unwrap_or(found.mac))
}

fn wanted(config: &BondConfig, missing: MissingSlaves, joining: &[Joining]) -> Vec<Wanted> {
    let ifindex = |slave: &SlaveConfig| {
        joining.iter().find(|(joining, _)| joining.name == slave.name).map(|(_, found)| found.ifindex)
    };
    match missing {
        MissingSlaves::Refuse => Vec::new(),
        MissingSlaves::Await => {
            config.slaves.iter().map(|slave| Wanted::new(slave.clone(), ifindex(slave))).collect()
        }
    }
}

/// What a pair is made of, best first. XDP runs on veth, and a kernel without tcx has no netkit either.
fn kinds(wanted: config::Pair, hook: Hook, has_tcx: bool) -> Vec<PairKind> {
    match wanted {
        config::Pair::Auto if hook == Hook::Tc && has_tcx => vec![PairKind::Netkit, PairKind::Veth],
        config::Pair::Auto | config::Pair::Veth => vec![PairKind::Veth],
        config::Pair::Netkit => vec![PairKind::Netkit],
    }
}
