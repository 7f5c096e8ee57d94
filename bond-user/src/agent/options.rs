//! `xbond set` on a bond: options of the driver, and requests for another active slave.

use bond_common::abi::Slot;
use bond_core::{
    event::{Elects, Event},
    name::BondName,
    options::{BondOptions, Setting, Slaves},
    status::BondStatus,
};

use crate::{
    agent::{Agent, AgentError, Bond, bond::work::Urgent},
    report::{
        event::What,
        log::{self, Facts},
    },
};

impl Agent {
    /// Changes options of a bond; all of them, or none. Returns what should be known about it.
    pub async fn set(
        &self,
        name: &BondName,
        settings: &[(String, String)],
    ) -> Result<Vec<String>, AgentError> {
        let bond = self.bond(name)?;
        // Held over the whole change: two that come at once do not undo each other.
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let mut options = status.options.clone();
        let slaves = if status.slaves.is_empty() { Slaves::None } else { Slaves::Present };
        let mut noted = Vec::new();
        let (wanted, of_driver) = bond.with_own_settings(name, settings)?;
        for (key, value) in of_driver {
            match Setting::parse(key, value)? {
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
        let mut notes: Vec<_> =
            noted.iter().filter(|note| options.still(note)).map(ToString::to_string).collect();
        if let Some(primary) = &options.primary
            && status.options.primary != options.primary
            && !status.slaves.iter().any(|slave| slave.name == *primary)
        {
            notes.push(format!("primary={primary}: is no slave yet; it takes over when it is one, and up"));
        }
        self.apply_own_settings(&bond, &wanted).await?;
        self.set_options(&bond, options).await?;
        for option in settings.iter().filter_map(|(key, _)| Elects::of(key)) {
            self.machine.engine.request(bond.id, Event::Written(option)).await??;
        }
        for (key, value) in settings {
            Facts { option: Some(key), value: Some(value), ..log::of(name) }
                .info(format_args!("{key}={value}"));
            let (option, value) = (key.clone(), value.clone());
            self.machine.feed.publish(name, What::Option { slave: None, option, value });
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

pub fn slot_of(bond: &str, status: &BondStatus, slave: &str) -> Result<Slot, AgentError> {
    let found = status.slaves.iter().find(|known| known.name == slave);
    found
        .and_then(|slave| Slot::new(slave.slot))
        .ok_or_else(|| AgentError::NoSuchSlave { bond: bond.to_owned(), slave: slave.to_owned() })
}
