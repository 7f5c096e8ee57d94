//! The bodies of requests and answers. Reports, receipts and events are in [`crate::report`].

use bond_core::{
    name::{InterfaceName, shortened_sentence},
    purpose::Purpose,
};
use serde::{Deserialize, Serialize};

use super::ErrorKind;

/// The body of every answer that is not a success.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence: what failed, on what, and what to do. A line each, if several things failed.
    pub error: String,
    /// What kind of error the first one is; an agent of an earlier version does not say.
    #[serde(default)]
    pub kind: ErrorKind,
    /// What was done nevertheless, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
}

impl Failure {
    /// Returns a failure before which nothing was done.
    pub fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        Self { error: shortened_sentence(&error.into()).into_owned(), kind, changes: Vec::new() }
    }
}

/// The answer to a change.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// What the driver would have done silently.
    pub notes: Vec<String>,
    /// What was done, a line each, where the request does not say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// What of it is not done yet, a sentence each; the status is 202 then. The agent continues with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
}

/// The most options that one request sets.
pub const MOST_OPTIONS: usize = 64;

/// The most bonds that one request adds.
pub const MOST_BONDS: usize = 64;

/// A change of options: keys and values as `xbond set` takes them, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionChange {
    /// Options with their values, in this order.
    pub set: Vec<(String, String)>,
}

/// Bonds to create.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewBonds {
    /// As in a file.
    pub toml: String,
    /// How slaves that do not exist are treated.
    #[serde(default)]
    pub missing_slaves: MissingSlaves,
}

/// What happens if a slave does not exist when its bond is created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MissingSlaves {
    /// The bond is refused: the command line named the slave, by mistake.
    Refuse,
    /// The slave joins when it appears: a file named it.
    #[default]
    Await,
}

/// A bond of the kernel's driver that is to be taken over.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTakeover {
    /// The bond, as in a file. Addresses and routes are moved as they are, and not those of the file.
    pub toml: String,
    /// Seconds after which it is led back, unless it is confirmed; without it the driver's bond is removed at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<std::num::NonZeroU32>,
}

/// A slave to drain.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDrain {
    /// Seconds after which the drain ends, from 1 on; without it the administrator ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<std::num::NonZeroU32>,
    /// The reason, for `xbond show` and the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Purpose>,
}

/// An interface to enslave, with options as `xbond set --slave` takes them, in order.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSlave {
    /// The interface.
    pub name: InterfaceName,
    /// Options of the slave with their values.
    #[serde(default)]
    pub options: Vec<(String, String)>,
}
