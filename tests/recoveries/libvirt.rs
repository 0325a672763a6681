//! Recoveries at a libvirt: alone in their network, gone with one command, kept while they run; and cut off at every step.

use super::host::Host;
use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

const AT: &str = "qemu:///system";

/// A command that serves the point after it has printed its document.
struct Serving {
    child: Child,
    _out: BufReader<ChildStdout>,
}

impl Serving {
    /// The document that it printed before it began to wait; `None` where it ended without one.
    fn start(command: &mut Command) -> (Serving, Option<Value>) {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut document = String::new();
        loop {
            let mut line = String::new();
            if out.read_line(&mut line).unwrap() == 0 {
                return (Serving { child, _out: out }, None);
            }
            document.push_str(&line);
            if line == "}\n" {
                break;
            }
        }
        let document = serde_json::from_str(&document).unwrap_or_else(|e| panic!("{e}: {document}"));
        (Serving { child, _out: out }, Some(document))
    }

    /// As [`start`](Self::start), where it must print one.
    fn begin(command: &mut Command) -> (Serving, Value) {
        let (mut serving, document) = Serving::start(command);
        let document = document.unwrap_or_else(|| {
            let mut said = String::new();
            let _ = std::io::Read::read_to_string(&mut serving.child.stderr.take().unwrap(), &mut said);
            panic!("{command:?}: {said}")
        });
        (serving, document)
    }

    /// Ends it as Ctrl-C does.
    fn stop(mut self) -> i32 {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A vault with a point that is prepared, a host, and a folder for recoveries.
struct Site {
    protected: Protected,
    host: Host,
    out: tempfile::TempDir,
}

impl Site {
    fn new() -> Option<Site> {
        let host = Host::start()?;
        let protected = protected()?;
        let out = tempfile::tempdir_in("/tmp").unwrap();
        let site = Site { protected, host, out };
        let prepared = done(
            site.protected
                .landfall()
                .args(["--json", "recover", "web01", "--at", "tag:good", "--prepare", "-o"])
                .arg(site.out.path()),
        );
        assert_eq!(
            (prepared["was_there"].as_bool(), prepared["point"].as_u64()),
            (Some(false), Some(site.protected.points[0]))
        );
        crate::cli::schemas::check(&[("recover-prepare", prepared)]);
        Some(site)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.protected.landfall();
        command.args(["--json", "recover"]).args(args);
        self.host.enter(&command)
    }

    fn recover(&self, mode: &str, more: &[&str]) -> Command {
        let out = self.out.path().to_str().unwrap();
        let common = [
            "web01",
            "--at",
            "tag:good",
            "--mode",
            mode,
            "--register",
            AT,
            "--emulated",
            "--serve",
            "-o",
            out,
        ];
        self.command(&[&common[..], more].concat())
    }

    fn place(&self, name: &str) -> PathBuf {
        self.out.path().join(name)
    }

    fn end(&self, verb: &str, name: &str) -> Command {
        self.command(&[verb, self.place(name).to_str().unwrap()])
    }

    /// The points that recoveries hold.
    fn held(&self) -> usize {
        let (vault, _) = Vault::open(&self.protected.vault()).unwrap();
        vault.machine(&name()).unwrap().holds().all().len()
    }

    fn state(&self, machine: &str) -> String {
        self.host.ask(&["domstate", "--domain", machine])
    }
}

#[test]
fn a_test_runs_alone_and_goes_with_one_command() {
    let _place = crate::boots::place();
    let Some(site) = Site::new() else { return };
    let before = digest(&site.protected.vault(), site.protected.points[0]);
    // The machine that is protected runs here, too.
    let original = "<domain type='qemu'><name>web01</name><uuid>564d6c61-6e64-6661-6c6c-64656d6f3031</uuid><memory unit='MiB'>64</memory>\
         <os><type arch='x86_64'>hvm</type></os><devices><interface type='user'><mac address='00:50:56:20:30:40'/></interface>\
         </devices></domain>".to_string();
    let file = site.out.path().join("original.xml");
    fs::write(&file, original).unwrap();
    site.host.ask(&["define", file.to_str().unwrap()]);
    let document = refused(&mut site.recover("test", &[]));
    let found =
        &document["findings"].as_array().unwrap().iter().find(|it| it["severity"] == "blocks").unwrap();
    assert!(
        found["id"] == "target-id-taken" && found["remedy"].as_str().unwrap().contains("--new-uuid"),
        "{document:#}"
    );
    assert_eq!(
        (names(site.out.path()), site.held()),
        (vec![".prepared".to_owned(), "original.xml".to_owned()], 0)
    );
    assert_eq!(site.host.has().1, "", "nothing was made");

    let (serving, document) = Serving::begin(&mut site.recover("test", &["--new-uuid"]));
    assert_eq!(document["registration"]["outcome"], "registered", "{document:#}");
    assert_eq!(
        (document["was_prepared"].as_bool(), &document["recovery"]["step"]),
        (Some(true), &"registered".into())
    );
    assert_eq!(site.host.has(), ("web01-test\nweb01".to_owned(), "landfall-web01-test".to_owned()));
    assert_eq!(site.state("web01-test"), "running");
    let network = site.host.ask(&["net-dumpxml", "landfall-web01-test"]);
    assert!(!network.contains("<forward") && !network.contains("<ip"), "{network}");
    let domain = site.host.ask(&["dumpxml", "web01-test"]);
    for wanted in [
        "<source network='landfall-web01-test'",
        "<mac address='00:50:56:20:30:40'/>",
        "rerror_policy='stop'",
        "<source protocol='nbd' name='web01/scsi0-0@",
    ] {
        assert!(domain.contains(wanted), "{wanted}: {domain}");
    }
    assert!(!domain.contains("564d6c61-6e64-6661-6c6c-64656d6f3031"), "{domain}");
    // Two of them must not work on one vault, or on one recovery.
    let document_2 = refused(&mut site.end("remove", "web01-test"));
    assert!(
        document_2["error"]["says"].as_str().unwrap().contains("another process works on this vault"),
        "{document_2:#}"
    );
    assert_eq!(serving.stop(), 0);

    // The same command goes on.
    let (serving, again) = Serving::begin(&mut site.recover("test", &["--new-uuid"]));
    assert_eq!(again["recovery"]["host"]["id"], document["recovery"]["host"]["id"]);
    let list = || done(&mut site.command(&["list", "-o", site.out.path().to_str().unwrap()]));
    let mut listed = list();
    // It stopped at a read while nobody served its point, and is let go on.
    let deadline = Instant::now() + Duration::from_secs(120);
    while listed["recoveries"][0]["state"] != "running" {
        assert!(Instant::now() < deadline, "{listed:#}");
        std::thread::sleep(Duration::from_millis(500));
        listed = list();
    }
    let list = listed;
    assert_eq!(list["prepared"][0]["point"], site.protected.points[0]);
    assert_eq!(serving.stop(), 0);
    // Another point, or other options, are another recovery.
    for (more, words) in
        [(&["--at", "latest"][..], "--at"), (&["--new-uuid", "--network", "none"], "other options")]
    {
        let mut all = vec![
            "web01",
            "--mode",
            "test",
            "--serve",
            "--register",
            AT,
            "--emulated",
            "-o",
            site.out.path().to_str().unwrap(),
        ];
        if !more.contains(&"--at") {
            all.extend(["--at", "tag:good"]);
        }
        let said = refused(&mut site.command(&[&all[..], more].concat()));
        let error = &said["error"];
        assert!(format!("{}{}", error["says"], error["hint"]).contains(words), "{said:#}");
    }

    let folder = site.place("web01-test");
    fs::write(folder.join("notes.txt"), "somebody's own").unwrap();
    let rollback = refused(&mut site.end("rollback", "web01-test"));
    assert!(rollback["error"]["hint"].as_str().unwrap().contains("landfall recover remove"), "{rollback:#}");
    let commit = refused(&mut site.end("commit", "web01-test"));
    assert!(commit["error"]["hint"].as_str().unwrap().contains("--mode live"), "{commit:#}");
    assert_eq!(site.held(), 1);
    let removed = done(&mut site.end("remove", "web01-test"));
    assert_eq!(
        (&removed["outcome"], &removed["left"]),
        (&"removed".into(), &serde_json::json!(["notes.txt"]))
    );
    assert_eq!(names(&folder), ["notes.txt"]);
    assert_eq!(site.host.has(), ("web01".to_owned(), String::new()), "what was there before is there");
    assert_eq!(site.held(), 0);
    assert_eq!(digest(&site.protected.vault(), site.protected.points[0]), before, "the point was changed");
    crate::cli::schemas::check(&[
        ("recover", document),
        ("recover", again),
        ("recover-list", list),
        ("recover-end", removed),
    ]);
}

/// Kept while it runs: its disk needs nothing any more, and holds what the chain held.
#[test]
fn a_live_recovery_is_committed_while_it_runs_or_rolled_back() {
    let _place = crate::boots::place();
    let Some(site) = Site::new() else { return };
    let (serving, document) = Serving::begin(&mut site.recover("live", &["--network", "none"]));
    assert_eq!(document["registration"]["outcome"], "registered", "{document:#}");
    assert_eq!(site.host.has(), ("web01".to_owned(), String::new()));
    assert_eq!(serving.stop(), 0);
    let removed = refused(&mut site.end("remove", "web01"));
    assert!(removed["error"]["hint"].as_str().unwrap().contains("recover commit"), "{removed:#}");
    let rolled_back = done(&mut site.end("rollback", "web01"));
    assert_eq!(rolled_back["outcome"], "removed");
    assert_eq!((site.host.has(), site.held()), ((String::new(), String::new()), 0));
    assert!(!site.place("web01").exists());

    let (serving, _) = Serving::begin(&mut site.recover("live", &["--network", "none"]));
    assert_eq!(serving.stop(), 0);
    // The process that served is gone: the commit serves.
    let committed = done(&mut site.end("commit", "web01"));
    assert_eq!(
        (&committed["outcome"], &committed["recovery"]["step"]),
        (&"committed".into(), &"committed".into())
    );
    assert_eq!(site.state("web01"), "running");
    for domain in [site.host.ask(&["dumpxml", "web01"]), site.host.ask(&["dumpxml", "--inactive", "web01"])] {
        assert!(!domain.contains("protocol='nbd'"), "{domain}");
    }
    assert_eq!(site.held(), 0);
    let again = done(&mut site.end("commit", "web01"));
    assert_eq!(again["outcome"], "committed");
    for verb in ["rollback", "remove"] {
        let kept = refused(&mut site.end(verb, "web01"));
        assert!(kept["error"]["says"].as_str().unwrap().contains("committed"), "{kept:#}");
    }
    site.host.ask(&["destroy", "web01"]);
    let disk = site.place("web01").join("disk0.qcow2");
    let info = Command::new("qemu-img").args(["info", "--output=json"]).arg(&disk).output().unwrap();
    assert!(json(&info).get("backing-filename").is_none(), "{}", text(&info));
    let check = Command::new("qemu-img").args(["check", "-q"]).arg(&disk).output().unwrap();
    assert!(check.status.success(), "{}", text(&check));
    // Without the vault and without a server it starts again.
    site.host.ask(&["start", "web01"]);
    crate::cli::schemas::check(&[("recover-end", committed), ("recover-end", rolled_back)]);
}

#[test]
fn a_kill_at_some_steps_is_gone_on_with() {
    killed_at_every(4);
}

#[test]
#[ignore = "a quarter of the steps are in make test: make matrix"]
fn a_kill_at_any_step_is_gone_on_with() {
    killed_at_every(1);
}

/// Killed at calls of virsh, before and after they are carried out: the same command goes on, and so does the removal; neither
/// leaves anything.
fn killed_at_every(step: usize) {
    let _place = crate::boots::place();
    let Some(site) = Site::new() else { return };
    let bin = site.out.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let fake = bin.join("virsh");
    let script = "#!/bin/sh\nread -r n <\"$CALLS\" || n=0\nn=$((n + 1))\necho $n >\"$CALLS\"\n\
        [ $n -ne \"$KILL_AT\" ] || [ $((n % 2)) -eq 1 ] || { kill -9 $PPID; exit 1; }\n\
        /usr/bin/virsh \"$@\" && status=0 || status=$?\n\
        [ $n -ne \"$KILL_AT\" ] || kill -9 $PPID\nexit $status\n";
    fs::write(&fake, script).unwrap();
    fs::set_permissions(&fake, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let calls = site.out.path().join("calls");
    let cut = |command: &mut Command, at: usize| {
        fs::write(&calls, "0").unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("CALLS", &calls).env("KILL_AT", at.to_string());
    };
    let made = || fs::read_to_string(&calls).unwrap().trim().parse::<usize>().unwrap();
    let (mut most_begun, mut most_ended) = (0, 0);
    // An even one is killed before its call, an odd one behind it.
    for at in (1..).step_by(step).map(|at| at + at / step % 2) {
        let mut command = site.recover("test", &[]);
        cut(&mut command, at);
        let (serving, document) = Serving::start(&mut command);
        let was_cut = document.is_none();
        serving.kill();
        most_begun = most_begun.max(made());
        // It is gone on with, or removed as it is.
        if at % 3 != 0 {
            let deadline = Instant::now() + Duration::from_secs(120);
            let (serving, document) = Serving::begin(&mut site.recover("test", &[]));
            assert_eq!(document["registration"]["outcome"], "registered", "call {at}: {document:#}");
            while site.state("web01-test") != "running" {
                assert!(Instant::now() < deadline, "call {at}: {}", site.state("web01-test"));
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(serving.stop(), 0);
            assert_eq!(site.held(), 1, "call {at}");
        }
        let place = site.place("web01-test");
        let mut was_ended = true;
        if place.exists() {
            let mut command = site.end("remove", "web01-test");
            cut(&mut command, at);
            let output = command.output().unwrap();
            was_ended = output.status.success();
            most_ended = most_ended.max(made());
            if !was_ended && place.exists() {
                done(&mut site.end("remove", "web01-test"));
            }
        }
        if site.held() > 0 {
            // It was cut off before there was a recovery, or behind its last step.
            done(&mut site.end("remove", "web01-test"));
        }
        assert!(!place.exists(), "call {at}");
        assert_eq!(names(site.out.path()), [".points", ".prepared", "bin", "calls"], "call {at}");
        assert_eq!((site.host.has(), site.held()), ((String::new(), String::new()), 0), "call {at}");
        if !was_cut && was_ended {
            break;
        }
    }
    assert!(most_begun > 8 && most_ended > 4, "{most_begun} calls to begin, {most_ended} to end");
}
