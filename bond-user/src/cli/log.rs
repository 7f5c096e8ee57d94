//! `xbond log`

use anyhow::{Result, bail};
use bond_core::name::BondName;

use super::{
    LogArgs,
    client::{self, NoAgent, NoAnswer},
    output,
};
use crate::{
    api::Endpoint,
    report::{receipt::Log, text, wording},
    store::offline as kept,
    store::paths::Paths,
    store::receipts,
    sys::{directory::EntryKind, netns},
};

/// Prints the last failovers of a bond: `xbond log`.
///
/// # Errors
/// There is no such bond, or its receipts cannot be read.
pub fn log(arguments: &LogArgs) -> Result<()> {
    let log = read(&arguments.bond)?;
    log.notes.iter().for_each(output::note);
    if arguments.json {
        output::print_json(&serde_json::to_string_pretty(&log)?);
    } else if !log.receipts.is_empty() || log.notes.is_empty() {
        output::print(&text::log(&log.receipts, arguments.details));
    }
    Ok(())
}

/// Reads receipts from the agent, whose socket more users may use than may read the file; without an agent, from the
/// file.
fn read(bond: &BondName) -> Result<Log> {
    let no_answer = match client::request(&Endpoint::Log.call_of(bond), None) {
        Err(error) if error.is::<NoAgent>() => None,
        Err(error) => Some(error.downcast::<NoAnswer>()?),
        answer => return answer,
    };
    let paths = Paths::of(netns::cookie()?);
    if paths.run_of(bond).kind() != Some(EntryKind::Directory) {
        bail!(wording::no_such_bond_here(bond));
    }
    let log = receipts::log(&paths, bond)?;
    if let Some(no_answer) = &no_answer {
        output::note(wording::from_file_of_receipts(no_answer.fact()));
    }
    match kept::unrecorded_failovers(&paths, bond) {
        Some(unrecorded) if unrecorded.is_none() => {}
        Some(unrecorded) => {
            output::note(wording::unrecorded_failovers(bond, unrecorded, no_answer.is_some()))
        }
        None => output::note(wording::maps_unread(bond)),
    }
    Ok(log)
}
