//! Creating a bond: its devices, its data plane, its slaves.
//!
//! 1. [`observe`] reads everything that the bond depends on, and changes nothing.
//! 2. [`plan`] decides, without a system call, what is to be done, or why the bond cannot be.
//! 3. [`apply`] does it. What was found is in found.json before each change: wherever it stops,
//!    [`crate::store::record::undo`] restores everything.

mod apply;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bond_common::mac::Mac;

use crate::{
    agent::{
        AgentError,
        bond::{engine_handle::BondId, interface::Host},
        lifecycle::{
            DEFAULT_MTU, machine::Machine, returned::restore_returned, slaves::Wanted, start::Started,
        },
        queues::Queues,
    },
    api::MissingSlaves,
    config::BondConfig,
    sys::{
        SysError,
        dataplane::{Hook, Maps},
        netlink::PairKind,
        random,
    },
};

/// A bond that was made.
pub struct Created {
    pub hook: Hook,
    pub queues: Queues,
    pub host: Host,
    /// What bond0 and its port are made of; None where it ends in a port that was there before.
    pub pair: Option<PairKind>,
    pub port: String,
    pub maps: Arc<Maps>,
    pub started: Started,
    pub wanted: Vec<Wanted>,
}

/// Creates a bond. Refuses what cannot be before it changes anything.
pub async fn bring_up(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    missing: MissingSlaves,
) -> Result<Created, AgentError> {
    let _one_at_a_time = machine.enslaving.lock().await;
    restore_returned(machine).await;
    let observed = observe::observe(machine, config).await?;
    let plan = plan::plan(config, missing, observed, random_mac()?)?;
    apply::apply(machine, id, config, plan).await
}

/// Returns a locally administered address that no other device should have.
fn random_mac() -> Result<Mac, SysError> {
    let [a, b, c, d, e, f, ..] = random::number()?.to_ne_bytes();
    Ok(Mac::new([a & 0xfe | 0x02, b, c, d, e, f]))
}
