//! What the agent says when it is ready: a line for each bond, and its status for systemd.

use crate::{
    agent::{Agent, AgentError, Bond},
    report::lines,
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
            ready.push("ready: no bonds; `xbond add` makes one".to_owned());
        }
        ready.iter().for_each(|line| lines::print(line));
        Ok(())
    }

    /// Has systemd show which bonds are not there.
    pub(in crate::agent) async fn say_status(&self) {
        let bonds = self.bonds().len();
        let lost = self.lost_bonds(None).await;
        notify::status(&format!(
            "{bonds} {} up{}",
            if bonds == 1 { "bond" } else { "bonds" },
            lost.iter().map(|sentence| format!("; {sentence}")).collect::<String>()
        ));
    }

    pub(in crate::agent) async fn is_ready(&self, name: &str, bond: &Bond) -> Result<String, AgentError> {
        let status = self.machine.engine.status(bond.id).await?;
        let active = status.active_slave.as_deref().unwrap_or("none");
        let carrier = if status.carrier { "up" } else { "down" };
        let absent: Vec<_> = bond.goal().absent(&status).map(|wanted| wanted.name().to_owned()).collect();
        let missing = match absent.as_slice() {
            [] => String::new(),
            names => format!("; not enslaved yet: {}", names.join(", ")),
        };
        Ok(format!("{name} ready: active slave {active}, carrier {carrier}, datapath {}{missing}", bond.hook))
    }
}
