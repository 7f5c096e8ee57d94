//! The machine in memory is calibrated: the recorded runs of the bonding driver pass on it, as far as they are about the
//! engine.

use std::{fs, path::Path};

use xbond_simulator::replay::{Recorded, replay};

#[test]
fn recorded_runs_of_the_driver_pass() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/driver");
    let mut files: Vec<_> = directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut compared, mut all, mut failures) = (0, 0, Vec::new());
    for file in files {
        let recorded = Recorded::parse(&fs::read_to_string(&file).unwrap());
        all += recorded.steps.len();
        match replay(&recorded) {
            Ok(steps) => compared += steps,
            Err(error) => failures.push(format!("{}: {error}", file.display())),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    println!("{compared} of {all} steps");
    assert!(compared >= 200, "only {compared} of {all} steps were compared");
}
