//! drained.json in the run directory of a network namespace: the slaves that an administrator has drained.
//!
//! It is not in the bonds' directories, because a drain outlives its bond: a service that is restarted removes its bonds
//! and creates them again, and the work on a port is not finished by then.

use std::time::Duration;

use bond_core::{name::BondName, purpose::Purpose};
use serde::{Deserialize, Serialize};

use crate::{
    report::{
        drain::Drained,
        moment::{Moment, boottime},
    },
    store::{
        StoreError,
        of_boot::{self, OfBoot},
        paths::Paths,
    },
    sys::directory::{Location, Trust},
};

/// A drained slave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// The slave's bond.
    pub bond: BondName,
    /// The name of the interface when it was drained.
    pub slave: String,
    /// Its ifindex then.
    pub ifindex: u32,
    /// When it was drained.
    pub since: Moment,
    /// When the drain ends, in milliseconds of CLOCK_BOOTTIME; None if the administrator ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// The reason that the administrator gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Purpose>,
}

impl Drain {
    /// Returns a drain that begins now, and ends after a time if one is given.
    pub fn begin(slave: DrainedSlave<'_>, time: Option<Duration>, why: Option<Purpose>) -> Self {
        let end =
            |time: Duration| u64::try_from(boottime().saturating_add(time).as_millis()).unwrap_or(u64::MAX);
        Self {
            bond: slave.bond.clone(),
            slave: slave.name.to_owned(),
            ifindex: slave.ifindex,
            since: Moment::now(),
            until_ms: time.map(end),
            why,
        }
    }

    /// Returns the time that is left of it; None if it has no end.
    pub fn left(&self) -> Option<Duration> {
        self.until_ms.map(|until| Duration::from_millis(until).saturating_sub(boottime()))
    }

    /// Returns it for reports.
    pub fn report(&self) -> Drained {
        Drained {
            since: self.since.clone(),
            seconds_left: self.left().map(|left| left.as_secs()),
            why: self.why.clone(),
        }
    }

    /// Returns the name that the drained interface has now, or had if it is gone. `name_of` returns the name of an interface.
    pub fn present_name(&self, name_of: impl Fn(u32) -> Option<String>) -> String {
        name_of(self.ifindex).unwrap_or_else(|| self.slave.clone())
    }

    /// Returns whether it is of this slave; an `ifindex` of 0 is not known.
    ///
    /// As long as the drained interface exists its ifindex decides: another interface may have its former name. One that came
    /// back has another ifindex, and is known by its name.
    pub fn is_of(&self, slave: &DrainedSlave<'_>, name_of: impl Fn(u32) -> Option<String>) -> bool {
        let is_it = || match name_of(self.ifindex) {
            Some(name) => slave.ifindex == 0 && name == slave.name,
            None => self.slave == slave.name,
        };
        self.bond == *slave.bond && (self.ifindex == slave.ifindex || is_it())
    }
}

/// A slave that may be drained.
#[derive(Clone, Copy, Debug)]
pub struct DrainedSlave<'a> {
    /// The slave's bond.
    pub bond: &'a BondName,
    /// The slave's interface.
    pub name: &'a str,
    /// 0 if the interface is not enslaved.
    pub ifindex: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    /// ifindexes and times are of this boot.
    boot: Option<String>,
    drained: Vec<Drain>,
}

impl OfBoot for Contents {
    const FILE: &'static str = "drained.json";
    const VERSION: u32 = 1;
    type Item = Drain;

    fn new(version: u32, boot: Option<String>, drained: Vec<Drain>) -> Self {
        Self { version, boot, drained }
    }

    fn parts(self) -> (u32, Option<String>, Vec<Drain>) {
        (self.version, self.boot, self.drained)
    }
}

/// The drained slaves of a network namespace, in memory and in the file.
#[derive(Debug)]
pub struct Drains {
    place: Location,
    list: Vec<Drain>,
}

impl Drains {
    /// Returns what an agent has left; nothing if it was of a former boot.
    ///
    /// # Errors
    /// The file cannot be read, or is not one that an agent has written.
    pub fn read(paths: &Paths, trust: Trust) -> Result<Vec<Drain>, StoreError> {
        of_boot::read::<Contents>(paths.run_root(), trust)
    }

    /// Returns the drains with which an agent begins.
    pub fn new(paths: &Paths, list: Vec<Drain>) -> Self {
        Self { place: paths.run_root().clone(), list }
    }

    /// Returns the drain of a slave of a bond. `name_of` returns the name of an interface, as for the other functions.
    pub fn of(&self, slave: DrainedSlave<'_>, name_of: impl Fn(u32) -> Option<String>) -> Option<&Drain> {
        self.list.iter().find(|drain| drain.is_of(&slave, &name_of))
    }

    /// Returns those whose time is over.
    pub fn over(&self) -> Vec<Drain> {
        let is_over = |drain: &&Drain| drain.left().is_some_and(|left| left.is_zero());
        self.list.iter().filter(is_over).cloned().collect()
    }

    /// Adds a drain, in place of one of the same slave.
    ///
    /// # Errors
    /// The file cannot be written; nothing is changed.
    pub fn begin(&mut self, drain: Drain, name_of: impl Fn(u32) -> Option<String>) -> Result<(), StoreError> {
        let slave = DrainedSlave { bond: &drain.bond, name: &drain.slave, ifindex: drain.ifindex };
        let others = |known: &&Drain| !known.is_of(&slave, &name_of);
        let mut list: Vec<_> = self.list.iter().filter(others).cloned().collect();
        list.push(drain);
        self.write(list)
    }

    /// Ends the drain of a slave, if there is one.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end(
        &mut self,
        slave: DrainedSlave<'_>,
        name_of: impl Fn(u32) -> Option<String>,
    ) -> Result<(), StoreError> {
        self.keep(|drain| !drain.is_of(&slave, &name_of))
    }

    /// Ends the drains of all slaves of a bond.
    ///
    /// # Errors
    /// As [`Self::begin`].
    pub fn end_all(&mut self, bond: &BondName) -> Result<(), StoreError> {
        self.keep(|drain| drain.bond != *bond)
    }

    fn keep(&mut self, is_kept: impl Fn(&Drain) -> bool) -> Result<(), StoreError> {
        if self.list.iter().all(&is_kept) {
            return Ok(());
        }
        self.write(self.list.iter().filter(|drain| is_kept(drain)).cloned().collect())
    }

    fn write(&mut self, list: Vec<Drain>) -> Result<(), StoreError> {
        of_boot::write::<Contents>(&self.place, list.clone())?;
        self.list = list;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bond(name: &str) -> BondName {
        BondName::new(name).unwrap()
    }

    fn drain(name: &str, slave: &str, ifindex: u32) -> Drain {
        let bond = bond(name);
        let slave = DrainedSlave { bond: &bond, name: slave, ifindex };
        Drain::begin(slave, None, "a new cable".parse().ok())
    }

    #[test]
    fn drains_are_read_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path()).unwrap();
        paths.run_root().make_all(0o700).unwrap();
        assert_eq!(Drains::read(&paths, Trust::Ours).unwrap(), []);
        let mut drains = Drains::new(&paths, Vec::new());
        let [first, second] = [drain("bond0", "eth0", 3), drain("bond1", "eth0", 5)];
        let [first_bond, other_bond] = [bond("bond0"), bond("bond2")];
        let none = |_| None;
        drains.begin(first.clone(), none).unwrap();
        drains.begin(second.clone(), none).unwrap();
        drains.begin(first.clone(), none).unwrap();
        assert_eq!(Drains::read(&paths, Trust::Ours).unwrap(), [second.clone(), first]);
        let slave = |bond, name, ifindex| DrainedSlave { bond, name, ifindex };
        assert!(drains.of(slave(&other_bond, "eth0", 3), none).is_none());
        drains.end(slave(&first_bond, "eth0", 3), none).unwrap();
        assert_eq!(Drains::read(&paths, Trust::Ours).unwrap(), [second]);
        drains.end_all(&bond("bond1")).unwrap();
        assert!(!paths.run_root().path().join(Contents::FILE).exists());
    }

    #[test]
    fn a_drain_is_of_the_interface_whatever_its_name() {
        let bond = bond("bond0");
        let drain = drain("bond0", "eth0", 3);
        // (the present name of interface 3, the slave in question) -> whether it is drained
        let table = [
            (Some("eth0"), ("eth0", 3), true),
            (Some("eth1"), ("eth1", 3), true),
            // Interfaces 3 and 5 have exchanged their names.
            (Some("eth1"), ("eth0", 5), false),
            (Some("eth1"), ("eth1", 5), false),
            // It is not enslaved.
            (Some("eth1"), ("eth1", 0), true),
            (Some("eth1"), ("eth0", 0), false),
            // It is gone, or has come back with another ifindex.
            (None, ("eth0", 9), true),
            (None, ("eth0", 0), true),
            (None, ("eth1", 9), false),
        ];
        for (present, (name, ifindex), expected) in table {
            let name_of = |ifindex| present.filter(|_| ifindex == 3).map(str::to_owned);
            let slave = DrainedSlave { bond: &bond, name, ifindex };
            assert_eq!(drain.is_of(&slave, name_of), expected, "{present:?} {slave:?}");
        }
    }

    #[test]
    fn a_file_that_no_agent_has_written_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let paths = Paths::below(directory.path()).unwrap();
        paths.run_root().make_all(0o700).unwrap();
        for text in ["", "[]", r#"{"version":1,"boot":null,"drained":[{"bond":"../x"}]}"#] {
            std::fs::write(paths.run_root().path().join(Contents::FILE), text).unwrap();
            assert!(Drains::read(&paths, Trust::Ours).is_err(), "{text}");
        }
        std::fs::write(
            paths.run_root().path().join(Contents::FILE),
            r#"{"version":1,"boot":"former","drained":[]}"#,
        )
        .unwrap();
        assert_eq!(Drains::read(&paths, Trust::Ours).unwrap(), [], "of a former boot");
    }
}
