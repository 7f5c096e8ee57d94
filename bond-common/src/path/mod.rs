//! The path monitor: whether what a slave sends reaches a neighbour and comes back, carrier or not.
//!
//! The tick of the clock sends probes and judges the answers, whether an agent runs or not. The programs of slaves note
//! what they hear. The agent writes the settings, and prepares the frames.
//!
//! - [`layout`]: the values of the maps.
//! - [`answer`]: which frames that a slave receives are answers.
//! - [`judge`]: when the tick probes, and what it concludes.

pub mod answer;
pub mod judge;
pub mod layout;
