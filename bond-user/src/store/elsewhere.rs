//! elsewhere.json in the run directory of a network namespace: the original states of slaves that were in another network
//! namespace, or absent, when their bond was removed. An agent restores them when they return.
//!
//! It is not in the bonds' directories, because those end with their bonds.

use std::sync::{Mutex, PoisonError};

use bond_core::name::BondName;
use serde::{Deserialize, Serialize};

use crate::{
    store::{
        StoreError,
        of_boot::{self, OfBoot},
        paths::Paths,
    },
    sys::{directory::Trust, found::Found},
};

/// The oldest are dropped when there are more: most interfaces that were deleted elsewhere never return.
const LIMIT: usize = 64;

/// Held while the file is read and written again.
static CHANGING: Mutex<()> = Mutex::new(());

/// A former slave of a bond that is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormerSlave {
    /// The former bond.
    pub bond: BondName,
    /// Its original state.
    pub found: Found,
    /// How many times it was here, and could not be restored.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tries: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl FormerSlave {
    /// Returns whether this is of the same interface and bond as `other`.
    fn is(&self, other: &Self) -> bool {
        self.bond == other.bond && is_same(&self.found, &other.found)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    /// Interfaces are others after the next boot.
    boot: Option<String>,
    slaves: Vec<FormerSlave>,
}

impl OfBoot for Contents {
    const FILE: &'static str = "elsewhere.json";
    const VERSION: u32 = 1;
    type Item = FormerSlave;

    fn new(version: u32, boot: Option<String>, slaves: Vec<FormerSlave>) -> Self {
        Self { version, boot, slaves }
    }

    fn parts(self) -> (u32, Option<String>, Vec<FormerSlave>) {
        (self.version, self.boot, self.slaves)
    }
}

/// Returns the former slaves that have not returned.
///
/// # Errors
/// The file cannot be read, or was not written by an agent.
pub fn read(paths: &Paths, trust: Trust) -> Result<Vec<FormerSlave>, StoreError> {
    of_boot::read::<Contents>(paths.run_root(), trust)
}

/// Adds former slaves of a bond; a newer original state of an interface replaces an older one.
///
/// # Errors
/// The file cannot be written.
pub fn add(paths: &Paths, bond: &BondName, absent: &[Found]) -> Result<(), StoreError> {
    change(paths, |slaves| {
        for found in absent {
            slaves.retain(|known| known.bond != *bond || !is_same(&known.found, found));
            slaves.push(FormerSlave { bond: bond.clone(), found: found.clone(), tries: 0 });
        }
        let too_many = slaves.len().saturating_sub(LIMIT);
        slaves.drain(..too_many);
    })
}

/// Removes one that has returned.
///
/// # Errors
/// The file cannot be written.
pub fn remove(paths: &Paths, former: &FormerSlave) -> Result<(), StoreError> {
    change(paths, |slaves| slaves.retain(|known| known.found != former.found || known.bond != former.bond))
}

/// Counts one more attempt to restore one, which failed. Returns the number of attempts so far.
///
/// # Errors
/// The file cannot be written.
pub fn count_try(paths: &Paths, former: &FormerSlave) -> Result<u32, StoreError> {
    let mut tries = former.tries.saturating_add(1);
    change(paths, |slaves| {
        for known in slaves.iter_mut().filter(|known| known.is(former)) {
            known.tries = known.tries.saturating_add(1);
            tries = known.tries;
        }
    })?;
    Ok(tries)
}

/// Whether both are of one interface.
fn is_same(one: &Found, other: &Found) -> bool {
    one.ifindex == other.ifindex || one.permanent_mac.is_some() && one.permanent_mac == other.permanent_mac
}

fn change(paths: &Paths, change: impl FnOnce(&mut Vec<FormerSlave>)) -> Result<(), StoreError> {
    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    // A file that cannot be read is replaced: what it has cannot be used.
    let before = read(paths, Trust::Ours).unwrap_or_default();
    let mut slaves = before.clone();
    change(&mut slaves);
    if slaves == before { Ok(()) } else { of_boot::write::<Contents>(paths.run_root(), slaves) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::{found, mac};

    #[test]
    fn former_slaves_are_read_as_they_were_added_until_they_return() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path()).unwrap();
        paths.run_root().make_all(0o700).unwrap();
        let bond = |name: &str| BondName::new(name).unwrap();
        let names = || -> Vec<_> {
            let slaves = read(&paths, Trust::Ours).unwrap().into_iter();
            slaves.map(|former| format!("{} {}", former.bond, former.found.name)).collect()
        };
        add(&paths, &bond("bond0"), &[]).unwrap();
        assert!(!paths.run_root().path().join(Contents::FILE).exists());
        add(&paths, &bond("bond0"), &[found(3, "eth0", mac(1)), found(4, "eth1", mac(2))]).unwrap();
        add(&paths, &bond("bond1"), &[found(3, "eth0", mac(3))]).unwrap();
        add(&paths, &bond("bond0"), &[found(3, "again", mac(1))]).unwrap();
        assert_eq!(names(), ["bond0 eth1", "bond1 eth0", "bond0 again"]);
        for former in read(&paths, Trust::Ours).unwrap() {
            remove(&paths, &former).unwrap();
        }
        assert!(!paths.run_root().path().join(Contents::FILE).exists());
        for ifindex in 1..=70 {
            add(&paths, &bond("bond0"), &[found(ifindex, &format!("eth{ifindex}"), mac(ifindex as u8))])
                .unwrap();
        }
        assert_eq!((names().len(), &*names()[0]), (64, "bond0 eth7"));
    }

    #[test]
    fn attempts_are_counted_until_the_former_slave_is_restored() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path()).unwrap();
        paths.run_root().make_all(0o700).unwrap();
        let bond = BondName::new("bond0").unwrap();
        add(&paths, &bond, &[found(3, "eth0", mac(1)), found(4, "eth1", mac(2))]).unwrap();
        let former = || read(&paths, Trust::Ours).unwrap();
        let before = former().remove(0);
        assert_eq!([1, 2].map(|_| count_try(&paths, &before).unwrap()), [1, 2]);
        assert_eq!(former().iter().map(|former| former.tries).collect::<Vec<_>>(), [2, 0]);
        remove(&paths, &before).unwrap();
        assert_eq!(former().iter().map(|former| &*former.found.name).collect::<Vec<_>>(), ["eth1"]);
    }

    #[test]
    fn a_file_that_no_agent_has_written_is_refused_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path()).unwrap();
        paths.run_root().make_all(0o700).unwrap();
        for text in ["", "[]", r#"{"version":2,"boot":null,"slaves":[]}"#] {
            std::fs::write(paths.run_root().path().join(Contents::FILE), text).unwrap();
            assert!(read(&paths, Trust::Ours).is_err(), "{text}");
        }
        add(&paths, &BondName::new("bond0").unwrap(), &[found(3, "eth0", mac(1))]).unwrap();
        assert_eq!(read(&paths, Trust::Ours).unwrap().len(), 1);
    }
}
