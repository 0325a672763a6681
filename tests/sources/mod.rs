//! Sources that are more than a definition with its disks beside it: linked clones whose parents lie elsewhere, raw devices,
//! many disks, and disk images without any definition. Whole program; images by qemu-img and by hand.

mod images;
mod variables;

use crate::boots::{landfall, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder for one test.
pub(crate) struct Site(tempfile::TempDir);

impl Site {
    pub(crate) fn new() -> Site {
        Site(tempfile::tempdir().unwrap())
    }

    /// A path in it by its real name; the folders above are made.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        let path = self.0.path().canonicalize().unwrap().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// `vm/web01.vmx` with these disks on `scsi0`.
    fn machine(&self, disks: &[&str]) -> PathBuf {
        let mut vmx = "config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web01\"\nmemSize = \"512\"\n\
                       scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"pvscsi\"\n"
            .to_owned();
        for (number, disk) in disks.iter().enumerate() {
            vmx += &format!("scsi0:{number}.present = \"TRUE\"\nscsi0:{number}.fileName = \"{disk}\"\n");
        }
        let path = self.at("vm/web01.vmx");
        fs::write(&path, vmx).unwrap();
        path
    }
}

/// A descriptor of one extent line.
fn descriptor(kind: &str, extent: &str) -> String {
    format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"{kind}\"\n\n{extent}\n\n\
         ddb.adapterType = \"lsilogic\"\n"
    )
}

/// True where qemu-img is here, else a loud line.
pub(crate) fn have_qemu_img() -> bool {
    let here = Command::new("qemu-img").arg("--version").output().is_ok();
    if !here {
        eprintln!("SKIPPED: qemu-img is not here (Debian: qemu-utils)");
    }
    here
}

pub(crate) fn qemu_img(folder: &Path, args: &[&str]) {
    let output = Command::new("qemu-img").args(args).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "qemu-img {args:?}: {}", text(&output));
}

pub(crate) fn run(args: &[&str], paths: &[&Path]) -> Output {
    landfall().args(args).args(paths).output().unwrap()
}

/// What `inspect --json` says, whatever its exit code.
pub(crate) fn inspect(source: &Path, more: &[&str]) -> Value {
    let output = landfall().args(["--json", "inspect"]).arg(source).args(more).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", text(&output)))
}

/// What the findings with this id say, with their remedies.
pub(crate) fn told(document: &Value, id: &str) -> Vec<String> {
    let all = document["findings"].as_array().unwrap_or_else(|| panic!("{document}"));
    let one = |finding: &Value| {
        format!("{} {}", finding["says"].as_str().unwrap(), finding["remedy"].as_str().unwrap_or_default())
    };
    all.iter().filter(|finding| finding["id"] == id).map(one).collect()
}

/// Converts, which must be refused with this code and say all of this.
#[track_caller]
fn is_refused(source: &Path, more: &[&str], code: i32, says: &[&str]) {
    let out = tempfile::tempdir().unwrap();
    let mut command = landfall();
    let output = command
        .args(["convert", "--to", "kvm", "-o"])
        .arg(out.path())
        .arg(source)
        .args(more)
        .output()
        .unwrap();
    let all = text(&output);
    assert_eq!(output.status.code(), Some(code), "{all}");
    for part in says {
        assert!(all.contains(part), "{part:?} is not in: {all}");
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "something is left: {all}");
}

/// A descriptor says that the data is on a device of the source's host, though ESXi's .vmx does not.
#[test]
fn raw_devices_are_known_by_their_descriptors() {
    let site = Site::new();
    fs::write(site.at("vm/system.raw"), vec![0; 1 << 20]).unwrap();
    let machine = site.machine(&["system.raw", "data.vmdk"]);
    for (kind, extent) in [
        ("vmfsRawDeviceMap", "RW 2048 VMFSRDM \"data-rdm.vmdk\""),
        ("vmfsPassthroughRawDeviceMap", "RW 2048 VMFSRDM \"data-rdmp.vmdk\""),
        ("vmfsRaw", "RW 2048 VMFSRAW \"/vmfs/devices/disks/naa.600\""),
        ("fullDevice", "RW 2048 FLAT \"/dev/sdz\" 0"),
        ("fullDevice", "RW 2048 FLAT \"\\\\.\\PhysicalDrive1\" 0"),
        ("partitionedDevice", "RW 63 FLAT \"data-pt.vmdk\" 0\nRW 1985 FLAT \"/dev/sdz1\" 63"),
    ] {
        fs::write(site.at("vm/data.vmdk"), descriptor(kind, extent)).unwrap();
        let ways_out = ["scsi0:1", kind, "--disk scsi0:1=/dev/", "vmkfstools -i", "--skip-disk scsi0:1"];
        is_refused(&machine, &[], 1, &ways_out);
        let seen = inspect(&machine, &[]);
        assert!(told(&seen, "disk-unreadable")[0].contains("--disk scsi0:1=/dev/"), "{kind}: {seen}");
        assert_eq!(told(&seen, "disk-raw-device").len(), 1, "{kind}: {seen}");
        // Its data named: that it was a raw device is still told.
        fs::write(site.at("lun.raw"), vec![0; 1 << 20]).unwrap();
        let lun = format!("scsi0:1={}", site.at("lun.raw").display());
        let seen = inspect(&machine, &["--disk", &lun]);
        assert!(told(&seen, "disk-unreadable").is_empty(), "{seen}");
        let raw = told(&seen, "disk-raw-device");
        assert!(raw.len() == 1 && raw[0].contains(kind), "{kind}: {raw:?}");
        assert!(told(&inspect(&machine, &["--skip-disk", "scsi0:1"]), "disk-raw-device").is_empty());
    }
    // The definition says it as well: it is told once.
    let vmx = fs::read_to_string(&machine).unwrap() + "scsi0:1.deviceType = \"rawDisk\"\n";
    fs::write(&machine, vmx).unwrap();
    assert_eq!(told(&inspect(&machine, &[]), "disk-raw-device").len(), 1);
}

/// Writes `path` as the parent's name into a sparse VMDK, whose room for its descriptor is fixed.
fn hint(image: &Path, path: &str) {
    const KEY: &[u8] = b"parentFileNameHint=\"";
    let mut bytes = fs::read(image).unwrap();
    let start = bytes.windows(KEY.len()).position(|part| part == KEY).unwrap() + KEY.len();
    let end = start + bytes[start..].iter().position(|byte| *byte == b'"').unwrap();
    let text_end = start + bytes[start..].iter().position(|byte| *byte == 0).unwrap();
    let rest = bytes[end..text_end].to_vec();
    let room = text_end + 256 - start;
    let mut new = [path.as_bytes(), &rest].concat();
    assert!(new.len() < room);
    new.resize(room, 0);
    bytes[start..start + room].copy_from_slice(&new);
    fs::write(image, bytes).unwrap();
}

/// A template with data in it, and a clone with other data over it; the clone's whole content, by qemu-img.
fn clone(site: &Site, format: &str) -> (PathBuf, PathBuf) {
    let base = site.at(&format!("templates/base.{format}"));
    let child = site.at(&format!("vm/clone.{format}"));
    let folder = site.at("");
    let noise: Vec<u8> =
        (0..4_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 11).to_le_bytes()[0]).collect();
    fs::write(site.at("noise"), noise).unwrap();
    qemu_img(&folder, &["convert", "-q", "-f", "raw", "-O", format, "noise", base.to_str().unwrap()]);
    qemu_img(
        &folder,
        &["create", "-q", "-f", format, "-F", format, "-b", base.to_str().unwrap(), child.to_str().unwrap()],
    );
    let write = Command::new("qemu-io")
        .args(["-f", format, "-c", "write -P 7 1M 64k", child.to_str().unwrap()])
        .output();
    assert!(write.unwrap().status.success());
    let whole = site.at("whole.raw");
    qemu_img(
        &folder,
        &["convert", "-q", "-f", format, "-O", "raw", child.to_str().unwrap(), whole.to_str().unwrap()],
    );
    (child, whole)
}

#[test]
fn a_linked_clone_is_read_with_its_parent_from_where_the_user_says() {
    if !have_qemu_img() {
        return;
    }
    let site = Site::new();
    let (child, whole) = clone(&site, "vmdk");
    let machine = site.machine(&["clone.vmdk"]);
    let templates = site.at("templates");
    for named in [
        "/vmfs/volumes/5f1e0000-0000/templates/base.vmdk",
        "/somewhere/templates/base.vmdk",
        "C:\\VMs\\templates\\base.vmdk",
        "../templates/base.vmdk",
        "base.vmdk",
    ] {
        hint(&child, named);
        let beside = site.at("vm/base.vmdk").display().to_string();
        let code = if named.starts_with(['/', '.']) { 1 } else { 2 };
        is_refused(&machine, &[], code, &["linked clone", &beside, "--allow FOLDER", "--disk scsi0:0=FILE"]);
        let seen = inspect(&machine, &["--allow", templates.to_str().unwrap()]);
        let linked = told(&seen, "disk-linked");
        let parent = templates.join("base.vmdk").display().to_string();
        assert!(linked.len() == 1 && linked[0].contains(&parent), "{named}: {linked:?}");
        assert!(told(&seen, "disk-parent-by-name").is_empty(), "its content id was compared");
        // The result is whole, and needs no other image.
        let out = site.at("out.qcow2");
        let converted =
            run(&["disk", "convert", "--replace", "--allow", templates.to_str().unwrap()], &[&child, &out]);
        assert_eq!(converted.status.code(), Some(0), "{}", text(&converted));
        let same = Command::new("qemu-img").arg("compare").args([&out, &whole]).output().unwrap();
        assert!(same.status.success(), "{named}: {}", text(&same));
    }
    // Another disk of that name is not its parent.
    let other = site.at("others/base.vmdk");
    qemu_img(&site.at(""), &["create", "-q", "-f", "vmdk", other.to_str().unwrap(), "4M"]);
    let others = site.at("others");
    let others = others.to_str().unwrap();
    is_refused(&machine, &["--allow", others], 1, &["is not the parent that its child was made from"]);
    is_refused(
        &machine,
        &["--allow", others, "--allow", templates.to_str().unwrap()],
        1,
        &["may be any of", "allow one folder only"],
    );
}

/// qcow2 has no identity by which a parent could be known: one that is found by its name is a warning.
#[test]
fn a_parent_by_name_alone_is_told() {
    if !have_qemu_img() {
        return;
    }
    let site = Site::new();
    let (child, _) = clone(&site, "qcow2");
    let machine = site.machine(&["clone.qcow2"]);
    let templates = site.at("templates");
    let seen = inspect(&machine, &["--allow", templates.to_str().unwrap()]);
    assert_eq!(
        (told(&seen, "disk-linked").len(), told(&seen, "disk-parent-by-name").len()),
        (1, 0),
        "{seen}"
    );
    qemu_img(
        &site.at("vm"),
        &["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "/gone/base.qcow2", child.to_str().unwrap()],
    );
    is_refused(&machine, &[], 1, &["/gone/base.qcow2", "--allow FOLDER"]);
    let seen = inspect(&machine, &["--allow", templates.to_str().unwrap()]);
    let by_name = told(&seen, "disk-parent-by-name");
    assert!(by_name.len() == 1 && by_name[0].contains("templates/base.qcow2"), "{by_name:?}");
}

/// The parents of Hyper-V's and VirtualBox' differencing disks are looked for in the same way.
#[test]
fn differencing_disks_of_others_find_their_parents() {
    if !have_qemu_img() {
        return;
    }
    for kind in ["vhdx", "vhd"] {
        let site = Site::new();
        fs::write(site.at("base.raw"), vec![5; 4 << 20]).unwrap();
        fs::write(site.at("child.raw"), [vec![5; 3 << 20], vec![6; 1 << 20]].concat()).unwrap();
        let (base, child) = (site.at(&format!("vm/base.{kind}")), site.at(&format!("vm/child.{kind}")));
        let made = run(&["disk", "convert"], &[&site.at("base.raw"), &base]);
        assert!(made.status.success(), "{}", text(&made));
        let over = ["disk", "convert", "--base", base.to_str().unwrap()];
        let made = run(&over, &[&site.at("child.raw"), &child]);
        assert!(made.status.success(), "{}", text(&made));
        fs::rename(&base, site.at(&format!("templates/base.{kind}"))).unwrap();
        let machine = site.machine(&[&format!("child.{kind}")]);
        is_refused(&machine, &[], 2, &["linked clone", &base.display().to_string(), "--allow FOLDER"]);
        let templates = site.at("templates");
        let seen = inspect(&machine, &["--allow", templates.to_str().unwrap()]);
        assert_eq!(told(&seen, "disk-linked").len(), 1, "{kind}: {seen}");
        let allow = ["disk", "compare", "--allow", templates.to_str().unwrap()];
        let same = run(&allow, &[&child, &site.at("child.raw")]);
        assert_eq!(same.status.code(), Some(0), "{kind}: {}", text(&same));
    }
}

/// As many disks as fit are planned for, more are refused with the room that there is; on every target.
#[test]
fn many_disks_fit_or_are_refused_with_a_way_out() {
    let site = Site::new();
    fs::write(site.at("vm/disk.raw"), vec![0; 1 << 20]).unwrap();
    let define = |count: usize| {
        let mut vmx = "config.version = \"8\"\ndisplayName = \"web01\"\nmemSize = \"512\"\n".to_owned();
        for controller in 0..4 {
            vmx +=
                &format!("scsi{controller}.present = \"TRUE\"\nscsi{controller}.virtualDev = \"pvscsi\"\n");
        }
        for number in 0..count {
            let place = number % 64 + usize::from(number % 64 > 6);
            let slot = format!("scsi{}:{place}", number / 64);
            let file = site.at(&format!("vm/{number}.raw"));
            let _ = fs::hard_link(site.at("vm/disk.raw"), file);
            vmx += &format!("{slot}.present = \"TRUE\"\n{slot}.fileName = \"{number}.raw\"\n");
        }
        let path = site.at("vm/web01.vmx");
        fs::write(&path, vmx).unwrap();
        path
    };
    // Disks that fit by the target's own limits; the first number that does not.
    for (target, fit, too_many) in [
        ("kvm", 200, 241),
        ("openstack", 61, 241),
        ("kubevirt", 61, 241),
        ("ovirt", 61, 241),
        ("proxmox", 30, 61),
        ("ahv", 200, 241),
        ("esxi", 65, 200),
        ("ova", 61, 200),
        ("hyperv", 200, 256 + 1),
        ("azure", 65, 66),
    ] {
        let blocks = |count: usize| -> Vec<String> {
            // More than four controllers of VMware's hold no more.
            let machine = define(count.min(256));
            let seen = inspect(&machine, &["--to", target]);
            assert_eq!(seen["disks"].as_array().unwrap().len(), count.min(256));
            [told(&seen, "target-refuses"), told(&seen, "disks-too-many")].concat()
        };
        assert_eq!(blocks(fit), Vec::<String>::new(), "{target}: {fit}");
        if too_many <= 256 {
            let told = blocks(too_many);
            assert!(told.len() == 1 && told[0].contains("--skip-disk"), "{target}: {told:?}");
            assert!(told[0].contains(&format!("{too_many} disks")), "{target}: {told:?}");
        }
    }
}

/// Both disks of a package have its path.
#[test]
fn a_package_with_two_disks_is_read() {
    if Command::new("tar").arg("--version").output().is_err() {
        eprintln!("SKIPPED: tar is not here");
        return;
    }
    let site = Site::new();
    let item = |id: u32, kind: u32, rest: &str| {
        format!(
            "<Item><rasd:InstanceID>{id}</rasd:InstanceID><rasd:ResourceType>{kind}</rasd:ResourceType>{rest}</Item>"
        )
    };
    let drive = |id: u32, disk: &str, place: u32| {
        let rest = format!(
            "<rasd:HostResource>ovf:/disk/{disk}</rasd:HostResource><rasd:Parent>3</rasd:Parent>\
             <rasd:AddressOnParent>{place}</rasd:AddressOnParent>"
        );
        item(id, 17, &rest)
    };
    let (mut files, mut disks) = (String::new(), String::new());
    for name in ["a", "b"] {
        let raw = site.at(&format!("{name}.raw"));
        fs::write(&raw, name.repeat(1 << 20)).unwrap();
        let made = landfall()
            .args(["-q", "disk", "convert", "-O", "vmdk-stream"])
            .arg(&raw)
            .arg(site.at(&format!("{name}.vmdk")))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", text(&made));
        files += &format!("<File ovf:id='f{name}' ovf:href='{name}.vmdk'/>");
        disks += &format!("<Disk ovf:diskId='{name}' ovf:fileRef='f{name}' ovf:capacity='1048576'/>");
    }
    let items = [
        item(1, 3, "<rasd:VirtualQuantity>1</rasd:VirtualQuantity>"),
        item(
            2,
            4,
            "<rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:VirtualQuantity>512</rasd:VirtualQuantity>",
        ),
        item(3, 6, "<rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:Address>0</rasd:Address>"),
        drive(4, "a", 0),
        drive(5, "b", 1),
    ];
    let ovf = format!(
        "<Envelope xmlns='http://schemas.dmtf.org/ovf/envelope/1' xmlns:ovf='http://schemas.dmtf.org/ovf/envelope/1' \
         xmlns:rasd='http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData'>\
         <References>{files}</References><DiskSection><Info/>{disks}</DiskSection><VirtualSystem ovf:id='two'><Info/>\
         <VirtualHardwareSection><Info/>{}</VirtualHardwareSection></VirtualSystem></Envelope>",
        items.concat()
    );
    fs::write(site.at("two.ovf"), ovf).unwrap();
    let packed = Command::new("tar")
        .args(["cf", "two.ova", "two.ovf", "a.vmdk", "b.vmdk"])
        .current_dir(site.at(""))
        .status();
    assert!(packed.unwrap().success());
    let inspect = |args: &[&str]| {
        let output =
            landfall().args(["--json", "inspect"]).arg(site.at("two.ova")).args(args).output().unwrap();
        (serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default(), text(&output))
    };
    let (seen, said) = inspect(&[]);
    assert_eq!(seen["disks"].as_array().map(Vec::len), Some(2), "{said}");
    assert_eq!(seen["disks"][1]["virtual_size"], 1 << 20, "{said}");
    // One member twice stays refused.
    let twice =
        fs::read_to_string(site.at("two.ovf")).unwrap().replace("ovf:fileRef='fb'", "ovf:fileRef='fa'");
    fs::write(site.at("two.ovf"), twice).unwrap();
    let packed =
        Command::new("tar").args(["cf", "two.ova", "two.ovf", "a.vmdk"]).current_dir(site.at("")).status();
    assert!(packed.unwrap().success());
    assert!(inspect(&[]).1.contains("another disk of the machine already"), "{}", inspect(&[]).1);
}
