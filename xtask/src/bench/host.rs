//! `cargo xtask bench host`

use anyhow::Result;
use clap::Args;

use super::{Options, Run, Where, run_where};

#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    place: Where,
}

impl Arguments {
    /// On this machine.
    pub fn of(options: Options) -> Self {
        Self { options, place: Where::default() }
    }
}

pub fn run(arguments: &Arguments) -> Result<Run> {
    run_where("host", &arguments.options, &arguments.place)
}
