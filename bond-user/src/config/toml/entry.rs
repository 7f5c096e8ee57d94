//! A key of a file with its value: typed access, and errors with file and line.

use std::{fmt::Display, path::Path, str::FromStr};

use ::toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};
use bond_common::mac::Mac;
use bond_core::{
    name::InterfaceName,
    options::{self, closest},
};

use crate::config::{ConfigError, Origin, Problem, lines::LineStarts};

/// The most entries of a list of addresses or routes.
const LONGEST_LIST: usize = 1024;

/// A file, and the offsets of its lines.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) path: &'a Path,
    pub(super) lines: &'a LineStarts,
}

impl<'a> File<'a> {
    /// Returns the entries in the order of the file.
    pub(super) fn entries(self, table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
        let mut entries: Vec<_> = table.iter().map(|(key, value)| Entry::new(self, key, value)).collect();
        entries.sort_by_key(|entry| entry.start);
        entries
    }

    pub(super) fn origin(self, byte: Option<usize>) -> Origin {
        Origin::File { path: self.path.to_owned(), line: byte.map(|byte| self.lines.line(byte)) }
    }

    pub(super) fn refuse(self, byte: Option<usize>, problem: Problem) -> ConfigError {
        ConfigError::new(self.origin(byte), problem)
    }
}

/// A key and its value, or a value in the list of a key.
pub(super) struct Entry<'a> {
    pub(super) file: File<'a>,
    pub(super) key: &'a str,
    pub(super) value: &'a DeValue<'a>,
    /// The offset in the file where it begins.
    pub(super) start: usize,
}

impl<'a> Entry<'a> {
    pub(super) fn new(
        file: File<'a>,
        key: &'a Spanned<DeString<'a>>,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        Self { file, key: key.get_ref(), value: value.get_ref(), start: key.span().start }
    }

    pub(super) fn origin(&self) -> Origin {
        self.file.origin(Some(self.start))
    }

    pub(super) fn refuse(&self, problem: Problem) -> ConfigError {
        self.file.refuse(Some(self.start), problem)
    }

    pub(super) fn unknown(&self, table: &str, known: &[&'static str]) -> ConfigError {
        self.refuse(Problem::UnknownKey {
            key: self.key.to_owned(),
            table: table.to_owned(),
            closest: closest(self.key, known.iter().copied()),
            known: known.to_vec(),
        })
    }

    pub(super) fn wrong_type(&self, wanted: &'static str) -> ConfigError {
        let found = match self.value {
            DeValue::String(_) => "text",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(Problem::WrongType { key: self.key.to_owned(), found, wanted })
    }

    pub(super) fn bad_value(&self, value: &str, wanted: impl Display) -> ConfigError {
        let (key, value) = (self.key.to_owned(), value.to_owned());
        self.refuse(Problem::BadValue { key, value, wanted: wanted.to_string() })
    }

    pub(super) fn table(&self) -> Result<Vec<Entry<'a>>, ConfigError> {
        match self.value {
            DeValue::Table(table) => Ok(self.file.entries(table)),
            _ => Err(self.wrong_type("a table")),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<Entry<'a>>, ConfigError> {
        let DeValue::Array(items) = self.value else { return Err(self.wrong_type("a list")) };
        if items.len() > LONGEST_LIST {
            let (key, entries) = (self.key.to_owned(), items.len());
            return Err(self.refuse(Problem::LongList { key, entries, limit: LONGEST_LIST }));
        }
        let item = |item: &'a Spanned<DeValue<'a>>| Entry {
            file: self.file,
            key: self.key,
            value: item.get_ref(),
            start: item.span().start,
        };
        Ok(items.iter().map(item).collect())
    }

    pub(super) fn string(&self) -> Result<&'a str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.wrong_type("text"))
    }

    /// Returns the checked name of an interface.
    pub(super) fn interface_name(&self, name: &str) -> Result<InterfaceName, ConfigError> {
        InterfaceName::new(name).map_err(|error| self.refuse(error.into()))
    }

    pub(super) fn strings(&self) -> Result<Vec<&'a str>, ConfigError> {
        self.list()?.iter().map(Entry::string).collect()
    }

    /// Returns a text, or the texts of a list with commas between them.
    pub(super) fn text_or_list(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::String(text) => Ok(text.to_string()),
            _ => Ok(self.strings()?.join(",")),
        }
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    /// Returns text, or an integer in decimal.
    pub(super) fn scalar(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => Ok(integer.to_string()),
                // Beyond every range; the option's own error names the valid range.
                Err(_) => Ok(integer.to_string()),
            },
            _ => Err(self.wrong_type("text or an integer")),
        }
    }

    /// Returns an option's value: a scalar, or a list of addresses if the option takes several.
    pub(super) fn option_text(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::Array(_) if options::LIST_KEYS.contains(&self.key) => Ok(self.strings()?.join(",")),
            _ => self.scalar(),
        }
    }

    /// Returns a table of numbers as `KEY=VALUE,KEY=VALUE`, or the text in this form.
    pub(super) fn pairs(&self, known: &[&'static str]) -> Result<String, ConfigError> {
        if self.value.is_str() {
            return Ok(self.string()?.to_owned());
        }
        let pair = |entry: &Entry| {
            // Checked before it becomes a part of a text, where a key with a comma would be two.
            if !known.contains(&entry.key) {
                return Err(entry.unknown(self.key, known));
            }
            let number = match entry.value {
                DeValue::Float(number) => number.as_str().to_owned(),
                _ => entry.integer()?,
            };
            Ok(format!("{}={number}", entry.key))
        };
        Ok(self.table()?.iter().map(pair).collect::<Result<Vec<_>, ConfigError>>()?.join(","))
    }

    /// Returns `KEY=TEXT,...` of a table with one of these keys and a list of texts, or of a text, which is returned as it is.
    pub(super) fn choice(&self, known: &[&'static str]) -> Result<String, ConfigError> {
        if self.value.is_str() {
            return Ok(self.string()?.to_owned());
        }
        let table = self.table()?;
        if let Some(other) = table.iter().find(|entry| !known.contains(&entry.key)) {
            return Err(other.unknown(self.key, known));
        }
        let [entry] = table.as_slice() else { return Err(self.wrong_type("a table with one key")) };
        let texts = entry.strings()?;
        // A text with a comma would be two.
        match texts.iter().find(|text| text.contains(',')) {
            Some(text) => Err(entry.bad_value(text, "one word")),
            None => Ok(format!("{}={}", entry.key, texts.join(","))),
        }
    }

    /// Returns an integer, in decimal.
    pub(super) fn integer(&self) -> Result<String, ConfigError> {
        match self.value {
            DeValue::Integer(_) => self.scalar(),
            _ => Err(self.wrong_type("a number")),
        }
    }

    pub(super) fn number(&self, wanted: &'static str) -> Result<u32, ConfigError> {
        let DeValue::Integer(integer) = self.value else { return Err(self.wrong_type(wanted)) };
        u32::from_str_radix(integer.as_str(), integer.radix())
            .map_err(|_| self.bad_value(&integer.to_string(), wanted))
    }

    pub(super) fn parsed<T: FromStr>(&self, wanted: &'static str) -> Result<T, ConfigError> {
        let text = self.string()?;
        text.parse().map_err(|_| self.bad_value(text, wanted))
    }

    pub(super) fn mac(&self) -> Result<Mac, ConfigError> {
        self.parsed("a MAC address of the form 08:00:27:e8:26:58")
    }
}
