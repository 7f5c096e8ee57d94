//! Where the maps of a bond are pinned.

use std::path::{Path, PathBuf};

use crate::{FollowError, sys};

const BPFFS: &str = "/sys/fs/bpf";
/// The bpffs of process 1, for processes with another /sys, such as `ip netns exec` starts.
const BPFFS_OF_INIT: &str = "/proc/1/root/sys/fs/bpf";
/// IFNAMSIZ without the final zero.
const LONGEST_NAME: usize = 15;

/// Returns the directory of the pins of a bond in the network namespace of this thread.
pub(crate) fn pins_of(bond: &str) -> Result<PathBuf, FollowError> {
    let cookie = sys::netns_cookie().map_err(FollowError::Namespace)?;
    let root = if !sys::is_bpffs(BPFFS) && sys::is_bpffs(BPFFS_OF_INIT) { BPFFS_OF_INIT } else { BPFFS };
    Ok(Path::new(root).join("xbond").join(cookie.to_string()).join(pin_name(bond)?))
}

/// Returns the name of the bond's directory. bpffs accepts no dots in names.
fn pin_name(bond: &str) -> Result<String, FollowError> {
    let is_bad = |character: char| {
        matches!(character, '/' | '%' | ':') || character.is_whitespace() || character.is_control()
    };
    if bond.is_empty() || bond.len() > LONGEST_NAME || bond.contains(is_bad) {
        return Err(FollowError::Name(bond.to_owned()));
    }
    Ok(bond.replace('.', "%2E"))
}

#[cfg(test)]
mod tests {
    use super::pin_name;

    #[test]
    fn a_bonds_directory_is_below_its_namespaces() {
        assert_eq!(pin_name("bond0").unwrap(), "bond0");
        assert_eq!(pin_name("bond0.7").unwrap(), "bond0%2E7");
        assert_eq!(pin_name("..").unwrap(), "%2E%2E", "not the parent");
        for bad in ["", "a/b", "a%2Fb", "a b", "a\0b", "sixteen-letters-"] {
            assert!(pin_name(bad).is_err(), "{bad:?}");
        }
    }
}
