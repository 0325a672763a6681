//! The machine that landfall is when it is booted by itself.

pub mod authority;
pub mod disks;
pub mod places;
pub mod problems;
pub mod programs;
pub mod slots;
pub mod start;
pub mod state;
