//! What is written for OpenStack, KubeVirt and Nutanix AHV, read by others: YAML and JSON of Python, the types that are generated
//! of KubeVirt's and CDI's interfaces, Nutanix's client library, the openstack client's own parsers.

use super::{EVIL, Stage, checkers, hostile, networks, python, render, said, text, usual};
use landfall::hypervisor::{Choice, nutanix};
use landfall::machine::{Backing, Machine};
use landfall_boot::target::DiskModel;
use serde_json::Value;
use std::fs;
use std::process::Command;

fn documents(yaml: &str) -> Vec<Value> {
    let parts = yaml.split("---\n").filter(|part| !part.trim().is_empty());
    parts.map(|part| serde_json::from_str(part).unwrap()).collect()
}

/// YAML as a reader of YAML sees it is what the JSON in it says.
#[test]
fn yaml_is_read_as_it_was_meant() {
    const PROGRAM: &str = r"
import json, sys
try:
    import yaml
except ImportError:
    print('SKIPPED: no yaml for python3 (Debian: python3-yaml)', file=sys.stderr)
    sys.exit(0)
read = list(yaml.safe_load_all(open(sys.argv[1], encoding='utf-8')))
meant = json.load(open(sys.argv[2], encoding='utf-8'))
if read != meant:
    sys.exit('%r is not %r' % (read, meant))
";
    for machine in [usual(), hostile()] {
        for (target, name) in [
            ("kubevirt", "virtualmachine.yaml"),
            ("kubevirt", "datavolumes.yaml"),
            ("openstack", "heat.yaml"),
        ] {
            let rendered = render(target, &machine, None, &networks(), "/out");
            let written = text(&rendered, name);
            let folder = tempfile::tempdir().unwrap();
            let (yaml, json) = (folder.path().join("a.yaml"), folder.path().join("a.json"));
            fs::write(&yaml, written).unwrap();
            fs::write(&json, serde_json::to_string(&documents(written)).unwrap()).unwrap();
            assert_eq!(python(None, PROGRAM, &[&yaml, &json]), None, "{name}");
            fs::write(&json, "[{}]").unwrap();
            if Command::new("python3")
                .args(["-c", "import yaml"])
                .status()
                .is_ok_and(|status| status.success())
            {
                assert!(python(None, PROGRAM, &[&yaml, &json]).is_some(), "the check can fail");
            }
        }
    }
}

/// The compiler of TypeScript knows every name and every form of KubeVirt's and CDI's objects.
#[test]
fn kubevirts_objects_have_its_types() {
    let Some(node) = checkers("node") else { return };
    let mut source = String::from(
        "import type { V1VirtualMachine } from '@kubevirt-ui-ext/kubevirt-api/kubevirt';\n\
         import type { V1beta1DataVolume } from '@kubevirt-ui-ext/kubevirt-api/containerized-data-importer';\n",
    );
    let mut count = 0;
    for machine in [usual(), hostile(), Machine::new("bare", landfall_image::Bytes::mib(1))] {
        for disk in [DiskModel::VirtioBlk, DiskModel::VirtioScsi, DiskModel::Sata] {
            let rendered = render("kubevirt", &machine, Some(disk), &networks(), "/out");
            let files =
                [("virtualmachine.yaml", "V1VirtualMachine"), ("datavolumes.yaml", "V1beta1DataVolume")];
            for (file, kind) in files {
                for document in documents(text(&rendered, file)) {
                    count += 1;
                    source += &format!("export const one{count}: {kind} = {document};\n");
                }
            }
        }
    }
    let check = |source: &str| {
        let file = node.join("landfall-check.ts");
        fs::write(&file, source).unwrap();
        let compiler = node.join("node_modules/typescript/bin/tsc");
        let words = [
            "--noEmit",
            "--strict",
            "--skipLibCheck",
            "--module",
            "nodenext",
            "--moduleResolution",
            "nodenext",
        ];
        Command::new("node").arg(compiler).args(words).arg(&file).current_dir(&node).output().unwrap()
    };
    let good = check(&source);
    assert!(good.status.success(), "{}", said(&good));
    assert!(count > 10);
    for (from, to) in [
        ("\"macAddress\"", "\"macAdress\""),
        ("\"cores\":2", "\"cores\":\"2\""),
        ("\"upload\"", "\"uplode\""),
    ] {
        assert!(source.contains(from), "{from}");
        assert!(!check(&source.replace(from, to)).status.success(), "{from} -> {to}");
    }
}

#[test]
fn kubevirts_machine_is_the_sources() {
    let rendered = render("kubevirt", &hostile(), None, &networks(), "/out");
    let vm = &documents(text(&rendered, "virtualmachine.yaml"))[0];
    let name = vm["metadata"]["name"].as_str().unwrap();
    assert!(
        name.len() <= 63 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
        "{name}"
    );
    assert_eq!(vm["metadata"]["annotations"]["landfall/name"], EVIL);
    let domain = &vm["spec"]["template"]["spec"]["domain"];
    assert_eq!(domain["firmware"]["bootloader"]["efi"]["secureBoot"], true);
    assert_eq!(domain["features"]["smm"]["enabled"], true);
    assert_eq!(domain["firmware"]["uuid"], "7b10d7af-b932-4c66-b2c3-3996152ec465");
    assert_eq!(domain["devices"]["tpm"]["persistent"], true);
    assert_eq!(domain["memory"]["guest"], "2000Mi");
    let order = |list: &str, n: usize| domain["devices"][list][n]["bootOrder"].as_u64();
    assert_eq!((order("interfaces", 1), order("disks", 1)), (Some(1), Some(2)));
    assert_eq!((order("interfaces", 0), order("disks", 0)), (None, None), "only what the source starts from");
    let plain = render("kubevirt", &usual(), None, &networks(), "/out");
    let plain = &documents(text(&plain, "virtualmachine.yaml"))[0]["spec"]["template"]["spec"]["domain"];
    assert!(plain["devices"].get("tpm").is_none() && plain["features"].get("smm").is_none(), "{plain:#}");
    assert!(rendered.findings.iter().any(|finding| finding.id == "name-changed"));
    let row = landfall::hypervisor::target("kubevirt").unwrap();
    let two = landfall::hypervisor::attach::adapt(&usual(), row.platform, &Default::default()).unwrap();
    let placement =
        landfall::hypervisor::Placement { disks: vec![Default::default(); 2], ..Default::default() };
    let error = (row.render)(&two, &placement).unwrap_err();
    assert!(error.says().contains("the pod's own is taken") && error.hint_text().is_some(), "{error}");
}

/// Serial numbers that KubeVirt's admission refuses do not stand in the definition, but in a finding.
#[test]
fn kubevirts_serial_numbers_are_those_that_it_takes() {
    for (serial, is_taken) in [
        ("VMware-56 4d 9b ef", false),
        ("a_B.9+x-1", true),
        (&"x".repeat(256), true),
        (&"x".repeat(257), false),
    ] {
        let mut machine = usual();
        machine.smbios.serial = Some(serial.to_owned());
        machine.disks[0].serial = None;
        machine.disks[1].serial = Some(serial.to_owned());
        let rendered = render("kubevirt", &machine, None, &networks(), "/out");
        let vm = &documents(text(&rendered, "virtualmachine.yaml"))[0];
        let domain = &vm["spec"]["template"]["spec"]["domain"];
        let expected = if is_taken { Value::from(serial) } else { Value::Null };
        assert_eq!(domain["firmware"]["serial"], expected);
        assert_eq!(domain["devices"]["disks"][1]["serial"], expected);
        let told = rendered.findings.iter().filter(|finding| finding.says.contains(serial));
        let told: Vec<_> = told.map(|finding| finding.says.matches(serial).count()).collect();
        assert_eq!(told, if is_taken { vec![] } else { vec![2] }, "{serial}");
    }
}

/// A cluster as a user of one namespace sees it.
const CLUSTER: &str = r#"case "$*" in
*"${BROKEN:-nothing}"*) echo 'Unable to connect to the server' >&2; exit 1;;
*'config view'*) printf prod;;
*'get namespace '*|*'get crd '*) echo Forbidden >&2; exit 1;;
*'can-i list'*) [ -z "${NARROW:-}" ];;
*'can-i create'*) [ -z "${NOBODY:-}" ];;
*jsonpath=*) printf '%s' "${OTHERS:-}";;
*'get '*"${THERE:-nothing} --ignore-not-found"*) echo "$4/$5";;
*'create -f -') grep -q "name.*${REFUSED:-nothing}" && exit 1; exit 0;;
esac"#;

fn cluster() -> Stage {
    let stage = Stage::new(&render("kubevirt", &hostile(), None, &networks(), "/out"));
    stage.program("kubectl", CLUSTER);
    stage.program("virtctl", "case \"$*\" in *\"${FAIL:-nothing}\"*) exit 1;; esac");
    stage
}

fn with_word(stage: &Stage, word: &str) -> Vec<Vec<String>> {
    stage.calls().into_iter().filter(|call| call.iter().any(|own| own == word)).collect()
}

#[test]
fn kubevirts_script_uploads_and_takes_back() {
    let stage = cluster();
    let done = stage.run(&[], &[]);
    assert!(done.status.success(), "{}", said(&done));
    let uploads = stage.calls_of(&["virtctl", "image-upload"]);
    assert_eq!(uploads.len(), 2);
    assert!(uploads[0][3].ends_with("-disk-0") && uploads[0].contains(&"prod".to_owned()), "{uploads:?}");
    assert!(uploads[1].iter().any(|word| word.ends_with("/out it's/disk1.qcow2")), "{uploads:?}");
    let created: Vec<_> = with_word(&stage, "-f");
    assert_eq!(created.len(), 4, "the machine to try, each volume, the machine: {created:#?}");
    assert!(with_word(&stage, "delete").is_empty());
    // What this run made is taken away where something fails, and nothing else.
    for (variable, value, gone) in [
        ("FAIL", "-disk-0", &["-disk-0"][..]),
        ("FAIL", "-disk-1", &["-disk-1", "-disk-0"]),
        ("REFUSED", "-disk-0", &[]),
        ("REFUSED", "-disk-1", &["-disk-0"]),
        ("BROKEN", "create -f /", &["-disk-1", "-disk-0"]),
    ] {
        let failed = stage.run(&["other"], &[(variable, value)]);
        assert_eq!(failed.status.code(), Some(1), "{}", said(&failed));
        let deleted = with_word(&stage, "delete");
        assert_eq!(deleted.len(), gone.len(), "{value}: {deleted:?}");
        for (call, volume) in deleted.iter().zip(gone) {
            assert!(call[5].ends_with(volume) && call[4].starts_with("datavolumes"), "{call:?}");
        }
    }
}

#[test]
fn kubevirts_script_takes_no_error_for_an_answer() {
    let stage = cluster();
    for (variable, value, expected) in [
        ("OTHERS", "x/vm 1 00:50:56:00:12:A1\n", "the machine x/vm has 00:50:56:00:12:a1"),
        ("THERE", "T", "a machine with the name"),
        ("THERE", "-disk-1", "a volume with the name"),
        ("NOBODY", "1", "you may not create virtualmachines.kubevirt.io in prod"),
        ("BROKEN", "get virtualmachines.kubevirt.io -o name", "the cluster does not answer"),
        ("BROKEN", "virtualmachines.kubevirt.io it", "cannot look for the virtualmachines.kubevirt.io"),
        ("BROKEN", "persistentvolumeclaims it", "cannot look for the persistentvolumeclaims"),
        ("BROKEN", "config view", "kubectl does not tell its namespace"),
        ("BROKEN", "jsonpath={range", "cannot list the machines"),
        ("BROKEN", "--dry-run", "the cluster does not take the machine"),
    ] {
        let name = stage.name();
        let value = value.replace(" it", &format!(" {}", &name[..4])).replace('T', &name);
        let stopped = stage.run(&[], &[(variable, &value)]);
        assert_eq!(stopped.status.code(), Some(1), "{value}: {}", said(&stopped));
        assert!(said(&stopped).contains(expected) && said(&stopped).contains("hint: "), "{}", said(&stopped));
        let changed =
            with_word(&stage, "-f").into_iter().any(|call| !call.contains(&"--dry-run=server".into()));
        assert!(!changed && stage.calls_of(&["virtctl"]).is_empty(), "{value}");
    }
    let narrow = stage.run(&[], &[("NARROW", "1")]);
    assert!(narrow.status.success() && said(&narrow).contains("only those of prod"), "{}", said(&narrow));
    assert_eq!(with_word(&stage, "--namespace=prod").len(), 1);
    assert!(with_word(&stage, "get").iter().all(|call| !call.contains(&"--all-namespaces".into())));
}

/// Every name in the specification is one of Nutanix's own library, and of the class that it says.
#[test]
fn nutanixs_specification_has_its_names() {
    const PROGRAM: &str = r#"
import importlib, json, sys
def check(value, path):
    if isinstance(value, list):
        for n, one in enumerate(value):
            check(one, "%s[%d]" % (path, n))
    if not isinstance(value, dict):
        return
    kind = value.get("$objectType")
    if kind is None:
        sys.exit("%s says no type" % path)
    module, name = kind.rsplit(".", 1)
    model = getattr(importlib.import_module("ntnx_vmm_py_client.models.%s.%s" % (module, name)), name)
    names = set(model.attribute_map.values()) if hasattr(model, "attribute_map") else set(model().attribute_map.values())
    for key, inner in value.items():
        if key not in names and key != "$objectType":
            sys.exit("%s has no %s, only %s" % (kind, key, sorted(names)))
        check(inner, path + "/" + key)
        enum = {"busType": "DiskBusType", "machineType": "MachineType", "nicType": "NicType", "vlanMode": "VlanMode"}.get(key)
        if enum:
            module = importlib.import_module("ntnx_vmm_py_client.models.vmm.v4.ahv.config." + enum)
            if inner not in vars(getattr(module, enum)).values():
                sys.exit("%s = %s" % (key, inner))
document = json.load(open(sys.argv[1]))
check(document["vm"], "vm")
check(document["images"], "images")
"#;
    let Some(libraries) = checkers("nutanix") else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    for machine in [usual(), hostile()] {
        for disk in [DiskModel::VirtioScsi, DiskModel::Sata] {
            let rendered = render("ahv", &machine, Some(disk), &networks(), "/out");
            fs::write(file.path(), text(&rendered, "machine-v4.json")).unwrap();
            assert_eq!(python(Some(&libraries), PROGRAM, &[file.path()]), None);
        }
    }
    let broken = render("ahv", &usual(), None, &networks(), "/out");
    fs::write(file.path(), text(&broken, "machine-v4.json").replace("numSockets", "numSocket")).unwrap();
    assert!(python(Some(&libraries), PROGRAM, &[file.path()]).is_some(), "the check can fail");
}

/// A specification that is written is read as the machine that it was written of.
#[test]
fn nutanixs_specifications_are_read_again() {
    for machine in [usual(), hostile()] {
        let rendered = render("ahv", &machine, None, &networks(), "/out");
        for name in ["machine-v3.json", "machine-v4.json"] {
            let document: Value = serde_json::from_str(text(&rendered, name)).unwrap();
            let mut bytes = document["vm"].to_string();
            // What only the cluster knows.
            for (part, uuid) in
                [("<uuid of image ", "a"), ("<uuid of subnet ", "b"), ("<uuid of the cluster", "c")]
            {
                bytes = bytes.replace(part, &format!("{uuid} "));
            }
            assert!(nutanix::read::recognise(bytes.as_bytes()), "{bytes}");
            let mut value: Value = serde_json::from_str(&bytes).unwrap();
            let disks = match name {
                "machine-v3.json" => &mut value["spec"]["resources"]["disk_list"],
                _ => &mut value["disks"],
            };
            for (n, disk) in disks.as_array_mut().unwrap().iter_mut().enumerate() {
                disk[if name == "machine-v3.json" { "uuid" } else { "extId" }] = format!("disk {n}").into();
            }
            let read =
                nutanix::read::parse(value.to_string().as_bytes(), &Choice::default()).unwrap().machine;
            assert_eq!(
                (read.firmware, read.secure_boot, read.tpm),
                (machine.firmware, machine.secure_boot, machine.tpm)
            );
            assert_eq!(
                (read.cpus, read.memory, &read.annotation),
                (machine.cpus, machine.memory, &machine.annotation)
            );
            assert_eq!(read.boot_disk, Some(machine.boot_disk()));
            let macs = |machine: &Machine| {
                machine.nics.iter().map(|nic| (nic.mac.clone(), nic.connected)).collect::<Vec<_>>()
            };
            assert_eq!(macs(&read), macs(&machine));
            let slots: Vec<_> = read.disks.iter().map(|disk| (disk.slot.as_str(), disk.backing)).collect();
            assert_eq!(slots, [("scsi.0", Backing::Volume), ("scsi.1", Backing::Volume)]);
            if name == "machine-v4.json" {
                assert_eq!(read.smbios.uuid, machine.smbios.uuid);
            } else {
                assert_eq!(read.tags.len(), machine.tags.iter().filter(|tag| tag.contains('=')).count());
            }
        }
    }
}

/// What one way takes and the others do not is said of those.
#[test]
fn nutanixs_ways_differ_and_it_is_said() {
    let says = |machine: &Machine| {
        let rendered = render("ahv", machine, None, &networks(), "/out");
        rendered.findings.into_iter().map(|finding| finding.says + "\n").collect::<String>()
    };
    let all = says(&usual());
    for expected in
        ["the tag \"backup=daily\" with acli and API v4", "the tag \"web\"", "line breaks in the annotation"]
    {
        assert!(all.contains(expected), "{expected}: {all}");
    }
    let mut machine = usual();
    machine.annotation = Some("one line".into());
    machine.tags.clear();
    let all = says(&machine);
    assert!(!all.contains("the tag") && !all.contains("annotation"), "{all}");
}

/// A cluster that has one machine more after each `vm.create`.
const AHV: &str = r#"[ "$1" != "${BROKEN:-}" ] || exit 1
case "$1" in vm.list) printf 'VM name  VM UUID\n%s' "${VMS:-}"; cat made 2>/dev/null; exit 0;;
vm.create) printf '%s  0a-1b\n' "$2" >made;; image.list) echo 'Image name  UUID';;
vm.get) printf 'mac_addr: "%s"\n' "${MAC:-}";; esac"#;

#[test]
fn nutanixs_script_makes_all_or_nothing() {
    let stage = Stage::new(&render("ahv", &hostile(), None, &networks(), "/out"));
    stage.program("acli", AHV);
    let run = |variables: &[(&str, &str)]| {
        let _ = fs::remove_file(stage.path("made"));
        stage.run(&["https://server/folder/", "ct"], variables)
    };
    let done = run(&[]);
    assert!(done.status.success() && said(&done).contains("acli vm.on 0a-1b"), "{}", said(&done));
    let image = &stage.calls_of(&["acli", "image.create"])[1];
    assert!(
        image[2].ends_with("-disk1") && image[3] == "source_url=https://server/folder/disk1.qcow2",
        "{image:?}"
    );
    assert_eq!(image[4..], ["container=ct", "image_type=kDiskImage"]);
    let vm = &stage.calls_of(&["acli", "vm.create"])[0];
    for word in [
        "memory=2000M",
        "num_vcpus=2",
        "num_cores_per_vcpu=2",
        "secure_boot=true",
        "machine_type=q35",
        "virtual_tpm=true",
    ] {
        assert!(vm.iter().any(|own| own == word), "{word}: {vm:?}");
    }
    let disk = &stage.calls_of(&["acli", "vm.disk_create"])[1];
    assert_eq!((disk[2].as_str(), &disk[4..]), ("0a-1b", &["bus=scsi".to_owned(), "index=1".to_owned()][..]));
    let nic = &stage.calls_of(&["acli", "vm.nic_create"])[1];
    assert_eq!(nic[3..], ["network=dmz", "model=virtio", "mac=00:50:56:00:12:a1", "connected=false"]);
    assert_eq!(stage.calls_of(&["acli", "vm.update_boot_device"])[0][3], "disk_addr=scsi.1");
    // What this run made is taken away: the machine by its id, and only where it was made.
    let (images, both) =
        (&["image.delete", "image.delete"][..], &["vm.delete", "image.delete", "image.delete"][..]);
    for (broken, expected) in
        [("image.create", &[][..]), ("vm.create", images), ("vm.disk_create", both), ("vm.nic_create", both)]
    {
        let failed = run(&[("BROKEN", broken)]);
        assert!(!failed.status.success(), "{broken}");
        let deleted = stage.calls_of(&["acli", "-y"]);
        assert_eq!(deleted.iter().map(|call| call[2].as_str()).collect::<Vec<_>>(), expected, "{broken}");
        assert!(deleted.iter().all(|call| call[2] != "vm.delete" || call[3] == "0a-1b"), "{deleted:?}");
    }
    // A machine that somebody made with the same name in the meantime is not touched.
    let name = stage.calls_of(&["acli", "vm.create"])[0][2].clone();
    stage.program("acli", &AHV.replace(">made", ">made; printf '%s  2c-3d\\n' \"$2\" >>made"));
    let failed = run(&[]);
    assert!(said(&failed).contains(&format!("or several, with the name {name}")), "{}", said(&failed));
    assert!(stage.calls_of(&["acli", "-y", "vm.delete"]).is_empty());
}

#[test]
fn nutanixs_script_takes_no_error_for_an_answer() {
    let stage = Stage::new(&render("ahv", &usual(), None, &networks(), "/out"));
    stage.program("acli", AHV);
    for (variables, expected) in [
        (&[("VMS", "web01  11-22\n")][..], "with the name web01 is here already"),
        (
            &[("VMS", "a b  11-22\n"), ("MAC", "00:50:56:00:12:A0")],
            "11-22 has a network card with the address 00:50:56:00:12:a0",
        ),
        (&[("BROKEN", "vm.list")], "acli does not list the machines"),
        (&[("BROKEN", "image.list")], "acli does not list the images"),
        (&[("BROKEN", "vm.get"), ("VMS", "a b  11-22\n")], "acli does not show the machine 11-22"),
        (&[("BROKEN", "net.get")], "there is no network lan"),
    ] {
        let stopped = stage.run(&["https://x", "ct"], variables);
        assert_eq!(stopped.status.code(), Some(1), "{expected}: {}", said(&stopped));
        assert!(said(&stopped).contains(expected) && said(&stopped).contains("hint: "), "{}", said(&stopped));
        assert!(stage.calls_of(&["acli", "image.create"]).is_empty());
    }
}

/// A cloud with one flavor, in which everything is made at once.
const CLOUD: &str = r#"printf %s "$OS_COMPUTE_API_VERSION" >version
case "$*" in
"${BROKEN:-nothing}"*) exit 1;;
'server show'*) echo "${STATE:-ACTIVE}";;
'flavor show small '*) echo 1;;
'flavor show'*) case "$*" in *ram*) echo 4096;; *) echo 4;; esac;;
*' show '*status*) case "$1" in image) echo active;; *) echo available;; esac;;
'server create'*) [ -z "${FAIL:-}" ] || exit 1; echo server-id;;
*' create '*) echo "$1-id";;
'server list'*) printf '%s\n' "${SERVERS:-}";;
'port list'*) printf '%s' "${PORTS:-}";;
esac"#;

#[test]
fn openstacks_script_makes_all_or_nothing() {
    for machine in [usual(), hostile()] {
        let stage = Stage::new(&render("openstack", &machine, None, &networks(), "/out"));
        stage.program("openstack", CLOUD);
        let done = stage.run(&["large"], &[("LANDFALL_WAIT", "0")]);
        assert!(done.status.success(), "{}", said(&done));
        let calls = stage.calls();
        let server = &stage.calls_of(&["openstack", "server", "create"])[0];
        let devices: Vec<_> = server.iter().filter(|word| word.starts_with("uuid=")).collect();
        assert!(
            devices[0].contains("boot_index=0,disk_bus=virtio") && devices[1].contains("boot_index=-1"),
            "{devices:?}"
        );
        let image = &stage.calls_of(&["openstack", "image", "create"])[0];
        let first = format!("disk{}.qcow2", machine.boot_disk());
        assert!(image.iter().any(|word| word.ends_with(&first)), "the boot disk is the first: {image:?}");
        let port = &stage.calls_of(&["openstack", "port", "create"])[1];
        assert!(port.contains(&"--disable".to_owned()) && port.contains(&"dmz".to_owned()), "{port:?}");
        check_by_parser(&calls);
        assert_eq!(fs::read_to_string(stage.path("version")).unwrap(), "2.37");
        let own = stage.run(&["large"], &[("OS_COMPUTE_API_VERSION", "2.90")]);
        assert!(own.status.success(), "{}", said(&own));
        assert_eq!(fs::read_to_string(stage.path("version")).unwrap(), "2.90");

        // A machine that does not start is taken away before what it uses.
        let failed = stage.run(&["large"], &[("STATE", "ERROR")]);
        assert!(said(&failed).contains("the server server-id is in the state ERROR"), "{}", said(&failed));
        let deleted: Vec<_> = stage.calls().into_iter().filter(|call| call[2] == "delete").collect();
        assert_eq!(deleted[0][1..], ["server", "delete", "--wait", "server-id"], "{deleted:?}");
        assert_eq!(deleted.len(), 7);
        check_by_parser(&stage.calls());

        let failed = stage.run(&["large"], &[("FAIL", "1"), ("LANDFALL_WAIT", "0")]);
        assert!(!failed.status.success());
        let deleted: Vec<_> = stage
            .calls()
            .into_iter()
            .filter(|call| call[2] == "delete")
            .map(|call| call[1].clone())
            .collect();
        assert_eq!(deleted, ["port", "port", "volume", "image", "volume", "image"], "the newest first");
        for (words, variables, expected) in [
            (&[][..], &[][..], "the flavor is not named"),
            (&["small"], &[], "the flavor small has 1 processors, the machine 4"),
            (&["large"], &[("PORTS", "x")], "a port with the address 00:50:56:00:12:a0 is here already"),
            (&["large"], &[("BROKEN", "server list")], "the cloud does not list each server"),
            (&["large"], &[("BROKEN", "image list")], "the cloud does not list each image"),
            (&["large"], &[("BROKEN", "volume list")], "the cloud does not list each volume"),
            (&["large"], &[("BROKEN", "port list")], "the cloud does not list its ports"),
        ] {
            let stopped = stage.run(words, variables);
            assert!(said(&stopped).contains(expected), "{}", said(&stopped));
            assert!(stage.calls().iter().all(|call| call[2] != "create"), "{expected}");
        }
    }
    let stage = Stage::new(&render("openstack", &usual(), None, &networks(), "/out"));
    stage.program("openstack", CLOUD);
    let taken = stage.run(&["large"], &[("SERVERS", "web011\nweb01")]);
    assert!(said(&taken).contains("the server web01 is here already"), "{}", said(&taken));
}

/// Every call is one that the client's own parsers take.
fn check_by_parser(calls: &[Vec<String>]) {
    const PROGRAM: &str = r#"
import importlib, json, sys
from importlib import metadata
commands = {}
for point in metadata.distribution("python-openstackclient").entry_points:
    if point.group.startswith("openstack."):
        commands.setdefault(point.name, point)
class App:
    class client_manager:
        class compute:
            api_version = None
        class network:
            pass
        @staticmethod
        def is_network_endpoint_enabled():
            return True
    class options:
        default_domain = "default"
    command_options = []
App.stdout = sys.stdout
for call in json.load(open(sys.argv[1])):
    words = call[1:]
    name = words[0] + "_" + words[1]
    if name not in commands:
        sys.exit("no command " + name)
    command = commands[name].load()(App, None)
    parser = command.get_parser("openstack")
    try:
        parser.parse_args(words[2:])
    except SystemExit:
        sys.exit("the client does not take %r" % call)
"#;
    let Some(libraries) = checkers("openstack") else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), serde_json::to_string(calls).unwrap()).unwrap();
    assert_eq!(python(Some(&libraries), PROGRAM, &[file.path()]), None);
    let broken: Vec<Vec<String>> = calls
        .iter()
        .map(|call| call.iter().map(|word| word.replace("--flavor", "--flavour")).collect())
        .collect();
    fs::write(file.path(), serde_json::to_string(&broken).unwrap()).unwrap();
    assert!(python(Some(&libraries), PROGRAM, &[file.path()]).is_some(), "the check can fail");
}

#[test]
fn openstacks_properties_say_the_hardware() {
    let properties = |machine: &Machine, disk| -> Value {
        let rendered = render("openstack", machine, Some(disk), &networks(), "/out");
        serde_json::from_str(text(&rendered, "image-properties.json")).unwrap()
    };
    let usual = properties(&usual(), DiskModel::VirtioScsi);
    assert_eq!((&usual["hw_disk_bus"], &usual["hw_scsi_model"]), (&"scsi".into(), &"virtio-scsi".into()));
    assert_eq!((&usual["os_type"], &usual["os_distro"]), (&"linux".into(), &"debian".into()));
    // Glance knows Linux and Windows, and has its own words for systems.
    let mut other = self::usual();
    for (id, family, distribution) in [
        ("windows-server", Some("windows"), "windows"),
        ("freebsd", None, "freebsd"),
        ("opensuse-leap", Some("linux"), "opensuse"),
    ] {
        other.os = Some(landfall::machine::OsId { distribution: id.into(), version: "2022".into() });
        let found = properties(&other, DiskModel::VirtioScsi);
        assert_eq!(found.get("os_type").and_then(Value::as_str), family, "{id}");
        assert_eq!(found["os_distro"], distribution, "{id}");
    }
    (other.os, other.os_label) = (None, None);
    assert!(properties(&other, DiskModel::VirtioScsi).get("os_type").is_none());
    assert!(usual.get("hw_tpm_version").is_none() && usual.get("os_secure_boot").is_none());
    let all = properties(&hostile(), DiskModel::Sata);
    assert_eq!((&all["hw_firmware_type"], &all["os_secure_boot"]), (&"uefi".into(), &"required".into()));
    assert_eq!((&all["hw_tpm_version"], &all["hw_tpm_model"]), (&"2.0".into(), &"tpm-crb".into()));
    insta::assert_snapshot!(text(&render("openstack", &hostile(), None, &networks(), "/out"), "heat.yaml"));
}

/// The machine that Heat makes is the same: on the storage that was chosen, with what its owner wrote about it.
#[test]
fn heats_machine_has_its_storage_and_its_description() {
    let row = landfall::hypervisor::target("openstack").unwrap();
    let machine = landfall::hypervisor::attach::adapt(&usual(), row.platform, &Default::default()).unwrap();
    for storage in [None, Some("fast".to_owned())] {
        let placement = landfall::hypervisor::Placement {
            disks: vec![Default::default(); 2],
            storage: storage.clone(),
            ..Default::default()
        };
        let rendered = (row.render)(&machine, &placement).unwrap();
        let resources = &documents(text(&rendered, "heat.yaml"))[0]["resources"];
        for volume in ["volume_0", "volume_1"] {
            assert_eq!(resources[volume]["properties"]["volume_type"].as_str(), storage.as_deref());
        }
        assert_eq!(resources["server"]["properties"]["metadata"]["description"], "web server\nof the shop");
    }
}
