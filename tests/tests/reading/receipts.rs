//! Receipts of failovers, and `xbond log`.

use super::*;

/// The failovers of [`a_failover_leaves_a_receipt`].
fn log_lists_the_failovers(xbond: &Xbond<'_>) {
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

    log_lists_the_failovers(&xbond);
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
