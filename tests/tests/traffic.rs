//! Traffic of every kind over the bond, in both directions, before and after a failover.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use xbond_tests::{
    Bulk, Capture, Flow, FlowOptions, Frame, HOST_V4, HOST_V6, Lab, Listener, Mac, NetNs, PEER_V4, PEER_V6,
    PacketSocket, TwoWay, WAIT_LIMIT, Xbond,
    bonded::{self, BOND, Move, POLICIES},
    datagram,
    lab::Datapath,
    redirects_fragments, time_is_no_measure,
};

xbond_tests::on_each_datapath!(
    tcp_goes_through_a_failover,
    floods_of_pings_lose_nothing,
    ipv6,
    vlan_tags_arrive_as_they_were_sent,
    jumbo_frames,
    broadcasts_and_multicasts_arrive_once,
);

/// Bytes that a TCP transfer moves in each direction, instead of the number that a datapath moves in a second or so.
const BULK_BYTES: &str = "XBOND_TEST_BULK_BYTES";

/// The peer's NIC.
const PEER_NIC: &str = "eth0";
const BROADCAST: Ipv4Addr = Ipv4Addr::new(192, 168, 99, 255);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);

/// Runs `check` with the bond as it came up, and again after a failover of each kind.
fn at_each_stage(lab: &Lab, xbond: &Xbond<'_>, mut check: impl FnMut() -> Result<()>) -> Result<()> {
    bonded::wait_for_path(&lab.host, &lab.peer)?;
    check().context("before a failover")?;
    for by in [Move::Planned, Move::CarrierCut] {
        bonded::fail_over(lab, xbond, by)?;
        bonded::wait_for_path(&lab.host, &lab.peer)?;
        check().with_context(|| format!("after a failover: {by:?}"))?;
    }
    Ok(())
}

/// Returns the flags for the bond's addresses.
fn addresses() -> [String; 4] {
    ["--address".into(), format!("{HOST_V4}/24"), "--address".into(), format!("{HOST_V6}/64")]
}

/// Starts the bond. Its addresses can be used at once: duplicate address detection is off.
fn run<'lab>(lab: &'lab Lab, datapath: Datapath, policy: &str, more: &[&str]) -> Result<Xbond<'lab>> {
    let addresses = addresses();
    let arguments: Vec<_> = addresses.iter().map(String::as_str).chain(more.iter().copied()).collect();
    lab.host.sysctl("ipv6/conf/default/accept_dad", "0")?;
    bonded::run(lab, datapath, policy, &arguments)
}

fn bulk_bytes(datapath: Datapath) -> Result<u64> {
    match std::env::var(BULK_BYTES) {
        Ok(bytes) => bytes.parse().with_context(|| format!("{BULK_BYTES}={bytes}")),
        // A transfer should take a few seconds.
        Err(_) if time_is_no_measure().is_some() => Ok(16 << 20),
        Err(_) => Ok(match datapath {
            Datapath::Tc => 256 << 20,
            Datapath::Xdp => 64 << 20,
        }),
    }
}

fn tcp_goes_through_a_failover(datapath: Datapath) -> Result<()> {
    let bytes = bulk_bytes(datapath)?;
    for policy in POLICIES {
        let lab = Lab::builder().datapath(datapath).build()?;
        let xbond = run(&lab, datapath, policy, &[])?;
        let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
        let transfers = [Bulk::start(host, peer, bytes)?, Bulk::start(peer, host, bytes)?];
        for transfer in &transfers {
            transfer.wait_for(bytes / 16)?;
        }
        let arrived = transfers.each_ref().map(Bulk::received);
        ensure!(arrived.iter().all(|arrived| *arrived < bytes), "{policy}: the transfer is over");
        bonded::fail_over(&lab, &xbond, Move::CarrierCut)?;
        for (transfer, way) in transfers.into_iter().zip(["to the peer", "to the host"]) {
            let report = transfer.finish().with_context(|| format!("{policy}, {way}"))?;
            println!("{policy}, {way}: {} bytes in {:?}", report.bytes, report.took);
        }
    }
    Ok(())
}

/// Floods in each direction between two pairs of addresses: no packet may be lost, since no link is cut.
fn floods(lab: &Lab, targets: [(IpAddr, IpAddr); 2]) -> Result<()> {
    const COUNT: u32 = 500;
    for (host, peer) in targets {
        for (from, to) in [(&lab.host, peer), (&lab.peer, host)] {
            let report = from.ping_flood(to, COUNT)?;
            ensure!((report.sent, report.received) == (COUNT, COUNT), "to {to}: {report:?}");
        }
    }
    Ok(())
}

const BOTH: [(IpAddr, IpAddr); 2] =
    [(IpAddr::V4(HOST_V4), IpAddr::V4(PEER_V4)), (IpAddr::V6(HOST_V6), IpAddr::V6(PEER_V6))];

fn floods_of_pings_lose_nothing(datapath: Datapath) -> Result<()> {
    for policy in POLICIES {
        let lab = Lab::builder().datapath(datapath).build()?;
        let xbond = run(&lab, datapath, policy, &[])?;
        at_each_stage(&lab, &xbond, || floods(&lab, BOTH)).context(policy)?;
    }
    Ok(())
}

fn ipv6(datapath: Datapath) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    let addresses = addresses();
    let xbond = bonded::run(&lab, datapath, "active", &addresses.each_ref().map(String::as_str))?;
    bonded::wait_for_addresses(&lab.host, BOND)?;
    at_each_stage(&lab, &xbond, || {
        let (host, peer) = ((&lab.host, HOST_V6.into()), (&lab.peer, PEER_V6.into()));
        bonded::wait_until("an answer by IPv6", || bonded::reaches(&lab.peer, HOST_V6.into()))?;
        let traffic = TwoWay::start(host, peer, 2_000)?;
        traffic.wait_for_more(1_000)?;
        for report in traffic.stop()? {
            ensure!((report.lost, report.duplicated) == (0, 0), "UDP: {report:?}");
        }
        for (from, to) in [(host, peer), (peer, host)] {
            Bulk::start(from, to, 4 << 20)?.finish().context("TCP")?;
        }
        Ok(())
    })
}

/// The bytes between the addresses and the IP header: one frame of each kind.
const TAGS: [(&str, &[u8]); 6] = [
    ("802.1Q", &[0x81, 0x00, 0x00, 0x07]),
    ("802.1Q with priority 5, VID 4094", &[0x81, 0x00, 0xaf, 0xfe]),
    ("802.1Q, priority only", &[0x81, 0x00, 0x60, 0x00]),
    ("802.1ad", &[0x88, 0xa8, 0x00, 0x09]),
    ("802.1ad around 802.1Q", &[0x88, 0xa8, 0x00, 0x09, 0x81, 0x00, 0x00, 0x07]),
    ("802.1Q around 802.1Q", &[0x81, 0x00, 0x00, 0x09, 0x81, 0x00, 0x00, 0x07]),
];

fn frame(destination: Mac, source: Mac, tags: &[u8], number: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(source.bytes(), destination.bytes());
    let builder = builder.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 9).udp(number, number);
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = builder.write(&mut bytes, b"a frame of which every byte must arrive");
    bytes.splice(12..12, tags.iter().copied());
    bytes
}

/// Sends a frame and waits until exactly the expected one arrives at the other end.
fn carries(from: (&NetNs, &str), to: (&NetNs, &str), sent: &[u8], expected: &[u8]) -> Result<()> {
    let capture = Capture::start_on(to.0, to.1)?;
    PacketSocket::open(from.0, from.1)?.send(sent)?;
    capture.wait_for(WAIT_LIMIT, |frame| !frame.outgoing && frame.bytes == expected).map(drop)
}

fn vlan_tags_arrive_as_they_were_sent(datapath: Datapath) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    let xbond = run(&lab, datapath, "active", &[])?;
    let peer_mac = lab.peer.link(PEER_NIC)?.mac;
    let (bond, peer) = ((&lab.host, BOND), (&lab.peer, PEER_NIC));
    at_each_stage(&lab, &xbond, || {
        let wire_mac = lab.mac(&bonded::active_slave(&xbond)?)?;
        bonded::wait_until("bond0's new MAC", || Ok(lab.host.link(BOND)?.mac == wire_mac))?;
        for (number, (kind, tags)) in (1..).zip(TAGS) {
            // bond0 had the first address: whichever it has now, on the wire it is the active slave's.
            let sent = frame(peer_mac, lab.nics[0].mac, tags, number);
            let expected = frame(peer_mac, wire_mac, tags, number);
            carries(bond, peer, &sent, &expected).with_context(|| format!("{kind}, to the peer"))?;
            let sent = frame(wire_mac, peer_mac, tags, number);
            carries(peer, bond, &sent, &sent).with_context(|| format!("{kind}, to the host"))?;
        }
        Ok(())
    })
}

fn jumbo_frames(datapath: Datapath) -> Result<()> {
    const MTU: u32 = 9000;
    /// Without the headers of IPv4 and ICMP or UDP, and of IPv6 and ICMPv6.
    const PAYLOAD_V4: usize = 8972;
    const PAYLOAD_V6: usize = 8952;
    let lab = Lab::builder().datapath(datapath).mtu(MTU).build()?;
    if datapath == Datapath::Xdp && !redirects_fragments() {
        let error =
            run(&lab, datapath, "active", &["--mtu", "9000"]).err().context("frames would be dropped")?;
        ensure!(error.to_string().contains("mtu=9000 with datapath=xdp needs 6.3 or later"), "{error}");
        return Ok(());
    }
    let xbond = run(&lab, datapath, "active", &["--mtu", "9000"])?;
    ensure!(lab.host.link(BOND)?.mtu == MTU);
    at_each_stage(&lab, &xbond, || {
        bonded::wait_until("an answer by IPv6", || bonded::reaches(&lab.peer, HOST_V6.into()))?;
        for ((host, peer), payload) in BOTH.into_iter().zip([PAYLOAD_V4, PAYLOAD_V6]) {
            let whole = ["-M", "do", "-i", "0.01", "-W", "5", "-s", &payload.to_string()];
            for (from, to) in [(&lab.host, peer), (&lab.peer, host)] {
                let report = from.ping_with(&whole, to, 20)?;
                ensure!(report.received == 20, "{payload} bytes to {to}: {report:?}");
            }
        }
        let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
        for (from, to) in [(host, peer), (peer, host)] {
            let flow = Flow::start(from, to, FlowOptions { rate: 1_000, payload: PAYLOAD_V4 })?;
            flow.wait_for_more(300)?;
            let report = flow.stop()?;
            ensure!(report.lost == 0, "UDP to {}: {report:?}", to.1);
            Bulk::start(from, to, 16 << 20)?.finish().with_context(|| format!("TCP to {}", to.1))?;
        }
        Ok(())
    })
}

fn broadcasts_and_multicasts_arrive_once(datapath: Datapath) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    let xbond = run(&lab, datapath, "active", &[])?;
    lab.peer.ip(&format!("address change {PEER_V4}/24 broadcast {BROADCAST} dev {PEER_NIC}"))?;
    for (netns, interface) in [(&lab.peer, PEER_NIC), (&lab.host, BOND)] {
        netns.ip(&format!("route add {GROUP}/32 dev {interface}"))?;
    }
    let host = (&lab.host, HOST_V4);
    let peer = (&lab.peer, PEER_V4);
    // Joined once: membership outlives a failover.
    let [at_host, at_peer] = [Listener::join(host.0, GROUP, host.1)?, Listener::join(peer.0, GROUP, peer.1)?];
    at_each_stage(&lab, &xbond, || {
        let capture = Capture::start_on(&lab.host, BOND)?;
        for (target, payload) in [(BROADCAST, b"to all.."), (GROUP, b"to some.")] {
            datagram::send(peer.0, peer.1, (target, at_host.port()), payload)?;
            at_host.expect(payload).with_context(|| format!("{target}, to the host"))?;
            datagram::send(host.0, host.1, (target, at_peer.port()), payload)?;
            at_peer.expect(payload).with_context(|| format!("{target}, to the peer"))?;
        }
        // Frames that were flooded to the backup before this answer must not have been delivered.
        ensure!(bonded::reaches(&lab.peer, HOST_V4.into())?);
        let frames = capture.stop()?;
        for payload in [b"to all..", b"to some."] {
            let with = |outgoing: bool| {
                let is = |frame: &&Frame| frame.outgoing == outgoing && frame.bytes.ends_with(payload);
                frames.iter().filter(is).count()
            };
            let what = payload.escape_ascii();
            ensure!((with(false), with(true)) == (1, 1), "`{what}`: {} in, {} out", with(false), with(true));
        }
        Ok(())
    })
}
