//! Which modules of a crate import which: a directory may not import, over others, itself, nor a file next to it that
//! imports it. Files of one directory may import each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{Code, is_of_tests};

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

/// The modules of one crate.
#[derive(Default)]
struct Modules {
    /// Each module, with the names that `use` gives it.
    names: BTreeMap<Vec<String>, BTreeMap<String, String>>,
    /// Modules that are a directory, also if it contains only mod.rs.
    directories: BTreeSet<Vec<String>>,
}

impl Modules {
    fn add(&mut self, file: &Path, module: Vec<String>, code: &Code) {
        let above =
            file.parent().into_iter().flat_map(Path::iter).map(|part| part.to_string_lossy().into_owned());
        let above: Vec<_> = above.skip_while(|part| part != "src").skip(1).collect();
        self.directories.extend((1..=above.len()).map(|length| above[..length].to_vec()));
        self.names.insert(module, code.names.clone());
    }

    fn has(&self, module: &[String]) -> bool {
        self.names.contains_key(module)
    }

    /// Returns the path from the root of the crate of a path in this module, without `crate`; `None` for another crate.
    fn within(&self, module: &[String], path: &str) -> Option<Vec<String>> {
        let path = absolute(module, path);
        let names: Vec<String> = path.split("::").map(str::to_owned).collect();
        if names.first()? == "crate" {
            return Some(names[1..].to_vec());
        }
        let of_child = [module, &names].concat();
        self.has(&of_child[..=module.len()]).then_some(of_child)
    }

    /// Returns the places where a path leads, from the first one over each `use` that gives an item another path.
    fn followed(&self, module: &[String], path: &str) -> Vec<Vec<String>> {
        /// Far more than there are; a `use` may lead back to itself.
        const MOST: usize = 8;
        let mut places: Vec<Vec<String>> = self.within(module, path).into_iter().collect();
        while let Some(place) = places.last().filter(|_| places.len() < MOST) {
            let known = (0..=place.len()).rev().find(|length| *length == 0 || self.has(&place[..*length]));
            let (owner, rest) = place.split_at(known.unwrap_or_default());
            let Some((name, rest)) = rest.split_first() else { break };
            let origin = self.names.get(owner).and_then(|names| names.get(name));
            let Some(mut origin) = origin.and_then(|origin| self.within(owner, origin)) else { break };
            origin.extend(rest.iter().cloned());
            if places.contains(&origin) {
                break;
            }
            places.push(origin);
        }
        places
    }

    /// Returns the module in which an import crosses from one of its modules to another one, and both of those. `to` is
    /// a path of a module or of an item.
    fn crossing(&self, module: &[String], to: &[String]) -> Option<(Vec<String>, Vec<String>, Vec<String>)> {
        let common = module.iter().zip(to).take_while(|(a, b)| a == b).count();
        let (from, to) = (module.get(..=common)?, to.get(..=common)?);
        let is_module = self.has(to) || self.directories.contains(to);
        is_module.then(|| (module[..common].to_vec(), from.to_vec(), to.to_vec()))
    }
}

/// The imports between the modules of one parent module: for each pair, where the first one is.
type Edges = BTreeMap<(Vec<String>, Vec<String>), String>;

/// Returns a complaint for each pair of directories of one crate that import each other, directly or over others in
/// the same parent directory, and for each directory and file next to it that import each other directly.
pub fn complaints(files: &[(&Path, Code)]) -> Vec<String> {
    let files: Vec<_> = files.iter().filter(|(file, _)| !is_of_tests(file)).collect();
    let mut crates = BTreeMap::<String, Modules>::new();
    for (file, code) in &files {
        if let Some((of, module)) = module_of(file) {
            crates.entry(of).or_default().add(file, module, code);
        }
    }
    let mut graphs = BTreeMap::<(String, Vec<String>), Edges>::new();
    for (file, code) in files {
        let Some((of, module)) = module_of(file) else { continue };
        let Some(modules) = crates.get(&of) else { continue };
        for (line, path) in &code.paths {
            for to in modules.followed(&module, path) {
                let Some((parent, from, to)) = modules.crossing(&module, &to) else { continue };
                let place = format!("{}:{line}: {path}", file.display());
                graphs.entry((of.clone(), parent)).or_default().entry((from, to)).or_insert(place);
            }
        }
    }
    let of_crate = |(of, _): &(String, Vec<String>)| crates.get(of);
    graphs.iter().filter_map(|(of, edges)| Some((of, edges, of_crate(of)?))).flat_map(of_graph).collect()
}

fn of_graph(((of, _), edges, modules): (&(String, Vec<String>), &Edges, &Modules)) -> Vec<String> {
    let is_directory = |module: &Vec<String>| modules.directories.contains(module);
    let between_directories: Edges = edges
        .iter()
        .filter(|((from, to), _)| is_directory(from) && is_directory(to))
        .map(|(edge, place)| (edge.clone(), place.clone()))
        .collect();
    let mut complaints = Vec::new();
    for (edge, place) in edges {
        let (from, to) = edge;
        let is_cycle = match (is_directory(from), is_directory(to)) {
            (true, true) => reaches(&between_directories, to, from),
            (false, false) => false,
            _ => edges.contains_key(&(to.clone(), from.clone())),
        };
        if is_cycle {
            let [from, to] = [from, to].map(|module| module.join("::"));
            complaints.push(format!("{place}: {from} and {to} of {of} import each other"));
        }
    }
    complaints
}

/// Returns whether imports lead from one module to another one.
fn reaches(edges: &Edges, from: &[String], to: &[String]) -> bool {
    let mut seen = BTreeSet::from([from.to_vec()]);
    let mut open = vec![from.to_vec()];
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

    /// Returns the complaints about a crate with the directories a, b, c and d::e, d::f, the directories g and h, which
    /// have only mod.rs, a file next to them, and this code in files.
    fn found(texts: &[(&str, &str)]) -> Vec<String> {
        let directories = ["a", "b", "c", "d/e", "d/f"]
            .iter()
            .flat_map(|directory| ["mod.rs", "x.rs"].map(|file| format!("{directory}/{file}")));
        let others = ["lib.rs", "file.rs", "other.rs", "d/mod.rs", "g/mod.rs", "h/mod.rs"].map(str::to_owned);
        let names: Vec<_> = directories.chain(others).collect();
        let code_of = |name: &str| {
            let own = texts.iter().filter(|(file, _)| name == *file).map(|(_, text)| *text);
            Code::of(&own.collect::<Vec<_>>().join("\n")).unwrap()
        };
        let paths: Vec<_> = names.iter().map(|name| format!("bond-user/src/{name}")).collect();
        let files: Vec<_> =
            paths.iter().zip(&names).map(|(path, name)| (Path::new(path), code_of(name))).collect();
        complaints(&files)
    }

    fn check(table: &[(&[(&str, &str)], usize)]) {
        for (texts, expected) in table {
            let found = found(texts);
            assert_eq!(found.len(), *expected, "{texts:?}: {found:#?}");
        }
    }

    #[test]
    fn directories_that_import_each_other_are_found() {
        check(&[
            (&[("a/x.rs", "use crate::b::B;")], 0),
            (&[("a/x.rs", "use crate::b::B;"), ("b/x.rs", "use crate::a::A;")], 2),
            (&[("a/x.rs", "use super::super::b::B;"), ("b/mod.rs", "use super::a::A;")], 2),
            (
                &[
                    ("a/mod.rs", "use crate::b;"),
                    ("b/x.rs", "use crate::c::C;"),
                    ("c/x.rs", "use crate::a::x::A;"),
                ],
                3,
            ),
            (&[("a/mod.rs", "use crate::b;"), ("c/x.rs", "use crate::{a, b};")], 0),
            (&[("d/e/x.rs", "use crate::d::f::F;"), ("d/f/x.rs", "use crate::d::e::E;")], 2),
            (&[("d/e/x.rs", "use crate::a::A;"), ("a/x.rs", "use crate::d::f::F;")], 2),
            // Directories that contain only mod.rs.
            (&[("g/mod.rs", "use crate::h::H;"), ("h/mod.rs", "use crate::g::G;")], 2),
            (&[("g/mod.rs", "use crate::a::A;"), ("a/x.rs", "fn f() { crate::g::g() }")], 2),
            // A directory's own files, and files next to each other.
            (&[("a/mod.rs", "use self::x::X;"), ("a/x.rs", "use super::A;")], 0),
            (&[("file.rs", "use crate::other::O;"), ("other.rs", "use crate::file::F;")], 0),
            // Tests.
            (
                &[
                    ("g/mod.rs", "use crate::h::H;"),
                    ("h/mod.rs", "#[cfg(test)] mod tests { use crate::g::G; }"),
                ],
                0,
            ),
        ]);
    }

    #[test]
    fn a_directory_and_a_file_next_to_it_that_import_each_other_are_found() {
        check(&[
            (&[("a/mod.rs", "use crate::file::F;")], 0),
            (&[("a/mod.rs", "use crate::file::F;"), ("file.rs", "use crate::a::A;")], 2),
            (&[("g/mod.rs", "use super::file::F;"), ("file.rs", "fn f() { crate::g::g() }")], 2),
            (&[("d/e/x.rs", "use crate::file::F;"), ("file.rs", "use crate::d::f::F;")], 2),
            // Over another file: only directories are followed that far.
            (
                &[
                    ("a/mod.rs", "use crate::file::F;"),
                    ("file.rs", "use crate::other::O;"),
                    ("other.rs", "use crate::a;"),
                ],
                0,
            ),
        ]);
    }

    #[test]
    fn imports_are_followed_over_other_names() {
        check(&[
            // From the root of the crate, and from a module above.
            (&[("lib.rs", "pub use b::B;"), ("a/x.rs", "use crate::B;"), ("b/x.rs", "use crate::a::A;")], 2),
            (
                &[
                    ("d/mod.rs", "pub use f::F;"),
                    ("d/e/x.rs", "use super::super::F;"),
                    ("d/f/x.rs", "use crate::d::e::E;"),
                ],
                2,
            ),
            (
                &[
                    ("lib.rs", "use crate::b::B as C;"),
                    ("a/x.rs", "use super::super::C;"),
                    ("b/x.rs", "use crate::a::A;"),
                ],
                2,
            ),
            // From another directory.
            (
                &[
                    ("b/mod.rs", "pub use crate::c::C;"),
                    ("a/x.rs", "use crate::b::C;"),
                    ("c/x.rs", "use crate::a::A;"),
                ],
                4,
            ),
            // Back to itself.
            (
                &[
                    ("a/mod.rs", "use crate::b::X;"),
                    ("b/mod.rs", "use crate::c::X;"),
                    ("c/mod.rs", "use crate::b::X;"),
                ],
                2,
            ),
            // Of another crate.
            (
                &[
                    ("lib.rs", "use other::b::B;"),
                    ("a/x.rs", "use crate::B;"),
                    ("b/x.rs", "use crate::a::A;"),
                ],
                0,
            ),
            // In a module inside a file.
            (&[("a/x.rs", "mod m { use super::super::super::b::B; }"), ("b/x.rs", "use crate::a::A;")], 2),
            (&[("a/x.rs", "mod m { use super::super::b::B; }"), ("b/x.rs", "use crate::a::A;")], 0),
            (&[("a/x.rs", "mod m { use super::B; }\nuse crate::b::B;"), ("b/x.rs", "use crate::a::A;")], 2),
        ]);
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
