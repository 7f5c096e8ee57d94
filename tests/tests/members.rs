//! Slaves and the port: which interfaces may be slaves, and how the bond keeps the settings that it needs on them.

mod common;
mod snapshot;

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt as _};

use common::{
    BOND, SLAVES, active_slave, bond, concurrently, eventually, lab, meet, show, slave, traffic,
    wait_for_active,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use snapshot::Snapshot;
use tempfile::TempDir;
use xbond_tests::{
    Capture, Cut, Frame, HOST_V4, Lab, NetNs, Policy, Xbond, lab::Datapath, netns::unique_stem,
    skip_if_unable, xbond::binary,
};

const MORE: &str = "on_exit = \"keep\"\n";

/// Writes a file with the scenario's slaves.
fn write(directory: &TempDir, more: &str) -> String {
    let path = directory.path().join("bond0.toml");
    let slaves = SLAVES.map(|name| format!("\"{name}\"")).join(", ");
    let text = format!(
        "version = 1\n[bond.{BOND}]\nmiimon = 100\nslaves = [{slaves}]\naddresses = [\"{HOST_V4}/24\"]\n{more}"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run<'lab>(lab: &'lab Lab, path: &str) -> Xbond<'lab> {
    Xbond::run(&lab.host, ["-c", path]).unwrap()
}

fn record(lab: &Lab) -> Value {
    let path = format!("/run/xbond/{}/{BOND}/found.json", lab.host.cookie().unwrap());
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A frame would loop. `bond_enslave` ends in `netdev_master_upper_dev_link`, which searches for the bond above the
/// slave.
#[test]
fn a_device_that_sends_by_the_bond_is_refused_as_its_slave() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let host = &lab.host;
    let xbond = bond(&lab, Datapath::Tc, &[]);
    for line in [
        "link add br0 type bridge",
        "link set bond0 master br0",
        "link add link br0 name mv0 type macvlan mode bridge",
        "link add v0 type veth peer name v1",
        "link set v0 master br0",
        // Further away, by a second cable.
        "link add br1 type bridge",
        "link add w0 type veth peer name w1",
        "link set w0 master br1",
        "link set v1 master br1",
        "link add free0 type veth peer name free1",
    ] {
        host.ip(line).unwrap();
    }
    for (name, why) in [
        ("br0", "br0: lies above the bond bond0, and cannot be a slave of a bond"),
        ("mv0", "mv0: lies above the bond bond0, and cannot be a slave of a bond"),
        ("w1", "w1: frames that it sends return to bond0 through a bridge"),
    ] {
        let error = xbond.cli(["add-slave", BOND, name]).unwrap_err().to_string();
        assert!(error.contains(why), "{name}: {error}");
        assert!(!host.ip(&format!("-d link show {name}")).unwrap().contains("xbond:"), "{name}");
    }
    xbond.cli(["add-slave", BOND, "free0"]).unwrap();
    // The reverse order: the bridge exists first.
    host.ip("link set bond0 nomaster").unwrap();
    host.ip("link del mv0").unwrap();
    xbond.cli(["add-slave", BOND, "br0"]).unwrap();
    host.ip("link set bond0 master br0").unwrap();
    xbond
        .wait_for("br0: frames that it sends return to bond0 since bond0 became a port; it is released")
        .unwrap();
    let names = || show(&xbond)["slaves"].to_string();
    eventually("it has left", names, |names| !names.contains("br0"));
    // Another bond may be above a cable that leads to this one.
    let other = ["add", "--bond", "bond1", "--slave", "w1", "-o", "miimon=100"];
    xbond.cli(other).unwrap();
    xbond.stop().unwrap();
}

/// It was restored when it returned; a later agent does not restore a slave again.
#[test]
fn a_slave_that_returned_with_another_ifindex_is_not_restored_at_each_adoption() {
    skip_if_unable!();
    let _turn = concurrently();
    for policy in ["none", "active", "follow"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let away = NetNs::create(&format!("{}-away", unique_stem())).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = write(&directory, &format!("fail_over_mac = \"{policy}\"\n{MORE}"));
        let mut xbond = run(&lab, &path);
        meet(&lab);
        let name = SLAVES[0];
        let former = lab.host.link(name).unwrap().ifindex;
        lab.host.ip(&format!("link set {name} netns {}", away.name())).unwrap();
        wait_for_active(&xbond, SLAVES[1]);
        // Another interface has its ifindex by then.
        lab.host.ip(&format!("link add taken index {former} type bridge")).unwrap();
        away.ip(&format!("link set {name} netns {}", lab.host.name())).unwrap();
        let is_up = |bond: &Value| {
            let slaves = bond["slaves"].as_array().unwrap();
            slaves.iter().any(|slave| slave["name"] == name && slave["mii_status"] == "up")
        };
        eventually("it is back", || show(&xbond), is_up);
        assert_ne!(lab.host.link(name).unwrap().ifindex, former, "{policy}");
        lab.switch.wait_for_forwarding(&lab.port(name).unwrap()).unwrap();
        assert_eq!(record(&lab)["away"], Value::Null, "{policy}");
        xbond.set(BOND, &format!("active_slave={name}")).unwrap();
        wait_for_active(&xbond, name);
        let flow = traffic(&lab, 1_000);
        flow.wait_for_more(300).unwrap();
        let macs = || SLAVES.map(|name| lab.host.link(name).unwrap().mac);
        let had = macs();
        for restart in 0..2 {
            xbond.signal(Signal::SIGKILL).unwrap();
            xbond.wait().unwrap();
            xbond = run(&lab, &path);
            flow.wait_for_more(600).unwrap();
            let log = xbond.log();
            assert!(!log.contains("returned") && !log.contains("failover"), "{policy}, {restart}: {log}");
            assert_eq!((active_slave(&xbond).as_deref(), macs()), (Some(name), had), "{policy}, {restart}");
        }
        for report in flow.stop().unwrap() {
            assert_eq!((report.lost, report.duplicated), (0, 0), "{policy}");
        }
        xbond.cli(["down", BOND]).unwrap();
        xbond.stop().unwrap();
        let link = lab.host.link(name).unwrap();
        assert_eq!((link.mac, link.is_up()), (lab.mac(name).unwrap(), false), "{policy}");
    }
}

/// The adopting agent acts like a running one.
#[test]
fn a_slave_that_became_a_bridge_port_leaves_at_adoption() {
    skip_if_unable!();
    let _turn = concurrently();
    for name in SLAVES {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let directory = tempfile::tempdir().unwrap();
        let path = write(&directory, MORE);
        let xbond = run(&lab, &path);
        meet(&lab);
        xbond.kill().unwrap();
        lab.host.ip("link add br0 type bridge").unwrap();
        lab.host.ip(&format!("link set {name} master br0")).unwrap();
        let xbond = run(&lab, &path);
        xbond.wait_for(&format!("{name}: was made a port of br0, and leaves the bond")).unwrap();
        let names = || {
            let bond = show(&xbond);
            bond["slaves"].as_array().unwrap().iter().map(|slave| slave["name"].clone()).collect::<Vec<_>>()
        };
        let other = SLAVES.iter().find(|other| **other != name).unwrap();
        eventually("it has left", names, |names| *names == [Value::from(*other)]);
        assert_eq!(active_slave(&xbond).as_deref(), Some(*other));
        let mac = lab.mac(name).unwrap().to_string();
        let is_restored = |link: &String| {
            link.contains("master br0")
                && link.contains(&mac)
                && !["ALLMULTI", "xbond:"].iter().any(|of_bond| link.contains(of_bond))
        };
        // The worker restores it after it has left.
        let link = || lab.host.ip(&format!("-d link show {name}")).unwrap();
        eventually("it is restored", link, is_restored);
        meet(&lab);
        xbond.cli(["down", BOND]).unwrap();
        xbond.stop().unwrap();
    }
}

/// Each stays the slave that it was, and neither is released in between.
#[test]
fn slaves_that_swapped_names_stay_at_reload() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let host = &lab.host;
    snapshot::open_once(host);
    SLAVES.iter().for_each(|name| drop(host.ip(&format!("link set {name} up")).unwrap()));
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, MORE);
    let xbond = run(&lab, &path);
    meet(&lab);
    let ifindexes = || {
        let bond = show(&xbond);
        bond["slaves"].as_array().unwrap().iter().map(|slave| slave["ifindex"].clone()).collect::<Vec<_>>()
    };
    let had = ifindexes();
    let flow = traffic(&lab, 1_000);
    flow.wait_for_more(200).unwrap();
    for (from, to) in [(SLAVES[0], "spare"), (SLAVES[1], SLAVES[0]), ("spare", SLAVES[1])] {
        host.ip(&format!("link set {from} name {to}")).unwrap();
    }
    for ifindex in &had {
        let (place, of) = (had.iter().position(|had| had == ifindex).unwrap(), ifindex);
        let name = SLAVES[1 - place];
        eventually("the new name", || slave(&show(&xbond), name)["ifindex"].clone(), |found| found == of);
    }
    let log = xbond.log().len();
    xbond.cli(["reload"]).unwrap();
    flow.wait_for_more(200).unwrap();
    assert!(xbond.log()[log..].contains("nothing differs from the files"), "{}", &xbond.log()[log..]);
    assert_eq!(ifindexes(), had);
    for report in flow.stop().unwrap() {
        assert_eq!((report.lost, report.duplicated), (0, 0));
    }
    // By its current name; the other one stays wanted.
    xbond.cli(["del-slave", BOND, SLAVES[0]]).unwrap();
    assert_eq!(ifindexes(), had[..1]);
    xbond.cli(["reload"]).unwrap();
    eventually("both", || ifindexes().len(), |count| *count == 2);
    xbond.cli(["down", BOND]).unwrap();
    assert!(host.link(SLAVES[1]).unwrap().is_up());
    xbond.stop().unwrap();
}

/// Returns whether a frame is ICMPv6, which a host with IPv6 sends unasked.
fn is_icmpv6(frame: &Frame) -> bool {
    !frame.outgoing && frame.bytes.get(12..14) == Some(&[0x86, 0xdd])
}

fn ipv6(host: &NetNs, name: &str) -> (String, String) {
    let addresses = host.ip(&format!("-6 -o address show dev {name}")).unwrap();
    let link = host.ip(&format!("-d link show {name}")).unwrap();
    let mode = link.split_whitespace().skip_while(|word| *word != "addrgenmode").nth(1);
    (addresses, mode.unwrap_or("no IPv6").to_owned())
}

/// Asserts that slaves and port have no IPv6 addresses, and that bond0's are valid.
#[track_caller]
fn assert_only_bond0_has_ipv6(lab: &Lab, what: &str) {
    for name in SLAVES.into_iter().chain(["bond0-port"]) {
        let observe = || ipv6(&lab.host, name);
        eventually(&format!("{what}: {name}"), observe, |found| *found == (String::new(), "none".to_owned()));
    }
    let own = || ipv6(&lab.host, BOND).0;
    let is_valid = |text: &String| text.contains("fe80:") && !text.contains("tentative");
    let text = eventually(&format!("{what}: bond0"), own, is_valid);
    assert!(!text.contains("dadfailed"), "{what}: {text}");
}

/// Below 1280 bytes a device has no IPv6; above, the kernel creates it again, with addresses.
#[test]
fn an_mtu_that_ipv6_needs_gives_slaves_no_addresses() {
    skip_if_unable!();
    let _turn = concurrently();
    for way in ["reload", "ip link", "one slave"] {
        let lab = lab(Datapath::Tc, Policy::Learning);
        let host = &lab.host;
        snapshot::open_once(host);
        let before = Snapshot::of(host);
        let directory = tempfile::tempdir().unwrap();
        let path =
            write(&directory, if way == "one slave" { MORE } else { "mtu = 600\non_exit = \"keep\"\n" });
        let xbond = run(&lab, &path);
        meet(&lab);
        let flow = traffic(&lab, 1_000);
        flow.wait_for_more(200).unwrap();
        if way == "one slave" {
            assert_only_bond0_has_ipv6(&lab, way);
        }
        let capture = Capture::start(&lab.switch.netns).unwrap();
        let set = |name: &str, mtu| drop(host.ip(&format!("link set {name} mtu {mtu}")).unwrap());
        match way {
            "reload" => {
                write(&directory, &format!("mtu = 1500\n{MORE}"));
                xbond.cli(["reload"]).unwrap();
            }
            "ip link" => set(BOND, 1500),
            _ => set(SLAVES[1], 1000),
        }
        let mtu = || SLAVES.map(|name| host.link(name).unwrap().mtu);
        eventually("the MTU", mtu, |mtu| *mtu == [1500; 2]);
        assert_only_bond0_has_ipv6(&lab, way);
        flow.wait_for_more(500).unwrap();
        let backup = lab.port(SLAVES[1]).unwrap();
        let sent: Vec<_> = capture.stop().unwrap();
        let of_backup: Vec<_> =
            sent.iter().filter(|frame| frame.ifname == backup && is_icmpv6(frame)).collect();
        assert!(of_backup.is_empty(), "{way}: {of_backup:?}");
        for report in flow.stop().unwrap() {
            assert_eq!((report.lost, report.duplicated), (0, 0), "{way}");
        }
        let log = xbond.log();
        assert!(!log.contains("addrgenmode"), "{way}: {log}");
        xbond.cli(["down", BOND]).unwrap();
        xbond.stop().unwrap();
        before.assert_holds(host, way);
    }
}

/// Addresses that the kernel added while another process changed the MTU of a slave to and fro are removed.
#[test]
fn addresses_that_the_kernel_made_on_slaves_and_port_are_removed() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    // While bond0's own address is tentative, that of a slave with the same MAC address is its duplicate.
    snapshot::await_ipv6(&lab.host, BOND);
    for name in [SLAVES[1], "bond0-port"] {
        let log = xbond.log().len();
        [1000, 1500].iter().for_each(|mtu| drop(lab.host.ip(&format!("link set {name} mtu {mtu}")).unwrap()));
        xbond
            .wait_for_after(
                log,
                &format!("{name}: was changed by another process: the bond needs addrgenmode none"),
            )
            .unwrap();
        assert_only_bond0_has_ipv6(&lab, name);
    }
    xbond.stop().unwrap();
}

/// A slave whose own MTU is too small for IPv6, and one whose MTU the bond made too small.
#[test]
fn ipv6_of_slaves_is_restored() {
    skip_if_unable!();
    let _turn = concurrently();
    for (own, of_bond) in [(600, 1500), (1500, 600)] {
        for mode in ["eui64", "none"] {
            let what = format!("{own}, {of_bond}, {mode}");
            let lab = lab(Datapath::Tc, Policy::Learning);
            let host = &lab.host;
            snapshot::open_once(host);
            for name in SLAVES {
                host.ip(&format!("link set {name} addrgenmode {mode}")).unwrap();
                host.ip(&format!("link set {name} mtu {own} up")).unwrap();
            }
            for name in SLAVES {
                let observe = || host.ip(&format!("link show {name}")).unwrap();
                eventually("it runs", observe, |text| text.contains("state UP"));
                if own == 1500 && mode == "eui64" {
                    snapshot::await_ipv6(host, name);
                }
            }
            let before = Snapshot::of(host);
            let directory = tempfile::tempdir().unwrap();
            let xbond = run(&lab, &write(&directory, &format!("mtu = {of_bond}\n{MORE}")));
            meet(&lab);
            if of_bond == 1500 {
                assert_only_bond0_has_ipv6(&lab, &what);
            }
            xbond.cli(["down", BOND]).unwrap();
            xbond.stop().unwrap();
            before.assert_holds(host, &what);
        }
    }
}

/// The refusal comes before anything is changed.
#[test]
fn ipv6_with_a_small_mtu_is_refused() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let host = &lab.host;
    snapshot::open_once(host);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    host.ip("link add own0 type veth peer name own1").unwrap();
    host.ip("address add 2001:db8::1/64 dev own0 nodad").unwrap();
    let before = Snapshot::of(host);
    for (more, why) in [
        (
            &["--mtu", "70", "--address", "2001:db8::2/64"][..],
            "address 2001:db8::2/64 is IPv6, which needs 1280 bytes",
        ),
        (&["--mtu", "1279", "--move-addresses"], "address 2001:db8::1/64 cannot be moved to bond1"),
    ] {
        let mut line = vec!["add", "--bond", "bond1", "--slave", "own0", "-o", "miimon=100"];
        line.extend(more);
        let error = xbond.cli(line).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        before.assert_holds(host, why);
    }
    drop(xbond.stop().unwrap());
    // Another process has changed bond0's MTU.
    let directory = tempfile::tempdir().unwrap();
    let path = write(&directory, MORE);
    let xbond = run(&lab, &path);
    host.ip("link set bond0 mtu 1000").unwrap();
    write(&directory, "routes = [{ to = \"2001:db8:7::/48\", via = \"fe80::1\" }]\non_exit = \"keep\"\n");
    let error = xbond.cli(["reload"]).unwrap_err().to_string();
    assert!(error.contains("bond0: mtu = 1000: route to 2001:db8:7::/48 is IPv6"), "{error}");
    xbond.kill().unwrap();
    let output = host.command(binary().unwrap()).args(["run", "-c", &path]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("route to 2001:db8:7::/48 is IPv6, which needs 1280 bytes"), "{said}");
    xbond_tests::xbond::cli(host, ["down", BOND, "--force"]).unwrap();
}

/// The kernel accepts almost any bytes in a name, also for an interface that is unrelated to the bond.
#[test]
fn a_slave_whose_name_is_not_utf8_takes_over_and_groups_are_reported() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let host = &lab.host;
    let xbond = bond(&lab, Datapath::Tc, &[]);
    host.ip("link add other0 type veth peer name other1").unwrap();
    for (from, to) in [(SLAVES[1], &b"Z\xff\xfe"[..]), ("other0", b"Y\xff")] {
        let line = ["link", "set", "dev", from, "up", "name"].map(OsStr::new);
        let renamed = host.command("ip").args(line).arg(OsStr::from_bytes(to)).status().unwrap();
        assert!(renamed.success(), "{from}");
    }
    let second = || show(&xbond)["slaves"][1]["name"].clone();
    eventually("the name", second, |name| name == "Z??");
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_active(&xbond, "Z??");
    meet(&lab);
    // This request is executed after everything that the failover triggered.
    xbond.cli(["del-slave", BOND, SLAVES[0]]).unwrap();
    xbond.cli(["down", "--all"]).unwrap();
    let log = xbond.stop().unwrap();
    assert!(!log.contains("multicast groups") && !log.contains("gone"), "{log}");
}
