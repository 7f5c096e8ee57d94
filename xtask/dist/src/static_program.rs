//! The static program: xbond with musl as its C library, which runs on every Linux distribution.
//!
//! Rust's standard library for musl comes from rustup, if the target is installed there. Otherwise it is compiled from
//! the sources of Debian's compiler, and linked with musl of Debian's package and the unwinder of GCC.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use xtask_common::{machine, setup};

use crate::{contents, version};

/// The sources of the standard library of Debian's compiler, and the package that contains them.
const DEBIAN_SOURCES: (&str, &str) = ("/usr/lib/rustlib/src/rust/library/std/Cargo.toml", "rust-web-src");
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Builds the static program in cargo's target directory and returns its path, or the path in XBOND_STATIC_BIN.
///
/// # Errors
/// There is no standard library for musl, and none can be compiled; the build fails; XBOND_STATIC_BIN names no file.
pub fn build() -> Result<PathBuf> {
    if let Some(path) = env::var_os("XBOND_STATIC_BIN") {
        return fs::canonicalize(&path).with_context(|| format!("XBOND_STATIC_BIN names {}", path.display()));
    }
    let target = target();
    let mut cargo = if has_rustup_target(&target) { machine::cargo() } else { debian(&target)? };
    cargo.args(["build", "--release", "--package", "bond-user", "--bin", "xbond", "--target", &target]);
    machine::run_well(&mut cargo)?;
    Ok(machine::target()?.join(target).join("release/xbond"))
}

/// Copies the program, without its symbols, to where packages are, and returns its path there.
///
/// # Errors
/// strip fails.
pub fn publish(program: &Path, packages: &Path) -> Result<PathBuf> {
    let path = packages.join(format!("xbond-{}-{}-linux-static", version(), env::consts::ARCH));
    contents::strip(program, &path)?;
    Ok(path)
}

fn target() -> String {
    format!("{}-unknown-linux-musl", env::consts::ARCH)
}

/// Returns whether the toolchain of this checkout has a standard library for `target`.
fn has_rustup_target(target: &str) -> bool {
    let output = machine::command("rustc").args(["--print", "target-libdir", "--target", target]).output();
    let path = output.ok().filter(|output| output.status.success());
    path.is_some_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir())
}

/// Returns Debian's cargo, which compiles the standard library, too.
fn debian(target: &str) -> Result<Command> {
    let advice = format!("`rustup target add {target}` installs the standard library for static programs");
    ensure!(Path::new(DEBIAN_CARGO).exists() || machine::find("apt-get").is_some(), "{advice}");
    setup::ensure_tools(&[("musl-gcc", "musl-tools"), ("ar", "binutils"), ("cc", "gcc")])?;
    setup::ensure_file(DEBIAN_SOURCES.0, DEBIAN_SOURCES.1).context(advice)?;
    let unwinder = unwinder()?;
    let variable = target.to_uppercase().replace('-', "_");
    let mut cargo = machine::command(DEBIAN_CARGO);
    cargo
        // They may be more than the release notes promise for a stable compiler: -Z flags.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", DEBIAN_RUSTC)
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .env(format!("CARGO_TARGET_{variable}_RUSTFLAGS"), flags(&unwinder)?)
        .arg("-Zbuild-std");
    Ok(cargo)
}

/// Returns the flags that link a position-independent static program with musl. musl-gcc cannot: its specification adds
/// a dynamic loader.
fn flags(unwinder: &Path) -> Result<String> {
    let musl = PathBuf::from(format!("/usr/lib/{}-linux-musl", env::consts::ARCH));
    let (start, init, end) = (musl.join("rcrt1.o"), musl.join("crti.o"), musl.join("crtn.o"));
    let (begin_gcc, end_gcc) = (file_of_gcc("crtbeginS.o")?, file_of_gcc("crtendS.o")?);
    let mut flags = vec![String::from("-Clinker=cc"), String::from("-Clink-self-contained=no")];
    flags.extend([unwinder, &musl].map(|path| format!("-Lnative={}", path.display())));
    flags.push(String::from("-Zpre-link-args=-nostartfiles"));
    flags.extend([&start, &init, &begin_gcc].map(|path| format!("-Zpre-link-args={}", path.display())));
    flags.extend([&end_gcc, &end].map(|path| format!("-Clink-arg={}", path.display())));
    Ok(flags.join(" "))
}

/// Makes libunwind.a, which Rust's standard library links, of GCC's unwinder and packaging/musl/dl_find_object.c, and
/// returns its directory.
fn unwinder() -> Result<PathBuf> {
    let directory = machine::root().join("target/dist/musl");
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let (library, object) = (directory.join("libunwind.a"), directory.join("dl_find_object.o"));
    let from = file_of_gcc("libgcc_eh.a")?;
    fs::copy(&from, &library).with_context(|| format!("cannot copy {}", from.display()))?;
    let mut compile = machine::command("musl-gcc");
    compile.args(["-Wall", "-Wextra", "-O2", "-fPIE", "-c", "packaging/musl/dl_find_object.c", "-o"]);
    machine::run_well(compile.arg(&object))?;
    machine::run_well(machine::command("ar").arg("r").arg(&library).arg(&object))?;
    Ok(directory)
}

/// Returns the path of a file that GCC links programs with.
fn file_of_gcc(name: &str) -> Result<PathBuf> {
    let output = machine::command("cc").arg(format!("-print-file-name={name}")).output();
    let output = output.context("cannot run cc")?;
    let path = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    ensure!(path.is_absolute(), "cc has no {name}");
    Ok(path)
}
