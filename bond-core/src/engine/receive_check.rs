//! Whether a new active slave is heard at all.
//!
//! A switch port that accepts only the NIC's own MAC (VirtualBox, port security, SR-IOV) takes the link up and
//! drops every frame. The driver does not notice. Here the counters of the data plane are looked at after a
//! failover: frames sent and nothing addressed to the bond received is reason to ask its neighbours, because a
//! host that only broadcasts, or sends to somebody who never answers, hears nothing behind a good port, too.
//! If they do not answer either, somebody should be told.

use bond_common::abi::Slot;

use crate::{Time, event::Asked};

/// How long a slave may go without unicast before its neighbours are asked.
const ASK_AFTER: Time = Time::from_secs(2);
/// How many frames it must have sent by then.
const ENOUGH_SENT: u64 = 10;
/// How long the neighbours have for an answer.
const ANSWER_WITHIN: Time = Time::from_secs(1);
/// How often counters are asked for in the first seconds, when the failover may just have been noticed, ...
const OFTEN: Time = Time::from_secs(1);
const OFTEN_FOR: Time = Time::from_secs(5);
/// ... and later.
const SELDOM: Time = Time::from_secs(10);

/// What the data plane has counted on one slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    pub tx_packets: u64,
    pub rx_unicast: u64,
}

/// Watches one active slave from the failover until it is heard.
///
/// ```text
///           frames sent, none back          they are asked           no answer in time
/// Listening ---------------------> Asking ----------------> Asked -------------------> Told
///     ^                              |
///     +------------------------------+
///            there is nobody to ask
/// ```
///
/// A unicast frame ends it in any state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HearingTest {
    slot: Slot,
    since: Time,
    next_look: Time,
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
    Told {
        sent: u64,
    },
}

/// What a look at the counters has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing new.
    Wait,
    /// The neighbours are to be asked; [`HearingTest::asked`] is the answer.
    Ask,
    /// Told once: so many frames were sent, and none came back.
    NoUnicast { sent: u64 },
    /// The test is over. `was_told` if [`Verdict::NoUnicast`] came before.
    Heard { was_told: bool },
}

impl HearingTest {
    /// Begins at the failover. The caller reads the counters at once: that is the baseline.
    pub fn new(slot: Slot, now: Time) -> Self {
        let next_look = now.saturating_add(OFTEN);
        Self { slot, since: now, next_look, baseline: None, state: State::Listening }
    }

    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Frames sent since the failover, once it is told that nothing came back.
    pub fn no_unicast(&self) -> Option<u64> {
        match self.state {
            State::Told { sent } => Some(sent),
            State::Listening | State::Asking | State::Asked { .. } => None,
        }
    }

    /// When the counters are to be read next.
    pub fn deadline(&self) -> Time {
        self.next_look
    }

    /// True if the counters are to be read now; the next look is then later.
    #[must_use]
    pub fn take_due(&mut self, now: Time) -> bool {
        if now < self.next_look {
            return false;
        }
        let pause = if now < self.since.saturating_add(OFTEN_FOR) { OFTEN } else { SELDOM };
        self.next_look = now.saturating_add(pause);
        true
    }

    /// Nobody looked for so long: the slave, and its neighbours, have that time once more.
    pub fn postpone(&mut self, time: Time) {
        let later = |at: Time| at.saturating_add(time);
        self.baseline = self.baseline.map(|(from, counters)| (later(from), counters));
        if let State::Asked { at } = self.state {
            self.state = State::Asked { at: later(at) };
        }
    }

    pub fn look(&mut self, now: Time, counters: Counters) -> Verdict {
        let restarted =
            |base: Counters| counters.tx_packets < base.tx_packets || counters.rx_unicast < base.rx_unicast;
        let (from, base) = match self.baseline {
            Some((from, base)) if !restarted(base) => (from, base),
            // Counters begin at 0 when the programs are loaded anew.
            Some(_) | None => *self.baseline.insert((now, counters)),
        };
        let sent = counters.tx_packets.saturating_sub(base.tx_packets);
        if counters.rx_unicast > base.rx_unicast {
            return Verdict::Heard { was_told: self.no_unicast().is_some() };
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
                self.state = State::Told { sent };
                Verdict::NoUnicast { sent }
            }
            State::Told { .. } => {
                self.state = State::Told { sent };
                Verdict::Wait
            }
        }
    }

    /// The neighbours were asked, or there is nobody who could answer.
    pub fn asked(&mut self, now: Time, asked: Asked) {
        if self.state != State::Asking {
            return;
        }
        self.state = match asked {
            Asked::Nobody => State::Listening,
            Asked::Somebody => {
                self.next_look = now.saturating_add(ANSWER_WITHIN);
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

    fn test() -> HearingTest {
        HearingTest::new(Slot::new(1).unwrap(), at(0))
    }

    #[test]
    fn verdicts() {
        /// At which time (ms), tx_packets, rx_unicast, and what follows. Who is to be asked is asked at once.
        type Look = (u64, u64, u64, Verdict);
        #[rustfmt::skip]
        let cases: [(&str, &[Look]); 7] = [
            ("heard at once", &[(0, 5, 5, Wait), (1000, 30, 6, Heard { was_told: false })]),
            ("too early, then told once", &[(5, 0, 9, Wait), (2004, 400, 9, Wait), (2005, 400, 9, Ask), (3004, 500, 9, Wait), (3005, 500, 9, NoUnicast { sent: 500 }), (4000, 600, 9, Wait)]),
            ("too few frames", &[(0, 0, 0, Wait), (4000, 9, 0, Wait), (5000, 10, 0, Ask)]),
            ("neighbours answer", &[(0, 0, 0, Wait), (2000, 90, 0, Ask), (3000, 95, 1, Heard { was_told: false })]),
            ("heard again", &[(0, 0, 0, Wait), (2000, 90, 0, Ask), (3000, 90, 0, NoUnicast { sent: 90 }), (4000, 95, 1, Heard { was_told: true })]),
            ("idle", &[(0, 7, 7, Wait), (60_000, 7, 7, Wait)]),
            ("counters restarted", &[(0, 900, 900, Wait), (3000, 20, 0, Wait), (4999, 90, 0, Wait), (5000, 91, 0, Ask), (6000, 91, 0, NoUnicast { sent: 71 })]),
        ];
        for (name, looks) in cases {
            let mut test = test();
            for (now, tx, rx, expected) in looks {
                assert_eq!(test.look(at(*now), counters(*tx, *rx)), *expected, "{name}, at {now} ms");
                test.asked(at(*now), Asked::Somebody);
            }
        }
    }

    #[test]
    fn with_nobody_to_ask_nothing_is_told() {
        let mut test = test();
        let _ = test.look(at(0), counters(0, 0));
        for second in 2..100 {
            assert_eq!(test.look(at(second * 1000), counters(1000, 0)), Ask, "at {second} s");
            assert_eq!(test.look(at(second * 1000), counters(1000, 0)), Wait, "not answered");
            test.asked(at(second * 1000), Asked::Nobody);
        }
    }

    #[test]
    fn answers_are_looked_for_when_they_have_had_their_time() {
        let mut test = test();
        let _ = test.look(at(0), counters(0, 0));
        // Of an answer that nobody waits for, nothing follows.
        test.asked(at(500), Asked::Somebody);
        assert_eq!(test.deadline(), at(1000));
        assert!(test.take_due(at(60_000)));
        assert_eq!((test.look(at(60_000), counters(10, 0)), test.deadline()), (Ask, at(70_000)));
        test.asked(at(60_010), Asked::Somebody);
        assert_eq!(test.deadline(), at(61_010));
    }

    #[test]
    fn looks_each_second_and_after_five_each_ten() {
        let mut test = test();
        let mut looks = Vec::new();
        while looks.len() < 8 {
            let now = test.deadline();
            assert!(!test.take_due(now - at(1)) && test.take_due(now));
            looks.push(now.as_secs());
        }
        assert_eq!(looks, [1, 2, 3, 4, 5, 15, 25, 35]);
    }

    #[test]
    fn what_was_sent_is_kept_up_to_date() {
        let mut test = test();
        let _ = test.look(at(0), counters(0, 0));
        assert_eq!((test.look(at(2000), counters(40, 0)), test.no_unicast()), (Ask, None));
        test.asked(at(2000), Asked::Somebody);
        assert_eq!(
            (test.look(at(3000), counters(50, 0)), test.no_unicast()),
            (NoUnicast { sent: 50 }, Some(50))
        );
        assert_eq!((test.look(at(4000), counters(80, 0)), test.no_unicast()), (Wait, Some(80)));
    }
}
