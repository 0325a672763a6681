//! Two services, and machines that one sends to the other: over mutual TLS, while they are written to, and whatever is killed meanwhile.

use super::*;
use crate::receive::nbdsh::python;
use crate::receive::tls::Authority;
use landfall_image::testing::noise_bytes;
use landfall_image::{DiskMut, GuestOffset};
use serde_json::Value;
use std::process::Output;

const MIB: u64 = 1 << 20;

/// A site that others send to: its API listens at a port of its own.
struct Other {
    site: Site,
    authority: Authority,
    url: String,
}

impl Other {
    /// With more in `[api]`, and in the file.
    fn new(api: &str, text: &str) -> Other {
        let authority = Authority::new();
        let file = |name: &str| authority.path(name).display().to_string();
        // Free at this moment; it stays the same when the service starts again.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let site = Site::new(&format!(
            "[upkeep]\nlow = 1\nscarce = 1\n{text}\n[api]\nlisten = [\"127.0.0.1:{port}\"]\ncertificate = {:?}\nkey = {:?}\nclients_ca = {:?}\n{api}\n",
            file("server-cert.pem"),
            file("server-key.pem"),
            file("ca-cert.pem"),
        ));
        Other { site, url: format!("https://localhost:{port}"), authority }
    }

    /// What a send to it needs.
    fn words(&self, own: Option<&Authority>) -> Vec<String> {
        let file = |authority: &Authority, name: &str| authority.path(name).display().to_string();
        let mut words = vec!["--tls-ca".to_owned(), file(&self.authority, "ca-cert.pem")];
        if let Some(own) = own {
            words.extend([
                "--tls-cert".to_owned(),
                file(own, "client-cert.pem"),
                "--tls-key".to_owned(),
                file(own, "client-key.pem"),
            ]);
        }
        words
    }

    fn command(&self, from: &Site, what: &str, own: Option<&Authority>, more: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
        command
            .env_remove("LANDFALL_TOKEN")
            .env_remove("LANDFALL_LOG")
            .env("LANDFALL_SERVICE", from.path("sockets/api.sock"));
        command.args(["--json", "send", what, "--to", &self.url]).args(self.words(own)).args(more);
        command
    }

    fn send(&self, from: &Site, what: &str, more: &[&str]) -> Output {
        self.command(from, what, Some(&self.authority), more).output().unwrap()
    }

    /// A send that does what it is told.
    #[track_caller]
    fn sent(&self, from: &Site, what: &str, more: &[&str]) -> Value {
        let output = self.send(from, what, more);
        assert!(
            output.status.success(),
            "{}\n{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.site.log()
        );
        let document = serde_json::from_slice(&output.stdout).unwrap();
        crate::cli::schemas::check(&[("send", serde_json::from_slice(&output.stdout).unwrap())]);
        document
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Writes into a machine's disks while no service runs, and sets a point.
fn write(site: &Site, machine: &str, size: u64, writes: &[(&str, u64, Vec<u8>)]) -> u64 {
    let service = Service::open(site.config()).unwrap();
    let name = machine.parse().unwrap();
    let disks: Vec<Wanted> =
        ["sda", "sdb"].iter().map(|disk| Wanted { name: disk.parse().unwrap(), size, sector: 512 }).collect();
    service.protect(&name, &disks, None, None).unwrap();
    let watched = service.machine(&name).unwrap();
    for (disk, at, bytes) in writes {
        watched.machine().live(disk).unwrap().write_at(GuestOffset(*at), bytes).unwrap();
    }
    service.ready(&name).unwrap().number
}

/// What both vaults hold at these points, while neither service runs.
#[track_caller]
fn assert_same(from: &Site, to: &Site, pairs: &[(u64, u64)]) {
    let name = "web01".parse().unwrap();
    let (source, copy) = (from.vault().machine(&name).unwrap(), to.vault().machine(&name).unwrap());
    for (sent, there) in pairs {
        for disk in ["sda", "sdb"] {
            let wanted = of_point(&source.at(*sent).unwrap(), disk);
            assert!(of_point(&copy.at(*there).unwrap(), disk) == wanted, "{disk} at {sent} and {there}");
        }
    }
}

fn pair(document: &Value) -> (u64, u64) {
    assert_eq!(document["verdict"], "matched", "{document}");
    (document["source"]["number"].as_u64().unwrap(), document["point"].as_u64().unwrap())
}

/// A machine of two disks is sent while somebody writes to it over NBD: each point there is what the point here is, and only what has changed
/// is sent.
#[test]
fn a_machine_that_is_written_to_is_sent_again_and_again() {
    let Some(python) = python() else { return };
    let mut from =
        Site::new("[protect]\ncheckpoint = \"1s\"\nin_sync = \"flush\"\n[upkeep]\nlow = 1\nscarce = 1\n");
    let mut to = Other::new("", "");
    from.protect("web01", &["sda", "sdb"], BLOCK * BLOCKS);
    let (progress, enough) = (from.path("progress"), from.path("enough"));
    let script = from.path("writer.py");
    let lines = writer([&from.uri("web01/sda"), &from.uri("web01/sdb")], &progress, &enough, true);
    std::fs::write(&script, format!("import nbd\n{lines}")).unwrap();
    from.start();
    to.site.start();
    let mut client = Writer::start(python, &script);
    let mut pairs = Vec::new();
    let begin = Instant::now();
    while pairs.len() < 3 {
        let output = to.send(&from, "web01", &[]);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        match document["disks"].as_array().map(Vec::len) {
            // There is no point yet, or no new one.
            None | Some(0) => {
                assert!(begin.elapsed() < Duration::from_secs(60), "{}", text(&output.stderr));
                std::thread::sleep(Duration::from_millis(100));
            }
            Some(_) => {
                let way = if pairs.is_empty() { "whole" } else { "differences" };
                assert_eq!(document["disks"][0]["way"], way, "{document}");
                pairs.push(pair(&document));
            }
        }
    }
    std::fs::write(&enough, "").unwrap();
    client.ends();
    from.stop();
    to.site.stop();
    assert_same(&from, &to.site, &pairs);
    // No other point was made of them, at any time.
    let machine = to.site.vault().machine(&"web01".parse().unwrap()).unwrap();
    let points: Vec<u64> = prefixes(&machine, &BTreeMap::new()).into_iter().map(|(point, _)| point).collect();
    assert_eq!(points, pairs.iter().map(|(_, there)| *there).collect::<Vec<_>>());
    // Nothing was written at the source: no hold is left.
    assert!(!from.path("vault/machines/web01/holds.json").exists());
}

#[test]
fn a_stranger_gets_nothing_and_a_certificate_sends_what_it_may() {
    let mut from = Site::new("");
    let mut to =
        Other::new("", "[[receive.client]]\nsubject = 'CN=web01,O=Example\\, Inc.'\nmachines = [\"web*\"]\n");
    write(&from, "web01", MIB, &[("sda", 4096, vec![7; 4096])]);
    write(&from, "db01", MIB, &[]);
    from.start();
    to.site.start();
    let answer = |what: &str, own: Option<&Authority>, more: &[&str]| {
        let output = to.command(&from, what, own, more).output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document["error"]["text"].as_str().unwrap_or_default().to_owned())
    };
    let (code, says) = answer("web01", Some(&Authority::new()), &[]);
    assert_eq!(code, Some(2), "another authority's: {says}");
    let (code, says) = answer("web01", None, &[]);
    assert_eq!(code, Some(1), "{says}");
    // With a token that may do everything, and no certificate.
    let made = Command::new(assert_cmd::cargo::cargo_bin("landfall"))
        .env("LANDFALL_SERVICE", to.site.path("sockets/api.sock"))
        .args(["--json", "token", "add", "all", "--role", "admin"])
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap();
    let secret = made["secret"].as_str().unwrap();
    let mut command = to.command(&from, "web01", None, &[]);
    let output = command.env("LANDFALL_TOKEN", secret).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("has to show its certificate"), "{}", text(&output.stdout));
    // Another machine, and another name for it.
    for (what, more) in [("db01", &[][..]), ("web01", &["--as", "db01"])] {
        let (code, says) = answer(what, Some(&to.authority), more);
        assert_eq!(code, Some(1));
        assert!(says.contains("may not send"), "{says}");
    }
    assert_eq!(to.site.log().matches("a send begins").count(), 0);
    // The certificate is no token.
    let status = Command::new(assert_cmd::cargo::cargo_bin("landfall"))
        .env_remove("LANDFALL_TOKEN")
        .args(["status", "--service", &to.url])
        .args(to.words(Some(&to.authority)))
        .output()
        .unwrap();
    assert!(text(&status.stderr).contains("needs a token"), "{}", text(&status.stderr));
    let sent = to.sent(&from, "web01", &[]);
    let renamed = to.sent(&from, "db01", &["--as", "web02"]);
    assert_eq!(renamed["machine"], "web02");
    // On the service's own machine nothing is asked.
    let output = Command::new(assert_cmd::cargo::cargo_bin("landfall"))
        .env_remove("LANDFALL_TOKEN")
        .env("LANDFALL_SERVICE", from.path("sockets/api.sock"))
        .args(["send", "db01", "--to"])
        .arg(to.site.path("sockets/api.sock"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("matched: db01"), "{}", text(&output.stdout));
    // What the point there is of.
    let shown = Command::new(assert_cmd::cargo::cargo_bin("landfall"))
        .env("LANDFALL_SERVICE", to.site.path("sockets/api.sock"))
        .args(["--json", "points", "show", "web01"])
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["sent"], sent["source"]);
    assert_eq!(shown["point"]["at"], sent["source"]["at"]);
    from.stop();
    to.site.stop();
    assert_same(&from, &to.site, &[pair(&sent)]);
}

/// The receiver, then the sender is killed in the middle; what has arrived is not sent again.
#[test]
fn a_send_goes_on_whoever_is_killed() {
    let mut from = Site::new("");
    let mut to = Other::new("", "");
    let size = 8 * MIB;
    write(
        &from,
        "web01",
        size,
        &[("sda", 0, noise_bytes(1, 6 << 20)), ("sdb", MIB, noise_bytes(2, 1 << 20))],
    );
    from.start();
    to.site.start();
    let slowly = ["--limit", "2MiB/s"];
    let mut running =
        to.command(&from, "web01", Some(&to.authority), &slowly).stdout(Stdio::piped()).spawn().unwrap();
    // Bytes of the journal there.
    let journal = |to: &Other| -> u64 {
        let files =
            std::fs::read_dir(to.site.path("vault/machines/web01/journal")).into_iter().flatten().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
    };
    let arrived = |to: &Other, at_least: u64| {
        let begin = Instant::now();
        while journal(to) < at_least {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{} of {at_least}: {}",
                journal(to),
                to.site.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    arrived(&to, MIB);
    to.site.kill();
    to.site.start();
    arrived(&to, 3 * MIB);
    // And the sender.
    running.kill().unwrap();
    running.wait().unwrap();
    to.site.kill();
    {
        let machine = to.site.vault().machine(&"web01".parse().unwrap()).unwrap();
        assert!(machine.points().unwrap().is_empty(), "half of a machine is offered");
    }
    to.site.start();
    let first = to.sent(&from, "web01", &[]);
    assert_eq!(first["disks"][0]["way"], "digests");
    assert!(first["line"].as_u64().unwrap() < 5 * MIB, "{first}");
    // Killed at its end, the receiver has the point, once.
    to.site.kill();
    to.site.start();
    let again = to.sent(&from, "web01", &[]);
    assert_eq!((&again["point"], again["line"].as_u64()), (&first["point"], Some(0)));
    from.stop();
    to.site.stop();
    assert_same(&from, &to.site, &[pair(&first)]);
    // A delta, of which the first half arrives before the line is cut for good.
    let number = write(&from, "web01", size, &[("sda", 2 * MIB, noise_bytes(3, 3 << 20))]);
    from.start();
    to.site.start();
    let before = journal(&to);
    let mut running =
        to.command(&from, "web01", Some(&to.authority), &slowly).stdout(Stdio::null()).spawn().unwrap();
    arrived(&to, before + MIB);
    running.kill().unwrap();
    running.wait().unwrap();
    let second = to.sent(&from, "web01", &[]);
    assert_eq!(second["source"]["number"], number);
    assert!(second["line"].as_u64().unwrap() < 3 * MIB, "{second}");
    from.stop();
    to.site.stop();
    assert_same(&from, &to.site, &[pair(&first), pair(&second)]);
    let machine = to.site.vault().machine(&"web01".parse().unwrap()).unwrap();
    assert_eq!(machine.points().unwrap().len(), 2);
}

/// By the clock: what is new arrives by itself, a landfall that does not answer is an alarm until it does, and a machine there that came another
/// way is left alone.
#[test]
fn machines_are_sent_by_the_clock() {
    let mut to = Other::new("", "");
    let file = |name: &str| to.authority.path(name).display().to_string();
    let mut from = Site::new(&format!(
        "[upkeep]\nlow = 1\nscarce = 1\n[[send]]\nto = {:?}\nca = {:?}\ncertificate = {:?}\nkey = {:?}\nmachines = [\"web*\"]\nevery = \"1s\"\nlate = \"2s\"\n",
        to.url,
        file("ca-cert.pem"),
        file("client-cert.pem"),
        file("client-key.pem"),
    ));
    let number = write(&from, "web01", MIB, &[("sda", 4096, noise_bytes(1, 4096))]);
    write(&from, "web02", MIB, &[]);
    // Somebody else's web02.
    write(&to.site, "web02", MIB, &[("sda", 0, vec![1; 512])]);
    let document = |site: &Site, words: &[&str]| -> Value {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
        command
            .env_remove("LANDFALL_TOKEN")
            .env("LANDFALL_SERVICE", site.path("sockets/api.sock"))
            .arg("--json");
        serde_json::from_slice(&command.args(words).output().unwrap().stdout).unwrap_or_default()
    };
    let late = |from: &Site, machine: &str| {
        let alarms = document(from, &["alarms"]);
        let all = alarms["alarms"].as_array().cloned().unwrap_or_default();
        all.iter().any(|alarm| alarm["id"] == "send-late" && alarm["machine"] == machine)
    };
    let wait = |from: &Site, what: &str, is_so: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}\n{}", from.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    from.start();
    wait(&from, "nobody answers", &|| late(&from, "web01"));
    to.site.start();
    let arrived = |to: &Other| document(&to.site, &["points", "show", "web01"])["sent"]["number"].as_u64();
    wait(&from, "the point arrives", &|| arrived(&to) == Some(number));
    wait(&from, "the alarm ends", &|| !late(&from, "web01"));
    assert!(late(&from, "web02"), "it is another machine");
    assert_eq!(document(&to.site, &["points", "list", "web02"])["points"].as_array().unwrap().len(), 1);
    // Both are told of: what has arrived, and what has not, and why.
    let status = document(&from, &["status"]);
    let sends = |machine: usize| &status["machines"][machine]["sends"][0];
    assert_eq!(
        (sends(0)["point"].as_u64(), sends(0)["late"].as_bool(), &sends(0)["failed"]),
        (Some(number), Some(false), &Value::Null),
        "{status}"
    );
    assert_eq!((&sends(1)["point"], sends(1)["late"].as_bool()), (&Value::Null, Some(true)), "{status}");
    assert!(sends(1)["failed"].as_str().is_some_and(|why| !why.is_empty()), "{status}");
    crate::cli::schemas::check(&[("status", status.clone())]);
    let said = api::out(&api::landfall(&from.path("sockets/api.sock"), &["status", "web02"]));
    assert!(said.contains("nothing has arrived yet, LATE; the last send failed: "), "{said}");
    // The point that the other side holds is kept.
    assert!(from.log().contains("a machine is sent"));
    from.stop();
    let again = write(&from, "web01", MIB, &[("sda", 8192, noise_bytes(2, 4096))]);
    from.start();
    wait(&from, "what is new arrives", &|| arrived(&to) == Some(again));
    // Each once.
    assert_eq!(document(&to.site, &["points", "list", "web01"])["points"].as_array().unwrap().len(), 2);
    from.stop();
    to.site.stop();
}

/// The first copy is carried on a disk: from a vault that no service works on, into one, and into a service; then differences go over the line.
#[test]
fn a_seed_is_carried_and_the_line_brings_the_rest() {
    let mut from = Site::new("");
    let mut to = Other::new("", "");
    write(&from, "web01", 4 * MIB, &[("sda", MIB, noise_bytes(1, 1 << 20)), ("sdb", 0, vec![7; 4096])]);
    let disk = tempfile::tempdir().unwrap();
    let carried = disk.path().to_str().unwrap();
    let run = |words: &[&str], vault: Option<&Site>, service: Option<&Site>| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
        command.env_remove("LANDFALL_TOKEN").arg("--json").args(words);
        if let Some(vault) = vault {
            command.arg("--vault").arg(vault.path("vault"));
        }
        if let Some(service) = service {
            command.env("LANDFALL_SERVICE", service.path("sockets/api.sock"));
        }
        let output = command.output().unwrap();
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), document)
    };
    let (code, seeded) = run(&["send", "web01", "--to", carried], Some(&from), None);
    assert_eq!((code, seeded["files"].as_u64()), (Some(0), Some(2)), "{seeded}");
    crate::cli::schemas::check(&[("seed", seeded)]);
    // Damaged on the way.
    let part =
        std::fs::read_dir(disk.path()).unwrap().next().unwrap().unwrap().path().join("disk0-00000.part");
    let good = std::fs::read(&part).unwrap();
    let mut bad = good.clone();
    bad[5000] ^= 1;
    std::fs::write(&part, &bad).unwrap();
    to.site.start();
    let (code, refused) = run(&["receive", "seed", carried], None, Some(&to.site));
    assert_eq!((code, &refused["error"]["kind"]), (Some(1), &"corrupt".into()), "{refused}");
    assert!(refused["error"]["path"].as_str().unwrap().ends_with("disk0-00000.part"), "{refused}");
    std::fs::write(&part, &good).unwrap();
    let (code, taken) = run(&["receive", "seed", carried], None, Some(&to.site));
    assert_eq!(code, Some(0), "{taken}\n{}", to.site.log());
    crate::cli::schemas::check(&[("send", taken.clone())]);
    // Into a vault without a service, too.
    let other = Site::new("");
    drop(Service::open(other.config()).unwrap());
    let (code, again) = run(&["receive", "seed", carried, "--as", "web09"], Some(&other), None);
    assert_eq!((code, &again["machine"]), (Some(0), &"web09".into()), "{again}");
    let number = write(&from, "web01", 4 * MIB, &[("sda", 0, noise_bytes(2, 8192))]);
    from.start();
    let sent = to.sent(&from, "web01", &[]);
    assert_eq!(
        (&sent["disks"][0]["way"], &sent["disks"][0]["content"]),
        (&"differences".into(), &8192.into()),
        "{sent}"
    );
    assert_eq!(sent["source"]["number"], number);
    let (code, held) = run(&["receive", "give-up", "web01"], None, Some(&to.site));
    assert_eq!((code, &held["holds"]["number"]), (Some(0), &number.into()), "{held}");
    crate::cli::schemas::check(&[("give-up", held)]);
    from.stop();
    to.site.stop();
    assert_same(&from, &to.site, &[pair(&taken), pair(&sent)]);
}
