//! `cargo xtask bench failover`

use std::process::Command;

use anyhow::Result;
use clap::Args;

use super::{Options, Run, conclude, measure, program};
use xtask_common::machine;

#[derive(Args, Default)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Number of cuts for each row
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cuts: Option<u32>,
    /// Only rows with this text in their name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

impl Arguments {
    /// Returns the arguments for every row, with the default number of cuts.
    pub fn of(options: Options) -> Self {
        Self { options, ..Self::default() }
    }
}

pub fn run(arguments: &Arguments) -> Result<Run> {
    let options = &arguments.options;
    let mut command = Command::new(program("failover")?);
    command.env("XBOND_BIN", machine::xbond()?).args(options.quick.then_some("--quick"));
    if let Some(cuts) = arguments.cuts {
        command.args(["--cuts", &cuts.to_string()]);
    }
    if let Some(only) = &arguments.only {
        command.args(["--only", only]);
    }
    conclude("failover", options, measure(&mut command)?)
}
