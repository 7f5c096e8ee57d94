//! The recorded state of a bond: no times, no random MAC addresses, no ifindexes.

use std::collections::BTreeMap;

use super::{BOND, Status};
use crate::{Frame, Mac, link::Link};

/// The default MTU of the lab's links, which is not recorded.
const USUAL_MTU: u32 = 1500;

/// All lines that may be recorded, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// By device, in the order of their names.
    devices: BTreeMap<String, String>,
    /// Announcements at the switch during this step, with their number.
    announcements: BTreeMap<String, u32>,
}

impl Snapshot {
    pub fn new(devices: &[Link], status: Option<&Status>, frames: &[Frame]) -> Self {
        let mut snapshot = Self::default();
        for device in devices {
            if let Some(line) = describe(device, status) {
                snapshot.devices.insert(device.name.clone(), line);
            }
        }
        for line in frames.iter().filter_map(announcement) {
            *snapshot.announcements.entry(line).or_default() += 1;
        }
        snapshot
    }

    /// Returns the record of a step that changed `earlier` into this.
    pub fn changes_since(&self, earlier: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, line) in &self.devices {
            if earlier.devices.get(name) != Some(line) {
                lines.push(format!("{name} {line}"));
            }
        }
        for name in earlier.devices.keys().filter(|name| !self.devices.contains_key(*name)) {
            lines.push(format!("{name} gone"));
        }
        lines.extend(self.announcements.iter().map(|(line, count)| format!("{line} x{count}")));
        lines
    }
}

/// Describes the bond or one of the lab's NICs.
fn describe(device: &Link, status: Option<&Status>) -> Option<String> {
    let mut words = vec![mac(device.mac)];
    if device.name == BOND {
        // Without its slaves the driver's bond still exists, and xbond's does not.
        let active = status?.active.as_deref().unwrap_or("none");
        words.push(format!("active={active}"));
        words.push(format!("carrier={}", if device.has_carrier() { "on" } else { "off" }));
    } else if device.name.starts_with("slave") {
        match status.and_then(|status| status.slaves.iter().find(|slave| slave.name == device.name)) {
            Some(slave) => {
                let is_active = status.and_then(|status| status.active.as_ref()) == Some(&slave.name);
                words.push(String::from(if is_active { "active" } else { "backup" }));
                words.push(slave.mii.clone());
                words.push(format!("failures={}", slave.failures));
            }
            None => words.push(String::from("free")),
        }
        if !device.is_up() {
            words.push(String::from("admin-down"));
        }
    } else {
        return None;
    }
    if device.mtu != USUAL_MTU {
        words.push(format!("mtu={}", device.mtu));
    }
    Some(words.join(" "))
}

/// Formats a MAC address. Scenarios use addresses that begin with 02:00:00:00:00; others are random.
fn mac(mac: Mac) -> String {
    if mac.bytes().starts_with(&[2, 0, 0, 0, 0]) { mac.to_string() } else { String::from("random") }
}

/// Describes a gratuitous ARP, an unsolicited NA, or an IGMP report that a port of the switch received from a NIC.
fn announcement(frame: &Frame) -> Option<String> {
    if frame.outgoing || !is_port(&frame.ifname) {
        return None;
    }
    let mut words: Vec<String> = frame.vlans().iter().map(|id| format!("vlan={id}")).collect();
    if let Some(group) = frame.igmp_report() {
        words.extend([String::from("igmp-report"), group.to_string(), mac(frame.source())]);
    } else {
        let announcement = frame.announcement()?;
        words.push(announcement.kind.to_string());
        words.push(announcement.address.to_string());
        words.push(mac(announcement.mac));
        if frame.source() != announcement.mac {
            words.push(format!("from={}", mac(frame.source())));
        }
    }
    words.push(format!("at={}", frame.ifname));
    Some(words.join(" "))
}

/// Returns whether the interface is p0, p1, ...: a port to which a NIC of the host is connected.
fn is_port(ifname: &str) -> bool {
    ifname.strip_prefix('p').is_some_and(|index| index.parse::<u8>().is_ok())
}
