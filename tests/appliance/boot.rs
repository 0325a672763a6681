//! Machines that start from the image, in QEMU without KVM.

use super::image;
use crate::boots::place;
use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A debug build on a busy host, emulated.
pub const UP_WITHIN: Duration = Duration::from_secs(420);

/// A running machine with a copy of the image and an empty data disk. Dropped, it is ended as by a lost power.
pub struct Machine {
    qemu: Child,
    serial: PathBuf,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// Its disks; they outlive the machine.
pub struct Disks {
    pub folder: tempfile::TempDir,
}

impl Disks {
    pub fn new(image: &Path) -> Disks {
        let folder = tempfile::tempdir_in(image.parent().unwrap()).unwrap();
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"])
            .arg(image)
            .arg(folder.path().join("system.qcow2"))
            .status();
        assert!(made.unwrap().success());
        File::create(folder.path().join("data.raw")).unwrap().set_len(4 << 30).unwrap();
        Disks { folder }
    }

    fn start(&self, ports: [u16; 2]) -> Machine {
        self.start_on(
            "virtio-net-pci",
            ports,
            &["-device".into(), "virtio-blk-pci,drive=system,bootindex=0".into()],
            true,
        )
    }

    /// A machine with that card; `more` attaches the drive `system`, and says what the machine is.
    pub fn start_on(&self, card: &str, ports: [u16; 2], more: &[String], data: bool) -> Machine {
        let at = self.folder.path().join("system.qcow2").display().to_string();
        let system = ["-drive".to_owned(), format!("file={at},format=qcow2,if=none,id=system")];
        self.start_with(card, ports, &[&system[..], more].concat(), data)
    }

    /// A machine with that card and what `more` says: all that it starts from, too.
    pub fn start_with(&self, card: &str, ports: [u16; 2], more: &[String], data: bool) -> Machine {
        let serial = self.folder.path().join("serial.log");
        let _ = std::fs::remove_file(&serial);
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let [api, nbd] = ports;
        let net =
            format!("user,model={card},hostfwd=tcp:127.0.0.1:{api}-:8470,hostfwd=tcp:127.0.0.1:{nbd}-:10809");
        let mut command = Command::new("qemu-system-x86_64");
        command
            // cx16=off: QEMU 7.2's emulation panics Linux 6.12 at random with it.
            .args([
                "-accel",
                "tcg",
                "-cpu",
                "max,cx16=off",
                "-m",
                "1024",
                "-smp",
                "2",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-nic", &net])
            .args([
                "-chardev",
                &format!(
                    "socket,id=serial,path={},server=on,wait=off,logfile={}",
                    serial.with_extension("sock").display(),
                    serial.display()
                ),
                "-serial",
                "chardev:serial",
            ])
            .args(more);
        if data {
            command.args(["-drive", &format!("file={},format=raw,if=virtio", at("data.raw"))]);
        }
        let qemu =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).spawn().unwrap();
        Machine { qemu, serial }
    }
}

impl Machine {
    /// Presses a key on the serial line.
    fn press(&self, key: u8) {
        let mut line = UnixStream::connect(self.serial.with_extension("sock")).unwrap();
        line.write_all(&[key]).unwrap();
        // What is sent to a line that is hung up at once may be lost.
        std::thread::sleep(Duration::from_secs(2));
    }

    /// Waits until the serial line has shown a text.
    pub fn wait_for(&mut self, text: &str, within: Duration) -> Result<(), String> {
        let end = Instant::now() + within;
        loop {
            let log = std::fs::read(&self.serial).unwrap_or_default();
            if log.windows(text.len()).any(|part| part == text.as_bytes()) {
                return Ok(());
            }
            let ended = self.qemu.try_wait().unwrap();
            if ended.is_some() || Instant::now() > end {
                let last = String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned();
                return Err(format!(
                    "{text:?} was not shown ({ended:?}); the last lines of the serial line: {last}"
                ));
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    pub fn shows(&mut self, text: &str, within: Duration) {
        if let Err(says) = self.wait_for(text, within) {
            panic!("{says}");
        }
    }
}

/// The certificates that a TLS server shows, as openssl prints them; waits until there is one.
pub fn certificates(port: u16, within: Duration) -> String {
    let end = Instant::now() + within;
    loop {
        let out = Command::new("openssl")
            .args(["s_client", "-showcerts", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        if text.contains("BEGIN CERTIFICATE") {
            return text;
        }
        assert!(
            Instant::now() < end,
            "nothing answers with TLS: {text}{}",
            String::from_utf8_lossy(&out.stderr)
        );
        std::thread::sleep(Duration::from_secs(2));
    }
}

/// The authority, in what [`certificates`] gives.
pub fn issuer(text: &str) -> Option<String> {
    text.lines().find(|line| line.contains("landfall authority")).map(str::to_owned)
}

/// A first start makes the vault, the authority and the service; power is lost, and the second one finds the same again.
#[test]
fn it_comes_up_and_again_after_a_lost_power() {
    let Some(image) = image() else { return };
    if Command::new("qemu-system-x86_64").arg("--version").output().is_err() {
        eprintln!("SKIPPED: it_comes_up_and_again_after_a_lost_power: no qemu-system-x86_64 here");
        return;
    }
    let _place = place();
    let disks = Disks::new(&image);
    let ports = [free_port(), free_port()];
    let mut machine = disks.start(ports);
    machine.shows("Status", UP_WITHIN);
    let first = certificates(ports[0], UP_WITHIN);
    assert!(first.contains("landfall authority"), "{first}");
    drop(machine);
    let mut machine = disks.start(ports);
    machine.shows("Status", UP_WITHIN);
    let again = certificates(ports[0], UP_WITHIN);
    assert_eq!(issuer(&first), issuer(&again), "another authority");
    // The console is let in by the service: from the first token (Escape: later) to the status.
    let end = Instant::now() + UP_WITHIN;
    loop {
        machine.press(0x1b);
        match machine.wait_for("Ready", Duration::from_secs(15)) {
            Ok(()) => break,
            Err(says) => assert!(Instant::now() < end, "{says}"),
        }
    }
    // Nothing answers NBD without TLS and a certificate.
    let out = Command::new("nbdinfo").arg(format!("nbd://127.0.0.1:{}", ports[1])).output();
    assert!(!out.is_ok_and(|out| out.status.success()), "the receiver lets anybody in");
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
