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

use std::{
    env,
    io::{self, IsTerminal as _},
};

use tracing::Level;
use tracing_subscriber::{Layer as _, filter::Targets, layer::SubscriberExt as _, registry};

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

/// The variable with the filter.
const FILTER_VARIABLE: &str = "RUST_LOG";

/// Starts the log, INFO and above unless RUST_LOG sets another filter. It does not wait for readers.
///
/// # Errors
/// It was started before.
pub fn start(format: LogFormat) -> anyhow::Result<()> {
    tracing_log::LogTracer::init()?;
    let filter = filter(env::var(FILTER_VARIABLE).ok().as_deref());
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

/// Returns the filter of this text: levels, or targets with levels, as `debug,netlink_proto=error`. Another text, or none, is
/// the default.
fn filter(text: Option<&str>) -> Targets {
    let wanted = text.filter(|text| !text.is_empty()).and_then(|text| text.parse().ok());
    // netlink-proto warns of answers without a waiting request, such as an abandoned one, which is normal.
    wanted.unwrap_or_else(|| {
        Targets::new().with_default(Level::INFO).with_target("netlink_proto", Level::ERROR)
    })
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

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::filter;

    #[test]
    fn a_filter_is_a_level_or_levels_of_targets() {
        let table = [
            (None, "bond_user", Level::INFO, true),
            (None, "bond_user", Level::DEBUG, false),
            (None, "netlink_proto::handle", Level::WARN, false),
            (Some(""), "bond_user", Level::INFO, true),
            (Some("bond_user=loud"), "bond_user", Level::INFO, true),
            (Some("debug"), "bond_user::agent", Level::DEBUG, true),
            (Some("warn"), "bond_user", Level::INFO, false),
            (Some("warn,bond_user=debug"), "bond_user::agent", Level::DEBUG, true),
            (Some("warn,bond_user=debug"), "hyper", Level::INFO, false),
        ];
        for (text, target, level, is_logged) in table {
            assert_eq!(filter(text).would_enable(target, &level), is_logged, "{text:?} {target} {level}");
        }
    }
}
