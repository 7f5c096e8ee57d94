//! A system call that fails when a test asks for it: a seccomp filter passes the call to the test, which allows it or
//! answers with an error.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// The call `BPF_PROG_TEST_RUN`.
pub const TEST_RUN: Call = Call { number: libc::SYS_bpf, first_argument: Some(10) };
/// The call that sends on a socket.
pub const SEND: Call = Call { number: libc::SYS_sendto, first_argument: None };
/// The call that receives on a socket.
pub const RECEIVE: Call = Call { number: libc::SYS_recvfrom, first_argument: None };

/// A system call by its number and the lower half of its first argument.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub number: libc::c_long,
    /// `None`: any first argument.
    pub first_argument: Option<u32>,
}

/// The descriptor number under which the process keeps its end of the filter, far from those that it opens.
const LISTENER: libc::c_int = 900;

// linux/seccomp.h
const NOTIFY_RECEIVE: libc::Ioctl = 0xc050_2100_u32 as libc::Ioctl;
const NOTIFY_SEND: libc::Ioctl = 0xc018_2101_u32 as libc::Ioctl;

#[repr(C)]
#[derive(Default)]
struct Notification {
    id: u64,
    pid: u32,
    flags: u32,
    data: [u64; 8],
}

#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// Makes `command` begin with the filter. Answer its calls by [`FailingCalls::of`] as soon as it runs: each call
/// waits until then.
pub fn install(command: &mut Command, call: Call) {
    let enter = move || {
        let statement = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
        let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
        let is_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        let answer = libc::BPF_RET | libc::BPF_K;
        // struct seccomp_data: the number at 0, the arguments from 16 on.
        let mut filter = [
            statement(load, 0, 0),
            statement(is_equal, 3, call.number as u32),
            statement(load, 0, 16),
            match call.first_argument {
                Some(argument) => statement(is_equal, 1, argument),
                None => statement(libc::BPF_JMP | libc::BPF_JA, 0, 0),
            },
            statement(answer, 0, libc::SECCOMP_RET_USER_NOTIF),
            statement(answer, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
        // SAFETY: the kernel copies the program, which outlives the call.
        let listener = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const program,
            )
        };
        // The duplicate stays open over exec.
        // SAFETY: duplicates a descriptor of this process.
        Errno::result(unsafe { libc::dup2(Errno::result(listener)? as libc::c_int, LISTENER) })?;
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes system calls; it allocates nothing and takes no lock.
    unsafe { command.pre_exec(enter) };
}

/// Selects the calls that fail.
#[derive(Debug, Default)]
struct Plan {
    errno: Option<Errno>,
    /// Number of calls that succeed before the first failure.
    passing: u32,
    /// Number of calls that still fail; `None`: all.
    left: Option<u32>,
    /// Values of the first argument of failing calls; `None`: any.
    first_arguments: Option<BTreeSet<u64>>,
}

impl Plan {
    /// Returns the error for the next call, if it fails.
    fn take(&mut self, first_argument: u64) -> Option<Errno> {
        let errno = self.errno?;
        if self.first_arguments.as_ref().is_some_and(|wanted| !wanted.contains(&first_argument)) {
            return None;
        }
        if let Some(passing) = self.passing.checked_sub(1) {
            self.passing = passing;
            return None;
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(errno)
    }
}

/// Answers the calls of a process. After it was dropped no call is answered any more: end the process first.
pub struct FailingCalls {
    plan: Arc<Mutex<Plan>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FailingCalls {
    /// Allows the calls of the process `pid`, which [`install`] prepared, until [`Self::fail`].
    ///
    /// # Errors
    /// The process does not exist, or has no such filter.
    pub fn of(pid: u32) -> Result<Self> {
        let plan = Arc::<Mutex<Plan>>::default();
        let ends = Arc::new(AtomicBool::new(false));
        let listener = listener_of(pid).context("cannot get the filter's listener")?;
        let (wanted, ended) = (Arc::clone(&plan), Arc::clone(&ends));
        let thread =
            thread::spawn(
                move || {
                    while !ended.load(Ordering::Relaxed) && answer(&listener, &wanted).is_ok() {}
                },
            );
        Ok(Self { plan, ends, thread: Some(thread) })
    }

    /// Makes each call fail with this error from now on; `None` allows it.
    pub fn fail(&self, with: Option<Errno>) {
        self.replace(Plan { errno: with, ..Plan::default() });
    }

    /// Makes this number of further calls with one of these descriptors fail.
    pub fn fail_next(&self, with: Errno, count: u32, descriptors: impl IntoIterator<Item = u64>) {
        let first_arguments = Some(descriptors.into_iter().collect());
        self.replace(Plan { errno: Some(with), left: Some(count), first_arguments, passing: 0 });
    }

    /// Allows this number of calls with one of these descriptors, and makes the others fail.
    pub fn fail_after(&self, passing: u32, with: Errno, descriptors: impl IntoIterator<Item = u64>) {
        let first_arguments = Some(descriptors.into_iter().collect());
        self.replace(Plan { errno: Some(with), left: None, first_arguments, passing });
    }

    /// Returns how many calls of [`Self::fail_next`] have not occurred yet.
    pub fn left(&self) -> u32 {
        self.plan().left.unwrap_or(0)
    }

    fn replace(&self, plan: Plan) {
        *self.plan() = plan;
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FailingCalls {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listener_of(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers; the descriptor is new and has no other owner.
    let process =
        unsafe { OwnedFd::from_raw_fd(Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))? as i32) };
    // SAFETY: as above.
    let listener =
        Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), LISTENER, 0) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as i32) })
}

/// Answers one call, if one arrives within 100 ms. Returns an error if the process has ended.
fn answer(listener: &OwnedFd, plan: &Mutex<Plan>) -> io::Result<()> {
    use std::os::fd::AsFd as _;
    let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if poll(&mut ready, PollTimeout::from(100_u8))? == 0 {
        return Ok(());
    }
    if ready[0].revents().is_none_or(|events| !events.contains(PollFlags::POLLIN)) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let mut call = Notification::default();
    // SAFETY: the kernel writes a whole notification.
    let received = unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_RECEIVE, &raw mut call) };
    if received < 0 {
        // The calling thread is gone.
        return Ok(());
    }
    /// Index after the number and the address of the instruction.
    const FIRST_ARGUMENT: usize = 2;
    let first_argument = call.data[FIRST_ARGUMENT];
    let errno = plan.lock().unwrap_or_else(PoisonError::into_inner).take(first_argument);
    let errno = errno.map_or(0, |errno| errno as i32);
    let flags = if errno == 0 { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 } else { 0 };
    let answer = Answer { id: call.id, value: 0, error: -errno, flags };
    // SAFETY: the kernel reads a whole answer.
    unsafe { libc::ioctl(listener.as_raw_fd(), NOTIFY_SEND, &raw const answer) };
    Ok(())
}

/// Returns the descriptors of a process that are rtnetlink sockets without groups, which it uses for requests.
///
/// # Errors
/// The process does not exist, or /proc cannot be read.
pub fn rtnetlink_sockets(pid: u32) -> Result<Vec<u64>> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/netlink"))?;
    let asking = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_asking = fields.get(1) == Some(&"0") && fields.get(3) == Some(&"00000000");
        let inode = fields.last().filter(|_| is_asking)?;
        Some(format!("socket:[{inode}]"))
    };
    let sockets: BTreeSet<String> = table.lines().filter_map(asking).collect();
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let Ok(target) = fs::read_link(&path) else { continue };
        if target.to_str().is_some_and(|target| sockets.contains(target)) {
            let number = path.file_name().and_then(|name| name.to_str()).context("no number")?;
            found.push(number.parse()?);
        }
    }
    Ok(found)
}
