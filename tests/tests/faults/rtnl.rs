//! Another process holds RTNL for seconds: the bond fails over at the usual time, and announces it.

use super::*;

const CUTTABLE: &str = "cut0";
const BETWEEN_CHECKS: Duration = Duration::from_millis(1_200);
/// A failover without MAC address changes is recorded at once, another half a second after the switch. The rest is
/// tolerance for a busy machine.
const SOON: Duration = Duration::from_millis(1_500);

/// Waits for the receipt of the failover.
fn is_recorded(lab: &Lab) {
    let log = || xbond::cli(&lab.host, ["log", BOND, "-j"]).unwrap().replace(' ', "");
    eventually("the record", log, |log| log.contains(&format!("\"from\":\"{CUTTABLE}\"")));
}

/// Starts a bond whose active slave can be cut while RTNL is held.
fn cuttable_bond<'lab>(lab: &'lab Lab, guard: &str, policy: &str) -> (StpNic, Xbond<'lab>) {
    let wire = (&lab.switch.netns, lab.port(SLAVES[0]).unwrap());
    let nic = (CUTTABLE, lab.mac(SLAVES[0]).unwrap());
    let cuttable = StpNic::create(&lab.host, nic, SLAVES[0], (wire.0, &wire.1)).unwrap();
    let address = format!("{HOST_V4}/24");
    let arguments =
        ["--bond", BOND, "--address", &address, "--guard", guard, "--slave", CUTTABLE, "--slave", SLAVES[1]];
    let policy_option = format!("fail_over_mac={policy}");
    let options = ["-o", "miimon=100", "-o", &policy_option];
    let xbond = Xbond::run(&lab.host, arguments.iter().chain(&options)).unwrap();
    assert_eq!(active_slave(&xbond).as_deref(), Some(CUTTABLE));
    cuttable.arm(&lab.host).unwrap();
    for name in [CUTTABLE, SLAVES[1]] {
        wait_for_status(&xbond, name, "up");
    }
    meet(lab);
    (cuttable, xbond)
}

/// Returns the time from the cut to the announcement, or the outage of the traffic if that is longer.
fn fail_over(guard: &str, policy: &str, rate: u32) -> Duration {
    let what = format!("guard {guard}, {policy}, {rate}/s");
    let seconds = asked_for("XBOND_RTNL_SECONDS", 2);
    let lab = lab(Datapath::Tc, Policy::Learning);
    let (nic, other) = (lab.mac(SLAVES[0]).unwrap(), lab.mac(SLAVES[1]).unwrap());
    let (cuttable, xbond) = cuttable_bond(&lab, guard, policy);
    let traffic = (rate > 0).then(|| traffic(&lab, rate));
    if let Some(traffic) = &traffic {
        traffic.wait_for_more(200).unwrap();
    }
    let capture = Capture::start(&lab.switch.netns).unwrap();
    let before = xbond.log().len();

    let held = RtnlHeld::take(&lab.host).unwrap();
    let mut waiting = lab.host.command("ip").args(["link", "set", "lo", "up"]).spawn().unwrap();
    // By now a check of the path waits for RTNL, too.
    thread::sleep(BETWEEN_CHECKS);
    let event = Instant::now();
    cuttable.cut().unwrap();
    xbond.wait_for_after(before, &format!("active slave {} instead of {CUTTABLE}", SLAVES[1])).unwrap();
    let logged = event.elapsed();
    is_recorded(&lab);
    println!("{what}: logged after {logged:?}, recorded after {:?}", event.elapsed());
    assert!(logged < SOON && event.elapsed() < SOON, "{what}: logged after {logged:?}");
    let expected = if policy == "active" { other } else { nic };
    let announces =
        |frame: &xbond_tests::Frame| frame.announces(HOST_V4.into()) == Some(expected) && frame.at > event;
    let announced = capture.wait_for(WAIT_LIMIT, announces).unwrap().at - event;
    // The agent keeps serving like this as long as RTNL is held.
    assert_eq!(active_slave(&xbond).as_deref(), Some(SLAVES[1]), "{what}");
    if let Some(traffic) = &traffic {
        traffic.wait_for_more(200).unwrap();
    }
    thread::sleep(Duration::from_secs(seconds).saturating_sub(event.elapsed()));
    assert!(waiting.try_wait().unwrap().is_none(), "RTNL was not held, so the test is invalid");
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

/// The lock is global to the machine, and other tests that need it would wait, so this test runs alone.
#[test]
fn the_guard_or_miimon_fail_over_and_announce() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for (guard, policy, rate) in [("auto", "active", 2_000), ("off", "active", 0), ("off", "none", 2_000)] {
        // A busy machine may be late; a process that waits for RTNL always is.
        let best = (0..3).map(|_| fail_over(guard, policy, rate)).find(|time| *time <= MIIMON + GRACE);
        assert!(best.is_some(), "guard {guard}, {policy}, {rate}/s");
    }
}
