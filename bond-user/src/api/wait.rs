//! `?wait=SECONDS`: how long a change waits for its end.

use std::time::Duration;

/// How long a change waits for its end, unless the request says otherwise.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(10);
/// The longest wait that a request may ask for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Parses the seconds that a change waits. Returns `None` if it is no number, negative, or beyond [`LONGEST_WAIT`].
pub fn parse_wait(seconds: &str) -> Option<Duration> {
    let wait = Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?;
    (wait <= LONGEST_WAIT).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_seconds_within_bounds() {
        for (text, expected) in [
            ("0", Some(0)),
            ("0.25", Some(250)),
            ("3600", Some(3_600_000)),
            ("3600.1", None),
            ("-1", None),
            ("inf", None),
            ("NaN", None),
            ("", None),
            ("1&wait=2", None),
        ] {
            assert_eq!(parse_wait(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }
}
