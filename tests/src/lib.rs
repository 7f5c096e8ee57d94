//! Library of the namespace tests and of the lab: a host with a few NICs, a switch and a peer, each in its own
//! network namespace, the `xbond` process in the host, ways to cut a link, and traffic that is counted.
//!
//! ```no_run
//! use std::time::Duration;
//! use xbond_tests::{Cut, HOST_V4, Lab, PEER_V4, TwoWay, Xbond};
//!
//! # fn main() -> anyhow::Result<()> {
//! let lab = Lab::scenario()?;
//! let xbond = Xbond::run(&lab.host, ["--bond", "bond0", "--slave", "enp0s8", "--slave", "enp0s9",
//!     "-o", "miimon=100", "--address", "192.168.99.101/24"])?;
//! let traffic = TwoWay::start((&lab.host, HOST_V4.into()), (&lab.peer, PEER_V4.into()), 5_000)?;
//! traffic.wait_for_more(1_000)?;
//! lab.cut("enp0s8", Cut::Carrier)?;
//! traffic.wait_for_more(1_000)?;
//! let [to_peer, to_host] = traffic.stop()?;
//! assert_eq!(to_peer.lost + to_host.lost, 0);
//! assert_eq!(lab.host.link("bond0")?.mac, lab.mac("enp0s8")?);
//! xbond.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything is removed on drop, also after a panic; the next run removes what a killed run left.

#![warn(clippy::missing_errors_doc)]

pub mod bonded;
pub mod bulk;
pub mod capture;
pub mod console;
pub mod datagram;
pub mod failing_calls;
pub mod figures;
pub mod flow;
pub mod frames;
pub mod lab;
pub mod link;
pub mod link_watch;
pub mod load;
pub mod netns;
pub mod packet;
pub mod parity;
pub mod ping;
mod progress;
pub mod rtnl;
pub mod sequence;
pub mod service_filter;
pub mod soft_switch;
pub mod storm;
pub mod stp_nic;
pub mod switch;
pub mod tap;
pub mod xbond;

pub use bond_common::mac::Mac;
pub use bulk::Bulk;
pub use capture::{Capture, Frame};
pub use datagram::Listener;
pub use flow::{Flow, FlowOptions, TwoWay};
pub use lab::{Cut, HOST_V4, HOST_V6, Lab, LabBuilder, Nic, PEER_V4, PEER_V6};
pub use link_watch::LinkWatch;
pub use netns::NetNs;
pub use packet::PacketSocket;
pub use sequence::{Account, Recovery};
pub use switch::{Policy, Switch};
pub use xbond::Xbond;

/// How long a test waits for an event that should occur within milliseconds: far longer than any scheduling delay of
/// a busy machine, so that a timeout is a defect.
pub const WAIT_LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// Returns [`WAIT_LIMIT`] for this machine: an emulated one may need that long to verify a program.
pub fn wait_limit() -> std::time::Duration {
    if time_is_no_measure().is_some() { WAIT_LIMIT * 4 } else { WAIT_LIMIT }
}

/// Returns why tests in namespaces cannot run here, if so.
pub fn obstacle() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root to make network namespaces");
    }
    None
}

/// The variable of an emulated machine, on which times of milliseconds are meaningless. vm/init sets it.
const EMULATED: &str = "XBOND_EMULATED";

/// Returns why times are meaningless here, if so.
pub fn time_is_no_measure() -> Option<&'static str> {
    std::env::var_os(EMULATED).map(|_| "milliseconds are no measure in an emulated machine")
}

/// Returns whether programs of tc have links, which a pin holds; before Linux 6.6 they are filters of clsact.
pub fn has_tcx() -> bool {
    kernel_is_at_least(6, 6)
}

/// Returns whether XDP can redirect frames in fragments, such as jumbo frames; before Linux 6.3 it cannot.
pub fn redirects_fragments() -> bool {
    kernel_is_at_least(6, 3)
}

/// Returns whether an interface that is up can be renamed; before Linux 6.2 it cannot.
pub fn live_renaming() -> bool {
    kernel_is_at_least(6, 2)
}

fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next(), numbers.next()) >= (Some(major), Some(minor))
}

/// Reports on stderr, past the test runner's capture, which part of the running test this machine cannot run.
pub fn skip(reason: &str) {
    skip_as(std::thread::current().name().unwrap_or("a test"), reason);
}

/// Reports a skipped test that has no thread of its name, like [`skip`].
pub fn skip_as(name: &str, reason: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {reason}");
}

/// Returns from a test that this machine cannot run, and reports the reason on stderr, past the test runner's
/// capture.
#[macro_export]
macro_rules! skip_if_unable {
    () => {
        if let Some(reason) = $crate::obstacle() {
            return $crate::skip(reason);
        }
    };
}
