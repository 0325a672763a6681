//! The program on one disk image: every sample through `landfall disk convert`, and what happens when it is stopped,
//! killed, or out of space.

use super::corpus::{Corpus, Expected, reading, verdict};
use landfall_image::testing;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// What the program may take at most, whatever the image says.
const MEMORY_KIB: u64 = 256 << 10;

/// Longer than any sample takes, by far: the sign of a hang.
const PATIENCE: Duration = Duration::from_secs(300);

pub(super) fn landfall(arguments: &[&str], paths: &[&Path]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command.args(arguments).args(paths).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Lets the program run to its end and gives its output and the most memory it was seen to hold, in KiB; the pages of its own file,
/// which are large without optimisation, are nobody's memory.
pub(super) fn measured(mut command: Command) -> (Output, u64) {
    let mut child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let begin = Instant::now();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let field = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok()).unwrap_or(0)
        };
        most = most.max(field("VmHWM:").saturating_sub(field("RssFile:")));
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    (child.wait_with_output().unwrap(), most)
}

pub(super) fn files_in(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn every_image_goes_through_the_program() {
    let Some((mut corpus, rows)) = Corpus::open() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    let mut most = 0;
    for row in &rows {
        let image = corpus.image(row);
        let target = folder.path().join("out.qcow2");
        let (output, kib) = measured(landfall(&["disk", "convert", "--jobs", "8"], &[&image, &target]));
        most = most.max(kib);
        let says = String::from_utf8_lossy(&output.stderr);
        let mut fail = |what: String| wrong.push(format!("{}: {what}: {says}", row.path));
        if kib > MEMORY_KIB {
            fail(format!("took {} MiB", kib >> 10));
        }
        match (output.status.code(), &row.expected) {
            (Some(0), Expected::Content { .. } | Expected::Either { .. }) => {
                if let Err(what) = verdict(&row.expected, &reading(&target)) {
                    fail(what);
                }
            }
            (Some(1 | 2), Expected::Refusal(_) | Expected::Either { .. }) => {
                if !says.contains(image.file_name().unwrap().to_str().unwrap()) {
                    fail("does not name the image".into());
                }
                if !files_in(folder.path()).is_empty() {
                    fail(format!("left {:?}", files_in(folder.path())));
                }
            }
            (code, _) => fail(format!("ended with {code:?}")),
        }
        for name in files_in(folder.path()) {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
    }
    eprintln!("{} images, at most {} MiB", rows.len(), most >> 10);
    assert!(wrong.is_empty(), "{} images:\n{}", wrong.len(), wrong.join("\n"));
}

/// A raw disk of noise, and its content.
fn noisy(path: &Path, len: usize) -> Vec<u8> {
    let content = testing::noise_bytes(1, len);
    std::fs::write(path, &content).unwrap();
    content
}

/// The program at work on a disk that it may only read slowly; returned when its target has begun to grow.
fn at_work(source: &Path, target: &Path) -> Child {
    let mut child =
        landfall(&["disk", "convert", "-f", "raw", "--rate-limit", "4M"], &[source, target]).spawn().unwrap();
    let name = format!(".{}.landfall-partial", target.file_name().unwrap().to_str().unwrap());
    let begin = Instant::now();
    while !target.with_file_name(&name).exists() {
        assert!(child.try_wait().unwrap().is_none() && begin.elapsed() < PATIENCE, "it did not begin");
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn a_stopped_run_leaves_nothing_and_a_killed_one_can_be_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    let content = noisy(&source, 24 << 20);
    for ending in ["raw", "qcow2"] {
        let out = folder.path().join(ending);
        std::fs::create_dir(&out).unwrap();
        let target = out.join(format!("disk.{ending}"));

        let child = at_work(&source, &target);
        let stop = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        assert!(stop.success());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(String::from_utf8_lossy(&output.stderr).contains("stopped"));
        assert_eq!(files_in(&out), [""; 0]);

        // While one run is at work, a second one is refused and does it no harm.
        let mut child = at_work(&source, &target);
        let (second, _) = measured(landfall(&["disk", "convert", "-f", "raw"], &[&source, &target]));
        assert_eq!(second.status.code(), Some(1), "{}", String::from_utf8_lossy(&second.stderr));
        assert!(String::from_utf8_lossy(&second.stderr).contains("another run"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(
            files_in(&out),
            [format!(".disk.{ending}.landfall-journal"), format!(".disk.{ending}.landfall-partial")],
            "killed: only what it can be continued with"
        );

        let (again, _) = measured(landfall(&["disk", "convert", "-f", "raw"], &[&source, &target]));
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert_eq!(files_in(&out), [format!("disk.{ending}")]);
        let anew = std::fs::read(&target).unwrap();

        // Continued instead: the same file, and part of it from the run that was killed.
        std::fs::remove_file(&target).unwrap();
        let mut child = at_work(&source, &target);
        let journal = out.join(format!(".disk.{ending}.landfall-journal"));
        while std::fs::read_to_string(&journal).map_or(0, |text| text.lines().count()) < 4 {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let (resumed, _) =
            measured(landfall(&["disk", "convert", "-f", "raw", "--resume", "--json"], &[&source, &target]));
        assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
        let said: serde_json::Value = serde_json::from_slice(&resumed.stdout).unwrap();
        assert!(said["resumed"].as_u64().unwrap() > 0, "{said}");
        assert!(std::fs::read(&target).unwrap() == anew, "the same image");
        assert_eq!(files_in(&out), [format!("disk.{ending}")]);
        let (compared, _) = measured(landfall(&["disk", "compare", "-f", "raw"], &[&source, &target]));
        assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
    }
    assert!(std::fs::read(&source).unwrap() == content, "the source is as it was");
}

/// A file system with room for 4 MiB; `None`, after a loud word, where it cannot be mounted.
pub(super) struct Small(tempfile::TempDir);

impl Small {
    pub fn new() -> Option<Small> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: cannot mount a small file system (needs root)");
            return None;
        }
        Some(Small(folder))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Nothing can be written any more; false, after a loud word, where that cannot be had.
    pub fn make_read_only(&self) -> bool {
        let mount = Command::new("mount").args(["-o", "remount,ro"]).arg(self.path()).status();
        let is_done = mount.is_ok_and(|status| status.success());
        if !is_done {
            eprintln!("SKIPPED: cannot mount a file system read-only");
        }
        is_done
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_target_is_an_error_with_a_hint_and_leaves_nothing() {
    let Some(small) = Small::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    noisy(&source, 16 << 20);
    for ending in ["raw", "qcow2"] {
        let target = small.0.path().join(format!("disk.{ending}"));
        let (output, _) = measured(landfall(&["disk", "convert", "-f", "raw"], &[&source, &target]));
        let says = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{says}");
        assert!(says.contains("No space left") && says.contains("hint: "), "{says}");
        assert!(says.contains(&format!("disk.{ending}")), "{says}");
        assert_eq!(files_in(small.0.path()), [""; 0]);
    }
}

#[test]
fn an_existing_target_is_kept_unless_it_may_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    let content = noisy(&source, 1 << 20);
    let target = folder.path().join("target.raw");
    std::fs::write(&target, "precious").unwrap();
    let (output, _) = measured(landfall(&["disk", "convert", "-f", "raw"], &[&source, &target]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    let (output, _) = measured(landfall(&["disk", "convert", "-f", "raw", "--replace"], &[&source, &target]));
    assert!(output.status.success());
    assert!(std::fs::read(&target).unwrap() == content);
    // The source under another name is not overwritten even so.
    let link = folder.path().join("link.raw");
    std::fs::hard_link(&source, &link).unwrap();
    let (output, _) = measured(landfall(&["disk", "convert", "-f", "raw", "--replace"], &[&source, &link]));
    assert_eq!(output.status.code(), Some(1));
    assert!(std::fs::read(&source).unwrap() == content);
}

/// The exit code and the words of `disk compare`.
#[test]
fn images_are_compared() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.raw");
    noisy(&source, 3 << 20);
    let other = folder.path().join("other.raw");
    std::fs::copy(&source, &other).unwrap();
    let compare = |arguments: &[&str]| {
        let all: Vec<&str> =
            ["disk", "compare", "-f", "raw", "-F", "raw"].iter().chain(arguments).copied().collect();
        let (output, _) = measured(landfall(&all, &[&source, &other]));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert_eq!(compare(&[]).0, Some(0));
    let file = std::fs::OpenOptions::new().write(true).open(&other).unwrap();
    file.set_len(4 << 20).unwrap();
    assert_eq!(compare(&[]).0, Some(0), "only zeros follow");
    assert_eq!(compare(&["--strict"]).0, Some(1));
    file.write_all_at(&[0xaa], 2_000_001).unwrap();
    let (code, says) = compare(&[]);
    assert_eq!(code, Some(1));
    assert!(says.contains("2000001") || says.contains("0x1e8481"), "{says}");
}
