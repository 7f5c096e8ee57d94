//! Adding bonds to an agent: adopted if another agent has left them, otherwise created.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::sync::Mutex;

use crate::{
    agent::{
        Agent, AgentError, Bond, Goal, Past, Phase, Stopping,
        bond::engine_handle::BondId,
        check_kernel,
        lifecycle::{self, create::Manner, end::undo},
        outcome::Outcome,
    },
    api::MissingSlaves,
    config::{BondConfig, Config},
    report::{
        event::{BondChange, What},
        log, wording,
    },
};

impl Agent {
    /// Brings up further bonds: each of them whole, or not at all.
    pub async fn add_bonds(&self, config: Config, missing: MissingSlaves) -> Outcome {
        if let Err(error) = config.check() {
            return Outcome::failed(&error.into());
        }
        let phase = self.phase.lock().await;
        if *phase == Phase::Ending {
            return Outcome::failed(&Stopping.into());
        }
        let mut outcome = Outcome::default();
        for bond in config.bonds {
            self.add_or_undo(bond, missing, &mut outcome).await;
        }
        outcome
    }

    /// The caller holds [`Self::phase`].
    pub(in crate::agent) async fn add_or_undo(
        &self,
        config: BondConfig,
        missing: MissingSlaves,
        outcome: &mut Outcome,
    ) {
        let (id, name) = (self.new_id(), config.name.clone());
        if self.find(&name).is_some() {
            return outcome.fail(&name, &AgentError::HasBond(name.to_string()));
        }
        if let Err(error) = check_kernel(&config) {
            return outcome.fail(&name, &error.into());
        }
        let answer = match self.adopt(id, &config, missing).await {
            Ok(Adoption::Done) => Ok(()),
            Ok(Adoption::NothingLeft) => self.make(id, config, missing).await,
            Err(error) => Err(error),
        };
        if let Err(error) = answer {
            undo(&self.machine, id, &name, &error).await;
            return outcome.fail(&name, &error);
        }
        if let Some(bond) = self.find(&name) {
            match self.is_ready(&name, &bond).await {
                Ok(line) => outcome.changed_of(&name, line),
                Err(error) => outcome.fail(&name, &error),
            }
        }
    }

    /// Takes over a bond that another agent has left.
    pub(in crate::agent) async fn adopt(
        &self,
        id: BondId,
        config: &BondConfig,
        missing: MissingSlaves,
    ) -> Result<Adoption, AgentError> {
        let trial = self.check_trial(&config.name)?;
        let Some(made) = lifecycle::adopt::adopt(&self.machine, id, config, missing).await? else {
            return Ok(Adoption::NothingLeft);
        };
        self.insert(id, config.clone(), made, Past::Adopted, trial.is_some()).await;
        if let Some(trial) = trial {
            log::of(&config.name).warn(wording::on_trial(&config.name, trial.left()));
            self.machine.confirmation.inherit(trial);
        }
        Ok(Adoption::Done)
    }

    /// Brings a bond up. If it fails, or is dropped half-way, [`undo`] restores what it changed.
    pub(in crate::agent) async fn make(
        &self,
        id: BondId,
        config: BondConfig,
        missing: MissingSlaves,
    ) -> Result<(), AgentError> {
        self.make_as(id, config, Manner::Usual(missing)).await
    }

    /// Brings a bond up in this manner, like [`Self::make`].
    pub(in crate::agent) async fn make_as(
        &self,
        id: BondId,
        config: BondConfig,
        manner: Manner,
    ) -> Result<(), AgentError> {
        let made = lifecycle::create::bring_up(&self.machine, id, &config, &manner).await?;
        let (name, confirmation) = (config.name.clone(), &self.machine.confirmation);
        self.insert(id, config, made, Past::Made, confirmation.is_own()).await;
        // A confirmation from now on finds the bond.
        if confirmation.is_own()
            && confirmation.of_new_bond().is_none()
            && let Some(bond) = self.find(&name)
        {
            bond.end_trial().await?;
        }
        Ok(())
    }

    pub(in crate::agent) async fn insert(
        &self,
        id: BondId,
        config: BondConfig,
        made: lifecycle::create::Created,
        past: Past,
        on_trial: bool,
    ) {
        let lifecycle::create::Created { hook, queues, host, pair, port, maps, started, wanted } = made;
        let lifecycle::start::Started { work, history, status, clock, path } = started;
        let name = config.name.clone();
        self.machine.feed.publish(&name, What::Bond { change: BondChange::Up });
        let goal = Goal { config, of_files: false, wanted };
        let is_elsewhere = past == Past::Adopted
            && self
                .machine
                .devices
                .link_by_index(host.port())
                .await
                .is_ok_and(|port| port.link_netns.is_some());
        let bond = Bond {
            id,
            past,
            hook,
            queues,
            host,
            pair,
            port,
            is_elsewhere: AtomicBool::new(is_elsewhere),
            on_trial: AtomicBool::new(on_trial),
            maps,
            clock,
            path,
            work,
            history,
            status,
            pinned: AtomicBool::new(true),
            arrivals: std::sync::Mutex::default(),
            turn: Mutex::default(),
            goal: std::sync::Mutex::new(Arc::new(goal)),
        };
        let bond = Arc::new(bond);
        self.bonds().insert(name.clone(), Arc::clone(&bond));
        // For queries that arrive while the kernel does not answer.
        let (counters, devices) = (Arc::clone(&self.counters), Arc::clone(&self.machine.devices));
        tokio::spawn(async move { counters.refresh(&devices, &bond.devices()).await });
        self.lost.lock().await.remove(&name);
    }
}

/// What became of an attempt to take a bond over.
pub(in crate::agent) enum Adoption {
    Done,
    NothingLeft,
}
