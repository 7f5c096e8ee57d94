//! The qdisc that paces the clock: sch_tbf.

use std::time::Duration;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::{
    RouteNetlinkMessage,
    tc::{TcAttribute, TcHandle, TcMessage, TcOption},
};

use nix::errno::Errno;

use super::{Netlink, called};
use crate::sys::SysError;

/// Of linux/pkt_sched.h.
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_BURST: u16 = 6;
const TC_LINKLAYER_ETHERNET: u8 = 1;

/// Frames that the queue holds at most: more than circulate.
const QUEUED_FRAMES: u32 = 16;
/// Frames that may leave at once after a delay, so that the average of the periods is exact.
const BURST_FRAMES: u32 = 2;

/// One frame of `bytes` bytes leaves in each `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePace {
    /// The bytes of a frame on the wire.
    pub bytes: u32,
    /// The time between two frames.
    pub period: Duration,
}

impl FramePace {
    /// Bytes a second, as the kernel takes them.
    fn rate(self) -> u32 {
        let rate = u128::from(self.bytes) * 1_000_000_000 / self.period.as_nanos().max(1);
        u32::try_from(rate).unwrap_or(u32::MAX).max(1)
    }

    /// `struct tc_tbf_qopt`: the rate, no peak rate, and the bytes that the queue holds. The kernel computes the buffer from
    /// [`TCA_TBF_BURST`].
    fn parameters(self) -> Vec<u8> {
        let mut parameters = vec![0, TC_LINKLAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
        parameters.extend(self.rate().to_ne_bytes());
        parameters.extend([0; 12]);
        parameters.extend((QUEUED_FRAMES * self.bytes).to_ne_bytes());
        parameters.extend([0; 8]);
        parameters
    }
}

impl Netlink {
    /// Makes sch_tbf the root qdisc of a device. EOPNOTSUPP, ENOENT where the kernel has none.
    ///
    /// # Errors
    /// EOPNOTSUPP or ENOENT if the kernel has no sch_tbf; the device does not exist, or refuses the qdisc.
    pub async fn set_pace(&self, ifindex: u32, pace: FramePace) -> Result<(), SysError> {
        let failed = |error| SysError::netlink("set the qdisc tbf", called(ifindex), error);
        match self.replace_root(ifindex, pace).await.map_err(failed) {
            // A qdisc of another kind has the same handle: it is not replaced.
            Err(error) if error.errno() == Some(Errno::EINVAL) => {
                let request = RouteNetlinkMessage::DelQueueDiscipline(root_of(ifindex)).into();
                self.change_raw(0, request).await.map_err(failed)?;
                self.replace_root(ifindex, pace).await.map_err(failed)
            }
            answer => answer,
        }
    }

    async fn replace_root(&self, ifindex: u32, pace: FramePace) -> Result<(), rtnetlink::Error> {
        let mut message = root_of(ifindex);
        message.header.handle = TcHandle { major: 1, minor: 0 };
        let burst = (BURST_FRAMES * pace.bytes).to_ne_bytes().to_vec();
        let option = |kind, value| TcOption::Other(DefaultNla::new(kind, value));
        message.attributes = vec![
            TcAttribute::Kind("tbf".to_owned()),
            TcAttribute::Options(vec![
                option(TCA_TBF_PARMS, pace.parameters()),
                option(TCA_TBF_BURST, burst),
            ]),
        ];
        let request = RouteNetlinkMessage::NewQueueDiscipline(message).into();
        self.change_raw(NLM_F_CREATE | NLM_F_REPLACE, request).await
    }
}

fn root_of(ifindex: u32) -> TcMessage {
    let mut message = TcMessage::default();
    message.header.index = i32::try_from(ifindex).unwrap_or(0);
    message.header.parent = TcHandle::ROOT;
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_one_frame_in_a_period() {
        for (bytes, ms, rate) in [(64, 10, 6400), (64, 1, 64_000), (64, 1000, 64), (64, 100_000, 1)] {
            let pace = FramePace { bytes, period: Duration::from_millis(ms) };
            assert_eq!(pace.rate(), rate, "{bytes} bytes in {ms} ms");
            assert_eq!(pace.parameters().len(), 36);
        }
    }
}
