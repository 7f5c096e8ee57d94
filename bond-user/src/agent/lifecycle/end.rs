//! The end of a bond: one that could not be brought up, and one that is not wanted any more.

use std::sync::{Arc, atomic::Ordering};

use bond_core::name::BondName;
use tokio::sync::oneshot;

use crate::{
    agent::{
        Agent, AgentError, Bond, Past, Phase, Stopping,
        bond::{
            engine_handle::BondId,
            work::{End, WorkQueue},
        },
        lifecycle::machine::Machine,
    },
    config::OnExit,
    report::{
        event::{BondChange, What},
        log, wording,
    },
    store::{
        elsewhere,
        paths::{Lasting, lasting},
        record,
    },
    sys::{dataplane::DataPlaneError, limits},
};

/// Undoes what was done of a bond until `cause` ended it.
pub async fn undo(machine: &Machine, id: BondId, bond: &BondName, cause: &AgentError) {
    // These were reported before anything was changed: nothing is to be undone, least of all the remains of another
    // bond of that name.
    if matches!(
        cause,
        AgentError::CannotAdopt { .. }
            | AgentError::NotOnTrial { .. }
            | AgentError::NameTaken { .. }
            | AgentError::NoSuchQueue { .. }
    ) {
        return;
    }
    limits::release_files();
    // The bond's task, if it was started, ends when no sender of requests is left.
    machine.engine.remove(id);
    if let Some(task) = machine.tasks.take(id) {
        let _ = task.await;
    }
    match record::undo(&machine.paths, bond, &machine.system()).await {
        Ok(notes) => notes.iter().for_each(|note| log::of(bond).warn(note)),
        Err(error) => log::of(bond).warn(wording::not_all_restored(bond, &error)),
    }
}

/// Removes a bond that runs, and restores its slaves. Returns what should be known about it: slaves that are elsewhere.
///
/// # Errors
/// Something could not be restored; everything else is.
pub async fn take_down(
    machine: &Machine,
    (name, id): (&BondName, BondId),
    work: &WorkQueue,
) -> Result<Vec<String>, AgentError> {
    machine.engine.remove(id);
    let (reply, done) = oneshot::channel();
    work.end(End::TearDown { reply });
    let absent = done.await.map_err(|_| Stopping)??;
    // Before the record is removed, which has them until then.
    if let Err(error) = elsewhere::add(&machine.paths, name, &absent) {
        log::of(name).warn(error);
    }
    machine.paths.forget(name);
    machine.feed.publish(name, What::Bond { change: BondChange::Down });
    if absent.is_empty() {
        log::of(name).info(wording::down());
    } else {
        let names: Vec<_> = absent.iter().map(|absent| absent.name.as_str()).collect();
        log::of(name).info(wording::down_without(names.join(", ")));
    }
    let notes = record::not_here(&*machine.devices, &absent).await;
    notes.iter().for_each(|note| log::of(name).warn(note));
    Ok(notes)
}

impl Agent {
    pub(in crate::agent) async fn end(&self, ending: Ending) -> Result<(), AgentError> {
        // Waits for a bond that is being created.
        let mut phase = self.phase.lock().await;
        *phase = Phase::Ending;
        limits::release_files();
        self.end_takeovers().await;
        drop(phase);
        let mut answer = Ok(());
        let bonds = std::mem::take(&mut *self.bonds());
        for (name, bond) in bonds {
            let keep = match ending {
                Ending::AsConfigured => bond.goal().config.on_exit == OnExit::Keep,
                Ending::Undo => bond.past == Past::Adopted,
                Ending::NotConfirmed { .. } if bond.is_on_trial() => false,
                Ending::NotConfirmed { .. } => bond.goal().config.on_exit == OnExit::Keep,
            };
            let checked = self.machine.planes.pins().check(&self.machine.paths.pins_of(&name));
            let pins = match &checked {
                Err(error @ DataPlaneError::Unpinned(_)) => Err(error.to_string()),
                // Pins that cannot be checked are not gone.
                Ok(()) | Err(_) => match lasting() {
                    Lasting::Machine => Ok(wording::KEPT),
                    Lasting::Unknown => Ok(wording::LEFT_TO_MOUNT),
                    Lasting::Namespace => Err(wording::PRIVATE_PINS.to_owned()),
                },
            };
            match (&pins, &checked) {
                (Err(error), _) if keep => log::of(&name).warn(wording::cannot_be_kept(error)),
                (Ok(_), Err(error)) if keep => {
                    log::of(&name).warn(wording::kept_unchecked(error));
                }
                _ => {}
            }
            if let (true, Ok(kept_how)) = (keep, pins) {
                let (reply, kept) = oneshot::channel();
                bond.work.end(End::Keep { reply });
                let _ = kept.await;
                self.machine.feed.publish(&name, What::Bond { change: BondChange::Kept });
                log::of(&name).info(kept_how);
                if let Ok(Some(trial)) = self.check_trial(&name) {
                    log::of(&name).warn(wording::on_trial(&name, trial.left()));
                }
            } else {
                answer = answer.and(self.take_down(&name, &bond).await.map(drop));
            }
        }
        self.published.end().await;
        self.machine.feed.end().await;
        self.machine.paths.leave();
        answer
    }

    /// Returns what should be known about it.
    pub(in crate::agent) async fn take_down(
        &self,
        name: &BondName,
        bond: &Bond,
    ) -> Result<Vec<String>, AgentError> {
        take_down(&self.machine, (name, bond.id), &bond.work).await
    }

    /// Takes one bond down. Returns what should be known about it.
    ///
    /// # Errors
    /// There is no such bond, or a part of it cannot be removed; the bond is then left to the next `down`.
    pub async fn down(&self, name: &BondName) -> Result<Vec<String>, AgentError> {
        let _phase = self.phase.lock().await;
        if self.takeovers_on_trial().iter().any(|known| known.bond == *name) {
            return Err(AgentError::TakeoverOnTrial { bond: name.to_string() });
        }
        let is_lost = self.forget_lost(name).await;
        if let Some(bond) = self.find(name) {
            // Waits for a change of the bond that is under way.
            let _turn = bond.turn.lock().await;
        }
        let bond = self.bonds().remove(name);
        // The bond is removed whether or not that can be written.
        if let Err(error) = self.machine.drains().end_all(name) {
            log::of(name).warn(error);
        }
        match bond {
            Some(bond) => self.take_down(name, &bond).await,
            None if is_lost => Ok(Vec::new()),
            None if self.is_left(name) => {
                let notes = record::undo(&self.machine.paths, name, &self.machine.system()).await?;
                notes.iter().for_each(|note| log::of(name).warn(note));
                Ok(notes)
            }
            None => Err(AgentError::NoSuchBond(name.to_string())),
        }
    }

    /// A bond whose port is gone carries nothing any more: its device was deleted. A bond0 that is
    /// moved to another network namespace leaves its port behind.
    pub(in crate::agent) async fn take_down_without_port(&self, ifindex: u32) {
        let phase = self.phase.lock().await;
        let is_it = |_: &BondName, bond: &mut Arc<Bond>| bond.maps.bond().port_ifindex() == ifindex;
        let lost = self.bonds().extract_if(.., is_it).next();
        let Some((name, bond)) = lost else { return };
        let goal = bond.goal();
        let is_elsewhere = bond.is_elsewhere.load(Ordering::Relaxed);
        let comes_again = goal.of_files && is_elsewhere && *phase == Phase::Serving;
        if comes_again {
            log::of(&name).warn(wording::deleted_with_namespace(&bond.port));
        } else {
            let text = self.remember_deleted(goal.config.clone(), goal.of_files).await;
            log::of(&name).warn(wording::device_deleted(text, &bond.port));
        }
        if let Err(error) = self.take_down(&name, &bond).await {
            log::of(&name).warn(wording::not_all_restored(&name, &error));
        }
        if comes_again {
            self.make_again(&name, goal.config.clone()).await;
        }
    }
}

/// How an agent ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By each bond's on_exit.
    AsConfigured,
    /// As before it began: what was made is removed, what was adopted keeps running.
    Undo,
    /// What was on trial for so many seconds is removed; of the rest each bond's on_exit decides.
    NotConfirmed { seconds: u64 },
}
