//! Checks the structures of a VDI file.

use super::header::Kind;
use super::read_header;
use super::reader::Vdi;
use crate::check::{Checked, Severity};
use crate::error::{Kind as ErrorKind, Result};
use crate::gate::Gate;
use crate::source::Source;
use crate::units::Bytes;

/// Checks the header and the block map: entries outside of the file, blocks used twice, blocks that nothing uses,
/// and the header's count of blocks.
pub fn check(source: Source, _gate: &Gate) -> Result<Checked> {
    let mut checked = Checked::default();
    let len = source.len().0;
    let opened = read_header(&source).and_then(|header| Vdi::unchecked(source, header));
    let vdi = match opened {
        Ok(vdi) => vdi,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            checked.add(Severity::Corrupt, error.says(), error.offset());
            return Ok(checked);
        }
        Err(error) => return Err(error),
    };
    let header = vdi.header().clone();
    let mut stored = 0u64;
    vdi.walk(&mut |_, _, found| match found {
        Ok(place) => {
            stored += u64::from(place.is_some());
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            checked.add(Severity::Corrupt, error.says(), error.offset());
            Ok(())
        }
        Err(error) => Err(error),
    })?;
    checked.allocated = Bytes(stored.saturating_mul(header.block_size_bytes).min(header.size_bytes));
    if stored != u64::from(header.blocks_stored) {
        let says = format!("the header counts {} stored blocks; the map has {stored}", header.blocks_stored);
        checked.add(Severity::Note, says, None);
    }
    let in_file = len.saturating_sub(header.data_offset) / header.block_size_bytes;
    if in_file > stored && header.kind != Kind::Fixed {
        let says = format!("{} blocks in the file are not used", in_file - stored);
        checked.add(Severity::Leak, says, None);
    }
    Ok(checked)
}
