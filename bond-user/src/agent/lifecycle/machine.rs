//! What all bonds of an agent share.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use tokio::task::JoinHandle;

use crate::{
    agent::{
        LinkEventSource,
        bond::engine_handle::{BondId, EngineHandle},
        feed::Feed,
        lifecycle::confirm::Confirmation,
    },
    store::{drains::Drains, paths::Paths, record::System},
    sys::{
        Devices,
        dataplane::{DataPlanes, DeviceReader, Kernel},
    },
};

/// What all bonds of an agent share.
pub struct Machine {
    pub paths: Paths,
    /// SO_NETNS_COOKIE
    pub cookie: u64,
    pub kernel: Arc<Kernel>,
    pub planes: Arc<dyn DataPlanes>,
    /// For bond0's device; the engine has it, too.
    pub reader: Option<Arc<DeviceReader>>,
    pub devices: Arc<dyn Devices>,
    pub link_events: LinkEventSource,
    /// Held while the path of one bond is read, which may wait for RTNL.
    pub path_lane: Arc<tokio::sync::Mutex<()>>,
    /// Grows with each change of filters and nftables.
    pub hook_changes: Arc<AtomicU64>,
    pub engine: EngineHandle,
    pub tasks: Tasks,
    pub feed: Feed,
    pub confirmation: Arc<Confirmation>,
    /// Held while an interface is enslaved, from the query for its owner until found.json names it, so that it becomes the
    /// slave of one bond only.
    pub enslaving: Arc<tokio::sync::Mutex<()>>,
    /// The slaves that administrators have drained.
    pub drains: Mutex<Drains>,
}

impl Machine {
    /// Returns the drained slaves, for nothing that may wait.
    pub fn drains(&self) -> MutexGuard<'_, Drains> {
        // Poisoned or not, it is one list or the other.
        self.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What bonds are restored with.
    pub fn system(&self) -> System<'_> {
        System { devices: &*self.devices, pins: self.planes.pins() }
    }
}

/// The bonds' tasks, to wait for.
#[derive(Default)]
pub struct Tasks(Mutex<HashMap<BondId, JoinHandle<()>>>);

impl Tasks {
    pub fn add(&self, id: BondId, task: JoinHandle<()>) {
        // Poisoned or not, a map of handles is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, task);
    }

    pub fn take(&self, id: BondId) -> Option<JoinHandle<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }
}
