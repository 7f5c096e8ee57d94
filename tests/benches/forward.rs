//! Measures how many packets per second a bond forwards between a port and the wire, with one frame per packet.
//!
//! ```text
//!  lan                  box                                   wire
//!    lan0 ------------- port -- (the bond) -- enp0s8 -------- far0
//!                                         \-- enp0s9 -------- far1
//! ```
//!
//! XDP test runs in `lan` and `wire` create frames, which leave by lan0 or far0; the frames that arrive at the other
//! end are counted and dropped there. All of it happens on one CPU.

mod raw;

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{
    TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{DevMap, Map, MapData},
    programs::{LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode, tc::TcAttachOptions},
};
use aya_obj::{generated::bpf_map_type, programs::XdpAttachType};
use bond_user::sys::dataplane::Hook;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use xbond_tests::{
    Mac, NetNs, Xbond, bonded,
    figures::{Figure, Measured, Target},
    frames::{IPV4, ethernet},
    netns, time_is_no_measure,
};

const ROUNDS: usize = 9;
const PACKETS: u32 = 600_000;
const QUICK_PACKETS: u32 = 2_000;
const EMULATED_PACKETS: u32 = 60_000;
/// The batch size of NAPI.
const BATCH: u32 = 64;
const LAN: Mac = Mac::new([2, 0, 0, 0, 0, 0x99]);
const FAR: Mac = Mac::new([2, 0, 0, 0, 0, 0x77]);
const NICS: [(&str, &str); 2] = [("enp0s8", "far0"), ("enp0s9", "far1")];

/// What forwards between port and slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    /// A program that redirects everything to the device of a devmap.
    Devmap,
    XbondXdp,
    XbondTc,
    /// A program that redirects everything into the kernel's bond, and one on that bond.
    Driver,
    /// A bridge with the port and the kernel's bond.
    Bridge,
}

impl Over {
    fn name(self) -> &'static str {
        match self {
            Self::Devmap => "a bare devmap redirect",
            Self::XbondXdp => "xbond xdp",
            Self::XbondTc => "xbond tc",
            Self::Driver => "a redirect into the kernel's bond",
            Self::Bridge => "a bridge onto the kernel's bond",
        }
    }

    /// Returns whether it transmits skbs instead of frames.
    fn is_skb(self) -> bool {
        matches!(self, Self::XbondTc | Self::Bridge)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    ToWire,
    ToPort,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::ToWire => "forward: from port to wire",
            Self::ToPort => "forward: from wire to port",
        }
    }
}

struct Place {
    over: Over,
    lan: NetNs,
    inside: NetNs,
    wire: NetNs,
    /// Pins of the programs, while they are passed to aya.
    pin: PathBuf,
}

fn main() -> Result<()> {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let (rounds, packets) = match (has("--quick"), time_is_no_measure()) {
        (true, _) => (1, QUICK_PACKETS),
        (false, None) => (ROUNDS, PACKETS),
        (false, Some(_)) => (ROUNDS, EMULATED_PACKETS),
    };
    stay_on_one_cpu()?;
    let drivers = [Over::Driver, Over::Bridge].into_iter().filter(|_| has("--drivers"));
    let over = [Over::Devmap, Over::XbondXdp, Over::XbondTc].into_iter().chain(drivers);
    let places: Vec<Place> = over.map(Place::new).collect::<Result<_>>()?;
    let agents: Vec<_> = places.iter().map(Place::set_up).collect::<Result<_>>()?;
    let ends: Vec<_> = places.iter().map(Ends::new).collect::<Result<_>>()?;
    let mut measured = Measured::default();
    for direction in [Direction::ToWire, Direction::ToPort] {
        let mut of_place = vec![Vec::new(); places.len()];
        for round in 0..rounds {
            // Each place comes first equally often.
            for turn in 0..places.len() {
                let index = (round + turn) % places.len();
                let rate = ends[index].measure(&places[index], direction, packets);
                of_place[index]
                    .push(rate.with_context(|| format!("{direction:?}, {}", places[index].over.name()))?);
            }
        }
        measured.figures.extend(figures(direction, &places, &of_place));
    }
    drop(ends);
    for agent in agents.into_iter().flatten() {
        agent.stop()?;
    }
    measured.print();
    Ok(())
}

fn figures(direction: Direction, places: &[Place], of_place: &[Vec<f64>]) -> Vec<Figure> {
    let of = |over: Over| {
        let index = places.iter().position(|place| place.over == over);
        index.map_or(&[][..], |index| &of_place[index])
    };
    let group = direction.name();
    let mut figures: Vec<_> = places
        .iter()
        .zip(of_place)
        .map(|(place, rounds)| Figure::of(group, place.over.name(), "packets/s", rounds))
        .collect();
    let ratio = |name: &str, unit: &str, a: Over, b: Over, least: f64| {
        let ratios: Vec<f64> = of(a).iter().zip(of(b)).map(|(a, b)| a / b).collect();
        let figure = Figure::of(group, name, unit, &ratios);
        if ratios.len() > 1 { figure.with_target(Target::AtLeast(least)) } else { figure }
    };
    figures.push(ratio("xbond xdp", "of a bare devmap redirect", Over::XbondXdp, Over::Devmap, 0.95));
    figures.push(ratio("xbond xdp", "times xbond tc", Over::XbondXdp, Over::XbondTc, 3.0));
    if !of(Over::Driver).is_empty() {
        let unit = "times a redirect into the kernel's bond";
        figures.push(ratio("xbond xdp", unit, Over::XbondXdp, Over::Driver, 1.0));
        figures.push(ratio(
            "xbond tc",
            "times a bridge onto the kernel's bond",
            Over::XbondTc,
            Over::Bridge,
            1.0,
        ));
    }
    for figure in &figures {
        eprintln!("{group}: {}: {:.3} {}", figure.name, figure.value, figure.unit);
    }
    figures
}

impl Place {
    fn new(over: Over) -> Result<Self> {
        let stem = netns::unique_stem();
        let netns = |role: &str| NetNs::create(&format!("{stem}-{role}"));
        let place = Self {
            over,
            lan: netns("lan")?,
            inside: netns("box")?,
            wire: netns("wire")?,
            pin: Path::new("/sys/fs/bpf").join(format!("xbond_{stem}")),
        };
        for netns in [&place.lan, &place.inside, &place.wire] {
            // Only the benchmark sends.
            netns.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        }
        let cables = [
            ("port", &place.lan, "lan0"),
            (NICS[0].0, &place.wire, NICS[0].1),
            (NICS[1].0, &place.wire, NICS[1].1),
        ];
        for (device, other, far) in cables {
            place
                .inside
                .ip(&format!("link add {device} type veth peer name {far} netns {}", other.name()))?;
            place.inside.ip(&format!("link set {device} up"))?;
            other.ip(&format!("link set {far} up"))?;
            // A veth accepts redirected frames only with NAPI, which GRO enables.
            place.inside.exec(&format!("ethtool -K {device} gro on"))?;
            other.exec(&format!("ethtool -K {far} gro on"))?;
        }
        place.lan.ip(&format!("link set lan0 address {LAN}"))?;
        place.wire.ip(&format!("link set far0 address {FAR}"))?;
        Ok(place)
    }

    /// Starts the agent, unless two programs do the forwarding.
    fn set_up(&self) -> Result<Option<Xbond<'_>>> {
        let datapath = match self.over {
            Over::XbondXdp => "xdp",
            Over::XbondTc => "tc",
            Over::Devmap => return self.join(NICS[0].0).map(|()| None),
            Over::Driver => {
                self.enslave()?;
                return self.join("bond0").map(|()| None);
            }
            Over::Bridge => {
                self.enslave()?;
                self.inside.ip("link add br0 type bridge")?;
                self.inside.ip("link set br0 up")?;
                for device in ["port", "bond0"] {
                    self.inside.ip(&format!("link set {device} master br0"))?;
                }
                return Ok(None);
            }
        };
        let mut arguments =
            vec!["--bond", "bond0", "--port", "port", "--datapath", datapath, "-o", "miimon=100"];
        arguments.extend(NICS.iter().flat_map(|(nic, _)| ["--slave", nic]));
        Xbond::run(&self.inside, arguments).map(Some)
    }

    /// Enslaves the slaves of the kernel's bond.
    fn enslave(&self) -> Result<()> {
        self.inside.ip("link add bond0 type bond mode active-backup miimon 100")?;
        for (nic, _) in NICS {
            self.inside.ip(&format!("link set {nic} down"))?;
            self.inside.ip(&format!("link set {nic} master bond0"))?;
        }
        self.inside.ip("link set bond0 up")?;
        bonded::wait_until("the bond's carrier", || Ok(self.inside.link("bond0")?.operstate == "UP"))
    }

    /// Connects port and wire by two bare redirects; they stay as long as the devices.
    fn join(&self, wire: &str) -> Result<()> {
        for (from, to) in [("port", wire), (wire, "port")] {
            let map = devmap(&self.inside, to)?;
            let redirect = raw::load(Hook::Xdp, &raw::redirect_map(map.fd().as_fd()))?;
            self.attach_xdp(&self.inside, from, &redirect)?;
        }
        Ok(())
    }

    fn with_pin<T>(&self, loaded: &raw::Loaded, take: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        loaded.pin(&self.pin)?;
        let taken = take(&self.pin);
        std::fs::remove_file(&self.pin)?;
        taken
    }

    fn attach_xdp(&self, netns: &NetNs, device: &str, loaded: &raw::Loaded) -> Result<()> {
        self.with_pin(loaded, |pin| {
            let mut program = Xdp::from_pin(pin, XdpAttachType::Interface)?;
            netns.run(|| {
                let id = program.attach(device, XdpMode::Driver)?;
                // The device keeps it attached.
                std::mem::forget(program.take_link(id)?);
                Ok(())
            })
        })
    }

    fn attach_tc(&self, netns: &NetNs, device: &str, loaded: &raw::Loaded) -> Result<()> {
        self.with_pin(loaded, |pin| {
            let mut program = SchedClassifier::from_pin(pin)?;
            netns.run(|| {
                let first = TcAttachOptions::TcxOrder(LinkOrder::first());
                let id = program.attach_with_options(device, TcAttachType::Ingress, first)?;
                std::mem::forget(program.take_link(id)?);
                Ok(())
            })
        })
    }
}

/// Creates a devmap with one device.
fn devmap(netns: &NetNs, device: &str) -> Result<MapData> {
    netns.run(|| {
        let wanted = aya_obj::Map::new_from_params(bpf_map_type::BPF_MAP_TYPE_DEVMAP as u32, 4, 8, 1, 0);
        let data = MapData::create(wanted, "ports", None)?;
        let ifindex = nix::net::if_::if_nametoindex(device)?;
        let pin = format!("/sys/fs/bpf/xbond_bench_ports_{}", std::process::id());
        data.pin(&pin)?;
        let taken = MapData::from_pin(&pin);
        std::fs::remove_file(&pin)?;
        let mut map = DevMap::try_from(Map::DevMap(taken?))?;
        map.set(0, ifindex, None, 0)?;
        Ok(data)
    })
}

/// The sources and counters of frames at both ends of a place.
struct Ends {
    lan: Xdp,
    far: Xdp,
}

impl Ends {
    fn new(place: &Place) -> Result<Self> {
        for (netns, device) in [(&place.lan, "lan0"), (&place.wire, NICS[0].1)] {
            // A frame that leaves by tc arrives as an skb, which would have to be converted for an XDP program.
            if place.over.is_skb() {
                place.attach_tc(netns, device, &raw::load(Hook::Tc, &raw::empty(TC_ACT_SHOT))?)?;
            } else {
                place.attach_xdp(netns, device, &raw::load(Hook::Xdp, &raw::empty(XDP_DROP))?)?;
            }
        }
        let source = |netns: &NetNs, device: &str| {
            let map = devmap(netns, device)?;
            let redirect = raw::load(Hook::Xdp, &raw::redirect_map(map.fd().as_fd()))?;
            place.with_pin(&redirect, |pin| Ok(Xdp::from_pin(pin, XdpAttachType::Interface)?))
        };
        Ok(Self { lan: source(&place.lan, "lan0")?, far: source(&place.wire, NICS[0].1)? })
    }

    /// Returns the packets/s that reach the other end.
    fn measure(&self, place: &Place, direction: Direction, packets: u32) -> Result<f64> {
        let (from, source, to, sink, frame) = match direction {
            Direction::ToWire => (&place.lan, &self.lan, &place.wire, NICS[0].1, ethernet(FAR, LAN, IPV4)),
            Direction::ToPort => (&place.wire, &self.far, &place.lan, "lan0", ethernet(LAN, FAR, IPV4)),
        };
        let before = received(to, sink)?;
        let start = Instant::now();
        from.run(|| {
            let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let options =
                TestRunOptions { data_in: Some(&frame), repeat: packets, attrs, ..TestRunOptions::default() };
            source.test_run(options).map_err(|error| anyhow!("live frames: {error:?}")).map(drop)
        })?;
        let took = start.elapsed();
        let arrived = || -> Result<u64> { Ok(received(to, sink)? - before) };
        bonded::wait_until("the last packets", || Ok(arrived()? >= u64::from(packets) * 99 / 100))
            .with_context(|| format!("{} of {packets} packets arrived", arrived().unwrap_or_default()))?;
        ensure!(took > Duration::ZERO);
        Ok(arrived()? as f64 / took.as_secs_f64())
    }
}

const TC_ACT_SHOT: i32 = 2;
const XDP_DROP: i32 = 1;

/// Returns the packets that a device has received, including dropped ones.
fn received(netns: &NetNs, device: &str) -> Result<u64> {
    let json: serde_json::Value =
        serde_json::from_str(&netns.ip(&format!("-json -statistics link show dev {device}"))?)?;
    json[0]["stats64"]["rx"]["packets"].as_u64().context("no counter of received packets")
}

/// Uses the last CPU: interrupts usually run on the first one.
fn stay_on_one_cpu() -> Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    set.set(cpus - 1)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one CPU")
}
