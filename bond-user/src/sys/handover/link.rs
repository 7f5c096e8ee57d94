//! Links as rtnetlink messages: what a device was made of, so that another one is made of the same.

use crate::sys::{
    Devices, SysError,
    netlink::{
        LinkInfo, Raw, message,
        numbers::{
            IFLA_EXT_MASK, IFLA_IFNAME, IFLA_INFO_DATA, IFLA_INFO_SLAVE_DATA, IFLA_LINKINFO, IFLA_TXQLEN,
            RTEXT_FILTER_SKIP_STATS, RTM_GETLINK, RTM_NEWLINK,
        },
    },
};

/// struct ifinfomsg, in bytes.
const HEADER: usize = 16;

/// A link as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawLink {
    /// The parsed part of it.
    pub info: LinkInfo,
    body: Vec<u8>,
}

impl RawLink {
    /// Parses a message about a link; None if it is about something else, or truncated.
    pub(in crate::sys) fn new(raw: Raw) -> Option<Self> {
        (raw.kind == RTM_NEWLINK).then_some(())?;
        Some(Self { info: LinkInfo::from_body(&raw.body)?, body: raw.body })
    }

    /// Returns the value of an attribute.
    pub(in crate::sys) fn attribute(&self, wanted: u16) -> Option<&[u8]> {
        find(self.body.get(HEADER..)?, wanted)
    }

    fn part(&self, wanted: u16) -> Option<&[u8]> {
        find(self.attribute(IFLA_LINKINFO)?, wanted)
    }

    /// Returns the transmit queue's length, in packets.
    pub fn queue_length(&self) -> Option<u32> {
        number(self.attribute(IFLA_TXQLEN)?)
    }

    /// Returns what makes it a device of its kind (IFLA_INFO_DATA).
    pub fn data(&self) -> Option<&[u8]> {
        self.part(IFLA_INFO_DATA)
    }

    /// Returns an attribute of what makes it a device of its kind.
    pub fn data_of(&self, wanted: u16) -> Option<&[u8]> {
        find(self.data()?, wanted)
    }

    /// Returns its settings as a port or slave of its master (IFLA_INFO_SLAVE_DATA).
    pub fn port_data(&self) -> Option<&[u8]> {
        self.part(IFLA_INFO_SLAVE_DATA)
    }

    /// Makes it one of which its master says nothing.
    #[cfg(test)]
    pub(crate) fn clear_port_data(&mut self) {
        self.body.truncate(HEADER);
    }

    /// Returns one of its settings as a port or slave of its master.
    pub fn port_data_of(&self, wanted: u16) -> Option<&[u8]> {
        find(self.port_data()?, wanted)
    }
}

fn find(attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    message::nested(attributes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Returns a number of 32 bits.
pub(super) fn number(value: &[u8]) -> Option<u32> {
    value.get(..4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A request that makes or changes a link.
#[derive(Clone, Debug)]
pub(super) struct LinkRequest(Raw);

impl LinkRequest {
    pub(super) fn new(kind: u16, ifindex: u32) -> Self {
        let mut body = vec![0; HEADER];
        if let Some(place) = body.get_mut(4..8) {
            place.copy_from_slice(&ifindex.to_ne_bytes());
        }
        Self(Raw { kind, body })
    }

    pub(super) fn with(mut self, attribute: u16, value: &[u8]) -> Self {
        message::append(&mut self.0.body, attribute, value);
        self
    }

    pub(super) fn number(self, attribute: u16, value: u32) -> Self {
        self.with(attribute, &value.to_ne_bytes())
    }

    pub(super) fn name(self, name: &str) -> Self {
        self.with(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat())
    }

    /// Adds what makes it a device of a kind, or of a kind's ports: `parts` are the numbers of kind and data.
    pub(super) fn of_kind(self, parts: (u16, u16), kind: &str, data: &[u8]) -> Self {
        let mut info = Vec::new();
        message::append(&mut info, parts.0, kind.as_bytes());
        message::append(&mut info, parts.1, data);
        self.with(IFLA_LINKINFO, &info)
    }

    pub(super) fn raw(self) -> Raw {
        self.0
    }
}

impl dyn Devices + '_ {
    /// Reads all links of this network namespace with everything that the kernel says of them.
    ///
    /// # Errors
    /// The kernel does not list the links.
    pub async fn raw_links(&self) -> Result<Vec<RawLink>, SysError> {
        let mut body = vec![0; HEADER];
        message::append(&mut body, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        let each = |links: &mut Vec<RawLink>, raw| links.extend(RawLink::new(raw));
        self.collect(&Raw { kind: RTM_GETLINK, body }, "the links", Vec::new, each).await
    }

    /// Sends one request about a link.
    pub(super) async fn change_raw_link(
        &self,
        what: &str,
        on: &str,
        (flags, request): (u16, Raw),
    ) -> Result<(), SysError> {
        let answer = self.send_raw(vec![(flags, request)]).await.pop().unwrap_or(Ok(()));
        answer.map_err(|error| SysError::netlink(what, on, error))
    }
}
