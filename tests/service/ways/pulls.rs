//! Pulls by the service: from QEMU with bitmaps, and from a source that takes its time.

use super::*;
use crate::receive::daemon::Daemon;
use crate::receive::pull::{SIZE, begin, end};

/// What has changed since the last backup, by QEMU's own bitmap; all of it where the bitmap is of something else.
#[test]
fn the_service_pulls_what_a_bitmap_says_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut daemon) = Daemon::start(dir.path(), &["source"], SIZE) else { return };
    let mut site = Site::new(ROOM);
    site.start();
    let uri = format!("sda=nbd+unix:///sda?socket={}", dir.path().join("writer").display());
    let pull = |words: &[&str]| {
        let mut all = vec!["receive", "pull", "web01", &uri];
        all.extend(words);
        let document = site.document(&all);
        check(&[("receive-pull", document.clone())]);
        document
    };
    begin(&mut daemon, dir.path(), None, "one");
    let before = daemon.content("source");
    daemon.io("source", &["write -P 7 1M 100k".into(), "write -z 9M 128k".into()]);
    let done = pull(&["--checkpoint", "one"]);
    assert_eq!(done["disks"][0]["read"]["extent"], "whole", "{done}");
    assert!(site.exported("web01", "sda") == before);
    end(&mut daemon, false);
    begin(&mut daemon, dir.path(), Some("one"), "two");
    let before = daemon.content("source");
    daemon.io("source", &["write -P 9 3M 4k".into()]);
    let done = pull(&["--since", "one", "--checkpoint", "two"]);
    assert_eq!(done["disks"][0]["read"]["extent"], "changed", "{done}");
    assert!(done["disks"][0]["read"]["bytes"].as_u64().unwrap() < 1 << 20, "{done}");
    assert!(site.exported("web01", "sda") == before);
    // The bitmap of another beginning is not believed.
    let done = pull(&["--since", "one", "--checkpoint", "three"]);
    assert!(
        done["disks"][0]["read"]["why"].as_str().unwrap().contains("begins at the checkpoint \"one\""),
        "{done}"
    );
    end(&mut daemon, true);
    assert_eq!(site.points_of("web01").len(), 3);
    assert!(site.verb(&["status", "web01"]).contains("fed by pulls: \"three\""));
    let refused = site.refused(&["receive", "pull", "web01", &uri, "--since", "one", "--bitmap", "sdx=b"]);
    assert!(refused.contains("sdx, which is not pulled"), "{refused}");
    // Nobody is there any more: it fails, and says so.
    drop(daemon);
    let failed = site.run(&["receive", "pull", "web01", &uri]);
    assert_eq!(failed.status.code(), Some(2), "{}", err(&failed));
}

/// While a pull is half done, an NBD client is told to wait; killed in the middle, it is taken back.
#[test]
fn a_pull_that_is_half_done_keeps_clients_out_and_is_taken_back_after_a_kill() {
    let (Some(python), Some(mut nbdkit)) = (python(), program("nbdkit", "nbdkit")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let (content, socket) = (noise(3, 8 << 20), dir.path().join("slow"));
    std::fs::write(dir.path().join("disk"), &content).unwrap();
    // Its size is asked for and its first pieces are read; then it takes its time.
    nbdkit.args(["--foreground", "--exit-with-parent", "--filter=delay", "-U"]).arg(&socket).arg("file");
    nbdkit.arg(format!("file={}", dir.path().join("disk").display())).arg("rdelay=400ms");
    let mut slow = Writer(nbdkit.spawn().unwrap());
    let mut site = Site::new(&format!("[protect]\ncheckpoint = \"1s\"\nin_sync = \"flush\"\n{ROOM}"));
    site.start();
    let (ceph, points) = source();
    let whole = exported(&ceph, dir.path(), None, (points[0].0, "s0"), Version::V1);
    site.verb(&["receive", "rbd", "web01/sda", text(&whole)]);
    let before = site.points_of("web01");
    site.until("a slow server", || socket.exists());
    let uri = format!("sda=nbd+unix:///?socket={}", socket.display());
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
    command.env("LANDFALL_SERVICE", site.path("sockets/api.sock")).args(["receive", "pull", "web01", &uri]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    site.until("a pull", || site.document(&["status", "web01"])["machine"]["receiving"].is_string());
    // Clients.
    let script = site.path("client.py");
    let body = format!(
        "import nbd\nh = nbd.NBD()\ntry:\n    h.connect_uri({:?})\n    print('let in')\nexcept nbd.Error as error:\n    print(error)\n",
        site.uri("web01/sda")
    );
    std::fs::write(&script, body).unwrap();
    let mut client = python;
    let told = crate::receive::output(client.arg(&script));
    assert!(!told.contains("let in"), "{told}");
    // Points, definitions, disks.
    let refused = site.refused(&["points", "create", "web01"]);
    assert!(refused.contains("is being written into web01"), "{refused}");
    assert!(site.refused(&["protect", "web01", "--disk", "sdb=1M"]).contains("is being written into web01"));
    // Its last point is as good as it was.
    assert_eq!(site.document(&["status", "web01"])["machine"]["protection"], "protected");
    assert!(site.verb(&["status", "web01"]).contains("the pull from"));
    site.kill();
    site.start();
    let _ = child.wait();
    site.until("its end", || site.log().contains("was cut off, and is taken back"));
    assert!(site.left().is_empty(), "{:?}", site.left());
    assert!(site.exported(&format!("web01@{}", before[0]), "sda") == points[0].1);
    // The next step of before fits still.
    let next = exported(&ceph, dir.path(), Some((points[0].0, "s0")), (points[1].0, "s1"), Version::V1);
    site.verb(&["receive", "rbd", "web01/sda", text(&next)]);
    assert!(site.exported("web01", "sda") == points[1].1);
    let _ = slow.0.kill();
}
