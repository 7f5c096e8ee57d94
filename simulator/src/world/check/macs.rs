//! MAC addresses by fail_over_mac.

use std::collections::BTreeSet;

use bond_core::{options::FailOverMac, status::BondStatus};

use crate::world::World;

/// Checks the MAC addresses of a bond at rest.
pub fn check(world: &World<'_>, number: usize, status: &BondStatus) -> Option<String> {
    let name = world.names.get(number)?;
    let links = world.kernel.all_links();
    let mac_of = |ifindex: u32| links.iter().find(|link| link.ifindex == ifindex).map(|link| link.mac);
    let bond = links.iter().find(|link| link.name == **name)?;
    if bond.mac != status.mac {
        return Some(format!("its MAC address is {}, and the agent says {}", bond.mac, status.mac));
    }
    for slave in &status.slaves {
        if mac_of(slave.ifindex) != Some(slave.mac) {
            return Some(format!(
                "{} has {:?}, and the agent says {}",
                slave.name,
                mac_of(slave.ifindex),
                slave.mac
            ));
        }
    }
    let active = status.slaves.iter().find(|slave| Some(&slave.name) == status.active_slave.as_ref())?;
    let others = status.slaves.iter().filter(|slave| slave.name != active.name);
    match status.options.fail_over_mac {
        FailOverMac::None => {
            let other = status.slaves.iter().find(|slave| slave.mac != status.mac)?;
            Some(format!("{} has {}, and the bond {}", other.name, other.mac, status.mac))
        }
        FailOverMac::Active if active.mac != status.mac => {
            Some(format!("the active slave has {}, and the bond {}", active.mac, status.mac))
        }
        FailOverMac::Active => {
            let other = status.slaves.iter().find(|slave| slave.mac != slave.permanent_mac)?;
            Some(format!("{} has {} in place of {}", other.name, other.mac, other.permanent_mac))
        }
        // An open device whose driver takes no address then keeps its own, and the log says so.
        FailOverMac::Follow if status.slaves.iter().any(|slave| !world.nics.is_live(&slave.name)) => None,
        FailOverMac::Follow => {
            let macs: BTreeSet<_> = others.map(|slave| slave.mac).chain([active.mac]).collect();
            if active.mac != status.mac {
                return Some(format!("the active slave has {}, and the bond {}", active.mac, status.mac));
            }
            (macs.len() < status.slaves.len()).then(|| "two slaves have one MAC address".to_owned())
        }
    }
}
