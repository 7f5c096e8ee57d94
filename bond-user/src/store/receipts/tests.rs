//! Tests of receipts and their file.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::*;
use crate::report::testing;

fn receipt(generation: u32) -> Receipt {
    Receipt { generation, ..testing::receipt() }
}

fn generations(directory: &Path) -> Vec<u32> {
    read(&Location::at(directory), Trust::Ours).unwrap().iter().map(|receipt| receipt.generation).collect()
}

#[test]
fn appended_receipts_are_read_and_the_last_hundred_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    assert_eq!(generations(directory.path()), [0; 0]);
    let mut file = File::open(Location::at(directory.path()));
    for generation in 0..1000 {
        file.append(&receipt(generation)).unwrap();
        let read = generations(directory.path());
        let oldest = (generation + 1).saturating_sub(KEPT as u32);
        assert_eq!(read, (oldest..=generation).collect::<Vec<_>>());
        assert!(lines(&fs::read(&path).unwrap()).count() < AT_MOST);
    }
    assert_eq!(read(&Location::at(directory.path()), Trust::Ours).unwrap().last(), Some(&receipt(999)));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn foreign_lines_are_damage_and_spoil_no_receipt() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let mut file = File::open(Location::at(directory.path()));
    file.append(&receipt(1)).unwrap();
    let whole = fs::read(&path).unwrap();
    assert_eq!(damaged(&whole), 0);
    assert_eq!(damaged(&whole[..whole.len() / 2]), 0, "an incomplete line is no damage");
    fs::write(&path, [&whole[..], &[0xff; 200_000]].concat()).unwrap();
    assert_eq!(damaged(&fs::read(&path).unwrap()), 200_000);
    file.append(&receipt(2)).unwrap();
    assert_eq!(generations(directory.path()), [1, 2]);
    assert_eq!(damaged(&fs::read(&path).unwrap()), 0);
}

#[test]
fn a_torn_line_is_skipped_and_completed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE);
    let mut file = File::open(Location::at(directory.path()));
    (1..=3).for_each(|generation| file.append(&receipt(generation)).unwrap());
    let whole = fs::read(&path).unwrap();
    let third = whole.len() / 3 * 2;
    for torn in third + 1..whole.len() {
        fs::write(&path, &whole[..torn]).unwrap();
        // A complete object without its line end may be read, or not.
        assert_eq!(generations(directory.path())[..2], [1, 2], "{torn}");
        let mut file = File::open(Location::at(directory.path()));
        file.append(&receipt(4)).unwrap();
        assert_eq!(generations(directory.path()), [1, 2, 4], "{torn}");
    }
    fs::write(&path, [&whole[..third], b"{\"version\":3}\nnonsense\n", &whole[third..]].concat()).unwrap();
    assert_eq!(generations(directory.path()), [1, 2, 3]);
}

#[test]
fn receipts_of_older_versions_are_read_and_those_of_newer_ones_are_skipped() {
    let directory = tempfile::tempdir().unwrap();
    let mut lines = String::new();
    for (version, generation) in [(1, 4), (VERSION, 5), (VERSION + 1, 6)] {
        let mut object = serde_json::to_value(receipt(generation)).unwrap();
        object["version"] = version.into();
        if version == 1 {
            // Fields that version 1 lacked.
            object.as_object_mut().unwrap().remove("announced");
            object["steps"].as_object_mut().unwrap().remove("heard_us");
        }
        lines += &format!("{object}\n");
    }
    fs::write(directory.path().join(FILE), lines).unwrap();
    let read = read(&Location::at(directory.path()), Trust::Ours).unwrap();
    assert_eq!(read, [Receipt { announced: None, ..receipt(4) }, receipt(5)]);
}

#[test]
fn a_receipt_conforms_to_the_schema() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&receipt(7)).unwrap(), @r#"
    {
      "version": 2,
      "bond": "bond0",
      "time": "2026-01-02T03:04:05.678901Z",
      "monotonic_us": 245678901,
      "generation": 7,
      "from": "enp0s8",
      "to": "enp0s9",
      "reason": "link_failed",
      "seen": "link_event",
      "chosen": "only_one_up",
      "steps": {
        "detect_us": 143,
        "decide_us": 12,
        "switch_us": 2,
        "heard_us": null,
        "macs_us": 412,
        "announce_us": 320
      },
      "drops": {
        "backup": 3
      },
      "announced": {
        "addresses": 2,
        "macs": 0,
        "failed": 0,
        "by": "agent"
      }
    }
    "#);
}
