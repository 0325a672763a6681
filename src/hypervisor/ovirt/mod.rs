//! oVirt: an OVF as its engine reads it, and a script.
pub mod write;
