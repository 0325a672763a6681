//! Points that are exported and applied to another machine.

use super::super::export::{Wanted, export};
use super::super::record::Version;
use super::applying::send;
use crate::receive::testing::medium::{Dice, Medium};
use crate::receive::testing::{Bench, request};
use crate::vault::journal::{DiskInfo, Mark};
use crate::vault::retention::Retention;
use crate::vault::upkeep;
use landfall_image::convert::Cancel;
use landfall_image::{Bytes, DiskMut, GuestOffset, GuestRange, Kind};

fn exported(bench: &Bench, from: Option<(u64, &str)>, to: (u64, &str), version: Version) -> Vec<u8> {
    let wanted = Wanted { disk: "sda", from, to: to.0, name: Some(to.1), version };
    let mut out = Vec::new();
    export(&bench.machine, &wanted, &mut out, &Cancel::default()).unwrap();
    out
}

/// Random writes, sizes, and points; some given up, the rest of the journal rewritten; every point exported from nothing and from each
/// earlier one; another machine that takes them holds the same.
#[test]
fn every_difference_between_points_is_exact() {
    for seed in 1..6 {
        let bench = Bench::on(&Medium::default());
        let machine = &bench.machine;
        let mut dice = Dice(seed);
        let mut time = 0;
        for _ in 0..14 {
            let sectors = 40 + dice.roll(120);
            let size = 512 * sectors;
            machine.journal().set_disk(&DiskInfo { name: "sda".into(), size, sector: 512 }).unwrap();
            let live = machine.live("sda").unwrap();
            for _ in 0..dice.roll(6) {
                let at = 512 * dice.roll(sectors);
                let len = (512 * (1 + dice.roll(20))).min(size - at);
                match dice.roll(3) {
                    0 => live.zero_at(GuestRange::new(GuestOffset(at), Bytes(len))).unwrap(),
                    roll => {
                        let byte = if roll == 1 { 0x77 } else { u8::try_from(1 + dice.roll(250)).unwrap() };
                        live.write_at(GuestOffset(at), &vec![byte; usize::try_from(len).unwrap()]).unwrap();
                    }
                }
            }
            time += 1000;
            machine.checkpoint(time, &Mark::default()).unwrap();
            if dice.roll(3) == 0 {
                machine.journal().close_segment();
                let rules: Retention = "3s every 1s, 60s every 3s".parse().unwrap();
                upkeep::run(machine, &rules, &Default::default(), time + 1000, &|_| Ok(())).unwrap();
            }
        }
        let points = bench.points("sda");
        assert!(points.len() > 5);
        for (number, (to, content)) in points.iter().enumerate() {
            let content = content.as_ref().unwrap();
            let other = Bench::on(&Medium::default());
            let version = if number % 2 == 0 { Version::V1 } else { Version::V2 };
            let whole = exported(&bench, None, (*to, "there"), version);
            send(&other, request("sda", "whole"), &whole, 1).unwrap();
            assert!(other.live("sda").as_ref() == Some(content), "seed {seed}: all of point {to}");
            for (from, old) in &points[..number] {
                let other = Bench::on(&Medium::default());
                send(&other, request("sda", "whole"), &exported(&bench, None, (*from, "a"), version), 1)
                    .unwrap();
                let difference = exported(&bench, Some((*from, "a")), (*to, "b"), version);
                let mut request = request("sda", "difference");
                request.sha256 = Some(crate::receive::digest::Sum::of(&difference));
                send(&other, request, &difference, 2).unwrap();
                assert!(other.live("sda").as_ref() == Some(content), "seed {seed}: point {from} to {to}");
                // No more than what differs, in whole blocks.
                let blocks =
                    content.chunks(4096).zip(old.as_ref().unwrap().chunks(4096)).filter(|(a, b)| a != b);
                let differs =
                    blocks.count() * 4096 + content.len().saturating_sub(old.as_ref().unwrap().len());
                assert!(difference.len() <= differs + 4096 + 200 + 40 * (content.len() / 4096 + 1));
            }
        }
    }
}

#[test]
fn what_cannot_be_exported_is_refused() {
    let bench = Bench::on(&Medium::default());
    let machine = &bench.machine;
    let info = DiskInfo { name: "sda".into(), size: 8192, sector: 512 };
    machine.journal().set_disk(&info).unwrap();
    let one = machine.checkpoint(1, &Mark::default()).unwrap();
    let two = machine.checkpoint(2, &Mark::default()).unwrap();
    let go = |wanted: &Wanted<'_>| export(machine, wanted, Vec::new(), &Cancel::default()).unwrap_err();
    let plain = Wanted { disk: "sda", from: None, to: two, name: Some("s"), version: Version::V1 };
    for wanted in [
        Wanted { from: Some((two, "x")), to: one, ..plain.clone() },
        Wanted { from: Some((one, "x")), to: one, ..plain.clone() },
        Wanted { disk: "sdb", ..plain.clone() },
        Wanted { to: 999, ..plain.clone() },
        Wanted { name: Some(""), ..plain.clone() },
        Wanted { name: Some("a@b"), ..plain.clone() },
        Wanted { name: Some("a\n"), ..plain.clone() },
        Wanted { from: Some((one, "a/b")), ..plain.clone() },
    ] {
        let error = go(&wanted);
        assert!(error.kind() == Kind::Refused && error.hint_text().is_some(), "{error}");
    }
    // Another disk of the same name.
    machine.journal().remove_disk(machine.disk_number("sda").unwrap()).unwrap();
    machine.journal().set_disk(&info).unwrap();
    let three = machine.checkpoint(3, &Mark::default()).unwrap();
    let error = go(&Wanted { from: Some((one, "a")), to: three, ..plain.clone() });
    assert!(error.says().contains("made anew"), "{error}");
    let cancel = Cancel::default();
    cancel.cancel();
    machine.live("sda").unwrap().write_at(GuestOffset(0), &[1; 512]).unwrap();
    let four = machine.checkpoint(4, &Mark::default()).unwrap();
    let error = export(machine, &Wanted { to: four, ..plain }, Vec::new(), &cancel).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
}
