//! Measures failovers after the active slave loses its carrier under traffic.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bond_common::{abi::PORT_STATS, counters::DropReason};
use bond_core::name::BondName;
use bond_user::{store::paths::Paths, sys::dataplane::Maps, sys::softnet::Softnet};
use xbond_tests::{
    Cut, Flow, FlowOptions, HOST_V4, Lab, PEER_V4, Recovery, Xbond, bonded,
    figures::{Figure, Target},
    flow::FlowReport,
    lab::{Datapath, Wire},
};

use crate::{
    Options, Scene,
    announce::STEP_MS,
    exit::Exits,
    row::{Row, gaps},
};

/// Packets/s from host to peer, in order of preference: the first one that this machine's lab carries without a loss
/// is used.
const RATES: [u32; 6] = [100_000, 70_000, 50_000, 30_000, 20_000, 10_000];
const QUICK_RATES: [u32; 1] = [10_000];
/// Packets/s from peer to host.
const BACK: u32 = 5_000;
/// How long a rate is tried.
const TRIAL: Duration = Duration::from_millis(400);
/// On a busy machine, packets that were sent this long before a cut may still be on their way to the wire.
const UNDER_WAY: Duration = Duration::from_millis(50);
/// Time around a cut, for a plot.
const SHOWN: Duration = Duration::from_millis(150);

#[derive(Clone, Copy)]
struct Setting {
    wire: Wire,
    datapath: Datapath,
    policy: &'static str,
    guard: bool,
    /// miimon in milliseconds, in rows without link events and without the guard.
    only_miimon: Option<u64>,
}

/// Values of miimon in rows with polling alone, as in the driver.
const MIIMON: [u64; 3] = [10, 50, 100];

pub fn scenes(options: &Options) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for wire in [Wire::Tap, Wire::Veth] {
        for datapath in [Datapath::Tc, Datapath::Xdp] {
            for policy in bonded::POLICIES {
                for guard in [true, false] {
                    // The quick run measures each setting once, and not all combinations.
                    let chosen = match (wire, datapath) {
                        (Wire::Tap, Datapath::Tc) => policy == "active" && guard,
                        (Wire::Tap, Datapath::Xdp) => policy == "none" && guard,
                        (Wire::Veth, Datapath::Tc) => policy == "none" && !guard,
                        (Wire::Veth, Datapath::Xdp) => policy == "follow" && guard,
                    };
                    if options.quick && !chosen {
                        continue;
                    }
                    let setting = Setting { wire, datapath, policy, guard, only_miimon: None };
                    let name =
                        format!("{}, {policy}, guard {}", datapath.name(), if guard { "on" } else { "off" });
                    scenes.push(Scene::new(setting.group(), &name, move |row, options| {
                        setting.measure(row, options)
                    }));
                }
            }
        }
    }
    for miimon in MIIMON.into_iter().take(if options.quick { 1 } else { MIIMON.len() }) {
        let (wire, datapath, policy) = (Wire::Veth, Datapath::Tc, "active");
        let setting = Setting { wire, datapath, policy, guard: false, only_miimon: Some(miimon) };
        let name = format!("tc, active, miimon={miimon}");
        scenes.push(Scene::new(setting.group(), &name, move |row, options| setting.measure(row, options)));
    }
    scenes
}

/// A cut, by the numbers of the packets that the host had sent.
struct CutMade {
    at: Instant,
    /// Just before the carrier fell, and just after.
    before: u64,
    after: u64,
    /// When traffic flowed again.
    settled: u64,
    /// Losses between `before` and `settled`.
    causes: Causes,
}

/// The known causes of packet losses, by what dropped the packets.
#[derive(Clone, Copy, Debug, Default)]
struct Causes {
    /// Dropped by xbond: the carrier guard had failed over just before.
    guard_pause: u64,
    /// Dropped by xbond: no slave had a link.
    no_link: u64,
    /// Dropped by xbond, for any other reason.
    other: u64,
    /// Dropped by the slaves themselves: without carrier they refuse frames.
    slaves: u64,
    /// Dropped anywhere on the machine, in any direction: a CPU's backlog was full.
    backlog: u64,
}

impl Causes {
    /// Reads all counters.
    fn read(lab: &Lab, maps: &Maps) -> Result<Self> {
        let mut causes =
            Self { slaves: tx_dropped(lab)?, backlog: Softnet::read()?.dropped, ..Self::default() };
        for index in 0..=PORT_STATS {
            let stats = maps.stats(index)?;
            for reason in DropReason::ALL {
                let count = match reason {
                    // Drops of received packets.
                    DropReason::Backup | DropReason::DrainingMulticast => continue,
                    DropReason::GuardPause => &mut causes.guard_pause,
                    DropReason::NoLink => &mut causes.no_link,
                    DropReason::NoActiveSlave
                    | DropReason::UnknownSlot
                    | DropReason::Runt
                    | DropReason::RewriteFailed
                    | DropReason::RedirectFailed
                    | DropReason::Internal => &mut causes.other,
                };
                *count += stats.dropped(reason);
            }
        }
        Ok(causes)
    }

    /// Adds columns for what was `lost` while the carrier fell and afterwards. Other losses are the lab's: a queue of
    /// taps, the switch, the receiver.
    fn report(row: &mut Row, cuts: &[CutMade], lost: f64, is_clean: bool) {
        let sum = |of: fn(&Self) -> u64| cuts.iter().map(|cut| of(&cut.causes)).sum::<u64>() as f64;
        let by_xbond = [
            ("as guard_pause", sum(|causes| causes.guard_pause)),
            ("as no_link", sum(|causes| causes.no_link)),
            ("for other reasons", sum(|causes| causes.other)),
        ];
        let mut rest = lost;
        for (reason, count) in by_xbond {
            row.number(&format!("of both: dropped {reason}"), count);
            rest -= count;
        }
        let refused = sum(|causes| causes.slaves);
        rest -= refused;
        let column = "of both: refused by the slave";
        if is_clean {
            row.at_most(column, refused, 0.0);
        } else {
            row.number(column, refused);
        }
        row.number("of both: the rest, in the lab", rest.max(0.0));
        row.number("full backlogs, of the machine", sum(|causes| causes.backlog));
    }
}

impl std::ops::Sub for Causes {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            guard_pause: self.guard_pause - earlier.guard_pause,
            no_link: self.no_link - earlier.no_link,
            other: self.other - earlier.other,
            slaves: self.slaves - earlier.slaves,
            backlog: self.backlog - earlier.backlog,
        }
    }
}

impl Setting {
    fn group(self) -> &'static str {
        match (self.only_miimon, self.wire) {
            (Some(_), _) => "by miimon alone (veth)",
            (None, Wire::Tap) => "clean cut (tap)",
            (None, Wire::Veth) => "cut at the far end (veth)",
        }
    }

    fn measure(self, row: &mut Row, options: &Options) -> Result<()> {
        let lab = Lab::builder().wire(self.wire).datapath(self.datapath).build()?;
        let address = format!("{HOST_V4}/24");
        let mut more = vec!["--address", &address];
        if !self.guard {
            more.extend(["--guard", "off"]);
        }
        more.extend(self.only_miimon.map(|_| "--no-link-events"));
        let xbond = bonded::run(&lab, self.datapath, self.policy, &more)?;
        if let Some(miimon) = self.only_miimon {
            xbond.set(bonded::BOND, &format!("miimon={miimon}"))?;
        }
        let guard = xbond.show(bonded::BOND)?["bonds"][0]["guard"].to_string();
        ensure!((guard == "\"on\"") == self.guard, "the guard is {guard}");
        bonded::wait_for_path(&lab.host, &lab.peer)?;
        let rates = if options.quick { &QUICK_RATES[..] } else { &RATES };
        let rate = highest(&lab, rates)?;

        let maps = Maps::open(&Paths::of(lab.host.cookie()?).pins_of(&BondName::new(bonded::BOND)?))?;
        let exits = if self.datapath == Datapath::Tc { Exits::watch(&lab)? } else { None };
        let (to_peer, to_host) = (flow(&lab, true, rate)?, flow(&lab, false, BACK)?);
        to_peer.wait_for_more(u64::from(rate) / 20)?;
        let mut cuts = Vec::new();
        for number in 0..options.cuts {
            if let Some(miimon) = self.only_miimon {
                std::thread::sleep(Duration::from_millis(number as u64 * STEP_MS % miimon));
            }
            let scene = Cutting { lab: &lab, xbond: &xbond, maps: &maps, exits: exits.as_ref() };
            cuts.push(scene.cut(number, (&to_peer, &to_host))?);
        }
        to_host.wait_for_more(u64::from(BACK) / 20)?;
        let (to_peer, to_host) = (to_peer.stop()?, to_host.stop()?);
        let given = exits.as_ref().map(Exits::given).transpose()?;
        let log = xbond.stop()?;
        row.number("cuts", cuts.len() as f64);
        row.number(
            "of them seen by the guard",
            log.matches("a packet found its carrier gone").count() as f64,
        );
        self.report(row, options, [&to_peer, &to_host], &cuts)?;
        if let Some(given) = given {
            // The purpose of the guard. A packet that it had passed when the bit fell is not counted.
            row.number("given to a slave while its carrier fell", given.while_it_fell as f64);
            let column = "given to a slave without carrier";
            if self.guard {
                row.at_most(column, given.after_it_had as f64, 0.0);
            } else {
                row.number(column, given.after_it_had as f64);
            }
        }
        Ok(())
    }

    fn report(
        self,
        row: &mut Row,
        options: &Options,
        [to_peer, to_host]: [&FlowReport; 2],
        cuts: &[CutMade],
    ) -> Result<()> {
        let rate = to_peer.sent as f64 / to_peer.last_sent().as_secs_f64();
        row.number("packets/s", rate.round());
        let under_way = (rate * UNDER_WAY.as_secs_f64()) as u64;
        let phases = lost_in_phases(to_peer, cuts, under_way);
        let of_phase = |phase: usize| phases.iter().map(|cut| cut[phase]).sum::<u64>() as f64;
        let events: Vec<Instant> = cuts.iter().map(|cut| cut.at).collect();
        let is_clean =
            self.wire == Wire::Tap && self.guard && self.datapath == Datapath::Tc && !options.quick;

        for (way, report) in [("out", to_peer), ("in", to_host)] {
            row.number(&format!("{way}: sent"), report.sent as f64);
            row.number(&format!("{way}: received"), report.received as f64);
            row.number(&format!("{way}: lost"), report.lost as f64);
            row.at_most(&format!("{way}: duplicated"), report.duplicated as f64, 0.0);
            if way == "out" {
                let lost: Vec<f64> = phases.iter().map(|cut| cut.iter().sum::<u64>() as f64).collect();
                row.spread("out: lost per cut", "packets", &lost, None);
                if is_clean {
                    let figure = row.measured.figures.iter_mut().rev().nth(2);
                    let figure = figure.context("no median")?;
                    *figure = Figure::clone(figure).with_target(Target::AtMost(0.0));
                }
                row.number("out: lost before the carrier fell", of_phase(0));
                row.number("out: lost while it fell", of_phase(1));
                row.number("out: lost after it had fallen", of_phase(2));
                Causes::report(row, cuts, of_phase(1) + of_phase(2), is_clean);
            }
            let gaps = gaps(report, &events);
            row.spread(&format!("{way}: gap"), "ms", &gaps, None);
            if way == "out" {
                row.distribution("ms", &gaps);
            }
            ensure!(
                matches!(report.recovery(cuts[0].at), Recovery::After(_)),
                "{way}: traffic did not recover: {report:?}"
            );
            ensure!(report.overflowed == 0, "{way}: the receiver was too slow: {report:?}");
            if options.quick {
                ensure!(report.duplicated == 0, "{way}: duplicates: {report:?}");
            }
        }
        if self.wire == Wire::Tap && self.datapath == Datapath::Tc && self.policy == "active" {
            let cut = &cuts[cuts.len() / 2];
            row.timeline(-10.0, 1.0, buckets(to_peer, to_peer.since_start(cut.at)));
        }
        Ok(())
    }
}

/// Returns for each cut how many packets were lost before the carrier fell, while it fell, and after it. `under_way`: the
/// number of packets that are sent, and have not arrived, at any time.
fn lost_in_phases(to_peer: &FlowReport, cuts: &[CutMade], under_way: u64) -> Vec<[u64; 3]> {
    let mut counted = 0;
    cuts.iter()
        .map(|cut| {
            let CutMade { before, after, settled, .. } = *cut;
            // Losses of the previous cut are counted there.
            let from = before.saturating_sub(under_way).max(counted);
            counted = settled;
            [from..before, before..after, after..settled].map(|numbers| to_peer.lost_among(numbers))
        })
        .collect()
}

/// Returns the packets that arrived in each millisecond, from 10 before the cut on.
fn buckets(report: &FlowReport, cut: Duration) -> Vec<u32> {
    let mut buckets = vec![0; SHOWN.as_millis() as usize];
    let from = cut.saturating_sub(Duration::from_millis(10));
    for arrival in report.arrivals.iter().filter(|arrival| arrival.at >= from) {
        match buckets.get_mut((arrival.at - from).as_millis() as usize) {
            Some(bucket) => *bucket += 1,
            None => break,
        }
    }
    buckets
}

fn flow(lab: &Lab, outbound: bool, rate: u32) -> Result<Flow> {
    let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
    let (from, to) = if outbound { (host, peer) } else { (peer, host) };
    Flow::start(from, to, FlowOptions { rate, ..FlowOptions::default() })
}

/// Returns the first rate without a loss while nothing happens, with traffic in the other direction.
fn highest(lab: &Lab, rates: &[u32]) -> Result<u32> {
    let (last, others) = rates.split_last().context("no rates")?;
    for &rate in others {
        let (to_peer, to_host) = (flow(lab, true, rate)?, flow(lab, false, BACK)?);
        std::thread::sleep(TRIAL);
        let (to_peer, to_host) = (to_peer.stop()?, to_host.stop()?);
        let reached = to_peer.sent as f64 >= 0.95 * f64::from(rate) * to_peer.last_sent().as_secs_f64();
        if to_peer.lost + to_host.lost == 0 && reached {
            return Ok(rate);
        }
    }
    Ok(*last)
}

/// The lab in which links are cut.
struct Cutting<'run> {
    lab: &'run Lab,
    xbond: &'run Xbond<'run>,
    maps: &'run Maps,
    exits: Option<&'run Exits>,
}

impl Cutting<'_> {
    fn cut(&self, number: usize, (to_peer, to_host): (&Flow, &Flow)) -> Result<CutMade> {
        let Self { lab, xbond, .. } = self;
        let [active, other] = [number, number + 1].map(|number| lab.nics[number % 2].name.as_str());
        let said = xbond.log().len();
        let known = Causes::read(lab, self.maps)?;
        let before = to_peer.offered();
        let at = lab.cut(active, Cut::Carrier)?;
        self.exits.map_or(Ok(()), |exits| exits.carrier_fell(true))?;
        let after = to_peer.offered();
        xbond.wait_for_after(said, &format!("active slave {other} instead of {active}"))?;
        to_peer.wait_for_more(200)?;
        to_host.wait_for_more(50)?;
        let settled = to_peer.offered();
        let causes = Causes::read(lab, self.maps)? - known;
        self.exits.map_or(Ok(()), |exits| exits.carrier_fell(false))?;
        lab.reconnect(active, Cut::Carrier)?;
        bonded::wait_for_slaves(xbond)?;
        lab.switch.wait_for_forwarding(&lab.port(active)?)?;
        to_peer.wait_for_more(100)?;
        Ok(CutMade { at, before, after, settled, causes })
    }
}

/// Returns what the slaves themselves refused: taps without carrier refuse everything.
fn tx_dropped(lab: &Lab) -> Result<u64> {
    let text = lab.host.ip("-json -statistics link show")?;
    let links: serde_json::Value = serde_json::from_str(&text).context("the output of ip")?;
    let of_slave = |link: &&serde_json::Value| lab.nics.iter().any(|nic| link["ifname"] == *nic.name);
    let links = links.as_array().context("no links")?.iter().filter(of_slave);
    links.map(|link| link["stats64"]["tx"]["dropped"].as_u64().context("no counter")).sum()
}
