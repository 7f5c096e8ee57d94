//! NICs made of taps. A veth that is cut at its far end loses frames that were queued before the carrier bit fell;
//! the carrier bit of a tap falls first, and earlier frames still reach the switch.

use std::{
    fs::{File, OpenOptions},
    io::{self, PipeWriter, Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::OpenOptionsExt as _,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::netns::NetNs;

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_ptr_bad!(tun_set_carrier, libc::TUNSETCARRIER, libc::c_int);

const LARGEST_FRAME: usize = 65536;

/// A tap in the host and a tap in the switch, and two threads that forward frames between them.
#[derive(Debug)]
pub struct TapWire {
    nic: Arc<Tap>,
    cut: Arc<AtomicBool>,
    /// A byte makes the thread that forwards frames to the switch follow a change of `cut`; closing ends the thread.
    commands: PipeWriter,
    _end: PipeWriter,
}

impl TapWire {
    /// Creates tap `nic` in `host` and tap `port` in `switch`, both with carrier.
    ///
    /// # Errors
    /// A tap cannot be created.
    pub fn create(host: (&NetNs, &str), switch: (&NetNs, &str)) -> Result<Self> {
        let nic = Arc::new(Tap::create(host.0, host.1)?);
        let port = Arc::new(Tap::create(switch.0, switch.1)?);
        let cut = Arc::new(AtomicBool::new(false));
        let (to_switch_control, commands) = io::pipe()?;
        let (to_host_control, end) = io::pipe()?;
        thread::spawn({
            let (nic, port, cut) = (nic.clone(), port.clone(), cut.clone());
            move || carry(&nic, &port, to_switch_control, || port.set_carrier(!cut.load(Ordering::Acquire)))
        });
        thread::spawn({
            let (nic, cut) = (nic.clone(), cut.clone());
            // A NIC without carrier receives nothing.
            let open =
                move |frame: &[u8]| if cut.load(Ordering::Acquire) { Ok(()) } else { nic.write(frame) };
            move || carry_with(&port, to_host_control, open, || Ok(()))
        });
        Ok(Self { nic, cut, commands, _end: end })
    }

    /// Removes or restores the carrier of the NIC at once; the switch's port follows when the NIC's earlier frames
    /// have arrived.
    ///
    /// # Errors
    /// The tap is lost, or its thread has ended.
    pub fn set_carrier(&self, carrier: bool) -> Result<()> {
        self.cut.store(!carrier, Ordering::Release);
        self.nic.set_carrier(carrier).context("cannot set the carrier of a tap")?;
        (&self.commands).write_all(&[0]).context("the thread that carries a tap's frames has ended")
    }
}

/// A tap, and the end of it that is a file.
#[derive(Debug)]
pub(crate) struct Tap(File);

impl Tap {
    /// Creates tap `name` in `namespace`, with carrier.
    pub(crate) fn create(namespace: &NetNs, name: &str) -> Result<Self> {
        ensure!(name.len() < libc::IFNAMSIZ, "interface name {name} is too long");
        let device = namespace.run(|| {
            let mut options = OpenOptions::new();
            let device =
                options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
            // SAFETY: ifreq is plain data, for which zero bytes are a valid value.
            let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
            // SAFETY: `request` is a live ifreq with a name that ends in zero.
            unsafe { tun_set_iff(device.as_raw_fd(), &raw const request) }?;
            Ok(device)
        });
        device.map(Self).with_context(|| format!("cannot make tap {name} in {}", namespace.name()))
    }

    fn set_carrier(&self, carrier: bool) -> io::Result<()> {
        let carrier = libc::c_int::from(carrier);
        // SAFETY: the kernel reads one int from the pointer, which is to a live one.
        unsafe { tun_set_carrier(self.0.as_raw_fd(), &raw const carrier) }?;
        Ok(())
    }

    /// Writes a frame. One that the interface cannot accept (it is down, or its queue is full) is lost, as on a wire.
    pub(crate) fn write(&self, frame: &[u8]) -> io::Result<()> {
        match (&self.0).write(frame) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EIO | libc::EAGAIN | libc::ENOBUFS)) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Passes the tap's frames to `deliver` until `end` is closed or the tap is gone.
///
/// # Errors
/// The tap cannot be read, or `deliver` fails.
pub(crate) fn deliver(
    tap: &Tap,
    end: io::PipeReader,
    deliver: impl Fn(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    carry_with(tap, end, deliver, || Ok(()))
}

fn carry(
    from: &Tap,
    to: &Tap,
    control: io::PipeReader,
    command: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    carry_with(from, control, |frame| to.write(frame), command)
}

/// Forwards frames until `control` is closed or an interface is gone. A byte on `control` calls `command` once no
/// frame is left.
fn carry_with(
    from: &Tap,
    mut control: io::PipeReader,
    deliver: impl Fn(&[u8]) -> io::Result<()>,
    command: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let mut frame = vec![0; LARGEST_FRAME];
    loop {
        let mut ready =
            [PollFd::new(from.0.as_fd(), PollFlags::POLLIN), PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE)?;
        let commanded = ready[1].any().unwrap_or(true);
        loop {
            match (&from.0).read(&mut frame) {
                Ok(length) => deliver(&frame[..length])?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The interface is down.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => break,
                Err(error) => return Err(error),
            }
        }
        if commanded {
            let mut byte = [0];
            if control.read(&mut byte)? == 0 {
                return Ok(());
            }
            command()?;
        }
    }
}
