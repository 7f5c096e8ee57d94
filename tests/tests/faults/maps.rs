//! Maps that another process writes: two slaves, or none that the second agent knows yet.

use super::*;

/// Offset of link_failure_count in a value of SLAVES.
const FAILURES: usize = 40;

/// Returns the counter of the guard's failovers from a slave.
fn guard_failovers(xbond: &Xbond<'_>, name: &str) -> u64 {
    slave(&show(xbond), name)["counters"]["guard_failovers"].as_u64().unwrap()
}

/// ACTIVE names a slot without a slave, or none.
fn restores_the_active_slave(lab: &Lab, xbond: &Xbond<'_>) {
    let word = || peek(lab, "ACTIVE", 0);
    for (what, value) in [("a slot without a slave", Some(9)), ("nothing", None)] {
        let log = xbond.log().len();
        let before = guard_failovers(xbond, SLAVES[0]);
        poke(lab, "ACTIVE", 0, &active_word(&word(), value));
        let right = |word: &Vec<u8>| word[1] >> 4 == 0 && word[0] & 1 == 1;
        eventually(what, word, right);
        // If a packet found no slave in slot 9, the guard failed over, and the agent has nothing to report.
        let reported = || {
            let said =
                xbond.log()[log..].contains("BPF map ACTIVE was modified by another process; restored");
            said || guard_failovers(xbond, SLAVES[0]) > before
        };
        eventually(what, reported, |reported| *reported);
        assert_eq!(active_slave(xbond).as_deref(), Some(SLAVES[0]), "{what}");
        assert_traffic(lab, what);
    }
}

/// ACTIVE names a backup: the write is a valid request.
fn follows_to_a_backup(lab: &Lab, xbond: &Xbond<'_>) {
    let log = xbond.log().len();
    poke(lab, "ACTIVE", 0, &active_word(&peek(lab, "ACTIVE", 0), Some(1)));
    let said = xbond.wait_for_after(log, "active slave enp0s9 instead of enp0s8").unwrap();
    assert!(said.contains("instead of enp0s8: requested"), "{said}");
    wait_for_active(xbond, SLAVES[1]);
    assert_eq!(slave(&show(xbond), SLAVES[0])["link_failure_count"], 0);
    assert_traffic(lab, "a backup");
}

/// ACTIVE names a backup whose link is down: the write cannot be intended.
fn leaves_a_backup_without_a_link(lab: &Lab, xbond: &Xbond<'_>) {
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(xbond, SLAVES[0], "down");
    let log = xbond.log().len();
    let before = guard_failovers(xbond, SLAVES[1]);
    poke(lab, "ACTIVE", 0, &active_word(&peek(lab, "ACTIVE", 0), Some(0)));
    // Here, too, the guard may correct it first.
    let is_corrected = || {
        let said = xbond.log().split_off(log);
        let reported = ["active slave enp0s9", "BPF map ACTIVE was modified"];
        reported.iter().any(|reported| said.contains(reported)) || guard_failovers(xbond, SLAVES[1]) > before
    };
    eventually("a backup whose link is down", is_corrected, |corrected| *corrected);
    wait_for_active(xbond, SLAVES[1]);
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(xbond, SLAVES[0], "up");
}

/// Returns another value of a map.
fn damaged(map: &str, right: &[u8]) -> Vec<u8> {
    let mut wrong = right.to_vec();
    match map {
        "SLAVES" => wrong.fill(0),
        // Flags; the policy stays.
        "BOND" => wrong[36..40].copy_from_slice(&[1, 1, 0, 0]),
        // The order of the slots.
        _ => wrong[..8].reverse(),
    }
    assert_ne!(right, wrong);
    wrong
}

/// Returns whether a map has its value again, without what the data plane writes there.
fn is_restored(map: &str, found: &[u8], right: &[u8]) -> bool {
    match map {
        // The time of the guard's last failover.
        "GUARD" => found[..8] == right[..8],
        // If a packet found the active slave's entry empty, the guard failed over, which counts as a failure of its
        // link.
        "SLAVES" => {
            [&found[..FAILURES], &found[FAILURES + 4..]] == [&right[..FAILURES], &right[FAILURES + 4..]]
        }
        _ => found == right,
    }
}

/// Writes an entry repeatedly, also with the same value.
fn restores_an_entry(lab: &Lab, xbond: &Xbond<'_>, (map, key): (&str, u32)) {
    for time in 0..3 {
        let right = peek(lab, map, key);
        let log = xbond.log().len();
        poke(lab, map, key, &damaged(map, &right));
        xbond
            .wait_for_after(log, &format!("BPF map {map} was modified by another process; restored"))
            .unwrap();
        let what = format!("{map} {key}, time {time}");
        eventually(&what, || peek(lab, map, key), |found| is_restored(map, found, &right));
    }
    assert_traffic(lab, map);
}

/// Each write is corrected, or followed, at the next poll at the latest, and reported.
#[test]
fn foreign_map_writes_are_corrected_by_the_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let xbond = bond(&lab, Datapath::Tc, &["clock=off"]);
    restores_the_active_slave(&lab, &xbond);
    follows_to_a_backup(&lab, &xbond);
    leaves_a_backup_without_a_link(&lab, &xbond);
    for entry in [("SLAVES", 0), ("SLAVES", 1), ("BOND", 0), ("GUARD", 0)] {
        restores_an_entry(&lab, &xbond, entry);
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
