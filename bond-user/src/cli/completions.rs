//! `xbond completions`

use std::io::{self, Write as _};

use anyhow::Result;
use clap::CommandFactory as _;

use super::{Cli, CompletionsArgs};

/// Prints the completions of xbond's command line for a shell.
///
/// # Errors
/// None at present: output that is not read is no error.
pub fn completions(arguments: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "xbond", &mut text);
    // A reader that closes early, such as head, is no error.
    let _ = io::stdout().write_all(&text);
    Ok(())
}
