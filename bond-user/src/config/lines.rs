//! Maps keys of a configuration to lines of its files, for messages after the files were read.

use std::{collections::HashMap, path::Path};

use toml::de::{DeTable, DeValue};

use super::{ConfigError, Origin, Problem, shell};

/// The offsets of the lines of a text, so that the line of a byte is found without reading the text again.
#[derive(Clone, Debug)]
pub(super) struct LineStarts(Vec<usize>);

impl LineStarts {
    pub(super) fn of(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self(std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect())
    }

    /// Returns the line, from 1, of a byte.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.0.partition_point(|start| *start <= byte)
    }
}

/// Returns the text of a file's bytes.
///
/// # Errors
/// They are not UTF-8; the error has the line.
pub(super) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, ConfigError> {
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        ConfigError::new(Origin::File { path: path.to_owned(), line: Some(line) }, Problem::NotText)
    })
}

/// A key of a bond, or of a slave of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct KeyPath {
    bond: String,
    slave: Option<String>,
    key: String,
}

/// The lines of all keys in some files. Keys that are missing here were not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    paths: HashMap<KeyPath, Origin>,
}

impl Lines {
    /// Adds the keys of a TOML file. A text that is no TOML has none.
    pub(super) fn add_toml(&mut self, path: &Path, text: &str) {
        let Ok(root) = DeTable::parse(text) else { return };
        let Some(bonds) = table_in(root.get_ref(), "bond") else { return };
        let starts = LineStarts::of(text);
        let origin = |byte: usize| Origin::File { path: path.to_owned(), line: Some(starts.line(byte)) };
        for (bond, value) in bonds {
            let DeValue::Table(keys) = value.get_ref() else { continue };
            for (key, _) in keys {
                self.add(bond.get_ref(), None, key.get_ref(), origin(key.span().start));
            }
            let Some(slaves) = table_in(keys, "slave") else { continue };
            for (slave, value) in slaves {
                let DeValue::Table(keys) = value.get_ref() else { continue };
                for (key, _) in keys {
                    let origin = origin(key.span().start);
                    self.add(bond.get_ref(), Some(slave.get_ref()), key.get_ref(), origin);
                }
            }
        }
    }

    /// Adds the ifcfg file of a bond, or of its slave `slave` if that is given.
    pub(super) fn add_ifcfg(&mut self, bond: &str, slave: Option<&str>, path: &Path, text: &str) {
        const OPTIONS: [&str; 2] = ["BONDING_OPTS", "BONDING_MODULE_OPTS"];
        const KEYS: [(&str, &str); 8] = [
            ("MACADDR", "mac"),
            ("LLADDR", "mac"),
            ("MTU", "mtu"),
            ("HWADDR", "hwaddr"),
            ("IPADDR", "addresses"),
            ("IPV6ADDR", "addresses"),
            ("GATEWAY", "routes"),
            ("IPV6_DEFAULTGW", "routes"),
        ];
        for variable in shell::assignments(text).unwrap_or_default() {
            let origin = Origin::File { path: path.to_owned(), line: Some(variable.line) };
            if OPTIONS.contains(&variable.key.as_str()) {
                for word in variable.value.split_whitespace() {
                    let key = word.split('=').next().unwrap_or(word);
                    self.add(bond, slave, key, origin.clone());
                }
            } else if let Some((_, key)) = KEYS.iter().find(|(name, _)| *name == variable.key) {
                self.add(bond, slave, key, origin);
            }
        }
    }

    /// Adds the keys of other files.
    pub(super) fn extend(&mut self, other: Self) {
        self.paths.extend(other.paths);
    }

    /// Returns the file and line of a key; `None` if it was not written.
    pub fn of(&self, bond: &str, slave: Option<&str>, key: &str) -> Option<&Origin> {
        let slave = slave.map(str::to_owned);
        self.paths.get(&KeyPath { bond: bond.to_owned(), slave, key: key.to_owned() })
    }

    fn add(&mut self, bond: &str, slave: Option<&str>, key: &str, origin: Origin) {
        let slave = slave.map(str::to_owned);
        self.paths.insert(KeyPath { bond: bond.to_owned(), slave, key: key.to_owned() }, origin);
    }
}

fn table_in<'a>(table: &'a DeTable<'a>, key: &str) -> Option<&'a DeTable<'a>> {
    match table.get(key)?.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::LineStarts;

    #[test]
    fn a_byte_is_in_the_line_that_its_line_ends_count() {
        for text in ["", "a", "\n", "a\nbc\n\nd", "\n\n"] {
            let starts = LineStarts::of(text);
            for byte in 0..=text.len() {
                let ends = text.as_bytes()[..byte].iter().filter(|byte| **byte == b'\n').count();
                assert_eq!(starts.line(byte), ends + 1, "{text:?} {byte}");
            }
        }
    }
}
