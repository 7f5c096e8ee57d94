//! Adoption of a bond whose engine was stopped while its data plane kept running.

use bond_common::{
    abi::{ActiveWord, Rank, Slot},
    guard::fail_over,
};

use super::lab::{Lab, mac, ms, options};
use crate::{
    ChangedBy, DataPlaneChange, Engine, LeftSlave, NewBond, OrphanState,
    command::{Announce, Chosen, Failover, Reason, Report, Trigger},
    options::{
        BondOptions,
        FailOverMac::{self, Active, Follow, None as Same},
        SlaveOptions,
    },
    status::MiiStatus,
};

const POLICIES: [FailOverMac; 3] = [Same, Active, Follow];

/// A bond without an engine.
struct Orphan {
    lab: Lab,
    rank: Rank,
    known_active: Option<Slot>,
    known_usable: u16,
    failovers: Vec<DataPlaneChange>,
    gone: Vec<(Slot, String)>,
}

impl Orphan {
    fn of(lab: Lab) -> Self {
        let (rank, (known_active, _, known_usable)) = (Rank::new(lab.engine.rank()), lab.word);
        Self { lab, rank, known_active, known_usable, failovers: Vec::new(), gone: Vec::new() }
    }

    /// Takes the carrier away and lets the guard fail over at the next packet.
    fn cut(&mut self, index: u8) {
        self.lab.nic_mut(index).link.up = false;
        let (active, draining, usable) = self.lab.word;
        let word = ActiveWord::default().next(active, draining, usable);
        let has_link = |slot: Slot| {
            let entry = self.lab.slaves.get(&slot);
            entry.and_then(|(ifindex, ..)| self.lab.nics.get(ifindex)).is_some_and(|nic| nic.link.up)
        };
        if word.active() == Some(self.lab.slot(index))
            && let Some(next) = fail_over(word, self.rank, has_link)
        {
            self.lab.word = (next.active(), next.draining(), next.usable());
            self.failovers.push(DataPlaneChange::new(next, ChangedBy::Guard));
        }
    }

    fn reconnect(&mut self, index: u8) {
        self.lab.nic_mut(index).link.up = true;
    }

    /// Deletes the interface.
    fn lose(&mut self, index: u8) {
        self.gone.push((self.lab.slot(index), self.lab.nic(index).name.clone()));
        self.lab.slaves.remove(&self.lab.slot(index)).unwrap();
    }

    /// Lets another engine adopt the bond; the lab executes its commands.
    fn adopt(mut self) -> Lab {
        let before = self.lab.engine.status();
        let slave = |(&slot, &(ifindex, _, permanent_mac)): (&Slot, &(u32, _, _))| {
            let nic = &self.lab.nics[&ifindex];
            let known = before.slaves.iter().find(|slave| slave.name == nic.name).unwrap();
            LeftSlave {
                slot,
                name: nic.name.clone(),
                ifindex,
                mac: nic.mac,
                permanent_mac,
                options: SlaveOptions::default(),
                link: nic.link,
                link_failure_count: known.link_failure_count,
                drained: known.drained,
                path_failed: known.path_failed,
            }
        };
        let (active, draining, usable) = self.lab.word;
        let left = OrphanState {
            active,
            draining,
            usable,
            known_active: self.known_active,
            known_usable: self.known_usable,
            changes: self.failovers,
            carrier: self.lab.carrier,
            slaves: self.lab.slaves.iter().map(slave).collect(),
            gone: self.gone,
        };
        let bond = NewBond {
            name: "bond0".into(),
            mac: self.lab.bond_mac,
            mac_assigned: false,
            mac_stays: false,
            prearm: false,
            seed: 1,
            options: before.options,
            damping: None,
            watch: None,
        };
        self.lab.take();
        self.lab.replace_engine(Engine::adopt(self.lab.now, bond, left));
        self.lab
    }
}

/// Returns the old and the new active slave of each notice of a failover.
fn failovers(lab: &mut Lab) -> Vec<(Option<String>, Option<String>, Reason)> {
    let by_guard = lab.take_failovers().into_iter().filter(|failover| failover.seen == Trigger::Guard);
    by_guard.map(|failover| (failover.from, failover.to, failover.reason)).collect()
}

fn by_guard(from: &str, to: &str) -> (Option<String>, Option<String>, Reason) {
    (Some(from.to_owned()), Some(to.to_owned()), Reason::CarrierGuard)
}

#[test]
fn adoption_reports_and_counts_every_failover_of_the_guard() {
    for policy in POLICIES {
        for cuts in 0..5u8 {
            let mut orphan = Orphan::of(Lab::enslaved(options(policy), 2));
            let mut expected = Vec::new();
            for cut in 0..cuts {
                let (from, to) = (cut % 2, (cut + 1) % 2);
                orphan.cut(from);
                orphan.reconnect(from);
                expected.push(by_guard(&format!("slave{from}"), &format!("slave{to}")));
            }
            let mut lab = orphan.adopt();
            assert_eq!(failovers(&mut lab), expected, "{policy:?}, {cuts} cuts");
            let counts = [0, 1].map(|index| lab.status(index).link_failure_count);
            assert_eq!(counts, [u32::from(cuts.div_ceil(2)), u32::from(cuts / 2)], "{policy:?}, {cuts} cuts");
            assert_eq!(lab.active(), Some(format!("slave{}", cuts % 2)), "{policy:?}, {cuts} cuts");
            lab.wait(ms(500));
            assert_eq!([0, 1].map(|index| lab.mii(index)), [MiiStatus::Up; 2], "{policy:?}, {cuts} cuts");
            let active = 0x10 + cuts % 2;
            let backup = 0x10 + (cuts + 1) % 2;
            let in_use = match (policy, cuts % 2) {
                (Same, _) => [0x10, 0x10, 0x10],
                (Active, _) => [active, 0x10, 0x11],
                (Follow, 0) => [0x10, 0x10, 0x11],
                (Follow, _) => [0x10, backup + 1, 0x10],
            };
            assert_eq!(lab.macs(), in_use, "{policy:?}, {cuts} cuts");
        }
    }
}

#[test]
fn adoption_reports_an_unrecorded_failover_once_and_counts_it_once() {
    let mut orphan = Orphan::of(Lab::enslaved(options(Same), 2));
    orphan.cut(0);
    orphan.failovers.clear();
    let mut lab = orphan.adopt();
    assert_eq!(failovers(&mut lab), [by_guard("slave0", "slave1")]);
    assert_eq!((lab.status(0).link_failure_count, lab.mii(0)), (1, MiiStatus::Down));
}

#[test]
fn adoption_counts_a_backup_that_lost_its_link() {
    let mut orphan = Orphan::of(Lab::enslaved(options(Same), 3));
    orphan.cut(2);
    orphan.cut(0);
    let mut lab = orphan.adopt();
    assert_eq!(failovers(&mut lab), [by_guard("slave0", "slave1")]);
    let counts = [0, 1, 2].map(|index| lab.status(index).link_failure_count);
    assert_eq!(counts, [1, 0, 1]);
}

#[test]
fn adoption_reports_a_vanished_slave_by_its_name() {
    let mut orphan = Orphan::of(Lab::enslaved(options(Active), 3));
    orphan.cut(0);
    orphan.lose(0);
    let mut lab = orphan.adopt();
    assert_eq!(failovers(&mut lab), [by_guard("slave0", "slave1")]);
    assert_eq!(lab.active().as_deref(), Some("slave1"));
}

/// No packet and no tick has failed over: ACTIVE still names it.
#[test]
fn adoption_leaves_an_active_slave_that_vanished() {
    for (is_other_up, to) in [(true, Some("slave1")), (false, None)] {
        let mut lab = Lab::enslaved(options(Active), 2);
        lab.set_link(1, is_other_up);
        let mut orphan = Orphan::of(lab);
        orphan.lose(0);
        let mut lab = orphan.adopt();
        let failovers = lab.take_failovers().into_iter();
        let failovers: Vec<_> =
            failovers.map(|failover| (failover.from, failover.to, failover.reason)).collect();
        assert_eq!(failovers, [(Some("slave0".into()), to.map(str::to_owned), Reason::Left)]);
        assert_eq!(lab.active().as_deref(), to);
    }
}

#[test]
fn adoption_counts_no_failure_for_a_change_by_the_administrator() {
    let mut orphan = Orphan::of(Lab::enslaved(options(Same), 2));
    orphan.lab.word.0 = Some(orphan.lab.slot(1));
    let mut lab = orphan.adopt();
    let reports = lab.take_reports();
    let expected = Failover {
        from: Some("slave0".into()),
        to: Some("slave1".into()),
        reason: Reason::Requested,
        seen: Trigger::Guard,
        chosen: Some(Chosen::Administrator),
    };
    assert_eq!(reports, [Report::Failover(expected)]);
    assert_eq!([0, 1].map(|index| lab.status(index).link_failure_count), [0, 0]);
}

/// The guard used a slave in updelay early, and the engine keeps it up.
#[test]
fn the_last_used_slave_is_up_and_others_wait_for_updelay() {
    let delayed = BondOptions { updelay: 1000, ..options(Same) };
    let mut orphan = Orphan::of(Lab::enslaved(delayed, 2));
    orphan.lab.wait(ms(2000));
    orphan.cut(0);
    orphan.reconnect(0);
    let mut lab = orphan.adopt();
    assert_eq!([0, 1].map(|index| lab.mii(index)), [MiiStatus::GoingBack, MiiStatus::Up]);
    let slot = lab.slot(1);
    assert!(lab.take().contains(&Announce { slot, mac: mac(0x10) }.into()), "no announcement");
}
