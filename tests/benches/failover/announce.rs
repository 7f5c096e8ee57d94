//! Measures the time from the loss of a link to the announcement on the wire of the other slave.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use xbond_tests::{
    Capture, Cut, HOST_V4, Lab, LinkWatch, TwoWay, WAIT_LIMIT, bonded,
    lab::{Datapath, Wire},
};

use crate::{
    Options, Scene,
    row::{Row, ms},
};

/// Packets/s in each direction, in rows with traffic.
const RATE: u32 = 2_000;
const MIIMON: f64 = 100.0;
/// Cuts occur at any time between two polls of the links: each is later by this than the one before, modulo miimon.
pub const STEP_MS: u64 = 37;

#[derive(Clone, Copy)]
struct Setting {
    wire: Wire,
    policy: &'static str,
    /// Whether the agent uses link events. Those of a tap occur once a second at most.
    events: bool,
    traffic: bool,
}

pub fn scenes(options: &Options) -> Vec<Scene> {
    let mut scenes = Vec::new();
    for (wire, events) in [(Wire::Veth, true), (Wire::Veth, false), (Wire::Tap, true)] {
        for policy in bonded::POLICIES {
            for traffic in [true, false] {
                // Rows that wait for miimon anyway do not differ by policy.
                let by_event = wire == Wire::Veth && events;
                if policy != "active" && (!by_event || options.quick) {
                    continue;
                }
                let setting = Setting { wire, policy, events, traffic };
                let name = format!(
                    "{}, {policy}, {}",
                    match (wire, events) {
                        (Wire::Veth, true) => "veth, by event",
                        (Wire::Veth, false) => "veth, without events",
                        (Wire::Tap, _) => "tap",
                    },
                    if traffic { "with traffic" } else { "idle" }
                );
                scenes.push(Scene::new("announcement", &name, move |row, options| {
                    setting.measure(row, options)
                }));
            }
        }
    }
    scenes
}

impl Setting {
    fn measure(self, row: &mut Row, options: &Options) -> Result<()> {
        let lab = Lab::builder().wire(self.wire).build()?;
        let address = format!("{HOST_V4}/24");
        let mut more = vec!["--address", &address];
        if !self.events {
            more.push("--no-link-events");
        }
        let xbond = bonded::run(&lab, Datapath::Tc, self.policy, &more)?;
        bonded::wait_for_path(&lab.host, &lab.peer)?;
        let indices = lab.nics.iter().map(|nic| Ok(lab.host.link(&nic.name)?.ifindex));
        let indices = indices.collect::<Result<Vec<_>>>()?;
        let watch = LinkWatch::start(&lab.host)?;
        let (host, peer) = ((&lab.host, HOST_V4.into()), (&lab.peer, xbond_tests::PEER_V4.into()));
        let traffic = self.traffic.then(|| TwoWay::start(host, peer, RATE)).transpose()?;
        let ports =
            [0, 1].map(|index| Capture::start_on(&lab.switch.netns, &xbond_tests::Switch::port(index)));
        let [p0, p1] = ports;
        let ports = [p0?, p1?];

        let (mut after_cut, mut after_event) = (Vec::new(), Vec::new());
        for number in 0..options.cuts {
            let (from, to) = (number % 2, (number + 1) % 2);
            let [active, other] = [from, to].map(|index| lab.nics[index].name.as_str());
            thread::sleep(Duration::from_millis(number as u64 * STEP_MS % MIIMON as u64));
            let said = xbond.log().len();
            let cut = lab.cut(active, Cut::Carrier)?;
            let announced = ports[to].wait_for(WAIT_LIMIT, |frame| {
                frame.at >= cut && !frame.outgoing && frame.announces(HOST_V4.into()).is_some()
            })?;
            xbond.wait_for_after(said, &format!("active slave {other} instead of {active}"))?;
            after_cut.push(ms(announced.at - cut));
            if self.wire == Wire::Veth {
                let event = watch.wait_for(cut, indices[from], false, WAIT_LIMIT)?;
                after_event.push(ms(announced.at.saturating_duration_since(event)));
            }
            lab.reconnect(active, Cut::Carrier)?;
            bonded::wait_for_slaves(&xbond)?;
            lab.switch.wait_for_forwarding(&lab.port(active)?)?;
        }
        row.number("cuts", after_cut.len() as f64);
        let by_event = self.wire == Wire::Veth && self.events;
        let most = if by_event { 2.0 } else { MIIMON + 5.0 };
        row.spread("after the cut", "ms", &after_cut, Some(most));
        if by_event {
            row.spread("after the kernel's event", "ms", &after_event, None);
        }
        if let Some(traffic) = traffic {
            for report in traffic.stop()? {
                row.number("lost", report.lost as f64);
                row.at_most("duplicated", report.duplicated as f64, 0.0);
                ensure!(!options.quick || report.duplicated == 0, "duplicates: {report:?}");
            }
        }
        xbond.stop()?;
        Ok(())
    }
}
