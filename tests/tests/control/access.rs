//! Who may read and change the bonds of an agent, and an agent without root.

use super::*;

/// Returns what an HTTP client of this user and these groups receives: status and body.
fn ask_as(host: &NetNs, ids: &str, request: &[&str]) -> String {
    let mut command = host.command("setpriv");
    command.args(words(ids)).args(["curl", "--silent", "--max-time", "10", "--write-out", " %{http_code}"]);
    command.arg("--unix-socket").arg(socket(host)).args(request);
    transcript(&mut command)
}

const BONDS: &str = "http://xbond/v1/bonds";

const CHANGE: [&str; 5] = [
    "--header",
    "content-type: application/json",
    "--data",
    r#"{"set":[["num_grat_arp","3"]]}"#,
    "http://xbond/v1/bonds/bond0/options",
];

const READER: &str = "--reuid=65534 --regid=65534 --groups=4711";
const READER_BY_PRIMARY_GROUP: &str = "--reuid=65534 --regid=4711 --clear-groups";
const WRITER: &str = "--reuid=65534 --regid=65534 --groups=4711,4712";
const STRANGER: &str = "--reuid=65534 --regid=65534 --clear-groups";

const CHANGED: &str = r#"{"notes":[]} 200"#;

fn denied(sentence: &str) -> String {
    format!(r#"{{"error":"{sentence}","kind":"denied"}} 403"#)
}

/// An /etc with groups, a file of an agent that names the group of writers, and one of bond0.
struct Etc(TempDir);

impl Etc {
    fn new(writers: &str) -> Self {
        let etc = Self(tempfile::tempdir().unwrap());
        fs::create_dir(etc.0.path().join("xbond")).unwrap();
        etc.name_writers(writers);
        let bond = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\"]\nmiimon = 100\n";
        fs::write(etc.0.path().join("xbond/20-bond0.toml"), bond).unwrap();
        etc
    }

    fn name_writers(&self, group: &str) {
        let text = format!("version = 1\n[agent]\nwriters = \"{group}\"\n");
        fs::write(self.0.path().join("xbond/10-agent.toml"), text).unwrap();
    }

    fn set_groups(&self, groups: &str) {
        fs::write(self.0.path().join("group"), groups).unwrap();
    }

    fn start<'lab>(&self, host: &'lab NetNs, line: &str) -> Xbond<'lab> {
        Xbond::start_as(host, with_etc(host, self.0.path(), line)).unwrap()
    }
}

#[test]
fn bonds_come_up_without_a_group_of_writers_that_does_not_exist() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let etc = Etc::new("netadmin");
    for (groups, said) in [
        ("xbond:x:4711:\n", "netadmin: no such group"),
        ("netadmin:x:4712:\n", "xbond: no such group, and writers have to be in it, too, to reach the agent"),
    ] {
        etc.set_groups(groups);
        let agent = etc.start(&lab.host, "run");
        let said = format!("only root may change bonds: /etc/xbond/10-agent.toml:3: {said}");
        agent.wait_for(&said).unwrap();
        agent.wait_for("bond0 ready").unwrap();
        etc.set_groups("xbond:x:4711:\nnetadmin:x:4712:\n");
        agent.wait_for("root and members of group netadmin may change bonds").unwrap();
        agent.stop().unwrap();
    }
}

#[test]
fn readers_and_writers_have_their_permissions() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    let etc = Etc::new("netadmin");
    etc.set_groups("xbond:x:4711:\nnetadmin:x:4712:\n");
    let agent = etc.start(host, "run");
    agent.wait_for("bond0 ready").unwrap();
    let found = fs::symlink_metadata(socket(host)).unwrap();
    assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o660, 0, 4711));
    let groups: String = (5000..5100).map(|group| format!("{group},")).collect();
    let in_many = format!("--reuid=65534 --regid=65534 --groups={groups}4711");
    for ids in [READER, READER_BY_PRIMARY_GROUP, WRITER, "--reuid=0", &in_many] {
        assert!(ask_as(host, ids, &[BONDS]).ends_with(" 200"), "{ids}");
    }
    let not_a_writer = denied("only root and members of group netadmin may change bonds");
    for ids in [READER, READER_BY_PRIMARY_GROUP] {
        assert_eq!(ask_as(host, ids, &CHANGE), not_a_writer, "{ids}");
        assert_eq!(ask_as(host, ids, &["--request", "DELETE", "http://xbond/v1/bonds/bond0"]), not_a_writer);
    }
    assert_eq!(ask_as(host, WRITER, &CHANGE), CHANGED);
    assert_eq!(show(&agent)["options"]["num_grat_arp"], 3);

    // The file mode excludes others; if it did not, the agent would.
    assert!(ask_as(host, STRANGER, &[BONDS]).contains("000"), "connected");
    fs::set_permissions(socket(host), fs::Permissions::from_mode(0o666)).unwrap();
    let stranger = denied("only root and members of group xbond may use this socket");
    assert_eq!(ask_as(host, STRANGER, &[BONDS]), stranger);
    assert_eq!(ask_as(host, STRANGER, &CHANGE), not_a_writer);
    assert_eq!(ask_as(host, "--reuid=65534 --regid=0 --clear-groups", &[BONDS]), stranger);
    agent.stop().unwrap();
}

#[test]
fn the_group_of_writers_follows_the_files_and_the_command_line() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    let etc = Etc::new("netadmin");
    etc.set_groups("xbond:x:4711:\nnetadmin:x:4712:\nwheel:x:4713:\n");
    let agent = etc.start(host, "run");
    agent.wait_for("bond0 ready").unwrap();
    assert_eq!(ask_as(host, WRITER, &CHANGE), CHANGED);
    etc.name_writers("wheel");
    assert_eq!(
        xbond(host, "reload"),
        "root and members of group wheel may change bonds\nbond0: num_grat_arp=1 (was 3)\n"
    );
    let not_a_writer = denied("only root and members of group wheel may change bonds");
    assert_eq!(ask_as(host, WRITER, &CHANGE), not_a_writer);
    etc.name_writers("nosuch");
    assert_eq!(xbond(host, "reload"), "xbond: /etc/xbond/10-agent.toml:3: nosuch: no such group\n? 2\n");
    assert_eq!(ask_as(host, WRITER, &CHANGE), not_a_writer);
    agent.stop().unwrap();

    // The command line wins.
    let agent = etc.start(host, "run --writers netadmin");
    agent.wait_for("bond0 ready").unwrap();
    assert_eq!(ask_as(host, WRITER, &CHANGE), CHANGED);
    agent.stop().unwrap();
}

/// The command of a systemd unit with User= and AmbientCapabilities=: nothing to mount, and no ownership to change.
const UNPRIVILEGED: &str = r#"
    set -e
    mount -t bpf bpf /sys/fs/bpf
    chmod 711 /sys/fs/bpf
    mkdir -m 700 /sys/fs/bpf/xbond
    mkdir -p /run/xbond
    mount -t tmpfs -o mode=755 tmpfs /run/xbond
    chown 65534:65534 /sys/fs/bpf/xbond /run/xbond
    caps=+net_admin,+net_raw,+bpf,+perfmon
    exec /bin/setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --bounding-set=-all,$caps \
        --inh-caps=-all,$caps --ambient-caps=-all,$caps "$@"
"#;

#[test]
fn an_agent_needs_no_root() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    let before = Snapshot::of(host);
    // In a directory that every user may read.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let copy = directory.path().join("xbond");
    fs::copy(binary().unwrap(), &copy).unwrap();
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", UNPRIVILEGED, "sh"]).arg(&copy).arg("run").args(words(BOND0));
    let agent = Xbond::start_as(host, command).unwrap();
    agent.wait_for("bond0 ready").unwrap();
    meet(&lab);

    // CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_PERFMON 38, CAP_BPF 39.
    let kept = format!("{:016x}", 1_u64 << 12 | 1 << 13 | 1 << 38 | 1 << 39);
    let none = format!("{:016x}", 0);
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.pid())).unwrap();
    for task in tasks.map(|task| task.unwrap().path()) {
        let status = fs::read_to_string(task.join("status")).unwrap();
        let line = |key: &str| status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        assert_eq!(line("Uid:"), "Uid:\t65534\t65534\t65534\t65534");
        for (set, wanted) in
            [("CapEff", &kept), ("CapPrm", &kept), ("CapBnd", &kept), ("CapInh", &none), ("CapAmb", &none)]
        {
            assert_eq!(line(set), format!("{set}:\t{wanted}"));
        }
    }

    let inside = |line: &str| {
        let pid = agent.pid().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount", "--net"]).arg(binary().unwrap()).args(words(line));
        transcript(&mut command)
    };
    assert_eq!(inside("set bond0 miimon=50"), "");
    lab.cut("enp0s8", Cut::Carrier).unwrap();
    common::eventually(
        "the failover",
        || inside("show bond0"),
        |shown| shown.contains("active slave enp0s9"),
    );
    meet(&lab);
    assert_eq!(inside("down bond0"), "");
    assert_eq!(inside(&format!("add {BOND0}")), READY.replace("enp0s8", "enp0s9"));
    lab.reconnect("enp0s8", Cut::Carrier).unwrap();
    agent.stop().unwrap();
    before.assert_holds(host, "an agent without root");
}
