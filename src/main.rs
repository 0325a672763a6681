//! The program.
mod hypervisor;
mod machine;
fn main() {}
