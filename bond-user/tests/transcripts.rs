//! What the command line says without an agent, word for word: each file of tests/cmd is commands and their output.
//! `TRYCMD=overwrite cargo test -p bond-user --test transcripts` writes what it says now.

use std::process::ExitCode;

use nix::sched::{CloneFlags, unshare};

/// A program of its own, as a process with threads cannot enter a user namespace.
fn main() -> ExitCode {
    // No agent runs there, whichever user runs this.
    let alone = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET;
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET).or_else(|_| unshare(alone)) {
        eprintln!("skipped: a network namespace of its own: {}", error.desc());
        return ExitCode::SUCCESS;
    }
    trycmd::TestCases::new().case("tests/cmd/*.trycmd");
    ExitCode::SUCCESS
}
