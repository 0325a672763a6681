//! QEMU's storage daemon: the same block jobs as those of a running machine.

use super::{noise, output, program};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A storage daemon with raw disks, which are exported for writers.
pub struct Daemon {
    pub child: Child,
    qmp: BufReader<UnixStream>,
    /// Events that came before the answer to a command.
    events: VecDeque<Value>,
    dir: PathBuf,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    /// Disks of these names with `size` bytes of noise, in `dir`; `None`, after a loud word, where there is no such program.
    pub fn start(dir: &Path, disks: &[&str], size: u64) -> Option<Daemon> {
        let mut command = program("qemu-storage-daemon", "qemu-system-common")?;
        program("qemu-io", "qemu-utils")?;
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let (monitor, export) = (path("qmp"), path("writer"));
        command
            .args([
                "--chardev",
                &format!("socket,id=m,path={monitor},server=on,wait=off"),
                "--monitor",
                "chardev=m",
            ])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={export}")]);
        for (seed, disk) in disks.iter().enumerate() {
            let raw = path(&format!("{disk}.raw"));
            std::fs::write(&raw, noise(3 + seed as u64, usize::try_from(size).unwrap())).unwrap();
            command
                .args(["--blockdev", &format!("driver=file,node-name={disk}-file,filename={raw}")])
                .args(["--blockdev", &format!("driver=raw,node-name={disk},file={disk}-file")])
                .args(["--export", &format!("type=nbd,id={disk},node-name={disk},name={disk},writable=on")]);
        }
        let child = command.stderr(Stdio::inherit()).spawn().unwrap();
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(&monitor) {
                Ok(stream) => break stream,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(30), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut daemon =
            Daemon { child, qmp: BufReader::new(stream), events: VecDeque::new(), dir: dir.to_owned() };
        daemon.line();
        daemon.ask("qmp_capabilities", json!({}));
        Some(daemon)
    }

    /// Where its disk is written to as by the machine.
    pub fn writer(&self, disk: &str) -> String {
        format!("nbd+unix:///{disk}?socket={}", self.dir.join("writer").display())
    }

    /// What its disk holds.
    pub fn content(&self, disk: &str) -> Vec<u8> {
        std::fs::read(self.dir.join(format!("{disk}.raw"))).unwrap()
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.qmp.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Gives a command.
    pub fn ask(&mut self, command: &str, arguments: Value) {
        let says = json!({ "execute": command, "arguments": arguments }).to_string();
        self.qmp.get_mut().write_all(says.as_bytes()).unwrap();
        loop {
            let line = self.line();
            assert!(line.get("error").is_none(), "{command}: {line}");
            if line.get("return").is_some() {
                return;
            }
            self.events.push_back(line);
        }
    }

    /// The next event of that name; a job that fails ends the test, unless that is what is waited for.
    pub fn event(&mut self, name: &str) -> Value {
        loop {
            let line = self.events.pop_front().unwrap_or_else(|| self.line());
            if line["event"] == name {
                return line["data"].clone();
            }
            assert!(line["data"].get("error").is_none(), "{line}");
        }
    }

    /// A node that is an export behind `socket`.
    pub fn target(&mut self, node: &str, socket: &Path, export: &str) {
        let server = json!({ "type": "unix", "path": socket });
        let add = json!({ "driver": "nbd", "node-name": node, "server": server, "export": export });
        self.ask("blockdev-add", add);
    }

    /// Writes to a disk as its machine would.
    pub fn io(&self, disk: &str, commands: &[String]) {
        let mut qemu_io = Command::new("qemu-io");
        qemu_io.args(["-f", "raw", "-t", "none"]);
        for command in commands {
            qemu_io.args(["-c", command]);
        }
        output(qemu_io.arg(self.writer(disk)));
    }
}
