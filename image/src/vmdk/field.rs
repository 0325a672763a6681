//! Little-endian fields of one-sector structures; that a field lies inside the sector is checked when compiling.

/// One 512-byte sector of metadata.
pub(super) type Sector = [u8; 512];

/// The 16-bit field at byte `AT`.
pub(super) fn le16<const AT: usize>(sector: &Sector) -> u16 {
    u16::from_le_bytes(bytes::<AT, 2>(sector))
}

/// The 32-bit field at byte `AT`.
pub(super) fn le32<const AT: usize>(sector: &Sector) -> u32 {
    u32::from_le_bytes(bytes::<AT, 4>(sector))
}

/// The 64-bit field at byte `AT`.
pub(super) fn le64<const AT: usize>(sector: &Sector) -> u64 {
    u64::from_le_bytes(bytes::<AT, 8>(sector))
}

/// The `N` bytes at byte `AT`.
pub(super) fn bytes<const AT: usize, const N: usize>(sector: &Sector) -> [u8; N] {
    const { assert!(AT + N <= 512, "the field lies inside the sector") };
    let mut out = [0; N];
    out.copy_from_slice(&sector[AT..AT + N]);
    out
}
