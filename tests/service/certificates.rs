//! Certificates that the service hands out: what each lets its holder do, with QEMU as the client; and points that are read from another machine.

use super::*;
use crate::receive::nbdsh::python;
use crate::service::api::{err, out};
use landfall::authority::Authority;
use landfall::receive::rights::Rights;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Output, Stdio};

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// `qemu-img convert` from or to an export over TLS, with the files in a folder.
fn qemu_img(folder: &Path, port: u16, export: &str, raw: &Path, is_target: bool) -> Output {
    let object = format!("tls-creds-x509,id=tls0,endpoint=client,dir={}", folder.display());
    let there = format!(
        "driver=raw,file.driver=nbd,file.host=127.0.0.1,file.port={port},file.export={export},file.tls-creds=tls0"
    );
    let here = format!("driver=raw,file.driver=file,file.filename={}", raw.display());
    let mut command = Command::new("qemu-img");
    command.args(["convert", "--object", &object]);
    match is_target {
        true => command.args(["-n", "--image-opts", &here, "--target-image-opts", &there]),
        false => command.args(["-O", "raw", "--image-opts", &there]).arg(raw),
    };
    command.output().unwrap()
}

/// Reads a disk again and again; 7 where that has come to its end.
const READS_ON: &str = r"
import nbd, sys, time
folder, port, export = sys.argv[1:4]
h = nbd.NBD()
h.set_tls(nbd.TLS_REQUIRE)
h.set_tls_certificates(folder)
h.set_export_name(export)
h.connect_tcp('localhost', port)
h.pread(4096, 0)
print('it is there', flush=True)
for _ in range(600):
    try:
        h.pread(4096, 0)
    except nbd.Error:
        sys.exit(7)
    time.sleep(0.1)
";

#[test]
fn a_certificate_allows_what_it_was_handed_out_for() {
    if Command::new("qemu-img").arg("--version").output().is_err() {
        eprintln!("SKIPPED: a_certificate_allows_what_it_was_handed_out_for: no qemu-img here");
        return;
    }
    let (nbd, api) = (free_port(), free_port());
    let mut site = Site::new(&format!(
        "[receive]\nlisten = [\"127.0.0.1:{nbd}\"]\ncertificate = \"own/server.pem\"\nkey = \"own/server.key\"\nclients_ca = \"own/ca.pem\"\n\
         [api]\nlisten = [\"127.0.0.1:{api}\"]\ncertificate = \"own/server.pem\"\nkey = \"own/server.key\"\nclients_ca = \"own/ca.pem\"\n\
         [authority]\ncertificate = \"own/ca.pem\"\nkey = \"own/ca.key\"\n"
    ));
    let authority = Authority::open(&site.path("own")).unwrap();
    let here = BTreeSet::from([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
    // Its address comes later, as DHCP's do.
    let names = BTreeSet::from(["localhost".to_owned()]);
    authority.server(&names, &BTreeSet::new()).unwrap();
    for machine in ["web01", "db01"] {
        site.protect(machine, &["sda"], 8 << 20);
    }
    site.start();
    let early =
        authority.client("early", &Rights { send: vec!["web01".into()], recover: Vec::new() }).unwrap();
    std::fs::create_dir(site.path("early")).unwrap();
    for (name, content) in
        [("ca-cert.pem", &early.ca), ("client-cert.pem", &early.certificate), ("client-key.pem", &early.key)]
    {
        std::fs::write(site.path("early").join(name), content).unwrap();
    }
    let nothing = site.path("nothing");
    std::fs::write(&nothing, vec![0; 8 << 20]).unwrap();
    let first = qemu_img(&site.path("early"), nbd, "web01/sda", &nothing, true);
    assert!(err(&first).contains("ertificate"), "{}", err(&first));
    authority.server(&names, &here).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !qemu_img(&site.path("early"), nbd, "web01/sda", &nothing, true).status.success() {
        assert!(Instant::now() < end, "the receiver keeps the certificate without its address");
        std::thread::sleep(Duration::from_millis(200));
    }
    let secret = site.document(&["token", "add", "admin", "--role", "admin"]);
    let secret = secret["secret"].as_str().unwrap().to_owned();
    let url = format!("https://127.0.0.1:{api}");
    let ask = |words: &[&str]| {
        Command::new(assert_cmd::cargo::cargo_bin("landfall"))
            .env("LANDFALL_TOKEN", &secret)
            .env("LANDFALL_SERVICE", &url)
            .current_dir(site.dir.path())
            .args(words)
            .output()
            .unwrap()
    };

    // Trusted only by the fingerprint that a person has read off the console.
    let shown = ask(&["certificate", "trust", &url]);
    let print = authority.fingerprint().unwrap();
    assert!(shown.status.code() == Some(1) && out(&shown).contains(&print), "{}{}", out(&shown), err(&shown));
    let wrong = format!("{}{}", if print.starts_with('F') { "0" } else { "F" }, &print[1..]);
    let server = std::fs::read_to_string(site.path("own/server.pem")).unwrap();
    let leaf = landfall::authority::fingerprint(&server).unwrap();
    for other in [&wrong, &leaf] {
        let refused = ask(&["certificate", "trust", &url, "--fingerprint", other]);
        assert!(
            !refused.status.success() && !site.path("ca-cert.pem").exists(),
            "{other}: {}",
            out(&refused)
        );
    }
    let done = ask(&["certificate", "trust", &url, "--fingerprint", &print]);
    assert!(done.status.success(), "{}", err(&done));
    let ca = site.path("ca-cert.pem");
    assert_eq!(std::fs::read(&ca).unwrap(), std::fs::read(site.path("own/ca.pem")).unwrap());

    let ca = ca.to_str().unwrap();
    for words in [
        ["certificate", "add", "hv1", "--send=web*", "--tls-ca", ca],
        ["certificate", "add", "dr", "--recover", "--tls-ca", ca],
        ["certificate", "add", "dbs", "--recover=db*", "--tls-ca", ca],
    ] {
        let done = ask(&words);
        assert!(done.status.success(), "{}", err(&done));
    }
    let again = ask(&["certificate", "add", "hv1", "-o", "elsewhere", "--tls-ca", ca]);
    assert!(err(&again).contains("there is a certificate"), "{}", err(&again));
    assert!(ask(&["certificate", "add", "new", "-o", "hv1", "--tls-ca", ca]).status.code() == Some(1));

    // hv1 writes to its machines, and reads nothing of the past.
    let written = site.path("written");
    std::fs::write(&written, (0..8 << 20).map(|at: u32| (at >> 9).to_le_bytes()[0]).collect::<Vec<u8>>())
        .unwrap();
    let folder = |name: &str| site.path(name);
    let done = qemu_img(&folder("hv1"), nbd, "web01/sda", &written, true);
    assert!(done.status.success(), "{}", err(&done));
    let refused = qemu_img(&folder("hv1"), nbd, "db01/sda", &written, true);
    assert!(!refused.status.success());
    // qemu-img leaves when it has flushed; only who has started it knows that it was whole.
    site.verb(&["ready", "web01"]);
    site.verb(&["points", "create", "web01"]);
    let number = *site.points_of("web01").last().unwrap();
    let (export, read) = (format!("web01/sda@{number}"), site.path("read"));
    for name in ["hv1", "dbs"] {
        assert!(
            !qemu_img(&folder(name), nbd, &export, &read, false).status.success(),
            "{name} reads a point"
        );
    }
    // dr reads, and writes nothing.
    let done = qemu_img(&folder("dr"), nbd, &export, &read, false);
    assert!(done.status.success(), "{}", err(&done));
    assert!(std::fs::read(&read).unwrap() == std::fs::read(&written).unwrap());
    assert!(!qemu_img(&folder("dr"), nbd, "web01/sda", &written, true).status.success());

    // landfall itself, from another machine.
    let inspect = ["--json", "inspect", "point:web01@latest", "--memory", "1G", "--tls-ca", ca];
    let without = ask(&inspect);
    assert!(out(&without).contains("--recover"), "{}{}", out(&without), err(&without));
    let own = [["--tls-cert", "dr/client-cert.pem"], ["--tls-key", "dr/client-key.pem"]].concat();
    let looked = ask(&[&inspect[..], &own].concat());
    let document: serde_json::Value = serde_json::from_slice(&looked.stdout).unwrap();
    assert!(document.to_string().contains("8388608"), "{}{}", out(&looked), err(&looked));

    // Taken back.
    let listed = ask(&["certificate", "list", "--tls-ca", ca]);
    assert!(out(&listed).contains("recover db*"), "{}", out(&listed));
    let reading = python().map(|mut python| {
        let there =
            ["-c", READS_ON, folder("dr").to_str().unwrap(), &nbd.to_string(), &export].map(str::to_owned);
        let mut reading = python.args(there).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut said = BufReader::new(reading.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "it is there\n");
        reading
    });
    assert!(ask(&["certificate", "remove", "dr", "--tls-ca", ca]).status.success());
    // Who is there is sent away.
    if let Some(mut reading) = reading {
        assert_eq!(reading.wait().unwrap().code(), Some(7), "it goes on reading");
    }
    assert!(!qemu_img(&folder("dr"), nbd, &export, &read, false).status.success());
    assert!(ask(&["certificate", "add", "dr", "--recover", "-o", "dr2", "--tls-ca", ca]).status.success());
    assert!(qemu_img(&folder("dr2"), nbd, &export, &read, false).status.success());
}
