//! Continuing a bond that another agent has left, and that the data plane has kept going.
//!
//! 1. [`observe`] reads what is left, and changes nothing.
//! 2. [`plan`] decides, without a system call, what is taken over, or why the bond cannot be; then it keeps running.
//! 3. [`apply`] takes it over. A slave that is gone, or was not set up to the end, is not taken over, and the rest is.

mod apply;
mod identity;
mod observe;
mod plan;
#[cfg(test)]
mod tests;

use self::plan::{AdoptPlan, Remains};
use crate::{
    agent::{
        AgentError,
        bond::engine_handle::BondId,
        lifecycle::{create::Created, machine::Machine},
    },
    api::MissingSlaves,
    config::BondConfig,
    report::{log, wording},
    store::record::{self, Record},
};

/// Takes a bond over. None if there is nothing to take over: nothing was left, or a bond that was not finished and
/// carries nothing, of which nothing is left now.
///
/// # Errors
/// [`AgentError::CannotAdopt`]; the bond keeps running.
pub async fn adopt(
    machine: &Machine,
    id: BondId,
    config: &BondConfig,
    missing: MissingSlaves,
) -> Result<Option<Created>, AgentError> {
    if !machine.paths.has(&config.name) {
        return Ok(None);
    }
    let refuse = |misfit: Misfit| misfit.into_refusal(&config.name);
    let observed = observe::observe(machine, config).await.map_err(|error| refuse(error.into()))?;
    match plan::plan(config, machine.cookie, &observed).map_err(refuse)? {
        AdoptPlan::Adopt(adoption) => {
            let made = apply::apply(machine, id, config, *adoption, observed, missing).await;
            made.map(Some).map_err(|error| refuse(error.into()))
        }
        AdoptPlan::Remove(remains) => {
            let is_unrestored = observed.record.as_ref().is_some_and(Record::is_unrestored);
            match remains {
                Remains::Portless(port) => log::of(&config.name).warn(wording::port_gone(&port)),
                Remains::Unfinished if is_unrestored => {
                    log::of(&config.name).info(wording::unrestored_first())
                }
                Remains::Unfinished => log::of(&config.name).info(wording::unfinished_first()),
            }
            let notes = record::undo(&machine.paths, &config.name, &machine.system()).await?;
            notes.iter().for_each(|note| log::of(&config.name).warn(note));
            Ok(None)
        }
    }
}

/// Why a bond cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    #[error("its found.json is gone, which says how its interfaces were before")]
    NoRecord,
    #[error("its map {0} is not pinned any more")]
    NoMap(&'static str),
    #[error("its maps are of version {found}, and this xbond's of {}", bond_common::abi::ABI_VERSION)]
    OtherVersion { found: u32 },
    #[error("it belongs to another network namespace")]
    OtherNamespace,
    #[error("{what} is {found}, and the configuration says {wanted}")]
    Differs { what: &'static str, found: String, wanted: String },
    #[error(transparent)]
    Failed(#[from] Box<AgentError>),
}

impl Misfit {
    fn into_refusal(self, bond: &str) -> AgentError {
        match self {
            // It is a refusal as it is.
            Self::Failed(error) if matches!(*error, AgentError::CannotAdopt { .. }) => *error,
            other => AgentError::CannotAdopt { bond: bond.to_owned(), why: other.to_string() },
        }
    }
}

impl<E: Into<AgentError>> From<E> for Misfit {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error.into()))
    }
}
