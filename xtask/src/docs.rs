//! `cargo xtask docs`: builds the book with mdBook and the documentation of the crates with rustdoc, and checks the
//! links of both and of README.md. It makes the dashboard of packaging/grafana, too.

mod dashboard;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result, bail};

use xtask_common::machine;

/// The version that the book is built with.
const MDBOOK_VERSION: &str = "0.5.4";
const DIRECTORY: &str = "docs";

/// Builds the book into target/book and the documentation of the crates into target/doc. A warning of rustdoc, for
/// example about a link to an item that does not exist, is an error.
///
/// # Errors
/// A page cannot be read, or mdBook or rustdoc fails.
pub fn run() -> Result<ExitCode> {
    dashboard::write()?;
    let complaints = complaints()?;
    for complaint in &complaints {
        println!("{complaint}");
    }
    ensure_mdbook()?;
    machine::run_well(machine::command("mdbook").arg("build").arg(machine::root().join(DIRECTORY)))?;
    let rustdoc = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    // Private items are documented, too, so links to them lead somewhere.
    let flags = "-D warnings -A rustdoc::private_intra_doc_links";
    machine::run_well(machine::cargo().args(rustdoc).env("RUSTDOCFLAGS", flags))?;
    if !complaints.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    println!("the book is target/book/index.html");
    Ok(ExitCode::SUCCESS)
}

/// Installs mdBook if this machine has no mdBook of the pinned version.
fn ensure_mdbook() -> Result<()> {
    if has_mdbook() {
        return Ok(());
    }
    // Neither its web server nor its watcher is used; they account for most of its dependencies.
    machine::run_well(machine::cargo().args([
        "install",
        "mdbook",
        "--locked",
        "--version",
        MDBOOK_VERSION,
        "--no-default-features",
        "--features",
        "search",
    ]))?;
    if !has_mdbook() {
        bail!("mdbook {MDBOOK_VERSION} is still missing after the installation");
    }
    Ok(())
}

fn has_mdbook() -> bool {
    let output = machine::command("mdbook").arg("--version").output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).trim() == format!("mdbook v{MDBOOK_VERSION}")
    })
}

/// Returns what is wrong with the links of README.md and docs/, one line each: a file or a heading that does not
/// exist, or a page that SUMMARY.md does not list.
///
/// # Errors
/// A page cannot be read.
pub fn complaints() -> Result<Vec<String>> {
    let mut pages = HashMap::new();
    let names = pages_in(&machine::root().join(DIRECTORY))?;
    for path in names.into_iter().chain([machine::root().join("README.md")]) {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(machine::root()).unwrap_or(&path).to_owned();
        pages.insert(name, text);
    }
    let mut complaints = inspect(&pages, |path| machine::root().join(path).exists());
    complaints.sort();
    Ok(complaints)
}

fn pages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = Vec::new();
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            pages.extend(pages_in(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(pages)
}

/// Checks the links; `pages` are texts by their paths from the root, `exists` decides about other files.
fn inspect(pages: &HashMap<PathBuf, String>, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut listed = Vec::new();
    for (page, text) in pages {
        for (line, target) in links(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { page.clone() } else { resolve(page, file) };
            if page.ends_with("SUMMARY.md") {
                listed.push(file.clone());
            }
            let complaint = match pages.get(&file) {
                Some(text) if heading.is_empty() || headings(text).any(|known| known == heading) => continue,
                Some(_) => format!("{} has no heading #{heading}", file.display()),
                None if exists(&file) => continue,
                None => format!("{} does not exist", file.display()),
            };
            complaints.push(format!("{}:{line}: {complaint}", page.display()));
        }
    }
    let in_book = pages.keys().filter(|page| page.starts_with(DIRECTORY) && !page.ends_with("SUMMARY.md"));
    let missing = in_book.filter(|page| !listed.contains(page));
    complaints.extend(missing.map(|page| format!("{}: SUMMARY.md does not list it", page.display())));
    complaints
}

/// Returns the path of a link's target, from the root.
fn resolve(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().map(Path::to_owned).unwrap_or_default();
    for part in target.split('/') {
        match part {
            ".." => drop(path.pop()),
            "." => {}
            part => path.push(part),
        }
    }
    path
}

/// Returns the targets of the links outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (line, prose) in prose(text) {
        let mut rest = prose.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            links.push((line, target.to_owned()));
            rest = after;
        }
    }
    links
}

/// Returns the ids that GitHub and mdBook give to headings.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles =
        text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    titles.map(|title| {
        let kept = title.to_lowercase();
        let kept =
            kept.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_'));
        kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
    })
}

/// Returns the lines outside of code blocks, counted from 1, without the parts in backquotes.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut in_block = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            lines.push((index + 1, line.split('`').step_by(2).collect()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inspected(page: &str) -> Vec<String> {
        let pages = HashMap::from([
            (PathBuf::from("docs/SUMMARY.md"), "- [A](guide/a.md)\n".to_owned()),
            (PathBuf::from("docs/guide/a.md"), page.to_owned()),
        ]);
        inspect(&pages, |path| path == Path::new("LICENSE"))
    }

    #[test]
    fn links_to_files_and_headings_that_exist_are_accepted() {
        let page =
            "# Who may use it?\n[x](#who-may-use-it) [s](../SUMMARY.md) [l](../../LICENSE) [w](https://w)\n";
        assert_eq!(inspected(page), [""; 0]);
    }

    #[test]
    fn links_in_code_are_no_links() {
        assert_eq!(inspected("`[x](y.md)`\n```\n[x](y.md)\n```\n"), [""; 0]);
    }

    #[test]
    fn broken_links_are_reported_with_their_lines() {
        assert_eq!(inspected("\n[x](b.md)\n"), ["docs/guide/a.md:2: docs/guide/b.md does not exist"]);
        assert_eq!(inspected("[x](#b)\n"), ["docs/guide/a.md:1: docs/guide/a.md has no heading #b"]);
    }

    #[test]
    fn a_page_that_the_summary_lacks_is_reported() {
        let pages = HashMap::from([(PathBuf::from("docs/guide/b.md"), String::new())]);
        assert_eq!(inspect(&pages, |_| true), ["docs/guide/b.md: SUMMARY.md does not list it"]);
    }

    #[test]
    fn every_link_of_the_documents_leads_somewhere() {
        assert_eq!(complaints().unwrap(), [""; 0]);
    }
}
