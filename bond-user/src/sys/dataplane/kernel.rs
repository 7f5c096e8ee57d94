//! The version and the features of this kernel.

use std::{borrow::Cow, fs, sync::LazyLock};

use aya::util::KernelVersion;
use bond_common::{abi::Offsets, names};

use super::{Hook, OBJECT, btf::Btf};

/// The oldest kernel with everything that xbond requires.
const OLDEST: KernelVersion = KernelVersion::new(5, 14, 0);
/// The first kernel that passes frames in several fragments to XDP programs.
const XDP_FRAGS: KernelVersion = KernelVersion::new(5, 18, 0);
/// The first kernel that redirects such frames (whether a driver can send them depends on the driver).
const XDP_FRAGS_REDIRECT: KernelVersion = KernelVersion::new(6, 3, 0);
/// The largest MTU for which frames with two VLAN tags fit into one fragment: a page without XDP's headroom and the
/// kernel's data after the frame. Bytes.
const LARGEST_IN_ONE_PIECE: u32 = 4096 - 256 - 320 - 14 - 8;
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// A feature that the kernel lacks.
#[expect(missing_docs, reason = "the sentence of each variant says what it is")]
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("cannot determine the kernel's version: {0}")]
    Unknown(String),
    #[error("Linux {found} is too old: xbond needs 5.14 or later (network namespace cookies)")]
    TooOld { found: String },
    #[error(
        "Linux {found} is too old for datapath=xdp, which needs 5.18 or later (XDP on frames in fragments); use datapath=tc"
    )]
    TooOldForXdp { found: String },
    #[error(
        "Linux {found} does not redirect XDP frames in fragments, and would drop what is larger than {LARGEST_IN_ONE_PIECE} bytes: \
         mtu={mtu} with datapath=xdp needs 6.3 or later; use datapath=tc, or a smaller mtu"
    )]
    TooOldForMtu { found: String, mtu: u32 },
}

/// This kernel's types, read once and shared by all bonds.
#[derive(Clone)]
pub struct Kernel {
    offsets: &'static Offsets,
    /// The programs, adapted to this kernel.
    object: Cow<'static, [u8]>,
    tc: TcAttach,
}

/// How a tc program is attached to its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcAttach {
    /// As a link, ahead of others. Linux 6.6 or later.
    Tcx,
    /// As a filter of the clsact qdisc.
    Clsact,
}

impl Kernel {
    /// Reads the kernel's features. A kernel without BTF still forwards; only device states are then read by netlink.
    pub fn read() -> Self {
        let tcx = KernelVersion::current().is_ok_and(|version| version >= TCX);
        let tc = if tcx { TcAttach::Tcx } else { TcAttach::Clsact };
        Self { offsets: &TYPES.offsets, object: object(TYPES.rdonly_cast), tc }
    }

    /// Returns the same kernel, with tc programs attached in this way.
    #[must_use]
    pub fn with_tc(self, tc: TcAttach) -> Self {
        Self { tc, ..self }
    }

    /// Returns the same kernel, for programs that do not read the kernel's memory: lockdown may forbid that.
    #[must_use]
    pub fn without_types(self) -> Self {
        Self { offsets: &NO_TYPES.offsets, object: object(None), ..self }
    }

    /// Returns a kernel in memory, which has everything; its devices can be read.
    #[cfg(any(test, feature = "fake"))]
    pub fn in_memory() -> Self {
        static OFFSETS: Offsets =
            Offsets { skb_dev: 16, state: 8, ifindex: 16, dev_addr: 24, nd_net: 32, net_device_type: 0 };
        Self { offsets: &OFFSETS, object: Cow::Borrowed(OBJECT), tc: TcAttach::Tcx }
    }

    /// Returns whether tc programs attach as links.
    pub fn has_tcx(&self) -> bool {
        self.tc == TcAttach::Tcx
    }

    pub(super) fn tc(&self) -> TcAttach {
        self.tc
    }

    /// Refuses a kernel on which this hook cannot work, or not with this MTU, in bytes.
    ///
    /// # Errors
    /// The kernel is too old for the hook or for this MTU, or its version cannot be read ([`KernelError::Unknown`]).
    pub fn check(hook: Hook, mtu: u32) -> Result<(), KernelError> {
        let version = KernelVersion::current().map_err(|error| KernelError::Unknown(error.to_string()))?;
        let release = nix::sys::utsname::uname()
            .map_or_else(|_| "?".into(), |names| names.release().to_string_lossy().into_owned());
        Self::check_version(version, release, hook, mtu)
    }

    /// Checks any kernel like [`Self::check`]; `found` is its readable name.
    fn check_version(version: KernelVersion, found: String, hook: Hook, mtu: u32) -> Result<(), KernelError> {
        if version < OLDEST {
            return Err(KernelError::TooOld { found });
        }
        if hook != Hook::Tc && version < XDP_FRAGS {
            return Err(KernelError::TooOldForXdp { found });
        }
        // Generic XDP works on skbs.
        if hook == Hook::Xdp && version < XDP_FRAGS_REDIRECT && mtu > LARGEST_IN_ONE_PIECE {
            return Err(KernelError::TooOldForMtu { found, mtu });
        }
        Ok(())
    }

    /// Returns the offsets; all are zero without BTF.
    pub fn offsets(&self) -> Offsets {
        *self.offsets
    }

    /// Returns the offsets by a static reference, which a loader keeps.
    pub(super) fn offsets_in_place(&self) -> &'static Offsets {
        self.offsets
    }

    /// Returns the programs, adapted to this kernel: an ELF object.
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// Returns whether programs can read devices: this kernel describes its types, and allows its memory to be read.
    pub fn has_types(&self) -> bool {
        self.offsets.skb_dev != 0
    }
}

/// Information from this kernel's BTF.
#[derive(Default)]
struct Types {
    offsets: Offsets,
    /// The number of bpf_rdonly_cast, of Linux 6.2 or later.
    rdonly_cast: Option<u32>,
}

/// Empty without BTF.
static TYPES: LazyLock<Types> = LazyLock::new(|| types().unwrap_or_default());
static NO_TYPES: LazyLock<Types> = LazyLock::new(Types::default);

/// The opcode of a call, and the values of its source register for the kinds of callee.
const CALL: u8 = 0x85;
const OF_KERNEL_FUNCTION: u8 = 2 << 4;
/// Size of an instruction in bytes; sections begin at multiples of it.
const INSTRUCTION: usize = 8;

/// Returns the object, in which the calls of [`names::RDONLY_CAST_CALL`] call the kernel's function, if it has one.
fn object(rdonly_cast: Option<u32>) -> Cow<'static, [u8]> {
    let Some(function) = rdonly_cast else { return Cow::Borrowed(OBJECT) };
    let call = |source, number: u32| {
        let [a, b, c, d] = number.to_ne_bytes();
        [CALL, source, 0, 0, a, b, c, d]
    };
    let (before, after) = (call(0, names::RDONLY_CAST_CALL), call(OF_KERNEL_FUNCTION, function));
    let mut object = OBJECT.to_vec();
    for instruction in object.chunks_exact_mut(INSTRUCTION).filter(|bytes| **bytes == before) {
        instruction.copy_from_slice(&after);
    }
    Cow::Owned(object)
}

/// Returns the offsets of the few fields that the data plane reads from kernel memory. Returns `None` if this kernel
/// has no BTF, or the fields have an unknown form.
fn types() -> Option<Types> {
    let blob = fs::read(VMLINUX).ok()?;
    let btf = Btf::parse(&blob)?;
    let rdonly_cast = btf.function(names::RDONLY_CAST);
    let offsets = Offsets {
        skb_dev: btf.offset("sk_buff", "dev")?,
        state: btf.offset("net_device", "state")?,
        ifindex: btf.offset("net_device", "ifindex")?,
        dev_addr: btf.offset("net_device", "dev_addr")?,
        nd_net: btf.offset("net_device", "nd_net")?,
        net_device_type: rdonly_cast.and_then(|_| btf.structure("net_device")).unwrap_or(0),
    };
    Some(Types { offsets, rdonly_cast })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_refused_by_its_name() {
        let (all, tc, none) = ([Hook::Tc, Hook::Xdp, Hook::XdpGeneric].as_slice(), &[Hook::Tc], &[]);
        let table = [
            ((4, 19, 325), none.as_slice()),
            ((5, 13, 19), none),
            ((5, 14, 0), tc.as_slice()),
            ((5, 17, 15), tc),
            ((5, 18, 0), all),
            ((6, 1, 0), all),
            ((7, 0, 0), all),
        ];
        for ((major, minor, patch), able) in table {
            for &hook in all {
                let version = KernelVersion::new(major, minor, patch);
                let name = format!("{major}.{minor}.{patch}-test");
                match Kernel::check_version(version, name.clone(), hook, 1500) {
                    Ok(()) => assert!(able.contains(&hook), "{name} {hook}"),
                    Err(error) => {
                        assert!(!able.contains(&hook), "{name} {hook}");
                        let way_out = if able.is_empty() { "needs 5.14 or later" } else { "use datapath=tc" };
                        let sentence = error.to_string();
                        assert!(sentence.contains(&name) && sentence.contains(way_out), "{sentence}");
                    }
                }
            }
        }
    }

    #[test]
    fn frames_in_fragments_are_redirected_from_6_3_on() {
        let table = [
            ((6, 2, 16), Hook::Xdp, LARGEST_IN_ONE_PIECE, true),
            ((6, 2, 16), Hook::Xdp, LARGEST_IN_ONE_PIECE + 1, false),
            ((6, 2, 16), Hook::XdpGeneric, 9000, true),
            ((6, 2, 16), Hook::Tc, 9000, true),
            ((6, 3, 0), Hook::Xdp, 9000, true),
        ];
        for ((major, minor, patch), hook, mtu, able) in table {
            let version = KernelVersion::new(major, minor, patch);
            let answer = Kernel::check_version(version, "x".into(), hook, mtu);
            assert_eq!(answer.is_ok(), able, "{major}.{minor}.{patch} {hook} {mtu}: {answer:?}");
        }
    }

    #[test]
    fn offsets_are_found_in_this_kernels_types() {
        let Some(Types { offsets, .. }) = types() else {
            println!("skipped: this kernel has no {VMLINUX}");
            return;
        };
        // sk_buff.dev has followed two list pointers in every kernel so far.
        assert_eq!(offsets.skb_dev, 16);
        assert!(offsets.ifindex > 0 && offsets.dev_addr > 0 && offsets.dev_addr % 8 == 0);
    }
}
