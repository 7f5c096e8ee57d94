//! What xbond depends on: licences, sources, and known vulnerabilities (deny.toml).

use anyhow::Result;
use xtask_common::machine;

/// What of deny.toml needs no network.
const LOCAL: [&str; 3] = ["bans", "licenses", "sources"];

/// Checks the dependencies by cargo-deny and cargo-audit. What is not installed, or has no database, is skipped, and said.
/// Returns whether nothing is wrong.
///
/// # Errors
/// A program cannot be started.
pub fn check() -> Result<bool> {
    if machine::find("cargo-deny").is_none() {
        skip("dependencies: there is no cargo-deny: cargo install --locked cargo-deny");
        return Ok(true);
    }
    let deny = |words: &[&str]| machine::run(machine::cargo().arg("deny").args(words));
    let mut is_well = deny(&[&["--log-level", "error", "check"], &LOCAL[..]].concat())?.success();
    if !deny(&["--log-level", "off", "fetch", "db"])?.success() {
        skip("advisories: their database, https://github.com/rustsec/advisory-db, cannot be fetched");
        return Ok(is_well);
    }
    is_well &= deny(&["--log-level", "error", "check", "advisories"])?.success();
    if machine::find("cargo-audit").is_some() {
        is_well &= machine::run(machine::cargo().args(["audit", "--quiet"]))?.success();
    } else {
        skip("cargo audit: there is no cargo-audit: cargo install --locked cargo-audit");
    }
    Ok(is_well)
}

fn skip(what: &str) {
    println!("skipped: {what}");
}
