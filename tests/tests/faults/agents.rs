//! Agents: several at once, stopped, asleep, or with another clock.

use super::*;

/// One agent has the namespace; the others report that and change nothing.
#[test]
fn one_of_several_agents_that_start_at_once_wins() {
    skip_if_unable!();
    let _turn = concurrently();
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
            // Each log contains one of the two.
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

/// Other agents start and end in their namespaces at the same time; the directories of all are next to each other.
#[test]
fn agents_of_many_namespaces_start_and_end_at_once() {
    skip_if_unable!();
    let _turn = concurrently();
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

/// An agent that was stopped while the bond failed over and returned finds everything in order.
#[test]
fn a_stopped_agent_undoes_no_failover_of_the_guard() {
    skip_if_unable!();
    let _turn = concurrently();
    for policy in ["none", "active", "follow"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = bond(&lab, Datapath::Tc, &[&format!("fail_over_mac={policy}")]);
        let before = macs(&lab);
        xbond.pause().unwrap();
        for name in SLAVES {
            lab.cut(name, Cut::Carrier).unwrap();
            eventually("the guard fails over", || reaches_peer(&lab), |reached| *reached);
            lab.reconnect(name, Cut::Carrier).unwrap();
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
        // The agent may publish the usable slots again, but does not change the active one.
        assert!(generation(word) - since <= 2, "{policy}");
        eventually(policy, || macs(&lab), |now| *now == before);
        assert_traffic(&lab, policy);
        xbond.stop().unwrap();
    }
}

/// Returns the receipts of the guard's failovers: from, to and generation of each.
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

/// Makes the guard fail over between the two slaves this many times; the first slave is active before.
fn fail_over_in_the_kernel(lab: &Lab, times: usize) {
    let traffic = traffic(lab, 2_000);
    for number in 0..times {
        let (from, to) = (SLAVES[number % 2], (number + 1) % 2);
        lab.cut(from, Cut::Carrier).unwrap();
        let active = || peek(lab, "ACTIVE", 0)[1] >> 4;
        eventually("the guard fails over", active, |active| usize::from(*active) == to);
        lab.reconnect(from, Cut::Carrier).unwrap();
        eventually("its link is back", || lab.host.link(from).unwrap().has_carrier(), |up| *up);
    }
    traffic.stop().unwrap();
}

/// An agent that was stopped reports every failover of the guard, also where the last one returns to the first slave.
/// If it is killed before it can, the next agent does.
#[test]
fn a_stopped_agent_leaves_a_receipt_for_each_failover_of_the_guard() {
    skip_if_unable!();
    let _turn = concurrently();
    for (policy, is_killed) in [("none", false), ("active", false), ("follow", false), ("active", true)] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let file = file(policy, &SLAVES);
        write_file(&file, policy, &SLAVES, "clock = \"off\"\n");
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
    let _turn = concurrently();
    const TIMES: usize = 140;
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["clock=off"]);
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

/// ACTIVE is set to an earlier value: no number of changes is derived from it, with or without a running agent.
#[test]
fn a_generation_that_is_set_back_is_no_number_of_changes() {
    skip_if_unable!();
    let _turn = concurrently();
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

/// An offset of a container's clocks must not confuse the ARP monitor, which uses the kernel's times.
#[test]
fn an_agent_in_a_time_namespace_uses_the_kernels_times() {
    skip_if_unable!();
    let _turn = concurrently();
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
        assert!(offsets.contains(&offset.to_string()), "invalid test, no offset: {offsets}");
        for name in SLAVES {
            wait_for_status(&xbond, name, "up");
        }
        // Both slaves receive probes all the time, for more than a second.
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
        // A slave that stops receiving is detected.
        lab.cut(SLAVES[0], Cut::Silent).unwrap();
        wait_for_active(&xbond, SLAVES[1]);
        traffic.wait_for_more(200).unwrap();
        xbond.stop().unwrap();
    }
}
