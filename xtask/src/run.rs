//! `cargo xtask run`: the reference scenario in a lab, or xbond on this machine.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;
use xbond_tests::{
    HOST_V4, Lab, Mac, PEER_V4, Policy, Recovery, TwoWay, Xbond, flow::FlowReport, lab, netns, xbond,
};

use xtask_common::{machine, setup};

/// First part of the namespaces' names of a lab that is kept.
const KEPT_LAB: &str = "xbond-lab";
/// The first slave of the scenario, which is active first, and the one that takes over.
const FIRST: &str = "enp0s8";
const SECOND: &str = "enp0s9";
const BOND: &str = "bond0";

#[derive(Args)]
pub struct RunArguments {
    #[command(flatten)]
    lab: LabArguments,
    /// Runs `xbond run` with these arguments on this machine instead of in a lab
    #[arg(last = true)]
    xbond: Vec<String>,
}

#[derive(Args)]
struct LabArguments {
    /// What the switch accepts: everything, or like VirtualBox only a NIC's own MAC address
    #[arg(long, value_enum, default_value_t = Switch::Learning)]
    switch: Switch,
    #[arg(long, value_enum, default_value_t = Datapath::Tc)]
    datapath: Datapath,
    /// How the link of enp0s8 fails: its carrier is removed, or it is set down on the host
    #[arg(long, value_enum, default_value_t = Cut::Carrier)]
    cut: Cut,
    /// The type of the NICs; with taps, a removed carrier loses no frame that was sent before it
    #[arg(long, value_enum, default_value_t = Wire::Veth)]
    wire: Wire,
    /// Only this policy; without it all three in turn
    #[arg(long, value_enum)]
    fail_over_mac: Option<FailOverMac>,
    /// Packets per second in each direction
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Writes the results as JSON to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Leaves the lab of the last run running, for inspection
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    Learning,
    Virtualbox,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Datapath {
    Tc,
    Xdp,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wire {
    Veth,
    Tap,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Cut {
    Carrier,
    Admin,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum FailOverMac {
    None,
    Active,
    Follow,
}

impl FailOverMac {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Active => "active",
            Self::Follow => "follow",
        }
    }
}

/// The MAC addresses of the bond and its slaves, by name.
type MacTable = BTreeMap<String, String>;

/// One run, in the form of the file that --report writes.
#[derive(Serialize)]
struct Outcome {
    fail_over_mac: FailOverMac,
    datapath: &'static str,
    cut: Cut,
    before: MacTable,
    after: MacTable,
    /// Packets in both directions.
    sent: u64,
    received: u64,
    lost: u64,
    /// The longest time without a packet in either direction, in milliseconds.
    gap_ms: f64,
    #[serde(skip)]
    macs_as_in_scenario: bool,
    #[serde(skip)]
    traffic: Traffic,
}

/// Whether traffic continued in both directions after the cut, and whether it had to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Traffic {
    Recovered,
    /// The switch does not accept the MAC address that this policy gives to the new active slave.
    RefusedBySwitch,
    Failed,
}

#[derive(Serialize)]
struct Report {
    runs: Vec<Outcome>,
}

/// Runs xbond, alone or in the lab.
///
/// # Errors
/// The build fails, or the lab cannot be created.
pub fn run(arguments: &RunArguments) -> Result<ExitCode> {
    setup::ensure()?;
    let binary = machine::xbond()?;
    if !arguments.xbond.is_empty() {
        let error = machine::command(&binary.to_string_lossy()).arg("run").args(&arguments.xbond).exec();
        return Err(error).with_context(|| format!("cannot start {}", binary.display()));
    }
    if let Some(reason) = xbond_tests::obstacle() {
        bail!("the lab {reason}; try `sudo -E env PATH=\"$PATH\" cargo xtask run`");
    }
    if arguments.lab.keep && arguments.lab.wire == Wire::Tap {
        bail!("--keep goes with --wire veth only: taps end with the process that carries their frames");
    }
    xbond::use_binary(binary);
    remove_lab_on_signals()?;
    let result = all(&arguments.lab);
    if INTERRUPTED.load(Ordering::Acquire) {
        // The failure is due to the removal of the lab; the process ends when the lab is removed.
        loop {
            thread::park();
        }
    }
    result
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

fn remove_lab_on_signals() -> Result<()> {
    let handler = || {
        INTERRUPTED.store(true, Ordering::Release);
        netns::remove_all();
        eprintln!("interrupted; the lab is removed");
        std::process::exit(130);
    };
    ctrlc::set_handler(handler).context("cannot handle SIGINT")
}

fn all(arguments: &LabArguments) -> Result<ExitCode> {
    let every = [FailOverMac::None, FailOverMac::Active, FailOverMac::Follow];
    let policies = arguments.fail_over_mac.map_or(every.to_vec(), |only| vec![only]);
    let mut report = Report { runs: Vec::new() };
    for (place, policy) in policies.iter().enumerate() {
        let last = place + 1 == policies.len();
        let after_run = if last && arguments.keep { AfterRun::Keep } else { AfterRun::Remove };
        let outcome = one(arguments, *policy, after_run);
        report.runs.push(outcome.with_context(|| format!("the run with fail_over_mac={}", policy.name()))?);
    }
    if let Some(path) = &arguments.report {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    let good = report.runs.iter().all(|run| run.macs_as_in_scenario && run.traffic != Traffic::Failed);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What happens to a run's lab.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterRun {
    Remove,
    Keep,
}

fn one(arguments: &LabArguments, policy: FailOverMac, after_run: AfterRun) -> Result<Outcome> {
    let mut lab = build(arguments, after_run)?;
    let Running { agent, outcome } = run_in(&lab, arguments, policy)?;
    if after_run == AfterRun::Remove {
        agent.stop()?;
        return Ok(outcome);
    }
    let pid = agent.pid();
    let log = agent.detach()?;
    lab.keep()?;
    print_ways_to_look(&lab, pid, &log);
    Ok(outcome)
}

fn build(arguments: &LabArguments, after_run: AfterRun) -> Result<Lab> {
    let mut builder = Lab::builder();
    if after_run == AfterRun::Keep {
        builder = builder.name(KEPT_LAB);
    }
    if arguments.switch == Switch::Virtualbox {
        builder = builder.switch(Policy::VirtualBox);
    }
    if arguments.datapath == Datapath::Xdp {
        builder = builder.datapath(lab::Datapath::Xdp);
    }
    if arguments.wire == Wire::Tap {
        builder = builder.wire(lab::Wire::Tap);
    }
    builder.build().context("cannot build the lab")
}

struct Running<'lab> {
    agent: Xbond<'lab>,
    outcome: Outcome,
}

fn run_in<'lab>(lab: &'lab Lab, arguments: &LabArguments, policy: FailOverMac) -> Result<Running<'lab>> {
    let datapath = arguments.datapath.name();
    let files = xbond::scenario_files(policy.name());
    let agent =
        Xbond::run(&lab.host, [Path::new("--ifcfg"), &files, Path::new("--datapath"), Path::new(datapath)])?;
    println!("\nfail_over_mac={}, {}", policy.name(), arguments.describe());

    let rate = arguments.rate;
    let traffic = TwoWay::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), rate)?;
    traffic.wait_for_more(u64::from(rate)).context("no traffic over the bond before the cut")?;
    let before = macs(lab)?;
    print_links(lab, "before")?;
    let cut = lab.cut(FIRST, arguments.cut.into())?;
    thread::sleep(arguments.observation());
    let after = macs(lab)?;
    print_links(lab, "after")?;
    let flows = traffic.stop()?;

    let outcome = Outcome {
        fail_over_mac: policy,
        datapath,
        cut: arguments.cut,
        macs_as_in_scenario: [&before, &after] == expected(lab, policy)?.each_ref(),
        before,
        after,
        sent: flows.iter().map(|flow| flow.sent).sum(),
        received: flows.iter().map(|flow| flow.received).sum(),
        lost: flows.iter().map(|flow| flow.lost).sum(),
        gap_ms: flows.iter().map(|flow| ms(flow.longest_gap)).fold(0.0, f64::max),
        traffic: judge(&flows, cut, arguments.switch, policy),
    };
    print_flows(&flows, cut);
    if arguments.switch == Switch::Virtualbox {
        println!("  the switch refused {} frames at the port of {SECOND}", lab.switch.refused("p1")?);
    }
    println!("  xbond show {BOND}:");
    for line in agent.cli(["show", BOND])?.lines() {
        println!("    {line}");
    }
    println!("  {}", verdict(&outcome));
    Ok(Running { agent, outcome })
}

impl LabArguments {
    fn describe(&self) -> String {
        let switch = match self.switch {
            Switch::Learning => "learning switch",
            Switch::Virtualbox => "virtualbox switch",
        };
        let cut = match self.cut {
            Cut::Carrier => "cable of enp0s8 pulled",
            Cut::Admin => "enp0s8 set down",
        };
        format!("datapath {}, {switch}, {cut}", self.datapath.name())
    }

    /// Returns how long the traffic continues after the cut. A missing return path shows after up to 5 seconds.
    fn observation(&self) -> Duration {
        Duration::from_secs(if self.switch == Switch::Virtualbox { 6 } else { 2 })
    }
}

impl Datapath {
    fn name(self) -> &'static str {
        match self {
            Self::Tc => lab::Datapath::Tc.name(),
            Self::Xdp => lab::Datapath::Xdp.name(),
        }
    }
}

impl From<Cut> for lab::Cut {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Carrier => Self::Carrier,
            Cut::Admin => Self::Admin,
        }
    }
}

/// Returns the scenario's tables: the MAC addresses of bond, first and second slave, before and after the failover.
fn expected(lab: &Lab, policy: FailOverMac) -> Result<[MacTable; 2]> {
    let (first, second) = (lab.mac(FIRST)?, lab.mac(SECOND)?);
    let [before, after] = match policy {
        FailOverMac::None => [[first, first, first], [first, first, first]],
        FailOverMac::Active => [[first, first, second], [second, first, second]],
        FailOverMac::Follow => [[first, first, second], [first, second, first]],
    };
    let table = |macs: [Mac; 3]| {
        [BOND, FIRST, SECOND].map(String::from).into_iter().zip(macs.map(|mac| mac.to_string())).collect()
    };
    Ok([table(before), table(after)])
}

fn macs(lab: &Lab) -> Result<MacTable> {
    let links =
        lab.host.links()?.into_iter().filter(|link| [BOND, FIRST, SECOND].contains(&link.name.as_str()));
    Ok(links.map(|link| (link.name, link.mac.to_string())).collect())
}

fn judge(flows: &[FlowReport], cut: Instant, switch: Switch, policy: FailOverMac) -> Traffic {
    if flows.iter().all(|flow| flow.recovery(cut) != Recovery::Never) {
        Traffic::Recovered
    } else if switch == Switch::Virtualbox && policy != FailOverMac::Active {
        Traffic::RefusedBySwitch
    } else {
        Traffic::Failed
    }
}

fn verdict(outcome: &Outcome) -> String {
    let macs = if outcome.macs_as_in_scenario { "yes" } else { "NO" };
    let traffic = match outcome.traffic {
        Traffic::Recovered => "yes",
        Traffic::RefusedBySwitch => "no (switch refuses)",
        Traffic::Failed => "NO",
    };
    format!("=> MAC tables as in the scenario: {macs}; traffic recovered: {traffic}")
}

/// Prints name, state and MAC address as `ip -br link` shows them; the flags would not fit into the line.
fn print_links(lab: &Lab, when: &str) -> Result<()> {
    println!("  {when}:");
    for name in [BOND, FIRST, SECOND] {
        let line = lab.host.ip(&format!("-br link show dev {name}"))?;
        println!("    {}", line.split('<').next().unwrap_or_default().trim_end());
    }
    Ok(())
}

fn print_flows(flows: &[FlowReport], cut: Instant) {
    println!(
        "  {:<14} {:>8} {:>8} {:>8} {:>12} {:>14}",
        "traffic", "sent", "received", "lost", "longest gap", "recovered in"
    );
    for (flow, name) in flows.iter().zip(["host to peer", "peer to host"]) {
        let gap = format!("{:.1} ms", ms(flow.longest_gap));
        let recovery = match flow.recovery(cut) {
            Recovery::After(time) => format!("{:.1} ms", ms(time)),
            Recovery::Never => String::from("never"),
        };
        println!(
            "  {name:<14} {:>8} {:>8} {:>8} {gap:>12} {recovery:>14}",
            flow.sent, flow.received, flow.lost
        );
        if flow.overflowed > 0 {
            println!("    {} of them were lost by this program, not by the network", flow.overflowed);
        }
    }
}

fn print_ways_to_look(lab: &Lab, pid: u32, log: &Path) {
    let (host, peer, switch) = (lab.host.name(), lab.peer.name(), lab.switch.netns.name());
    let binary = xbond::binary().unwrap_or_else(|_| PathBuf::from("xbond"));
    println!("\nThe lab stays. To look around:");
    println!("  nsenter --net=/run/netns/{host} {} show", binary.display());
    println!("  ip -n {host} -br link");
    println!("  ip netns exec {peer} ping {HOST_V4}");
    println!("  ip -n {switch} link set p0 up  # plugs {FIRST} in again");
    println!("  less {}", log.display());
    println!("To remove it:");
    println!("  kill {pid}");
    for name in [host, peer, switch] {
        println!("  ip netns delete {name}");
    }
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_has_the_fields_that_readers_expect() {
        let table = MacTable::from([(String::from("bond0"), String::from("08:00:27:e8:26:58"))]);
        let outcome = Outcome {
            fail_over_mac: FailOverMac::Active,
            datapath: "tc",
            cut: Cut::Admin,
            before: table.clone(),
            after: table,
            sent: 3,
            received: 2,
            lost: 1,
            gap_ms: 1.5,
            macs_as_in_scenario: true,
            traffic: Traffic::Recovered,
        };
        let json = serde_json::to_value(Report { runs: vec![outcome] }).unwrap();
        let macs = serde_json::json!({"bond0": "08:00:27:e8:26:58"});
        let expected = serde_json::json!({"runs": [{"fail_over_mac": "active", "datapath": "tc", "cut": "admin",
            "before": macs, "after": macs, "sent": 3, "received": 2, "lost": 1, "gap_ms": 1.5}]});
        assert_eq!(json, expected);
    }
}
