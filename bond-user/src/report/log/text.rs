//! The log as text: time, level and sentence.

use tracing::Subscriber;
use tracing_subscriber::{
    fmt::{self, format},
    layer::Layer,
    registry::LookupSpan,
};

use super::FIELDS;
use crate::report::lines::LogWriter;

/// Returns the layer that writes lines as text. The sentence says what the known fields say, so only fields of other
/// crates are written.
pub fn layer<S>(has_colour: bool) -> impl Layer<S> + Send + Sync
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let fields = format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        name if name.starts_with("log.") || FIELDS.iter().any(|(known, _)| *known == name) => Ok(()),
        name => write!(writer, " {name}={value:?}"),
    });
    fmt::layer().with_writer(LogWriter).with_target(false).with_ansi(has_colour).fmt_fields(fields)
}
