//! Tests of the record: versions, foreign files, and what is written.

use std::{fs, time::Duration};

use bond_core::name::InterfaceName;

use super::*;
use crate::sys::clock::{ClockNames, ClockPair};
use crate::sys::testing;

fn bond0() -> BondName {
    BondName::new("bond0").unwrap()
}

#[test]
fn a_foreign_file_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let (place, path) = (Location::at(directory.path()), directory.path().join(FILE));
    let record = |version: u32, bond: &str, pair: &str, more: &str| {
        format!(
            r#"{{"version":{version},"bond":"{bond}","pair":{pair},"port":null,"datapath":"tc","queues":1,"slaves":[]{more}}}"#
        )
    };
    let pair = r#"{"bond":"bond0","port":"../eth0"}"#;
    let another = r#"{"bond":"bond1","port":"bond1-port"}"#;
    let table = [
        (String::new(), "EOF while parsing"),
        (record(1, "bond0", "null", ""), "version 1; xbond reads version 4"),
        (record(2, "bond0", "null", r#","more":1"#), "unknown field `more`"),
        (record(2, "../x", "null", ""), "\"../x\" cannot be a bond: it contains '/'"),
        (
            record(2, "lock", "null", ""),
            "\"lock\" cannot be a bond: it is the name of one of xbond's own files",
        ),
        (record(2, "bond0", pair, ""), "\"../eth0\" cannot be an interface: it contains '/'"),
        (record(2, "bond1", "null", ""), "it is about bond1, not bond0"),
        (record(4, "bond0", another, ""), "its pair is of bond1, not bond0"),
    ];
    for (text, problem) in table {
        fs::write(&path, text).unwrap();
        let error = Record::read_at(place.clone(), &bond0(), Trust::Ours).unwrap_err().to_string();
        assert!(error.starts_with(&path.display().to_string()) && error.contains(problem), "{error}");
    }
}

#[test]
fn a_trial_ends_by_clock_boottime_and_with_the_boot() {
    let limit = Duration::from_secs(60);
    let trial = Trial::within(limit);
    assert!(trial.left() <= limit && trial.left() > limit / 2, "{trial:?}");
    let end = Duration::from_millis(trial.until_ms);
    assert_eq!(trial.left_at(end - Duration::from_secs(2)), Duration::from_secs(2));
    assert_eq!(trial.left_at(end + Duration::from_secs(2)), Duration::ZERO);
    let later = Trial { until_ms: trial.until_ms + 1, ..trial.clone() };
    assert_eq!(later.clone().or_earlier(trial.clone()), trial);
    assert_eq!(trial.clone().or_earlier(later), trial);

    let directory = tempfile::tempdir().unwrap();
    let shape = Shape { pair: None, port: None, datapath: "tc".into(), queues: 1 };
    let record = Record::new(&Paths::of(0), &bond0(), shape);
    let mut record = Record { place: Location::at(directory.path()), ..record }.on_trial(Some(trial.clone()));
    assert_eq!(record.trial(), Some(&trial));
    record.set_trial(None).unwrap();
    let read = Record::read_at(record.place.clone(), &bond0(), Trust::Ours).unwrap().unwrap();
    assert_eq!(read.trial(), None);
    let former = Trial { boot: Some("of another boot".to_owned()), ..trial };
    assert_eq!(record.on_trial(Some(former)).trial(), None);
}

/// Another interface with the ifindex of one that went away would be given what that one had.
#[test]
fn a_slave_that_joins_takes_the_place_of_one_that_went_away() {
    let directory = tempfile::tempdir().unwrap();
    let paths = Paths::below(directory.path()).unwrap();
    paths.make_run_of(&bond0()).unwrap();
    let shape = Shape { pair: None, port: None, datapath: "tc".to_owned(), queues: 1 };
    let mut record = Record::new(&paths, &bond0(), shape);
    let [former, next, other] =
        [(3, 1), (3, 2), (4, 3)].map(|(ifindex, last)| testing::found(ifindex, "nic0", testing::mac(last)));
    for found in [former, other.clone()] {
        record.add(found.clone()).unwrap();
        record.depart(found.ifindex).unwrap();
    }
    record.add(next.clone()).unwrap();
    assert_eq!((record.slaves(), record.away()), (&[next][..], &[other][..]));
}

#[test]
fn a_saved_record_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let place = Location::at(directory.path());
    let read = || Record::read_at(place.clone(), &bond0(), Trust::Ours).unwrap();
    assert_eq!(read(), None);
    let record = Record {
        version: VERSION,
        bond: bond0(),
        pair: Some(RecordedPair::new(bond0(), InterfaceName::new("bond0-port").unwrap())),
        clock: Some(RecordedClock {
            names: ClockNames::of(&bond0()).next().unwrap(),
            ends: Some(ClockPair { sender: 7, receiver: 8 }),
        }),
        port: None,
        datapath: "tc".into(),
        queues: 16,
        slaves: Vec::new(),
        away: Vec::new(),
        taken: None,
        configured: Configured::default(),
        trial: Some(Trial::within(Duration::from_secs(60))),
        place: place.clone(),
        read_as: VERSION,
        unrestored: false,
    };
    record.save().unwrap();
    assert_eq!(read(), Some(record));
}
