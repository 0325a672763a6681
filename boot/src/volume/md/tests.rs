//! Members made by hand: which are believed, and what they make. Arrays of mdadm itself are in the tests of `scan`.

use super::superblock::tests::New;
use super::superblock::{Role, Superblock};
use super::*;
use crate::volume::VolumeId;
use crate::volume::view::View;
use crate::{Finding, testing::Memory};
use landfall_image::{Bytes, Disk, DiskMut, GuestOffset, GuestRange};
use std::sync::Arc;

fn member(disk: usize, superblock: &New) -> Member {
    let device = superblock.device();
    let superblock = superblock::read(&*device).unwrap().unwrap();
    // Content by which disks are told apart.
    let at = superblock.data.start();
    let fill = vec![u8::try_from(disk).unwrap() + 1; superblock.data.len().to_usize().unwrap()];
    device.write_at(at, &fill).unwrap();
    Member { volume: VolumeId(format!("disk{disk}")), disk, device, superblock }
}

fn mirror(number: u32, events: u64, roles: &[u16]) -> New {
    New { number, events, roles: roles.to_vec(), ..New::default() }
}

fn made(members: &[Member]) -> Result<Array, Finding> {
    let sets = sets(members);
    assert_eq!(sets.len(), 1);
    assemble(&sets[0], "md0")
}

fn ids(array: &Array) -> Vec<&str> {
    array.findings.iter().map(|finding| finding.id).collect()
}

fn first_byte(array: &Array) -> u8 {
    let mut byte = [0];
    View::new(array.segments.clone()).unwrap().read_at(GuestOffset(0), &mut byte).unwrap();
    byte[0]
}

#[test]
fn a_mirror_reads_the_first_and_writes_all_that_are_in_sync() {
    let both = [member(0, &mirror(1, 10, &[0, 1])), member(1, &mirror(0, 10, &[0, 1]))];
    let array = made(&both).unwrap();
    assert_eq!(
        (array.is_complete, ids(&array), first_byte(&array)),
        (true, vec![], 2),
        "slot 0 is on disk 1"
    );
    let view = View::new(array.segments.clone()).unwrap();
    assert_eq!(view.size().0, 64 * 512);
    view.write_at(GuestOffset(100), b"hello").unwrap();
    for member in &both {
        let mut found = [0; 5];
        member.device.read_at(GuestOffset(8192 + 100), &mut found).unwrap();
        assert_eq!(&found, b"hello");
    }
    // A disk that is to be spared is read last.
    let spared = [member(0, &New { flags: 1, ..mirror(0, 10, &[0, 1]) }), member(1, &mirror(1, 10, &[0, 1]))];
    assert_eq!(first_byte(&made(&spared).unwrap()), 2);
    let unclean = New { resync: 0, ..mirror(0, 10, &[0, 1]) };
    assert_eq!(
        ids(&made(&[member(0, &unclean), member(1, &mirror(1, 10, &[0, 1]))]).unwrap()),
        ["array-unclean"]
    );
}

#[test]
fn members_that_are_behind_are_left_alone() {
    // The other one failed: the fresh one says so.
    let stale = [member(0, &mirror(0, 10, &[0, 1])), member(1, &mirror(1, 20, &[0xfffe, 1]))];
    let array = made(&stale).unwrap();
    assert_eq!((ids(&array), first_byte(&array)), (vec!["array-member-stale", "array-degraded"], 2));
    View::new(array.segments.clone()).unwrap().write_at(GuestOffset(0), b"x").unwrap();
    let mut old = [0];
    stale[0].device.read_at(GuestOffset(8192), &mut old).unwrap();
    assert_eq!(old, [1], "not written");
    // Behind by one, as superblocks are written in turns: but not where the fresh one calls it faulty.
    let close = |fresh: &[u16]| [member(0, &mirror(0, 10, &[0, 1])), member(1, &mirror(1, 11, fresh))];
    assert!(made(&close(&[0, 1])).unwrap().is_complete);
    assert_eq!(ids(&made(&close(&[0xfffe, 1])).unwrap()), ["array-member-stale", "array-degraded"]);
    assert_eq!(
        ids(&made(&[member(0, &mirror(0, 9, &[0, 1])), close(&[0, 1])[1].clone()]).unwrap())[0],
        "array-member-stale"
    );
    // One alone.
    let array = made(&[member(0, &mirror(1, 10, &[0, 1]))]).unwrap();
    assert_eq!((ids(&array), array.is_complete), (vec!["array-degraded"], false));
    // A spare is no news.
    let spare = [both(0), both(1), member(2, &mirror(2, 10, &[0, 1, 0xffff]))];
    assert_eq!(ids(&made(&spare).unwrap()), [""; 0]);
    fn both(number: u32) -> Member {
        member(usize::try_from(number).unwrap(), &mirror(number, 10, &[0, 1, 0xffff]))
    }
}

/// Before the first byte is written to some members, they say that the others are gone.
#[test]
fn members_that_are_not_written_are_marked() {
    let roles_of = |member: &Member| superblock::read(&*member.device).unwrap().unwrap();
    // One is missing, the other stale; numbers are not places.
    let three = |number, events, roles: &[u16]| New { disks: 3, ..mirror(number, events, roles) };
    let members = [
        member(0, &three(3, 20, &[0, 0xffff, 2, 1])),
        member(1, &three(1, 12, &[0, 1, 2])),
        member(2, &three(2, 19, &[0, 0xffff, 2, 1])),
    ];
    let before: Vec<_> = members.iter().map(roles_of).collect();
    let mut array = made(&members).unwrap();
    assert_eq!(ids(&array), ["array-member-stale", "array-degraded"]);
    let behind = array.behind.take().unwrap();
    let view = View::new(array.segments).unwrap().before_writing(move || behind.write());
    view.read_at(GuestOffset(0), &mut [0; 8]).unwrap();
    assert_eq!(members.iter().map(roles_of).collect::<Vec<_>>(), before, "reading changes nothing");
    view.zero_at(GuestRange::new(GuestOffset(0), Bytes(512))).unwrap();
    view.write_at(GuestOffset(0), b"once").unwrap();
    let after: Vec<_> = members.iter().map(roles_of).collect();
    assert_eq!(after[1], before[1], "not written");
    for (index, events) in [(0, 22), (2, 21)] {
        let roles = vec![Role::Faulty, Role::Spare, Role::Disk(2), Role::Disk(1)];
        assert_eq!(after[index], Superblock { events, roles, ..before[index].clone() });
    }
    // So it is found again, with the missing one there as well.
    let mut members: Vec<_> = members.into_iter().zip(after).collect();
    members.push((member(3, &three(0, 20, &[0, 0xffff, 2, 1])), before[0].clone()));
    members[3].1 = members[3].0.superblock.clone();
    let members: Vec<Member> =
        members.into_iter().map(|(member, superblock)| Member { superblock, ..member }).collect();
    let array = made(&members).unwrap();
    assert_eq!(ids(&array), ["array-member-stale", "array-member-stale", "array-degraded"]);
    // Nothing is written of an array that is whole, and one that can count no further is not opened.
    let whole = [member(0, &mirror(0, 10, &[0, 1])), member(1, &mirror(1, 10, &[0, 1]))];
    assert!(made(&whole).unwrap().behind.is_none());
    let last = made(&[member(0, &mirror(0, u64::MAX - 1, &[0, 1]))]).err().unwrap();
    assert!(last.id == "array-not-opened" && last.says.contains("events"), "{last:?}");
}

#[test]
fn contradictions_close_an_array() {
    let good = member(0, &mirror(0, 10, &[0, 1]));
    let closed = |members: &[Member], says: &str| {
        let finding = made(members).err().unwrap_or_else(|| panic!("{says}: it was opened"));
        assert!(finding.says.contains(says), "{}", finding.says);
        assert_eq!(finding.id, "array-not-opened");
    };
    closed(&[good.clone(), member(1, &mirror(0, 10, &[0, 1]))], "are the same member");
    for gone in [0xfffe, 0xffff] {
        closed(
            &[member(0, &mirror(0, 10, &[0, gone])), member(1, &mirror(1, 10, &[gone, 1]))],
            "without the other",
        );
        // One of them only, and two of which a third one saw more.
        closed(
            &[member(0, &mirror(0, 10, &[0, 1])), member(1, &mirror(1, 10, &[gone, 1]))],
            "without the other",
        );
        let three = |number, events, roles: &[u16]| New { disks: 3, ..mirror(number, events, roles) };
        let torn = [
            member(0, &three(0, 10, &[0, gone, 2])),
            member(1, &three(1, 10, &[gone, 1, 2])),
            member(2, &three(2, 11, &[0, 1, 2])),
        ];
        // What the freshest has seen is newer than either's word on the other.
        assert!(made(&torn).unwrap().is_complete);
        let torn = [torn[0].clone(), torn[1].clone(), member(2, &three(2, 10, &[0, 1, 2]))];
        closed(&torn, "without the other");
    }
    let other = New { size_sectors: 32, ..mirror(1, 10, &[0, 1]) };
    closed(&[good.clone(), member(1, &other)], "do not agree");
    let rebuilt = New { features: 2, recovery: 5, ..mirror(1, 10, &[0, 1]) };
    closed(&[good.clone(), member(1, &rebuilt)], "rebuilt");
    for (level, layout) in [(5, 6), (6, 7), (6, 33)] {
        let odd = New { level, layout, chunk_sectors: 1, ..mirror(0, 10, &[0, 1]) };
        closed(&[member(0, &odd)], &format!("layout {layout}"));
    }
    closed(&[member(0, &New { level: 5, layout: 2, ..mirror(0, 10, &[0, 1]) })], "chunks");
    closed(&[member(0, &New { level: -4, ..mirror(0, 10, &[0, 1]) })], "level is -4");
    for layout in [0x201, 0x10201, 0x100, 0x103] {
        let far = New { level: 10, layout, chunk_sectors: 1, ..mirror(0, 10, &[0, 1]) };
        closed(&[member(0, &far)], "near layout");
    }
    // Sizes that cannot be.
    closed(&[member(0, &New { size_sectors: 65, ..mirror(0, 10, &[0, 1]) })], "it uses");
    closed(&[member(0, &New { size_sectors: 0, ..mirror(0, 10, &[0, 1]) })], "it uses");
    let unchunked = |number| New { level: 0, chunk_sectors: 0, ..mirror(number, 10, &[0, 1]) };
    closed(&[member(0, &unchunked(0)), member(1, &unchunked(1))], "chunks");
    let unequal = |number, sectors| New {
        level: 0,
        chunk_sectors: 8,
        data: (16, sectors),
        ..mirror(number, 10, &[0, 1])
    };
    closed(&[member(0, &unequal(0, 64)), member(1, &unequal(1, 48))], "one size");
}

#[test]
fn stripes_need_every_disk_and_pairs_one_of_each() {
    let striped = |number| New { level: 0, chunk_sectors: 8, ..mirror(number, 10, &[0, 1]) };
    let finding = made(&[member(1, &striped(1))]).err().unwrap();
    assert_eq!(finding.id, "array-incomplete");
    assert!(finding.says.contains("number 0") && finding.says.contains("07070707:"), "{}", finding.says);
    let near = |number| New {
        level: 10,
        layout: 0x102,
        chunk_sectors: 8,
        disks: 4,
        ..mirror(number, 10, &[0, 1, 2, 3])
    };
    let some = |numbers: &[u32]| {
        let members: Vec<_> =
            numbers.iter().map(|&number| member(usize::try_from(number).unwrap(), &near(number))).collect();
        made(&members)
    };
    assert_eq!(ids(&some(&[0, 1, 2, 3]).unwrap()), [""; 0]);
    let half = some(&[1, 2]).unwrap();
    assert_eq!(ids(&half), ["array-degraded"]);
    let view = View::new(half.segments).unwrap();
    assert_eq!(view.size().0, 2 * 64 * 512);
    let mut chunks = [0; 2];
    view.read_at(GuestOffset(4095), &mut chunks).unwrap();
    assert_eq!(chunks, [2, 3], "disk 1 for the first pair, disk 2 for the second");
    assert_eq!(some(&[0, 1]).err().unwrap().id, "array-incomplete");
}

#[test]
fn noise_is_no_member() {
    let noise: Arc<dyn DiskMut> = Memory::patterned(1 << 20, 3);
    assert!(superblock::read(&*noise).unwrap().is_none());
    assert!(superblock::read(&Memory::new(vec![])).unwrap().is_none());
}
