//! What the verbs of `cargo xtask` share.

#![warn(clippy::missing_errors_doc)]

pub mod debian;
pub mod machine;
pub mod parity;
pub mod setup;
