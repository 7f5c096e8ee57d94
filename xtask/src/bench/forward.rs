//! `cargo xtask bench forward`

use std::process::Command;

use anyhow::Result;

use super::{Options, Run, conclude, measure, program};
use crate::machine;

pub fn run(options: &Options) -> Result<Run> {
    let mut command = Command::new(program("forward")?);
    command.env("XBOND_BIN", machine::xbond()?).args(options.quick.then_some("--quick"));
    conclude("forward", options, measure(&mut command)?)
}
