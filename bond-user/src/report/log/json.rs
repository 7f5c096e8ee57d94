//! `--log-format json`: one object a line.

use serde_json::{Map, Value};

use super::entry::LogEntry;
use crate::report::moment::Moment;

/// Returns the line of an entry: `time`, `level`, `message` and the fields.
pub fn line(entry: &LogEntry) -> Vec<u8> {
    at(entry, Moment::now().time)
}

fn at(entry: &LogEntry, time: String) -> Vec<u8> {
    let head = [
        ("time", time.into()),
        ("level", entry.level.as_str().to_lowercase().into()),
        ("message", entry.sentence.as_str().into()),
    ];
    let fields = entry.fields.iter().map(|(name, value)| (*name, value.clone()));
    let object: Map<String, Value> =
        head.into_iter().chain(fields).map(|(name, value)| (name.to_owned(), value)).collect();
    format!("{}\n", Value::Object(object)).into_bytes()
}

/// Returns the line of a text that is no entry, such as the reason why the process ends.
pub fn plain(text: &str) -> Vec<u8> {
    line(&LogEntry { level: tracing::Level::ERROR, sentence: text.to_owned(), fields: Vec::new() })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_line_is_one_object() {
        let fields = vec![("bond", "bond0".into()), ("generation", 7.into())];
        let entry = LogEntry { level: Level::WARN, sentence: "a \"b\"\nc".into(), fields };
        let line = at(&entry, "2026-01-02T03:04:05.678901Z".into());
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2026-01-02T03:04:05.678901Z", "level": "warn", "message": "a \"b\"\nc", "bond": "bond0",
            "generation": 7,
        });
        assert_eq!(read, expected);
    }
}
