//! What packages contain: the list in bond-user/Cargo.toml, which cargo-deb reads, and the files that are made for it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use flate2::{Compression, GzBuilder};
use serde::Deserialize;
use xtask_common::machine;

use crate::{read, write};

/// Shells, and the names of their completions.
const SHELLS: [(&str, &str); 3] = [("bash", "xbond.bash"), ("zsh", "_xbond"), ("fish", "xbond.fish")];

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asset {
    pub source: PathBuf,
    /// Where it is installed, from `/` on.
    pub path: String,
    pub mode: u16,
    /// Whether upgrades keep the administrator's changes.
    pub is_configuration: bool,
}

#[derive(Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Deserialize)]
struct Package {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    deb: Deb,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Deb {
    conf_files: Vec<String>,
    extended_description: String,
    assets: Vec<[String; 3]>,
}

fn manifest() -> Result<Deb> {
    let path = machine::root().join("bond-user/Cargo.toml");
    let text = String::from_utf8(read(&path)?).context("bond-user/Cargo.toml is no text")?;
    let manifest: Manifest = toml::from_str(&text).context("bond-user/Cargo.toml")?;
    Ok(manifest.package.metadata.deb)
}

/// Returns what the package is, in sentences.
///
/// # Errors
/// bond-user/Cargo.toml cannot be read.
pub fn description() -> Result<String> {
    Ok(manifest()?.extended_description.trim().to_owned())
}

/// Returns the files of the packages, each once, in the order of their list.
///
/// # Errors
/// bond-user/Cargo.toml cannot be read, or a file of its list does not exist.
pub fn assets() -> Result<Vec<Asset>> {
    let Deb { conf_files, assets, .. } = manifest()?;
    let mut found = Vec::new();
    for [pattern, target, mode] in &assets {
        let mode = u16::from_str_radix(mode, 8).with_context(|| format!("{pattern}: mode {mode}"))?;
        let full = machine::root().join("bond-user").join(pattern);
        let sources = glob::glob(&full.to_string_lossy())?.collect::<Result<Vec<_>, _>>()?;
        ensure!(!sources.is_empty(), "{pattern}: there is no such file");
        for source in sources.into_iter().filter(|source| source.is_file()) {
            let path = installed_path(target, &source)?;
            let is_configuration = conf_files.contains(&path);
            if !found.iter().any(|asset: &Asset| asset.path == path) {
                found.push(Asset { source, path, mode, is_configuration });
            }
        }
    }
    Ok(found)
}

fn installed_path(target: &str, source: &Path) -> Result<String> {
    if !target.ends_with('/') {
        return Ok(format!("/{target}"));
    }
    let name = source.file_name().with_context(|| format!("{} has no name", source.display()))?;
    Ok(format!("/{target}{}", name.to_string_lossy()))
}

/// Makes the files of the list that are not in the checkout, in target/dist: the stripped program, manual pages and
/// completions.
///
/// # Errors
/// xbond or strip fails.
pub fn make(xbond: &Path) -> Result<()> {
    let dist = machine::root().join("target/dist");
    for directory in ["man", "completions"] {
        fs::create_dir_all(dist.join(directory))?;
    }
    strip(xbond, &dist.join("xbond"))?;
    let page = output(xbond, &["man"])?;
    let verbs = verbs(&page);
    ensure!(!verbs.is_empty(), "`xbond man` names no verbs");
    write(&dist.join("man/xbond.8"), &page)?;
    for verb in verbs {
        write(&dist.join(format!("man/xbond-{verb}.8")), output(xbond, &["man", &verb])?)?;
    }
    for (shell, name) in SHELLS {
        write(&dist.join("completions").join(name), output(xbond, &["completions", shell])?)?;
    }
    Ok(())
}

/// Copies a program without its symbols.
///
/// # Errors
/// strip fails.
pub fn strip(from: &Path, to: &Path) -> Result<()> {
    machine::run_well(machine::command("strip").arg("-o").arg(to).arg(from))
}

/// Returns the content compressed by gzip, without a name and a time.
///
/// # Errors
/// None that depends on the content.
pub fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    writer.write_all(content)?;
    Ok(writer.finish()?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_those_that_the_manual_page_names() {
        let page = ".TP\nxbond\\-run(8)\nBring up\n.TP\nxbond\\-add\\-slave(8)\nEnslave; see xbond-port\n";
        assert_eq!(verbs(page), ["run", "add-slave"]);
    }

    #[test]
    fn a_file_is_installed_in_a_directory_or_under_a_name() {
        let source = Path::new("/checkout/docs/PARITY.md");
        assert_eq!(installed_path("usr/share/doc/xbond/", source).unwrap(), "/usr/share/doc/xbond/PARITY.md");
        assert_eq!(installed_path("usr/bin/xbond", source).unwrap(), "/usr/bin/xbond");
    }

    #[test]
    fn configuration_files_of_the_list_are_in_it() {
        let Deb { conf_files, assets, extended_description } = manifest().unwrap();
        for file in conf_files {
            assert!(assets.iter().any(|[_, target, _]| format!("/{target}") == file), "{file}");
        }
        assert!(!extended_description.is_empty());
    }
}
