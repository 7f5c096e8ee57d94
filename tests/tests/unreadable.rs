//! Configurations that cannot be read: files that are not regular, endless files, and file systems that do not
//! answer. Each is refused with a message, in time, and nothing else waits for them.

mod common;

use std::{
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::symlink},
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{BOND, SLAVES, concurrently};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::Mode,
    unistd::mkfifo,
};
use tempfile::TempDir;
use xbond_tests::{Lab, NetNs, Xbond, skip, skip_if_unable, wait_limit, xbond::binary};

/// After this time xbond abandons a read.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// A FUSE file system whose server never answers.
struct DeadMount {
    directory: TempDir,
    _server: File,
}

impl DeadMount {
    /// Mounts it; returns `None` if the kernel has no FUSE.
    fn new() -> Option<Self> {
        let server = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let directory = tempfile::tempdir().unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount(Some("dead"), directory.path(), Some("fuse"), MsFlags::empty(), Some(&*options)).ok()?;
        Some(Self { directory, _server: server })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("bond.toml")
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

fn xbond(host: &NetNs, arguments: &[&str]) -> Output {
    host.command(binary().unwrap()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn write(path: &Path) {
    let text = format!("version = 1\n[bond.{BOND}]\nslaves = {SLAVES:?}\nmiimon = 100\n");
    fs::write(path, text).unwrap();
}

/// Runs the verbs that read files; each has to refuse `path` with this word within `limit`.
fn every_verb_refuses(host: &NetNs, path: &Path, word: &str, limit: Duration) {
    let directory = tempfile::tempdir().unwrap();
    symlink(path, directory.path().join("a.toml")).unwrap();
    let scripts = tempfile::tempdir().unwrap();
    symlink(path, scripts.path().join("ifcfg-bond0")).unwrap();
    let [path, directory, scripts] =
        [path, directory.path(), scripts.path()].map(|path| path.to_str().unwrap());
    let lines: [&[&str]; 8] = [
        &["check", path],
        &["check", directory],
        &["check", scripts],
        &["run", "-c", path],
        &["run", "-c", directory],
        &["run", "--ifcfg", scripts],
        &["import", "ifcfg", scripts],
        &["add", "-c", path],
    ];
    thread::scope(|scope| {
        for line in lines {
            scope.spawn(move || {
                let began = Instant::now();
                let output = xbond(host, line);
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said);
                assert!(said.contains(word), "{line:?}: {said}");
                assert_eq!(output.status.code(), Some(2), "{line:?}: {said}");
                assert!(began.elapsed() < limit, "{line:?}: {:?}", began.elapsed());
            });
        }
    });
}

#[test]
fn a_file_that_is_not_regular_is_refused_by_every_verb() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let large = directory.path().join("large");
    File::create(&large).unwrap().set_len(1 << 40).unwrap();
    for (path, word) in [
        (&*fifo, "it is a FIFO"),
        (Path::new("/dev/zero"), "it is a device"),
        (&*large, "larger than 4194304 bytes"),
    ] {
        every_verb_refuses(&lab.host, path, word, wait_limit());
    }
}

#[test]
fn every_verb_abandons_a_mount_that_does_not_answer() {
    skip_if_unable!();
    let Some(dead) = DeadMount::new() else { return skip("this kernel mounts no FUSE file system") };
    let lab = Lab::scenario().unwrap();
    let limit = 3 * GIVEN_UP + wait_limit();
    every_verb_refuses(&lab.host, &dead.file(), "no answer within 5 s", limit);
}

#[test]
fn a_reload_that_waits_for_its_files_delays_no_request() {
    skip_if_unable!();
    let Some(dead) = DeadMount::new() else { return skip("this kernel mounts no FUSE file system") };
    let _concurrent = concurrently();
    let lab = Lab::scenario().unwrap();
    let files = tempfile::tempdir().unwrap();
    write(&files.path().join("a.toml"));
    let xbond = Xbond::run(&lab.host, ["-c", files.path().to_str().unwrap()]).unwrap();
    symlink(dead.file(), files.path().join("b.toml")).unwrap();
    thread::scope(|scope| {
        let reload = scope.spawn(|| xbond.cli(["reload"]).unwrap_err().to_string());
        // The reading thread has reached the mount, or is about to.
        xbond.set(BOND, "miimon=200").unwrap();
        xbond.cli(["down", BOND]).unwrap();
        assert!(!reload.is_finished(), "down was answered while the reload waited");
        let said = reload.join().unwrap();
        assert!(said.contains("b.toml: cannot be read: no answer within 5 s"), "{said}");
    });
    // SIGHUP and then SIGTERM: the agent's end does not wait for the read.
    let began = Instant::now();
    xbond.signal(nix::sys::signal::Signal::SIGHUP).unwrap();
    xbond.stop().unwrap();
    assert!(began.elapsed() < GIVEN_UP, "{:?}", began.elapsed());
}

#[test]
fn a_record_that_is_a_fifo_delays_no_agent() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("a.toml");
    write(&file);
    let arguments = ["-c", file.to_str().unwrap()];
    Xbond::run(&lab.host, arguments).unwrap().kill().unwrap();
    let run: PathBuf = ["/run/xbond", &lab.host.cookie().unwrap().to_string(), BOND].iter().collect();
    for name in ["found.json", "receipts.ndjson"] {
        let _ = fs::remove_file(run.join(name));
        mkfifo(&run.join(name), Mode::S_IRWXU).unwrap();
    }
    let mut second = Xbond::start(&lab.host, arguments).unwrap();
    second.wait().unwrap();
    assert!(second.log().contains("it is a FIFO"), "{}", second.log());
    let shown = xbond_tests::xbond::cli(&lab.host, ["show"]);
    assert!(shown.is_ok_and(|shown| shown.contains("it is a FIFO")));
}

#[test]
fn large_configurations_are_checked_in_time() {
    skip_if_unable!();
    let lab = Lab::scenario().unwrap();
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let bond = |number| format!("[bond.b{number}]\nslaves = [\"e{number}\", \"f{number}\"]\nmiimon = 100\n");
    let bonds: String = (0..20_000).map(bond).collect();
    let list = |entries: usize| format!("[bond.b]\nmiimon = 100\naddresses = [{}]\n", "1,".repeat(entries));
    let table = [
        (bonds, "b19999: ok"),
        (list(1_000_000), "a list of 1000000 entries; at most 1024"),
        (list(10_000_000), "larger than 4194304 bytes"),
    ];
    for (text, word) in table {
        fs::write(file.path(), format!("version = 1\n{text}")).unwrap();
        let began = Instant::now();
        let output = xbond(&lab.host, &["check", file.path().to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(word), "{}", said.get(..1000).unwrap_or(&said));
        println!("{word}: {:?}", began.elapsed());
        assert!(began.elapsed() < wait_limit(), "{word}: {:?}", began.elapsed());
    }
}
