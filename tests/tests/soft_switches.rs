//! bond0 is a port of a switch in user space, at which the host has its address: Open vSwitch, and a small one that does the same.
//! And what keepalived sets up above a bridge. The slaves are at two switches, which a trunk joins.

mod common;

use std::{
    net::Ipv4Addr,
    process::{Child, Stdio},
    time::Duration,
};

use common::{BOND, SLAVES, alone, builder, eventually, show, wait_for_active, wait_for_status};
use xbond_tests::{
    Cut, Flow, FlowOptions, HOST_V4, Lab, NetNs, PEER_V4, Xbond,
    flow::FlowReport,
    lab::{Datapath, PEER_NIC},
    skip_if_unable,
    soft_switch::{OpenVSwitch, TapSwitch},
    xbond::cli,
};

/// The device with the host's address.
const DEVICE: &str = "br0";
const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 111);
/// Longer than a failover may take on a machine under load. Without an announcement nothing arrives until the end.
const OUTAGE_LIMIT: Duration = Duration::from_millis(300);

fn new_lab() -> Lab {
    let lab = builder(Datapath::Tc).two_switches().build().unwrap();
    for netns in [&lab.host, &lab.peer] {
        netns.sysctl("ipv6/conf/all/disable_ipv6", "1").unwrap();
        netns.sysctl("ipv6/conf/default/disable_ipv6", "1").unwrap();
    }
    // On a wire checksums are complete, as user space has to have them.
    lab.peer.exec(&format!("ethtool -K {PEER_NIC} tx off")).unwrap();
    lab
}

fn run<'lab>(lab: &'lab Lab, policy: &str) -> Xbond<'lab> {
    let policy = format!("fail_over_mac={policy}");
    let mut line = vec!["--bond", BOND, "-o", "miimon=100", "-o", &policy];
    line.extend(SLAVES.iter().flat_map(|slave| ["--slave", slave]));
    let xbond = Xbond::run(&lab.host, line).unwrap();
    let clock = || show(&xbond)["clock"].as_str().unwrap().to_owned();
    eventually("the clock runs", clock, |clock| clock.starts_with("on"));
    for slave in SLAVES {
        wait_for_status(&xbond, slave, "up");
    }
    xbond
}

/// Gives the host's device its address, and has the peer know it.
fn introduce(lab: &Lab) {
    lab.host.ip(&format!("link set {DEVICE} up")).unwrap();
    lab.host.ip(&format!("address add {HOST_V4}/24 dev {DEVICE}")).unwrap();
    eventually("it speaks", || lab.host.ping(PEER_V4.into(), 1).unwrap().received, |count| *count == 1);
}

/// Returns what became of packets that the peer sends to an address of the host, which sends none, while `fail` is done.
fn outage(lab: &Lab, address: Ipv4Addr, what: &str, fail: impl FnOnce()) -> FlowReport {
    let to = (&lab.host, address.into());
    let flow = Flow::start((&lab.peer, PEER_V4.into()), to, FlowOptions::default()).unwrap();
    flow.wait_for_more(50).unwrap();
    fail();
    if let Err(error) = flow.wait_for_more(100) {
        panic!("{what}: {error:#}: {:?}", flow.stop().unwrap());
    }
    let report = flow.stop().unwrap();
    println!("{what}: lost {}, {:?}", report.lost, report.outage());
    assert!(report.outage() < OUTAGE_LIMIT, "{what}: {report:?}");
    report
}

/// Waits until a failover announces an address.
fn wait_until_announced(xbond: &Xbond<'_>, wanted: u64) {
    let mut others = SLAVES.into_iter().rev().cycle();
    let announced = || {
        let new = others.next().unwrap();
        xbond.set(BOND, &format!("active_slave={new}")).unwrap();
        let last = || show(xbond)["last_failover"].clone();
        let receipt =
            eventually("a receipt", last, |receipt| receipt["to"] == new && !receipt["announced"].is_null());
        receipt["announced"]["addresses"].as_u64().unwrap()
    };
    eventually("the address is announced", announced, |addresses| *addresses == wanted);
}

/// A planned switch there and back, a cut with an agent, and one without.
fn fail_over(lab: &Lab, xbond: Xbond<'_>, address: Ipv4Addr, what: &str, lossless: bool) {
    xbond.set(BOND, &format!("active_slave={}", SLAVES[0])).unwrap();
    for new in [SLAVES[1], SLAVES[0]] {
        let set = || xbond.set(BOND, &format!("active_slave={new}")).unwrap();
        let report = outage(lab, address, &format!("{what}, planned"), set);
        assert!(!lossless || report.lost == 0, "{what}, planned: {report:?}");
    }
    let cut = |slave: &str, what: &str| {
        outage(lab, address, what, || {
            lab.cut(slave, Cut::Carrier).unwrap();
        });
    };
    cut(SLAVES[0], &format!("{what}, cut"));
    wait_for_active(&xbond, SLAVES[1]);
    lab.reconnect(SLAVES[0], Cut::Carrier).unwrap();
    wait_for_status(&xbond, SLAVES[0], "up");
    xbond.kill().unwrap();
    cut(SLAVES[1], &format!("{what}, cut without an agent"));
    cli(&lab.host, ["down", BOND, "--force"]).unwrap();
}

#[test]
fn the_port_of_a_switch_in_user_space_is_announced() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for policy in ["none", "active"] {
        let lab = new_lab();
        let xbond = run(&lab, policy);
        let _switch = TapSwitch::start(&lab.host, BOND, DEVICE).unwrap();
        introduce(&lab);
        wait_until_announced(&xbond, 1);
        fail_over(&lab, xbond, HOST_V4, &format!("a tap, {policy}"), policy == "none");
    }
}

#[test]
fn the_port_of_open_vswitch_is_announced() {
    skip_if_unable!();
    if let Some(reason) = OpenVSwitch::obstacle() {
        return common::skip(reason);
    }
    let Some(_turn) = alone() else { return };
    for policy in ["none", "active"] {
        let lab = new_lab();
        let xbond = run(&lab, policy);
        let _switch = OpenVSwitch::start(&lab.host, BOND, DEVICE).unwrap();
        introduce(&lab);
        wait_until_announced(&xbond, 1);
        fail_over(&lab, xbond, HOST_V4, &format!("Open vSwitch, {policy}"), policy == "none");
    }
}

/// keepalived in a namespace; it ends with this.
struct Keepalived {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Keepalived {
    /// Starts it with one virtual router at this device. None, after reporting a skip, where it is not installed.
    fn start(netns: &NetNs, device: &str, use_vmac: bool) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
        let vmac = if use_vmac { "use_vmac" } else { "" };
        let text = format!(
            "vrrp_instance v {{\nstate MASTER\ninterface {device}\nvirtual_router_id 51\npriority 200\nadvert_int 1\n\
             {vmac}\nvirtual_ipaddress {{\n{VIP}/24\n}}\n}}\n"
        );
        std::fs::write(path("conf"), text).unwrap();
        let mut command = netns.command("keepalived");
        command.args(["--dont-fork", "--vrrp", "--use-file", &path("conf"), "--pid", &path("pid")]);
        command.args(["--vrrp_pid", &path("vrrp")]).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(child) = command.spawn() else {
            common::skip("keepalived is not installed (Debian: package keepalived)");
            return None;
        };
        Some(Self { child, _directory: directory })
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With its own MAC address (`use_vmac`: a macvlan above the bridge), and without.
#[test]
fn the_virtual_address_of_keepalived_above_a_bridge_is_announced() {
    skip_if_unable!();
    let Some(_turn) = alone() else { return };
    for (policy, use_vmac) in [("none", false), ("none", true), ("active", false), ("active", true)] {
        let lab = new_lab();
        let xbond = run(&lab, policy);
        lab.host.ip(&format!("link add {DEVICE} type bridge forward_delay 0 mcast_snooping 0")).unwrap();
        lab.host.ip(&format!("link set {BOND} master {DEVICE}")).unwrap();
        introduce(&lab);
        let Some(_keepalived) = Keepalived::start(&lab.host, DEVICE, use_vmac) else { return };
        let answers = || lab.peer.ping(VIP.into(), 1).unwrap().received;
        eventually("the virtual address answers", answers, |count| *count == 1);
        wait_until_announced(&xbond, 2);
        let what = format!("keepalived, {policy}, use_vmac: {use_vmac}");
        fail_over(&lab, xbond, VIP, &what, policy == "none" || use_vmac);
    }
}
