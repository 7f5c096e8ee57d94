//! The Debian package, by cargo-deb.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use xtask_common::machine;

const UNIT: &str = "packaging/systemd/xbond.service";
/// The highest exposure in `systemd-analyze security`, in tenths; a lower value means a more restricted service.
const EXPOSURE_LIMIT: u32 = 15;

/// Builds xbond_VERSION_ARCH.deb of what [`crate::contents::make`] made.
///
/// # Errors
/// cargo-deb cannot be installed, or fails.
pub fn build(packages: &Path) -> Result<PathBuf> {
    if machine::find("cargo-deb").is_none() {
        machine::run_well(machine::cargo().args(["install", "--locked", "cargo-deb"]))?;
    }
    let mut deb = machine::command("cargo-deb");
    deb.args(["--package", "bond-user", "--no-build", "--no-strip", "--output"]).arg(packages);
    let output = deb.output().context("cannot run cargo-deb")?;
    ensure!(output.status.success(), "cargo-deb: {}", String::from_utf8_lossy(&output.stderr));
    // The last line of its output is the path.
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text.lines().rfind(|line| line.ends_with(".deb")).context("cargo-deb names no package")?;
    Ok(PathBuf::from(path))
}

/// Checks the exposure of the unit, if this machine has systemd.
///
/// # Errors
/// The unit is wrong, or less restricted than it was.
pub fn check_unit() -> Result<()> {
    if machine::find("systemd-analyze").is_none() {
        println!("skipped: the unit's exposure: there is no systemd-analyze");
        return Ok(());
    }
    let mut analyze = machine::command("systemd-analyze");
    analyze.args(["security", "--no-pager", "--offline=true"]);
    analyze.arg(format!("--threshold={EXPOSURE_LIMIT}")).arg(UNIT);
    let output = analyze.output().context("cannot run systemd-analyze")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let verdict = text.lines().last().unwrap_or_default();
    println!("{verdict}");
    ensure!(output.status.success(), "{UNIT}: its exposure is above {EXPOSURE_LIMIT} tenths: {text}");
    Ok(())
}
