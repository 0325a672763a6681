use super::*;
use crate::appliance::helper::Client;
use crate::appliance::helper::protocol::ANSWER_AT_MOST;
use crate::appliance::helper::status::{Memory, NetworkStatus, Status, TimeStatus};
use crate::appliance::kept::Loaded;
use crate::appliance::sources::{Given, Identity};
use crate::moment::Moment;
use landfall_image::{Bytes, Kind};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};

const SECRETS: [&str; 5] = [
    "hunter2",
    "aHVudGVyMmh1bnRlcjI=",
    "lf_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "BEGIN PRIVATE KEY",
    "BEGIN EC PRIVATE KEY",
];

/// Writes down what is done to it.
#[derive(Clone, Default)]
struct Double {
    done: Arc<Mutex<Vec<String>>>,
    update: Arc<Mutex<Vec<u8>>>,
    /// Whoever claims a disk waits here twice.
    gate: Option<Arc<Barrier>>,
    is_disc: bool,
}

impl Double {
    fn did(&self, what: impl Into<String>) {
        self.done.lock().unwrap().push(what.into());
    }
}

impl Machine for Double {
    fn status(&self, kept: &Loaded) -> Result<Status> {
        Ok(Status {
            version: "1".into(),
            hostname: "dr1".into(),
            network: NetworkStatus::default(),
            time: TimeStatus { now: Moment(0), is_synchronised: false, servers: Vec::new() },
            disks: Vec::new(),
            system: None,
            memory: Memory { total: Bytes(2), available: Bytes(1) },
            problems: vec!["password=hunter2".into()],
            settings: kept.effective(),
            typed: kept.typed.clone(),
            given_by: None,
        })
    }
    fn apply(&self, part: Part) -> Result<()> {
        self.did(format!("apply {part:?}"));
        match part {
            Part::TimeServers => Err(Error::unsupported("no timesyncd")),
            _ => Ok(()),
        }
    }
    fn set_clock(&self, to: Moment) -> Result<Vec<String>> {
        self.did(format!("clock {to}"));
        Ok(vec!["set".into()])
    }
    fn claim_disk(&self, disk: &str, serial: &str) -> Result<Vec<String>> {
        if let Some(gate) = &self.gate {
            gate.wait();
            gate.wait();
        }
        self.did(format!("claim {disk} {serial}"));
        Ok(Vec::new())
    }
    fn grow_disk(&self) -> Result<Vec<String>> {
        Err(Error::refused("it has not grown").hint("make it larger"))
    }
    fn can_update(&self) -> Result<()> {
        match self.is_disc {
            true => Err(Error::refused("this system runs from a disc")),
            false => Ok(()),
        }
    }
    fn update(&self, update: &mut dyn Read) -> Result<Vec<String>> {
        let mut bytes = Vec::new();
        update.read_to_end(&mut bytes).map_err(|error| Error::io("the update did not come whole", error))?;
        if bytes.starts_with(b"bad") {
            return Err(Error::corrupt("the signature is another"));
        }
        *self.update.lock().unwrap() = bytes;
        Ok(vec!["slot b".into()])
    }
    fn support(&self, take: &mut dyn FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
        let journal = format!(
            "token {}\n-----BEGIN PRIVATE KEY-----\naHVudGVyMmh1bnRlcjI=\n-----END PRIVATE KEY-----\nsecret: hunter2\nfine\n",
            SECRETS[2]
        );
        take("journal/this-boot.txt", journal.as_bytes())?;
        take("proc/cmdline.txt", b"a b password=hunter2 -----BEGIN EC PRIVATE KEY-----\\nhunter2")
    }
    fn forget_token(&self) -> Result<()> {
        self.did("forget-token");
        Ok(())
    }
    fn restart(&self) -> Result<()> {
        self.did("restart");
        Ok(())
    }
    fn power_off(&self) -> Result<()> {
        self.did("power-off");
        Ok(())
    }
    fn restart_service(&self) -> Result<()> {
        self.did("restart-service");
        Ok(())
    }
}

struct Running {
    dir: tempfile::TempDir,
    double: Double,
    cancel: Cancel,
    thread: Option<thread::JoinHandle<Result<()>>>,
}

impl Running {
    fn start(double: Double, allowed: Vec<u32>) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(dir.path().join("helper.sock")).unwrap();
        let socket = listener(OwnedFd::from(socket)).unwrap();
        let server = Server::new(Box::new(double.clone()), Kept::new(&dir.path().join("kept")), allowed);
        let cancel = Cancel::default();
        let until = cancel.clone();
        let thread = thread::spawn(move || server.run(&socket, Duration::from_secs(600), &until));
        Running { dir, double, cancel, thread: Some(thread) }
    }
    fn socket(&self) -> std::path::PathBuf {
        self.dir.path().join("helper.sock")
    }
    fn client(&self) -> Client {
        Client::new(&self.socket())
    }
    fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        // It may have refused before all of it was sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let line = read_line(&mut stream, ANSWER_AT_MOST, true).unwrap_or_default();
        String::from_utf8(line).unwrap()
    }
    fn done(&self) -> Vec<String> {
        std::mem::take(&mut *self.double.done.lock().unwrap())
    }
    fn kept(&self) -> Settings {
        Kept::new(&self.dir.path().join("kept")).load().typed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

fn request(json: &str) -> Request {
    Request::parse(json.as_bytes()).unwrap()
}

#[test]
fn what_is_asked_is_kept_and_done() {
    let running = Running::start(Double::default(), Vec::new());
    let client = running.client();
    let network = r#"{"request":"set-network","nic":[{"card":"first","addresses":["10.0.0.5/24"]}],"dns":["10.0.0.1"]}"#;
    assert!(client.change(&request(network)).unwrap().is_empty());
    assert!(client.change(&request(r#"{"request":"set-hostname","hostname":"dr1"}"#)).unwrap().is_empty());
    let status = client.status().unwrap();
    assert_eq!((status.typed.nics().len(), status.hostname.as_str()), (1, "dr1"));
    assert_eq!(status.typed, running.kept());
    // What is taken back leaves the rest.
    client.change(&request(r#"{"request":"set-network"}"#)).unwrap();
    assert_eq!((running.kept().nic, running.kept().hostname.unwrap().as_str()), (None, "dr1"));
    assert_eq!(
        client.change(&request(r#"{"request":"set-time","utc":"2026-11-29T14:03:05Z"}"#)).unwrap(),
        ["set"]
    );
    for simple in ["forget-token", "restart", "power-off", "restart-service"] {
        client.change(&request(&format!(r#"{{"request":"{simple}"}}"#))).unwrap();
    }
    client.change(&request(r#"{"request":"claim-disk","disk":"sdb","serial":"S 1"}"#)).unwrap();
    client.change(&request(r#"{"request":"set-ssh-keys","keys":[]}"#)).unwrap();
    assert_eq!(
        running.done(),
        [
            "apply Network",
            "apply HostName",
            "apply Network",
            "clock 2026-11-29 14:03:05 UTC",
            "forget-token",
            "restart",
            "power-off",
            "restart-service",
            "claim sdb S 1",
            "apply SshKeys"
        ]
    );
    let error = client.change(&request(r#"{"request":"grow-disk"}"#)).unwrap_err();
    assert_eq!((error.kind(), error.hint_text()), (Kind::Refused, Some("make it larger")));
    // What is not put into effect is kept all the same, and this is said.
    let error = client.change(&request(r#"{"request":"set-time","ntp":["10.0.0.9"]}"#)).unwrap_err();
    assert!(error.to_string().contains("it is kept, but not in effect: no timesyncd"), "{error}");
    assert_eq!(running.kept().ntp.unwrap()[0].as_str(), "10.0.0.9");
}

#[test]
fn servers_of_time_that_are_taken_back_leave_it_to_the_hypervisor() {
    let running = Running::start(Double::default(), Vec::new());
    let identity = Identity { source: "NoCloud".into(), instance: None, digest: "d".into() };
    let settings = Settings::parse("ntp = [\"10.0.0.1\"]").unwrap();
    let given = Given { identity, settings, notes: Vec::new(), unread: Vec::new() };
    assert!(Kept::new(&running.dir.path().join("kept")).take_given(&given).unwrap());
    for (line, typed, holds) in [
        (r#"{"request":"set-time","ntp":["10.0.0.9"]}"#, Some("10.0.0.9"), Some("10.0.0.9")),
        (r#"{"request":"set-time","ntp":null}"#, None, Some("10.0.0.1")),
        // None at all is a choice of its own.
        (r#"{"request":"set-time","ntp":[]}"#, Some(""), Some("")),
        (r#"{"request":"set-time"}"#, None, Some("10.0.0.1")),
    ] {
        // The double has no timesyncd: it is kept all the same.
        assert!(running.client().change(&request(line)).is_err());
        let status = running.client().status().unwrap();
        let listed = |settings: &Settings| {
            let servers = settings.ntp.as_ref()?.iter().map(|server| server.as_str());
            Some(servers.collect::<Vec<_>>().join(" "))
        };
        assert_eq!(listed(&status.typed).as_deref(), typed, "{line}");
        assert_eq!(listed(&status.settings).as_deref(), holds, "{line}");
    }
}

#[test]
fn what_is_not_valid_changes_nothing() {
    let running = Running::start(Double::default(), Vec::new());
    for (line, says) in [
        ("{\"request\":\"status\"", "ended before"),
        ("\n", "is no request"),
        ("{\"request\":\"status\"}\n{\"request\":\"restart\"}\n", "follows"),
        ("{\"request\":\"set-hostname\",\"hostname\":\"$(reboot)\"}\n", "is no host name"),
        ("{\"request\":\"claim-disk\",\"disk\":\"../sda\",\"serial\":\"\"}\n", "is no name of a disk"),
        ("{\"request\":\"set-network\",\"nic\":[{\"card\":\"first\"}]}\n", "has neither addresses nor DHCP"),
    ] {
        let answer = running.raw(line.as_bytes());
        assert!(
            answer.starts_with("{\"answer\":\"error\",\"kind\":\"refused\"") && answer.contains(says),
            "{line}: {answer}"
        );
    }
    // One byte beyond the bound, and at it.
    let long = |length: usize| format!("{{\"request\":\"status\"}}{}\n", " ".repeat(length - 21));
    assert!(running.raw(long(REQUEST_AT_MOST).as_bytes()).contains("\"answer\":\"status\""));
    assert!(running.raw(long(REQUEST_AT_MOST + 1).as_bytes()).contains("more than 65536 bytes"));
    assert_eq!((running.done(), running.kept()), (Vec::new(), Settings::default()));
}

#[test]
fn one_change_at_a_time_and_the_status_meanwhile() {
    let gate = Arc::new(Barrier::new(2));
    let running = Running::start(Double { gate: Some(Arc::clone(&gate)), ..Double::default() }, Vec::new());
    let client = running.client();
    let claim = thread::spawn(move || {
        client.change(&request(r#"{"request":"claim-disk","disk":"sdb","serial":""}"#))
    });
    gate.wait();
    for other in ["restart-service", "forget-token", "grow-disk", "update"] {
        let error = running.client().change(&request(&format!(r#"{{"request":"{other}"}}"#))).unwrap_err();
        assert!(error.to_string().contains("another change is under way"), "{other}: {error}");
    }
    assert!(running.client().status().is_ok());
    // The machine can be taken down all the same.
    for down in ["restart", "power-off"] {
        running.client().change(&request(&format!(r#"{{"request":"{down}"}}"#))).unwrap();
    }
    gate.wait();
    claim.join().unwrap().unwrap();
    assert_eq!(running.done(), ["restart", "power-off", "claim sdb "]);
    // Silent connections do not keep others out for ever, and more than there is room for are told.
    let silent: Vec<_> = (0..CONNECTIONS).map(|_| UnixStream::connect(running.socket()).unwrap()).collect();
    let begin = Instant::now();
    let full = running.client().status().unwrap_err();
    assert!(full.to_string().contains("too many ask at once"), "{full}");
    drop(silent);
    while running.client().status().is_err() {
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn updates_come_whole_or_not_at_all() {
    let running = Running::start(Double::default(), Vec::new());
    let content: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_be_bytes()[3]).collect();
    assert_eq!(running.client().update(&mut content.as_slice()).unwrap(), ["slot b"]);
    assert!(*running.double.update.lock().unwrap() == content);
    let error = running.client().update(&mut &b"bad"[..]).unwrap_err();
    assert_eq!((error.kind(), error.says()), (Kind::Corrupt, "the signature is another"));
    // What cannot be taken is not asked for.
    let disc = Running::start(Double { is_disc: true, ..Double::default() }, Vec::new());
    let error = disc.client().update(&mut content.as_slice()).unwrap_err();
    assert_eq!((error.kind(), error.says()), (Kind::Refused, "this system runs from a disc"));
    // A sender that dies half-way.
    let mut stream = UnixStream::connect(running.socket()).unwrap();
    stream.write_all(b"{\"request\":\"update\"}\n").unwrap();
    assert_eq!(read_line(&mut stream, 100, true).unwrap(), b"{\"answer\":\"send\"}");
    stream.write_all(b"\0\0\0\x04ab").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let answer = String::from_utf8(read_line(&mut stream, ANSWER_AT_MOST, true).unwrap()).unwrap();
    assert!(answer.contains("the update did not come whole"), "{answer}");
    assert!(*running.double.update.lock().unwrap() == content);
}

#[test]
fn the_support_bundle_has_what_helps_and_no_secret() {
    let running = Running::start(Double::default(), Vec::new());
    running.client().change(&request(r#"{"request":"set-hostname","hostname":"dr1"}"#)).unwrap();
    let mut packed = Vec::new();
    running.client().support_bundle(&mut packed).unwrap();
    let archive = zstd::decode_all(packed.as_slice()).unwrap();
    let text = String::from_utf8_lossy(&archive);
    for file in ["status.json", "settings.toml", "journal/this-boot.txt", "proc/cmdline.txt"] {
        assert!(text.contains(&format!("landfall-support/{file}")), "{file}");
    }
    assert!(text.contains("hostname = \"dr1\"") && text.contains("fine\n") && text.contains("[left out]"));
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret}");
    }
}

#[test]
fn users_that_are_not_named_are_not_answered() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can try the helper's socket as another user");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let running = Running::start(Double::default(), vec![65_533]);
    std::fs::set_permissions(running.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(running.socket(), PermissionsExt::from_mode(0o666)).unwrap();
    let script = "import os, socket, sys\n\
                  os.setgroups([]); os.setgid(65534); os.setuid(int(sys.argv[2]))\n\
                  s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
                  try:\n    s.sendall(b'{\"request\":\"restart\"}\\n')\n\
                  except OSError:\n    pass\nprint(s.recv(65536).decode())\n";
    let ask = |uid: &str| -> Option<String> {
        let mut command = Command::new("/usr/bin/python3");
        let out =
            command.args(["-c", script]).arg(running.socket()).arg(uid).stdin(Stdio::null()).output().ok()?;
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
    };
    let Some(named) = ask("65533") else {
        eprintln!("SKIPPED: python3 is not here to try the helper's socket as another user");
        return;
    };
    assert!(named.contains("\"answer\":\"done\""), "{named}");
    assert_eq!(running.done(), ["restart"]);
    let other = ask("65534").unwrap();
    assert!(other.contains("user 65534 may not ask the helper"), "{other}");
    assert!(running.done().is_empty());
}

#[test]
fn it_ends_when_nobody_asks_and_takes_only_a_listening_socket() {
    let dir = tempfile::tempdir().unwrap();
    let socket = UnixListener::bind(dir.path().join("s")).unwrap();
    let server = Server::new(Box::new(Double::default()), Kept::new(dir.path()), Vec::new());
    server.run(&socket, Duration::from_millis(10), &Cancel::default()).unwrap();
    let (one, _other) = UnixStream::pair().unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for fd in [OwnedFd::from(one), OwnedFd::from(tcp), OwnedFd::from(file)] {
        assert_eq!(listener(fd).unwrap_err().kind(), Kind::Refused);
    }
}

#[test]
fn users_are_found_by_their_names() {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nlandfall:x:990:990::/:/bin/false\nbroken\nodd:x:y:z\n";
    assert_eq!((user(passwd, "root").unwrap(), user(passwd, "landfall").unwrap()), (0, 990));
    for name in ["", "land", "broken", "odd", "x"] {
        assert_eq!(user(passwd, name).unwrap_err().kind(), Kind::Refused, "{name}");
    }
}
