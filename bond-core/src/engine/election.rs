//! The election of the active slave.

use bond_common::abi::Slot;

use super::link_state::LinkState;
use crate::{Time, command::Chosen, event::Link, options::PrimaryReselect};

/// The properties of a slave that count in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub slot: Slot,
    pub state: LinkState,
    pub prio: i32,
    pub link: Link,
}

/// The outcome of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    pub slot: Slot,
    pub why: Chosen,
}

/// An election: the candidates and the rules.
#[derive(Clone, Copy, Debug)]
pub struct Election<'a> {
    /// The joined slaves, in enslave order.
    pub candidates: &'a [Candidate],
    /// The active slave before the election.
    pub current: Option<Slot>,
    /// The slave that the option `primary` names, if it is enslaved.
    pub primary: Option<Slot>,
    /// The primary was just set and takes over under every `reselect` (`force_primary`).
    pub force_primary: bool,
    pub reselect: PrimaryReselect,
}

/// The best slave that is up, and the slave that it would take over from.
struct Contest<'a> {
    challenger: &'a Candidate,
    merit: Chosen,
    /// None if the active slave is not up, or if a forced primary takes over from any slave.
    current: Option<&'a Candidate>,
}

impl Election<'_> {
    /// Returns the slave to make active, None if none can be (`bond_find_best_slave`). If no slave is up, this is a slave
    /// in updelay, which becomes up (`bond_change_active_slave`).
    pub fn best(&self) -> Option<Choice> {
        self.primary_or_current().or_else(|| self.soonest_back())
    }

    /// Returns the slave that may take over from the current one as soon as both speeds are known. Until then the outcome
    /// is preliminary. The driver reads speeds before it elects, and waits for RTNL.
    pub fn open_for(&self) -> Option<Slot> {
        let contest = self.contest().filter(|_| self.reselect == PrimaryReselect::Better)?;
        contest.is_open().then_some(contest.challenger.slot)
    }

    /// Applies `reselect` (`bond_choose_primary_or_current`). None if no slave is up.
    fn primary_or_current(&self) -> Option<Choice> {
        let contest = self.contest()?;
        let Contest { challenger, merit, current } = contest;
        let challenging = |why| Choice { slot: challenger.slot, why };
        let Some(current) = current else { return Some(challenging(merit)) };
        let is_better = |link: Link, than: Link| (link.speed, link.duplex) > (than.speed, than.duplex);
        Some(match self.reselect {
            _ if current.slot == challenger.slot && merit != Chosen::Primary => kept(current),
            PrimaryReselect::Always => challenging(merit),
            PrimaryReselect::Better if contest.is_open() => kept(current),
            PrimaryReselect::Better if is_better(challenger.link, current.link) => {
                challenging(Chosen::Better)
            }
            PrimaryReselect::Better | PrimaryReselect::Failure => kept(current),
        })
    }

    /// None if nothing is up.
    fn contest(&self) -> Option<Contest<'_>> {
        let current = self.up(self.current);
        if let Some(primary) = self.up(self.primary) {
            let current = current.filter(|_| !self.force_primary);
            return Some(Contest { challenger: primary, merit: Chosen::Primary, current });
        }
        let best = self.highest_prio()?;
        Some(Contest { challenger: best, merit: self.merit(best), current })
    }

    /// Returns why [`Self::highest_prio`] precedes the others that are up.
    fn merit(&self, best: &Candidate) -> Chosen {
        let up = || self.candidates.iter().filter(|slave| slave.state.is_up());
        let mut others = up().filter(|slave| slave.slot != best.slot).peekable();
        if others.peek().is_none() {
            return Chosen::OnlyOneUp;
        }
        let is_first = up().next().is_some_and(|first| first.slot == best.slot);
        if is_first && others.any(|slave| slave.prio == best.prio) {
            return Chosen::FirstEnslaved;
        }
        Chosen::Prio
    }

    /// Returns the slave with the highest prio among those that are up, the first of equals.
    fn highest_prio(&self) -> Option<&Candidate> {
        self.candidates
            .iter()
            .filter(|slave| slave.state.is_up())
            .reduce(|best, slave| if slave.prio > best.prio { slave } else { best })
    }

    /// Returns the slave with the shortest rest of updelay, the first of equals.
    fn soonest_back(&self) -> Option<Choice> {
        let left = |slave: &Candidate| -> Option<(Time, Slot)> {
            match slave.state {
                LinkState::GoingBack { until } => Some((until, slave.slot)),
                // A slave that probes in the round robin must receive an answer first.
                LinkState::Up
                | LinkState::GoingDown { .. }
                | LinkState::Down
                | LinkState::Probing
                | LinkState::Unanswered => None,
            }
        };
        let soonest = self.candidates.iter().filter_map(left).min_by_key(|(until, _)| *until);
        soonest.map(|(_, slot)| Choice { slot, why: Chosen::UsedEarly })
    }

    fn up(&self, slot: Option<Slot>) -> Option<&Candidate> {
        self.candidates.iter().find(|slave| Some(slave.slot) == slot && slave.state.is_up())
    }
}

impl Contest<'_> {
    /// Returns whether a speed that decides the contest is still being read.
    fn is_open(&self) -> bool {
        let other = self.current.filter(|current| current.slot != self.challenger.slot);
        other.is_some_and(|current| current.link.is_stale || self.challenger.link.is_stale)
    }
}

fn kept(current: &Candidate) -> Choice {
    Choice { slot: current.slot, why: Chosen::Kept }
}

#[cfg(test)]
mod tests {
    use super::{LinkState::*, PrimaryReselect::*, *};
    use crate::event::{Duplex, Speed};

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    const BACK_SOON: LinkState = GoingBack { until: Time::from_millis(100) };
    const BACK_LATE: LinkState = GoingBack { until: Time::from_millis(900) };
    const FAILING: LinkState = GoingDown { until: Time::from_millis(500) };

    fn link(speed: Speed, duplex: Duplex) -> Link {
        Link { speed, duplex, ..Link::new(true) }
    }

    /// Slaves in slots 0, 1, ... with these states, prio 0, 1000 Mbit/s, full duplex.
    fn slaves<const N: usize>(states: [LinkState; N]) -> [Candidate; N] {
        let mut index = 0;
        states.map(|state| {
            index += 1;
            Candidate { slot: slot(index - 1), state, prio: 0, link: link(Speed(1000), Duplex::Full) }
        })
    }

    fn best(
        candidates: &[Candidate],
        current: Option<u8>,
        primary: Option<u8>,
        reselect: PrimaryReselect,
    ) -> Option<u8> {
        let (current, primary) = (current.map(slot), primary.map(slot));
        let election = Election { candidates, current, primary, force_primary: false, reselect };
        election.best().map(|choice| choice.slot.index() as u8)
    }

    #[test]
    fn by_state_without_primary() {
        #[rustfmt::skip]
        let table = [
            // states                        current  best under always, better, failure
            ([Up, Up, Up],                   None,    Some(0), Some(0), Some(0)),
            // Equal slaves: the first enslaved has the better claim, under "always" only.
            ([Up, Up, Up],                   Some(1), Some(0), Some(1), Some(1)),
            ([Down, Up, Up],                 Some(0), Some(1), Some(1), Some(1)),
            ([Down, Up, Up],                 Some(2), Some(1), Some(2), Some(2)),
            ([Down, Down, Down],             Some(0), None,    None,    None),
            // A slave in downdelay is not up: an election leaves it.
            ([FAILING, Up, Down],            Some(0), Some(1), Some(1), Some(1)),
            ([FAILING, Down, Down],          Some(0), None,    None,    None),
            // One in updelay is used only if nothing is up, the soonest first.
            ([BACK_SOON, Up, Down],          None,    Some(1), Some(1), Some(1)),
            ([BACK_LATE, BACK_SOON, Down],   None,    Some(1), Some(1), Some(1)),
            ([BACK_LATE, Down, BACK_LATE],   None,    Some(0), Some(0), Some(0)),
            ([Down, FAILING, BACK_LATE],     Some(1), Some(2), Some(2), Some(2)),
        ];
        for (states, current, always, better, failure) in table {
            for (reselect, expected) in [(Always, always), (Better, better), (Failure, failure)] {
                assert_eq!(
                    best(&slaves(states), current, None, reselect),
                    expected,
                    "{states:?} {current:?} {reselect:?}"
                );
            }
        }
    }

    #[test]
    fn by_state_with_slot_1_as_primary() {
        #[rustfmt::skip]
        let table = [
            ([Up, Up, Up],                   None,    Some(1), Some(1), Some(1)),
            ([Up, Up, Up],                   Some(0), Some(1), Some(0), Some(0)),
            ([Up, Up, Up],                   Some(1), Some(1), Some(1), Some(1)),
            ([Down, Up, Up],                 Some(0), Some(1), Some(1), Some(1)),
            ([Up, Down, Up],                 Some(1), Some(0), Some(0), Some(0)),
            ([Up, BACK_SOON, Up],            Some(2), Some(0), Some(2), Some(2)),
            ([Down, BACK_LATE, BACK_SOON],   Some(0), Some(2), Some(2), Some(2)),
        ];
        for (states, current, always, better, failure) in table {
            for (reselect, expected) in [(Always, always), (Better, better), (Failure, failure)] {
                assert_eq!(
                    best(&slaves(states), current, Some(1), reselect),
                    expected,
                    "{states:?} {current:?} {reselect:?}"
                );
            }
        }
    }

    #[test]
    fn better_compares_speed_then_duplex_and_takes_unknown_for_the_fastest() {
        let (half, full, unknown) = (Duplex::Half, Duplex::Full, Duplex::Unknown);
        #[rustfmt::skip]
        let table = [
            // current                  primary                       takes over
            ((Speed(1000), full),       (Speed(10_000), half),        true),
            ((Speed(10_000), half),     (Speed(1000), full),          false),
            ((Speed(1000), half),       (Speed(1000), full),          true),
            ((Speed(1000), full),       (Speed(1000), half),          false),
            ((Speed(1000), full),       (Speed(1000), full),          false),
            ((Speed(10_000), full),     (Speed::UNKNOWN, unknown),    true),
            ((Speed::UNKNOWN, unknown), (Speed(10_000), full),        false),
        ];
        for (current, primary, takes_over) in table {
            let mut slaves = slaves([Up, Up]);
            slaves[0].link = link(current.0, current.1);
            slaves[1].link = link(primary.0, primary.1);
            let expected = Some(if takes_over { 1 } else { 0 });
            assert_eq!(best(&slaves, Some(0), Some(1), Better), expected, "{current:?} {primary:?}");
        }
    }

    #[test]
    fn better_waits_for_a_speed_that_is_being_read() {
        #[rustfmt::skip]
        let table = [
            // stale           current  primary  reselect  active      waits
            ([true, false],    Some(0), Some(1), Better,   Some(0),    true),
            ([false, true],    Some(0), Some(1), Better,   Some(0),    true),
            ([false, false],   Some(0), Some(1), Better,   Some(1),    false),
            ([true, true],     Some(0), Some(1), Always,   Some(1),    false),
            ([true, true],     Some(0), Some(1), Failure,  Some(0),    false),
            // No slave is active: one has to be chosen at once.
            ([true, true],     None,    Some(1), Better,   Some(1),    false),
            // There is no other slave to compare it with.
            ([true, true],     Some(1), Some(1), Better,   Some(1),    false),
        ];
        for (stale, current, primary, reselect, active, waits) in table {
            let mut slaves = slaves([Up, Up]);
            slaves[1].link.speed = Speed(10_000);
            (slaves[0].link.is_stale, slaves[1].link.is_stale) = stale.into();
            let found = best(&slaves, current, primary, reselect);
            let (current, primary) = (current.map(slot), primary.map(slot));
            let election = Election { candidates: &slaves, current, primary, force_primary: false, reselect };
            let challenger = primary.filter(|_| waits);
            assert_eq!(
                (found, election.open_for()),
                (active, challenger),
                "{stale:?} {current:?} {reselect:?}"
            );
        }
    }

    #[test]
    fn a_primary_that_was_just_set_takes_over_by_force_if_it_is_up() {
        for reselect in [Always, Better, Failure] {
            let run = |states| {
                let candidates = &slaves(states);
                let (current, primary) = (Some(slot(0)), Some(slot(1)));
                Election { candidates, current, primary, force_primary: true, reselect }.best()
            };
            let choice = |index, why| Some(Choice { slot: slot(index), why });
            assert_eq!(run([Up, Up]), choice(1, Chosen::Primary), "{reselect:?}");
            assert_eq!(run([Up, Down]), choice(0, Chosen::Kept), "{reselect:?}");
        }
    }

    #[test]
    fn prio_decides_without_a_primary_that_is_up() {
        let mut slaves = slaves([Up, Up, Up]);
        (slaves[1].prio, slaves[2].prio) = (20, 10);
        assert_eq!(best(&slaves, Some(0), None, Always), Some(1));
        assert_eq!(best(&slaves, Some(0), None, Failure), Some(0));
        assert_eq!(best(&slaves, None, None, Failure), Some(1));
        assert_eq!(best(&slaves, Some(0), Some(0), Always), Some(0), "no effect while the primary is up");
        slaves[0].state = Down;
        assert_eq!(best(&slaves, Some(0), Some(0), Always), Some(1));
        slaves[1].state = Down;
        assert_eq!(best(&slaves, Some(1), Some(0), Always), Some(2));
        slaves[2].prio = -5;
        slaves[0].state = Up;
        assert_eq!(best(&slaves, Some(2), None, Always), Some(0), "a negative prio is lower than none");
    }

    #[test]
    fn an_election_has_a_reason() {
        #[rustfmt::skip]
        let table = [
            // states and prios                      current  primary  reselect  chosen
            ([(Up, 0), (Up, 0), (Up, 0)],            None,    None,    Always,   Some((0, Chosen::FirstEnslaved))),
            ([(Up, 0), (Up, 0), (Up, 0)],            Some(1), None,    Failure,  Some((1, Chosen::Kept))),
            ([(Up, 0), (Up, 0), (Up, 0)],            Some(0), None,    Always,   Some((0, Chosen::Kept))),
            ([(Down, 0), (Up, 0), (Down, 0)],        Some(0), None,    Always,   Some((1, Chosen::OnlyOneUp))),
            ([(Down, 0), (Up, 0), (Up, 0)],          Some(0), None,    Always,   Some((1, Chosen::FirstEnslaved))),
            ([(Down, 9), (Up, 0), (Up, 5)],          Some(0), None,    Always,   Some((2, Chosen::Prio))),
            // The first of those with the highest prio; the first of all, with the highest alone.
            ([(Up, 0), (Up, 5), (Up, 5)],            None,    None,    Always,   Some((1, Chosen::Prio))),
            ([(Up, 5), (Up, 0), (Up, 0)],            None,    None,    Always,   Some((0, Chosen::Prio))),
            ([(Up, 0), (Up, 0), (Up, -5)],           None,    None,    Always,   Some((0, Chosen::FirstEnslaved))),
            ([(Up, 0), (Up, 5), (Up, 0)],            Some(0), None,    Failure,  Some((0, Chosen::Kept))),
            ([(Up, 0), (Up, 5), (Up, 0)],            Some(2), Some(0), Always,   Some((0, Chosen::Primary))),
            ([(Up, 0), (Down, 0), (Down, 0)],        None,    Some(0), Failure,  Some((0, Chosen::Primary))),
            ([(Up, 0), (Up, 0), (Down, 0)],          Some(1), Some(0), Failure,  Some((1, Chosen::Kept))),
            ([(BACK_LATE, 9), (BACK_SOON, 0), (Down, 0)], None, Some(0), Always, Some((1, Chosen::UsedEarly))),
            ([(Down, 0), (FAILING, 0), (Down, 0)],   Some(1), None,    Always,   None),
        ];
        for (states, current, primary, reselect, expected) in table {
            let mut candidates = slaves(states.map(|(state, _)| state));
            for (candidate, (_, prio)) in candidates.iter_mut().zip(states) {
                candidate.prio = prio;
            }
            let (current, primary) = (current.map(slot), primary.map(slot));
            let election =
                Election { candidates: &candidates, current, primary, force_primary: false, reselect };
            let expected = expected.map(|(index, why)| Choice { slot: slot(index), why });
            assert_eq!(election.best(), expected, "{states:?} {current:?} {primary:?} {reselect:?}");
        }
        let mut slaves = slaves([Up, Up, Down]);
        slaves[1].link.speed = Speed(10_000);
        let (candidates, current, primary) = (&slaves[..], Some(slot(0)), Some(slot(1)));
        let election = Election { candidates, current, primary, force_primary: false, reselect: Better };
        assert_eq!(election.best(), Some(Choice { slot: slot(1), why: Chosen::Better }));
    }
}
