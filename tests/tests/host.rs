//! The two ends of the bond: a host that only receives, bond0 in another network namespace, an existing interface as
//! the port, devices above bond0, and the tools of administrators.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xbond_tests::{
    Bulk, Capture, Flow, FlowOptions, HOST_V4, HOST_V6, Lab, Mac, NetNs, PEER_V4, PEER_V6, Recovery,
    WAIT_LIMIT, Xbond,
    bonded::{self, BOND, Move, POLICIES},
    lab::Datapath,
    netns, skip, time_is_no_measure,
};

xbond_tests::on_each_datapath!(
    a_host_that_only_receives_is_found_again,
    bond0_in_another_namespace,
    an_existing_interface_as_the_port,
    a_macvlan_on_bond0,
    tcpdump_and_counters_see_both_directions,
    a_qdisc_on_bond0_acts,
    bpftool_names_programs_and_fields,
);

const PEER_NIC: &str = "eth0";
/// Time within which a host that sends nothing must be reached again.
const REACHED_AGAIN: Duration = Duration::from_secs(1);

/// Sends from the peer to a silent host, makes the bond fail over in each way, and checks that the network finds the
/// host again in time.
fn is_found_again(lab: &Lab, xbond: &Xbond<'_>, host: &NetNs) -> Result<()> {
    for by in [Move::Planned, Move::CarrierCut] {
        let options = FlowOptions { rate: 1_000, ..FlowOptions::default() };
        let flow = Flow::start((&lab.peer, PEER_V4.into()), (host, HOST_V4.into()), options)?;
        flow.wait_for_more(200)?;
        let event = bonded::fail_over(lab, xbond, by)?;
        // The flow must run well beyond the time in which the peer may notice that the host does not receive it.
        let due = event + REACHED_AGAIN + Duration::from_millis(500);
        std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
        let report = flow.stop()?;
        // Measured from the first lost packet, not from the request, which may wait for a busy machine.
        let in_time = report.recovery(event) != Recovery::Never && report.longest_loss() <= REACHED_AGAIN;
        match time_is_no_measure() {
            Some(reason) => skip(&format!("{by:?}, within a second: {reason}")),
            None => ensure!(in_time, "{by:?}: {report:?}"),
        }
    }
    Ok(())
}

/// Disables IPv6, which would send frames at times, by which a switch learns the host's port.
fn silence(host: &NetNs) -> Result<()> {
    host.sysctl("ipv6/conf/default/disable_ipv6", "1")
}

fn a_host_that_only_receives_is_found_again(datapath: Datapath) -> Result<()> {
    for policy in POLICIES {
        let lab = Lab::builder().datapath(datapath).build()?;
        silence(&lab.host)?;
        let xbond = bonded::run(&lab, datapath, policy, &["--address", &format!("{HOST_V4}/24")])?;
        bonded::wait_for_path(&lab.host, &lab.peer)?;
        is_found_again(&lab, &xbond, &lab.host).context(policy)?;
    }
    Ok(())
}

/// Creates a namespace in addition to those of a lab.
fn container() -> Result<NetNs> {
    NetNs::create(&format!("{}-container", netns::unique_stem()))
}

/// bond0's MAC address cannot be changed from another namespace: under `active` all frames are translated
/// permanently, as they are briefly at every failover.
fn bond0_in_another_namespace(datapath: Datapath) -> Result<()> {
    for policy in POLICIES {
        let lab = Lab::builder().datapath(datapath).build()?;
        let container = container()?;
        let xbond = bonded::run(&lab, datapath, policy, &[])?;
        let mac = lab.host.link(BOND)?.mac;
        silence(&container)?;
        lab.host.ip(&format!("link set {BOND} netns {}", container.name()))?;
        container.ip(&format!("link set {BOND} up"))?;
        container.ip(&format!("address add {HOST_V4}/24 dev {BOND}"))?;
        bonded::wait_for_path(&container, &lab.peer)?;
        is_found_again(&lab, &xbond, &container).context(policy)?;

        // Both NICs have carried traffic by now; next with IPv6, and with a host that sends.
        for nic in &lab.nics {
            lab.reconnect(&nic.name, xbond_tests::Cut::Carrier)?;
        }
        container.sysctl(&format!("ipv6/conf/{BOND}/disable_ipv6"), "0")?;
        container.ip(&format!("address add {HOST_V6}/64 dev {BOND} nodad"))?;
        let capture = Capture::start_on(&lab.peer, PEER_NIC)?;
        bonded::fail_over(&lab, &xbond, Move::Planned)?;
        let wire_mac = match policy {
            "active" => lab.mac(&bonded::active_slave(&xbond)?)?,
            _ => mac,
        };
        for address in [IpAddr::from(HOST_V4), IpAddr::from(HOST_V6)] {
            let announced = |frame: &xbond_tests::Frame| frame.announces(address) == Some(wire_mac);
            capture.wait_for(WAIT_LIMIT, announced).with_context(|| format!("{policy}: {address}"))?;
        }
        ensure!(container.link(BOND)?.mac == mac, "{policy}: bond0 keeps its MAC there");
        for (from, to) in [(&container, PEER_V4.into()), (&lab.peer, HOST_V4.into())] {
            let report = from.ping_flood(to, 200)?;
            ensure!(report.received == 200, "{policy}, to {to}: {report:?}");
        }
        for (from, to) in [(&container, PEER_V6.into()), (&lab.peer, HOST_V6.into())] {
            bonded::wait_until("an answer by IPv6", || bonded::reaches(from, to)).context(policy)?;
        }
        Bulk::start((&lab.peer, PEER_V4.into()), (&container, HOST_V4.into()), 4 << 20)?.finish()?;
    }
    Ok(())
}

/// How the agent learns the MAC address of the host behind a port.
#[derive(Clone, Copy, Debug, PartialEq)]
enum HostMac {
    Given,
    Learned,
}

fn an_existing_interface_as_the_port(datapath: Datapath) -> Result<()> {
    const MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0xc0]);
    let table = [
        ("none", HostMac::Learned),
        ("follow", HostMac::Given),
        ("active", HostMac::Learned),
        ("active", HostMac::Given),
    ];
    for (policy, host_mac) in table {
        let lab = Lab::builder().datapath(datapath).build()?;
        let container = container()?;
        silence(&container)?;
        let container_name = container.name();
        lab.host
            .ip(&format!("link add port0 type veth peer name eth0 netns {container_name} address {MAC}"))?;
        if datapath == Datapath::Xdp {
            // Frames that XDP redirects have complete checksums, and a veth accepts them only with NAPI: the owner of
            // the port has to configure that.
            container.exec("ethtool -K eth0 gro on tx off txvlan off tx-vlan-stag-hw-insert off")?;
        }
        container.ip("link set eth0 up")?;
        container.ip(&format!("address add {HOST_V4}/24 dev eth0"))?;
        let mac = MAC.to_string();
        let given = ["--port", "port0", "--host-mac", &mac];
        let arguments = if host_mac == HostMac::Given { &given[..] } else { &given[..2] };
        let xbond = bonded::run(&lab, datapath, policy, arguments)?;

        let reached = || {
            // The agent cannot announce another MAC address for this host's addresses, which it does not know.
            lab.peer.ip(&format!("neighbour flush dev {PEER_NIC}"))?;
            bonded::wait_for_path(&container, &lab.peer)?;
            for (from, to) in [(&container, PEER_V4), (&lab.peer, HOST_V4)] {
                let report = from.ping_flood(to.into(), 200)?;
                ensure!(report.received == 200, "to {to}: {report:?}");
            }
            Ok(())
        };
        reached().with_context(|| format!("{policy}, {host_mac:?}"))?;
        if host_mac == HostMac::Learned {
            xbond.wait_for(&format!("the host behind the port has {MAC}"))?;
        }
        let neighbour = lab.peer.ip(&format!("neighbour show {HOST_V4} dev {PEER_NIC}"))?;
        // A bond whose slaves can all have the host's MAC address is transparent.
        let transparent = host_mac == HostMac::Given && policy != "active";
        let shown = if transparent { MAC } else { lab.nics[0].mac };
        ensure!(neighbour.contains(&shown.to_string()), "{policy}, {host_mac:?}: {neighbour}, not {shown}");
        if policy == "active" {
            bonded::fail_over(&lab, &xbond, Move::CarrierCut)?;
        } else {
            is_found_again(&lab, &xbond, &container).context(policy)?;
        }
        reached().with_context(|| format!("{policy}, {host_mac:?}, after a failover"))?;
        ensure!(container.link("eth0")?.mac == MAC);
    }
    Ok(())
}

fn a_macvlan_on_bond0(datapath: Datapath) -> Result<()> {
    const MAC: Mac = Mac::new([0x02, 0, 0, 0, 0, 0xd0]);
    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 98, 101));
    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 98, 1));
    for policy in POLICIES {
        let lab = Lab::builder().datapath(datapath).build()?;
        let xbond = bonded::run(&lab, datapath, policy, &["--address", &format!("{HOST_V4}/24")])?;
        lab.host.ip(&format!("link add mac0 link {BOND} address {MAC} type macvlan mode bridge"))?;
        lab.host.ip("link set mac0 up")?;
        lab.host.ip(&format!("address add {OWN}/24 dev mac0"))?;
        lab.peer.ip(&format!("address add {PEER}/24 dev {PEER_NIC}"))?;
        let received_by_slaves = || {
            let table = |nic: &xbond_tests::Nic| lab.host.exec(&format!("bridge fdb show dev {}", nic.name));
            let tables = lab.nics.iter().map(table).collect::<Result<Vec<_>>>()?;
            Ok(tables.iter().all(|table| table.contains(&MAC.to_string())))
        };
        bonded::wait_until("a filter for the macvlan on every slave", received_by_slaves)?;
        let reached = || {
            for (from, to) in [(&lab.host, PEER), (&lab.peer, OWN)] {
                bonded::wait_until(&format!("an answer from {to}"), || bonded::reaches(from, to))?;
                let report = from.ping_flood(to, 200)?;
                ensure!(report.received == 200, "to {to}: {report:?}");
            }
            let neighbour = lab.peer.ip(&format!("neighbour show {OWN} dev {PEER_NIC}"))?;
            ensure!(neighbour.contains(&MAC.to_string()), "{neighbour}: its own MAC, never the bond's");
            bonded::wait_for_path(&lab.host, &lab.peer)
        };
        reached().context(policy)?;
        for by in [Move::Planned, Move::CarrierCut] {
            bonded::fail_over(&lab, &xbond, by)?;
            reached().with_context(|| format!("{policy}, {by:?}"))?;
        }
    }
    Ok(())
}

/// Creates a bond with an address that has carried pings already, so that no resolution disturbs the counts.
fn warm_bond<'lab>(lab: &'lab Lab, datapath: Datapath) -> Result<Xbond<'lab>> {
    silence(&lab.host)?;
    let xbond = bonded::run(lab, datapath, "active", &["--address", &format!("{HOST_V4}/24")])?;
    bonded::wait_for_path(&lab.host, &lab.peer)?;
    Ok(xbond)
}

fn tcpdump_and_counters_see_both_directions(datapath: Datapath) -> Result<()> {
    const COUNT: u32 = 50;
    let lab = Lab::builder().datapath(datapath).build()?;
    let xbond = warm_bond(&lab, datapath)?;
    for failed_over in [false, true] {
        if failed_over {
            bonded::fail_over(&lab, &xbond, Move::CarrierCut)?;
            bonded::wait_for_path(&lab.host, &lab.peer)?;
        }
        let before = counters(&lab)?;
        let mut tcpdump = lab.host.command("timeout");
        let seconds = WAIT_LIMIT.as_secs().to_string();
        tcpdump.args([&seconds, "tcpdump", "-n", "-l", "-i", BOND, "-c", &(2 * COUNT).to_string(), "icmp"]);
        let mut tcpdump = tcpdump
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .context("cannot run tcpdump")?;
        // Its first line on stderr reports that it listens.
        let mut stderr = std::io::BufReader::new(tcpdump.stderr.take().context("stderr of tcpdump")?);
        wait_for_line(&mut stderr, "listening on")?;
        ensure!(lab.host.ping(PEER_V4.into(), COUNT)?.received == COUNT);
        let printed = tcpdump.wait_with_output()?;
        let printed = String::from_utf8_lossy(&printed.stdout);
        for (way, line) in [("out", "ICMP echo request"), ("in", "ICMP echo reply")] {
            let seen = printed.lines().filter(|printed| printed.contains(line)).count();
            ensure!(seen == COUNT as usize, "tcpdump saw {seen} of {COUNT} packets {way}: {printed}");
        }
        // 20 bytes of IP and 64 of ICMP; whether the Ethernet header counts depends on driver and direction.
        let bytes = 84;
        let after = counters(&lab)?;
        for way in ["rx", "tx"] {
            let grown = |key: &str| after[way][key].as_u64().zip(before[way][key].as_u64());
            let grown = |key: &str| grown(key).map_or(0, |(after, before)| after - before);
            ensure!(grown("packets") >= u64::from(COUNT), "failed over: {failed_over}; {way}: {after}");
            ensure!(grown("bytes") >= bytes * u64::from(COUNT), "failed over: {failed_over}; {way}: {after}");
            ensure!(grown("errors") + grown("dropped") == 0, "failed over: {failed_over}; {way}: {after}");
        }
    }
    Ok(())
}

/// Returns the counters that `ip -s link show bond0` shows.
fn counters(lab: &Lab) -> Result<Value> {
    let json: Value = serde_json::from_str(&lab.host.ip(&format!("-s -j link show {BOND}"))?)?;
    Ok(json[0]["stats64"].clone())
}

fn wait_for_line(from: &mut impl std::io::BufRead, text: &str) -> Result<()> {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        ensure!(from.read_line(&mut line)? > 0, "ended without printing `{text}`");
    }
    Ok(())
}

fn a_qdisc_on_bond0_acts(datapath: Datapath) -> Result<()> {
    const BYTES: u64 = 512 << 10;
    let lab = Lab::builder().datapath(datapath).build()?;
    let xbond = warm_bond(&lab, datapath)?;
    // 512 kB at 4 Mbit/s take a second; without the qdisc, some milliseconds.
    lab.host.exec(&format!("tc qdisc add dev {BOND} root tbf rate 4mbit burst 32kb latency 500ms"))?;
    for failed_over in [false, true] {
        if failed_over {
            bonded::fail_over(&lab, &xbond, Move::CarrierCut)?;
            bonded::wait_for_path(&lab.host, &lab.peer)?;
        }
        let transfer = Bulk::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), BYTES)?;
        let rate = transfer.finish()?.bits_per_second();
        ensure!(rate < 4.8e6, "failed over: {failed_over}; {rate} bit/s through 4 Mbit/s");
    }
    let shown = lab.host.exec(&format!("tc -s -j qdisc show dev {BOND}"))?;
    let shown: Value = serde_json::from_str(&shown)?;
    ensure!(shown[0]["bytes"].as_u64() >= Some(2 * BYTES), "{shown}");
    Ok(())
}

fn bpftool_names_programs_and_fields(datapath: Datapath) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    let xbond = warm_bond(&lab, datapath)?;
    let pins = Path::new("/sys/fs/bpf/xbond").join(lab.host.cookie()?.to_string()).join(BOND);
    for (map, fields) in [
        ("ACTIVE", &["word"][..]),
        ("SLAVES", &["wire_mac", "permanent_mac", "ifindex"]),
        ("BOND", &["host_mac", "port_ifindex", "policy", "flags", "abi_version"]),
        ("STATS", &["tx_packets", "rx_packets", "tx_bytes", "rx_bytes", "drops"]),
    ] {
        let shown = lab.host.exec(&format!("bpftool map dump pinned {}", pins.join(map).display()))?;
        for field in fields {
            ensure!(shown.contains(&format!("\"{field}\":")), "{map} shows no {field}: {shown}");
        }
    }
    let ifindex = lab.host.link("enp0s9")?.ifindex;
    let slaves = lab.host.exec(&format!("bpftool map dump pinned {}", pins.join("SLAVES").display()))?;
    ensure!(slaves.contains(&format!("\"ifindex\": {ifindex}")), "enp0s9 is {ifindex}: {slaves}");

    let listed = lab.host.exec("bpftool -j prog show")?;
    let listed: Value = serde_json::from_str(&listed)?;
    let slave_program = |slot: usize| (format!("slave{slot}_rx_prog"), "slave_rx");
    for (pin, program) in [(String::from("port_tx_prog"), "port_tx"), slave_program(0), slave_program(1)] {
        let id = program_id(&lab, pins.join(pin))?;
        let name = format!("{}_{program}", datapath.name());
        let found = listed.as_array().into_iter().flatten().find(|program| program["id"] == id);
        ensure!(found.is_some_and(|found| found["name"] == name.as_str()), "{name}: {found:?}");
    }
    xbond.stop().map(drop)
}

fn program_id(lab: &Lab, pin: PathBuf) -> Result<Value> {
    let shown = lab.host.exec(&format!("bpftool -j prog show pinned {}", pin.display()))?;
    let shown: Value = serde_json::from_str(&shown)?;
    Ok(shown["id"].clone())
}

/// The environment of every container runtime: the namespace's sysfs was mounted read-only before anything else, and
/// /proc/sys is read-only, too.
#[test]
fn a_bond_comes_up_where_sysfs_and_sysctl_are_read_only() {
    xbond_tests::skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let mut command = lab.host.command("unshare");
    let script = "mount --make-rprivate / && mount -t sysfs -o ro sysfs /sys && mount -t bpf bpf /sys/fs/bpf && \
                  mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(xbond_tests::xbond::binary().unwrap());
    let address = format!("{HOST_V4}/24");
    command.args(["run", "--bond", BOND, "--slave", "enp0s8", "--slave", "enp0s9", "-o", "miimon=100"]);
    command.args(["--address", &address]);
    let xbond = Xbond::start_as(&lab.host, command).unwrap();
    xbond.wait_for("no slave can have a queue_id").unwrap();
    xbond.wait_for("ready").unwrap();
    assert!(lab.host.ping(PEER_V4.into(), 1).is_ok());
    bonded::fail_over(&lab, &xbond, Move::CarrierCut).unwrap();
    let refused = xbond.cli(["set", BOND, "--slave", "enp0s9", "queue_id=2"]).unwrap_err().to_string();
    assert!(refused.contains("queue_id"), "{refused}");
    xbond.stop().unwrap();
}
