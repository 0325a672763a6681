//! What is in a machine, what has to change for a target, and the change itself, in overlays.

use super::source::{self, Loaded};
use super::{Context, Failure, GuestChoice};
use crate::hypervisor::Row;
use crate::report::{Inspected, SourceDisk};
use landfall_boot::target::{Nic, Platform, Request};
use landfall_image::{Disk, Error, Overlay, Result};
use std::path::Path;
use std::sync::Arc;

/// A machine whose guest is to be looked at.
pub struct Opened<'a> {
    /// The machine and its disks.
    pub loaded: &'a Loaded,
    /// Its disks, to be written to.
    pub overlays: &'a [Arc<Overlay>],
    /// Where it will run.
    pub platform: Platform,
    /// How its guest is found.
    pub choice: &'a GuestChoice,
}
