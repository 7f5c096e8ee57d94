//! The active slave loses its carrier under traffic.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use xbond_tests::{
    Cut, Flow, FlowOptions, HOST_V4, Lab, PEER_V4, Recovery, Xbond, bonded,
    flow::FlowReport,
    lab::{Datapath, Wire},
};

use crate::{
    Options, Scene,
    row::{Row, ms},
};

/// Packets/s from host to peer, most wanted first: the first that this machine's lab carries without a loss.
const RATES: [u32; 6] = [100_000, 70_000, 50_000, 30_000, 20_000, 10_000];
const QUICK_RATES: [u32; 1] = [10_000];
/// Packets/s from peer to host.
const BACK: u32 = 5_000;
/// How long a rate is tried.
const TRIAL: Duration = Duration::from_millis(400);
/// What was sent this long before a cut may still be under way to the wire, on a busy machine.
const UNDER_WAY: Duration = Duration::from_millis(50);
/// Around a cut, for a plot.
const SHOWN: Duration = Duration::from_millis(150);

#[derive(Clone, Copy)]
struct Setting {
    wire: Wire,
    datapath: Datapath,
    policy: &'static str,
    guard: bool,
}

pub fn scenes(options: &Options) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for wire in [Wire::Tap, Wire::Veth] {
        for datapath in [Datapath::Tc, Datapath::Xdp] {
            for policy in bonded::POLICIES {
                for guard in [true, false] {
                    // The quick run goes through each setting once, and not through all combinations.
                    let chosen = match (wire, datapath) {
                        (Wire::Tap, Datapath::Tc) => policy == "active" && guard,
                        (Wire::Tap, Datapath::Xdp) => policy == "none" && guard,
                        (Wire::Veth, Datapath::Tc) => policy == "none" && !guard,
                        (Wire::Veth, Datapath::Xdp) => policy == "follow" && guard,
                    };
                    if options.quick && !chosen {
                        continue;
                    }
                    let setting = Setting { wire, datapath, policy, guard };
                    let name =
                        format!("{}, {policy}, guard {}", datapath.name(), if guard { "on" } else { "off" });
                    scenes.push(Scene::new(setting.group(), &name, move |row, options| {
                        setting.measure(row, options)
                    }));
                }
            }
        }
    }
    scenes
}

/// A cut, by the numbers of the packets that the host had sent.
struct CutMade {
    at: Instant,
    /// Just before the carrier fell, and when it had fallen.
    before: u64,
    after: u64,
    /// When traffic flowed again.
    settled: u64,
}

impl Setting {
    fn group(self) -> &'static str {
        match self.wire {
            Wire::Tap => "clean cut (tap)",
            Wire::Veth => "cut at the far end (veth)",
        }
    }

    fn measure(self, row: &mut Row, options: &Options) -> Result<()> {
        let lab = Lab::builder().wire(self.wire).datapath(self.datapath).build()?;
        let address = format!("{HOST_V4}/24");
        let mut more = vec!["--address", &address];
        if !self.guard {
            more.extend(["--guard", "off"]);
        }
        let xbond = bonded::run(&lab, self.datapath, self.policy, &more)?;
        let guard = xbond.show(bonded::BOND)?["bonds"][0]["guard"].to_string();
        ensure!((guard == "\"on\"") == self.guard, "the guard is {guard}");
        bonded::wait_for_path(&lab.host, &lab.peer)?;
        let rates = if options.quick { &QUICK_RATES[..] } else { &RATES };
        let rate = highest(&lab, rates)?;

        let dropped_before = tx_dropped(&lab)?;
        let (to_peer, to_host) = (flow(&lab, true, rate)?, flow(&lab, false, BACK)?);
        to_peer.wait_for_more(u64::from(rate) / 20)?;
        let mut cuts = Vec::new();
        for number in 0..options.cuts {
            cuts.push(cut(&lab, &xbond, number, (&to_peer, &to_host))?);
        }
        to_host.wait_for_more(u64::from(BACK) / 20)?;
        let (to_peer, to_host) = (to_peer.stop()?, to_host.stop()?);
        let dropped = tx_dropped(&lab)? - dropped_before;
        let log = xbond.stop()?;
        row.number("cuts", cuts.len() as f64);
        row.number(
            "of them seen by the guard",
            log.matches("a packet found its carrier gone").count() as f64,
        );
        self.tell(row, options, [&to_peer, &to_host], &cuts, dropped)
    }

    fn tell(
        self,
        row: &mut Row,
        options: &Options,
        [to_peer, to_host]: [&FlowReport; 2],
        cuts: &[CutMade],
        dropped: u64,
    ) -> Result<()> {
        let rate = to_peer.sent as f64 / to_peer.last_sent().as_secs_f64();
        row.number("packets/s", rate.round());
        let under_way = (rate * UNDER_WAY.as_secs_f64()) as u64;
        // Of each cut: before the carrier fell, while it fell, after it.
        let phases: Vec<[u64; 3]> = cuts
            .iter()
            .map(|cut| {
                let CutMade { before, after, settled, .. } = *cut;
                [before.saturating_sub(under_way)..before, before..after, after..settled]
                    .map(|numbers| to_peer.lost_among(numbers))
            })
            .collect();
        let of_phase = |phase: usize| phases.iter().map(|cut| cut[phase]).sum::<u64>() as f64;
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
                    *figure = figure.clone().with_target(xbond_tests::figures::Target::AtMost(0.0));
                }
                row.number("out: lost before the carrier fell", of_phase(0));
                row.number("out: lost while it fell", of_phase(1));
                row.number("out: lost after it had fallen", of_phase(2));
                if self.wire == Wire::Tap {
                    let column = "refused by taps without carrier";
                    if is_clean {
                        row.at_most(column, dropped as f64, 0.0);
                    } else {
                        row.number(column, dropped as f64);
                    }
                }
            }
            let gaps: Vec<f64> =
                windows(cuts, report).map(|window| ms(report.outage_within(window))).collect();
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

/// From each cut to the next.
fn windows(cuts: &[CutMade], report: &FlowReport) -> impl Iterator<Item = std::ops::Range<Duration>> {
    let ends = cuts.iter().skip(1).map(|next| report.since_start(next.at)).chain([Duration::MAX]);
    cuts.iter().map(|cut| report.since_start(cut.at)).zip(ends).map(|(from, to)| from..to)
}

/// Packets that arrived in each millisecond, from 10 before the cut on.
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

/// The first rate at which nothing is lost while nothing happens, with the traffic that comes back.
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

fn cut(lab: &Lab, xbond: &Xbond<'_>, number: usize, flows: (&Flow, &Flow)) -> Result<CutMade> {
    let (to_peer, to_host) = flows;
    let [active, other] = [number, number + 1].map(|number| lab.nics[number % 2].name.as_str());
    let said = xbond.log().len();
    let before = to_peer.offered();
    let at = lab.cut(active, Cut::Carrier)?;
    let after = to_peer.offered();
    xbond.wait_for_after(said, &format!("active slave {other} instead of {active}"))?;
    to_peer.wait_for_more(200)?;
    to_host.wait_for_more(50)?;
    let settled = to_peer.offered();
    let said = xbond.log().len();
    lab.mend(active, Cut::Carrier)?;
    xbond.wait_for_after(said, &format!("{active}: link up"))?;
    lab.switch.wait_for_forwarding(&lab.port(active)?)?;
    to_peer.wait_for_more(100)?;
    Ok(CutMade { at, before, after, settled })
}

/// What the slaves themselves refused: taps without carrier refuse everything.
fn tx_dropped(lab: &Lab) -> Result<u64> {
    let text = lab.host.ip("-json -statistics link show")?;
    let links: serde_json::Value = serde_json::from_str(&text).context("the output of ip")?;
    let of_slave = |link: &&serde_json::Value| lab.nics.iter().any(|nic| link["ifname"] == *nic.name);
    let links = links.as_array().context("no links")?.iter().filter(of_slave);
    links.map(|link| link["stats64"]["tx"]["dropped"].as_u64().context("no counter")).sum()
}
