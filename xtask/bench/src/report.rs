//! `cargo xtask bench report`: writes tables and plots into docs/BENCHMARKS.md.
//!
//! The text of that page is written manually. The parts between `<!-- bench:NAME -->` and `<!-- end -->` are
//! generated from docs/bench/NAME.json.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use xbond_tests::figures::{Figure, Timeline};

use super::{
    plot::{self, Bars},
    record::{self, DIRECTORY, Run},
};
use xtask_common::machine;

const PAGE: &str = "docs/BENCHMARKS.md";
const BEGIN: &str = "<!-- bench:";
const END: &str = "<!-- end -->";

/// The runs in each file.
type Runs = BTreeMap<String, Vec<Run>>;

/// Draws docs/BENCHMARKS.md and its figures from the stored runs.
///
/// # Errors
/// The page or a run cannot be read, or the page cannot be written.
pub fn run() -> Result<ExitCode> {
    let runs = record::read_all()?;
    let path = machine::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let directory = machine::root().join(DIRECTORY);
    let page = fill(&page, |name| section(name, &runs, &directory))?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    println!("{PAGE} drawn");
    Ok(ExitCode::SUCCESS)
}

/// Returns the page with the text between its marks replaced by `section(NAME)`.
fn fill(page: &str, section: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut filled = String::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(" -->\n").context("a mark in the page that does not end")?;
        let (_, after) = after.split_once(END).with_context(|| format!("no `{END}` after bench:{name}"))?;
        write!(filled, "{before}{BEGIN}{name} -->\n{}{END}", section(name)?)?;
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Returns the section of one file's run.
fn section(name: &str, runs: &Runs, directory: &Path) -> Result<String> {
    let Some(runs) = runs.get(name).filter(|runs| !runs.is_empty()) else {
        return Ok(String::from("Not measured yet.\n"));
    };
    let last = runs.last().context("no run")?;
    let mut text = format!("{}\n\n", last.heading());
    for (plot, alternative) in plots(name, last, directory)? {
        writeln!(text, "![{alternative}](bench/{plot})\n")?;
    }
    for (group, figures) in last.groups() {
        text.push_str(&table(group, &figures));
    }
    Ok(text)
}

/// A table with more columns is too wide to read.
const COLUMNS: usize = 12;

/// Formats the figures of one group: a row for each name, a column for each unit; transposed if that is too wide.
fn table(group: &str, figures: &[&Figure]) -> String {
    let mut units: Vec<&str> = Vec::new();
    let mut names: Vec<&str> = Vec::new();
    for figure in figures {
        if !units.contains(&figure.unit.as_str()) {
            units.push(&figure.unit);
        }
        if !names.contains(&figure.name.as_str()) {
            names.push(&figure.name);
        }
    }
    let find = |name: &str, unit: &str| {
        let found = figures.iter().find(|figure| figure.name == name && figure.unit == unit);
        found.map_or_else(String::new, |figure| cell(figure))
    };
    if units.len() > COLUMNS {
        grid(group, &units, &names, |unit, name| find(name, unit))
    } else {
        grid(group, &names, &units, find)
    }
}

fn grid(corner: &str, rows: &[&str], columns: &[&str], cell: impl Fn(&str, &str) -> String) -> String {
    let mut text = format!("| {corner} | {} |\n|---|{}\n", columns.join(" | "), "--:|".repeat(columns.len()));
    for row in rows {
        let cells: Vec<_> = columns.iter().map(|column| cell(row, column)).collect();
        text.push_str(&format!("| {row} | {} |\n", cells.join(" | ")));
    }
    text.push('\n');
    text
}

fn cell(figure: &Figure) -> String {
    let value = record::number(figure.value);
    match (figure.target, figure.is_reached()) {
        (Some(target), Some(false)) => format!("**{value}** (not {})", record::words(target)),
        _ => value,
    }
}

/// Draws the plots of a run; returns file names and alternative texts.
fn plots(file: &str, run: &Run, directory: &Path) -> Result<Vec<(String, &'static str)>> {
    let mut drawn = Vec::new();
    let mut draw = |name: String, alternative, draw: &dyn Fn(&Path) -> Result<()>| -> Result<()> {
        draw(&directory.join(&name))?;
        drawn.push((name, alternative));
        Ok(())
    };
    let side_by_side = |unit: &str| -> Vec<Bars> {
        let groups = run.groups().into_iter();
        let bars = groups.map(|(group, figures)| Bars {
            label: group.split_once(": ").map_or(group, |(_, label)| label).to_owned(),
            bars: figures
                .iter()
                .filter(|figure| figure.unit == unit)
                .map(|figure| (figure.name.clone(), figure.value))
                .collect(),
        });
        bars.filter(|group| !group.bars.is_empty()).collect()
    };
    let wanted: &[(&str, &str)] = match run.verb.as_str() {
        "host" => &[("Gbit/s", "TCP"), ("packets/s", "UDP"), ("us", "Latency")],
        "forward" => &[("packets/s", "Forwarding")],
        _ => &[],
    };
    for (unit, what) in wanted {
        let groups = side_by_side(unit);
        ensure!(!groups.is_empty(), "{file}.json has no figures in {unit}");
        let title = if file.ends_with("-vm") {
            format!("{what}, {unit}, emulated")
        } else {
            format!("{what}, {unit}")
        };
        draw(format!("{file}-{what}.svg").to_lowercase(), "side by side", &|path| {
            plot::bars(path, &title, unit, &groups)
        })?;
    }
    let measured = &run.measured;
    for (number, (event, lines)) in by_event(&measured.timelines).into_iter().enumerate() {
        let name = if number == 0 { String::new() } else { format!("-{}", number + 1) };
        draw(format!("{file}-timeline{name}.svg"), "packets received around a failover", &|path| {
            plot::timelines(path, &format!("{event}: packets received"), &lines)
        })?;
    }
    if let Some(first) = measured.distributions.first() {
        draw(format!("{file}-gaps.svg"), "the distribution of gaps", &|path| {
            plot::distributions(path, "Gaps of failovers", &first.unit, &measured.distributions)
        })?;
    }
    Ok(drawn)
}

/// Returns the lines of each plot: those whose name has the same event before a colon are compared.
fn by_event(timelines: &[Timeline]) -> Vec<(&str, Vec<Timeline>)> {
    let mut events: Vec<(&str, Vec<Timeline>)> = Vec::new();
    for line in timelines {
        let (event, name) = line.name.split_once(": ").unwrap_or(("A failover", &line.name));
        let line = Timeline { name: name.to_owned(), ..line.clone() };
        match events.iter_mut().find(|(known, _)| *known == event) {
            Some((_, lines)) => lines.push(line),
            None => events.push((event, vec![line])),
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use xbond_tests::figures::{Distribution, Measured, Target};

    fn run(verb: &str, measured: Measured) -> Run {
        Run::here(verb, &super::super::Options::default(), measured).unwrap()
    }

    #[test]
    fn only_text_between_marks_is_replaced() {
        let page = "a\n<!-- bench:x -->\nold\n<!-- end -->\nb\n<!-- bench:y -->\n<!-- end -->\nc\n";
        let filled = fill(page, |name| Ok(format!("new {name}\n"))).unwrap();
        let expected =
            "a\n<!-- bench:x -->\nnew x\n<!-- end -->\nb\n<!-- bench:y -->\nnew y\n<!-- end -->\nc\n";
        assert_eq!(filled, expected);
        assert_eq!(fill(&filled, |name| Ok(format!("new {name}\n"))).unwrap(), filled);
        assert!(fill("<!-- bench:x -->\n", |_| Ok(String::new())).is_err());
    }

    #[test]
    fn a_table_has_a_row_for_each_name_and_a_column_for_each_unit() {
        let figures = [
            Figure::exact("g", "slave", "Gbit/s", 16.0),
            Figure::exact("g", "tc", "Gbit/s", 15.0),
            Figure::exact("g", "tc", "of the slave", 0.94).with_target(Target::AtLeast(0.96)),
        ];
        let text = table("g", &figures.iter().collect::<Vec<_>>());
        let expected = "| g | Gbit/s | of the slave |\n|---|--:|--:|\n| slave | 16 |  |\n\
             | tc | 15 | **0.940** (not at least 0.960) |\n\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn timelines_of_one_event_are_in_one_plot() {
        let named =
            |name: &str| Timeline { name: name.into(), from_ms: 0.0, bucket_ms: 1.0, packets: vec![1] };
        let lines = ["cut: driver", "silent: driver", "cut: xbond"].map(named);
        let names = |lines: &[Timeline]| lines.iter().map(|line| line.name.clone()).collect::<Vec<_>>();
        let events = by_event(&lines);
        let events: Vec<_> = events.iter().map(|(event, lines)| (*event, names(lines))).collect();
        assert_eq!(
            events,
            [("cut", names(&["driver", "xbond"].map(named))), ("silent", vec!["driver".into()])]
        );
        assert_eq!(by_event(&[named("tc, active")])[0].0, "A failover");
    }

    #[test]
    fn failovers_are_drawn_with_their_timeline_and_gaps() {
        let directory = tempfile::tempdir().unwrap();
        let timeline = Timeline { name: "tc".into(), from_ms: -1.0, bucket_ms: 1.0, packets: vec![3, 0, 3] };
        let gaps = Distribution { name: "tc, none".into(), unit: "ms".into(), values: vec![0.1, 0.2] };
        let measured =
            Measured { timelines: vec![timeline], distributions: vec![gaps], ..Measured::default() };
        let runs = Runs::from([("failover".to_owned(), vec![run("failover", measured)])]);
        let text = section("failover", &runs, directory.path()).unwrap();
        for name in ["failover-timeline.svg", "failover-gaps.svg"] {
            assert!(text.contains(name) && directory.path().join(name).exists(), "{text}");
        }
        assert_eq!(section("host", &runs, directory.path()).unwrap(), "Not measured yet.\n");
    }
}
