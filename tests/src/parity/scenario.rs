//! Files of scenarios: steps, and what the driver did.

use std::{fmt, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};

use super::step::Step;

const COMMENT: &str = "#";
const DIRECTIVE: &str = "@ ";
const STEP: &str = "$ ";
const DIFFERS: &str = "! ";
/// Several ticks of the miimon that scenarios use, on an emulated machine.
const USUAL_QUIET: Duration = Duration::from_millis(600);

/// A file of steps with their records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Comments and directives at its beginning.
    head: Vec<String>,
    /// The time without a change after which a step has ended: `@ quiet MILLISECONDS`.
    pub quiet: Duration,
    /// Requirements that the machines of developers may lack: `@ needs 8021q`.
    pub needs: Vec<String>,
    pub cases: Vec<Case>,
}

/// A step and its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    comments: Vec<String>,
    pub step: Step,
    /// What the driver did.
    pub driver: Vec<String>,
    /// The record of xbond, where it differs.
    pub difference: Option<Difference>,
}

/// An intended difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The rows of docs/PARITY.md that explain it.
    pub rows: Vec<String>,
    pub xbond: Vec<String>,
}

impl Case {
    /// Returns the expected record of xbond.
    pub fn xbond(&self) -> &[String] {
        self.difference.as_ref().map_or(&self.driver, |difference| &difference.xbond)
    }
}

impl Scenario {
    /// Estimates how long the scenario takes.
    pub fn duration(&self) -> Duration {
        self.quiet.saturating_mul(u32::try_from(self.cases.len()).unwrap_or(u32::MAX))
    }

    /// Returns the recorded scenarios of the driver with the names of their files, in the order of names.
    ///
    /// # Errors
    /// A file cannot be read, or is no scenario.
    pub fn recorded() -> Result<Vec<(String, Self)>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/driver");
        let entries = directory.read_dir().with_context(|| format!("cannot list {}", directory.display()))?;
        let mut scenarios = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_stem().context("a fixture without a name")?.to_string_lossy().into_owned();
            scenarios.push((name, Self::read(&path)?));
        }
        scenarios.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(scenarios)
    }

    /// Reads a scenario from its file.
    ///
    /// # Errors
    /// The file cannot be read, or is no scenario; the error names the line.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("in {}", path.display()))
    }

    /// Parses the text of a scenario.
    ///
    /// # Errors
    /// A line is no step, comment or directive, or a comment has no step; the error names the line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut scenario =
            Self { head: Vec::new(), quiet: USUAL_QUIET, needs: Vec::new(), cases: Vec::new() };
        let mut comments: Vec<String> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            scenario.line(line, &mut comments).with_context(|| format!("line {}", index + 1))?;
        }
        ensure!(comments.is_empty(), "a comment without a step after it");
        Ok(scenario)
    }

    fn line(&mut self, line: &str, comments: &mut Vec<String>) -> Result<()> {
        if let Some(text) = line.strip_prefix(STEP) {
            let step = text.parse()?;
            let comments = std::mem::take(comments);
            self.cases.push(Case { comments, step, driver: Vec::new(), difference: None });
        } else if let Some(directive) = line.strip_prefix(DIRECTIVE) {
            ensure!(self.cases.is_empty(), "directives come first");
            self.head.append(comments);
            self.head.push(line.to_owned());
            match directive.split_once(' ') {
                Some(("quiet", ms)) => self.quiet = Duration::from_millis(ms.parse()?),
                Some(("needs", what)) => self.needs.push(what.to_owned()),
                _ => bail!("`{directive}` is no directive"),
            }
        } else if line.starts_with(COMMENT) || line.is_empty() {
            comments.push(line.to_owned());
        } else {
            let case = self.cases.last_mut().context("a record before the first step")?;
            ensure!(comments.is_empty(), "a comment inside a record");
            match (line.strip_prefix(DIFFERS), &mut case.difference) {
                (Some(rows), None) => {
                    let rows = rows.split_whitespace().map(str::to_owned).collect();
                    case.difference = Some(Difference { rows, xbond: Vec::new() });
                }
                (Some(_), Some(_)) => bail!("a second `!` of one step"),
                (None, Some(difference)) => difference.xbond.push(line.to_owned()),
                (None, None) => case.driver.push(line.to_owned()),
            }
        }
        Ok(())
    }
}

/// Prints the scenario in the form of its file.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = |lines: &[String]| lines.iter().try_for_each(|line| writeln!(f, "{line}"));
        lines(&self.head)?;
        for case in &self.cases {
            lines(&case.comments)?;
            lines(&[format!("{STEP}{}", case.step)])?;
            lines(&case.driver)?;
            if let Some(difference) = &case.difference {
                lines(&[format!("{DIFFERS}{}", difference.rows.join(" "))])?;
                lines(&difference.xbond)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# What it shows.\n@ quiet 800\n\n# First.\n$ bond miimon=100 : slave0\nbond0 up\n\
                        $ set updelay=150\nupdelay=100\n! rounding other\nupdelay=150\n";

    #[test]
    fn a_file_is_written_as_it_was_read() {
        let scenario = Scenario::parse(TEXT).unwrap();
        assert_eq!(scenario.to_string(), TEXT);
        assert_eq!(scenario.quiet, Duration::from_millis(800));
        assert_eq!(scenario.cases[0].xbond(), ["bond0 up"]);
        assert_eq!(scenario.cases[1].driver, ["updelay=100"]);
        assert_eq!(scenario.cases[1].xbond(), ["updelay=150"]);
        assert_eq!(scenario.cases[1].difference.as_ref().unwrap().rows, ["rounding", "other"]);
    }

    #[test]
    fn an_invalid_scenario_is_refused_with_its_line() {
        for (text, line) in [
            ("bond0 up", 1),
            ("$ remove\n$ destroy", 2),
            ("$ carrier slave0 maybe", 1),
            ("$ remove\n! a\nx\n! b", 4),
            ("@ loud 5", 1),
        ] {
            let error = format!("{:#}", Scenario::parse(text).unwrap_err());
            assert!(error.starts_with(&format!("line {line}: ")), "{text}: {error}");
        }
    }
}
