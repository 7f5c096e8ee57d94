//! AF_PACKET sockets: send and receive whole frames, including VLAN tags.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt},
        time::TimeSpec,
    },
};

use crate::netns::NetNs;

/// asm-generic/socket.h
const SO_NETNS_COOKIE: libc::c_int = 71;
/// linux/if_packet.h: the auxiliary data holds a tag (and its type) that the kernel extracted from the frame.
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_ADD_MEMBERSHIP: libc::c_int = 1;
const PACKET_MR_PROMISC: libc::c_ushort = 1;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// Length of source and destination; a tag follows them.
const ADDRESSES_LENGTH: usize = 12;
const LARGEST_FRAME: usize = 65536 + 64;

/// struct tpacket_auxdata of linux/if_packet.h
#[repr(C)]
#[derive(Clone, Copy)]
struct AuxData {
    status: u32,
    len: u32,
    snaplen: u32,
    mac: u16,
    net: u16,
    vlan_tci: u16,
    vlan_tpid: u16,
}

/// Room for the control messages of one frame: a time stamp and the auxiliary data, aligned as cmsghdr.
#[repr(C, align(8))]
struct Control([u8; 256]);

/// A frame that a socket received.
#[derive(Clone, Debug)]
pub struct Received {
    /// Timestamp of the kernel, when the frame entered or left the stack.
    pub at: Instant,
    pub ifindex: u32,
    /// Sent by this interface rather than received.
    pub outgoing: bool,
    /// From the destination address on. A tag that the kernel extracted is inserted again.
    pub bytes: Vec<u8>,
}

/// A raw socket on one interface of a namespace, or on all.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    clock: WallClock,
}

impl PacketSocket {
    /// Opens a socket on interface `name`, promiscuous, so that it sees what the interface would filter; it also sees
    /// frames that the host sends there.
    ///
    /// # Errors
    /// There is no such interface, or the socket cannot be opened.
    pub fn open(namespace: &NetNs, name: &str) -> Result<Self> {
        namespace.run(|| Self::bind(ifindex(name)?)).with_context(|| format!("packet socket on {name}"))
    }

    /// Opens a socket on every interface of the namespace, including those that are created later.
    ///
    /// # Errors
    /// The socket cannot be opened.
    pub fn open_all(namespace: &NetNs) -> Result<Self> {
        namespace.run(|| Self::bind(0)).context("packet socket on all interfaces")
    }

    fn bind(ifindex: u32) -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        // Protocol 0 receives nothing: frames of other interfaces cannot arrive before the bind.
        let fd = socket(AddressFamily::Packet, SockType::Raw, flags, None)?;
        setsockopt(&fd, sockopt::RcvBufForce, &(64 << 20))?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        set_option(&fd, PACKET_AUXDATA, &1_i32)?;
        if ifindex != 0 {
            let membership = libc::packet_mreq {
                mr_ifindex: ifindex as i32,
                mr_type: PACKET_MR_PROMISC,
                mr_alen: 0,
                mr_address: [0; 8],
            };
            set_option(&fd, PACKET_ADD_MEMBERSHIP, &membership)?;
        }
        // SAFETY: sockaddr_ll is plain data, for which zero bytes are a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = ifindex as i32;
        // SAFETY: the address is a sockaddr_ll that outlives the call, and its size is given.
        let bound =
            unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32) };
        nix::errno::Errno::result(bound).context("bind")?;
        Ok(Self { fd, clock: WallClock::read() })
    }

    /// Sends one frame, from the destination address on, by the interface that the socket was opened on.
    ///
    /// # Errors
    /// The interface is down or lost, or took only a part of the frame.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = nix::unistd::write(&self.fd, frame).context("cannot send the frame")?;
        if sent != frame.len() {
            bail!("only {sent} of {} bytes of the frame were sent", frame.len());
        }
        Ok(())
    }

    /// Returns the next frame, or `None` if there is none within `timeout`.
    ///
    /// # Errors
    /// The socket failed. An interface that is down is no error.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Received>> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut ready = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => Ok(None),
            Ok(_) => match self.read() {
                // The interface was set down; the socket receives again when it is up.
                Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                answer => answer.map(Some).context("cannot receive from the packet socket"),
            },
            Err(error) => Err(error).context("cannot wait for frames"),
        }
    }

    fn read(&self) -> io::Result<Received> {
        let mut bytes = vec![0; LARGEST_FRAME];
        let mut control = Control([0; 256]);
        // SAFETY: sockaddr_ll and msghdr are plain data, for which zero bytes are a valid value.
        let (mut address, mut message): (libc::sockaddr_ll, libc::msghdr) = unsafe { std::mem::zeroed() };
        let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        message.msg_name = (&raw mut address).cast();
        message.msg_namelen = size_of_val(&address) as u32;
        message.msg_iov = &raw mut vector;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        // SAFETY: every pointer in `message` is to a live local of the length that is given with it.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        bytes.truncate(length);
        bytes.shrink_to_fit();

        let mut at = Instant::now();
        // SAFETY: the kernel has filled msg_control and set msg_controllen; both outlive the loop.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return null or a header that lies completely in `control`.
            let (level, kind, data) =
                unsafe { ((*header).cmsg_level, (*header).cmsg_type, libc::CMSG_DATA(header)) };
            match (level, kind) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    // SAFETY: the payload of this message is a struct timespec.
                    let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                    at = self.clock.instant(TimeSpec::from(time));
                }
                (libc::SOL_PACKET, PACKET_AUXDATA) => {
                    // SAFETY: the payload of this message is a struct tpacket_auxdata.
                    let aux = unsafe { data.cast::<AuxData>().read_unaligned() };
                    restore_tag(&mut bytes, aux);
                }
                _ => {}
            }
            // SAFETY: `header` is a header of this message.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        let outgoing = address.sll_pkttype == libc::PACKET_OUTGOING;
        Ok(Received { at, ifindex: address.sll_ifindex as u32, outgoing, bytes })
    }
}

/// Inserts the outer VLAN tag, which the kernel keeps outside of the frame, into it.
fn restore_tag(frame: &mut Vec<u8>, aux: AuxData) {
    if aux.status & TP_STATUS_VLAN_VALID == 0 || frame.len() < ADDRESSES_LENGTH {
        return;
    }
    let has_type = aux.status & TP_STATUS_VLAN_TPID_VALID != 0;
    let tpid = if has_type { aux.vlan_tpid } else { ETHERTYPE_VLAN };
    let tag = tpid.to_be_bytes().into_iter().chain(aux.vlan_tci.to_be_bytes());
    frame.splice(ADDRESSES_LENGTH..ADDRESSES_LENGTH, tag);
}

/// Returns the index of an interface in the namespace of the calling thread.
///
/// # Errors
/// There is no such interface.
pub fn ifindex(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))
}

/// Returns `SO_NETNS_COOKIE` of the namespace of the calling thread.
///
/// # Errors
/// The kernel is older than 5.14.
pub fn netns_cookie() -> Result<u64> {
    let fd = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `cookie`, which has that size.
    let result = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_NETNS_COOKIE, value, &raw mut length)
    };
    nix::errno::Errno::result(result).context("SO_NETNS_COOKIE")?;
    Ok(cookie)
}

fn set_option<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> Result<()> {
    // SAFETY: `value` is a live T, and its size is given; the kernel only reads it.
    let result = unsafe {
        let length = size_of::<T>() as libc::socklen_t;
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_PACKET, option, (&raw const *value).cast(), length)
    };
    nix::errno::Errno::result(result).with_context(|| format!("packet socket option {option}"))?;
    Ok(())
}

/// One moment on both clocks: the kernel's packet timestamps are CLOCK_REALTIME, intervals need the monotonic one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    instant: Instant,
    since_epoch: Duration,
}

impl WallClock {
    pub fn read() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { instant: Instant::now(), since_epoch }
    }

    pub fn instant(&self, wall: TimeSpec) -> Instant {
        self.instant + Duration::from(wall).saturating_sub(self.since_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extracted_tag_is_restored_after_the_addresses() {
        let aux = |status| AuxData {
            status,
            len: 0,
            snaplen: 0,
            mac: 0,
            net: 0,
            vlan_tci: 0x2064,
            vlan_tpid: 0x88a8,
        };
        let plain: Vec<u8> = (0..16).collect();
        for (status, tag) in [
            (0, &[][..]),
            (TP_STATUS_VLAN_VALID, &[0x81, 0x00, 0x20, 0x64][..]),
            (TP_STATUS_VLAN_VALID | TP_STATUS_VLAN_TPID_VALID, &[0x88, 0xa8, 0x20, 0x64][..]),
        ] {
            let mut frame = plain.clone();
            restore_tag(&mut frame, aux(status));
            assert_eq!(frame, [&plain[..12], tag, &plain[12..]].concat(), "status {status}");
        }
    }
}
