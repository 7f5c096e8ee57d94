//! `xbond reload`

use std::process::ExitCode;

use anyhow::Result;
use hyper::Method;

use super::{ReloadArgs, client, output};

pub fn reload(arguments: &ReloadArgs) -> Result<ExitCode> {
    let done = client::change(Method::POST, "/v1/reload", None, &arguments.wait)?;
    if done.changes.is_empty() && done.pending.is_empty() {
        output::print_lines(&["nothing changed".to_owned()]);
    } else {
        output::print_lines(&done.changes);
    }
    Ok(client::finish(&done))
}
