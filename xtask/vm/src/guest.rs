//! Builds the guest's initramfs: busybox, the kernel's modules, programs with their libraries, and a job.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};

use super::{cache, kernel::Kernel};
use xtask_common::machine;

/// Modules and their parameters; those on which they depend are added ahead of them.
const MODULES: [(&str, &str); 18] = [
    ("bridge", ""),
    ("8021q", ""),
    ("veth", ""),
    // Without a bond0 in the first namespace.
    ("bonding", "max_bonds=0"),
    ("team", ""),
    ("team_mode_activebackup", ""),
    ("dummy", "numdummies=0"),
    ("macvlan", ""),
    ("ipvlan", ""),
    ("tun", ""),
    ("sch_ingress", ""),
    ("cls_bpf", ""),
    ("act_mirred", ""),
    ("sch_netem", ""),
    ("sch_tbf", ""),
    ("nf_tables", ""),
    ("e1000e", ""),
    ("igb", ""),
];

/// Programs that tests and scenarios call.
const PROGRAMS: [&str; 13] = [
    "ip", "bridge", "tc", "nft", "ethtool", "ping", "tcpdump", "bpftool", "nsenter", "setpriv", "prlimit",
    "unshare", "curl",
];
/// tcpdump switches to the user of this name.
const USERS: &str = "root:x:0:0::/root:/bin/sh\ntcpdump:x:101:101::/:/bin/false\n";
const GROUPS: &str = "root:x:0:\ntcpdump:x:101:\n";
const DIRECTORIES: [&str; 12] =
    ["bin/busybox.d", "lib", "lib64", "modules", "proc", "sys", "dev", "tmp", "run", "etc", "var", "root"];

/// The number of guests that this process has created.
static GUESTS: AtomicU32 = AtomicU32::new(0);

/// A directory that becomes the guest's root. Removed on drop.
pub struct Guest {
    root: PathBuf,
}

impl Guest {
    /// Creates a guest of this kernel, without a job.
    ///
    /// # Errors
    /// The directory cannot be written, or a program or module of the guest is missing.
    pub fn of(kernel: &Kernel) -> Result<Self> {
        let number = GUESTS.fetch_add(1, Ordering::Relaxed);
        let root = cache()?.join(format!("guest-{}-{number}", std::process::id()));
        let guest = Self { root };
        for directory in DIRECTORIES {
            fs::create_dir_all(guest.root.join(directory))?;
        }
        fs::write(guest.root.join("etc/passwd"), USERS)?;
        fs::write(guest.root.join("etc/group"), GROUPS)?;
        symlink("/run", guest.root.join("var/run"))?;
        let busybox = machine::find("busybox").context("no busybox")?;
        guest.add_file(&busybox, "bin/busybox")?;
        guest.add_file(&machine::root().join("vm/init"), "init")?;
        fs::set_permissions(guest.root.join("init"), fs::Permissions::from_mode(0o755))?;
        for program in PROGRAMS {
            let path = machine::find(program).with_context(|| format!("no {program}"))?;
            guest.add_program(&path, &format!("bin/{program}"))?;
        }
        let mut order = Vec::new();
        for (name, parameters) in MODULES {
            guest.add_module(kernel, (name, parameters), &mut order)?;
        }
        let lines: String = order.iter().map(|(name, parameters)| format!("{name} {parameters}\n")).collect();
        fs::write(guest.root.join("modules/order"), lines)?;
        Ok(guest)
    }

    /// Adds a module after those on which it depends, unless it was added before or is no module of this kernel.
    fn add_module(
        &self,
        kernel: &Kernel,
        (name, parameters): (&str, &str),
        order: &mut Vec<(String, String)>,
    ) -> Result<()> {
        if order.iter().any(|(added, _)| added == name) {
            return Ok(());
        }
        let Some(module) = kernel.module(name)? else { return Ok(()) };
        for dependency in dependencies(&module) {
            self.add_module(kernel, (&dependency, ""), order)?;
        }
        fs::write(self.root.join("modules").join(format!("{name}.ko")), module)?;
        order.push((name.to_owned(), parameters.to_owned()));
        Ok(())
    }

    /// Adds a file at `path`, which is relative to the guest's root.
    ///
    /// # Errors
    /// The file is missing, or the guest's root cannot be written.
    pub fn add_file(&self, from: &Path, path: &str) -> Result<()> {
        let to = self.root.join(path);
        if let Some(directory) = to.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        Ok(())
    }

    /// Adds a directory with its contents.
    ///
    /// # Errors
    /// `cp` fails.
    pub fn add_tree(&self, from: &Path, path: &Path) -> Result<()> {
        let to = self.root.join(path);
        fs::create_dir_all(&to)?;
        machine::run_well(machine::command("cp").arg("-rL").arg(from.join(".")).arg(&to))
    }

    /// Adds a program, stripped, with the libraries that it needs.
    ///
    /// # Errors
    /// The program or one of its libraries is missing, or the guest's root cannot be written.
    pub fn add_program(&self, from: &Path, path: &str) -> Result<()> {
        let from = fs::canonicalize(from).with_context(|| format!("no {}", from.display()))?;
        let to = self.root.join(path);
        // Debug information would take most of the memory and time of unpacking in the guest.
        let stripped = machine::command("strip").arg("-o").arg(&to).arg(&from).stderr(Stdio::null()).status();
        if !stripped.is_ok_and(|status| status.success()) {
            self.add_file(&from, path)?;
        }
        let output = machine::command("ldd").arg(&from).output().context("cannot run ldd")?;
        for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            let library = Path::new(word);
            let (true, Some(name)) = (library.is_absolute(), library.file_name()) else { continue };
            let directory = if word.starts_with("/lib64/") { "lib64" } else { "lib" };
            self.add_file(library, &format!("{directory}/{}", name.display()))?;
        }
        Ok(())
    }

    /// Sets the guest's job: a shell script.
    ///
    /// # Errors
    /// The guest's root cannot be written.
    pub fn job(&self, script: &str) -> Result<()> {
        fs::write(self.root.join("job"), format!("{script}\n")).context("cannot write the guest's job")
    }

    /// Packs the root; returns the archive.
    ///
    /// # Errors
    /// `cpio` fails.
    pub fn pack(&self) -> Result<PathBuf> {
        let archive = self.root.with_extension("cpio");
        let mut shell = machine::command("sh");
        shell.args(["-c", "find . | cpio --create --format=newc --quiet"]);
        let output = fs::File::create(&archive).context("cannot make the guest's archive")?;
        let status = shell.current_dir(&self.root).stdout(output).status().context("cannot run cpio")?;
        ensure!(status.success(), "cpio: {status}");
        Ok(archive)
    }
}

/// Returns the names of the modules on which a module depends, from its section .modinfo: strings with a NUL after
/// each.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut strings = module.split(|byte| *byte == 0).filter_map(|string| string.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(strings.next().unwrap_or_default()).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
        let _ = fs::remove_file(self.root.with_extension("cpio"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_modules_dependencies_are_those_of_its_modinfo() {
        let module = |depends: &str| format!("\x7fELF\0license=GPL\0{depends}retpoline=Y\0").into_bytes();
        let of = |depends: &str| dependencies(&module(depends));
        assert_eq!(of("depends=nfnetlink,libcrc32c\0"), ["nfnetlink", "libcrc32c"]);
        assert_eq!(of("depends=\0"), [""; 0]);
        assert_eq!(of(""), [""; 0], "built without modules that depend on others");
    }
}
