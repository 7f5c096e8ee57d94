//! Interfaces that vanish, return, flap, and change while the agent cannot read their events.

use super::*;

/// Deletes a NIC and creates another one with its name and this last byte of its MAC address.
fn replace(lab: &Lab, name: &str, last: u8) -> Mac {
    let mac = Mac::new([2, 0, 0, 0, 9, last]);
    let port = lab.port(name).unwrap();
    lab.host.ip(&format!("link delete {name}")).unwrap();
    let netns = lab.switch.netns.name();
    lab.host.ip(&format!("link add {name} address {mac} type veth peer name {port} netns {netns}")).unwrap();
    lab.switch.plug(&port).unwrap();
    mac
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Agent {
    Alive,
    Asleep,
    Dead,
}

/// Returns the policies to test. An adopting agent has most to detect; the other cases differ by policy in what they
/// do, not in what they see.
fn policies(agent: Agent) -> &'static [&'static str] {
    match agent {
        Agent::Alive => &["none", "follow"],
        Agent::Asleep => &["active"],
        Agent::Dead => &["none", "active", "follow"],
    }
}

/// The NIC is a new one: it joins, and is restored to its own original state, not to that of the former one.
#[test]
fn a_replaced_interface_joins_with_or_without_an_agent() {
    skip_if_unable!();
    let _turn = concurrently();
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
            // Each of the two slaves carries traffic.
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

/// In another namespace the interface is no slave; when it returns it is one again, and has its own MAC address in
/// the end.
#[test]
fn an_interface_that_returns_from_another_namespace_is_a_slave_again() {
    skip_if_unable!();
    let _turn = concurrently();
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

/// Hundreds of changes while the agent cannot read them: it detects the resulting state.
#[test]
fn an_agent_detects_changes_whose_link_events_were_lost() {
    skip_if_unable!();
    let _turn = concurrently();
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
    // No events of these are received any more.
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
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(&xbond, SLAVES[0], "up");
    xbond.stop().unwrap();
    assert_eq!(lab.host.link(SLAVES[1]).unwrap().mac, mac);
    // The replaced NIC is a new one, so the host differs from before; nothing of xbond's is left.
    lab.host.ip("link delete noise").unwrap();
    // The agent cannot know that the former one was deleted: it keeps its original state.
    let elsewhere = format!("/run/xbond/{}/elsewhere.json", lab.host.cookie().unwrap());
    assert!(fs::read_to_string(&elsewhere).unwrap().contains(SLAVES[1]));
    fs::remove_file(&elsewhere).unwrap();
    before.assert_nothing_left(&lab.host, "after the overrun");
}

/// Links that flap a thousand times a second, with an agent and without.
#[test]
fn flapping_links_end_with_a_bond_that_carries() {
    skip_if_unable!();
    let _turn = concurrently();
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
            if number % 2 == 0 { lab.cut(name, Cut::Carrier) } else { lab.reconnect(name, Cut::Carrier) }
                .unwrap();
            let due = start + Duration::from_millis(number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        println!("agent alive: {alive}: {flaps} flaps in {:?}", start.elapsed());
        for name in SLAVES {
            lab.reconnect(name, Cut::Carrier).unwrap();
            lab.switch.wait_for_forwarding(&lab.port(name).unwrap()).unwrap();
        }
        // Without an agent no announcement follows a loss that was too short for the switch to notice. Neighbours ask
        // again when their entries have aged, after little more than 45 seconds at most.
        let attempts = if alive { 1 } else { 4 };
        let recovers = (0..attempts).any(|_| traffic.wait_for_more(200).is_ok());
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
