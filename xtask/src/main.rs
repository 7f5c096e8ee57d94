//! xbond's own tools. `cargo xtask --help` lists them.

mod bench;
mod dist;
mod docs;
mod machine;
mod parity;
mod release;
mod run;
mod setup;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, tries and tests xbond.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Finds what this machine lacks to build and test xbond, and installs it
    Setup(setup::Arguments),
    /// Runs xbond: in a lab with a switch and a cut link, or after `--` on this machine
    Run(run::Arguments),
    /// Runs the unit tests, then the tests in network namespaces
    Test(test::Arguments),
    /// Measures what xbond costs, and draws docs/BENCHMARKS.md
    Bench(bench::Arguments),
    /// Compares xbond with the kernel's bonding driver, in an emulated machine whose kernel has it
    Vm(vm::Arguments),
    /// Makes the Debian package
    Dist(dist::Arguments),
    /// Builds the book of docs/ into target/book, and checks the links of the documents
    Docs,
    /// Runs what CI leaves out: the package's life, benchmarks, and the guests on all kernels; hours on two processors
    ReleaseCheck(release::Arguments),
    /// Checks formatting, lints, who imports whom, that unsafe code is explained, and what docs/PARITY.md names
    Tidy,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Vm(arguments) => vm::run(&arguments),
        Verb::Dist(arguments) => dist::run(&arguments),
        Verb::Docs => docs::run(),
        Verb::ReleaseCheck(arguments) => release::run(&arguments),
        Verb::Tidy => tidy::run(),
    }
}
