//! Directories that others may write next to, or have written in before: opened without following links, checked for
//! their owner, and then used by descriptor.
//!
//! An agent with more rights than the owner of /run/xbond must not be led elsewhere by what that user has put there.
//! So every component below a root that is the system's is opened by itself with `O_NOFOLLOW`, and what is below a
//! directory is reached by `*at()` calls on its descriptor: nothing that is renamed or linked meanwhile changes where
//! they go.

use std::{
    ffi::{CStr, OsString},
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
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat},
    unistd::{UnlinkatFlags, geteuid, symlinkat, unlinkat},
};

use super::file::refuse_irregular;

const ROOT_USER: u32 = 0;
/// Others than the owner may write.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;
/// Bytes. The longest is found.json of a NIC with many routes: 130 bytes for each, and some have a million.
const LONGEST_FILE: u64 = 256 << 20;

/// Whose a directory, or a file, has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Root's or this process's own, and not open to others' writes. What is there may be acted upon.
    Ours,
    /// Anybody's: for who only reads, and shows.
    Anyones,
}

/// Where a directory is: names below a root that is the system's, such as /run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    root: PathBuf,
    below: Vec<String>,
}

/// A directory by its descriptor.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// By which people know it.
    path: PathBuf,
}

/// st_dev and st_ino, which no other file has as long as this one is open or linked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::new(&fstat(file)?))
    }

    fn new(status: &FileStat) -> Self {
        Self { device: status.st_dev, inode: status.st_ino }
    }
}

/// A Unix socket by its descriptor, whatever has its name by now.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl Socket {
    /// For connect(), which follows links: this one leads to the socket and nowhere else, as long as this is kept.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// What an entry of a directory is, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
    Link,
    Other,
}

impl Location {
    /// `root` is the system's: it is followed, and not checked.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), below: Vec::new() }
    }

    /// Of an entry of a directory that is the system's.
    pub fn at(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::new(path.parent().unwrap_or(path)).child(name)
    }

    /// Its last component.
    pub fn name(&self) -> &str {
        self.below.last().map_or("", String::as_str)
    }

    /// One component further.
    pub fn child(&self, name: impl Into<String>) -> Self {
        let below = self.below.iter().cloned().chain([name.into()]).collect();
        Self { root: self.root.clone(), below }
    }

    /// The directory that it is in; None at the root.
    pub fn above(&self) -> Option<Self> {
        self.parts().ok().map(|(above, _)| above)
    }

    /// For people, and for who may be led astray.
    pub fn path(&self) -> PathBuf {
        self.below.iter().fold(self.root.clone(), |path, name| path.join(name))
    }

    /// Opens it, component by component.
    ///
    /// # Errors
    /// One of them is not there, is no directory, or may not be trusted.
    pub fn open(&self, trust: Trust) -> io::Result<Directory> {
        self.below.iter().try_fold(Directory::root(&self.root)?, |at, name| at.directory(name, trust))
    }

    /// Opens it, and makes its last component with this mode if it is not there.
    pub fn make(&self, mode: u32) -> io::Result<Directory> {
        let (above, name) = self.parts()?;
        above.open(Trust::Ours)?.make(name, mode)
    }

    /// Opens it, and makes each component with this mode that is not there.
    pub fn make_all(&self, mode: u32) -> io::Result<Directory> {
        self.below.iter().try_fold(Directory::root(&self.root)?, |at, name| at.make(name, mode))
    }

    /// The directory of the system's below which it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes its last component, which must not be there.
    pub fn create(&self, mode: u32) -> io::Result<Directory> {
        let (above, name) = self.parts()?;
        above.open(Trust::Ours)?.create(name, mode)
    }

    /// What is there, if anything is.
    pub fn kind(&self) -> Option<Kind> {
        let (above, name) = self.parts().ok()?;
        above.open(Trust::Anyones).ok()?.kind(name)
    }

    /// Removes it, with everything below it. That it is not there is no error.
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
    /// One of the system's.
    fn root(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// A directory in this one.
    ///
    /// # Errors
    /// It is not there, is no directory, or may not be trusted.
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
        check(&path, &fstat(&fd)?, trust)?;
        Ok(Self { fd, path })
    }

    /// A directory in this one, which is made with this mode if it is not there.
    pub fn make(&self, name: &str, mode: u32) -> io::Result<Self> {
        match self.create(name, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.directory(name, Trust::Ours),
            answer => answer,
        }
    }

    /// Makes a directory in this one, which must not be there.
    pub fn create(&self, name: &str, mode: u32) -> io::Result<Self> {
        mkdirat(&self.fd, component(name)?, Mode::from_bits_truncate(mode))?;
        self.directory(name, Trust::Ours)
    }

    /// For calls that take nothing but a path: one that leads into this directory, wherever it is by now, as long as it
    /// is open.
    pub fn path_of(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd())).join(name)
    }

    /// For people.
    pub fn shown(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What an entry is, if it is there.
    pub fn kind(&self, name: &str) -> Option<Kind> {
        let status = fstatat(&self.fd, component(name).ok()?, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        Some(match SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFDIR => Kind::Directory,
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        })
    }

    /// Whether there is something of this name; a link to nowhere counts.
    pub fn has(&self, name: &str) -> bool {
        self.kind(name).is_some()
    }

    /// The names of all entries, in order. One that is no text is left out: nothing of an agent's is called so.
    pub fn entries(&self) -> io::Result<Vec<(String, Kind)>> {
        let names = self.names()?.into_iter().filter_map(|(name, _)| name.into_string().ok());
        let mut entries: Vec<_> =
            names.filter_map(|name| self.kind(&name).map(|kind| (name, kind))).collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(entries)
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

    /// Opens a regular file in this directory, by these flags; one that is made has mode 0600.
    ///
    /// # Errors
    /// It is a link, no regular file, or may not be trusted.
    pub fn file(&self, name: &str, flags: OFlag, trust: Trust) -> io::Result<File> {
        // A FIFO is not waited for.
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let path = self.path.join(name);
        let fd = match openat(&self.fd, component(name)?, flags, mode) {
            Err(Errno::ELOOP) => {
                let error = format!("{} is a symbolic link; remove it", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
            }
            answer => answer?,
        };
        let status = fstat(&fd)?;
        let file = File::from(fd);
        refuse_irregular(file.metadata()?.file_type())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?;
        check(&path, &status, trust)?;
        Ok(file)
    }

    /// Finds a Unix socket in this directory.
    ///
    /// # Errors
    /// It is not there, is a link, or no socket.
    pub fn socket(&self, name: &str) -> io::Result<Socket> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, component(name)?, flags, Mode::empty())?;
        let refuse = |what| {
            let error = format!("{} is {what}; remove it", self.path.join(name).display());
            Err(io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        match SFlag::from_bits_truncate(fstat(&fd)?.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFSOCK => Ok(Socket(fd)),
            SFlag::S_IFLNK => refuse("a symbolic link"),
            _ => refuse("no socket"),
        }
    }

    /// The contents of a file.
    pub fn read(&self, name: &str, trust: Trust) -> io::Result<Vec<u8>> {
        let mut contents = Vec::new();
        self.file(name, OFlag::O_RDONLY, trust)?.take(LONGEST_FILE + 1).read_to_end(&mut contents)?;
        if contents.len() as u64 > LONGEST_FILE {
            let error = format!("{} is longer than {LONGEST_FILE} bytes", self.path.join(name).display());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, error));
        }
        Ok(contents)
    }

    /// Replaces a file as a whole, mode 0600; when it returns, it survives a crash of the machine.
    pub fn replace(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let temporary = format!("{name}.new");
        // What a writer that was killed has left may have any mode.
        self.remove_file(&temporary)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut output = self.file(&temporary, flags, Trust::Ours)?;
        let written = output.write_all(contents).and_then(|()| output.sync_all());
        if let Err(error) = written.and_then(|()| self.rename(&temporary, name)) {
            let _ = self.remove_file(&temporary);
            return Err(error);
        }
        Ok(nix::unistd::fsync(&self.fd)?)
    }

    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(renameat(&self.fd, component(from)?, &self.fd, component(to)?)?)
    }

    /// Removes what is no directory. That it is not there is no error.
    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        gone(unlinkat(&self.fd, component(name)?, UnlinkatFlags::NoRemoveDir))
    }

    /// Removes an empty directory. That it is not there is no error.
    pub fn remove_directory(&self, name: &str) -> io::Result<()> {
        gone(unlinkat(&self.fd, component(name)?, UnlinkatFlags::RemoveDir))
    }

    /// Removes an entry, and if it is a directory of ours everything below it. Links are removed, not followed. That it is
    /// not there is no error.
    pub fn remove_all(&self, name: &str) -> io::Result<()> {
        match self.kind(name) {
            Some(Kind::Directory) => {}
            _ => return self.remove_file(name),
        }
        let below = match self.directory(name, Trust::Ours) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            answer => answer?,
        };
        for (entry, _) in below.names()? {
            match entry.to_str() {
                Some(entry) => below.remove_all(entry)?,
                // It can have been made by somebody else only; a directory of such a name stays, and says so.
                None => gone(unlinkat(&below.fd, entry.as_os_str(), UnlinkatFlags::NoRemoveDir))?,
            }
        }
        self.remove_directory(name)
    }

    /// A symbolic link in this directory, for people.
    pub fn link(&self, target: &Path, name: &str) -> io::Result<()> {
        Ok(symlinkat(target, &self.fd, component(name)?)?)
    }

    /// Where a link leads.
    pub fn linked(&self, name: &str) -> Option<PathBuf> {
        Some(readlinkat(&self.fd, component(name).ok()?).ok()?.into())
    }

    /// Whether a link leads to something.
    pub fn leads_somewhere(&self, name: &str) -> bool {
        component(name).is_ok_and(|name| fstatat(&self.fd, name, AtFlags::empty()).is_ok())
    }

    /// User of the directory.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(fstat(&self.fd)?.st_uid)
    }

    /// Whether it is the one that is open there.
    pub fn is_same(&self, other: impl AsFd) -> bool {
        Identity::of(&self.fd).is_ok_and(|own| Identity::of(other).is_ok_and(|other| own == other))
    }

    /// What identifies it, or an entry of it (a link is not followed), on this machine.
    pub fn identity(&self, entry: Option<&str>) -> io::Result<Identity> {
        let status = match entry {
            Some(entry) => fstatat(&self.fd, component(entry)?, AtFlags::AT_SYMLINK_NOFOLLOW)?,
            None => return Identity::of(&self.fd),
        };
        Ok(Identity::new(&status))
    }

    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A name of an entry is no path.
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

/// Whether what is there may be acted upon.
fn check(path: &Path, status: &FileStat, trust: Trust) -> io::Result<()> {
    let (path, owner, own) = (path.display(), status.st_uid, geteuid().as_raw());
    let refuse = |error: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
    if trust == Trust::Anyones {
        return Ok(());
    }
    if owner != ROOT_USER && owner != own {
        return refuse(format!(
            "{path} belongs to user {owner}, and this runs as user {own}; run it as that user, or remove it"
        ));
    }
    if status.st_mode & OTHERS_WRITE != 0 && status.st_mode & STICKY == 0 {
        return refuse(format!(
            "{path}: others than its owner may write there; chmod go-w {}",
            shell_word(&path)
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

    /// A directory `ours` next to one that is none of ours, with a file in it.
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
        // Neither what is not there, nor below what is not there.
        ours.child("bond0").remove_all().unwrap();
        ours.child("bond0").child("more").remove_all().unwrap();
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let (scene, ours) = scene();
        let (path, directory) = (scene.path().join("ours"), ours.open(Trust::Ours).unwrap());
        for text in ["one", "another", ""] {
            // Left behind by a writer that was killed.
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
        // Another one comes in its place between the check and the connection.
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
