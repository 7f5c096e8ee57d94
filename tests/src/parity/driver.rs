//! Runs the steps with the kernel's bonding driver.

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use anyhow::{Context as _, Result};
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::Deserialize;

use super::{BOND, Case, Implementation, Outcome, Slave, SlaveStatus, Status, step::SlaveKey};
use crate::netns::NetNs;

/// An option that sysfs lacks.
const NS_TARGETS: &str = "ns_ip6_target";

/// A bond of the driver, in a kernel that has it.
pub struct Driver<'lab> {
    host: &'lab NetNs,
}

impl<'lab> Driver<'lab> {
    pub fn new(host: &'lab NetNs) -> Self {
        Self { host }
    }

    /// Writes to the bond's sysfs, which returns its error as a number; netlink, through `ip`, does not.
    fn write(&self, key: &str, value: &str) -> Result<Outcome> {
        // With a newline: an empty value would cause no write.
        let result = self.in_sysfs(|directory| fs::write(directory.join(key), format!("{value}\n")))?;
        Ok(match result {
            Ok(()) => Outcome::Accepted,
            Err(error) => Outcome::Refused(error.raw_os_error().map(Errno::from_raw)),
        })
    }

    /// Sets an option by netlink, through `ip`, which reports no error number.
    fn link_set(&self, arguments: &str) -> Outcome {
        match self.host.ip(&format!("link set {arguments}")) {
            Ok(_) => Outcome::Accepted,
            Err(_) => Outcome::Refused(None),
        }
    }

    /// Calls `work` with the bond's directory in a sysfs of the host's namespace, on a thread of its own.
    fn in_sysfs<T: Send>(&self, work: impl FnOnce(PathBuf) -> T + Send) -> Result<T> {
        self.host.run(|| {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
            let none: Option<&str> = None;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("mount")?;
            mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("mount sysfs")?;
            Ok(work(PathBuf::from("/sys/class/net").join(BOND).join("bonding")))
        })
    }

    fn devices(&self) -> Result<Vec<Device>> {
        let json = self.host.ip("-details -json link show")?;
        serde_json::from_str(&json).context("cannot read the output of `ip -details -json link show`")
    }
}

impl Implementation for Driver<'_> {
    fn expected<'case>(&self, case: &'case Case) -> &'case [String] {
        &case.driver
    }

    fn create(&mut self, options: &[(String, String)], slaves: &[Slave]) -> Result<Outcome> {
        self.host.ip(&format!("link add {BOND} type bond mode active-backup"))?;
        for (key, value) in options {
            // sysfs takes one entry of a list at a time.
            let value = if key == "arp_ip_target" { &format!("+{value}") } else { value };
            if let Outcome::Refused(error) = self.set(key, value)? {
                self.remove()?;
                return Ok(Outcome::Refused(error));
            }
        }
        for slave in slaves {
            self.host.ip(&format!("link set {} master {BOND}", slave.name))?;
            if let Some(prio) = slave.prio {
                self.host.ip(&format!("link set {} type bond_slave prio {prio}", slave.name))?;
            }
        }
        self.host.ip(&format!("link set {BOND} up"))?;
        Ok(Outcome::Accepted)
    }

    fn remove(&mut self) -> Result<()> {
        self.host.ip(&format!("link delete {BOND}")).map(drop)
    }

    fn enslave(&mut self, slave: &str) -> Result<Outcome> {
        self.write("slaves", &format!("+{slave}"))
    }

    fn release(&mut self, slave: &str) -> Result<Outcome> {
        self.write("slaves", &format!("-{slave}"))
    }

    /// Sets an option by netlink: sysfs has no prio.
    fn set_slave(&mut self, slave: &str, key: SlaveKey, value: &str) -> Result<Outcome> {
        Ok(self.link_set(&format!("{slave} type bond_slave {} {value}", key.name())))
    }

    fn proc(&self) -> Result<String> {
        let path = format!("/proc/thread-self/net/bonding/{BOND}");
        self.host.run(|| fs::read_to_string(&path).with_context(|| format!("cannot read {path}")))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<Outcome> {
        let has_sign = value.starts_with(['+', '-']);
        if key == NS_TARGETS && !has_sign {
            return Ok(self.link_set(&format!("{BOND} type bond {key} {value}")));
        }
        self.write(key, value)
    }

    fn get(&self, key: &str) -> Result<String> {
        if key == NS_TARGETS {
            let devices = self.devices()?;
            let bond = devices.into_iter().find(|device| device.name == BOND);
            let targets = bond.and_then(|device| device.linkinfo.bond).map(|bond| bond.ns_ip6_target);
            return Ok(targets.unwrap_or_default().join(" "));
        }
        let text =
            self.in_sysfs(|directory| -> io::Result<String> { fs::read_to_string(directory.join(key)) })?;
        let text = text.with_context(|| format!("cannot read {key} in sysfs"))?;
        // A named value is followed by its number: `always 0`.
        let is_choice = [
            "mode",
            "fail_over_mac",
            "primary_reselect",
            "arp_validate",
            "arp_all_targets",
            "xmit_hash_policy",
            "ad_select",
        ];
        let word = text.split_whitespace().next().unwrap_or_default();
        Ok(if is_choice.contains(&key) { word.to_owned() } else { text.trim().to_owned() })
    }

    fn status(&self) -> Result<Option<Status>> {
        let devices = self.devices()?;
        let Some(bond) = devices.iter().find(|device| device.name == BOND) else { return Ok(None) };
        let active = bond.linkinfo.bond.as_ref().and_then(|bond| bond.active_slave.clone());
        let slaves = devices.iter().filter_map(|device| {
            let slave = device.linkinfo.slave.as_ref()?;
            Some(SlaveStatus {
                name: device.name.clone(),
                // In the form of /proc/net/bonding.
                mii: slave.mii_status.to_lowercase().replace('_', " "),
                failures: slave.link_failure_count,
            })
        });
        Ok(Some(Status { active, slaves: slaves.collect() }))
    }
}

/// Bonds and their slaves in the output of `ip -details -json link show`.
#[derive(Deserialize)]
struct Device {
    #[serde(rename = "ifname")]
    name: String,
    #[serde(default)]
    linkinfo: LinkInfo,
}

#[derive(Default, Deserialize)]
struct LinkInfo {
    #[serde(rename = "info_data")]
    bond: Option<BondInfo>,
    #[serde(rename = "info_slave_data", default, deserialize_with = "of_a_bond")]
    slave: Option<SlaveInfo>,
}

#[derive(Deserialize)]
struct BondInfo {
    active_slave: Option<String>,
    #[serde(default)]
    ns_ip6_target: Vec<String>,
}

#[derive(Deserialize)]
struct SlaveInfo {
    mii_status: String,
    link_failure_count: u64,
}

/// Ports of bridges have other data in this place.
fn of_a_bond<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SlaveInfo>, D::Error> {
    let data: BTreeMap<String, serde_json::Value> = BTreeMap::deserialize(deserializer)?;
    Ok(serde_json::to_value(data).and_then(serde_json::from_value).ok())
}
