//! Fuzz targets: TOML, `check`, and the words of a shell.

use std::path::Path;

use xbond_fuzz::target;

use super::{
    lint::{self, HostFacts},
    shell, toml,
};

/// Messages name this file.
const FILE: &str = "input.toml";

#[test]
fn toml_files() {
    target("toml_files", |input| {
        let text = String::from_utf8_lossy(input);
        let config = match toml::parse(Path::new(FILE), &text) {
            Ok(config) => config,
            Err(error) => return assert!(error.to_string().starts_with(FILE), "{error}"),
        };
        if config.check().is_err() {
            return;
        }
        let written = toml::write(&config);
        let again = toml::parse(Path::new(FILE), &written);
        let again = again.unwrap_or_else(|error| panic!("{error}\n{written}"));
        assert_eq!(toml::write(&again), written, "what is written is read");
    });
}

#[test]
fn check() {
    target("check", |input| {
        let text = String::from_utf8_lossy(input);
        let facts = HostFacts { strict_ports: Some("KVM"), ..HostFacts::default() };
        for finding in lint::check_text(Path::new(FILE), &text, &facts).findings {
            assert!(!finding.id.is_empty() && !finding.text.is_empty(), "{finding:?}");
            assert!(finding.origin.to_string().starts_with(FILE), "{finding:?}");
        }
    });
}

#[test]
fn shell_words() {
    target("shell_words", |input| {
        let text = String::from_utf8_lossy(input);
        let lines = text.lines().count().max(1);
        match shell::assignments(&text) {
            Ok(assignments) => {
                for found in assignments {
                    assert!((1..=lines).contains(&found.line), "{found:?}");
                    assert!(!found.key.is_empty(), "{found:?}");
                }
            }
            Err((line, error)) => assert!((1..=lines + 1).contains(&line), "{line}: {error}"),
        }
    });
}
