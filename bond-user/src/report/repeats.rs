//! Log lines that may be repeated often: the first ones of a kind are logged, later ones are counted.

use std::{collections::HashMap, time::Duration};

/// The window in which lines are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Lines of one kind in a window.
const AT_FIRST: u32 = 20;
/// Lines in a window after one in which some were omitted.
const AFTERWARDS: u32 = 1;
/// The number of kinds that are stored. With more, all are deleted, and logged again.
const KINDS: usize = 256;

/// How often lines of each kind were logged.
#[derive(Debug, Default)]
pub struct Repeats {
    kinds: HashMap<String, Kind>,
}

#[derive(Debug)]
struct Kind {
    /// When the window began.
    since: Duration,
    logged: u32,
    at_most: u32,
    left_out: u32,
}

impl Repeats {
    /// Returns whether a line of this kind is to be logged now, and how many were omitted since the last one.
    pub fn admit(&mut self, now: Duration, kind: &str) -> Option<u32> {
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(kind) {
            self.kinds.clear();
        }
        let fresh = Kind { since: now, logged: 0, at_most: AT_FIRST, left_out: 0 };
        let kind = self.kinds.entry(kind.to_owned()).or_insert(fresh);
        if now >= kind.since.saturating_add(WINDOW) {
            let continues = kind.left_out > 0 && now < kind.since.saturating_add(2 * WINDOW);
            kind.at_most = if continues { AFTERWARDS } else { AT_FIRST };
            (kind.since, kind.logged) = (now, 0);
        }
        if kind.logged >= kind.at_most {
            kind.left_out = kind.left_out.saturating_add(1);
            return None;
        }
        kind.logged = kind.logged.saturating_add(1);
        Some(std::mem::take(&mut kind.left_out))
    }
}

/// Returns the text about the lines that were omitted before this one.
pub fn left_out(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => " (one more line like this was left out)".to_owned(),
        count => format!(" ({count} more lines like this were left out)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates one line per second: returns which are logged, and with which count.
    fn logged(repeats: &mut Repeats, seconds: std::ops::Range<u64>) -> Vec<(u64, u32)> {
        let admit = |second| Some((second, repeats.admit(Duration::from_secs(second), "link of eth1")?));
        seconds.filter_map(admit).collect()
    }

    #[test]
    fn a_line_per_second_becomes_one_per_minute_with_a_count() {
        let mut repeats = Repeats::default();
        let first: Vec<_> = (0..20).map(|second| (second, 0)).collect();
        assert_eq!(logged(&mut repeats, 0..60), first);
        assert_eq!(logged(&mut repeats, 60..240), [(60, 40), (120, 59), (180, 59)]);
        // After a pause, the line is logged at once again.
        assert_eq!(logged(&mut repeats, 1000..1002), [(1000, 59), (1001, 0)]);
    }

    #[test]
    fn kinds_are_counted_apart_and_are_not_more_than_so_many() {
        let mut repeats = Repeats::default();
        for second in 0..100 {
            repeats.admit(Duration::from_secs(second), "link of eth1");
        }
        for kind in 0..2 * KINDS {
            assert_eq!(repeats.admit(Duration::from_secs(30), &format!("link of tap{kind}")), Some(0));
            assert!(repeats.kinds.len() <= KINDS);
        }
    }
}
