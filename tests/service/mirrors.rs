//! QEMU's mirror into the service: when its copy is believed, and what its points hold.

use super::*;
use crate::receive::daemon::Daemon;
use crate::receive::nbdsh::python;
use serde_json::json;

/// Two disks of a machine that is written to all the time are mirrored; every point that comes of it is a prefix of what the machine
/// was told is done, across both disks.
#[test]
fn every_point_of_a_mirrored_machine_is_a_prefix_of_its_writes() {
    let Some(python) = python() else { return };
    let mut site = Site::new(
        "[protect]\ncheckpoint = \"1s\"\nretention = \"4s every 1s, 60s every 2s\"\n[upkeep]\nevery = \"2s\"\n",
    );
    let source = tempfile::tempdir().unwrap();
    let Some(mut daemon) = Daemon::start(source.path(), &["sda", "sdb"], BLOCK * BLOCKS) else { return };
    // The model begins with zeros.
    for disk in ["sda", "sdb"] {
        daemon.io(disk, &[format!("write -z 0 {}", BLOCK * BLOCKS)]);
    }
    site.protect("web01", &["sda", "sdb"], BLOCK * BLOCKS);
    site.start();
    let (progress, enough) = (site.path("progress"), site.path("enough"));
    let text = writer([&daemon.writer("sda"), &daemon.writer("sdb")], &progress, &enough, false);
    let script = site.path("writer.py");
    std::fs::write(&script, format!("import nbd\n{text}")).unwrap();
    let mut client = Writer::start(python, &script);
    let socket = site.path("sockets/receive.sock");
    for disk in ["sda", "sdb"] {
        daemon.target(&format!("{disk}-target"), &socket, &format!("web01/{disk}"));
        daemon.ask(
            "blockdev-mirror",
            json!({ "job-id": disk, "device": disk, "target": format!("{disk}-target"), "sync": "full", "copy-mode": "write-blocking" }),
        );
        daemon.event("BLOCK_JOB_READY");
    }
    let synced = acknowledged(&progress);
    std::thread::sleep(Duration::from_secs(12));
    std::fs::write(&enough, "").unwrap();
    client.ends();
    let wrote = acknowledged(&progress);
    // The source is gone; what it had acknowledged is in a point.
    drop(daemon);
    let begin = Instant::now();
    while !site.log().contains("stream-gone") {
        assert!(begin.elapsed() < Duration::from_secs(30), "{}", site.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    site.stop();
    let vault = site.vault();
    let machine = vault.machine(&"web01".parse().unwrap()).unwrap();
    let points = prefixes(&machine, &BTreeMap::new());
    assert!(points.len() >= 4, "{points:?}");
    assert!(points[0].1 >= synced, "no point before both disks were copied: {points:?}, {synced}");
    assert_eq!(points.last().unwrap().1, wrote);
}

/// A copy that ends may have failed half-way: it is not believed before somebody says so.
#[test]
fn a_copy_that_flushes_and_leaves_makes_no_point_by_itself() {
    let mut site = Site::new("[protect]\ncheckpoint = \"1s\"\n");
    site.protect("web01", &["sda"], BLOCK * BLOCKS);
    let source = tempfile::tempdir().unwrap();
    let Some(mut daemon) = Daemon::start(source.path(), &["sda"], BLOCK * BLOCKS) else { return };
    site.start();
    daemon.target("target", &site.path("sockets/receive.sock"), "web01/sda");
    daemon.ask(
        "blockdev-backup",
        json!({ "job-id": "job", "device": "sda", "target": "target", "sync": "full" }),
    );
    daemon.event("BLOCK_JOB_COMPLETED");
    let content = daemon.content("sda");
    daemon.ask("blockdev-del", json!({ "node-name": "target" }));
    std::thread::sleep(Duration::from_secs(3));
    site.stop();
    let name = "web01".parse().unwrap();
    {
        let vault = site.vault();
        let machine = vault.machine(&name).unwrap();
        assert!(machine.points().unwrap().is_empty());
        assert!(crate::receive::read_all(&machine.live("sda").unwrap()) == content);
    }
    let service = Service::open(site.config()).unwrap();
    let point = service.ready(&name).unwrap();
    let state = service.vault().machine(&name).unwrap().at(point.number).unwrap();
    assert!(of_point(&state, "sda") == content);
}
