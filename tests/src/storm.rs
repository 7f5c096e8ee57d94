//! Storms of events that a neighbour, or another program of the host, can cause.

use std::{
    io::Write as _,
    net::Ipv6Addr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use etherparse::{
    EtherType, Ethernet2Header, Icmpv6Header, Icmpv6Type, IpNumber, Ipv6Header,
    icmpv6::RouterAdvertisementHeader,
};

use crate::{Mac, NetNs, PacketSocket};

/// Prefixes in one advertisement.
const PREFIXES: u8 = 8;
/// Time between two bursts.
const BURST: Duration = Duration::from_millis(1);
/// The router that advertises.
const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: Mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
const ROUTER_MAC: Mac = Mac::new([2, 0, 0, 0, 0xb, 0xad]);

/// A flood of router advertisements with eight prefixes and different lifetimes each time. Each makes the kernel of
/// every host that accepts them report eight addresses as changed.
pub struct RouterAdvertisements {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<()>>>,
}

impl RouterAdvertisements {
    /// Sends `rate` advertisements a second by this interface, until it is dropped.
    ///
    /// # Errors
    /// There is no such interface, or the socket cannot be opened.
    pub fn start(netns: &NetNs, interface: &str, rate: u32) -> Result<Self> {
        let socket = PacketSocket::open(netns, interface)?;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let sender = std::thread::spawn({
            let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop));
            move || flood(&socket, rate, &sent, &stop)
        });
        Ok(Self { sent, stop, sender: Some(sender) })
    }

    /// Returns how many were sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends the flood. Returns how many were sent.
    ///
    /// # Errors
    /// The sending thread failed.
    pub fn stop(mut self) -> Result<u64> {
        self.end()?;
        Ok(self.sent())
    }

    fn end(&mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        match self.sender.take() {
            Some(sender) => sender.join().map_err(|_| anyhow!("the sender has panicked"))?,
            None => Ok(()),
        }
    }
}

impl Drop for RouterAdvertisements {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn flood(socket: &PacketSocket, rate: u32, sent: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let due = start.elapsed().as_micros() as u64 * u64::from(rate) / 1_000_000;
        for number in sent.load(Ordering::Relaxed)..due {
            socket.send(&advertisement(number as u32)?)?;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        std::thread::sleep(BURST);
    }
    Ok(())
}

/// Returns the whole frame of one advertisement. `number` sets the lifetimes, which stay above two hours: hosts
/// ignore shorter ones (RFC 4862, 5.5.3).
fn advertisement(number: u32) -> Result<Vec<u8>> {
    // Reachable time and retransmission timer of 0: unspecified by the router.
    let mut rest = vec![0; 8];
    for prefix in 1..=PREFIXES {
        let lifetime = 86_400 + number % 40_000;
        // A prefix information option of 4 * 8 bytes: /64, on link and for addresses.
        rest.extend([3, 4, 64, 0xc0]);
        rest.extend(lifetime.to_be_bytes());
        rest.extend(lifetime.to_be_bytes());
        rest.extend([0; 4]);
        rest.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, prefix.into(), 0, 0, 0, 0).octets());
    }
    let router = RouterAdvertisementHeader {
        cur_hop_limit: 64,
        managed_address_config: false,
        other_config: false,
        router_lifetime: 0,
    };
    let mut icmp = Icmpv6Header::new(Icmpv6Type::RouterAdvertisement(router));
    icmp.update_checksum(ROUTER.octets(), ALL_NODES.octets(), &rest)?;
    let ipv6 = Ipv6Header {
        payload_length: u16::try_from(icmp.header_len() + rest.len())?,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source: ROUTER.octets(),
        destination: ALL_NODES.octets(),
        ..Ipv6Header::default()
    };
    let ethernet = Ethernet2Header {
        destination: ALL_NODES_MAC.bytes(),
        source: ROUTER_MAC.bytes(),
        ether_type: EtherType::IPV6,
    };
    let mut frame = Vec::new();
    ethernet.write(&mut frame)?;
    ipv6.write(&mut frame)?;
    icmp.write(&mut frame)?;
    frame.extend(rest);
    Ok(frame)
}

/// Creates `count` macvlans above an interface, up, by one process: each causes a burst of link and address events.
///
/// # Errors
/// `ip -batch` fails.
pub fn macvlans(netns: &NetNs, below: &str, count: u32) -> Result<()> {
    let lines = (0..count).map(|number| {
        format!("link add mv{number} link {below} type macvlan mode bridge\nlink set mv{number} up\n")
    });
    let mut ip =
        netns.command("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().context("ip -batch")?;
    let mut input = ip.stdin.take().context("ip has no stdin")?;
    input.write_all(lines.collect::<String>().as_bytes())?;
    drop(input);
    let status = ip.wait()?;
    ensure!(status.success(), "ip -batch of {count} macvlans above {below}: {status}");
    Ok(())
}
