//! The `xbond` process in a namespace.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::{
        fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        inotify::{AddWatchFlags, InitFlags, Inotify},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use tempfile::NamedTempFile;

use crate::{WAIT_LIMIT, netns::NetNs, wait_limit};

/// The variable with the path of the binary under test.
const BINARY_VARIABLE: &str = "XBOND_BIN";
/// What the agent prints when all bonds are up.
pub(crate) const READY: &str = "ready";

/// A running agent. On drop it is killed, and after a panic its log is printed.
pub struct Xbond<'netns> {
    netns: &'netns NetNs,
    child: Child,
    log: NamedTempFile,
    detached: bool,
}

/// Set by [`use_binary`].
static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Makes this process run this binary, whatever is in the environment. The first call wins.
pub fn use_binary(path: PathBuf) {
    let _ = BINARY.set(path);
}

/// Returns the binary under test: the one in XBOND_BIN, or `xbond` of the profile of this build.
///
/// # Errors
/// There is no such file.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = BINARY.get() {
        return Ok(path.clone());
    }
    if let Some(path) = env::var_os(BINARY_VARIABLE) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "{BINARY_VARIABLE} names {}, which is no file", path.display());
        return Ok(path);
    }
    // target/PROFILE/deps/TEST-HASH for tests, target/PROFILE/xtask for xtask.
    let here = env::current_exe().context("cannot find the path of this program")?;
    let mut candidates = here.ancestors().skip(1).take(2).map(|directory| directory.join("xbond"));
    candidates.find(|path| path.is_file()).with_context(|| {
        format!("no xbond next to {}: `cargo build -p bond-user` or `cargo xtask test`", here.display())
    })
}

/// Runs `xbond ARGUMENTS` in the namespace to its end; returns its output. An error contains its stderr.
///
/// # Errors
/// The binary is missing, or does not exit with 0.
pub fn cli<S: AsRef<OsStr>>(netns: &NetNs, arguments: impl IntoIterator<Item = S>) -> Result<String> {
    crate::netns::output(netns.command(binary()?).args(arguments))
}

impl<'netns> Xbond<'netns> {
    /// Starts `xbond run ARGUMENTS` and waits until it is ready.
    ///
    /// # Errors
    /// The agent cannot be started, or ends before it is ready.
    pub fn run<S: AsRef<OsStr>>(
        netns: &'netns NetNs,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let xbond = Self::start(netns, arguments)?;
        xbond.wait_for(READY)?;
        Ok(xbond)
    }

    /// Starts `xbond run ARGUMENTS` without waiting.
    ///
    /// # Errors
    /// The agent cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        netns: &'netns NetNs,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let mut command = netns.command(binary()?);
        command.arg("run").args(arguments);
        Self::start_as(netns, command)
    }

    /// Starts a command that finally executes `xbond run`, such as `setpriv --reuid=1 xbond run`.
    ///
    /// # Errors
    /// The command cannot be started.
    pub fn start_as(netns: &'netns NetNs, mut command: Command) -> Result<Self> {
        let log = NamedTempFile::with_prefix("xbond-log-").context("cannot make a log file")?;
        let output = fs::OpenOptions::new().append(true).open(log.path())?;
        // Its own process group: Ctrl-C in a terminal is for the test process, which then stops the agent.
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { netns, child, log, detached: false })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns everything that the agent has printed, stdout and stderr together.
    pub fn log(&self) -> String {
        fs::read(self.log.path())
            .map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).into_owned())
    }

    /// Waits for a line of the log that contains `text` and returns it; an error if the agent ends before.
    ///
    /// # Errors
    /// The agent ends before, or does not log the text in time; the error contains the log.
    pub fn wait_for(&self, text: &str) -> Result<String> {
        self.wait_for_after(0, text)
    }

    /// Waits for a line after the first `position` bytes of the log: an earlier `xbond.log().len()`.
    ///
    /// # Errors
    /// As for [`Self::wait_for`].
    pub fn wait_for_after(&self, position: usize, text: &str) -> Result<String> {
        let deadline = Instant::now() + wait_limit();
        let watcher = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        watcher.add_watch(self.log.path(), AddWatchFlags::IN_MODIFY)?;
        let end = self.pidfd()?;
        loop {
            // Checked before the log is read: the log of an agent that has ended is complete.
            let ended = self.has_ended();
            let log = self.log();
            let found = log.get(position..).and_then(|new| new.lines().find(|line| line.contains(text)));
            if let Some(line) = found {
                return Ok(line.to_owned());
            }
            if ended {
                bail!("xbond ended without printing `{text}`; its log:\n{log}");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("xbond did not print `{text}` within {:?}; its log:\n{log}", wait_limit());
            }
            wait_readable(&[watcher.as_fd(), end.as_fd()], left)?;
            match watcher.read_events() {
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error).context("cannot watch the log of xbond"),
            }
        }
    }

    /// Returns whether the agent has ended, without reaping it.
    pub(crate) fn has_ended(&self) -> bool {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        !matches!(waitid(Id::Pid(self.nix_pid()), flags), Ok(WaitStatus::StillAlive))
    }

    /// Runs `xbond ARGUMENTS` in the agent's namespace.
    ///
    /// # Errors
    /// The binary is missing, or does not exit with 0.
    pub fn cli<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        cli(self.netns, arguments)
    }

    /// Runs a program in the agent's network and mount namespaces, to its end.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn inside<S: AsRef<OsStr>>(&self, program: S, arguments: &[&str]) -> Result<Output> {
        let mut command = self.netns.command("nsenter");
        command.args(["--mount", "--target", &self.pid().to_string()]).arg(program).args(arguments);
        command.output().context("cannot run nsenter")
    }

    /// Runs `xbond ARGUMENTS` there; returns its output, or its standard error.
    ///
    /// # Errors
    /// The command's standard error, or why it could not be run.
    pub fn cli_inside(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.inside(binary().map_err(|error| error.to_string())?, arguments);
        let output = output.map_err(|error| format!("{error:#}"))?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Runs `xbond show BOND -j` until the agent itself answers: while it does not, the command reads the maps.
    ///
    /// # Errors
    /// The command fails, or the agent does not answer in time.
    pub fn show(&self, bond: &str) -> Result<serde_json::Value> {
        let deadline = Instant::now() + wait_limit();
        loop {
            let json = self.cli(["show", bond, "-j"])?;
            let report: serde_json::Value = serde_json::from_str(&json)
                .with_context(|| format!("`xbond show {bond} -j` printed no JSON: {json}"))?;
            let no_answer = &report["no_answer"];
            if no_answer.is_null() {
                return Ok(report);
            }
            ensure!(Instant::now() < deadline, "{no_answer}");
        }
    }

    /// Runs `xbond set BOND KEY=VALUE`.
    ///
    /// # Errors
    /// The agent refuses the setting.
    pub fn set(&self, bond: &str, setting: &str) -> Result<()> {
        self.cli(["set", bond, setting]).map(drop)
    }

    /// Sends a signal to the agent.
    ///
    /// # Errors
    /// The agent has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(self.nix_pid(), signal).with_context(|| format!("cannot send {signal} to xbond"))
    }

    /// Stops the agent by SIGSTOP, as a debugger would; SIGCONT resumes it.
    ///
    /// # Errors
    /// The agent has ended.
    pub fn pause(&self) -> Result<()> {
        use nix::sys::wait::{Id, WaitPidFlag, waitid};
        self.signal(Signal::SIGSTOP)?;
        // Its threads may still run for a while after the signal.
        waitid(Id::Pid(self.nix_pid()), WaitPidFlag::WSTOPPED).context("cannot wait for xbond to stop")?;
        Ok(())
    }

    /// Ends the agent by SIGTERM; it must exit with 0. Returns its log.
    ///
    /// # Errors
    /// The agent ended before, does not end in time, or exits with something else than 0.
    pub fn stop(self) -> Result<String> {
        self.signal(Signal::SIGTERM)?;
        self.ends_well()
    }

    /// Ends an agent that has much to restore like [`Self::stop`]: it may take longer, as long as it keeps logging.
    ///
    /// # Errors
    /// The agent ended before, stops logging before it ends, or exits with something else than 0.
    pub fn stop_at_length(self) -> Result<String> {
        self.signal(Signal::SIGTERM)?;
        let end = self.pidfd()?;
        let mut said = self.log().len();
        while !wait_readable(&[end.as_fd()], WAIT_LIMIT)? {
            let log = self.log();
            ensure!(
                log.len() > said,
                "xbond neither ended nor logged anything within {WAIT_LIMIT:?}; its log:\n{log}"
            );
            said = log.len();
        }
        self.ends_well()
    }

    fn ends_well(mut self) -> Result<String> {
        let status = self.wait()?;
        let log = self.log();
        ensure!(status.success(), "xbond ended with {status}; its log:\n{log}");
        Ok(log)
    }

    /// Kills the agent by SIGKILL: what it pinned keeps working.
    ///
    /// # Errors
    /// The agent ended before.
    pub fn kill(mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wait().map(drop)
    }

    /// Waits for the end of the agent, which this call does not cause.
    ///
    /// # Errors
    /// The agent does not end in time.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        if !wait_readable(&[self.pidfd()?.as_fd()], WAIT_LIMIT)? {
            bail!("xbond did not end within {WAIT_LIMIT:?}; its log:\n{}", self.log());
        }
        self.child.wait().context("cannot wait for xbond")
    }

    /// Returns a descriptor that is readable when the agent has ended.
    fn pidfd(&self) -> Result<OwnedFd> {
        // SAFETY: the system call takes two integers; the child is not reaped yet, so the pid is its own.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.child.id(), 0) };
        let fd = Errno::result(fd).context("pidfd_open")? as i32;
        // SAFETY: the descriptor is new and has no other owner.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Leaves the agent and its log file behind; returns the path of the log.
    ///
    /// # Errors
    /// None at present.
    pub fn detach(mut self) -> Result<PathBuf> {
        self.detached = true;
        let path = self.log.path().to_owned();
        self.log.disable_cleanup(true);
        Ok(path)
    }

    fn nix_pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Xbond<'_> {
    fn drop(&mut self) {
        if self.detached {
            return;
        }
        // Not if it has been reaped: another process may have the pid.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of xbond in {}:\n{}", self.netns.name(), self.log());
        }
    }
}

/// Returns whether one of these is readable within `timeout`.
fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Duration) -> Result<bool> {
    let mut ready: Vec<PollFd<'_>> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    match poll(&mut ready, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(error) => Err(error).context("poll"),
    }
}

/// Returns the fixture files of the reference scenario for a fail_over_mac policy: none, active or follow.
pub fn scenario_files(fail_over_mac: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenario").join(fail_over_mac)
}
