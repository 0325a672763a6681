//! The images of the corpus that are made where the tests run, with qemu-img and qemu-io: each reads as recorded.
//!
//! The recorded hashes were made with a newer qemu-img. What the one at hand cannot make is skipped loudly; what it
//! makes must have the recorded content.

use super::corpus::{self, Expected};
use landfall_image::luks::Secret;
use landfall_image::{Kind, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

/// The passphrase in the commands.
const PASSPHRASE: &[u8] = b"landfall";

/// Formats of QEMU's that are recognised, but not read.
const FOREIGN: [&str; 3] = ["parallels", "qcow", "qed"];

struct Row {
    /// As in the list: a file, for a snapshot with `@` and its name.
    name: String,
    file: String,
    snapshot: Option<String>,
    format: String,
    expected: Expected,
}

fn row(line: &str) -> Row {
    let fields: Vec<&str> = line.split('\t').collect();
    let [name, format, size, sha256, nz4k] = fields[..] else { panic!("not five columns: {line}") };
    let (file, snapshot) = match name.split_once('@') {
        Some((file, snapshot)) => (file, Some(snapshot.to_owned())),
        None => (name, None),
    };
    let expected = Expected::Content {
        size: size.parse().unwrap(),
        sha256: sha256.to_owned(),
        nz4k: Some(nz4k.to_owned()),
    };
    Row { name: name.into(), file: file.into(), snapshot, format: format.into(), expected }
}

/// Runs the commands, each in `folder`; those that fail are named on stderr.
fn make(commands: &str, folder: &Path) {
    for command in commands.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let run = || {
            let mut shell = Command::new("sh");
            shell.args(["-e", "-c", command]).current_dir(folder).stdin(Stdio::null());
            shell.output().expect("there is a shell")
        };
        // QEMU measures how fast a key is derived, which fails now and then on a busy machine.
        let mut outputs = std::iter::repeat_with(run).take(if command.contains("iter-time") { 5 } else { 1 });
        let mut output = outputs.next().expect("it ran");
        while !output.status.success()
            && let Some(next) = outputs.next()
        {
            output = next;
        }
        if !output.status.success() {
            let says = String::from_utf8_lossy(&output.stderr);
            eprintln!("SKIPPED: {command}: {}", says.lines().last().unwrap_or("failed"));
        }
    }
}

#[test]
fn every_generated_image_reads_as_recorded() {
    let Some(root) = crate::machines::corpus() else { return };
    let text = |name: &str| std::fs::read_to_string(root.join("generated").join(name)).unwrap();
    let rows: Vec<Row> = text("HASHES.tsv").lines().skip(1).map(row).collect();
    assert!(rows.len() > 70, "{} images in the list", rows.len());
    let folder = tempfile::tempdir().unwrap();
    make(&text("COMMANDS.txt"), folder.path());

    let (mut wrong, mut read) = (Vec::new(), 0);
    for row in &rows {
        let path = folder.path().join(&row.file);
        if !path.exists() {
            eprintln!("SKIPPED: {} was not made", row.name);
            continue;
        }
        let raw = row.format == "raw";
        let options = OpenOptions {
            format: raw.then_some(landfall_image::Format::Raw),
            snapshot: row.snapshot.clone(),
            key: Some(Secret::new(PASSPHRASE.to_vec())),
            ..OpenOptions::default()
        };
        let reading = corpus::reading_with(&path, &options);
        match &reading {
            // Recognised by name, not taken for a raw disk.
            Err(error) if FOREIGN.contains(&row.format.as_str()) && error.kind() == Kind::Unsupported => {}
            _ => match corpus::verdict(&row.expected, &reading) {
                Ok(()) => read += 1,
                Err(what) => wrong.push(format!("{}: {what}", row.name)),
            },
        }
        // What only this image can open is refused; a volume that its guest encrypted is the disk as it stands.
        match row.name.as_str() {
            "q-luks.qcow2" => {
                let refused = corpus::reading(&path).map(drop).expect_err("without its passphrase");
                assert_eq!(refused.kind(), Kind::Refused, "{refused}");
            }
            "l-raw.luks" => {
                let (size, ..) = corpus::reading(&path).unwrap();
                assert_eq!(size, std::fs::metadata(&path).unwrap().len(), "no byte is left out");
            }
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} images:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    eprintln!("{read} of {} generated images read as recorded", rows.len());
}
