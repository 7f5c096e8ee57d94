//! A run of a benchmark, with its environment: shown as a table, stored as JSON.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use xbond_tests::figures::{Figure, Measured, Target};

use super::Options;
use xtask_common::machine;

/// Relative to the checkout.
pub const DIRECTORY: &str = "docs/bench";

/// One run of one benchmark.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// hotpath, host, forward, agent, failover.
    pub verb: String,
    /// The command that repeats the run.
    pub command: String,
    /// UTC.
    pub date: String,
    /// `git describe` of the sources.
    pub source: String,
    pub kernel: String,
    pub cpu: String,
    pub cpus: usize,
    /// Whether the CPU is emulated: only ratios within one run are meaningful then.
    #[serde(default)]
    pub emulated: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    #[serde(flatten)]
    pub measured: Measured,
}

impl Run {
    /// Creates a run of this machine, at this time.
    ///
    /// # Errors
    /// The kernel's version or the CPU cannot be read.
    pub fn here(verb: &str, options: &Options, measured: Measured) -> Result<Self> {
        let uname = nix::sys::utsname::uname().context("uname")?;
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Ok(Self {
            verb: verb.to_owned(),
            command: format!("cargo xtask bench {verb}{}", if options.quick { " --quick" } else { "" }),
            date: said("date", &["-u", "+%Y-%m-%d %H:%M"]),
            source: said("git", &["describe", "--always", "--dirty"]),
            kernel: uname.release().to_string_lossy().into_owned(),
            cpu: model.map_or("unknown", |(_, model)| model).to_owned(),
            cpus: std::thread::available_parallelism().map_or(0, |count| count.get()),
            emulated: false,
            note: options.note.clone(),
            measured,
        })
    }

    /// Marks the run as one of an emulated machine with this kernel, which has no targets.
    #[must_use]
    pub fn in_guest(mut self, kernel: String) -> Self {
        self.measured.figures.iter_mut().for_each(|figure| figure.target = None);
        let command = format!("{} --vm --kernel {kernel}", self.command);
        Self { kernel, command, cpu: String::from("QEMU, TCG"), cpus: 2, emulated: true, ..self }
    }

    /// Prints the run, and stores it unless it was a quick one.
    ///
    /// # Errors
    /// The file of the runs cannot be read or written.
    pub fn conclude(&self, options: &Options) -> Result<()> {
        println!("\n{}", self.heading());
        for (group, figures) in self.groups() {
            println!("{group}");
            for figure in figures {
                println!("  {}", line(figure));
            }
        }
        if !options.quick {
            let path = machine::root().join(DIRECTORY).join(format!("{}.json", self.file()));
            self.keep_in(&path)?;
            println!("kept in {DIRECTORY}/{}.json", self.file());
        }
        write_json(options.json.as_deref(), std::slice::from_ref(self))
    }

    pub fn heading(&self) -> String {
        let emulated = if self.emulated { ", emulated" } else { "" };
        format!(
            "`{}`, Linux {}, {} × {}{emulated}, {} UTC, {}",
            self.command, self.kernel, self.cpus, self.cpu, self.date, self.source
        )
    }

    /// Returns the groups, in the order of measuring.
    pub fn groups(&self) -> Vec<(&str, Vec<&Figure>)> {
        let mut groups: Vec<(&str, Vec<&Figure>)> = Vec::new();
        for figure in &self.measured.figures {
            match groups.iter_mut().find(|(group, _)| *group == figure.group) {
                Some((_, figures)) => figures.push(figure),
                None => groups.push((&figure.group, vec![figure])),
            }
        }
        groups
    }

    pub fn missed(&self) -> impl Iterator<Item = &Figure> {
        self.measured.figures.iter().filter(|figure| figure.is_reached() == Some(false))
    }

    /// Returns the name of its file; emulated machines have files of their own.
    fn file(&self) -> String {
        if self.emulated { format!("{}-vm", self.verb) } else { self.verb.clone() }
    }

    /// Replaces the run in a file, and adds a row to the history next to the file.
    fn keep_in(&self, path: &Path) -> Result<()> {
        let directory = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        if path.exists() {
            read(path)?;
        }
        let history = directory.join(HISTORY);
        let mut rows = fs::read_to_string(&history).unwrap_or_else(|_| HEAD.to_owned());
        rows.push_str(&self.row());
        fs::write(&history, rows).with_context(|| format!("cannot write {}", history.display()))?;
        write_json(Some(path), std::slice::from_ref(self))
    }

    /// Returns the row that stays in the history when another run replaces this one.
    fn row(&self) -> String {
        let Self { command, date, source, kernel, note, measured, .. } = self;
        let targets = measured.figures.iter().filter(|figure| figure.target.is_some()).count();
        let (missed, note) = (self.missed().count(), note.as_deref().unwrap_or_default());
        format!("| {date} | `{command}` | {source} | {kernel} | {targets} | {missed} | {note} |\n")
    }
}

/// The history of all files, oldest run first.
const HISTORY: &str = "history.md";
const HEAD: &str = "# Runs of the benchmarks\n\nThe last run of each is in a file next to this one.\n\n\
                    | UTC | command | source | kernel | targets | missed | note |\n|---|---|---|---|--:|--:|---|\n";

/// Reads the runs in a file: one, unless the file was merged.
///
/// # Errors
/// The file cannot be read, or holds no runs.
pub fn read(path: &Path) -> Result<Vec<Run>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no runs of benchmarks", path.display()))
}

/// Reads every file of the directory, by its name.
///
/// # Errors
/// The directory cannot be listed, or a file holds no runs.
pub fn read_all() -> Result<BTreeMap<String, Vec<Run>>> {
    let directory = machine::root().join(DIRECTORY);
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let files: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect();
    let name =
        |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    files.iter().map(|path| Ok((name(path), read(path)?))).collect()
}

/// Writes runs; does nothing without a path.
///
/// # Errors
/// The file cannot be written.
pub fn write_json(path: Option<&Path>, runs: &[Run]) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let runs: Vec<_> = runs.iter().map(lines).collect::<Result<_>>()?;
    fs::write(path, format!("[{}]\n", runs.join(",")))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Formats a run as JSON with a line for each figure, timeline and distribution.
fn lines(run: &Run) -> Result<String> {
    let serde_json::Value::Object(parts) = serde_json::to_value(run)? else {
        anyhow::bail!("a run is no object")
    };
    let part = |(key, value): (String, serde_json::Value)| match value {
        serde_json::Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| format!("\n{item}")).collect();
            format!("\n\"{key}\":[{}\n]", items.join(","))
        }
        value => format!("\n\"{key}\":{value}"),
    };
    let parts: Vec<_> = parts.into_iter().map(part).collect();
    Ok(format!("{{{}\n}}", parts.join(",")))
}

fn line(figure: &Figure) -> String {
    let Figure { name, unit, .. } = figure;
    let spread = if figure.rounds > 1 {
        format!(" ({} to {})", number(figure.low), number(figure.high))
    } else {
        String::new()
    };
    let verdict = match (figure.target, figure.is_reached()) {
        (Some(target), Some(reached)) => {
            format!("  {} {}", if reached { "reached:" } else { "MISSED:" }, words(target))
        }
        _ => String::new(),
    };
    format!("{name:<36} {:>12} {unit}{spread}{verdict}", number(figure.value))
}

pub fn words(target: Target) -> String {
    match target {
        Target::AtMost(most) => format!("at most {}", number(most)),
        Target::AtLeast(least) => format!("at least {}", number(least)),
    }
}

/// Formats a value with three or four significant digits.
pub fn number(value: f64) -> String {
    match value.abs() {
        v if v == v.trunc() && v < 1e6 => format!("{value:.0}"),
        v if v < 2.0 => format!("{value:.3}"),
        v if v < 100.0 => format!("{value:.1}"),
        v if v < 1e6 => format!("{value:.0}"),
        _ => format!("{:.2} million", value / 1e6),
    }
}

/// Returns the first line that a command prints; empty if the command cannot be run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = machine::command(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(figures: Vec<Figure>) -> Run {
        let mut run =
            Run::here("hotpath", &Options::default(), Measured { figures, ..Measured::default() }).unwrap();
        run.note = Some("first".into());
        run
    }

    #[test]
    fn the_last_run_is_kept_whole_and_every_run_as_a_row() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bench/hotpath.json");
        let figure = Figure::of("g", "n", "ns", &[1.0, 2.0, 3.0]).with_target(Target::AtMost(1.5));
        run(vec![]).keep_in(&path).unwrap();
        run(vec![figure.clone()]).keep_in(&path).unwrap();
        let runs = read(&path).unwrap();
        assert_eq!((runs.len(), runs[0].missed().count()), (1, 1));
        assert_eq!(runs[0].measured.figures, [figure]);
        let history = fs::read_to_string(path.with_file_name(HISTORY)).unwrap();
        let rows: Vec<_> = history.lines().filter(|line| line.contains("bench hotpath")).collect();
        assert!(
            rows[0].ends_with("| 0 | 0 | first |") && rows[1].ends_with("| 1 | 1 | first |"),
            "{history}"
        );
    }

    #[test]
    fn a_file_that_is_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hotpath.json");
        fs::write(&path, "[{}]").unwrap();
        let error = format!("{:#}", run(vec![]).keep_in(&path).unwrap_err());
        assert!(error.contains("hotpath.json holds no runs"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "[{}]");
    }

    #[test]
    fn numbers_are_short() {
        let table = [
            (0.0, "0"),
            (1958.0, "1958"),
            (0.957_3, "0.957"),
            (7.84, "7.8"),
            (683_656.7, "683657"),
            (2_913_000.0, "2.91 million"),
        ];
        for (value, text) in table {
            assert_eq!(number(value), text);
        }
    }
}
