//! Programs with AF_XDP sockets on the slaves follow the active slave: the examples of xbond-follow, its C header, and its
//! watch.

mod common;

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead as _, BufReader, Lines},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use common::{BOND, SLAVES, bond, concurrently, eventually, lab, show, skip, slave, wait_for_active};
use nix::{
    net::if_::if_nametoindex,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use serde_json::Value;
use xbond_follow::{Follower, Watch, Word};
use xbond_tests::{
    Cut, Lab, Mac, NetNs, Policy, Xbond, lab::Datapath, skip_if_unable, time_is_no_measure, wait_limit,
};

/// Returns the path of an example: target/PROFILE/examples/NAME for target/PROFILE/deps/TEST-HASH.
fn path_of(name: &str) -> PathBuf {
    let here = env::current_exe().unwrap();
    here.ancestors().nth(2).unwrap().join("examples").join(name)
}

/// Returns whether to skip a test: a guest has the test program only.
fn is_without_examples() -> bool {
    let is_without = time_is_no_measure().is_some() && !path_of("send").is_file();
    if is_without {
        skip("this machine has neither the examples nor a compiler");
    }
    is_without
}

/// An example that runs in a namespace. It is killed on drop.
struct Example {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Example {
    /// Starts it and waits until it is ready.
    fn start(netns: &NetNs, name: &str, arguments: &[&str]) -> Self {
        let program = path_of(name);
        assert!(program.is_file(), "no {}: `cargo build -p xbond-follow --examples`", program.display());
        Self::run(netns.command(program).args(arguments), "ready")
    }

    fn run(command: &mut Command, first: &str) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut example = Self { child, lines };
        example.wait_for(first);
        example
    }

    /// Waits for a line that begins so, and returns it.
    fn wait_for(&mut self, text: &str) -> String {
        let line = self.lines.find(|line| line.as_ref().unwrap().starts_with(text));
        line.unwrap_or_else(|| panic!("it ended without a line `{text}`")).unwrap()
    }

    /// Ends it, and returns what it counted.
    fn stop(mut self) -> Value {
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM).unwrap();
        serde_json::from_str(&self.wait_for("{")).unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Frames of one interface and generation, as `receive` counts them.
#[derive(Debug)]
struct Span {
    ifindex: u32,
    generation: u32,
    received: u64,
    accepted: u64,
    first: u64,
    last: u64,
    last_read_at: u64,
    last_arrival: u64,
}

/// Reads the spans, in the order of their first frames.
fn spans(counted: &Value) -> Vec<Span> {
    let read = |span: &Value| {
        let number = |key: &str| span[key].as_u64().unwrap_or_else(|| panic!("no {key} in {span}"));
        Span {
            ifindex: number("ifindex") as u32,
            generation: number("generation") as u32,
            received: number("received"),
            accepted: number("accepted"),
            first: number("first"),
            last: number("last"),
            last_read_at: number("last_read_at"),
            last_arrival: number("last_arrival"),
        }
    };
    let mut spans: Vec<_> = counted["spans"].as_array().unwrap().iter().map(read).collect();
    spans.sort_by_key(|span| span.first);
    spans
}

/// CLOCK_MONOTONIC in nanoseconds, as the examples stamp frames.
fn now() -> u64 {
    Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap()).as_nanos().try_into().unwrap()
}

fn follow(lab: &Lab) -> Follower {
    lab.host.run(|| Ok(Follower::open(BOND)?)).unwrap()
}

/// Brings up a bond with a clock, which fails over without an agent.
fn clocked(lab: &Lab) -> Xbond<'_> {
    let xbond = bond(lab, Datapath::Tc, &["fail_over_mac=active", "primary_reselect=failure"]);
    let clock = || show(&xbond)["clock"].as_str().unwrap().to_owned();
    eventually("the clock runs", clock, |clock| clock.starts_with("on"));
    wait_for_active(&xbond, SLAVES[0]);
    xbond
}

/// Switches to the other slave by the agent, then back by the tick, without an agent, when the link of that one fails.
/// `wait_for` waits until frames pass by a slave. Returns the word before the first switch, and those after each, each
/// with the time at which it was seen.
fn switch_twice(
    lab: &Lab,
    xbond: Xbond<'_>,
    follower: &Follower,
    mut wait_for: impl FnMut(&str),
) -> Vec<(Word, u64)> {
    let switched = |before: Word| {
        let mut word = before;
        while word.switches() == before.switches() {
            let seen = word;
            word = follower.wait(seen, Duration::from_micros(50), Some(wait_limit()));
            assert_ne!(word, seen, "no switch within {:?}", wait_limit());
        }
        (word, now())
    };
    wait_for(SLAVES[0]);
    let first = (follower.word(), now());
    xbond.set(BOND, "active_slave=enp0s9").unwrap();
    let second = switched(first.0);
    wait_for(SLAVES[1]);
    xbond.kill().unwrap();
    let before = follower.word();
    lab.cut(SLAVES[1], Cut::Carrier).unwrap();
    let third = switched(before);
    wait_for(SLAVES[0]);
    vec![first, second, third]
}

/// Frames per second: an emulated machine and unoptimized examples have to keep up.
fn rate() -> &'static str {
    if time_is_no_measure().is_some() { "1000" } else { "20000" }
}

fn ifindex(netns: &NetNs, name: &str) -> u32 {
    netns.run(|| Ok(if_nametoindex(name)?)).unwrap()
}

#[test]
fn a_sender_sends_no_frame_by_the_former_slave_once_it_could_know() {
    skip_if_unable!();
    if is_without_examples() {
        return;
    }
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = clocked(&lab);
    let follower = follow(&lab);
    let ports: BTreeMap<_, _> = SLAVES.map(|nic| (nic, lab.port(nic).unwrap())).into();
    let at_port = |nic: &str| ifindex(&lab.switch.netns, &ports[nic]);
    let slots: BTreeMap<_, _> = SLAVES
        .map(|nic| {
            let here = ifindex(&lab.host, nic);
            (follower.slaves().find(|slave| slave.ifindex == here).unwrap().slot, at_port(nic))
        })
        .into();

    let [first, second] = SLAVES.map(|nic| ports[nic].as_str());
    let mut switch =
        Example::start(&lab.switch.netns, "receive", &["--interface", first, "--interface", second]);
    let sender = Example::start(&lab.host, "send", &["--bond", BOND, "--rate", rate()]);
    let switches = switch_twice(&lab, xbond, &follower, |nic| {
        switch.wait_for(&format!("ifindex {},", at_port(nic)));
    });
    let sent = sender.stop();
    let spans = spans(&switch.stop());
    println!("{sent} {spans:#?}");

    assert_eq!(sent["switches"], 2, "{sent}");
    for pair in spans.windows(2) {
        assert!(pair[0].last < pair[1].first, "numbers of two slaves overlap: {pair:?}");
    }
    for pair in switches.windows(2) {
        let ((before, _), (after, seen_at)) = (pair[0], pair[1]);
        let former = slots[&before.active().unwrap()];
        let is_before = |span: &&Span| span.generation < after.generation();
        assert!(spans.iter().filter(is_before).any(|span| span.ifindex == former && span.received > 0));
        // Who reads the word after another process has seen the new one reads the new one.
        for span in spans.iter().filter(is_before) {
            assert!(span.last_read_at <= seen_at, "{span:?} by a word that was stale at {seen_at}");
            println!("last arrival {} us after", span.last_arrival.saturating_sub(seen_at) / 1_000);
        }
        for span in spans.iter().filter(|span| span.generation == after.generation()) {
            assert_eq!(span.ifindex, slots[&after.active().unwrap()], "{span:?}");
        }
    }
}

#[test]
fn a_receiver_accepts_frames_of_the_active_slave_only() {
    skip_if_unable!();
    if is_without_examples() {
        return;
    }
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = clocked(&lab);
    let follower = follow(&lab);
    let mut receiver = Example::start(&lab.host, "receive", &["--bond", BOND]);
    let [first, second] = SLAVES.map(|nic| lab.port(nic).unwrap());
    let arguments = ["--interface", &first, "--interface", &second, "--rate", rate()];
    let sender = Example::start(&lab.switch.netns, "send", &arguments);
    let active = |word: Word| follower.slave(word.active().unwrap()).unwrap().ifindex;
    let switches = switch_twice(&lab, xbond, &follower, |nic| {
        receiver.wait_for(&format!(
            "ifindex {}, generation {},",
            ifindex(&lab.host, nic),
            follower.word().generation()
        ));
    });
    sender.stop();
    let spans = spans(&receiver.stop());
    println!("{spans:#?}");
    for (word, _) in switches {
        let of_word = || spans.iter().filter(|span| span.generation == word.generation());
        assert!(of_word().any(|span| span.ifindex == active(word) && span.accepted > 0), "{word:?}");
        for span in of_word() {
            let accepted = if span.ifindex == active(word) { span.received } else { 0 };
            assert_eq!(span.accepted, accepted, "{word:?}: {span:?}");
        }
    }
}

#[test]
fn bond0_receives_what_the_xdp_program_of_a_receiver_passes() {
    skip_if_unable!();
    if is_without_examples() {
        return;
    }
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let _xbond = clocked(&lab);
    let receiver = Example::start(&lab.host, "receive", &["--bond", BOND]);
    common::meet(&lab);
    receiver.stop();
}

#[test]
fn xdp_datapaths_leave_no_room_for_a_program_of_a_receiver() {
    skip_if_unable!();
    if is_without_examples() {
        return;
    }
    let _concurrent = concurrently();
    let lab = lab(Datapath::Xdp, Policy::Learning);
    let _xbond = bond(&lab, Datapath::Xdp, &[]);
    let output = lab.host.command(path_of("receive")).args(["--bond", BOND]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("cannot attach the XDP program"), "{text}");
}

#[test]
fn a_watch_is_woken_without_an_agent() {
    skip_if_unable!();
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = clocked(&lab);
    let follower = Arc::new(follow(&lab));
    let watch = Watch::start(Arc::clone(&follower), Duration::from_millis(1)).unwrap();
    let before = follower.active().unwrap();
    assert_eq!(before.ifindex, ifindex(&lab.host, SLAVES[0]));
    assert_eq!(Mac::new(before.mac), lab.mac(SLAVES[0]).unwrap());
    xbond.kill().unwrap();
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    loop {
        let mut ready = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        assert_eq!(
            poll(&mut ready, PollTimeout::try_from(wait_limit()).unwrap()),
            Ok(1),
            "no change was seen"
        );
        assert!(watch.take() > 0 && watch.take() == 0);
        // Before the switch, the former active slave stops being usable.
        if let Some(active) = follower.active()
            && active != before
        {
            assert_eq!(active.ifindex, ifindex(&lab.host, SLAVES[1]));
            assert_eq!(Mac::new(active.mac), lab.mac(SLAVES[1]).unwrap());
            break;
        }
    }
}

/// Compiles examples/active.c of xbond-follow.
fn active_c(directory: &tempfile::TempDir) -> PathBuf {
    let crate_of_header = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../xbond-follow");
    let program = directory.path().join("active");
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-I"]).arg(crate_of_header.join("include"));
    cc.arg(crate_of_header.join("examples/active.c")).arg("-o").arg(&program);
    assert!(cc.status().unwrap().success());
    program
}

#[test]
fn a_c_program_follows_a_bond_until_it_is_gone() {
    skip_if_unable!();
    if is_without_examples() {
        return;
    }
    let _concurrent = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = clocked(&lab);
    let follower = follow(&lab);
    let directory = tempfile::tempdir().unwrap();
    let program = active_c(&directory);
    let line = |nic: &str| {
        let shown = slave(&show(&xbond), nic);
        let ifindex = ifindex(&lab.host, nic);
        let slot = follower.slaves().find(|slave| slave.ifindex == ifindex).unwrap().slot;
        format!("slot {slot} ifindex {ifindex} mac {}", shown["mac"].as_str().unwrap())
    };
    let lines = SLAVES.map(line);
    let mut active = Example::run(lab.host.command(&program).arg(BOND), &lines[0]);
    xbond.set(BOND, "active_slave=enp0s9").unwrap();
    active.wait_for(&lines[1]);

    assert!(follower.is_current().unwrap());
    xbond.stop().unwrap();
    assert!(!follower.is_current().unwrap());
    assert_eq!(active.child.wait().unwrap().code(), Some(1));
    let gone = lab.host.run(|| Ok(Follower::open(BOND).err().unwrap().to_string())).unwrap();
    assert!(gone.contains("the bond does not exist in this network namespace"), "{gone}");
}
