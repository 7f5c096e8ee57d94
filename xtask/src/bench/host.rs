//! `cargo xtask bench host`

use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use xbond_tests::figures::Measured;

use super::{Options, Run, conclude, measure, program};
use crate::{machine, vm};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    /// In an emulated machine whose kernel has bond and team, too
    #[arg(long)]
    vm: bool,
    /// Of that machine: version of a Debian kernel or the beginning of one, or `newest`
    #[arg(long, default_value = "6.12", requires = "vm")]
    kernel: String,
}

impl Arguments {
    /// On this machine.
    pub fn of(options: Options) -> Self {
        Self { options, vm: false, kernel: String::new() }
    }
}

pub fn run(arguments: &Arguments) -> Result<Run> {
    let options = &arguments.options;
    if arguments.vm {
        return in_guest(arguments);
    }
    let mut command = Command::new(program("host")?);
    command.env("XBOND_BIN", machine::xbond()?).args(options.quick.then_some("--quick"));
    conclude("host", options, measure(&mut command)?)
}

/// Only what the guest's kernel has is compared, and only within the guest.
fn in_guest(arguments: &Arguments) -> Result<Run> {
    let options = &arguments.options;
    let mut words = vec!["--drivers"];
    words.extend(options.quick.then_some("--quick"));
    let (kernel, lines) = vm::bench(&arguments.kernel, &program("host")?, &words)?;
    let result = lines.iter().find_map(|line| Measured::parse(line));
    let measured = result.context("the benchmark in the guest ended without a result")??;
    let run = Run::here("host", options, measured)?.in_guest(kernel);
    run.conclude(options)?;
    Ok(run)
}
