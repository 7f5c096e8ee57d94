//! Programs and paths of this machine.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
};

use anyhow::{Context as _, Result, bail};

/// Directories of administrators' tools, which are not in every user's PATH.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Returns the checkout.
pub fn root() -> &'static Path {
    // This crate is xtask/common.
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."))
}

/// Returns cargo's target directory, which contains this program in PROFILE/.
///
/// # Errors
/// This program was moved out of the target directory.
pub fn target() -> Result<PathBuf> {
    let here = env::current_exe().context("cannot find the path of this program")?;
    let target = here.ancestors().nth(2).context("this program is not in a target directory")?;
    Ok(target.to_owned())
}

/// Returns the search path, followed by the directories of cargo's and the administrators' programs.
fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = cargo_bin().into_iter().chain(SYSTEM_DIRECTORIES.map(PathBuf::from));
    env::join_paths(env::split_paths(&path).chain(more)).unwrap_or(path)
}

/// Returns the directory of `cargo install`.
pub fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    Some(home.or_else(|| Some(env::home_dir()?.join(".cargo")))?.join("bin"))
}

/// Returns the path of a program.
pub fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path()).map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Returns a command for a program that `find` finds, to be run in the checkout.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(find(program).unwrap_or_else(|| program.into()));
    command.env("PATH", search_path()).current_dir(root());
    command
}

/// Returns the cargo that started this program.
pub fn cargo() -> Command {
    let mut command = command("cargo");
    if let Some(cargo) = env::var_os("CARGO") {
        command = Command::new(cargo);
        command.env("PATH", search_path()).current_dir(root());
    }
    command
}

/// Prints a command, runs it, and returns its exit status.
///
/// # Errors
/// The program cannot be started. An exit status other than 0 is no error.
pub fn run(command: &mut Command) -> Result<ExitStatus> {
    let line = line(command);
    eprintln!("$ {line}");
    command.status().with_context(|| format!("cannot run `{line}`"))
}

/// Prints a command and runs it; it must exit with 0.
///
/// # Errors
/// The program cannot be started, or exits with something else than 0.
pub fn run_well(command: &mut Command) -> Result<()> {
    let status = run(command)?;
    if !status.success() {
        bail!("`{}`: {status}", line(command));
    }
    Ok(())
}

/// Builds xbond's release build and returns its path, or the path in XBOND_BIN.
///
/// # Errors
/// The build fails, or XBOND_BIN names no file.
pub fn xbond() -> Result<PathBuf> {
    if let Some(path) = env::var_os("XBOND_BIN") {
        return fs::canonicalize(&path).with_context(|| format!("XBOND_BIN names {}", path.display()));
    }
    let build = ["build", "--release", "--package", "bond-user", "--bin", "xbond"];
    run_well(cargo().args(build))?;
    Ok(target()?.join("release/xbond"))
}

/// Formats a command as typed: without the directory of the program.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
