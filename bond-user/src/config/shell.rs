//! Parses variable assignments in the syntax of a POSIX shell, without executing anything.

use std::{iter::Peekable, str::CharIndices};

use bond_core::name::shortened;

use super::lines::LineStarts;

/// `KEY=VALUE`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub key: String,
    /// The value without quotes and backslashes.
    pub value: String,
    /// The line in which it begins, counted from 1.
    pub line: usize,
}

/// Why a text is no plain list of assignments.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    #[error("{}: files are read, not run; write the value itself", shortened(.text))]
    Expansion { text: String },
    #[error("{}: not KEY=VALUE; files are read, not run, so remove it or write the value itself", shortened(.text))]
    NotAnAssignment { text: String },
    #[error("the quote that opens here is never closed")]
    OpenQuote,
    #[error("the line ends in a carriage return; convert the file to Unix line ends")]
    CarriageReturn,
}

/// Parses assignments, comments and blank lines. Values may be quoted in every way that a shell knows, also over
/// several lines; an expansion or a command is an error.
///
/// # Errors
/// The line, counted from 1, and the problem.
pub(super) fn assignments(text: &str) -> Result<Vec<Assignment>, (usize, ShellError)> {
    let mut reader = Reader { text, chars: text.char_indices().peekable(), lines: LineStarts::of(text) };
    let mut assignments = Vec::new();
    while let Some(start) = reader.skip_to_word() {
        assignments.push(reader.assignment(start)?);
    }
    Ok(assignments)
}

struct Reader<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
    lines: LineStarts,
}

impl Reader<'_> {
    /// Skips blanks, line ends, separators and comments; returns the offset of the next word.
    fn skip_to_word(&mut self) -> Option<usize> {
        while let Some(&(at, char)) = self.chars.peek() {
            match char {
                ' ' | '\t' | '\n' | ';' => {}
                '\\' if self.text[at..].starts_with("\\\n") => {
                    self.chars.next();
                }
                '#' => while self.chars.next_if(|(_, char)| *char != '\n').is_some() {},
                _ => return Some(at),
            }
            self.chars.next();
        }
        None
    }

    fn assignment(&mut self, mut start: usize) -> Result<Assignment, (usize, ShellError)> {
        let mut key = self.name();
        while key == "export" && self.chars.next_if(|(_, char)| matches!(char, ' ' | '\t')).is_some() {
            start = self.skip_to_word().ok_or_else(|| self.not_an_assignment(start))?;
            key = self.name();
        }
        let is_name = key.starts_with(|first: char| !first.is_ascii_digit());
        if !is_name || self.chars.next_if(|(_, char)| *char == '=').is_none() {
            return Err(self.not_an_assignment(start));
        }
        let value = self.value(start)?;
        Ok(Assignment { key, value, line: self.line(start) })
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some((_, char)) =
            self.chars.next_if(|(_, char)| char.is_ascii_alphanumeric() || *char == '_')
        {
            name.push(char);
        }
        name
    }

    fn value(&mut self, start: usize) -> Result<String, (usize, ShellError)> {
        let mut value = String::new();
        while let Some((at, char)) = self.chars.next_if(|(_, char)| !matches!(char, ' ' | '\t' | '\n' | ';'))
        {
            match char {
                '\'' => self.single_quoted(at, &mut value)?,
                '"' => self.double_quoted(at, &mut value)?,
                '\\' => match self.chars.next() {
                    Some((_, '\n')) => {}
                    Some((_, escaped)) => value.push(escaped),
                    None => value.push('\\'),
                },
                '$' | '`' => return Err(self.expansion(at)),
                '~' if value.is_empty() => return Err(self.expansion(at)),
                '&' | '|' | '<' | '>' | '(' | ')' => return Err(self.not_an_assignment(start)),
                '\r' => return Err((self.line(at), ShellError::CarriageReturn)),
                other => value.push(other),
            }
        }
        Ok(value)
    }

    fn single_quoted(&mut self, opened: usize, value: &mut String) -> Result<(), (usize, ShellError)> {
        for (at, char) in self.chars.by_ref() {
            match char {
                '\'' => return Ok(()),
                '\r' => return Err((self.lines.line(at), ShellError::CarriageReturn)),
                other => value.push(other),
            }
        }
        Err((self.line(opened), ShellError::OpenQuote))
    }

    fn double_quoted(&mut self, opened: usize, value: &mut String) -> Result<(), (usize, ShellError)> {
        while let Some((at, char)) = self.chars.next() {
            match char {
                '"' => return Ok(()),
                '\\' => match self.chars.next() {
                    Some((_, '\n')) => {}
                    Some((_, escaped @ ('$' | '`' | '"' | '\\'))) => value.push(escaped),
                    Some((_, other)) => value.extend(['\\', other]),
                    None => break,
                },
                '$' | '`' => return Err(self.expansion(at)),
                '\r' => return Err((self.line(at), ShellError::CarriageReturn)),
                other => value.push(other),
            }
        }
        Err((self.line(opened), ShellError::OpenQuote))
    }

    fn expansion(&self, at: usize) -> (usize, ShellError) {
        (self.line(at), ShellError::Expansion { text: self.rest_of_line(at) })
    }

    fn not_an_assignment(&self, at: usize) -> (usize, ShellError) {
        (self.line(at), ShellError::NotAnAssignment { text: self.rest_of_line(at) })
    }

    fn rest_of_line(&self, at: usize) -> String {
        self.text[at..].lines().next().unwrap_or_default().trim_end().to_owned()
    }

    fn line(&self, at: usize) -> usize {
        self.lines.line(at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_what_a_shell_would_assign() {
        let table = [
            ("A=b", "b"),
            ("A=", ""),
            ("A=\"b c\"", "b c"),
            ("A='b c'", "b c"),
            ("A=b\\ c", "b c"),
            ("A=\"b \\\"c\\\" \\\\ \\$x \\n\"", "b \"c\" \\ $x \\n"),
            ("A='$(x) `y` $z \\'", "$(x) `y` $z \\"),
            ("A=b'c d'\"e f\"g", "bc de fg"),
            ("A=b#c", "b#c"),
            ("A=b # c", "b"),
            ("A=b\t#c", "b"),
            ("A=\"b\\\nc\"", "bc"),
            ("A=b\\\nc", "bc"),
            ("A=\"b\nc\"", "b\nc"),
            ("A='b\\\nc'", "b\\\nc"),
            ("  A=b  ", "b"),
            ("export A=b", "b"),
            ("A=b;", "b"),
            ("A=x=y", "x=y"),
            ("A=b~", "b~"),
            ("A=*", "*"),
        ];
        for (text, value) in table {
            let read = assignments(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
            let expected = Assignment { key: "A".to_owned(), value: value.to_owned(), line: 1 };
            assert_eq!(read, [expected], "{text}");
        }
    }

    #[test]
    fn lines_are_counted_over_continued_and_quoted_ones() {
        let text = "# a comment, it's one\n\nA='x\ny'\nB=\\\n1 C=2; D=3\n";
        let read: Vec<_> = assignments(text)
            .unwrap()
            .into_iter()
            .map(|found| (found.key, found.value, found.line))
            .collect();
        let expected = [("A", "x\ny", 3), ("B", "1", 5), ("C", "2", 6), ("D", "3", 6)]
            .map(|(key, value, line)| (key.to_owned(), value.to_owned(), line));
        assert_eq!(read, expected);
    }

    #[test]
    fn values_that_need_a_shell_are_refused() {
        let run = "files are read, not run; write the value itself";
        let no_pair = "not KEY=VALUE; files are read, not run, so remove it or write the value itself";
        let table = [
            ("A=1\nB=$(hostname -i)", 2, format!("$(hostname -i): {run}")),
            ("A=`id`", 1, format!("`id`: {run}")),
            ("A=\"x $B\"", 1, format!("$B\": {run}")),
            ("A=${B}", 1, format!("${{B}}: {run}")),
            ("A=~/x", 1, format!("~/x: {run}")),
            (". /etc/x", 1, format!(". /etc/x: {no_pair}")),
            ("A=1 reboot", 1, format!("reboot: {no_pair}")),
            ("A= 1", 1, format!("1: {no_pair}")),
            ("A =1", 1, format!("A =1: {no_pair}")),
            ("A+=1", 1, format!("A+=1: {no_pair}")),
            ("1A=1", 1, format!("1A=1: {no_pair}")),
            ("\nA=1|x", 2, format!("A=1|x: {no_pair}")),
            ("if true; then", 1, format!("if true; then: {no_pair}")),
            ("export ", 1, format!("export: {no_pair}")),
            ("A=1\nB='x\ny", 2, "the quote that opens here is never closed".to_owned()),
            ("A=\"x", 1, "the quote that opens here is never closed".to_owned()),
            (
                "A=1\r\n",
                1,
                "the line ends in a carriage return; convert the file to Unix line ends".to_owned(),
            ),
        ];
        for (text, line, said) in table {
            let (found, error) = assignments(text).unwrap_err();
            assert_eq!((found, error.to_string()), (line, said), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(?s).*", shellish in "[A-Z=\"'\\\\ \n#;$\u{e9}]*") {
            let _ = assignments(&text);
            let _ = assignments(&shellish);
        }

        #[test]
        fn a_quoted_value_reads_back(value in "[^\r]*") {
            let single = format!("A='{}'", value.replace('\'', "'\\''"));
            prop_assert_eq!(&assignments(&single).unwrap()[0].value, &value);
        }
    }
}
