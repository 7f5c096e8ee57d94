//! Sends messages to the kernel, and collects what it refuses.

use std::fmt::Write as _;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use nix::errno::Errno;

use super::{Layer3, Target, named};
use crate::sys::{
    Devices, SysError,
    netlink::message::{IFA_F_NODAD, INET6, Message, MessageKind, Substitute},
};

/// How many failures an error names.
const NAMED: usize = 5;

/// The requests that are still to be sent, and the results of those that were.
pub(super) struct Sender<'a> {
    pub(super) devices: &'a (dyn Devices + 'a),
    pub(super) on: String,
    /// The device to which the messages belong.
    pub(super) device: Option<u32>,
    pub(super) failures: Vec<(String, rtnetlink::Error)>,
}

impl Sender<'_> {
    /// Sends all requests; an object that exists already counts as success. Returns the failed ones.
    async fn send(&self, requests: Vec<(u16, Message)>) -> Vec<(u16, Message, rtnetlink::Error)> {
        let raw = requests.iter().map(|(flags, message)| (*flags, message.creation())).collect();
        let answers = self.devices.send_raw(raw).await;
        let failed = |((flags, message), answer): ((u16, Message), Result<(), rtnetlink::Error>)| match answer
        {
            Ok(()) => None,
            Err(error) if errno(&error) == Some(Errno::EEXIST) => None,
            Err(error) => Some((flags, message, error)),
        };
        requests.into_iter().zip(answers).filter_map(failed).collect()
    }

    /// Sends all requests, and repeats failed ones as long as some succeed: one of them may be the route to another
    /// one's gateway.
    pub(super) async fn send_repeatedly(&mut self, mut requests: Vec<(u16, Message)>) {
        loop {
            let before = requests.len();
            let failed = self.send(requests).await;
            if failed.is_empty() {
                return;
            }
            if failed.len() == before {
                let failed = self.send_with_gateways(failed).await;
                self.failures.extend(failed.into_iter().map(|(_, message, error)| (named(&message), error)));
                return;
            }
            requests = failed.into_iter().map(|(flags, message, _)| (flags, message)).collect();
        }
    }

    /// Sends routes again that were refused because no route reaches their gateways, together with temporary routes
    /// to the gateways. The kernel keeps such routes when the address vanishes that made a gateway reachable, but
    /// does not add them. Returns the routes that failed.
    async fn send_with_gateways(
        &self,
        requests: Vec<(u16, Message, rtnetlink::Error)>,
    ) -> Vec<(u16, Message, rtnetlink::Error)> {
        let mut failed = Vec::new();
        for (flags, message, error) in requests {
            let unreachable = [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EINVAL];
            let helpers = match self.device {
                Some(device) if errno(&error).is_some_and(|errno| unreachable.contains(&errno)) => {
                    message.routes_to_gateways(device)
                }
                _ => Vec::new(),
            };
            if helpers.is_empty() {
                failed.push((flags, message, error));
                continue;
            }
            // Sent together: a killed agent leaves the temporary routes only if it is killed between two system
            // calls.
            let mut raw: Vec<_> =
                helpers.iter().map(|helper| (NLM_F_CREATE | NLM_F_EXCL, helper.creation())).collect();
            raw.push((flags, message.creation()));
            raw.extend(helpers.iter().map(|helper| (0, helper.deletion())));
            match self.devices.send_raw(raw).await.into_iter().nth(helpers.len()) {
                Some(Err(error)) if errno(&error) != Some(Errno::EEXIST) => {
                    failed.push((flags, message, error))
                }
                _ => {}
            }
        }
        failed
    }

    pub(super) async fn delete(&mut self, messages: &[Message]) {
        let raw = messages.iter().map(|message| (0, message.deletion())).collect();
        for (message, answer) in messages.iter().zip(self.devices.send_raw(raw).await) {
            let gone = [Errno::EADDRNOTAVAIL, Errno::ESRCH, Errno::ENOENT, Errno::ENODEV];
            if let Err(error) = answer
                && errno(&error).is_none_or(|errno| !gone.contains(&errno))
            {
                self.failures.push((named(message), error));
            }
        }
    }

    /// # Errors
    /// Names the objects that could not be sent.
    pub(super) fn finish(self) -> Result<(), SysError> {
        let mut failures = self.failures.into_iter();
        let Some((what, error)) = failures.next() else { return Ok(()) };
        let mut what = format!("restore {what}");
        let others: Vec<_> = failures.map(|(what, _)| what).collect();
        if !others.is_empty() {
            let _ =
                write!(what, ", and {}", others.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "));
        }
        if others.len() > NAMED {
            let _ = write!(what, ", and {} more", others.len() - NAMED);
        }
        Err(SysError::netlink(what, self.on, error))
    }
}

fn errno(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(error) => error.to_io().raw_os_error().map(Errno::from_raw),
        _ => None,
    }
}

impl Sender<'_> {
    pub(super) async fn put_neighbours(&mut self, layer3: &Layer3, substitute: &Substitute<'_>) {
        let neighbours =
            layer3.of_kind(MessageKind::Neighbour).map(|neighbour| neighbour.neighbour_for(substitute));
        let neighbours = neighbours.map(|neighbour| (NLM_F_CREATE | NLM_F_REPLACE, neighbour));
        self.send_repeatedly(neighbours.collect()).await;
    }

    /// Adds addresses one after the other. Addresses that this host had already are added without duplicate address
    /// detection; then they get their own flags.
    pub(super) async fn add_addresses(&mut self, layer3: &Layer3, target: &Target<'_>, wanted: &[&Message]) {
        let substitute = target.substitute(layer3.elapsed());
        let nodad = |address: &Message| if address.family() == INET6 { IFA_F_NODAD } else { 0 };
        let add = wanted.iter().filter_map(|address| address.address_for(&substitute, nodad(address)));
        let failed = self.send(add.map(|address| (NLM_F_CREATE | NLM_F_EXCL, address)).collect()).await;
        self.failures.extend(failed.into_iter().map(|(_, address, error)| (named(&address), error)));
        let plain = wanted
            .iter()
            .filter(|address| address.family() == INET6 && address.address_flags() & IFA_F_NODAD == 0)
            .filter_map(|address| address.address_for(&substitute, 0));
        let failed = self.send(plain.map(|address| (NLM_F_REPLACE, address)).collect()).await;
        self.failures.extend(failed.into_iter().map(|(_, address, error)| (named(&address), error)));
    }
}
