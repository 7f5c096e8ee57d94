//! The rpm package: what the Debian package contains, at the paths of distributions with rpm, with the static program,
//! because their C libraries are older than this machine's.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use rpm::{BuildConfig, CompressionType, Dependency, FileOptions, PackageBuilder};
use xtask_common::machine;

use crate::{
    contents::{self, Asset},
    read, source_date, version,
};

const RELEASE: &str = "1";
/// Directories that distributions with rpm have elsewhere; None: they have no such program.
pub const ELSEWHERE: [(&str, Option<&str>); 2] =
    [("/usr/share/zsh/vendor-completions/", Some("/usr/share/zsh/site-functions/")), ("/etc/network/", None)];
/// Files of the checkout that are the licence. The Debian package has them in its file `copyright`.
const LICENCES: [&str; 2] = ["LICENSE-MIT", "LICENSE-APACHE"];
pub const LICENCE_DIRECTORY: &str = "/usr/share/licenses/xbond/";
const CONFIGURATION: &str = "/etc/xbond";
const SCRIPTS: &str = "packaging/rpm";

/// Builds xbond-VERSION-RELEASE.ARCH.rpm with `program` as /usr/bin/xbond.
///
/// # Errors
/// A file of the list of contents cannot be read, or the package cannot be written.
pub fn build(program: &Path, packages: &Path) -> Result<PathBuf> {
    let stripped = machine::root().join("target/dist/xbond-static");
    contents::strip(program, &stripped)?;
    let config = BuildConfig::v4().compression(CompressionType::Gzip).source_date(source_date());
    let mut package = PackageBuilder::new(
        "xbond",
        version(),
        "MIT OR Apache-2.0",
        env::consts::ARCH,
        "Active-backup NIC bonding on eBPF",
    );
    package.using_config(config).release(RELEASE).description(contents::description()?);
    package.packager("The xbond developers").build_host("localhost");
    package.with_dir_entry(FileOptions::dir(CONFIGURATION))?;
    for asset in contents::assets()? {
        add(&mut package, &asset, &stripped)?;
    }
    for name in LICENCES {
        let options = FileOptions::new(format!("{LICENCE_DIRECTORY}{name}")).permissions(0o644).license();
        package.with_file_contents(read(&machine::root().join(name))?, options)?;
    }
    let script = |name: &str| -> Result<String> {
        String::from_utf8(read(&machine::root().join(SCRIPTS).join(name))?).context("a script is no text")
    };
    package
        .post_install_script(script("post.sh")?)
        .pre_uninstall_script(script("preun.sh")?)
        .post_uninstall_script(script("postun.sh")?)
        .requires(Dependency::script_post("systemd"))
        .requires(Dependency::script_preun("systemd"))
        .requires(Dependency::script_postun("systemd"))
        .recommends(Dependency::any("iproute"));
    let path = packages.join(format!("xbond-{}-{RELEASE}.{}.rpm", version(), env::consts::ARCH));
    package.build()?.write_file(&path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Adds a file where these distributions have it.
fn add(package: &mut PackageBuilder, asset: &Asset, program: &Path) -> Result<()> {
    let Some(path) = path(&asset.path) else { return Ok(()) };
    let is_program = asset.path == "/usr/bin/xbond";
    let mut content = read(if is_program { program } else { &asset.source })?;
    if asset.path.starts_with("/usr/share/man/") {
        content = contents::gzip(&content)?;
    }
    let mut options = FileOptions::new(path).permissions(asset.mode);
    if asset.is_configuration {
        options = options.config().noreplace();
    }
    if asset.path.starts_with("/usr/share/doc/") || asset.path.starts_with("/usr/share/man/") {
        options = options.doc();
    }
    package.with_file_contents(content, options)?;
    Ok(())
}

/// Returns where a file of the Debian package is installed by rpm, None if it is not. Debian's tools compress manual
/// pages themselves; here it is done before.
fn path(debian: &str) -> Option<String> {
    let moved = ELSEWHERE.iter().find_map(|(from, to)| Some((debian.strip_prefix(from)?, to)));
    match moved {
        Some((rest, to)) => to.map(|to| format!("{to}{rest}")),
        None if debian.starts_with("/usr/share/man/") => Some(format!("{debian}.gz")),
        None => Some(debian.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn a_file_has_the_path_of_distributions_with_rpm() {
        let table = [
            ("/usr/bin/xbond", Some("/usr/bin/xbond")),
            ("/usr/share/man/man8/xbond.8", Some("/usr/share/man/man8/xbond.8.gz")),
            ("/usr/share/zsh/vendor-completions/_xbond", Some("/usr/share/zsh/site-functions/_xbond")),
            ("/etc/network/if-pre-up.d/xbond", None),
        ];
        for (debian, expected) in table {
            assert_eq!(path(debian).as_deref(), expected, "{debian}");
        }
    }
}
