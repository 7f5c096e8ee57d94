//! Keeps the clock of one bond running: its pair, its tick, and the frames that circulate.
//!
//! The bond works without its clock, so nothing here fails a bond: what cannot be had is reported, and tried again later.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bond_common::clock::layout::{ClockEntry, TickEntry};
use bond_core::{name::BondName, options::BondOptions};

use crate::{
    agent::AgentError,
    config::{self, WantedClock},
    report::{moment::monotonic, wording},
    store::record::{Record, RecordedClock},
    sys::{
        Devices,
        clock::{self, ClockNames, ClockPair},
        dataplane::{ClockEnd, DataPlane, Kernel},
        ownership::Ownership,
    },
};

/// The time from one attempt to start the clock to the next; doubled after each failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(64);
/// Over how many ticks, and how much time, the pace of the clock is measured at least.
const PACE_TICKS: u128 = 8;
const PACE_TIME: Duration = Duration::from_millis(900);

/// Whether the clock runs, as far as the agent knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ClockState {
    /// No attempt to start it was made yet.
    #[default]
    Starting,
    On,
    /// With the reason.
    Off(String),
}

impl ClockState {
    /// Returns why the clock does not run; None if it does.
    pub fn why_off(&self) -> Option<&str> {
        match self {
            Self::On => None,
            Self::Starting => Some(wording::CLOCK_STARTING),
            Self::Off(why) => Some(why),
        }
    }
}

/// What [`ClockKeeper::keep`] has done, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The clock ticks as before.
    Unchanged,
    Started,
    /// It stood still, or its pair was gone.
    Restarted,
    Stopped,
    /// It cannot run, for a reason that was not reported yet.
    Failed(String),
}

/// The state, for readers.
#[derive(Clone, Debug, Default)]
pub struct SharedClockState(Arc<Mutex<ClockState>>);

impl SharedClockState {
    pub fn get(&self) -> ClockState {
        self.state().clone()
    }

    /// Returns the former state.
    fn set(&self, state: ClockState) -> ClockState {
        std::mem::replace(&mut *self.state(), state)
    }

    fn state(&self) -> MutexGuard<'_, ClockState> {
        // Poisoned or not, it is one state or the other.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clock of a bond.
#[derive(Debug)]
pub struct ClockKeeper {
    bond: BondName,
    wanted: WantedClock,
    state: SharedClockState,
    /// TICKS had counted so many then.
    counted: Option<(Instant, u64)>,
    /// It has ticked since it was started.
    has_ticked: bool,
    /// When the next attempt may be made, and how long after the last that is.
    retry: Option<(Instant, Duration)>,
}

/// What the keeper works on.
pub struct ClockTools<'a> {
    pub devices: &'a dyn Devices,
    pub plane: &'a mut dyn DataPlane,
    pub record: &'a mut Record,
    /// What is known to be the bond's.
    pub proof: Ownership,
}

impl ClockKeeper {
    pub fn new(bond: BondName, wanted: WantedClock) -> Self {
        let state = SharedClockState::default();
        Self { bond, wanted, state, counted: None, has_ticked: false, retry: None }
    }

    /// Has the clock run so from the next check on.
    pub fn want(&mut self, wanted: WantedClock) {
        if self.wanted != wanted {
            // The agent starts it again; it has not stopped by itself.
            (self.wanted, self.retry, self.has_ticked) = (wanted, None, false);
            self.state.set(ClockState::Starting);
        }
    }

    /// Returns the state, which changes with the clock's.
    pub fn state(&self) -> SharedClockState {
        self.state.clone()
    }

    /// Checks that the clock is as it is wanted, and makes it so. Without a change this reads words of memory.
    pub async fn keep(&mut self, mut tools: ClockTools<'_>) -> Kept {
        if self.wanted.clock == config::Clock::Off {
            return self.stop(&mut tools).await;
        }
        let mirror = tools.plane.mirror();
        let found = mirror.maps().clock().map(|maps| (maps.entry(), maps.ticks())).unwrap_or_default();
        let is_ticking = self.is_ticking(&found, Instant::now());
        if self.state.get() == ClockState::On && is_ticking {
            (self.has_ticked, self.retry) = (true, None);
            return Kept::Unchanged;
        }
        // One that another agent has left, too.
        let stood_still = self.has_ticked || found.0.period > 0 && found.1.ticks > 0 && !is_ticking;
        if self.retry.is_some_and(|(at, _)| Instant::now() < at) {
            return Kept::Unchanged;
        }
        let started = self.start(&mut tools).await;
        let wait = self.retry.map_or(FIRST_RETRY, |(_, wait)| (2 * wait).min(LAST_RETRY));
        self.retry = Some((Instant::now() + wait, wait));
        self.counted = None;
        match started {
            Ok(()) => {
                self.state.set(ClockState::On);
                self.has_ticked = false;
                if stood_still { Kept::Restarted } else { Kept::Started }
            }
            Err(error) => {
                let state = ClockState::Off(error.to_string());
                let is_new = self.state.set(state.clone()) != state;
                if is_new { Kept::Failed(error.to_string()) } else { Kept::Unchanged }
            }
        }
    }

    /// Returns whether the clock has ticked just now, and since the last check at least at half of its pace: another process
    /// may have replaced its qdisc.
    fn is_ticking(&mut self, (entry, ticks): &(ClockEntry, TickEntry), now: Instant) -> bool {
        let time = u64::try_from(monotonic().as_nanos()).unwrap_or(u64::MAX);
        if entry.period == 0 || ticks.has_stopped(time, entry.period) {
            return false;
        }
        let Some((at, counted)) = self.counted else {
            self.counted = Some((now, ticks.ticks));
            return true;
        };
        let elapsed = now.saturating_duration_since(at);
        let due = elapsed.as_nanos() / u128::from(entry.period);
        // Of few ticks a delay of one is much.
        if due < PACE_TICKS || elapsed < PACE_TIME {
            return true;
        }
        self.counted = Some((now, ticks.ticks));
        2 * u128::from(ticks.ticks.wrapping_sub(counted)) >= due
    }

    async fn start(&self, tools: &mut ClockTools<'_>) -> Result<(), AgentError> {
        let period = self.wanted.period;
        let mirror = tools.plane.mirror();
        let pair = match existing(tools).await? {
            Some(pair) => {
                // A qdisc that is changed keeps the frames that are in it.
                clock::prepare(tools.devices, pair, period).await?;
                pair
            }
            None => self.create(tools).await?,
        };
        let receiver = tools.devices.link_by_index(pair.receiver).await?;
        let sender = tools.devices.link_by_index(pair.sender).await?;
        let receiver = ClockEnd { device: &receiver.name, ifindex: pair.receiver };
        tools.plane.attach_tick(receiver, ClockEnd { device: &sender.name, ifindex: pair.sender })?;
        mirror.update_clock(|clock| {
            clock.period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
            clock.sender = pair.sender.into();
        });
        if let Some(maps) = mirror.maps().clock() {
            clock::inject(tools.devices, pair, maps.ticks().frames.map(|lap| lap.sequence))?;
        }
        Ok(())
    }

    async fn create(&self, tools: &mut ClockTools<'_>) -> Result<ClockPair, AgentError> {
        let names = ClockNames::free(tools.devices, &self.bond).await?;
        tools.record.set_clock(Some(RecordedClock { names: names.clone(), ends: None }))?;
        let mark = tools.record.mark();
        let pair = clock::create(tools.devices, &names, &mark, self.wanted.period).await?;
        tools.record.set_clock(Some(RecordedClock { names, ends: Some(pair) }))?;
        Ok(pair)
    }

    /// Removes the clock, if there is one.
    async fn stop(&mut self, tools: &mut ClockTools<'_>) -> Kept {
        let off = ClockState::Off(wording::AS_CONFIGURED.to_owned());
        if self.state.get() == off {
            return Kept::Unchanged;
        }
        match remove(tools).await {
            Ok(was_there) => {
                self.state.set(off);
                if was_there { Kept::Stopped } else { Kept::Unchanged }
            }
            Err(error) => Kept::Failed(error.to_string()),
        }
    }
}

/// Returns the pair of the clock if it is whole and the bond's. What is left of one that is not is deleted.
async fn existing(tools: &mut ClockTools<'_>) -> Result<Option<ClockPair>, AgentError> {
    let Some(recorded) = tools.record.clock().cloned() else { return Ok(None) };
    let [sender, receiver] = recorded.links(tools.devices).await?;
    if let (Some(sender), Some(receiver)) = (&sender, &receiver)
        && sender.link == Some(receiver.ifindex)
        && sender.link_netns.is_none()
        && tools.proof.holds_of_pair(sender, Some(receiver))
    {
        return Ok(Some(ClockPair { sender: sender.ifindex, receiver: receiver.ifindex }));
    }
    remove(tools).await.map(|_| None)
}

/// Removes the tick and the pair. Returns whether there was one.
async fn remove(tools: &mut ClockTools<'_>) -> Result<bool, AgentError> {
    let Some(recorded) = tools.record.clock().cloned() else { return Ok(false) };
    recorded.delete(tools.devices, &tools.proof).await?;
    tools.plane.detach_tick()?;
    tools.plane.mirror().update_clock(|clock| clock.period = 0);
    tools.record.set_clock(None)?;
    Ok(true)
}

/// What the tick has to know of the options, for a bond on this kernel.
pub fn follow_options(entry: &mut ClockEntry, options: &BondOptions, guard: config::Guard, kernel: &Kernel) {
    let nanos = |ms: u32| u64::from(ms) * 1_000_000;
    let links = guard == config::Guard::Auto && kernel.has_types() && options.miimon > 0;
    entry.flags = if links { ClockEntry::LINKS } else { 0 };
    entry.updelay = nanos(options.updelay);
    entry.downdelay = nanos(options.downdelay);
    entry.rounds = options.num_grat_arp.into();
    let interval = bond_core::announcement_interval(options);
    entry.round_interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_checks_links_where_the_guard_would() {
        let kernel = Kernel::read().without_types();
        let links = |guard, miimon, kernel: &Kernel| {
            let mut entry = ClockEntry::default();
            let options = BondOptions { miimon, updelay: 500, num_grat_arp: 3, ..BondOptions::default() };
            follow_options(&mut entry, &options, guard, kernel);
            assert_eq!((entry.updelay, entry.rounds), (500_000_000, 3));
            entry.has(ClockEntry::LINKS)
        };
        assert!(!links(config::Guard::Auto, 100, &kernel), "devices cannot be read");
        let kernel = Kernel::read();
        if kernel.has_types() {
            assert!(links(config::Guard::Auto, 100, &kernel));
            assert!(!links(config::Guard::Off, 100, &kernel) && !links(config::Guard::Auto, 0, &kernel));
        }
    }
}
