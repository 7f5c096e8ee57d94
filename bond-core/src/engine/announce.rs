//! The times of announcements after a failover.

use crate::{Time, options::BondOptions};

/// The interval between two rounds if neither peer_notif_delay nor a monitor sets it.
const DEFAULT_INTERVAL: Time = Time::from_millis(100);

/// The interval between two rounds of IGMP and MLD reports (`bond_resend_igmp_join_requests_delayed`).
pub const REPORT_INTERVAL: Time = Time::from_millis(200);

/// The outstanding rounds of announcements (`send_peer_notif`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announcements {
    pub rounds: PendingRounds,
    /// The number of rounds that were requested and are not answered.
    unanswered: u32,
}

/// Rounds of something that is sent after a failover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PendingRounds {
    #[default]
    None,
    /// The active slave's MAC is being changed.
    Held {
        left: u8,
    },
    Due {
        left: u8,
        at: Time,
    },
}

impl Announcements {
    /// True if a round is to be sent now; it then counts as sent.
    #[must_use]
    pub fn take_due(&mut self, now: Time, interval: Time) -> bool {
        let due = self.rounds.take_due(now, interval);
        self.unanswered = self.unanswered.saturating_add(due.into());
        due
    }

    /// Counts the answer that a round was sent.
    pub fn answered(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Returns whether a round is requested and not answered, or held until a MAC address is changed.
    pub fn is_open(&self) -> bool {
        let is_held = matches!(self.rounds, PendingRounds::Held { left } if left > 0);
        self.unanswered > 0 || is_held
    }
}

impl PendingRounds {
    /// Begins this many rounds after a failover, the first at once.
    pub fn begin(&mut self, rounds: u8, now: Time) {
        *self = Self::due(rounds, now);
    }

    /// Begins this many rounds after a failover, the first at [`Self::release`].
    pub fn hold(&mut self, rounds: u8) {
        *self = Self::Held { left: rounds };
    }

    pub fn release(&mut self, now: Time) {
        if let Self::Held { left } = *self {
            *self = Self::due(left, now);
        }
    }

    pub fn cancel(&mut self) {
        *self = Self::None;
    }

    /// True if a round is to be sent now; it then counts as sent.
    #[must_use]
    pub fn take_due(&mut self, now: Time, interval: Time) -> bool {
        let Self::Due { left, at } = *self else { return false };
        if now < at {
            return false;
        }
        *self = Self::due(left.saturating_sub(1), now.saturating_add(interval));
        true
    }

    pub fn deadline(&self) -> Option<Time> {
        match *self {
            Self::Due { at, .. } => Some(at),
            Self::None | Self::Held { .. } => None,
        }
    }

    fn due(left: u8, at: Time) -> Self {
        if left == 0 { Self::None } else { Self::Due { left, at } }
    }
}

/// Returns the interval between two rounds: peer_notif_delay, or an interval of the monitor.
pub fn interval(options: &BondOptions) -> Time {
    [options.peer_notif_delay, options.miimon, options.arp_interval]
        .into_iter()
        .find(|ms| *ms > 0)
        .map_or(DEFAULT_INTERVAL, |ms| Time::from_millis(ms.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    /// Times, in ms, at which rounds are sent, if the engine is called each 10 ms from 1000 to 2000.
    fn times(mut announcements: PendingRounds, interval: Time) -> Vec<u64> {
        (100..=200).map(|tick| tick * 10).filter(|now| announcements.take_due(ms(*now), interval)).collect()
    }

    #[test]
    fn rounds_are_sent_at_their_times() {
        for (rounds, interval, expected) in [
            (0, 100, vec![]),
            (1, 100, vec![1000]),
            (3, 100, vec![1000, 1100, 1200]),
            (3, 300, vec![1000, 1300, 1600]),
            (5, 10, vec![1000, 1010, 1020, 1030, 1040]),
        ] {
            let mut announcements = PendingRounds::default();
            announcements.begin(rounds, ms(1000));
            assert_eq!(times(announcements, ms(interval)), expected, "{rounds} rounds, each {interval} ms");
        }
    }

    #[test]
    fn held_rounds_begin_when_released() {
        let mut announcements = PendingRounds::default();
        announcements.hold(2);
        assert_eq!(announcements.deadline(), None);
        assert_eq!(times(announcements, ms(100)), Vec::<u64>::new());
        announcements.release(ms(1250));
        assert_eq!(times(announcements, ms(100)), [1250, 1350]);
        announcements.cancel();
        assert_eq!((announcements.deadline(), times(announcements, ms(100))), (None, vec![]));
    }

    #[test]
    fn the_pace_is_set_by_peer_notif_delay_then_by_the_monitor() {
        let options = |peer_notif_delay, miimon, arp_interval| BondOptions {
            peer_notif_delay,
            miimon,
            arp_interval,
            ..BondOptions::default()
        };
        assert_eq!(interval(&options(300, 100, 0)), ms(300));
        assert_eq!(interval(&options(0, 50, 0)), ms(50));
        assert_eq!(interval(&options(0, 0, 200)), ms(200));
        assert_eq!(interval(&options(0, 0, 0)), DEFAULT_INTERVAL);
    }
}
