//! The trial of a bond (`run --confirm`).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{report::moment::boottime, store::paths};

/// The trial of a bond: at its end the bond is removed, unless it was confirmed. A trial outlives the agent that began
/// it, and ends when the machine is restarted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The random number of the boot; `None` if it cannot be read.
    pub(super) boot: Option<String>,
    /// The end, in milliseconds of CLOCK_BOOTTIME of the machine.
    pub(super) until_ms: u64,
    /// The original length in seconds.
    pub(super) seconds: u64,
}

impl Trial {
    /// Returns a trial that begins now.
    pub fn within(limit: Duration) -> Self {
        let until = boottime().saturating_add(limit).as_millis();
        let until_ms = u64::try_from(until).unwrap_or(u64::MAX);
        Self { boot: paths::boot_id(), until_ms, seconds: limit.as_secs() }
    }

    /// Returns the remaining time; zero when the trial is over.
    pub fn left(&self) -> Duration {
        self.left_at(boottime())
    }

    pub(super) fn left_at(&self, boottime: Duration) -> Duration {
        Duration::from_millis(self.until_ms).saturating_sub(boottime)
    }

    /// Returns whether the time for a confirmation is over.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Returns the original length in seconds.
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// Returns the trial that ends first.
    pub fn or_earlier(self, other: Self) -> Self {
        if other.until_ms < self.until_ms { other } else { self }
    }
}
