//! The log: a sentence for people, and fields for programs.
//!
//! [`Facts`] names all fields. Where a line goes is decided once ([`start`]):
//!
//! - On a terminal, in a file or in a pipe it is the sentence alone: it says what the fields say.
//! - In systemd's journal each field is one of the entry, with the prefix `XBOND_` ([`journal`]).
//! - With `--log-format json` a line is an object ([`json`]).

mod entry;
mod facts;
mod journal;
mod json;
mod text;

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, registry};

pub use self::facts::{FIELDS, Facts, of};
use super::lines;

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// To systemd's journal if it reads standard error, otherwise as text.
    #[default]
    Auto,
    /// One sentence a line.
    Text,
    /// One JSON object a line, with the fields.
    Json,
}

/// netlink-proto warns of answers without a waiting request, such as an abandoned one, which is normal.
const DEFAULT_FILTER: &str = "info,netlink_proto=error";

/// Starts the log, INFO and above unless RUST_LOG sets another filter. It does not wait for readers.
///
/// # Errors
/// It was started before.
pub fn start(format: LogFormat) -> anyhow::Result<()> {
    tracing_log::LogTracer::init()?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let is_in_journal = format == LogFormat::Auto && start_journal();
    let layer = match format {
        _ if is_in_journal => entry::LogEntries(journal::datagram).boxed(),
        LogFormat::Json => {
            lines::write_notes_as(json::plain);
            entry::LogEntries(json::line).boxed()
        }
        LogFormat::Auto | LogFormat::Text => text::layer(io::stderr().is_terminal()).boxed(),
    };
    tracing::subscriber::set_global_default(registry().with(filter).with(layer))?;
    Ok(())
}

/// Has the lines of the log go to systemd's journal, if that reads standard error. Returns whether they do.
fn start_journal() -> bool {
    if !journal::reads(io::stderr()) {
        return false;
    }
    match journal::open(journal::SOCKET) {
        Ok(socket) => lines::send_log_to(socket, journal::plain),
        // journald reads standard error, so a line still arrives, without its fields.
        Err(_) => false,
    }
}
