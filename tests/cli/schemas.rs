//! What `--json` prints is what its schema says: the published schemas are those of this build, and every verb's output, of
//! success and of failure, is valid by python3-jsonschema, which shares no code with what makes the schemas.
//!
//! Valid by a stricter reading than the schemas': there a document may have further fields, as later versions will; here a
//! field that no schema describes is a mistake.

use super::{landfall, names, raw_disk, stderr};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn published() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

#[test]
fn the_published_schemas_are_these() {
    let listed = landfall().arg("schema").output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut files = Vec::new();
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let printed = landfall().args(["schema", name]).output().unwrap();
        assert!(printed.status.success(), "{}", stderr(&printed));
        let file = format!("{name}.json");
        let kept = fs::read_to_string(published().join(&file)).unwrap_or_default();
        let same = kept.as_bytes() == printed.stdout;
        assert!(
            same,
            "schemas/{file} is another one: landfall schema {name} > schemas/{file}, and look at the difference"
        );
        files.push(file);
    }
    files.sort();
    assert_eq!(names(&published()), files, "a schema for each, and no others");
}

/// Reads [[name of the schema, document]…] and the folder of the schemas; prints what is wrong.
const VALIDATE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator as Validator

def strict(schema):
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: strict(each) for name, each in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        out.setdefault("additionalProperties", False)
    return out

def told(error, depth=0):
    inner = [told(each, depth + 1) for each in error.context][:6] if depth < 3 else []
    return f"{error.json_path}: {error.message[:400]} {inner}"

wrong = 0
for name, document in json.load(sys.stdin):
    with open(f"{sys.argv[1]}/{name}.json") as file:
        schema = json.load(file)
    Validator.check_schema(schema)
    for reading in (schema, strict(schema)):
        for error in Validator(reading).iter_errors(document):
            wrong += 1
            print(name, told(error))
sys.exit(1 if wrong else 0)
"#;

/// What python3-jsonschema has against these documents, each with the name of its schema. `None`, loudly, where it is not
/// installed.
pub fn objections(documents: &[(&str, Value)]) -> Option<String> {
    // The distribution's, or the one that comes first.
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let found = Command::new(python).args(["-c", "from jsonschema import Draft202012Validator"]).output();
        found.is_ok_and(|found| found.status.success())
    });
    let Some(python) = python else {
        eprintln!("SKIPPED: python3-jsonschema is not here: run make test, which installs it");
        return None;
    };
    let mut child = Command::new(python)
        .args(["-c", VALIDATE])
        .arg(published())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(documents).unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.success(), said.is_empty(), "{said}");
    Some(said)
}

/// Fails where a document is not what its schema says.
#[track_caller]
pub fn check(documents: &[(&str, Value)]) {
    if let Some(objections) = objections(documents) {
        assert_eq!(objections, "");
    }
}

/// A disk with an MBR: a partition of each kind that a report tells apart.
fn parted(path: &Path) {
    let mut disk = vec![0_u8; 8 << 20];
    for (slot, (active, kind, first, sectors)) in
        [(0x80_u8, 0x83_u8, 2048_u32, 4096_u32), (0, 0x82, 6144, 2048)].into_iter().enumerate()
    {
        let at = 446 + slot * 16;
        disk[at] = active;
        disk[at + 4] = kind;
        disk[at + 8..at + 12].copy_from_slice(&first.to_le_bytes());
        disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    }
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    fs::write(path, disk).unwrap();
}

#[test]
fn every_verb_prints_what_its_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    raw_disk(folder.path(), 2);
    parted(Path::new(&path("parted.raw")));
    let vmx = "config.version = \"8\"\nvirtualHW.version = \"19\"\ndisplayName = \"web01\"\nmemSize = \"1024\"\n\
        annotation = \"two|0Alines\"\nuuid.bios = \"56 4d 6c 61 6e 64 66 61-6c 6c 64 65 6d 6f 30 31\"\n\
        ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet3\"\nscsi0.present = \"TRUE\"\n\
        scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"parted.raw\"\n";
    fs::write(path("web01.vmx"), vmx).unwrap();
    let lost = format!("{vmx}scsi0:1.present = \"TRUE\"\nscsi0:1.fileName = \"lost.vmdk\"\n");
    fs::write(path("lost.vmx"), lost).unwrap();
    fs::write(path("bochs.img"), b"Bochs Virtual HD Image and more").unwrap();
    let mut documents = Vec::new();
    let mut run = |schema: &'static str, code: i32, args: &[&str]| {
        let output: Output = landfall().arg("--json").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let document: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{args:?}: {e}"));
        assert_eq!(document["version"], 1, "{args:?}");
        documents.push((schema, document));
    };
    run("disk-info", 0, &["disk", "info", &path("source.raw")]);
    run("disk-info", 0, &["disk", "info", "--digest", &path("parted.raw")]);
    run("error", 1, &["disk", "info", &path("bochs.img")]);
    run("error", 2, &["disk", "info", &path("absent.raw")]);
    run("disk-map", 0, &["disk", "map", &path("parted.raw")]);
    run("disk-convert", 0, &["disk", "convert", &path("source.raw"), &path("source.qcow2")]);
    run("error", 1, &["disk", "convert", &path("source.raw"), &path("source.qcow2")]);
    fs::create_dir(path("several")).unwrap();
    let several = [path("source.raw"), path("bochs.img"), path("several")];
    let several: Vec<&str> =
        ["disk", "convert", "-O", "vmdk"].into_iter().chain(several.iter().map(String::as_str)).collect();
    run("disk-convert", 1, &several);
    run("disk-check", 0, &["disk", "check", "--read", &path("source.qcow2"), &path("source.raw")]);
    let mut damaged = fs::read(path("source.qcow2")).unwrap();
    damaged[(1 << 16) + 4] ^= 0xff;
    fs::write(path("damaged.qcow2"), damaged).unwrap();
    run("disk-check", 1, &["disk", "check", &path("damaged.qcow2")]);
    run("disk-check", 2, &["disk", "check", &path("source.qcow2"), &path("absent.raw")]);
    run("disk-compare", 0, &["disk", "compare", &path("source.raw"), &path("source.qcow2")]);
    run("disk-compare", 1, &["disk", "compare", &path("source.raw"), &path("parted.raw")]);
    run("explain", 0, &["explain"]);
    run("explain", 0, &["explain", "disk-raw-device"]);
    run("error", 1, &["explain", "nonsense"]);
    // No system is on it, and the second one's disk is not there: both block, and are shown all the same.
    run("inspect", 1, &["inspect", &path("web01.vmx")]);
    run("inspect", 1, &["inspect", &path("lost.vmx")]);
    run("error", 2, &["inspect", &path("absent.vmx")]);
    run("error", 1, &["prove", &path("bochs.img")]);
    documents.push(("disk-serve", served(&path("source.raw"), &path("socket"))));
    // Where there is a sandbox, findings refuse it; else its absence does.
    let output = landfall()
        .args(["--json", "convert", "--to", "kvm", "-o"])
        .arg(folder.path())
        .arg(path("web01.vmx"))
        .output()
        .unwrap();
    documents.push(("error", serde_json::from_slice(&output.stdout).unwrap()));
    check(&documents);

    // The check can fail: a field too many, one that is missing, one of another kind.
    let Some(said) = objections(&[
        (
            "disk-compare",
            json!({ "version": 1, "same": true, "sizes": [1, 1], "first_difference": null, "new": 1 }),
        ),
        ("disk-compare", json!({ "version": 1, "sizes": [1, 1], "first_difference": null })),
        ("disk-compare", json!({ "version": 1, "same": "yes", "sizes": [1, 1], "first_difference": null })),
    ]) else {
        return;
    };
    for word in ["'new' was unexpected", "'same' is a required property", "'yes' is not of type"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// What `disk serve --once` prints when its client has left.
fn served(image: &str, socket: &str) -> Value {
    let mut server = landfall();
    let server = server.args(["--json", "disk", "serve", "--once", "--socket", socket, image]);
    let server = server.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !Path::new(socket).exists() {
        assert!(std::time::Instant::now() < deadline, "the server does not begin");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let client =
        landfall().args(["disk", "info"]).arg(format!("nbd+unix:///?socket={socket}")).output().unwrap();
    assert!(client.status.success(), "{}", stderr(&client));
    let output = server.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A machine is shown though one of its disks is lost, and nothing of what lies on the others is hidden by it.
#[test]
fn a_lost_disk_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    parted(&folder.path().join("parted.raw"));
    let vmx = folder.path().join("web01.vmx");
    let text = "config.version = \"8\"\ndisplayName = \"web01\"\nscsi0.present = \"TRUE\"\n\
        scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"lost.vmdk\"\n\
        scsi0:1.present = \"TRUE\"\nscsi0:1.fileName = \"parted.raw\"\n";
    fs::write(&vmx, text).unwrap();
    let output = landfall().arg("inspect").arg(&vmx).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    for words in [
        "CANNOT BE READ",
        "lost.vmdk",
        "[disk-unreadable]",
        "--disk scsi0:0=FILE",
        "disk1p1",
        "disk1p2",
        "Guest: none",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    assert!(text.contains("[no-operating-system]"), "{text}");
    // Of disks that nobody could look at it is not said that nothing is on them.
    let bare = folder.path().join("bare.vmx");
    fs::write(&bare, "config.version = \"8\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"lost.vmdk\"\n").unwrap();
    let output = landfall().arg("inspect").arg(&bare).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("[disk-unreadable]"), "{text}");
    assert!(!text.contains("no-operating-system") && !text.contains("hold nothing"), "{text}");
    // What is to be converted needs all of its disks.
    let output =
        landfall().args(["convert", "--to", "kvm", "-o"]).arg(folder.path()).arg(&vmx).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("lost.vmdk"), "{}", stderr(&output));
}
