//! Runs every program by BPF_PROG_TEST_RUN on the frames of one table, and compares the action and the resulting
//! bytes.

mod programs;

use std::{sync::Arc, time::Duration};

use aya::TestRunOptions;
use bond_common::{
    abi::{
        BondEntry, DeviceHandle, FailOverMac, GuardEntry, LinkQuestion, MAX_TARGETS, ProbeTimes, Rank,
        SlaveEntry, Slot, Targets,
    },
    behind::Tag,
    counters::DropReason,
    mac::Mac,
    path::layout::pair,
};
use bond_user::sys::{
    dataplane::{BpfDataPlane, DeviceReader, Hook, Kernel, PathProbe},
    directory::Location,
    probe,
};
use etherparse::PacketBuilder;
use programs::{Bench, index, ip};
use xbond_tests::frames::{
    GROUP, GUEST, HOST, IPV4, LLDP, OWN, PEER, Scene, Verdict, Verdict::Forwarded, Way, arp, cases, ethernet,
    solicitation, tagged,
};

impl Bench {
    fn transmit(&self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.run(Way::Transmit, frame)
    }

    fn receive(&self, slot: u8, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.run(Way::Receive(slot), frame)
    }
}

fn table(hook: Hook, is_wanted: fn(Way) -> bool) {
    let bench = Bench::new(hook, "table");
    for case in cases(bench.datapath()).into_iter().filter(|case| is_wanted(case.way)) {
        let what = format!("{}, {:?}", case.name, case.scene);
        bench.set(&case.scene);
        let before = bench.total();
        assert_eq!(bench.run(case.way, &case.frame), (case.verdict, case.out.clone()), "{what}");
        let after = bench.total();
        let changed = after.tx_rewritten + after.rx_rewritten - before.tx_rewritten - before.rx_rewritten;
        assert_eq!(changed, u64::from(case.is_changed()), "{what}");
        let unicast = case.verdict == Forwarded && case.frame[0] & 1 == 0 && case.way != Way::Transmit;
        assert_eq!(after.rx_unicast - before.rx_unicast, u64::from(unicast), "{what}");
        let local = case.verdict == Verdict::Local;
        assert_eq!(after.rx_link_local - before.rx_link_local, u64::from(local), "{what}");
    }
}

/// Under none and follow the bond has one MAC address; bond0 never sent frames with the address of a backup.
fn backups_mac_stays_under_follow(hook: Hook) {
    let bench = Bench::new(hook, "follow");
    bench.policy(FailOverMac::Follow, 0);
    let frame = ethernet(PEER, OWN[1], IPV4);
    assert_eq!(bench.transmit(&frame), (Forwarded, frame.clone()));
}

/// While bond0's MAC address is being changed, frames get the address that bond0 has at that moment.
fn moving_host_mac(hook: Hook) {
    let bench = Bench::new(hook, "moving");
    let reader = DeviceReader::new(&Kernel::read()).unwrap();
    let host = reader.read(index("host")).unwrap().unwrap();
    bench.mirror.update_bond(|bond| {
        bond.with_host_device(host.handle().device()).with_flags(BondEntry::HOST_MAC_MOVES)
    });
    let to = |destination: Mac| ethernet(destination, PEER, IPV4);
    assert_eq!(bench.receive(0, &to(OWN[0])), (Forwarded, to(host.mac())));
    ip(&["link", "set", "host", "address", "02:00:00:00:00:55"]);
    assert_eq!(bench.receive(0, &to(OWN[0])).1, to("02:00:00:00:00:55".parse().unwrap()));
}

fn learned_host_mac(hook: Hook) {
    let bench = Bench::new(hook, "learned");
    bench.policy(FailOverMac::Active, BondEntry::LEARN_HOST_MAC);
    let to = |destination: Mac| ethernet(destination, PEER, IPV4);
    let from = |source: Mac| ethernet(PEER, source, IPV4);
    assert_eq!(bench.receive(0, &to(OWN[0])).1, to(OWN[0]), "no host is known yet");
    assert_eq!(bench.transmit(&from(GUEST)).1, from(OWN[0]));
    assert_eq!(bench.receive(0, &to(OWN[0])).1, to(GUEST));
    assert_eq!(bench.transmit(&from(HOST)).1, from(HOST), "another host's address stays");
}

/// Where bond0 keeps its MAC address, DHCP requests with it ask for broadcast answers, as far as it is not on the wire.
fn dhcp_requests(hook: Hook) {
    let bench = Bench::new(hook, "dhcp");
    let request = |source: Mac, client: Mac, flags: u8| {
        let head = [&[1, 1, 6, 0, 1, 2, 3, 4, 0, 0, flags, 0][..], &[0; 16], &client.bytes()].concat();
        let message = [head, vec![0; 206]].concat();
        let builder = PacketBuilder::ethernet2(source.bytes(), Mac::BROADCAST.bytes());
        let mut frame = Vec::new();
        builder.ipv4([0; 4], [255; 4], 64).udp(68, 67).write(&mut frame, &message).unwrap();
        frame
    };
    bench.policy(FailOverMac::Active, 0);
    assert_eq!(
        bench.transmit(&request(HOST, HOST, 0)).1,
        request(OWN[0], HOST, 0),
        "without the flag of the bond"
    );
    bench.policy(FailOverMac::Active, BondEntry::HOST_MAC_STAYS);
    let table = [
        ("the host's", request(HOST, HOST, 0), request(OWN[0], HOST, 0x80)),
        ("with the flag", request(HOST, HOST, 0x80), request(OWN[0], HOST, 0x80)),
        ("of another client", request(HOST, GUEST, 0), request(OWN[0], GUEST, 0)),
        ("a guest's", request(GUEST, GUEST, 0), request(GUEST, GUEST, 0)),
        ("on the wire", request(OWN[0], OWN[0], 0), request(OWN[0], OWN[0], 0)),
    ];
    for (what, frame, out) in table {
        assert_eq!(bench.transmit(&frame), (Forwarded, out.clone()), "{what}");
        assert_eq!(bench.transmit(&tagged(&frame, [0x81, 0])).1, tagged(&out, [0x81, 0]), "{what}, tagged");
    }
}

#[test]
fn tc_has_dhcp_requests_ask_for_broadcast_answers() {
    dhcp_requests(Hook::Tc);
}

#[test]
fn xdp_has_dhcp_requests_ask_for_broadcast_answers() {
    dhcp_requests(Hook::Xdp);
}

/// The MAC addresses in BEHIND, with the VIDs of their tags.
fn behind(bench: &Bench) -> Vec<(Mac, Vec<u16>)> {
    let vids = |tags: [Tag; 2]| tags.into_iter().filter(|tag| !tag.is_none()).map(Tag::vid).collect();
    let found = bench.maps.behind().unwrap();
    found.into_iter().map(|(key, _)| (key.mac(), vids(key.tags()))).collect()
}

fn macs_behind_are_remembered(hook: Hook) {
    let bench = Bench::new(hook, "behind");
    for policy in [FailOverMac::None, FailOverMac::Active, FailOverMac::Follow] {
        bench.set(&Scene::of(policy));
        for source in [HOST, OWN[0], OWN[1], GROUP, Mac::ZERO] {
            bench.transmit(&ethernet(PEER, source, IPV4));
        }
    }
    assert_eq!(behind(&bench), [], "the bond's own, and what is no source");
    bench.transmit(&tagged(&tagged(&ethernet(PEER, GUEST, IPV4), [0x81, 0]), [0x88, 0xa8]));
    bench.transmit(&ethernet(Mac::BROADCAST, GUEST, IPV4));
    let mut found = behind(&bench);
    found.sort();
    assert_eq!(found, [(GUEST, vec![]), (GUEST, vec![5, 5])]);
}

/// A source of frames that the active slave receives is not behind the bond, unless the frame may be a copy of one that
/// another slave has sent.
fn macs_that_moved_are_forgotten(hook: Hook) {
    let bench = Bench::new(hook, "moved");
    let from_wire = |slot, destination| bench.receive(slot, &ethernet(destination, GUEST, IPV4));
    let sends = || bench.transmit(&ethernet(PEER, GUEST, IPV4));
    sends();
    from_wire(1, Mac::BROADCAST);
    assert_eq!(behind(&bench).len(), 1, "a backup receives a copy of each broadcast");
    from_wire(0, Mac::BROADCAST);
    assert_eq!(behind(&bench), [], "it has moved");
    sends();
    bench.switch(Some(1), None);
    from_wire(1, Mac::BROADCAST);
    assert_eq!(behind(&bench).len(), 1, "the former active slave sent it");
    sends();
    for _ in 0..64 {
        from_wire(1, HOST);
    }
    assert_eq!(behind(&bench), [], "unicast frames are sampled");
}

#[test]
fn macs_behind_the_bond_are_remembered_and_forgotten() {
    for hook in [Hook::Tc, Hook::Xdp] {
        macs_behind_are_remembered(hook);
        macs_that_moved_are_forgotten(hook);
    }
}

#[test]
fn tc_port_tx() {
    table(Hook::Tc, |way| way == Way::Transmit);
    backups_mac_stays_under_follow(Hook::Tc);
}

#[test]
fn xdp_port_tx() {
    table(Hook::Xdp, |way| way == Way::Transmit);
    backups_mac_stays_under_follow(Hook::Xdp);
}

#[test]
fn tc_slave_rx() {
    table(Hook::Tc, |way| way != Way::Transmit);
}

#[test]
fn xdp_slave_rx() {
    table(Hook::Xdp, |way| way != Way::Transmit);
}

#[test]
fn tc_reads_the_host_mac_while_it_moves() {
    moving_host_mac(Hook::Tc);
}

#[test]
fn xdp_reads_the_host_mac_while_it_moves() {
    moving_host_mac(Hook::Xdp);
}

#[test]
fn tc_learns_the_host_behind_a_port() {
    learned_host_mac(Hook::Tc);
}

#[test]
fn xdp_learns_the_host_behind_a_port() {
    learned_host_mac(Hook::Xdp);
}

#[test]
fn device_state_follows_the_device() {
    // SAFETY: unshare of this thread's network namespace; it goes with the thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "these tests need root");
    ip(&["link", "add", "near", "address", "02:00:00:00:00:01", "type", "veth", "peer", "name", "far"]);
    let reader = DeviceReader::new(&Kernel::read()).unwrap();
    let state = || reader.read(index("near")).unwrap().unwrap();
    assert!(!state().link_up());
    assert_eq!((state().ifindex(), state().mac().to_string()), (index("near"), "02:00:00:00:00:01".into()));
    ip(&["link", "set", "near", "up"]);
    assert!(!state().link_up(), "the far end is down");
    ip(&["link", "set", "far", "up"]);
    assert!(state().link_up());
    ip(&["link", "set", "far", "down"]);
    assert!(!state().link_up());
    let gone = index("near");
    ip(&["link", "del", "near"]);
    assert_eq!(reader.read(gone).unwrap(), None, "no such device");
}

/// What a frame changes in PROBES for the slave that received it: nothing, a time, or also a target's time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Noted {
    Nothing,
    Traffic,
    Target(usize),
}

impl Bench {
    fn monitor(&self, flags: u32) {
        self.policy(FailOverMac::Active, flags);
        let mut targets = Targets::default().with_prober(Slot::new(1).unwrap());
        targets.set_ipv4(MAX_TARGETS - 1, [192, 168, 99, 1], [192, 168, 99, 101]);
        targets.set_ipv6(MAX_TARGETS - 1, [0xfe; 16], [0xfd; 16]);
        self.mirror.set_targets(targets);
    }

    /// Receives a frame; returns what was recorded, and checks the times against the clock.
    fn note(&self, slot: u8, frame: &[u8]) -> Noted {
        let times = || self.maps.probe_times(Slot::new(slot).unwrap());
        let before = times();
        let began = monotonic();
        self.receive(slot, frame);
        let after = times();
        if after == before {
            return Noted::Nothing;
        }
        assert!((began..=monotonic()).contains(&after.last_rx()), "{after:?}");
        let changed = |index: &usize| after.targets()[*index] != before.targets()[*index];
        let changed: Vec<_> = (0..2 * MAX_TARGETS).filter(changed).collect();
        match changed[..] {
            [] => Noted::Traffic,
            [target] => {
                assert_eq!(after.targets()[target], after.last_rx());
                Noted::Target(target)
            }
            _ => panic!("{changed:?}"),
        }
    }
}

fn monotonic() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    std::time::Duration::from(now).as_nanos() as u64
}

fn monitor_table(hook: Hook) {
    const ALL: u32 = BondEntry::MONITOR | BondEntry::VALIDATE_ACTIVE | BondEntry::VALIDATE_BACKUP;
    let bench = Bench::new(hook, "monitor");
    let request = arp(Mac::BROADCAST, OWN[0], OWN[0], Mac::ZERO);
    // The operation's low byte, and the addresses swapped.
    let mut answer = arp(OWN[0], PEER, PEER, OWN[0]);
    answer[21] = 2;
    answer[28..32].copy_from_slice(&[192, 168, 99, 1]);
    answer[38..42].copy_from_slice(&[192, 168, 99, 101]);
    let mut advertisement = solicitation(PEER);
    advertisement[54] = 136;
    advertisement[22..38].copy_from_slice(&[0xfe; 16]);
    advertisement[38..54].copy_from_slice(&[0xfd; 16]);
    let other = ethernet(OWN[0], PEER, IPV4);
    let (v4, v6) = (Noted::Target(MAX_TARGETS - 1), Noted::Target(2 * MAX_TARGETS - 1));
    let nothing = [Noted::Nothing; 2];
    // What slot 0, which is active, and slot 1, a backup, record.
    let table = [
        ("off", 0, &answer, nothing),
        ("off, but validating", ALL & !BondEntry::MONITOR, &answer, nothing),
        ("none", BondEntry::MONITOR, &other, [Noted::Traffic; 2]),
        ("LLDP counts, too", BondEntry::MONITOR, &ethernet(LLDP, PEER, IPV4), [Noted::Traffic; 2]),
        ("filter", BondEntry::MONITOR | BondEntry::FILTER, &other, nothing),
        ("filter", BondEntry::MONITOR | BondEntry::FILTER, &request, [Noted::Traffic; 2]),
        ("other", ALL, &other, nothing),
        ("an answer", ALL, &answer, [v4, Noted::Nothing]),
        ("a tagged answer", ALL, &tagged(&answer, [0x81, 0]), [v4, Noted::Nothing]),
        ("two tags", ALL, &tagged(&tagged(&answer, [0x81, 0]), [0x88, 0xa8]), [v4, Noted::Nothing]),
        ("our request", ALL, &request, [Noted::Nothing, v4]),
        ("an advertisement", ALL, &advertisement, [v6, Noted::Nothing]),
        ("our solicitation", ALL, &solicitation(OWN[0]), [Noted::Nothing, v6]),
        ("a cut answer", ALL, &answer[..40].to_vec(), nothing),
    ];
    for (name, flags, frame, expected) in table {
        bench.monitor(flags);
        assert_eq!([0, 1].map(|slot| bench.note(slot, frame)), expected, "{name}");
    }
    // Without an active slave the slave that probes in this round receives answers, and the others receive late ones.
    bench.switch(None, None);
    bench.monitor(ALL);
    assert_eq!([0, 1].map(|slot| bench.note(slot, &answer)), [v4, v4]);
    assert_eq!([0, 1].map(|slot| bench.note(slot, &request)), nothing);
    // Recorded times stay when the monitor is off.
    bench.monitor(0);
    assert_ne!(bench.maps.probe_times(Slot::new(0).unwrap()), ProbeTimes::NEVER);
}

#[test]
fn tc_notes_what_the_arp_monitor_waits_for() {
    monitor_table(Hook::Tc);
}

#[test]
fn xdp_notes_what_the_arp_monitor_waits_for() {
    monitor_table(Hook::Xdp);
}

#[test]
fn an_existing_bond_is_not_overwritten() {
    let bench = Bench::new(Hook::Tc, "exists");
    let again = BpfDataPlane::create(&Location::at(&bench.dir), Hook::Tc, Arc::new(Kernel::read()));
    let error = again.err().expect("must be refused").to_string();
    assert!(error.contains("xbond down"), "{error}");
    assert!(bench.dir.join("ACTIVE").exists());
}

/// The carrier guard: frames that are sent while the active slave's device has no link.
// One thing: a table of states, each of which follows the one before.
fn guard_table(hook: Hook) {
    let bench = Bench::new(hook, "guard");
    let reader = DeviceReader::new(&Kernel::read()).unwrap();
    let slot = |index: u8| Slot::new(index).unwrap();
    let set_slave = |index: u8, device: &str| {
        let wire = OWN[usize::from(index)];
        let handle = reader.read(programs::index(device)).unwrap().unwrap().handle();
        let entry =
            SlaveEntry::new(programs::index(&format!("slave{index}")), wire, wire).with_handle(handle);
        bench.mirror.set_slave(slot(index), entry);
    };
    set_slave(0, "slave0");
    set_slave(1, "slave1");
    for device in ["slave0", "wire0", "slave1", "wire1"] {
        ip(&["link", "set", device, "up"]);
    }
    let guarded = BondEntry::GUARD;
    bench.policy(FailOverMac::Active, guarded);
    bench.mirror.set_rank(Rank::new([slot(0), slot(1)]));
    let frame = ethernet(PEER, HOST, IPV4);
    let by = |index: usize| (Forwarded, ethernet(PEER, OWN[index], IPV4));
    let pause = || {
        let until = bench.maps.guard().switched_at() + GuardEntry::PAUSE;
        while monotonic() < until {
            std::thread::sleep(Duration::from_nanos(until - monotonic()));
        }
    };
    let active = || bench.maps.active().active().unwrap().index();

    let before = bench.maps.active();
    assert_eq!(bench.transmit(&frame), by(0));
    assert_eq!(bench.maps.active(), before, "a link that is up changes nothing");

    // The far end goes down, and with it the carrier; the frame leaves by the other slave, and so does the next.
    ip(&["link", "set", "wire0", "down"]);
    assert_eq!(bench.transmit(&frame), by(1));
    let after = bench.maps.active();
    assert_eq!((active(), after.usable()), (1, 0b10));
    assert_eq!(after.generation(), before.generation() + 1);
    assert_eq!(bench.maps.stats(1).unwrap().guard_failovers, 1);
    assert_eq!(bench.transmit(&frame), by(1));
    assert_eq!(bench.maps.active(), after);

    // The link returns too soon: the guard waits until its pause is over.
    ip(&["link", "set", "wire0", "up"]);
    ip(&["link", "set", "slave1", "down"]);
    let switched_at = bench.maps.guard().switched_at();
    let (verdict, _) = bench.transmit(&frame);
    if monotonic() < switched_at + GuardEntry::PAUSE {
        assert_eq!(verdict, Verdict::Dropped(DropReason::GuardPause));
    }
    pause();
    // Slot 0 is not marked usable: it is used early.
    assert_eq!(bench.transmit(&frame), by(0));
    assert_eq!((active(), bench.maps.active().usable()), (0, 0b01));

    // No slave has a link: the word stays.
    pause();
    ip(&["link", "set", "slave0", "down"]);
    let word = bench.maps.active();
    assert_eq!(bench.transmit(&frame).0, Verdict::Dropped(DropReason::NoLink));
    assert_eq!(bench.maps.active(), word);

    // A queue's slave has no link: the active slave transmits the frame.
    ip(&["link", "set", "slave1", "up"]);
    pause();
    assert_eq!(bench.transmit(&frame), by(1));

    // A stale handle: that of another device.
    pause();
    ip(&["link", "set", "slave0", "up"]);
    set_slave(1, "port");
    assert_eq!(bench.transmit(&frame), by(0));
    pause();
    // No handle: nothing is known of the device. If it is active it is kept, and the guard does not fail over to it.
    let unknown = |index: u8, device: &str| {
        let wire = OWN[usize::from(index)];
        bench.mirror.set_slave(slot(index), SlaveEntry::new(programs::index(device), wire, wire));
    };
    unknown(0, "slave0");
    assert_eq!(bench.transmit(&frame), by(0));
    unknown(1, "slave1");
    set_slave(0, "port");
    assert_eq!(bench.transmit(&frame).0, Verdict::Dropped(DropReason::NoLink));

    // A device that was moved to another namespace has the same address there, and may have its ifindex.
    set_slave(0, "slave0");
    set_slave(1, "slave1");
    assert_eq!(bench.transmit(&frame), by(0));
    let elsewhere = Elsewhere::new();
    ip(&["link", "set", "slave0", "netns", &elsewhere.pid()]);
    elsewhere.up("slave0");
    pause();
    assert_eq!(bench.transmit(&frame), by(1));

    // With the guard off, no check is made.
    ip(&["link", "set", "wire1", "down"]);
    bench.policy(FailOverMac::Active, 0);
    assert_eq!(bench.transmit(&frame), by(1));
}

/// Another network namespace, held by a thread.
struct Elsewhere {
    commands: std::sync::mpsc::Sender<String>,
    done: std::sync::mpsc::Receiver<()>,
    thread: i32,
}

impl Elsewhere {
    fn new() -> Self {
        let (commands, received) = std::sync::mpsc::channel::<String>();
        let (sender, done) = std::sync::mpsc::channel();
        let (reported, thread) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: unshare of this thread's network namespace; it goes with the thread.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            reported.send(nix::unistd::gettid().as_raw()).unwrap();
            for device in received {
                ip(&["link", "set", &device, "up"]);
                sender.send(()).unwrap();
            }
        });
        Self { commands, done, thread: thread.recv().unwrap() }
    }

    fn pid(&self) -> String {
        self.thread.to_string()
    }

    fn up(&self, device: &str) {
        self.commands.send(device.to_owned()).unwrap();
        self.done.recv().unwrap();
    }
}

#[test]
fn tc_guard() {
    guard_table(Hook::Tc);
}

#[test]
fn xdp_guard() {
    guard_table(Hook::Xdp);
}

/// Many devices are checked in one call, also more than a frame has room for.
#[test]
fn links_of_devices_are_read_by_their_handles() {
    let _bench = Bench::new(Hook::Tc, "links");
    let reader = DeviceReader::new(&Kernel::read()).unwrap();
    for device in ["slave0", "wire0", "slave1"] {
        ip(&["link", "set", device, "up"]);
    }
    let handle = |device: &str| reader.read(index(device)).unwrap().unwrap().handle();
    let question = |device: &str| LinkQuestion::new(index(device), handle(device));
    let with_link = |questions: &[LinkQuestion]| reader.with_link(questions).unwrap();
    assert_eq!(with_link(&[]), Vec::<bool>::new());
    // The far end of slave1 is down.
    assert_eq!(with_link(&["slave0", "slave1", "wire0"].map(question)), [true, false, true]);
    ip(&["link", "set", "wire0", "down"]);
    assert_eq!(with_link(&["slave0", "wire0"].map(question)), [false, false]);
    ip(&["link", "set", "wire0", "up"]);
    let stale = [
        LinkQuestion::new(index("slave0"), handle("wire0")),
        LinkQuestion::new(index("slave0"), DeviceHandle::NONE),
        question("slave0"),
    ];
    assert_eq!(with_link(&stale), [false, false, true]);

    let many: Vec<_> = (0..2 * LinkQuestion::MOST + 1).map(|place| ["slave0", "slave1"][place % 2]).collect();
    let answers = with_link(&many.iter().map(|device| question(device)).collect::<Vec<_>>());
    let expected: Vec<_> = many.iter().map(|device| *device == "slave0").collect();
    assert_eq!(answers, expected);
}

/// The nonce of the bench's echoes; its lowest four bits are the slot's.
const NONCE: u64 = 0x5eed_0000_0000_00f0;
const TARGET: [u8; 4] = [192, 168, 99, 1];
const OURS: [u8; 4] = [192, 168, 99, 101];

/// Returns an echo as a neighbour forwards it back, that this slot has sent so many ms ago.
fn echo(nonce: u64, ttl: u8, ms_ago: u64) -> Vec<u8> {
    let sent = monotonic() - ms_ago * 1_000_000;
    let mut frame = probe::echo(&[], OURS.into()).to_vec();
    frame[..6].copy_from_slice(&OWN[0].bytes());
    frame[6..12].copy_from_slice(&PEER.bytes());
    frame[22] = ttl;
    frame[42..50].copy_from_slice(&nonce.to_ne_bytes());
    frame[50..58].copy_from_slice(&sent.to_ne_bytes());
    frame
}

/// Whether a frame was consumed, and what was noted: an echo, a stray one, or an answer.
type Answered = (bool, [u64; 3]);

/// Runs the program of a slave.
fn answered(bench: &Bench, slot: u8, frame: &[u8]) -> Answered {
    let heard = || bench.maps.clock().unwrap().path().heard(Slot::new(slot).unwrap());
    let (before, total) = (heard(), bench.total());
    let mut out = vec![0; frame.len() + 64];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    bench.program(Way::Receive(slot)).test_run(options);
    let after = heard();
    let echo = u64::from(after.echo_at > before.echo_at);
    let noted = [echo, after.echoes - before.echoes - echo, after.arps - before.arps];
    // What is consumed is in no counter of packets, nor in one of drops.
    (bench.total() == total, noted)
}

fn path_table(hook: Hook) {
    let bench = Bench::new(hook, "paths");
    let target = PathProbe { pair: pair(TARGET, OURS), payload: 14, echo: vec![0; 60], request: vec![0; 60] };
    bench.mirror.set_path(&[target], |entry| (entry.nonce, entry.joined) = (NONCE, 0b11));
    let mut answer = arp(OWN[0], PEER, PEER, OWN[0]);
    answer[21] = 2;
    answer[28..32].copy_from_slice(&TARGET);
    answer[38..42].copy_from_slice(&OURS);
    let mut to_backup = answer.clone();
    to_backup[38..42].fill(0);
    let mut of_other = answer.clone();
    of_other[31] = 77;
    // Of slot 0, which is active, and of slot 1, a backup: whether it is consumed, and what is noted.
    let (own, stray, nothing) = ((true, [1, 0, 0]), (true, [0, 1, 0]), (false, [0; 3]));
    let table: [(&str, Vec<u8>, Answered, Answered); 9] = [
        ("an echo of slot 0", echo(NONCE, 254, 1), own, stray),
        ("an echo of slot 1", echo(NONCE | 1, 254, 1), stray, own),
        ("one that no neighbour forwarded", echo(NONCE, 255, 1), stray, stray),
        ("an old one", echo(NONCE, 254, 1500), stray, stray),
        ("one of another bond", echo(NONCE ^ 0x100, 254, 1), nothing, nothing),
        ("a tagged echo", tagged(&echo(NONCE, 254, 1), [0x81, 0]), own, stray),
        ("an answer", answer, (false, [0, 0, 1]), (true, [0, 0, 1])),
        ("an answer to a backup", to_backup, (false, [0, 0, 1]), (true, [0, 0, 1])),
        ("an answer of another host", of_other, nothing, nothing),
    ];
    for (name, frame, active, backup) in table {
        bench.policy(FailOverMac::Active, 0);
        assert_eq!(
            [0, 1].map(|slot| answered(&bench, slot, &frame).1),
            [[0; 3]; 2],
            "{name}, while it is off"
        );
        bench.policy(FailOverMac::Active, BondEntry::PATH);
        assert_eq!([0, 1].map(|slot| answered(&bench, slot, &frame)), [active, backup], "{name}");
        for length in (34..frame.len()).step_by(3) {
            let (_, noted) = answered(&bench, 0, &frame[..length]);
            assert_eq!(noted[0] + noted[1], 0, "{name}, cut to {length}");
        }
    }
    let of_target = bench.maps.clock().unwrap().path().heard_of_target(0);
    assert_eq!(Mac::from_word(of_target.mac), PEER);
}

#[test]
fn tc_notes_and_consumes_answers_of_paths() {
    path_table(Hook::Tc);
}

#[test]
fn xdp_notes_and_consumes_answers_of_paths() {
    path_table(Hook::Xdp);
}
