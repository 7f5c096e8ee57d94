//! Files that the agent keeps current for other programs, in a directory that the administrator names.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use crate::sys::directory::{EntryKind, Location, Trust};

/// The files of one kind in one directory.
#[derive(Debug)]
pub struct Published {
    directory: PathBuf,
    /// How each file of this kind begins. A file that begins otherwise is another program's, and stays.
    mark: &'static str,
    /// The names of the files that were written.
    names: BTreeSet<String>,
}

impl Published {
    /// Returns no files yet, of a kind that begins with `mark`.
    pub fn new(directory: PathBuf, mark: &'static str) -> Self {
        Self { directory, mark, names: BTreeSet::new() }
    }

    /// Returns the directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes these files by their names, each atomically, readable by everyone, and removes those of earlier calls that are
    /// not among them.
    ///
    /// # Errors
    /// The directory cannot be opened or written, is a symbolic link, or has a file or link of this name that is not
    /// the agent's. The other files are written and removed.
    pub fn update(&mut self, files: &[(String, String)]) -> io::Result<()> {
        let directory =
            Location::at(&self.directory).open(Trust::Anyones).map_err(|error| match error.kind() {
                // It names the path.
                io::ErrorKind::NotADirectory => error,
                kind => io::Error::new(kind, format!("{}: {error}", self.directory.display())),
            })?;
        let mut answer = Ok(());
        for (name, text) in files {
            let is_ours = match directory.kind(name) {
                None => Ok(()),
                Some(EntryKind::File) if self.begins_with_mark(&directory.read(name, Trust::Anyones)) => {
                    Ok(())
                }
                Some(_) => Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!(
                        "{} exists and was not written by xbond; remove it",
                        directory.shown(name).display()
                    ),
                )),
            };
            match is_ours.and_then(|()| directory.publish(name, text.as_bytes())) {
                Ok(()) => drop(self.names.insert(name.clone())),
                Err(error) => answer = answer.and(Err(error)),
            }
        }
        let is_wanted = |name: &String| files.iter().any(|(wanted, _)| wanted == name);
        let gone: Vec<_> = self.names.iter().filter(|name| !is_wanted(name)).cloned().collect();
        for name in gone {
            match directory.remove_file(&name) {
                Ok(()) => drop(self.names.remove(&name)),
                Err(error) => answer = answer.and(Err(error)),
            }
        }
        answer
    }

    fn begins_with_mark(&self, contents: &io::Result<Vec<u8>>) -> bool {
        contents.as_ref().is_ok_and(|contents| contents.starts_with(self.mark.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use super::*;

    const MARK: &str = "# ours";

    fn file(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), format!("{MARK} {text}"))
    }

    #[test]
    fn files_are_written_replaced_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut published = Published::new(directory.path().to_owned(), MARK);
        published.update(&[file("bond0", "1"), file("bond1", "1")]).unwrap();
        published.update(&[file("bond1", "2")]).unwrap();
        let names: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["bond1"]);
        let path = directory.path().join("bond1");
        assert_eq!(fs::read_to_string(&path).unwrap(), "# ours 2");
        // Whatever the umask of the agent is.
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        // What a killed agent has left is replaced by the next one.
        fs::write(directory.path().join(".bond1.new"), "half").unwrap();
        let mut next = Published::new(directory.path().to_owned(), MARK);
        next.update(&[file("bond1", "3")]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "# ours 3");
        next.update(&[]).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_of_others_and_links_stay() {
        let scene = tempfile::tempdir().unwrap();
        let at = |name: &str| scene.path().join(name);
        fs::create_dir(at("files")).unwrap();
        fs::write(at("victim"), "# ours once").unwrap();
        symlink(at("victim"), at("files/bond0")).unwrap();
        symlink(at("victim"), at("files/.bond1.new")).unwrap();
        fs::write(at("files/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::create_dir(at("files/bond2")).unwrap();
        let mut published = Published::new(at("files"), MARK);
        for name in ["bond0", "hosts", "bond2"] {
            let error = published.update(&[file(name, "1"), file("bond1", "1")]).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("files/{name} exists and was not written by xbond; remove it")),
                "{error}"
            );
            assert_eq!(fs::read_to_string(at("files/bond1")).unwrap(), "# ours 1");
        }
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "# ours once");
        assert_eq!(fs::read_to_string(at("files/hosts")).unwrap(), "127.0.0.1 localhost\n");
        assert!(fs::symlink_metadata(at("files/bond0")).unwrap().is_symlink());
        // The directory itself is no link either.
        symlink(at("files"), at("link")).unwrap();
        assert!(Published::new(at("link"), MARK).update(&[file("bond1", "1")]).is_err());
        assert!(Published::new(at("missing"), MARK).update(&[file("bond1", "1")]).is_err());
    }
}
