//! Fuzz target: frames through the programs in the kernel, by BPF_PROG_TEST_RUN, whose action and bytes have to be what the
//! policy on the host says.

mod programs;

use bond_common::{
    abi::{ActiveWord, BondEntry, FailOverMac, SlaveEntry, Slot},
    mac::Mac,
    verdict::{Receive, Receiver, receive, rewritten_source, transmit},
    wire::{Frame, Header, rewrite_destination, rewrite_source},
};
use xbond_tests::frames::{HOST, OWN, Scene};

/// A frame on the host.
struct Bytes(Vec<u8>);

impl Frame for Bytes {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn write<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) -> Option<()> {
        self.0.get_mut(offset..offset.checked_add(N)?)?.copy_from_slice(&bytes);
        Some(())
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Forwarded,
    Local,
    Dropped,
}

/// The bond, as the programs and the host's policy see it.
#[derive(Clone, Copy, Debug)]
struct Bond {
    scene: Scene,
    word: ActiveWord,
}

impl Bond {
    fn is_a_slaves(&self, mac: Mac) -> bool {
        self.scene.wire_macs().contains(&mac)
    }

    fn is_another_slaves(&self, mac: Mac) -> bool {
        self.scene.policy == FailOverMac::Active && self.is_a_slaves(mac)
    }

    /// What the host says about a frame that bond0 sends.
    fn transmit(&self, frame: &[u8]) -> (End, Vec<u8>) {
        let mut frame = Bytes(frame.to_vec());
        let header = Header::read(&frame).expect("it has a header");
        let Ok(slot) = transmit(self.word, 0, |_| 0) else { return (End::Dropped, frame.0) };
        let wire = self.scene.wire_macs()[slot.index()];
        let to = rewritten_source(header.source, wire, HOST, |mac| self.is_another_slaves(mac));
        if let Some(to) = to {
            rewrite_source(&mut frame, header, to).expect("it can be written");
        }
        (End::Forwarded, frame.0)
    }

    /// What the host says about a frame that a slave receives.
    fn receive(&self, slot: Slot, frame: &[u8]) -> (End, Vec<u8>) {
        let mut frame = Bytes(frame.to_vec());
        let header = Header::read(&frame).expect("it has a header");
        let all_slaves_active = self.scene.flags & BondEntry::ALL_SLAVES_ACTIVE != 0;
        let receiver = Receiver { slot, host_mac: HOST, all_slaves_active };
        let wire = self.scene.wire_macs()[slot.index()];
        let is_wire_mac = |mac| wire == mac || self.is_another_slaves(mac);
        match receive(self.word, receiver, header.destination, is_wire_mac) {
            Receive::Local | Receive::LocalAndBond => (End::Local, frame.0),
            Receive::Drop(_) => (End::Dropped, frame.0),
            Receive::Deliver(to) => {
                if let Some(to) = to {
                    rewrite_destination(&mut frame, header, to).expect("it can be written");
                }
                (End::Forwarded, frame.0)
            }
        }
    }
}

mod fuzz {
    use std::cell::OnceCell;

    use aya::TestRunOptions;
    use bond_user::sys::{
        dataplane::{BpfPins, Hook, Pins as _},
        directory::Location,
    };
    use xbond_fuzz::{Input, target};
    use xbond_tests::{frames::Way, skip_if_unable};

    use super::{
        programs::{Bench, Program, index},
        *,
    };

    /// Bytes; test runs make an skb of one page.
    const LONGEST: usize = 1514;
    const TC_ACT_UNSPEC: u32 = u32::MAX;
    const TC_ACT_REDIRECT: u32 = 7;
    const XDP_PASS: u32 = 2;
    const XDP_REDIRECT: u32 = 4;

    /// The programs of a hook, and what their maps need.
    struct Loaded {
        bench: Bench,
        port: u32,
        slaves: [u32; 2],
        /// By way: transmit, receive by slot 0, by slot 1.
        programs: [Program; 3],
    }

    impl Loaded {
        fn new(hook: Hook) -> Self {
            let bench = Bench::new(hook, "fuzz");
            let programs = [Way::Transmit, Way::Receive(0), Way::Receive(1)].map(|way| bench.program(way));
            let slaves = ["slave0", "slave1"].map(index);
            // libFuzzer ends the process without destructors, and pins would stay.
            BpfPins.remove(&Location::at(&bench.dir)).expect("the pins are removed");
            Self { port: index("port"), slaves, programs, bench }
        }

        fn set(&self, scene: Scene) -> Bond {
            let mirror = &self.bench.mirror;
            for (slot, (wire, own)) in Slot::all().zip(scene.wire_macs().into_iter().zip(OWN)) {
                mirror.set_slave(slot, SlaveEntry::new(self.slaves[slot.index()], wire, own));
            }
            let entry = BondEntry::new(scene.policy, self.port, HOST, 1).with_flags(scene.flags);
            mirror.update_bond(|_| entry);
            let slot = |index: Option<u8>| index.and_then(Slot::new);
            let word =
                mirror.switch(slot(scene.active), slot(scene.draining), 0b11).expect("nobody else writes");
            Bond { scene, word }
        }

        /// Returns what the kernel does with a frame; None if it takes no such frame for a test run.
        fn run(&self, way: usize, frame: &[u8]) -> Option<(End, Vec<u8>)> {
            let mut out = vec![0; frame.len() + 64];
            let options = TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ..TestRunOptions::default()
            };
            let result = match &self.programs[way] {
                Program::Tc(program) => aya::TestRun::test_run(program, options),
                Program::Xdp(program) => aya::TestRun::test_run(program, options),
            }
            .ok()?;
            out.truncate(result.data_size_out as usize);
            let end = match (self.bench.hook, result.return_value) {
                (Hook::Tc, TC_ACT_REDIRECT) | (Hook::Xdp | Hook::XdpGeneric, XDP_REDIRECT) => End::Forwarded,
                (Hook::Tc, TC_ACT_UNSPEC) | (Hook::Xdp | Hook::XdpGeneric, XDP_PASS) => End::Local,
                _ => End::Dropped,
            };
            Some((end, out))
        }
    }

    thread_local! {
        static LOADED: OnceCell<[Loaded; 2]> = const { OnceCell::new() };
    }

    fn compare(loaded: &Loaded, scene: Scene, way: usize, frame: &[u8]) {
        let bond = loaded.set(scene);
        let Some(found) = loaded.run(way, frame) else { return };
        let expected = match way.checked_sub(1) {
            None => bond.transmit(frame),
            Some(slot) => bond.receive(Slot::new(slot as u8).expect("0 or 1"), frame),
        };
        assert_eq!(found, expected, "{}, way {way}, {bond:?}", loaded.bench.hook);
    }

    #[test]
    fn programs() {
        skip_if_unable!();
        target("programs", |input| {
            let mut input = Input::new(input);
            let way = usize::from(input.u8() % 3);
            let policies = [FailOverMac::None, FailOverMac::Active, FailOverMac::Follow];
            let policy = policies[usize::from(input.u8() % 3)];
            let slot = |number: u8| [Some(0), Some(1), None][usize::from(number % 3)];
            let (active, draining) = (slot(input.u8()), slot(input.u8()));
            let scene = Scene {
                policy,
                active,
                draining,
                flags: u32::from(input.u8()) & BondEntry::ALL_SLAVES_ACTIVE,
            };
            let frame = input.rest();
            if !(14..=LONGEST).contains(&frame.len()) {
                return;
            }
            LOADED.with(|loaded| {
                let loaded = loaded.get_or_init(|| [Hook::Tc, Hook::Xdp].map(Loaded::new));
                loaded.iter().for_each(|loaded| compare(loaded, scene, way, frame));
            });
        });
    }
}
