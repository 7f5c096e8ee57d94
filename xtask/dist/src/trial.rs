//! `cargo xtask dist --test`: what was made is installed and run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use xbond_tests::{Lab, PEER_V4};
use xtask_common::{debian, machine, setup};

use crate::{Made, red_hat, version};

/// The Debian release in which the package is tested.
const SUITE: &str = "bookworm";
/// What only one of the packages has: Debian's file of licences, and those of rpm.
const ONE_SIDED: [&str; 2] = ["/usr/share/doc/xbond/copyright", red_hat::LICENCE_DIRECTORY];

/// Tries everything that was made.
///
/// # Errors
/// The process is not root, a tool is missing, or something does not work.
pub fn run(made: &Made, packages: &Path) -> Result<()> {
    ensure!(machine::is_root(), "trying the packages takes root");
    machine::run_well(
        machine::command("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(packages),
    )?;
    if let Some(program) = &made.static_program {
        static_program(program)?;
    }
    if let Some(package) = &made.rpm {
        rpm(package, &made.debian)?;
    }
    if let Some((tar, layout)) = &made.image {
        image(tar, layout)?;
    }
    debian_package(&made.debian)
}

/// Checks that the program needs no library, and runs it in an empty root.
fn static_program(program: &Path) -> Result<()> {
    setup::ensure_tools(&[("file", "file")])?;
    let kind = text(machine::command("file").arg("--brief").arg(program))?;
    ensure!(kind.contains("static"), "{} is not static: {kind}", program.display());
    let libraries = text(machine::command("ldd").arg(program))?;
    ensure!(libraries.contains("statically linked"), "{} has libraries: {libraries}", program.display());
    let root = tempfile::tempdir().context("cannot make a directory for the root")?;
    fs::copy(program, root.path().join("xbond")).context("cannot copy the static program")?;
    prints_version(root.path(), "/xbond")
}

fn prints_version(root: &Path, program: &str) -> Result<()> {
    let printed = text(machine::command("chroot").arg(root).args([program, "--version"]))?;
    let expected = format!("xbond {}", version());
    ensure!(printed.starts_with(&expected), "{program} --version prints {printed:?}, not {expected:?}");
    Ok(())
}

/// Checks the rpm package with rpm: its digests, its files compared with those of the Debian package, and that it can
/// be installed in an empty root.
fn rpm(package: &Path, debian: &Path) -> Result<()> {
    setup::ensure_tools(&[("rpm", "rpm"), ("dpkg-deb", "dpkg")])?;
    machine::run_well(machine::command("rpm").args(["--checksig", "--nosignature"]).arg(package))?;
    let listed = text(machine::command("rpm").args(["--query", "--list", "--package"]).arg(package))?;
    // Directories are no files; only the one of the configuration is listed.
    let listed: BTreeSet<String> =
        listed.lines().filter(|path| *path != "/etc/xbond").map(str::to_owned).collect();
    let contents =
        text(machine::command("sh").args(["-c", "dpkg-deb --fsys-tarfile \"$0\" | tar -t"]).arg(debian))?;
    let difference = difference(&contents, &listed);
    ensure!(difference.is_empty(), "the packages do not contain the same files: {difference:?}");

    let root = tempfile::tempdir().context("cannot make a directory for the root")?;
    let mut install = machine::command("rpm");
    install.arg("--root").arg(root.path());
    install.args(["--install", "--force-debian", "--nodeps", "--noscripts"]).arg(package);
    machine::run_well(&mut install)?;
    prints_version(root.path(), "/usr/bin/xbond")?;
    let mut verify = machine::command("rpm");
    verify.arg("--root").arg(root.path()).args(["--verify", "--nodeps", "--noscripts", "xbond"]);
    machine::run_well(&mut verify)?;
    for phase in ["postinstall", "preuninstall", "postuninstall"] {
        let query = format!("--queryformat=%{{{}}}", phase_tag(phase));
        let script = text(machine::command("rpm").args(["--query", &query, "--package"]).arg(package))?;
        let mut check = machine::command("sh");
        check.args(["-n", "-c", &script]);
        machine::run_well(&mut check).with_context(|| format!("the script of {phase}"))?;
    }
    Ok(())
}

fn phase_tag(phase: &str) -> &'static str {
    match phase {
        "postinstall" => "POSTIN",
        "preuninstall" => "PREUN",
        _ => "POSTUN",
    }
}

/// Returns the files that only one of the packages has, apart from paths that differ between distributions.
/// `debian` are the lines of `tar -t`.
fn difference(debian: &str, rpm: &BTreeSet<String>) -> Vec<String> {
    let mut expected = BTreeSet::new();
    for line in debian.lines().filter(|line| !line.ends_with('/')) {
        let path = format!("/{}", line.trim_start_matches("./"));
        let moved = red_hat::ELSEWHERE.iter().find_map(|(from, to)| Some((path.strip_prefix(from)?, to)));
        match moved {
            Some((rest, Some(to))) => expected.insert(format!("{to}{rest}")),
            Some((_, None)) => false,
            None => expected.insert(path),
        };
    }
    let only = expected.symmetric_difference(rpm);
    only.filter(|path| !ONE_SIDED.iter().any(|known| path.starts_with(known))).cloned().collect()
}

/// Unpacks the image's layer, and runs the agent in this root, between two NICs and a peer.
fn image(tar: &Path, layout: &Path) -> Result<()> {
    setup::ensure_tools(&[("skopeo", "skopeo"), ("unshare", "util-linux")])?;
    for transport in [format!("oci-archive:{}", tar.display()), format!("oci:{}", layout.display())] {
        let inspected = text(machine::command("skopeo").args(["inspect", "--config", &transport]))?;
        ensure!(inspected.contains("/usr/bin/xbond"), "skopeo inspect {transport}: {inspected}");
    }
    // skopeo verifies the digests of what it copies.
    let copy = tempfile::tempdir().context("cannot make a directory for the copy")?;
    let mut skopeo = machine::command("skopeo");
    skopeo.args(["copy", "--insecure-policy", "--quiet", &format!("oci-archive:{}", tar.display())]);
    machine::run_well(skopeo.arg(format!("dir:{}", copy.path().display())))?;

    let root = tempfile::tempdir().context("cannot make a directory for the root")?;
    let layer = layer(copy.path())?;
    machine::run_well(machine::command("tar").arg("-xzf").arg(layer).arg("-C").arg(root.path()))?;
    prints_version(root.path(), "/usr/bin/xbond")?;
    let lab = Lab::scenario()?;
    let mut test = lab.host.command("unshare");
    test.args(["--mount", "--", "sh"]).arg(machine::root().join("packaging/oci/test.sh"));
    test.arg(root.path()).arg(PEER_V4.to_string());
    machine::run_well(&mut test)
}

/// Returns the layer in a directory of skopeo: the file that its manifest names.
fn layer(copy: &Path) -> Result<PathBuf> {
    let manifest: serde_json::Value = serde_json::from_slice(&crate::read(&copy.join("manifest.json"))?)?;
    let digest = manifest["layers"][0]["digest"].as_str().context("the image has no layer")?;
    Ok(copy.join(digest.trim_start_matches("sha256:")))
}

/// Installs, runs, upgrades and removes the Debian package in a clean root, between two NICs and a peer.
fn debian_package(package: &Path) -> Result<()> {
    setup::ensure_tools(&[("unshare", "util-linux"), ("curl", "curl")])?;
    let root = clean_debian()?;
    let lab = Lab::scenario()?;
    let mut test = lab.host.command("unshare");
    test.args(["--mount", "--", "sh"]).arg(machine::root().join("packaging/deb/test.sh"));
    test.arg(root.path()).arg(package).arg(PEER_V4.to_string());
    machine::run_well(&mut test)
}

/// Returns a copy of a Debian that is made once.
fn clean_debian() -> Result<TempDir> {
    let pristine = machine::root().join("target/dist").join(SUITE);
    debian::root(&pristine, SUITE, &["systemd-standalone-sysusers"])?;
    let root = tempfile::tempdir().context("cannot make a directory for the root")?;
    machine::run_well(machine::command("cp").arg("-a").arg(pristine.join(".")).arg(root.path()))?;
    Ok(root)
}

/// Runs a command that must succeed, and returns what it printed.
fn text(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {errors}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_only_one_package_has_are_a_difference() {
        let debian = "./\n./usr/bin/\n./usr/bin/xbond\n./etc/network/if-pre-up.d/xbond\n\
            ./usr/share/zsh/vendor-completions/_xbond\n./usr/share/doc/xbond/copyright\n";
        let rpm = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let same = [
            "/usr/bin/xbond",
            "/usr/share/licenses/xbond/LICENSE-MIT",
            "/usr/share/zsh/site-functions/_xbond",
        ];
        assert!(difference(debian, &rpm(&same)).is_empty());
        assert_eq!(difference(debian, &rpm(&same[1..])), ["/usr/bin/xbond"]);
        let more = [&same[..], &["/usr/bin/other"]].concat();
        assert_eq!(difference(debian, &rpm(&more)), ["/usr/bin/other"]);
    }
}
