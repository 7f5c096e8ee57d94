//! The agent under what xbond.service permits: what it needs in a day passes, and the rest does not.

#[path = "common/mod.rs"]
mod common;

use std::{
    fs::{self, File},
    os::{
        fd::AsRawFd as _,
        unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
};

use common::{eventually, meet, skip};
use xbond_tests::{
    Cut, Lab, Xbond,
    service_filter::{self, ServiceFilter},
    skip_if_unable,
    xbond::binary,
};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/xbond.service");
/// What the agent tries although the service refuses it: to drop inheritable capabilities, to join the group of the socket, which
/// it is in, and to mount a sysfs, without which there is no `queue_id`.
const REFUSED: &str = "capset,setgroups,fsopen";
/// What the log says of the last one.
const NO_SYSFS: &str = "no slave can have a queue_id: mount on sysfs: Operation not permitted";

/// The start of the service: its user, capabilities, directories and filter. The configuration is in the first argument.
const START: &str = r#"
    set -e
    mount -t bpf bpf /sys/fs/bpf
    chmod 711 /sys/fs/bpf
    mkdir -m 700 /sys/fs/bpf/xbond
    mkdir -p /run/xbond /etc/xbond
    mount -t tmpfs -o mode=755 tmpfs /run/xbond
    mount --bind "$1" /etc/xbond
    chown 65534:65534 /sys/fs/bpf/xbond /run/xbond
    shift
    exec "$@"
"#;

/// The programs of a service whose mount namespace is this process's own.
struct Service {
    _directory: tempfile::TempDir,
    files: PathBuf,
    filter: PathBuf,
    xbond: PathBuf,
}

impl Service {
    /// Copies what the service's user has to be able to read.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let copy = |from: &Path, name: &str| {
            let to = directory.path().join(name);
            fs::copy(from, &to).unwrap();
            to
        };
        let filter = copy(Path::new(env!("CARGO_BIN_EXE_service_filter")), "service_filter");
        copy(Path::new(UNIT), "xbond.service");
        let xbond = copy(&binary().unwrap(), "xbond");
        let files = directory.path().join("etc");
        fs::create_dir(&files).unwrap();
        fs::set_permissions(&files, fs::Permissions::from_mode(0o755)).unwrap();
        Self { _directory: directory, files, filter, xbond }
    }

    fn write(&self, options: &str) {
        let text = format!(
            "version = 1\n[agent]\ntextfile = \"/run/xbond\"\nproc_files = \"/run/xbond\"\n[bond.bond0]\n\
             slaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 50\nfail_over_mac = \"active\"\n\
             addresses = [\"192.168.99.101/24\"]\n{options}\n"
        );
        fs::write(self.files.join("bond0.toml"), text).unwrap();
        fs::set_permissions(self.files.join("bond0.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// Returns the command of an agent that starts as the unit starts it, in the namespaces of another one if there are any.
    fn command(&self, lab: &Lab, of: Option<&Namespaces>) -> Command {
        let unit = self.filter.with_file_name("xbond.service");
        let caps = "+net_admin,+net_raw,+bpf,+perfmon";
        let mut command = match of {
            None => {
                let mut command = lab.host.command("unshare");
                command.args(["--mount", "sh", "-c", START, "sh"]).arg(&self.files);
                command
            }
            Some(namespaces) => namespaces.command(),
        };
        command.args(["/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        command.arg(format!("--bounding-set=-all,{caps}"));
        command.args([format!("--inh-caps=-all,{caps}"), format!("--ambient-caps=-all,{caps}")]);
        command.arg(&self.filter).arg(unit).arg(REFUSED).arg(&self.xbond);
        command.args(["run", "--on-exit", "keep"]);
        command
    }
}

/// The mount and network namespaces of an agent, which stay when it ends.
struct Namespaces([File; 2]);

impl Namespaces {
    fn of(agent: &Xbond<'_>) -> Self {
        Self(["mnt", "net"].map(|kind| File::open(format!("/proc/{}/ns/{kind}", agent.pid())).unwrap()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new("nsenter");
        for (option, file) in ["--mount", "--net"].into_iter().zip(&self.0) {
            command.arg(format!("{option}=/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        }
        command
    }
}

/// Runs a verb in the agent's namespaces, without its filter.
fn inside(agent: &Xbond<'_>, words: &[&str]) -> String {
    let pid = agent.pid().to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--mount", "--net"]).arg(binary().unwrap()).args(words);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn until_active(agent: &Xbond<'_>, slave: &str) {
    let wanted = format!("active slave {slave}");
    eventually("the failover", || inside(agent, &["show", "bond0"]), |shown| shown.contains(&wanted));
}

#[test]
fn the_agent_lives_a_day_under_the_filter_of_its_service() {
    skip_if_unable!();
    if !service_filter::is_known() {
        return skip("there is no systemd-analyze, which knows the groups of system calls");
    }
    let lab = Lab::scenario().unwrap();
    let service = Service::new();
    service.write("");
    let agent = Xbond::start_as(&lab.host, service.command(&lab, None)).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    meet(&lab);

    // Failovers by a cut, and by a request; each writes a receipt.
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    until_active(&agent, "enp0s9");
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    inside(&agent, &["set", "bond0", "active_slave=enp0s8"]);
    until_active(&agent, "enp0s8");
    assert!(inside(&agent, &["log", "bond0"]).contains("enp0s9"));

    // Changes: options, slaves, a drain, a reload.
    inside(&agent, &["set", "bond0", "num_grat_arp=2"]);
    inside(&agent, &["del-slave", "bond0", "enp0s9"]);
    inside(&agent, &["add-slave", "bond0", "enp0s9"]);
    inside(&agent, &["drain", "bond0", "enp0s8"]);
    until_active(&agent, "enp0s9");
    inside(&agent, &["undrain", "bond0", "enp0s8"]);
    service.write("arp_missed_max = 4\npath_target = \"192.168.99.1\"");
    assert!(inside(&agent, &["reload"]).contains("arp_missed_max"));
    for verb in [&["show", "-d"][..], &["show", "--proc"], &["show", "-j"]] {
        inside(&agent, verb);
    }
    meet(&lab);

    // The next agent adopts the bond, and takes it down.
    let namespaces = Namespaces::of(&agent);
    let log = agent.stop().unwrap();
    assert!(!log.replace(NO_SYSFS, "").contains("not permitted"), "{log}");
    let next = Xbond::start_as(&lab.host, service.command(&lab, Some(&namespaces))).unwrap();
    next.wait_for("bond0 ready").unwrap();
    meet(&lab);
    inside(&next, &["down", "bond0"]);
    let log = next.stop().unwrap();
    assert!(!log.replace(NO_SYSFS, "").contains("not permitted"), "{log}");
}

/// Returns what a system call returns under the filter: an error number, or the signal that ended the process.
fn probe(call: libc::c_long, first: i64) -> Result<i32, i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_service_filter"));
    command.args([UNIT, "", "probe", &call.to_string(), &first.to_string()]);
    let output = command.output().unwrap();
    match output.status.signal() {
        Some(signal) => Err(signal),
        None => Ok(String::from_utf8_lossy(&output.stdout).trim().parse().unwrap_or(-1)),
    }
}

#[test]
fn the_service_refuses_what_the_agent_does_not_need() {
    if !service_filter::is_known() {
        return skip("there is no systemd-analyze, which knows the groups of system calls");
    }
    let (unix, inet, packet, netlink, vsock) = (1, 2, 17, 16, 40);
    for (name, call, first) in [
        ("mount", libc::SYS_mount, 0),
        ("umount2", libc::SYS_umount2, 0),
        ("pivot_root", libc::SYS_pivot_root, 0),
        ("chroot", libc::SYS_chroot, 0),
        ("setns", libc::SYS_setns, -1),
        ("unshare a user namespace", libc::SYS_unshare, 0x1000_0000),
        ("unshare a network namespace", libc::SYS_unshare, 0x4000_0000),
        ("ptrace", libc::SYS_ptrace, 0),
        ("process_vm_readv", libc::SYS_process_vm_readv, 0),
        ("perf_event_open", libc::SYS_perf_event_open, 0),
        ("init_module", libc::SYS_init_module, 0),
        ("finit_module", libc::SYS_finit_module, -1),
        ("kexec_load", libc::SYS_kexec_load, 0),
        ("reboot", libc::SYS_reboot, 0),
        ("swapon", libc::SYS_swapon, 0),
        ("clock_settime", libc::SYS_clock_settime, 0),
        ("settimeofday", libc::SYS_settimeofday, 0),
        ("keyctl", libc::SYS_keyctl, 0),
        ("add_key", libc::SYS_add_key, 0),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, -1),
        ("fchown", libc::SYS_fchown, -1),
        ("setuid", libc::SYS_setresuid, 1),
        ("setgroups", libc::SYS_setgroups, 0),
        ("capset", libc::SYS_capset, 0),
        ("userfaultfd", libc::SYS_userfaultfd, 0),
        ("io_uring_setup", libc::SYS_io_uring_setup, 0),
        ("personality", libc::SYS_personality, 0),
        ("a socket of IP", libc::SYS_socket, inet),
        ("a socket of a virtual machine's host", libc::SYS_socket, vsock),
    ] {
        assert_eq!(probe(call, first), Err(libc::SIGSYS), "{name}");
    }
    for (name, call, first) in [
        ("bpf", libc::SYS_bpf, 0),
        ("a local socket", libc::SYS_socket, unix),
        ("a packet socket", libc::SYS_socket, packet),
        ("a netlink socket", libc::SYS_socket, netlink),
        ("ioctl", libc::SYS_ioctl, -1),
        ("getrandom", libc::SYS_getrandom, 0),
    ] {
        assert!(probe(call, first).is_ok(), "{name}");
    }
}

#[test]
fn a_group_that_is_taken_away_takes_its_calls() {
    if !service_filter::is_known() {
        return skip("there is no systemd-analyze, which knows the groups of system calls");
    }
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("x.service");
    let text = fs::read_to_string(UNIT).unwrap();
    // bpf is in @privileged: the order matters.
    let (last, first) = ("SystemCallFilter=bpf\n", "SystemCallFilter=@system-service\n");
    assert!(text.contains(last) && text.contains(first));
    let early = text.replace(last, "").replace(first, "SystemCallFilter=@system-service bpf\n");
    fs::write(&unit, early).unwrap();
    assert_ne!(ServiceFilter::of_unit(&unit).unwrap(), ServiceFilter::of_unit(Path::new(UNIT)).unwrap());
}
