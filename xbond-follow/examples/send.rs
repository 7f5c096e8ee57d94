//! Sends numbered frames by AF_XDP sockets (copy mode) on the slaves of a bond, always by the active one.
//!
//! ```console
//! # cargo run --release -p xbond-follow --example send -- --bond bond0 --rate 100000 --seconds 10
//! ```

mod common;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Parser;
use common::{
    frame::{Frame, LENGTH},
    socket::XdpSocket,
};
use xbond_follow::{Follower, Slave, Word};

#[derive(Parser)]
struct Arguments {
    /// Sends by the active slave of this bond
    #[arg(long, conflicts_with = "interface")]
    bond: Option<String>,
    /// Sends each frame by each of these interfaces, for a test of the receiver
    #[arg(long)]
    interface: Vec<String>,
    /// The destination
    #[arg(long, default_value = "ff:ff:ff:ff:ff:ff", value_parser = common::parse_mac)]
    to: [u8; 6],
    /// Frames per second
    #[arg(long, default_value_t = 100_000)]
    rate: u64,
    /// Frames between two looks at which slave is active
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: u32,
    /// Ends after this time; without it at SIGINT or SIGTERM
    #[arg(long, value_parser = common::parse_seconds)]
    seconds: Option<Duration>,
    /// The queue of each interface
    #[arg(long, default_value_t = 0)]
    queue: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    common::end_on_signals();
    let mut sender = Sender { sockets: BTreeMap::new(), number: 0, discarded: 0, arguments };
    let bond = sender.arguments.bond.clone();
    let begin = Instant::now();
    let switches = match bond {
        Some(bond) => sender.by_bond(&Follower::open(&bond)?)?,
        None => sender.by_interfaces()?,
    };
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        r#"{{"sent":{},"discarded":{},"switches":{switches},"seconds":{seconds:.3},"per_second":{:.0}}}"#,
        sender.number - sender.discarded,
        sender.discarded,
        sender.number as f64 / seconds
    );
    Ok(())
}

struct Sender {
    arguments: Arguments,
    /// By ifindex.
    sockets: BTreeMap<u32, XdpSocket>,
    /// Of the next frame.
    number: u64,
    /// Frames that waited in a socket when its slave was not the active one any more.
    discarded: u64,
}

impl Sender {
    fn by_bond(&mut self, follower: &Follower) -> Result<u64> {
        for slave in follower.slaves() {
            self.socket(slave.ifindex)?;
        }
        println!("ready");
        let (mut pace, mut switches, mut last) = (Pace::new(&self.arguments), 0, None);
        while let Some(count) = pace.next(self.number) {
            let read_at = common::now();
            // Once for each batch.
            let (word, active) = follower.active_with_word();
            let Some(active) = active else { continue };
            if last.is_some_and(|last: Word| last.switches() != word.switches()) {
                switches += 1;
                println!("slot {} from frame {}, generation {}", active.slot, self.number, word.generation());
            }
            last = Some(word);
            self.batch(count, read_at, word, active, || follower.word().switches() == word.switches())?;
        }
        Ok(switches)
    }

    /// Sends a batch by the active slave, as long as it is that.
    fn batch(
        &mut self,
        count: u64,
        read_at: u64,
        word: Word,
        active: Slave,
        is_active: impl FnMut() -> bool,
    ) -> Result<()> {
        let (destination, mut number) = (self.arguments.to, self.number);
        let Some(socket) = self.socket(active.ifindex)? else { return Ok(()) };
        for _ in 0..count.min(socket.room() as u64) {
            let frame =
                Frame { destination, source: active.mac, number, read_at, generation: word.generation() };
            socket.queue(LENGTH, |buffer| frame.write(buffer));
            number += 1;
        }
        let left = socket.flush(is_active);
        self.number = number;
        match left {
            Ok(0) => {}
            // Frames that stay in its ring would leave at the next call, perhaps when this slave is active again much later.
            // A new socket has an empty ring.
            left => {
                self.discarded += u64::from(left.unwrap_or(0));
                self.sockets.remove(&active.ifindex);
            }
        }
        Ok(())
    }

    fn by_interfaces(&mut self) -> Result<u64> {
        let interfaces: Vec<_> =
            self.arguments.interface.iter().map(|name| common::ifindex_of(name)).collect::<Result<_>>()?;
        if interfaces.is_empty() {
            bail!("--bond or --interface says by what to send");
        }
        for ifindex in &interfaces {
            self.socket(*ifindex)?;
        }
        println!("ready");
        let mut pace = Pace::new(&self.arguments);
        while let Some(count) = pace.next(self.number) {
            let (read_at, first) = (common::now(), self.number);
            for ifindex in &interfaces {
                self.number = first;
                let slave = Slave { slot: 0, ifindex: *ifindex, mac: [2, 0, 0, 0, 0, 1] };
                self.batch(count, read_at, Word::default(), slave, || true)?;
            }
            self.number = first + count;
        }
        Ok(0)
    }

    /// Returns the socket on a slave; None while the kernel still has the former socket.
    fn socket(&mut self, ifindex: u32) -> Result<Option<&mut XdpSocket>> {
        if !self.sockets.contains_key(&ifindex) {
            match XdpSocket::open(ifindex, self.arguments.queue) {
                Ok(socket) => drop(self.sockets.insert(ifindex, socket)),
                Err(error)
                    if error
                        .downcast_ref::<std::io::Error>()
                        .is_some_and(|error| error.raw_os_error() == Some(libc::EBUSY)) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(self.sockets.get_mut(&ifindex))
    }
}

/// How many frames are due.
struct Pace {
    begin: Instant,
    end: Option<Instant>,
    rate: u64,
    batch: u64,
    first: u64,
}

impl Pace {
    fn new(arguments: &Arguments) -> Self {
        let begin = Instant::now();
        let end = arguments.seconds.and_then(|seconds| begin.checked_add(seconds));
        Self { begin, end, rate: arguments.rate, batch: arguments.batch.into(), first: 0 }
    }

    /// Waits until frames are due, and returns how many; None at the end. A sender that was late by more than a tenth of a
    /// second does not make up for it.
    fn next(&mut self, sent: u64) -> Option<u64> {
        loop {
            let now = Instant::now();
            if common::is_ended() || self.end.is_some_and(|end| now >= end) {
                return None;
            }
            let due = u64::try_from((now - self.begin).as_nanos() * u128::from(self.rate) / 1_000_000_000)
                .unwrap_or(u64::MAX);
            let count = due.saturating_sub(sent - self.first);
            if count > self.rate / 10 {
                (self.begin, self.first) = (now, sent);
            } else if count >= self.batch.min(self.rate / 1_000).max(1) {
                return Some(count.min(self.batch));
            }
            std::hint::spin_loop();
        }
    }
}
