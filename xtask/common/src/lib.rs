//! What the verbs of `cargo xtask` share.

pub mod machine;
pub mod parity;
pub mod setup;
