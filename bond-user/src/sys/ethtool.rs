//! SIOCETHTOOL: offload features, speed and duplex, the permanent address. include/uapi/linux/ethtool.h.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::Arc,
};

use bond_common::mac::Mac;
use bond_core::event::{Duplex, Speed};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::{Deserialize, Serialize};

use super::SysError;

const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GPERMADDR: u32 = 0x20;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETHTOOL_GFEATURES: u32 = 0x3a;
const ETHTOOL_SFEATURES: u32 = 0x3b;
const ETHTOOL_GET_TS_INFO: u32 = 0x41;
const ETHTOOL_GLINKSETTINGS: u32 = 0x4c;
const ETH_SS_FEATURES: u32 = 4;
const ETH_GSTRING_LEN: usize = 32;

/// The system calls. The macro makes them public.
mod calls {
    nix::ioctl_readwrite_bad!(siocethtool, 0x8946, libc::ifreq);
    nix::ioctl_readwrite_bad!(siocgifname, libc::SIOCGIFNAME, libc::ifreq);
}

/// The ethtool ioctls in one network namespace. All of them but the look-up of a name take RTNL.
#[derive(Clone, Debug)]
pub struct Ethtool {
    socket: Arc<OwnedFd>,
}

/// An offload feature of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// As in `ethtool -k`, for single features: "tx-checksum-ipv4", not "tx-checksumming".
    pub name: String,
    /// Whether it is in effect.
    pub active: bool,
    /// The requested state. The feature becomes active as soon as the features that it depends on are.
    pub wanted: bool,
    /// It cannot be changed.
    pub fixed: bool,
}

/// The requested state of a feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureState {
    /// The name of the feature.
    pub name: String,
    /// Whether it is on.
    pub on: bool,
}

impl Ethtool {
    /// Opens a socket, for the network namespace in which the calling thread is now.
    ///
    /// # Errors
    /// The process lacks descriptors or memory.
    pub fn open() -> Result<Self, SysError> {
        // Requests to devices go by any socket; a service may open none of IP.
        let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
            .map_err(|error| SysError::kernel("open a socket", "ethtool", error.into()))?;
        Ok(Self { socket: Arc::new(socket) })
    }

    /// Returns all features that the kernel knows, in its order.
    ///
    /// # Errors
    /// The device does not exist, or its driver does not list its features.
    pub fn features(&self, ifindex: u32) -> Result<Vec<Feature>, SysError> {
        let read = || {
            let names = self.feature_names(ifindex)?;
            let words = names.len().div_ceil(32);
            // struct ethtool_gfeatures: cmd, size, and per word available, requested, active, never_changed.
            let mut buffer = vec![0; 2 + 4 * words];
            buffer[0] = ETHTOOL_GFEATURES;
            buffer[1] = words as u32;
            // SAFETY: `size` words of features follow the header.
            unsafe { self.command(ifindex, &mut buffer) }?;
            let feature = |(index, name): (usize, String)| {
                let block = &buffer[2 + 4 * (index / 32)..][..4];
                let bit = |word: usize| block[word] >> (index % 32) & 1 != 0;
                Feature { name, wanted: bit(1), active: bit(2), fixed: !bit(0) || bit(3) }
            };
            Ok(names.into_iter().enumerate().filter(|(_, name)| !name.is_empty()).map(feature).collect())
        };
        read().map_err(|error| SysError::kernel("read the offload features", self.name(ifindex), error))
    }

    /// Requests these states in one call, and does not check the result: a feature may be fixed, or depend on another
    /// one. Names that the kernel does not know are ignored.
    ///
    /// # Errors
    /// The device does not exist, or the kernel refuses the request.
    pub fn request_features(&self, ifindex: u32, wanted: &[FeatureState]) -> Result<(), SysError> {
        let set = || {
            let names = self.feature_names(ifindex)?;
            let words = names.len().div_ceil(32);
            // struct ethtool_sfeatures: cmd, size, and per word valid, requested.
            let mut buffer = vec![0; 2 + 2 * words];
            buffer[0] = ETHTOOL_SFEATURES;
            buffer[1] = words as u32;
            for state in wanted {
                if let Some(index) = names.iter().position(|name| *name == state.name) {
                    let bit = 1 << (index % 32);
                    buffer[2 + 2 * (index / 32)] |= bit;
                    if state.on {
                        buffer[3 + 2 * (index / 32)] |= bit;
                    }
                }
            }
            // SAFETY: `size` words of features follow the header.
            unsafe { self.command(ifindex, &mut buffer) }
        };
        set().map_err(|error| {
            let what = match wanted {
                [one] => format!("turn {} {}", one.name, on_off(one.on)),
                _ => "set the offload features".to_owned(),
            };
            SysError::kernel(what, self.name(ifindex), error)
        })
    }

    /// Returns speed and duplex; both are unknown if the driver does not report them, or the link is down.
    pub fn speed(&self, ifindex: u32) -> (Speed, Duplex) {
        /// struct ethtool_link_settings without the masks.
        const HEADER: usize = 12;
        /// There are three masks, each of at most 127 words.
        const MASKS: usize = 3 * 127;
        let read = || {
            let mut buffer = [0; HEADER + MASKS];
            buffer[0] = ETHTOOL_GLINKSETTINGS;
            // The first answer is the number of words in a mask, negative, in link_mode_masks_nwords.
            // SAFETY: asked for masks of no words, the kernel writes the header only.
            unsafe { self.command(ifindex, &mut buffer) }?;
            let words = buffer[3].to_ne_bytes()[3].cast_signed();
            if words >= 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
            buffer = [0; HEADER + MASKS];
            buffer[0] = ETHTOOL_GLINKSETTINGS;
            buffer[3] = u32::from_ne_bytes([0, 0, 0, words.unsigned_abs()]);
            // SAFETY: three masks of at most 127 words fit.
            unsafe { self.command(ifindex, &mut buffer) }?;
            Ok::<_, io::Error>(speed_and_duplex(buffer[1], buffer[2].to_ne_bytes()[0]))
        };
        read().unwrap_or((Speed::UNKNOWN, Duplex::Unknown))
    }

    /// Returns the name of the driver, if the device has one.
    pub fn driver(&self, ifindex: u32) -> Option<String> {
        /// struct ethtool_drvinfo, in words.
        const WORDS: usize = 196 / 4;
        /// 32 bytes, after the command.
        const NAME: std::ops::Range<usize> = 1..9;
        let mut buffer = [0; WORDS];
        buffer[0] = ETHTOOL_GDRVINFO;
        // SAFETY: the buffer is a whole struct ethtool_drvinfo.
        unsafe { self.command(ifindex, &mut buffer) }.ok()?;
        let bytes: Vec<u8> = buffer[NAME].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let name = CStr::from_bytes_until_nul(&bytes).ok()?.to_string_lossy();
        Some(name.into_owned()).filter(|name| !name.is_empty())
    }

    /// Returns whether the sender of frames to the device may be on this machine, and leave checksums for a NIC to
    /// compute: the far end of a veth pair, or the virtual machine of a tap.
    pub fn has_peer_on_this_machine(&self, ifindex: u32) -> bool {
        self.driver(ifindex).is_some_and(|driver| driver == "veth" || driver == "tun")
    }

    /// Returns the number of its PTP hardware clock: 0 is /dev/ptp0.
    pub fn hardware_clock(&self, ifindex: u32) -> Option<u32> {
        /// struct ethtool_ts_info, in words, and the offset of its phc_index; -1: there is no clock.
        const WORDS: usize = 11;
        const PHC_INDEX: usize = 2;
        let mut buffer = [0; WORDS];
        buffer[0] = ETHTOOL_GET_TS_INFO;
        // SAFETY: the buffer is a whole struct ethtool_ts_info.
        unsafe { self.command(ifindex, &mut buffer) }.ok()?;
        u32::try_from(buffer[PHC_INDEX].cast_signed()).ok()
    }

    /// Returns the permanent MAC address, for kernels on which netlink lacks it (before Linux 5.6).
    pub fn permanent_mac(&self, ifindex: u32) -> Option<Mac> {
        /// MAX_ADDR_LEN
        const LENGTH: u32 = 32;
        // struct ethtool_perm_addr: cmd, size, data.
        let mut buffer = [0_u32; 2 + LENGTH as usize / 4];
        buffer[0] = ETHTOOL_GPERMADDR;
        buffer[1] = LENGTH;
        // SAFETY: `size` bytes follow the header.
        unsafe { self.command(ifindex, &mut buffer) }.ok()?;
        let ([a, b, c, d], [e, f, ..]) = (buffer[2].to_ne_bytes(), buffer[3].to_ne_bytes());
        (buffer[1] == 6).then(|| Mac::new([a, b, c, d, e, f])).filter(|mac| !mac.is_zero())
    }

    /// Returns the names of all features; a bit without a name is empty.
    fn feature_names(&self, ifindex: u32) -> io::Result<Vec<String>> {
        // struct ethtool_sset_info: cmd, reserved, sset_mask (64 bits), one length.
        let mut sets = [ETHTOOL_GSSET_INFO, 0, 0, 0, 0];
        let mask = (1_u64 << ETH_SS_FEATURES).to_ne_bytes();
        let [a, b, c, d, e, f, g, h] = mask;
        sets[2] = u32::from_ne_bytes([a, b, c, d]);
        sets[3] = u32::from_ne_bytes([e, f, g, h]);
        // SAFETY: one set is asked for, and one length follows.
        unsafe { self.command(ifindex, &mut sets) }?;
        let count = sets[4] as usize;
        // struct ethtool_gstrings: cmd, string_set, len, data.
        let mut strings = vec![0_u32; 3 + count * ETH_GSTRING_LEN / 4];
        strings[0] = ETHTOOL_GSTRINGS;
        strings[1] = ETH_SS_FEATURES;
        strings[2] = count as u32;
        // SAFETY: the kernel writes as many names as it has just counted: features are the same for all devices, and
        // fixed when the kernel is built.
        unsafe { self.command(ifindex, &mut strings) }?;
        let bytes: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let text =
            |name: &[u8]| CStr::from_bytes_until_nul(name).unwrap_or_default().to_string_lossy().into_owned();
        Ok(bytes.chunks_exact(ETH_GSTRING_LEN).map(text).collect())
    }

    /// # Safety
    /// `buffer` begins with a command of ethtool.h and its header, and has at least the length that the kernel writes
    /// for these.
    unsafe fn command(&self, ifindex: u32, buffer: &mut [u32]) -> io::Result<()> {
        let mut request = self.request(ifindex)?;
        request.ifr_ifru.ifru_data = buffer.as_mut_ptr().cast();
        // SAFETY: the name is set, and the data as the caller promises; both outlive the call.
        unsafe { calls::siocethtool(self.socket.as_raw_fd(), &mut request) }?;
        Ok(())
    }

    /// Returns a request with the current name of the device.
    fn request(&self, ifindex: u32) -> io::Result<libc::ifreq> {
        // SAFETY: an ifreq is integers, arrays and a pointer: all zero is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_ifindex = ifindex.cast_signed();
        // SAFETY: the kernel reads the ifindex and writes the name, within the ifreq.
        unsafe { calls::siocgifname(self.socket.as_raw_fd(), &mut request) }?;
        Ok(request)
    }

    /// Returns the name of an interface, without waiting for RTNL (SIOCGIFNAME); None if there is no such interface.
    pub fn name_of(&self, ifindex: u32) -> Option<String> {
        let request = self.request(ifindex).ok()?;
        let bytes = request.ifr_name.map(|byte| byte.cast_unsigned());
        let name = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
        Some(name.to_owned()).filter(|name| !name.is_empty())
    }

    /// Returns the device's name, for messages.
    fn name(&self, ifindex: u32) -> String {
        self.name_of(ifindex).unwrap_or_else(|| format!("ifindex {ifindex}"))
    }
}

pub(super) fn on_off(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// Converts the kernel's numbers: both are known, or neither (`bond_update_speed_duplex`).
fn speed_and_duplex(speed: u32, duplex: u8) -> (Speed, Duplex) {
    let duplex = match duplex {
        0 => Duplex::Half,
        1 => Duplex::Full,
        _ => Duplex::Unknown,
    };
    match Speed(speed) {
        known if known != Speed(0) && known != Speed::UNKNOWN && duplex != Duplex::Unknown => (known, duplex),
        _ => (Speed::UNKNOWN, Duplex::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{
        netlink::LinkSetting,
        testing::{in_namespace, veth},
    };

    #[test]
    fn features_of_a_veth_are_read_and_set() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let feature = |name: &str| {
                let features = devices.ethtool.features(link.ifindex).unwrap();
                features.into_iter().find(|feature| feature.name == name).unwrap()
            };
            let name = "tx-checksum-ip-generic";
            assert_eq!(
                feature(name),
                Feature { name: name.into(), active: true, wanted: true, fixed: false }
            );
            assert!(feature("rx-lro").fixed && !feature("rx-lro").active);
            for on in [false, false, true] {
                let wanted =
                    [FeatureState { name: name.into(), on }, FeatureState { name: "no-such".into(), on }];
                devices.ethtool.request_features(link.ifindex, &wanted).unwrap();
                assert_eq!((feature(name).active, feature(name).wanted), (on, on));
                // Segmentation depends on it, and is requested all the time.
                let segmentation = feature("tx-tcp-segmentation");
                assert_eq!((segmentation.active, segmentation.wanted), (on, true));
            }
        });
    }

    #[test]
    fn speed_and_duplex_are_known_together() {
        let unknown = (Speed::UNKNOWN, Duplex::Unknown);
        for (speed, duplex, expected) in [
            (1000, 1, (Speed(1000), Duplex::Full)),
            (10, 0, (Speed(10), Duplex::Half)),
            (0, 1, unknown),
            (u32::MAX, 1, unknown),
            (1000, 0xff, unknown),
        ] {
            assert_eq!(speed_and_duplex(speed, duplex), expected, "{speed} {duplex}");
        }
    }

    #[test]
    fn speed_of_a_veth_is_read_and_a_missing_device_is_unknown() {
        in_namespace(async |devices| {
            let (link, far) = veth(&devices, "eth1", "far1").await;
            for ifindex in [link.ifindex, far.ifindex] {
                devices.netlink.set(ifindex, LinkSetting::Up(true)).await.unwrap();
            }
            assert_eq!(devices.ethtool.speed(link.ifindex), (Speed(10_000), Duplex::Full));
            assert_eq!(devices.ethtool.permanent_mac(link.ifindex), None);
            assert_eq!(devices.ethtool.driver(link.ifindex).as_deref(), Some("veth"));
            assert_eq!(devices.ethtool.driver(9999), None);
            assert_eq!(devices.ethtool.speed(9999), (Speed::UNKNOWN, Duplex::Unknown));
            let error = devices.ethtool.features(9999).unwrap_err();
            assert!(error.is_gone());
            assert_eq!(error.to_string(), "read the offload features on ifindex 9999: No such device");
        });
    }
}
