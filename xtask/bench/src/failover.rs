//! `cargo xtask bench failover`

use std::process::Command;

use anyhow::Result;
use clap::Args;

use super::{Options, Run, conclude, measure, program, run_in_guest};
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
    /// Compares xbond with the kernel's bonding driver, in an emulated machine with a kernel that has it
    #[arg(long)]
    vm: bool,
    /// Kernel of that machine: version of a Debian kernel or the beginning of one, or `newest`
    #[arg(long, default_value = "6.12", requires = "vm")]
    kernel: String,
}

impl Arguments {
    /// Returns the arguments for every row, with the default number of cuts.
    pub fn of(options: Options) -> Self {
        Self { options, ..Self::default() }
    }
}

/// Measures the losses and times of failovers.
///
/// # Errors
/// The benchmark does not build, fails, or prints no figures.
pub fn run(arguments: &Arguments) -> Result<Run> {
    let options = &arguments.options;
    let mut words = Vec::new();
    if let Some(cuts) = arguments.cuts {
        words.extend([String::from("--cuts"), cuts.to_string()]);
    }
    if let Some(only) = &arguments.only {
        words.extend([String::from("--only"), only.clone()]);
    }
    if arguments.vm {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        return run_in_guest("failover", options, &arguments.kernel, &words);
    }
    let mut command = Command::new(program("failover")?);
    command.env("XBOND_BIN", machine::xbond()?).args(options.quick.then_some("--quick")).args(words);
    conclude("failover", options, measure(&mut command)?)
}
