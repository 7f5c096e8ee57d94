//! The agent's files on disk and pins on bpffs, and reading them without an agent.

pub mod collect;
pub mod drains;
pub mod elsewhere;
mod error;
#[cfg(test)]
mod fuzz;
mod of_boot;
pub mod offline;
pub mod paths;
pub mod published;
pub mod receipts;
pub mod record;
pub mod takeovers;

pub use self::error::StoreError;
