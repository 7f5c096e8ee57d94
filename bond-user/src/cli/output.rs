//! Output for the caller. Every text passes this module, because it may contain names, files and answers from other
//! sources.

use std::{
    error::Error as _,
    fmt::Display,
    io::{self, Write as _},
};

use bond_core::name::{NameError, printable, printable_json};

/// Prints a text that contains its line ends. A reader that closes early, such as head, is no error.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(printable(text).as_bytes());
}

/// Prints JSON and a newline.
pub fn print_json(json: &str) {
    let _ = writeln!(io::stdout(), "{}", printable_json(json));
}

/// Prints the lines of an answer.
pub fn print_lines(lines: &[String]) {
    for line in lines {
        print(&format!("{line}\n"));
    }
}

/// Prints a note on standard error, next to the answer; each of several sentences has its own line.
pub fn note(note: impl Display) {
    for line in printable(&note.to_string()).lines() {
        let _ = writeln!(io::stderr(), "xbond: {line}");
    }
}

/// Prints an error of the command line in clap's words; errors of names in one sentence.
pub fn usage(error: &clap::Error) {
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<NameError>()) {
        return note(error);
    }
    let _ = io::stderr().write_all(printable(&error.render().to_string()).as_bytes());
}
