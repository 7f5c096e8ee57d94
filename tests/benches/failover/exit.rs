//! Counts packets that slaves get while their carrier bit is clear, by a program at each slave's egress.

use std::{fs, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::{
    maps::{Array, Map, MapData},
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use bond_user::sys::dataplane::{Hook, Kernel};
use xbond_tests::Lab;

use crate::raw;

/// The programs, which stay attached until this is dropped.
pub struct Exits {
    /// Whether the carrier has fallen, as set by the benchmark.
    fell: MapData,
    given: Array<MapData, [u64; 2]>,
    _programs: Vec<SchedClassifier>,
}

/// Packets that a slave got while its carrier bit was clear.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Before the benchmark had set the flag: they may have been on their way when the carrier fell.
    pub while_it_fell: u64,
    pub after_it_had: u64,
}

impl Exits {
    /// Attaches the programs; returns `None` if programs cannot read the bit (no BTF), or cannot be links (before
    /// 6.6).
    pub fn watch(lab: &Lab) -> Result<Option<Self>> {
        let kernel = Kernel::read();
        if !kernel.has_types() || !kernel.has_tcx() {
            return Ok(None);
        }
        let (fell, given) = (raw::words("fell", 1)?, raw::words("given", 2)?);
        let code = raw::count_without_carrier(kernel.offsets(), fell.fd().as_fd(), given.fd().as_fd());
        let loaded = raw::load(Hook::Tc, &code)?;
        let attached = lab.nics.iter().map(|nic| {
            let pin = format!("/sys/fs/bpf/xbond_exit_{}_{}", lab.host.name(), nic.name);
            loaded.pin(pin.as_ref())?;
            let program = SchedClassifier::from_pin(&pin);
            fs::remove_file(&pin).context("cannot remove a pin")?;
            let mut program = program?;
            let last = TcAttachOptions::TcxOrder(LinkOrder::last());
            lab.host.run(|| Ok(program.attach_with_options(&nic.name, TcAttachType::Egress, last)?))?;
            Ok(program)
        });
        let programs = attached.collect::<Result<Vec<_>>>()?;
        let given = Array::try_from(Map::Array(given)).context("an array")?;
        Ok(Some(Self { fell, given, _programs: programs }))
    }

    /// Notes that the carrier has fallen, or is about to rise.
    pub fn carrier_fell(&self, fell: bool) -> Result<()> {
        raw::set(&self.fell, &u64::from(fell).to_ne_bytes()).context("cannot set the programs' flag")
    }

    pub fn given(&self) -> Result<Given> {
        let [while_it_fell, after_it_had] = self.given.get(&0, 0)?;
        Ok(Given { while_it_fell, after_it_had })
    }
}
