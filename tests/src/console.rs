//! Console sessions in Markdown pages: read from the blocks of a page, and run in a lab.
//!
//! In a block marked `console`, `# ` begins a command, and the lines after it are its output. A line `...` stands for
//! one or more lines, `...` in a line for any text, and numbers for any numbers. `^C` interrupts the command above
//! it. A comment `<!-- not run: REASON -->` above a block excludes it. `<!-- file: PATH -->` writes the block to that
//! file.

use anyhow::{Context as _, Result, bail, ensure};

/// A step of a page; steps keep the page's order.
#[derive(Debug, PartialEq, Eq)]
pub enum PageStep {
    File {
        path: String,
        text: String,
    },
    Command(Command),
    /// A block that cannot be run.
    NotRun {
        line: usize,
        reason: String,
    },
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Line in the page, counted from 1.
    pub line: usize,
    /// The command for a shell; lines that end in a backslash are joined.
    pub text: String,
    /// Expected lines on standard output; empty if the page shows none.
    pub output: Vec<String>,
    /// Whether `^C` follows.
    pub is_interrupted: bool,
}

/// The meaning of the comment above a block.
enum Mark {
    NotRun(String),
    File(String),
}

/// Reads the steps of a page.
///
/// # Errors
/// A block does not begin with a command, or does not end.
pub fn steps(page: &str) -> Result<Vec<PageStep>> {
    let mut steps = Vec::new();
    let mut mark = None;
    let mut lines = page.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let mut block = Vec::new();
            loop {
                let (_, line) =
                    lines.next().with_context(|| format!("line {}: a block without end", index + 1))?;
                if line.starts_with("```") {
                    break;
                }
                block.push(line);
            }
            match (mark.take(), language) {
                (Some(Mark::File(path)), _) => {
                    steps.push(PageStep::File { path, text: block.join("\n") + "\n" })
                }
                (Some(Mark::NotRun(reason)), _) => steps.push(PageStep::NotRun { line: index + 1, reason }),
                (None, "console") => {
                    steps.extend(commands(index + 2, &block)?.into_iter().map(PageStep::Command))
                }
                (None, _) => {}
            }
        } else if let Some(comment) = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->")) {
            mark = match comment.split_once(": ") {
                Some(("not run", reason)) => Some(Mark::NotRun(reason.to_owned())),
                Some(("file", path)) => Some(Mark::File(path.to_owned())),
                _ => None,
            };
        }
    }
    Ok(steps)
}

fn commands(first: usize, block: &[&str]) -> Result<Vec<Command>> {
    let mut commands: Vec<Command> = Vec::new();
    for (index, line) in block.iter().enumerate() {
        let number = first + index;
        let last = commands.last_mut();
        let continues = last.as_ref().is_some_and(|last| last.output.is_empty() && last.text.ends_with('\\'));
        match (line.strip_prefix("# "), last) {
            (_, Some(last)) if continues => last.text += &format!("\n{line}"),
            (Some(text), _) => {
                commands.push(Command { line: number, text: text.to_owned(), ..Command::default() });
            }
            (None, Some(last)) => {
                ensure!(!last.is_interrupted, "line {number}: output after ^C");
                if *line == "^C" {
                    last.is_interrupted = true;
                } else {
                    last.output.push((*line).to_owned());
                }
            }
            (None, None) => bail!("line {number}: a console block begins with a command, after `# `"),
        }
    }
    Ok(commands)
}

/// Returns whether `seen` is the output that the page expects.
pub fn matches(expected: &[String], seen: &[&str]) -> bool {
    match (expected, seen) {
        ([], []) => true,
        ([], _) | (_, []) => false,
        ([any, rest @ ..], _) if any == "..." => {
            (1..=seen.len()).any(|lines| matches(rest, seen.get(lines..).unwrap_or_default()))
        }
        ([line, rest @ ..], [first, others @ ..]) => line_matches(line, first) && matches(rest, others),
    }
}

/// Returns whether the output so far of a command that keeps running begins with all of the expected output.
pub fn begins(expected: &[String], seen: &[&str]) -> bool {
    (0..=seen.len()).any(|lines| matches(expected, seen.get(..lines).unwrap_or_default()))
}

fn line_matches(expected: &str, seen: &str) -> bool {
    let (expected, seen) = (normal(expected), normal(seen));
    let mut rest = seen.as_str();
    let mut pieces = expected.split("...").enumerate().peekable();
    while let Some((index, piece)) = pieces.next() {
        let place = match (index, pieces.peek()) {
            (0, None) => return rest == piece,
            (0, _) => rest.starts_with(piece).then_some(0),
            (_, None) => return rest.ends_with(piece),
            _ => rest.find(piece),
        };
        match place.and_then(|place| rest.get(place + piece.len()..)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

/// Normalises a line: one space between words, and one placeholder for every number, since numbers depend on time and
/// machine.
fn normal(line: &str) -> String {
    let word = |word: &str| {
        let is_number = word.contains(|letter: char| letter.is_ascii_digit())
            && word.chars().all(|letter| letter.is_ascii_digit() || ".,+-%".contains(letter))
            && word.matches('.').count() < 3;
        if is_number { "0".to_owned() } else { word.to_owned() }
    };
    line.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn blocks_become_steps() {
        let page = "text\n```console\n# a \\\n      b\nout\n# c\n^C\n```\n<!-- not run: why -->\n```console\n# d\n```\n\
                    <!-- file: /etc/f -->\n\n```toml\nx = 1\n```\n```ini\n[a]\n```\n";
        let command = |line, text: &str, output: &[&str], is_interrupted| {
            PageStep::Command(Command { line, text: text.to_owned(), output: owned(output), is_interrupted })
        };
        assert_eq!(
            steps(page).unwrap(),
            [
                command(3, "a \\\n      b", &["out"], false),
                command(6, "c", &[], true),
                PageStep::NotRun { line: 10, reason: "why".to_owned() },
                PageStep::File { path: "/etc/f".to_owned(), text: "x = 1\n".to_owned() },
            ]
        );
    }

    #[test]
    fn invalid_blocks_are_refused() {
        for page in ["```console\nout\n```\n", "```console\n# a\n", "```console\n# a\n^C\nout\n```\n"] {
            assert!(steps(page).is_err(), "{page}");
        }
    }

    #[test]
    fn output_is_compared_without_numbers_and_gaps() {
        let table: [(&[&str], &[&str], bool); 11] = [
            (&["a  12 b"], &["a 3.5 b"], true),
            (&["mac 08:00:27:00:00:01"], &["mac 08:00:27:00:00:02"], false),
            (&["192.0.2.1/24"], &["192.0.2.2/24"], false),
            (&["enp0s8"], &["enp0s9"], false),
            (&["a ... d"], &["a b c d"], true),
            (&["a..."], &["ab"], true),
            (&["a...c", "d"], &["abc", "d"], true),
            (&["...", "b"], &["a", "a", "b"], true),
            (&["...", "b"], &["b"], false),
            (&["a"], &["a", "b"], false),
            (&["a", "..."], &["a"], false),
        ];
        for (expected, seen, wanted) in table {
            assert_eq!(matches(&owned(expected), seen), wanted, "{expected:?} {seen:?}");
        }
        assert!(begins(&owned(&["a"]), &["a", "b"]) && !begins(&owned(&["a"]), &["b", "a"]));
    }
}
