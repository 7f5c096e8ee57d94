//! `cargo xtask bench`: measures the cost of xbond, stores the results in docs/bench and shows them in
//! docs/BENCHMARKS.md.

mod agent;
mod clock;
mod failover;
mod hotpath;
mod plot;
mod record;
mod report;

use std::{
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use record::Run;
use xbond_tests::figures::Measured;

use xtask_common::{machine, setup};
use xtask_vm as vm;

/// Measures what xbond costs, and draws docs/BENCHMARKS.md.
#[derive(Parser)]
#[command(bin_name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    options: Options,
}

#[derive(Subcommand)]
enum Verb {
    /// Cost of the BPF programs per packet, compared with an empty program and a bare redirect
    Hotpath(Options),
    /// TCP and UDP of a host, over a bare slave and over bonds
    Host(Placed),
    /// Losses and durations of failovers
    Failover(failover::Arguments),
    /// Laps of the clock in the kernel while CPUs and network are busy
    Clock(clock::ClockArguments),
    /// Packets forwarded between a port and the wire
    Forward(Placed),
    /// Time of the engine from an event to its commands
    Agent(Options),
    /// All of these (the default)
    All(Options),
    /// Draws docs/BENCHMARKS.md from the results in docs/bench
    Report,
}

#[derive(Args, Clone, Default)]
struct Options {
    /// Only checks that everything works: one round each, and no figure is stored
    #[arg(long)]
    quick: bool,
    /// Writes the results into this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What is special about this run, for the report
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

/// Options of a benchmark that can also run with the kernel's drivers: the machine to use.
#[derive(Args, Clone, Default)]
struct Placed {
    #[command(flatten)]
    options: Options,
    /// Runs in an emulated machine with a kernel that also has bonding drivers
    #[arg(long)]
    vm: bool,
    /// Kernel of that machine: version of a Debian kernel or the beginning of one, or `newest`
    #[arg(long, default_value = "6.12", requires = "vm")]
    kernel: String,
}

fn main() -> Result<ExitCode> {
    let arguments = Cli::parse();
    if let Some(Verb::Report) = arguments.verb {
        return report::run();
    }
    setup::ensure()?;
    ensure!(machine::is_root(), "the benchmarks need root to make network namespaces and load BPF programs");
    let runs = match &arguments.verb {
        None => all(&arguments.options)?,
        Some(Verb::All(options)) => all(options)?,
        Some(Verb::Hotpath(options)) => vec![hotpath::run(options)?],
        Some(Verb::Host(placed)) => vec![run_where("host", placed, &[])?],
        Some(Verb::Failover(arguments)) => vec![failover::run(arguments)?],
        Some(Verb::Clock(arguments)) => vec![clock::run(arguments)?],
        Some(Verb::Forward(placed)) => vec![run_where("forward", placed, &[])?],
        Some(Verb::Agent(options)) => vec![agent::run(options)?],
        Some(Verb::Report) => bail!("drawn above"),
    };
    let missed = runs.iter().flat_map(Run::missed).count();
    if missed > 0 {
        println!("bench: {missed} figures miss what they are to reach");
    }
    Ok(ExitCode::SUCCESS)
}

fn all(options: &Options) -> Result<Vec<Run>> {
    // The file is for all of them.
    let each = Options { json: None, ..options.clone() };
    let here = Placed { options: each.clone(), ..Placed::default() };
    let failover = failover::Arguments::of(each.clone());
    let clock = clock::ClockArguments::of(each.clone());
    let runs = vec![
        hotpath::run(&each)?,
        run_where("host", &here, &[])?,
        run_where("forward", &here, &[])?,
        agent::run(&each)?,
        failover::run(&failover)?,
        clock::run(&clock)?,
    ];
    record::write_json(options.json.as_deref(), &runs)?;
    Ok(runs)
}

/// Runs a benchmark's program with these `arguments` here, or in the guest together with the kernel's drivers: only what
/// the guest's kernel has is compared, and only within the guest.
fn run_where(verb: &str, placed: &Placed, arguments: &[&str]) -> Result<Run> {
    let Placed { options, vm, kernel } = placed;
    let arguments = options.quick.then_some("--quick").into_iter().chain(arguments.iter().copied());
    if !vm {
        let mut command = Command::new(program(verb)?);
        command.env("XBOND_BIN", machine::xbond()?).args(arguments);
        return conclude(verb, options, measure(&mut command)?);
    }
    let words: Vec<_> = ["--drivers"].into_iter().chain(arguments).collect();
    let (kernel, lines) = vm::bench(kernel, &program(verb)?, &words)?;
    let result = lines.iter().find_map(|line| Measured::parse(line));
    let measured = result.context("the benchmark in the guest ended without a result")??;
    let run = Run::here(verb, options, measured)?.in_guest(kernel);
    run.conclude(options)?;
    Ok(run)
}

/// Prints the results of this machine, and stores them.
fn conclude(verb: &str, options: &Options, measured: Measured) -> Result<Run> {
    let run = Run::here(verb, options, measured)?;
    run.conclude(options)?;
    Ok(run)
}

/// Builds a benchmark of the tests' crate, optimised, and returns its path.
fn program(name: &str) -> Result<PathBuf> {
    let mut cargo = machine::cargo();
    cargo.args(["bench", "--no-run", "--package", "xbond-tests", "--message-format=json", "--bench", name]);
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "`cargo bench --no-run --bench {name}`: {}", output.status);
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut programs = messages
        .filter(|message| message["target"]["name"] == name)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from));
    programs.next_back().with_context(|| format!("cargo built no benchmark {name}"))
}

/// Runs a benchmark's program and returns its result.
fn measure(command: &mut Command) -> Result<Measured> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the benchmark")?;
    let output = child.stdout.take().context("no pipe from the benchmark")?;
    let mut measured = None;
    for line in BufReader::new(output).lines() {
        let line = line.context("cannot read what the benchmark says")?;
        match Measured::parse(&line) {
            Some(result) => measured = Some(result.context("the benchmark's result")?),
            None => println!("{line}"),
        }
    }
    let status = child.wait().context("cannot wait for the benchmark")?;
    ensure!(status.success(), "the benchmark failed: {status}");
    measured.context("the benchmark ended without a result")
}
