//! Changing bonds to what files say.

use bond_core::{
    event::Event,
    name::BondName,
    options::{BondOptions, SlaveOptions},
};

use super::plan::{HostPlan, ReloadPlan, Setting, SlaveOptionChange, address};
use crate::{
    agent::{
        Agent, AgentError, Outcome,
        lifecycle::{
            configured::{self, route_over},
            join,
            slaves::slot_of,
        },
    },
    config::{BondConfig, SlaveConfig},
    report::{log, wording},
    sys::sysctl::PromoteSecondaries,
};

impl Agent {
    /// Options come first, which may say who is to take over, and slaves before others go.
    pub(super) async fn begin(&self, plan: &ReloadPlan, outcome: &mut Outcome) {
        let name = &plan.wanted.name;
        if let Some(options) = &plan.options {
            match self.replace_options(name, options).await {
                Ok(()) => say(outcome, name, &plan.options_changed),
                Err(error) => outcome.fail(name, &error),
            }
        }
        if let Err(error) = self.begin_own_settings(plan, outcome).await {
            outcome.fail(name, &error);
        }
        for slave in &plan.joins {
            self.enslave_wanted(name, slave, outcome).await;
        }
        for SlaveOptionChange { slave, options, changed } in &plan.slave_options {
            match self.replace_slave_options(name, slave, *options).await {
                Ok(()) => say(outcome, &format!("{name}: {slave}"), changed),
                Err(error) => outcome.fail(name, &error),
            }
        }
        for slave in &plan.leaves {
            match self.del_slave(name, slave).await {
                Ok(notes) => {
                    outcome.changed_of(name, format!("{slave}: released"));
                    outcome.notes.extend(notes.into_iter().map(|note| format!("{name}: {note}")));
                }
                Err(error) => outcome.fail(name, &error),
            }
        }
    }

    async fn begin_own_settings(&self, plan: &ReloadPlan, outcome: &mut Outcome) -> Result<(), AgentError> {
        let name = &plan.wanted.name;
        let bond = self.bond(name)?;
        let _turn = bond.turn.lock().await;
        if let Some(guard) = plan.guard {
            let before = self.set_guard(&bond, guard).await?;
            outcome.changed_of(name, wording::changed("guard", guard, before));
        }
        if let Some(clock) = plan.clock {
            self.set_clock(&bond, &plan.wanted);
            outcome.changed(format!(
                "{name}: {}",
                wording::set_to("clock", wording::wanted_clock(clock.wanted_period()))
            ));
        }
        if let Some(path) = &plan.path {
            self.set_path(&bond, &plan.wanted);
            outcome.changed_of(
                name,
                wording::wanted_path(
                    &path.target,
                    path.interval,
                    path.misses,
                    (&path.method, &path.failback),
                ),
            );
        }
        if let Some(damping) = plan.damping {
            self.set_damping(&bond, damping).await?;
            outcome.changed_of(name, wording::set_to("damping", wording::wanted_damping(damping)));
        }
        if let Some(watch) = plan.watch {
            self.set_watch(&bond, watch).await?;
            outcome.changed_of(name, format!("watch={}", wording::wanted_watch(watch)));
        }
        Ok(())
    }

    pub(super) async fn finish(&self, plan: ReloadPlan, outcome: &mut Outcome) {
        let ReloadPlan { wanted, later, absent, on_exit, host, .. } = plan;
        for slave in &later {
            self.enslave_wanted(&wanted.name, slave, outcome).await;
        }
        let failures = outcome.failures.len();
        if let Some(host) = host {
            self.change_host(&wanted, &host, outcome).await;
        }
        let host_failed = outcome.failures.len() > failures;
        let Some(bond) = self.find(&wanted.name) else { return };
        let _turn = bond.turn.lock().await;
        let Ok(status) = self.machine.engine.status(bond.id).await else { return };
        let goal = bond.goal();
        let awaited = |slave: &str| goal.wanted.iter().any(|wanted| wanted.name() == slave);
        for slave in absent.iter().filter(|slave| !awaited(slave)) {
            outcome.changed_of(&wanted.name, wording::slave_absent(slave));
        }
        if let Some(on_exit) = on_exit {
            outcome.changed_of(&wanted.name, wording::changed("on_exit", on_exit, goal.config.on_exit));
        }
        let before = &goal.config;
        bond.change_goal(|goal| {
            goal.want(&wanted.slaves, &status);
            goal.of_files = true;
            goal.config = wanted.clone();
            if host_failed {
                // The next reload takes away what this one could not.
                goal.config.addresses.extend(before.addresses.iter().copied());
                goal.config.routes.extend(before.routes.iter().cloned());
            }
        });
        if wanted != (BondConfig { origin: wanted.origin.clone(), ..before.clone() }) {
            for note in wanted.notes.iter().chain(&wanted.doubts()) {
                log::of(&wanted.name).info(note);
                outcome.notes.push(note.to_string());
            }
        }
    }

    async fn enslave_wanted(&self, name: &BondName, slave: &SlaveConfig, outcome: &mut Outcome) {
        let answer = match self.find(name) {
            Some(bond) => {
                let _turn = bond.turn.lock().await;
                join::join(&self.machine, bond.joining(name), slave).await
            }
            None => Err(AgentError::NoSuchBond(name.to_string())),
        };
        match answer {
            Ok(_) => outcome.changed_of(name, format!("{}: enslaved", slave.name)),
            Err(error) => outcome.fail(name, &error),
        }
    }

    async fn replace_options(&self, name: &str, options: &BondOptions) -> Result<(), AgentError> {
        let bond = self.find(name).ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        let _turn = bond.turn.lock().await;
        self.set_options(&bond, options.clone()).await
    }

    async fn replace_slave_options(
        &self,
        name: &str,
        slave: &str,
        options: SlaveOptions,
    ) -> Result<(), AgentError> {
        let bond = self.find(name).ok_or_else(|| AgentError::NoSuchBond(name.to_owned()))?;
        let _turn = bond.turn.lock().await;
        let status = self.machine.engine.status(bond.id).await?;
        let slot = slot_of(name, &status, slave)?;
        Ok(self.machine.engine.request(bond.id, Event::SetSlaveOptions { slot, options }).await??)
    }

    /// Changes bond0's device, with what is on it by a configuration on record before it is there, and until it is gone.
    async fn change_host(&self, wanted: &BondConfig, plan: &HostPlan, outcome: &mut Outcome) {
        let name = &wanted.name;
        let Some(bond) = self.find(name) else { return };
        let there = configured::configured(plan.ifindex, wanted);
        let before = configured::configured(plan.ifindex, &bond.goal().config);
        if let Err(error) = configured::record_configured(&bond.work, there.clone().and(&before)).await {
            return outcome.fail(name, &error);
        }
        let failures = outcome.failures.len();
        self.set_up_host(wanted, plan, outcome).await;
        if outcome.failures.len() == failures
            && let Err(error) = configured::record_configured(&bond.work, there).await
        {
            outcome.fail(name, &error);
        }
    }

    /// New addresses and routes come before old ones go.
    async fn set_up_host(&self, wanted: &BondConfig, plan: &HostPlan, outcome: &mut Outcome) {
        let (name, devices) = (&wanted.name, &self.machine.devices);
        if let Some((mtu, before)) = plan.mtu {
            let answer = match self.find(name) {
                Some(bond) => self.set_mtu(&bond, mtu).await,
                None => Err(AgentError::NoSuchBond(name.to_string())),
            };
            match answer {
                Ok(()) => outcome.changed_of(name, wording::changed("mtu", mtu, before)),
                Err(error) => outcome.fail(name, &error),
            }
        }
        for net in &plan.new_addresses {
            match devices.add_address(&address(plan.ifindex, net)).await {
                Ok(()) => outcome.changed_of(name, wording::address_added(net)),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        for route in &plan.new_routes {
            match devices.replace_route(route).await {
                Ok(()) => outcome.changed_of(name, wording::route_set(route)),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        for route in &plan.old_routes {
            match devices.del_route(route).await {
                Ok(()) => outcome.changed_of(name, wording::route_deleted(route)),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        if plan.old_addresses.is_empty() {
            return;
        }
        let _others_stay = PromoteSecondaries::of(&**devices, &plan.device);
        for net in &plan.old_addresses {
            match devices.del_address(&address(plan.ifindex, net)).await {
                Ok(()) => outcome.changed_of(name, wording::address_deleted(net)),
                Err(error) => outcome.fail(name, &error.into()),
            }
        }
        // Where they could not be kept, and for routes that had a deleted address as their source.
        for net in &wanted.addresses {
            if let Err(error) = devices.add_address(&address(plan.ifindex, net)).await {
                outcome.fail(name, &error.into());
            }
        }
        for route in &wanted.routes {
            if let Err(error) = devices.replace_route(&route_over(plan.ifindex, route)).await {
                outcome.fail(name, &error.into());
            }
        }
    }
}

/// A line for each option.
fn say(outcome: &mut Outcome, of: &str, changed: &[Setting]) {
    let word = |value: &str| if value.is_empty() { "none".to_owned() } else { value.to_owned() };
    for (key, after, before) in changed {
        outcome.changed(format!("{of}: {}", wording::changed(key, word(after), word(before))));
    }
}
