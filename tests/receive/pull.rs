//! Backups that are pulled from QEMU: of a running machine's disk, as libvirt begins them, with bitmaps that are right, missing, or of
//! something else.

use super::daemon::Daemon;
use super::*;
use landfall::receive::content::Effort;
use landfall::receive::incoming::Incoming;
use landfall::receive::position;
use landfall::receive::pull::{Bitmap, Extent as Read, Outcome, Request, Source, pull};
use landfall::vault::Vault;
use landfall::vault::journal::Consistency;
use landfall::vault::machine::Machine;
use landfall_image::nbd::{ClientOptions, Uri};
use serde_json::json;

pub const SIZE: u64 = 16 << 20;

struct Site {
    dir: tempfile::TempDir,
    vault: Vault,
    incoming: Incoming,
}

impl Site {
    fn new() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let (vault, _) = Vault::open(&dir.path().join("vault")).unwrap();
        let (incoming, _) = Incoming::open(&dir.path().join("vault")).unwrap();
        Site { dir, vault, incoming }
    }

    fn machine(&self) -> Arc<Machine> {
        self.vault.machine_or_new(&"web01".parse().unwrap()).unwrap()
    }

    /// Pulls the export `sda` of the daemon: from the checkpoint `since` on, up to `checkpoint`.
    fn pull(&self, since: Option<&str>, checkpoint: &str) -> Outcome {
        let uri = Uri::parse(&format!("nbd+unix:///sda?socket={}", self.dir.path().join("writer").display()))
            .unwrap();
        let bitmap = since.map(|since| Bitmap { name: "backup-sda".into(), since: since.into() });
        let request = Request {
            disks: vec![Source { disk: "sda".parse().unwrap(), uri, bitmap }],
            checkpoint: Some(checkpoint.into()),
            taken_at: None,
            consistency: Consistency::Application,
            apart: false,
        };
        let (machine, options) = (self.machine(), ClientOptions::default());
        pull(&self.incoming.batches, &machine, &request, &options, 1, &Effort::default()).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        read_all(&self.machine().live("sda").unwrap())
    }
}

/// What `virsh backup-begin` does: the disk as it is now behind an export, with what has changed since `since`; and a new checkpoint.
pub fn begin(daemon: &mut Daemon, scratch: &Path, since: Option<&str>, checkpoint: &str) {
    let scratch = scratch.join("scratch.qcow2");
    let scratch = scratch.to_str().unwrap();
    output(Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", scratch, &SIZE.to_string()]));
    let file = json!({ "driver": "file", "filename": scratch });
    daemon.ask(
        "blockdev-add",
        json!({ "driver": "qcow2", "node-name": "scratch", "file": file, "backing": "source" }),
    );
    if let Some(since) = since {
        daemon.ask(
            "block-dirty-bitmap-add",
            json!({ "node": "source", "name": "backup-sda", "disabled": true }),
        );
        let merge = json!({ "node": "source", "target": "backup-sda", "bitmaps": [since] });
        daemon.ask("block-dirty-bitmap-merge", merge);
    }
    daemon.ask("block-dirty-bitmap-add", json!({ "node": "source", "name": checkpoint }));
    daemon.ask(
        "blockdev-backup",
        json!({ "job-id": "fleece", "device": "source", "target": "scratch", "sync": "none" }),
    );
    let bitmaps: Vec<&str> = since.map(|_| "backup-sda").into_iter().collect();
    let export =
        json!({ "type": "nbd", "id": "sda", "node-name": "scratch", "name": "sda", "bitmaps": bitmaps });
    daemon.ask("block-export-add", export);
}

pub fn end(daemon: &mut Daemon, with_bitmap: bool) {
    daemon.ask("block-export-del", json!({ "id": "sda", "mode": "hard" }));
    while daemon.event("BLOCK_EXPORT_DELETED")["id"] != "sda" {}
    daemon.ask("block-job-cancel", json!({ "device": "fleece" }));
    daemon.event("BLOCK_JOB_CANCELLED");
    daemon.ask("blockdev-del", json!({ "node-name": "scratch" }));
    if with_bitmap {
        daemon.ask("block-dirty-bitmap-remove", json!({ "node": "source", "name": "backup-sda" }));
    }
}

fn whole(outcome: &Outcome) -> &str {
    match &outcome.disks[0].read {
        Read::Whole { why } => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_bitmap_says_has_changed_is_pulled() {
    let site = Site::new();
    let Some(mut daemon) = Daemon::start(site.dir.path(), &["source"], SIZE) else { return };
    begin(&mut daemon, site.dir.path(), None, "one");
    // The machine goes on meanwhile.
    let before = daemon.content("source");
    daemon.io("source", &["write -P 7 1M 100k".into(), "write -z 9M 128k".into()]);
    let outcome = site.pull(None, "one");
    assert_eq!(whole(&outcome), "no bitmap was named");
    assert!(site.content() == before);
    end(&mut daemon, false);
    begin(&mut daemon, site.dir.path(), Some("one"), "two");
    let before = daemon.content("source");
    daemon.io("source", &["write -P 9 3M 4k".into()]);
    let outcome = site.pull(Some("one"), "two");
    let Read::Changed { bytes } = outcome.disks[0].read else { panic!("{outcome:?}") };
    assert!((228 << 10..1 << 20).contains(&bytes), "{bytes}");
    assert!(site.content() == before);
    let machine = site.machine();
    let points = machine.points().unwrap();
    assert_eq!((points.len(), points[1].mark.consistency), (2, Consistency::Application));
    let number = machine.disk_number("sda").unwrap();
    assert!(read_all(&machine.at(outcome.point).unwrap().disk(number).unwrap()) == before);
    end(&mut daemon, true);
    // Of another checkpoint than the last that came: nobody knows what is missing.
    begin(&mut daemon, site.dir.path(), Some("one"), "three");
    let before = daemon.content("source");
    let outcome = site.pull(Some("one"), "three");
    assert!(whole(&outcome).contains("begins at the checkpoint \"one\", and the vault has \"two\""));
    assert!(outcome.disks[0].counts.compared >= SIZE && outcome.disks[0].counts.written <= 4096);
    assert!(site.content() == before);
    end(&mut daemon, true);
}

#[test]
fn what_no_bitmap_tells_is_found_all_the_same() {
    let site = Site::new();
    let Some(mut daemon) = Daemon::start(site.dir.path(), &["source"], SIZE) else { return };
    begin(&mut daemon, site.dir.path(), None, "one");
    site.pull(None, "one");
    end(&mut daemon, false);
    daemon.io("source", &["write -P 7 5M 4k".into()]);
    // The bitmap is gone, as after a crash of QEMU.
    begin(&mut daemon, site.dir.path(), None, "two");
    let outcome = site.pull(Some("one"), "two");
    assert!(whole(&outcome).contains("no bitmap \"backup-sda\""), "{outcome:?}");
    assert_eq!(outcome.disks[0].counts.written, 4096);
    assert!(site.content() == daemon.content("source"));
    end(&mut daemon, false);
    // Something else wrote to the vault's disk.
    site.machine().live("sda").unwrap().write_at(GuestOffset(64 << 10), &[1; 512]).unwrap();
    begin(&mut daemon, site.dir.path(), Some("two"), "three");
    let outcome = site.pull(Some("two"), "three");
    assert!(whole(&outcome).contains("something else was written to it since"), "{outcome:?}");
    assert!(site.content() == daemon.content("source"));
    end(&mut daemon, true);
    // A client that was let in, whatever it wrote.
    position::end(&site.machine(), "sda").unwrap();
    begin(&mut daemon, site.dir.path(), Some("three"), "four");
    assert!(whole(&site.pull(Some("three"), "four")).contains("something else was written to it since"));
    end(&mut daemon, true);
}

#[test]
fn a_pull_that_fails_changes_nothing() {
    let site = Site::new();
    let Some(mut daemon) = Daemon::start(site.dir.path(), &["source"], SIZE) else { return };
    begin(&mut daemon, site.dir.path(), None, "one");
    site.pull(None, "one");
    let (machine, before) = (site.machine(), site.content());
    let uri = |export: &str| {
        Uri::parse(&format!("nbd+unix:///{export}?socket={}", site.dir.path().join("writer").display()))
            .unwrap()
    };
    let source =
        |disk: &str, export: &str| Source { disk: disk.parse().unwrap(), uri: uri(export), bitmap: None };
    let go = |disks: Vec<Source>, apart: bool| {
        let request =
            Request { disks, checkpoint: None, taken_at: None, consistency: Consistency::Crash, apart };
        pull(&site.incoming.batches, &machine, &request, &ClientOptions::default(), 1, &Effort::default())
    };
    assert!(go(vec![], false).is_err());
    assert!(go(vec![source("sda", "sda"), source("sda", "sda")], false).is_err());
    assert!(go(vec![source("sdb", "sda")], false).unwrap_err().says().contains("sda is not pulled"));
    // The second disk's export is not there.
    assert!(go(vec![source("sda", "sda"), source("sdb", "nothing")], false).is_err());
    let lease = site.incoming.leases.stream(&"web01".parse().unwrap(), &"sda".parse().unwrap()).unwrap();
    assert!(go(vec![source("sda", "sda")], false).unwrap_err().says().contains("over NBD"));
    drop(lease);
    assert!(site.content() == before && machine.points().unwrap().len() == 1);
    assert!(machine.disk_number("sdb").is_none() && site.incoming.batches.unfinished().unwrap().is_empty());
    go(vec![source("sda", "sda"), source("sdb", "source")], false).unwrap();
    assert!(read_all(&machine.live("sdb").unwrap()) == daemon.content("source"));
    end(&mut daemon, false);
}
