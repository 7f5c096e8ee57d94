//! Bonds on trial (`run --confirm`) whose agent ends before they are confirmed or undone.

mod snapshot;

use std::{fs, thread, time::Duration};

use snapshot::Snapshot;
use xbond_tests::{Lab, Xbond, bonded::wait_until, skip_if_unable, xbond};

const FLAGS: [&str; 7] = ["--bond", "bond0", "--slave", "enp0s8", "-o", "miimon=100", "--on-exit=keep"];
const NOTHING_WAITS: &str = "nothing waits for a confirmation";

fn with_flags<'a>(lab: &'a Lab, more: &[&'static str]) -> Xbond<'a> {
    Xbond::run(&lab.host, FLAGS.into_iter().chain(more.iter().copied())).unwrap()
}

fn refused(lab: &Lab, arguments: &[&str]) -> String {
    xbond::cli(&lab.host, arguments).unwrap_err().to_string()
}

#[test]
fn the_next_agent_continues_a_killed_agents_trial() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let found = Snapshot::of(&lab.host);
    with_flags(&lab, &["--confirm", "10"]).kill().unwrap();
    let shown = xbond::cli(&lab.host, ["show", "bond0"]).unwrap();
    assert!(shown.contains("not confirmed yet"), "{shown}");

    let mut next = with_flags(&lab, &[]);
    assert!(
        next.log().contains("bond0: not confirmed yet (--confirm): an agent removes it in"),
        "{}",
        next.log()
    );
    assert!(!next.wait().unwrap().success());
    assert!(next.log().contains("not confirmed within 10 s: everything was undone"), "{}", next.log());
    found.assert_holds(&lab.host, "not confirmed");
}

#[test]
fn a_trial_that_ended_without_an_agent_is_over_at_once() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let found = Snapshot::of(&lab.host);
    // Kept at the agent's end, and not confirmed.
    let log = with_flags(&lab, &["--confirm", "2"]).stop().unwrap();
    assert!(log.contains("bond0: not confirmed yet"), "{log}");
    wait_until("the time is over", || {
        Ok(xbond::cli(&lab.host, ["show", "bond0"])?.contains("not confirmed in time"))
    })
    .unwrap();
    let error = refused(&lab, &[&["run"][..], &FLAGS].concat());
    assert!(
        error.contains("bond0: was not confirmed within 2 s, while no agent ran: it is removed now"),
        "{error}"
    );
    found.assert_holds(&lab.host, "not confirmed");
    with_flags(&lab, &[]).stop().unwrap();
    xbond::cli(&lab.host, ["down", "bond0", "--force"]).unwrap();
}

#[test]
fn a_confirmed_bond_is_on_trial_for_no_later_agent() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let first = with_flags(&lab, &["--confirm", "30"]);
    first.kill().unwrap();
    let next = with_flags(&lab, &[]);
    assert_eq!(next.cli(["confirm"]).unwrap(), "confirmed: it stays\n");
    assert!(refused(&lab, &["confirm"]).contains(NOTHING_WAITS));
    next.kill().unwrap();
    let shown = xbond::cli(&lab.host, ["show", "bond0"]).unwrap();
    assert!(!shown.contains("not confirmed"), "{shown}");
    let last = with_flags(&lab, &[]);
    assert!(refused(&lab, &["confirm"]).contains(NOTHING_WAITS));

    // --confirm could not undo its changes to an existing bond.
    last.kill().unwrap();
    let error = refused(&lab, &[&["run"][..], &FLAGS, &["--confirm", "30", "-o", "primary=enp0s8"]].concat());
    assert!(error.contains("bond0: another agent left it running, and --confirm could not undo"), "{error}");
    let next = with_flags(&lab, &[]);
    assert_eq!(next.show("bond0").unwrap()["bonds"][0]["options"]["primary"], serde_json::Value::Null);
    next.stop().unwrap();
    xbond::cli(&lab.host, ["down", "bond0", "--force"]).unwrap();
}

/// An agent with files, which a service manager would restart, keeps running, and does not recreate the bond.
#[test]
fn an_agent_with_files_removes_and_reports_unconfirmed_bonds() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let found = Snapshot::of(&lab.host);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bond0.toml");
    fs::write(&path, "version = 1\n[bond.bond0]\nmiimon = 100\non_exit = \"keep\"\nslaves = [\"enp0s8\"]\n")
        .unwrap();
    let path = path.to_str().unwrap();
    let missing = "bond0: not confirmed within 5 s: it was removed; `xbond reload` recreates it";
    Xbond::run(&lab.host, ["-c", path, "--confirm", "5"]).unwrap().kill().unwrap();
    let next = Xbond::run(&lab.host, ["-c", path]).unwrap();
    next.wait_for(missing).unwrap();
    assert!(lab.host.ip("link show dev bond0").is_err());
    assert!(refused(&lab, &["confirm"]).contains("the 5 s for a confirmation are over"));
    // Longer than the agent waits before it retries a failed bond.
    thread::sleep(Duration::from_secs(6));
    assert!(next.cli(["show"]).unwrap().contains(missing));
    next.cli(["reload"]).unwrap();
    assert!(next.show("bond0").is_ok());
    next.kill().unwrap();

    // The trial is over before the agent starts.
    xbond::cli(&lab.host, ["down", "bond0", "--force"]).unwrap();
    Xbond::run(&lab.host, ["-c", path, "--confirm", "1"]).unwrap().kill().unwrap();
    thread::sleep(Duration::from_secs(1));
    let next = Xbond::start(&lab.host, ["-c", path]).unwrap();
    next.wait_for("bond0: not confirmed within 1 s: it was removed; `xbond reload` recreates it").unwrap();
    next.stop().unwrap();
    found.assert_holds(&lab.host, "overdue");
}
