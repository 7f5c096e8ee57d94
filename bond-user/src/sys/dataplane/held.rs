//! The objects of a bond's data plane that are pinned, held open by the agent.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use bond_common::names;

use super::{DataPlaneError, netkit};
use crate::sys::directory::Directory;

/// What is pinned under a bond's directory, by the names of the pins: maps, programs and links. It stays when the pins are
/// removed, and can be pinned again.
#[derive(Default)]
pub(super) struct Held {
    objects: BTreeMap<String, Arc<OwnedFd>>,
    /// The kernel's numbers of the programs, by their pins: it never gives a program another one.
    numbers: BTreeMap<String, u32>,
}

impl Held {
    /// Opens the maps by their pins.
    ///
    /// # Errors
    /// A pin is missing, or the kernel does not open it ([`DataPlaneError::Pin`]).
    pub fn maps(pins: &Directory) -> Result<Self, DataPlaneError> {
        let mut held = Self::default();
        names::PINNED_MAPS.into_iter().try_for_each(|name| held.take(pins, name))?;
        Ok(held)
    }

    fn take(&mut self, pins: &Directory, name: &str) -> Result<(), DataPlaneError> {
        let pin_error = |source| DataPlaneError::Pin { path: pins.shown(name), source };
        let object = netkit::open(&pins.path_of(name)).map_err(pin_error)?;
        self.objects.insert(name.to_owned(), Arc::new(object));
        Ok(())
    }

    /// Opens a program by its pin, and its link if it has one.
    ///
    /// # Errors
    /// The kernel does not open a pin that exists.
    pub fn take_program(&mut self, pins: &Directory, pin: &str) -> Result<(), DataPlaneError> {
        let ends = [names::PROGRAM_PIN, names::LINK_PIN].map(|end| format!("{pin}_{end}"));
        ends.iter().filter(|name| pins.has(name)).try_for_each(|name| self.take(pins, name))?;
        let program = self.get(&ends[0]).and_then(|program| netkit::number_of_program(program.as_fd()).ok());
        if let Some(number) = program {
            self.numbers.insert(pin.to_owned(), number);
        }
        Ok(())
    }

    /// Returns the kernel's number of a program that is pinned under this name.
    pub fn number_of_program(&self, pin: &str) -> Option<u32> {
        self.numbers.get(pin).copied()
    }

    /// Returns the descriptor of a pin.
    pub fn get(&self, name: &str) -> Option<&Arc<OwnedFd>> {
        self.objects.get(name)
    }

    /// Takes a program from its hook, if it is a link, and holds it no more. It is detached here and not by the last
    /// descriptor, which another thread may have.
    pub fn release(&mut self, pin: &str) {
        if let Some(link) = self.objects.remove(&format!("{pin}_{}", names::LINK_PIN)) {
            // A link without a device is detached already.
            let _ = netkit::detach(link.as_fd());
        }
        self.objects.remove(&format!("{pin}_{}", names::PROGRAM_PIN));
        self.numbers.remove(pin);
    }

    /// Returns the names of the pins.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.objects.keys()
    }

    /// Returns whether it holds this object.
    pub fn has(&self, object: &Arc<OwnedFd>) -> bool {
        self.objects.values().any(|held| Arc::ptr_eq(held, object))
    }
}
