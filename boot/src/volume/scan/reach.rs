//! What a volume's bytes lie on at the very bottom, and what one write to it comes to.
//!
//! Storage that lies on itself, or on layers that each double what is written, is made to hang whoever opens it.

use crate::limits;
use landfall_image::{Bytes, GuestOffset, GuestRange};
use std::sync::Arc;

/// What lies below a volume. Where it is not known exactly, it is too much.
#[derive(Debug)]
pub(super) struct Reach {
    /// Runs of the machine's disks, by their index.
    runs: Vec<(usize, GuestRange)>,
    /// Writes, or flushes, that one comes to.
    copies: usize,
    /// Arrays, one on the other.
    arrays: usize,
}

impl Reach {
    pub fn disk(index: usize, size: Bytes) -> Reach {
        Reach { runs: vec![(index, GuestRange::new(GuestOffset(0), size))], copies: 1, arrays: 0 }
    }

    /// A partition of this device.
    pub fn part(self: &Arc<Reach>, range: GuestRange) -> Arc<Reach> {
        match self.runs.as_slice() {
            // Only a disk has all of its bytes in their order.
            &[(disk, whole)] if self.arrays == 0 && self.copies == 1 && whole.start().0 == 0 => {
                Arc::new(Reach { runs: vec![(disk, range)], copies: 1, arrays: 0 })
            }
            _ => self.clone(),
        }
    }

    /// An array of these members. `Err` with the end of a sentence.
    pub fn array(members: &[Arc<Reach>]) -> Result<Reach, String> {
        let runs = members.iter().map(|member| member.runs.len()).sum::<usize>();
        let copies = members.iter().map(|member| member.copies).sum::<usize>();
        if runs.max(copies) > limits::FAN_OUT {
            return Err(format!(
                "it lies on {} pieces of disks; up to {} are taken",
                runs.max(copies),
                limits::FAN_OUT
            ));
        }
        let arrays = members.iter().map(|member| member.arrays).max().unwrap_or(0) + 1;
        if arrays > limits::MD_NESTING {
            return Err(format!(
                "it lies on arrays that lie on arrays, more than {} deep",
                limits::MD_NESTING
            ));
        }
        let mut all: Vec<(usize, GuestRange, usize)> = Vec::new();
        for (index, member) in members.iter().enumerate() {
            all.extend(member.runs.iter().map(|&(disk, range)| (disk, range, index)));
        }
        all.sort_by_key(|&(disk, range, _)| (disk, range.start().0));
        // The furthest end on this disk and whose it is, and the furthest of any other member.
        let (mut on, mut first, mut second) = (usize::MAX, (0, usize::MAX), 0);
        for (disk, range, member) in all {
            if disk != on {
                (on, first, second) = (disk, (0, usize::MAX), 0);
            }
            let others = if first.1 == member { second } else { first.0 };
            if range.start().0 < others {
                return Err(format!("two of its members lie on the same bytes of disk{disk}"));
            }
            let end = range.end().0;
            if first.1 == member {
                first.0 = first.0.max(end);
            } else if end > first.0 {
                (second, first) = (first.0, (end, member));
            } else {
                second = second.max(end);
            }
        }
        let runs = members.iter().flat_map(|member| member.runs.iter().copied()).collect();
        Ok(Reach { runs, copies, arrays })
    }

    /// All of a volume group, on these physical volumes.
    pub fn group(physical: &[Arc<Reach>]) -> Reach {
        let mut runs: Vec<_> = physical.iter().flat_map(|reach| reach.runs.iter().copied()).collect();
        runs.sort_by_key(|&(disk, range)| (disk, range.start().0, range.end().0));
        runs.dedup();
        Reach {
            runs,
            copies: physical.iter().map(|reach| reach.copies).sum(),
            arrays: physical.iter().map(|reach| reach.arrays).max().unwrap_or(0),
        }
    }

    /// A volume of this group with so many legs; `None` where one write to it comes to too many.
    pub fn logical(self: &Arc<Reach>, legs: usize) -> Option<Arc<Reach>> {
        let copies = self.copies.checked_mul(legs.max(1)).filter(|copies| *copies <= limits::FAN_OUT)?;
        if copies == self.copies {
            return Some(self.clone());
        }
        Some(Arc::new(Reach { runs: self.runs.clone(), copies, arrays: self.arrays }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(start: u64, len: u64) -> Arc<Reach> {
        Arc::new(Reach::disk(0, Bytes(1 << 40))).part(GuestRange::new(GuestOffset(start), Bytes(len)))
    }

    #[test]
    fn members_of_an_array_share_no_byte() {
        assert!(Reach::array(&[run(0, 10), run(10, 10), run(20, 5)]).is_ok());
        let other = Arc::new(Reach::disk(1, Bytes(100)));
        assert!(Reach::array(&[run(0, 10), other]).is_ok(), "the same bytes of another disk");
        for members in [
            vec![run(0, 10), run(9, 10)],
            vec![run(0, 10), run(0, 10)],
            vec![run(0, 100), run(10, 1)],
            vec![run(0, 100), run(10, 1), run(200, 5)],
        ] {
            assert!(Reach::array(&members).unwrap_err().contains("same bytes"));
        }
        // A run of the same member between the two.
        let long = Arc::new(Reach {
            runs: vec![
                (0, GuestRange::new(GuestOffset(0), Bytes(90))),
                (0, GuestRange::new(GuestOffset(10), Bytes(5))),
            ],
            copies: 1,
            arrays: 0,
        });
        assert!(Reach::array(&[long, run(50, 1)]).is_err());
    }

    #[test]
    fn layers_end_and_writes_stay_few() {
        let one = Arc::new(Reach::array(&[run(0, 10), run(10, 10)]).unwrap());
        let two = Arc::new(Reach::array(&[one.clone(), run(20, 10)]).unwrap());
        assert_eq!((two.copies, two.arrays), (3, 2));
        assert!(Reach::array(std::slice::from_ref(&two)).unwrap_err().contains("deep"));
        let inside = one.part(GuestRange::new(GuestOffset(5), Bytes(2)));
        assert!(Reach::array(&[inside, one.clone()]).is_err(), "an array's partition lies on all of it");
        let many: Vec<_> = (0..=limits::FAN_OUT as u64).map(|n| run(n * 10, 10)).collect();
        assert!(Reach::array(&many[1..]).is_ok());
        assert!(Reach::array(&many).unwrap_err().contains("pieces"));
        let group = Arc::new(Reach::group(&[two, run(100, 1)]));
        assert_eq!(group.logical(2).unwrap().copies, 8);
        assert_eq!(group.logical(1).unwrap().copies, 4);
        assert!(group.logical(limits::FAN_OUT / 4).is_some());
        assert!(group.logical(limits::FAN_OUT / 4 + 1).is_none());
    }
}
