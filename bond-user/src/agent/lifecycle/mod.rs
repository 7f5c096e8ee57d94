//! How bonds are created, adopted, changed by files, and taken down.

pub mod adopt;
pub mod confirm;
pub mod create;
pub mod lost;
pub mod missed_failovers;
pub mod move_addresses;
pub mod reload;
pub mod slaves;
