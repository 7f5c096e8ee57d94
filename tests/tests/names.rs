//! Names that other processes choose: in requests, arguments, files and of interfaces. None of them reaches another
//! path.

mod common;

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::{BOND, SLAVES, bond, lab, show};
use serde_json::Value;
use xbond_tests::{Lab, Policy, WAIT_LIMIT, Xbond, lab::Datapath, skip_if_unable, xbond::binary};

/// Names that no bond and no slave can have.
const HOSTILE: [&[u8]; 14] = [
    b".",
    b"..",
    b"/",
    b"../..",
    b"bond0/..",
    b"bond0/../lock",
    b"0123456789abcdef",
    b"a\0b",
    b"a\nb",
    b"\x1b[2J",
    b"\xc2\x9b2J",
    b"a b",
    b"\xff\xfe",
    b"eth%d",
];

/// A directory that an agent must not change, with a record that it must not believe.
struct Victim(tempfile::TempDir);

impl Victim {
    fn new() -> Self {
        let victim = Self(tempfile::tempdir().unwrap());
        let record = r#"{"version":2,"bond":"bond0","pair":{"bond":"bond0","port":"enp0s9"},"port":null,
            "datapath":"tc","queues":1,"slaves":[]}"#;
        fs::write(victim.path().join("found.json"), record).unwrap();
        fs::write(victim.path().join("receipts.ndjson"), "").unwrap();
        victim
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    #[track_caller]
    fn assert_whole(&self, what: &str) {
        let mut names: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["found.json", "receipts.ndjson"], "{what}");
    }
}

fn run_directory(lab: &Lab) -> PathBuf {
    Path::new("/run/xbond").join(lab.host.cookie().unwrap().to_string())
}

/// Returns the status and the body of the answer to one request.
fn ask(lab: &Lab, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(run_directory(lab).join("xbond.sock")).unwrap();
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    let length = body.len();
    stream
        .write_all(format!("{head}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    // A client may print it as it is.
    assert!(!has_controls(answer.replace('\r', "").as_bytes()), "{method} {path}: {answer:?}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Returns all requests that name a bond, or a slave of it.
fn routes(name: &[u8]) -> Vec<(&'static str, String, &'static str)> {
    const CHANGE: &str = r#"{"set":[["miimon","50"]]}"#;
    let name: String = name.iter().map(|byte| format!("%{byte:02x}")).collect();
    let of_bond = [
        ("GET", "", ""),
        ("GET", "/log", ""),
        ("GET", "/events", ""),
        ("DELETE", "", ""),
        ("POST", "/options", CHANGE),
        ("POST", "/slaves", r#"{"name":"enp0s9"}"#),
        ("DELETE", "/slaves/enp0s8", ""),
        ("POST", "/slaves/enp0s8/options", CHANGE),
    ];
    let of_slave = [("DELETE", "", ""), ("POST", "/options", CHANGE)];
    let of_bond = of_bond.map(|(method, rest, body)| (method, format!("/v1/bonds/{name}{rest}"), body));
    let of_slave =
        of_slave.map(|(method, rest, body)| (method, format!("/v1/bonds/bond0/slaves/{name}{rest}"), body));
    of_bond.into_iter().chain(of_slave).collect()
}

#[test]
fn a_name_in_a_request_reaches_no_path() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let victim = Victim::new();
    let path = victim.path().to_str().unwrap();
    let relative = format!("../../..{path}");
    // As long as the other name: no answer may differ in anything but the name.
    let missing = format!("{}_", &path[..path.len() - 1]);
    let (before, left) =
        (show(&xbond)["options"].clone(), fs::read_dir(run_directory(&lab)).unwrap().count());
    for name in HOSTILE.into_iter().chain([path.as_bytes(), relative.as_bytes()]) {
        // An agent that believed one of these would remove files of other owners.
        let leads_away = HOSTILE.contains(&name) && name.iter().any(|byte| b"./".contains(byte));
        for (method, route, body) in routes(name) {
            if method == "DELETE" && leads_away {
                continue;
            }
            let (status, answer) = ask(&lab, method, &route, body);
            assert!([400, 404, 422].contains(&status), "{method} {route}: {status} {answer}");
            let failure: Value = serde_json::from_str(&answer).unwrap();
            assert!(!failure["error"].as_str().unwrap().contains('\x1b'), "{method} {route}: {answer}");
            victim.assert_whole(&route);
        }
        let change = serde_json::json!({ "set": [["primary", String::from_utf8_lossy(name)]] }).to_string();
        let (status, answer) = ask(&lab, "POST", "/v1/bonds/bond0/options", &change);
        assert!([200, 422].contains(&status), "{change}: {status} {answer}");
        let body = serde_json::json!({ "name": String::from_utf8_lossy(name) }).to_string();
        let (status, answer) = ask(&lab, "POST", "/v1/bonds/bond0/slaves", &body);
        assert!([400, 422].contains(&status), "{body}: {status} {answer}");
    }
    // An answer must not reveal which other paths exist.
    let answers = [path, &missing].map(|path| {
        let answers =
            routes(path.as_bytes()).into_iter().map(|(method, route, body)| ask(&lab, method, &route, body));
        answers.map(|(status, answer)| (status, answer.replace(path, "PATH"))).collect::<Vec<_>>()
    });
    assert_eq!(answers[0], answers[1]);
    // A name that an interface can have is accepted as that of a slave to come.
    xbond.set("bond0", "primary=").unwrap();
    assert_eq!(show(&xbond)["options"], before);
    assert_eq!(fs::read_dir(run_directory(&lab)).unwrap().count(), left);
    xbond.stop().unwrap();
}

fn run(lab: &Lab, arguments: &[&OsStr]) -> Output {
    lab.host.command(binary().unwrap()).args(arguments).output().unwrap()
}

/// Returns whether the bytes contain control characters, which a terminal would execute.
fn has_controls(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes).chars().any(|character| character.is_control() && character != '\n')
}

#[test]
fn a_name_on_the_command_line_is_refused_by_every_verb() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let victim = Victim::new();
    let own = victim.path().as_os_str().as_bytes().to_vec();
    let lines = [
        "show @",
        "show -j @",
        "show --proc @",
        "log @",
        "log -j @",
        "monitor @",
        "set @ miimon=50",
        "set bond0 --slave @ prio=1",
        "add-slave @ enp0s8",
        "add-slave bond0 @",
        "del-slave @ enp0s8",
        "del-slave bond0 @",
        "down @",
        "down @ --force",
        "import kernel @",
        "add --bond @ --slave enp0s8 -o miimon=100",
        "add --bond bond1 --slave @ -o miimon=100",
        "run --bond @ --slave enp0s8 -o miimon=100",
        "run --bond bond1 --slave @ -o miimon=100",
        "run --bond bond1 --slave enp0s8 -o miimon=100 --port @",
    ];
    // With an agent, and without one.
    for agent in [true, false] {
        let xbond = agent.then(|| bond(&lab, Datapath::Tc, &[]));
        for name in HOSTILE.into_iter().chain([&own[..]]).filter(|name| !name.contains(&0)) {
            for line in lines {
                let of = |word: &str| {
                    OsString::from(if word == "@" { OsStr::from_bytes(name) } else { OsStr::new(word) })
                };
                let words: Vec<_> = line.split(' ').map(of).collect();
                let output = run(&lab, &words.iter().map(OsString::as_os_str).collect::<Vec<_>>());
                let what = format!("{line} {:?}: {output:?}", String::from_utf8_lossy(name));
                assert_eq!(output.status.code(), Some(2), "{what}");
                assert!(!has_controls(&output.stderr) && !has_controls(&output.stdout), "{what}");
            }
        }
        victim.assert_whole("arguments");
        if let Some(xbond) = xbond {
            assert_eq!(show(&xbond)["options"]["miimon"], 100);
            xbond.stop().unwrap();
        }
    }
}

/// The kernel accepts control characters in names of interfaces.
#[test]
fn a_slave_that_is_renamed_prints_nothing_that_a_terminal_executes() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    for (number, name) in ["\x1b[2Jx", "\u{9b}2Jx", "a\u{202e}\x07", "\"}'$(x)"].into_iter().enumerate() {
        let from = if number == 0 {
            SLAVES[0].to_owned()
        } else {
            show(&xbond)["slaves"][0]["name"].as_str().unwrap().to_owned()
        };
        let renamed =
            lab.host.command("ip").args(["link", "set", "dev", &from, "name", name]).status().unwrap();
        assert!(renamed.success(), "{name:?}");
        let name_of_first = || show(&xbond)["slaves"][0]["name"].as_str().unwrap().to_owned();
        common::eventually("the name", name_of_first, |known| known == name);
        for cut in [
            format!("active_slave={}", SLAVES[1]),
            format!("active_slave={name}"),
            "primary=nosuch".to_owned(),
        ] {
            let _ = run(&lab, &["set".as_ref(), BOND.as_ref(), cut.as_ref()]);
        }
        for line in [
            "show",
            "show -d",
            "show -s",
            "show -j",
            "show --proc",
            "log bond0",
            "log bond0 -d",
            "log bond0 -j",
            "doctor",
            "doctor -j",
            "check /etc",
            "import kernel",
        ] {
            let words: Vec<_> = line.split(' ').map(OsStr::new).collect();
            let output = run(&lab, &words);
            let what = format!("{line}, {name:?}: {}", String::from_utf8_lossy(&output.stdout));
            assert!(!has_controls(&output.stderr) && !has_controls(&output.stdout), "{what}");
        }
        for path in ["/v1/bonds", "/v1/bonds/bond0", "/v1/bonds/bond0/log"] {
            assert_eq!(ask(&lab, "GET", path, "").0, 200, "{path}");
        }
    }
    let log = xbond.log();
    assert!(!has_controls(log.replace("\x1b[", "").as_bytes()) || !log.contains("\x1b[2J"), "{log}");
    xbond.stop().unwrap();
}

/// /run/xbond belongs to a service user, in the test's own mount namespace.
const PLANTED: &str = r#"
    set -e
    mount -t tmpfs -o mode=755 tmpfs /run/xbond
    ln -s "$1" "/run/xbond/$2"
    chown -h 65534:65534 /run/xbond "/run/xbond/$2"
    chown 65534:65534 /run/xbond
    shift 2
    exec "$@"
"#;

/// The same layout with a directory of root's, in which symbolic links lead to other paths.
const PLANTED_BELOW: &str = r#"
    set -e
    mount -t tmpfs -o mode=755 tmpfs /run/xbond
    mkdir "/run/xbond/$2"
    ln -s "$1" "/run/xbond/$2/bond0"
    ln -s "$1/lock" "/run/xbond/$2/lock"
    ln -s "$1/sock" "/run/xbond/$2/xbond.sock.new"
    shift 2
    exec "$@"
"#;

fn planted(lab: &Lab, script: &str, victim: &Victim, line: &str) -> Output {
    let mut command: Command = lab.host.command("timeout");
    // An agent that follows the link runs until it is stopped.
    command.args(["20", "unshare", "--mount", "sh", "-c", script, "sh"]).arg(victim.path());
    command.arg(lab.host.cookie().unwrap().to_string()).arg(binary().unwrap()).args(line.split(' '));
    command.output().unwrap()
}

#[test]
fn a_symbolic_link_of_a_service_user_is_not_followed() {
    skip_if_unable!();
    fs::create_dir_all("/run/xbond").unwrap();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let victim = Victim::new();
    fs::create_dir(victim.path().join("bond0")).unwrap();
    fs::write(victim.path().join("bond0/found.json"), fs::read(victim.path().join("found.json")).unwrap())
        .unwrap();
    let listing = || {
        let mut names: Vec<_> = walk(victim.path());
        names.sort();
        names
    };
    let before = listing();
    for script in [PLANTED, PLANTED_BELOW] {
        for line in [
            "run --bond bond0 --slave enp0s8 -o miimon=100",
            "run",
            "show",
            "show bond0",
            "log bond0",
            "down bond0 --force",
            "down bond0",
            "down --all",
        ] {
            let output = planted(&lab, script, &victim, line);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            println!("{line}: {text}");
            assert_eq!(listing(), before, "{line}: {text}");
            // Below a directory of ours there is no bond that could be shown.
            let may_succeed = line == "down --all" || (line == "show" && script == PLANTED_BELOW);
            assert!(may_succeed || output.status.code() == Some(2), "{line}: {output:?}");
            assert!(lab.host.link("enp0s9").is_ok(), "{line}");
        }
    }
}

/// The owner of /run/xbond cannot redirect a client: neither by the socket, nor by the directory that contains it.
#[test]
fn a_symbolic_link_instead_of_the_control_socket_is_refused() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let elsewhere = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(elsewhere.path().join("xbond.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let directory = run_directory(&lab);
    let socket = directory.join("xbond.sock");
    let verbs: [&[&str]; 6] = [
        &["show"],
        &["show", "-j", BOND],
        &["set", BOND, "miimon=50"],
        &["log", BOND],
        &["down", BOND, "--force"],
        &["reload"],
    ];
    let refused = |link: &Path| {
        for verb in verbs {
            let error = xbond.cli(verb).unwrap_err().to_string();
            let sentence = format!("{} is a symbolic link", link.display());
            assert!(error.contains(&sentence) && error.contains("remove it"), "{verb:?}: {error}");
        }
        assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    };
    fs::rename(&socket, directory.join("moved")).unwrap();
    symlink(elsewhere.path().join("xbond.sock"), &socket).unwrap();
    refused(&socket);
    fs::remove_file(&socket).unwrap();
    fs::rename(directory.join("moved"), &socket).unwrap();
    fs::rename(&directory, directory.with_extension("moved")).unwrap();
    symlink(elsewhere.path(), &directory).unwrap();
    refused(&directory);
    fs::remove_file(&directory).unwrap();
    fs::rename(directory.with_extension("moved"), &directory).unwrap();
    assert_eq!(show(&xbond)["options"]["miimon"], 100);
    xbond.stop().unwrap();
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { [vec![path.clone()], walk(&path)].concat() } else { vec![path] })
        .collect()
}

/// The readable name of a pinned bond may be any link; the directory of another namespace is none.
#[test]
fn a_bond_may_be_named_like_the_directory_of_a_namespace() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = Xbond::run(&lab.host, ["--bond", "4711", "--slave", "enp0s8", "-o", "miimon=100"]).unwrap();
    assert!(!Path::new("/sys/fs/bpf/xbond/4711").is_symlink());
    xbond.stop().unwrap();
}

/// The kernel's names have 15 bytes, too few for a suffix.
#[test]
fn bonds_with_long_names_have_clocks() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let bonds = ["bond-storage-0", "bond-storage-1"];
    let [first, second] = bonds;
    let xbond = Xbond::run(&lab.host, ["--bond", first, "--slave", SLAVES[0], "-o", "miimon=100"]).unwrap();
    xbond.cli(["add", "--bond", second, "--slave", SLAVES[1], "-o", "miimon=100"]).unwrap();
    for (bond, number) in bonds.into_iter().zip(["xbc0", "xbc1"]) {
        let report = || xbond.cli(["show", bond, "-j"]).unwrap();
        common::eventually("the clock runs", report, |report| report.contains("\"on, every 10 ms\""));
        assert!(lab.host.link(&format!("{number}-clk0")).is_ok(), "{bond}");
    }
    xbond.stop().unwrap();
    assert!(!lab.host.ip("-br link").unwrap().contains("-clk"));
}
