//! Sections, keys and values: the syntax of systemd's units, and of NetworkManager's keyfiles (GKeyFile).
//!
//! No library for such files has either program's rules (continued lines, comments, repeated keys), and both are few.

use std::path::Path;

use bond_core::name::shortened;

use super::{
    draft::differs,
    files::{self, at},
};
use crate::config::{ConfigError, Note, Origin, Problem};

/// Whose rules a text follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// A backslash at its end continues a line; `#` and `;` begin comments; what is wrong is ignored line by line.
    Systemd,
    /// Only `#` begins a comment; what is wrong spoils the file.
    Keyfile,
}

/// `Key=value` in a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    /// Sections are counted over a file, so that two of one name are distinguished.
    pub(super) instance: usize,
    pub(super) key: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl Entry {
    /// Returns an error about the value.
    pub(super) fn bad_value(&self, wanted: impl ToString) -> ConfigError {
        let (key, value) = (self.key.clone(), self.value.clone());
        let problem = Problem::BadValue { key, value, wanted: wanted.to_string() };
        ConfigError::new(self.origin.clone(), problem)
    }

    /// Parses the value.
    ///
    /// # Errors
    /// It is not what is wanted.
    pub(super) fn parsed<T: std::str::FromStr>(&self, wanted: &str) -> Result<T, ConfigError> {
        self.value.parse().map_err(|_| self.bad_value(wanted))
    }

    /// Returns the entry as its file has it.
    pub(super) fn text(&self) -> String {
        format!("{}={}", shortened(&self.key), shortened(&self.value))
    }

    /// Returns the note that xbond leaves this key to other programs.
    pub(super) fn not_applied(&self) -> Note {
        Note::NotApplied { origin: self.origin.clone(), key: format!("[{}] {}", self.section, self.text()) }
    }
}

/// Parses a text; `path` is for messages. Lines that its program ignores become notes.
///
/// # Errors
/// The program that the text is for refuses the whole, too.
pub(super) fn parse(
    path: &Path,
    text: &str,
    rules: Rules,
    notes: &mut Vec<Note>,
) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    let mut section: Option<String> = None;
    let mut instance = 0;
    for (line, text) in lines(path, text, rules)? {
        let origin = at(path, line);
        let refuse = |why: &str| {
            Err(ConfigError::new(at(path, line), Problem::Syntax(format!("{}: {why}", shortened(&text)))))
        };
        if let Some(rest) = text.strip_prefix('[') {
            let Some(name) = rest.strip_suffix(']') else {
                return refuse("a section begins with [, and ends with ]");
            };
            section = Some(name.to_owned());
            instance += 1;
            continue;
        }
        let pair = text.split_once('=').map(|(key, value)| (key.trim(), value.trim()));
        match (pair, &section) {
            (Some((key, value)), Some(section)) if !key.is_empty() => entries.push(Entry {
                section: section.clone(),
                instance,
                key: key.to_owned(),
                value: value.to_owned(),
                origin,
            }),
            _ if rules == Rules::Keyfile => return refuse("not a section, key=value, or comment"),
            (Some(_), None) => {
                notes.push(differs(
                    &origin,
                    format!("{}: ignored, because it is in no section", shortened(&text)),
                ));
            }
            _ => notes.push(differs(
                &origin,
                format!("{}: ignored, because it is not Key=value", shortened(&text)),
            )),
        }
    }
    Ok(entries)
}

/// Returns the lines with something in them, each with the number of its first one.
fn lines(path: &Path, text: &str, rules: Rules) -> Result<Vec<(usize, String)>, ConfigError> {
    let is_comment =
        |line: &str, _| line.starts_with('#') || rules == Rules::Systemd && line.starts_with(';');
    files::lines(path, text, rules == Rules::Systemd, is_comment)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, rules: Rules) -> String {
        let mut notes = Vec::new();
        match parse(Path::new("f"), text, rules, &mut notes) {
            Err(error) => error.to_string(),
            Ok(entries) => {
                let entries = entries.iter().map(|entry| {
                    format!("{} [{}{}] {}", entry.origin, entry.section, entry.instance, entry.text())
                });
                entries.chain(notes.iter().map(ToString::to_string)).collect::<Vec<_>>().join("; ")
            }
        }
    }

    #[test]
    fn lines_are_those_of_systemd() {
        let table = [
            ("[A]\nK = v \n", "f:2 [A1] K=v"),
            ("[A]\n# c\n; d\nK=v # not a comment", "f:4 [A1] K=v # not a comment"),
            ("[A]\nK=a \\\n# c\n  b\\\nc\nL=", "f:2 [A1] K=a  b c; f:6 [A1] L="),
            ("[A]\nK=v\n[A]\nK=w=x", "f:2 [A1] K=v; f:4 [A2] K=w=x"),
            (
                "K=v\n[A]\nword\n",
                "f:1: K=v: ignored, because it is in no section; f:3: word: ignored, because it is not Key=value",
            ),
            ("[A\nK=v", "f:1: [A: a section begins with [, and ends with ]"),
            ("\u{feff}[A]\r\nK=v\r\n", "f:2 [A1] K=v"),
            ("[A]\nK=v\\", "f:2 [A1] K=v"),
            ("", ""),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text, Rules::Systemd), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_are_those_of_keyfiles() {
        let table = [
            ("[a]\nk=v;w;\n", "f:2 [a1] k=v;w;"),
            ("# c\n\n[a]\nk=v\\\n", "f:4 [a1] k=v\\"),
            ("k=v", "f:1: k=v: not a section, key=value, or comment"),
            ("[a]\nword", "f:2: word: not a section, key=value, or comment"),
            ("[a]\n;x=1", "f:2 [a1] ;x=1"),
        ];
        for (text, expected) in table {
            assert_eq!(shown(text, Rules::Keyfile), expected, "{text:?}");
        }
    }
}
