//! The machine that landfall is when it is booted by itself: what is set on it, where settings come from, how its network
//! is made, and the one privileged helper of its console.
//!
//! ```text
//! console (typed) ──┐
//! OVF properties    ├─> Settings ──> network units, resolv.conf, host name, keys (in /run)
//! NoCloud, ConfigDrive (given) ─┘
//! ```
//!
//! What the administrator typed counts more than what the hypervisor gave; what neither says has a default, and the default
//! of the network is DHCP. Deliberately absent: passwords (there are none), anything that a given document asks to be run,
//! and mounting: who calls has the folder.

pub mod apply;
pub mod data;
pub mod disc;
pub mod disks;
pub mod helper;
pub mod kept;
pub mod media;
pub mod network;
pub mod places;
pub mod power;
pub mod problems;
pub mod programs;
pub mod settings;
pub mod slots;
pub mod sources;
pub mod start;
pub mod state;
#[cfg(test)]
mod tests;
