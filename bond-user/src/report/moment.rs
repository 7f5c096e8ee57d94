//! A moment, by both clocks.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// A moment for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// UTC, as RFC 3339 has it, to the microsecond. A clock that was set meanwhile shows in it.
    pub time: String,
    /// CLOCK_MONOTONIC, microseconds: since the machine was started. Differences of it are exact.
    pub monotonic_us: u64,
}

impl Moment {
    pub fn now() -> Self {
        Self::at(monotonic())
    }

    /// A moment of CLOCK_MONOTONIC that is not long past.
    pub fn at(monotonic: Duration) -> Self {
        let ago = self::monotonic().saturating_sub(monotonic);
        let wall = SystemTime::now().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        let time = humantime::format_rfc3339_micros(wall).to_string();
        Self { time, monotonic_us: micros(monotonic) }
    }

    /// Seconds since 1970; None if the text is no time.
    pub fn unix_seconds(&self) -> Option<f64> {
        let since = humantime::parse_rfc3339(&self.time).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_secs_f64())
    }

    /// How much later `other` is; zero if it is not.
    pub fn until(&self, other: &Self) -> Duration {
        Duration::from_micros(other.monotonic_us.saturating_sub(self.monotonic_us))
    }
}

/// CLOCK_MONOTONIC, which is also what bpf_ktime_get_ns tells.
pub fn monotonic() -> Duration {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    // The clock exists on every Linux; zero would only make delays longer.
    time.map_or(Duration::ZERO, Duration::from)
}

/// Whole microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_tell_the_same_moment() {
        let before = Moment::at(monotonic() - Duration::from_secs(3));
        let now = Moment::now();
        let by_wall = now.unix_seconds().unwrap() - before.unix_seconds().unwrap();
        let by_monotonic = before.until(&now).as_secs_f64();
        assert!((by_wall - by_monotonic).abs() < 0.5, "{by_wall} {by_monotonic}");
        assert_eq!(now.until(&before), Duration::ZERO);
        assert_eq!((now.time.len(), now.time.ends_with('Z')), ("2026-01-02T03:04:05.678901Z".len(), true));
    }
}
