//! Checked names of bonds and interfaces, which come from outside.
//!
//! A name becomes a part of a path, of a netlink attribute and of a line on a terminal. Only the checks here create
//! these types, so a function that takes one need not check again.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    ops::Deref,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// The error of a text that cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} cannot be {what}: it {fault}", shortened(name))]
pub struct NameError {
    /// The text.
    pub name: String,
    /// The fault, as the end of a sentence about the text: `is empty`.
    pub fault: &'static str,
    /// The kind of name that was expected, with its article: `the name of a bond`.
    pub what: &'static str,
}

/// A valid name of an interface: one that the kernel accepts (`dev_valid_name`) and that contains no characters which a
/// terminal would execute.
///
/// An existing interface may have another name, because the kernel accepts control characters. Such a name is only
/// printed, through [`printable`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

/// A valid name of a bond: the name of its interface, and of the directories of its pins and files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BondName(String);

/// The files of the agent in the directory that also has a directory for each bond.
const RESERVED: [&str; 3] = ["lock", "xbond.sock", "xbond.sock.new"];

/// Returns why `name` cannot be the name of an interface (`dev_valid_name`), as the end of a sentence; None if it can.
pub fn interface_name_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        "." | ".." => Some("is a directory"),
        _ if name.len() >= libc::IFNAMSIZ => Some("is longer than 15 bytes"),
        _ if name.contains('/') => Some("contains '/'"),
        _ if name.contains(':') => Some("contains ':'"),
        // The kernel treats it as a template of a name.
        _ if name.contains('%') => Some("contains '%'"),
        _ if name.contains(char::is_whitespace) => Some("contains white space"),
        _ if name.contains(char::is_control) => Some("contains a control character"),
        // It changes the order in which the text around it is shown.
        _ if name.contains(is_invisible) => Some("contains an invisible character"),
        _ => None,
    }
}

/// Returns why `name` cannot be the name of a bond, as the end of a sentence; None if it can.
pub fn bond_name_fault(name: &str) -> Option<&'static str> {
    match name {
        "lo" => Some("is the loopback device"),
        // /proc/sys/net/ipv4/conf has directories of these names, so the kernel creates no such interface.
        "all" | "default" => Some("is reserved by the kernel"),
        _ if RESERVED.contains(&name) => Some("is the name of one of xbond's own files; choose another name"),
        _ => interface_name_fault(name),
    }
}

/// Returns whether a character is invisible and changes how others are shown: it sets a direction, or joins.
pub(crate) fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Returns a name or path as one word of a suggested shell command, quoted if a shell would expand or split it. The
/// kernel accepts names such as `a$b` and `x;y`.
pub fn shell_word(word: impl fmt::Display) -> String {
    let word = word.to_string();
    // No name has the one character that cannot be quoted, a zero byte.
    shlex::try_quote(&word).map_or_else(|_| word.clone(), Into::into)
}

/// Characters; the longest text from outside that a message repeats. Longer than each name and address.
const REPEATED: usize = 64;

/// Returns a text from outside as a message repeats it: as it is, or its first 64 characters and three dots. It may have
/// come with a megabyte.
pub fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(REPEATED) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// Characters at either end of a [`whole sentence`](shortened_sentence).
const END_OF_SENTENCE: usize = 1024;

/// Returns a sentence that may repeat words from outside: as it is, or, if it has more than 2048 characters, its
/// beginning, three dots, and its end, where the remedy is.
pub fn shortened_sentence(text: &str) -> Cow<'_, str> {
    let second = text.char_indices().nth(END_OF_SENTENCE);
    let last = text.char_indices().nth_back(END_OF_SENTENCE - 1);
    match (second, last) {
        (Some((end, _)), Some((start, _))) if end < start => {
            let part = |range: Option<&str>| range.unwrap_or_default().to_owned();
            (part(text.get(..end)) + " ... " + &part(text.get(start..))).into()
        }
        _ => text.into(),
    }
}

/// Returns a text from outside in a form that is safe on a terminal: characters that a terminal would execute, or not
/// show, are escaped as in a string of Rust. Line feeds and tabs stay.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for character in text.chars() {
        if !['\n', '\t'].contains(&character) && (character.is_control() || is_invisible(character)) {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

/// Returns JSON in a form that is safe on a terminal, as [`printable`] does for text. The result is JSON, too. serde_json
/// does not escape some of these characters.
pub fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if character != '\n' && (character.is_control() || is_invisible(character)) {
            // JSON contains such characters only in strings.
            let units = character.encode_utf16(&mut units);
            printable.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            printable.push(character);
        }
    }
    printable
}

macro_rules! name {
    ($name:ident, $fault:ident, $what:literal) => {
        impl $name {
            /// Checks a text.
            ///
            /// # Errors
            /// It is not such a name.
            pub fn new(name: impl Into<String>) -> Result<Self, NameError> {
                let name = name.into();
                match $fault(&name) {
                    Some(fault) => Err(NameError { name, fault, what: $what }),
                    None => Ok(Self(name)),
                }
            }

            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        /// It is compared and hashed as its text is.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<String> for $name {
            fn eq(&self, other: &String) -> bool {
                self.0 == *other
            }
        }

        impl PartialEq<$name> for String {
            fn eq(&self, other: &$name) -> bool {
                *self == other.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(InterfaceName, interface_name_fault, "an interface");
name!(BondName, bond_name_fault, "a bond");

impl From<BondName> for InterfaceName {
    fn from(name: BondName) -> Self {
        Self(name.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no request, file or record may name an interface or a bond.
    const HOSTILE: [&str; 20] = [
        "",
        ".",
        "..",
        "/",
        "/tmp/x",
        "../x",
        "a/b",
        "bond0/",
        "bond0/../lock",
        "0123456789abcdef",
        "a:b",
        "eth%d",
        "a b",
        "a\n",
        "a\0",
        "\0",
        "\x1b[31mred",
        "a\u{9b}1m",
        "\u{7f}",
        "a\u{202e}b",
    ];

    #[test]
    fn a_message_repeats_the_beginning_of_a_long_word_and_both_ends_of_a_long_sentence() {
        for word in ["", "bond0", &"\u{e9}".repeat(64)] {
            assert_eq!(shortened(word), word);
        }
        assert_eq!(shortened(&"\u{e9}".repeat(65)), "\u{e9}".repeat(64) + "...");
        let sentence = "\u{e9}".repeat(2048);
        assert_eq!(shortened_sentence(&sentence), sentence);
        let sentence = "a".repeat(1024) + &"b".repeat(1 << 20) + &"c".repeat(1024);
        assert_eq!(shortened_sentence(&sentence), "a".repeat(1024) + " ... " + &"c".repeat(1024));
        let refused = BondName::new("x".repeat(1 << 20)).unwrap_err().to_string();
        assert!(refused.len() < 200, "{} bytes", refused.len());
    }

    #[test]
    fn a_shell_reads_a_name_as_it_is() {
        for word in ["bond0", "eth0.5", "/sys/fs/bpf/xbond/7"] {
            assert_eq!(shell_word(word), word);
        }
        for word in [
            "",
            "a$HOME",
            "x;y",
            "$(id)",
            "`id`",
            "a'b",
            "a\"b",
            "'\"'",
            "a b",
            "\\",
            "*",
            "~",
            "#x",
            "a&",
            "!!",
            "b\u{f6}nd",
        ] {
            let script = format!("printf %s {}", shell_word(word));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), word, "{script}");
        }
    }

    #[test]
    fn names_are_checked_and_nothing_else_makes_them() {
        for name in HOSTILE {
            assert!(InterfaceName::new(name).is_err() && BondName::new(name).is_err(), "{name:?}");
            let json = serde_json::to_string(name).unwrap();
            assert!(serde_json::from_str::<InterfaceName>(&json).is_err(), "{name:?}");
            assert!(serde_json::from_str::<BondName>(&json).is_err(), "{name:?}");
        }
        for name in ["lo", "all", "default", "lock", "xbond.sock", "xbond.sock.new"] {
            assert!(InterfaceName::new(name).is_ok() && BondName::new(name).is_err(), "{name:?}");
        }
        for name in ["bond0", "bond0.5", "a", "0123456789abcde", "bönd", "-", "a\"b", "@", "..."] {
            assert_eq!(InterfaceName::new(name).unwrap(), *name);
            assert_eq!(BondName::new(name).unwrap().to_string(), name);
            let json = serde_json::to_string(name).unwrap();
            assert_eq!(
                serde_json::to_string(&serde_json::from_str::<BondName>(&json).unwrap()).unwrap(),
                json
            );
        }
    }

    #[test]
    fn an_error_of_a_name_is_printable() {
        for name in HOSTILE {
            let error = BondName::new(name).unwrap_err().to_string();
            assert_eq!(printable(&error), error, "{name:?}");
        }
        let error = BondName::new("../x").unwrap_err().to_string();
        assert_eq!(error, "\"../x\" cannot be a bond: it contains '/'");
    }

    #[test]
    fn terminal_control_sequences_are_escaped() {
        let table = [
            ("plain, ünïcode\nsecond line", "plain, ünïcode\nsecond line"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("a\rb\tc", "a\\rb\tc"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{feff}", "a\\u{202e}b\\u{feff}"),
        ];
        for (text, wanted) in table {
            assert_eq!(printable(text), wanted);
            let json = serde_json::to_string_pretty(&[text]).unwrap();
            let printed = printable_json(&json);
            assert_eq!(printable(&printed), printed, "{text:?}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&printed).unwrap(), [text]);
        }
    }
}
