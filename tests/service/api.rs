//! The service as those who run it meet it: the verbs of the command line and the API of the real program.

use super::*;
use crate::cli::schemas::check;
use crate::machines::targets;
use crate::receive::daemon::Daemon;
use crate::receive::output;
use crate::receive::tls::Authority;
use landfall::service::run::Bound;
use landfall_image::convert::Cancel;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Output;

/// Two disks, and a card; as libvirt writes it.
pub const DOMAIN: &str = "<domain type='kvm'><name>web01</name><memory unit='MiB'>512</memory><vcpu>2</vcpu>\
    <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features><devices>\
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/nowhere/a.raw'/><target dev='vda' bus='virtio'/></disk>\
    <disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='/nowhere/b.raw'/><target dev='vdb' bus='virtio'/></disk>\
    <interface type='network'><mac address='52:54:00:12:34:56'/><source network='default'/><model type='virtio'/></interface>\
    </devices></domain>";

/// Nothing is asked of the room on the machine that tests.
pub const ROOM: &str = "[upkeep]\nevery = \"2s\"\nlow = 1\nscarce = 1\n";

pub fn landfall(socket: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
    command.env_remove("LANDFALL_TOKEN").env_remove("LANDFALL_LOG").env("LANDFALL_SERVICE", socket);
    command.args(words).output().unwrap()
}

pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Site {
    /// A verb that does what it is told.
    #[track_caller]
    pub fn verb(&self, words: &[&str]) -> String {
        let output = landfall(&self.path("sockets/api.sock"), words);
        assert!(output.status.success(), "{words:?}: {}{}\n{}", out(&output), err(&output), self.log());
        out(&output)
    }

    #[track_caller]
    pub fn document(&self, words: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(words);
        let output = landfall(&self.path("sockets/api.sock"), &all);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{words:?}: {error}: {}", err(&output)))
    }

    pub fn status(&self) -> Option<i32> {
        landfall(&self.path("sockets/api.sock"), &["status"]).status.code()
    }

    pub fn wait_for_status(&self, wanted: i32) {
        let begin = Instant::now();
        while self.status() != Some(wanted) {
            assert!(begin.elapsed() < Duration::from_secs(60), "{}\n{}", self.verb(&["alarms"]), self.log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the API answers at a path.
    fn get(&self, path: &str) -> Vec<u8> {
        self.call("GET", path, "")
    }

    /// What the API answers to a document.
    pub fn put(&self, path: &str, document: &Value) -> Value {
        serde_json::from_slice(&self.call("PUT", path, &document.to_string())).unwrap()
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let mut stream = UnixStream::connect(self.path("sockets/api.sock")).unwrap();
        let len = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n{body}"
        )
        .unwrap();
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).unwrap();
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        assert!(raw.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&raw));
        raw[end + 4..].to_vec()
    }
}

/// The lines that `protect` prints are given to QEMU as they are; then the machine is protected, and its points hold what its disks do.
#[test]
fn a_machine_is_protected_by_what_the_program_says_itself() {
    let source = tempfile::tempdir().unwrap();
    let Some(mut daemon) = Daemon::start(source.path(), &["vda", "vdb"], 4 << 20) else { return };
    let mut site = Site::new(&format!("[protect]\ncheckpoint = \"1s\"\n{ROOM}"));
    let definition = site.path("web01.xml");
    std::fs::write(&definition, DOMAIN).unwrap();
    let definition = definition.to_str().unwrap();
    // Nobody is there yet.
    let early = landfall(&site.path("sockets/api.sock"), &["status"]);
    assert_eq!(early.status.code(), Some(2));
    assert!(err(&early).contains("hint: start it"), "{}", err(&early));
    site.start();
    assert_eq!(site.status(), Some(0), "nothing is unprotected");
    // libvirt's definition says no sizes.
    let refused = landfall(&site.path("sockets/api.sock"), &["protect", "web01", definition]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("--disk vda=SIZE --disk vdb=SIZE"), "{}", err(&refused));
    let protected = site.verb(&["protect", "web01", definition, "--disk", "vda=4M", "--disk", "vdb=4M"]);
    assert_eq!(site.status(), Some(1), "no point yet");
    for line in protected.lines().map(str::trim).filter(|line| line.starts_with('{')) {
        let mut command: Value = serde_json::from_str(line).unwrap();
        let arguments = &mut command["arguments"];
        if arguments["device"] == "NODE" {
            arguments["device"] =
                arguments["job-id"].as_str().unwrap().strip_prefix("landfall-").unwrap().into();
        }
        let arguments = arguments.clone();
        let is_mirror = command["execute"] == "blockdev-mirror";
        daemon.ask(command["execute"].as_str().unwrap(), arguments);
        if is_mirror {
            daemon.event("BLOCK_JOB_READY");
        }
    }
    site.wait_for_status(0);
    daemon.io("vda", &["write -P 7 1M 64k".into()]);
    let set = site.document(&["points", "create", "web01", "--tag", "before the upgrade", "--application"]);
    daemon.io("vda", &["write -P 8 1M 64k".into()]);
    let shown = site.document(&["points", "show", "web01", "tag:before the upgrade"]);
    assert_eq!(shown["point"]["number"], set["point"]["number"]);
    assert_eq!(shown["definition"]["memory"], 512 << 20);
    // What the URI of the point gives is what the disk held then, to a client of another maker.
    let disk = &shown["disks"][0];
    assert_eq!((disk["name"].as_str(), disk["size"].as_u64()), (Some("vda"), Some(4 << 20)));
    let copy = site.path("copy.raw");
    let uri = disk["uri"].as_str().unwrap();
    output(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw", uri]).arg(&copy));
    let mut wanted = daemon.content("vda");
    wanted[1 << 20..(1 << 20) + (64 << 10)].fill(7);
    assert!(std::fs::read(&copy).unwrap() == wanted);
    // And its digest is that of the copy.
    let verified = site.document(&["points", "verify", "web01", "tag:before the upgrade"]);
    assert_eq!(verified["verdict"], "matched");
    let info = Command::new(assert_cmd::cargo::cargo_bin("landfall"))
        .args(["--json", "disk", "info", "--digest", "-f", "raw"])
        .arg(&copy)
        .output()
        .unwrap();
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!(verified["disks"][0]["digest"], info["content_digest"]);
    let number = set["point"]["number"].to_string();
    let tagged = site.document(&["points", "tag", "web01", &number, "kept"]);
    let listed = site.verb(&["points", "list", "web01"]);
    assert!(listed.contains("\"kept\", application-consistent, verified"), "{listed}");
    let refused = landfall(&site.path("sockets/api.sock"), &["points", "delete", "web01", &number]);
    assert!(err(&refused).contains("--remove"), "{}", err(&refused));
    site.verb(&["points", "tag", "web01", &number, "--remove"]);
    // Nothing that a person reads is wider than a page; addresses and commands, which are copied, are as long as they are.
    for words in [
        &["status"][..],
        &["status", "web01"],
        &["points", "list", "web01", "--all"],
        &["alarms", "--history"],
    ] {
        let text = site.verb(words);
        for line in text.lines().filter(|line| !line.contains("nbd+unix:")) {
            assert!(line.chars().count() <= 100, "{words:?}: {line}");
        }
    }
    let token = site.document(&["token", "add", "ops", "--role", "operate"]);
    let documents = [
        ("status", site.document(&["status"])),
        ("protect", site.document(&["status", "web01"])),
        ("points", site.document(&["points", "list", "web01"])),
        ("point", shown),
        ("set-point", set),
        ("set-point", tagged),
        ("verify", verified),
        ("alarms", site.document(&["alarms", "--history"])),
        ("token", token),
        ("tokens", site.document(&["token", "list"])),
        ("error", site.document(&["points", "list", "nobody"])),
    ];
    check(&documents);
    // The service is killed and starts again while the machine writes: its jobs wait for it, and go on.
    assert!(
        protected.contains("\"reconnect-delay\":25") && protected.contains("<reconnect delay='25'/>"),
        "{protected}"
    );
    site.kill();
    std::thread::scope(|scope| {
        let writing =
            scope.spawn(|| daemon.io("vda", &["write -P 9 1M 64k".into(), "write -P 9 3M 64k".into()]));
        std::thread::sleep(Duration::from_millis(300));
        site.start();
        writing.join().unwrap();
    });
    daemon.io("vdb", &["write -P 9 1M 64k".into()]);
    // Nobody can tell that from a copy that begins anew.
    let doubted = site.verb_code(&["status", "web01"], 1);
    assert!(doubted.contains("AT RISK"), "{doubted}");
    let ready = site.document(&["ready", "web01"]);
    let after = ready["point"]["number"].as_u64().unwrap_or_else(|| panic!("{ready}")).to_string();
    site.wait_for_status(0);
    let uri = |number: &str, disk: usize| {
        let point = site.document(&["points", "show", "web01", number]);
        point["disks"][disk]["uri"].as_str().unwrap().to_owned()
    };
    for (place, disk) in ["vda", "vdb"].into_iter().enumerate() {
        let uri = uri(&after, place);
        output(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "raw", &uri]).arg(&copy));
        assert!(std::fs::read(&copy).unwrap() == daemon.content(disk), "{disk}");
    }
    // The source dies: the machine is no longer protected, and the program says why and what to do.
    drop(daemon);
    site.wait_for_status(1);
    // The alarm comes with the next look at everything.
    std::thread::sleep(Duration::from_millis(2500));
    let alarms = site.verb_code(&["alarms"], 1);
    assert!(alarms.contains("[stream-gone]") && alarms.contains("fix: "), "{alarms}");
    site.kill();
    assert_eq!(site.status(), Some(2));
    // What was said of points and tokens survives a kill.
    site.start();
    assert_eq!(site.document(&["token", "list"])["tokens"][0]["name"], "ops");
    let point = site.document(&["points", "show", "web01", &number]);
    assert_eq!(point["point"].get("tag"), None);
    assert_eq!(point["point"]["verified"]["verdict"], "matched");
    // It is taken out on purpose only, and then it is gone for good.
    let refused = landfall(&site.path("sockets/api.sock"), &["unprotect", "web01"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        err(&refused).contains("points, from 20") && err(&refused).contains("--delete-points"),
        "{}",
        err(&refused)
    );
    site.verb(&["unprotect", "web01", "--delete-points"]);
    assert!(!site.path("vault/machines/web01").exists());
    for _ in 0..2 {
        site.wait_for_status(0);
        site.verb_code(&["points", "list", "web01"], 1);
        site.kill();
        site.start();
    }
    let again = site.verb(&["protect", "web01", definition, "--disk", "vda=4M", "--disk", "vdb=4M"]);
    assert!(again.contains("web01/vda"), "{again}");
    assert!(site.document(&["points", "list", "web01"])["points"].as_array().unwrap().is_empty());
}

impl Site {
    #[track_caller]
    fn verb_code(&self, words: &[&str], code: i32) -> String {
        let output = landfall(&self.path("sockets/api.sock"), words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}{}", out(&output), err(&output));
        out(&output)
    }
}

/// Other makers' readers of the two documents that the API has for programs.
#[test]
fn the_api_describes_itself_in_forms_that_others_read() {
    let Some(libraries) = targets::checkers("api") else { return };
    let mut site = Site::new(ROOM);
    site.protect("web01", &["sda"], 1 << 20);
    site.start();
    let (document, page) = (site.path("openapi.json"), site.path("metrics.txt"));
    std::fs::write(&document, site.get("/openapi.json")).unwrap();
    std::fs::write(&page, site.get("/metrics")).unwrap();
    let program = r#"
import json, sys
from openapi_spec_validator import OpenAPIV31SpecValidator as Validator
from prometheus_client.parser import text_string_to_metric_families as read
document = json.load(open(sys.argv[1]))
for error in Validator(document).iter_errors():
    sys.exit(f"{list(error.absolute_path)}: {error.message[:500]}")
families = {family.name: family for family in read(open(sys.argv[2]).read())}
machines = [sample.labels["machine"] for sample in families["landfall_points"].samples]
if machines != ["web01"] or families["landfall_nbd_requests"].type != "counter":
    sys.exit(f"{families}")
"#;
    assert_eq!(targets::python(Some(&libraries), program, &[&document, &page]), None);
    // They do find fault.
    std::fs::write(
        &document,
        String::from_utf8(site.get("/openapi.json")).unwrap().replace("\"in\":\"path\"", "\"in\":\"pth\""),
    )
    .unwrap();
    assert!(targets::python(Some(&libraries), program, &[&document, &page]).is_some());
}

#[test]
fn from_another_machine_a_token_is_needed_and_the_authority_is_named() {
    let authority = Authority::new();
    let file = |name: &str| authority.path(name).display().to_string();
    let site = Site::new(&format!(
        "{ROOM}[api]\nlisten = [\"127.0.0.1:0\"]\ncertificate = {:?}\nkey = {:?}\n",
        file("server-cert.pem"),
        file("server-key.pem"),
    ));
    let bound = Bound::open(site.config(), None).unwrap();
    let url = format!("https://{}", bound.api_addresses()[0]);
    let cancel = Cancel::default();
    let ca = file("ca-cert.pem");
    let ask = |token: Option<&str>, words: &[&str]| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("landfall"));
        command.env_remove("LANDFALL_TOKEN").env("LANDFALL_SERVICE", &url).args(words);
        if let Some(token) = token {
            command.env("LANDFALL_TOKEN", token);
        }
        command.output().unwrap()
    };
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bound.run(&cancel));
        let made = site.document(&["token", "add", "monitor"]);
        let secret = made["secret"].as_str().unwrap();
        let done = ask(Some(secret), &["status", "--tls-ca", &ca]);
        assert_eq!(done.status.code(), Some(0), "{}", err(&done));
        let refused = ask(Some(secret), &["protect", "web01", "--disk", "sda=1G", "--tls-ca", &ca]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(err(&refused).contains("has the role read, and this needs operate"), "{}", err(&refused));
        for (token, words) in [
            (None, &["status", "--tls-ca", &ca][..]),
            (Some("lf_no"), &["status", "--tls-ca", &ca]),
            // The system's authorities do not know it.
            (Some(secret), &["status"]),
        ] {
            let refused = ask(token, words);
            assert_eq!(refused.status.code(), Some(2), "{words:?}");
            assert!(err(&refused).contains("hint: "), "{}", err(&refused));
            assert!(!err(&refused).contains(secret));
        }
        // A stream goes there, and comes back, by whom that is allowed.
        let ops = site.document(&["token", "add", "ops", "--role", "operate"]);
        let ops = ops["secret"].as_str().unwrap();
        let (ceph, points) = crate::receive::rbd::source();
        let version = landfall::receive::rbd::record::Version::V1;
        let stream =
            crate::receive::rbd::exported(&ceph, site.dir.path(), None, (points[0].0, "landfall-1"), version);
        let (stream, back) = (stream.display().to_string(), site.path("back").display().to_string());
        let words = ["receive", "rbd", "web01/sda", &stream, "--tls-ca", &ca];
        let refused = ask(Some(secret), &words);
        assert!(err(&refused).contains("has the role read, and this needs operate"), "{}", err(&refused));
        let done = ask(Some(ops), &words);
        assert_eq!(done.status.code(), Some(0), "{}", err(&done));
        let words =
            ["points", "export", "web01", "sda", "-o", &back, "--snapshot", "landfall-1", "--tls-ca", &ca];
        let done = ask(Some(ops), &words);
        assert_eq!(done.status.code(), Some(0), "{}", err(&done));
        assert!(std::fs::read(&back).unwrap() == std::fs::read(&stream).unwrap());
        site.verb(&["token", "remove", "monitor"]);
        assert_eq!(ask(Some(secret), &["status", "--tls-ca", &ca]).status.code(), Some(2));
        cancel.cancel();
        running.join().unwrap().unwrap();
    });
}

/// An alarm reaches the webhook of the real program, and so does its end.
#[test]
fn the_webhook_hears_of_a_stream_that_went_and_came_back() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hook = listener.local_addr().unwrap();
    let mut site = Site::new(&format!("{ROOM}[alarm]\nwebhook = \"http://{hook}/alarms\"\n"));
    site.protect("web01", &["sda"], 1 << 20);
    site.start();
    let take = || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut raw = Vec::new();
        let mut part = [0; 4096];
        let text = loop {
            let read = stream.read(&mut part).unwrap();
            raw.extend_from_slice(&part[..read]);
            let end = raw.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
            let body = end.and_then(|end| serde_json::from_slice::<Value>(&raw[end..]).ok());
            if let Some(body) = body {
                break body;
            }
            assert!(read > 0, "{}", String::from_utf8_lossy(&raw));
        };
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        text
    };
    let first = take();
    assert_eq!(
        (first["change"].as_str(), first["alarm"]["id"].as_str()),
        (Some("began"), Some("copy-needed"))
    );
    // A restart is no news: what was on goes on, and its end is told.
    std::thread::sleep(Duration::from_millis(500));
    site.kill();
    site.start();
    let began = || -> usize {
        let history = site.document(&["alarms", "--history"]);
        let events = history["history"].as_array().unwrap_or_else(|| panic!("{history}"));
        events.iter().filter(|event| event["change"] == "began").count()
    };
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(began(), 1);
    site.verb(&["ready", "web01"]);
    let second = take();
    assert_eq!(
        (second["change"].as_str(), second["alarm"]["id"].as_str()),
        (Some("ended"), Some("copy-needed"))
    );
    check(&[("webhook", first), ("webhook", second)]);
}
