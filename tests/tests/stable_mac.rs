//! `host_mac=stable`: bond0 keeps its MAC address under fail_over_mac=active, and frames carry the active slave's. The
//! switch accepts from a port the MAC address of its NIC only, and delivers no other unicast.

mod common;

use std::{
    net::UdpSocket,
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    BOND, DATAPATHS, SLAVES, alone, bond_with, builder, concurrently, eventually, lab, show, wait_for_active,
    wait_for_status,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use xbond_tests::{
    Capture, Cut, Flow, FlowOptions, HOST_V4, Lab, Mac, PEER_V4, Xbond,
    lab::{Datapath, PEER_NIC},
    skip, skip_if_unable,
    switch::Policy,
    time_is_no_measure,
    xbond::cli,
};

const STABLE: &[&str] = &["fail_over_mac=active", "host_mac=stable"];
/// Longer than a failover may take on a machine under load.
fn outage_limit() -> Duration {
    Duration::from_millis(if time_is_no_measure().is_some() { 10_000 } else { 300 })
}

fn mac_of(lab: &Lab, device: &str) -> Mac {
    lab.host.link(device).unwrap().mac
}

/// Returns the MAC address under which the peer knows the host.
fn known_mac(lab: &Lab) -> String {
    let line = lab.peer.ip(&format!("neighbour show {HOST_V4} dev {PEER_NIC}")).unwrap();
    line.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap_or_default().to_owned()
}

fn reached(lab: &Lab, what: &str) {
    for (from, to) in [(&lab.host, PEER_V4), (&lab.peer, HOST_V4)] {
        let report = from.ping_flood(to.into(), 100).unwrap();
        assert_eq!(report.received, 100, "{what}, to {to}: {report:?}");
    }
}

fn cut(lab: &Lab, xbond: &Xbond<'_>, from: &str, to: &str) {
    lab.cut(from, Cut::Carrier).unwrap();
    wait_for_active(xbond, to);
    lab.reconnect(from, Cut::Carrier).unwrap();
    wait_for_status(xbond, from, "up");
}

fn stays(datapath: Datapath) {
    let lab = lab(datapath, Policy::VirtualBox);
    let mac = lab.mac(SLAVES[0]).unwrap();
    let xbond = bond_with(&lab, datapath, STABLE, &[]);
    assert_eq!((mac_of(&lab, BOND), show(&xbond)["host_mac_stays"].as_bool()), (mac, Some(true)));
    for (from, to) in [(SLAVES[0], SLAVES[1]), (SLAVES[1], SLAVES[0]), (SLAVES[0], SLAVES[1])] {
        cut(&lab, &xbond, from, to);
        let wire = lab.mac(to).unwrap().to_string();
        eventually("the active slave's MAC is announced", || known_mac(&lab), |known| *known == wire);
        reached(&lab, to);
        assert_eq!(mac_of(&lab, BOND), mac, "after a failover to {to}");
    }
    let refusal = xbond.set(BOND, "host_mac=stable").unwrap_err().to_string();
    assert!(refusal.contains("host_mac"), "{refusal}");

    // The clock announces as an agent does, and the next agent finds the MAC address as it was.
    eventually(
        "the clock runs",
        || show(&xbond)["clock"].as_str().unwrap().to_owned(),
        |clock| clock.starts_with("on"),
    );
    xbond.kill().unwrap();
    lab.cut(SLAVES[1], Cut::Carrier).unwrap();
    let wire = lab.mac(SLAVES[0]).unwrap().to_string();
    eventually("the clock announces the slave's MAC", || known_mac(&lab), |known| *known == wire);
    lab.reconnect(SLAVES[1], Cut::Carrier).unwrap();
    let xbond = bond_with(&lab, datapath, STABLE, &[]);
    wait_for_status(&xbond, SLAVES[1], "up");
    cut(&lab, &xbond, SLAVES[0], SLAVES[1]);
    reached(&lab, "after adoption");
    assert_eq!(mac_of(&lab, BOND), mac);
    xbond.stop().unwrap();
    assert_eq!(mac_of(&lab, SLAVES[0]), mac);
}

#[test]
fn bond0_keeps_its_mac_and_frames_carry_the_active_slaves() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        stays(datapath);
    }
}

#[test]
fn bond0_keeps_a_mac_that_is_given() {
    skip_if_unable!();
    let _turn = concurrently();
    const MAC: Mac = Mac::new([2, 0, 0, 0, 0, 0x5a]);
    let given = MAC.to_string();
    for setting in [format!("host_mac={given}"), format!("mac={given}")] {
        let lab = lab(Datapath::Tc, Policy::VirtualBox);
        let options = [&setting, "fail_over_mac=active", "host_mac=stable"];
        // An address is one of the two ways.
        let used = if setting.starts_with("host_mac") { &options[..2] } else { &options[..] };
        let xbond = bond_with(&lab, Datapath::Tc, used, &[]);
        assert_eq!(mac_of(&lab, BOND), MAC, "{setting}");
        cut(&lab, &xbond, SLAVES[0], SLAVES[1]);
        reached(&lab, &setting);
        assert_eq!((mac_of(&lab, BOND), known_mac(&lab)), (MAC, lab.mac(SLAVES[1]).unwrap().to_string()));
        xbond.stop().unwrap();
    }
}

#[test]
fn a_bond_that_keeps_its_mac_is_not_adopted_as_one_that_does_not() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    bond_with(&lab, Datapath::Tc, STABLE, &[]).kill().unwrap();
    let line = [
        "run",
        "--bond",
        BOND,
        "--slave",
        SLAVES[0],
        "--slave",
        SLAVES[1],
        "-o",
        "miimon=100",
        "-o",
        STABLE[0],
    ];
    let refusal = cli(&lab.host, line).unwrap_err().to_string();
    assert!(refusal.contains("host_mac"), "{refusal}");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

/// A bridge above bond0 has its MAC address, and neither sees a failover.
#[test]
fn a_bridge_above_bond0_sees_no_failover() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for datapath in DATAPATHS {
        let lab = builder(datapath).switch(Policy::VirtualBox).build().unwrap();
        for netns in [&lab.host, &lab.peer] {
            netns.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
        }
        let mut line = vec!["--bond", BOND, "--datapath", datapath.name(), "-o", "miimon=100"];
        line.extend(STABLE.iter().flat_map(|option| ["-o", option]));
        line.extend(SLAVES.iter().flat_map(|slave| ["--slave", slave]));
        let xbond = Xbond::run(&lab.host, line).unwrap();
        for command in ["link add br0 type bridge", "link set bond0 master br0", "link set br0 up"] {
            lab.host.ip(command).unwrap();
        }
        lab.host.ip(&format!("address add {HOST_V4}/24 dev br0")).unwrap();
        common::meet(&lab);
        eventually("br0 is announced", || announced(&xbond), |addresses| *addresses == 1);
        let mac = mac_of(&lab, BOND);
        assert_eq!(mac_of(&lab, "br0"), mac);

        let mut monitor = lab.host.command("ip");
        let events = monitor.args(["monitor", "link", "dev", "br0"]).stdout(Stdio::piped()).spawn().unwrap();
        let options = FlowOptions { rate: 1_000, payload: 64 };
        let flow = Flow::start((&lab.peer, PEER_V4.into()), (&lab.host, HOST_V4.into()), options).unwrap();
        flow.wait_for_more(200).unwrap();
        let active = show(&xbond)["active_slave"].as_str().unwrap().to_owned();
        lab.cut(&active, Cut::Carrier).unwrap();
        flow.wait_for_more(500).unwrap();
        let report = flow.stop().unwrap();
        assert!(report.outage() < outage_limit(), "{datapath:?}: {report:?}");
        kill(Pid::from_raw(events.id().cast_signed()), Signal::SIGTERM).unwrap();
        let seen = String::from_utf8(events.wait_with_output().unwrap().stdout).unwrap();
        assert_eq!((mac_of(&lab, "br0"), seen.as_str()), (mac, ""), "{datapath:?}");
        xbond.stop().unwrap();
    }
}

/// Makes the other slave active, and returns how many addresses were announced.
fn announced(xbond: &Xbond<'_>) -> u64 {
    let active = show(xbond)["active_slave"].as_str().unwrap().to_owned();
    let other = SLAVES.into_iter().find(|slave| *slave != active).unwrap();
    xbond.set(BOND, &format!("active_slave={other}")).unwrap();
    let last = || show(xbond)["last_failover"].clone();
    let receipt =
        eventually("a receipt", last, |receipt| receipt["to"] == other && !receipt["announced"].is_null());
    receipt["announced"]["addresses"].as_u64().unwrap()
}

/// A request of a UDP socket, whose checksum the device would complete, arrives with the flag and a correct checksum.
#[test]
fn dhcp_requests_of_sockets_ask_for_broadcast_answers() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::VirtualBox);
        let xbond = bond_with(&lab, datapath, STABLE, &[]);
        let server = lab.peer.run(|| Ok(UdpSocket::bind((PEER_V4, 67))?)).unwrap();
        server.set_read_timeout(Some(xbond_tests::wait_limit())).unwrap();
        let request =
            |client: Mac| [&[1, 1, 6, 0, 1, 2, 3, 4][..], &[0; 20], &client.bytes(), &[0; 206]].concat();
        // While its own MAC address is on the wire, bond0's requests are left alone.
        let sender = || lab.host.run(|| Ok(UdpSocket::bind((HOST_V4, 68))?)).unwrap();
        let flags_of = |client: Mac| {
            sender().send_to(&request(client), (PEER_V4, 67)).unwrap();
            let mut answer = [0; 512];
            let length = server.recv(&mut answer).unwrap();
            let mut expected = request(client);
            expected[10] = answer[10];
            assert_eq!(answer[..length], expected, "{datapath:?}: only the flag may be changed");
            [answer[10], answer[11]]
        };
        let mac = mac_of(&lab, BOND);
        assert_eq!(flags_of(mac), [0, 0], "{datapath:?}: its own MAC address is on the wire");
        cut(&lab, &xbond, SLAVES[0], SLAVES[1]);
        assert_eq!(flags_of(mac), [0x80, 0], "{datapath:?}: another MAC address is on the wire");
        assert_eq!(flags_of(Mac::new([2; 6])), [0, 0], "{datapath:?}: of another client");
        drop(server);
        xbond.stop().unwrap();
    }
}

/// A program that speaks DHCP, and its arguments. `DIRECTORY` stands for a directory of its own.
type Program = (&'static str, &'static [&'static str]);

/// They ask once, set nothing, and fail without an answer.
const CLIENTS: [Program; 3] = [
    ("udhcpc", &["-i", BOND, "-f", "-n", "-q", "-s", "/bin/true", "-t", "8", "-T", "1"]),
    (
        "dhclient",
        &[
            "-4",
            "-1",
            "-v",
            "-sf",
            "/bin/true",
            "-lf",
            "DIRECTORY/leases",
            "-pf",
            "DIRECTORY/pid",
            "-cf",
            "DIRECTORY/client.conf",
            BOND,
        ],
    ),
    ("dhcpcd", &["-4", "-1", "-t", "20", "--noarp", "-c", "/bin/true", BOND]),
];
const SERVERS: [Program; 3] = [
    (
        "dnsmasq",
        &[
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--no-ping",
            "--interface",
            PEER_NIC,
            "--bind-interfaces",
            "--user=root",
            "--dhcp-authoritative",
            "--pid-file=",
            "--dhcp-leasefile=DIRECTORY/dnsmasq.leases",
            "--dhcp-range=192.168.99.150,192.168.99.180,1h",
        ],
    ),
    (
        "dhcpd",
        &["-4", "-f", "-cf", "DIRECTORY/dhcpd.conf", "-lf", "DIRECTORY/dhcpd.leases", "--no-pid", PEER_NIC],
    ),
    ("kea-dhcp4", &["-c", "DIRECTORY/kea.json"]),
];

const DHCPD: &str = "authoritative;\nping-check false;\nsubnet 192.168.99.0 netmask 255.255.255.0 { range 192.168.99.150 \
                     192.168.99.180; }\n";
const KEA: &str = r#"{"Dhcp4": {"interfaces-config": {"interfaces": ["PEER"]}, "lease-database": {"type": "memfile",
    "persist": false}, "multi-threading": {"enable-multi-threading": false}, "subnet4": [{"id": 1,
    "subnet": "192.168.99.0/24", "pools": [{"pool": "192.168.99.150 - 192.168.99.180"}]}]}}"#;

fn is_installed(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|output| output.status.success())
}

/// Each client gets an address from each server while the active slave has another MAC address than bond0, and bond0's
/// is behind no port of the switch.
// One thing: what each client and each server is given, and what it says.
#[test]
fn dhcp_goes_on_after_a_failover() {
    skip_if_unable!();
    let _turn = concurrently();
    let is_there = |(program, _): &&Program| {
        let found = is_installed(program);
        if !found {
            skip(&format!("there is no {program}"));
        }
        found
    };
    let (servers, clients): (Vec<_>, Vec<_>) =
        (SERVERS.iter().filter(is_there).collect(), CLIENTS.iter().filter(is_there).collect());
    for server in servers {
        let lab = lab(Datapath::Tc, Policy::VirtualBox);
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("dhcpd.conf"), DHCPD).unwrap();
        std::fs::write(directory.path().join("dhcpd.leases"), "").unwrap();
        std::fs::write(directory.path().join("client.conf"), "timeout 30;\ninitial-interval 1;\n").unwrap();
        std::fs::write(directory.path().join("kea.json"), KEA.replace("PEER", PEER_NIC)).unwrap();
        let command = |netns: &xbond_tests::NetNs, (program, arguments): &Program| {
            let mut command = netns.command(program);
            let place = directory.path().to_string_lossy();
            command.args(arguments.iter().map(|argument| argument.replace("DIRECTORY", &place)));
            command.env("KEA_PIDFILE_DIR", &*place).env("KEA_LOCKFILE_DIR", &*place);
            command
        };
        let xbond = bond_with(&lab, Datapath::Tc, STABLE, &[]);
        cut(&lab, &xbond, SLAVES[0], SLAVES[1]);
        let mut serving =
            command(&lab.peer, server).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually(
            "the server listens",
            || lab.peer.exec("ss -lunH sport = :67").unwrap(),
            |lines| !lines.is_empty(),
        );
        for client in &clients {
            let capture = Capture::start_on(&lab.peer, PEER_NIC).unwrap();
            // Into a file: what stays in the background would keep a pipe open.
            let said = directory.path().join("said");
            let file = std::fs::File::create(&said).unwrap();
            let status =
                command(&lab.host, client).stdout(file.try_clone().unwrap()).stderr(file).status().unwrap();
            let text = std::fs::read_to_string(&said).unwrap();
            assert!(
                status.success() && text.contains("192.168.99.1"),
                "{} of {}: {status}\n{text}",
                client.0,
                server.0
            );
            // dhclient stays with its lease.
            if let Ok(pid) = std::fs::read_to_string(directory.path().join("pid")) {
                let _ = kill(Pid::from_raw(pid.trim().parse().unwrap()), Signal::SIGKILL);
                std::fs::remove_file(directory.path().join("pid")).unwrap();
            }
            let wire = lab.mac(SLAVES[1]).unwrap();
            let requests: Vec<_> =
                capture.stop().unwrap().into_iter().filter(|frame| frame.source() == wire).collect();
            assert!(!requests.is_empty(), "{}: requests carry the slave's MAC address", client.0);
        }
        serving.kill().unwrap();
        serving.wait().unwrap();
        xbond.stop().unwrap();
    }
}
