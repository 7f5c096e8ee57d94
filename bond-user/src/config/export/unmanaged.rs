//! Writes files by which network managers leave the slaves of a bond alone.

use super::{UnsafeName, check_names};
use crate::config::BondConfig;

/// A file with its path, from the root of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmanagedFile {
    /// The absolute path.
    pub path: String,
    /// The contents.
    pub text: String,
}

/// Returns the files of NetworkManager and systemd-networkd; none for a bond without slaves.
///
/// # Errors
/// A name has characters that mean something else in such files.
pub fn unmanaged(bond: &BondConfig) -> Result<Vec<UnmanagedFile>, UnsafeName> {
    check_names(bond)?;
    let name = &bond.name;
    let slaves: Vec<_> = bond.slaves.iter().map(|slave| slave.name.as_str()).collect();
    if slaves.is_empty() {
        return Ok(Vec::new());
    }
    let heading = format!("# Written by `xbond add --persist`: the slaves of {name} are xbond's.\n");
    let devices: Vec<_> = slaves.iter().map(|slave| format!("interface-name:{slave}")).collect();
    let networkmanager =
        format!("{heading}[device-xbond-{name}]\nmatch-device={}\nmanaged=0\n", devices.join(","));
    let networkd = format!("{heading}[Match]\nName={}\n\n[Link]\nUnmanaged=yes\n", slaves.join(" "));
    Ok(vec![
        UnmanagedFile {
            path: format!("etc/NetworkManager/conf.d/90-xbond-{name}.conf"),
            text: networkmanager,
        },
        UnmanagedFile { path: format!("etc/systemd/network/05-xbond-{name}.network"), text: networkd },
    ])
}
