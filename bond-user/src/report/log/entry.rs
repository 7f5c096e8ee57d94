//! A line of the log as a program reads it.

use std::fmt;

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::layer::{Context, Layer};

use crate::report::lines;

/// A line of the log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// How serious it is.
    pub level: Level,
    /// The sentence.
    pub sentence: String,
    /// The facts, by the names in [`super::FIELDS`]; numbers are numbers.
    pub fields: Vec<(&'static str, serde_json::Value)>,
}

impl LogEntry {
    pub(super) fn of(event: &Event<'_>) -> Self {
        let level = event.normalized_metadata().map_or(*event.metadata().level(), |known| *known.level());
        let mut entry = Self { level, sentence: String::new(), fields: Vec::new() };
        event.record(&mut entry);
        entry
    }

    fn put(&mut self, field: &Field, value: serde_json::Value) {
        // The log crate's own fields are about the place in the code.
        if !field.name().starts_with("log.") {
            self.fields.push((field.name(), value));
        }
    }
}

impl Visit for LogEntry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.sentence = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}").into());
        }
    }
}

/// The layer that writes lines of the log as programs read them.
pub struct LogEntries(pub fn(&LogEntry) -> Vec<u8>);

impl<S: Subscriber> Layer<S> for LogEntries {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        lines::log((self.0)(&LogEntry::of(event)));
    }
}
