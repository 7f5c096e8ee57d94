//! Fuzz targets: names, texts for terminals, and options.

use xbond_fuzz::target;

use crate::{
    name::{BondName, InterfaceName, printable, printable_json, shell_word, shortened, shortened_sentence},
    options::{BondOptions, SlaveOptions, Slaves, Unmonitored},
    purpose::Purpose,
};

/// Whether a terminal would execute a character, or show others in another order.
fn is_harmful(char: char) -> bool {
    char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[test]
fn names() {
    target("names", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Ok(name) = InterfaceName::new(text.as_ref()) {
            assert!(!name.is_empty() && name.len() < 16 && !name.contains(['/', ':', '\0']), "{name:?}");
            assert!(name.as_str() != "." && name.as_str() != "..");
        }
        if let Ok(name) = BondName::new(text.as_ref()) {
            assert!(InterfaceName::new(name.as_str()).is_ok() && !name.contains(is_harmful), "{name:?}");
        }
        assert!(shortened(&text).chars().count() <= 64 + 3);
        assert!(shortened_sentence(&text).chars().count() <= 2 * 1024 + 5);
        let shown = printable(&text);
        assert!(!shown.contains(|char| is_harmful(char) && !matches!(char, '\n' | '\t')), "{shown:?}");
        let json = serde_json::to_string(&text).expect("a text is JSON");
        let shown = printable_json(&json);
        assert!(!shown.contains(is_harmful), "{shown:?}");
        assert_eq!(serde_json::from_str::<String>(&shown).expect("it stays JSON"), text);
        let word = shell_word(&text);
        if !text.contains('\0') {
            assert_eq!(shlex::split(&word), Some(vec![text.to_string()]), "{word}");
        }
        let _ = serde_json::from_str::<Purpose>(&json);
    });
}

#[test]
fn options() {
    target("options", |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let pairs: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let slaves = if bytes.len().is_multiple_of(2) { Slaves::None } else { Slaves::Present };
        let (mut options, mut slave) = (BondOptions::default(), SlaveOptions::default());
        for (key, value) in &pairs {
            if let Err(error) = options.set(key, value, slaves) {
                let _ = (error.to_string(), error.errno(), error.key().map(str::to_owned));
            }
            let _ = slave.set(key, value).map_err(|error| error.to_string());
        }
        // What is shown can be set.
        let mut again = SlaveOptions::default();
        for (key, value) in slave.to_pairs() {
            again.set(key, &value).unwrap_or_else(|error| panic!("{key}={value}: {error}"));
        }
        assert_eq!(again, slave);
        let Ok((wanted, _)) = BondOptions::from_pairs(pairs, Unmonitored::Allow) else { return };
        let shown = wanted.to_pairs();
        let shown: Vec<_> = shown.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let (read, _) = BondOptions::from_pairs(shown.clone(), Unmonitored::Allow)
            .unwrap_or_else(|error| panic!("{shown:?}: {error}"));
        assert_eq!(read, wanted);
    });
}
