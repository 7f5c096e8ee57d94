//! Tests of all dialects on files as people write them.
//!
//! Each directory in `tests/dialects/DIALECT` is a case: files, and next to the directory what an import makes of them. After a
//! change, `INSTA_UPDATE=always cargo test -p bond-user --lib dialect` writes what it makes of them now.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use proptest::prelude::*;

use super::{Dialect, read};
use crate::config::{Config, ConfigError, toml};

/// Each dialect has as many cases at least.
const FEWEST_CASES: usize = 8;

fn cases(dialect: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialects").join(dialect);
    let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

/// Prints what an import makes of a case: the file, and the notes; or the refusal.
fn shown(case: &Path, read: Result<Config, ConfigError>) -> String {
    let text = match read {
        Err(error) => format!("refused: {error}\n"),
        Ok(config) => {
            let of_bonds = config.bonds.iter().flat_map(|bond| &bond.notes);
            let notes = config.notes.iter().chain(of_bonds).map(|note| format!("# {note}\n"));
            notes.collect::<String>() + &toml::write(&config)
        }
    };
    text.replace(&format!("{}/", case.display()), "").replace(&case.display().to_string(), ".")
}

/// A case is a directory of files, or one for each of a dialect's directories, by precedence.
fn paths_of(dialect: Dialect, case: &Path) -> Vec<PathBuf> {
    let names = if dialect == Dialect::Netplan { ["run", "etc", "usr"] } else { ["etc", "run", "usr"] };
    let by_precedence = names.map(|name| case.join(name));
    let paths: Vec<_> = by_precedence.into_iter().filter(|path| path.is_dir()).collect();
    if paths.is_empty() { vec![case.to_owned()] } else { paths }
}

fn assert_cases(dialect: Dialect) {
    let cases = cases(&dialect.to_string());
    assert!(cases.len() >= FEWEST_CASES, "{dialect}: {} cases", cases.len());
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path(cases[0].parent().unwrap());
    settings.bind(|| {
        for case in cases {
            let name = case.file_name().unwrap().to_str().unwrap().to_owned();
            insta::assert_snapshot!(name, shown(&case, read(dialect, &paths_of(dialect, &case))));
        }
    });
}

#[test]
fn ifcfg_files_are_imported_or_named() {
    assert_cases(Dialect::Ifcfg);
}

#[test]
fn networkd_files_are_imported_or_named() {
    assert_cases(Dialect::Networkd);
}

#[test]
fn netplan_files_are_imported_or_named() {
    assert_cases(Dialect::Netplan);
}

#[test]
fn networkmanager_files_are_imported_or_named() {
    assert_cases(Dialect::Nm);
}

#[test]
fn ifupdown_files_are_imported_or_named() {
    assert_cases(Dialect::Ifupdown);
}

#[test]
fn nmstate_files_are_imported_or_named() {
    assert_cases(Dialect::Nmstate);
}

#[test]
fn team_files_are_imported_or_named() {
    assert_cases(Dialect::Team);
}

#[test]
fn command_lines_are_imported_or_named() {
    assert_cases(Dialect::Dracut);
}

/// Lines of all dialects, with the words that decide something.
const LINES: &str = "(\\[(NetDev|Bond|Match|Network|Route|connection|bond|ipv4)\\]|[A-Za-z-]{1,16}[=: ]{1,2}[a-z0-9./:,\"'{}&*-]{0,12}|\
    iface bond0 inet static|bond-(slaves|mode|miimon) [a-z0-9-]{0,9}|(network|bonds|  bond0|  parameters):|[ \\[\\]{},-]{0,9}|\
    Kind=bond|Name=[a-z0-9* ]{0,9}|type=bond|Mode=[a-z0-9-]{0,9}|mode=[a-z0-9-]{0,9})";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_text_makes_a_reader_panic(noise in "(?s).{0,200}", lines in prop::collection::vec(LINES, 0..20)) {
        let directory = tempfile::tempdir().unwrap();
        for text in [noise, lines.join("\n")] {
            for name in ["a.netdev", "a.network", "a.yaml", "a.nmconnection", "interfaces", "ifcfg-bond0", "a.conf"] {
                fs::write(directory.path().join(name), &text).unwrap();
            }
            for dialect in Dialect::ALL {
                let _ = read(*dialect, &[directory.path().to_owned()]);
            }
        }
    }
}

#[test]
fn a_path_that_does_not_exist_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("nonexist");
    for dialect in Dialect::ALL {
        let error = read(*dialect, &[directory.path().to_owned(), absent.clone()]).unwrap_err().to_string();
        assert_eq!(error, format!("{}: no such file or directory", absent.display()), "{dialect}");
    }
}

#[test]
fn files_that_cannot_be_read_are_refused_with_their_names() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    fs::File::create(at("large")).unwrap().set_len(10 * 1024 * 1024).unwrap();
    fs::write(at("zero"), "a\n\0").unwrap();
    let table = [
        ("fifo", "it is a FIFO"),
        ("large", "larger than 4194304 bytes"),
        ("zero", ":2: not UTF-8 text"),
        ("absent", "no such file or directory"),
    ];
    let suffix = |dialect: &Dialect| match dialect {
        Dialect::Networkd => ".netdev",
        _ => "",
    };
    for dialect in Dialect::ALL.iter().filter(|dialect| **dialect != Dialect::Ifcfg) {
        for (name, said) in table {
            let path = at(&format!("{name}{}", suffix(dialect)));
            if !suffix(dialect).is_empty() && name != "absent" {
                let _ = std::os::unix::fs::symlink(at(name), &path);
            }
            let error = read(*dialect, std::slice::from_ref(&path)).unwrap_err().to_string();
            assert!(
                error.contains(said) && error.starts_with(&path.display().to_string()),
                "{dialect}: {error}"
            );
        }
    }
}
