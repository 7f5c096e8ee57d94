//! Numbered UDP packets at a rate, counted where they arrive.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    errno::Errno,
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt},
        time::TimeSpec,
    },
};

use crate::{
    netns::NetNs,
    packet::WallClock,
    progress::Progress,
    sequence::{Account, Arrival, Recovery},
    wait_limit,
};

/// Distinguishes the flow's packets from other packets to the port.
const MAGIC: [u8; 4] = *b"xbnd";
/// Magic and sequence number.
const HEADER: usize = 8;
/// How often the receiver checks whether the sender has ended; the last packets must arrive within this time.
const TICK: Duration = Duration::from_millis(100);
/// A sender that was delayed for longer omits what it did not send: all at once would be more than queues hold.
const LATE: Duration = Duration::from_millis(50);
/// Receive buffer: more than a second of small packets at the highest rate, in the kernel's accounting.
const RECEIVE_BUFFER: usize = 128 << 20;
const SEND_BUFFER: usize = 8 << 20;

/// The rate and the size of a flow.
#[derive(Clone, Copy, Debug)]
pub struct FlowOptions {
    /// Packets per second, up to about 100 000.
    pub rate: u32,
    /// Bytes of UDP payload, at least 8.
    pub payload: usize,
}

impl Default for FlowOptions {
    fn default() -> Self {
        Self { rate: 1_000, payload: 64 }
    }
}

/// One direction of traffic. It runs until it is stopped or dropped.
pub struct Flow {
    started: Instant,
    stop: Arc<AtomicBool>,
    offered: Arc<AtomicU64>,
    arrived: Arc<Progress>,
    sender: Option<JoinHandle<Sent>>,
    receiver: Option<JoinHandle<io::Result<Heard>>>,
}

/// The result of a flow: its account, with the losses that the network did not cause.
#[derive(Clone)]
pub struct FlowReport {
    pub account: Account,
    /// Packets that the sender's stack refused (counted as sent and lost), and its last reason.
    pub refused: u64,
    pub refusal: Option<Errno>,
    /// Packets that reached the receiver's socket and found its buffer full: a fault of the test, not of the network.
    pub overflowed: u32,
    /// In the order of time.
    pub arrivals: Vec<Arrival>,
    started: Instant,
}

impl FlowReport {
    /// Returns how the flow recovered from what happened at `event`.
    pub fn recovery(&self, event: Instant) -> Recovery {
        self.account.recovery(self.since_start(event))
    }

    /// Converts a time to the flow's own time.
    pub fn since_start(&self, event: Instant) -> Duration {
        event.saturating_duration_since(self.started)
    }
}

/// Prints the report without its thousands of arrivals.
impl fmt::Debug for FlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowReport")
            .field("account", &self.account)
            .field("refused", &self.refused)
            .field("refusal", &self.refusal)
            .field("overflowed", &self.overflowed)
            .finish_non_exhaustive()
    }
}

impl std::ops::Deref for FlowReport {
    type Target = Account;

    fn deref(&self) -> &Account {
        &self.account
    }
}

#[derive(Default)]
struct Sent {
    count: u64,
    last: Duration,
    refused: u64,
    refusal: Option<Errno>,
}

#[derive(Default)]
struct Heard {
    arrivals: Vec<Arrival>,
    overflowed: u32,
}

impl Flow {
    /// Starts a flow from an address in one namespace to an address in another; the kernel chooses the ports.
    ///
    /// # Errors
    /// The options describe no flow, an address is not in its namespace, or there is no route.
    pub fn start(from: (&NetNs, IpAddr), to: (&NetNs, IpAddr), options: FlowOptions) -> Result<Self> {
        ensure!(options.rate > 0 && options.payload >= HEADER, "no flow of {options:?}");
        let (receiver, sender) = (bind(to.0, to.1)?, bind(from.0, from.1)?);
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        setsockopt(&receiver, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&receiver, sockopt::RxqOvfl, &1)?;
        receiver.set_read_timeout(Some(TICK))?;
        setsockopt(&sender, sockopt::SndBuf, &SEND_BUFFER)?;
        // A full device queue or an unresolved neighbour must not delay the packets that follow.
        sender.set_nonblocking(true)?;
        let target = receiver.local_addr()?;
        sender.connect(target).with_context(|| format!("no route to {target} from {}", from.0.name()))?;

        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let arrived = Arc::new(Progress::default());
        let offered = Arc::new(AtomicU64::new(0));
        let started = Instant::now();
        let receiver = thread::spawn({
            let (ended, arrived) = (ended.clone(), arrived.clone());
            move || hear(&receiver, started, &ended, &arrived)
        });
        let sender = thread::spawn({
            let (stop, offered) = (stop.clone(), offered.clone());
            move || {
                let sent = send(&sender, started, options, &stop, &offered);
                ended.store(true, Ordering::Release);
                sent
            }
        });
        Ok(Self { started, stop, offered, arrived, sender: Some(sender), receiver: Some(receiver) })
    }

    /// Returns how many packets the sender has offered to its stack so far: all numbers below this one.
    pub fn offered(&self) -> u64 {
        self.offered.load(Ordering::Acquire)
    }

    /// Returns how many packets have arrived so far, including copies.
    pub fn arrived(&self) -> u64 {
        self.arrived.count()
    }

    /// Waits until `count` more packets have arrived.
    ///
    /// # Errors
    /// The packets did not arrive in time.
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let before = self.arrived.count();
        ensure!(
            self.arrived.wait(before + count, wait_limit()),
            "{} of {count} awaited packets arrived within {:?}",
            self.arrived.count() - before,
            wait_limit()
        );
        Ok(())
    }

    /// Ends the sending, waits for packets that are still under way, and counts.
    ///
    /// # Errors
    /// The flow was stopped before, or one of its threads failed.
    pub fn stop(mut self) -> Result<FlowReport> {
        self.stop.store(true, Ordering::Release);
        let (sender, receiver) = self.sender.take().zip(self.receiver.take()).context("a stopped flow")?;
        let sent = sender.join().map_err(|_| anyhow!("the sender panicked"))?;
        let heard = receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
        let heard = heard.context("the receiver of a flow failed")?;
        Ok(FlowReport {
            account: Account::of(sent.count, sent.last, &heard.arrivals),
            refused: sent.refused,
            refusal: sent.refusal,
            overflowed: heard.overflowed,
            arrivals: heard.arrivals,
            started: self.started,
        })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// A flow in each direction between two hosts. An emulated machine cannot keep up with the usual rates, and gets a
/// fifth of the packets in the same time.
pub struct TwoWay {
    flows: [Flow; 2],
}

fn as_many_as_may_be(packets: u64) -> u64 {
    if crate::time_is_no_measure().is_some() { packets.div_ceil(5) } else { packets }
}

impl TwoWay {
    /// Starts `rate` packets per second in each direction.
    ///
    /// # Errors
    /// One of the flows cannot be started.
    pub fn start(host: (&NetNs, IpAddr), peer: (&NetNs, IpAddr), rate: u32) -> Result<Self> {
        let rate = u32::try_from(as_many_as_may_be(rate.into()))?;
        let options = FlowOptions { rate, ..FlowOptions::default() };
        Ok(Self { flows: [Flow::start(host, peer, options)?, Flow::start(peer, host, options)?] })
    }

    /// Waits until `count` more packets have arrived in each direction.
    ///
    /// # Errors
    /// The packets of one direction did not arrive in time.
    pub fn wait_for_more(&self, count: u64) -> Result<()> {
        let [to_peer, to_host] = &self.flows;
        let count = as_many_as_may_be(count);
        to_peer.wait_for_more(count).context("from host to peer")?;
        to_host.wait_for_more(count).context("from peer to host")
    }

    /// Ends both flows. Returns the report from host to peer, then that from peer to host.
    ///
    /// # Errors
    /// A thread of one of the flows failed.
    pub fn stop(self) -> Result<[FlowReport; 2]> {
        let [to_peer, to_host] = self.flows;
        // Stop both senders before waiting for the first receiver.
        to_host.stop.store(true, Ordering::Release);
        Ok([to_peer.stop()?, to_host.stop()?])
    }
}

fn bind(namespace: &NetNs, address: IpAddr) -> Result<UdpSocket> {
    let bound = namespace.run(|| Ok(UdpSocket::bind(SocketAddr::new(address, 0))?));
    bound.with_context(|| format!("cannot bind to {address} in {}", namespace.name()))
}

fn send(
    socket: &UdpSocket,
    started: Instant,
    options: FlowOptions,
    stop: &AtomicBool,
    offered: &AtomicU64,
) -> Sent {
    let mut packet = vec![0; options.payload];
    packet[..MAGIC.len()].copy_from_slice(&MAGIC);
    let interval = Duration::from_secs(1) / options.rate;
    let most_at_once = u128::from(options.rate) * LATE.as_nanos() / 1_000_000_000 + 1;
    let mut sent = Sent::default();
    // Packets that were due while this thread was delayed.
    let mut omitted = 0;
    while !stop.load(Ordering::Acquire) {
        let now = started.elapsed();
        let due = now.as_nanos() * u128::from(options.rate) / 1_000_000_000;
        omitted = omitted.max(due.saturating_sub(u128::from(sent.count) + most_at_once));
        if u128::from(sent.count) + omitted > due {
            thread::sleep(interval.min(Duration::from_millis(1)));
            continue;
        }
        packet[MAGIC.len()..HEADER].copy_from_slice(&(sent.count as u32).to_be_bytes());
        if let Err(error) = socket.send(&packet) {
            sent.refused += 1;
            sent.refusal = error.raw_os_error().map(Errno::from_raw);
        }
        sent.count += 1;
        sent.last = now;
        offered.store(sent.count, Ordering::Release);
    }
    sent
}

fn hear(
    socket: &UdpSocket,
    started: Instant,
    sender_ended: &AtomicBool,
    arrived: &Progress,
) -> io::Result<Heard> {
    let clock = WallClock::read();
    let mut heard = Heard::default();
    let mut control = nix::cmsg_space!(TimeSpec, u32);
    let mut header = [0; HEADER];
    loop {
        let ended = sender_ended.load(Ordering::Acquire);
        let mut buffers = [IoSliceMut::new(&mut header)];
        match recvmsg::<()>(socket.as_raw_fd(), &mut buffers, Some(&mut control), MsgFlags::empty()) {
            Ok(message) => {
                let mut at = None;
                for item in message.cmsgs()? {
                    match item {
                        ControlMessageOwned::ScmTimestampns(time) => at = Some(clock.instant(time)),
                        ControlMessageOwned::RxqOvfl(total) => heard.overflowed = total,
                        _ => {}
                    }
                }
                let at = at.unwrap_or_else(Instant::now).saturating_duration_since(started);
                let length = message.bytes;
                if let Some(sequence) = parse(&header[..length]) {
                    heard.arrivals.push(Arrival { sequence, at });
                    arrived.add(1);
                }
            }
            // EAGAIN: nothing for a tick.
            Err(Errno::EAGAIN) if ended => return Ok(heard),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNREFUSED) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn parse(header: &[u8]) -> Option<u32> {
    let (magic, sequence) = header.split_first_chunk()?;
    if *magic != MAGIC { None } else { Some(u32::from_be_bytes(sequence.try_into().ok()?)) }
}
