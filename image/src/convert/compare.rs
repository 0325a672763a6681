//! Whether two disks hold the same, and where they first differ.

use super::buffers::{Buffers, read_parts, width};
use super::pipeline::Taken;
use super::plan::{Item, Plan};
use super::{CHUNK, Options, pipeline};
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::Result;
use crate::units::{Bytes, GuestOffset, GuestRange};

/// What [`compare`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Sizes of the first and the second disk.
    pub sizes: (Bytes, Bytes),
    /// The first byte that differs. Behind the end of the shorter disk zeros are assumed, so that disks of
    /// different size are the same where the longer one goes on with zeros.
    pub first_difference: Option<GuestOffset>,
}

impl Comparison {
    /// True where no byte differs; the sizes may, if the longer disk goes on with zeros.
    pub fn is_same_content(&self) -> bool {
        self.first_difference.is_none()
    }

    /// True where no byte differs and the sizes are the same.
    pub fn is_identical(&self) -> bool {
        self.is_same_content() && self.sizes.0 == self.sizes.1
    }
}

/// Compares two disks in parallel, up to the first difference. Runs that neither of them stores are not read.
pub fn compare(a: &dyn Disk, b: &dyn Disk, options: &Options) -> Result<Comparison> {
    let both = Both { a, b };
    let width = width(options.jobs, CHUNK, 2);
    let buffers = Buffers::new(width.in_flight);
    options.progress.begin(both.size());
    let work = |item, stop: &pipeline::Stop<'_>| {
        let Item::Data { range, parts } = item else { return Ok(None) };
        let [left, right] = [a, b].map(|disk| {
            // The plan spans the longer one.
            let parts: Vec<_> = parts
                .iter()
                .map(|&part| disk::clip(part, disk.size()))
                .filter(|part| !part.is_empty())
                .collect();
            read_parts(disk, range, &parts, &buffers, options.rate_limit.as_ref(), stop)
        });
        let (left, right) = (left?, right?);
        options.progress.read(Bytes(parts.iter().map(|part| part.len().0).sum()));
        let at = first_difference(&left, &right);
        buffers.put(left);
        buffers.put(right);
        Ok(at.map(|at| GuestOffset(range.start().0 + at as u64)))
    };
    let mut first = None;
    let take = |difference: Option<GuestOffset>| {
        first = difference;
        Ok(if first.is_some() { Taken::Enough } else { Taken::Done })
    };
    let plan = Plan::new(&both, CHUNK, &options.cancel, &options.progress);
    pipeline::run(plan, width, &options.cancel, work, take, |()| Ok(()))?;
    Ok(Comparison { sizes: (a.size(), b.size()), first_difference: first })
}

/// Index of the first byte that differs in two buffers of one length.
fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    const STEP: usize = 4096;
    let step = a.chunks(STEP).zip(b.chunks(STEP)).position(|(a, b)| a != b)?;
    let (a, b) = (a.get(step * STEP..)?, b.get(step * STEP..)?);
    a.iter().zip(b).position(|(a, b)| a != b).map(|at| step * STEP + at)
}

/// The map of two disks together: data where either has data.
struct Both<'a> {
    a: &'a dyn Disk,
    b: &'a dyn Disk,
}

impl Disk for Both<'_> {
    fn size(&self) -> Bytes {
        self.a.size().max(self.b.size())
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let of = |disk: &dyn Disk| -> Result<Vec<Extent>> {
            let inside = disk::clip(range, disk.size());
            if inside.is_empty() {
                return Ok(vec![Extent { range, kind: ExtentKind::Zero }]);
            }
            disk.extents(inside, at_most)
        };
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let (a, b) = (of(self.a)?, of(self.b)?);
        let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
        let mut out = Vec::new();
        let mut here = range.start();
        while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
            let end = left.range.end().min(right.range.end());
            let data = [left.kind, right.kind].contains(&ExtentKind::Data);
            let kind = if data { ExtentKind::Data } else { ExtentKind::Zero };
            out.push(Extent { range: GuestRange::between(here, end), kind });
            here = end;
            a.next_if(|extent| extent.range.end() <= end);
            b.next_if(|extent| extent.range.end() <= end);
            if out.len() >= at_most.max(1) {
                break;
            }
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        self.a.read_at(at, buf) // never asked: the two are read apart
    }
}
