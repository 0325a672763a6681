//! Cached logical volumes: segments of the types cache and cache-pool.
//!
//! ```text
//! cache       cache_pool = "fast_cpool"  origin = "root_corig"
//! cache-pool  data = "fast_cpool_cdata"  metadata = "fast_cpool_cmeta"  chunk_size = 128 (sectors)
//! cache, with one volume for both (CACHE_USES_CACHEVOL in its type)
//!             cache_pool = "fast_cvol"  metadata_start, metadata_len, data_start, data_len (sectors)
//! ```
//! Deliberately absent: writecache, whose log is another format.

use super::assembly::{Assembly, Described, NotOpened};
use super::segments::{chunk, named, number, pieces};
use super::text::Section;
use crate::volume::cache::Cached;
use crate::volume::view::{Segment, View};
use landfall_image::{Disk, DiskMut, GuestOffset, GuestRange, Sectors};
use std::collections::BTreeMap;
use std::sync::Arc;

const KIND: &str = "lvm-cache";

fn not(why: impl Into<String>) -> NotOpened {
    (KIND.to_owned(), why.into()).into()
}

impl<'a> Assembly<'a> {
    /// Opens the cached segment that a volume consists of.
    pub(super) fn cache(
        &mut self,
        piece: &'a Section,
        physical: &BTreeMap<&str, Described<'_>>,
        oddities: &mut Vec<(String, &'static str)>,
        depth: usize,
    ) -> Result<Vec<Segment>, NotOpened> {
        let (Some(pool), Some(origin)) = (named(piece, "cache_pool"), named(piece, "origin")) else {
            return Err(not("its metadata tell no cache"));
        };
        let origin = self.part(origin, physical, oddities, depth)?;
        let (metadata, fast, size_of_block) = if piece.contains_key("metadata_start") {
            let both = self.part(pool, physical, oddities, depth)? as Arc<dyn DiskMut>;
            let part = |name: &str| {
                let field = |end: &str| Sectors(number(piece, &format!("{name}_{end}"))?).to_bytes();
                let range = GuestRange::new(GuestOffset(field("start")?.0), field("len")?);
                View::part(both.clone(), range).ok().map(Arc::new)
            };
            let (Some(metadata), Some(fast)) = (part("metadata"), part("data")) else {
                return Err(not(format!("its cache passes the end of the volume {pool}")));
            };
            (metadata, fast, chunk(piece, "chunk_size"))
        } else {
            let section = self.hidden(pool).ok_or_else(|| not(format!("its cache {pool} is absent")))?;
            let pool_pieces = pieces(section);
            let [pool_piece] = pool_pieces.as_slice() else {
                return Err(not(format!("{pool} is no cache")));
            };
            let (Some(metadata), Some(data)) = (named(pool_piece, "metadata"), named(pool_piece, "data"))
            else {
                return Err(not(format!("{pool} is no cache")));
            };
            let metadata = self.part(metadata, physical, oddities, depth)?;
            let fast = self.part(data, physical, oddities, depth)?;
            (metadata, fast, chunk(pool_piece, "chunk_size"))
        };
        let size = origin.size();
        let cached = Cached::open(metadata, fast, origin).map_err(|error| NotOpened::by(KIND, &error))?;
        if size_of_block.is_some_and(|size| size != cached.block_size()) {
            return Err(not("LVM and its cache do not agree on the size of a block"));
        }
        Ok(vec![Segment::linear(Arc::new(cached), GuestRange::new(GuestOffset(0), size))])
    }
}
