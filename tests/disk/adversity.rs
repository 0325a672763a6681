//! The program on a bad day, for every kind that is written: killed, out of room, nowhere to write, and told to write over
//! what it reads.
//!
//! All of it walks `formats::KINDS`: a new kind inherits it.

use super::pairs::file_name;
use super::program::{Small, files_in, landfall, measured};
use landfall_image::formats::{self, KINDS, KindRow};
use landfall_image::testing::{noise_bytes, text_bytes};
use landfall_image::{Format, OpenOptions};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// Noise, text, holes.
fn content() -> Vec<u8> {
    let mut content = noise_bytes(11, 24 << 20);
    content[3 << 20..5 << 20].fill(0);
    content[9 << 20..12 << 20].copy_from_slice(&text_bytes(1, 3 << 20));
    content
}

/// Every file in a folder.
fn contents_of(folder: &Path) -> BTreeMap<String, blake3::Hash> {
    let hash = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).unwrap();
        (name, blake3::hash(&bytes))
    };
    files_in(folder).into_iter().map(hash).collect()
}

/// Runs a conversion from raw to its end: exit code, what it says.
fn convert(kind: &KindRow, more: &[&str], source: &Path, target: &Path) -> (Option<i32>, String, Vec<u8>) {
    let mut arguments = vec!["disk", "convert", "-f", "raw", "-O", kind.name];
    arguments.extend(more);
    let (output, _) = measured(landfall(&arguments, &[source, target]));
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), output.stdout)
}

/// Starts a conversion that is slow, and kills it as the kernel would once it has something to show.
fn kill_in_the_middle(kind: &KindRow, source: &Path, target: &Path) {
    let arguments = ["disk", "convert", "-f", "raw", "--rate-limit", "8M", "-O", kind.name];
    let mut command = landfall(&arguments, &[source, target]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let name = format!(".{}.landfall-journal", target.file_name().unwrap().to_str().unwrap());
    let journal = target.with_file_name(name);
    let begin = Instant::now();
    while std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 6 {
        assert!(child.try_wait().unwrap().is_none(), "{}: it ended before it could be killed", kind.name);
        assert!(begin.elapsed() < PATIENCE, "{}: nothing is written down", kind.name);
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!target.exists(), "{}: killed, and there is a result", kind.name);
}

/// One that lies there as a run was killed, and one whose bytes were changed since: both are continued, to the same files
/// that a run makes which nobody disturbs.
#[test]
fn a_killed_run_of_every_kind_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    let content = content();
    std::fs::write(&source, &content).unwrap();
    let run = |kind: &KindRow| {
        let out = folder.path().join(kind.name);
        std::fs::create_dir(&out).unwrap();
        // One name, since it may be in the image.
        let target = out.join(file_name(kind));
        let (code, says, _) = convert(kind, &[], &source, &target);
        assert_eq!(code, Some(0), "{}: {says}", kind.name);
        let expected = contents_of(&out);
        for spoil in [false, true] {
            for name in files_in(&out) {
                std::fs::remove_file(out.join(name)).unwrap();
            }
            kill_in_the_middle(kind, &source, &target);
            for name in files_in(&out).iter().filter(|name| spoil && name.ends_with("-partial")) {
                let file = std::fs::OpenOptions::new().write(true).open(out.join(name)).unwrap();
                let len = file.metadata().unwrap().len();
                for at in [0, 700, len / 3, len / 2] {
                    file.write_all_at(b"spoilt", at).unwrap();
                }
            }
            let (code, says, out_json) = convert(kind, &["--resume", "--json"], &source, &target);
            assert_eq!(code, Some(0), "{}: {says}", kind.name);
            let said: serde_json::Value = serde_json::from_slice(&out_json).unwrap();
            if !spoil {
                assert!(said["resumed"].as_u64().unwrap() > 0, "{}: {said}", kind.name);
            }
            assert!(contents_of(&out) == expected, "{} (spoilt: {spoil}): other files", kind.name);
        }
        std::fs::remove_dir_all(&out).unwrap();
    };
    // They wait more than they work.
    std::thread::scope(|scope| {
        for kinds in KINDS.chunks(KINDS.len().div_ceil(4)) {
            let run = &run;
            scope.spawn(move || kinds.iter().for_each(run));
        }
    });
    assert!(std::fs::read(&source).unwrap() == content, "the source is as it was");
}

/// A full disk: the error names the target, there is a hint, and nothing is left.
#[test]
fn a_full_disk_leaves_nothing_of_any_kind() {
    let Some(small) = Small::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, noise_bytes(1, 12 << 20)).unwrap();
    for kind in KINDS {
        let target = small.path().join(file_name(kind));
        let (code, says, _) = convert(kind, &[], &source, &target);
        assert_eq!(code, Some(2), "{}: {says}", kind.name);
        assert!(says.contains("No space left") && says.contains("hint: "), "{}: {says}", kind.name);
        assert!(says.contains(small.path().to_str().unwrap()), "{}: {says}", kind.name);
        assert_eq!(files_in(small.path()), [""; 0], "{}", kind.name);
    }
}

/// Root may write everywhere but on a file system that is mounted read-only.
#[test]
fn a_read_only_target_is_said_to_be_one() {
    let Some(small) = Small::new() else { return };
    if !small.make_read_only() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, noise_bytes(1, 1 << 20)).unwrap();
    for kind in KINDS {
        let target = small.path().join(file_name(kind));
        let (code, says, _) = convert(kind, &[], &source, &target);
        assert_eq!(code, Some(2), "{}: {says}", kind.name);
        assert!(says.contains("ead-only") && says.contains("hint: "), "{}: {says}", kind.name);
        assert!(says.contains(target.to_str().unwrap()), "{}: {says}", kind.name);
    }
}

/// No name by which a file of the source can be called makes it a target, not even with --replace.
#[test]
fn no_file_of_the_source_is_ever_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let raw = folder.path().join("source.raw");
    let content = noise_bytes(1, 3 << 20);
    std::fs::write(&raw, &content).unwrap();
    for kind in KINDS {
        let own = folder.path().join(kind.name);
        std::fs::create_dir(&own).unwrap();
        let image = own.join(file_name(kind));
        let (code, says, _) = convert(kind, &[], &raw, &image);
        assert_eq!(code, Some(0), "{}: {says}", kind.name);
        let before = contents_of(&own);
        let others = folder.path().join("links");
        for name in before.keys() {
            std::fs::create_dir(&others).unwrap();
            let (symbolic, hard) = (others.join("symbolic.raw"), others.join("hard.raw"));
            std::os::unix::fs::symlink(own.join(name), &symbolic).unwrap();
            std::fs::hard_link(own.join(name), &hard).unwrap();
            let dotted = own.join(".").join(name);
            for target in [&own.join(name), &dotted, &symbolic, &hard] {
                for more in [&[][..], &["--replace"]] {
                    let mut arguments = vec!["disk", "convert", "-f", kind.format.name(), "-O", "raw"];
                    arguments.extend(more);
                    let (output, _) = measured(landfall(&arguments, &[&image, target]));
                    let says = String::from_utf8_lossy(&output.stderr);
                    let what = format!("{} into {} {more:?}: {says}", kind.name, target.display());
                    assert_eq!(output.status.code(), Some(1), "{what}");
                    assert!(contents_of(&own) == before, "{what}");
                }
            }
            std::fs::remove_dir_all(&others).unwrap();
        }
    }
}

/// An image of several files writes some under names that are made of the target's. One of them may be the source.
#[test]
fn no_further_file_of_the_target_is_the_source() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.raw");
    let content = noise_bytes(1, 3 << 20);
    std::fs::write(&other, &content).unwrap();
    for kind in KINDS {
        let probe = folder.path().join("probe");
        std::fs::create_dir(&probe).unwrap();
        let (code, says, _) = convert(kind, &[], &other, &probe.join(file_name(kind)));
        assert_eq!(code, Some(0), "{}: {says}", kind.name);
        for name in files_in(&probe).into_iter().filter(|name| *name != file_name(kind)) {
            let own = folder.path().join("own");
            std::fs::create_dir(&own).unwrap();
            std::fs::write(own.join(&name), &content).unwrap();
            for more in [&[][..], &["--replace"]] {
                let (code, says, _) = convert(kind, more, &own.join(&name), &own.join(file_name(kind)));
                assert_eq!(code, Some(1), "{} over {name} {more:?}: {says}", kind.name);
                assert!(std::fs::read(own.join(&name)).unwrap() == content, "{} over {name}", kind.name);
                assert_eq!(files_in(&own), std::slice::from_ref(&name), "{} over {name} {more:?}", kind.name);
            }
            std::fs::remove_dir_all(&own).unwrap();
        }
        std::fs::remove_dir_all(&probe).unwrap();
    }
}

/// A link in the target's place is neither followed nor replaced: what it leads to may be worth more than the link. A
/// linked folder is a folder.
#[test]
fn a_link_in_the_targets_place_is_not_written_through() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    std::fs::write(&source, noise_bytes(1, 1 << 20)).unwrap();
    let precious = folder.path().join("precious");
    std::fs::write(&precious, "precious").unwrap();
    for kind in KINDS {
        let own = folder.path().join(kind.name);
        std::fs::create_dir(&own).unwrap();
        let target = own.join(file_name(kind));
        for leads_to in [precious.clone(), folder.path().join("nowhere")] {
            std::os::unix::fs::symlink(&leads_to, &target).unwrap();
            for more in [&[][..], &["--replace"]] {
                let (code, says, _) = convert(kind, more, &source, &target);
                let what = format!("{} {more:?} over a link to {}: {says}", kind.name, leads_to.display());
                assert_eq!(code, Some(1), "{what}");
                assert_eq!(std::fs::read_link(&target).unwrap(), leads_to, "{what}");
                assert_eq!(files_in(&own), [file_name(kind)], "{what}");
                assert_eq!(std::fs::read(&precious).unwrap(), b"precious", "{what}");
                assert!(!folder.path().join("nowhere").exists(), "{what}");
            }
            std::fs::remove_file(&target).unwrap();
        }
        let linked = folder.path().join("linked");
        std::os::unix::fs::symlink(&own, &linked).unwrap();
        let (code, says, _) = convert(kind, &[], &source, &linked.join(file_name(kind)));
        assert_eq!(code, Some(0), "{}: {says}", kind.name);
        assert!(is_copy(&target, kind.format, &source), "{}", kind.name);
        std::fs::remove_file(&linked).unwrap();
    }
}

fn is_copy(path: &Path, format: Format, raw: &Path) -> bool {
    let content = std::fs::read(raw).unwrap();
    let options = OpenOptions { format: Some(format), ..OpenOptions::default() };
    let read = landfall_image::testing::read_all(&*formats::open(path, &options).unwrap().disk).unwrap();
    read[..content.len()] == content
}
