//! Hives against what others read in them, against a model, against damage and faults.

mod corpus;
mod damage;
mod edits;
mod lists;
mod logs;
mod model;
mod names;
mod readers;
mod validate;

use super::read::nk;
use super::{Hive, Key};

/// Every key below `key`, with it.
fn all_keys(hive: &Hive, key: Key) -> Vec<Key> {
    let mut all = vec![key];
    let mut next = 0;
    while let Some(key) = all.get(next).copied() {
        all.extend(hive.subkeys(key).unwrap().into_iter().map(|(_, key)| key));
        next += 1;
    }
    all
}

/// How often a key says exactly how long its longest names and its largest data are, and how often more. Less is wrong:
/// programs take buffers of that length.
fn lengths(hive: &Hive) -> (usize, usize) {
    let (mut exact, mut more) = (0, 0);
    for key in all_keys(hive, hive.root()) {
        let utf16 = |name: &str| u32::try_from(name.encode_utf16().count() * 2).unwrap();
        let (subkeys, values) = (hive.subkeys(key).unwrap(), hive.values(key).unwrap());
        let longest = subkeys.iter().map(|(name, _)| utf16(name)).max().unwrap_or(0);
        let name = values.iter().map(|(name, _)| utf16(name)).max().unwrap_or(0);
        let data = values.iter().map(|(_, data)| u32::try_from(data.bytes.len()).unwrap()).max().unwrap_or(0);
        let said = u32::from(hive.cells.u16(key.0, nk::LONGEST_SUBKEY).unwrap());
        for (said, is) in [
            (said, longest),
            (hive.cells.u32(key.0, nk::LONGEST_VALUE).unwrap(), name),
            (hive.cells.u32(key.0, nk::LARGEST_DATA).unwrap(), data),
        ] {
            assert!(said >= is, "{}: {said} is less than {is}", hive.name(key).unwrap());
            *(if said == is { &mut exact } else { &mut more }) += 1;
        }
    }
    (exact, more)
}
