//! The engine as a whole, with a lab in place of the agent, the NICs and the clock.

mod adoption;
mod arp;
mod avoid;
mod failover;
mod fuzz;
mod guard;
mod lab;
mod late;
mod macs;
mod model;
mod random;
mod requests;
mod tick;
mod timing;
mod watch;
