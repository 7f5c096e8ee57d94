//! `xbond gc`, and the collection of a starting agent: the remains of network namespaces that have ended are removed,
//! and nothing else. Everything is in /run/xbond and on a bpffs of the test's own mount namespace.

mod common;

use std::{
    fs,
    os::unix::fs::{chown, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use common::{BOND, concurrently, eventually};
use serde_json::Value;
use xbond_tests::{NetNs, Xbond, netns::unique_stem, skip_if_unable, xbond::binary};

/// A mount namespace with an empty /run/xbond and an empty bpffs, which lives as long as its process.
struct Paths {
    process: Child,
}

impl Paths {
    fn new() -> Self {
        let script = "mkdir -p /run/xbond && mount -t tmpfs -o mode=755 xbond /run/xbond && \
                      mount -t bpf -o mode=700 bpf /sys/fs/bpf && echo ready && exec sleep infinity";
        let mut process = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        let mut output = std::io::BufReader::new(process.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        Self { process }
    }

    /// Returns the path by which this process reaches a path in that namespace.
    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.process.id()))
    }

    fn run(&self, name: &str) -> PathBuf {
        self.path("/run/xbond").join(name)
    }

    fn pins(&self, name: &str) -> PathBuf {
        self.path("/sys/fs/bpf/xbond").join(name)
    }

    /// Returns the command `xbond ARGUMENTS` in a network namespace, with these directories.
    fn xbond(&self, netns: &NetNs, arguments: &[&str]) -> Command {
        let mut command = netns.command("nsenter");
        command.args(["--mount", "--target", &self.process.id().to_string()]);
        command.arg(binary().unwrap()).args(arguments);
        command
    }

    /// Starts an agent with one bond that has a veth as its slave.
    fn agent<'netns>(&self, netns: &'netns NetNs) -> Xbond<'netns> {
        let _ = netns.ip("link add s0 type veth peer name p0");
        netns.ip("link set p0 up").unwrap();
        let arguments = ["run", "--bond", BOND, "--slave", "s0", "-o", "miimon=100"];
        let agent = Xbond::start_as(netns, self.xbond(netns, &arguments)).unwrap();
        agent.wait_for("ready").unwrap();
        agent
    }

    fn gc(&self, netns: &NetNs, more: &[&str]) -> Value {
        let output = self.xbond(netns, &[&["gc", "--json"], more].concat()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Lists everything in /run/xbond and in the directory of all pins.
    fn names(&self) -> Vec<String> {
        let entries = [self.run(""), self.pins("")].into_iter().filter_map(|path| fs::read_dir(path).ok());
        let names = entries.flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Paths {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn namespace(name: &str) -> NetNs {
    NetNs::create(&format!("{}-{name}", unique_stem())).unwrap()
}

/// Removes the name of a namespace, which ends when the returned handle is dropped, if nothing else refers to it.
/// Returns its cookie, too.
fn without_name(mut netns: NetNs) -> (NetNs, u64) {
    let cookie = netns.cookie().unwrap();
    netns.keep();
    let output = Command::new("ip").args(["netns", "delete", netns.name()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    (netns, cookie)
}

fn removed(answer: &Value) -> Vec<u64> {
    answer["removed"].as_array().unwrap().iter().map(|removed| removed["cookie"].as_u64().unwrap()).collect()
}

/// Returns the reason why the directory of this name was kept.
fn why(answer: &Value, name: impl ToString) -> String {
    let name = name.to_string();
    let left = answer["left"].as_array().unwrap().iter().find(|left| {
        Path::new(left["path"].as_str().unwrap()).file_name().unwrap().to_str() == Some(name.as_str())
    });
    left.map_or("not left", |left| left["why"].as_str().unwrap()).to_owned()
}

#[test]
fn gc_collects_namespaces_that_have_ended_and_no_others() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let paths = Paths::new();
    let (alive, orphaned) = (namespace("alive"), namespace("orphaned"));
    let agent = paths.agent(&alive);
    paths.agent(&orphaned).kill().unwrap();
    let ending = |number| {
        let netns = namespace(&format!("ended{number}"));
        paths.agent(&netns).kill().unwrap();
        without_name(netns)
    };
    // Held until all agents have started: each of them collects, too.
    let (held, mut ended): (Vec<_>, Vec<_>) = (0..20).map(ending).unzip();
    ended.sort_unstable();
    drop(held);
    let here = namespace("here");
    // The kernel ends namespaces on a thread of its own.
    eventually(
        "the end of the namespaces",
        || removed(&paths.gc(&here, &["--dry-run"])),
        |all| *all == ended,
    );
    let before = paths.names();
    let answer = paths.gc(&here, &[]);
    assert_eq!(removed(&answer), ended);
    assert_eq!(answer["removed"][0]["proof"], "namespace_ended");
    assert_eq!(why(&answer, alive.cookie().unwrap()), "in_use");
    assert_eq!(why(&answer, orphaned.cookie().unwrap()), "lives");
    let after = paths.names();
    assert_eq!(before.len() - after.len(), 2 * ended.len(), "{after:?}");
    assert!(!after.iter().any(|name| ended.iter().any(|cookie| *name == cookie.to_string())), "{after:?}");
    // Both bonds are unchanged.
    paths.agent(&orphaned).wait_for("ready").unwrap();
    let show = paths.xbond(&alive, &["show", BOND]).output().unwrap();
    assert!(show.status.success(), "{show:?}");
    agent.stop().unwrap();
}

#[test]
fn a_descriptor_keeps_a_namespace_from_collection() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let paths = Paths::new();
    let (here, netns) = (namespace("here"), namespace("held"));
    paths.agent(&netns).kill().unwrap();
    let (held, cookie) = without_name(netns);
    for _ in 0..3 {
        let answer = paths.gc(&here, &[]);
        assert_eq!((removed(&answer), why(&answer, cookie).as_str()), (vec![], "lives"));
    }
    drop(held);
    eventually("the end of the namespace", || removed(&paths.gc(&here, &[])), |all| *all == [cookie]);
    assert_eq!(paths.names(), Vec::<String>::new());
}

#[test]
fn half_created_and_foreign_directories_are_judged_by_their_content() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let paths = Paths::new();
    let here = namespace("here");
    fs::create_dir_all(paths.pins("")).unwrap();
    let make = |path: PathBuf| fs::create_dir_all(path).unwrap();
    // Only what an agent creates first.
    make(paths.run("900001"));
    make(paths.run("900002"));
    fs::write(paths.run("900002/lock"), "").unwrap();
    make(paths.pins("900003"));
    // Bonds without any record.
    make(paths.run("900004/bond0"));
    make(paths.pins("900005/bond0"));
    fs::write(paths.run("900004/bond0/found.json"), "{}").unwrap();
    // A directory of a former boot, and one with a lock that is too short to contain a boot id.
    for (name, boot) in [("900006", "00000000-0000-4000-8000-000000000000"), ("900007", "00000000")] {
        make(paths.run(&format!("{name}/bond0")));
        fs::write(paths.run(&format!("{name}/lock")), boot).unwrap();
    }
    // Files that xbond did not create.
    make(paths.run("victim"));
    fs::write(paths.run("victim/lock"), "").unwrap();
    symlink("victim", paths.run("900008")).unwrap();
    symlink("/run/xbond/victim", paths.pins("900009")).unwrap();
    fs::write(paths.run("900010"), "").unwrap();
    make(paths.run("900011"));
    chown(paths.run("900011"), Some(65534), None).unwrap();
    make(paths.run("0900012"));

    let answer = paths.gc(&here, &[]);
    assert_eq!(removed(&answer), [900_001, 900_002, 900_003, 900_006], "{answer:#}");
    for unknown in [900_004, 900_005, 900_007] {
        assert_eq!(why(&answer, unknown), "unknown", "{answer:#}");
    }
    for foreign in ["900008", "900009", "900010", "900011", "0900012", "victim"] {
        assert_eq!(why(&answer, foreign), "not_ours", "{answer:#}");
    }
    assert!(paths.run("victim/lock").exists() && paths.run("900004/bond0/found.json").exists());
    for name in ["900001", "900002", "900006"] {
        assert!(!paths.run(name).exists(), "{name}");
    }
    assert!(!paths.pins("900003").exists() && paths.pins("900005/bond0").exists());
}

/// Makes the kernel delete the witness, as with an agent of an older version.
fn without_witness(paths: &Paths, cookie: u64) {
    fs::remove_file(paths.pins(&format!("{cookie}/%netns"))).unwrap();
}

#[test]
fn without_a_witness_links_without_devices_mean_an_ended_namespace() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let paths = Paths::new();
    let (here, alive, ended) = (namespace("here"), namespace("alive"), namespace("ended"));
    for netns in [&alive, &ended] {
        paths.agent(netns).kill().unwrap();
        without_witness(&paths, netns.cookie().unwrap());
    }
    let answer = paths.gc(&here, &[]);
    assert_eq!(answer["removed"], serde_json::json!([]));
    assert_eq!(why(&answer, alive.cookie().unwrap()), "attached");
    // A slave remains: bond0 is gone, and its slave still has a program.
    alive.ip("link delete bond0").unwrap();
    assert_eq!(why(&paths.gc(&here, &[]), alive.cookie().unwrap()), "attached");
    let cookie = without_name(ended).1;
    let gc = || paths.gc(&here, &[]);
    let answer = eventually("the end of the namespace", gc, |answer| removed(answer) == [cookie]);
    assert_eq!(answer["removed"][0]["proof"], "devices_gone");
}

#[test]
fn collections_at_the_same_time_remove_everything_together() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let paths = Paths::new();
    let here = namespace("here");
    for name in 900_000..900_050 {
        fs::create_dir_all(paths.run(&name.to_string())).unwrap();
        fs::create_dir_all(paths.pins(&name.to_string())).unwrap();
        fs::write(paths.run(&format!("{name}/lock")), "").unwrap();
    }
    let start =
        |_| paths.xbond(&here, &["gc"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let collections: Vec<Child> = (0..4).map(start).collect();
    for collection in collections {
        let output: Output = collection.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    // What one of them found locked by another may have been left by both.
    paths.gc(&here, &[]);
    assert_eq!(paths.names(), Vec::<String>::new());
}

#[test]
fn an_agent_starts_and_ends_next_to_collections() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let paths = Paths::new();
    let (here, netns) = (namespace("here"), namespace("host"));
    let script = "while :; do \"$0\" gc >/dev/null || exit 1; done";
    let mut command = here.command("nsenter");
    command.args(["--mount", "--target", &paths.process.id().to_string(), "sh", "-c", script]);
    let mut collecting = command.arg(binary().unwrap()).spawn().unwrap();
    for round in 0..12 {
        let agent = paths.agent(&netns);
        let show = paths.xbond(&netns, &["show", BOND]).output().unwrap();
        assert!(show.status.success(), "{show:?}");
        // A regular end leaves an empty directory, a kill leaves a bond that the next agent adopts.
        if round % 2 == 0 { agent.stop().map(drop) } else { agent.kill() }.unwrap();
    }
    assert!(collecting.try_wait().unwrap().is_none(), "a collection failed");
    collecting.kill().unwrap();
    collecting.wait().unwrap();
}

#[test]
fn an_agent_that_starts_collects_and_logs_one_line() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let paths = Paths::new();
    let (netns, ended) = (namespace("host"), namespace("ended"));
    paths.agent(&ended).kill().unwrap();
    let cookie = without_name(ended).1;
    let gone = || removed(&paths.gc(&netns, &["--dry-run"]));
    eventually("the end of the namespace", gone, |all| *all == [cookie]);
    let agent = paths.agent(&netns);
    agent.wait_for("removed the directories of 1 network namespace").unwrap();
    assert!(!paths.run(&cookie.to_string()).exists() && !paths.pins(&cookie.to_string()).exists());
    agent.stop().unwrap();
}
