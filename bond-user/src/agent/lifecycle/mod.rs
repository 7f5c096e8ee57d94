//! How bonds are created, adopted, changed by files, and taken down.

pub mod add;
pub mod adopt;
mod checks;
pub mod configured;
pub mod confirm;
pub mod create;
mod drain;
pub mod end;
mod join;
pub mod lost;
pub mod machine;
pub mod move_addresses;
pub(in crate::agent) mod own_settings;
mod port;
pub mod reload;
pub mod returned;
pub mod slaves;
pub mod start;
mod takeover;
#[cfg(test)]
pub(in crate::agent) mod testing;
#[cfg(test)]
mod tests;

/// Bytes; the MTU of a bond whose configuration has none.
pub const DEFAULT_MTU: u32 = 1500;
