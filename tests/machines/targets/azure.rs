//! Azure's script against a cloud that is played: what is uploaded, what of it is kept, and what stops it.

use super::{Stage, hostile, render, said, usual};
use landfall::hypervisor::Networks;
use landfall::machine::Machine;
use std::fs;
use std::process::Command;

/// A cloud with one container. Each blob is a file with its mark.
const CLOUD: &str = r#"mkdir -p blobs
case "$*" in "${BROKEN:-nothing}"*) exit 1;; esac
before=
for word in "$@"; do
    [ "$before" != --name ] || blob=blobs/$(basename "$word")
    case $word in landfall=*) mark=${word#landfall=};; esac
    before=$word
done
case "$*" in
'group exists'*|'storage container exists'*) echo true;;
'storage account show'*) echo /account;;
'resource list'*) echo "${TAKEN:-}";;
'network vnet subnet show'*) echo /subnet;;
'storage blob exists'*) if [ -e "$blob" ]; then echo true; else echo false; fi;;
'storage blob show'*) cat "$blob";;
'storage blob upload'*|'storage blob metadata'*) echo "$mark" >"$blob";;
esac"#;

const WORDS: [&str; 6] = ["-g", "group", "-a", "account", "-s", "net/front"];

/// The folder's manifest, where the disks hold what these letters stand for.
fn manifest(stage: &Stage, contents: [&str; 2]) {
    let disk = |n: usize| serde_json::json!({ "file": format!("disk{n}.qcow2"), "content_digest": contents[n].repeat(64), "data": 1 });
    let manifest = serde_json::json!({
        "version": 1,
        "disks": [disk(0), disk(1)],
        "files": [{ "file": "register.sh", "blake3": "ff" }],
    });
    fs::write(stage.path("out it's").join("manifest.json"), format!("{manifest:#}\n")).unwrap();
}

fn stage(machine: &Machine) -> Stage {
    // Every card gets the subnet of the command line.
    let stage = Stage::new(&render("azure", machine, None, &Networks::default(), "/out"));
    stage.program("az", CLOUD);
    manifest(&stage, ["a", "b"]);
    stage
}

fn uploads(stage: &Stage) -> usize {
    stage.calls_of(&["az", "storage", "blob", "upload"]).len()
}

fn deployed(stage: &Stage) -> bool {
    !stage.calls_of(&["az", "deployment"]).is_empty()
}

/// An upload is kept where it is of the same data, and never where it is of others.
#[test]
fn an_upload_is_known_by_what_it_holds() {
    for machine in [usual(), hostile()] {
        let stage = stage(&machine);
        let run = |variables: &[(&str, &str)]| stage.run(&WORDS, variables);
        let done = run(&[]);
        assert!(done.status.success() && deployed(&stage), "{}", said(&done));
        assert_eq!(uploads(&stage), 2);
        assert_eq!(fs::read_to_string(stage.path("blobs/disk1.qcow2")).unwrap().trim(), "b".repeat(64));
        let again = run(&[]);
        assert!(
            again.status.success() && said(&again).contains("disk1.qcow2 is uploaded already"),
            "{}",
            said(&again)
        );
        assert_eq!(uploads(&stage), 0);
        // One that broke off is begun anew.
        fs::write(stage.path("blobs/disk1.qcow2"), "uploading\n").unwrap();
        assert!(run(&[]).status.success());
        assert_eq!(uploads(&stage), 1);
        // Another copy of the same machine has the same names. Nothing is uploaded, not even the disk that is the same.
        manifest(&stage, ["a", "c"]);
        fs::remove_file(stage.path("blobs/disk0.qcow2")).unwrap();
        for words in [&WORDS[..], &[&WORDS[..], &["-t"]].concat()] {
            let stopped = stage.run(words, &[]);
            assert_eq!(stopped.status.code(), Some(1), "{}", said(&stopped));
            let says = said(&stopped);
            assert!(
                says.contains("is not of the data here") && says.contains("az storage blob delete"),
                "{says}"
            );
            assert!(uploads(&stage) == 0 && !deployed(&stage));
        }
        fs::write(stage.path("blobs/disk1.qcow2"), "foreign\n").unwrap();
        assert!(said(&run(&[])).contains("is not of the data here"));
    }
}

#[test]
fn an_error_is_not_taken_for_an_answer() {
    let stage = stage(&usual());
    fs::create_dir(stage.path("blobs")).unwrap();
    fs::write(stage.path("blobs/disk1.qcow2"), "uploading\n").unwrap();
    for (variables, expected) in [
        (&[("TAKEN", "/x")][..], "web01 is in group already"),
        (&[("BROKEN", "resource list")], "cannot list the resources in group"),
        (&[("BROKEN", "storage blob exists")], "cannot look for landfall/web01/disk0.qcow2"),
        (&[("BROKEN", "storage blob show")], "cannot look at landfall/web01/disk1.qcow2"),
    ] {
        let stopped = stage.run(&WORDS, variables);
        assert_eq!(stopped.status.code(), Some(1), "{expected}: {}", said(&stopped));
        assert!(said(&stopped).contains(expected) && said(&stopped).contains("hint: "), "{}", said(&stopped));
        assert!(uploads(&stage) == 0 && !deployed(&stage), "{expected}");
    }
    fs::write(stage.path("out it's").join("manifest.json"), "{}\n").unwrap();
    assert!(said(&stage.run(&WORDS, &[])).contains("manifest.json does not tell what disk0.qcow2 holds"));
    fs::remove_file(stage.path("out it's").join("manifest.json")).unwrap();
    assert!(said(&stage.run(&WORDS, &[])).contains("manifest.json does not tell what disk0.qcow2 holds"));
}

#[test]
fn the_script_is_clean() {
    if Command::new("shellcheck").arg("--version").output().is_err() {
        eprintln!("SKIPPED: shellcheck is not here (Debian: shellcheck)");
        return;
    }
    for machine in [usual(), hostile()] {
        let stage = stage(&machine);
        let script = stage.path("out it's").join("register.sh");
        let checked = Command::new("shellcheck").arg(script).output().unwrap();
        assert!(checked.status.success(), "{:?}: {}", machine.name, said(&checked));
    }
}
