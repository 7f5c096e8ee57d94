//! Measures failovers without an agent: of an idle bond by its clock, and of a bridge whose guests are silent.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bond_core::name::BondName;
use bond_user::{report::moment::monotonic, store::paths::Paths, sys::dataplane::Maps};
use xbond_tests::{
    Capture, Cut, Flow, FlowOptions, HOST_V4, Lab, NetNs, PEER_V4, WAIT_LIMIT, Xbond, bonded,
    bonded::BOND,
    lab::{Datapath, Wire},
    netns::unique_stem,
    xbond::cli,
};

use crate::{
    Options, Scene,
    row::{Row, gaps, ms},
};

/// Packets/s from the peer to a guest that sends nothing.
const RATE: u32 = 5_000;
/// The address of the silent guest.
const GUEST: std::net::Ipv4Addr = std::net::Ipv4Addr::new(192, 168, 99, 120);

pub fn scenes(options: &Options) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (datapath, wire) in
        [(Datapath::Tc, Wire::Tap), (Datapath::Tc, Wire::Veth), (Datapath::Xdp, Wire::Veth)]
    {
        for policy in bonded::POLICIES {
            if options.quick && policy != "active" {
                continue;
            }
            let wire_name = if wire == Wire::Tap { "tap" } else { "veth" };
            let name = format!("{}, {policy}, {wire_name}", datapath.name());
            scenes.push(Scene::new("idle, without an agent", &name, move |row, options| {
                idle(row, options, datapath, (wire, policy))
            }));
        }
    }
    for has_agent in [true, false] {
        let name = if has_agent { "with the agent" } else { "without an agent" };
        let measure = move |row: &mut Row, options: &Options| bridge(row, options, has_agent);
        scenes.push(Scene::new("bridge with silent guests", name, measure));
    }
    scenes
}

/// Starts a bond, and waits until its clock runs.
fn start<'lab>(
    lab: &'lab Lab,
    datapath: Datapath,
    policy: &str,
    more: &[&str],
) -> Result<(Xbond<'lab>, Maps)> {
    let xbond = bonded::run(lab, datapath, policy, more)?;
    wait("the clock", || {
        Ok(xbond.show(BOND)?["bonds"][0]["clock"].as_str().is_some_and(|clock| clock.starts_with("on")))
    })?;
    let maps = Maps::open(&Paths::of(lab.host.cookie()?).pins_of(&BondName::new(BOND)?))?;
    Ok((xbond, maps))
}

fn wait(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + WAIT_LIMIT;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}: not within {WAIT_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Cuts the links of a bond in turn that sends and receives nothing, and has no agent.
fn idle(row: &mut Row, options: &Options, datapath: Datapath, (wire, policy): (Wire, &str)) -> Result<()> {
    let lab = Lab::builder().wire(wire).datapath(datapath).build()?;
    let address = format!("{HOST_V4}/24");
    let (xbond, maps) = start(&lab, datapath, policy, &["--address", &address])?;
    bonded::wait_for_path(&lab.host, &lab.peer)?;
    xbond.kill()?;
    let (mut switched, mut announced) = (Vec::new(), Vec::new());
    for cut in 0..options.cuts {
        let [from, to] = [cut, cut + 1].map(|number| lab.nics[number % 2].name.as_str());
        let (capture, port) = (Capture::start(&lab.switch.netns)?, lab.port(to)?);
        let before = monotonic();
        let at = lab.cut(from, Cut::Carrier)?;
        let mut arrived = None;
        wait("the announcement", || {
            let frames = capture.frames().into_iter().filter(|frame| !frame.outgoing && frame.ifname == port);
            arrived = frames
                .filter(|frame| frame.announces(IpAddr::V4(HOST_V4)).is_some())
                .map(|frame| frame.at)
                .min();
            Ok(arrived.is_some())
        })?;
        announced.push(ms(arrived.context("no announcement")?.saturating_duration_since(at)));
        switched.push(ms(Duration::from_nanos(maps.guard().switched_at()).saturating_sub(before)));
        lab.reconnect(from, Cut::Carrier)?;
        wait("both slaves", || Ok(maps.active().usable().count_ones() == 2))?;
    }
    row.number("cuts", options.cuts as f64);
    row.spread("ACTIVE changed after", "ms", &switched, None);
    row.spread("announced after", "ms", &announced, None);
    cli(&lab.host, ["down", BOND, "--force"])?;
    Ok(())
}

/// Sends packets to a guest on a bridge above the bond, which answers nothing, while links are cut. The slaves are at two
/// switches.
fn bridge(row: &mut Row, options: &Options, has_agent: bool) -> Result<()> {
    let lab = Lab::builder().two_switches().build()?;
    let guest = NetNs::create(&format!("{}-guest", unique_stem()))?;
    let (xbond, maps) = start(&lab, Datapath::Tc, "none", &[])?;
    lab.host.ip("link add br0 type bridge forward_delay 0 mcast_snooping 0")?;
    lab.host.ip(&format!("link set {BOND} master br0"))?;
    lab.host.ip("link set br0 up")?;
    lab.host.ip(&format!(
        "link add g0 address fe:00:00:00:00:01 type veth peer name eth0 netns {}",
        guest.name()
    ))?;
    lab.host.ip("link set g0 master br0 up")?;
    guest.ip("link set eth0 up")?;
    guest.ip(&format!("address add {GUEST}/24 dev eth0"))?;
    wait("the guest speaks", || Ok(guest.ping(PEER_V4.into(), 1)?.received == 1))?;
    let mut agent = Some(xbond);
    if let Some(xbond) = agent.take_if(|_| !has_agent) {
        xbond.kill()?;
    }
    let to = (&guest, GUEST.into());
    let flow =
        Flow::start((&lab.peer, PEER_V4.into()), to, FlowOptions { rate: RATE, ..FlowOptions::default() })?;
    flow.wait_for_more(u64::from(RATE) / 20)?;
    let mut cuts = Vec::new();
    for cut in 0..options.cuts {
        let [from, to] = [cut, cut + 1].map(|number| lab.nics[number % 2].name.as_str());
        cuts.push(lab.cut(from, Cut::Carrier)?);
        flow.wait_for_more(u64::from(RATE) / 10)?;
        lab.reconnect(from, Cut::Carrier)?;
        wait(to, || Ok(maps.active().usable().count_ones() == 2))?;
        lab.switch.wait_for_forwarding(&lab.port(from)?)?;
    }
    let report = flow.stop()?;
    row.number("cuts", cuts.len() as f64);
    row.number("packets/s", f64::from(RATE));
    row.number("in: lost", report.lost as f64);
    row.at_most("in: duplicated", report.duplicated as f64, 0.0);
    let gaps = gaps(&report, &cuts);
    row.spread("in: gap", "ms", &gaps, None);
    row.distribution("ms", &gaps);
    match agent {
        Some(xbond) => drop(xbond.stop()?),
        None => drop(cli(&lab.host, ["down", BOND, "--force"])?),
    }
    Ok(())
}
