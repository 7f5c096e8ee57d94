//! The control socket, queries, metrics, and files for other programs.

pub mod connections;
pub mod control;
pub mod counters;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
pub mod metrics;
pub mod published;
pub mod query;
pub mod retries;
pub mod settle;
