//! Reads `interfaces` files into stanzas, and follows `source` and `source-directory`.

use std::{
    collections::{HashMap, HashSet},
    path::{Component, Path, PathBuf},
};

use bond_core::name::shortened;

use crate::config::{
    ConfigError, Note, Origin, Problem,
    dialect::{
        draft::differs,
        files::{self, Files, at},
    },
};

/// Files that may source each other, one below the other.
const DEEPEST: usize = 16;

/// The directory from which paths of a copied configuration start.
const HOME: &str = "/etc/network";

/// A key of a stanza, and its value.
pub(super) struct Key {
    /// With dashes, as `bond-mode`; underscores mean the same.
    pub(super) name: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

impl Key {
    /// Returns the key as its file has it.
    pub(super) fn text(&self) -> String {
        format!("{} {}", shortened(&self.name), shortened(&self.value))
    }

    pub(super) fn bad_value(&self, wanted: &str) -> ConfigError {
        let (key, value) = (self.name.clone(), self.value.clone());
        ConfigError::new(self.origin.clone(), Problem::BadValue { key, value, wanted: wanted.to_owned() })
    }

    /// Parses the value.
    ///
    /// # Errors
    /// It is not what is wanted.
    pub(super) fn parsed<T: std::str::FromStr>(&self, wanted: &str) -> Result<T, ConfigError> {
        self.value.parse().map_err(|_| self.bad_value(wanted))
    }

    pub(super) fn not_applied(&self) -> Note {
        Note::NotApplied { origin: self.origin.clone(), key: self.text() }
    }
}

/// `iface NAME [FAMILY METHOD]` with its keys.
pub(super) struct Stanza {
    pub(super) name: String,
    pub(super) family: String,
    pub(super) method: String,
    pub(super) origin: Origin,
    pub(super) keys: Vec<Key>,
}

impl Stanza {
    /// Returns the key that makes this interface a slave.
    pub(super) fn master(&self) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == "bond-master")
    }
}

/// The most patterns of interfaces that come up at boot.
const MOST_PATTERNS: usize = 1024;

/// What all files say.
#[derive(Default)]
pub(super) struct Interfaces {
    pub(super) stanzas: Vec<Stanza>,
    /// The places of an interface's stanzas.
    places: HashMap<String, Vec<usize>>,
    /// Interfaces that come up at boot, or when they appear.
    automatic: HashSet<String>,
    /// Patterns of such interfaces.
    patterns: Vec<glob::Pattern>,
    pub(super) notes: Vec<Note>,
}

impl Interfaces {
    /// Returns the stanzas of an interface, in their order.
    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &Stanza> {
        let places = self.places.get(name).map(Vec::as_slice).unwrap_or_default();
        places.iter().filter_map(|place| self.stanzas.get(*place))
    }

    /// Whether an interface comes up at boot, or when it appears.
    pub(super) fn is_automatic(&self, name: &str) -> bool {
        self.automatic.contains(name) || self.patterns.iter().any(|pattern| pattern.matches(name))
    }
}

/// Reads a file and those that it sources.
///
/// # Errors
/// A file cannot be read, sources itself, or has a line that ifupdown refuses.
pub(super) fn read(path: &Path) -> Result<Interfaces, ConfigError> {
    let mut interfaces = Interfaces::default();
    let home = path.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = Reader { files: Files::default(), interfaces: &mut interfaces, home, open: Vec::new() };
    reader.file(path)?;
    Ok(interfaces)
}

struct Reader<'a> {
    files: Files,
    interfaces: &'a mut Interfaces,
    /// The directory of the first file, which stands for /etc/network.
    home: PathBuf,
    /// The files that are being read, the first one first.
    open: Vec<PathBuf>,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = self.files.text(path)?;
        self.open.push(path.to_owned());
        let mut in_iface = false;
        let lines =
            files::lines(path, &text, true, |line, is_continued| !is_continued && line.starts_with('#'))?;
        self.files.count(lines.len(), path)?;
        for (line, text) in lines {
            let origin = at(path, line);
            let (word, rest) = split(&text);
            match word {
                "iface" => {
                    self.iface(rest, origin)?;
                    in_iface = true;
                    continue;
                }
                "source" | "source-directory" => self.source(word, rest, path, &origin)?,
                "auto" => self.automatic(rest, &origin)?,
                "mapping" | "rename" | "no-scripts" | "no-auto-down" | "template" | "no-scripts-in" => {
                    let text =
                        format!("{}: not followed: names are taken as they are written", shortened(&text));
                    if ["mapping", "rename", "template"].contains(&word) {
                        self.interfaces.notes.push(differs(&origin, text));
                    }
                }
                _ if word.starts_with("allow-") => self.automatic(rest, &origin)?,
                _ if in_iface => {
                    self.key(word, rest, origin);
                    continue;
                }
                // Keys of a mapping.
                "script" | "map" => continue,
                _ => {
                    let text = format!("{}: no stanza of this file begins with that", shortened(&text));
                    return Err(ConfigError::new(origin, Problem::Syntax(text)));
                }
            }
            in_iface = false;
        }
        self.open.pop();
        Ok(())
    }

    /// Reads the words of `auto`. Behind a slash they are patterns: `/bond*`, also with a second slash and numbers.
    fn automatic(&mut self, names: &str, origin: &Origin) -> Result<(), ConfigError> {
        for name in names.split_whitespace() {
            let Some(pattern) = name.strip_prefix('/').and_then(|rest| rest.split('/').next()) else {
                self.interfaces.automatic.insert(name.to_owned());
                continue;
            };
            self.interfaces.patterns.extend(glob::Pattern::new(pattern).ok());
            if self.interfaces.patterns.len() > MOST_PATTERNS {
                let text = format!("more than {MOST_PATTERNS} patterns of interfaces, the limit");
                return Err(ConfigError::new(origin.clone(), Problem::Unsupported(text)));
            }
        }
        Ok(())
    }

    fn iface(&mut self, rest: &str, origin: Origin) -> Result<(), ConfigError> {
        let mut words = rest.split_whitespace();
        let Some(name) = words.next() else {
            return Err(ConfigError::new(
                origin,
                Problem::Syntax("iface: no name of an interface".to_owned()),
            ));
        };
        let family = words.next().unwrap_or("inet").to_owned();
        let method = words.next().unwrap_or("manual").to_owned();
        if family == "inherits" || words.next() == Some("inherits") {
            let text = format!("iface {}: inherits is not followed: write the keys here", shortened(rest));
            self.interfaces.notes.push(differs(&origin, text));
        }
        let (name, keys) = (name.to_owned(), Vec::new());
        self.interfaces.places.entry(name.clone()).or_default().push(self.interfaces.stanzas.len());
        self.interfaces.stanzas.push(Stanza { name, family, method, origin, keys });
        Ok(())
    }

    fn key(&mut self, word: &str, rest: &str, origin: Origin) {
        if let Some(stanza) = self.interfaces.stanzas.last_mut() {
            stanza.keys.push(Key { name: word.replace('_', "-"), value: rest.to_owned(), origin });
        }
    }

    /// Reads the files that a pattern fits. Patterns may be in the last part of a path only, and nothing is expanded by a
    /// shell.
    fn source(&mut self, word: &str, rest: &str, from: &Path, origin: &Origin) -> Result<(), ConfigError> {
        let refuse = |why: &str| {
            let text = format!("{word} {}: {why}", shortened(rest));
            Err(ConfigError::new(origin.clone(), Problem::Unsupported(text)))
        };
        if rest.contains(['$', '`', '~', '\\']) {
            return refuse("files are read, and no shell expands their names; write the path itself");
        }
        if self.open.len() >= DEEPEST {
            return refuse("files source each other more than 16 deep, the limit");
        }
        let path = self.path(rest.trim_matches('"'), from);
        let found = if word == "source-directory" || (files::is_directory(&path)?) {
            let is_wanted = |name: &str| {
                name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
            };
            if files::is_directory(&path)? { files::entries(&path, is_wanted)? } else { Vec::new() }
        } else {
            matching(&path)?
        };
        for file in found {
            if self.open.contains(&file) {
                return refuse("the file sources itself");
            }
            if !files::is_directory(&file)? {
                self.file(&file)?;
            }
        }
        Ok(())
    }

    /// Returns the path that a file means. One below /etc/network is looked for where the first file is, which may be a
    /// copy of another host's.
    fn path(&self, text: &str, from: &Path) -> PathBuf {
        let path = Path::new(text);
        let path = match path.strip_prefix(HOME) {
            Ok(below) => self.home.join(below),
            Err(_) if path.is_absolute() => path.to_owned(),
            Err(_) => from.parent().unwrap_or(Path::new("")).join(path),
        };
        let mut plain = PathBuf::new();
        for part in path.components() {
            match part {
                Component::ParentDir if plain.file_name().is_some() => drop(plain.pop()),
                part => plain.push(part),
            }
        }
        plain
    }
}

/// Returns the files that a path with wildcards in its last part fits, ordered by name.
fn matching(path: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![path.to_owned()]);
    }
    let directory = path.parent().unwrap_or(Path::new(""));
    if !files::is_directory(directory)? {
        return Ok(Vec::new());
    }
    let Ok(pattern) = glob::Pattern::new(name) else { return Ok(Vec::new()) };
    files::entries(directory, |name| !name.starts_with('.') && pattern.matches(name))
}

fn split(line: &str) -> (&str, &str) {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    (word, rest.trim())
}
