//! A late agent: an engine that was not called in time judges no slave by the time that has passed.
//!
//! The agent may be stopped (SIGSTOP, a debugger), kept from running (steal time, a busy machine), or suspended with its
//! machine. Its deadlines have passed then, but slaves did not have that time: no probes were sent, and the known link
//! states are old.

use super::*;

/// A step of a monitor may be late by an interval divided by this: every judgement allows half an interval more
/// (`bond_time_in_interval`).
const TOLERANCE: u32 = 2;
/// The precision of timers and schedulers.
const TOLERANCE_AT_LEAST: Time = Time::from_millis(5);
/// The shortest time between two notices.
const BETWEEN_NOTICES: Time = Time::from_secs(10);

/// Lateness that is not reported yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    reported: Option<Time>,
    times: u32,
    worst: Time,
}

impl Lateness {
    /// Counts a late call. Returns the number of late calls and the longest lateness if a notice is due.
    pub fn note(&mut self, now: Time, late: Time) -> Option<(u32, Time)> {
        self.times = self.times.saturating_add(1);
        self.worst = self.worst.max(late);
        if self.reported.is_some_and(|at| now < at.saturating_add(BETWEEN_NOTICES)) {
            return None;
        }
        let Self { times, worst, .. } = *self;
        *self = Self { reported: Some(now), ..Self::default() };
        Some((times, worst))
    }
}

impl Engine {
    /// Detects, before an event is handled, that the time of a monitor's step has passed.
    pub(super) fn notice_lateness(&mut self, now: Time) {
        if let Some(late) = self.lateness(now) {
            self.report_lateness(now, late);
            self.begin_again(now, late);
        }
    }

    /// Returns whether the time of a monitor's step has passed.
    pub(super) fn is_late(&self, now: Time) -> bool {
        self.lateness(now).is_some()
    }

    /// Returns by how much the time of a monitor's step has passed, if that is more than is tolerated.
    fn lateness(&self, now: Time) -> Option<Time> {
        let delays = self.joined_slaves().map(|slave| slave.state.deadline());
        let due = [self.next_poll, self.arp.next_step].into_iter().chain(delays).flatten().min()?;
        Some(now.saturating_sub(due)).filter(|late| *late > self.tolerance())
    }

    /// Handles a suspension of the machine, which its clock does not count.
    pub(super) fn suspended(&mut self, now: Time, time: Time) {
        if self.next_poll.is_some() || self.arp.next_step.is_some() {
            self.notify(Notice::Suspended { ms: millis(time) });
            self.begin_again(now, Time::ZERO);
        }
    }

    /// Detects that the round of probes of the last step was sent late, or failed late.
    pub(super) fn notice_late_probe(&mut self, now: Time) {
        let Some(asked) = self.arp.asked.take() else { return };
        let late = now.saturating_sub(asked);
        if late > self.tolerance() {
            self.report_lateness(now, late);
            self.arp.is_late = true;
        }
    }

    pub(super) fn report_lateness(&mut self, now: Time, late: Time) {
        if let Some((times, worst)) = self.lateness.note(now, late) {
            self.notify(Notice::Late { times, ms: millis(worst) });
        }
    }

    fn tolerance(&self) -> Time {
        let interval = match self.options.miimon {
            0 => self.options.arp_interval,
            miimon => miimon,
        };
        (Time::from_millis(interval.into()) / TOLERANCE).max(TOLERANCE_AT_LEAST)
    }

    /// Polls and probes now, and extends the delays of every slave by `late`.
    fn begin_again(&mut self, now: Time, late: Time) {
        for slave in self.slaves.iter_mut().filter(|slave| slave.phase == Phase::Joined) {
            slave.state = slave.state.postponed(late);
        }
        if let Some(receive_check) = &mut self.receive_check {
            receive_check.postpone(late);
        }
        self.next_poll = self.next_poll.map(|_| now);
        if self.arp.next_step.is_some() {
            self.arp.next_step = Some(now);
            self.arp.is_late = true;
        }
    }

    /// Makes the step of the ARP monitor of a late agent: it judges no slave, and the grace begins again.
    pub(super) fn late_step(&mut self, now: Time) {
        for slave in self.slaves.iter_mut().filter(|slave| slave.phase == Phase::Joined) {
            slave.path.begin(now);
        }
        match self.arp.round_robin {
            // The same slave probes again.
            Some(slot) => self.ask(now, slot),
            None => self.probe(now),
        }
    }
}

/// Whole milliseconds.
fn millis(time: Time) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lateness_is_reported_once_an_interval_with_the_sum_since_then() {
        let at = Time::from_millis;
        let mut lateness = Lateness::default();
        let table = [
            (0, 60, Some((1, at(60)))),
            (100, 900, None),
            (9_999, 70, None),
            (10_000, 80, Some((3, at(900)))),
            (20_000, 51, Some((1, at(51)))),
        ];
        for (now, late, expected) in table {
            assert_eq!(lateness.note(at(now), at(late)), expected, "at {now} ms");
        }
    }
}
