//! Compares the records of the driver and of xbond with the differences that docs/PARITY.md explains.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context as _, Result, anyhow, ensure};
use xbond_tests::parity::{Case, Difference, Scenario, same};

use xtask_common::parity::Parity;

/// The mark in a fixture for a new difference without an explanation.
const UNEXPLAINED: &str = "unexplained";

/// The record of each step of a scenario.
pub type Records = Vec<Vec<String>>;

/// The records by implementation and scenario; or the reason why there are none.
pub struct AllRecords(BTreeMap<(String, String), Result<Records, String>>);

/// Reads the output of the program `parity` in the guest.
pub fn read(console: &[String]) -> AllRecords {
    let mut all: BTreeMap<(String, String), Result<Records, String>> = BTreeMap::new();
    let mut current = None;
    for line in console {
        if let Some((who, name)) = line.strip_prefix("scenario ").and_then(|words| words.split_once(' ')) {
            current = Some((who.to_owned(), name.to_owned()));
        } else if let Some(reason) = line.strip_prefix("failed ") {
            if let Some(key) = current.take() {
                all.insert(key, Err(reason.to_owned()));
            }
        } else if line == "end" {
            current = None;
        } else if let Some(key) = &current {
            let Ok(records) = all.entry(key.clone()).or_insert_with(|| Ok(Records::new())) else { continue };
            match (line.as_str(), line.strip_prefix("| "), records.last_mut()) {
                ("step", ..) => records.push(Vec::new()),
                (_, Some(text), Some(record)) => record.push(text.to_owned()),
                // Output of the kernel or another program.
                _ => {}
            }
        }
    }
    AllRecords(all)
}

impl AllRecords {
    /// Returns the records of a scenario of this many steps.
    ///
    /// # Errors
    /// The scenario did not end, failed, or has another number of steps.
    pub fn of(&self, who: &str, name: &str, steps: usize) -> Result<&Records> {
        let records = self.0.get(&(who.to_owned(), name.to_owned())).context("it has not come to its end")?;
        let records = records.as_ref().map_err(|reason| anyhow!("{reason}"))?;
        ensure!(records.len() == steps, "only {} of {steps} steps were done", records.len());
        Ok(records)
    }
}

/// The kernel on whose driver the fixtures were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixture {
    OfThisKernel,
    OfAnother,
}

/// The result of comparing a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It differs, as the rows explain.
    Explained {
        step: String,
        rows: Vec<String>,
    },
    Different {
        step: String,
        driver: Vec<String>,
        xbond: Vec<String>,
    },
    /// Both have the same record, but the fixture shows a difference.
    NotDifferent {
        step: String,
    },
    /// xbond differs from the driver, and not as in the fixture.
    OtherwiseDifferent {
        step: String,
        expected: Vec<String>,
        xbond: Vec<String>,
    },
    /// The driver's record differs from the fixture.
    DriverOtherwise {
        step: String,
        expected: Vec<String>,
        driver: Vec<String>,
    },
    NotDone {
        who: &'static str,
        reason: String,
    },
    UnknownRow {
        step: String,
        row: String,
    },
}

impl Finding {
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Explained { .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut block = |who: &str, lines: &[String]| {
            writeln!(f)?;
            write!(f, "  {who}:")?;
            lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
        };
        match self {
            Self::Explained { step, rows } => write!(f, "`{step}`: differs: {}", rows.join(", ")),
            Self::Different { step, driver, xbond } => {
                block(&format!("`{step}` differs, and no row explains it\n  driver"), driver)?;
                block("xbond", xbond)
            }
            Self::NotDifferent { step } => {
                write!(f, "`{step}`: does not differ, and the fixture says it does")
            }
            Self::OtherwiseDifferent { step, expected, xbond } => {
                block(&format!("`{step}` differs otherwise than the fixture says\n  expected"), expected)?;
                block("xbond", xbond)
            }
            Self::DriverOtherwise { step, expected, driver } => {
                block(&format!("`{step}`: the driver does not do as recorded\n  expected"), expected)?;
                block("driver", driver)
            }
            Self::NotDone { who, reason } => write!(f, "{who} could not do it: {reason}"),
            Self::UnknownRow { step, row } => write!(f, "`{step}`: docs/PARITY.md has no row `{row}`"),
        }
    }
}

/// Compares the records of a scenario: the driver's, then xbond's.
pub fn scenario(
    scenario: &Scenario,
    records: (&Records, &Records),
    parity: &Parity,
    fixture: Fixture,
) -> Vec<Finding> {
    let pairs = records.0.iter().zip(records.1);
    scenario
        .cases
        .iter()
        .zip(pairs)
        .flat_map(|(case, (driver, xbond))| step(case, (driver, xbond), parity, fixture))
        .collect()
}

fn step(case: &Case, records: (&[String], &[String]), parity: &Parity, fixture: Fixture) -> Vec<Finding> {
    let (driver, xbond) = records;
    let step = case.step.to_string();
    let mut findings = Vec::new();
    if fixture == Fixture::OfThisKernel && driver != case.driver {
        let expected = case.driver.clone();
        findings.push(Finding::DriverOtherwise { step: step.clone(), expected, driver: driver.to_vec() });
    }
    match &case.difference {
        None if same(driver, xbond) => {}
        None => findings.push(Finding::Different { step, driver: driver.to_vec(), xbond: xbond.to_vec() }),
        // The driver of another kernel has other faults.
        Some(_) if same(driver, xbond) => {
            if fixture == Fixture::OfThisKernel {
                findings.push(Finding::NotDifferent { step });
            }
        }
        Some(Difference { rows, xbond: expected }) => {
            let unknown = rows.iter().filter(|row| !parity.has(row));
            findings.extend(unknown.map(|row| Finding::UnknownRow { step: step.clone(), row: row.clone() }));
            if same(expected, xbond) {
                findings.push(Finding::Explained { step, rows: rows.clone() });
            } else {
                let expected = expected.clone();
                findings.push(Finding::OtherwiseDifferent { step, expected, xbond: xbond.to_vec() });
            }
        }
    }
    findings
}

/// Stores the records of both. Existing explanations of a difference stay.
pub fn record(scenario: &mut Scenario, driver: &Records, xbond: &Records) {
    for (case, (driver, xbond)) in scenario.cases.iter_mut().zip(driver.iter().zip(xbond)) {
        case.driver.clone_from(driver);
        let rows = case.difference.take().map(|difference| difference.rows);
        if !same(driver, xbond) {
            let rows = rows.unwrap_or_else(|| vec![String::from(UNEXPLAINED)]);
            case.difference = Some(Difference { rows, xbond: xbond.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXTURE: &str = "$ set updelay=150\nupdelay=100\n! rounding\nupdelay=150\n$ remove\nbond0 gone\n";

    fn lines(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Returns whether each finding is a failure.
    fn compare(driver: [&str; 2], xbond: [&str; 2], table: &str, fixture: Fixture) -> Vec<bool> {
        let fixed = Scenario::parse(FIXTURE).unwrap();
        let [driver, xbond] = [driver, xbond].map(|steps| steps.map(|line| lines(&[line])).to_vec());
        let found = scenario(&fixed, (&driver, &xbond), &Parity::parse(table), fixture);
        found.iter().map(Finding::is_failure).collect()
    }

    #[test]
    fn only_an_explained_difference_passes() {
        use Fixture::*;
        let table = "| `rounding` | updelay | better | `x` |\n";
        let (driver, xbond) = (["updelay=100", "bond0 gone"], ["updelay=150", "bond0 gone"]);
        for (driver, xbond, table, fixture, expected) in [
            (driver, xbond, table, OfThisKernel, &[false][..]),
            // No row; not as in the fixture; a step that should not differ.
            (driver, xbond, "", OfThisKernel, &[true, false]),
            (driver, ["updelay=151", "bond0 gone"], table, OfThisKernel, &[true]),
            (driver, ["updelay=150", ""], table, OfThisKernel, &[false, true]),
            // The driver has changed: on the kernel of the fixtures, and on another.
            (xbond, xbond, table, OfThisKernel, &[true, true]),
            (xbond, xbond, table, OfAnother, &[]),
            (["updelay=100", "x"], ["updelay=150", "x"], table, OfAnother, &[false]),
        ] {
            assert_eq!(compare(driver, xbond, table, fixture), expected, "{driver:?} {xbond:?} {fixture:?}");
        }
    }

    #[test]
    fn recording_keeps_explanations_and_demands_new_ones() {
        let mut fixed = Scenario::parse(FIXTURE).unwrap();
        let driver = [lines(&["updelay=120"]), lines(&["refused EBUSY"])].to_vec();
        record(&mut fixed, &driver, &[lines(&["updelay=150"]), lines(&["bond0 gone"])].to_vec());
        let recorded = "$ set updelay=150\nupdelay=120\n! rounding\nupdelay=150\n\
                        $ remove\nrefused EBUSY\n! unexplained\nbond0 gone\n";
        assert_eq!(fixed.to_string(), recorded);
        // An error of the driver has a number, a refusal of xbond has a sentence.
        record(&mut fixed, &driver, &[lines(&["updelay=120"]), lines(&["refused"])].to_vec());
        assert_eq!(fixed.to_string(), "$ set updelay=150\nupdelay=120\n$ remove\nrefused EBUSY\n");
    }

    #[test]
    fn records_are_found_among_other_lines_of_the_console() {
        let console = ["scenario driver a", "step", "| x 1", "kernel: noise", "step", "end", "BYE"];
        let all = read(&lines(&console));
        assert_eq!(all.of("driver", "a", 2).unwrap(), &[lines(&["x 1"]), lines(&[])]);
        assert!(all.of("driver", "a", 3).is_err() && all.of("xbond", "a", 2).is_err());
        let failed = read(&lines(&["scenario xbond a", "failed no such device"]));
        assert_eq!(failed.of("xbond", "a", 1).unwrap_err().to_string(), "no such device");
    }
}
