//! Runs a program under the filter of a unit: `service_filter UNIT REFUSED,... PROGRAM ARGUMENT...`. Of `probe NUMBER FIRST` it
//! makes the system call with this number and first argument itself, and prints the error number.

use std::{env, os::unix::process::CommandExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result};
use xbond_tests::service_filter::ServiceFilter;

fn main() -> Result<()> {
    let words: Vec<_> = env::args().skip(1).collect();
    let [unit, refused, program, arguments @ ..] = &words[..] else {
        anyhow::bail!("service_filter UNIT REFUSED,... PROGRAM ARGUMENT...");
    };
    let refused: Vec<_> = refused.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    ServiceFilter::of_unit(Path::new(unit))?.apply(&refused)?;
    if program == "probe" {
        let number =
            |index: usize| arguments.get(index).context("no number")?.parse().context("not a number");
        let (call, first): (i64, i64) = (number(0)?, number(1)?);
        // SAFETY: the filter is to refuse it; otherwise the kernel refuses pointers that are null.
        let result = unsafe { libc::syscall(call, first, 0, 0, 0, 0, 0) };
        let error = if result < 0 { std::io::Error::last_os_error().raw_os_error() } else { None };
        println!("{}", error.unwrap_or(0));
        return Ok(());
    }
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("cannot run {program}"))
}
