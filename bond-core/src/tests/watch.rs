//! `watch`: what a slave needs to count as up.

use super::lab::{Lab, ms, options};
use crate::{
    Time,
    command::Reason,
    event::{Event, FoundPaths},
    options::{ArpValidate, BondOptions, FailOverMac, SlaveOptions},
    status::MiiStatus::{self, Down, GoingBack, Up},
};

fn watching(options: BondOptions, nics: u8, watch: &str) -> Lab {
    let mut lab = Lab::enslaved(options, nics);
    lab.handle(Event::SetWatch(Some(watch.parse().unwrap()))).unwrap();
    lab.wait(ms(2000));
    lab.take();
    lab
}

fn slave_watches(lab: &mut Lab, index: u8, watch: &str) {
    let options = SlaveOptions { watch: Some(watch.parse().unwrap()), ..SlaveOptions::default() };
    lab.handle(Event::SetSlaveOptions { slot: lab.slot(index), options }).unwrap();
}

fn primary_first() -> BondOptions {
    BondOptions { primary: Some("slave0".to_owned()), ..options(FailOverMac::None) }
}

fn by_arp() -> BondOptions {
    BondOptions {
        arp_interval: 200,
        arp_ip_target: vec!["10.0.0.254".parse().unwrap()],
        arp_validate: ArpValidate::All,
        ..BondOptions::default()
    }
}

fn state(lab: &Lab, index: u8) -> (MiiStatus, u32) {
    (lab.mii(index), lab.status(index).link_failure_count)
}

fn reasons(lab: &mut Lab) -> Vec<Reason> {
    lab.take_failovers().into_iter().map(|failover| failover.reason).collect()
}

#[test]
fn a_slave_that_needs_its_path_is_down_without_it() {
    for (watch, expected) in [
        ("carrier", (Up, 0)),
        ("any=carrier,path", (Up, 0)),
        ("path", (Down, 1)),
        ("all=carrier,path", (Down, 1)),
    ] {
        let mut lab = watching(primary_first(), 2, watch);
        let failed = lab.slot(1).bit();
        lab.find(failed);
        assert_eq!(state(&lab, 1), expected, "{watch}");
        lab.find(0);
        assert_eq!(state(&lab, 1), (Up, expected.1), "{watch}");
        // Its link is needed in any case.
        lab.set_link(1, false);
        assert_eq!(lab.mii(1), Down, "{watch}");
    }
}

#[test]
fn a_path_that_returns_has_an_updelay() {
    let mut lab = watching(BondOptions { updelay: 500, ..primary_first() }, 2, "all=carrier,path");
    lab.find(lab.slot(0).bit());
    assert_eq!((lab.active().as_deref(), reasons(&mut lab)), (Some("slave1"), vec![Reason::LinkFailed]));
    lab.find(0);
    assert_eq!(lab.mii(0), GoingBack);
    lab.wait(ms(600));
    assert_eq!((lab.active().as_deref(), reasons(&mut lab)), (Some("slave0"), vec![Reason::LinkRecovered]));
}

#[test]
fn an_unproven_path_is_no_missing_one() {
    let mut lab = watching(primary_first(), 2, "all=carrier,path");
    let slot = lab.slot(0).bit();
    lab.find_paths(FoundPaths { failed: slot, unproven: slot, wants_proof: true, seen_at: Time::ZERO });
    assert_eq!(state(&lab, 0), (Up, 0));
}

#[test]
fn the_setting_of_a_slave_precedes_that_of_the_bond() {
    let mut lab = watching(primary_first(), 3, "all=carrier,path");
    slave_watches(&mut lab, 1, "carrier");
    lab.find(lab.slot(1).bit() | lab.slot(2).bit());
    assert_eq!([1, 2].map(|index| lab.mii(index)), [Up, Down]);
    lab.handle(Event::SetWatch(None)).unwrap();
    assert_eq!([1, 2].map(|index| lab.mii(index)), [Up, Up]);
    slave_watches(&mut lab, 1, "path");
    assert_eq!(lab.mii(1), Down);
}

#[test]
fn under_arp_monitoring_a_lost_link_is_seen_at_once_if_it_is_needed() {
    for (watch, expected) in [("arp", Up), ("all=carrier,arp", Down), ("carrier", Down)] {
        let mut lab = watching(by_arp(), 2, watch);
        lab.set_link(0, false);
        assert_eq!(lab.mii(0), expected, "{watch}");
        assert_eq!(lab.active().as_deref() == Some("slave1"), expected == Down, "{watch}");
        lab.set_link(0, true);
        lab.wait(ms(2000));
        assert_eq!(lab.mii(0), Up, "{watch}");
    }
}

#[test]
fn a_slave_that_watches_its_link_only_is_not_judged_by_answers() {
    let mut lab = watching(by_arp(), 2, "all=carrier,arp");
    slave_watches(&mut lab, 1, "carrier");
    (0..2).for_each(|index| lab.nic_mut(index).path = false);
    lab.wait(ms(3000));
    assert_eq!([0, 1].map(|index| lab.mii(index)), [Down, Up]);
    assert_eq!(lab.active().as_deref(), Some("slave1"));
}
