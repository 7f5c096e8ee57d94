//! A drain, for requests and reports.

use bond_core::purpose::Purpose;
use serde::{Deserialize, Serialize};

use super::moment::Moment;

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
