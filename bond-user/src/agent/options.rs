//! `xbond set` on a bond: options of the driver, and requests for another active slave.

use bond_core::{
    event::{Elects, Event},
    name::BondName,
    options::{BondOptions, Setting, Slaves},
};

use crate::{
    agent::{
        Agent, AgentError, Bond,
        bond::work::Urgent,
        lifecycle::{
            own_settings::settable,
            slaves::{changed, slot_of},
        },
    },
    config::BondConfig,
    report::{
        event::What,
        log::{self, Facts},
        wording,
    },
};

impl Agent {
    /// Changes options of a bond; all of them, or none. Returns what should be known about it.
    ///
    /// # Errors
    /// There is no such bond or slave, or an option is refused. Nothing was changed then.
    pub async fn set(
        &self,
        name: &BondName,
        settings: &[(String, String)],
    ) -> Result<Vec<String>, AgentError> {
        let bond = self.bond(name)?;
        // Held over the whole change: two that come at once do not undo each other.
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let before = bond.goal();
        let mut options = status.options.clone();
        let slaves = if status.slaves.is_empty() { Slaves::None } else { Slaves::Present };
        let mut noted = Vec::new();
        let (wanted, of_driver) = bond.with_own_settings(name, settings)?;
        for (key, value) in of_driver {
            match Setting::parse(key, value).map_err(|error| error.or_one_of(settable()))? {
                Setting::Option(option) => {
                    noted.extend(options.apply(option, slaves)?);
                }
                Setting::ActiveSlave(_) if settings.len() > 1 => return Err(AgentError::ActiveSlaveAlone),
                Setting::ActiveSlave(slave) => {
                    let slot = slave.map(|slave| slot_of(name, &status, &slave)).transpose()?;
                    self.machine.engine.request(bond.id, Event::SetActiveSlave(slot)).await??;
                    return Ok(Vec::new());
                }
            }
        }
        let mut notes: Vec<String> = Vec::new();
        for note in noted.iter().filter(|note| options.still(note)).map(ToString::to_string) {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        if let Some(primary) = &options.primary
            && status.options.primary != options.primary
            && !status.slaves.iter().any(|slave| slave.name == *primary)
        {
            notes.push(wording::primary_absent(primary));
        }
        self.apply_own_settings(&bond, &wanted).await?;
        let in_force = options.to_pairs();
        self.set_options(&bond, options).await?;
        for option in settings.iter().filter_map(|(key, _)| Elects::of(key)) {
            self.machine.engine.request(bond.id, Event::Written(option)).await??;
        }
        let own = changed(own_pairs(&before.config), own_pairs(&bond.goal().config));
        let driver = changed(status.options.to_pairs(), in_force);
        for (key, value) in own.into_iter().chain(driver) {
            Facts { option: Some(key), value: Some(&value), ..log::of(name) }
                .info(format_args!("{key}={value}"));
            self.machine.feed.publish(name, What::Option { slave: None, option: key.to_owned(), value });
        }
        for note in &notes {
            log::of(name).info(note);
        }
        Ok(notes)
    }

    /// The caller has the bond's turn.
    pub(in crate::agent) async fn set_options(
        &self,
        bond: &Bond,
        options: BondOptions,
    ) -> Result<(), AgentError> {
        let before = self.machine.engine.status(bond.id).await?.options;
        let event = Event::SetOptions(Box::new(options.clone()));
        self.machine.engine.request(bond.id, event).await??;
        bond.work.urgent(Urgent::SetOptions(Box::new(options.clone())));
        bond.change_goal(|goal| {
            let wished = &mut goal.config.options;
            let policy = if options.fail_over_mac == before.fail_over_mac {
                // Not asked for now: the bond may have another one than it was given.
                wished.fail_over_mac
            } else {
                options.fail_over_mac
            };
            *wished = BondOptions { fail_over_mac: policy, ..options };
        });
        Ok(())
    }
}

/// Returns the settings of xbond's own, with their values as `xbond set` takes them.
fn own_pairs(config: &BondConfig) -> Vec<(&'static str, String)> {
    settable().map(|key| (key, config.shown(key))).collect()
}

#[cfg(test)]
mod tests {
    use bond_core::options::Note;

    use super::*;
    use crate::config::Origin;

    #[test]
    fn an_unknown_option_is_compared_with_the_settings_of_xbond_too() {
        let refused = |key| Setting::parse(key, "off").unwrap_err().or_one_of(settable()).to_string();
        assert_eq!(refused("damp"), "damp: no such option; did you mean damping?");
        assert_eq!(refused("zzz"), "zzz: no such option; there are: ".to_owned() + &known());
        assert_eq!(refused("mimon"), "mimon: no such option; did you mean miimon?");
    }

    fn known() -> String {
        bond_core::options::KEYS.iter().copied().chain(settable()).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_changed_is_reported_with_the_value_in_force() {
        let before = BondOptions { miimon: 100, ..BondOptions::default() };
        let mut after = before.clone();
        for _ in 0..3300 {
            for (key, value) in [("updelay", "120"), ("fail_over_mac", "none"), ("arp_validate", "3")] {
                let Setting::Option(option) = Setting::parse(key, value).unwrap() else { panic!("{key}") };
                let notes = after.apply(option, Slaves::None).unwrap();
                assert!(notes.iter().all(|note| matches!(note, Note::Rounded { .. })), "{notes:?}");
            }
        }
        let said = changed(before.to_pairs(), after.to_pairs());
        assert_eq!(said, [("updelay", "100".to_owned()), ("arp_validate", "all".to_owned())]);

        let config = BondConfig::new(BondName::new("bond0").unwrap(), Origin::Flags);
        let mut damped = config.clone();
        damped.set("damping", "max=70").unwrap().unwrap();
        let said = changed(own_pairs(&config), own_pairs(&damped));
        assert_eq!(said, [("damping", "half_life=15,suppress=3,reuse=1.5,max=70".to_owned())]);
        assert_eq!(changed(own_pairs(&damped), own_pairs(&config)), [("damping", "off".to_owned())]);
    }
}
