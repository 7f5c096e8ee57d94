//! Requests to a running agent: which bonds it has, who may change them, and how it handles hostile peers.

mod access;
#[path = "../common/mod.rs"]
mod common;
mod peers;
mod reload;
#[path = "../snapshot/mod.rs"]
mod snapshot;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{active_slave, meet, show, slave, traffic, wait_for_active};
use nix::sys::signal::Signal;
use snapshot::Snapshot;
use tempfile::TempDir;
use xbond_tests::{
    Cut, Lab, NetNs, Nic, TwoWay, Xbond, skip_if_unable, time_is_no_measure,
    xbond::{binary, cli},
};

const BOND0: &str = "--bond bond0 --slave enp0s8 --slave enp0s9 -o miimon=100 --address 192.168.99.101/24";
const READY: &str = "bond0 ready: active slave enp0s8, carrier up, datapath tc\n";

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

fn socket(host: &NetNs) -> PathBuf {
    Path::new("/run/xbond").join(host.cookie().unwrap().to_string()).join("xbond.sock")
}

/// Returns what a command prints, the lines of stderr after those of stdout, and its exit code if that is not 0.
fn transcript(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    match output.status.code() {
        Some(0) => said.into_owned(),
        code => format!("{said}? {}\n", code.unwrap_or(-1)),
    }
}

fn xbond(host: &NetNs, line: &str) -> String {
    transcript(host.command(binary().unwrap()).args(words(line)))
}

/// Files of an agent, and the lines that it prints about them.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes a file of one bond.
    fn bond(&self, bond: &str, lines: &str) {
        self.write(&format!("{bond}.toml"), &format!("version = 1\n[bond.{bond}]\n{lines}\n"));
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn remove(&self, bond: &str) {
        fs::remove_file(self.0.path().join(format!("{bond}.toml"))).unwrap();
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn run<'lab>(&self, lab: &'lab Lab) -> Xbond<'lab> {
        Xbond::run(&lab.host, ["-c", self.path()]).unwrap()
    }
}

/// Returns a command that runs in the namespace with another /etc.
fn with_etc(host: &NetNs, etc: &Path, line: &str) -> Command {
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc && exec "$@""#]).arg(etc);
    command.arg(binary().unwrap()).args(words(line));
    command
}

fn lossless(traffic: TwoWay, what: &str) {
    for (way, direction) in ["to the peer", "to the host"].iter().zip(traffic.stop().unwrap()) {
        assert_eq!((direction.lost, direction.duplicated), (0, 0), "{what}, {way}: {direction:?}");
    }
}

#[test]
fn an_agent_has_the_bonds_of_etc_xbond_or_waits_for_some() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let etc = tempfile::tempdir().unwrap();
    let agent = Xbond::start_as(host, with_etc(host, etc.path(), "run")).unwrap();
    agent.wait_for("ready: no bonds; `xbond add` creates one").unwrap();
    let idle = Snapshot::of(host);
    assert!(xbond(host, "show -j").ends_with("  \"bonds\": [],\n  \"orphaned\": []\n}\n"));

    // A second agent is refused.
    let too_many = format!(
        "xbond: an agent runs in this network namespace already (pid {}), and one serves all its bonds: use `xbond add`, \
         or end that agent first\n? 2\n",
        agent.pid()
    );
    for line in ["run".to_owned(), format!("run {BOND0}")] {
        assert_eq!(xbond(host, &line), too_many, "{line}");
    }

    // A change is made completely or not at all.
    assert_eq!(
        xbond(host, "add --bond bond0 --slave enp0s8 --slave nosuch -o miimon=100"),
        "xbond: bond0: nosuch: no such interface in this network namespace\n? 2\n"
    );
    idle.assert_holds(host, "a bond that could not be added");
    assert_eq!(xbond(host, &format!("add {BOND0}")), READY);
    meet(&lab);
    let exists = "xbond: bond0: this agent manages it already; change it by `xbond set`, or by its file and `xbond \
                  reload`\n? 2\n";
    assert_eq!(xbond(host, &format!("add {BOND0}")), exists);

    // No file has ever named it: it stays, until a file names it.
    assert_eq!(xbond(host, "reload"), "nothing changed\n");
    let files = etc.path().join("xbond");
    fs::create_dir(&files).unwrap();
    let text = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 50\n\
                addresses = [\"192.168.99.101/24\"]\n";
    fs::write(files.join("bond0.toml"), text).unwrap();
    assert_eq!(xbond(host, "reload"), "bond0: miimon=50 (was 100)\n");
    fs::remove_file(files.join("bond0.toml")).unwrap();
    assert_eq!(xbond(host, "reload"), "bond0: down, no file names it any more\n");
    idle.assert_holds(host, "a bond that no file has any more");
    assert_eq!(xbond(host, "down bond0"), "xbond: bond0: no such bond; `xbond show` lists them\n? 2\n");
    agent.stop().unwrap();

    fs::write(files.join("bond0.toml"), text).unwrap();
    let agent = Xbond::start_as(host, with_etc(host, etc.path(), "run")).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    assert_eq!(show(&agent)["options"]["miimon"], 50);
    agent.stop().unwrap();
    before.assert_holds(host, "an agent of /etc/xbond");
}

/// A file that is added works like one that is run: several bonds, slaves that appear later.
#[test]
fn files_are_added_as_they_are_run() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let (none, files) = (Files::new(), Files::new());
    none.write("none.toml", "version = 1\n");
    let agent = none.run(&lab);
    files.bond(
        "bond0",
        "slaves = [\"enp0s8\", \"later\"]\nmiimon = 100\nfail_over_mac = \"active\"\nmtu = 1400",
    );
    files.bond("bond1", "slaves = [\"enp0s8\"]\nmiimon = 100");
    files.bond("bond2", "slaves = [\"enp0s9\"]\nmiimon = 100\n[bond.bond2.slave.enp0s9]\nprio = 7");
    let add = format!("add -c {}", files.path());
    assert_eq!(
        xbond(host, &add),
        format!(
            "xbond: {}/bond1.toml:2: enp0s8 is a slave of bond0 and a slave of bond1; it can be only one\n? 2\n",
            files.path()
        )
    );
    files.bond("bond1", "slaves = [\"lo0\"]\nmiimon = 100\ndatapath = \"xdp\"\nport = \"nosuch\"");
    assert_eq!(
        xbond(host, &add),
        "bond0 ready: active slave enp0s8, carrier up, datapath tc; not enslaved yet: later\n\
         bond2 ready: active slave enp0s9, carrier up, datapath tc\n\
         xbond: bond1: nosuch: no such interface in this network namespace\n? 2\n"
    );
    let bond = show(&agent);
    assert_eq!(
        (bond["options"]["fail_over_mac"].as_str(), host.link("bond0").unwrap().mtu),
        (Some("active"), 1400)
    );
    assert_eq!(slave(&agent.show("bond2").unwrap()["bonds"][0], "enp0s9")["prio"], 7);
    host.ip("link add later type veth peer name far").unwrap();
    common::eventually(
        "a slave that came later",
        || show(&agent)["slaves"].as_array().unwrap().len(),
        |slaves| *slaves == 2,
    );
    agent.stop().unwrap();
    host.ip("link delete later").unwrap();
    before.assert_holds(host, "added bonds");
}

#[test]
fn every_verb_works_from_outside_of_the_namespace() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let outside = |line: &str| {
        let line = line.replace("NETNS", host.name());
        transcript(Command::new(binary().unwrap()).args(words(&line)))
    };
    let mut run = Command::new(binary().unwrap());
    run.args(["--netns", host.name(), "run"]).args(words(BOND0));
    let agent = Xbond::start_as(host, run).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    meet(&lab);
    // Without counters: the host sends frames of its own between the two.
    assert_eq!(outside("show bond0 --proc --netns NETNS"), xbond(host, "show bond0 --proc"));
    assert_eq!(outside("--netns NETNS set bond0 miimon=50"), "");
    assert_eq!(show(&agent)["options"]["miimon"], 50);
    assert_eq!(outside("--netns NETNS set bond0 --slave enp0s9 queue_id=2"), "");
    assert_eq!(outside("--netns NETNS del-slave bond0 enp0s9"), "");
    assert_eq!(
        outside("--netns NETNS add --bond bond1 --slave enp0s9 -o miimon=100"),
        "bond1 ready: active slave enp0s9, carrier up, datapath tc\n"
    );
    assert_eq!(outside("--netns NETNS down bond1"), "");
    assert_eq!(outside("--netns NETNS add-slave bond0 enp0s9"), "");
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    wait_for_active(&agent, "enp0s9");
    agent.kill().unwrap();
    assert_eq!(outside("--netns NETNS down bond0 --force"), "");
    before.assert_holds(host, "an agent that was started from outside");
    for verb in ["run", "show", "reload", "down bond0 --force"] {
        assert_eq!(
            outside(&format!("--netns no-such-netns {verb}")),
            "xbond: \"no-such-netns\": no such network namespace; `ip netns list` lists them\n? 2\n"
        );
    }
}
