//! What a check finds, and what it has to know about the host.

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use crate::config::Origin;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Correct, but possibly surprising.
    Note,
    /// Accepted, but probably not intended.
    Warning,
    /// Refused.
    Error,
}

impl std::fmt::Display for Severity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A fact that an administrator should know before the bond runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How serious the finding is.
    pub severity: Severity,
    /// A stable identifier.
    pub id: &'static str,
    /// The file, and the line if one causes the finding.
    pub origin: Origin,
    /// The fact, and a remedy.
    pub text: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {} [{}]", self.origin, self.severity, self.text, self.id)
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (file, line) = match &self.origin {
            Origin::Flags => (None, None),
            Origin::File { path, line } => (Some(path), *line),
        };
        let mut object = serializer.serialize_struct("Finding", 5)?;
        object.serialize_field("severity", &self.severity)?;
        object.serialize_field("id", self.id)?;
        object.serialize_field("file", &file)?;
        object.serialize_field("line", &line)?;
        object.serialize_field("text", &self.text)?;
        object.end()
    }
}

/// The known facts about the machine on which the bonds are to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// A hypervisor with ports that pass only their own NIC's MAC address by default.
    pub strict_ports: Option<&'static str>,
    /// Chains and filters of other programs at interfaces of this machine.
    pub hooked: Vec<HookedInterface>,
    /// Conflicts on interfaces of this machine.
    pub conflicts: Vec<ConflictOn>,
    /// The slaves and ports of the files that this machine does not have.
    pub absent: Vec<String>,
    /// Whether this machine has none of the slaves and ports of the files, which are for another one then.
    pub is_other_machine: bool,
}

/// A chain or filter at a hook of an interface, which packets of a bond would bypass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookedInterface {
    /// The interface.
    pub interface: String,
    /// Whether only datapath=xdp bypasses it.
    pub by_xdp_alone: bool,
    /// The text for a bond with this name in place of `{bond}`.
    pub text: String,
}

/// The id of the finding that an address stays on a slave.
pub const ADDRESS_OF_SLAVE: &str = "slave-address";

/// The id of the finding that this machine does not have a slave. It is printed even if it is a note.
pub const ABSENT_SLAVE: &str = "absent-slave";

/// The id of the finding that this machine does not have a bond's port. It is printed even if it is a note.
pub const ABSENT_PORT: &str = "absent-port";

/// An address or a device on an interface that conflicts with a bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictOn {
    /// The interface.
    pub interface: String,
    /// The id of its finding.
    pub id: &'static str,
    /// The text for a bond with this name in place of `{bond}`.
    pub text: String,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The bonds that could be read.
    pub bonds: Vec<String>,
    /// Their slaves.
    pub slaves: Vec<String>,
    /// Their ports, of those that have one.
    pub ports: Vec<String>,
    /// The findings, in the order of files and lines.
    pub findings: Vec<Finding>,
}
