//! What a writer, who may change bonds, can make the agent do with other things: nothing. Every route is asked with hostile names
//! and bodies, by a peer that may change everything.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::fuzz::{Server, request};
use crate::api::Endpoint;

/// Names that lead elsewhere if a path, a shell, a terminal or a format string takes them as they are.
const NAMES: &[&str] = &[
    "..",
    ".",
    "../../etc/passwd",
    "..%2F..%2Fetc%2Fpasswd",
    "%2e%2e",
    "%2e%2e%2f%2e%2e",
    "/etc/passwd",
    "%2Fetc%2Fpasswd",
    "bond0%2F..%2Fbond0",
    "bond0%00",
    "%00",
    "bond0%0a",
    "bond0%20",
    "%20bond0",
    "lock",
    "xbond.sock",
    "found.json",
    "elsewhere.json",
    "drained.json",
    "%25netns",
    "%netns",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "$(reboot)",
    "`reboot`",
    "bond0;reboot",
    "%1b[2J",
    "%e2%80%aebond0",
    "%ff%fe",
    "{name}",
    "%s%n",
    "tap0",
    "nic1",
    "lo",
    "bond1",
];

/// Returns bodies that a route may take for those of its own.
fn bodies(endpoint: Endpoint) -> Vec<String> {
    let toml = |text: &str| json!({ "toml": format!("version = 1\n{text}") }).to_string();
    let set = |key: &str, value: &str| json!({ "set": [[key, value]] }).to_string();
    match endpoint {
        Endpoint::AddBonds => vec![
            toml("[bond.\"../x\"]\nslaves = [\"nic1\"]\nmiimon = 100"),
            toml("[bond.bond1]\nslaves = [\"../../etc\"]\nmiimon = 100"),
            toml("[bond.bond1]\nport = \"/dev/null\"\nmiimon = 100"),
            toml("[bond.lock]\nslaves = [\"nic1\"]\nmiimon = 100"),
            // A slave, and a device, of another bond.
            toml("[bond.bond1]\nslaves = [\"nic0\"]\nmiimon = 100"),
            toml("[bond.bond1]\nslaves = [\"bond0\"]\nmiimon = 100"),
            toml("[bond.bond1]\nslaves = [\"bond0-port\"]\nmiimon = 100"),
            toml("[bond.nic1]\nslaves = [\"tap0\"]\nmiimon = 100"),
            // What is the agent's own, and not a bond's.
            toml("[agent]\ntextfile = \"/etc\""),
            toml("[agent]\nproc_files = \"/etc\""),
            toml("[agent]\nwriters = \"users\""),
            toml("[agent]\nmetrics = \"0.0.0.0:1\""),
            toml("x = 1"),
            json!({ "toml": "version = 1", "path": "/etc/passwd" }).to_string(),
        ],
        Endpoint::SetBond => vec![
            set("primary", "../nic1"),
            set("active_slave", "tap0"),
            set("textfile", "/etc"),
            set("writers", "users"),
            set("host_mac", "../x"),
            set("path_target", "$(reboot)"),
            set("arp_ip_target", "/etc/passwd"),
            set("../miimon", "1"),
        ],
        Endpoint::SetSlave => vec![set("queue_id", "../1"), set("prio", "1;reboot"), set("../prio", "1")],
        Endpoint::AddSlave => {
            ["../nic1", "nic1/..", "/dev/null", "nic1\0", "", ".", "..", "lo", "bond0", "bond0-port"]
                .map(|name| json!({ "name": name }).to_string())
                .to_vec()
        }
        Endpoint::Drain => vec![
            json!({ "seconds": 0 }).to_string(),
            json!({ "why": "a\nb" }).to_string(),
            json!({ "path": "/etc/passwd" }).to_string(),
        ],
        _ => vec![String::new(), "{".into(), "[{}]".into(), "\u{0}".into()],
    }
}

/// Returns a body that the route takes.
fn good_body(endpoint: Endpoint) -> String {
    match endpoint {
        Endpoint::SetBond => json!({ "set": [["num_grat_arp", "7"]] }),
        Endpoint::SetSlave => json!({ "set": [["prio", "7"]] }),
        Endpoint::AddSlave => json!({ "name": "nic1" }),
        Endpoint::Drain => json!({ "seconds": 60 }),
        _ => return String::new(),
    }
    .to_string()
}

/// Returns the files below a directory, with the contents of those that do not change by themselves.
fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        let kind = fs::symlink_metadata(&entry).unwrap().file_type();
        if kind.is_dir() {
            files.extend(tree(&entry));
        } else {
            let is_map = entry.components().any(|part| part.as_os_str() == "bpf");
            // The agent writes receipts of the bond's start, and amends them, by itself.
            let is_by_itself = is_map || entry.ends_with("receipts.ndjson");
            let content =
                if kind.is_file() && !is_by_itself { fs::read(&entry).unwrap() } else { Vec::new() };
            files.insert(entry, content);
        }
    }
    files
}

fn has_name(endpoint: Endpoint) -> bool {
    endpoint.template().contains('{')
}

#[test]
fn a_writer_reaches_nothing_but_bonds_by_any_route() {
    let server = Server::start();
    let sentinel = server.directory.path().join("etc");
    fs::create_dir(&sentinel).unwrap();
    fs::write(sentinel.join("passwd"), "root").unwrap();
    let (kernel, files) = (server.kernel.snapshot(), tree(server.directory.path()));
    let (mut asked, mut answered) = (0, 0);
    let mut ask = |endpoint: Endpoint, names: (&str, &str), body: &str| {
        let sent = request(endpoint, (names.0.as_bytes(), names.1.as_bytes()), body.as_bytes());
        let what = format!("{} {names:?} {body}", endpoint.shown());
        // Without an answer the request was no HTTP.
        if let Some((status, text)) = server.send(&sent, false) {
            assert!((400..500).contains(&status) || status == 301, "{what}: {status} {text}");
            assert!(!text.contains(['\u{1b}', '\u{202e}']), "{what}: {text:?}");
            answered += 1;
        }
        assert!(server.kernel.snapshot() == kernel, "{what}: a device was changed");
        let now = tree(server.directory.path());
        let changed =
            |(path, content): (&PathBuf, &Vec<u8>)| (files.get(path) != Some(content)).then(|| path.clone());
        let changed: Vec<_> = now.iter().filter_map(changed).collect();
        assert!(changed.is_empty() && now.len() == files.len(), "{what}: {changed:?}");
        asked += 1;
    };
    for endpoint in Endpoint::ALL {
        for name in NAMES.iter().filter(|_| has_name(endpoint)) {
            ask(endpoint, (name, "nic0"), &good_body(endpoint));
            // The only slave of bond0 is nic0, and an interface that joins is named by the body.
            if endpoint.template().contains("{slave}") {
                ask(endpoint, ("bond0", name), &good_body(endpoint));
            }
        }
        let takes_body =
            [Endpoint::AddBonds, Endpoint::SetBond, Endpoint::SetSlave, Endpoint::AddSlave, Endpoint::Drain];
        if takes_body.contains(&endpoint) {
            for body in bodies(endpoint).iter().chain(&bodies(Endpoint::Bonds)) {
                ask(endpoint, ("bond0", "nic0"), body);
            }
        }
    }
    assert!(asked > 400 && answered * 10 > asked * 9, "{answered} of {asked}");
    let (status, body) = server.send(&request(Endpoint::Bonds, (b"", b""), b""), false).unwrap();
    assert_eq!(status, 200, "{body}");
}
