//! What the programs say.

use std::io;

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use bond_common::event::{DataPlaneEvent, EventRecord};
use tokio::io::unix::AsyncFd;
use tracing::{info, warn};

use crate::agent::bond::engine_thread::{BondId, EngineHandle, Input};

/// Hands the programs' log lines (aya-log) on to the log.
pub async fn log(logger: EbpfLogger<&'static dyn log::Log>) {
    let watching = async {
        // SAFETY: the logger owns its descriptor and keeps it open as long as it lives.
        let mut logger = unsafe { AsyncFd::register(logger) }?;
        loop {
            let mut ready = logger.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    };
    ended(watching.await);
}

/// Passes on what the programs put into EVENTS: failovers to the engine, the rest to the log.
pub async fn events(bond: String, events: RingBuf<MapData>, (engine, id): (EngineHandle, BondId)) {
    let watching = async {
        // SAFETY: the map owns its descriptor and keeps it open as long as it lives.
        let mut events = unsafe { AsyncFd::register(events) }?;
        loop {
            let mut ready = events.readable_mut().await?;
            while let Some(item) = ready.get_inner_mut().next() {
                match EventRecord::parse(&item).and_then(|record| record.event()) {
                    Some(DataPlaneEvent::HostMacLearned(mac)) => {
                        info!("{bond}: the host behind the port has {mac}");
                    }
                    // What ACTIVE holds by now counts, not what it held then.
                    Some(DataPlaneEvent::FailedOver(_)) => engine.send(Input::ActiveChanged(id)),
                    None => warn!("{bond}: the programs sent an event of another version"),
                }
            }
            ready.clear_ready();
        }
    };
    ended(watching.await);
}

fn ended(answer: io::Result<std::convert::Infallible>) {
    let Err(error) = answer;
    warn!("what the programs say is not read any more: {error}");
}
