//! The assignment of MAC addresses under the policy `fail_over_mac`.
//!
//! | | none | active | follow |
//! |---|---|---|---|
//! | enslave | slave := bond's | | a duplicate := a generated one |
//! | failover | | bond := new active's | new active := bond's, its former user := new active's former |
//! | release | slave := permanent | | slave := permanent |
//!
//! The sources are `__bond_enslave`, `bond_do_fail_over_mac` and `__bond_release_one`.

use bond_common::{abi::Slot, mac::Mac};

use crate::options::FailOverMac;

/// A slave and the MAC that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlaveMac {
    pub slot: Slot,
    pub mac: Mac,
}

/// The change of a slave's MAC address before the slave is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnslave {
    Keep,
    TakeBonds,
    /// Another slave has the address, and the policy allows no address on two ports.
    Replace,
}

/// Returns the change for a new slave that has `mac`; `others` are enslaved already. Under follow the driver replaces
/// only the bond's address. Here another slave's address is replaced, too, because it is on two ports as well.
pub fn at_enslave(policy: FailOverMac, mac: Mac, bond: Mac, others: &[SlaveMac]) -> AtEnslave {
    match policy {
        FailOverMac::None if mac != bond => AtEnslave::TakeBonds,
        FailOverMac::Follow if !others.is_empty() && (mac == bond || slave_with(others, mac).is_some()) => {
            AtEnslave::Replace
        }
        FailOverMac::None | FailOverMac::Follow | FailOverMac::Active => AtEnslave::Keep,
    }
}

/// The changes of a failover, in this order: slaves, then the bond. No address is set to its present value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub slaves: Vec<SlaveMac>,
    pub bond: Option<Mac>,
}

/// Returns the changes of a failover to `new`. Under follow the slave that has the bond's address is the old active, or
/// the one that was active last (`bond_get_old_active`); it may also have left.
pub fn at_failover(policy: FailOverMac, bond: Mac, slaves: &[SlaveMac], new: Slot) -> Changes {
    let mut changes = Changes::default();
    let Some(new) = slaves.iter().find(|slave| slave.slot == new) else { return changes };
    match policy {
        FailOverMac::None => {}
        FailOverMac::Active if new.mac != bond => changes.bond = Some(new.mac),
        FailOverMac::Follow if new.mac != bond => {
            changes.slaves.push(SlaveMac { slot: new.slot, mac: bond });
            changes
                .slaves
                .extend(slave_with(slaves, bond).map(|old| SlaveMac { slot: old.slot, mac: new.mac }));
        }
        FailOverMac::Active | FailOverMac::Follow => {}
    }
    changes
}

/// Returns the change after `refused` could not get the bond's address under follow. At that failover the former user of
/// the address got the one that `refused` has kept. It gets the bond's address again, as in the driver, which changes
/// the old active only after the new one.
pub fn after_refusal(bond: Mac, slaves: &[SlaveMac], refused: Slot) -> Option<SlaveMac> {
    let kept = slaves.iter().find(|slave| slave.slot == refused)?.mac;
    let duplicate = slaves.iter().find(|slave| slave.slot != refused && slave.mac == kept)?;
    slave_with(slaves, bond).is_none().then_some(SlaveMac { slot: duplicate.slot, mac: bond })
}

/// After the bond's MAC turned out to be another one than planned: the slaves that have to follow it.
pub fn after_bond_refusal(
    policy: FailOverMac,
    bond: Mac,
    slaves: &[SlaveMac],
    active: Option<Slot>,
) -> Vec<SlaveMac> {
    match policy {
        FailOverMac::None => {
            let others = slaves.iter().filter(|slave| slave.mac != bond);
            others.map(|slave| SlaveMac { slot: slave.slot, mac: bond }).collect()
        }
        FailOverMac::Follow => {
            active.map(|active| at_failover(policy, bond, slaves, active).slaves).unwrap_or_default()
        }
        FailOverMac::Active => Vec::new(),
    }
}

/// What a bond that another agent has left still wants, if that one was stopped half-way: what its last failover or
/// enslaving would have come to. `permanent` are the slaves' own MACs.
pub fn at_adoption(
    policy: FailOverMac,
    bond: Mac,
    slaves: &[SlaveMac],
    permanent: &[Mac],
    active: Option<Slot>,
) -> Changes {
    let mut changes = Changes::default();
    if policy == FailOverMac::None {
        changes.slaves = after_bond_refusal(policy, bond, slaves, active);
    } else if let Some(active) = active {
        changes = at_failover(policy, bond, slaves, active);
        if policy == FailOverMac::Follow && changes.slaves.is_empty() {
            // The new active has the bond's MAC, and the old one was not given another one any more.
            let mut free =
                permanent.iter().filter(|mac| **mac != bond && slave_with(slaves, **mac).is_none());
            let duplicates = slaves.iter().filter(|slave| slave.mac == bond && slave.slot != active);
            changes.slaves = duplicates
                .zip(&mut free)
                .map(|(duplicate, mac)| SlaveMac { slot: duplicate.slot, mac: *mac })
                .collect();
        }
    }
    changes
}

/// Returns the address that a released slave gets, None if it keeps its own.
pub fn at_release(policy: FailOverMac, permanent: Mac) -> Option<Mac> {
    match policy {
        FailOverMac::None | FailOverMac::Follow => Some(permanent),
        FailOverMac::Active => None,
    }
}

/// Returns the first slave that has `mac`.
pub fn slave_with(slaves: &[SlaveMac], mac: Mac) -> Option<&SlaveMac> {
    slaves.iter().find(|slave| slave.mac == mac)
}

/// A MAC address that the agent changes on request, which may take time and may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackedMac {
    asked: Mac,
    confirmed: Mac,
    unanswered: u32,
}

impl TrackedMac {
    pub fn new(mac: Mac) -> Self {
        Self { asked: mac, confirmed: mac, unanswered: 0 }
    }

    /// Returns the address that the interface has, or will have when all requests are carried out.
    pub fn get(&self) -> Mac {
        self.asked
    }

    pub fn ask(&mut self, mac: Mac) {
        self.asked = mac;
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// Stores an external change. If a request is outstanding, its answer decides.
    pub fn find(&mut self, mac: Mac) {
        if self.is_settled() {
            self.asked = mac;
        }
        self.confirmed = mac;
    }

    /// Stores the answer to the oldest request. After the last one the address is known.
    pub fn answer(&mut self, mac: Mac, done: bool) {
        if done {
            self.confirmed = mac;
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        if self.is_settled() {
            self.asked = self.confirmed;
        }
    }

    pub fn is_settled(&self) -> bool {
        self.unanswered == 0
    }

    pub fn unanswered(&self) -> u32 {
        self.unanswered
    }
}

/// A generator of MAC addresses, where the driver takes random ones (`eth_hw_addr_random`): locally administered, and
/// equal for equal seeds, because the engine is deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeUpMacs {
    seed: u64,
    made: u64,
}

impl MadeUpMacs {
    pub fn new(seed: u64) -> Self {
        Self { seed, made: 0 }
    }

    /// Returns the next address that is not `taken`: the n-th output of SplitMix64 from the seed.
    pub fn next(&mut self, taken: impl Fn(Mac) -> bool) -> Mac {
        loop {
            self.made = self.made.wrapping_add(1);
            let mut word = self.seed.wrapping_add(self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            let [a, b, c, d, e, f, _, _] = word.to_be_bytes();
            let mac = Mac::new([a & 0xfc | 0x02, b, c, d, e, f]);
            if !taken(mac) {
                return mac;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FailOverMac::*, *};

    fn slot(index: u8) -> Slot {
        Slot::new(index).unwrap()
    }

    fn mac(last: u8) -> Mac {
        Mac::new([2, 0, 0, 0, 0, last])
    }

    fn has(index: u8, last: u8) -> SlaveMac {
        SlaveMac { slot: slot(index), mac: mac(last) }
    }

    #[test]
    fn the_plan_for_enslaving_depends_on_policy_and_macs() {
        let others = [has(0, 0x10), has(1, 0x11)];
        #[rustfmt::skip]
        let table = [
            // policy, the new one's MAC, others, expected; the bond's is :10
            (None,   0x12, &others[..], AtEnslave::TakeBonds),
            (None,   0x10, &others[..], AtEnslave::Keep),
            (None,   0x12, &[][..],     AtEnslave::TakeBonds),
            (Active, 0x12, &others[..], AtEnslave::Keep),
            (Active, 0x10, &others[..], AtEnslave::Keep),
            (Follow, 0x12, &others[..], AtEnslave::Keep),
            (Follow, 0x10, &others[..], AtEnslave::Replace),
            (Follow, 0x11, &others[..], AtEnslave::Replace),
            (Follow, 0x10, &[][..],     AtEnslave::Keep),
        ];
        for (policy, new, others, expected) in table {
            assert_eq!(
                at_enslave(policy, mac(new), mac(0x10), others),
                expected,
                "{policy:?} :{new:x} {others:?}"
            );
        }
    }

    #[test]
    fn the_plan_for_a_failover_depends_on_policy_and_macs() {
        let fresh = vec![has(0, 0x10), has(1, 0x11), has(2, 0x12)];
        let swapped = vec![has(0, 0x11), has(1, 0x10), has(2, 0x12)];
        let owner_left = vec![has(0, 0x11), has(2, 0x12)];
        let one = vec![has(0, 0x10), has(1, 0x10)];
        let bond = |last| Changes { bond: Some(mac(last)), ..Changes::default() };
        let slaves = |slaves: &[SlaveMac]| Changes { slaves: slaves.to_vec(), bond: Option::None };
        #[rustfmt::skip]
        let table = [
            (None,   &one,         1, Changes::default()),
            (Active, &fresh,       1, bond(0x11)),
            (Active, &fresh,       0, Changes::default()),
            (Follow, &fresh,       1, slaves(&[has(1, 0x10), has(0, 0x11)])),
            (Follow, &swapped,     2, slaves(&[has(2, 0x10), has(1, 0x12)])),
            (Follow, &swapped,     0, slaves(&[has(0, 0x10), has(1, 0x11)])),
            (Follow, &swapped,     1, Changes::default()),
            (Follow, &owner_left, 2, slaves(&[has(2, 0x10)])),
            (Follow, &fresh,       9, Changes::default()),
        ];
        for (policy, before, new, expected) in table {
            assert_eq!(
                at_failover(policy, mac(0x10), before, slot(new)),
                expected,
                "{policy:?} {before:?} {new}"
            );
        }
    }

    #[test]
    fn a_refused_swap_is_undone() {
        // Slot 1 kept :11, and slot 0 was given it.
        let slaves = [has(0, 0x11), has(1, 0x11), has(2, 0x12)];
        assert_eq!(after_refusal(mac(0x10), &slaves, slot(1)), Some(has(0, 0x10)));
        assert_eq!(after_refusal(mac(0x12), &slaves, slot(1)), Option::None, "one has the bond's");
        assert_eq!(after_refusal(mac(0x10), &slaves, slot(2)), Option::None, "no slave has its MAC address");
    }

    #[test]
    fn an_adopted_bond_completes_started_mac_changes() {
        use FailOverMac::*;
        let (s0, s1) = (Slot::new(0).unwrap(), Slot::new(1).unwrap());
        let table = [
            // Killed between the store and the MACs, or in the middle of them; slot 1 is active.
            (None, [0x10, 0x10], vec![], Option::None),
            (None, [0x10, 0x11], vec![(s1, 0x10)], Option::None),
            (Active, [0x10, 0x11], vec![], Some(0x11)),
            (Follow, [0x10, 0x11], vec![(s1, 0x10), (s0, 0x11)], Option::None),
            (Follow, [0x10, 0x10], vec![(s0, 0x11)], Option::None),
            (Follow, [0x11, 0x10], vec![], Option::None),
        ];
        for (row, (policy, in_use, slaves, bond)) in table.into_iter().enumerate() {
            let slave_macs: Vec<_> = [s0, s1]
                .into_iter()
                .zip(in_use)
                .map(|(slot, last)| SlaveMac { slot, mac: mac(last) })
                .collect();
            let changes = at_adoption(policy, mac(0x10), &slave_macs, &[mac(0x10), mac(0x11)], Some(s1));
            let slaves: Vec<_> =
                slaves.into_iter().map(|(slot, last)| SlaveMac { slot, mac: mac(last) }).collect();
            assert_eq!(changes, Changes { slaves, bond: bond.map(mac) }, "row {row}");
        }
        assert_eq!(at_adoption(Follow, mac(0x10), &[], &[], Option::None), Changes::default());
    }

    #[test]
    fn an_answer_settles_only_the_last_request() {
        let mut tracked = TrackedMac::new(mac(1));
        tracked.ask(mac(2));
        tracked.ask(mac(3));
        tracked.answer(mac(2), true);
        assert_eq!((tracked.get(), tracked.is_settled()), (mac(3), false));
        tracked.answer(mac(3), false);
        assert_eq!((tracked.get(), tracked.is_settled()), (mac(2), true));
        tracked.answer(mac(9), false);
        assert_eq!(tracked.get(), mac(2), "an answer to nothing");
    }

    #[test]
    fn generated_macs_are_local_unicast_and_unused() {
        let mut macs = MadeUpMacs::new(7);
        let first = macs.next(|_| false);
        let second = macs.next(|_| false);
        assert_eq!(MadeUpMacs::new(7).next(|mac| mac == first), second);
        assert_ne!(MadeUpMacs::new(8).next(|_| false), first);
        for mac in [first, second] {
            assert!(mac.is_unicast() && mac.bytes()[0] & 0x02 != 0, "{mac}");
        }
    }
}
