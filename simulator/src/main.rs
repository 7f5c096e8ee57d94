//! `cargo xtask simulate`: runs plans of seeds, and shrinks what fails.

use std::{
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};
use xbond_simulator::{plan::Plan, report, run, shrink::shrink, world::check::Violation};

/// Simulates xbond's agents in virtual time, with everything that can go wrong
#[derive(Parser)]
#[command(name = "cargo xtask simulate", bin_name = "cargo xtask simulate")]
struct Arguments {
    /// The first seed; alone it is the only one
    #[arg(long)]
    seed: Option<u64>,
    /// Runs seed after seed until so many years have passed in the simulation
    #[arg(long, conflicts_with = "events")]
    years: Option<f64>,
    /// The number of bonds; without it most machines have one
    #[arg(long)]
    bonds: Option<usize>,
    /// The events of the seed that happen, by their numbers; without it all of them
    #[arg(long, value_delimiter = ',', requires = "seed")]
    events: Option<Vec<usize>>,
    /// Prints what happens; with RUST_LOG=info also what the agents log
    #[arg(long)]
    verbose: bool,
    /// Prints a failure as it is found
    #[arg(long)]
    no_shrink: bool,
    /// The number of threads
    #[arg(long, default_value_t = 1)]
    jobs: usize,
}

const MILLISECONDS_PER_YEAR: f64 = 365.25 * 86_400_000.0;
/// What is run without `--seed` and `--years`.
const DEFAULT_YEARS: f64 = 7.0 / 365.25;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.verbose {
        let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned());
        let filter: Targets = wanted.parse().with_context(|| format!("RUST_LOG={wanted}"))?;
        let lines = tracing_subscriber::fmt::layer().without_time();
        tracing_subscriber::registry().with(lines).with(filter).init();
    }
    match (arguments.seed, arguments.years) {
        (Some(seed), None) => one(&arguments, seed),
        (seed, years) => many(&arguments, seed.unwrap_or(1), years.unwrap_or(DEFAULT_YEARS)),
    }
}

fn one(arguments: &Arguments, seed: u64) -> Result<ExitCode> {
    report::set_verbose(arguments.verbose);
    let plan = Plan::new(seed, arguments.bonds);
    let plan = arguments.events.as_ref().map_or_else(|| plan.clone(), |events| plan.with_events(events));
    let outcome = run(&plan)?;
    let Some(violation) = outcome.violation else {
        println!(
            "seed {seed}: {} s, {} failovers, fingerprint {:016x}",
            outcome.time / 1000,
            outcome.failovers,
            outcome.fingerprint
        );
        return Ok(ExitCode::SUCCESS);
    };
    report::set_verbose(false);
    fail(arguments, &plan, violation)?;
    Ok(ExitCode::FAILURE)
}

fn many(arguments: &Arguments, first: u64, years: f64) -> Result<ExitCode> {
    let wanted = (years * MILLISECONDS_PER_YEAR) as u64;
    let (next, time, failovers) = (AtomicU64::new(first), AtomicU64::new(0), AtomicU64::new(0));
    let (has_failed, failure) = (AtomicBool::new(false), Mutex::new(None));
    let began = Instant::now();
    let work = || -> Result<()> {
        while time.load(Ordering::Relaxed) < wanted && !has_failed.load(Ordering::Relaxed) {
            let plan = Plan::new(next.fetch_add(1, Ordering::Relaxed), arguments.bonds);
            let outcome = run(&plan)?;
            time.fetch_add(outcome.time, Ordering::Relaxed);
            failovers.fetch_add(outcome.failovers, Ordering::Relaxed);
            if let Some(violation) = outcome.violation {
                has_failed.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((plan, violation));
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..arguments.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|_| anyhow::bail!("a thread has panicked")))
    })?;
    let days = time.into_inner() as f64 / 86_400_000.0;
    let seeds = next.into_inner() - first;
    println!(
        "{seeds} seeds from {first} on, {days:.2} days, {} failovers, in {:.1} s",
        failovers.into_inner(),
        began.elapsed().as_secs_f64()
    );
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        None => Ok(ExitCode::SUCCESS),
        Some((plan, violation)) => {
            fail(arguments, &plan, violation)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Prints a failure, and the command that replays it.
fn fail(arguments: &Arguments, plan: &Plan, violation: Violation) -> Result<()> {
    println!("seed {}: {violation}", plan.seed);
    let (plan, violation) =
        if arguments.no_shrink { (plan.clone(), violation) } else { shrink(plan, violation)? };
    println!("{}", plan.setup.file());
    for timed in &plan.events {
        println!("{:>9}.{:03} #{} {}", timed.at / 1000, timed.at % 1000, timed.number, timed.event);
    }
    println!("{violation}");
    let numbers: Vec<_> = plan.events.iter().map(|timed| timed.number.to_string()).collect();
    let bonds = arguments.bonds.map_or_else(String::new, |bonds| format!(" --bonds {bonds}"));
    println!("cargo xtask simulate --seed {}{bonds} --events {}", plan.seed, numbers.join(","));
    Ok(())
}
