//! Debian's kernels: fetched by apt, unpacked, and cached.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::cache;
use xtask_common::machine;

/// Debian releases with kernels of several ages, oldest first.
const SUITES: [&str; 4] = ["bookworm", "bookworm-backports", "trixie", "trixie-backports"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The flavour of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// The smallest ones with bonding and the devices of the lab.
    Cloud,
    /// Those with the drivers of NICs.
    Full,
}

impl Flavour {
    fn has(self, version: &str) -> bool {
        let others = ["-cloud-amd64", "-rt-amd64"];
        match self {
            Self::Cloud => version.ends_with(others[0]),
            Self::Full => version.ends_with("-amd64") && !others.iter().any(|other| version.ends_with(other)),
        }
    }
}

const NEWEST: &str = "newest";

/// The first bytes of a compressed kernel inside its boot image, and the program that decompresses it.
const COMPRESSIONS: [(&[u8], &str); 4] =
    [(b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\0", "xz"), (b"\x1f\x8b\x08", "gzip"), (b"\x02!L\x18", "lz4")];
const ELF: &[u8] = b"\x7fELF";

/// A kernel that can be booted.
pub struct Kernel {
    /// The version in `uname -r`.
    pub version: String,
    directory: PathBuf,
}

impl Kernel {
    /// Returns the newest kernel whose version begins with `wanted`, and fetches it if there is none here. A kernel
    /// that is here is used although there may be a newer one.
    ///
    /// # Errors
    /// Debian has no such kernel, or it cannot be fetched and unpacked.
    pub fn provide(wanted: &str, flavour: Flavour) -> Result<Self> {
        let kernels = cache()?.join("kernels");
        fs::create_dir_all(&kernels)?;
        let here = fs::read_dir(&kernels)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let here =
            here.filter(|name| flavour.has(name) && kernels.join(name).join("vmlinux").is_file()).collect();
        let version = match pick(here, wanted) {
            Some(version) if wanted != NEWEST => version,
            _ => pick(offered(flavour)?, wanted).with_context(|| {
                format!("Debian has no kernel {wanted}; `cargo xtask vm kernels` lists them")
            })?,
        };
        let kernel = Self { directory: kernels.join(&version), version };
        if !kernel.image().is_file() {
            kernel.fetch().with_context(|| format!("kernel {}", kernel.version))?;
        }
        Ok(kernel)
    }

    /// Returns the kernel as an ELF file, which QEMU boots without a decompressor that is slow to emulate.
    pub fn image(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    /// Returns the uncompressed module of this name, if the kernel has it as a module. `-` and `_` are the same in
    /// the names of modules.
    ///
    /// # Errors
    /// The module's file cannot be read or decompressed.
    pub fn module(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = find(&self.directory.join("root"), &|file| {
            file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
        }) else {
            return Ok(None);
        };
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let compression = COMPRESSIONS.iter().find(|(magic, _)| bytes.starts_with(magic));
        compression.map_or(Ok(bytes.clone()), |(_, tool)| decompress(tool, &bytes)).map(Some)
    }

    fn fetch(&self) -> Result<()> {
        let root = self.directory.join("root");
        fs::create_dir_all(&root)?;
        println!("fetching linux-image-{}", self.version);
        unpack(&format!("linux-image-{}", self.version), &root)?;
        // Later kernels consist of several packages.
        for part in ["linux-binary", "linux-modules"] {
            let package = format!("{part}-{}", self.version);
            if apt("apt-cache")?.args(["show", &package]).output()?.status.success() {
                unpack(&package, &root)?;
            }
        }
        let boot_image =
            find(&root, &|file| file.starts_with("vmlinuz")).context("no vmlinuz in the package")?;
        let image = fs::read(&boot_image).with_context(|| format!("cannot read {}", boot_image.display()))?;
        // Written under another name first: a file with the final name is complete.
        let new = self.directory.join("vmlinux.new");
        fs::write(&new, extract(&image).context("no kernel found in vmlinuz")?)?;
        fs::rename(&new, self.image()).context("cannot rename vmlinux")
    }
}

/// Returns the newest of these versions that `wanted` names: the whole version, its beginning up to a dot or the
/// like, or the newest of all.
fn pick(mut versions: Vec<String>, wanted: &str) -> Option<String> {
    versions.retain(|version| {
        wanted == NEWEST
            || version
                .strip_prefix(wanted)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    });
    versions.sort_by_key(|version| numbers(version));
    versions.pop()
}

/// Returns the numbers in a version, for comparison: 6.9 is older than 6.12.
fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Returns the kernels that Debian offers, with their versions in `uname -r`.
///
/// # Errors
/// `apt-cache` cannot be run.
pub fn offered(flavour: Flavour) -> Result<Vec<String>> {
    let output =
        apt("apt-cache")?.args(["pkgnames", "linux-image-"]).output().context("cannot run apt-cache")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let packages = text.lines().filter_map(|package| package.strip_prefix("linux-image-"));
    let numbered = packages.filter(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    let mut versions: Vec<String> = numbered.filter(|name| flavour.has(name)).map(str::to_owned).collect();
    versions.sort_by_key(|version| numbers(version));
    Ok(versions)
}

/// Returns a program of apt with separate lists: the machine's own may have none of these suites.
fn apt(program: &str) -> Result<Command> {
    let place = cache()?.join("apt");
    let sources = place.join("sources.list");
    let is_new = !sources.is_file();
    if is_new {
        for directory in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(place.join(directory))?;
        }
        fs::write(&sources, source_lines(&mirror()?))?;
    }
    let with_settings = |program: &str| {
        let mut command = machine::command(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", sources.as_path()),
            ("Dir::Etc::sourceparts", Path::new("-")),
            ("Dir::Etc::preferencesparts", Path::new("/nonexistent")),
            ("Dir::State::lists", &place.join("lists")),
            ("Dir::State::status", Path::new("/dev/null")),
            ("Dir::Cache", &place.join("cache")),
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        command
    };
    if is_new {
        let updated = machine::run(with_settings("apt-get").args(["update", "-qq"]));
        if !updated.is_ok_and(|status| status.success()) {
            fs::remove_file(&sources)?;
            bail!("apt-get cannot read the lists of {}", SUITES.join(", "));
        }
    }
    Ok(with_settings(program))
}

/// Returns the mirror of this machine's Debian.
fn mirror() -> Result<String> {
    let output = machine::command("apt-get").args(["indextargets", "--format", "$(REPO_URI)"]).output();
    let output = output.context("cannot run apt-get")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.lines().find(|uri| uri.contains("debian") && !uri.contains("security"));
    Ok(found.unwrap_or("http://deb.debian.org/debian/").to_owned())
}

fn source_lines(mirror: &str) -> String {
    SUITES.map(|suite| format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n")).concat()
}

/// Downloads a package and unpacks it below `root`.
fn unpack(package: &str, root: &Path) -> Result<()> {
    let place = root.with_extension("deb");
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place)?;
    machine::run_well(apt("apt-get")?.args(["download", "-qq", package]).current_dir(&place))?;
    for deb in fs::read_dir(&place)?.flatten() {
        machine::run_well(Command::new("dpkg").arg("-x").arg(deb.path()).arg(root))?;
    }
    fs::remove_dir_all(&place).context("cannot remove a package")
}

/// Returns the first file below `directory` whose name fulfils `condition`.
fn find(directory: &Path, condition: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if let Some(found) = find(&path, condition) {
                return Some(found);
            }
        } else if condition(&entry.file_name().to_string_lossy()) {
            return Some(path);
        }
    }
    None
}

/// Returns the ELF file that is compressed inside a boot image.
fn extract(image: &[u8]) -> Option<Vec<u8>> {
    for (magic, tool) in COMPRESSIONS {
        let places = image.windows(magic.len()).enumerate().filter(|(_, bytes)| *bytes == magic);
        for (place, _) in places {
            if let Ok(bytes) = decompress(tool, &image[place..])
                && bytes.starts_with(ELF)
            {
                return Some(bytes);
            }
        }
    }
    None
}

/// Returns the output of `tool` for the beginning of `bytes`; it may report errors about the bytes that follow.
fn decompress(tool: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut command = machine::command(tool);
    command.args(["-d", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().with_context(|| format!("cannot run {tool}"))?;
    let mut input = child.stdin.take().context("no pipe")?;
    let output = thread::scope(|scope| {
        // It stops reading at the end of the compressed data.
        scope.spawn(move || input.write_all(bytes));
        child.wait_with_output()
    })?;
    ensure!(!output.stdout.is_empty(), "{tool} finds nothing");
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_version_gives_its_flavour() {
        for (version, cloud, full) in [
            ("6.12.43+deb13-cloud-amd64", true, false),
            ("6.12.43+deb13-amd64", false, true),
            ("6.12.43+deb13-rt-amd64", false, false),
            ("6.12.43+deb13-amd64-dbg", false, false),
        ] {
            assert_eq!((Flavour::Cloud.has(version), Flavour::Full.has(version)), (cloud, full), "{version}");
        }
    }

    #[test]
    fn a_version_is_named_by_its_beginning() {
        let versions =
            ["6.1.0-9-cloud-amd64", "6.1.0-37-cloud-amd64", "6.12.43-cloud-amd64", "6.9.7-cloud-amd64"];
        let pick = |wanted| pick(versions.map(str::to_owned).to_vec(), wanted);
        assert_eq!(pick("6.1").as_deref(), Some("6.1.0-37-cloud-amd64"));
        assert_eq!(pick("6.12").as_deref(), Some("6.12.43-cloud-amd64"));
        assert_eq!(pick("newest").as_deref(), Some("6.12.43-cloud-amd64"));
        assert_eq!(pick("5"), None);
    }
}
