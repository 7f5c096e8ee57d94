//! `cargo xtask vm`: runs the same steps with the kernel's bonding driver and xbond in one guest, and compares them.

#![warn(clippy::missing_errors_doc)]

mod compare;
mod guest;
mod kernel;
mod qemu;

use std::{
    collections::BTreeMap,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use xbond_tests::parity::Scenario;

use self::{
    compare::Finding,
    guest::Guest,
    kernel::{Flavour, Kernel},
    qemu::{Machine, Nic},
};
use xtask_common::{
    machine,
    parity::{PARITY, Parity, scenario_names, scenario_path},
    setup,
};

/// The kernel whose driver the fixtures record.
const RECORDED_KERNEL: &str = "6.12";
/// The most informative scenarios for their time.
const QUICK: [&str; 5] = ["fom-active", "fom-follow", "primary-always", "prio-set", "delays"];
/// Scenarios that run concurrently in the guest: they mostly wait.
const AT_A_TIME: u32 = 4;
/// Far longer than all scenarios take on a busy machine.
const LIMIT: Duration = Duration::from_secs(3600);
/// The limit for one emulated test program.
const TESTS_LIMIT: Duration = Duration::from_secs(3600);
/// Test programs that take seven minutes and more in the guest, the longest first.
const LONGEST: [&str; 4] = ["conformance", "faults", "life", "adoption"];
const QUICK_LIMIT: Duration = Duration::from_secs(210);

/// Programs that only this verb calls, and the Debian packages that contain them.
const TOOLS: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("cpio", "cpio"),
    ("busybox", "busybox-static"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("lz4", "lz4"),
];

/// Further programs that benchmarks in the guest call.
const BENCH_TOOLS: [(&str, &str); 1] = [("teamnl", "libteam-utils")];

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    compare: CompareArguments,
}

#[derive(Subcommand)]
enum Verb {
    /// Runs the tests in network namespaces inside the guest
    Tests(TestArguments),
    /// Bonds of emulated NICs that filter: received frames before and after failovers
    Nics(NicsArguments),
    /// Lists the kernels that Debian offers here
    Kernels,
}

#[derive(Args)]
struct CompareArguments {
    /// Version of a Debian kernel or the beginning of one, or `newest`
    #[arg(long, default_value = RECORDED_KERNEL)]
    kernel: String,
    /// Only this scenario of tests/fixtures/driver; may be repeated
    #[arg(long, value_name = "NAME")]
    script: Vec<String>,
    /// Only the most informative scenarios, within four minutes
    #[arg(long, conflicts_with = "script")]
    quick: bool,
    /// Writes the driver's records into tests/fixtures/driver
    #[arg(long)]
    record: bool,
    /// Processors of the guest
    #[arg(long, default_value_t = 2)]
    cpus: u32,
}

#[derive(Args)]
struct TestArguments {
    /// Version of a Debian kernel or the beginning of one, or `newest`
    #[arg(long, default_value = RECORDED_KERNEL)]
    kernel: String,
    /// Concurrent guests, with a test program in each [default: one for each processor here]
    #[arg(long)]
    guests: Option<NonZeroUsize>,
    /// Only the test programs of these names
    #[arg(long = "program", value_name = "NAME")]
    programs: Vec<String>,
    /// For the test runner: a filter, --test-threads, --nocapture, ...
    #[arg(last = true)]
    runner: Vec<String>,
}

#[derive(Args)]
struct NicsArguments {
    /// Version of a Debian kernel or the beginning of one, or `newest`
    #[arg(long, default_value = RECORDED_KERNEL)]
    kernel: String,
    /// What QEMU emulates
    #[arg(long, default_value = "e1000e")]
    nic: Nic,
    /// Processors of the guest
    #[arg(long, default_value_t = 2)]
    cpus: u32,
}

/// Compares the driver with xbond in a guest, or runs test programs there.
///
/// # Errors
/// A program is missing, a kernel cannot be fetched, the guest does not boot, or its output is no result.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    setup::ensure_tools(&TOOLS)?;
    match &arguments.verb {
        None => compare(&arguments.compare),
        Some(Verb::Tests(arguments)) => tests(arguments),
        Some(Verb::Nics(arguments)) => nics(arguments),
        Some(Verb::Kernels) => {
            kernel::offered(Flavour::Cloud)?.iter().for_each(|version| println!("{version}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Returns the directory of kernels and guests.
fn cache() -> Result<PathBuf> {
    let cache = machine::target()?.join("vm");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    Ok(cache)
}

fn compare(arguments: &CompareArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let names = match (&arguments.script[..], arguments.quick) {
        ([], true) => QUICK.map(str::to_owned).to_vec(),
        ([], false) => scenario_names()?,
        (names, _) => names.to_vec(),
    };
    let kernel = Kernel::provide(&arguments.kernel, Flavour::Cloud)?;
    let is_recorded = kernel.version.starts_with(&format!("{RECORDED_KERNEL}."));
    if arguments.record {
        ensure!(is_recorded, "the fixtures are of {RECORDED_KERNEL}, not of {}", kernel.version);
    }
    let (xbond, program) = build("parity")?;
    let mut comparison = Comparison {
        kernel,
        fixture: if is_recorded { compare::Fixture::OfThisKernel } else { compare::Fixture::OfAnother },
        parity: Parity::read()?,
        xbond,
        program,
        cpus: arguments.cpus,
        limit: if arguments.quick { QUICK_LIMIT } else { LIMIT },
        record: arguments.record,
        scenarios: BTreeMap::new(),
    };
    for name in &names {
        comparison.scenarios.insert(name.clone(), Scenario::read(&scenario_path(name))?);
    }

    let mut findings = comparison.run(&names)?;
    let again: Vec<String> =
        findings.iter().filter(|(_, found)| is_bad(found)).map(|(name, _)| name.clone()).collect();
    if !again.is_empty() && !arguments.record && !arguments.quick {
        // Events of milliseconds take seconds when the emulating machine is busy.
        println!("once more, since they differ: {}", again.join(", "));
        findings.extend(comparison.run(&again)?);
    }
    let findings: Vec<(&String, &Finding)> =
        findings.iter().flat_map(|(name, found)| found.iter().map(move |finding| (name, finding))).collect();
    let mut bad = 0;
    for (name, finding) in &findings {
        println!("{name}: {finding}");
        bad += usize::from(finding.is_failure());
    }
    println!(
        "vm: {} on {}: {} scenarios, {} steps, {} differences listed in {PARITY}, {bad} not; {} s",
        if bad == 0 { "same" } else { "DIFFERENT" },
        comparison.kernel.version,
        names.len(),
        comparison.scenarios.values().map(|scenario| scenario.cases.len()).sum::<usize>(),
        findings.len() - bad,
        start.elapsed().as_secs()
    );
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Scenarios that are run with both implementations.
struct Comparison {
    kernel: Kernel,
    fixture: compare::Fixture,
    parity: Parity,
    xbond: PathBuf,
    program: PathBuf,
    cpus: u32,
    limit: Duration,
    record: bool,
    scenarios: BTreeMap<String, Scenario>,
}

impl Comparison {
    /// Boots a guest for these scenarios; returns the findings for each.
    fn run(&mut self, names: &[String]) -> Result<BTreeMap<String, Vec<Finding>>> {
        let guest = Guest::of(&self.kernel)?;
        guest.add_program(&self.xbond, "bin/xbond")?;
        guest.add_program(&self.program, "bin/parity")?;
        for name in names {
            guest.add_file(&scenario_path(name), &format!("scenarios/{name}.txt"))?;
        }
        // The longest first, so that none runs alone at the end.
        let mut longest: Vec<_> = names.iter().map(|name| (self.scenarios[name].duration(), name)).collect();
        longest.sort();
        let files = longest.iter().rev().map(|(_, name)| format!("/scenarios/{name}.txt"));
        let files: Vec<String> = files.collect();
        guest.job(&format!("parity {AT_A_TIME} {}", files.join(" ")))?;
        let machine = Machine {
            kernel: &self.kernel,
            guest,
            name: "parity",
            cpus: self.cpus,
            limit: self.limit,
            nics: None,
        };
        let records = compare::read(&machine.run()?.lines);
        names.iter().map(|name| Ok((name.clone(), self.findings(name, &records)?))).collect()
    }

    fn findings(&mut self, name: &str, records: &compare::AllRecords) -> Result<Vec<Finding>> {
        let scenario = self.scenarios.get_mut(name).with_context(|| format!("no scenario {name}"))?;
        let of = |who| records.of(who, name, scenario.cases.len());
        let not_done = |who, error: anyhow::Error| Finding::NotDone { who, reason: error.to_string() };
        let (driver, ours) = match (of("driver"), of("xbond")) {
            (Ok(driver), Ok(ours)) => (driver, ours),
            (driver, ours) => {
                let driver = driver.err().map(|error| not_done("driver", error));
                let ours = ours.err().map(|error| not_done("xbond", error));
                return Ok(driver.into_iter().chain(ours).collect());
            }
        };
        if self.record {
            compare::record(scenario, driver, ours);
            let path = scenario_path(name);
            fs::write(&path, scenario.to_string())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(compare::scenario(scenario, (driver, ours), &self.parity, self.fixture))
    }
}

fn is_bad(findings: &[Finding]) -> bool {
    findings.iter().any(Finding::is_failure)
}

/// Builds xbond, and a program that runs in the guest. Optimised: otherwise reading the kernel's types takes 20
/// seconds in emulation.
fn build(program: &str) -> Result<(PathBuf, PathBuf)> {
    let build = ["build", "--release", "--package", "xbond-tests", "--bin", program];
    machine::run_well(machine::cargo().args(build))?;
    Ok((machine::xbond()?, machine::target()?.join("release").join(program)))
}

/// Runs the program in a guest, which prints a line for each bond; those of the driver's bonds are for comparison.
fn nics(arguments: &NicsArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let nic = arguments.nic;
    qemu::check(nic)?;
    let kernel = Kernel::provide(&arguments.kernel, Flavour::Full)?;
    let guest = Guest::of(&kernel)?;
    let (xbond, program) = build("nics")?;
    guest.add_program(&xbond, "bin/xbond")?;
    guest.add_program(&program, "bin/nics")?;
    // An e1000e only has generic XDP.
    let datapaths = if nic == Nic::Igb { "tc xdp" } else { "tc" };
    guest.job(&format!("nics eth0 eth1 eth2 {datapaths}"))?;
    let machine = Machine {
        kernel: &kernel,
        guest,
        name: nic.name(),
        cpus: arguments.cpus,
        limit: LIMIT,
        nics: Some(nic),
    };
    let exit = machine.run()?.exit;
    let verdict = if exit == 0 { "everything is received" } else { "FAILED" };
    let seconds = start.elapsed().as_secs();
    println!("vm: nics: {verdict} by {} on {}; {seconds} s", nic.name(), kernel.version);
    Ok(if exit == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs each test program in its own guest: emulated guests crash at times, and then the results of other programs
/// are kept.
fn tests(arguments: &TestArguments) -> Result<ExitCode> {
    let start = Instant::now();
    let kernel = Kernel::provide(&arguments.kernel, Flavour::Cloud)?;
    let xbond = machine::xbond()?;
    let mut programs = test_programs(&arguments.programs)?;
    // The longest first, so that none runs alone at the end.
    programs.sort_by_key(|(name, _)| LONGEST.iter().position(|long| long == name).unwrap_or(LONGEST.len()));

    let guests = arguments.guests.map_or_else(thread::available_parallelism, Ok)?;
    let (queue, failed) = (Mutex::new(programs.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..guests.get() {
            scope.spawn(|| {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                while let Some((name, program)) = next() {
                    let verdict = match test(&kernel, &xbond, (name, program), &arguments.runner) {
                        Ok(0) => continue,
                        Ok(_) => name.clone(),
                        Err(error) => format!("{name} ({error:#})"),
                    };
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(verdict);
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let verdict =
        if failed.is_empty() { "passed".to_owned() } else { format!("FAILED: {}", failed.join(", ")) };
    let (programs, seconds) = (programs.len(), start.elapsed().as_secs());
    println!("vm: tests of {programs} programs on {}: {verdict}; {seconds} s", kernel.version);
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a test program in its own guest; returns its exit status.
fn test(kernel: &Kernel, xbond: &Path, (name, program): (&str, &Path), runner: &[String]) -> Result<i32> {
    let guest = Guest::of(kernel)?;
    guest.add_program(xbond, "bin/xbond")?;
    guest.add_program(program, "bin/tests")?;
    // Tests find these at the path at which they were compiled.
    for tree in ["tests/fixtures", "docs", "packaging"] {
        let tree = machine::root().join(tree);
        guest.add_tree(&tree, tree.strip_prefix("/")?)?;
    }
    guest.job(&job("tests", runner.iter().map(String::as_str))?)?;
    // With two processors QEMU 7.2 at times runs code that the other one has just changed, and the guest crashes.
    let machine = Machine { kernel, guest, name, cpus: 1, limit: TESTS_LIMIT, nics: None };
    Ok(machine.run()?.exit)
}

/// Runs a benchmark's program in a guest with the driver; returns the kernel's version, and the program's output.
///
/// # Errors
/// A program is missing, the kernel cannot be fetched, or the benchmark fails in the guest.
pub fn bench(kernel: &str, program: &Path, arguments: &[&str]) -> Result<(String, Vec<String>)> {
    setup::ensure_tools(&TOOLS)?;
    setup::ensure_tools(&BENCH_TOOLS)?;
    let kernel = Kernel::provide(kernel, Flavour::Cloud)?;
    let guest = Guest::of(&kernel)?;
    guest.add_program(&machine::xbond()?, "bin/xbond")?;
    guest.add_program(program, "bin/bench")?;
    for (tool, _) in BENCH_TOOLS {
        guest.add_program(
            &machine::find(tool).with_context(|| format!("no {tool}"))?,
            &format!("bin/{tool}"),
        )?;
    }
    guest.job(&job("bench", arguments.iter().copied())?)?;
    let version = kernel.version.clone();
    let result =
        Machine { kernel: &kernel, guest, name: "bench", cpus: 2, limit: LIMIT, nics: None }.run()?;
    ensure!(result.exit == 0, "the benchmark failed in the guest: exit status {}", result.exit);
    Ok((version, result.lines))
}

/// Returns the line by which the guest's shell runs a program with these words.
fn job<'a>(program: &str, words: impl Iterator<Item = &'a str>) -> Result<String> {
    let words = shlex::try_join(words).context("an argument that no shell can pass on")?;
    Ok(format!("XBOND_BIN=/bin/xbond {program} {words}"))
}

/// Builds these programs of `cargo test -p xbond-tests`, or all if none is named; returns them by name. Optimised, for
/// an emulated processor.
fn test_programs(wanted: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = machine::cargo();
    cargo.args(["test", "--no-run", "--release", "--package", "xbond-tests", "--message-format=json"]);
    cargo.args(wanted.iter().flat_map(|name| ["--test", name]));
    let output = cargo.stderr(std::process::Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "`cargo test --no-run`: {}", output.status);
    let mut programs = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        // Programs that are no tests have none of their own.
        let is_test = message["profile"]["test"] == true && message["target"]["kind"] != json!(["bin"]);
        if let (true, Some(path)) = (is_test, message["executable"].as_str()) {
            let name = message["target"]["name"].as_str().context("a test program without a name")?;
            programs.push((name.to_owned(), Path::new(path).to_owned()));
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::job;

    #[test]
    fn words_reach_a_program_of_the_guest_unchanged() {
        let words = ["--only", "carrier lost (driver and xbond)", "it's"];
        let line = job("bench", words.into_iter()).unwrap();
        assert_eq!(shlex::split(&line).unwrap()[2..], words);
        assert!(job("bench", ["\0"].into_iter()).is_err());
    }
}
