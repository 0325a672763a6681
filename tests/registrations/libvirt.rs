//! libvirt: a daemon of the test's own, and `virsh` as the one who looks.

use super::{MAC, Machine, UUID, all, document, ids, image, machine, report};
use crate::machines::libvirtd::Libvirtd;
use crate::machines::{adapted, placement, rendered_files};
use landfall::machine::{Bus, DiskSlot};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn with_disk(name: &str) -> Machine {
    let mut machine = machine(name);
    machine.disks = vec![DiskSlot::new("scsi0:0", Bus::Scsi, "disk0.qcow2")];
    machine
}

/// A folder as `convert --to kvm` fills it.
fn write(libvirtd: &Libvirtd, folder: &str, machine: &Machine) -> PathBuf {
    let folder = libvirtd.path("vm").join(folder);
    fs::create_dir_all(&folder).unwrap();
    image(&folder, "disk0.qcow2", "qcow2", 1);
    let machine = adapted(machine);
    for artifact in rendered_files(&machine, &placement(&machine, "/written/for/another & folder")) {
        // Emulated: what is tested here is no guest.
        let text = artifact.text.replace("<domain type=\"kvm\"", "<domain type=\"qemu\"");
        let text = text.replace("host-model", "maximum");
        fs::write(folder.join(&artifact.name), text).unwrap();
    }
    report(&folder, "kvm", &machine, &[("disk0.qcow2", "qcow2", 1 << 20)]);
    libvirtd.own();
    folder
}

fn register(libvirtd: &Libvirtd, folder: &Path, args: &[&str]) -> Output {
    let program = libvirtd.path("landfall");
    if !program.exists() {
        // The daemon's user may not reach the build's own folder.
        fs::copy(env!("CARGO_BIN_EXE_landfall"), &program).unwrap();
        libvirtd.own();
    }
    let mut command = libvirtd.command(program);
    command.args(["--json", "register"]).arg(folder).args(["--at", "qemu:///session"]).args(args);
    command.output().unwrap()
}

fn names(libvirtd: &Libvirtd) -> Vec<String> {
    let listed = libvirtd.virsh(&["list", "--all", "--name"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    listed.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn a_machine_is_registered_once_and_where_it_lies() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let name = "web 'one' & <more>";
    let folder = write(&libvirtd, "it's <here> & now", &with_disk(name));
    let (plan, code) = document(&register(&libvirtd, &folder, &["--dry-run"]));
    assert_eq!((code, plan["outcome"].as_str()), (0, Some("planned")), "{plan:#}");
    assert!(names(&libvirtd).is_empty());
    let (done, code) = document(&register(&libvirtd, &folder, &[]));
    assert_eq!((code, &done["id"]), (0, &UUID.into()), "{done:#}");
    assert_eq!(names(&libvirtd), [name]);
    let defined = all(&libvirtd.virsh(&["dumpxml", name]));
    for wanted in [MAC, UUID, "it&apos;s &lt;here&gt; &amp; now/disk0.qcow2"] {
        assert!(defined.contains(wanted), "{wanted} is not in\n{defined}");
    }
    let (again, code) = document(&register(&libvirtd, &folder, &[]));
    assert_eq!((code, again["outcome"].as_str()), (1, Some("blocked")), "{again:#}");
    assert_eq!(
        ids(&again)[..4],
        ["target-name-taken", "target-id-taken", "target-address-taken", "target-file-taken"]
    );
    // Another copy of the machine that calls itself otherwise.
    let mut twin = with_disk("twin");
    twin.smbios.uuid = None;
    let folder = write(&libvirtd, "twin", &twin);
    let (refused, code) = document(&register(&libvirtd, &folder, &[]));
    assert_eq!((code, ids(&refused)[0]), (1, "target-address-taken"), "{refused:#}");
    assert_eq!(names(&libvirtd), [name]);
}

#[test]
fn disks_are_copied_and_the_machine_starts() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let mut machine = with_disk("web01");
    machine.nics.clear();
    machine.smbios.uuid = None;
    let folder = write(&libvirtd, "web01", &machine);
    let images = libvirtd.path("images");
    fs::create_dir(&images).unwrap();
    libvirtd.own();
    let storage = ["--register-storage", images.to_str().unwrap(), "--start"];
    let (done, code) = document(&register(&libvirtd, &folder, &storage));
    assert_eq!((code, &done["started"]), (0, &true.into()), "{done:#}");
    let state = libvirtd.virsh(&["domstate", done["id"].as_str().unwrap()]);
    assert_eq!(all(&state).trim(), "running");
    let block = all(&libvirtd.virsh(&["domblklist", "web01"]));
    let copy = images.join("web01-disk0.qcow2");
    assert!(block.contains(copy.to_str().unwrap()), "{block}");
    assert!(libvirtd.virsh(&["destroy", "web01"]).status.success());
    assert!(libvirtd.virsh(&["undefine", "web01"]).status.success());
    // What lies in the folder is never overwritten.
    let before = fs::read(&copy).unwrap();
    let (refused, code) = document(&register(&libvirtd, &folder, &storage));
    assert_eq!((code, ids(&refused)), (1, vec!["target-file-taken"]), "{refused:#}");
    assert!(fs::read(&copy).unwrap() == before && names(&libvirtd).is_empty());
}

#[test]
fn a_name_never_leads_out_of_the_storage() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let folder = write(&libvirtd, "web01", &with_disk("web01"));
    let path = folder.join("domain.xml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("<name>web01</name>", "<name>../x</name>")).unwrap();
    let images = libvirtd.path("images");
    // So that `images/../x-disk0.qcow2` is a place that could be written.
    fs::create_dir(&images).unwrap();
    libvirtd.own();
    for more in [&["--dry-run"][..], &[]] {
        let storage = ["--register-storage", images.to_str().unwrap()];
        let (refused, code) = document(&register(&libvirtd, &folder, &[&storage[..], more].concat()));
        assert_eq!((code, refused["error"]["kind"].as_str()), (1, Some("refused")), "{refused:#}");
        assert!(refused["error"]["says"].as_str().unwrap().contains("../x"), "{refused:#}");
    }
    let around = images.parent().unwrap();
    let is_copy = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains("disk0");
    assert!(!fs::read_dir(around).unwrap().any(|entry| is_copy(entry.unwrap())));
}

#[test]
fn what_libvirt_refuses_leaves_nothing() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let folder = write(&libvirtd, "web01", &with_disk("web01"));
    let path = folder.join("domain.xml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("arch=\"x86_64\"", "arch=\"vax\"")).unwrap();
    let images = libvirtd.path("images");
    fs::create_dir(&images).unwrap();
    libvirtd.own();
    let (failed, code) =
        document(&register(&libvirtd, &folder, &["--register-storage", images.to_str().unwrap()]));
    let error = &failed["error"];
    assert_eq!(code, 2, "{failed:#}");
    assert!(error["hint"].as_str().unwrap().contains("nothing of it is left"), "{failed:#}");
    assert_eq!(fs::read_dir(&images).unwrap().count(), 0);
    assert!(names(&libvirtd).is_empty());

    // A machine that does not start stays: registered is registered, and it is said.
    fs::write(&path, text.replace("<source bridge=\"br0\"/>", "<source bridge=\"landfall-none\"/>")).unwrap();
    libvirtd.own();
    let (failed, code) = document(&register(&libvirtd, &folder, &["--start"]));
    assert_eq!(code, 2, "{failed:#}");
    assert!(
        failed["error"]["hint"].as_str().unwrap().contains("it is registered, and stays so"),
        "{failed:#}"
    );
    let command = format!("virsh -c 'qemu:///session' undefine --nvram --domain '{UUID}'");
    assert!(failed["error"]["hint"].as_str().unwrap().contains(&command), "{failed:#}");
    assert_eq!(names(&libvirtd), ["web01"]);
}

#[test]
fn a_daemon_elsewhere_or_nowhere_is_said() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let folder = write(&libvirtd, "web01", &with_disk("web01"));
    let mut command = libvirtd.command(libvirtd.path("landfall"));
    drop(register(&libvirtd, &folder, &["--dry-run"]));
    let socket = libvirtd.path("run").join("none");
    let at = format!("qemu:///session?socket={}", socket.display());
    let output = command.args(["--json", "register"]).arg(&folder).args(["--at", &at]).output().unwrap();
    let (failed, code) = document(&output);
    assert!(code == 2 && failed["error"]["hint"].as_str().unwrap().contains("libvirtd"), "{failed:#}");
}

/// By the script and by landfall, where it lies and copied: the machine starts with its own UEFI variables.
#[test]
fn variables_go_with_their_machine() {
    let Some(libvirtd) = Libvirtd::start() else { return };
    let Ok(bytes) = fs::read("/usr/share/OVMF/OVMF_VARS_4M.fd") else {
        eprintln!("SKIPPED: /usr/share/OVMF/OVMF_VARS_4M.fd is not here (Debian: ovmf)");
        return;
    };
    let mut machine = with_disk("web01");
    machine.nics.clear();
    machine.firmware = landfall_boot::target::Firmware::Uefi;
    let folder = libvirtd.path("vm").join("it's <here> & now");
    fs::create_dir_all(&folder).unwrap();
    image(&folder, "disk0.qcow2", "qcow2", 1);
    let adapted = adapted(&machine);
    let placement = landfall::hypervisor::Placement {
        variables: Some("uefi-variables.fd".into()),
        ..placement(&adapted, "/written/for/another & folder")
    };
    for artifact in rendered_files(&adapted, &placement) {
        let text = artifact.text.replace("<domain type=\"kvm\"", "<domain type=\"qemu\"");
        fs::write(folder.join(&artifact.name), text.replace("host-model", "maximum")).unwrap();
    }
    report(&folder, "kvm", &adapted, &[("disk0.qcow2", "qcow2", 1 << 20)]);
    let own = folder.join("uefi-variables.fd");
    fs::write(&own, &bytes).unwrap();
    let images = libvirtd.path("images");
    fs::create_dir(&images).unwrap();
    libvirtd.own();
    let nvram = || {
        let text = all(&libvirtd.virsh(&["dumpxml", "--inactive", "web01"]));
        let root = landfall::hypervisor::xml::Element::parse(text.as_bytes()).unwrap();
        PathBuf::from(root.text_at("os/nvram").unwrap())
    };
    let forget = || assert!(libvirtd.virsh(&["undefine", "--keep-nvram", "web01"]).status.success());

    let done = libvirtd.command("sh").arg(folder.join("register.sh")).output().unwrap();
    assert!(done.status.success(), "{}", all(&done));
    assert_eq!(nvram(), own);
    forget();
    let done = libvirtd.command("sh").arg(folder.join("register.sh")).arg(&images).output().unwrap();
    assert!(done.status.success(), "{}", all(&done));
    let copy = images.join("uefi-variables.fd");
    assert!(nvram() == copy && fs::read(&copy).unwrap() == bytes);
    forget();

    let (done, code) = document(&register(&libvirtd, &folder, &[]));
    assert_eq!((code, nvram()), (0, own.clone()), "{done:#}");
    forget();
    fs::remove_file(folder.join("registration.json")).unwrap();
    let storage = ["--register-storage", images.to_str().unwrap(), "--start"];
    let (done, code) = document(&register(&libvirtd, &folder, &storage));
    let copy = images.join("web01-uefi-variables.fd");
    assert_eq!((code, nvram()), (0, copy.clone()), "{done:#}");
    // The firmware wrote into the copy, and not into the folder.
    assert!(libvirtd.virsh(&["destroy", "web01"]).status.success());
    assert!(fs::read(&own).unwrap() == bytes && fs::metadata(copy).unwrap().len() == bytes.len() as u64);
}
