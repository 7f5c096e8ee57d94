//! Directories next to which, or in which, other users may write: opened without following links, checked for their
//! owner, and then used by descriptor.
//!
//! An agent with more privileges than the owner of /run/xbond must not follow paths that this user has prepared. So
//! every component below a root of the system is opened separately with `O_NOFOLLOW`, and entries of a directory are
//! reached by `*at()` calls on its descriptor: renaming or linking in the meantime does not change which files they
//! reach.

use std::{
    collections::HashSet,
    ffi::{CStr, OsString},
    fmt,
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
};

use bond_core::name::shell_word;
use nix::{
    dir::{Dir, Type},
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat, renameat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat},
    unistd::{UnlinkatFlags, geteuid, symlinkat, unlinkat},
};

use super::file::{ReadError, refuse_irregular};

const ROOT_USER: u32 = 0;
/// Permission bits that allow writes by other users than the owner.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// Bytes. The longest file is found.json of a NIC with many routes: 130 bytes for each, and some NICs have a million.
const LONGEST_FILE: u64 = 256 << 20;

/// The required owner of a directory or a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Root or this process's user, and not writable for others. The contents may be acted upon.
    Ours,
    /// Any user: for readers that only display it.
    Anyones,
}

/// The path of a directory: names below a root of the system, such as /run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    root: PathBuf,
    below: Vec<String>,
}

/// A directory by its descriptor.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// The path for messages.
    path: PathBuf,
}

/// st_dev and st_ino, which no other file has as long as this one is open or linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// Returns the identity of an open file.
    ///
    /// # Errors
    /// The kernel does not return the file's status.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::new(&fstat(file)?))
    }

    fn new(status: &FileStat) -> Self {
        Self { device: status.st_dev, inode: status.st_ino }
    }
}

/// A Unix socket by its descriptor, whichever file has its name by now.
#[derive(Debug)]
pub struct SocketFile(OwnedFd);

impl SocketFile {
    /// Returns a path for connect(), which follows links: this one leads to the socket and to no other file, as long
    /// as this value lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// The kind of a directory's entry; links are not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Link,
    /// Anything else, such as a socket.
    Other,
}

impl Location {
    /// Creates a location; `root` belongs to the system: it is followed, and not checked.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), below: Vec::new() }
    }

    /// Creates the location of an entry of a directory that belongs to the system.
    pub fn at(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::new(path.parent().unwrap_or(path)).child(name)
    }

    /// Returns its last component.
    pub fn name(&self) -> &str {
        self.below.last().map_or("", String::as_str)
    }

    /// Returns the location of an entry of this directory.
    pub fn child(&self, name: impl Into<String>) -> Self {
        let below = self.below.iter().cloned().chain([name.into()]).collect();
        Self { root: self.root.clone(), below }
    }

    /// Returns the directory that contains it; `None` at the root.
    pub fn above(&self) -> Option<Self> {
        self.parts().ok().map(|(above, _)| above)
    }

    /// Returns its path, for messages and for callers that may follow links.
    pub fn path(&self) -> PathBuf {
        self.below.iter().fold(self.root.clone(), |path, name| path.join(name))
    }

    /// Opens it, component by component.
    ///
    /// # Errors
    /// A component does not exist, is no directory, or is not trusted.
    pub fn open(&self, trust: Trust) -> io::Result<Directory> {
        self.below.iter().try_fold(Directory::root(&self.root)?, |at, name| at.directory(name, trust))
    }

    /// Opens it, and creates its last component with this mode if that is missing.
    ///
    /// # Errors
    /// The directory above is missing or not to be trusted, the last component is no directory or not to be trusted, or
    /// cannot be created.
    pub fn make(&self, mode: u32) -> io::Result<Directory> {
        let (above, name) = self.parts()?;
        above.open(Trust::Ours)?.make(name, mode)
    }

    /// Opens it, and creates each missing component with this mode.
    ///
    /// # Errors
    /// A component is no directory, is not to be trusted, or cannot be created; those above it stay.
    pub fn make_all(&self, mode: u32) -> io::Result<Directory> {
        self.below.iter().try_fold(Directory::root(&self.root)?, |at, name| at.make(name, mode))
    }

    /// Returns the directory of the system below which it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Creates its last component, which must not exist.
    ///
    /// # Errors
    /// The directory exists, the one above is missing or not to be trusted, or does not allow it.
    pub fn create(&self, mode: u32) -> io::Result<Directory> {
        let (above, name) = self.parts()?;
        above.open(Trust::Ours)?.create(name, mode)
    }

    /// Returns the kind of file that exists there, if any.
    pub fn kind(&self) -> Option<EntryKind> {
        let (above, name) = self.parts().ok()?;
        above.open(Trust::Anyones).ok()?.kind(name)
    }

    /// Removes it, with everything below it. A missing directory is no error.
    ///
    /// # Errors
    /// The directory above is not to be trusted, or an entry cannot be removed; others are removed then.
    pub fn remove_all(&self) -> io::Result<()> {
        let (above, name) = self.parts()?;
        match above.open(Trust::Ours) {
            Ok(above) => above.remove_all(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn parts(&self) -> io::Result<(Self, &str)> {
        let (name, above) = self.below.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((Self { root: self.root.clone(), below: above.to_vec() }, name))
    }
}

impl Directory {
    /// Opens a directory of the system.
    fn root(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// It does not exist, is no directory, or is not trusted.
    pub fn directory(&self, name: &str, trust: Trust) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let path = self.path.join(name);
        let fd = match openat(&self.fd, component(name)?, flags, Mode::empty()) {
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                let error = format!("{} is a symbolic link, or no directory; remove it", path.display());
                return Err(io::Error::new(io::ErrorKind::NotADirectory, error));
            }
            answer => answer?,
        };
        check(&path.display(), &path, &fstat(&fd)?, trust)?;
        Ok(Self { fd, path })
    }

    /// Opens a directory in this one, and creates it with this mode if it is missing.
    ///
    /// # Errors
    /// The name is no component of a path, the directory is not to be trusted, or cannot be created or opened.
    pub fn make(&self, name: &str, mode: u32) -> io::Result<Self> {
        match self.create(name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.directory(name, Trust::Ours),
            answer => answer,
        }
    }

    /// Creates a directory in this one, which must not exist.
    ///
    /// # Errors
    /// The name is no component of a path or exists, or the directory cannot be created.
    pub fn create(&self, name: &str, mode: u32) -> io::Result<Self> {
        mkdirat(&self.fd, component(name)?, Mode::from_bits_truncate(mode))?;
        self.directory(name, Trust::Ours)
    }

    /// Returns a path for calls that only accept one: it leads into this directory, wherever that is by now, as long
    /// as this is open.
    pub fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name)
    }

    /// Returns the path of an entry, for messages.
    pub fn shown(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the kind of an entry, if it exists.
    pub fn kind(&self, name: &str) -> Option<EntryKind> {
        let status = fstatat(&self.fd, component(name).ok()?, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        Some(match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => EntryKind::Directory,
            SFlag::S_IFREG => EntryKind::File,
            SFlag::S_IFLNK => EntryKind::Link,
            _ => EntryKind::Other,
        })
    }

    /// Returns whether there is an entry of this name; a dangling link counts.
    pub fn has(&self, name: &str) -> bool {
        self.kind(name).is_some()
    }

    /// Returns the names of all entries, in order. A name that is not UTF-8 is omitted: no file of an agent has one.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn entries(&self) -> io::Result<Vec<(String, EntryKind)>> {
        let names = self.names()?.into_iter().filter_map(|(name, _)| name.into_string().ok());
        let mut entries: Vec<_> =
            names.filter_map(|name| self.kind(&name).map(|kind| (name, kind))).collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(entries)
    }

    /// Returns the names of all entries, without asking of what kind each is. A name that is not UTF-8 is omitted.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn listed(&self) -> io::Result<HashSet<String>> {
        Ok(self.names()?.into_iter().filter_map(|(name, _)| name.into_string().ok()).collect())
    }

    fn names(&self) -> io::Result<Vec<(OsString, Option<Type>)>> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.fd, ".", flags, Mode::empty())?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if ![c".", c".."].contains(&name) {
                names.push((OsString::from_vec(name.to_bytes().to_vec()), entry.file_type()));
            }
        }
        Ok(names)
    }

    /// Opens a regular file in this directory, by these flags; a new file has mode 0600.
    ///
    /// # Errors
    /// It is a link, no regular file, or not trusted.
    pub fn file(&self, name: &str, flags: OFlag, trust: Trust) -> io::Result<File> {
        // Opening a FIFO does not block.
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let refuse = |error: String| Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        let fd = match openat(&self.fd, component(name)?, flags, mode) {
            Err(Errno::ELOOP) => return refuse("it is a symbolic link; remove it".to_owned()),
            // A directory that would be written; a socket, or a FIFO without a reader.
            Err(error @ (Errno::EISDIR | Errno::ENXIO)) => {
                let kind = self.irregular(name).ok_or(error)?;
                return refuse(kind.to_string());
            }
            answer => answer?,
        };
        let status = fstat(&fd)?;
        let file = File::from(fd);
        refuse_irregular(status.st_mode)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        check(&"it", &self.path.join(name), &status, trust)?;
        Ok(file)
    }

    /// Returns why an entry is no regular file.
    fn irregular(&self, name: &str) -> Option<ReadError> {
        let status = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        refuse_irregular(status.st_mode).err()
    }

    /// Finds a Unix socket in this directory.
    ///
    /// # Errors
    /// It does not exist, is a link, or no socket.
    pub fn socket(&self, name: &str) -> io::Result<SocketFile> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, component(name)?, flags, Mode::empty())?;
        let refuse = |what| {
            let error = format!("{} is {what}; remove it", self.path.join(name).display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        match SFlag::from_bits_truncate(fstat(&fd)?.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFSOCK => Ok(SocketFile(fd)),
            SFlag::S_IFLNK => refuse("a symbolic link"),
            _ => refuse("no socket"),
        }
    }

    /// Returns the contents of a file.
    ///
    /// # Errors
    /// The file is missing, is not to be trusted, cannot be read, or is longer than an agent writes (EFBIG).
    pub fn read(&self, name: &str, trust: Trust) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        self.file(name, OFlag::O_RDONLY, trust)?.take(LONGEST_FILE + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > LONGEST_FILE {
            let error = format!("it is longer than {LONGEST_FILE} bytes");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        Ok(contents)
    }

    /// Replaces a file atomically, mode 0600; when it returns, the new file survives a crash of the machine.
    ///
    /// # Errors
    /// The temporary file cannot be created, written, synchronised or renamed. The former file stays then, unless only
    /// the last synchronisation of the directory failed.
    pub fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.new");
        // A file that a killed writer has left may have any mode.
        self.remove_file(&temporary).map_err(|error| self.about(&temporary, &error))?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut output = self.file(&temporary, flags, Trust::Ours)?;
        let written = output.write_all(contents).and_then(|()| output.sync_all());
        if let Err(error) = written.and_then(|()| self.rename(&temporary, name)) {
            let _ = self.remove_file(&temporary);
            return Err(error);
        }
        Ok(nix::unistd::fsync(&self.fd)?)
    }

    /// Replaces a file atomically, mode 0644, for readers of other users. It need not survive a crash of the machine.
    ///
    /// # Errors
    /// The directory cannot be written, or has a directory of this name; the error names the file.
    pub fn publish(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.replace_readable(name, contents).map_err(|error| self.about(name, &error))
    }

    fn replace_readable(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let temporary = format!(".{name}.new");
        self.remove_file(&temporary)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut output = self.file(&temporary, flags, Trust::Anyones)?;
        let readable = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
        let written = output.write_all(contents).and_then(|()| Ok(fchmod(&output, readable)?));
        if let Err(error) = written.and_then(|()| self.rename(&temporary, name)) {
            let _ = self.remove_file(&temporary);
            return Err(error);
        }
        Ok(())
    }

    /// Returns an error about an entry that the caller does not name.
    fn about(&self, name: &str, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.shown(name).display()))
    }

    /// Renames an entry of this directory; an existing file `to` is replaced.
    ///
    /// # Errors
    /// A name is no component of a path, `from` is missing, or the directory does not allow it.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, component(from)?, &self.fd, component(to)?)?)
    }

    /// Removes an entry that is no directory. A missing entry is no error.
    ///
    /// # Errors
    /// The name is no component of a path, the entry is a directory, or the directory does not allow it.
    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        gone(unlinkat(&self.fd, component(name)?, UnlinkatFlags::NoRemoveDir))
    }

    /// Removes an empty directory. A missing directory is no error.
    ///
    /// # Errors
    /// The name is no component of a path, or the directory is not empty or no directory.
    pub fn remove_directory(&self, name: &str) -> io::Result<()> {
        gone(unlinkat(&self.fd, component(name)?, UnlinkatFlags::RemoveDir))
    }

    /// Removes an entry, and if it is a trusted directory everything below it. Links are removed, not followed. A
    /// missing entry is no error.
    ///
    /// # Errors
    /// An entry cannot be removed, or a directory below is not to be trusted; entries before it are removed.
    pub fn remove_all(&self, name: &str) -> io::Result<()> {
        match self.kind(name) {
            Some(EntryKind::Directory) => {}
            _ => return self.remove_file(name),
        }
        let below = match self.directory(name, Trust::Ours) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            answer => answer?,
        };
        for (entry, _) in below.names()? {
            match entry.to_str() {
                Some(entry) => below.remove_all(entry)?,
                // Only another program can have created it; a directory of such a name stays, and causes an error.
                None => gone(unlinkat(&below.fd, entry.as_os_str(), UnlinkatFlags::NoRemoveDir))?,
            }
        }
        self.remove_directory(name)
    }

    /// Creates a symbolic link in this directory, for readability.
    ///
    /// # Errors
    /// The name is no component of a path or exists, or the directory does not allow it.
    pub fn link(&self, target: &Path, name: &str) -> io::Result<()> {
        Ok(symlinkat(target, &self.fd, component(name)?)?)
    }

    /// Returns the target of a link.
    pub fn linked(&self, name: &str) -> Option<PathBuf> {
        Some(readlinkat(&self.fd, component(name).ok()?).ok()?.into())
    }

    /// Returns whether the target of a link exists.
    pub fn leads_somewhere(&self, name: &str) -> bool {
        component(name).is_ok_and(|name| fstatat(&self.fd, name, AtFlags::empty()).is_ok())
    }

    /// Returns the user who owns the directory.
    ///
    /// # Errors
    /// The kernel does not return the directory's status.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(fstat(&self.fd)?.st_uid)
    }

    /// Returns whether `other` is the same directory.
    pub fn is_same(&self, other: impl AsFd) -> bool {
        FileIdentity::of(&self.fd).is_ok_and(|own| FileIdentity::of(other).is_ok_and(|other| own == other))
    }

    /// Returns the identity of the directory, or of an entry (a link is not followed), on this machine.
    ///
    /// # Errors
    /// The entry is missing, or the kernel does not return its status.
    pub fn identity(&self, entry: Option<&str>) -> io::Result<FileIdentity> {
        let status = match entry {
            Some(entry) => fstatat(&self.fd, component(entry)?, AtFlags::AT_SYMLINK_NOFOLLOW)?,
            None => return FileIdentity::of(&self.fd),
        };
        Ok(FileIdentity::new(&status))
    }

    /// Returns the descriptor of the directory.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Checks that the name of an entry is no path.
fn component(name: &str) -> io::Result<&str> {
    let is_path = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
    if is_path { Err(io::ErrorKind::InvalidInput.into()) } else { Ok(name) }
}

fn gone(answer: nix::Result<()>) -> io::Result<()> {
    match answer {
        Err(Errno::ENOENT) => Ok(()),
        answer => Ok(answer?),
    }
}

/// Checks whether the contents of what is at this path may be acted upon. `called` is its name in the error: callers name a
/// file themselves, but not each directory above it.
fn check(called: &dyn fmt::Display, path: &Path, status: &FileStat, trust: Trust) -> io::Result<()> {
    let (owner, own) = (status.st_uid, geteuid().as_raw());
    let refuse = |error: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
    if trust == Trust::Anyones {
        return Ok(());
    }
    if owner != ROOT_USER && owner != own {
        return refuse(format!(
            "{called} belongs to user {owner}, and this runs as user {own}; run it as that user, or remove it"
        ));
    }
    if status.st_mode & OTHERS_WRITE != 0 && status.st_mode & STICKY == 0 {
        return refuse(format!(
            "others than the owner of {called} may write there; chmod go-w {}",
            shell_word(path.display())
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    use nix::unistd::mkfifo;

    use super::*;

    /// Creates a directory `ours` next to a foreign one that contains a file.
    fn scene() -> (tempfile::TempDir, Location) {
        let scene = tempfile::tempdir().unwrap();
        for name in ["ours", "victim"] {
            fs::create_dir(scene.path().join(name)).unwrap();
        }
        fs::write(scene.path().join("victim/file"), "whole").unwrap();
        let ours = Location::new(scene.path()).child("ours");
        (scene, ours)
    }

    fn assert_whole(scene: &tempfile::TempDir, what: &str) {
        let victim = scene.path().join("victim");
        assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "whole", "{what}");
        assert_eq!(fs::read_dir(victim).unwrap().count(), 1, "{what}");
    }

    #[test]
    fn symbolic_links_are_never_followed() {
        let (scene, ours) = scene();
        let (victim, path) = (scene.path().join("victim"), scene.path().join("ours"));
        symlink(&victim, path.join("link")).unwrap();
        symlink(victim.join("file"), path.join("file")).unwrap();
        let directory = ours.open(Trust::Ours).unwrap();
        for trust in [Trust::Ours, Trust::Anyones] {
            let error = directory.directory("link", trust).unwrap_err().to_string();
            assert!(error.ends_with("ours/link is a symbolic link, or no directory; remove it"), "{error}");
            assert!(ours.child("link").open(trust).is_err());
            assert!(ours.child("link").child("below").open(trust).is_err());
            assert!(directory.read("file", trust).is_err());
        }
        assert!(directory.make("link", 0o755).is_err() && ours.child("link").make(0o755).is_err());
        assert!(ours.child("link").child("new").make(0o755).is_err());
        let append = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_TRUNC;
        assert!(directory.file("file", append, Trust::Ours).is_err());
        symlink(victim.join("new"), path.join("dangling")).unwrap();
        assert!(directory.file("dangling", append, Trust::Ours).is_err());
        assert_whole(&scene, "refused");
        symlink(victim.join("file"), path.join("found.json.new")).unwrap();
        directory.replace("found.json", b"{}").unwrap();
        directory.replace("file", b"ours").unwrap();
        assert_eq!(directory.read("file", Trust::Ours).unwrap(), b"ours");
        assert_whole(&scene, "replaced");
        ours.child("link").remove_all().unwrap();
        assert!(!directory.has("link"));
        assert_whole(&scene, "removed");
    }

    #[test]
    fn removal_stays_below_and_does_not_follow_links() {
        let (scene, ours) = scene();
        let deep = scene.path().join("ours/bond0/a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), "").unwrap();
        symlink(scene.path().join("victim"), deep.join("link")).unwrap();
        symlink("../../../../victim", scene.path().join("ours/bond0/link")).unwrap();
        ours.child("bond0").remove_all().unwrap();
        assert_eq!(fs::read_dir(scene.path().join("ours")).unwrap().count(), 0);
        assert_whole(&scene, "removed");
        // Neither a missing entry, nor an entry of a missing directory.
        ours.child("bond0").remove_all().unwrap();
        ours.child("bond0").child("more").remove_all().unwrap();
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let (scene, ours) = scene();
        let (path, directory) = (scene.path().join("ours"), ours.open(Trust::Ours).unwrap());
        for text in ["one", "another", ""] {
            // A file that a killed writer has left.
            fs::write(path.join("found.json.new"), "half").unwrap();
            directory.replace("found.json", text.as_bytes()).unwrap();
            assert_eq!(directory.read("found.json", Trust::Ours).unwrap(), text.as_bytes());
            assert_eq!(fs::metadata(path.join("found.json")).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_name_is_no_path() {
        let (scene, ours) = scene();
        let directory = ours.open(Trust::Ours).unwrap();
        for name in ["", ".", "..", "../victim", "/tmp", "a/b", "a\0b"] {
            assert!(directory.directory(name, Trust::Anyones).is_err(), "{name:?}");
            assert!(directory.make(name, 0o755).is_err() && directory.remove_all(name).is_err(), "{name:?}");
            assert!(ours.child(name).remove_all().is_err() && ours.child(name).open(Trust::Ours).is_err());
            assert!(directory.read(name, Trust::Anyones).is_err() && directory.replace(name, b"").is_err());
            assert_eq!(directory.kind(name), None, "{name:?}");
        }
        assert_whole(&scene, "named");
    }

    #[test]
    fn only_trusted_directories_are_changed() {
        let (scene, ours) = scene();
        let path = scene.path().join("ours");
        let table =
            [(0o755, true), (0o700, true), (0o775, false), (0o757, false), (0o777, false), (0o1777, true)];
        for (mode, is_trusted) in table {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(ours.open(Trust::Ours).is_ok(), is_trusted, "{mode:o}");
            assert!(ours.open(Trust::Anyones).is_ok(), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("file"), "theirs").unwrap();
        if std::os::unix::fs::chown(path.join("file"), Some(65534), None).is_err() {
            eprintln!("skipped: only root gives files away");
            return;
        }
        let directory = ours.open(Trust::Ours).unwrap();
        assert!(directory.read("file", Trust::Ours).is_err());
        assert_eq!(directory.read("file", Trust::Anyones).unwrap(), b"theirs");
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        let error = ours.open(Trust::Ours).unwrap_err().to_string();
        assert!(error.contains("ours belongs to user 65534, and this runs as user 0"), "{error}");
        assert!(ours.child("new").make(0o755).is_err() && ours.child("file").remove_all().is_err());
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[test]
    fn a_socket_is_reached_and_not_what_a_link_leads_to() {
        use std::os::unix::net::{UnixListener, UnixStream};
        let (scene, ours) = scene();
        let (path, victim) = (scene.path().join("ours"), scene.path().join("victim"));
        let listener = UnixListener::bind(path.join("socket")).unwrap();
        let _stranger = UnixListener::bind(scene.path().join("stranger")).unwrap();
        symlink(scene.path().join("stranger"), path.join("link")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        let directory = ours.open(Trust::Anyones).unwrap();
        let socket = directory.socket("socket").unwrap();
        // Another socket replaces it between the check and the connection.
        fs::remove_file(path.join("socket")).unwrap();
        symlink(scene.path().join("stranger"), path.join("socket")).unwrap();
        UnixStream::connect(socket.path()).unwrap();
        listener.accept().unwrap();
        for (name, what) in
            [("link", "a symbolic link"), ("file", "no socket"), ("socket", "a symbolic link")]
        {
            let error = directory.socket(name).unwrap_err().to_string();
            assert!(error.ends_with(&format!("ours/{name} is {what}; remove it")), "{error}");
        }
        assert_eq!(directory.socket("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(directory.socket("../stranger").is_err());
        assert!(victim.exists());
    }

    /// Callers name the file.
    #[test]
    fn an_error_about_a_file_says_what_is_there_instead() {
        use std::os::unix::net::UnixListener;
        let (scene, ours) = scene();
        let path = scene.path().join("ours");
        mkfifo(&path.join("fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let _listener = UnixListener::bind(path.join("socket")).unwrap();
        fs::create_dir(path.join("directory")).unwrap();
        symlink(scene.path().join("victim/file"), path.join("link")).unwrap();
        let directory = ours.open(Trust::Ours).unwrap();
        for (name, what) in [
            ("fifo", "it is a FIFO; xbond reads regular files only"),
            ("socket", "it is a socket; xbond reads regular files only"),
            ("directory", "it is a directory; xbond reads regular files only"),
            ("link", "it is a symbolic link; remove it"),
        ] {
            for flags in [OFlag::O_RDONLY, OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT] {
                let error = directory.file(name, flags, Trust::Ours).unwrap_err().to_string();
                assert_eq!(error, what, "{name} {flags:?}");
            }
        }
        fs::create_dir(path.join("found.json.new")).unwrap();
        let error = directory.replace("found.json", b"{}").unwrap_err().to_string();
        assert!(error.contains("ours/found.json.new: Is a directory"), "{error}");
    }

    #[test]
    fn a_fifo_does_not_block_and_a_device_is_no_file() {
        let (scene, ours) = scene();
        mkfifo(&scene.path().join("ours/fifo"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let directory = ours.open(Trust::Ours).unwrap();
        for name in ["fifo", "."] {
            assert!(directory.read(name, Trust::Ours).is_err(), "{name}");
        }
    }
}
