//! What CI simulates: an hour of a bond, of many bonds, and that a seed replays exactly.

use xbond_simulator::{plan::Plan, run, shrink::shrink};

const HOUR: u64 = 3_600_000;

/// Runs seeds from `first` on until so many milliseconds have passed in the simulation.
fn simulate(first: u64, bonds: Option<usize>, wanted: u64) {
    let mut time = 0;
    for seed in first.. {
        let plan = Plan::new(seed, bonds);
        let outcome = run(&plan).unwrap();
        if let Some(violation) = outcome.violation {
            let (plan, violation) = shrink(&plan, violation).unwrap();
            let numbers: Vec<_> = plan.events.iter().map(|timed| timed.number.to_string()).collect();
            let bonds = bonds.map_or_else(String::new, |bonds| format!(" --bonds {bonds}"));
            panic!("{violation}\ncargo xtask simulate --seed {seed}{bonds} --events {}", numbers.join(","));
        }
        time += outcome.time;
        if time >= wanted {
            return;
        }
    }
}

#[test]
fn nothing_fails_in_an_hour() {
    simulate(1, None, HOUR);
}

#[test]
fn nothing_fails_in_a_quarter_of_an_hour_of_many_bonds() {
    simulate(1_000, Some(6), HOUR / 4);
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 4, 5] {
        let plan = Plan::new(seed, None);
        let fingerprints = [run(&plan).unwrap().fingerprint, run(&plan).unwrap().fingerprint];
        assert_eq!(fingerprints[0], fingerprints[1], "seed {seed}");
    }
}
