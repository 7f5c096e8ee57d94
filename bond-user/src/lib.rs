//! xbond's user space: the bonding engine, its effects, the agent that joins them, and the command line.

pub mod agent;

pub mod cli;
pub mod config;
pub mod report;
pub mod store;
pub mod sys;
