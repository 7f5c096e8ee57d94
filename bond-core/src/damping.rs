//! Flap damping: the settings, and the penalty of a slave.

use std::{fmt, str::FromStr};

use crate::{Time, name::shortened};

/// The settings of damping. The penalty of a slave grows by one with each link failure, and is halved in each `half_life`.
///
/// Penalties are in thousandths of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damping {
    /// The time in which a penalty is halved.
    pub half_life: Time,
    /// The penalty from which on a slave is suppressed; it is rounded up to whole failures to compare it with this.
    pub suppress: u32,
    /// The penalty below which it is used again; less than `suppress`.
    pub reuse: u32,
    /// The longest suppression after the last failure.
    pub max: Time,
}

/// Thousandths of a failure.
const FAILURE: u32 = 1000;

impl Default for Damping {
    fn default() -> Self {
        Self {
            half_life: Time::from_secs(15),
            suppress: 3 * FAILURE,
            reuse: FAILURE + FAILURE / 2,
            max: Time::from_secs(60),
        }
    }
}

impl Damping {
    /// The keys of the settings, in the order in which they are written.
    pub const KEYS: [&'static str; 4] = ["half_life", "suppress", "reuse", "max"];

    /// Returns the greatest penalty: it falls to `reuse` within `max`.
    fn ceiling(self) -> u32 {
        let ceiling = f64::from(self.reuse) * halvings(self.max, self.half_life).exp2();
        // A cast of a greater value saturates.
        (ceiling as u32).max(self.suppress)
    }

    fn with(self, key: &str, value: &str) -> Result<Self, BadDamping> {
        let seconds =
            || value.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)).map(Time::from_secs);
        let failures = || thousandths(value).filter(|failures| (FAILURE / 10..=1_000_000).contains(failures));
        let bad = || BadDamping::Value { key: key.to_owned(), value: value.to_owned() };
        Ok(match key {
            "half_life" => Self { half_life: seconds().ok_or_else(bad)?, ..self },
            "suppress" => Self { suppress: failures().ok_or_else(bad)?, ..self },
            "reuse" => Self { reuse: failures().ok_or_else(bad)?, ..self },
            "max" => Self { max: seconds().ok_or_else(bad)?, ..self },
            _ => return Err(BadDamping::Key { key: key.to_owned() }),
        })
    }

    /// Returns the values in the order of [`Self::KEYS`].
    pub fn values(self) -> [String; 4] {
        let failures = |thousandths: u32| (f64::from(thousandths) / f64::from(FAILURE)).to_string();
        [
            self.half_life.as_secs().to_string(),
            failures(self.suppress),
            failures(self.reuse),
            self.max.as_secs().to_string(),
        ]
    }
}

/// Parses `half_life=15,suppress=3,reuse=1.5,max=60`: seconds and failures. Keys that are absent have their defaults.
impl FromStr for Damping {
    type Err = BadDamping;

    fn from_str(text: &str) -> Result<Self, BadDamping> {
        if text.trim().is_empty() {
            return Err(BadDamping::Empty);
        }
        let mut damping = Self::default();
        let mut known = Vec::new();
        for pair in text.split(',').map(str::trim) {
            let (key, value) =
                pair.split_once('=').ok_or_else(|| BadDamping::Key { key: pair.to_owned() })?;
            let key = key.trim();
            damping = damping.with(key, value.trim())?;
            if known.contains(&key) {
                return Err(BadDamping::Twice { key: key.to_owned() });
            }
            known.push(key);
        }
        if damping.reuse >= damping.suppress {
            return Err(BadDamping::Order);
        }
        Ok(damping)
    }
}

impl fmt::Display for Damping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = Self::KEYS.iter().zip(self.values()).map(|(key, value)| format!("{key}={value}"));
        f.write_str(&pairs.collect::<Vec<_>>().join(","))
    }
}

/// Why a text is no [`Damping`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDamping {
    /// It is none of [`Damping::KEYS`], or has no value.
    #[error("{:?}: not KEY=VALUE with a key of {}", shortened(.key), Damping::KEYS.join(", "))]
    Key {
        /// What was found.
        key: String,
    },
    /// It is out of range.
    #[error(
        "{key}={}: half_life and max are seconds from 1 to 86400, suppress and reuse failures from 0.1 to 1000",
        shortened(.value)
    )]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// It has no key.
    #[error("it is empty")]
    Empty,
    /// It has a key twice.
    #[error("{key} is given twice")]
    Twice {
        /// The key.
        key: String,
    },
    /// A slave would be used again at once.
    #[error("reuse must be less than suppress")]
    Order,
}

/// Parses a decimal number, such as 1.5, as thousandths.
fn thousandths(text: &str) -> Option<u32> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 3 {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(FAILURE)?.checked_add(fraction)
}

/// Returns how often a penalty is halved in a time.
fn halvings(time: Time, half_life: Time) -> f64 {
    time.as_secs_f64() / half_life.as_secs_f64()
}

/// The penalty of a slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Penalty {
    /// In thousandths of a failure, at `since`.
    value: u32,
    since: Time,
}

impl Penalty {
    /// Adds a failure at `now`.
    pub fn add_failure(&mut self, now: Time, damping: Damping) {
        let value = self.at(now, damping).saturating_add(FAILURE).min(damping.ceiling());
        *self = Self { value, since: now };
    }

    /// Returns the penalty at `now`, in thousandths of a failure.
    pub fn at(self, now: Time, damping: Damping) -> u32 {
        let passed = now.saturating_sub(self.since);
        (f64::from(self.value) * (-halvings(passed, damping.half_life)).exp2()) as u32
    }

    /// Returns whether the penalty at `now` suppresses its slave. Rounded up, because failures that follow each other quickly
    /// are to count as so many: with the default settings, three within 15 seconds.
    pub fn suppresses(self, now: Time, damping: Damping) -> bool {
        self.at(now, damping).div_ceil(FAILURE).saturating_mul(FAILURE) >= damping.suppress
    }

    /// Returns when the penalty falls below [`Damping::reuse`].
    pub fn reuse_at(self, damping: Damping) -> Time {
        let halvings = (f64::from(self.value) / f64::from(damping.reuse)).log2().max(0.0);
        let wait = Time::try_from_secs_f64(halvings * damping.half_life.as_secs_f64()).unwrap_or(damping.max);
        self.since.saturating_add(wait.min(damping.max))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Time = Time::from_secs(1);

    #[test]
    fn settings_are_parsed_and_written() {
        let default = "half_life=15,suppress=3,reuse=1.5,max=60";
        for (text, expected) in [
            ("", Err(BadDamping::Empty)),
            (" ", Err(BadDamping::Empty)),
            ("max=9,", Err(BadDamping::Key { key: String::new() })),
            ("=3", Err(BadDamping::Key { key: String::new() })),
            ("max=70,max=70", Err(BadDamping::Twice { key: "max".to_owned() })),
            (default, Ok(default)),
            ("max=120, suppress=2.25", Ok("half_life=15,suppress=2.25,reuse=1.5,max=120")),
            ("reuse=3", Err(BadDamping::Order)),
            ("half_life", Err(BadDamping::Key { key: "half_life".to_owned() })),
            ("decay=5", Err(BadDamping::Key { key: "decay".to_owned() })),
        ] {
            let parsed = text.parse().map(|damping: Damping| damping.to_string());
            assert_eq!(parsed, expected.map(str::to_owned), "{text:?}");
        }
        for text in
            ["half_life=0", "max=-1", "suppress=1e3", "reuse=1.2345", "suppress=.5", "suppress=4294968"]
        {
            assert!(matches!(text.parse::<Damping>(), Err(BadDamping::Value { .. })), "{text}");
        }
    }

    #[test]
    fn a_penalty_is_halved_in_each_half_life_and_ends_after_max() {
        let damping = Damping::default();
        let mut penalty = Penalty::default();
        for _ in 0..4 {
            penalty.add_failure(SECOND, damping);
        }
        assert_eq!(penalty.at(SECOND + 15 * SECOND, damping), 2000);
        // From 4 to 1.5: 1.415 half-lives.
        let reuse = penalty.reuse_at(damping).as_secs_f64();
        assert!((22.2..22.3).contains(&reuse), "{reuse}");
        for _ in 0..1000 {
            penalty.add_failure(SECOND, damping);
        }
        assert_eq!(penalty.reuse_at(damping), SECOND + 60 * SECOND);
    }

    proptest! {
        #[test]
        fn a_penalty_is_below_reuse_when_it_is_said_to_be(failures in 1u32..50, gap in 0u64..5000, half_life in 1u64..600) {
            let damping = Damping { half_life: Time::from_secs(half_life), ..Damping::default() };
            let mut penalty = Penalty::default();
            let mut now = SECOND;
            for _ in 0..failures {
                now += Time::from_millis(gap);
                penalty.add_failure(now, damping);
            }
            let at = penalty.reuse_at(damping);
            prop_assert!(at >= now && at <= now + damping.max);
            if at < now + damping.max {
                prop_assert!(penalty.at(at, damping) <= damping.reuse);
            }
        }
    }
}
