//! Findings that follow from the notes of reading the options.

use bond_core::options;

use super::{Finding, Rules, Severity};
use crate::config::Note;

impl Rules<'_> {
    /// Adds the notes that parsing of the options returned.
    pub(super) fn notes_of_options(&mut self) {
        for note in &self.bond.notes {
            let Note::Option { note, .. } = note else {
                if let Note::MiimonDropped { miimon, arp_interval, .. } = note {
                    let text = format!(
                        "miimon={miimon}: ignored, because arp_interval={arp_interval} is set after it and a \
                         bond has one link monitor; remove the one that is not meant"
                    );
                    self.warn("miimon-ignored", "miimon", text);
                } else if let Some(origin) = note.origin() {
                    let (severity, origin) = (Severity::Warning, origin.clone());
                    self.findings.push(Finding { severity, id: "left-out", origin, text: note.text() });
                }
                continue;
            };
            match note {
                options::Note::Rounded { key, from, to, miimon } => {
                    let becomes = match to {
                        0 => "0: there is no delay at all".to_owned(),
                        _ => format!("{to} ms"),
                    };
                    let text = format!(
                        "{key}={from}: delays count in whole miimon ({miimon} ms), so it becomes {becomes}, as \
                         in the driver; write {} or {}",
                        to,
                        to + miimon
                    );
                    self.warn("rounded", key, text);
                }
                options::Note::Unused { key: "min_links" } => self.warn(
                    "min-links",
                    "min_links",
                    "min_links: without effect in active-backup, where the bond's carrier is up while one slave's \
                     link is; remove it",
                ),
                options::Note::Unused { key } => {
                    let text = format!("{key}: without effect in active-backup; remove it");
                    self.warn("unused", key, text);
                }
                options::Note::Unmonitored => self.warn(
                    "unmonitored",
                    "miimon",
                    "miimon=0, the driver's default: links are not monitored and the bond never fails over; set \
                     miimon = 100 and remove allow_unmonitored",
                ),
                // Only requests to a running bond cause these, never a configuration.
                options::Note::Rescaled { .. }
                | options::Note::TurnedOff { .. }
                | options::Note::NoTargets { .. } => {
                    self.warn("option", "miimon", format!("{note}"));
                }
            }
        }
    }
}
