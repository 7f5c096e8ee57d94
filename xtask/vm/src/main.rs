//! `cargo xtask vm`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

/// Compares xbond with the kernel's bonding driver, in an emulated machine whose kernel has it.
#[derive(Parser)]
#[command(bin_name = "cargo xtask vm", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    arguments: xtask_vm::Arguments,
}

fn main() -> Result<ExitCode> {
    xtask_vm::run(&Cli::parse().arguments)
}
