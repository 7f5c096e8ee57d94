//! xbond's user space: the agent, the command line, and what both are built on.
//!
//! From the lowest layer to the highest; each imports only what is listed before it:
//!
//! 1. [`sys`]: the kernel's interfaces, as effects.
//! 2. [`config`]: configurations of all dialects, and what is wrong in them.
//! 3. [`report`]: what leaves the program, as sentences ([`report::wording`]), text, JSON and metrics.
//! 4. [`store`]: files and pins of bonds, and what can be read from them without an agent.
//! 5. [`api`]: what client and server of the control socket agree about.
//! 6. [`agent`]: brings bonds up, manages them, and takes them down.
//! 7. [`cli`]: the command line. It knows the agent only as the other end of the API; `xbond run` starts one.

#![cfg_attr(
    not(test),
    warn(
        missing_docs,
        clippy::expect_used,
        clippy::missing_errors_doc,
        clippy::missing_panics_doc,
        clippy::panic,
        clippy::unwrap_used
    )
)]

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod report;
pub mod store;
pub mod sys;
