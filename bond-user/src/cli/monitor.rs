//! `xbond monitor`

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use bond_core::name::{printable, printable_json};
use tokio::signal;

use super::{MonitorArgs, client};
use crate::{
    api::{Call, Endpoint},
    report::{
        event::{Event, What},
        text, wording,
    },
};

/// Prints events as they occur: `xbond monitor`.
///
/// # Errors
/// There is no agent or no such bond, or the agent ends.
pub fn monitor(arguments: &MonitorArgs) -> Result<()> {
    let call = match &arguments.bond {
        Some(bond) => Endpoint::BondEvents.call_of(bond),
        None => Endpoint::Events.call(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            answer = follow(&call, arguments.json) => answer,
            _ = signal::ctrl_c() => Ok(()),
        }
    })
}

async fn follow(call: &Call, json: bool) -> Result<()> {
    let mut lines = client::lines(call).await?;
    while let Some(line) = lines.next().await? {
        let event: Event = serde_json::from_slice(&line).context(wording::other_version())?;
        let text = match json {
            true => printable_json(&String::from_utf8_lossy(&line)),
            false => printable(&text::event(&event)),
        };
        let mut output = std::io::stdout().lock();
        if writeln!(output, "{text}").and_then(|()| output.flush()).is_err() {
            // A reader that closes early, such as head, is no error.
            return Ok(());
        }
        if let What::Lagged { .. } = event.what {
            bail!(wording::events_lost());
        }
    }
    bail!(wording::agent_ended())
}
