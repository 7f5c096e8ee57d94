//! Fuzz targets: a directory of files for each dialect.
//!
//! An input is a list of files. Each begins with a line `--- NAME`.

use std::{fs, path::Path};

use xbond_fuzz::target;

use super::{Dialect, hostile::assert_read};

/// The most files of an input.
const MOST_FILES: usize = 8;

/// Returns the names and texts of an input's files. A name is one part of a path.
fn files(input: &[u8]) -> Vec<(String, &[u8])> {
    let mut files: Vec<(String, &[u8])> = Vec::new();
    let mut rest = input;
    while files.len() < MOST_FILES
        && let Some(after) = rest.strip_prefix(b"--- ")
    {
        let end = after.iter().position(|byte| *byte == b'\n').unwrap_or(after.len());
        let name = String::from_utf8_lossy(&after[..end]).replace(['/', '\0'], "_");
        let text = after.get(end + 1..).unwrap_or_default();
        let length = text.windows(5).position(|bytes| bytes == b"\n--- ").map_or(text.len(), |at| at + 1);
        let is_name = !matches!(name.as_str(), "" | "." | "..") && name.len() < 64;
        files.extend(is_name.then(|| (name, &text[..length])));
        rest = &text[length..];
    }
    files
}

fn read(dialect: Dialect, input: &[u8]) {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory");
    for (name, text) in files(input) {
        // A directory of that name is another input.
        fs::write(directory.path().join(&name), text).expect("it is written");
    }
    let _ = assert_read(dialect, directory.path(), "an input");
}

#[test]
fn an_input_is_a_list_of_files() {
    let input = b"--- a.network\n[Match]\n--- b/c\nx\n\n--- ..\ny\n--- d";
    let expected: [(String, &[u8]); 3] =
        [("a.network".into(), b"[Match]\n"), ("b_c".into(), b"x\n\n"), ("d".into(), b"")];
    assert_eq!(files(input), expected);
    assert_eq!(files(b"x"), []);
    assert!(Path::new("/dev/shm").is_dir());
}

#[test]
fn ifcfg() {
    target("ifcfg", |input| read(Dialect::Ifcfg, input));
}

#[test]
fn networkd() {
    target("networkd", |input| read(Dialect::Networkd, input));
}

#[test]
fn netplan() {
    target("netplan", |input| read(Dialect::Netplan, input));
}

#[test]
fn nm() {
    target("nm", |input| read(Dialect::Nm, input));
}

#[test]
fn ifupdown() {
    target("ifupdown", |input| read(Dialect::Ifupdown, input));
}

#[test]
fn nmstate() {
    target("nmstate", |input| read(Dialect::Nmstate, input));
}

#[test]
fn team() {
    target("team", |input| read(Dialect::Team, input));
}

#[test]
fn dracut() {
    target("dracut", |input| read(Dialect::Dracut, input));
}
