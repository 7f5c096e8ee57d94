//! Hostile, slow and lost clients of the control socket.

use super::*;

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
    /// their connections, each would hold its place until its time limit.
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
        answer.ends_with(r#"{"error":"the request was not complete within 5 seconds","kind":"too_slow"}"#),
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
fn a_terminating_agent_completes_started_requests() {
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
