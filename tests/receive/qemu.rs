//! QEMU's block jobs into the receiver, from its storage daemon: the same jobs as those of a running machine.

use super::*;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};

const SIZE: u64 = 16 << 20;

/// A storage daemon with a raw disk `source`, which is exported for a writer.
struct Daemon {
    child: Child,
    qmp: BufReader<UnixStream>,
    writer: String,
    raw: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start(running: &Running) -> Option<Daemon> {
        let mut command = program("qemu-storage-daemon", "qemu-system-common")?;
        program("qemu-io", "qemu-utils")?;
        let (raw, monitor, export) =
            (running.path("source.raw"), running.path("qmp"), running.path("writer"));
        std::fs::write(&raw, noise(3, usize::try_from(SIZE).unwrap())).unwrap();
        let child = command
            .args([
                "--chardev",
                &format!("socket,id=m,path={monitor},server=on,wait=off"),
                "--monitor",
                "chardev=m",
            ])
            .args(["--blockdev", &format!("driver=file,node-name=file,filename={raw}")])
            .args(["--blockdev", "driver=raw,node-name=source,file=file"])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={export}")])
            .args(["--export", "type=nbd,id=e,node-name=source,name=source,writable=on"])
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(&monitor) {
                Ok(stream) => break stream,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(30), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let writer = format!("nbd+unix:///source?socket={export}");
        let mut daemon = Daemon { child, qmp: BufReader::new(stream), writer, raw };
        daemon.line();
        daemon.ask("qmp_capabilities", json!({}));
        Some(daemon)
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.qmp.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn ask(&mut self, command: &str, arguments: Value) {
        let says = json!({ "execute": command, "arguments": arguments }).to_string();
        self.qmp.get_mut().write_all(says.as_bytes()).unwrap();
        loop {
            let line = self.line();
            assert!(line.get("error").is_none(), "{command}: {line}");
            if line.get("return").is_some() {
                return;
            }
        }
    }

    /// The next event of that name; a job that fails ends the test, unless that is what is waited for.
    fn event(&mut self, name: &str) -> Value {
        loop {
            let line = self.line();
            if line["event"] == name {
                return line["data"].clone();
            }
            assert!(line["data"].get("error").is_none(), "{line}");
        }
    }

    fn target(&mut self, running: &Running, name: &str) {
        let server = json!({ "type": "unix", "path": running.socket() });
        let add = json!({ "driver": "nbd", "node-name": "target", "server": server, "export": name });
        self.ask("blockdev-add", add);
    }

    /// Writes to the disk as its machine would.
    fn io(&self, commands: &[String]) {
        let mut qemu_io = Command::new("qemu-io");
        qemu_io.args(["-f", "raw", "-t", "none"]);
        for command in commands {
            qemu_io.args(["-c", command]);
        }
        output(qemu_io.arg(&self.writer));
    }
}

fn mirror(mode: &str) -> Value {
    json!({ "job-id": "job", "device": "source", "target": "target", "sync": "full", "copy-mode": mode })
}

/// Every write of the running machine is in the receiver before the machine's own is done, in its order.
#[test]
fn a_mirror_that_blocks_writes_is_a_journal_of_them() {
    let running = Running::start();
    let Some(mut daemon) = Daemon::start(&running) else { return };
    let disk = running.disk("web01/sda", SIZE);
    daemon.target(&running, "web01/sda");
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
    daemon.io(&commands);
    let ops: Vec<Op> = disk.ops()[copied..].iter().filter(|op| **op != Op::Flush).copied().collect();
    assert_eq!(ops, wanted, "the same writes, in the same order, before the writer was answered");
    daemon.ask("block-job-complete", json!({ "device": "job" }));
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == std::fs::read(&daemon.raw).unwrap());
    assert_eq!(running.monitor.read().total.failed, 0);
}

#[test]
fn a_mirror_in_the_background_ends_with_the_same_disk() {
    let running = Running::start();
    let Some(mut daemon) = Daemon::start(&running) else { return };
    let disk = running.disk("web01/sda", SIZE);
    daemon.target(&running, "web01/sda");
    daemon.ask("blockdev-mirror", mirror("background"));
    let writes: Vec<String> = (0..200).map(|n| format!("write -P {n} {}k 4k", n * 61 % 4000)).collect();
    daemon.io(&writes);
    daemon.event("BLOCK_JOB_READY");
    daemon.ask("block-job-complete", json!({ "device": "job" }));
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == std::fs::read(&daemon.raw).unwrap());
    assert!(disk.ops().contains(&Op::Flush), "QEMU flushes at the end");
}

/// A full backup, and then what a bitmap says has changed, and nothing else.
#[test]
fn a_backup_by_bitmap_sends_what_has_changed() {
    let running = Running::start();
    let Some(mut daemon) = Daemon::start(&running) else { return };
    let disk = running.disk("web01/sda", SIZE);
    daemon.target(&running, "web01/sda");
    daemon.ask("block-dirty-bitmap-add", json!({ "node": "source", "name": "changes" }));
    let mut backup = json!({ "job-id": "job", "device": "source", "target": "target", "sync": "full" });
    daemon.ask("blockdev-backup", backup.clone());
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == std::fs::read(&daemon.raw).unwrap());
    // The bitmap counted since it was made.
    daemon.ask("block-dirty-bitmap-clear", json!({ "node": "source", "name": "changes" }));
    daemon.io(&["write -P 7 3M 64k".into(), "write -P 8 9M 4k".into()]);
    let before = running.monitor.read().total.written_bytes;
    backup["sync"] = "incremental".into();
    backup["bitmap"] = "changes".into();
    daemon.ask("blockdev-backup", backup);
    daemon.event("BLOCK_JOB_COMPLETED");
    assert!(read_all(&*disk) == std::fs::read(&daemon.raw).unwrap());
    assert_eq!(running.monitor.read().total.written_bytes - before, 2 * 65_536);
}

/// A full vault is an error that QEMU can wait for, and not the end of the connection.
#[test]
fn a_full_disk_stops_the_job_and_a_source_that_dies_is_noticed() {
    let running = Running::start();
    let Some(mut daemon) = Daemon::start(&running) else { return };
    let disk = running.disk("web01/sda", SIZE);
    daemon.target(&running, "web01/sda");
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
    assert!(read_all(&*disk) == std::fs::read(&daemon.raw).unwrap());
    daemon.child.kill().unwrap();
    let event = running.wait_for("web01/sda: 0 left");
    assert!(event.ends_with("hung up without a goodbye"), "{event}");
    assert_eq!(running.monitor.read().broken_off, 1);
}
