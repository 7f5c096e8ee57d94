//! Migration from other bonds' files, and from the NIC of the administrator's own login.

mod snapshot;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use snapshot::Snapshot;
use xbond_tests::{HOST_V4, HOST_V6, Lab, NetNs, PEER_V4, PEER_V6, WAIT_LIMIT, Xbond, skip_if_unable, xbond};

const BOND0: [&str; 9] =
    ["--bond", "bond0", "--slave", "enp0s8", "--slave", "enp0s9", "-o", "miimon=100", "--move-addresses"];

/// Creates a host that is reached by enp0s8 alone.
fn host_on_one_nic() -> Lab {
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    host.ip("link set enp0s8 up").unwrap();
    host.ip(&format!("address add {HOST_V4}/24 dev enp0s8 label enp0s8:1")).unwrap();
    // As NetworkManager configures it: the route of the network has a metric of its own.
    host.ip("address add 10.9.8.7/16 dev enp0s8 noprefixroute").unwrap();
    host.ip("route add 10.9.0.0/16 dev enp0s8 proto kernel scope link src 10.9.8.7 metric 100").unwrap();
    host.ip(&format!("address add {HOST_V6}/64 dev enp0s8 nodad")).unwrap();
    host.ip(&format!("route add default via {PEER_V4} dev enp0s8 metric 100")).unwrap();
    host.ip(&format!("route add default via {PEER_V6} dev enp0s8 metric 50")).unwrap();
    host.ip(&format!("route add 198.51.100.0/24 via {PEER_V4} dev enp0s8 table 1000 src {HOST_V4}")).unwrap();
    snapshot::await_ipv6(host, "enp0s8");
    lab
}

/// Both ends of a connection.
struct Connection(TcpStream, TcpStream);

impl Connection {
    fn open(from: &NetNs, to: &NetNs, address: IpAddr) -> Self {
        let listener = to.run(|| Ok(TcpListener::bind(SocketAddr::new(address, 0))?)).unwrap();
        let address = listener.local_addr().unwrap();
        let here = from.run(|| Ok(TcpStream::connect_timeout(&address, WAIT_LIMIT)?)).unwrap();
        let there = listener.accept().unwrap().0;
        for end in [&here, &there] {
            end.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
        }
        Self(here, there)
    }

    /// Asserts that data passes in both directions.
    #[track_caller]
    fn assert_lives(&mut self, when: &str) {
        let Self(here, there) = self;
        let mut word = [0; 4];
        for (mut from, mut to) in [(&*here, &*there), (&*there, &*here)] {
            from.write_all(b"word").unwrap();
            to.read_exact(&mut word)
                .unwrap_or_else(|error| panic!("{when}: the connection is dead: {error}"));
        }
    }
}

fn routes(host: &NetNs, device: &str) -> String {
    let of = |family: &str| host.ip(&format!("{family} route show table all dev {device}")).unwrap();
    of("-4") + &of("-6")
}

#[test]
fn connections_survive_the_move_and_its_undo() {
    skip_if_unable!();
    let lab = host_on_one_nic();
    let mut connections = [
        Connection::open(&lab.host, &lab.peer, PEER_V4.into()),
        Connection::open(&lab.peer, &lab.host, HOST_V4.into()),
        Connection::open(&lab.host, &lab.peer, PEER_V6.into()),
    ];
    let found = Snapshot::of(&lab.host);

    let mut xbond = Xbond::run(&lab.host, BOND0.into_iter().chain(["--confirm", "8"])).unwrap();
    for connection in &mut connections {
        connection.assert_lives("in the bond");
    }
    let addresses = lab.host.ip("-oneline address show dev bond0").unwrap();
    for wanted in ["192.168.99.101/24", "bond0:1", "10.9.8.7/16", "fd00:99::101/64"] {
        assert!(addresses.contains(wanted), "{wanted} in {addresses}");
    }
    assert!(!lab.host.ip("-oneline address show dev enp0s8").unwrap().contains("inet"), "{addresses}");
    let moved = routes(&lab.host, "bond0");
    for wanted in [
        "default via 192.168.99.1 metric 100",
        "default via fd00:99::1 metric 50",
        "10.9.0.0/16 proto kernel scope link src 10.9.8.7 metric 100",
        "198.51.100.0/24 via 192.168.99.1 table 1000 src 192.168.99.101",
    ] {
        assert!(moved.contains(wanted), "{wanted} in {moved}");
    }
    assert!(!routes(&lab.host, "enp0s8").contains("via"), "{moved}");

    // No confirmation arrives.
    assert!(!xbond.wait().unwrap().success());
    assert!(xbond.log().contains("not confirmed within 8 s: everything was undone"), "{}", xbond.log());
    found.assert_holds(&lab.host, "not confirmed");
    for connection in &mut connections {
        connection.assert_lives("on the NIC again");
    }
}

#[test]
fn a_confirmed_bond_stays_until_down() {
    skip_if_unable!();
    let lab = host_on_one_nic();
    let found = Snapshot::of(&lab.host);
    let xbond = Xbond::run(&lab.host, BOND0.into_iter().chain(["--confirm", "3"])).unwrap();
    assert_eq!(xbond.cli(["confirm"]).unwrap(), "confirmed: it stays\n");
    let error = xbond.cli(["confirm"]).unwrap_err().to_string();
    assert!(error.contains("nothing waits for a confirmation"), "{error}");
    // Longer than the time for confirmation.
    std::thread::sleep(Duration::from_secs(4));
    assert!(lab.host.ping(PEER_V4.into(), 1).unwrap().received == 1);
    xbond.stop().unwrap();
    found.assert_holds(&lab.host, "stopped");
}

#[test]
fn a_session_that_would_be_cut_off_is_warned_of() {
    skip_if_unable!();
    let lab = host_on_one_nic();
    let xbond = Xbond::run(&lab.host, BOND0.into_iter().take(8)).unwrap();
    let said =
        "bond0: enp0s8 has the default route, which goes now; to have the bond take it: --move-addresses";
    assert!(xbond.log().contains(said), "{}", xbond.log());
    let error = xbond::cli(&lab.host, ["confirm"]).unwrap_err().to_string();
    assert!(error.contains("nothing waits for a confirmation"), "{error}");
    xbond.stop().unwrap();
}

/// `check` accepts and `run` runs what `import` prints.
#[test]
fn imported_network_scripts_run() {
    skip_if_unable!();
    for policy in ["none", "active", "follow"] {
        let lab = Lab::scenario().unwrap();
        let files = xbond::scenario_files(policy);
        let toml = xbond::cli(&lab.host, ["import", "ifcfg", files.to_str().unwrap()]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bond0.toml");
        fs::write(&path, &toml).unwrap();
        let path = path.to_str().unwrap();
        xbond::cli(&lab.host, ["check", path]).unwrap();
        let xbond = Xbond::run(&lab.host, ["-c", path]).unwrap();
        let report = &xbond.show("bond0").unwrap()["bonds"][0];
        assert_eq!(report["options"]["fail_over_mac"], policy, "{toml}\n{report}");
        xbond.stop().unwrap();
    }
}

/// The files that a running bond is exported as are imported as the bond's own file.
#[test]
fn a_running_bond_is_exported_and_reads_back() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let toml = "version = 1\n\n[bond.bond0]\nslaves = [\"enp0s9\", \"enp0s8\"]\nmiimon = 50\nnum_grat_arp = 3\n\
                fail_over_mac = \"active\"\nprimary = \"enp0s8\"\naddresses = [\"192.0.2.10/24\"]\n\
                routes = [{ to = \"198.51.100.0/24\", via = \"192.0.2.1\" }]\n";
    fs::write(at("bond0.toml"), toml).unwrap();
    let xbond = Xbond::run(&lab.host, ["-c", &at("bond0.toml")]).unwrap();
    for program in ["networkd", "netplan", "nmstate"] {
        fs::create_dir(at(program)).unwrap();
        let files = xbond::cli(&lab.host, ["export", program, "bond0", "-d", &at(program)]).unwrap();
        assert!(files.lines().all(|file| fs::metadata(file).is_ok()), "{files}");
        let again = xbond::cli(&lab.host, ["import", program, &at(program)]).unwrap();
        let bond: String =
            again.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        assert_eq!(bond, toml, "{program}");
        // A file that exists is not overwritten.
        let error = xbond::cli(&lab.host, ["export", program, "bond0", "-d", &at(program)]).unwrap_err();
        assert!(error.to_string().contains("cannot be written"), "{error}");
    }
    xbond.stop().unwrap();
}

#[test]
fn doctor_changes_nothing_and_names_obstacles() {
    skip_if_unable!();
    let lab = host_on_one_nic();
    let found = Snapshot::of(&lab.host);
    let doctor = |interface: &str| {
        let mut command: Command = lab.host.command(xbond::binary().unwrap());
        let output = command.args(["doctor", "-j", interface]).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let of_interface: Vec<_> = report["checks"].as_array().unwrap().to_vec();
        let bad = of_interface
            .into_iter()
            .filter(|check| check["interface"] == interface && check["verdict"] != "ok");
        (output.status.code().unwrap(), bad.collect::<Vec<_>>())
    };
    let (_, bad) = doctor("enp0s9");
    assert_eq!(bad, [] as [serde_json::Value; 0]);
    let (code, bad) = doctor("enp0s8");
    let ids: Vec<_> = bad.iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!((code, &ids[..]), (1, &["addresses", "addresses", "traffic"][..]), "{bad:?}");
    found.assert_holds(&lab.host, "doctor");

    let xbond = Xbond::run(&lab.host, ["--bond", "bond7", "--slave", "enp0s9", "-o", "miimon=100"]).unwrap();
    // A slave of a running bond is in order, also if it is named explicitly.
    let (_, bad) = doctor("enp0s9");
    assert_eq!(bad, [] as [serde_json::Value; 0]);
    let mut command: Command = lab.host.command(xbond::binary().unwrap());
    let said = command.args(["doctor", "enp0s9"]).output().unwrap().stdout;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("ok    enp0s9: slave: is one already, of bond7"), "{said}");
    // A check of everything finds nothing wrong with that, and ignores the devices of the bond.
    let output = lab.host.command(xbond::binary().unwrap()).args(["doctor", "-j"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let of = |id: &str| checks.iter().filter(|check| check["id"] == id).collect::<Vec<_>>();
    let slaves: Vec<_> =
        of("slave").iter().map(|check| (check["interface"].clone(), check["verdict"].clone())).collect();
    assert_eq!(slaves, ["enp0s8", "enp0s9"].map(|name| (name.into(), "ok".into())), "{report:#}");
    xbond.stop().unwrap();
}
