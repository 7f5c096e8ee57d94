//! The clock in the kernel without an agent: a data plane, its clock, and two slaves whose links are cut.

mod programs;

use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData};
use bond_common::{
    abi::{FailOverMac, Slot},
    behind::{BehindEntry, BehindKey, LastSent, Tag},
    clock::{
        frame::{ClockFrame, FRAMES},
        layout::{ClockEntry, TickEntry},
    },
    mac::Mac,
    names,
};
use bond_core::name::BondName;
use bond_user::sys::{
    Devices, KernelDevices, ThreadRuntime,
    alias::Mark,
    clock::{self, ClockNames, ClockPair},
    dataplane::{ClockEnd, ClockMaps, Hook},
};
use programs::{Bench, ip};
use xbond_tests::frames::{HOST, Scene, arp};

const PERIOD: Duration = Duration::from_millis(10);

/// A data plane with its clock, both slaves up, slot 0 active.
struct Ticking {
    bench: Bench,
    _runtime: ThreadRuntime,
    devices: KernelDevices,
    pair: ClockPair,
}

impl Ticking {
    fn new(hook: Hook, name: &str, policy: FailOverMac) -> Self {
        let mut bench = Bench::new(hook, name);
        bench.guard(&Scene::of(policy), true);
        let runtime = ThreadRuntime::new().unwrap();
        let bond = BondName::new("bond0").unwrap();
        let made = runtime.block_on(async {
            let devices = KernelDevices::open().unwrap();
            let names = ClockNames::of(&bond).next().unwrap();
            let pair = clock::create(&devices, &names, &Mark::of(&bond), PERIOD).await.unwrap();
            (devices, pair)
        });
        let (devices, pair) = made.unwrap();
        let receiver = ClockEnd { device: "bond0-clk1", ifindex: pair.receiver };
        let sender = ClockEnd { device: "bond0-clk0", ifindex: pair.sender };
        bench.data_plane.attach_tick(receiver, sender).unwrap();
        let ticking = Self { bench, _runtime: runtime, devices, pair };
        ticking.bench.mirror.update_clock(|clock| {
            clock.period = PERIOD.as_nanos() as u64;
            clock.flags = ClockEntry::LINKS;
            clock.sender = pair.sender.into();
        });
        clock::inject(&ticking.devices, pair, [0; FRAMES]).unwrap();
        ticking
    }

    fn clock(&self) -> &ClockMaps {
        self.bench.maps.clock().unwrap()
    }

    fn ticks(&self) -> TickEntry {
        self.clock().ticks()
    }

    /// Waits until this holds of the tick's state, for at most two seconds.
    fn until(&self, what: &str, holds: impl Fn(&TickEntry) -> bool) -> TickEntry {
        let start = Instant::now();
        loop {
            let ticks = self.ticks();
            if holds(&ticks) {
                return ticks;
            }
            assert!(start.elapsed() < Duration::from_secs(2), "{what}: {ticks:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits for as many further ticks.
    fn pass(&self, number: u64) -> TickEntry {
        let until = self.ticks().ticks + number;
        self.until("ticks", |ticks| ticks.ticks >= until)
    }

    /// Makes the tick expect another sequence of a frame, so that the frame is dropped.
    fn lose(&self, frame: usize) {
        let map = MapData::from_pin(self.bench.dir.join(names::TICKS)).unwrap();
        let mut map = Array::<_, TickEntry>::try_from(Map::Array(map)).unwrap();
        let mut entry = map.get(&0, 0).unwrap();
        entry.frames[frame].sequence += 1000;
        map.set(0, entry, 0).unwrap();
    }

    fn active(&self) -> Option<usize> {
        self.bench.maps.active().active().map(Slot::index)
    }
}

fn each_hook(test: impl Fn(Hook)) {
    for hook in [Hook::Tc, Hook::Xdp] {
        test(hook);
    }
}

#[test]
fn ticks_come_in_their_period() {
    let ticking = Ticking::new(Hook::Tc, "period", FailOverMac::None);
    let first = ticking.pass(10);
    let last = ticking.pass(100);
    let (ticks, time) = (last.ticks - first.ticks, Duration::from_nanos(last.last - first.last));
    let period = time / ticks as u32;
    assert!(period >= PERIOD - PERIOD / 10 && period <= PERIOD + PERIOD / 10, "{period:?}");
    assert_eq!((last.refused, last.injected), (0, 0), "{last:?}");
}

#[test]
fn an_idle_bond_fails_over_and_takes_the_slave_that_returns() {
    each_hook(|hook| {
        let ticking = Ticking::new(hook, "idle", FailOverMac::Active);
        ticking.pass(2);
        ip(&["link", "set", "wire0", "down"]);
        let cut = ticking.until("a failover", |ticks| ticks.failovers == 1);
        assert_eq!(ticking.active(), Some(1));
        ip(&["link", "set", "wire1", "down"]);
        ticking.until("no active slave", |ticks| ticks.failovers == 2);
        assert_eq!(ticking.active(), None, "{cut:?}");
        ip(&["link", "set", "wire0", "up"]);
        ticking.until("the slave that returned", |ticks| ticks.failovers == 3);
        assert_eq!(ticking.active(), Some(0));
    });
}

#[test]
fn a_lost_frame_is_put_in_again_and_copies_end() {
    let ticking = Ticking::new(Hook::Tc, "lost", FailOverMac::None);
    ticking.pass(5);
    // A copy of each frame, and one of another program.
    let frames = ticking.devices.open_frames(ticking.pair.sender).unwrap();
    let before = ticking.ticks();
    for (number, lap) in (0..).zip(before.frames) {
        frames.send(&ClockFrame { number, sequence: lap.sequence.wrapping_sub(1) }.bytes()).unwrap();
    }
    frames.send(&arp(HOST, HOST, HOST, HOST)).unwrap();
    ticking.until("three refused frames", |ticks| ticks.refused == 3);
    // One is lost: the tick expects another sequence of it.
    ticking.lose(1);
    ticking.until("a frame that was put in again", |ticks| ticks.injected == 1);
    let after = ticking.pass(20);
    assert_eq!(after.injected, 1, "{after:?}");
}

/// Stores MAC addresses behind the bond that sent so long ago, numbered from `first` on.
fn remember(bench: &Bench, age: Duration, numbers: std::ops::Range<u16>) {
    let map = MapData::from_pin(bench.dir.join(names::BEHIND)).unwrap();
    let mut map = HashMap::<_, BehindKey, BehindEntry>::try_from(Map::LruHashMap(map)).unwrap();
    let now = Duration::from(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap());
    let seen = LastSent::new(now.saturating_sub(age).as_nanos() as u64, 0);
    for number in numbers {
        let [high, low] = number.to_be_bytes();
        let key = BehindKey::new(Mac::new([2, 0, 0, 1, high, low]), [Tag::NONE; 2]);
        map.insert(key, BehindEntry { seen, announced: 0 }, 0).unwrap();
    }
}

#[test]
fn macs_behind_the_bond_are_announced_newest_first_and_once_in_a_round() {
    let ticking = Ticking::new(Hook::Tc, "behind", FailOverMac::None);
    ticking.pass(2);
    remember(&ticking.bench, Duration::from_secs(30), 100..200);
    remember(&ticking.bench, Duration::ZERO, 0..100);
    ticking.bench.mirror.update_clock(|clock| clock.rounds = 1);
    ip(&["link", "set", "wire0", "down"]);
    // In whichever tick this is: none of those that sent before is announced as long as one that sent just now is not.
    ticking.until("the first of a round", |ticks| ticks.behind >= 64);
    let found = ticking.bench.maps.behind().unwrap();
    let is_new = |key: &BehindKey| key.mac().bytes()[5] < 100;
    let count =
        |new: bool| found.iter().filter(|(key, entry)| is_new(key) == new && entry.announced != 0).count();
    assert!(count(true) == 100 || count(false) == 0, "{} of 100 and {}", count(true), count(false));
    let ticks = ticking.until("a round", |ticks| ticks.behind == 200 && ticks.sending == 0);
    assert_eq!((ticks.macs, ticks.sent, ticks.refused_of_round, ticks.capped), (200, 0, 0, 0), "{ticks:?}");
    let rounds: std::collections::BTreeSet<_> =
        ticking.bench.maps.behind().unwrap().iter().map(|(_, entry)| entry.announced).collect();
    assert_eq!(rounds.len(), 1, "all in one round: {rounds:?}");
}

#[test]
fn a_round_announces_no_more_macs_than_the_most() {
    let ticking = Ticking::new(Hook::Tc, "capped", FailOverMac::None);
    ticking.pass(2);
    remember(&ticking.bench, Duration::ZERO, 0..1100);
    ticking.bench.mirror.update_clock(|clock| clock.rounds = 1);
    ip(&["link", "set", "wire0", "down"]);
    let ticks = ticking.until("a round", |ticks| ticks.capped == 1 && ticks.sending == 0);
    assert_eq!((ticks.macs, ticks.behind), (1024, 1024), "{ticks:?}");
}
