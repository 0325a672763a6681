//! Proxmox VE's script, against a written grammar of `qm create`, its API's own types, and a node that is played.

use super::{EVIL, Stage, checkers, hostile, python, render, said, text, usual};
use landfall::hypervisor::{Choice, Networks, proxmox};
use landfall::machine::{Backing, Machine};
use landfall_boot::target::DiskModel;
use std::fs;

/// What a value of an option may be, by qm(1).
enum Form {
    /// One of these.
    Word(&'static [&'static str]),
    /// A number in these bounds.
    Number(u64, u64),
    /// Free text of at most so many characters.
    Text(usize),
    /// A name of DNS.
    Name,
    /// A property string: what comes first without a name, and the names there may be with the form of their values.
    Properties(fn(&str) -> bool, Properties),
}

fn is_bit(value: &str) -> bool {
    matches!(value, "0" | "1")
}
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}
fn is_encoded(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 60
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"%_-.".contains(&b))
}
fn is_base64(value: &str) -> bool {
    value.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
}
fn is_uuid(value: &str) -> bool {
    value.len() == 36 && value.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}
fn is_tag(value: &str) -> bool {
    value.parse::<u16>().is_ok_and(|tag| (1..=4094).contains(&tag))
}
fn is_mac(value: &str) -> bool {
    value.split(':').count() == 6
        && value.split(':').all(|o| o.len() == 2 && u8::from_str_radix(o, 16).is_ok())
}
fn is_volume(value: &str) -> bool {
    value.split_once(':').is_some_and(|(storage, size)| is_plain(storage) && size.parse::<u32>().is_ok())
}
fn is_path(value: &str) -> bool {
    value.starts_with('/')
}
fn is_nothing(_: &str) -> bool {
    false
}
fn is_on(value: &str) -> bool {
    matches!(value, "on" | "ignore")
}
fn is_order(value: &str) -> bool {
    value.split(';').all(|device| {
        let kind = device.trim_end_matches(|c: char| c.is_ascii_digit());
        ["ide", "sata", "scsi", "virtio", "net"].contains(&kind) && kind.len() < device.len()
    })
}
fn is_efitype(value: &str) -> bool {
    matches!(value, "2m" | "4m")
}
fn is_version(value: &str) -> bool {
    matches!(value, "v1.2" | "v2.0")
}
fn is_random(value: &str) -> bool {
    matches!(value, "/dev/urandom" | "/dev/random" | "/dev/hwrng")
}

type Properties = &'static [(&'static str, fn(&str) -> bool)];
const DISK: Properties =
    &[("import-from", is_path), ("discard", is_on), ("iothread", is_bit), ("serial", is_encoded)];
/// SATA and IDE have no threads of their own.
const SLOW_DISK: Properties = &[("import-from", is_path), ("discard", is_on), ("serial", is_encoded)];
const NET: Properties = &[
    ("virtio", is_mac),
    ("e1000", is_mac),
    ("e1000e", is_mac),
    ("bridge", is_plain),
    ("tag", is_tag),
    ("link_down", is_bit),
];
const SMBIOS: Properties = &[
    ("uuid", is_uuid),
    ("serial", is_base64),
    ("manufacturer", is_base64),
    ("product", is_base64),
    ("version", is_base64),
    ("sku", is_base64),
    ("family", is_base64),
    ("base64", is_bit),
];

fn form(option: &str) -> Option<Form> {
    let kind = option.trim_end_matches(|c: char| c.is_ascii_digit());
    let number: u32 = option[kind.len()..].parse().unwrap_or(u32::MAX);
    Some(match (option, kind) {
        ("name", _) => Form::Name,
        ("sockets" | "cores", _) => Form::Number(1, 8192),
        ("memory", _) => Form::Number(16, 4 << 20),
        ("cpu", _) => Form::Word(&["host"]),
        ("bios", _) => Form::Word(&["seabios", "ovmf"]),
        ("machine", _) => Form::Word(&["pc", "q35"]),
        ("ostype", _) => Form::Word(&["other", "l26", "win10", "win11"]),
        ("localtime" | "agent", _) => Form::Word(&["0", "1"]),
        ("scsihw", _) => Form::Word(&["virtio-scsi-single"]),
        ("rng0", _) => Form::Properties(is_nothing, &[("source", is_random)]),
        ("serial0", _) => Form::Word(&["socket"]),
        ("tags", _) => Form::Properties(|all| all.split(';').all(is_tag_word), &[]),
        ("smbios1", _) => Form::Properties(is_nothing, SMBIOS),
        ("boot", _) => Form::Properties(is_nothing, &[("order", is_order)]),
        ("description", _) => Form::Text(8192),
        ("efidisk0", _) => {
            Form::Properties(is_volume, &[("efitype", is_efitype), ("pre-enrolled-keys", is_bit)])
        }
        ("tpmstate0", _) => Form::Properties(is_volume, &[("version", is_version)]),
        (_, "scsi") if number < 31 => Form::Properties(is_volume, DISK),
        (_, "virtio") if number < 16 => Form::Properties(is_volume, DISK),
        (_, "sata") if number < 6 => Form::Properties(is_volume, SLOW_DISK),
        (_, "ide") if number < 4 => Form::Properties(is_volume, SLOW_DISK),
        (_, "net") if number < 32 => Form::Properties(|model| model == "virtio", NET),
        _ => return None,
    })
}

fn is_tag_word(tag: &str) -> bool {
    let mut letters = tag.bytes();
    letters.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && letters.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-+.".contains(&b))
}

fn is_dns_name(name: &str) -> bool {
    name.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// What is wrong with a call of `qm create`.
fn faults(call: &[String]) -> Vec<String> {
    let mut faults = Vec::new();
    let Some(["qm", "create", id]) = call.get(..3).map(|start| [0, 1, 2].map(|n| start[n].as_str())) else {
        return vec![format!("is no qm create ID: {call:?}")];
    };
    if !id.parse::<u32>().is_ok_and(|id| id >= 100) {
        faults.push(format!("{id} is no id"));
    }
    let mut seen = Vec::new();
    for pair in call[3..].chunks(2) {
        let [option, value] = pair else { return vec![format!("{pair:?} has no value")] };
        let Some(name) = option.strip_prefix("--") else {
            faults.push(format!("{option} is no option"));
            continue;
        };
        if seen.contains(&name) {
            faults.push(format!("{name} twice"));
        }
        seen.push(name);
        let is_fine = match form(name) {
            None => false,
            Some(Form::Word(words)) => words.contains(&value.as_str()),
            Some(Form::Number(from, to)) => {
                value.parse::<u64>().is_ok_and(|number| (from..=to).contains(&number))
            }
            Some(Form::Text(at_most)) => value.chars().count() <= at_most,
            Some(Form::Name) => is_dns_name(value),
            Some(Form::Properties(first, names)) => {
                value.split(',').enumerate().all(|(n, part)| match part.split_once('=') {
                    Some((name, value)) => names.iter().any(|(own, form)| *own == name && form(value)),
                    None => n == 0 && first(part),
                })
            }
        };
        if !is_fine {
            faults.push(format!("--{name} {value:?}"));
        }
    }
    faults
}

/// A node with one storage and two bridges, and no machine.
fn node(stage: &Stage) {
    stage.program("qm", "[ \"${FAIL:-}\" != qm ]");
    stage.program("pvesh", "echo 123");
    stage.program(
        "pvesm",
        "echo 'Name Type Status Total Used Available %'\necho 'fast lvmthin active 1 1 1 1%'\n\
         case \"$*\" in *'--storage none'*) exit 1;; esac\n[ -z \"${TWO:-}\" ] || echo 'slow dir active 1 1 1 1%'",
    );
    for bridge in ["lan", "dmz", "vmbr0"] {
        fs::create_dir_all(stage.path("net").join(bridge)).unwrap();
    }
    fs::create_dir_all(stage.path("etc/nodes/one/qemu-server")).unwrap();
}

fn run(stage: &Stage, words: &[&str], more: &[(&str, &str)]) -> std::process::Output {
    let (etc, net) = (stage.path("etc"), stage.path("net"));
    let mut variables =
        vec![("PVE_CONFIGURATION", etc.to_str().unwrap()), ("SYS_CLASS_NET", net.to_str().unwrap())];
    variables.extend(more);
    stage.run(words, &variables)
}

fn option<'a>(call: &'a [String], name: &str) -> Option<&'a str> {
    let at = call.iter().position(|word| *word == format!("--{name}"))?;
    call.get(at + 1).map(String::as_str)
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: register.sh of Proxmox VE runs as root only");
    }
    root
}

#[test]
fn every_option_follows_the_grammar() {
    if !is_root() {
        return;
    }
    let mut calls = Vec::new();
    for machine in [usual(), hostile()] {
        for disk in [DiskModel::VirtioBlk, DiskModel::VirtioScsi, DiskModel::Sata, DiskModel::Ide] {
            let stage = Stage::new(&render("proxmox", &machine, Some(disk), &super::networks(), "/out"));
            node(&stage);
            let done = run(&stage, &[], &[]);
            assert!(done.status.success(), "{}", said(&done));
            let call = stage.calls_of(&["qm"]).pop().unwrap();
            assert_eq!(faults(&call), Vec::<String>::new(), "{call:#?}");
            calls.push(call);
        }
    }
    let hostile = calls.last().unwrap();
    let image = hostile.iter().find(|word| word.contains("import-from=")).unwrap();
    assert!(image.contains("/out it's/disk0.qcow2,"), "{image}");
    assert!(option(hostile, "description").unwrap().starts_with(EVIL), "as it is, in one word");
    assert_eq!(option(hostile, "boot"), Some("order=net1;ide1"));
    assert_eq!(option(hostile, "efidisk0"), Some("fast:1,efitype=4m,pre-enrolled-keys=1"));
    assert_eq!(option(hostile, "tpmstate0"), Some("fast:1,version=v2.0"));
    assert_eq!(option(hostile, "net0"), Some("virtio=00:50:56:00:12:A0,bridge=lan,tag=12"));
    assert_eq!(option(hostile, "net1"), Some("virtio=00:50:56:00:12:A1,bridge=dmz,link_down=1"));
    // The grammar bites.
    for (from, to) in [
        ("--memory", "--ram"),
        ("q35", "q36"),
        ("discard=on", "discard=yes"),
        ("fast:0", "fast"),
        ("l26", "linux"),
    ] {
        let broken: Vec<String> = calls[0].iter().map(|word| word.replace(from, to)).collect();
        assert!(!faults(&broken).is_empty(), "{from} -> {to}");
    }
    check_by_types(&calls);
}

/// Names of options and properties, and words, against types that are generated of Proxmox VE's own API.
fn check_by_types(calls: &[Vec<String>]) {
    const PROGRAM: &str = r#"
import json, re, sys, importlib
from clientapi_pve.models.qemu_create_vm_request import QemuCreateVmRequest as Request
names = {field.alias or name for name, field in Request.model_fields.items()}
def config(kind):
    # Those of what is made now, not of what is there.
    prefix = ("pve_qemu", "PveQemu") if kind == "net" else ("pve", "Pve")
    module = importlib.import_module("clientapi_pve.models.%s_%s_config" % (prefix[0], kind))
    model = getattr(module, "%s%sConfig" % (prefix[1], kind.capitalize()))
    return {field.alias or name for name, field in model.model_fields.items()}
def words(kind):
    module = importlib.import_module("clientapi_pve.models.pve_%s_enum" % kind)
    return {one.value for one in [v for v in vars(module).values() if isinstance(v, type) and v.__name__.startswith("Pve")][0]}
for call in json.load(open(sys.argv[1])):
    for option, value in zip(call[3::2], call[4::2]):
        option = option[2:]
        kind = option.rstrip("0123456789")
        if option not in names and kind + "s" not in names:
            sys.exit("no option " + option)
        if kind in ("ide", "scsi", "sata", "virtio", "net", "efidisk", "tpmstate"):
            known = config(kind)
            for part in value.split(","):
                name = part.split("=")[0]
                if "=" in part and name not in known and not (kind == "net" and name in ("virtio", "e1000", "e1000e")):
                    sys.exit("%s has no %s, only %s" % (option, name, sorted(known)))
        if option in ("bios", "scsihw") and value not in words(option):
            sys.exit("%s = %s" % (option, value))
        if option == "ostype" and value not in words("qemu_ostype") :
            sys.exit("%s = %s" % (option, value))
"#;
    let Some(libraries) = checkers("proxmox") else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), serde_json::to_string(calls).unwrap()).unwrap();
    let fault = python(Some(&libraries), PROGRAM, &[file.path()]);
    assert_eq!(fault, None);
    let broken: Vec<Vec<String>> = calls
        .iter()
        .map(|call| call.iter().map(|word| word.replace("discard=", "trim=")).collect())
        .collect();
    fs::write(file.path(), serde_json::to_string(&broken).unwrap()).unwrap();
    assert!(python(Some(&libraries), PROGRAM, &[file.path()]).is_some(), "the check can fail");
}

#[test]
fn what_is_taken_is_found_before_anything_is_made() {
    if !is_root() {
        return;
    }
    let stage = Stage::new(&render("proxmox", &usual(), None, &super::networks(), "/out"));
    node(&stage);
    let other = stage.path("etc/nodes/one/qemu-server/107.conf");
    for (content, expected) in [
        ("name: WEB01\n", "with the name web01 is here already: 107"),
        ("smbios1: uuid=7B10D7AF-b932-4c66-b2c3-3996152ec465\n", "107 has the id 7b10d7af"),
        ("net3: virtio=00:50:56:00:12:A1,bridge=x\n", "address 00:50:56:00:12:a1"),
    ] {
        fs::write(&other, content).unwrap();
        let stopped = run(&stage, &[], &[]);
        assert_eq!(stopped.status.code(), Some(1), "{content}");
        assert!(said(&stopped).contains(expected) && said(&stopped).contains("hint:"), "{}", said(&stopped));
        assert_eq!(stage.calls(), Vec::<Vec<String>>::new(), "{content}");
    }
    // Not in comments, and not in a snapshot's part.
    fs::write(&other, "#name: web01\nname: web011\n[old]\nname: web01\nnet0: virtio=00:50:56:00:12:A0\n")
        .unwrap();
    assert!(run(&stage, &[], &[]).status.success());
    let stopped = run(&stage, &["fast", "107"], &[]);
    assert!(said(&stopped).contains("with the id 107 is here already"), "{}", said(&stopped));
    for (words, variables, expected) in [
        (&["none"][..], &[][..], "the storage none is not here"),
        (&["a;b"], &[], "no storage can have the name a;b"),
        (&[], &[("TWO", "1")], "several storages take images: fast slow"),
        (&["fast", "x1"], &[], "no machine can have the id x1"),
    ] {
        let stopped = run(&stage, words, variables);
        assert_eq!(stopped.status.code(), Some(1), "{expected}: {}", said(&stopped));
        assert!(said(&stopped).contains(expected), "{}", said(&stopped));
        assert!(stage.calls_of(&["qm"]).is_empty());
    }
    fs::remove_dir(stage.path("net/dmz")).unwrap();
    assert!(said(&run(&stage, &[], &[])).contains("there is no bridge dmz on this node"));
    fs::create_dir(stage.path("net/dmz")).unwrap();
    let done = run(&stage, &["slow", "200"], &[]);
    assert!(done.status.success() && said(&done).contains("qm start 200"), "{}", said(&done));
    let call = stage.calls_of(&["qm"]).pop().unwrap();
    assert_eq!(call[2], "200");
    assert!(option(&call, "virtio0").unwrap().starts_with("slow:0,import-from=/"), "{call:?}");
    assert!(!run(&stage, &[], &[("FAIL", "qm")]).status.success());
}

/// The .conf that is written is read back as the machine that it was written of.
#[test]
fn what_is_written_is_read_again() {
    for machine in [usual(), hostile()] {
        for disk in [DiskModel::VirtioBlk, DiskModel::VirtioScsi, DiskModel::Sata, DiskModel::Ide] {
            let rendered = render("proxmox", &machine, Some(disk), &super::networks(), "/out it's");
            let conf = text(&rendered, "machine.conf");
            let read = proxmox::read::parse(conf.as_bytes(), &Choice::default()).unwrap().machine;
            let same = |machine: &Machine| {
                let macs: Vec<_> =
                    machine.nics.iter().map(|nic| (nic.mac.clone(), nic.vlan, nic.connected)).collect();
                let smbios = machine.smbios.clone();
                (
                    machine.firmware,
                    machine.secure_boot,
                    machine.tpm,
                    machine.cpus,
                    machine.memory,
                    smbios,
                    machine.clock,
                    macs,
                )
            };
            assert_eq!(same(&read), same(&machine), "{conf}");
            assert_eq!(read.annotation.as_deref(), machine.annotation.as_deref().map(str::trim), "{conf}");
            assert_eq!(read.boot_disk.unwrap_or(0), machine.boot_disk(), "{conf}");
            let bus = landfall::hypervisor::attach::on(
                &machine,
                landfall_boot::target::Platform::Kvm,
                disk,
                landfall_boot::target::NicModel::VirtioNet,
            );
            for (n, disk) in read.disks.iter().enumerate() {
                assert_eq!(
                    (disk.file.as_str(), disk.backing),
                    (format!("/out it's/disk{n}.qcow2").as_str(), Backing::File)
                );
                assert_eq!((disk.format.as_deref(), disk.bus), (Some("qcow2"), bus.disks[n].bus));
            }
            assert_eq!(read.disks[0].serial, machine.disks[0].serial);
            let networks: Vec<_> = read.nics.iter().filter_map(|nic| nic.network.as_deref()).collect();
            assert_eq!(networks, ["lan", "dmz"]);
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let row = landfall::hypervisor::target("proxmox").unwrap();
    let machine = landfall::hypervisor::attach::adapt(&usual(), row.platform, &Default::default()).unwrap();
    let placement = |change: fn(&mut landfall::hypervisor::Placement)| {
        let mut placement = landfall::hypervisor::Placement {
            folder: "/out".into(),
            disks: vec![Default::default(); 2],
            ..Default::default()
        };
        change(&mut placement);
        placement
    };
    assert!((row.render)(&machine, &placement(|_| {})).is_ok());
    for bad in [
        placement(|placement| placement.id = Some(99)),
        placement(|placement| placement.folder = "/a,b".into()),
        placement(|placement| placement.folder = "/a\nb".into()),
        placement(|placement| placement.disks.truncate(1)),
        placement(|placement| {
            placement.networks = Networks { map: vec![], rest: Some("vmbr0,tag=1".into()) }
        }),
    ] {
        assert!((row.render)(&machine, &bad).is_err(), "{bad:?}");
    }
    let mut many = usual();
    many.disks = (0..40)
        .map(|n| landfall::machine::DiskSlot::new(format!("scsi0:{n}"), landfall::machine::Bus::Scsi, "x"))
        .collect();
    let rendered = render("proxmox", &many, None, &super::networks(), "/out");
    assert!(rendered.findings.iter().any(|finding| finding.id == "disks-too-many"));
}
