//! An empty library, so that bond-user can build-depend on this crate. The programs are the binary.
#![cfg_attr(target_arch = "bpf", no_std)]
