//! Time spans and sizes in systemd's notation.

/// Milliseconds of the units of a time span, longest names included (`systemd.time`).
const UNITS: &[(&[&str], f64)] = &[
    (&["us", "usec", "\u{b5}s", "\u{3bc}s"], 0.001),
    (&["ms", "msec"], 1.0),
    (&["", "s", "sec", "second", "seconds"], 1000.0),
    (&["m", "min", "minute", "minutes"], 60_000.0),
    (&["h", "hr", "hour", "hours"], 3_600_000.0),
    (&["d", "day", "days"], 86_400_000.0),
    (&["w", "week", "weeks"], 604_800_000.0),
];

/// Parses a time span: numbers with units, which are added. A number without a unit is seconds. The result is in whole
/// milliseconds, as the driver takes them.
pub(super) fn milliseconds(text: &str) -> Option<u32> {
    let mut rest = text.trim();
    let mut sum = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after.trim_start(), |c| c.is_alphabetic());
        let (_, factor) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        sum += number.parse::<f64>().ok()? * factor;
        rest = after.trim_start();
    }
    // A fraction of a millisecond is cut off; the small excess keeps 0.1 s at 100.
    (sum < f64::from(u32::MAX)).then_some((sum + 1e-6) as u32)
}

/// Parses bytes, with a suffix of base 1024.
pub(super) fn bytes(text: &str) -> Option<u32> {
    let (number, suffix) = split(text.trim(), |c| c.is_ascii_digit());
    let factor: u32 = match suffix.trim() {
        "" | "B" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    number.parse::<u32>().ok()?.checked_mul(factor)
}

/// Parses a boolean of systemd.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    match () {
        () if is(&["1", "yes", "y", "true", "t", "on"]) => Some(true),
        () if is(&["0", "no", "n", "false", "f", "off"]) => Some(false),
        () => None,
    }
}

fn split(text: &str, of: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !of(c)).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_spans_are_those_of_systemd() {
        let table = [
            ("100", Some(100_000)),
            ("100ms", Some(100)),
            ("0.1", Some(100)),
            ("0.1s", Some(100)),
            ("1s 500ms", Some(1500)),
            ("1s500ms", Some(1500)),
            ("2 min", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("1500us", Some(1)),
            ("0", Some(0)),
            ("", None),
            ("ms", None),
            ("1x", None),
            ("-1", None),
            ("1.1.1", None),
            ("infinity", None),
            ("99999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(milliseconds(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_have_the_base_1024() {
        let table = [
            ("1500", Some(1500)),
            ("9K", Some(9216)),
            ("1 K", Some(1024)),
            ("9k", None),
            ("", None),
            ("8G", None),
        ];
        for (text, expected) in table {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }
}
