//! A moment on both clocks.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

#[cfg(any(test, feature = "fake"))]
use crate::sys::fake::time;

/// A moment for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// UTC in RFC 3339, to the microsecond. It reflects changes of the clock.
    pub time: String,
    /// CLOCK_MONOTONIC, microseconds since the machine was started. Differences are exact.
    pub monotonic_us: u64,
}

impl Moment {
    /// Returns the present time.
    pub fn now() -> Self {
        Self::at(monotonic())
    }

    /// Converts a recent time of CLOCK_MONOTONIC.
    pub fn at(monotonic: Duration) -> Self {
        let ago = self::monotonic().saturating_sub(monotonic);
        let wall = wall().checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH);
        let time = humantime::format_rfc3339_micros(wall).to_string();
        Self { time, monotonic_us: micros(monotonic) }
    }

    /// Returns the seconds since 1970; `None` if the text is no time.
    pub fn unix_seconds(&self) -> Option<f64> {
        let since = humantime::parse_rfc3339(&self.time).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(since.as_secs_f64())
    }

    /// Returns how much later `other` is; zero if it is not later.
    pub fn until(&self, other: &Self) -> Duration {
        Duration::from_micros(other.monotonic_us.saturating_sub(self.monotonic_us))
    }
}

/// Returns CLOCK_MONOTONIC of the machine, which bpf_ktime_get_ns also returns. In a time namespace, for example of a
/// container that was moved from another machine, the clock of processes differs from it by an offset.
pub fn monotonic() -> Duration {
    #[cfg(any(test, feature = "fake"))]
    if let Some(time) = time::monotonic() {
        return time;
    }
    of_machine(nix::time::ClockId::CLOCK_MONOTONIC, OFFSETS.monotonic)
}

/// Returns CLOCK_BOOTTIME of the machine, which runs while the machine is suspended, too.
pub fn boottime() -> Duration {
    #[cfg(any(test, feature = "fake"))]
    if let Some(time) = time::boottime() {
        return time;
    }
    of_machine(nix::time::ClockId::CLOCK_BOOTTIME, OFFSETS.boottime)
}

/// Returns the time of day.
fn wall() -> SystemTime {
    #[cfg(any(test, feature = "fake"))]
    if let Some(time) = time::wall() {
        return SystemTime::UNIX_EPOCH + time;
    }
    SystemTime::now()
}

fn of_machine(clock: nix::time::ClockId, offset: Offset) -> Duration {
    // The clocks exist on every Linux; zero would only make delays longer.
    let time = nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from);
    match offset {
        Offset::Ahead(offset) => time.saturating_sub(offset),
        Offset::Behind(offset) => time.saturating_add(offset),
    }
}

/// Returns how far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, in nanoseconds: it increases by the time for which the
/// machine is suspended. In a time namespace it has another base, and may be negative.
pub fn boottime_ahead() -> i128 {
    /// Both clocks are read within this time, or read again.
    const AT_ONCE: i128 = 1_000_000;
    #[cfg(any(test, feature = "fake"))]
    if let Some(time) = time::boottime_ahead() {
        return time.as_nanos() as i128;
    }
    let read =
        |clock| nix::time::clock_gettime(clock).map_or(Duration::ZERO, Duration::from).as_nanos() as i128;
    let both = || {
        let before = read(nix::time::ClockId::CLOCK_MONOTONIC);
        let boottime = read(nix::time::ClockId::CLOCK_BOOTTIME);
        (read(nix::time::ClockId::CLOCK_MONOTONIC) - before, boottime - before)
    };
    loop {
        let (took, ahead) = both();
        if took < AT_ONCE {
            return ahead;
        }
    }
}

/// The offset of a clock of this process's time namespace from the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offset {
    Ahead(Duration),
    Behind(Duration),
}

struct Offsets {
    monotonic: Offset,
    boottime: Offset,
}

/// The offsets cannot change once a process is in the namespace. Kernels without such namespaces have no file.
static OFFSETS: LazyLock<Offsets> = LazyLock::new(|| {
    let text = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    let of = |clock| offset(&text, clock).unwrap_or(Offset::Ahead(Duration::ZERO));
    Offsets { monotonic: of("monotonic"), boottime: of("boottime") }
});

/// Parses the offset of a clock: whole seconds, which may be negative, and nanoseconds, which may not.
fn offset(text: &str, clock: &str) -> Option<Offset> {
    let mut words = text.lines().find(|line| line.starts_with(clock))?.split_whitespace().skip(1);
    let seconds: i64 = words.next()?.parse().ok()?;
    let nanoseconds = Duration::from_nanos(words.next()?.parse().ok()?);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    Some(if seconds < 0 {
        Offset::Behind(whole.saturating_sub(nanoseconds))
    } else {
        Offset::Ahead(whole.saturating_add(nanoseconds))
    })
}

/// Returns whole microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_as_the_kernel_prints_them() {
        let text = |line: &str| format!("{line}\nboottime            7         0\n");
        for (line, expected) in [
            ("monotonic           0         0", Offset::Ahead(Duration::ZERO)),
            ("monotonic       86400 500000000", Offset::Ahead(Duration::from_millis(86_400_500))),
            ("monotonic         -10 250000000", Offset::Behind(Duration::from_millis(9_750))),
        ] {
            assert_eq!(offset(&text(line), "monotonic"), Some(expected), "{line}");
            let boottime = Offset::Ahead(Duration::from_secs(7));
            assert_eq!(offset(&text(line), "boottime"), Some(boottime), "{line}");
        }
        for text in ["", "boottime 7 0\n", "monotonic\n", "monotonic x 0\n"] {
            assert_eq!(offset(text, "monotonic"), None, "{text}");
        }
    }

    #[test]
    fn both_clocks_give_the_same_moment() {
        let before = Moment::at(monotonic() - Duration::from_secs(3));
        let now = Moment::now();
        let by_wall = now.unix_seconds().unwrap() - before.unix_seconds().unwrap();
        let by_monotonic = before.until(&now).as_secs_f64();
        assert!((by_wall - by_monotonic).abs() < 0.5, "{by_wall} {by_monotonic}");
        assert_eq!(now.until(&before), Duration::ZERO);
        assert_eq!((now.time.len(), now.time.ends_with('Z')), ("2026-01-02T03:04:05.678901Z".len(), true));
    }
}
