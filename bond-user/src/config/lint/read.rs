//! Reads the files of a check; an error in one does not hide errors in others.

use std::path::Path;

use bond_core::options::{self, Unmonitored};

use super::{Checked, Finding, HostFacts, Rules, Severity};
use crate::config::{Config, ConfigError, Known, Lines, Note, Origin, Problem, ifcfg, toml};

/// The files that were read; an error in one does not hide errors in others.
#[derive(Default)]
pub(super) struct Read {
    config: Config,
    known: Known,
    lines: Lines,
    findings: Vec<Finding>,
}

impl Read {
    pub(super) fn toml(&mut self, path: &Path) {
        let files = match toml::files_of(path) {
            Ok(files) => files,
            Err(error) => return self.refuse(error),
        };
        if files.is_empty() {
            let origin = Origin::File { path: path.to_owned(), line: None };
            return self.refuse(ConfigError::new(origin, Problem::NoFiles));
        }
        for file in files {
            match toml::text_of(&file) {
                Err(error) => self.refuse(error),
                Ok(text) => self.toml_text(&file, &text),
            }
        }
    }

    pub(super) fn toml_text(&mut self, path: &Path, text: &str) {
        self.lines.add_toml(path, text);
        match toml::parse(path, text) {
            Ok(config) => self.merge(config),
            Err(error) => self.refuse(error),
        }
    }

    pub(super) fn ifcfg(&mut self, directory: &Path) {
        self.lines.extend(ifcfg::lines(directory));
        // A bond without monitoring is a finding, in addition to the others.
        match ifcfg::read_unchecked(directory, Unmonitored::Allow) {
            Ok(mut config) => {
                for bond in &mut config.bonds {
                    bond.allow_unmonitored = Unmonitored::Refuse;
                    bond.notes.retain(|note| {
                        !matches!(note, Note::Option { note: options::Note::Unmonitored, .. })
                    });
                }
                self.merge(config);
            }
            Err(error) => self.refuse(error),
        }
    }

    pub(super) fn merge(&mut self, config: Config) {
        if let Err(error) = self.config.merge_with(config, &mut self.known) {
            self.refuse(error);
        }
    }

    pub(super) fn refuse(&mut self, error: ConfigError) {
        let origin = match error.problem.place() {
            Some((bond, key)) => self.lines.of(bond, None, key).cloned().unwrap_or(error.origin),
            None => error.origin,
        };
        let text = error.problem.to_string();
        self.findings.push(Finding { severity: Severity::Error, id: "refused", origin, text });
    }

    pub(super) fn finish(mut self, surroundings: &HostFacts) -> Checked {
        let mut refused = false;
        for bond in &std::mem::take(&mut self.config.bonds) {
            if let Err(problem) = bond.check() {
                let origin = problem.key().and_then(|key| self.lines.of(&bond.name, None, key));
                let origin = origin.unwrap_or(&bond.origin).clone();
                self.refuse(ConfigError::new(origin, problem));
                refused = true;
            }
            let mut rules = Rules { bond, lines: &self.lines, findings: &mut self.findings };
            rules.apply(surroundings);
            self.config.bonds.push(bond.clone());
        }
        if !refused && let Err(error) = self.config.check() {
            self.refuse(error);
        }
        for note in &self.config.notes {
            let origin = note.origin().cloned().unwrap_or_default();
            let (severity, text) = (Severity::Warning, note.text());
            self.findings.push(Finding { severity, id: "left-out", origin, text });
        }
        self.findings.sort_by(|a, b| position(a).cmp(&position(b)));
        let slaves = self.config.bonds.iter().flat_map(|bond| &bond.slaves);
        let slaves = slaves.map(|slave| slave.name.to_string()).collect();
        let ports = self.config.bonds.iter().filter_map(|bond| bond.port.as_ref());
        let ports = ports.map(ToString::to_string).collect();
        let bonds = self.config.bonds.into_iter().map(|bond| bond.name.into()).collect();
        Checked { bonds, slaves, ports, findings: self.findings }
    }
}

fn position(finding: &Finding) -> (Option<&Path>, Option<usize>) {
    match &finding.origin {
        Origin::Flags => (None, None),
        Origin::File { path, line } => (Some(path), *line),
    }
}
