//! The corpus of real files, by its MANIFEST.tsv.

use super::{check_consistency, open, sha256};
use crate::corpus;

#[test]
fn real_images_read_as_other_readers_read_them() {
    let mut done = 0;
    for row in corpus::rows("vmdk") {
        if row.expected == "-" || !row.path.contains(".vmdk") {
            continue;
        }
        let file = row.unpack();
        match (open(&file.path), row.expected.starts_with("raw:")) {
            (Ok(image), true) => {
                row.compare(&*image.disk);
                if image.disk.size().0 <= 16 << 20 {
                    for step in [512, 77_777] {
                        assert!(
                            row.expected.ends_with(&sha256(&*image.disk, step)),
                            "{} by {step}",
                            row.path
                        );
                    }
                }
                check_consistency(&*image.disk);
            }
            (Err(error), false) => {
                assert!(row.expected.starts_with("refuse"), "{}: {error}", row.path);
                assert!(error.hint_text().is_some(), "{}: {error}", row.path);
            }
            (Ok(_), false) => panic!("{} must be refused: {}", row.path, row.expected),
            (Err(error), true) => panic!("{}: {error}", row.path),
        }
        done += 1;
    }
    assert!(done == 0 || done >= 11, "of the corpus only {done} images");
}

#[test]
fn generated_images_have_their_recorded_content() {
    let Some(root) = corpus::root() else { return };
    if !super::qemu::tools() {
        return;
    }
    let commands = std::fs::read_to_string(root.join("generated/COMMANDS.txt")).unwrap();
    let wanted: Vec<&str> = commands
        .lines()
        .filter(|line| {
            let makes_raw = !line.starts_with("qemu-img") && !line.starts_with("for");
            line.contains("vmdk") || (makes_raw && (line.contains("base.raw") || line.contains("odd.raw")))
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let out = std::process::Command::new("bash")
        .args(["-ec", &wanted.join("\n")])
        .current_dir(dir.path())
        .output()
        .unwrap();
    if !out.status.success() {
        eprintln!("SKIPPED: cannot generate: {}", String::from_utf8_lossy(&out.stderr));
        return;
    }
    let hashes = std::fs::read_to_string(root.join("generated/HASHES.tsv")).unwrap();
    let mut done = 0;
    for line in hashes.lines() {
        let [file, "vmdk", size, raw, digest] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let image = open(&dir.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(image.disk.size().0.to_string(), size, "{file}");
        assert_eq!(corpus::nz4k(&*image.disk), digest, "{file}");
        if image.disk.size().0 <= 64 << 20 {
            assert_eq!(sha256(&*image.disk, 1 << 20), raw, "{file}");
        }
        check_consistency(&*image.disk);
        done += 1;
    }
    assert!(done >= 15, "only {done} images");
}
