//! The original state of an interface, before xbond changed it.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bond_common::mac::Mac;
use nix::fcntl::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize, Serializer};

use super::{
    alias::Alias,
    ethtool::FeatureState,
    layer3::Layer3,
    netlink::{Address, In6AddrGenMode, KernelRoute, LinkInfo, NetnsId},
};

/// A slave's state before the first change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Found {
    /// The index that the interface had.
    pub ifindex: u32,
    /// The name that it had.
    pub name: String,
    /// As in [`super::netlink::LinkInfo::kind`].
    pub kind: Option<String>,
    /// The permanent address. With the ifindex it shows whether the device is still the same one.
    #[serde(with = "mac_text::option")]
    pub permanent_mac: Option<Mac>,
    /// The MAC address that it had.
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// The device below it, or its other end: it shows whether a virtual device is still the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<Lower>,
    /// The administrator's alias, which the bond's alias replaces. Also `None` in files of version 2 and 3, although
    /// there may have been one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// Bytes.
    pub mtu: u32,
    /// Whether it was up.
    pub up: bool,
    /// Whether allmulticast was set explicitly.
    pub allmulti: bool,
    /// Whether promiscuous mode was set explicitly.
    pub promisc: bool,
    /// IFLA_INET6_ADDR_GEN_MODE by its number; none without IPv6.
    pub addr_gen_mode: Option<u8>,
    /// IPv4 addresses stay in place and IPv6 addresses are removed; the kernel removes the rest when the device is
    /// set down.
    #[serde(serialize_with = "shared")]
    pub layer3: Arc<Layer3>,
    /// Offload features that xbond changes.
    pub features: Vec<FeatureState>,
    /// Further unicast MAC addresses that the device receives for the bond, and did not receive before: they are
    /// removed at the end. It is written here before it is added.
    #[serde(with = "mac_text::list")]
    pub unicast: Vec<Mac>,
}

/// IFLA_LINK and IFLA_LINK_NETNSID of an interface. They stay when it is moved to another network namespace and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lower {
    /// ifindex of the device below, or of the other end.
    pub ifindex: u32,
    /// The number of the namespace to which `ifindex` belongs, if that is another one.
    pub netns: NetnsId,
}

impl Lower {
    /// Returns the device below a link, or its other end.
    pub fn of(link: &LinkInfo) -> Option<Self> {
        link.link.map(|ifindex| Self { ifindex, netns: link.link_netns })
    }
}

fn shared<S: Serializer>(layer3: &Arc<Layer3>, serializer: S) -> Result<S::Ok, S::Error> {
    layer3.as_ref().serialize(serializer)
}

/// A slave in a file. Files of version 2 have addresses and routes with a part of their attributes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    ifindex: u32,
    name: String,
    kind: Option<String>,
    #[serde(with = "mac_text::option")]
    permanent_mac: Option<Mac>,
    #[serde(with = "mac_text")]
    mac: Mac,
    #[serde(default)]
    lower: Option<Lower>,
    #[serde(default)]
    alias: Option<Alias>,
    mtu: u32,
    up: bool,
    allmulti: bool,
    promisc: bool,
    addr_gen_mode: Option<u8>,
    #[serde(default)]
    layer3: Option<Layer3>,
    #[serde(default)]
    addresses: Vec<Address>,
    #[serde(default)]
    routes: Vec<KernelRoute>,
    features: Vec<FeatureState>,
    #[serde(with = "mac_text::list")]
    unicast: Vec<Mac>,
}

impl From<Written> for Found {
    fn from(written: Written) -> Self {
        let Written { layer3, addresses, routes, .. } = written;
        let of_version_2 = || {
            let addresses =
                addresses.iter().filter(|address| !address.by_kernel).filter_map(Address::to_kept);
            Layer3::of(addresses.chain(routes.iter().filter_map(KernelRoute::to_kept)).collect())
        };
        Self {
            ifindex: written.ifindex,
            name: written.name,
            kind: written.kind,
            permanent_mac: written.permanent_mac,
            mac: written.mac,
            lower: written.lower,
            alias: written.alias,
            mtu: written.mtu,
            up: written.up,
            allmulti: written.allmulti,
            promisc: written.promisc,
            addr_gen_mode: written.addr_gen_mode,
            layer3: Arc::new(layer3.unwrap_or_else(of_version_2)),
            features: written.features,
            unicast: written.unicast,
        }
    }
}

impl Found {
    pub(super) fn addr_gen_mode(&self) -> Option<In6AddrGenMode> {
        self.addr_gen_mode.map(In6AddrGenMode::from)
    }

    /// Returns whether both are of one device, which may have another ifindex and name since: hardware is identified by its
    /// permanent MAC address, an end of a pair by the other end.
    pub fn is_of_device_of(&self, other: &Self) -> bool {
        let is_same = match self.permanent_mac {
            Some(mac) => other.permanent_mac == Some(mac),
            None => other.ifindex == self.ifindex || self.lower.is_some() && other.lower == self.lower,
        };
        self.kind == other.kind && is_same
    }

    /// Returns this original state for the device as it is here now: with its present ifindex, name, place, addresses and
    /// routes.
    #[must_use]
    pub fn here_as(self, now: Self) -> Self {
        let was = |feature: &FeatureState| self.features.iter().find(|former| former.name == feature.name);
        let features = now.features.iter().map(|feature| was(feature).unwrap_or(feature).clone()).collect();
        let Self { ifindex, name, lower, layer3, unicast, .. } = now;
        Self { ifindex, name, lower, layer3, unicast, features, ..self }
    }
}

/// The disk space into which a file may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Free space; in addition a file of the new size is reserved, for [`Self::SetAside`].
    Free,
    /// The reserved space, if the file system is full: for changes that must be recorded because they have happened.
    SetAside,
}

/// Replaces a file atomically, mode 0600, with this value as JSON; when it returns, the file survives a crash of the
/// machine.
///
/// # Errors
/// The file is unchanged.
pub fn replace(path: &Path, contents: &impl Serialize, space: Space) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(contents)?;
    text.push(b'\n');
    if space == Space::Free {
        set_aside(path, text.len())?;
    }
    let temporary = path.with_extension("json.new");
    match write_new(&temporary, &text) {
        Ok(()) => {}
        Err(error) if space == Space::SetAside && is_full(&error) => {
            write_set_aside(path, &text).map_err(|_| error)?;
            fs::rename(set_aside_for(path), path)?;
            // The replaced file has freed the space for it. If another process took that space, nothing is added
            // until space is free again.
            let _ = set_aside(path, text.len());
            return sync_directory(path);
        }
        Err(error) => return Err(error),
    }
    fs::rename(&temporary, path)?;
    sync_directory(path)
}

/// Returns whether the file system is full, or a quota is exceeded, of bytes or of files.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut output = new_file(path)?;
    let written = output.write_all(text).and_then(|()| output.sync_all());
    if written.is_err() {
        // It would occupy the little space that is left.
        let _ = fs::remove_file(path);
    }
    written
}

/// Creates a file of mode 0600; a file of its name that a killed writer has left is removed.
fn new_file(path: &Path) -> io::Result<fs::File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn set_aside_for(path: &Path) -> PathBuf {
    path.with_extension("json.spare")
}

/// Reserves space, so that this many bytes can be written even if the file system is full.
fn set_aside(path: &Path, bytes: usize) -> io::Result<()> {
    /// Bytes, in whole pages of the file systems that hold run directories.
    const STEP: usize = 16 * 1024;
    let spare = set_aside_for(path);
    let wanted = bytes.next_multiple_of(STEP) as u64;
    if fs::symlink_metadata(&spare).is_ok_and(|found| found.is_file() && found.len() >= wanted) {
        return Ok(());
    }
    let allocated = new_file(&spare)
        .and_then(|file| Ok(fallocate(file, FallocateFlags::empty(), 0, wanted.cast_signed())?));
    match allocated {
        // The file system has no fallocate: no space can be reserved.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        Err(error) => {
            let _ = fs::remove_file(&spare);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Writes into the space that the file has.
fn write_set_aside(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut spare =
        fs::OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(set_aside_for(path))?;
    spare.write_all(text)?;
    spare.set_len(text.len() as u64)?;
    spare.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if directory != Path::new("") => fs::File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

/// MAC addresses in the usual notation.
pub(in crate::sys) mod mac_text {
    use bond_common::mac::Mac;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    /// A MAC address that is written as its text.
    #[derive(Serialize, Deserialize)]
    pub struct Text(#[serde(with = "super::mac_text")] Mac);

    /// Serializes a MAC address as its text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    /// Deserializes a MAC address from its text.
    ///
    /// # Errors
    /// The text is no MAC address.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| D::Error::custom(format!("\"{text}\": {error}")))
    }

    pub mod option {
        use super::{Deserialize as _, Deserializer, Mac, Serialize as _, Serializer, Text};

        /// Serializes an optional MAC address as its text.
        ///
        /// # Errors
        /// Those of the serializer.
        pub fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
            mac.map(Text).serialize(serializer)
        }

        /// Deserializes an optional MAC address from its text.
        ///
        /// # Errors
        /// The text is no MAC address.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
            Ok(Option::deserialize(deserializer)?.map(|Text(mac)| mac))
        }
    }

    pub mod list {
        use super::{Deserialize as _, Deserializer, Mac, Serializer, Text};

        /// Serializes MAC addresses as their texts.
        ///
        /// # Errors
        /// Those of the serializer.
        pub fn serialize<S: Serializer>(macs: &[Mac], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(macs.iter().copied().map(Text))
        }

        /// Deserializes MAC addresses from their texts.
        ///
        /// # Errors
        /// A text is no MAC address.
        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Mac>, D::Error> {
            Ok(Vec::deserialize(deserializer)?.into_iter().map(|Text(mac)| mac).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::sys::testing;

    fn slave(permanent_mac: Option<Mac>) -> Found {
        let mac = Mac::new([0x08, 0x00, 0x27, 0xe8, 0x26, 0x58]);
        let address = Address::new(3, "192.0.2.1".parse().unwrap(), 24);
        let route = KernelRoute::new(3, "::".parse().unwrap(), 0, Some("fe80::1".parse().unwrap()));
        Found {
            permanent_mac,
            layer3: Arc::new(Layer3::of(
                [address.to_kept(), route.to_kept()].into_iter().flatten().collect(),
            )),
            features: vec![FeatureState { name: "rx-lro".to_owned(), on: true }],
            unicast: vec![mac],
            ..testing::found(3, "enp0s8", mac)
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("found.json");
        for slaves in [vec![slave(None), slave(Some(Mac::BROADCAST))], vec![]] {
            // A file that a killed writer has left.
            fs::write(directory.path().join("found.json.new"), "half").unwrap();
            replace(&path, &slaves, Space::SetAside).unwrap();
            let read: Vec<Found> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(read, slaves);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }

    /// A record of xbond 0.1 before version 3; an agent of that version may have been killed.
    #[test]
    fn addresses_and_routes_of_version_2_are_read() {
        let text = r#"{"ifindex":3,"name":"enp0s8","kind":null,"permanent_mac":null,"mac":"08:00:27:e8:26:58",
            "mtu":1500,"up":true,"allmulti":false,"promisc":false,"addr_gen_mode":0,"addresses":[
            {"ifindex":3,"ip":"192.0.2.1","prefix_len":24,"peer":null,"broadcast":"192.0.2.255","label":"enp0s8",
            "scope":0,"flags":128,"lifetime":null,"by_kernel":false}],"routes":[
            {"ifindex":3,"to":"0.0.0.0","prefix_len":0,"via":"192.0.2.9","metric":5,"source":null,"table":254,"scope":0,
            "protocol":4,"onlink":false}],"features":[],"unicast":[]}"#;
        let found: Found = serde_json::from_str(text).unwrap();
        let addresses: Vec<_> = found.layer3.addresses().map(ToString::to_string).collect();
        let routes: Vec<_> = found.layer3.routes().map(ToString::to_string).collect();
        assert_eq!(
            (&addresses[..], &routes[..]),
            (&["192.0.2.1/24".to_owned()][..], &["default via 192.0.2.9 metric 5".to_owned()][..])
        );
        let again: Found = serde_json::from_value(serde_json::to_value(&found).unwrap()).unwrap();
        assert_eq!(again, found);
    }

    #[test]
    fn an_addition_reserves_the_space_for_its_removal() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("found.json");
        let many = vec![slave(None); 100];
        replace(&path, &many, Space::Free).unwrap();
        let spare = fs::metadata(set_aside_for(&path)).unwrap();
        assert!(spare.len() >= fs::metadata(&path).unwrap().len());
        assert_eq!(spare.permissions().mode() & 0o777, 0o600);
        write_set_aside(&path, b"text").unwrap();
        assert_eq!(fs::read(set_aside_for(&path)).unwrap(), b"text");
    }

    #[test]
    fn macs_are_written_as_people_write_them() {
        let text = serde_json::to_value(slave(None)).unwrap();
        assert_eq!(text["mac"], "08:00:27:e8:26:58");
        assert_eq!(text["permanent_mac"], serde_json::Value::Null);
        assert_eq!(text["unicast"][0], "08:00:27:e8:26:58");
    }
}
