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

/// The service is killed, and its clients do not come back: long before the machine's newest state is too old, it is said that nobody sends it.
#[test]
fn who_does_not_come_back_after_a_restart_is_missed() {
    let mut site = Site::new(&format!("[protect]\ncheckpoint = \"1s\"\nrpo = \"1h\"\n{}", api::ROOM));
    site.protect("web01", &["sda"], BLOCK * BLOCKS);
    let source = tempfile::tempdir().unwrap();
    let Some(mut daemon) = Daemon::start(source.path(), &["sda"], BLOCK * BLOCKS) else { return };
    site.start();
    daemon.target("target", &site.path("sockets/receive.sock"), "web01/sda");
    daemon.ask(
        "blockdev-mirror",
        json!({ "job-id": "job", "device": "sda", "target": "target", "sync": "full", "copy-mode": "write-blocking" }),
    );
    daemon.event("BLOCK_JOB_READY");
    site.wait_for_status(0);
    // Idle for longer than any grace: it is the state of now.
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(site.status(), Some(0), "{}", site.verb(&["status", "web01"]));
    site.kill();
    drop(daemon);
    site.start();
    assert_eq!(site.status(), Some(0), "it may come back");
    let begin = Instant::now();
    site.wait_for_status(1);
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    let shown = site.document(&["status", "web01"]);
    assert_eq!(shown["machine"]["protection"], "at-risk", "{shown}");
    let because = shown["machine"]["because"].as_str().unwrap();
    assert!(
        because.contains("nobody sends sda") && because.contains("since the service started"),
        "{because}"
    );
    let begin = Instant::now();
    while !site.log().contains("Nobody sends web01/sda any longer: nobody has come since the service started")
    {
        assert!(begin.elapsed() < Duration::from_secs(5), "{}", site.log());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(site.log().contains("stream-gone"));
}

/// A connection that breaks is missed at once; one that somebody ends, after a while; and who is watched by others, by the age of what it sent.
#[test]
fn who_goes_is_missed_and_who_comes_back_is_not() {
    use landfall::receive::{Peer, Place};
    use landfall::report::protection::Protection;
    let site = Site::new("[protect]\nrpo = \"5s\"\n[machine.db01]\nrpo = \"1h\"\nin_sync = \"flush\"\n");
    for machine in ["web01", "db01"] {
        site.protect(machine, &["sda"], 1 << 20);
    }
    let service = Service::open(site.config()).unwrap();
    let peer = Peer { place: Place::Local { pid: None, uid: 0 }, certificate: None };
    let [web, db] = ["web01", "db01"].map(|machine| {
        let name = machine.parse().unwrap();
        service.ready(&name).unwrap();
        let export = landfall::receive::ExportName::parse(&format!("{machine}/sda")).unwrap();
        (name, service.stream(&export).unwrap())
    });
    let protection = |name| {
        let status = service.status_of(name).unwrap();
        (status.protection, status.because)
    };
    for (name, stream) in [&web, &db] {
        stream.came(&peer, 1);
        assert_eq!(protection(name).0, Protection::Protected);
        stream.went(0, Some("hung up"));
        let (lost, because) = protection(name);
        assert!(lost == Protection::AtRisk && because.contains("hung up"), "{because}");
        stream.came(&peer, 1);
        assert_eq!(protection(name).0, Protection::Protected);
        stream.went(0, None);
        assert_eq!(protection(name).0, Protection::Protected, "it may come again");
    }
    std::thread::sleep(Duration::from_millis(5100));
    // Not its age alone: that is of the point, which is as old.
    let (left, because) = protection(&web.0);
    assert!(left == Protection::AtRisk && because.contains("nobody sends sda"), "{because}");
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(protection(&db.0).0, Protection::Protected);
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
