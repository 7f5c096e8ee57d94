//! `cargo xtask bench hotpath`

use std::process::Command;

use anyhow::Result;

use super::{Options, Run, conclude, measure, program};

/// Measures the programs on the path of each packet.
///
/// # Errors
/// The benchmark does not build, fails, or prints no figures.
pub fn run(options: &Options) -> Result<Run> {
    let mut command = Command::new(program("hotpath")?);
    command.args(options.quick.then_some("--quick"));
    conclude("hotpath", options, measure(&mut command)?)
}
