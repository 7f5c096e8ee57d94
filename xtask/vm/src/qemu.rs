//! QEMU, without KVM: the machines on which this runs are guests themselves. Some of them have a /dev/kvm that runs
//! guests by page tables alone (kvm-pvm). That interprets what firmware and Debian's kernels do: SeaBIOS alone
//! takes a minute, and the kernel does not come to its first line in three, where TCG has booted it in three seconds.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{guest::Guest, kernel::Kernel};
use xtask_common::machine;

/// Without cmpxchg16b, which kernels use in their allocator if it is there: QEMU 7.2 emulates it with wrong flags
/// now and then, and the guest dies of a double fault.
const CPU: &str = "max,-cx16";
/// The guest's memory, in MB: the initramfs is in it twice while it is unpacked.
const MEMORY: u32 = 1536;
/// What vm/init says.
const BOOTED: &str = "BOOTED ";
const EXIT: &str = "EXIT ";
/// An emulated boot takes three seconds, on a machine that others use up to a minute.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Nothing that only costs time in an emulated machine whose guest is trusted.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 reboot=t panic=-1 quiet loglevel=3 tsc=reliable no_timer_check \
     mitigations=off nokaslr random.trust_cpu=on audit=0 selinux=0 apparmor=0 cryptomgr.notests net.ifnames=0 lsm=";

/// A machine to be run once.
pub struct Machine<'a> {
    pub kernel: &'a Kernel,
    pub guest: Guest,
    /// What it is for, before each line that it prints.
    pub name: &'a str,
    pub cpus: u32,
    /// For the job.
    pub limit: Duration,
    /// The model of three NICs on one hub, if it has any.
    pub nics: Option<Nic>,
}

/// A NIC that QEMU emulates, with its filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Nic {
    E1000e,
    /// QEMU 8.0 on; its driver has native XDP.
    Igb,
}

impl Nic {
    /// As QEMU and Linux call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::E1000e => "e1000e",
            Self::Igb => "igb",
        }
    }
}

/// What the guest did.
pub struct Console {
    /// What the job printed, already shown.
    pub lines: Vec<String>,
    /// Exit status of the job.
    pub exit: i32,
}

/// Whether this machine's QEMU has such a NIC.
pub fn check(nic: Nic) -> Result<()> {
    let output = machine::command("qemu-system-x86_64").args(["-device", "help"]).output();
    let output = output.context("cannot run qemu-system-x86_64")?;
    let name = format!("name \"{}\"", nic.name());
    if !String::from_utf8_lossy(&output.stdout).contains(&name) {
        bail!("this QEMU emulates no {}; later ones do, such as that of Debian's backports", nic.name());
    }
    Ok(())
}

/// Two slaves, and a peer.
const NICS: u32 = 3;

/// How a run ended.
enum End {
    Done(Console),
    /// It never came up, or its kernel died: emulated machines do that now and then.
    Died(&'static str),
}

impl Machine<'_> {
    /// Boots, shows what the job prints, and waits for its end.
    pub fn run(&self) -> Result<Console> {
        let archive = self.guest.pack()?;
        for _ in 0..2 {
            // A machine that nobody waits for any more would take a processor for hours.
            let mut command = machine::command("setpriv");
            command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
            command.args(["-accel", "tcg,thread=multi,tb-size=512", "-machine", "q35", "-cpu", CPU]);
            command.args(["-smp", &self.cpus.to_string(), "-m", &MEMORY.to_string()]);
            command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
            command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
            command.arg("-kernel").arg(self.kernel.image()).arg("-initrd").arg(&archive);
            command.args(["-append", KERNEL_ARGUMENTS]);
            if let Some(nic) = self.nics {
                for index in 0..NICS {
                    command.args(["-netdev", &format!("hubport,id=port{index},hubid=0"), "-device"]);
                    command.arg(format!(
                        "{},netdev=port{index},id=nic{index},mac=52:54:00:00:00:1{index}",
                        nic.name()
                    ));
                }
            }
            command.stdin(Stdio::null()).stdout(Stdio::piped());
            let mut child = command.spawn().context("cannot run qemu-system-x86_64")?;
            let end = self.watch(&mut child);
            let _ = child.kill();
            child.wait().context("cannot wait for qemu-system-x86_64")?;
            match end? {
                End::Done(console) => return Ok(console),
                End::Died(how) => println!("{}: {how}", self.name),
            }
        }
        bail!("the guest died twice")
    }

    fn watch(&self, child: &mut Child) -> Result<End> {
        let console = child.stdout.take().context("no pipe from QEMU")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let (mut lines, mut booted) = (Vec::new(), false);
        let mut deadline = Instant::now() + BOOT_LIMIT;
        loop {
            match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(exit) = line.strip_prefix(EXIT).filter(|_| booted) {
                        let exit = exit.parse().context("the exit status of the guest's job")?;
                        return Ok(End::Done(Console { lines, exit }));
                    }
                    if line.starts_with(BOOTED) {
                        booted = true;
                        deadline = Instant::now() + self.limit;
                    }
                    println!("{}: {line}", self.name);
                    if booted {
                        lines.push(line);
                    }
                }
                Err(_) if !booted => return Ok(End::Died("the guest did not boot")),
                Err(RecvTimeoutError::Timeout) => bail!("the guest's job takes more than {:?}", self.limit),
                Err(RecvTimeoutError::Disconnected) => return Ok(End::Died("the guest died during its job")),
            }
        }
    }
}
