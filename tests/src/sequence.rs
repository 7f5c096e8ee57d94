//! Accounting of numbered packets: a pure function of the packets that were sent and that arrived.

use std::{fmt, ops::Range, time::Duration};

/// A flow without an arrival for this long before its sender stopped had not recovered.
const SILENCE: Duration = Duration::from_millis(500);

/// A packet that arrived. Times count from the start of the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// From 0, in the order of sending.
    pub sequence: u32,
    pub at: Duration,
}

/// The result of a flow. Times count from its start.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Packets that the sender offered to its stack, those included that the stack refused.
    pub sent: u64,
    /// Different packets that arrived.
    pub received: u64,
    /// `sent - received`
    pub lost: u64,
    /// Further copies of packets that had arrived.
    pub duplicated: u64,
    /// Packets that arrived after one with a higher number (RFC 4737).
    pub reordered: u64,
    /// The longest time without an arrival while the flow was being sent.
    pub longest_gap: Duration,
    gaps: Vec<Gap>,
    /// For each number, whether it arrived.
    seen: Vec<bool>,
    last_sent: Duration,
}

/// Prints the account without the list of all packets.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("sent", &self.sent)
            .field("received", &self.received)
            .field("lost", &self.lost)
            .field("duplicated", &self.duplicated)
            .field("reordered", &self.reordered)
            .field("longest_gap", &self.longest_gap)
            .field("longest_loss", &self.longest_loss())
            .finish_non_exhaustive()
    }
}

/// How a flow recovered from an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// From the event to the end of the longest gap after it in which packets were lost; zero if there is none.
    After(Duration),
    /// Nothing arrived in the last half second of sending.
    Never,
}

/// Time between two arrivals, or before the first, or from the last to the end of sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    from: Duration,
    to: Duration,
    /// Packets are missing between the two arrivals: a gap of the network, not of the sender's scheduling.
    lossy: bool,
}

impl Gap {
    fn length(self) -> Duration {
        self.to.saturating_sub(self.from)
    }
}

impl Account {
    /// Computes the account of `sent` packets, the last of them sent at `last_sent`, from their `arrivals` in order
    /// of time.
    pub fn of(sent: u64, last_sent: Duration, arrivals: &[Arrival]) -> Self {
        let mut seen = vec![false; usize::try_from(sent).unwrap_or(usize::MAX)];
        let (mut received, mut duplicated, mut reordered) = (0, 0, 0);
        let mut highest = None;
        for arrival in arrivals {
            match seen.get_mut(arrival.sequence as usize) {
                // A number that was never sent is foreign.
                None => continue,
                Some(seen) if *seen => duplicated += 1,
                Some(seen) => {
                    *seen = true;
                    received += 1;
                    if highest.is_some_and(|highest| arrival.sequence < highest) {
                        reordered += 1;
                    }
                }
            }
            highest = highest.max(Some(arrival.sequence));
        }
        let gaps = gaps(last_sent, arrivals);
        let longest_gap = gaps.iter().map(|gap| gap.length()).max().unwrap_or_default();
        Self {
            sent,
            received,
            lost: sent - received,
            duplicated,
            reordered,
            longest_gap,
            gaps,
            seen,
            last_sent,
        }
    }

    /// Returns the longest time without an arrival in which packets were lost, up to the last arrival; zero if none
    /// were lost.
    pub fn longest_loss(&self) -> Duration {
        let lossy = self.gaps.iter().filter(|gap| gap.lossy);
        lossy.map(|gap| gap.length()).max().unwrap_or_default()
    }

    /// Returns how the flow recovered from what happened at `event`.
    pub fn recovery(&self, event: Duration) -> Recovery {
        let last_arrival = self.gaps.last().map_or(Duration::ZERO, |gap| gap.from);
        if self.last_sent.saturating_sub(last_arrival) > SILENCE {
            return Recovery::Never;
        }
        let of_event = self.gaps.iter().filter(|gap| gap.lossy && gap.to > event);
        let longest = of_event.max_by_key(|gap| gap.length());
        Recovery::After(longest.map_or(Duration::ZERO, |gap| gap.to.saturating_sub(event)))
    }

    /// Returns when the last packet was sent.
    pub fn last_sent(&self) -> Duration {
        self.last_sent
    }

    /// Returns how many of the packets with these numbers were lost.
    pub fn lost_among(&self, numbers: Range<u64>) -> u64 {
        let [from, to] = [numbers.start, numbers.end]
            .map(|number| usize::try_from(number).unwrap_or(usize::MAX).min(self.seen.len()));
        let lost = self.seen.get(from..to).unwrap_or_default().iter().filter(|seen| !**seen);
        lost.count() as u64
    }

    /// Returns the longest of the [`Self::holes`] that overlap this time; zero if there is none.
    pub fn outage_within(&self, time: Range<Duration>) -> Duration {
        let holes = self.holes().filter(|&(from, to)| to > time.start && from < time.end);
        holes.map(|(from, to)| to.saturating_sub(from)).max().unwrap_or_default()
    }

    /// Returns the gaps in which packets were lost: the arrivals before and after, in order.
    pub fn holes(&self) -> impl Iterator<Item = (Duration, Duration)> {
        self.gaps.iter().filter(|gap| gap.lossy).map(|gap| (gap.from, gap.to))
    }

    /// Returns the longest of [`Self::holes`]; zero if there is none.
    pub fn outage(&self) -> Duration {
        self.holes().map(|(from, to)| to.saturating_sub(from)).max().unwrap_or_default()
    }
}

/// Returns all gaps in order; the last one is from the last arrival to the end of sending.
fn gaps(last_sent: Duration, arrivals: &[Arrival]) -> Vec<Gap> {
    let (mut from, mut awaited) = (Duration::ZERO, 0);
    let mut gaps = Vec::with_capacity(arrivals.len() + 1);
    for arrival in arrivals {
        gaps.push(Gap { from, to: arrival.at, lossy: arrival.sequence > awaited });
        from = arrival.at;
        awaited = awaited.max(arrival.sequence.saturating_add(1));
    }
    gaps.push(Gap { from, to: last_sent, lossy: false });
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Returns the arrivals of packets that were sent every 10 ms and arrived at once.
    fn arrivals(sequences: &[u32]) -> Vec<Arrival> {
        let at = |place: usize, sequence: u32| Arrival {
            sequence,
            at: ms(10 * u64::from(sequence)).max(ms(place as u64)),
        };
        sequences.iter().enumerate().map(|(place, sequence)| at(place, *sequence)).collect()
    }

    #[test]
    fn counts_are_those_of_the_arrivals() {
        #[rustfmt::skip]
        let table: [(&str, u64, &[u32], [u64; 4]); 8] = [
            // what            sent  arrived             received lost duplicated reordered
            ("all",              4,  &[0, 1, 2, 3],      [4, 0, 0, 0]),
            ("none",             4,  &[],                [0, 4, 0, 0]),
            ("first lost",       4,  &[1, 2, 3],         [3, 1, 0, 0]),
            ("last lost",        4,  &[0, 1, 2],         [3, 1, 0, 0]),
            ("a copy",           4,  &[0, 1, 1, 2, 3],   [4, 0, 1, 0]),
            ("a late copy",      4,  &[0, 1, 2, 3, 1],   [4, 0, 1, 0]),
            ("one overtaken",    4,  &[0, 2, 1, 3],      [4, 0, 0, 1]),
            ("foreign number",   2,  &[0, 7, 1],         [2, 0, 0, 0]),
        ];
        for (what, sent, sequences, expected) in table {
            let account = Account::of(sent, ms(10 * sent), &arrivals(sequences));
            let Account { received, lost, duplicated, reordered, .. } = account;
            assert_eq!([received, lost, duplicated, reordered], expected, "{what}");
        }
    }

    #[test]
    fn gaps_reach_from_the_start_to_the_end_of_sending() {
        let early = Account::of(100, ms(1000), &arrivals(&(70..100).collect::<Vec<_>>()));
        assert_eq!(early.longest_gap, ms(700));
        let late = Account::of(100, ms(1000), &arrivals(&(0..20).collect::<Vec<_>>()));
        assert_eq!(late.longest_gap, ms(810));
    }

    #[test]
    fn recovery_is_the_end_of_the_longest_gap_after_the_event() {
        let hole = |from, to| {
            let sequences: Vec<u32> = (0..from).chain(to..200).collect();
            Account::of(200, ms(2000), &arrivals(&sequences))
        };
        // Packets 50 to 69 were lost: the next arrival is 70, at 700 ms.
        assert_eq!(hole(50, 70).recovery(ms(505)), Recovery::After(ms(195)));
        assert_eq!(hole(50, 50).recovery(ms(505)), Recovery::After(ms(0)), "nothing lost");
        assert_eq!(hole(50, 200).recovery(ms(505)), Recovery::Never);
        assert_eq!((hole(50, 70).outage(), hole(50, 50).outage()), (ms(210), ms(0)));
    }

    #[test]
    fn losses_are_reported_by_number_and_by_time() {
        let sequences: Vec<u32> = (0..20).chain(25..100).chain(102..200).collect();
        let account = Account::of(200, ms(2000), &arrivals(&sequences));
        let lost = |numbers| account.lost_among(numbers);
        assert_eq!((lost(0..200), lost(0..22), lost(22..101), lost(102..500)), (7, 2, 4, 0));
        let outage = |from, to| account.outage_within(ms(from)..ms(to));
        assert_eq!((outage(0, 2000), outage(300, 2000), outage(300, 900)), (ms(60), ms(30), ms(0)));
    }

    #[test]
    fn a_pause_of_the_sender_is_no_gap() {
        let mut arrivals = arrivals(&(0..50).chain(52..200).collect::<Vec<_>>());
        arrivals
            .iter_mut()
            .filter(|arrival| arrival.sequence >= 100)
            .for_each(|arrival| arrival.at += ms(300));
        let account = Account::of(200, ms(2300), &arrivals);
        assert_eq!(account.longest_gap, ms(310));
        assert_eq!(account.recovery(ms(500)), Recovery::After(ms(20)));
    }

    #[test]
    fn a_gap_before_the_event_does_not_count_for_it() {
        let sequences: Vec<u32> = (0..20).chain(60..100).chain(102..200).collect();
        let account = Account::of(200, ms(2000), &arrivals(&sequences));
        assert_eq!((account.longest_gap, account.longest_loss()), (ms(410), ms(410)));
        assert_eq!(account.recovery(ms(1000)), Recovery::After(ms(20)));
    }
}
