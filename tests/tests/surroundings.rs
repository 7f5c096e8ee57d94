//! A fault outside of the agent stops only what depends on it: the bonds keep working.

mod common;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use common::{BOND, DATAPATHS, SLAVES, bond, eventually, lab, meet, six_options};
use nix::{
    fcntl::{FcntlArg, fcntl},
    mount::{MsFlags, mount, umount},
    sys::signal::{Signal, kill},
    unistd::{Pid, pipe},
};
use xbond_tests::{
    Cut, HOST_V4, Lab, Policy, WAIT_LIMIT, Xbond, has_tcx,
    lab::Datapath,
    skip, skip_if_unable,
    xbond::{binary, cli},
};

/// An agent whose standard output and error are a pipe of one page.
struct Piped {
    agent: Child,
    reader: File,
}

impl Piped {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let (reader, writer) = pipe().unwrap();
        fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        let mut command: Command = lab.host.command(binary().unwrap());
        command.arg("run").args(arguments).stdin(Stdio::null());
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        Self { agent: command.spawn().unwrap(), reader: File::from(reader) }
    }

    fn is_full(&self) -> bool {
        let mut waiting = 0;
        // SAFETY: the kernel writes one int.
        unsafe { libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&self.reader), libc::FIONREAD, &mut waiting) };
        waiting > 4096 - 200
    }

    /// Ends the agent by SIGTERM. Returns how long that took.
    fn end(&mut self) -> std::time::Duration {
        let start = Instant::now();
        kill(Pid::from_raw(self.agent.id().cast_signed()), Signal::SIGTERM).unwrap();
        while self.agent.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < WAIT_LIMIT, "the agent does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        start.elapsed()
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

const FLAGS: [&str; 12] = [
    "--bond",
    BOND,
    "--slave",
    SLAVES[0],
    "--slave",
    SLAVES[1],
    "--address",
    "192.168.99.101/24",
    "-o",
    "miimon=100",
    "-o",
    "fail_over_mac=active",
];

fn mac(lab: &Lab) -> xbond_tests::Mac {
    lab.host.link(BOND).unwrap().mac
}

/// Fills the pipe, from which nothing reads.
fn fill(lab: &Lab, piped: &Piped) {
    for number in 0.. {
        if piped.is_full() {
            return;
        }
        let option = format!("num_grat_arp={}", 1 + number % 3);
        cli(&lab.host, ["set", BOND, &option, "--wait", "2"]).unwrap();
    }
}

#[test]
fn a_log_without_a_reader_delays_neither_failovers_nor_answers_nor_the_end() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let mut piped = Piped::start(&lab, &FLAGS);
    eventually("the bond", || cli(&lab.host, ["show", BOND]).is_ok(), |is_served| *is_served);
    fill(&lab, &piped);
    for number in 0..20 {
        cli(&lab.host, ["set", BOND, &format!("num_grat_arp={}", 1 + number % 3), "--wait", "2"]).unwrap();
    }
    for (cut, next) in [(SLAVES[0], SLAVES[1]), (SLAVES[1], SLAVES[0])] {
        lab.cut(cut, Cut::Carrier).unwrap();
        eventually("the MAC", || mac(&lab), |mac| *mac == lab.mac(next).unwrap());
        let shown = cli(&lab.host, ["show", BOND]).unwrap();
        assert!(shown.contains(&format!("active slave {next}")), "{shown}");
        lab.reconnect(cut, Cut::Carrier).unwrap();
        let is_up = |shown: &String| !shown.contains("down");
        eventually("the link", || cli(&lab.host, ["show", BOND]).unwrap(), is_up);
    }
    let took = piped.end();
    assert!(took.as_millis() < 1500, "SIGTERM took {took:?}");
    assert!(lab.host.link(BOND).is_err(), "the bond is removed");
}

#[test]
fn a_returning_reader_receives_the_number_of_dropped_lines() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let mut piped = Piped::start(&lab, &FLAGS);
    eventually("the bond", || cli(&lab.host, ["show", BOND]).is_ok(), |is_served| *is_served);
    // Six lines a request, in all more than the pipe and the agent hold.
    for number in 0..250 {
        let settings = six_options(3 + number % 2).map(|(option, value)| format!("{option}={value}"));
        cli(&lab.host, ["set", BOND].into_iter().chain(settings.iter().map(String::as_str))).unwrap();
    }
    let reader: OwnedFd = piped.reader.try_clone().unwrap().into();
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).map(|_| text)
    });
    piped.end();
    let text = read.join().unwrap().unwrap();
    let dropped = text.lines().find(|line| line.contains("lines of the log were dropped"));
    let dropped = dropped.unwrap_or_else(|| panic!("no report of dropped lines in {text}"));
    let count: usize = dropped.split_whitespace().nth(2).unwrap().parse().unwrap();
    let is_kept = |line: &&str| six_options(0).iter().any(|(option, _)| line.contains(option));
    let kept = text.lines().filter(is_kept).count();
    assert_eq!(kept + count, 1500, "{dropped}");
}

/// Returns the flags of the bond of [`bond`].
fn flags(datapath: Datapath) -> Vec<String> {
    let line = format!(
        "--bond {BOND} --address {HOST_V4}/24 --datapath {} --slave {} --slave {} -o miimon=100",
        datapath.name(),
        SLAVES[0],
        SLAVES[1]
    );
    line.split(' ').map(str::to_owned).collect()
}

fn directory(root: &str, lab: &Lab) -> PathBuf {
    Path::new(root).join("xbond").join(lab.host.cookie().unwrap().to_string()).join(BOND)
}

/// Returns the pins of links that have this in their name.
fn links(lab: &Lab, name: &str) -> Vec<PathBuf> {
    let pins = fs::read_dir(directory("/sys/fs/bpf", lab)).unwrap().map(|pin| pin.unwrap().path());
    let is_link =
        |pin: &PathBuf| pin.to_str().is_some_and(|pin| pin.ends_with("_link") && pin.contains(name));
    pins.filter(is_link).collect()
}

/// A live agent attaches them again, and so does the next one.
#[test]
fn adoption_attaches_programs_that_were_detached_while_no_agent_ran() {
    skip_if_unable!();
    if !has_tcx() {
        return skip("programs are no links here");
    }
    type Harm = fn(&Lab);
    let detach: Harm = |lab| {
        for pin in links(lab, "") {
            lab.host.exec(&format!("bpftool link detach pinned {}", pin.display())).unwrap();
        }
    };
    let unpin: Harm = |lab| links(lab, "port_tx").iter().for_each(|pin| fs::remove_file(pin).unwrap());
    let unpin_all: Harm = |lab| links(lab, "").iter().for_each(|pin| fs::remove_file(pin).unwrap());
    for (what, harm) in [("detached", detach), ("port unpinned", unpin), ("unpinned", unpin_all)] {
        for datapath in DATAPATHS {
            let lab = lab(datapath, Policy::Learning);
            let first = bond(&lab, datapath, &["miimon=100"]);
            first.kill().unwrap();
            harm(&lab);
            let second = Xbond::run(&lab.host, flags(datapath)).unwrap();
            meet(&lab);
            let log = second.log();
            let said = "bond0-port: its BPF program was detached by another process";
            assert!(log.contains(said) && log.contains("adopted"), "{what} {}: {log}", datapath.name());
            assert!(!second.cli(["show", BOND]).unwrap().contains('!'), "{what} {}", datapath.name());
            lab.cut(SLAVES[0], Cut::Carrier).unwrap();
            meet(&lab);
            second.stop().unwrap();
        }
    }
}

/// The bond carries nothing, and does not prevent others from being served.
#[test]
fn a_bond_whose_device_was_deleted_without_an_agent_is_recreated() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    let text = format!(
        "version = 1\n[bond.bond0]\nslaves = [\"{}\"]\nmiimon = 100\non_exit = \"keep\"\n\
         addresses = [\"{HOST_V4}/24\"]\n[bond.bond1]\nslaves = [\"{}\"]\nmiimon = 100\non_exit = \"keep\"\n",
        SLAVES[0], SLAVES[1]
    );
    fs::write(file.path(), text).unwrap();
    let arguments = ["-c", file.path().to_str().unwrap()];
    for (deleted, other) in [("bond1", "bond0"), ("bond0", "bond1")] {
        let first = Xbond::run(&lab.host, arguments).unwrap();
        first.kill().unwrap();
        lab.host.ip(&format!("link delete {deleted}")).unwrap();
        let second = Xbond::run(&lab.host, arguments).unwrap();
        for said in [
            format!("{deleted}: its port {deleted}-port is gone, so it carries nothing"),
            format!("{other}: adopted"),
            format!("{deleted} ready"),
        ] {
            second.wait_for(&said).unwrap();
        }
        meet(&lab);
        second.stop().unwrap();
    }
    for name in ["bond0", "bond1"] {
        cli(&lab.host, ["down", name, "--force"]).unwrap();
    }
}

/// A bond's run directory on a file system of its own, without space.
struct Full(PathBuf);

impl Full {
    fn make(lab: &Lab) -> Self {
        let place = directory("/run", lab);
        let files: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
        let files: Vec<_> = files.iter().map(|path| (path, fs::read(path).unwrap())).collect();
        let options = Some("size=64k,mode=755");
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), options).unwrap();
        let full = Self(place);
        for (path, text) in &files {
            fs::write(path, text).unwrap();
        }
        let mut fill = File::create(full.0.join("fill")).unwrap();
        while fill.write_all(&[0; 1024]).is_ok() {}
        full
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

#[test]
fn a_full_file_system_keeps_no_agent_from_its_bond() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let first = bond(&lab, Datapath::Tc, &["miimon=100"]);
    first.kill().unwrap();
    let full = Full::make(&lab);
    let second = Xbond::run(&lab.host, flags(Datapath::Tc)).unwrap();
    let log = second.log();
    assert!(log.contains("No space left on device") && log.contains("adopted, with enp0s8, enp0s9"), "{log}");
    second.set(BOND, &format!("active_slave={}", SLAVES[1])).unwrap();
    meet(&lab);
    // An addition is refused; existing state can be restored.
    second.cli(["del-slave", BOND, SLAVES[0]]).unwrap();
    let error = second.cli(["add-slave", BOND, SLAVES[0]]).unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    drop(full);
    second.stop().unwrap();
}
