//! The program as a user meets it: help, exit codes, interruption, what is left behind.

mod file_schemas;
pub mod schemas;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn landfall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    command.env_remove("LANDFALL_LOG").env("COLUMNS", "110");
    command
}

fn run(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    landfall().args(args.iter().map(|arg| arg.as_ref())).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A raw disk with data all over it.
fn raw_disk(folder: &Path, mib: usize) -> PathBuf {
    let path = folder.join("source.raw");
    let data: Vec<u8> = (0..mib << 20).map(|n| u8::try_from(n * 7 / 3 % 251).unwrap() | 1).collect();
    fs::write(&path, data).unwrap();
    path
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn the_whole_help() {
    let mut all = String::new();
    for verb in [
        &[][..],
        &["convert"],
        &["inspect"],
        &["batch"],
        &["map"],
        &["map", "check"],
        &["prove"],
        &["register"],
        &["serve"],
        &["status"],
        &["protect"],
        &["ready"],
        &["points"],
        &["points", "list"],
        &["points", "show"],
        &["points", "create"],
        &["points", "verify"],
        &["points", "tag"],
        &["points", "delete"],
        &["alarms"],
        &["token"],
        &["token", "add"],
        &["certificate"],
        &["certificate", "trust"],
        &["certificate", "add"],
        &["recover"],
        &["recover", "list"],
        &["recover", "commit"],
        &["recover", "rollback"],
        &["recover", "remove"],
        &["recover", "resume"],
        &["disk"],
        &["disk", "info"],
        &["disk", "map"],
        &["disk", "check"],
        &["disk", "convert"],
        &["disk", "compare"],
        &["disk", "serve"],
        &["explain"],
        &["schema"],
    ] {
        let output = landfall().args(verb).arg("--help").output().unwrap();
        assert!(output.status.success());
        all.push_str(&format!(
            "$ landfall {} --help\n{}\n",
            verb.join(" "),
            String::from_utf8(output.stdout).unwrap()
        ));
    }
    insta::assert_snapshot!("help", all);
}

#[test]
fn a_refusal_is_1_and_a_failure_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("bochs.img"), b"Bochs Virtual HD Image and more").unwrap();
    fs::write(path("cut.qcow2"), b"QFI\xfb\0\0\0\x03").unwrap();
    let foreign = run(&[&"disk", &"info", &path("bochs.img")]);
    assert_eq!(foreign.status.code(), Some(1), "{}", stderr(&foreign));
    assert!(
        stderr(&foreign).contains("Bochs") && stderr(&foreign).contains("hint: "),
        "{}",
        stderr(&foreign)
    );
    let cut = run(&[&"disk", &"info", &path("cut.qcow2")]);
    assert_eq!(cut.status.code(), Some(1), "{}", stderr(&cut));
    let absent = run(&[&"disk", &"info", &path("absent.vmdk")]);
    assert_eq!(absent.status.code(), Some(2), "{}", stderr(&absent));
    assert!(stderr(&absent).contains("absent.vmdk"), "{}", stderr(&absent));
    let usage = run(&[&"disk", &"nonsense"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn errors_are_json_where_json_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.img");
    fs::write(&path, b"Bochs Virtual HD Image").unwrap();
    let output = run(&[&"--json", &"disk", &"info", &path]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"]["kind"], "unsupported");
    assert_eq!(json["outcome"], "refused");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_target_that_exists_stays() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_disk(folder.path(), 1);
    let target = folder.path().join("target.qcow2");
    fs::write(&target, b"precious").unwrap();
    let refused = run(&[&"disk", &"convert", &source, &target]);
    assert_eq!(refused.status.code(), Some(1), "{}", stderr(&refused));
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    let done = run(&[&"disk", &"convert", &source, &target, &"--replace"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(run(&[&"disk", &"compare", &source, &target]).status.success());
}

#[test]
fn the_source_is_never_the_target() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_disk(folder.path(), 1);
    let before = fs::read(&source).unwrap();
    let link = folder.path().join("link.raw");
    std::os::unix::fs::symlink(&source, &link).unwrap();
    for target in [&source, &link] {
        let output = run(&[&"disk", &"convert", &source, target, &"--replace"]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    }
    assert_eq!(fs::read(&source).unwrap(), before);
}

#[test]
fn an_image_that_differs_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_disk(folder.path(), 2);
    let copy = folder.path().join("copy.qcow2");
    assert!(run(&[&"disk", &"convert", &source, &copy]).status.success());
    let mut bytes = fs::read(&source).unwrap();
    bytes[1_234_567] ^= 1;
    fs::write(&source, bytes).unwrap();
    let output = run(&[&"disk", &"compare", &source, &copy]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1234567"), "{output:?}");
}

/// Starts a slow conversion and returns when it is under way.
fn slow_conversion(source: &Path, target: &Path) -> std::process::Child {
    let child = landfall()
        .args(["disk", "convert", "--rate-limit", "1M"])
        .args([source, target])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let folder = target.parent().unwrap();
    while !names(folder).iter().any(|name| name.contains("landfall-partial")) {
        assert!(Instant::now() < deadline, "the conversion does not begin");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[test]
fn control_c_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_disk(folder.path(), 16);
    let target = folder.path().join("target.qcow2");
    let child = slow_conversion(&source, &target);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(names(folder.path()), ["source.raw"]);
}

#[test]
fn a_killed_run_can_be_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_disk(folder.path(), 16);
    let target = folder.path().join("target.qcow2");
    let mut child = slow_conversion(&source, &target);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!target.exists(), "nothing half-written has the final name");
    let again = run(&[&"disk", &"convert", &source, &target]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(names(folder.path()), ["source.raw", "target.qcow2"]);
    assert!(run(&[&"disk", &"compare", &source, &target]).status.success());
}

#[test]
fn a_full_target_is_an_error_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(&small).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: cannot mount a small tmpfs (not root?)");
        return;
    }
    let source = raw_disk(folder.path(), 16);
    let output = run(&[&"disk", &"convert", &source, &small.join("target.raw")]);
    let left = names(&small);
    assert!(Command::new("umount").arg(&small).status().unwrap().success());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("target.raw") && stderr(&output).contains("hint: free space"),
        "{}",
        stderr(&output)
    );
    assert_eq!(left, Vec::<String>::new());
}

/// `landfall … | head`: whoever reads has seen enough. That is no failure, and no panic.
#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_disk(folder.path(), 1);
    for args in [&["explain"][..], &["--json", "explain"], &["disk", "map"], &["disk", "info"]] {
        let mut command = landfall();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        if args[0] == "disk" {
            command.arg(&source);
        }
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{args:?}");
    }
}

/// A terminal that is gone does not end the work: its lines are lost, the image is not.
#[test]
fn nobody_needs_to_watch() {
    let folder = tempfile::tempdir().unwrap();
    let source = raw_disk(folder.path(), 1);
    let target = folder.path().join("target.raw");
    let mut child = landfall()
        .args(["disk", "convert"])
        .args([&source, &target])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    assert_eq!(fs::read(&source).unwrap(), fs::read(&target).unwrap());
}
