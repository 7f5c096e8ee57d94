//! The failover of the carrier guard after the active slave's device lost its link.

use crate::abi::{ActiveWord, Rank, Slot};

/// Returns the word after a failover from the active slot, whose device has no link. None if no slave can take over:
/// ACTIVE then keeps its value, and the device is used again when its link returns.
///
/// The agent's rank decides (`bond_find_best_slave`): the first slot that is usable and alive; if there is none, the
/// first that is alive, because the driver uses a slave in updelay early. `is_alive` is called at most once for each
/// slot and returns false for a slot without a slave.
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
        type Successor = Option<(u8, u16)>;
        let table: &[(u16, u16, &[u8], Successor)] = &[
            (0b0111, 0b0110, &[0, 1, 2], Some((1, 0b0110))),
            (0b0111, 0b0110, &[0, 2, 1], Some((2, 0b0110))),
            // Usable in the agent's eyes, and dead since.
            (0b0111, 0b0100, &[0, 1, 2], Some((2, 0b0110))),
            // In updelay: used early, and usable from then on.
            (0b0001, 0b0100, &[0, 1, 2], Some((2, 0b0100))),
            (0b0001, 0b0110, &[2, 1, 0], Some((2, 0b0100))),
            // A usable one before an early one of a better rank.
            (0b0101, 0b0110, &[1, 2, 0], Some((2, 0b0100))),
            // No other slave is alive; the active one does not count.
            (0b0111, 0b0000, &[0, 1, 2], None),
            (0b0001, 0b0001, &[0, 1, 2], None),
        ];
        for (row, &(usable, alive, rank, expected)) in table.iter().enumerate() {
            let word = ActiveWord::from_bits(7 << 32).next(Some(slot(0)), Some(slot(3)), usable);
            let rank = Rank::new(rank.iter().map(|&index| slot(index)));
            let next = fail_over(word, rank, |slot| alive & slot.bit() != 0);
            let chosen = next.map(|next| (next.active().unwrap().index() as u8, next.usable()));
            assert_eq!(chosen, expected, "row {row}");
            if let Some(next) = next {
                assert_eq!((next.generation(), next.draining()), (9, None), "row {row}");
            }
        }
        assert_eq!(fail_over(ActiveWord::default(), Rank::new([]), |_| true), None, "no slave was active");
    }

    proptest! {
        #[test]
        fn the_new_active_slot_is_alive_and_no_usable_one_before_it_is(
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
