//! States between two steps: a full disk, a damaged record, devices that were renamed or moved, few open files. Each
//! ends in the requested state or in the state before, and the advice of an error message works.

mod common;
mod snapshot;

use std::{fs, path::PathBuf, process::Output};

use common::{BOND, SLAVES, concurrently, eventually, meet, show};
use snapshot::Snapshot;
use tempfile::NamedTempFile;
use xbond_tests::{
    HOST_V4, Lab, NetNs, Xbond, skip_if_unable,
    xbond::{binary, cli},
};

fn host() -> Lab {
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    lab.host.ip("link set enp0s9 mtu 1400").unwrap();
    lab
}

/// Writes a file that describes bond0 with both slaves.
fn file() -> NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let text = format!(
        "version = 1\n[bond.{BOND}]\nslaves = {SLAVES:?}\nmiimon = 100\naddresses = [\"{HOST_V4}/24\"]\n"
    );
    fs::write(file.path(), text).unwrap();
    file
}

fn run<'lab>(lab: &'lab Lab, file: &NamedTempFile) -> Xbond<'lab> {
    Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap()
}

fn run_directory(host: &NetNs) -> PathBuf {
    ["/run/xbond", &host.cookie().unwrap().to_string(), BOND].iter().collect()
}

fn slaves(xbond: &Xbond<'_>) -> Vec<String> {
    let bond = show(xbond);
    let slaves = bond["slaves"].as_array().unwrap().iter();
    slaves.map(|slave| slave["name"].as_str().unwrap().to_owned()).collect()
}

/// An agent that has its run directory on a small file system, in a mount namespace of its own.
struct Small<'lab> {
    agent: Xbond<'lab>,
}

/// Kills an agent when it is ready, and takes all inodes that are left.
const WITHOUT_INODES: &str = r#"
    "$0" "$@" > /run/xbond/first 2>&1 &
    until grep -q ready /run/xbond/first; do sleep 0.02; done
    kill -9 $!
    wait
    i=0
    while touch /run/xbond/fill$i; do i=$((i + 1)); done
"#;

impl<'lab> Small<'lab> {
    fn new(lab: &'lab Lab, file: &NamedTempFile) -> Self {
        Self::after("size=96k", "", lab, file)
    }

    /// Runs an agent with a file system of these options, after this script.
    fn after(options: &str, before: &str, lab: &'lab Lab, file: &NamedTempFile) -> Self {
        let mut command = lab.host.command("unshare");
        let script = format!(
            "mkdir -p /run/xbond && mount -t tmpfs -o {options} small /run/xbond || exit 1\n{before}\nexec \"$0\" \"$@\""
        );
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(binary().unwrap())
            .arg("run")
            .arg("-c")
            .arg(file.path());
        let agent = Xbond::start_as(&lab.host, command).unwrap();
        agent.wait_for("ready").unwrap();
        Self { agent }
    }

    fn fill(&self) {
        self.agent.inside("dd", &["if=/dev/zero", "of=/run/xbond/fill", "bs=1k"]).unwrap();
    }

    fn empty(&self) {
        self.agent.inside("rm", &["/run/xbond/fill"]).unwrap();
    }

    fn slaves(&self) -> Vec<String> {
        let report: serde_json::Value =
            serde_json::from_str(&self.agent.cli_inside(&["show", "-j"]).unwrap()).unwrap();
        let slaves = report["bonds"][0]["slaves"].as_array().unwrap().iter();
        slaves.map(|slave| slave["name"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn a_full_disk_refuses_additions_and_allows_removals() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = host();
    let before = lab.host.link("enp0s9").unwrap();
    let file = file();
    let small = Small::new(&lab, &file);
    small.fill();
    small.agent.cli_inside(&["del-slave", BOND, "enp0s9"]).unwrap();
    assert_eq!(small.slaves(), ["enp0s8"]);
    small.fill();
    let released = lab.host.link("enp0s9").unwrap();
    for _ in 0..2 {
        let error = small.agent.cli_inside(&["add-slave", BOND, "enp0s9"]).unwrap_err();
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(small.slaves(), ["enp0s8"]);
        assert_eq!(lab.host.link("enp0s9").unwrap().mac, released.mac);
    }
    // An interface that is a slave can vanish; a failover and other verbs need no space.
    small.agent.cli_inside(&["set", BOND, "miimon=200"]).unwrap();
    small.empty();
    small.agent.cli_inside(&["add-slave", BOND, "enp0s9"]).unwrap();
    assert_eq!(small.slaves(), SLAVES);
    small.fill();
    small.agent.cli_inside(&["down", BOND]).unwrap();
    let after = lab.host.link("enp0s9").unwrap();
    assert_eq!((after.mac, after.mtu), (before.mac, before.mtu));
    small.fill();
    let reloaded = small.agent.cli_inside(&["reload"]).unwrap_err();
    assert!(reloaded.contains("No space left on device"), "{reloaded}");
    assert!(lab.host.link("bond0-port").is_err(), "a bond that cannot be recorded is not made");
    small.empty();
    small.agent.cli_inside(&["reload"]).unwrap();
    assert_eq!(small.slaves(), SLAVES);
    small.agent.stop().unwrap();
}

#[test]
fn an_agent_adopts_its_bond_on_a_file_system_without_inodes() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    let small = Small::after("nr_inodes=40", WITHOUT_INODES, &lab, &file);
    let log = small.agent.log();
    assert!(log.contains("adopted, with enp0s8, enp0s9"), "{log}");
    small.agent.cli_inside(&["set", BOND, "active_slave=enp0s9"]).unwrap();
    meet(&lab);
    small.agent.cli_inside(&["del-slave", BOND, "enp0s8"]).unwrap();
    let error = small.agent.cli_inside(&["add-slave", BOND, "enp0s8"]).unwrap_err();
    assert!(error.contains("No space left on device"), "{error}");
    assert_eq!(small.slaves(), ["enp0s9"]);
    small.agent.cli_inside(&["down", BOND]).unwrap();
    small.agent.stop().unwrap();
}

/// Returns the commands in a message that the administrator has to run.
fn commands(sentence: &str) -> Vec<String> {
    let (_, commands) = sentence.split_once("to do: ").unwrap_or_else(|| panic!("no commands in {sentence}"));
    let (commands, _) = commands.split_once(", and restore their").unwrap();
    commands.split("; ").map(str::to_owned).collect()
}

#[test]
fn the_advice_for_a_damaged_record_works() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    for damage in ["", "{\"version\": 2, \"bond\"", "[]", "\u{0}\u{0}"] {
        run(&lab, &file).kill().unwrap();
        fs::write(run_directory(&lab.host).join("found.json"), damage).unwrap();
        let mut second = Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
        assert_eq!(second.wait().unwrap().code(), Some(2), "{}", second.log());
        assert!(second.log().contains("xbond down bond0 --force"), "{}", second.log());
        let shown = cli(&lab.host, ["show"]).unwrap();
        assert!(shown.contains("found.json") && shown.contains("xbond down bond0 --force"), "{shown}");
        let error = cli(&lab.host, ["down", BOND, "--force"]).unwrap_err().to_string();
        for command in commands(&error) {
            lab.host.exec(&command).unwrap();
        }
        let links = lab.host.ip("-d link").unwrap();
        assert!(!links.contains("-clk") && !links.contains("xbond:"), "{links}");
        let third = run(&lab, &file);
        meet(&lab);
        third.stop().unwrap();
    }
}

#[test]
fn a_failed_restore_stays_recorded_until_it_succeeds() {
    skip_if_unable!();
    let lab = host();
    let (file, record) = (file(), run_directory(&lab.host).join("found.json"));
    let source = |verb: &str| lab.host.ip(&format!("address {verb} 10.88.0.1/32 dev lo")).unwrap();
    source("add");
    lab.host.ip("link set enp0s9 up alias uplink").unwrap();
    snapshot::await_ipv6(&lab.host, "enp0s9");
    lab.host.ip("route add 40.0.0.0/8 dev enp0s9 src 10.88.0.1").unwrap();
    let before = Snapshot::of(&lab.host);
    run(&lab, &file).kill().unwrap();
    // The kernel refuses a route if its source address is missing.
    source("del");
    for _ in 0..2 {
        let error = cli(&lab.host, ["down", BOND, "--force"]).unwrap_err().to_string();
        for part in [
            "not restored: enp0s9: restore route 40.0.0.0/8",
            "xbond down bond0 --force",
            "rm -r /run/xbond/",
        ] {
            assert!(error.contains(part), "{error}");
        }
        let kept = fs::read_to_string(&record).unwrap();
        assert!(kept.contains("enp0s9") && !kept.contains("enp0s8"), "{kept}");
    }
    let mut second = Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(2), "{}", second.log());
    assert!(second.log().contains("restore route 40.0.0.0/8"), "{}", second.log());
    assert!(!second.log().contains("an agent was stopped"), "{}", second.log());
    source("add");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    before.assert_holds(&lab.host, "restored at last");
    assert!(!record.exists());
}

/// Runs a line as a person does who copies it into a shell.
fn in_a_shell(host: &NetNs, line: &str) -> Output {
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", binary().unwrap().parent().unwrap().display());
    host.command("sh").args(["-c", line]).env("PATH", path).output().unwrap()
}

#[test]
fn the_advice_works_with_names_that_a_shell_would_expand() {
    skip_if_unable!();
    let lab = host();
    let (bond, slaves) = ("b$PWD;'x\"", ["a$(id)", "`id`&\\"]);
    for (name, slave) in SLAVES.iter().zip(slaves) {
        let mut rename = lab.host.command("ip");
        rename.args(["link", "set", name, "down", "name", slave]);
        assert!(rename.status().unwrap().success());
    }
    let before = Snapshot::of(&lab.host);
    let arguments = [
        "--bond",
        bond,
        "--slave",
        slaves[0],
        "--slave",
        slaves[1],
        "-o",
        "miimon=100",
        "-o",
        "fail_over_mac=none",
    ];
    for damaged in [false, true] {
        let directory = run_directory(&lab.host).with_file_name(bond);
        Xbond::run(&lab.host, arguments).unwrap().kill().unwrap();
        if damaged {
            fs::write(directory.join("found.json"), "").unwrap();
        }
        let refused = cli(&lab.host, ["down", bond]).unwrap_err().to_string();
        let (_, advised) = refused.trim().split_once("without one: ").unwrap();
        let output = in_a_shell(&lab.host, advised);
        assert_eq!(output.status.success(), !damaged, "{output:?}");
        if damaged {
            let error = String::from_utf8(output.stderr).unwrap();
            for command in commands(&error) {
                let output = in_a_shell(&lab.host, &command);
                assert!(output.status.success(), "{command}: {output:?}");
            }
        } else {
            before.assert_holds(&lab.host, advised);
        }
    }
}

#[test]
fn a_renamed_port_is_deleted_and_a_foreign_device_of_its_name_is_not() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    let before = Snapshot::of(&lab.host);
    for is_killed in [false, true] {
        let agent = run(&lab, &file);
        lab.host.ip("link set bond0-port name other").unwrap();
        lab.host.ip("link add bond0-port type veth peer name stranger").unwrap();
        if is_killed {
            agent.kill().unwrap();
            cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        } else {
            agent.stop().unwrap();
        }
        assert!(lab.host.link("other").is_err(), "the port is gone");
        lab.host.link("stranger").unwrap();
        lab.host.ip("link delete bond0-port").unwrap();
        before.assert_holds(&lab.host, &format!("killed: {is_killed}"));
    }
}

#[test]
fn an_agent_with_few_open_files_works_or_reports_it() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    let before = Snapshot::of(&lab.host);
    for files in [6, 10, 14, 20, 32, 48, 64, 96, 128, 192] {
        let mut command = lab.host.command("prlimit");
        command.arg(format!("--nofile={files}:{files}")).arg(binary().unwrap());
        command.arg("run").arg("-c").arg(file.path());
        let mut agent = Xbond::start_as(&lab.host, command).unwrap();
        if agent.wait_for("ready").is_ok() {
            meet(&lab);
            agent.stop().unwrap();
        } else {
            let log = agent.log();
            assert_eq!(agent.wait().unwrap().code(), Some(2), "{files} files: {log}");
            assert!(log.contains("ulimit -n") && !log.contains("panicked"), "{files} files: {log}");
        }
        before.assert_holds(&lab.host, &format!("{files} files"));
    }
}

/// Moves a slave to another namespace and back, where another interface has its ifindex by then.
fn send_away_and_back(lab: &Lab, slave: &str) {
    let ifindex = lab.host.link(slave).unwrap().ifindex;
    lab.host.ip(&format!("link set {slave} netns {}", lab.peer.name())).unwrap();
    lab.host.ip(&format!("link add filler index {ifindex} type veth peer name refill")).unwrap();
    lab.peer.ip(&format!("link set {slave} netns {}", lab.host.name())).unwrap();
    assert_ne!(lab.host.link(slave).unwrap().ifindex, ifindex);
}

#[test]
fn a_slave_that_returns_with_another_ifindex_rejoins_and_is_restored_at_the_end() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    let observe = || lab.host.link("enp0s9").map(|link| (link.mac, link.mtu, link.flags)).unwrap();
    let before = observe();
    let back = |what: &str| {
        lab.host.ip("link delete filler").unwrap();
        assert_eq!(observe(), before, "{what}");
        assert!(lab.host.link(BOND).is_err() && !run_directory(&lab.host).exists(), "{what}");
    };
    let agent = run(&lab, &file);
    let log = agent.log().len();
    send_away_and_back(&lab, "enp0s9");
    agent.wait_for_after(log, "enp0s9: enslaved").unwrap();
    eventually("it is a slave again", || slaves(&agent), |slaves| slaves == &SLAVES);
    agent.stop().unwrap();
    back("away while the agent ran");

    run(&lab, &file).kill().unwrap();
    send_away_and_back(&lab, "enp0s9");
    let next = run(&lab, &file);
    eventually("it is a slave again", || slaves(&next), |slaves| slaves == &SLAVES);
    next.stop().unwrap();
    back("away while no agent ran, then adopted");

    run(&lab, &file).kill().unwrap();
    send_away_and_back(&lab, "enp0s9");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    back("away while no agent ran, then xbond down --force");
}

#[test]
fn a_slave_that_returns_after_its_bond_was_removed_is_restored() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    lab.host.ip("link set enp0s9 alias uplink").unwrap();
    let observe = || {
        let link = lab.host.link("enp0s9").unwrap();
        let text = lab.host.ip("-o link show enp0s9").unwrap();
        (link.mac, link.mtu, link.flags, text.contains("alias uplink"))
    };
    let before = observe();
    for by_agent in [true, false] {
        let agent = run(&lab, &file);
        let leave = || lab.host.ip(&format!("link set enp0s9 netns {}", lab.peer.name())).unwrap();
        let agent = if by_agent {
            leave();
            agent.cli(["down", BOND]).unwrap();
            Some(agent)
        } else {
            agent.kill().unwrap();
            leave();
            cli(&lab.host, ["down", BOND, "--force"]).unwrap();
            None
        };
        let ifindex = lab.peer.link("enp0s9").unwrap().ifindex;
        lab.host.ip(&format!("link add filler index {ifindex} type veth peer name refill")).unwrap();
        lab.peer.ip("link set enp0s9 name wanderer").unwrap();
        lab.peer.ip(&format!("link set wanderer netns {}", lab.host.name())).unwrap();
        lab.host.ip("link delete filler").unwrap();
        if let Some(agent) = agent {
            agent.wait_for("wanderer: returned, and is no slave of bond0 any more; restored").unwrap();
            agent.stop().unwrap();
        } else {
            let said = lab.host.command(binary().unwrap()).args(["doctor", "wanderer"]).output().unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            assert!(said.contains("wanderer was a slave of bond0") && said.contains("alias ''"), "{said}");
            run(&lab, &file).stop().unwrap();
        }
        lab.host.ip("link set wanderer name enp0s9").unwrap();
        assert_eq!(observe(), before, "by the agent: {by_agent}");
    }
}

#[test]
fn a_bond_that_vanishes_with_a_container_is_recreated() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    let agent = run(&lab, &file);
    let container = format!("{}-c", lab.host.name());
    let vanish = || {
        let namespace = NetNs::create(&container).unwrap();
        lab.host.ip(&format!("link set {BOND} netns {container}")).unwrap();
        namespace
    };
    drop(vanish());
    agent.wait_for("bond0: recreated").unwrap();
    meet(&lab);
    assert_eq!(slaves(&agent), SLAVES);

    // Another interface has its name: the slave is reported as gone until the name is free.
    let namespace = vanish();
    lab.host.ip(&format!("link add {BOND} type veth peer name squatter")).unwrap();
    drop(namespace);
    let gone = "its device was deleted with its network namespace";
    let shown = || cli(&lab.host, ["show"]).unwrap();
    eventually("it is reported", shown, |shown| shown.contains(gone) && shown.contains("exists already"));
    let error = cli(&lab.host, ["show", BOND]).unwrap_err().to_string();
    assert!(error.contains(gone), "{error}");
    lab.host.ip("link delete squatter").unwrap();
    eventually("it is there again", || cli(&lab.host, ["show", BOND]).is_ok(), |is_there| *is_there);
    meet(&lab);
    agent.stop().unwrap();
}

#[test]
fn show_lists_the_bonds_of_every_namespace() {
    skip_if_unable!();
    let labs = [host(), host()];
    let file = file();
    let agent = run(&labs[0], &file);
    run(&labs[1], &file).kill().unwrap();
    let text = cli(&labs[0].peer, ["show", "--all-netns"]).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(&cli(&labs[0].peer, ["show", "--all-netns", "-j"]).unwrap()).unwrap();
    let namespaces = json["namespaces"].as_array().unwrap();
    for (lab, source) in labs.iter().zip(["agent", "maps"]) {
        let name = lab.host.name();
        assert!(text.contains(&format!("network namespace {name}:")), "{text}");
        let found = namespaces.iter().find(|namespace| namespace["netns"] == name).unwrap();
        assert_eq!(found["cookie"], lab.host.cookie().unwrap());
        assert_eq!(found["report"]["source"], source);
        assert_eq!(found["report"]["bonds"][0]["name"], BOND);
    }
    assert!(!namespaces.iter().any(|namespace| namespace["netns"] == labs[0].peer.name()));
    agent.stop().unwrap();
    cli(&labs[1].host, ["down", BOND, "--force"]).unwrap();
}

/// The files of the whole network namespace, before the agent has seen that they are gone.
#[test]
fn an_agent_whose_files_were_removed_ends_and_obeys_as_usual() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    let text = fs::read_to_string(file.path()).unwrap();
    fs::write(file.path(), format!("{text}on_exit = \"keep\"\n")).unwrap();
    let before = Snapshot::of(&lab.host);
    for is_asked in [false, true] {
        let agent = run(&lab, &file);
        // The agent may write one of its files again in between.
        let directory = run_directory(&lab.host);
        while fs::remove_dir_all(directory.parent().unwrap()).is_err() {}
        if is_asked {
            agent.cli(["down", BOND]).unwrap();
            agent.stop().unwrap();
        } else {
            agent.stop().unwrap();
            cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        }
        before.assert_holds(&lab.host, &format!("asked: {is_asked}"));
    }
}

#[test]
fn a_slave_that_is_elsewhere_is_named_when_its_bond_is_removed() {
    skip_if_unable!();
    let lab = host();
    let file = file();
    let (host, peer) = (lab.host.name(), lab.peer.name());
    let observe = |netns: &NetNs| netns.link("enp0s9").map(|link| (link.mac, link.mtu)).unwrap();
    let before = observe(&lab.host);
    for is_killed in [false, true] {
        let agent = run(&lab, &file);
        lab.host.ip(&format!("link set enp0s9 netns {peer}")).unwrap();
        assert_ne!(observe(&lab.peer), before);
        let mut down = lab.host.command(binary().unwrap());
        down.args(["down", BOND]);
        let agent = if is_killed {
            agent.kill().unwrap();
            down.arg("--force");
            None
        } else {
            Some(agent)
        };
        let output = down.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.contains("enp0s9: not in this network namespace"), "{text}");
        let (_, command) = text.trim().split_once("To restore it there: ").unwrap();
        let output = in_a_shell(&lab.peer, command);
        assert!(output.status.success(), "{command}: {output:?}");
        assert_eq!(observe(&lab.peer), before, "killed: {is_killed}");
        lab.peer.ip(&format!("link set enp0s9 netns {host}")).unwrap();
        drop(agent.map(|agent| agent.stop().unwrap()));
    }
}
