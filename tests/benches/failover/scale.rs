//! Measures one agent with many bonds: its cost while nothing happens, and how fast all bonds fail over.

use std::{
    fmt::Write as _,
    fs, io,
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bond_common::abi::Slot;
use bond_core::name::BondName;
use bond_user::{store::paths::Paths, sys::dataplane::Maps};
use tempfile::NamedTempFile;
use xbond_tests::{LinkWatch, NetNs, WAIT_LIMIT, Xbond, netns};

use crate::{
    Options, Scene,
    row::{Row, ms},
};

const SLAVES: usize = 4;
/// How long all bonds together may take to come up.
const BRING_UP: Duration = Duration::from_secs(120);
/// Time between two polls of ACTIVE of all bonds.
const POLL_INTERVAL: Duration = Duration::from_micros(100);
/// Percentage of a core's clock ticks.
const MOST_CPU: f64 = 0.5;
/// Time after failovers until the memory for them is returned.
const SETTLED: Duration = Duration::from_secs(8);
/// MiB
const MOST_MEMORY: f64 = 32.0;
/// Milliseconds after the kernel's last link notification.
const MOST_DELAY: f64 = 20.0;

pub fn scenes(options: &Options) -> Vec<Scene> {
    let bonds = if options.quick { 8 } else { 64 };
    let scene = |clock: &'static str| {
        let name =
            format!("{bonds} bonds of {SLAVES} slaves{}", if clock == "off" { ", clock off" } else { "" });
        Scene::new("one agent", &name, move |row, options| measure(row, options, bonds, clock))
    };
    vec![scene("auto"), scene("off")]
}

/// NICs of many hosts in one namespace, each with its far end in another.
struct Place {
    host: NetNs,
    far: NetNs,
    /// For every bond the ifindexes of its slaves.
    indices: Vec<Vec<u32>>,
}

fn nic(bond: usize, slave: usize) -> String {
    format!("n{bond}x{slave}")
}

fn far_end(bond: usize, slave: usize) -> String {
    format!("f{bond}x{slave}")
}

impl Place {
    fn new(bonds: usize) -> Result<Self> {
        let stem = netns::unique_stem();
        let host = NetNs::create(&format!("{stem}-host"))?;
        let far = NetNs::create(&format!("{stem}-far"))?;
        let each = || (0..bonds).flat_map(|bond| (0..SLAVES).map(move |slave| (bond, slave)));
        let made = each().map(|(bond, slave)| {
            let (nic, end, netns) = (nic(bond, slave), far_end(bond, slave), far.name());
            format!("link add {nic} type veth peer name {end} netns {netns}")
        });
        batch(&host, made)?;
        batch(&far, each().map(|(bond, slave)| format!("link set {} up", far_end(bond, slave))))?;
        let links = host.links()?;
        let index = |name: String| {
            let found = links.iter().find(|link| link.name == name);
            found.map(|link| link.ifindex).with_context(|| format!("no {name}"))
        };
        let of_bond = |bond| (0..SLAVES).map(|slave| index(nic(bond, slave))).collect();
        let indices = (0..bonds).map(of_bond).collect::<Result<Vec<_>>>()?;
        Ok(Self { host, far, indices })
    }

    fn bonds(&self) -> usize {
        self.indices.len()
    }

    fn configuration(&self, clock: &str) -> Result<NamedTempFile> {
        let mut text = String::from("version = 1\n");
        for bond in 0..self.bonds() {
            let slaves: Vec<_> = (0..SLAVES).map(|slave| nic(bond, slave)).collect();
            writeln!(text, "[bond.b{bond}]\nslaves = {slaves:?}\nmiimon = 100\nfail_over_mac = \"active\"")?;
            writeln!(text, "clock = \"{clock}\"")?;
            writeln!(text, "addresses = [\"10.{}.{}.1/24\"]", bond / 256, bond % 256)?;
        }
        let mut file = NamedTempFile::with_suffix(".toml").context("cannot make a file")?;
        file.write_all(text.as_bytes())?;
        Ok(file)
    }
}

/// Runs many commands of `ip` at once.
fn batch(netns: &NetNs, lines: impl Iterator<Item = String>) -> Result<()> {
    let mut file = NamedTempFile::new().context("cannot make a file")?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    netns.ip(&format!("-batch {}", file.path().display())).map(drop)
}

fn measure(row: &mut Row, options: &Options, bonds: usize, clock: &str) -> Result<()> {
    let place = Place::new(bonds)?;
    let configuration = place.configuration(clock)?;
    let start = Instant::now();
    let path = configuration.path().to_str().context("a path of UTF-8")?;
    let xbond = Xbond::start(&place.host, ["--config", path])?;
    let last = format!("b{} ready", bonds - 1);
    while !xbond.log().contains(&last) {
        ensure!(start.elapsed() < BRING_UP, "the bonds are not up within {BRING_UP:?}:\n{}", xbond.log());
        if xbond.log().contains("xbond: ") {
            bail!("the bonds do not come up:\n{}", xbond.log());
        }
        thread::sleep(Duration::from_millis(20));
    }
    row.number("bring-up, s", start.elapsed().as_secs_f64());

    let idle = Duration::from_secs(if options.quick { 2 } else { 20 });
    thread::sleep(Duration::from_secs(2));
    let (begin, before, busy) = (Instant::now(), cpu(xbond.pid())?, machine_busy()?);
    thread::sleep(idle);
    let percent = |time: Duration| 100.0 * time.as_secs_f64() / begin.elapsed().as_secs_f64();
    row.at_most("idle, % of a core", percent(cpu(xbond.pid())? - before), MOST_CPU);
    // The kernel's part, of the clocks among others, and all other processes are in this.
    row.number("idle, the whole machine, % of a core", percent(machine_busy()?.saturating_sub(busy)));
    let memory = |key| memory(xbond.pid(), key);
    row.at_most("memory, MiB", memory("VmRSS")?, MOST_MEMORY);
    row.number("of it its own, MiB", memory("RssAnon")?);
    row.number("of it shared, MiB", memory("RssShmem")?);

    let cookie = place.host.cookie()?;
    let open = |bond| Ok(Maps::open(&Paths::of(cookie).pins_of(&BondName::new(format!("b{bond}"))?))?);
    let maps = (0..bonds).map(open).collect::<Result<Vec<_>>>()?;
    let rounds = if options.quick { 1 } else { options.cuts.div_ceil(10) };
    let (mut all, mut each) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (last, own) = cut_all(&place, &maps).with_context(|| format!("round {round}"))?;
        all.push(last);
        each.extend(own);
    }
    row.number("rounds", rounds as f64);
    row.spread("last failover after the last event", "ms", &all, Some(MOST_DELAY));
    row.spread("each failover after its event", "ms", &each, None);
    thread::sleep(SETTLED);
    row.at_most("memory after it, MiB", memory("VmRSS")?, MOST_MEMORY);
    let start = Instant::now();
    xbond.stop_at_length()?;
    row.number("teardown, s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Cuts the active slaves of all bonds. Returns the milliseconds from the last event to the last failover, and for
/// each bond those from its event to its failover.
fn cut_all(place: &Place, maps: &[Maps]) -> Result<(f64, Vec<f64>)> {
    let active = |maps: &Maps| maps.active().active().context("a bond without an active slave");
    let before = maps.iter().map(active).collect::<Result<Vec<Slot>>>()?;
    let watch = LinkWatch::start(&place.host)?;
    let ports: Vec<String> =
        before.iter().enumerate().map(|(bond, slot)| far_end(bond, slot.index())).collect();
    let start = Instant::now();
    let moved = thread::scope(|scope| {
        let watching = scope.spawn(|| watch_active(maps, &before));
        let lines = ports.iter().map(|port| format!("link set {port} down"));
        batch(&place.far, lines)?;
        watching.join().map_err(|_| io::Error::other("the watcher panicked"))?
    })?;
    let index = |(bond, slot): (usize, &Slot)| place.indices[bond][slot.index()];
    let reported = before.iter().enumerate().map(index);
    let reported = reported.map(|ifindex| watch.wait_for(start, ifindex, false, WAIT_LIMIT));
    let reported = reported.collect::<Result<Vec<Instant>>>()?;
    let last = |times: &[Instant]| times.iter().max().copied().context("no bonds");
    let since = |later: Instant, earlier: Instant| ms(later.saturating_duration_since(earlier));
    let answer = since(last(&moved)?, last(&reported)?);
    let each = moved.iter().zip(&reported).map(|(&moved, &reported)| since(moved, reported)).collect();

    batch(&place.far, ports.iter().map(|port| format!("link set {port} up")))?;
    let deadline = Instant::now() + WAIT_LIMIT;
    let is_back = |(maps, slot): (&Maps, &Slot)| maps.active().usable() & slot.bit() != 0;
    while !maps.iter().zip(&before).all(is_back) {
        ensure!(Instant::now() < deadline, "not all slaves came back within {WAIT_LIMIT:?}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok((answer, each))
}

/// Returns when each bond's active slave had changed.
fn watch_active(maps: &[Maps], before: &[Slot]) -> Result<Vec<Instant>> {
    let deadline = Instant::now() + WAIT_LIMIT;
    let mut moved = vec![None; maps.len()];
    while moved.iter().any(Option::is_none) {
        for ((maps, before), moved) in maps.iter().zip(before).zip(&mut moved) {
            if moved.is_none() && maps.active().active() != Some(*before) {
                *moved = Some(Instant::now());
            }
        }
        let left = moved.iter().filter(|moved| moved.is_none()).count();
        ensure!(Instant::now() < deadline, "{left} bonds did not fail over within {WAIT_LIMIT:?}");
        thread::sleep(POLL_INTERVAL);
    }
    Ok(moved.into_iter().flatten().collect())
}

/// Returns user and system time of a process.
fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read its times")?;
    // After the name, which is in parentheses and may contain any bytes.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11..13).context("no times")?.iter().map(|field| Ok(field.parse::<u64>()?));
    let ticks: u64 = ticks.sum::<Result<u64>>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

/// Returns the time that all CPUs together were not idle since the machine was started.
fn machine_busy() -> Result<Duration> {
    /// USER_HZ of every architecture that Linux has today.
    const TICK: Duration = Duration::from_millis(10);
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line =
        text.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("no line of all CPUs")?;
    let fields = line.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
    // user nice system idle iowait irq softirq steal, and times that user and nice contain.
    let busy: u32 = [0, 1, 2, 5, 6].iter().filter_map(|&field| fields.get(field)).sum();
    Ok(TICK * busy)
}

/// Returns a figure of a process's memory in MiB.
fn memory(pid: u32, key: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read its memory")?;
    let mut lines = status.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let text = lines.next().with_context(|| format!("no {key}"))?;
    let kib: f64 = text.trim().trim_end_matches(" kB").parse().context("no number")?;
    Ok(kib / 1024.0)
}
