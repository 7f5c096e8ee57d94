//! The programs stay far below the limit of the kernel's verifier: other kernels follow more paths than the one that
//! runs this test.

mod common;

use std::{fs, path::PathBuf};

use aya::programs::ProgramInfo;
use common::{DATAPATHS, bond, concurrently, eventually, lab, show};
use xbond_tests::{Policy, skip_if_unable};

/// The kernel follows at most a million instructions, in all paths of a program together (BPF_COMPLEXITY_LIMIT_INSNS).
const LIMIT: u32 = 1_000_000;

/// Returns the pinned programs of a bond: the name, and how many instructions the verifier followed.
fn verified(pins: PathBuf) -> Vec<(String, u32)> {
    let pins = fs::read_dir(pins).unwrap().map(|entry| entry.unwrap().path());
    let programs = pins.filter_map(|pin| ProgramInfo::from_pin(pin).ok());
    let count = |program: ProgramInfo| {
        Some((program.name_as_str()?.to_owned(), program.verified_instruction_count()?))
    };
    programs.filter_map(count).collect()
}

#[test]
fn each_program_takes_a_fifth_of_the_verifiers_limit_at_most() {
    skip_if_unable!();
    let _concurrent = concurrently();
    for datapath in DATAPATHS {
        let lab = lab(datapath, Policy::Learning);
        let xbond = bond(&lab, datapath, &[]);
        eventually("the clock", || show(&xbond)["clock"].to_string(), |clock| clock.contains("on, every"));
        let programs = verified(PathBuf::from(show(&xbond)["pins"].as_str().unwrap()));
        println!("{datapath:?}: {programs:?}");
        for wanted in ["port_tx", "slave_rx", "tick"] {
            assert!(programs.iter().any(|(name, _)| name.contains(wanted)), "no {wanted} in {programs:?}");
        }
        // Linux 7.3 follows two and a half times as many as 6.18.
        for (name, instructions) in programs {
            assert!(instructions < LIMIT / 5, "{datapath:?}: {name}: {instructions}");
        }
        xbond.stop().unwrap();
    }
}
