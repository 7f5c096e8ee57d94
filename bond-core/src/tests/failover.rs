//! The commands of a failover and their order.

use super::lab::{BORN, Command, CommandMode, Lab, mac, ms, options};
use crate::{
    command::{
        Announce, Chosen, Failover, Notice,
        Publish::{ClearSlave, Switch, WriteSlave},
        Query::{PollLinks, ReadCounters},
        Reason, Trigger,
        Work::{Enslave, Release, SetBondMac, SetCarrier, SetSlaveMac},
    },
    options::{
        BondOptions,
        FailOverMac::{self, Active, Follow, None as Same},
    },
};

fn failover(from: Option<&str>, to: Option<&str>, reason: Reason, seen: Trigger, chosen: Chosen) -> Command {
    let name = |slave: Option<&str>| slave.map(str::to_owned);
    let chosen = to.map(|_| chosen);
    Failover { from: name(from), to: name(to), reason, seen, chosen }.into()
}

fn link_changed(slave: &str, up: bool) -> Command {
    Notice::LinkChanged { slave: slave.into(), up }.into()
}

/// Returns all commands after a failure of slave0, before any answer.
fn on_failure(policy: FailOverMac) -> Vec<Command> {
    let mut lab = Lab::enslaved(options(policy), 2);
    lab.mode = CommandMode::Manual;
    lab.set_link(0, false);
    lab.take()
}

#[test]
fn commands_of_a_failover_are_in_order() {
    let lab = Lab::enslaved(options(Same), 2);
    let (s0, s1) = (lab.slot(0), lab.slot(1));
    let switch = Command::from(Switch { active: Some(s1), draining: None, usable: 0b10 });
    let (seen, chosen) = (Trigger::LinkEvent, Chosen::OnlyOneUp);
    let failover = failover(Some("slave0"), Some("slave1"), Reason::LinkFailed, seen, chosen);
    let reports = || [link_changed("slave0", false), failover.clone()];
    let expect = |before: &[Command], after: &[Command]| [before, &reports(), after].concat();
    let listen = Command::from(ReadCounters { slot: s1 });

    let none = expect(&[switch.clone(), listen.clone()], &[Announce { slot: s1, mac: mac(0x10) }.into()]);
    assert_eq!(on_failure(Same), none);

    let active = [Announce { slot: s1, mac: mac(0x11) }.into(), SetBondMac(mac(0x11)).into()];
    assert_eq!(on_failure(Active), expect(std::slice::from_ref(&switch), &active));

    let follow = [(s1, 0x10), (s0, 0x11)].map(|(slot, last)| SetSlaveMac { slot, mac: mac(last) }.into());
    assert_eq!(on_failure(Follow), expect(&[switch, listen], &follow));
}

#[test]
fn commands_of_the_first_enslave_are_in_order() {
    let mut lab = Lab::new(options(Same), 2);
    lab.mode = CommandMode::Manual;
    lab.join(0).unwrap();
    let s0 = lab.slot(0);
    let written =
        WriteSlave { slot: s0, ifindex: 10, wire_mac: mac(0x10), permanent_mac: mac(0x10), queue_id: 0 };
    let enslave = Enslave { slot: s0, mac: None };
    assert_eq!(lab.take(), [written.into(), SetBondMac(mac(0x10)).into(), enslave.into()]);
    assert_eq!((lab.bond_mac, lab.active()), (BORN, None));

    assert!(lab.work() && lab.work());
    let up = [
        Switch { active: Some(s0), draining: None, usable: 0b1 }.into(),
        Notice::Enslaved { slave: "slave0".into(), up: true }.into(),
        failover(None, Some("slave0"), Reason::Joined, Trigger::SlaveJoined, Chosen::OnlyOneUp),
        Announce { slot: s0, mac: mac(0x10) }.into(),
        SetCarrier(true).into(),
    ];
    assert_eq!(lab.take(), up);

    lab.join(1).unwrap();
    let s1 = lab.slot(1);
    let written =
        WriteSlave { slot: s1, ifindex: 11, wire_mac: mac(0x10), permanent_mac: mac(0x11), queue_id: 0 };
    assert_eq!(lab.take(), [written.into(), Enslave { slot: s1, mac: Some(mac(0x10)) }.into()]);
}

#[test]
fn commands_of_a_release_are_in_order() {
    let mut lab = Lab::enslaved(options(Same), 2);
    let (s0, s1) = (lab.slot(0), lab.slot(1));
    lab.leave(0).unwrap();
    let expected = [
        Switch { active: Some(s1), draining: Some(s0), usable: 0b10 }.into(),
        ReadCounters { slot: s1 }.into(),
        failover(Some("slave0"), Some("slave1"), Reason::Left, Trigger::SlaveLeft, Chosen::OnlyOneUp),
        Announce { slot: s1, mac: mac(0x10) }.into(),
        // 100 ms later.
        Switch { active: Some(s1), draining: None, usable: 0b10 }.into(),
        ClearSlave { slot: s0 }.into(),
        Notice::ReleasedMacInUse { slave: "slave0".into(), mac: mac(0x10) }.into(),
        Notice::Released { slave: "slave0".into() }.into(),
        Release { slot: s0, mac: Some(mac(0x10)) }.into(),
    ];
    let commands: Vec<_> = lab.take().into_iter().filter(|command| *command != PollLinks.into()).collect();
    assert_eq!(commands, expected);

    lab.leave(1).unwrap();
    let commands = lab.take();
    let [switch, clear, _, _, carrier, Command::Work(SetBondMac(made_up)), release] = &commands[..] else {
        panic!("{commands:?}")
    };
    assert_eq!(*switch, Switch { active: None, draining: None, usable: 0 }.into());
    assert_eq!(*clear, ClearSlave { slot: s1 }.into());
    assert_eq!(*carrier, SetCarrier(false).into());
    assert_eq!(*release, Release { slot: s1, mac: Some(mac(0x11)) }.into());
    assert_eq!(lab.bond_mac, *made_up);
}

#[test]
fn a_planned_switch_drains_the_old_slave() {
    let mut lab = Lab::enslaved(options(Active), 2);
    let (s0, s1) = (lab.slot(0), lab.slot(1));
    lab.set_active(Some(1)).unwrap();
    let expected = [
        Switch { active: Some(s1), draining: Some(s0), usable: 0b11 }.into(),
        failover(Some("slave0"), Some("slave1"), Reason::Requested, Trigger::Request, Chosen::Administrator),
        Announce { slot: s1, mac: mac(0x11) }.into(),
        SetBondMac(mac(0x11)).into(),
    ];
    assert_eq!(lab.take(), expected);
}

#[test]
fn a_backup_that_fails_or_returns_changes_the_usable_mask_only() {
    let mut lab = Lab::enslaved(options(Same), 2);
    let active = Some(lab.slot(0));
    lab.set_link(1, false);
    let switch = |usable| Command::from(Switch { active, draining: None, usable });
    assert_eq!(lab.take(), [switch(0b01), link_changed("slave1", false)]);
    lab.notify_link(1);
    assert_eq!(lab.take(), [], "repeated");
    lab.set_link(1, true);
    assert_eq!(lab.take(), [switch(0b11), link_changed("slave1", true)]);
}

#[test]
fn carrier_follows_the_last_slave() {
    let mut lab = Lab::enslaved(options(Same), 2);
    assert!(lab.carrier);
    lab.set_link(0, false);
    assert!(lab.carrier);
    lab.set_link(1, false);
    assert!(!lab.carrier && !lab.engine.status().carrier);
    lab.set_link(0, true);
    assert!(lab.carrier && lab.engine.status().carrier);
}

/// A slave of equal rank does not take over when its link recovers.
#[test]
fn a_returning_slave_stays_backup_unless_it_is_preferred() {
    type Preference = fn(&mut Lab);
    #[rustfmt::skip]
    let table: [(&str, Preference, &str); 5] = [
        ("equal", |_| {}, "slave1"),
        ("primary", |lab| lab.set_options(|options| options.primary = Some("slave0".into())).unwrap(), "slave0"),
        ("higher prio", |lab| lab.set_prio(0, 1), "slave0"),
        ("lower prio", |lab| { lab.set_prio(1, 2); lab.set_prio(0, 1) }, "slave1"),
        ("primary has less prio", |lab| {
            lab.set_options(|options| options.primary = Some("slave1".into())).unwrap();
            lab.set_prio(0, 9);
        }, "slave1"),
    ];
    for (name, prefer, expected) in table {
        let mut lab = Lab::enslaved(options(Same), 2);
        prefer(&mut lab);
        lab.set_link(0, false);
        assert_eq!(lab.active().as_deref(), Some("slave1"), "{name}");
        lab.set_link(0, true);
        assert_eq!(lab.active().as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn all_slaves_fail_and_return() {
    let mut lab = Lab::enslaved(options(Follow), 2);
    lab.set_link(0, false);
    lab.take();
    lab.set_link(1, false);
    let none = failover(Some("slave1"), None, Reason::LinkFailed, Trigger::LinkEvent, Chosen::OnlyOneUp);
    let switch = Switch { active: None, draining: None, usable: 0 };
    let expected = [switch.into(), link_changed("slave1", false), none, SetCarrier(false).into()];
    assert_eq!(lab.take(), expected);
    lab.set_link(0, true);
    let (seen, chosen) = (Trigger::LinkEvent, Chosen::OnlyOneUp);
    assert!(lab.take().contains(&failover(None, Some("slave0"), Reason::LinkRecovered, seen, chosen)));
}

/// The reason is why the active slave changed; `seen` is what showed it.
#[test]
fn a_failover_has_its_trigger() {
    let carrier_is_lost = |lab: &mut Lab| lab.set_link(0, false);
    let no_event_comes = |lab: &mut Lab| lab.nic_mut(0).link.up = false;
    let path_dies = |lab: &mut Lab| lab.nic_mut(0).path = false;
    let by_administrator = |lab: &mut Lab| lab.set_active(Some(1)).unwrap();
    let primary = |lab: &mut Lab| lab.set_options(|options| options.primary = Some("slave1".into())).unwrap();
    let leaves = |lab: &mut Lab| lab.leave(0).unwrap();
    let miimon = options(Same);
    let delayed = BondOptions { downdelay: 300, ..options(Same) };
    let target = vec!["10.0.0.254".parse().unwrap()];
    let probing = BondOptions { miimon: 0, arp_interval: 200, arp_ip_target: target, ..options(Same) };
    type Act<'a> = &'a dyn Fn(&mut Lab);
    let table: [(&BondOptions, Act<'_>, Reason, Trigger, Chosen); 7] = [
        (&miimon, &carrier_is_lost, Reason::LinkFailed, Trigger::LinkEvent, Chosen::OnlyOneUp),
        (&miimon, &no_event_comes, Reason::LinkFailed, Trigger::Miimon, Chosen::OnlyOneUp),
        (&delayed, &carrier_is_lost, Reason::LinkFailed, Trigger::Delay, Chosen::OnlyOneUp),
        (&probing, &path_dies, Reason::LinkFailed, Trigger::ArpMonitor, Chosen::OnlyOneUp),
        (&miimon, &by_administrator, Reason::Requested, Trigger::Request, Chosen::Administrator),
        (&miimon, &primary, Reason::OptionChanged, Trigger::Request, Chosen::Primary),
        (&miimon, &leaves, Reason::Left, Trigger::SlaveLeft, Chosen::OnlyOneUp),
    ];
    for (options, act, reason, seen, chosen) in table {
        let mut lab = Lab::enslaved(options.clone(), 2);
        lab.wait(ms(2000));
        lab.take();
        act(&mut lab);
        lab.wait(ms(1000));
        let taken = lab.take();
        let expected = failover(Some("slave0"), Some("slave1"), reason, seen, chosen);
        assert!(taken.contains(&expected), "{expected:?} is not in {taken:#?}");
    }
}
