//! Roots with a Debian release of their own.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use crate::{machine, setup};

/// Makes a minimal Debian with these packages in a directory, unless it is there already.
///
/// # Errors
/// debootstrap cannot be installed, or fails.
pub fn root(directory: &Path, suite: &str, packages: &[&str]) -> Result<()> {
    if directory.join("etc/debian_version").exists() {
        return Ok(());
    }
    setup::ensure_tools(&[("debootstrap", "debootstrap")])?;
    let new = directory.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    let mut debootstrap = machine::command("debootstrap");
    debootstrap.args(["--variant=minbase", &format!("--include={}", packages.join(",")), suite]);
    machine::run_well(debootstrap.arg(&new).args(mirror()))?;
    fs::rename(&new, directory).with_context(|| format!("cannot rename {}", new.display()))
}

/// Returns the mirror of this machine's packages, if apt knows it.
fn mirror() -> Option<String> {
    let mut apt = machine::command("apt-get");
    let output = apt.args(["indextargets", "--format", "$(REPO_URI)"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find(|uri| uri.contains("debian") && !uri.contains("security")).map(str::to_owned)
}
