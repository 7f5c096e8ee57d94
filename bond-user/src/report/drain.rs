//! A drain, for requests and reports.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// The reason that an administrator gives for a drain: printable text of at most 200 characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Purpose(String);

/// A text that is no [`Purpose`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reason for a drain is one line of at most {} characters", Purpose::LONGEST)]
pub struct BadPurpose;

impl Purpose {
    /// Characters.
    const LONGEST: usize = 200;
}

impl TryFrom<String> for Purpose {
    type Error = BadPurpose;

    fn try_from(text: String) -> Result<Self, BadPurpose> {
        let is_short = text.chars().count() <= Self::LONGEST;
        if is_short && !text.chars().any(char::is_control) { Ok(Self(text)) } else { Err(BadPurpose) }
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

/// A drained slave, in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// When it was drained.
    pub since: Moment,
    /// Seconds until the drain ends by itself; null if the administrator ends it.
    pub seconds_left: Option<u64>,
    /// The reason that the administrator gave.
    pub why: Option<Purpose>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_is_one_short_line() {
        assert!("new cable, ä".parse::<Purpose>().is_ok());
        for text in ["a\nb", "\x1b[31m", &"x".repeat(201)] {
            assert!(text.parse::<Purpose>().is_err(), "{text:?}");
        }
    }
}
