//! landfall brings virtual machines ashore on another hypervisor: the program's parts, for `main` and the tests.
//!
//! ```text
//! definition -> hypervisor -> Machine -> ops (image + boot do the work) -> Report -> cli
//! ```
//!
//! Only [`cli`] and [`console`] print; only `main.rs` reads the environment or exits.

pub mod appliance;
pub mod authority;
pub mod cli;
pub mod console;
mod doors;
pub mod event;
pub mod finding;
pub mod hypervisor;
pub mod machine;
mod meminfo;
pub mod moment;
pub mod name;
pub mod ops;
pub mod proof;
pub mod receive;
pub mod recovery;
pub mod registrar;
pub mod report;
pub mod schema;
mod server_certificate;
pub mod service;
mod small_file;
mod transport;
pub mod trust;
pub mod vault;
