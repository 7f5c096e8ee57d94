//! Finds filters and chains of other programs at an interface that do not see the packets of a bond whose slave it
//! is.
//!
//! A slave's program takes a packet at the first hook at which a BPF program of its kind is attached. Hooks after
//! that one are bypassed, without an error: nftables chains of the hook ingress, filters of the ingress and clsact
//! qdiscs. A packet that a tc program redirects skips the nftables hook egress of its target (nf_skip_egress), and
//! one that XDP redirects skips all hooks there.

use std::{fmt, io};

use netlink_packet_core::NlasIterator;
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::{Devices, SysError, dataplane::Hook, netlink::Netlink};
use bond_common::names;

/// The direction of the packets that a hook sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Packets that the interface receives.
    Ingress,
    /// Packets that the interface sends.
    Egress,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// A chain, flowtable or filter at an interface's hook. Names are as an administrator chose them.
#[expect(missing_docs, reason = "the fields are the kernel's names")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hooked {
    /// A base chain of nftables.
    Chain { family: &'static str, table: String, chain: String, side: Side },
    /// A flowtable of nftables.
    Flowtable { family: &'static str, table: String, flowtable: String },
    /// A filter of the ingress or clsact qdisc.
    Filter { kind: String, preference: u16, side: Side },
}

impl Hooked {
    /// Returns whether packets of a bond with this hook bypass it at a slave.
    pub fn is_bypassed(&self, hook: Hook) -> bool {
        match self {
            Self::Chain { .. } | Self::Flowtable { .. } => true,
            Self::Filter { side: Side::Ingress, .. } => true,
            // A redirect of a tc program passes the whole transmit path of its target.
            Self::Filter { side: Side::Egress, .. } => hook != Hook::Tc,
        }
    }
}

/// Prints `nft chain netdev filter in (ingress)`, in the form of `nft list`.
impl fmt::Display for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain { family, table, chain, side } => {
                write!(f, "nft chain {family} {} {} ({side})", table.escape_debug(), chain.escape_debug())
            }
            Self::Flowtable { family, table, flowtable } => {
                write!(f, "nft flowtable {family} {} {}", table.escape_debug(), flowtable.escape_debug())
            }
            Self::Filter { kind, preference, side } => {
                write!(f, "tc filter {}, pref {preference} ({side})", kind.escape_debug())
            }
        }
    }
}

/// What is at the hooks of an interface. xbond's own filters, of kernels without tcx, are left out.
///
/// # Errors
///
/// Netlink fails. A kernel without nftables has no chains, which is no error.
pub(super) async fn read_hooks(netlink: &Netlink, ifindex: u32, name: &str) -> Result<Vec<Hooked>, SysError> {
    let mut found = nftables(name).map_err(|error| SysError::kernel("list nftables hooks", name, error))?;
    for (side, minor) in [(Side::Ingress, TcHandle::MIN_INGRESS), (Side::Egress, TcHandle::MIN_EGRESS)] {
        let mut request = TcMessage::default();
        request.header.index = ifindex.cast_signed();
        request.header.parent = TcHandle { major: u16::MAX, minor };
        let list = netlink.list(RouteNetlinkMessage::GetTrafficFilter(request), "the filters").await?;
        for message in list {
            let RouteNetlinkMessage::NewTrafficFilter(message) = message else { continue };
            // The kernel lists a filter's preference first, and then each filter of it.
            found.extend(filter(&message, side).filter(|filter| !found.contains(filter)));
        }
    }
    Ok(found)
}

impl dyn Devices + '_ {
    /// What is at the hooks of an interface that packets of a bond with this hook pass by. Nothing where it cannot be
    /// known: the log says why.
    pub async fn bypassed(&self, ifindex: u32, name: &str, hook: Hook) -> Vec<Hooked> {
        let found = self.hooked(ifindex, name).await;
        let found = found.inspect_err(|error| tracing::info!("{name}: hooks of other programs: {error}"));
        let found = found.unwrap_or_default();
        found.into_iter().filter(|hooked| hooked.is_bypassed(hook)).collect()
    }
}

/// Parses a filter; returns `None` for xbond's own.
fn filter(message: &TcMessage, side: Side) -> Option<Hooked> {
    let mut kind = None;
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(name) => kind = Some(name.clone()),
            TcAttribute::Options(options) if options.iter().any(is_ours) => return None,
            _ => {}
        }
    }
    // A message without a handle describes the preference only.
    if message.header.handle == TcHandle::UNSPEC {
        return None;
    }
    Some(Hooked::Filter { kind: kind?, preference: (message.header.info >> 16) as u16, side })
}

fn is_ours(option: &TcOption) -> bool {
    let TcOption::Bpf(TcFilterBpfOption::ProgName(name)) = option else { return false };
    [names::TC_SLAVE_RX, names::TC_SLAVE_LOCAL, names::TC_PORT_TX].contains(&name.as_str())
}

/// linux/netfilter/nfnetlink.h and nf_tables.h: message types of the subsystem nf_tables, including the subsystem.
const NFT_MSG_NEWCHAIN: u16 = 0x0a03;
const NFT_MSG_GETCHAIN: u16 = 0x0a04;
const NFT_MSG_NEWFLOWTABLE: u16 = 0x0a16;
const NFT_MSG_GETFLOWTABLE: u16 = 0x0a17;
/// Attributes of a chain: table, name, hook. A flowtable has other numbers for the same three.
const NFTA_CHAIN: [u16; 3] = [1, 3, 4];
const NFTA_FLOWTABLE: [u16; 3] = [1, 2, 3];
/// Attributes of a chain's hook: number, device, devices. A flowtable has no single device.
const NFTA_HOOK: [u16; 3] = [1, 3, 4];
const NFTA_FLOWTABLE_HOOK: [u16; 3] = [1, u16::MAX, 3];
/// Attribute in a list of devices: a name, or the beginning of names.
const NFTA_DEVICE_NAME: u16 = 1;
const NFTA_DEVICE_PREFIX: u16 = 2;
const NFPROTO_INET: u8 = 1;
const NFPROTO_NETDEV: u8 = 5;
const NF_NETDEV_INGRESS: u32 = 0;
const NF_NETDEV_EGRESS: u32 = 1;
const NF_INET_INGRESS: u32 = 5;

const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_HEADER: usize = 16;
/// struct nfgenmsg
const GENERAL_HEADER: usize = 4;

/// Returns the chains and flowtables of nftables at an interface, in the network namespace of the calling thread.
fn nftables(interface: &str) -> io::Result<Vec<Hooked>> {
    const ATTEMPTS: u32 = 5;
    for _ in 1..ATTEMPTS {
        match nftables_once(interface) {
            Err(error) if super::netlink::is_passing(&error) => {}
            answer => return answer,
        }
    }
    nftables_once(interface)
}

fn nftables_once(interface: &str) -> io::Result<Vec<Hooked>> {
    let mut socket = match Socket::new(NETLINK_NETFILTER) {
        Ok(socket) => socket,
        // The kernel has no netfilter.
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    socket.bind_auto()?;
    let mut found = Vec::new();
    for request in [NFT_MSG_GETCHAIN, NFT_MSG_GETFLOWTABLE] {
        match dump(&socket, request, &mut |kind, body| found.extend(hooked(kind, body, interface))) {
            Ok(()) => {}
            // The kernel has no nf_tables; this is its answer then.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Requests all objects of a kind, of all families.
fn dump(socket: &Socket, request: u16, take: &mut dyn FnMut(u16, &[u8])) -> io::Result<()> {
    let mut message = [0; NLMSG_HEADER + GENERAL_HEADER];
    message[..4].copy_from_slice(&((NLMSG_HEADER + GENERAL_HEADER) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&request.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    socket.send_to(&message, &SocketAddr::new(0, 0), 0)?;
    loop {
        let (answer, _) = socket.recv_from_full()?;
        if take_messages(&answer, take)? {
            return Ok(());
        }
    }
}

/// Splits one datagram into its messages. Returns true if the answer is complete.
fn take_messages(mut bytes: &[u8], take: &mut dyn FnMut(u16, &[u8])) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (number(bytes, 0), bytes.get(4..6)) {
        let kind = u16::from_ne_bytes([kind[0], kind[1]]);
        let length = length as usize;
        let Some(body) = bytes.get(NLMSG_HEADER..length) else { break };
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(body, 0).map_or(0, u32::cast_signed);
                return if code == 0 {
                    Ok(true)
                } else {
                    Err(io::Error::from_raw_os_error(code.saturating_neg()))
                };
            }
            _ => take(kind, body),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Reads a number in the machine's byte order.
fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Parses a chain or flowtable; returns `None` if it is not at a hook of this interface.
fn hooked(kind: u16, body: &[u8], interface: &str) -> Option<Hooked> {
    let (fields, hook_fields) = match kind {
        NFT_MSG_NEWCHAIN => (NFTA_CHAIN, NFTA_HOOK),
        NFT_MSG_NEWFLOWTABLE => (NFTA_FLOWTABLE, NFTA_FLOWTABLE_HOOK),
        _ => return None,
    };
    let family = *body.first()?;
    let attributes = body.get(GENERAL_HEADER..)?;
    let [table, name, hook] = fields.map(|field| attribute(attributes, field));
    let (table, name, hook) = (text(table?), text(name?), hook?);
    let [hook_number, device, devices] = hook_fields.map(|field| attribute(hook, field));
    let is_at = device.is_some_and(|device| text(device) == interface)
        || devices.is_some_and(|devices| {
            NlasIterator::new(devices).flatten().any(|device| match device.kind() {
                NFTA_DEVICE_NAME => text(device.value()) == interface,
                NFTA_DEVICE_PREFIX => interface.starts_with(&text(device.value())),
                _ => false,
            })
        });
    if !is_at {
        return None;
    }
    let family_name = match family {
        NFPROTO_NETDEV => "netdev",
        NFPROTO_INET => "inet",
        2 => "ip",
        10 => "ip6",
        7 => "bridge",
        _ => "unknown",
    };
    if kind == NFT_MSG_NEWFLOWTABLE {
        return Some(Hooked::Flowtable { family: family_name, table, flowtable: name });
    }
    let hook_number = u32::from_be_bytes(hook_number?.try_into().ok()?);
    let side = match (family, hook_number) {
        (NFPROTO_NETDEV, NF_NETDEV_INGRESS) | (NFPROTO_INET, NF_INET_INGRESS) => Side::Ingress,
        (NFPROTO_NETDEV, NF_NETDEV_EGRESS) => Side::Egress,
        _ => return None,
    };
    Some(Hooked::Chain { family: family_name, table, chain: name, side })
}

fn attribute(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = attributes;
    loop {
        let header = rest.get(..4)?;
        let length = u16::from_ne_bytes([header[0], header[1]]) as usize;
        let found = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

/// Removes NLA_F_NESTED and NLA_F_NET_BYTEORDER.
const NLA_TYPE_MASK: u16 = 0x3fff;

fn text(value: &[u8]) -> String {
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::testing::{in_namespace, veth};

    fn run(program: &str, arguments: &[&str]) -> bool {
        Command::new(program).args(arguments).status().is_ok_and(|status| status.success())
    }

    #[test]
    fn chains_flowtables_and_filters_of_an_interface_are_listed() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            assert_eq!(devices.hooked(link.ifindex, "eth1").await.unwrap(), []);
            let rules = "table netdev t { chain in { type filter hook ingress device \"eth1\" priority 0; }; \
                         chain out { type filter hook egress device \"eth1\" priority 0; }; \
                         chain far { type filter hook ingress device \"far1\" priority 0; }; }; \
                         table inet u { chain both { type filter hook ingress devices = { \"eth1\", \"far1\" } \
                         priority 0; }; };";
            if !run("nft", &[rules]) {
                eprintln!("skipped: no nft, or a kernel without its netdev hooks");
                return;
            }
            // Not every kernel has flowtables.
            let flowtable = "add flowtable inet u ft { hook ingress priority 0; devices = { \"eth1\" }; };";
            let has_flowtables = run("nft", &[flowtable]);
            assert!(run("tc", &["qdisc", "add", "dev", "eth1", "clsact"]));
            for side in ["ingress", "egress"] {
                let at = ["filter", "add", "dev", "eth1", side, "pref", "7", "protocol", "all"];
                let filter = ["bpf", "direct-action", "bytecode", "1,6 0 0 0"];
                assert!(run("tc", &[&at[..], &filter].concat()));
            }
            let found = devices.hooked(link.ifindex, "eth1").await.unwrap();
            let said: Vec<_> = found.iter().map(ToString::to_string).collect();
            let mut expected = vec![
                "nft chain netdev t in (ingress)",
                "nft chain netdev t out (egress)",
                "nft chain inet u both (ingress)",
                "nft flowtable inet u ft",
                "tc filter bpf, pref 7 (ingress)",
                "tc filter bpf, pref 7 (egress)",
            ];
            expected.retain(|what| has_flowtables || !what.contains("flowtable"));
            assert_eq!(said, expected);
            let seen =
                |hook| found.iter().filter(move |hooked| !hooked.is_bypassed(hook)).map(ToString::to_string);
            assert_eq!(seen(Hook::Tc).collect::<Vec<_>>(), ["tc filter bpf, pref 7 (egress)"]);
            assert_eq!(seen(Hook::Xdp).count(), 0);
        });
    }

    /// Returns an attribute of bytes in the kernel's format.
    fn nla(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((4 + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_flowtable_is_known_by_its_devices_and_their_prefixes() {
        let flowtable = |device: &[u8]| {
            let devices = nla(NFTA_FLOWTABLE_HOOK[2] | 0x8000, device);
            let hook = [nla(NFTA_FLOWTABLE_HOOK[0], &[0; 4]), devices].concat();
            let [table, name, hook_kind] = NFTA_FLOWTABLE;
            let fields = [nla(table, b"u\0"), nla(name, b"f\x1bt\0"), nla(hook_kind | 0x8000, &hook)];
            [vec![NFPROTO_INET, 0, 0, 0], fields.concat()].concat()
        };
        let found = |device: &[u8]| hooked(NFT_MSG_NEWFLOWTABLE, &flowtable(device), "eth1");
        // Names that an administrator chose are escaped before they reach a terminal.
        let said = found(&nla(NFTA_DEVICE_NAME, b"eth1\0")).unwrap().to_string();
        assert_eq!(said, "nft flowtable inet u f\\u{1b}t");
        assert!(found(&nla(NFTA_DEVICE_PREFIX, b"eth\0")).is_some());
        assert_eq!(found(&nla(NFTA_DEVICE_NAME, b"eth10\0")), None);
    }

    #[test]
    fn truncated_answers_yield_nothing() {
        for length in 0..48 {
            let bytes = vec![0x11; length];
            let _ = take_messages(&bytes, &mut |kind, body| drop(hooked(kind, body, "eth1")));
            for kind in [NFT_MSG_NEWCHAIN, NFT_MSG_NEWFLOWTABLE] {
                assert_eq!(hooked(kind, &bytes, "eth1"), None);
            }
        }
        // A length of zero does not cause an endless loop.
        assert_eq!(attribute(&[0; 16], 1), None);
    }
}
