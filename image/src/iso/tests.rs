//! Images that other programs made, read by all three kinds of names; damage.

use super::record::u32_le;
use super::*;
use crate::error::Kind;
use std::path::{Path, PathBuf};
use std::process::Command;

fn tool(name: &str) -> bool {
    let found = Command::new(name).arg("-version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: images of {name}, which is not installed (apt-get install {name})");
    }
    found
}

/// A tree as drivers come, and its image.
fn image(folder: &Path, maker: &[&str]) -> PathBuf {
    let tree = folder.join("tree");
    let w10 = tree.join("viostor/w10/amd64");
    std::fs::create_dir_all(&w10).unwrap();
    std::fs::create_dir_all(tree.join("NetKVM/2k12R2/amd64")).unwrap();
    std::fs::write(w10.join("viostor.inf"), "[Version]\r\n").unwrap();
    std::fs::write(w10.join("viostor.sys"), vec![7; 70_000]).unwrap();
    std::fs::write(
        tree.join("NetKVM/2k12R2/amd64/a name that is a good deal longer than eight letters.txt"),
        "x",
    )
    .unwrap();
    for number in 0..100 {
        std::fs::write(tree.join("NetKVM").join(format!("file-{number:03}.bin")), [number]).unwrap();
    }
    let path = folder.join("image.iso");
    let status = Command::new(maker[0]).args(&maker[1..]).arg("-o").arg(&path).arg(&tree).output().unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    path
}

fn open(path: &Path) -> Result<Iso> {
    Iso::open(Source::open(path)?)
}

fn read(iso: &Iso, path: &str) -> Option<Vec<u8>> {
    let entry = iso.find(path).unwrap()?;
    Some(iso.read(&entry, Bytes::mib(1)).unwrap())
}

#[test]
fn images_of_other_programs_are_read() {
    for (maker, scheme) in [
        (&["genisoimage", "-quiet", "-r", "-J"][..], "RockRidge { skip: 0 }"),
        (&["genisoimage", "-quiet", "-J", "-joliet-long"][..], "Joliet"),
        (&["genisoimage", "-quiet", "-iso-level", "4"][..], "Plain"),
        (&["genisoimage", "-quiet", "-udf", "-r"][..], "RockRidge { skip: 0 }"),
        (&["xorriso", "-as", "mkisofs", "-quiet", "-r", "-J"][..], "RockRidge { skip: 0 }"),
        (&["xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "--norock", "-J"][..], "Joliet"),
    ] {
        if !tool(maker[0]) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let iso = open(&image(folder.path(), maker)).unwrap();
        assert_eq!(format!("{:?}", iso.scheme), scheme, "{maker:?}");
        assert_eq!(read(&iso, "viostor/w10/amd64/viostor.inf").unwrap(), b"[Version]\r\n");
        assert_eq!(read(&iso, "/VIOSTOR/W10/AMD64/VIOSTOR.SYS").unwrap(), vec![7; 70_000]);
        assert_eq!(read(&iso, "netkvm/file-099.bin").unwrap(), [99]);
        assert_eq!(read(&iso, "viostor/w11/amd64/viostor.inf"), None);
        assert_eq!(read(&iso, "viostor/w10/amd64/viostor.inf/x"), None);
        let names = iso.list(&iso.find("NetKVM").unwrap().unwrap()).unwrap();
        assert_eq!(names.len(), 101, "{maker:?}");
        if !scheme.starts_with("Plain") {
            let long = iso.list(&iso.find("NetKVM/2k12R2/amd64").unwrap().unwrap()).unwrap();
            assert_eq!(long[0].name, "a name that is a good deal longer than eight letters.txt");
        }
        let sys = iso.find("viostor/w10/amd64/viostor.sys").unwrap().unwrap();
        let refused = iso.read(&sys, Bytes(69_999)).unwrap_err();
        assert_eq!(refused.kind(), Kind::Refused);
    }
}

#[test]
fn what_is_none_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.iso");
    for bytes in [Vec::new(), vec![0; 100], vec![0; 100_000]] {
        std::fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.hint_text().is_some());
    }
}

/// Lengths and positions that lead out of the image, or nowhere.
#[test]
fn damage_is_an_error_and_never_a_panic() {
    if !tool("genisoimage") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), &["genisoimage", "-quiet", "-r", "-J"]);
    let good = std::fs::read(&path).unwrap();
    let root = usize::try_from(u32_le(&good, 16 * 2048 + 158).unwrap()).unwrap() * 2048;
    let broken = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        std::fs::write(&path, bad).unwrap();
        open(&path).and_then(|iso| iso.list(iso.root()))
    };
    let kind = |result: Result<Vec<Entry>>| result.unwrap_err().kind();
    assert_eq!(kind(broken(16 * 2048 + 128, &[0, 9])), Kind::Corrupt);
    assert_eq!(kind(broken(16 * 2048 + 158, &u32::MAX.to_le_bytes())), Kind::Corrupt);
    assert_eq!(kind(broken(16 * 2048 + 166, &u32::MAX.to_le_bytes())), Kind::Refused);
    // The third name: what another system keeps beside a file is no file, and its record may be too short for one.
    let third = root + usize::from(good[root]) + usize::from(good[root + usize::from(good[root])]);
    let names = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    assert_eq!(names(broken(third + 25, &[good[third + 25]]).unwrap()), ["NetKVM", "viostor"]);
    assert_eq!(names(broken(third + 25, &[good[third + 25] | 4]).unwrap()), ["viostor"]);
    assert_eq!(kind(broken(third, &[20])), Kind::Corrupt);
    // A cut image opens, and says so where it ends.
    std::fs::write(&path, &good[..root + 2048]).unwrap();
    let iso = open(&path).unwrap();
    assert_eq!(iso.find("viostor/w10").unwrap_err().kind(), Kind::Corrupt);
    // Every byte of the descriptor and of the root folder, one after the other.
    for at in (16 * 2048..16 * 2048 + 190).chain(root..root + 600) {
        for value in [0, 1, 0x7f, 0xff] {
            if let Ok(entries) = broken(at, &[value]) {
                let iso = open(&path).unwrap();
                for entry in entries {
                    let _ = iso.read(&entry, Bytes::mib(1));
                    let _ = iso.list(&entry);
                }
            }
        }
    }
}
