//! xbond behaves as the kernel's bonding driver was recorded: one test for each file of tests/fixtures/driver.
//!
//! `cargo xtask vm` compares both live; these tests need no other kernel. Where docs/PARITY.md documents a
//! difference, the lines after `!` in the fixture are expected.

use std::{cmp::Reverse, process::ExitCode, thread};

use anyhow::{Result, anyhow, bail};
use libtest_mimic::{Arguments, Trial};
use xbond_tests::{
    Lab, live_renaming, obstacle,
    parity::{self, OurBond, Pace, Scenario, same},
    skip_as, time_is_no_measure,
};

/// They mostly wait for links and timers, so more of them run than there are processors.
const AT_A_TIME: usize = 10;
/// The number for each processor of an emulated machine, as in `cargo xtask vm`.
const AT_A_TIME_EMULATED: usize = 2;

fn main() -> Result<ExitCode> {
    let mut arguments = Arguments::from_args();
    let at_a_time = match time_is_no_measure() {
        None => AT_A_TIME,
        Some(_) => AT_A_TIME_EMULATED * thread::available_parallelism()?.get(),
    };
    arguments.test_threads.get_or_insert(at_a_time);
    let trials = fixtures()?.into_iter().map(|(name, scenario)| {
        Trial::test(name.clone(), move || {
            conforms(&name, &scenario).map_err(|error| format!("{error:#}").into())
        })
    });
    Ok(libtest_mimic::run(&arguments, trials.collect()).exit_code())
}

/// The longest first, so that none runs alone at the end.
fn fixtures() -> Result<Vec<(String, Scenario)>> {
    let mut fixtures = Scenario::recorded()?;
    fixtures.sort_by_cached_key(|(name, scenario)| Reverse((scenario.duration(), name.clone())));
    Ok(fixtures)
}

fn conforms(name: &str, scenario: &Scenario) -> Result<()> {
    if let Some(reason) = obstacle() {
        skip_as(name, reason);
        return Ok(());
    }
    let lab = parity::lab()?;
    if let Some(lack) = scenario.needs.iter().find(|what| lacks(&lab, what)) {
        skip_as(name, &format!("this kernel has no {lack}; `cargo xtask vm --script {name}` has"));
        return Ok(());
    }
    if !live_renaming() && scenario.cases.iter().any(|case| case.step.to_string().contains(" name ")) {
        skip_as(name, "before Linux 6.2 an interface that is up keeps its name");
        return Ok(());
    }
    let pace = if time_is_no_measure().is_some() { Pace::Emulated } else { Pace::Native };
    let mut bond = OurBond::new(&lab.host);
    let result = parity::run(scenario, &lab, pace, &mut bond, |case, seen| {
        let expected = case.xbond();
        if !same(expected, &seen) {
            let (expected, seen) = (expected.join("\n    "), seen.join("\n    "));
            bail!("step `{}`\n  expected\n    {expected}\n  seen\n    {seen}", case.step);
        }
        Ok(())
    });
    result.map_err(|error| anyhow!("{error:#}\n  log of xbond\n{}", bond.log()))
}

/// Returns whether the kernel lacks a kind of device that a scenario needs.
fn lacks(lab: &Lab, what: &str) -> bool {
    let make = match what {
        "8021q" => "link add link lo name probe type vlan id 1",
        other => panic!("there is no check for {other}"),
    };
    let made = lab.host.ip(make).is_ok();
    if made {
        let _ = lab.host.ip("link delete probe");
    }
    !made
}
