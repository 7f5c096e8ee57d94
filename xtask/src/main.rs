//! Development tools of xbond. `cargo xtask --help` lists them.

mod dependencies;
mod docs;
mod fuzz;
mod mutants;
mod release;
mod run;
mod test;
mod tidy;

use std::{ffi::OsString, process::ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use xtask_common::{machine, setup};

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
    Run(run::RunArguments),
    /// Runs the unit tests, then the tests in network namespaces
    Test(test::TestArguments),
    /// Measures what xbond costs, and draws docs/BENCHMARKS.md
    #[command(disable_help_flag = true)]
    Bench(Words),
    /// Runs agents on a machine in memory in virtual time, where everything goes wrong that can
    #[command(disable_help_flag = true)]
    Simulate(Words),
    /// Plants mistakes, one at a time, and shows which test catches each
    Mutants(mutants::MutantsArguments),
    /// Compares xbond with the kernel's bonding driver, in an emulated machine whose kernel has it
    #[command(disable_help_flag = true)]
    Vm(Words),
    /// Makes the Debian package and others
    #[command(disable_help_flag = true)]
    Dist(Words),
    /// Builds the book of docs/ into target/book, and checks the links of the documents
    Docs,
    /// Searches for inputs that make a parser, a decoder or a program of the data plane fail
    Fuzz(fuzz::FuzzArguments),
    /// Runs what CI omits: the package's life, benchmarks, and the guests on all kernels; takes hours on two
    /// processors
    ReleaseCheck(release::ReleaseCheckArguments),
    /// Checks formatting, lints, imports, SAFETY comments, dependencies, and the tests that docs/PARITY.md names
    Tidy,
}

/// What a program of its own makes something of.
#[derive(Args)]
struct Words {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

fn main() -> Result<ExitCode> {
    match Cli::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Test(arguments) => match &arguments.apart {
            Some(test::Apart::Dialects(words)) => forward("xtask-dialects", "dev", words),
            None => test::run(&arguments),
        },
        Verb::Bench(arguments) => forward("xtask-bench", "dev", &arguments),
        Verb::Simulate(arguments) => forward("xbond-simulator", "simulator", &arguments),
        Verb::Mutants(arguments) => mutants::run(&arguments),
        Verb::Vm(arguments) => forward("xtask-vm", "dev", &arguments),
        Verb::Dist(arguments) => forward("xtask-dist", "dev", &arguments),
        Verb::Docs => docs::run(),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::ReleaseCheck(arguments) => release::run(&arguments),
        Verb::Tidy => tidy::run(),
    }
}

/// Runs a verb that is a crate of its own: what it alone is built of is compiled only for those who call it.
fn forward(package: &str, profile: &str, arguments: &Words) -> Result<ExitCode> {
    let mut cargo = machine::cargo();
    cargo.args(["run", "--quiet", "--profile", profile, "--package", package, "--"]).args(&arguments.words);
    let status = cargo.status().with_context(|| format!("cannot run cargo for {package}"))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
