//! Which slave shall be active.

use bond_common::abi::Slot;

use super::{
    Time,
    event::{Duplex, Speed},
    link::LinkState,
    options::PrimaryReselect,
};

/// What counts of a slave at an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub slot: Slot,
    pub state: LinkState,
    pub prio: i32,
    pub speed: Speed,
    pub duplex: Duplex,
}

/// An election: who stands, and by which rules.
#[derive(Clone, Copy, Debug)]
pub struct Election<'a> {
    /// In enslave order.
    pub candidates: &'a [Candidate],
    /// The active slave until now.
    pub current: Option<Slot>,
    /// The slave that the option `primary` names, if it is enslaved.
    pub primary: Option<Slot>,
    /// The primary was set just now and takes over whatever `reselect` says (`force_primary`).
    pub force_primary: bool,
    pub reselect: PrimaryReselect,
}

impl Election<'_> {
    /// The slave that shall be active, None if none can be (`bond_find_best_slave`). One in updelay that is
    /// elected, because nothing else is up, is up from then on (`bond_change_active_slave`).
    pub fn best(&self) -> Option<Slot> {
        self.primary_or_current().or_else(|| self.first_up()).or_else(|| self.soonest_back())
    }

    /// `bond_choose_primary_or_current`
    fn primary_or_current(&self) -> Option<Slot> {
        let current = self.up(self.current);
        let Some(primary) = self.up(self.primary) else {
            let challenger = self.highest_prio().filter(|best| Some(best.slot) != self.current);
            return match challenger {
                Some(challenger) => Some(self.reselect(challenger, current)),
                None => current.map(|current| current.slot),
            };
        };
        if self.force_primary { Some(primary.slot) } else { Some(self.reselect(primary, current)) }
    }

    /// Whether the challenger takes over from the current slave, if that is up.
    fn reselect(&self, challenger: &Candidate, current: Option<&Candidate>) -> Slot {
        let Some(current) = current else { return challenger.slot };
        let takes_over = match self.reselect {
            PrimaryReselect::Always => true,
            PrimaryReselect::Better => {
                (challenger.speed, challenger.duplex) > (current.speed, current.duplex)
            }
            PrimaryReselect::Failure => false,
        };
        if takes_over { challenger.slot } else { current.slot }
    }

    /// The slave that is up with the highest prio, the first of equals.
    fn highest_prio(&self) -> Option<&Candidate> {
        self.candidates
            .iter()
            .filter(|slave| slave.state.is_up())
            .reduce(|best, slave| if slave.prio > best.prio { slave } else { best })
    }

    fn first_up(&self) -> Option<Slot> {
        self.candidates.iter().find(|slave| slave.state.is_up()).map(|slave| slave.slot)
    }

    /// The slave in updelay that has the least of it left, the first of equals.
    fn soonest_back(&self) -> Option<Slot> {
        let left = |slave: &Candidate| -> Option<(Time, Slot)> {
            match slave.state {
                LinkState::GoingBack { until } => Some((until, slave.slot)),
                // Whoever probes in its turn has to be answered first.
                LinkState::Up
                | LinkState::GoingDown { .. }
                | LinkState::Down
                | LinkState::Probing
                | LinkState::Unanswered => None,
            }
        };
        self.candidates.iter().filter_map(left).min_by_key(|(until, _)| *until).map(|(_, slot)| slot)
    }

    fn up(&self, slot: Option<Slot>) -> Option<&Candidate> {
        self.candidates.iter().find(|slave| Some(slave.slot) == slot && slave.state.is_up())
    }
}

#[cfg(test)]
mod tests {
    use super::{LinkState::*, PrimaryReselect::*, *};

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    const BACK_SOON: LinkState = GoingBack { until: Time::from_millis(100) };
    const BACK_LATE: LinkState = GoingBack { until: Time::from_millis(900) };
    const FAILING: LinkState = GoingDown { until: Time::from_millis(500) };

    /// Slaves in slots 0, 1, ... with these states, prio 0, 1000 Mbit/s, full duplex.
    fn slaves<const N: usize>(states: [LinkState; N]) -> [Candidate; N] {
        let mut index = 0;
        states.map(|state| {
            index += 1;
            Candidate { slot: slot(index - 1), state, prio: 0, speed: Speed(1000), duplex: Duplex::Full }
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
        election.best().map(|slot| slot.index() as u8)
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
            (slaves[0].speed, slaves[0].duplex) = current;
            (slaves[1].speed, slaves[1].duplex) = primary;
            let expected = Some(if takes_over { 1 } else { 0 });
            assert_eq!(best(&slaves, Some(0), Some(1), Better), expected, "{current:?} {primary:?}");
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
            assert_eq!(run([Up, Up]), Some(slot(1)), "{reselect:?}");
            assert_eq!(run([Up, Down]), Some(slot(0)), "{reselect:?}");
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
}
