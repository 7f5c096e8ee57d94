//! QEMU without KVM: the machines on which this runs are guests themselves. Some of them have a /dev/kvm that runs
//! guests by page tables alone (kvm-pvm), and interprets the code of firmware and Debian's kernels: SeaBIOS alone
//! takes a minute, and the kernel does not print its first line within three, where TCG has booted it in three
//! seconds.

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

/// Without cmpxchg16b, which kernels use in their allocator if it exists: QEMU 7.2 at times emulates it with wrong
/// flags, and the guest crashes with a double fault.
const CPU: &str = "max,-cx16";
/// The guest's memory, in MB: the initramfs is in it twice while it is unpacked.
const MEMORY: u32 = 1536;
/// The line that vm/init prints.
const BOOTED: &str = "BOOTED ";
const EXIT: &str = "EXIT ";
/// An emulated boot takes three seconds, on a busy machine up to a minute.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
/// Switches off features that only cost time in an emulated machine with a trusted guest.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 reboot=t panic=-1 quiet loglevel=3 tsc=reliable no_timer_check \
     mitigations=off nokaslr random.trust_cpu=on audit=0 selinux=0 apparmor=0 cryptomgr.notests net.ifnames=0 lsm=";

/// A machine that is run once.
pub struct Machine<'a> {
    pub kernel: &'a Kernel,
    pub guest: Guest,
    /// Its purpose, printed before each line of its output.
    pub name: &'a str,
    pub cpus: u32,
    /// The time limit of the job.
    pub limit: Duration,
    /// The model of three NICs on one hub, if it has any.
    pub nics: Option<Nic>,
}

/// A NIC that QEMU emulates, with its receive filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Nic {
    E1000e,
    /// QEMU 8.0 or later; its driver has native XDP.
    Igb,
}

impl Nic {
    /// Returns the name in QEMU and Linux.
    pub fn name(self) -> &'static str {
        match self {
            Self::E1000e => "e1000e",
            Self::Igb => "igb",
        }
    }
}

/// The result of a guest's run.
pub struct Console {
    /// The output of the job, which has been printed already.
    pub lines: Vec<String>,
    /// Exit status of the job.
    pub exit: i32,
}

/// Checks that this machine's QEMU has such a NIC.
///
/// # Errors
/// QEMU cannot be run, or has no such NIC.
pub fn check(nic: Nic) -> Result<()> {
    let output = machine::command("qemu-system-x86_64").args(["-device", "help"]).output();
    let output = output.context("cannot run qemu-system-x86_64")?;
    let name = format!("name \"{}\"", nic.name());
    if !String::from_utf8_lossy(&output.stdout).contains(&name) {
        bail!("this QEMU emulates no {}; later ones do, such as that of Debian's backports", nic.name());
    }
    Ok(())
}

/// Two slaves and a peer.
const NICS: u32 = 3;

/// How a run ended.
enum End {
    Done(Console),
    /// It did not boot, or its kernel crashed: emulated machines do that at times.
    Died(&'static str),
}

impl Machine<'_> {
    /// Boots the machine, prints the output of the job, and waits for its end.
    ///
    /// # Errors
    /// QEMU cannot be run, or the guest does not end its job in time.
    pub fn run(&self) -> Result<Console> {
        let archive = self.guest.pack()?;
        for _ in 0..2 {
            // A machine that no process waits for any more would occupy a processor for hours.
            let mut command = machine::command("setpriv");
            command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
            // A kernel that patches its own code while another processor executes it crashes at times in an emulator with
            // a thread for each processor. A NIC's interrupts make that likely.
            let threads = if self.nics.is_some() { "single" } else { "multi" };
            let accelerator = format!("tcg,thread={threads},tb-size=512");
            command.args(["-accel", &accelerator, "-machine", "q35", "-cpu", CPU]);
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
