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
use bond_core::name::InterfaceName;

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

/// How a bond is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// bond0 has the bond's name, and a carrier when a slave has one. This is what becomes of slaves that do not exist.
    Usual(MissingSlaves),
    /// bond0 takes the place of a device of its name later: until then it has this name, and it has a carrier before there
    /// is a slave.
    StandBy(InterfaceName),
}

impl Manner {
    fn missing(&self) -> MissingSlaves {
        match self {
            Self::Usual(missing) => *missing,
            Self::StandBy(_) => MissingSlaves::Refuse,
        }
    }

    /// Returns the name that bond0 has at first.
    fn device<'a>(&'a self, config: &'a BondConfig) -> &'a str {
        match self {
            Self::Usual(_) => &config.name,
            Self::StandBy(device) => device,
        }
    }
}

/// Creates a bond. Refuses what cannot be before it changes anything.
pub async fn bring_up(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    manner: &Manner,
) -> Result<Created, AgentError> {
    let _one_at_a_time = machine.enslaving.lock().await;
    restore_returned(machine).await;
    let observed = observe::observe(machine, config, manner).await?;
    let plan = plan::plan(config, manner, observed, random_mac()?)?;
    apply::apply(machine, id, config, plan).await
}

/// Returns a locally administered address that no other device should have.
fn random_mac() -> Result<Mac, SysError> {
    let [a, b, c, d, e, f, ..] = random::number()?.to_ne_bytes();
    Ok(Mac::new([a & 0xfe | 0x02, b, c, d, e, f]))
}
