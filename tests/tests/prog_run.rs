//! Every program, run by BPF_PROG_TEST_RUN on the frames of one table: the action and the bytes that come out.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use aya::{
    TestRun as _, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use aya_obj::programs::XdpAttachType;
use bond_common::{
    abi::{
        BondEntry, FailOverMac, GuardEntry, MAX_TARGETS, PORT_STATS, ProbeTimes, Rank, SlaveEntry, Slot,
        Targets,
    },
    counters::{DropReason, SlotStats},
    mac::Mac,
};
use bond_user::sys::dataplane::{DataPlane, DeviceReader, Hook, Kernel, Maps, remove_pins};

const TC_ACT_UNSPEC: u32 = u32::MAX;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_REDIRECT: u32 = 7;
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;

const HOST: Mac = Mac::new([2, 0, 0, 0, 0, 0xaa]);
const WIRE: [Mac; 2] = [Mac::new([8, 0, 0x27, 0xe8, 0x26, 0x58]), Mac::new([8, 0, 0x27, 0x27, 0xa9, 0x2d])];
const PEER: Mac = Mac::new([2, 0, 0, 0, 0, 0x77]);
const GUEST: Mac = Mac::new([2, 0, 0, 0, 0, 0x99]);
const GROUP: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
const LLDP: Mac = Mac::new([0x01, 0x80, 0xc2, 0, 0, 0x0e]);

/// A data plane on two slaves and a port, in a network namespace and a pin directory of its own.
struct Bench {
    dir: PathBuf,
    hook: Hook,
    maps: Arc<Maps>,
    _data_plane: DataPlane,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verdict {
    Forwarded,
    Local,
    Dropped(DropReason),
}
use Verdict::*;

impl Bench {
    fn new(hook: Hook, name: &str) -> Self {
        // SAFETY: unshare of this thread's network namespace; it goes with the thread.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "these tests need root");
        for (device, peer) in [("port", "host"), ("slave0", "wire0"), ("slave1", "wire1")] {
            ip(&["link", "add", device, "type", "veth", "peer", "name", peer]);
        }
        let dir = Path::new("/sys/fs/bpf").join(format!("xbond_test_{}_{name}_{hook}", std::process::id()));
        let mut data_plane = DataPlane::create(&dir, hook, Arc::new(Kernel::read())).unwrap();
        data_plane.attach_port("port", index("port")).unwrap();
        for (slot, device) in [(0, "slave0"), (1, "slave1")] {
            data_plane.attach_slave(Slot::new(slot).unwrap(), device, index(device)).unwrap();
        }
        let bench = Self { dir, hook, maps: data_plane.maps(), _data_plane: data_plane };
        for (slot, wire) in WIRE.into_iter().enumerate() {
            let entry = SlaveEntry::new(index(&format!("slave{slot}")), wire, wire);
            bench.maps.set_slave(Slot::new(slot as u8).unwrap(), entry);
        }
        bench.policy(FailOverMac::Active, 0);
        bench.switch(Some(0), None);
        bench
    }

    fn policy(&self, policy: FailOverMac, flags: u32) {
        let host = if flags & BondEntry::LEARN_HOST_MAC != 0 { Mac::ZERO } else { HOST };
        self.maps.set_bond(BondEntry::new(policy, index("port"), host, 1).with_flags(flags));
    }

    fn switch(&self, active: Option<u8>, draining: Option<u8>) {
        let slot = |index: u8| Slot::new(index).unwrap();
        self.maps.update_active(|word| word.next(active.map(slot), draining.map(slot), 0b11));
    }

    /// Runs the program pinned as `pin` and tells what became of the frame.
    fn run(&self, pin: &str, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let before = self.total();
        let mut out = vec![0; frame.len() + 64];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let path = self.dir.join(format!("{pin}_prog"));
        let result = match self.hook {
            Hook::Tc => SchedClassifier::from_pin(path).unwrap().test_run(options),
            _ => Xdp::from_pin(path, XdpAttachType::Interface).unwrap().test_run(options),
        }
        .unwrap();
        out.truncate(result.data_size_out as usize);
        let after = self.total();
        let newly = |&reason: &DropReason| after.dropped(reason) == before.dropped(reason) + 1;
        let counted: Vec<_> = DropReason::ALL.into_iter().filter(newly).collect();
        let verdict = match result.return_value {
            TC_ACT_REDIRECT if self.hook == Hook::Tc => Forwarded,
            TC_ACT_UNSPEC if self.hook == Hook::Tc => Local,
            TC_ACT_SHOT if self.hook == Hook::Tc => Dropped(counted[0]),
            XDP_REDIRECT => Forwarded,
            XDP_PASS => Local,
            XDP_DROP => Dropped(counted[0]),
            other => panic!("action {other}"),
        };
        let forwarded = |stats: &SlotStats| stats.tx_packets + stats.rx_packets;
        assert_eq!(forwarded(&after) - forwarded(&before), (verdict == Forwarded) as u64, "{verdict:?}");
        assert_eq!(counted.len(), matches!(verdict, Dropped(_)) as usize, "{verdict:?} counts {counted:?}");
        (verdict, out)
    }

    fn transmit(&self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.run("port_tx", frame)
    }

    fn receive(&self, slot: u32, frame: &[u8]) -> (Verdict, Vec<u8>) {
        self.run(&format!("slave{slot}_rx"), frame)
    }

    /// What was counted anywhere.
    fn total(&self) -> SlotStats {
        let mut sum = SlotStats::default();
        for index in 0..=PORT_STATS {
            sum.add(&self.maps.stats(index).unwrap());
        }
        sum
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove_pins(&self.dir).unwrap();
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed by setup");
    assert!(status.success(), "ip {arguments:?}");
}

fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

fn ethernet(destination: Mac, source: Mac, rest: &[u8]) -> Vec<u8> {
    let mut frame = [&destination.bytes()[..], &source.bytes(), rest].concat();
    frame.resize(frame.len().max(60), 0);
    frame
}

fn arp(destination: Mac, source: Mac, sender: Mac, target: Mac) -> Vec<u8> {
    let fields = [
        &[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1][..],
        &sender.bytes(),
        &[192, 168, 99, 101],
        &target.bytes(),
        &[192, 168, 99, 1],
    ];
    ethernet(destination, source, &fields.concat())
}

/// A neighbour solicitation whose checksum is right.
fn solicitation(source: Mac) -> Vec<u8> {
    use etherparse::PacketBuilder;
    let message = [&[135, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 16], &[1, 1], &source.bytes()].concat();
    let builder = PacketBuilder::ethernet2(source.bytes(), GROUP.bytes())
        .ipv6([0xfd; 16], [0xff; 16], 255)
        .icmpv6_raw(135, 0, [0; 4]);
    let mut frame = Vec::new();
    builder.write(&mut frame, &message[8..]).unwrap();
    frame
}

fn tagged(frame: &[u8], tag: [u8; 2]) -> Vec<u8> {
    [&frame[..12], &tag, &[0x20, 5], &frame[12..]].concat()
}

const IPV4: &[u8] = &[0x08, 0x00, 0x45];
const EAPOL: &[u8] = &[0x88, 0x8e, 1];

fn transmit_table(hook: Hook) {
    let bench = Bench::new(hook, "tx");
    // What leaves by slot 0 under active, from bond0 (HOST), from slot 1's MAC, from a bridge behind bond0.
    let from = |source: Mac, rest| ethernet(PEER, source, rest);
    let cases = [
        ("unicast", from(HOST, IPV4), from(WIRE[0], IPV4)),
        ("already right", from(WIRE[0], IPV4), from(WIRE[0], IPV4)),
        ("another slave's", from(WIRE[1], IPV4), from(WIRE[0], IPV4)),
        ("a guest's", from(GUEST, IPV4), from(GUEST, IPV4)),
        ("EAPOL", from(HOST, EAPOL), from(HOST, EAPOL)),
        ("LLDP", ethernet(LLDP, HOST, IPV4), ethernet(LLDP, HOST, IPV4)),
        ("ARP", arp(Mac::BROADCAST, HOST, HOST, PEER), arp(Mac::BROADCAST, WIRE[0], WIRE[0], PEER)),
        ("a guest's ARP", arp(Mac::BROADCAST, GUEST, GUEST, PEER), arp(Mac::BROADCAST, GUEST, GUEST, PEER)),
        ("NS", solicitation(HOST), solicitation(WIRE[0])),
    ];
    for (name, frame, expected) in &cases {
        assert_eq!(bench.transmit(frame), (Forwarded, expected.clone()), "{name}");
        for tag in [[0x81, 0x00], [0x88, 0xa8]] {
            if hook == Hook::Tc {
                // The kernel moves an skb's outer tag into its metadata before tc sees it.
                continue;
            }
            let (frame, expected) = (tagged(frame, tag), tagged(expected, tag));
            assert_eq!(bench.transmit(&frame), (Forwarded, expected), "{name} tagged {tag:x?}");
        }
    }
    let stats = bench.maps.stats(0).unwrap();
    let stamped = if hook == Hook::Tc { 4 } else { 12 };
    assert_eq!(stats.tx_stamped, stamped, "unicast, another slave's, ARP, NS");

    let jumbo = ethernet(PEER, HOST, &[IPV4, &[0; 3000]].concat());
    assert_eq!(bench.transmit(&jumbo).0, Forwarded);
    assert_eq!(bench.maps.stats(0).unwrap().tx_bytes - stats.tx_bytes, jumbo.len() as u64);

    // Under none and follow the bond wears one MAC; what a backup wears is nothing that bond0 ever sent.
    bench.policy(FailOverMac::Follow, 0);
    assert_eq!(bench.transmit(&from(WIRE[1], IPV4)), (Forwarded, from(WIRE[1], IPV4)));

    bench.switch(None, None);
    assert_eq!(bench.transmit(&cases[0].1).0, Dropped(DropReason::NoActiveSlave));
    bench.switch(Some(9), None);
    assert_eq!(bench.transmit(&cases[0].1).0, Dropped(DropReason::UnknownSlot));
}

fn receive_table(hook: Hook) {
    let bench = Bench::new(hook, "rx");
    let to = |destination: Mac| ethernet(destination, PEER, IPV4);
    bench.switch(Some(0), Some(1));
    let cases = [
        // Active: everything, and what is for the slave's MAC becomes bond0's.
        (0, to(WIRE[0]), Forwarded, to(HOST)),
        (0, to(HOST), Forwarded, to(HOST)),
        (0, to(GUEST), Forwarded, to(GUEST)),
        (0, to(Mac::BROADCAST), Forwarded, to(Mac::BROADCAST)),
        (0, to(LLDP), Local, to(LLDP)),
        (0, arp(WIRE[0], PEER, PEER, WIRE[0]), Forwarded, arp(HOST, PEER, PEER, HOST)),
        // Draining: unicast.
        (1, to(WIRE[1]), Forwarded, to(HOST)),
        (1, to(GROUP), Dropped(DropReason::DrainingMulticast), to(GROUP)),
        (1, to(LLDP), Local, to(LLDP)),
    ];
    for (row, (slot, frame, verdict, expected)) in cases.iter().enumerate() {
        assert_eq!(bench.receive(*slot, frame), (*verdict, expected.clone()), "row {row}");
    }
    bench.switch(Some(0), None);
    assert_eq!(bench.receive(1, &to(WIRE[1])).0, Dropped(DropReason::Backup));
    assert_eq!(bench.receive(1, &to(Mac::BROADCAST)).0, Dropped(DropReason::Backup));
    assert_eq!(bench.receive(1, &to(LLDP)).0, Local);
    bench.policy(FailOverMac::Active, BondEntry::ALL_SLAVES_ACTIVE);
    assert_eq!(bench.receive(1, &to(Mac::BROADCAST)).0, Forwarded);
    let stats = bench.maps.stats(0).unwrap();
    assert_eq!((stats.rx_unicast, stats.rx_rewritten, stats.rx_link_local), (4, 2, 1));
}

/// While bond0's MAC is being changed, frames get the MAC that bond0 has at that moment.
fn moving_host_mac(hook: Hook) {
    let bench = Bench::new(hook, "moving");
    let reader = DeviceReader::new(&Kernel::read()).unwrap();
    let host = reader.read(index("host")).unwrap();
    let entry = bench.maps.bond();
    bench.maps.set_bond(entry.with_host_device(host.handle().device()).with_flags(BondEntry::HOST_MAC_MOVES));
    let to = |destination: Mac| ethernet(destination, PEER, IPV4);
    assert_eq!(bench.receive(0, &to(WIRE[0])), (Forwarded, to(host.mac())));
    ip(&["link", "set", "host", "address", "02:00:00:00:00:55"]);
    assert_eq!(bench.receive(0, &to(WIRE[0])).1, to("02:00:00:00:00:55".parse().unwrap()));
}

fn learned_host_mac(hook: Hook) {
    let bench = Bench::new(hook, "learned");
    bench.policy(FailOverMac::Active, BondEntry::LEARN_HOST_MAC);
    let to = |destination: Mac| ethernet(destination, PEER, IPV4);
    let from = |source: Mac| ethernet(PEER, source, IPV4);
    assert_eq!(bench.receive(0, &to(WIRE[0])).1, to(WIRE[0]), "nobody is known yet");
    assert_eq!(bench.transmit(&from(GUEST)).1, from(WIRE[0]));
    assert_eq!(bench.receive(0, &to(WIRE[0])).1, to(GUEST));
    assert_eq!(bench.transmit(&from(HOST)).1, from(HOST), "another one behind the port stays itself");
}

#[test]
fn tc_port_tx() {
    transmit_table(Hook::Tc);
}

#[test]
fn xdp_port_tx() {
    transmit_table(Hook::Xdp);
}

#[test]
fn tc_slave_rx() {
    receive_table(Hook::Tc);
}

#[test]
fn xdp_slave_rx() {
    receive_table(Hook::Xdp);
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
    let state = || reader.read(index("near")).unwrap();
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
    assert!(reader.read(gone).is_err());
}

/// What a frame leaves in PROBES of the slave that received it: nothing, a time, or a target's time, too.
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
        self.maps.set_targets(targets);
    }

    /// Receives a frame; tells what was noted, and checks the times against the clock.
    fn note(&self, slot: u32, frame: &[u8]) -> Noted {
        let times = || self.maps.probe_times(Slot::new(slot as u8).unwrap());
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
    let request = arp(Mac::BROADCAST, WIRE[0], WIRE[0], Mac::ZERO);
    // The operation's low byte, and the addresses exchanged.
    let mut answer = arp(WIRE[0], PEER, PEER, WIRE[0]);
    answer[21] = 2;
    answer[28..32].copy_from_slice(&[192, 168, 99, 1]);
    answer[38..42].copy_from_slice(&[192, 168, 99, 101]);
    let mut advertisement = solicitation(PEER);
    advertisement[54] = 136;
    advertisement[22..38].copy_from_slice(&[0xfe; 16]);
    advertisement[38..54].copy_from_slice(&[0xfd; 16]);
    let other = ethernet(WIRE[0], PEER, IPV4);
    let (v4, v6) = (Noted::Target(MAX_TARGETS - 1), Noted::Target(2 * MAX_TARGETS - 1));
    let nothing = [Noted::Nothing; 2];
    // What slot 0, which is active, and slot 1, a backup, note.
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
        ("our solicitation", ALL, &solicitation(WIRE[0]), [Noted::Nothing, v6]),
        ("a cut answer", ALL, &answer[..40].to_vec(), nothing),
    ];
    for (name, flags, frame, expected) in table {
        bench.monitor(flags);
        assert_eq!([0, 1].map(|slot| bench.note(slot, frame)), expected, "{name}");
    }
    // Without an active slave the one whose turn it is listens, and the others for late answers.
    bench.switch(None, None);
    bench.monitor(ALL);
    assert_eq!([0, 1].map(|slot| bench.note(slot, &answer)), [v4, v4]);
    assert_eq!([0, 1].map(|slot| bench.note(slot, &request)), nothing);
    // What was noted stays when the monitor is off.
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
    let again = DataPlane::create(&bench.dir, Hook::Tc, Arc::new(Kernel::read()));
    let error = again.err().expect("must be refused").to_string();
    assert!(error.contains("xbond down"), "{error}");
    assert!(bench.dir.join("ACTIVE").exists());
}

/// The carrier guard: what leaves while the active slave's device has no link.
fn guard_table(hook: Hook) {
    let bench = Bench::new(hook, "guard");
    let reader = DeviceReader::new(&Kernel::read()).unwrap();
    let slot = |index: u8| Slot::new(index).unwrap();
    let set_slave = |index: u8, device: &str| {
        let wire = WIRE[usize::from(index)];
        let handle = reader.read(crate::index(device)).unwrap().handle();
        let entry = SlaveEntry::new(crate::index(&format!("slave{index}")), wire, wire).with_handle(handle);
        bench.maps.set_slave(slot(index), entry);
    };
    set_slave(0, "slave0");
    set_slave(1, "slave1");
    for device in ["slave0", "wire0", "slave1", "wire1"] {
        ip(&["link", "set", device, "up"]);
    }
    let guarded = BondEntry::GUARD;
    bench.policy(FailOverMac::Active, guarded);
    bench.maps.set_rank(Rank::new([slot(0), slot(1)]));
    let frame = ethernet(PEER, HOST, IPV4);
    let by = |index: usize| (Forwarded, ethernet(PEER, WIRE[index], IPV4));
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

    // The far end goes down, and with it the carrier; the frame leaves by the other one, and so does the next.
    ip(&["link", "set", "wire0", "down"]);
    assert_eq!(bench.transmit(&frame), by(1));
    let after = bench.maps.active();
    assert_eq!((active(), after.usable()), (1, 0b10));
    assert_eq!(after.generation(), before.generation() + 1);
    assert_eq!(bench.maps.stats(1).unwrap().guard_failovers, 1);
    assert_eq!(bench.transmit(&frame), by(1));
    assert_eq!(bench.maps.active(), after);

    // Back so soon: not before the pause is over.
    ip(&["link", "set", "wire0", "up"]);
    ip(&["link", "set", "slave1", "down"]);
    let switched_at = bench.maps.guard().switched_at();
    let (verdict, _) = bench.transmit(&frame);
    if monotonic() < switched_at + GuardEntry::PAUSE {
        assert_eq!(verdict, Dropped(DropReason::GuardPause));
    }
    pause();
    // Slot 0 is not usable in anybody's eyes: it is used early.
    assert_eq!(bench.transmit(&frame), by(0));
    assert_eq!((active(), bench.maps.active().usable()), (0, 0b01));

    // Nobody has a link: the word stays.
    pause();
    ip(&["link", "set", "slave0", "down"]);
    let word = bench.maps.active();
    assert_eq!(bench.transmit(&frame).0, Dropped(DropReason::NoLink));
    assert_eq!(bench.maps.active(), word);

    // A queue's slave without a link: the active one has the frame.
    ip(&["link", "set", "slave1", "up"]);
    pause();
    assert_eq!(bench.transmit(&frame), by(1));

    // Stale handles: another device's, or none.
    pause();
    ip(&["link", "set", "slave0", "up"]);
    set_slave(1, "port");
    assert_eq!(bench.transmit(&frame), by(0));
    pause();
    bench.maps.set_slave(slot(0), SlaveEntry::new(index("slave0"), WIRE[0], WIRE[0]));
    assert_eq!(bench.transmit(&frame).0, Dropped(DropReason::NoLink));

    // A device that was moved to another namespace has the same address there, and may have its ifindex.
    set_slave(0, "slave0");
    set_slave(1, "slave1");
    assert_eq!(bench.transmit(&frame), by(0));
    let elsewhere = Elsewhere::new();
    ip(&["link", "set", "slave0", "netns", &elsewhere.pid()]);
    elsewhere.up("slave0");
    pause();
    assert_eq!(bench.transmit(&frame), by(1));

    // Off, nobody looks.
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
        let (told, thread) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // SAFETY: unshare of this thread's network namespace; it goes with the thread.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
            told.send(nix::unistd::gettid().as_raw()).unwrap();
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
