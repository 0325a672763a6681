//! A recovery site in QEMU: an appliance that is reached over SSH, the API and NBD, and whose disks outlive its power.
//!
//! A virtual disk's cache is lost with the power: the disks are behind nbdkit, which keeps what was written and not flushed in memory.

use super::boot::{UP_WITHIN, certificates, free_port};
use super::{folder, image, text, tool};
use crate::receive::nbdsh::python;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A recovery site: the appliance's disks, and where it is reached.
pub struct Site {
    pub dir: tempfile::TempDir,
    pub api: u16,
    pub nbd: u16,
    ssh: u16,
}

/// The machine while it runs, with what serves its disks. Dropped, the power is lost.
pub struct Powered(pub Vec<Child>);

impl Drop for Powered {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Site {
    pub fn new(image: &Path) -> Site {
        let dir = tempfile::tempdir_in(folder()).unwrap();
        let copied =
            Command::new("cp").arg("--sparse=always").arg(image).arg(dir.path().join("system")).status();
        assert!(copied.unwrap().success());
        File::create(dir.path().join("vault")).unwrap().set_len(4 << 30).unwrap();
        let key = dir.path().join("key");
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
        assert!(made.unwrap().success());
        let public = std::fs::read_to_string(dir.path().join("key.pub")).unwrap();
        let mut seed = landfall_image::iso::create::NewIso::new(landfall_image::iso::create::IsoOptions {
            volume: "CIDATA".into(),
            ..Default::default()
        })
        .unwrap();
        seed.file("meta-data", b"instance-id: i-1\nlocal-hostname: dr1\n".to_vec()).unwrap();
        seed.file("user-data", format!("#cloud-config\nssh_authorized_keys:\n  - {public}\n").into_bytes())
            .unwrap();
        let seed = seed.finish().unwrap().disk;
        let mut bytes = vec![0; usize::try_from(landfall_image::Disk::size(&seed).0).unwrap()];
        landfall_image::Disk::read_at(&seed, landfall_image::GuestOffset(0), &mut bytes).unwrap();
        std::fs::write(dir.path().join("seed.iso"), bytes).unwrap();
        Site { dir, api: free_port(), nbd: free_port(), ssh: free_port() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The machine with both of its disks.
    pub fn start(&self) -> Powered {
        self.start_with(&["system", "vault"])
    }

    /// The machine with these of its disks; it starts from the first.
    pub fn start_with(&self, disks: &[&str]) -> Powered {
        self.start_beside(disks, &[])
    }

    /// The machine with these of its disks, and what else QEMU is told.
    pub fn start_beside(&self, disks: &[&str], more: &[String]) -> Powered {
        let mut running = Powered(Vec::new());
        let mut drives = Vec::new();
        for (index, disk) in disks.iter().enumerate() {
            let socket = self.path(&format!("{disk}.sock"));
            let _ = std::fs::remove_file(&socket);
            let served = Command::new("nbdkit")
                .args(["--foreground", "--unix"])
                .arg(&socket)
                .args(["--filter=cache", "file"])
                .arg(self.path(disk))
                .stdin(Stdio::null())
                .spawn();
            running.0.push(served.unwrap());
            while !socket.exists() {
                std::thread::sleep(Duration::from_millis(10));
            }
            drives.extend([
                "-drive".to_owned(),
                format!("file=nbd+unix:///?socket={},format=raw,if=none,id={disk}", socket.display()),
                "-device".to_owned(),
                format!("virtio-blk-pci,drive={disk},bootindex={index}"),
            ]);
        }
        let serial = self.path("serial.log");
        let _ = std::fs::remove_file(&serial);
        let forwards = [(self.api, 8470), (self.nbd, 10809), (self.ssh, 22)]
            .map(|(here, there)| format!(",hostfwd=tcp:127.0.0.1:{here}-:{there}"));
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg", "-cpu", "max,cx16=off", "-m", "1024", "-smp", "2", "-display", "none"])
            .args(drives)
            .args(more)
            .arg("-cdrom")
            .arg(self.path("seed.iso"))
            .args(["-nic", &format!("user,model=virtio-net-pci{}", forwards.concat())])
            .args(["-serial", &format!("file:{}", serial.display())])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", self.path("qmp.sock").display())])
            .stdin(Stdio::null());
        running.0.push(command.spawn().unwrap());
        running
    }

    /// Where a partition of the system's disk begins.
    pub fn start_of(&self, name: &str) -> u64 {
        start_of(&self.path("system"), name)
    }

    /// Attaches a disk of the site's folder while the machine runs.
    pub fn attach(&self, disk: &str) {
        let file = json!({ "driver": "file", "filename": self.path(disk) });
        let node = json!({ "driver": "raw", "node-name": disk, "file": file });
        self.order(&json!({ "execute": "blockdev-add", "arguments": node }));
        let device = json!({ "driver": "virtio-blk-pci", "drive": disk, "id": disk, "serial": disk });
        self.order(&json!({ "execute": "device_add", "arguments": device }));
    }

    /// Takes one away that was attached; the machine's kernel is asked, and gives it.
    pub fn detach(&self, disk: &str) {
        self.order(&json!({ "execute": "device_del", "arguments": { "id": disk } }));
        let node = json!({ "execute": "blockdev-del", "arguments": { "node-name": disk } });
        self.wait_for("the disk is gone", || self.ask(&node).get("return").is_some());
    }

    fn order(&self, order: &Value) {
        let answer = self.ask(order);
        assert!(answer.get("return").is_some(), "{order}: {answer}");
    }

    /// QEMU's answer.
    fn ask(&self, order: &Value) -> Value {
        let mut to = UnixStream::connect(self.path("qmp.sock")).unwrap();
        let mut said = BufReader::new(to.try_clone().unwrap()).lines();
        let mut last = Value::Null;
        for order in [&json!({ "execute": "qmp_capabilities" }), order] {
            writeln!(to, "{order}").unwrap();
            // The greeting and events are passed over.
            last = said
                .find_map(|line| {
                    let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
                    (answer.get("return").is_some() || answer.get("error").is_some()).then_some(answer)
                })
                .unwrap();
        }
        last
    }

    pub fn serial(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("serial.log")).unwrap_or_default()).into_owned()
    }

    /// What stands in the way, as the steps of the start have written it down.
    pub fn problems(&self) -> String {
        self.there("cat /run/landfall-appliance/problems.d/* 2>/dev/null || true")
    }

    /// Waits until the service answers.
    pub fn up(&self) -> String {
        certificates(self.api, UP_WITHIN)
    }

    pub fn wait_for(&self, what: &str, mut is: impl FnMut() -> bool) {
        let end = Instant::now() + UP_WITHIN;
        while !is() {
            let log = self.serial();
            let last = log.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
            assert!(Instant::now() < end, "{what}: {}", &log[last..]);
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    pub fn landfall(&self, token: &str, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_landfall"))
            .env("LANDFALL_SERVICE", format!("https://localhost:{}", self.api))
            .env("LANDFALL_TOKEN", token)
            .current_dir(self.dir.path())
            .args(words)
            .output()
            .unwrap()
    }

    pub fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command
            .args([
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
                "-o",
                "LogLevel=ERROR",
            ])
            .args(["-o", "ConnectTimeout=10", "-i"])
            .arg(self.path("key"))
            .args(["-p", &self.ssh.to_string(), "root@localhost"]);
        command
    }

    /// What a command says there; waits until it can be run.
    pub fn there(&self, command: &str) -> String {
        let mut said = String::new();
        self.wait_for(command, || {
            let out = self.ssh().arg(command).output().unwrap();
            said = text(&out);
            out.status.success()
        });
        said.trim().to_owned()
    }

    /// The administrator's token, off the console, and the authority, by the fingerprint that stands there.
    pub fn welcomed(&self) -> String {
        let (mut token, mut print) = (None, Vec::new());
        self.wait_for("the first token", || {
            let log = plain(&self.serial());
            let words = || log.split(|c: char| c.is_whitespace() || c == '=');
            token = words().find(|word| word.starts_with("lf_") && word.len() > 30).map(str::to_owned);
            print = words()
                .filter(|word| word.len() == 47 && word.matches(':').count() == 15)
                .map(str::to_owned)
                .collect();
            token.is_some() && print.len() >= 2
        });
        let print = format!("{}:{}", print[0], print[1]);
        let service = format!("https://localhost:{}", self.api);
        let token = token.unwrap();
        self.up();
        let out = self.landfall(&token, &["certificate", "trust", &service, "--fingerprint", &print]);
        assert!(out.status.success(), "{}", text(&out));
        token
    }
}

/// A console's text without its movements.
pub fn plain(log: &str) -> String {
    let mut found = String::new();
    let mut letters = log.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '\u{1b}' && letters.next_if_eq(&'[').is_some() {
            while letters.next_if(|c| !c.is_ascii_alphabetic()).is_some() {}
            letters.next();
            found.push(' ');
        } else {
            found.push(letter);
        }
    }
    found
}

/// The image, where everything is here that a site needs.
pub fn ready() -> Option<PathBuf> {
    for program in ["qemu-system-x86_64", "nbdkit", "ssh", "ssh-keygen", "sfdisk"] {
        tool(program, &["--version"])?;
    }
    python()?;
    image()
}

/// Where the partition with this name begins, as sfdisk reads it.
pub fn start_of(disk: &Path, name: &str) -> u64 {
    let out = Command::new("sfdisk").arg("--json").arg(disk).output().unwrap();
    let table: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    partitions.iter().find(|entry| entry["name"] == name).unwrap()["start"].as_u64().unwrap() * 512
}
