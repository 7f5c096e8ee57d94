//! The size of files and functions, and the names of types.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};

use super::{is_of_tests, modules, outline::Outline};

/// The most lines of a file: of tests if it is a test module, otherwise of those that are not tests.
const FILE: usize = 700;
/// The most lines of a function, also of a test.
const FUNCTION: usize = 60;
/// What a longer file (`//! One thing: WHY`) or function (`// One thing: WHY`) says in its head.
const ONE_THING: &str = "One thing: ";

/// Returns what is wrong with the size of files and functions, and the names of types.
///
/// # Errors
/// A file is not Rust.
pub fn complaints(files: &[(&Path, &str)]) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut types = BTreeMap::<(String, String), Vec<String>>::new();
    for (name, text) in files {
        let outline = Outline::of(text).with_context(|| format!("cannot parse {}", name.display()))?;
        let lines: Vec<&str> = text.lines().collect();

        let length = lines.len() - outline.test_lines;
        let counted = if is_of_tests(name) { "" } else { " without tests" };
        if length > FILE && !says_one_thing(lines.iter().take_while(|line| is_head(line)), "//!") {
            complaints.push(format!(
                "{}:1: {length} lines{counted}, and {FILE} are allowed: split it by subject, or say in its head why \
                 it is one thing (//! {ONE_THING}...)",
                name.display()
            ));
        }
        for function in outline.functions.iter().filter(|function| function.length > FUNCTION) {
            let above = lines[..function.line - 1].iter().rev().take_while(|line| is_comment(line));
            if says_one_thing(above.chain(lines.get(function.opens)), "//") {
                continue;
            }
            complaints.push(format!(
                "{}:{}: {} has {} lines, and {FUNCTION} are allowed: split it by step, or say above it why it is one \
                 thing (// {ONE_THING}...)",
                name.display(),
                function.line,
                function.name,
                function.length
            ));
        }
        if let Some((of, _)) = modules::module_of(name).filter(|_| !is_of_tests(name)) {
            for (line, kind) in outline.types {
                let place = format!("{}:{line}", name.display());
                types.entry((of.clone(), kind)).or_default().push(place);
            }
        }
    }
    complaints.extend(duplicates(&types));
    Ok(complaints)
}

/// Returns a complaint for each name that several public types of a crate have.
fn duplicates(types: &BTreeMap<(String, String), Vec<String>>) -> impl Iterator<Item = String> {
    types.iter().filter(|(_, places)| places.len() > 1).map(|((of, name), places)| {
        let others = places[1..].join(", ");
        format!("{}: the public type {name} exists in {of} also at {others}", places[0])
    })
}

fn is_head(line: &str) -> bool {
    line.starts_with("//") || line.is_empty()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//") || line.trim_start().starts_with("#[")
}

/// Returns whether one of the lines is a comment of this kind that says why something is one thing.
fn says_one_thing<'a>(lines: impl IntoIterator<Item = &'a &'a str>, comment: &str) -> bool {
    lines.into_iter().any(|line| {
        let text = line.trim().strip_prefix(comment).map(str::trim_start);
        text.and_then(|text| text.strip_prefix(ONE_THING.trim_end()))
            .is_some_and(|why| !why.trim().is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|(name, text)| (Path::new(*name), *text)).collect();
        complaints(&files).unwrap()
    }

    /// Returns a function of this many lines.
    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    f();\n".repeat(lines - 2))
    }

    fn statics(lines: usize) -> String {
        "static X: u8 = 1;\n".repeat(lines)
    }

    #[test]
    fn a_long_file_needs_a_reason() {
        let name = "bond-user/src/a.rs";
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", statics(700));
        let table = [
            (statics(700), 0),
            (statics(701), 1),
            (statics(700) + &tests, 0),
            (statics(701) + &tests, 1),
            (format!("//! A file.\n//!\n//! One thing: a table.\n{}", statics(700)), 0),
            (format!("//! One thing:\n{}", statics(700)), 1),
            (format!("{}// One thing: not in its head.\n", statics(701)), 1),
        ];
        for (place, (text, expected)) in table.iter().enumerate() {
            assert_eq!(found(&[(name, text)]).len(), *expected, "{place}");
        }
        for file in
            ["bond-user/src/a/tests.rs", "tests/tests/a.rs", "tests/src/lab.rs", "xtask/vm/src/lib.rs"]
        {
            assert_eq!(found(&[(file, &statics(701))]).len(), 1, "{file}");
        }
    }

    #[test]
    fn a_long_function_needs_a_reason() {
        let name = "bond-user/src/a.rs";
        let table = [
            (function(60), 0),
            (function(61), 1),
            (format!("// One thing: a table.\n#[inline]\n{}", function(61)), 0),
            (format!("// One thing: another's.\n\n{}", function(61)), 1),
            (function(61).replacen("    f();", "    // One thing: a table.", 1), 0),
            (format!("impl A {{\n{}}}\n", function(61)), 1),
            (format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(61)), 1),
        ];
        for (place, (text, expected)) in table.iter().enumerate() {
            assert_eq!(found(&[(name, text)]).len(), *expected, "{place}");
        }
        for file in ["bond-user/src/a/tests.rs", "tests/tests/a.rs", "tests/benches/a.rs", "xtask/src/a.rs"] {
            assert_eq!(found(&[(file, &function(61))]).len(), 1, "{file}");
        }
    }

    #[test]
    fn two_public_types_of_one_crate_may_not_share_a_name() {
        let (a, b) = ("bond-user/src/a.rs", "bond-user/src/b/mod.rs");
        let table: [(&str, &str, &str, usize); 6] = [
            (b, "pub struct A;", "pub enum A {}", 1),
            (b, "pub struct A;", "pub trait A {}", 1),
            (b, "pub struct A;", "pub(crate) struct A;", 0),
            ("bond-core/src/b.rs", "pub struct A;", "pub struct A;", 0),
            (b, "pub struct A;", "#[cfg(test)]\nmod tests {\n    pub struct A;\n}", 0),
            ("bond-user/src/tests/b.rs", "pub struct A;", "pub struct A;", 0),
        ];
        for (other, first, second, expected) in table {
            assert_eq!(found(&[(a, first), (other, second)]).len(), expected, "{second}");
        }
    }
}
