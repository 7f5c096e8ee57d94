//! Giving a bond to the kernel's driver: a takeover that is led back, although there was none.
//!
//! The driver's devices are made first, aside and without a NIC. Then everything is as after a takeover that waits for
//! a confirmation, and the way back is the same.

use bond_core::{
    name::{BondName, InterfaceName},
    options::BondOptions,
    status::SlaveStatus,
};

use super::{
    observe::{TakeoverFacts, observe},
    plan::{obstacles, stack, twins},
};
use crate::{
    agent::{Agent, AgentError, Bond, Phase, Stopping, bond::interface::Host},
    config::{Config, toml},
    report::{log, wording},
    store::takeovers::{self, TakenNic, TakeoverRecord, TakeoverStage},
    sys::handover::{DriverSlaveOptions, Way},
};

impl Agent {
    /// Makes a bond one of the kernel's driver, without interrupting it. Returns what was done.
    ///
    /// # Errors
    /// [`AgentError::CannotGiveBack`]: nothing was changed. Another error: the bond stays xbond's, or the next agent
    /// continues.
    pub async fn give_back(&self, name: &BondName) -> Result<Vec<String>, AgentError> {
        let phase = self.phase.lock().await;
        if *phase == Phase::Ending {
            return Err(Stopping.into());
        }
        let known = self.takeovers_on_trial().into_iter().find(|known| known.bond == *name);
        let mut record = match known {
            Some(record) => record,
            None => self.make_first(name).await?,
        };
        self.lead_back(&mut record).await?;
        Ok(vec![wording::of_bond(name, wording::takeover_back())])
    }

    /// Makes the driver's devices, and returns the record of a takeover that is to be led back.
    async fn make_first(&self, name: &BondName) -> Result<TakeoverRecord, AgentError> {
        let bond = self.bond(name)?;
        let status = self.machine.engine.status(bond.id).await?;
        let facts = observe(&self.machine, name).await?;
        let mut record = plan(name, &bond, (&status.slaves, status.active_slave.as_deref()), &facts)?;
        takeovers::put(&self.machine.paths, &record)?;
        log::of(name).info(wording::giveback_prepares(record.twins.len()));
        if let Err(error) = self.make_devices(&mut record, &status.options).await {
            self.remove_first(&record).await;
            takeovers::remove(&self.machine.paths, name)?;
            return Err(error);
        }
        Ok(record)
    }

    async fn make_devices(
        &self,
        record: &mut TakeoverRecord,
        options: &BondOptions,
    ) -> Result<(), AgentError> {
        let devices = &*self.machine.devices;
        if let Some(twin) = record.twins.first_mut() {
            let link = devices.link_by_index(twin.second).await?;
            twin.first = devices.make_driver_bond(&twin.first_aside, options, (link.mac, link.mtu)).await?;
        }
        takeovers::put(&self.machine.paths, record)?;
        devices.make_vlans(&mut record.twins, Way::Back).await?;
        self.put_stand_in(record).await?;
        let primary = options.primary.as_deref();
        let nics = record.others.iter().chain([&record.first]);
        let primary = nics.into_iter().find(|nic| primary == Some(&*nic.name));
        if let (Some(nic), Some(twin)) = (primary, record.twins.first()) {
            devices.set_driver_primary(twin.first, nic.ifindex).await?;
        }
        record.stage = TakeoverStage::OnTrial;
        Ok(takeovers::put(&self.machine.paths, record)?)
    }
}

/// Decides what is made.
///
/// # Errors
/// [`AgentError::CannotGiveBack`], which names everything that speaks against it.
fn plan(
    name: &BondName,
    bond: &Bond,
    (slaves, active): (&[SlaveStatus], Option<&str>),
    facts: &TakeoverFacts,
) -> Result<TakeoverRecord, AgentError> {
    let refuse =
        |why: Vec<String>| AgentError::CannotGiveBack { bond: name.to_string(), why: why.join("; ") };
    let config = bond.goal().config.clone();
    let device = match bond.host {
        Host::Pair { bond, .. } if !config.move_addresses => bond,
        Host::Pair { .. } | Host::Port { .. } => return Err(refuse(vec![wording::takeover_own_settings()])),
    };
    let Some(link) = facts.links.iter().find(|link| link.info.ifindex == device) else {
        return Err(refuse(vec![wording::giveback_elsewhere()]));
    };
    let stack = stack(device, &facts.links);
    let mut against = obstacles(link, &stack, facts);
    if !facts.renames_live {
        against.push(wording::takeover_no_rename());
    }
    if slaves.len() < 2 {
        against.push(wording::takeover_single());
    }
    let twins =
        twins(&stack, facts, Way::Back).filter(|_| against.is_empty()).ok_or_else(|| refuse(against))?;
    let nic = |slave: &SlaveStatus| -> Result<TakenNic, AgentError> {
        let options = DriverSlaveOptions { prio: slave.options.prio, queue_id: slave.options.queue_id };
        Ok(TakenNic { name: InterfaceName::new(&slave.name)?, ifindex: slave.ifindex, options })
    };
    let (of_active, backups): (Vec<_>, Vec<_>) =
        slaves.iter().partition(|slave| Some(&*slave.name) == active);
    let mut nics = backups.into_iter().chain(of_active).map(nic).collect::<Result<Vec<_>, AgentError>>()?;
    let first = nics.remove(0);
    let toml = toml::write(&Config { bonds: vec![config], ..Config::default() });
    let stage = TakeoverStage::Offering;
    Ok(TakeoverRecord { bond: name.clone(), stage, toml, first, others: nics, twins, trial: None })
}
