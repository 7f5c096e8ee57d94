//! The maps of a bond, read from their pins: also while its agent is stopped, and answers nothing.

// Each of the test programs uses a part of this.
#![allow(dead_code)]

use anyhow::{Context as _, Result};
use bond_common::abi::Slot;
use bond_core::name::BondName;
use bond_user::{
    store::paths::Paths,
    sys::{dataplane::Maps, netns::cookie},
};
use xbond_tests::NetNs;

/// A bond as the data plane has it.
pub struct Pinned {
    pub maps: Maps,
    /// The names of its slaves.
    slaves: Vec<(Slot, String)>,
}

impl Pinned {
    pub fn open(netns: &NetNs, bond: &str) -> Result<Self> {
        let name = BondName::new(bond).context("no name of a bond")?;
        let maps = netns.run(|| Ok(Maps::open(&Paths::of(cookie()?).pins_of(&name))?))?;
        let links = netns.links()?;
        let slaves = Slot::all().filter_map(|slot| {
            let ifindex = maps.slave(slot).ifindex();
            let link = links.iter().find(|link| link.ifindex == ifindex)?;
            Some((slot, link.name.clone()))
        });
        Ok(Self { slaves: slaves.collect(), maps })
    }

    /// Returns the name of the active slave.
    pub fn active(&self) -> Option<&str> {
        let active = self.maps.active().active()?;
        self.slaves.iter().find(|(slot, _)| *slot == active).map(|(_, name)| name.as_str())
    }

    /// Returns the slaves in the order of their slots, and whether each is up.
    pub fn slaves(&self) -> impl Iterator<Item = (&str, bool)> {
        let usable = self.maps.active().usable();
        self.slaves.iter().map(move |(slot, name)| (name.as_str(), usable & slot.bit() != 0))
    }

    /// Returns the names of the slaves that are up, in the order of their slots.
    pub fn up(&self) -> Vec<&str> {
        self.slaves().filter(|(_, is_up)| *is_up).map(|(name, _)| name).collect()
    }

    /// Returns how often the kernel has made a step of the ARP monitor since it took over from the agent; 0 while the agent
    /// monitors.
    pub fn arp_steps(&self) -> u64 {
        let state = self.maps.clock().map(|clock| clock.monitor_state()).unwrap_or_default();
        if state.on == 0 { 0 } else { state.steps }
    }
}
