//! Sizes of virtual machines in Azure: the smallest that holds a machine.
//!
//! Source: Microsoft's lists of the series B, Dsv5 and Esv5: general ones that are offered nearly everywhere, start disks of
//! both generations, and (Dsv5, Esv5) have no temporary disk that would come between the guest's own.

use crate::machine::Machine;
use landfall_image::Bytes;

/// A size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Its name.
    pub name: &'static str,
    /// Virtual processors.
    pub cpus: u32,
    /// Main memory.
    pub memory: Bytes,
    /// Data disks, at most.
    pub disks: usize,
    /// Network cards, at most.
    pub nics: usize,
}

const fn size(name: &'static str, cpus: u32, memory: u64, disks: usize, nics: usize) -> Size {
    Size { name, cpus, memory: Bytes::gib(memory), disks, nics }
}

/// Cheaper ones first.
const SIZES: &[Size] = &[
    size("Standard_B1s", 1, 1, 2, 2),
    size("Standard_B1ms", 1, 2, 2, 2),
    size("Standard_B2s", 2, 4, 4, 3),
    size("Standard_D2s_v5", 2, 8, 4, 2),
    size("Standard_E2s_v5", 2, 16, 4, 2),
    size("Standard_D4s_v5", 4, 16, 8, 2),
    size("Standard_E4s_v5", 4, 32, 8, 2),
    size("Standard_D8s_v5", 8, 32, 16, 4),
    size("Standard_E8s_v5", 8, 64, 16, 4),
    size("Standard_D16s_v5", 16, 64, 32, 8),
    size("Standard_E16s_v5", 16, 128, 32, 8),
    size("Standard_D32s_v5", 32, 128, 32, 8),
    size("Standard_E32s_v5", 32, 256, 32, 8),
    size("Standard_D48s_v5", 48, 192, 32, 8),
    size("Standard_E48s_v5", 48, 384, 32, 8),
    size("Standard_D64s_v5", 64, 256, 32, 8),
    size("Standard_E64s_v5", 64, 512, 32, 8),
    size("Standard_D96s_v5", 96, 384, 32, 8),
    size("Standard_E96s_v5", 96, 672, 32, 8),
];

/// The smallest size that has at least what the machine has, for that many cards; `None` where it is larger than all.
/// Trusted launch is not for the series B of the first generation.
pub fn fitting(machine: &Machine, nics: usize, trusted: bool) -> Option<Size> {
    let data = machine.disks.len().saturating_sub(1);
    SIZES.iter().copied().find(|size| {
        size.cpus >= machine.cpus.count
            && size.memory >= machine.memory
            && size.disks >= data
            && size.nics >= nics
            && !(trusted && size.name.starts_with("Standard_B1"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Bus, Cpus, DiskSlot};

    #[test]
    fn the_smallest_that_fits() {
        let named = |cpus, gib, disks, nics| {
            let mut machine = Machine::new("a", Bytes::gib(gib));
            machine.cpus = Cpus::new(cpus, 1, 1);
            machine.disks = vec![DiskSlot::new("a", Bus::Vmbus, "a"); disks];
            fitting(&machine, nics, false).map(|size| size.name)
        };
        assert_eq!(named(1, 1, 1, 1), Some("Standard_B1s"));
        assert_eq!(named(3, 4, 1, 1), Some("Standard_D4s_v5"));
        assert_eq!(named(2, 12, 1, 1), Some("Standard_E2s_v5"));
        assert_eq!(named(1, 1, 12, 1), Some("Standard_D8s_v5"), "for its disks");
        assert_eq!(named(1, 1, 1, 4), Some("Standard_D8s_v5"), "for its cards");
        assert_eq!(named(128, 1, 1, 1), None);
        assert_eq!(named(1, 1, 40, 1), None);
    }
}
