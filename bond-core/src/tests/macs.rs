//! The assignment of MAC addresses, compared with transcripts of the driver.

use bond_common::mac::Mac;

use super::lab::{Command, Lab, mac, ms, options};
use crate::{
    NewBond,
    command::{Notice, Report, Work},
    event::Event,
    options::FailOverMac::{self, Active, Follow, None as Same},
};

/// Steps of a transcript, in its words.
#[derive(Clone, Copy, Debug)]
enum Step {
    Enslave(u8),
    Down(u8),
    Up(u8),
    Release(u8),
}

use Step::{Down, Enslave, Release, Up};

/// A generated MAC address in a table.
const ANY: u8 = 0;

fn play(policy: FailOverMac, steps: &[(Step, [u8; 4])]) {
    let mut lab = Lab::new(options(policy), 3);
    for (number, (step, expected)) in steps.iter().enumerate() {
        match *step {
            Enslave(index) => lab.join(index).unwrap(),
            Down(index) => lab.set_link(index, false),
            Up(index) => lab.set_link(index, true),
            Release(index) => lab.leave(index).unwrap(),
        }
        // Slots are quarantined for a second.
        lab.wait(ms(1000));
        let mut macs = lab.macs();
        let made_up = |last: u8| !(0x10..=0x12).contains(&last) && last != 0xb0;
        for (seen, expected) in macs.iter_mut().zip(expected) {
            if *expected == ANY && made_up(*seen) {
                *seen = ANY;
            }
        }
        assert_eq!(macs, expected, "{policy:?}, step {number}: {step:?} (bond, slave0, slave1, slave2)");
        let status = lab.engine.status();
        assert_eq!(status.mac, lab.bond_mac, "{policy:?}, step {number}: the bond's MAC is believed another");
    }
}

#[test]
fn transcript_of_none() {
    play(
        Same,
        &[
            (Enslave(0), [0x10, 0x10, 0x11, 0x12]),
            (Enslave(1), [0x10, 0x10, 0x10, 0x12]),
            (Enslave(2), [0x10, 0x10, 0x10, 0x10]),
            (Down(0), [0x10, 0x10, 0x10, 0x10]),
            (Up(0), [0x10, 0x10, 0x10, 0x10]),
            (Down(1), [0x10, 0x10, 0x10, 0x10]),
            (Down(0), [0x10, 0x10, 0x10, 0x10]),
            (Release(0), [0x10, 0x10, 0x10, 0x10]),
            (Release(2), [0x10, 0x10, 0x10, 0x12]),
            (Release(1), [ANY, 0x10, 0x11, 0x12]),
            (Enslave(1), [0x11, 0x10, 0x11, 0x12]),
            (Enslave(0), [0x11, 0x11, 0x11, 0x12]),
        ],
    );
}

#[test]
fn transcript_of_active() {
    play(
        Active,
        &[
            (Enslave(0), [0x10, 0x10, 0x11, 0x12]),
            (Enslave(1), [0x10, 0x10, 0x11, 0x12]),
            (Enslave(2), [0x10, 0x10, 0x11, 0x12]),
            (Down(0), [0x11, 0x10, 0x11, 0x12]),
            (Up(0), [0x11, 0x10, 0x11, 0x12]),
            (Down(1), [0x10, 0x10, 0x11, 0x12]),
            (Up(1), [0x10, 0x10, 0x11, 0x12]),
            (Down(0), [0x11, 0x10, 0x11, 0x12]),
            (Down(1), [0x12, 0x10, 0x11, 0x12]),
            // No active slave: the bond keeps its MAC.
            (Down(2), [0x12, 0x10, 0x11, 0x12]),
            (Up(2), [0x12, 0x10, 0x11, 0x12]),
            (Up(0), [0x12, 0x10, 0x11, 0x12]),
            (Up(1), [0x12, 0x10, 0x11, 0x12]),
            (Release(0), [0x12, 0x10, 0x11, 0x12]),
            (Release(2), [0x11, 0x10, 0x11, 0x12]),
            (Release(1), [ANY, 0x10, 0x11, 0x12]),
            (Enslave(1), [0x11, 0x10, 0x11, 0x12]),
            (Enslave(0), [0x11, 0x10, 0x11, 0x12]),
            (Down(1), [0x10, 0x10, 0x11, 0x12]),
        ],
    );
}

#[test]
fn transcript_of_follow() {
    play(
        Follow,
        &[
            (Enslave(0), [0x10, 0x10, 0x11, 0x12]),
            (Enslave(1), [0x10, 0x10, 0x11, 0x12]),
            (Enslave(2), [0x10, 0x10, 0x11, 0x12]),
            (Down(0), [0x10, 0x11, 0x10, 0x12]),
            (Up(0), [0x10, 0x11, 0x10, 0x12]),
            (Down(1), [0x10, 0x10, 0x11, 0x12]),
            (Up(1), [0x10, 0x10, 0x11, 0x12]),
            (Down(0), [0x10, 0x11, 0x10, 0x12]),
            (Down(1), [0x10, 0x11, 0x12, 0x10]),
            (Down(2), [0x10, 0x11, 0x12, 0x10]),
            (Up(2), [0x10, 0x11, 0x12, 0x10]),
            (Up(0), [0x10, 0x11, 0x12, 0x10]),
            (Up(1), [0x10, 0x11, 0x12, 0x10]),
            (Release(0), [0x10, 0x10, 0x12, 0x10]),
            (Release(2), [0x10, 0x10, 0x10, 0x12]),
            (Release(1), [ANY, 0x10, 0x11, 0x12]),
            (Enslave(1), [0x11, 0x10, 0x11, 0x12]),
            (Enslave(0), [0x11, 0x10, 0x11, 0x12]),
            (Down(1), [0x11, 0x11, 0x10, 0x12]),
        ],
    );
}

/// All slaves fail one after the other; then a slave that was not the last active one recovers first.
#[test]
fn follow_finds_the_slave_with_the_bonds_mac_when_there_was_no_active() {
    let mut lab = Lab::enslaved(options(Follow), 3);
    for index in [0, 1, 2] {
        lab.set_link(index, false);
    }
    assert_eq!(lab.macs(), [0x10, 0x11, 0x12, 0x10]);
    lab.set_link(1, true);
    assert_eq!(lab.macs(), [0x10, 0x11, 0x10, 0x12]);
}

/// The reference scenario: enp0s8 is set down.
#[test]
fn the_reference_scenario_ends_with_the_expected_macs() {
    for (policy, before, after) in [
        (Same, [0x58, 0x58, 0x58], [0x58, 0x58, 0x58]),
        (Active, [0x58, 0x58, 0x2d], [0x2d, 0x58, 0x2d]),
        (Follow, [0x58, 0x58, 0x2d], [0x58, 0x2d, 0x58]),
    ] {
        let mut lab = Lab::new(options(policy), 2);
        for (index, name, burned_in) in [
            (0, "enp0s8", [0x08, 0x00, 0x27, 0xe8, 0x26, 0x58]),
            (1, "enp0s9", [0x08, 0x00, 0x27, 0x27, 0xa9, 0x2d]),
        ] {
            lab.nic_mut(index).name = name.into();
            lab.nic_mut(index).mac = Mac::new(burned_in);
            lab.join(index).unwrap();
        }
        assert_eq!(
            (lab.active().as_deref(), lab.macs()),
            (Some("enp0s8"), before.to_vec()),
            "{policy:?}, before"
        );
        lab.set_link(0, false);
        assert_eq!(
            (lab.active().as_deref(), lab.macs()),
            (Some("enp0s9"), after.to_vec()),
            "{policy:?}, after"
        );
    }
}

/// The kernel's selftest: the first slave, whose MAC the bond has, leaves and comes back under follow.
#[test]
fn follow_gives_a_returning_first_slave_another_mac() {
    let mut lab = Lab::enslaved(options(Follow), 3);
    lab.leave(0).unwrap();
    assert_eq!(lab.macs(), [0x10, 0x10, 0x10, 0x12]);
    lab.take();
    lab.join(0).unwrap();
    let made_up = lab.nic(0).mac;
    assert!(made_up.is_unicast() && ![0x10, 0x11, 0x12].map(mac).contains(&made_up), "{made_up}");
    let replaced = Notice::DuplicateMacReplaced { slave: "slave0".into(), mac: made_up };
    assert!(lab.take_reports().iter().any(|report| *report == replaced));
    lab.leave(0).unwrap();
    assert_eq!(lab.nic(0).mac, mac(0x10));
}

#[test]
fn a_mac_set_by_the_administrator_is_kept_until_the_bond_is_empty() {
    for (policy, enslaved) in
        [(Same, [0x99, 0x99, 0x99]), (Follow, [0x99, 0x99, 0x11]), (Active, [0x10, 0x10, 0x11])]
    {
        let new = NewBond {
            name: "bond0".into(),
            mac: mac(0x99),
            prearm: false,
            mac_assigned: true,
            mac_stays: false,
            seed: 1,
            options: options(policy),
            damping: None,
            watch: None,
        };
        let mut lab = Lab::of(new, 2);
        lab.join(0).unwrap();
        lab.join(1).unwrap();
        assert_eq!(lab.macs(), enslaved, "{policy:?}");
    }
}

/// The MACs of bond0, slave0 and slave1, and what frames carry, over a failover, an external change, and the loss of all
/// slaves. A bond without slaves takes the address of its first one; one that was set stays.
#[test]
fn a_bond_that_keeps_its_mac_has_one_for_ever() {
    for (assigned, kept) in [(None, 0x10), (Some(mac(0x99)), 0x99)] {
        let new = NewBond {
            name: "bond0".into(),
            mac: assigned.unwrap_or(mac(0xb0)),
            mac_assigned: assigned.is_some(),
            mac_stays: true,
            prearm: false,
            seed: 1,
            options: options(Active),
            damping: None,
            watch: None,
        };
        let mut lab = Lab::of(new, 2);
        let wire_of = |lab: &Lab, index: usize| lab.slaves.values().nth(index).unwrap().1;
        lab.join(0).unwrap();
        lab.join(1).unwrap();
        lab.take();
        lab.set_link(0, false);
        lab.wait(ms(1000));
        assert_eq!((lab.macs(), lab.active()), (vec![kept, 0x10, 0x11], Some("slave1".into())));
        assert_eq!([wire_of(&lab, 0), wire_of(&lab, 1)], [mac(0x10), mac(0x11)]);
        let announced =
            |lab: &mut Lab| lab.take().iter().any(|command| matches!(command, Command::Announce(_)));
        assert!(announced(&mut lab), "a failover is announced");
        lab.change_slave_mac(1, mac(0x71));
        assert_eq!((lab.macs(), wire_of(&lab, 1)), (vec![kept, 0x10, 0x71], mac(0x71)));
        assert!(announced(&mut lab), "another MAC on the wire is announced");
        for index in [0, 1] {
            lab.leave(index).unwrap();
            lab.wait(ms(2000));
        }
        lab.join(1).unwrap();
        assert_eq!(lab.macs()[0], kept, "after it had no slaves");
    }
}

/// A failover uses the present addresses of the slaves; under active the bond has its active slave's at once.
#[test]
fn a_slaves_mac_changed_externally() {
    // The MACs of bond0, slave0 and slave1 after a change on the backup, a failover to it, and another change on it.
    for (policy, of_backup, failed_over, of_active) in [
        (Same, [0x10, 0x10, 0x71], [0x10, 0x10, 0x71], [0x10, 0x10, 0x72]),
        (Active, [0x10, 0x10, 0x71], [0x71, 0x10, 0x71], [0x72, 0x10, 0x72]),
        (Follow, [0x10, 0x10, 0x71], [0x10, 0x71, 0x10], [0x10, 0x71, 0x72]),
    ] {
        let mut lab = Lab::enslaved(options(policy), 2);
        lab.take();
        lab.change_slave_mac(1, mac(0x71));
        assert_eq!(lab.macs(), of_backup, "{policy:?}");
        let changed = |mac| Notice::SlaveMacChanged { slave: "slave1".into(), mac };
        assert_eq!(lab.take_reports(), [changed(mac(0x71))], "{policy:?}");
        lab.set_link(0, false);
        lab.wait(ms(1000));
        assert_eq!(lab.macs(), failed_over, "{policy:?}");
        lab.take();
        lab.change_slave_mac(1, mac(0x72));
        let announced = lab.take().iter().any(|command| matches!(command, Command::Announce(_)));
        assert_eq!(announced, policy == Active, "{policy:?}");
        assert_eq!(lab.macs(), of_active, "{policy:?}");
        let wire = lab.slaves.values().nth(1).unwrap().1;
        assert_eq!(wire, mac(if policy == Active { 0x72 } else { 0x10 }), "{policy:?}");
        // An address that xbond has set, or asked for, is not reported.
        lab.take();
        lab.change_slave_mac(1, mac(0x72));
        assert_eq!(lab.take_reports(), [] as [Report; 0], "{policy:?}");
    }
}

/// `bond_set_mac_address`: under none the slaves get the address; the other policies derive it from the slaves.
#[test]
fn a_bonds_mac_changed_externally() {
    for (policy, expected) in
        [(Same, [0x99, 0x99, 0x99]), (Follow, [0x10, 0x10, 0x11]), (Active, [0x10, 0x10, 0x11])]
    {
        let mut lab = Lab::enslaved(options(policy), 2);
        lab.take();
        lab.change_bond_mac(mac(0x99));
        assert_eq!(lab.macs(), expected, "{policy:?}");
        let notice = match policy {
            Same => Notice::BondMacChanged { mac: mac(0x99) },
            Active | Follow => Notice::BondMacRestored { mac: mac(0x99) },
        };
        assert_eq!(lab.take_reports(), [notice], "{policy:?}");
        let wire: Vec<_> = lab.slaves.values().map(|(_, wire_mac, _)| *wire_mac).collect();
        let in_use = if policy == Active { [0x10, 0x11] } else { [expected[0]; 2] };
        assert_eq!(wire, in_use.map(mac), "{policy:?}");

        // In a bond without slaves: the first slave gets it, under none.
        lab.leave(0).unwrap();
        lab.leave(1).unwrap();
        let random = lab.bond_mac;
        lab.change_bond_mac(mac(0x98));
        lab.wait(ms(2000));
        lab.join(0).unwrap();
        let expected = match policy {
            Same => mac(0x98),
            Active => mac(0x10),
            // Not set, but not copied from the first slave any more.
            Follow => random,
        };
        assert_eq!((lab.bond_mac, lab.nic(0).mac), (expected, expected), "{policy:?}, the next first slave");
    }
}

#[test]
fn wire_macs_are_what_frames_carry() {
    for (policy, expected) in
        [(Same, [mac(0x10), mac(0x10)]), (Active, [mac(0x10), mac(0x11)]), (Follow, [mac(0x10), mac(0x10)])]
    {
        let mut lab = Lab::enslaved(options(policy), 2);
        for active in [0, 1] {
            let wire: Vec<_> = lab.slaves.values().map(|(_, wire_mac, _)| *wire_mac).collect();
            assert_eq!(wire, expected, "{policy:?}, slave{active} active");
            lab.set_link(0, false);
        }
    }
}

#[test]
fn a_nic_that_cannot_change_its_mac_turns_the_policy_to_active() {
    for policy in [Same, Follow] {
        let mut lab = Lab::new(options(policy), 2);
        lab.nic_mut(0).can_set_mac = false;
        lab.join(0).unwrap();
        assert_eq!(lab.engine.options().fail_over_mac, Active);
        let turned = Notice::PolicyTurnedActive { slave: "slave0".into() };
        assert!(lab.take_reports().iter().any(|report| *report == turned));
        lab.join(1).unwrap();
        assert_eq!(lab.macs(), [0x10, 0x10, 0x11], "{policy:?}");
    }
}

/// The new active slave refuses the bond's address: the old one gets it again.
#[test]
fn a_refused_swap_leaves_one_slave_with_the_bonds_mac() {
    let mut lab = Lab::enslaved(options(Follow), 3);
    lab.nic_mut(1).refuses = true;
    lab.set_link(0, false);
    assert_eq!((lab.active().as_deref(), lab.macs()), (Some("slave1"), vec![0x10, 0x10, 0x11, 0x12]));
    assert_eq!(lab.status(1).mac, mac(0x11));
    let refused = Notice::MacRefused { interface: "slave1".into(), mac: mac(0x10) };
    assert!(lab.take_reports().iter().any(|report| *report == refused));
    lab.set_link(1, false);
    assert_eq!((lab.active().as_deref(), lab.macs()), (Some("slave2"), vec![0x10, 0x12, 0x11, 0x10]));
}

#[test]
fn a_bond_that_refuses_its_first_slaves_mac_keeps_its_own() {
    for (policy, expected) in [(Same, [0xb0, 0xb0]), (Follow, [0xb0, 0xb0]), (Active, [0xb0, 0x10])] {
        let mut lab = Lab::new(options(policy), 1);
        lab.bond_refuses = true;
        lab.join(0).unwrap();
        assert_eq!(lab.macs(), expected, "{policy:?}");
        let status = lab.engine.status();
        assert_eq!((status.mac, status.slaves[0].mac), (lab.bond_mac, lab.nic(0).mac), "{policy:?}");
        let refusal = Notice::MacRefused { interface: "bond0".into(), mac: mac(0x10) };
        assert!(lab.take_reports().iter().any(|report| *report == refusal), "{policy:?}");
    }
}

#[test]
fn release_warns_of_a_mac_that_stays_in_use() {
    for (policy, warned) in [(Same, true), (Follow, true), (Active, false)] {
        let mut lab = Lab::enslaved(options(policy), 3);
        lab.set_link(0, false);
        lab.take();
        lab.leave(0).unwrap();
        let warning = Notice::ReleasedMacInUse { slave: "slave0".into(), mac: mac(0x10) };
        assert_eq!(lab.take_reports().iter().any(|report| *report == warning), warned, "{policy:?}");
    }
}

#[test]
fn a_missing_slave_is_not_released() {
    let mut lab = Lab::enslaved(options(Follow), 2);
    let slot = lab.slot(0);
    let nic = lab.nics.remove(&10).unwrap();
    lab.handle(Event::Gone { slot }).unwrap();
    assert!(!lab.take().iter().any(|command| matches!(command, Command::Work(Work::Release { .. }))));
    assert_eq!((lab.active().as_deref(), lab.macs(), nic.mac), (Some("slave1"), vec![0x10, 0x10], mac(0x10)));
}
