//! Switches in user space: bond0 is a port of one, and the host has a tap with its address as another port.

use std::{
    io::{self, PipeWriter},
    net::UdpSocket,
    os::fd::AsRawFd as _,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    NetNs, PacketSocket,
    netns::output,
    tap::{self, Tap},
};

nix::ioctl_read_bad!(get_mac, libc::SIOCGIFHWADDR, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_mac, libc::SIOCSIFHWADDR, libc::ifreq);

/// How often the MAC address of the device is compared, and the longest wait for a frame.
const TICK: Duration = Duration::from_millis(5);

/// A switch of two ports that does what Open vSwitch does with its userspace datapath: a packet socket at a device, which is
/// promiscuous by that, and a tap that has the device's MAC address, also after that changed.
pub struct TapSwitch {
    stop: Arc<AtomicBool>,
    _end: PipeWriter,
    threads: Vec<JoinHandle<()>>,
}

impl TapSwitch {
    /// Creates `tap`, which is down, and forwards between it and `device`.
    ///
    /// # Errors
    /// The tap or a socket cannot be opened.
    pub fn start(netns: &NetNs, device: &str, tap: &str) -> Result<Self> {
        let wire = Arc::new(PacketSocket::open(netns, device)?);
        let host = Arc::new(Tap::create(netns, tap)?);
        let control = netns.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        let names = [device, tap].map(str::to_owned);
        follow_mac(&control, &names)?;
        let (stop, (ended, end)) = (Arc::new(AtomicBool::new(false)), io::pipe()?);
        let to_wire = thread::spawn({
            let (wire, host) = (Arc::clone(&wire), Arc::clone(&host));
            // What cannot be sent is lost, as on a wire.
            move || drop(tap::deliver(&host, ended, |frame| wire.send(frame).or(Ok(()))))
        });
        let to_host = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(Some(frame)) = wire.receive(TICK)
                        && !frame.outgoing
                    {
                        let _ = host.write(&frame.bytes);
                    }
                }
            }
        });
        let to_follow = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let _ = follow_mac(&control, &names);
                    thread::sleep(TICK);
                }
            }
        });
        Ok(Self { stop, _end: end, threads: vec![to_wire, to_host, to_follow] })
    }
}

impl Drop for TapSwitch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // The first ends with its pipe, which is dropped later.
        for thread in self.threads.drain(1..) {
            let _ = thread.join();
        }
    }
}

/// Returns a request about a device.
fn request(name: &str) -> Result<libc::ifreq> {
    ensure!(name.len() < libc::IFNAMSIZ, "interface name {name} is too long");
    // SAFETY: ifreq is plain data, for which zero bytes are a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// Gives the second device the MAC address of the first, if it has another one.
fn follow_mac(control: &UdpSocket, [device, tap]: &[String; 2]) -> Result<()> {
    let (mut device, mut tap) = (request(device)?, request(tap)?);
    let socket = control.as_raw_fd();
    // SAFETY: both are live ifreqs with names that end in zero; the MAC addresses are the union's field that the calls fill in.
    unsafe {
        get_mac(socket, &raw mut device)?;
        get_mac(socket, &raw mut tap)?;
        if device.ifr_ifru.ifru_hwaddr.sa_data != tap.ifr_ifru.ifru_hwaddr.sa_data {
            tap.ifr_ifru.ifru_hwaddr = device.ifr_ifru.ifru_hwaddr;
            set_mac(socket, &raw const tap)?;
        }
    }
    Ok(())
}

/// Open vSwitch in a namespace, with its userspace datapath, which needs no module of the kernel. Its processes end with it.
pub struct OpenVSwitch {
    directory: TempDir,
    children: Vec<Child>,
}

impl OpenVSwitch {
    /// Returns why it cannot run here, if so.
    pub fn obstacle() -> Option<&'static str> {
        let has = |program: &str| {
            let mut command = Command::new(program);
            command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let programs = ["ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"];
        if programs.into_iter().all(has) {
            None
        } else {
            Some("Open vSwitch is not installed (Debian: package openvswitch-switch)")
        }
    }

    /// Starts a switch in which `device` is a port, and whose own port is the tap `bridge`, which is down.
    ///
    /// # Errors
    /// One of its programs fails.
    pub fn start(netns: &NetNs, device: &str, bridge: &str) -> Result<Self> {
        const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
        let mut switch = Self { directory: tempfile::tempdir()?, children: Vec::new() };
        let database = switch.path("conf.db");
        output(Command::new("ovsdb-tool").args(["create", &database, SCHEMA]))?;
        let socket = switch.path("db.sock");
        switch.spawn(Command::new("ovsdb-server").args([&database, &format!("--remote=punix:{socket}")]))?;
        switch.vsctl("--no-wait --retry init")?;
        switch.spawn(netns.command("ovs-vswitchd").arg(format!("unix:{socket}")))?;
        switch.vsctl(&format!("add-br {bridge} -- set bridge {bridge} datapath_type=netdev"))?;
        switch.vsctl(&format!("add-port {bridge} {device}"))?;
        Ok(switch)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_string_lossy().into_owned()
    }

    fn spawn(&mut self, command: &mut Command) -> Result<()> {
        command.env("OVS_RUNDIR", self.directory.path()).env("OVS_LOGDIR", self.directory.path());
        command.arg(format!("--unixctl={}", self.path(&format!("ctl{}", self.children.len()))));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.children.push(child.with_context(|| format!("cannot start {command:?}"))?);
        Ok(())
    }

    /// Runs `ovs-vsctl` with this line, and waits until the switch has done what it asks for.
    ///
    /// # Errors
    /// It fails.
    pub fn vsctl(&self, line: &str) -> Result<String> {
        let database = format!("--db=unix:{}", self.path("db.sock"));
        output(Command::new("ovs-vsctl").arg(database).arg("--timeout=20").args(line.split(' ')))
    }
}

impl Drop for OpenVSwitch {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
