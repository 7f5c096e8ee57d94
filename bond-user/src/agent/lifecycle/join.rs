//! Interfaces that join a bond.

use std::sync::Arc;

use bond_core::{event::NewSlave, name::BondName};
use tokio::sync::{OwnedMutexGuard, oneshot};

use crate::{
    agent::{
        AgentError, Stopping,
        bond::{
            engine_handle::BondId,
            enslave_request::EnslaveRequest,
            work::{Request, WorkQueue},
        },
        lifecycle::{
            DEFAULT_MTU,
            checks::check_nic,
            machine::Machine,
            returned::{original, restore_returned},
        },
    },
    config::SlaveConfig,
    store::{drains::DrainedSlave, paths::Paths, record::Record},
    sys::{
        dataplane::Hook, directory::Trust, enslave::EnslavePlan, found::Found, layer3::Target,
        netlink::LinkInfo,
    },
};

/// A bond that an interface joins.
#[derive(Clone, Copy)]
pub struct Joining<'a> {
    pub bond: &'a BondName,
    pub id: BondId,
    pub work: &'a WorkQueue,
    pub hook: Hook,
}

/// Enslaves one more interface, which must exist. Returns its ifindex.
///
/// # Errors
/// The interface does not exist, is refused, is another NIC than its configuration names, or a step of the enslaving
/// failed and was undone.
pub async fn join(machine: &Machine, to: Joining<'_>, slave: &SlaveConfig) -> Result<u32, AgentError> {
    let Joining { bond, id, work, hook } = to;
    work.ask(|reply| Request::TidyRecord { reply }).await??;
    let plan = EnslavePlan { mac: None, mtu: DEFAULT_MTU, hook, unicast: Vec::new() };
    let claim = Arc::clone(&machine.enslaving).lock_owned().await;
    restore_returned(machine).await;
    let found = observe(machine, (&slave.name, Some(bond)), &plan).await?;
    check_nic(slave, &found)?;
    let ifindex = found.ifindex;
    enslave(machine, (bond, id), (slave, found), Some(claim)).await?;
    Ok(ifindex)
}

/// Enslaves an interface that was observed. `claim` is [`Machine::enslaving`], unless the caller holds it: it is released when
/// the record names the interface.
///
/// # Errors
/// The engine refuses the interface, or it cannot be set up; then its original state is restored.
pub async fn enslave(
    machine: &Machine,
    (bond, id): (&BondName, BondId),
    (config, found): (&SlaveConfig, Found),
    claim: Option<OwnedMutexGuard<()>>,
) -> Result<(), AgentError> {
    let link = machine.devices.link_by_index(found.ifindex).await?;
    let can_set_mac = machine.devices.can_set_mac(&link).await?;
    machine.devices.put_neighbours(&found.layer3, &Target::same(found.ifindex)).await?;
    let slave = NewSlave {
        name: found.name.clone(),
        ifindex: found.ifindex,
        mac: config.mac.unwrap_or(found.mac),
        can_set_mac,
        options: config.options,
        drained: machine.is_drained(DrainedSlave { bond, name: &found.name, ifindex: found.ifindex }),
    };
    let (reply, joined) = oneshot::channel();
    let request = EnslaveRequest { slave, found, mac: config.mac, claim, reply };
    machine.engine.enslave(id, request);
    joined.await.map_err(|_| Stopping)?
}

/// Waits until the engine and the worker have executed what the slaves' joining caused: the election, the bond's
/// carrier and MAC address.
///
/// # Errors
/// The agent ends.
pub async fn settle(machine: &Machine, id: BondId, work: &WorkQueue) -> Result<(), AgentError> {
    // Its answer comes after everything that was sent to the engine before.
    machine.engine.status(id).await?;
    Ok(work.ask(|reply| Request::Settle { reply }).await?)
}

/// Observes an interface that is to be a slave or a port. The bond is named where it exists.
///
/// # Errors
/// The interface does not exist, is refused, or cannot be read.
pub async fn observe(
    machine: &Machine,
    (name, bond): (&str, Option<&BondName>),
    plan: &EnslavePlan,
) -> Result<Found, AgentError> {
    let records = records(&machine.paths);
    let owner = |link: &LinkInfo| records.iter().find_map(|record| record.owner(link));
    let observed = machine.devices.observe((name, bond.map(|bond| &**bond)), plan, owner).await?;
    Ok(original(machine, observed))
}

/// Of the bonds of this namespace, those without an agent included.
fn records(paths: &Paths) -> Vec<Record> {
    // A record that cannot be read has no say.
    let record = |bond: BondName| Record::read(paths, &bond, Trust::Ours).ok().flatten();
    paths.bonds().into_iter().filter_map(record).collect()
}
