//! Doing what a plan says, stage by stage, and the end of a takeover.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bond_core::name::BondName;
use tokio::time::sleep;

use super::{
    observe::observe,
    plan::{TakeoverPlan, first_name, plan},
};
use crate::{
    agent::{
        Agent, AgentError, Bond, Phase, Stopping, check_kernel,
        lifecycle::{create::Manner, end::undo, join},
    },
    config::BondConfig,
    report::{log, wording},
    store::{
        record::Trial,
        takeovers::{self, TakenNic, TakeoverRecord, TakeoverStage},
    },
    sys::{
        SysError,
        announcer::{MacBehind, reverse_arp},
        directory::Trust,
        handover::Way,
        netlink::{LinkSetting, PairKind, PairPlan, VlanTag},
    },
};

/// A NIC that was set up needs some seconds until it has a link.
const LINK_WITHIN: Duration = Duration::from_secs(10);
/// A frame that another slave sends arrives within this time, if it does.
const HEARD_WITHIN: Duration = Duration::from_secs(2);
const BETWEEN_CHECKS: Duration = Duration::from_millis(20);
/// How long frames may be under way to a port that switches do not use any more.
pub(super) const UNDER_WAY: Duration = Duration::from_millis(200);

impl Agent {
    /// Takes a live bond of the kernel's driver over. With `confirm` it is led back after this time, unless it is
    /// confirmed. Returns what was done, a line each.
    ///
    /// # Errors
    /// [`AgentError::CannotTakeOver`]: nothing was changed. [`AgentError::NotTakenOver`]: it was led back, as far as the
    /// error says.
    pub async fn take_over(
        self: &Arc<Self>,
        config: BondConfig,
        confirm: Option<Duration>,
    ) -> Result<Vec<String>, AgentError> {
        let phase = self.phase.lock().await;
        if *phase == Phase::Ending {
            return Err(Stopping.into());
        }
        let name = config.name.clone();
        if self.find(&name).is_some() {
            return Err(AgentError::HasBond(name.to_string()));
        }
        if self.is_left(&name) {
            return Err(AgentError::Orphaned(name.to_string()));
        }
        check_kernel(&config)?;
        let observed = observe(&self.machine, &name).await?;
        let TakeoverPlan { config, record } = plan(&config, &observed)?;
        let mut course = Course { agent: self, record, lines: Vec::new() };
        if let Err(error) = course.run(&config, confirm).await {
            let Course { mut record, .. } = course;
            log::of(&name).warn(wording::takeover_failed(&error));
            let back = self.lead_back(&mut record).await;
            let (bond, error) = (name.to_string(), Box::new(error));
            return Err(match back {
                Ok(()) => AgentError::NotTakenOver { bond, error },
                Err(back) => AgentError::NotLedBack { bond, error, back: Box::new(back) },
            });
        }
        let Course { mut record, mut lines, .. } = course;
        match confirm {
            None => lines.extend(self.finish_takeover(&mut record).await?),
            Some(limit) => {
                lines.push(wording::takeover_on_trial(&name, limit.as_secs()));
                let agent = Arc::clone(self);
                tokio::spawn(async move {
                    sleep(limit).await;
                    agent.end_takeover_trial(&name).await;
                });
            }
        }
        Ok(lines)
    }

    /// Removes the driver's bond, which nothing uses any more. Returns what was done.
    ///
    /// # Errors
    /// takeovers.json cannot be written. What cannot be removed is logged, and left.
    pub(super) async fn finish_takeover(
        &self,
        record: &mut TakeoverRecord,
    ) -> Result<Vec<String>, AgentError> {
        record.stage = TakeoverStage::Finishing;
        takeovers::put(&self.machine.paths, record)?;
        self.remove_first(record).await;
        takeovers::remove(&self.machine.paths, &record.bond)?;
        let line = wording::takeover_finished(&record.bond);
        log::of(&record.bond).info(&line);
        Ok(vec![line])
    }

    /// Removes the devices of the driver, the uppermost first.
    pub(super) async fn remove_first(&self, record: &TakeoverRecord) {
        let devices = &*self.machine.devices;
        let stand_in = devices.link_by_name(&stand_in(record)[0]).await.map(|link| link.ifindex).ok();
        let mut all: Vec<u32> = Vec::new();
        for twin in record.twins.iter().rev() {
            let made = match twin.first {
                // It was made, and not recorded yet.
                0 => devices.link_by_name(&twin.first_aside).await.ok().map(|link| link.ifindex),
                first => Some(first),
            };
            all.extend(made);
        }
        for ifindex in all.into_iter().chain(stand_in) {
            if let Err(error) = devices.delete(ifindex).await {
                log::of(&record.bond).warn(error);
            }
        }
    }

    /// The takeovers that wait for a confirmation.
    pub(in crate::agent) fn takeovers_on_trial(&self) -> Vec<TakeoverRecord> {
        let known = takeovers::read(&self.machine.paths, Trust::Ours).unwrap_or_default();
        known.into_iter().filter(|known| known.stage == TakeoverStage::OnTrial).collect()
    }

    /// Confirms the takeovers that are on trial. Returns what was done; nothing if none is.
    ///
    /// # Errors
    /// The time is over, or the file cannot be written.
    pub(in crate::agent) async fn confirm_takeovers(&self) -> Result<Vec<String>, AgentError> {
        let _phase = self.phase.lock().await;
        let mut lines = Vec::new();
        for mut record in self.takeovers_on_trial() {
            if let Some(trial) = record.trial.as_ref().filter(|trial| trial.is_over()) {
                return Err(AgentError::ConfirmedTooLate { seconds: trial.seconds() });
            }
            lines.extend(self.finish_takeover(&mut record).await?);
        }
        Ok(lines)
    }

    /// Leads a takeover back whose time is over.
    async fn end_takeover_trial(&self, name: &BondName) {
        let _phase = self.phase.lock().await;
        let of_bond = |record: &TakeoverRecord| {
            record.bond == *name && record.trial.as_ref().is_some_and(Trial::is_over)
        };
        for mut record in self.takeovers_on_trial().into_iter().filter(of_bond) {
            log::of(name).warn(wording::takeover_unconfirmed());
            if let Err(error) = self.lead_back(&mut record).await {
                log::of(name).warn(wording::takeover_not_back(&error));
            }
        }
    }
}

/// Names of the pair that gives the driver's bond a carrier while it has no NIC: its slave, and the other end.
pub(super) fn stand_in(record: &TakeoverRecord) -> [String; 2] {
    let stem = record.twins.first().map_or("xbo0", |twin| &*twin.first_aside);
    ["s", "p"].map(|end| format!("{stem}{end}"))
}

/// A takeover that is under way.
struct Course<'a> {
    agent: &'a Agent,
    record: TakeoverRecord,
    lines: Vec<String>,
}

impl Course<'_> {
    /// Records that a stage begins, and logs it.
    fn begin(&mut self, stage: TakeoverStage, line: String) -> Result<(), AgentError> {
        self.record.stage = stage;
        self.save()?;
        log::of(&self.record.bond).info(&line);
        self.lines.push(wording::of_bond(&self.record.bond, line));
        Ok(())
    }

    fn save(&self) -> Result<(), AgentError> {
        Ok(takeovers::put(&self.agent.machine.paths, &self.record)?)
    }

    async fn run(&mut self, config: &BondConfig, confirm: Option<Duration>) -> Result<(), AgentError> {
        let devices = &*self.agent.machine.devices;
        let first = self.record.first.clone();
        self.begin(TakeoverStage::Releasing, wording::takeover_releases(&first.name))?;
        devices.release_from_driver(first.ifindex).await?;
        self.prove(&first).await?;
        self.begin(TakeoverStage::Preparing, wording::takeover_prepares(self.record.twins.len()))?;
        self.prepare(config).await?;
        self.begin(TakeoverStage::Joining, wording::takeover_joins(&first.name))?;
        self.join(&first).await?;
        self.begin(TakeoverStage::TurningOver, wording::takeover_turns())?;
        devices.turn_over(&self.record.twins, Way::Over).await?;
        self.begin(TakeoverStage::Renaming, wording::takeover_renames())?;
        devices.name_twins(&self.record.twins, Way::Over).await?;
        self.begin(TakeoverStage::Following, wording::takeover_follows(self.record.others.len()))?;
        sleep(UNDER_WAY).await;
        self.agent.put_stand_in(&self.record).await?;
        for other in self.record.others.clone() {
            devices.release_from_driver(other.ifindex).await?;
            self.join(&other).await?;
        }
        devices.finish_twins(&self.record.twins, Way::Over).await?;
        self.record.trial = confirm.map(Trial::within);
        self.record.stage = TakeoverStage::OnTrial;
        self.save()
    }

    /// Tries the backup before anything depends on it: it has a link, and hears what the bond sends. It answers nothing
    /// meanwhile.
    async fn prove(&self, nic: &TakenNic) -> Result<(), AgentError> {
        let devices = &*self.agent.machine.devices;
        // Otherwise it would answer for the bond's addresses with its own MAC address.
        devices.set(nic.ifindex, LinkSetting::Noarp(true)).await?;
        devices.set(nic.ifindex, LinkSetting::Up(true)).await?;
        let heard = self.hears(nic).await;
        devices.set(nic.ifindex, LinkSetting::Up(false)).await?;
        devices.set(nic.ifindex, LinkSetting::Noarp(false)).await?;
        heard
    }

    async fn hears(&self, nic: &TakenNic) -> Result<(), AgentError> {
        let devices = &*self.agent.machine.devices;
        let until = Instant::now() + LINK_WITHIN;
        while !devices.link_by_index(nic.ifindex).await?.has_link() {
            if Instant::now() >= until {
                return Err(AgentError::NotProven {
                    slave: nic.name.to_string(),
                    why: wording::proof_no_link(),
                });
            }
            sleep(BETWEEN_CHECKS).await;
        }
        let frames = self.announcements().await?;
        let Some(bond) = self.record.twins.first() else { return Ok(()) };
        let sender = devices.open_frames(bond.first)?;
        let received = async || {
            let stats = devices.counted_link(nic.ifindex).await?.stats;
            Ok::<_, SysError>(stats.map(|stats| stats.rx_packets))
        };
        // A device that counts nothing proves nothing.
        let Some(before) = received().await? else { return Ok(()) };
        let until = Instant::now() + HEARD_WITHIN;
        loop {
            // A queue that is full now has room later.
            frames.iter().for_each(|frame| drop(sender.send(frame)));
            sleep(BETWEEN_CHECKS).await;
            if received().await? != Some(before) {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(AgentError::NotProven {
                    slave: nic.name.to_string(),
                    why: wording::proof_silent(),
                });
            }
        }
    }

    /// Frames that switches pass on to every port of the network, without a tag and with that of each VLAN.
    async fn announcements(&self) -> Result<Vec<bytes::BytesMut>, AgentError> {
        let mut frames = Vec::new();
        for twin in &self.record.twins {
            let link = self.agent.machine.devices.link_by_index(twin.first).await?;
            let tags: Vec<VlanTag> = link.vlan.into_iter().collect();
            frames.push(reverse_arp(&MacBehind { mac: link.mac, tags }));
        }
        Ok(frames)
    }

    /// Makes xbond's bond without slaves, and everything above it.
    async fn prepare(&mut self, config: &BondConfig) -> Result<(), AgentError> {
        let (agent, name) = (self.agent, &config.name);
        let device = first_name(&self.record)?;
        let alone = BondConfig { slaves: Vec::new(), ..config.clone() };
        let id = agent.new_id();
        if let Err(error) = agent.make_as(id, alone, Manner::StandBy(device)).await {
            undo(&agent.machine, id, name, &error).await;
            return Err(error);
        }
        let bond = agent.bond(name)?;
        bond.change_goal(|goal| goal.config = config.clone());
        if let Some(twin) = self.record.twins.first_mut() {
            twin.second = bond.host.device();
        }
        self.save()?;
        let devices = &*agent.machine.devices;
        devices.make_vlans(&mut self.record.twins, Way::Over).await?;
        self.save()?;
        devices.prepare_twins(&self.record.twins, Way::Over).await?;
        self.settle(&bond).await
    }

    async fn settle(&self, bond: &Bond) -> Result<(), AgentError> {
        join::settle(&self.agent.machine, bond.id, &bond.work).await
    }

    /// Enslaves a NIC that the driver has released.
    async fn join(&self, nic: &TakenNic) -> Result<(), AgentError> {
        let options =
            [("prio", nic.options.prio.to_string()), ("queue_id", nic.options.queue_id.to_string())];
        let options = options.into_iter().filter(|(_, value)| value != "0");
        let options: Vec<_> = options.map(|(key, value)| (key.to_owned(), value)).collect();
        self.agent.add_slave(&self.record.bond, &nic.name, &options).await?;
        let bond = self.agent.bond(&self.record.bond)?;
        self.settle(&bond).await?;
        let until = Instant::now() + LINK_WITHIN;
        while self.agent.machine.engine.status(bond.id).await?.active_slave.is_none() {
            if Instant::now() >= until {
                return Err(AgentError::NotProven {
                    slave: nic.name.to_string(),
                    why: wording::proof_no_link(),
                });
            }
            sleep(BETWEEN_CHECKS).await;
        }
        Ok(())
    }
}

impl Agent {
    /// Gives the driver's bond a slave that has a carrier and leads nowhere, so that its devices stay ready.
    pub(super) async fn put_stand_in(&self, record: &TakeoverRecord) -> Result<(), AgentError> {
        let devices = &*self.machine.devices;
        let [slave, far] = stand_in(record);
        let Some(bond) = record.twins.first() else { return Ok(()) };
        let link = devices.link_by_index(bond.first).await?;
        let pair = match devices.link_by_name(&slave).await {
            Ok(link) => link.ifindex,
            Err(error) if error.is_gone() => {
                let plan = PairPlan {
                    bond: &slave,
                    port: &far,
                    mac: link.mac,
                    mtu: link.mtu,
                    queues: 1,
                    mark: None,
                };
                let made = devices.create_pair(PairKind::Veth, &plan).await?;
                devices.set(made.port.ifindex, LinkSetting::Up(true)).await?;
                made.bond.ifindex
            }
            Err(error) => return Err(error.into()),
        };
        Ok(devices.enslave_to_driver(bond.first, pair, Default::default()).await?)
    }
}
