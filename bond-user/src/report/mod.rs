//! Reports for people and programs: one model, as JSON, text and metrics.

pub mod collection;
pub mod counted;
pub mod drain;
pub mod event;
pub mod json;
pub mod lines;
pub mod log;
pub mod metrics;
pub mod misdirected;
pub mod moment;
pub mod path;
pub mod path_state;
pub mod pending;
pub mod procfs;
pub mod receipt;
pub mod repeats;
#[cfg(test)]
pub mod testing;
pub mod text;
pub mod unrecorded;
pub mod wording;
