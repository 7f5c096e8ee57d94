//! What events do, and what is done at the end.

use bond_common::abi::{SlaveEntry, Slot};
use bond_core::name::InterfaceName;

use super::{Due, END_AT_MOST, Programs, World, bond::Bond, check, links::Late, mac_of};
use crate::plan::{Event, KillPoint};

impl World<'_> {
    /// An event of the plan.
    pub(super) fn happen(&mut self, event: &Event) {
        let now = self.clocks.now;
        match event {
            Event::Cable { .. }
            | Event::Admin { .. }
            | Event::Unplug { .. }
            | Event::PlugIn { .. }
            | Event::Macs { .. } => self.nics.happen(&self.kernel, event),
            Event::HoldRtnl { ms } => {
                self.kernel.set_rtnl_held(true);
                self.rtnl_held_until = self.rtnl_held_until.max(now + ms);
                self.plan_at(self.rtnl_held_until, Due::Rtnl);
            }
            Event::DelayLinkEvents { by, ms } => {
                self.links.set_late(Some(Late::By(*by)));
                self.plan_at(now + ms, Due::LinksInTime);
            }
            Event::LoseLinkEvents { ms } => {
                self.links.set_late(Some(Late::Lost));
                self.plan_at(now + ms, Due::Overrun);
            }
            Event::FailCall { calls, errno, is_done } => {
                if self.process.is_some() {
                    self.nics.note_fault();
                    self.faults().push((*calls, *errno, *is_done));
                }
            }
            Event::Kill { .. }
            | Event::Terminate { .. }
            | Event::Stop { .. }
            | Event::Suspend { .. }
            | Event::SetTimeOfDay { .. } => self.happen_to_process(event),
            Event::TearReceipts { bond, bytes } => self.tear(*bond, *bytes),
            Event::OverwriteSlave { bond, slot } => {
                self.overwrite(*bond, |bond| {
                    let entry = SlaveEntry::new(4711, mac_of(99), mac_of(98));
                    if let (Some(words), Some(slot)) = (&bond.words, Slot::new(*slot)) {
                        words.write_slave(slot, entry);
                    }
                });
            }
            Event::OverwriteBond { bond } => self.overwrite(*bond, |bond| {
                if let Some(words) = &bond.words {
                    words.write_bond(words.bond().with_flags(0).with_host_mac(mac_of(97)));
                }
            }),
            Event::Traffic { bond, on } => {
                if let Some(bond) = self.bonds.get_mut(*bond) {
                    bond.has_traffic = *on;
                }
            }
            Event::Set { .. }
            | Event::AddSlave { .. }
            | Event::DelSlave { .. }
            | Event::Down { .. }
            | Event::Reload => {
                self.request(event);
            }
        }
    }

    /// What happens to the agent's process, and to its clocks.
    fn happen_to_process(&mut self, event: &Event) {
        let now = self.clocks.now;
        match event {
            Event::Kill { point: KillPoint::Now, ms } => self.kill(*ms),
            Event::Kill { point: KillPoint::AtCall(call), ms } if self.process.is_some() => {
                self.comes_back_after = *ms;
                self.kernel.stop_after(Some(usize::from(*call)));
            }
            Event::Terminate { ms } => {
                if let Some(process) = self.process.as_mut().filter(|_| self.runs_since.is_some()) {
                    self.comes_back_after = *ms;
                    process.terminate();
                    (self.runs_since, self.changed_at) = (None, now);
                }
            }
            Event::Stop { ms } if self.process.is_some() && self.stopped_until.is_none() => {
                (self.stopped_until, self.changed_at) = (Some(now + ms), now);
                self.plan_at(now + ms, Due::Continue);
            }
            Event::Suspend { ms } => self.clocks.suspended += ms,
            Event::SetTimeOfDay { seconds } => {
                self.clocks.wall = self.clocks.wall.saturating_add_signed(seconds * 1000);
            }
            _ => {}
        }
    }

    fn overwrite(&mut self, bond: usize, write: impl FnOnce(&Bond)) {
        let until = self.clocks.now + FOREIGN;
        if let Some(bond) = self.bonds.get_mut(bond) {
            bond.foreign_until = until;
            write(bond);
        }
    }

    fn tear(&mut self, bond: usize, bytes: u64) {
        if self.process.is_some() {
            return;
        }
        check::records::read(self, bond);
        let Some(name) = self.names.get(bond) else { return };
        let path = self.machine.receipts_path(name);
        let Ok(file) = std::fs::File::options().write(true).open(path) else { return };
        let Ok(length) = file.metadata().map(|metadata| metadata.len()) else { return };
        let _ = file.set_len(length.saturating_sub(bytes));
    }

    fn request(&mut self, event: &Event) {
        let now = self.clocks.now;
        if self.runs_since.is_none() || self.stopped_until.is_some() {
            return;
        }
        let configs = self.configs.clone();
        let Some(process) = &mut self.process else { return };
        if process.is_ending() {
            return;
        }
        let what = event.to_string();
        let name = |bond: &usize| self.names.get(*bond).cloned();
        match event {
            Event::Set { bond, key, value } => {
                let (Some(bond), key, value) = (name(bond), *key, value.clone()) else { return };
                process.request(now, what, |agent| async move { agent.set(&bond, key, &value).await });
            }
            Event::AddSlave { bond, nic } => {
                let (Some(bond), Ok(slave)) = (name(bond), InterfaceName::new(format!("nic{nic}"))) else {
                    return;
                };
                self.nics.note_request(*nic);
                process.request(now, what, |agent| async move { agent.add_slave(&bond, &slave).await });
            }
            Event::DelSlave { bond, nic } => {
                let (Some(bond), slave) = (name(bond), format!("nic{nic}")) else { return };
                self.nics.note_request(*nic);
                process.request(now, what, |agent| async move { agent.del_slave(&bond, &slave).await });
            }
            Event::Down { bond } => {
                let Some(name) = name(bond) else { return };
                if let Some(of_files) = self.of_files.get_mut(*bond) {
                    *of_files = false;
                }
                process.request(now, what, |agent| async move { agent.down(&name).await });
            }
            Event::Reload => {
                self.of_files.iter_mut().for_each(|of_files| *of_files = true);
                process.request(now, what, |agent| async move {
                    let outcome = agent.reload(configs).await;
                    if outcome.failures.is_empty() { Ok(()) } else { Err(outcome.failures.join("; ")) }
                });
            }
            _ => {}
        }
        self.plan_at(now + 1, Due::Look);
    }

    /// Ticks of a bond, each with a packet of the host.
    pub(super) fn tick(&mut self, number: usize) {
        let now = self.clocks.now;
        let Some(bond) = self.bonds.get_mut(number) else { return };
        if bond.next_tick > now {
            // It was planned anew since.
            return;
        }
        bond.follow(&self.machine, &self.kernel);
        let is_hot = bond.hot_until >= now;
        let mut has_events = false;
        if let Some(words) = &bond.words {
            let programs = Programs { words, kernel: &self.kernel, now };
            if is_hot {
                let sent = bond.has_traffic.then(|| programs.send());
                programs.tick();
                has_events = words.events().has_records();
                bond.liveness.note(sent);
            } else {
                programs.skip_ticks(now + super::COLD + 50);
            }
        }
        let next = now + if is_hot { bond.period } else { super::COLD };
        bond.next_tick = next;
        if has_events && let Some(process) = &self.process {
            process.agent().data_plane_events(&bond.name);
        }
        self.plan_at(next, Due::Tick(number));
    }

    /// After each event, and each tick.
    pub(super) fn observe(&mut self) {
        for number in 0..self.bonds.len() {
            if let Some(bond) = self.bonds.get_mut(number) {
                bond.follow(&self.machine, &self.kernel);
            }
            check::always(self, number);
        }
    }

    /// Nothing fails any more, and there are no more requests.
    pub(super) fn heal(&mut self) {
        let runtime = self.process.as_ref().map(super::Process::runtime);
        let _clocks = runtime.as_ref().map(tokio::runtime::Handle::enter);
        self.note("# everything is healed");
        self.is_ending = true;
        self.rtnl_held_until = 0;
        self.kernel.set_rtnl_held(false);
        self.kernel.stop_after(None);
        self.faults().clear();
        if !self.links.are_prompt() {
            self.links.deliver_late(u64::MAX, self.process.as_ref());
            self.links.overrun(self.process.as_ref());
        }
        self.stopped_until = self.stopped_until.map(|_| self.clocks.now);
        self.resume();
        self.nics.heal(&self.kernel);
        self.of_files.iter_mut().for_each(|of_files| *of_files = true);
        self.heat();
    }

    /// Waits until an agent runs that has every bond, and has nothing more to do.
    pub(super) fn wait_until_settled(&mut self) -> anyhow::Result<()> {
        let limit = self.clocks.now + END_AT_MOST;
        let mut reloaded = false;
        while self.violation.is_none() {
            // Requests may have released slaves of files.
            if self.runs_since.is_some() && !reloaded {
                reloaded = true;
                self.request(&Event::Reload);
            }
            if self.clocks.now >= limit {
                let missing: Vec<_> = self.missing();
                self.fail(format!("in a healed world the agent does not settle: {}", missing.join(", ")));
                break;
            }
            if self.process.is_none() {
                self.start()?;
            }
            if reloaded && self.missing().is_empty() {
                break;
            }
            self.run_until(self.clocks.now + 1_000)?;
        }
        self.run_until(self.clocks.now + super::QUIET)
    }

    /// Returns what an agent still has to do, a word for each thing.
    fn missing(&self) -> Vec<String> {
        let Some(process) = self.process.as_ref().filter(|_| self.runs_since.is_some()) else {
            return vec!["an agent that runs".to_owned()];
        };
        let mut missing = Vec::new();
        if let Some(request) = process.oldest_request() {
            missing.push(format!("the answer to `{}` of {} ms", request.what, request.since - super::BEGIN));
        }
        for name in &self.names {
            match process.agent().status(name) {
                None => missing.push(format!("{name}")),
                Some(_) if !process.inside(self.clocks, process.agent().is_settled(name)) => {
                    missing.push(format!("{name} is not settled"));
                }
                Some(_) => {}
            }
        }
        missing
    }

    /// Takes everything down, and compares what is left with what was there.
    pub(super) fn take_down(&mut self) -> anyhow::Result<()> {
        self.note("# everything is taken down");
        let limit = self.clocks.now + END_AT_MOST;
        self.of_files.iter_mut().for_each(|of_files| *of_files = false);
        if let Some(process) = &mut self.process {
            process.terminate();
            self.runs_since = None;
        }
        while self.process.is_some() && self.violation.is_none() {
            if self.clocks.now >= limit {
                self.fail("the agent does not end");
            }
            self.run_until(self.clocks.now + 1_000)?;
        }
        if self.violation.is_some() {
            return Ok(());
        }
        let left = self.machine.bonds();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        for name in left {
            if let Err(error) = runtime.block_on(self.machine.undo(&name)) {
                self.fail(format!("xbond down {name} --force: {error}"));
            }
        }
        if self.violation.is_none() {
            check::taken_down(self);
        }
        Ok(())
    }
}

/// Until then at the latest what another process has written to maps is restored, in milliseconds, if an agent runs.
const FOREIGN: u64 = 1_500;
