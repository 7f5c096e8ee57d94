//! How a starting agent treats several files, a file that changed while no agent ran, and a bond that cannot be
//! brought up yet.

use std::{fs, path::PathBuf, time::Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use xbond_tests::{Lab, Mac, Nic, WAIT_LIMIT, Xbond, skip_if_unable, xbond::cli};

const BOND1: &str = "version = 1\n[bond.bond1]\nslaves = [\"eth2\", \"eth3\"]\nmiimon = 100\n";

/// Writes two files into a directory: bond0, which is valid, and bond1, which ends with these lines.
fn files(of_bond1: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    let bond0 = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n";
    fs::write(directory.path().join("a.toml"), bond0).unwrap();
    fs::write(directory.path().join("b.toml"), format!("{BOND1}{of_bond1}")).unwrap();
    directory
}

fn lab() -> Lab {
    let mut nics = Nic::scenario();
    nics.extend(
        (2..4).map(|number| Nic { name: format!("eth{number}"), mac: Mac::new([2, 0, 0, 0, 9, number]) }),
    );
    Lab::builder().nics(nics).build().unwrap()
}

fn run<'lab>(lab: &'lab Lab, path: &std::path::Path) -> Xbond<'lab> {
    let agent = Xbond::start(&lab.host, ["-c", path.to_str().unwrap()]).unwrap();
    // Some sentences contain "already".
    agent.wait_for("bond0 ready").unwrap();
    agent
}

/// Polls until the answer is as expected.
fn eventually<T: std::fmt::Debug>(what: &str, ask: impl Fn() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let start = Instant::now();
    loop {
        let answer = ask();
        if is_so(&answer) {
            return answer;
        }
        assert!(start.elapsed() < WAIT_LIMIT, "{what}: {answer:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn slaves(agent: &Xbond<'_>, bond: &str) -> Vec<String> {
    let shown = agent.show(bond).unwrap();
    let slaves = shown["bonds"][0]["slaves"].as_array().unwrap();
    slaves.iter().map(|slave| slave["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_bond_of_a_file_that_cannot_be_brought_up_does_not_take_the_others_down() {
    skip_if_unable!();
    let lab = lab();
    let files = files("routes = [{ to = \"default\", via = \"172.31.0.1\" }]\n");
    let agent = run(&lab, files.path());
    let log = agent.wait_for("bond1 (").unwrap();
    for part in ["b.toml:2)", "not brought up", "add route default via 172.31.0.1 on bond1", "xbond reload"] {
        assert!(log.contains(part), "no {part} in: {log}");
    }
    assert_eq!(slaves(&agent, "bond0"), ["enp0s8", "enp0s9"]);
    let shown = agent.cli(["show"]).unwrap();
    assert!(shown.starts_with("bond0: active slave") && shown.contains("! bond1 ("), "{shown}");
    assert!(lab.host.link("bond1").is_err());
    // The file is corrected.
    fs::write(files.path().join("b.toml"), BOND1).unwrap();
    agent.cli(["reload"]).unwrap();
    assert_eq!(slaves(&agent, "bond1"), ["eth2", "eth3"]);
    assert!(!agent.cli(["show"]).unwrap().contains("not brought up"));
    agent.stop().unwrap();
}

#[test]
fn a_bond_is_brought_up_when_a_slave_becomes_free() {
    skip_if_unable!();
    let lab = lab();
    lab.host.ip("link add br0 type bridge").unwrap();
    for nic in ["eth2", "eth3"] {
        lab.host.ip(&format!("link set {nic} master br0")).unwrap();
    }
    let files = files("");
    let agent = run(&lab, files.path());
    let shown = agent.cli(["show"]).unwrap();
    assert!(shown.contains("! bond1 (") && shown.contains("already a port of bridge br0"), "{shown}");
    lab.host.ip("link delete br0").unwrap();
    agent.wait_for("bond1: recreated").unwrap();
    assert_eq!(slaves(&agent, "bond1"), ["eth2", "eth3"]);
    agent.stop().unwrap();
}

#[test]
fn a_slave_of_a_file_that_is_another_bridges_port_is_awaited() {
    skip_if_unable!();
    let lab = lab();
    lab.host.ip("link add br0 type bridge").unwrap();
    lab.host.ip("link set eth2 master br0").unwrap();
    let files = files("");
    let agent = run(&lab, files.path());
    let log = agent.log();
    assert!(log.contains("WARN bond1: eth2: already a port of bridge br0"), "{log}");
    assert_eq!(slaves(&agent, "bond1"), ["eth3"]);
    lab.host.ip("link set eth2 nomaster").unwrap();
    eventually("it joins", || slaves(&agent, "bond1"), |slaves| slaves.len() == 2);
    agent.stop().unwrap();
    // One bond of flags is refused.
    lab.host.ip("link set eth2 master br0").unwrap();
    let flags = "run --bond bond1 --slave eth2 --slave eth3 -o miimon=100";
    let error = cli(&lab.host, flags.split(' ')).unwrap_err().to_string();
    assert!(error.contains("eth2: already a port of bridge br0"), "{error}");
}

#[test]
fn a_file_that_changed_while_no_agent_ran_is_applied_at_adoption() {
    skip_if_unable!();
    let lab = lab();
    let directory = TempDir::new().unwrap();
    let path: PathBuf = directory.path().join("bond0.toml");
    let write = |host: &str| {
        let text = format!(
            "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\"]\nmiimon = 100\non_exit = \"keep\"\n\
             addresses = [\"192.168.99.{host}/24\", \"fd00:99::{host}/64\"]\n\
             routes = [{{ to = \"198.51.{host}.0/24\", via = \"192.168.99.1\" }}]\n"
        );
        fs::write(&path, text).unwrap();
    };
    let observe = || {
        lab.host.ip("-brief address show dev bond0").unwrap() + &lab.host.ip("route show dev bond0").unwrap()
    };
    write("101");
    let mut agent = run(&lab, &path);
    // An address of another owner.
    lab.host.ip("address add 203.0.113.9/24 dev bond0").unwrap();
    for (former, host, signal) in
        [("101", "102", Signal::SIGTERM), ("102", "103", Signal::SIGKILL), ("103", "104", Signal::SIGTERM)]
    {
        match signal {
            Signal::SIGKILL => agent.kill().unwrap(),
            _ => drop(agent.stop().unwrap()),
        }
        write(host);
        agent = run(&lab, &path);
        let found = observe();
        for gone in
            [format!("192.168.99.{former}/"), format!("fd00:99::{former}/"), format!("198.51.{former}.")]
        {
            assert!(!found.contains(&gone), "{signal}: {gone} is still there: {found}");
        }
        for there in [format!("192.168.99.{host}/"), format!("fd00:99::{host}/"), format!("198.51.{host}.")] {
            assert!(found.contains(&there), "{signal}: no {there}: {found}");
        }
        assert!(found.contains("203.0.113.9/24"), "{found}");
    }
    // What a reload has set is recorded as well.
    write("105");
    agent.cli(["reload"]).unwrap();
    agent.kill().unwrap();
    write("106");
    let agent = run(&lab, &path);
    let found = observe();
    assert!(!found.contains("99.105/") && !found.contains("51.105.") && found.contains("99.106/"), "{found}");
    agent.cli(["down", "bond0"]).unwrap();
    agent.stop().unwrap();
}

#[test]
fn down_force_right_after_a_kill_restores_everything() {
    skip_if_unable!();
    let lab = lab();
    for turn in 0..15 {
        let flags = "--bond bond0 --slave enp0s8 --slave enp0s9 -o miimon=100";
        let agent = Xbond::run(&lab.host, flags.split(' ')).unwrap();
        agent.signal(Signal::SIGKILL).unwrap();
        cli(&lab.host, ["down", "--force", "bond0"]).unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        assert!(lab.host.link("bond0").is_err(), "turn {turn}");
        assert_eq!(lab.host.link("enp0s9").unwrap().mac, lab.mac("enp0s9").unwrap(), "turn {turn}");
        drop(agent);
    }
}

#[test]
fn a_bond_whose_device_was_deleted_is_reported_as_gone_until_recreated() {
    skip_if_unable!();
    let lab = lab();
    let files = files("");
    let agent = run(&lab, files.path());
    agent.cli("add --bond bond2 --slave nosuch -o miimon=100".split(' ')).unwrap_err();
    agent.cli("add --bond bond2 -o miimon=100".split(' ')).unwrap();
    for (bond, advice) in [("bond1", "`xbond reload` recreates it"), ("bond2", "`xbond add` recreates it")] {
        lab.host.ip(&format!("link delete {bond}")).unwrap();
        let shown = || agent.cli(["show"]).unwrap();
        let sentence = format!("! {bond}: its device was deleted, and the bond with it; {advice}");
        eventually("it is shown", shown, |shown| shown.contains(&sentence));
        let error = agent.cli(["show", bond]).unwrap_err().to_string();
        assert!(error.contains("its device was deleted"), "{error}");
    }
    agent.cli(["reload"]).unwrap();
    assert_eq!(slaves(&agent, "bond1"), ["eth2", "eth3"]);
    let shown = agent.cli(["show"]).unwrap();
    assert!(!shown.contains("! bond1") && shown.contains("! bond2"), "{shown}");
    agent.cli(["down", "bond2"]).unwrap();
    assert!(!agent.cli(["show"]).unwrap().contains("bond2"));
    agent.stop().unwrap();
}
