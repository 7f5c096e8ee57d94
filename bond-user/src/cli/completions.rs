//! `xbond completions`

use std::io::{self, Write as _};

use anyhow::Result;
use clap::CommandFactory as _;

use super::{Cli, CompletionsArgs};

/// Prints what a shell needs to complete the command line of xbond.
pub fn completions(arguments: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "xbond", &mut text);
    // A reader that has seen enough, such as head, is no error.
    let _ = io::stdout().write_all(&text);
    Ok(())
}
