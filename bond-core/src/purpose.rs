//! The reason that an administrator gives for something.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::name::is_invisible;

/// Why an administrator does something: one line of printable text with at most 200 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Purpose(String);

/// A text that is no [`Purpose`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reason is one line of at most {} characters", Purpose::LONGEST)]
pub struct BadPurpose;

impl Purpose {
    /// Characters.
    const LONGEST: usize = 200;
}

impl TryFrom<String> for Purpose {
    type Error = BadPurpose;

    fn try_from(text: String) -> Result<Self, BadPurpose> {
        let is_short = text.chars().count() <= Self::LONGEST;
        let is_shown = |character: char| !character.is_control() && !is_invisible(character);
        if is_short && text.chars().all(is_shown) { Ok(Self(text)) } else { Err(BadPurpose) }
    }
}

impl From<Purpose> for String {
    fn from(purpose: Purpose) -> Self {
        purpose.0
    }
}

impl FromStr for Purpose {
    type Err = BadPurpose;

    fn from_str(text: &str) -> Result<Self, BadPurpose> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_one_short_line() {
        assert!("new cable, ä".parse::<Purpose>().is_ok());
        for text in ["a\nb", "\x1b[31m", "a\u{202e}b", &"x".repeat(201)] {
            assert!(text.parse::<Purpose>().is_err(), "{text:?}");
        }
    }
}
