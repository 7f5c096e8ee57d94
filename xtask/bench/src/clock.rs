//! `cargo xtask bench clock`

use std::process::Command;

use anyhow::Result;
use clap::Args;

use super::{Options, Run, conclude, measure, program};
use xtask_common::machine;

#[derive(Args, Default)]
pub struct ClockArguments {
    #[command(flatten)]
    options: Options,
    /// How long the clock is measured under load, at a period of 10 ms
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: Option<u32>,
}

impl ClockArguments {
    /// Returns the arguments for the default time.
    pub fn of(options: Options) -> Self {
        Self { options, ..Self::default() }
    }
}

/// Measures the laps of the clock's frames.
///
/// # Errors
/// The benchmark does not build, fails, or prints no figures.
pub fn run(arguments: &ClockArguments) -> Result<Run> {
    let options = &arguments.options;
    let mut command = Command::new(program("laps")?);
    command.env("XBOND_BIN", machine::xbond()?).args(options.quick.then_some("--quick"));
    if let Some(minutes) = arguments.minutes {
        command.args(["--minutes", &minutes.to_string()]);
    }
    conclude("clock", options, measure(&mut command)?)
}
