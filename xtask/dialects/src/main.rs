//! `cargo xtask test dialects`: compares what `xbond import` makes of each sample in bond-user/tests/dialects with what the
//! program makes of it that reads such files, in a Debian of its own (target/dialects).
//!
//! A program that prints what it has understood (netplan, NetworkManager, ifupdown) is asked to; what it prints is imported,
//! too, and the two must be the same. networkd prints which lines it ignores; xbond must name each of them.

mod compare;
mod known;
mod tool;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use xtask_common::{debian, machine, setup};

use self::{known::Known, tool::Tool};

/// The Debian release whose programs are compared, and their packages. debootstrap takes no alternatives of a
/// dependency: dbus is one of NetworkManager.
const SUITE: &str = "trixie";
const PACKAGES: [&str; 6] = ["dbus", "ifupdown", "iproute2", "netplan.io", "network-manager", "systemd"];

/// Compares what xbond import reads with what netplan, networkd, NetworkManager and ifupdown do.
#[derive(Parser)]
#[command(bin_name = "cargo xtask test dialects")]
struct Cli {
    /// Only this dialect; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Tool>,
    /// Print each comparison
    #[arg(short, long)]
    verbose: bool,
}

/// A directory with a sample, and how it is named.
struct Sample {
    tool: Tool,
    name: String,
    path: PathBuf,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    setup::ensure()?;
    ensure!(machine::is_root(), "a Debian of its own takes root");
    machine::run_well(machine::cargo().args(["build", "--package", "bond-user", "--bin", "xbond"]))?;
    let xbond = machine::target()?.join("debug/xbond");
    let root = machine::root().join("target/dialects").join(SUITE);
    fs::create_dir_all(root.with_file_name("")).context("cannot make target/dialects")?;
    debian::root(&root, SUITE, &PACKAGES)?;

    let mut known = Known::read()?;
    let (mut same, mut explained, mut failed) = (0, 0, 0);
    for sample in samples(&cli.only)? {
        let title = format!("{}/{}", sample.tool, sample.name);
        let differences = compare::compare(&xbond, &root, &sample).with_context(|| title.clone())?;
        let (expected, others): (Vec<_>, Vec<_>) =
            differences.into_iter().partition(|difference| known.explains(&sample, difference));
        for difference in &others {
            println!("{title}: {difference}");
        }
        if cli.verbose {
            expected.iter().for_each(|difference| println!("{title}: known: {difference}"));
        }
        match (expected.is_empty(), others.is_empty()) {
            (_, false) => failed += 1,
            (false, true) => explained += 1,
            (true, true) => same += 1,
        }
    }
    let unused = if cli.only.is_empty() { known.unused() } else { Vec::new() };
    unused.iter().for_each(|row| println!("no sample shows this known difference any more: {row}"));
    println!("{same} samples are the same, {explained} differ as known, {failed} differ");
    Ok(if failed == 0 && unused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn samples(only: &[Tool]) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for tool in Tool::ALL.into_iter().filter(|tool| only.is_empty() || only.contains(tool)) {
        let directory = machine::root().join("bond-user/tests/dialects").join(tool.dialect());
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                samples.push(Sample { tool, name: name_of(&path), path });
            }
        }
    }
    samples.sort_by(|one, other| (one.tool, &one.name).cmp(&(other.tool, &other.name)));
    Ok(samples)
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
