//! Changes of the packets' path by another process: detected within a second or two, restored where the bond owns it,
//! and reported otherwise. And the announcements in a receipt.

mod common;

use std::{collections::BTreeSet, fs, io::Write as _, net::TcpStream, path::PathBuf};

use aya::{
    EbpfLoader,
    programs::{
        LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use bond_common::names;
use bond_user::sys::dataplane::Kernel;
use common::{
    BOND, DATAPATHS, SLAVES, active_slave, bond, bond_with, concurrently, eventually, lab, meet, show,
    wait_for_active,
};
use serde_json::Value;
use xbond_tests::{
    Cut, Lab, PEER_V4, Policy, Xbond, has_tcx, lab::Datapath, skip, skip_if_unable, xbond::cli,
};

const PORT: &str = "bond0-port";

/// Filters that were removed have a test of their own.
const NO_LINKS: &str = "before Linux 6.6 programs of tc are filters, without links";

const METRICS: &str = "127.0.0.1:9100";

fn metrics(lab: &Lab) -> String {
    let ask = || {
        let mut stream = TcpStream::connect(METRICS)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        Ok(std::io::read_to_string(stream)?)
    };
    lab.host.run(ask).unwrap()
}

fn pin(lab: &Lab, name: &str) -> PathBuf {
    ["/sys/fs/bpf/xbond", &lab.host.cookie().unwrap().to_string(), BOND, name].iter().collect()
}

fn bpftool(lab: &Lab, line: &str) -> anyhow::Result<String> {
    lab.host.exec(&format!("bpftool {line}"))
}

/// Damages the path, and asserts that this is reported, restored and counted, and that the bond carries traffic.
#[track_caller]
fn restored(lab: &Lab, xbond: &Xbond<'_>, what: &str, said: &str, harm: impl FnOnce()) {
    let log = xbond.log().len();
    let count = || show(xbond)["path_restored"].as_u64().unwrap();
    let before = count();
    harm();
    let line = xbond.wait_for_after(log, said).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(line.contains("restored") || line.contains("as before again"), "{what}: {line}");
    eventually(what, count, |count| *count > before);
    eventually(what, || lab.host.ping(PEER_V4.into(), 1).unwrap().received, |count| *count == 1);
    assert_eq!(show(xbond)["path_faults"], Value::Array(Vec::new()), "{what}");
    assert_eq!(active_slave(xbond).as_deref(), Some(SLAVES[0]), "{what}");
}

#[test]
fn programs_that_were_detached_are_attached_again() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        if datapath == Datapath::Tc && !has_tcx() {
            skip(NO_LINKS);
            continue;
        }
        for pair in ["netkit", "veth"] {
            let lab = lab(datapath, Policy::Learning);
            let arguments: &[&str] = if datapath == Datapath::Tc { &["--pair", pair] } else { &[] };
            if pair == "netkit"
                && (datapath == Datapath::Xdp || lab.host.ip("link add probe type netkit").is_err())
            {
                continue;
            }
            let _ = lab.host.ip("link del probe");
            let xbond = bond_with(&lab, datapath, &[], arguments);
            let links = ["slave0_rx_link", "slave1_rx_link", "port_tx_link", "bond_tx_link"];
            let others = ["slave0_local_link", "slave1_local_link", "port_egress_link", "bond_egress_link"];
            let others = others.map(|link| pin(&lab, link));
            let has = match datapath {
                _ if !has_tcx() => [false; 4],
                Datapath::Xdp => [true, true, true, false],
                Datapath::Tc => [false, false, true, pair == "veth"],
            };
            assert_eq!(others.each_ref().map(|link| link.exists()), has, "{} {pair}", datapath.name());
            for link in links.iter().map(|link| pin(&lab, link)).filter(|link| link.exists()) {
                let what = format!("{} {pair} {}", datapath.name(), link.display());
                restored(&lab, &xbond, &what, "its BPF program was detached", || {
                    bpftool(&lab, &format!("link detach pinned {}", link.display())).unwrap();
                });
            }
            for link in others.iter().filter(|link| link.exists()) {
                let what = format!("{} {pair} {}", datapath.name(), link.display());
                restored_again(&lab, &xbond, &what, || {
                    bpftool(&lab, &format!("link detach pinned {}", link.display())).unwrap();
                });
                let shown = bpftool(&lab, &format!("-j link show pinned {}", link.display())).unwrap();
                let shown: Value = serde_json::from_str(&shown).unwrap();
                assert!(shown["devname"].is_string() || shown["ifindex"] != 0, "{what}: {shown}");
            }
            // The bond still fails over, and is removed completely.
            lab.cut(SLAVES[0], Cut::Carrier).unwrap();
            wait_for_active(&xbond, SLAVES[1]);
            meet(&lab);
            xbond.stop().unwrap();
            assert!(lab.host.link(BOND).is_err());
        }
    }
}

/// Like [`restored`], for a fault that was already logged in the last minute.
#[track_caller]
fn restored_again(lab: &Lab, xbond: &Xbond<'_>, what: &str, harm: impl FnOnce()) {
    let count = || show(xbond)["path_restored"].as_u64().unwrap();
    let before = count();
    harm();
    eventually(what, count, |count| *count > before);
    eventually(what, || lab.host.ping(PEER_V4.into(), 1).unwrap().received, |count| *count == 1);
    eventually(what, || show(xbond)["path_faults"].clone(), |faults| *faults == Value::Array(Vec::new()));
}

/// Returns a tc program that passes everything.
fn passing(object: &mut aya::Ebpf) -> &mut SchedClassifier {
    let program: &mut SchedClassifier = object.program_mut(names::TC_HOST_RX).unwrap().try_into().unwrap();
    program.load().unwrap();
    program
}

fn programs() -> aya::Ebpf {
    EbpfLoader::new().load(Kernel::read().object()).unwrap()
}

/// Another process calls `bpf_link_update`: the link stays at its hook.
#[test]
fn programs_that_were_replaced_in_their_links_are_restored() {
    skip_if_unable!();
    if !has_tcx() {
        return skip(NO_LINKS);
    }
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond_with(&lab, Datapath::Tc, &[], &["--pair", "veth"]);
    let mut object = programs();
    let program = passing(&mut object);
    for (link, device) in [("slave0_rx_link", SLAVES[0]), ("port_tx_link", PORT)] {
        restored(&lab, &xbond, link, &format!("{device}: its BPF program was replaced"), || {
            let link: FdLink = PinnedLink::from_pin(pin(&lab, link)).unwrap().into();
            let link = SchedClassifierLink::try_from(link).unwrap();
            let id = program.attach_to_link(link).unwrap();
            std::mem::forget(program.take_link(id).unwrap());
        });
    }
    xbond.stop().unwrap();
}

/// Maps, programs and links: the agent holds them and pins them again.
#[test]
fn pins_that_were_removed_are_pinned_again() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &[]);
        let directory = pin(&lab, "ACTIVE").parent().unwrap().to_owned();
        let pins = || -> BTreeSet<String> {
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let all = pins();
        assert!(all.contains("slave0_rx_prog") && all.contains("EVENTS"), "{all:?}");
        let slave = if datapath == Datapath::Xdp || has_tcx() { "slave0_rx_link" } else { "slave0_rx_prog" };
        for name in ["ACTIVE", "TX_PORTS", slave, "port_tx_prog"].map(str::to_owned) {
            let said = format!("the pin {name} was removed by another process; restored");
            restored(&lab, &xbond, &name, &said, || fs::remove_file(directory.join(&name)).unwrap());
            eventually(&name, pins, |pins| *pins == all);
        }
        // All of them, with their directory and that of the namespace.
        let said = format!("{} was removed by another process; restored", directory.display());
        let cookie = directory.parent().unwrap();
        restored(&lab, &xbond, "all pins", &said, || fs::remove_dir_all(cookie).unwrap());
        eventually("all pins", pins, |pins| *pins == all);
        eventually("no warning", || show(&xbond)["warnings"].clone(), |all| *all == Value::Array(Vec::new()));
        // They hold the bond without the agent, and the next one adopts it.
        xbond.kill().unwrap();
        meet(&lab);
        let next = bond(&lab, datapath, &[]);
        next.wait_for("adopted").unwrap();
        next.stop().unwrap();
        assert!(lab.host.link(BOND).is_err());
    }
}

/// A program of another process is not changed, and is named as long as it exists.
#[test]
fn programs_ahead_of_the_bonds_are_reported_once() {
    skip_if_unable!();
    if !has_tcx() {
        return skip(NO_LINKS);
    }
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let warnings = || show(&xbond)["warnings"].to_string();
    let mut object = programs();
    let program = passing(&mut object);
    for device in [SLAVES[1], PORT] {
        let first = TcAttachOptions::TcxOrder(LinkOrder::first());
        let attach = || Ok(program.attach_with_options(device, TcAttachType::Ingress, first)?);
        let id = lab.host.run(attach).unwrap();
        let said = format!(
            "{device}: BPF program id {} of another process runs before",
            program.info().unwrap().id()
        );
        eventually(device, warnings, |warnings| warnings.contains(&said));
        assert_eq!(xbond.log().matches(&said).count(), 1);
        program.detach(id).unwrap();
        eventually(device, warnings, |warnings| !warnings.contains("BPF program id"));
        xbond.wait_for("does not run before the bond's any more").unwrap();
    }
    // A program after the bond's own does not matter.
    let last = TcAttachOptions::TcxOrder(LinkOrder::last());
    lab.host.run(|| Ok(program.attach_with_options(SLAVES[1], TcAttachType::Ingress, last)?)).unwrap();
    // XDP runs before tc.
    let xdp: &mut Xdp = object.program_mut(names::XDP_SLAVE_RX).unwrap().try_into().unwrap();
    xdp.load().unwrap();
    let id = lab.host.run(|| Ok(xdp.attach(SLAVES[1], XdpMode::Skb)?)).unwrap();
    let said = format!("{}: BPF program id {} of another", SLAVES[1], xdp.info().unwrap().id());
    eventually("XDP", warnings, |warnings| warnings.contains(&said));
    assert_eq!(warnings().matches("BPF program id").count(), 1, "{}", warnings());
    xdp.detach(id).unwrap();
    eventually("no XDP", warnings, |warnings| !warnings.contains("BPF program id"));
    assert_eq!(show(&xbond)["path_faults"], Value::Array(Vec::new()));
    meet(&lab);
    xbond.stop().unwrap();
}

#[test]
fn a_bond0_that_is_set_down_is_reported_and_stays_down() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let warnings = || show(&xbond)["warnings"].to_string();
    lab.host.ip(&format!("link set {BOND} down")).unwrap();
    eventually("the warning", warnings, |text| text.contains("bond0 is set down and carries nothing"));
    assert!(!lab.host.link(BOND).unwrap().is_up());
    lab.host.ip(&format!("link set {BOND} up")).unwrap();
    eventually("no warning", warnings, |text| !text.contains("is set down"));
    xbond.stop().unwrap();
}

/// Before Linux 6.6, and if the test requests it: with XDP, the program that copies link-local frames is a filter.
#[test]
fn filters_behind_xdp_that_were_removed_are_attached_again() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Xdp, Policy::Learning);
    let xbond = bond_with(&lab, Datapath::Xdp, &[], &["--clsact"]);
    for device in SLAVES {
        let has_it = || {
            lab.host.exec(&format!("tc filter show dev {device} ingress")).unwrap().contains("tc_slave_local")
        };
        assert!(has_it());
        restored(&lab, &xbond, device, &format!("{device}: its BPF program was detached"), || {
            lab.host.exec(&format!("tc filter del dev {device} ingress")).unwrap();
        });
        assert!(has_it());
    }
    xbond.stop().unwrap();
}

/// Before Linux 6.6, and if the test requests it.
#[test]
fn filters_that_were_removed_are_attached_again() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond_with(&lab, Datapath::Tc, &[], &["--clsact", "--pair", "veth"]);
    for device in [SLAVES[0], SLAVES[1], PORT] {
        restored(&lab, &xbond, device, &format!("{device}: its BPF program was detached"), || {
            lab.host.exec(&format!("tc filter del dev {device} ingress")).unwrap();
        });
        // A repeated fault is logged once a minute.
        let count = || show(&xbond)["path_restored"].as_u64().unwrap();
        let before = count();
        lab.host.exec(&format!("tc qdisc del dev {device} clsact")).unwrap();
        eventually(device, count, |count| *count > before);
        meet(&lab);
    }
    xbond.stop().unwrap();
}

#[test]
fn device_maps_that_were_changed_are_restored() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Xdp, Policy::Learning);
    let xbond = bond(&lab, Datapath::Xdp, &[]);
    for (map, key) in [("TX_PORTS", 0), ("TX_PORTS", 1), ("RX_PORT", 0)] {
        let said = format!("BPF map {map}: entry {key} was modified");
        let at = format!("pinned {} key {key} 0 0 0", pin(&lab, map).display());
        restored(&lab, &xbond, &format!("{map} deleted"), &said, || {
            bpftool(&lab, &format!("map delete {at}")).unwrap();
        });
    }
    let loopback = format!("pinned {} key 0 0 0 0 value 1 0 0 0 0 0 0 0", pin(&lab, "RX_PORT").display());
    let before = show(&xbond)["path_restored"].as_u64().unwrap();
    bpftool(&lab, &format!("map update {loopback}")).unwrap();
    eventually("overwritten", || show(&xbond)["path_restored"].as_u64().unwrap(), |count| *count > before);
    meet(&lab);
    // A repeated fault is logged once a minute, and restored each time.
    let before = show(&xbond)["path_restored"].as_u64().unwrap();
    bpftool(&lab, &format!("map delete pinned {} key 0 0 0 0", pin(&lab, "TX_PORTS").display())).unwrap();
    eventually("again", || show(&xbond)["path_restored"].as_u64().unwrap(), |count| *count > before);
    meet(&lab);
    xbond.stop().unwrap();
}

/// Settings that slaves have for bond0 and for devices above it.
#[test]
fn receive_settings_of_slaves_for_bond0_are_restored() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    // With prearm a backup receives the bond's MAC address.
    let mac = lab.mac(SLAVES[0]).unwrap().to_string();
    let xbond = bond_with(&lab, Datapath::Tc, &["fail_over_mac=follow"], &["--prearm"]);
    let name = SLAVES[1];
    let fdb = || lab.host.exec(&format!("bridge fdb show dev {name}")).unwrap();
    eventually("the bond's MAC", fdb, |fdb| fdb.contains(&mac));
    restored(&lab, &xbond, "unicast", &format!("the bond needs unicast filter {mac}"), || {
        lab.host.exec(&format!("bridge fdb del {mac} dev {name} self")).unwrap();
        // The kernel reports this with the next event of the device.
        lab.host.ip(&format!("link set {name} txqueuelen 999")).unwrap();
    });
    assert!(fdb().contains(&mac));
    lab.host.ip(&format!("link set {BOND} promisc on")).unwrap();
    let flags = || lab.host.ip(&format!("-d link show {name}")).unwrap();
    eventually("promiscuous", flags, |flags| flags.contains("PROMISC"));
    restored(&lab, &xbond, "promiscuous mode", "the bond needs promisc on", || {
        lab.host.ip(&format!("link set {name} promisc off")).unwrap();
    });
    restored(&lab, &xbond, "addrgenmode", "the bond needs addrgenmode none", || {
        lab.host.ip(&format!("link set {name} addrgenmode eui64")).unwrap();
    });
    assert!(flags().contains("PROMISC") && flags().contains("addrgenmode none"), "{}", flags());
    xbond.stop().unwrap();
}

/// An existing port is configured like a slave.
#[test]
fn an_existing_port_is_restored() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    lab.host.ip("link add port0 type veth peer name far0").unwrap();
    let arguments = ["--bond", BOND, "--port", "port0", "--slave", SLAVES[0], "-o", "miimon=100"];
    let xbond = Xbond::run(&lab.host, arguments).unwrap();
    let count = || show(&xbond)["path_restored"].as_u64().unwrap();
    for (setting, said) in [
        ("promisc off", "the bond needs promisc on"),
        ("allmulticast off", "the bond needs all"),
        ("addrgenmode eui64", "the bond needs addrgenmode none"),
        ("down", "port0: was set down"),
    ] {
        let (log, before) = (xbond.log().len(), count());
        lab.host.ip(&format!("link set port0 {setting}")).unwrap();
        let line = xbond.wait_for_after(log, said).unwrap();
        assert!(line.contains("restored"), "{line}");
        eventually(setting, count, |count| *count > before);
    }
    xbond.stop().unwrap();
}

/// A change of XPS causes no event: it is read every ten seconds.
#[test]
fn xps_of_bond0_is_restored() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    // The sysfs of the lab's namespace.
    let write = |queue: u8, mask: &str| {
        let script = format!(
            "mount -t sysfs sysfs /sys && echo {mask} > /sys/class/net/{BOND}/queues/tx-{queue}/xps_cpus"
        );
        let status = lab.host.command("unshare").args(["-m", "sh", "-c", &script]).status().unwrap();
        assert!(status.success());
    };
    restored(&lab, &xbond, "the first queue", "XPS of the first transmit queue", || write(0, "0"));
    restored_again(&lab, &xbond, "another queue", || write(3, "1"));
    xbond.stop().unwrap();
}

#[test]
fn devices_that_were_changed_are_corrected() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &[]);
        let name = SLAVES[0];
        let changes = [
            (format!("{PORT} down"), format!("{PORT}: was set down")),
            (
                format!("{PORT} mtu 1400"),
                format!("{PORT}: was changed by another process: the bond needs MTU 1500"),
            ),
            (
                format!("{name} mtu 1400"),
                format!("{name}: was changed by another process: the bond needs MTU 1500"),
            ),
            (format!("{} mtu 1400", SLAVES[1]), format!("{}: was changed", SLAVES[1])),
            (
                format!("{name} allmulticast off"),
                format!("{name}: was changed by another process: the bond needs all"),
            ),
        ];
        for (change, said) in changes {
            restored(&lab, &xbond, &change, &said, || {
                drop(lab.host.ip(&format!("link set {change}")).unwrap())
            });
        }
        if datapath == Datapath::Xdp {
            restored(&lab, &xbond, "an offload", &format!("{BOND}: was changed"), || {
                drop(lab.host.exec(&format!("ethtool -K {BOND} tx on")).unwrap());
            });
        }
        // A larger MTU of bond0 is also set on the slaves, and is no fault.
        let before = show(&xbond)["path_restored"].clone();
        lab.host.ip(&format!("link set {BOND} mtu 1400")).unwrap();
        eventually(
            "the MTU",
            || lab.host.ip(&format!("link show {name}")).unwrap(),
            |link| link.contains("mtu 1400"),
        );
        std::thread::sleep(std::time::Duration::from_millis(2_500));
        assert_eq!(show(&xbond)["path_restored"], before, "{}", xbond.log());
        xbond.stop().unwrap();
    }
}

/// Values of maps that are written once, or rarely.
#[test]
fn maps_that_were_changed_are_restored() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    // Without miimon no other poll exists.
    let target = format!("arp_ip_target={PEER_V4}");
    let xbond = bond(&lab, Datapath::Tc, &["miimon=0", "arp_interval=20000", &target]);
    for (map, bytes, flipped) in
        [("WIRE_MACS", 128, 0), ("GUARD", 24, 16), ("SLAVES", 48, 0), ("TARGETS", 648, 8)]
    {
        let at = format!("pinned {} key 0 0 0 0", pin(&lab, map).display());
        let read = || -> Vec<String> {
            let value: Value =
                serde_json::from_str(&bpftool(&lab, &format!("-j map lookup {at}")).unwrap()).unwrap();
            let byte = |byte: &Value| byte.as_str().unwrap().to_owned();
            value["value"].as_array().unwrap().iter().map(byte).collect()
        };
        let right = read();
        assert_eq!(right.len(), bytes, "{map}");
        let mut wrong = right.clone();
        wrong[flipped] = "0xee".to_owned();
        restored(&lab, &xbond, map, &format!("BPF map {map} was modified"), || {
            drop(bpftool(&lab, &format!("map update {at} value {}", wrong.join(" "))).unwrap());
        });
        assert_eq!(read()[..16], right[..16], "{map}");
        assert_eq!(read()[flipped], right[flipped], "{map}");
    }
    xbond.stop().unwrap();
}

/// A fault that cannot be restored stays in show, JSON, metrics and the log until it is repaired.
#[test]
fn a_fault_that_cannot_be_restored_is_reported() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Xdp, Policy::Learning);
    let xbond = bond_with(&lab, Datapath::Xdp, &[], &["--metrics", METRICS]);
    let (mine, other) = (pin(&lab, "slave1_rx_link"), pin(&lab, "slave0_rx_prog"));
    let log = xbond.log().len();
    // Another program is faster than the agent: both faults at once.
    bpftool(&lab, &format!("link detach pinned {}", mine.display())).unwrap();
    bpftool(&lab, &format!("net attach xdpdrv pinned {} dev {} overwrite", other.display(), SLAVES[1]))
        .unwrap();
    let said = xbond.wait_for_after(log, "it cannot be restored").unwrap();
    assert!(said.contains(&format!("{}: its BPF program was detached", SLAVES[1])), "{said}");
    let faults = || show(&xbond)["path_faults"].as_array().unwrap().len();
    eventually("the fault", faults, |count| *count == 1);
    assert!(xbond.cli(["show", BOND]).unwrap().contains("! bond0: enp0s9: its BPF program was detached"));
    assert!(metrics(&lab).contains("xbond_path_faults{bond=\"bond0\"} 1"), "{}", metrics(&lab));
    bpftool(&lab, &format!("net detach xdpdrv dev {}", SLAVES[1])).unwrap();
    eventually("restored", faults, |count| *count == 0);
    lab.cut(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_active(&xbond, SLAVES[1]);
    meet(&lab);
    xbond.stop().unwrap();
}

#[test]
fn without_an_agent_show_names_programs_that_were_detached() {
    skip_if_unable!();
    let _turn = concurrently();
    for datapath in DATAPATHS {
        if datapath == Datapath::Tc && !has_tcx() {
            skip(NO_LINKS);
            continue;
        }
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &[]);
        xbond.kill().unwrap();
        let shown = || cli(&lab.host, ["show"]).unwrap();
        assert!(!shown().contains('!'), "{}", shown());
        bpftool(&lab, &format!("link detach pinned {}", pin(&lab, "slave0_rx_link").display())).unwrap();
        assert!(shown().contains("! bond0: enp0s8: its BPF program was detached"), "{}", shown());
        if datapath == Datapath::Xdp {
            bpftool(&lab, &format!("map delete pinned {} key 0 0 0 0", pin(&lab, "RX_PORT").display()))
                .unwrap();
            assert!(shown().contains("! bond0: BPF map RX_PORT: entry 0 was modified"), "{}", shown());
        }
        cli(&lab.host, ["down", BOND, "--force"]).unwrap();
    }
}

#[test]
fn without_an_agent_show_reports_that_no_slave_will_become_active() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &["clock=off"]);
    for name in SLAVES {
        lab.cut(name, Cut::Carrier).unwrap();
    }
    eventually("no active slave", || active_slave(&xbond), Option::is_none);
    xbond.kill().unwrap();
    let shown = || cli(&lab.host, ["show"]).unwrap();
    let none = "! bond0: no active slave, and no slave has a link: it carries nothing until an agent runs";
    assert!(shown().contains(none), "{}", shown());
    lab.reconnect(SLAVES[1], Cut::Carrier).unwrap();
    let one = "! bond0: no active slave, although enp0s9 has a link: it carries nothing until an agent runs";
    eventually("one link", shown, |shown| shown.contains(one));
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

fn last_receipt(lab: &Lab) -> Value {
    let log: Value = serde_json::from_str(&cli(&lab.host, ["log", BOND, "-j"]).unwrap()).unwrap();
    log["receipts"].as_array().unwrap().last().unwrap().clone()
}

/// A receipt counts the announced addresses, and reports it if there are none.
#[test]
fn a_receipt_lists_what_was_announced() {
    skip_if_unable!();
    let _turn = concurrently();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let xbond = bond(&lab, Datapath::Tc, &[]);
    let switch = |to: &str| {
        let log = xbond.log().len();
        xbond.set(BOND, &format!("active_slave={to}")).unwrap();
        let said = xbond.wait_for_after(log, "announce").unwrap();
        let receipt = eventually("the receipt", || last_receipt(&lab), |receipt| receipt["to"] == to);
        (said, receipt)
    };
    lab.host.ip(&format!("address add 2001:db8::1/64 dev {BOND} nodad")).unwrap();
    let addresses = || lab.host.ip(&format!("-o address show dev {BOND}")).unwrap();
    eventually("no address is tentative", addresses, |text| !text.contains("tentative"));
    let count = addresses().lines().count();
    let count_of = |to: &str| switch(to).1["announced"]["addresses"].as_u64().unwrap() as usize;
    // The agent learns of an address a little later.
    eventually("all addresses", || [SLAVES[1], SLAVES[0]].map(count_of), |counts| *counts == [count; 2]);
    let (said, receipt) = switch(SLAVES[1]);
    assert!(said.contains(&format!("announced {count} addresses by the agent")), "{said}");
    assert_eq!((&receipt["announced"]["failed"], &receipt["announced"]["by"]), (&0.into(), &"agent".into()));
    assert!(receipt["steps"]["announce_us"].is_u64(), "{receipt:#}");

    // The address is moved to a bridge.
    lab.host.ip(&format!("address flush dev {BOND}")).unwrap();
    lab.host.ip("link add br0 type bridge").unwrap();
    lab.host.ip(&format!("link set {BOND} master br0")).unwrap();
    let nothing =
        || switch(if active_slave(&xbond).as_deref() == Some(SLAVES[0]) { SLAVES[1] } else { SLAVES[0] });
    let (said, receipt) =
        eventually("no address", nothing, |(_, receipt)| receipt["announced"]["addresses"] == 0);
    assert!(said.contains("nothing to announce"), "{said}");
    assert_eq!(receipt["steps"]["announce_us"], Value::Null, "{receipt:#}");
    let log = cli(&lab.host, ["log", BOND, "-d"]).unwrap();
    assert!(log.replace("\n  ", " ").contains("nothing to announce: no address on the bond"), "{log}");
    xbond.stop().unwrap();
}
