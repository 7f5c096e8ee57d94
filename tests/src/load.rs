//! Load on every CPU: threads that take it, and frames whose reception fills its softirqs and its backlog.

use std::{
    fs, hint,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use etherparse::PacketBuilder;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::{NetNs, PacketSocket};

/// Threads of each CPU that only take time.
const HOGS: usize = 2;
/// Ports to which the bridge behind each flood sends a copy of each frame: the CPU that receives it has to do more than the one
/// that sends it, so that its backlog fills.
const COPIES: usize = 8;
/// Frames between two looks at whether the load is to end.
const BURST: usize = 256;

/// The load; it ends when this is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    dropped_before: u64,
    _netns: NetNs,
}

impl Load {
    /// Starts on each CPU hogs, and a flood of frames that another CPU receives (RPS): that does not wait for its backlog.
    ///
    /// # Errors
    /// The namespace `name` cannot be set up, or a thread cannot be bound to a CPU.
    pub fn start(name: &str) -> Result<Self> {
        let cpus = thread::available_parallelism()?.get();
        let netns = NetNs::create(name)?;
        netns.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        let mut load =
            Self { stop: Arc::default(), threads: Vec::new(), dropped_before: dropped()?, _netns: netns };
        for cpu in 0..cpus {
            let receiver = (cpu + 1) % cpus;
            let socket = flood_to(&load._netns, cpu, receiver)?;
            for _ in 0..HOGS {
                load.spawn(cpu, hint::spin_loop);
            }
            let frame = frame(cpu)?;
            load.spawn(cpu, move || {
                // A full queue is what is wanted.
                let _ = socket.send(&frame);
            });
        }
        Ok(load)
    }

    fn spawn(&mut self, cpu: usize, work: impl Fn() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            let mut set = CpuSet::new();
            // Elsewhere it is load as well.
            let _ = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
            while !stop.load(Ordering::Relaxed) {
                (0..BURST).for_each(|_| work());
            }
        }));
    }

    /// Returns how many frames found the backlog of their CPU full since the start, of the flood and of others.
    ///
    /// # Errors
    /// The kernel's counters cannot be read.
    pub fn dropped(&self) -> Result<u64> {
        Ok(dropped()? - self.dropped_before)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Opens a socket whose frames the CPU `receiver` receives.
fn flood_to(netns: &NetNs, cpu: usize, receiver: usize) -> Result<PacketSocket> {
    let (flood, sink) = (format!("flood{cpu}"), format!("sink{cpu}"));
    netns.ip(&format!("link add {flood} type veth peer name {sink}"))?;
    let bridge = format!("flooded{cpu}");
    netns.ip(&format!("link add {bridge} type bridge forward_delay 0 mcast_snooping 0"))?;
    netns.ip(&format!("link set {bridge} up"))?;
    for copy in 0..COPIES {
        netns.ip(&format!(
            "link add copy{cpu}.{copy} master {bridge} up type veth peer name end{cpu}.{copy}"
        ))?;
        netns.ip(&format!("link set end{cpu}.{copy} up"))?;
    }
    netns.ip(&format!("link set {sink} master {bridge} up"))?;
    netns.ip(&format!("link set {flood} up"))?;
    // `ip netns exec` mounts the namespace's own sysfs.
    let queue = format!("/sys/class/net/{sink}/queues/rx-0/rps_cpus");
    let mask = format!("{:x}", 1_u64 << receiver.min(31));
    let script = format!("echo {mask} > {queue}");
    let mut command = std::process::Command::new("ip");
    command.args(["netns", "exec", netns.name(), "sh", "-c", &script]);
    crate::netns::output(&mut command).context("cannot steer received frames")?;
    PacketSocket::open(netns, &flood)
}

/// Returns a frame for another station, by whose addresses the kernel chooses the CPU.
fn frame(cpu: usize) -> Result<Vec<u8>> {
    let source = [2, 0, 0, 0xf1, 0, cpu as u8];
    let builder = PacketBuilder::ethernet2(source, [2, 0, 0, 0xf1, 1, 0]);
    let builder = builder.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 1).udp(9, cpu as u16 + 1);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[0; 18])?;
    Ok(bytes)
}

/// Returns the second column of /proc/net/softnet_stat, of all CPUs.
fn dropped() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/softnet_stat")?;
    let of_cpu = |line: &str| {
        let word = line.split_whitespace().nth(1).context("a CPU without a counter")?;
        Ok(u64::from_str_radix(word, 16)?)
    };
    text.lines().map(of_cpu).sum()
}
