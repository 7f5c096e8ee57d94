//! What the agent checks once a second: its run directory, lock and control socket, the pins of its bonds, and memory.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bond_core::name::BondName;
use tokio::{net::UnixListener, time::MissedTickBehavior};
use tracing::warn;

use crate::{
    agent::{
        Agent, AgentError, Bond, Serving,
        server::control::{self, Socket},
    },
    report::{
        moment::monotonic,
        repeats::{Repeats, left_out},
        wording,
    },
    store::record::Record,
    sys::{dataplane::DataPlaneError, memory::Frugal},
};

/// Time between two checks.
const BETWEEN_CHECKS: Duration = Duration::from_secs(1);

/// Time between two attempts to recreate bonds.
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(5);

/// Checks for each one of the memory.
const CHECKS_PER_MEMORY_CHECK: u32 = 5;

/// Checks in which the files of each bond are looked for once: those of some bonds in each.
const CHECKS_PER_FILE_CHECK: usize = 5;

impl Agent {
    /// Answers at a control socket, and at no other one.
    pub(in crate::agent) fn serve(self: &Arc<Self>, socket: Socket) -> Result<(), AgentError> {
        let paths = &self.machine.paths;
        let listener = socket.open().map_err(|source| AgentError::Socket { path: paths.socket(), source })?;
        let task = tokio::spawn(control::serve(listener, Arc::clone(self))).abort_handle();
        let serving = Serving { identity: paths.socket_identity(), task };
        if let Some(former) = self.serving().replace(serving) {
            former.task.abort();
        }
        paths.link_socket();
        Ok(())
    }

    /// Accepts the connections of other agents, which ask for the owner of the socket, so that its queue never fills up.
    pub(in crate::agent) fn accept_askers(&self) {
        let Some(socket) = self.claim().take_socket() else { return };
        let listener = socket.set_nonblocking(true).and_then(|()| UnixListener::from_std(socket));
        match listener {
            Ok(listener) => drop(tokio::spawn(async move {
                loop {
                    if listener.accept().await.is_err() {
                        tokio::time::sleep(BETWEEN_CHECKS).await;
                    }
                }
            })),
            Err(error) => warn!("{}", wording::not_found_without_directory(&error)),
        }
    }

    /// Restores what another process has removed from the run directory: lock and control socket. Returns whether it was
    /// removed, and with it perhaps more.
    pub(in crate::agent) fn keep_places(self: &Arc<Self>, failures: &mut Repeats) -> bool {
        let paths = &self.machine.paths;
        let remade = paths.reclaim(&mut self.claim());
        let is_served = |serving: &Serving| serving.identity == paths.socket_identity();
        let served = match &remade {
            Ok(_) if self.serving().as_ref().is_none_or(is_served) => Ok(false),
            Ok(_) => self.serve_again().map(|()| true),
            Err(_) => Ok(false),
        };
        let shown = paths.socket();
        match (remade, served) {
            (Ok(false), Ok(false)) => return false,
            (Ok(_), Ok(_)) => {
                warn!("{}", wording::path_restored(shown.display()));
            }
            (Err(error), _) => self.warn_of_places(failures, &error.to_string()),
            (_, Err(error)) => self.warn_of_places(failures, &error.to_string()),
        }
        true
    }

    /// Looks for a bond's record and pins. What is missing is restored, or reported.
    fn look_for_files(&self, name: &BondName, bond: &Bond) {
        if !Record::is_there(&self.machine.paths, name) {
            bond.work.read(|reads| reads.record = true);
        }
        let pinned = match self.machine.planes.pins().check(&self.machine.paths.pins_of(name)) {
            Ok(()) => true,
            Err(DataPlaneError::Unpinned(_)) => false,
            // The state is unknown: the last known one stays.
            Err(_) => return,
        };
        if bond.pinned.swap(pinned, Ordering::Relaxed) != pinned {
            bond.work.read(|reads| reads.pinned = Some(pinned));
        }
    }

    pub(in crate::agent) fn warn_of_places(&self, failures: &mut Repeats, error: &str) {
        if let Some(count) = failures.admit(monotonic(), error) {
            let shown = self.machine.paths.socket();
            warn!("{}{}", wording::socket_removed(shown.display(), error), left_out(count));
        }
    }

    pub(in crate::agent) fn serve_again(self: &Arc<Self>) -> Result<(), AgentError> {
        let paths = &self.machine.paths;
        let socket = Socket::prepare(paths.open_run()?, &self.access());
        self.serve(socket.map_err(|source| AgentError::Socket { path: paths.socket(), source })?)
    }

    /// Checks once a second: the maps, the run directory, and each bond's devices. One task does it for all bonds: a task per
    /// bond would wake the agent as often as there are bonds. Every five seconds it looks for the files of each bond, and
    /// returns free memory to the kernel.
    pub(in crate::agent) async fn keep_house(self: Arc<Self>) {
        let mut check = tokio::time::interval(BETWEEN_CHECKS);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut memory = Frugal::default();
        let mut failures = Repeats::default();
        for (number, turn) in (1_u32..).zip((0..CHECKS_PER_FILE_CHECK).cycle()) {
            check.tick().await;
            if number.is_multiple_of(CHECKS_PER_MEMORY_CHECK) {
                memory.check();
            }
            self.machine.engine.check_maps();
            let is_removed = self.keep_places(&mut failures);
            for (place, (name, bond)) in self.all().into_iter().enumerate() {
                bond.work.check(|pending| pending.path = true);
                if is_removed || place % CHECKS_PER_FILE_CHECK == turn {
                    self.look_for_files(&name, &bond);
                }
            }
        }
    }

    /// Tries every five seconds to recreate lost bonds, and to restore former slaves that could not be restored. It is a
    /// task of its own, so that a bond whose creation takes long does not delay the checks of the others.
    pub(in crate::agent) async fn recreate_lost(self: Arc<Self>) {
        let mut attempt = tokio::time::interval(BETWEEN_ATTEMPTS);
        attempt.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut missing = self.lost_bonds(None).await.len();
        loop {
            attempt.tick().await;
            self.try_returned_again().await;
            self.make_lost_again().await;
            let lost = self.lost_bonds(None).await.len();
            if std::mem::replace(&mut missing, lost) != lost {
                self.say_status().await;
            }
        }
    }
}
