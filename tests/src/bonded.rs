//! A bond on the lab's NICs, and helpers that tests of its traffic share.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{HOST_V4, Lab, NetNs, PEER_V4, Xbond, lab::Cut, lab::Datapath, wait_limit};

/// The name of the bond.
pub const BOND: &str = "bond0";
/// The driver's `fail_over_mac`.
pub const POLICIES: [&str; 3] = ["none", "active", "follow"];
/// Time between two polls of something that sends no notification when it changes.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// For each function, a test on each datapath: it is called with a [`Datapath`] and
/// fails if it returns an error.
#[macro_export]
macro_rules! on_each_datapath {
    ($($test:ident),* $(,)?) => {
        $crate::on_each_datapath!(@ tc Tc $($test)*);
        $crate::on_each_datapath!(@ xdp Xdp $($test)*);
    };
    (@ $module:ident $datapath:ident $($test:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $test() {
                    $crate::skip_if_unable!();
                    if let Err(error) = super::$test($crate::lab::Datapath::$datapath) {
                        panic!("{error:#}");
                    }
                }
            )*
        }
    };
}

/// Starts an `xbond` with a bond on the lab's NICs, the first of them active, miimon=100 and no address.
///
/// # Errors
/// The agent does not start, or ends before it is ready.
pub fn run<'lab>(lab: &'lab Lab, datapath: Datapath, policy: &str, more: &[&str]) -> Result<Xbond<'lab>> {
    let policy = format!("fail_over_mac={policy}");
    let mut arguments =
        vec!["--bond", BOND, "--datapath", datapath.name(), "-o", "miimon=100", "-o", &policy];
    for nic in &lab.nics {
        arguments.extend(["--slave", &nic.name]);
    }
    arguments.extend(more);
    Xbond::run(&lab.host, arguments)
}

/// Waits until each slave of the bond is up: a link that was lost for less than the kernel takes to report that is never
/// logged as up again.
///
/// # Errors
/// `xbond show` fails, or a slave stays down.
pub fn wait_for_slaves(xbond: &Xbond<'_>) -> Result<()> {
    wait_until("slaves that are all up", || {
        let bond = xbond.show(BOND)?["bonds"][0].take();
        Ok(bond["slaves"]
            .as_array()
            .is_some_and(|slaves| slaves.iter().all(|slave| slave["mii_status"] == "up")))
    })
}

/// A way to change the active slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// The active slave loses its carrier, and the switch deletes what it learned behind that port.
    CarrierCut,
    /// A request of the administrator (`active_slave`): both links stay, and the switch keeps sending to the former
    /// slave until it learns the new port.
    Planned,
}

/// Makes the bond fail over and waits until the agent reports it. Returns the time just before.
///
/// # Errors
/// The bond has one slave, the link cannot be cut, or the agent does not report the failover in time.
pub fn fail_over(lab: &Lab, xbond: &Xbond<'_>, by: Move) -> Result<Instant> {
    let active = active_slave(xbond)?;
    let other = lab.nics.iter().map(|nic| &nic.name).find(|name| **name != active);
    let other = other.context("a bond with one slave cannot fail over")?;
    let said = xbond.log().len();
    let start = match by {
        Move::CarrierCut => lab.cut(&active, Cut::Carrier)?,
        Move::Planned => {
            let start = Instant::now();
            xbond.set(BOND, &format!("active_slave={other}"))?;
            start
        }
    };
    xbond.wait_for_after(said, &format!("active slave {other} instead of {active}"))?;
    Ok(start)
}

/// Returns the name of the active slave.
///
/// # Errors
/// The agent does not answer, or the bond has no active slave.
pub fn active_slave(xbond: &Xbond<'_>) -> Result<String> {
    let report = xbond.show(BOND)?;
    let active = report["bonds"][0]["active_slave"].as_str();
    Ok(active.with_context(|| format!("no active slave in {report}"))?.to_owned())
}

/// Waits until `holds`, polling every 20 ms; the error names `what`.
///
/// # Errors
/// `holds` fails, or does not return true in time.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + wait_limit();
    while !holds()? {
        ensure!(Instant::now() < deadline, "{what}: not within {:?}", wait_limit());
        thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// Waits until every IPv6 address of an interface may be used (DAD).
///
/// # Errors
/// `ip` fails, or an address stays tentative.
pub fn wait_for_addresses(netns: &NetNs, interface: &str) -> Result<()> {
    wait_until(&format!("an address of {interface} that is not tentative"), || {
        Ok(netns.ip(&format!("-6 -o address show dev {interface} tentative"))?.trim().is_empty())
    })
}

/// Waits until host and peer reach each other by IPv4.
///
/// # Errors
/// One of them does not answer in time.
pub fn wait_for_path(host: &NetNs, peer: &NetNs) -> Result<()> {
    for (from, to) in [(host, PEER_V4), (peer, HOST_V4)] {
        wait_until(&format!("an answer from {to}"), || reaches(from, to.into()))?;
    }
    Ok(())
}

/// Returns whether one echo request is answered.
///
/// # Errors
/// `ping` cannot be run.
pub fn reaches(from: &NetNs, to: IpAddr) -> Result<bool> {
    Ok(from.ping(to, 1)?.received == 1)
}
