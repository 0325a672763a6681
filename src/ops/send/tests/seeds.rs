//! Seeds: whole, damaged in every way, cut off; and what is sent after them.

use super::*;
use crate::ops::send::seed::{take, write};
use landfall_image::testing::noise_bytes;
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

fn machine() -> Source {
    let source = Source::new(&[("sda", 1100 * MIB), ("sdb", 3 * MIB + 512)]);
    source.write("sda", 2 * MIB, &noise_bytes(1, 700_000 / 512 * 512));
    source.write("sda", 1090 * MIB, &noise_bytes(2, 4096));
    source.write("sdb", 3 * MIB, &[7; 512]);
    source.machine.journal().attach("nvram", b"variables").unwrap();
    source.cut();
    source
}

fn point() -> PointName {
    PointName { machine: "web01".parse().unwrap(), at: At::Latest }
}

fn taken(site: &Site, dir: &Path) -> Result<Sending> {
    take(&effort(), &Silent, dir, None, false, &Wire(Mutex::new(site)))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn a_seed_is_carried_over_and_differences_follow() {
    let (source, site, dir) = (machine(), Site::new(), tempfile::tempdir().unwrap());
    let seeded = write(&effort(), &Silent, &source, &point(), dir.path()).unwrap();
    assert_eq!((seeded.files, seeded.kept), (3, 0), "{seeded:?}");
    assert!(seeded.bytes.0 < 2 * MIB);
    let longest =
        files(Path::new(&seeded.folder)).iter().map(|path| path.metadata().unwrap().len()).max().unwrap();
    assert!(longest < 1 << 32, "FAT32");
    // Written again, nothing is read again.
    let again = write(&effort(), &Silent, &source, &point(), dir.path()).unwrap();
    assert_eq!((again.files, again.kept, again.bytes), (3, 3, seeded.bytes));
    let done = taken(&site, dir.path()).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb"]);
    let machine = site.machine("web01");
    assert_eq!(machine.at(done.point.unwrap()).unwrap().state().attachments["nvram"], b"variables");
    let again = taken(&site, dir.path()).unwrap();
    assert_eq!((again.point, again.line.0), (done.point, 0));
    source.write("sda", 0, &[5; 512]);
    source.cut();
    let done = send_to(&source, &site, &request(At::Latest)).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb"]);
    assert_eq!((done.disks[0].way, done.disks[0].content.0), (Way::Differences, 4096));
    // An older seed is no way back; into another machine it goes only where that is said.
    let error = taken(&site, dir.path()).unwrap_err();
    assert!(error.to_string().contains("later than"), "{error}");
    let nbd: Name = "nbd01".parse().unwrap();
    site.with(|here| {
        let machine = here.vault.machine_or_new(&nbd).unwrap();
        machine.journal().set_disk(&DiskInfo { name: "sda".into(), size: 4 * MIB, sector: 512 }).unwrap();
        machine.live("sda").unwrap().write_at(GuestOffset(MIB), &[1; 8192]).unwrap();
    });
    let into = |replace| take(&effort(), &Silent, dir.path(), Some(&nbd), replace, &Wire(Mutex::new(&site)));
    assert!(into(false).unwrap_err().to_string().contains("was never sent"));
    let done = into(true).unwrap();
    assert_there(&source, &site, &done, &["sda", "sdb"]);
}

/// Any byte of any file of it: it is refused with the file and a place in it, and the site is as it was; the control passes.
#[test]
fn a_damaged_seed_is_refused_and_nothing_of_it_is_offered() {
    let (source, dir) = (Source::new(&[("sda", 2 * MIB)]), tempfile::tempdir().unwrap());
    source.write("sda", 0, &noise_bytes(1, 8192));
    source.write("sda", MIB, &[3; 8192]);
    source.cut();
    let seeded = write(&effort(), &Silent, &source, &point(), dir.path()).unwrap();
    let folder = PathBuf::from(&seeded.folder);
    let site = Site::new();
    for path in files(&folder) {
        let good = std::fs::read(&path).unwrap();
        let places = (0..good.len()).step_by((good.len() / 40).max(1)).chain([good.len() - 1]);
        for at in places {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // What it is of is told once more in the manifest, and a blank after the digest is none of it.
            if name == "source.json" || name == "seed.b3" && at >= 64 {
                continue;
            }
            let error = taken(&site, &folder).expect_err(&format!("{name} at {at}"));
            assert!(error.path().is_some() && error.hint_text().is_some(), "{name} at {at}: {error}");
            if name.ends_with(".part") {
                assert_eq!(error.path(), Some(path.as_path()));
                let told = error.offset().unwrap().0;
                assert!(told <= good.len() as u64, "{told}");
            }
        }
        std::fs::write(&path, &good).unwrap();
        // Cut off, longer, and not there.
        if path.extension().is_some_and(|ending| ending == "part") {
            for bad in [&good[..good.len() - 1], &good[..10], &[&good[..], &[0]].concat(), &[]] {
                std::fs::write(&path, bad).unwrap();
                assert!(taken(&site, &folder).is_err());
            }
            std::fs::remove_file(&path).unwrap();
            let error = taken(&site, &folder).unwrap_err();
            assert!(error.to_string().contains("is not there"), "{error}");
            std::fs::write(&path, &good).unwrap();
        }
    }
    assert!(site.points("web01").is_empty());
    assert!(site.with(|here| here.incoming.batches.unfinished().unwrap().is_empty()));
    let done = taken(&site, &folder).unwrap();
    assert_there(&source, &site, &done, &["sda"]);
}

#[test]
fn a_seed_that_was_cut_off_is_gone_on_with_on_both_sides() {
    let (source, dir) = (machine(), tempfile::tempdir().unwrap());
    let stopped = effort();
    stopped.cancel.cancel();
    assert!(write(&stopped, &Silent, &source, &point(), dir.path()).is_err());
    let folder = files(dir.path()).remove(0);
    let site = Site::new();
    let error = taken(&site, dir.path()).unwrap_err();
    assert!(error.to_string().contains("not sealed"), "{error}");
    let seeded = write(&effort(), &Silent, &source, &point(), dir.path()).unwrap();
    assert_eq!(seeded.folder, folder.display().to_string());
    std::fs::remove_file(folder.join("disk0-00001.part")).unwrap();
    let seeded = write(&effort(), &Silent, &source, &point(), dir.path()).unwrap();
    assert_eq!((seeded.files, seeded.kept), (3, 2));
    // The receiver is killed in between, and at the end.
    let calls = {
        let site = Site::new();
        taken(&site, dir.path()).unwrap();
        site.calls.get()
    };
    for call in (1..calls).step_by(3).chain([calls - 1]) {
        let site = Site::new();
        site.trouble.set(Some((call, Trouble::KilledBehind)));
        let first = taken(&site, dir.path());
        assert!(site.points("web01").len() <= 1);
        let done = first.or_else(|_| taken(&site, dir.path())).unwrap();
        assert_there(&source, &site, &done, &["sda", "sdb"]);
        assert_eq!(site.points("web01").len(), 1);
    }
}
