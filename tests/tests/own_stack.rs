//! The host's own stack does not process what slaves receive. Without a bond's program, it answers for every address of the
//! host on every interface that is up.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use common::{BOND, DATAPATHS, SLAVES, builder, meet, wait_for_status};
use etherparse::{ArpOperation, NetSlice};
use xbond_tests::{
    Capture, Frame, HOST_V4, Lab, Mac, Nic, PacketSocket, Xbond, lab::Datapath, skip_if_unable, xbond::cli,
};

const THIRD: &str = "enp0s10";

/// A thread that sends ARP requests for the address of the lab's bond as fast as possible, about every 0.1 ms.
struct Asker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<()>>,
}

impl Asker {
    fn start(lab: &Lab) -> Self {
        let mac = Mac::new([2, 0xaa, 0xbb, 0xcc, 0xdd, 1]);
        let fields = [
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1][..],
            &mac.bytes(),
            &[192, 168, 99, 77],
            &[0; 6],
            &HOST_V4.octets(),
            &[0; 18],
        ];
        let request = [&[0xff; 6][..], &mac.bytes(), &fields.concat()].concat();
        let socket = PacketSocket::open(&lab.peer, "eth0").unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&stop);
        let thread = lab.peer.spawn(move || {
            while !asks.load(Ordering::Acquire) {
                socket.send(&request)?;
                std::thread::sleep(Duration::from_micros(100));
            }
            Ok(())
        });
        Self { stop, thread: thread.unwrap() }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap().unwrap();
    }
}

/// Returns the MAC address in an answer for bond0's address; `None` if the frame is no such answer.
fn answer(frame: &Frame) -> Option<Mac> {
    let NetSlice::Arp(arp) = frame.packet()?.net? else { return None };
    let is_answer = arp.operation() == ArpOperation::REPLY && arp.sender_protocol_addr() == HOST_V4.octets();
    is_answer.then(|| frame.source())
}

/// Returns the switch's ports of these NICs that received answers, with the MAC addresses in the answers.
fn answering(lab: &Lab, frames: &[Frame], nics: &[&str]) -> Vec<(String, Mac)> {
    let ports: Vec<_> = nics.iter().map(|nic| lab.port(nic).unwrap()).collect();
    let come_in = frames.iter().filter(|frame| !frame.outgoing && ports.contains(&frame.ifname));
    come_in.filter_map(|frame| Some((frame.ifname.clone(), answer(frame)?))).collect()
}

/// Creates the scenario's NICs and a third one, all up.
fn lab(datapath: Datapath) -> Lab {
    let third = Nic::new(THIRD, [0x08, 0, 0x27, 0x11, 0x22, 0x33]);
    let lab = builder(datapath).nics(Nic::scenario().into_iter().chain([third])).build().unwrap();
    for nic in &lab.nics {
        lab.host.ip(&format!("link set {} up", nic.name)).unwrap();
    }
    lab
}

fn run<'lab>(lab: &'lab Lab, datapath: Datapath, slaves: &[&str]) -> Xbond<'lab> {
    let address = format!("{HOST_V4}/24");
    let mut line = vec!["--bond", BOND, "--address", &address, "--datapath", datapath.name()];
    line.extend(slaves.iter().flat_map(|name| ["--slave", name]));
    line.extend(
        ["miimon=100", "fail_over_mac=active", "primary=enp0s8"].iter().flat_map(|option| ["-o", option]),
    );
    Xbond::run(&lab.host, line).unwrap()
}

#[test]
fn a_slave_that_joins_and_leaves_answers_no_request() {
    skip_if_unable!();
    for datapath in DATAPATHS {
        let lab = lab(datapath);
        lab.host.ip(&format!("link set {THIRD} down")).unwrap();
        let xbond = run(&lab, datapath, &SLAVES);
        meet(&lab);
        let (capture, asker) = (Capture::start(&lab.switch.netns).unwrap(), Asker::start(&lab));
        for _ in 0..5 {
            xbond.cli(["add-slave", BOND, THIRD]).unwrap();
            wait_for_status(&xbond, THIRD, "up");
            xbond.cli(["del-slave", BOND, THIRD]).unwrap();
            assert!(!lab.host.link(THIRD).unwrap().is_up());
        }
        asker.stop();
        let frames = capture.stop().unwrap();
        assert_eq!(answering(&lab, &frames, &[THIRD, SLAVES[1]]), [], "{}", datapath.name());
        assert!(!answering(&lab, &frames, &[SLAVES[0]]).is_empty(), "the active slave answers");
        xbond.stop().unwrap();
    }
}

/// How a bond is removed.
#[derive(Clone, Copy, Debug)]
enum Way {
    Down,
    Stop,
    Force,
}

#[test]
fn slaves_of_a_bond_that_is_created_and_removed_answer_no_request() {
    skip_if_unable!();
    for (datapath, way) in [Way::Down, Way::Stop, Way::Force]
        .into_iter()
        .flat_map(|way| DATAPATHS.map(|datapath| (datapath, way)))
    {
        let lab = lab(datapath);
        let (capture, asker) = (Capture::start(&lab.switch.netns).unwrap(), Asker::start(&lab));
        let xbond = run(&lab, datapath, &[SLAVES[0], SLAVES[1], THIRD]);
        meet(&lab);
        match way {
            Way::Down => {
                xbond.cli(["down", BOND]).unwrap();
                xbond.stop().unwrap();
            }
            Way::Stop => drop(xbond.stop().unwrap()),
            Way::Force => {
                xbond.kill().unwrap();
                cli(&lab.host, ["down", BOND, "--force"]).unwrap();
            }
        }
        asker.stop();
        let frames = capture.stop().unwrap();
        assert!(lab.nics.iter().all(|nic| lab.host.link(&nic.name).unwrap().is_up()), "as they were found");
        assert_eq!(answering(&lab, &frames, &[THIRD, SLAVES[1]]), [], "{}, {way:?}", datapath.name());
        assert!(!answering(&lab, &frames, &[SLAVES[0]]).is_empty(), "the active slave answers");
    }
}
