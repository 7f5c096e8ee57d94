//! `cargo xtask test`: unit tests, then the tests in network namespaces.

use std::{env, process::ExitCode, thread};

use anyhow::Result;
use clap::Args;

use crate::{machine, setup};

/// How many tests the runner has run side by side.
const THREADS: &str = "RUST_TEST_THREADS";

#[derive(Args)]
pub struct Arguments {
    /// Only the unit tests, which need no root
    #[arg(long)]
    unit: bool,
    /// Only the tests in network namespaces
    #[arg(long, conflicts_with = "unit")]
    namespaces: bool,
    /// For the test runner: a filter, --test-threads, --nocapture, ...
    #[arg(last = true)]
    runner: Vec<String>,
}

pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let mut results = Vec::new();
    if !arguments.namespaces {
        let status =
            machine::run(machine::cargo().args(["test", "--no-fail-fast", "--"]).args(&arguments.runner))?;
        results.push(("unit tests", status.success()));
    }
    if !arguments.unit {
        results.push(("namespace tests", namespaces(&arguments.runner)?));
    }
    println!();
    for (what, passed) in &results {
        println!("{what}: {}", if *passed { "passed" } else { "FAILED" });
    }
    let passed = results.iter().all(|(_, passed)| *passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn namespaces(runner: &[String]) -> Result<bool> {
    if !machine::is_root() {
        println!("the tests in network namespaces will be skipped: they need root");
    }
    machine::run_well(machine::cargo().args(["build", "--package", "bond-user", "--bin", "xbond"]))?;
    let binary = machine::target()?.join("debug/xbond");
    let mut tests = machine::cargo();
    tests.args(["test", "--no-fail-fast", "--package", "xbond-tests", "--"]).args(runner);
    if env::var_os(THREADS).is_none() {
        // Mostly they wait: for links, for traffic.
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        tests.env(THREADS, (2 * cpus).to_string());
    }
    Ok(machine::run(tests.env("XBOND_BIN", binary))?.success())
}
