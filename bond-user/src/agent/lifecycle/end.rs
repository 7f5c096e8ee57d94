//! The end of a bond: one that could not be brought up, and one that is not wanted any more.

use bond_core::name::BondName;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::{
    agent::{
        AgentError,
        bond::{
            engine_thread::{BondId, Input, Stopping},
            work::{End, Work},
        },
        lifecycle::machine::Machine,
    },
    report::{
        event::{BondChange, What},
        text,
    },
    store::record,
    sys::limits,
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
    machine.engine.send(Input::Remove(id));
    if let Some(task) = machine.tasks.take(id) {
        let _ = task.await;
    }
    match record::undo(&machine.paths, bond, &machine.system()).await {
        Ok(notes) => notes.iter().for_each(|note| warn!("{bond}: {note}")),
        Err(error) => warn!("{}", text::not_all_restored(bond, &error)),
    }
}

/// Removes a bond that runs, and restores its slaves. Returns what should be known about it: slaves that are elsewhere.
///
/// # Errors
/// Something could not be restored; everything else is.
pub async fn take_down(
    machine: &Machine,
    (name, id): (&BondName, BondId),
    effects: &Work,
) -> Result<Vec<String>, AgentError> {
    machine.engine.send(Input::Remove(id));
    let (reply, done) = oneshot::channel();
    effects.end(End::TearDown { reply });
    let absent = done.await.map_err(|_| Stopping)??;
    machine.paths.forget(name);
    machine.feed.tell(name, What::Bond { change: BondChange::Down });
    if absent.is_empty() {
        info!("{name}: down, slaves as they were found");
    } else {
        let names: Vec<_> = absent.iter().map(|absent| absent.name.as_str()).collect();
        info!("{name}: down, slaves as they were found; not restored: {}", names.join(", "));
    }
    let notes: Vec<_> = absent.iter().map(text::not_here).collect();
    notes.iter().for_each(|note| warn!("{name}: {note}"));
    Ok(notes)
}
