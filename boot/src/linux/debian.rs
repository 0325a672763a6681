//! Debian, Ubuntu and their relatives: initramfs-tools, GRUB 2.

use crate::Result;
use crate::family::{Family, Scene};
use crate::guest::Guest;
use crate::patch::PatchPlan;
use crate::target::Request;

/// The family.
pub struct Debian;

impl Family for Debian {
    fn name(&self) -> &'static str {
        "debian"
    }
    fn recognise(&self, _scene: &Scene<'_>) -> Result<Option<Guest>> {
        Ok(None)
    }
    fn plan(&self, _scene: &Scene<'_>, _guest: &Guest, _request: &Request) -> Result<PatchPlan> {
        Ok(PatchPlan::default())
    }
}
