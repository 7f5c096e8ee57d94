//! The endpoints of the API: one table for the server's router, the client's requests, and the reference.

use std::time::Duration;

use bond_core::name::{BondName, InterfaceName};
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// A request that an agent answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Returns the state of all bonds.
    Bonds,
    /// Adds bonds.
    AddBonds,
    /// Returns the state of a bond.
    Bond,
    /// Removes a bond.
    DownBond,
    /// Returns the last failovers of a bond.
    Log,
    /// Streams the events of a bond.
    BondEvents,
    /// Streams the events of all bonds.
    Events,
    /// Returns the metrics for Prometheus.
    Metrics,
    /// Changes options of a bond.
    SetBond,
    /// Enslaves an interface.
    AddSlave,
    /// Releases a slave.
    DelSlave,
    /// Changes options of a slave.
    SetSlave,
    /// Drains a slave.
    Drain,
    /// Ends the drain of a slave.
    Undrain,
    /// Makes the agent read its files again.
    Reload,
    /// Ends the trial of the bonds.
    Confirm,
    /// Takes a bond of the kernel's driver over.
    TakeOver,
    /// Leads a takeover back that is on trial.
    UndoTakeover,
    /// Gives a bond to the kernel's driver.
    GiveBack,
}

/// One request: the method and the path, whose names are percent-encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The HTTP method.
    pub method: Method,
    /// The path, with the query.
    pub path: String,
}

impl Call {
    /// Returns the call that waits this long at most for the end of a change.
    pub fn within(self, wait: Duration) -> Self {
        Self { path: format!("{}?wait={}", self.path, wait.as_secs_f64()), ..self }
    }

    /// Returns whether it changes nothing.
    pub fn is_query(&self) -> bool {
        self.method == Method::GET
    }
}

/// The place of a bond's name in [`Endpoint::template`].
const BOND: &str = "{name}";
/// The place of a slave's name in [`Endpoint::template`].
const SLAVE: &str = "{slave}";

impl Endpoint {
    /// All endpoints, in the order of the reference.
    pub const ALL: [Self; 19] = [
        Self::Bonds,
        Self::AddBonds,
        Self::Bond,
        Self::DownBond,
        Self::Log,
        Self::BondEvents,
        Self::Events,
        Self::Metrics,
        Self::SetBond,
        Self::AddSlave,
        Self::DelSlave,
        Self::SetSlave,
        Self::Drain,
        Self::Undrain,
        Self::Reload,
        Self::Confirm,
        Self::TakeOver,
        Self::UndoTakeover,
        Self::GiveBack,
    ];

    /// Returns the HTTP method.
    pub fn method(self) -> Method {
        match self {
            Self::Bonds | Self::Bond | Self::Log | Self::BondEvents | Self::Events | Self::Metrics => {
                Method::GET
            }
            Self::AddBonds
            | Self::SetBond
            | Self::AddSlave
            | Self::SetSlave
            | Self::Drain
            | Self::Reload
            | Self::TakeOver
            | Self::GiveBack
            | Self::Confirm => Method::POST,
            Self::DownBond | Self::DelSlave | Self::Undrain | Self::UndoTakeover => Method::DELETE,
        }
    }

    /// Returns the path, with `{name}` in place of a bond's name and `{slave}` in place of a slave's.
    pub fn template(self) -> &'static str {
        match self {
            Self::Bonds | Self::AddBonds => "/v1/bonds",
            Self::Bond | Self::DownBond => "/v1/bonds/{name}",
            Self::Log => "/v1/bonds/{name}/log",
            Self::BondEvents => "/v1/bonds/{name}/events",
            Self::Events => "/v1/events",
            Self::Metrics => "/metrics",
            Self::SetBond => "/v1/bonds/{name}/options",
            Self::AddSlave => "/v1/bonds/{name}/slaves",
            Self::DelSlave => "/v1/bonds/{name}/slaves/{slave}",
            Self::SetSlave => "/v1/bonds/{name}/slaves/{slave}/options",
            Self::Drain | Self::Undrain => "/v1/bonds/{name}/slaves/{slave}/drain",
            Self::Reload => "/v1/reload",
            Self::Confirm => "/v1/confirm",
            Self::GiveBack => "/v1/bonds/{name}/giveback",
            Self::TakeOver | Self::UndoTakeover => "/v1/bonds/{name}/takeover",
        }
    }

    /// Returns the call of an endpoint that names no bond.
    pub fn call(self) -> Call {
        Call { method: self.method(), path: self.template().to_owned() }
    }

    /// Returns the call of an endpoint that names a bond.
    pub fn call_of(self, bond: &BondName) -> Call {
        Call { method: self.method(), path: self.template().replace(BOND, &encoded(bond)) }
    }

    /// Returns the call of an endpoint that names a slave.
    pub fn call_of_slave(self, bond: &BondName, slave: &InterfaceName) -> Call {
        let Call { method, path } = self.call_of(bond);
        Call { method, path: path.replace(SLAVE, &encoded(slave)) }
    }

    /// Returns the endpoint as the reference and errors write it, such as `GET /v1/bonds/NAME`.
    pub fn shown(self) -> String {
        format!("{} {}", self.method(), self.template().replace(BOND, "NAME").replace(SLAVE, "IF"))
    }
}

fn encoded(name: &str) -> String {
    utf8_percent_encode(name, NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded_in_paths() {
        let bond = BondName::new("bond0.1").unwrap();
        let slave = InterfaceName::new("eth{name}").unwrap();
        for (call, expected) in [
            (Endpoint::Bonds.call(), "/v1/bonds"),
            (Endpoint::Log.call_of(&bond), "/v1/bonds/bond0%2E1/log"),
            (
                Endpoint::SetSlave.call_of_slave(&bond, &slave),
                "/v1/bonds/bond0%2E1/slaves/eth%7Bname%7D/options",
            ),
            (Endpoint::Reload.call().within(Duration::from_millis(500)), "/v1/reload?wait=0.5"),
        ] {
            assert_eq!(call.path, expected);
        }
    }

    #[test]
    fn the_reference_lists_each_route() {
        let reference = include_str!("../../../docs/reference/http.md");
        for endpoint in Endpoint::ALL {
            let row = format!("| `{}` |", endpoint.shown());
            assert!(reference.contains(&row), "docs/reference/http.md has no row {row}");
        }
        let rows = reference.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, Endpoint::ALL.len(), "endpoints in docs/reference/http.md");
    }
}
