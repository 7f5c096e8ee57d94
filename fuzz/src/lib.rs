//! Fuzz targets are unit tests called `fuzz::NAME` in the modules that own what is fuzzed, so that they reach it without
//! making it public.
//!
//! `cargo test` runs each target on its corpus, `fuzz/corpus/NAME`. `cargo xtask fuzz` builds the same tests with the
//! compiler's coverage counters and the feature `engine`, and has libFuzzer search for inputs. An input that makes a target
//! panic becomes a file of the corpus.

#[cfg(feature = "engine")]
mod engine;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

/// The variable with the arguments of libFuzzer, one a line. Without it a target runs on its corpus.
pub const ARGUMENTS: &str = "XBOND_FUZZ_ARGUMENTS";

/// Runs a target: on each file of its corpus, or as libFuzzer chooses.
///
/// # Panics
/// The target panics, or its corpus is empty.
pub fn target(name: &str, run: fn(&[u8])) {
    #[cfg(feature = "engine")]
    if let Ok(arguments) = std::env::var(ARGUMENTS) {
        engine::run(&arguments, run);
        return;
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("the directory is read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in files {
        let bytes = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let _named = Named(&file);
        run(&bytes);
    }
}

/// Names the file on which a target panics.
struct Named<'a>(&'a PathBuf);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the input is {}", self.0.display());
        }
    }
}

/// Numbers that a target takes from its input, one after the other; zeros when it is used up.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// Creates it of a whole input.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns whether it is used up.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the next bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    /// Takes a byte.
    pub fn u8(&mut self) -> u8 {
        u8::from_le_bytes(self.bytes())
    }

    /// Takes 16 bits.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    /// Takes 32 bits.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    /// Takes 64 bits.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Takes everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_ends_in_zeros() {
        let mut input = Input::new(&[1, 2, 3, 4]);
        assert_eq!((input.u16(), input.u8()), (0x0201, 3));
        assert_eq!((input.u32(), input.is_empty(), input.u64()), (4, true, 0));
        assert_eq!(Input::new(&[7, 8]).rest(), [7, 8]);
    }

    #[test]
    #[should_panic(expected = "no-such-target")]
    fn a_target_without_a_corpus_fails() {
        target("no-such-target", |_| {});
    }
}
