//! What was found on an interface before xbond changed it.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use bond_common::mac::Mac;
use serde::{Deserialize, Serialize};

use super::{
    ethtool::FeatureState,
    netlink::{Address, In6AddrGenMode, Route},
};

/// A slave as it was before the first change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Found {
    pub ifindex: u32,
    pub name: String,
    /// As in [`super::netlink::LinkInfo::kind`].
    pub kind: Option<String>,
    /// Burned in. With the ifindex it tells whether it is still the same device.
    #[serde(with = "mac_text::option")]
    pub permanent_mac: Option<Mac>,
    #[serde(with = "mac_text")]
    pub mac: Mac,
    /// Bytes.
    pub mtu: u32,
    pub up: bool,
    pub allmulti: bool,
    pub promisc: bool,
    /// IFLA_INET6_ADDR_GEN_MODE by its number; none without IPv6.
    pub addr_gen_mode: Option<u8>,
    /// IPv4 ones are left where they are, IPv6 ones are taken away.
    pub addresses: Vec<Address>,
    /// They go when the device is closed.
    pub routes: Vec<Route>,
    /// Offload features that are to be changed.
    pub features: Vec<FeatureState>,
    /// Further unicast MACs that the device is to receive for the bond, and does not receive yet: to be taken
    /// away. Whoever adds more writes them here first.
    #[serde(with = "mac_text::list")]
    pub unicast: Vec<Mac>,
}

impl Found {
    pub(super) fn addr_gen_mode(&self) -> Option<In6AddrGenMode> {
        self.addr_gen_mode.map(In6AddrGenMode::from)
    }
}

/// Replaces a file as a whole, mode 0600, with this as JSON; when it returns, it survives a crash of the machine.
pub fn replace(path: &Path, contents: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("json.new");
    let mut text = serde_json::to_vec_pretty(contents)?;
    text.push(b'\n');
    // What a writer that was killed has left may have any mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut output = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    output.write_all(&text)?;
    output.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(directory) if directory != Path::new("") => fs::File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

/// MACs as people write them.
mod mac_text {
    use bond_common::mac::Mac;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

    #[derive(Serialize, Deserialize)]
    pub struct Text(#[serde(with = "super::mac_text")] Mac);

    pub fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| D::Error::custom(format!("\"{text}\": {error}")))
    }

    pub mod option {
        use super::{Deserialize as _, Deserializer, Mac, Serialize as _, Serializer, Text};

        pub fn serialize<S: Serializer>(mac: &Option<Mac>, serializer: S) -> Result<S::Ok, S::Error> {
            mac.map(Text).serialize(serializer)
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Mac>, D::Error> {
            Ok(Option::deserialize(deserializer)?.map(|Text(mac)| mac))
        }
    }

    pub mod list {
        use super::{Deserialize as _, Deserializer, Mac, Serializer, Text};

        pub fn serialize<S: Serializer>(macs: &[Mac], serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(macs.iter().copied().map(Text))
        }

        pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Mac>, D::Error> {
            Ok(Vec::deserialize(deserializer)?.into_iter().map(|Text(mac)| mac).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn slave(permanent_mac: Option<Mac>) -> Found {
        let mac = Mac::new([0x08, 0x00, 0x27, 0xe8, 0x26, 0x58]);
        let address = Address::new(3, "192.0.2.1".parse().unwrap(), 24);
        let route = Route::new(3, "::".parse().unwrap(), 0, Some("fe80::1".parse().unwrap()));
        Found {
            ifindex: 3,
            name: "enp0s8".to_owned(),
            kind: None,
            permanent_mac,
            mac,
            mtu: 1500,
            up: true,
            allmulti: false,
            promisc: false,
            addr_gen_mode: Some(0),
            addresses: vec![address],
            routes: vec![route],
            features: vec![FeatureState { name: "rx-lro".to_owned(), on: true }],
            unicast: vec![mac],
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("found.json");
        for slaves in [vec![slave(None), slave(Some(Mac::BROADCAST))], vec![]] {
            // Left behind by a writer that was killed.
            fs::write(directory.path().join("found.json.new"), "half").unwrap();
            replace(&path, &slaves).unwrap();
            let read: Vec<Found> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(read, slaves);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn macs_are_written_as_people_write_them() {
        let text = serde_json::to_value(slave(None)).unwrap();
        assert_eq!(text["mac"], "08:00:27:e8:26:58");
        assert_eq!(text["permanent_mac"], serde_json::Value::Null);
        assert_eq!(text["unicast"][0], "08:00:27:e8:26:58");
    }
}
