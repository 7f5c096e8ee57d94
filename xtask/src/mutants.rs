//! `cargo xtask mutants`: plants mistakes, one at a time, and shows which test catches each.
//!
//! A mistake is a patch in tests/mutants. The lines before its first `diff` say what it is, and which
//! commands of cargo look for it:
//!
//! ```text
//! Plants: the guard takes the first slave that is alive, usable or not
//! Looks: test -p bond-common --lib guard
//! Looks: run -p xbond-simulator -- --seed 1 --years 0.01
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use xtask_common::machine;

/// Where patches are, in the checkout.
const PATCHES: &str = "tests/mutants";
/// Where the copy of the tree and its builds are, in the target directory.
const PLACE: &str = "mutants";

#[derive(Args)]
pub struct MutantsArguments {
    /// Names of patches in tests/mutants; without one all of them
    names: Vec<String>,
}

/// A planted mistake.
#[derive(Debug, PartialEq, Eq)]
struct Mutant {
    name: String,
    path: PathBuf,
    plants: String,
    /// Arguments of cargo.
    looks: Vec<String>,
}

impl Mutant {
    fn parse(path: PathBuf, text: &str) -> Result<Self> {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let head = text.lines().take_while(|line| !line.starts_with("diff "));
        let (mut plants, mut looks) = (None, Vec::new());
        for line in head {
            if let Some(text) = line.strip_prefix("Plants: ") {
                plants = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("Looks: ") {
                looks.push(text.to_owned());
            }
        }
        ensure!(!looks.is_empty(), "{name}: no command looks for it; add a line `Looks: test -p ...`");
        Ok(Self {
            plants: plants.with_context(|| format!("{name}: what it plants is not said"))?,
            name,
            path,
            looks,
        })
    }

    /// Returns all of them, in the order of their names.
    fn all() -> Result<Vec<Self>> {
        let directory = machine::root().join(PATCHES);
        let entries = directory.read_dir().with_context(|| format!("cannot list {}", directory.display()))?;
        let mut mutants = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "patch") {
                let text =
                    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                mutants.push(Self::parse(path, &text)?);
            }
        }
        mutants.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(mutants)
    }
}

/// Plants the mistakes, and prints a table of what has caught each.
///
/// # Errors
/// A patch does not apply, or the copy of the tree cannot be made. A mistake that no command catches gives exit code 1.
pub fn run(arguments: &MutantsArguments) -> Result<ExitCode> {
    let mut mutants = Mutant::all()?;
    for name in &arguments.names {
        ensure!(mutants.iter().any(|mutant| mutant.name == *name), "{PATCHES}/{name}.patch does not exist");
    }
    mutants.retain(|mutant| arguments.names.is_empty() || arguments.names.contains(&mutant.name));
    let place = machine::target()?.join(PLACE);
    let tree = copy_tree(&place)?;
    let mut rows = Vec::new();
    for mutant in &mutants {
        eprintln!("{}: {}", mutant.name, mutant.plants);
        git(&tree, ["apply", &mutant.path.to_string_lossy()])?;
        let caught = mutant.looks.iter().map(|look| Ok((look, catches(&place, &tree, look)?)));
        let caught = caught.collect::<Result<Vec<_>>>();
        git(&tree, ["checkout", "--", "."])?;
        rows.push((mutant, caught?));
    }
    println!("| mutant | what it plants | caught by |\n|---|---|---|");
    let mut all = true;
    for (mutant, caught) in &rows {
        let by: Vec<_> =
            caught.iter().filter(|(_, caught)| *caught).map(|(look, _)| format!("`{look}`")).collect();
        all &= !by.is_empty();
        let by = if by.is_empty() { "**nothing**".to_owned() } else { by.join(", ") };
        println!("| `{}` | {} | {by} |", mutant.name, mutant.plants);
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Clones the checkout as it is committed. Files that did not change keep their times, so that builds are short.
fn copy_tree(place: &Path) -> Result<PathBuf> {
    let (root, tree) = (machine::root(), place.join("tree"));
    if !tree.join(".git").exists() {
        fs::create_dir_all(place).with_context(|| format!("cannot create {}", place.display()))?;
        git(root, ["clone", "--quiet", "--shared", ".", &tree.to_string_lossy()])?;
    }
    git(&tree, ["fetch", "--quiet", "origin", "HEAD"])?;
    git(&tree, ["checkout", "--quiet", "--detach", "--force", "FETCH_HEAD"])?;
    Ok(tree)
}

fn git<const N: usize>(directory: &Path, words: [&str; N]) -> Result<()> {
    let status = Command::new("git").args(words).current_dir(directory).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "git {} in {}: {status}", words.join(" "), directory.display());
    Ok(())
}

/// Returns whether what cargo runs fails. It has to be built first: a mistake that the compiler finds is none.
fn catches(place: &Path, tree: &Path, look: &str) -> Result<bool> {
    let words: Vec<_> = look.split(' ').collect();
    let own: Vec<_> = words.iter().copied().take_while(|word| *word != "--").collect();
    let mut build = cargo(place, tree);
    match own.first() {
        Some(&"test") => build.args(&own).arg("--no-run"),
        _ => build.arg("build").args(own.iter().skip(1)),
    };
    machine::run_well(&mut build)?;
    let status = machine::run(cargo(place, tree).args(&words).stdout(Stdio::null()).stderr(Stdio::null()))?;
    Ok(!status.success())
}

fn cargo(place: &Path, tree: &Path) -> Command {
    let mut cargo = machine::cargo();
    cargo.current_dir(tree).env("CARGO_TARGET_DIR", place.join("target"));
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_patch_still_applies() {
        for mutant in Mutant::all().unwrap() {
            let check = ["apply", "--check", &mutant.path.to_string_lossy()];
            git(machine::root(), check).unwrap_or_else(|error| panic!("{}: {error}", mutant.name));
        }
    }

    #[test]
    fn a_patch_says_what_it_plants_and_who_looks() {
        let text =
            "Plants: a mistake\nLooks: test -p bond-core\nLooks: run -p x -- --seed 1\ndiff --git a/b b/b\n";
        let mutant = Mutant::parse("tests/mutants/one.patch".into(), text).unwrap();
        assert_eq!((mutant.name.as_str(), mutant.plants.as_str()), ("one", "a mistake"));
        assert_eq!(mutant.looks, ["test -p bond-core", "run -p x -- --seed 1"]);
        for text in ["Plants: a mistake\ndiff", "Looks: test\ndiff"] {
            assert!(Mutant::parse("one.patch".into(), text).is_err(), "{text}");
        }
    }
}
