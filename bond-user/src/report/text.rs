//! The text of `xbond show`, `xbond log` and `xbond monitor`, in 80 columns.

mod columns;
mod log;
mod monitor;
mod show;
mod top;

pub use self::{
    log::log,
    monitor::event,
    show::{Amount, show},
    top::Screen,
};

#[cfg(test)]
mod tests;
