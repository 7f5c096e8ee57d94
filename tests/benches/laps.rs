//! Measures the pace of the clock in the kernel: at rest, and while every CPU and the network are busy. The agent is dead.
//!
//! Arguments: `--quick` measures for a few seconds, and fails if the clock stands still; `--minutes N` sets for how long the
//! clock is measured under load (10), at a period of 10 ms; a period of 1 ms, and a machine at rest, for a tenth of that.

use std::{
    net::{IpAddr, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bond_common::clock::layout::TickEntry;
use bond_user::sys::{dataplane::Maps, directory::Location};
use xbond_tests::{
    HOST_V4, Lab, NetNs, PEER_V4, Policy, Xbond,
    figures::{Figure, Measured, Target},
    lab::Datapath,
    xbond::cli,
};

const BOND: &str = "bond0";
/// Threads that do nothing but take a CPU.
const HOGS: usize = 5;
/// Bytes of the packets of the flood.
const PAYLOAD: usize = 64;
const PERIODS: [u64; 2] = [10, 1];
/// Laps of those that should have been, in per cent.
const FEWEST: f64 = 99.0;

struct Options {
    quick: bool,
    /// At a period of 10 ms under load.
    time: Duration,
}

impl Options {
    fn parse() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let quick = arguments.iter().any(|argument| argument == "--quick");
        let minutes = match arguments.iter().position(|argument| argument == "--minutes") {
            Some(place) => {
                arguments.get(place + 1).context("--minutes without a value")?.parse().context("--minutes")?
            }
            None => 10,
        };
        let time = if quick { Duration::from_secs(20) } else { Duration::from_secs(60 * minutes) };
        Ok(Self { quick, time })
    }
}

fn main() -> Result<()> {
    if let Some(obstacle) = xbond_tests::obstacle() {
        bail!("this benchmark {obstacle}");
    }
    let options = Options::parse()?;
    let mut measured = Measured::default();
    for period in PERIODS {
        let lab = Lab::builder().switch(Policy::Learning).datapath(Datapath::Tc).build()?;
        let maps = orphaned(&lab, period)?;
        let short = options.time / 10;
        let long = if period == PERIODS[0] { options.time } else { short };
        measured.add(row(&maps, &format!("{period} ms, at rest"), period, short)?);
        let load = Load::start(&lab)?;
        measured.add(row(&maps, &format!("{period} ms, {HOGS} hogs and a UDP flood"), period, long)?);
        let packets = load.stop();
        eprintln!("{period} ms: {packets} packets of the flood were sent");
        cli(&lab.host, ["down", BOND, "--force"])?;
    }
    measured.print();
    let is_reached = |figure: &Figure| figure.is_reached() != Some(false);
    ensure!(
        !options.quick || measured.figures.iter().all(is_reached),
        "the clock is slower than it should be"
    );
    Ok(())
}

/// Brings bond0 up with a clock of this period, in ms, and kills its agent.
fn orphaned(lab: &Lab, period: u64) -> Result<Maps> {
    let (address, interval) = (format!("{HOST_V4}/24"), format!("clock_interval={period}"));
    let mut line = vec!["--bond", BOND, "--address", &address, "-o", "miimon=100", "-o", &interval];
    line.extend(lab.nics.iter().flat_map(|nic| ["--slave", nic.name.as_str()]));
    let xbond = Xbond::run(&lab.host, line)?;
    let wanted = format!("on, every {period} ms");
    let deadline = Instant::now() + xbond_tests::WAIT_LIMIT;
    let pins = loop {
        let bond = xbond.show(BOND)?["bonds"][0].take();
        if bond["clock"] == wanted {
            break bond["pins"].as_str().context("no pins")?.to_owned();
        }
        ensure!(Instant::now() < deadline, "the clock does not run: {}", bond["clock"]);
        thread::sleep(Duration::from_millis(10));
    };
    xbond.kill()?;
    Ok(Maps::open(&Location::at(Path::new(&pins)))?)
}

/// Measures the clock for some time.
fn row(maps: &Maps, name: &str, period: u64, time: Duration) -> Result<Measured> {
    let ticks = || maps.clock().map(|clock| clock.ticks()).context("a bond without a clock");
    let (before, start): (TickEntry, _) = (ticks()?, Instant::now());
    thread::sleep(time);
    let (after, elapsed) = (ticks()?, start.elapsed());
    let count = |of: fn(&TickEntry) -> u64| of(&after).wrapping_sub(of(&before)) as f64;
    let laps = count(|ticks| ticks.ticks);
    let due = elapsed.as_secs_f64() * 1000.0 / period as f64;
    let figure = |unit: &str, value| Figure::exact("clock", name, unit, value);
    let figures = vec![
        figure("laps, % of those due", 100.0 * laps / due).with_target(Target::AtLeast(FEWEST)),
        figure("late laps, %", 100.0 * count(|ticks| ticks.late) / laps.max(1.0)),
        figure("frames re-injected", count(|ticks| ticks.injected)),
        figure("s measured", elapsed.as_secs_f64().round()),
    ];
    eprintln!("{name}: {laps} laps of {due:.0}, {} late", count(|ticks| ticks.late));
    Ok(Measured { figures, ..Measured::default() })
}

/// What keeps the machine busy.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(lab: &Lab) -> Result<Self> {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut threads: Vec<_> = (0..HOGS)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                })
            })
            .collect();
        let ways: [(&NetNs, IpAddr, &NetNs, IpAddr); 2] = [
            (&lab.host, HOST_V4.into(), &lab.peer, PEER_V4.into()),
            (&lab.peer, PEER_V4.into(), &lab.host, HOST_V4.into()),
        ];
        for (from, source, to, target) in ways {
            // It is never read: what does not fit is dropped.
            let receiver = to.run(|| Ok(UdpSocket::bind((target, 0))?))?;
            let sender = from.run(|| Ok(UdpSocket::bind((source, 0))?))?;
            sender.connect(receiver.local_addr()?)?;
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let ok = sender.send(&[0; PAYLOAD]).is_ok();
                    sent.fetch_add(ok.into(), Ordering::Relaxed);
                }
                drop(receiver);
            }));
        }
        Ok(Self { stop, sent, threads })
    }

    /// Ends it. Returns the number of packets that were sent.
    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let _ = thread.join();
        }
        self.sent.load(Ordering::Relaxed)
    }
}
