//! The size of files and functions, and the names of types.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};

use super::{is_of_tests, modules, outline::Outline};

/// The most lines of a file that are not tests.
const FILE: usize = 700;
/// The most lines of a function.
const FUNCTION: usize = 60;
/// What a longer file (`//! One thing: WHY`) or function (`// One thing: WHY`) says in its head.
const ONE_THING: &str = "One thing: ";

/// What exceeds a limit today, with its present size. A size here may only shrink, and an entry that is not needed any
/// more has to go.
pub struct Exceptions {
    /// Files, and their lines that are not tests.
    pub files: &'static [(&'static str, usize)],
    /// Functions by their files, and their lines.
    pub functions: &'static [(&'static str, &'static str, usize)],
    /// Public types by crate, how many of them have the name, and why.
    pub types: &'static [(&'static str, &'static str, usize, &'static str)],
}

pub const EXCEPTIONS: Exceptions = Exceptions {
    files: &[],
    functions: &[("bond-user/src/agent/lifecycle/start.rs", "start", 80)],
    types: &[("bond-user", "Counters", 2, OLD)],
};

/// Why two types share a name.
const OLD: &str = "older than this check; a change of either renames it";

/// Returns what is wrong with the size of files and functions, and the names of types.
///
/// # Errors
/// A file is not Rust.
pub fn complaints(files: &[(&Path, &str)], exceptions: &Exceptions) -> Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut unneeded_files: Vec<_> = exceptions.files.iter().collect();
    let mut unneeded_functions: Vec<_> = exceptions.functions.iter().collect();
    let mut types = BTreeMap::<(String, String), Vec<String>>::new();
    for (name, text) in files.iter().filter(|(name, _)| !is_of_tests(name)) {
        let outline = Outline::of(text).with_context(|| format!("cannot parse {}", name.display()))?;
        let lines: Vec<&str> = text.lines().collect();
        let is_this = |file: &str| *name == Path::new(file);

        let length = lines.len() - outline.test_lines;
        if length > FILE && !says_one_thing(lines.iter().take_while(|line| is_head(line)), "//!") {
            let known = exceptions.files.iter().find(|(file, _)| is_this(file));
            unneeded_files.retain(|(file, _)| !is_this(file));
            let limit = known.map_or(FILE, |(_, limit)| *limit);
            if length > limit {
                complaints.push(format!(
                    "{}:1: {length} lines without tests, and {limit} are allowed: split it by subject, or say in its \
                     head why it is one thing (//! {ONE_THING}...)",
                    name.display()
                ));
            }
        }
        for function in outline.functions.iter().filter(|function| function.length > FUNCTION) {
            let above = lines[..function.line - 1].iter().rev().take_while(|line| is_comment(line));
            if says_one_thing(above.chain(lines.get(function.opens)), "//") {
                continue;
            }
            let is_known = |known: &(&str, &str, usize)| is_this(known.0) && function.name == known.1;
            let known = exceptions.functions.iter().find(|known| is_known(known));
            unneeded_functions.retain(|known| !is_known(known));
            let limit = known.map_or(FUNCTION, |(_, _, limit)| *limit);
            if function.length > limit {
                complaints.push(format!(
                    "{}:{}: {} has {} lines, and {limit} are allowed: split it by step, or say above it why it is one \
                     thing (// {ONE_THING}...)",
                    name.display(),
                    function.line,
                    function.name,
                    function.length
                ));
            }
        }
        if let Some((of, _)) = modules::module_of(name) {
            for (line, kind) in outline.types {
                let place = format!("{}:{line}", name.display());
                types.entry((of.clone(), kind)).or_default().push(place);
            }
        }
    }
    complaints.extend(unneeded_files.iter().map(|(file, _)| unneeded(file)));
    complaints.extend(
        unneeded_functions.iter().map(|(file, function, _)| unneeded(&format!("{file}: {function}"))),
    );
    complaints.extend(duplicates(&types, exceptions.types));
    Ok(complaints)
}

/// Returns a complaint for each name that more public types of a crate have than the exceptions allow.
fn duplicates(
    types: &BTreeMap<(String, String), Vec<String>>,
    exceptions: &[(&str, &str, usize, &str)],
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut needless: Vec<_> = exceptions.iter().collect();
    for ((of, name), places) in types.iter().filter(|(_, places)| places.len() > 1) {
        let is_known = |known: &(&str, &str, usize, &str)| known.0 == of && known.1 == name;
        let limit = exceptions.iter().find(|known| is_known(known)).map_or(1, |known| known.2);
        needless.retain(|known| !is_known(known));
        if places.len() > limit {
            let others = places[1..].join(", ");
            complaints.push(format!("{}: the public type {name} exists in {of} also at {others}", places[0]));
        }
    }
    complaints.extend(needless.iter().map(|(of, name, ..)| unneeded(&format!("{of}: type {name}"))));
    complaints
}

fn unneeded(what: &str) -> String {
    format!("xtask/src/tidy: the exception for {what} is not needed any more; remove it")
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

    const NONE: Exceptions = Exceptions { files: &[], functions: &[], types: &[] };

    fn found(files: &[(&str, &str)], exceptions: &Exceptions) -> Vec<String> {
        let files: Vec<_> = files.iter().map(|(name, text)| (Path::new(*name), *text)).collect();
        complaints(&files, exceptions).unwrap()
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
            assert_eq!(found(&[(name, text)], &NONE).len(), *expected, "{place}");
        }
        for file in ["bond-user/src/a/tests.rs", "tests/src/lab.rs"] {
            assert_eq!(found(&[(file, &statics(701))], &NONE), [""; 0], "{file}");
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
            (format!("#[cfg(test)]\nmod tests {{\n{}}}\n", function(61)), 0),
        ];
        for (place, (text, expected)) in table.iter().enumerate() {
            assert_eq!(found(&[(name, text)], &NONE).len(), *expected, "{place}");
        }
    }

    #[test]
    fn an_exception_may_only_shrink_and_has_to_be_needed() {
        let exceptions = Exceptions {
            files: &[("bond-user/src/a.rs", 710)],
            functions: &[("bond-user/src/b.rs", "long", 70)],
            types: &[("bond-user", "T", 2, "a reason")],
        };
        let types = |count: usize| {
            let each = |number| (format!("bond-user/src/t{number}.rs"), "pub struct T;\n".to_owned());
            (0..count).map(each).collect::<Vec<_>>()
        };
        for (file, function_lines, type_count, expected) in [
            (710, 70, 2, 0),
            (705, 65, 2, 0),
            (711, 70, 2, 1),
            (710, 71, 2, 1),
            (710, 70, 3, 1),
            (700, 60, 1, 3),
        ] {
            let mut files = vec![
                ("bond-user/src/a.rs".to_owned(), statics(file)),
                ("bond-user/src/b.rs".to_owned(), function(function_lines)),
            ];
            files.extend(types(type_count));
            let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
            let found = found(&files, &exceptions);
            assert_eq!(found.len(), expected, "{found:#?}");
        }
    }

    #[test]
    fn two_public_types_of_one_crate_may_not_share_a_name() {
        let (a, b) = ("bond-user/src/a.rs", "bond-user/src/b/mod.rs");
        let table: [(&str, &str, &str, usize); 5] = [
            (b, "pub struct A;", "pub enum A {}", 1),
            (b, "pub struct A;", "pub trait A {}", 1),
            (b, "pub struct A;", "pub(crate) struct A;", 0),
            ("bond-core/src/b.rs", "pub struct A;", "pub struct A;", 0),
            (b, "pub struct A;", "#[cfg(test)]\nmod tests {\n    pub struct A;\n}", 0),
        ];
        for (other, first, second, expected) in table {
            assert_eq!(found(&[(a, first), (other, second)], &NONE).len(), expected, "{second}");
        }
    }
}
