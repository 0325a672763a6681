//! The simulator, and pyVmomi (VMware's own client for Python) as the one who looks.

use super::{MAC, UUID, image, landfall, machine, report};
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
        command.arg("--credentials").arg(self.path("credentials")).arg("--ca").arg(self.path("cert.pem"));
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

/// A folder with an OVF and its disk, as `--to ova` would fill it.
pub fn ovf(folder: &Path, name: &str, mib: usize) -> PathBuf {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    let disk = image(&folder, "disk0.vmdk", "vmdk-stream", mib);
    let (size, bytes) = (fs::metadata(disk).unwrap().len(), mib << 20);
    let escaped = name.replace('&', "&amp;").replace('<', "&lt;");
    let item = |text: &str| format!("<Item>{text}</Item>");
    let items: String = [
        "<rasd:ElementName>1 cpu</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID>\
         <rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity>",
        "<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>memory</rasd:ElementName>\
         <rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType>\
         <rasd:VirtualQuantity>512</rasd:VirtualQuantity>",
        "<rasd:Address>0</rasd:Address><rasd:ElementName>scsi</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID>\
         <rasd:ResourceSubType>VirtualSCSI</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType>",
        "<rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>disk</rasd:ElementName>\
         <rasd:HostResource>ovf:/disk/d0</rasd:HostResource><rasd:InstanceID>4</rasd:InstanceID>\
         <rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType>",
        "<rasd:Connection>VM Network</rasd:Connection><rasd:ElementName>card</rasd:ElementName>\
         <rasd:InstanceID>5</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType>\
         <rasd:ResourceType>10</rasd:ResourceType>",
    ]
    .map(item)
    .concat();
    let text = format!(
        r#"<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References><File ovf:id="f0" ovf:href="disk0.vmdk" ovf:size="{size}"/></References>
<DiskSection><Info>d</Info><Disk ovf:diskId="d0" ovf:fileRef="f0" ovf:capacity="{bytes}" ovf:capacityAllocationUnits="byte"/></DiskSection>
<NetworkSection><Info>n</Info><Network ovf:name="VM Network"/></NetworkSection>
<VirtualSystem ovf:id="x"><Info>v</Info><Name>{escaped}</Name>
<VirtualHardwareSection><Info>h</Info><System><InstanceID>0</InstanceID></System>{items}</VirtualHardwareSection>
</VirtualSystem></Envelope>"#
    );
    fs::write(folder.join("web01.ovf"), text).unwrap();
    report(&folder, "ova", &machine(name), &[("disk0.vmdk", "vmdk-stream", (mib << 20) as u64)]);
    folder
}

/// A folder with a .vmx and ESXi's disks, as `--to esxi` would fill it.
pub fn vmx(folder: &Path, name: &str) -> PathBuf {
    let folder = folder.join(name);
    fs::create_dir(&folder).unwrap();
    image(&folder, "disk0.vmdk", "vmdk-esxi", 3);
    let text = format!(
        "config.version = \"8\"\ndisplayName = \"{name}\"\nuuid.bios = \"{UUID}\"\nmemsize = \"512\"\n\
         scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"disk0.vmdk\"\n\
         ethernet0.present = \"TRUE\"\nethernet0.networkName = \"VM Network\"\n\
         ethernet0.addressType = \"static\"\nethernet0.address = \"{MAC}\"\n"
    );
    fs::write(folder.join("web01.vmx"), text).unwrap();
    report(&folder, "esxi", &machine(name), &[("disk0.vmdk", "vmdk-esxi", 3 << 20)]);
    folder
}
