//! The way back from a takeover, wherever it stopped: the driver's bond carries everything again.

use std::time::Duration;

use bond_core::name::BondName;
use tokio::time::sleep;

use super::apply::{UNDER_WAY, stand_in};
use crate::{
    agent::{Agent, AgentError, outcome::Outcome},
    api::MissingSlaves,
    config::toml,
    report::{log, wording},
    store::{
        record,
        takeovers::{self, TakenNic, TakeoverRecord, TakeoverStage},
    },
    sys::{
        directory::Trust,
        handover::{Twin, Way},
        netlink::{LinkInfo, LinkSetting},
    },
};

/// A slave is up in the driver after its updelay, or after some rounds of ARP probes.
const UP_WITHIN: Duration = Duration::from_secs(30);

impl Agent {
    /// Ends the takeovers that another agent has left: back, or onwards where the driver's bond is being removed.
    pub(in crate::agent) async fn settle_takeovers(&self) {
        let left = match takeovers::read(&self.machine.paths, Trust::Ours) {
            Ok(left) => left,
            Err(error) => return tracing::warn!("{error}"),
        };
        for mut record in left {
            let name = record.bond.clone();
            let ended = match record.stage {
                TakeoverStage::Finishing => self.finish_takeover(&mut record).await.map(drop),
                TakeoverStage::Offering => {
                    self.remove_first(&record).await;
                    takeovers::remove(&self.machine.paths, &name).map_err(AgentError::from)
                }
                _ => {
                    log::of(&name).warn(wording::takeover_left());
                    self.lead_back_what_is_left(&mut record).await
                }
            };
            if let Err(error) = ended {
                log::of(&name).warn(wording::takeover_not_back(&error));
            }
        }
    }

    /// Leads back what another agent has left. If the driver has no NIC any more, xbond's bond is adopted first, so that
    /// it gives one up without a loss.
    async fn lead_back_what_is_left(&self, record: &mut TakeoverRecord) -> Result<(), AgentError> {
        if !self.driver_has_nic(record).await? && self.is_left(&record.bond) {
            let config = toml::parse(std::path::Path::new("takeovers.json"), &record.toml)?;
            let mut outcome = Outcome::default();
            for mut bond in config.bonds {
                // They are found in the record of the bond.
                bond.slaves.clear();
                self.add_or_undo(bond, MissingSlaves::Await, &mut outcome).await;
            }
        }
        self.lead_back(record).await
    }

    /// Leads a takeover back that is on trial. Returns what was done.
    ///
    /// # Errors
    /// [`AgentError::NoTakeover`], or why it could not be led back.
    pub async fn undo_takeover(&self, name: &BondName) -> Result<Vec<String>, AgentError> {
        let _phase = self.phase.lock().await;
        let known = self.takeovers_on_trial().into_iter().find(|known| known.bond == *name);
        let mut record = known.ok_or_else(|| AgentError::NoTakeover { bond: name.to_string() })?;
        self.lead_back(&mut record).await?;
        Ok(vec![wording::of_bond(name, wording::takeover_back())])
    }

    /// Leads the takeovers back that are on trial when the agent ends. The caller holds [`Agent::phase`].
    pub(in crate::agent) async fn end_takeovers(&self) {
        for mut record in self.takeovers_on_trial() {
            log::of(&record.bond).warn(wording::takeover_unconfirmed());
            if let Err(error) = self.lead_back(&mut record).await {
                log::of(&record.bond).warn(wording::takeover_not_back(&error));
            }
        }
    }

    async fn driver_has_nic(&self, record: &TakeoverRecord) -> Result<bool, AgentError> {
        let Some(bond) = record.twins.first() else { return Ok(false) };
        for nic in std::iter::once(&record.first).chain(&record.others) {
            if self.link_of(nic.ifindex).await?.is_some_and(|link| link.master == Some(bond.first)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn link_of(&self, ifindex: u32) -> Result<Option<LinkInfo>, AgentError> {
        match self.machine.devices.link_by_index(ifindex).await {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Leads a takeover back. The caller holds [`Agent::phase`], or nothing else runs yet.
    ///
    /// # Errors
    /// A step failed. takeovers.json keeps the takeover, and the next agent tries again.
    pub(in crate::agent) async fn lead_back(&self, record: &mut TakeoverRecord) -> Result<(), AgentError> {
        let devices = &*self.machine.devices;
        let Some(bond) = record.twins.first().cloned() else { return Ok(()) };
        if self.link_of(bond.first).await?.is_none() {
            // Another process has deleted it: xbond's bond is all there is.
            return Ok(takeovers::remove(&self.machine.paths, &record.bond)?);
        }
        let made = self.made(record).await?;
        let has_nic = self.driver_has_nic(record).await?;
        if !has_nic {
            self.put_stand_in(record).await?;
        }
        // Before there are two ways in, the ports of a bridge are kept apart.
        devices.prepare_twins(&made, Way::Back).await?;
        if !has_nic {
            self.give_driver_a_nic(record).await?;
        }
        if !made.is_empty() {
            devices.turn_over(&made, Way::Back).await?;
            devices.name_twins(&made, Way::Back).await?;
            sleep(UNDER_WAY).await;
        }
        // Slaves, devices above it and files go with it.
        self.remove_second(record).await?;
        for nic in record.others.iter().chain([&record.first]) {
            if self.link_of(nic.ifindex).await?.is_some() {
                // As it is while it is tried.
                devices.set(nic.ifindex, LinkSetting::Noarp(false)).await?;
                devices.enslave_to_driver(bond.first, nic.ifindex, nic.options).await?;
            }
        }
        match devices.link_by_name(&stand_in(record)[0]).await {
            Ok(link) => devices.delete(link.ifindex).await?,
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error.into()),
        }
        devices.finish_twins(&record.twins, Way::Back).await?;
        takeovers::remove(&self.machine.paths, &record.bond)?;
        log::of(&record.bond).info(wording::takeover_back());
        Ok(())
    }

    /// Gives the driver a NIC that xbond's bond does not use at this moment.
    async fn give_driver_a_nic(&self, record: &TakeoverRecord) -> Result<(), AgentError> {
        let devices = &*self.machine.devices;
        let Some(bond) = record.twins.first() else { return Ok(()) };
        let status = match self.find(&record.bond) {
            Some(running) => Some(self.machine.engine.status(running.id).await?),
            None => None,
        };
        let slaves = status.iter().flat_map(|status| &status.slaves);
        let slaves: Vec<u32> = slaves.map(|slave| slave.ifindex).collect();
        let active = status.as_ref().and_then(|status| status.active_slave.clone());
        let all: Vec<&TakenNic> = record.others.iter().chain([&record.first]).collect();
        let is_free = |nic: &&&TakenNic| !slaves.contains(&nic.ifindex);
        let is_backup = |nic: &&&TakenNic| active.as_deref() != Some(&*nic.name);
        let nic = all.iter().find(is_free).or_else(|| all.iter().find(is_backup)).or(all.first());
        let Some(nic) = nic else { return Ok(()) };
        if slaves.contains(&nic.ifindex) {
            self.del_slave(&record.bond, &nic.name).await?;
        }
        devices.enslave_to_driver(bond.first, nic.ifindex, nic.options).await?;
        Ok(devices.activate_in_driver(bond.first, nic.ifindex, UP_WITHIN).await?)
    }

    /// Returns the twins by which packets may leave: before the backup has joined, none do.
    async fn made(&self, record: &TakeoverRecord) -> Result<Vec<Twin>, AgentError> {
        let mut made = Vec::new();
        for twin in record.twins.iter().filter(|_| record.stage > TakeoverStage::Joining) {
            if twin.second != 0 && self.link_of(twin.second).await?.is_some() {
                made.push(twin.clone());
            }
        }
        Ok(made)
    }

    /// Removes xbond's bond with everything above it.
    async fn remove_second(&self, record: &TakeoverRecord) -> Result<(), AgentError> {
        let running = self.bonds().remove(&record.bond);
        match running {
            Some(running) => drop(self.take_down(&record.bond, &running).await?),
            None if self.machine.paths.has(&record.bond) => {
                record::undo(&self.machine.paths, &record.bond, &self.machine.system()).await?;
            }
            None => {}
        }
        Ok(())
    }
}
