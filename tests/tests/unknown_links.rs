//! An agent that cannot read a link state: an unknown state is not down.

mod common;

use std::{os::unix::process::CommandExt as _, process::Command, time::Duration};

use common::{BOND, SLAVES, active_slave, concurrently, eventually, lab, meet, show, slave, wait_for_active};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use xbond_tests::{
    Cut, HOST_V4, Lab, PEER_V4, Policy, Xbond,
    failing_calls::{self, FailingCalls, RECEIVE, SEND, TEST_RUN, rtnetlink_sockets},
    lab::Datapath,
    skip_if_unable,
    xbond::binary,
};

const BTF: &str = "/sys/kernel/btf";
const MIIMON: Duration = Duration::from_millis(50);

/// Returns `xbond run` with the scenario's slaves.
fn command(lab: &Lab, more: &[&str]) -> Command {
    let mut command = lab.host.command(binary().unwrap());
    let address = format!("{HOST_V4}/24");
    command.args(["run", "--bond", BOND, "--address", &address, "-o", "miimon=50"]);
    for name in SLAVES {
        command.args(["--slave", name]);
    }
    command.args(more);
    command
}

/// Makes a command run in its own mount namespace, where [`BTF`] is empty if `hidden`.
fn apart(mut command: Command, hidden: bool) -> Command {
    let enter = move || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        if hidden {
            mount(Some("none"), BTF, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
    command
}

fn is_up(xbond: &Xbond<'_>, name: &str) -> bool {
    slave(&show(xbond), name)["mii_status"] == "up"
}

/// Asserts that both slaves stay up over several polls, and that the bond carries traffic.
#[track_caller]
fn assert_carries(lab: &Lab, xbond: &Xbond<'_>, what: &str) {
    for _ in 0..10 {
        assert!(SLAVES.iter().all(|name| is_up(xbond, name)), "{what}: {}\n{}", show(xbond), xbond.log());
        std::thread::sleep(MIIMON);
    }
    assert_eq!(lab.host.ping(PEER_V4.into(), 1).unwrap().received, 1, "{what}: {}", xbond.log());
}

/// Fails over to the other slave and back, with link states from netlink.
#[track_caller]
fn assert_fails_over(lab: &Lab, xbond: &Xbond<'_>, what: &str) {
    let from = active_slave(xbond).unwrap();
    let to = SLAVES.iter().find(|name| **name != from).unwrap();
    lab.cut(&from, Cut::Carrier).unwrap();
    wait_for_active(xbond, to);
    lab.reconnect(&from, Cut::Carrier).unwrap();
    eventually(what, || is_up(xbond, &from), |up| *up);
    meet(lab);
}

#[test]
fn a_bond_without_the_kernels_types_is_known_by_netlink() {
    skip_if_unable!();
    let _turn = concurrently();
    for events in [&[][..], &["--no-link-events"]] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let xbond = Xbond::start_as(&lab.host, apart(command(&lab, events), true)).unwrap();
        xbond.wait_for("bond0 ready").unwrap();
        assert!(xbond.log().contains("links are known by netlink only"), "{}", xbond.log());
        meet(&lab);
        assert_carries(&lab, &xbond, "hidden before the start");
        assert_fails_over(&lab, &xbond, "hidden before the start");
        xbond.stop().unwrap();
    }
}

#[test]
fn a_bond_whose_agent_loses_the_kernels_types_keeps_its_links() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = Xbond::start_as(&lab.host, apart(command(&lab, &[]), false)).unwrap();
    xbond.wait_for("bond0 ready").unwrap();
    let hide = format!("nsenter --mount=/proc/{}/ns/mnt mount -t tmpfs none {BTF}", xbond.pid());
    lab.host.exec(&hide).unwrap();
    meet(&lab);
    assert_carries(&lab, &xbond, "hidden while it runs");
    for verb in ["del-slave", "add-slave"] {
        xbond.cli([verb, BOND, SLAVES[1]]).unwrap();
    }
    eventually("it is a slave again", || is_up(&xbond, SLAVES[1]), |up| *up);
    assert_fails_over(&lab, &xbond, "hidden while it runs");
    xbond.stop().unwrap();
}

#[test]
fn a_device_that_cannot_be_read_keeps_its_link_and_netlink_answers() {
    skip_if_unable!();
    let _turn = concurrently();
    for events in [&[][..], &["--no-link-events", "--guard", "off"]] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let mut command = command(&lab, events);
        failing_calls::install(&mut command, TEST_RUN);
        let xbond = Xbond::start_as(&lab.host, command).unwrap();
        let calls = FailingCalls::of(xbond.pid()).unwrap();
        xbond.wait_for("bond0 ready").unwrap();
        meet(&lab);
        for errno in [Errno::ENOMEM, Errno::EPERM] {
            let log = xbond.log().len();
            calls.fail(Some(errno));
            xbond.wait_for_after(log, "links are read by netlink until then").unwrap();
            assert_carries(&lab, &xbond, errno.desc());
            assert_fails_over(&lab, &xbond, errno.desc());
            calls.fail(None);
            xbond.wait_for_after(log, "links are read without netlink again").unwrap();
            assert_carries(&lab, &xbond, "afterwards");
        }
        // A slave that joins now has no handle by which the guard could read it.
        calls.fail(Some(Errno::ENOMEM));
        for name in SLAVES {
            xbond.cli(["del-slave", BOND, name]).unwrap();
            xbond.cli(["add-slave", BOND, name]).unwrap();
        }
        eventually("both are slaves again", || SLAVES.iter().all(|name| is_up(&xbond, name)), |up| *up);
        meet(&lab);
        calls.fail(None);
        assert_fails_over(&lab, &xbond, "slaves that joined without a handle");
        xbond.stop().unwrap();
        drop(calls);
    }
}

#[test]
fn an_agent_that_may_not_run_programs_starts_and_reads_links_by_netlink() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let mut command = command(&lab, &[]);
    failing_calls::install(&mut command, TEST_RUN);
    let xbond = Xbond::start_as(&lab.host, command).unwrap();
    let calls = FailingCalls::of(xbond.pid()).unwrap();
    calls.fail(Some(Errno::EPERM));
    xbond.wait_for("bond0 ready").unwrap();
    meet(&lab);
    assert_carries(&lab, &xbond, "never readable");
    assert_fails_over(&lab, &xbond, "never readable");
    xbond.stop().unwrap();
    drop(calls);
}

#[test]
fn an_agent_with_short_netlink_failures_executes_requests() {
    skip_if_unable!();
    let _turn = concurrently();
    // A few calls are repeated; after more failures the socket is replaced.
    for (call, errno, count) in [
        (SEND, Errno::ENOBUFS, 1),
        (SEND, Errno::ENOMEM, 14),
        (RECEIVE, Errno::ENOBUFS, 1),
        (RECEIVE, Errno::ENOMEM, 14),
    ] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let mut command = command(&lab, &["--on-exit", "down"]);
        failing_calls::install(&mut command, call);
        let xbond = Xbond::start_as(&lab.host, command).unwrap();
        let calls = FailingCalls::of(xbond.pid()).unwrap();
        xbond.wait_for("bond0 ready").unwrap();
        meet(&lab);
        for verb in ["del-slave", "add-slave"] {
            calls.fail_next(errno, count, rtnetlink_sockets(xbond.pid()).unwrap());
            let answer = xbond.cli([verb, BOND, SLAVES[1]]);
            assert!(answer.is_ok(), "{verb}, {count} times {errno}: {answer:?}");
            assert_eq!(calls.left(), 0, "{verb}, {errno}");
        }
        eventually("it is a slave again", || is_up(&xbond, SLAVES[1]), |up| *up);
        calls.fail_next(errno, count, rtnetlink_sockets(xbond.pid()).unwrap());
        xbond.stop().unwrap();
        assert!(lab.host.link(BOND).is_err(), "{BOND} is there after {errno}");
        drop(calls);
    }
}

#[test]
fn an_agent_without_netlink_treats_no_interface_as_gone() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let mut command = command(&lab, &[]);
    failing_calls::install(&mut command, SEND);
    let xbond = Xbond::start_as(&lab.host, command).unwrap();
    let calls = FailingCalls::of(xbond.pid()).unwrap();
    xbond.wait_for("bond0 ready").unwrap();
    xbond.cli(["del-slave", BOND, SLAVES[1]]).unwrap();
    calls.fail_after(0, Errno::ENOBUFS, sockets_and_later_ones(&xbond));
    let error = xbond.cli(["add-slave", BOND, SLAVES[1]]).unwrap_err().to_string();
    assert!(error.contains("the kernel gave no answer"), "{error}");
    calls.fail(None);
    xbond.cli(["add-slave", BOND, SLAVES[1]]).unwrap();
    eventually("it is a slave again", || is_up(&xbond, SLAVES[1]), |up| *up);
    xbond.stop().unwrap();
    drop(calls);
}

/// Returns the rtnetlink sockets of an agent, and the descriptors that they may get when they are reopened.
fn sockets_and_later_ones(xbond: &Xbond<'_>) -> impl Iterator<Item = u64> {
    let sockets = rtnetlink_sockets(xbond.pid()).unwrap();
    let highest = sockets.iter().max().copied().unwrap();
    sockets.into_iter().chain(highest..highest + 64)
}
