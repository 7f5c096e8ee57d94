//! Receives the frames of `send` by AF_XDP sockets (copy mode) on the slaves of a bond, and accepts what the bond would
//! accept; or on other interfaces, as a switch that checks who sends what.
//!
//! ```console
//! # cargo run --release -p xbond-follow --example receive -- --bond bond0 --seconds 10
//! ```

mod common;

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd as _, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use clap::Parser;
use common::{frame::Frame, program::Program, socket::XdpSocket};
use xbond_follow::{Follower, Watch};

/// Frames between two looks at which slave is active.
const BATCH: u32 = 64;

#[derive(Parser)]
struct Arguments {
    /// Receives on the slaves of this bond
    #[arg(long, conflicts_with = "interface")]
    bond: Option<String>,
    /// Receives on these interfaces, whatever a bond says
    #[arg(long)]
    interface: Vec<String>,
    /// Ends after this time; without it at SIGINT or SIGTERM
    #[arg(long, value_parser = common::parse_seconds)]
    seconds: Option<Duration>,
    /// The queue of each interface
    #[arg(long, default_value_t = 0)]
    queue: u32,
}

/// An interface with its socket and its program.
struct Port {
    ifindex: u32,
    /// None where no bond is followed.
    slot: Option<u8>,
    socket: XdpSocket,
    _program: Program,
}

/// What arrived on one interface during one generation: of the bond that is followed, else of the frames.
#[derive(Default)]
struct Span {
    received: u64,
    accepted: u64,
    first: u64,
    last: u64,
    /// The latest time at which the sender of one of them had read which slave is active.
    last_read_at: u64,
    last_arrival: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    common::end_on_signals();
    let follower = arguments.bond.as_deref().map(Follower::open).transpose()?.map(Arc::new);
    let ports = match &follower {
        Some(follower) => {
            follower.slaves().map(|slave| (slave.ifindex, Some(slave.slot))).collect::<Vec<_>>()
        }
        None => {
            let ifindexes = arguments.interface.iter().map(|name| common::ifindex_of(name));
            ifindexes.map(|ifindex| Ok((ifindex?, None))).collect::<Result<_>>()?
        }
    };
    ensure!(!ports.is_empty(), "--bond or --interface says on what to receive; a bond has to have slaves");
    let open = |(ifindex, slot)| {
        let socket = XdpSocket::open(ifindex, arguments.queue)?;
        let program = Program::attach(ifindex)?;
        program.redirect(arguments.queue, &socket)?;
        Ok(Port { ifindex, slot, socket, _program: program })
    };
    let mut ports = ports.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    // For a line at each change: receiving does not need it.
    let watch = follower
        .as_ref()
        .map(|follower| Watch::start(Arc::clone(follower), Duration::from_millis(1)))
        .transpose()?;
    println!("ready");

    let end = arguments.seconds.and_then(|seconds| Instant::now().checked_add(seconds));
    let mut spans = BTreeMap::new();
    while !common::is_ended() && end.is_none_or(|end| Instant::now() < end) {
        let mut received = 0;
        for port in &mut ports {
            received += receive(port, follower.as_deref(), &mut spans);
        }
        if let (Some(follower), Some(watch)) = (&follower, &watch)
            && watch.take() > 0
        {
            println!("active: {:?}", follower.active());
        }
        if received == 0 {
            let sockets = ports.iter().map(|port| port.socket.fd().as_raw_fd());
            wait(sockets.chain(watch.iter().map(|watch| watch.as_raw_fd())));
        }
    }
    print(&ports, &spans);
    Ok(())
}

type Spans = BTreeMap<(u32, u32), Span>;

/// Takes a batch of frames; returns how many there were.
fn receive(port: &mut Port, follower: Option<&Follower>, spans: &mut Spans) -> u32 {
    let word = follower.map(Follower::word);
    let (ifindex, slot, arrival) = (port.ifindex, port.slot, common::now());
    port.socket.receive(BATCH, |bytes| {
        let Some(frame) = Frame::read(bytes) else { return };
        let is_group = frame.destination[0] & 1 != 0;
        let accepts = match (word, slot) {
            (Some(word), Some(slot)) => word.delivers(slot, is_group),
            _ => true,
        };
        let generation = word.map_or(frame.generation, |word| word.generation());
        let span = spans.entry((ifindex, generation)).or_insert_with(|| {
            println!("ifindex {ifindex}, generation {generation}, from frame {}", frame.number);
            Span { first: frame.number, ..Span::default() }
        });
        span.received += 1;
        span.accepted += u64::from(accepts);
        span.last = frame.number;
        span.last_read_at = span.last_read_at.max(frame.read_at);
        span.last_arrival = arrival;
    })
}

/// Waits for a frame or a change.
fn wait(descriptors: impl Iterator<Item = RawFd>) {
    const LONGEST_MS: i32 = 100;
    let poll = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut descriptors: Vec<_> = descriptors.map(poll).collect();
    // SAFETY: the structures live until the call returns.
    unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, LONGEST_MS) };
}

/// Prints one line of JSON.
fn print(ports: &[Port], spans: &Spans) {
    let spans: Vec<_> = spans
        .iter()
        .map(|((ifindex, generation), span)| {
            let Span { received, accepted, first, last, last_read_at, last_arrival } = span;
            format!(
                r#"{{"ifindex":{ifindex},"generation":{generation},"received":{received},"accepted":{accepted},"first":{first},"last":{last},"last_read_at":{last_read_at},"last_arrival":{last_arrival}}}"#
            )
        })
        .collect();
    let dropped: u64 = ports.iter().map(|port| port.socket.dropped()).sum();
    println!(r#"{{"dropped":{dropped},"spans":[{}]}}"#, spans.join(","));
}
