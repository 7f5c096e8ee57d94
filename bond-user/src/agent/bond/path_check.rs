//! Whether packets still find the path that the bond's worker has set up for them: programs at their hooks, pins, device maps,
//! the devices' settings. What another process has changed is restored where it is the bond's own, and reported, by the
//! worker: [`repair`](crate::agent::bond::worker).
//!
//! Most of it can be read only with RTNL. So it is read by a task of its own ([`Question::ask`]), for one bond at a time, and
//! the worker reads again what was found wrong before it restores it. Docs: internals, the agent.

use std::sync::Arc;

use bond_common::{abi::Slot, mac::Mac};

use crate::{
    agent::bond::waiting,
    report::wording::{self, PathFault, PathNote, Repair},
    sys::{
        Devices, SysError,
        dataplane::{At, AtHook, Hook, Watched},
        ethtool::Feature,
        netlink::{LinkInfo, LinkSetting},
        offload::{self, Otherwise, Role},
    },
};

/// Devices have events. Every so often they are read without one: XPS and links of other XDP programs have none.
pub(super) const CHECKS_WITHOUT_EVENT: u32 = 10;
/// Pins are for the next agent: they are looked for once in so many checks.
pub(super) const CHECKS_PER_PIN_CHECK: u32 = 5;
/// After so many checks devices in other network namespaces are read, of which there are no events.
pub(super) const CHECKS_WITHOUT_OTHERS: u32 = 30;

/// A fault, and what became of it.
pub(super) type Found = (PathFault, Repair);

/// A slave to be checked.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) slot: Slot,
    pub(super) name: String,
    pub(super) ifindex: u32,
}

/// A device, and how the bond needs it.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) ifindex: u32,
    /// By which it is known if it cannot be read.
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) settings: Vec<LinkSetting>,
    /// MAC addresses that it receives in addition to its own.
    pub(super) unicast: Vec<Mac>,
    /// Its first transmit queue is that of every CPU.
    pub(super) first_queue: bool,
}

/// BPF filters that are to be at a device's ingress.
#[derive(Clone, Debug)]
pub(super) struct Filters {
    pub(super) at: At,
    pub(super) device: String,
    pub(super) ifindex: u32,
    pub(super) names: Vec<&'static str>,
}

/// What is to be read, without the worker.
pub(super) struct Question {
    pub(super) bond: String,
    pub(super) devices: Arc<dyn Devices>,
    pub(super) hook: Hook,
    pub(super) watched: Vec<Watched>,
    pub(super) filters: Vec<Filters>,
    /// None: they are not read this time.
    pub(super) wanted: Option<Vec<Wanted>>,
    /// Slaves whose hooks are read, if that is to be done.
    pub(super) hooks: Option<Vec<Checked>>,
    /// bond0, where it is a device of this namespace.
    pub(super) host: Option<(u32, String)>,
}

/// What was read.
#[derive(Default)]
pub struct PathReading {
    pub(super) programs: Vec<(Watched, AtHook)>,
    pub(super) filters: Vec<At>,
    /// By ifindex, devices that are not as they are wanted; None if they were not read.
    pub(super) wrong: Option<Vec<u32>>,
    pub(super) unknown: Vec<(String, String)>,
    pub(super) ahead: Vec<PathNote>,
    /// None if they were not read.
    pub(super) of_devices: Option<Vec<PathNote>>,
    pub(super) hooked: Option<Vec<PathNote>>,
}

impl PathReading {
    /// Reads whether a program is at its hook, and what is ahead of it there.
    fn add_program(&mut self, watched: &Watched) {
        match watched.read() {
            Ok(AtHook::Yes) => {}
            Ok(at_hook) => return self.programs.push((watched.clone(), at_hook)),
            Err(error) => return self.unknown.push((watched.device.clone(), error.to_string())),
        }
        // Where it cannot be read, nothing is said of it.
        let ahead = watched.ahead().unwrap_or_default().into_iter();
        self.ahead.extend(ahead.map(|program| PathNote::Ahead { device: watched.device.clone(), program }));
    }
}

/// What a bond's worker knows of the path of its packets.
pub(super) struct PathCheck {
    /// A device of the bond has had an event since the devices were checked to the end.
    pub(super) are_devices_unchecked: bool,
    /// Faults of pins that the last look for them has found, and not repaired.
    pub(super) pin_faults: Vec<Found>,
    /// Faults of devices that were found by the last check.
    pub(super) device_faults: Vec<Found>,
    /// The path is being read, and the answer has not come.
    pub(super) is_asked: bool,
    /// The number of times that it was read.
    pub(super) checks: u32,
    /// `hook_changes` of the worker as of the last time that hooks were read.
    pub(super) hook_changes_seen: u64,
    pub(super) notes: Notes,
}

impl PathCheck {
    /// Returns whether pins are to be looked for with this check.
    pub(super) fn is_time_for_pins(&self) -> bool {
        self.checks.is_multiple_of(CHECKS_PER_PIN_CHECK)
    }

    /// Returns whether devices in other network namespaces are to be read with this check.
    pub(super) fn is_time_for_others(&self) -> bool {
        self.checks.is_multiple_of(CHECKS_WITHOUT_OTHERS)
    }
}

impl Default for PathCheck {
    fn default() -> Self {
        Self {
            are_devices_unchecked: false,
            pin_faults: Vec::new(),
            device_faults: Vec::new(),
            is_asked: false,
            checks: 0,
            // The first check reads them.
            hook_changes_seen: u64::MAX,
            notes: Notes::default(),
        }
    }
}

/// What is reported of the path that is no fault.
#[derive(Default)]
pub(super) struct Notes {
    pub(super) ahead: Vec<PathNote>,
    pub(super) of_devices: Vec<PathNote>,
    pub(super) hooked: Vec<PathNote>,
}

impl Notes {
    pub(super) fn all(&self) -> Vec<PathNote> {
        self.ahead.iter().chain(&self.of_devices).chain(&self.hooked).cloned().collect()
    }
}

impl Question {
    pub(super) async fn ask(self) -> PathReading {
        let mut seen = PathReading::default();
        // All in one: to step aside for other tasks costs more than to read what a program has.
        waiting(|| self.watched.iter().for_each(|watched| seen.add_program(watched)));
        for filters in &self.filters {
            match filters.are_there(&*self.devices).await {
                Ok(true) => {}
                Ok(false) => seen.filters.push(filters.at),
                Err(why) => seen.unknown.push((filters.device.clone(), why)),
            }
        }
        if let Some(wanted) = &self.wanted {
            self.ask_for_devices(wanted, &mut seen).await;
        }
        if let Some(slaves) = &self.hooks {
            let mut hooked = Vec::new();
            for slave in slaves {
                hooked.extend(
                    hooked_at(&*self.devices, &self.bond, (&slave.name, slave.ifindex), self.hook).await,
                );
            }
            seen.hooked = Some(hooked);
        }
        seen
    }

    async fn ask_for_devices(&self, devices: &[Wanted], seen: &mut PathReading) {
        let (mut wrong, mut notes) = (Vec::new(), Vec::new());
        for wanted in devices {
            let link = match self.devices.link_by_index(wanted.ifindex).await {
                Ok(link) => link,
                // A link event reports it.
                Err(error) if error.is_gone() => continue,
                Err(error) => {
                    seen.unknown.push((wanted.name.clone(), error.to_string()));
                    continue;
                }
            };
            match self.is_right(&link, wanted).await {
                Ok(true) => {}
                Ok(false) => wrong.push(wanted.ifindex),
                Err(error) if error.is_gone() => {}
                Err(error) => seen.unknown.push((wanted.name.clone(), error.to_string())),
            }
            if wanted.role == Role::Bond {
                let is_down =
                    self.host.as_ref().is_some_and(|(bond, _)| *bond == link.ifindex) && !link.is_up();
                notes.extend(is_down.then(|| PathNote::BondDown { device: link.name.clone() }));
            } else if self.hook == Hook::Tc
                && let Some(xdp) = link.xdp
            {
                notes.push(PathNote::Ahead { device: link.name.clone(), program: xdp.program });
            }
        }
        (seen.wrong, seen.of_devices) = (Some(wrong), Some(notes));
    }

    async fn is_right(&self, link: &LinkInfo, wanted: &Wanted) -> Result<bool, SysError> {
        let mut is_right = wanted.settings.iter().all(|setting| setting.holds(link));
        if !offload::prepare(wanted.role, self.hook).is_empty() {
            let features = waiting(|| self.devices.features(link.ifindex))?;
            is_right &= wrong_features(&features, wanted.role, self.hook).next().is_none();
            is_right &=
                !needs_promisc(&features, wanted.role, self.hook) || LinkSetting::Promisc(true).holds(link);
        }
        is_right &= missing_unicast(&*self.devices, link, wanted).await?.is_empty();
        if wanted.first_queue {
            is_right &= waiting(|| self.devices.sends_by_first_queue(&link.name)) != Some(false);
        }
        Ok(is_right)
    }
}

impl Filters {
    /// True of a device that is gone. The error is a sentence.
    pub(super) async fn are_there(&self, devices: &dyn Devices) -> Result<bool, String> {
        match devices.ingress_filters(self.ifindex).await {
            Ok(there) => Ok(self.names.iter().all(|name| there.iter().any(|there| there == name))),
            Err(error) if error.is_gone() => Ok(true),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What packets of the bond pass by at a slave.
pub(super) async fn hooked_at(
    devices: &dyn Devices,
    bond: &str,
    (slave, ifindex): (&str, u32),
    hook: Hook,
) -> Vec<PathNote> {
    let note = |hooked: crate::sys::bypassed::Hooked| PathNote::Bypassed {
        device: slave.to_owned(),
        text: wording::bypassed(&hooked, !hooked.is_bypassed(Hook::Tc), bond),
    };
    devices.bypassed(ifindex, slave, hook).await.into_iter().map(note).collect()
}

/// Offloads that are not as they must be.
pub(super) fn wrong_features<'a>(
    features: &'a [Feature],
    role: Role,
    hook: Hook,
) -> impl Iterator<Item = &'static offload::FeatureChange> + 'a {
    let is_wrong = move |change: &&offload::FeatureChange| {
        change.otherwise == Otherwise::Refuse
            && features.iter().any(|feature| feature.name == change.name && feature.active != change.on)
    };
    offload::prepare(role, hook).iter().filter(is_wrong)
}

/// A filter of the device is on that nothing but promiscuous mode switches off.
pub(super) fn needs_promisc(features: &[Feature], role: Role, hook: Hook) -> bool {
    offload::prepare(role, hook).iter().filter(|change| change.otherwise == Otherwise::Promiscuous).any(
        |change| features.iter().any(|feature| feature.name == change.name && feature.active != change.on),
    )
}

pub(super) async fn missing_unicast(
    devices: &dyn Devices,
    link: &LinkInfo,
    wanted: &Wanted,
) -> Result<Vec<Mac>, SysError> {
    if wanted.unicast.is_empty() || LinkSetting::Promisc(true).holds(link) {
        return Ok(Vec::new());
    }
    let received = devices.unicast(link.ifindex).await?;
    let is_missing = |mac: &Mac| !received.contains(mac) && *mac != link.mac;
    Ok(wanted.unicast.iter().copied().filter(is_missing).collect())
}
