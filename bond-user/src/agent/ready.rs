//! What the agent prints when it is ready, a line for each bond, and its status for systemd.

use crate::{
    agent::{Agent, AgentError, Bond},
    report::{lines, wording},
    sys::notify,
};

impl Agent {
    /// One line per bond on standard output: the process that started the agent may continue.
    pub(in crate::agent) async fn say_ready(&self) -> Result<(), AgentError> {
        let mut ready = Vec::new();
        for (name, bond) in self.all() {
            ready.push(self.is_ready(&name, &bond).await?);
        }
        ready.extend(self.lost_bonds(None).await);
        if ready.is_empty() {
            ready.push(wording::ready_without_bonds());
        }
        ready.iter().for_each(|line| lines::print(line));
        Ok(())
    }

    /// Sends systemd the agent's status: how many bonds are up, and which are not.
    pub(in crate::agent) async fn say_status(&self) {
        let bonds = self.bonds().len();
        let lost = self.lost_bonds(None).await;
        notify::status(&wording::status(bonds, &lost));
    }

    pub(in crate::agent) async fn is_ready(&self, name: &str, bond: &Bond) -> Result<String, AgentError> {
        let status = self.machine.engine.status(bond.id).await?;
        let active = status.active_slave.as_deref().unwrap_or("none");
        let carrier = if status.carrier { "up" } else { "down" };
        let absent: Vec<_> = bond.goal().absent(&status).map(|wanted| wanted.name().to_owned()).collect();
        let missing = match absent.as_slice() {
            [] => String::new(),
            names => wording::not_enslaved_yet(names.join(", ")),
        };
        Ok(wording::ready(name, active, carrier, bond.hook, missing))
    }
}
