//! Measures what bonds of NICs with receive filters, as an emulated machine has them, receive before and after
//! failovers.
//!
//! `nics SLAVE SLAVE PEER DATAPATH...` takes three interfaces that are connected to one hub, moves the slaves and the
//! peer into namespaces of their own, and prints a line for each bond: its implementation, its fail_over_mac, and
//! what did not arrive. The kernel's driver is the control.

use std::{
    env, fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use xbond_tests::{
    Capture, Mac, NetNs, PacketSocket, WAIT_LIMIT,
    netns::unique_stem,
    parity::{BOND, Driver, Implementation, OurBond, Outcome, Slave},
};

const POLICIES: [&str; 3] = ["none", "active", "follow"];
/// The addresses of the bond and of the peer, by what it takes to reach them.
const PINGED: [(&str, IpAddr); 4] = [
    ("IPv4", IpAddr::V4(Ipv4Addr::new(192, 168, 99, 101))),
    ("IPv6", IpAddr::V6(Ipv6Addr::new(0xfd00, 0x99, 0, 0, 0, 0, 0, 0x101))),
    ("VLAN", IpAddr::V4(Ipv4Addr::new(192, 168, 5, 101))),
    ("macvlan", IpAddr::V4(Ipv4Addr::new(192, 168, 7, 101))),
];
/// A multicast group that the bond joins, and broadcast.
const SENT: [(&str, [u8; 6]); 2] = [("multicast", [0x01, 0, 0x5e, 1, 1, 1]), ("broadcast", [0xff; 6])];
/// An EtherType for experiments, which no host answers.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];
/// How long a frame may take to be received: links come up slowly, and lost requests are repeated.
const RECEIVED_WITHIN: Duration = Duration::from_secs(6);

struct Nics {
    host: NetNs,
    peer: NetNs,
    slaves: [String; 2],
    peer_nic: String,
}

/// Which implementation creates the bond.
#[derive(Clone, Debug)]
enum Who {
    Driver,
    /// xbond, with this datapath.
    Xbond(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver => f.write_str("driver"),
            Self::Xbond(datapath) => write!(f, "xbond by {datapath}"),
        }
    }
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [first, second, peer, datapaths @ ..] = &arguments[..] else {
        bail!("nics SLAVE SLAVE PEER DATAPATH...")
    };
    let nics = Nics::new([first, second], peer)?;
    let ours = datapaths.iter().map(|datapath| Who::Xbond(datapath.clone()));
    let mut exit = ExitCode::SUCCESS;
    for who in std::iter::once(Who::Driver).chain(ours) {
        for policy in POLICIES {
            let lost = nics.lost(&who, policy).with_context(|| format!("{who}, fail_over_mac={policy}"))?;
            let verdict = if lost.is_empty() { String::from("all received") } else { lost.join("; ") };
            println!("NICS {who}, fail_over_mac={policy}: {verdict}");
            if !lost.is_empty() && matches!(who, Who::Xbond(_)) {
                exit = ExitCode::FAILURE;
            }
        }
    }
    Ok(exit)
}

impl Nics {
    fn new(slaves: [&str; 2], peer_nic: &str) -> Result<Self> {
        let stem = unique_stem();
        let host = NetNs::create(&format!("{stem}-host"))?;
        let peer = NetNs::create(&format!("{stem}-peer"))?;
        // The namespace that the NICs are in now is this thread's, whichever process created them.
        let mover = |nic: &str, to: &NetNs| {
            let status =
                std::process::Command::new("ip").args(["link", "set", nic, "netns", to.name()]).status();
            ensure!(status.context("cannot run ip")?.success(), "{nic} cannot be moved to {}", to.name());
            Ok(())
        };
        mover(slaves[0], &host)?;
        mover(slaves[1], &host)?;
        mover(peer_nic, &peer)?;
        for (netns, nic) in [(&host, slaves[0]), (&host, slaves[1]), (&peer, peer_nic)] {
            let features = netns.exec(&format!("ethtool -k {nic}"))?;
            let filter = features.lines().find(|line| line.starts_with("rx-vlan-filter")).unwrap_or_default();
            let driver = netns.exec(&format!("ethtool -i {nic}"))?;
            let driver = driver.lines().next().unwrap_or_default().to_owned();
            println!("{nic}: {}, {driver}, {filter}", netns.link(nic)?.mac);
        }
        // A device answers for its own addresses only.
        host.sysctl("ipv4/conf/all/arp_ignore", "1")?;
        peer.ip(&format!("link set {peer_nic} up"))?;
        for address in ["192.168.99.1/24", "192.168.7.1/24"] {
            peer.ip(&format!("address add {address} dev {peer_nic}"))?;
        }
        peer.ip(&format!("address add fd00:99::1/64 dev {peer_nic} nodad"))?;
        peer.ip(&format!("link add link {peer_nic} name vlan5 type vlan id 5"))?;
        peer.ip("link set vlan5 up")?;
        peer.ip("address add 192.168.5.1/24 dev vlan5")?;
        Ok(Self { host, peer, slaves: slaves.map(str::to_owned), peer_nic: peer_nic.to_owned() })
    }

    /// Creates a bond, makes it fail over twice, and returns what was not received, and when.
    fn lost(&self, who: &Who, policy: &str) -> Result<Vec<String>> {
        let mut options = vec![("miimon", "100"), ("fail_over_mac", policy)];
        let mut bond: Box<dyn Implementation + '_> = match who {
            Who::Driver => Box::new(Driver::new(&self.host)),
            Who::Xbond(datapath) => {
                options.push(("datapath", datapath));
                Box::new(OurBond::new(&self.host))
            }
        };
        let options: Vec<_> =
            options.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let slaves = self.slaves.clone().map(|name| Slave { name, prio: None });
        for slave in &self.slaves {
            self.host.ip(&format!("link set {slave} down"))?;
        }
        ensure!(bond.create(&options, &slaves)? == Outcome::Accepted, "the bond was refused");
        self.set_up_above()?;
        let [first, second] = &self.slaves;
        let mut lost = Vec::new();
        let mut observe = |when: &str| -> Result<()> {
            let missing = self.missing()?;
            if !missing.is_empty() {
                lost.push(format!("{when} no {}", missing.join(", ")));
            }
            Ok(())
        };

        // Links take seconds to come up, and the first one that comes up is active.
        self.wait(&*bond, "both are up", |status| {
            status.slaves.len() == 2 && status.slaves.iter().all(|slave| slave.mii == "up")
        })?;
        bond.set("active_slave", first)?;
        self.wait_for_active(&*bond, first)?;
        observe(&format!("by {first} at first"))?;
        self.host.ip(&format!("link set {first} down"))?;
        self.wait_for_active(&*bond, second)?;
        observe(&format!("by {second} after {first} failed"))?;
        self.host.ip(&format!("link set {first} up"))?;
        self.wait_for(&*bond, second, first)?;
        observe(&format!("by {second} with {first} back"))?;
        self.host.ip(&format!("link set {second} down"))?;
        self.wait_for_active(&*bond, first)?;
        observe(&format!("by {first} after {second} failed"))?;
        bond.remove()?;
        Ok(lost)
    }

    /// Adds addresses, a VLAN, a macvlan and a multicast group.
    fn set_up_above(&self) -> Result<()> {
        for line in [
            "address add 192.168.99.101/24 dev bond0",
            "address add fd00:99::101/64 dev bond0 nodad",
            "address add 239.1.1.1/32 dev bond0 autojoin",
            "link add link bond0 name bond0.5 type vlan id 5",
            "link set bond0.5 up",
            "address add 192.168.5.101/24 dev bond0.5",
            "link add link bond0 name mv0 address 02:00:00:00:00:aa type macvlan mode bridge",
            "link set mv0 up",
            "address add 192.168.7.101/24 dev mv0",
        ] {
            self.host.ip(line)?;
        }
        Ok(())
    }

    /// Waits until `active` is the active slave and `backup` is up.
    fn wait_for(&self, bond: &dyn Implementation, active: &str, backup: &str) -> Result<()> {
        self.wait(bond, &format!("{active} is active and {backup} up"), |status| {
            let is_up =
                |name: &str| status.slaves.iter().any(|slave| slave.name == name && slave.mii == "up");
            status.active.as_deref() == Some(active) && is_up(backup)
        })
    }

    fn wait_for_active(&self, bond: &dyn Implementation, active: &str) -> Result<()> {
        self.wait(bond, &format!("{active} is active"), |status| status.active.as_deref() == Some(active))
    }

    fn wait(
        &self,
        bond: &dyn Implementation,
        what: &str,
        wanted: impl Fn(&xbond_tests::parity::Status) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        loop {
            let status = bond.status()?.with_context(|| format!("no {BOND}"))?;
            if wanted(&status) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let links = self.host.ip("-br link")?;
                bail!("not within {WAIT_LIMIT:?}: {what}; at last {status:?}\n{links}");
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns the kinds of frames that the bond does not receive.
    fn missing(&self) -> Result<Vec<&'static str>> {
        let mut missing = Vec::new();
        for (what, address) in PINGED {
            // The peer has to resolve the address again: by broadcast, or by the multicast group of its last 24 bits.
            self.peer.ip("neighbour flush all")?;
            let deadline = Instant::now() + RECEIVED_WITHIN;
            while self.peer.ping_with(&["-W", "1"], address, 1)?.received == 0 {
                if Instant::now() > deadline {
                    missing.push(what);
                    break;
                }
            }
        }
        // A socket on all devices is not promiscuous; a socket on one device would be.
        let capture = Capture::start(&self.host)?;
        let sender = PacketSocket::open(&self.peer, &self.peer_nic)?;
        for (what, destination) in SENT {
            let mut frame = [destination.as_slice(), &[2, 0, 0, 0, 0, 0x55], &ETHER_TYPE].concat();
            frame.resize(60, 0);
            sender.send(&frame)?;
            let arrived = |seen: &xbond_tests::Frame| {
                seen.ifname == BOND
                    && !seen.outgoing
                    && seen.destination() == Mac::new(destination)
                    && seen.bytes[12..14] == ETHER_TYPE
            };
            if capture.wait_for(RECEIVED_WITHIN, arrived).is_err() {
                missing.push(what);
            }
        }
        Ok(missing)
    }
}
