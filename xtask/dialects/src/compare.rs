//! Two imports compared: of a sample, and of what its program makes of it.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use toml::{Table, Value};
use xtask_common::machine;

use crate::{
    Sample,
    tool::{Made, Tool},
};

/// What an import makes of files: its bonds, or the refusal; and its notes.
#[derive(Debug)]
struct Imported {
    bonds: Result<BTreeMap<String, Table>, String>,
    /// All that it printed.
    text: String,
}

/// Returns the differences, one sentence each.
///
/// # Errors
/// A program cannot be run.
pub fn compare(xbond: &Path, root: &Path, sample: &Sample) -> Result<Vec<String>> {
    let ours = import(xbond, sample.tool.dialect(), &sample.tool.paths(&sample.path))?;
    Ok(match sample.tool.run(root, &sample.path)? {
        Made::Ignored(lines) => unnamed(&lines, &ours),
        Made::Refused(why) => match ours.bonds {
            Ok(bonds) if !bonds.is_empty() => vec![format!("refused: {why}; imported: {}", names(&bonds))],
            Ok(_) | Err(_) => Vec::new(),
        },
        Made::Files(dialect, directory) => {
            let theirs = import(xbond, dialect, &[directory.path().to_owned()])?;
            differences(sample.tool, &theirs, &ours)
        }
    })
}

fn import(xbond: &Path, dialect: &str, paths: &[std::path::PathBuf]) -> Result<Imported> {
    let mut command = machine::command(&xbond.to_string_lossy());
    let output = command.args(["import", dialect]).args(paths).output().context("cannot run xbond import")?;
    let (printed, errors) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
    let text = format!("{printed}{errors}");
    if !output.status.success() {
        return Ok(Imported { bonds: Err(errors), text });
    }
    let table: Table = printed.parse().context("xbond import printed no TOML")?;
    let bonds = table.get("bond").and_then(Value::as_table).cloned().unwrap_or_default();
    let bonds = bonds.into_iter().filter_map(|(name, bond)| Some((name, bond.as_table()?.clone())));
    Ok(Imported { bonds: Ok(bonds.collect()), text })
}

fn names(bonds: &BTreeMap<String, Table>) -> String {
    bonds.keys().cloned().collect::<Vec<_>>().join(", ")
}

/// Returns the lines that the program ignores, and the import does not name.
fn unnamed(ignored: &[String], ours: &Imported) -> Vec<String> {
    let is_named = |line: &&String| {
        let place = line.split(' ').next().unwrap_or_default();
        // A refusal is of the first fault.
        ours.bonds.is_err() || ours.text.contains(place)
    };
    ignored.iter().filter(|line| !is_named(line)).map(|line| format!("ignored, not named: {line}")).collect()
}

/// Keys that are not compared: what is above the bond, or lost on the way, is not what the comparison is about.
fn is_compared(tool: Tool, key: &str) -> bool {
    let lost: &[&str] = match tool {
        // Addresses of two families are printed without their stanzas.
        Tool::Ifupdown => &["slave", "addresses", "routes"],
        Tool::Netplan | Tool::Networkd | Tool::Nm => &["slave"],
    };
    !lost.contains(&key)
}

fn differences(tool: Tool, theirs: &Imported, ours: &Imported) -> Vec<String> {
    let (theirs, ours) = match (&theirs.bonds, &ours.bonds) {
        (Ok(theirs), Ok(ours)) => (theirs, ours),
        (Err(_), Err(_)) => return Vec::new(),
        (Ok(theirs), Err(error)) => {
            return vec![format!("accepted: {}; import refuses: {}", names(theirs), error.trim())];
        }
        (Err(error), Ok(_)) => return vec![format!("what it makes is refused: {}", error.trim())],
    };
    let mut differences = Vec::new();
    let nothing = Table::new();
    for name in theirs.keys().chain(ours.keys().filter(|name| !theirs.contains_key(*name))) {
        let [of_them, of_us] = [theirs, ours].map(|bonds| bonds.get(name));
        if of_them.is_none() || of_us.is_none() {
            let who = if of_them.is_some() { "only the program has it" } else { "only the import has it" };
            differences.push(format!("{name}: {who}"));
            continue;
        }
        let (of_them, of_us) = (of_them.unwrap_or(&nothing), of_us.unwrap_or(&nothing));
        let keys = of_them.keys().chain(of_us.keys().filter(|key| !of_them.contains_key(*key)));
        for key in keys.filter(|key| is_compared(tool, key)) {
            let [one, other] = [of_them, of_us].map(|bond| bond.get(key).map(ToString::to_string));
            if one != other {
                let [one, other] = [one, other].map(|value| value.unwrap_or_else(|| "none".to_owned()));
                differences.push(format!("{name}: {key}: program {one}, import {other}"));
            }
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn imported(text: &str) -> Imported {
        let table: Table = text.parse().unwrap();
        let bonds = table.into_iter().map(|(name, bond)| (name, bond.as_table().unwrap().clone())).collect();
        Imported { bonds: Ok(bonds), text: text.to_owned() }
    }

    #[test]
    fn each_key_and_bond_that_differs_is_named() {
        let theirs = imported("[a]\nmiimon = 100\nmtu = 9000\n[a.slave.x]\nprio = 1\n[b]\n");
        let ours = imported("[a]\nmiimon = 50\nupdelay = 200\n[c]\n");
        assert_eq!(
            differences(Tool::Netplan, &theirs, &ours),
            [
                "a: miimon: program 100, import 50",
                "a: mtu: program 9000, import none",
                "a: updelay: program none, import 200",
                "b: only the program has it",
                "c: only the import has it",
            ]
        );
        assert!(differences(Tool::Netplan, &theirs, &theirs).is_empty());
        let refused = Imported { bonds: Err("no".into()), text: String::new() };
        assert_eq!(differences(Tool::Nm, &theirs, &refused), ["accepted: a, b; import refuses: no"]);
        assert!(differences(Tool::Nm, &refused, &refused).is_empty());
    }

    #[test]
    fn a_line_that_a_note_names_is_no_difference() {
        let ours = imported("# bond0.netdev:8: MIIMonitorSec: not a time\n[a]\n");
        let ignored = ["bond0.netdev:8 MIIMonitorSec=0,1s".to_owned(), "bond0.netdev:9 Mode=x".to_owned()];
        assert_eq!(unnamed(&ignored, &ours), ["ignored, not named: bond0.netdev:9 Mode=x"]);
    }
}
