//! Which hooks of a slave, the port and bond0 see the packets of a bond, and how xbond reports hooks that do not: the
//! table of the book's page on hooks.

mod common;

use std::{net::UdpSocket, os::fd::AsRawFd as _, process::Command};

use aya::{
    EbpfLoader,
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
    sys::{Stats, enable_stats},
};
use bond_common::names;
use bond_user::sys::dataplane::Kernel;
use common::{BOND, DATAPATHS, bond, concurrently, eventually, lab, meet, show};
use xbond_tests::{
    Capture, HOST_V4, Lab, PEER_V4, Policy, has_tcx, lab::Datapath, skip, skip_if_unable, xbond::binary,
};

const SLAVE: &str = "enp0s8";
const PORT: &str = "bond0-port";
const DEVICES: [&str; 3] = [SLAVE, PORT, BOND];
const SIDES: [&str; 2] = ["ingress", "egress"];
const PINGS: u32 = 3;
const DATAGRAMS: usize = 5;

/// A hook of a device, which is tested for packets that the device receives and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Taps,
    /// Ahead of xbond's own program, if there is one.
    Tcx,
    Clsact,
    Nft,
}

/// For each device and hook: whether the hook sees what the device receives, and what it sends.
type Table = [(&'static str, [(Hook, bool, bool); 4]); 3];

const BOND_ROWS: [(Hook, bool, bool); 4] =
    [(Hook::Taps, true, true), (Hook::Tcx, true, true), (Hook::Clsact, true, true), (Hook::Nft, true, true)];

/// The slave's program takes frames at tcx. A redirect passes the transmit path of its target, except netfilter.
const TC: Table = [
    (
        SLAVE,
        [
            (Hook::Taps, true, true),
            (Hook::Tcx, true, true),
            (Hook::Clsact, false, true),
            (Hook::Nft, false, false),
        ],
    ),
    (
        PORT,
        [
            (Hook::Taps, true, true),
            (Hook::Tcx, true, true),
            (Hook::Clsact, false, true),
            (Hook::Nft, false, false),
        ],
    ),
    (BOND, BOND_ROWS),
];

/// Frames that bond0 sends leave before they reach the port.
const NETKIT: Table = [
    TC[0],
    (
        PORT,
        [
            (Hook::Taps, false, true),
            (Hook::Tcx, false, true),
            (Hook::Clsact, false, true),
            (Hook::Nft, false, false),
        ],
    ),
    TC[2],
];

const UNSEEN: [(Hook, bool, bool); 4] = [
    (Hook::Taps, false, false),
    (Hook::Tcx, false, false),
    (Hook::Clsact, false, false),
    (Hook::Nft, false, false),
];
const XDP: Table = [(SLAVE, UNSEEN), (PORT, UNSEEN), (BOND, BOND_ROWS)];

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Returns what `xbond ARGUMENTS` prints, whatever its exit code, which depends on the findings.
fn said(lab: &Lab, arguments: &[&str]) -> String {
    let output = lab.host.command(binary().unwrap()).args(arguments).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn nft(lab: &Lab, rules: &str) {
    run(lab.host.command("nft").arg(rules));
}

/// Returns whether `seen` counts more after some pings.
fn grows(lab: &Lab, count: impl Fn() -> u64) -> bool {
    let before = count();
    lab.host.ping(PEER_V4.into(), PINGS).unwrap();
    count() >= before + u64::from(PINGS)
}

fn seen_by_taps(lab: &Lab, device: &str) -> [bool; 2] {
    let capture = Capture::start_on(&lab.host, device).unwrap();
    lab.host.ping(PEER_V4.into(), PINGS).unwrap();
    let seen = capture.stop().unwrap();
    let icmp = |frame: &&xbond_tests::Frame| {
        frame.bytes.get(12..14) == Some(&[8, 0]) && frame.bytes.get(23) == Some(&1)
    };
    [false, true].map(|outgoing| {
        seen.iter().filter(icmp).filter(|frame| frame.outgoing == outgoing).count() >= PINGS as usize
    })
}

/// Attaches a program that passes everything, as the first one, and returns whether the kernel counted its runs.
fn seen_by_tcx(lab: &Lab, device: &str) -> [bool; 2] {
    let _counting = enable_stats(Stats::RunTime).unwrap();
    [TcAttachType::Ingress, TcAttachType::Egress].map(|side| {
        let kernel = Kernel::read();
        let mut object = EbpfLoader::new().load(kernel.object()).unwrap();
        let program: &mut SchedClassifier =
            object.program_mut(names::TC_HOST_RX).unwrap().try_into().unwrap();
        program.load().unwrap();
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        lab.host.run(|| Ok(program.attach_with_options(device, side, first)?)).unwrap();
        grows(lab, || program.info().unwrap().run_count())
    })
}

/// Attaches a filter that drops everything.
fn seen_by_clsact(lab: &Lab, device: &str) -> [bool; 2] {
    SIDES.map(|side| {
        lab.host.exec(&format!("tc qdisc add dev {device} clsact")).unwrap();
        let mut tc = lab.host.command("tc");
        tc.args(["filter", "add", "dev", device, side, "protocol", "ip", "bpf", "direct-action"]);
        run(tc.args(["bytecode", "1,6 0 0 2"]));
        let answered = lab.host.ping(PEER_V4.into(), 1).unwrap().received;
        lab.host.exec(&format!("tc qdisc del dev {device} clsact")).unwrap();
        answered == 0
    })
}

fn seen_by_nft(lab: &Lab, device: &str) -> [bool; 2] {
    SIDES.map(|side| {
        nft(
            lab,
            &format!(
                "table netdev t {{ chain c {{ type filter hook {side} device \"{device}\" priority 0; \
             ip protocol icmp counter; }}; }};"
            ),
        );
        let packets = || {
            let rules = lab.host.exec("nft list table netdev t").unwrap();
            let mut words = rules.split_whitespace().skip_while(|word| *word != "packets");
            words.nth(1).unwrap().parse().unwrap()
        };
        let seen = grows(lab, packets);
        nft(lab, "delete table netdev t");
        seen
    })
}

fn seen(lab: &Lab, device: &str, hook: Hook) -> [bool; 2] {
    match hook {
        Hook::Taps => seen_by_taps(lab, device),
        Hook::Tcx => seen_by_tcx(lab, device),
        Hook::Clsact => seen_by_clsact(lab, device),
        Hook::Nft => seen_by_nft(lab, device),
    }
}

#[test]
fn hooks_see_the_packets_that_the_book_lists() {
    skip_if_unable!();
    if !has_tcx() {
        return skip("the table is of kernels with tcx (Linux 6.6)");
    }
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &["primary=enp0s8"]);
        let table = match datapath {
            Datapath::Xdp => XDP,
            Datapath::Tc if show(&xbond)["pair"] == "netkit" => NETKIT,
            Datapath::Tc => TC,
        };
        for (device, rows) in table {
            for (hook, receives, sends) in rows {
                meet(&lab);
                assert_eq!(seen(&lab, device, hook), [receives, sends], "{datapath:?}: {hook:?} at {device}");
            }
        }
    }
}

/// The qdisc of a slave shapes what the bond sends under tc.
#[test]
fn a_slaves_qdisc_sees_what_the_bond_sends_under_tc_alone() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let _xbond = bond(&lab, datapath, &["primary=enp0s8"]);
        for device in DEVICES {
            lab.host.exec(&format!("tc qdisc replace dev {device} root pfifo limit 1000")).unwrap();
            let packets = || {
                let json = lab.host.exec(&format!("tc -s -j qdisc show dev {device} root")).unwrap();
                let qdiscs: serde_json::Value = serde_json::from_str(&json).unwrap();
                qdiscs[0]["packets"].as_u64().unwrap()
            };
            let wanted = device == BOND || datapath == Datapath::Tc;
            assert_eq!(grows(&lab, packets), wanted, "{datapath:?}: {device}");
        }
    }
}

/// Adds a chain and filters to the slave, in the order in which xbond reports them.
fn hook_up(lab: &Lab) {
    nft(
        lab,
        "table netdev shop { chain in { type filter hook ingress device \"enp0s8\" priority 0; drop; }; };",
    );
    // Before Linux 6.6 a slave has the qdisc of the bond's own filters.
    if !lab.host.exec("tc qdisc show dev enp0s8").unwrap().contains("clsact") {
        lab.host.exec("tc qdisc add dev enp0s8 clsact").unwrap();
    }
    for side in SIDES {
        let mut tc = lab.host.command("tc");
        tc.args([
            "filter",
            "add",
            "dev",
            SLAVE,
            side,
            "pref",
            "9",
            "protocol",
            "all",
            "bpf",
            "direct-action",
        ]);
        run(tc.args(["bytecode", "1,6 0 0 0"]));
    }
}

#[test]
fn enslaving_names_the_chains_and_filters_that_packets_bypass() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        hook_up(&lab);
        let xbond = bond(&lab, datapath, &[]);
        let log = xbond.log();
        let says = |what: &str| {
            let sentence = format!("enp0s8: {what} does not see the packets of bond0");
            log.lines().any(|line| line.contains("WARN") && line.contains(&sentence))
        };
        assert!(says("nft chain netdev shop in (ingress)"), "{datapath:?}: {log}");
        assert!(says("tc filter bpf, pref 9 (ingress)"), "{datapath:?}: {log}");
        assert_eq!(says("tc filter bpf, pref 9 (egress)"), datapath == Datapath::Xdp, "{datapath:?}: {log}");
        assert!(!log.contains("enp0s9: nft") && !log.contains("enp0s9: tc"), "{log}");

        let doctor = said(&lab, &["doctor"]);
        assert!(
            doctor.contains("nft chain netdev shop in (ingress) does not see the packets of bond0"),
            "{doctor}"
        );
        assert!(doctor.contains("(egress) does not see the packets of bond0 with datapath=xdp"), "{doctor}");
    }
}

/// A hook that is added after a slave was enslaved is logged once, and reported as long as it exists.
#[test]
fn chains_and_filters_that_come_later_are_reported_until_they_are_removed() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &[]);
        let warnings = || show(&xbond)["warnings"].to_string();
        hook_up(&lab);
        let mut what = vec!["nft chain netdev shop in (ingress)", "tc filter bpf, pref 9 (ingress)"];
        what.extend((datapath == Datapath::Xdp).then_some("tc filter bpf, pref 9 (egress)"));
        let sentences: Vec<_> =
            what.iter().map(|what| format!("enp0s8: {what} does not see the packets of bond0")).collect();
        let all = |text: &String| sentences.iter().all(|sentence| text.contains(sentence));
        eventually("all warnings", warnings, all);
        // Other changes do not log these again.
        nft(&lab, "add table netdev other");
        nft(&lab, "delete table netdev shop");
        eventually("one warning less", warnings, |text| !text.contains("nft chain"));
        assert!(warnings().contains(&sentences[1]));
        for side in SIDES {
            lab.host.exec(&format!("tc filter del dev {SLAVE} {side} pref 9")).unwrap();
        }
        eventually("no warnings", warnings, |text| text == "[]");
        let log = xbond.log();
        for (what, sentence) in what.iter().zip(&sentences) {
            assert_eq!(log.matches(sentence).count(), 1, "{datapath:?}: {log}");
            assert_eq!(log.matches(&format!("enp0s8: {what} was removed")).count(), 1, "{datapath:?}: {log}");
        }
        xbond.stop().unwrap();
    }
}

#[test]
fn check_names_the_chains_of_slaves_that_are_there() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    hook_up(&lab);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bond.toml");
    let text = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n";
    std::fs::write(&file, text).unwrap();
    let reported = said(&lab, &["check", file.to_str().unwrap()]);
    assert!(
        reported.contains("enp0s8: nft chain netdev shop in (ingress) does not see the packets of bond0"),
        "{reported}"
    );
    assert!(reported.contains("[bypassed]") && !reported.contains("(egress)"), "{reported}");
}

#[test]
fn check_warns_of_interfaces_that_this_machine_does_not_have() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    lab.host.ip("link property add dev enp0s9 altname uplink").unwrap();
    let table = [
        (["enp0s8", "enp0s9"], 0, None),
        (["enp0s8", "uplink"], 0, None),
        (["enp0s8", "enp0s99"], 1, Some("warning: bond0: no interface enp0s99 on")),
        (["eth0", "eth1"], 0, Some("note: bond0: no interface eth0 or eth1 on")),
    ];
    for (slaves, code, expected) in table {
        let text = format!("version = 1\n[bond.bond0]\nslaves = {slaves:?}\nmiimon = 100\n");
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().to_str().unwrap();
        let output = lab.host.command(binary().unwrap()).args(["check", path]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{slaves:?}: {text}");
        match expected {
            Some(finding) => assert!(text.contains(finding), "{slaves:?}: {text}"),
            None => assert!(!text.contains("absent-"), "{slaves:?}: {text}"),
        }
    }
}

#[test]
fn show_warns_of_a_bridge_above_a_bond_with_all_slaves_active() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    lab.host.ip("link add br0 type bridge").unwrap();
    lab.host.ip("link set bond0 master br0").unwrap();
    let said = || xbond.log().matches("all_slaves_active=1 below the bridge br0").count();
    assert_eq!(said(), 0);
    xbond.set(BOND, "all_slaves_active=1").unwrap();
    eventually("the log warns of the bridge", said, |count| *count == 1);
    lab.host.ip("link set bond0 nomaster").unwrap();
    lab.host.ip("link set bond0 mtu 1400").unwrap();
    lab.host.ip("link set bond0 master br0").unwrap();
    eventually("the log warns of the bridge again", said, |count| *count >= 1);
}

/// Requests a software timestamp for each of these datagrams, and returns how many arrived on the socket's error
/// queue.
fn transmit_timestamps(lab: &Lab, datagrams: usize) -> usize {
    let flags = libc::SOF_TIMESTAMPING_TX_SOFTWARE
        | libc::SOF_TIMESTAMPING_SOFTWARE
        | libc::SOF_TIMESTAMPING_OPT_TSONLY;
    let socket = lab.host.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?)).unwrap();
    let (fd, size) = (socket.as_raw_fd(), size_of_val(&flags) as u32);
    // SAFETY: the option is an integer, and its size is given.
    let set = unsafe {
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPING, (&raw const flags).cast(), size)
    };
    assert_eq!(set, 0);
    for _ in 0..datagrams {
        socket.send_to(b"when?", (PEER_V4, 9)).unwrap();
    }
    // Packets that follow on the same path are answered when the timestamps are available.
    lab.host.ping(PEER_V4.into(), PINGS).unwrap();
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    // SAFETY: the buffer has length 0, so no byte is written.
    (0..).take_while(|_| unsafe { libc::recv(fd, std::ptr::null_mut(), 0, flags) } >= 0).count()
}

/// Returns how many timestamps each datagram gets that a NIC sends which is no slave: one of its driver, and on some
/// kernels one of the lab's switch, which sees the socket of a frame that arrived by a veth.
fn timestamps_by_a_nic(lab: &Lab) -> usize {
    lab.host.ip(&format!("address add {HOST_V4}/24 dev {SLAVE}")).unwrap();
    lab.host.ip(&format!("link set {SLAVE} up")).unwrap();
    meet(lab);
    let all = transmit_timestamps(lab, DATAGRAMS);
    lab.host.ip(&format!("address flush dev {SLAVE}")).unwrap();
    assert_eq!(all % DATAGRAMS, 0, "{all}");
    all / DATAGRAMS
}

#[test]
fn transmit_timestamps_are_as_many_as_the_book_lists() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let by_nic = timestamps_by_a_nic(&lab);
        let xbond = bond(&lab, datapath, &[]);
        let pair = show(&xbond)["pair"].clone();
        let of_each = match (datapath, pair.as_str()) {
            (Datapath::Tc, Some("veth")) => 1 + by_nic,
            (Datapath::Tc, _) => by_nic,
            (Datapath::Xdp, _) => 1,
        };
        let what = format!("{datapath:?}, {pair}, {by_nic} by a NIC");
        assert_eq!(transmit_timestamps(&lab, DATAGRAMS), DATAGRAMS * of_each, "{what}");
    }
}

/// A veth's far end is on this machine: the frames that it sends may have no checksums yet.
#[test]
fn xdp_on_a_slave_with_a_local_peer_is_warned_of() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &[]);
        let said = xbond.log().matches("checksums are not computed yet").count();
        assert_eq!(said, if datapath == Datapath::Xdp { 2 } else { 0 }, "{datapath:?}: {}", xbond.log());
    }
}
