//! `cargo xtask release-check`: runs everything that `.ci/run` omits because it takes long, one after the other.
//!
//! The parts keep both processors of a small machine busy, or measure times: two at once would take as long, and make
//! figures and timing tests worthless.

use std::{
    fmt,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use xtask_common::{machine, setup};

/// The kernel on whose driver the scenarios were recorded.
const COMPARED: &str = "6.12";
/// The oldest kernel that xbond supports, the ones of most hosts, and the newest that Debian offers.
const TESTED: [&str; 4] = ["6.1", "6.12", "6.18", "newest"];

/// How long each fuzz target is searched: seconds.
const FUZZED: &str = "300";

/// Test programs with results that depend on the kernel: programs, hooks, devices, routes. The others test the
/// agent's own logic; the guest of one kernel and CI's machine run them.
const OF_THE_KERNEL: [&str; 23] = [
    "prog_run",
    "verifier",
    "tick",
    "clock",
    "clock_arp",
    "paths",
    "behind",
    "misdirected",
    "drain",
    "scenario",
    "failover",
    "traffic",
    "guard",
    "netkit",
    "hooks",
    "link_local",
    "slaves",
    "adoption",
    "appearance",
    "host",
    "unknown_links",
    "layer3",
    "path",
];

#[derive(Args)]
pub struct ReleaseCheckArguments {
    /// Kernels of the guests in which the tests run; may be repeated [default: 6.1, 6.12, 6.18, newest]
    #[arg(long = "kernel", value_name = "VERSION")]
    kernels: Vec<String>,
    /// Kernel of the guest in which xbond and the driver are compared, and all tests run
    #[arg(long, value_name = "VERSION", default_value = COMPARED)]
    compared: String,
    /// All tests on each kernel, not only those that depend on it
    #[arg(long)]
    whole: bool,
    /// Only this part; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
}

/// A part, in the order in which they run: those that fail soonest come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The lab of the reference scenario under each fail_over_mac: run
    Lab,
    /// The packages, and the life of the Debian package in a clean root: dist --all --test
    Dist,
    /// The fuzz targets, each for five minutes: fuzz
    Fuzz,
    /// Whether all benchmarks still work: bench --quick
    Bench,
    /// xbond and the driver compared: vm
    Vm,
    /// Emulated NICs that filter: vm nics
    Nics,
    /// The namespace tests on each kernel: vm tests
    VmTests,
}

/// The result of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Passed,
    /// With this exit status.
    Failed(String),
}

struct Ran {
    command: String,
    end: End,
    took: Duration,
}

/// Runs the checks of a release, and prints a table of their results.
///
/// # Errors
/// The process is not root, or a check cannot be started. A failed check gives exit code 1.
pub fn run(arguments: &ReleaseCheckArguments) -> Result<ExitCode> {
    setup::ensure()?;
    ensure!(machine::is_root(), "release-check makes network namespaces: run it as root");
    let mut ran = Vec::new();
    for words in commands(arguments) {
        ran.push(carry_out(&words)?);
    }
    println!("\n{}", table(&ran));
    let passed = ran.iter().all(|ran| ran.end == End::Passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the words after `cargo xtask` of each command.
fn commands(arguments: &ReleaseCheckArguments) -> Vec<Vec<String>> {
    let tested: Vec<&str> = match &arguments.kernels[..] {
        [] => TESTED.to_vec(),
        kernels => kernels.iter().map(String::as_str).collect(),
    };
    let wanted = |part: &Part| arguments.only.is_empty() || arguments.only.contains(part);
    let parts = Part::value_variants().iter().filter(|part| wanted(part));
    let lines = parts.flat_map(|part| match part {
        Part::Lab => vec![vec!["run"]],
        Part::Dist => vec![vec!["dist", "--all", "--test"]],
        Part::Fuzz => vec![vec!["fuzz", "--optimized", "--seconds", FUZZED]],
        Part::Bench => vec![vec!["bench", "--quick"]],
        Part::Vm => vec![vec!["vm", "--kernel", &arguments.compared]],
        Part::Nics => vec![vec!["vm", "nics", "--kernel", &arguments.compared]],
        Part::VmTests => tested.iter().map(|kernel| vm_tests(kernel, arguments)).collect(),
    });
    lines.map(|words| words.into_iter().map(str::to_owned).collect()).collect()
}

fn vm_tests<'a>(kernel: &'a str, arguments: &ReleaseCheckArguments) -> Vec<&'a str> {
    let mut words = vec!["vm", "tests", "--kernel", kernel];
    if !arguments.whole && kernel != arguments.compared {
        words.extend(OF_THE_KERNEL.iter().flat_map(|program| ["--program", program]));
    }
    words
}

/// Runs this program with these words. A failure of the program is a result; a failure to start it is an error.
fn carry_out(words: &[String]) -> Result<Ran> {
    // The names of the programs would fill the table.
    let named = words.iter().take_while(|word| *word != "--program");
    let command = named.map(String::as_str).collect::<Vec<_>>().join(" ");
    println!("\n== cargo xtask {}", words.join(" "));
    let start = Instant::now();
    let program = std::env::current_exe().context("cannot find the path of this program")?;
    let status = machine::command(&program.to_string_lossy()).args(words).status();
    let status = status.with_context(|| format!("cannot run cargo xtask {command}"))?;
    let end = if status.success() { End::Passed } else { End::Failed(status.to_string()) };
    println!("== cargo xtask {command}: {end}, {} s", start.elapsed().as_secs());
    Ok(Ran { command, end, took: start.elapsed() })
}

fn table(ran: &[Ran]) -> String {
    let mut text = String::from("release-check:\n");
    for Ran { command, end, took } in ran {
        let (minutes, seconds) = (took.as_secs() / 60, took.as_secs() % 60);
        text.push_str(&format!("  {command:<32} {minutes:>4} min {seconds:02} s  {end}\n"));
    }
    let (all, failed) = (ran.len(), ran.iter().filter(|ran| ran.end != End::Passed).count());
    let minutes = ran.iter().map(|ran| ran.took.as_secs()).sum::<u64>() / 60;
    text.push_str(&format!("{all} parts, {failed} failed, {minutes} min"));
    text
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed(how) => write!(f, "FAILED ({how})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(kernels: &[&str], only: &[Part]) -> Vec<String> {
        let kernels = kernels.iter().map(ToString::to_string).collect();
        let arguments =
            ReleaseCheckArguments { kernels, compared: COMPARED.into(), whole: false, only: only.to_vec() };
        commands(&arguments).iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn all_parts_run_unless_some_are_named() {
        let all = lines(&[], &[]);
        assert_eq!(all.len(), 6 + TESTED.len());
        assert_eq!(all[..3], ["run", "dist --all --test", "fuzz --optimized --seconds 300"]);
        let some = lines(&["6.1", COMPARED], &[Part::VmTests]);
        assert!(some[0].starts_with("vm tests --kernel 6.1 --program prog_run --program "), "{some:?}");
        assert_eq!(some[1..], ["vm tests --kernel 6.12"]);
    }

    #[test]
    fn programs_of_the_kernel_are_test_programs() {
        let tests = machine::root().join("tests/tests");
        let is_program = |name: &str| {
            [format!("{name}.rs"), format!("{name}/main.rs")].iter().any(|file| tests.join(file).is_file())
        };
        let unknown: Vec<_> = OF_THE_KERNEL.iter().filter(|name| !is_program(name)).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn the_table_has_a_line_for_each_part_and_counts_failures() {
        let ran = |command: &str, end, seconds| Ran {
            command: command.into(),
            end,
            took: Duration::from_secs(seconds),
        };
        let text = table(&[
            ran("dist --test", End::Passed, 75),
            ran("vm --kernel 6.12", End::Failed("exit status: 1".into()), 600),
        ]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "  dist --test                         1 min 15 s  passed");
        assert_eq!(lines[2], "  vm --kernel 6.12                   10 min 00 s  FAILED (exit status: 1)");
        assert_eq!(lines[3..], ["2 parts, 1 failed, 11 min"]);
    }
}
