//! `on_exit=keep` where the bpffs belongs to one mount namespace: it ends with the last process there.

mod common;
mod snapshot;

use std::{fs, process::Command};

use common::{BOND, SLAVES};
use snapshot::Snapshot;
use xbond_tests::{Lab, Xbond, skip_if_unable, xbond::binary};

/// Returns whether this test, and so the agent, may read the mounts of process 1.
fn sees_process_1() -> bool {
    let seen = fs::metadata("/proc/1/root/sys/fs/bpf");
    !seen.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// Mounts a bpffs before the agent starts, in the mount namespace of `command`.
fn agent<'lab>(lab: &'lab Lab, mut command: Command) -> Xbond<'lab> {
    let script = "mount -t bpf bpf /sys/fs/bpf && mkdir -p /run/xbond && exec \"$0\" \"$@\"";
    command.args(["sh", "-c", script]).arg(binary().unwrap());
    command.args(["run", "--bond", BOND, "-o", "miimon=100", "--on-exit", "keep"]);
    command.args(SLAVES.iter().flat_map(|slave| ["--slave", slave]));
    let agent = Xbond::start_as(&lab.host, command).unwrap();
    agent.wait_for("ready").unwrap();
    agent
}

#[test]
fn on_exit_keep_warns_where_pins_end_with_the_mount_namespace() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let mut unshare = lab.host.command("unshare");
    unshare.arg("--mount");
    let mut exec = Command::new("ip");
    exec.args(["netns", "exec", lab.host.name()]);
    for (what, command) in [("unshare --mount", unshare), ("ip netns exec", exec)] {
        let log = agent(&lab, command).stop().unwrap();
        assert!(!log.contains("kept;"), "{what}: {log}");
        if sees_process_1() {
            assert!(
                log.contains("it cannot be kept, and is taken down: its bpffs is mounted"),
                "{what}: {log}"
            );
        } else {
            assert!(log.contains("the mounts of process 1 cannot be read"), "{what}: {log}");
            // Without its programs, which ended with the namespace.
            let _ = xbond_tests::xbond::cli(&lab.host, ["down", BOND, "--force"]).unwrap();
        }
        before.assert_holds(&lab.host, what);
    }
}
