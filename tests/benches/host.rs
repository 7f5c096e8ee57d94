//! Measures the cost of xbond for a host's traffic: TCP and UDP over a bare slave and over bonds on such slaves,
//! round by round.
//!
//! ```text
//!  host                         peer
//!    bond0 -- enp0s8 ---------- eth0 192.168.99.1/24
//!          \- enp0s9 ---------- eth1
//! ```

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use xbond_tests::{
    HOST_V4, NetNs, PEER_V4, Xbond, bonded,
    figures::{Figure, Measured, Target, quantile},
    link::is_there,
    netns,
};

const ROUNDS: usize = 9;
/// Time between the first byte and the first that counts.
const WARM_UP: Duration = Duration::from_millis(50);
const PERIOD: Duration = Duration::from_millis(350);
const QUICK_PERIOD: Duration = Duration::from_millis(60);
/// Bytes of a TCP write.
const CHUNK: usize = 128 << 10;
/// Bytes of UDP payload.
const DATAGRAM: usize = 64;
const NICS: [(&str, &str); 2] = [("enp0s8", "eth0"), ("enp0s9", "eth1")];

/// The device that has the host's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Slave,
    /// bond0 and its port are a veth pair.
    XbondVeth,
    /// bond0 and its port are a netkit pair.
    XbondNetkit,
    XbondXdp,
    /// The kernel's bonding driver.
    Driver,
    /// The kernel's team driver, without its daemon, which a failover would need.
    Team,
}

impl Over {
    fn name(self) -> &'static str {
        match self {
            Self::Slave => "the slave itself",
            Self::XbondVeth => "xbond tc over veth",
            Self::XbondNetkit => "xbond tc over netkit",
            Self::XbondXdp => "xbond xdp",
            Self::Driver => "the kernel's bond",
            Self::Team => "the kernel's team",
        }
    }

    /// Returns the values of `xbond run --datapath` and `--pair`.
    fn xbond(self) -> Option<[&'static str; 2]> {
        match self {
            Self::XbondVeth => Some(["tc", "veth"]),
            Self::XbondNetkit => Some(["tc", "netkit"]),
            Self::XbondXdp => Some(["xdp", "auto"]),
            Self::Slave | Self::Driver | Self::Team => None,
        }
    }

    fn is_tc(self) -> bool {
        matches!(self, Self::XbondVeth | Self::XbondNetkit)
    }

    /// Returns the kind of device that the kernel needs and may lack.
    fn kind(self) -> Option<&'static str> {
        match self {
            Self::XbondNetkit => Some("netkit"),
            Self::Driver => Some("bond"),
            Self::Team => Some("team"),
            Self::Slave | Self::XbondVeth | Self::XbondXdp => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToPeer,
    ToHost,
}

impl Direction {
    const BOTH: [Self; 2] = [Self::ToPeer, Self::ToHost];

    fn name(self) -> &'static str {
        match self {
            Self::ToPeer => "to the peer",
            Self::ToHost => "to the host",
        }
    }
}

/// The measured load. Each is one table.
#[derive(Clone, Copy, Debug)]
enum Load {
    Tcp { streams: usize, direction: Direction },
    Udp { direction: Direction },
    RequestResponse { quantile: f64, ends: Cpus },
}

/// The CPUs on which the two ends of a connection run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cpus {
    /// Like two machines: each end has to be woken.
    Two,
    /// The path alone: no thread sleeps for long.
    One,
}

impl Cpus {
    /// Returns the CPUs of the first and the second end.
    fn of_ends(self) -> [usize; 2] {
        let last = thread::available_parallelism().map_or(1, |count| count.get()) - 1;
        match self {
            Self::Two => [0, last],
            Self::One => [last, last],
        }
    }
}

/// Binds the calling thread to a CPU.
fn stay_on(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

impl Load {
    fn all() -> Vec<Self> {
        let tcp = [1, 8]
            .into_iter()
            .flat_map(|streams| Direction::BOTH.map(|direction| Self::Tcp { streams, direction }));
        let udp = Direction::BOTH.map(|direction| Self::Udp { direction });
        let latency = [Cpus::Two, Cpus::One]
            .into_iter()
            .flat_map(|ends| [0.5, 0.99].map(|quantile| Self::RequestResponse { quantile, ends }));
        tcp.chain(udp).chain(latency).collect()
    }

    fn name(self) -> String {
        match self {
            Self::Tcp { streams, direction } => format!("host: TCP {}, streams: {streams}", direction.name()),
            Self::Udp { direction } => format!("host: UDP of {DATAGRAM} bytes {}", direction.name()),
            Self::RequestResponse { quantile, ends } => {
                let cpus = if ends == Cpus::Two { "two CPUs" } else { "one CPU" };
                format!("host: TCP request and response on {cpus}, p{}", quantile * 100.0)
            }
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Tcp { .. } => "Gbit/s",
            Self::Udp { .. } => "packets/s",
            Self::RequestResponse { .. } => "us",
        }
    }

    /// Returns the target of the ratio to the slave, by tc.
    fn target(self) -> Option<Target> {
        match self {
            Self::Tcp { .. } => Some(Target::AtLeast(0.96)),
            Self::Udp { .. } => Some(Target::AtLeast(0.80)),
            Self::RequestResponse { quantile: 0.5, ends: Cpus::Two } => Some(Target::AtMost(1.05)),
            Self::RequestResponse { .. } => None,
        }
    }
}

/// A host with two NICs that are cabled to a peer.
struct Place {
    over: Over,
    host: NetNs,
    peer: NetNs,
}

fn main() -> Result<()> {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let (rounds, period) = if has("--quick") { (1, QUICK_PERIOD) } else { (ROUNDS, PERIOD) };
    let drivers = [Over::Driver, Over::Team];
    let drivers = drivers.into_iter().filter(|_| has("--drivers"));
    let wanted = [Over::Slave, Over::XbondVeth, Over::XbondNetkit, Over::XbondXdp];
    let mut over = Vec::new();
    for wanted in wanted.into_iter().chain(drivers) {
        match wanted.kind() {
            Some(kind) if !is_there(kind)? => eprintln!("skipped: {}: this kernel has none", wanted.name()),
            _ => over.push(wanted),
        }
    }
    let places: Vec<Place> = over.into_iter().map(Place::new).collect::<Result<_>>()?;
    let agents: Vec<_> = places.iter().map(Place::set_up).collect::<Result<_>>()?;
    for place in &places {
        bonded::wait_for_path(&place.host, &place.peer).context(place.over.name())?;
    }
    let mut measured = Measured::default();
    for load in Load::all() {
        let mut of_place = vec![Vec::new(); places.len()];
        for round in 0..rounds {
            // Each place comes first equally often.
            for turn in 0..places.len() {
                let index = (round + turn) % places.len();
                let value = places[index].measure(load, period);
                let value =
                    value.with_context(|| format!("{} over {}", load.name(), places[index].over.name()))?;
                of_place[index].push(value);
            }
        }
        measured.figures.extend(figures(load, &places, &of_place));
    }
    for agent in agents.into_iter().flatten() {
        agent.stop()?;
    }
    measured.print();
    Ok(())
}

/// Returns the figures of each place, and its ratio to the first one round by round; for xbond by tc also the ratio
/// to the driver.
fn figures(load: Load, places: &[Place], of_place: &[Vec<f64>]) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (place, rounds) in places.iter().zip(of_place) {
        let figure = Figure::of(&load.name(), place.over.name(), load.unit(), rounds);
        eprintln!("{}: {}: {:.3} {}", load.name(), figure.name, figure.value, figure.unit);
        figures.push(figure);
        if place.over == Over::Slave {
            continue;
        }
        let to = |other: &[f64]| -> Vec<f64> {
            rounds.iter().zip(other).map(|(own, other)| own / other).collect()
        };
        let mut ratio = Figure::of(&load.name(), place.over.name(), "of the slave", &to(&of_place[0]));
        ratio.target = load.target().filter(|_| place.over.is_tc() && rounds.len() > 1);
        eprintln!("{}: {}: {:.3} of the slave", load.name(), ratio.name, ratio.value);
        figures.push(ratio);
        let driver = places.iter().position(|place| place.over == Over::Driver);
        if let Some(driver) = driver.filter(|_| place.over.is_tc()) {
            let name = place.over.name();
            figures.push(Figure::of(&load.name(), name, "of the kernel's bond", &to(&of_place[driver])));
        }
    }
    figures
}

impl Place {
    fn new(over: Over) -> Result<Self> {
        let stem = netns::unique_stem();
        let host = NetNs::create(&format!("{stem}-host"))?;
        let peer = NetNs::create(&format!("{stem}-peer"))?;
        for (nic, port) in NICS {
            let (host, other) = (&host, peer.name());
            host.ip(&format!("link add {nic} type veth peer name {port} netns {other}"))?;
            if over == Over::XbondXdp {
                // On a wire checksums are complete, and a veth accepts redirected frames only with NAPI.
                peer.exec(&format!("ethtool -K {port} tx off gro on"))?;
            }
            peer.ip(&format!("link set {port} up"))?;
        }
        peer.ip(&format!("address add {PEER_V4}/24 dev {}", NICS[0].1))?;
        Ok(Self { over, host, peer })
    }

    /// Adds the host's address to the measured device.
    fn set_up(&self) -> Result<Option<Xbond<'_>>> {
        let address = format!("{HOST_V4}/24");
        if let Some([datapath, pair]) = self.over.xbond() {
            let mut arguments = vec!["--bond", "bond0", "--datapath", datapath, "--pair", pair];
            arguments.extend(["-o", "miimon=100", "--address", &address]);
            arguments.extend(NICS.iter().flat_map(|(nic, _)| ["--slave", nic]));
            return Xbond::run(&self.host, arguments).map(Some);
        }
        let device = match self.over {
            Over::Driver => {
                self.host.ip("link add bond0 type bond mode active-backup miimon 100")?;
                for (nic, _) in NICS {
                    self.host.ip(&format!("link set {nic} master bond0"))?;
                }
                "bond0"
            }
            Over::Team => {
                // Its daemon would set the MAC address of the ports.
                let active = self.host.link(NICS[0].0)?;
                self.host.ip(&format!("link add team0 address {} type team", active.mac))?;
                self.host.exec("teamnl team0 setoption mode activebackup")?;
                for (nic, _) in NICS {
                    self.host.ip(&format!("link set {nic} master team0"))?;
                    self.host.ip(&format!("link set {nic} up"))?;
                }
                self.host.exec(&format!("teamnl team0 setoption activeport {}", active.ifindex))?;
                "team0"
            }
            Over::Slave | Over::XbondVeth | Over::XbondNetkit | Over::XbondXdp => NICS[0].0,
        };
        self.host.ip(&format!("address add {address} dev {device}"))?;
        self.host.ip(&format!("link set {device} up"))?;
        Ok(None)
    }

    /// Returns the sender and the receiver.
    fn ends(&self, direction: Direction) -> [(&NetNs, Ipv4Addr); 2] {
        let (host, peer) = ((&self.host, HOST_V4), (&self.peer, PEER_V4));
        match direction {
            Direction::ToPeer => [host, peer],
            Direction::ToHost => [peer, host],
        }
    }

    fn measure(&self, load: Load, period: Duration) -> Result<f64> {
        match load {
            Load::Tcp { streams, direction } => tcp(self.ends(direction), streams, period),
            Load::Udp { direction } => udp(self.ends(direction), period),
            Load::RequestResponse { quantile, ends } => {
                request_response(self.ends(Direction::ToPeer), ends, quantile, period)
            }
        }
    }
}

/// Opens connections between two namespaces; returns the connecting and the accepting ends.
fn connect([from, to]: [(&NetNs, Ipv4Addr); 2], count: usize) -> Result<Vec<(TcpStream, TcpStream)>> {
    let listener = to.0.run(|| Ok(TcpListener::bind((to.1, 0))?))?;
    let target = listener.local_addr()?;
    let pair = |_| {
        let stream = from.0.run(|| Ok(TcpStream::connect_timeout(&target, xbond_tests::WAIT_LIMIT)?))?;
        Ok((stream, listener.accept()?.0))
    };
    (0..count).map(pair).collect()
}

/// Returns Gbit/s of payload.
fn tcp(ends: [(&NetNs, Ipv4Addr); 2], streams: usize, period: Duration) -> Result<f64> {
    let received = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    // The scheduler places several streams.
    let (alone, [from, to]) = (streams == 1, Cpus::Two.of_ends());
    for (mut sender, mut receiver) in connect(ends, streams)? {
        let stop = stop.clone();
        workers.push(thread::spawn(move || {
            alone.then(|| stay_on(from)).transpose()?;
            let chunk = vec![0x5a; CHUNK];
            while !stop.load(Relaxed) {
                sender.write_all(&chunk)?;
            }
            sender.shutdown(std::net::Shutdown::Write)
        }));
        let received = received.clone();
        workers.push(thread::spawn(move || {
            alone.then(|| stay_on(to)).transpose()?;
            let mut buffer = vec![0; CHUNK];
            loop {
                match receiver.read(&mut buffer)? {
                    0 => return Ok(()),
                    length => drop(received.fetch_add(length as u64, Relaxed)),
                }
            }
        }));
    }
    let rate = rate(period, || Ok(received.load(Relaxed)));
    stop.store(true, Relaxed);
    for worker in workers {
        worker.join().map_err(|_| anyhow!("a worker panicked"))??;
    }
    let rate = rate?;
    ensure!(rate > 0.0, "nothing arrived");
    Ok(rate * 8.0 / 1e9)
}

/// Returns the packets/s that reach the receiver's socket, whether its buffer is full or not.
fn udp([from, to]: [(&NetNs, Ipv4Addr); 2], period: Duration) -> Result<f64> {
    let receiver = to.0.run(|| Ok(UdpSocket::bind((to.1, 0))?))?;
    receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
    let target: SocketAddr = receiver.local_addr()?;
    let sender = from.0.run(|| Ok(UdpSocket::bind((from.1, 0))?))?;
    sender.connect(target)?;
    let stop = Arc::new(AtomicBool::new(false));
    let [first, second] = Cpus::Two.of_ends();
    let sending = thread::spawn({
        let stop = stop.clone();
        move || -> io::Result<()> {
            stay_on(first)?;
            while !stop.load(Relaxed) {
                // A full queue refuses a packet at times.
                let _ = sender.send(&[0x5a; DATAGRAM]);
            }
            Ok(())
        }
    });
    let receiving = thread::spawn({
        let stop = stop.clone();
        move || -> io::Result<()> {
            stay_on(second)?;
            let mut buffer = [0; DATAGRAM];
            while !stop.load(Relaxed) {
                // Its time-out serves to check whether the period is over.
                let _ = receiver.recv(&mut buffer);
            }
            Ok(())
        }
    });
    let rate = rate(period, || to.0.run(datagrams));
    stop.store(true, Relaxed);
    for worker in [sending, receiving] {
        worker.join().map_err(|_| anyhow!("a worker panicked"))??;
    }
    let rate = rate?;
    ensure!(rate > 0.0, "nothing arrived");
    Ok(rate)
}

/// Returns the datagrams that the sockets of this thread's namespace have received, and those for which they had no
/// space.
fn datagrams() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (names, values) = lines.next().zip(lines.next()).context("no UDP counters")?;
    let counters = names.split(' ').zip(values.split(' '));
    let wanted = counters.filter(|(name, _)| ["InDatagrams", "RcvbufErrors"].contains(name));
    wanted.map(|(_, value)| Ok(value.parse::<u64>()?)).sum()
}

/// Returns the microseconds from a request of one byte to its response of one byte.
fn request_response(ends: [(&NetNs, Ipv4Addr); 2], cpus: Cpus, wanted: f64, period: Duration) -> Result<f64> {
    let [asker, answerer] = cpus.of_ends();
    let (mut asking, mut answering) = connect(ends, 1)?.pop().context("no connection")?;
    asking.set_nodelay(true)?;
    answering.set_nodelay(true)?;
    let answers = thread::spawn(move || -> io::Result<()> {
        stay_on(answerer)?;
        let mut byte = [0];
        while answering.read_exact(&mut byte).is_ok() {
            answering.write_all(&byte)?;
        }
        Ok(())
    });
    let asks = thread::spawn(move || -> io::Result<Vec<f64>> {
        stay_on(asker)?;
        let mut took = Vec::new();
        let (begin, mut byte) = (Instant::now(), [0x5a]);
        while begin.elapsed() < WARM_UP + period {
            let start = Instant::now();
            asking.write_all(&byte)?;
            asking.read_exact(&mut byte)?;
            if begin.elapsed() > WARM_UP {
                took.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        Ok(took)
    });
    let mut took = asks.join().map_err(|_| anyhow!("a worker panicked"))??;
    answers.join().map_err(|_| anyhow!("a worker panicked"))??;
    ensure!(!took.is_empty(), "nothing was answered");
    took.sort_by(f64::total_cmp);
    Ok(quantile(&took, wanted))
}

/// Returns how fast a counter increases per second, once it has begun to.
fn rate(period: Duration, count: impl Fn() -> Result<u64>) -> Result<f64> {
    let begun = count()?;
    bonded::wait_until("the first data", || Ok(count()? > begun))?;
    thread::sleep(WARM_UP);
    let (start, before) = (Instant::now(), count()?);
    thread::sleep(period);
    Ok((count()? - before) as f64 / start.elapsed().as_secs_f64())
}
