//! `xbond man`

use std::io::{self, Write as _};

use anyhow::{Result, bail};
use clap::CommandFactory as _;
use clap_mangen::Man;

use super::{Cli, ManArgs};

/// Prints the manual page of xbond, or of a verb, as roff.
pub fn man(arguments: &ManArgs) -> Result<()> {
    let mut xbond = Cli::command();
    // Gives the verbs their full names.
    xbond.build();
    let page = match &arguments.verb {
        None => xbond.disable_help_flag(true),
        Some(name) => match xbond.find_subcommand(name) {
            Some(verb) => verb.clone(),
            None => {
                let verbs: Vec<_> = xbond.get_subcommands().map(clap::Command::get_name).collect();
                bail!("{name}: xbond has no such verb; there are: {}", verbs.join(", "));
            }
        },
    };
    let mut text = Vec::new();
    Man::new(page).section("8").manual("xbond").render(&mut text)?;
    // A reader that has seen enough, such as head, is no error.
    let _ = io::stdout().write_all(&text);
    Ok(())
}
