//! Reads and writes xbond's own files, in TOML.

mod bond;
mod entry;
mod write;

use std::path::{Path, PathBuf};

use ::toml::de::DeTable;
use bond_core::options::{self, SlaveOptions};

use self::{
    bond::bond,
    entry::{Entry, File},
};
use super::{
    BondConfig, Config, ConfigError, Known, Metrics, Origin, OutputDirectory, Problem, Writers,
    lines::{LineStarts, utf8},
    settings,
};
use crate::sys::file::{self, FileKind};

pub use self::write::write;

const FILE_KEYS: &[&str] = &["version", "agent", "bond"];
const AGENT_KEYS: &[&str] = &["writers", "metrics", "textfile", "proc_files"];
/// Keys of a bond in addition to its settings and options.
const BOND_KEYS: &[&str] = &["slaves", "slave", "addresses", "routes"];
/// Keys of a slave in addition to its options.
pub(super) const SLAVE_KEYS: &[&str] = &["hwaddr", "mac", "mtu"];

const VERSION: &str = "1";

/// Reads files, and the `*.toml` files of directories in the order of their names, and checks the whole.
///
/// # Errors
/// A file cannot be read, or contains a refused setting; the error names the file and, if possible, the line.
pub fn read(paths: &[PathBuf]) -> Result<Config, ConfigError> {
    let mut named = Vec::new();
    for path in paths {
        let files = files_of(path)?;
        if files.is_empty() {
            return Err(at_file(path, Problem::NoFiles));
        }
        named.extend(files);
    }
    read_files(&named)
}

/// Reads one directory, which may be empty or missing.
///
/// # Errors
/// Those of [`read`].
pub fn read_if_any(directory: &Path) -> Result<Config, ConfigError> {
    match kind(directory)? {
        FileKind::Absent => Ok(Config::default()),
        FileKind::Directory | FileKind::File => read_files(&files_in(directory)?),
    }
}

fn read_files(files: &[PathBuf]) -> Result<Config, ConfigError> {
    let (mut config, mut known) = (Config::default(), Known::default());
    for file in files {
        config.merge_with(parse(file, &text_of(file)?)?, &mut known)?;
    }
    config.check()?;
    let doubts: Vec<_> = config.bonds.iter().flat_map(BondConfig::doubts).collect();
    config.notes.extend(doubts);
    Ok(config)
}

/// Reads one file's text; `path` is for messages. The result is not checked as a whole yet.
///
/// # Errors
/// Those of [`read`].
pub fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let lines = LineStarts::of(text);
    let file = File { path, lines: &lines };
    let root = DeTable::parse(text).map_err(|error| {
        // In one line: the parser's own excerpt repeats path and line.
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        let byte = error.span().map_or_else(|| start_of_error_without_span(text), |span| span.start);
        file.refuse(Some(byte), Problem::Syntax(message))
    })?;

    let mut bonds = Vec::new();
    let mut version = None;
    let mut agent = AgentTable::default();
    for entry in file.entries(root.get_ref()) {
        match entry.key {
            "version" => version = Some((entry.scalar()?, entry.origin())),
            "agent" => agent = AgentTable::read(&entry)?,
            "bond" => bonds = entry.table()?,
            _ => return Err(entry.unknown("the file", FILE_KEYS)),
        }
    }
    match version {
        None => return Err(file.refuse(None, Problem::NoVersion)),
        Some((version, origin)) if version != VERSION => {
            return Err(ConfigError::new(origin, Problem::OtherVersion(version)));
        }
        Some(_) => {}
    }
    let bonds = bonds.iter().map(bond).collect::<Result<_, _>>()?;
    let AgentTable { writers, metrics, textfile, proc_files } = agent;
    Ok(Config { bonds, writers, metrics, textfile, proc_files, notes: Vec::new() })
}

/// Returns where the line begins in which the parser found a key with too many dots: it does not say where that is.
fn start_of_error_without_span(text: &str) -> usize {
    let ends: Vec<_> = text.match_indices('\n').map(|(end, _)| end + 1).collect();
    let is_before = |end: &usize| {
        let error = DeTable::parse(text.get(..*end).unwrap_or_default()).err();
        error.is_none_or(|error| error.span().is_some())
    };
    let before = ends.partition_point(is_before);
    before.checked_sub(1).and_then(|last| ends.get(last)).copied().unwrap_or_default()
}

/// Returns the file itself, or the `*.toml` files of a directory in the order of their names.
pub(super) fn files_of(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    match kind(path)? {
        FileKind::Directory => files_in(path),
        FileKind::File | FileKind::Absent => Ok(vec![path.to_owned()]),
    }
}

fn files_in(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = file::list(directory).map_err(|error| at_file(directory, error.into()))?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    Ok(files)
}

/// Returns the text of one file.
pub(super) fn text_of(path: &Path) -> Result<String, ConfigError> {
    let bytes = file::read(path).map_err(|error| at_file(path, error.into()))?;
    utf8(path, bytes)
}

fn kind(path: &Path) -> Result<FileKind, ConfigError> {
    file::kind(path).map_err(|error| at_file(path, error.into()))
}

fn at_file(path: &Path, problem: Problem) -> ConfigError {
    ConfigError::new(Origin::File { path: path.to_owned(), line: None }, problem)
}

/// The table of settings for the agent itself.
#[derive(Default)]
struct AgentTable {
    writers: Option<Writers>,
    metrics: Option<Metrics>,
    textfile: Option<OutputDirectory>,
    proc_files: Option<OutputDirectory>,
}

impl AgentTable {
    fn read(table: &Entry) -> Result<Self, ConfigError> {
        let mut agent = Self::default();
        for entry in table.table()? {
            let origin = entry.origin();
            match entry.key {
                "writers" => agent.writers = Some(Writers { group: entry.string()?.to_owned(), origin }),
                "metrics" => {
                    let address = entry.parsed("an address and a port, like 127.0.0.1:9815")?;
                    agent.metrics = Some(Metrics { address, origin });
                }
                "textfile" => agent.textfile = Some(output_directory(&entry)?),
                "proc_files" => agent.proc_files = Some(output_directory(&entry)?),
                _ => return Err(entry.unknown("agent", AGENT_KEYS)),
            }
        }
        Ok(agent)
    }
}

fn output_directory(entry: &Entry) -> Result<OutputDirectory, ConfigError> {
    let directory = OutputDirectory { path: entry.string()?.into(), origin: entry.origin() };
    let is_absolute = directory.path.is_absolute();
    if is_absolute { Ok(directory) } else { Err(entry.bad_value(entry.string()?, "an absolute path")) }
}

/// Returns every key that a file can have.
pub fn keys() -> Vec<&'static str> {
    [AGENT_KEYS, &bond_keys(), SLAVE_KEYS, SlaveOptions::KEYS].concat()
}

/// Returns every key of a bond's table.
pub(super) fn bond_keys() -> Vec<&'static str> {
    [BOND_KEYS, settings::KEYS, options::KEYS].concat()
}

#[cfg(test)]
mod tests;
