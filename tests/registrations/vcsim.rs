//! The simulator, and pyVmomi (VMware's own client for Python) as the one who looks.

use super::{Machine, image, landfall, machine, report};
use landfall::hypervisor::{self, PlacedDisk, Placement, attach};
use landfall::machine::{Bus, DiskSlot};
use landfall_boot::target::{Devices, Platform};
use landfall_image::Bytes;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub struct Vcsim {
    pub folder: tempfile::TempDir,
    /// `127.0.0.1:PORT`
    pub address: String,
    server: Child,
}

const PYTHON: &str = "/usr/bin/python3";

/// Everything about every machine, as JSON.
const LIST: &str = r#"
import json, ssl, sys
from pyVim.connect import SmartConnect
from pyVmomi import vim
host, port = sys.argv[1].split(":")
context = ssl.create_default_context(cafile=sys.argv[2])
content = SmartConnect(host=host, port=int(port), user="root", pwd="se<cr>&t", sslContext=context).RetrieveContent()
view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
out = {}
for vm in view.view:
    devices = vm.config.hardware.device
    cards = [d for d in devices if isinstance(d, vim.vm.device.VirtualEthernetCard)]
    out[vm.name] = {
        "id": vm._moId,
        "uuid": vm.config.uuid,
        "macs": [d.macAddress for d in cards],
        "networks": [getattr(d.backing, "deviceName", None) for d in cards],
        "disks": [d.capacityInKB for d in devices if isinstance(d, vim.vm.device.VirtualDisk)],
        "running": vm.runtime.powerState == "poweredOn",
        "path": vm.config.files.vmPathName,
        "folder": vm.parent.name,
        "pool": vm.resourcePool.parent.name,
    }
print(json.dumps(out))
"#;

impl Vcsim {
    pub fn start(args: &[&str]) -> Option<Vcsim> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/vcsim");
        if !program.exists() {
            eprintln!("SKIPPED: target/vcsim is not here (tools/make-vcsim.sh makes it)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let server = Command::new(program)
            .args(["-user", "root", "-password", "se<cr>&t", "-folder"])
            .arg(folder.path())
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut vcsim = Vcsim { folder, address: String::new(), server };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !vcsim.path("address").exists() {
            assert!(Instant::now() < deadline, "vcsim does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        vcsim.address = fs::read_to_string(vcsim.path("address")).unwrap();
        vcsim.credentials("se<cr>&t");
        Some(vcsim)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn credentials(&self, password: &str) -> PathBuf {
        let path = self.path("credentials");
        fs::write(&path, format!("user = 'root'\npassword = '{password}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// `landfall --json register FOLDER --at … ` with everything that a login needs.
    pub fn command(&self, folder: &Path, address: &str) -> Command {
        let mut command = landfall();
        command.args(["--json", "register"]).arg(folder).arg("--at").arg(format!("vsphere://{address}"));
        command
            .arg("--credentials")
            .arg(self.path("credentials"))
            .arg("--register-ca")
            .arg(self.path("cert.pem"));
        command
    }

    pub fn register(&self, folder: &Path, args: &[&str]) -> Output {
        self.command(folder, &self.address).args(args).output().unwrap()
    }

    /// What the second client sees.
    pub fn machines(&self) -> Value {
        let listed = Command::new(PYTHON)
            .args(["-c", LIST, &self.address])
            .arg(self.path("cert.pem"))
            .output()
            .unwrap();
        serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("{}", super::all(&listed)))
    }

    /// What was sent to the lease for a disk.
    pub fn sent(&self, name: &str) -> Vec<u8> {
        fs::read(self.path("nfc").join(name)).unwrap()
    }
}

impl Drop for Vcsim {
    fn drop(&mut self) {
        // Its end removes what the simulator keeps in the system's folder for scratch files.
        drop(self.server.stdin.take());
        let _ = self.server.wait();
    }
}

pub fn second_client() -> bool {
    let there =
        Command::new(PYTHON).args(["-c", "import pyVmomi"]).output().is_ok_and(|out| out.status.success());
    if !there {
        eprintln!("SKIPPED: pyVmomi is not here (Debian: python3-pyvmomi)");
    }
    there
}

/// A folder with an OVF and its disk: what `--to ova` packs, unpacked.
pub fn ovf(folder: &Path, name: &str, mib: usize) -> PathBuf {
    filled(folder, machine(name), "ova", "vmdk-stream", mib)
}

/// A folder as `--to esxi` fills it.
pub fn vmx(folder: &Path, name: &str) -> PathBuf {
    filled(folder, machine(name), "esxi", "vmdk-esxi", 3)
}

/// A folder with a machine, written for that target, and a disk of that kind.
pub fn filled(folder: &Path, mut machine: Machine, target: &str, kind: &str, mib: usize) -> PathBuf {
    let folder = folder.join(&machine.name);
    fs::create_dir(&folder).unwrap();
    let stored = fs::metadata(image(&folder, "disk0.vmdk", kind, mib)).unwrap().len();
    machine.disks = vec![DiskSlot::new("scsi0:0", Bus::Scsi, "disk0.vmdk")];
    let machine = attach::adapt(&machine, Platform::Esxi, &Devices::default()).unwrap();
    let size = Bytes::mib(mib as u64);
    let disk = PlacedDisk {
        file: "disk0.vmdk".into(),
        format: "vmdk".into(),
        virtual_size: size,
        stored: Some(Bytes(stored)),
        below: None,
    };
    let folder_name = folder.to_str().unwrap().to_owned();
    let placement = Placement { folder: folder_name, disks: vec![disk], ..Placement::default() };
    for artifact in (hypervisor::target(target).unwrap().render)(&machine, &placement).unwrap().artifacts {
        fs::write(folder.join(artifact.name), artifact.text).unwrap();
    }
    report(&folder, target, &machine, &[("disk0.vmdk", kind, size.0)]);
    folder
}

/// The definition with that ending in a folder.
pub fn definition(folder: &Path, ending: &str) -> PathBuf {
    let mut paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.find(|path| path.extension().is_some_and(|own| own == ending)).unwrap()
}
