//! Ownership of interfaces: the kernel confirms it, by the alias of a bond's devices and by the bond's programs. A
//! record that claims something else changes nothing.

mod common;
mod snapshot;

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _, path::PathBuf};

use common::{BOND, SLAVES, eventually, meet, show};
use serde_json::{Value, json};
use snapshot::Snapshot;
use tempfile::NamedTempFile;
use xbond_tests::{HOST_V4, Lab, NetNs, Xbond, skip_if_unable, xbond::cli};

const MARK: &str = "xbond:bond0";

fn host() -> Lab {
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    lab.host.ip("link set enp0s9 mtu 1400").unwrap();
    lab
}

/// Creates the host with another veth pair, which belongs to no bond.
fn host_with_stranger() -> Lab {
    let lab = host();
    lab.host.ip("link add stranger mtu 1300 type veth peer name far").unwrap();
    lab.host.ip("link set stranger up").unwrap();
    lab.host.ip("link set far up").unwrap();
    lab.host.ip("address add 198.51.100.1/24 dev stranger").unwrap();
    for name in ["stranger", "far"] {
        let state = || lab.host.ip(&format!("link show {name}")).unwrap();
        eventually("both ends are up", state, |state| state.contains("state UP"));
    }
    lab
}

fn file_of(bond: &str, slaves: &[&str]) -> NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let text = format!(
        "version = 1\n[bond.{bond}]\nslaves = {slaves:?}\nmiimon = 100\naddresses = [\"{HOST_V4}/24\"]\n"
    );
    fs::write(file.path(), text).unwrap();
    file
}

fn run<'lab>(lab: &'lab Lab, file: &NamedTempFile) -> Xbond<'lab> {
    Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap()
}

fn paths(host: &NetNs) -> [PathBuf; 2] {
    let cookie = host.cookie().unwrap().to_string();
    ["/run/xbond", "/sys/fs/bpf/xbond"].map(|place| [place, &cookie, BOND].iter().collect())
}

fn record(host: &NetNs) -> PathBuf {
    paths(host)[0].join("found.json")
}

fn alias(host: &NetNs, name: &str) -> Option<String> {
    let links: Value = serde_json::from_str(&host.ip(&format!("-json link show {name}")).unwrap()).unwrap();
    links[0]["ifalias"].as_str().map(str::to_owned)
}

/// Sets an alias; `words` may be any bytes.
fn set_alias(host: &NetNs, name: &str, words: &[u8]) {
    let mut command = host.command("ip");
    command.args(["link", "set", name, "alias"]).arg(OsStr::from_bytes(words));
    assert!(command.status().unwrap().success());
}

fn slaves(xbond: &Xbond<'_>) -> Vec<String> {
    let bond = show(xbond);
    bond["slaves"]
        .as_array()
        .unwrap()
        .iter()
        .map(|slave| slave["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Changes the record of a bond whose agent was killed.
fn forge(host: &NetNs, change: impl FnOnce(&mut Value)) {
    let path = record(host);
    let mut contents = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    change(&mut contents);
    fs::write(path, contents.to_string()).unwrap();
}

/// Makes the bond look like that of an earlier xbond: without aliases.
fn make_former(host: &NetNs) {
    for name in SLAVES.iter().chain(&[BOND, "bond0-port"]) {
        set_alias(host, name, b"");
    }
    forge(host, |record| {
        record["version"] = json!(3);
        for slave in record["slaves"].as_array_mut().unwrap() {
            slave.as_object_mut().unwrap().remove("alias");
        }
    });
}

/// Changes a slave's record so that it names the foreign interface.
fn of_stranger(host: &NetNs, slave: &Value) -> Value {
    let (stranger, far) = (host.link("stranger").unwrap(), host.link("far").unwrap());
    let mut found = slave.clone();
    found["ifindex"] = json!(stranger.ifindex);
    found["name"] = json!("stranger");
    found["kind"] = json!("veth");
    found["permanent_mac"] = Value::Null;
    found["lower"] = json!({ "ifindex": far.ifindex, "netns": null });
    found
}

#[test]
fn devices_have_the_bonds_alias_and_an_administrators_alias_is_restored() {
    skip_if_unable!();
    let lab = host();
    set_alias(&lab.host, "enp0s8", b"uplink to sw1, port 7");
    set_alias(&lab.host, "enp0s9", b"B\xfcro \xff");
    let before = Snapshot::of(&lab.host);
    let file = file_of(BOND, &SLAVES);
    let agent = run(&lab, &file);
    for name in SLAVES.iter().chain(&[BOND, "bond0-port"]) {
        assert_eq!(alias(&lab.host, name).as_deref(), Some(MARK), "{name}");
    }
    meet(&lab);
    agent.cli(["del-slave", BOND, "enp0s8"]).unwrap();
    assert_eq!(alias(&lab.host, "enp0s8").unwrap(), "uplink to sw1, port 7");
    agent.cli(["add-slave", BOND, "enp0s8"]).unwrap();
    assert_eq!(alias(&lab.host, "enp0s8").unwrap(), MARK);
    agent.kill().unwrap();
    let next = run(&lab, &file);
    assert_eq!(alias(&lab.host, "enp0s8").unwrap(), MARK);
    next.stop().unwrap();
    before.assert_holds(&lab.host, "after the end");
}

#[test]
fn an_alias_that_was_changed_externally_is_kept() {
    skip_if_unable!();
    let lab = host();
    set_alias(&lab.host, "enp0s8", b"uplink");
    let file = file_of(BOND, &SLAVES);
    // An alias that is not UTF-8 hides no interface.
    for changed in [&b"patch panel 3"[..], b"\xff\xfe", b"xbond:bond1"] {
        let agent = run(&lab, &file);
        set_alias(&lab.host, "enp0s8", changed);
        let now = lab.host.command("ip").args(["link", "show", "enp0s8"]).output().unwrap().stdout;
        assert!(now.windows(changed.len()).any(|words| words == changed));
        agent.cli(["set", BOND, "active_slave=enp0s8"]).unwrap();
        lab.host.ip("link set enp0s9 down").unwrap();
        meet(&lab);
        assert_eq!(slaves(&agent), SLAVES);
        agent.stop().unwrap();
        let now = lab.host.command("ip").args(["link", "show", "enp0s8"]).output().unwrap().stdout;
        assert!(now.windows(changed.len()).any(|words| words == changed), "it stays");
        assert!(!lab.host.link("enp0s8").unwrap().flags.iter().any(|flag| flag == "ALLMULTI"));
    }
}

type Forgery = Box<dyn Fn(&mut Value)>;

/// Returns forged records of the killed agent's bond.
fn forgeries(host: &NetNs) -> Vec<(&'static str, Forgery)> {
    let (stranger, far) = (host.link("stranger").unwrap().ifindex, host.link("far").unwrap().ifindex);
    let slave = |host: &NetNs, record: &Value| {
        let mut found = of_stranger(host, &record["slaves"][0]);
        (found["mtu"], found["up"], found["mac"]) = (json!(900), json!(false), json!("02:00:00:00:00:77"));
        found
    };
    let record: Value = serde_json::from_str(&fs::read_to_string(record(host)).unwrap()).unwrap();
    let found = slave(host, &record);
    let in_list = |list: &'static str, found: Value| {
        move |record: &mut Value| match record[list].as_array_mut() {
            Some(entries) => entries.push(found.clone()),
            None => record[list] = json!([found]),
        }
    };
    let pair = move |ends: Option<(u32, u32)>, port: &'static str| {
        move |record: &mut Value| {
            record["pair"] = json!({ "bond": BOND, "port": port });
            if let Some((bond, port)) = ends {
                record["pair"]["ends"] = json!({ "bond": bond, "port": port });
            }
        }
    };
    vec![
        ("a slave", Box::new(in_list("slaves", found.clone()))),
        ("a slave that is away", Box::new(in_list("away", found))),
        ("a pair by ifindex", Box::new(pair(Some((stranger, far)), "bond0-port"))),
        ("a pair by the ifindex of one end", Box::new(pair(Some((9999, stranger)), "stranger"))),
        ("a pair by name", Box::new(pair(None, "stranger"))),
    ]
}

#[test]
fn a_forged_record_changes_no_foreign_interface() {
    skip_if_unable!();
    let lab = host_with_stranger();
    let before = Snapshot::of(&lab.host);
    let (file, other) = (file_of(BOND, &SLAVES), file_of("bond1", &[]));
    run(&lab, &file).kill().unwrap();
    let names: Vec<_> = forgeries(&lab.host).iter().map(|(what, _)| *what).collect();
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    for (number, what) in names.into_iter().enumerate() {
        for way in ["--force", "through another agent", "a start after the kill"] {
            run(&lab, &file).kill().unwrap();
            let (_, change) = forgeries(&lab.host).remove(number);
            forge(&lab.host, change);
            match way {
                "--force" => drop(cli(&lab.host, ["down", BOND, "--force"]).unwrap()),
                "through another agent" => {
                    let agent = run(&lab, &other);
                    agent.cli(["down", BOND]).unwrap();
                    agent.stop().unwrap();
                }
                _ => drop(run(&lab, &file).stop().unwrap()),
            }
            // A pair that the record does not name stays.
            let _ = lab.host.ip("link delete bond0");
            before.assert_holds(&lab.host, &format!("{what}, {way}"));
        }
    }
}

/// A record of a bond that never existed, and one that claims to be another bond's.
#[test]
fn a_record_without_a_bond_changes_nothing() {
    skip_if_unable!();
    let lab = host_with_stranger();
    let file = file_of(BOND, &SLAVES);
    run(&lab, &file).kill().unwrap();
    let text = fs::read_to_string(record(&lab.host)).unwrap();
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    let before = Snapshot::of(&lab.host);
    let genuine: Value = serde_json::from_str(&text).unwrap();
    let mut of_another = genuine.clone();
    of_another["pair"]["bond"] = json!("stranger");
    let mut of_strangers = genuine.clone();
    of_strangers["slaves"] = json!([of_stranger(&lab.host, &genuine["slaves"][0])]);
    of_strangers["pair"] = json!({ "bond": BOND, "port": "far" });
    for (what, forged) in [("another's", of_another), ("genuine", genuine), ("strangers", of_strangers)] {
        for way in ["--force", "a start"] {
            fs::create_dir_all(record(&lab.host).parent().unwrap()).unwrap();
            fs::write(record(&lab.host), forged.to_string()).unwrap();
            let mut second = None;
            if way == "--force" {
                let _ = cli(&lab.host, ["down", BOND, "--force"]);
            } else {
                second = Some(Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap());
            }
            if let Some(agent) = second {
                match agent.wait_for("ready") {
                    Ok(_) => drop(agent.stop().unwrap()),
                    Err(_) => assert!(agent.log().contains("found.json"), "{}", agent.log()),
                }
                let _ = fs::remove_dir_all(record(&lab.host).parent().unwrap());
            }
            before.assert_holds(&lab.host, &format!("{what}, {way}"));
        }
    }
}

/// Another device has the ifindex and the name of a slave that is gone.
#[test]
fn a_reused_ifindex_is_a_foreign_interface() {
    skip_if_unable!();
    let lab = host();
    lab.host.ip("link add s9 type veth peer name far9").unwrap();
    let file = file_of(BOND, &["enp0s8", "s9"]);
    for way in ["--force", "a start"] {
        let agent = run(&lab, &file);
        assert_eq!(slaves(&agent), ["enp0s8", "s9"]);
        agent.kill().unwrap();
        let (slave, far) = (lab.host.link("s9").unwrap().ifindex, lab.host.link("far9").unwrap().ifindex);
        lab.host.ip("link delete s9").unwrap();
        lab.host
            .ip(&format!("link add s9 index {slave} mtu 1300 type veth peer name far9 index {far}"))
            .unwrap();
        snapshot::open_once(&lab.host);
        lab.host.ip("link set s9 allmulticast on").unwrap();
        let observe = || lab.host.ip("-details link show s9").unwrap();
        let before = observe();
        if way == "--force" {
            let error = cli(&lab.host, ["down", BOND, "--force"]).unwrap_err().to_string();
            assert!(
                error.contains("s9 is in found.json, but nothing in the kernel confirms that"),
                "{error}"
            );
            assert_eq!(observe(), before);
            fs::remove_dir_all(record(&lab.host).parent().unwrap()).unwrap();
        } else {
            // A file names the slave, so it joins as a new one.
            let next = run(&lab, &file);
            next.wait_for("it is not changed").unwrap();
            next.stop().unwrap();
            assert_eq!(observe(), before);
        }
        assert!(lab.host.link(BOND).is_err());
    }
}

#[test]
fn without_bpffs_the_aliases_confirm() {
    skip_if_unable!();
    let lab = host();
    let before = Snapshot::of(&lab.host);
    let file = file_of(BOND, &SLAVES);
    for way in ["--force", "a start"] {
        run(&lab, &file).kill().unwrap();
        fs::remove_dir_all(&paths(&lab.host)[1]).unwrap();
        match way {
            "--force" => drop(cli(&lab.host, ["down", BOND, "--force"]).unwrap()),
            _ => drop(run(&lab, &file).stop().unwrap()),
        }
        before.assert_holds(&lab.host, way);
    }
}

#[test]
fn a_former_xbonds_bond_is_confirmed_by_its_programs_or_refused() {
    skip_if_unable!();
    let lab = host();
    set_alias(&lab.host, "enp0s9", b"uplink");
    let before = Snapshot::of(&lab.host);
    let file = file_of(BOND, &SLAVES);
    let kill = || {
        run(&lab, &file).kill().unwrap();
        make_former(&lab.host);
        set_alias(&lab.host, "enp0s9", b"uplink");
    };
    kill();
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    before.assert_holds(&lab.host, "by its programs");
    kill();
    let next = run(&lab, &file);
    for name in SLAVES.iter().chain(&[BOND, "bond0-port"]) {
        assert_eq!(alias(&lab.host, name).as_deref(), Some(MARK), "adopted: {name}");
    }
    next.stop().unwrap();
    before.assert_holds(&lab.host, "adopted");

    kill();
    fs::remove_dir_all(&paths(&lab.host)[1]).unwrap();
    let mut refused = Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    assert_eq!(refused.wait().unwrap().code(), Some(2));
    let error = cli(&lab.host, ["down", BOND, "--force"]).unwrap_err().to_string();
    for text in [&refused.log(), &error] {
        assert!(text.contains("bond0: bond0-port, enp0s8, enp0s9 are in found.json, but nothing"), "{text}");
    }
    assert!(lab.host.link("enp0s8").unwrap().flags.iter().any(|flag| flag == "ALLMULTI"));
    let (_, commands) = error.split_once("If bond0 had them: ").unwrap();
    let (commands, _) = commands.split_once("; xbond down").unwrap();
    commands.split("; ").for_each(|command| drop(lab.host.exec(command).unwrap()));
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    // The earlier record contains no alias.
    set_alias(&lab.host, "enp0s9", b"uplink");
    before.assert_holds(&lab.host, "refused, and confirmed by the administrator");
}

#[test]
fn a_slave_that_was_renamed_moved_or_has_lost_its_alias_is_restored() {
    skip_if_unable!();
    let lab = host();
    let file = file_of(BOND, &SLAVES);
    let observe = |name: &str| lab.host.link(name).map(|link| (link.mac, link.mtu, link.flags)).unwrap();
    let before = observe("enp0s9");
    let move_there_and_back = || {
        lab.host.ip(&format!("link set enp0s9 netns {}", lab.peer.name())).unwrap();
        lab.peer.ip(&format!("link set enp0s9 netns {}", lab.host.name())).unwrap();
    };
    let changes: [(&str, &dyn Fn()); 3] = [
        ("renamed", &|| {
            lab.host.ip("link set enp0s9 down").unwrap();
            lab.host.ip("link set enp0s9 name uplink").unwrap();
        }),
        ("moved", &move_there_and_back),
        ("without its alias", &|| SLAVES.iter().for_each(|name| set_alias(&lab.host, name, b""))),
    ];
    for (what, change) in changes {
        for is_killed in [true, false] {
            let agent = run(&lab, &file);
            if is_killed {
                agent.kill().unwrap();
                change();
                cli(&lab.host, ["down", BOND, "--force"]).unwrap();
            } else {
                change();
                if what == "moved" {
                    eventually("it is a slave again", || slaves(&agent), |slaves| slaves == &SLAVES);
                }
                agent.stop().unwrap();
            }
            let _ = lab.host.ip("link set uplink down");
            let _ = lab.host.ip("link set uplink name enp0s9");
            assert_eq!(observe("enp0s9"), before, "{what}, killed: {is_killed}");
            assert_eq!(alias(&lab.host, "enp0s9"), None, "{what}, killed: {is_killed}");
        }
    }
}
