//! Thin logical volumes: segments of the types thin and thin-pool.
//!
//! ```text
//! thin       thin_pool = "pool"  device_id = 1  transaction_id = 0  origin = "…" (of a snapshot)
//!            external_origin = "base" (a volume outside of the pool)  merge = "…" (a snapshot to be merged into it)
//! thin-pool  metadata = "pool_tmeta"  pool = "pool_tdata"  transaction_id = 1  chunk_size = 128 (sectors)
//!            message1 { create = "…" } …: what LVM has not told the kernel yet
//! ```

use super::assembly::{Assembly, Described, NotOpened};
use super::group::is_name;
use super::segments::{chunk, kind, named, number, pieces};
use super::text::{self, Section};
use crate::volume::thin::{Pool, ThinDisk};
use crate::volume::view::Segment;
use landfall_image::{DiskMut, GuestOffset, GuestRange};
use std::collections::BTreeMap;
use std::sync::Arc;

const KIND: &str = "lvm-thin";

fn not(why: impl Into<String>) -> NotOpened {
    (KIND.to_owned(), why.into()).into()
}

/// Of a snapshot that LVM leaves inactive when it activates the group, as it makes them: its origin.
pub(super) fn inactive_of(volume: &Section) -> Option<&str> {
    let flags = volume.get("flags").map_or(&[][..], text::Value::list);
    let is_skipped = flags.iter().any(|flag| flag.text() == Some("ACTIVATION_SKIP"));
    let pieces = pieces(volume);
    let piece = pieces.iter().find(|piece| is_skipped && kind(piece) == "thin")?;
    named(piece, "origin").filter(|origin| is_name(origin))
}

impl<'a> Assembly<'a> {
    /// Opens the thin segment that a volume consists of.
    pub(super) fn thin(
        &mut self,
        piece: &'a Section,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
        depth: usize,
    ) -> Result<Vec<Segment>, NotOpened> {
        if let Some(snapshot) = named(piece, "merge") {
            return Err(not(format!("the snapshot {snapshot} is being merged into it")));
        }
        let len = self.length(piece);
        let device = number(piece, "device_id").and_then(|id| u32::try_from(id).ok());
        let (Some(len), Some(device), Some(pool)) = (len, device, named(piece, "thin_pool")) else {
            return Err(not("its metadata tell no place in a pool"));
        };
        let name = pool;
        let pool = self.pool(name, physical, oddities, depth)?;
        if !pool.has(device).map_err(|error| NotOpened::by(KIND, &error))? {
            return Err(not(format!("its pool {name} has no device {device}")));
        }
        let origin = match named(piece, "external_origin") {
            None => None,
            Some(origin) => Some(self.part(origin, physical, oddities, depth + 1)? as Arc<dyn DiskMut>),
        };
        let disk = ThinDisk::new(pool, device, len, origin);
        Ok(vec![Segment::linear(Arc::new(disk), GuestRange::new(GuestOffset(0), len))])
    }

    /// The pool of that name, opened once for all its volumes.
    fn pool(
        &mut self,
        name: &'a str,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
        depth: usize,
    ) -> Result<Arc<Pool>, NotOpened> {
        if let Some(known) = self.pools.get(name) {
            return known.clone();
        }
        let opened = self.open_pool(name, physical, oddities, depth);
        self.pools.insert(name, opened.clone());
        opened
    }

    fn open_pool(
        &mut self,
        name: &str,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
        depth: usize,
    ) -> Result<Arc<Pool>, NotOpened> {
        let section = self.hidden(name).ok_or_else(|| not(format!("its pool {name} is absent")))?;
        let pool_pieces = pieces(section);
        let [piece] = pool_pieces.as_slice() else { return Err(not(format!("{name} is no thin pool"))) };
        let (Some(metadata), Some(data)) = (named(piece, "metadata"), named(piece, "pool")) else {
            return Err(not(format!("{name} is a {}, and no thin pool", kind(piece))));
        };
        let metadata = self.part(metadata, physical, oddities, depth)?;
        let data = self.part(data, physical, oddities, depth)?;
        let shown = format!("{}/{name}", self.metadata.name);
        let pool = Pool::open(&shown, metadata, data).map_err(|error| NotOpened::by(KIND, &error))?;
        if chunk(piece, "chunk_size").is_some_and(|chunk| chunk != pool.block_size()) {
            let own = pool.block_size();
            return Err(not(format!(
                "LVM and the pool {name} do not agree on the size of its blocks ({own})"
            )));
        }
        // LVM raises its count first, and tells the kernel what is to be done when the pool is started.
        let wanted = number(piece, "transaction_id").unwrap_or(0);
        let is_behind = piece.contains_key("message1") && pool.transaction().checked_add(1) == Some(wanted);
        if pool.transaction() != wanted && !is_behind {
            return Err(NotOpened {
                hint: Some("repair it in the source machine (lvconvert --repair, or vgcfgrestore), then convert again".into()),
                ..not(format!(
                    "LVM counts {wanted} changes of its pool {name}, and the pool itself {}",
                    pool.transaction()
                ))
            });
        }
        Ok(Arc::new(pool))
    }
}
