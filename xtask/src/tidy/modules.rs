//! Which modules of a crate import which: a directory may not import, over others, itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::is_of_tests;

/// The imports of a file outside its tests: a line, and a path as it is written.
pub type Imports<'a> = (&'a Path, Vec<(usize, String)>);

/// Returns the crate that a file belongs to, and its module's path in the crate; `None` outside `src`.
pub fn module_of(file: &Path) -> Option<(String, Vec<String>)> {
    let parts: Vec<_> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let source = parts.iter().position(|part| part == "src")?;
    let mut module = parts[source + 1..].to_vec();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    Some((parts[..source].join("/"), module))
}

/// Returns the path from the root of the crate, `crate::...`, of a path that begins with `crate`, `self` or `super`
/// in this module, and any other path unchanged.
pub fn absolute(module: &[String], path: &str) -> String {
    let mut names = path.split("::").peekable();
    let mut from = match names.peek() {
        Some(&"self") => {
            names.next();
            module.to_vec()
        }
        Some(&"super") => module.to_vec(),
        _ => return path.to_owned(),
    };
    while names.next_if_eq(&"super").is_some() {
        from.pop();
    }
    std::iter::once("crate")
        .chain(from.iter().map(String::as_str))
        .chain(names)
        .collect::<Vec<_>>()
        .join("::")
}

/// The imports between the directories of one parent directory: for each pair, where the first one is.
type Edges = BTreeMap<(String, String), String>;

/// Returns a complaint for each pair of directories of one crate that import each other, directly or over others in
/// the same parent directory.
pub fn complaints(files: &[Imports]) -> Vec<String> {
    let files: Vec<_> = files.iter().filter(|(file, _)| !is_of_tests(file)).collect();
    let mut modules = BTreeMap::<String, BTreeSet<Vec<String>>>::new();
    for (of, module) in files.iter().filter_map(|(file, _)| module_of(file)) {
        modules.entry(of).or_default().insert(module);
    }
    let mut graphs = BTreeMap::<(String, Vec<String>), Edges>::new();
    for (file, imports) in files {
        let Some((of, module)) = module_of(file) else { continue };
        let Some(known) = modules.get(&of) else { continue };
        for (line, path) in imports {
            let Some((parent, from, to)) = crossing(known, &module, path) else { continue };
            let place = format!("{}:{line}: {path}", file.display());
            graphs.entry((of.clone(), parent)).or_default().entry((from, to)).or_insert(place);
        }
    }
    let mut complaints = Vec::new();
    for ((of, _), edges) in &graphs {
        for (edge, place) in edges {
            if reaches(edges, &edge.1, &edge.0) {
                complaints.push(format!("{place}: {} and {} of {of} import each other", edge.0, edge.1));
            }
        }
    }
    complaints
}

/// Returns the directory in which an import crosses from one of its directories to another one, and both of those.
fn crossing(
    modules: &BTreeSet<Vec<String>>,
    module: &[String],
    path: &str,
) -> Option<(Vec<String>, String, String)> {
    let path = absolute(module, path);
    let mut to: Vec<String> = path.split("::").map(str::to_owned).collect();
    if to.first().is_some_and(|first| first == "crate") {
        to.remove(0);
    } else {
        // A child module, or another crate.
        to.splice(0..0, module.iter().cloned());
    }
    let common = module.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let is_directory = |directory: &[String]| {
        modules.iter().any(|it| it.len() > directory.len() && it.starts_with(directory))
    };
    let (from, to) = (module.get(..=common)?, to.get(..=common)?);
    (is_directory(from) && is_directory(to))
        .then(|| (module[..common].to_vec(), from.join("::"), to.join("::")))
}

/// Returns whether imports lead from one directory to another one.
fn reaches(edges: &Edges, from: &str, to: &str) -> bool {
    let mut seen = BTreeSet::from([from.to_owned()]);
    let mut open = vec![from.to_owned()];
    while let Some(next) = open.pop() {
        if next == to {
            return true;
        }
        let further = edges.keys().filter(|edge| edge.0 == next).map(|edge| edge.1.clone());
        open.extend(further.filter(|further| seen.insert(further.clone())).collect::<Vec<_>>());
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the complaints about a crate with the directories a, b, c and d::e, d::f, and these imports.
    fn found(imports: &[(&str, &str)]) -> Vec<String> {
        let directories = ["a", "b", "c", "d/e", "d/f"]
            .iter()
            .flat_map(|directory| ["mod.rs", "x.rs"].map(|file| format!("bond-user/src/{directory}/{file}")));
        let names: Vec<_> = directories.chain(["bond-user/src/file.rs".to_owned()]).collect();
        let of = |name: &str| {
            let own = imports.iter().filter(|(file, _)| name == format!("bond-user/src/{file}"));
            own.map(|(_, path)| (1, (*path).to_owned())).collect()
        };
        let files: Vec<Imports> = names.iter().map(|name| (Path::new(name), of(name))).collect();
        complaints(&files)
    }

    #[test]
    fn directories_that_import_each_other_are_found() {
        let table: [(&[(&str, &str)], usize); 9] = [
            (&[("a/x.rs", "crate::b::B")], 0),
            (&[("a/x.rs", "crate::b::B"), ("b/x.rs", "crate::a::A")], 2),
            (&[("a/x.rs", "super::super::b::B"), ("b/mod.rs", "super::a::A")], 2),
            (&[("a/mod.rs", "crate::b"), ("b/x.rs", "crate::c::C"), ("c/x.rs", "crate::a::x::A")], 3),
            (&[("a/mod.rs", "crate::b"), ("c/x.rs", "crate::b"), ("c/x.rs", "crate::a")], 0),
            (&[("d/e/x.rs", "crate::d::f::F"), ("d/f/x.rs", "crate::d::e::E")], 2),
            (&[("d/e/x.rs", "crate::a::A"), ("a/x.rs", "crate::d::f::F")], 2),
            // A directory's own files, and files next to directories.
            (&[("a/mod.rs", "self::x::X"), ("a/x.rs", "super::A")], 0),
            (&[("a/mod.rs", "crate::file::F"), ("file.rs", "crate::a::A")], 0),
        ];
        for (imports, expected) in table {
            let found = found(imports);
            assert_eq!(found.len(), expected, "{imports:?}: {found:#?}");
        }
    }

    #[test]
    fn paths_are_resolved_from_their_module() {
        let module = ["a".to_owned(), "b".to_owned()];
        for (path, expected) in [
            ("crate::x::Y", "crate::x::Y"),
            ("self::c::Y", "crate::a::b::c::Y"),
            ("super::c", "crate::a::c"),
            ("super::super::c", "crate::c"),
            ("std::fs", "std::fs"),
        ] {
            assert_eq!(absolute(&module, path), expected);
        }
        let of = |file| module_of(Path::new(file)).map(|(of, module)| (of, module.join("::")));
        assert_eq!(of("xtask/vm/src/a/mod.rs"), Some(("xtask/vm".to_owned(), "a".to_owned())));
        assert_eq!(of("bond-user/src/lib.rs"), Some(("bond-user".to_owned(), String::new())));
        assert_eq!(of("bond-user/build.rs"), None);
    }
}
