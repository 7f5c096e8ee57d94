//! What xbond refuses: exit code 2, one sentence that names the cause, and an unchanged host.

mod snapshot;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

use snapshot::Snapshot;
use tempfile::TempDir;
use xbond_tests::{Lab, NetNs, Nic, Xbond, skip, skip_if_unable, xbond::binary};

const REFUSED: i32 = 2;
const PAIR: [&str; 6] = ["--bond", "bond0", "--slave", "enp0s8", "--slave", "enp0s9"];

/// Creates a host whose NICs differ: one is up, with addresses and a route, the other has its own MTU.
fn host() -> Lab {
    let lab = Lab::scenario().unwrap();
    let host = &lab.host;
    snapshot::open_once(host);
    host.ip("link set enp0s8 up").unwrap();
    host.ip("address add 192.0.2.8/24 dev enp0s8").unwrap();
    host.ip("address add 2001:db8::8/64 dev enp0s8 nodad").unwrap();
    host.ip("route add 198.51.100.0/24 via 192.0.2.1 dev enp0s8").unwrap();
    host.ip("link set enp0s9 mtu 1400").unwrap();
    snapshot::await_ipv6(host, "enp0s8");
    lab
}

fn xbond(host: &NetNs) -> Command {
    host.command(binary().unwrap())
}

/// Runs the command to its end.
fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// Returns the one sentence of a refusal: the last line; the others are the agent's log of its earlier steps.
#[track_caller]
fn sentence(output: &Output, what: &str) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(REFUSED), "{what}: {} {stderr}", output.status);
    let mut said =
        stderr.lines().filter(|line| !line.contains(" INFO ") && !line.contains(": has the address "));
    let sentence = said.next().unwrap_or_default();
    let sentence = sentence.strip_prefix("xbond: ").unwrap_or_else(|| panic!("{what}: {stderr}"));
    let more: Vec<_> = said.collect();
    assert!(more.is_empty(), "{what}: more than one sentence: {stderr}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{what}");
    println!("{what}\n    {sentence}");
    sentence.to_owned()
}

/// Runs a command that is refused with a sentence that contains all these words, and changes nothing.
#[track_caller]
fn refused(host: &NetNs, command: &mut Command, what: &str, words: &[&str]) {
    let before = Snapshot::of(host);
    let sentence = sentence(&output(command), what);
    for word in words {
        assert!(sentence.contains(word), "{what}: no `{word}` in: {sentence}");
    }
    before.assert_holds(host, what);
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_whitespace()
}

#[track_caller]
fn refuses(host: &NetNs, line: &str, sentence: &[&str]) {
    refused(host, xbond(host).args(words(line)), line, sentence);
}

const UNMONITORED: [&str; 3] = ["miimon=100", "--allow-unmonitored", "never fails over"];

#[test]
fn invalid_options_are_refused() {
    skip_if_unable!();
    let lab = host();
    let table: &[(&str, &[&str])] = &[
        ("miimonn=100", &["miimonn", "did you mean miimon?"]),
        ("foo=1", &["foo: no such option", "there are: ", "miimon", "fail_over_mac"]),
        ("miimon=x", &["miimon=x", "allowed: 0 to 2147483647"]),
        ("miimon=-1", &["miimon=-1", "allowed: 0 to 2147483647"]),
        ("fail_over_mac=sometimes", &["fail_over_mac=sometimes", "none", "active", "follow"]),
        ("primary_reselect=7", &["primary_reselect=7", "always", "better", "failure"]),
        ("num_grat_arp=256", &["num_grat_arp=256", "255"]),
        ("mode=802.3ad", &["mode=802.3ad", "active-backup (1) only"]),
        ("mode=0", &["mode=0", "active-backup (1) only"]),
        ("mode=nonsense", &["mode=nonsense", "active-backup (1) only"]),
        ("lacp_rate=fast", &["lacp_rate", "802.3ad"]),
        ("active_slave=enp0s8", &["active_slave=enp0s8", "xbond set", "primary"]),
        ("queue_id=1", &["queue_id"]),
        ("miimon=0", &UNMONITORED),
        ("num_grat_arp=2", &UNMONITORED),
        ("updelay=200", &["updelay=200", "miimon=100"]),
        ("downdelay=200", &["downdelay=200", "miimon=100"]),
        ("peer_notif_delay=200", &["peer_notif_delay=200", "miimon=100"]),
        ("arp_interval=200", &["arp_interval=200", "arp_ip_target"]),
        ("arp_ip_target=192.0.2.1 -o miimon=100", &["arp_ip_target", "arp_interval"]),
        ("arp_interval=200 -o arp_ip_target=192.0.2.1 -o miimon=100", &["arp_interval=200", "miimon=100"]),
        ("arp_ip_target=0.0.0.0 -o arp_interval=100", &["arp_ip_target=0.0.0.0"]),
        ("miimon=100 -o miimon=200", &["miimon", "twice"]),
    ];
    for (options, sentence) in table {
        refuses(&lab.host, &format!("run {} -o {options}", PAIR.join(" ")), sentence);
    }
    refuses(&lab.host, &format!("run {}", PAIR.join(" ")), &UNMONITORED);
}

#[test]
fn invalid_names_and_numbers_are_refused() {
    skip_if_unable!();
    let lab = host();
    let sixteen: String = (0..17).map(|number| format!(" --slave eth{number}")).collect();
    let table: &[(&str, &[&str])] = &[
        ("--bond bond0 --slave nosuch", &["nosuch", "no such interface"]),
        ("--bond bond0 --slave enp0s8 --slave nosuch", &["nosuch", "no such interface"]),
        ("--bond bond0 --slave enp0s8 --slave enp0s8", &["bond0", "enp0s8", "twice"]),
        ("--bond bond0 --slave bond0", &["bond0", "a bond", "a slave of bond0"]),
        ("--bond bond0 --slave lo", &["\"lo\"", "loopback"]),
        ("--bond lo --slave enp0s8", &["\"lo\"", "loopback"]),
        ("--bond enp0s9 --slave enp0s8", &["enp0s9", "exists already", "choose another name"]),
        ("--bond sixteen-letters- --slave enp0s8", &["sixteen-letters-", "15"]),
        ("--bond bond/0 --slave enp0s8", &["bond/0"]),
        ("--bond lock --slave enp0s8", &["lock", "choose another name"]),
        ("--bond .. --slave enp0s8", &["\"..\""]),
        ("--bond bond0 --slave enp0s8 --mtu 9", &["mtu = 9", "68 to 65535"]),
        ("--bond bond0 --slave enp0s8 --mac 01:00:5e:00:00:01", &["mac = 01:00:5e:00:00:01"]),
        ("--bond bond0 --slave enp0s8 --address 0.0.0.0/0", &["0.0.0.0/0"]),
        (
            "--bond bond0 --slave enp0s8 --address 192.0.2.1/24 --address 192.0.2.1/24",
            &["192.0.2.1/24", "twice"],
        ),
        ("--bond bond0 --slave enp0s8 --port enp0s8", &["enp0s8", "a slave of bond0", "the port of bond0"]),
        ("--bond bond0 --slave enp0s8 --port nosuch", &["nosuch", "no such interface"]),
        ("--bond bond0 --slave enp0s8 --port enp0s9 --mtu 1500", &["bond0", "mtu", "port"]),
        (
            "--bond bond0 --slave enp0s8 --port enp0s9 --host-mac stable",
            &["bond0", "host_mac=stable", "port"],
        ),
    ];
    for (flags, sentence) in table {
        refuses(&lab.host, &format!("run {flags} -o miimon=100"), sentence);
    }
    refuses(&lab.host, &format!("run --bond bond0{sixteen} -o miimon=100"), &["bond0", "17 slaves", "16"]);
    refuses(&lab.host, "add", &["-c", "--ifcfg", "--bond"]);
}

/// The parser of the command line answers in several lines: the error, the allowed values, and where to read on.
#[test]
fn invalid_flags_are_refused() {
    skip_if_unable!();
    let lab = host();
    let table: &[(&str, &[&str])] = &[
        ("run --bond bond0 --slave enp0s8 --datapath dpdk", &["'dpdk'", "[possible values: auto, tc, xdp"]),
        ("run --bond bond0 --slave enp0s8 -o miimon", &["miimon: not KEY=VALUE"]),
        ("run --bond bond0 --slave enp0s8 --address 192.0.2.300/24", &["192.0.2.300/24"]),
        ("run --bond bond0 --slave enp0s8 --mtu many", &["'many'"]),
        ("run --bond bond0 --slave enp0s8 --slaves enp0s9", &["'--slaves'", "'--slave'"]),
        ("run --slave enp0s8", &["--bond"]),
        ("run -c one.toml --bond bond0 --slave enp0s8", &["cannot be used with"]),
        ("run --bond bond0 --slave enp0s8 --host-mac fixed", &["'fixed'", "stable"]),
        ("run -c one.toml --allow-unmonitored", &["cannot be used with"]),
        ("set bond0", &["<KEY=VALUE>"]),
        ("start", &["'start'"]),
        ("", &["Usage: xbond"]),
    ];
    for (line, says) in table {
        let before = Snapshot::of(&lab.host);
        let output = output(xbond(&lab.host).args(words(line)));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(REFUSED), "{line}: {stderr}");
        for word in *says {
            assert!(stderr.contains(word), "{line}: no `{word}` in: {stderr}");
        }
        before.assert_holds(&lab.host, line);
    }
}

#[test]
fn a_bond_without_monitoring_is_created_if_explicit() {
    skip_if_unable!();
    let lab = host();
    let before = Snapshot::of(&lab.host);
    let flags = [PAIR.as_slice(), &["--allow-unmonitored"]].concat();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("bond0.toml");
    let text = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = 0\n";
    fs::write(&file, format!("{text}allow_unmonitored = true\n")).unwrap();
    for arguments in [flags, vec!["-c", file.to_str().unwrap()]] {
        let agent = Xbond::run(&lab.host, &arguments).unwrap();
        assert_eq!(agent.show("bond0").unwrap()["bonds"][0]["options"]["miimon"], 0);
        let log = agent.stop().unwrap();
        assert!(log.contains("never fails over"), "{log}");
        before.assert_holds(&lab.host, "a bond that nothing monitors");
    }
    fs::write(&file, text).unwrap();
    let says = [file.to_str().unwrap(), "miimon=100", "allow_unmonitored = true"];
    refuses(&lab.host, &format!("run -c {}", file.display()), &says);
}

/// Creates a directory of files; returns it, and its path as an argument.
fn directory(files: &[(&str, &str)]) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    let path = directory.path().to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn invalid_files_are_refused() {
    skip_if_unable!();
    let lab = host();
    const BOND: &str = "version = 1\n[bond.bond0]\nslaves = [\"enp0s8\"]\nmiimon = 100\n";
    let more = |text: &str| format!("{BOND}{text}\n");
    let table: &[(String, &[&str])] = &[
        ("version = 1\n[bond.bond0\n".into(), &["bond0.toml:2", "]"]),
        (more("mtu = "), &["bond0.toml:5"]),
        (more("miimonn = 100"), &["bond0.toml:5", "miimonn", "did you mean miimon?"]),
        (more("colour = \"red\""), &["bond0.toml:5", "colour", "there are:"]),
        (more("fail_over_mac = \"maybe\""), &["bond0.toml:5", "fail_over_mac", "none", "active", "follow"]),
        (more("slaves = [\"enp0s9\"]"), &["bond0.toml:5", "duplicate key"]),
        (more("mtu = \"large\""), &["bond0.toml:5", "mtu"]),
        (more("on_exit = \"burn\""), &["bond0.toml:5", "on_exit", "down", "keep"]),
        (more("datapath = \"dpdk\""), &["bond0.toml:5", "datapath", "auto", "tc", "xdp"]),
        (more("addresses = [\"192.0.2.300/24\"]"), &["bond0.toml:5", "192.0.2.300/24"]),
        (more("[bond.bond0.slave.enp0s9]\nprio = 1"), &["bond0.toml:5", "enp0s9", "bond0"]),
        (
            more("[bond.bond1]\nslaves = [\"enp0s8\"]\nmiimon = 100"),
            &["bond0.toml:5", "enp0s8", "a slave of bond0", "a slave of bond1"],
        ),
        (BOND.replace("version = 1\n", ""), &["bond0.toml", "version = 1"]),
        (BOND.replace("version = 1\n", "version = 2\n"), &["bond0.toml", "version = 2"]),
        (BOND.replace("bond0", "bond/0").replace("[bond.bond/0]", "[bond.\"bond/0\"]"), &["bond/0"]),
    ];
    for (text, sentence) in table {
        let (_directory, path) = directory(&[("bond0.toml", text)]);
        refused(&lab.host, xbond(&lab.host).args(["run", "-c", &path]), text, sentence);
    }

    let (_twice, path) = directory(&[("10.toml", BOND), ("20.toml", BOND)]);
    refuses(&lab.host, &format!("run -c {path}"), &["20.toml:2", "bond0", "10.toml:2"]);
    let (_twice, path) = directory(&[("10.toml", BOND), ("20.toml", &BOND.replace("bond0", "bond1"))]);
    refuses(
        &lab.host,
        &format!("run -c {path}"),
        &["20.toml:2", "enp0s8", "a slave of bond0", "a slave of bond1"],
    );
    let (_none, path) = directory(&[("bond0.conf", BOND)]);
    refuses(&lab.host, &format!("run -c {path}"), &[&path, "*.toml"]);
    refuses(&lab.host, "run -c /nosuch/bond0.toml", &["/nosuch/bond0.toml", "No such file"]);
    let (binary, path) = directory(&[]);
    fs::write(binary.path().join("bond0.toml"), [0xff, 0xfe]).unwrap();
    refuses(&lab.host, &format!("run -c {path}"), &["bond0.toml", "UTF-8"]);
}

#[test]
fn invalid_network_scripts_are_refused() {
    skip_if_unable!();
    let lab = host();
    let master = "DEVICE=bond0\nTYPE=Bond\nBONDING_MASTER=yes\nONBOOT=yes\nBOOTPROTO=none\n";
    let slave = "DEVICE=enp0s8\nMASTER=bond0\nSLAVE=yes\nONBOOT=yes\nBOOTPROTO=none\n";
    let good = "BONDING_OPTS=\"mode=active-backup miimon=100\"\n";
    let table: &[(&str, &[&str])] = &[
        (
            "BONDING_OPTS=\"mode=active-backup miimon=$(echo 100)\"\n",
            &["ifcfg-bond0:6", "$(echo 100)", "not run"],
        ),
        (
            "BONDING_OPTS=\"mode=active-backup miimon=`echo 100`\"\n",
            &["ifcfg-bond0:6", "`echo 100`", "not run"],
        ),
        ("BONDING_OPTS=\"mode=active-backup miimon=$MIIMON\"\n", &["ifcfg-bond0:6", "MIIMON"]),
        ("BONDING_OPTS=\"mode=active-backup miimon=100\n", &["ifcfg-bond0:6"]),
        (
            "BONDING_OPTS=\"mode=balance-rr miimon=100\"\n",
            &["ifcfg-bond0:6", "mode=balance-rr", "active-backup"],
        ),
        ("BONDING_OPTS=\"miimon=100\"\n", &["ifcfg-bond0", "balance-rr", "mode=active-backup"]),
        ("BONDING_OPTS=\"mode=active-backup miimonn=100\"\n", &["ifcfg-bond0:6", "did you mean miimon?"]),
        ("BONDING_OPTS=\"mode=active-backup\"\n", &["ifcfg-bond0", "miimon=100"]),
    ];
    for (options, sentence) in table {
        let files = [("ifcfg-bond0", &*format!("{master}{options}")), ("ifcfg-enp0s8", slave)];
        let (_directory, path) = directory(&files);
        refused(&lab.host, xbond(&lab.host).args(["run", "--ifcfg", &path]), options, sentence);
    }
    let dhcp = format!("{}{good}", master.replace("none", "dhcp"));
    let (_directory, path) = directory(&[("ifcfg-bond0", &dhcp), ("ifcfg-enp0s8", slave)]);
    refuses(&lab.host, &format!("run --ifcfg {path}"), &["ifcfg-bond0:5", "BOOTPROTO=dhcp"]);
    let (_directory, path) = directory(&[("ifcfg-enp0s8", slave)]);
    refuses(&lab.host, &format!("run --ifcfg {path}"), &[&path, "no bond"]);
    refuses(&lab.host, "run --ifcfg /nosuch", &["/nosuch", "No such file"]);
}

#[test]
fn interfaces_that_belong_to_another_owner_are_refused() {
    skip_if_unable!();
    let lab = host();
    let host = &lab.host;
    host.ip("link add br0 type bridge").unwrap();
    host.ip("link set enp0s9 master br0").unwrap();
    let run = format!("run {} -o miimon=100", PAIR.join(" "));
    refuses(host, &run, &["enp0s9", "bridge br0", "ip link set enp0s9 nomaster"]);
    let port = "run --bond bond0 --slave enp0s8 --port enp0s9 -o miimon=100";
    refuses(host, port, &["enp0s9", "bridge br0"]);
    host.ip("link delete br0").unwrap();

    if host.ip("link add bond9 type bond").is_ok() {
        host.ip("link set enp0s9 down").unwrap();
        host.ip("link set enp0s9 master bond9").unwrap();
        refuses(host, &run, &["enp0s9", "bond bond9", "ip link set enp0s9 nomaster"]);
        host.ip("link delete bond9").unwrap();
    } else {
        skip("a slave of a kernel bond: this kernel has no bonding driver");
    }

    // xbond creates the port of a bond, so its name must be free, too; another device of that name is kept.
    host.ip("link add bond0-port type veth peer name far0").unwrap();
    refuses(host, &run, &["bond0-port", "exists already", "bond0"]);
    host.ip("link delete bond0-port").unwrap();

    let agent = Xbond::run(host, ["--bond", "bond1", "--slave", "enp0s8", "-o", "miimon=100"]).unwrap();
    for line in [
        "run --bond bond2 --slave enp0s9 -o miimon=100",
        "run --bond bond2 --slave enp0s8 -o miimon=100",
        "run --bond bond1 --slave enp0s9 -o miimon=100",
    ] {
        refuses(host, line, &["agent runs in this network namespace"]);
    }
    agent.kill().unwrap();
    snapshot::await_ipv6(host, "bond1");
    // A bond that another agent has left is adopted, but not with a different configuration.
    refuses(
        host,
        "run --bond bond1 --slave enp0s8 -o miimon=100 --datapath xdp",
        &["bond1", "datapath is tc, and the configuration says xdp", "xbond down bond1 --force"],
    );
    let of_bond1: &[(&str, &[&str])] = &[
        ("enp0s8", &["a slave of bond1", "xbond down bond1 --force"]),
        ("bond1", &["bond1: belongs to the bond bond1"]),
        ("bond1-port", &["bond1-port: belongs to the bond bond1"]),
    ];
    for (slave, sentence) in of_bond1 {
        refuses(host, &format!("run --bond bond2 --slave {slave} -o miimon=100"), sentence);
    }
    xbond_tests::xbond::cli(host, ["down", "bond1", "--force"]).unwrap();
}

#[test]
fn devices_that_cannot_be_slaves_are_refused() {
    skip_if_unable!();
    let lab = host();
    let host = &lab.host;
    host.ip("tuntap add tun0 mode tun").unwrap();
    refuses(
        host,
        "run --bond bond0 --slave enp0s8 --slave tun0 -o miimon=100",
        &["tun0", "not an Ethernet device"],
    );

    // Refused by the second slave, after the first one is enslaved: everything is undone.
    if host.ip("link add vxlan0 type vxlan id 7 dstport 4789 remote 192.0.2.1 dev enp0s8").is_err() {
        return skip("this kernel has no vxlan");
    }
    host.ip("link add ifb0 type ifb").unwrap();
    host.ip("link add br0 type bridge").unwrap();
    snapshot::open_once(host);
    host.ip("link set enp0s8 up").unwrap();
    snapshot::await_ipv6(host, "enp0s8");
    let jumbo = "run --bond bond0 --slave enp0s9 --slave vxlan0 --mtu 9000 -o miimon=100";
    refuses(host, jumbo, &["set MTU 9000 on vxlan0", "give the bond an mtu"]);
    host.ip("link delete vxlan0").unwrap();
    let ifb = "run --bond bond0 --slave enp0s8 --slave ifb0 -o miimon=100";
    refuses(host, ifb, &["ifb0 cannot change its MAC", "fail_over_mac=active"]);
    for slave in ["ifb0", "br0"] {
        let options = "--datapath xdp -o miimon=100 -o fail_over_mac=active";
        let line = format!("run --bond bond0 --slave enp0s8 --slave {slave} {options}");
        refuses(host, &line, &[&format!("cannot attach xdp to {slave}"), "datapath=tc"]);
    }
}

#[test]
fn a_foreign_xdp_program_is_kept() {
    skip_if_unable!();
    let nics = [&Nic::scenario()[..], &[Nic::new("spare", [2, 0, 0, 0, 0, 9])]].concat();
    let lab = Lab::builder().nics(nics).build().unwrap();
    let host = &lab.host;
    // Any XDP program is suitable: here that of another bond.
    snapshot::open_once(host);
    let lender = ["--bond", "lender", "--slave", "spare", "--datapath", "xdp", "-o", "miimon=100"];
    let agent = Xbond::run(host, lender).unwrap();
    let pin = format!("/sys/fs/bpf/xbond/{}/lender/slave0_rx_prog", host.cookie().unwrap());
    host.exec(&format!("bpftool net attach xdpdrv pinned {pin} dev enp0s9")).unwrap();
    agent.stop().unwrap();
    let links: serde_json::Value = serde_json::from_str(&host.ip("-json link show enp0s9").unwrap()).unwrap();
    let id = links[0]["xdp"]["prog"]["id"].to_string();

    for datapath in ["xdp", "xdp-generic"] {
        let line = format!("run {} --datapath {datapath} -o miimon=100", PAIR.join(" "));
        refuses(host, &line, &["enp0s9", &format!("XDP program id {id} "), "ip link set enp0s9 xdp off"]);
    }
    // tc works together with the program.
    let before = Snapshot::of(host);
    let line = format!("{} --datapath tc -o miimon=100", PAIR.join(" "));
    Xbond::run(host, words(&line)).unwrap().stop().unwrap();
    before.assert_holds(host, "a bond by tc next to an XDP program");
}

#[test]
fn invalid_requests_are_refused() {
    skip_if_unable!();
    let lab = host();
    let host = &lab.host;
    let add = "add --bond bond0 --slave enp0s8 -o miimon=100";
    for line in ["show bond0", "set bond0 miimon=50", "reload", add] {
        refuses(host, line, &["no agent runs in this network namespace", "xbond run"]);
    }
    refuses(host, "down bond0", &["no agent runs in this network namespace", "xbond down bond0 --force"]);
    for name in ["bond0", "..", "/", "a/b", "lock", "sixteen-letters-"] {
        refuses(host, &format!("down {name} --force"), &[name]);
    }

    refused(host, xbond(host).args(["down", "", "--force"]), "down without a name", &["\"\"", "is empty"]);

    let agent = Xbond::run(host, PAIR.into_iter().chain(["-o", "miimon=100"])).unwrap();
    snapshot::await_ipv6(host, "bond0");
    let shown = agent.show("bond0").unwrap()["bonds"][0]["options"].clone();
    let table: &[(&str, &[&str])] = &[
        ("show nosuch", &["nosuch", "no such bond", "xbond show"]),
        ("down nosuch", &["nosuch", "no such bond", "xbond show"]),
        ("down nosuch --force", &["nosuch", "no such bond", "xbond show"]),
        ("set nosuch miimon=50", &["nosuch", "no such bond", "xbond show"]),
        ("show bond0/options", &["bond0/options"]),
        ("down bond0?force", &["bond0?force", "no such bond"]),
        ("show ..", &["\"..\""]),
        ("set bond0 miimonn=50", &["miimonn", "did you mean miimon?"]),
        ("set bond0 miimon=x", &["miimon=x", "allowed: 0 to 2147483647"]),
        ("set bond0 fail_over_mac=active", &["fail_over_mac", "no slaves"]),
        ("set bond0 mode=1", &["mode", "no slaves"]),
        ("set bond0 active_slave=nosuch", &["bond0", "nosuch", "xbond show bond0"]),
        ("set bond0 active_slave=enp0s9 num_grat_arp=2", &["active_slave"]),
        // All settings or none.
        ("set bond0 num_grat_arp=7 miimon=x", &["miimon=x"]),
        ("set bond0 num_grat_arp=7 active_slave=enp0s8", &["active_slave"]),
    ];
    for (line, sentence) in table {
        refuses(host, line, sentence);
        assert_eq!(agent.show("bond0").unwrap()["bonds"][0]["options"], shown, "{line}");
    }
    // A closed standard input or output does not terminate xbond.
    let mut child = xbond(host).arg("show").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    agent.stop().unwrap();
}

#[test]
fn without_root_verbs_are_refused() {
    skip_if_unable!();
    let lab = host();
    let host = &lab.host;
    // In a directory that other users cannot reach.
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("xbond");
    fs::copy(binary().unwrap(), &program).unwrap();
    for path in [place.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let nobody = |line: &str| {
        let mut command = host.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program).args(words(line));
        command
    };
    let run = format!("run {} -o miimon=100", PAIR.join(" "));
    refused(host, &mut nobody(&run), &run, &["CAP_NET_ADMIN", "CAP_BPF", "run it with sudo"]);
    let down = "down bond0 --force";
    refused(host, &mut nobody(down), down, &["CAP_NET_ADMIN", "run it with sudo"]);

    let agent = Xbond::run(host, PAIR.into_iter().chain(["-o", "miimon=100"])).unwrap();
    snapshot::await_ipv6(host, "bond0");
    for line in ["show", "set bond0 miimon=50", "reload", "down bond0", down] {
        refused(host, &mut nobody(line), line, &["xbond.sock", "only root", "run it with sudo"]);
    }
    agent.stop().unwrap();
}
