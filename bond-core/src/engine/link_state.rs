//! The MII state of a slave's link, with updelay and downdelay.

use crate::{Time, status::MiiStatus};

/// The driver's `link` of a slave (BOND_LINK_*), moved by [`LinkState::next`].
///
/// ```text
///                link gone, downdelay                      downdelay over
///         Up --------------------------> GoingDown --------------------------> Down
///          ^                                 |                                 | ^
///          |            link back            |                                 | |
///          +---------------------------------+                                 | |
///          |                                                                   | |
///          |        updelay over                     link back, updelay        | |
///          +--------------------------- GoingBack <----------------------------+ |
///                                            |             link gone             |
///                                            +-----------------------------------+
/// ```
///
/// A delay of 0 skips the state in between. The source is `bond_miimon_inspect`. A delay is a deadline here; the driver
/// counts ticks of miimon. Under ARP monitoring [`super::arp_monitor`] sets the state: Up or Down or, while no slave is
/// active, one of the two states of a slave that probes in the round robin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Usable.
    Up,
    /// The link failed; the slave stays usable until `until`.
    GoingDown { until: Time },
    /// Not usable.
    Down,
    /// The link recovered; the slave is not used before `until`, unless no other slave is up.
    GoingBack { until: Time },
    /// No slave is active, and this one probes (BOND_LINK_BACK).
    Probing,
    /// No slave is active, and this one probed and received nothing (BOND_LINK_FAIL).
    Unanswered,
}

/// The kind of link monitoring, and its delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Monitoring {
    /// No monitoring (miimon 0). Slaves are up. A slave that was down when monitoring ended is up again after a
    /// notification that its link is up.
    Off,
    /// ARP monitoring: reception decides, not links.
    Arp,
    /// MII monitoring.
    Mii { updelay: Time, downdelay: Time },
}

impl Monitoring {
    /// Returns the monitoring with an updelay of 0 if `ignore`: updelay does not count while the bond has no active slave.
    #[must_use]
    pub fn without_updelay(self, ignore: bool) -> Self {
        match self {
            Self::Mii { downdelay, .. } if ignore => Self::Mii { updelay: Time::ZERO, downdelay },
            Self::Off | Self::Arp | Self::Mii { .. } => self,
        }
    }
}

impl LinkState {
    /// Returns the state of a slave that has just joined (`bond_enslave`).
    pub fn at_enslave(now: Time, link_up: bool, monitoring: Monitoring) -> Self {
        match monitoring {
            Monitoring::Off => Self::Up,
            Monitoring::Arp if link_up => Self::Up,
            Monitoring::Arp => Self::Down,
            Monitoring::Mii { .. } => Self::Down.next(now, link_up, monitoring),
        }
    }

    /// Returns the next state after a poll or notification of the link. A repetition does no harm.
    #[must_use]
    pub fn next(self, now: Time, link_up: bool, monitoring: Monitoring) -> Self {
        let (updelay, downdelay) = match monitoring {
            Monitoring::Off if link_up || self == Self::Up => return Self::Up,
            Monitoring::Off => return Self::Down,
            Monitoring::Arp => return self.without_delay(),
            Monitoring::Mii { updelay, downdelay } => (updelay, downdelay),
        };
        match (self, link_up) {
            (Self::Up, true) => Self::Up,
            (Self::Up, false) if downdelay.is_zero() => Self::Down,
            (Self::Up, false) => Self::GoingDown { until: now.saturating_add(downdelay) },
            (Self::GoingDown { .. }, true) => Self::Up,
            (Self::GoingDown { until }, false) if until <= now => Self::Down,
            (Self::GoingDown { until }, false) => Self::GoingDown { until },
            (Self::Down | Self::Probing | Self::Unanswered, true) if updelay.is_zero() => Self::Up,
            (Self::Down | Self::Probing | Self::Unanswered, true) => {
                Self::GoingBack { until: now.saturating_add(updelay) }
            }
            (Self::Down | Self::Probing | Self::Unanswered, false) => Self::Down,
            (Self::GoingBack { until }, true) if until <= now => Self::Up,
            (Self::GoingBack { until }, true) => Self::GoingBack { until },
            (Self::GoingBack { .. }, false) => Self::Down,
        }
    }

    /// Ends a delay of MII monitoring, for other kinds of monitoring.
    fn without_delay(self) -> Self {
        match self {
            Self::GoingDown { .. } | Self::GoingBack { .. } => Self::Down,
            Self::Up | Self::Down | Self::Probing | Self::Unanswered => self,
        }
    }

    /// Returns the time at which [`Self::next`] has to be called even if the link does not change.
    pub fn deadline(self) -> Option<Time> {
        match self {
            Self::GoingDown { until } | Self::GoingBack { until } => Some(until),
            Self::Up | Self::Down | Self::Probing | Self::Unanswered => None,
        }
    }

    /// Returns the state with its delay extended by `time`.
    pub fn postponed(self, time: Time) -> Self {
        match self {
            Self::GoingDown { until } => Self::GoingDown { until: until.saturating_add(time) },
            Self::GoingBack { until } => Self::GoingBack { until: until.saturating_add(time) },
            Self::Up | Self::Down | Self::Probing | Self::Unanswered => self,
        }
    }

    pub fn is_up(self) -> bool {
        self == Self::Up
    }

    pub fn mii_status(self) -> MiiStatus {
        match self {
            Self::Up => MiiStatus::Up,
            Self::GoingDown { .. } | Self::Unanswered => MiiStatus::GoingDown,
            Self::Down => MiiStatus::Down,
            Self::GoingBack { .. } | Self::Probing => MiiStatus::GoingBack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LinkState::*, *};

    const fn ms(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    const NOW: Time = ms(10_000);
    const DELAYED: Monitoring = Monitoring::Mii { updelay: ms(400), downdelay: ms(200) };
    const PROMPT: Monitoring = Monitoring::Mii { updelay: ms(0), downdelay: ms(0) };
    const LATER: Time = ms(10_001);

    /// Every state with every link, under every kind of monitoring.
    #[test]
    fn every_state_with_every_link() {
        let (off, delayed, prompt) = (Monitoring::Off, DELAYED, PROMPT);
        #[rustfmt::skip]
        let table = [
            // state                        link   off   arp         prompt                      delayed
            (Up,                            true,  Up,   Up,         Up,                         Up),
            (Up,                            false, Up,   Up,         Down,                       GoingDown { until: ms(10_200) }),
            (GoingDown { until: LATER },    true,  Up,   Down,       Up,                         Up),
            (GoingDown { until: LATER },    false, Down, Down,       GoingDown { until: LATER }, GoingDown { until: LATER }),
            (GoingDown { until: NOW },      true,  Up,   Down,       Up,                         Up),
            (GoingDown { until: NOW },      false, Down, Down,       Down,                       Down),
            (Down,                          true,  Up,   Down,       Up,                         GoingBack { until: ms(10_400) }),
            (Down,                          false, Down, Down,       Down,                       Down),
            (GoingBack { until: LATER },    true,  Up,   Down,       GoingBack { until: LATER }, GoingBack { until: LATER }),
            (GoingBack { until: LATER },    false, Down, Down,       Down,                       Down),
            (GoingBack { until: NOW },      true,  Up,   Down,       Up,                         Up),
            (GoingBack { until: NOW },      false, Down, Down,       Down,                       Down),
            (Probing,                       true,  Up,   Probing,    Up,                         GoingBack { until: ms(10_400) }),
            (Probing,                       false, Down, Probing,    Down,                       Down),
            (Unanswered,                    true,  Up,   Unanswered, Up,                         GoingBack { until: ms(10_400) }),
            (Unanswered,                    false, Down, Unanswered, Down,                       Down),
        ];
        for (state, link, with_off, with_arp, with_prompt, with_delayed) in table {
            let columns = [
                (off, with_off),
                (Monitoring::Arp, with_arp),
                (prompt, with_prompt),
                (delayed, with_delayed),
            ];
            for (monitoring, expected) in columns {
                let next = state.next(NOW, link, monitoring);
                assert_eq!(next, expected, "{state:?}, link {link}, {monitoring:?}");
                assert_eq!(
                    next.next(NOW, link, monitoring),
                    next,
                    "repeated: {state:?}, link {link}, {monitoring:?}"
                );
            }
        }
    }

    #[test]
    fn the_state_at_enslaving_depends_on_link_and_monitoring() {
        let table = [
            (Monitoring::Off, true, Up),
            (Monitoring::Off, false, Up),
            (Monitoring::Arp, true, Up),
            (Monitoring::Arp, false, Down),
            (PROMPT, true, Up),
            (PROMPT, false, Down),
            (DELAYED, true, GoingBack { until: ms(10_400) }),
            (DELAYED, false, Down),
        ];
        for (monitoring, link, expected) in table {
            assert_eq!(LinkState::at_enslave(NOW, link, monitoring), expected, "{monitoring:?}, link {link}");
        }
    }

    #[test]
    fn a_delay_beyond_the_end_of_time_is_survived() {
        let state = Up.next(Time::MAX, false, DELAYED);
        assert_eq!(state, GoingDown { until: Time::MAX });
        assert_eq!(state.next(Time::MAX, false, DELAYED), Down);
    }
}
