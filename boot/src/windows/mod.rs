//! Windows guests: facts from the registry, and what has to change in it and beside it so that the machine starts on
//! other virtual hardware.
//!
//! ```text
//! files -> hives (logs replayed) -> facts -> parts that plan -> registry edits and files -> one plan
//! ```
//! Every part plans through [`draft::Draft`]: it reads the registry as it will be after the parts before it, and what is
//! already as it should be is no edit, so that a second pass finds nothing to do. Paths of files are `/`-separated and
//! begin at the root of the Windows volume; its boot files may lie under [`ESP`] and [`BOOT`].
//!
//! Nothing of a guest is ever run, and nothing is installed: what needs the running Windows is left to a script of ours that
//! it runs once at its first start.

pub mod agents;
pub mod before;
pub mod boot;
pub mod data;
pub mod draft;
pub mod drivers;
pub mod facts;
pub mod first_boot;
pub mod hardware;
pub mod hive;
pub mod hives;
pub mod network;
pub mod planner;
pub mod reg_file;
pub mod registry;
pub mod services;
#[cfg(test)]
mod tests;

/// Where the files of the EFI system partition are, which Windows gives no letter. No name of NTFS holds a colon.
pub const ESP: &str = "/:esp";

/// Where those of the active partition are ("System Reserved"), if it is another than Windows'.
pub const BOOT: &str = "/:boot";
