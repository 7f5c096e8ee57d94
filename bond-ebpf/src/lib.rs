//! Empty: the programs are the binary. It exists so that bond-user can build-depend on this crate.
#![cfg_attr(target_arch = "bpf", no_std)]
