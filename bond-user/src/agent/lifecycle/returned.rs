//! Former slaves that return after their bond was removed, from another network namespace or from a socket: they are
//! restored before anything else is done with them.

use std::sync::Arc;

use crate::{
    agent::{Agent, lifecycle::machine::Machine},
    report::{log, wording},
    store::elsewhere::{self, FormerSlave},
    sys::{
        directory::Trust,
        enslave::RestoreOutcome,
        netlink::LinkInfo,
        ownership::{Alias, Mark, Ownership},
    },
};

impl Agent {
    /// Restores former slaves if one of these interfaces has the alias of a bond, without waiting for it.
    pub(in crate::agent) fn restore_returned_soon(self: &Arc<Self>, links: &[LinkInfo]) {
        let is_marked = |link: &LinkInfo| link.alias.as_ref().is_some_and(Alias::is_mark);
        if links.iter().any(is_marked) && !elsewhere(&self.machine).is_empty() {
            let agent = Arc::clone(self);
            tokio::spawn(async move {
                let _one_at_a_time = agent.machine.enslaving.lock().await;
                restore_returned(&agent.machine).await;
            });
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
    for former in elsewhere(machine) {
        let FormerSlave { bond, found } = &former;
        let log = log::of(bond);
        let link = match machine.devices.find(found).await {
            Ok(Some(link)) => link,
            // It has not returned, or that cannot be read.
            Ok(None) | Err(_) => continue,
        };
        // Only its alias came back with it: no program of the bond is attached to it.
        let proof = Ownership::new(Mark::of(bond), []);
        match machine.devices.restore(found, &proof).await {
            Ok(RestoreOutcome::Done) => log.slave(&link.name).info(wording::returned_late(&link.name, bond)),
            Ok(RestoreOutcome::Gone) => continue,
            // An administrator has restored it, or it is another device.
            Ok(RestoreOutcome::Unconfirmed(_)) => {}
            Err(error) => {
                let text = wording::left_on(&link.name, bond, &wording::restoring(found, &link.name));
                log.slave(&link.name).warn(format_args!("{error}; {text}"));
            }
        }
        if let Err(error) = elsewhere::remove(&machine.paths, &former) {
            log.warn(error);
        }
    }
}
