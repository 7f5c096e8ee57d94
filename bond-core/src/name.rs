//! Names that come from outside: of bonds, and of interfaces that are to be used by name.
//!
//! A name becomes a part of a path, of a netlink attribute and of a line on a terminal. Only the checks here make these
//! types, so whoever is given one need not check again.

use std::{borrow::Borrow, fmt, ops::Deref, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot be {what}: it {fault}")]
pub struct NameError {
    pub name: String,
    /// The rest of a sentence about it.
    pub fault: &'static str,
    /// With its article.
    pub what: &'static str,
}

/// The name of an interface, as the kernel takes it (`dev_valid_name`), without what a terminal would execute.
///
/// An interface that exists may have another name: the kernel lets control characters pass. Such a name is only ever
/// printed, through [`printable`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceName(String);

/// The name of a bond: of an interface, and of the directories that have its pins and files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct BondName(String);

/// Files of an agent, in the directory that has one for each bond.
const RESERVED: [&str; 3] = ["lock", "xbond.sock", "xbond.sock.new"];

/// Why `name` cannot be the name of an interface (`dev_valid_name`).
pub fn interface_name_fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        "." | ".." => Some("is a directory"),
        _ if name.len() >= libc::IFNAMSIZ => Some("is longer than 15 bytes"),
        _ if name.contains('/') => Some("contains '/'"),
        _ if name.contains(':') => Some("contains ':'"),
        // The kernel takes it for a template of a name.
        _ if name.contains('%') => Some("contains '%'"),
        _ if name.contains(char::is_whitespace) => Some("contains white space"),
        _ if name.contains(char::is_control) => Some("contains a control character"),
        // Of the text around it another order is shown than it has.
        _ if name.contains(is_invisible) => Some("contains an invisible character"),
        _ => None,
    }
}

/// Why `name` cannot be the name of a bond.
pub fn bond_name_fault(name: &str) -> Option<&'static str> {
    match name {
        "lo" => Some("is the loopback device"),
        _ if RESERVED.contains(&name) => Some("is the name of one of xbond's own files; choose another name"),
        _ => interface_name_fault(name),
    }
}

/// Characters that are not seen and change how others are shown: they set directions, or join.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A name or path as one word of a command that a sentence suggests: what a shell would expand or split is quoted. The kernel
/// takes names such as `a$b` and `x;y`.
pub fn shell_word(word: impl fmt::Display) -> String {
    let word = word.to_string();
    // No name has the one character that cannot be quoted, a zero byte.
    shlex::try_quote(&word).map_or_else(|_| word.clone(), Into::into)
}

/// A text from outside as it may go to a terminal: what a terminal would execute, or not show, is escaped as in a
/// string of Rust. Ends of lines and tabs stay.
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

/// The same for JSON, which stays JSON: serde_json leaves some of these characters as they are.
pub fn printable_json(json: &str) -> String {
    let mut printable = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if character != '\n' && (character.is_control() || is_invisible(character)) {
            // In JSON they are nowhere but in strings.
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
        for name in ["lo", "lock", "xbond.sock", "xbond.sock.new"] {
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
    fn what_a_terminal_would_execute_is_escaped() {
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
