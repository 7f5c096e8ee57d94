//! `xbond gc`

use std::process::ExitCode;

use anyhow::Result;

use super::{GcArgs, REFUSED, output};
use crate::{
    store::{
        collect::{self, Extent},
        paths::Paths,
    },
    sys::{caps, netns},
};

/// Removes what bonds of lost network namespaces left: `xbond gc`.
///
/// # Errors
/// Capabilities are missing, or the directories cannot be read. What could not be removed gives exit code 2.
pub fn gc(arguments: &GcArgs) -> Result<ExitCode> {
    caps::check()?;
    let here = netns::cookie()?;
    Paths::of(here).act_as_their_owner()?;
    let collection = collect::collect(Extent { dry_run: arguments.dry_run, here, until: None })?;
    if arguments.json {
        output::print_json(&serde_json::to_string_pretty(&collection)?);
    } else {
        output::print(&collection.text());
    }
    Ok(if collection.has_failed() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}
