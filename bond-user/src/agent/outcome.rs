//! What a request did that may do several things.

use tracing::info;

use crate::{
    agent::AgentError,
    api::ErrorKind,
    report::{log, wording::of_bond},
};

/// What a request did that may do several things.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was done, a line each.
    pub changes: Vec<String>,
    /// What failed, a sentence each.
    pub failures: Vec<String>,
    /// What the administrator should know, a sentence each.
    pub notes: Vec<String>,
    /// The kind of the first failure.
    pub kind: Option<ErrorKind>,
    /// Whether the caller logs the failures.
    pub is_quiet: bool,
}

impl Outcome {
    /// Returns the outcome of a request that failed before it did anything.
    pub(in crate::agent) fn failed(error: &AgentError) -> Self {
        Self { failures: vec![error.to_string()], kind: Some(error.kind()), ..Self::default() }
    }

    /// Adds something that was done, and logs it.
    pub(in crate::agent) fn changed(&mut self, line: String) {
        info!("{line}");
        self.changes.push(line);
    }

    /// Adds something that was done to one bond, and logs it. The line gets the bond's name if it does not begin with it.
    pub(in crate::agent) fn changed_of(&mut self, bond: &str, line: String) {
        log::of(bond).info(&line);
        self.changes.push(of_bond(bond, line));
    }

    /// Adds a failure that concerns one bond.
    pub(in crate::agent) fn fail(&mut self, bond: &str, error: &AgentError) {
        let sentence = of_bond(bond, error.to_string());
        if !self.is_quiet {
            log::of(bond).warn(&sentence);
        }
        self.kind.get_or_insert(error.kind());
        self.failures.push(sentence);
    }

    /// Adds a failure that concerns the agent, and that the caller has logged.
    pub(in crate::agent) fn fail_of_agent(&mut self, error: &AgentError) {
        self.kind.get_or_insert(error.kind());
        self.failures.push(error.to_string());
    }
}
