//! The corpus of real files, by its MANIFEST.tsv.

use super::{check_consistency, nz4k, open, sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The corpus, or `None` with a loud word.
pub(super) fn corpus() -> Option<PathBuf> {
    let path = std::env::var_os("LANDFALL_CORPUS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus"), PathBuf::from);
    if path.join("MANIFEST.tsv").is_file() {
        return Some(path);
    }
    eprintln!("SKIPPED: no corpus at {}; set LANDFALL_CORPUS", path.display());
    None
}

/// A copy of the folder that holds `file`, decompressed.
fn unpack(corpus: &Path, file: &str, into: &Path) -> PathBuf {
    let folder = Path::new(file).parent().unwrap();
    for entry in std::fs::read_dir(corpus.join(folder)).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_str().unwrap();
        if !from.is_file() || !name.contains(".vmdk") {
            continue;
        }
        match name.strip_suffix(".zst") {
            Some(plain) => {
                let packed = std::fs::File::open(&from).unwrap();
                zstd::stream::copy_decode(packed, std::fs::File::create(into.join(plain)).unwrap()).unwrap();
            }
            None => drop(std::fs::copy(&from, into.join(name)).unwrap()),
        }
    }
    let name = Path::new(file).file_name().unwrap().to_str().unwrap();
    into.join(name.strip_suffix(".zst").unwrap_or(name))
}

#[test]
fn real_images_read_as_other_readers_read_them() {
    let Some(corpus) = corpus() else { return };
    let manifest = std::fs::read_to_string(corpus.join("MANIFEST.tsv")).unwrap();
    let mut done = BTreeSet::new();
    for line in manifest.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [file, kind, _, _, _, size, expected, digest, ..] = fields[..] else { continue };
        if !kind.starts_with("vmdk") || !file.contains(".vmdk") || expected == "-" {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = unpack(&corpus, file, dir.path());
        match (open(&path), expected.strip_prefix("raw:")) {
            (Ok(image), Some(raw)) => {
                assert_eq!(image.disk.size().0.to_string(), size, "{file}");
                assert_eq!(nz4k(&*image.disk), digest, "{file}");
                if image.disk.size().0 <= 1 << 30 {
                    assert_eq!(sha256(&*image.disk, 1 << 20), raw, "{file}");
                }
                if image.disk.size().0 <= 16 << 20 {
                    assert_eq!(sha256(&*image.disk, 77_777), raw, "{file}");
                    assert_eq!(sha256(&*image.disk, 512), raw, "{file}");
                }
                check_consistency(&*image.disk);
            }
            (Err(error), None) => {
                assert!(expected.starts_with("refuse"), "{file}: {error}");
                eprintln!("{error}\n  hint: {}", error.hint_text().unwrap_or("none"));
            }
            (Ok(_), None) => panic!("{file} must be refused: {expected}"),
            (Err(error), Some(_)) => panic!("{file}: {error}"),
        }
        done.insert(file.to_owned());
    }
    assert!(done.len() >= 11, "of the corpus only {done:?}");
}

#[test]
fn generated_images_have_their_recorded_content() {
    let Some(corpus) = corpus() else { return };
    if !super::qemu::tools() {
        return;
    }
    let commands = std::fs::read_to_string(corpus.join("generated/COMMANDS.txt")).unwrap();
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
    let hashes = std::fs::read_to_string(corpus.join("generated/HASHES.tsv")).unwrap();
    let mut done = 0;
    for line in hashes.lines() {
        let [file, "vmdk", size, raw, digest] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let image = open(&dir.path().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(image.disk.size().0.to_string(), size, "{file}");
        assert_eq!(nz4k(&*image.disk), digest, "{file}");
        if image.disk.size().0 <= 64 << 20 {
            assert_eq!(sha256(&*image.disk, 1 << 20), raw, "{file}");
        }
        check_consistency(&*image.disk);
        done += 1;
    }
    assert!(done >= 15, "only {done} images");
}
