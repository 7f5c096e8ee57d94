//! `cargo xtask fuzz`: searches for inputs that make a parser, a decoder or a program of the data plane fail.
//!
//! The targets are unit tests called `fuzz::NAME` (crate xbond-fuzz). They are built a second time, with the compiler's coverage
//! counters, by the compiler that everything is built with; dependencies are those of `cargo test`.

use std::{
    collections::VecDeque,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use xtask_common::{machine, setup};

/// Inputs by which a target is known, one a file: `fuzz/corpus/NAME`.
const CORPUS: &str = "fuzz/corpus";
/// What the search finds, and its logs, below cargo's target directory.
const FOUND: &str = "fuzz";
/// How long one input may take: seconds.
const LONGEST_INPUT: u32 = 25;
/// Bytes of the longest input.
const LARGEST_INPUT: u32 = 8192;

#[derive(Args)]
pub struct FuzzArguments {
    /// Names of targets; all if there is none
    targets: Vec<String>,
    /// How long each target is searched
    #[arg(long, value_name = "N", default_value_t = 10, conflicts_with = "runs")]
    seconds: u32,
    /// How many inputs each target gets, however long that takes
    #[arg(long, value_name = "N")]
    runs: Option<u64>,
    /// Build with optimisation, with all checks: for long searches
    #[arg(long)]
    optimized: bool,
    /// List the targets
    #[arg(long)]
    list: bool,
}

/// A target: the program that has it, and the name of its test.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    name: String,
    program: PathBuf,
    test: String,
}

/// The result of a search.
struct Searched {
    name: String,
    took: Duration,
    inputs: u64,
    edges: u64,
    /// Inputs that failed; empty if none did.
    failed: Vec<PathBuf>,
    is_well: bool,
}

/// Searches the targets, as many at once as there are processors, and prints a table.
///
/// # Errors
/// The build fails, or a target does not exist. A target that fails gives exit code 1.
pub fn run(arguments: &FuzzArguments) -> Result<ExitCode> {
    setup::ensure()?;
    setup::ensure_tools(&[("c++", "g++")])?;
    let mut targets = targets(&programs(arguments.optimized)?)?;
    for name in &arguments.targets {
        ensure!(
            targets.iter().any(|target| target.name == *name),
            "{name}: no such target: {}",
            names(&targets)
        );
    }
    targets.retain(|target| arguments.targets.is_empty() || arguments.targets.contains(&target.name));
    if arguments.list {
        targets.iter().for_each(|target| println!("{}", target.name));
        return Ok(ExitCode::SUCCESS);
    }
    let found = machine::target()?.join(FOUND);
    let results = search_all(targets, |target| search(target, arguments, &found))?;
    println!("{:<16} {:>12} {:>7} {:>9} {:>7}", "target", "inputs", "s", "inputs/s", "edges");
    results.iter().for_each(|result| println!("{result}"));
    let is_well = results.iter().all(|result| result.is_well);
    for result in results.iter().filter(|result| !result.is_well) {
        report(result, &found)?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn names(targets: &[Target]) -> String {
    targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// Builds the tests with coverage counters, and returns their programs.
fn programs(optimized: bool) -> Result<Vec<PathBuf>> {
    let mut cargo = machine::cargo();
    cargo.args([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
        "--features",
        "xbond-fuzz/engine",
    ]);
    // Not xbond-tests: its programs do not contain the engine, whose counters they would need.
    for package in ["bond-common", "bond-core", "bond-user", "xbond-fuzz"] {
        cargo.args(["--package", package]);
    }
    cargo.arg("--lib");
    if optimized {
        cargo.args(["--profile", "fuzz"]).env("XBOND_FUZZ_OPT_LEVEL", "3");
    }
    cargo.env("RUSTC_WORKSPACE_WRAPPER", machine::root().join("fuzz/rustc.sh")).stderr(Stdio::inherit());
    eprintln!("$ cargo test --no-run, with coverage counters");
    let output = cargo.output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the targets cannot be built: {}", output.status);
    let text = String::from_utf8(output.stdout).context("what cargo says is no text")?;
    Ok(text.lines().filter_map(executable).collect())
}

/// Returns the test program that a message of cargo's is about.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    message.get("executable")?.as_str().filter(|_| is_test).map(PathBuf::from)
}

/// Returns the targets of the programs: tests in a module `fuzz` that have a corpus.
fn targets(programs: &[PathBuf]) -> Result<Vec<Target>> {
    let mut targets = Vec::new();
    for program in programs {
        let output = Command::new(program).args(["--list", "--format", "terse"]).output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for test in text.lines().filter_map(|line| line.strip_suffix(": test")) {
            let Some(name) = target_name(test) else { continue };
            if machine::root().join(CORPUS).join(name).is_dir() {
                targets.push(Target { name: name.into(), program: program.clone(), test: test.into() });
            }
        }
    }
    targets.sort_by(|one, other| one.name.cmp(&other.name));
    ensure!(!targets.is_empty(), "no program has a target");
    Ok(targets)
}

/// Returns the name of the target that a test is.
fn target_name(test: &str) -> Option<&str> {
    let (path, name) = test.rsplit_once("::")?;
    (path == "fuzz" || path.ends_with("::fuzz")).then_some(name)
}

/// Searches all targets, as many at once as there are processors.
fn search_all(
    targets: Vec<Target>,
    search: impl Fn(&Target) -> Result<Searched> + Sync,
) -> Result<Vec<Searched>> {
    let queue = Mutex::new(VecDeque::from(targets));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut results = thread::scope(|scope| -> Result<Vec<Searched>> {
        let work = || -> Result<Vec<Searched>> {
            let mut results = Vec::new();
            while let Some(target) = next() {
                results.push(search(&target)?);
            }
            Ok(results)
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for worker in workers {
            let Ok(results) = worker.join() else { bail!("a search panicked") };
            all.extend(results?);
        }
        Ok(all)
    })?;
    results.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(results)
}

/// Searches one target. What libFuzzer and the target print goes to a log.
fn search(target: &Target, arguments: &FuzzArguments, found: &Path) -> Result<Searched> {
    let (grown, failed) = (found.join("corpus").join(&target.name), found.join("failed").join(&target.name));
    for directory in [&grown, &failed] {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    let limit = match arguments.runs {
        Some(runs) => format!("-runs={runs}"),
        None => format!("-max_total_time={}", arguments.seconds),
    };
    let words = [
        limit,
        format!("-artifact_prefix={}/", failed.display()),
        format!("-timeout={LONGEST_INPUT}"),
        format!("-max_len={LARGEST_INPUT}"),
        "-rss_limit_mb=4096".into(),
        "-print_final_stats=1".into(),
        grown.display().to_string(),
        machine::root().join(CORPUS).join(&target.name).display().to_string(),
    ];
    let log = log_of(found, &target.name);
    let file = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    let start = Instant::now();
    let mut command = Command::new(&target.program);
    command.args(["--exact", &target.test, "--nocapture", "--test-threads=1"]);
    command.env("XBOND_FUZZ_ARGUMENTS", words.join("\n")).env("RUST_BACKTRACE", "0");
    command.stdout(file.try_clone()?).stderr(file).current_dir(machine::root());
    let status = command.status().with_context(|| format!("cannot run {}", target.program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let (inputs, edges) = figures(&text);
    let is_well = status.success() && inputs > 0;
    let mut inputs_that_fail: Vec<_> = fs::read_dir(&failed)?.flatten().map(|entry| entry.path()).collect();
    inputs_that_fail.retain(|_| !is_well);
    let (name, took) = (target.name.clone(), start.elapsed());
    eprintln!("{name}: {inputs} inputs in {} s{}", took.as_secs(), if is_well { "" } else { ": FAILED" });
    Ok(Searched { name, took, inputs, edges, failed: inputs_that_fail, is_well })
}

fn log_of(found: &Path, name: &str) -> PathBuf {
    found.join(format!("{name}.log"))
}

/// Returns how many inputs libFuzzer has run, and how many edges they covered, as it has written them.
fn figures(log: &str) -> (u64, u64) {
    let number = |text: &str| text.trim().split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let after =
        |mark: &str| log.rsplit_once(mark).map_or(0, |(_, rest)| number(rest.lines().next().unwrap_or("")));
    (after("stat::number_of_executed_units:"), after("cov: "))
}

/// Prints what is known of a failure, and makes its inputs part of the corpus.
fn report(result: &Searched, found: &Path) -> Result<()> {
    let log = log_of(found, &result.name);
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let first = text.find("panicked at").unwrap_or_default();
    let lines = text.get(first..).unwrap_or_default().lines().take(8).collect::<Vec<_>>().join("\n");
    println!("\n{}: FAILED; {}\n{lines}", result.name, log.display());
    for input in &result.failed {
        let Some(name) = input.file_name() else { continue };
        let kept = machine::root().join(CORPUS).join(&result.name).join(name);
        fs::rename(input, &kept).or_else(|_| fs::copy(input, &kept).map(drop))?;
        println!("cargo test repeats it: {}", kept.display());
    }
    Ok(())
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, took, inputs, edges, is_well, .. } = self;
        let rate = *inputs as f64 / took.as_secs_f64().max(0.001);
        let end = if *is_well { "" } else { "  FAILED" };
        write!(f, "{name:<16} {inputs:>12} {:>7} {rate:>9.0} {edges:>7}{end}", took.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_log() {
        let log = "#2\tINITED cov: 12 ft: 12\n#9\tNEW    cov: 77 ft: 80 corp: 3\n#100 DONE   cov: 90 ft: 99 corp: 3/9b\n\
                   stat::number_of_executed_units: 100\nstat::average_exec_per_sec:     50\n";
        assert_eq!(figures(log), (100, 90));
        assert_eq!(figures("thread panicked at x"), (0, 0));
    }

    #[test]
    fn targets_are_tests_of_a_module_fuzz() {
        assert_eq!(target_name("config::dialect::fuzz::netplan"), Some("netplan"));
        assert_eq!(target_name("fuzz::frames"), Some("frames"));
        for test in ["config::nofuzz::netplan", "fuzz", "engine::run"] {
            assert_eq!(target_name(test), None);
        }
    }

    #[test]
    fn programs_are_those_of_tests() {
        let message = |test, executable| {
            format!(
                r#"{{"reason":"compiler-artifact","profile":{{"test":{test}}},"executable":{executable}}}"#
            )
        };
        assert_eq!(executable(&message(true, "\"/t/x\"")), Some(PathBuf::from("/t/x")));
        for other in [message(false, "\"/t/x\""), message(true, "null"), "{}".into(), "note".into()] {
            assert_eq!(executable(&other), None);
        }
    }

    #[test]
    fn each_corpus_belongs_to_a_target() {
        let mut names = Vec::new();
        for entry in fs::read_dir(machine::root().join(CORPUS)).unwrap() {
            names.push(entry.unwrap().file_name().into_string().unwrap());
        }
        let mut grep = Command::new("grep");
        grep.args(["-rhoE", r#"target\("[a-z_]+""#, "--include=*.rs", "bond-common/src", "bond-core/src"]);
        let sources = grep.args(["bond-user/src", "tests/tests"]).current_dir(machine::root()).output();
        let text = String::from_utf8(sources.unwrap().stdout).unwrap();
        let known: Vec<_> = text.lines().filter_map(|line| line.split('"').nth(1)).collect();
        for name in names {
            assert!(known.contains(&name.as_str()), "{name} has a corpus and no target");
        }
    }
}
