//! Drains and damping, for requests and reports.

use std::time::Duration;

use bond_core::{purpose::Purpose, status::SlaveDamping};
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

/// What damping has counted of a slave, in a report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Damped {
    /// Link failures, each halved in every half_life since.
    pub penalty: f64,
    /// When the slave was suppressed; null if it is not.
    pub since: Option<Moment>,
    /// Seconds until it is used like the others if its link is stable; null if it is not suppressed.
    pub seconds_left: Option<u64>,
}

impl Damped {
    /// Returns what is so at `now`, CLOCK_MONOTONIC of the machine.
    pub fn at(damping: &SlaveDamping, now: Duration) -> Self {
        let left = damping.reuse_at().map(|at| at.saturating_sub(now));
        Self {
            penalty: damping.penalty_at(now),
            since: damping.suppressed_since.map(Moment::at),
            // Rounded up: it is not used before.
            seconds_left: left.map(|left| left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)),
        }
    }
}
