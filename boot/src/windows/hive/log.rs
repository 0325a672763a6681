//! Transaction logs of a hive (`.LOG1`, `.LOG2`): what Windows had not written into the hive yet is put there.
//!
//! Both formats of msuhanov's "Windows registry file format specification", section "Format of transaction log files":
//!
//! ```text
//! since 8.1  copy of the base block, type 6 · from 512 on entries, each of whole sectors
//!            0 "HvLE" · 4 size · 8 flags · 12 sequence number · 16 size of the bins · 20 pages
//!            24 hash of all behind 40 · 32 hash of the first 32 · 40 (offset, size) of each page… · the pages
//! before     copy of the base block, type 1 or 2 · a sector on "DIRT" and a bit for each 512 bytes of the bins
//!            · from the next sector on those that have their bit set
//! ```
//!
//! Replayed as Windows does: entries in the order of their sequence numbers, from the file with the earlier ones to the
//! other, up to the first one that is not whole or does not follow. What is applied and why it ended is said. Deliberately
//! absent: guessing past a gap, and logs of the registry's transactions (`.regtrans-ms`), which Windows replays itself.

use super::base::Base;
use super::cells::{BASE_BLOCK, PAGE};
use super::marvin::marvin32;
use crate::volume::field::{bytes, le32, le64};
use crate::{Error, Result};
use landfall_image::FileOffset;

const SECTOR: usize = 512;
const ENTRY_HEADER: usize = 40;

/// What was replayed into a hive, for the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The files that took part, in their order: 1 for `.LOG1`, 2 for `.LOG2`.
    pub logs: Vec<u8>,
    /// Entries that were applied; 1 for a log of the format before Windows 8.1.
    pub entries: usize,
    /// Bytes that they wrote.
    pub bytes: usize,
    /// Sequence number of the first entry.
    pub first: u32,
    /// Sequence number of the last entry.
    pub last: u32,
    /// The base block was damaged and came from the log, too.
    pub base_block: bool,
    /// What of the logs was not applied and why, where that is more than what was written into the hive before.
    pub left_out: Vec<String>,
}

/// One entry of the new format: bounds and hashes are checked.
struct Entry<'a> {
    sequence: u32,
    flags: u32,
    bins_len: usize,
    /// Offset in the bins, content.
    pages: Vec<(usize, &'a [u8])>,
}

/// A log of the new format: the entries that belong together.
struct Entries<'a> {
    number: u8,
    base: Base,
    entries: Vec<Entry<'a>>,
    /// Why there is no further one, where that is no matter of course.
    ended: Option<String>,
}

/// The greatest sequence number in a log, so that a hive gets one that is greater than all.
pub fn greatest_sequence(log: &[u8]) -> u32 {
    let base = Base::of_log(log).map_or(0, |base| base.primary());
    let entries = log.chunks_exact(SECTOR).filter(|sector| sector.starts_with(b"HvLE"));
    let whole = entries.filter(|sector| le64(sector, 32) == Some(marvin32(&sector[..32])));
    whole.filter_map(|sector| le32(sector, 12)).fold(base, u32::max)
}

/// Replays logs into the bins of a dirty hive. `bins` has the length that the base block says where that is sound.
pub fn replay(base: &mut Base, bins: &mut Vec<u8>, logs: &[(u8, &[u8])]) -> Result<Replayed> {
    let mut unusable = Vec::new();
    let mut entries = Vec::new();
    let mut old = Vec::new();
    for &(number, log) in logs {
        match Base::of_log(log) {
            Ok(copy) if copy.file_type() == 6 => entries.push(entries_of(number, copy, log)),
            Ok(copy) if copy.file_type() <= 2 => old.push((number, copy, log)),
            Ok(copy) => unusable.push(format!(".LOG{number} has the unknown type {}", copy.file_type())),
            Err(why) => unusable.push(format!(".LOG{number} {why}")),
        }
    }
    let replayed = if entries.is_empty() {
        replay_old(base, bins, &old, &mut unusable)?
    } else {
        replay_entries(base, bins, entries, &mut unusable)
    };
    if let Some(replayed) = replayed {
        return Ok(replayed);
    }
    let says = if !base.is_sound() {
        "Windows was interrupted while it wrote this hive: the checksum of its base block is wrong".to_owned()
    } else {
        let (primary, secondary) = (base.primary(), base.secondary());
        format!("Windows was not done with writing this hive (sequence numbers {primary} and {secondary})")
    };
    let why = if logs.is_empty() { "there is no log beside it".into() } else { unusable.join("; ") };
    Err(Error::refused(format!("{says}, and {why}"))
        .at(FileOffset(4))
        .hint("start the guest once where it ran and shut it down completely (shutdown /s /t 0), or give the hive's .LOG1 and .LOG2"))
}

fn entries_of(number: u8, base: Base, log: &[u8]) -> Entries<'_> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut at = SECTOR;
    let ended = loop {
        if log.get(at..at + 4) != Some(b"HvLE") {
            break None;
        }
        let expected = base.primary().wrapping_add(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        // What follows a shorter series is left from earlier ones.
        if le32(log, at + 12) != Some(expected) {
            let first = entries.is_empty();
            break first.then(|| "the first entry does not have the sequence number of the log".into());
        }
        match entry(log, at) {
            Ok((entry, len)) => {
                entries.push(entry);
                at += len;
            }
            Err(why) => break Some(format!("entry {expected} {why}")),
        }
    };
    let ended = ended.map(|why| format!(".LOG{number}: {why}"));
    Entries { number, base, entries, ended }
}

fn entry(log: &[u8], at: usize) -> Result<(Entry<'_>, usize), String> {
    let field = |n: usize| le32(log, at + n).unwrap_or(0);
    let (len, pages) = (field(4) as usize, field(20) as usize);
    let Some(raw) = bytes(log, at, len).filter(|raw| raw.len() >= ENTRY_HEADER) else {
        return Err(format!("is cut off: {len} bytes are said to be in it"));
    };
    if !len.is_multiple_of(SECTOR) {
        return Err(format!("has a length of {len}, no multiple of 512"));
    }
    let is_whole =
        le64(raw, 32) == Some(marvin32(&raw[..32])) && le64(raw, 24) == Some(marvin32(&raw[ENTRY_HEADER..]));
    // The fuzzer finds no hash by chance, and what it is to find lies behind it.
    if !is_whole && !cfg!(fuzzing) {
        return Err("has a wrong hash".into());
    }
    let bins_len = field(16) as usize;
    if bins_len == 0 || !bins_len.is_multiple_of(PAGE) {
        return Err(format!("has bins of {bins_len} bytes, no multiple of 4096"));
    }
    let mut content =
        pages.checked_mul(8).and_then(|table| table.checked_add(ENTRY_HEADER)).unwrap_or(usize::MAX);
    let table = raw.get(ENTRY_HEADER..content).ok_or("has no room for its list of pages")?;
    let mut listed = Vec::with_capacity(pages);
    for reference in table.chunks_exact(8) {
        let (offset, size) =
            (le32(reference, 0).unwrap_or(0) as usize, le32(reference, 4).unwrap_or(0) as usize);
        if offset + size > bins_len {
            return Err(format!("writes {size} bytes at {offset:#x}, beyond the bins"));
        }
        let page = bytes(raw, content, size).ok_or("has no room for its pages")?;
        content += size;
        listed.push((offset, page));
    }
    Ok((Entry { sequence: field(12), flags: field(8), bins_len, pages: listed }, len))
}

/// A sequence number is not before another one; they may wrap.
fn not_before(number: u32, other: u32) -> bool {
    number.wrapping_sub(other) < 1 << 31
}

fn replay_entries(
    base: &mut Base,
    bins: &mut Vec<u8>,
    mut logs: Vec<Entries<'_>>,
    left_out: &mut Vec<String>,
) -> Option<Replayed> {
    let base_block = !base.is_sound();
    left_out.extend(logs.iter_mut().filter_map(|log| log.ended.take()));
    logs.retain(|log| !log.entries.is_empty());
    if !base_block {
        let secondary = base.secondary();
        logs.retain(|log| {
            let counts = not_before(log.base.primary(), secondary);
            if !counts {
                let first = log.base.primary();
                left_out.push(format!(".LOG{} is older than the hive: it starts with {first}", log.number));
            }
            counts
        });
    }
    // In order of their numbers: where both count, the one that the other does not come before.
    if let [one, two] = &logs[..]
        && !not_before(two.base.primary(), one.base.primary())
    {
        logs.swap(0, 1);
    }
    if base_block {
        // The base block is that of the newest log, and what is older than it is in the hive.
        logs.drain(..logs.len().saturating_sub(1));
        base.recover(&logs.first()?.base);
    }
    let first = logs.first()?.entries.first()?.sequence;
    let mut done = Replayed {
        logs: Vec::new(),
        entries: 0,
        bytes: 0,
        first,
        last: first,
        base_block,
        left_out: Vec::new(),
    };
    // Room for what no page covers is not taken on a log's word alone.
    let mut room = bins.len().max(PAGE);
    let mut flags = 0;
    'logs: for log in &logs {
        for entry in &log.entries {
            let expected = if done.entries == 0 { first } else { done.last.wrapping_add(1) };
            if entry.sequence != expected {
                let number = log.number;
                left_out
                    .push(format!(".LOG{number} goes on with {}, and {expected} is missing", entry.sequence));
                break 'logs;
            }
            let written: usize = entry.pages.iter().map(|(_, page)| page.len()).sum();
            room += written;
            if entry.bins_len > room {
                left_out.push(format!(
                    ".LOG{}: entry {expected} says that the bins have {} bytes and does not bring them",
                    log.number, entry.bins_len
                ));
                break 'logs;
            }
            bins.resize(entry.bins_len, 0);
            for (at, page) in &entry.pages {
                if let Some(target) = bins.get_mut(*at..*at + page.len()) {
                    target.copy_from_slice(page);
                }
            }
            if done.logs.last() != Some(&log.number) {
                done.logs.push(log.number);
            }
            (done.entries, done.bytes, done.last) = (done.entries + 1, done.bytes + written, entry.sequence);
            flags = entry.flags;
        }
    }
    if done.entries == 0 {
        return None;
    }
    base.replayed(bins.len(), Some(flags & 1 == 1));
    done.left_out = std::mem::take(left_out);
    Some(done)
}

/// The old format: one log holds all that counts.
fn replay_old(
    base: &mut Base,
    bins: &mut Vec<u8>,
    logs: &[(u8, Base, &[u8])],
    left_out: &mut Vec<String>,
) -> Result<Option<Replayed>> {
    let base_block = !base.is_sound();
    // A hive without a sound base block has the time in its first bin, too.
    let written = if base_block { le64(bins, 20).unwrap_or(0) } else { base.written() };
    let mut chosen: Option<&(u8, Base, &[u8])> = None;
    for log in logs {
        if log.1.written() != written {
            left_out.push(format!(".LOG{} belongs to another write: its time is not the hive's", log.0));
        } else if chosen.is_none_or(|other| !not_before(other.1.primary(), log.1.primary())) {
            chosen = Some(log);
        }
    }
    let Some((number, copy, log)) = chosen else { return Ok(None) };
    let (number, sector, len) = (*number, copy.sector(), copy.bins_len());
    let wrong = |says: String| Err(Error::corrupt(format!(".LOG{number} {says}")));
    if log.get(sector..sector + 4) != Some(b"DIRT") {
        return wrong("has no list of the pages that it holds".into());
    }
    let Some(bitmap) =
        bytes(log, sector + 4, len / SECTOR / 8).filter(|_| len > 0 && len.is_multiple_of(PAGE))
    else {
        return wrong(format!("is cut off in the list of the pages of {len} bytes of bins"));
    };
    // Room for what no page covers is not taken on a log's word alone.
    let pages: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
    if len > bins.len() + pages * SECTOR {
        return wrong(format!("says that the bins have {len} bytes and does not bring them"));
    }
    let mut at = (sector + 4 + bitmap.len()).next_multiple_of(sector);
    bins.resize(len, 0);
    let first_page = at;
    for page in (0..len / SECTOR).filter(|page| bitmap[page / 8] >> (page % 8) & 1 == 1) {
        let Some(content) = bytes(log, at, SECTOR) else {
            return wrong("is cut off among its pages".into());
        };
        bins[page * SECTOR..(page + 1) * SECTOR].copy_from_slice(content);
        at += SECTOR;
    }
    if base_block {
        base.recover(copy);
    }
    base.replayed(bins.len(), None);
    let sequence = copy.primary();
    Ok(Some(Replayed {
        logs: vec![number],
        entries: 1,
        bytes: at - first_page,
        first: sequence,
        last: sequence,
        base_block,
        left_out: std::mem::take(left_out),
    }))
}

/// The bins of a hive file: what its base block says where that counts, else all that is there.
pub fn bins_of(base: &Base, file: &[u8]) -> Result<Vec<u8>> {
    let there = file.len().saturating_sub(BASE_BLOCK);
    let len = if base.is_sound() { base.bins_len() } else { there / PAGE * PAGE };
    if len == 0 || !len.is_multiple_of(PAGE) || len > there {
        let says =
            format!("the bins are said to have {len} bytes; the file has {there} behind its base block");
        return Err(Error::corrupt(says).at(FileOffset(40)));
    }
    Ok(file[BASE_BLOCK..BASE_BLOCK + len].to_vec())
}
