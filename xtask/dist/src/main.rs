//! `cargo xtask dist`: what users install, in target/packages: a Debian package, and on request an rpm package, a static
//! program, the image of a container and a list of what xbond is built of.

mod checksums;
mod contents;
mod debian;
mod image;
mod red_hat;
mod sbom;
mod static_program;
mod trial;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use clap::Parser;
use xtask_common::{machine, setup};

/// Makes the Debian package, and what else is asked for, and their SHA256SUMS, in target/packages.
#[derive(Clone, Copy, Debug, Default, Parser)]
#[command(bin_name = "cargo xtask dist")]
struct Cli {
    /// Also a program that needs no library of its machine (musl)
    #[arg(long = "static")]
    static_program: bool,
    /// Also an rpm package, which contains the static program
    #[arg(long)]
    rpm: bool,
    /// Also an image for containers (OCI image layout in a tar), with the static program
    #[arg(long)]
    oci: bool,
    /// Also a list of all crates that xbond is built of (SBOM, CycloneDX)
    #[arg(long)]
    sbom: bool,
    /// All of these
    #[arg(long)]
    all: bool,
    /// Also try what was made: packages are installed, run, upgraded and removed in clean roots, in a network namespace
    #[arg(long)]
    test: bool,
}

impl Cli {
    fn needs_static_program(self) -> bool {
        self.all || self.static_program || self.rpm || self.oci
    }
}

/// The paths of what was made.
#[derive(Debug)]
struct Made {
    debian: PathBuf,
    static_program: Option<PathBuf>,
    rpm: Option<PathBuf>,
    /// The image's tar, and the directory of its layout.
    image: Option<(PathBuf, PathBuf)>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    setup::ensure()?;
    debian::check_unit()?;
    let packages = packages();
    fs::create_dir_all(&packages).with_context(|| format!("cannot create {}", packages.display()))?;

    let xbond = machine::xbond()?;
    contents::make(&xbond)?;
    let debian = debian::build(&packages)?;
    let program = if cli.needs_static_program() { Some(static_program::build()?) } else { None };
    let wanted = |wanted: bool| program.as_deref().filter(|_| wanted || cli.all);
    let made = Made {
        debian,
        static_program: program
            .as_deref()
            .map(|program| static_program::publish(program, &packages))
            .transpose()?,
        rpm: wanted(cli.rpm).map(|program| red_hat::build(program, &packages)).transpose()?,
        image: wanted(cli.oci).map(|program| image::build(program, &packages)).transpose()?,
    };
    if cli.sbom || cli.all {
        sbom::build(&packages)?;
    }
    for name in checksums::write(&packages)? {
        println!("{}", packages.join(name).display());
    }
    if cli.test {
        trial::run(&made, &packages)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the directory of what is made.
fn packages() -> PathBuf {
    machine::root().join("target/packages")
}

/// Returns the version of the workspace. All crates have it.
fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Returns the time of the last commit, in seconds since 1970, or SOURCE_DATE_EPOCH if that is set: two builds of one
/// commit give the same files.
fn source_date() -> u32 {
    if let Some(seconds) = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()) {
        return seconds;
    }
    let output = machine::command("git").args(["log", "-1", "--format=%ct"]).output().ok();
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Returns the content of a file.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file.
fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
