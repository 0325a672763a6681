//! Indexes of every size.

use super::*;
use crate::vault::handles::Stored;
use crate::vault::journal::index::{Contents, Entry, Index, Of, write};
use crate::vault::journal::map::{Run, Source};
use crate::vault::journal::record::Kind;

const OF: Of = Of { sequences: (5, 9), segments: 3, generations: 7 };

/// Runs on three disks, with gaps, and none on the second.
fn runs(count: u64) -> Vec<(u32, Run)> {
    let mut dice = Dice(count + 1);
    let mut at = 0;
    let mut runs = Vec::new();
    for number in 0..count {
        if number == count / 3 {
            at = 0;
        }
        let start = at + dice.roll(3) * 100;
        at = start + 1 + dice.roll(300);
        let source = match dice.roll(5) {
            0 => Source::Zero,
            _ => Source::Stored { segment: number % 7, at: number * 1000 },
        };
        runs.push((if number < count / 3 { 1 } else { 3 }, Run { range: start..at, source }));
    }
    runs
}

fn index(medium: &Medium, count: u64, notes: &[Entry], texts: &[u8], sums: &[u32]) -> Index {
    let storage: Arc<dyn Storage> = Arc::new(medium.clone());
    let contents = Contents { of: OF, log: notes, notes, texts, sums };
    write(&*storage, "index", &contents, runs(count).into_iter().map(Ok), &|_| Ok(())).unwrap();
    Index::open(Stored::new(&storage, &Arc::new(Handles::new(4)), "index")).unwrap()
}

#[test]
fn every_run_is_found_through_any_number_of_fences() {
    // None, a page, some more, a page of fences, two levels of them; and one beside each.
    for count in [0, 1, 101, 102, 103, 204, 205, 5000, 10_403, 10_404, 10_405, 30_000] {
        let medium = Medium::default();
        let found = index(&medium, count, &[], &[], &[]);
        assert_eq!((found.of, found.len(), found.is_empty()), (OF, count, count == 0));
        let all = runs(count);
        assert!(found.runs().map(Result::unwrap).eq(all.iter().cloned()));
        let mut dice = Dice(3);
        let end = all.iter().map(|(_, run)| run.range.end).max().unwrap_or(100);
        for _ in 0..300 {
            let disk = u32::try_from(dice.roll(5)).unwrap();
            let start = dice.roll(end + 200);
            let range = start..start + 1 + dice.roll(2000);
            let wanted: Vec<Run> =
                all.iter().filter(|(of, _)| *of == disk).filter_map(|(_, run)| run.clip(&range)).collect();
            assert_eq!(found.within(disk, &range).unwrap(), wanted, "{count}: {disk}, {range:?}");
        }
        // A look-up reads a page of each level.
        medium.traffic();
        found.within(2, &(0..u64::MAX)).unwrap();
        assert!(medium.traffic().len() <= 4);
    }
}

#[test]
fn notes_texts_and_sums_come_back() {
    let texts: Vec<u8> = (0..20_000u32).map(|byte| u8::try_from(byte * 7 % 251).unwrap()).collect();
    let note = |number: u64| Entry {
        kind: Kind::Checkpoint,
        disk: 0,
        offset: number * 5000,
        len: number % 90,
        sequence: number,
        at: number * 19,
    };
    let notes: Vec<Entry> = (0..1000).map(note).collect();
    let sums: Vec<u32> = (0..3000u32).map(|sum| sum.wrapping_mul(0x9e37_79b9)).collect();
    let medium = Medium::default();
    let found = index(&medium, 700, &notes, &texts, &sums);
    assert!(found.notes().map(Result::unwrap).eq(notes.iter().copied()));
    assert!(found.log().map(Result::unwrap).eq(notes.iter().copied()));
    for (number, sum) in sums.iter().enumerate() {
        assert_eq!(found.sum(number as u64).unwrap(), Some(*sum));
    }
    assert_eq!(found.sum(3000).unwrap(), None);
    for (at, len) in [(0, 0), (0, 20_000), (4090, 5), (4092, 1), (8183, 4094), (19_999, 1)] {
        let mut text = vec![0; len];
        found.text(at as u64, &mut text).unwrap();
        assert_eq!(text, texts[at..at + len]);
    }
    assert!(found.text(19_999, &mut [0; 2]).is_err());
    assert!(found.text(u64::MAX, &mut [0; 2]).is_err());
}

#[test]
fn a_header_that_claims_more_than_the_file_holds_is_refused() {
    let medium = Medium::default();
    index(&medium, 5000, &[], b"text", &[1, 2, 3]);
    let whole = medium.content("index").unwrap();
    let storage: Arc<dyn Storage> = Arc::new(medium.clone());
    for number in 0..6 {
        for value in [0u64, 1, 103, 11_000, u64::MAX, u64::MAX - 4000] {
            let mut content = whole.clone();
            let at = 48 + 8 * number;
            content[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let sum = crc32c::crc32c(&content[..4092]);
            content[4092..4096].copy_from_slice(&sum.to_le_bytes());
            medium.put("index", Some(content));
            let Ok(found) = Index::open(Stored::new(&storage, &Arc::new(Handles::new(4)), "index")) else {
                continue;
            };
            // Whatever comes, it comes to an end.
            drop(found.runs().take(100_000).collect::<Vec<_>>());
            drop(found.within(1, &(0..u64::MAX)));
            drop(found.sum(1));
        }
    }
}
