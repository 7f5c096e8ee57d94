//! Measures the cost of the programs per packet, by BPF_PROG_TEST_RUN on the frames of [`xbond_tests::frames`], each
//! of which is verified before it is measured. They are compared with programs that do nothing and with programs that
//! only redirect.

#[path = "../tests/programs/mod.rs"]
mod programs;
mod raw;

use std::{os::fd::AsFd as _, path::PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::{TestRunOptions, maps::MapData};
use bond_common::{
    abi::{BondEntry, FailOverMac, PORT_STATS, SlaveEntry, Slot},
    mac::Mac,
    names,
};
use bond_user::sys::dataplane::Hook;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use programs::{Bench, Program, index};
use raw::{DeviceReads, Loads};
use xbond_tests::{
    figures::{Figure, Measured, Target},
    frames::{FrameCase, GUEST, HOST, IPV4, PEER, Scene, Verdict, Way, cases, ethernet},
};

const ROUNDS: usize = 9;
const REPEAT: u32 = 1_000_000;
const WARM_UP: u32 = 10_000;
/// Nanoseconds of XDP in addition to an empty program, and to a bare bpf_redirect_map.
const RECEIVE_AT_MOST: f64 = 8.0;
const TRANSMIT_AT_MOST: f64 = 15.0;

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let mut measured = Measured::default();
    // Read before this thread is bound to one of them: the last, since interrupts usually run on the first.
    let cpus = std::thread::available_parallelism()?.get();
    for hook in [Hook::Xdp, Hook::Tc] {
        measured.figures.extend(bench(hook, quick, cpus)?);
    }
    measured.print();
    Ok(())
}

fn bench(hook: Hook, quick: bool, cpus: usize) -> Result<Vec<Figure>> {
    let bench = Bench::new(hook, "bench");
    let cases = cases(bench.datapath());
    for case in &cases {
        bench.set(&case.scene);
        let seen = bench.run(case.way, &case.frame);
        ensure!(seen == (case.verdict, case.out.clone()), "{}, {:?}: {seen:?}", case.name, case.scene);
    }
    eprintln!("{hook}: {} frames come out as they have to", cases.len());
    let mut figures = facts(&bench)?;
    if quick {
        return Ok(figures);
    }
    stay_on(cpus - 1)?;
    let mut pins = Pins::default();
    let stage = Stage::new(&bench, &mut pins)?;
    // Under none and follow a packet takes the same path.
    for case in cases.iter().filter(|case| case.scene.policy != FailOverMac::Follow) {
        bench.set(&case.scene);
        figures.extend(measure(&bench, &stage, case)?);
    }
    figures.push(price_of_a_redirect(&bench, &stage)?);
    figures.extend(price_of_what_is_behind(&bench, &stage)?);
    figures.extend(price_of_the_guard(&bench, &cases)?);
    figures.extend(price_of_company(&bench, &cases, cpus)?);
    Ok(figures)
}

/// The programs with which product and baseline are compared.
struct Stage {
    empty: raw::Loaded,
    empty_program: Program,
    redirect: Program,
}

impl Stage {
    fn new(bench: &Bench, pins: &mut Pins) -> Result<Self> {
        let action = if bench.hook == Hook::Tc { 0 } else { 1 };
        let empty = raw::load(bench.hook, &raw::empty(action))?;
        let empty_program = pins.program(bench, "empty", &empty)?;
        let redirect = match bench.hook {
            Hook::Tc => raw::load(bench.hook, &raw::redirect(index("slave0")))?,
            _ => {
                let ports = MapData::from_pin(bench.dir.join(names::TX_PORTS))?;
                raw::load(bench.hook, &raw::redirect_map(ports.fd().as_fd()))?
            }
        };
        let redirect = pins.program(bench, "redirect", &redirect)?;
        Ok(Self { empty, empty_program, redirect })
    }
}

/// Pins of these programs, removed on drop.
#[derive(Default)]
struct Pins(Vec<PathBuf>);

impl Pins {
    fn program(&mut self, bench: &Bench, name: &str, loaded: &raw::Loaded) -> Result<Program> {
        let path = bench.dir.with_extension(name);
        let path = PathBuf::from(path.to_string_lossy().replace('.', "_"));
        loaded.pin(&path)?;
        self.0.push(path.clone());
        Ok(Program::from_pin(bench.hook, &path))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn measure(bench: &Bench, stage: &Stage, case: &FrameCase) -> Result<Vec<Figure>> {
    let program = bench.program(case.way);
    let mut pins = Pins::default();
    let frame = &case.frame;
    let measured = if case.is_changed() {
        // The product's changes to the frame are undone before each run, and before the empty program's runs, too.
        let [of_product, of_empty] =
            [fd(&program)?, stage.empty.fd.as_fd()].map(|program| raw::program_array(program));
        let (of_product, of_empty) = (of_product?, of_empty?);
        let mut around = |name: &str, programs: &MapData| {
            let program = raw::refresh(bench.hook, frame, &case.out, programs.fd().as_fd());
            pins.program(bench, name, &raw::load(bench.hook, &program)?)
        };
        let [product, empty] = [around("product", &of_product)?, around("before", &of_empty)?];
        let mut programs = vec![&product, &empty];
        programs
            .extend(is_sent(case).then_some([&stage.redirect, &stage.empty_program]).into_iter().flatten());
        rounds(&programs, frame)?
    } else {
        let mut programs = vec![&program, &stage.empty_program];
        programs.extend(is_sent(case).then_some(&stage.redirect));
        rounds(&programs, frame)?
    };
    Ok(figures(bench, case, &measured))
}

/// Returns whether a bare redirect gives the same result.
fn is_sent(case: &FrameCase) -> bool {
    case.way == Way::Transmit && case.verdict == Verdict::Forwarded
}

fn fd(program: &Program) -> Result<std::os::fd::BorrowedFd<'_>> {
    Ok(match program {
        Program::Tc(program) => program.fd()?.as_fd(),
        Program::Xdp(program) => program.fd()?.as_fd(),
    })
}

/// Returns the figures. The rounds are of product and empty program and, for transmitted frames, of a bare redirect
/// and, if it differs, of its empty program.
fn figures(bench: &Bench, case: &FrameCase, rounds: &[Vec<f64>]) -> Vec<Figure> {
    let way = if case.way == Way::Transmit { "transmit" } else { "receive" };
    let policy = policy(case.scene.policy);
    let less =
        |a: usize, b: usize| -> Vec<f64> { rounds[a].iter().zip(&rounds[b]).map(|(a, b)| a - b).collect() };
    let group = format!("{} {way}, {policy}", bench.hook);
    let mut over_empty = Figure::of(&group, case.name, "ns over empty", &less(0, 1));
    let mut figures = Vec::new();
    if is_sent(case) {
        let bare = less(2, if rounds.len() > 3 { 3 } else { 1 });
        let over: Vec<f64> = less(0, 1).iter().zip(&bare).map(|(product, bare)| product - bare).collect();
        let mut over = Figure::of(&group, case.name, "ns over a bare redirect", &over);
        if bench.hook == Hook::Xdp {
            over = over.with_target(Target::AtMost(TRANSMIT_AT_MOST));
        }
        figures.push(over);
    } else if bench.hook == Hook::Xdp {
        over_empty = over_empty.with_target(Target::AtMost(RECEIVE_AT_MOST));
    }
    eprintln!("{group}: {}: {:.1} ns", case.name, over_empty.value);
    figures.insert(0, over_empty);
    figures
}

fn price_of_a_redirect(bench: &Bench, stage: &Stage) -> Result<Figure> {
    let rounds = rounds(&[&stage.redirect, &stage.empty_program], &[0; 60])?;
    let over: Vec<f64> = rounds[0].iter().zip(&rounds[1]).map(|(a, b)| a - b).collect();
    let name = if bench.hook == Hook::Tc { "bpf_redirect" } else { "bpf_redirect_map" };
    Ok(Figure::of(&format!("{} baseline", bench.hook), name, "ns over empty", &over))
}

/// Measures bridged traffic, with MAC addresses behind the bond, and what a backup does with unicast frames: those for the bond and
/// for a guest are counted as misdirected.
fn price_of_what_is_behind(bench: &Bench, stage: &Stage) -> Result<Vec<Figure>> {
    let (scene, backup) = (Scene::of(FailOverMac::None), Way::Receive(1));
    bench.set(&scene);
    let from = |source: Mac| ethernet(PEER, source, IPV4);
    let to = |destination: Mac| ethernet(destination, PEER, IPV4);
    // From now on the guest is known, and its entry is written once in a second.
    ensure!(bench.run(Way::Transmit, &from(GUEST)).0 == Verdict::Forwarded, "a guest's frame is not sent");
    let station = Mac::new([2, 0, 0, 0, 0, 0x9a]);
    let rows = [
        ("transmit: the host's", Way::Transmit, from(HOST)),
        ("transmit: a guest's", Way::Transmit, from(GUEST)),
        ("backup: broadcast", backup, to(Mac::BROADCAST)),
        ("backup: for another station", backup, to(station)),
        ("backup: for the bond", backup, to(HOST)),
        ("backup: for a guest", backup, to(GUEST)),
    ];
    let group = format!("{} behind the bond", bench.hook);
    let figures = rows.into_iter().map(|(name, way, frame)| {
        let rounds = rounds(&[&bench.program(way), &stage.empty_program], &frame)?;
        let over: Vec<f64> = rounds[0].iter().zip(&rounds[1]).map(|(a, b)| a - b).collect();
        let figure = Figure::of(&group, name, "ns over empty", &over);
        eprintln!("{group}: {name}: {:.1} ns", figure.value);
        Ok(figure)
    });
    figures.collect()
}

/// Measures the cost of checking whether the slave has a link: the same program without and with the check,
/// alternating with programs that check before fewer packets, or by a helper.
fn price_of_the_guard(bench: &Bench, cases: &[FrameCase]) -> Result<Vec<Figure>> {
    let case = cases.iter().find(|case| is_sent(case)).context("nothing is sent")?;
    let program = bench.program(case.way);
    let name = if bench.hook == Hook::Tc { names::TC_PORT_TX } else { names::XDP_PORT_TX };
    let mut pins = Pins::default();
    let mut variant = |pin: &str, by, skips| {
        let loaded = raw::product(bench.hook, name, PORT_STATS, DeviceReads { by, skips }, &bench.dir)?;
        pins.program(bench, pin, &loaded)
    };
    let others = [
        (", each 8th packet", variant("eighth", Loads::RdonlyCast, 7)?),
        (", each 32nd packet", variant("thirty_second", Loads::RdonlyCast, 31)?),
        (" by bpf_probe_read_kernel", variant("helper", Loads::ProbeReadKernel, 0)?),
        (" by bpf_probe_read_kernel, each 8th packet", variant("eighth_helper", Loads::ProbeReadKernel, 7)?),
    ];
    let with_guard = [("", &program)].into_iter().chain(others.iter().map(|(name, of)| (*name, of)));
    let with_guard: Vec<_> = with_guard.collect();
    let scenes = [false, true].map(|is_on| {
        bench.guard(&case.scene, is_on);
        (bench.maps.bond(), [0, 1].map(|slot| bench.maps.slave(Slot::new(slot).expect("a slot"))))
    });
    let set = |(entry, slaves): (BondEntry, [SlaveEntry; 2])| -> Result<()> {
        bench.mirror.update_bond(|_| entry);
        for (slot, slave) in slaves.into_iter().enumerate() {
            bench.mirror.set_slave(Slot::new(slot as u8).context("a slot")?, slave);
        }
        Ok(())
    };
    let took = |program: &Program| {
        run(program, &case.frame, WARM_UP)?;
        run(program, &case.frame, REPEAT)
    };
    let mut over = vec![Vec::new(); with_guard.len()];
    for _ in 0..ROUNDS {
        set(scenes[0])?;
        let without = took(&program)?;
        set(scenes[1])?;
        for ((_, program), over) in with_guard.iter().zip(&mut over) {
            over.push(took(program)? - without);
        }
    }
    let sent = bench.run(case.way, &case.frame).0;
    ensure!(sent == Verdict::Forwarded, "the guard stops a packet of a slave that has a link: {sent:?}");
    let group = format!("{} baseline", bench.hook);
    let figures = with_guard.iter().zip(over).map(|((name, _), over)| {
        let figure = Figure::of(&group, &format!("the carrier guard{name}"), "ns more", &over);
        eprintln!("{}: {}: {:.1} ns", figure.group, figure.name, figure.value);
        figure
    });
    Ok(figures.collect())
}

/// Measures the cost of a packet while every other CPU transmits by the same bond, which shows how little the CPUs
/// share. Test runs take no queue lock, so that any increase is due to the programs.
fn price_of_company(bench: &Bench, cases: &[FrameCase], cpus: usize) -> Result<Vec<Figure>> {
    if cpus < 2 {
        return Ok(Vec::new());
    }
    let mut figures = Vec::new();
    for way in [Way::Transmit, Way::Receive(0)] {
        let delivered = |case: &&FrameCase| case.way == way && case.verdict == Verdict::Forwarded;
        let case = cases.iter().find(delivered).context("nothing is forwarded")?;
        bench.set(&case.scene);
        let on = |cpu: usize| -> Result<f64> {
            stay_on(cpu)?;
            let program = bench.program(way);
            run(&program, &case.frame, WARM_UP)?;
            run(&program, &case.frame, REPEAT)
        };
        let mut dearer = Vec::new();
        for _ in 0..ROUNDS {
            let alone = on(0)?;
            let together = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..cpus).map(|cpu| scope.spawn(move || on(cpu))).collect();
                let took =
                    threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a thread died"))?);
                took.collect::<Result<Vec<f64>>>()
            })?;
            dearer.push(together.iter().sum::<f64>() / cpus as f64 / alone);
        }
        let name = if way == Way::Transmit { "transmit" } else { "receive" };
        let figure =
            Figure::of(&format!("{} on {cpus} CPUs", bench.hook), name, "of its time on one", &dearer);
        eprintln!("{}: {}: {:.3}", figure.group, figure.name, figure.value);
        figures.push(figure);
    }
    stay_on(cpus - 1)?;
    Ok(figures)
}

/// Returns the nanoseconds per run for each program and round. Each program runs in each round.
fn rounds(programs: &[&Program], frame: &[u8]) -> Result<Vec<Vec<f64>>> {
    let mut rounds = vec![Vec::new(); programs.len()];
    for program in programs {
        run(program, frame, WARM_UP)?;
    }
    for _ in 0..ROUNDS {
        for (program, rounds) in programs.iter().zip(&mut rounds) {
            rounds.push(run(program, frame, REPEAT)?);
        }
    }
    Ok(rounds)
}

/// Returns the nanoseconds per run. The kernel's own answer has no fractions.
fn run(program: &Program, frame: &[u8], repeat: u32) -> Result<f64> {
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    let start = clock_gettime(clock)?;
    program.test_run(TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() });
    let took = std::time::Duration::from(clock_gettime(clock)? - start);
    Ok(took.as_nanos() as f64 / f64::from(repeat))
}

/// Returns sizes, and the verifier's counts.
fn facts(bench: &Bench) -> Result<Vec<Figure>> {
    let programs = match bench.hook {
        Hook::Tc => [names::TC_PORT_TX, names::TC_SLAVE_RX],
        _ => [names::XDP_PORT_TX, names::XDP_SLAVE_RX],
    };
    let mut figures = Vec::new();
    for (name, slot, way) in [(programs[0], PORT_STATS, Way::Transmit), (programs[1], 0, Way::Receive(0))] {
        let program = bench.program(way);
        let info = program.info();
        let log = raw::product(bench.hook, name, slot, DeviceReads::PRODUCT, &bench.dir)?.log;
        let calls = raw::calls(fd(&program)?)?;
        let counted = |word| raw::counted(&log, word).with_context(|| format!("no `{word}` in: {log}"));
        let exact = |what: &str, value: f64| Figure::exact("programs", name, what, value);
        let size = |size: Option<u32>| f64::from(size.unwrap_or_default());
        figures.extend([
            exact("instructions", size(info.size_translated()) / 8.0),
            exact("machine code, bytes", size(Some(info.size_jitted()))),
            exact("instructions verified", size(info.verified_instruction_count())),
            exact("verifier states", counted("total_states")?),
            exact("stack, bytes", counted("depth")?),
            exact("maps named", calls.maps as f64),
            exact("helper calls", calls.helpers as f64),
        ]);
    }
    Ok(figures)
}

fn policy(policy: FailOverMac) -> &'static str {
    match policy {
        FailOverMac::None | FailOverMac::Follow => "none and follow",
        FailOverMac::Active => "active",
    }
}

fn stay_on(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).context("cannot stay on one CPU")
}
