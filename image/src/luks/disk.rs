//! A LUKS volume as a disk: the payload, decrypted.

use super::{MAGIC, SECTOR, SectorCipher, Unlocked, unlock};
use crate::chain::Layer;
use crate::disk::{self, Disk, Extent, ExtentKind};
use crate::error::{Error, Result};
use crate::formats::OpenOptions;
use crate::source::Source;
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};
use std::sync::Arc;

/// True where the file says that it is a LUKS volume. A partition with one is a raw image to its guest, but a whole
/// disk has no other place for its partition table: to read such a disk as it is, say that it is raw.
pub fn probe(source: &Source) -> Result<bool> {
    Ok(source.head(MAGIC.len())? == MAGIC)
}

/// Opens the volume with the key of `options`.
///
/// # Errors
/// As the header has it; [`Kind::Refused`](crate::Kind::Refused) without the key.
pub fn open(source: Source, options: &OpenOptions) -> Result<Layer> {
    let here = source.path().to_owned();
    let opened = unlock(&source, options.key.as_ref()).and_then(|unlocked| open_unlocked(source, unlocked));
    opened
        .map_err(|error| match options.key {
            // Without a key, raw is the other way to read it.
            None if error.kind() == crate::Kind::Refused => {
                let hint = error.hint_text().unwrap_or_default().to_owned();
                error.hint(format!("{hint}; or say -f raw to copy it encrypted as it is"))
            }
            _ => error,
        })
        .map_err(|error| error.in_file(&here))
}

fn open_unlocked(source: Source, unlocked: Unlocked) -> Result<Layer> {
    let Unlocked { cipher, payload_at, payload_len, iv_tweak, mut details } = unlocked;
    let end = source.len().0;
    let rest = end.checked_sub(payload_at).ok_or_else(|| {
        Error::corrupt(format!("the encrypted data begins at {payload_at:#x}; the file ends at {end:#x}"))
            .hint("the image is cut off: copy it again from its origin and compare the sizes")
    })?;
    let sector = cipher.sector_size() as u64;
    let len = payload_len.unwrap_or(rest / sector * sector);
    if len % sector != 0 {
        return Err(Error::corrupt(format!(
            "{len} bytes of encrypted data are no whole sectors of {sector}"
        )));
    }
    let payload = source.window(FileOffset(payload_at), Bytes(len))?;
    details.push(("payload offset".to_owned(), Bytes(payload_at).to_string()));
    Ok(Layer {
        disk: Arc::new(Decrypted { payload, cipher, iv_tweak }),
        parent: None,
        identity: None,
        variant: "luks".to_owned(),
        details,
        extents: Vec::new(),
    })
}

struct Decrypted {
    payload: Source,
    cipher: SectorCipher,
    iv_tweak: u64,
}

impl Disk for Decrypted {
    fn size(&self) -> Bytes {
        self.payload.len()
    }

    /// All of it is data: a hole of the file is zeros that were never encrypted, so it is not zeros to the guest.
    fn extents(&self, range: GuestRange, _at_most: usize) -> Result<Vec<Extent>> {
        let range = disk::clip(range, self.size());
        let all = Extent { range, kind: ExtentKind::Data };
        Ok(if range.is_empty() { Vec::new() } else { vec![all] })
    }

    fn read_at(&self, at: GuestOffset, buf: &mut [u8]) -> Result<()> {
        disk::check_bounds(self.size(), at, buf.len())?;
        read_decrypted(&self.payload, &self.cipher, at.0, buf, self.iv_tweak)
    }
}

/// Fills `buf` from `at` of `source`, whose sectors are encrypted and numbered from its start, from `iv_tweak` on.
pub(crate) fn read_decrypted(
    source: &Source,
    cipher: &SectorCipher,
    at: u64,
    buf: &mut [u8],
    iv_tweak: u64,
) -> Result<()> {
    let sector = cipher.sector_size();
    let number = |at: u64| (at / SECTOR as u64).wrapping_add(iv_tweak);
    let piece = |at: u64, buf: &mut [u8]| -> Result<()> {
        source.read_exact_at(FileOffset(at), buf)?;
        cipher.decrypt(number(at), buf);
        Ok(())
    };
    // Parts of sectors at the ends by way of a sector, whole ones where they belong.
    let part = |at: u64, skip: usize, out: &mut [u8]| -> Result<()> {
        let mut whole = zeroize::Zeroizing::new([0; 4096]);
        let whole = &mut whole[..sector];
        piece(at, whole)?;
        out.copy_from_slice(&whole[skip..skip + out.len()]);
        Ok(())
    };
    let skip = usize::try_from(at % sector as u64).unwrap_or(0);
    let first = if skip == 0 { 0 } else { (sector - skip).min(buf.len()) };
    let (begin, rest) = buf.split_at_mut(first);
    let (middle, end) = rest.split_at_mut(rest.len() / sector * sector);
    if !begin.is_empty() {
        part(at - skip as u64, skip, begin)?;
    }
    let middle_at = at + begin.len() as u64;
    let end_at = middle_at + middle.len() as u64;
    if !end.is_empty() {
        part(end_at, 0, end)?;
    }
    if middle.is_empty() { Ok(()) } else { piece(middle_at, middle) }
}
