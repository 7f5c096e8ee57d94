//! Requests to a running agent: which bonds it has, who may change them, and how it handles hostile peers.

mod common;
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
    agent.wait_for("ready: no bonds; `xbond add` makes one").unwrap();
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
fn reload_changes_what_changed_and_nothing_else() {
    skip_if_unable!();
    let nics = [&Nic::scenario()[..], &[Nic::new("enp0s10", [8, 0, 0x27, 0, 0, 3])]].concat();
    let lab = Lab::builder().nics(nics).build().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let files = Files::new();
    let addresses = r#"addresses = ["192.168.99.101/24"]"#;
    files.bond("bond0", &format!("slaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n{addresses}"));
    let agent = files.run(&lab);
    meet(&lab);
    let bond0 = host.link("bond0").unwrap().ifindex;
    let traffic = traffic(&lab, 2_000);
    traffic.wait_for_more(300).unwrap();
    let reload = || {
        let said = xbond(host, "reload");
        assert_eq!(host.link("bond0").unwrap().ifindex, bond0, "{said}");
        traffic.wait_for_more(100).unwrap();
        said
    };
    assert_eq!(reload(), "nothing changed\n");

    // The files win: a value that the administrator changed is restored.
    agent.set("bond0", "miimon=50").unwrap();
    agent.cli(["del-slave", "bond0", "enp0s9"]).unwrap();
    agent.cli(["add-slave", "bond0", "enp0s10", "-o", "prio=3"]).unwrap();
    assert_eq!(reload(), "bond0: miimon=100 (was 50)\nbond0: enp0s9: enslaved\nbond0: enp0s10: released\n");
    assert_eq!(reload(), "nothing changed\n");

    // Options, slaves, addresses, routes, MTU.
    let all = "slaves = [\"enp0s9\", \"enp0s10\", \"later\"]\nmiimon = 50\nupdelay = 100\nprimary = \"enp0s10\"\n\
               addresses = [\"192.168.99.101/24\", \"198.51.100.1/24\", \"2001:db8::1/64\"]\n\
               routes = [{ to = \"203.0.113.0/24\", via = \"198.51.100.9\", metric = 5 }]\nmtu = 1400\n\
               on_exit = \"keep\"\nguard = \"off\"\n[bond.bond0.slave.enp0s9]\nprio = 10\nqueue_id = 2\n";
    files.bond("bond0", all);
    assert_eq!(
        reload(),
        "bond0: miimon=50 (was 100)\nbond0: updelay=100 (was 0)\nbond0: primary=enp0s10 (was none)\n\
         bond0: guard=off (was auto)\nbond0: enp0s10: enslaved\nbond0: enp0s9: prio=10 (was 0)\nbond0: enp0s9: queue_id=2 (was 0)\n\
         bond0: enp0s8: released\nbond0: mtu=1400 (was 1500)\nbond0: address 198.51.100.1/24: added\n\
         bond0: address 2001:db8::1/64: added\nbond0: route 203.0.113.0/24 via 198.51.100.9 metric 5: set\n\
         bond0: later: absent, joins when it appears\nbond0: on_exit=keep (was down)\n\
         xbond: bond0: enp0s8: released with the MAC 08:00:27:e8:26:58, which is still in use in the bond; \
         set another one before using it\n"
    );
    assert_eq!(active_slave(&agent).as_deref(), Some("enp0s10"));
    assert_eq!(show(&agent)["guard"], "off: as configured");
    for device in ["bond0", "bond0-port", "enp0s9", "enp0s10"] {
        assert_eq!(host.link(device).unwrap().mtu, 1400, "{device}");
    }
    assert!(host.ip("route show dev bond0").unwrap().contains("203.0.113.0/24 via 198.51.100.9"));
    assert_eq!(reload(), "nothing changed\n");
    assert_eq!(slave(&show(&agent), "enp0s9")["queue_id"], 2);

    // An address of another owner on bond0 stays. An address of a file is removed with the file, unless both have it.
    host.ip("address add 198.51.100.77/24 dev bond0").unwrap();
    let routes = "routes = [{ to = \"203.0.113.0/24\", via = \"198.51.100.8\", metric = 5 }]\n";
    files.bond(
        "bond0",
        &format!(
            "slaves = [\"enp0s9\", \"enp0s10\"]\nmiimon = 50\naddresses = [\"192.168.99.101/24\", \
             \"198.51.100.2/24\"]\n{routes}"
        ),
    );
    assert_eq!(
        reload(),
        "bond0: updelay=0 (was 100)\nbond0: primary=none (was enp0s10)\n\
         bond0: guard=auto (was off)\nbond0: enp0s9: prio=0 (was 10)\n\
         bond0: enp0s9: queue_id=0 (was 2)\nbond0: mtu=1500 (was 1400)\nbond0: address 198.51.100.2/24: added\n\
         bond0: route 203.0.113.0/24 via 198.51.100.8 metric 5: set\nbond0: address 198.51.100.1/24: removed\n\
         bond0: address 2001:db8::1/64: removed\nbond0: on_exit=down (was keep)\n"
    );
    let addresses = host.ip("-oneline address show dev bond0").unwrap();
    for (address, there) in
        [("99.101/24", true), ("100.1/24", false), ("100.2/24", true), ("2001:db8", false)]
    {
        assert_eq!(addresses.contains(address), there, "{address}: {addresses}");
    }
    assert!(host.ip("route show dev bond0").unwrap().contains("203.0.113.0/24 via 198.51.100.8"));
    assert_eq!(reload(), "nothing changed\n");

    // SIGHUP has the same effect.
    let position = agent.log().len();
    files.bond(
        "bond0",
        "slaves = [\"enp0s9\", \"enp0s10\"]\nmiimon = 70\naddresses = [\"192.168.99.101/24\"]\n",
    );
    agent.signal(Signal::SIGHUP).unwrap();
    agent.wait_for_after(position, "bond0: address 198.51.100.2/24: removed").unwrap();
    assert_eq!(show(&agent)["options"]["miimon"], 70);
    lossless(traffic, "all reloads");
    agent.stop().unwrap();
    before.assert_holds(host, "an agent that reloaded");
}

/// The kernel deletes the other addresses of a network with the first one, and routes; packets would be lost.
#[test]
fn removing_an_address_does_not_touch_another() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let files = Files::new();
    let describe = |addresses: &str| {
        let routes = "routes = [{ to = \"203.0.113.0/24\", via = \"192.168.99.1\" }]";
        let text = format!("slaves = [\"enp0s8\"]\nmiimon = 100\naddresses = [{addresses}]\n{routes}");
        files.bond("bond0", &text);
    };
    describe(r#""192.168.99.7/24", "192.168.99.101/24""#);
    let agent = files.run(&lab);
    meet(&lab);
    let traffic = traffic(&lab, 5_000);
    traffic.wait_for_more(500).unwrap();
    describe(r#""192.168.99.101/24""#);
    assert_eq!(xbond(&lab.host, "reload"), "bond0: address 192.168.99.7/24: removed\n");
    traffic.wait_for_more(500).unwrap();
    // The kernel deletes the routes of the subnet's other addresses and restores them (`__inet_del_ifa`). On an
    // emulated machine packets arrive in between.
    match time_is_no_measure() {
        None => lossless(traffic, "an address that stays"),
        Some(_) => {
            for direction in traffic.stop().unwrap() {
                assert_eq!(direction.duplicated, 0, "an address that stays: {direction:?}");
                let on_the_way = direction.lost - direction.refused;
                assert!(on_the_way * 50 < direction.sent, "an address that stays: {direction:?}");
            }
        }
    }
    assert!(lab.host.ip("route show dev bond0").unwrap().contains("203.0.113.0/24 via 192.168.99.1"));
    let sysctl = lab.host.exec("cat /proc/sys/net/ipv4/conf/bond0/promote_secondaries").unwrap();
    assert_eq!(sysctl.trim(), "0");
    agent.stop().unwrap();
}

#[test]
fn bonds_come_and_go_with_their_files_and_pass_slaves_on() {
    skip_if_unable!();
    let nics = (0..4).map(|number| Nic::new(&format!("nic{number}"), [2, 0, 0, 0, 1, number]));
    let lab = Lab::builder().nics(nics).build().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let files = Files::new();
    let address = "addresses = [\"192.168.99.101/24\"]";
    files.bond("bond0", &format!("slaves = [\"nic0\", \"nic1\"]\nmiimon = 100\n{address}"));
    files.bond("bond1", "slaves = [\"nic2\"]\nmiimon = 100");
    let agent = files.run(&lab);
    meet(&lab);
    let traffic = traffic(&lab, 2_000);
    traffic.wait_for_more(300).unwrap();

    files.bond("bond0", &format!("slaves = [\"nic0\"]\nmiimon = 100\n{address}"));
    files.bond("bond1", "slaves = [\"nic1\", \"nic2\"]\nmiimon = 100");
    files.bond("bond2", "slaves = [\"nic3\"]\nmiimon = 100");
    assert_eq!(
        xbond(host, "reload"),
        "bond0: nic1: released\nbond1: nic1: enslaved\n\
         bond2 ready: active slave nic3, carrier up, datapath tc\n"
    );
    // The only address of a bond that is removed; and an address of the administrator, which no file adds or removes.
    agent.cli(["down", "bond2"]).unwrap();
    agent.cli(words("add --bond byhand --slave nic3 -o miimon=100")).unwrap();
    files.remove("bond2");
    files.remove("bond1");
    files.bond("bond0", &format!("slaves = [\"nic0\", \"nic2\"]\nmiimon = 100\n{address}"));
    assert_eq!(xbond(host, "reload"), "bond1: down, no file names it any more\nbond0: nic2: enslaved\n");
    agent.cli(["down", "byhand"]).unwrap();
    traffic.wait_for_more(300).unwrap();
    lossless(traffic, "a bond next to others that are created and removed");
    agent.stop().unwrap();
    before.assert_holds(host, "bonds that came and went");
}

#[test]
fn a_refused_reload_changes_nothing() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    let files = Files::new();
    let good = "slaves = [\"enp0s8\"]\nmiimon = 100\naddresses = [\"192.168.99.101/24\"]\n";
    files.bond("bond0", good);
    files.bond("bond1", "slaves = []\nmiimon = 100");
    let agent = files.run(&lab);
    meet(&lab);
    let traffic = traffic(&lab, 2_000);
    traffic.wait_for_more(300).unwrap();
    let now = Snapshot::of(host);
    let state =
        || (show(&agent)["options"].clone(), agent.show("bond1").unwrap()["bonds"][0]["options"].clone());
    let was = state();
    let another = |what: &str| {
        format!(
            "xbond: bond0: {what} cannot be changed while the bond is there: xbond down bond0, then xbond reload\n? 2\n"
        )
    };
    let path = |name: &str| format!("{}/{name}", files.path());
    let table = [
        ("mac = \"02:00:00:00:00:77\"\nmiimon = 60", another("mac")),
        ("datapath = \"xdp\"\nmiimon = 60", another("datapath")),
        ("prearm = true\nfail_over_mac = \"follow\"\nmiimon = 60", another("prearm")),
        ("fail_over_mac = \"active\"\nmiimon = 60", another("fail_over_mac")),
        (
            "miimon = 60\n[bond.bond0.slave.enp0s8]\nmac = \"02:00:00:00:00:78\"",
            "xbond: bond0: enp0s8: mac cannot be changed while it is a slave: xbond del-slave bond0 enp0s8, then \
             xbond reload\n? 2\n"
                .into(),
        ),
        (
            "miimon = 60\n[bond.bond0.slave.enp0s8]\nhwaddr = \"02:00:00:00:00:78\"",
            "xbond: bond0: enp0s8: has MAC 08:00:27:e8:26:58, but HWADDR says 02:00:00:00:00:78; this is another NIC than \
             the file means\n? 2\n"
                .into(),
        ),
        (
            "miimon = 60\n[bond.bond0.slave.enp0s8]\nqueue_id = 77",
            "xbond: bond0: enp0s8: queue_id=77: bond0 has transmit queues 1 to 15; choose one of them, or 0 for none\n? 2\n"
                .into(),
        ),
        (
            "miimon = 60\nmiimonn = 1",
            format!(
                "xbond: {}:6: miimonn: no such key in bond0; did you mean miimon?; nothing was changed\n? 2\n",
                path("bond0.toml")
            ),
        ),
    ];
    for (lines, said) in table {
        files.bond("bond0", &format!("slaves = [\"enp0s8\"]\naddresses = [\"192.0.2.1/24\"]\n{lines}"));
        assert_eq!(xbond(host, "reload"), said, "{lines}");
        assert_eq!(state(), was, "{lines}");
        now.assert_holds(host, lines);
    }
    // A slave that cannot be one, next to a change of another bond, which is made.
    files.bond("bond0", &format!("{good}mtu = 1400\n").replace("[\"enp0s8\"]", "[\"enp0s8\", \"lo\"]"));
    assert_eq!(
        xbond(host, "reload"),
        format!(
            "xbond: {}:2: \"lo\" cannot be an interface here: it is the loopback device; nothing was changed\n? 2\n",
            path("bond0.toml")
        )
    );
    files.bond("bond0", &format!("{good}mtu = 1400\n").replace("[\"enp0s8\"]", "[\"enp0s8\", \"bond1\"]"));
    files.remove("bond1");
    files.bond("bond2", "slaves = []\nmiimon = 60");
    let said = xbond(host, "reload");
    assert!(
        said.ends_with("? 2\n") && said.contains("bond1: down") && said.contains("bond2 ready"),
        "{said}"
    );
    assert!(said.contains("xbond: bond0: bond1: belongs to the bond bond1"), "{said}");
    assert_eq!(host.link("bond0").unwrap().mtu, 1500);
    // The same file twice, and a missing one.
    files.bond("bond0", good);
    files.write("bond0-again.toml", &format!("version = 1\n[bond.bond0]\n{good}"));
    assert_eq!(
        xbond(host, "reload"),
        format!(
            "xbond: {}:2: bond bond0 is already defined in {}:2; nothing was changed\n? 2\n",
            path("bond0.toml"),
            path("bond0-again.toml")
        )
    );
    for entry in fs::read_dir(files.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let none = format!(
        "xbond: {}: no files named *.toml in this directory; nothing was changed\n? 2\n",
        files.path()
    );
    assert_eq!(xbond(host, "reload"), none);
    traffic.wait_for_more(300).unwrap();
    lossless(traffic, "refused reloads");
    agent.stop().unwrap();
    before.assert_holds(host, "refused reloads");

    let agent = Xbond::run(host, words(BOND0)).unwrap();
    assert_eq!(
        xbond(host, "reload"),
        "xbond: this agent was started by flags: there is no file to read again; use `xbond set`, `xbond add` and \
         `xbond down`\n? 2\n"
    );
    agent.stop().unwrap();
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

/// Returns what an HTTP client of this user and these groups receives: status and body.
fn ask_as(host: &NetNs, ids: &str, request: &[&str]) -> String {
    let mut command = host.command("setpriv");
    command.args(words(ids)).args(["curl", "--silent", "--max-time", "10", "--write-out", " %{http_code}"]);
    command.arg("--unix-socket").arg(socket(host)).args(request);
    transcript(&mut command)
}

const BONDS: &str = "http://xbond/v1/bonds";
const CHANGE: [&str; 5] = [
    "--header",
    "content-type: application/json",
    "--data",
    r#"{"set":[["num_grat_arp","3"]]}"#,
    "http://xbond/v1/bonds/bond0/options",
];

#[test]
fn readers_and_writers_have_their_permissions() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    let etc = tempfile::tempdir().unwrap();
    let files = etc.path().join("xbond");
    fs::create_dir(&files).unwrap();
    let agent_file = |writers: &str| {
        fs::write(files.join("10-agent.toml"), format!("version = 1\n[agent]\nwriters = \"{writers}\"\n"))
            .unwrap();
    };
    let bond = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\"]\nmiimon = 100\n";
    fs::write(files.join("20-bond0.toml"), bond).unwrap();

    // The bonds come up without a group that does not exist.
    agent_file("netadmin");
    for (groups, said) in [
        ("xbond:x:4711:\n", "netadmin: no such group"),
        ("netadmin:x:4712:\n", "xbond: no such group, and writers have to be in it, too, to reach the agent"),
    ] {
        fs::write(etc.path().join("group"), groups).unwrap();
        let agent = Xbond::start_as(host, with_etc(host, etc.path(), "run")).unwrap();
        let said = format!("only root may change bonds: /etc/xbond/10-agent.toml:3: {said}");
        agent.wait_for(&said).unwrap();
        agent.wait_for("bond0 ready").unwrap();
        fs::write(etc.path().join("group"), "xbond:x:4711:\nnetadmin:x:4712:\n").unwrap();
        agent.wait_for("root and members of group netadmin may change bonds").unwrap();
        agent.stop().unwrap();
    }

    fs::write(etc.path().join("group"), "xbond:x:4711:\nnetadmin:x:4712:\nwheel:x:4713:\n").unwrap();
    let agent = Xbond::start_as(host, with_etc(host, etc.path(), "run")).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    let found = fs::symlink_metadata(socket(host)).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o660, 0, 4711));
    let denied = |sentence: &str| format!(r#"{{"error":"{sentence}","kind":"denied"}} 403"#);
    let changed = r#"{"notes":[]} 200"#;
    let reader = "--reuid=65534 --regid=65534 --groups=4711";
    let primary = "--reuid=65534 --regid=4711 --clear-groups";
    let writer = "--reuid=65534 --regid=65534 --groups=4711,4712";
    let groups: String = (5000..5100).map(|group| format!("{group},")).collect();
    let in_many = format!("--reuid=65534 --regid=65534 --groups={groups}4711");
    for ids in [reader, primary, writer, "--reuid=0", &in_many] {
        assert!(ask_as(host, ids, &[BONDS]).ends_with(" 200"), "{ids}");
    }
    let not_a_writer = denied("only root and members of group netadmin may change bonds");
    for ids in [reader, primary] {
        assert_eq!(ask_as(host, ids, &CHANGE), not_a_writer, "{ids}");
        assert_eq!(ask_as(host, ids, &["--request", "DELETE", "http://xbond/v1/bonds/bond0"]), not_a_writer);
    }
    assert_eq!(ask_as(host, writer, &CHANGE), changed);
    assert_eq!(show(&agent)["options"]["num_grat_arp"], 3);

    // The file mode excludes others; if it did not, the agent would.
    let nobody = "--reuid=65534 --regid=65534 --clear-groups";
    assert!(ask_as(host, nobody, &[BONDS]).contains("000"), "connected");
    fs::set_permissions(socket(host), fs::Permissions::from_mode(0o666)).unwrap();
    let stranger = denied("only root and members of group xbond may use this socket");
    assert_eq!(ask_as(host, nobody, &[BONDS]), stranger);
    assert_eq!(ask_as(host, nobody, &CHANGE), not_a_writer);
    assert_eq!(ask_as(host, "--reuid=65534 --regid=0 --clear-groups", &[BONDS]), stranger);

    // The files can name the group of writers, too.
    agent_file("wheel");
    assert_eq!(
        xbond(host, "reload"),
        "root and members of group wheel may change bonds\nbond0: num_grat_arp=1 (was 3)\n"
    );
    let not_a_writer = denied("only root and members of group wheel may change bonds");
    assert_eq!(ask_as(host, writer, &CHANGE), not_a_writer);
    agent_file("nosuch");
    assert_eq!(xbond(host, "reload"), "xbond: /etc/xbond/10-agent.toml:3: nosuch: no such group\n? 2\n");
    assert_eq!(ask_as(host, writer, &CHANGE), not_a_writer);
    agent.stop().unwrap();

    // The command line wins.
    let agent = Xbond::start_as(host, with_etc(host, etc.path(), "run --writers netadmin")).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    assert_eq!(ask_as(host, writer, &CHANGE), changed);
    agent.stop().unwrap();
}

/// The command of a systemd unit with User= and AmbientCapabilities=: nothing to mount, and no ownership to change.
const UNPRIVILEGED: &str = r#"
    set -e
    mount -t bpf bpf /sys/fs/bpf
    chmod 711 /sys/fs/bpf
    mkdir -m 700 /sys/fs/bpf/xbond
    mkdir -p /run/xbond
    mount -t tmpfs -o mode=755 tmpfs /run/xbond
    chown 65534:65534 /sys/fs/bpf/xbond /run/xbond
    caps=+net_admin,+net_raw,+bpf,+perfmon
    exec /bin/setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all,$caps \
        --inh-caps=-all,$caps --ambient-caps=-all,$caps "$@"
"#;

#[test]
fn an_agent_needs_no_root() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    // In a directory that every user may read.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("xbond");
    fs::copy(binary().unwrap(), &copy).unwrap();
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", UNPRIVILEGED, "sh"]).arg(&copy).arg("run").args(words(BOND0));
    let agent = Xbond::start_as(host, command).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    meet(&lab);

    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39.
    let kept = format!("{:016x}", 1_u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39);
    let none = format!("{:016x}", 0);
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    for task in tasks.map(|task| task.unwrap().path()) {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let line = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        assert_eq!(line("Uid:"), "Uid:\t65534\t65534\t65534\t65534");
        for (set, wanted) in
            [("CapEff", &kept), ("CapPrm", &kept), ("CapBnd", &kept), ("CapInh", &none), ("CapAmb", &none)]
        {
            assert_eq!(line(set), format!("{set}:\t{wanted}"));
        }
    }

    let inside = |line: &str| {
        let pid = agent.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount", "--net"]).arg(binary().unwrap()).args(words(line));
        transcript(&mut command)
    };
    assert_eq!(inside("set bond0 miimon=50"), "");
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    common::eventually(
        "the failover",
        || inside("show bond0"),
        |shown| shown.contains("active slave enp0s9"),
    );
    meet(&lab);
    assert_eq!(inside("down bond0"), "");
    assert_eq!(inside(&format!("add {BOND0}")), READY.replace("enp0s8", "enp0s9"));
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    agent.stop().unwrap();
    before.assert_holds(host, "an agent without root");
}

/// Returns the bytes of a request that a correct client could send.
fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: xbond\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How a connected peer misbehaves.
type Misbehaviour = fn(&mut UnixStream);

const HALF_A_BODY: usize = 2;

const MISBEHAVIOURS: [Misbehaviour; 6] = [
    // Sends nothing.
    |_| {},
    // Sends half a request.
    |peer| drop(peer.write_all(b"GET /v1/bonds HTTP/1.1\r\nHost: x")),
    |peer| {
        drop(peer.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"));
    },
    // Never reads the answer.
    |peer| drop(peer.write_all(b"GET /v1/bonds HTTP/1.1\r\nHost: x\r\n\r\n")),
    // Sends a head without an end.
    |peer| drop(peer.write_all(&[b'x'; 1 << 15])),
    // Sends random bytes.
    |peer| drop(peer.write_all(&[0xff; 4096])),
];

/// What happened to peers that sent half a body.
#[derive(Debug, Default)]
struct Ends {
    /// Evicted for another peer.
    evicted: usize,
    /// Kept their connection until their time was over.
    timed_out: usize,
    /// Refused.
    refused: usize,
    waiting: usize,
}

impl Ends {
    /// Counts the ends. It only peeks: what was received can be received again.
    fn of<'a>(peers: impl IntoIterator<Item = &'a UnixStream>) -> Self {
        use nix::sys::socket::{MsgFlags, recv};
        let mut ends = Self::default();
        for peer in peers {
            let mut status = [0; 12];
            let received = recv(std::os::fd::AsRawFd::as_raw_fd(peer), &mut status, MsgFlags::MSG_PEEK);
            let end = match received {
                Err(nix::errno::Errno::EAGAIN) => &mut ends.waiting,
                Ok(12) if status.ends_with(b"408") => &mut ends.timed_out,
                Ok(12) => &mut ends.refused,
                _ => &mut ends.evicted,
            };
            *end += 1;
        }
        ends
    }

    /// Asserts that slow peers were evicted for others, however long a busy machine takes for that. If they kept
    /// their connections, each would have its place until its time is over.
    #[track_caller]
    fn assert_gave_way(&self) {
        assert!(self.evicted > self.timed_out && self.evicted > 0, "{self:?}");
    }
}

/// Cuts the active slave. Returns the time to the switch.
fn fail_over(lab: &Lab, from: &str, to: &str) -> Duration {
    use nix::time::{ClockId, clock_gettime};
    let start = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
    lab.cut(from, Cut::Carrier).unwrap();
    // The command reads a file: it uses no connection.
    let last = || {
        let log: serde_json::Value =
            serde_json::from_str(&cli(&lab.host, ["log", "bond0", "-j"]).unwrap()).unwrap();
        log["receipts"].as_array().unwrap().last().unwrap().clone()
    };
    let receipt = common::eventually("the receipt", last, |receipt| receipt["to"] == to);
    let switched = Duration::from_micros(receipt["monotonic_us"].as_u64().unwrap());
    switched.checked_sub(start).unwrap()
}

#[test]
fn hostile_peers_delay_no_other_request() {
    skip_if_unable!();
    let _alone = common::alone();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    let agent = Xbond::run(host, words(BOND0)).unwrap();
    meet(&lab);
    let undisturbed = fail_over(&lab, "enp0s8", "enp0s9");
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    common::wait_for_status(&agent, "enp0s8", "up");
    let path = socket(host);
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 12_000, 12_000).unwrap();
    let mut all = Vec::new();
    let mut turned_away = 0;
    let ends = |all: &[(usize, UnixStream)]| {
        Ends::of(all.iter().filter(|(kind, _)| *kind == HALF_A_BODY).map(|(_, peer)| peer))
    };
    for number in 0..10_000 {
        // The first peers are of every kind, and wait. None of the others waits for a connection.
        let Some(mut peer) = connect(&path) else {
            turned_away += 1;
            continue;
        };
        let kind = number % MISBEHAVIOURS.len();
        MISBEHAVIOURS[kind](&mut peer);
        all.push((kind, peer));
        if number % 2_500 == 2_499 {
            let start = Instant::now();
            let shown = xbond(host, "show bond0");
            assert!(shown.contains("active slave"), "{shown}");
            let ends = ends(&all);
            println!("{} peers, {turned_away} turned away, show: {:?}, {ends:?}", all.len(), start.elapsed());
            ends.assert_gave_way();
            let open = fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count();
            assert!(open < 500, "{open} descriptors");
        }
    }
    let disturbed = fail_over(&lab, "enp0s9", "enp0s8");
    println!("failover among {} peers: {disturbed:?}, without them: {undisturbed:?}", all.len());
    assert!(disturbed < (undisturbed * 20).max(Duration::from_secs(1)), "{disturbed:?} {undisturbed:?}");
    wait_for_active(&agent, "enp0s8");
    assert_eq!(xbond(host, "set bond0 miimon=50"), "");
    ends(&all).assert_gave_way();
    drop(all);
    agent.stop().unwrap();
}

#[test]
fn slow_peers_are_answered_and_listeners_leave_connections_free() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    let agent = Xbond::run(host, words(BOND0)).unwrap();
    let path = socket(host);
    // A slow peer gets an answer, or is disconnected, within a few seconds; others are answered in the meantime.
    let mut slow = UnixStream::connect(&path).unwrap();
    slow.write_all(b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{").unwrap();
    let mut silent = UnixStream::connect(&path).unwrap();
    assert_eq!(xbond(host, "set bond0 miimon=100"), "");
    let mut answer = String::new();
    slow.set_read_timeout(Some(xbond_tests::WAIT_LIMIT)).unwrap();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.ends_with(
            r#"{"error":"the request did not come to its end within 5 seconds","kind":"too_slow"}"#
        ),
        "{answer}"
    );
    silent.set_read_timeout(Some(xbond_tests::WAIT_LIMIT)).unwrap();
    let mut nothing = Vec::new();
    let _ = silent.read_to_end(&mut nothing);
    assert_eq!(String::from_utf8_lossy(&nothing), "");

    // Listeners for events, which never end, leave connections for others.
    let listening: Vec<_> = (0..150)
        .map(|_| {
            let mut peer = UnixStream::connect(&path).unwrap();
            peer.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            let mut status = [0; 12];
            peer.read_exact(&mut status).unwrap();
            (String::from_utf8_lossy(&status).into_owned(), peer)
        })
        .collect();
    let reported = |status: &str| listening.iter().filter(|(said, _)| said.ends_with(status)).count();
    assert_eq!((reported("200"), reported("503")), (64, 86));
    assert_eq!(xbond(host, "set bond0 miimon=50"), "");
    drop(listening);
    let mut listens = host.command("curl");
    listens.args(["--silent", "--max-time", "0.3", "--unix-socket"]).arg(&path).arg("http://xbond/v1/events");
    let ask = std::cell::RefCell::new(listens);
    common::eventually("a place", || transcript(&mut ask.borrow_mut()), |said| said.contains("active_slave"));

    agent.stop().unwrap();
}

#[test]
fn requests_cannot_set_what_is_for_files_and_are_carried_out_without_their_peer() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    let agent = Xbond::run(host, words(BOND0)).unwrap();
    let path = socket(host);
    let toml = r#"{"toml":"version = 1\n[agent]\nwriters = \"users\"\n"}"#;
    let mut answer = String::new();
    let mut peer = UnixStream::connect(&path).unwrap();
    peer.write_all(&post("/v1/bonds", toml)).unwrap();
    peer.read_to_string(&mut answer).unwrap();
    let said = r#"{"error":"the request:3: writers is for the files that an agent is started with","kind":"refused"}"#;
    assert!(answer.starts_with("HTTP/1.1 422 ") && answer.ends_with(said), "{answer}");

    // A client that requests a change and disconnects: once the agent has received it, the change is completed.
    let leave = || {
        let mut leaves = UnixStream::connect(&path).unwrap();
        let toml = r#"{"toml":"version = 1\n[bond.bond1]\nmiimon = 100\n"}"#;
        leaves.write_all(&post("/v1/bonds", toml)).unwrap();
        // The agent begins it during this time: it does not begin a change whose client has disconnected before.
        thread::sleep(Duration::from_millis(50));
        drop(leaves);
        xbond(host, "show bond1")
    };
    common::eventually("bond1", leave, |shown| shown.contains("bond1: active slave none"));
    agent.cli(["down", "bond1"]).unwrap();
    assert!(host.link("bond1").is_err());
    agent.stop().unwrap();
}

/// Connects; returns `None` if the agent does not accept the connection for some time.
fn connect(path: &Path) -> Option<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    let address = UnixAddr::new(path).unwrap();
    for _ in 0..3 {
        if connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &address).is_ok() {
            return Some(fd.into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

#[test]
fn a_change_whose_client_disconnected_before_it_began_is_not_made() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let line = words("--bond bond0 --slave enp0s8 --slave enp0s9 -o miimon=100");
    let agent = Xbond::run(&lab.host, line).unwrap();
    for _ in 0..20 {
        agent.pause().unwrap();
        let mut leaves = UnixStream::connect(socket(&lab.host)).unwrap();
        leaves.write_all(b"DELETE /v1/bonds/bond0 HTTP/1.1\r\nhost: xbond\r\n\r\n").unwrap();
        drop(leaves);
        agent.signal(Signal::SIGCONT).unwrap();
        // Its answer arrives after that of the request that started before it.
        let shown = xbond(&lab.host, "show bond0");
        assert!(shown.contains("bond0: active slave enp0s8"), "{shown}");
    }
    agent.stop().unwrap();
}

#[test]
fn a_terminating_agent_finishes_started_requests() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    for place in 0..6 {
        let files = Files::new();
        files.write("none.toml", "version = 1\n");
        let mut agent = files.run(&lab);
        let path = socket(host);
        let body =
            r#"{"toml":"version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n"}"#;
        UnixStream::connect(&path).unwrap().write_all(&post("/v1/bonds", body)).unwrap();
        thread::sleep(Duration::from_millis(20 * place));
        agent.signal(Signal::SIGTERM).unwrap();
        assert!(agent.wait().unwrap().success(), "{}", agent.log());
        before.assert_holds(host, &format!("SIGTERM {place} steps after a bond was asked for"));
    }
    assert!(cli(host, ["show"]).unwrap().starts_with("no bonds, and no agent runs"));
}

/// The status and the body of the answer to a request.
fn answer_to(path: &Path, request: &[u8]) -> String {
    let mut peer = UnixStream::connect(path).unwrap();
    peer.write_all(request).unwrap();
    peer.set_read_timeout(Some(xbond_tests::WAIT_LIMIT)).unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", head.split(' ').nth(1).unwrap())
}

#[test]
fn requests_are_bounded_and_do_not_hold_up_others() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    let agent = Xbond::run(host, words(BOND0)).unwrap();
    let path = socket(host);
    let bonds = |toml: &str| post("/v1/bonds", &serde_json::json!({ "toml": toml }).to_string());
    let set = |pairs: &[(&str, &str)]| {
        post("/v1/bonds/bond0/options", &serde_json::json!({ "set": pairs }).to_string())
    };

    let begun = Instant::now();
    let long = bonds(&format!("version = 1\n[bond.bond1]\n{} = 1", "x".repeat(60_000)));
    let others: Vec<_> = (0..4)
        .map(|_| (path.clone(), long.clone()))
        .map(|(path, long)| thread::spawn(move || answer_to(&path, &long)))
        .collect();
    for answer in others.into_iter().map(|other| other.join().unwrap()) {
        assert!(answer.starts_with("422 ") && answer.contains("xxx...: no such key"), "{answer}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());

    let many: String = (0..65).map(|bond| format!("[bond.b{bond}]\nmiimon = 100\n")).collect();
    let answer = answer_to(&path, &bonds(&format!("version = 1\n{many}")));
    assert!(
        answer.starts_with("422 ") && answer.contains("65 bonds, and one request at most 64"),
        "{answer}"
    );
    let answer = answer_to(&path, &set(&[("updelay", "120"); 65]));
    assert!(
        answer.starts_with("422 ") && answer.contains("65 options, and one request at most 64"),
        "{answer}"
    );
    assert_eq!(agent.show("bond0").unwrap()["bonds"].as_array().unwrap().len(), 1);

    // What is set to the value that it has is not logged.
    let begin = agent.log().len();
    let answer = answer_to(&path, &set(&[("updelay", "120"); 64]));
    assert!(answer.starts_with("200 "), "{answer}");
    assert!(answer_to(&path, &set(&[("updelay", "100"); 64])).starts_with("200 "));
    agent.set("bond0", "downdelay=300").unwrap();
    agent.wait_for_after(begin, "downdelay=300").unwrap();
    let log = agent.log()[begin..].to_owned();
    assert_eq!(log.matches("updelay=100").count(), 1, "{log}");
    refuses_unknown(host);
    agent.stop().unwrap();
}

fn refuses_unknown(host: &NetNs) {
    assert_eq!(
        xbond(host, "set bond0 dampin=off"),
        "xbond: dampin: no such option; did you mean damping?\n? 2\n"
    );
}
