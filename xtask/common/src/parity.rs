//! Checks docs/PARITY.md: its rows, and the tests that they name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use xbond_tests::parity::Scenario;

use crate::machine;

/// The document, below the root of the repository.
pub const PARITY: &str = "docs/PARITY.md";
/// The directory of the scenarios.
pub const SCENARIOS: &str = "tests/fixtures/driver";
/// The prefix of a scenario's name in a row.
const SCENARIO: &str = "driver/";
/// The verdicts of a row.
const VERDICTS: [&str; 3] = ["same", "better", "different"];

/// The rows of the document.
pub struct Parity {
    rows: Vec<Row>,
}

/// An option or a behaviour.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    line: usize,
    id: String,
    verdict: String,
    /// The tests and scenarios that prove it.
    shown_by: Vec<String>,
}

impl Parity {
    /// Reads the document.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read() -> Result<Self> {
        let path = machine::root().join(PARITY);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::parse(&text))
    }

    /// Parses the document. A row's id is the text in backticks in its first cell.
    pub fn parse(text: &str) -> Self {
        let rows = text.lines().enumerate().filter_map(|(index, line)| Row::parse(index + 1, line));
        Self { rows: rows.collect() }
    }

    pub fn has(&self, id: &str) -> bool {
        self.rows.iter().any(|row| row.id == id)
    }

    /// Returns the errors in the rows: tests and scenarios that do not exist, invalid verdicts, duplicate ids. Also
    /// returns scenarios that no row names, or that name a row which does not exist.
    pub fn complaints(&self, functions: &BTreeSet<String>, scenarios: &[(String, Scenario)]) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut ids = BTreeSet::new();
        for Row { line, id, verdict, shown_by } in &self.rows {
            let mut complain = |what: String| complaints.push(format!("{PARITY}:{line}: {what}"));
            if !ids.insert(id) {
                complain(format!("`{id}` is another row's"));
            }
            if !VERDICTS.contains(&verdict.as_str()) {
                complain(format!("`{id}` is `{verdict}`, and not {}", VERDICTS.join(", ")));
            }
            if shown_by.is_empty() {
                complain(format!("nothing shows `{id}`"));
            }
            for name in shown_by {
                let exists = match name.strip_prefix(SCENARIO) {
                    Some(scenario) => scenarios.iter().any(|(known, _)| known == scenario),
                    None => functions.contains(name),
                };
                if !exists {
                    complain(format!("there is no test `{name}`"));
                }
            }
        }
        let shown: Vec<&str> = self.rows.iter().flat_map(|row| &row.shown_by).map(String::as_str).collect();
        for (name, scenario) in scenarios {
            if !shown.contains(&format!("{SCENARIO}{name}").as_str()) {
                complaints.push(format!("{SCENARIOS}/{name}.txt: no row of {PARITY} names it"));
            }
            let rows = scenario.cases.iter().filter_map(|case| case.difference.as_ref());
            for row in rows.flat_map(|difference| &difference.rows).filter(|row| !self.has(row)) {
                complaints.push(format!("{SCENARIOS}/{name}.txt: {PARITY} has no row `{row}`"));
            }
        }
        complaints
    }
}

impl Row {
    fn parse(line: usize, text: &str) -> Option<Self> {
        let cells: Vec<&str> = text.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ").collect();
        let [id, _, verdict, shown_by] = cells[..] else { return None };
        let id = id.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        let word = |c: char| !c.is_ascii_lowercase();
        let verdict = verdict.split(word).next().unwrap_or_default().to_owned();
        let shown_by = shown_by.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        Some(Self { line, id, verdict, shown_by })
    }
}

pub fn scenario_path(name: &str) -> PathBuf {
    machine::root().join(SCENARIOS).join(name).with_extension("txt")
}

/// Returns the names of all scenarios, in order.
///
/// # Errors
/// The directory cannot be listed.
pub fn scenario_names() -> Result<Vec<String>> {
    let directory = machine::root().join(SCENARIOS);
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let texts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "txt"));
    let mut names: Vec<String> =
        texts.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// Returns the errors in the document, compared with the scenarios and these files of Rust code.
///
/// # Errors
/// The document or a scenario cannot be read.
pub fn complaints(files: &[(&Path, &str)]) -> Result<Vec<String>> {
    let functions = files.iter().flat_map(|(_, text)| functions(text)).collect();
    let scenario = |name: String| Ok((name.clone(), Scenario::read(&scenario_path(&name))?));
    let scenarios: Vec<_> = scenario_names()?.into_iter().map(scenario).collect::<Result<_>>()?;
    Ok(Parity::read()?.complaints(&functions, &scenarios))
}

/// Returns the names of functions, which include tests, also those with an attribute in a macro.
fn functions(text: &str) -> impl Iterator<Item = String> {
    let word = |c: char| !(c.is_ascii_alphanumeric() || c == '_');
    text.split("fn ").skip(1).filter_map(move |rest| rest.split(word).next()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "| id | option | xbond | shown by |\n|---|---|---|---|\n\
                         | `a` | one | same | `driver/x`, `it_works` |\n\
                         | `b` | two | better: by far | `driver/y` |\n";

    fn complaints(table: &str) -> Vec<String> {
        let functions = functions("#[test]\nfn it_works() {}").collect();
        let scenario = |text| Scenario::parse(text).unwrap();
        let scenarios = [
            (String::from("x"), scenario("$ remove\n")),
            (String::from("y"), scenario("$ remove\n! b\ngone\n")),
        ];
        Parity::parse(table).complaints(&functions, &scenarios)
    }

    #[test]
    fn a_row_may_name_existing_tests_only() {
        assert_eq!(complaints(TABLE), [""; 0]);
        for (table, complaint) in [
            (TABLE.replace("it_works", "it_worked"), "docs/PARITY.md:3: there is no test `it_worked`"),
            (
                TABLE.replace("`driver/x`, ", ""),
                "tests/fixtures/driver/x.txt: no row of docs/PARITY.md names it",
            ),
            (
                TABLE.replace("better", "nicer"),
                "docs/PARITY.md:4: `b` is `nicer`, and not same, better, different",
            ),
            (
                TABLE.replace("`driver/x`, `it_works`", "`driver/x`, `driver/z`"),
                "docs/PARITY.md:3: there is no test `driver/z`",
            ),
            (TABLE.replace("| `b`", "| `c`"), "tests/fixtures/driver/y.txt: docs/PARITY.md has no row `b`"),
            (format!("{TABLE}| `b` | two | same | `it_works` |\n"), "docs/PARITY.md:5: `b` is another row's"),
            (format!("{TABLE}| `c` | two | same | by reading |\n"), "docs/PARITY.md:5: nothing shows `c`"),
        ] {
            assert_eq!(complaints(&table), [complaint], "{table}");
        }
    }
}
