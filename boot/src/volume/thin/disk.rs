//! A thin volume's bytes.

use super::pool::{Place, Pool};
use crate::Result;
use landfall_image::disk::{check_bounds, clip};
use landfall_image::{Bytes, Disk, DiskMut, Extent, ExtentKind, GuestOffset, GuestRange};
use std::sync::Arc;

/// A thin volume as a disk.
pub struct ThinDisk {
    pool: Arc<Pool>,
    device: u32,
    size: Bytes,
    /// What it holds where the pool has nothing, as far as that goes.
    origin: Option<Arc<dyn DiskMut>>,
}

/// A run inside one block of the volume.
#[derive(Clone, Copy)]
struct Run {
    block: u64,
    inside: u64,
    len: u64,
}

impl ThinDisk {
    /// The volume `device` of the pool, with `size` bytes. `origin`, which lies outside of the pool, is never written.
    pub fn new(pool: Arc<Pool>, device: u32, size: Bytes, origin: Option<Arc<dyn DiskMut>>) -> ThinDisk {
        ThinDisk { pool, device, size, origin }
    }

    fn runs(&self, range: GuestRange) -> impl Iterator<Item = Run> + use<> {
        let block_size = self.pool.block_size().0;
        let (mut here, end) = (range.start().0, range.end().0);
        std::iter::from_fn(move || {
            let inside = here % block_size;
            let len = (block_size - inside).min(end.saturating_sub(here));
            let run = Run { block: here / block_size, inside, len };
            here = here.saturating_add(len);
            (len > 0).then_some(run)
        })
    }

    fn start(&self, run: Run) -> u64 {
        run.block.saturating_mul(self.pool.block_size().0).saturating_add(run.inside)
    }

    fn inside(&self, block: u64, run: Run) -> GuestOffset {
        GuestOffset(self.pool.at(block).0.saturating_add(run.inside))
    }

    /// The part of a run that the origin has.
    fn in_origin(&self, run: Run) -> u64 {
        let size = self.origin.as_ref().map_or(0, |origin| origin.size().0);
        size.saturating_sub(self.start(run)).min(run.len)
    }

    /// Does `write`, which fills the run, with its place in a block of the data that only this volume has.
    fn write_run(&self, run: Run, write: impl FnOnce(GuestOffset) -> Result<()>) -> Result<()> {
        let covered = GuestRange::new(GuestOffset(run.inside), Bytes(run.len));
        let mut state = self.pool.lock();
        let block = self.pool.own(&mut state, self.device, run.block, self.origin.as_ref(), covered)?;
        write(self.inside(block, run))
    }
}

impl Disk for ThinDisk {
    fn size(&self) -> Bytes {
        self.size
    }

    fn sector_size(&self) -> Bytes {
        self.pool.data().sector_size()
    }

    fn extents(&self, range: GuestRange, at_most: usize) -> Result<Vec<Extent>> {
        let range = clip(range, self.size);
        let (mut here, mut out) = (range.start(), Vec::<Extent>::new());
        let mut state = self.pool.lock();
        while here < range.end() {
            let rest = GuestRange::between(here, range.end());
            let Some(run) = self.runs(rest).next() else { break };
            let (kind, len) = match state.place(self.device, run.block)? {
                Place::At { .. } => (ExtentKind::Data, run.len),
                Place::Nowhere { .. } if self.in_origin(run) > 0 => (ExtentKind::Data, run.len),
                Place::Nowhere { until } => {
                    let end = until.saturating_mul(self.pool.block_size().0).min(range.end().0);
                    (ExtentKind::Zero, end.saturating_sub(here.0).max(run.len))
                }
            };
            let is_full = out.len() >= at_most.max(1);
            match out.last_mut().filter(|last| last.kind == kind) {
                Some(last) => {
                    last.range = GuestRange::new(last.range.start(), Bytes(last.range.len().0 + len));
                }
                None if is_full => break,
                None => out.push(Extent { range: GuestRange::new(here, Bytes(len)), kind }),
            }
            here = GuestOffset(here.0.saturating_add(len));
        }
        Ok(out)
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        check_bounds(self.size, at, buf.len())?;
        let mut state = self.pool.lock();
        let mut rest = buf;
        for run in self.runs(GuestRange::new(at, Bytes(rest.len() as u64))) {
            let len = Bytes(run.len).to_usize().unwrap_or(0).min(rest.len());
            let (part, behind) = rest.split_at_mut(len);
            rest = behind;
            match (state.place(self.device, run.block)?, &self.origin) {
                (Place::At { block, .. }, _) => self.pool.data().read_at(self.inside(block, run), part)?,
                (Place::Nowhere { .. }, Some(origin)) => {
                    let known = Bytes(self.in_origin(run)).to_usize().unwrap_or(0).min(len);
                    let (known, beyond) = part.split_at_mut(known);
                    if !known.is_empty() {
                        origin.read_at(GuestOffset(self.start(run)), known)?;
                    }
                    beyond.fill(0);
                }
                (Place::Nowhere { .. }, None) => part.fill(0),
            }
        }
        Ok(())
    }
}

impl DiskMut for ThinDisk {
    fn write_at(&self, at: GuestOffset, data: &[u8]) -> Result<()> {
        check_bounds(self.size, at, data.len())?;
        let mut rest = data;
        for run in self.runs(GuestRange::new(at, Bytes(data.len() as u64))) {
            let len = Bytes(run.len).to_usize().unwrap_or(0).min(rest.len());
            let (part, behind) = rest.split_at(len);
            rest = behind;
            self.write_run(run, |place| self.pool.data().write_at(place, part))?;
        }
        self.pool.lock().commit()
    }

    fn zero_at(&self, range: GuestRange) -> Result<()> {
        let range = clip(range, self.size);
        let mut here = range.start();
        while let Some(run) = self.runs(GuestRange::between(here, range.end())).next() {
            let place = self.pool.lock().place(self.device, run.block)?;
            let mut end = here.0.saturating_add(run.len);
            match place {
                // Zeros already, and no reason to take a block.
                Place::Nowhere { until } if self.in_origin(run) == 0 => {
                    end = until.saturating_mul(self.pool.block_size().0).min(range.end().0).max(end);
                }
                _ => self.write_run(run, |place| {
                    self.pool.data().zero_at(GuestRange::new(place, Bytes(run.len)))
                })?,
            }
            here = GuestOffset(end);
        }
        self.pool.lock().commit()
    }

    fn flush(&self) -> Result<()> {
        self.pool.data().flush()?;
        self.pool.lock().flush()
    }
}
