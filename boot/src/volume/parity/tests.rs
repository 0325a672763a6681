use super::*;
use crate::testing::Memory;

const CHUNK: u64 = 4096;

fn array(disks: &[Arc<dyn DiskMut>], layout: Layout, missing: &[usize]) -> Parity {
    let members = disks
        .iter()
        .enumerate()
        .map(|(index, disk)| (!missing.contains(&index)).then(|| (disk.clone(), GuestOffset(512))));
    Parity::new(members.collect(), layout, Bytes(CHUNK), Bytes(10 * CHUNK)).unwrap()
}

fn all(disk: &dyn Disk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size().to_usize().unwrap()];
    disk.read_at(GuestOffset(0), &mut bytes).unwrap();
    bytes
}

fn layouts() -> Vec<Layout> {
    let five = (0..6).filter_map(|number| Layout::of(5, number));
    let six = (0..32).filter_map(|number| Layout::of(6, number));
    five.chain(six).chain(Layout::of(4, 0)).collect()
}

#[test]
fn the_field_is_that_of_raid_6() {
    assert_eq!(field::power(8), 0x1d);
    assert_eq!(field::power(255), 1);
    assert_eq!(field::power(13), 0x87);
    for a in 1..=255 {
        assert_eq!(field::product(a, field::inverse(a)), 1, "{a}");
    }
}

/// Every disk has one thing of a row, and every factor is another.
#[test]
fn rows_are_whole() {
    assert_eq!(layouts().len(), 6 + 14 + 1);
    for layout in layouts() {
        for disks in layout.parities() + 1..9 {
            for number in 0..20 {
                let row = layout.row(disks, number);
                let mut places: Vec<usize> = row.data.iter().map(|data| data.disk).collect();
                places.push(row.p);
                places.extend(row.q);
                places.sort_unstable();
                assert_eq!(places, (0..disks).collect::<Vec<_>>(), "{layout:?} {number}");
                let mut factors: Vec<u8> = row.data.iter().map(|data| data.factor).collect();
                factors.sort_unstable();
                factors.dedup();
                assert!(
                    row.q.is_none() || factors.len() == row.data.len() && !factors.contains(&0),
                    "{row:?}"
                );
            }
        }
    }
}

/// Whatever is missing, what was written is read; and what is written then is right when all are there again.
#[test]
fn any_missing_disks_are_computed() {
    for layout in layouts() {
        let count = layout.parities() + 3;
        let disks: Vec<Arc<dyn DiskMut>> =
            (0_u8..6).take(count).map(|salt| Memory::patterned(512 + 10 * 4096, salt)).collect();
        let whole = array(&disks, layout, &[]);
        let mut expected = all(&whole);
        // Parity of a pattern is none: everything is written once.
        whole.write_at(GuestOffset(0), &expected).unwrap();
        for first in 0..count {
            for second in 0..count {
                let missing = if layout.parities() == 2 { vec![first, second] } else { vec![first] };
                let less = array(&disks, layout, &missing);
                assert!(all(&less) == expected, "{layout:?} {missing:?}");
                let at = (first * 3000 + second * 700 + 11) % (expected.len() - 9000);
                let bytes: Vec<u8> =
                    (0..9000).map(|n: usize| u8::try_from((n * 7 + first) % 251).unwrap()).collect();
                less.write_at(GuestOffset(at as u64), &bytes).unwrap();
                expected[at..at + 9000].copy_from_slice(&bytes);
                let zeros = at / 2..at / 2 + 40_000;
                less.zero_at(GuestRange::new(GuestOffset(zeros.start as u64), Bytes(40_000))).unwrap();
                let end = zeros.end.min(expected.len());
                expected[zeros.start..end].fill(0);
                assert!(all(&less) == expected, "{layout:?} {missing:?} written");
                // The ones that were missing hold what is computed, as after a rebuild.
                for &lost in &missing {
                    let members: Vec<Member> = (0..count)
                        .map(|index| {
                            (!missing.contains(&index)).then(|| (disks[index].clone(), GuestOffset(512)))
                        })
                        .collect();
                    let known = Parity::new(members, layout, Bytes(CHUNK), Bytes(10 * CHUNK)).unwrap();
                    rebuild(&known, &disks, lost);
                }
                assert!(all(&array(&disks, layout, &[])) == expected, "{layout:?} {missing:?} rebuilt");
            }
        }
    }
}

/// Fills a disk with what the others say of it.
fn rebuild(known: &Parity, disks: &[Arc<dyn DiskMut>], lost: usize) {
    for number in 0..10 {
        let row = known.layout.row(disks.len(), number);
        let piece = Piece { row: number, data: 0, inside: 0, len: 4096 };
        let (mut p, mut q) = (vec![0; 4096], vec![0; 4096]);
        let mut chunk = vec![0; 4096];
        let mut own = None;
        for (index, data) in row.data.iter().enumerate() {
            if !known.read_from(data.disk, piece, &mut chunk).unwrap() {
                chunk = known.compute(&row, piece, index).unwrap();
            }
            add(&mut p, &chunk);
            add_times(&mut q, &chunk, data.factor);
            if data.disk == lost {
                own = Some(chunk.clone());
            }
        }
        let bytes = own.unwrap_or(if row.p == lost { p } else { q });
        disks[lost].write_at(GuestOffset(512 + number * CHUNK), &bytes).unwrap();
    }
}

#[test]
fn shapes_that_cannot_be_are_errors() {
    let disk = || Some((Memory::patterned(4096, 0), GuestOffset(0)));
    let six = Layout::of(6, 8).unwrap();
    let new = |members: Vec<Member>, chunk: u64, used: u64| {
        Parity::new(members, six, Bytes(chunk), Bytes(used)).map(|array| array.size().0)
    };
    assert_eq!(new(vec![disk(), disk(), disk()], 512, 4096).unwrap(), 4096);
    assert_eq!(new(vec![disk(), disk(), disk(), disk()], 1024, 4095).unwrap(), 6 << 10);
    assert!(new(vec![disk(), None, None], 512, 4096).is_ok());
    for (members, chunk, used) in [
        (vec![disk(), disk()], 512, 4096),
        (vec![disk(), None, None, None], 512, 4096),
        (vec![disk(), disk(), disk()], 0, 4096),
        (vec![disk(), disk(), disk()], 511, 4096),
        (vec![disk(), disk(), disk()], 512, 4608),
        (vec![disk(), disk(), disk()], u64::MAX - 511, u64::MAX),
        ((0..256).map(|_| disk()).collect(), 512, 4096),
    ] {
        if chunk == u64::MAX - 511 {
            assert!(new(members, chunk, used).is_err());
            continue;
        }
        assert!(new(members, chunk, used).is_err(), "{chunk} {used}");
    }
    assert_eq!(Layout::of(6, 11), None);
    assert_eq!(Layout::of(5, 6), None);
    assert_eq!(Layout::of(1, 0), None);
}
