//! What the kernel counts on devices and on the machine, for a report.

use std::{collections::HashMap, time::Duration};

use tokio::time::timeout;

use crate::{
    report::json::{self, Device},
    sys::{Devices, SysError, softnet::Softnet},
};

/// How long a reader without an agent waits while a process holds RTNL.
const DEVICES_AT_MOST: Duration = Duration::from_secs(1);

/// What the kernel counted on devices, by ifindex.
pub type Counted = HashMap<u32, CountedDevice>;

/// What the kernel counted on a device, and how it is set.
#[derive(Clone, Debug)]
pub struct CountedDevice {
    /// The counters.
    pub device: Device,
    /// Bytes.
    pub mtu: u32,
}

/// Reads counters. Devices that are not in this namespace are left out.
///
/// # Errors
/// The kernel does not list the qdiscs, or does not return a device's counters.
pub async fn read(kernel: &dyn Devices, devices: &[u32]) -> Result<Counted, SysError> {
    let qdiscs = kernel.qdiscs().await?;
    let mut counted = Counted::new();
    for &ifindex in devices {
        match kernel.counted_link(ifindex).await {
            Ok(link) => {
                let device = Device::new(&link, &qdiscs);
                let mtu = link.link.mtu;
                counted.insert(ifindex, CountedDevice { device, mtu });
            }
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(counted)
}

/// Reads the counters of devices once, without a cache. If the kernel does not answer soon, there are none, and a note
/// says why.
pub async fn count(of: &dyn Devices, devices: &[u32], notes: &mut Vec<String>) -> Counted {
    match timeout(DEVICES_AT_MOST, read(of, devices)).await {
        Ok(Ok(counted)) => counted,
        Ok(Err(error)) => {
            notes.push(format!("the devices' counters are missing: {error}"));
            Counted::new()
        }
        Err(_) => {
            let why = "the kernel did not answer within a second; another process may hold RTNL";
            notes.push(format!("the devices' counters are missing: {why}"));
            Counted::new()
        }
    }
}

/// Reads the counters of the machine; a note says why there are none.
pub fn softnet(notes: &mut Vec<String>) -> Option<json::SoftnetCounters> {
    match Softnet::read() {
        Ok(softnet) => Some(softnet.into()),
        Err(error) => {
            notes.push(format!("softnet counters are missing: {error}"));
            None
        }
    }
}
