//! Arrays of numbers and bits, in blocks that a tree finds.

use super::store::{BLOCK, Sort, Store, set, wrong};
use super::tree::find;
use crate::Result;
use crate::volume::field::{le32, le64};
use std::ops::Range;
use std::sync::Arc;

const HEADER: usize = 24;
/// Numbers of 64 bits that one block has room for.
const PER_BLOCK: u64 = ((BLOCK - HEADER) / 8) as u64;

/// One block of an array: its number, and how many entries it has.
fn block_of(store: &mut Store, root: u64, index: u64) -> Result<(u64, Arc<Vec<u8>>, u64)> {
    let found = find(store, root, index, 8)?.value.and_then(|value| le64(&value, 0));
    let at = found.ok_or_else(|| wrong(root, format!("an array lacks its block {index}")))?;
    let block = store.read(at, Sort::Array)?;
    let (room, len, size) = (le32(&block, 4), le32(&block, 8).map(u64::from), le32(&block, 12));
    match (room.map(u64::from), len, size) {
        (Some(PER_BLOCK), Some(len), Some(8)) if len <= PER_BLOCK => Ok((at, block, len)),
        _ => Err(wrong(at, format!("an array block with {len:?} of {room:?} entries of {size:?} bytes"))),
    }
}

fn place(index: u64) -> usize {
    HEADER + usize::try_from(index % PER_BLOCK).unwrap_or(0) * 8
}

/// Hands the first `count` numbers of an array to `each`, with their index.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) where there are fewer; those of the disk and of `each`.
pub fn each(
    store: &mut Store,
    root: u64,
    count: u64,
    mut each: impl FnMut(u64, u64) -> Result<()>,
) -> Result<()> {
    for index in 0..count.div_ceil(PER_BLOCK) {
        let (at, block, len) = block_of(store, root, index)?;
        let first = index * PER_BLOCK;
        let wanted = (count - first).min(PER_BLOCK);
        if len < wanted {
            return Err(wrong(at, format!("an array block with {len} of {wanted} entries")));
        }
        for number in first..first + wanted {
            each(number, le64(&block, place(number)).unwrap_or(0))?;
        }
    }
    Ok(())
}

/// Clears bits of an array of bits, 64 to a number.
///
/// # Errors
/// [`Kind::Corrupt`](crate::Kind::Corrupt) where the array has no such bits; those of the disk.
pub fn clear_bits(store: &mut Store, root: u64, bits: Range<u64>) -> Result<()> {
    let mut here = bits.start;
    while here < bits.end {
        let word = here / 64;
        let (at, block, len) = block_of(store, root, word / PER_BLOCK)?;
        if word % PER_BLOCK >= len {
            return Err(wrong(at, format!("an array of bits that ends before bit {here}")));
        }
        let old = le64(&block, place(word)).unwrap_or(0);
        let next = (word + 1).saturating_mul(64).min(bits.end);
        let mask = (here..next).fold(0_u64, |mask, bit| mask | 1 << (bit % 64));
        if old & mask != 0 {
            let mut new = block.to_vec();
            set(&mut new, place(word), &(old & !mask).to_le_bytes());
            store.put(at, Sort::Array, new)?;
        }
        here = next;
    }
    Ok(())
}
