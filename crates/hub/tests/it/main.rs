//! Pulls from a hub on the loopback, which behaves and which does not, and bundles. Nothing leaves the machine.

mod bundles;
mod catalogue;
#[cfg(feature = "remote")]
mod faults;
#[cfg(feature = "remote")]
mod pulls;
#[cfg(feature = "remote")]
mod server;
