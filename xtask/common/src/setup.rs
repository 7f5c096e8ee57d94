//! `cargo xtask setup`: finds what this machine lacks, and installs it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, bail};
use clap::Args;
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::machine;

/// The version that matches the pinned aya crates.
const LINKER_VERSION: &str = "0.13.0";
const BPFFS: &str = "/sys/fs/bpf";
/// Where Debian's libstd-rust-web-dev-bpf installs `core` for BPF; bond-user's build script searches there too.
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// The clippy of that compiler. It lints the programs, for which other compilers' `core` cannot be used.
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_CLIPPY_PACKAGE: &str = "rust-web-clippy";
/// The LLVM of that compiler; the linker's must be as new.
const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";
const DEBIAN_LLVM_PACKAGE: &str = "llvm-22-dev";
/// Its manifest asks for full debug information and optimization. It is not debugged, and LLVM, which comes compiled, does most
/// of its work: the programs are the same, and their build takes 3 % longer.
const LINKER_PROFILE: &str = "CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_OPT_LEVEL=1";
const LINKER_RELEASES: &str = "https://github.com/aya-rs/bpf-linker/releases/download";

/// Programs that the build, the tests and the lab call, and the Debian packages that contain them.
const TOOLS: [(&str, &str); 12] = [
    ("cc", "gcc"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
    ("bpftool", "bpftool"),
    ("iperf3", "iperf3"),
    ("curl", "curl"),
];

#[derive(Args)]
pub struct Arguments {
    /// Report what is missing and install nothing
    #[arg(long)]
    check: bool,
}

/// A program or file that this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Lack {
    /// A program, and the package that contains it.
    Tool {
        program: &'static str,
        package: &'static str,
    },
    /// A Rust compiler with `core` for BPF.
    Compiler,
    /// The clippy of that compiler.
    Clippy,
    Linker,
    /// Promtool without its package, prometheus, which would start a server.
    Promtool,
    /// /sys/fs/bpf is no BPF file system.
    BpfFs,
}

impl Lack {
    fn describe(&self) -> String {
        match self {
            Self::Tool { program, package } => format!("{program} (package {package})"),
            Self::Compiler => String::from("a Rust compiler for BPF"),
            Self::Clippy => String::from("clippy of the Rust compiler for BPF"),
            Self::Linker => format!("bpf-linker {LINKER_VERSION}"),
            Self::Promtool => String::from("promtool (of package prometheus)"),
            Self::BpfFs => format!("a BPF file system at {BPFFS}"),
        }
    }
}

/// The source of the compiler for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compiler {
    /// Debian's packages, with a prebuilt `core`.
    Debian,
    /// rustup's nightly, which builds `core` from rust-src.
    Rustup,
}

/// Installs what this machine lacks, or lists it.
///
/// # Errors
/// Something cannot be installed.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let lacks = lacks();
    for lack in &lacks {
        println!("missing: {}", lack.describe());
    }
    if lacks.is_empty() {
        println!("nothing is missing");
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check {
        return Ok(ExitCode::FAILURE);
    }
    provide(&lacks)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks the machine at the start of every other verb: silent and quick if nothing is missing.
///
/// # Errors
/// Something is missing and cannot be installed.
pub fn ensure() -> Result<()> {
    let lacks = lacks();
    if lacks.is_empty() { Ok(()) } else { provide(&lacks) }
}

/// Checks programs that only one verb calls; also gives the Debian packages that contain them.
///
/// # Errors
/// A program is missing and cannot be installed.
pub fn ensure_tools(tools: &[(&'static str, &'static str)]) -> Result<()> {
    let lacks = missing(tools);
    if lacks.is_empty() {
        return Ok(());
    }
    provide(&lacks)?;
    let still: Vec<_> = missing(tools).iter().map(Lack::describe).collect();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", still.join(", "));
    }
    Ok(())
}

/// Checks a file that only one verb reads, at the path where a Debian package installs it.
///
/// # Errors
/// The file is missing, and its package cannot be installed.
pub fn ensure_file(path: &'static str, package: &'static str) -> Result<()> {
    if !Path::new(path).exists() {
        provide(&[Lack::Tool { program: path, package }])?;
    }
    if !Path::new(path).exists() {
        bail!("still missing after the installation of {package}: {path}");
    }
    Ok(())
}

/// Returns the toolchain that compiles the BPF programs, as bond-user's build script chooses it: a directory, `/usr` for
/// Debian's, or the name of a toolchain of rustup.
pub fn bpf_toolchain() -> String {
    let chosen = env::var("XBOND_BPF_TOOLCHAIN").ok();
    let debian = Path::new(DEBIAN_CORE).is_dir().then(|| String::from("/usr"));
    chosen.or(debian).unwrap_or_else(|| String::from("nightly"))
}

/// Installs the clippy of [`bpf_toolchain`] if it is missing. A toolchain that XBOND_BPF_TOOLCHAIN names is left as it is.
///
/// # Errors
/// It cannot be installed.
pub fn ensure_bpf_clippy() -> Result<()> {
    if env::var_os("XBOND_BPF_TOOLCHAIN").is_some() || has_bpf_clippy() {
        return Ok(());
    }
    provide(&[Lack::Clippy])?;
    if !has_bpf_clippy() {
        bail!("still missing after the installation: {}", Lack::Clippy.describe());
    }
    Ok(())
}

fn has_bpf_clippy() -> bool {
    match compiler() {
        Some(Compiler::Debian) => Path::new(DEBIAN_CLIPPY).is_file(),
        Some(Compiler::Rustup) => {
            let output = machine::command("rustup").args(["run", "nightly", "cargo-clippy", "-V"]).output();
            output.is_ok_and(|output| output.status.success())
        }
        None => false,
    }
}

fn missing(tools: &[(&'static str, &'static str)]) -> Vec<Lack> {
    let tools = tools.iter().filter(|(program, _)| machine::find(program).is_none());
    tools.map(|&(program, package)| Lack::Tool { program, package }).collect()
}

fn lacks() -> Vec<Lack> {
    let mut lacks = missing(&TOOLS);
    if env::var_os("XBOND_BPF_TOOLCHAIN").is_none() && compiler().is_none() {
        lacks.push(Lack::Compiler);
    }
    if !has_linker() {
        lacks.push(Lack::Linker);
    }
    // On other machines its tests are skipped, and report that.
    if machine::find("promtool").is_none() && machine::find("apt-get").is_some() {
        lacks.push(Lack::Promtool);
    }
    if !has_bpffs() {
        lacks.push(Lack::BpfFs);
    }
    lacks
}

/// Returns the compiler that bond-user's build script will find.
fn compiler() -> Option<Compiler> {
    if Path::new(DEBIAN_CORE).is_dir() {
        return Some(Compiler::Debian);
    }
    let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let toolchains = home.or_else(|| Some(env::home_dir()?.join(".rustup")))?.join("toolchains");
    // Searched for in the file system: rustup would start a download when asked.
    let has_source = |toolchain: &Path| toolchain.join("lib/rustlib/src/rust/library/core").is_dir();
    let nightly = fs::read_dir(toolchains).ok()?.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let dated = name.strip_prefix("nightly-").is_some_and(|rest| rest.starts_with("20"));
        name.starts_with("nightly-") && !dated && has_source(&entry.path())
    });
    nightly.then_some(Compiler::Rustup)
}

fn has_linker() -> bool {
    let output = machine::command("bpf-linker").arg("--version").output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).split_whitespace().any(|word| word == LINKER_VERSION)
    })
}

fn has_bpffs() -> bool {
    statfs(BPFFS).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

/// Properties of this machine on which a plan depends.
#[derive(Clone, Copy, Debug)]
struct Means {
    /// The compiler that exists, or that can be installed.
    compiler: Option<Compiler>,
    root: bool,
    apt: bool,
}

/// Returns the shell commands that install what is missing, in order.
fn plan(lacks: &[Lack], means: Means) -> Vec<String> {
    let mut packages: Vec<&str> = Vec::new();
    let mut commands: Vec<String> = Vec::new();
    let sudo = if means.root { "" } else { "sudo " };
    for lack in lacks {
        match (lack, means.compiler) {
            (Lack::Tool { package, .. }, _) => packages.push(package),
            (Lack::Compiler, Some(Compiler::Debian)) => packages.extend(DEBIAN_COMPILER),
            (Lack::Compiler, Some(Compiler::Rustup) | None) => commands.push(String::from(
                "rustup toolchain install nightly --profile minimal --component rust-src",
            )),
            (Lack::Clippy, Some(Compiler::Debian)) => packages.push(DEBIAN_CLIPPY_PACKAGE),
            (Lack::Clippy, Some(Compiler::Rustup) | None) => {
                commands.push(String::from("rustup component add clippy --toolchain nightly"));
            }
            (Lack::Linker, Some(Compiler::Debian)) => {
                packages.extend([DEBIAN_LLVM_PACKAGE, "g++"]);
                commands.push(format!(
                    "LLVM_PREFIX={DEBIAN_LLVM} {LINKER_PROFILE} cargo install bpf-linker \
                     --version {LINKER_VERSION} --no-default-features --features llvm-22"
                ));
            }
            // Nightly's LLVM is newer than any distribution's; the released binary contains a recent one.
            (Lack::Linker, Some(Compiler::Rustup) | None) => {
                packages.extend(["curl", "zstd"]);
                let file = format!("bpf-linker-{}-unknown-linux-musl.tar.zst", env::consts::ARCH);
                let place = machine::cargo_bin().unwrap_or_else(|| PathBuf::from("."));
                commands.push(format!(
                    "curl -fsSL {LINKER_RELEASES}/v{LINKER_VERSION}/{file} | tar --zstd -x -C {}",
                    place.display()
                ));
            }
            (Lack::Promtool, _) => {
                let place = machine::cargo_bin().unwrap_or_else(|| PathBuf::from(".")).join("promtool");
                let place = place.display();
                commands.push(format!(
                    "cd \"$(mktemp -d)\" && apt-get download prometheus && \
                     dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x -O ./usr/bin/promtool >{place}.new && \
                     chmod 755 {place}.new && mv {place}.new {place} && rm -r \"$PWD\""
                ));
            }
            (Lack::BpfFs, _) => commands.push(format!("{sudo}mount -t bpf bpf {BPFFS}")),
        }
    }
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        let install = if means.apt { "apt-get install -y --no-install-recommends" } else { "INSTALL" };
        commands.insert(0, format!("{sudo}{install} {}", packages.join(" ")));
    }
    commands
}

fn provide(lacks: &[Lack]) -> Result<()> {
    let apt = machine::find("apt-get").is_some();
    let (root, mut updated) = (machine::is_root(), false);
    if root && apt && lacks.iter().any(|lack| !matches!(lack, Lack::BpfFs)) && !apt_knows(DEBIAN_LLVM_PACKAGE)
    {
        // On a fresh machine apt's lists are empty: they are updated before the plan depends on them.
        update(&mut updated)?;
    }
    let debian = apt && DEBIAN_COMPILER.iter().all(|package| apt_knows(package));
    let available = if debian { Compiler::Debian } else { Compiler::Rustup };
    let means = Means { compiler: Some(compiler().unwrap_or(available)), root, apt };
    let commands = plan(lacks, means);

    let needs_packages = lacks.iter().any(|lack| !matches!(lack, Lack::BpfFs));
    if !root || (needs_packages && !apt) {
        let reason = if root { "there is no apt-get" } else { "you are not root" };
        let missing: Vec<_> = lacks.iter().map(Lack::describe).collect();
        bail!(
            "missing: {}. It cannot be installed from here, because {reason}. Run:\n  {}",
            missing.join(", "),
            commands.join("\n  ")
        );
    }
    for command in &commands {
        let result = shell(command);
        if result.is_err() && command.contains("apt-get") && !updated {
            // The lists are older than the archive.
            update(&mut updated)?;
            shell(command)?;
        } else {
            result?;
        }
    }
    let still: Vec<_> = self::lacks().iter().map(Lack::describe).collect();
    if !still.is_empty() {
        bail!("still missing after the installation: {}", still.join(", "));
    }
    Ok(())
}

fn update(updated: &mut bool) -> Result<()> {
    *updated = true;
    shell("apt-get update")
}

fn apt_knows(package: &str) -> bool {
    let output = machine::command("apt-cache").args(["show", "--no-all-versions", package]).output();
    output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
}

fn shell(line: &str) -> Result<()> {
    println!("$ {line}");
    let mut shell = machine::command("sh");
    let status = shell.args(["-c", line]).env("DEBIAN_FRONTEND", "noninteractive").status()?;
    if !status.success() {
        bail!("`{line}`: {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Means = Means { compiler: Some(Compiler::Debian), root: true, apt: true };
    const PING: Lack = Lack::Tool { program: "ping", package: "iputils-ping" };

    #[test]
    fn packages_come_first_in_one_command_and_once_each() {
        let twice = Lack::Tool { program: "tc", package: "iproute2" };
        let lacks = [PING, twice.clone(), twice, Lack::Compiler, Lack::Linker, Lack::BpfFs];
        let commands = plan(&lacks, ROOT);
        assert_eq!(
            commands[0],
            "apt-get install -y --no-install-recommends cargo-web g++ iproute2 iputils-ping \
             libstd-rust-web-dev-bpf llvm-22-dev rustc-web"
        );
        assert!(
            commands[1].starts_with("LLVM_PREFIX=/usr/lib/llvm-22 CARGO_PROFILE_RELEASE_DEBUG=0 ")
                && commands[1].contains(" cargo install bpf-linker --version 0.13.0 ")
        );
        assert_eq!(commands[2..], ["mount -t bpf bpf /sys/fs/bpf"]);
    }

    #[test]
    fn clippy_comes_from_where_the_compiler_does() {
        for (compiler, expected) in [
            (Compiler::Debian, "apt-get install -y --no-install-recommends rust-web-clippy"),
            (Compiler::Rustup, "rustup component add clippy --toolchain nightly"),
        ] {
            let means = Means { compiler: Some(compiler), ..ROOT };
            assert_eq!(plan(&[Lack::Clippy], means), [expected], "{compiler:?}");
        }
    }

    #[test]
    fn promtool_comes_without_its_server() {
        let commands = plan(&[Lack::Promtool], ROOT);
        assert_eq!(commands.len(), 1, "{commands:?}");
        assert!(commands[0].contains("apt-get download prometheus") && !commands[0].contains("install"));
    }

    #[test]
    fn without_debians_compiler_rustup_provides_it() {
        let means = Means { compiler: Some(Compiler::Rustup), ..ROOT };
        let commands = plan(&[Lack::Compiler, Lack::Linker], means);
        assert_eq!(commands[0], "apt-get install -y --no-install-recommends curl zstd");
        assert!(commands[1].starts_with("rustup toolchain install nightly"), "{commands:?}");
        assert!(commands[2].contains("/v0.13.0/bpf-linker-"), "{commands:?}");
    }

    #[test]
    fn without_root_commands_that_need_it_use_sudo() {
        let means = Means { root: false, ..ROOT };
        let commands = plan(&[PING, Lack::Linker, Lack::BpfFs], means);
        let with_sudo: Vec<_> = commands.iter().map(|command| command.starts_with("sudo ")).collect();
        assert_eq!(with_sudo, [true, false, true], "{commands:?}");
    }
}
