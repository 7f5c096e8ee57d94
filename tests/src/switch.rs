//! The switch between the host's NICs and the peer: a bridge in its own namespace.

use std::{
    net::UdpSocket,
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{Mac, WAIT_LIMIT, netns::NetNs};

nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);

const BRIDGE: &str = "br0";
/// The second switch, and the two ends of the trunk to it.
const SECOND: &str = "br1";
const TRUNK: [&str; 2] = ["trunk0", "trunk1"];

/// How the switch forwards a NIC's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Learns the ports of MAC addresses and forwards everything: an ordinary switch.
    #[default]
    Learning,
    /// Accepts from a NIC only frames with its permanent MAC address as source, and passes to the NIC only frames to
    /// that address, to groups and by broadcast: VirtualBox, VMware port security, SR-IOV, clouds.
    VirtualBox,
}

/// A bridge with the ports `p0`, `p1`, ... for the NICs, in their order, and `peer`.
#[derive(Debug)]
pub struct Switch {
    pub netns: NetNs,
    /// Any socket of the namespace, to set ports up and down without a delay.
    control: UdpSocket,
    policy: Policy,
    mtu: u32,
}

impl Switch {
    /// Creates the switch, a bridge, in a namespace of its own.
    ///
    /// # Errors
    /// `ip` fails, or a socket cannot be opened.
    pub fn create(netns: NetNs, policy: Policy, mtu: u32) -> Result<Self> {
        // A switch sends no frames of its own.
        netns.sysctl("ipv6/conf/default/disable_ipv6", "1")?;
        netns.ip(&format!("link add {BRIDGE} mtu {mtu} type bridge forward_delay 0 mcast_snooping 0"))?;
        netns.ip(&format!("link set {BRIDGE} up"))?;
        let control = netns.run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        Ok(Self { netns, control, policy, mtu })
    }

    /// Returns the name of the port to which the host's NIC of this index is connected.
    pub fn port(index: usize) -> String {
        format!("p{index}")
    }

    /// Makes an interface of the switch's namespace a port, and sets it up.
    ///
    /// # Errors
    /// `ip` or `bridge` fails.
    pub fn plug(&self, port: &str) -> Result<()> {
        self.plug_into(BRIDGE, port)
    }

    /// Adds a second switch behind a trunk. One switch alone forgets the MAC addresses of a port that loses its link, and then
    /// floods, which hides that a bond is not announced; the other one keeps them at its trunk.
    ///
    /// # Errors
    /// `ip` fails, or the trunk does not forward in time.
    pub fn add_second(&self) -> Result<()> {
        let mtu = self.mtu;
        self.netns
            .ip(&format!("link add {SECOND} mtu {mtu} type bridge forward_delay 0 mcast_snooping 0"))?;
        self.netns.ip(&format!("link set {SECOND} up"))?;
        self.netns.ip(&format!("link add {} type veth peer name {}", TRUNK[0], TRUNK[1]))?;
        self.plug_into(BRIDGE, TRUNK[0])?;
        self.plug_into(SECOND, TRUNK[1])?;
        TRUNK.iter().try_for_each(|port| self.wait_for_forwarding(port))
    }

    /// As [`Self::plug`], into the second switch.
    ///
    /// # Errors
    /// As for [`Self::plug`].
    pub fn plug_into_second(&self, port: &str) -> Result<()> {
        self.plug_into(SECOND, port)
    }

    fn plug_into(&self, bridge: &str, port: &str) -> Result<()> {
        // With GRO a veth has NAPI, without which frames that XDP redirects to its other end vanish. On a wire the
        // tag is in the frame, where XDP at the other end sees it.
        self.netns.exec(&format!("ethtool -K {port} gro on txvlan off tx-vlan-stag-hw-insert off"))?;
        self.netns.ip(&format!("link set {port} mtu {} master {bridge} up", self.mtu))?;
        Ok(())
    }

    /// Waits until frames pass through a port whose other end is up: the bridge is notified of the carrier a little
    /// later than the port itself.
    ///
    /// # Errors
    /// The port does not forward in time, or `bridge` fails.
    pub fn wait_for_forwarding(&self, port: &str) -> Result<()> {
        let deadline = Instant::now() + WAIT_LIMIT;
        while !self.netns.exec(&format!("bridge link show dev {port}"))?.contains("state forwarding") {
            if Instant::now() > deadline {
                bail!("{port} of the switch does not forward");
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Applies the policy to a port, for the NIC with this permanent MAC address.
    ///
    /// # Errors
    /// `tc` fails.
    pub fn guard(&self, port: &str, burned_in: Mac) -> Result<()> {
        if self.policy == Policy::Learning {
            return Ok(());
        }
        self.netns.exec(&format!("tc qdisc add dev {port} clsact"))?;
        // For the switch a frame from the NIC is ingress, a frame to the NIC is egress.
        for (direction, program) in [("ingress", from_nic(burned_in)), ("egress", to_nic(burned_in))] {
            // The program contains spaces, so the line cannot be split.
            let mut command = self.netns.command("tc");
            command.args(["filter", "add", "dev", port, direction]);
            command.args(["protocol", "all", "bpf", "direct-action", "bytecode", &program]);
            crate::netns::output(&mut command)?;
        }
        Ok(())
    }

    /// Returns the number of frames that the policy refused at this port, from the NIC and to it.
    ///
    /// # Errors
    /// `tc` fails, or prints something else than expected.
    pub fn refused(&self, port: &str) -> Result<u64> {
        let json = self.netns.exec(&format!("tc -json -statistics qdisc show dev {port}"))?;
        let qdiscs: serde_json::Value = serde_json::from_str(&json).context("the output of tc")?;
        let clsact = qdiscs.as_array().into_iter().flatten().find(|qdisc| qdisc["kind"] == "clsact");
        Ok(clsact.and_then(|qdisc| qdisc["drops"].as_u64()).unwrap_or(0))
    }

    /// Sets a port up or down like `ip link set`, without starting a process.
    ///
    /// # Errors
    /// There is no such port, or its name is too long.
    pub fn set_up(&self, port: &str, up: bool) -> Result<()> {
        ensure!(port.len() < libc::IFNAMSIZ, "interface name {port} is too long");
        // SAFETY: ifreq is plain data, for which zero bytes are a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(port.bytes()) {
            *to = from as libc::c_char;
        }
        let socket = self.control.as_raw_fd();
        // SAFETY: `request` is a live ifreq with a name that ends in zero; the flags are the union's field that
        // the first call fills in and the second one reads.
        let answer = unsafe {
            get_flags(socket, &raw mut request).and_then(|_| {
                let others = request.ifr_ifru.ifru_flags & !(libc::IFF_UP as libc::c_short);
                request.ifr_ifru.ifru_flags = others | if up { libc::IFF_UP as libc::c_short } else { 0 };
                set_flags(socket, &raw const request)
            })
        };
        answer.with_context(|| format!("cannot set {port} {}", if up { "up" } else { "down" }))?;
        Ok(())
    }

    /// Stops or resumes forwarding at a port that keeps its carrier: a failure that only probes detect.
    pub(crate) fn set_forwarding(&self, port: &str, forwarding: bool) -> Result<()> {
        let state = if forwarding { "forwarding" } else { "disabled" };
        self.netns.exec(&format!("bridge link set dev {port} state {state}")).map(drop)
    }
}

/// One instruction of classic BPF: code, jump if true, jump if false, operand.
type Instruction = [u32; 4];
const LOAD_WORD: u32 = 0x20;
const LOAD_HALF: u32 = 0x28;
const LOAD_BYTE: u32 = 0x30;
const JUMP_IF_EQUAL: u32 = 0x15;
const JUMP_IF_BITS: u32 = 0x45;
const RETURN: u32 = 0x06;
const TC_ACT_OK: u32 = 0;
const TC_ACT_SHOT: u32 = 2;

/// Returns a program that passes frames with this source only.
fn from_nic(mac: Mac) -> String {
    const SOURCE: u32 = 6;
    bytecode(&address_is(SOURCE, mac))
}

/// Returns a program that passes frames to this MAC address and to groups.
fn to_nic(mac: Mac) -> String {
    const DESTINATION: u32 = 0;
    let group = [[LOAD_BYTE, 0, 0, DESTINATION], [JUMP_IF_BITS, 0, 1, 1], [RETURN, 0, 0, TC_ACT_OK]];
    bytecode(&[&group[..], &address_is(DESTINATION, mac)].concat())
}

/// Returns the end of a program: passes frames with `mac` at `offset`, drops the others.
fn address_is(offset: u32, mac: Mac) -> [Instruction; 6] {
    let [a, b, c, d, e, f] = mac.bytes();
    [
        [LOAD_WORD, 0, 0, offset],
        [JUMP_IF_EQUAL, 0, 3, u32::from_be_bytes([a, b, c, d])],
        [LOAD_HALF, 0, 0, offset + 4],
        [JUMP_IF_EQUAL, 0, 1, u32::from_be_bytes([0, 0, e, f])],
        [RETURN, 0, 0, TC_ACT_OK],
        [RETURN, 0, 0, TC_ACT_SHOT],
    ]
}

/// Formats a program for `tc`: the number of instructions, then each.
fn bytecode(program: &[Instruction]) -> String {
    let instructions = program.iter().map(|instruction| instruction.map(|field| field.to_string()).join(" "));
    std::iter::once(program.len().to_string()).chain(instructions).collect::<Vec<_>>().join(",")
}
