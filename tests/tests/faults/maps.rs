//! Maps that another process writes: two slaves, or none that the second agent knows yet.

use super::*;

/// Offset of link_failure_count in a value of SLAVES.
const FAILURES: usize = 40;

/// Each write is corrected, or followed, at the next poll at the latest, and reported.
#[test]
fn foreign_map_writes_are_corrected_by_the_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let xbond = bond(&lab, Datapath::Tc, &["clock=off"]);
    let word = || peek(&lab, "ACTIVE", 0);
    // No slave has slot 9.
    for (what, value) in [("a slot without a slave", Some(9)), ("nothing", None)] {
        let log = xbond.log().len();
        let failovers = || slave(&show(&xbond), SLAVES[0])["counters"]["guard_failovers"].as_u64().unwrap();
        let before = failovers();
        poke(&lab, "ACTIVE", 0, &active_word(&word(), value));
        let right = |word: &Vec<u8>| word[1] >> 4 == 0 && word[0] & 1 == 1;
        eventually(what, word, right);
        // If a packet found no slave in slot 9, the guard failed over, and the agent has nothing to report.
        let reported = || {
            let said =
                xbond.log()[log..].contains("BPF map ACTIVE was modified by another process; restored");
            said || failovers() > before
        };
        eventually(what, reported, |reported| *reported);
        assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[0]), "{what}");
        assert_traffic(&lab, what);
    }
    // A backup: the write is a valid request.
    let log = xbond.log().len();
    poke(&lab, "ACTIVE", 0, &active_word(&word(), Some(1)));
    let said = xbond.wait_for_after(log, "active slave enp0s9 instead of enp0s8").unwrap();
    assert!(said.contains("instead of enp0s8: requested"), "{said}");
    wait_for_active(&xbond, SLAVES[1]);
    assert_eq!(slave(&show(&xbond), SLAVES[0])["link_failure_count"], 0);
    assert_traffic(&lab, "a backup");
    // A backup whose link is down: the write cannot be intended.
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(&xbond, SLAVES[0], "down");
    let log = xbond.log().len();
    let failovers = || slave(&show(&xbond), SLAVES[1])["counters"]["guard_failovers"].as_u64().unwrap();
    let before_it = failovers();
    poke(&lab, "ACTIVE", 0, &active_word(&word(), Some(0)));
    // Here, too, the guard may correct it first.
    let put_right = || {
        let said = xbond.log().split_off(log);
        let reported = ["active slave enp0s9", "BPF map ACTIVE was modified"];
        reported.iter().any(|reported| said.contains(reported)) || failovers() > before_it
    };
    eventually("a backup whose link is down", put_right, |right| *right);
    wait_for_active(&xbond, SLAVES[1]);
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(&xbond, SLAVES[0], "up");

    for (map, key) in [("SLAVES", 0), ("SLAVES", 1), ("BOND", 0), ("GUARD", 0)] {
        // Repeatedly, also with the same value.
        for time in 0..3 {
            let right = peek(&lab, map, key);
            let mut wrong = right.clone();
            match map {
                "SLAVES" => wrong.fill(0),
                // Flags; the policy stays.
                "BOND" => wrong[36..40].copy_from_slice(&[1, 1, 0, 0]),
                // The order of the slots.
                _ => wrong[..8].reverse(),
            }
            assert_ne!(right, wrong);
            let log = xbond.log().len();
            poke(&lab, map, key, &wrong);
            let said = format!("BPF map {map} was modified by another process; restored");
            xbond.wait_for_after(log, &said).unwrap();
            eventually(
                &format!("{map} {key}, time {time}"),
                || peek(&lab, map, key),
                |found| match map {
                    // The data plane writes the time of the guard's last failover.
                    "GUARD" => found[..8] == right[..8],
                    // If a packet found the active slave's entry empty, the guard failed over, which counts as a
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
    before.assert_holds(&lab.host, "maps that another process wrote");
}

/// The next agent corrects the map.
#[test]
fn foreign_map_writes_are_corrected_by_the_next_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file("none", &SLAVES);
    let own = own_macs(&lab);
    for (map, key) in
        [("ACTIVE", 9), ("ACTIVE", 1), ("ACTIVE", 0), ("SLAVES", 0), ("SLAVES", 1), ("BOND", 0), ("GUARD", 0)]
    {
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
            assert_eq!(bond["active_slave"], SLAVES[1], "the agent accepts the new active slave");
            second.wait_for(": requested").unwrap();
        }
        eventually(&what, || macs(&lab), |macs| macs.iter().all(|mac| *mac == macs[0] && own.contains(mac)));
        second.stop().unwrap();
        before.assert_holds(&lab.host, &what);
    }
}
