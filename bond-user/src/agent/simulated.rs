//! Agents on a machine in memory, on one thread and by its clock: for simulators.
//!
//! Everything is the agent's own code but what is outside of a process: link events come from the simulator
//! ([`SimulatedAgent::link_event`]), as do the events of programs; there is no control socket, and no signal. An agent is
//! killed when its runtime is dropped.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bond_core::{
    name::{BondName, InterfaceName},
    status::BondStatus,
};

use crate::{
    agent::{
        Agent, AgentError, LinkEventSource,
        bond::{engine_thread, link_mail::LinkFeed},
        feed::Feed,
        lifecycle::{
            confirm::Confirmation,
            end::Ending,
            machine::{Machine, Tasks},
            returned::restore_returned,
        },
        outcome::Outcome,
    },
    config::{BondConfig, Config, Files, Source},
    report::receipt::Receipt,
    store::{
        drains::Drains,
        paths::Paths,
        receipts,
        record::{System, undo},
    },
    sys::{
        dataplane::{
            DeviceReader, Kernel,
            fake::{FakeDataPlanes, ProgramMaps, Rings, words},
        },
        directory::Trust,
        fake::FakeKernel,
        netlink::LinkEvent,
    },
};

/// A machine in memory, and the directory of what its agents leave.
pub struct SimulatedMachine {
    /// Its kernel.
    pub kernel: FakeKernel,
    paths: Paths,
    rings: Rings,
    types: Arc<Kernel>,
    /// Whether the programs can read devices, and so the agent without netlink.
    has_reader: bool,
}

impl SimulatedMachine {
    /// Creates a machine whose agents have their files and pins below this directory.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn new(kernel: FakeKernel, directory: PathBuf, has_reader: bool) -> std::io::Result<Self> {
        let types = Kernel::in_memory();
        let types = Arc::new(if has_reader { types } else { types.without_types() });
        Ok(Self { kernel, paths: Paths::below(&directory)?, rings: Rings::default(), types, has_reader })
    }

    /// Starts an agent without bonds on the present runtime, which has to be one of a single thread. It listens to nothing yet.
    ///
    /// # Errors
    /// Another agent of this machine is there.
    pub fn start_agent(&self) -> Result<SimulatedAgent, AgentError> {
        let reader = self.has_reader.then(|| Arc::new(DeviceReader::in_memory(self.kernel.clone())));
        let planes =
            FakeDataPlanes::with_rings(self.kernel.clone(), Arc::clone(&self.types), self.rings.clone());
        let drains = Drains::read(&self.paths, Trust::Ours).unwrap_or_default();
        let machine = Machine {
            paths: self.paths.clone(),
            cookie: 7,
            planes: Arc::new(planes),
            kernel: Arc::clone(&self.types),
            devices: Arc::new(self.kernel.clone()),
            link_events: LinkEventSource::Netlink,
            path_lane: Arc::default(),
            hook_changes: Arc::default(),
            engine: engine_thread::start_as_task(reader.clone()),
            reader,
            tasks: Tasks::default(),
            feed: Feed::default(),
            confirmation: Arc::new(Confirmation::new(None)),
            enslaving: Arc::default(),
            drains: Mutex::new(Drains::new(&self.paths, drains)),
        };
        let files = Source { files: Files::Default, datapath: None, on_exit: None };
        let agent = Arc::new(Agent { source: Some(files), ..Agent::in_memory(machine)? });
        Ok(SimulatedAgent { agent, links: LinkFeed::default() })
    }

    /// Returns the maps of a bond, as its programs see them; `None` if there is no such bond.
    pub fn words(&self, bond: &BondName) -> Option<ProgramMaps> {
        words(&self.paths.pins_of(bond), &self.rings)
    }

    /// Returns the bonds that have files or pins.
    pub fn bonds(&self) -> Vec<BondName> {
        self.paths.bonds().into_iter().collect()
    }

    /// Returns the receipts of a bond that are on disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn receipts(&self, bond: &BondName) -> Result<Vec<Receipt>, String> {
        receipts::read(&self.paths.run_of(bond), Trust::Ours).map_err(|error| error.to_string())
    }

    /// Returns the path of the receipts of a bond, to be torn.
    pub fn receipts_path(&self, bond: &BondName) -> PathBuf {
        self.paths.run_of(bond).path().join("receipts.ndjson")
    }

    /// Removes what agents have left of a bond, as `xbond down --force` does. Returns what the administrator should know.
    ///
    /// # Errors
    /// Something could not be restored.
    pub async fn undo(&self, bond: &BondName) -> Result<Vec<String>, String> {
        let planes =
            FakeDataPlanes::with_rings(self.kernel.clone(), Arc::clone(&self.types), self.rings.clone());
        let system = System { devices: &self.kernel, pins: &planes };
        undo(&self.paths, bond, &system).await.map_err(|error| error.to_string())
    }
}

/// An agent on the present runtime. Clones are the same one.
#[derive(Clone)]
pub struct SimulatedAgent {
    agent: Arc<Agent>,
    links: LinkFeed,
}

impl SimulatedAgent {
    /// Brings bonds up, as bonds of files, and starts the tasks of the agent. Returns what failed.
    ///
    /// # Errors
    /// None of the bonds could be brought up: the agent would not start.
    pub async fn live(&self, bonds: Vec<BondConfig>) -> Result<(), AgentError> {
        {
            let _one_at_a_time = self.agent.machine.enslaving.lock().await;
            restore_returned(&self.agent.machine).await;
        }
        let failures = self.agent.bring_up_of_files(bonds).await?;
        self.agent.keep_in_mind(failures).await?;
        tokio::spawn(Arc::clone(&self.agent).retry_missing());
        tokio::spawn(Arc::clone(&self.agent).end_drains());
        tokio::spawn(Arc::clone(&self.agent).follow_links(self.links.clone()));
        tokio::spawn(Arc::clone(&self.agent).keep_house());
        tokio::spawn(Arc::clone(&self.agent).recreate_lost());
        Ok(())
    }

    /// Delivers a link event.
    pub fn link_event(&self, event: &LinkEvent) {
        self.agent.machine.engine.device(event.clone());
        self.links.put(event.clone());
    }

    /// Delivers that the programs of a bond have reported something.
    pub fn data_plane_events(&self, bond: &BondName) {
        if let Some(bond) = self.agent.find(bond) {
            self.agent.machine.engine.data_plane_events(bond.id);
        }
    }

    /// Returns the state of a bond as its readers see it; `None` if the agent does not have it.
    pub fn status(&self, bond: &BondName) -> Option<BondStatus> {
        self.agent.find(bond).map(|bond| bond.status())
    }

    /// Returns whether nothing that was decided is still to be done; false, too, for a bond that the agent does not have.
    pub async fn is_settled(&self, bond: &BondName) -> bool {
        let Some(bond) = self.agent.find(bond) else { return false };
        self.agent.machine.engine.pending(bond.id).await.is_ok_and(|pending| pending.is_empty())
    }

    /// Returns the number of failovers without a record that the agent knows of.
    pub fn unrecorded(&self, bond: &BondName) -> u64 {
        self.agent.find(bond).map_or(0, |bond| bond.history.get().unrecorded)
    }

    /// Returns the number of inputs that wait for the engine.
    pub fn waiting_inputs(&self) -> usize {
        self.agent.machine.engine.waiting()
    }

    /// Handles `xbond add-slave`.
    ///
    /// # Errors
    /// As the request.
    pub async fn add_slave(&self, bond: &BondName, slave: &InterfaceName) -> Result<Vec<String>, AgentError> {
        self.agent.add_slave(bond, slave, &[]).await
    }

    /// Handles `xbond del-slave`.
    ///
    /// # Errors
    /// As the request.
    pub async fn del_slave(&self, bond: &BondName, slave: &str) -> Result<Vec<String>, AgentError> {
        self.agent.del_slave(bond, slave).await
    }

    /// Handles `xbond set`.
    ///
    /// # Errors
    /// As the request.
    pub async fn set(&self, bond: &BondName, key: &str, value: &str) -> Result<Vec<String>, AgentError> {
        self.agent.set(bond, &[(key.to_owned(), value.to_owned())]).await
    }

    /// Handles `xbond reload` with files that say this now.
    pub async fn reload(&self, bonds: Vec<BondConfig>) -> Outcome {
        let config = Config { bonds, ..Config::default() };
        self.agent.become_what_was_read(config, self.agent.access()).await
    }

    /// Handles `xbond down`.
    ///
    /// # Errors
    /// As the request.
    pub async fn down(&self, bond: &BondName) -> Result<Vec<String>, AgentError> {
        self.agent.down(bond).await
    }

    /// Ends as after SIGTERM: what becomes of bonds is their `on_exit`.
    ///
    /// # Errors
    /// Something could not be restored.
    pub async fn end(&self) -> Result<(), AgentError> {
        self.agent.end(Ending::AsConfigured).await
    }
}

impl Agent {
    /// Brings up bonds, each of which is a file's.
    async fn bring_up_of_files(
        &self,
        bonds: Vec<BondConfig>,
    ) -> Result<Vec<(BondConfig, AgentError)>, AgentError> {
        self.bring_up(bonds, async || std::future::pending().await).await
    }
}
