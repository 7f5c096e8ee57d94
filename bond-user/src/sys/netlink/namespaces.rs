//! Other network namespaces that this one has numbers for.

use netlink_packet_core::{Emitable as _, Parseable as _};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};

use super::{Netlink, NetnsId, Raw};
use crate::sys::SysError;

const RTM_GETNSID: u16 = 90;
/// More namespaces are not looked into.
const AT_MOST: usize = 256;

impl Netlink {
    /// Returns the numbers of other namespaces in the client's, at most 256: a device that was moved there from here has given its
    /// namespace one. The kernel answers without RTNL.
    ///
    /// # Errors
    /// The kernel does not list the namespaces.
    pub async fn other_namespaces(&self) -> Result<Vec<i32>, SysError> {
        let each = |ids: &mut Vec<i32>, raw: Raw| ids.extend(number_in(&raw));
        let ids = self.dump_raw(&asking(&[]), "the network namespaces", Vec::new, each).await?;
        let own = self.own_namespace().await;
        Ok(ids.into_iter().filter(|id| Some(*id) != own).take(AT_MOST).collect())
    }

    /// Returns the number of the client's own namespace in itself, which is that in IFLA_LINK_NETNSID of a link in another
    /// namespace whose lower device is here, as it is listed here. None: it has none, because no such link was listed yet.
    pub async fn own_namespace(&self) -> NetnsId {
        let of_this = [NsidAttribute::Pid(std::process::id())];
        self.ask_raw(asking(&of_this)).await.ok().flatten().as_ref().and_then(number_in)
    }
}

fn asking(attributes: &[NsidAttribute]) -> Raw {
    let mut message = NsidMessage::default();
    message.attributes.extend_from_slice(attributes);
    let mut body = vec![0; message.buffer_len()];
    message.emit(&mut body);
    Raw { kind: RTM_GETNSID, body }
}

/// Returns the number in an answer; None if there is none.
fn number_in(answer: &Raw) -> Option<i32> {
    let message = NsidMessage::parse(&answer.body[..]).ok()?;
    let number = message.attributes.iter().find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Some(*id),
        _ => None,
    });
    number.filter(|number| *number >= 0)
}
