//! Resources that vanish: bpffs is unmounted, in a mount namespace of the test, and memory is scarce.

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};

use super::*;

const BPFFS: &str = "/sys/fs/bpf";

/// Makes a command run in a mount namespace of its own, with a bpffs of its own.
fn apart(mut command: Command) -> Command {
    let enter = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        umount2(BPFFS, MntFlags::MNT_DETACH)?;
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
    command
}

/// A process that holds such a namespace. Dropping it ends the process.
struct Apart(std::process::Child);

impl Apart {
    fn new(lab: &Lab) -> Self {
        let mut command = lab.host.command("sleep");
        command.arg("1000");
        // `spawn` returns after the closure has run, so the namespace exists.
        Self(apart(command).spawn().unwrap())
    }

    fn command(&self, lab: &Lab, program: &str) -> Command {
        let mut command = lab.host.command("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.0.id())).arg(program);
        command
    }

    fn unmount(&self, lab: &Lab) {
        assert!(self.command(lab, "umount").arg(BPFFS).status().unwrap().success());
    }

    /// Mounts a bpffs: an agent mounts none in a mount namespace that may be private, because it would end with the
    /// namespace.
    fn mount(&self, lab: &Lab) {
        let mut command = self.command(lab, "mount");
        assert!(command.args(["-t", "bpf", "bpf", BPFFS]).status().unwrap().success());
    }

    fn start<'lab>(&self, lab: &'lab Lab, file: &NamedTempFile) -> Xbond<'lab> {
        let binary = xbond::binary().unwrap();
        let mut command = self.command(lab, binary.to_str().unwrap());
        command.arg("run").arg("-c").arg(file.path());
        let xbond = Xbond::start_as(&lab.host, command).unwrap();
        xbond.wait_for("bond0 ready").unwrap();
        xbond
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The bond keeps working and ends with the agent, which reports it; nothing is left.
#[test]
fn a_bond_without_its_bpffs_ends_with_its_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    for on_exit in ["down", "keep"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        snapshot::open_once(&lab.host);
        let before = Snapshot::of(&lab.host);
        let file = file("active", &SLAVES[..1]);
        write_file(&file, "active", &SLAVES[..1], &format!("on_exit = \"{on_exit}\"\n"));
        let place = Apart::new(&lab);
        let xbond = place.start(&lab, &file);
        meet(&lab);
        let log = xbond.log().len();
        place.unmount(&lab);
        xbond.wait_for_after(log, "its pins are gone (bpffs unmounted?)").unwrap();
        let shown = xbond.cli(["show", BOND]).unwrap();
        assert!(shown.contains("! bond0: its pins are gone (bpffs unmounted?)"), "{shown}");
        assert_traffic(&lab, "unmounted");
        // A request that needs pins is refused, and the interface is unchanged.
        let link = lab.host.link(SLAVES[1]).unwrap();
        let error = xbond.cli(["add-slave", BOND, SLAVES[1]]).unwrap_err().to_string();
        println!("{error}");
        assert!(error.contains("exit status: 2") && error.contains("pins are gone"), "{error}");
        assert_eq!(lab.host.link(SLAVES[1]).unwrap(), link);
        assert_traffic(&lab, "after a refusal");
        let log = xbond.stop().unwrap();
        assert_eq!(log.contains("it cannot be kept, and is taken down"), on_exit == "keep", "{log}");
        drop(place);
        before.assert_holds(&lab.host, on_exit);
    }
}

/// Without pins the programs end. The next agent removes the remains and recreates the bond.
#[test]
fn a_bond_without_its_bpffs_is_recreated_by_the_next_agent() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file("none", &SLAVES);
    let place = Apart::new(&lab);
    let first = place.start(&lab, &file);
    meet(&lab);
    first.kill().unwrap();
    assert!(reaches_peer(&lab), "the bond works without an agent");
    place.unmount(&lab);
    if has_tcx() {
        eventually("the bond ends with its pins", || reaches_peer(&lab), |reached| !*reached);
    } else {
        assert!(reaches_peer(&lab), "filters need no pin");
    }
    place.mount(&lab);
    let second = place.start(&lab, &file);
    second.wait_for("what it left is removed first").unwrap();
    assert_traffic(&lab, "recreated");
    second.stop().unwrap();
    drop(place);
    before.assert_holds(&lab.host, "bpffs");
}

/// With little memory the agent fails with a message before it changes anything, or the bond works.
#[test]
fn an_agent_with_little_memory_works_or_reports_it() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file("active", &SLAVES);
    for megabytes in [200, 400, 1400, 2048] {
        let mut command = lab.host.command("prlimit");
        command.arg(format!("--as={}", megabytes << 20)).arg(xbond::binary().unwrap());
        command.arg("run").arg("-c").arg(file.path());
        let mut agent = Xbond::start_as(&lab.host, command).unwrap();
        eventually(
            "it is ready, or says why not",
            || agent.log(),
            |log| log.contains("bond0 ready") || log.contains("address space"),
        );
        if agent.log().contains("bond0 ready") {
            assert_traffic(&lab, &format!("{megabytes} MB"));
            agent.stop().unwrap();
        } else {
            assert_eq!(agent.wait().unwrap().code(), Some(2), "{megabytes} MB: {}", agent.log());
            assert_eq!(agent.log().lines().count(), 1, "{megabytes} MB: {}", agent.log());
        }
        before.assert_holds(&lab.host, &format!("{megabytes} MB"));
    }
}

/// A control group of the memory controller, version 1 or 2, with this limit. Removed on drop.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Creates the group; returns `None` if the machine has no such controller that this process may use.
    fn new(bytes: u64) -> Option<Self> {
        let name = format!("xbond-test-{}-{bytes}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        kinds.into_iter().find_map(|(root, limit)| {
            let group = Self(PathBuf::from(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// Makes the command's process join the group before it begins.
    fn hold(&self, command: &mut Command) {
        let members = fs::File::options().write(true).open(self.0.join("cgroup.procs")).unwrap();
        let join = move || {
            nix::unistd::write(&members, b"0")?;
            Ok(())
        };
        // SAFETY: between fork and exec there is one system call, on a descriptor opened before.
        unsafe { command.pre_exec(join) };
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// With too little memory the kernel kills the agent at some moment, and the next one adopts what is left, or starts
/// from nothing.
#[test]
fn bonds_of_an_agent_that_ran_out_of_memory_are_adopted_or_recreated() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    snapshot::open_once(&lab.host);
    let before = Snapshot::of(&lab.host);
    let file = file("active", &SLAVES);
    let mut killed = 0;
    for megabytes in [8, 29, 30, 31, 256] {
        let what = format!("{megabytes} MB");
        let Some(group) = MemoryGroup::new(megabytes << 20) else {
            return skip("no memory controller of control groups");
        };
        let mut command = lab.host.command(xbond::binary().unwrap());
        command.arg("run").arg("-c").arg(file.path());
        group.hold(&mut command);
        let mut agent = Xbond::start_as(&lab.host, command).unwrap();
        if agent.wait_for("bond0 ready").is_ok() {
            assert_traffic(&lab, &what);
            agent.kill().unwrap();
        } else {
            let status = agent.wait().unwrap();
            assert_eq!(status.signal(), Some(libc::SIGKILL), "{what}: {}", agent.log());
            killed += 1;
        }
        let next = run(&lab, &file);
        assert_traffic(&lab, &what);
        next.stop().unwrap();
        before.assert_holds(&lab.host, &what);
    }
    assert!((1..5).contains(&killed), "the agent was killed in {killed} of 5 runs; 1 to 4 are expected");
}
