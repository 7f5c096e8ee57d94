//! `cargo xtask tidy`: checks rules that a reviewer should not have to check.

mod modules;
mod outline;
mod shape;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use xtask_common::{machine, parity, setup};

use crate::dependencies;

/// Paths that the code below a directory must not use, and why.
struct Rule {
    directory: &'static str,
    /// Files in it that may.
    except: &'static [&'static str],
    forbidden: &'static [&'static str],
    reason: &'static str,
}

const RULES: [Rule; 12] = [
    Rule {
        directory: "bond-core/src",
        except: &[],
        forbidden: &[
            "std::time::Instant",
            "std::time::SystemTime",
            "std::fs",
            "std::process",
            "std::thread",
            "std::net::TcpListener",
            "std::net::TcpStream",
            "std::net::UdpSocket",
            "std::os",
            "aya",
            "nix",
            "rtnetlink",
            "tokio",
            "tracing",
            "print!",
            "println!",
            "eprint!",
            "eprintln!",
            "dbg!",
        ],
        reason: "the engine is pure: time is an argument, effects are commands",
    },
    Rule {
        directory: "bond-core/src",
        except: &[],
        forbidden: &["bond_user"],
        reason: "the engine knows nothing of what is built on it",
    },
    Rule {
        directory: "bond-user/src/sys",
        except: &[],
        forbidden: &[
            "crate::agent",
            "crate::api",
            "crate::cli",
            "crate::config",
            "crate::report",
            "crate::store",
        ],
        reason: "sys is the lowest layer: effects know nothing of those that use them",
    },
    Rule {
        directory: "bond-user/src/config",
        except: &[],
        forbidden: &["crate::agent", "crate::api", "crate::cli", "crate::report", "crate::store"],
        reason: "a configuration knows sys only: it is read without an agent",
    },
    Rule {
        directory: "bond-user/src/report",
        except: &[],
        forbidden: &["crate::agent", "crate::api", "crate::cli", "crate::config", "crate::store"],
        reason: "a report knows sys only: others fill it",
    },
    Rule {
        directory: "bond-user/src/report/wording",
        except: &[],
        forbidden: &[
            "crate::report::json",
            "crate::report::lines",
            "crate::report::metrics",
            "crate::report::text",
        ],
        reason: "sentences lie below the forms in which they leave the program",
    },
    Rule {
        directory: "bond-user/src/store",
        except: &[],
        forbidden: &["crate::agent", "crate::api", "crate::cli", "crate::config"],
        reason: "the store lies below the agent, which writes it, and the command line, which reads it",
    },
    Rule {
        directory: "bond-user/src/api",
        except: &[],
        forbidden: &[
            "crate::agent",
            "crate::cli",
            "crate::config",
            "crate::report",
            "crate::store",
            "crate::sys",
        ],
        reason: "what client and server agree about depends on neither, nor on how it is done",
    },
    Rule {
        directory: "bond-user/src/cli",
        except: &["bond-user/src/cli/run.rs"],
        forbidden: &["crate::agent"],
        reason: "the command line knows the agent as the other end of the API; only `run` starts one",
    },
    Rule {
        directory: "bond-user/src/agent",
        except: &[],
        forbidden: &["crate::cli"],
        reason: "the command line runs the agent, not the reverse",
    },
    Rule {
        directory: "bond-common/src",
        except: &[],
        forbidden: &["bond_user", "bond_ebpf", "aya_ebpf", "tokio", "libc"],
        reason: "what kernel and user space share depends on neither",
    },
    Rule {
        directory: "bond-ebpf/src",
        except: &[],
        forbidden: &["bond_user", "aya"],
        reason: "the data plane knows only what is shared",
    },
];

/// Directories of the project's Rust code.
const SOURCES: [&str; 8] =
    ["bond-common", "bond-core", "bond-ebpf", "bond-user", "fuzz", "tests", "xbond-follow", "xtask"];

/// Checks the rules of the source files, the format and the lints.
///
/// # Errors
/// A file cannot be read or is not Rust, or cargo cannot be run. A broken rule gives exit code 1.
pub fn run() -> Result<ExitCode> {
    setup::ensure()?;
    let mut files = Vec::new();
    for file in SOURCES.iter().flat_map(|directory| rust_files(&machine::root().join(directory))) {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        files.push((file.strip_prefix(machine::root()).unwrap_or(&file).to_owned(), text));
    }
    let files: Vec<(&Path, &str)> =
        files.iter().map(|(name, text)| (name.as_path(), text.as_str())).collect();
    let mut complaints = Vec::new();
    let mut imports = Vec::new();
    for (name, text) in &files {
        let code = Code::of(text).with_context(|| format!("cannot parse {}", name.display()))?;
        let found = inspect(name, text, &code);
        complaints.extend(found.into_iter().map(|(line, what)| format!("{}:{line}: {what}", name.display())));
        imports.push((*name, code));
    }
    complaints.extend(modules::complaints(&imports));
    complaints.extend(shape::complaints(&files)?);
    complaints.extend(parity::complaints(&files)?);
    for complaint in &complaints {
        println!("{complaint}");
    }
    let mut tidy = complaints.is_empty();
    for arguments in [
        &["fmt", "--all", "--check"][..],
        // The simulator has the product's libraries with their fakes in them: it is checked by itself.
        &[
            "clippy",
            "--workspace",
            "--exclude",
            "xbond-simulator",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
        &["clippy", "--package", "xbond-simulator", "--all-targets", "--quiet", "--", "-D", "warnings"],
    ] {
        tidy &= machine::run(machine::cargo().args(arguments))?.success();
    }
    setup::ensure_bpf_clippy()?;
    tidy &= machine::run(&mut bpf_clippy(&setup::bpf_toolchain()))?.success();
    tidy &= dependencies::check()?;
    println!("{}", if tidy { "tidy" } else { "not tidy" });
    Ok(if tidy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the command that runs clippy on the BPF programs for their own target, with the compiler and the flags that
/// bond-user's build script uses. The run for the workspace does not reach the programs: for other targets their crate
/// is empty.
fn bpf_clippy(toolchain: &str) -> Command {
    let mut command = if Path::new(toolchain).is_absolute() {
        let bin = Path::new(toolchain).join("bin");
        // Called directly: cargo looks for its subcommands in ~/.cargo/bin first, which has rustup's clippy.
        let mut command = Command::new(bin.join("cargo-clippy"));
        command.arg("clippy").env("CARGO", bin.join("cargo")).env("RUSTC", bin.join("rustc"));
        // A stable compiler, which has to let these crates use nightly features.
        command.env("RUSTC_BOOTSTRAP", "aya_ebpf,bond_ebpf");
        command
    } else {
        let mut command = machine::command("rustup");
        command.args(["run", toolchain, "cargo", "clippy", "-Z", "build-std=core"]);
        command.env_remove("CARGO").env_remove("RUSTC");
        command
    };
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| machine::root().join("target"), PathBuf::from);
    command.current_dir(machine::root()).env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("RUSTFLAGS");
    command.env("CARGO_ENCODED_RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH));
    command.args(["--package", "bond-ebpf", "--bins", "--quiet", "--target", "bpfel-unknown-none"]);
    command.arg("--target-dir").arg(target.join("bpf/clippy")).args(["--", "-D", "warnings"]);
    command
}

/// A line, counted from 1, and what is wrong there.
type Complaint = (usize, String);

fn inspect(name: &Path, text: &str, code: &Code) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let applies = |rule: &&Rule| {
        let is_excepted = rule.except.iter().any(|file| name == Path::new(file));
        name.starts_with(rule.directory) && !is_excepted && !is_of_tests(name)
    };
    let rules = RULES.iter().filter(applies);
    for rule in rules {
        for (line, path) in &code.paths {
            let path = absolute(name, path);
            if rule.forbidden.iter().any(|forbidden| covers(forbidden, &path)) {
                complaints.push((*line, format!("{path} in {}: {}", rule.directory, rule.reason)));
            }
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    for line in &code.unsafe_lines {
        if !is_explained(&lines, *line) {
            complaints.push((*line, String::from("unsafe without a SAFETY comment above it")));
        }
    }
    complaints
}

/// Returns a path of this file from the root of its crate.
fn absolute(name: &Path, path: &str) -> String {
    modules::module_of(name).map_or_else(|| path.to_owned(), |(_, module)| modules::absolute(&module, path))
}

/// Returns whether a file is a test module: tests.rs, or a file in tests/ of its crate. The library of the crate tests is
/// none.
fn is_of_tests(name: &Path) -> bool {
    name.with_extension("").components().skip(1).any(|part| part.as_os_str() == "tests")
}

/// Returns whether `path` is `forbidden`, is below it, or includes it with a glob.
fn covers(forbidden: &str, path: &str) -> bool {
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    within(forbidden, path) || path.strip_suffix("::*").is_some_and(|module| within(module, forbidden))
}

/// The relevant parts of a file's code. Test modules are excluded from the paths.
#[derive(Default)]
struct Code {
    /// Paths of two and more names, names in `use`, and macros with their `!`. Those that begin with `self` or `super` are
    /// relative to the file's module, also if they are in a module inside the file.
    paths: Vec<(usize, String)>,
    /// The names that `use` gives the file's module, with their paths.
    names: BTreeMap<String, String>,
    /// Lines of unsafe blocks and unsafe impls.
    unsafe_lines: Vec<usize>,
    /// The module inside the file in which the walk is.
    inside: Vec<String>,
    /// The number of groups around the walk, those of a `use` excepted.
    depth: usize,
    in_tests: bool,
}

impl Code {
    /// Reads a file's text.
    ///
    /// # Errors
    /// The text is not Rust.
    fn of(text: &str) -> Result<Self> {
        let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{error}"))?;
        let mut code = Self::default();
        code.walk(tokens, &[]);
        Ok(code)
    }

    /// Collects the paths in `tokens`; `prefix` is the path before their braces in a `use`.
    fn walk(&mut self, tokens: TokenStream, prefix: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut place = 0;
        let (mut in_use, mut tests_next) = (!prefix.is_empty(), false);
        while let Some(token) = tokens.get(place) {
            match token {
                TokenTree::Ident(ident) => {
                    let line = ident.span().start().line;
                    if ident == "unsafe" && starts_unsafe_code(tokens.get(place + 1)) {
                        self.unsafe_lines.push(line);
                    }
                    if ident == "use" {
                        in_use = true;
                        place += 1;
                        continue;
                    }
                    if let Some((name, body)) = inline_module(&tokens[place..]) {
                        let outside = self.in_tests;
                        self.in_tests |= std::mem::take(&mut tests_next);
                        self.inside.push(name);
                        self.walk_group(body);
                        self.inside.pop();
                        self.in_tests = outside;
                        place += 3;
                        continue;
                    }
                    let outside = self.in_tests;
                    self.in_tests |= tests_next;
                    place = self.path(&tokens, place, prefix, in_use);
                    self.in_tests = outside;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ';' => (in_use, tests_next) = (false, false),
                TokenTree::Group(group) => {
                    let is_attribute = group.delimiter() == Delimiter::Bracket;
                    if is_attribute && group.stream().to_string().replace(' ', "") == "cfg(test)" {
                        tests_next = true;
                    } else {
                        let outside = self.in_tests;
                        self.in_tests |= tests_next;
                        self.walk_group(group);
                        self.in_tests = outside;
                        if group.delimiter() == Delimiter::Brace {
                            tests_next = false;
                        }
                    }
                }
                _ => {}
            }
            place += 1;
        }
    }

    fn walk_group(&mut self, group: &Group) {
        self.depth += 1;
        self.walk(group.stream(), &[]);
        self.depth -= 1;
    }

    /// Reads the path that begins at `place`; returns the index after it, and after its new name in a `use`.
    fn path(&mut self, tokens: &[TokenTree], mut place: usize, prefix: &[String], in_use: bool) -> usize {
        let line = tokens[place].span().start().line;
        let mut path = prefix.to_vec();
        path.push(tokens[place].to_string());
        place += 1;
        while is_colon(tokens.get(place)) && is_colon(tokens.get(place + 1)) {
            match tokens.get(place + 2) {
                Some(TokenTree::Ident(ident)) => path.push(ident.to_string()),
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => path.push(String::from("*")),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.walk(group.stream(), &path);
                    return place + 3;
                }
                _ => break,
            }
            place += 3;
        }
        let new_name = match (tokens.get(place), tokens.get(place + 1)) {
            (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(name))) if in_use && word == "as" => {
                place += 2;
                Some(name.to_string())
            }
            _ => None,
        };
        if in_use && path.len() > 1 && path.last().is_some_and(|last| last == "self") {
            path.pop();
        }
        let is_macro = matches!(tokens.get(place), Some(TokenTree::Punct(punct)) if punct.as_char() == '!');
        if !self.in_tests {
            let path = from_file(&self.inside, path);
            if is_macro {
                self.paths.push((line, format!("{}!", path.join("::"))));
            }
            if in_use && self.depth == 0 {
                let name = new_name.or_else(|| path.last().cloned()).unwrap_or_default();
                self.names.insert(name, path.join("::"));
            }
            if path.len() > 1 || in_use {
                self.paths.push((line, path.join("::")));
            }
        }
        place
    }
}

/// Returns the name and the body of a module inside the file if these tokens begin with one.
fn inline_module(tokens: &[TokenTree]) -> Option<(String, &Group)> {
    match tokens {
        [TokenTree::Ident(keyword), TokenTree::Ident(name), TokenTree::Group(body), ..]
            if keyword == "mod" =>
        {
            Some((name.to_string(), body))
        }
        _ => None,
    }
}

/// Returns a path that is relative to this module inside a file as one that is relative to the file's module.
fn from_file(inside: &[String], mut path: Vec<String>) -> Vec<String> {
    let is_relative = path.first().is_some_and(|first| first == "self" || first == "super");
    if inside.is_empty() || !is_relative {
        return path;
    }
    if path[0] == "self" {
        path.remove(0);
    }
    let above = path.iter().take_while(|name| *name == "super").count();
    if above > inside.len() {
        // Out of the file: the levels inside it are used up.
        return path.split_off(inside.len());
    }
    let own = std::iter::once("self".to_owned()).chain(inside[..inside.len() - above].iter().cloned());
    own.chain(path.split_off(above)).collect()
}

fn is_colon(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':')
}

/// Returns whether a block or an impl follows `unsafe`. Functions and foreign items have their requirements in their
/// docs.
fn starts_unsafe_code(next: Option<&TokenTree>) -> bool {
    match next {
        Some(TokenTree::Group(group)) => group.delimiter() == Delimiter::Brace,
        Some(TokenTree::Ident(ident)) => ident == "impl",
        _ => false,
    }
}

/// Returns whether the statement on this line has a SAFETY comment in it or directly above.
fn is_explained(lines: &[&str], line: usize) -> bool {
    let own = lines.get(line - 1).copied().unwrap_or_default();
    let above = lines[..line - 1].iter().rev().map(|line| line.trim());
    let of_statement = above.take_while(|line| {
        line.starts_with("//")
            || line.starts_with("#[")
            || !(line.is_empty() || line.ends_with([';', '{', '}']))
    });
    std::iter::once(own).chain(of_statement).any(|line| line.contains("SAFETY:"))
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(name: &str, text: &str) -> Vec<usize> {
        let code = Code::of(text).unwrap();
        inspect(Path::new(name), text, &code).into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn the_engine_may_not_read_clocks_do_io_or_know_its_users() {
        let engine = "bond-core/src/engine/link_state.rs";
        let table: [(&str, &[usize]); 15] = [
            ("use std::time::Duration;", &[]),
            ("use std::time::Instant;", &[1]),
            ("use std::{\n    fmt,\n    time::{Duration, Instant},\n};", &[3]),
            ("use std::time::*;", &[1]),
            ("fn f() {\n    std::fs::read(p);\n}", &[2]),
            ("fn f() { println!(\"x\") }", &[1]),
            ("use tokio;", &[1]),
            ("fn f(tokio: u8) -> u8 { tokio }", &[]),
            ("use crate::event::Event;", &[]),
            ("use bond_user::{config, sys::netlink};", &[1, 1]),
            ("// std::fs::read\nconst TEXT: &str = \"std::fs::read\";", &[]),
            ("use std::net::Ipv4Addr;", &[]),
            ("#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\nuse std::fs;", &[5]),
            ("use tracing_like::x;", &[]),
            ("#[cfg(test)]\nuse std::fs;\nuse std::thread;", &[3]),
        ];
        for (text, expected) in table {
            assert_eq!(lines(engine, text), expected, "{text}");
        }
        for elsewhere in ["bond-user/src/agent/bond/engine_thread.rs", "bond-core/src/tests/lab.rs"] {
            assert_eq!(lines(elsewhere, "use std::time::Instant;"), [0; 0], "{elsewhere}");
        }
    }

    #[test]
    fn imports_point_down() {
        let table: [(&str, &str, &[usize]); 19] = [
            ("sys/netns.rs", "use crate::config::Config;", &[1]),
            ("sys/netns.rs", "use super::super::config;", &[1]),
            ("sys/netns.rs", "use super::file;", &[]),
            ("sys/netns.rs", "use crate::{agent::bond, sys::file};", &[1]),
            ("config/mod.rs", "use crate::sys::file;", &[]),
            ("config/lint/mod.rs", "use crate::report::text;", &[1]),
            ("config/lint/mod.rs", "fn f() { crate::store::paths::lasting() }", &[1]),
            ("report/json.rs", "use crate::config::Config;", &[1]),
            ("report/json.rs", "use crate::sys::found;", &[]),
            ("store/paths.rs", "use crate::agent::AgentError;", &[1]),
            ("store/record/mod.rs", "use crate::agent::{AgentError, Outcome};", &[1, 1]),
            ("report/wording/mod.rs", "use crate::report::text::show;", &[1]),
            ("report/wording/mod.rs", "use crate::report::receipt::Receipt;", &[]),
            ("api/endpoint.rs", "use crate::report::json::Report;", &[1]),
            ("cli/show.rs", "use crate::agent::RunOptions;", &[1]),
            ("cli/run.rs", "use crate::agent::RunOptions;", &[]),
            ("cli/run.rs", "use crate::api::Route;", &[]),
            ("store/paths.rs", "use crate::report::json;", &[]),
            ("agent/mod.rs", "use crate::cli::output;", &[1]),
        ];
        for (file, text, expected) in table {
            assert_eq!(lines(&format!("bond-user/src/{file}"), text), expected, "{file}: {text}");
        }
    }

    #[test]
    fn unsafe_blocks_and_impls_need_their_comment() {
        let table: [(&str, &[usize]); 6] = [
            ("fn f() {\n    unsafe { g() }\n}", &[2]),
            ("fn f() {\n    // SAFETY: g may be called.\n    unsafe { g() }\n}", &[]),
            ("fn f() {\n    // SAFETY: g may be called.\n    let x =\n        unsafe { g() };\n}", &[]),
            ("fn f() {\n    // SAFETY: g may be called.\n    unsafe { g() };\n    unsafe { h() };\n}", &[4]),
            ("unsafe impl Send for X {}", &[1]),
            ("unsafe fn f() {}", &[]),
        ];
        for (text, expected) in table {
            assert_eq!(lines("bond-ebpf/src/maps.rs", text), expected, "{text}");
        }
    }
}
