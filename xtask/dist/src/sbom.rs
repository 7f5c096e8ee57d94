//! The list of what xbond is built of (CycloneDX), by cargo-cyclonedx.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use xtask_common::machine;

use crate::version;

/// The stem of the files that cargo-cyclonedx writes next to each Cargo.toml of the workspace.
const STEM: &str = "xbond-sbom";
/// What xbond cannot be without.
const EXPECTED: [&str; 4] = ["aya", "bond-common", "bond-core", "tokio"];

/// Writes the list of the crates that bond-user is built of, for the static program's target or the host's alike, and
/// returns its path.
///
/// # Errors
/// cargo-cyclonedx cannot be installed, or fails; the list lacks a crate that it must have.
pub fn build(packages: &Path) -> Result<PathBuf> {
    if machine::find("cargo-cyclonedx").is_none() {
        machine::run_well(machine::cargo().args(["install", "--locked", "cargo-cyclonedx"]))?;
    }
    let mut cyclonedx = machine::command("cargo-cyclonedx");
    cyclonedx.args(["cyclonedx", "--format", "json", "--spec-version", "1.5", "--override-filename", STEM]);
    cyclonedx.args(["--manifest-path", "bond-user/Cargo.toml", "--quiet"]);
    cyclonedx.env("SOURCE_DATE_EPOCH", crate::source_date().to_string());
    let result = machine::run_well(&mut cyclonedx);
    let content = fs::read_to_string(machine::root().join("bond-user").join(format!("{STEM}.json")));
    for member in members()? {
        let _ = fs::remove_file(member.join(format!("{STEM}.json")));
    }
    result?;
    let content = content.context("cargo-cyclonedx wrote no file for bond-user")?;
    check(&content)?;
    let content = without_place(&content, &machine::root().to_string_lossy());
    let path = packages.join(format!("xbond-{}.cdx.json", version()));
    crate::write(&path, content)?;
    Ok(path)
}

/// Names the crates of the workspace by where they are in the checkout, not by where that is on this machine.
fn without_place(content: &str, root: &str) -> String {
    content.replace(&format!("file://{root}"), "file:///xbond")
}

/// Returns the directories of the crates of the workspace.
fn members() -> Result<Vec<PathBuf>> {
    let output = machine::cargo().args(["metadata", "--no-deps", "--format-version", "1"]).output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let manifests = packages.iter().filter_map(|package| package["manifest_path"].as_str());
    Ok(manifests.filter_map(|path| Path::new(path).parent().map(Path::to_owned)).collect())
}

/// Checks that a list is of xbond, and whole.
fn check(content: &str) -> Result<()> {
    let list: Value = serde_json::from_str(content).context("cargo-cyclonedx wrote no JSON")?;
    let components = list["components"].as_array().context("the list of crates has no components")?;
    let names: Vec<_> = components.iter().filter_map(|component| component["name"].as_str()).collect();
    for expected in EXPECTED {
        if !names.contains(&expected) {
            bail!("the list of crates lacks {expected}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check, without_place};

    #[test]
    fn a_list_that_lacks_a_crate_is_refused() {
        let list = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|name| format!("{{\"name\":\"{name}\"}}")).collect();
            format!("{{\"components\":[{}]}}", names.join(","))
        };
        assert!(check(&list(&super::EXPECTED)).is_ok());
        let error = check(&list(&super::EXPECTED[1..])).unwrap_err();
        assert_eq!(error.to_string(), "the list of crates lacks aya");
        assert!(check("{}").is_err());
    }

    #[test]
    fn a_list_does_not_say_where_the_checkout_is() {
        let content = "\"path+file:///home/a/xbond/bond-user#0.1.0\"";
        assert_eq!(without_place(content, "/home/a/xbond"), "\"path+file:///xbond/bond-user#0.1.0\"");
    }
}
