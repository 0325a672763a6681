//! What is written is registered with a real libvirtd, by the script that a user runs.
//!
//! The daemon is a user's own (`qemu:///session`): it needs no system configuration and touches none. Under root it
//! runs as `nobody` with the group of /dev/kvm, because libvirt has no session for root.

use super::domains::at_libvirt;
use super::{FULL, adapted, full, placement, rendered_files};
use landfall::hypervisor::{self, Choice};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const NOBODY: u32 = 65534;

/// A daemon of the test's own.
pub struct Libvirtd {
    home: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Libvirtd {
    pub fn start() -> Option<Libvirtd> {
        for tool in ["libvirtd", "virsh", "qemu-system-x86_64"] {
            if !["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(tool).exists()) {
                eprintln!(
                    "SKIPPED: {tool} is not here (Debian: libvirt-daemon, libvirt-clients, qemu-system-x86)"
                );
                return None;
            }
        }
        // A short path: sockets have little room for theirs.
        let home = tempfile::Builder::new().prefix("lf").tempdir_in("/tmp").unwrap();
        for name in ["run", "config", "cache", "vm"] {
            fs::create_dir(home.path().join(name)).unwrap();
        }
        let mut libvirtd = Libvirtd { home, daemon: None };
        libvirtd.own();
        let daemon = libvirtd
            .command("/usr/sbin/libvirtd")
            .args(["--timeout", "300"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        libvirtd.daemon = Some(daemon);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !libvirtd.virsh(&["version"]).status.success() {
            if Instant::now() > deadline {
                eprintln!("SKIPPED: libvirtd does not start here");
                return None;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(libvirtd)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Gives all files to the daemon's user.
    pub fn own(&self) {
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").args(["-R", "nobody"]).arg(self.home.path()).status().unwrap();
            assert!(owned.success());
        }
    }

    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match rustix::process::geteuid().is_root() {
            false => Command::new(program),
            true => {
                let group = fs::metadata("/dev/kvm").map_or(NOBODY, |meta| meta.gid());
                let mut command = Command::new("setpriv");
                command.arg(format!("--reuid={NOBODY}")).arg(format!("--regid={NOBODY}"));
                command.arg(format!("--groups={group}")).arg("--").arg(program);
                command
            }
        };
        command
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("LIBVIRT_DEFAULT_URI", "qemu:///session")
            .current_dir(self.home.path());
        command
    }

    pub fn virsh(&self, args: &[&str]) -> Output {
        self.command("virsh").args(args).output().unwrap()
    }
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // SIGTERM lets it end in order; it has no machine running.
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&daemon),
                rustix::process::Signal::TERM,
            );
            let _ = daemon.wait();
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const MACHINE: &str = r#"
config.version = "8"
displayName = "web 'one' & more"
uuid.bios = "56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15"
memsize = "512"
scsi0.present = "TRUE"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "web01.vmdk"
ethernet0.present = "TRUE"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:00:12:ab"
"#;

#[test]
fn the_script_registers_the_machine_once() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let machine = hypervisor::vmware::vmx::parse(MACHINE.as_bytes(), &Default::default()).unwrap().machine;
    // A device node is no proof: libvirt asks the emulator.
    let kvm = libvirtd.virsh(&["domcapabilities", "--virttype", "kvm"]).status.success();
    let write = |folder: &Path, name: &str| {
        let mut machine = adapted(&machine);
        machine.name = name.to_owned();
        fs::create_dir_all(folder).unwrap();
        for artifact in rendered_files(&machine, &placement(&machine, "/written/for/another & folder")) {
            let path = folder.join(&artifact.name);
            let mut contents = artifact.text;
            if !kvm {
                // No KVM here: libvirt would refuse the type before it looks at the rest.
                contents = contents
                    .replace("<domain type=\"kvm\"", "<domain type=\"qemu\"")
                    .replace("host-model", "maximum");
            }
            fs::write(&path, contents).unwrap();
            fs::set_permissions(
                &path,
                fs::Permissions::from_mode(if artifact.executable { 0o755 } else { 0o644 }),
            )
            .unwrap();
        }
        fs::write(folder.join("disk0.qcow2"), b"").unwrap();
        libvirtd.own();
    };
    // The folder has moved since the definition was written, to one with an awkward name.
    let folder = libvirtd.path("vm").join("it's <here> & now");
    write(&folder, &machine.name);
    let register = || libvirtd.command(folder.join("register.sh")).output().unwrap();
    let done = register();
    assert!(done.status.success(), "{}", said(&done));
    let defined = said(&libvirtd.virsh(&["dumpxml", &machine.name]));
    for wanted in [
        "00:50:56:00:12:ab",
        "564d9bef-acd9-b4e0-c8f0-aea8b9103515",
        "VMware-56 4d 9b ef ac d9 b4 e0-c8 f0 ae a8 b9 10 35 15",
        "now/disk0.qcow2",
        "bus='virtio'",
    ] {
        assert!(defined.contains(wanted), "{wanted} is not in\n{defined}");
    }
    assert!(!defined.contains("/written/for"), "{defined}");

    let again = register();
    assert_eq!(again.status.code(), Some(1), "{}", said(&again));
    assert!(said(&again).contains("is here already") && said(&again).contains("hint:"), "{}", said(&again));

    // Another name, the same network address: the replica of a machine that is here.
    let twin = libvirtd.path("vm").join("twin");
    write(&twin, "twin");
    let script = fs::read_to_string(twin.join("register.sh")).unwrap();
    let script = script.replace("564d9bef-acd9-b4e0-c8f0-aea8b9103515", "");
    fs::write(twin.join("register.sh"), script).unwrap();
    let collision = libvirtd.command(twin.join("register.sh")).output().unwrap();
    assert_eq!(collision.status.code(), Some(1), "{}", said(&collision));
    assert!(said(&collision).contains("00:50:56:00:12:ab"), "{}", said(&collision));

    // Disks are copied where a folder is named.
    assert!(libvirtd.virsh(&["undefine", &machine.name]).status.success());
    let images = libvirtd.path("images");
    fs::create_dir(&images).unwrap();
    libvirtd.own();
    let copied = libvirtd.command(folder.join("register.sh")).arg(&images).output().unwrap();
    assert!(copied.status.success(), "{}", said(&copied));
    assert!(images.join("disk0.qcow2").exists());
    assert!(said(&libvirtd.virsh(&["dumpxml", &machine.name])).contains("images/disk0.qcow2"));
}

/// libvirt takes a machine with everything, and keeps all of it: what it says of it then is the same machine.
#[test]
fn libvirt_keeps_every_field() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let kvm = libvirtd.virsh(&["domcapabilities", "--virttype", "kvm"]).status.success();
    for (disks, disk) in FULL {
        let mut machine = full(disks, disk);
        // Whether its firmware can enforce it depends on the host, and whether there is swtpm.
        (machine.secure_boot, machine.tpm) = (false, false);
        let mut text = rendered_files(&machine, &placement(&machine, "/srv/it's here")).remove(0).text;
        if !kvm {
            text = text
                .replace("<domain type=\"kvm\"", "<domain type=\"qemu\"")
                .replace("host-model", "maximum");
        }
        let file = libvirtd.path("full.xml");
        fs::write(&file, &text).unwrap();
        libvirtd.own();
        let defined = libvirtd.virsh(&["define", "--validate", file.to_str().unwrap()]);
        assert!(defined.status.success(), "{}{text}", said(&defined));
        let uuid = machine.smbios.uuid.unwrap().to_string();
        let kept = said(&libvirtd.virsh(&["dumpxml", "--inactive", &uuid]));
        let parsed = hypervisor::libvirt::read::parse(kept.as_bytes(), &Choice::default()).unwrap();
        let mut machine = at_libvirt(&machine, "/srv/it's here");
        machine.nvram.clone_from(&parsed.machine.nvram);
        let mut theirs = parsed.machine;
        // It has given the cards their places, which have names.
        theirs.nics.iter_mut().for_each(|nic| nic.predictable_name = None);
        assert_eq!(theirs, machine, "{kept}");
        // What QEMU would be started with, but for the cards: libvirt would plug them in to say so.
        let mut without = text.split("<interface ").next().unwrap().to_owned();
        without += text.rsplit("</interface>").next().unwrap();
        fs::write(&file, &without).unwrap();
        let line = said(&libvirtd.virsh(&["domxml-to-native", "qemu-argv", "--xml", file.to_str().unwrap()]));
        assert!(line.contains("CZ,,1234=5") && line.contains("threads=2"), "{line}");
        let undefined = libvirtd.virsh(&["undefine", "--nvram", &uuid]);
        assert!(undefined.status.success(), "{}", said(&undefined));
    }
}
