//! `cargo xtask bench failover`

use anyhow::Result;
use clap::Args;

use super::{Options, Placed, Run, run_where};

#[derive(Args, Default)]
pub struct Arguments {
    #[command(flatten)]
    placed: Placed,
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
        Self { placed: Placed { options, ..Placed::default() }, ..Self::default() }
    }
}

pub fn run(arguments: &Arguments) -> Result<Run> {
    let Arguments { placed, cuts, only } = arguments;
    let cuts = cuts.map(|cuts| cuts.to_string());
    let cuts = cuts.iter().flat_map(|cuts| ["--cuts", cuts]);
    let only = only.iter().flat_map(|only| ["--only", only]);
    run_where("failover", placed, &cuts.chain(only).collect::<Vec<_>>())
}
