//! Ways in besides NBD, by the verbs of the real program: RBD streams that `rbd` has merged, drops in a watched folder, pulls.

mod folders;
mod killed;
mod pulls;

use super::api::{ROOM, err, landfall, out};
use super::*;
use crate::cli::schemas::check;
use crate::receive::nbdsh::python;
use crate::receive::rbd::{by_python, exported, merge, source};
use crate::receive::{noise, program};
use landfall::receive::rbd::record::Version;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::Output;

impl Site {
    fn run(&self, words: &[&str]) -> Output {
        landfall(&self.path("sockets/api.sock"), words)
    }

    /// What a verb that is refused says.
    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {}{}", out(&output), err(&output));
        err(&output)
    }

    /// A verb that is given to read.
    fn fed(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
        command
            .env_remove("LANDFALL_TOKEN")
            .env("LANDFALL_SERVICE", self.path("sockets/api.sock"))
            .args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let sent = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(sent.is_ok() || !output.status.success());
        output
    }

    pub(super) fn points_of(&self, machine: &str) -> Vec<u64> {
        let points = self.document(&["points", "list", machine]);
        let numbers =
            points["points"].as_array().into_iter().flatten().filter_map(|point| point["number"].as_u64());
        numbers.collect()
    }

    /// Files that uploads and batches leave.
    fn left(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path("vault/incoming"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// What a disk holds at a point, as `rbd`'s readers have it: the whole diff, applied by Python to nothing.
    fn exported(&self, at: &str, disk: &str) -> Vec<u8> {
        let file = self.path(&format!("{}.whole", at.replace(['@', '/'], "-")));
        self.verb(&["points", "export", at, disk, "-o", file.to_str().unwrap(), "--replace"]);
        by_python(&file, &[]).map(|(content, _)| content).unwrap_or_default()
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let begin = Instant::now();
        while !is() {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{what}: {}\n{}",
                self.verb(&["alarms"]),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn alarms(&self) -> Vec<Value> {
        self.document(&["alarms"])["alarms"].as_array().cloned().unwrap_or_default()
    }

    fn has_alarm(&self, id: &str) -> bool {
        self.alarms().iter().any(|alarm| alarm["id"] == id)
    }
}

fn sum(path: &Path) -> String {
    landfall::receive::digest::Sum::of(&std::fs::read(path).unwrap()).to_string()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A day of a machine whose disk lies in Ceph: a whole diff, steps, a step that comes twice, one that is damaged, one that does not follow;
/// what comes out again is what `rbd` merges.
#[test]
fn streams_that_rbd_has_made_are_taken_and_given_back() {
    if program("rbd", "ceph-common").is_none() || program("python3", "python3").is_none() {
        return;
    }
    let (ceph, points) = source();
    let dir = tempfile::tempdir().unwrap();
    let names = ["s0", "s1", "s2", "s3"];
    let step = |from: Option<usize>, to: usize| {
        let from = from.map(|from| (points[from].0, names[from]));
        exported(&ceph, dir.path(), from, (points[to].0, names[to]), Version::V1)
    };
    let (whole, one, two, three) = (step(None, 0), step(Some(0), 1), step(Some(1), 2), step(Some(2), 3));
    let merged = dir.path().join("merged.diff");
    merge("rbd", &whole, &one, &merged);
    let mut site = Site::new(&format!("[protect]\ncheckpoint = \"1s\"\n{ROOM}"));
    site.start();
    // A difference is no beginning, and a machine does not come to be by it.
    let refused = site.refused(&["receive", "rbd", "web01/sda", text(&two)]);
    assert!(
        refused.contains("has no snapshot yet") && refused.contains("hint: send the whole disk first"),
        "{refused}"
    );
    assert!(site.document(&["status"])["machines"].as_array().unwrap().is_empty());
    assert!(site.left().is_empty(), "{:?}", site.left());

    // Matched.
    let document = site.document(&["receive", "rbd", "web01/sda", text(&merged), "--sha256", &sum(&merged)]);
    assert_eq!(document["disks"][0]["verdict"], "matched", "{document}");
    assert_eq!(document["disks"][0]["snapshot"], "s1");
    assert_eq!(document["is_new"], true, "{document}");
    check(&[("receive-rbd", document.clone())]);
    let first = document["points"][0].as_u64().unwrap();
    assert_eq!(site.points_of("web01"), [first]);
    if let Some((wanted, _)) = by_python(&merged, &[]) {
        assert!(site.exported("web01@latest", "sda") == wanted && wanted == points[1].1);
    }
    // Could not run: nothing came to compare with. From standard input, as rbd export-diff - writes.
    let output = site.fed(&["receive", "rbd", "web01/sda"], &std::fs::read(&two).unwrap());
    assert!(output.status.success(), "{}", err(&output));
    assert!(
        out(&output).contains("at the snapshot \"s2\"") && out(&output).contains("not compared"),
        "{}",
        out(&output)
    );
    assert!(site.exported("web01@latest", "sda") == points[2].1);
    let both = site.points_of("web01");
    assert_eq!(both.len(), 2);
    // The same once more is no step.
    let again = site.document(&["receive", "rbd", "web01/sda", text(&two)]);
    assert_eq!(again.get("is_new"), None, "{again}");
    assert_eq!(
        (again["disks"][0]["was_there"].as_bool(), again["points"].as_array().map(Vec::len)),
        (Some(true), Some(0))
    );
    // Differed: by the side file, as sha256sum writes it.
    let damaged = dir.path().join("damaged.diff");
    let mut bytes = std::fs::read(&three).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, &bytes).unwrap();
    std::fs::write(dir.path().join("damaged.diff.sha256"), format!("{}  damaged.diff\n", sum(&three)))
        .unwrap();
    let refused = site.refused(&["receive", "rbd", "web01/sda", text(&damaged)]);
    assert!(refused.contains("damaged on its way") && refused.contains("damaged.diff"), "{refused}");
    // Not the next step.
    let refused = site.refused(&["receive", "rbd", "web01/sda", text(&one)]);
    assert!(refused.contains("--from-snap 's2'"), "{refused}");
    // A disk that becomes smaller is believed with a digest only.
    site.refused(&["receive", "rbd", "web01/sda", text(&three)]);
    assert_eq!(site.points_of("web01"), both, "what is refused changes nothing");
    assert!(site.left().is_empty(), "{:?}", site.left());
    site.verb(&["receive", "rbd", "web01/sda", text(&three), "--sha256", &sum(&three)]);

    // It is protected as of its last delta, and the clock sets no points of its own.
    let all = site.points_of("web01");
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(site.points_of("web01"), all);
    let status = site.document(&["status", "web01"]);
    check(&[("protect", status.clone())]);
    assert_eq!(status["machine"]["protection"], "protected", "{status}");
    assert_eq!(status["machine"]["disks"][0]["delta"]["source"], "s3");
    assert_eq!(status["machine"]["rpo"]["target"], 93_600.0);
    assert!(status["machine"]["rpo"]["actual"].as_f64().unwrap() > 2.0, "{status}");
    assert_eq!(site.status(), Some(0), "{}", site.verb(&["alarms"]));
    assert!(site.verb(&["status", "web01"]).contains("fed by RBD: \"s3\""));
    // The point where the next delta begins is not given up.
    let last = all.last().unwrap().to_string();
    assert!(site.refused(&["points", "delete", "web01", &last]).contains("newest"));

    // Differences between any two points come out, and rbd merges them.
    let path = |name: &str| site.path(name);
    let export = |from: Option<u64>, to: u64, name: &str| {
        let (at, since, file) = (format!("web01@{to}"), from.unwrap_or_default().to_string(), path(name));
        let mut words = vec!["points", "export", &at, "sda", "-o", text(&file)];
        if from.is_some() {
            words.extend(["--since", &since]);
        }
        let document = site.document(&words);
        check(&[("export-point", document.clone())]);
        assert_eq!(document["sha256"].as_str().unwrap(), sum(&file));
        assert!(site.run(&words).status.code() == Some(1), "it is there already");
        file
    };
    let (a, b, c) =
        (export(None, all[0], "a"), export(Some(all[0]), all[1], "b"), export(Some(all[1]), all[2], "c"));
    merge("rbd", &a, &b, &path("ab"));
    merge("rbd", &path("ab"), &c, &path("abc"));
    for (file, wanted) in [("ab", &points[2].1), ("abc", &points[3].1)] {
        let (found, names) = by_python(&path(file), &[]).unwrap();
        assert!(found == *wanted, "{file}");
        assert_eq!(names, if file == "ab" { "- s2" } else { "- s3" }, "the snapshots that they are");
    }
    // To standard output, under names of one's own; and into another machine.
    let output =
        site.run(&["points", "export", &format!("web01@{}", all[1]), "sda", "-o", "-", "--snapshot", "x"]);
    assert!(output.status.success(), "{}", err(&output));
    let copied = site.fed(&["receive", "rbd", "copy/disk"], &output.stdout);
    assert!(out(&copied).contains("at the snapshot \"x\""), "{}{}", out(&copied), err(&copied));
    assert!(site.exported("copy", "disk") == points[2].1);
    site.stop();
    // The digests that were written beside are read where they lie; this time without a service.
    let vault = site.path("vault");
    let vault = text(&vault);
    let document = site.document(&["receive", "rbd", "web02/sda", text(&a), "--vault", vault]);
    assert_eq!(document["disks"][0]["verdict"], "matched");
    let file = site.path("web02.diff");
    site.verb(&["points", "export", "web02", "sda", "-o", text(&file), "--vault", vault]);
    assert!(by_python(&file, &[]).unwrap().0 == points[1].1);
    assert!(
        site.refused(&["receive", "rbd", "web02/sda", text(&a), "--vault", text(dir.path())])
            .contains("is no vault")
    );
    site.start();
    assert_eq!(site.points_of("web02").len(), 1);
    let locked = site.run(&["receive", "rbd", "web02/sda", text(&b), "--vault", vault]);
    assert_ne!(locked.status.code(), Some(0), "two do not work on one vault");
}

/// Two disks of one moment go together, or it is said that they do not.
#[test]
fn all_disks_of_a_moment_are_taken_together() {
    let (ceph, points) = source();
    let dir = tempfile::tempdir().unwrap();
    let whole = exported(&ceph, dir.path(), None, (points[0].0, "s0"), Version::V1);
    let next = exported(&ceph, dir.path(), Some((points[0].0, "s0")), (points[1].0, "s1"), Version::V2);
    let mut site = Site::new(ROOM);
    site.start();
    let document = site.document(&["receive", "rbd", "db/sda", text(&whole), "db/sdb", text(&whole)]);
    assert_eq!(document["points"].as_array().unwrap().len(), 1, "{document}");
    let refused = site.refused(&["receive", "rbd", "db/sda", text(&next)]);
    assert!(refused.contains("is not for sdb") && refused.contains("--apart"), "{refused}");
    site.verb(&["receive", "rbd", "db/sda", text(&next), "--apart"]);
    assert_eq!(site.points_of("db").len(), 2);
    for words in [
        &["receive", "rbd", "db/sda", "x", "db/sdb"][..],
        &["receive", "rbd", "db/sda", "-", "db/sdb", "-"],
        &["receive", "rbd", "db/sda", text(&whole), "web/sdb", text(&whole)],
    ] {
        site.refused(words);
    }
}

/// An NBD client and a delta do not write to one disk; each is told why.
#[test]
fn a_mirror_and_a_delta_keep_each_other_out() {
    let Some(python) = python() else { return };
    let (ceph, points) = source();
    let dir = tempfile::tempdir().unwrap();
    let whole = exported(&ceph, dir.path(), None, (points[0].0, "s0"), Version::V1);
    let mut site = Site::new(&format!("[protect]\ncheckpoint = \"1s\"\nin_sync = \"flush\"\n{ROOM}"));
    site.start();
    site.verb(&["receive", "rbd", "web01/sda", text(&whole)]);
    let (ready, enough, script) = (site.path("ready"), site.path("enough"), site.path("client.py"));
    let body = format!(
        "import nbd, os, time\nh = nbd.NBD()\nh.connect_uri({:?})\nopen({:?}, 'w')\n\
         while not os.path.exists({:?}): time.sleep(0.02)\n\
         h.pwrite(b'x' * 4096, 0)\nh.flush()\nh.shutdown()\n",
        site.uri("web01/sda"),
        ready,
        enough
    );
    std::fs::write(&script, body).unwrap();
    let mut client = Writer::start(python, &script);
    site.until("a client", || ready.exists());
    let refused = site.refused(&["receive", "rbd", "web01/sda", text(&whole), "--replace"]);
    assert!(refused.contains("web01/sda is being written to over NBD"), "{refused}");
    assert!(refused.contains("hint: end the mirror at the source first"), "{refused}");
    // It has only looked so far: the disk is still what its delta has brought.
    assert_eq!(site.document(&["status", "web01"])["machine"]["disks"][0]["delta"]["source"], "s0");
    std::fs::write(&enough, "").unwrap();
    client.ends();
    site.until("a point of the client", || site.points_of("web01").len() > 1);
    // It has written: the next delta does not fit any longer, and the mirror's RPO counts.
    let next = exported(&ceph, dir.path(), Some((points[0].0, "s0")), (points[1].0, "s1"), Version::V1);
    let refused = site.refused(&["receive", "rbd", "web01/sda", text(&next)]);
    assert!(refused.contains("something else was written to it since"), "{refused}");
    let status = site.document(&["status", "web01"]);
    assert_eq!(
        (status["machine"]["disks"][0]["delta"].clone(), status["machine"]["rpo"]["target"].clone()),
        (Value::Null, 15.0.into())
    );
}
