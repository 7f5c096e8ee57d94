//! Changes to network devices.
//!
//! Each function describes a wanted state. It changes nothing on a device in this state, verifies each change after
//! it was made, and release undoes the change from the original state that was recorded before ([`found`]). Devices
//! are reached by netlink and ioctl only, so that everything works in the network namespace of the calling thread:
//! sysfs keeps showing the namespace in which it was mounted.
//!
//! Netlink requests are executed inside `sendmsg`, and the ethtool ioctls take RTNL: both block the calling
//! thread for as long as another process holds it. The caller decides which one waits: nothing here starts a thread
//! but [`KernelDevices::open_apart`] and [`mod@file`].

pub mod alias;
pub mod announcer;
pub mod bypassed;
pub mod caps;
pub mod clock;
pub mod conflicts;
pub mod dataplane;
pub mod devices;
pub mod directory;
pub mod enslave;
mod error;
pub mod ethtool;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod file;
pub mod found;
pub mod handover;
pub mod hook_events;
mod kernel_devices;
pub mod layer3;
pub mod limits;
pub mod locks;
pub mod membership;
pub mod memory;
pub mod netdev;
pub mod netlink;
pub mod netns;
pub mod notify;
pub mod offload;
pub mod ownership;
pub mod peers;
pub mod probe;
pub mod random;
pub mod signals;
pub mod softnet;
pub mod sysctl;
pub mod sysfs;
#[cfg(test)]
pub(crate) mod testing;
mod thread_runtime;
pub mod topology;

pub use devices::Devices;
pub use error::SysError;
pub use kernel_devices::KernelDevices;
pub use thread_runtime::ThreadRuntime;
