//! Fuzz targets: found.json and receipts.ndjson, as another process may have written them.

use xbond_fuzz::target;

use super::{receipts, record::Record};

#[test]
fn found_json() {
    target("found_json", |input| {
        let Ok(record) = Record::parse(input) else { return };
        let written = serde_json::to_vec(&record).expect("a record is JSON");
        let again = Record::parse(&written);
        assert_eq!(again.expect("what is written is read"), record);
    });
}

#[test]
fn receipt_lines() {
    target("receipt_lines", |input| {
        assert!(receipts::damaged(input) <= input.len());
        let found = receipts::parse(input);
        assert!(found.len() <= receipts::KEPT);
        let lines: Vec<_> =
            found.iter().map(|receipt| serde_json::to_string(receipt).expect("it is JSON")).collect();
        assert_eq!(receipts::parse(lines.join("\n").as_bytes()), found, "what is written is read");
    });
}
