//! What runs for each bond: the engine thread, the worker, the announcer, the ARP prober.

pub mod announcer;
pub mod arp_prober;
pub mod clock;
pub mod confirmer;
pub mod engine_handle;
pub mod engine_thread;
pub mod enslave_request;
pub mod guard;
pub mod interface;
pub mod kernel_monitor;
pub mod ledger;
pub mod link_mail;
mod mailbox;
pub mod misdirections;
pub mod missed_failovers;
pub mod notices;
mod path_check;
pub mod path_targets;
#[cfg(test)]
mod protocol;
pub mod receipt_writer;
pub mod recorder;
pub mod ring_reader;
pub mod work;
pub mod worker;

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs what waits for RTNL inside a system call, for as long as another process holds it, while other tasks run. A
/// runtime of one thread, as simulators have, has no other thread for them.
fn waiting<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::CurrentThread) => work(),
        _ => tokio::task::block_in_place(work),
    }
}
