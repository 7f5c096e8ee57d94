//! Network namespaces that live as long as their owner.

use std::{
    fs::{self, File},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Where `ip netns` keeps its namespaces.
const DIRECTORY: &str = "/run/netns";
/// The names of owned namespaces are `xbt-<pid>-<lab>-<role>`; the pid shows whether the owner lives.
const PREFIX: &str = "xbt";
/// Where an agent stores pins and run files, by the namespace's cookie.
const AGENT_DIRECTORIES: [&str; 2] = ["/sys/fs/bpf/xbond", "/run/xbond"];

/// A network namespace, known to `ip netns`. Dropping it kills the processes in it and removes it, with what an agent
/// pinned for it, unless [`Self::keep`] was called.
#[derive(Debug)]
pub struct NetNs {
    name: String,
    handle: File,
    stays: bool,
}

/// A name for the namespaces of one lab: unique on this machine while this process lives.
pub fn unique_stem() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl NetNs {
    /// Creates a namespace with loopback up. The first call of a process removes what dead processes left.
    ///
    /// # Errors
    /// `ip` fails, for example because the name exists.
    pub fn create(name: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(remove_leftovers);

        output(Command::new("ip").args(["netns", "add", name]))?;
        let mut namespace = Self::open(name)?;
        namespace.stays = false;
        owned().push(name.to_owned());
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Opens a namespace that exists already and will stay.
    fn open(name: &str) -> Result<Self> {
        let path = Path::new(DIRECTORY).join(name);
        let handle = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { name: name.to_owned(), handle, stays: true })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the namespace and the processes in it behind on drop.
    pub fn keep(&mut self) {
        self.stays = true;
        owned().retain(|name| *name != self.name);
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets that it opens stay in the namespace wherever
    /// they are used later; /proc/sys/net is the namespace's, /sys/class/net is not.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `work` fails.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                setns(self.handle.as_fd(), CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter network namespace {}", self.name))?;
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread that runs `work` inside the namespace.
    ///
    /// # Errors
    /// The handle cannot be duplicated. The thread returns the other errors: the namespace cannot be entered, or `work`
    /// fails.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<JoinHandle<Result<T>>> {
        let handle = self.handle.try_clone().context("cannot duplicate the handle of a namespace")?;
        Ok(thread::spawn(move || {
            setns(handle.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot enter the network namespace")?;
            work()
        }))
    }

    /// Returns a command that will run in the namespace and sees the mounts of its parent, unlike `ip netns exec`,
    /// which hides /sys/fs/bpf.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = self.handle.try_clone();
        let enter = move || {
            let handle = handle.as_ref().map_err(|error| std::io::Error::from(error.kind()))?;
            Ok(setns(handle.as_fd(), CloneFlags::CLONE_NEWNET)?)
        };
        // SAFETY: between fork and exec the closure only makes the system call setns, which is
        // async-signal-safe; it allocates nothing and takes no lock.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command line, split at spaces, in the namespace and returns what it printed. An error holds
    /// the command and its stderr.
    ///
    /// # Errors
    /// The command cannot be run, or does not exit with 0.
    pub fn exec(&self, line: &str) -> Result<String> {
        let mut words = line.split_whitespace();
        let program = words.next().context("an empty command line")?;
        output(self.command(program).args(words)).with_context(|| format!("in namespace {}", self.name))
    }

    /// Runs `ip ARGUMENTS` in the namespace; returns what it printed.
    ///
    /// # Errors
    /// As for [`Self::exec`].
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.exec(&format!("ip {arguments}"))
    }

    /// Writes to /proc/sys/net of the namespace; `key` is like `ipv6/conf/all/disable_ipv6`.
    ///
    /// # Errors
    /// There is no such key, or the kernel refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/net/{key}");
        self.run(|| fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}")))
    }

    /// Returns the kernel's number for the namespace (`SO_NETNS_COOKIE`), which is not reused before a reboot.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel is older than 5.14.
    pub fn cookie(&self) -> Result<u64> {
        self.run(crate::packet::netns_cookie)
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        remove(&self.name);
        owned().retain(|name| *name != self.name);
    }
}

/// Removes every namespace of this process, for a process that is about to exit without unwinding.
pub fn remove_all() {
    owned().drain(..).for_each(|name| remove(&name));
}

/// Returns the names of the namespaces that this process has to remove.
fn owned() -> MutexGuard<'static, Vec<String>> {
    static OWNED: Mutex<Vec<String>> = Mutex::new(Vec::new());
    OWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills the processes in a namespace and deletes it, with what an agent pinned for it. Does nothing if there
/// is none of that name.
pub fn remove(name: &str) {
    let Ok(namespace) = NetNs::open(name) else { return };
    let pids = output(Command::new("ip").args(["netns", "pids", name])).unwrap_or_default();
    for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    if let Ok(cookie) = namespace.cookie() {
        remove_agent_places(cookie);
    }
    let _ = output(Command::new("ip").args(["netns", "delete", name]));
}

/// Removes the namespaces of processes that are gone.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if owner(&name).is_some_and(|pid| !is_alive(pid)) {
            remove(&name);
        }
    }
}

/// Parses the pid in the name of an owned namespace.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.split('-');
    if parts.next() != Some(PREFIX) { None } else { parts.next()?.parse().ok() }
}

fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// Removes the directories of a killed agent: its pins would hold maps and programs until the next boot.
fn remove_agent_places(cookie: u64) {
    for directory in AGENT_DIRECTORIES.map(Path::new) {
        let place = directory.join(cookie.to_string());
        if !place.exists() {
            continue;
        }
        let _ = fs::remove_dir_all(&place);
        for link in symlinks(directory) {
            if fs::read_link(&link).is_ok_and(|target| directory.join(target).starts_with(&place)) {
                let _ = fs::remove_file(link);
            }
        }
    }
}

fn symlinks(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_symlink()).collect()
}

/// Returns what a command printed. It must exit with 0.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    };
    let line = line();
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            bail!("`{line}`: no such program; `cargo xtask setup` installs it")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot run `{line}`")),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{line}`: {}: {}", output.status, stderr.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_form_are_owned() {
        assert_eq!(owner("xbt-4711-0-host"), Some(4711));
        for foreign in ["xbt", "xbt-", "xbt-x-0-host", "xbond-lab-host", "sw"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_panic_removes_a_namespace_and_its_processes() {
        crate::skip_if_unable!();
        let name = format!("{}-panic", unique_stem());
        let (path, mut child) = std::thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel();
            let name = &name;
            let worker = scope.spawn(move || {
                let namespace = NetNs::create(name).unwrap();
                let child = namespace.command("sleep").arg("1000").spawn().unwrap();
                sender.send((Path::new(DIRECTORY).join(name), child)).unwrap();
                panic!("on purpose");
            });
            assert!(worker.join().is_err());
            receiver.recv().unwrap()
        });
        assert!(!path.exists());
        let killed = std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap());
        assert_eq!(killed, Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn commands_and_threads_see_the_namespace_and_the_mounts_of_the_parent() {
        crate::skip_if_unable!();
        let namespace = NetNs::create(&format!("{}-see", unique_stem())).unwrap();
        let links: serde_json::Value = serde_json::from_str(&namespace.ip("-j link").unwrap()).unwrap();
        let names = || links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap());
        assert!(names().any(|name| name == "lo") && !names().any(|name| name == "eth0"), "{links}");
        let here = fs::read_link("/proc/self/ns/mnt").unwrap();
        assert_eq!(Path::new(namespace.exec("readlink /proc/self/ns/mnt").unwrap().trim()), here);
        assert_ne!(namespace.cookie().unwrap(), crate::packet::netns_cookie().unwrap());
    }
}
