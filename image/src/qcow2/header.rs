//! The header and its extensions: "Header" and "Header extensions" in the specification. All numbers are big-endian.
//!
//! ```text
//!   0  magic "QFI\xfb"          | 4  version (2, 3)
//!   8  backing file name at                                       | 16  its length | 20  cluster bits
//!  24  virtual size in bytes    | 32 encryption | 36 L1 entries   | 40  L1 table at
//!  48  refcount table at        | 56 its clusters | 60 snapshots  | 64  snapshot table at
//!  -- version 3 --
//!  72  incompatible features    | 80 compatible features          | 88  autoclear features
//!  96  refcount order           | 100 header length               | 104 compression type, 7 bytes of padding
//! then extensions (type, length, data padded to 8) up to type 0, then the backing file name: all in cluster 0
//! ```

use crate::create::Compression;
use crate::error::{Error, Result};
use crate::units::{Bytes, FileOffset};

/// The first four bytes of every qcow image.
pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Where each field lies.
pub(super) mod at {
    pub const VERSION: usize = 4;
    pub const BACKING_OFFSET: usize = 8;
    pub const BACKING_LEN: usize = 16;
    pub const CLUSTER_BITS: usize = 20;
    pub const SIZE: usize = 24;
    pub const CRYPT_METHOD: usize = 32;
    pub const L1_ENTRIES: usize = 36;
    pub const L1_OFFSET: usize = 40;
    pub const REFCOUNT_TABLE_OFFSET: usize = 48;
    pub const REFCOUNT_TABLE_CLUSTERS: usize = 56;
    pub const SNAPSHOTS: usize = 60;
    pub const SNAPSHOTS_OFFSET: usize = 64;
    pub const V2_END: usize = 72;
    pub const INCOMPATIBLE: usize = 72;
    pub const COMPATIBLE: usize = 80;
    pub const AUTOCLEAR: usize = 88;
    pub const REFCOUNT_ORDER: usize = 96;
    pub const HEADER_LENGTH: usize = 100;
    pub const COMPRESSION_TYPE: usize = 104;
    /// A version 3 header without the optional fields.
    pub const V3_END: usize = 104;
    /// A version 3 header with the compression type and its padding.
    pub const V3_FULL: usize = 112;
}

const _: () = assert!(at::V2_END == at::SNAPSHOTS_OFFSET + 8 && at::INCOMPATIBLE == at::V2_END);
const _: () = assert!(at::V3_END == at::HEADER_LENGTH + 4 && at::V3_FULL == at::COMPRESSION_TYPE + 8);

/// Features without which an image must not be read.
pub(super) mod incompatible {
    pub const DIRTY: u64 = 1 << 0;
    pub const CORRUPT: u64 = 1 << 1;
    pub const EXTERNAL_DATA: u64 = 1 << 2;
    pub const COMPRESSION_TYPE: u64 = 1 << 3;
    pub const EXTENDED_L2: u64 = 1 << 4;
    pub const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
}

/// Reference counts are only brought up to date when the image is closed.
const COMPATIBLE_LAZY_REFCOUNTS: u64 = 1;
/// The persistent bitmaps are as new as the data.
const AUTOCLEAR_BITMAPS: u64 = 1;
/// The external data file alone is a raw image of the same content.
const AUTOCLEAR_RAW_EXTERNAL: u64 = 1 << 1;

/// Types of header extensions.
mod extension {
    pub const END: u32 = 0;
    pub const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub const FEATURE_NAMES: u32 = 0x6803_f857;
    pub const LUKS: u32 = 0x0537_be77;
    pub const BITMAPS: u32 = 0x2385_2875;
    pub const EXTERNAL_DATA: u32 = 0x4441_5441;
}

/// The encryption method that is read.
const LUKS: u32 = 2;

/// Smallest and largest cluster: 512 bytes (the specification) and 2 MiB (QEMU).
pub(super) const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// QEMU's own bound for the backing file's name.
const BACKING_NAME_LEN: u32 = 1023;

/// What the header says, checked against itself but not yet against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Base-two logarithm of the cluster size in bytes: 9 to 21.
    pub cluster_bits: u32,
    /// Size of the disk.
    pub size: Bytes,
    /// Entries of the L1 table; those past the disk's end belong to saved machine state.
    pub l1_entries: u32,
    /// Where the L1 table lies: a multiple of the cluster size, not 0 unless the table is empty.
    pub l1_table: FileOffset,
    /// Base-two logarithm of the bits of a reference count: 0 to 6.
    pub refcount_order: u32,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Where their table lies.
    pub snapshot_table: FileOffset,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// L2 entries are 16 bytes and describe 32 subclusters.
    pub extended_l2: bool,
    /// Reference counts may be out of date: the writer did not close the image.
    pub dirty: bool,
    /// Reference counts are allowed to be out of date while the image is open.
    pub lazy_refcounts: bool,
    /// Data clusters lie in another file, and where: by its name, unless the image does not say.
    pub external_data: Option<Option<String>>,
    /// Every cluster of the external file lies where it lies on the disk.
    pub raw_external: bool,
    /// Name of the backing file.
    pub backing_file: Option<String>,
    /// Format of the backing file, by QEMU's name.
    pub backing_format: Option<String>,
    /// Where the directory of persistent dirty bitmaps lies.
    pub bitmaps: Option<Bitmaps>,
    /// Where the LUKS header of an encrypted image lies, and its length.
    pub luks: Option<(FileOffset, Bytes)>,
    /// Where the refcount table lies, and how many clusters it has.
    pub refcount_table: FileOffset,
    pub refcount_table_clusters: u32,
    /// QEMU has marked the image as corrupt.
    pub corrupt: bool,
}

/// The directory of persistent dirty bitmaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bitmaps {
    pub count: u32,
    pub directory: FileOffset,
    pub directory_len: Bytes,
    /// False where a program that does not know bitmaps has written to the image since.
    pub up_to_date: bool,
}

impl Header {
    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }
}

/// What the extensions say.
#[derive(Default)]
struct Extensions {
    backing_format: Option<String>,
    external_data: Option<String>,
    /// Count, length and place of the directory.
    bitmaps: Option<(u32, u64, u64)>,
    /// Place and length.
    luks: Option<(u64, u64)>,
    /// Feature type, bit and name.
    feature_names: Vec<(u8, u8, String)>,
}

/// The cluster size that the header claims, in bytes, for reading the whole of cluster 0.
pub(super) fn cluster_size(head: &[u8]) -> Result<u64> {
    let bits = u32_at(head, at::CLUSTER_BITS)?;
    if CLUSTER_BITS.contains(&bits) {
        return Ok(1 << bits);
    }
    let says =
        format!("cluster bits {bits}; {} to {} are possible", CLUSTER_BITS.start(), CLUSTER_BITS.end());
    Err(Error::corrupt(says).at(FileOffset(at::CLUSTER_BITS as u64)))
}

/// Parses the header from cluster 0 (all of it, or all that a shorter file has).
pub(super) fn parse(head: &[u8]) -> Result<Header> {
    if head.get(..4) != Some(MAGIC.as_slice()) {
        return Err(Error::corrupt("does not start with the qcow2 magic").at(FileOffset(0)));
    }
    let version = u32_at(head, at::VERSION)?;
    if !(2..=3).contains(&version) {
        return Err(Error::unsupported(format!("is qcow version {version}; 2 and 3 are read"))
            .at(FileOffset(at::VERSION as u64)));
    }
    let cluster_size = cluster_size(head)?;
    let v3 = version == 3;
    let (incompatible, compatible, autoclear, refcount_order, header_length) = if v3 {
        (
            u64_at(head, at::INCOMPATIBLE)?,
            u64_at(head, at::COMPATIBLE)?,
            u64_at(head, at::AUTOCLEAR)?,
            u32_at(head, at::REFCOUNT_ORDER)?,
            u32_at(head, at::HEADER_LENGTH)? as usize,
        )
    } else {
        (0, 0, 0, 4, at::V2_END)
    };
    if v3 && (header_length < at::V3_END || header_length as u64 > cluster_size || header_length % 8 != 0) {
        return Err(field(
            at::HEADER_LENGTH,
            format!(
                "header length {header_length}; a multiple of 8 from {} to {cluster_size} is possible",
                at::V3_END
            ),
        ));
    }
    let backing_offset = u64_at(head, at::BACKING_OFFSET)?;
    // The extensions decide nothing before encryption and unknown features are refused by name.
    let extensions = parse_extensions(head, header_length, backing_offset, cluster_size);

    let crypt_method = u32_at(head, at::CRYPT_METHOD)?;
    if !matches!(crypt_method, 0 | LUKS) {
        let method = if crypt_method == 1 { "AES".to_owned() } else { format!("method {crypt_method}") };
        return Err(Error::unsupported(format!("is encrypted ({method}); LUKS is read"))
            .at(FileOffset(at::CRYPT_METHOD as u64))
            .hint(
                "decrypt it into a new image with its passphrase: qemu-img convert --object \
                 secret,id=key,file=PASSPHRASE_FILE --image-opts \
                 driver=qcow2,encrypt.key-secret=key,file.filename=IMAGE -O qcow2 NEW_IMAGE",
            ));
    }
    let unknown = incompatible & !incompatible::KNOWN;
    if unknown != 0 {
        let names = extensions.as_ref().map_or(&[][..], |extensions| &extensions.feature_names);
        return Err(Error::unsupported(format!(
            "needs features that are not handled: {}",
            name_bits(unknown, names)
        ))
        .at(FileOffset(at::INCOMPATIBLE as u64))
        .hint("convert it with the QEMU that wrote it: qemu-img convert -O qcow2"));
    }
    let extensions = extensions?;
    if refcount_order > 6 {
        return Err(field(
            at::REFCOUNT_ORDER,
            format!("refcount order {refcount_order}; 0 to 6 are possible"),
        ));
    }
    let extended_l2 = incompatible & incompatible::EXTENDED_L2 != 0;
    if extended_l2 && cluster_size < 1 << 14 {
        return Err(field(
            at::INCOMPATIBLE,
            format!("extended L2 entries with clusters of {cluster_size} bytes; at least 16384 are needed"),
        ));
    }
    let compression = compression(head, header_length, incompatible)?;

    let l1_entries = u32_at(head, at::L1_ENTRIES)?;
    let l1_table = u64_at(head, at::L1_OFFSET)?;
    if l1_entries > 0 && (l1_table == 0 || l1_table % cluster_size != 0) {
        return Err(field(
            at::L1_OFFSET,
            format!(
                "the L1 table lies at {l1_table:#x}; it must lie on a multiple of {cluster_size:#x} behind the header"
            ),
        ));
    }
    let snapshots = u32_at(head, at::SNAPSHOTS)?;
    let snapshot_table = u64_at(head, at::SNAPSHOTS_OFFSET)?;
    if snapshots > 0 && (snapshot_table == 0 || snapshot_table % cluster_size != 0) {
        return Err(field(
            at::SNAPSHOTS_OFFSET,
            format!(
                "the snapshot table lies at {snapshot_table:#x}; it must lie on a multiple of {cluster_size:#x} behind the header"
            ),
        ));
    }
    let luks = match (crypt_method, extensions.luks) {
        (LUKS, Some((place, len))) => Some((FileOffset(place), Bytes(len))),
        (LUKS, None) => {
            return Err(field(
                at::CRYPT_METHOD,
                "is encrypted with LUKS, but says nowhere where its keys are".into(),
            ));
        }
        _ => None,
    };
    let bitmaps = extensions.bitmaps.map(|(count, len, place)| Bitmaps {
        count,
        directory: FileOffset(place),
        directory_len: Bytes(len),
        up_to_date: autoclear & AUTOCLEAR_BITMAPS != 0,
    });
    let external = incompatible & incompatible::EXTERNAL_DATA != 0;
    Ok(Header {
        version,
        cluster_bits: cluster_size.trailing_zeros(),
        size: Bytes(u64_at(head, at::SIZE)?),
        l1_entries,
        l1_table: FileOffset(l1_table),
        refcount_order,
        snapshots,
        snapshot_table: FileOffset(snapshot_table),
        compression,
        extended_l2,
        dirty: incompatible & incompatible::DIRTY != 0,
        lazy_refcounts: compatible & COMPATIBLE_LAZY_REFCOUNTS != 0,
        raw_external: external && autoclear & AUTOCLEAR_RAW_EXTERNAL != 0,
        external_data: external.then_some(extensions.external_data),
        backing_file: backing_file(head, backing_offset, header_length, cluster_size)?,
        backing_format: extensions.backing_format,
        bitmaps,
        luks,
        refcount_table: FileOffset(u64_at(head, at::REFCOUNT_TABLE_OFFSET)?),
        refcount_table_clusters: u32_at(head, at::REFCOUNT_TABLE_CLUSTERS)?,
        corrupt: incompatible & incompatible::CORRUPT != 0,
    })
}

fn compression(head: &[u8], header_length: usize, incompatible: u64) -> Result<Compression> {
    let number = if header_length > at::COMPRESSION_TYPE {
        *head.get(at::COMPRESSION_TYPE).ok_or_else(|| short(head, at::V3_FULL))?
    } else {
        0
    };
    let flagged = incompatible & incompatible::COMPRESSION_TYPE != 0;
    match (number, flagged) {
        (0, false) => Ok(Compression::Zlib),
        (1, true) => Ok(Compression::Zstd),
        (0 | 1, _) => Err(field(
            at::COMPRESSION_TYPE,
            format!("compression type {number} contradicts the feature bit, which is {}", u8::from(flagged)),
        )),
        (other, _) => {
            Err(Error::unsupported(format!("compression type {other}; 0 (deflate) and 1 (zstd) are read"))
                .at(FileOffset(at::COMPRESSION_TYPE as u64)))
        }
    }
}

fn backing_file(head: &[u8], offset: u64, header_length: usize, cluster_size: u64) -> Result<Option<String>> {
    if offset == 0 {
        return Ok(None);
    }
    let len = u32_at(head, at::BACKING_LEN)?;
    let end = offset.checked_add(u64::from(len)).filter(|&end| end <= cluster_size);
    if len > BACKING_NAME_LEN || end.is_none() || offset < header_length as u64 {
        return Err(field(
            at::BACKING_OFFSET,
            format!(
                "the backing file's name is {len} bytes at {offset:#x}; up to {BACKING_NAME_LEN} bytes between the \
                 header ({header_length:#x}) and the end of its cluster ({cluster_size:#x}) are possible"
            ),
        ));
    }
    if len == 0 {
        return Ok(None);
    }
    let start = usize::try_from(offset).unwrap_or(usize::MAX);
    let name = start
        .checked_add(len as usize)
        .and_then(|end| head.get(start..end))
        .ok_or_else(|| short(head, start.saturating_add(len as usize)))?;
    text(name, "the backing file's name", start).map(Some)
}

fn parse_extensions(
    head: &[u8],
    header_length: usize,
    backing_offset: u64,
    cluster_size: u64,
) -> Result<Extensions> {
    let mut out = Extensions::default();
    let end = if backing_offset == 0 { cluster_size } else { backing_offset.min(cluster_size) };
    let end = usize::try_from(end).unwrap_or(usize::MAX);
    let mut here = header_length;
    while here.checked_add(8).is_some_and(|next| next <= end) {
        let kind = u32_at(head, here)?;
        let len = u32_at(head, here + 4)? as usize;
        if kind == extension::END {
            break;
        }
        let start = here + 8;
        if len > end - start {
            return Err(field(
                here,
                format!("header extension {kind:#010x} is {len} bytes long; {} are left for it", end - start),
            ));
        }
        let data = head.get(start..start + len).ok_or_else(|| short(head, start + len))?;
        match kind {
            extension::BACKING_FORMAT => {
                out.backing_format = Some(text(data, "the backing file's format", start)?);
            }
            extension::EXTERNAL_DATA => {
                out.external_data = Some(text(data, "the external data file's name", start)?);
            }
            extension::BITMAPS => {
                let bitmaps = (|| Ok((u32_at(data, 0)?, u64_at(data, 8)?, u64_at(data, 16)?)))();
                out.bitmaps = Some(bitmaps.map_err(|e: Error| e.at(FileOffset(start as u64)))?);
            }
            extension::LUKS => {
                let luks = (|| Ok((u64_at(data, 0)?, u64_at(data, 8)?)))();
                out.luks = Some(luks.map_err(|e: Error| e.at(FileOffset(start as u64)))?);
            }
            extension::FEATURE_NAMES => {
                // Only the 64 bits of three kinds can be named; more entries say nothing.
                for entry in data.as_chunks::<48>().0.iter().take(192) {
                    let name = entry[2..].split(|&byte| byte == 0).next().unwrap_or_default();
                    out.feature_names.push((entry[0], entry[1], String::from_utf8_lossy(name).into_owned()));
                }
            }
            // The specification: unknown extensions are ignored; what must not be is an incompatible feature.
            _ => {}
        }
        here = start + len.next_multiple_of(8);
    }
    Ok(out)
}

/// What a new image's header says: version 3, reference counts of 16 bits.
#[derive(Clone, Debug)]
pub(super) struct NewHeader {
    pub cluster_bits: u32,
    /// A multiple of 512.
    pub size: Bytes,
    pub l1_entries: u32,
    pub l1_table: FileOffset,
    pub refcount_table: FileOffset,
    pub refcount_table_clusters: u32,
    pub compression: Compression,
    pub extended_l2: bool,
    /// The backing file's name, and its format by QEMU's name.
    pub backing: Option<(String, &'static str)>,
}

/// Names of features for readers that do not know them: kind, bit, name. They fit a header cluster of 512 bytes.
const FEATURE_NAMES: [(u8, u8, &str); 6] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
];

const FEATURE_NAMES_LEN: u32 = 6 * 48;
const _: () = assert!(FEATURE_NAMES.len() * 48 == FEATURE_NAMES_LEN as usize);

/// The bytes of a header with its extensions and the backing file's name; zeros follow up to the end of the cluster.
/// The names of features go first where the cluster has no room for all.
pub(super) fn build(new: &NewHeader) -> Result<Vec<u8>> {
    let fits = |head: &Vec<u8>| head.len() <= 1 << new.cluster_bits;
    let heads = [true, false].into_iter().map(|names| build_with(new, names));
    let name = new.backing.as_ref().map_or("", |(name, _)| name);
    let head = heads.into_iter().find(fits).filter(|_| name.len() <= BACKING_NAME_LEN as usize);
    head.ok_or_else(|| {
        Error::refused(format!(
            "its base's name is {} bytes long; the header has no room for it in clusters of {} bytes",
            name.len(),
            1u64 << new.cluster_bits
        ))
        .hint("choose larger clusters, or put the image beside its base and name it without folders")
    })
}

fn build_with(new: &NewHeader, feature_names: bool) -> Vec<u8> {
    let mut head = vec![0; at::V3_FULL];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(at::VERSION, &3u32.to_be_bytes());
    put(at::CLUSTER_BITS, &new.cluster_bits.to_be_bytes());
    put(at::SIZE, &new.size.0.to_be_bytes());
    put(at::L1_ENTRIES, &new.l1_entries.to_be_bytes());
    put(at::L1_OFFSET, &new.l1_table.0.to_be_bytes());
    put(at::REFCOUNT_TABLE_OFFSET, &new.refcount_table.0.to_be_bytes());
    put(at::REFCOUNT_TABLE_CLUSTERS, &new.refcount_table_clusters.to_be_bytes());
    put(at::REFCOUNT_ORDER, &4u32.to_be_bytes());
    put(at::HEADER_LENGTH, &112u32.to_be_bytes());
    let mut features = 0;
    if new.compression == Compression::Zstd {
        features |= incompatible::COMPRESSION_TYPE;
        put(at::COMPRESSION_TYPE, &[1]);
    }
    if new.extended_l2 {
        features |= incompatible::EXTENDED_L2;
    }
    put(at::INCOMPATIBLE, &features.to_be_bytes());
    if let Some((_, format)) = &new.backing {
        // QEMU's names of formats are a few bytes.
        head.extend(extension::BACKING_FORMAT.to_be_bytes());
        head.extend(u32::try_from(format.len()).unwrap_or(0).to_be_bytes());
        head.extend(format.bytes());
        head.resize(head.len().next_multiple_of(8), 0);
    }
    if feature_names {
        head.extend(extension::FEATURE_NAMES.to_be_bytes());
        head.extend(FEATURE_NAMES_LEN.to_be_bytes());
        for (kind, bit, name) in FEATURE_NAMES {
            let start = head.len();
            head.extend([kind, bit]);
            head.extend(name.bytes());
            head.resize(start + 48, 0);
        }
    }
    head.extend([0; 8]); // the end of the extensions
    if let Some((name, _)) = &new.backing {
        let start = head.len() as u64;
        head[at::BACKING_OFFSET..][..8].copy_from_slice(&start.to_be_bytes());
        let len = u32::try_from(name.len()).unwrap_or(u32::MAX);
        head[at::BACKING_LEN..][..4].copy_from_slice(&len.to_be_bytes());
        head.extend(name.bytes());
    }
    head
}

fn name_bits(bits: u64, names: &[(u8, u8, String)]) -> String {
    let one = |bit: u8| match names.iter().find(|(kind, named, _)| *kind == 0 && *named == bit) {
        Some((_, _, name)) => format!("{name:?} (bit {bit})"),
        None => format!("bit {bit}"),
    };
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(one).collect::<Vec<_>>().join(", ")
}

fn text(bytes: &[u8], what: &str, start: usize) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| {
        Error::unsupported(format!("{what} is not UTF-8: {:?}", String::from_utf8_lossy(bytes)))
            .at(FileOffset(start as u64))
    })
}

fn field(at: usize, says: String) -> Error {
    Error::corrupt(says).at(FileOffset(at as u64))
}

fn short(head: &[u8], wanted: usize) -> Error {
    Error::corrupt(format!("the header is cut off: it needs {wanted} bytes, the file ends at {}", head.len()))
        .at(FileOffset(head.len() as u64))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    match at.checked_add(4).and_then(|end| bytes.get(at..end)) {
        Some(&[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(short(bytes, at.saturating_add(4))),
    }
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    Ok(u64::from(u32_at(bytes, at)?) << 32 | u64::from(u32_at(bytes, at.saturating_add(4))?))
}

#[cfg(test)]
mod tests;
