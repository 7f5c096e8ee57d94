//! Where the log goes, and what programs read in it.

mod common;

use std::{
    collections::BTreeMap, fs, os::unix::net::UnixDatagram, path::Path, process::Command, time::Duration,
};

use serde_json::Value;
use xbond_tests::{
    lab::Lab,
    netns::NetNs,
    skip_if_unable,
    xbond::{Xbond, binary},
};

const BOND0: [&str; 9] =
    ["run", "--bond", "bond0", "--slave", "enp0s8", "--slave", "enp0s9", "-o", "miimon=100"];

/// Returns a command that runs an agent whose standard error a journal reads: its socket is in `run`, which is
/// /run/systemd there.
fn under_systemd(host: &NetNs, run: &Path) -> Command {
    let mut command = host.command("unshare");
    let start = r#"mkdir -p /run/systemd && mount --bind "$0" /run/systemd &&
                   JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr) exec "$@""#;
    command.args(["--mount", "sh", "-c", start]).arg(run).arg(binary().unwrap()).args(BOND0);
    command
}

/// Reads one entry, as journald does.
fn entry(journal: &UnixDatagram) -> BTreeMap<String, String> {
    let mut datagram = vec![0; 1 << 16];
    let length = journal.recv(&mut datagram).expect("an entry within the time limit");
    let (mut rest, mut fields) = (&datagram[..length], BTreeMap::new());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (name, value) = (&rest[..end], &rest[end + 9..]);
        let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap()) as usize;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        fields.insert(text(name), text(&value[..length]));
        rest = &value[length + 1..];
    }
    fields
}

#[test]
fn under_systemd_a_failover_is_an_entry_with_fields() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let run = tempfile::tempdir().unwrap();
    fs::create_dir(run.path().join("journal")).unwrap();
    let journal = UnixDatagram::bind(run.path().join("journal/socket")).unwrap();
    journal.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let agent = Xbond::start_as(&lab.host, under_systemd(&lab.host, run.path())).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    agent.set("bond0", "active_slave=enp0s9").unwrap();

    let of = |reason: &str| loop {
        let entry = entry(&journal);
        if entry.get("XBOND_REASON").is_some_and(|found| found == reason) {
            return entry;
        }
    };
    let switched = of("requested");
    let sentence = "bond0: active slave enp0s9 instead of enp0s8: requested";
    for (field, value) in [
        ("MESSAGE", sentence),
        ("PRIORITY", "6"),
        ("SYSLOG_IDENTIFIER", "xbond"),
        ("XBOND_BOND", "bond0"),
        ("XBOND_FROM", "enp0s8"),
        ("XBOND_TO", "enp0s9"),
        ("XBOND_TRIGGER", "request"),
        ("XBOND_CHOSEN", "administrator"),
    ] {
        assert_eq!(switched.get(field).map(String::as_str), Some(value), "{field}: {switched:?}");
    }
    let number = |field: &str| switched.get(field).and_then(|value| value.parse::<u64>().ok());
    let generation = agent.show("bond0").unwrap()["bonds"][0]["last_failover"]["generation"].as_u64();
    assert_eq!(number("XBOND_GENERATION"), generation, "{switched:?}");
    assert!(number("XBOND_DURATION_US").is_some(), "{switched:?}");
    assert!(!agent.log().contains(sentence), "printed twice: {}", agent.log());
    agent.stop().unwrap();
}

#[test]
fn json_lines_have_the_sentence_and_its_fields() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let arguments = BOND0[1..].iter().chain(&["--log-format", "json"]);
    let agent = Xbond::start(&lab.host, arguments).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    agent.set("bond0", "active_slave=enp0s9").unwrap();
    let line = agent.wait_for("requested").unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    for (field, value) in [("level", "info"), ("bond", "bond0"), ("to", "enp0s9"), ("reason", "requested")] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(line["message"], "bond0: active slave enp0s9 instead of enp0s8: requested");
    agent.stop().unwrap();
}
