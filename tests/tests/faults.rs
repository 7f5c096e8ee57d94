//! Faults, made on purpose: whatever is done to a bond and its agent, in the end traffic flows where there is a slave
//! that can carry it, nothing is left behind, and the log says what happened.
//!
//! By default each test does a little of its kind. XBOND_KILLS, XBOND_FLAPS and XBOND_RTNL_SECONDS ask for more, and
//! XBOND_SEED for the same again.

mod common;
mod snapshot;

use std::{
    fs,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use common::{
    BOND, SLAVES, active_slave, alone, beside_others, bond, brisk, builder, eventually, lab, meet, show,
    slave, traffic, wait_for_active, wait_for_status,
};
use nix::sys::signal::Signal;
use snapshot::Snapshot;
use tempfile::NamedTempFile;
use xbond_tests::{
    Capture, Cut, HOST_V4, Lab, Mac, NetNs, Nic, PATIENCE, PEER_V4, Policy, Recovery, Xbond,
    flow::FlowReport,
    has_tcx,
    lab::{Datapath, Wire},
    rtnl::RtnlHeld,
    skip, skip_if_unable,
    stp_nic::StpNic,
    xbond,
};

const MIIMON: Duration = Duration::from_millis(100);

/// A number by which the environment asks for more, or for less.
fn asked_for(variable: &str, default: u64) -> u64 {
    std::env::var(variable)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// Random numbers (SplitMix64); the test prints the seed, and XBOND_SEED gives it back.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let seed = asked_for("XBOND_SEED", u64::from(now.subsec_nanos()));
        println!("XBOND_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }
}

/// A file that describes bond0 with these slaves.
fn file(policy: &str, slaves: &[&str]) -> NamedTempFile {
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    write_file(&file, policy, slaves, "");
    file
}

fn write_file(file: &NamedTempFile, policy: &str, slaves: &[&str], more: &str) {
    let text = format!(
        "version = 1\n[bond.{BOND}]\nslaves = {slaves:?}\nmiimon = 100\nfail_over_mac = \"{policy}\"\naddresses = \
         [\"{HOST_V4}/24\"]\n{more}"
    );
    fs::write(file.path(), text).unwrap();
}

fn run<'lab>(lab: &'lab Lab, file: &NamedTempFile) -> Xbond<'lab> {
    Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap()
}

/// Both ways, some packets arrive one after the other.
#[track_caller]
fn assert_traffic(lab: &Lab, what: &str) {
    let flow = || {
        meet(lab);
        let traffic = traffic(lab, 2_000);
        traffic.wait_for_more(500).unwrap();
        traffic.stop().unwrap()
    };
    let is_whole = |report: &FlowReport| (report.lost, report.duplicated) == (0, 0);
    // The fault was the switch's, too, which may still be at it: what stays broken is ours.
    let mut reports = flow();
    for _ in 0..2 {
        if reports.iter().all(is_whole) {
            return;
        }
        reports = flow();
    }
    for (direction, report) in ["to peer", "to host"].iter().zip(&reports) {
        assert!(is_whole(report), "{what}, {direction}: {:?}", **report);
    }
}

fn macs(lab: &Lab) -> [Mac; 3] {
    [BOND, SLAVES[0], SLAVES[1]].map(|name| lab.host.link(name).unwrap().mac)
}

fn own_macs(lab: &Lab) -> [Mac; 2] {
    SLAVES.map(|name| lab.mac(name).unwrap())
}

/// The path of a pin of bond0.
fn pin(lab: &Lab, name: &str) -> PathBuf {
    ["/sys/fs/bpf/xbond", &lab.host.cookie().unwrap().to_string(), BOND, name].iter().collect()
}

/// A value of a map, as bpftool has it.
fn peek(lab: &Lab, map: &str, key: u32) -> Vec<u8> {
    let pin = pin(lab, map);
    let text = lab.host.exec(&format!(
        "bpftool -j map lookup pinned {} key {}",
        pin.display(),
        bytes(&key.to_ne_bytes())
    ));
    let value: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
    let byte = |byte: &serde_json::Value| {
        u8::from_str_radix(byte.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    value["value"].as_array().unwrap().iter().map(byte).collect()
}

/// Writes it by hand.
fn poke(lab: &Lab, map: &str, key: u32, value: &[u8]) {
    let pin = pin(lab, map);
    let (key, value) = (bytes(&key.to_ne_bytes()), bytes(value));
    lab.host.exec(&format!("bpftool map update pinned {} key {key} value {value}", pin.display())).unwrap();
}

fn bytes(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}

/// The word in ACTIVE with another active slot, or none.
fn active_word(word: &[u8], active: Option<u64>) -> [u8; 8] {
    let word = u64::from_ne_bytes(word.try_into().unwrap());
    let cleared = word & !0xf001;
    let word = active.map_or(0, |slot| cleared | slot << 12 | 1);
    word.to_ne_bytes()
}

/// Two slaves, or none, of which the second agent knows nothing yet.
mod maps_written_by_hand {
    use super::*;

    /// Where a value of SLAVES has its link_failure_count.
    const FAILURES: usize = 40;

    /// Each is put right, or followed, at the next look at the latest, and told.
    #[test]
    fn while_the_agent_lives() {
        skip_if_unable!();
        let _turn = beside_others();
        let lab = lab(Datapath::Tc, Policy::Learning);
        snapshot::open_once(&lab.host);
        let before = Snapshot::of(&lab.host);
        let xbond = bond(&lab, Datapath::Tc, &[]);
        let word = || peek(&lab, "ACTIVE", 0);
        // Nobody has slot 9.
        for (what, value) in [("a slot without a slave", Some(9)), ("nothing", None)] {
            let log = xbond.log().len();
            let failovers =
                || slave(&show(&xbond), SLAVES[0])["counters"]["guard_failovers"].as_u64().unwrap();
            let before = failovers();
            poke(&lab, "ACTIVE", 0, &active_word(&word(), value));
            let right = |word: &Vec<u8>| word[1] >> 4 == 0 && word[0] & 1 == 1;
            eventually(what, word, right);
            // A packet that found nobody in slot 9 was a case for the guard, and then the agent has nothing to say.
            let told = || {
                let said =
                    xbond.log()[log..].contains("had written to the map ACTIVE; it is as before again");
                said || failovers() > before
            };
            eventually(what, told, |told| *told);
            assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[0]), "{what}");
            assert_traffic(&lab, what);
        }
        // A backup: whoever writes it wants it so.
        let log = xbond.log().len();
        poke(&lab, "ACTIVE", 0, &active_word(&word(), Some(1)));
        let said = xbond.wait_for_after(log, "active slave enp0s9 instead of enp0s8").unwrap();
        assert!(said.contains("asked for by hand"), "{said}");
        wait_for_active(&xbond, SLAVES[1]);
        assert_eq!(slave(&show(&xbond), SLAVES[0])["link_failure_count"], 0);
        assert_traffic(&lab, "a backup");
        // A backup whose link is down: nobody can want that.
        lab.cut(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_status(&xbond, SLAVES[0], "down");
        let log = xbond.log().len();
        let failovers = || slave(&show(&xbond), SLAVES[1])["counters"]["guard_failovers"].as_u64().unwrap();
        let before_it = failovers();
        poke(&lab, "ACTIVE", 0, &active_word(&word(), Some(0)));
        // Here, too, the guard may be the first.
        let put_right = || {
            let said = xbond.log().split_off(log);
            let told = ["active slave enp0s9", "had written to the map ACTIVE"];
            told.iter().any(|told| said.contains(told)) || failovers() > before_it
        };
        eventually("a backup whose link is down", put_right, |right| *right);
        wait_for_active(&xbond, SLAVES[1]);
        lab.mend(SLAVES[0], Cut::Carrier).unwrap();
        wait_for_status(&xbond, SLAVES[0], "up");

        for (map, key) in [("SLAVES", 0), ("SLAVES", 1), ("BOND", 0), ("GUARD", 0)] {
            // Again and again: the same value, too.
            for time in 0..3 {
                let right = peek(&lab, map, key);
                let mut wrong = right.clone();
                match map {
                    "SLAVES" => wrong.fill(0),
                    // Flags, the policy stays.
                    "BOND" => wrong[36..40].copy_from_slice(&[1, 1, 0, 0]),
                    // The order of the slots.
                    _ => wrong[..8].reverse(),
                }
                assert_ne!(right, wrong);
                let log = xbond.log().len();
                poke(&lab, map, key, &wrong);
                let said = format!("had written to the map {map}; it is as before again");
                xbond.wait_for_after(log, &said).unwrap();
                eventually(
                    &format!("{map} {key}, time {time}"),
                    || peek(&lab, map, key),
                    |found| match map {
                        // The time of the guard's last failover is the data plane's.
                        "GUARD" => found[..8] == right[..8],
                        // A packet that found the active slave's entry empty was a case for the guard, and is a
                        // failure of its link.
                        "SLAVES" => {
                            [&found[..FAILURES], &found[FAILURES + 4..]]
                                == [&right[..FAILURES], &right[FAILURES + 4..]]
                        }
                        _ => *found == right,
                    },
                );
            }
            assert_traffic(&lab, map);
        }
        xbond.stop().unwrap();
        before.assert_holds(&lab.host, "maps written by hand");
    }

    /// The next agent puts it right.
    #[test]
    fn while_no_agent_does() {
        skip_if_unable!();
        let _turn = beside_others();
        let lab = lab(Datapath::Tc, Policy::Learning);
        snapshot::open_once(&lab.host);
        let before = Snapshot::of(&lab.host);
        let file = file("none", &SLAVES);
        let own = own_macs(&lab);
        for (map, key) in [
            ("ACTIVE", 9),
            ("ACTIVE", 1),
            ("ACTIVE", 0),
            ("SLAVES", 0),
            ("SLAVES", 1),
            ("BOND", 0),
            ("GUARD", 0),
        ] {
            let what = format!("{map} {key}");
            let first = run(&lab, &file);
            meet(&lab);
            first.kill().unwrap();
            let mut value = peek(&lab, map, if map == "ACTIVE" { 0 } else { key });
            match map {
                "ACTIVE" => value = active_word(&value, (key != 0).then_some(key.into())).to_vec(),
                "SLAVES" => value.fill(0),
                "BOND" => value[36..40].copy_from_slice(&[1, 1, 0, 0]),
                _ => value[..8].reverse(),
            }
            poke(&lab, map, if map == "ACTIVE" { 0 } else { key }, &value);
            let second = run(&lab, &file);
            assert_traffic(&lab, &what);
            let bond = show(&second);
            for name in SLAVES {
                assert_eq!(slave(&bond, name)["mii_status"], "up", "{what}: {bond:#}");
            }
            if (map, key) == ("ACTIVE", 1) {
                assert_eq!(bond["active_slave"], SLAVES[1], "it is followed");
                second.wait_for("asked for by hand").unwrap();
            }
            eventually(
                &what,
                || macs(&lab),
                |macs| macs.iter().all(|mac| *mac == macs[0] && own.contains(mac)),
            );
            second.stop().unwrap();
            before.assert_holds(&lab.host, &what);
        }
    }
}

/// What somebody does to a NIC of a bond.
mod nics_that_go {
    use super::*;

    /// Deletes a NIC and makes another one of its name, with this last byte of its MAC.
    fn replace(lab: &Lab, name: &str, last: u8) -> Mac {
        let mac = Mac::new([2, 0, 0, 0, 9, last]);
        let port = lab.port(name).unwrap();
        lab.host.ip(&format!("link delete {name}")).unwrap();
        let netns = lab.switch.netns.name();
        lab.host
            .ip(&format!("link add {name} address {mac} type veth peer name {port} netns {netns}"))
            .unwrap();
        lab.switch.plug(&port).unwrap();
        mac
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Agent {
        Alive,
        Asleep,
        Dead,
    }

    /// The next agent has most to find out; the others differ by policy in what they do, not in what they see.
    fn policies(agent: Agent) -> &'static [&'static str] {
        match agent {
            Agent::Alive => &["none", "follow"],
            Agent::Asleep => &["active"],
            Agent::Dead => &["none", "active", "follow"],
        }
    }

    /// The NIC is another one: it joins, and is put back as it was found, not as the former one was.
    #[test]
    fn one_that_is_replaced_joins_whether_the_agent_looks_or_not() {
        skip_if_unable!();
        let _turn = beside_others();
        for agent in [Agent::Alive, Agent::Asleep, Agent::Dead] {
            for policy in policies(agent) {
                let what = format!("{agent:?} {policy}");
                let lab = lab(Datapath::Tc, Policy::Learning);
                let file = file(policy, &SLAVES);
                let mut xbond = run(&lab, &file);
                meet(&lab);
                match agent {
                    Agent::Alive => {}
                    Agent::Asleep => xbond.pause().unwrap(),
                    Agent::Dead => {
                        xbond.signal(Signal::SIGKILL).unwrap();
                        xbond.wait().unwrap();
                    }
                }
                let mac = replace(&lab, SLAVES[0], 1);
                match agent {
                    Agent::Alive => {}
                    Agent::Asleep => xbond.signal(Signal::SIGCONT).unwrap(),
                    Agent::Dead => xbond = run(&lab, &file),
                }
                let ifindex = lab.host.link(SLAVES[0]).unwrap().ifindex;
                let is_slave = |bond: &serde_json::Value| {
                    let slaves = bond["slaves"].as_array().unwrap();
                    slaves.iter().any(|slave| slave["ifindex"] == ifindex && slave["mii_status"] == "up")
                };
                eventually(&what, || show(&xbond), is_slave);
                lab.switch.wait_for_forwarding(&lab.port(SLAVES[0]).unwrap()).unwrap();
                // Each of the two carries it.
                for name in SLAVES {
                    xbond.set(BOND, &format!("active_slave={name}")).unwrap();
                    wait_for_active(&xbond, name);
                    assert_traffic(&lab, &format!("{what}, {name}"));
                }
                let log = xbond.stop().unwrap();
                let gone = if agent == Agent::Dead {
                    "enp0s8 is gone, or is another interface by now"
                } else {
                    "the interface is gone"
                };
                assert!(log.contains(gone), "{what}: {log}");
                for (name, mac) in [(SLAVES[0], mac), (SLAVES[1], lab.mac(SLAVES[1]).unwrap())] {
                    assert_eq!(lab.host.link(name).unwrap().mac, mac, "{what}, {name}");
                }
            }
        }
    }

    /// Away in another namespace it is none of ours; when it is back it is again, and has its own MAC in the end.
    #[test]
    fn one_that_is_moved_to_another_namespace_and_back_is_a_slave_again() {
        skip_if_unable!();
        let _turn = beside_others();
        for agent in [Agent::Alive, Agent::Asleep, Agent::Dead] {
            for policy in policies(agent) {
                let what = format!("{agent:?} {policy}");
                let lab = lab(Datapath::Tc, Policy::Learning);
                snapshot::open_once(&lab.host);
                let before = Snapshot::of(&lab.host);
                let away = NetNs::create(&format!("{}-away", xbond_tests::netns::unique_stem())).unwrap();
                let file = file(policy, &SLAVES);
                let mut xbond = run(&lab, &file);
                meet(&lab);
                match agent {
                    Agent::Alive => {}
                    Agent::Asleep => xbond.pause().unwrap(),
                    Agent::Dead => {
                        xbond.signal(Signal::SIGKILL).unwrap();
                        xbond.wait().unwrap();
                    }
                }
                lab.host.ip(&format!("link set {} netns {}", SLAVES[0], away.name())).unwrap();
                match agent {
                    Agent::Alive => {
                        wait_for_active(&xbond, SLAVES[1]);
                        assert_traffic(&lab, &format!("{what}, away"));
                    }
                    // A packet finds that it is not here.
                    Agent::Asleep | Agent::Dead => {
                        eventually(
                            "the peer answers",
                            || lab.host.ping(PEER_V4.into(), 1).unwrap().received,
                            |got| *got == 1,
                        );
                    }
                }
                away.ip(&format!("link set {} netns {}", SLAVES[0], lab.host.name())).unwrap();
                match agent {
                    Agent::Alive => {}
                    Agent::Asleep => xbond.signal(Signal::SIGCONT).unwrap(),
                    Agent::Dead => xbond = run(&lab, &file),
                }
                let is_up = |bond: &serde_json::Value| {
                    let slaves = bond["slaves"].as_array().unwrap();
                    slaves.iter().any(|slave| slave["name"] == SLAVES[0] && slave["mii_status"] == "up")
                };
                eventually(&what, || show(&xbond), is_up);
                lab.switch.wait_for_forwarding(&lab.port(SLAVES[0]).unwrap()).unwrap();
                for name in SLAVES {
                    xbond.set(BOND, &format!("active_slave={name}")).unwrap();
                    wait_for_active(&xbond, name);
                    assert_traffic(&lab, &format!("{what}, {name}"));
                }
                xbond.stop().unwrap();
                before.assert_holds(&lab.host, &what);
            }
        }
    }
}

/// Hundreds of changes while the agent cannot read them: it finds out what is left of them.
#[test]
fn link_events_that_were_lost_are_caught_up_with() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let file = file("active", &SLAVES);
    let before = Snapshot::of(&lab.host);
    let xbond = run(&lab, &file);
    meet(&lab);
    lab.host.ip("link add noise up type veth peer name noise-far").unwrap();
    let batch = NamedTempFile::new().unwrap();
    let line = |number| format!("link set noise alias number-{number}\n");
    fs::write(batch.path(), (0..2500).map(line).collect::<String>()).unwrap();

    xbond.pause().unwrap();
    lab.host.ip(&format!("-batch {}", batch.path().display())).unwrap();
    // Of these nothing is heard any more.
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    lab.host.ip(&format!("link delete {}", SLAVES[1])).unwrap();
    let mac = Mac::new([2, 0, 0, 0, 9, 2]);
    let (port, switch) = (lab.port(SLAVES[1]).unwrap(), lab.switch.netns.name());
    lab.host
        .ip(&format!("link add {} address {mac} type veth peer name {port} netns {switch}", SLAVES[1]))
        .unwrap();
    lab.switch.plug(&port).unwrap();
    let log = xbond.log().len();
    xbond.signal(Signal::SIGCONT).unwrap();
    xbond
        .wait_for_after(log, "links changed faster than they could be followed; all of them are read again")
        .unwrap();
    wait_for_active(&xbond, SLAVES[1]);
    assert_eq!(slave(&show(&xbond), SLAVES[0])["mii_status"], "down");
    lab.switch.wait_for_forwarding(&port).unwrap();
    assert_traffic(&lab, "after the overrun");
    assert_eq!(lab.host.link(BOND).unwrap().mac, mac);
    lab.mend(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(&xbond, SLAVES[0], "up");
    xbond.stop().unwrap();
    assert_eq!(lab.host.link(SLAVES[1]).unwrap().mac, mac);
    // The replaced NIC is another one, so the whole is not as before; nothing of xbond's is left.
    lab.host.ip("link delete noise").unwrap();
    before.assert_nothing_left(&lab.host, "after the overrun");
}

/// One has the namespace; the others say so and touch nothing.
#[test]
fn of_agents_that_start_at_once_one_wins() {
    skip_if_unable!();
    let _turn = beside_others();
    for count in [2, 10] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        snapshot::open_once(&lab.host);
        let before = Snapshot::of(&lab.host);
        let file = file("active", &SLAVES);
        let start = || Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
        let mut agents: Vec<_> = (0..count).map(|_| start()).collect();
        let occupied = "an agent runs in this network namespace already";
        let mut winners = Vec::new();
        while let Some(mut agent) = agents.pop() {
            // Each says one or the other.
            eventually(
                "it is ready or ends",
                || agent.log(),
                |log| log.contains("bond0 ready") || log.contains(occupied),
            );
            if agent.log().contains("bond0 ready") {
                winners.push(agent);
                continue;
            }
            assert_eq!(agent.wait().unwrap().code(), Some(2));
            assert_eq!(agent.log().lines().count(), 1, "{}", agent.log());
        }
        assert_eq!(winners.len(), 1, "of {count}");
        let winner = winners.pop().unwrap();
        meet(&lab);
        let traffic = traffic(&lab, 2_000);
        traffic.wait_for_more(200).unwrap();
        for _ in 0..3 {
            let mut late = start();
            assert_eq!(late.wait().unwrap().code(), Some(2));
        }
        for report in traffic.stop().unwrap() {
            assert_eq!((report.lost, report.duplicated), (0, 0));
        }
        assert!(winner.show(BOND).is_ok());
        winner.stop().unwrap();
        before.assert_holds(&lab.host, &format!("{count} at once"));
    }
}

/// Others come and go in their namespaces meanwhile; the places of all are side by side.
#[test]
fn agents_of_many_namespaces_start_and_end_at_once() {
    skip_if_unable!();
    let _turn = beside_others();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let netns = NetNs::create(&format!("{}-many", xbond_tests::netns::unique_stem())).unwrap();
                netns.ip("link add nic0 type veth peer name far0").unwrap();
                for _ in 0..3 {
                    let arguments = ["--bond", BOND, "--slave", "nic0", "-o", "miimon=100"];
                    Xbond::run(&netns, arguments).unwrap().stop().unwrap();
                }
            });
        }
    });
}

/// An agent that was stopped, while the bond went to the other slave and back, finds everything as it should be.
#[test]
fn a_sleeping_agent_undoes_nothing_of_what_the_guard_did_meanwhile() {
    skip_if_unable!();
    let _turn = beside_others();
    for policy in ["none", "active", "follow"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
        let before = macs(&lab);
        xbond.pause().unwrap();
        for name in SLAVES {
            lab.cut(name, Cut::Carrier).unwrap();
            eventually("the guard fails over", || reaches_peer(&lab), |reached| *reached);
            lab.mend(name, Cut::Carrier).unwrap();
            lab.switch.wait_for_forwarding(&lab.port(name).unwrap()).unwrap();
        }
        let generation = |word: Vec<u8>| u32::from_ne_bytes(word[4..].try_into().unwrap());
        let active = |word: &[u8]| (word[0] & 1 == 1).then_some(word[1] >> 4);
        let (there, since) = (active(&peek(&lab, "ACTIVE", 0)), generation(peek(&lab, "ACTIVE", 0)));
        assert_eq!(there, Some(0), "{policy}: there and back");
        xbond.signal(Signal::SIGCONT).unwrap();
        for name in SLAVES {
            wait_for_status(&xbond, name, "up");
        }
        assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[0]), "{policy}");
        let word = peek(&lab, "ACTIVE", 0);
        assert_eq!(active(&word), Some(0), "{policy}");
        // The usable slots may be told anew, the active one is not moved.
        assert!(generation(word) - since <= 2, "{policy}");
        eventually(policy, || macs(&lab), |now| *now == before);
        assert_traffic(&lab, policy);
        xbond.stop().unwrap();
    }
}

/// The receipts of the guard's failovers: from, to and generation of each.
fn guard_receipts(lab: &Lab) -> Vec<(String, String, u32)> {
    let log: serde_json::Value =
        serde_json::from_str(&xbond::cli(&lab.host, ["log", BOND, "-j"]).unwrap()).unwrap();
    let receipts = log["receipts"].as_array().unwrap().iter().filter(|receipt| receipt["seen"] == "guard");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let receipt = |receipt: &serde_json::Value| {
        (text(&receipt["from"]), text(&receipt["to"]), receipt["generation"].as_u64().unwrap() as u32)
    };
    receipts.map(receipt).collect()
}

/// Has the guard fail over from each slave to the other, so often in all; the first slave is active before.
fn fail_over_in_the_kernel(lab: &Lab, times: usize) {
    let traffic = traffic(lab, 2_000);
    for number in 0..times {
        let (from, to) = (SLAVES[number % 2], (number + 1) % 2);
        lab.cut(from, Cut::Carrier).unwrap();
        let active = || peek(lab, "ACTIVE", 0)[1] >> 4;
        eventually("the guard fails over", active, |active| usize::from(*active) == to);
        lab.mend(from, Cut::Carrier).unwrap();
        eventually("its link is back", || lab.host.link(from).unwrap().has_carrier(), |up| *up);
    }
    traffic.stop().unwrap();
}

/// An agent that was stopped reports every failover of the guard, also where the last one leads back to where it began. If
/// it is killed before it could, the next agent does.
#[test]
fn a_stopped_agent_leaves_a_receipt_for_each_failover_of_the_guard() {
    skip_if_unable!();
    let _turn = beside_others();
    for (policy, is_killed) in [("none", false), ("active", false), ("follow", false), ("active", true)] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let file = file(policy, &SLAVES);
        let mut xbond = run(&lab, &file);
        meet(&lab);
        if show(&xbond)["guard"] != "on" {
            return skip("the carrier guard is off here");
        }
        for times in [6, 2, 1] {
            let before = guard_receipts(&lab).len();
            if active_slave(&xbond).as_deref() != Some(SLAVES[0]) {
                xbond.set(BOND, &format!("active_slave={}", SLAVES[0])).unwrap();
            }
            let counted = show(&xbond)["failovers"]["carrier_guard"].as_u64().unwrap_or(0);
            xbond.pause().unwrap();
            fail_over_in_the_kernel(&lab, times);
            if is_killed {
                xbond.kill().unwrap();
                xbond = run(&lab, &file);
            } else {
                xbond.signal(Signal::SIGCONT).unwrap();
            }
            let what = format!("{policy}, killed {is_killed}, {times} times: {}", xbond.log());
            let receipts =
                eventually(&what, || guard_receipts(&lab), |receipts| receipts.len() >= before + times);
            let new = &receipts[before..];
            assert_eq!(new.len(), times, "{what}: {new:?}");
            for (number, (from, to, generation)) in new.iter().enumerate() {
                assert_eq!([from, to], [SLAVES[number % 2], SLAVES[(number + 1) % 2]], "{what}: {new:?}");
                assert_eq!(*generation, new[0].2 + number as u32, "{what}: {new:?}");
            }
            let counted = if is_killed { 0 } else { counted } + times as u64;
            assert_eq!(show(&xbond)["failovers"]["carrier_guard"], counted, "{what}");
            assert_eq!(show(&xbond)["unrecorded_changes"], 0, "{what}");
            eventually(
                "both are up",
                || SLAVES.iter().all(|name| slave(&show(&xbond), name)["mii_status"] == "up"),
                |up| *up,
            );
        }
        xbond.stop().unwrap();
    }
}

/// More failovers than EVENTS holds: those without a record are counted.
#[test]
fn failovers_beyond_what_the_buffer_holds_are_counted() {
    skip_if_unable!();
    let _turn = beside_others();
    const TIMES: usize = 140;
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let before = guard_receipts(&lab).len();
    xbond.pause().unwrap();
    fail_over_in_the_kernel(&lab, TIMES);
    xbond.signal(Signal::SIGCONT).unwrap();
    xbond.wait_for("changes of ACTIVE have no receipt").unwrap();
    let bond = eventually(
        "all are counted",
        || show(&xbond),
        |bond| {
            let counted = bond["failovers"]["carrier_guard"].as_u64().unwrap_or(0);
            counted + bond["unrecorded_changes"].as_u64().unwrap() == TIMES as u64
        },
    );
    let unrecorded = bond["unrecorded_changes"].as_u64().unwrap();
    assert!((1..=TIMES as u64 / 4).contains(&unrecorded), "{bond:#}");
    assert_eq!(before, 0);
    let last = &bond["last_failover"];
    assert_eq!((&last["to"], &last["unrecorded"]), (&SLAVES[0].into(), &unrecorded.into()), "{last:#}");
    xbond.stop().unwrap();
}

/// ACTIVE as it was some changes ago: no number of changes is made of that, whether an agent runs or not.
#[test]
fn a_generation_that_is_set_back_is_no_number_of_changes() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let file = file("none", &SLAVES);
    let mut xbond = run(&lab, &file);
    let generation = || u32::from_ne_bytes(peek(&lab, "ACTIVE", 0)[4..].try_into().unwrap());
    for is_killed in [false, true] {
        let earlier = peek(&lab, "ACTIVE", 0);
        for number in [1, 0] {
            xbond.set(BOND, &format!("active_slave={}", SLAVES[number])).unwrap();
        }
        meet(&lab);
        let before = generation();
        if is_killed {
            xbond.kill().unwrap();
            poke(&lab, "ACTIVE", 0, &earlier);
            xbond = run(&lab, &file);
        } else {
            poke(&lab, "ACTIVE", 0, &earlier);
        }
        xbond.wait_for("BPF map ACTIVE was modified by another process: its generation was").unwrap();
        let log = xbond.log();
        assert!(!log.contains("have no receipt") && !log.contains("42949"), "{log}");
        assert!(generation() > before, "generations only grow");
        assert_eq!(show(&xbond)["unrecorded_changes"], 0);
        assert_traffic(&lab, "afterwards");
    }
    xbond.stop().unwrap();
}

fn reaches_peer(lab: &Lab) -> bool {
    lab.host.ping(PEER_V4.into(), 1).unwrap().received == 1
}

/// Links that flap a thousand times a second, with an agent and without.
#[test]
fn links_that_flap_end_with_a_bond_that_carries() {
    skip_if_unable!();
    let _turn = beside_others();
    let flaps = asked_for("XBOND_FLAPS", 1000);
    let lab = builder(Datapath::Tc).wire(Wire::Tap).build().unwrap();
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file("active", &SLAVES);
    let mut xbond = run(&lab, &file);
    for alive in [true, false] {
        meet(&lab);
        let traffic = traffic(&lab, 2_000);
        traffic.wait_for_more(200).unwrap();
        if !alive {
            xbond.signal(Signal::SIGKILL).unwrap();
            xbond.wait().unwrap();
        }
        let start = Instant::now();
        for number in 0..flaps {
            let name = SLAVES[(number / 2 % 2) as usize];
            if number % 2 == 0 { lab.cut(name, Cut::Carrier) } else { lab.mend(name, Cut::Carrier) }.unwrap();
            let due = start + Duration::from_millis(number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        println!("agent alive: {alive}: {flaps} flaps in {:?}", start.elapsed());
        for name in SLAVES {
            lab.mend(name, Cut::Carrier).unwrap();
            lab.switch.wait_for_forwarding(&lab.port(name).unwrap()).unwrap();
        }
        // Without an agent nobody tells neighbours of a loss that was too short for the switch to notice. They ask when
        // what they know has aged, after 45 seconds at most and a few more.
        let patience = if alive { 1 } else { 4 };
        let recovers = (0..patience).any(|_| traffic.wait_for_more(200).is_ok());
        assert!(recovers, "agent alive: {alive}: no traffic after the flaps");
        let [to_peer, to_host] = traffic.stop().unwrap();
        println!(
            "lost {} of {} to the peer, {} of {} to the host",
            to_peer.lost, to_peer.sent, to_host.lost, to_host.sent
        );
        assert_traffic(&lab, "after the flaps");
        if !alive {
            xbond = run(&lab, &file);
        }
        for name in SLAVES {
            wait_for_status(&xbond, name, "up");
        }
        let active = active_slave(&xbond).unwrap();
        let mac = lab.mac(&active).unwrap();
        eventually(
            "bond0 has its active slave's MAC",
            || lab.host.link(BOND).unwrap().mac,
            |found| *found == mac,
        );
        assert_traffic(&lab, "with an agent again");
    }
    let log = xbond.stop().unwrap();
    assert!(log.contains("adopted"), "{log}");
    before.assert_holds(&lab.host, "flaps");
}

/// Who offsets the clocks of a container must not confuse the ARP monitor, whose times the kernel takes.
#[test]
fn an_agent_in_a_time_namespace_compares_like_with_like() {
    skip_if_unable!();
    let _turn = beside_others();
    let up_for = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap().tv_sec();
    // No clock may be before the boot.
    for offset in [86_400, -(up_for / 2).min(60)] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        if !has_tcx() {
            // Before some 6.x a process between two time namespaces can have no threads.
            return skip("unshare leaves a program between two time namespaces on old kernels");
        }
        let mut command = lab.host.command("unshare");
        command.args(["--time", &format!("--monotonic={offset}"), &format!("--boottime={offset}")]);
        command.arg(xbond::binary().unwrap()).args([
            "run",
            "--bond",
            BOND,
            "--address",
            &format!("{HOST_V4}/24"),
        ]);
        command.args(SLAVES.iter().flat_map(|name| ["--slave", name]));
        let target = format!("arp_ip_target={PEER_V4}");
        command.args(["-o", brisk(), "-o", &target, "-o", "arp_validate=all"]);
        let xbond = Xbond::start_as(&lab.host, command).unwrap();
        xbond.wait_for("bond0 ready").unwrap();
        let offsets = fs::read_to_string(format!("/proc/{}/timens_offsets", xbond.pid())).unwrap();
        assert!(offsets.contains(&offset.to_string()), "the test is not what it means to be: {offsets}");
        for name in SLAVES {
            wait_for_status(&xbond, name, "up");
        }
        // Both are heard all the time: a second and more of probes.
        let probes = |bond: &serde_json::Value| {
            let of = |name| slave(bond, name)["counters"]["rx_packets"].as_u64().unwrap();
            of(SLAVES[0]) + of(SLAVES[1])
        };
        let since = probes(&show(&xbond));
        let traffic = traffic(&lab, 1_000);
        traffic.wait_for_more(1_500).unwrap();
        let bond = show(&xbond);
        assert!(probes(&bond) > since);
        for name in SLAVES {
            let slave = slave(&bond, name);
            assert_eq!(
                (&slave["link_failure_count"], &slave["mii_status"]),
                (&0.into(), &"up".into()),
                "{offset}: {bond:#}"
            );
        }
        // And one that is not heard any more is noticed.
        lab.cut(SLAVES[0], Cut::Silent).unwrap();
        wait_for_active(&xbond, SLAVES[1]);
        traffic.wait_for_more(200).unwrap();
        xbond.stop().unwrap();
    }
}

/// Somebody holds RTNL, for seconds: the bond fails over all the same, and says so to its neighbours.
mod rtnl_is_held {
    use super::*;

    const CUTTABLE: &str = "cut0";

    /// The time from the cut to the announcement, or that without traffic if it was longer.
    fn fail_over(guard: &str, policy: &str, rate: u32) -> Duration {
        let what = format!("guard {guard}, {policy}, {rate}/s");
        let seconds = asked_for("XBOND_RTNL_SECONDS", 1);
        let lab = lab(Datapath::Tc, Policy::Learning);
        let (nic, other) = (lab.mac(SLAVES[0]).unwrap(), lab.mac(SLAVES[1]).unwrap());
        let wire = (&lab.switch.netns, lab.port(SLAVES[0]).unwrap());
        let cuttable = StpNic::create(&lab.host, (CUTTABLE, nic), SLAVES[0], (wire.0, &wire.1)).unwrap();
        let address = format!("{HOST_V4}/24");
        let arguments = [
            "--bond",
            BOND,
            "--address",
            &address,
            "--guard",
            guard,
            "--slave",
            CUTTABLE,
            "--slave",
            SLAVES[1],
        ];
        let policy_option = format!("fail_over_mac={policy}");
        let options = ["-o", "miimon=100", "-o", &policy_option];
        let xbond = Xbond::run(&lab.host, arguments.iter().chain(&options)).unwrap();
        assert_eq!(active_slave(&xbond).as_deref(), Some(CUTTABLE));
        cuttable.arm(&lab.host).unwrap();
        for name in [CUTTABLE, SLAVES[1]] {
            wait_for_status(&xbond, name, "up");
        }
        meet(&lab);
        let traffic = (rate > 0).then(|| traffic(&lab, rate));
        if let Some(traffic) = &traffic {
            traffic.wait_for_more(200).unwrap();
        }
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let before = xbond.log().len();

        let held = RtnlHeld::take(&lab.host).unwrap();
        let mut waiting = lab.host.command("ip").args(["link", "set", "lo", "up"]).spawn().unwrap();
        let event = Instant::now();
        cuttable.cut().unwrap();
        xbond.wait_for_after(before, &format!("active slave {} instead of {CUTTABLE}", SLAVES[1])).unwrap();
        let expected = if policy == "active" { other } else { nic };
        let announces = |frame: &xbond_tests::Frame| {
            frame.announces(HOST_V4.into()) == Some(expected) && frame.at > event
        };
        let announced = capture.wait_for(PATIENCE, announces).unwrap().at - event;
        // It goes on like this as long as RTNL is held, and answers.
        assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[1]), "{what}");
        if let Some(traffic) = &traffic {
            traffic.wait_for_more(200).unwrap();
        }
        thread::sleep(Duration::from_secs(seconds).saturating_sub(event.elapsed()));
        assert!(
            waiting.try_wait().unwrap().is_none(),
            "it was not held: the test is not what it means to be"
        );
        held.release().unwrap();
        assert!(waiting.wait().unwrap().success());

        eventually("bond0's MAC follows", || lab.host.link(BOND).unwrap().mac, |mac| *mac == expected);
        println!("{what}: announced after {announced:?}");
        let mut worst = announced;
        if let Some(traffic) = traffic {
            let [to_peer, to_host] = traffic.stop().unwrap();
            println!(
                "{what}: lost {} to the peer, {} to the host; {:?}",
                to_peer.lost,
                to_host.lost,
                to_peer.outage()
            );
            worst = worst.max(to_peer.outage());
            assert!(matches!(to_host.recovery(event), Recovery::After(_)), "{what}");
        }
        assert_traffic(&lab, &what);
        xbond.stop().unwrap();
        worst
    }

    const GRACE: Duration = Duration::from_millis(10);

    /// The lock is the machine's: whoever needs it waits, so this test is alone.
    #[test]
    fn the_guard_or_miimon_fail_over_and_announce() {
        skip_if_unable!();
        let _turn = alone();
        for (guard, policy, rate) in [("auto", "active", 2_000), ("off", "active", 0), ("off", "none", 2_000)]
        {
            // A busy machine may be late; what waits for RTNL always is.
            let best = (0..3).map(|_| fail_over(guard, policy, rate)).find(|time| *time <= MIIMON + GRACE);
            assert!(best.is_some(), "guard {guard}, {policy}, {rate}/s");
        }
    }
}

/// kill -9 at random moments, of agents that fail over, enslave, release, reload and adopt.
mod killed {
    use super::*;

    const NICS: [&str; 3] = ["nic0", "nic1", "nic2"];

    /// A request that the agent may not survive.
    fn ask(lab: &Lab, arguments: &[&str]) -> std::process::Child {
        let mut command = lab.host.command(xbond::binary().unwrap());
        command.args(arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().unwrap()
    }

    fn dropped(lab: &Lab) -> u64 {
        let of = |name: &&str| {
            let text = lab.host.ip(&format!("-json -statistics link show dev {name}")).unwrap();
            let link: serde_json::Value = serde_json::from_str(&text).unwrap();
            link[0]["stats64"]["tx"]["dropped"].as_u64().unwrap()
        };
        NICS.iter().map(of).sum()
    }

    /// As the policy wants them.
    fn assert_macs(lab: &Lab, policy: &str, active: &str, what: &str) {
        let own = |name: &str| lab.mac(name).unwrap();
        let look = || {
            let worn = NICS.map(|name| lab.host.link(name).unwrap().mac);
            (lab.host.link(BOND).unwrap().mac, worn)
        };
        let place = NICS.iter().position(|name| *name == active).unwrap();
        eventually(&format!("{what}: the MACs of {policy}"), look, |(bond, worn)| match policy {
            "none" => worn.iter().all(|mac| mac == bond),
            "active" => worn[place] == *bond && *worn == NICS.map(own),
            _ => worn[place] == *bond && worn[0] != worn[1] && worn[1] != worn[2] && worn[0] != worn[2],
        });
    }

    fn kill_agents(policy: &str, kills: u64, random: &mut Random) {
        let nics = NICS.iter().zip(1..).map(|(name, last)| Nic::new(name, [2, 0, 0, 0, 1, last]));
        let lab = builder(Datapath::Tc).wire(Wire::Tap).nics(nics).build().unwrap();
        snapshot::open_once(&lab.host);
        let before = Snapshot::of(&lab.host);
        let file = file(policy, &NICS);
        let mut agent = run(&lab, &file);
        meet(&lab);
        let traffic = traffic(&lab, 1_000);
        traffic.wait_for_more(100).unwrap();
        let mut cuts = 0;
        for number in 0..kills {
            let active = active_slave(&agent).unwrap();
            let other = NICS[random.below(3) as usize];
            let doing = ["fail over", "switch", "del-slave", "add-slave", "reload", "nothing"]
                [random.below(6) as usize];
            let mut asked = match doing {
                "fail over" => {
                    cuts += 1;
                    lab.cut(&active, Cut::Carrier).unwrap();
                    None
                }
                "switch" => Some(ask(&lab, &["set", BOND, &format!("active_slave={other}")])),
                "del-slave" => Some(ask(&lab, &["del-slave", BOND, other])),
                "add-slave" => {
                    // What an adopted bond has to be told twice.
                    let _ = agent.cli(["del-slave", BOND, other]);
                    Some(ask(&lab, &["add-slave", BOND, other]))
                }
                "reload" => {
                    let kept: Vec<_> = NICS.into_iter().filter(|name| *name != other).collect();
                    write_file(&file, policy, &kept, "mtu = 1400\nguard = \"auto\"\n");
                    Some(ask(&lab, &["reload"]))
                }
                _ => None,
            };
            let moment = Duration::from_micros(random.below(60_000));
            thread::sleep(moment);
            let mut log = agent.log();
            agent.signal(Signal::SIGKILL).unwrap();
            agent.wait().unwrap();
            if let Some(asked) = &mut asked {
                asked.wait().unwrap();
            }
            write_file(&file, policy, &NICS, "mtu = 1500\n");
            // One of three does not live to the end of its adoption either.
            if random.below(3) == 0 {
                let start = Xbond::start(&lab.host, ["-c", file.path().to_str().unwrap()]).unwrap();
                thread::sleep(Duration::from_millis(random.below(400)));
                log += &start.log();
                start.kill().unwrap();
            }
            let what = format!("{policy}, kill {number}, {doing} {other}, after {moment:?}");
            agent = Xbond::run(&lab.host, ["-c", file.path().to_str().unwrap()])
                .unwrap_or_else(|error| panic!("{what}: {error:#}; the log of the one before:\n{log}"));
            lab.mend(&active, Cut::Carrier).unwrap();
            let all_up = |bond: &serde_json::Value| {
                let slaves = bond["slaves"].as_array().unwrap();
                let up = slaves.iter().filter(|slave| slave["mii_status"] == "up");
                slaves.len() == NICS.len() && up.count() == NICS.len()
            };
            eventually(&what, || show(&agent), all_up);
            traffic.wait_for_more(100).unwrap();
            assert_macs(&lab, policy, &active_slave(&agent).unwrap(), &what);
            assert!(agent.log().contains("bond0: adopted"), "{what}: {}", agent.log());
        }
        let dropped = dropped(&lab);
        let [to_peer, to_host] = traffic.stop().unwrap();
        println!(
            "{policy}: {kills} kills, {cuts} cuts: of {} lost {} to the peer, {dropped} dropped by devices; of {} lost {} to the host",
            to_peer.sent, to_peer.lost, to_host.sent, to_host.lost
        );
        assert!(to_peer.lost <= dropped + 2 * cuts, "{policy}: {to_peer:?}");
        assert_eq!(to_peer.duplicated, 0, "{policy}");
        agent.cli(["down", BOND]).unwrap();
        agent.stop().unwrap();
        before.assert_holds(&lab.host, policy);
    }

    #[test]
    fn none() {
        skip_if_unable!();
        let _turn = beside_others();
        kill_agents("none", asked_for("XBOND_KILLS", 25) / 3, &mut Random::new());
    }

    #[test]
    fn active() {
        skip_if_unable!();
        let _turn = beside_others();
        kill_agents("active", asked_for("XBOND_KILLS", 25) / 3, &mut Random::new());
    }

    #[test]
    fn follow() {
        skip_if_unable!();
        let _turn = beside_others();
        kill_agents("follow", asked_for("XBOND_KILLS", 25).div_ceil(3), &mut Random::new());
    }
}

/// Somebody unmounts bpffs. In a mount namespace of the test's own: the machine's is others', too.
mod bpffs_is_unmounted {
    use nix::{
        mount::{MntFlags, MsFlags, mount, umount2},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    const BPFFS: &str = "/sys/fs/bpf";

    /// A command in a mount namespace that it makes, with a bpffs of its own.
    fn apart(mut command: Command) -> Command {
        let enter = || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            umount2(BPFFS, MntFlags::MNT_DETACH)?;
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
            Ok(())
        };
        // SAFETY: between fork and exec the closure only makes system calls; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// A process that holds such a namespace. Dropping it ends it.
    struct Apart(std::process::Child);

    impl Apart {
        fn new(lab: &Lab) -> Self {
            let mut command = lab.host.command("sleep");
            command.arg("1000");
            // When it runs, it is there.
            Self(apart(command).spawn().unwrap())
        }

        fn command(&self, lab: &Lab, program: &str) -> Command {
            let mut command = lab.host.command("nsenter");
            command.arg(format!("--mount=/proc/{}/ns/mnt", self.0.id())).arg(program);
            command
        }

        fn unmount(&self, lab: &Lab) {
            assert!(self.command(lab, "umount").arg(BPFFS).status().unwrap().success());
        }

        /// An agent mounts none in a mount namespace that may be private: it would end with the namespace.
        fn mount(&self, lab: &Lab) {
            let mut command = self.command(lab, "mount");
            assert!(command.args(["-t", "bpf", "bpf", BPFFS]).status().unwrap().success());
        }

        fn start<'lab>(&self, lab: &'lab Lab, file: &NamedTempFile) -> Xbond<'lab> {
            let binary = xbond::binary().unwrap();
            let mut command = self.command(lab, binary.to_str().unwrap());
            command.arg("run").arg("-c").arg(file.path());
            let xbond = Xbond::start_as(&lab.host, command).unwrap();
            xbond.wait_for("bond0 ready").unwrap();
            xbond
        }
    }

    impl Drop for Apart {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// The bond goes on, and ends with the agent, which says so; nothing is left.
    #[test]
    fn while_the_agent_runs() {
        skip_if_unable!();
        let _turn = beside_others();
        for on_exit in ["down", "keep"] {
            let lab = lab(Datapath::Tc, Policy::Learning);
            snapshot::open_once(&lab.host);
            let before = Snapshot::of(&lab.host);
            let file = file("active", &SLAVES[..1]);
            write_file(&file, "active", &SLAVES[..1], &format!("on_exit = \"{on_exit}\"\n"));
            let place = Apart::new(&lab);
            let xbond = place.start(&lab, &file);
            meet(&lab);
            let log = xbond.log().len();
            place.unmount(&lab);
            xbond.wait_for_after(log, "its pins are gone (bpffs unmounted?)").unwrap();
            let shown = xbond.cli(["show", BOND]).unwrap();
            assert!(shown.contains("! bond0: its pins are gone (bpffs unmounted?)"), "{shown}");
            assert_traffic(&lab, "unmounted");
            // What needs pins is refused, and the interface is as it was.
            let link = lab.host.link(SLAVES[1]).unwrap();
            let error = xbond.cli(["add-slave", BOND, SLAVES[1]]).unwrap_err().to_string();
            println!("{error}");
            assert!(error.contains("exit status: 2") && error.contains("pins are gone"), "{error}");
            assert_eq!(lab.host.link(SLAVES[1]).unwrap(), link);
            assert_traffic(&lab, "after a refusal");
            let log = xbond.stop().unwrap();
            assert_eq!(log.contains("it cannot be kept, and is taken down"), on_exit == "keep", "{log}");
            drop(place);
            before.assert_holds(&lab.host, on_exit);
        }
    }

    /// Nothing holds the programs then. The next agent takes the remains away, and makes the bond anew.
    #[test]
    fn while_no_agent_runs() {
        skip_if_unable!();
        let _turn = beside_others();
        let lab = lab(Datapath::Tc, Policy::Learning);
        snapshot::open_once(&lab.host);
        let before = Snapshot::of(&lab.host);
        let file = file("none", &SLAVES);
        let place = Apart::new(&lab);
        let first = place.start(&lab, &file);
        meet(&lab);
        first.kill().unwrap();
        assert!(reaches_peer(&lab), "it goes on without an agent");
        place.unmount(&lab);
        if has_tcx() {
            eventually("it ends with its pins", || reaches_peer(&lab), |reached| !*reached);
        } else {
            assert!(reaches_peer(&lab), "filters are held by no pin");
        }
        place.mount(&lab);
        let second = place.start(&lab, &file);
        second.wait_for("its remains go first").unwrap();
        assert_traffic(&lab, "made anew");
        second.stop().unwrap();
        drop(place);
        before.assert_holds(&lab.host, "bpffs");
    }
}

/// Little memory: a sentence before anything is changed, or a bond.
#[test]
fn an_agent_with_little_memory_says_so_or_works() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file("active", &SLAVES);
    for megabytes in [200, 400, 1400, 2048] {
        let mut command = lab.host.command("prlimit");
        command.arg(format!("--as={}", megabytes << 20)).arg(xbond::binary().unwrap());
        command.arg("run").arg("-c").arg(file.path());
        let mut agent = Xbond::start_as(&lab.host, command).unwrap();
        eventually(
            "it is ready, or says why not",
            || agent.log(),
            |log| log.contains("bond0 ready") || log.contains("address space"),
        );
        if agent.log().contains("bond0 ready") {
            assert_traffic(&lab, &format!("{megabytes} MB"));
            agent.stop().unwrap();
        } else {
            assert_eq!(agent.wait().unwrap().code(), Some(2), "{megabytes} MB: {}", agent.log());
            assert_eq!(agent.log().lines().count(), 1, "{megabytes} MB: {}", agent.log());
        }
        before.assert_holds(&lab.host, &format!("{megabytes} MB"));
    }
}

/// A control group of the memory controller, version 1 or 2, that allows so much. Removed on drop.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// None where the machine has no such controller that we may use.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("xbond-test-{}-{bytes}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        kinds.into_iter().find_map(|(root, limit)| {
            let group = Self(PathBuf::from(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// The command's process joins before it begins.
    fn hold(&self, command: &mut Command) {
        let members = fs::File::options().write(true).open(self.0.join("cgroup.procs")).unwrap();
        let join = move || {
            nix::unistd::write(&members, b"0")?;
            Ok(())
        };
        // SAFETY: between fork and exec there is one system call, on a descriptor opened before.
        unsafe { command.pre_exec(join) };
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Too little memory: the kernel kills the agent at some moment of its life, and the next one goes on with what is
/// there, or begins anew.
#[test]
fn what_an_agent_leaves_that_ran_out_of_memory_is_taken_up_by_the_next() {
    skip_if_unable!();
    let _turn = beside_others();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file("active", &SLAVES);
    let mut killed = 0;
    for megabytes in [8, 29, 30, 31, 256] {
        let what = format!("{megabytes} MB");
        let Some(group) = MemoryGroup::new(megabytes << 20) else {
            return skip("no memory controller of control groups");
        };
        let mut command = lab.host.command(xbond::binary().unwrap());
        command.arg("run").arg("-c").arg(file.path());
        group.hold(&mut command);
        let mut agent = Xbond::start_as(&lab.host, command).unwrap();
        if agent.wait_for("bond0 ready").is_ok() {
            assert_traffic(&lab, &what);
            agent.kill().unwrap();
        } else {
            let status = agent.wait().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGKILL), "{what}: {}", agent.log());
            killed += 1;
        }
        let next = run(&lab, &file);
        assert_traffic(&lab, &what);
        next.stop().unwrap();
        before.assert_holds(&lab.host, &what);
    }
    assert!((1..5).contains(&killed), "it has to be killed sometimes, and not always: {killed} of 5");
}
