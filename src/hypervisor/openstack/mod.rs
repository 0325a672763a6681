//! OpenStack: image properties, a template for Heat, and a script for its command line client.
mod heat;
pub mod write;
