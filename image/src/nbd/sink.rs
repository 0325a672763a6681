//! A disk written to an export.

use super::client::{Client, ClientOptions};
use super::uri::Uri;
use crate::create::{CreateOptions, Takes};
use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::sink::{Piece, Placed, Receipt, Sink};
use crate::units::{Bytes, FileOffset, GuestOffset, GuestRange};

/// Zeros are found in units of this, or of the server's blocks where those are larger.
const GRANULARITY: Bytes = Bytes::kib(4);

/// Writes a disk of `size` to the start of an export, whose content is lost from the first write on. What the export
/// holds behind `size` stays. An export has no partial name: a run that ends early leaves what it wrote, and one
/// that is repeated writes it again.
///
/// # Errors
/// [`Kind::Refused`](crate::Kind::Refused) where the server takes no writes, the export is smaller than the disk, or
/// an option asks for what an export has not; and whatever [`Client::connect`] fails with.
pub fn create(
    uri: &Uri,
    size: Bytes,
    options: &CreateOptions,
    client: &ClientOptions,
) -> Result<Box<dyn Sink>> {
    options.check(uri.as_path(), "an NBD export", &Takes::default())?;
    let client = Client::connect(uri, client)?;
    let refused = |says: String| Error::refused(says).in_file(uri.as_path());
    if client.is_read_only() {
        return Err(refused("the NBD server takes no writes to this export".into())
            .hint("start the server without its read-only option"));
    }
    if client.size() < size {
        let says = format!("has {} bytes; the disk needs {}", client.size().0, size.0);
        return Err(refused(says).hint("serve a larger disk"));
    }
    Ok(Box::new(Export { client, size }))
}

struct Export {
    client: Client,
    size: Bytes,
}

impl Export {
    /// Where the last whole block of the server's within `range` ends.
    fn whole(&self, range: GuestRange) -> GuestOffset {
        let least = self.client.block_size().0;
        GuestOffset((range.end().0 / least * least).max(range.start().0))
    }

    /// Writes the end of a disk that ends within a block of the server's; what lies behind it stays.
    fn tail(&self, at: GuestOffset, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut block = vec![0; self.client.block_size().to_usize().unwrap_or(usize::MAX)];
        self.client.read_at(at, &mut block)?;
        block.get_mut(..bytes.len()).unwrap_or_default().copy_from_slice(bytes);
        self.client.write_at(at, &block)
    }
}

impl Sink for Export {
    fn granularity(&self) -> Bytes {
        GRANULARITY.max(self.client.block_size())
    }

    fn place(&self, range: GuestRange, _: &[Piece]) -> Result<Vec<Placed>> {
        let len = range.len().to_usize().unwrap_or(usize::MAX);
        Ok(vec![Placed { file: 0, at: FileOffset(range.start().0), len }])
    }

    fn zero(&self, range: GuestRange) -> Result<()> {
        let whole = self.whole(range);
        self.client.zero_at(GuestRange::between(range.start(), whole))?;
        let tail = usize::try_from(range.end().0 - whole.0).unwrap_or(usize::MAX);
        self.tail(whole, &vec![0; tail])
    }

    fn stores_at_once(&self) -> usize {
        usize::MAX
    }

    fn store(&self, to: Placed, bytes: &[u8]) -> Result<()> {
        let range = GuestRange::new(GuestOffset(to.at.0), Bytes(bytes.len() as u64));
        let whole = self.whole(range);
        let (blocks, tail) = bytes.split_at(usize::try_from(whole.0 - range.start().0).unwrap_or(usize::MAX));
        self.client.write_at(range.start(), blocks)?;
        self.tail(whole, tail)
    }

    fn load(&self, from: Placed, bytes: &mut [u8]) -> Result<()> {
        self.client.read_at(GuestOffset(from.at.0), bytes)
    }

    fn finish(self: Box<Self>) -> Result<Receipt> {
        self.client.flush()?;
        Ok(Receipt { files: vec![self.client.uri().as_path().to_owned()], allocated: self.size })
    }
}
