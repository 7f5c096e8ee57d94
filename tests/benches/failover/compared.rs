//! Compares failovers of the kernel's bonding driver and of xbond in one guest, whose kernel has both.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xbond_tests::{
    Cut, Flow, FlowOptions, HOST_V4, Lab, PEER_V4, Xbond,
    bonded::{self, BOND, wait_until},
    figures::Timeline,
    flow::FlowReport,
    lab::Datapath,
};

use crate::{
    Options, Scene,
    row::{Row, gaps},
};

/// Packets/s in each direction: what an emulated machine carries without a loss.
const RATE: u32 = 1_000;
/// Cuts for each row: a second or more each, because backups are slow to be used again.
const CUTS: usize = 20;
/// How long packets must have arrived again before the next step.
const SETTLED: Duration = Duration::from_millis(200);
/// Time around a fault, for a plot.
const SHOWN: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(300)];
/// The length of a bucket of the plot.
const BUCKET: Duration = Duration::from_millis(10);

/// The bond of a row.
#[derive(Clone, Copy)]
enum Over {
    /// The kernel's driver, with these options of `ip link add type bond`.
    Driver(&'static str),
    /// xbond, with these options.
    Xbond(&'static [&'static str]),
}

/// A fault: its group, and the bonds that notice it.
type Fault = (&'static str, Cut, &'static [(&'static str, Over)]);

/// The driver's miimon does not notice that a port forwards nothing, so those rows have its ARP monitor.
const FAULTS: [Fault; 2] = [
    (
        "carrier lost (driver and xbond)",
        Cut::Carrier,
        &[
            ("driver, miimon=100", Over::Driver("miimon 100")),
            ("driver, miimon=10", Over::Driver("miimon 10")),
            ("driver, arp_interval=10", Over::Driver("arp_interval 10 arp_validate all arp_ip_target")),
            ("xbond, miimon=100", Over::Xbond(&["miimon=100"])),
        ],
    ),
    (
        "port forwards nothing (driver and xbond)",
        Cut::Silent,
        &[
            ("driver, arp_interval=100", Over::Driver("arp_interval 100 arp_validate all arp_ip_target")),
            ("driver, arp_interval=10", Over::Driver("arp_interval 10 arp_validate all arp_ip_target")),
            ("xbond, path_interval=10", Over::Xbond(&["miimon=100", "path_interval=10"])),
        ],
    ),
];

pub fn scenes() -> Vec<Scene> {
    let rows = |&(group, cut, bonds): &Fault| {
        let row = move |&(name, over): &(&'static str, Over)| {
            Scene::new(group, name, move |row, options| measure(row, options, cut, over))
        };
        bonds.iter().map(row).collect::<Vec<_>>()
    };
    FAULTS.iter().flat_map(rows).collect()
}

/// A running bond.
enum Bond<'lab> {
    Driver,
    Xbond(Xbond<'lab>),
}

impl<'lab> Bond<'lab> {
    fn start(lab: &'lab Lab, over: Over) -> Result<Self> {
        let address = format!("{HOST_V4}/24");
        match over {
            Over::Driver(options) => {
                let target = if options.ends_with("target") { PEER_V4.to_string() } else { String::new() };
                lab.host.ip(&format!("link add {BOND} type bond mode active-backup {options} {target}"))?;
                for nic in &lab.nics {
                    lab.host.ip(&format!("link set {} down", nic.name))?;
                    lab.host.ip(&format!("link set {} master {BOND}", nic.name))?;
                }
                lab.host.ip(&format!("address add {address} dev {BOND}"))?;
                lab.host.ip(&format!("link set {BOND} up"))?;
                Ok(Self::Driver)
            }
            Over::Xbond(options) => {
                // A router sends echoes back.
                lab.peer.sysctl("ipv4/ip_forward", "1")?;
                let target = format!("path_target={PEER_V4}");
                let mut more = vec!["--address", &address];
                for option in options {
                    more.extend(["-o", option]);
                    if option.starts_with("path_") {
                        more.extend(["-o", &target]);
                    }
                }
                bonded::run(lab, Datapath::Tc, "none", &more).map(Self::Xbond)
            }
        }
    }

    /// Waits until a failover can go to any slave.
    fn wait_for_slaves(&self, lab: &Lab) -> Result<()> {
        wait_until("slaves that are all up", || match self {
            Self::Driver => {
                for nic in &lab.nics {
                    let text = lab.host.ip(&format!("-json -details link show {}", nic.name))?;
                    let link: Value = serde_json::from_str(&text).context("the output of ip")?;
                    if link[0]["linkinfo"]["info_slave_data"]["mii_status"] != "UP" {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Xbond(xbond) => {
                let bond = xbond.show(BOND)?["bonds"][0].take();
                let is_used = |slave: &Value| {
                    slave["mii_status"] == "up"
                        && (bond["path"].is_null() || slave["path"]["state"] == "works")
                };
                Ok(bond["slaves"].as_array().is_some_and(|slaves| slaves.iter().all(is_used)))
            }
        })
    }

    fn active(&self, lab: &Lab) -> Result<String> {
        match self {
            Self::Driver => {
                let text = lab.host.ip(&format!("-json -details link show {BOND}"))?;
                let link: Value = serde_json::from_str(&text).context("the output of ip")?;
                let active = link[0]["linkinfo"]["info_data"]["active_slave"].as_str();
                Ok(active.context("no active slave")?.to_owned())
            }
            Self::Xbond(xbond) => bonded::active_slave(xbond),
        }
    }
}

fn measure(row: &mut Row, options: &Options, cut: Cut, over: Over) -> Result<()> {
    let lab = Lab::builder().build()?;
    let bond = Bond::start(&lab, over)?;
    bonded::wait_for_path(&lab.host, &lab.peer)?;
    bond.wait_for_slaves(&lab)?;
    let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()));
    let rate = FlowOptions { rate: RATE, ..FlowOptions::default() };
    let flows = [Flow::start(host, peer, rate)?, Flow::start(peer, host, rate)?];
    let settled = (f64::from(RATE) * SETTLED.as_secs_f64()) as u64;
    let settle = || flows.iter().try_for_each(|flow| flow.wait_for_more(settled));
    settle()?;
    let mut faults = Vec::new();
    for _ in 0..options.cuts.min(CUTS) {
        let active = bond.active(&lab)?;
        faults.push(lab.cut(&active, cut)?);
        wait_until("a failover", || Ok(bond.active(&lab).is_ok_and(|now| now != active)))?;
        settle()?;
        lab.reconnect(&active, cut)?;
        lab.switch.wait_for_forwarding(&lab.port(&active)?)?;
        bond.wait_for_slaves(&lab)?;
        settle()?;
    }
    row.number("faults", faults.len() as f64);
    row.number("packets/s", f64::from(RATE));
    for (way, flow) in ["out", "in"].into_iter().zip(flows) {
        let report = flow.stop()?;
        ensure!(report.overflowed == 0, "{way}: the receiver was too slow: {report:?}");
        row.number(&format!("{way}: lost per fault"), report.lost as f64 / faults.len() as f64);
        let gaps = gaps(&report, &faults);
        row.spread(&format!("{way}: gap"), "ms", &gaps, None);
        if way == "in" {
            row.distribution("ms", &gaps);
            row.measured.timelines.push(Timeline {
                name: format!("{}: {}", row.group.trim_start_matches("failover: "), row.name),
                from_ms: -SHOWN[0].as_secs_f64() * 1e3,
                bucket_ms: BUCKET.as_secs_f64() * 1e3,
                packets: buckets(&report, faults[faults.len() / 2]),
            });
        }
    }
    Ok(())
}

/// Returns the packets that arrived in each bucket of the time that is shown around a fault.
fn buckets(report: &FlowReport, fault: Instant) -> Vec<u32> {
    let from = report.since_start(fault).saturating_sub(SHOWN[0]);
    let mut buckets = vec![0; (SHOWN[0] + SHOWN[1]).div_duration_f64(BUCKET) as usize];
    for arrival in report.arrivals.iter().filter(|arrival| arrival.at >= from) {
        match buckets.get_mut((arrival.at - from).div_duration_f64(BUCKET) as usize) {
            Some(count) => *count += 1,
            None => break,
        }
    }
    buckets
}
