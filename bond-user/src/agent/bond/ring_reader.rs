//! Readers of what the programs report.

use std::{io, os::fd::OwnedFd};

use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};
use tracing::warn;

use crate::{
    agent::bond::engine_handle::{BondId, EngineHandle},
    report::wording,
};

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

/// Has the engine read EVENTS whenever the programs put something into it. `events` is a descriptor of the map.
pub async fn events(events: OwnedFd, (engine, id): (EngineHandle, BondId)) {
    let watching = async {
        // SAFETY: the descriptor is owned, and open as long as this lives.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
        loop {
            events.readable().await?.clear_ready();
            engine.data_plane_events(id);
        }
    };
    ended(watching.await);
}

fn ended(answer: io::Result<std::convert::Infallible>) {
    let Err(error) = answer;
    warn!("{}", wording::log_ended(&error));
}
