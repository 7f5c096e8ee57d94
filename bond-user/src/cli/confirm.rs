//! `xbond confirm`

use anyhow::Result;

use super::{client, output};
use crate::api::{Done, Endpoint};

/// Confirms changes on trial: `xbond confirm`.
///
/// # Errors
/// There is no agent, or nothing is on trial.
pub fn confirm() -> Result<()> {
    let done: Done = client::request(&Endpoint::Confirm.call(), None)?;
    output::print_lines(&done.changes);
    Ok(())
}
