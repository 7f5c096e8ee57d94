//! What goes to whoever called: every text passes here, because names, files and answers in it are others'.

use std::{
    error::Error as _,
    fmt::Display,
    io::{self, Write as _},
};

use bond_core::name::{NameError, printable, printable_json};

/// Prints a text that has its ends of lines. A reader that has seen enough, such as head, is no error.
pub fn print(text: &str) {
    let _ = io::stdout().write_all(printable(text).as_bytes());
}

/// Prints JSON, and the end of its line.
pub fn print_json(json: &str) {
    let _ = writeln!(io::stdout(), "{}", printable_json(json));
}

/// Lines of an answer.
pub fn print_lines(lines: &[String]) {
    for line in lines {
        print(&format!("{line}\n"));
    }
}

/// What a person should know next to the answer; several sentences have a line each.
pub fn note(note: impl Display) {
    for line in printable(&note.to_string()).lines() {
        let _ = writeln!(io::stderr(), "xbond: {line}");
    }
}

/// What is wrong with the command line, as clap says it; of names in one sentence.
pub fn usage(error: &clap::Error) {
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<NameError>()) {
        return note(error);
    }
    let _ = io::stderr().write_all(printable(&error.render().to_string()).as_bytes());
}
