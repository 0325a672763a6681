//! Media that fail, and files that are not as they were written.

use super::disk::{Step, Through};
use super::*;
use std::sync::atomic::Ordering;

#[test]
fn a_damaged_file_is_never_read_as_if_it_were_sound() {
    let medium = Medium::default();
    let (machine, points) = full(&medium);
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    drop(machine);
    let mut told = 0;
    for (path, len) in medium.paths() {
        for at in (0..len).step_by(997) {
            let broken = medium.again();
            broken.flip(&path, at);
            let Ok((machine, _)) = try_open(&broken, Ended::Killed) else {
                told += 1;
                continue;
            };
            for (sequence, model) in &points {
                let read = machine.at(*sequence).and_then(|point| {
                    let number = *point.state().disks.keys().next().unwrap();
                    let disk = point.disk(number)?;
                    let mut buf = vec![0; 256 << 10];
                    disk.read_at(GuestOffset(0), &mut buf)?;
                    Ok(buf)
                });
                match read {
                    Ok(buf) => assert!(buf == model["sda"], "{path} at {at}, point {sequence}"),
                    Err(_) => told += 1,
                }
            }
        }
    }
    assert!(told > 50, "{told}");
}

#[test]
fn a_medium_that_fails_is_not_believed_again() {
    for count in 0..40 {
        let medium = Medium::default();
        let (machine, points) = full(&medium);
        let disk = machine.live("sda").unwrap();
        medium.fail_after(Some(count));
        let mut acknowledged = Vec::new();
        let mut is_lost = false;
        for time in 0..12u64 {
            let data = [u8::try_from(time + 1).unwrap(); 512];
            if disk.write_at(GuestOffset(512 * time), &data).is_ok() {
                acknowledged.push(time);
            }
            let is_set = machine.checkpoint(2_000_000 + time, &Mark::default()).is_ok();
            assert!(!(is_lost && is_set), "a checkpoint after a sync that failed");
            is_lost |= !is_set && medium.has_failed();
        }
        medium.fail_after(None);
        // What was acknowledged reads back, and what was safe before is safe.
        for time in acknowledged {
            let mut buf = [0; 512];
            disk.read_at(GuestOffset(512 * time), &mut buf).unwrap();
            assert_eq!(buf, [u8::try_from(time + 1).unwrap(); 512]);
        }
        let (sequence, model) = points.last().unwrap();
        check(&machine, *sequence, model);
    }
}

/// All that the points hold, read whole.
fn check_all(machine: &Arc<Machine>, points: &[(u64, Model)]) {
    points.iter().for_each(|(sequence, model)| check(machine, *sequence, model));
}

fn indexes(medium: &Medium) -> Vec<(String, usize)> {
    medium.paths().into_iter().filter(|(path, _)| path.ends_with(".idx")).collect()
}

/// Closed and sealed.
fn sealed(medium: &Medium) -> Vec<(u64, Model)> {
    let (machine, points) = full(medium);
    machine.journal().close_segment();
    machine.journal().seal().unwrap();
    points
}

#[test]
fn nobody_is_told_of_a_damaged_index() {
    let medium = Medium::default();
    let points = sealed(&medium);
    let all = indexes(&medium);
    assert!(all.len() > 2);
    for (path, len) in &all {
        let whole = medium.content(path).unwrap();
        let mut broken: Vec<Option<Vec<u8>>> = vec![None, Some(Vec::new()), Some(whole[..len / 2].to_vec())];
        // Every page, each in another place.
        for page in 0..len / 4096 {
            let mut content = whole.clone();
            content[page * 4096 + 40 * page] ^= 1;
            broken.push(Some(content));
        }
        // A sound one of another segment.
        let other = all.iter().find(|(other, _)| other != path).unwrap();
        broken.push(medium.content(&other.0));
        for content in broken {
            let medium = medium.again();
            medium.put(path, content.clone());
            let (machine, found) = open(&medium);
            assert!(!found.is_damaged());
            check_all(&machine, &points);
            if content.is_none_or(|content| content.len() <= len / 2) {
                assert_eq!(medium.content(path).unwrap(), whole, "{path} was made anew");
            }
        }
    }
}

#[test]
fn an_index_that_is_damaged_after_it_was_opened_is_made_anew() {
    let medium = Medium::default();
    let points = sealed(&medium);
    let (machine, _) = open(&medium);
    check_all(&machine, &points);
    let whole: Vec<_> = indexes(&medium).iter().map(|(path, _)| medium.content(path).unwrap()).collect();
    for ((path, len), whole) in indexes(&medium).iter().zip(&whole) {
        (1..len / 4096).for_each(|page| medium.flip(path, page * 4096 + 17));
        check_all(&machine, &points);
        assert_eq!(medium.content(path).as_ref(), Some(whole));
    }
    // The whole of it may be cut off, too.
    let path = &indexes(&medium)[0].0;
    medium.put(path, Some(Vec::new()));
    medium.put(&format!("{path}.new"), Some(vec![1; 100_000]));
    let (machine, _) = open(&medium.again());
    check_all(&machine, &points);
}

#[test]
fn an_index_is_not_made_of_damaged_records() {
    let medium = Medium::default();
    let points = sealed(&medium);
    for (index, _) in indexes(&medium) {
        let segment = index.replace(".idx", ".seg");
        let whole = medium.content(&segment).unwrap();
        // In the middle, at the end, and cut off behind a record, where nothing else is wrong: 56 bytes are a note without much in it,
        // 48 what a rewritten segment ends with.
        let mut cut: Vec<Vec<u8>> = (1..=60).map(|by| whole[..whole.len() - 8 * by].to_vec()).collect();
        for at in [70, whole.len() / 2, whole.len() - 30] {
            let mut flipped = whole.clone();
            flipped[at] ^= 4;
            cut.push(flipped);
        }
        for content in cut {
            let medium = medium.again();
            medium.put(&index, None);
            medium.put(&segment, Some(content));
            let Ok((machine, _)) = try_open(&medium, Ended::Killed) else { continue };
            for (sequence, model) in &points {
                let Ok(point) = machine.at(*sequence) else { continue };
                let disk = point.disk(1).unwrap();
                let mut buf = vec![0; 256 << 10];
                if disk.read_at(GuestOffset(0), &mut buf).is_ok() {
                    assert!(buf == model["sda"], "{segment}, point {sequence}");
                }
            }
            assert!(medium.content(&index).is_none(), "{index} was made of a damaged segment");
        }
    }
}

#[test]
fn an_index_that_cannot_be_read_now_is_left_alone() {
    let medium = Medium::default();
    let points = sealed(&medium);
    let (machine, _) = open(&medium);
    medium.fail_reads(Some(".idx"));
    medium.traffic();
    let error = machine.at(points[0].0).unwrap_err();
    assert_eq!(error.kind(), landfall_image::Kind::Io);
    medium.fail_reads(None);
    assert!(medium.traffic().iter().all(|traffic| !traffic.is_write));
    check_all(&machine, &points);
}

#[test]
fn a_segment_that_cannot_be_begun_leaves_nothing() {
    let failures: [fn(&Step) -> bool; 4] = [
        |step| matches!(step, Step::Create(..)),
        |step| matches!(step, Step::SyncDir(_)),
        // The header, and a note behind it.
        |step| matches!(step, Step::Write(_, 0, _)),
        |step| matches!(step, Step::Write(_, 1.., _)),
    ];
    for fails in failures {
        let medium = Medium::default();
        let (machine, _) = open(&medium);
        machine.journal().set_disk(&info("sda", 8192)).unwrap();
        machine.journal().attach("definition", &[1]).unwrap();
        let disk = machine.live("sda").unwrap();
        disk.write_at(GuestOffset(0), &[1; 512]).unwrap();
        machine.journal().close_segment();
        machine.journal().seal().unwrap();
        let (last, files) = (machine.journal().last(), medium.paths());
        let in_memory = machine.home().in_memory.load(Ordering::Relaxed);
        for _ in 0..3 {
            medium.fail_on(fails, Through::Half, 1);
            disk.write_at(GuestOffset(512), &[2; 512]).unwrap_err();
        }
        assert_eq!(medium.paths(), files);
        assert_eq!(machine.journal().last(), last);
        assert_eq!(machine.home().in_memory.load(Ordering::Relaxed), in_memory);
        disk.write_at(GuestOffset(1024), &[3; 512]).unwrap();
        let point = machine.checkpoint(1, &Mark::default()).unwrap();
        let mut model = Model::from([("sda".to_owned(), vec![0; 8192])]);
        model.get_mut("sda").unwrap()[..512].fill(1);
        model.get_mut("sda").unwrap()[1024..1536].fill(3);
        check(&machine, point, &model);
        let (machine, found) = open(&medium.again());
        assert!(!found.is_damaged());
        check(&machine, point, &model);
    }
}

/// Write, fail, write: the failed one is in no segment, whether the file can be cut off then or not.
#[test]
fn a_write_that_fails_is_in_no_segment() {
    let write: fn(&Step) -> bool = |step| matches!(step, Step::Write(..));
    let both: fn(&Step) -> bool = |step| matches!(step, Step::Write(..) | Step::SetLen(..));
    for (fails, times) in [(write, 1), (both, 2)] {
        for (through, restarts) in
            [(Through::Half, false), (Through::Half, true), (Through::All, false), (Through::All, true)]
        {
            let medium = Medium::default();
            let (machine, _) = open(&medium);
            machine.journal().set_disk(&info("sda", 8192)).unwrap();
            machine.journal().attach("definition", &[1]).unwrap();
            let disk = machine.live("sda").unwrap();
            disk.write_at(GuestOffset(0), &[1; 512]).unwrap();
            let last = machine.journal().last();
            medium.fail_on(fails, through, times);
            disk.write_at(GuestOffset(512), &[2; 512]).unwrap_err();
            assert_eq!(machine.journal().last(), last);
            disk.write_at(GuestOffset(1024), &[3; 100]).unwrap();
            let mut model = Model::from([("sda".to_owned(), vec![0; 8192])]);
            model.get_mut("sda").unwrap()[..512].fill(1);
            model.get_mut("sda").unwrap()[1024..1124].fill(3);
            let point = machine.checkpoint(1, &Mark::default()).unwrap();
            let (medium, machine) = match restarts {
                true => {
                    let medium = medium.again();
                    let (machine, found) = open(&medium);
                    assert!(!found.is_damaged() && !machine.journal().is_behind(), "{found:?}");
                    (medium, machine)
                }
                false => (medium, machine),
            };
            check(&machine, point, &model);
            machine.journal().close_segment();
            machine.journal().seal().unwrap();
            check(&machine, point, &model);
            let (machine, _) = open(&medium.again());
            check(&machine, point, &model);
            assert_eq!(content(&machine.live("sda").unwrap()), model["sda"]);
        }
    }
}

#[test]
fn a_sync_that_failed_is_known_after_a_start() {
    let medium = Medium::default();
    let (machine, points) = full(&medium);
    machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
    medium.fail_on(|step| matches!(step, Step::Sync(_)), Through::Half, 1);
    machine.journal().sync().unwrap_err();
    let (machine, _) = open(&medium.again());
    assert!(machine.journal().is_behind());
    assert!(machine.checkpoint(1 << 40, &Mark::default()).is_err());
    check_all(&machine, &points);
}
