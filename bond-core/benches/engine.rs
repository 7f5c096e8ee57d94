//! What the engine takes from an event to its batch, for 2 to 16 slaves.

use std::collections::VecDeque;

use bond_common::{abi::Slot, mac::Mac};
use bond_core::{
    Engine, NewBond, Time,
    command::{Batch, Publish, Work},
    event::{Duplex, Event, Link, NewSlave, Speed},
    options::{BondOptions, FailOverMac, SlaveOptions},
};
use divan::{Bencher, black_box};

const SLAVES: [u8; 4] = [2, 4, 8, 16];
const START: Time = Time::from_secs(1_000);
/// After the bond has settled.
const LATER: Time = Time::from_secs(1_010);
const UP: Link = Link { speed: Speed(10_000), duplex: Duplex::Full, ..Link::new(true) };
const DOWN: Link = Link { up: false, ..UP };

fn main() {
    divan::main();
}

fn slot(index: u8) -> Slot {
    Slot::new(index).expect("fewer than 16")
}

/// A bond whose slaves have all joined; the first is active.
fn settled(slaves: u8) -> Engine {
    let options = BondOptions { miimon: 100, fail_over_mac: FailOverMac::Active, ..BondOptions::default() };
    let mac = |last| Mac::new([2, 0, 0, 0, 0, last]);
    let mut engine = Engine::new(NewBond {
        name: "bond0".into(),
        mac: mac(0xb0),
        mac_assigned: false,
        mac_stays: false,
        prearm: false,
        seed: 1,
        options,
        damping: None,
        watch: None,
    });
    for index in 0..slaves {
        let new = NewSlave {
            name: format!("slave{index}"),
            ifindex: 10 + u32::from(index),
            mac: mac(0x10 + index),
            can_set_mac: true,
            options: SlaveOptions::default(),
            drained: false,
        };
        let batch = engine.handle(START, Event::Join(new)).unwrap();
        execute(&mut engine, batch);
    }
    assert_eq!(engine.slaves().filter(|slave| slave.joined).count(), usize::from(slaves));
    engine
}

/// Does what the engine asks for, in no time.
fn execute(engine: &mut Engine, batch: Batch) {
    let mut batches = VecDeque::from([batch]);
    while let Some(Batch { work, announcements, .. }) = batches.pop_front() {
        let answer = |work| match work {
            Work::Enslave { slot, .. } => Some(Event::Joined { slot, link: UP }),
            Work::SetSlaveMac { slot, mac } => Some(Event::SlaveMacSet { slot, mac, done: true }),
            Work::SetBondMac(mac) => Some(Event::BondMacSet { mac, done: true }),
            _ => None,
        };
        let announced = announcements.into_iter().map(|round| Event::Announced { slot: round.slot });
        for event in work.into_iter().filter_map(answer).chain(announced) {
            batches.push_back(engine.handle(START, event).unwrap());
        }
    }
}

/// From the event to its batch. Whether a part of that is a switch must be as expected.
fn measure(bencher: Bencher<'_, '_>, slaves: u8, switches: bool, event: impl Fn() -> Event + Sync) {
    let settled = settled(slaves);
    // Returned, so that dropping them is not measured.
    let run = |(mut engine, event): (Engine, Event)| {
        let batch = engine.handle(LATER, event);
        (engine, black_box(batch))
    };
    let (_, batch) = run((settled.clone(), event()));
    let is_switch = |publish: &Publish| matches!(publish, Publish::Switch { .. });
    assert_eq!(batch.unwrap().publish.iter().any(is_switch), switches);
    bencher.with_inputs(|| (settled.clone(), event())).bench_values(run);
}

/// The active slave loses its carrier: an election, a switch, the MACs, the announcement.
#[divan::bench(args = SLAVES)]
fn carrier_lost(bencher: Bencher<'_, '_>, slaves: u8) {
    measure(bencher, slaves, true, || Event::Link { slot: slot(0), link: DOWN });
}

/// Measures a link event that repeats the known state.
#[divan::bench(args = SLAVES)]
fn nothing_new(bencher: Bencher<'_, '_>, slaves: u8) {
    measure(bencher, slaves, false, || Event::Link { slot: slot(0), link: UP });
}

/// What miimon brings while all links are up.
#[divan::bench(args = SLAVES)]
fn all_links_read(bencher: Bencher<'_, '_>, slaves: u8) {
    measure(bencher, slaves, false, || Event::Links((0..slaves).map(|index| (slot(index), UP)).collect()));
}

/// A planned switch.
#[divan::bench(args = SLAVES)]
fn active_slave_set(bencher: Bencher<'_, '_>, slaves: u8) {
    measure(bencher, slaves, true, || Event::SetActiveSlave(Some(slot(1))));
}
