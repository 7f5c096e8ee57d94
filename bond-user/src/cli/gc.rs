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
