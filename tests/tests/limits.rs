//! An agent that gets no further descriptors or threads: no slave goes down for that reason, failovers happen, and
//! what could not be done is done as soon as possible.

mod common;
mod snapshot;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use common::{BOND, SLAVES, concurrently, eventually, meet, show, skip};
use snapshot::Snapshot;
use xbond_tests::{
    Cut, HOST_V4, Lab, Xbond, skip_if_unable,
    xbond::{binary, cli},
};

fn flags() -> Vec<String> {
    let bond = format!("--bond {BOND} --slave {} --slave {} -o miimon=100", SLAVES[0], SLAVES[1]);
    bond.split(' ').map(str::to_owned).chain(["--address".to_owned(), format!("{HOST_V4}/24")]).collect()
}

/// Limits the agent to descriptors below this number from now on.
fn limit_files(agent: &Xbond<'_>, limit: u32) {
    let limit = format!("--nofile={limit}:4096");
    let status = Command::new("prlimit").args(["--pid", &agent.pid().to_string(), &limit]).status();
    assert!(status.unwrap().success());
}

fn receipts(lab: &Lab) -> serde_json::Value {
    serde_json::from_str(&cli(&lab.host, ["log", BOND, "-j"]).unwrap()).unwrap()
}

#[test]
fn an_agent_without_descriptors_fails_over_announces_and_keeps_its_bond() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = Lab::scenario().unwrap();
    let mut arguments = flags();
    arguments.extend(["--on-exit", "keep"].map(str::to_owned));
    let agent = Xbond::run(&lab.host, arguments).unwrap();
    meet(&lab);
    limit_files(&agent, 3);
    // The checks that run each second.
    agent.wait_for("cannot be checked: Too many open files").unwrap();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    agent.wait_for("active slave enp0s9 instead of enp0s8").unwrap();
    agent.wait_for("enp0s9: announced 1 address").unwrap();
    agent.wait_for("the receipt of a failover is written later").unwrap();
    let log = agent.log();
    for wrong in ["pins are gone", "was removed", "enp0s9: link down", "panicked", "is lost"] {
        assert!(!log.contains(wrong), "{wrong}: {log}");
    }
    limit_files(&agent, 4096);
    let is_written = |log: &serde_json::Value| {
        log["receipts"].as_array().unwrap().last().is_some_and(|receipt| receipt["to"] == SLAVES[1])
    };
    eventually("the receipt", || receipts(&lab), is_written);
    assert_eq!(show(&agent)["active_slave"], SLAVES[1]);
    limit_files(&agent, 3);
    let log = agent.stop().unwrap();
    assert!(log.contains("and it is kept") && lab.host.link(BOND).is_ok(), "{log}");
}

/// Leaves the agent this number of descriptors in addition to those that it has.
fn leave_files(agent: &Xbond<'_>, free: usize) {
    let entries = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap();
    let number = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().to_str()?.parse().ok();
    let used: BTreeSet<u32> = entries.filter_map(number).collect();
    limit_files(agent, (0..).filter(|number| !used.contains(number)).nth(free).unwrap());
}

/// Event streams hold all descriptors that the agent has left, and idle connections wait for one.
#[test]
fn an_agent_whose_descriptors_clients_hold_keeps_its_bond_and_answers_after_them() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = Lab::scenario().unwrap();
    let agent = Xbond::run(&lab.host, flags()).unwrap();
    meet(&lab);
    // What it announces now it has read, and can announce again without a descriptor.
    while !agent.log().contains("announced 1 address") {
        for name in [SLAVES[1], SLAVES[0]] {
            agent.set(BOND, &format!("active_slave={name}")).unwrap();
        }
    }
    leave_files(&agent, 20);
    let known = agent.log().len();
    let socket = PathBuf::from(format!("/run/xbond/{}/xbond.sock", lab.host.cookie().unwrap()));
    let connect = |request: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let mut held: Vec<_> = (0..50).map(|_| connect("GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")).collect();
    held.extend((0..20).map(|_| connect("")));
    agent.wait_for("a connection waits, because it cannot be accepted: Too many open files").unwrap();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    agent.wait_for_after(known, "active slave enp0s9 instead of enp0s8").unwrap();
    agent.wait_for_after(known, "enp0s9: announced 1 address").unwrap();
    meet(&lab);
    drop(held);
    assert_eq!(show(&agent)["active_slave"], SLAVES[1]);
    let log = agent.stop().unwrap();
    let lines = log.lines().filter(|line| line.contains("a connection waits")).count();
    assert!((1..=20).contains(&lines), "{lines} lines: {log}");
    for wrong in ["pins are gone", "enp0s9: link down", "panicked", "is lost"] {
        assert!(!log.contains(wrong), "{wrong}: {log}");
    }
}

/// Connections without a request hold the descriptors: they are closed for those that follow.
#[test]
fn an_agent_whose_descriptors_idle_clients_hold_answers_others() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = Lab::scenario().unwrap();
    let agent = Xbond::run(&lab.host, flags()).unwrap();
    leave_files(&agent, 6);
    let socket = PathBuf::from(format!("/run/xbond/{}/xbond.sock", lab.host.cookie().unwrap()));
    let begun = Instant::now();
    let held: Vec<_> = (0..8).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    show(&agent);
    // Later, all connections without a request are closed anyway.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(held);
    agent.stop().unwrap();
}

#[test]
fn an_agent_with_few_descriptors_runs_or_restores_everything() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let (mut ran, mut refused) = (0, 0);
    for limit in [8, 24, 60, 120, 160, 180, 200, 240] {
        let mut command = lab.host.command("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg(binary().unwrap()).arg("run").args(flags());
        let mut agent = Xbond::start_as(&lab.host, command).unwrap();
        if agent.wait_for("ready").is_ok() {
            ran += 1;
            // More bonds than there are descriptors for: each is created completely, or not at all.
            let more = |number| agent.cli(["add", "--bond", &format!("more{number}"), "-o", "miimon=100"]);
            let error = (0..16).find_map(|number| more(number).err());
            let error = error.map(|error| format!("{error:#}")).unwrap_or_default();
            assert!(!error.contains("not everything"), "{error}");
            agent.stop().unwrap();
        } else {
            refused += 1;
            assert!(!agent.wait().unwrap().success());
            let log = agent.log();
            assert!(log.contains("files") && !log.contains("panicked"), "{limit}: {log}");
        }
        before.assert_holds(&lab.host, &format!("{limit} descriptors"));
    }
    assert!(ran >= 2 && refused >= 3, "{ran} ran, {refused} were refused");
}

/// A cgroup that limits processes and threads.
struct Pids(PathBuf);

impl Pids {
    fn new() -> Option<Self> {
        let roots = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].map(PathBuf::from);
        let path = roots.iter().find_map(|root| {
            let path = root.join(xbond_tests::netns::unique_stem());
            fs::create_dir(&path).ok()?;
            let has_limit = path.join("pids.max").exists();
            if !has_limit {
                let _ = fs::remove_dir(&path);
            }
            has_limit.then_some(path)
        });
        if path.is_none() {
            skip("a cgroup that limits processes");
        }
        path.map(Self)
    }

    fn limit(&self, threads: &str) {
        fs::write(self.0.join("pids.max"), threads).unwrap();
    }

    /// Allows no further thread.
    fn close(&self) {
        self.limit(&fs::read_to_string(self.0.join("pids.current")).unwrap());
    }

    /// Starts `xbond run` in this cgroup.
    fn run<'lab>(&self, lab: &'lab Lab, arguments: &[String]) -> Xbond<'lab> {
        let mut command = lab.host.command("sh");
        let script = format!("echo 0 > {}/cgroup.procs && exec \"$0\" run \"$@\"", self.0.display());
        command.args(["-c", &script]).arg(binary().unwrap()).args(arguments);
        Xbond::start_as(&lab.host, command).unwrap()
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn an_agent_without_further_threads_fails_over_and_answers() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let Some(pids) = Pids::new() else { return };
    let lab = Lab::scenario().unwrap();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let bond = |miimon| format!("version = 1\n[bond.{BOND}]\nslaves = {SLAVES:?}\nmiimon = {miimon}\n");
    fs::write(file.path(), bond(100)).unwrap();
    let agent = pids.run(&lab, &["-c".to_owned(), file.path().display().to_string()]);
    agent.wait_for("ready").unwrap();
    pids.close();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    agent.wait_for("active slave enp0s9 instead of enp0s8").unwrap();
    assert_eq!(show(&agent)["active_slave"], SLAVES[1]);
    agent.set(BOND, "miimon=200").unwrap();
    // A file is read on its own thread, so that a dead file system delays nothing else.
    let refused = || {
        // A thread that has ended meanwhile, such as the one that collects at the start, would leave room for another.
        pids.close();
        agent.cli(["reload"]).err().map(|error| format!("{error:#}"))
    };
    let error = eventually("it is refused", refused, Option::is_some).unwrap();
    assert!(error.contains("Resource temporarily unavailable"), "{error}");
    pids.limit("max");
    agent.cli(["reload"]).unwrap();
    assert_eq!(show(&agent)["options"]["miimon"], 100);
    let log = agent.stop().unwrap();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn an_agent_that_gets_too_few_threads_does_not_start() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let Some(pids) = Pids::new() else { return };
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    for threads in ["1", "3", "8"] {
        pids.limit(threads);
        let mut agent = pids.run(&lab, &flags());
        assert!(!agent.wait().unwrap().success());
        let log = agent.log();
        assert!(log.contains("start 16 threads") && log.contains("TasksMax="), "{log}");
        assert!(!log.contains("panicked"), "{log}");
        before.assert_holds(&lab.host, &format!("{threads} threads"));
    }
}
