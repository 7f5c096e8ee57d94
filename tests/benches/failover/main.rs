//! Measures the cost of failovers: links that are cut under traffic, announcements, planned switches, agents that are
//! killed, and one agent with many bonds.
//!
//! Arguments: `--quick` repeats each row a few times only, and fails if a bond does not recover, a packet is
//! duplicated, or a planned switch loses one; `--cuts N` sets the number of cuts for each row; `--only TEXT` omits
//! rows without this text in their group's or own name; `--drivers` measures other rows, which compare xbond with the
//! kernel's bonding driver.

mod announce;
mod compared;
mod cuts;
mod exit;
mod idle;
mod planned;
#[path = "../raw/mod.rs"]
mod raw;
mod row;
mod scale;

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use row::Row;
use xbond_tests::figures::Measured;

/// Cuts for each row.
const CUTS: usize = 50;
const QUICK_CUTS: usize = 3;

pub struct Options {
    quick: bool,
    cuts: usize,
    only: Option<String>,
    drivers: bool,
}

impl Options {
    fn parse() -> Result<Self> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
        let (quick, drivers) = (has("--quick"), has("--drivers"));
        let value = |key: &str| {
            let place = arguments.iter().position(|argument| argument == key)?;
            Some(arguments.get(place + 1).with_context(|| format!("{key} without a value")))
        };
        let cuts = value("--cuts").transpose()?.map(|text| text.parse().context("--cuts")).transpose()?;
        let cuts = cuts.unwrap_or(if quick { QUICK_CUTS } else { CUTS });
        ensure!(cuts > 0, "--cuts 0 measures nothing");
        Ok(Self { quick, cuts, only: value("--only").transpose()?.cloned(), drivers })
    }

    fn wants(&self, row: &Row) -> bool {
        self.only.as_ref().is_none_or(|only| format!("{}, {}", row.group, row.name).contains(only))
    }
}

/// Measures and fills a row.
type Measure = Box<dyn Fn(&mut Row, &Options) -> Result<()>>;

/// One row to be measured.
pub struct Scene {
    row: Row,
    measure: Measure,
}

impl Scene {
    fn new(group: &str, name: &str, measure: impl Fn(&mut Row, &Options) -> Result<()> + 'static) -> Self {
        Self { row: Row::new(group, name), measure: Box::new(measure) }
    }
}

fn main() -> Result<()> {
    if let Some(obstacle) = xbond_tests::obstacle() {
        bail!("this benchmark {obstacle}");
    }
    let options = Options::parse()?;
    let scenes = if options.drivers {
        vec![compared::scenes()]
    } else {
        vec![
            cuts::scenes(&options),
            announce::scenes(&options),
            idle::scenes(&options),
            planned::scenes(&options),
            scale::scenes(&options),
        ]
    };
    let mut measured = Measured::default();
    let mut failed = Vec::new();
    for Scene { mut row, measure } in scenes.into_iter().flatten().filter(|scene| options.wants(&scene.row)) {
        let start = Instant::now();
        if let Err(error) = measure(&mut row, &options) {
            eprintln!("{}, {}: {error:#}", row.group, row.name);
            failed.push(format!("{}, {}", row.group, row.name));
            row.at_most("failures", 1.0, 0.0);
        }
        eprintln!("{row} [{:.1} s]", start.elapsed().as_secs_f64());
        measured.add(row.measured);
    }
    measured.print();
    // After a long run the other rows are still useful.
    ensure!(failed.is_empty() || !options.quick, "failed: {}", failed.join("; "));
    Ok(())
}
