//! What the carrier guard does when the active slave's device has no link any more.

use crate::abi::{ActiveWord, Rank, Slot};

/// The word after a failover away from the active slot, which is dead. None if no slave could take over: then the word
/// stays as it is, and with it the hope that the device comes back.
///
/// The agent's order decides (`bond_find_best_slave`): the first slot that is usable and alive; failing that, the
/// first that is alive, as the driver uses a slave early that is in updelay. `is_alive` is asked of each slot
/// once at most; of one that no slave has it says no.
#[inline(always)]
pub fn fail_over(word: ActiveWord, rank: Rank, is_alive: impl Fn(Slot) -> bool) -> Option<ActiveWord> {
    let dead = word.active()?;
    let usable = word.usable() & !dead.bit();
    let mut early = None;
    let mut place = 0;
    while place < 16 {
        let slot = rank.at(place);
        place += 1;
        if slot.index() == dead.index() || !is_alive(slot) {
            continue;
        }
        if usable & slot.bit() != 0 {
            return Some(word.next(Some(slot), None, usable));
        }
        if early.is_none() {
            early = Some(slot);
        }
    }
    early.map(|slot| word.next(Some(slot), None, usable | slot.bit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    #[test]
    fn the_first_usable_one_that_is_alive_takes_over() {
        // (usable, alive, rank) of a bond whose slot 0 is active -> the new active slot and usable mask.
        let table: &[(u16, u16, &[u8], Option<(u8, u16)>)] = &[
            (0b0111, 0b0110, &[0, 1, 2], Some((1, 0b0110))),
            (0b0111, 0b0110, &[0, 2, 1], Some((2, 0b0110))),
            // Usable in the agent's eyes, and dead since.
            (0b0111, 0b0100, &[0, 1, 2], Some((2, 0b0110))),
            // In updelay: used early, and usable from then on.
            (0b0001, 0b0100, &[0, 1, 2], Some((2, 0b0100))),
            (0b0001, 0b0110, &[2, 1, 0], Some((2, 0b0100))),
            // A usable one before an early one of a better rank.
            (0b0101, 0b0110, &[1, 2, 0], Some((2, 0b0100))),
            // Nobody; the active one itself does not count, whatever is said of it.
            (0b0111, 0b0000, &[0, 1, 2], None),
            (0b0001, 0b0001, &[0, 1, 2], None),
        ];
        for (row, &(usable, alive, rank, expected)) in table.iter().enumerate() {
            let word = ActiveWord::from_bits(7 << 32).next(Some(slot(0)), Some(slot(3)), usable);
            let rank = Rank::new(rank.iter().map(|&index| slot(index)));
            let next = fail_over(word, rank, |slot| alive & slot.bit() != 0);
            let told = next.map(|next| (next.active().unwrap().index() as u8, next.usable()));
            assert_eq!(told, expected, "row {row}");
            if let Some(next) = next {
                assert_eq!((next.generation(), next.draining()), (9, None), "row {row}");
            }
        }
        assert_eq!(fail_over(ActiveWord::default(), Rank::new([]), |_| true), None, "nobody was active");
    }

    proptest! {
        #[test]
        fn whoever_takes_over_is_alive_and_no_usable_one_before_it_is(
            active in 0u8..16, usable: u16, alive: u16, first in proptest::collection::vec(0u8..16, 0..16),
        ) {
            let rank = Rank::new(first.into_iter().map(slot));
            let word = ActiveWord::default().next(Some(slot(active)), None, usable);
            let others = alive & !slot(active).bit();
            let Some(next) = fail_over(word, rank, |slot| alive & slot.bit() != 0) else {
                prop_assert_eq!(others, 0);
                return Ok(());
            };
            let new = next.active().unwrap();
            prop_assert!(others & new.bit() != 0);
            prop_assert_eq!(next.usable(), usable & !slot(active).bit() | new.bit());
            let candidates = if usable & others != 0 { usable & others } else { others };
            let best = (0..16).map(|place| rank.at(place)).find(|slot| candidates & slot.bit() != 0);
            prop_assert_eq!(best, Some(new));
        }
    }
}
