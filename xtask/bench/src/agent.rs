//! `cargo xtask bench agent`: runs bond-core's benchmark of its engine, by divan.

use anyhow::{Context as _, Result, ensure};
use xbond_tests::figures::{Figure, Measured};

use super::{Options, Run, conclude};
use xtask_common::machine;

/// divan's columns after the name.
const MEDIAN: usize = 2;

/// Measures the engine with divan.
///
/// # Errors
/// The benchmark does not build or fails, or prints no table of divan's.
pub fn run(options: &Options) -> Result<Run> {
    let mut cargo = machine::cargo();
    cargo.args(["bench", "--package", "bond-core", "--bench", "engine", "--"]);
    // divan's own quick mode runs everything once.
    cargo.args(options.quick.then_some("--test"));
    let output = cargo.stderr(std::process::Stdio::inherit()).output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "`cargo bench --bench engine`: {}\n{text}", output.status);
    let figures = parse(&text);
    ensure!(options.quick || !figures.is_empty(), "divan's table is not as it is known:\n{text}");
    conclude("agent", options, Measured { figures, ..Measured::default() })
}

/// Parses the output. A line without columns is the name of the group of the lines below it, which have numbers of
/// slaves.
fn parse(text: &str) -> Vec<Figure> {
    let mut of = "";
    let mut figures = Vec::new();
    for line in text.lines() {
        let is_branch = |character: char| " │├─╰".contains(character);
        let mut columns = line.trim_start_matches(is_branch).split('│').map(str::trim);
        let Some(first) = columns.next() else { continue };
        // The name precedes the first column, separated by several spaces.
        let (name, fastest) = first.split_once("  ").map_or((first, ""), |(name, rest)| (name, rest.trim()));
        let values: Vec<Option<f64>> = std::iter::once(fastest).chain(columns).map(nanoseconds).collect();
        match values.get(..=MEDIAN) {
            Some(&[Some(low), Some(high), Some(value)]) => {
                let group = format!("agent: {}", of.replace('_', " "));
                let figure = Figure::exact(&group, &format!("{name} slaves"), "ns", value);
                figures.push(Figure { low, high, ..figure });
            }
            _ => of = name,
        }
    }
    figures
}

/// Parses a time: `1.5 µs` is 1500.
fn nanoseconds(text: &str) -> Option<f64> {
    let (number, unit) = text.split_once(' ')?;
    let scale = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divans_table_is_read() {
        let text = "\
Timer precision: 20 ns
engine            fastest       │ slowest       │ median        │ mean          │ samples │ iters
├─ carrier_lost                 │               │               │               │         │
│  ├─ 2           512.4 ns      │ 1.412 µs      │ 540 ns        │ 560.1 ns      │ 100     │ 3200
│  ╰─ 16          1.5 µs        │ 4.1 µs        │ 1.7 µs        │ 1.8 µs        │ 100     │ 800
╰─ nothing_new                  │               │               │               │         │
   ╰─ 2           10 ns         │ 20 ns         │ 11.5 ns       │ 12 ns         │ 100     │ 6400
";
        let read: Vec<_> = parse(text);
        let read: Vec<_> =
            read.iter().map(|f| (f.group.as_str(), f.name.as_str(), f.value, f.high)).collect();
        assert_eq!(
            read,
            [
                ("agent: carrier lost", "2 slaves", 540.0, 1412.0),
                ("agent: carrier lost", "16 slaves", 1700.0, 4100.0),
                ("agent: nothing new", "2 slaves", 11.5, 20.0),
            ]
        );
    }
}
