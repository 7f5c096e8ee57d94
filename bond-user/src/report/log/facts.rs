//! What a line of the log is about. This file names the fields; every line with fields is written by it.

use std::fmt::Display;

use bond_common::mac::Mac;
use bond_core::command::{Chosen, Reason, Trigger};
use serde::Serialize;

use crate::report::{receipt::Steps, wording};

/// What a line of the log is about. A field without a value is left out.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Facts<'a> {
    /// The bond.
    pub bond: Option<&'a str>,
    /// The slave, or another interface.
    pub slave: Option<&'a str>,
    /// The active slave before a failover.
    pub from: Option<&'a str>,
    /// The active slave after it.
    pub to: Option<&'a str>,
    /// Why there was a failover.
    pub reason: Option<Reason>,
    /// What triggered the failover.
    pub trigger: Option<Trigger>,
    /// Why this slave was chosen.
    pub chosen: Option<Chosen>,
    /// Generation of ACTIVE.
    pub generation: Option<u32>,
    /// The durations that are known so far.
    pub steps: Option<Steps>,
    /// Milliseconds of a delay, of a late agent, or of a suspended machine.
    pub delay_ms: Option<u32>,
    /// A MAC address.
    pub mac: Option<Mac>,
    /// The name of an option or setting.
    pub option: Option<&'a str>,
    /// Its value.
    pub value: Option<&'a str>,
}

/// The names of all fields and their meaning. Those of a failover are the ones of its receipt in JSON; `trigger` is its
/// `seen`.
pub const FIELDS: [(&str, &str); 18] = [
    ("bond", "the bond"),
    ("slave", "the slave, or another interface"),
    ("from", "the active slave before a failover"),
    ("to", "the active slave after it"),
    ("reason", "why another slave had to become active"),
    ("trigger", "what showed that"),
    ("chosen", "why this slave was chosen"),
    ("generation", "the number of the change"),
    ("duration_us", "microseconds from the trigger to the switch"),
    ("detect_us", "of these: until the engine received it"),
    ("decide_us", "of these: the decision"),
    ("switch_us", "of these: the store"),
    ("macs_us", "microseconds from the switch to the last change of a MAC address"),
    ("announce_us", "microseconds from the switch to the end of the first announcements"),
    ("delay_ms", "milliseconds of a delay, of a late agent or of a suspended machine"),
    ("mac", "a MAC address"),
    ("option", "the option that was set"),
    ("value", "its value"),
];

/// Returns facts about a bond.
pub fn of(bond: &str) -> Facts<'_> {
    Facts { bond: Some(bond), ..Facts::default() }
}

/// Writes a line. Fields of tracing are fixed where an event is written: so here, and once for each level.
macro_rules! write_line {
    ($level:ident, $facts:expr, $sentence:expr) => {{
        let facts: Facts<'_> = $facts;
        let sentence = match facts.bond {
            Some(bond) => wording::of_bond(bond, $sentence.to_string()),
            None => $sentence.to_string(),
        };
        tracing::$level!(
            bond = facts.bond,
            slave = facts.slave,
            from = facts.from,
            to = facts.to,
            reason = facts.reason.and_then(name),
            trigger = facts.trigger.and_then(name),
            chosen = facts.chosen.and_then(name),
            generation = facts.generation,
            duration_us = facts.steps.map(|steps| steps.until_switch_us()),
            detect_us = facts.steps.map(|steps| steps.detect_us),
            decide_us = facts.steps.map(|steps| steps.decide_us),
            switch_us = facts.steps.map(|steps| steps.switch_us),
            macs_us = facts.steps.and_then(|steps| steps.macs_us),
            announce_us = facts.steps.and_then(|steps| steps.announce_us),
            delay_ms = facts.delay_ms,
            mac = facts.mac.map(|mac| mac.to_string()),
            option = facts.option,
            value = facts.value,
            "{sentence}"
        );
    }};
}

impl<'a> Facts<'a> {
    /// Returns the same facts about a slave, or another interface, of the bond.
    pub fn slave(self, slave: &'a str) -> Self {
        Self { slave: Some(slave), ..self }
    }

    /// Logs a fact that requires no action. The sentence gets the bond's name if it does not begin with it.
    pub fn info(self, sentence: impl Display) {
        write_line!(info, self, sentence);
    }

    /// Logs something that happens often, for the search for an error.
    pub fn debug(self, sentence: impl Display) {
        write_line!(debug, self, sentence);
    }

    /// Logs something that the administrator should know, in the same way.
    pub fn warn(self, sentence: impl Display) {
        write_line!(warn, self, sentence);
    }
}

/// Returns the name that a word has in JSON.
fn name(word: impl Serialize) -> Option<String> {
    serde_json::to_value(word).ok()?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{Event, Subscriber};
    use tracing_subscriber::{
        layer::{Context, Layer, SubscriberExt as _},
        registry,
    };

    use super::*;
    use crate::report::log::entry::LogEntry;

    /// Keeps what is logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Line>>>);

    /// An entry, and the names of all fields that it could have.
    type Line = (LogEntry, Vec<&'static str>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let names = event.metadata().fields().iter().map(|field| field.name()).collect();
            self.0.lock().unwrap().push((LogEntry::of(event), names));
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<Line> {
        let kept = Kept::default();
        tracing::subscriber::with_default(registry().with(kept.clone()), log);
        Arc::into_inner(kept.0).unwrap().into_inner().unwrap()
    }

    #[test]
    fn lines_have_a_sentence_and_the_known_fields() {
        let facts = Facts {
            from: Some("s0"),
            to: Some("s1"),
            reason: Some(Reason::LinkFailed),
            trigger: Some(Trigger::LinkEvent),
            generation: Some(7),
            steps: Some(Steps { detect_us: 40, decide_us: 9, switch_us: 1, ..Steps::default() }),
            ..of("bond0")
        };
        let [(entry, names)] = &logged(|| facts.info("active slave s1"))[..] else { panic!("one line") };
        assert_eq!(entry.sentence, "bond0: active slave s1");
        let fields: Vec<_> = entry.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            fields.join(" "),
            r#"bond="bond0" from="s0" to="s1" reason="link_failed" trigger="link_event" generation=7 duration_us=50 detect_us=40 decide_us=9 switch_us=1"#
        );
        let known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        let without_sentence: Vec<_> = names.iter().filter(|name| **name != "message").copied().collect();
        assert_eq!(without_sentence, known);
    }

    #[test]
    fn a_sentence_names_its_bond_once() {
        for (sentence, expected) in [
            ("s0: link down", "bond0: s0: link down"),
            ("bond0: kept", "bond0: kept"),
            ("bond0 is set down", "bond0 is set down"),
            ("bond01: is another", "bond0: bond01: is another"),
        ] {
            let lines = logged(|| of("bond0").slave("s0").warn(sentence));
            assert_eq!(lines[0].0.sentence, expected);
            assert_eq!(lines[0].0.level, tracing::Level::WARN);
        }
    }

    #[test]
    fn the_guide_lists_each_field() {
        let guide = include_str!("../../../../docs/guide/operate.md");
        for (name, meaning) in FIELDS {
            let row = format!("| `{name}` | `XBOND_{}` | {meaning} |", name.to_uppercase());
            assert!(guide.contains(&row), "docs/guide/operate.md has no row {row}");
        }
    }
}
