//! Hyper-V: configurations of every version in, a PowerShell script that makes the machine out.
//!
//! ```text
//! .vmcx (2016 and later)  -> vmcx  ┐
//!                                  ├-> tree -> read -> Machine        Machine -> write -> register.ps1
//! .xml (2008 to 2012 R2)  -> xml   ┘
//! ```
//! Both kinds have the same keys; what each is for stands in [`keys`] and [`devices`].

pub mod devices;
pub mod keys;
pub mod network;
pub mod read;
pub mod storage;
pub mod tree;
pub mod vmcx;
pub mod write;
