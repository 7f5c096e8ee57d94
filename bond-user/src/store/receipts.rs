//! receipts.ndjson in a bond's run directory: one JSON object a line.
//!
//! A line is appended by one write; an agent that ends during the write leaves an incomplete line, which readers skip and
//! the next agent removes.

use std::{
    io::{self, Write as _},
    os::unix::fs::FileExt as _,
};

use bond_core::name::BondName;
use nix::fcntl::OFlag;
use tracing::warn;

use crate::{
    report::{
        receipt::{Log, OLDEST_VERSION, Receipt, VERSION},
        wording,
    },
    store::{StoreError, paths::Paths},
    sys::directory::{Location, Trust},
};

/// The file's name in a bond's run directory.
const FILE: &str = "receipts.ndjson";
/// Receipts that are kept, and that `xbond log` lists.
pub const KEPT: usize = 100;

/// The file is reduced to [`KEPT`] receipts when it has this many.
const AT_MOST: usize = 2 * KEPT;

/// How far from the end a receipt is that is amended: failovers and their peers are reported within a second.
const LAST_FEW: usize = 8;

/// receipts.ndjson, opened for writing.
pub struct File {
    directory: Location,
    lines: usize,
}

impl File {
    /// Opens the file, and removes an incomplete line.
    pub fn open(directory: Location) -> Self {
        let mut file = Self { directory, lines: 0 };
        let text = file.read().unwrap_or_default();
        file.lines = lines(&text).count();
        if text.last().is_some_and(|last| *last != b'\n')
            && let Err(error) = file.cut()
        {
            warn!("{}: {error}", file.shown());
        }
        file
    }

    /// Returns the path, for messages.
    pub fn shown(&self) -> String {
        self.directory.path().join(FILE).display().to_string()
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        self.directory.open(Trust::Ours)?.read(FILE, Trust::Ours)
    }

    /// Appends a receipt, and cuts the file when it is too long.
    ///
    /// # Errors
    /// The file is not to be trusted or cannot be written; an incomplete line is removed.
    pub fn append(&mut self, receipt: &Receipt) -> io::Result<()> {
        let mut line = serde_json::to_vec(receipt)?;
        line.push(b'\n');
        let append = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        let mut file = self.directory.open(Trust::Ours)?.file(FILE, append, Trust::Ours)?;
        let mut length = file.metadata()?.len();
        if length > 0 && !self.ends_with_line(length)? {
            // Another process has written there: the next line would be part of its line.
            self.cut()?;
            file = self.directory.open(Trust::Ours)?.file(FILE, append, Trust::Ours)?;
            length = file.metadata()?.len();
        }
        file.write_all(&line).inspect_err(|_| {
            // A part of a line would damage the next one, too.
            let _ = file.set_len(length);
        })?;
        self.lines += 1;
        // The line is written: the file is reduced again with the next one.
        if self.lines >= AT_MOST
            && let Err(error) = self.cut()
        {
            warn!("{}: {error}", self.shown());
        }
        Ok(())
    }

    /// Replaces the receipt of the same failover, if it is one of the last few; other lines stay.
    ///
    /// # Errors
    /// The file cannot be read or replaced. A receipt that is not among the last is no error.
    pub fn amend(&mut self, receipt: &Receipt) -> io::Result<()> {
        let text = self.read()?;
        let mut lines: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').collect();
        let is_its = |line: &&[u8]| {
            serde_json::from_slice::<Receipt>(line).is_ok_and(|written| written.is_of_failover(receipt))
        };
        let last = lines.iter().enumerate().rev().take(LAST_FEW);
        let Some(place) = last.filter(|(_, line)| is_its(line)).map(|(place, _)| place).next() else {
            return Ok(());
        };
        let mut line = serde_json::to_vec(receipt)?;
        line.push(b'\n');
        lines[place] = &line;
        self.directory.open(Trust::Ours)?.replace(FILE, &lines.concat())
    }

    fn ends_with_line(&self, length: u64) -> io::Result<bool> {
        let file = self.directory.open(Trust::Ours)?.file(FILE, OFlag::O_RDONLY, Trust::Ours)?;
        let mut last = [0];
        file.read_exact_at(&mut last, length - 1)?;
        Ok(last == *b"\n")
    }

    /// Keeps the last complete lines, in a new file that replaces the old one.
    fn cut(&mut self) -> io::Result<()> {
        let text = self.read()?;
        let text = &text[..text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)];
        let kept: Vec<_> = lines(text).collect();
        let kept = &kept[kept.len().saturating_sub(KEPT)..];
        let text: Vec<u8> = kept.iter().flat_map(|line| line.iter().chain(b"\n")).copied().collect();
        self.directory.open(Trust::Ours)?.replace(FILE, &text)?;
        self.lines = kept.len();
        Ok(())
    }
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// Returns the last failovers of a bond, with or without an agent.
///
/// # Errors
/// The receipts cannot be read ([`StoreError::File`]). A missing file is no error.
pub fn log(paths: &Paths, bond: &BondName) -> Result<Log, StoreError> {
    let directory = paths.run_of(bond);
    let failed = |source| StoreError::File { path: directory.path().join(FILE), source };
    let text = read_text(&directory, Trust::Anyones).map_err(failed)?;
    let damaged = damaged(&text);
    let path = directory.path().join(FILE);
    let notes = Some(wording::damaged(&path.display().to_string(), damaged)).filter(|_| damaged > 0);
    let notes = notes.into_iter().collect();
    Ok(Log { version: VERSION, bond: bond.to_string(), receipts: parse(&text), notes })
}

/// Reads the last receipts of a bond by its run directory, the oldest first; none if it had no failover. Receipts of
/// older versions are converted to this one. An incomplete line, and one of a newer version, is skipped.
///
/// # Errors
/// The directory or the file is not to be trusted, or cannot be read. A missing file is no error.
pub fn read(directory: &Location, trust: Trust) -> io::Result<Vec<Receipt>> {
    read_text(directory, trust).map(|text| parse(&text))
}

/// Returns the text; empty if there is no file.
fn read_text(directory: &Location, trust: Trust) -> io::Result<Vec<u8>> {
    match directory.open(trust).and_then(|directory| directory.read(FILE, trust)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        answer => answer,
    }
}

/// Returns the number of bytes in lines that no xbond has written, neither completely nor in part.
pub(super) fn damaged(text: &[u8]) -> usize {
    const BEGINNING: &[u8] = b"{\"version\":";
    let is_ours = |line: &&[u8]| line.starts_with(BEGINNING) || BEGINNING.starts_with(line);
    lines(text).filter(|line| !is_ours(line)).map(<[u8]>::len).sum()
}

pub(super) fn parse(text: &[u8]) -> Vec<Receipt> {
    let receipt = |line: &[u8]| serde_json::from_slice::<Receipt>(line).ok();
    let is_known = |receipt: &Receipt| (OLDEST_VERSION..=VERSION).contains(&receipt.version);
    let receipts = lines(text).filter_map(receipt).filter(is_known);
    let mut receipts: Vec<_> = receipts.map(|receipt| Receipt { version: VERSION, ..receipt }).collect();
    receipts.drain(..receipts.len().saturating_sub(KEPT));
    receipts
}

#[cfg(test)]
mod tests;
