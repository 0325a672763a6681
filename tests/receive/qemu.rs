//! QEMU's block jobs into the receiver, from its storage daemon: the same jobs as those of a running machine.

use super::daemon::Daemon;
use super::*;
use serde_json::{Value, json};

const SIZE: u64 = 16 << 20;

fn daemon(running: &Running) -> Option<Daemon> {
    let mut daemon = Daemon::start(running.dir.path(), &["source"], SIZE)?;
    daemon.target("target", &running.socket(), "web01/sda");
    Some(daemon)
}

fn mirror(mode: &str) -> Value {
    json!({ "job-id": "job", "device": "source", "target": "target", "sync": "full", "copy-mode": mode })
}

/// Every write of the running machine is in the receiver before the machine's own is done, in its order.
#[test]
fn a_mirror_that_blocks_writes_is_a_journal_of_them() {
    let running = Running::start();
    let disk = running.disk("web01/sda", SIZE);
    let Some(mut daemon) = daemon(&running) else { return };
    daemon.ask("blockdev-mirror", mirror("write-blocking"));
    daemon.event("BLOCK_JOB_READY");
    let copied = disk.ops().len();
    let mut wanted = Vec::new();
    let mut commands = Vec::new();
    for n in 0..100u64 {
        let (at, len) = (n * 37 % 50 * 65_536 + n % 3 * 4096, 512 << (n % 8));
        let fill = u8::try_from(n + 1).unwrap();
        commands.push(format!("write -P {fill} {at} {len}"));
        wanted.push(Op::Write(at, len, fill));
    }
    commands.push("write -z 1M 1M".into());
    wanted.push(Op::Zero(1 << 20, 1 << 20));
    daemon.io("source", &commands);
    let ops: Vec<Op> = disk.ops()[copied..].iter().filter(|op| **op != Op::Flush).copied().collect();
    assert_eq!(ops, wanted, "the same writes, in the same order, before the writer was answered");
    daemon.ask("block-job-complete", json!({ "device": "job" }));
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == daemon.content("source"));
    assert_eq!(running.monitor.read().total.failed, 0);
}

#[test]
fn a_mirror_in_the_background_ends_with_the_same_disk() {
    let running = Running::start();
    let disk = running.disk("web01/sda", SIZE);
    let Some(mut daemon) = daemon(&running) else { return };
    daemon.ask("blockdev-mirror", mirror("background"));
    let writes: Vec<String> = (0..200).map(|n| format!("write -P {n} {}k 4k", n * 61 % 4000)).collect();
    daemon.io("source", &writes);
    daemon.event("BLOCK_JOB_READY");
    daemon.ask("block-job-complete", json!({ "device": "job" }));
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == daemon.content("source"));
    assert!(disk.ops().contains(&Op::Flush), "QEMU flushes at the end");
}

/// A full backup, and then what a bitmap says has changed, and nothing else.
#[test]
fn a_backup_by_bitmap_sends_what_has_changed() {
    let running = Running::start();
    let disk = running.disk("web01/sda", SIZE);
    let Some(mut daemon) = daemon(&running) else { return };
    daemon.ask("block-dirty-bitmap-add", json!({ "node": "source", "name": "changes" }));
    let mut backup = json!({ "job-id": "job", "device": "source", "target": "target", "sync": "full" });
    daemon.ask("blockdev-backup", backup.clone());
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == daemon.content("source"));
    // The bitmap counted since it was made.
    daemon.ask("block-dirty-bitmap-clear", json!({ "node": "source", "name": "changes" }));
    daemon.io("source", &["write -P 7 3M 64k".into(), "write -P 8 9M 4k".into()]);
    let before = running.monitor.read().total.written_bytes;
    backup["sync"] = "incremental".into();
    backup["bitmap"] = "changes".into();
    daemon.ask("blockdev-backup", backup);
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == daemon.content("source"));
    assert_eq!(running.monitor.read().total.written_bytes - before, 2 * 65_536);
}

/// A full vault is an error that QEMU can wait for, and not the end of the connection.
#[test]
fn a_full_disk_stops_the_job_and_a_source_that_dies_is_noticed() {
    let running = Running::start();
    let disk = running.disk("web01/sda", SIZE);
    let Some(mut daemon) = daemon(&running) else { return };
    let mut job = mirror("write-blocking");
    job["on-target-error"] = "enospc".into();
    disk.full.store(true, SeqCst);
    daemon.ask("blockdev-mirror", job);
    let error = daemon.event("BLOCK_JOB_ERROR");
    assert_eq!(error["action"], "stop", "{error}");
    // Requests that were under way fail, too; the job rests when all have.
    while daemon.event("JOB_STATUS_CHANGE")["status"] != "paused" {}
    disk.full.store(false, SeqCst);
    daemon.ask("block-job-resume", json!({ "device": "job" }));
    daemon.event("BLOCK_JOB_READY");
    assert!(read_all(&*disk) == daemon.content("source"));
    daemon.child.kill().unwrap();
    let event = running.wait_for("web01/sda: 0 left");
    assert!(event.ends_with("hung up without a goodbye"), "{event}");
    assert_eq!(running.monitor.read().broken_off, 1);
}
