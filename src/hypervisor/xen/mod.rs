//! XenServer and XCP-ng: the definition in an XVA (`ova.xml`), in and out.
//!
//! Source: xapi's data model (the classes VM, VBD, VDI, VIF, VTPM, network and SR), and its import of virtual machines.

pub mod read;
mod records;
mod unread;
mod value;
pub mod write;

pub use write::disk_name;

/// What the product is called.
const TITLE: &str = "XCP-ng";
