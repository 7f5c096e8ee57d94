//! The state of devices, read without netlink.

use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunOptions, programs::SchedClassifier};
use bond_common::{
    abi::{DeviceState, LinkQuestion},
    names,
};

use super::{
    DataPlaneError, Hook, Kernel,
    attach::{error_chain, has_errno, load},
};

/// Asks the kernel for a device's state without netlink, and so without RTNL.
pub struct DeviceReader {
    source: Source,
}

enum Source {
    Programs(Box<Ebpf>),
    #[cfg(any(test, feature = "fake"))]
    Memory(crate::sys::fake::FakeKernel),
}

impl Source {
    /// Returns the loaded programs; `None` for a kernel in memory, which has none.
    fn programs(&self) -> Option<&Ebpf> {
        match self {
            Self::Programs(object) => Some(object),
            #[cfg(any(test, feature = "fake"))]
            Self::Memory(_) => None,
        }
    }
}

/// The loopback device, which every network namespace has.
const LOOPBACK: u32 = 1;

/// `struct __sk_buff`: its size, and where `ifindex` is.
const SKB_CONTEXT: usize = 192;
const SKB_CONTEXT_IFINDEX: usize = 40;
/// An Ethernet header, and room for a [`DeviceState`].
const PROBE_FRAME: usize = 64;
const ETHERNET_HEADER: usize = 14;

impl DeviceReader {
    /// Loads the programs and reads the loopback device once.
    ///
    /// # Errors
    /// The kernel's BTF cannot be read, the kernel refuses bpf_probe_read_kernel (lockdown), or a test run fails.
    pub fn new(kernel: &Kernel) -> Result<Self, DataPlaneError> {
        if !kernel.has_types() {
            return Err(DataPlaneError::NoTypes);
        }
        let mut object = EbpfLoader::new()
            .btf(None)
            .override_global(names::OFFSETS, &kernel.offsets(), true)
            .load(kernel.object())?;
        load(&mut object, names::DEVICE_STATE, Hook::Tc)?;
        // Without it devices are asked one by one.
        let _ = load(&mut object, names::DEVICE_LINKS, Hook::Tc)
            .inspect_err(|error| tracing::info!("links are read one by one: {error}"));
        let reader = Self { source: Source::Programs(Box::new(object)) };
        // A reader that cannot read would be asked, in vain, at every poll.
        reader.read(LOOPBACK)?;
        Ok(reader)
    }

    /// Returns the reader of the devices of a kernel in memory.
    #[cfg(any(test, feature = "fake"))]
    pub fn in_memory(kernel: crate::sys::fake::FakeKernel) -> Self {
        Self { source: Source::Memory(kernel) }
    }

    fn program(&self, name: &'static str) -> Result<&SchedClassifier, DataPlaneError> {
        let object = self.source.programs().ok_or(DataPlaneError::Missing(name))?;
        let program = object.program(name).and_then(|program| program.try_into().ok());
        program.ok_or(DataPlaneError::Missing(name))
    }

    /// Which of these devices have a link, by their handles: many for one system call. A device that is not where its
    /// handle says has none; [`Self::read`] reports its state.
    ///
    /// # Errors
    /// The program is not loaded, or the kernel does not run it ([`DataPlaneError::Program`]).
    pub fn with_link(&self, devices: &[LinkQuestion]) -> Result<Vec<bool>, DataPlaneError> {
        #[cfg(any(test, feature = "fake"))]
        if let Source::Memory(kernel) = &self.source {
            return Ok(devices.iter().map(|device| kernel.answers(device)).collect());
        }
        let mut answers = Vec::with_capacity(devices.len());
        for questions in devices.chunks(LinkQuestion::MOST) {
            let mut frame = vec![0; ETHERNET_HEADER];
            frame.extend(questions.iter().flat_map(LinkQuestion::bytes));
            let mut answered = vec![0; frame.len()];
            let options = TestRunOptions {
                data_in: Some(&frame),
                data_out: Some(&mut answered),
                ..TestRunOptions::default()
            };
            let program = self.program(names::DEVICE_LINKS)?;
            let run = program.test_run(options);
            run.map_err(|source| DataPlaneError::Program { name: names::DEVICE_LINKS, source })?;
            let answer = |bytes: &[u8]| bytes[LinkQuestion::ANSWER..].iter().any(|byte| *byte != 0);
            answers.extend(answered[ETHERNET_HEADER..].chunks(size_of::<LinkQuestion>()).map(answer));
        }
        Ok(answers)
    }

    /// Reads the state of a device of the calling thread's network namespace; None if there is no such device.
    ///
    /// # Errors
    /// The state could not be read: nothing is known of the device then, and least of all that its link is down.
    pub fn read(&self, ifindex: u32) -> Result<Option<DeviceState>, DataPlaneError> {
        #[cfg(any(test, feature = "fake"))]
        if let Source::Memory(kernel) = &self.source {
            return Ok(kernel.device_state(ifindex));
        }
        let error = |reason: String| DataPlaneError::DeviceState { ifindex, reason };
        let mut context = [0; SKB_CONTEXT];
        context[SKB_CONTEXT_IFINDEX..SKB_CONTEXT_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let frame = [0; PROBE_FRAME];
        let mut answer = [0; PROBE_FRAME];
        let options = TestRunOptions {
            data_in: Some(&frame),
            data_out: Some(&mut answer),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = match self.program(names::DEVICE_STATE)?.test_run(options) {
            Ok(result) => result,
            Err(source) if has_errno(&source, libc::ENODEV) => return Ok(None),
            Err(source) => return Err(error(error_chain(&source))),
        };
        if result.return_value != 0 {
            return Err(error("the kernel's memory could not be read".into()));
        }
        DeviceState::parse(&answer[ETHERNET_HEADER..])
            .filter(|state| state.ifindex() == ifindex)
            .map(Some)
            .ok_or_else(|| error("the answer is about another device".into()))
    }
}
