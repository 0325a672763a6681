//! The one privileged program of the appliance besides the system's own, and how it is spoken to.
//!
//! ```text
//! console (user landfall-console) ── /run/landfall-helper/helper.sock ──> Server ──> trait Machine
//!                                    one request, one answer                          System: /sys, /proc, systemctl
//! ```
//!
//! [`protocol`] is the interface's documentation, and its types. The server looks who asks, checks all of what is asked,
//! keeps settings, and has the [`Machine`] do the rest. Deliberately absent: any way to run something that is not listed
//! in [`system`], to name a file, to read the vault, and to set a password.

mod bundle;
mod client;
mod machine;
pub mod protocol;
mod server;
mod status;
mod stream;
pub mod system;

pub use client::Client;
pub use machine::{Machine, Part};
pub use server::{Server, listener, user};
pub use status::{
    CardStatus, DiskRole, DiskStatus, Memory, NetworkStatus, SlotStatus, Slots, Status, TimeStatus,
};
