//! `cargo xtask test`: runs unit tests, then the tests in network namespaces.

use std::{
    env,
    io::{self, BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
    thread,
};

use anyhow::{Context as _, Result};
use clap::Args;

use xtask_common::{machine, setup};

/// The variable for the number of tests that the runner runs concurrently.
const THREADS: &str = "RUST_TEST_THREADS";

#[derive(Args)]
pub struct TestArguments {
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

/// Runs the unit tests and the namespace tests.
///
/// # Errors
/// cargo cannot be run. A failed test gives exit code 1.
pub fn run(arguments: &TestArguments) -> Result<ExitCode> {
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

/// Tests that may pass only when they run alone. A higher number is not due to a busy machine, but a fault of the
/// tests or of xbond.
const RETRIES: usize = 2;

/// Runs the tests in namespaces. A test that fails next to others is repeated once, alone, because these tests depend
/// on times and packets. Tests that pass only then are named and counted at the end; no other code repeats tests.
fn namespaces(runner: &[String]) -> Result<bool> {
    if !machine::is_root() {
        println!("the tests in network namespaces will be skipped: they need root");
    }
    machine::run_well(machine::cargo().args(["build", "--package", "bond-user", "--bin", "xbond"]))?;
    // The tests of programs that follow a bond run them.
    machine::run_well(machine::cargo().args(["build", "--package", "xbond-follow", "--examples"]))?;
    let binary = machine::target()?.join("debug/xbond");
    let mut tests = tests(&binary);
    tests.args(["--no-fail-fast", "--"]).args(runner);
    if env::var_os(THREADS).is_none() {
        // They mostly wait for links and traffic.
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        tests.env(THREADS, (2 * cpus).to_string());
    }
    let (passed, failed) = watch(&mut tests)?;
    // Without failed tests it was the build that failed.
    if passed || failed.is_empty() {
        return Ok(passed);
    }
    if failed.len() > RETRIES {
        println!("\n{} tests failed next to others; at most {RETRIES} are run again alone", failed.len());
        return Ok(false);
    }
    let mut again = Vec::new();
    for name in &failed {
        println!("\nalone: {name}");
        again.push(machine::run(self::tests(&binary).args(["--", "--exact", name]))?.success());
    }
    println!();
    for (name, passed) in failed.iter().zip(&again) {
        let how = if *passed { "failed next to others, passed alone" } else { "FAILED alone, too" };
        println!("{name}: {how}");
    }
    println!("{} of at most {RETRIES} tests were run again", failed.len());
    Ok(again.iter().all(|passed| *passed))
}

fn tests(binary: &Path) -> Command {
    let mut tests = machine::cargo();
    tests.args(["test", "--package", "xbond-tests"]).env("XBOND_BIN", binary);
    tests
}

/// Runs the command, and shows its output; returns whether it succeeded, and the names of the failed tests.
fn watch(command: &mut Command) -> Result<(bool, Vec<String>)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("no pipe from cargo")?;
    let mut failed = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line.context("what cargo says is no text")?;
        writeln!(io::stdout(), "{line}")?;
        if let Some(name) = failed_test(&line) {
            failed.push(name.to_owned());
        }
    }
    Ok((child.wait()?.success(), failed))
}

/// Parses a line of a test runner.
fn failed_test(line: &str) -> Option<&str> {
    Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.trim_end())
}

#[cfg(test)]
mod tests {
    use super::failed_test;

    #[test]
    fn failures_are_read_from_a_runners_lines() {
        let table = [
            ("test tc::ipv6 ... FAILED", Some("tc::ipv6")),
            ("test mac-none   ... FAILED", Some("mac-none")),
            ("test tc::ipv6 ... ok", None),
            ("test result: FAILED. 10 passed; 1 failed", None),
            ("error: test failed, to rerun pass `-p xbond-tests --test control`", None),
        ];
        for (line, expected) in table {
            assert_eq!(failed_test(line), expected, "{line}");
        }
    }
}
