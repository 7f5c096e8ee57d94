//! How an agent ends, regularly or by a kill, and what it leaves behind.

mod snapshot;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use snapshot::Snapshot;
use xbond_tests::{
    HOST_V4, Lab, NetNs, Nic, PEER_V4, TwoWay, WAIT_LIMIT, Xbond, has_tcx, skip, skip_if_unable, xbond::cli,
};

const BOND0: [&str; 10] = [
    "--bond",
    "bond0",
    "--slave",
    "enp0s8",
    "--slave",
    "enp0s9",
    "-o",
    "miimon=100",
    "--address",
    "192.168.99.101/24",
];

/// Creates NICs with a state to restore: one is up, with addresses and a route, the other has its own MTU.
fn lab() -> Lab {
    let lab = Lab::scenario().unwrap();
    dress(&lab.host);
    lab
}

fn dress(host: &NetNs) {
    snapshot::open_once(host);
    host.ip("link set enp0s8 up").unwrap();
    host.ip("address add 192.0.2.8/24 dev enp0s8").unwrap();
    host.ip("address add 2001:db8::8/64 dev enp0s8 nodad").unwrap();
    host.ip("route add 198.51.100.0/24 via 192.0.2.1 dev enp0s8").unwrap();
    host.ip("link set enp0s9 mtu 1400").unwrap();
    snapshot::await_ipv6(host, "enp0s8");
}

fn pins(host: &NetNs) -> PathBuf {
    Path::new("/sys/fs/bpf/xbond").join(host.cookie().unwrap().to_string())
}

fn run_directory(host: &NetNs) -> PathBuf {
    Path::new("/run/xbond").join(host.cookie().unwrap().to_string())
}

/// A step of bring-up or tear-down, as another process sees it.
enum Step {
    /// This path exists.
    Made(PathBuf),
    /// This path no longer exists.
    Gone(PathBuf),
    /// This interface exists.
    Device(&'static str),
    NoDevice(&'static str),
    /// This much time has passed.
    After(Duration),
}

impl Step {
    /// Waits for the step, or for the end of the agent. Polls without a pause: steps are short.
    fn wait(&self, host: &NetNs, agent: &Xbond<'_>) {
        let start = Instant::now();
        let status = PathBuf::from(format!("/proc/{}/status", agent.pid()));
        let has_device = |name: &str| nix::net::if_::if_nametoindex(name).is_ok();
        let came = |step: &Self| match step {
            Self::Made(path) => path.symlink_metadata().is_ok(),
            Self::Gone(path) => path.symlink_metadata().is_err(),
            Self::Device(name) => has_device(name),
            Self::NoDevice(name) => !has_device(name),
            Self::After(time) => start.elapsed() >= *time,
        };
        let ended = || fs::read_to_string(&status).map_or(true, |status| status.contains("\nState:\tZ"));
        let wait = || {
            while !came(self) && !ended() {
                assert!(start.elapsed() < WAIT_LIMIT, "{self:?} was not reached");
                thread::yield_now();
            }
            Ok(())
        };
        host.run(wait).unwrap();
    }
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Made(path) => write!(f, "{} made", path.display()),
            Self::Gone(path) => write!(f, "{} gone", path.display()),
            Self::Device(name) => write!(f, "{name} made"),
            Self::NoDevice(name) => write!(f, "{name} gone"),
            Self::After(time) => write!(f, "{time:?}"),
        }
    }
}

/// Lists every trace of bring-up in the order in which they appear.
fn steps_up(host: &NetNs) -> Vec<Step> {
    let run = run_directory(host);
    let pins = pins(host).join("bond0");
    let mut steps = vec![
        Step::Made(run.join("bond0")),
        Step::Made(run.join("bond0/found.json")),
        Step::Made(pins.clone()),
    ];
    steps.extend(["ACTIVE", "TX_PORTS"].map(|map| Step::Made(pins.join(map))));
    steps.push(Step::Device("bond0"));
    for program in ["port_tx", "slave0_rx", "slave1_rx"] {
        steps.push(Step::Made(pins.join(format!("{program}_prog"))));
        if has_tcx() {
            steps.push(Step::Made(pins.join(format!("{program}_link"))));
        }
    }
    steps.push(Step::Made(run.join("xbond.sock")));
    steps
}

/// Lists every trace of tear-down.
fn steps_down(host: &NetNs) -> Vec<Step> {
    let run = run_directory(host);
    let pins = pins(host).join("bond0");
    let end = if has_tcx() { "link" } else { "prog" };
    let programs = ["port_tx", "slave0_rx", "slave1_rx"].map(|program| format!("{program}_{end}"));
    let gone = |pin: &str| Step::Gone(pins.join(pin));
    let mut steps = vec![gone("ACTIVE")];
    steps.extend(programs.iter().map(|pin| gone(pin)));
    steps.extend([Step::Gone(pins), Step::NoDevice("bond0"), Step::NoDevice("bond0-port")]);
    steps.extend([Step::Gone(run.join("bond0/found.json")), Step::Gone(run.join("bond0"))]);
    steps
}

/// Returns `count` moments spread over `time`.
fn spread(time: Duration, count: u32) -> impl Iterator<Item = Step> {
    (0..count).map(move |place| Step::After(time * place / count))
}

/// Removes what is left of bond0, if anything is.
fn clean_up(host: &NetNs) {
    if snapshot::files(host).contains("bond0") {
        cli(host, ["down", "bond0", "--force"]).unwrap();
    }
}

/// Runs an agent up to a step, sends the signal, and waits for its end.
fn interrupt(host: &NetNs, step: &Step, signal: Signal) {
    let mut agent = Xbond::start(host, BOND0).unwrap();
    step.wait(host, &agent);
    agent.signal(signal).unwrap();
    agent.wait().unwrap();
}

/// Returns whether the agent ignores the signal. A shell's background processes do, and so does the agent until it
/// listens for signals.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 << (signal as u32 - 1) != 0
}

#[test]
fn the_ready_line_of_a_bond_names_missing_slaves() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let file = toml("[bond.bond0]\nslaves = [\"enp0s8\", \"late1\", \"late2\"]\nmiimon = 100\n");
    let xbond = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
    let ready = xbond.wait_for("bond0 ready: ").unwrap();
    assert!(ready.ends_with("; not enslaved yet: late1, late2"), "{ready}");
    xbond.stop().unwrap();
}

#[test]
fn an_interrupted_bring_up_is_undone() {
    skip_if_unable!();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        if is_ignored(signal) {
            skip(&format!("{signal} is ignored here"));
            continue;
        }
        let lab = lab();
        let host = &lab.host;
        let before = Snapshot::of(host);
        let start = Instant::now();
        Xbond::run(host, BOND0).unwrap().stop().unwrap();
        let steps = steps_up(host);
        for step in steps.into_iter().chain(spread(start.elapsed(), 12)) {
            interrupt(host, &step, signal);
            before.assert_holds(host, &format!("{signal} at {step:?}"));
        }
    }
}

/// The agent may have read the files before they were changed.
#[test]
fn a_hangup_at_any_step_of_bring_up_is_followed_by_a_reload() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let before = Snapshot::of(host);
    let file = toml("[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\n");
    for step in steps_up(host) {
        let agent = Xbond::start(host, ["-c", file.path().to_str().unwrap()]).unwrap();
        step.wait(host, &agent);
        agent.signal(Signal::SIGHUP).unwrap();
        agent.wait_for("reload: nothing differs from the files").unwrap();
        agent.stop().unwrap();
        before.assert_holds(host, &format!("SIGHUP at {step:?}"));
    }
}

#[test]
fn down_force_restores_after_a_kill_at_any_step_of_bring_up() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let before = Snapshot::of(host);
    let start = Instant::now();
    Xbond::run(host, BOND0).unwrap().stop().unwrap();
    let mut left = 0;
    for step in steps_up(host).into_iter().chain(spread(start.elapsed(), 24)) {
        interrupt(host, &step, Signal::SIGKILL);
        left += u32::from(snapshot::files(host).contains("bond0"));
        clean_up(host);
        before.assert_holds(host, &format!("SIGKILL at {step:?}, then xbond down --force"));
    }
    assert!(left >= 10, "only {left} of the kills hit a half-created bond");
}

#[test]
fn down_force_restores_after_a_kill_at_any_step_of_tear_down() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let before = Snapshot::of(host);
    let agent = Xbond::run(host, BOND0).unwrap();
    let start = Instant::now();
    agent.stop().unwrap();
    for step in steps_down(host).into_iter().chain(spread(start.elapsed(), 8)) {
        let mut agent = Xbond::run(host, BOND0).unwrap();
        agent.signal(Signal::SIGTERM).unwrap();
        step.wait(host, &agent);
        agent.signal(Signal::SIGKILL).unwrap();
        agent.wait().unwrap();
        clean_up(host);
        before.assert_holds(host, &format!("SIGKILL in tear-down at {step:?}, then xbond down --force"));
    }
}

#[test]
fn down_force_can_be_repeated_after_a_kill() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let before = Snapshot::of(host);
    let mut time = None;
    for place in 0..10 {
        Xbond::run(host, BOND0).unwrap().kill().unwrap();
        let start = Instant::now();
        let binary = xbond_tests::xbond::binary().unwrap();
        let mut force = host.command(binary).args(["down", "bond0", "--force"]).spawn().unwrap();
        match time {
            // The first one shows how long it takes.
            None => {
                assert!(force.wait().unwrap().success());
                time = Some(start.elapsed());
            }
            Some(time) => {
                thread::sleep(time * place / 10);
                force.kill().unwrap();
                force.wait().unwrap();
            }
        }
        clean_up(host);
        before.assert_holds(host, &format!("SIGKILL at {place} tenths of xbond down --force"));
    }
}

#[test]
fn a_killed_agent_loses_no_packet_and_down_suggests_force() {
    skip_if_unable!();
    for policy in ["none", "active"] {
        let lab = lab();
        let host = &lab.host;
        let before = Snapshot::of(host);
        let option = format!("fail_over_mac={policy}");
        let arguments: Vec<_> = BOND0.into_iter().chain(["-o", &option]).collect();
        let agent = Xbond::run(host, &arguments).unwrap();
        let traffic = TwoWay::start((host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), 2_000).unwrap();
        traffic.wait_for_more(500).unwrap();
        agent.kill().unwrap();
        traffic.wait_for_more(2_000).unwrap();
        let down = cli(host, ["down", "bond0"]).unwrap_err().to_string();
        assert!(down.contains("xbond down bond0 --force"), "{down}");
        traffic.wait_for_more(1_000).unwrap();
        for direction in traffic.stop().unwrap() {
            assert_eq!((direction.lost, direction.duplicated), (0, 0), "{policy}: {direction:?}");
        }
        cli(host, ["down", "bond0", "--force"]).unwrap();
        before.assert_holds(host, policy);
    }
}

fn toml(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    fs::write(file.path(), format!("version = 1\n{text}")).unwrap();
    file
}

#[test]
fn a_kept_bond_runs_without_its_agent() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let before = Snapshot::of(host);
    let file = toml(
        "[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\non_exit = \"keep\"\n\
         addresses = [\"192.168.99.101/24\"]\n",
    );
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Xbond::run(host, ["-c", file.path().to_str().unwrap()]).unwrap();
        let traffic = TwoWay::start((host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), 2_000).unwrap();
        traffic.wait_for_more(500).unwrap();
        agent.signal(signal).unwrap();
        assert!(agent.wait().unwrap().success());
        assert!(!run_directory(host).join("xbond.sock").exists());
        traffic.wait_for_more(1_000).unwrap();
        for direction in traffic.stop().unwrap() {
            assert_eq!((direction.lost, direction.duplicated), (0, 0), "{direction:?}");
        }
        assert_eq!(host.link("bond0").unwrap().mac, lab.mac("enp0s8").unwrap());
        cli(host, ["down", "bond0", "--force"]).unwrap();
        before.assert_holds(host, "a kept bond after xbond down --force");
    }
}

/// As on kernels before 6.6: filters stay attached whatever happens to the agent.
#[test]
fn filters_of_clsact_carry_bond_after_bond() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let before = Snapshot::of(host);
    let file = toml(
        "[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 100\naddresses = [\"192.168.99.101/24\"]\n",
    );
    let run = || Xbond::run(host, ["--clsact", "-c", file.path().to_str().unwrap()]).unwrap();
    for time in ["first", "with a clsact qdisc that is there already"] {
        let agent = run();
        let traffic = TwoWay::start((host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), 2_000).unwrap();
        traffic.wait_for_more(500).unwrap();
        agent.kill().unwrap();
        let next = run();
        traffic.wait_for_more(1_000).unwrap();
        for direction in traffic.stop().unwrap() {
            assert_eq!((direction.lost, direction.duplicated), (0, 0), "{time}: {direction:?}");
        }
        next.stop().unwrap();
        before.assert_holds(host, time);
        for name in ["enp0s8", "enp0s9"] {
            let filters = host.exec(&format!("tc filter show dev {name} ingress")).unwrap();
            assert_eq!(filters, "", "{time}: {name}");
        }
    }
}

#[test]
fn agents_of_different_namespaces_do_not_meet() {
    skip_if_unable!();
    let labs = [lab(), lab()];
    let before = labs.each_ref().map(|lab| Snapshot::of(&lab.host));
    let [first, second] = labs.each_ref().map(|lab| Xbond::run(&lab.host, BOND0).unwrap());
    let error = cli(&labs[0].host, ["run"].iter().chain(&BOND0)).unwrap_err().to_string();
    assert!(error.contains("an agent runs in this network namespace already"), "{error}");
    first.set("bond0", "num_grat_arp=7").unwrap();
    let rounds =
        |agent: &Xbond<'_>| agent.show("bond0").unwrap()["bonds"][0]["options"]["num_grat_arp"].clone();
    assert_eq!([&first, &second].map(rounds), [7, 1]);
    first.cli(["down", "bond0"]).unwrap();
    assert!(labs[0].host.link("bond0").is_err());
    let traffic =
        TwoWay::start((&labs[1].host, HOST_V4.into()), (&labs[1].peer, PEER_V4.into()), 1_000).unwrap();
    first.stop().unwrap();
    before[0].assert_holds(&labs[0].host, "the first agent");
    traffic.wait_for_more(300).unwrap();
    assert!(traffic.stop().unwrap().iter().all(|direction| direction.lost == 0));
    second.stop().unwrap();
    before[1].assert_holds(&labs[1].host, "the second agent");
}

#[test]
fn an_agent_has_the_least_files_and_capabilities() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let agent = Xbond::run(host, BOND0).unwrap();
    let run = run_directory(host);
    let mode = |path: PathBuf| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
    for file in ["bond0/found.json", "lock"] {
        assert_eq!(mode(run.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(run.join("xbond.sock")), if has_readers() { 0o660 } else { 0o600 });
    assert_eq!(mode(pins(host)), 0o700);
    assert_eq!(mode(pins(host).join("bond0")), 0o700);
    for pin in fs::read_dir(pins(host).join("bond0")).unwrap() {
        assert_eq!(mode(pin.unwrap().path()), 0o600);
    }

    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39.
    let kept = format!("{:016x}", 1u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39);
    let none = format!("{:016x}", 0);
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    let threads: Vec<_> = tasks.map(|task| task.unwrap().path()).collect();
    assert!(threads.len() > 1);
    for thread in threads {
        let status = fs::read_to_string(thread.join("status")).unwrap();
        let sets =
            [("CapEff", &kept), ("CapPrm", &kept), ("CapBnd", &kept), ("CapInh", &none), ("CapAmb", &none)];
        for (set, wanted) in sets {
            let line = status.lines().find(|line| line.starts_with(set)).unwrap();
            assert!(line.ends_with(wanted.as_str()), "{line}, wanted {wanted}");
        }
    }
    agent.stop().unwrap();
    assert!(!run.join("xbond.sock").exists());
}

/// Returns whether this machine has the group whose members may use the socket.
fn has_readers() -> bool {
    nix::unistd::Group::from_name("xbond").is_ok_and(|group| group.is_some())
}

/// Returns the agent's answer to these bytes: status and body.
fn ask(socket: &Path, request: &[u8]) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(WAIT_LIMIT)).unwrap();
    // The agent may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, body.to_owned())
}

/// Returns requests with their name, the status of their answer, and a part of its sentence.
fn malformed_requests() -> Vec<(&'static str, Vec<u8>, u16, &'static str)> {
    let request = |line: &str, body: &str| {
        let headers = "Host: xbond\r\nContent-Type: application/json\r\nConnection: close\r\n";
        let length = body.len();
        format!("{line} HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    const OPTIONS: &str = "POST /v1/bonds/bond0/options";
    let large = format!(r#"{{"set":[["primary","{}"]]}}"#, "x".repeat(70_000));
    let many = format!(r#"{{"set":[{}["miimon","x"]]}}"#, r#"["miimon","50"],"#.repeat(60));
    vec![
        ("no such path", request("GET /v2/bonds", ""), 404, "GET /v1/bonds, POST /v1/bonds"),
        (
            "no such method",
            request("PUT /v1/bonds/bond0", ""),
            404,
            "GET /v1/bonds/NAME, DELETE /v1/bonds/NAME",
        ),
        ("no such bond", request("GET /v1/bonds/nosuch", ""), 404, "nosuch: no such bond"),
        ("another directory", request("GET /v1/bonds/..%2F..%2Fetc", ""), 422, "cannot be a bond"),
        ("not UTF-8", request("GET /v1/bonds/%ff", ""), 400, "UTF-8"),
        ("too large", request(OPTIONS, &large), 413, "length limit"),
        ("not JSON", request(OPTIONS, "miimon=50"), 400, "JSON"),
        ("half of it", request(OPTIONS, r#"{"set":[["miimon","#), 400, "JSON"),
        ("unknown field", request(OPTIONS, r#"{"set":[],"more":1}"#), 422, "more"),
        ("no body", request(OPTIONS, ""), 400, "JSON"),
        ("a bad value at the end", request(OPTIONS, &many), 422, "miimon=x: not a value"),
        ("no HTTP", b"show bond0\n".to_vec(), 400, ""),
        ("noise", vec![0xff; 1 << 20], 400, ""),
    ]
}

fn refuses_strangers(host: &NetNs, socket: &Path) {
    let Some((name, why)) = nobody_asks(socket) else { panic!("the user nobody got no answer") };
    assert_eq!(name, std::io::ErrorKind::PermissionDenied, "{why}");
    // The agent checks the identity of clients, also where the file's mode allows them.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).unwrap();
    let said = host
        .command("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl", "--silent", "--unix-socket"])
        .arg(socket)
        .arg("http://xbond/v1/bonds")
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    let who = if has_readers() { "root and members of group xbond" } else { "root" };
    assert_eq!(said, format!(r#"{{"error":"only {who} may use this socket","kind":"denied"}}"#));
}

#[test]
fn malformed_requests_are_answered_and_disturb_no_other() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let agent = Xbond::run(host, BOND0).unwrap();
    let socket = run_directory(host).join("xbond.sock");
    let before = agent.show("bond0").unwrap()["bonds"][0]["options"].clone();
    let traffic = TwoWay::start((host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), 2_000).unwrap();

    for (what, request, wanted, sentence) in malformed_requests() {
        let (status, body) = ask(&socket, &request);
        assert_eq!(status, wanted, "{what}: {body}");
        if !sentence.is_empty() {
            let failure: serde_json::Value =
                serde_json::from_str(&body).unwrap_or_else(|_| panic!("{what}: {body}"));
            let error = failure["error"].as_str().unwrap();
            assert!(error.contains(sentence), "{what}: no `{sentence}` in: {error}");
            println!("{what}: {error}");
        }
    }
    // A request that never ends, and one whose client disconnects in the middle, delay no other request.
    let mut unfinished = UnixStream::connect(&socket).unwrap();
    unfinished
        .write_all(b"POST /v1/bonds/bond0/options HTTP/1.1\r\nContent-Length: 99\r\n\r\n{\"set\"")
        .unwrap();
    drop(UnixStream::connect(&socket).unwrap().write_all(b"GET /v1/bo"));
    assert_eq!(agent.show("bond0").unwrap()["bonds"][0]["options"], before);
    drop(unfinished);

    refuses_strangers(host, &socket);
    traffic.wait_for_more(500).unwrap();
    for direction in traffic.stop().unwrap() {
        assert_eq!((direction.lost, direction.duplicated), (0, 0), "{direction:?}");
    }
    agent.stop().unwrap();
}

/// Connects as the user nobody: only this thread has that identity for a while.
fn nobody_asks(socket: &Path) -> Option<(std::io::ErrorKind, String)> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            // SAFETY: the system call takes three integers; it changes this thread alone, unlike the C library's
            // function, and the thread ends below.
            let changed = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
            assert_eq!(changed, 0);
            UnixStream::connect(socket).err().map(|error| (error.kind(), error.to_string()))
        });
        worker.join().unwrap()
    })
}

#[test]
fn names_may_contain_dots_and_be_long() {
    skip_if_unable!();
    for (bond, pinned, port) in
        [("bond0.5", "bond0%2E5", "bond0.5-port"), ("bond-of-fifteen", "bond-of-fifteen", "xbp0")]
    {
        let lab = lab();
        let host = &lab.host;
        let before = Snapshot::of(host);
        let arguments = BOND0.map(|word| if word == "bond0" { bond } else { word });
        let agent = Xbond::run(host, arguments).unwrap();
        assert!(host.link(port).is_ok());
        assert!(pins(host).join(pinned).join("ACTIVE").exists());
        assert!(run_directory(host).join(bond).join("found.json").exists());
        agent.set(bond, "num_grat_arp=7").unwrap();
        assert_eq!(agent.show(bond).unwrap()["bonds"][0]["options"]["num_grat_arp"], 7);
        lab.host.ping(PEER_V4.into(), 1).unwrap();
        agent.cli(["down", bond]).unwrap();
        assert!(host.link(bond).is_err() && host.link(port).is_err());
        agent.stop().unwrap();
        before.assert_holds(host, bond);

        Xbond::run(host, arguments).unwrap().kill().unwrap();
        cli(host, ["down", bond, "--force"]).unwrap();
        before.assert_holds(host, &format!("{bond} by force"));
    }
}

#[test]
fn one_agent_has_two_bonds_and_takes_down_one() {
    skip_if_unable!();
    let nics = (0..4).map(|number| Nic::new(&format!("nic{number}"), [2, 0, 0, 0, 1, number]));
    let lab = Lab::builder().nics(nics).build().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    // Names with the same first letters, which are too long for a port's name.
    let names = ["bond-of-fifteen", "bond-of-fiftee2"];
    let bond = |name: &str, slaves: &str, rest: &str| {
        format!("[bond.{name}]\nslaves = [{slaves}]\nmiimon = 100\n{rest}\n")
    };
    let file = toml(&format!(
        "{}{}",
        bond(names[0], r#""nic0", "nic1""#, ""),
        bond(names[1], r#""nic2", "nic3""#, "addresses = [\"192.168.99.101/24\"]\non_exit = \"keep\"")
    ));
    let agent = Xbond::run(host, ["-c", file.path().to_str().unwrap()]).unwrap();
    let mut ports: Vec<_> = host.links().unwrap().into_iter().map(|link| link.name).collect();
    ports.retain(|name| name.starts_with("xbp"));
    ports.sort();
    assert_eq!(ports, ["xbp0", "xbp1"]);
    let traffic = TwoWay::start((host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), 2_000).unwrap();
    traffic.wait_for_more(300).unwrap();
    agent.cli(["down", names[0]]).unwrap();
    assert!(host.link(names[0]).is_err() && host.link("xbp0").is_err());
    assert!(!host.link("nic0").unwrap().is_up() && host.link("nic2").unwrap().is_up());
    let shown = agent.cli(["show", "-j"]).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let left: Vec<_> = shown["bonds"].as_array().unwrap().iter().map(|bond| bond["name"].clone()).collect();
    assert_eq!(left, [names[1]]);
    traffic.wait_for_more(300).unwrap();
    assert!(traffic.stop().unwrap().iter().all(|direction| direction.lost == 0));
    agent.stop().unwrap();

    // The second bond was kept, including its port's name; another long name gets a name of its own, and neither bond
    // ends with the other.
    let third = ["--bond", "bond-of-fiftee3", "--slave", "nic0", "-o", "miimon=100"];
    let agent = Xbond::run(host, third).unwrap();
    assert!(host.link("xbp0").is_ok() && host.link("xbp1").is_ok());
    agent.stop().unwrap();
    assert!(host.link("xbp0").is_err() && host.link("xbp1").is_ok());
    cli(host, ["down", names[1], "--force"]).unwrap();
    before.assert_holds(host, "all bonds down");
}

/// A reader of the agent's output that ends does not terminate the agent.
#[test]
fn an_agent_works_without_a_reader_of_its_output() {
    skip_if_unable!();
    let lab = lab();
    let host = &lab.host;
    let before = Snapshot::of(host);
    let binary = xbond_tests::xbond::binary().unwrap();
    let mut agent = host.command(binary);
    agent.arg("run").args(BOND0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut agent = agent.spawn().unwrap();
    drop((agent.stdout.take(), agent.stderr.take()));
    let deadline = Instant::now() + WAIT_LIMIT;
    let socket = run_directory(host).join("xbond.sock");
    while UnixStream::connect(&socket).is_err() {
        assert!(Instant::now() < deadline && agent.try_wait().unwrap().is_none(), "no agent");
        thread::sleep(Duration::from_millis(10));
    }
    cli(host, ["set", "bond0", "num_grat_arp=3"]).unwrap();
    host.ping(PEER_V4.into(), 1).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(agent.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert!(agent.wait().unwrap().success());
    before.assert_holds(host, "an agent without a reader");
}
