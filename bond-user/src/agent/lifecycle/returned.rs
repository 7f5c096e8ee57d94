//! Former slaves that return after their bond was removed, from another network namespace or from a socket: they are
//! restored before anything else is done with them.
//!
//! One that cannot be restored stays in elsewhere.json. The agent tries again, [`MOST_TRIES`] times by itself; after that
//! when an agent starts, a bond is created, or an interface is enslaved. If it becomes a slave meanwhile, its original state
//! passes to the record of that bond.

use std::sync::Arc;

use crate::{
    agent::{Agent, lifecycle::machine::Machine},
    report::{log, wording},
    store::{
        elsewhere::{self, FormerSlave},
        record::owner_of,
    },
    sys::{
        alias::{Alias, Mark},
        directory::Trust,
        enslave::RestoreOutcome,
        found::Found,
        netlink::LinkInfo,
        ownership::Ownership,
    },
};

/// How many times the agent tries by itself to restore one.
const MOST_TRIES: u32 = 5;

impl Agent {
    /// Restores former slaves if one of these interfaces has the alias of a bond, without waiting for it. What was tried before
    /// is left to [`Self::try_returned_again`]: an attempt that fails is an event, too.
    pub(in crate::agent) fn restore_returned_soon(self: &Arc<Self>, links: &[LinkInfo]) {
        let is_marked = |link: &LinkInfo| link.alias.as_ref().is_some_and(Alias::is_mark);
        if links.iter().any(is_marked) && elsewhere(&self.machine).iter().any(|former| former.tries == 0) {
            let agent = Arc::clone(self);
            tokio::spawn(async move {
                let _one_at_a_time = agent.machine.enslaving.lock().await;
                restore(&agent.machine, |former| former.tries == 0).await;
            });
        }
    }

    /// Tries again to restore former slaves that are here and could not be restored.
    pub(in crate::agent) async fn try_returned_again(&self) {
        let is_due = |former: &FormerSlave| (1..MOST_TRIES).contains(&former.tries);
        if elsewhere(&self.machine).iter().any(is_due) {
            let _one_at_a_time = self.machine.enslaving.lock().await;
            restore(&self.machine, is_due).await;
        }
    }
}

fn elsewhere(machine: &Machine) -> Vec<FormerSlave> {
    // A file that no agent has written restores nothing.
    elsewhere::read(&machine.paths, Trust::Ours).unwrap_or_default()
}

/// Restores the former slaves that are here again. The caller holds [`Machine::enslaving`]: an interface that is enslaved
/// next is found with its original state.
pub async fn restore_returned(machine: &Machine) {
    restore(machine, |_| true).await;
}

async fn restore(machine: &Machine, is_wanted: impl Fn(&FormerSlave) -> bool) {
    for former in elsewhere(machine).into_iter().filter(is_wanted) {
        let FormerSlave { bond, found, .. } = &former;
        let log = log::of(bond);
        let link = match machine.devices.find(found).await {
            Ok(Some(link)) => link,
            // It has not returned, or that cannot be read.
            Ok(None) | Err(_) => continue,
        };
        let log = log.slave(&link.name);
        // It may be a slave again: the record of that bond has its original state.
        let is_slave = owner_of(&machine.paths, &link).is_some();
        // Only its alias came back with it: no program of the bond is attached to it.
        let proof = Ownership::new(Mark::of(bond), []);
        let outcome = if is_slave { None } else { Some(machine.devices.restore(found, &proof).await) };
        let written = match outcome {
            Some(Ok(RestoreOutcome::Done)) => {
                log.info(wording::returned_late(&link.name, bond));
                elsewhere::remove(&machine.paths, &former)
            }
            Some(Ok(RestoreOutcome::Gone)) => continue,
            // Of what is not confirmed, an administrator has restored it, or it is another device.
            None | Some(Ok(RestoreOutcome::Unconfirmed(_))) => elsewhere::remove(&machine.paths, &former),
            Some(Err(error)) => elsewhere::count_try(&machine.paths, &former).map(|tries| {
                let left = wording::left_on(&link.name, bond, &wording::restoring(found, &link.name));
                log.warn(if tries < MOST_TRIES {
                    wording::unrestored_again(&error, tries, left)
                } else {
                    wording::unrestored_for_now(&error, tries, left)
                });
            }),
        };
        if let Err(error) = written {
            log.warn(error);
        }
    }
}

/// Returns the original state of an interface that is to be enslaved, and was observed like this: what a former slave that
/// could not be restored still has of its bond is not original.
pub fn original(machine: &Machine, observed: Found) -> Found {
    let is_it = |former: &FormerSlave| former.found.is_of_device_of(&observed);
    match elsewhere(machine).into_iter().rfind(is_it) {
        Some(former) => former.found.here_as(observed),
        None => observed,
    }
}
