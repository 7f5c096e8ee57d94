//! Counters of the kernel for a device: IFLA_STATS64, and the packets that its qdiscs dropped.

use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkAttribute, Stats64},
    tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption, TcStats2},
};

use rtnetlink::LinkUnspec;

use super::{LinkInfo, Netlink, link::parse, reading};
use crate::sys::SysError;

/// A link, and the kernel's counters since it was created.
#[derive(Clone, Debug)]
pub struct CountedLink {
    /// The link.
    pub link: LinkInfo,
    /// `None` if the kernel does not report them.
    pub stats: Option<Stats64>,
}

/// A qdisc at a device's root or ingress, and its counters since it was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QdiscStats {
    /// The device.
    pub ifindex: u32,
    /// "noqueue", "mq", "fq_codel" ...
    pub kind: String,
    /// Where it is attached.
    pub at: QdiscPlace,
    /// Dropped packets.
    pub drops: u32,
    /// How often the limit was reached.
    pub overlimits: u32,
    /// Packets that were queued again.
    pub requeues: u32,
    /// Packets in the queue.
    pub queued: u32,
}

/// Where a qdisc is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QdiscPlace {
    /// For a qdisc with classes, the sum of all of them.
    Root,
    /// ingress or clsact
    Ingress,
}

impl Netlink {
    /// Returns a link with its counters.
    ///
    /// # Errors
    /// The device does not exist, or the kernel does not answer.
    pub async fn counted_link(&self, ifindex: u32) -> Result<CountedLink, SysError> {
        let on = format!("ifindex {ifindex}");
        let answer = self.ask_raw(reading(&LinkUnspec::new_with_index(ifindex).build())).await;
        let answer = answer.map_err(|error| SysError::netlink("read the counters", &*on, error))?;
        let message = answer.and_then(|answer| parse(&answer.body));
        let (message, alias) = message.ok_or_else(|| SysError::NoSuchInterface(on.clone()))?;
        let stats = message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Stats64(stats) => Some(*stats),
            _ => None,
        });
        let link = LinkInfo::from_message(&message).ok_or(SysError::NoSuchInterface(on))?;
        Ok(CountedLink { link: LinkInfo { alias, ..link }, stats })
    }

    /// Returns the names of the BPF filters at a device's clsact ingress; none without that qdisc.
    ///
    /// # Errors
    /// The kernel does not list the device's filters.
    pub async fn ingress_filters(&self, ifindex: u32) -> Result<Vec<String>, SysError> {
        let name = |option: &TcFilterBpfOption| match option {
            TcFilterBpfOption::ProgName(name) => Some(name.clone()),
            _ => None,
        };
        self.of_ingress_filters(ifindex, name).await
    }

    /// Returns the programs of the BPF filters there, as `bpftool prog show id` takes them.
    ///
    /// # Errors
    /// The kernel does not list the device's filters.
    pub async fn ingress_programs(&self, ifindex: u32) -> Result<Vec<u32>, SysError> {
        let program = |option: &TcFilterBpfOption| match option {
            TcFilterBpfOption::ProgId(program) => Some(*program),
            _ => None,
        };
        self.of_ingress_filters(ifindex, program).await
    }

    async fn of_ingress_filters<T>(
        &self,
        ifindex: u32,
        each: impl Fn(&TcFilterBpfOption) -> Option<T>,
    ) -> Result<Vec<T>, SysError> {
        let mut question = TcMessage::default();
        question.header.index = i32::try_from(ifindex).unwrap_or(0);
        question.header.parent = TcHandle { major: 0xffff, minor: TcHandle::MIN_INGRESS };
        let answer = self.list(RouteNetlinkMessage::GetTrafficFilter(question), "the filters").await?;
        let found = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewTrafficFilter(message) => of_filter(message, &each),
            _ => None,
        });
        Ok(found.collect())
    }

    /// Returns the outermost qdiscs of all devices of this namespace.
    ///
    /// # Errors
    /// The kernel does not list the qdiscs.
    pub async fn qdiscs(&self) -> Result<Vec<QdiscStats>, SysError> {
        let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
        let answer = self.list(request, "the qdiscs").await?;
        let qdiscs = answer.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewQueueDiscipline(message) => qdisc(message),
            _ => None,
        });
        Ok(qdiscs.collect())
    }
}

fn of_filter<T>(message: &TcMessage, each: impl Fn(&TcFilterBpfOption) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => options.iter().find_map(|option| match option {
            TcOption::Bpf(option) => each(option),
            _ => None,
        }),
        _ => None,
    })
}

/// Converts a qdisc; returns `None` for one inside another, which includes its numbers.
fn qdisc(message: &TcMessage) -> Option<QdiscStats> {
    let at = match message.header.parent {
        TcHandle::ROOT => QdiscPlace::Root,
        TcHandle::INGRESS => QdiscPlace::Ingress,
        _ => return None,
    };
    let mut qdisc = QdiscStats {
        ifindex: message.header.index.try_into().ok()?,
        kind: String::new(),
        at,
        drops: 0,
        overlimits: 0,
        requeues: 0,
        queued: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => qdisc.kind.clone_from(kind),
            TcAttribute::Stats2(stats) => {
                for stats in stats {
                    if let TcStats2::Queue(queue) = stats {
                        (qdisc.drops, qdisc.overlimits) = (queue.drops, queue.overlimits);
                        (qdisc.requeues, qdisc.queued) = (queue.requeues, queue.qlen);
                    }
                }
            }
            _ => {}
        }
    }
    Some(qdisc)
}

#[cfg(test)]
mod tests {
    use crate::sys::testing::{in_namespace, veth};

    #[test]
    fn a_device_has_counters_and_a_qdisc() {
        in_namespace(async |devices| {
            let (link, _) = veth(&devices, "eth1", "far1").await;
            let counted = devices.netlink.counted_link(link.ifindex).await.unwrap();
            assert_eq!(counted.link.name, "eth1");
            assert_eq!(counted.stats.map(|stats| stats.tx_packets), Some(0));
            let error = devices.netlink.counted_link(999_999).await.unwrap_err();
            assert!(error.is_gone(), "{error}");
            devices.netlink.qdiscs().await.unwrap();
        });
    }
}
