//! The main job on real guests: converted, booted on the target's devices, looked at from inside.
//!
//! The guests are made by `tools/make-guest.sh` (Debian's own packages) and kept in `target/guests`. A boot takes a minute
//! or two without KVM, so as many run at once as there are cores, and each test gets as much as it can out of one boot.

mod matrix;

use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Machines that run at this moment.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A place for a virtual machine of a test, until it is dropped.
pub struct Place(());

/// Waits for a place. Emulated, each machine takes a core: more of them at once would only end later, some too late.
pub fn place() -> Place {
    let places = std::thread::available_parallelism().map_or(1, usize::from);
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut running =
        ENDED.wait_while(running, |running| *running >= places).unwrap_or_else(PoisonError::into_inner);
    *running += 1;
    Place(())
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program, with the sandbox's kernel.
pub fn landfall() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_landfall"));
    // The sandbox's kernel, as `make` fetches it.
    command.env("LANDFALL_DATA", root().join("target"));
    command
}

/// Everything that it printed.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A lock for each guest.
static MAKING: Mutex<BTreeMap<String, Arc<Mutex<()>>>> = Mutex::new(BTreeMap::new());

/// The folder of a guest, made where it is not there yet. `None`, loudly, where it cannot be made.
pub fn guest(suite: &str, layout: &str) -> Option<PathBuf> {
    for tool in ["mmdebstrap", "qemu-img", "qemu-system-x86_64", "bwrap"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("SKIPPED: {tool} is not here: run make test, which installs it");
            return None;
        }
    }
    let name = format!("{suite}-{layout}");
    let folder = root().join("target/guests").join(&name);
    // Whoever wants the same one waits until it is made.
    let making = Arc::clone(MAKING.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default());
    let _one = making.lock().unwrap_or_else(PoisonError::into_inner);
    let made = Command::new(root().join("tools/make-guest.sh"))
        .arg(layout)
        .arg(&folder)
        .env("SUITE", suite)
        .output()
        .unwrap();
    if !made.status.success() {
        eprintln!("SKIPPED: the guest cannot be made here: {}", text(&made));
        return None;
    }
    Some(folder)
}

/// All files of a folder by name, size, time and content.
pub fn fingerprint(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let mut file = fs::File::open(&path).unwrap();
        let mut hasher = DefaultHasher::new();
        loop {
            let len = file.read(&mut buffer).unwrap();
            if len == 0 {
                break;
            }
            hasher.write(&buffer[..len]);
        }
        all.push((path, hasher.finish()));
    }
    all.sort();
    all
}

/// The parent of a process, and the moment of its start: that and the number together are never used twice.
fn parent_and_start(pid: u32) -> Option<(u32, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // A process that waits to be collected has ended.
    (*fields.first()? != "Z").then_some(())?;
    Some((fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?))
}

/// Runs a command, and tells which processes that it or its children started are there after its end.
pub fn watched(mut command: Command) -> (Output, Vec<u32>) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut family: BTreeMap<u32, u64> = BTreeMap::new();
    while child.try_wait().unwrap().is_none() {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some((parent, start)) = parent_and_start(pid)
                && (parent == child.id() || family.contains_key(&parent))
            {
                family.insert(pid, start);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    // What was killed takes a moment to be gone.
    let deadline = Instant::now() + Duration::from_secs(5);
    while family.iter().any(|(pid, start)| parent_and_start(*pid).is_some_and(|(_, now)| now == *start))
        && Instant::now() < deadline
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    family.retain(|pid, start| parent_and_start(*pid).is_some_and(|(_, now)| now == *start));
    (output, family.into_keys().collect())
}

fn convert(landfall: Command, target: &str, vmx: &Path, out: &Path) -> Value {
    convert_with(landfall, &["--to", target], vmx, out)
}

fn convert_with(mut landfall: Command, more: &[&str], vmx: &Path, out: &Path) -> Value {
    let output = landfall.args(["--json", "convert", "-o"]).arg(out).args(more).arg(vmx).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn prove(folder: &Path, more: &[&str]) -> (Output, Value) {
    prove_by(landfall(), folder, more)
}

fn prove_by(mut landfall: Command, folder: &Path, more: &[&str]) -> (Output, Value) {
    landfall.args(["prove", "--timeout", "900"]).args(more).arg(folder);
    let (output, left) = watched(landfall);
    assert!(left.is_empty(), "processes that are left: {left:?}: {}", text(&output));
    let proof = fs::read(folder.join("proof/proof.json")).unwrap_or_else(|_| panic!("{}", text(&output)));
    (output, serde_json::from_slice(&proof).unwrap())
}

/// The program with the key of the guest in this folder, which lies beside its disks where they are encrypted.
fn landfall_for(guest: &Path) -> Command {
    let mut command = landfall();
    let key = guest.join("web01.key");
    if key.exists() {
        command.arg("--key-file").arg(&key);
    }
    command
}

/// Converts and boots the guest; everything that must hold for every guest is checked here.
fn comes_ashore(suite: &str, layout: &str) -> Option<Value> {
    let source = guest(suite, layout)?;
    let with_key = || landfall_for(&source);
    let before = fingerprint(&source);
    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    let report = convert(with_key(), "kvm", &source.join("web01.vmx"), out.path());
    let folder = out.path().join("web01");
    for file in ["domain.xml", "register.sh", "report.json", "manifest.json", "disk0.qcow2"] {
        assert!(folder.join(file).exists(), "{file} is missing");
    }
    let check = Command::new("qemu-img").arg("check").arg(folder.join("disk0.qcow2")).output().unwrap();
    assert!(check.status.success(), "{}", text(&check));

    let (output, proof) = prove_by(with_key(), &folder, &[]);
    assert_eq!(proof["outcome"], "booted", "{}\n{proof:#}", text(&output));
    assert!(output.status.success(), "{}", text(&output));
    let interface = &proof["guest"]["interfaces"][0];
    assert_eq!(interface["name"], "ens192", "{proof:#}");
    assert_eq!(interface["mac"], "00:50:56:20:30:40");
    assert_eq!(interface["driver"], "virtio_net");
    let addresses = interface["addresses"].as_array().unwrap();
    assert!(addresses.iter().any(|address| address == "10.20.30.40/24"), "{proof:#}");
    assert!(fs::metadata(folder.join("proof/screen.png")).unwrap().len() > 0);

    assert_eq!(fingerprint(&source), before, "the source was changed");
    // The trial went through throw-away overlays: the machine is as it was written.
    let manifest: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let info = landfall()
        .args(["--json", "disk", "info", "--digest"])
        .arg(folder.join("disk0.qcow2"))
        .output()
        .unwrap();
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(info["content_digest"], manifest["disks"][0]["content_digest"]);
    // Planning for the result finds nothing left to do, but to look into every initramfs.
    let again = std::fs::read_to_string(source.join("web01.vmx")).unwrap();
    let again = again.replace("web01.vmdk", "disk0.qcow2").replace("web01_1.vmdk", "disk1.qcow2");
    fs::write(folder.join("again.vmx"), again).unwrap();
    let output = with_key().args(["--json", "inspect"]).arg(folder.join("again.vmx")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let edits = plan["edits"].as_array().unwrap();
    assert!(!edits.is_empty(), "{plan:#}");
    assert!(edits.iter().all(|edit| edit["what"].as_str().unwrap().starts_with("add drivers")), "{edits:#?}");
    let kept: Value = serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap();
    crate::cli::schemas::check(&[
        ("convert", report.clone()),
        ("convert", kept),
        ("prove", proof.clone()),
        ("inspect", plan),
        ("disk-info", info),
    ]);
    Some(serde_json::json!({ "report": report, "proof": proof }))
}

#[test]
fn a_bios_guest_on_ext4_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bookworm", "bios-ext4") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().starts_with("/dev/vda1"), "{seen:#}");
}

#[test]
fn a_uefi_guest_on_xfs_on_lvm_without_fallback_loader_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("trixie", "uefi-lvm-xfs") else { return };
    assert!(seen["proof"]["guest"]["root"].as_str().unwrap().contains("vg0-root xfs"), "{seen:#}");
}

/// What many guests have at once: logical volumes, multipathd, a default kernel that is not the first, disks and cards
/// beyond the first.
#[test]
fn a_guest_with_two_of_everything_comes_ashore() {
    let _place = place();
    let Some(seen) = comes_ashore("bookworm", "bios-lvm") else { return };
    let guest = &seen["proof"]["guest"];
    assert_eq!(guest["root"], "/dev/mapper/vg0-root ext4", "{seen:#}");
    let kernels = seen["report"]["guest"]["kernels"].as_array().unwrap();
    assert_eq!(kernels.len(), 2, "{seen:#}");
    assert_eq!(guest["kernel"], kernels[1]["version"], "the second is the default: {seen:#}");
    assert_eq!(guest["interfaces"][1]["name"], "ens224", "{seen:#}");
    assert_eq!(guest["interfaces"][1]["mac"], "00:50:56:20:30:41", "{seen:#}");
    // /srv and the swap space are mounted, or their units would have failed.
    assert_eq!(guest["failed_units"], serde_json::json!([]), "{seen:#}");
    let edits = seen["report"]["edits"].as_array().unwrap();
    let fstab = edits.iter().find(|edit| edit["path"] == "/etc/fstab").unwrap();
    let new = fstab["lines"].as_array().unwrap();
    let added = new.iter().filter(|line| line.as_str().unwrap().starts_with("+UUID=")).count();
    assert_eq!(added, 3, "/boot, /srv and swap: {fstab:#}");
}

/// The trial is worth something: the same guest as it is does not boot there.
#[test]
fn an_unpatched_guest_does_not_boot() {
    let _place = place();
    let Some(source) = guest("bookworm", "bios-ext4") else { return };
    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    let output = landfall()
        .args(["prove", "--to", "kvm", "--timeout", "600", "-o"])
        .arg(out.path())
        .arg(source.join("web01.vmx"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let proof: Value = serde_json::from_slice(&fs::read(out.path().join("proof.json")).unwrap()).unwrap();
    assert_eq!(proof["outcome"], "stopped", "{proof:#}");
}

/// The way back: prepared for ESXi, it boots on what ESXi has, preferred or not. Its definition names
/// the same.
#[test]
fn a_guest_for_esxi_boots_on_its_controllers_and_cards() {
    let _place = place();
    let Some(source) = guest("bookworm", "bios-ext4") else { return };
    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    let report = convert(landfall(), "esxi", &source.join("web01.vmx"), out.path());
    let folder = out.path().join("web01");
    assert_eq!(report["written"]["disks"][0]["controller"], "pvscsi", "{report:#}");
    assert_eq!(report["written"]["nics"][0]["model"], "vmxnet3", "{report:#}");
    let definition = fs::read_to_string(folder.join("web01.vmx")).unwrap();
    for line in [
        "scsi0:0.fileName = \"disk0.vmdk\"",
        "ethernet0.address = \"00:50:56:20:30:40\"",
        "guestOS = \"debian11-64\"",
    ] {
        assert!(definition.contains(line), "{line}: {definition}");
    }
    // Its own devices are what the package for vSphere boots on.
    let (output, proof) = prove(&folder, &["--hardware", "lsi,e1000e"]);
    assert_eq!(proof["outcome"], "booted", "{}\n{proof:#}", text(&output));
    let interface = &proof["guest"]["interfaces"][0];
    assert_eq!((&interface["name"], &interface["driver"]), (&"ens192".into(), &"e1000e".into()), "{proof:#}");
    let addresses = interface["addresses"].as_array().unwrap();
    assert!(addresses.iter().any(|address| address == "10.20.30.40/24"), "{proof:#}");
}

/// One file for vSphere: complete by tar, sound by its own manifest, a disk by qemu-img, and a machine that boots.
#[test]
fn a_guest_for_vsphere_boots_out_of_its_package() {
    let _place = place();
    let Some(source) = guest("bookworm", "bios-ext4") else { return };
    let out = tempfile::tempdir_in(root().join("target")).unwrap();
    let report = convert(landfall(), "ova", &source.join("web01.vmx"), out.path());
    let folder = out.path().join("web01");
    assert_eq!(report["files"], serde_json::json!(["web01.ova", "report.json", "manifest.json"]));
    let package = folder.join("web01.ova");
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(out.path()).output().unwrap();
        assert!(output.status.success(), "{program}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let path = package.to_str().unwrap();
    assert_eq!(run("tar", &["tf", path]), "web01.ovf\ndisk0.vmdk\nweb01.mf\n");
    run("tar", &["xf", path]);
    let manifest = fs::read_to_string(out.path().join("web01.mf")).unwrap();
    for line in manifest.lines() {
        let (name, digest) = line.strip_prefix("SHA256(").unwrap().split_once(")= ").unwrap();
        assert!(run("sha256sum", &[name]).starts_with(digest), "{line}");
    }
    assert_eq!(manifest.lines().count(), 2, "{manifest}");
    assert!(run("qemu-img", &["info", "-f", "vmdk", "disk0.vmdk"]).contains("create type: streamOptimized"));
    let descriptor = fs::read_to_string(out.path().join("web01.ovf")).unwrap();
    let length = fs::metadata(out.path().join("disk0.vmdk")).unwrap().len();
    assert!(descriptor.contains(&format!("ovf:href=\"disk0.vmdk\" ovf:size=\"{length}\"")), "{descriptor}");
    let output = landfall().args(["inspect", "--json"]).arg(&package).output().unwrap();
    let inspected: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!(inspected["machine"]["nics"][0]["mac"], "00:50:56:20:30:40", "{inspected:#}");
    assert_eq!(inspected["guest"]["distribution"]["value"], "debian", "{inspected:#}");
    let (output, proof) = prove(&folder, &[]);
    assert_eq!(proof["outcome"], "booted", "{}\n{proof:#}", text(&output));
}

/// What cannot be tried here is refused, with what can be tried instead.
#[test]
fn the_hardware_of_hyper_v_is_not_to_be_had_here() {
    let _place = place();
    let Some(source) = guest("bookworm", "bios-ext4") else { return };
    let output = landfall().args(["prove", "--to", "hyperv"]).arg(source.join("web01.vmx")).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("--hardware"), "{}", text(&output));
}
