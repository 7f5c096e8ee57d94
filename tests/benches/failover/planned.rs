//! Measures switches on request, and agents that end and start: no packet is lost.

use std::{fs, io::Write as _, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramInfo;
use bond_core::name::BondName;
use bond_user::{store::paths::Paths, sys::dataplane::Kernel};
use tempfile::{NamedTempFile, TempDir};
use xbond_tests::{
    HOST_V4, Lab, PEER_V4, TwoWay, Xbond, bonded,
    bonded::{BOND, Move},
    flow::FlowReport,
    lab::Datapath,
    xbond::{binary, cli},
};

use crate::{
    Options, Scene,
    row::{Row, gaps},
};

/// Packets/s in each direction.
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
    for happening in [Happening::Kill, Happening::Restart, Happening::Upgrade, Happening::Reload] {
        for datapath in [Datapath::Tc, Datapath::Xdp] {
            // The quick run measures each once.
            let is_chosen = (datapath == Datapath::Xdp) == (happening == Happening::Upgrade);
            if options.quick && !is_chosen {
                continue;
            }
            let name = format!("{}, {}", happening.name(), datapath.name());
            let measure = move |row: &mut Row, options: &Options| agent(row, options, datapath, happening);
            scenes.push(Scene::new("agent", &name, measure));
        }
    }
    scenes
}

fn traffic(lab: &Lab) -> Result<TwoWay> {
    let traffic = TwoWay::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), RATE)?;
    traffic.wait_for_more(BETWEEN / 2)?;
    Ok(traffic)
}

fn switch(row: &mut Row, options: &Options, datapath: Datapath, policy: &str, prearm: bool) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    let address = format!("{HOST_V4}/24");
    let mut more = vec!["--address", &address];
    more.extend(prearm.then_some("--prearm"));
    let xbond = bonded::run(&lab, datapath, policy, &more)?;
    bonded::wait_for_path(&lab.host, &lab.peer)?;
    let traffic = traffic(&lab)?;
    let mut switches = Vec::new();
    for _ in 0..options.cuts {
        switches.push(bonded::fail_over(&lab, &xbond, Move::Planned)?);
        traffic.wait_for_more(BETWEEN)?;
    }
    let reports = traffic.stop()?;
    xbond.stop()?;
    row.number("switches", switches.len() as f64);
    report(row, options, &reports, &switches)
}

/// Adds columns for losses, copies and gaps.
fn report(row: &mut Row, options: &Options, reports: &[FlowReport; 2], events: &[Instant]) -> Result<()> {
    for (way, report) in ["out", "in"].iter().zip(reports) {
        row.number(&format!("{way}: sent"), report.sent as f64);
        row.number(&format!("{way}: received"), report.received as f64);
        row.at_most(&format!("{way}: lost"), report.lost as f64, 0.0);
        row.at_most(&format!("{way}: duplicated"), report.duplicated as f64, 0.0);
        row.spread(&format!("{way}: gap"), "ms", &gaps(report, events), None);
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

/// What happens to the agent while packets flow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Happening {
    /// kill -9; some time later another agent adopts the bond.
    Kill,
    /// SIGTERM under on_exit=keep, and another agent at once: `systemctl restart`.
    Restart,
    /// A restart with another binary, whose programs replace the running ones.
    Upgrade,
    /// The file has changed, and the agent reads it again.
    Reload,
}

impl Happening {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 and restart",
            Self::Restart => "restart, on_exit=keep",
            Self::Upgrade => "upgrade in place",
            Self::Reload => "reload of a changed file",
        }
    }
}

fn agent(row: &mut Row, options: &Options, datapath: Datapath, happening: Happening) -> Result<()> {
    let lab = Lab::builder().datapath(datapath).build()?;
    let mut installed = Installed::new(datapath)?;
    let mut xbond = installed.start(&lab)?;
    bonded::wait_for_path(&lab.host, &lab.peer)?;
    let first = programs(&lab)?;
    let mut running = first.clone();
    let mut replaced = 0;
    let traffic = traffic(&lab)?;
    let mut events = Vec::new();
    // Each takes longer than the measured event.
    for _ in 0..options.cuts.div_ceil(5) {
        events.push(Instant::now());
        xbond = match happening {
            Happening::Reload => {
                installed.change_file()?;
                let said = xbond.cli(["reload"])?;
                ensure!(!said.trim().is_empty(), "the reload changed nothing");
                xbond
            }
            Happening::Kill => {
                xbond.kill()?;
                // Without any agent.
                traffic.wait_for_more(BETWEEN / 2)?;
                installed.start(&lab)?
            }
            Happening::Restart | Happening::Upgrade => {
                xbond.stop()?;
                if happening == Happening::Upgrade {
                    installed.change_binary();
                }
                installed.start(&lab)?
            }
        };
        traffic.wait_for_more(BETWEEN)?;
        let now = programs(&lab)?;
        replaced += now.iter().filter(|id| !running.contains(id)).count();
        running = now;
    }
    let reports = traffic.stop()?;
    xbond.stop()?;
    cli(&lab.host, ["down", BOND, "--force"])?;
    row.number("times", events.len() as f64);
    row.number("programs replaced", replaced as f64);
    // Filters of clsact cannot be replaced without a gap, and stay.
    let can_replace = datapath == Datapath::Xdp || Kernel::read().has_tcx();
    let expected =
        if happening == Happening::Reload || !can_replace { 0 } else { events.len() * first.len() };
    ensure!(replaced == expected, "{replaced} programs were replaced instead of {expected}");
    report(row, options, &reports, &events)
}

/// Returns the numbers of the programs that carry the bond's packets.
fn programs(lab: &Lab) -> Result<Vec<u32>> {
    let pins = Paths::of(lab.host.cookie()?).pins_of(&BondName::new(BOND)?).path();
    let entries = fs::read_dir(&pins).with_context(|| format!("cannot read {}", pins.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let programs = paths.filter(|path| path.to_string_lossy().ends_with("_prog"));
    programs.map(|path| Ok(ProgramInfo::from_pin(path)?.id())).collect()
}

/// The files from which agents are started.
struct Installed {
    datapath: Datapath,
    file: NamedTempFile,
    changes: u32,
    /// The binary under test, and a copy of it.
    binaries: [PathBuf; 2],
    _directory: TempDir,
}

impl Installed {
    fn new(datapath: Datapath) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory")?;
        let (binary, other) = (binary()?, directory.path().join("xbond"));
        fs::copy(&binary, &other).context("cannot copy the binary")?;
        let file = NamedTempFile::with_suffix(".toml").context("cannot make a file")?;
        let installed = Self { datapath, file, changes: 0, binaries: [binary, other], _directory: directory };
        installed.write_file()?;
        Ok(installed)
    }

    /// Writes the file; each change is one of options, of an address and of a route.
    fn write_file(&self) -> Result<()> {
        let (miimon, more) = if self.changes.is_multiple_of(2) {
            (100, String::from("routes = []"))
        } else {
            (50, format!("num_grat_arp = 3\nroutes = [{{ to = \"198.51.100.0/24\", via = \"{PEER_V4}\" }}]"))
        };
        let further = if miimon == 50 { ", \"192.168.99.102/24\"" } else { "" };
        let text = format!(
            "version = 1\n[bond.{BOND}]\nslaves = [\"enp0s8\", \"enp0s9\"]\nmiimon = {miimon}\n\
             on_exit = \"keep\"\ndatapath = \"{}\"\nfail_over_mac = \"active\"\n\
             addresses = [\"{HOST_V4}/24\"{further}]\n{more}\n",
            self.datapath.name()
        );
        let mut file = self.file.as_file();
        file.set_len(0)?;
        std::io::Seek::rewind(&mut file)?;
        file.write_all(text.as_bytes()).context("cannot write the configuration")
    }

    fn change_file(&mut self) -> Result<()> {
        self.changes += 1;
        self.write_file()
    }

    /// Makes the next agent use the other binary.
    fn change_binary(&mut self) {
        self.binaries.reverse();
    }

    fn start<'lab>(&self, lab: &'lab Lab) -> Result<Xbond<'lab>> {
        let mut command = lab.host.command(&self.binaries[0]);
        command.arg("run").arg("-c").arg(self.file.path());
        let xbond = Xbond::start_as(&lab.host, command)?;
        xbond.wait_for("ready")?;
        Ok(xbond)
    }
}
