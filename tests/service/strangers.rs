//! Who may do what: without credentials nothing, and with them what the service's file says.

use super::*;
use crate::receive::tls::{Authority, connect};
use landfall::service::run::Bound;
use landfall_image::convert::Cancel;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_client_writes_to_the_machines_that_it_is_named_for() {
    let authority = Authority::new();
    let file = |name: &str| authority.path(name).display().to_string();
    let site = Site::new(&format!(
        "[receive]\nlisten = [\"127.0.0.1:0\"]\ncertificate = {:?}\nkey = {:?}\nclients_ca = {:?}\n\
         client = [{{ subject = 'CN=web01,O=Example\\, Inc.', machines = [\"web*\"] }}]\n",
        file("server-cert.pem"),
        file("server-key.pem"),
        file("ca-cert.pem"),
    ));
    for machine in ["web01", "web02", "db01"] {
        site.protect(machine, &["sda"], 1 << 20);
    }
    let bound = Bound::open(site.config(), None).unwrap();
    let address = bound.addresses()[0];
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| bound.run(&cancel));
        let open =
            |machine: &str, own| connect(&format!("nbds://{address}/{machine}/sda"), authority.files(own));
        open("web01", Some("client")).unwrap();
        open("web02", Some("client")).unwrap();
        // What it may not write to is not there.
        let hidden = open("db01", Some("client")).err().unwrap().to_string();
        let missing = open("nobody", Some("client")).err().unwrap().to_string();
        assert_eq!(hidden.replace("db01", "nobody"), missing);
        // The server's own certificate is of the authority, and named nowhere.
        assert!(open("web01", Some("server")).is_err());
        assert!(open("web01", None).is_err());
        let mode = |name: &str| std::fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode("vault"), 0o700);
        for socket in ["receive", "points", "api"] {
            assert_eq!(mode(&format!("sockets/{socket}.sock")), 0o600);
        }
        cancel.cancel();
        running.join().unwrap().unwrap();
    });
}

/// Whoever is not let in hears nothing of it; the log of the service has the line that would let it in, and not without end.
#[test]
fn who_is_not_named_is_told_of_in_the_log() {
    let authority = Authority::new();
    let file = |name: &str| authority.path(name).display().to_string();
    let mut site = Site::new(&format!(
        "[receive]\nlisten = [\"127.0.0.1:0\"]\ncertificate = {:?}\nkey = {:?}\nclients_ca = {:?}\n\
         client = [{{ subject = \"CN=hv1\", machines = [\"*\"] }}]\n",
        file("server-cert.pem"),
        file("server-key.pem"),
        file("ca-cert.pem"),
    ));
    site.protect("web01", &["sda"], 1 << 20);
    site.start();
    let address = |site: &Site| {
        let begin = Instant::now();
        loop {
            let log = site.log();
            let last = log.rsplit_once("nbd=[").and_then(|(_, rest)| rest.split_once(']'));
            if let Some((address, _)) = last {
                return address.to_owned();
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let open =
        |address: &str| connect(&format!("nbds://{address}/web01/sda"), authority.files(Some("client")));
    let here = address(&site);
    for _ in 0..30 {
        assert!(open(&here).is_err());
    }
    let log = site.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("the line for it is: ")).collect();
    assert!(!lines.is_empty() && lines.len() <= 25, "{log}");
    // As it is written there, it lets in.
    let (_, rule) = lines[0].split_once("the line for it is: ").unwrap();
    let rule = rule.split(" export=").next().unwrap();
    assert_eq!(rule, r#"subject = "CN=web01,O=Example\\, Inc.""#);
    site.stop();
    let file = site.path("landfall.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("subject = \"CN=hv1\"", rule)).unwrap();
    std::fs::remove_file(site.path("log")).unwrap();
    site.start();
    open(&address(&site)).unwrap();
}

#[test]
fn a_second_service_on_one_vault_is_refused() {
    let site = Site::new("");
    let _first = Bound::open(site.config(), None).unwrap();
    let error = Bound::open(site.config(), None).err().unwrap();
    assert!(error.to_string().contains("another process works on this vault"), "{error}");
    assert!(error.hint_text().is_some());
}
