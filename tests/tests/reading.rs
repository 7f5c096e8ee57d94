//! What administrators and programs read of a running bond, and of one without an agent: `show`, `log`, `monitor`,
//! metrics.

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{BOND, active_slave, bond, bond_with, eventually, skip};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use xbond_tests::{
    Cut, Lab, NetNs, Policy, WAIT_LIMIT, Xbond,
    lab::Datapath,
    skip_if_unable,
    xbond::{binary, cli},
};

/// Starts a bond whose failovers are the agent's: no packet causes one.
fn unguarded<'lab>(lab: &'lab Lab, options: &[&str]) -> Xbond<'lab> {
    bond_with(lab, Datapath::Tc, &[options, &["clock=off"]].concat(), &["--guard", "off"])
}

/// Patterns for text that differs from run to run.
const VOLATILE: [(&str, &str); 18] = [
    // Peers are counted until 20 ms after the failover, or more on a busy machine.
    (r"(?m)^ +(?:no peer had spoken|\d+ of \d+ peers? heard)[^\n]*\n", ""),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "TIME"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "DAY AND TIME"),
    (r"xbond/\d+", "xbond/COOKIE"),
    (r"ifindex=\d+", "ifindex=N"),
    (r"pair=\w+", "pair=KIND"),
    (r"pid \d+", "pid N"),
    (r"agent \d+\.\d+\.\d+", "agent VERSION"),
    (r"\+?\d+ (us|ms|s)\b", "N us"),
    (r"N us,? N us", "N us N us"),
    (r" +N us", " N us"),
    (r"generation \d+", "generation N"),
    (r"(?m)(up|down) +([0-9a-f:]{17}) +(\d+|-) +\d+ +\d+$", "$1 $2 $3 N N"),
    (r"(?m)( +\d+){6}$", " N N N N N N"),
    (r"announced \d+ address(es)? by", "announced N addresses by"),
    (r"(dropped|time_squeeze) \d+", "$1 N"),
    (r"(?m)^(  (?:enp0s\d|bond0-port) +)(?:nothing|(?:[a-z_]+ \d+(?:, )?)+)$", "$1COUNTS"),
    (
        r"dropped during the failover: (?:nothing|(?:[a-z_]+ \d+(?:, )?)+);",
        "dropped during the failover: COUNTS;",
    ),
];

macro_rules! transcript {
    ($text:expr, @$expected:literal) => {
        insta::with_settings!({ filters => VOLATILE, omit_expression => true }, {
            insta::assert_snapshot!($text, @$expected);
        })
    };
}

/// Returns a receipt without the peers that were heard, which are counted after it was written.
fn without_peers(mut receipt: Value) -> Value {
    receipt.as_object_mut().unwrap().remove("peers");
    receipt
}

/// Validates JSON against a part of docs/xbond.schema.json.
#[track_caller]
fn conforms(part: &str, json: &Value) {
    let errors: Vec<_> = schema_of(part)
        .iter_errors(json)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}\n{json:#}");
}

/// Returns a part of docs/xbond.schema.json.
fn schema_of(part: &str) -> jsonschema::Validator {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/xbond.schema.json");
    let mut schema: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    schema.as_object_mut().unwrap().remove("oneOf");
    schema["$ref"] = format!("#/$defs/{part}").into();
    jsonschema::validator_for(&schema).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Returns the receipts of bond0, without their peers.
fn receipts(host: &NetNs) -> Vec<Value> {
    let log = json(&cli(host, ["log", BOND, "-j"]).unwrap());
    conforms("log", &log);
    log["receipts"].as_array().unwrap().iter().cloned().map(without_peers).collect()
}

/// Returns the receipt of the failover to `to`, once it is complete.
#[track_caller]
fn receipt_to(host: &NetNs, to: &str) -> Value {
    let is_there = |receipts: &Vec<Value>| receipts.last().is_some_and(|receipt| receipt["to"] == to);
    eventually("a receipt", || receipts(host), is_there).pop().unwrap()
}

fn run_directory(host: &NetNs) -> PathBuf {
    Path::new("/run/xbond").join(host.cookie().unwrap().to_string())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// An `xbond monitor`, with its lines as they arrive.
struct Monitor {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Monitor {
    /// Starts it. It listens when this returns: the bond's state has been read.
    fn start(host: &NetNs, arguments: &[&str]) -> (Self, String) {
        let mut child = host
            .command(binary().unwrap())
            .arg("monitor")
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let monitor = Self { child, lines };
        let state = monitor.next();
        (monitor, state)
    }

    #[track_caller]
    fn next(&self) -> String {
        self.lines.recv_timeout(WAIT_LIMIT).expect("a line")
    }

    /// Returns the next object of this kind, and skips others.
    #[track_caller]
    fn next_of(&self, kind: &str) -> Value {
        self.next_of_either([kind, kind])
    }

    fn next_of_either(&self, kinds: [&str; 2]) -> Value {
        loop {
            let event = json(&self.next());
            conforms("event", &event);
            if kinds.iter().any(|kind| event["event"] == *kind) {
                return event;
            }
        }
    }

    /// Waits for its end; returns the exit status and the output on stderr.
    fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }

    fn interrupt(&self) {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT).unwrap();
    }
}

#[test]
fn show_prints_the_reference_text_and_json_conforms_to_the_schema() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    // In one request it would be up, and have an address, before the kernel is configured to generate none.
    lab.host.ip("link set enp0s8 addrgenmode none").unwrap();
    lab.host.ip("link set enp0s8 up").unwrap();
    lab.host.ip("address add 192.0.2.8/24 dev enp0s8").unwrap();
    let xbond = unguarded(&lab, &["fail_over_mac=active", "miimon=10000"]);
    let show = |arguments: &[&str]| xbond.cli([&["show", BOND], arguments].concat()).unwrap();
    transcript!(show(&[]), @r"
    bond0: active slave enp0s8, carrier up, mac 08:00:27:e8:26:58
      datapath=tc port=bond0-port fail_over_mac=active miimon=10000
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          active up 08:00:27:e8:26:58 0 N N
      enp0s9          backup up 08:00:27:27:a9:2d 0 N N
    ");

    lab.cut("enp0s8", Cut::Carrier).unwrap();
    receipt_to(&lab.host, "enp0s9");
    transcript!(show(&["-d"]), @r"
    bond0: active slave enp0s9, carrier up, mac 08:00:27:27:a9:2d
      datapath=tc pair=KIND port=bond0-port ifindex=N port_ifindex=N
      host_mac=08:00:27:27:a9:2d mtu=1500 on_exit=down
      ACTIVE: generation N, draining none
      carrier guard off: as configured
      clock off: as configured
      pins /sys/fs/bpf/xbond/COOKIE/bond0
      files /run/xbond/COOKIE/bond0
      options ad_select=stable all_slaves_active=0 arp_all_targets=any
      arp_interval=0 arp_ip_target=none arp_missed_max=2 arp_validate=none
      downdelay=0 fail_over_mac=active lp_interval=1 miimon=10000 min_links=0
      mode=active-backup ns_ip6_target=none num_grat_arp=1 peer_notif_delay=0
      primary=none primary_reselect=always resend_igmp=1 updelay=0
      xmit_hash_policy=layer2
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          backup down 08:00:27:e8:26:58 1 N N
      enp0s9          active up 08:00:27:27:a9:2d 0 N N
      last failover N us ago: enp0s9 instead of enp0s8, its link failed
        seen by a link event; chosen: the only one that is up
        detect N us, decide N us, switch N us
        after the switch: MACs N us, announced N addresses by the agent N us
        dropped during the failover: COUNTS; generation N
      enp0s8:
        permanent_mac=08:00:27:e8:26:58 wire_mac=08:00:27:e8:26:58 ifindex=N slot=0
        speed=10000Mb/s duplex=full prio=0 queue_id=0
        found up, mac 08:00:27:e8:26:58, mtu 1500; addresses 192.0.2.8/24; routes
        192.0.2.0/24
      enp0s9:
        permanent_mac=08:00:27:27:a9:2d wire_mac=08:00:27:27:a9:2d ifindex=N slot=1
        speed=10000Mb/s duplex=full prio=0 queue_id=0
        found down, mac 08:00:27:27:a9:2d, mtu 1500
    agent VERSION, pid N, started N us ago (TIME)
    ");
    transcript!(show(&["-s"]), @r"
    bond0: active slave enp0s9, carrier up, mac 08:00:27:27:a9:2d
      datapath=tc port=bond0-port fail_over_mac=active miimon=10000
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          backup down 08:00:27:e8:26:58 1 N N
      enp0s9          active up 08:00:27:27:a9:2d 0 N N
      last failover N us ago: enp0s9 instead of enp0s8, its link failed
      COUNTED                 TX  TX BYTES REWRITTEN        RX  RX BYTES REWRITTEN
      enp0s8 N N N N N N
      enp0s9 N N N N N N
      DROPPED BY XBOND



      DROPPED AROUND     RX DROP   TX DROP    MISSED NOHANDLER OTHERHOST     QDISC
      bond0 N N N N N N
      bond0-port N N N N N N
      enp0s8 N N N N N N
      enp0s9 N N N N N N
      softnet, all CPUs: dropped N, time_squeeze N
    ");
    for line in show(&["-d", "-s"]).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }

    let report = json(&show(&["-j"]));
    conforms("report", &report);
    // Repeated where a packet arrived in between.
    let slaves = |arguments: &[&str]| json(&show(arguments))["bonds"][0]["slaves"].clone();
    eventually("one JSON", || (slaves(&["-j"]), slaves(&["-d", "-s", "-j"])), |(short, long)| short == long);
    let bond = &report["bonds"][0];
    let devices: Vec<_> =
        bond["devices"].as_array().unwrap().iter().map(|device| text(&device["name"])).collect();
    assert_eq!(devices, ["bond0", "bond0-port", "enp0s8", "enp0s9"]);
    assert_eq!(bond["ifindex"], lab.host.link("bond0").unwrap().ifindex);
    assert_eq!(bond["slaves"][0]["found"]["addresses"][0], "192.0.2.8/24");
    assert_eq!(bond["failovers"]["link_failed"], 1);
    assert_eq!((&report["source"], &report["notes"]), (&"agent".into(), &Value::Array(vec![])));
    xbond.stop().unwrap();
}

/// Every output of JSON has its definition in the schema: a verb that gains `--json` needs a row here.
#[test]
fn json_of_every_verb_conforms_to_the_schema() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = unguarded(&lab, &[]);
    xbond.set(BOND, "active_slave=enp0s9").unwrap();
    receipt_to(&lab.host, "enp0s9");
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    fs::write(file.path(), "[bond.b]\nslaves = [\"enp0s8\"]\nmiimon = 100\nupdelay = 250\n").unwrap();
    let file = file.path().to_str().unwrap();
    let table: &[(&str, &[&str])] = &[
        ("report", &["show"]),
        ("namespaces", &["show", "--all-netns"]),
        ("log", &["log", BOND]),
        ("collection", &["gc", "--dry-run"]),
        ("findings", &["check", file]),
        ("checks", &["doctor", "enp0s8"]),
    ];
    for (part, line) in table {
        // check and doctor exit with their own codes if they have findings.
        let output = lab.host.command(binary().unwrap()).args(*line).arg("-j").output().unwrap();
        let printed = json(&String::from_utf8(output.stdout).unwrap());
        conforms(part, &printed);
        let named = |other: &&(&str, _)| other.0 != *part;
        let others = table.iter().filter(named).map(|(other, _)| schema_of(other));
        assert!(others.into_iter().all(|schema| !schema.is_valid(&printed)), "{part} is ambiguous");
    }
    let help = |verb: &str| cli(&lab.host, [verb, "--help"]).unwrap_or_default();
    let listed = cli(&lab.host, ["--help"]).unwrap();
    let verbs = listed.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let mut with_json: Vec<_> = verbs.filter(|verb| help(verb).contains("--json")).collect();
    with_json.sort_unstable();
    // The lines of monitor are validated wherever they are read.
    assert_eq!(with_json, ["check", "doctor", "gc", "log", "monitor", "show"]);
    xbond.stop().unwrap();
}

/// Only the kernel counts packets that a qdisc drops.
#[test]
fn show_counts_what_is_dropped_around_the_bond() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &[]);
    lab.host.exec("tc qdisc add dev bond0 root blackhole").unwrap();
    let drops = || {
        let report = json(&xbond.cli(["show", BOND, "-j"]).unwrap());
        let qdiscs = report["bonds"][0]["devices"][0]["qdiscs"].as_array().unwrap().clone();
        qdiscs
            .iter()
            .map(|qdisc| (text(&qdisc["kind"]).to_owned(), qdisc["drops"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    // On a busy machine the counters may be slightly outdated.
    let is_blackhole =
        |drops: &Vec<(String, u64)>| drops.first().is_some_and(|(kind, _)| kind == "blackhole");
    common::eventually("the qdisc", drops, is_blackhole);
    let _ = lab.host.exec("ping -c 3 -i 0.01 -W 1 192.168.99.1");
    common::eventually("its drops", drops, |drops| drops[0].1 >= 1);
}

#[test]
fn a_failover_leaves_a_receipt() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = unguarded(&lab, &["fail_over_mac=active", "miimon=10000"]);
    let first = &receipts(&lab.host)[0];
    assert_eq!((&first["from"], text(&first["to"])), (&Value::Null, "enp0s8"));
    assert_eq!((text(&first["reason"]), text(&first["chosen"])), ("joined", "only_one_up"));

    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let receipt = receipt_to(&lab.host, "enp0s9");
    assert_eq!((text(&receipt["from"]), text(&receipt["reason"])), ("enp0s8", "link_failed"));
    assert_eq!((text(&receipt["seen"]), text(&receipt["chosen"])), ("link_event", "only_one_up"));
    let steps = &receipt["steps"];
    assert!(steps["announce_us"].is_u64() && steps["macs_us"].is_u64(), "{receipt:#}");
    let word = json(&xbond.cli(["show", BOND, "-j"]).unwrap())["bonds"][0]["generation"].as_u64().unwrap();
    let generation = receipt["generation"].as_u64().unwrap();
    assert!((1..=word).contains(&generation), "{generation} {word}");

    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    common::wait_for_status(&xbond, "enp0s8", "up");
    xbond.set(BOND, "active_slave=enp0s8").unwrap();
    let receipt = receipt_to(&lab.host, "enp0s8");
    assert_eq!((text(&receipt["seen"]), text(&receipt["reason"])), ("request", "requested"));
    assert_eq!(text(&receipt["chosen"]), "administrator");

    xbond.set(BOND, "primary=enp0s9").unwrap();
    let receipt = receipt_to(&lab.host, "enp0s9");
    assert_eq!((text(&receipt["reason"]), text(&receipt["chosen"])), ("option_changed", "primary"));

    xbond.cli(["del-slave", BOND, "enp0s9"]).unwrap();
    let receipt = receipt_to(&lab.host, "enp0s8");
    assert_eq!((text(&receipt["seen"]), text(&receipt["reason"])), ("slave_left", "left"));

    transcript!(xbond.cli(["log", BOND]).unwrap(), @r"
    TIME (UTC)           FROM            TO               SWITCHED WHY
    DAY AND TIME  none            enp0s8 N us slave joined
    DAY AND TIME  enp0s8          enp0s9 N us link failed
    DAY AND TIME  enp0s9          enp0s8 N us requested
    DAY AND TIME  enp0s8          enp0s9 N us option changed
    DAY AND TIME  enp0s9          enp0s8 N us slave left
    ");
    transcript!(xbond.cli(["log", BOND, "-d"]).unwrap(), @r"
    TIME enp0s8 instead of none, a slave joined
      seen by a slave that joined; chosen: the only one that is up
      detect N us, decide N us, switch N us
      nothing to announce: no address on the bond or on a device above it, and no
      MAC address behind it
      dropped during the failover: COUNTS; generation N
    TIME enp0s9 instead of enp0s8, its link failed
      seen by a link event; chosen: the only one that is up
      detect N us, decide N us, switch N us
      after the switch: MACs N us, announced N addresses by the agent N us
      dropped during the failover: COUNTS; generation N
    TIME enp0s8 instead of enp0s9, requested
      seen by a request; chosen: named by the administrator
      detect N us, decide N us, switch N us
      after the switch: MACs N us, announced N addresses by the agent N us
      dropped during the failover: COUNTS; generation N
    TIME enp0s9 instead of enp0s8, an option changed
      seen by a request; chosen: the primary
      detect N us, decide N us, switch N us
      after the switch: MACs N us, announced N addresses by the agent N us
      dropped during the failover: COUNTS; generation N
    TIME enp0s8 instead of enp0s9, it left the bond
      seen by a slave that left; chosen: the only one that is up
      detect N us, decide N us, switch N us
      after the switch: MACs N us, announced N addresses by the agent N us
      dropped during the failover: COUNTS; generation N
    ");
    xbond.stop().unwrap();
    // It was removed with the bond.
    let error = cli(&lab.host, ["log", BOND]).unwrap_err().to_string();
    assert!(error.contains("bond0: no such bond in this network namespace"), "{error}");
}

/// An agent that finds the active slave down fails over as it adopts the bond: that took no time since the machine
/// booted.
#[test]
fn a_failover_at_adoption_took_as_long_as_it_took() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let run = || bond_with(&lab, Datapath::Tc, &["miimon=100", "clock=off"], &["--guard", "off"]);
    run().kill().unwrap();
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let start = Instant::now();
    let xbond = run();
    let receipt = receipt_to(&lab.host, "enp0s9");
    let steps = ["detect_us", "decide_us", "switch_us"].map(|step| receipt["steps"][step].as_u64().unwrap());
    assert!(u128::from(steps.iter().sum::<u64>()) < start.elapsed().as_micros(), "{receipt:#}");
    xbond.stop().unwrap();
}

#[test]
fn a_failover_without_link_event_is_triggered_by_miimon() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond_with(&lab, Datapath::Tc, &["miimon=50"], &["--no-link-events", "--guard", "off"]);
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let receipt = receipt_to(&lab.host, "enp0s9");
    assert_eq!((text(&receipt["seen"]), &receipt["steps"]["macs_us"]), ("miimon", &Value::Null));
    xbond.stop().unwrap();
}

/// The data plane switched before the agent knew: the receipt has both times.
#[test]
fn a_failover_of_the_guard_has_a_receipt() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &["miimon=10000", "clock=off"]);
    let guard = common::show(&xbond)["guard"].clone();
    if guard != "on" {
        return skip(&format!("the carrier guard is {guard}"));
    }
    let (monitor, _) = Monitor::start(&lab.host, &["-j"]);
    let is_the_guards = |receipt: &Value| receipt["seen"] == "guard";
    // A link event may be faster, so try several times.
    for (from, to) in [("enp0s8", "enp0s9"), ("enp0s9", "enp0s8")].into_iter().cycle().take(20) {
        let traffic = common::traffic(&lab, 20_000);
        traffic.wait_for_more(1_000).unwrap();
        lab.cut(from, Cut::Carrier).unwrap();
        let receipt = receipt_to(&lab.host, to);
        traffic.stop().unwrap();
        let event = monitor.next_of("failover")["receipt"].clone();
        assert_eq!(without_peers(event), receipt);
        lab.reconnect(from, Cut::Carrier).unwrap();
        common::wait_for_status(&xbond, from, "up");
        if is_the_guards(&receipt) {
            assert_eq!((text(&receipt["from"]), &receipt["steps"]["detect_us"]), (from, &0.into()));
            assert!(["carrier_guard", "link_failed"].contains(&text(&receipt["reason"])), "{receipt:#}");
            assert!(receipt["steps"]["announce_us"].is_u64(), "{receipt:#}");
            let heard = receipt["steps"]["heard_us"].as_u64().unwrap();
            assert!((1..10_000_000).contains(&heard), "{heard}");
            return xbond.stop().map(drop).unwrap();
        }
    }
    panic!("no failover of the guard: {:#?}", receipts(&lab.host));
}

/// Receipts belong to the bond, not to the agent.
#[test]
fn receipts_survive_an_agent_and_the_next_one_adds_to_them() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = unguarded(&lab, &[]);
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    receipt_to(&lab.host, "enp0s9");
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    common::wait_for_status(&xbond, "enp0s8", "up");
    let before = receipts(&lab.host);
    xbond.kill().unwrap();
    let file = run_directory(&lab.host).join("bond0/receipts.ndjson");
    let mut torn = fs::OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(b"{\"version\":1,\"bond\":\"bo").unwrap();

    let xbond = unguarded(&lab, &[]);
    let last = common::show(&xbond)["last_failover"].clone();
    assert_eq!(without_peers(last), before[before.len() - 1]);
    xbond.set(BOND, "active_slave=enp0s8").unwrap();
    let last = receipt_to(&lab.host, "enp0s8");
    assert_eq!(text(&last["reason"]), "requested");
    let after = receipts(&lab.host);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.last(), Some(&last));
    xbond.stop().unwrap();
}

/// Packets that were lost while a bond had no active slave are in the receipt of the failover that ended this state.
#[test]
fn a_receipt_counts_what_was_dropped() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = unguarded(&lab, &["num_grat_arp=0"]);
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    common::wait_for_status(&xbond, "enp0s9", "down");
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let none = |receipts: &Vec<Value>| receipts.last().is_some_and(|receipt| receipt["to"].is_null());
    let receipt = eventually("the end", || receipts(&lab.host), none).pop().unwrap();
    assert_eq!((text(&receipt["from"]), &receipt["chosen"]), ("enp0s8", &Value::Null));
    // The port is down by now; while it is up, packets are dropped because there is no slave.
    lab.host.ip("link set bond0-port up").unwrap();
    eventually(
        "drops at the port",
        || {
            let _ = lab.host.exec("ping -c 1 -W 1 192.168.99.1");
            common::show(&xbond)["drops"]["no_active_slave"].as_u64().unwrap()
        },
        |drops| *drops > 0,
    );
    lab.reconnect("enp0s9", Cut::Carrier).unwrap();
    let receipt = receipt_to(&lab.host, "enp0s9");
    assert_eq!((&receipt["from"], text(&receipt["reason"])), (&Value::Null, "link_recovered"));
    assert!(receipt["drops"]["no_active_slave"].as_u64().unwrap() > 0, "{receipt:#}");
    xbond.stop().unwrap();
}

#[test]
fn without_an_agent_the_maps_and_the_receipts_are_read() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let show = |arguments: &[&str]| cli(&lab.host, [&["show"], arguments].concat());
    // Without pins the answer is the usual one.
    let nothing = "no bonds, and no agent runs in this network namespace; start one with `xbond run`\n";
    assert_eq!(show(&[]).unwrap(), nothing);

    let xbond = unguarded(&lab, &["fail_over_mac=active", "miimon=10000"]);
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let before = receipt_to(&lab.host, "enp0s9");
    let known = common::show(&xbond);
    xbond.kill().unwrap();
    transcript!(show(&[]).unwrap(), @r"
    no agent: from the pinned maps
    bond0: active slave enp0s9, carrier up, mac 08:00:27:27:a9:2d
      datapath=tc port=bond0-port fail_over_mac=active
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          backup down 08:00:27:e8:26:58 1 N N
      enp0s9          active up 08:00:27:27:a9:2d 0 N N
      last failover N us ago: enp0s9 instead of enp0s8, its link failed
      ! bond0: its clock and its carrier guard are off: it does not fail over until an agent runs
    ");
    transcript!(show(&["bond0", "-d"]).unwrap(), @r"
    no agent: from the pinned maps
    bond0: active slave enp0s9, carrier up, mac 08:00:27:27:a9:2d
      datapath=tc pair=KIND port=bond0-port ifindex=N port_ifindex=N
      host_mac=08:00:27:27:a9:2d mtu=1500
      ACTIVE: generation N, draining none
      carrier guard off: so the agent left it
      clock off: so the agent left it
      pins /sys/fs/bpf/xbond/COOKIE/bond0
      files /run/xbond/COOKIE/bond0
      options all_slaves_active=0 fail_over_mac=active
      SLAVE           STATE  MII        MAC               FAILED        TX        RX
      enp0s8          backup down 08:00:27:e8:26:58 1 N N
      enp0s9          active up 08:00:27:27:a9:2d 0 N N
      last failover N us ago: enp0s9 instead of enp0s8, its link failed
        seen by a link event; chosen: the only one that is up
        detect N us, decide N us, switch N us
        after the switch: MACs N us, announced N addresses by the agent N us
        dropped during the failover: COUNTS; generation N
      enp0s8:
        permanent_mac=08:00:27:e8:26:58 wire_mac=08:00:27:e8:26:58 ifindex=N slot=0
        speed=10000Mb/s duplex=full queue_id=0
        found down, mac 08:00:27:e8:26:58, mtu 1500
      enp0s9:
        permanent_mac=08:00:27:27:a9:2d wire_mac=08:00:27:27:a9:2d ifindex=N slot=1
        speed=10000Mb/s duplex=full queue_id=0
        found down, mac 08:00:27:27:a9:2d, mtu 1500
      ! bond0: its clock and its carrier guard are off: it does not fail over until an agent runs
    ");
    let report = json(&show(&["-j"]).unwrap());
    conforms("report", &report);
    let bond = &report["bonds"][0];
    for same in ["active_slave", "mac", "carrier", "datapath", "port", "pins", "files", "mtu"] {
        assert_eq!(bond[same], known[same], "{same}");
    }
    assert_eq!(without_peers(bond["last_failover"].clone()), before);
    for same in ["name", "ifindex", "state", "mii_status", "mac", "wire_mac", "permanent_mac", "found"] {
        assert_eq!(bond["slaves"][1][same], known["slaves"][1][same], "{same}");
    }

    // `show` reports a fault on which no agent acts.
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    let dead = "bond0: its active slave enp0s9 has no link, and no other has one";
    eventually("a warning", || show(&[]).unwrap(), |shown| shown.contains(dead));
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    let dead = "bond0: its active slave enp0s9 has no link, and the carrier guard is off: it carries nothing until an agent runs";
    eventually("a warning", || show(&[]).unwrap(), |shown| shown.contains(dead));

    // A line that was incomplete when the agent died is skipped.
    let file = run_directory(&lab.host).join("bond0/receipts.ndjson");
    let mut torn = fs::OpenOptions::new().append(true).open(&file).unwrap();
    torn.write_all(b"{\"version\":1,\"bond\":\"bo").unwrap();
    assert_eq!(receipts(&lab.host).last(), Some(&before));

    let error = show(&["nosuch"]).unwrap_err().to_string();
    assert!(error.contains("nosuch: no agent left a bond of this name behind"), "{error}");
    let error = show(&["--proc"]).unwrap_err().to_string();
    assert!(error.contains("--proc shows options, which only an agent knows"), "{error}");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    assert!(!file.exists());
    assert_eq!(show(&[]).unwrap(), nothing);
}

/// A verb of a stopped agent ends within this time: the time limit of a query, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn while_the_agent_is_stopped_the_maps_and_the_receipts_are_read() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &[]);
    xbond.set(BOND, "active_slave=enp0s9").unwrap();
    xbond.pause().unwrap();
    let silent = format!("the agent (pid {}) does not answer", xbond.pid());
    let start = Instant::now();
    for arguments in [&["show"][..], &["show", BOND]] {
        let shown = cli(&lab.host, arguments).unwrap();
        let (first, rest) = shown.split_once('\n').unwrap();
        assert_eq!(first, format!("{silent}: from the pinned maps"));
        assert!(rest.starts_with("bond0: active slave enp0s9, carrier up"), "{shown}");
    }
    let report = json(&cli(&lab.host, ["show", "-j"]).unwrap());
    conforms("report", &report);
    assert_eq!((text(&report["no_answer"]), text(&report["source"])), (&*silent, "maps"));
    lab.cut("enp0s9", Cut::Carrier).unwrap();
    let switched = |shown: &String| shown.contains("active slave enp0s8");
    eventually("a failover by the clock", || cli(&lab.host, ["show"]).unwrap(), switched);
    let output = lab.host.command(binary().unwrap()).args(["log", BOND]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains(&silent) && said.contains("1 failover not listed yet"),
        "{said}"
    );
    assert!(String::from_utf8(output.stdout).unwrap().contains("enp0s9"), "{said}");
    for verb in [&["export", "ip", BOND][..], &["monitor"], &["top", "--once"]] {
        let (code, said) = xbond_ends(&lab.host, verb);
        assert!(code == Some(2) && said.contains(&silent), "{verb:?}: {said}");
    }
    let doctor = lab.host.command(binary().unwrap()).args(["doctor", "enp0s8"]).output().unwrap();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains(&silent), "{doctor:?}");
    assert!(start.elapsed() < 8 * SOON, "{:?}", start.elapsed());
    xbond.signal(Signal::SIGCONT).unwrap();
    let report = eventually(
        "an answer",
        || json(&cli(&lab.host, ["show", "-j"]).unwrap()),
        |report| report["source"] == "agent",
    );
    assert_eq!(report["no_answer"], Value::Null);
    xbond.stop().unwrap();
}

/// What a starting agent looks like: it has the lock of its directory, and no socket yet.
#[test]
fn while_an_agent_starts_the_maps_and_the_receipts_are_read() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    bond(&lab, Datapath::Tc, &[]).kill().unwrap();
    let lock = fs::OpenOptions::new().write(true).open(run_directory(&lab.host).join("lock")).unwrap();
    let lock = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap();
    let starting = format!("an agent is starting (pid {}), or ending", std::process::id());
    let shown = cli(&lab.host, ["show"]).unwrap();
    assert!(
        shown.starts_with(&format!("{starting}: from the pinned maps\nbond0: active slave enp0s8")),
        "{shown}"
    );
    let output = lab.host.command(binary().unwrap()).args(["log", BOND]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains(&starting), "{said}");
    let (code, said) = xbond_ends(&lab.host, &["export", "ip", BOND]);
    assert!(code == Some(2) && said.contains(&starting), "{said}");
    drop(lock);
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn without_an_agent_xdp_is_read_too() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = common::lab(Datapath::Xdp, Policy::default());
    bond(&lab, Datapath::Xdp, &[]).kill().unwrap();
    let report = json(&cli(&lab.host, ["show", "-j"]).unwrap());
    conforms("report", &report);
    assert_eq!(report["bonds"][0]["datapath"], "xdp");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn monitor_prints_events() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = unguarded(&lab, &[]);
    let (all, state) = Monitor::start(&lab.host, &["-j"]);
    let state = json(&state);
    conforms("event", &state);
    assert_eq!(
        (text(&state["bond"]), text(&state["active_slave"]), &state["carrier"]),
        (BOND, "enp0s8", &true.into())
    );
    let (one, state) = Monitor::start(&lab.host, &[BOND]);
    assert!(state.ends_with("bond0: active slave enp0s8, carrier up"), "{state}");

    xbond.set(BOND, "updelay=100").unwrap();
    let event = all.next_of("option");
    assert_eq!(
        (text(&event["option"]), text(&event["value"]), &event["slave"]),
        ("updelay", "100", &Value::Null)
    );
    xbond.cli(["set", BOND, "--slave", "enp0s9", "prio=5"]).unwrap();
    // enp0s9 has the higher prio now. Either of the two may be reported first.
    let mut events = [(); 2].map(|()| all.next_of_either(["option", "failover"]));
    events.sort_by_key(|event| text(&event["event"]).to_owned());
    assert_eq!(text(&events[0]["receipt"]["chosen"]), "prio");
    assert_eq!((text(&events[1]["slave"]), text(&events[1]["option"])), ("enp0s9", "prio"));

    lab.cut("enp0s9", Cut::Carrier).unwrap();
    let event = all.next_of("link");
    assert_eq!((text(&event["slave"]), text(&event["mii_status"])), ("enp0s9", "down"));
    let event = all.next_of("failover");
    assert_eq!((text(&event["receipt"]["from"]), text(&event["receipt"]["to"])), ("enp0s9", "enp0s8"));
    let receipt = receipts(&lab.host).last().unwrap().clone();
    assert_eq!(receipt, without_peers(event["receipt"].clone()));
    lab.reconnect("enp0s9", Cut::Carrier).unwrap();
    let event = all.next_of("link");
    assert_eq!((text(&event["mii_status"]), &event["delay_ms"]), ("going back", &100.into()));

    xbond.cli(["del-slave", BOND, "enp0s9"]).unwrap();
    let event = all.next_of("slave");
    assert_eq!((text(&event["slave"]), text(&event["change"])), ("enp0s9", "left"));
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    assert_eq!(all.next_of("carrier")["carrier"], false);

    // The text output has the same events, in lines.
    let line = || one.next().split_once("bond0: ").unwrap().1.to_owned();
    assert_eq!(line(), "updelay=100");
    // Here, too, either may come first.
    let mut lines = [line(), line()];
    lines.sort();
    let [failover, option] = lines;
    assert_eq!(option, "enp0s9: prio=5");
    assert!(failover.starts_with("enp0s9 instead of enp0s8: option changed, "), "{failover}");

    one.interrupt();
    let (status, said) = one.end();
    assert!(status.success() && said.is_empty(), "{status} {said}");
    xbond.stop().unwrap();
    assert_eq!(all.next_of("bond")["change"], "down");
    let (status, said) = all.end();
    assert_eq!(status.code(), Some(2));
    assert_eq!(said, "xbond: the agent has ended; bonds that it kept run without it: see xbond show\n");

    let (other, said) = xbond_ends(&lab.host, &["monitor"]);
    assert_eq!((other, said.contains("no agent runs")), (Some(2), true), "{said}");
}

fn xbond_ends(host: &NetNs, arguments: &[&str]) -> (Option<i32>, String) {
    let output = host.command(binary().unwrap()).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn monitor_reports_that_the_agent_was_killed() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let (code, said) = xbond_ends(&lab.host, &["monitor", "nosuch"]);
    assert_eq!((code, said.as_str()), (Some(2), "xbond: nosuch: no such bond; `xbond show` lists them\n"));
    let (monitor, _) = Monitor::start(&lab.host, &[]);
    xbond.kill().unwrap();
    let (status, said) = monitor.end();
    assert_eq!((status.code(), said.contains("the agent has ended")), (Some(2), true), "{said}");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

/// Sends one request on the control socket, on its own connection.
fn ask(host: &NetNs, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(run_directory(host).join("xbond.sock")).unwrap();
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The agent waits for no reader, and reports to the reader how many events were lost.
#[test]
fn a_lagging_reader_is_notified_and_disconnected() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let mut slow = ask(&lab.host, "GET /v1/events HTTP/1.1\r\nHost: xbond\r\n\r\n");
    // It listens: the answer has begun.
    let mut first = [0; 1];
    slow.read_exact(&mut first).unwrap();

    // More than sockets and the agent hold, but never more at once than a reader may lag behind.
    let change = |value: u32| {
        let settings = common::six_options(value).map(|(option, value)| (option, value.to_string()));
        let body = serde_json::json!({ "set": settings }).to_string();
        format!(
            "POST /v1/bonds/bond0/options HTTP/1.1\r\nHost: xbond\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        )
    };
    // The agent ends connections that take nothing for ten seconds: they come in half of that time.
    for value in [3, 4].into_iter().cycle().take(700) {
        let mut answer = String::new();
        ask(&lab.host, &change(value)).read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(active_slave(&xbond).as_deref(), Some("enp0s8"));

    let mut reported = String::new();
    let mut reader = BufReader::new(slow);
    // The end of a chunked body.
    while !reported.ends_with("\r\n0\r\n") {
        assert_ne!(reader.read_line(&mut reported).unwrap(), 0, "the end of the answer");
    }
    let lines: Vec<_> = reported.lines().filter(|line| line.starts_with('{')).collect();
    let last = json(lines.last().unwrap());
    conforms("event", &last);
    assert_eq!(text(&last["event"]), "lagged");
    let missed = last["missed"].as_u64().unwrap() as usize;
    // The other two lines are the state and the last line.
    let reported = lines.len() - 2;
    assert!(
        reported > 256 && missed > 0 && reported + missed <= 700 * 6,
        "{missed} missed, {reported} reported"
    );
    xbond.stop().unwrap();
}

/// Sends one request to a TCP port of the namespace.
fn ask_port(host: &NetNs, address: &str, line: &str) -> anyhow::Result<String> {
    let request = format!("{line} HTTP/1.1\r\nHost: xbond\r\nConnection: close\r\n\r\n");
    host.run(|| {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}

/// A reload changes the address.
#[test]
fn metrics_move_with_the_files() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    lab.host.ip("link set lo up").unwrap();
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let bond = "[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n";
    let write = |agent: &str| fs::write(file.path(), format!("version = 1\n{agent}{bond}")).unwrap();
    let at = |port: u16| format!("[agent]\nmetrics = \"127.0.0.1:{port}\"\n");
    let is_served = |port: u16| {
        let answer = ask_port(&lab.host, &format!("127.0.0.1:{port}"), "GET /metrics");
        answer.is_ok_and(|answer| answer.contains("xbond_bond_carrier"))
    };
    write(&at(9815));
    let xbond = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    assert!(is_served(9815));
    write(&at(9816));
    assert_eq!(xbond.cli(["reload"]).unwrap(), "metrics are served at 127.0.0.1:9816\n");
    assert_eq!((is_served(9815), is_served(9816)), (false, true));
    // An address that is not available changes nothing.
    let taken = lab.host.run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9817")?)).unwrap();
    write(&at(9817));
    let error = xbond.cli(["reload"]).unwrap_err().to_string();
    assert!(error.contains("cannot serve metrics at 127.0.0.1:9817: Address already in use"), "{error}");
    assert!(is_served(9816));
    drop(taken);
    write("");
    assert_eq!(xbond.cli(["reload"]).unwrap(), "metrics are served on the control socket only\n");
    assert!(!is_served(9816));
    xbond.stop().unwrap();
}

/// Files are current after each change, also those of a directory that a reload names, and are removed with their bonds and
/// at the end.
#[test]
fn files_for_other_programs_follow_the_bonds() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let scene = tempfile::tempdir().unwrap();
    let at = |name: &str| scene.path().join(name);
    for directory in ["textfile", "proc", "moved"] {
        fs::create_dir(at(directory)).unwrap();
    }
    let read = |name: &str| fs::read_to_string(at(name)).unwrap_or_default();
    let write =
        |agent: &str, bonds: &str| fs::write(at("a.toml"), format!("version = 1\n{agent}{bonds}")).unwrap();
    let bond = "[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n";
    let agent = |proc_files: &str| format!("[agent]\nproc_files = \"{}\"\n", at(proc_files).display());
    write(&agent("proc"), bond);
    let (file, textfile) = (at("a.toml"), at("textfile"));
    let arguments = ["-c", file.to_str().unwrap(), "--textfile", textfile.to_str().unwrap()];
    let xbond = Xbond::run(&lab.host, arguments).unwrap();
    let both_up = "node_bonding_slaves{master=\"bond0\"} 2.0\n";
    common::eventually("the textfile", || read("textfile/xbond.prom"), |text| text.contains(both_up));
    common::eventually(
        "the file of the bond",
        || read("proc/bond0"),
        |text| text.contains("Active Slave: enp0s8\n"),
    );
    lint(&read("textfile/xbond.prom"));
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    let one_up = "node_bonding_active{master=\"bond0\"} 1.0\n";
    common::eventually("the textfile", || read("textfile/xbond.prom"), |text| text.contains(one_up));
    common::eventually(
        "the file of the bond",
        || read("proc/bond0"),
        |text| text.contains("Active Slave: enp0s9\n"),
    );
    assert_eq!(read("proc/bond0"), xbond.cli(["show", BOND, "--proc"]).unwrap());
    write(&agent("moved"), bond);
    let moved = format!("proc_files: written to {}\n", at("moved").display());
    assert_eq!(xbond.cli(["reload"]).unwrap(), moved);
    common::eventually("the former file", || at("proc/bond0").exists(), |exists| !exists);
    common::eventually("the new file", || at("moved/bond0").exists(), |exists| *exists);
    xbond.cli(["down", BOND]).unwrap();
    common::eventually("the file of the bond", || at("moved/bond0").exists(), |exists| !exists);
    assert!(at("textfile/xbond.prom").exists());
    xbond.stop().unwrap();
    assert!(!at("textfile/xbond.prom").exists());
}

/// What cannot be written is reported until it can be.
#[test]
fn files_that_cannot_be_written_are_reported() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    let scene = tempfile::tempdir().unwrap();
    let directory = scene.path().join("files");
    let arguments = ["--proc-files", directory.to_str().unwrap()];
    let xbond = bond_with(&lab, Datapath::Tc, &[], &arguments);
    let said = format!("proc_files: {}: No such file or directory", directory.display());
    xbond.wait_for(&said).unwrap();
    let shown = || xbond.cli(["show", "-j"]).unwrap();
    assert!(shown().contains(&said), "{}", shown());
    fs::create_dir(&directory).unwrap();
    common::eventually("the report", shown, |shown| !shown.contains("proc_files"));
    assert!(directory.join(BOND).exists());
    xbond.stop().unwrap();
}

#[test]
fn metrics_are_served_where_asked_for() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = Lab::scenario().unwrap();
    lab.host.ip("link set lo up").unwrap();
    let xbond = bond_with(&lab, Datapath::Tc, &[], &["--metrics", "127.0.0.1:9815", "--guard", "off"]);
    let get = |line: &str| ask_port(&lab.host, "127.0.0.1:9815", line).unwrap();
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    receipt_to(&lab.host, "enp0s9");
    let answer = get("GET /metrics");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        r#"xbond_bond_carrier{bond="bond0"} 1.0"#,
        r#"xbond_bond_slaves_up{bond="bond0"} 1.0"#,
        r#"xbond_slave_active{bond="bond0",slave="enp0s9"} 1.0"#,
        r#"xbond_slave_mii_status{bond="bond0",slave="enp0s8",status="down"} 1.0"#,
        r#"xbond_failovers_total{bond="bond0",reason="link_failed"} 1"#,
        r#"xbond_slave_link_failures_total{bond="bond0",slave="enp0s8"} 1"#,
        "# TYPE xbond_slave_link_failures_total counter",
    ] {
        assert!(body.lines().any(|found| found == line), "no {line} in\n{body}");
    }
    let mut answer = String::new();
    let accept = "Accept: application/openmetrics-text; version=1.0.0";
    ask(&lab.host, &format!("GET /metrics HTTP/1.1\r\nHost: xbond\r\n{accept}\r\nConnection: close\r\n\r\n"))
        .read_to_string(&mut answer)
        .unwrap();
    assert!(
        answer.contains("content-type: application/openmetrics-text") && answer.ends_with("# EOF\n"),
        "{answer}"
    );
    assert!(answer.contains(r#"xbond_slave_active{bond="bond0",slave="enp0s9"} 1.0"#), "{answer}");
    // Any host that reaches the port may use it.
    for (line, status) in [
        ("GET /v1/bonds", 404),
        ("DELETE /v1/bonds/bond0", 404),
        ("POST /metrics", 405),
        ("GET /v1/events", 404),
    ] {
        let answer = get(line);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{line}: {answer}");
    }
    lint(body);
    xbond.stop().unwrap();

    let taken = lab.host.run(|| Ok(std::net::TcpListener::bind("127.0.0.1:9815")?)).unwrap();
    let arguments = ["--bond", BOND, "--slave", "enp0s8", "-o", "miimon=100", "--metrics", "127.0.0.1:9815"];
    let xbond = Xbond::run(&lab.host, arguments).unwrap();
    let said = "metrics are not served: cannot serve metrics at 127.0.0.1:9815: Address already in use";
    let shown = || xbond.cli(["show"]).unwrap();
    assert!(shown().replace("\n ", "").contains(said), "{}", shown());
    xbond.wait_for(said).unwrap();
    drop(taken);
    common::eventually("metrics", shown, |shown| !shown.contains("not served"));
    assert!(get("GET /metrics").contains("xbond_bond_carrier"));
    xbond.stop().unwrap();
}

/// Returns promtool, if it is installed; it is in Debian's package prometheus.
fn promtool() -> Option<Command> {
    let found =
        Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip("promtool is not installed (Debian: package prometheus)");
    }
    found.then(|| Command::new("promtool"))
}

/// Checks names, help, types and units against the rules of Prometheus, whose own format promtool reads.
fn lint(metrics: &str) {
    let Some(mut promtool) = promtool() else { return };
    let mut child =
        promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{complaints}\n{metrics}");
}

#[test]
fn alerts_are_raised_when_they_should_be() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus");
    for arguments in [["check", "rules", "xbond.rules.yml"], ["test", "rules", "xbond.test.yml"]] {
        let Some(mut promtool) = promtool() else { return };
        let output = promtool.args(arguments).current_dir(&rules).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
}
