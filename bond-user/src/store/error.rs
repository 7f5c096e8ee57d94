//! What the store could not read, write or restore.

use std::{io, path::PathBuf};

use bond_common::abi::ABI_VERSION;
use bond_core::name::shell_word;

use crate::{
    store::paths::PathError,
    sys::{SysError, dataplane::DataPlaneError},
};

/// What the store could not read, write or restore.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Sys(#[from] SysError),
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    #[error(transparent)]
    Place(#[from] PathError),
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path}: {problem}; it is damaged, or was not written by xbond")]
    BadRecord { path: PathBuf, problem: String },
    #[error(
        "{path}: version {found}; xbond reads version {wanted} here: use the version of xbond that wrote it"
    )]
    OtherRecord { path: PathBuf, found: u32, wanted: u32 },
    #[error(
        "{bond}: its maps are of version {found}, this xbond reads {ABI_VERSION}; use the version of xbond that created them"
    )]
    OtherMaps { bond: String, found: u32 },
    #[error("{0}: no agent left a bond of this name behind in this network namespace")]
    NothingLeft(String),
    #[error(
        "{bond}: its programs and maps are removed, but its interfaces still have what the bond set: found.json has their \
         original state, and cannot be used ({fault}); to do: {commands}, and restore their addresses, routes, offloads and MTU"
    )]
    NoRecord { bond: String, fault: String, commands: String },
    #[error(
        "{bond}: {} in found.json, but nothing in the kernel confirms that: no alias xbond:{bond} (ip -d link), and no \
         program of {bond}. Not changed; all else of {bond} is removed. If {bond} had {}: {}; xbond down {} --force. If \
         not: rm -r {}", are(names), them(names), aliases(names, bond), shell_word(.bond), shell_word(files.display())
    )]
    Unconfirmed { bond: String, names: Vec<String>, files: PathBuf },
    #[error(
        "{bond}: not restored: {failures}; found.json keeps the original state, all else of {bond} is removed. To try again: \
         xbond down {} --force. To leave it as it is: rm -r {}", shell_word(.bond), shell_word(files.display())
    )]
    NotRestored { bond: String, failures: String, files: PathBuf },
}

fn are(names: &[String]) -> String {
    format!("{} {}", names.join(", "), if names.len() == 1 { "is" } else { "are" })
}

fn them(names: &[String]) -> &'static str {
    if names.len() == 1 { "it" } else { "them" }
}

/// Returns the commands that mark interfaces as the bond's.
fn aliases(names: &[String], bond: &str) -> String {
    let alias = |name: &String| {
        let (name, alias) = (shell_word(name), shell_word(format!("xbond:{bond}")));
        format!("ip link set {name} alias {alias}")
    };
    names.iter().map(alias).collect::<Vec<_>>().join("; ")
}
