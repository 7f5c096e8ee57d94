//! `xbond reload`

use std::process::ExitCode;

use anyhow::Result;

use super::{ReloadArgs, client, output};
use crate::api::Endpoint;

/// Has the agent read its files again: `xbond reload`.
///
/// # Errors
/// There is no agent, a file is refused, or a change fails.
pub fn reload(arguments: &ReloadArgs) -> Result<ExitCode> {
    let done = client::change(Endpoint::Reload.call(), None, &arguments.wait)?;
    if done.changes.is_empty() && done.pending.is_empty() {
        output::print_lines(&["nothing changed".to_owned()]);
    } else {
        output::print_lines(&done.changes);
    }
    Ok(client::finish(&done))
}
