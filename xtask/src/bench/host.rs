//! `cargo xtask bench host`

use std::process::Command;

use anyhow::Result;
use clap::Args;

use super::{Options, Run, conclude, measure, program};
use crate::machine;

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
}

impl Arguments {
    /// On this machine.
    pub fn of(options: Options) -> Self {
        Self { options }
    }
}

pub fn run(arguments: &Arguments) -> Result<Run> {
    let options = &arguments.options;
    let mut command = Command::new(program("host")?);
    command.env("XBOND_BIN", machine::xbond()?).args(options.quick.then_some("--quick"));
    conclude("host", options, measure(&mut command)?)
}
