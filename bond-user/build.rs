//! Builds the BPF programs and leaves the object in OUT_DIR.
//!
//! The compiler is chosen so that one checkout builds everywhere: what XBOND_BPF_TOOLCHAIN names, else
//! Debian's rustc in /usr if it has a `core` for BPF, else rustup's nightly.

use std::{env, fs, io, os::unix::fs::symlink, path::Path};

use anyhow::{Context as _, Result};
use aya_build::{Package, Toolchain, build_ebpf};

/// Where Debian's libstd-rust-web-dev-bpf puts `core` for BPF.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=XBOND_BPF_TOOLCHAIN");
    // aya_build names the programs' own crate only, and most of what they decide is in this one.
    println!("cargo:rerun-if-changed={}", concat!(env!("CARGO_MANIFEST_DIR"), "/../bond-common"));
    compress_line_tables();
    let chosen = env::var("XBOND_BPF_TOOLCHAIN").ok();
    let debian = Path::new(DEBIAN_CORE).is_dir().then(|| String::from("/usr"));
    let toolchain = match chosen.or(debian) {
        Some(toolchain) => {
            if Path::new(&toolchain).is_absolute() {
                // A stable compiler, which has to let these crates use nightly features.
                // SAFETY: build scripts run this before they start a thread.
                unsafe { env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,bond_ebpf") };
            }
            Toolchain::Custom(toolchain.leak())
        }
        None => Toolchain::default(),
    };
    share_target_directory()?;
    let root_dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../bond-ebpf");
    let package = Package { name: "bond-ebpf", root_dir, ..Package::default() };
    build_ebpf([package], toolchain)
        .context("BPF programs not built; `cargo xtask setup` installs what is missing")
}

/// Has the linker compress the line tables of the release build, which are four fifths of it; backtraces read them so, too.
fn compress_line_tables() {
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo:rustc-link-arg-bins=-Wl,--compress-debug-sections=zlib");
    }
}

/// Lets all builds of this package compile the BPF programs in one directory, `target/bpf`.
///
/// `aya_build` compiles in OUT_DIR. Cargo has one OUT_DIR for each profile and each set of features, so that a build, a
/// check and a test run would each compile the programs and their dependencies again.
fn share_target_directory() -> Result<()> {
    let out = env::var_os("OUT_DIR").context("OUT_DIR is not set")?;
    let out = Path::new(&out);
    // target/PROFILE/build/PACKAGE/out
    let target = out.ancestors().nth(4).context("OUT_DIR is not below a target directory")?;
    let (shared, link) = (target.join("bpf"), out.join("aya-build"));
    fs::create_dir_all(&shared).with_context(|| format!("cannot create {}", shared.display()))?;
    if link.is_dir() && !link.is_symlink() {
        fs::remove_dir_all(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    // A target directory that was copied has links to the one that it was copied from.
    if fs::read_link(&link).is_ok_and(|of| of != shared) {
        fs::remove_file(&link).with_context(|| format!("cannot remove {}", link.display()))?;
    }
    match symlink(&shared, &link) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot create {}", link.display()))
        }
        _ => Ok(()),
    }
}
