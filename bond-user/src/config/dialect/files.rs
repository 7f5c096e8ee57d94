//! Opens files of other programs: with limits, and without executing anything.

use std::path::{Path, PathBuf};

use crate::{
    config::{ConfigError, Origin, Problem, lines::utf8},
    sys::file::{self, FileKind},
};

/// Bytes of all files of one import. Each file has its own limit ([`file::LARGEST`]).
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// Lines, entries or nodes of all files of one import. Readers compare some of them with all others.
const MOST_ENTRIES: usize = 50_000;
/// Bytes of the longest line, with those that continue it.
const LONGEST_LINE: usize = 64 * 1024;

/// Reads the files of one import.
#[derive(Default)]
pub(super) struct Files {
    bytes: usize,
    entries: usize,
}

impl Files {
    /// Returns a file's text.
    ///
    /// # Errors
    /// It cannot be read, is too large, or is not text.
    pub(super) fn text(&mut self, path: &Path) -> Result<String, ConfigError> {
        let bytes = file::read(path).map_err(|error| at_file(path, error.into()))?;
        self.bytes += bytes.len();
        if self.bytes > MOST_BYTES {
            let why =
                format!("with it, the files of this import have more than {MOST_BYTES} bytes, the limit");
            return Err(at_file(path, Problem::Unsupported(why)));
        }
        text_of(path, bytes)
    }

    /// Counts lines, entries or nodes of the files, before the reader works with them.
    ///
    /// # Errors
    /// They are too many; `path` is the file with which they are.
    pub(super) fn count(&mut self, entries: usize, path: &Path) -> Result<(), ConfigError> {
        self.entries += entries;
        if self.entries <= MOST_ENTRIES {
            return Ok(());
        }
        let why =
            format!("with it, the files of this import have more than {MOST_ENTRIES} entries, the limit");
        Err(at_file(path, Problem::Unsupported(why)))
    }
}

/// Returns the lines with something in them, joined and trimmed, each with the number of its first one. A backslash at its end
/// continues a line if `continues`; after one, a comment is left out only if `is_comment` has it.
///
/// # Errors
/// A line is too long.
pub(super) fn lines(
    path: &Path,
    text: &str,
    continues: bool,
    is_comment: impl Fn(&str, bool) -> bool,
) -> Result<Vec<(usize, String)>, ConfigError> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let trimmed = line.trim();
        if is_comment(trimmed, open.is_some()) || (trimmed.is_empty() && open.is_none()) {
            continue;
        }
        let continued = trimmed.strip_suffix('\\').filter(|_| continues);
        let (first, mut joined) = open.take().unwrap_or((number + 1, String::new()));
        joined.push_str(continued.unwrap_or(trimmed));
        if joined.len() > LONGEST_LINE {
            let why = format!("a line of more than {LONGEST_LINE} bytes, the limit");
            return Err(ConfigError::new(at(path, first), Problem::Unsupported(why)));
        }
        if continued.is_some() {
            joined.push(' ');
            open = Some((first, joined));
        } else {
            lines.push((first, joined.trim().to_owned()));
        }
    }
    lines.extend(open.map(|(first, joined)| (first, joined.trim().to_owned())));
    Ok(lines)
}

/// # Errors
/// The bytes are not UTF-8, or contain a zero byte.
fn text_of(path: &Path, bytes: Vec<u8>) -> Result<String, ConfigError> {
    if let Some(zero) = bytes.iter().position(|byte| *byte == 0) {
        let line = bytes.iter().take(zero).filter(|byte| **byte == b'\n').count() + 1;
        return Err(ConfigError::new(at(path, line), Problem::NotText));
    }
    utf8(path, bytes)
}

/// Returns the files that paths name: each itself, and those with a wanted name of each directory. Files of one name hide
/// each other: that of the first path remains. The files are ordered by their names.
///
/// # Errors
/// A directory cannot be read, or a path leads nowhere.
pub(super) fn named(
    paths: &[PathBuf],
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let of_path = match file::kind(path).map_err(|error| at_file(path, error.into()))? {
            FileKind::Directory => entries(path, &is_wanted)?,
            FileKind::File | FileKind::Absent => vec![path.clone()],
        };
        let is_hidden = |file: &PathBuf| files.iter().any(|first| first.file_name() == file.file_name());
        let visible: Vec<_> = of_path.into_iter().filter(|file| !is_hidden(file)).collect();
        files.extend(visible);
    }
    files.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok(files)
}

/// Returns the files with a wanted name of a directory, ordered by their names.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn entries(
    directory: &Path,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files = file::list(directory).map_err(|error| at_file(directory, error.into()))?;
    files.retain(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted));
    files.sort();
    Ok(files)
}

/// Checks that paths lead to a file or a directory.
///
/// # Errors
/// The first path that leads nowhere.
pub(super) fn check_exist(paths: &[PathBuf]) -> Result<(), ConfigError> {
    for path in paths {
        if file::kind(path).map_err(|error| at_file(path, error.into()))? == FileKind::Absent {
            return Err(at_file(path, Problem::NoSuchPath));
        }
    }
    Ok(())
}

/// Returns whether a path is a directory.
///
/// # Errors
/// The lookup fails.
pub(super) fn is_directory(path: &Path) -> Result<bool, ConfigError> {
    let kind = file::kind(path).map_err(|error| at_file(path, error.into()))?;
    Ok(kind == FileKind::Directory)
}

/// Returns whether a path leads to /dev/null.
///
/// # Errors
/// The lookup does not answer.
pub(super) fn is_null(path: &Path) -> Result<bool, ConfigError> {
    file::is_null(path).map_err(|error| at_file(path, error.into()))
}

pub(super) fn at(path: &Path, line: usize) -> Origin {
    Origin::File { path: path.to_owned(), line: Some(line) }
}

pub(super) fn at_file(path: &Path, problem: Problem) -> ConfigError {
    ConfigError::new(Origin::File { path: path.to_owned(), line: None }, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        let refusal = |bytes: &[u8]| text_of(Path::new("f"), bytes.to_vec()).unwrap_err().to_string();
        assert_eq!(refusal(b"a\nb\0c"), "f:2: not UTF-8 text");
        assert_eq!(refusal(b"a\n\n\xff"), "f:3: not UTF-8 text");
    }
}
