//! `xbond down`

use std::{process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use bond_core::name::{BondName, shell_word};

use super::{DownArgs, WaitArgs, client, output};
use crate::{
    api::Endpoint,
    report::wording,
    store::{paths::Paths, record},
    sys::netns,
};

/// How long an agent that disconnected before its answer may take to end.
const END_OF_AGENT: Duration = Duration::from_secs(5);

/// Takes a bond, or all bonds, down: `xbond down`.
///
/// # Errors
/// There is no such bond, or the agent could not take it down.
pub fn down(arguments: &DownArgs) -> Result<ExitCode> {
    match &arguments.bond {
        Some(bond) => one(bond, arguments.force, &arguments.wait),
        None => all(&arguments.wait),
    }
}

fn one(bond: &BondName, force: bool, wait: &WaitArgs) -> Result<ExitCode> {
    match client::change(Endpoint::DownBond.call_of(bond), None, wait) {
        Ok(done) => Ok(client::finish(&done)),
        // The agent was just killed: its socket accepted the request, and the kernel is still closing its files.
        Err(error) if force && error.is::<client::BrokenOff>() => {
            let paths = Paths::of(netns::cookie()?);
            if !paths.is_left_within(END_OF_AGENT) {
                return Err(error);
            }
            if paths.has(bond) {
                record::undo_without_agent(&paths, bond)?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if !error.is::<client::NoAgent>() => Err(error),
        Err(_) if force => {
            let notes = record::undo_without_agent(&Paths::of(netns::cookie()?), bond)?;
            notes.iter().for_each(output::note);
            Ok(ExitCode::SUCCESS)
        }
        Err(_) => bail!(wording::down_needs_force(bond, shell_word(bond))),
    }
}

/// Removes the bonds of an agent and orphaned ones. A failure does not stop the others.
fn all(wait: &WaitArgs) -> Result<ExitCode> {
    let paths = Paths::of(netns::cookie()?);
    let (mut failed, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for bond in paths.bonds() {
        match one(&bond, true, wait) {
            Ok(ExitCode::SUCCESS) => {}
            Ok(not_yet) => code = not_yet,
            Err(error) => failed.push(wording::of_bond(&bond, error.to_string())),
        }
    }
    if failed.is_empty() { Ok(code) } else { bail!("{}", failed.join("; ")) }
}
