//! Another process removes what an agent keeps in /run: the agent creates it again, and stays the only agent.

mod common;
mod snapshot;

use std::{os::linux::net::SocketAddrExt as _, os::unix::net};

use common::{BOND, SLAVES, eventually, meet};
use nix::sys::signal::Signal;
use snapshot::Snapshot;
use xbond_tests::{HOST_V4, Lab, Xbond, skip_if_unable, xbond::binary};

/// An agent with /run/xbond on its own file system, in its own mount namespace.
struct Apart<'lab> {
    lab: &'lab Lab,
    agent: Xbond<'lab>,
}

impl<'lab> Apart<'lab> {
    fn new(lab: &'lab Lab) -> Self {
        let mut command = lab.host.command("unshare");
        let script =
            "mkdir -p /run/xbond && mount -t tmpfs -o mode=755 apart /run/xbond && exec \"$0\" \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(binary().unwrap());
        command.args(["run", "--bond", BOND, "-o", "miimon=100", "--address", &format!("{HOST_V4}/24")]);
        command.args(SLAVES.iter().flat_map(|slave| ["--slave", slave]));
        let agent = Xbond::start_as(&lab.host, command).unwrap();
        agent.wait_for("ready").unwrap();
        Self { lab, agent }
    }

    fn directory(&self) -> String {
        format!("/run/xbond/{}", self.lab.host.cookie().unwrap())
    }

    fn files(&self) -> Vec<String> {
        let listed = self
            .agent
            .inside("find", &[&self.directory(), "-type", "f,s", "-printf", "%P\n"])
            .unwrap()
            .stdout;
        let mut files: Vec<_> = String::from_utf8_lossy(&listed)
            .lines()
            .filter(|name| !name.ends_with(".spare") && !name.ends_with("receipts.ndjson"))
            .map(str::to_owned)
            .collect();
        files.sort();
        files
    }

    /// Asserts that another agent is refused that wants a slave of this one's bond.
    #[track_caller]
    fn assert_keeps_others_out(&self, what: &str) {
        let error = self
            .agent
            .cli_inside(&["run", "--bond", "bond1", "--slave", "enp0s9", "-o", "miimon=100"])
            .unwrap_err();
        let owner = format!("already (pid {})", self.agent.pid());
        assert!(error.contains(&owner), "{what}: {error}");
        assert!(self.lab.host.link("bond1").is_err(), "{what}");
    }
}

#[test]
fn a_removed_run_directory_is_recreated_and_no_other_agent_starts() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let apart = Apart::new(&lab);
    meet(&lab);
    let files = apart.files();
    assert_eq!(files, ["bond0/found.json", "lock", "xbond.sock"]);
    apart.assert_keeps_others_out("at first");
    let (directory, below) = (apart.directory(), |name: &str| format!("{}/{name}", apart.directory()));
    for removed in
        [directory.clone(), below("lock"), below("xbond.sock"), below(BOND), "/run/xbond/xbond.sock".into()]
    {
        // The stopped agent cannot recreate anything yet.
        apart.agent.pause().unwrap();
        assert!(apart.agent.inside("rm", &["-rf", &removed]).unwrap().status.success());
        apart.assert_keeps_others_out(&removed);
        apart.agent.signal(Signal::SIGCONT).unwrap();
        eventually(&removed, || apart.files(), |now| *now == files);
        apart.assert_keeps_others_out(&removed);
        eventually("it answers", || apart.agent.cli_inside(&["show", BOND]).is_ok(), |answers| *answers);
    }
    // Files that are written later use the new directory.
    apart.agent.cli_inside(&["del-slave", BOND, "enp0s9"]).unwrap();
    apart.agent.cli_inside(&["add-slave", BOND, "enp0s9"]).unwrap();
    meet(&lab);
    let Apart { agent, .. } = apart;
    agent.stop().unwrap();
    let _ = lab.host.ip("link set enp0s9 down");
    before.assert_holds(&lab.host, "after the end");
}

/// A user without privileges has the name of the socket that excludes other agents.
#[test]
fn a_foreign_socket_name_keeps_no_agent_from_starting() {
    skip_if_unable!();
    const NOBODY: libc::c_long = 65534;
    let lab = Lab::scenario().unwrap();
    let name = format!("xbond-{}", lab.host.cookie().unwrap());
    let _squatter = lab
        .host
        .run(|| {
            // SAFETY: the system call takes integers. Unlike the function of libc it affects this thread only.
            let answer = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
            assert_eq!(answer, 0);
            Ok(net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(&name)?)?)
        })
        .unwrap();
    let apart = Apart::new(&lab);
    assert!(apart.agent.log().contains("is used by user 65534"), "{}", apart.agent.log());
    apart.assert_keeps_others_out("by its lock");
    apart.agent.stop().unwrap();
}
