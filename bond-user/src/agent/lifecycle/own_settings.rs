//! `xbond set` on settings of xbond's own that a running bond can take.

use bond_core::{damping::Damping, event::Event, name::BondName, watch::Watch};

use crate::{
    agent::{
        Agent, AgentError, Bond, Goal,
        bond::work::{Request, Urgent},
        lifecycle::{
            DEFAULT_MTU,
            configured::{configured, record_configured},
            reload::plan::{plan_host, wanted_mtu},
        },
    },
    config::{
        BondConfig, Guard, WantedClock, WantedPath,
        settings::{self, Change},
    },
};

/// The keys of settings that a reload changes and `xbond set` does not: they are lists.
const LISTS: [&str; 3] = ["slaves", "addresses", "routes"];

/// Returns the keys of settings that `xbond set` takes.
pub(in crate::agent) fn settable() -> impl Iterator<Item = &'static str> {
    let live = settings::ROWS.iter().filter(|row| row.change == Change::Live).map(|row| row.key);
    live.filter(|key| !LISTS.contains(key))
}

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
    /// bond0 cannot have the MTU; then nothing is changed.
    pub(in crate::agent) async fn apply_own_settings(
        &self,
        bond: &Bond,
        wanted: &BondConfig,
    ) -> Result<(), AgentError> {
        let goal = bond.goal();
        let before = &goal.config;
        if wanted.mtu != before.mtu {
            self.change_mtu(bond, &goal, wanted).await?;
        }
        if wanted.guard != before.guard {
            self.set_guard(bond, wanted.guard).await?;
        }
        if WantedClock::of(wanted) != WantedClock::of(before) {
            self.set_clock(bond, wanted);
        }
        if WantedPath::of(wanted) != WantedPath::of(before) {
            self.set_path(bond, wanted);
        }
        if wanted.damping != before.damping {
            self.set_damping(bond, wanted.damping).await?;
        }
        if wanted.watch != before.watch {
            self.set_watch(bond, wanted.watch).await?;
        }
        bond.change_goal(|goal| {
            (goal.config.on_exit, goal.config.allow_unmonitored) = (wanted.on_exit, wanted.allow_unmonitored);
        });
        Ok(())
    }

    /// Gives all devices of a bond an MTU, in bytes.
    ///
    /// # Errors
    /// A device cannot have it; then all of them have the former one.
    pub(super) async fn set_mtu(&self, bond: &Bond, mtu: u32) -> Result<(), AgentError> {
        bond.work.ask(|reply| Request::SetMtu { mtu, reply }).await??;
        // A query that the kernel does not answer soon shows what was read last.
        self.counters.refresh(&self.machine.devices, &[bond.host.device(), bond.host.port()]).await;
        Ok(())
    }

    /// Gives all devices of a bond the MTU of `wanted`, with the checks and the record of a reload.
    async fn change_mtu(&self, bond: &Bond, goal: &Goal, wanted: &BondConfig) -> Result<(), AgentError> {
        let observed = self.observe_host(bond, goal, wanted).await?;
        let host = plan_host(&goal.config, wanted, observed)?.map(|host| host.ifindex);
        let [before, after] = [&goal.config, wanted].map(|config| host.map(|host| configured(host, config)));
        if let (Some(before), Some(after)) = (&before, &after) {
            record_configured(&bond.work, after.clone().and(before)).await?;
        }
        let mtu = wanted_mtu(&goal.config, wanted).unwrap_or(DEFAULT_MTU);
        self.set_mtu(bond, mtu).await?;
        bond.change_goal(|goal| goal.config.mtu = wanted.mtu);
        match after {
            Some(after) => record_configured(&bond.work, after).await,
            None => Ok(()),
        }
    }

    /// Returns the former one. The caller has the bond's turn.
    pub(super) async fn set_guard(&self, bond: &Bond, guard: Guard) -> Result<Guard, AgentError> {
        let options = self.machine.engine.status(bond.id).await?.options;
        bond.work.urgent(Urgent::SetGuard(guard));
        bond.work.urgent(Urgent::SetOptions(Box::new(options)));
        Ok(bond.change_goal(|goal| std::mem::replace(&mut goal.config.guard, guard)))
    }

    /// Has the worker start or stop the clock. The caller has the bond's turn.
    pub(super) fn set_clock(&self, bond: &Bond, wanted: &BondConfig) {
        bond.work.urgent(Urgent::SetClock(WantedClock::of(wanted)));
        bond.change_goal(|goal| {
            (goal.config.clock, goal.config.clock_interval) = (wanted.clock, wanted.clock_interval);
        });
    }

    /// Has the path monitor probe other targets, or probe them differently. The caller has the bond's turn.
    pub(super) fn set_path(&self, bond: &Bond, wanted: &BondConfig) {
        bond.path.want(WantedPath::of(wanted));
        bond.change_goal(|goal| {
            goal.config.path_target = wanted.path_target.clone();
            (goal.config.path_interval, goal.config.path_misses) = (wanted.path_interval, wanted.path_misses);
            (goal.config.path_method, goal.config.failback) = (wanted.path_method, wanted.failback);
        });
    }

    /// The caller has the bond's turn.
    pub(super) async fn set_damping(&self, bond: &Bond, damping: Option<Damping>) -> Result<(), AgentError> {
        self.machine.engine.request(bond.id, Event::SetDamping(damping)).await??;
        bond.change_goal(|goal| goal.config.damping = damping);
        Ok(())
    }

    /// The caller has the bond's turn.
    pub(super) async fn set_watch(&self, bond: &Bond, watch: Option<Watch>) -> Result<(), AgentError> {
        self.machine.engine.request(bond.id, Event::SetWatch(watch)).await??;
        bond.change_goal(|goal| goal.config.watch = watch);
        Ok(())
    }
}
