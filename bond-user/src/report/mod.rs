//! What people and programs read: one model, as JSON and as text.

pub mod json;
pub mod procfs;
pub mod text;
