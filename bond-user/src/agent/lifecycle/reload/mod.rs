//! Files that are read again: bonds become what the files say now, whatever an administrator has changed since.
//!
//! 1. [`observe`] reads how a bond is, and changes nothing.
//! 2. [`plan`] compares that with what is wanted, without a system call. What cannot be done while a bond is there is refused,
//!    and nothing of that bond is changed. What did not change is not touched.
//! 3. [`apply`] does the rest. What one bond releases is there when another one wants it.

mod apply;
mod observe;
pub mod plan;
#[cfg(test)]
mod tests;

use std::{collections::HashSet, sync::Arc};

use bond_core::name::BondName;
use tracing::{info, warn};

use crate::{
    agent::{Agent, AgentError, Bond, Outcome, Phase, Stopping, access::Access},
    api::MissingSlaves,
    config::{BondConfig, Config},
    report::wording,
    sys::notify,
};

impl Agent {
    /// Reads the files again that the agent was started with, and makes its bonds what they say.
    ///
    /// A file system that does not answer delays other reloads only: files are read before the agent's locks are taken.
    pub async fn reload(self: &Arc<Self>) -> Outcome {
        // The reload that reads first is the first to apply what it has read.
        let _turn = self.reloading.lock().await;
        notify::reloading();
        let outcome = match self.read_again().await {
            Ok((config, access)) => self.become_what_was_read(config, access).await,
            Err(error) => {
                warn!("{error}");
                Outcome::failed(&error)
            }
        };
        notify::ready();
        outcome
    }

    pub(in crate::agent) async fn become_what_was_read(
        self: &Arc<Self>,
        config: Config,
        access: Access,
    ) -> Outcome {
        let phase = self.phase.lock().await;
        if *phase == Phase::Ending {
            return Outcome::failed(&Stopping.into());
        }
        let mut outcome = Outcome::default();
        if access != self.access() {
            outcome.changed(access.to_string());
        }
        self.set_access(access);
        self.move_metrics(config.metrics.as_ref(), &mut outcome);
        self.move_files(&config, &mut outcome);
        if let Err(stopping) = self.become_as(config, &mut outcome).await {
            outcome.fail_of_agent(&stopping.into());
        }
        if outcome.changes.is_empty() && outcome.failures.is_empty() {
            info!("{}", wording::nothing_differs());
        }
        outcome
    }

    async fn read_again(&self) -> Result<(Config, Access), AgentError> {
        let source = self.source.clone().ok_or(AgentError::NoFiles)?;
        let writers = self.writers.clone();
        let read = move || {
            let config = source.read()?;
            let access = Access::of(writers.as_ref().or(config.writers.as_ref()))?;
            Ok((config, access))
        };
        // Files and the database of groups may be slow.
        tokio::task::spawn_blocking(read).await.map_err(|_| Stopping)?
    }

    async fn become_as(&self, config: Config, outcome: &mut Outcome) -> Result<(), Stopping> {
        self.forget_lost_but(&config).await;
        let named: HashSet<_> = config.bonds.iter().map(|bond| bond.name.clone()).collect();
        let released = self.to_be_released(&config).await?;
        let (mut plans, mut new, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in config.bonds {
            let name = &wanted.name.clone();
            match self.find(name) {
                None => new.push(wanted),
                Some(bond) => match self.plan(&bond, wanted, &released).await {
                    Ok(plan) => plans.push(plan),
                    Err(error) => outcome.fail(name, &error),
                },
            }
        }
        let is_gone = |(name, bond): &(BondName, Arc<Bond>)| bond.goal().of_files && !named.contains(name);
        gone.extend(self.all().into_iter().filter(is_gone).map(|(name, _)| name));

        // Interfaces that go from one bond to another are released by the first before the second wants them.
        for name in gone {
            let Some(bond) = self.bonds().remove(&name) else { continue };
            match self.take_down(&name, &bond).await {
                Ok(notes) => {
                    outcome.changed_of(&name, "down, no file names it any more".to_owned());
                    notes.iter().for_each(|note| outcome.changed_of(&name, note.clone()));
                }
                Err(error) => outcome.fail(&name, &error),
            }
        }
        for plan in &plans {
            self.begin(plan, outcome).await;
        }
        for plan in plans {
            self.finish(plan, outcome).await;
        }
        for wanted in new {
            let (name, failures) = (wanted.name.clone(), outcome.failures.len());
            self.add_or_undo(wanted.clone(), MissingSlaves::Await, outcome).await;
            if let Some(bond) = self.find(&name) {
                bond.change_goal(|goal| goal.of_files = true);
            } else if let Some(why) = outcome.failures.get(failures).cloned() {
                self.remember_failed(wanted, why).await;
            }
        }
        Ok(())
    }

    /// Names of interfaces that are slaves, and will not be slaves of the same bond any more.
    async fn to_be_released(&self, config: &Config) -> Result<HashSet<String>, Stopping> {
        let mut released = HashSet::new();
        for (name, bond) in self.all() {
            let status = self.machine.engine.status(bond.id).await?;
            let goal = bond.goal();
            match config.bonds.iter().find(|wanted| wanted.name == name) {
                Some(wanted) => released.extend(goal.unwanted(wanted, &status)),
                None if goal.of_files => released.extend(status.slaves.into_iter().map(|slave| slave.name)),
                None => {}
            }
        }
        Ok(released)
    }

    /// What is to be done with a bond, or why it cannot be done.
    async fn plan(
        &self,
        bond: &Bond,
        wanted: BondConfig,
        released: &HashSet<String>,
    ) -> Result<plan::ReloadPlan, AgentError> {
        let observed = self.observe_bond(bond, &wanted, released).await?;
        plan::plan(wanted, observed)
    }
}
