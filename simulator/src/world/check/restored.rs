//! NICs: what happens to them, and what they must be like at the end.

use std::net::IpAddr;

use bond_common::mac::Mac;
use bond_user::sys::{
    fake::{FakeKernel, FakeLink, MacChange, Snapshot},
    netlink::{Address, KernelRoute, LinkFlags},
};

use crate::{
    plan::{Event, Setup},
    world::mac_of,
};

/// An interface that belongs to no bond.
const BYSTANDER: &str = "eth0";

/// A NIC.
struct Nic {
    name: String,
    mac: Mac,
    ifindex: Option<u32>,
    initial: FakeLink,
    /// It was closed, pulled or released in between: an administrator's doing, which is not undone.
    is_touched: bool,
}

/// The NICs of a machine.
pub struct Nics {
    nics: Vec<Nic>,
    bystander: FakeLink,
    initial: Snapshot,
    has_faults: bool,
}

impl Nics {
    /// Plugs in the NICs of a setup, and a bystander.
    pub fn plug_in(kernel: &FakeKernel, setup: &Setup) -> Self {
        let bystander = kernel.add_nic(BYSTANDER, mac_of(200));
        add_addresses(kernel, bystander, 200);
        let mut nics = Vec::new();
        for (number, nic) in setup.nics.iter().enumerate() {
            let (name, mac) = (format!("nic{number}"), mac_of(number));
            let ifindex = kernel.add_nic(&name, mac);
            kernel.change(ifindex, |link| link.macs = nic.macs);
            if nic.has_addresses {
                add_addresses(kernel, ifindex, number as u8);
            }
            nics.push((name, mac, ifindex));
        }
        let link = |name: &str| kernel.link(name).unwrap_or_else(|| unreachable!("it was just added"));
        Self {
            nics: nics
                .into_iter()
                .map(|(name, mac, ifindex)| {
                    let initial = link(&name);
                    Nic { name, mac, ifindex: Some(ifindex), initial, is_touched: false }
                })
                .collect(),
            bystander: link(BYSTANDER),
            initial: kernel.snapshot(),
            has_faults: false,
        }
    }

    /// What happens to a NIC.
    pub fn happen(&mut self, kernel: &FakeKernel, event: &Event) {
        let (Event::Cable { nic, .. }
        | Event::Admin { nic, .. }
        | Event::Unplug { nic }
        | Event::PlugIn { nic }
        | Event::Macs { nic, .. }) = event
        else {
            return;
        };
        let Some(nic) = self.nics.get_mut(*nic) else { return };
        match (event, nic.ifindex) {
            (Event::Cable { connected, .. }, Some(ifindex)) => {
                kernel.change(ifindex, |link| link.cable = *connected);
            }
            (Event::Admin { up, .. }, Some(ifindex)) => {
                nic.is_touched = true;
                kernel.change(ifindex, |link| link.info.flags.set(LinkFlags::Up, *up));
            }
            (Event::Unplug { .. }, Some(ifindex)) => {
                (nic.is_touched, nic.ifindex) = (true, None);
                kernel.remove(ifindex);
            }
            (Event::PlugIn { .. }, None) => nic.return_to(kernel),
            (Event::Macs { how, .. }, Some(ifindex)) if nic.initial.macs != MacChange::Never => {
                nic.is_touched = true;
                kernel.change(ifindex, |link| link.macs = *how);
            }
            _ => {}
        }
    }

    /// A client requests something for a NIC.
    pub fn note_request(&mut self, nic: usize) {
        if let Some(nic) = self.nics.get_mut(nic) {
            nic.is_touched = true;
        }
    }

    /// A call fails that should not.
    pub fn note_fault(&mut self) {
        self.has_faults = true;
    }

    /// Plugs everything in again.
    pub fn heal(&mut self, kernel: &FakeKernel) {
        for nic in &mut self.nics {
            if nic.ifindex.is_none() {
                nic.return_to(kernel);
            }
            let Some(ifindex) = nic.ifindex.filter(|ifindex| kernel.has(*ifindex)) else { continue };
            let macs = nic.initial.macs;
            kernel.change(ifindex, |link| {
                (link.cable, link.macs) = (true, macs);
                if nic.is_touched {
                    link.info.flags |= LinkFlags::Up;
                }
            });
        }
    }

    /// Returns whether the driver of a NIC takes no MAC address.
    pub fn refuses_macs(&self, nic: usize) -> bool {
        self.nics.get(nic).is_some_and(|nic| nic.initial.macs == MacChange::Never)
    }

    /// Returns whether the driver of a NIC takes MAC addresses while the device is open.
    pub fn is_live(&self, name: &str) -> bool {
        self.nics.iter().any(|nic| nic.name == name && nic.initial.macs == MacChange::Live)
    }

    /// Checks that the bystander is as it was.
    pub fn check_bystander(&self, kernel: &FakeKernel) -> Option<String> {
        let now = kernel.link(BYSTANDER);
        (now.as_ref() != Some(&self.bystander)).then(|| format!("{BYSTANDER} was changed: {now:?}"))
    }

    /// Checks that every NIC is as it was found, and that no other device is left.
    pub fn check_restored(&self, kernel: &FakeKernel) -> Option<String> {
        let is_known = |name: &str| name == BYSTANDER || self.nics.iter().any(|nic| nic.name == name);
        if let Some(other) = kernel.all_links().into_iter().find(|link| !is_known(&link.name)) {
            return Some(format!("{} is left", other.name));
        }
        let fault = self.nics.iter().find_map(|nic| nic.fault(kernel));
        if fault.is_some() || self.nics.iter().any(|nic| nic.is_touched) {
            return fault.or_else(|| self.check_bystander(kernel));
        }
        let now = kernel.snapshot();
        (now != self.initial).then(|| format!("not everything is as it was: {now:?}\nwas {:?}", self.initial))
    }
}

impl Nic {
    fn return_to(&mut self, kernel: &FakeKernel) {
        let ifindex = kernel.plug_in(&self.name, self.mac);
        let macs = self.initial.macs;
        kernel.change(ifindex, |link| link.macs = macs);
        self.ifindex = Some(ifindex);
    }

    fn fault(&self, kernel: &FakeKernel) -> Option<String> {
        let Some(now) = kernel.link(&self.name) else { return Some(format!("{} is gone", self.name)) };
        if !self.is_touched {
            return (now != self.initial)
                .then(|| format!("{} is {now:?}\nwas {:?}", self.name, self.initial));
        }
        let of = |link: &FakeLink| {
            let ours = LinkFlags::Promisc | LinkFlags::Allmulti | LinkFlags::Noarp;
            let info = &link.info;
            let features: Vec<_> = link.features.iter().map(|feature| feature.active).collect();
            (
                info.mac,
                info.mtu,
                info.alias.clone(),
                info.master,
                info.flags & ours,
                info.addr_gen_mode,
                features,
                link.unicast.clone(),
            )
        };
        let (found, wanted) = (of(&now), of(&self.initial));
        (found != wanted).then(|| format!("{} has {found:?}\nhad {wanted:?}", self.name))
    }
}

fn add_addresses(kernel: &FakeKernel, ifindex: u32, number: u8) {
    let address = Address::new(ifindex, IpAddr::from([192, 0, number, 1]), 24).to_kept();
    let gateway = Some(IpAddr::from([192, 0, number, 9]));
    let route = KernelRoute::new(ifindex, IpAddr::from([10, number, 0, 0]), 16, gateway).to_kept();
    kernel.add_messages(address.into_iter().chain(route));
}
