//! A TCP transfer with a checksum at both ends.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use crc32fast::Hasher;

use crate::{WAIT_LIMIT, netns::NetNs, progress::Progress};

/// One write. Each is different, so that a repeated or missing one changes the checksum.
const CHUNK: usize = 256 << 10;

/// A transfer under way.
pub struct Bulk {
    received: Arc<Progress>,
    started: Instant,
    sender: JoinHandle<io::Result<u32>>,
    receiver: JoinHandle<io::Result<u32>>,
    bytes: u64,
}

/// A transfer that arrived whole.
#[derive(Clone, Copy, Debug)]
pub struct BulkReport {
    pub bytes: u64,
    /// From the first write to the last read.
    pub took: Duration,
}

impl BulkReport {
    /// Returns the rate of the payload.
    pub fn bits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.took.as_secs_f64()
    }
}

impl Bulk {
    /// Sends `bytes` from an address in one namespace to an address in another. A connection without progress for 20
    /// s has failed.
    ///
    /// # Errors
    /// An address is not in its namespace, or the connection is not accepted in time.
    pub fn start(from: (&NetNs, IpAddr), to: (&NetNs, IpAddr), bytes: u64) -> Result<Self> {
        let listener = to.0.run(|| Ok(TcpListener::bind(SocketAddr::new(to.1, 0))?));
        let listener = listener.with_context(|| format!("cannot listen on {} in {}", to.1, to.0.name()))?;
        let target = listener.local_addr()?;
        let stream = from.0.run(|| Ok(TcpStream::connect_timeout(&target, WAIT_LIMIT)?));
        let mut stream =
            stream.with_context(|| format!("no connection to {target} from {}", from.0.name()))?;
        // The handshake is complete: the connection is in the queue.
        let (mut accepted, _) = listener.accept()?;
        stream.set_write_timeout(Some(WAIT_LIMIT))?;
        accepted.set_read_timeout(Some(WAIT_LIMIT))?;

        let received = Arc::new(Progress::default());
        let receiver = thread::spawn({
            let received = received.clone();
            move || receive(&mut accepted, &received)
        });
        let started = Instant::now();
        let sender = thread::spawn(move || send(&mut stream, bytes));
        Ok(Self { received, started, sender, receiver, bytes })
    }

    /// Returns the bytes that have arrived so far.
    pub fn received(&self) -> u64 {
        self.received.count()
    }

    /// Waits until `bytes` have arrived in all.
    ///
    /// # Errors
    /// The bytes did not arrive in time.
    pub fn wait_for(&self, bytes: u64) -> Result<()> {
        if self.received.wait(bytes, WAIT_LIMIT) {
            return Ok(());
        }
        bail!("{} of {bytes} awaited bytes arrived within {WAIT_LIMIT:?}", self.received.count())
    }

    /// Waits for the end; the same bytes must have arrived as were sent.
    ///
    /// # Errors
    /// The connection failed, or other bytes arrived than were sent.
    pub fn finish(self) -> Result<BulkReport> {
        let sent = self.sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        let received = self.receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        let took = self.started.elapsed();
        let count = self.received.count();
        let place = || format!("after {count} of {} bytes", self.bytes);
        let (sent, received) = (sent.with_context(place)?, received.with_context(place)?);
        ensure!(count == self.bytes, "the connection ended {}", place());
        ensure!(sent == received, "checksum {sent:08x} sent, {received:08x} received");
        Ok(BulkReport { bytes: count, took })
    }
}

fn send(stream: &mut TcpStream, bytes: u64) -> io::Result<u32> {
    let mut hasher = Hasher::new();
    let mut chunk: Vec<u8> = (0..CHUNK).map(|place| (place * 7 + place / 251) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        chunk[..8].copy_from_slice(&left.to_be_bytes());
        let part = &chunk[..CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        stream.write_all(part)?;
        hasher.update(part);
        left -= part.len() as u64;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(hasher.finalize())
}

fn receive(stream: &mut TcpStream, received: &Progress) -> io::Result<u32> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(hasher.finalize());
        }
        hasher.update(&buffer[..length]);
        received.add(length as u64);
    }
}
