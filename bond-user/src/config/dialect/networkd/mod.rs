//! systemd-networkd: `*.netdev` and `*.network` files with their drop-ins.
//!
//! Numbers without a unit are seconds. A file hides those of its name in later directories; one that is empty, or leads to
//! /dev/null, hides them and has no content. An interface has the first `.network` file, by name, whose `[Match]` fits.

mod netdev;
pub(super) mod network;

use std::path::{Path, PathBuf};

use self::network::Network;
pub(super) use self::{netdev::word, network::prefix};
use super::{
    draft::{check_number, differs, gather},
    files::{self, Files, at_file},
    ini::{self, Entry, Rules},
};
use crate::config::{Config, ConfigError, Note, Origin, Problem};

/// The directories of networkd, the first of which wins.
pub(super) const DIRECTORIES: &[&str] = &[
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
];

/// A file with its drop-ins.
struct Unit {
    path: PathBuf,
    entries: Vec<Entry>,
}

/// Reads the bonds of files, or of directories in the order of their precedence.
///
/// # Errors
/// No bond of active-backup is in them, or a file cannot be read.
pub(super) fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut files, mut notes) = (Files::default(), Vec::new());
    let mut netdevs = units(paths, ".netdev", &mut files, &mut notes)?;
    netdevs.retain(|unit| unit.last("NetDev", "Kind").is_some_and(|kind| kind.value == "bond"));
    check_number(netdevs.len(), || Origin::File {
        path: paths.first().cloned().unwrap_or_default(),
        line: None,
    })?;
    let networks = units(paths, ".network", &mut files, &mut notes)?;
    let networks: Vec<_> = networks.into_iter().map(Network::new).collect();
    network::check_names(&networks)?;
    let bonds = netdevs.iter().map(|unit| bond(unit, &networks, &mut notes)).collect();
    let known: Vec<_> = netdevs.iter().filter_map(|unit| unit.last("NetDev", "Name")).collect();
    for network in &networks {
        let of = network.bond().filter(|of| !known.iter().any(|name| name.value == of.value));
        notes.extend(of.map(|of| {
            let text = format!("{}: no .netdev file here is that bond's: its slaves are left out", of.text());
            differs(&of.origin, text)
        }));
    }
    let none = || {
        let path = paths.first().map_or(Path::new(""), PathBuf::as_path);
        at_file(path, Problem::Unsupported("no .netdev file with Kind=bond in it".to_owned()))
    };
    gather(bonds, notes, none)
}

fn bond(
    unit: &Unit,
    networks: &[Network],
    notes: &mut Vec<Note>,
) -> Result<crate::config::BondConfig, ConfigError> {
    let mut draft = netdev::draft(unit)?;
    network::add_slaves(&mut draft, networks, notes)?;
    network::add_network(&mut draft, networks)?;
    draft.finish("write Mode=active-backup in [Bond]")
}

impl Unit {
    /// Returns the last value of a key; `None` if it was not set, or set to nothing.
    fn last(&self, section: &str, key: &str) -> Option<&Entry> {
        let entry = self.entries.iter().rev().find(|entry| entry.section == section && entry.key == key);
        entry.filter(|entry| !entry.value.is_empty())
    }

    /// Returns all assignments of a list, without those before an empty one.
    fn all(&self, section: &str, key: &str) -> Vec<&Entry> {
        let mut all = Vec::new();
        for entry in self.entries.iter().filter(|entry| entry.section == section && entry.key == key) {
            if entry.value.is_empty() {
                all.clear();
            } else {
                all.push(entry);
            }
        }
        all
    }

    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

/// Reads the files with a suffix, in the order of their names, each with its drop-ins.
fn units(
    paths: &[PathBuf],
    suffix: &str,
    files: &mut Files,
    notes: &mut Vec<Note>,
) -> Result<Vec<Unit>, ConfigError> {
    let mut units = Vec::new();
    for path in files::named(paths, |name| name.ends_with(suffix) && !name.starts_with('.'))? {
        if !path.extension().is_some_and(|extension| suffix.ends_with(extension.to_str().unwrap_or("?"))) {
            // A path of the command line that is a file of the other kind.
            continue;
        }
        if files::is_null(&path)? {
            continue;
        }
        let text = files.text(&path)?;
        if text.trim().is_empty() {
            continue;
        }
        let mut entries = ini::parse(&path, &text, Rules::Systemd, notes)?;
        for drop_in in drop_ins(paths, &path)? {
            let found = ini::parse(&drop_in, &files.text(&drop_in)?, Rules::Systemd, notes)?;
            let first = entries.last().map_or(0, |entry: &Entry| entry.instance);
            entries
                .extend(found.into_iter().map(|entry| Entry { instance: first + entry.instance, ..entry }));
        }
        files.count(entries.len(), &path)?;
        units.push(Unit { path, entries });
    }
    Ok(units)
}

/// Returns the drop-ins of a file: `NAME.d/*.conf` in its own directory and in the others.
fn drop_ins(paths: &[PathBuf], unit: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut name = unit.file_name().unwrap_or_default().to_owned();
    name.push(".d");
    let own = unit.parent().map(Path::to_owned);
    let mut directories = Vec::new();
    for directory in paths.iter().filter(|path| **path != unit).cloned().chain(own) {
        let directory = directory.join(&name);
        if !directories.contains(&directory) && files::is_directory(&directory)? {
            directories.push(directory);
        }
    }
    let mut found = files::named(&directories, |name| name.ends_with(".conf"))?;
    let mut masked = Vec::new();
    for path in &found {
        masked.push(files::is_null(path)?);
    }
    let mut masked = masked.into_iter();
    found.retain(|_| masked.next() == Some(false));
    Ok(found)
}
