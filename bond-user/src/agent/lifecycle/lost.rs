//! Bonds that the agent is to have and does not have, reported as gone until they are there.
//!
//! - A bond of a file that could not be brought up: the others of its agent come up without it, and it is tried again.
//! - A bond of a file whose device was deleted in another network namespace, as when a container ends: the agent makes it
//!   again in its own as soon as that is possible.
//! - A bond whose device was deleted in the agent's own namespace: an administrator did that, and it stays away until a
//!   request makes it again.

use std::time::Duration;

use bond_core::name::{BondName, shell_word};
use tokio::time::Instant;

use crate::{
    agent::{Agent, AgentError, Bond, Outcome, Phase},
    api::MissingSlaves,
    config::{BondConfig, Config},
    report::{log, wording},
    sys::netlink::LinkInfo,
};

/// Between two attempts: each may open and close the slaves, so they become rarer.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Why a bond is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It could not be brought up.
    Failed,
    /// Its device was deleted with another network namespace.
    WithNamespace,
    /// An administrator deleted its device.
    Deleted,
    /// It was on trial (`run --confirm`) for so many seconds, and was not confirmed.
    NotConfirmed(u64),
}

/// A bond that is not there.
pub struct Lost {
    config: BondConfig,
    absence: Absence,
    of_files: bool,
    /// Why it could not be brought up, if that was tried.
    why: Option<String>,
    pause: Duration,
    next: Instant,
}

impl Lost {
    fn new(config: BondConfig, absence: Absence, of_files: bool) -> Self {
        let pause = match absence {
            Absence::Failed => FIRST_PAUSE,
            Absence::WithNamespace | Absence::Deleted | Absence::NotConfirmed(_) => Duration::ZERO,
        };
        Self { config, absence, of_files, why: None, pause, next: Instant::now() + pause }
    }

    /// Returns a sentence, with the bond's name first.
    fn text(&self) -> String {
        let bond = &self.config.name;
        let named = [format!("{bond}: "), format!("{bond} ({}): ", self.config.origin)];
        let why = self
            .why
            .as_deref()
            .map(|why| named.iter().find_map(|named| why.strip_prefix(named.as_str())).unwrap_or(why));
        match self.absence {
            Absence::Failed => wording::not_brought_up(bond, &self.config.origin, why),
            Absence::WithNamespace => wording::gone_with_namespace(bond, why),
            Absence::Deleted => wording::deleted(bond, &self.remedy()),
            Absence::NotConfirmed(seconds) => wording::not_confirmed(bond, seconds, &self.remedy()),
        }
    }

    /// Returns how the administrator recreates a bond that the agent does not recreate by itself.
    fn remedy(&self) -> String {
        if self.of_files {
            return wording::recreated_by_reload();
        }
        wording::recreated_by_add(shell_word(&self.config.name))
    }

    fn is_due(&self, now: Instant) -> bool {
        !matches!(self.absence, Absence::Deleted | Absence::NotConfirmed(_)) && now >= self.next
    }

    fn failed(&mut self, why: Option<String>, now: Instant) {
        self.why = why;
        if self.absence == Absence::Failed {
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        self.next = now + self.pause;
    }
}

impl Bond {
    /// Whether this link is bond0, in this network namespace.
    pub(in crate::agent) fn is_host(&self, link: &LinkInfo) -> bool {
        link.is_end_of_pair() && link.link == Some(self.host.port()) && link.link_netns.is_none()
    }
}

impl Agent {
    /// Keeps a bond of a file in mind that could not be brought up, and logs why.
    pub(in crate::agent) async fn remember_failed(&self, config: BondConfig, why: String) {
        let mut lost = self.lost.lock().await;
        let entry = lost
            .entry(config.name.clone())
            .or_insert_with(|| Lost::new(config.clone(), Absence::Failed, true));
        *entry = Lost { why: Some(why), ..Lost::new(config, Absence::Failed, true) };
        log::of(&entry.config.name).warn(entry.text());
    }

    /// Keeps a bond in mind whose device an administrator has deleted. Returns the sentence about it.
    pub(in crate::agent) async fn remember_deleted(&self, config: BondConfig, of_files: bool) -> String {
        let lost = Lost::new(config.clone(), Absence::Deleted, of_files);
        let text = lost.text();
        self.lost.lock().await.insert(config.name, lost);
        text
    }

    /// Keeps a bond in mind that was on trial for so many seconds, and was not confirmed. Returns the sentence about it.
    pub(in crate::agent) async fn remember_unconfirmed(
        &self,
        config: BondConfig,
        of_files: bool,
        seconds: u64,
    ) -> String {
        let lost = Lost::new(config.clone(), Absence::NotConfirmed(seconds), of_files);
        let text = lost.text();
        self.lost.lock().await.insert(config.name, lost);
        text
    }

    /// Makes a bond again whose device has just vanished with another network namespace. The caller holds
    /// [`Agent::phase`].
    pub(in crate::agent) async fn make_again(&self, name: &BondName, config: BondConfig) {
        self.lost
            .lock()
            .await
            .entry(name.clone())
            .or_insert_with(|| Lost::new(config.clone(), Absence::WithNamespace, true));
        let mut outcome = Outcome { is_quiet: true, ..Outcome::default() };
        self.add_or_undo(config, MissingSlaves::Await, &mut outcome).await;
        if let Some(bond) = self.find(name) {
            bond.change_goal(|goal| goal.of_files = true);
            log::of(name).info(wording::recreated());
            return;
        }
        let why = outcome.failures.first().cloned();
        if let Some(lost) = self.lost.lock().await.get_mut(name) {
            let is_news = lost.why != why;
            lost.failed(why, Instant::now());
            if is_news {
                log::of(name).warn(lost.text());
            }
        }
    }

    /// Tries again to make what is lost, if nothing else is being made or taken down.
    pub(in crate::agent) async fn make_lost_again(&self) {
        let Ok(phase) = self.phase.try_lock() else { return };
        if *phase == Phase::Ending {
            return;
        }
        let now = Instant::now();
        let due: Vec<_> = {
            let lost = self.lost.lock().await;
            let due = lost.iter().filter(|(_, lost)| lost.is_due(now));
            due.map(|(name, lost)| (name.clone(), lost.config.clone())).collect()
        };
        for (name, config) in due {
            self.make_again(&name, config).await;
        }
    }

    /// What files say now decides about their bonds that are lost, too.
    pub(in crate::agent) async fn forget_lost_but(&self, config: &Config) {
        self.lost.lock().await.retain(|name, lost| {
            let wanted = config.bonds.iter().find(|bond| bond.name == *name);
            if let Some(wanted) = wanted {
                lost.config = wanted.clone();
            }
            wanted.is_some() || !lost.of_files
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
        wanted.map(|(_, lost)| lost.text()).collect()
    }

    /// Why there is no such bond.
    pub(in crate::agent) async fn absence_of(&self, name: &BondName) -> AgentError {
        match self.lost_bonds(Some(name)).await.pop() {
            Some(text) => AgentError::Lost(text),
            None => self.no_such_bond(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    fn lost(absence: Absence, of_files: bool, why: Option<&str>) -> Lost {
        let origin = Origin::File { path: "b.toml".into(), line: Some(2) };
        let config = BondConfig::new(BondName::new("bond1").unwrap(), origin);
        Lost { why: why.map(str::to_owned), ..Lost::new(config, absence, of_files) }
    }

    #[test]
    fn a_lost_bond_is_named_with_its_file_its_reason_and_the_remedy() {
        let failed = lost(Absence::Failed, true, Some("bond1: eth0: already a port of bridge br0")).text();
        for part in ["bond1 (b.toml:2): not brought up: eth0: already a port", "xbond reload"] {
            assert!(failed.contains(part), "{failed}");
        }
        assert!(lost(Absence::Deleted, true, None).text().contains("`xbond reload` recreates it"));
        let by_flags = lost(Absence::Deleted, false, None).text();
        assert!(by_flags.contains("`xbond add`") && !by_flags.contains("reload"), "{by_flags}");
        let unconfirmed = lost(Absence::NotConfirmed(60), true, None).text();
        let sentence = "bond1: not confirmed within 60 s: it was removed; `xbond reload` recreates it";
        assert_eq!(unconfirmed, sentence);
        assert!(lost(Absence::WithNamespace, true, None).text().contains("the agent recreates it"));
    }

    #[test]
    fn a_bond_that_fails_is_tried_again_ever_more_rarely_and_a_deleted_one_never() {
        let now = Instant::now();
        let mut failed = lost(Absence::Failed, true, None);
        assert!(!failed.is_due(now));
        for pause in [10, 20, 40, 60, 60] {
            failed.failed(None, now);
            assert!(!failed.is_due(now + Duration::from_secs(pause - 1)));
            assert!(failed.is_due(now + Duration::from_secs(pause)));
        }
        let mut with_namespace = lost(Absence::WithNamespace, true, None);
        with_namespace.failed(None, now);
        assert!(with_namespace.is_due(now));
        let later = now + Duration::from_secs(1000);
        for absence in [Absence::Deleted, Absence::NotConfirmed(60)] {
            assert!(!lost(absence, true, None).is_due(later));
        }
    }
}
