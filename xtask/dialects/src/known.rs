//! Differences that are known, each with its reason: known.toml.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{Sample, tool::Tool};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    known: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    dialect: Tool,
    /// A sample; all samples of the dialect if there is none.
    sample: Option<String>,
    /// How the difference begins, as it is printed.
    difference: String,
    reason: String,
}

/// The table of known differences, and which of them were seen.
pub struct Known {
    rows: Vec<(Row, bool)>,
}

impl Known {
    /// Reads the table.
    ///
    /// # Errors
    /// It is malformed, or a row has no reason.
    pub fn read() -> Result<Self> {
        Self::parse(include_str!("../known.toml"))
    }

    fn parse(text: &str) -> Result<Self> {
        let file: File = toml::from_str(text).context("known.toml")?;
        for row in &file.known {
            anyhow::ensure!(!row.reason.trim().is_empty(), "known.toml: {}: no reason", row.difference);
        }
        Ok(Self { rows: file.known.into_iter().map(|row| (row, false)).collect() })
    }

    /// Returns whether a row has this difference, and marks it as seen.
    pub fn explains(&mut self, sample: &Sample, difference: &str) -> bool {
        self.has(sample.tool, &sample.name, difference)
    }

    fn has(&mut self, tool: Tool, sample: &str, difference: &str) -> bool {
        let mut found = false;
        for (row, seen) in &mut self.rows {
            let is_of = row.dialect == tool && row.sample.as_deref().is_none_or(|name| name == sample);
            if is_of && difference.starts_with(&row.difference) {
                (*seen, found) = (true, true);
            }
        }
        found
    }

    /// Returns the rows that explained nothing.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.rows.iter().filter(|(_, seen)| !seen);
        unused.map(|(row, _)| format!("{}: {}", row.dialect, row.difference)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_well_formed() {
        Known::read().unwrap();
    }

    #[test]
    fn a_row_explains_its_sample_only_and_is_used_then() {
        let text = "[[known]]\ndialect = \"nm\"\nsample = \"plain\"\ndifference = \"bond0: mtu\"\nreason = \"why\"\n";
        let mut known = Known::parse(text).unwrap();
        assert!(!known.has(Tool::Nm, "other", "bond0: mtu: 1, 2"));
        assert!(!known.has(Tool::Netplan, "plain", "bond0: mtu: 1, 2"));
        assert_eq!(known.unused(), ["nm: bond0: mtu"]);
        assert!(known.has(Tool::Nm, "plain", "bond0: mtu: 1, 2"));
        assert!(known.unused().is_empty());
        assert!(Known::parse(&text.replace("why", "")).is_err());
    }
}
