//! Runs scenarios against the kernel's bonding driver and xbond, and prints their records.
//!
//! `parity JOBS FILE...` runs JOBS scenarios at a time. For each it prints `scenario driver NAME` or `scenario xbond
//! NAME`, then for each step a line `step` and the lines of its record, each after `| `, then `end`, or `failed` with
//! the reason.

use std::{
    collections::VecDeque,
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError, mpsc},
    thread,
};

use anyhow::{Context as _, Result};
use xbond_tests::parity::{self, Driver, Implementation, OurBond, Pace, Scenario};

#[derive(Clone, Copy)]
enum Who {
    Driver,
    Xbond,
}

fn main() -> Result<ExitCode> {
    let mut arguments = env::args().skip(1);
    let jobs: usize = arguments.next().and_then(|jobs| jobs.parse().ok()).context("how many at a time?")?;
    let paths: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let both = paths.iter().flat_map(|path| [(Who::Driver, path), (Who::Xbond, path)]);
    let queue = Mutex::new(both.collect::<VecDeque<_>>());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let mut exit = ExitCode::SUCCESS;
    thread::scope(|scope| {
        let (sender, results) = mpsc::channel();
        for _ in 0..jobs {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                while let Some((who, path)) = next() {
                    if sender.send((who, path, records(who, path))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (who, path, result) in results {
            if print(who, path, result).is_err() {
                exit = ExitCode::FAILURE;
            }
        }
    });
    Ok(exit)
}

fn records(who: Who, path: &Path) -> Result<Vec<Vec<String>>> {
    let scenario = Scenario::read(path)?;
    let lab = parity::lab()?;
    let mut records = Vec::new();
    let bond: &mut dyn Implementation = match who {
        Who::Driver => &mut Driver::new(&lab.host),
        Who::Xbond => &mut OurBond::new(&lab.host),
    };
    parity::run(&scenario, &lab, Pace::Emulated, bond, |_, record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

fn print(who: Who, path: &Path, result: Result<Vec<Vec<String>>>) -> Result<()> {
    let who = match who {
        Who::Driver => "driver",
        Who::Xbond => "xbond",
    };
    println!("scenario {who} {}", path.file_stem().unwrap_or_default().display());
    match result {
        Ok(records) => {
            for record in records {
                println!("step");
                record.iter().for_each(|line| println!("| {line}"));
            }
            println!("end");
            Ok(())
        }
        Err(error) => {
            println!("failed {}", format!("{error:#}").replace('\n', "; "));
            Err(error)
        }
    }
}
