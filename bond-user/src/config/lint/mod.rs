//! Finds settings of a configuration that are refused, rounded, ignored or overridden, and common mistakes with
//! bonds. Each finding is one sentence with a remedy.

mod finding;
mod monitors;
mod network;
mod options;
mod path;
mod path_monitor;
mod read;
mod slaves;
mod watch;

use std::path::{Path, PathBuf};

use self::read::Read;
use super::{BondConfig, Lines, ifcfg};

pub use self::finding::{
    ABSENT_PORT, ABSENT_SLAVE, ADDRESS_OF_SLAVE, Checked, ConflictOn, Finding, HookedInterface, HostFacts,
    Severity,
};

/// Checks TOML files, directories of them, and directories of ifcfg files, as one configuration.
pub fn check(paths: &[PathBuf], surroundings: &HostFacts) -> Checked {
    let mut read = Read::default();
    for path in paths {
        if ifcfg::is_directory_of_them(path) {
            read.ifcfg(path);
        } else {
            read.toml(path);
        }
    }
    read.finish(surroundings)
}

/// Checks one file's text; `path` is for messages.
pub fn check_text(path: &Path, text: &str, surroundings: &HostFacts) -> Checked {
    let mut read = Read::default();
    read.toml_text(path, text);
    read.finish(surroundings)
}

/// The rules for one bond.
struct Rules<'a> {
    bond: &'a BondConfig,
    lines: &'a Lines,
    findings: &'a mut Vec<Finding>,
}

impl Rules<'_> {
    fn apply(&mut self, surroundings: &HostFacts) {
        self.notes_of_options();
        self.miimon();
        self.arp_monitor();
        self.path_monitor();
        self.watch();
        self.slaves();
        self.absent(surroundings);
        self.election();
        self.bypassed(surroundings);
        self.macs(surroundings);
        self.announcements();
        self.frames();
        self.network();
    }

    fn warn(&mut self, id: &'static str, key: &str, text: impl AsRef<str>) {
        self.find(Severity::Warning, id, None, key, text);
    }

    fn note(&mut self, id: &'static str, key: &str, text: impl AsRef<str>) {
        self.find(Severity::Note, id, None, key, text);
    }

    fn find(
        &mut self,
        severity: Severity,
        id: &'static str,
        slave: Option<&str>,
        key: &str,
        text: impl AsRef<str>,
    ) {
        let origin = self.lines.of(&self.bond.name, slave, key).unwrap_or(&self.bond.origin).clone();
        let of = slave.map(|slave| format!("{slave}: ")).unwrap_or_default();
        let text = format!("{}: {of}{}", self.bond.name, text.as_ref());
        self.findings.push(Finding { severity, id, origin, text });
    }

    fn is_written(&self, key: &str) -> bool {
        self.lines.of(&self.bond.name, None, key).is_some()
    }
}

#[cfg(test)]
mod tests;
