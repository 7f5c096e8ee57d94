//! Standard output and standard error of a running agent. Nothing in the agent waits for their readers: a line is
//! added to a queue of limited length, a separate thread writes it, and lines beyond the limit are dropped, counted
//! and reported.
//!
//! A reader that stalls is a normal case: a terminal after Ctrl-S, `| less`, a stopped log daemon. tracing-appender
//! works in the same way, except at the end of the process: if its queue is full, it prints to standard output, and
//! so waits for that reader.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, RawFd},
        unix::net::UnixDatagram,
    },
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::{Duration, Instant},
};

use bond_core::name::printable;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd,
};
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait for their reader.
const MOST: usize = 1024;
/// At the end of the process, a reader that accepts nothing for this time is no longer waited for.
const STALLED: Duration = Duration::from_millis(200);
/// The longest wait for a reader that accepts something.
const LONGEST_END: Duration = Duration::from_secs(1);
/// A line of standard output is written after the earlier lines of the log, if those are accepted within this time.
const LOG_FIRST: Duration = Duration::from_millis(100);

/// Returns the final form of a line that is no event.
pub type Plain = fn(&str) -> Vec<u8>;

/// The form of the lines of [`note`]; text if it is not set.
static PLAIN: OnceLock<Plain> = OnceLock::new();

static OUT: Lines = Lines::new(libc::STDOUT_FILENO, "standard output");
static LOG: Lines = Lines::new(libc::STDERR_FILENO, "the log");

/// Prints a line on standard output.
pub fn print(line: &str) {
    OUT.push(format!("{}\n", printable(line)).into_bytes());
}

/// Prints a line on standard error, next to the log, or in the form of the log where that is one for programs.
pub fn note(line: &str) {
    LOG.push(match PLAIN.get() {
        Some(plain) => plain(line),
        None => format!("{}\n", printable(line)).into_bytes(),
    });
}

/// Adds a line of the log, in its final form.
pub fn log(line: Vec<u8>) {
    LOG.push(line);
}

/// Gives the lines of [`note`] another form.
pub fn write_notes_as(plain: Plain) {
    let _ = PLAIN.set(plain);
}

/// Sends the log to a socket, one datagram a line, instead of standard error. Returns false if it is sent to another one.
pub fn send_log_to(socket: UnixDatagram, plain: Plain) -> bool {
    write_notes_as(plain);
    LOG.datagrams.set(socket).is_ok()
}

/// Starts the writing threads. Until then lines are kept.
///
/// # Errors
/// No thread can be started.
pub fn start() -> io::Result<()> {
    LOG.start("log", || {})?;
    OUT.start("stdout", || LOG.settle(LOG_FIRST))
}

/// Waits until everything is written, unless a reader has stalled: not much longer than [`LONGEST_END`].
pub fn end() {
    let _ = start();
    for lines in [&LOG, &OUT] {
        if lines.state().has_thread { lines.end() } else { lines.write_here() }
    }
}

/// The writer for the log of tracing.
#[derive(Clone, Copy, Debug)]
pub struct LogWriter;

impl io::Write for LogWriter {
    /// tracing calls this once for each event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        LOG.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

struct Lines {
    descriptor: RawFd,
    /// Where lines go instead, one datagram each.
    datagrams: OnceLock<UnixDatagram>,
    /// The name in messages.
    name: &'static str,
    state: Mutex<State>,
    /// A line was added.
    more: Condvar,
    /// A line was written, or dropped.
    done: Condvar,
}

struct State {
    waiting: VecDeque<Vec<u8>>,
    has_thread: bool,
    /// The thread has taken a line that is not written yet.
    is_writing: bool,
    /// Lines that were written, or dropped.
    done: u64,
    /// Lines that were lost, and not reported yet.
    lost: u64,
}

impl Lines {
    const fn new(descriptor: RawFd, name: &'static str) -> Self {
        let state =
            State { waiting: VecDeque::new(), has_thread: false, is_writing: false, done: 0, lost: 0 };
        Self {
            descriptor,
            datagrams: OnceLock::new(),
            name,
            state: Mutex::new(state),
            more: Condvar::new(),
            done: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Poisoned or not, the queue and its counts are consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line without waiting.
    fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        if state.waiting.len() < MOST {
            state.waiting.push_back(line);
            self.more.notify_one();
        } else {
            state.lost += 1;
        }
    }

    fn start(&'static self, thread: &str, before_each: impl Fn() + Send + 'static) -> io::Result<()> {
        let mut state = self.state();
        if !state.has_thread {
            thread::Builder::new().name(thread.into()).spawn(move || self.write(before_each))?;
            state.has_thread = true;
        }
        Ok(())
    }

    fn write(&self, before_each: impl Fn()) {
        loop {
            let line = self.take();
            before_each();
            let is_written = match self.datagrams.get() {
                Some(socket) => socket.send(&line).is_ok(),
                None => write_all(self.output(), &line).is_ok(),
            };
            let lost = self.did(is_written);
            if lost > 0 {
                warn!("{}", dropped(lost, self.name));
            }
        }
    }

    fn output(&self) -> BorrowedFd<'_> {
        // SAFETY: std opens these descriptors before main if they are closed, and no code closes them.
        unsafe { BorrowedFd::borrow_raw(self.descriptor) }
    }

    fn take(&self) -> Vec<u8> {
        let mut state = self.state();
        loop {
            if let Some(line) = state.waiting.pop_front() {
                state.is_writing = true;
                return line;
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Counts a line. Returns how many lost lines are to be reported now: when the reader accepts lines again, and
    /// half of the queue is free.
    fn did(&self, is_written: bool) -> u64 {
        let mut state = self.state();
        state.is_writing = false;
        state.done += 1;
        self.done.notify_all();
        if !is_written {
            state.lost += 1;
            return 0;
        }
        if state.waiting.len() > MOST / 2 { 0 } else { std::mem::take(&mut state.lost) }
    }

    /// Waits until the lines that are queued now are written.
    fn settle(&self, within: Duration) {
        let state = self.state();
        let until = state.done + state.waiting.len() as u64 + u64::from(state.is_writing);
        let _ = self.done.wait_timeout_while(state, within, |state| state.done < until);
    }

    /// Writes the queued lines as long as the reader accepts them, in pieces that fit into a pipe with free space:
    /// for a process that gets no thread, and ends with the reason.
    fn write_here(&self) {
        let socket = self.datagrams.get();
        let to = socket.map_or_else(|| self.output(), |socket| socket.as_fd());
        let piece = if socket.is_some() { usize::MAX } else { libc::PIPE_BUF };
        let stalled = PollTimeout::try_from(STALLED).unwrap_or(PollTimeout::ZERO);
        let has_room =
            || poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], stalled).is_ok_and(|ready| ready > 0);
        let lines = std::mem::take(&mut self.state().waiting);
        for piece in lines.iter().flat_map(|line| line.chunks(piece)) {
            if !has_room() || write_all(to, piece).is_err() {
                return;
            }
        }
    }

    fn end(&self) {
        let latest = Instant::now() + LONGEST_END;
        loop {
            let state = self.state();
            if (state.waiting.is_empty() && !state.is_writing) || Instant::now() >= latest {
                return;
            }
            let before = state.done;
            match self.done.wait_timeout_while(state, STALLED, |state| state.done == before) {
                Ok((_, waited)) if waited.timed_out() => return,
                _ => {}
            }
        }
    }
}

/// Returns the message about dropped lines.
fn dropped(lines: u64, what: &str) -> String {
    let (lines, were) =
        if lines == 1 { ("1 line".into(), "was") } else { (format!("{lines} lines"), "were") };
    format!("{lines} of {what} {were} dropped: its reader did not take them")
}

/// Writes all bytes, and waits for the reader, also if another process has made the descriptor non-blocking.
fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> nix::Result<()> {
    while !bytes.is_empty() {
        match unistd::write(to, bytes) {
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => drop(poll(&mut [PollFd::new(to, PollFlags::POLLOUT)], PollTimeout::NONE)),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Read as _,
        os::fd::{AsRawFd as _, OwnedFd},
    };

    use nix::fcntl::{FcntlArg, fcntl};

    use super::*;

    const PIPE: usize = 4096;

    /// Returns lines that are written into a pipe of one page.
    fn lines() -> (&'static Lines, File) {
        let (reader, writer) = unistd::pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE as i32)).unwrap();
        // The thread uses it as long as the process lives.
        let writer: &OwnedFd = Box::leak(Box::new(writer));
        (Box::leak(Box::new(Lines::new(writer.as_raw_fd(), "the log"))), File::from(reader))
    }

    #[test]
    fn lines_without_a_reader_are_dropped_and_counted_without_delay() {
        let (lines, mut reader) = lines();
        lines.start("test", || {}).unwrap();
        let start = Instant::now();
        for number in 0..4 * MOST {
            lines.push(format!("{number:099}\n").into_bytes());
        }
        lines.end();
        assert!(start.elapsed() < LONGEST_END, "{:?}", start.elapsed());
        let lost = lines.state().lost;
        let in_pipe = PIPE / 100 + 1;
        assert!((3 * MOST - in_pipe..=3 * MOST).contains(&(lost as usize)), "{lost} lost");

        // All kept lines arrive in order, and the losses are reported once.
        let mut text = vec![0; (4 * MOST - lost as usize) * 100];
        reader.read_exact(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|earlier, later| earlier < later), "{numbers:?}");
        lines.end();
        assert_eq!(lines.state().lost, 0);
    }

    #[test]
    fn lines_that_come_before_the_thread_are_kept() {
        let (lines, mut reader) = lines();
        lines.push(b"early\n".to_vec());
        lines.start("test", || {}).unwrap();
        lines.push(b"late\n".to_vec());
        let mut text = [0; 11];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"early\nlate\n");
    }

    #[test]
    fn lines_without_a_thread_are_written_as_long_as_there_is_room() {
        let (lines, mut reader) = lines();
        lines.push(b"why\n".to_vec());
        lines.write_here();
        let mut text = [0; 4];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"why\n");
        let start = Instant::now();
        lines.push(vec![b'x'; 4 * PIPE]);
        lines.write_here();
        assert!(start.elapsed() < LONGEST_END, "{:?}", start.elapsed());
    }

    #[test]
    fn lines_go_to_a_socket_one_datagram_each() {
        let (lines, mut reader) = lines();
        let (socket, journal) = UnixDatagram::pair().unwrap();
        lines.datagrams.set(socket).unwrap();
        lines.push(b"early\n".to_vec());
        lines.write_here();
        lines.push(vec![b'x'; 2 * PIPE]);
        lines.start("test", || {}).unwrap();
        let mut read = [0; 4 * PIPE];
        for expected in [6, 2 * PIPE] {
            assert_eq!(journal.recv(&mut read).unwrap(), expected);
        }
        // A journal that is stopped delays nothing.
        let start = Instant::now();
        (0..2 * MOST).for_each(|_| lines.push(b"line\n".to_vec()));
        assert!(start.elapsed() < STALLED, "{:?}", start.elapsed());
        fcntl(&reader, FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
        assert!(reader.read(&mut read).is_err(), "nothing was written to standard error");
    }

    #[test]
    fn a_reader_that_disconnected_causes_no_busy_loop() {
        let (lines, reader) = lines();
        drop(reader);
        lines.start("test", || {}).unwrap();
        for _ in 0..3 {
            lines.push(b"line\n".to_vec());
        }
        lines.end();
        let state = lines.state();
        assert_eq!((state.done, state.lost), (3, 3));
    }

    #[test]
    fn losses_are_reported_in_numbers() {
        assert_eq!(dropped(1, "the log"), "1 line of the log was dropped: its reader did not take them");
        assert!(dropped(20, "the log").starts_with("20 lines of the log were dropped"));
    }
}
