//! `xbond set` on settings of xbond's own that a running bond can take.

use bond_core::{event::Event, name::BondName};

use crate::{
    agent::{
        Agent, AgentError, Bond,
        bond::work::{Request, Urgent},
    },
    config::{
        BondConfig, WantedClock,
        settings::{self, Change},
    },
};

/// The keys of settings that a reload changes and `xbond set` does not: they are lists.
const LISTS: [&str; 3] = ["slaves", "addresses", "routes"];

/// A key and its value.
type Setting = (String, String);

impl Bond {
    /// Returns the configuration with these settings, and the other settings, which are the driver's.
    ///
    /// # Errors
    /// A setting needs a new bond, or its value is none that it takes.
    pub(in crate::agent) fn with_own_settings<'a>(
        &self,
        name: &BondName,
        settings: &'a [Setting],
    ) -> Result<(BondConfig, Vec<&'a Setting>), AgentError> {
        let mut config = self.goal().config.clone();
        let mut of_driver = Vec::new();
        for setting in settings {
            let (key, value) = setting;
            match settings::change_of(key) {
                None => of_driver.push(setting),
                Some(Change::Live) if !LISTS.contains(&key.as_str()) => {
                    if let Some(Err(wanted)) = config.set(key, value) {
                        let (bond, key, value) = (name.to_string(), key.clone(), value.clone());
                        return Err(AgentError::BadSetting { bond, key, value, wanted });
                    }
                }
                Some(change) => {
                    return Err(AgentError::OwnSetting { bond: name.to_string(), key: key.clone(), change });
                }
            }
        }
        Ok((config, of_driver))
    }
}

impl Agent {
    /// Has a bond use the settings of `wanted` that a running bond can take. The caller has the bond's turn.
    ///
    /// # Errors
    /// The MTU cannot be set; then nothing is changed.
    pub(in crate::agent) async fn apply_own_settings(
        &self,
        bond: &Bond,
        wanted: &BondConfig,
    ) -> Result<(), AgentError> {
        let before = bond.goal();
        let before = &before.config;
        if let Some(mtu) = wanted.mtu.filter(|mtu| Some(*mtu) != before.mtu) {
            bond.work.ask(|reply| Request::SetMtu { mtu, reply }).await??;
        }
        if wanted.guard != before.guard {
            let options = self.machine.engine.status(bond.id).await?.options;
            bond.work.urgent(Urgent::SetGuard(wanted.guard));
            bond.work.urgent(Urgent::SetOptions(Box::new(options)));
        }
        let clock = WantedClock::of(wanted);
        if clock != WantedClock::of(before) {
            bond.work.urgent(Urgent::SetClock(clock));
        }
        if wanted.damping != before.damping {
            self.machine.engine.request(bond.id, Event::SetDamping(wanted.damping)).await??;
        }
        bond.change_goal(|goal| {
            let config = &mut goal.config;
            (config.mtu, config.guard, config.on_exit) = (wanted.mtu, wanted.guard, wanted.on_exit);
            (config.clock, config.clock_interval) = (wanted.clock, wanted.clock_interval);
            (config.damping, config.allow_unmonitored) = (wanted.damping, wanted.allow_unmonitored);
        });
        Ok(())
    }
}
