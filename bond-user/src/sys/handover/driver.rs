//! Bonds of the kernel's driver: who their slaves are.

use std::time::{Duration, Instant};

use super::link::{LinkRequest, RawLink, number};
use crate::sys::{
    Devices, SysError,
    netlink::{
        LinkSetting, message,
        numbers::{IFLA_INFO_DATA, IFLA_INFO_KIND, IFLA_INFO_SLAVE_DATA, IFLA_INFO_SLAVE_KIND, RTM_NEWLINK},
    },
};

/// IFLA_BOND_*
const MODE: u16 = 1;
const ACTIVE_SLAVE: u16 = 2;
/// IFLA_BOND_SLAVE_*
const MII_STATUS: u16 = 2;
const QUEUE_ID: u16 = 5;
const PRIO: u16 = 9;

/// The driver's mode active-backup.
const ACTIVE_BACKUP: u8 = 1;
/// A slave that has its link (BOND_LINK_UP).
const LINK_UP: u8 = 0;
const BETWEEN_CHECKS: Duration = Duration::from_millis(10);

/// What the driver says of a slave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverSlave {
    /// The interface.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its MII status is up.
    pub is_up: bool,
    /// The options that a slave has of its own.
    pub options: DriverSlaveOptions,
}

/// Options of a slave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DriverSlaveOptions {
    /// prio
    pub prio: i32,
    /// queue_id
    pub queue_id: u16,
}

/// Returns whether a link is a bond of the driver in mode active-backup; None of another device.
pub fn is_active_backup(bond: &RawLink) -> Option<bool> {
    (bond.info.kind.as_deref() == Some("bond")).then(|| bond.data_of(MODE) == Some(&[ACTIVE_BACKUP]))
}

/// Returns the ifindex of the active slave.
pub fn active_slave(bond: &RawLink) -> Option<u32> {
    number(bond.data_of(ACTIVE_SLAVE)?).filter(|ifindex| *ifindex != 0)
}

/// Returns the slaves of a bond.
pub fn slaves_of(bond: u32, links: &[RawLink]) -> Vec<DriverSlave> {
    let is_its =
        |link: &&RawLink| link.info.master == Some(bond) && link.info.master_kind.as_deref() == Some("bond");
    links.iter().filter(is_its).map(slave).collect()
}

fn slave(link: &RawLink) -> DriverSlave {
    let prio = link.port_data_of(PRIO).and_then(number).unwrap_or(0).cast_signed();
    let queue_id = link.port_data_of(QUEUE_ID).and_then(|value| value.try_into().ok());
    DriverSlave {
        ifindex: link.info.ifindex,
        name: link.info.name.clone(),
        is_up: link.port_data_of(MII_STATUS) == Some(&[LINK_UP]),
        options: DriverSlaveOptions { prio, queue_id: queue_id.map_or(0, u16::from_ne_bytes) },
    }
}

impl dyn Devices + '_ {
    /// Releases a slave of the driver, which leaves it down.
    ///
    /// # Errors
    /// The interface is gone, or the kernel does not answer.
    pub async fn release_from_driver(&self, ifindex: u32) -> Result<(), SysError> {
        self.set(ifindex, LinkSetting::Master(None)).await.map(drop)
    }

    /// Makes an interface a slave of the driver's bond, unless it is one.
    ///
    /// # Errors
    /// The driver refuses it.
    pub async fn enslave_to_driver(
        &self,
        bond: u32,
        ifindex: u32,
        options: DriverSlaveOptions,
    ) -> Result<(), SysError> {
        if self.link_by_index(ifindex).await?.master == Some(bond) {
            return self.set(ifindex, LinkSetting::Up(true)).await.map(drop);
        }
        self.set(ifindex, LinkSetting::Up(false)).await?;
        self.set(ifindex, LinkSetting::Master(Some(bond))).await?;
        let DriverSlaveOptions { prio, queue_id } = options;
        let mut data = Vec::new();
        if queue_id != 0 {
            message::append(&mut data, QUEUE_ID, &queue_id.to_ne_bytes());
        }
        if prio != 0 {
            message::append(&mut data, PRIO, &prio.to_ne_bytes());
        }
        if data.is_empty() {
            return Ok(());
        }
        let parts = (IFLA_INFO_SLAVE_KIND, IFLA_INFO_SLAVE_DATA);
        let request = LinkRequest::new(RTM_NEWLINK, ifindex).of_kind(parts, "bond", &data).raw();
        self.change_raw_link("set the options of a slave", &self.called(ifindex), (0, request)).await
    }

    /// Makes a slave of the driver the active one, as soon as it is up.
    ///
    /// # Errors
    /// It is not up within `limit`.
    pub async fn activate_in_driver(&self, bond: u32, ifindex: u32, limit: Duration) -> Result<(), SysError> {
        let until = Instant::now() + limit;
        loop {
            let mut data = Vec::new();
            message::append(&mut data, ACTIVE_SLAVE, &ifindex.to_ne_bytes());
            let parts = (IFLA_INFO_KIND, IFLA_INFO_DATA);
            let request = LinkRequest::new(RTM_NEWLINK, bond).of_kind(parts, "bond", &data).raw();
            let on = self.called(ifindex);
            let answer = self.change_raw_link("make it the active slave", &on, (0, request)).await;
            if answer.is_ok() || Instant::now() >= until {
                return answer;
            }
            tokio::time::sleep(BETWEEN_CHECKS).await;
        }
    }
}
