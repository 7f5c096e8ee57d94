//! `cargo xtask dist`: builds a Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use xbond_tests::{Lab, PEER_V4};

use xtask_common::{machine, setup};

const UNIT: &str = "packaging/systemd/xbond.service";
/// The highest exposure in `systemd-analyze security`, in tenths; a lower value means a more restricted service.
const EXPOSURE_LIMIT: u32 = 15;
/// The Debian release in which the package is tested.
const SUITE: &str = "bookworm";

/// Shells, and the names of their completions.
const SHELLS: [(&str, &str); 3] = [("bash", "xbond.bash"), ("zsh", "_xbond"), ("fish", "xbond.fish")];

#[derive(Args)]
pub struct DistArguments {
    /// Also install, run, upgrade and remove it in a clean Debian, in a network namespace
    #[arg(long)]
    test: bool,
}

/// Builds the release package, and tests it if that is requested.
///
/// # Errors
/// A tool is missing, the build fails, the unit is wrong, or the package does not install.
pub fn run(arguments: &DistArguments) -> Result<ExitCode> {
    setup::ensure()?;
    check_unit()?;
    let package = build()?;
    println!("{}", package.display());
    if arguments.test {
        try_out(&package)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds target/debian/xbond_VERSION_ARCH.deb.
fn build() -> Result<PathBuf> {
    let xbond = machine::xbond()?;
    let dist = machine::root().join("target/dist");
    for directory in ["man", "completions"] {
        fs::create_dir_all(dist.join(directory))?;
    }
    machine::run_well(machine::command("strip").arg("-o").arg(dist.join("xbond")).arg(&xbond))?;
    let page = output(&xbond, &["man"])?;
    let verbs = verbs(&page);
    ensure!(!verbs.is_empty(), "`xbond man` names no verbs");
    fs::write(dist.join("man/xbond.8"), &page)?;
    for verb in verbs {
        fs::write(dist.join(format!("man/xbond-{verb}.8")), output(&xbond, &["man", &verb])?)?;
    }
    for (shell, name) in SHELLS {
        fs::write(dist.join("completions").join(name), output(&xbond, &["completions", shell])?)?;
    }

    if machine::find("cargo-deb").is_none() {
        machine::run_well(machine::cargo().args(["install", "--locked", "cargo-deb"]))?;
    }
    let debian = machine::root().join("target/debian");
    let mut deb = machine::command("cargo-deb");
    deb.args(["--package", "bond-user", "--no-build", "--no-strip", "--output"]).arg(&debian);
    let output = deb.output().context("cannot run cargo-deb")?;
    ensure!(output.status.success(), "cargo-deb: {}", String::from_utf8_lossy(&output.stderr));
    // The last line of its output is the path.
    let text = String::from_utf8_lossy(&output.stdout);
    let path = text.lines().rfind(|line| line.ends_with(".deb")).context("cargo-deb names no package")?;
    Ok(PathBuf::from(path))
}

/// Returns the verbs that the manual page of xbond refers to, as `xbond\-add\-slave(8)`.
fn verbs(page: &str) -> Vec<String> {
    let page = page.replace("\\-", "-");
    let names = page.split("xbond-").skip(1).filter_map(|rest| rest.split_once("(8)"));
    let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    names.map(|(name, _)| name).filter(is_name).map(str::to_owned).collect()
}

fn output(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = machine::command(&program.to_string_lossy()).args(arguments).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        bail!("xbond {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("xbond printed no text")
}

/// Checks the exposure of the unit, if this machine has systemd.
fn check_unit() -> Result<()> {
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

/// Installs, runs, upgrades and removes the package in a clean root, between two NICs and a peer.
fn try_out(package: &Path) -> Result<()> {
    ensure!(machine::is_root(), "trying the package takes root");
    setup::ensure_tools(&[("debootstrap", "debootstrap"), ("unshare", "util-linux"), ("curl", "curl")])?;
    let pristine = machine::root().join("target/dist").join(SUITE);
    if !pristine.join("etc/debian_version").exists() {
        let new = pristine.with_extension("new");
        let _ = fs::remove_dir_all(&new);
        let mut debootstrap = machine::command("debootstrap");
        debootstrap
            .args(["--variant=minbase", "--include=systemd-standalone-sysusers", SUITE])
            .arg(&new)
            .args(mirror());
        machine::run_well(&mut debootstrap)?;
        fs::rename(&new, &pristine)?;
    }
    let root = tempfile::tempdir().context("cannot make a directory for the root")?;
    machine::run_well(machine::command("cp").arg("-a").arg(pristine.join(".")).arg(root.path()))?;
    let lab = Lab::scenario()?;
    let mut test = lab.host.command("unshare");
    test.args(["--mount", "--", "sh"]).arg(machine::root().join("packaging/deb/test.sh"));
    test.arg(root.path()).arg(package).arg(PEER_V4.to_string());
    machine::run_well(&mut test)
}

/// Returns the mirror of this machine's packages, if apt knows it.
fn mirror() -> Option<String> {
    let mut apt = machine::command("apt-get");
    let output = apt.args(["indextargets", "--format", "$(REPO_URI)"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().find(|uri| uri.contains("debian") && !uri.contains("security")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::verbs;

    #[test]
    fn verbs_are_those_that_the_manual_page_names() {
        let page = ".TP\nxbond\\-run(8)\nBring up\n.TP\nxbond\\-add\\-slave(8)\nEnslave; see xbond-port\n";
        assert_eq!(verbs(page), ["run", "add-slave"]);
    }
}
