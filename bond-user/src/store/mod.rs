//! What the agent keeps on disk and on bpffs, and what is read of it without an agent.

pub mod collect;
pub mod offline;
pub mod paths;
pub mod receipts;
pub mod record;
