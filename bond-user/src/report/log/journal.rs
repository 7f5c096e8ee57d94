//! Lines of the log as entries of systemd's journal, with fields.
//!
//! journald reads datagrams of a simple format (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>). tracing-journald writes it,
//! too, but it sends in the thread that logs, which waits as long as journald is stopped: failovers would wait with it. So
//! only the format is here; the queue and the thread of [`crate::report::lines`] send.

use std::{
    env, io,
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::Path,
};

use nix::sys::stat::fstat;
use tracing::Level;

use super::entry::LogEntry;

/// The socket of journald.
pub const SOCKET: &str = "/run/systemd/journal/socket";
/// The beginning of the names of fields that are not the journal's own.
const PREFIX: &str = "XBOND_";

/// Returns whether journald reads this output: JOURNAL_STREAM has its device and inode.
pub fn reads(output: impl AsFd) -> bool {
    let stream = env::var("JOURNAL_STREAM").unwrap_or_default();
    is_stream(&stream, output)
}

fn is_stream(stream: &str, output: impl AsFd) -> bool {
    let Ok(status) = fstat(output) else { return false };
    stream == format!("{}:{}", status.st_dev, status.st_ino)
}

/// Opens a socket to journald.
///
/// # Errors
/// journald does not run, or may not be reached.
pub fn open(path: impl AsRef<Path>) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// Returns the datagram of an entry.
pub fn datagram(entry: &LogEntry) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(512);
    put(&mut datagram, "MESSAGE", &entry.sentence);
    put(&mut datagram, "PRIORITY", priority(entry.level));
    put(&mut datagram, "SYSLOG_IDENTIFIER", "xbond");
    for (name, value) in &entry.fields {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        put(&mut datagram, &field(name), &text);
    }
    datagram
}

/// Returns the datagram of a text that is no entry, such as the reason why the process ends.
pub fn plain(text: &str) -> Vec<u8> {
    datagram(&LogEntry { level: Level::ERROR, sentence: text.to_owned(), fields: Vec::new() })
}

/// The level as in syslog(3).
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// Returns the name of a field in the journal: capital letters, digits and underscores.
fn field(name: &str) -> String {
    let allowed =
        |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(name.chars().map(allowed)).collect()
}

/// Appends a field with its length, so that a value may have several lines.
fn put(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend(name.bytes());
    datagram.push(b'\n');
    datagram.extend((value.len() as u64).to_le_bytes());
    datagram.extend(value.bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    /// Reads a datagram as journald does.
    fn fields(mut datagram: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while let Some(end) = datagram.iter().position(|byte| *byte == b'\n') {
            let (name, rest) = (&datagram[..end], &datagram[end + 1..]);
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8 + length], b'\n');
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(&rest[8..8 + length])));
            datagram = &rest[9 + length..];
        }
        fields
    }

    #[test]
    fn an_entry_is_read_by_a_journal_with_its_fields() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let journal = UnixDatagram::bind(&path).unwrap();
        let entry = LogEntry {
            level: Level::WARN,
            sentence: "bond0: no active slave\nsecond line".into(),
            fields: vec![("bond", "bond0".into()), ("detect_us", 40.into()), ("a.b", true.into())],
        };
        open(&path).unwrap().send(&datagram(&entry)).unwrap();
        let mut read = [0; 4096];
        let length = journal.recv(&mut read).unwrap();
        let expected = [
            ("MESSAGE", "bond0: no active slave\nsecond line"),
            ("PRIORITY", "4"),
            ("SYSLOG_IDENTIFIER", "xbond"),
            ("XBOND_BOND", "bond0"),
            ("XBOND_DETECT_US", "40"),
            ("XBOND_A_B", "true"),
        ];
        assert_eq!(
            fields(&read[..length]),
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn the_journal_reads_an_output_that_journal_stream_names() {
        let file = File::open("/dev/null").unwrap();
        let status = fstat(&file).unwrap();
        let own = format!("{}:{}", status.st_dev, status.st_ino);
        for (stream, expected) in [(own.as_str(), true), ("", false), ("1:2", false), ("x", false)] {
            assert_eq!(is_stream(stream, &file), expected, "{stream}");
        }
    }
}
