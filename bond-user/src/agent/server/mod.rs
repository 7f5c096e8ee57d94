//! The control socket, events, queries and metrics.

pub mod access;
pub mod connections;
pub mod control;
pub mod counters;
pub mod events;
pub mod metrics;
pub mod query;
pub mod retries;
pub mod settle;
