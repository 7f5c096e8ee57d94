//! What goes wrong around an agent stops only what depends on it: the bonds are served.

mod common;

use std::{
    fs::File,
    io::Read as _,
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    time::Instant,
};

use common::{BOND, SLAVES, eventually, lab};
use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{Signal, kill},
    unistd::{Pid, pipe},
};
use xbond_tests::{
    Cut, Lab, PATIENCE, Policy,
    lab::Datapath,
    skip_if_unable,
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
            assert!(start.elapsed() < PATIENCE, "it does not end");
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

/// The pipe is full, and nothing reads it.
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
        lab.mend(cut, Cut::Carrier).unwrap();
        let is_up = |shown: &String| !shown.contains("down");
        eventually("the link", || cli(&lab.host, ["show", BOND]).unwrap(), is_up);
    }
    let took = piped.end();
    assert!(took.as_millis() < 1500, "SIGTERM took {took:?}");
    assert!(lab.host.link(BOND).is_err(), "it is taken down");
}

#[test]
fn a_reader_that_returns_learns_how_many_lines_were_dropped() {
    skip_if_unable!();
    let lab = lab(Datapath::Tc, Policy::Learning);
    let mut piped = Piped::start(&lab, &FLAGS);
    eventually("the bond", || cli(&lab.host, ["show", BOND]).is_ok(), |is_served| *is_served);
    // Twenty lines a request, more than the pipe and the agent hold.
    let mut settings = vec!["set".to_owned(), BOND.to_owned()];
    settings.extend((0..100).map(|number| format!("num_grat_arp={}", 1 + number % 3)));
    for _ in 0..15 {
        cli(&lab.host, &settings).unwrap();
    }
    let reader: OwnedFd = piped.reader.try_clone().unwrap().into();
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).map(|_| text)
    });
    piped.end();
    let text = read.join().unwrap().unwrap();
    let dropped = text.lines().find(|line| line.contains("lines of the log were dropped"));
    let dropped = dropped.unwrap_or_else(|| panic!("no word of it in {text}"));
    let count: usize = dropped.split_whitespace().nth(2).unwrap().parse().unwrap();
    let kept = text.lines().filter(|line| line.contains("num_grat_arp")).count();
    assert_eq!(kept + count, 1500, "{dropped}");
}
