//! Switches that are asked for, and agents that die: nothing is lost.

use anyhow::{Result, ensure};
use xbond_tests::{
    HOST_V4, Lab, PEER_V4, TwoWay, Xbond, bonded,
    bonded::{BOND, Move},
    flow::FlowReport,
    lab::Datapath,
    xbond::cli,
};

use crate::{
    Options, Scene,
    row::{Row, ms},
};

/// Packets/s each way.
const RATE: u32 = 10_000;
/// Packets between two switches: the former slave has drained by then.
const BETWEEN: u64 = 2_000;

pub fn scenes(options: &Options) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for datapath in [Datapath::Tc, Datapath::Xdp] {
        for (policy, prearm) in [("none", false), ("active", false), ("follow", true)] {
            let name = format!("{}, {policy}{}", datapath.name(), if prearm { ", prearm" } else { "" });
            let measure =
                move |row: &mut Row, options: &Options| switch(row, options, datapath, policy, prearm);
            scenes.push(Scene::new("planned switch", &name, measure));
        }
    }
    for datapath in [Datapath::Tc, Datapath::Xdp] {
        if options.quick && datapath == Datapath::Xdp {
            continue;
        }
        let measure = move |row: &mut Row, options: &Options| kill(row, options, datapath);
        scenes.push(Scene::new("agent", &format!("kill -9, {}", datapath.name()), measure));
    }
    scenes
}

fn set_up<'lab>(lab: &'lab Lab, datapath: Datapath, policy: &str, more: &[&str]) -> Result<Xbond<'lab>> {
    let address = format!("{HOST_V4}/24");
    let more = [more, &["--address", &address]].concat();
    let xbond = bonded::run(lab, datapath, policy, &more)?;
    bonded::wait_for_path(&lab.host, &lab.peer)?;
    Ok(xbond)
}

fn traffic(lab: &Lab) -> Result<TwoWay> {
    let traffic = TwoWay::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), RATE)?;
    traffic.wait_for_more(BETWEEN / 2)?;
    Ok(traffic)
}

fn switch(row: &mut Row, options: &Options, datapath: Datapath, policy: &str, prearm: bool) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    let xbond = set_up(&lab, datapath, policy, if prearm { &["--prearm"] } else { &[] })?;
    let traffic = traffic(&lab)?;
    for _ in 0..options.cuts {
        bonded::fail_over(&lab, &xbond, Move::Planned)?;
        traffic.wait_for_more(BETWEEN)?;
    }
    let reports = traffic.stop()?;
    xbond.stop()?;
    row.number("switches", options.cuts as f64);
    tell(row, options, &reports)
}

/// Everything that arrived, and nothing that did not.
fn tell(row: &mut Row, options: &Options, reports: &[FlowReport; 2]) -> Result<()> {
    for (way, report) in ["out", "in"].iter().zip(reports) {
        row.number(&format!("{way}: sent"), report.sent as f64);
        row.number(&format!("{way}: received"), report.received as f64);
        row.at_most(&format!("{way}: lost"), report.lost as f64, 0.0);
        row.at_most(&format!("{way}: duplicated"), report.duplicated as f64, 0.0);
        row.number(&format!("{way}: gap max, ms"), ms(report.outage()));
        let holes: Vec<_> = report.holes().collect();
        ensure!(!options.quick || report.lost + report.duplicated == 0, "{way}: {report:?}, holes {holes:?}");
        if report.lost > 0 {
            eprintln!(
                "{}, {way}: {} lost, refused {}: holes {holes:?}",
                row.name, report.lost, report.refused
            );
        }
    }
    Ok(())
}

fn kill(row: &mut Row, options: &Options, datapath: Datapath) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    // Each needs an agent of its own, which takes longer than what is measured.
    let kills = options.cuts.div_ceil(5);
    let mut sums = [[0; 4]; 2];
    let mut gaps = [0.0_f64; 2];
    for _ in 0..kills {
        let xbond = set_up(&lab, datapath, "active", &[])?;
        let traffic = traffic(&lab)?;
        xbond.kill()?;
        traffic.wait_for_more(BETWEEN)?;
        for ((sums, gap), report) in sums.iter_mut().zip(&mut gaps).zip(traffic.stop()?) {
            let counts = [report.sent, report.received, report.lost, report.duplicated];
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            *gap = gap.max(ms(report.outage()));
        }
        cli(&lab.host, ["down", BOND, "--force"])?;
    }
    row.number("kills", kills as f64);
    for ((way, [sent, received, lost, duplicated]), gap) in ["out", "in"].iter().zip(sums).zip(gaps) {
        row.number(&format!("{way}: sent"), sent as f64);
        row.number(&format!("{way}: received"), received as f64);
        row.at_most(&format!("{way}: lost"), lost as f64, 0.0);
        row.at_most(&format!("{way}: duplicated"), duplicated as f64, 0.0);
        row.number(&format!("{way}: gap max, ms"), gap);
        ensure!(!options.quick || lost + duplicated == 0, "{way}: lost {lost}, duplicated {duplicated}");
    }
    Ok(())
}
