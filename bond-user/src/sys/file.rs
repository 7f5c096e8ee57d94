//! Files and directories that an administrator or a directory names: configuration files, records, receipts.
//!
//! Such a name can lead to any file: a FIFO, a device, an endless file, a mount without a server. So each is read
//! with a limit, only if it is a regular file, and on its own thread, which is abandoned after [`WITHIN`]. This
//! module is not meant for /proc and /sys, which the kernel answers.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use nix::sys::stat::SFlag;

/// How long one file or directory may take.
pub const WITHIN: Duration = Duration::from_secs(5);

/// Bytes of the largest file that is read.
pub const LARGEST: u64 = 4 * 1024 * 1024;

/// Entries of the largest directory that is listed.
pub const MOST_ENTRIES: usize = 4096;

/// The most reads that were abandoned and still wait in the kernel; each keeps a thread.
const MOST_ABANDONED: usize = 8;

/// Bytes; looking up a group takes more than reading a file.
const STACK: usize = 512 * 1024;

/// Why a file or a directory was not read.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it is {0}; xbond reads regular files only")]
    NotRegular(&'static str),
    #[error("it is larger than {LARGEST} bytes, the limit for a file")]
    TooLarge,
    #[error("the directory has more than {MOST_ENTRIES} entries, the limit")]
    TooManyEntries,
    #[error(
        "no answer within {} s; if it is on a network or FUSE file system, check its server, or use a local file",
        WITHIN.as_secs()
    )]
    TimedOut,
    #[error(
        "{MOST_ABANDONED} earlier reads still wait for a file system that does not answer; repair or unmount it"
    )]
    TooManyAbandoned,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReadError {
    /// Whether the file does not exist.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => error,
            ReadError::TimedOut => Self::new(io::ErrorKind::TimedOut, error),
            other => Self::other(other),
        }
    }
}

/// Returns the whole contents of a regular file.
///
/// # Errors
/// It is no regular file, larger than [`LARGEST`], cannot be read, or did not answer.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let path = path.to_owned();
    within(WITHIN, move || read_here(&path))?
}

/// Returns the paths in a directory, in no order.
///
/// # Errors
/// It cannot be read, has more than [`MOST_ENTRIES`] entries, or did not answer.
pub fn list(directory: &Path) -> Result<Vec<PathBuf>, ReadError> {
    let directory = directory.to_owned();
    within(WITHIN, move || {
        let mut paths = Vec::new();
        for entry in fs::read_dir(&directory)? {
            if paths.len() == MOST_ENTRIES {
                return Err(ReadError::TooManyEntries);
            }
            paths.push(entry?.path());
        }
        Ok(paths)
    })?
}

/// The kind of file to which a path leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// There is none.
    Absent,
    /// A directory.
    Directory,
    /// Any other file, readable or not.
    File,
}

/// Returns the kind of file to which a path leads, without opening it.
///
/// # Errors
/// The lookup fails for another reason than that the file is missing, or does not answer.
pub fn kind(path: &Path) -> Result<FileKind, ReadError> {
    let path = path.to_owned();
    within(WITHIN, move || match fs::metadata(&path) {
        Ok(found) if found.is_dir() => Ok(FileKind::Directory),
        Ok(_) => Ok(FileKind::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(FileKind::Absent),
        Err(error) => Err(error.into()),
    })?
}

/// Whether a path leads to /dev/null, by which an administrator masks a file of the same name elsewhere.
///
/// # Errors
/// The lookup does not answer.
pub fn is_null(path: &Path) -> Result<bool, ReadError> {
    let path = path.to_owned();
    within(WITHIN, move || fs::canonicalize(&path).is_ok_and(|found| found == Path::new("/dev/null")))
}

/// Returns options with which opening a path never waits for another process and never assigns a terminal to this
/// one.
pub fn options() -> fs::OpenOptions {
    let mut options = File::options();
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

/// Returns the whole contents of an open file, on the calling thread.
///
/// # Errors
/// It is no regular file, larger than [`LARGEST`], or cannot be read.
pub fn read_open(file: File) -> Result<Vec<u8>, ReadError> {
    refuse_irregular(file.metadata()?.mode())?;
    let mut bytes = Vec::new();
    // The size that the kernel reports can be 0, and can grow.
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST { Err(ReadError::TooLarge) } else { Ok(bytes) }
}

fn read_here(path: &Path) -> Result<Vec<u8>, ReadError> {
    // Checked before the file is opened, which is an action for some devices: a watchdog starts, a tape rewinds.
    refuse_irregular(fs::metadata(path)?.mode())?;
    read_open(options().read(true).open(path)?)
}

/// Checks that a file of this mode (st_mode) is a regular one.
///
/// # Errors
/// It is not; the error names its kind.
pub fn refuse_irregular(mode: u32) -> Result<(), ReadError> {
    Err(ReadError::NotRegular(match SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => return Ok(()),
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFLNK => "a symbolic link",
        _ => "a device",
    }))
}

/// Runs `work` on its own thread and returns its answer. A thread that does not end in time stays until it does: a
/// system call cannot be cancelled.
///
/// # Errors
/// It did not end within `limit`, or too many others have not ended.
pub fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ReadError> {
    static ABANDONED: AtomicUsize = AtomicUsize::new(0);
    if ABANDONED.load(Ordering::Relaxed) >= MOST_ABANDONED {
        return Err(ReadError::TooManyAbandoned);
    }
    let (answer, answered) = mpsc::sync_channel(1);
    // How many of the two, the new thread and its caller, have finished; the second one uncounts the thread.
    let turn = Arc::new(AtomicUsize::new(0));
    let of_worker = Arc::clone(&turn);
    thread::Builder::new().name("read-file".into()).stack_size(STACK).spawn(move || {
        let _ = answer.send(work());
        if of_worker.fetch_add(1, Ordering::AcqRel) == 1 {
            ABANDONED.fetch_sub(1, Ordering::Relaxed);
        }
    })?;
    answered.recv_timeout(limit).map_err(|_| {
        ABANDONED.fetch_add(1, Ordering::Relaxed);
        if turn.fetch_add(1, Ordering::AcqRel) == 1 {
            ABANDONED.fetch_sub(1, Ordering::Relaxed);
        }
        ReadError::TimedOut
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn refusal(path: &Path) -> String {
        read(path).unwrap_err().to_string()
    }

    #[test]
    fn only_regular_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
        let table = [
            (at("fifo"), "a FIFO"),
            (at("link"), "a FIFO"),
            (at("socket"), "a socket"),
            (directory.path().to_owned(), "a directory"),
            ("/dev/zero".into(), "a device"),
            ("/dev/null".into(), "a device"),
        ];
        for (path, kind) in table {
            assert_eq!(refusal(&path), format!("it is {kind}; xbond reads regular files only"));
        }
        assert!(is_null(Path::new("/dev/null")).unwrap() && !is_null(&at("fifo")).unwrap());
        assert!(read(&at("absent")).unwrap_err().is_absent());
        fs::write(at("file"), "text").unwrap();
        assert_eq!(read(&at("file")).unwrap(), b"text");
        // A regular file of unknown size.
        assert!(!read(Path::new("/proc/self/status")).unwrap().is_empty());
    }

    #[test]
    fn a_file_has_a_size_and_a_directory_a_number_of_entries() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, vec![b' '; LARGEST as usize]).unwrap();
        assert_eq!(read(&path).unwrap().len() as u64, LARGEST);
        File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(refusal(&path), "it is larger than 4194304 bytes, the limit for a file");
        for number in 1..MOST_ENTRIES {
            File::create(directory.path().join(number.to_string())).unwrap();
        }
        assert_eq!(list(directory.path()).unwrap().len(), MOST_ENTRIES);
        File::create(directory.path().join("more")).unwrap();
        assert!(matches!(list(directory.path()), Err(ReadError::TooManyEntries)));
    }

    #[test]
    fn work_that_does_not_end_is_abandoned() {
        let limit = Duration::from_millis(10);
        let mut ends = Vec::new();
        for _ in 0..MOST_ABANDONED {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            assert!(matches!(within(limit, move || ended.recv().is_ok()), Err(ReadError::TimedOut)));
        }
        assert!(matches!(within(limit, || ()), Err(ReadError::TooManyAbandoned)));
        drop(ends);
        while !matches!(within(WITHIN, || ()), Ok(())) {
            thread::yield_now();
        }
    }
}
