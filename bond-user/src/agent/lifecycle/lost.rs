//! Bonds of files whose device was deleted in another network namespace, as when a container ends: the agent makes them
//! again in its own as soon as that is possible, and reports them as gone until then.
//!
//! A device that is deleted in the agent's own namespace was deleted by an administrator, and stays away until a reload.

use bond_core::name::BondName;
use tracing::{info, warn};

use crate::{
    agent::{Agent, AgentError, Bond, MissingSlaves, Outcome, Phase},
    config::{BondConfig, Config},
    sys::netlink::LinkInfo,
};

/// A bond that is to be made again.
pub struct Lost {
    config: BondConfig,
    /// Why that has not been possible, if it was tried.
    why: Option<String>,
}

impl Lost {
    fn text(&self, bond: &str) -> String {
        let gone = format!("{bond}: its device was deleted with its network namespace");
        match &self.why {
            Some(why) => format!("{gone}; the agent cannot make it again yet, and keeps trying: {why}"),
            None => format!("{gone}; the agent makes it again"),
        }
    }
}

impl Bond {
    /// Whether this link is bond0, in this network namespace.
    pub(in crate::agent) fn is_host(&self, link: &LinkInfo) -> bool {
        link.is_end_of_pair() && link.link == Some(self.host.port()) && link.link_netns.is_none()
    }
}

impl Agent {
    /// Makes a bond again whose device has just vanished with another network namespace. The caller holds
    /// [`Agent::phase`].
    pub(in crate::agent) async fn make_again(&self, name: &BondName, config: BondConfig) {
        let mut outcome = Outcome { is_quiet: true, ..Outcome::default() };
        self.add_or_undo(config.clone(), MissingSlaves::Await, &mut outcome).await;
        let mut lost = self.lost.lock().await;
        if let Some(bond) = self.find(name) {
            bond.change_goal(|goal| goal.of_files = true);
            lost.remove(name);
            info!("{name}: is there again");
            return;
        }
        let why = outcome.failures.first().cloned();
        let lost = lost.entry(name.clone()).or_insert_with(|| Lost { config, why: None });
        if lost.why != why {
            lost.why = why;
            warn!("{}", lost.text(name));
        }
    }

    /// Tries again to make what is lost, if nothing else is being made or taken down.
    pub(in crate::agent) async fn make_lost_again(&self) {
        let Ok(phase) = self.phase.try_lock() else { return };
        if *phase == Phase::Ending {
            return;
        }
        let lost: Vec<_> =
            self.lost.lock().await.iter().map(|(name, lost)| (name.clone(), lost.config.clone())).collect();
        for (name, config) in lost {
            self.make_again(&name, config).await;
        }
    }

    /// What files say now decides about the bonds that are lost, too.
    pub(in crate::agent) async fn forget_lost_but(&self, config: &Config) {
        self.lost.lock().await.retain(|name, lost| {
            let wanted = config.bonds.iter().find(|bond| bond.name == *name);
            if let Some(wanted) = wanted {
                lost.config = wanted.clone();
            }
            wanted.is_some()
        });
    }

    /// Gives a lost bond up. False if there is none of this name.
    pub(in crate::agent) async fn forget_lost(&self, name: &str) -> bool {
        self.lost.lock().await.remove(name).is_some()
    }

    /// A sentence for each lost bond, or for the one of this name.
    pub(in crate::agent) async fn lost_bonds(&self, only: Option<&BondName>) -> Vec<String> {
        let lost = self.lost.lock().await;
        let wanted = lost.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
        wanted.map(|(name, lost)| lost.text(name)).collect()
    }

    /// Why there is no such bond.
    pub(in crate::agent) async fn absence_of(&self, name: &BondName) -> AgentError {
        match self.lost_bonds(Some(name)).await.pop() {
            Some(text) => AgentError::Lost(text),
            None => self.no_such_bond(name),
        }
    }
}
