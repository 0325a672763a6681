//! Nutanix AHV: what Prism and acli say of a machine, in JSON, and what they take.
mod fields;
pub mod read;
mod specification;
pub mod write;
