//! Numbers, times and paragraphs in columns.

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

/// Formats a number in at most 9 columns: exactly up to ten million, then in thousands, millions or billions (10^9).
pub(super) fn count(number: u64) -> String {
    match number {
        0..10_000_000 => number.to_string(),
        10_000_000..1_000_000_000 => format!("{}k", number / 1_000),
        1_000_000_000..1_000_000_000_000 => format!("{}M", number / 1_000_000),
        _ => format!("{}G", number / 1_000_000_000),
    }
}

/// Formats a time in at most 8 columns.
pub(super) fn short(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..10_000 => format!("{us} us"),
        us @ 10_000..10_000_000 => format!("{} ms", us / 1_000),
        us => format!("{} s", us / 1_000_000),
    }
}

/// Formats microseconds.
pub(super) fn took(us: u64) -> String {
    short(Duration::from_micros(us))
}

/// Returns the two largest units of a time.
pub(super) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// Wraps words in lines of at most 80 columns; further lines are indented a little more.
pub(super) fn wrap(text: &mut String, indent: &str, words: &str) -> fmt::Result {
    wrap_below(text, indent, indent, words)
}

/// Wraps words; lines after the first have another indentation.
pub(super) fn wrap_below(text: &mut String, first: &str, indent: &str, words: &str) -> fmt::Result {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in words.split(' ') {
        if !is_empty && line.len() + 1 + word.len() > 80 {
            writeln!(text, "{}", line.trim_end())?;
            line = indent.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    writeln!(text, "{}", line.trim_end())
}
