//! `xbond add --persist`: files by which added bonds are there after the next boot, and network managers leave their slaves
//! alone.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use super::{client, output};
use crate::{
    api::Done,
    config::{
        Config, Source,
        export::unmanaged::{UnmanagedFile, unmanaged},
        toml,
    },
    report::wording,
};

/// Files that are to be written, none of which exists.
pub struct Persistent(Vec<(PathBuf, String)>);

impl Persistent {
    /// Returns the files of these bonds, below a directory that stands for the root of the machine.
    ///
    /// # Errors
    /// One of them exists, or a name cannot be written into files of other programs.
    pub fn of(config: &Config, root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for bond in &config.bonds {
            let alone = Config { bonds: vec![bond.clone()], ..Config::default() };
            let own = Path::new(Source::DIRECTORY).join(format!("{}.toml", bond.name));
            let own = own.strip_prefix("/").unwrap_or(&own).to_owned();
            files.push((root.join(own), toml::write(&alone)));
            let of_others = unmanaged(bond)?.into_iter();
            files.extend(of_others.map(|UnmanagedFile { path, text }| (root.join(path), text)));
        }
        if let Some((path, _)) = files.iter().find(|(path, _)| fs::symlink_metadata(path).is_ok()) {
            bail!(wording::file_exists(path.display()));
        }
        Ok(Self(files))
    }

    /// Writes them; returns their paths.
    ///
    /// # Errors
    /// One cannot be written; those before it are.
    pub fn write(&self) -> Result<Vec<&Path>> {
        for (path, text) in &self.0 {
            let failed = || wording::cannot_write(path.display());
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory).with_context(failed)?;
            }
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(path)
                .with_context(failed)?;
            file.write_all(text.as_bytes()).with_context(failed)?;
        }
        Ok(self.0.iter().map(|(path, _)| path.as_path()).collect())
    }
}

/// Prints what a request has changed, and writes the files by which it stays.
///
/// # Errors
/// A file cannot be written.
pub fn finish(done: &Done, persistent: Option<Persistent>) -> Result<ExitCode> {
    output::print_lines(&done.changes);
    if let Some(persistent) = persistent {
        for path in persistent.write()? {
            output::print(&format!("{}\n", path.display()));
        }
        output::note(wording::managers_read_files());
    }
    Ok(client::finish(done))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn config(name: &str, slaves: &str) -> Config {
        let text = format!("version = 1\n\n[bond.{name}]\nslaves = [{slaves}]\nmiimon = 100\n");
        toml::parse(Path::new("a.toml"), &text).unwrap()
    }

    #[test]
    fn a_bond_has_its_own_file_and_those_of_both_managers() {
        let root = tempfile::tempdir().unwrap();
        let files = Persistent::of(&config("bond0", "\"eth0\", \"eth1.5\""), root.path()).unwrap();
        assert_eq!(files.write().unwrap().len(), 3);
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        let own = "version = 1\n\n[bond.bond0]\nslaves = [\"eth0\", \"eth1.5\"]\nmiimon = 100\n";
        assert_eq!(read("etc/xbond/bond0.toml"), own);
        let heading = "# Written by `xbond add --persist`: the slaves of bond0 are xbond's.\n";
        assert_eq!(
            read("etc/NetworkManager/conf.d/90-xbond-bond0.conf"),
            format!(
                "{heading}[device-xbond-bond0]\nmatch-device=interface-name:eth0,interface-name:eth1.5\nmanaged=0\n"
            )
        );
        assert_eq!(
            read("etc/systemd/network/05-xbond-bond0.network"),
            format!("{heading}[Match]\nName=eth0 eth1.5\n\n[Link]\nUnmanaged=yes\n")
        );
    }

    #[test]
    fn nothing_is_replaced_and_no_link_is_followed() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/systemd/network")).unwrap();
        symlink("/nowhere", root.path().join("etc/systemd/network/05-xbond-bond0.network")).unwrap();
        let error = Persistent::of(&config("bond0", "\"eth0\""), root.path()).err().unwrap().to_string();
        assert!(error.ends_with("Remove it, or leave --persist out"), "{error}");
        assert!(!root.path().join("etc/xbond").exists());
    }

    #[test]
    fn names_that_other_programs_read_otherwise_are_refused() {
        for slave in ["eth*", "a,b", "a;b", "a[0]"] {
            let error =
                Persistent::of(&config("bond0", &format!("{slave:?}")), Path::new("/none")).err().unwrap();
            assert!(error.to_string().starts_with(&format!("{slave}: not a name for files")), "{error}");
        }
    }
}
