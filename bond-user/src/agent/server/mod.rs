//! The control socket, queries and metrics.

pub mod connections;
pub mod control;
pub mod counters;
pub mod metrics;
pub mod query;
pub mod retries;
pub mod settle;
