//! What fails half-way is taken back, and what could not be is said.

use super::document;
use super::proxy::{Break, Proxy};
use super::vcsim::{Vcsim, ovf, second_client, vmx};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// More than a login and a look at the inventory send, less than a disk.
const HALF_WAY: usize = 2 << 20;

#[test]
fn a_lease_that_fails_leaves_nothing() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    if !second_client() {
        return;
    }
    let before = vcsim.machines();
    let folder = ovf(vcsim.folder.path(), "web01", 1);
    fs::write(vcsim.path("lease-fault"), "").unwrap();
    let (failed, code) = document(&vcsim.register(&folder, &[]));
    let error = &failed["error"];
    assert_eq!(code, 2, "{failed:#}");
    assert!(error["says"].as_str().unwrap().contains("Insufficient disk space"), "{failed:#}");
    assert!(error["hint"].as_str().unwrap().contains("nothing of it is left"), "{failed:#}");
    assert_eq!(vcsim.machines(), before);
}

#[test]
fn a_wire_that_breaks_leaves_nothing() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    if !second_client() {
        return;
    }
    let before = vcsim.machines();
    for folder in [ovf(vcsim.folder.path(), "imported", 8), vmx(vcsim.folder.path(), "uploaded")] {
        let proxy = Proxy::start(&vcsim.address, Break::Once(HALF_WAY));
        let output = vcsim.command(&folder, &proxy.address.to_string()).output().unwrap();
        let (failed, code) = document(&output);
        let hint = failed["error"]["hint"].as_str().unwrap_or_default();
        assert_eq!(code, 2, "{failed:#}");
        assert!(hint.contains("taken back") && hint.contains("nothing of it is left"), "{failed:#}");
        assert_eq!(vcsim.machines(), before);
        // Nor does a folder lie in the way of the next try.
        let (again, code) = document(&vcsim.register(&folder, &["--dry-run"]));
        assert_eq!(code, 0, "{again:#}");
    }
}

#[test]
fn a_server_that_is_gone_leaves_a_word() {
    type Fill = fn(&Path) -> PathBuf;
    let make: [(Fill, &str); 2] = [
        (|folder| ovf(folder, "imported", 8), "the machine \"imported\""),
        (|folder| vmx(folder, "uploaded"), "the folder [LocalDS_0] uploaded"),
    ];
    for (folder, left) in make {
        // What the first one leaves would stand in the second one's way.
        let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
        let folder = folder(vcsim.folder.path());
        let proxy = Proxy::start(&vcsim.address, Break::ForEver(HALF_WAY));
        let output = vcsim.command(&folder, &proxy.address.to_string()).output().unwrap();
        let (failed, code) = document(&output);
        let hint = failed["error"]["hint"].as_str().unwrap_or_default();
        assert_eq!(code, 2, "{failed:#}");
        assert!(hint.contains("STILL AT THE TARGET") && hint.contains(left), "{failed:#}");
    }
}

#[test]
fn ctrl_c_takes_back_what_was_begun() {
    let Some(vcsim) = Vcsim::start(&["-esx"]) else { return };
    if !second_client() {
        return;
    }
    let before = vcsim.machines();
    let folder = ovf(vcsim.folder.path(), "web01", 16);
    let proxy = Proxy::start(&vcsim.address, Break::Slow(HALF_WAY));
    let child = vcsim
        .command(&folder, &proxy.address.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !proxy.broken.load(Ordering::SeqCst) {
        assert!(Instant::now() < deadline, "the upload does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
        .unwrap();
    let (stopped, code) = document(&child.wait_with_output().unwrap());
    assert_eq!((code, stopped["error"]["kind"].as_str()), (2, Some("interrupted")), "{stopped:#}");
    assert!(stopped["error"]["hint"].as_str().unwrap().contains("taken back"), "{stopped:#}");
    assert_eq!(vcsim.machines(), before);
}
