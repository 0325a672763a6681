//! The published schemas of maps and fleets take what landfall takes, and refuse the mistakes that a schema can see.

use super::landfall;
use super::schemas::{check, objections};
use serde_json::Value;
use std::fs;
use std::path::Path;

fn value(text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap()
}

/// Every key once, beside the README's examples.
const MAP: &str = r#"
[[rule]]
machine = "web*"
name = "{name}-dr"
networks = { "VM Network" = "bridge:br0", "*" = "default" }
storage = "ssd"
id = 120
cpus_at_most = 8
memory_at_most = "16GiB"
mac = "new"
uuid = "keep"
macs = { "00:50:56:00:12:ab" = "52:54:00:aa:bb:cc" }
[[rule]]
network = "Backup"
interface = "ens*"
subnets = { "10.1.0.0/16" = "10.2.0.0/16" }
addresses = { "10.1.0.5" = "10.2.0.5/24" }
gateway = ["10.2.0.1", "2001:db8::1"]
dns = ["10.2.0.53"]
search = ["b.example"]
routes = { "10.9.0.0/16" = { to = "10.8.0.0/16", via = "10.2.0.9" } }
dhcp = false
"#;

const FLEET: &str = r#"
to = "kvm"
output = "out"
map = "map.toml"
disk_format = "qcow2"
compress = "zstd"
machines_at_once = 2
rate_limit = "200M"
scratch_at_most = "4G"
keep = ["cloud-init"]
drop = ["qemu-guest-agent"]
virtio_win = "virtio-win.iso"
agent_installers = ["qemu-ga-x86_64.msi"]
registry = "site.reg"
[[machine]]
source = "web01.vmx"
to = "proxmox"
name = "web01"
disk_format = "qcow2"
memory = "4G"
cpus = 2
firmware = "uefi"
nics = ["new"]
map = "map.toml"
root = "vg0/root"
disks = { "scsi0:1" = "b.vmdk" }
skip_disks = ["scsi0:2"]
nvram = "web01_VARS.fd"
snapshot = "before"
system = "a"
configuration = "small"
registry = "site.reg"
discard_hibernation = true
"#;

fn examples(file: &str) -> Vec<String> {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    let found: Vec<_> = blocks.filter(|text| text.contains(file)).collect();
    assert!(!found.is_empty(), "{file}");
    found
}

/// What landfall says of a map or fleet; the fleet's files need not be there.
fn said(kind: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.toml");
    fs::write(&path, text).unwrap();
    fs::write(folder.path().join("map.toml"), MAP).unwrap();
    fs::write(folder.path().join("site.reg"), "Windows Registry Editor Version 5.00\r\n").unwrap();
    fs::write(folder.path().join("qemu-ga-x86_64.msi"), "x").unwrap();
    let mut command = landfall();
    match kind {
        "map-file" => command.args(["map", "check"]),
        _ => command.args(["batch", "--dry-run"]),
    };
    String::from_utf8_lossy(&command.arg(&path).output().unwrap().stderr).into_owned()
}

#[test]
fn what_landfall_takes_is_what_the_schemas_of_files_say() {
    let mut documents = vec![("map-file", value(MAP)), ("fleet-file", value(FLEET))];
    documents.extend(examples("[[rule]]").iter().map(|text| ("map-file", value(text))));
    documents.extend(examples("[[machine]]").iter().map(|text| ("fleet-file", value(text))));
    check(&documents);
    assert_eq!(said("map-file", MAP), "");
    let fleet = said("fleet-file", FLEET);
    assert!(fleet.contains("web01.vmx") && !fleet.contains("line "), "only the source is missing: {fleet}");
    // Every key of the schemas is in the two texts, at its place: `strict` reading found none beyond them.
    for (name, text) in [("map-file", MAP), ("fleet-file", FLEET)] {
        let printed = landfall().args(["schema", name]).output().unwrap().stdout;
        let schema: Value = serde_json::from_slice(&printed).unwrap();
        let mut keys = Vec::new();
        properties(&schema, &mut keys);
        for key in keys {
            assert!(
                text.contains(&format!("{key} = ")) || text.contains(&format!("[[{key}]]")),
                "{name}: {key}"
            );
        }
    }
}

fn properties(schema: &Value, out: &mut Vec<String>) {
    if let Some(found) = schema.get("properties").and_then(Value::as_object) {
        out.extend(found.keys().cloned());
    }
    match schema {
        Value::Object(map) => map.values().for_each(|inner| properties(inner, out)),
        Value::Array(list) => list.iter().for_each(|inner| properties(inner, out)),
        _ => {}
    }
}

/// Where landfall names a line, so does an editor with the schema.
#[test]
fn mistakes_in_files_are_mistakes_by_their_schemas() {
    for (kind, good, from, to) in [
        ("map-file", MAP, "storage =", "storrage ="),
        ("map-file", MAP, "id = 120", "id = 99"),
        ("map-file", MAP, "id = 120", "id = \"120\""),
        ("map-file", MAP, "cpus_at_most = 8", "cpus_at_most = 0"),
        ("map-file", MAP, "\"16GiB\"", "\"16X\""),
        ("map-file", MAP, "\"16GiB\"", "\"0G\""),
        ("map-file", MAP, "mac = \"new\"", "mac = \"random\""),
        ("map-file", MAP, "dns = [\"10.2.0.53\"]", "dns = \"10.2.0.53\""),
        ("map-file", MAP, "dns = [\"10.2.0.53\"]", "dns = []"),
        ("map-file", MAP, "via = ", "over = "),
        ("map-file", "", "", "[other]\n"),
        ("map-file", MAP, "[[rule]]\nmachine", "[[rules]]\nmachine"),
        ("map-file", MAP, "dhcp = false", "dhcp = \"no\""),
        ("fleet-file", FLEET, "to = \"kvm\"", "to = \"vmware\""),
        ("fleet-file", FLEET, "\"qcow2\"", "\"qcow\""),
        ("fleet-file", FLEET, "\"zstd\"", "\"lzma\""),
        ("fleet-file", FLEET, "machines_at_once = 2", "machines_at_once = 0"),
        ("fleet-file", FLEET, "\"200M\"", "\"fast\""),
        ("fleet-file", FLEET, "source = \"web01.vmx\"\n", ""),
        ("fleet-file", FLEET, "skip_disks", "skip_disk"),
        ("fleet-file", FLEET, "memory = \"4G\"", "memory = \"4X\""),
        ("fleet-file", FLEET, "firmware = \"uefi\"", "firmware = \"efi\""),
        ("fleet-file", FLEET, "keep = [\"cloud-init\"]", "keep = [\"clippy\"]"),
    ] {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good, "{from}");
        let Some(found) = objections(&[(kind, value(&text))]) else { return };
        assert_ne!(found, "", "{to} is taken by the schema");
        assert!(said(kind, &text).contains("line "), "{to}: {}", said(kind, &text));
    }
}
