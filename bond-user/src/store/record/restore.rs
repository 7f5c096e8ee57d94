//! Restoring the original state that a record has.

use super::{Record, RecordedPair, System, Taken, pair};
use crate::{
    report::log,
    store::StoreError,
    sys::{
        Devices,
        directory::Location,
        enslave::{RestoreOutcome, Unconfirmed},
        found::{Found, Space},
        netlink::LinkSetting,
        ownership::Ownership,
    },
};

impl Record {
    /// Asks the kernel which interfaces are this bond's, as long as there are pins.
    pub async fn prove(&self, system: &System<'_>, pins: &Location) -> Ownership {
        let ends = self.pair.iter().filter_map(|pair| pair.ends).flat_map(|ends| [ends.bond, ends.port]);
        let clock = self.clock.iter().filter_map(|clock| clock.ends);
        let clock = clock.flat_map(|ends| [ends.sender, ends.receiver]);
        let found = self.slaves.iter().chain(&self.port).chain(&self.away).map(|found| found.ifindex);
        let candidates: Vec<_> = ends.chain(clock).chain(found).collect();
        system.devices.prove(self.mark(), &system.pins.read(pins), &candidates).await
    }

    /// Restores everything that the kernel confirms to belong to this bond: created devices are deleted, the others get
    /// their original state. Missing devices are skipped, and a failure does not stop the rest; the first failure is the
    /// error. Returns the devices that are not confirmed, and were not changed.
    ///
    /// `detach` detaches the programs. It is called after bond0 and its addresses were removed and the interfaces were set
    /// down: without its program, the host's own stack would answer on a slave for bond0's addresses.
    ///
    /// # Errors
    /// The first step that failed, after all others were tried.
    pub async fn restore(
        &self,
        devices: &dyn Devices,
        proof: &Ownership,
        detach: impl AsyncFnOnce() -> Result<(), StoreError>,
    ) -> Result<Vec<Leftover>, StoreError> {
        let mut left = Vec::new();
        let mut failure = None;
        let mut note = |answer: Result<(), StoreError>| {
            if let Err(error) = answer {
                failure.get_or_insert(error);
            }
        };
        let released = self.released_to_restore(devices).await;
        for found in self.slaves.iter().chain(released) {
            note(devices.return_addresses(found, proof).await.map_err(StoreError::from));
        }
        if let Some(pair) = &self.pair {
            match delete_pair(devices, pair, proof).await {
                Ok(stranger) => left.extend(stranger),
                Err(error) => note(Err(error)),
            }
        }
        if let Some(clock) = &self.clock {
            note(clock.delete(devices, proof).await.map(drop));
        }
        if let Some(Taken { rules, .. }) = &self.taken {
            // Rules about other devices were never added for the bond.
            let rules = rules.rules_about(&self.bond);
            note(devices.del_rules(&rules).await.map_err(StoreError::from));
        }
        for found in self.slaves.iter().chain(&self.port) {
            note(devices.close_to_restore(found, proof).await.map_err(StoreError::from));
        }
        note(detach().await);
        // A slave that vanished may have returned without an agent.
        for found in self.slaves.iter().chain(released).chain(&self.port).chain(&self.away) {
            match devices.restore(found, proof).await {
                Ok(RestoreOutcome::Unconfirmed(Unconfirmed { name, looks_enslaved })) => {
                    left.push(Leftover { name, ifindex: found.ifindex, looks_enslaved, failure: None });
                }
                Ok(RestoreOutcome::Done | RestoreOutcome::Gone) => {}
                Err(error) => left.push(Leftover {
                    name: found.name.clone(),
                    ifindex: found.ifindex,
                    looks_enslaved: true,
                    failure: Some(error.to_string()),
                }),
            }
        }
        failure.map_or(Ok(left), Err)
    }

    /// Removes everything from the record that [`Self::restore`] has restored. Returns the devices that no longer
    /// belong to the bond.
    ///
    /// # Errors
    /// Something is left to restore.
    pub fn settle(&mut self, answer: Result<Vec<Leftover>, StoreError>) -> Result<Vec<Leftover>, StoreError> {
        let left = match answer {
            Ok(left) => left,
            Err(error) => {
                self.change(Space::SetAside, |record| record.unrestored = true)?;
                return Err(error);
            }
        };
        let (left, strangers): (Vec<_>, Vec<_>) = left.into_iter().partition(|left| left.looks_enslaved);
        if left.is_empty() {
            return Ok(strangers);
        }
        self.keep_only(&left)?;
        let (bond, files) = (self.bond.to_string(), self.place.path());
        let failures: Vec<_> = left
            .iter()
            .filter_map(|left| Some(format!("{}: {}", left.name, left.failure.as_ref()?)))
            .collect();
        let names =
            left.into_iter().filter(|left| left.failure.is_none()).map(|left| left.name).collect::<Vec<_>>();
        Err(if failures.is_empty() {
            StoreError::Unconfirmed { bond, names, files }
        } else {
            StoreError::NotRestored { bond, failures: failures.join("; "), files }
        })
    }

    /// Removes everything but these interfaces: the rest is restored.
    fn keep_only(&mut self, left: &[Leftover]) -> Result<(), StoreError> {
        let is_left = |found: &Found| left.iter().any(|left| left.ifindex == found.ifindex);
        self.change(Space::SetAside, |record| {
            let released = record.taken.take().and_then(|taken| taken.released);
            record.away.extend(released);
            record.unrestored = true;
            record.pair.take_if(|_| !left.iter().any(|left| left.ifindex == PAIR));
            record.clock = None;
            record.port.take_if(|port| !is_left(port));
            record.slaves.retain(is_left);
            record.away.retain(is_left);
        })
    }

    pub(super) async fn detach_filters(&self, system: &System<'_>, proof: &Ownership) {
        for found in self.slaves.iter().chain(&self.port) {
            // By the name that it has now; one that is gone took its filters along.
            if let Ok(link) = system.devices.link_by_index(found.ifindex).await
                && proof.holds(&link)
            {
                system.pins.detach_filters(&link.name);
            }
        }
    }

    /// The released interface that gave bond0 its addresses, unless it is a port of something else by now. It has kept the
    /// alias of the bond; as another bond's slave it would have that one's.
    async fn released_to_restore(&self, devices: &dyn Devices) -> Option<&Found> {
        let released = self.released_giver()?;
        let link = devices.find(released).await.ok().flatten()?;
        if link.master.is_none() {
            return Some(released);
        }
        let bond = &self.bond;
        log::of(bond).slave(&link.name).warn(format_args!(
            "{}: does not get its addresses back: it belongs to something else by now",
            link.name
        ));
        None
    }
}

/// An interface that a record names, and that the kernel does not confirm to belong to the bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The name of the interface.
    pub name: String,
    /// The ifindex in the record, or [`PAIR`].
    ifindex: u32,
    /// See [`Unconfirmed`].
    looks_enslaved: bool,
    /// Why the device was not restored, if the kernel confirms that it belongs to the bond.
    failure: Option<String>,
}

/// No interface has this ifindex.
const PAIR: u32 = 0;

/// Deletes the pair, whatever its ends are called now. For a pair that was just created only the names are known.
/// Returns the name of the device in its place, if that is not confirmed to belong to the bond.
async fn delete_pair(
    devices: &dyn Devices,
    pair: &RecordedPair,
    proof: &Ownership,
) -> Result<Option<Leftover>, StoreError> {
    // The port may have been moved to another network namespace.
    let ifindexes = pair.ends.map(|ends| [ends.port, ends.bond]);
    let ends = pair::ends(devices, ifindexes, [&pair.port, &pair.bond]).await?;
    if pair::delete(devices, &ends, proof).await? {
        return Ok(None);
    }
    let [port, bond] = ends;
    let looks_enslaved = port.as_ref().is_some_and(|port| LinkSetting::Noarp(true).holds(port));
    Ok(port.or(bond).map(|end| Leftover { name: end.name, ifindex: PAIR, looks_enslaved, failure: None }))
}
