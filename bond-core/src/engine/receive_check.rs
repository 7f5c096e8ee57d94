//! Detects a new active slave that transmits and receives no unicast.
//!
//! A switch port that accepts only the NIC's own MAC address (VirtualBox, port security, SR-IOV) has a link and drops
//! every frame. The driver does not detect this. Here the engine reads the counters of the data plane after a failover.
//! If the slave has sent frames and received no unicast, the neighbours of the bond are asked, because a host that only
//! broadcasts, or sends to peers that never answer, receives no unicast behind a working port either. If the neighbours
//! do not answer, the engine reports it.

use bond_common::abi::Slot;

use crate::{Time, event::Neighbours};

/// The time without unicast after which the neighbours are asked.
const ASK_AFTER: Time = Time::from_secs(2);
/// The number of frames that the slave must have sent by then.
const ENOUGH_SENT: u64 = 10;
/// The time in which the neighbours have to answer.
const ANSWER_WITHIN: Time = Time::from_secs(1);
/// The interval between two reads of the counters in the first seconds after the failover.
const OFTEN: Time = Time::from_secs(1);
const OFTEN_FOR: Time = Time::from_secs(5);
/// The interval between two reads later.
const SELDOM: Time = Time::from_secs(10);

/// The counters of one slave in the data plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub tx_packets: u64,
    pub rx_unicast: u64,
}

/// Observes one active slave from the failover until it receives unicast.
///
/// ```text
///           frames sent, none back          they are asked           no answer in time
/// Listening ---------------------> Asking ----------------> Neighbours -------------------> Reported
///     ^                              |
///     +------------------------------+
///           no neighbour to ask
/// ```
///
/// A unicast frame ends the test in any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveCheck {
    slot: Slot,
    since: Time,
    next_read: Time,
    baseline: Option<(Time, Counters)>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening,
    Asking,
    Asked {
        at: Time,
    },
    /// Frames sent since the failover.
    Reported {
        sent: u64,
    },
}

/// The result of a read of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    Wait,
    /// Ask the neighbours, and call [`ReceiveCheck::asked`] afterwards.
    Ask,
    /// The slave sent so many frames and received no unicast. Returned once.
    NoUnicast { sent: u64 },
    /// The slave received unicast, and the test is over. `was_reported` if [`Verdict::NoUnicast`] was returned before.
    Received { was_reported: bool },
}

impl ReceiveCheck {
    /// Creates the test at a failover. The caller reads the counters at once, as the baseline.
    pub fn new(slot: Slot, now: Time) -> Self {
        let next_read = now.saturating_add(OFTEN);
        Self { slot, since: now, next_read, baseline: None, state: State::Listening }
    }

    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Returns the number of frames sent since the failover, if [`Verdict::NoUnicast`] was returned.
    pub fn no_unicast(&self) -> Option<u64> {
        match self.state {
            State::Reported { sent } => Some(sent),
            State::Listening | State::Asking | State::Asked { .. } => None,
        }
    }

    /// Returns the time of the next read of the counters.
    pub fn deadline(&self) -> Time {
        self.next_read
    }

    /// Returns whether the counters have to be read now, and if so sets the time of the next read.
    #[must_use]
    pub fn take_due(&mut self, now: Time) -> bool {
        if now < self.next_read {
            return false;
        }
        let pause = if now < self.since.saturating_add(OFTEN_FOR) { OFTEN } else { SELDOM };
        self.next_read = now.saturating_add(pause);
        true
    }

    /// Extends the times of the slave and of its neighbours by `time`, in which the engine was not called.
    pub fn postpone(&mut self, time: Time) {
        let later = |at: Time| at.saturating_add(time);
        self.baseline = self.baseline.map(|(from, counters)| (later(from), counters));
        if let State::Asked { at } = self.state {
            self.state = State::Asked { at: later(at) };
        }
    }

    pub fn check(&mut self, now: Time, counters: Counters) -> Verdict {
        let restarted =
            |base: Counters| counters.tx_packets < base.tx_packets || counters.rx_unicast < base.rx_unicast;
        let (from, base) = match self.baseline {
            Some((from, base)) if !restarted(base) => (from, base),
            // Counters begin at 0 when the programs are loaded again.
            Some(_) | None => *self.baseline.insert((now, counters)),
        };
        let sent = counters.tx_packets.saturating_sub(base.tx_packets);
        if counters.rx_unicast > base.rx_unicast {
            return Verdict::Received { was_reported: self.no_unicast().is_some() };
        }
        match self.state {
            State::Listening if now.saturating_sub(from) < ASK_AFTER || sent < ENOUGH_SENT => Verdict::Wait,
            State::Listening => {
                self.state = State::Asking;
                Verdict::Ask
            }
            State::Asking => Verdict::Wait,
            State::Asked { at } if now.saturating_sub(at) < ANSWER_WITHIN => Verdict::Wait,
            State::Asked { .. } => {
                self.state = State::Reported { sent };
                Verdict::NoUnicast { sent }
            }
            State::Reported { .. } => {
                self.state = State::Reported { sent };
                Verdict::Wait
            }
        }
    }

    /// Handles the answer to [`Verdict::Ask`].
    pub fn asked(&mut self, now: Time, neighbours: Neighbours) {
        if self.state != State::Asking {
            return;
        }
        self.state = match neighbours {
            Neighbours::None => State::Listening,
            Neighbours::Asked => {
                self.next_read = now.saturating_add(ANSWER_WITHIN);
                State::Asked { at: now }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict::*, *};

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    fn counters(tx_packets: u64, rx_unicast: u64) -> Counters {
        Counters { tx_packets, rx_unicast }
    }

    fn test() -> ReceiveCheck {
        ReceiveCheck::new(Slot::new(1).unwrap(), at(0))
    }

    #[test]
    fn verdicts_depend_on_time_and_counters() {
        /// At which time (ms), tx_packets, rx_unicast, and what follows. Who is to be asked is asked at once.
        type Check = (u64, u64, u64, Verdict);
        #[rustfmt::skip]
        let cases: [(&str, &[Check]); 7] = [
            ("received at once", &[(0, 5, 5, Wait), (1000, 30, 6, Received { was_reported: false })]),
            ("too early, then reported once", &[(5, 0, 9, Wait), (2004, 400, 9, Wait), (2005, 400, 9, Ask), (3004, 500, 9, Wait), (3005, 500, 9, NoUnicast { sent: 500 }), (4000, 600, 9, Wait)]),
            ("too few frames", &[(0, 0, 0, Wait), (4000, 9, 0, Wait), (5000, 10, 0, Ask)]),
            ("neighbours answer", &[(0, 0, 0, Wait), (2000, 90, 0, Ask), (3000, 95, 1, Received { was_reported: false })]),
            ("received again", &[(0, 0, 0, Wait), (2000, 90, 0, Ask), (3000, 90, 0, NoUnicast { sent: 90 }), (4000, 95, 1, Received { was_reported: true })]),
            ("idle", &[(0, 7, 7, Wait), (60_000, 7, 7, Wait)]),
            ("counters restarted", &[(0, 900, 900, Wait), (3000, 20, 0, Wait), (4999, 90, 0, Wait), (5000, 91, 0, Ask), (6000, 91, 0, NoUnicast { sent: 71 })]),
        ];
        for (name, polls) in cases {
            let mut test = test();
            for (now, tx, rx, expected) in polls {
                assert_eq!(test.check(at(*now), counters(*tx, *rx)), *expected, "{name}, at {now} ms");
                test.asked(at(*now), Neighbours::Asked);
            }
        }
    }

    #[test]
    fn without_neighbours_nothing_is_reported() {
        let mut test = test();
        let _ = test.check(at(0), counters(0, 0));
        for second in 2..100 {
            assert_eq!(test.check(at(second * 1000), counters(1000, 0)), Ask, "at {second} s");
            assert_eq!(test.check(at(second * 1000), counters(1000, 0)), Wait, "not answered");
            test.asked(at(second * 1000), Neighbours::None);
        }
    }

    #[test]
    fn answers_are_checked_after_their_time() {
        let mut test = test();
        let _ = test.check(at(0), counters(0, 0));
        // An unexpected answer has no effect.
        test.asked(at(500), Neighbours::Asked);
        assert_eq!(test.deadline(), at(1000));
        assert!(test.take_due(at(60_000)));
        assert_eq!((test.check(at(60_000), counters(10, 0)), test.deadline()), (Ask, at(70_000)));
        test.asked(at(60_010), Neighbours::Asked);
        assert_eq!(test.deadline(), at(61_010));
    }

    #[test]
    fn counters_are_read_each_second_and_after_five_each_ten() {
        let mut test = test();
        let mut polls = Vec::new();
        while polls.len() < 8 {
            let now = test.deadline();
            assert!(!test.take_due(now - at(1)) && test.take_due(now));
            polls.push(now.as_secs());
        }
        assert_eq!(polls, [1, 2, 3, 4, 5, 15, 25, 35]);
    }

    #[test]
    fn the_number_of_sent_frames_is_kept_up_to_date() {
        let mut test = test();
        let _ = test.check(at(0), counters(0, 0));
        assert_eq!((test.check(at(2000), counters(40, 0)), test.no_unicast()), (Ask, None));
        test.asked(at(2000), Neighbours::Asked);
        assert_eq!(
            (test.check(at(3000), counters(50, 0)), test.no_unicast()),
            (NoUnicast { sent: 50 }, Some(50))
        );
        assert_eq!((test.check(at(4000), counters(80, 0)), test.no_unicast()), (Wait, Some(80)));
    }
}
