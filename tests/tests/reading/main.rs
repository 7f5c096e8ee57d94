//! What administrators and programs read of a running bond, and of one without an agent: `show`, `log`, `monitor`,
//! metrics.

#[path = "../common/mod.rs"]
mod common;
mod metrics;
mod monitor;
mod receipts;

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
    (r"(?m)^ +(?:no peer was confirmed|\d+ of \d+ peers? heard)[^\n]*\n", ""),
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

use transcript;

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

/// Sends one request on the control socket, on its own connection.
fn ask(host: &NetNs, request: &str) -> UnixStream {
    let mut stream = UnixStream::connect(run_directory(host).join("xbond.sock")).unwrap();
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Returns what `xbond show bond0` prints with these arguments.
type Show<'a> = &'a dyn Fn(&[&str]) -> String;

fn shows_details(show: Show<'_>) {
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
}

fn shows_counters(show: Show<'_>) {
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
}

fn shows_json(lab: &Lab, show: Show<'_>) {
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
    shows_details(&show);
    shows_counters(&show);
    for line in show(&["-d", "-s"]).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }

    shows_json(&lab, &show);
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

fn shows_the_maps(host: &NetNs) {
    let show = |arguments: &[&str]| cli(host, [&["show"], arguments].concat());
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
      carrier guard off: when the last agent ended
      clock off: when the last agent ended
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
}

#[test]
fn show_and_log_read_maps_and_receipts_without_an_agent() {
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
    shows_the_maps(&lab.host);
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
fn show_and_log_read_maps_and_receipts_of_a_stopped_agent() {
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

/// Another process acts as a starting agent: it has the lock of the directory, and no socket yet.
#[test]
fn show_and_log_read_maps_and_receipts_while_an_agent_starts() {
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
fn show_reads_an_xdp_bond_without_an_agent() {
    skip_if_unable!();
    let _others = common::concurrently();
    let lab = common::lab(Datapath::Xdp, Policy::default());
    bond(&lab, Datapath::Xdp, &[]).kill().unwrap();
    let report = json(&cli(&lab.host, ["show", "-j"]).unwrap());
    conforms("report", &report);
    assert_eq!(report["bonds"][0]["datapath"], "xdp");
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

fn xbond_ends(host: &NetNs, arguments: &[&str]) -> (Option<i32>, String) {
    let output = host.command(binary().unwrap()).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}
